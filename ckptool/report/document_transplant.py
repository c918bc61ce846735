"""A transplant as a document: schema ``ckptool.transplant/1``, a row per tensor of the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from ckptool.commands.transplant.result import Transplant
from ckptool.core.spec import TensorSpec
from ckptool.models.entries import Entry, Filled
from ckptool.report.document import Answer, Cell, Document, Table
from ckptool.report.document_inspect import shape_text
from ckptool.report.document_plan import Mode, plan_answer
from ckptool.report.escape import terminal
from ckptool.report.html_transplant import transplant_html
from ckptool.report.json_transplant import Done, entry_fields, spec_fields, transplant_result
from ckptool.report.markdown_transplant import transplant_markdown
from ckptool.report.reasons import reason_text
from ckptool.report.results import ABOUT, transplant_findings
from ckptool.report.text_transplant import transplant_lines
from ckptool.report.units import number_of

_COLUMNS = (
    *("key", "status", "kind", "dtype", "shape", "elements", "loaded_elements"),
    *("sources", "source_spec", "how", "fit"),
)


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
        answer=plan_answer(plan, mode) or _answer(transplant),
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
        table=lambda: Table(
            _COLUMNS, chain(map(_row, transplant.entries), map(_unexpected_row, transplant.unexpected))
        ),
        listing=lambda: iter(sorted(_listing(transplant), key=lambda row: row[1])),
        screen=lambda screen: transplant_lines(transplant, screen, name=name, depth=depth, verbose=verbose),
        markdown=lambda: transplant_markdown(transplant, name, came.written, came.loads, depth, came.snippet),
        html=lambda: transplant_html(transplant, name),
        findings=lambda: transplant_findings(transplant, name),
        about=ABOUT,
        problems=(*plan.problems, *plan.unmet),
    )


def _answer(transplant: Transplant) -> Answer:
    """Whether the model gets all its weights."""
    model = terminal(transplant.target.name, 80)
    missing = [entry for entry in transplant.having(Filled.MISSING) if not entry.is_harmless]
    mismatched = transplant.having(Filled.MISMATCHED)
    total, many = number_of(len(transplant.entries), "tensor"), len(transplant.entries)
    unused = len(transplant.unexpected) + len(transplant.withheld)
    beside = f"; {number_of(unused, 'tensor')} of the source not used" if unused else ""
    if not missing and not mismatched:
        harmless = len(transplant.having(Filled.MISSING))
        text = f"complete: all {total} of {model} are filled"
        if harmless:
            text = f"complete: {many - harmless:,} of {total} of {model} are filled, evaluation does not use the others"
        return Answer(f"{text}{beside}", "warning" if unused else "good")
    counts = [f"{len(missing):,} of {total} of {model} {_are(missing)} missing"] if missing else []
    of = "" if missing else f" of {total} of {model}"
    counts += [f"{len(mismatched):,}{of} {_have(mismatched)} another shape"] if mismatched else []
    return Answer(f"incomplete: {', '.join(counts)}{beside}", "warning")


def _are(entries: Sequence[Entry]) -> str:
    return "is" if len(entries) == 1 else "are"


def _have(entries: Sequence[Entry]) -> str:
    return "has" if len(entries) == 1 else "have"


def _row(entry: Entry) -> Sequence[Cell]:
    spec = entry.spec
    return (
        *(spec.key, entry.status.value, entry.kind or None, spec.dtype, shape_text(spec.shape), spec.elements),
        entry.covered if entry.is_filled else 0,
        " ".join(entry.sources),
        *(entry.found or None, reason_text(entry.reason), entry.fit or None),
    )


def _unexpected_row(spec: TensorSpec) -> Sequence[Cell]:
    return (
        spec.key,
        "unexpected",
        None,
        spec.dtype,
        shape_text(spec.shape),
        spec.elements,
        0,
        spec.key,
        None,
        "",
        None,
    )


def _listing(transplant: Transplant) -> Iterator[tuple[str, str, str, str]]:
    """``status, key, source spec, model spec``; ``-`` where there is none."""
    for entry in transplant.entries:
        yield entry.status.value, entry.key, entry.found or "-", entry.spec.short
    for spec in transplant.unexpected:
        yield "unexpected", spec.key, spec.short, "-"
