"""Decoded weights as a source of bytes: whoever reads a quantized tensor through it gets the numbers, not the codes.

Nothing else has to know of it: a tensor whose storage is such a source is copied, cut, compared and computed with like
any other. Rows are decoded in blocks in the thread that asks for them, from whichever files the members are in.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from itertools import count
from math import prod
from typing import TYPE_CHECKING, Any

from ckptool.core.arrays import numpy_dtype, unpack_bits
from ckptool.core.bytes import ByteSource
from ckptool.core.casting import cast
from ckptool.core.checkpoint import Piece, Storage, Tensor
from ckptool.core.derived import DerivedBytes, OpenDerived
from ckptool.core.dtypes import DTYPES
from ckptool.core.spec import TensorSpec
from ckptool.core.views import is_run, run_of
from ckptool.engine.evaluate import keep_freed_memory
from ckptool.engine.reading import Reader, ranges_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ckptool.encodings.encoded import Encoded

    Array = NDArray[Any]

ELEMENTS = 1 << 17
"""Elements that are decoded at a time: 512 KiB of float32, which a core's own cache holds with its copies."""

_BLOCKS = 4  # decoded blocks that a thread keeps: tensors of several models are read in step
_BLOCK_BYTES = 1 << 21  # and how much: a row may be very long
_STRIP = 1 << 21  # bytes of a member that are read at once where decoding asks for columns
_STRIPS = 1 << 22  # bytes of such strips that a thread keeps
_NUMBERS = count()
_LOCK = threading.Lock()
_NOTHING: Mapping[int, int] = {}
_NO_ROLES: frozenset[str] = frozenset()


class DecodedBytes(DerivedBytes):
    """The packed bytes of an encoded tensor after decoding.

    Two of them are equal if they decode the same stored bytes in the same way, whatever their keys are. There may be
    very many: each holds little more than its tensor.

    Attributes:
        encoded: the tensor, settled and without problems.
        stored: the tensors of the checkpoint, by key.
        dtype: what the float32 numbers are rounded to: float32, bfloat16 or float16.
        infinite: for each block of rows, how many finite numbers the dtype cannot hold; filled while it is read.
        verified: the roles whose bytes have the CRC-32 that their container states.
    """

    __slots__ = ("_hash", "dtype", "encoded", "infinite", "stored", "verified")

    def __init__(self, encoded: Encoded, stored: Mapping[str, Tensor], dtype: str) -> None:
        self.encoded = encoded
        self.stored = stored
        self.dtype = dtype
        self.infinite: Mapping[int, int] = _NOTHING
        self.verified = _NO_ROLES
        self._hash: int | None = None

    @property
    def members(self) -> dict[str, Tensor]:
        """The stored tensors by role."""
        return {role: stored_member(self.stored, self.encoded, role) for role in self.encoded.members}

    @property
    def identity(self) -> Hashable:
        """Of the stored bytes, and of how they are decoded."""
        encoded = self.encoded
        stored = tuple((role, tensor.dtype, tensor.pieces) for role, tensor in self.members.items())
        return encoded.scheme, repr(sorted(encoded.parameters.items())), encoded.spec.shape, self.dtype, stored

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DecodedBytes):
            return False
        return self is other or (hash(self) == hash(other) and self.identity == other.identity)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self.identity)
        return self._hash

    @property
    def file(self) -> ByteSource:
        """The file that holds the codes."""
        codes = stored_member(self.stored, self.encoded, "codes")
        return codes.pieces[0].storage.file

    @property
    def label(self) -> str:
        return self.encoded.key

    @property
    def size(self) -> int:
        return TensorSpec("", self.dtype, self.encoded.spec.shape).nbytes

    def needed(self) -> Iterable[tuple[ByteSource, int, int]]:
        """The whole members, whatever of the numbers is asked for."""
        return (part for member in self.members.values() for part in ranges_of(member))

    @property
    def tensor(self) -> Tensor:
        """The logical tensor: all of these bytes."""
        spec = TensorSpec(self.encoded.key, self.dtype, self.encoded.spec.shape)
        return Tensor(spec, (Piece(Storage(self, 0, self.size), 0, spec.shape),))

    def open(self) -> OpenDecoded:
        """Open it for reading; its files are opened when they are needed."""
        return OpenDecoded(self)


def stored_member(stored: Mapping[str, Tensor], encoded: Encoded, role: str) -> Tensor:
    """The stored tensor of a role; one of a block type, which no array holds, as the bytes of its rows."""
    spec = encoded.members[role]
    tensor = stored[spec.key]
    if tensor.parts:
        from ckptool.encodings.subclasses import part_of

        return part_of(tensor, encoded, role)
    if tensor.dtype == spec.dtype or DTYPES[tensor.dtype].numpy:
        return tensor
    pieces = tuple(replace(piece, shape=spec.shape) for piece in tensor.pieces)
    return replace(tensor, spec=spec, pieces=pieces)


def decoded_source(tensor: Tensor) -> DecodedBytes | None:
    """What decodes a tensor; None for one that is stored as it is."""
    if len(tensor.pieces) != 1:
        return None
    file = tensor.pieces[0].storage.file
    return file if isinstance(file, DecodedBytes) else None


class _Kept(threading.local):
    """What a thread has read last and may be asked for again: decoded blocks, and strips of members."""

    def __init__(self) -> None:
        self.blocks: OrderedDict[tuple[int, int], memoryview] = OrderedDict()
        self.strips: OrderedDict[tuple[int, str], tuple[tuple[tuple[int, int], ...], Array]] = OrderedDict()

    def keep_strip(self, name: tuple[int, str], box: tuple[tuple[int, int], ...], strip: Array) -> None:
        self.strips.pop(name, None)
        while self.strips and strip.nbytes + sum(kept.nbytes for _, kept in self.strips.values()) > _STRIPS:
            self.strips.popitem(last=False)
        self.strips[name] = box, strip


_KEPT = _Kept()


class OpenDecoded(OpenDerived[DecodedBytes]):
    """An open `DecodedBytes`."""

    __slots__ = ("_members", "_number", "_reader", "_step")

    def __init__(self, source: DecodedBytes) -> None:
        from ckptool.encodings.registry import row_step  # only where something is decoded

        super().__init__(source)
        self._members = source.members
        self._reader = Reader()
        self._number = next(_NUMBERS)
        self._step = row_step(source.encoded, ELEMENTS, ELEMENTS)
        keep_freed_memory()

    def make(self, offset: int, buffer: memoryview) -> None:
        from ckptool.encodings.registry import block_of_row

        width = self.source.encoded.columns * DTYPES[self.source.dtype].block_nbytes
        done = 0
        while done < len(buffer):
            start, stop = block_of_row(self.source.encoded, (offset + done) // width, self._step)
            low = offset + done - start * width
            part = self._block(start, stop)[low : low + len(buffer) - done]
            buffer[done : done + len(part)] = part
            done += len(part)

    def close(self) -> None:
        self._reader.close()

    def _block(self, start: int, stop: int) -> memoryview:
        """The bytes of some rows: the last ones of this thread, or decoded now."""
        import numpy as np

        from ckptool.encodings.registry import decode

        blocks, name = _KEPT.blocks, (self._number, start)
        if name in blocks:
            blocks.move_to_end(name)
            return blocks[name]
        while len(blocks) >= _BLOCKS or sum(kept.nbytes for kept in blocks.values()) > _BLOCK_BYTES:
            blocks.popitem(last=False)
        values = decode(self.source.encoded, self._read, start, stop)
        rounded = cast(values, self.source.dtype)
        if self.source.dtype != "float32":
            self._count_infinite(start, values, rounded)
        block: memoryview = np.ascontiguousarray(rounded).reshape(-1).view(np.uint8).data
        blocks[name] = block
        return block

    def _count_infinite(self, start: int, before: Array, after: Array) -> None:
        """Note the finite numbers that became infinite."""
        import numpy as np

        infinity = 0x7C00 if self.source.dtype == "float16" else 0x7F80
        codes = after.view(np.uint16)
        if ((codes & 0x7FFF) == infinity).any():
            lost = int(np.count_nonzero(np.isinf(after) & np.isfinite(before)))
            if lost:
                with _LOCK:
                    self.source.infinite = {**self.source.infinite, start: lost}

    def _read(self, role: str, /, *box: slice) -> Array:
        """A box of a member, see `ckptool.encodings.encoded.Read`."""
        member = self._members[role]
        self._verify(role, member)
        bounds = _bounds(member.shape, box)
        cut = next((axis for axis in reversed(range(len(bounds))) if bounds[axis] != (0, member.shape[axis])), 0)
        if is_run(member) and prod(high - low for low, high in bounds[:cut]) <= 1:  # the box is one run
            return read_box(self._reader, member, bounds)
        name = self._number, role
        kept = _KEPT.strips.get(name)
        if kept is None or not _holds(kept[0], bounds):
            wide = _widened(member, bounds, cut)
            kept = wide, read_box(self._reader, member, wide)
            _KEPT.keep_strip(name, *kept)
        first = (low for low, _ in kept[0])
        return _cut(kept[1], tuple((low - at, high - at) for (low, high), at in zip(bounds, first, strict=True)))

    def _verify(self, role: str, member: Tensor) -> None:
        """Hold a member against the CRC-32 that its container states, once: decoding reads it in parts."""
        if role in self.source.verified:
            return
        if member.storage is not None and member.storage.crc is not None:
            for _ in self._reader.blocks(member):
                pass
        self.source.verified = _joined(self.source.verified, role)


@cache
def _joined(roles: frozenset[str], role: str) -> frozenset[str]:
    """The roles and one more; equal sets are one object, as there is one for each tensor."""
    return roles | {role}


Bounds = tuple[tuple[int, int], ...]


def _bounds(shape: tuple[int, ...], box: tuple[slice, ...]) -> Bounds:
    """(first, end) of each axis."""
    whole = (slice(None),) * (len(shape) - len(box))
    return tuple(part.indices(size)[:2] for part, size in zip((*box, *whole), shape, strict=True))


def _cut(array: Array, bounds: Bounds) -> Array:
    box: tuple[Any, ...] = (*(slice(low, high) for low, high in bounds), ...)  # the ellipsis keeps 0-dim an array
    part: Array = array[box]
    return part


def _holds(outer: Bounds, inner: Bounds) -> bool:
    return all(x <= a and b <= y for (x, y), (a, b) in zip(outer, inner, strict=True))


def _widened(member: Tensor, bounds: Bounds, axis: int) -> Bounds:
    """The box with as many more columns behind it as one read may have: decoding asks for those next."""
    if member.nbytes <= _STRIP or not is_run(member):
        return tuple((0, size) for size in member.shape)
    others = prod(high - low for place, (low, high) in enumerate(bounds) if place != axis)
    low, high = bounds[axis]
    columns = _STRIP // max(1, others * DTYPES[member.dtype].block_nbytes)
    return (*bounds[:axis], (low, min(member.shape[axis], max(high, low + columns))), *bounds[axis + 1 :])


def read_box(reader: Reader, tensor: Tensor, bounds: Bounds) -> Array:
    """A box of a dense tensor, of the dtype that `numpy_dtype` gives; only the runs of bytes in it are read.

    Args:
        reader: reads it.
        tensor: any; one that is not stored as one run is read whole.
        bounds: (first, end) for each axis.

    Raises:
        UnreadableError: the file ends early, or has changed.
    """
    import numpy as np

    shape, dtype = tensor.shape, DTYPES[tensor.dtype]
    size = tuple(high - low for low, high in bounds)
    cut = next((axis for axis in reversed(range(len(bounds))) if bounds[axis] != (0, shape[axis])), 0)
    inner = prod(shape[cut + 1 :])  # elements of one index of the last axis that is cut
    run = inner * (size[cut] if size else 1)
    steps = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    starts = [0]
    for axis in range(min(cut + 1, len(shape))):
        low, high = bounds[axis]
        indices = range(low, high) if axis < cut else (low,)
        starts = [start + index * steps[axis] for start in starts for index in indices]
    per = dtype.block_elements
    if not is_run(tensor) or (per > 1 and any(start % per for start in (*starts, run))):
        return _cut(reader.array(tensor), bounds)
    source, offset, _ = run_of(tensor)
    nbytes = dtype.nbytes(run)
    packed = np.empty(len(starts) * nbytes, np.uint8)
    buffer = packed.data
    with reader.opened(source) as file:
        for at, start in zip(range(0, len(packed), nbytes or 1), starts, strict=False):
            file.read_into(offset + dtype.nbytes(start), buffer[at : at + nbytes])
    if dtype.is_packed:
        packed = unpack_bits(packed, dtype.bits, prod(size))
    return packed.view(numpy_dtype(tensor.dtype)).reshape(size)
