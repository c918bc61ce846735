"""Fields of GGUF's blocks: halves, nibbles, single bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptool.encodings.kernels import integer_table, table_values

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


def nibbles_of(octets: Array, width: int = 0) -> Array:
    """float32 of nibbles: in each run of `width` bytes (default: all) the low ones first, then the high ones."""
    import numpy as np

    count, nbytes = octets.shape
    runs = octets.reshape(count, -1, width or nbytes)
    out = np.empty((count, runs.shape[1], 2, runs.shape[2]), np.float32)
    out[:, :, 0] = runs & 15
    out[:, :, 1] = runs >> 4
    return out.reshape(count, 2 * nbytes)


def bits_of(octets: Array) -> Array:
    """float32 of single bits, the lowest of each byte first."""
    import numpy as np

    return table_values(np.ascontiguousarray(octets), integer_table(1), 1)


def signs_of(octets: Array) -> Array:
    """-1 for each bit that is set, else 1: bytes of any shape to float32 of one more axis of 8."""
    import numpy as np

    flat = np.ascontiguousarray(octets).reshape(1, -1)
    return table_values(flat, np.array([1, -1], np.float32), 1).reshape(*octets.shape, 8)
