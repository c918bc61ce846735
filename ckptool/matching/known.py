"""What is matched so far: what lies around it, and where it stands in both files."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from ckptool.matching.modules import Unit

AGAINST = 0.25  # of the neighbours, at most: they speak against a pair

_TOP = ("", "")  # begins the name of a tower, which no path does
_NEIGHBOURS = 6


@dataclass(slots=True)
class Known:
    """What is matched so far, as context and as anchors of the order."""

    votes: dict[tuple[str, ...], Counter[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(Counter))
    back: dict[tuple[str, ...], Counter[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(Counter))
    anchors: list[tuple[int, int]] = field(default_factory=list)
    ordered: bool = False
    in_one_order: bool = True  # False where one file is in the order of its letters, and the other is not
    is_whole: bool = False  # the two sides hold the same shapes equally often: each unit has a counterpart

    def add(self, pairs: Iterable[tuple[Unit, Unit]]) -> None:
        """Takes matched units in."""
        for source, target in pairs:
            for one, other in _around(source, target):
                self.votes[one][other] += 1
                self.back[other][one] += 1
            self.anchors.append((source.position, target.position))
        self.anchors.sort()
        rising = sum(a[1] < b[1] for a, b in zip(self.anchors, self.anchors[1:], strict=False))
        self.ordered = self.in_one_order and len(self.anchors) > 2 and rising >= 0.75 * (len(self.anchors) - 1)

    def context(self, source: Unit, target: Unit) -> float | None:
        """The share of what lies around the source unit that lies around the target unit; None: nothing is known."""
        shares = []
        top: float | None = None
        for one, other in _around(source, target):
            forth, back = self.votes.get(one), self.back.get(other)
            if forth or back:
                there = forth[other] / forth.total() if forth else 0.0
                here = back[one] / back.total() if back else 0.0
                share = max(there, here) if forth and back else there + here
                if one[:2] == _TOP:
                    top = share if share or (forth and back) else None
                else:
                    shares.append(share)
        if not shares or (top is not None and top < AGAINST):
            return top
        return sum(shares) / len(shares)

    def order(self, source: Unit, target: Unit) -> float | None:
        """The share of the nearest anchors that lie on the same side of both; None: the files are not in one order."""
        if not self.ordered:
            return None
        at = bisect_left(self.anchors, (source.position, -1))
        near = self.anchors[max(at - _NEIGHBOURS, 0) : at + _NEIGHBOURS]
        near = [row for row in near if row[0] != source.position]
        return sum((a < source.position) == (b < target.position) for a, b in near) / len(near) if near else None


def _around(source: Unit, target: Unit) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """What lies around two units, level by level: their blocks, their modules, the towers they stand in."""
    levels = [(source.parent, target.parent)]
    if not source.path[-1].family and not target.path[-1].family:  # those are no blocks, but leaves in a row
        levels.append((source.chain, target.chain))
    levels = [row for row in levels if row != ((), ())]  # at the top lies everything
    if len(source.path) > 1 and len(target.path) > 1:
        levels.append(((*_TOP, source.path[0].text), (*_TOP, target.path[0].text)))
    return levels
