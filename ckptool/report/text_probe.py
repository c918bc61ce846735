"""A probe as text: what was run, and the first module that differs, or that all agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ckptool.models.probing.report import Divergence, ProbeReport
from ckptool.models.probing.rounding import EXACT
from ckptool.report.escape import terminal
from ckptool.report.reasons import reason_text
from ckptool.report.text import Line, Screen, Span, Style, wrap
from ckptool.report.text_inspect import note_lines
from ckptool.report.units import number_of, relative

_MANY = 3  # names in a line
_RULES = 4


def probe_lines(report: ProbeReport, screen: Screen, verbose: bool = False) -> Iterator[Line]:
    """All lines of a probe, what it comes to last; `verbose` lists every module that was not compared."""
    ran = f"{terminal(report.source_model)} against {terminal(report.target)}, input {' and '.join(report.inputs)}"
    yield from _row("probe", f"{ran}, {report.precision}, seed {report.seed}", screen, "dim")
    for at, row in enumerate(report.differing):
        if at < _MANY or verbose:
            yield from _divergence(row, at == 0, screen)
    hidden = 0 if verbose else max(0, len(report.differing) - _MANY)
    if hidden:
        yield from _row("~", f"{number_of(hidden, 'more module')} differ for no reason before them: -v", screen)
    if report.following:
        yield from _row("~", f"{number_of(report.following, 'more module')} differ behind that", screen)
    if report.divided:
        same = "what is computed from them matches: the two models split the computation differently"
        said = f"{_modules(report.divided)} differ, but {same}"
        yield from _row("=", said, screen, "dim")
    yield from _skipped(report, screen, verbose)
    yield from note_lines(report.notes, screen)
    yield from _sum(report, screen)


def sum_text(report: ProbeReport) -> str:
    """What a probe comes to, in a sentence."""
    compared = number_of(report.compared, "module")
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


def _divergence(row: Divergence, is_first: bool, screen: Screen) -> Iterator[Line]:
    first, *more = divergence_texts(row, is_first)
    yield from _row("~", first, screen, "red")
    for text in more:
        yield from ((Span(line),) for line in wrap(terminal(text, 600), screen, indent="     ", first="   "))


def _skipped(report: ProbeReport, screen: Screen, verbose: bool) -> Iterator[Line]:
    groups: dict[str, list[str]] = {}
    for row in report.skipped:
        groups.setdefault(row.why, []).append(row.target)
    for why, modules in groups.items():
        if verbose or report.unproven or report.differing:
            said = ", ".join(modules) if verbose else _modules(tuple(modules))
            yield from _row("?", f"not compared, {said}: {why}", screen, "yellow")
    if report.unproven and not report.differing:
        yield from _row("?", f"not verified: {_names(report.unproven)}", screen, "yellow")


def _sum(report: ProbeReport, screen: Screen) -> Iterator[Line]:
    symbol, style = ("=", "green") if report.is_proof else ("~", "red") if report.differing else ("?", "yellow")
    yield from _row(symbol, sum_text(report), screen, style)  # type: ignore[arg-type]


def _row(symbol: str, text: str, screen: Screen, style: Style = "") -> Iterator[Line]:
    first, *rest = wrap(terminal(text, 2000), screen, indent="   ", first=f"{symbol}  ")
    yield (Span(symbol, style), Span(first[len(symbol) :]))
    yield from ((Span(line),) for line in rest)


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
    return f"{number_of(len(names), 'module')} ({_name(names[0])}, ...)"
