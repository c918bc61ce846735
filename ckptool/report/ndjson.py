"""NDJSON: one tensor per line, then one line with the summary; for jq, logs and data frames."""

from __future__ import annotations

from collections.abc import Iterator

from ckptool.report.document import Document
from ckptool.report.json import encode


def encode_document(document: Document) -> Iterator[str]:
    """A record per line, then ``{"summary": ...}``."""
    for record in document.records():
        yield encode(record) + "\n"
    yield encode({"summary": document.summary()}) + "\n"
