"""Which block of one list is which of another: by what the blocks hold one after the other, else by their numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ckptool.matching.modules import Shape, Unit
from ckptool.matching.relations import squeezed
from ckptool.matching.words import vocabulary, words_of

Numbers = tuple[int, ...]
Chain = tuple[str, ...]
Content = frozenset[tuple[Shape, int]]

_LONGEST = 200  # blocks of a list that is laid beside another block by block; of longer ones the numbers tell
_BEST = 0.97  # of what the best way to lay two lists on each other shares, so that numbers may decide
_SHARED = 0.4  # of the modules of the smaller list have a counterpart of their shape


@dataclass(frozen=True, slots=True)
class Laid:
    """Two lists, one beside the other.

    Attributes:
        source: the name of the source's list.
        target: the name of the target's.
        blocks: the numbers of a block of the target, by those of the source's.
        backwards: one counts from the other's end.
        share: of the smaller list's modules that have a counterpart.
    """

    source: Chain
    target: Chain
    blocks: Mapping[Numbers, Numbers]
    backwards: bool
    share: float


def laid_lists(sources: Sequence[Unit], targets: Sequence[Unit]) -> list[Laid]:
    """Every two lists of which much of the smaller one may be in the other."""
    ours, theirs = _lists(sources), _lists(targets)
    return [found for one in ours.values() for other in theirs.values() for found in _laid(one, other)]


@dataclass(frozen=True, slots=True)
class _List:
    """The blocks of one list in the order of their numbers, and what each holds.

    Leaves in a row, as in a Sequential, have numbers that say nothing, for anything may stand between them.
    """

    chain: Chain
    numbers: tuple[Numbers, ...]
    contents: tuple[Content, ...]
    is_row: bool

    @property
    def size(self) -> int:
        return sum(count for content in self.contents for _, count in content)

    @property
    def is_even(self) -> bool:
        """All of its blocks hold the same, and that is several modules."""
        return len({*self.contents}) == 1 and self.size > len(self.contents)


def _lists(units: Iterable[Unit]) -> dict[Chain, _List]:
    blocks: dict[Chain, dict[Numbers, Counter[Shape]]] = defaultdict(lambda: defaultdict(Counter))
    leaves: set[Chain] = set()
    for unit in units:
        if unit.chain and not unit.kind:
            mine = blocks[unit.chain]
            if unit.path[-1].family:
                leaves.add(unit.chain)
            shapes = unit.shapes[unit.main]
            plain = {shape: tuple(sorted(squeezed(shape))) for shape in {*shapes}}
            for numbers, shape in zip(unit.numbers, shapes, strict=True):
                mine[numbers][plain[shape]] += 1
    found: dict[Chain, _List] = {}
    for chain, held in blocks.items():
        rows = sorted(held)
        contents = tuple(frozenset(held[numbers].items()) for numbers in rows)
        found[chain] = _List(chain, tuple(rows), contents, chain in leaves)
    return found


def _laid(one: _List, other: _List) -> Iterable[Laid]:
    least = _SHARED * min(one.size, other.size)
    here, there = range(len(one.numbers)), range(len(other.numbers))
    if len(one.chain) != len(other.chain) and all(
        a == b for a, b in zip(one.chain[::-1], other.chain[::-1], strict=False)
    ):
        pairs = by_last_numbers(
            one.numbers, other.numbers, lambda at, to: _is_part(one.contents[at], other.contents[to])
        )
        if len(pairs) == min(len(here), len(there)):
            yield _of(one, other, pairs, 1.0)
            return
    if one.contents == other.contents and counts_back(one.chain) == counts_back(other.chain):
        yield _of(one, other, zip(here, there, strict=True), 1.0)
        return
    if max(len(here), len(there)) > _LONGEST:
        pairs = _by_number(one, other)
        yield _of(one, other, pairs, 1.0)
        return
    alike = _likeness(one, other)
    if alike is None:
        return
    turned = sorted(there, key=lambda to: (-other.numbers[to][0], other.numbers[to][1:]))
    is_nested = len(one.numbers[0]) != len(other.numbers[0])
    if is_nested and one.is_even and other.is_even:  # a list, and the stages that its blocks were grouped into
        pairs = [*zip(here, there, strict=False)]
        if all(len({numbers[-1] for numbers in side.numbers}) == len(side.numbers) for side in (one, other)):
            pairs = by_last_numbers(one.numbers, other.numbers, lambda at, to: True)  # stages that go on counting
        shared = alike[0][0] * len(pairs)
        if shared >= least:
            yield _of(one, other, pairs, shared / min(one.size, other.size))
        return
    ways = [(False, [*there]), (True, turned)] if len(other.numbers[0]) == len(one.numbers[0]) else [(False, [*there])]
    found: list[tuple[int, bool, list[tuple[int, int]]]] = []
    for backwards, order in ways:
        best, sure = alignment([[row[to] for to in order] for row in alike])
        tried = [[*zip(here, order, strict=True)]] if len(here) == len(there) else []
        tried += [] if backwards or one.is_row or other.is_row else [_by_number(one, other)]
        sure = [(at, order[to]) for at, to in sure]
        pairs = next((row for row in tried if row and sum(alike[at][to] for at, to in row) >= _BEST * best), sure)
        found.append((sum(alike[at][to] for at, to in pairs), backwards, pairs))
    most = max(shared for shared, _, _ in found)
    shared, backwards, pairs = next(row for row in found if row[0] >= _BEST * most)
    if counts_back(one.chain) != counts_back(other.chain) and len(here) == len(there):
        backwards, pairs = False, [*zip(here, turned, strict=True)]
    if pairs and shared >= least:
        yield _of(one, other, pairs, shared / min(one.size, other.size), backwards)


def likeness_of_lists(sources: Iterable[Unit], targets: Iterable[Unit]) -> dict[tuple[Chain, Chain], float]:
    """How much the blocks of two lists have in common on an average, 0 to 1, for every two lists."""
    ours, theirs = ({chain: _average(found) for chain, found in _lists(units).items()} for units in (sources, targets))
    return {
        (here, there): 2
        * sum(min(share, other.get(shape, 0.0)) for shape, share in one.items())
        / (sum(one.values()) + sum(other.values()))
        for here, one in ours.items()
        for there, other in theirs.items()
    }


def _average(found: _List) -> dict[Shape, float]:
    """How many modules of each shape a block has."""
    counts: Counter[Shape] = Counter()
    for content in found.contents:
        counts.update(dict(content))
    return {shape: count / len(found.numbers) for shape, count in counts.items()}


def _is_part(one: Content, other: Content) -> bool:
    """All that the block of one list holds is in that of the other."""
    ours, theirs = Counter(dict(one)), Counter(dict(other))
    return ours <= theirs or theirs <= ours


def counts_back(name: Iterable[str]) -> bool:
    """The list of this name, part by part, is known to count from the end.

    Example:
        >>> counts_back(("scratch", "refinenet#")), counts_back(("fusion_stage", "layers", "#"))
        (True, False)
    """
    return not vocabulary().backwards.isdisjoint(word for part in name for word in words_of(part))


def _of(one: _List, other: _List, pairs: Iterable[tuple[int, int]], share: float, backwards: bool = False) -> Laid:
    blocks = {one.numbers[at]: other.numbers[to] for at, to in pairs}
    return Laid(one.chain, other.chain, blocks, backwards, share)


def _likeness(one: _List, other: _List) -> list[list[int]] | None:
    """For each two blocks, how many modules of one shape they have; None if there are none."""
    seen: dict[tuple[Content, Content], int] = {}

    def shared(a: Content, b: Content) -> int:
        if (a, b) not in seen:
            counts = dict(b)
            seen[a, b] = sum(min(count, counts.get(shape, 0)) for shape, count in a)
        return seen[a, b]

    rows = [[shared(a, b) for b in other.contents] for a in one.contents]
    return rows if any(map(any, rows)) else None


def alignment(alike: Sequence[Sequence[int]]) -> tuple[int, list[tuple[int, int]]]:
    """How much two lists share in order, and the pairs of blocks that are in every best way to lay one on the other.

    Example:
        >>> alignment([[3, 1, 0], [0, 0, 2]])
        (5, [(0, 0), (1, 2)])
    """
    rows, columns = len(alike), len(alike[0])
    before = _totals(alike)
    behind = _totals([row[::-1] for row in alike[::-1]])
    total = before[rows][columns]
    found: list[tuple[int, int]] = []
    for at in range(rows):
        mine = [
            to
            for to in range(columns)
            if alike[at][to] and before[at][to] + alike[at][to] + behind[rows - at - 1][columns - to - 1] == total
        ]
        without = max(before[at][to] + behind[rows - at - 1][columns - to] for to in range(columns + 1))
        if len(mine) == 1 and without < total:
            found.append((at, mine[0]))
    taken = Counter(to for _, to in found)
    return total, [(at, to) for at, to in found if taken[to] == 1]


def _totals(alike: Sequence[Sequence[int]]) -> list[list[int]]:
    """For each two beginnings, how much they share in order."""
    rows = [[0] * (len(alike[0]) + 1)]
    for line in alike:
        last, row = rows[-1], [0]
        for to, shared in enumerate(line):
            row.append(max(last[to + 1], row[to], last[to] + shared))
        rows.append(row)
    return rows


def by_last_numbers(
    ours: Sequence[Numbers], theirs: Sequence[Numbers], may_be: Callable[[int, int], bool]
) -> list[tuple[int, int]]:
    """The blocks whose numbers end alike and which no other may be: ``features.17`` and ``slice2.17``.

    Example:
        >>> by_last_numbers([(0,), (3,)], [(1, 0), (1, 3), (2, 0)], lambda at, to: True)
        [(1, 1)]
    """
    depth = min(len(ours[0]), len(theirs[0]))
    ends: dict[Numbers, list[int]] = defaultdict(list)
    for to, number in enumerate(theirs):
        ends[number[-depth:]].append(to)
    rows = [(at, [to for to in ends[number[-depth:]] if may_be(at, to)]) for at, number in enumerate(ours)]
    taken = Counter(to for _, row in rows for to in row)
    return [(at, row[0]) for at, row in rows if len(row) == 1 and taken[row[0]] == 1]


def _by_number(one: _List, other: _List) -> list[tuple[int, int]]:
    """The blocks of equal numbers, counted from the first; where one has gaps, or names are the same, as written."""
    same = one.chain == other.chain
    same = same or _are_kept(one.numbers, other.numbers)
    here: Sequence[Numbers] = one.numbers
    there: Sequence[Numbers] = other.numbers
    if not same:
        here, there = _places(here, there), _places(there, here)
    theirs = {place: at for at, place in enumerate(there)}
    return [(at, theirs[place]) for at, place in enumerate(here) if place in theirs]


def _places(rows: Sequence[Numbers], others: Sequence[Numbers]) -> list[Numbers]:
    """The numbers, counted from 0; one after the other where the other list has as many, or none follows another."""
    columns = []
    for at, column in enumerate(zip(*rows, strict=True)):
        there = sorted({*column})
        first = there[0] if there[0] <= 1 else 0
        is_alike = len({row[at] for row in others if len(row) > at}) == len(there)
        is_renumbered = is_alike or (len(there) > 2 and all(b - a > 1 for a, b in pairwise(there)))
        columns.append([there.index(number) if is_renumbered else number - first for number in column])
    return list(zip(*columns, strict=True))


def _are_kept(ours: Sequence[Numbers], theirs: Sequence[Numbers]) -> bool:
    """The numbers of the shorter list are numbers of the longer one, but not its first: blocks were cut out of it."""
    short, long = sorted(({row[0] for row in rows} for rows in (ours, theirs)), key=len)
    return short < long and short != set(sorted(long)[: len(short)])
