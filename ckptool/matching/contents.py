"""Parts of two files that hold the same matrices, whatever they are called, however deep they are, in any order.

A matrix that alone of its shape is in a part goes to that which alone of this shape is in the other part. Parts that
alone hold what they hold are each other's. Of several matrices of one shape in a part, and of several parts that hold
the same, those whose names differ in numbers alone are taken in their order, if both sides have as many and no others
are as many. What only one file has does not count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeVar

from ckptool.matching.instances import COUNTED, Block, Instance, Kind, Pair

Contents = frozenset[tuple[Kind, int]]
T = TypeVar("T")


@dataclass(slots=True)
class _Part:
    """What stands behind one beginning of names.

    Attributes:
        name: it, token by token.
        modules: all matrices in it.
    """

    name: Block
    modules: list[Instance] = field(default_factory=list)

    @property
    def contents(self) -> Contents:
        return frozenset(Counter(one.kind for one in self.modules).items())


def in_parts(ours: Sequence[Instance], theirs: Sequence[Instance]) -> list[Pair]:
    """Which matrix is which, as far as their shapes and the parts that they are in tell.

    Args:
        ours: matrices.
        theirs: the same.
    """
    common = {one.kind for one in ours} & {one.kind for one in theirs}
    whole = [[one for one in side if one.kind in common] for side in (ours, theirs)]
    roots = [_Part((), side) for side in whole]
    found: list[Pair] = []
    used: set[int] = set()
    pairs: dict[tuple[Block, Block], tuple[_Part, _Part]] = {((), ()): (roots[0], roots[1])}
    todo = [*pairs.values()]
    for here, there in todo:
        inner = {(one.name, other.name): (one, other) for one, other in _paired(_parts(here), _parts(there))}
        todo += [pair for names, pair in inner.items() if names not in pairs]
        pairs |= inner
        for one, other in _alone(here.modules, there.modules, is_whole=not here.name):
            if used.isdisjoint((id(one), id(other))):
                used |= {id(one), id(other)}
                found.append((one, other))
    inside = {id(one) for part, _ in todo[1:] for one in part.modules}
    return _beside(found, inside, ours, theirs)


def _beside(found: Sequence[Pair], inside: AbstractSet[int], *sides: Iterable[Instance]) -> list[Pair]:
    """The pairs, but for those outside of all parts that alone lie in their module with other matrices, on a side."""
    there = [Counter(name for one in side for name in _modules(one)) for side in sides]
    laid = [Counter(name for pair in found for name in _modules(pair[side])) for side in (0, 1)]

    def is_beside(one: Instance, side: int) -> bool:
        home = next((name for name in _modules(one) if there[side][name] > 1), ())
        return laid[side][home] > 1

    return [pair for pair in found if id(pair[0]) in inside or all(map(is_beside, pair, (0, 1)))]


def _modules(one: Instance) -> list[Block]:
    """What it is in, the innermost first."""
    parts = tuple(one.key.replace("/", ".").split(".")[:-2])
    return [parts[:depth] for depth in range(len(parts), -1, -1)]


def _alone(ours: Iterable[Instance], theirs: Iterable[Instance], *, is_whole: bool) -> list[Pair]:
    """Those that are alone of their kind on both sides; in a part of the file also those that are counted.

    Of those no others may have the same axes the other way round, for these may be stored so.
    """
    rows: list[dict[Kind, list[Instance]]] = []
    for side in (ours, theirs):
        kinds: dict[Kind, list[Instance]] = defaultdict(list)
        for one in side:
            kinds[one.kind].append(one)
        rows.append(kinds)
    here, there = rows
    return [
        pair
        for kind, row in here.items()
        if len(row) == 1 or not (is_whole or (kind[0], kind[1][::-1]) in here.keys() - {kind})
        for pair in _by_numbers(row, there.get(kind, []), lambda one: one.tokens)
    ]


def _parts(whole: _Part) -> list[_Part]:
    """All parts inside of one that hold less; of those that hold the same matrices the outermost."""
    found: dict[Block, _Part] = {}
    for one in whole.modules:
        for depth in range(len(whole.name) + 1, len(one.tokens)):
            name = one.tokens[:depth]
            found.setdefault(name, _Part(name)).modules.append(one)
    sizes = {name: len(part.modules) for name, part in found.items()}
    return [
        part
        for name, part in found.items()
        if 1 < sizes[name] < len(whole.modules) and sizes.get(name[:-1]) != sizes[name]
    ]


def _paired(ours: Iterable[_Part], theirs: Iterable[_Part]) -> list[tuple[_Part, _Part]]:
    """The parts that hold the same as each other and as no other, or are counted."""
    rows: list[dict[Contents, list[_Part]]] = []
    for side in (ours, theirs):
        alike: dict[Contents, list[_Part]] = defaultdict(list)
        for part in side:
            alike[part.contents].append(part)
        rows.append(alike)
    return [
        pair
        for contents, row in rows[0].items()
        for pair in _by_numbers(row, rows[1].get(contents, []), lambda part: part.name)
    ]


def _by_numbers(ours: Sequence[T], theirs: Sequence[T], name: Callable[[T], Block]) -> list[tuple[T, T]]:
    """Of as many on both sides: those whose names differ in numbers alone, in their order, if no others are as many."""
    if len(ours) != len(theirs):
        return []
    here, there = (_families(side, name) for side in (ours, theirs))
    return [
        pair
        for size, rows in here.items()
        if len(rows) == len(there.get(size, ())) == 1 and all(_are_counted(row[0], name) for row in (rows, there[size]))
        for pair in zip(rows[0], there[size][0], strict=True)
    ]


def _families(side: Iterable[T], name: Callable[[T], Block]) -> dict[int, list[list[T]]]:
    """Those whose names differ in numbers alone, in their order, by how many they are."""
    rows: dict[str, list[T]] = defaultdict(list)
    for one in side:
        rows[COUNTED.sub("#", ".".join(name(one)))].append(one)
    found: dict[int, list[list[T]]] = defaultdict(list)
    for row in rows.values():
        found[len(row)].append(sorted(row, key=lambda one: _numbers(name(one))))
    return found


def _are_counted(row: Sequence[T], name: Callable[[T], Block]) -> bool:
    """No two have the same numbers."""
    return len({name(one) for one in row}) == len(row)


def _numbers(name: Block) -> list[int]:
    return [int(text) if text.isdigit() else ord(text) for text in COUNTED.findall(".".join(name))]
