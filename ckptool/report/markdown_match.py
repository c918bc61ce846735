"""An automatic match as Markdown: the sum, and the rules folded away."""

from __future__ import annotations

from collections.abc import Iterator

from ckptool.commands.automatic import Automatic
from ckptool.report.escape import markdown, markdown_code
from ckptool.report.markdown import notes, table
from ckptool.report.match_rows import left_texts, match_rows, match_text


def match_markdown(found: Automatic | None) -> Iterator[str]:
    """The rules with their evidence; nothing if nothing was to be matched."""
    if found is None:
        return
    yield f"<details><summary>match: {markdown(match_text(found))}</summary>\n\n"
    rows = [(markdown(row.symbol), markdown_code(row.rule), markdown(row.what)) for row in match_rows(found)]
    yield from table(("", "rule", "why"), rows, right=set())
    for what, patterns in left_texts(found):
        yield f"\n{markdown(what)}: {', '.join(map(markdown_code, patterns))}\n"
    yield "\n</details>\n\n"
    yield from notes(found.report.notes)
