"""How far a cast moved the numbers: the worst relative rounding of a tensor, taken while its blocks are still warm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.ops import Cast
from ckptool.core.plan import Apply, Value
from ckptool.core.spec import DTYPES
from ckptool.core.values import spec_of

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(slots=True)
class Rounding:
    """The largest ``|after / before - 1|`` over the finite, nonzero elements seen; inf if one became infinite.

    It is taken in float32 (in float64 where float64 is cast), so it is itself right to about 1e-7.

    Example:
        >>> import numpy as np
        >>> rounding = Rounding()
        >>> before = np.array([1.0, 0.0, np.inf, 2049.0], np.float32)
        >>> rounding.see(before, before.astype(np.float16))
        >>> round(rounding.worst, 6)
        0.000488
        >>> rounding.see(np.array([1e6], np.float32), np.array([np.inf], np.float16))
        >>> rounding.worst
        inf
    """

    worst: float = 0.0

    def see(self, before: Array, after: Array) -> None:
        """Take in a block before and after the cast."""
        import numpy as np

        wide = np.float64 if before.dtype == np.float64 else np.float32
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = np.divide(after.astype(wide), before.astype(wide, copy=False))
            np.subtract(ratio, wide(1), out=ratio)
            np.abs(ratio, out=ratio)
            # 0 / 0 and inf / inf are NaN, which fmax passes over
            worst = float(np.fmax.reduce(ratio, axis=None, initial=0))
        self.worst = max(self.worst, worst)


def rounds(value: Value, inputs: Sequence[Checkpoint]) -> bool:
    """True if a value ends in a cast that can change numbers."""
    if not isinstance(value, Apply) or not isinstance(value.op, Cast):
        return False
    old, new = DTYPES[spec_of(value.args[0], inputs).dtype], DTYPES[value.op.dtype]
    is_exact = new.name == "float64" or (new.name == "float32" and old.bits <= 16)
    return old.kind == new.kind == "float" and old != new and not is_exact
