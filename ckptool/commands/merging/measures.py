"""What merge methods must know of whole tensors before they mix them: measured slice by slice, in a few passes.

A measure gets a function that gives all slices of all models' tensors (or of what they changed of the base), again at
each call, and the options of the method by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.float64]

Blocks: TypeAlias = "Callable[[], Iterable[Sequence[Array]]]"

_DIGIT = 16  # bits of a magnitude that one pass decides
_FEW = 1 << 20  # elements that are sorted: 8 MB for each rank
_AWAY = 0.02  # share of the elements on either side of a rank that are near it
_TELLS = 1 << 14  # elements of a slice that tells about the others
_BEYOND = np.iinfo(np.int64).max  # above all bits of magnitudes


def products(blocks: Blocks, *, models: int, **_: Any) -> Array:
    """The inner products of the tensors: lengths and angles are in them.

    Example:
        >>> products(lambda: [[np.array([3.0, 4.0]), np.array([1.0, 0.0])]], models=2).tolist()
        [[25.0, 3.0], [3.0, 1.0]]
    """
    total = np.zeros((models, models))
    for tensors in blocks():
        for row, first in enumerate(tensors):
            for column in range(row + 1):
                # not np.dot: its threads and the writer's would wait for one another
                total[row, column] += np.einsum("i,i->", first.reshape(-1), tensors[column].reshape(-1))
    return total + np.tril(total, -1).T


def kept(
    blocks: Blocks, *, models: int, density: float, gamma: float | None = None, **_: Any
) -> list[tuple[float, float]]:
    """For each tensor, the smallest and the largest magnitude that stay.

    Args:
        density: the share of the elements that stay.
        gamma: the share of the largest that do not; None if the largest stay, and at least one does.

    Example:
        >>> kept(lambda: [[np.array([-4.0, 1.0, 3.0, 2.0])]], models=1, density=0.5)
        [(3.0, inf)]
        >>> kept(lambda: [[np.array([-4.0, 1.0, 3.0, 2.0])]], models=1, density=0.5, gamma=0.25)
        [(2.0, 3.0)]
    """
    if density >= 1:
        return [(0.0, np.inf)] * models

    def ranks(size: int) -> list[int]:
        keep = int(density * size)
        if gamma is None:
            return [max(1, keep)]
        top = min(int(gamma * size), size - keep)
        return [top + keep, top + 1] if keep else []

    found = ranked(blocks, models, ranks)
    nothing = (np.inf, -np.inf)
    return [((sizes[0], np.inf) if gamma is None else (sizes[0], sizes[1])) if sizes else nothing for sizes in found]


def ranked(blocks: Blocks, models: int, ranks: Callable[[int], Sequence[int]]) -> list[list[float]]:
    """Magnitudes by rank, 1 for the largest, of tensors that are too large to be sorted.

    The first slice tells about where they are: one pass collects what is near, and counts what is above. Where that
    is not where they are, or too much is near, passes go digit by digit: the bits of non-negative floats are in the
    order of the floats, so each pass counts one digit of 16 bits and goes on with those elements that have the digits
    found so far; once these are few, they are sorted. NaN counts as larger than all.

    Args:
        ranks: the ranks that are wanted, from the number of elements.

    Example:
        >>> ranked(lambda: [[np.array([1.0, -5.0])], [np.array([2.5, 0.5])]], 1, lambda size: [1, 2, size])
        [[5.0, 2.5, 0.5]]
    """
    near = _near(blocks, ranks)
    if near is not None:
        return near
    wanted: list[list[int]] = []
    digits: list[list[int]] = []
    left: list[list[int]] = []
    for shift in range(64 - _DIGIT, -1, -_DIGIT):
        counts = _counted(blocks, models, digits, shift)
        if not wanted:
            size = int(counts[0][0].sum())
            wanted = [list(ranks(size)) if size else [] for _ in range(models)]
            counts = [[row[0]] * len(wanted[0]) for row in counts]
            digits = [[0] * len(wanted[0]) for _ in range(models)]
            left = [[size] * len(wanted[0]) for _ in range(models)]
        if not wanted[0]:
            break
        for model, row in enumerate(counts):
            for number, count in enumerate(row):
                from_top = np.cumsum(count[::-1])
                place = int(np.searchsorted(from_top, wanted[model][number]))
                digit = len(count) - 1 - place
                wanted[model][number] -= int(from_top[place] - count[digit])
                digits[model][number] = digits[model][number] << _DIGIT | digit
                left[model][number] = int(count[digit])
        if shift and max(map(max, left)) <= _FEW:
            return _picked(blocks, digits, shift, wanted)
    return [np.array(row, np.uint64).view(np.float64).tolist() for row in digits]


@dataclass(slots=True)
class _Range:
    """Where a rank is looked for: magnitudes as bits.

    Attributes:
        low: the smallest that is near.
        high: the smallest above.
        above: how many are above.
        equal: how many are `low`, where that is all that is near (zeros, most often): they are not collected.
    """

    low: int
    high: int
    above: int = 0
    equal: int = 0

    @property
    def is_one(self) -> bool:
        """True if one magnitude is near."""
        return self.high == self.low + 1

    @classmethod
    def around(cls, bits: NDArray[np.int64], rank: int) -> _Range:
        """Near a rank of some elements: what is a small share of them away from it."""
        away = int(len(bits) * _AWAY)
        first, last = len(bits) - rank - away, len(bits) - rank + away
        ordered = np.partition(bits, [max(first, 0), min(last, len(bits) - 1)])
        low = int(ordered[first]) if first > 0 else 0
        return cls(low, int(ordered[last]) + 1 if last < len(bits) - 1 else _BEYOND)


@dataclass(slots=True)
class _Search:
    """The elements of one tensor that are near any rank."""

    ranges: list[_Range]
    near: list[NDArray[np.int64]] = field(default_factory=list)

    def see(self, bits: NDArray[np.int64]) -> int:
        """Collect from a slice; how many."""
        near = np.zeros(len(bits), bool)
        for each in self.ranges:
            above = bits >= each.high
            many = int(np.count_nonzero(above))
            each.above += many
            if each.is_one:
                each.equal += int(np.count_nonzero(bits >= each.low)) - many
                continue
            np.logical_not(above, out=above)
            above &= bits >= each.low
            near |= above
        self.near.append(bits[near])
        return len(self.near[-1])

    def magnitudes(self, ranks: Sequence[int]) -> list[float] | None:
        """The magnitudes of these ranks of all that was seen; None if one is not near."""
        near, found = np.concatenate(self.near), []
        for each, rank in zip(self.ranges, ranks, strict=True):
            if each.is_one:
                if not 0 < rank - each.above <= each.equal:
                    return None
                found.append(float(np.int64(each.low).view(np.float64)))
                continue
            inside = near[(near >= each.low) & (near < each.high)]
            place = len(inside) - (rank - each.above)
            if not 0 <= place < len(inside):
                return None
            found.append(float(np.partition(inside, place)[place : place + 1].view(np.float64)[0]))
        return found


def _near(blocks: Blocks, ranks: Callable[[int], Sequence[int]]) -> list[list[float]] | None:
    """The magnitudes by one pass; None if the first slice does not tell where they are."""
    searches: list[_Search] = []
    size = seen = 0
    for tensors in blocks():
        magnitudes = [np.abs(tensor).reshape(-1).view(np.int64) for tensor in tensors]
        if not searches:
            if len(magnitudes[0]) < _TELLS:
                return None
            searches = [_Search([_Range.around(bits, rank) for rank in ranks(len(bits))]) for bits in magnitudes]
        seen += sum(search.see(bits) for search, bits in zip(searches, magnitudes, strict=True))
        size += len(magnitudes[0])
        if seen > _FEW * len(searches):
            return None
    wanted = ranks(size)
    if any(len(search.ranges) != len(wanted) for search in searches):
        return None
    found = [search.magnitudes(wanted) for search in searches]
    return None if not found or None in found else cast("list[list[float]]", found)


def _picked(blocks: Blocks, digits: Sequence[Sequence[int]], shift: int, wanted: list[list[int]]) -> list[list[float]]:
    """The magnitudes of these ranks among the elements that have the digits before; these are few."""
    alike: list[list[list[NDArray[np.uint64]]]] = [[[] for _ in row] for row in digits]
    for tensors in blocks():
        for model, tensor in enumerate(tensors):
            bits = np.abs(tensor).reshape(-1).view(np.uint64)
            leading = bits >> np.uint64(shift)
            for number, digit in enumerate(digits[model]):
                alike[model][number].append(bits[leading == np.uint64(digit)])
    found = []
    for row, ranks in zip(alike, wanted, strict=True):
        sizes = [np.concatenate(parts) for parts in row]
        places = [len(size) - rank for size, rank in zip(sizes, ranks, strict=True)]
        picked = [np.partition(size, place)[place] for size, place in zip(sizes, places, strict=True)]
        found.append(np.array(picked, np.uint64).view(np.float64).tolist())
    return found


def _counted(blocks: Blocks, models: int, digits: Sequence[Sequence[int]], shift: int) -> list[list[NDArray[np.int64]]]:
    """How often each next digit occurs among the elements that have the digits before; at first, among all."""
    room = 1 << _DIGIT
    known = shift + _DIGIT < 64
    counts = [[np.zeros(room, np.int64) for _ in (digits[model] if known else [0])] for model in range(models)]
    for tensors in blocks():
        for model, tensor in enumerate(tensors):
            bits = np.abs(tensor).reshape(-1).view(np.uint64)
            for number, count in enumerate(counts[model]):
                if known:  # the digits before are those found
                    alike = bits[bits >> np.uint64(shift + _DIGIT) == np.uint64(digits[model][number])]
                    next_digits = alike >> np.uint64(shift) & np.uint64(room - 1)
                else:
                    next_digits = bits >> np.uint64(shift)
                count += np.bincount(next_digits.view(np.int64), minlength=room)
    return counts


def draw(_: Blocks, *, models: int, seed: float, salt: int, **__: Any) -> list[np.random.Generator]:
    """A source of random numbers for each model, the same on every run for the same seed and salt."""
    return [np.random.Generator(np.random.PCG64([int(seed), salt, model])) for model in range(models)]


MEASURES: dict[str, Callable[..., Any]] = {"products": products, "kept": kept, "draw": draw}
