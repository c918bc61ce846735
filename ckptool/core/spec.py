"""What a header knows of one tensor: key, dtype, shape; and the short notation ``f32[64,3,7,7]``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from ckptool.core.dtypes import DTYPES, DType, Kind, dtype_named

__all__ = ["DTYPES", "DType", "Form", "Kind", "TensorSpec", "dtype_named", "packed_nbytes", "short_spec"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Key, dtype and shape of one tensor.

    Example:
        >>> spec = TensorSpec("conv1.weight", "float32", (64, 3, 7, 7))
        >>> spec.short, spec.elements, spec.nbytes
        ('f32[64,3,7,7]', 9408, 37632)
    """

    key: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a 0-dim tensor."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, tightly packed."""
        return packed_nbytes(self.dtype, self.shape)

    @property
    def short(self) -> str:
        """``f32[64,3,7,7]``: dtype and shape in the notation of every table."""
        return short_spec(self.dtype, self.shape)


class Form(NamedTuple):  # not a dataclass: it is hashed and compared once for every key
    """What alike tensors have in common; one object stands for very many of them.

    Attributes:
        nbytes: as `Tensor.nbytes`.
        cls: as `Tensor.cls`.

    Example:
        >>> Form("float32", (2, 3), 24).label, Form("float32", (9,), 0, "meta").label
        ('f32[2,3]', 'f32[9] meta')
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    layout: str = "strided"
    cls: str = ""

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def cast(self, dtype: str) -> Form:
        """That of a plain tensor of this shape and another dtype."""
        return Form(dtype, self.shape, packed_nbytes(dtype, self.shape))

    @property
    def label(self) -> str:
        """``f32[64,3]``, and the class or layout where that is special."""
        special = self.cls or (self.layout if self.layout != "strided" else "")
        return f"{short_spec(self.dtype, self.shape)} {special}".rstrip()


def packed_nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a dense tensor without gaps: whole blocks of its dtype.

    Example:
        >>> packed_nbytes("float4_e2m1fn", (3,))
        2
    """
    return DTYPES[dtype].nbytes(math.prod(shape))


def short_spec(dtype: str, shape: tuple[int, ...]) -> str:
    """The short notation of a dtype and a shape.

    Example:
        >>> short_spec("int64", ())
        'i64[]'
    """
    return f"{DTYPES[dtype].short}[{','.join(map(str, shape))}]"
