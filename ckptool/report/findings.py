"""What all outputs of a report of findings say alike: the sum, the table of files and rules, the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ckptool.commands.checks.finding import LEVELS, Finding, Level, Outcome, Place, Report
from ckptool.core.counts import many


def sum_text(report: Report) -> str:
    """``2 errors, 1 warning``

    Example:
        >>> sum_text(Report(("a.pth",), ("dtype",), (), ()))
        'nothing found'
    """
    parts = [many(number, level) for level in LEVELS if (number := report.count(level))]
    return ", ".join(parts) or "nothing found"


def scope_text(report: Report) -> str:
    """``3 files, 9 rules``; rules that had nothing to look at do not count."""
    return f"{many(len(report.files), 'file')}, {many(len(report.rules) - len(report.idle), 'rule')}"


def idle_text(report: Report) -> str:
    """``shards had nothing to look at (not sharded)``; "" if every rule had something."""
    idle = report.idle.items()
    return ", ".join(f"{rule} had nothing to look at{f' ({why})' if why else ''}" for rule, why in idle)


def policy_text(place: Place) -> str:
    """``into = "torchvision:resnet18"  (ckptool.toml:2)``; not escaped."""
    return f"{place.text}  ({place.name})" if place.text else place.name


@dataclass(frozen=True, slots=True)
class Grid:
    """Files x rules.

    Attributes:
        rules: the headings.
        rows: each file and per rule "ok", "-" where it had nothing to look at, or what it found, with the worst level.
        left_out: files of which nothing is to be said and that are not among the rows.
    """

    rules: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, Level | None], ...]], ...]
    left_out: int = 0


def grid(report: Report, most: int = 200) -> Grid:
    """The table, without rules that had nothing to look at in any file; files with findings come first if many."""
    levels = _levels(report.findings)
    outcomes = {(outcome.file, outcome.rule): outcome for outcome in report.outcomes}
    used = {outcome.rule for outcome in report.outcomes if outcome.status != "skipped"}
    rules = tuple(rule for rule in report.rules if rule in used)
    files: Sequence[str] = report.files
    if len(files) > most:
        found = {finding.file for finding in report.findings}
        files = sorted(files, key=lambda file: file not in found)[:most]
    rows = tuple(
        (file, tuple(_went(outcomes.get((file, rule)), levels.get((file, rule))) for rule in rules)) for file in files
    )
    return Grid(rules, rows, len(report.files) - len(files))


def _levels(findings: Sequence[Finding]) -> dict[tuple[str, str], Level]:
    """The worst level of each file and rule."""
    worst: dict[tuple[str, str], Level] = {}
    for finding in findings:
        place = finding.file, finding.rule
        worst[place] = min(worst.get(place, finding.level), finding.level, key=LEVELS.index)
    return worst


def _went(outcome: Outcome | None, level: Level | None) -> tuple[str, Level | None]:
    if level is not None:
        return (outcome.text if outcome is not None else "") or level, level
    return "-" if outcome is None or outcome.status == "skipped" else "ok", None
