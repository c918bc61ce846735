"""A transplant as text: source and target, bars per module, what became of every key, what torch says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ckptool.commands.transplant.result import Transplant
from ckptool.commands.transplant.shares import State
from ckptool.report.escape import terminal
from ckptool.report.symbols import STYLES
from ckptool.report.text import Cell, Column, Line, Screen, Span, Style, bar, table, wrap
from ckptool.report.text_inspect import note_lines
from ckptool.report.text_match import match_lines
from ckptool.report.text_plan import written_lines
from ckptool.report.text_width import cells, elide
from ckptool.report.transplant_rows import (
    ModuleRow,
    Row,
    entry_rows,
    freeze_text,
    module_rows,
    refusal_text,
    share_text,
    summary_text,
    target_text,
    verdict_texts,
)
from ckptool.report.units import count, number_of

if TYPE_CHECKING:
    from ckptool.engine.apply import Written
    from ckptool.models import Verdict

_BAR = 20
_STATES: Mapping[State, Style] = {State.LOADED: "dim", State.PARTLY: "yellow", State.NEW: "bold"}
_MANY_NAMES = 12


def transplant_lines(
    transplant: Transplant, screen: Screen, *, name: str = "", depth: int | None = None, verbose: bool = False
) -> Iterator[Line]:
    """All lines of a transplant but what was or was not written, the sum last.

    Args:
        transplant: what is to be said.
        screen: where.
        name: the source as the user wrote it.
        depth: levels of modules; by default as many as tell something.
        verbose: a row for every tensor.
    """
    yield from _sides(transplant, screen, name or str(transplant.source.path.name))
    notes = transplant.plan.notes
    yield from note_lines([note for note in notes if note.level == "warning"], screen)
    yield ()
    if transplant.match is not None:
        yield from match_lines(transplant.match, screen)
        yield ()
    yield from _modules(module_rows(transplant, depth), screen)
    yield ()
    yield from _keys(entry_rows(transplant, each=verbose), screen)
    yield ()
    facts = [("torch:", text) for text in verdict_texts(transplant)]
    facts += [("freeze:", text) for text in (freeze_text(transplant),) if text]
    facts += [("not taken:", text) for text in (_besides(transplant),) if text]
    for at, (title, text) in enumerate(facts):
        again = at and facts[at - 1][0] == title
        yield from _titled("" if again else title, text, screen)
    yield from note_lines([note for note in notes if note.level != "warning"], screen)
    yield from _titled("Plan:", summary_text(transplant), screen)


def _sides(transplant: Transplant, screen: Screen, name: str) -> Iterator[Line]:
    source, target = transplant.source, transplant.target
    facts = [number_of(len(source), "tensor"), str(source.format)]
    if source.selection.path:
        facts.append(f'weights under "{terminal(source.selection.name)}"')
    built = f", built on {target.device}" if target.module is not None and screen.is_wide else ""
    widest = max(16, screen.width - 60) if screen.elide else 1 << 20
    rows = [
        (Cell("source", "dim"), Cell(elide(terminal(name), widest), "bold"), Cell(", ".join(facts))),
        (
            Cell("target", "dim"),
            Cell(elide(terminal(target.name), widest), "bold"),
            Cell(f"{target_text(transplant)}{built}"),
        ),
    ]
    yield from table((Column(""), Column(""), Column("", least=20)), rows, screen)


def _modules(rows: Sequence[ModuleRow], screen: Screen) -> Iterator[Line]:
    columns = (Column("module", least=12), Column("filled", ">"), Column("loaded"), Column("", ">"), Column("state"))
    found = [
        (
            Cell(terminal(row.name) or "more modules", "" if row.name else "dim"),
            Cell(f"{row.filled:,}/{row.tensors:,}"),
            Cell(bar(row.share, _BAR), "green" if row.share == 1 else "yellow"),
            Cell(share_text(row), "" if row.share == 1 else "bold"),
            Cell(row.state.value, _STATES[row.state]),
        )
        for row in rows
    ]
    yield from table(columns, found, screen)


def _keys(rows: Sequence[Row], screen: Screen) -> Iterator[Line]:
    wide = screen.is_wide
    room = (screen.width - (70 if wide else 44)) if screen.elide else 90
    columns = [Column(""), Column("key", least=14), Column("n", ">")]
    columns += [Column("elements", ">")] if wide else []
    columns.append(Column("what"))
    found: list[list[Cell]] = []
    for row in rows:
        quiet: Style = "dim" if row.status == "filled" else ""
        key = _patterns([terminal(pattern) for pattern in row.patterns], max(16, room))
        line = [Cell(row.symbol, STYLES[row.symbol]), Cell(key, quiet), Cell(f"{row.tensors:,}", quiet)]
        line += [Cell(count(row.elements), quiet)] if wide else []
        found.append(line)
    before = _width(found)
    lines: list[list[Cell]] = []
    for row, line in zip(rows, found, strict=True):
        text = terminal(row.what, 300)
        first, *rest = _wrapped(text, screen.width - before) if screen.elide else [text]
        lines.append([*line, Cell(first, "dim" if row.status == "filled" else "")])
        lines += [[*[Cell()] * len(line), Cell(more)] for more in rest]
    yield from table(columns, lines, screen)


def _width(rows: Sequence[Sequence[Cell]]) -> int:
    """The columns that come before the last one."""
    widths = [max(map(cells, texts)) for texts in zip(*([cell.text for cell in row] for row in rows), strict=True)]
    return sum(widths) + 2 * len(widths)


def _wrapped(text: str, room: int) -> list[str]:
    return list(wrap(text, Screen(width=max(20, room), elide=True), indent="  "))


def _patterns(patterns: Sequence[str], room: int) -> str:
    """As many patterns as have room, then how many more there are."""
    rest = f"  +{len(patterns) - 1} more" if len(patterns) > 1 else ""
    shown = elide(patterns[0], max(16, room - len(rest)))
    for at, pattern in enumerate(patterns[1:], 1):
        more = f"  +{len(patterns) - at} more"
        last = at == len(patterns) - 1
        if cells(f"{shown}  {pattern}") + (0 if last else len(more)) > room:
            return shown + more
        shown += f"  {pattern}"
    return shown


def _besides(transplant: Transplant) -> str:
    names = [terminal(extra.name, 60) for extra in transplant.source.extras]
    more = len(names) - _MANY_NAMES
    return ", ".join(names[:_MANY_NAMES]) + (f", {more:,} more" if more > 0 else "")


def _titled(title: str, text: str, screen: Screen) -> Iterator[Line]:
    """A title and a sentence, wrapped below the title."""
    lead = f"{title:<7}" if title else " " * 7
    first, *rest = wrap(terminal(text, 2000), screen, indent=" " * 8, first=f"{lead} ")
    yield (Span(lead, "dim"), Span(first[len(lead) :]))
    yield from ((Span(line),) for line in rest)


# ---------------------------------------------------------------------------------------------- below the report


def done_lines(
    transplant: Transplant, written: Written, name: str, verdict: Verdict, files: Sequence[str], screen: Screen
) -> Iterator[Line]:
    """What was written, and whether it loads: the last line says whether all is well."""
    yield from written_lines(written, name, screen, files)
    text, _, answer = loads_text(transplant, verdict).partition(": ")
    style: Style = "green" if verdict.strict else "" if transplant.asked.only_loaded else "red"
    yield (Span(f"{terminal(text, 600)}: "), Span(terminal(answer, 600), style))


def loads_text(transplant: Transplant, verdict: Verdict) -> str:
    """``loads into net.py:Net with strict=True: yes``"""
    into = f"loads into {transplant.target.name}"
    if verdict.strict:
        return f"{into} with strict=True: yes"
    if transplant.asked.only_loaded and not (verdict.unexpected or verdict.mismatched) and verdict.missing:
        return f"{into} with strict=False: {number_of(len(verdict.missing), 'key')} keep the model's own"
    keys = verdict.missing or verdict.unexpected or verdict.mismatched
    hint = "" if keys or not transplant.plan.module_versions else "; only a .pth states module versions"
    return f"{into} with strict=True: no, {refusal_text(verdict)}{hint}"
