"""Small ops: casts, and tensors made from nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.core.arrays import dtype_of, numpy_dtype
from ckptool.core.casting import cast
from ckptool.core.dtypes import DTYPES, dtype_named
from ckptool.core.errors import PlanError, UsageError
from ckptool.core.plan import Run
from ckptool.core.spec import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Cast:
    """To another dtype, as `ckptool.core.casting.cast` does it.

    A cast to a float dtype leaves everything that is no float as it is: counters and indices stay integers.

    Example:
        >>> Cast("bfloat16").result([TensorSpec("w", "float32", (2, 3))]).short
        'bf16[2,3]'
        >>> Cast("bfloat16").result([TensorSpec("num_batches_tracked", "int64", ())]).short
        'i64[]'
    """

    dtype: str

    is_elementwise = True

    @property
    def text(self) -> str:
        return DTYPES[self.dtype].short

    def changes(self, dtype: str) -> bool:
        """True if tensors of this dtype come out different."""
        both_float = DTYPES[dtype].kind == DTYPES[self.dtype].kind == "float"
        return dtype != self.dtype and (both_float or DTYPES[self.dtype].kind != "float")

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        (arg,) = args
        if not self.changes(arg.dtype):
            return arg
        old = DTYPES[arg.dtype]
        if not old.is_castable:
            raise PlanError(f"{arg.dtype} cannot be cast to {self.dtype}", key=arg.key)
        if old.kind == "complex" and DTYPES[self.dtype].kind != "complex":
            raise PlanError(f"{arg.dtype} cannot be cast to {self.dtype}: it has imaginary parts", key=arg.key)
        return TensorSpec(arg.key, self.dtype, arg.shape)

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None if self.changes(args[0].dtype) else [Run(0, 0, args[0].nbytes)]

    def compute(self, args: Sequence[Array]) -> Array:
        (arg,) = args
        return cast(arg, self.dtype) if self.changes(dtype_of(arg)) else arg


def parse_cast(name: str) -> Cast | None:
    """The cast to a dtype by any of its names; None if no dtype has it, or several, or torch does not cast to it.

    Example:
        >>> parse_cast("fp16"), parse_cast("fp8"), parse_cast("int4")
        (Cast(dtype='float16'), None, None)
    """
    dtype = dtype_named(name)
    return Cast(dtype.name) if dtype is not None and dtype.is_castable else None


@dataclass(frozen=True, slots=True)
class Fill:
    """A tensor with the same number everywhere, made from nothing."""

    value: float
    dtype: str
    shape: tuple[int, ...]

    is_elementwise = False

    @property
    def text(self) -> str:
        return {0.0: "zeros", 1.0: "ones"}.get(self.value, f"{self.value:g}")

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        return TensorSpec("", self.dtype, self.shape)

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None

    def compute(self, args: Sequence[Array]) -> Array:
        import numpy as np

        return np.full(self.shape, self.value, numpy_dtype(self.dtype))


@dataclass(frozen=True, slots=True)
class Normal:
    """Normally distributed numbers around 0, the same on every run for the same seed."""

    std: float
    dtype: str
    shape: tuple[int, ...]
    seed: int

    is_elementwise = False

    @property
    def text(self) -> str:
        return f"normal({self.std:g})"

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        return TensorSpec("", self.dtype, self.shape)

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None

    def compute(self, args: Sequence[Array]) -> Array:
        import numpy as np

        drawn = np.random.Generator(np.random.PCG64(self.seed)).standard_normal(self.shape, dtype=np.float32)
        return cast(np.asarray(drawn * np.float32(self.std)), self.dtype)


def made(text: str, spec: TensorSpec, seed: int = 0) -> Fill | Normal | None:
    """The op of an ``init`` value (``zeros``, ``ones``, ``normal(0.001)``) for a tensor that is to be made.

    Args:
        text: the value.
        spec: of the tensor. Random numbers depend on its key, so that no two tensors get the same.
        seed: of random numbers.

    Returns:
        None for ``keep`` and ``copy:key``, which make nothing.

    Raises:
        UsageError: the value is none of these.

    Example:
        >>> made("normal(0.001)", TensorSpec("classifier.weight", "float32", (751, 2048))).text
        'normal(0.001)'
    """
    if text == "keep" or text.startswith("copy:"):
        return None
    if text in ("zeros", "ones"):
        return Fill(float(text == "ones"), spec.dtype, spec.shape)
    match = re.fullmatch(r"normal\(\s*([0-9.eE+-]+)\s*\)", text)
    try:
        std = float(match[1]) if match else -1.0
    except ValueError:
        std = -1.0
    if std < 0:
        raise UsageError(f'unknown init "{text}"', hint="use keep, zeros, ones, normal(STD) or copy:KEY")
    named = f"{spec.key}\0{seed}" if seed else spec.key
    number = int.from_bytes(sha256(named.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return Normal(std, spec.dtype, spec.shape, number)
