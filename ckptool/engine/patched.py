"""The bytes of a tensor after a patch: those of its base, with the chunks of a patch applied as they are read."""

from __future__ import annotations

import struct
import threading
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from ckptool.core.bytes import ByteSource
from ckptool.core.derived import DerivedBytes, OpenDerived
from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import UnreadableError
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Piece, Storage, Tensor
from ckptool.core.views import is_run, run_of
from ckptool.encodings.delta import CHUNK, MOST_BESIDE, DamagedDeltaError, decode
from ckptool.engine.ranges import ranges_of
from ckptool.engine.reading import Reader

_COUNT = struct.Struct("<I")


def number_width(dtype: str) -> int:
    """Bytes that are compared as one number; 1 for dtypes whose elements share bytes."""
    found = DTYPES[dtype]
    return 1 if found.is_packed else found.block_nbytes


def chunk_nbytes(dtype: str) -> int:
    """Bytes of a chunk of such numbers."""
    return CHUNK * number_width(dtype)


@dataclass(frozen=True, slots=True, eq=False)
class PatchedBytes(DerivedBytes):
    """The packed bytes of a tensor that a patch makes of a tensor of its base.

    Attributes:
        base: the tensor of the base.
        delta: the patch's bytes: how many chunks, the length of each, the chunks.
        spec: of what comes out; dtypes of base and result may differ: then the base is cast first.
    """

    base: Tensor
    delta: Tensor
    spec: TensorSpec

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PatchedBytes) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    @property
    def identity(self) -> Hashable:
        return self.base.dtype, self.base.pieces, self.delta.pieces, self.spec.dtype

    @property
    def file(self) -> ByteSource:
        return self.base.pieces[0].storage.file

    @property
    def label(self) -> str:
        return self.spec.key

    @property
    def size(self) -> int:
        return self.spec.nbytes

    @property
    def tensor(self) -> Tensor:
        """The tensor that comes out: all of these bytes."""
        return Tensor(self.spec, (Piece(Storage(self, 0, self.size), 0, self.spec.shape),))

    def needed(self) -> Iterator[tuple[ByteSource, int, int]]:
        yield from ranges_of(self.base)
        yield from ranges_of(self.delta)

    def open(self) -> OpenPatched:
        return OpenPatched(self)


class OpenPatched(OpenDerived[PatchedBytes]):
    """An open `PatchedBytes`. One thread decodes at a time."""

    def __init__(self, source: PatchedBytes) -> None:
        super().__init__(source)
        self._reader = Reader()
        self._lock = threading.Lock()
        self._buffer = bytearray(min(source.base.nbytes, chunk_nbytes(source.base.dtype)))
        self._step = chunk_nbytes(source.spec.dtype)
        self._width = number_width(source.spec.dtype)
        self._places: list[tuple[int, int]] | None = None
        self._kept: tuple[int, memoryview] | None = None
        self._blocks: tuple[int, Iterator[memoryview]] | None = None

    def make(self, offset: int, buffer: memoryview) -> None:
        done = 0
        with self._lock:
            while done < len(buffer):
                number, low = divmod(offset + done, self._step)
                part = self._chunk(number)[low : low + len(buffer) - done]
                buffer[done : done + len(part)] = part
                done += len(part)

    def _chunk(self, number: int) -> memoryview:
        """Some bytes of the result: the last ones, or decoded now."""
        if self._kept is not None and self._kept[0] == number:
            return self._kept[1]
        if self._places is None:
            self._places = self._read_places()
        self._kept = None  # the next one may take its place
        offset, nbytes = self._places[number]
        chunk = bytearray(nbytes)
        self._read_delta(offset, chunk)
        try:
            new = decode(self._base(number), bytes(chunk), self._width)
        except DamagedDeltaError as error:
            raise self._damaged(str(error)) from None
        self._kept = number, new
        return new

    def _base(self, number: int) -> memoryview:
        """The bytes of the base that a chunk changes, in the result's dtype."""
        spec, base = self.source.spec, self.source.base
        width = number_width(base.dtype)
        step = CHUNK * width
        start = number * step
        stop = min(start + step, base.nbytes)
        if is_run(base):
            file, offset, _ = run_of(base)
            block = memoryview(self._buffer)[: stop - start]
            self._reader.read_into(file, offset + start, block)
        else:
            block = self._next_block(number, step)
        if base.dtype == spec.dtype:
            return block
        return cast_bytes(block, base.dtype, spec.dtype)

    def _next_block(self, number: int, step: int) -> memoryview:
        """A block of a tensor that is not one run: these are read from front to back."""
        if self._blocks is None or self._blocks[0] > number:
            self._blocks = 0, self._reader.blocks(self.source.base, step)
        at, blocks = self._blocks
        while True:
            block = next(blocks)
            at += 1
            self._blocks = at, blocks
            if at > number:
                return block

    def _read_places(self) -> list[tuple[int, int]]:
        """Where each chunk is in the delta: offset and length."""
        count = -(-self.size // self._step)
        if _COUNT.size * (1 + count) > self.source.delta.nbytes:
            raise self._damaged("it ends early")
        head = bytearray(_COUNT.size * (1 + count))
        self._read_delta(0, head)
        stated, *lengths = struct.unpack(f"<{1 + count}I", head)
        if stated != count or len(head) + sum(lengths) != self.source.delta.nbytes:
            raise self._damaged("its lengths do not fit")
        if max(lengths, default=0) > self._step + MOST_BESIDE:
            raise self._damaged("a chunk is larger than what it makes")
        at, places = len(head), []
        for length in lengths:
            places.append((at, length))
            at += length
        return places

    def _read_delta(self, offset: int, buffer: bytearray) -> None:
        file, start, _ = run_of(self.source.delta)
        self._reader.read_into(file, start + offset, buffer)

    def _damaged(self, why: str) -> UnreadableError:
        path = self.source.delta.pieces[0].storage.file.path
        return UnreadableError(
            f"{path} is damaged: its chunks for {self.source.spec.key} cannot be applied ({why})",
            hint="get the patch again",
            path=path,
            key=self.source.spec.key,
        )

    def close(self) -> None:
        self._reader.close()


def cast_bytes(block: memoryview, old: str, new: str) -> memoryview:
    """Packed numbers of one dtype as packed numbers of another."""
    import numpy as np

    from ckptool.core.arrays import numpy_dtype
    from ckptool.core.casting import cast

    with np.errstate(all="ignore"):
        return np.ascontiguousarray(cast(np.frombuffer(block, numpy_dtype(old)), new)).view(np.uint8).data
