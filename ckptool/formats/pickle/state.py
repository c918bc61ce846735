"""What the machine holds while it reads a pickle: stack, memo, budgets; and the steps that all opcodes share."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator
from itertools import repeat
from operator import length_hint
from sys import getallocatedblocks

from ckptool.core.checkpoint import GlobalUse
from ckptool.formats.pickle.globals import GlobalLog
from ckptool.formats.pickle.objects import Call, Global, How
from ckptool.formats.pickle.skeleton import Skeleton

NO_EDGE = sys.maxsize
MAX_OPCODES = 15_000_000  # a plain tensor counts as one
MAX_OBJECTS = 350  # MB, the pickle among them
_BLOCK = 72  # bytes of one of Python's allocations, on average
_KEPT = 108  # bytes that a command keeps for a text, a tuple or what a MARK begins
_CALL = 150  # and for a call beyond that
AS_CALL = 300  # and for what is written as a call
_TENSOR = 700  # bytes that a plain tensor takes beside its objects, once it is listed
_MOST = MAX_OBJECTS * 1_000_000
_PUT = 5  # bytes that a memo entry takes in the pickle: another writer may make none of them, or more
LARGE = 128  # bytes of a text that is more than one usual allocation
_COPIES = 3.5  # of a large text, while it is written
_SLICE = 100_000  # opcodes between two looks at the memory


class RefusedError(Exception):
    """What is wrong with a pickle, to follow the words "the pickle"."""


class State:
    """A pickle of `data` that is read from `pos` on. The stack is one list per open MARK.

    Args:
        data: bytes that hold the pickle.
        pos: where it begins.
        skeleton: what `data` leaves out, if it is a skeleton.
    """

    def __init__(self, data: bytes | memoryview, pos: int, skeleton: Skeleton | None = None) -> None:
        size = len(data) - pos
        self.data = data
        self.pos = pos
        self.skeleton = skeleton
        self.protocol = 0
        self.faithful = True
        self.edge = NO_EDGE
        self.stack: list[object] = []
        self.outer: list[list[object]] = []
        # picklers number memo entries 0, 1, 2...: those are the list; any other number lives in the dict
        self.memo: list[object] = []
        self.far: dict[int, object] = {}
        self.calls: list[Call] = []
        self.large: float = size
        self.begun = getallocatedblocks()
        self.tensors = 0  # that were read in one step; their calls are not in the list
        self.log = GlobalLog()
        # Budgets. In a torch pickle an opcode has 3 bytes, a tuple or mark 15, a dict or call 50.
        self.opcodes = min(2_000_000 + size // 2, MAX_OPCODES)
        self.granted = 2_000_000 + size // 6
        self.left = iter(range(self.granted))
        self.small = self.left.__next__
        self.big = iter(range(1_000_000 + size // 40)).__next__

    def slices(self) -> Iterator[Iterable[None]]:
        """As many items as opcodes are allowed, in slices between which the objects are measured."""
        for done in range(0, self.opcodes, _SLICE):
            self.measure()
            yield repeat(None, min(_SLICE, self.opcodes - done))

    def measure(self) -> None:
        """Refuse a pickle whose objects are too large by now."""
        small = (getallocatedblocks() - self.begun) * _BLOCK + self.tensors * _TENSOR + len(self.calls) * _CALL
        kept = (self.granted - length_hint(self.left)) * _KEPT
        lists = 8 * (len(self.stack) + sum(map(len, self.outer))) - _PUT * len(self.memo)
        if small + kept + lists + self.large > _MOST:
            raise RefusedError(f"makes more than {MAX_OBJECTS} MB of objects, the most that is read")

    def measure_text(self, nbytes: float) -> None:
        """Note a text before it is made."""
        self.large += _COPIES * nbytes
        if self.large > _MOST:
            self.measure()

    def text(self, start: int, end: int) -> str:
        """The text in UTF-8 that stands there."""
        if end > len(self.data):
            raise EOFError
        if end - start <= LARGE:
            return str(self.data[start:end], "utf-8", "surrogatepass")
        self.measure_text(end - start)
        text = str(self.data[start:end], "utf-8", "surrogatepass")
        self.measure_text(max(0, sys.getsizeof(text) - 2 * (end - start)) / 2)  # one wide character widens them all
        return text

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
        if length > LARGE:
            self.measure_text(length)
        taken = bytes(self.data[self.pos : end])
        self.pos = end
        return taken

    def number(self, form: struct.Struct) -> int:
        """The next number of a binary form."""
        (number,) = form.unpack(self.take(form.size))
        return int(number)

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
        self.large += 8 * len(values)
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
