"""The tree of a checkpoint as a table for terminals, with shares and statistics where there is room."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ckptool.report.escape import terminal
from ckptool.report.inspection import Inspection
from ckptool.report.text import Cell, Column, Line, Screen, bar, table
from ckptool.report.tree import Tree, TreeRow
from ckptool.report.units import percent

_SHARE = 12  # columns of the bar for a share of 100%


def tree_lines(report: Inspection, tree: Tree, screen: Screen) -> Iterator[Line]:
    """Heading and rows."""
    columns = list(_columns(report, tree, screen.is_wide))
    rows = [[cell(row) for _, cell in columns] for row in tree.rows]
    if not report.stats:
        yield from table([column for column, _ in columns], rows, screen)
        return
    from ckptool.report.text_stats import stats_cells, stats_columns

    wide = screen.is_wide
    for cells, row in zip(rows, tree.rows, strict=True):
        cells += stats_cells([report.stats[key] for key in row.keys if key in report.stats], wide)
    yield from table([*(column for column, _ in columns), *stats_columns(wide)], rows, screen)


def _columns(report: Inspection, tree: Tree, wide: bool) -> Iterator[tuple[Column, Callable[[TreeRow], Cell]]]:
    """Each column and how a row fills it. Beside statistics a narrow screen has room for the spec only."""
    yield Column("key", least=16), lambda row: Cell(terminal(row.name), "" if row.spec else "bold", lead=row.rails)
    roomy = wide or not report.stats
    if roomy and not tree.is_flat:
        yield Column("tensors", ">"), lambda row: Cell(row.tensors)
    yield Column("spec"), lambda row: Cell(row.spec, "cyan")
    if roomy:
        yield Column("elements", ">"), lambda row: Cell(row.figures[0])
        yield Column("size", ">"), lambda row: Cell(row.figures[1])
    if wide:
        total = report.nbytes
        yield Column("share of bytes"), lambda row: Cell(bar(row.nbytes / total if total else 0.0, _SHARE), "cyan")
        yield Column("", ">"), lambda row: Cell(percent(row.nbytes, total))
