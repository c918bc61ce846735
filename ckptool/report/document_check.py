"""`check` as a document: schema ``ckptool.check/1``, a row per finding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckptool.commands.checks.finding import LEVELS, Finding, Level, Outcome, Report
from ckptool.core.counts import many
from ckptool.core.errors import Exit
from ckptool.report.blocks import Block, Column, Findings, Next, Rows, Totals
from ckptool.report.cells import Cell, Row
from ckptool.report.document import Answer, Document, Field, Mood, Status, Table
from ckptool.report.escape import shorten
from ckptool.report.findings import Grid, grid, idle_text, scope_text, sum_text
from ckptool.report.symbols import LEVELS as STYLES

_FIELDS = tuple(map(Field, ("file", "rule", "level", "message", "keys", "help", "policy")))
_FILES = 40  # of the table
_NAME = 30  # characters of a rule or an outcome


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
        blocks=lambda: _blocks(report),
        table=lambda: Table(_FIELDS, map(_row, report.findings), key="file"),
        result=lambda: _result(report, fail_on),
        records=lambda: map(_finding_fields, report.findings),
        summary=lambda: _counts(report, fail_on),
        listing=lambda: iter(sorted((at.file, at.rule, at.status, at.text or "-") for at in report.outcomes)),
        page=lambda: _page(report),
        findings=lambda: report,
        about=about or {},
        fail_on=fail_on,
        verbose=verbose,
    )


def _answer(report: Report, fail_on: Level) -> Answer:
    failed = report.exit_code(fail_on) is not Exit.OK
    idle = idle_text(report)
    if not report.findings and len(report.idle) == len(report.rules):
        return Answer(f"nothing checked: {many(len(report.files), 'file')}; {idle or 'no rule ran'}", "warning")
    if not report.findings:
        return Answer(f"passed: {scope_text(report)}, {sum_text(report)}{f'; {idle}' * bool(idle)}", "good")
    mood: Mood = "bad" if failed else "warning" if report.count("warning") or report.count("error") else "good"
    return Answer(f"{'failed' if failed else 'passed'}: {sum_text(report)}", mood)


# ---------------------------------------------------------------------------------------------- for people


def _blocks(report: Report) -> Iterator[Block]:
    """The findings, the table of files and rules, and the sum; nothing where nothing was found."""
    if not report.findings:
        return
    yield Findings(report.findings)
    found = grid(report, _FILES)
    fine = [all(row[at][1] is None for _, row in found.rows) for at in range(len(found.rules))]
    rules = zip(found.rules, fine, strict=True)
    columns = (Column(shorten(rule, _NAME), wide=True, spare=is_fine) for rule, is_fine in rules)
    yield Rows((Column("file", "key", least=16, wide=True), *columns), lambda: list(_files(found)))
    yield Totals((f"{scope_text(report)}: {sum_text(report)}", *filter(None, [idle_text(report)])))
    yield Next((f"why: ckptool check --explain {report.findings[0].rule}",))


def _files(found: Grid) -> Iterator[Row]:
    for file, cells in found.rows:
        yield Row((file, *(_outcome(*cell) for cell in cells)))
    if found.left_out:
        yield Row((f"{found.left_out:,} more files",), "dim")


def _outcome(text: str, level: Level | None) -> Cell:
    return Cell(shorten(text, _NAME), STYLES[level] if level else "dim")


_MARKS: dict[Level, str] = {"error": "✗", "warning": "!", "note": "i"}
_OK = Status("✓", "ok", "green")


def _page(report: Report) -> Table:
    """A row for each file, with how each rule went."""
    found = grid(report, most=max(1, len(report.files)))
    levels: dict[str, Level] = {}
    for finding in report.findings:
        levels[finding.file] = min(levels.get(finding.file, "note"), finding.level, key=LEVELS.index)
    rows = ((file, levels.get(file, _OK.label), *map(_verdict, cells)) for file, cells in found.rows)
    rules = (Field("", shorten(rule, _NAME), "verdict", "worst") for rule in found.rules)
    fields = (Field("file"), Field("status"), *rules)
    statuses = (*(Status(_MARKS[level], level, STYLES[level]) for level in LEVELS), _OK)
    return Table(fields, rows, statuses, noun="file", key="file", separator="/")


def _verdict(cell: tuple[str, Level | None]) -> tuple[str, str, int, int]:
    """(text, style, findings, level): what a folder's cell is made of."""
    text, style, _ = _outcome(*cell)
    return text, style, int(cell[1] is not None), len(LEVELS) if cell[1] is None else LEVELS.index(cell[1])


# ---------------------------------------------------------------------------------------------- for programs


def _row(finding: Finding) -> Sequence[Any]:
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
    yield "rules", len(report.rules) - len(report.idle)
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
