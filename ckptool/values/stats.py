"""Statistics of one tensor: mean, std, extremes, NaN, Inf, zeros, a histogram. In blocks, in float64.

Dtypes of at most 16 bits are counted by bit pattern, 65,536 counters at most, and everything follows exactly from the
counts in one pass. Wider ones are read twice: once for the moments and extremes, once for the histogram.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ckptool.core.arrays import numpy_dtype, unpack_bits
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import CkptError, UndecodableError
from ckptool.core.spec import DTYPES, packed_nbytes
from ckptool.core.tensor import Tensor
from ckptool.core.views import repeated_axes, without_axes
from ckptool.engine.reading import Reader
from ckptool.values.pool import in_threads
from ckptool.values.shared import divide, label

Array = NDArray[Any]

BINS = 24
_ELEMENTS_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class Stats:
    """Numbers of one tensor. Of a complex one they are over its real and imaginary parts, each a number of its own.

    Attributes:
        mean: of the finite elements; None if there are none.
        std: of the finite elements, divided by their number (not by one less); None if there are none.
        min: smallest finite element; exact for integers, an int for them; None if there are none.
        max: largest finite element, likewise.
        nan: how many are NaN.
        inf: how many are infinite.
        zeros: how many are zero.
        elements: how many there are.
        histogram: counts of finite elements in 24 bins of equal width over [-m, m], m the largest magnitude; an element
            on an edge counts in the bin above. If all are zero, they are in the bin above zero.
        integer: True for integers and bools.
    """

    mean: float | None
    std: float | None
    min: float | int | None
    max: float | int | None
    nan: int
    inf: int
    zeros: int
    elements: int
    histogram: tuple[int, ...]
    integer: bool


def stats(tensor: Tensor, reader: Reader) -> Stats:
    """The statistics of one tensor, in bounded memory.

    Raises:
        CkptError: the tensor is sparse, quantized, nested or meta, or its dtype has no numbers.
        UnreadableError: the file ends early.

    Example:
        >>> import tempfile, pathlib
        >>> from ckptool.core.tensor import Piece, Storage
        >>> from ckptool.core.spec import TensorSpec
        >>> from ckptool.storage.locate import locate_file
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "raw"
        >>> _ = path.write_bytes(np.array([-1, 0, 3], np.int32).tobytes())
        >>> tensor = Tensor(TensorSpec("n", "int32", (3,)), (Piece(Storage(locate_file(path), 0, 12), 0, (3,)),))
        >>> found = stats(tensor, Reader())
        >>> found.min, found.max, found.zeros, round(found.mean, 3)
        (-1, 3, 1, 0.667)
    """
    if not has_numbers(tensor):
        what = tensor.layout if tensor.layout != "strided" else tensor.dtype
        raise CkptError(f"{tensor.key} is {what}: it has no statistics", key=tensor.key)
    axes = repeated_axes(tensor)
    repeat = math.prod(tensor.shape[axis] for axis in axes)
    if axes:
        tensor = without_axes(tensor, axes)
    with np.errstate(all="ignore"):
        narrow = DTYPES[tensor.dtype].bits <= 16
        return _by_pattern(tensor, reader, repeat) if narrow else _by_value(tensor, reader, repeat)


def has_numbers(tensor: Tensor) -> bool:
    """True if `stats` can say something of it."""
    return tensor.layout == "strided" and DTYPES[tensor.dtype].kind not in ("bits", "quantized")


def all_stats(
    checkpoint: Checkpoint,
    keys: Collection[str],
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
    on_undecodable: Callable[[UndecodableError], None] | None = None,
) -> dict[str, Stats]:
    """The statistics of several tensors by key, in the order of `keys`; tensors without numbers are left out.

    Args:
        checkpoint: what holds them.
        keys: which.
        threads: how many at most.
        progress: called with (bytes read, bytes in all).
        on_undecodable: told of each tensor whose codes do not decode, which is then left out; None raises the error.
    """

    def numbers(key: str) -> Stats | UndecodableError:
        try:
            return stats(checkpoint[key], reader)
        except UndecodableError as error:
            if on_undecodable is None:
                raise
            return error

    # the largest first, so that the threads end together; in the order of the file where that costs less
    todo = sorted((key for key in keys if has_numbers(checkpoint[key])), key=lambda key: -checkpoint[key].nbytes)
    if not all(file.reads_cheaply for file in checkpoint.files):
        known = set(todo)
        todo = [key for key in checkpoint if key in known]
    part = divide("stats", (label(checkpoint[key]) for key in todo), (checkpoint[key].nbytes for key in todo))
    found = {todo[place]: _recorded(values) for place, values in part.known.items()}
    places = {todo[place]: place for place in part.todo}
    total, done = sum(checkpoint[key].nbytes for key in places), 0
    with Reader([checkpoint]) as reader:
        reader.expect(checkpoint[key] for key in places)
        for key, result in in_threads(numbers, [*places], threads):
            if isinstance(result, Stats):
                found[key] = result
                part.leave(places[key], astuple(result))
            elif on_undecodable is not None:
                on_undecodable(result)
            done += checkpoint[key].nbytes
            if progress is not None:
                progress(done, total)
    return {key: found[key] for key in keys if key in found}


def _recorded(values: Sequence[Any]) -> Stats:
    """Statistics as another process has left them."""
    by_name = dict(zip(Stats.__slots__, values, strict=True))
    return Stats(**{**by_name, "histogram": tuple(by_name["histogram"])})


def _by_pattern(tensor: Tensor, reader: Reader, repeat: int) -> Stats:
    """All statistics from how often each bit pattern occurs."""
    dtype = DTYPES[tensor.dtype]
    code = np.dtype(np.uint8 if dtype.bits <= 8 else np.uint16)
    counts = np.zeros(1 << (8 * code.itemsize), np.int64)
    left = tensor.elements
    for block in reader.blocks(tensor, packed_nbytes(tensor.dtype, (_ELEMENTS_AT_ONCE,))):
        codes: Array = np.frombuffer(block, code)
        if dtype.bits < 8:
            codes = unpack_bits(codes, dtype.bits, min(left, len(codes) * 8 // dtype.bits))
            left -= len(codes)
        counts += np.bincount(codes, minlength=len(counts))
    values = np.arange(len(counts), dtype=code).view(numpy_dtype(tensor.dtype))
    numbers = values.astype(np.float32).astype(np.float64) if dtype.kind == "float" else values.astype(np.float64)
    present = (counts > 0) & np.isfinite(numbers)
    x, n = numbers[present], counts[present]
    total = int(n.sum())
    mean = math.fsum(x * n) / total if total else None
    std = math.sqrt(math.fsum((x - mean) ** 2 * n) / total) if mean is not None else None
    largest = float(np.abs(x).max(initial=0))
    bins = np.zeros(BINS, np.int64)
    np.add.at(bins, _bin(x, largest), n)
    special = _Special(*(int(counts[which].sum()) for which in (np.isnan(numbers), np.isinf(numbers), numbers == 0)))
    return _made(tensor, (mean, std), x, special, bins, repeat)


def _by_value(tensor: Tensor, reader: Reader, repeat: int) -> Stats:
    """Two passes over the values."""
    nan = inf = zeros = total = 0
    mean, squares = np.longdouble(0), np.longdouble(0)
    extremes: list[Any] = []
    for values in _values(tensor, reader):
        finite = _finite(values)
        nan += int(np.count_nonzero(np.isnan(values)))
        inf += len(values) - len(finite) - int(np.count_nonzero(np.isnan(values)))
        zeros += len(values) - int(np.count_nonzero(values))
        if not len(finite):
            continue
        low, high = finite.min(), finite.max()
        extremes = [min([low, *extremes]), max([high, *extremes])]
        wide = (
            np.longdouble if max(abs(float(low)), abs(float(high))) > 1e150 or values.dtype.kind in "iu" else np.float64
        )
        numbers: Array = finite.astype(wide)
        block_mean = np.longdouble(numbers.mean())
        numbers = np.subtract(numbers, wide(block_mean))
        # Chan's rule joins the moments of two sets without losing digits to a large mean
        shift, joined = block_mean - mean, total + len(numbers)
        squares += np.dot(numbers, numbers) + shift * shift * (np.longdouble(total) * len(numbers) / joined)
        mean += shift * (np.longdouble(len(numbers)) / joined)
        total = joined
    largest = max((abs(float(x)) for x in extremes), default=0.0)
    bins = np.zeros(BINS, np.int64)
    for values in _values(tensor, reader) if total else ():
        bins += np.bincount(_bin(_finite(values).astype(np.float64), largest), minlength=BINS)
    std = float(np.sqrt(squares / total)) if total else None
    moments = (float(mean) if total else None, std)
    return _made(tensor, moments, np.array(extremes), _Special(nan, inf, zeros), bins, repeat)


def _values(tensor: Tensor, reader: Reader) -> Iterator[Array]:
    """Blocks of the tensor as numbers; complex ones as their parts."""
    dtype = DTYPES[tensor.dtype]
    part = np.dtype(f"<f{dtype.bits // 16}") if dtype.kind == "complex" else numpy_dtype(tensor.dtype)
    for block in reader.blocks(tensor, packed_nbytes(tensor.dtype, (_ELEMENTS_AT_ONCE,))):
        yield np.frombuffer(block, part)


def _finite(values: Array) -> Array:
    if values.dtype.kind in "iu":
        return values
    finite = np.isfinite(values)
    return values if finite.all() else values[finite]


def _bin(x: Array, largest: float) -> Array:
    """The bin of each number; x is scaled before it is shifted, so that nothing overflows."""
    if not largest:
        return np.full(len(x), BINS // 2)
    at: Array = np.floor(x / largest * (BINS / 2) + BINS / 2).astype(np.int64)
    return np.minimum(at, BINS - 1)


class _Special(NamedTuple):
    nan: int
    inf: int
    zeros: int


def _made(
    tensor: Tensor,
    moments: tuple[float | None, float | None],
    extremes: Array,
    special: _Special,
    bins: Array,
    repeat: int,
) -> Stats:
    integer = DTYPES[tensor.dtype].kind in ("int", "uint", "bool")
    kind = int if integer else float
    return Stats(
        *moments,
        kind(extremes.min()) if len(extremes) else None,
        kind(extremes.max()) if len(extremes) else None,
        special.nan * repeat,
        special.inf * repeat,
        special.zeros * repeat,
        tensor.elements * repeat,
        tuple(int(count) * repeat for count in bins),
        integer,
    )
