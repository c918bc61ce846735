"""Findings as JSON: schema ``ckptool.check/1``, every finding with all its keys in a line of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ckptool.commands.checks.finding import LEVELS, Finding, Level, Outcome, Report
from ckptool.report.json import document


def check_json(report: Report, fail_on: Level = "error") -> Iterator[str]:
    """The whole report. Names stand there exactly as the files have them."""
    yield from document(
        [
            ("schema", "ckptool.check/1"),
            ("exit_code", int(report.exit_code(fail_on))),
            ("files", len(report.files)),
            ("rules", len(report.rules)),
            ("summary", {level: report.count(level) for level in LEVELS}),
            ("findings", (_finding(finding) for finding in report.findings)),
            ("outcomes", (_outcome(outcome) for outcome in report.outcomes)),
        ]
    )


def _finding(finding: Finding) -> dict[str, Any]:
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


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {"file": outcome.file, "rule": outcome.rule, "status": outcome.status, "text": outcome.text}
