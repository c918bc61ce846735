"""What a pickle is written into: bytes, the memo, and the frames of protocols 4 and 5."""

from __future__ import annotations

import struct

from ckptool.core.errors import OutputError

_FRAME = 64 * 1024  # bytes that close a frame
_ROOM = bytes(9)  # the opcode FRAME and its length
_MAX_AGAIN = 1_000_000  # values written again because they contain themselves

_u32 = struct.Struct("<I").pack
_u64 = struct.Struct("<Q").pack


class Output:
    """The bytes of a pickle so far. The memo knows objects by address: each must live until the end."""

    def __init__(self, protocol: int) -> None:
        self.protocol = protocol
        self.out = bytearray()
        self.memo: dict[int, int] = {}
        self.count = 0  # of entries in the memo
        self.begun: set[int] = set()
        self.again = 0
        self.frame = -1  # where the open frame begins

    def put(self, value: object, *, is_single: bool = False) -> None:
        """Remember the value just written; one that stands nowhere else only takes up a number."""
        at = self.count
        self.count += 1
        if not is_single:
            self.memo[id(value)] = at
        if self.protocol >= 4:
            self.out += b"\x94"
        else:
            self.out += bytes((0x71, at)) if at < 256 else b"r" + _u32(at)

    def get(self, at: int) -> None:
        self.out += bytes((0x68, at)) if at < 256 else b"j" + _u32(at)

    def settle(self, value: object, drop: bytes = b"0") -> bool:
        """Remember the value just written, or, if one inside it has written it already, drop it and take that one."""
        at = self.memo.get(id(value))
        if at is None:
            self.put(value)
            return True
        self.out += drop
        self.get(at)
        return False

    def begin(self, value: object, size: int) -> None:
        """Note that an object which is remembered only when complete has been begun; it may be met again inside."""
        if id(value) not in self.begun:
            self.begun.add(id(value))
            return
        self.again += size + 1
        if self.again > _MAX_AGAIN:
            raise OutputError("the objects beside the weights contain each other too often to be written")

    def open_frame(self) -> None:
        self.frame = len(self.out)
        self.out += _ROOM

    def next_frame(self) -> None:
        """Before each object: end a frame that is long enough."""
        if len(self.out) - self.frame - len(_ROOM) >= _FRAME:
            self.close_frame()
            self.open_frame()

    def close_frame(self) -> None:
        if self.frame < 0:
            return
        start, self.frame = self.frame, -1
        length = len(self.out) - start - len(_ROOM)
        self.out[start : start + len(_ROOM)] = b"\x95" + _u64(length) if length >= 4 else b""

    def payload(self, header: bytes, data: bytes | bytearray) -> None:
        """Write bytes with their header; long ones stand outside of frames."""
        outside = self.frame >= 0 and len(data) >= _FRAME
        if outside:
            self.close_frame()
        self.out += header
        self.out += data
        if outside:
            self.open_frame()
