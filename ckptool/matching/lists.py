"""Lists of blocks that hold the same modules one after the other, however deep they are and whatever they are called.

One list of sixteen blocks here, seven stages of one to four blocks there; the first block lacks an expansion, and one
side counts its norms without the gap. Block by block the shapes are the same, in the order of the numbers. So blocks
are paired, and put together by what they hold; inside such a group modules are matched as anywhere else.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ckptool.matching.alike import Form
from ckptool.matching.assign import Match
from ckptool.matching.cuts import parts_of
from ckptool.matching.modules import Shape, Unit

Numbers = tuple[int, ...]
Instance = tuple[Unit, int]

_FEWEST = 3  # blocks of a list, and of different contents among them, whose order says something
_LARGE = 20_000  # tensors; such files are lists of blocks of one kind
_DEEPEST = 3  # numbers in the name of a block
_OPTIONAL = frozenset({"bias", "num_batches_tracked"})


@dataclass(frozen=True, slots=True)
class Group:
    """The blocks of one kind in two lists.

    Attributes:
        sources: the units, cut down to these blocks, and what each was cut from.
        targets: the same.
    """

    sources: dict[Unit, Unit]
    targets: dict[Unit, Unit]


def aligned_lists(
    sources: Sequence[Unit],
    targets: Sequence[Unit],
    form: Form,
    places: tuple[Mapping[str, int], Mapping[str, int]],
) -> list[Group]:
    """The lists that are alike block by block, in groups of blocks that hold units of the same names on each side.

    Lists of one kind of blocks are left alone, for those are units already; and those of which another list of the same
    file holds the same.

    Args:
        sources: the units of the source.
        targets: those of the target.
        form: what shapes are compared by.
        places: of every key in its file.
    """
    if len(places[0]) > _LARGE or len(places[1]) > _LARGE:
        return []
    ours, theirs = _lists(sources), _lists(targets)
    by_contents: dict[object, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    kinds: dict[Unit, tuple[Shape, ...]] = {unit: form(unit) for unit in (*sources, *targets)}
    for side, lists in enumerate((ours, theirs)):
        for name, blocks in lists.items():
            contents = tuple(_contents(blocks[number], kinds) for number in sorted(blocks))
            if len(set(contents)) >= _FEWEST:
                by_contents[contents][side].append(name)
    found: list[Group] = []
    done: set[Unit] = set()
    pairs = [(here[0], there[0]) for here, there in by_contents.values() if len(here) == len(there) == 1]
    for here, there in sorted(pairs, key=lambda row: -len(ours[row[0]])):
        units = {unit for block in (*ours[here].values(), *theirs[there].values()) for unit, _ in block}
        if not units & done:
            done |= units
            found += _groups(ours[here], theirs[there], places)
    return found


def _lists(units: Iterable[Unit]) -> dict[str, dict[Numbers, list[Instance]]]:
    """By the name of a list, with ``#`` for numbers: its blocks by their numbers."""
    found: dict[str, dict[Numbers, list[Instance]]] = defaultdict(lambda: defaultdict(list))
    for unit in units:
        for at, key in enumerate(unit.keys[unit.main]):
            parts = parts_of(key)[0][:-1]
            if unit.bare and not parts:
                continue
            numbered = [level for level, part in enumerate(parts) if re.search(r"\d", part)]
            for level in numbered[:_DEEPEST]:
                name = ".".join(parts[: level + 1])
                numbers = tuple(map(int, re.findall(r"\d+", name)))
                found[re.sub(r"\d+", "#", name)][numbers].append((unit, at))
    return {
        name: blocks
        for name, blocks in found.items()
        if len(blocks) >= _FEWEST and sum(map(len, blocks.values())) >= 2 * len(blocks)
    }


def _contents(block: Iterable[Instance], kinds: Mapping[Unit, tuple[Shape, ...]]) -> object:
    counts = Counter((frozenset(unit.shapes.keys() - _OPTIONAL), kinds[unit][at]) for unit, at in block)
    return frozenset(counts.items())


def _groups(
    ours: Mapping[Numbers, Sequence[Instance]],
    theirs: Mapping[Numbers, Sequence[Instance]],
    places: tuple[Mapping[str, int], Mapping[str, int]],
) -> list[Group]:
    rows: dict[object, list[tuple[Sequence[Instance], Sequence[Instance]]]] = defaultdict(list)
    for here, there in zip(sorted(ours), sorted(theirs), strict=True):
        block, other = ours[here], theirs[there]
        rows[_names(block), _names(other)].append((block, other))
    if len(rows) == 1:
        return []
    return [
        Group(_cut([block for block, _ in row], places[0]), _cut([other for _, other in row], places[1]))
        for row in rows.values()
    ]


def _names(block: Iterable[Instance]) -> object:
    return frozenset(Counter(unit for unit, _ in block).items())


def _cut(blocks: Sequence[Sequence[Instance]], place: Mapping[str, int]) -> dict[Unit, Unit]:
    """The units cut down to some blocks, in which each stands as often; the n-th of each block together."""
    kept: dict[tuple[Unit, int], list[int]] = defaultdict(list)
    for block in blocks:
        seen: Counter[Unit] = Counter()
        for unit, at in block:
            kept[unit, seen[unit]].append(at)
            seen[unit] += 1
    made = {}
    for (unit, _), row in kept.items():
        one = unit.restricted(row)
        one.position = min(place[keys[0]] for keys in one.keys.values())
        made[one] = unit
    return _ranked(made)


def _ranked(units: Mapping[Unit, Unit]) -> dict[Unit, Unit]:
    """The units with their numbers ranked among those that are left beside them."""
    beside: dict[object, dict[int, Unit]] = defaultdict(dict)
    for unit in units:
        last = unit.path[-1]
        if last.rank and (found := re.search(r"\d+", last.text)):
            kind = unit.parent, re.sub(r"\d+", "#", last.text), frozenset(unit.shapes.keys() - _OPTIONAL)
            beside[kind][int(found[0])] = unit
    for row in beside.values():
        for at, number in enumerate(sorted(row)):
            unit = row[number]
            unit.path = (*unit.path[:-1], replace(unit.path[-1], rank=(at, len(row))))
            unit.__post_init__()
    return dict(units)


def whole(matches: Sequence[Match], origin: Mapping[Unit, Unit]) -> list[Match]:
    """Matches of units that were cut, put together again where all that a unit was cut into belongs to one other.

    Args:
        matches: of units that were cut down.
        origin: what each was cut from.
    """
    rows: dict[tuple[Unit, Unit], list[Match]] = defaultdict(list)
    for one in matches:
        rows[origin[one.source], origin[one.target]].append(one)
    found: list[Match] = []
    for (source, target), row in rows.items():
        pairs = {a: b for one in row for a, b in zip(_main(one.source), _main(one.target), strict=True)}
        if [pairs.get(key) for key in _main(source)] == [*_main(target)]:
            first = max(row, key=lambda one: one.confidence.rank)
            found.append(replace(first, source=source, target=target))
        else:
            found += row
    return found


def _main(unit: Unit) -> tuple[str, ...]:
    return unit.keys[unit.main]
