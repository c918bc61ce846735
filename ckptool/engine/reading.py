"""Tensor -> bytes, in bounded blocks, or numbers.

A `Reader` reads at offsets and never maps a file, so that a file cut short meanwhile is an error and not a signal. A
file that changed since its headers were read is an error, too: when it is opened, and when all has been read.
What it yields are the tensor's elements packed in C order, little-endian, whatever the layout in the file: a
transposed view, a big-endian archive and a tensor in 64 chunks give the same bytes as a plain one.

numpy is imported only where bytes have to move within a tensor; a tensor that is one run needs none.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import lcm, prod
from typing import TYPE_CHECKING, Any, Self

from ckptool.core.arrays import numpy_dtype, unpack_bits
from ckptool.core.bytes import ByteSource, OpenBytes
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.derived import files_of
from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import CkptError, DamagedError, UnreadableError
from ckptool.core.tensor import Storage, Tensor
from ckptool.core.views import View, boxes, flat_runs, is_blown_up, is_flat, is_run, number_nbytes, run_of, views_of
from ckptool.engine.ranges import dense_parts, expect_ranges, ranges_of, reads_cheaply

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

BLOCK = 1 << 20
_SCATTERED = 1 << 24  # bytes gathered at once for a tensor whose elements are not in order in the file
_IN_ORDER = 1 << 22  # ... for one that is made of boxes whose elements are each in order
_PAGE = 1 << 12
_OPEN_FILES = 12


class Reader:
    """Reads tensors. Holds a few open files; safe to use from several threads at once; a context manager.

    Args:
        checkpoints: their files must be on entering and on leaving what they were when their headers were read, whether
            they are read in between or not; any other file that is read, on leaving.
        on_damage: told of bytes that do not have their stated CRC-32, which are read all the same if it returns; None
            raises the error.

    Example:
        >>> import tempfile, pathlib
        >>> from ckptool.core.tensor import Piece, Storage
        >>> from ckptool.core.spec import TensorSpec
        >>> from ckptool.storage.locate import locate_file
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "raw"
        >>> _ = path.write_bytes(bytes(range(6)))
        >>> piece = Piece(Storage(locate_file(path), 0, 6), start=0, shape=(3, 2), strides=(1, 3))  # of [2, 3]
        >>> with Reader() as reader:
        ...     reader.read_bytes(Tensor(TensorSpec("w", "uint8", (3, 2)), (piece,)))
        b'\\x00\\x03\\x01\\x04\\x02\\x05'
    """

    def __init__(
        self, checkpoints: Iterable[Checkpoint] = (), on_damage: Callable[[DamagedError], None] | None = None
    ) -> None:
        self._lock = threading.Lock()
        self._checkpoints = (checkpoints,) if isinstance(checkpoints, Checkpoint) else tuple(checkpoints)
        if not all(isinstance(checkpoint, Checkpoint) for checkpoint in self._checkpoints):
            raise TypeError("Reader: give checkpoints, as ckptool.open gives them")
        self._on_damage = on_damage
        self._unchecked = dict.fromkeys(source for checkpoint in self._checkpoints for source in checkpoint.sources)
        self._files: OrderedDict[ByteSource, OpenBytes] = OrderedDict()
        self._users: dict[ByteSource, int] = {}

    def __enter__(self) -> Self:
        for source in self._unchecked:
            source.check()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if kind is None or issubclass(kind, CkptError):  # a change may be why something is wrong: it is said first
            self.check()

    def close(self) -> None:
        """Closes the files. The reader can be used again; it opens them again."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()

    def check(self) -> None:
        """Raises `UnreadableError` if a file has changed since its headers were read. Call it before you publish."""
        for source in self._unchecked:
            source.check()
        self._unchecked.clear()

    @contextmanager
    def opened(self, source: ByteSource) -> Iterator[OpenBytes]:
        """A source, open for as long as the block lasts."""
        with self._lock:
            file = self._files.get(source)
            if file is None:
                self._close_idle()
                file = self._files[source] = source.open()
            self._files.move_to_end(source)
            self._users[source] = self._users.get(source, 0) + 1
            self._unchecked.update(dict.fromkeys(files_of(source)))
        try:
            yield file
        finally:
            with self._lock:
                self._users[source] -= 1
                if not self._users[source]:
                    del self._users[source]

    def _close_idle(self) -> None:
        """Makes room for one more open file."""
        for source in list(self._files)[: max(0, len(self._files) - _OPEN_FILES + 1)]:
            if source not in self._users:
                self._files.pop(source).close()

    def expect(self, tensors: Iterable[Tensor]) -> None:
        """A hint that these tensors will be read, for files where that costs much."""
        expect_ranges(each for tensor in tensors if not reads_cheaply(tensor) for each in ranges_of(tensor))

    def read_into(self, source: ByteSource, offset: int, out: memoryview | bytearray) -> None:
        """Fills `out` with the bytes from `offset` on.

        Raises:
            UnreadableError: the file ends before, cannot be read, or changed after its headers were read.
        """
        if not source.reads_cheaply:
            source.will_read([(offset, len(out))])
        with self.opened(source) as file:
            file.read_into(offset, memoryview(out))

    def blocks(self, tensor: Tensor, nbytes: int = BLOCK) -> Iterator[memoryview]:
        """The tensor's packed little-endian bytes in C order.

        Every block but the last has the same size: `nbytes`, rounded down so that no element is cut. A block is valid
        until the next one is asked for. A sparse or nested tensor gives the bytes of its parts in turn (blocks do not
        span two parts), a quantized one its stored integers, a meta tensor nothing.

        Raises:
            DamagedError: a whole record was read and does not have its stated CRC-32.
            UnreadableError: the file ends early; or a view repeats few bytes so often that reading it has no end.
        """
        if not reads_cheaply(tensor):
            self.expect([tensor])
        unit = lcm(16, DTYPES[tensor.dtype].block_nbytes)
        nbytes = max(48, unit, nbytes - nbytes % unit)
        for dense in dense_parts(tensor):
            if not dense.nbytes:
                continue
            if is_run(dense):
                yield from self._run(dense, nbytes)
            elif is_flat(dense):
                yield from same_size(self._flat(dense), nbytes)
            else:
                yield from same_size(self._gathered(dense), nbytes)

    def _run(self, tensor: Tensor, nbytes: int) -> Iterator[memoryview]:
        source, offset, left = run_of(tensor)
        storage = tensor.pieces[0].storage
        stated = storage.crc if left == storage.nbytes else None
        crc = 0
        buffer = memoryview(bytearray(min(nbytes, left)))
        while left:
            block = buffer[: min(left, nbytes)]
            self.read_into(source, offset, block)
            if stated is not None:
                crc = zlib.crc32(block, crc)
                if left == len(block) and crc != stated:
                    self.report_damage(storage, tensor.key)
            yield block
            offset, left = offset + len(block), left - len(block)

    def _flat(self, tensor: Tensor) -> Iterator[memoryview]:
        """Flat runs one after the other, in blocks."""
        import numpy as np

        dtype = DTYPES[tensor.dtype]
        number = number_nbytes(dtype)
        most = BLOCK - BLOCK % dtype.block_nbytes
        for run in flat_runs(tensor):
            for done in range(0, run.nbytes, most):
                packed = np.empty(min(most, run.nbytes - done), np.uint8)
                self.read_into(run.file, run.offset + done, packed.data)
                if run.big_endian and number > 1:
                    packed.view(f"u{number}").byteswap(inplace=True)
                _apply_bits(tensor, packed)
                yield packed.data

    def _gathered(self, tensor: Tensor) -> Iterator[memoryview]:
        """Boxes of the tensor in C order, each collected from wherever its elements are."""
        import numpy as np

        if is_blown_up(tensor):
            raise UnreadableError(
                f"{tensor.key} is a view of {tensor.elements:,} elements over few bytes: it is not read",
                hint="save a contiguous copy of it",
                path=tensor.pieces[0].storage.file.path,
                key=tensor.key,
            )
        views = views_of(tensor)
        shape = views[0].shape if len(views) == 1 else tensor.shape
        element = np.dtype(f"V{views[0].itemsize}")
        nbytes = _SCATTERED if any(view.span > prod(view.shape) for view in views) else min(_IN_ORDER, _SCATTERED)
        sums = [_Sum(view.storage) for view in views]
        for at, box in boxes(shape, nbytes // element.itemsize):
            out, filled = np.empty(box, element), 0
            for view, sum_ in zip(views, sums, strict=True):
                if (cut := view.cut(at, box)) is not None:
                    part, place = cut
                    self._fill(part, out[place], tensor.key, sum_)
                    filled += prod(part.shape)
            if filled != prod(box):
                raise UnreadableError(f"the chunks of {tensor.key} leave a hole or overlap", key=tensor.key)
            packed = out.reshape(-1).view(np.uint8)
            _apply_bits(tensor, packed)
            yield packed.data

    def _fill(self, view: View, out: Array, key: str, sum_: _Sum) -> None:
        """Copies a view's elements to `out`; where they lie far apart, in halves."""
        import numpy as np

        span = view.span
        if span * view.itemsize <= max(_PAGE, 2 * out.nbytes):
            raw = np.empty(span * view.itemsize, np.uint8)
            self.read_into(view.storage.file, view.storage.offset + view.start * view.itemsize, raw.data)
            if sum_.differs(view.start * view.itemsize, raw.data):
                self.report_damage(view.storage, key)
            if view.swap > 1:
                raw.view(f"u{view.swap}").byteswap(inplace=True)
            strides = [step * view.itemsize for step in view.strides]
            out[...] = np.lib.stride_tricks.as_strided(raw.view(out.dtype), view.shape, strides)
            return
        axis = max(range(len(view.shape)), key=lambda i: (view.shape[i] - 1) * view.strides[i])
        half = view.shape[axis] // 2
        for low, high in ((0, half), (half, view.shape[axis])):
            shape = (*view.shape[:axis], high - low, *view.shape[axis + 1 :])
            place = (*(slice(None),) * axis, slice(low, high))
            self._fill(replace(view, start=view.start + low * view.strides[axis], shape=shape), out[place], key, sum_)

    def fill(self, tensor: Tensor, out: memoryview) -> None:
        """Fills `out` with the tensor's packed bytes; what is one run is read straight into it. See `blocks`."""
        if not is_run(tensor):
            done = 0
            for block in self.blocks(tensor):
                out[done : done + len(block)] = block
                done += len(block)
            return
        source, offset, nbytes = run_of(tensor)
        storage = tensor.pieces[0].storage
        self.read_into(source, offset, out)
        if storage.crc is not None and nbytes == storage.nbytes and zlib.crc32(out) != storage.crc:
            self.report_damage(storage, tensor.key)

    def report_damage(self, storage: Storage, key: str | None = None) -> None:
        """Raise `DamagedError` for bytes that do not have their stated CRC-32, or tell `on_damage` of it."""
        key = key or self._key_at(storage)
        what = f"the tensor {key}" if key else "a tensor"
        error = DamagedError(
            f"{storage.file.name} is damaged: the {storage.nbytes:,} bytes of {what} at {storage.offset:,} "
            f"differ from the CRC-32 in the file",
            hint="get the file again from where it came from",
            path=storage.file.path,
            key=key,
        )
        if self._on_damage is None:
            raise error
        self._on_damage(error)

    def _key_at(self, storage: Storage) -> str | None:
        """The first tensor that lies there."""
        for checkpoint in self._checkpoints:
            for tensors in (checkpoint.tensors, checkpoint.other_tensors):
                for key, tensor in tensors.items():
                    places = ((piece.storage.file, piece.storage.offset) for piece in tensor.pieces)
                    if (storage.file, storage.offset) in places:
                        return key
        return None

    def read_bytes(self, tensor: Tensor) -> bytes:
        """All of the tensor's packed bytes; see `blocks`."""
        return b"".join(bytes(block) for block in self.blocks(tensor))

    def sha256(self, tensor: Tensor) -> str:
        """The SHA-256 of the tensor's packed bytes, in hexadecimal: equal however the bytes lie in a file."""
        import hashlib

        digest = hashlib.sha256()
        for block in self.blocks(tensor):
            digest.update(block)
        return digest.hexdigest()

    def array(self, tensor: Tensor) -> Array:
        """The whole tensor as an array of its own memory, of the dtype that `numpy_dtype` says.

        4- and 6-bit floats are unpacked to one element per byte, as ml_dtypes has them.

        Raises:
            CkptError: the layout is sparse, quantized, nested or meta.
        """
        import numpy as np

        if not isinstance(tensor, Tensor):
            raise TypeError(f"Reader.array: tensor is a {type(tensor).__name__}; give a tensor: checkpoint[key]")
        if tensor.layout != "strided":
            raise CkptError(f"{tensor.key} is {tensor.layout}: it has no plain array", key=tensor.key)
        packed = np.empty(tensor.nbytes, np.uint8)
        if tensor.nbytes:
            self.fill(tensor, packed.data)
        if DTYPES[tensor.dtype].is_packed:
            packed = unpack_bits(packed, DTYPES[tensor.dtype].bits, tensor.elements)
        return packed.view(numpy_dtype(tensor.dtype)).reshape(tensor.shape)


class _Sum:
    """The CRC-32 of a storage that is read from its begin to its end, in parts that follow one another."""

    def __init__(self, storage: Storage) -> None:
        self._stated, self._nbytes = storage.crc, storage.nbytes
        self._done = self._crc = 0

    def differs(self, offset: int, data: memoryview) -> bool:
        """True if these bytes of the storage are its last ones, and all of them do not have the stated CRC-32."""
        if self._stated is None or offset != self._done:
            return False
        self._crc = zlib.crc32(data, self._crc)
        self._done += len(data)
        return self._done == self._nbytes and self._crc != self._stated


def read_array(tensor: Tensor) -> Array:
    """One tensor as a numpy array; see `Reader.array`."""
    with Reader() as reader:
        return reader.array(tensor)


def same_size(blocks: Iterator[memoryview], nbytes: int) -> Iterator[memoryview]:
    """Cuts and joins blocks so that all but the last have `nbytes`."""
    rest = bytearray()
    for block in blocks:
        at = 0
        if rest:
            at = min(len(block), nbytes - len(rest))
            rest += block[:at]
            if len(rest) < nbytes:
                continue
            yield memoryview(rest)
            rest = bytearray()
        while len(block) - at >= nbytes:
            yield block[at : at + nbytes]
            at += nbytes
        rest += block[at:]
    if rest:
        yield memoryview(rest)


def _apply_bits(tensor: Tensor, packed: Array) -> None:
    """Conjugates and negates in place, as the tensor's flags say: sign bits of floats, two's complement of integers."""
    import numpy as np

    dtype = DTYPES[tensor.dtype]
    if dtype.is_packed:
        if tensor.neg or tensor.conj:
            raise UnreadableError(f"{tensor.key} is a negated view of {dtype.name}", key=tensor.key)
    elif dtype.kind in ("float", "complex"):
        parts = packed.view(f"<u{number_nbytes(dtype)}")
        sign = parts.dtype.type(1 << (parts.dtype.itemsize * 8 - 1))
        if tensor.neg:
            parts ^= sign
        if tensor.conj and dtype.kind == "complex":
            parts[1::2] ^= sign
    elif tensor.neg and dtype.kind in ("int", "uint"):
        numbers = packed.view(f"<i{dtype.block_nbytes}")
        np.negative(numbers, out=numbers)
