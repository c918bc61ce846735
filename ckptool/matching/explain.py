"""What was weighed for one key: every candidate, what each signal says of it, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckptool.matching.edges import Edge
from ckptool.matching.modules import Unit
from ckptool.matching.result import Candidate


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """All that was weighed in a match."""

    edges: Sequence[Edge]

    def __call__(self, key: str) -> list[Candidate]:
        """The candidates for a key of either side, the best first."""
        found = dict.fromkeys(one for edge in self.edges for one in _candidates(edge, key))
        return sorted(found, key=lambda one: -one.total)


def _candidates(edge: Edge, key: str) -> Iterator[Candidate]:
    for role in edge.source.keys.keys() & edge.target.keys.keys():
        for at, to in edge.instances:
            sources, targets = _keys(edge.source, role, at), _keys(edge.target, role, to)
            if key in sources or key in targets:
                signals = edge.words, edge.penalty, edge.context, edge.siblings, edge.blocks, edge.order, edge.total
                yield Candidate(targets, sources, *signals)


def _keys(unit: Unit, role: str, at: int) -> tuple[str, ...]:
    return unit.groups[role][at] if unit.groups else (unit.keys[role][at],)
