"""What speaks for an edge and against it: what is matched around it, and where it stands in both files."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise, product

from ckptool.matching.edges import Edge
from ckptool.matching.modules import Unit
from ckptool.matching.words import words_of

_FILE = ((), ())
_TOP = ("", "")  # begins the name of a tower, which no path does
_NEIGHBOURS = 6
_SAMPLES = 6  # blocks in which the order is looked at


@dataclass(slots=True)
class Known:
    """What is matched so far, as context and as anchors of the order."""

    speaks: bool = False
    votes: dict[tuple[str, ...], Counter[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(Counter))
    back: dict[tuple[str, ...], Counter[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(Counter))
    inside: set[tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=set)
    names: tuple[dict[tuple[str, int], set[tuple[str, int]]], ...] = field(
        default_factory=lambda: (defaultdict(set), defaultdict(set))
    )
    anchors: dict[object, list[tuple[int, Edge]]] = field(default_factory=lambda: defaultdict(list))
    rising: dict[object, bool] = field(default_factory=dict)

    def add(self, edges: Iterable[Edge]) -> None:
        """Takes accepted edges in."""
        touched = set()
        for edge in edges:
            for one, other in _around(edge.source, edge.target):
                self.votes[one][other] += 1
                self.back[other][one] += 1
            self.inside.update(product(_inside(edge.source), _inside(edge.target)))
            here, there = _name(edge.source), _name(edge.target)
            self.names[0][here].add(there)
            self.names[1][there].add(here)
            if self.speaks and not edge.backwards:
                for block in {_block(edge), _FILE}:
                    self.anchors[block].append((edge.source.position, edge))
                    touched.add(block)
        for block in touched:
            row = self.anchors[block]
            row.sort(key=lambda one: one[0])
            places = [_first(edge) for _, edge in row]
            rises = sum(a < b for (_, a), (_, b) in pairwise(places))
            self.rising[block] = len(row) > 2 and rises >= 0.75 * (len(row) - 1)

    def look(self, edge: Edge) -> None:
        """Brings the signals of an edge up to date."""
        edge.siblings, edge.context = self._context(edge)
        edge.order = self._order(edge)
        edge.learnt = self._learnt(edge)

    def _learnt(self, edge: Edge) -> float:
        """Whether elsewhere the one's name is matched with the other's alone; of those that have a word in common.

        So it tells which of two of one kind is which, where no word does.
        """
        ours, theirs = ({*words_of(unit.path[-1].text)} for unit in (edge.source, edge.target))
        if not ours & theirs:
            return 0.0
        one, other = _name(edge.source), _name(edge.target)
        return float(self.names[0].get(one) == {other} and self.names[1].get(other) == {one})

    def _context(self, edge: Edge) -> tuple[float | None, float | None]:
        """Of the module that both are in, and of all that lies around them."""
        shares: list[float] = []
        siblings: float | None = None
        top: float | None = None
        for at, (one, other) in enumerate(_around(edge.source, edge.target)):
            forth, back = self.votes.get(one), self.back.get(other)
            is_inside = (one, other) in self.inside
            if not forth and not back and not is_inside:
                continue
            there = forth[other] / forth.total() if forth else 0.0
            here = back[one] / back.total() if back else 0.0
            share = 1.0 if is_inside else max(there, here) if forth and back else there + here
            if one[:2] == _TOP:
                top = share if share or (forth and back) else None
            else:
                shares.append(share)
                if at == 0 and (forth and back):
                    siblings = share
        if not shares or (top is not None and top < 0.25):
            return siblings, top
        return siblings, sum(shares) / len(shares)

    def _order(self, edge: Edge) -> float | None:
        """The share of the nearest matches of the same block that stand on the same side of both."""
        block = _block(edge)
        if not self.speaks or not self.rising.get(block):
            return None
        row = self.anchors[block]
        at = bisect_left(row, edge.source.position, key=lambda one: one[0])
        near = [one for _, one in row[max(at - _NEIGHBOURS, 0) : at + _NEIGHBOURS] if one.source is not edge.source]
        shares = [share for one in near if (share := _same_side(edge, one)) is not None]
        return sum(shares) / len(shares) if shares else None


def _block(edge: Edge) -> object:
    """What order is compared in: the list that both are in; outside of all lists the whole file."""
    return edge.source.chain, edge.target.chain


def _first(edge: Edge) -> tuple[int, int]:
    here, there = edge.instances[0]
    return edge.source.places[here], edge.target.places[there]


def _same_side(edge: Edge, anchor: Edge) -> float | None:
    """In how many blocks both stand before the anchor, or both behind it."""
    if not edge.source.chain:
        mine, its = _first(edge), _first(anchor)
        return float((mine[0] < its[0]) == (mine[1] < its[1]))
    ours, theirs = anchor.source.by_number, anchor.target.by_number
    votes = []
    for here, there in edge.instances[:: max(1, edge.count // _SAMPLES)]:
        at, to = ours.get(edge.source.numbers[here]), theirs.get(edge.target.numbers[there])
        if at is not None and to is not None:
            before = edge.source.places[here] < anchor.source.places[at]
            votes.append(before == (edge.target.places[there] < anchor.target.places[to]))
    return sum(votes) / len(votes) if votes else None


def _name(unit: Unit) -> tuple[str, int]:
    """The last part, and among how many of its like it is counted, for a number means something else among others."""
    last = unit.path[-1]
    return last.text, last.rank[1] if last.rank else 0


def _inside(unit: Unit) -> list[tuple[str, ...]]:
    """The modules of its block that a unit is in, one in another."""
    return [unit.parent[:depth] for depth in range(len(unit.chain) + 1, len(unit.parent) + 1)]


def _around(source: Unit, target: Unit) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """What lies around two units, level by level: their modules, their blocks, the towers they stand in."""
    levels = [(source.parent, target.parent)]
    if not source.path[-1].family and not target.path[-1].family:  # those are no blocks, but leaves in a row
        levels.append((source.chain, target.chain))
    levels = [row for row in levels if row != ((), ())]  # at the top lies everything
    if len(source.path) > 1 and len(target.path) > 1:
        levels.append(((*_TOP, source.path[0].text), (*_TOP, target.path[0].text)))
    return levels
