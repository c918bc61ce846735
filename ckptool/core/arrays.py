"""Tensors as numpy arrays: the numpy dtype of each dtype, and packed elements of less than a byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.core.spec import DTYPES

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of a torch dtype: numpy's own, ml_dtypes' for bfloat16 and the small floats.

    complex32 is a structure of two float16, ``real`` and ``imag``. Quantized and bit types give the integers stored;
    the integers of less than 8 bits stand in one byte each, as torch has them.

    Example:
        >>> numpy_dtype("bfloat16").name, numpy_dtype("float32").str, numpy_dtype("complex32").names
        ('bfloat16', '<f4', ('real', 'imag'))
    """
    import numpy as np

    dtype = DTYPES[name]
    found: np.dtype[Any]
    if name == "complex32":
        found = np.dtype([("real", "<f2"), ("imag", "<f2")])
        return found
    if name == "bfloat16" or (dtype.kind == "float" and dtype.bits <= 8):
        import ml_dtypes

        found = np.dtype(getattr(ml_dtypes, name))
        return found
    if dtype.kind == "quantized":
        return np.dtype({"qint8": "i1", "qint32": "<i4"}.get(name, "u1"))
    code = {"float": "f", "int": "i", "uint": "u", "bool": "b", "complex": "c", "bits": "u"}[dtype.kind]
    found = np.dtype(f"{code}{dtype.bits // 8}").newbyteorder("<")
    return found


def unpack_bits(packed: Array, bits: int, elements: int) -> Array:
    """One byte for each 4- or 6-bit element; the first element is in the lowest bits.

    Example:
        >>> import numpy as np
        >>> unpack_bits(np.array([0x21, 0x03], np.uint8), 4, 3).tolist()
        [1, 2, 3]
    """
    import numpy as np

    flat = np.unpackbits(packed, bitorder="little")[: bits * elements].reshape(elements, bits)
    return np.packbits(flat, axis=1, bitorder="little").reshape(elements)
