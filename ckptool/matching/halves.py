"""Two modules that are the halves of one: the instance norm and the batch norm of a ResNet-IBN, once one norm.

Lengths that add up are found everywhere by chance, so names must agree: the two stand alone inside a module of the name
that the whole one has. Which is the first half is told by their numbers, or by their order in a file that lists modules
as they were defined; nothing is made of them where the file is sorted or shuffled.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from ckptool.matching.modules import Shape, Unit
from ckptool.matching.order import is_sorted
from ckptool.matching.words import words_of

HALVES = "halves"

_OF_ONE = frozenset({"running_mean", "running_var", "num_batches_tracked"})  # roles that one of the halves may lack
_OTHERWISE = frozenset({"q", "k", "v", "gate", "up"})  # words of groups that are made by their words
_ENDING = re.compile(r"(.*?)(\d{1,9})")


def halves_of(units: Iterable[Unit], places: Mapping[str, int]) -> list[Unit]:
    """Units that are made of two.

    Args:
        units: of one side.
        places: of every key in its file.
    """
    inside: dict[tuple[str, ...], list[Unit]] = defaultdict(list)
    for unit in units:
        if not unit.holds:
            inside[unit.parent].append(unit)
    deeper = {parent[:depth] for parent in inside for depth in range(len(parent))}
    pairs = {
        parent: (row[0], row[1])
        for parent, row in inside.items()
        if len(row) == 2 and parent and parent not in deeper and _may_be_one(row[0], row[1])
    }
    if not pairs or is_sorted([*places]):
        places = {}
    found = []
    for parent, row in pairs.items():
        beside = [unit for unit in inside.get(parent[:-1], ()) if unit.path[-1].text == parent[-1]]
        if any(set(unit.members) & set(row[0].members) for unit in beside):
            continue  # the module around them has tensors of its own
        if (ordered := _in_order(*row, places)) and (made := _whole(*ordered)):
            found.append(made)
    return found


def _may_be_one(one: Unit, other: Unit) -> bool:
    """They are in the same blocks, and their tensors are as long as those of one module could be."""
    if one.members != other.members or one.path[-2].family or one.bare or other.bare or one.main != other.main:
        return False
    if (one.shapes.keys() ^ other.shapes.keys()) - _OF_ONE:
        return False
    return not _OTHERWISE & {*words_of(one.path[-1].text), *words_of(other.path[-1].text)}


def _in_order(one: Unit, other: Unit, places: Mapping[str, int]) -> tuple[Unit, Unit] | None:
    """The first half and the second; None if nothing tells."""
    numbers = [_ENDING.fullmatch(unit.path[-1].text) for unit in (one, other)]
    if numbers[0] and numbers[1] and numbers[0][1] == numbers[1][1]:
        return (one, other) if int(numbers[0][2]) < int(numbers[1][2]) else (other, one)
    before: set[bool] = set()
    for at in range(len(one.members)):
        here, there = (sorted(places.get(keys[at], -1) for keys in unit.keys.values()) for unit in (one, other))
        together = max(here[-1], there[-1]) - min(here[0], there[0]) == len(here) + len(there) - 1
        if not together or here[0] < 0 or not (here[-1] < there[0] or there[-1] < here[0]):
            return None
        before.add(here[0] < there[0])
    return None if len(before) > 1 else (one, other) if before.pop() else (other, one)


def _whole(first: Unit, second: Unit) -> Unit | None:
    """One unit of two, one after the other along their first axis."""
    keys: dict[str, tuple[str, ...]] = {}
    shapes: dict[str, tuple[Shape, ...]] = {}
    groups: dict[str, tuple[tuple[str, ...], ...]] = {}
    lengths = [
        _length(a) + _length(b) for a, b in zip(first.shapes[first.main], second.shapes[first.main], strict=True)
    ]
    for role in dict.fromkeys((*first.shapes, *second.shapes)):
        having = [unit for unit in (first, second) if role in unit.shapes]
        rows = list(zip(*(unit.shapes[role] for unit in having), strict=True))
        if any(len({shape[1:] for shape in row}) > 1 or len(row[0]) != len(rows[0][0]) for row in rows):
            return None
        if not rows[0][0]:  # counters
            if len(having) == 2:
                continue
            shapes[role] = having[0].shapes[role]
        elif len(having) == 2:
            shapes[role] = tuple((sum(map(_length, row)), *row[0][1:]) for row in rows)
        else:
            shapes[role] = tuple((length, *row[0][1:]) for length, row in zip(lengths, rows, strict=True))
        keys[role] = having[0].keys[role]
        groups[role] = tuple(zip(*(unit.keys[role] for unit in having), strict=True))
    if first.main not in shapes:
        return None
    return Unit(
        first.path[:-1],
        first.members,
        keys,
        shapes,
        first.position,
        {role: (first if role in first.written else second).written[role] for role in keys},
        False,
        first.numbers,
        groups,
        (first, second),
        HALVES,
        places=first.places,
    )


def _length(shape: Shape) -> int:
    return shape[0] if shape else 0


def half_layout(made: Unit, role: str, rank: int, is_source: bool) -> str:
    """What is done with the axes of a role's tensors.

    Args:
        made: of two halves.
        role: one that it has.
        rank: how many axes its tensors have.
        is_source: the halves are joined; else they are what one tensor is split into.
    """
    if not rank:
        return ""
    rest = "".join(f" {name}" for name in ["i", "j", "k"][: rank - 1])
    having = [role in piece.keys for piece in made.pieces]
    if not all(having):
        return f"(_ + o){rest} -> o{rest}" if having[1] else f"(o + _){rest} -> o{rest}"
    left, right = f"(o + p){rest}", f"o{rest}, p{rest}"
    return f"{right} -> {left}" if is_source else f"{left} -> {right}"


def is_lost(made: Unit, role: str) -> bool:
    """Joined, the role would be half empty: running statistics that only one of the halves has."""
    one = next(piece for piece in made.pieces if role in piece.keys)
    return len(made.groups[role][0]) == 1 and bool(one.shapes[role][0])
