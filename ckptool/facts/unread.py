"""Parts of a file, or files of a folder, that no loader reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core import observations as seen
from ckptool.core.counts import listed, many
from ckptool.core.facts import FINE, Answer, Fact, Operation, Say, Use
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder

_AFTER = {"pickle": "the pickle in data.pkl", "storages": "the last storage"}


@dataclass(frozen=True, slots=True)
class TrailingBytes(Fact):
    """Bytes behind all that torch reads."""

    nbytes: int = 0
    after: str = ""

    name = "trailing-bytes"
    tells = True
    grade = "warning"
    rank = -1

    @property
    def text(self) -> str:
        follow = "byte follows" if self.nbytes == 1 else "bytes follow"
        return f"{self.nbytes:,} {follow} {self.after}; torch does not read them"

    @property
    def hint(self) -> str:
        return "an output does not have them"

    def answer(self, use: Use) -> Answer:
        return Say(self.text, "not carried over") if use.operation is Operation.COPY else FINE


@dataclass(frozen=True, slots=True)
class UnusedFiles(Fact):
    """Files that are in the folder and not part of the checkpoint."""

    names: tuple[str, ...] = ()

    name = "unused-files"
    grade = "note"
    rank = -1

    @property
    def text(self) -> str:
        are = "file is" if len(self.names) == 1 else "files are"
        return f"{len(self.names):,} .distcp {are} not part of this checkpoint: {listed(self.names)}"

    @property
    def hint(self) -> str:
        return "an earlier save left them; .metadata does not name them"


@dataclass(frozen=True, slots=True)
class UnknownFields(Fact):
    """Fields of a safetensors header that the format does not have."""

    name = "unknown-fields"
    level = "warning"
    grade = "warning"
    rank = -1

    @property
    def text(self) -> str:
        return f"the header gives {many(len(self.keys), 'tensor')} fields that the format does not have"

    @property
    def hint(self) -> str:
        return "they are ignored, as the reference implementation ignores them"

    def answer(self, use: Use) -> Answer:
        return Say(self.text, "not carried over") if use.operation is Operation.COPY else FINE


@finder
def find(headers: Headers) -> Iterator[Fact]:
    for rest in headers.observed(seen.TrailingBytes):
        yield TrailingBytes(nbytes=rest.nbytes, after=_AFTER[rest.after])
    for unused in headers.observed(seen.UnusedFiles):
        yield UnusedFiles(names=unused.names)
    for fields in headers.observed(seen.UnknownFields):
        yield UnknownFields(fields.keys)
