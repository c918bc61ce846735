"""A transplant as a document: schema ``ckptool.transplant/1``, a row per tensor of the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from ckptool.commands.transplant.result import Transplant
from ckptool.core.counts import many
from ckptool.core.plan import Plan
from ckptool.core.shell import shell_quote
from ckptool.core.spec import TensorSpec
from ckptool.models import Verdict
from ckptool.models.entries import Entry, Filled
from ckptool.report.about import ABOUT
from ckptool.report.blocks import Block, Chart, Code, Column, Facts, Item, Items, Notes, Rows, Series, Side, Sides
from ckptool.report.document import Answer, Document, Field, Status, Table
from ckptool.report.document_plan import Mode, plan_answer, reads_blocks, written_blocks
from ckptool.report.document_probe import probe_answer, probe_blocks
from ckptool.report.escape import terminal
from ckptool.report.json_transplant import Done, entry_fields, spec_fields, transplant_result
from ckptool.report.match_rows import match_blocks
from ckptool.report.reasons import reason_text
from ckptool.report.sides import side_of
from ckptool.report.symbols import STYLES
from ckptool.report.transplant_rows import (
    STATES,
    SYMBOLS,
    entry_rows,
    freeze_text,
    module_rows,
    refusal_text,
    summary_text,
    target_text,
    unexpected_names,
    verdict_texts,
)
from ckptool.report.units import shape_text

if TYPE_CHECKING:
    from ckptool.commands.checks.finding import Report


def transplant_document(
    transplant: Transplant,
    name: str,
    mode: Mode,
    done: Done | None = None,
    depth: int | None = None,
    verbose: bool = False,
) -> Document:
    """A transplant, and what came of it.

    Args:
        transplant: what goes where.
        name: the source as it was typed.
        mode: whether it is written, or why not.
        done: what came of it; None before.
        depth: levels of modules shown.
        verbose: a row per tensor on a screen.
    """
    came = done or Done()
    plan = transplant.plan
    return Document(
        command="transplant",
        answer=_answer(transplant, mode, came),
        blocks=lambda: _blocks(transplant, name, came, depth, verbose),
        table=lambda: _table(transplant),
        result=lambda: transplant_result(transplant, name, came),
        records=lambda: chain(
            map(entry_fields, transplant.entries),
            ({"unexpected": spec_fields(spec)} for spec in transplant.unexpected),
            ({"dropped": {"key": row.source.key, "why": reason_text(row.reason)}} for row in plan.dropped),
        ),
        summary=lambda: {
            **{status.value: len(transplant.having(status)) for status in Filled},
            "unexpected": len(transplant.unexpected),
            "exit_code": int(came.exit_code),
        },
        listing=lambda: iter(sorted(_listing(transplant), key=lambda row: row[1])),
        findings=lambda: _findings(transplant, name),
        about=ABOUT,
        problems=(*plan.problems, *plan.unmet),
        verbose=verbose,
        typed=f"ckptool transplant {shell_quote(name)} --into {shell_quote(transplant.target.name)}",
    )


def _findings(transplant: Transplant, name: str) -> Report:
    from ckptool.report.results import transplant_findings

    return transplant_findings(transplant, name)


def _answer(transplant: Transplant, mode: Mode, came: Done) -> Answer:
    """What a probe found against it, what forbids it, or whether the model gets all its weights."""
    if came.probe is not None and not came.probe.agree:
        return probe_answer(came.probe)
    answer = plan_answer(transplant.plan, mode) or _loaded(transplant)
    return answer if came.probe is None else Answer(f"{answer.text}; {probe_answer(came.probe).text}", answer.mood)


def _loaded(transplant: Transplant) -> Answer:
    """Whether the model gets all its weights."""
    model = terminal(transplant.target.name, 80)
    new = transplant.new
    left = [entry for entry in transplant.having(Filled.MISSING) if entry.key not in new]
    missing = [entry for entry in left if not entry.is_harmless]
    mismatched = [entry for entry in transplant.having(Filled.MISMATCHED) if entry.key not in new]
    number = len(transplant.entries)
    total = many(number, "tensor")
    unused = len(transplant.unexpected) + len(transplant.withheld)
    beside = f"; {many(unused, 'tensor')} of the source not used" if unused else ""
    if not missing and not mismatched:
        harmless = len(left)
        filled = f"the only tensor of {model} is filled" if number == 1 else f"all {total} of {model} are filled"
        text = f"complete: {filled}"
        if harmless or new:
            text = f"complete: {number - harmless - len(new):,} of {total} of {model} are filled"
        if new:
            text += f", {len(new):,} {'is' if len(new) == 1 else 'are'} new on purpose"
        if harmless:
            text += f", evaluation does not use {f'the other {harmless:,}' if new else 'the others'}"
        return Answer(f"{text}{beside}", "warning" if unused else "good")
    counts = [f"{len(missing):,} of {total} of {model} {_are(missing)} missing"] if missing else []
    of = "" if missing else f" of {total} of {model}"
    counts += [f"{len(mismatched):,}{of} {_have(mismatched)} another shape"] if mismatched else []
    return Answer(f"incomplete: {', '.join(counts)}{beside}", "warning")


def _are(entries: Sequence[Entry]) -> str:
    return "is" if len(entries) == 1 else "are"


def _have(entries: Sequence[Entry]) -> str:
    return "has" if len(entries) == 1 else "have"


# ---------------------------------------------------------------------------------------------- for people

_MODULES = (Column("module", "key", least=12), Column("tensors", "whole"), Column("loaded", "share"), Column("state"))
_KEYS = (
    Column("", "mark"),
    Column("key", "key", least=14),
    Column("n", "whole"),
    Column("elements", "count", wide=True),
    Column("what", wraps=True),
)


def _blocks(transplant: Transplant, name: str, came: Done, depth: int | None, verbose: bool) -> Iterator[Block]:
    """Source and target, what is wrong, bars per module, what became of every key, what torch says, the sum."""
    target = Side(transplant.target.name, (target_text(transplant),), "target")
    yield Sides((side_of(transplant.source, name, "source"), target))
    notes = transplant.plan.notes
    yield Notes([note for note in notes if note.level == "warning"])
    yield from match_blocks(transplant.match)
    yield Rows(_MODULES, lambda: module_rows(transplant, depth))
    yield _chart(transplant)
    each = Rows(_KEYS, lambda: entry_rows(transplant, each=True))
    yield Rows(_KEYS, lambda: entry_rows(transplant), each)
    yield from reads_blocks(transplant.plan)
    frozen = freeze_text(transplant)
    yield Facts(
        (
            *(("torch", [text]) for text in verdict_texts(transplant)),
            ("freeze", [frozen] if frozen else []),
            ("kept beside the weights", list(_files(transplant.plan))),
            ("not taken", [extra.name for extra in transplant.source.extras]),
        )
    )
    yield Notes([note for note in notes if note.level != "warning"])
    yield Facts((("loaded", [summary_text(transplant)]),))
    if came.probe is not None:
        yield from probe_blocks(came.probe, verbose)
    yield from done_blocks(transplant, came)


def _files(plan: Plan) -> Iterator[str]:
    """The files of both folders that the output's holds, and whose they are."""
    by_input: dict[int, list[str]] = {}
    for file in plan.files:
        by_input.setdefault(file.input, []).append(file.name)
    yield from (f"{', '.join(names)} of {plan.inputs[number].path.name}" for number, names in by_input.items())


def _chart(transplant: Transplant) -> Chart:
    """The model, module by module, with the state of each."""
    shares = list(transplant.modules.values())
    styles = tuple(STATES[share.state] for share in shares)
    loaded = Series("loaded from the source", tuple(share.share for share in shares), "percent", styles=styles)
    return Chart("modules: loaded, partly loaded, new", tuple(share.name for share in shares), (loaded,))


def done_blocks(transplant: Transplant, came: Done, name: str = "", files: Sequence[str] = ()) -> Iterator[Block]:
    """What was written, and whether it loads: the last line says whether all is well.

    Args:
        transplant: what was done.
        came: what came of it.
        name: the output as it was typed.
        files: further files that were written.
    """
    if came.snippet is not None:
        yield Code(came.snippet)
    if came.written is not None:
        yield from written_blocks(
            came.written, name or str(came.written.path), files, is_part=transplant.asked.only_loaded
        )
    if came.loads is not None:
        mark = "loads" if came.loads.strict or transplant.asked.only_loaded else "does not load"
        style = "green" if came.loads.strict else "" if transplant.asked.only_loaded else "red"
        yield Items((Item(mark, _loads_text(transplant, came.loads), style=style),))  # type: ignore[arg-type]


def _loads_text(transplant: Transplant, verdict: Verdict) -> str:
    """``into net.py:Net with strict=True: yes``"""
    into = f"into {transplant.target.name}"
    if verdict.strict:
        return f"{into} with strict=True: yes"
    if transplant.asked.only_loaded and not (verdict.unexpected or verdict.mismatched) and verdict.missing:
        return f"{into} with strict=False: {many(len(verdict.missing), 'key')} keep the model's own"
    keys = verdict.missing or verdict.unexpected or verdict.mismatched
    hint = "" if keys or not transplant.plan.module_versions else "; only a .pth states module versions"
    return f"{into} with strict=True: no, {refusal_text(verdict)}{hint}"


# ---------------------------------------------------------------------------------------------- for programs

_LABELS = ("mismatched", "missing", "unexpected", "fitted", "cast", "filled")
_FIELDS = (
    Field("key"),
    Field("status"),
    Field("", "tensors", "tensors"),
    Field("", "spec", "spec"),
    Field("kind", "kind", panel=True),
    Field("dtype"),
    Field("shape"),
    Field("elements"),
    Field("", "elements", "count", "add"),  # of the model's own
    Field("loaded_elements", "loaded", "ratio", "add", of="elements"),
    Field("sources", "source key", "key"),
    Field("source_spec", "source spec", panel=True),
    Field("how", "how"),
    Field("fit", "fit", panel=True),
)


def _table(transplant: Transplant) -> Table:
    """Every tensor of the model, what it is made of, and what the source has besides."""
    statuses = tuple(Status(SYMBOLS[label], label, STYLES[SYMBOLS[label]]) for label in _LABELS)
    names, _ = unexpected_names(transplant)
    rows = chain(map(_row, transplant.entries), map(_unexpected_row, transplant.unexpected, names))
    return Table(_FIELDS, rows, statuses)


def _row(entry: Entry) -> Sequence[Any]:
    spec = entry.spec
    return (
        *(spec.key, entry.status.value, None, spec.short, entry.kind or None, spec.dtype, shape_text(spec.shape)),
        *(spec.elements, spec.elements, entry.covered if entry.is_filled else 0, " ".join(entry.sources)),
        *(entry.found or None, reason_text(entry.reason), entry.fit or None),
    )


def _unexpected_row(spec: TensorSpec, name: str) -> Sequence[Any]:
    return (
        *(spec.key, "unexpected", None, spec.short, None, spec.dtype, shape_text(spec.shape)),
        *(spec.elements, None, 0, name, None, "the model has no such key", None),
    )


def _listing(transplant: Transplant) -> Iterator[tuple[str, str, str, str]]:
    """``status, key, source spec, model spec``; ``-`` where there is none."""
    for entry in transplant.entries:
        yield entry.status.value, entry.key, entry.found or "-", entry.spec.short
    for spec in transplant.unexpected:
        yield "unexpected", spec.key, spec.short, "-"
