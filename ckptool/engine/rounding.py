"""What a cast did to the numbers of a tensor, taken while its blocks are still warm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.core.arrays import dtype_of
from ckptool.core.casting import OVERFLOWS_TO_NAN, ROUNDED_E4M3FN, cast, precision
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.dtypes import DTYPES
from ckptool.core.ops import Cast
from ckptool.core.plan import Apply, Value
from ckptool.core.values import spec_of

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(slots=True)
class Rounding:
    """How far a cast to a narrower float dtype moved the numbers seen so far.

    It is taken in float32 (in float64 where float64 is cast), so `worst` is itself right to about 1e-7.

    Attributes:
        worst: the largest ``|after / before - 1|`` over the finite, nonzero numbers; inf if one became infinite or NaN.
        overflows: numbers too large for the dtype: they became infinite, NaN, or its largest number.
        zeroed: numbers other than 0 that became 0.

    Example:
        >>> import numpy as np
        >>> rounding = Rounding()
        >>> before = np.array([1.0, 0.0, np.inf, 2049.0, 1e-9], np.float32)
        >>> rounding.see(before[:4], before[:4].astype(np.float16))
        >>> round(rounding.worst, 6)
        0.000488
        >>> rounding.see(np.array([1e6, 1e-9], np.float32), np.array([np.inf, 0], np.float16))
        >>> rounding
        Rounding(worst=inf, overflows=1, zeroed=1)
    """

    worst: float = 0.0
    overflows: int = 0
    zeroed: int = 0

    def see(self, before: Array, after: Array) -> None:
        """Take in a block before and after the cast."""
        import numpy as np

        dtype = dtype_of(after)
        if DTYPES[dtype].kind == "complex":
            before, after = _parts(before), _parts(after)
            dtype = dtype_of(after)
        wide = "float64" if before.dtype == np.float64 else "float32"
        with np.errstate(all="ignore"):
            old, new = cast(before, wide), cast(after, wide)
            ratio = np.divide(new, old)
            np.subtract(ratio, old.dtype.type(1), out=ratio)
            np.abs(ratio, out=ratio)
            # 0 / 0 and inf / inf are NaN, which fmax passes over
            worst = float(np.fmax.reduce(ratio, axis=None, initial=0))
            if worst > precision(dtype) or dtype in OVERFLOWS_TO_NAN:  # else every number was rounded as it should be
                worst = max(worst, self._count(old, new, dtype))
        self.worst = max(self.worst, worst)

    def _count(self, old: Array, new: Array, dtype: str) -> float:
        """Count what did not fit; inf if a finite number became infinite or NaN."""
        import numpy as np

        lost = (np.isfinite(old) & ~np.isfinite(new)) | (np.isinf(old) & np.isnan(new))
        overflows = np.abs(old) > ROUNDED_E4M3FN if dtype == "float8_e4m3fn" else lost
        self.overflows += int(np.count_nonzero(overflows))
        self.zeroed += int(np.count_nonzero((new == 0) & (old != 0)))
        return float("inf") if lost.any() else 0.0


def _parts(array: Array) -> Array:
    """Complex numbers as twice as many floats."""
    width = array.dtype.itemsize // 2
    return array.reshape(-1).view(f"<f{width}")


def rounds(value: Value, inputs: Sequence[Checkpoint]) -> bool:
    """True if a value ends in a cast that can change numbers."""
    if not isinstance(value, Apply) or not isinstance(value.op, Cast):
        return False
    old, new = DTYPES[spec_of(value.args[0], inputs).dtype], DTYPES[value.op.dtype]
    if old.kind == new.kind == "complex":
        return new.bits < old.bits
    is_exact = new.name == "float64" or (new.name == "float32" and old.bits <= 16)
    return old.kind == new.kind == "float" and old != new and not is_exact
