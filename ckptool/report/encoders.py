"""The registry of outputs: a name for `--format`, an ending for `--report`, and the module that writes a Document.

A new output is one module with `encode_document(document) -> Iterator[str]` and one row here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptool.report.document import Document


@dataclass(frozen=True, slots=True)
class Encoder:
    """One output.

    Attributes:
        name: as `--format` has it.
        ending: of files of `--report`; "" where there are none.
        module: its module in this room.
        of_findings: it shows findings, which commands that only read do not have.
    """

    name: str
    ending: str
    module: str
    of_findings: bool = False

    def encode(self, document: Document) -> Iterator[str]:
        """The document in this format, piece by piece."""
        pieces: Iterator[str] = import_module(f"ckptool.report.{self.module}").encode_document(document)
        return pieces


ENCODERS = (
    Encoder("text", ".txt", "screen"),
    Encoder("json", ".json", "json"),
    Encoder("ndjson", ".ndjson", "ndjson"),
    Encoder("csv", ".csv", "csv"),
    Encoder("markdown", ".md", "markdown"),
    Encoder("html", ".html", "html"),
    Encoder("lines", "", "lines"),
    Encoder("github", "", "github", of_findings=True),
    Encoder("junit", ".xml", "junit", of_findings=True),
    Encoder("sarif", ".sarif", "sarif", of_findings=True),
)
"""In the order in which help names them."""


def encoder_named(name: str) -> Encoder:
    """The encoder for a `--format`.

    Raises:
        StopIteration: there is none of this name.
    """
    return next(encoder for encoder in ENCODERS if encoder.name == name)


def encoder_for(ending: str) -> Encoder:
    """The encoder for a file of `--report`.

    Raises:
        StopIteration: there is none with this ending.
    """
    return next(encoder for encoder in ENCODERS if encoder.ending == ending.lower() and encoder.ending)
