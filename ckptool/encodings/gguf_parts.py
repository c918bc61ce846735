"""Fields of GGUF's blocks: halves, nibbles, single bits."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from ckptool.encodings.kernels import table_values

if TYPE_CHECKING:
    from ckptool.core.arrays import Array


def half_at(blocks: Array, offset: int) -> Array:
    """The half at a byte of each block, as float32 ``[n, 1]``."""
    import numpy as np

    return np.ascontiguousarray(blocks[:, offset : offset + 2]).view(np.float16).astype(np.float32)


def words_at(octets: Array, dtype: str) -> Array:
    """Bytes ``[n, bytes]`` as little-endian integers ``[n, bytes / size]``."""
    import numpy as np

    words: Array = np.ascontiguousarray(octets).view(np.dtype(dtype).newbyteorder("<"))
    return words


def codes_of(octets: Array, width: int = 0) -> Array:
    """Nibbles as bytes: in each run of `width` bytes (default: all) the low ones first, then the high ones.

    Args:
        octets: uint8 ``[n, bytes]``.
        width: a multiple of 8: nibbles are taken from eight bytes at a time.

    Example:
        >>> import numpy as np
        >>> codes_of(np.arange(0x10, 0x18, dtype=np.uint8)[None]).tolist()
        [[0, 1, 2, 3, 4, 5, 6, 7, 1, 1, 1, 1, 1, 1, 1, 1]]
    """
    import numpy as np

    count, nbytes = octets.shape
    width = width or nbytes
    wide = np.ascontiguousarray(octets).view(np.uint64).reshape(count, nbytes // width, width // 8)
    out = np.empty((count, nbytes // width, 2, width // 8), np.uint64)
    mask, four = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(4)
    for place in range(width // 8):  # long columns are faster than many short rows
        out[:, :, 0, place] = wide[:, :, place] & mask
        out[:, :, 1, place] = (wide[:, :, place] >> four) & mask
    return out.view(np.uint8).reshape(count, 2 * nbytes)


def pairs_of(octets: Array, width: int = 32) -> Array:
    """2-bit codes as bytes: in each run of `width` bytes the lowest two bits of all come first."""
    import numpy as np

    runs = octets.reshape(len(octets), -1, 1, width) >> np.array([0, 2, 4, 6], np.uint8)[:, None]
    runs &= 3
    return runs.reshape(len(octets), -1)


@cache
def _bit_bytes() -> Array:
    """For each byte its bits as eight bytes, the lowest first, in one item."""
    import numpy as np

    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    return bits.astype(np.uint8).view(np.uint64).reshape(-1)


def bits_of(octets: Array) -> Array:
    """Single bits as bytes, the lowest of each byte first."""
    import numpy as np

    return np.take(_bit_bytes(), octets, mode="clip").view(np.uint8).reshape(len(octets), -1)


def values_of(codes: Array, less: int = 0) -> Array:
    """float32 of codes of less than 7 bits, less a number; the codes are overwritten."""
    import numpy as np

    small = codes.view(np.int8)
    if less:
        small -= np.int8(less)
    return small.astype(np.float32)


@cache
def _two_values(table: bytes) -> Array:
    """For two nibbles in a byte each, as one 16-bit number, their float32 as one item."""
    import numpy as np

    values, pair = np.frombuffer(table, np.float32), np.arange(0x1000)
    return np.stack([values[pair & 15], values[pair >> 8]], axis=-1).view(np.uint64).reshape(-1)


def table_of(codes: Array, table: Array) -> Array:
    """float32 of nibbles, a byte each, that index a table of 16.

    Args:
        codes: uint8 ``[n, even]``, contiguous, all below 16.
        table: float32.
    """
    import numpy as np

    return np.take(_two_values(table.tobytes()), codes.view(np.uint16), mode="clip").view(np.float32)


def signs_of(octets: Array) -> Array:
    """-1 for each bit that is set, else 1: bytes of any shape to float32 of one more axis of 8."""
    import numpy as np

    flat = np.ascontiguousarray(octets).reshape(1, -1)
    return table_values(flat, np.array([1, -1], np.float32), 1).reshape(*octets.shape, 8)
