"""An automatic match as text: each rule with its evidence, then what has no counterpart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ckptool.commands.automatic import Automatic
from ckptool.report.escape import terminal
from ckptool.report.match_explain import explain_lines
from ckptool.report.match_rows import MatchRow, left_texts, match_rows, match_text, taking_hint
from ckptool.report.symbols import STYLES
from ckptool.report.text import Line, Screen, Span, wrap
from ckptool.report.text_inspect import note_lines
from ckptool.report.text_width import cells

_MANY = 60  # rules
_MANY_PATTERNS = 8


def match_lines(found: Automatic, screen: Screen) -> Iterator[Line]:
    """All lines about a match."""
    rows = match_rows(found)
    first, *rest = wrap(match_text(found), screen, indent=" " * 8, first="match:  ")
    yield (Span("match:", "dim"), Span(first.removeprefix("match:")))
    yield from ((Span(line),) for line in rest)
    digits = len(str(len(rows)))
    for row in rows[:_MANY]:
        yield from _rule(row, digits, screen)
    if len(rows) > _MANY:
        yield (Span(f"   {len(rows) - _MANY:,} more rules (all: --json)", "dim"),)
    if any(not row.is_taken for row in rows):
        yield (Span("   ? is not taken: look at it, then "), Span(taking_hint(found), "bold"))
    for what, patterns in left_texts(found):
        some = ", ".join(terminal(pattern) for pattern in patterns[:_MANY_PATTERNS])
        more = f", {len(patterns) - _MANY_PATTERNS:,} more" if len(patterns) > _MANY_PATTERNS else ""
        yield from (
            (Span(line, "dim"),) for line in wrap(f"{what}: {some}{more}", screen, indent=" " * 8, first=" " * 3)
        )
    yield from note_lines(found.report.notes, screen)
    yield from explain_lines(found, screen)


def _rule(row: MatchRow, digits: int, screen: Screen) -> Iterator[Line]:
    """The rule, broken where the screen is narrower, first at its arrow; below it the evidence."""
    lead = " " * (digits + 4)
    lines = [terminal(row.rule, 2000)]
    if screen.elide and cells(lead + lines[0]) > screen.width:
        left, arrow, right = lines[0].partition(" -> ")
        inside = replace(screen, width=screen.width - len(lead))
        lines = [*wrap(left, inside, indent=""), *wrap(f"{arrow[1:]}{right}", inside, indent="     ", first="  ")]
    number = f"{row.number or '':>{digits}}"
    yield (Span(row.symbol, STYLES[row.symbol]), Span(f" {number}  ", "dim"), Span(lines[0]))
    yield from ((Span(f"{lead}{line}"),) for line in lines[1:])
    why = terminal(row.what + (f"; {row.rival}" if row.rival else ""), 600)
    yield from ((Span(line, "dim"),) for line in wrap(why, screen, indent=f"{lead}    ", first=f"{lead}  "))
