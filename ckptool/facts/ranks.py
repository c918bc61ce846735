"""A checkpoint that the ranks of a training run hold together, opened as one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ckptool.core.facts import Fact
from ckptool.core.ranks import Ranks
from ckptool.facts.headers import Headers, many
from ckptool.facts.registry import finder

_SHOWN = 4  # kinds of placements


@dataclass(frozen=True, slots=True)
class Joined(Fact):
    """The tensors are whole: their parts lie in the files of several ranks."""

    ranks: Ranks = field(default_factory=lambda: Ranks(0))

    name = "ranks"
    rank = -2

    @property
    def text(self) -> str:
        ranks = self.ranks
        parts = [many(ranks.count, "rank")]
        if ranks.mesh_text:
            parts.append(f"mesh {ranks.mesh_text}")
        if ranks.step is not None:
            parts.append(f"step {ranks.step:,}")
        if ranks.version:
            parts.append(ranks.version)
        return f"joined from the files of a training run: {', '.join(parts)}"

    @property
    def hint(self) -> str:
        placements = sorted(self.ranks.placements.items(), key=lambda pair: -pair[1])
        listed = ", ".join(f"{name}: {many(count, 'tensor')}" for name, count in placements[:_SHOWN])
        return f"{listed}{', ...' if len(placements) > _SHOWN else ''}"


@finder
def find(headers: Headers) -> Iterator[Joined]:
    ranks = headers.checkpoint.ranks
    if ranks is not None:
        yield Joined(ranks=ranks)
