"""JUnit's XML, which GitLab, Jenkins, Azure and others show: a test case for each file and rule.

The elements and attributes are those of Ant's schema, the strictest of its relatives, so that all of them read it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from ckptool.commands.checks.finding import LEVELS, Finding, Level, Outcome, Report
from ckptool.report.document import Document
from ckptool.report.escape import html_text
from ckptool.report.findings import policy_text

_LONGEST = 2000


def encode_document(document: Document) -> Iterator[str]:
    """The findings of a document as test cases."""
    return junit(document.found, document.command, document.fail_on)


def junit(
    report: Report, command: str = "check", fail_on: Level = "error", when: datetime | None = None
) -> Iterator[str]:
    """The report; findings below `fail_on` do not fail their test case, they are told in the suite's output.

    Args:
        report: the findings.
        command: names the suite.
        fail_on: the mildest level that fails a test case.
        when: the suite's timestamp; now if not given.
    """
    stamp = (when or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S")
    failing = LEVELS[: LEVELS.index(fail_on) + 1]
    found: defaultdict[tuple[str, str], list[Finding]] = defaultdict(list)
    mild: list[Finding] = []
    for finding in report.findings:
        if finding.level in failing:
            found[finding.file, finding.rule].append(finding)
        else:
            mild.append(finding)
    cases = _cases(report, found)
    skipped = sum(outcome.status == "skipped" and (outcome.file, outcome.rule) not in found for outcome in cases)
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n'
    yield (
        f'<testsuite name="{html_text(f"ckptool {command}")}" package="ckptool" id="0" timestamp="{stamp}"'
        f' hostname="localhost" tests="{len(cases)}" failures="{len(found)}" errors="0" skipped="{skipped}"'
        f' time="{report.seconds:.3f}">\n<properties/>\n'
    )
    for outcome in cases:
        yield from _case(outcome, found.get((outcome.file, outcome.rule), []))
    yield "<system-out>" + "".join(f"{line}\n" for finding in mild for line in _lines(finding)) + "</system-out>\n"
    yield "<system-err/>\n</testsuite>\n</testsuites>\n"


def _cases(report: Report, found: defaultdict[tuple[str, str], list[Finding]]) -> list[Outcome]:
    """The outcomes, and one for each finding that has none: about the policy, not about a file and rule."""
    known = {(outcome.file, outcome.rule) for outcome in report.outcomes}
    more = [Outcome(file, rule, "found") for file, rule in found if (file, rule) not in known]
    return [*report.outcomes, *more]


def _case(outcome: Outcome, findings: Sequence[Finding]) -> Iterator[str]:
    yield f'<testcase name="{_name(outcome.rule)}" classname="{_name(outcome.file)}" time="0"'
    if findings:
        message = "; ".join(finding.message for finding in findings)
        lines = "\n".join(line for finding in findings for line in _lines(finding))
        kind = findings[0].level
        yield f'><failure message="{html_text(message)}" type="{kind}">{lines}</failure></testcase>\n'
    elif outcome.status == "skipped":
        yield "><skipped/></testcase>\n"
    else:
        yield "/>\n"


def _name(text: str) -> str:
    return html_text(text) or "(none)"


def _lines(finding: Finding) -> Iterator[str]:
    """One finding in the words of the text output."""
    yield html_text(f"{finding.level}[{finding.rule}]: {finding.message}")
    yield html_text(f"  --> {finding.file}")
    yield from (html_text(f"   | {detail}") for detail in finding.details[:1000])
    if len(finding.details) > 1000:
        yield f"   | {len(finding.details) - 1000:,} more"
    if finding.policy is not None:
        yield html_text(f"   = policy: {policy_text(finding.policy)}")
    if finding.help:
        yield html_text(f"   = help: {finding.help}")
