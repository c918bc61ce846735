"""Numbers of one dtype as numbers of another, bit by bit what ``tensor.to(dtype)`` gives; any NaN equals NaN.

Values round to nearest, ties to even. What is too large becomes infinite, NaN where the target has no infinity, and the
largest number in float8_e4m3fn. Two things are better than torch's: float64 is rounded once, where torch rounds to
float32 first; and floats that an integer dtype cannot hold are an error, where torch gives any number.

Every narrow float (16 bits and fewer) is looked up by its bits. float32 becomes an 8-bit float by its upper 16 bits:
the lower ones matter only in that one of them is set, which the lowest of the upper bits says (round to odd).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.core.arrays import dtype_of, numpy_dtype
from ckptool.core.counts import many
from ckptool.core.dtypes import DTYPES, DType
from ckptool.core.errors import CkptError

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

LARGEST_E4M3FN = 448.0
"""The largest number of float8_e4m3fn, which stands for everything beyond, infinity included."""

ROUNDED_E4M3FN = 464.0
"""The largest number that float8_e4m3fn rounds to its largest one: beyond it numbers overflow."""

_TIES = {"bfloat16": (0xFFFF, 0x8000)}
_ANY_TIE = (0xFFF, 0)
"""(mask, value) of a float32 that lies midway between two numbers of a narrower dtype, and of one that may."""

_SMALLEST_NORMAL = 0x38800000
"""The bits of the smallest normal float16, 2^-14, as a float32."""

_BEYOND = 0x47800000
"""The bits of 2^16 as a float32: infinite in float16."""


OVERFLOWS_TO_NAN = ("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
"""Dtypes without infinity in which what is too large becomes NaN."""


@cache
def precision(dtype: str) -> float:
    """The largest relative error of rounding a number within the range of a float dtype.

    Example:
        >>> precision("float16") == 2**-11, precision("float8_e4m3fn")
        (True, 0.0625)
    """
    import ml_dtypes

    return float(ml_dtypes.finfo(numpy_dtype(dtype)).eps) / 2  # type: ignore[no-untyped-call]


class UnfitError(CkptError):
    """Floats are NaN or out of the range of an integer dtype.

    Attributes:
        count: how many.
        dtype: the integer dtype.
    """

    code = "plan"

    def __init__(self, count: int, dtype: str, *, key: str | None = None) -> None:
        values = many(count, "value is", "values are")
        super().__init__(
            f"{values} NaN or out of the range of {dtype}{f': {key}' if key else ''}",
            hint="cast to a float dtype, or clip the values first: = clip($1, LOW, HIGH)",
            key=key,
        )
        self.count = count
        self.dtype = dtype


def cast(array: Array, dtype: str) -> Array:
    """The numbers of an array in another dtype.

    Args:
        array: of any dtype that torch converts.
        dtype: the new one's long name.

    Returns:
        An array of the same shape; `array` itself if nothing changes.

    Raises:
        UnfitError: a float is NaN or out of the range of an integer dtype.

    Example:
        >>> import numpy as np
        >>> cast(np.array([1.5, 500, 3e38], np.float32), "float8_e4m3fn").astype(np.float32).tolist()
        [1.5, 448.0, 448.0]
        >>> float(cast(np.array(1 + 2**-8 + 2**-40), "bfloat16"))  # float32 would round it to a tie, and that to 1
        1.0078125
    """
    import numpy as np

    old, new = DTYPES[dtype_of(array)], DTYPES[dtype]
    if old is new:
        return array
    with np.errstate(all="ignore"):
        return _cast(array.reshape(-1), old, new).reshape(array.shape)


def _cast(array: Array, old: DType, new: DType) -> Array:
    import numpy as np

    if old.kind == "complex" or new.kind == "complex":
        return _cast_complex(array, old, new)
    if old.kind != "float" and new.kind != "float":
        return array.astype(numpy_dtype(new.name))
    if new.kind == "bool":
        return array.astype(np.bool_)
    if new.kind != "float":
        return _truncated(array, new)
    if old.kind == "float" and old.bits <= 16:
        return _looked_up(array, old, new)
    return _rounded(array, new)


def _rounded(array: Array, new: DType) -> Array:
    """float64, float32, integers or bools as floats."""
    import numpy as np

    if new.bits >= 32:
        return array.astype(numpy_dtype(new.name))
    narrow = _rounded_to_odd(array, new) if array.dtype == np.float64 else array.astype(np.float32, copy=False)
    if new.name == "float16":
        return _as_float16(narrow)
    if new.name == "bfloat16":
        return narrow.astype(numpy_dtype(new.name))
    bits = narrow.view(np.uint32)
    upper: Array = (bits >> 16).astype(np.uint16)
    upper |= (bits & 0xFFFF) != 0
    return _taken("bfloat16", new, upper)


def _rounded_to_odd(array: Array, new: DType) -> Array:
    """float64 as float32 from which the narrower float rounds as from the float64 itself.

    A number that float32 cannot hold lies between two; of these the one with an odd last bit is taken, which is no tie
    of a narrower dtype. It is done only where the nearest number is such a tie.
    """
    import numpy as np

    nearest = array.astype(np.float32)
    is_tie = array != nearest
    if is_tie.any():
        bits = nearest.view(np.int32)
        mask, value = _TIES.get(new.name, _ANY_TIE)
        is_tie &= (bits & mask) == value
        ties = np.flatnonzero(is_tie)
        exact, rounded = array[ties], nearest[ties].astype(np.float64)
        bits[ties] += np.where(np.abs(rounded) > np.abs(exact), -1, ~np.isnan(exact)).astype(np.int32)
    return nearest


def _as_float16(array: Array) -> Array:
    """float32 as float16, by its bits: three times as fast as numpy."""
    import numpy as np

    bits = array.view(np.uint32)
    size = bits & 0x7FFFFFFF
    found = size >> 13
    found &= 1
    found += 0xC8000FFF  # the exponent's bias goes from 127 to 15, and half of the last bit that stays is added
    found += size
    found >>= 13
    small = size < _SMALLEST_NORMAL
    if small.any():  # adding 0.5 moves the last bit of a subnormal float16 to the end
        sums = size[small].view(np.float32)
        sums += np.float32(0.5)
        found[small] = sums.view(np.uint32) - 0x3F000000
    large = size >= _BEYOND
    if large.any():
        found[large] = np.where(size[large] > 0x7F800000, 0x7E00, 0x7C00)
    signs = bits >> 16
    signs &= 0x8000
    found |= signs
    return found.astype(np.uint16).view(np.float16)


def _looked_up(array: Array, old: DType, new: DType) -> Array:
    """Floats of at most 16 bits as other floats."""
    import numpy as np

    if old.name == "bfloat16" and new.bits >= 32:
        return array.astype(numpy_dtype(new.name))  # nothing but a shift
    return _taken(old.name, new, array.view(np.uint8 if old.bits == 8 else np.uint16))


def _taken(old: str, new: DType, codes: Array) -> Array:
    import numpy as np

    found: Array = np.take(_table(old, new.name), codes, mode="clip")  # every code is in the table: no check is needed
    return found.view(numpy_dtype(new.name))


@cache
def _table(old: str, new: str) -> Array:
    """For each bit pattern of a float of at most 16 bits, that of another float dtype."""
    import numpy as np

    codes = np.arange(1 << DTYPES[old].bits, dtype=np.uint8 if DTYPES[old].bits == 8 else np.uint16)
    numbers: Array = codes.view(numpy_dtype(old)).astype(np.float32)
    if new == "float8_e8m0fnu":
        return _powers_of_two(numbers)
    if new == "float8_e4m3fn":
        numbers = np.clip(numbers, -LARGEST_E4M3FN, LARGEST_E4M3FN)
    return numbers.astype(numpy_dtype(new))


def _powers_of_two(numbers: Array) -> Array:
    """float32 as float8_e8m0fnu, which holds nothing but exponents: the sign is lost, 0 becomes the smallest power."""
    import numpy as np

    bits = numbers.view(np.uint32)
    exponent, half, below = (bits >> 23) & 0xFF, (bits >> 22) & 1, (bits & 0x3FFFFF) != 0
    up = (half == 1) & ((exponent > 0) | below)
    return np.where(exponent == 0xFF, 0xFF, exponent + up).astype(np.uint8)


def _truncated(array: Array, new: DType) -> Array:
    """Floats as integers, rounded towards 0."""
    import numpy as np

    limits = np.iinfo(numpy_dtype(new.name))
    wide = array.astype(np.float64, copy=False)
    # float64 has no number between -2^63 and the first one below it that does not fit
    above = wide >= limits.min if new.name == "int64" else wide > limits.min - 1
    fits = above & (wide < float(limits.max + 1))
    if not fits.all():
        raise UnfitError(int(np.count_nonzero(~fits)), new.name)
    found: Array = wide.astype(numpy_dtype(new.name))
    return found


def _cast_complex(array: Array, old: DType, new: DType) -> Array:
    """To or from complex numbers, part by part; other dtypes get the real parts, as in torch."""
    import numpy as np

    parts = array[:, None]
    if old.kind == "complex":
        parts = array.view(f"<f{old.block_nbytes // 2}").reshape(-1, 2)
    if new.kind == "bool":
        found: Array = (parts != 0).any(1)
    elif new.kind != "complex":
        found = cast(np.ascontiguousarray(parts[:, 0]), new.name)
    else:
        joined = np.zeros((len(array), 2), f"<f{new.block_nbytes // 2}")
        joined[:, : parts.shape[1]] = cast(parts, f"float{new.bits // 2}")
        found = joined.view(numpy_dtype(new.name)).reshape(-1)
    return found
