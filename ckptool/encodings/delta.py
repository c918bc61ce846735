"""How one run of bytes becomes another: what differs, in the form that takes the least bytes.

A chunk is some thousand numbers of a tensor. Where few of them differ it holds the distances between these and what is
to be flipped in them; where many do, what is to be flipped in all, as planes of bytes (the first byte of every number,
then the second), each deflated: close floats share their high bytes. A chunk begins with its kind and the CRC-32 of
what comes out.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

CHUNK = 1 << 20
"""Numbers of a chunk."""

_SAME, _SPARSE, _PLANES, _RAW = range(4)
_WORDS = (1, 2, 4, 8)  # bytes that are compared at once
_HEAD = struct.Struct("<BI")
MOST_BESIDE = _HEAD.size
"""Most bytes of a chunk beyond those that it makes: it holds them as they are where nothing is smaller."""

_LENGTHS = struct.Struct("<II")
_PLANE = struct.Struct("<BI")
_ZERO, _PLAIN, _DEFLATED = range(3)
_CACHED = 1 << 16  # bytes that are compared at a time
_FEW = 0.25  # of the numbers: from here on distances cannot be smaller than planes


class DamagedDeltaError(ValueError):
    """A chunk is not one, or what comes out of it is not what went in."""


def encode(old: memoryview, new: memoryview, width: int) -> bytes:
    """The chunk that makes `new` of `old`, which are as long; `width` is the bytes of one number.

    Example:
        >>> old, new = bytes(8), bytes([0, 0, 1, 0, 0, 0, 0, 0])
        >>> bytes(decode(memoryview(old), encode(memoryview(old), memoryview(new), 2), 2)) == new
        True
    """
    import numpy as np

    crc = zlib.crc32(new)
    few = _few_changes(old, new, width)
    if few is not None and not len(few[0]):
        return _HEAD.pack(_SAME, crc)
    best: tuple[int, bytes] | None = None
    if few is not None:
        best = _SPARSE, _sparse(*few)
    if best is None or len(best[1]) * 8 > len(new):  # of very few numbers no planes are smaller
        flips = np.frombuffer(old, np.uint8) ^ np.frombuffer(new, np.uint8)
        planes = _planes(flips.reshape(-1, width))
        best = (_PLANES, planes) if best is None or len(planes) < len(best[1]) else best
    number, packed = best if len(best[1]) < len(new) else (_RAW, bytes(new))
    return _HEAD.pack(number, crc) + packed


def _few_changes(old: memoryview, new: memoryview, width: int) -> tuple[Array, Array] | None:
    """Which numbers differ, and the flips in each; None if they are many. In parts that stay in a processor's cache."""
    import numpy as np

    kind = f"u{width}" if width in _WORDS else "u1"
    many = _FEW * (len(new) // width)
    places, flips, count = [np.zeros(0, np.int64)], [np.zeros((0, width), np.uint8)], 0
    step = max(1, _CACHED // width)
    for first in range(0, len(new) // width, step):
        part = slice(first * width, (first + step) * width)
        words = np.frombuffer(old[part], kind) ^ np.frombuffer(new[part], kind)
        if not words.any():
            continue
        rows = words.view(np.uint8).reshape(-1, width)
        changed = words != 0 if width in _WORDS else rows.any(axis=1)  # numpy finds places in bools 5 times as fast
        found = np.flatnonzero(changed)
        count += len(found)
        if count >= many:
            return None
        places.append(found + first)
        flips.append(words[found].view(np.uint8).reshape(-1, width) if width in _WORDS else rows[found])
    return np.concatenate(places), np.concatenate(flips)


def is_same(chunk: bytes) -> bool:
    """True for a chunk that changes nothing."""
    return chunk[:1] == bytes([_SAME])


def _sparse(places: Array, flips: Array) -> bytes:
    """Distances, 255 for each whole 255 of them, then the planes of the flips."""
    import numpy as np

    gaps = np.diff(places, prepend=-1) - 1
    ends = np.cumsum(gaps // 255 + 1)
    steps = np.full(int(ends[-1]), 255, np.uint8)
    steps[ends - 1] = gaps % 255
    return _LENGTHS.pack(len(places), len(steps)) + steps.tobytes() + _planes(flips)


def _planes(flips: Array) -> bytes:
    import numpy as np

    parts = []
    for column in range(flips.shape[1]):
        plane = np.ascontiguousarray(flips[:, column])
        if not plane.any():
            parts.append(_PLANE.pack(_ZERO, 0))
            continue
        packer = zlib.compressobj(1, zlib.DEFLATED, -15, 9, _strategy(plane))
        packed = packer.compress(plane.data) + packer.flush()
        if len(packed) < 0.98 * plane.size:
            parts += [_PLANE.pack(_DEFLATED, len(packed)), packed]
        else:
            parts += [_PLANE.pack(_PLAIN, plane.size), plane.tobytes()]
    return b"".join(parts)


def _strategy(plane: Array) -> int:
    """Of zlib: runs of zeros are told as such where most bytes are zero, else Huffman codes alone are faster."""
    import numpy as np

    sample = plane[:: max(1, plane.size >> 14)]
    return zlib.Z_RLE if 2 * np.count_nonzero(sample) < sample.size else zlib.Z_HUFFMAN_ONLY


def decode(old: memoryview, chunk: bytes, width: int) -> memoryview:
    """What `encode` was given as `new`. It takes the place of `old`, if that can be written to.

    Raises:
        DamagedDeltaError: the chunk is damaged, or was made of another `old`.
    """

    try:
        kind, crc = _HEAD.unpack_from(chunk)
        if kind == _RAW:
            new = memoryview(chunk)[_HEAD.size :]
        elif kind == _SAME:
            new = old
        elif kind == _SPARSE:
            new = _changed(old, *_few_flips(chunk, len(old) // width, width)).data
        elif kind == _PLANES:
            flips = _unplaned(chunk, _HEAD.size, len(old) // width, width)
            changed = _writable(old)
            changed ^= flips.reshape(-1)
            new = changed.data
        else:
            raise DamagedDeltaError(f"kind {kind}")
    except (struct.error, zlib.error, ValueError, IndexError) as error:
        raise DamagedDeltaError(str(error)) from None
    if len(new) != len(old) or zlib.crc32(new) != crc:
        raise DamagedDeltaError("its checksum differs")
    return new


def _few_flips(chunk: bytes, numbers: int, width: int) -> tuple[Array, Array]:
    """Which of so many numbers change, and what is to be flipped in each."""
    import numpy as np

    count, length = _LENGTHS.unpack_from(chunk, _HEAD.size)
    start = _HEAD.size + _LENGTHS.size
    steps = np.frombuffer(chunk, np.uint8, length, start)
    ends = np.flatnonzero(steps != 255)
    if len(ends) != count or count > numbers:
        raise DamagedDeltaError("its distances do not fit")
    places = np.cumsum(steps, dtype=np.int64)[ends] + np.arange(count)
    return places, _unplaned(chunk, start + length, count, width)


def _changed(old: memoryview, places: Array, flips: Array) -> Array:
    """The bytes with some numbers changed."""
    new, width = _writable(old), flips.shape[1]
    if width in _WORDS:
        new.view(f"u{width}")[places] ^= flips.view(f"u{width}").reshape(-1)
    else:
        new.reshape(-1, width)[places] ^= flips
    return new


def _writable(old: memoryview) -> Array:
    import numpy as np

    array = np.frombuffer(old, np.uint8)
    return array.copy() if old.readonly else array


def _unplaned(chunk: bytes, at: int, count: int, width: int) -> Array:
    import numpy as np

    flips = np.zeros((count, width), np.uint8)
    for column in range(width):
        how, length = _PLANE.unpack_from(chunk, at)
        at += _PLANE.size
        packed = memoryview(chunk)[at : at + length]
        at += length
        if how == _ZERO:
            continue
        plane = zlib.decompressobj(-15).decompress(packed, count + 1) if how == _DEFLATED else bytes(packed)
        if how not in (_PLAIN, _DEFLATED) or len(plane) != count:
            raise DamagedDeltaError("a plane has another length")
        flips[:, column] = np.frombuffer(plane, np.uint8)
    return flips
