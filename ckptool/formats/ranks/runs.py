"""Elements that follow one another: cut out of the flat tensors of ranks, and put together to whole tensors."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod

from ckptool.core.dtypes import DTYPES
from ckptool.core.spec import TensorSpec, packed_nbytes
from ckptool.core.tensor import Piece, Storage, Tensor


@dataclass(frozen=True, slots=True)
class Run:
    """Elements of a storage that follow one another.

    Attributes:
        storage: the bytes.
        dtype: of the elements.
        start: the first element.
        count: how many.
    """

    storage: Storage
    dtype: str
    start: int
    count: int

    @classmethod
    def of(cls, tensor: Tensor) -> Run | None:
        """All elements of a plain tensor; None if they do not follow one another in its file."""
        if len(tensor.pieces) != 1:
            return None
        piece = tensor.pieces[0]
        if piece.strides is not None or piece.first is not None or DTYPES[tensor.dtype].is_packed:
            return None
        return cls(piece.storage, tensor.dtype, piece.start, tensor.elements)

    def cut(self, start: int, count: int) -> Run:
        """A part of it."""
        return Run(self.storage, self.dtype, self.start + start, count)

    @property
    def own_storage(self) -> Storage:
        """Its bytes as a storage of their own: no other tensor of the storage is tied to it."""
        begin, nbytes = packed_nbytes(self.dtype, (self.start,)), packed_nbytes(self.dtype, (self.count,))
        whole = self.storage
        crc = whole.crc if (begin, nbytes) == (0, whole.nbytes) else None
        return Storage(whole.file, whole.offset + begin, nbytes, whole.big_endian, crc)


class Line:
    """Runs one behind the other, as one long run.

    Example:
        >>> from pathlib import Path
        >>> storage = Storage(Path("a"), 0, 40)
        >>> line = Line([Run(storage, "float32", 0, 4), Run(storage, "float32", 6, 3)])
        >>> line.count, [(run.start, run.count) for run in line.cut(3, 2)]
        (7, [(3, 1), (6, 1)])
    """

    __slots__ = ("_ends", "runs")

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = [run for run in runs if run.count]
        self._ends = list(accumulate(run.count for run in self.runs))

    @property
    def count(self) -> int:
        """How many elements it has."""
        return self._ends[-1] if self._ends else 0

    def cut(self, start: int, count: int) -> list[Run]:
        """The runs of `count` elements from `start` on; fewer where the line ends."""
        found: list[Run] = []
        at = bisect_right(self._ends, start)
        while count > 0 and at < len(self.runs):
            run = self.runs[at]
            skip = start - (self._ends[at] - run.count)
            part = run.cut(skip, min(count, run.count - skip))
            found.append(part)
            start, count, at = start + part.count, count - part.count, at + 1
        return found


def whole_tensor(key: str, dtype: str, shape: tuple[int, ...], runs: Sequence[Run]) -> Tensor:
    """A tensor made of runs that hold its elements in C order."""
    spec = TensorSpec(key, dtype, shape)
    joined: list[Run] = []
    for run in runs:
        last = joined[-1] if joined else None
        if last is not None and last.storage is run.storage and last.start + last.count == run.start:
            joined[-1] = Run(run.storage, run.dtype, last.start, last.count + run.count)
        elif run.count:
            joined.append(run)
    if len(joined) == 1:
        return Tensor(spec, (Piece(joined[0].own_storage, 0, shape),))
    pieces, first = [], 0
    for run in joined:
        pieces.append(Piece(run.storage, run.start, (run.count,), first=first))
        first += run.count
    return Tensor(spec, tuple(pieces))


def alone(tensor: Tensor, key: str) -> Tensor:
    """A plain tensor under another key, with a storage of its own where its elements follow one another."""
    run = Run.of(tensor)
    if run is None or not run.count:
        return replace(tensor, spec=replace(tensor.spec, key=key), node=None)
    return whole_tensor(key, tensor.dtype, tensor.shape, [run])


def in_runs(tensor: Tensor) -> Tensor:
    """A tensor of boxes that each hold whole rows as flat runs, which are copied without being gathered.

    Boxes that cut other axes than the first, or lie in steps in their storage, stay as they are.
    """
    pieces = tensor.pieces
    if len(pieces) < 2 or DTYPES[tensor.dtype].is_packed:
        return tensor
    row = prod(tensor.shape[1:])
    found = []
    for piece in pieces:
        at = piece.at or (0,) * len(tensor.shape)
        if piece.first is not None or piece.strides is not None or any(at[1:]) or piece.shape[1:] != tensor.shape[1:]:
            return tensor
        if piece.elements:
            found.append((at[0] * row, piece))
    found.sort(key=lambda pair: pair[0])
    flat = (Piece.flat(piece.storage, piece.start, first, piece.elements) for first, piece in found)
    return replace(tensor, pieces=tuple(flat))
