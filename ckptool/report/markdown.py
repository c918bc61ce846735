"""Markdown for pull requests and job summaries: a sentence, a table, and the long part folded away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ckptool.commands.diff.result import Diff
from ckptool.core.checkpoint import Note
from ckptool.report.diff_rows import SYMBOLS, Row, diff_rows, extras_rows, identical_text, summary_parts
from ckptool.report.document import Document
from ckptool.report.escape import markdown, markdown_code
from ckptool.report.inspection import Inspection
from ckptool.report.tree import tree
from ckptool.report.units import count, number_of, size_short

_LIMIT = 1 << 20  # characters of a list of all tensors: GitHub's limit for a job summary


def encode_document(document: Document) -> Iterator[str]:
    """The heading, the answer, and the rest."""
    pieces = document.markdown()
    yield next(pieces)
    if document.answer.mood != "plain":
        yield f"**{markdown(document.answer.text)}**\n\n"
    yield from pieces


def inspect_markdown(report: Inspection) -> Iterator[str]:
    """A heading, the totals, and the tree in a table inside ``<details>``."""
    checkpoint = report.checkpoint
    yield f"### {markdown_code(report.name)}\n\n"
    dtypes = ", ".join(f"{many:,} {dtype}" for dtype, many in report.dtypes)
    facts = [
        str(checkpoint.format),
        size_short(checkpoint.nbytes),
        number_of(len(report.keys), "tensor"),
        f"{count(report.elements)} elements" + (f" ({dtypes})" if dtypes else ""),
    ]
    if checkpoint.selection.path:
        facts.append(f"weights under {markdown_code(checkpoint.selection.name)}")
    yield markdown(", ".join(facts[:-1])) + ", " + (facts[-1] if checkpoint.selection.path else markdown(facts[-1]))
    yield "\n\n"
    for use in report.dangerous:
        yield f"**Asks for {markdown_code(use.name)}** when a pickle loader opens it. ckptool never runs it.\n\n"
    yield f"<details><summary>{number_of(len(report.keys), 'tensor')}</summary>\n\n"
    rows = tree(report).rows
    yield from table(
        ("key", "tensors", "spec", "elements", "size"),
        (
            (_tree_key(row.rails, row.name), row.tensors, markdown_code(row.spec) if row.spec else "", *row.figures)
            for row in rows
        ),
        right={1, 3, 4},
    )
    yield "\n</details>\n"
    yield from notes(report.notes)


def _tree_key(rails: str, name: str) -> str:
    """The branches stand as text before the code: a table cell would drop leading spaces."""
    return f"{rails.replace(' ', '&nbsp;')}{markdown_code(name)}"


def diff_markdown(diff: Diff, old_name: str, new_name: str) -> Iterator[str]:
    """A heading with both names, the summary, the rolled-up table, and all tensors folded away."""
    yield f"### {markdown_code(old_name)} → {markdown_code(new_name)}\n\n"
    if diff.is_same:
        yield f"{markdown(identical_text(diff))}\n"
        yield from notes(diff.notes)
        return
    yield f"{markdown(', '.join(part for part in summary_parts(diff)))}\n\n"
    entries = [
        (markdown(symbol), "(not tensors)", f"{len(which):,}", "", markdown(", ".join(which[:20])))
        for symbol, _, which in extras_rows(diff.extras)
    ]
    rows = [_diff_cells(row) for row in diff_rows(diff)]
    yield from table(("", "key", "n", "elements", "change"), [*rows, *entries], right={2, 3})
    yield from notes(diff.notes)
    yield f"\n<details><summary>all {number_of(len(diff.changes), 'tensor')}</summary>\n\n"
    yield from _limited(
        list(table(("", "key", "n", "elements", "change"), map(_diff_cells, diff_rows(diff, each=True)), right={2, 3}))
    )
    yield "\n</details>\n"


def _diff_cells(row: Row) -> tuple[str, ...]:
    key = markdown(row.shown) if row.shown else markdown_code(row.key)
    return (markdown(SYMBOLS[row.status]), key, f"{len(row.changes):,}", count(row.elements), markdown(row.what))


def _limited(lines: Sequence[str]) -> Iterator[str]:
    """Lines up to the limit, then how many more there are."""
    used = 0
    for at, line in enumerate(lines):
        used += len(line)
        if used > _LIMIT:
            yield f"\n… {len(lines) - at:,} more\n"
            return
        yield line


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], right: set[int]) -> Iterator[str]:
    """A table of cells that are already Markdown."""
    yield f"| {' | '.join(titles)} |\n"
    yield f"|{'|'.join('---:' if at in right else '---' for at in range(len(titles)))}|\n"
    for row in rows:
        yield f"| {' | '.join(row)} |\n"


def notes(notes: Sequence[Note]) -> Iterator[str]:
    for note in notes:
        hint = f"; {markdown(note.hint)}" if note.hint else ""
        yield f"\n**{note.level}** {markdown(note.text)}{hint}\n"
