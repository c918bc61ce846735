"""One tensor per line between tabs, sorted and stable: git's textconv, grep, join, sha256sum-like checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckptool.report.document import Document
from ckptool.report.escape import terminal

_WHOLE = 1 << 62  # names are not shortened here: two of them must not become one


def encode_document(document: Document) -> Iterator[str]:
    """The listing of the document, its fields between tabs."""
    return map(row_text, document.listing())


def row_text(fields: Sequence[str]) -> str:
    """One line, its fields between tabs and made visible."""
    return "\t".join(terminal(field, _WHOLE) for field in fields) + "\n"
