"""What the tests of `check` share: a report under a policy, and parts of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ckptool.commands.checks.finding import Finding, Report
from ckptool.commands.checks.policy import read_policy
from ckptool.commands.checks.run import run_checks


def check(*paths: Path, policy: str = "", rules: Sequence[str] | None = None, trusted: bool = False) -> Report:
    """A report, under a policy that stands beside the first path."""
    if not policy:
        return run_checks(paths, rules=rules)
    file = paths[0].parent / "ckptool.toml"
    file.write_text(policy)
    return run_checks(paths, replace(read_policy(file), is_trusted=trusted), rules=rules)


def found(report: Report, rule: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.rule == rule]


def status(report: Report, rule: str) -> list[str]:
    return [outcome.status for outcome in report.outcomes if outcome.rule == rule]


def details(finding: Finding) -> list[str]:
    return [" ".join(line.split()) for line in finding.details]
