"""Bytes that are computed when a file is opened and kept in memory: small ones only."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from ckptool.core.bytes import ByteSource
from ckptool.core.derived import DerivedBytes, OpenDerived
from ckptool.core.dtypes import DTYPES
from ckptool.core.spec import TensorSpec, packed_nbytes
from ckptool.core.tensor import Piece, Storage, Tensor

MOST = 16 << 20
"""Most bytes of one file that are kept."""

_MOST_COMPARED = 1 << 20  # bytes of a tensor that are read to compare it with a copy


@dataclass(frozen=True, slots=True)
class HeldBytes(DerivedBytes):
    """Bytes computed from a file.

    Attributes:
        origin: the file that they were computed from.
        data: the bytes.
    """

    origin: ByteSource
    data: bytes

    @property
    def file(self) -> ByteSource:
        return self.origin

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def identity(self) -> Hashable:
        from hashlib import sha256  # it loads OpenSSL, and few files need it

        return self.origin.identity, sha256(self.data).digest()

    def needed(self) -> tuple[()]:
        return ()

    def open(self) -> _OpenHeld:
        return _OpenHeld(self)


class _OpenHeld(OpenDerived[HeldBytes]):
    def make(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.source.data[offset : offset + len(buffer)]


def as_float32(tensor: Tensor) -> Tensor | None:
    """A float16 or bfloat16 tensor of one plain piece with its numbers as float32; None for a large one."""
    import numpy as np

    if tensor.elements * 4 > MOST or len(tensor.pieces) != 1 or tensor.pieces[0].strides is not None:
        return None
    piece, count = tensor.pieces[0], tensor.elements
    with piece.storage.file.open() as file:
        raw = file.read(piece.storage.offset + 2 * piece.start, 2 * count)
    order = ">" if piece.storage.big_endian else "<"
    if tensor.dtype == "float16":
        numbers = np.frombuffer(raw, f"{order}f2").astype("<f4")
    else:
        numbers = (np.frombuffer(raw, f"{order}u2").astype("<u4") << 16).view("<f4")
    held = HeldBytes(piece.storage.file, numbers.tobytes())
    spec = TensorSpec(tensor.key, "float32", tensor.shape)
    return Tensor(spec, (Piece(Storage(held, 0, len(held.data)), 0, tensor.shape),))


def number_of(tensor: Tensor) -> int | float | None:
    """The number that a tensor of one element holds; None for other tensors."""
    import numpy as np

    dtype = DTYPES[tensor.dtype]
    if tensor.elements != 1 or len(tensor.pieces) != 1 or dtype.kind not in ("float", "int", "uint"):
        return None
    if dtype.is_packed or tensor.dtype.startswith(("bfloat", "float8", "float4", "float6")):
        return None
    piece = tensor.pieces[0]
    with piece.storage.file.open() as file:
        raw = file.read(piece.storage.offset + dtype.block_nbytes * piece.start, dtype.block_nbytes)
    letter = {"float": "f", "int": "i", "uint": "u"}[dtype.kind]
    order = ">" if piece.storage.big_endian else "<"
    value = np.frombuffer(raw, f"{order}{letter}{dtype.block_nbytes}")[0].item()
    return value if isinstance(value, (int, float)) else None


def integers_of(tensor: Tensor, most: int = 1 << 16) -> list[int]:
    """The numbers of a small tensor of integers; none for any other."""
    import numpy as np

    dtype = DTYPES[tensor.dtype]
    if tensor.elements > most or len(tensor.pieces) != 1 or dtype.kind not in ("int", "uint") or dtype.is_packed:
        return []
    piece = tensor.pieces[0]
    if piece.strides is not None:
        return []
    letter, order = ("i" if dtype.kind == "int" else "u"), (">" if piece.storage.big_endian else "<")
    found: list[int] = np.frombuffer(_packed(piece, tensor.dtype), f"{order}{letter}{dtype.block_nbytes}").tolist()
    return found


def are_equal(first: Tensor, second: Tensor) -> bool | None:
    """Whether two tensors hold the same bytes: by the checksums of their files, or read if they are small.

    Returns:
        None if the files do not tell, and there is too much to read.
    """
    if (first.dtype, first.shape) != (second.dtype, second.shape) or len(first.pieces) != 1 or len(second.pieces) != 1:
        return None
    one, two = first.pieces[0], second.pieces[0]
    if one.storage == two.storage and (one.start, one.strides) == (two.start, two.strides):
        return True
    is_whole = one.storage.nbytes == two.storage.nbytes == first.nbytes and one.strides == two.strides
    if is_whole and one.storage.crc is not None and two.storage.crc is not None:
        return one.storage.crc == two.storage.crc and one.storage.big_endian == two.storage.big_endian
    if one.strides is not None or two.strides is not None or first.nbytes > _MOST_COMPARED:
        return None
    return _packed(one, first.dtype) == _packed(two, first.dtype)


def _packed(piece: Piece, dtype: str) -> bytes:
    nbytes = packed_nbytes(dtype, piece.shape)
    with piece.storage.file.open() as file:
        return file.read(piece.storage.offset + packed_nbytes(dtype, (piece.start,)), nbytes)
