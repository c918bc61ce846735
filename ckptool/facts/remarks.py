"""What the reader of a format noticed while it opened the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core.checkpoint import Note
from ckptool.core.facts import FINE, Answer, Fact, Operation, Say, Use
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder

_NOTHING = Note("")


@dataclass(frozen=True, slots=True)
class Remark(Fact):
    """A reader's note. A note is for whoever lists the file; a warning is shown whatever is done with it."""

    note: Note = _NOTHING

    name = "remark"
    rank = -1

    @property
    def text(self) -> str:
        return self.note.text

    @property
    def hint(self) -> str:
        return self.note.hint


@dataclass(frozen=True, slots=True)
class Warned(Remark):
    """A reader's warning."""

    name = "reader-warning"
    level = "warning"

    def answer(self, use: Use) -> Answer:
        return FINE if use.operation in (Operation.LIST, Operation.COMPARE) else Say(self.note.text, self.note.hint)


@finder
def find(headers: Headers) -> Iterator[Remark]:
    for note in headers.checkpoint.notes:
        yield (Warned if note.level == "warning" else Remark)(note.keys, note)
