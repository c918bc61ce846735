"""A pickle without its long strings of bytes: they stay in the file, and are put back only where they are needed.

The machine reads a pickle from memory. One that holds numpy arrays is as large as they are, so it is copied without
them: each long payload becomes the opcode `PAYLOAD`, which no pickler writes, and its number. Frames are made shorter
by what is left out.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

from ckptool.core.bytes import ByteSource, OpenBytes
from ckptool.core.errors import UnreadableError

PAYLOAD = 0xF0
"""Opcode that stands for a payload; four bytes with its number follow."""
MAX_SKELETON = 64 << 20
"""Most bytes of a pickle that are read, long payloads apart."""

_LONG = 512  # bytes of a payload that stays in the file
_WINDOW = 1 << 18
_HEADER = 16  # bytes that an opcode and its lengths need at most
_FRAME, _STOP, _UNKNOWN = 0x95, 0x2E, 0xFF
_INTEGERS = (0x8A, 0x8B)
# opcode: bytes of its argument
_FIXED = {
    **dict.fromkeys(b"(.0125NQR]abdlotsu}e)", 0),
    **dict.fromkeys((0x81, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8F, 0x90, 0x91, 0x92, 0x93, 0x94, 0x97, 0x98), 0),
    **dict.fromkeys(b"Khq", 1),
    **dict.fromkeys((0x80, 0x82), 1),
    **dict.fromkeys(b"M", 2),
    0x83: 2,
    **dict.fromkeys(b"Jjr", 4),
    0x84: 4,
    **dict.fromkeys(b"G", 8),
    _FRAME: 8,
}
_LINES = {**dict.fromkeys(b"FILSVPgp", 1), **dict.fromkeys(b"ci", 2)}
# opcode: bytes of the length before its argument
_COUNTED = {**dict.fromkeys((0x8C, 0x55, 0x43, 0x8A), 1), **dict.fromkeys(b"XTB", 4), 0x8B: 4}
_COUNTED |= dict.fromkeys((0x8D, 0x8E, 0x96), 8)


class LeftOut(NamedTuple):
    """A payload that stays in the file.

    Attributes:
        opcode: which would read it.
        offset: where it begins in the file.
        nbytes: its length.
        at: where the opcode that stands for it begins in the skeleton.
    """

    opcode: int
    offset: int
    nbytes: int
    at: int


@dataclass(slots=True)
class Skeleton:
    """A pickle without its long payloads.

    Attributes:
        source: the file.
        start: where the pickle begins in it.
        data: the opcodes.
        payloads: what is left out.
    """

    source: ByteSource
    start: int
    data: bytearray = field(default_factory=bytearray)
    payloads: list[LeftOut] = field(default_factory=list)

    def offset(self, at: int) -> int:
        """The place in the pickle that a place in the skeleton stands for."""
        number = bisect_right(self.payloads, at, key=lambda payload: payload.at)
        if not number:
            return at
        last = self.payloads[number - 1]
        return last.offset + last.nbytes - self.start + max(0, at - last.at - 5)


def read_skeleton(source: ByteSource, file: OpenBytes, start: int, end: int) -> Skeleton:
    """Copy the pickle that begins at `start`, up to its STOP or to `end`; the machine finds what is wrong with it.

    Raises:
        UnreadableError: it is longer than `MAX_SKELETON`, or a frame ends within an opcode.
    """
    found = Skeleton(source, start)
    window = _Window(file, start, end)
    out, edge, frame = found.data, -1, 0
    while True:
        if window.pos + _HEADER > len(window.data):
            window.refill()
        data, pos = window.data, window.pos
        if edge >= 0 and window.base + pos >= edge:
            if window.base + pos > edge:
                raise UnreadableError(
                    f"{source.path}: the pickle has a frame that ends within an opcode", path=source.path
                )
            _end_frame(out, frame)
            edge = -1
        if pos >= len(data):
            return found
        opcode = data[pos]
        width = _COUNTED.get(opcode)
        if width is not None:
            nbytes = int.from_bytes(data[pos + 1 : pos + 1 + width], "little")
            first = window.base + pos + 1 + width
            if nbytes >= _LONG and first + nbytes <= end and opcode not in _INTEGERS:
                out += bytes((PAYLOAD,)) + len(found.payloads).to_bytes(4, "little")
                found.payloads.append(LeftOut(opcode, first, nbytes, len(out) - 5))
                window.skip_to(first + nbytes)
                continue
            if first + nbytes > end or (opcode in _INTEGERS and nbytes > _WINDOW):
                out += data[pos : pos + 1 + width]  # the machine says what is wrong
                return found
            length = 1 + width + nbytes
        elif opcode in _FIXED:
            length = 1 + _FIXED[opcode]
            if opcode == _FRAME and edge < 0:
                frame, nbytes = len(out) + 1, int.from_bytes(data[pos + 1 : pos + 9], "little")
                edge = window.base + pos + 9 + nbytes
        elif opcode in _LINES:
            length = window.lines(_LINES[opcode])
        else:
            out.append(_UNKNOWN)
            return found
        out += window.take(length)
        if len(out) > MAX_SKELETON:
            raise UnreadableError(
                f"{source.path}: the pickle has more than {MAX_SKELETON >> 20} MB beside its arrays",
                hint="protocol 0 has arrays as lines of text; pickle it with protocol 2 or later, or use numpy.savez",
                path=source.path,
            )
        if opcode == _STOP:
            if edge == window.base + window.pos:
                _end_frame(out, frame)
            return found


def _end_frame(out: bytearray, at: int) -> None:
    """Write the length of the frame whose length stands at `at`, and which ends here."""
    out[at : at + 8] = (len(out) - at - 8).to_bytes(8, "little")


class _Window:
    """The part of a file that is looked at."""

    def __init__(self, file: OpenBytes, start: int, end: int) -> None:
        self.file = file
        self.base = start
        self.end = end
        self.data = b""
        self.pos = 0

    def refill(self, ahead: int = _HEADER) -> None:
        """Have at least so many bytes from `pos` on, or all that there are."""
        self.base += self.pos
        self.pos = 0
        self.data = self.file.read(self.base, min(max(_WINDOW, ahead), self.end - self.base))

    def skip_to(self, offset: int) -> None:
        self.pos = offset - self.base
        if self.pos > len(self.data):
            self.base, self.pos, self.data = offset, 0, b""

    def take(self, nbytes: int) -> bytes:
        """The next bytes; fewer at the end."""
        if self.pos + nbytes > len(self.data):
            self.refill(nbytes)
        taken = self.data[self.pos : self.pos + nbytes]
        self.pos += len(taken)
        return taken

    def lines(self, count: int) -> int:
        """Bytes of an opcode that `count` lines follow; all that is left where they do not end."""
        ahead = _WINDOW
        while True:
            at = self.pos
            for _ in range(count):
                at = self.data.find(b"\n", at) + 1
                if not at:
                    break
            else:
                return at - self.pos
            if self.base + len(self.data) >= self.end or ahead >= MAX_SKELETON:
                return len(self.data) - self.pos
            self.refill(ahead := min(ahead * 4, MAX_SKELETON))
