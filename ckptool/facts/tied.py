"""Ties recorded in the metadata of a safetensors file: keys whose tensor is stored under another key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core.counts import many
from ckptool.core.facts import Fact
from ckptool.core.ties import recorded_ties
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder


@dataclass(frozen=True, slots=True)
class TiedInMetadata(Fact):
    """Keys that the metadata ties to stored ones; `ties` are (absent key, stored key)."""

    ties: tuple[tuple[str, str], ...] = ()

    name = "tied"
    rank = 5

    @property
    def text(self) -> str:
        absent, stored = self.ties[0]
        more = f", and {len(self.ties) - 1:,} more" if len(self.ties) > 1 else ""
        return f"{many(len(self.ties), 'tied key')} of the metadata: {absent} is {stored}{more}"

    @property
    def hint(self) -> str:
        return "safetensors stores tied tensors once; the model has them under every key"


@finder
def find(headers: Headers) -> Iterator[TiedInMetadata]:
    checkpoint = headers.checkpoint
    recorded = recorded_ties(checkpoint) if checkpoint.metadata else {}
    ties = {absent: stored for absent, stored in recorded.items() if absent not in checkpoint}
    if ties:
        yield TiedInMetadata(tuple(ties.values()), tuple(ties.items()))
