"""Two files with the same shapes in the same order, whatever the names: a network written down twice.

Order alone is often wrong, so everything must fit: all modules of both files, one after the other, of equal roles and
shapes; no match that was found by other signals may say otherwise; a run of equal modules (q, k, v) stays open, and so
does everything where two parts of one file are alike (two towers), for nothing says which of them comes first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ckptool.matching.alike import contradicts, similarity
from ckptool.matching.edges import Match
from ckptool.matching.modules import Unit
from ckptool.matching.relations import squeezed
from ckptool.matching.result import Confidence, Evidence

_SHORTEST = 12  # modules of a file whose order says something


@dataclass(frozen=True, slots=True)
class Module:
    """One instance of a unit."""

    unit: Unit
    at: int

    @property
    def kind(self) -> object:
        """What must be equal: roles and shapes."""
        shapes = self.unit.shapes
        return tuple(
            (role, squeezed(shapes[role][self.at])) for role in sorted(shapes) if role != "num_batches_tracked"
        )

    @property
    def key(self) -> str:
        """Of its main tensor."""
        return self.unit.keys[self.unit.main][self.at]


def in_sequence(
    sources: Sequence[Unit],
    targets: Sequence[Unit],
    places: tuple[Mapping[str, int], Mapping[str, int]],
    known: Mapping[str, str],
    io: frozenset[Unit],
) -> list[Match]:
    """Matches of single modules, by their place.

    Args:
        sources: all units of the source, as they are in the file.
        targets: the same.
        places: of every key in its file.
        known: source key by target key, of what is matched already.
        io: units whose matrices are stored the other way round; with them shapes are not what they seem.
    """
    ours, theirs = _modules(sources, places[0]), _modules(targets, places[1])
    kinds = [module.kind for module in ours]
    if len(ours) < _SHORTEST or io or kinds != [module.kind for module in theirs]:
        return []
    if _has_twins(ours) or _has_twins(theirs):
        return []
    if any(known.get(other.key, one.key) != one.key for one, other in zip(ours, theirs, strict=True)):
        return []
    found = []
    for at, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        in_a_run = kinds[at] in (*kinds[max(at - 1, 0) : at], *kinds[at + 1 : at + 2])
        if other.key in known or in_a_run or contradicts(one.unit, other.unit):
            continue
        here, there = one.unit.restricted([one.at]), other.unit.restricted([other.at])
        evidence: tuple[Evidence, ...] = (Evidence.SAME_SEQUENCE,)
        if similarity(here, there) >= 0.25:
            evidence += (Evidence.WORDS_AGREE,)
        found.append(Match(here, there, evidence, Confidence.ALIGNED))
    return found


def _modules(units: Iterable[Unit], place: Mapping[str, int]) -> list[Module]:
    found = [Module(unit, at) for unit in units for at in range(len(unit.members))]
    return sorted(found, key=lambda module: min(place[keys[module.at]] for keys in module.unit.keys.values()))


def _has_twins(modules: Sequence[Module]) -> bool:
    """Two parts with names of their own, not numbers, hold the same modules."""
    parts: dict[tuple[str, ...], list[object]] = defaultdict(list)
    for module in modules:
        names = module.key.split(".")[:-1]
        for depth in range(1, min(len(names), 4)):
            if not any(char.isdigit() for char in names[depth - 1]):
                parts[tuple(names[:depth])].append(module.kind)
    beside: dict[tuple[str, ...], list[tuple[object, ...]]] = defaultdict(list)
    for name, row in parts.items():
        if len(row) > 3:
            beside[name[:-1]].append(tuple(row))
    return any(len(set(rows)) < len(rows) for rows in beside.values())
