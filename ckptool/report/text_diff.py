"""`diff` as text: who the two are, the rolled-up table, the notes, and the counts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ckptool.commands.diff.result import Diff, Status
from ckptool.report.diff_rows import (
    SYMBOLS,
    Row,
    diff_rows,
    extras_rows,
    integers,
    summary_parts,
)
from ckptool.report.escape import terminal
from ckptool.report.inspection import format_text
from ckptool.report.symbols import STYLES
from ckptool.report.text import Cell, Column, Line, Screen, Span, Style, fit, level, table, wrap
from ckptool.report.text_inspect import note_lines, shell
from ckptool.report.text_width import cells
from ckptool.report.units import count, number_of, real, relative, size_short
from ckptool.values.delta import Delta

_FAINTEST, _STRONGEST = 1e-5, 3e-2  # a fixed scale: the bars of two diffs can be compared by eye


def diff_lines(diff: Diff, names: tuple[str, str], screen: Screen, verbose: bool = False) -> Iterator[Line]:
    """The lines of `ckptool diff` below the answer: warnings alone where the two are the same."""
    if diff.is_same and not verbose:
        yield from _prefix_lines(diff, screen)
        yield from note_lines([note for note in diff.notes if note.level == "warning"], screen)
        return
    if diff.models is not None and diff.models.text:
        yield from ((Span(line),) for line in wrap(terminal(diff.models.text), screen))
    yield from _sides(diff, names, screen)
    yield from _prefix_lines(diff, screen)
    yield from note_lines([note for note in diff.notes if note.level == "warning"], screen)
    rows = diff_rows(diff, each=verbose)
    if rows or diff.extras:
        yield ()
        yield from _table(diff, rows, screen)
    yield ()
    yield from note_lines([note for note in diff.notes if note.level != "warning"], screen)
    if diff.is_same:
        return
    yield from ((Span(line),) for line in fit(summary_parts(diff), screen, separator="   ", indent="  "))
    yield from _deeper(rows, screen, verbose)


def _sides(diff: Diff, names: tuple[str, str], screen: Screen) -> Iterator[Line]:
    """Both files, aligned, with what the headers say."""
    rows: list[tuple[Cell, ...]] = []
    for symbol, name, checkpoint in zip("-+", names, (diff.old, diff.new), strict=True):
        kind = format_text(checkpoint)
        if checkpoint.selection.path:
            kind += f', weights under "{terminal(checkpoint.selection.name)}"'
        cells_of = (
            Cell(terminal(name), STYLES[symbol], lead=f"{symbol} "),
            Cell(number_of(len(checkpoint), "tensor")),
            Cell(size_short(checkpoint.nbytes)),
            Cell(kind),
        )
        rows.append(cells_of)
    yield from table((Column("", least=16), Column("", ">"), Column("", ">"), Column("", least=20)), rows, screen)


def _prefix_lines(diff: Diff, screen: Screen) -> Iterator[Line]:
    for prefix, which in ((diff.old_prefix, "old"), (diff.new_prefix, "new")):
        if prefix:
            text = f'note: every {which} key begins with "{terminal(prefix)}"; compared without it'
            yield from ((Span(line),) for line in wrap(text, screen))


def _table(diff: Diff, rows: Sequence[Row], screen: Screen) -> Iterator[Line]:
    wide = screen.is_wide
    bars = _bar_room(screen)
    columns = [Column(""), Column("key", least=14), Column("n", ">")]
    columns += [Column("elements", ">")] if wide else []
    columns += [Column("change", least=22)]
    columns += [Column("max |Δ|", ">"), Column("1 - cos", ">"), Column("integers")] if wide else []
    columns += [Column("per tensor, file order" if wide else "per tensor", least=10)]
    cells_of = [_cells(row, wide, bars) for row in rows]
    always = 5 if wide else 4  # up to "change"; the others only where they say something
    used = [at for at in range(len(columns)) if at < always or any(row[at].text for row in cells_of)]
    columns, cells_of = [columns[at] for at in used], [[row[at] for at in used] for row in cells_of]
    for symbol, _, which in extras_rows(diff.extras):
        start = [Cell(symbol, STYLES[symbol]), Cell("(not tensors)"), Cell(f"{len(which):,}")]
        cells_of.append([*start, *([Cell()] if wide else []), Cell(", ".join(which))])
    yield from table(columns, cells_of, screen)


def _cells(row: Row, wide: bool, bars: int) -> list[Cell]:
    style = STYLES[SYMBOLS[row.status]]
    quiet: Style = "dim" if row.status is Status.SAME else ""
    found = [
        Cell(SYMBOLS[row.status], style),
        Cell(row.shown or terminal(row.key), quiet),
        Cell(f"{len(row.changes):,}", quiet),
    ]
    if wide:
        found.append(Cell(count(row.elements), quiet))
    found.append(Cell(row.what, quiet))
    if wide:
        found += [Cell(_max_abs(row.deltas)), Cell(_one_minus_cosine(row.deltas)), Cell(_integers(row))]
    found.append(Cell(_bars(row.deltas, bars), style))
    return found


def _bar_room(screen: Screen) -> int:
    return 42 if screen.is_wide else 15


def _integers(row: Row) -> str:
    """The integers of a row that has floats too; alone they stand in the change column."""
    text = integers(row.changes)
    return "" if text in row.what else text


def _max_abs(deltas: Sequence[Delta]) -> str:
    known = [delta.max_abs for delta in deltas if delta.max_abs is not None and delta.old_range is None]
    return real(max(known)) if known else ""


def _one_minus_cosine(deltas: Sequence[Delta]) -> str:
    known = [delta.cosine for delta in deltas if delta.cosine is not None and delta.old_range is None]
    return relative(max(0.0, 1 - min(known))) if known else ""


def _bars(deltas: Sequence[Delta], room: int) -> str:
    """A glyph per tensor; where there are more tensors than room, the largest of each few."""
    rels = [delta.rel for delta in deltas if delta.rel is not None and delta.old_range is None]
    if len(rels) > room:
        edges = [at * len(rels) // room for at in range(room + 1)]
        rels = [max(rels[low:high]) for low, high in pairwise(edges)]
    return "".join(map(_glyph, rels))


def _glyph(rel: float) -> str:
    if rel <= _FAINTEST or math.isnan(rel):
        return level(0)
    return level(math.log(rel / _FAINTEST) / math.log(_STRONGEST / _FAINTEST))


def _deeper(rows: Sequence[Row], screen: Screen, verbose: bool) -> Iterator[Line]:
    parts: list[str] = []
    if not verbose and any(len(row.changes) > 1 for row in rows):
        parts.append("deeper: -v")
    largest = max(
        (row for row in rows if row.status is not Status.SAME), key=lambda row: len(row.changes), default=None
    )
    if largest is not None and len(largest.changes) > 1 and len(rows) > 1 and cells(largest.key) < 50:
        parts.append(f"one module: --only {shell(largest.key)}")
    yield from ((Span(line, "dim"),) for line in fit(parts, screen, separator="    "))
