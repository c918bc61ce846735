"""What a header knows of one tensor: key, dtype, shape; and the short notation ``f32[64,3,7,7]``.

Dtypes carry torch's long names (``float32``, ``bfloat16``, ``float8_e4m3fn``). The two 4- and 6-bit types that
safetensors can store and torch cannot name are listed under ml_dtypes' names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["float", "int", "uint", "bool", "complex", "quantized", "bits"]


@dataclass(frozen=True, slots=True)
class DType:
    """A torch dtype by name.

    Attributes:
        name: torch's long name, ``float32``.
        short: the notation of tables, ``f32``.
        bits: bits of storage for one element.
        kind: what the bits mean.
    """

    name: str
    short: str
    bits: int
    kind: Kind


def _table() -> dict[str, DType]:
    rows: list[tuple[str, str, int, Kind]] = [
        ("float64", "f64", 64, "float"),
        ("float32", "f32", 32, "float"),
        ("float16", "f16", 16, "float"),
        ("bfloat16", "bf16", 16, "float"),
        ("float8_e4m3fn", "f8_e4m3fn", 8, "float"),
        ("float8_e4m3fnuz", "f8_e4m3fnuz", 8, "float"),
        ("float8_e5m2", "f8_e5m2", 8, "float"),
        ("float8_e5m2fnuz", "f8_e5m2fnuz", 8, "float"),
        ("float8_e8m0fnu", "f8_e8m0fnu", 8, "float"),
        ("float6_e2m3fn", "f6_e2m3fn", 6, "float"),
        ("float6_e3m2fn", "f6_e3m2fn", 6, "float"),
        ("float4_e2m1fn", "f4_e2m1fn", 4, "float"),
        # torch packs two 4-bit numbers into one byte and calls the byte the element
        ("float4_e2m1fn_x2", "f4x2_e2m1fn", 8, "bits"),
        ("complex32", "c32", 32, "complex"),
        ("complex64", "c64", 64, "complex"),
        ("complex128", "c128", 128, "complex"),
        ("bool", "bool", 8, "bool"),
        ("qint8", "qi8", 8, "quantized"),
        ("quint8", "qu8", 8, "quantized"),
        ("qint32", "qi32", 32, "quantized"),
        ("quint4x2", "qu4x2", 8, "quantized"),
        ("quint2x4", "qu2x4", 8, "quantized"),
        ("bits8", "bits8", 8, "bits"),
        ("bits16", "bits16", 16, "bits"),
        ("bits1x8", "bits1x8", 8, "bits"),
        ("bits2x4", "bits2x4", 8, "bits"),
        ("bits4x2", "bits4x2", 8, "bits"),
    ]
    for bits in (8, 16, 32, 64):
        rows.append((f"int{bits}", f"i{bits}", bits, "int"))
        rows.append((f"uint{bits}", f"u{bits}", bits, "uint"))
    for bits in range(1, 8):  # torch stores each sub-byte integer in a byte of its own
        rows.append((f"int{bits}", f"i{bits}", 8, "int"))
        rows.append((f"uint{bits}", f"u{bits}", 8, "uint"))
    return {name: DType(name, short, bits, kind) for name, short, bits, kind in rows}


DTYPES: dict[str, DType] = _table()


def dtype_named(name: str) -> DType | None:
    """The dtype of a long or a short name; None if there is none.

    Example:
        >>> dtype_named("bf16").name
        'bfloat16'
    """
    return DTYPES.get(name) or _BY_SHORT.get(name)


_BY_SHORT = {dtype.short: dtype for dtype in DTYPES.values()}


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


def packed_nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a dense tensor without gaps.

    Example:
        >>> packed_nbytes("float4_e2m1fn", (3,))
        2
    """
    return (math.prod(shape) * DTYPES[dtype].bits + 7) // 8


def short_spec(dtype: str, shape: tuple[int, ...]) -> str:
    """The short notation of a dtype and a shape.

    Example:
        >>> short_spec("int64", ())
        'i64[]'
    """
    return f"{DTYPES[dtype].short}[{','.join(map(str, shape))}]"
