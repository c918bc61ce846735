"""A probe as a document: what was run, and the first module that differs, or that all agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ckptool.core.counts import many
from ckptool.models.probing.report import Divergence, ProbeReport
from ckptool.models.probing.rounding import EXACT
from ckptool.report.blocks import Block, Facts, Item, Items, Notes
from ckptool.report.document import Answer, Document, Field, Status, Table
from ckptool.report.escape import terminal
from ckptool.report.json_probe import divergence_fields, probe_fields
from ckptool.report.reasons import reason_text
from ckptool.report.symbols import STYLES
from ckptool.report.units import relative

_MANY = 3  # names in a line
_RULES = 4


_FIELDS = (Field("key"), Field("status"), Field("source", "source key", "key"), Field("error", "error", "real", "max"))
_STATUSES = (Status("~", "differs", STYLES["~"]), Status("?", "not compared", STYLES["?"]))


def probe_document(report: ProbeReport, exit_code: int = 0) -> Document:
    """A probe by itself: schema ``ckptool.probe/1``, a row per module that differs or was not compared."""
    return Document(
        command="probe",
        answer=probe_answer(report),
        blocks=lambda: probe_blocks(report),
        table=lambda: Table(_FIELDS, _rows(report), _STATUSES),
        result=lambda: (("schema", "ckptool.probe/1"), ("exit_code", int(exit_code)), *probe_fields(report).items()),
        records=lambda: map(divergence_fields, report.differing),
        summary=lambda: {"compared": report.compared, "agreeing": report.agreeing, "exit_code": int(exit_code)},
        listing=lambda: ((row[1], row[0], row[2]) for row in sorted(_rows(report))),
    )


def _rows(report: ProbeReport) -> Iterator[tuple[str, str, str, float | None]]:
    yield from ((row.target, "differs", row.source, row.error) for row in report.differing)
    yield from ((row.target, "not compared", "", None) for row in report.skipped)


def probe_answer(report: ProbeReport) -> Answer:
    """Whether both models compute the same."""
    if report.first is not None:
        first = next(divergence_texts(report.first, is_first=True))
        return Answer(f"not the same outputs: {terminal(first)}", "bad")
    if report.is_proof:
        return Answer(f"same outputs: {sum_text(report)}", "good")
    return Answer(f"not proven: {sum_text(report)}", "warning")


def probe_blocks(report: ProbeReport, verbose: bool = False) -> Iterator[Block]:
    """All there is to say of a probe, what it comes to last; `verbose` lists every module that was not compared."""
    ran = f"{report.source_model} against {report.target}, input {' and '.join(report.inputs)}"
    yield Facts((("probe", [f"{ran}, {report.precision}, seed {report.seed}"]),))
    yield Items(tuple(_items(report, verbose)))
    yield Notes(report.notes)


def _items(report: ProbeReport, verbose: bool) -> Iterator[Item]:
    shown = report.differing if verbose else report.differing[:_MANY]
    for at, row in enumerate(shown):
        first, *more = divergence_texts(row, at == 0)
        yield Item("~", first, tuple(more), style="red", loud=True)
    if hidden := len(report.differing) - len(shown):
        yield Item("~", f"{many(hidden, 'more module')} differ for no reason before them: -v")
    if report.following:
        yield Item("~", f"{many(report.following, 'more module')} differ behind that")
    if report.divided:
        same = "what is computed from them matches: the two models split the computation differently"
        yield Item("=", f"{_modules(report.divided)} differ, but {same}")
    groups: dict[str, list[str]] = {}
    for skipped in report.skipped:
        groups.setdefault(skipped.why, []).append(skipped.target)
    for why, modules in groups.items():
        if verbose or report.unproven or report.differing:
            named = ", ".join(modules) if verbose else _modules(tuple(modules))
            yield Item("?", f"not compared, {named}: {why}")
    if report.unproven and not report.differing:
        yield Item("?", f"not verified: {_names(report.unproven)}")
    yield Item("=" if report.is_proof else "~" if report.differing else "?", sum_text(report))


def sum_text(report: ProbeReport) -> str:
    """What a probe comes to, in a sentence."""
    compared = many(report.compared, "module")
    if not report.agreeing and not report.differing:
        return "nothing could be compared: no module has the same tensors and the same input in both models"
    agree = f"{report.agreeing + len(report.divided):,} of {compared} agree"
    if report.agreeing:
        agree += f" within {relative(max(report.largest, EXACT))}"
    if report.first is not None:
        return agree
    proven = report.filled - len(report.unproven)
    share = f"all {report.filled:,}" if report.is_proof else f"{proven:,} of {report.filled:,}"
    return f"{agree}, made of {share} filled tensors"


def divergence_texts(row: Divergence, is_first: bool) -> Iterator[str]:
    """What is to be said of a module that differs, a sentence each; the first names it."""
    shape = f"gives {_shape(row.shapes[0])}, the source {_shape(row.shapes[1])}"
    far = shape if math.prod(row.shapes[0]) != math.prod(row.shapes[1]) else f"off by {relative(row.error)}"
    yield f"{_name(row.target)} differs{' first' if is_first else ''}: {far}   <- {_name(row.source)}"
    if row.input_error is not None and row.input_error <= row.limit:
        yield "its input agrees: the fault is in its own tensors or settings"
        for setting, mine, other in row.settings:
            yield f"{setting} is {mine}, in the source's {other}"
        if not row.settings and row.classes[0] != row.classes[1]:
            yield f"it is {row.classes[0]}, the source's is {row.classes[1]}"
    else:
        yield "its input differs already"
        if row.after:
            said = [f"{_name(mine)} <- {_name(other)}" for mine, other in row.after[-_MANY:]]
            yield f"it is computed from what agrees: {', '.join(said)}{_more(row.after)}"
        if row.source_after:
            yield f"in the source it comes after {_names(row.source_after)}: it stands in another place"
        if row.between:
            yield f"between them, and with no counterpart of their own: {_names(row.between)}"
    for key, origins, reason in row.origins[:_RULES]:
        yield f"{key} <- {', '.join(origins)}, {reason_text(reason)}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _name(module: str) -> str:
    return module or "the model itself"


def _names(names: Sequence[str]) -> str:
    """The last few of some names, the nearest."""
    return ", ".join(_name(name) for name in names[-_MANY:]) + _more(names)


def _more(names: Sequence[object]) -> str:
    return f" and {len(names) - _MANY:,} more" if len(names) > _MANY else ""


def _modules(names: Sequence[str]) -> str:
    if len(names) == 1:
        return _name(names[0])
    return f"{many(len(names), 'module')} ({_name(names[0])}, ...)"
