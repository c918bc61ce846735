"""GitHub Actions: workflow commands, which become annotations.

A checkpoint is binary: it has no line to point at. So an annotation stands on the line of the policy that asks for the
rule, one for each rule however many files break it, and never more than GitHub shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from ckptool.commands.checks.finding import LEVELS, Finding, Level, Report
from ckptool.core.counts import many
from ckptool.report.document import Document
from ckptool.report.escape import github_data, github_property, terminal

_COMMANDS: dict[Level, str] = {"error": "error", "warning": "warning", "note": "notice"}
_MOST = 10  # annotations of a level that GitHub keeps for one step
_MANY = 20  # files in one annotation
_FEW = 3  # details of a file
_LONGEST = 4000  # characters of a message


def encode_document(document: Document) -> Iterator[str]:
    """The findings of a document as annotations."""
    return workflow_commands(document.found)


def workflow_commands(report: Report) -> Iterator[str]:
    """Lines for stdout, each a workflow command: one per rule, at most ten of a level."""
    for level in LEVELS:
        groups = list(_by_rule(report.findings, level))
        shown = groups if len(groups) <= _MOST else groups[: _MOST - 1]
        yield from (_annotation(level, group) for group in shown)
        if len(shown) < len(groups):
            rules = ", ".join(terminal(group[0].rule, 60) for group in groups[len(shown) :])
            text = f"{many(len(groups) - len(shown), 'more rule')} found something, see the job summary: {rules}"
            yield f"::{_COMMANDS[level]} title=ckptool::{github_data(text[:_LONGEST])}\n"


def _by_rule(findings: Sequence[Finding], level: Level) -> Iterator[list[Finding]]:
    """The findings of a level, those of one rule and one line of the policy together."""
    groups: defaultdict[object, list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.level == level:
            groups[finding.rule, finding.policy].append(finding)
    yield from groups.values()


def _annotation(level: Level, findings: Sequence[Finding]) -> str:
    first = findings[0]
    properties = []
    if first.policy is not None:
        properties.append(f"file={github_property(first.policy.file)}")
        if first.policy.line is not None:
            properties.append(f"line={first.policy.line}")
    properties.append(f"title={github_property(f'ckptool {first.rule}')}")
    lines = [_line(finding) for finding in findings[:_MANY]]
    if len(findings) > _MANY:
        lines.append(f"and {many(len(findings) - _MANY, 'more file')}")
    return f"::{_COMMANDS[level]} {','.join(properties)}::{github_data(_cut(lines))}\n"


def _line(finding: Finding) -> str:
    text = f"{terminal(finding.file)}: {terminal(finding.message, 600)}"
    if not finding.details:
        return text
    details = [" ".join(terminal(detail).split()) for detail in finding.details[:_FEW]]
    more = "; …" if len(finding.details) > _FEW else ""
    return f"{text} ({'; '.join(details)}{more})"


def _cut(lines: Sequence[str]) -> str:
    """Whole lines up to the longest message that is kept."""
    text = lines[0][:_LONGEST]
    for line in lines[1:]:
        if len(text) + len(line) > _LONGEST:
            return f"{text}\n…"
        text += f"\n{line}"
    return text
