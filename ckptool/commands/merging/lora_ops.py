"""What LoRA adapters add to a base model's weights, as ops of a plan. In float64, rounded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.core.arrays import dtype_of, numpy_dtype
from ckptool.core.casting import cast
from ckptool.core.errors import PlanError
from ckptool.core.plan import Run
from ckptool.core.spec import DTYPES, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

_BLOCK = 1 << 20  # elements of a weight that are computed at once


def check_float(spec: TensorSpec) -> None:
    if DTYPES[spec.dtype].kind != "float" or DTYPES[spec.dtype].is_packed:
        raise PlanError(
            f"{spec.key} is {spec.short}: nothing can be added to it", hint="dequantize the base first", key=spec.key
        )


@dataclass(frozen=True, slots=True)
class AddBias:
    """bias + scaling * lora_B's bias. In float64, rounded once."""

    scaling: float
    dtype: str | None = None

    is_elementwise = True

    @property
    def text(self) -> str:
        return f"b + {self.scaling:g} b of B"

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        bias, other = args
        check_float(bias)
        if bias.shape != other.shape:
            raise PlanError(f"{bias.key} is {bias.short}; the adapter's {other.short} does not fit it", key=bias.key)
        return TensorSpec(bias.key, self.dtype or bias.dtype, bias.shape)

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None

    def compute(self, args: Sequence[Array]) -> Array:
        import numpy as np

        bias, other = (cast(arg, "float64") for arg in args)
        with np.errstate(all="ignore"):
            return cast(bias + self.scaling * other, self.dtype or dtype_of(args[0]))


@dataclass(frozen=True, slots=True)
class AddLora:
    """W + scaling * B @ A; the arguments are W, A, B, the magnitudes for DoRA, and the middle factor for Tucker.

    Attributes:
        scaling: the factor, alpha / r or as the configuration says.
        transposed: W is [in, out], or an embedding.
        dora: the sum's weights of each output are scaled to its magnitude.
        dtype: of the result; None for W's.
        tucker: there is a factor [r, r, *kernel] between B [out, r] and A [r, in] (LyCORIS, `rebuild_tucker`).
    """

    scaling: float
    transposed: bool = False
    dora: bool = False
    dtype: str | None = None
    tucker: bool = False

    is_elementwise = False

    @property
    def text(self) -> str:
        return f"W + {self.scaling:g} B @ A" + (", scaled to DoRA's magnitudes" if self.dora else "")

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        """The base's spec, if the factors fit it."""
        weight, a, b, *magnitudes = args
        check_float(weight)
        if self.tucker:
            a = self._widened(a, magnitudes.pop())
        out, inner = (weight.shape[0], prod(weight.shape[1:])) if weight.shape else (0, 0)
        if self.transposed:
            out, inner = inner, out
        pointwise = prod(b.shape[2:]) == 1
        conv = len(weight.shape) == len(a.shape) == len(b.shape)
        fits = min(len(a.shape), len(b.shape)) >= 2 and (b.shape[0], prod(a.shape[1:])) == (out, inner)
        if not fits or not pointwise or not conv or b.shape[1] != a.shape[0]:
            raise PlanError(
                f"{weight.key} is {weight.short}; the adapter's {a.short} and {b.short} do not fit it", key=weight.key
            )
        if magnitudes and prod(magnitudes[0].shape) != out:
            raise PlanError(
                f"{weight.key} is {weight.short}; the adapter's magnitudes {magnitudes[0].short} do not fit it",
                key=weight.key,
            )
        return TensorSpec(weight.key, self.dtype or weight.dtype, weight.shape)

    def _widened(self, a: TensorSpec, middle: TensorSpec) -> TensorSpec:
        """A [r, in] with the kernel of the middle factor."""
        if len(middle.shape) < 3 or len(a.shape) < 2 or prod(a.shape[2:]) != 1 or middle.shape[1] != a.shape[0]:
            raise PlanError(f"{middle.key} is {middle.short}; {a.key} {a.short} does not fit it", key=middle.key)
        return TensorSpec(a.key, a.dtype, (middle.shape[0], a.shape[1], *middle.shape[2:]))

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None

    def compute(self, args: Sequence[Array]) -> Array:
        import numpy as np

        weight = args[0].reshape(args[0].shape[0], -1)
        a, b = (cast(arg, "float64").reshape(arg.shape[0], -1) for arg in args[1:3])
        if self.tucker:
            a = np.einsum("mn...,ni->mi...", cast(args[-1], "float64"), a).reshape(args[-1].shape[0], -1)
        left, right = (a.T, b.T) if self.transposed else (b, a)
        left = left * self.scaling
        dtype = self.dtype or dtype_of(weight)
        merged = np.empty(weight.shape, numpy_dtype(dtype))
        rows = max(1, _BLOCK // max(1, weight.shape[1]))
        blocks = [slice(start, start + rows) for start in range(0, len(weight), rows)]
        with np.errstate(all="ignore"):
            factors = self._factors(args, weight, left, right, blocks)
            for block in blocks:
                total = cast(weight[block], "float64") + left[block] @ right
                if factors is not None:
                    total *= factors if self.transposed else factors[block, None]
                merged[block] = cast(total, dtype)
        return merged.reshape(args[0].shape)

    def _factors(
        self, args: Sequence[Array], weight: Array, left: Array, right: Array, blocks: Sequence[slice]
    ) -> Array | None:
        """For DoRA: what the weights of each output are multiplied with."""
        import numpy as np

        if not self.dora:
            return None
        squares = np.zeros(weight.shape[1 if self.transposed else 0])
        for block in blocks:
            total = np.square(cast(weight[block], "float64") + left[block] @ right)
            if self.transposed:
                squares += total.sum(axis=0)
            else:
                squares[block] = total.sum(axis=1)
        magnitudes: Array = cast(args[3], "float64").reshape(-1)
        return magnitudes / np.sqrt(squares)
