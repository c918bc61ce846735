"""What the shards and the index of a checkpoint do not agree on. `check` has a rule of its own for it: `shards`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core import observations as seen
from ckptool.core.counts import listed, many
from ckptool.core.facts import FINE, TAKES_VALUES, Answer, Fact, Operation, Say, Use
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder


@dataclass(frozen=True, slots=True)
class NoIndex(Fact):
    """Shards that were taken by their names."""

    name = "no-index"
    rank = -1

    @property
    def text(self) -> str:
        return "there is no index; the shards were found by their names"

    @property
    def hint(self) -> str:
        return "no number is missing"


@dataclass(frozen=True, slots=True)
class MetadataDiffers(Fact):
    """Metadata that differs between the shards."""

    names: tuple[str, ...] = ()

    name = "metadata-differs"
    grade = "note"
    rank = -1

    @property
    def text(self) -> str:
        quoted = [f'"{name}"' for name in self.names]
        return f"the shards' metadata differ in {listed(quoted)}"

    @property
    def hint(self) -> str:
        return "that of the first shard is shown and kept"

    def answer(self, use: Use) -> Answer:
        return Say(self.text, self.hint) if use.operation is Operation.COPY else FINE


@dataclass(frozen=True, slots=True)
class NotInIndex(Fact):
    """Tensors that no loader loads, for the index does not list them."""

    unlisted: tuple[str, ...] = ()

    name = "unlisted"
    tells = True
    level = "warning"
    rank = -1

    @property
    def text(self) -> str:
        are = "is" if len(self.unlisted) == 1 else "are"
        return f"{many(len(self.unlisted), 'tensor')} of the shards {are} not in the index: {listed(self.unlisted)}"

    @property
    def hint(self) -> str:
        return "not used, as loaders do not use them; if they belong to the model, get the index again"

    def answer(self, use: Use) -> Answer:
        return Say(self.text, self.hint) if use.operation in TAKES_VALUES else FINE


@dataclass(frozen=True, slots=True)
class WrongTotalSize(Fact):
    """The index states another size than its tensors have, in bytes."""

    stated: int = 0
    nbytes: int = 0

    name = "total-size"
    rank = -1

    @property
    def text(self) -> str:
        return f"the index states a total_size of {many(self.stated, 'byte')}, its tensors have {self.nbytes:,}"

    @property
    def hint(self) -> str:
        return "loaders do not look at it"


@finder
def find(headers: Headers) -> Iterator[Fact]:
    for _ in headers.observed(seen.NoIndex):
        yield NoIndex()
    for differing in headers.observed(seen.MetadataDiffers):
        yield MetadataDiffers(names=differing.names)
    for unlisted in headers.observed(seen.NotInIndex):
        yield NotInIndex(unlisted=unlisted.keys)
    for size in headers.observed(seen.WrongTotalSize):
        yield WrongTotalSize(stated=size.stated, nbytes=size.nbytes)
