"""Boxes that make up a tensor: whether they overlap, and what they leave out. Exact integers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Protocol, TypeVar

MAX_COMPARISONS = 500_000
"""Pairs of boxes of one tensor that are held against each other."""


class HasBox(Protocol):
    """Anything with a place in a tensor."""

    @property
    def at(self) -> tuple[int, ...]:
        """Where it begins."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""


_Box = TypeVar("_Box", bound=HasBox)


class TooManyError(Exception):
    """There are too many boxes to hold against each other."""


def sticks_out(box: HasBox, shape: Sequence[int]) -> bool:
    """True if a box has another number of axes than the tensor, or does not lie inside it."""
    if len(box.at) != len(shape) or len(box.shape) != len(shape):
        return True
    return any(start + size > whole for start, size, whole in zip(box.at, box.shape, shape, strict=True))


def uncovered(boxes: Sequence[HasBox], shape: Sequence[int]) -> int:
    """How many elements are in none of the boxes, which do not overlap."""
    return prod(shape) - sum(prod(box.shape) for box in boxes)


def overlap(boxes: Sequence[_Box]) -> tuple[_Box, _Box] | None:
    """Two boxes that share an element; None if there are none. Swept along the axis that tells most of them apart.

    Raises:
        TooManyError: they lie so that too many would have to be compared.
    """
    boxes = [box for box in boxes if prod(box.shape)]
    if len(boxes) < 2:
        return None
    if not boxes[0].at:
        return boxes[0], boxes[1]
    axis = max(range(len(boxes[0].at)), key=lambda axis: len({box.at[axis] for box in boxes}))
    left = MAX_COMPARISONS
    active: list[_Box] = []
    for box in sorted(boxes, key=lambda box: box.at[axis]):
        active = [other for other in active if other.at[axis] + other.shape[axis] > box.at[axis]]
        left -= len(active) + 1
        if left < 0:
            raise TooManyError
        for other in active:
            pairs = zip(box.at, box.shape, other.at, other.shape, strict=True)
            if all(a < b + size_b and b < a + size_a for a, size_a, b, size_b in pairs):
                return other, box
        active.append(box)
    return None
