"""Lists of blocks that hold the same modules one after the other, however deep they are and whatever they are called.

One list of sixteen blocks here, seven stages of one to four blocks there; the first block lacks an expansion, and one
side counts its norms without the gap. Block by block the shapes are the same, in the order of the numbers. So blocks
are paired, and put together by what they hold; inside such a group modules are matched as anywhere else.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ckptool.matching.alike import Form
from ckptool.matching.blocks import alignment, by_last_numbers
from ckptool.matching.cuts import parts_of
from ckptool.matching.modules import HUGE, Shape, Unit, placed

Numbers = tuple[int, ...]
Instance = tuple[Unit, int]

_COUNTED = re.compile(r"\d+|(?<=\d)[a-h](?![A-Za-z0-9])")  # numbers, and the letters that count on behind them
_FEWEST = 3  # blocks of a list, and of different contents among them, whose order says something
_ROW = 6  # modules one after the other that are each a block of their own
_LONGEST = 200  # blocks of a list
_MOST = 0.75  # of the blocks of the shorter list have a counterpart
_SOME = 0.4  # of the modules of a file are in one row
_DEEPEST = 3  # numbers in the name of a block


@dataclass(frozen=True, slots=True)
class Group:
    """The blocks of one kind in two lists.

    Attributes:
        sources: the units, cut down to these blocks.
        targets: the same.
    """

    sources: list[Unit]
    targets: list[Unit]


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
    if max(map(len, places)) > HUGE:
        return []
    ours, theirs = _lists(sources), _lists(targets)
    kinds: dict[Unit, tuple[Shape, ...]] = {unit: form(unit) for unit in (*sources, *targets)}
    here, there = ({name: _contents(blocks, kinds) for name, blocks in lists.items()} for lists in (ours, theirs))
    found: list[Group] = []
    used: set[Instance] = set()
    pairs = [row for one in here for other in there if (row := _pairing(one, other, here[one], there[other]))]
    ties = Counter((len(row.blocks), side, name) for row in pairs for side, name in enumerate((row.source, row.target)))
    for row in sorted(pairs, key=lambda row: (-len(row.blocks), row.source, row.target)):
        if max(ties[len(row.blocks), 0, row.source], ties[len(row.blocks), 1, row.target]) > 1:
            continue  # two towers
        blocks = [(ours[row.source][one], theirs[row.target][other]) for one, other in row.blocks]
        mine = {instance for pair in blocks for block in pair for instance in block}
        if not mine & used:
            used |= mine
            found += _groups(blocks, places)
    return found


@dataclass(frozen=True, slots=True)
class _Pairing:
    """Two lists by their names, and which block of one is which of the other."""

    source: str
    target: str
    blocks: list[tuple[Numbers, Numbers]]


def _pairing(
    source: str, target: str, ours: Mapping[Numbers, object], theirs: Mapping[Numbers, object]
) -> _Pairing | None:
    """The blocks of two lists that can be no others, if these are most of the shorter list and of several contents."""
    fewest = max(_FEWEST, _MOST * min(len(ours), len(theirs)))
    if sum((Counter(ours.values()) & Counter(theirs.values())).values()) < fewest:
        return None
    here, there = sorted(ours), sorted(theirs)
    places: list[tuple[int, int]] = []
    if len(here[0]) != len(there[0]):
        places = by_last_numbers(here, there, lambda at, to: ours[here[at]] == theirs[there[to]])
    if len(places) < fewest:
        places = in_common([ours[number] for number in here], [theirs[number] for number in there])
    if len(places) < fewest or len({ours[here[at]] for at, _ in places}) < _FEWEST:
        return None
    return _Pairing(source, target, [(here[at], there[to]) for at, to in places])


def in_common(ours: Sequence[object], theirs: Sequence[object]) -> list[tuple[int, int]]:
    """The places of what two sequences have in common in the same order, in every longest way to lay one on the other.

    Example:
        >>> in_common("abbc", "abxbc"), in_common("abc", "abbc")
        ([(0, 0), (1, 1), (2, 3), (3, 4)], [(0, 0), (2, 3)])
    """
    if ours == theirs:
        return [(at, at) for at in range(len(ours))]
    return alignment([[int(one == other) for other in theirs] for one in ours])[1]


def _lists(units: Sequence[Unit]) -> dict[str, dict[Numbers, list[Instance]]]:
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
                numbers = tuple(int(n) if n.isdigit() else ord(n) for n in _COUNTED.findall(name))
                found[_COUNTED.sub("#", name)][numbers].append((unit, at))
    whole = sum(len(unit.members) for unit in units)

    def is_list(blocks: Mapping[Numbers, Sequence[Instance]]) -> bool:
        several = sum(map(len, blocks.values())) >= 2 * len(blocks)
        is_row = len(blocks) >= max(_ROW, _SOME * whole)  # much of the file: a network of layers in a row
        return _FEWEST <= len(blocks) <= _LONGEST and (several or is_row)

    return {name: blocks for name, blocks in found.items() if is_list(blocks)}


def _contents(
    blocks: Mapping[Numbers, Iterable[Instance]], kinds: Mapping[Unit, tuple[Shape, ...]]
) -> dict[Numbers, object]:
    """What each block holds: roles and shapes, and how often."""
    return {
        numbers: frozenset(
            Counter((unit.shapes.keys() >= {"running_mean"}, kinds[unit][at]) for unit, at in block).items()
        )
        for numbers, block in blocks.items()
    }


def _groups(
    blocks: Iterable[tuple[Sequence[Instance], Sequence[Instance]]],
    places: tuple[Mapping[str, int], Mapping[str, int]],
) -> list[Group]:
    rows: dict[object, list[tuple[Sequence[Instance], Sequence[Instance]]]] = defaultdict(list)
    for here, there in blocks:
        rows[_names(here), _names(there)].append((here, there))
    return [
        Group(_cut([block for block, _ in row], places[0]), _cut([other for _, other in row], places[1]))
        for row in rows.values()
    ]


def _names(block: Iterable[Instance]) -> object:
    return frozenset(Counter(unit for unit, _ in block).items())


def _cut(blocks: Sequence[Sequence[Instance]], place: Mapping[str, int]) -> list[Unit]:
    """The units cut down to some blocks, in which each stands as often; the n-th of each block together."""
    kept: dict[tuple[Unit, int], list[int]] = defaultdict(list)
    for block in blocks:
        seen: Counter[Unit] = Counter()
        for unit, at in block:
            kept[unit, seen[unit]].append(at)
            seen[unit] += 1
    made = []
    for (unit, _), row in kept.items():
        one = unit.restricted(row)
        one.position = min(place[keys[0]] for keys in one.keys.values())
        made.append(one)
    return placed(made)
