"""A tensor of a checkpoint: its spec, and where its bytes lie in which file. No tensor data is held."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from ckptool.core.bytes import ByteSource
from ckptool.core.spec import Form, TensorSpec, packed_nbytes

Layout = Literal["strided", "sparse", "quantized", "meta", "nested"]


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of bytes in a file that one or more tensors view. Tensors of equal storages are tied.

    Attributes:
        file: the file that holds it.
        offset: first byte in that file.
        nbytes: length in bytes.
        big_endian: True if multi-byte numbers have their high byte first.
        crc: the CRC-32 of the bytes, where the container states one.
    """

    file: ByteSource
    offset: int
    nbytes: int
    big_endian: bool = False
    crc: int | None = None

    def __hash__(self) -> int:  # there are as many as tensors, and each is looked for often
        return hash((self.offset or self.file, self.nbytes))  # derived bytes all begin at 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a tensor, and the view of a storage that holds its elements: a box, or a flat run.

    Nearly every tensor is one box that covers it; a tensor of a torch.distributed checkpoint is one box per chunk. A
    tensor cut out of flat parameters (ZeRO, FSDP) is flat runs: elements that follow one another in C order.

    Attributes:
        storage: the bytes viewed.
        start: first element in the storage, counted in elements.
        shape: the box's shape; (count,) for a flat run.
        strides: steps in the storage for each axis, in elements; None if the box lies there in C order without gaps.
        at: where the box begins in the tensor; empty for the origin.
        first: number of a flat run's first element in the tensor's C order; None for a box.

    Example:
        >>> import ckptool
        >>> (file,) = ckptool.open("fixtures/resnet18.pth").files
        >>> Piece.flat(Storage(file, 0, 400), start=10, first=6, count=4).shape
        (4,)
    """

    storage: Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    at: tuple[int, ...] = ()
    first: int | None = None

    @classmethod
    def flat(cls, storage: Storage, start: int, first: int, count: int) -> Piece:
        """A flat run: elements `first` to `first + count` of the tensor in C order."""
        return cls(storage, start, (count,), first=first)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a checkpoint: its spec and where its bytes are.

    Attributes:
        spec: key, dtype, shape.
        pieces: what it is made of, all boxes or all flat runs; none for meta tensors and for layouts made of parts.
        layout: "strided", or a special layout, which is listed and copied whole, never computed with.
        parts: the dense tensors that a sparse or nested tensor is made of, by role ("indices", "values", ...).
        conj: the elements are the complex conjugates of what is stored.
        neg: the elements are the negatives of what is stored.
        cls: the name of its class, where that is a subclass that keeps its values in its own way ("DTensor").
        node: the inert object it was read from, for torch files (see `ckptool.formats.pickle.objects`).
    """

    spec: TensorSpec
    pieces: tuple[Piece, ...] = field(default=(), repr=False)
    layout: Layout = "strided"
    parts: tuple[tuple[str, Tensor], ...] = field(default=(), repr=False)
    conj: bool = field(default=False, repr=False)
    neg: bool = field(default=False, repr=False)
    cls: str = field(default="", repr=False)
    node: object = field(default=None, repr=False, compare=False)

    @property
    def key(self) -> str:
        return self.spec.key

    @property
    def dtype(self) -> str:
        return self.spec.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec.shape

    @property
    def elements(self) -> int:
        return self.spec.elements

    @property
    def nbytes(self) -> int:
        """Bytes of its elements, tightly packed; 0 for a meta tensor, the sum of the parts for a sparse one."""
        if self.layout == "meta":
            return 0
        if self.parts:
            return sum(part.nbytes for _, part in self.parts)
        return self.spec.nbytes

    @property
    def storage(self) -> Storage | None:
        """The storage it views, if it is a plain tensor in one piece and not empty."""
        if len(self.pieces) == 1 and self.pieces[0].storage.nbytes:
            return self.pieces[0].storage
        return None

    @property
    def is_contiguous_run(self) -> bool:
        """True if its packed little-endian bytes stand in a file as one run."""
        if len(self.pieces) != 1 or self.conj or self.neg:
            return False
        piece = self.pieces[0]
        is_all = piece.first is None or (piece.first, piece.elements) == (0, self.elements)
        return piece.strides is None and not piece.storage.big_endian and is_all

    @property
    def run(self) -> tuple[ByteSource, int, int]:
        """(file, offset, nbytes) of that one run; only if `is_contiguous_run`."""
        piece = self.pieces[0]
        start = packed_nbytes(self.dtype, (piece.start,))
        return piece.storage.file, piece.storage.offset + start, self.spec.nbytes


_form = lru_cache(4096)(Form)  # most tensors are like others


@lru_cache(4096)
def _plain_form(dtype: str, shape: tuple[int, ...]) -> Form:
    return Form(dtype, shape, packed_nbytes(dtype, shape))


def form_of(tensor: Tensor) -> Form:
    """Dtype, shape and size of a tensor."""
    spec = tensor.spec
    if tensor.layout == "strided" and not tensor.parts:
        return _plain_form(spec.dtype, spec.shape)
    return _form(spec.dtype, spec.shape, tensor.nbytes, tensor.layout, tensor.cls)
