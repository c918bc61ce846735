"""Tensors as numpy arrays: the numpy dtype of each dtype, and packed elements of less than a byte."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.core.dtypes import DTYPES

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

    code = DTYPES[name].numpy
    if not code:
        raise ValueError(f"no array holds {name}")
    if name == "complex32":
        return np.dtype({"names": ["real", "imag"], "formats": code.split(", ")})
    if code[:1] in "<?iu":
        return np.dtype(code)
    import ml_dtypes

    found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, code))
    return found


def dtype_of(array: Array) -> str:
    """The long name of the dtype of an array's elements; integers for those of quantized and bit types.

    Example:
        >>> import numpy as np
        >>> dtype_of(np.zeros(3, np.float16)), dtype_of(np.zeros(3, numpy_dtype("complex32")))
        ('float16', 'complex32')
    """
    return _name_of(array.dtype)


@cache
def _name_of(dtype: np.dtype[Any]) -> str:
    return "complex32" if dtype.names else dtype.name


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
