"""The table of dtypes: sizes of their blocks, and every name by which containers, libraries and people call them.

Names are torch's long ones (``float32``, ``bfloat16``, ``float8_e4m3fn``). The 4- and 6-bit floats that safetensors
stores and torch cannot name have ml_dtypes' names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["float", "int", "uint", "bool", "complex", "quantized", "bits"]


@dataclass(frozen=True, slots=True)
class DType:
    """A dtype: what its bits mean, how many bytes they take, what it is called.

    Elements are stored in blocks: of one element for most dtypes, of several where an element does not fill bytes. A
    tensor takes whole blocks.

    Attributes:
        name: torch's long name, ``float32``.
        short: the notation of tables, ``f32``.
        kind: what the bits mean.
        block_nbytes: bytes of one block.
        block_elements: elements of one block.
        numpy: numpy's code of the array that holds the elements, or ml_dtypes' name; empty if arrays cannot hold them.
        safetensors: the name in a safetensors header; empty if the format has none.
        storage: the class of torch's storages, without ``Storage``; empty if torch stores untyped bytes.
        alias: torch's second name, ``half``.
        is_castable: torch converts numbers from it and to it.
    """

    name: str
    short: str
    kind: Kind
    block_nbytes: int
    block_elements: int = 1
    numpy: str = ""
    safetensors: str = ""
    storage: str = ""
    alias: str = ""
    is_castable: bool = False

    @property
    def is_packed(self) -> bool:
        """True if several elements share a block, so that one element alone has no address."""
        return self.block_elements > 1

    @property
    def bits(self) -> int:
        """Bits of one element, rounded down. Sizes follow from the blocks: see `nbytes`."""
        return 8 * self.block_nbytes // self.block_elements

    def nbytes(self, elements: int) -> int:
        """Bytes of so many elements: whole blocks.

        Example:
            >>> DTYPES["float6_e2m3fn"].nbytes(5), DTYPES["float32"].nbytes(5)
            (6, 20)
        """
        return -(-elements // self.block_elements) * self.block_nbytes


_GGUF_BLOCKS = {
    "q4_0": (2, 32, 18),
    "q4_1": (3, 32, 20),
    "q5_0": (6, 32, 22),
    "q5_1": (7, 32, 24),
    "q8_0": (8, 32, 34),
    "q2_k": (10, 256, 84),
    "q3_k": (11, 256, 110),
    "q4_k": (12, 256, 144),
    "q5_k": (13, 256, 176),
    "q6_k": (14, 256, 210),
    "iq2_xxs": (16, 256, 66),
    "iq2_xs": (17, 256, 74),
    "iq3_xxs": (18, 256, 98),
    "iq1_s": (19, 256, 50),
    "iq4_nl": (20, 32, 18),
    "iq3_s": (21, 256, 110),
    "iq2_s": (22, 256, 82),
    "iq4_xs": (23, 256, 136),
    "iq1_m": (29, 256, 56),
    "tq1_0": (34, 256, 54),
    "tq2_0": (35, 256, 66),
    "mxfp4": (39, 32, 17),
    "nvfp4": (40, 64, 36),
    "q1_0": (41, 128, 18),
    "q2_0": (42, 64, 18),
}  # ggml's number of the type, elements and bytes of a block


def _table() -> Iterator[DType]:
    yield DType("float64", "f64", "float", 8, 1, "<f8", "F64", "Double", "double", is_castable=True)
    yield DType("float32", "f32", "float", 4, 1, "<f4", "F32", "Float", "float", is_castable=True)
    yield DType("float16", "f16", "float", 2, 1, "<f2", "F16", "Half", "half", is_castable=True)
    yield DType("bfloat16", "bf16", "float", 2, 1, "bfloat16", "BF16", "BFloat16", is_castable=True)
    for code in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu"):
        name, stored = f"float8_{code}", {"e4m3fn": "F8_E4M3", "e8m0fnu": "F8_E8M0"}.get(code, f"F8_{code.upper()}")
        yield DType(name, f"f8_{code}", "float", 1, 1, name, stored, is_castable=True)
    yield DType("float6_e2m3fn", "f6_e2m3fn", "float", 3, 4, "float6_e2m3fn", "F6_E2M3")
    yield DType("float6_e3m2fn", "f6_e3m2fn", "float", 3, 4, "float6_e3m2fn", "F6_E3M2")
    yield DType("float4_e2m1fn", "f4_e2m1fn", "float", 1, 2, "float4_e2m1fn", "F4")
    # torch packs two 4-bit numbers into one byte and calls the byte the element; see formats.safetensors_header
    yield DType("float4_e2m1fn_x2", "f4x2_e2m1fn", "bits", 1, 1, "u1", "F4")
    yield DType("complex32", "c32", "complex", 4, 1, "<f2, <f2", "", "ComplexHalf", "chalf", is_castable=True)
    yield DType("complex64", "c64", "complex", 8, 1, "<c8", "C64", "ComplexFloat", "cfloat", is_castable=True)
    yield DType("complex128", "c128", "complex", 16, 1, "<c16", "", "ComplexDouble", "cdouble", is_castable=True)
    yield DType("bool", "bool", "bool", 1, 1, "?", "BOOL", "Bool", is_castable=True)
    for nbytes, stem, alias in ((1, "Char", ""), (2, "Short", "short"), (4, "Int", "int"), (8, "Long", "long")):
        bits, unsigned = 8 * nbytes, "Byte" if nbytes == 1 else ""
        int_code, uint_code = f"<i{nbytes}", f"<u{nbytes}"
        yield DType(f"int{bits}", f"i{bits}", "int", nbytes, 1, int_code, f"I{bits}", stem, alias, is_castable=True)
        yield DType(f"uint{bits}", f"u{bits}", "uint", nbytes, 1, uint_code, f"U{bits}", unsigned, is_castable=True)
    for bits in range(1, 8):  # torch stores each in a byte of its own, and has no arithmetic for them
        yield DType(f"int{bits}", f"i{bits}", "int", 1, 1, "i1")
        yield DType(f"uint{bits}", f"u{bits}", "uint", 1, 1, "u1")
    yield DType("qint8", "qi8", "quantized", 1, 1, "i1", "", "QInt8")
    yield DType("quint8", "qu8", "quantized", 1, 1, "u1", "", "QUInt8")
    yield DType("qint32", "qi32", "quantized", 4, 1, "<i4", "", "QInt32")
    yield DType("quint4x2", "qu4x2", "quantized", 1, 2, "u1", "", "QUInt4x2")  # torch's storages count its bytes
    yield DType("quint2x4", "qu2x4", "quantized", 1, 4, "u1", "", "QUInt2x4")
    for stem, (_, elements, nbytes) in _GGUF_BLOCKS.items():  # a block has its scale inside
        yield DType(f"gguf_{stem}", stem, "bits", nbytes, elements)
    for name in ("bits8", "bits16", "bits1x8", "bits2x4", "bits4x2"):
        nbytes = 2 if name == "bits16" else 1
        yield DType(name, name, "bits", nbytes, 1, f"<u{nbytes}")


DTYPES: dict[str, DType] = {dtype.name: dtype for dtype in _table()}
"""Every dtype by its long name."""


GGUF_DTYPES: dict[int, str] = {
    0: "float32",
    1: "float16",
    28: "float64",
    30: "bfloat16",
    24: "int8",
    25: "int16",
    26: "int32",
    27: "int64",
    **{number: f"gguf_{stem}" for stem, (number, _, _) in _GGUF_BLOCKS.items()},
}
"""The dtypes of GGUF files by ggml's numbers."""


def dtypes_meant(text: str) -> tuple[DType, ...]:
    """The dtypes that a name can mean: any container's name, torch's second name, or the start or the end of a name.

    Case does not matter; ``fp16`` and ``float16`` are ``f16``.

    Example:
        >>> [dtype.name for dtype in dtypes_meant("fp16")], [dtype.name for dtype in dtypes_meant("F8_E4M3")]
        (['float16'], ['float8_e4m3fn'])
        >>> len(dtypes_meant("fp8")), dtypes_meant("f33")
        (5, ())
    """
    name = _plain(text)
    if name in _BY_NAME:
        return _BY_NAME[name]
    parts = [dtype for known, dtypes in _BY_NAME.items() if _is_part(name, known) for dtype in dtypes]
    return tuple(dict.fromkeys(parts))


def dtype_named(text: str) -> DType | None:
    """The one dtype that a name means; None if there is none, or if there are several.

    Example:
        >>> dtype_named("bf16").name, dtype_named("half").name, dtype_named("fp8")
        ('bfloat16', 'float16', None)
    """
    meant = dtypes_meant(text)
    return meant[0] if len(meant) == 1 else None


def _plain(text: str) -> str:
    return re.sub(r"^(?:fp|float)(?=[0-9])", "f", text.strip().lower().removeprefix("torch."))


def _is_part(name: str, known: str) -> bool:
    return bool(name) and (known.startswith(f"{name}_") or known.endswith(f"_{name}"))


def _by_name() -> Mapping[str, tuple[DType, ...]]:
    found: dict[str, tuple[DType, ...]] = {}
    for dtype in DTYPES.values():
        names = (dtype.name, dtype.short, dtype.safetensors, dtype.storage, dtype.alias)
        for name in dict.fromkeys(_plain(name) for name in names if name):
            found[name] = (*found.get(name, ()), dtype)
    return found


_BY_NAME = _by_name()
