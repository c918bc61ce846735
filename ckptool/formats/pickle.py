"""The inert pickle machine: opcodes become data, and nothing else happens.

Every opcode of protocols 0 to 5 is understood. What a pickle would import, call, build or fill becomes the small
classes of `ckptool.formats.objects`; nothing is imported, called, hashed, compared or evaluated, and nothing is
allocated because the file says a number. `ckptool.formats.pickle_dump` writes the objects back.

How long it may take and how much it may hold follows from the length of the stream: each length is compared with the
bytes left, the memo grows by what is put into it, and three budgets (opcodes, small objects, big objects) end streams
that hold far more objects per byte than any pickler writes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import NoReturn

from ckptool.checkpoint import GlobalUse
from ckptool.errors import UnreadableError
from ckptool.formats.objects import ByteString, Call, Dict, Global, How, Persistent, Set
from ckptool.formats.pickle_globals import GlobalLog, merge_globals, risk_of

__all__ = ["BadPickle", "Loaded", "as_bytes", "load", "merge_globals", "risk_of"]

MAX_DIGITS = 4300  # Python refuses to print longer ones
MAX_LONG_BYTES = 1785  # the longest whose decimal form has no more digits than that
MAX_INDEX_DIGITS = 20

_u16 = struct.Struct("<H").unpack_from
_i32 = struct.Struct("<i").unpack_from
_u32 = struct.Struct("<I").unpack_from
_u64 = struct.Struct("<Q").unpack_from
_f64 = struct.Struct(">d").unpack_from


@dataclass(frozen=True, slots=True)
class Loaded:
    """One pickle as inert data.

    Attributes:
        value: the object, made of plain Python values and the classes of `ckptool.formats.objects`.
        end: offset just after its STOP.
        protocol: what it says of itself; 0 if it says nothing (protocols 0 and 1).
        globals: the classes and functions it names, each once, in order of first appearance.
        faithful: False if `dump` might not say all that the stream did: a call's result was thrown away, or an object
            was filled in an order that no pickler writes.
    """

    value: object
    end: int
    protocol: int
    globals: tuple[GlobalUse, ...]
    faithful: bool = True


class BadPickle(UnreadableError):
    """A malformed pickle; `globals` is what it had named until then."""

    globals: tuple[GlobalUse, ...] = ()


class _Refused(Exception):
    """What is wrong with a stream, in words."""


def load(data: bytes | memoryview, start: int = 0, *, path: Path | None = None) -> Loaded:
    """Read one pickle, running nothing.

    Args:
        data: bytes that hold the pickle; more may follow it.
        start: where it begins.
        path: the file, for error messages.

    Raises:
        BadPickle: an `UnreadableError`; the stream is cut short, malformed, or far denser than any pickler writes.

    Example:
        >>> loaded = load(b"cposix\\nsystem\\n(S'rm -rf /'\\ntR.")
        >>> loaded.value, loaded.value.args
        (<Call>, ('rm -rf /',))
        >>> loaded.globals
        (GlobalUse(name='posix.system', risk='dangerous', calls=1, arguments=1),)
    """
    if isinstance(data, memoryview):
        data = data.cast("B")
    machine = _Machine(data, start)
    hint: str | None = "the file is damaged or was made by hand; get it again from where it came from"
    try:
        value = machine.run()
    except _Refused as why:
        message = f"the pickle at byte {start} {why}"
    except StopIteration:
        message = f"the pickle at byte {start} holds more objects than a file of its size can mean"
    except MemoryError:
        message, hint = f"the pickle at byte {start} needs more memory than there is", None
    except (IndexError, KeyError, ValueError, EOFError, struct.error) as error:
        if isinstance(error, EOFError | struct.error) or machine.pos >= len(data):
            message, hint = "the pickle ends before it is complete", "the file was cut short; get it again"
        else:
            message = f"the pickle is damaged at byte {machine.pos - 1}"
    else:
        return Loaded(value, machine.pos, machine.protocol, machine.log.uses(machine.calls), machine.faithful)
    bad = BadPickle(message, hint=hint, path=path)
    bad.globals = machine.log.uses(machine.calls)
    raise bad


def as_bytes(value: object) -> bytes | None:
    """The bytes that an object stands for: itself, or what protocols below 3 write for it; None for anything else.

    Example:
        >>> as_bytes(Call("reduce", Global("_codecs", "encode"), ("a\\xff", "latin1")))
        b'a\\xff'
    """
    if isinstance(value, bytes):
        return value
    if type(value) is not Call or type(value.fn) is not Global or type(value.args) is not tuple:
        return None
    match value.fn.qualified, value.args:
        case "_codecs.encode", (str(text), "latin1" | "latin-1"):
            try:
                return text.encode("latin-1")
            except UnicodeEncodeError:
                return None
        case "__builtin__.bytes" | "builtins.bytes", ():
            return b""
    return None


class _Machine:
    """Stack, memo and position. The stack of a pickle is one list per open MARK."""

    def __init__(self, data: bytes | memoryview, pos: int) -> None:
        size = len(data) - pos
        self.data = data
        self.pos = pos
        self.protocol = 0
        self.faithful = True
        self.stack: list[object] = []
        self.outer: list[list[object]] = []
        # picklers number memo entries 0, 1, 2...: those are the list; any other number lives in the dict
        self.memo: list[object] = []
        self.far: dict[int, object] = {}
        self.calls: list[Call] = []
        self.log = GlobalLog()
        # Budgets. A torch pickle has 4 bytes for an opcode, 15 for a tuple or mark, 75 for a dict or call.
        self.opcodes = 10_000_000 + size // 2
        self.small = iter(range(3_000_000 + size // 6)).__next__
        self.big = iter(range(1_000_000 + size // 48)).__next__

    def run(self) -> object:
        """Run to STOP. The opcodes that make 95 % of a checkpoint stand here, most frequent first."""
        data, pos, size = self.data, self.pos, len(self.data)
        stack, outer, memo, calls, small, big = self.stack, self.outer, self.memo, self.calls, self.small, self.big
        try:
            for _ in repeat(None, self.opcodes):
                op = data[pos]
                pos += 1
                if op == 0x72:  # LONG_BINPUT
                    at = _u32(data, pos)[0]
                    pos += 4
                    if at == len(memo):
                        memo.append(stack[-1])
                    else:
                        self.put(at, stack[-1])
                elif op == 0x4B:  # BININT1
                    stack.append(data[pos])
                    pos += 1
                elif op == 0x68:  # BINGET
                    at = data[pos]
                    pos += 1
                    stack.append(memo[at] if at < len(memo) else self.far[at])
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
                    stack.append(str(data[pos + 4 : end], "utf-8", "surrogatepass"))
                    pos = end
                elif op == 0x6A:  # LONG_BINGET
                    at = _u32(data, pos)[0]
                    pos += 4
                    stack.append(memo[at] if at < len(memo) else self.far[at])
                elif op == 0x71 or op == 0x94:  # BINPUT, MEMOIZE
                    at = data[pos] if op == 0x71 else len(memo) + len(self.far)
                    pos += op == 0x71
                    if at == len(memo):
                        memo.append(stack[-1])
                    else:
                        self.put(at, stack[-1])
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
                    stack.append(str(data[pos + 1 : end], "utf-8", "surrogatepass"))
                    pos = end
                elif op == 0x2E:  # STOP
                    value = stack.pop()
                    self.faithful &= not stack and not outer
                    return value
                else:
                    self.pos, self.stack = pos, stack
                    _RARE[op](self)
                    pos, stack = self.pos, self.stack
            raise StopIteration
        finally:
            self.pos = pos

    # --- reading

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        end = self.pos + length
        if length < 0 or end > len(self.data):
            raise EOFError
        taken = bytes(self.data[self.pos : end])
        self.pos = end
        return taken

    def sized(self, unpack: Callable[..., tuple[int, ...]], width: int) -> bytes:
        """The bytes behind a length of `width` bytes."""
        length = unpack(self.data, self.pos)[0]
        self.pos += width
        return self.take(length)

    def line(self, limit: int | None = None) -> bytes:
        """The bytes up to a newline, which is skipped."""
        width = 128
        while True:
            chunk = bytes(self.data[self.pos : self.pos + width])
            end = chunk.find(b"\n")
            if limit is not None and (end > limit or (end < 0 and len(chunk) > limit)):
                raise _Refused("has a number with too many digits")
            if end >= 0:
                self.pos += end + 1
                return chunk[:end]
            if len(chunk) < width:
                raise EOFError
            width *= 4

    def index(self) -> int:
        """A memo index in decimal digits."""
        digits = self.line(MAX_INDEX_DIGITS).strip()
        if not digits.isdigit():
            raise ValueError
        return int(digits)

    # --- stack and memo

    def to_mark(self) -> list[object]:
        """The values above the last MARK."""
        values, self.stack = self.stack, self.outer.pop()
        return values

    def put(self, at: int, value: object) -> None:
        memo, far = self.memo, self.far
        if at < len(memo):
            memo[at] = value
        elif at == len(memo):
            memo.append(value)
            far.pop(at, None)
        else:
            self.big()
            far[at] = value

    def get(self, at: int) -> None:
        self.stack.append(self.memo[at] if at < len(self.memo) else self.far[at])

    def top(self, value: object) -> None:
        self.stack.append(value)

    def container(self, value: object) -> None:
        self.big()
        self.stack.append(value)

    # --- what a pickle builds

    def named(self, module: str, name: str) -> Global:
        if not self.log.saw(module, name):
            raise _Refused("names more classes than a checkpoint can mean")
        self.big()
        return Global(module, name)

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(module) is not str or type(name) is not str:
            raise _Refused("names a class by something that is not text")
        self.top(self.named(module, name))

    def global_line(self) -> Global:
        return self.named(str(self.line(), "utf-8"), str(self.line(), "utf-8"))

    def extension(self, unpack: Callable[..., tuple[int, ...]]) -> NoReturn:
        code = unpack(self.data, self.pos)[0]
        self.log.saw("copyreg", f"extension {code}")
        raise _Refused(f"names extension code {code}, which only the program that wrote it understands")

    def call(self, how: How, fn: object, args: object, kwargs: object = None) -> None:
        self.big()
        call = Call(how, fn, args, kwargs)
        self.calls.append(call)
        self.stack.append(call)

    def inst(self) -> None:
        fn = self.global_line()
        self.call("inst", fn, tuple(self.to_mark()))

    def obj(self) -> None:
        values = self.to_mark()
        self.call("obj", values[0], tuple(values[1:]))

    def newobj(self) -> None:
        args, cls = self.stack.pop(), self.stack.pop()
        self.call("newobj", cls, args)

    def newobj_ex(self) -> None:
        kwargs, args, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.call("newobj_ex", cls, args, kwargs)

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is not Call:
            raise _Refused(f"sets the state of {_kind(target)}, which has none")
        target.states.append(state)

    def append(self, values: list[object]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(values)
        elif type(target) is Call:
            self.faithful &= not target.items and not target.states
            target.appended.extend(values)
        else:
            raise _Refused(f"appends to {_kind(target)}")

    def set_items(self, values: list[object]) -> None:
        target = self.stack[-1]
        if type(target) is Call:
            self.faithful &= not target.states
        elif type(target) is not Dict:
            raise _Refused(f"sets items of {_kind(target)}")
        target.items.extend(_pairs(values))

    def add_items(self) -> None:
        values = self.to_mark()
        target = self.stack[-1]
        if type(target) is Call:
            self.faithful = False  # picklers write it for plain sets only
            target.appended.extend(values)
        elif type(target) is Set and not target.frozen:
            target.values.extend(values)
        else:
            raise _Refused(f"adds to {_kind(target)}")

    def pop(self) -> None:
        if not self.stack:
            self.stack = self.outer.pop()
        else:
            self.dropped([self.stack.pop()])

    def dropped(self, values: Iterable[object]) -> None:
        """Results thrown away: such a call can have changed another object, which a re-pickled stream would not."""
        self.faithful &= not any(type(value) is Call for value in values)

    # --- numbers and text

    def proto(self) -> None:
        self.protocol = self.take(1)[0]
        if self.protocol > 5:
            raise _Refused(f"is of protocol {self.protocol}; the newest known is 5")

    def frame(self) -> None:
        if _u64(self.data, self.pos)[0] > len(self.data) - self.pos - 8:
            raise EOFError
        self.pos += 8

    def int_line(self) -> None:
        digits = self.line(MAX_DIGITS)
        self.top({b"00": False, b"01": True}.get(digits, int(digits, 0)))

    def long_line(self) -> None:
        self.top(int(self.line(MAX_DIGITS + 1).removesuffix(b"L"), 0))

    def long(self, digits: bytes) -> None:
        if len(digits) > MAX_LONG_BYTES:
            raise _Refused(f"has an integer of {len(digits)} bytes")
        self.top(int.from_bytes(digits, "little", signed=True))

    def float_line(self) -> None:
        self.top(float(self.line(MAX_DIGITS)))

    def binfloat(self) -> None:
        self.top(_f64(self.data, self.pos)[0])
        self.pos += 8

    def unicode(self, text: bytes) -> None:
        self.top(str(text, "utf-8", "surrogatepass"))

    def string(self, text: bytes) -> None:
        """A Python 2 string, read as torch.load reads it."""
        try:
            self.top(str(text, "utf-8"))
        except UnicodeDecodeError:
            self.top(ByteString(text))

    def string_line(self) -> None:
        quoted = self.line().strip()
        if len(quoted) < 2 or quoted[0] != quoted[-1] or quoted[0] not in b"'\"":
            raise ValueError
        self.string(_ESCAPE.sub(_unescape, quoted[1:-1]))


def _kind(value: object) -> str:
    """An inert value in one or two words, for messages."""
    if type(value) is Global:
        return "a class"
    return {Dict: "a dict", Set: "a set", Persistent: "a storage"}.get(type(value), f"a {type(value).__name__}")


def _pairs(values: list[object]) -> Iterable[tuple[object, object]]:
    if len(values) % 2:
        raise _Refused("has a dict key without a value")
    return zip(values[::2], values[1::2], strict=True)


_ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPES = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_ESCAPES |= {character: character for character in (b"\\", b"'", b'"')}


def _unescape(found: re.Match[bytes]) -> bytes:
    """One escape of Python's ``repr`` of a byte string."""
    code: bytes = found[1]
    if len(code) == 3 and code[0] == ord("x"):
        return bytes([int(code[1:], 16)])
    if code.isdigit() and b"8" not in code and b"9" not in code:
        return bytes([int(code, 8) & 0xFF])
    return _ESCAPES.get(code, found[0])


def _out_of_band(machine: _Machine) -> NoReturn:
    raise _Refused("needs a buffer from outside the file (protocol 5, out of band)")


_RARE: dict[int, Callable[[_Machine], None]] = {
    # constants and numbers
    0x4E: lambda m: m.top(None),  # NONE
    0x88: lambda m: m.top(True),  # NEWTRUE
    0x49: _Machine.int_line,  # INT
    0x4C: _Machine.long_line,  # LONG
    0x8A: lambda m: m.long(m.take(m.take(1)[0])),  # LONG1
    0x8B: lambda m: m.long(m.sized(_i32, 4)),  # LONG4
    0x46: _Machine.float_line,  # FLOAT
    0x47: _Machine.binfloat,  # BINFLOAT
    # text and bytes
    0x56: lambda m: m.top(str(m.line(), "raw-unicode-escape")),  # UNICODE
    0x8D: lambda m: m.unicode(m.sized(_u64, 8)),  # BINUNICODE8
    0x53: _Machine.string_line,  # STRING
    0x54: lambda m: m.string(m.sized(_i32, 4)),  # BINSTRING
    0x55: lambda m: m.string(m.take(m.take(1)[0])),  # SHORT_BINSTRING
    0x43: lambda m: m.top(m.take(m.take(1)[0])),  # SHORT_BINBYTES
    0x42: lambda m: m.top(m.sized(_u32, 4)),  # BINBYTES
    0x8E: lambda m: m.top(m.sized(_u64, 8)),  # BINBYTES8
    0x96: lambda m: m.top(bytearray(m.sized(_u64, 8))),  # BYTEARRAY8
    0x97: _out_of_band,  # NEXT_BUFFER
    0x98: _out_of_band,  # READONLY_BUFFER
    # containers
    0x5D: lambda m: m.container([]),  # EMPTY_LIST
    0x7D: lambda m: m.container(Dict()),  # EMPTY_DICT
    0x8F: lambda m: m.container(Set()),  # EMPTY_SET
    0x6C: lambda m: m.container(m.to_mark()),  # LIST
    0x64: lambda m: m.container(Dict(list(_pairs(m.to_mark())))),  # DICT
    0x91: lambda m: m.container(Set(m.to_mark(), frozen=True)),  # FROZENSET
    0x87: lambda m: m.top((*reversed((m.stack.pop(), m.stack.pop(), m.stack.pop())),)),  # TUPLE3
    0x61: lambda m: m.append([m.stack.pop()]),  # APPEND
    0x65: lambda m: m.append(m.to_mark()),  # APPENDS
    0x73: lambda m: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),  # SETITEM
    0x75: lambda m: m.set_items(m.to_mark()),  # SETITEMS
    0x90: _Machine.add_items,  # ADDITEMS
    # classes, calls, states
    0x63: lambda m: m.top(m.global_line()),  # GLOBAL
    0x93: _Machine.stack_global,  # STACK_GLOBAL
    0x82: lambda m: m.extension(struct.Struct("<B").unpack_from),  # EXT1
    0x83: lambda m: m.extension(_u16),  # EXT2
    0x84: lambda m: m.extension(_i32),  # EXT4
    0x69: _Machine.inst,  # INST
    0x6F: _Machine.obj,  # OBJ
    0x81: _Machine.newobj,  # NEWOBJ
    0x92: _Machine.newobj_ex,  # NEWOBJ_EX
    0x62: _Machine.build,  # BUILD
    0x50: lambda m: m.top(Persistent(str(m.line(), "ascii"))),  # PERSID
    # stack and memo
    0x30: _Machine.pop,  # POP
    0x31: lambda m: m.dropped(m.to_mark()),  # POP_MARK
    0x32: lambda m: m.top(m.stack[-1]),  # DUP
    0x67: lambda m: m.get(m.index()),  # GET
    0x70: lambda m: m.put(m.index(), m.stack[-1]),  # PUT
    # the stream itself
    0x80: _Machine.proto,  # PROTO
    0x95: _Machine.frame,  # FRAME
}
