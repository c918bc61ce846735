"""GGUF's IQ types: codes that are indices of grids of 4 or 8 magnitudes, with signs apart. Arithmetic as in ggml."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from ckptool.encodings.gguf_parts import codes_of, half_at, signs_of, table_of, words_at

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_SHIFT = 0.125


@cache
def _grid(name: str) -> Array:
    """A grid of the data file: float32 ``[entries, 4 or 8]``."""
    import numpy as np

    for line in files("ckptool.encodings").joinpath("gguf_grids.txt").read_text(encoding="ascii").splitlines():
        title, *rest = line.split(" ", 3)
        if title == name:
            width, magnitudes, digits = rest
            table = np.array([int(magnitude) for magnitude in magnitudes.split(",")], np.float32)
            return table[np.frombuffer(digits.encode(), np.uint8) - ord("0")].reshape(-1, int(width))
    raise KeyError(name)


@cache
def _grid_items(name: str) -> Array:
    """A grid whose entries are one item each, which are taken faster than rows."""
    grid = _grid(name)
    return grid.view(f"V{grid.shape[1] * 4}").reshape(-1)


def _on_grid(name: str, index: Array) -> Array:
    """The entries of a grid: indices of any shape to float32 of one more axis."""
    import numpy as np

    items = _grid_items(name)
    found = np.take(items, index, mode="clip").view(np.float32)
    return found.reshape(*index.shape, items.itemsize // 4)


@cache
def _sign_bytes() -> Array:
    """The byte of signs for each 7-bit index: the eighth sign makes their number even."""
    import numpy as np

    index = np.arange(128, dtype=np.uint8)
    odd = np.unpackbits(index[:, None], axis=1).sum(axis=1, dtype=np.uint8) & 1
    signs: Array = index | (odd << 7)
    return signs


def _nibble_scales(octets: Array) -> Array:
    """Two 4-bit scales of each byte, the low one first: float32 ``[n, bytes * 2]``."""
    import numpy as np

    pairs = (octets[:, :, None] >> np.array([0, 4], np.uint8)) & 15
    return pairs.astype(np.float32).reshape(len(octets), -1)


def _product(scales: Array, grid: Array, signs: Array) -> Array:
    """Scales ``[n, s]`` times magnitudes and signs ``[n, groups, width]``; the magnitudes are overwritten."""
    values = grid.reshape(*scales.shape, -1)
    values *= scales[:, :, None]
    flat = values.reshape(len(scales), -1)
    flat *= signs.reshape(flat.shape)
    return flat


def iq2_xxs(blocks: Array) -> Array:
    """Eight groups of four indices of a byte and a word of signs and scale."""
    import numpy as np

    pairs = words_at(blocks[:, 2:], "u4").reshape(len(blocks), 8, 2)
    index = blocks[:, 2:].reshape(len(blocks), 8, 8)[:, :, :4]
    scales = half_at(blocks, 0) * (np.float32(0.5) + (pairs[:, :, 1] >> 28).astype(np.float32)) * np.float32(0.25)
    return _product(scales, _on_grid("iq2_xxs", index), _word_signs(pairs[:, :, 1]))


def _word_signs(words: Array) -> Array:
    """Signs of four 7-bit indices in each word: float32 ``[n, words, 4, 8]``."""
    import numpy as np

    index = (words[:, :, None] >> np.array([0, 7, 14, 21], np.uint32)) & np.uint32(127)
    return signs_of(_sign_bytes()[index])


def iq2_xs(blocks: Array) -> Array:
    """Indices of 9 bits with 7 bits of signs."""
    import numpy as np

    words = words_at(blocks[:, 2:66], "u2")
    scales = half_at(blocks, 0) * (np.float32(0.5) + _nibble_scales(blocks[:, 66:])) * np.float32(0.25)
    return _product(scales, _on_grid("iq2_xs", words & 511), signs_of(_sign_bytes()[words >> 9]))


def iq2_s(blocks: Array) -> Array:
    """Indices of 10 bits, the highest two apart, and signs in bytes."""
    import numpy as np

    high = ((blocks[:, 66:74, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3).reshape(len(blocks), 32)
    index = blocks[:, 2:34].astype(np.uint16) | (high.astype(np.uint16) << 8)
    scales = half_at(blocks, 0) * (np.float32(0.5) + _nibble_scales(blocks[:, 74:])) * np.float32(0.25)
    return _product(scales, _on_grid("iq2_s", index), signs_of(blocks[:, 34:66]))


def iq3_xxs(blocks: Array) -> Array:
    """Indices of a byte for four magnitudes, and words of signs and scale."""
    import numpy as np

    words = words_at(blocks[:, 66:], "u4")
    scales = half_at(blocks, 0) * (np.float32(0.5) + (words >> 28).astype(np.float32)) * np.float32(0.5)
    return _product(scales, _on_grid("iq3_xxs", blocks[:, 2:66]), _word_signs(words))


def iq3_s(blocks: Array) -> Array:
    """Indices of 9 bits, the highest apart, and signs in bytes."""
    import numpy as np

    high = ((blocks[:, 66:74, None] >> np.arange(8, dtype=np.uint8)) & 1).reshape(len(blocks), 64)
    index = blocks[:, 2:66].astype(np.uint16) | (high.astype(np.uint16) << 8)
    scales = half_at(blocks, 0) * (np.float32(1) + np.float32(2) * _nibble_scales(blocks[:, 106:]))
    return _product(scales, _on_grid("iq3_s", index), signs_of(blocks[:, 74:106]))


def iq1_s(blocks: Array) -> Array:
    """Indices of 11 bits of ternary values that are all shifted by one eighth, up or down."""
    import numpy as np

    words = words_at(blocks[:, 34:], "u2")
    scales = half_at(blocks, 0) * (2 * ((words >> 12) & 7) + 1).astype(np.float32)
    high = ((words[:, :, None] >> np.array([0, 3, 6, 9], np.uint16)) & 7).reshape(len(blocks), 32)
    shift = np.where(words & 0x8000, np.float32(-_SHIFT), np.float32(_SHIFT))
    values = _on_grid("iq1_s", blocks[:, 2:34] | (high << 8)).reshape(len(blocks), 8, 32)
    values += shift[:, :, None]
    values *= scales[:, :, None]
    return values.reshape(len(blocks), 256)


def iq1_m(blocks: Array) -> Array:
    """As IQ1_S, with a shift for each 8 and a scale for each 16; the half is the high nibbles of four words."""
    import numpy as np

    count, words = len(blocks), words_at(blocks[:, 48:], "u2")
    parts = (words & 0xF000) >> np.array([12, 8, 4, 0], np.uint16)
    half = np.bitwise_or.reduce(parts, axis=1, keepdims=True).astype(np.uint16).view(np.float16).astype(np.float32)
    steps = ((words[:, :, None] >> np.array([0, 3, 6, 9], np.uint16)) & 7).reshape(count, 16)
    scales = half * (2 * steps + 1).astype(np.float32)
    bits = (blocks[:, 32:48, None] >> np.array([0, 4], np.uint8)).reshape(count, 32)
    index = blocks[:, :32].astype(np.uint16) | ((bits & 7).astype(np.uint16) << 8)
    shift = np.where(bits & 8, np.float32(-_SHIFT), np.float32(_SHIFT))
    values = _on_grid("iq1_s", index)
    values += shift[:, :, None]
    values = values.reshape(count, 16, 16)
    values *= scales[:, :, None]
    return values.reshape(count, 256)


def _table() -> Array:
    import numpy as np

    return np.array(_VALUES, np.float32)


def iq4_nl(blocks: Array) -> Array:
    """Nibbles that index a table."""

    values = table_of(codes_of(blocks[:, 2:]), _table())
    values *= half_at(blocks, 0)
    return values


def iq4_xs(blocks: Array) -> Array:
    """As IQ4_NL, eight groups with a scale of 6 bits each."""
    import numpy as np

    count = len(blocks)
    low = _nibble_scales(blocks[:, 4:8])
    high = (words_at(blocks[:, 2:4], "u2") >> np.arange(0, 16, 2, dtype=np.uint16)) & 3
    scales = half_at(blocks, 0) * (low + high.astype(np.float32) * np.float32(16) - np.float32(32))
    values = table_of(codes_of(blocks[:, 8:], 16), _table()).reshape(count, 8, 32)
    values *= scales[:, :, None]
    return values.reshape(count, 256)
