"""A transplant as Markdown: the sum, the modules, what became of the keys, what torch says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptool.commands.transplant.result import Transplant
from ckptool.report.escape import markdown, markdown_code
from ckptool.report.markdown import notes, table
from ckptool.report.markdown_match import match_markdown
from ckptool.report.text_transplant import loads_text
from ckptool.report.transplant_rows import (
    entry_rows,
    freeze_text,
    module_rows,
    share_text,
    summary_text,
    target_text,
    verdict_texts,
)
from ckptool.report.units import count, number_of, size_short

if TYPE_CHECKING:
    from ckptool.engine.apply import Written
    from ckptool.models import Verdict


def transplant_markdown(
    transplant: Transplant,
    name: str,
    written: Written | None,
    loads: Verdict | None,
    depth: int | None = None,
    snippet: str | None = None,
) -> Iterator[str]:
    """A heading with both sides, the sum, two tables, the notes, the problems, and what was written."""
    plan, target = transplant.plan, transplant.target
    yield f"### transplant {markdown_code(name)} → {markdown_code(target.name)}\n\n"
    sides = f"{number_of(len(transplant.source), 'tensor')} into {target_text(transplant)}"
    yield f"{markdown(f'{sides}: {summary_text(transplant)}')}\n\n"
    yield from match_markdown(transplant.match)
    modules = (
        (
            markdown_code(row.name) if row.name else "more modules",
            f"{row.filled:,}/{row.tensors:,}",
            share_text(row),
            row.state.value,
        )
        for row in module_rows(transplant, depth)
    )
    yield from table(("module", "filled", "loaded", "state"), modules, right={1, 2})
    yield "\n"
    rows = (
        (
            markdown(row.symbol),
            ", ".join(map(markdown_code, row.patterns)),
            f"{row.tensors:,}",
            count(row.elements),
            markdown(row.what),
        )
        for row in entry_rows(transplant)
    )
    yield from table(("", "key", "n", "elements", "what"), rows, right={2, 3})
    for title, texts in (("torch", list(verdict_texts(transplant))), ("freeze", [freeze_text(transplant)])):
        if any(texts):
            yield f"\n**{title}** {markdown('; '.join(texts))}\n"
    yield from notes(plan.notes)
    for problem in [*plan.problems, *plan.unmet]:
        hint = f"; {markdown(problem.hint)}" if problem.hint else ""
        yield f"\n**error** {markdown(problem.message)}{hint}\n"
    if snippet:
        yield f"\n```python\n{snippet}```\n"
    if written is not None and loads is not None:
        yield f"\nwrote {markdown_code(str(written.path))}, {markdown(size_short(written.nbytes))}; "
        yield f"{markdown(loads_text(transplant, loads))}\n"
