"""The tree of a checkpoint as a table for terminals, with shares and statistics where there is room."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptool.render.escape import terminal
from ckptool.render.inspection import Inspection
from ckptool.render.text import Cell, Column, Line, Screen, bar, table
from ckptool.render.tree import Tree, TreeRow
from ckptool.render.units import percent

if TYPE_CHECKING:
    pass

_SHARE = 12  # columns of the bar for a share of 100%


def tree_lines(report: Inspection, tree: Tree, screen: Screen) -> Iterator[Line]:
    """Heading and rows."""
    columns = [Column("key", least=16), Column("tensors", ">"), Column("spec"), Column("elements", ">")]
    columns.append(Column("size", ">"))
    wide = screen.is_wide
    if wide:
        columns += [Column("share of bytes"), Column("", ">")]
    if report.stats:
        from ckptool.render.text_stats import stats_columns

        columns += stats_columns(wide)
    if tree.is_flat:
        del columns[1]
    rows = [_cells(report, row, tree, wide) for row in tree.rows]
    yield from table(columns, rows, screen)


def _cells(report: Inspection, row: TreeRow, tree: Tree, wide: bool) -> list[Cell]:
    elements, size = row.figures
    key = Cell(terminal(row.name), "" if row.spec else "bold", lead=row.rails)
    cells = [key, Cell(row.tensors), Cell(row.spec, "cyan"), Cell(elements), Cell(size)]
    if wide:
        share = row.nbytes / report.nbytes if report.nbytes else 0.0
        cells += [Cell(bar(share, _SHARE), "cyan"), Cell(percent(row.nbytes, report.nbytes))]
    if report.stats:
        from ckptool.render.text_stats import stats_cells

        cells += stats_cells([report.stats[key] for key in row.keys if key in report.stats], wide)
    if tree.is_flat:
        del cells[1]
    return cells
