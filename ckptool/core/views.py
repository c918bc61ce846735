"""Where a tensor's elements are: boxes and flat runs in storages, walked in C order. Exact integers, no numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

from ckptool.core.bytes import ByteSource
from ckptool.core.dtypes import DTYPES, DType
from ckptool.core.errors import UnreadableError
from ckptool.core.tensor import Piece, Storage, Tensor

_FEW = 1 << 30


@dataclass(frozen=True, slots=True)
class View:
    """A strided box in a storage. `at` is its place in the tensor; units are elements. `swap` bytes are reversed."""

    storage: Storage
    itemsize: int
    swap: int
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    at: tuple[int, ...]

    @property
    def span(self) -> int:
        """Elements of the storage from the first to the last, both included."""
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))

    def cut(self, at: tuple[int, ...], box: tuple[int, ...]) -> tuple[View, tuple[Any, ...]] | None:
        """The part of it inside a box of the tensor, and that part's place in the box; None if they do not meet."""
        low = tuple(max(a, b) for a, b in zip(self.at, at, strict=True))
        high = tuple(min(a + n, b + m) for a, n, b, m in zip(self.at, self.shape, at, box, strict=True))
        if any(h <= lo for lo, h in zip(low, high, strict=True)):
            return None
        start = self.start + sum((lo - a) * step for lo, a, step in zip(low, self.at, self.strides, strict=True))
        shape = tuple(h - lo for lo, h in zip(low, high, strict=True))
        place = (slice(lo - b, h - b) for lo, h, b in zip(low, high, at, strict=True))
        return replace(self, start=start, shape=shape, at=low), (*place, ...)  # the ellipsis keeps 0-dim a view


def views_of(tensor: Tensor) -> list[View]:
    """The tensor's pieces as views, checked against their storages; axes are merged if there is one piece."""
    dtype = DTYPES[tensor.dtype]
    views = []
    for piece in tensor.pieces:
        shape, strides = piece.shape, piece.strides or c_strides(piece.shape)
        if len(tensor.pieces) == 1:
            shape, strides = merged(shape, strides)
        at = piece.at if len(tensor.pieces) > 1 and piece.at else (0,) * len(shape)
        big = number_nbytes(dtype) if piece.storage.big_endian else 1
        view = View(piece.storage, dtype.block_nbytes, big, piece.start, shape, strides, at)
        if 0 not in shape:
            if (
                piece.start < 0
                or min(strides, default=0) < 0
                or dtype.nbytes(piece.start + view.span) > piece.storage.nbytes
            ):
                raise _outside(tensor, piece.storage)
            if dtype.is_packed or len(shape) > 60:
                raise UnreadableError(
                    f"{tensor.key} has a layout that cannot be read", path=piece.storage.file.path, key=tensor.key
                )
        views.append(view)
    return views


def c_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """torch's strides of a contiguous tensor; an empty axis counts as one.

    Example:
        >>> c_strides((2, 0, 3))
        (3, 3, 1)
    """
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def merged(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The same elements in the same order with as few axes as possible."""
    axes: list[tuple[int, int]] = []
    for n, step in zip(shape, strides, strict=True):
        if n == 1:
            continue
        if axes and axes[-1][1] == n * step:
            axes[-1] = (axes[-1][0] * n, step)
        else:
            axes.append((n, step))
    return tuple(n for n, _ in axes), tuple(step for _, step in axes)


def boxes(shape: tuple[int, ...], elements: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(place, shape) of boxes of at most so many elements that follow one another in C order."""
    inner = [prod(shape[i:]) for i in range(len(shape) + 1)]
    axis = next((i for i in range(len(shape)) if inner[i + 1] <= elements), None)
    if axis is None or inner[0] <= elements:
        yield (0,) * len(shape), shape
        return
    rows = max(1, elements // inner[axis + 1])
    for lead in product(*map(range, shape[:axis])):
        for low in range(0, shape[axis], rows):
            high = min(shape[axis], low + rows)
            zeros = (0,) * (len(shape) - axis - 1)
            yield (*lead, low, *zeros), (*(1,) * axis, high - low, *shape[axis + 1 :])


def is_run(tensor: Tensor) -> bool:
    """True if the packed bytes stand in one file as one run, also where strides say so in other words."""
    if not tensor.is_contiguous_run:
        piece = tensor.pieces[0] if len(tensor.pieces) == 1 else None
        if piece is None or piece.strides is None or tensor.conj or tensor.neg or piece.storage.big_endian:
            return False
        return merged(piece.shape, piece.strides)[1] in ((), (1,))
    return True


def run_of(tensor: Tensor) -> tuple[ByteSource, int, int]:
    """(file, offset, nbytes) of a tensor for which `is_run` holds.

    Raises:
        UnreadableError: the run does not lie inside its storage.
    """
    piece, dtype = tensor.pieces[0], DTYPES[tensor.dtype]
    if piece.start < 0 or dtype.nbytes(piece.start + tensor.elements) > piece.storage.nbytes:
        raise _outside(tensor, piece.storage)
    if piece.start % dtype.block_elements:
        raise _inside_a_block(tensor, piece)
    return tensor.run


def is_flat(tensor: Tensor) -> bool:
    """True if the tensor is made of flat runs."""
    return any(piece.first is not None for piece in tensor.pieces)


@dataclass(frozen=True, slots=True)
class FlatRun:
    """Bytes of a file that hold elements of a tensor which follow one another in C order."""

    file: ByteSource
    offset: int
    nbytes: int
    big_endian: bool


def flat_runs(tensor: Tensor) -> list[FlatRun]:
    """The bytes of a tensor made of flat runs, in order; runs that follow one another in a file are one.

    Raises:
        UnreadableError: the runs leave a hole or overlap, leave their storage, or begin inside a block of elements.
    """
    dtype = DTYPES[tensor.dtype]
    runs: list[FlatRun] = []
    end = 0
    for piece in sorted(tensor.pieces, key=lambda piece: (piece.first or 0, piece.elements)):
        if piece.first is None:
            raise UnreadableError(f"{tensor.key} is made of boxes and of flat runs", key=tensor.key)
        if not piece.elements:
            continue
        if piece.first != end:
            raise UnreadableError(f"the flat runs of {tensor.key} leave a hole or overlap", key=tensor.key)
        if piece.start < 0 or dtype.nbytes(piece.start + piece.elements) > piece.storage.nbytes:
            raise _outside(tensor, piece.storage)
        if piece.start % dtype.block_elements or piece.first % dtype.block_elements:
            raise _inside_a_block(tensor, piece)
        offset = piece.storage.offset + dtype.nbytes(piece.start)
        run = FlatRun(piece.storage.file, offset, dtype.nbytes(piece.elements), piece.storage.big_endian)
        last = runs[-1] if runs else None
        if last and replace(last, offset=run.offset, nbytes=run.nbytes) == run and last.offset + last.nbytes == offset:
            runs[-1] = replace(last, nbytes=last.nbytes + run.nbytes)
        else:
            runs.append(run)
        end += piece.elements
    if end != tensor.elements:
        raise UnreadableError(f"the flat runs of {tensor.key} leave a hole or overlap", key=tensor.key)
    return runs


def number_nbytes(dtype: DType) -> int:
    """Bytes of one number, whose order a big-endian file reverses; a complex element is two numbers."""
    if dtype.is_packed:
        return 1
    return dtype.block_nbytes // (2 if dtype.kind == "complex" else 1)


def _inside_a_block(tensor: Tensor, piece: Piece) -> UnreadableError:
    dtype = DTYPES[tensor.dtype]
    nbytes = f"{dtype.block_nbytes} byte{'s' if dtype.block_nbytes > 1 else ''}"
    return UnreadableError(
        f"{tensor.key} is cut inside a block: {dtype.name} stores {dtype.block_elements} elements in {nbytes}",
        hint="only whole blocks can be read",
        path=piece.storage.file.path,
        key=tensor.key,
    )


def is_blown_up(tensor: Tensor) -> bool:
    """True for a view that repeats few bytes of the file so often that its elements are more than can be read."""
    spans = sum(min(view.storage.nbytes, view.span * view.itemsize) for view in views_of(tensor))
    return tensor.nbytes > max(_FEW, 1024 * spans)


def _outside(tensor: Tensor, storage: Storage) -> UnreadableError:
    return UnreadableError(
        f"{tensor.key} views elements outside its storage of {storage.nbytes:,} bytes",
        path=storage.file.path,
        key=tensor.key,
    )


def repeated_axes(tensor: Tensor) -> frozenset[int]:
    """The axes along which a view repeats the same elements (stride 0), as `expand` makes them."""
    if len(tensor.pieces) != 1 or tensor.layout != "strided" or tensor.pieces[0].strides is None:
        return frozenset()
    piece = tensor.pieces[0]
    axes = enumerate(zip(piece.shape, piece.strides or (), strict=True))
    return frozenset(axis for axis, (n, step) in axes if step == 0 and n > 1)


def without_axes(tensor: Tensor, axes: frozenset[int]) -> Tensor:
    """The tensor with one element along these axes of a view."""
    piece = tensor.pieces[0]
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(tensor.shape))
    return replace(tensor, spec=replace(tensor.spec, shape=shape), pieces=(replace(piece, shape=shape),))
