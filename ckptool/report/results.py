"""Comparisons and plans as findings: what `check` can say of a file, `diff`, `remap` and `transplant` say as well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ckptool.commands.checks.finding import Finding, Level, Outcome, Report
from ckptool.commands.diff.result import Change, Diff, ExtraChange, Status
from ckptool.core.checkpoint import Note
from ckptool.core.counts import many
from ckptool.report.reasons import reason_text

if TYPE_CHECKING:
    from ckptool.commands.transplant.result import Transplant
    from ckptool.core.plan import Plan, Problem
    from ckptool.models.entries import Entry


def diff_findings(diff: Diff, old_name: str, new_name: str) -> Report:
    """A comparison as a report about the new checkpoint: every difference is an error, as it is for the exit code."""
    findings: list[Finding] = []
    rules = [status.value for status in Status if status is not Status.SAME]
    for rule in rules:
        changes = diff.changes.where(Status(rule))
        if changes:
            message = f"{many(len(changes), 'tensor is', 'tensors are')} {_said(rule, old_name)}"
            findings.append(
                Finding(rule, "error", new_name, message, tuple(changes.keys), tuple(map(_change, changes)))
            )
    if diff.extras:
        message = f"{many(len(diff.extras), 'other entry differs', 'other entries differ')} from {old_name}"
        details = tuple(map(_extra, diff.extras))
        findings.append(Finding("other-entries", "error", new_name, message, details=details))
    findings += _notes(diff.notes, new_name)
    return _report((new_name,), [*rules, "other-entries", "note"], findings)


def _said(rule: str, old_name: str) -> str:
    match rule:
        case "added":
            return f"not in {old_name}"
        case "removed":
            return f"only in {old_name}"
        case _:
            return f"{rule}, compared with {old_name}"


def _change(change: Change) -> str:
    """``fc.weight  f32[1000,512] → f32[10,512]``"""
    old = change.old.spec.short if change.old is not None else ""
    new = change.new.spec.short if change.new is not None else ""
    if change.status is Status.RENAMED and change.old is not None:
        return f"{change.old.key} → {change.key}  {new}"
    spec = old if old == new or not new else new if not old else f"{old} → {new}"
    delta = change.delta
    numbers = []
    if delta is not None and delta.old_range is not None and delta.new_range is not None:
        numbers.append(f"{_range(delta.old_range)} → {_range(delta.new_range)}")
    elif delta is not None and delta.rel is not None:
        numbers.append(f"rel {delta.rel:.1e}")
    if delta is not None and any(delta.nonfinite):
        numbers.append(f"{delta.nonfinite[1]:,} NaN or Inf ({delta.nonfinite[0]:,} before)")
    return "  ".join([change.key, spec, *numbers])


def _range(bounds: tuple[int, int]) -> str:
    return str(bounds[0]) if bounds[0] == bounds[1] else f"{bounds[0]}…{bounds[1]}"


def _extra(extra: ExtraChange) -> str:
    return (
        f"{extra.name}  {'absent' if extra.old is None else extra.old} → {'absent' if extra.new is None else extra.new}"
    )


def plan_findings(plan: Plan, names: Sequence[str]) -> Report:
    """A plan as a report about its first input: what forbids it and what it does not meet are errors."""
    file = names[0] if names else ""
    findings = [*_problems("problem", plan.problems, file), *_problems("expect", plan.unmet, file)]
    unused = [use for use in plan.uses if not use.keys and not use.rule.startswith("?")]
    for use in unused:
        why = "other rules take all its keys" if use.shadowed else "it matches no key"
        findings.append(
            Finding("unused-rule", "warning", file, f"{use.name} decides nothing: {why}", details=(use.rule,))
        )
    findings += _notes(plan.notes, file)
    return _report((file,), ["problem", "expect", "unused-rule", "note"], findings)


def transplant_findings(transplant: Transplant, name: str) -> Report:
    """A transplant as a report about the source: what forbids it or falls short of its gates is an error.

    What merely does not fit is a warning, and a note where the model works as well without it.
    """
    from ckptool.models.entries import Filled

    plan, model = transplant.plan, transplant.target.name
    findings = [*_problems("problem", plan.problems, name), *_problems("expect", plan.unmet, name)]
    by_status = {
        status: [entry for entry in transplant.having(status) if entry.key not in transplant.new]
        for status in (Filled.MISSING, Filled.MISMATCHED)
    }
    grave = [entry for entry in by_status[Filled.MISSING] if not entry.is_harmless]
    harmless = [entry for entry in by_status[Filled.MISSING] if entry.is_harmless]
    if grave:
        findings.append(_entries("missing", "warning", name, f"of {model} not in the source", grave))
    if harmless:
        findings.append(_entries("missing", "note", name, f"of {model} not in the source, harmless", harmless))
    if by_status[Filled.MISMATCHED]:
        findings.append(_entries("mismatched", "warning", name, f"not fitting {model}", by_status[Filled.MISMATCHED]))
    if transplant.unexpected:
        keys = tuple(spec.key for spec in transplant.unexpected)
        details = tuple(f"{spec.key}  {spec.short}" for spec in transplant.unexpected)
        message = f"{many(len(keys), 'tensor')} that {model} does not have"
        findings.append(Finding("unexpected", "warning", name, message, keys, details))
    findings += _notes(plan.notes, name)
    rules = ["problem", "expect", "missing", "mismatched", "unexpected", "note"]
    return _report((name,), rules, findings)


def _entries(rule: str, level: Level, file: str, what: str, entries: Sequence[Entry]) -> Finding:
    details = tuple("  ".join((entry.key, entry.spec.short, reason_text(entry.reason))) for entry in entries)
    keys = tuple(entry.key for entry in entries)
    return Finding(rule, level, file, f"{many(len(entries), 'tensor')} {what}", keys, details)


def _problems(rule: str, problems: Iterable[Problem], file: str) -> Iterator[Finding]:
    for problem in problems:
        yield Finding(rule, "error", file, problem.message, problem.keys, problem.keys, problem.hint)


def _notes(notes: Iterable[Note], file: str) -> list[Finding]:
    """Notes and warnings, each text once."""
    seen = {(note.level, note.text, note.hint): note for note in notes}
    return [Finding("note", note.level, file, note.text, note.keys, help=note.hint) for note in seen.values()]


def _report(files: tuple[str, ...], rules: Sequence[str], findings: Sequence[Finding]) -> Report:
    """With an outcome per file and rule."""
    counts: dict[tuple[str, str], int] = {}
    for finding in findings:
        place = finding.file, finding.rule
        counts[place] = counts.get(place, 0) + max(1, len(finding.keys))
    outcomes = tuple(
        Outcome(file, rule, "found", f"{counts[file, rule]:,}") if (file, rule) in counts else Outcome(file, rule, "ok")
        for file in files
        for rule in rules
    )
    return Report(files, tuple(rules), tuple(findings), outcomes)
