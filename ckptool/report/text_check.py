"""`check` as text: each finding in the manner of a compiler, the table of files and rules, the sum last."""

from __future__ import annotations

from collections.abc import Iterator

from ckptool.commands.checks.finding import Finding, Level, Report
from ckptool.report import findings
from ckptool.report.escape import terminal
from ckptool.report.findings import grid, policy_text, scope_text, sum_text
from ckptool.report.text import Cell, Column, Line, Screen, Span, Style, table, wrap
from ckptool.report.text_width import cells, elide

STYLES: dict[Level, Style] = {"error": "red", "warning": "yellow", "note": "cyan"}
_MANY = 8  # details of one finding
_ROWS = 40  # files of the table
_LONGEST = 2000  # characters of a help line: a command is shown whole


def check_lines(report: Report, screen: Screen, verbose: bool = False) -> Iterator[Line]:
    """The findings, the table of files and rules, and the sum; nothing without findings.

    `verbose` lists every detail.
    """
    for finding in report.findings:
        yield from _finding(finding, screen, verbose)
        yield ()
    if screen.is_wide and report.files and report.findings:
        yield from _table(report, screen)
        yield ()
    if report.findings:
        yield from _sum(report, screen)


def _finding(finding: Finding, screen: Screen, verbose: bool) -> Iterator[Line]:
    name = f"{finding.level}[{terminal(finding.rule, 60)}]"
    first, *rest = wrap(f"{name}: {terminal(finding.message, 600)}", screen)
    yield (Span(name, STYLES[finding.level]), Span(first.removeprefix(name), "bold"))
    yield from ((Span(line, "bold"),) for line in rest)
    yield (Span("  --> ", "dim"), Span(_fitted(terminal(finding.file), 6, screen)))
    shown = finding.details if verbose or len(finding.details) <= _MANY + 1 else finding.details[:_MANY]
    for detail in shown:
        yield (Span("   | ", "dim"), Span(_fitted(terminal(detail, 600), 5, screen)))
    if len(shown) < len(finding.details):
        yield (Span("   | ", "dim"), Span(f"{len(finding.details) - len(shown):,} more (all: -v)", "dim"))
    if finding.policy is not None:
        yield from _remark("policy", terminal(policy_text(finding.policy), _LONGEST), screen)
    if finding.help:
        yield from _remark("help", terminal(finding.help, _LONGEST), screen)


def _remark(title: str, text: str, screen: Screen) -> Iterator[Line]:
    start = f"   = {title}: "
    first, *rest = wrap(text, screen, indent=" " * 5, first=start)
    yield (Span(start, "dim"), Span(first.removeprefix(start)))
    yield from ((Span(line),) for line in rest)


def _fitted(text: str, before: int, screen: Screen) -> str:
    return elide(text, max(8, screen.width - before)) if screen.elide else text


def _table(report: Report, screen: Screen) -> Iterator[Line]:
    """A row per file; where the screen is too narrow, rules that are fine everywhere have no column."""
    found = grid(report, _ROWS)
    shown = list(range(len(found.rules)))
    if sum(cells(rule) + 2 for rule in found.rules) > screen.width - 24:
        shown = [at for at in shown if any(row[at].level for _, row in found.rows)]
    columns = [Column("file", least=16), *(Column(terminal(found.rules[at], 30)) for at in shown)]
    rows = [[Cell(terminal(file)), *(_cell(row[at]) for at in shown)] for file, row in found.rows]
    yield from table(columns, rows, screen)
    if found.left_out:
        yield (Span(f"{found.left_out:,} more files", "dim"),)


def _cell(cell: findings.Cell) -> Cell:
    return Cell(terminal(cell.text, 30), STYLES[cell.level] if cell.level else "dim")


def _sum(report: Report, screen: Screen) -> Iterator[Line]:
    worst: Style = "red" if report.count("error") else "yellow" if report.count("warning") else ""
    said = f"{scope_text(report)}: {sum_text(report)}"
    more = f"why: ckptool check --explain {terminal(report.findings[0].rule, 60)}"
    gap = "    " if not screen.elide or cells(said) + cells(more) + 6 <= screen.width else ""
    spans = (Span(f"{scope_text(report)}: "), Span(sum_text(report), worst))
    if gap:
        yield (*spans, Span(f"{gap}({more})", "dim"))
        return
    yield (Span(f"({more})", "dim"),)
    yield spans
