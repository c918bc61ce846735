"""Arithmetic that schemes share: small floats and integers to float32, and scales over blocks."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from ckptool.core.arrays import dtype_of, numpy_dtype

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


@cache
def byte_values(dtype: str) -> Array:
    """The float32 of each of the 256 bytes of an 8-bit dtype.

    Example:
        >>> byte_values("float8_e4m3fn")[[0x38, 0x7E]].tolist(), float(byte_values("float8_e8m0fnu")[0]) == 2.0**-127
        ([1.0, 448.0], True)
    """
    import numpy as np

    if dtype == "float8_e8m0fnu":
        bits = np.arange(256, dtype=np.uint32) << 23
        bits[0], bits[255] = 1 << 22, 0x7FC00000
        return bits.view(np.float32)
    return np.arange(256, dtype=np.uint8).view(numpy_dtype(dtype)).astype(np.float32)


@cache
def _byte_pairs(dtype: str) -> Array:
    """Two float32 as one uint64 for each two bytes."""
    import numpy as np

    values, pair = byte_values(dtype), np.arange(1 << 16)
    return np.stack([values[pair & 255], values[pair >> 8]], axis=-1).view(np.uint64).reshape(-1)


def float8_values(codes: Array, dtype: str) -> Array:
    """float32 of 8-bit codes, of the same shape.

    Args:
        codes: contiguous or not, any 1-byte dtype.
        dtype: what the bytes mean.
    """
    import numpy as np

    flat = np.ascontiguousarray(codes).view(np.uint8).reshape(-1)
    out = np.empty(flat.size, np.float32)
    even = flat.size & ~1
    if even < 1 << 12:
        np.take(byte_values(dtype), flat, out=out, mode="clip")
    else:
        # flat may begin at an odd address, which numpy reads all the same
        np.take(_byte_pairs(dtype), flat[:even].view(np.uint16), out=out[:even].view(np.uint64), mode="clip")
        out[even:] = byte_values(dtype)[flat[even:]]
    return out.reshape(codes.shape)


@cache
def _unpacked_bytes(table: bytes, bits: int, high_first: bool) -> Array:
    """For each byte, the float32 of its 8 / bits codes as one item."""
    import numpy as np

    values, byte, per = np.frombuffer(table, np.float32), np.arange(256), 8 // bits
    places = range(per - 1, -1, -1) if high_first else range(per)
    columns = [values[(byte >> (bits * place)) & ((1 << bits) - 1)] for place in places]
    return np.stack(columns, axis=-1).view(f"V{4 * per}").reshape(-1)


def table_values(packed: Array, table: Array, bits: int = 4, high_first: bool = False) -> Array:
    """float32 of packed codes that index a table: ``[rows, bytes]`` to ``[rows, bytes * 8 / bits]``.

    Args:
        packed: uint8 ``[rows, bytes]``.
        table: float32, ``2**bits`` of them.
        bits: 1, 2, 4 or 8.
        high_first: the first code is in the highest bits.

    Example:
        >>> import numpy as np
        >>> table_values(np.array([[0x21]], np.uint8), np.array(E2M1, np.float32)).tolist()
        [[0.5, 1.0]]
    """
    import numpy as np

    items = _unpacked_bytes(np.ascontiguousarray(table, np.float32).tobytes(), bits, high_first)
    items = items.view(np.uint64) if bits == 4 else items
    rows, width = packed.shape
    return np.take(items, packed, mode="clip").view(np.float32).reshape(rows, width * 8 // bits)


@cache
def e2m1_table() -> Array:
    """The 16 values of fp4."""
    import numpy as np

    return np.array(E2M1, np.float32)


@cache
def integer_table(bits: int) -> Array:
    """0 to 2**bits - 1 as float32."""
    import numpy as np

    return np.arange(1 << bits, dtype=np.float32)


def stream_values(words: Array, bits: int, count: int) -> Array:
    """float32 of unsigned integers that follow one another in little-endian 32-bit words, lowest bits first.

    Args:
        words: 4-byte integers ``[rows, words]``.
        bits: 1 to 8.
        count: how many integers a row has; ``ceil(count * bits / 32)`` words are used.

    Example:
        >>> import numpy as np
        >>> stream_values(np.array([[0o76543210]], np.uint32), 3, 8).tolist()
        [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]]
    """
    import numpy as np

    octets = np.ascontiguousarray(words).view(np.uint8)
    rows = len(octets)
    if bits in (1, 2, 4, 8):
        return table_values(octets, integer_table(bits), bits)[:, :count]
    # eight integers are `bits` bytes
    groups = -(-count // 8)
    used = np.zeros((rows, groups * bits), np.uint8)
    used[:, : octets.shape[1]] = octets[:, : groups * bits]
    parts = used.reshape(rows, groups, bits)
    out = np.empty((rows, groups, 8), np.float32)
    for place in range(8):
        first, shift = divmod(place * bits, 8)
        value = parts[:, :, first] >> shift
        if shift + bits > 8:
            value = value | (parts[:, :, first + 1] << (8 - shift))  # uint8: higher bits fall off
        out[:, :, place] = value & ((1 << bits) - 1)
    return out.reshape(rows, groups * 8)[:, :count]


def spaced_values(words: Array, bits: int, count: int) -> Array:
    """As `stream_values`, for 32 // bits integers in each word, whose highest bits may be empty."""
    import numpy as np

    per = 32 // bits
    unsigned = np.ascontiguousarray(words).view(np.uint32)
    out = np.empty((*unsigned.shape, per), np.float32)
    for place in range(per):
        out[..., place] = (unsigned >> np.uint32(bits * place)) & np.uint32((1 << bits) - 1)
    return out.reshape(len(words), -1)[:, :count]


def bytes_of(array: Array) -> Array:
    """The bytes of an array, contiguous, along its last axis."""
    import numpy as np

    octets: Array = np.ascontiguousarray(array).view(np.uint8)
    return octets


def float_scales(scales: Array) -> Array:
    """Scales of any dtype as float32; uint8 are exponents."""
    import numpy as np

    if dtype_of(scales) in ("uint8", "float8_e8m0fnu"):
        return byte_values("float8_e8m0fnu")[bytes_of(scales)]
    return scales.astype(np.float32)


def over_blocks(function: Any, values: Array, scales: Array, width: int) -> Array:
    """Applies a ufunc to values and the scale of their block of columns, in place; gives the values.

    Args:
        function: ``np.multiply``, ``np.subtract``, ...
        values: float32 ``[rows, columns]``.
        scales: float32 ``[rows or 1, ceil(columns / width)]``.
        width: columns of one block; the last block may be cut off.
    """
    import numpy as np

    rows, columns = values.shape
    if len(scales) == 1 < rows and width > 1:  # a long row is applied faster than many short blocks
        function(values, np.repeat(scales, width, axis=1)[:, :columns], out=values)
        return values
    whole = columns // width
    if whole:
        blocks = values[:, : whole * width].reshape(rows, whole, width)
        function(blocks, scales[:, :whole, None], out=blocks)
    if whole * width < columns:
        rest = values[:, whole * width :]
        function(rest, scales[:, whole : whole + 1], out=rest)
    return values


def untile(scales: Array, rows: int, columns: int) -> Array:
    """Scales ``[rows, columns]`` from cuBLAS's tiles of 128 rows and 4 columns.

    Args:
        scales: as many as the padded tiles hold, of any shape.
        rows: rows without padding.
        columns: columns without padding.
    """
    down, across = -(-rows // 128), -(-columns // 4)
    tiles = scales.reshape(down, across, 32, 4, 4).transpose(0, 3, 2, 1, 4)
    return tiles.reshape(down * 128, across * 4)[:rows, :columns]
