"""Sizes, strides and offsets that a file states, checked: it may lie, and nothing is computed from them before.

The checks are made in exact integers, against the storage that the file really holds.
"""

from __future__ import annotations

import math

from ckptool.core.spec import DTYPES
from ckptool.core.tensor import Piece
from ckptool.formats.pickle.objects import Call, Global
from ckptool.formats.torch.storage import MAX_INT, StorageRef, bad_tensor

MAX_AXES = 64


def ints_of(node: object, key: str) -> tuple[int, ...]:
    """A shape or strides: a tuple of exact, non-negative integers; also inside ``torch.Size(...)``."""
    if type(node) is Call and type(node.fn) is Global and node.fn.name == "Size":
        node = node.args[0] if type(node.args) is tuple and len(node.args) == 1 else None
    if type(node) is not tuple and type(node) is not list:
        raise bad_tensor(key, "has a shape that is not a tuple of numbers")
    if len(node) > MAX_AXES:
        raise bad_tensor(key, f"has {len(node):,} axes; ckptool reads up to {MAX_AXES}")
    for value in node:
        int_of(value, key)
    return tuple(node)


def int_of(node: object, key: str) -> int:
    """One non-negative integer that fits torch's 64 bits."""
    if type(node) is not int:
        raise bad_tensor(key, "has a shape, stride or offset that is not a whole number")
    if not 0 <= node <= MAX_INT:
        raise bad_tensor(key, "has a negative or overflowing shape, stride or offset")
    return node


def _strides_or_none(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...] | None:
    """None if elements lie in C order without gaps; axes of size 1 may have any stride."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return strides
        expected *= size
    return None


def checked_view(
    ref: StorageRef, dtype: str, start: int, shape: tuple[int, ...], strides: tuple[int, ...], key: str
) -> Piece:
    """The checked view: every element that it reaches lies in the storage."""
    if len(strides) != len(shape):
        raise bad_tensor(key, f"has {len(shape)} axes but {len(strides)} strides")
    elements = math.prod(shape)
    if elements > MAX_INT:
        raise bad_tensor(key, "has more elements than 64 bits can count")
    if elements == 0:
        return Piece(ref.storage, 0, shape)
    steps = _strides_or_none(shape, strides)
    last = start - 1 + elements
    if steps is not None:
        last = start + sum((size - 1) * stride for size, stride in zip(shape, steps, strict=True))
    held = ref.storage.nbytes // DTYPES[dtype].block_nbytes * DTYPES[dtype].block_elements
    if last >= held:
        raise bad_tensor(key, f"reaches to element {last:,} of a storage that holds {held:,}")
    return Piece(ref.storage, start, shape, steps)
