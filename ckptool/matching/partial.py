"""Lists of blocks of different lengths: the blocks that both sides have, by their numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from ckptool.matching.lists import in_common
from ckptool.matching.modules import Unit
from ckptool.matching.words import is_structure, words_of

_MOST = 0.75  # of the shorter of two rows of leaves are in both

Place = tuple[int, ...]
Chain = tuple[str, ...]


def common_blocks(sources: Sequence[Unit], targets: Sequence[Unit]) -> tuple[dict[Unit, Unit], dict[Unit, Unit]]:
    """Units cut down to the blocks that two lists have in common, with the unit that each was cut from.

    Lists are paired by what their blocks hold, then by their words; a list is paired once.

    Args:
        sources: units that are still free.
        targets: the same.
    """
    ours, theirs = _by_chain(sources), _by_chain(targets)
    scored = sorted(
        (
            (-_alike(ours[one], theirs[other]), -_worded(one, other), one, other)
            for one in ours
            for other in theirs
            if _depth(one) == _depth(other)
        ),
    )
    cut_ours: dict[Unit, Unit] = {}
    cut_theirs: dict[Unit, Unit] = {}
    done: set[Chain] = set()
    gone: set[Chain] = set()
    ties = Counter((*row[:2], side, chain) for row in scored for side, chain in enumerate(row[2:]))
    for score, words, one, other in scored:
        if score > -0.3 or one in done or other in gone:
            continue
        done.add(one)
        gone.add(other)
        same = one == other
        if not same and max(ties[score, words, 0, one], ties[score, words, 1, other]) > 1:
            continue  # two towers, and nothing says which
        if any(unit.path[-1].family for unit in (*ours[one], *theirs[other])):
            laid = _laid(ours[one], theirs[other])
            cut_ours |= laid[0]
            cut_theirs |= laid[1]
            continue
        kept = _are_kept(ours[one], theirs[other])
        if kept and not same and one[-2:] != other[-2:]:
            continue  # numbers of one list, or moved: nothing says
        here, there = (_places(units, same or kept) for units in (ours[one], theirs[other]))
        here, there = _fitted(here, there), _fitted(there, here)
        both = {place for row in here.values() for place in row} & {place for row in there.values() for place in row}
        cut_ours |= _cut(here, both)
        cut_theirs |= _cut(there, both)
    return cut_ours, cut_theirs


def _are_kept(ours: Sequence[Unit], theirs: Sequence[Unit]) -> bool:
    """The numbers of the shorter list are numbers of the longer one, but not its first: blocks were cut out of it."""
    here, there = ({row[0] for unit in units for row in unit.numbers} for units in (ours, theirs))
    short, long = sorted((here, there), key=len)
    return short < long and short != set(sorted(long)[: len(short)])


def _laid(ours: Sequence[Unit], theirs: Sequence[Unit]) -> tuple[dict[Unit, Unit], dict[Unit, Unit]]:
    """Leaves in a row, as in a Sequential: their numbers say nothing, for anything may stand between them."""
    if len(ours) != 1 or len(theirs) != 1:
        return {}, {}
    (one,), (other,) = ours, theirs
    both = in_common(one.shapes[one.main], other.shapes[other.main])
    if len(both) < _MOST * min(len(one.members), len(other.members)):
        return {}, {}
    here, there = zip(*both, strict=True)
    return {one.restricted(here): one}, {other.restricted(there): other}


def _worded(one: Chain, other: Chain) -> float:
    """How much the words of two lists agree."""
    ours, theirs = (
        {word for part in chain for word in words_of(part) if not is_structure(word)} for chain in (one, other)
    )
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else 0.0


def _depth(chain: tuple[str, ...]) -> int:
    return sum("#" in part for part in chain)


def _by_chain(units: Iterable[Unit]) -> dict[tuple[str, ...], list[Unit]]:
    found: dict[tuple[str, ...], list[Unit]] = defaultdict(list)
    for unit in units:
        if unit.chain and not unit.kind:
            found[unit.chain].append(unit)
    return found


def _alike(ours: Sequence[Unit], theirs: Sequence[Unit]) -> float:
    """The share of the smaller block's modules of whose shape the other block has one too, first instance to first."""
    here = [tuple(sorted(unit.shapes[unit.main][0])) for unit in ours]
    there = [tuple(sorted(unit.shapes[unit.main][0])) for unit in theirs]
    shared = 0
    for shape in here:
        if shape in there:
            there.remove(shape)
            shared += 1
    return shared / max(len(ours), len(theirs))


def _places(units: Sequence[Unit], same: bool) -> dict[Unit, list[Place]]:
    """For each unit the places of its instances, counted so that both sides count alike.

    Numbers count as they are written where both sides have the same name, or where they do not begin at 0 or 1; else
    from their first; with gaps between them (``features.1, 3, 5``) by rank.
    """
    depth = max(len(unit.members[0]) for unit in units)
    found: dict[Unit, list[Place]] = {unit: [() for _ in unit.members] for unit in units}
    for level in range(depth):
        numbers = sorted({row[level] for unit in units for row in unit.numbers if len(row) > level})
        gaps = numbers != list(range(numbers[0], numbers[0] + len(numbers)))
        base = 0 if same else numbers[0] if numbers[0] <= 1 else 0
        for unit, places in found.items():
            for at in range(len(places)):
                value = unit.members[at][level] if gaps and not same else unit.numbers[at][level] - base
                places[at] = (*places[at], value)
    return found


def _fitted(places: dict[Unit, list[Place]], other: dict[Unit, list[Place]]) -> dict[Unit, list[Place]]:
    """The places of the longer list moved to those of the shorter one, where numbers alone contradict the shapes.

    A block is moved only if it can be no other: the first way to fit the shorter list in and the last one agree on it.
    """
    ours, theirs = _signatures(places), _signatures(other)
    if len(ours) <= len(theirs) or any(len(place) > 1 for place in ours):
        return places
    if all(ours.get(place) == shapes for place, shapes in theirs.items()):
        return places
    long, short = sorted(ours), sorted(theirs)
    first = _fit([ours[place] for place in long], [theirs[place] for place in short])
    last = _fit([ours[place] for place in reversed(long)], [theirs[place] for place in reversed(short)])
    if not first or not last:
        return places
    last = [len(long) - 1 - at for at in reversed(last)]
    moved = {long[at]: place for at, to, place in zip(first, last, short, strict=True) if at == to}
    return {unit: [moved.get(place, (-1, *place)) for place in row] for unit, row in places.items()}


def _signatures(places: dict[Unit, list[Place]]) -> dict[Place, list[object]]:
    found: dict[Place, list[object]] = defaultdict(list)
    for unit, row in sorted(places.items(), key=lambda item: item[0].shapes[item[0].main]):
        for at, place in enumerate(row):
            found[place].append((len(unit.shapes), unit.shapes[unit.main][at]))
    return {place: sorted(shapes, key=repr) for place, shapes in found.items()}


def _fit(long: Sequence[object], short: Sequence[object]) -> list[int]:
    """Where the items of the shorter list stand in the longer one, each as early as can be; nothing if they do not."""
    found: list[int] = []
    at = 0
    for item in short:
        while at < len(long) and long[at] != item:
            at += 1
        if at == len(long):
            return []
        found.append(at)
        at += 1
    return found


def _cut(places: dict[Unit, list[Place]], both: set[Place]) -> dict[Unit, Unit]:
    found = {}
    for unit, row in places.items():
        kept = [at for at, place in enumerate(row) if place in both]
        if kept:
            found[unit.restricted(kept)] = unit
    return found
