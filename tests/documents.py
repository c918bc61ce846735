"""Documents as text, for goldens: what a report says, whatever the width of the screen and the looks of its blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from console import fits, same_as_golden

from ckptool.report import screen
from ckptool.report.blocks import Facts, Rows
from ckptool.report.cells import cell_of, cell_text
from ckptool.report.document import Document


def record_documents(monkeypatch: pytest.MonkeyPatch) -> list[Document]:
    """A list that gets each document that is shown as text from now on; they are shown as always."""
    documents: list[Document] = []
    show = screen.document_lines

    def record(document: Document, *rest: Any) -> Any:
        documents.append(document)
        return show(document, *rest)

    monkeypatch.setattr(screen, "document_lines", record)
    return documents


SCREENS = (
    *("inspect-resnet18-80", "diff-tuned-80", "diff-tuned-160", "filter-training-80", "remap-rules-80"),
    *("match-remap-80", "merge-ties-80", "transplant-reid-80", "transplant-reid-160", "probe-swap-80"),
)
"""The reports that are also compared as whole screens, with their widths; the coloured ones beside."""


def same_report(name: str, columns: int, shown: str, documents: list[Document]) -> None:
    """Compares a report with its golden: its documents, and the screen if it is one of `SCREENS`.

    Args:
        name: of the report.
        columns: of the screen; every line must fit.
        shown: on it.
        documents: what was recorded; it is emptied.
    """
    assert all(fits(line, columns) for line in shown.splitlines())
    if f"{name}-{columns}" in SCREENS:
        same_as_golden(f"{name}-{columns}", shown)
    assert documents
    same_as_golden(f"documents/{name}", "\n".join(map(document_text, documents)))
    documents.clear()


def document_text(document: Document) -> str:
    """The answer and every block that says something, with its type and a value a line."""
    lines = [f"{document.command} [{document.answer.mood}] {document.answer.text}"]
    lines += (f"problem: {problem.message} / {problem.hint}" for problem in document.problems)
    for block in document.blocks():
        found = list(_block(block, document.verbose))
        if len(found) > 1:
            lines += ["", *found]
    return "".join(f"{_visible(line)}\n" for line in lines)


def _visible(line: str) -> str:
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)


def _block(block: Any, verbose: bool) -> Iterator[str]:
    if isinstance(block, Rows):
        yield from _rows(block, verbose)
    elif isinstance(block, Facts):
        yield "Facts"
        yield from (f"  {title}: {' | '.join(entries)}" for title, entries in block.rows if entries)
    else:
        yield type(block).__name__
        for field in fields(block):
            yield from _value(field.name, getattr(block, field.name), field.default, "  ")


def _rows(block: Rows, verbose: bool) -> Iterator[str]:
    """A table, its columns with their kinds first; a value of nothing is a dash, a look is in brackets."""
    yield f"Rows {block.title}".rstrip()
    yield "  " + " | ".join(
        " ".join([column.title or "-", column.kind, *(name for name in ("wide", "spare") if getattr(column, name))])
        for column in block.columns
    )
    for row in block.rows():
        texts = []
        for column, value in zip(block.columns, row.cells, strict=False):
            cell = cell_of(value)
            look = f" [{cell.style}]" if cell.style else ""
            texts.append(f"{cell.lead}{cell_text(column.kind, cell.value).strip() or '-'}{look}")
        yield "  " + " | ".join(texts) + (f"  [{row.style}]" if row.style else "")
    if verbose and block.each is not None:
        yield from ("  " + line for line in _rows(block.each, verbose))


def _value(name: str, value: Any, default: Any, indent: str) -> Iterator[str]:
    """A field, unless it is as always."""
    if value == default:
        return
    if is_dataclass(value):
        yield f"{indent}{name}"
        for field in fields(value):
            yield from _value(field.name, getattr(value, field.name), field.default, indent + "  ")
    elif not isinstance(value, (tuple, list)):
        yield f"{indent}{name}: {value}"
    elif any(map(is_dataclass, value)):
        for each in value:
            yield from _value(name, each, None, indent)
    elif value:
        yield f"{indent}{name}: {' | '.join(f'{each:.2g}' if isinstance(each, float) else str(each) for each in value)}"
