"""What the machine holds while it reads a pickle: stack, memo, budgets; and the steps that all opcodes share."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator
from itertools import repeat
from sys import getallocatedblocks

from ckptool.core.checkpoint import GlobalUse
from ckptool.formats.pickle.globals import GlobalLog
from ckptool.formats.pickle.objects import Call, Global, How

NO_EDGE = sys.maxsize
MAX_OPCODES = 15_000_000  # a tensor of a checkpoint has about 33
MAX_OBJECTS = 350  # MB
_BLOCK = 64  # bytes of one of Python's allocations, on average
_SLICE = 100_000  # opcodes between two looks at the memory


class RefusedError(Exception):
    """What is wrong with a pickle, to follow the words "the pickle"."""


class State:
    """A pickle of `data` that is read from `pos` on. The stack is one list per open MARK."""

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
        self.tensors = 0  # that were read in one step; their calls are not in the list
        self.log = GlobalLog()
        # Budgets. In a torch pickle an opcode has 3 bytes, a tuple or mark 15, a dict or call 50.
        self.opcodes = min(2_000_000 + size // 2, MAX_OPCODES)
        self.small = iter(range(2_000_000 + size // 6)).__next__
        self.big = iter(range(1_000_000 + size // 40)).__next__

    def slices(self) -> Iterator[Iterable[None]]:
        """As many items as opcodes are allowed, in slices between which the objects are measured."""
        begun = getallocatedblocks()
        for done in range(0, self.opcodes, _SLICE):
            if (getallocatedblocks() - begun) * _BLOCK > MAX_OBJECTS * 1_000_000:
                raise RefusedError(f"makes more than {MAX_OBJECTS} MB of objects, the most that is read")
            yield repeat(None, min(_SLICE, self.opcodes - done))

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

    def uses(self) -> tuple[GlobalUse, ...]:
        """What the pickle names, and how often it calls it."""
        return self.log.uses(self.calls, self.tensors)

    def push_call(self, how: How, fn: object, args: object, kwargs: object = None) -> None:
        call = Call(how, fn, args, kwargs)
        self.calls.append(call)
        self.push_big(call)

    def dropped(self, values: Iterable[object]) -> None:
        """Values thrown away: such a call can have changed another object, which a re-pickled stream would not."""
        self.faithful &= not any(type(value) is Call for value in values)
