"""One pass over the bytes of a checkpoint for all rules that look at values.

Every block is read once and handed to whatever wants it: the digest, the search for NaN and Inf, the search for
constants. NaN and Inf are found in the bit patterns by integer operations; nothing is converted to another float.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.core.tensor import Piece, Storage, Tensor
from ckptool.core.views import is_run, repeated_axes, without_axes
from ckptool.engine.ranges import dense_parts, reads_cheaply
from ckptool.engine.reading import Reader
from ckptool.values.pool import in_threads
from ckptool.values.shared import divide, label

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_BLOCK = 1 << 18  # bytes; stays in the cache while several look at it


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the pass is to find out.

    Attributes:
        nonfinite: how many elements are NaN and Inf.
        constant: whether all elements are one.
        digest: the SHA-256.
        checksums: whether every stated CRC-32 is right.
    """

    nonfinite: bool = False
    constant: bool = False
    digest: bool = False
    checksums: bool = False

    def wants(self, tensor: Tensor) -> bool:
        """True if the bytes of this tensor have to be read."""
        if tensor.layout == "meta":
            return False
        return self.digest or ((self.nonfinite or self.constant) and _has_floats(tensor))


@dataclass(frozen=True, slots=True)
class Measure:
    """What the pass found out about one tensor.

    Attributes:
        nan: elements that are NaN; a complex one is if one of its parts is.
        inf: elements that are infinite and not NaN.
        constant: the bytes of the one element that all are, if there are several; zeros of both signs are one.
        digest: the SHA-256 of its packed bytes; "" if not wanted.
        damaged: its bytes do not have the CRC-32 that the file states.
    """

    nan: int = 0
    inf: int = 0
    constant: bytes | None = None
    digest: str = ""
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class _Job:
    """One pass over the bytes of a tensor, for all keys that have them."""

    tensor: Tensor
    wanted: Wanted
    keys: tuple[str, ...]


def measure(
    checkpoint: Checkpoint,
    wanted: Wanted,
    threads: int = 2,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Measure]:
    """What is wanted of every tensor; tensors that are one are read once.

    Args:
        checkpoint: whose weights are read.
        wanted: what to find out.
        threads: how many at most.
        progress: called with the number of bytes read since the last call.

    Raises:
        UnreadableError: the file ends early, or changes while it is read.
    """
    jobs = list(_jobs(checkpoint, wanted))
    if all(reads_cheaply(job.tensor) for job in jobs):
        jobs.sort(key=lambda job: -job.tensor.nbytes)  # so that the threads end together
    labels = (f"{label(job.tensor)} {job.wanted} {job.keys}" for job in jobs)
    part = divide("measure", labels, (job.tensor.nbytes for job in jobs))
    places = {id(jobs[place]): place for place in part.todo}
    damaged: set[str | None] = set()
    found: dict[str, Measure] = {}
    spoiled: set[str] = set()

    def keep(job: _Job, result: Measure) -> None:
        if job.wanted != _CHECKSUM:
            found.update(dict.fromkeys(job.keys, result))
        spoiled.update(job.keys if result.damaged else ())

    for place, values in part.known.items():
        keep(jobs[place], _recorded(values))
    with Reader(on_damage=(lambda error: damaged.add(error.key)) if wanted.checksums else None) as reader:
        mine = [jobs[place] for place in part.todo]
        reader.expect(job.tensor for job in mine)
        for job, measured in in_threads(lambda job: _measured(job.tensor, job.wanted, reader), mine, threads):
            result = replace(measured, damaged=job.tensor.key in damaged)
            keep(job, result)
            constant = None if result.constant is None else result.constant.hex()
            part.leave(places[id(job)], (result.nan, result.inf, constant, result.digest, result.damaged))
            if progress is not None:
                progress(job.tensor.nbytes)
    for key in spoiled.union(*(job.keys for job in mine if job.tensor.key in damaged)):
        found[key] = replace(found.get(key, Measure()), damaged=True)
    return {key: found[key] for key in checkpoint if key in found}


def _recorded(values: Sequence[Any]) -> Measure:
    """A result as another process has left it."""
    nan, inf, constant, digest, damaged = values
    return Measure(nan, inf, None if constant is None else bytes.fromhex(constant), digest, damaged)


def work(checkpoint: Checkpoint, wanted: Wanted) -> int:
    """The bytes that `measure` reads."""
    return sum(job.tensor.nbytes for job in _jobs(checkpoint, wanted))


_CHECKSUM = Wanted(checksums=True)


def _jobs(checkpoint: Checkpoint, wanted: Wanted) -> Iterator[_Job]:
    """What has to be read: tensors whose values are wanted, then records whose CRC-32 that does not compare."""
    keys: dict[object, list[str]] = defaultdict(list)
    tensors: dict[object, Tensor] = {}
    for key, tensor in checkpoint.items():
        if wanted.wants(tensor):
            identity: object = key if tensor.parts else (tensor.dtype, tensor.pieces, tensor.conj, tensor.neg)
            keys[identity].append(key)
            tensors.setdefault(identity, tensor)
    compared = {tensor.storage for tensor in tensors.values() if tensor.storage and _is_compared(tensor)}
    for identity, tensor in tensors.items():
        yield _Job(tensor, wanted, tuple(keys[identity]))
    if not wanted.checksums or checkpoint.columns is not None:
        return
    records: dict[Storage, list[str]] = defaultdict(list)
    for key, tensor in checkpoint.items():
        for part in dense_parts(tensor):
            for storage in {piece.storage for piece in part.pieces if piece.storage.crc is not None} - compared:
                records[storage].append(key)
    for storage, names in records.items():
        plain = replace(storage, big_endian=False)
        spec = TensorSpec(names[0], "uint8", (storage.nbytes,))
        yield _Job(Tensor(spec, (Piece(plain, 0, spec.shape),)), _CHECKSUM, tuple(names))


def _is_compared(tensor: Tensor) -> bool:
    """True if reading the tensor reads a whole record, and so compares its CRC-32."""
    return is_run(tensor) and tensor.pieces[0].storage.nbytes == tensor.nbytes


def _has_floats(tensor: Tensor) -> bool:
    return DTYPES[tensor.dtype].kind in ("float", "complex") and tensor.dtype in _PATTERNS


def _measured(tensor: Tensor, wanted: Wanted, reader: Reader) -> Measure:
    repeat = 1
    if not wanted.digest and (axes := repeated_axes(tensor)):  # a digest is over what a loader gets
        short = without_axes(tensor, axes)
        repeat, tensor = tensor.elements // max(1, short.elements), short
    digest = hashlib.sha256() if wanted.digest else None
    searches: list[_Search] = []
    for part in dense_parts(tensor):
        looks: list[_Search] = []
        if part.dtype in _PATTERNS:
            looks += [_NonFinite(part.dtype)] if wanted.nonfinite else []
            looks += [_Constant(part.dtype)] if wanted.constant and tensor.layout == "strided" else []
        for block in reader.blocks(part, _BLOCK):
            if digest is not None:
                digest.update(block)
            for look in looks:
                if not look.done:
                    look.add(block)
        searches += looks
    result = Measure(digest=digest.hexdigest() if digest else "")
    for search in searches:
        result = search.into(result, repeat)
    return result


# ------------------------------------------------------------------------------------------------ bit patterns


@dataclass(frozen=True, slots=True)
class _Pattern:
    """How a float dtype writes NaN and Inf.

    Attributes:
        code: the unsigned integer of one number (of each part, for a complex dtype).
        mask: all bits but the sign.
        largest: the largest finite pattern under the mask.
        inf: the pattern of Inf under the mask; None if there is none. Any other pattern above `largest` is NaN.
        only: the one pattern that is NaN, with its sign; for dtypes that write it where -0.0 would be.
    """

    code: str
    mask: int
    largest: int
    inf: int | None = None
    only: int | None = None


def _ieee(bits: int, exponent: int) -> _Pattern:
    inf = ((1 << exponent) - 1) << (bits - 1 - exponent)
    return _Pattern(f"<u{bits // 8}", (1 << (bits - 1)) - 1, inf - 1, inf)


_PATTERNS: dict[str, _Pattern] = {
    "float64": _ieee(64, 11),
    "float32": _ieee(32, 8),
    "float16": _ieee(16, 5),
    "bfloat16": _ieee(16, 8),
    "float8_e5m2": _ieee(8, 5),
    "float8_e4m3fn": _Pattern("u1", 0x7F, 0x7E),
    "float8_e4m3fnuz": _Pattern("u1", 0xFF, 0xFF, only=0x80),
    "float8_e5m2fnuz": _Pattern("u1", 0xFF, 0xFF, only=0x80),
    "float8_e8m0fnu": _Pattern("u1", 0xFF, 0xFE),
    "complex32": _ieee(16, 5),
    "complex64": _ieee(32, 8),
    "complex128": _ieee(64, 11),
}
"""The 4- and 6-bit floats are not here: they have neither NaN nor Inf."""


class _Search(Protocol):
    """Looks at blocks one after the other.

    Attributes:
        done: further blocks would tell nothing new.
    """

    done: bool

    def add(self, block: memoryview) -> None:
        """Looks at the next block."""

    def into(self, result: Measure, repeat: int) -> Measure:
        """The result with what was found; each element stands `repeat` times in the tensor."""


class _NonFinite:
    done = False

    def __init__(self, dtype: str) -> None:
        import numpy as np

        self.pattern = _PATTERNS[dtype]
        self.parts = 2 if DTYPES[dtype].kind == "complex" else 1
        self.code = np.dtype(self.pattern.code)
        self.mask = self.code.type(self.pattern.mask)
        self.scratch: Array = np.empty(0, self.code)
        self.nan = self.inf = 0

    def add(self, block: memoryview) -> None:
        import numpy as np

        codes: Array = np.frombuffer(block, self.code)
        if self.pattern.only is not None:
            self.nan += int(np.count_nonzero(codes == self.code.type(self.pattern.only)))
            return
        if len(self.scratch) < len(codes):
            self.scratch = np.empty(len(codes), self.code)
        bare = np.bitwise_and(codes, self.mask, out=self.scratch[: len(codes)])
        if len(bare) and int(bare.max()) > self.pattern.largest:
            self._count(bare)

    def _count(self, bare: Array) -> None:
        import numpy as np

        bad = bare > self.code.type(self.pattern.largest)
        infinite = bare == self.code.type(self.pattern.inf) if self.pattern.inf is not None else np.zeros_like(bad)
        nan = bad & ~infinite
        if self.parts == 2:
            nan = nan[0::2] | nan[1::2]
            infinite = (infinite[0::2] | infinite[1::2]) & ~nan
        self.nan += int(np.count_nonzero(nan))
        self.inf += int(np.count_nonzero(infinite))

    def into(self, result: Measure, repeat: int) -> Measure:
        return replace(result, nan=result.nan + self.nan * repeat, inf=result.inf + self.inf * repeat)


class _Constant:
    """Nearly every tensor is known not to be constant after its first two elements."""

    done = False

    def __init__(self, dtype: str) -> None:
        self.pattern = _PATTERNS[dtype]
        self.itemsize = DTYPES[dtype].nbytes(1)
        self.first = b""
        self.seen = 0

    def add(self, block: memoryview) -> None:
        import numpy as np

        size = self.itemsize
        self.first = self.first or bytes(block[:size])
        self.seen += len(block) // size
        if self._is_zero(self.first):
            codes: Array = np.frombuffer(block, self.pattern.code)
            self.done = bool((codes[:64] & self._mask()).any() or (codes & self._mask()).any())
            return
        if bytes(block[:size]) != self.first or bytes(block[size : 2 * size]) not in (b"", self.first):
            self.done = True
            return
        raw: Array = np.frombuffer(block, np.uint8)
        self.done = not np.array_equal(raw[size:], raw[:-size])

    def _mask(self) -> Any:
        import numpy as np

        return np.dtype(self.pattern.code).type(self.pattern.mask)

    def _is_zero(self, element: bytes) -> bool:
        if self.pattern.largest == 0xFE:  # e8m0: powers of two, it has no zero
            return False
        import numpy as np

        return not (np.frombuffer(element, self.pattern.code) & self._mask()).any()

    def into(self, result: Measure, repeat: int) -> Measure:
        is_constant = not self.done and self.seen * repeat > 1
        return replace(result, constant=self.first) if is_constant else result
