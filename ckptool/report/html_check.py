"""Findings as a page: each in the words of the text output, above the table of files and rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from ckptool.commands.checks.finding import LEVELS, Finding, Report
from ckptool.report.escape import terminal
from ckptool.report.findings import grid, policy_text, scope_text, sum_text
from ckptool.report.html import Column, Heading, Page, Status, key_text, page

_STATUSES = (
    Status("✗", "error", "red"),
    Status("!", "warning", "yellow"),
    Status("i", "note", "cyan"),
    Status("✓", "ok", "green"),
)
_OK = len(_STATUSES) - 1
_DETAILS = 1000


def check_html(report: Report, command: str = "check") -> Iterator[str]:
    """The findings and a row for each file."""
    table = grid(report, most=max(1, len(report.files)))
    levels: defaultdict[str, int] = defaultdict(lambda: _OK)
    for finding in report.findings:
        levels[finding.file] = min(levels[finding.file], LEVELS.index(finding.level))
    rows = (
        [
            key_text(file),
            levels[file],
            *([cell.text if cell.level is None else terminal(cell.text, 30), *_graded(cell.level)] for cell in cells),
        ]
        for file, cells in table.rows
    )
    yield from page(
        Page(
            title=f"ckptool {command}: {sum_text(report)}",
            headings=(Heading(f"ckptool {command}", f"{scope_text(report)}, {report.seconds:.1f} s"),),
            sum=sum_text(report),
            command=f"ckptool {command}",
            columns=[Column(terminal(rule, 30), "verdict", "worst") for rule in table.rules],
            rows=rows,
            statuses=_STATUSES,
            noun="file",
            separator="/",
            key="file",
            findings=[_finding(finding) for finding in report.findings],
            levels=_STATUSES[:_OK],
        )
    )


def _graded(level: str | None) -> tuple[str, int, int]:
    """(style, findings, level): what a folder's cell is made of."""
    if level is None:
        return "dim", 0, _OK
    at = LEVELS.index(level)
    return _STATUSES[at].style, 1, at


def _finding(finding: Finding) -> dict[str, Any]:
    details = [terminal(detail, 600) for detail in finding.details[:_DETAILS]]
    if len(finding.details) > _DETAILS:
        details.append(f"{len(finding.details) - _DETAILS:,} more")
    return {
        "rule": terminal(finding.rule, 60),
        "level": LEVELS.index(finding.level),
        "file": key_text(finding.file),
        "message": terminal(finding.message, 600),
        "details": details,
        "policy": "" if finding.policy is None else terminal(policy_text(finding.policy), 600),
        "help": terminal(finding.help, 2000),
    }
