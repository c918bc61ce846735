"""A plan as Markdown: the sum, the rolled-up table, and what lies beside the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ckptool.report.escape import markdown, markdown_code
from ckptool.report.markdown import notes, table
from ckptool.report.markdown_match import match_markdown
from ckptool.report.plan_rows import (
    SYMBOLS,
    Row,
    added_rows,
    counts,
    nbytes_before,
    plan_rows,
    rule_rows,
    tensors_text,
    untouched_rows,
)
from ckptool.report.preview import Preview
from ckptool.report.reasons import command_text
from ckptool.report.units import count, size, size_short

if TYPE_CHECKING:
    from ckptool.engine.apply import Written

_MANY = 20  # names of a list


def plan_markdown(preview: Preview, written: Written | None) -> Iterator[str]:
    """A heading with the inputs, the sum, the table, the notes, the problems, and what was written."""
    plan = preview.plan
    names = ", ".join(markdown_code(name) for name in preview.names)
    yield f"### {markdown(command_text(plan.command))} {names}\n\n"
    before = "" if preview.is_merge else f" (was {size_short(nbytes_before(plan))})"
    yield markdown(", ".join([f"{tensors_text(plan)}, {size_short(plan.nbytes)}{before}", *counts(plan)])) + "\n\n"
    yield from match_markdown(preview.match)
    if preview.is_recipe:
        yield from _rules(preview)
        rows = [*untouched_rows(plan), *added_rows(plan)]
    else:
        rows = plan_rows(plan)
    if rows:
        yield from _keys(rows)
    for title, entries, why in preview.facts:
        yield f"\n**{title}** {', '.join(map(markdown, entries[:_MANY]))}{markdown(f' ({why})') if why else ''}\n"
    yield from notes(preview.notes)
    for problem in [*plan.problems, *plan.unmet]:
        hint = f"; {markdown(problem.hint)}" if problem.hint else ""
        yield f"\n**error** {markdown(problem.message)}{hint}\n"
    if written is not None:
        yield f"\nwrote {markdown_code(str(written.path))}, {markdown(size_short(written.nbytes))}\n"


def _rules(preview: Preview) -> Iterator[str]:
    rows = [
        (
            markdown("-" if row.fate is None else SYMBOLS[row.fate]),
            markdown_code(row.rule),
            f"{row.keys:,}",
            markdown_code(row.computes) if row.computes else "",
            markdown(row.what),
        )
        for row in rule_rows(preview.plan)
    ]
    yield from table(("", "rule", "keys", "computes", "for example"), rows, right={2})
    yield "\n"


def _keys(rows: Sequence[Row]) -> Iterator[str]:
    cells = [
        (
            markdown(SYMBOLS[row.fate]),
            markdown_code(row.key) if row.key else "other keys",
            f"{row.tensors:,}",
            count(row.elements),
            markdown(row.what),
            size(row.before),
            "" if row.after is None else size(row.after),
        )
        for row in rows
    ]
    yield from table(("", "key", "n", "elements", "what", "before", "after"), cells, right={2, 3, 5, 6})
