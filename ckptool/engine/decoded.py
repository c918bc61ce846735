"""Decoded weights as a source of bytes: whoever reads a quantized tensor through it gets the numbers, not the codes.

Nothing else has to know of it: a tensor whose storage is such a source is copied, cut, compared and computed with like
any other. Rows are decoded in blocks in the thread that asks for them, from whichever files the members are in.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from math import prod
from typing import TYPE_CHECKING, Any

from ckptool.core.arrays import numpy_dtype, unpack_bits
from ckptool.core.bytes import Advance, ByteSource
from ckptool.core.casting import cast
from ckptool.core.derived import DerivedBytes, OpenDerived
from ckptool.core.dtypes import DTYPES
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Piece, Storage, Tensor
from ckptool.core.views import is_run, run_of
from ckptool.engine.evaluate import keep_freed_memory
from ckptool.engine.ranges import ranges_of
from ckptool.engine.reading import Reader
from ckptool.storage.system import write_all

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ckptool.encodings.encoded import Encoded

    Array = NDArray[Any]

ELEMENTS = 1 << 19
"""Elements that are decoded at a time: 2 MiB of float32. Fewer spend more on calls than they gain from the cache."""

_BLOCKS = 4  # decoded blocks that a thread keeps: tensors of several models are read in step
_BLOCK_BYTES = 1 << 21  # and how much: a row may be very long
_STRIP = 1 << 21  # bytes of a member that are read at once where decoding asks for columns, or for few bytes
_STRIPS = 1 << 22  # bytes of such strips that a thread keeps
_MOST_STRIPS = 16  # of all members of two tensors that are read in step
_FEW = 1 << 16
_NUMBERS = count()
_DIRECT = ("float32", "bfloat16", "float16")
_LOCK = threading.Lock()


@dataclass(slots=True)
class Decoding:
    """What the decoded tensors of one checkpoint have in common.

    Attributes:
        stored: the tensors of the checkpoint, by key.
        infinite: for the codes of a tensor, and each block of its rows, how many finite numbers its dtype cannot hold;
            filled while it is read.
        verified: (codes, role) of members whose bytes have the CRC-32 that their container states.
    """

    stored: Mapping[str, Tensor]
    infinite: dict[str, dict[int, int]] = field(default_factory=dict)
    verified: set[tuple[str, str]] = field(default_factory=set)


class DecodedBytes(DerivedBytes):
    """The packed bytes of an encoded tensor after decoding.

    Two of them are equal if they decode the same stored bytes in the same way, whatever their keys are.

    Attributes:
        encoded: the tensor, settled and without problems.
        decoding: what it shares with others of its checkpoint.
        dtype: what the float32 numbers are rounded to: float32, bfloat16 or float16.
    """

    __slots__ = ("_hash", "decoding", "dtype", "encoded")

    def __init__(self, encoded: Encoded, decoding: Decoding, dtype: str) -> None:
        self.encoded = encoded
        self.decoding = decoding
        self.dtype = dtype
        self._hash: int | None = None

    @property
    def infinite(self) -> int:
        """How many finite numbers the dtype cannot hold, of what was read."""
        return sum(self.decoding.infinite.get(self.encoded.codes.key, {}).values())

    @property
    def members(self) -> dict[str, Tensor]:
        """The stored tensors by role."""
        return {role: stored_member(self.decoding.stored, self.encoded, role) for role in self.encoded.members}

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
        codes = stored_member(self.decoding.stored, self.encoded, "codes")
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


def dtype_decoded(encoded: Encoded, dtype: str | None) -> str:
    """What the numbers of an encoded tensor are rounded to, where a dtype or none is asked for."""
    wanted = dtype or encoded.spec.dtype
    return wanted if wanted in _DIRECT else "float32"


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
        while len(self.strips) >= _MOST_STRIPS or (
            self.strips and strip.nbytes + sum(kept.nbytes for _, kept in self.strips.values()) > _STRIPS
        ):
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
        done = 0
        for part in self._decoded(offset, len(buffer)):
            buffer[done : done + len(part)] = part
            done += len(part)

    def copy_to(self, descriptor: int, offset: int, at: int, nbytes: int, advance: Advance) -> int:
        for part in self._decoded(offset, nbytes):
            write_all(descriptor, part, at)
            advance(len(part))
            at += len(part)
        return nbytes

    def _decoded(self, offset: int, nbytes: int) -> Iterator[memoryview]:
        """The bytes from an offset on, as they come."""
        from ckptool.encodings.registry import block_of_row

        width = self.source.encoded.columns * DTYPES[self.source.dtype].block_nbytes
        end = offset + nbytes
        while offset < end:
            start, stop = block_of_row(self.source.encoded, offset // width, self._step)
            part = self._block(start, stop)[offset - start * width : end - start * width]
            yield part
            offset += len(part)

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
        if codes.size and (codes.max() >= 0x8000 | infinity or codes.view(np.int16).max() >= infinity):  # or NaN
            lost = int(np.count_nonzero(np.isinf(after) & np.isfinite(before)))
            if lost:
                with _LOCK:
                    self.source.decoding.infinite.setdefault(self.source.encoded.codes.key, {})[start] = lost

    def _read(self, role: str, /, *box: slice) -> Array:
        """A box of a member, see `ckptool.encodings.encoded.Read`."""
        member = self._members[role]
        self._verify(role, member)
        bounds = _bounds(member.shape, box)
        name = self._number, role
        kept = _KEPT.strips.get(name)
        if kept is None or not _holds(kept[0], bounds):
            size = [high - low for low, high in bounds]
            cut = _last_cut(bounds, member.shape)
            is_one_run = is_run(member) and prod(size[:cut]) <= 1
            if is_one_run and DTYPES[member.dtype].nbytes(prod(size)) >= _FEW:
                return read_box(self._reader, member, bounds)
            wide = _widened(member, bounds, cut)
            kept = wide, read_box(self._reader, member, wide)
            _KEPT.keep_strip(name, *kept)
        first = (low for low, _ in kept[0])
        return _cut(kept[1], tuple((low - at, high - at) for (low, high), at in zip(bounds, first, strict=True)))

    def _verify(self, role: str, member: Tensor) -> None:
        """Hold a member against the CRC-32 that its container states, once: decoding reads it in parts."""
        if member.storage is None or member.storage.crc is None:
            return
        verified, name = self.source.decoding.verified, (self.source.encoded.codes.key, role)
        if name not in verified:
            for _ in self._reader.blocks(member):
                pass
            verified.add(name)


Bounds = tuple[tuple[int, int], ...]


def _bounds(shape: tuple[int, ...], box: tuple[slice, ...]) -> Bounds:
    """(first, end) of each axis."""
    whole = (slice(None),) * (len(shape) - len(box))
    return tuple(part.indices(size)[:2] for part, size in zip((*box, *whole), shape, strict=True))


def _last_cut(bounds: Bounds, shape: tuple[int, ...]) -> int:
    """The last axis of which a box has a part; 0 if there is none."""
    return next((axis for axis in reversed(range(len(bounds))) if bounds[axis] != (0, shape[axis])), 0)


def _cut(array: Array, bounds: Bounds) -> Array:
    box: tuple[Any, ...] = (*(slice(low, high) for low, high in bounds), ...)  # the ellipsis keeps 0-dim an array
    part: Array = array[box]
    return part


def _holds(outer: Bounds, inner: Bounds) -> bool:
    return all(x <= a and b <= y for (x, y), (a, b) in zip(outer, inner, strict=True))


def _widened(member: Tensor, bounds: Bounds, axis: int) -> Bounds:
    """The box with as much more of an axis as one read may have: decoding asks for that next."""
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
    cut = _last_cut(bounds, shape)
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
