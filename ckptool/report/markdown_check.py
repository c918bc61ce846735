"""Findings as Markdown for pull requests and job summaries: the sum, files x rules, and each finding."""

from __future__ import annotations

from collections.abc import Iterator

from ckptool.commands.checks.finding import Finding, Report
from ckptool.report.escape import markdown, markdown_code
from ckptool.report.findings import Cell, grid, sum_text
from ckptool.report.markdown import table
from ckptool.report.units import number_of

LIMIT = 1 << 20
"""Bytes of a job summary that GitHub shows."""
_MANY = 12  # details of one finding that are shown
_RESERVE = 200  # bytes kept for the sentence that says what is left out


def check_markdown(report: Report, command: str = "check", limit: int = LIMIT) -> Iterator[str]:
    """A heading with the sum, the table of files and rules, and the findings, at most `limit` bytes of UTF-8."""
    files = number_of(len(report.files), "file")
    left = limit - _RESERVE
    blocks = [f"### ckptool {markdown(command)}: {sum_text(report)} in {files}\n\n"]
    found = grid(report)
    if found.rules:
        blocks += table(
            ("file", *map(markdown, found.rules)),
            ((markdown_code(file), *map(_cell, row)) for file, row in found.rows),
            right=set(),
        )
    if found.left_out:
        blocks.append(f"\n{found.left_out:,} more files\n")
    for block in blocks:
        left -= len(block.encode())
        if left < 0:
            yield "\nmore files than can be shown\n"
            return
        yield block
    for at, finding in enumerate(report.findings):
        text = "".join(_finding(finding))
        left -= len(text.encode())
        if left < 0:
            yield f"\n… {number_of(len(report.findings) - at, 'more finding')}\n"
            return
        yield text


def _cell(cell: Cell) -> str:
    return f"**{markdown(cell.text)}**" if cell.level == "error" else markdown(cell.text)


def _finding(finding: Finding) -> Iterator[str]:
    policy = f" (policy {markdown_code(finding.policy.name)})" if finding.policy is not None else ""
    yield f"\n**{finding.level}: {markdown(finding.rule)}** {markdown(finding.message)}{policy}  \n"
    yield f"in {markdown_code(finding.file)}\n"
    if finding.details:
        yield "\n"
    shown = finding.details if len(finding.details) <= _MANY + 1 else finding.details[:_MANY]
    yield from (f"- {markdown_code(detail)}\n" for detail in shown)
    if len(shown) < len(finding.details):
        yield f"- {len(finding.details) - len(shown):,} more\n"
    if finding.help:
        yield f"\nTry: {markdown_code(finding.help)}\n"
