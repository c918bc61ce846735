"""Numbers of two tensors, block by block: how far apart they are.

What is compared are values after exact widening: bfloat16, float16, all smaller floats and integers up to 16 bits to
float32, the rest to float64 (complex numbers as pairs of them); int64 and uint64 are subtracted exactly. Sums of
squares are taken over rows of 1024 and added in float64, which keeps them within 1e-6; a block in which a float32
square would overflow or vanish, or that holds NaN or Inf, is computed again in the next wider type.

Bytes are the truth for "same". So 0.0 against -0.0, or two NaNs of other payloads, count as differing elements although
no number says so: such a change has `rel` 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ckptool.core.arrays import numpy_dtype, unpack_bits
from ckptool.core.spec import DTYPES
from ckptool.values.delta import Delta

Array = NDArray[Any]
_T = TypeVar("_T")
Block = memoryview | bytes | bytearray

BLOCK_ELEMENTS = 1 << 16
_ROW = 1024
_FLOAT32 = np.dtype(np.float32)
_SAFE = {4: (1e-24, 1e35), 8: (1e-250, 1e300)}  # sums of squares in which nothing overflowed and nothing vanished


@dataclass(slots=True)
class Sums:
    """What is known of two tensors after some of their blocks; a = old, b = new, d = b - a, over finite elements."""

    aa: float = 0.0
    bb: float = 0.0
    ab: float = 0.0
    ad: float = 0.0
    dd: float = 0.0
    max_abs: float = 0.0
    differing: int = 0
    old_nonfinite: int = 0
    new_nonfinite: int = 0
    unmatched: int = 0  # elements where one is NaN or Inf and the other is not the same
    ulp: int | None = None
    old_range: tuple[int, int] | None = None
    new_range: tuple[int, int] | None = None

    def add(self, other: Sums) -> None:
        """Takes in the sums of further blocks."""
        for name in ("aa", "bb", "ab", "ad", "dd", "differing", "old_nonfinite", "new_nonfinite", "unmatched"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.max_abs = max(self.max_abs, other.max_abs)
        self.ulp = _either(max, self.ulp, other.ulp)
        self.old_range = _either(_hull, self.old_range, other.old_range)
        self.new_range = _either(_hull, self.new_range, other.new_range)

    def delta(self, repeat: int = 1) -> Delta:
        """The numbers to report. `repeat`: how often each element stands in the tensor (views that repeat an axis)."""
        aa, bb, ab, ad, dd = (np.longdouble(x) for x in (self.aa, self.bb, self.ab, self.ad, self.dd))
        rel = float(np.sqrt(dd / aa)) if aa else (float("inf") if dd else 0.0)
        cosine = None
        if aa and bb:
            if dd <= aa / 4:  # 1 - cos would drown in rounding: it comes from the part of d at right angles to a
                sine2 = (dd / bb) - (ad / aa) * (ad / bb)
                cosine = float(np.sqrt(1 - min(np.longdouble(1), max(np.longdouble(0), sine2))))
            else:
                cosine = float(min(np.longdouble(1), max(np.longdouble(-1), ab / np.sqrt(aa) / np.sqrt(bb))))
        return Delta(
            rel=rel,
            max_abs=self.max_abs,
            cosine=cosine,
            differing=self.differing * repeat,
            nonfinite=(self.old_nonfinite * repeat, self.new_nonfinite * repeat),
            ulp=self.ulp,
            old_range=self.old_range,
            new_range=self.new_range,
        )


class Kernel:
    """Adds up the numbers of pairs of blocks. Holds scratch memory: one per thread.

    Args:
        old: dtype of the old blocks, by name.
        new: dtype of the new ones.
        ulp: also find the largest distance in units in the last place of the old dtype.

    Example:
        >>> kernel = Kernel("float32", "float32")
        >>> kernel.add(np.float32([3, 4]).tobytes(), np.float32([3, 5]).tobytes())
        >>> kernel.sums.delta().rel, kernel.sums.delta().max_abs, kernel.sums.differing
        (0.2, 1.0, 1)
    """

    def __init__(self, old: str, new: str, *, ulp: bool = False) -> None:
        self.sums = Sums()
        self._old, self._new = old, new
        kinds = {DTYPES[old].kind, DTYPES[new].kind}
        self._complex = "complex" in kinds
        self._ulp = ulp and (not self._complex or len(kinds) == 1)
        self._exact = old == new and old in ("int64", "uint64")
        work = np.float32 if _is_narrow(old) and _is_narrow(new) else np.float64
        self._widen_old = _widener(old, np.dtype(work), self._complex)
        self._widen_new = _widener(new, np.dtype(work), self._complex)
        self._d = np.empty(0, work)

    def add(self, old: Block, new: Block) -> None:
        """Takes in two blocks that hold equally many elements, packed and little-endian."""
        with np.errstate(all="ignore"):
            if self._exact:
                self._add_exact(np.frombuffer(old, numpy_dtype(self._old)), np.frombuffer(new, numpy_dtype(self._old)))
                return
            a, b = self._widen_old(old), self._widen_new(new)
            if len(self._d) < len(a):
                self._d = np.empty(len(a), a.dtype)
            d = np.subtract(b, a, out=self._d[: len(a)])
            differing = _count_bits(old, new, self._old) if self._old == self._new else self._count_values(a, b)
            if not self._add_fast(a, b, d, differing):
                self._add_careful(a, b)
            self.sums.differing += differing
            self._add_ranges(old, new)
            if self._ulp:
                self.sums.ulp = max(self.sums.ulp or 0, self._distance(old, new, a, b, d))

    def _add_fast(self, a: Array, b: Array, d: Array, differing: int) -> bool:
        """The common case, in the working type; False if it would not be accurate."""
        low, high = _SAFE[a.dtype.itemsize]
        aa, bb = _dot(a, a), _dot(b, b)
        if not ((low < aa < high or (aa == 0 and not a.any())) and (low < bb < high or (bb == 0 and not b.any()))):
            return False
        s = self.sums
        if not differing:
            s.aa, s.bb, s.ab = s.aa + aa, s.bb + bb, s.ab + aa
            return True
        dd = _dot(d, d)
        if not (low < dd < high or (dd == 0 and not d.any())):
            return False
        if dd <= aa / 4:
            ad = _dot(a, d)
            ab = aa + ad
        else:
            ab = _dot(a, b)
            ad = ab - aa
        s.aa, s.bb, s.ab, s.ad, s.dd = s.aa + aa, s.bb + bb, s.ab + ab, s.ad + ad, s.dd + dd
        s.max_abs = max(s.max_abs, _max_abs(d, self._complex))
        return True

    def _add_careful(self, a: Array, b: Array) -> None:
        """Any values whatever: NaN and Inf apart, the rest in a type with more room for exponents."""
        a_finite, b_finite = self._by_element(np.isfinite(a)), self._by_element(np.isfinite(b))
        both = a_finite & b_finite
        s = self.sums
        s.old_nonfinite += int(np.count_nonzero(~a_finite))
        s.new_nonfinite += int(np.count_nonzero(~b_finite))
        s.unmatched += int(np.count_nonzero(~both & ~self._by_element((a == b) | (np.isnan(a) & np.isnan(b)))))
        wide = np.float64 if a.dtype == np.float32 else np.longdouble
        keep = np.repeat(both, 2) if self._complex else both
        x = np.where(keep, a, a.dtype.type(0)).astype(wide)
        y = np.where(keep, b, b.dtype.type(0)).astype(wide)
        d: Array = np.subtract(y, x)
        s.aa, s.bb = s.aa + np.dot(x, x), s.bb + np.dot(y, y)
        s.ab, s.ad, s.dd = s.ab + np.dot(x, y), s.ad + np.dot(x, d), s.dd + np.dot(d, d)
        if len(d):
            s.max_abs = max(s.max_abs, _max_abs(d, self._complex))

    def _add_exact(self, a: Array, b: Array) -> None:
        """int64 and uint64: differences up to 2^64, which no float holds."""
        s = self.sums
        distance = _distance64(a, b)
        self._add_ranges(a, b)
        small = max(map(abs, (*(s.old_range or (0,)), *(s.new_range or (0,))))) < 1 << 52
        wide = np.float64 if small else np.longdouble
        x, y, d = a.astype(wide), b.astype(wide), distance.astype(wide) * np.where(b < a, -1, 1)
        s.aa, s.bb, s.ab = s.aa + np.dot(x, x), s.bb + np.dot(y, y), s.ab + np.dot(x, y)
        s.ad, s.dd = s.ad + np.dot(x, d), s.dd + np.dot(d, d)
        s.differing += int(np.count_nonzero(distance))
        largest = int(distance.max(initial=0))
        s.max_abs = max(s.max_abs, float(largest))
        if self._ulp:
            s.ulp = max(s.ulp or 0, largest)

    def _add_ranges(self, old: Block | Array, new: Block | Array) -> None:
        for name, dtype, block in (("old_range", self._old, old), ("new_range", self._new, new)):
            if DTYPES[dtype].kind in ("int", "uint") and len(block):
                numbers = np.frombuffer(block, numpy_dtype(dtype))
                found = int(numbers.min()), int(numbers.max())
                setattr(self.sums, name, _either(_hull, getattr(self.sums, name), found))

    def _count_values(self, a: Array, b: Array) -> int:
        """Elements that differ in value, for two dtypes: NaN equals NaN."""
        return int(np.count_nonzero(~self._by_element((a == b) | (np.isnan(a) & np.isnan(b)))))

    def _by_element(self, mask: Array) -> Array:
        """True for an element of which all parts are true."""
        return mask[0::2] & mask[1::2] if self._complex else mask

    def _distance(self, old: Block, new: Block, a: Array, b: Array, d: Array) -> int:
        """The largest number of representable values from one to the other, over finite elements."""
        finite = np.isfinite(a) & np.isfinite(b)
        kind, bits = DTYPES[self._old].kind, DTYPES[self._old].bits
        if kind not in ("float", "complex"):
            return int(np.abs(d[finite]).max(initial=0))
        if bits < 8:
            x, y = (unpack_bits(np.frombuffer(block, np.uint8), bits, len(a)) for block in (old, new))
        else:
            bits = bits // 2 if kind == "complex" else bits
            x = np.frombuffer(old, f"<u{bits // 8}")
            y = np.frombuffer(new, f"<u{bits // 8}") if self._old == self._new else _rounded(b, self._old)
        sign = 1 << (bits - 1)
        xs, ys = (x & x.dtype.type(sign)) != 0, (y & y.dtype.type(sign)) != 0
        xm, ym = (x & x.dtype.type(sign - 1)).astype(np.uint64), (y & y.dtype.type(sign - 1)).astype(np.uint64)
        distance = np.where(xs == ys, np.where(xm > ym, xm - ym, ym - xm), xm + ym)
        return int(distance[finite[: len(distance)]].max(initial=0))


def _rounded(values: Array, dtype: str) -> Array:
    """The bits of the values in a float dtype (of each part, for a complex one)."""
    bits = DTYPES[dtype].bits // (2 if DTYPES[dtype].kind == "complex" else 1)
    part = numpy_dtype(f"float{bits}" if DTYPES[dtype].kind == "complex" else dtype)
    rounded: Array = values.astype(part).view(f"<u{part.itemsize}")
    return rounded


def _is_narrow(name: str) -> bool:
    """True if float32 holds every value of the dtype (of its parts, for a complex one)."""
    dtype = DTYPES[name]
    return dtype.bits <= {"float": 32, "complex": 64}.get(dtype.kind, 16)


def _widener(name: str, work: np.dtype[Any], as_complex: bool) -> Callable[[Block], Array]:
    """A function from a block of a dtype to its values in the working type; its result lives until its next call."""
    dtype = DTYPES[name]
    scratch = np.empty(0, work)

    def room(n: int) -> Array:
        nonlocal scratch
        if len(scratch) < n:
            scratch = np.empty(n, work)
        return scratch[:n]

    def cast(block: Block) -> Array:
        part = np.dtype(f"<f{dtype.bits // 16}") if dtype.kind == "complex" else numpy_dtype(name)
        values = np.frombuffer(block, part)
        if values.dtype == work:
            return values
        out = room(len(values))
        np.copyto(out, values, casting="unsafe")
        return out

    def shift(block: Block) -> Array:
        values = np.frombuffer(block, "<u2")
        out = room(len(values)).view(np.uint32)
        np.copyto(out, values)
        np.left_shift(out, 16, out=out)
        return out.view(np.float32)

    def look_up(block: Block) -> Array:
        codes: Array = np.frombuffer(block, np.uint8 if dtype.bits <= 8 else np.uint16)
        if dtype.bits < 8:
            codes = unpack_bits(codes, dtype.bits, len(codes) * 8 // dtype.bits)
        out = room(len(codes))
        np.take(table, codes, out=out, mode="clip")
        return out

    def with_zeros(block: Block) -> Array:
        values = plain(block)
        out = np.zeros(2 * len(values), work)
        out[0::2] = values
        return out

    plain = cast
    if name == "bfloat16" and work == np.float32:
        plain = shift
    elif dtype.kind == "float" and dtype.bits <= 16:
        table = value_table(name, work)
        plain = look_up
    return with_zeros if as_complex and dtype.kind != "complex" else plain


def value_table(name: str, work: np.dtype[Any] = _FLOAT32) -> Array:
    """The value of each bit pattern of a float dtype of at most 16 bits.

    Example:
        >>> value_table("float8_e5m2")[0x3C]
        np.float32(1.0)
    """
    bits = DTYPES[name].bits
    codes = np.arange(1 << bits, dtype=np.uint8 if bits <= 8 else np.uint16)
    with np.errstate(all="ignore"):
        values: Array = codes.view(numpy_dtype(name)).astype(np.float32).astype(work)
    return values


def _dot(x: Array, y: Array) -> float:
    """Sum of products: rows in the working type, their sums in float64."""
    rows = len(x) // _ROW * _ROW
    total = float(np.dot(x[rows:], y[rows:]))
    if rows:
        total += float(_row_dots(x[:rows].reshape(-1, _ROW), y[:rows].reshape(-1, _ROW)).sum(dtype=np.float64))
    return total


def _einsum_dots(x: Array, y: Array) -> Array:
    dots: Array = np.einsum("ij,ij->i", x, y)
    return dots


_row_dots: Callable[[Array, Array], Array] = getattr(np, "vecdot", _einsum_dots)  # numpy 2 has the faster one


def _max_abs(d: Array, parts: bool) -> float:
    if parts:
        return float(np.hypot(d[0::2], d[1::2]).max())
    return max(float(d.max()), -float(d.min()))


def _count_bits(old: Block, new: Block, name: str) -> int:
    """Elements of which any bit differs."""
    bits = DTYPES[name].bits
    if bits < 8:
        x, y = (unpack_bits(np.frombuffer(b, np.uint8), bits, len(b) * 8 // bits) for b in (old, new))
        return int(np.count_nonzero(x != y))
    if bits == 128:
        differs = np.frombuffer(old, "<u8") != np.frombuffer(new, "<u8")
        return int(np.count_nonzero(differs[0::2] | differs[1::2]))
    return int(np.count_nonzero(np.frombuffer(old, f"<u{bits // 8}") != np.frombuffer(new, f"<u{bits // 8}")))


def _distance64(a: Array, b: Array) -> Array:
    """|b - a| of two int64 or two uint64 arrays as uint64, exactly."""
    x, y = a.view(np.uint64), b.view(np.uint64)
    return np.where(b >= a, y - x, x - y)


def _hull(x: tuple[int, int], y: tuple[int, int]) -> tuple[int, int]:
    return min(x[0], y[0]), max(x[1], y[1])


def _either(join: Callable[[_T, _T], _T], x: _T | None, y: _T | None) -> _T | None:
    """`join` of those that are there."""
    if x is None or y is None:
        return y if x is None else x
    return join(x, y)
