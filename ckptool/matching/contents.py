"""Parts of two files that hold the same matrices, whatever they are called, however deep they are, in any order.

A matrix that alone of its shape is in a part goes to that which alone of this shape is in the other part. Parts that
alone hold what they hold are each other's; of several that hold the same those that are counted are taken in the order
of their numbers, if there are as many. What only one file has does not count.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from ckptool.matching.instances import COUNTED, Instance, Kind, Pair

Contents = frozenset[tuple[Kind, int]]


@dataclass(slots=True)
class _Part:
    """What stands behind one beginning of names.

    Attributes:
        name: it, token by token.
        modules: all matrices in it.
    """

    name: tuple[str, ...]
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
    found: dict[int, Pair] = {}
    used: set[int] = set()
    todo = [(roots[0], roots[1])]
    while todo:
        here, there = todo.pop()
        todo += _paired(_parts(here), _parts(there))
        for one, other in _alone(here.modules, there.modules):
            if used.isdisjoint((id(one), id(other))):
                used |= {id(one), id(other)}
                found[id(one)] = one, other
    return _beside(found.values(), ours, theirs)


def _beside(found: Collection[Pair], *sides: Iterable[Instance]) -> list[Pair]:
    """The pairs, but for those that alone lie in the innermost part with other matrices, on either side."""
    beside = [Counter(one.tokens[:depth] for one in side for depth in range(len(one.tokens))) for side in sides]
    homes = (
        [
            [
                next(
                    name
                    for depth in range(len(one.tokens) - 1, -1, -1)
                    if sizes[name := one.tokens[:depth]] > 1 or not depth
                )
                for one in row
            ]
            for sizes, row in zip(beside, zip(*found, strict=True), strict=True)
        ]
        if found
        else [[], []]
    )
    laid = [
        Counter(one.tokens[:depth] for one in row for depth in range(len(one.tokens)))
        for row in zip(*found, strict=True)
    ]
    return [
        pair
        for pair, *names in zip(found, *homes, strict=True)
        if all(counts[name] > 1 for counts, name in zip(laid, names, strict=True))
    ]


def _alone(ours: Iterable[Instance], theirs: Iterable[Instance]) -> list[Pair]:
    """Those that are alone of their kind on both sides."""
    rows: list[dict[Kind, list[Instance]]] = []
    for side in (ours, theirs):
        kinds: dict[Kind, list[Instance]] = defaultdict(list)
        for one in side:
            kinds[one.kind].append(one)
        rows.append(kinds)
    here, there = rows
    return [(row[0], there[kind][0]) for kind, row in here.items() if len(row) == len(there.get(kind, ())) == 1]


def _parts(whole: _Part) -> list[_Part]:
    """All parts inside of one that hold less; of those that hold the same matrices the outermost."""
    found: dict[tuple[str, ...], _Part] = {}
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
    found = []
    for contents, row in rows[0].items():
        other = rows[1].get(contents, [])
        if len(row) == len(other) and (len(row) == 1 or (_are_counted(row) and _are_counted(other))):
            found += [*zip(sorted(row, key=_numbers), sorted(other, key=_numbers), strict=True)]
    return found


def _are_counted(parts: Sequence[_Part]) -> bool:
    """Their names differ in numbers alone."""
    return len({COUNTED.sub("#", ".".join(part.name)) for part in parts}) == 1


def _numbers(part: _Part) -> list[int]:
    return [int(text) for text in re.findall(r"\d+", ".".join(part.name))]
