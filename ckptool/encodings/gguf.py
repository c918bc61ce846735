"""GGUF's block types: bytes of a block to float32, and which types are not decoded.

Layouts and arithmetic are ggml's (see `gguf_iq` for the types with grids). A block has its scale, often a half, inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import CkptError
from ckptool.encodings import gguf_iq
from ckptool.encodings.gguf_parts import bits_of, codes_of, half_at, pairs_of, table_of, values_of
from ckptool.encodings.kernels import byte_values

if TYPE_CHECKING:
    from ckptool.core.arrays import Array


@dataclass(frozen=True, slots=True)
class BlockType:
    """A block type.

    Attributes:
        name: ggml's name in lower case.
        elements: elements of one block.
        nbytes: bytes of one block.
        decode: blocks uint8 ``[n, nbytes]`` to float32 ``[n, elements]``.
        halves: where two-byte numbers are in a block; None if the type is not decoded from big-endian files.
    """

    name: str
    elements: int
    nbytes: int
    decode: Callable[[Array], Array]
    halves: tuple[int, ...] | None = None


def decode_type(block_type: BlockType, raw: Array, big_endian: bool = False) -> Array:
    """float32 of whole blocks.

    Args:
        block_type: what the bytes are.
        raw: uint8 of any shape whose last axis is whole blocks.
        big_endian: the file is big-endian, so that halves inside blocks are swapped.

    Raises:
        CkptError: the type is not decoded from big-endian files.

    Example:
        >>> import numpy as np
        >>> q8 = np.zeros((1, 34), np.uint8)
        >>> q8[0, 1], q8[0, 2] = 0x3C, 0xFF  # 1.0, -1
        >>> decode_type(BLOCK_TYPES["q8_0"], q8)[0, :2].tolist()
        [-1.0, 0.0]
    """
    import numpy as np

    blocks = np.ascontiguousarray(raw).reshape(-1, block_type.nbytes)
    if big_endian:
        if block_type.halves is None:
            raise CkptError(f"{block_type.name} in a big-endian file is not decoded")
        blocks = blocks.copy()
        for offset in block_type.halves:
            blocks[:, [offset, offset + 1]] = blocks[:, [offset + 1, offset]]
    with np.errstate(all="ignore"):
        values = block_type.decode(blocks)
    return values.reshape(*raw.shape[:-1], raw.shape[-1] // block_type.nbytes * block_type.elements)


def _scaled(values: Array, scales: Array, added: Array | None = None) -> Array:
    """Values ``[n, elements]`` times scales ``[n, groups]``, plus other numbers of the groups, in place."""
    count, groups = scales.shape
    grouped = values.reshape(count, groups, -1)
    grouped *= scales[:, :, None]
    if added is not None:
        grouped += added[:, :, None]
    return grouped.reshape(count, -1)


def _q4_0(blocks: Array) -> Array:
    return _scaled(values_of(codes_of(blocks[:, 2:]), 8), half_at(blocks, 0))


def _q4_1(blocks: Array) -> Array:
    return _scaled(values_of(codes_of(blocks[:, 4:])), half_at(blocks, 0), half_at(blocks, 2))


def _fifth_bits(blocks: Array, low: int, high: int) -> Array:
    """5-bit codes: nibbles from `high`, the fifth bits as 32 bits from `low`."""
    codes, bits = codes_of(blocks[:, high:]), bits_of(blocks[:, low:high])
    bits <<= 4
    codes |= bits
    return codes


def _q5_0(blocks: Array) -> Array:
    return _scaled(values_of(_fifth_bits(blocks, 2, 6), 16), half_at(blocks, 0))


def _q5_1(blocks: Array) -> Array:
    return _scaled(values_of(_fifth_bits(blocks, 4, 8)), half_at(blocks, 0), half_at(blocks, 2))


def _q8_0(blocks: Array) -> Array:
    import numpy as np

    return _scaled(blocks[:, 2:].view(np.int8).astype(np.float32), half_at(blocks, 0))


def _q2_k(blocks: Array) -> Array:
    import numpy as np

    scales = blocks[:, :16]
    d = half_at(blocks, 80) * (scales & 15).astype(np.float32)
    least = half_at(blocks, 82) * (scales >> 4).astype(np.float32)
    return _scaled(values_of(pairs_of(blocks[:, 16:80])), d, -least)


def _q3_k(blocks: Array) -> Array:
    import numpy as np

    count, packed = len(blocks), blocks[:, 96:108]
    low = (packed[:, None, :8] >> np.array([0, 4], np.uint8)[:, None]).reshape(count, 16) & 15
    high = (packed[:, None, 8:] >> np.array([0, 2, 4, 6], np.uint8)[:, None]).reshape(count, 16) & 3
    scales = half_at(blocks, 108) * ((low | (high << 4)).astype(np.float32) - np.float32(32))
    codes = pairs_of(blocks[:, 32:96])
    codes |= _bit_planes(blocks[:, :32], 2)
    return _scaled(values_of(codes, 4), scales)


def _bit_planes(octets: Array, place: int) -> Array:
    """The lowest bits of all bytes, then the next ones, ...: each as a byte with the bit at a place."""
    import numpy as np

    planes = octets[:, None, :] >> np.arange(8, dtype=np.uint8)[:, None]
    planes &= 1
    planes <<= place
    return planes.reshape(len(octets), -1)


def _k_scales(blocks: Array) -> tuple[Array, Array]:
    """Q4_K's and Q5_K's eight scales and minima, times their halves: float32 ``[n, 8]`` each."""
    import numpy as np

    first, second, mixed = (blocks[:, start : start + 4] for start in (4, 8, 12))
    scales = np.concatenate([first & 63, (mixed & 15) | ((first >> 2) & 48)], axis=1).astype(np.float32)
    least = np.concatenate([second & 63, (mixed >> 4) | ((second >> 2) & 48)], axis=1).astype(np.float32)
    return half_at(blocks, 0) * scales, half_at(blocks, 2) * least


def _q4_k(blocks: Array) -> Array:
    scales, least = _k_scales(blocks)
    return _scaled(values_of(codes_of(blocks[:, 16:], 32)), scales, -least)


def _q5_k(blocks: Array) -> Array:
    scales, least = _k_scales(blocks)
    codes = codes_of(blocks[:, 48:], 32)
    codes |= _bit_planes(blocks[:, 16:48], 4)
    return _scaled(values_of(codes), scales, -least)


def _q6_k(blocks: Array) -> Array:
    import numpy as np

    scales = half_at(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    codes, high = codes_of(blocks[:, :128], 64), pairs_of(blocks[:, 128:192])
    high <<= 4
    codes |= high
    return _scaled(values_of(codes, 32), scales)


def _tq1_0(blocks: Array) -> Array:
    import numpy as np

    count, powers = len(blocks), np.array([1, 3, 9, 27, 81], np.uint8)[:, None]
    parts = [
        (blocks[:, None, :32] * powers).reshape(count, -1),
        (blocks[:, None, 32:48] * powers).reshape(count, -1),
        (blocks[:, None, 48:52] * powers[:4]).reshape(count, -1),
    ]
    trits = (np.concatenate(parts, axis=1).astype(np.uint16) * 3) >> 8
    return _scaled(values_of(trits.astype(np.uint8), 1), half_at(blocks, 52))


def _tq2_0(blocks: Array) -> Array:
    return _scaled(values_of(pairs_of(blocks[:, :64]), 1), half_at(blocks, 64))


@cache
def _doubled_codes() -> Array:
    """ggml's table of fp4: twice the values, as integers, so that code 8 is +0."""
    import numpy as np

    return np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)


def _mxfp4(blocks: Array) -> Array:
    import numpy as np

    # half of 2**(e - 127); unlike elsewhere 255 is not NaN
    exponents = blocks[:, :1].astype(np.uint32)
    scales = np.where(exponents < 2, np.uint32(1 << 21) << exponents, (exponents - np.uint32(1)) << 23).astype(
        np.uint32
    )
    return _scaled(table_of(codes_of(blocks[:, 1:]), _doubled_codes()), scales.view(np.float32))


@cache
def _unsigned_e4m3() -> Array:
    """Half of each E4M3 byte without its sign; 0x7F is 0, and 0xFF is what the formula gives."""
    import numpy as np

    values: Array = byte_values("float8_e4m3fn")[np.arange(256) & 127] * np.float32(0.5)
    values[0x7F], values[0xFF] = 0, 240
    return values


def _nvfp4(blocks: Array) -> Array:
    return _scaled(table_of(codes_of(blocks[:, 4:], 8), _doubled_codes()), _unsigned_e4m3()[blocks[:, :4]])


def _q1_0(blocks: Array) -> Array:
    signs = bits_of(blocks[:, 2:])
    signs <<= 1
    return _scaled(values_of(signs, 1), half_at(blocks, 0))


def _q2_0(blocks: Array) -> Array:
    import numpy as np

    codes = (blocks[:, 2:, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
    return _scaled(values_of(codes.reshape(len(blocks), -1), 1), half_at(blocks, 0))


_DECODERS: dict[str, tuple[Callable[[Array], Array], tuple[int, ...] | None]] = {
    "q4_0": (_q4_0, (0,)),
    "q4_1": (_q4_1, None),
    "q5_0": (_q5_0, None),
    "q5_1": (_q5_1, None),
    "q8_0": (_q8_0, (0,)),
    "q2_k": (_q2_k, None),
    "q3_k": (_q3_k, None),
    "q4_k": (_q4_k, (0, 2)),
    "q5_k": (_q5_k, None),
    "q6_k": (_q6_k, (208,)),
    "iq2_xxs": (gguf_iq.iq2_xxs, None),
    "iq2_xs": (gguf_iq.iq2_xs, None),
    "iq3_xxs": (gguf_iq.iq3_xxs, None),
    "iq1_s": (gguf_iq.iq1_s, None),
    "iq4_nl": (gguf_iq.iq4_nl, None),
    "iq3_s": (gguf_iq.iq3_s, None),
    "iq2_s": (gguf_iq.iq2_s, None),
    "iq4_xs": (gguf_iq.iq4_xs, None),
    "iq1_m": (gguf_iq.iq1_m, None),
    "tq1_0": (_tq1_0, None),
    "tq2_0": (_tq2_0, None),
    "mxfp4": (_mxfp4, ()),
    "nvfp4": (_nvfp4, ()),
    "q1_0": (_q1_0, None),
    "q2_0": (_q2_0, None),
}

BLOCK_TYPES = {
    stem: BlockType(stem, DTYPES[f"gguf_{stem}"].block_elements, DTYPES[f"gguf_{stem}"].block_nbytes, *how)
    for stem, how in _DECODERS.items()
}
"""The block types by ggml's name in lower case; sizes stand in the table of dtypes."""
