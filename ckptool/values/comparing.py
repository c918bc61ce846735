"""Values of pairs of tensors: bytes first, numbers only for those that differ.

The bytes of plain tensors are compared by `memcmp` on what `pread` gave; numpy is not imported before something
differs. Work is cut into chunks of a fixed size and their sums are added in a fixed order, so the numbers are the same
whatever the threads do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

from ckptool.core.errors import UnreadableError
from ckptool.core.spec import DTYPES, TensorSpec, packed_nbytes
from ckptool.core.tensor import Tensor
from ckptool.core.views import is_run, repeated_axes, run_of, without_axes
from ckptool.engine.ranges import dense_parts
from ckptool.engine.reading import Reader, same_size
from ckptool.values.delta import Delta, Tolerance
from ckptool.values.mapped import Made
from ckptool.values.pool import in_threads
from ckptool.values.shared import divide, label

if TYPE_CHECKING:
    from ckptool.values.kernels import Sums

EXACT = Tolerance()
Progress = Callable[[int, int], None]

_BYTES_AT_ONCE = 1 << 18  # two such buffers and their sums stay in the cache of one core
_CHUNK = 1 << 24  # elements
_BATCH = 1 << 22  # bytes
_ELEMENTS_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a pair came to.

    Attributes:
        same: every byte is equal, or every number within the tolerance.
        delta: the numbers, where bytes differ and the layout has numbers.
    """

    same: bool
    delta: Delta | None


@dataclass(slots=True)
class _Pair:
    """Two tensors of one shape, without the axes that merely repeat elements in both."""

    old: Tensor
    new: Tensor
    repeat: int
    differs: bool  # known to; a cast is not compared by bytes at all
    sums: dict[int, Sums]


@dataclass(slots=True)
class _Chunk:
    """A run of elements of a pair, from `low` on, or all of it if it cannot be cut."""

    pair: _Pair
    old: Tensor
    new: Tensor
    low: int
    equal: bool = False

    @property
    def nbytes(self) -> int:
        return self.new.nbytes


def compare_values(
    pairs: Sequence[tuple[Tensor, Tensor]],
    reader: Reader,
    *,
    tolerance: Tolerance = EXACT,
    threads: int = 2,
    progress: Progress | None = None,
) -> list[Verdict]:
    """Compare tensors of equal shape (dtypes may differ), each pair of places in the files once.

    Args:
        pairs: (old, new).
        reader: reads both sides.
        tolerance: what counts as same.
        threads: how many at most.
        progress: called with (bytes done, bytes in all) of the new side.

    Raises:
        UnreadableError: a file ends early or changes.
    """
    places: dict[object, _Pair] = {}
    found = []
    for old, new in pairs:
        place = _place(old, new)
        if place not in places:
            places[place] = _pair(old, new)
        found.append(places[place])
    every = list(places.values())
    part = divide(
        "compare",
        (f"{label(pair.old)} {label(pair.new)} {tolerance}" for pair in every),
        (pair.new.nbytes for pair in every),
    )
    mine = [every[place] for place in part.todo]
    chunks = [chunk for pair in mine if not _is_one_place(pair) for chunk in _chunks(pair)]
    total, done = sum(chunk.nbytes for chunk in chunks), 0
    reader.expect(tensor for chunk in chunks for tensor in (chunk.old, chunk.new) if not isinstance(tensor, Made))

    def same(batch: list[_Chunk]) -> int:
        return sum(chunk.nbytes for chunk in batch if _equal(chunk, reader))

    def add_up(batch: list[_Chunk]) -> int:
        for chunk in batch:
            chunk.pair.sums[chunk.low] = _sums(chunk, reader, tolerance)
        return sum(chunk.nbytes for chunk in batch if not chunk.equal)

    for work in (same, add_up):
        todo = (
            chunks if work is same else [chunk for chunk in chunks if chunk.pair.differs and _has_numbers(chunk.pair)]
        )
        for _, nbytes in in_threads(work, _batches(todo), threads):
            done += nbytes
            part.show()
            if progress is not None:
                progress(done, total)
    verdicts = {id(every[place]): _recorded(*values) for place, values in part.known.items()}
    for place in part.todo:
        verdict = verdicts[id(every[place])] = _verdict(every[place], tolerance)
        part.leave(place, (verdict.same, None if verdict.delta is None else astuple(verdict.delta)))
    return [verdicts.get(id(pair), _UNKNOWN) for pair in found]


_UNKNOWN = Verdict(True, None)  # another process says what it is


def _recorded(same: bool, delta: Sequence[Any] | None) -> Verdict:
    """A verdict as another process has left it."""
    if delta is None:
        return Verdict(same, None)
    values: list[Any] = [tuple(value) if isinstance(value, list) else value for value in delta]
    return Verdict(same, Delta(**dict(zip(Delta.__slots__, values, strict=True))))


def _batches(chunks: Sequence[_Chunk]) -> list[list[_Chunk]]:
    """Chunks in their order, small ones together: a thread takes a batch at a time."""
    batches: list[list[_Chunk]] = []
    room = 0
    for chunk in chunks:
        if room <= 0:
            batches.append([])
            room = _BATCH
        batches[-1].append(chunk)
        room -= chunk.nbytes + _BATCH // 100
    return batches


def _pair(old: Tensor, new: Tensor) -> _Pair:
    axes = repeated_axes(old) & repeated_axes(new)
    repeat = 1
    for axis in axes:
        repeat *= old.shape[axis]
    if axes:
        old, new = without_axes(old, axes), without_axes(new, axes)
    return _Pair(old, new, repeat, old.dtype != new.dtype or isinstance(old, Made), {})


def _place(old: Tensor, new: Tensor) -> object:
    """Equal for pairs of tensors that view the same bytes in the same way: tied tensors are compared once."""
    if old.parts or new.parts or isinstance(old, Made):
        return old.key, new.key, "parts"
    return tuple((t.dtype, t.shape, t.pieces, t.layout, t.conj, t.neg) for t in (old, new))


def _is_one_place(pair: _Pair) -> bool:
    """True if both are the same view of the same bytes of one file: nothing needs to be read."""
    old, new = pair.old, pair.new
    if old.dtype != new.dtype or old.layout != new.layout or (old.conj, old.neg) != (new.conj, new.neg):
        return False
    if old.parts or len(old.pieces) != len(new.pieces):
        return False
    for a, b in zip(old.pieces, new.pieces, strict=True):
        x, y = a.storage, b.storage
        if (x.offset, x.nbytes, x.big_endian) != (y.offset, y.nbytes, y.big_endian):
            return False
        if replace(a, storage=y) != b:
            return False
        if x.nbytes and x.file.identity != y.file.identity:
            return False
    return True


def _chunks(pair: _Pair) -> Iterator[_Chunk]:
    old, new = pair.old, pair.new
    plain = all(
        t.layout == "strided" and t.elements and is_run(t) and not DTYPES[t.dtype].is_packed for t in (old, new)
    )
    if not plain or old.elements <= _CHUNK:
        yield _Chunk(pair, old, new, 0)
        return
    for low in range(0, old.elements, _CHUNK):
        high = min(old.elements, low + _CHUNK)
        yield _Chunk(pair, _slice(old, low, high), _slice(new, low, high), low)


def _slice(tensor: Tensor, low: int, high: int) -> Tensor:
    """Elements `low` to `high` of a run."""
    piece = replace(tensor.pieces[0], start=tensor.pieces[0].start + low, shape=(high - low,), strides=None, at=())
    return replace(tensor, spec=TensorSpec(tensor.key, tensor.dtype, (high - low,)), pieces=(piece,))


def _equal(chunk: _Chunk, reader: Reader) -> bool:
    if not chunk.pair.differs:
        chunk.equal = same_bytes(chunk.old, chunk.new, reader)
        if not chunk.equal:
            chunk.pair.differs = True
    return chunk.equal


def same_bytes(old: Tensor, new: Tensor, reader: Reader) -> bool:
    """True if the packed bytes of two tensors of one spec are equal. Stops at the first block that differs."""
    olds, news = list(dense_parts(old)), list(dense_parts(new))
    if [(part.dtype, part.shape) for part in olds] != [(part.dtype, part.shape) for part in news]:
        return False
    return all(_same_dense(a, b, reader) for a, b in zip(olds, news, strict=True))


def _same_dense(old: Tensor, new: Tensor, reader: Reader) -> bool:
    if not old.nbytes:
        return True
    if not (is_run(old) and is_run(new)):
        blocks = zip(reader.blocks(old), reader.blocks(new), strict=True)
        return all(bytearray(a) == b for a, b in blocks)
    (old_file, old_at, left), (new_file, new_at, _) = run_of(old), run_of(new)
    size = min(left, _BYTES_AT_ONCE)
    a, b = bytearray(size), bytearray(size)
    while left:
        if left < size:
            a, b, size = bytearray(left), bytearray(left), left
        reader.read_into(old_file, old_at, a)
        reader.read_into(new_file, new_at, b)
        if a != b:  # memcmp
            return False
        old_at, new_at, left = old_at + size, new_at + size, left - size
    return True


def _has_numbers(pair: _Pair) -> bool:
    """Sparse, nested and quantized tensors are compared by their bytes only."""
    return all(t.layout == "strided" for t in (pair.old, pair.new)) and pair.old.elements > 0


def _sums(chunk: _Chunk, reader: Reader, tolerance: Tolerance) -> Sums:
    from ckptool.values.kernels import Kernel

    kernel = Kernel(chunk.old.dtype, chunk.new.dtype, ulp=tolerance.ulp is not None)
    sizes = (packed_nbytes(t.dtype, (_ELEMENTS_AT_ONCE,)) for t in (chunk.old, chunk.new))
    blocks = (_blocks(t, nbytes, reader) for t, nbytes in zip((chunk.old, chunk.new), sizes, strict=True))
    for old, new in zip(*blocks, strict=True):
        kernel.add(old, new)
    return kernel.sums


def _blocks(tensor: Tensor, nbytes: int, reader: Reader) -> Iterator[memoryview]:
    if isinstance(tensor, Made):
        return same_size(tensor.blocks(reader), nbytes)
    return reader.blocks(tensor, nbytes)


def _verdict(pair: _Pair, tolerance: Tolerance) -> Verdict:
    if not pair.differs:
        return Verdict(True, None)
    if not pair.sums:
        return Verdict(False, None)
    lows = sorted(pair.sums)
    whole = pair.sums[lows[0]]
    for low in lows[1:]:
        whole.add(pair.sums[low])
    delta = whole.delta(pair.repeat)
    if pair.old.dtype == pair.new.dtype and not delta.differing:
        if isinstance(pair.old, Made):  # of these nothing else tells that they are equal
            return Verdict(True, None)
        raise UnreadableError(
            f"{pair.new.key} changed while it was read",
            hint="wait until nothing writes to the files",
            path=pair.new.pieces[0].storage.file.path,
            key=pair.new.key,
        )
    return Verdict(not whole.unmatched and _within(delta, tolerance), delta)


def _within(delta: Delta, tolerance: Tolerance) -> bool:
    """True if every bound that was given holds, and one was."""
    bounds = [(tolerance.rel, delta.rel), (tolerance.abs, delta.max_abs), (tolerance.ulp, delta.ulp)]
    given = [(bound, found) for bound, found in bounds if bound is not None]
    return bool(given) and all(found is not None and found <= bound for bound, found in given)
