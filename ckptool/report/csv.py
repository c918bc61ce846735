"""CSV (RFC 4180) for spreadsheets and data frames: a row per tensor, raw numbers, no text that acts as a formula."""

from __future__ import annotations

from collections.abc import Iterator

from ckptool.report.document import Document
from ckptool.report.escape import terminal

_WHOLE = 1 << 62  # names are not shortened: two of them must not become one
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # some take wide forms, too
_QUOTED = frozenset('",\r\n')


def encode_document(document: Document) -> Iterator[str]:
    """A heading, then the rows of the document's table."""
    table = document.table()
    named = [at for at, field in enumerate(table.fields) if field.name]
    yield ",".join(table.fields[at].name for at in named) + "\r\n"
    for row in table.rows:
        yield ",".join(encode_cell(row[at]) for at in named) + "\r\n"


def encode_cell(cell: str | float | bool | None) -> str:
    """One field: numbers as they are, nothing for None, texts visible, quoted and not formulas.

    Example:
        >>> [encode_cell(cell) for cell in ("a,b", "=1+1", -0.5, None, True)]
        ['"a,b"', "'=1+1", '-0.5', '', 'true']
    """
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if not isinstance(cell, str):
        return repr(cell)
    text = terminal(cell, _WHOLE)
    if cell.startswith(_FORMULA) or text.startswith(_FORMULA):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if _QUOTED.intersection(text) or text != text.strip(" ") else text
