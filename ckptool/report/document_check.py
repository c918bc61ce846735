"""`check` as a document: schema ``ckptool.check/1``, a row per finding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckptool.commands.checks.finding import LEVELS, Finding, Level, Outcome, Report
from ckptool.core.errors import Exit
from ckptool.report.document import Answer, Cell, Document, Mood, Table
from ckptool.report.findings import scope_text, sum_text
from ckptool.report.html_check import check_html
from ckptool.report.markdown_check import check_markdown
from ckptool.report.text_check import check_lines

_COLUMNS = ("file", "rule", "level", "message", "keys", "help", "policy")


def check_document(
    report: Report, about: Mapping[str, str] | None = None, fail_on: Level = "error", verbose: bool = False
) -> Document:
    """Findings in files.

    Args:
        report: them.
        about: what each rule is about, in a sentence.
        fail_on: the mildest level that makes the command end with 1.
        verbose: every detail on a screen.
    """
    return Document(
        command="check",
        answer=_answer(report, fail_on),
        result=lambda: _result(report, fail_on),
        records=lambda: map(_finding_fields, report.findings),
        summary=lambda: _counts(report, fail_on),
        table=lambda: Table(_COLUMNS, map(_row, report.findings)),
        listing=lambda: iter(sorted((at.file, at.rule, at.status, at.text or "-") for at in report.outcomes)),
        screen=lambda screen: check_lines(report, screen, verbose),
        markdown=lambda: check_markdown(report),
        html=lambda: check_html(report),
        findings=lambda: report,
        about=about or {},
        fail_on=fail_on,
    )


def _answer(report: Report, fail_on: Level) -> Answer:
    failed = report.exit_code(fail_on) is not Exit.OK
    if not report.findings:
        return Answer(f"passed: {scope_text(report)}, {sum_text(report)}", "good")
    mood: Mood = "bad" if failed else "warning" if report.count("warning") or report.count("error") else "good"
    return Answer(f"{'failed' if failed else 'passed'}: {sum_text(report)}", mood)


def _row(finding: Finding) -> Sequence[Cell]:
    policy = None if finding.policy is None else finding.policy.name
    keys = " ".join(finding.keys)
    return (finding.file, finding.rule, finding.level, finding.message, keys, finding.help or None, policy)


def _counts(report: Report, fail_on: Level) -> dict[str, int]:
    return {**{level: report.count(level) for level in LEVELS}, "exit_code": int(report.exit_code(fail_on))}


def _result(report: Report, fail_on: Level) -> Iterator[tuple[str, Any]]:
    """The whole report. Names stand there exactly as the files have them."""
    yield "schema", "ckptool.check/1"
    yield "exit_code", int(report.exit_code(fail_on))
    yield "files", len(report.files)
    yield "rules", len(report.rules)
    yield "summary", {level: report.count(level) for level in LEVELS}
    yield "findings", map(_finding_fields, report.findings)
    yield "outcomes", map(_outcome_fields, report.outcomes)


def _finding_fields(finding: Finding) -> dict[str, Any]:
    policy = finding.policy
    return {
        "rule": finding.rule,
        "level": finding.level,
        "file": finding.file,
        "keys": finding.keys,
        "message": finding.message,
        "details": finding.details,
        "policy": None if policy is None else {"file": policy.file, "line": policy.line},
        "help": finding.help,
    }


def _outcome_fields(outcome: Outcome) -> dict[str, Any]:
    return {"file": outcome.file, "rule": outcome.rule, "status": outcome.status, "text": outcome.text}
