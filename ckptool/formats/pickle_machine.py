"""The machine that reads a pickle: stack, memo, budgets, and the opcodes that make up 95 % of a checkpoint.

How long it may take and how much it may hold follows from the length of the stream: each length is compared with the
bytes left, the memo grows by what is put into it, and three budgets (opcodes, small objects, big objects) end streams
that hold far more objects per byte than any pickler writes. Damage shows as `IndexError`, `KeyError`, `ValueError`,
`EOFError`, `struct.error`, a spent budget as `StopIteration`; `ckptool.formats.pickle.load` puts them into words.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from itertools import repeat

from ckptool.formats.objects import Call, Global, How, Persistent
from ckptool.formats.pickle_globals import GlobalLog
from ckptool.formats.pickle_opcodes import RARE, RefusedError

__all__ = ["Machine", "RefusedError"]

_u16 = struct.Struct("<H").unpack_from
_i32 = struct.Struct("<i").unpack_from
_u32 = struct.Struct("<I").unpack_from


def _own(character: str) -> str:
    """An object of its own for a string of one character.

    CPython keeps one object for each of them, but not for what `str(0)` returns, so a file can hold "0" as one object
    or as several; which, is to be written again. This relies on a detail of `str.replace`; where another Python does
    otherwise, the objects become one, and nothing but the bytes of the pickle changes.
    """
    return "\0".replace("\0", character)


NO_EDGE = sys.maxsize


class Machine:
    """Reads one pickle of `data` from `pos` on. The stack is one list per open MARK."""

    def __init__(self, data: bytes | memoryview, pos: int) -> None:
        size = len(data) - pos
        self.data = data
        self.pos = pos
        self.protocol = 0
        self.faithful = True
        self.edge = NO_EDGE
        self.stack: list[object] = []
        self.outer: list[list[object]] = []
        # picklers number memo entries 0, 1, 2...: those are the list; any other number lives in the dict
        self.memo: list[object] = []
        self.far: dict[int, object] = {}
        self.calls: list[Call] = []
        self.log = GlobalLog()
        # Budgets. In a torch pickle an opcode has 3 bytes, a tuple or mark 15, a dict or call 50.
        self.opcodes = 2_000_000 + size // 2
        self.small = iter(range(2_000_000 + size // 6)).__next__
        self.big = iter(range(1_000_000 + size // 40)).__next__

    def run(self) -> object:
        """Run to STOP and return the value; the frequent opcodes stand here, most frequent first."""
        data, pos, size = self.data, self.pos, len(self.data)
        stack, outer, memo, far = self.stack, self.outer, self.memo, self.far
        calls, small, big, edge = self.calls, self.small, self.big, NO_EDGE
        try:
            for _ in repeat(None, self.opcodes):
                if pos >= edge:
                    edge = self.leave_frame(pos)
                op = data[pos]
                pos += 1
                if op == 0x72:  # LONG_BINPUT
                    at = _u32(data, pos)[0]
                    pos += 4
                    if at == len(memo) and not far:
                        memo.append(stack[-1])
                    else:
                        self.put(at, stack[-1])
                elif op == 0x4B:  # BININT1
                    stack.append(data[pos])
                    pos += 1
                elif op == 0x68:  # BINGET
                    at = data[pos]
                    pos += 1
                    stack.append(memo[at] if at < len(memo) else far[at])
                elif op == 0x28:  # MARK
                    small()
                    outer.append(stack)
                    stack = []
                elif op == 0x74:  # TUPLE
                    values = tuple(stack)
                    stack = outer.pop()
                    stack.append(values)
                elif op == 0x58:  # BINUNICODE
                    end = pos + 4 + _u32(data, pos)[0]
                    if end > size:
                        raise EOFError
                    text = str(data[pos + 4 : end], "utf-8", "surrogatepass")
                    stack.append(text if len(text) != 1 else _own(text))
                    pos = end
                elif op == 0x6A:  # LONG_BINGET
                    at = _u32(data, pos)[0]
                    pos += 4
                    stack.append(memo[at] if at < len(memo) else far[at])
                elif op == 0x71:  # BINPUT
                    self.put(data[pos], stack[-1])
                    pos += 1
                elif op == 0x94:  # MEMOIZE
                    if far:
                        self.put(len(memo) + len(far), stack[-1])
                    else:
                        memo.append(stack[-1])
                elif op == 0x86:  # TUPLE2
                    small()
                    last = stack.pop()
                    stack[-1] = (stack[-1], last)
                elif op == 0x52:  # REDUCE
                    big()
                    args = stack.pop()
                    stack[-1] = call = Call("reduce", stack[-1], args)
                    calls.append(call)
                elif op == 0x29:  # EMPTY_TUPLE
                    stack.append(())
                elif op == 0x4A:  # BININT
                    stack.append(_i32(data, pos)[0])
                    pos += 4
                elif op == 0x51:  # BINPERSID
                    small()
                    stack[-1] = Persistent(stack[-1])
                elif op == 0x89:  # NEWFALSE
                    stack.append(False)
                elif op == 0x4D:  # BININT2
                    stack.append(_u16(data, pos)[0])
                    pos += 2
                elif op == 0x85:  # TUPLE1
                    small()
                    stack[-1] = (stack[-1],)
                elif op == 0x8C:  # SHORT_BINUNICODE
                    end = pos + 1 + data[pos]
                    if end > size:
                        raise EOFError
                    text = str(data[pos + 1 : end], "utf-8", "surrogatepass")
                    stack.append(text if len(text) != 1 else _own(text))
                    pos = end
                elif op == 0x2E:  # STOP
                    value = stack.pop()
                    if edge != NO_EDGE:
                        self.leave_frame(pos)
                    self.faithful &= not stack and not outer
                    return value
                else:
                    self.pos, self.stack = pos, stack
                    RARE[op](self)
                    pos, stack, edge = self.pos, self.stack, self.edge
            raise StopIteration
        finally:
            self.pos = pos

    # --- what the rare opcodes are made of

    def enter_frame(self, length: int) -> None:
        if length > len(self.data) - self.pos:
            raise EOFError
        if self.edge != NO_EDGE:
            raise RefusedError("has frames that overlap")
        self.edge = self.pos + length

    def leave_frame(self, pos: int) -> int:
        """A frame ends between two opcodes. CPython, reading from a file, skips bytes where one ends elsewhere."""
        if pos != self.edge:
            raise RefusedError("has a frame that does not end between two opcodes")
        self.edge = NO_EDGE
        return NO_EDGE

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        end = self.pos + length
        if length < 0 or end > len(self.data):
            raise EOFError
        taken = bytes(self.data[self.pos : end])
        self.pos = end
        return taken

    def number(self, form: struct.Struct) -> int:
        """The next number of a binary form."""
        return int.from_bytes(self.take(form.size), "little", signed=form.format == "<i")

    def line(self, limit: int | None = None) -> bytes:
        """The bytes up to a newline, which is skipped; at most `limit` of them."""
        width = 128
        while True:
            chunk = bytes(self.data[self.pos : self.pos + width])
            end = chunk.find(b"\n")
            if limit is not None and (end > limit or (end < 0 and len(chunk) > limit)):
                raise RefusedError("has a number with too many digits")
            if end >= 0:
                self.pos += end + 1
                return chunk[:end]
            if len(chunk) < width:
                raise EOFError
            width *= 4

    def to_mark(self) -> list[object]:
        """The values above the last MARK."""
        values, self.stack = self.stack, self.outer.pop()
        return values

    def push(self, value: object) -> None:
        self.stack.append(value)

    def push_big(self, value: object) -> None:
        """Push something that takes more memory than its opcode."""
        self.big()
        self.stack.append(value)

    def put(self, at: int, value: object) -> None:
        """Remember a value under a number."""
        memo, far = self.memo, self.far
        if at < len(memo):
            memo[at] = value
        elif at == len(memo):
            memo.append(value)
            far.pop(at, None)
        else:
            self.big()
            far[at] = value

    def get(self, at: int) -> object:
        return self.memo[at] if at < len(self.memo) else self.far[at]

    def named(self, module: str, name: str) -> Global:
        """A class or function, noted in the log."""
        self.big()
        if not self.log.saw(module, name):
            raise RefusedError("names more classes than a checkpoint can mean")
        return Global(module, name)

    def push_call(self, how: How, fn: object, args: object, kwargs: object = None) -> None:
        call = Call(how, fn, args, kwargs)
        self.calls.append(call)
        self.push_big(call)

    def dropped(self, values: Iterable[object]) -> None:
        """Values thrown away: such a call can have changed another object, which a re-pickled stream would not."""
        self.faithful &= not any(type(value) is Call for value in values)
