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
_LENGTHS = struct.Struct("<II")
_PLANE = struct.Struct("<BI")
_ZERO, _PLAIN, _DEFLATED = range(3)
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
    kind = f"u{width}" if width in _WORDS else "u1"
    words = np.frombuffer(old, kind) ^ np.frombuffer(new, kind)
    flips = words.view(np.uint8).reshape(-1, width)
    changed = words if width in _WORDS else flips.any(axis=1)
    count = int(np.count_nonzero(changed))
    if not count:
        return _HEAD.pack(_SAME, crc)
    best: tuple[int, bytes] | None = None
    if count < _FEW * len(flips):
        places = np.flatnonzero(changed)
        best = _SPARSE, _sparse(places, flips[places])
    if best is None or len(best[1]) * 8 > len(new):  # of very few numbers no planes are smaller
        planes = _planes(flips)
        best = (_PLANES, planes) if best is None or len(planes) < len(best[1]) else best
    number, packed = best if len(best[1]) < len(new) else (_RAW, bytes(new))
    return _HEAD.pack(number, crc) + packed


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
    """What `encode` was given as `new`.

    Raises:
        DamagedDeltaError: the chunk is damaged, or was made of another `old`.
    """
    import numpy as np

    try:
        kind, crc = _HEAD.unpack_from(chunk)
        if kind == _RAW:
            new = memoryview(chunk)[_HEAD.size :]
        elif kind == _SAME:
            new = old
        else:
            flips = np.zeros((len(old) // width, width), np.uint8)
            if kind == _SPARSE:
                _fill(flips, chunk)
            elif kind == _PLANES:
                flips[...] = _unplaned(chunk, _HEAD.size, *flips.shape)
            else:
                raise DamagedDeltaError(f"kind {kind}")
            new = (np.frombuffer(old, np.uint8) ^ flips.reshape(-1)).data
    except (struct.error, zlib.error, ValueError, IndexError) as error:
        raise DamagedDeltaError(str(error)) from None
    if len(new) != len(old) or zlib.crc32(new) != crc:
        raise DamagedDeltaError("its checksum differs")
    return new


def _fill(flips: Array, chunk: bytes) -> None:
    import numpy as np

    count, length = _LENGTHS.unpack_from(chunk, _HEAD.size)
    start = _HEAD.size + _LENGTHS.size
    steps = np.frombuffer(chunk, np.uint8, length, start)
    ends = np.flatnonzero(steps != 255)
    if len(ends) != count or count > len(flips):
        raise DamagedDeltaError("its distances do not fit")
    places = np.cumsum(steps, dtype=np.int64)[ends] + np.arange(count)
    flips[places] = _unplaned(chunk, start + length, count, flips.shape[1])


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
