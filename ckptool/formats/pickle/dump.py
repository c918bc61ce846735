"""Inert objects back into a pickle, byte for byte as CPython's C pickler would write what they stand for.

Containers are written by generators that yield the objects inside them; a loop drives a stack of such generators, so
nothing recurses. What has been written once is fetched from the memo afterwards, so sharing and cycles survive.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from ckptool.core.collector import collector_paused
from ckptool.core.errors import OutputError
from ckptool.formats.pickle.objects import ByteString, Call, Dict, Global, Payload, Persistent, Set
from ckptool.formats.pickle.output import Output

_BATCH = 1000  # values for one APPENDS, SETITEMS, ADDITEMS
_ONE_PLACE = 3  # references to an object that only one other holds, counted by the loop of `_Writer.write`
_SMALL_LONG = 32  # longer integers go to the memo, so that sharing one does not repeat it

_LATIN1 = "latin1"
_SURROGATE = re.compile("[\ud800-\udfff]")
_PYTHON_3 = {"__builtin__": "builtins", "copy_reg": "copyreg", "exceptions": "builtins"}
_PYTHON_3_NAMES = {"xrange": "range", "unicode": "str", "long": "int"}

_u32 = struct.Struct("<I").pack
_i32 = struct.Struct("<i").pack
_u64 = struct.Struct("<Q").pack
_f64 = struct.Struct(">d").pack


PersistentId = Callable[[Persistent], object]


def dump(value: object, protocol: int = 2, persistent: PersistentId | None = None) -> bytes:
    """Pickle what `load` returned.

    Args:
        value: plain values and the classes of `ckptool.formats.pickle.objects`.
        protocol: 2 to 5; 0 and 1 are written as 2.
        persistent: gives the id to write for a `Persistent`; None writes its own.

    Raises:
        OutputError: a name that the protocol cannot spell, or objects tangled so that writing would not end.
        TypeError: an object of any other class.

    Example:
        >>> dump(["a", "a", 1])
        b'\\x80\\x02]q\\x00(X\\x01\\x00\\x00\\x00aq\\x01h\\x01K\\x01e.'
    """
    writer = _Writer(max(2, protocol), persistent)
    try:
        with collector_paused():
            return writer.write(value)
    finally:
        writer.savers.clear()  # they are the writer's own: with them it, and its memo, would stay in memory


class _Writer(Output):
    def __init__(self, protocol: int, persistent: PersistentId | None) -> None:
        super().__init__(protocol)
        self.persistent = persistent
        self.kept: list[object] = []
        self.is_single = False  # the object that is begun is met only once
        self.stand_ins: dict[int, Call] = {}  # for values that the protocol has no opcode for
        self.read: dict[int, bytes | str] = {}  # what stands for each `Payload`
        self.names: dict[tuple[str, str], Global] = {}
        self.savers: dict[type, Callable[[Any], Iterator[object] | None]] = {
            type(None): self._none,
            bool: self._bool,
            int: self._int,
            float: self._float,
            str: self._str,
            bytes: self._bytes,
            bytearray: self._bytearray,
            tuple: self._tuple,
            list: self._list,
            Dict: self._dict,
            Set: self._set,
            Global: self._global,
            Call: self._call,
            Persistent: self._persistent,
            ByteString: self._byte_string,
            Payload: self._payload,
        }

    def write(self, value: object) -> bytes:
        self.out += bytes((0x80, self.protocol))
        if self.protocol >= 4:
            self.open_frame()
        stack: list[tuple[Iterator[object], bool]] = [(iter((value,)), False)]
        memo, savers, get, framed = self.memo, self.savers, self.get, self.protocol >= 4
        while stack:
            values, is_written_once = stack[-1]
            for inner in values:
                if framed:
                    self.next_frame()
                at = memo.get(id(inner))
                if at is not None:
                    get(at)
                    continue
                kind = type(inner)
                saver = savers.get(kind)
                if saver is None:
                    raise TypeError(f"a pickle is made of inert objects, not of {kind.__name__}")
                self.is_single = is_written_once and sys.getrefcount(inner) <= _ONE_PLACE
                parts = saver(inner)
                if parts is not None:
                    # what is remembered when complete (tuples, calls) is written again where it stands inside itself
                    stack.append((parts, self.is_single or kind is list or kind is Dict))
                    break
            else:
                stack.pop()
        self.out += b"."
        self.close_frame()
        return bytes(self.out)

    # --- values without parts

    def _none(self, value: None) -> None:
        self.out += b"N"

    def _bool(self, value: bool) -> None:
        self.out += b"\x88" if value else b"\x89"

    def _int(self, value: int) -> None:
        if 0 <= value < 256:
            self.out += bytes((0x4B, value))
        elif 0 <= value < 65536:
            self.out += b"M" + value.to_bytes(2, "little")
        elif -(2**31) <= value < 2**31:
            self.out += b"J" + _i32(value)
        else:
            # as many bytes as two's complement needs
            length = ((value if value >= 0 else ~value).bit_length() >> 3) + 1
            self.out += bytes((0x8A, length)) if length < 256 else b"\x8b" + _i32(length)
            self.out += value.to_bytes(length, "little", signed=True)
            if length > _SMALL_LONG:
                self.put(value)

    def _float(self, value: float) -> None:
        self.out += b"G" + _f64(value)

    def _str(self, value: str) -> None:
        text = value.encode("utf-8", "surrogatepass")
        if self.protocol >= 4 and len(text) < 256:
            header = bytes((0x8C, len(text)))
        else:
            header = b"X" + _u32(len(text)) if len(text) < 2**32 else b"\x8d" + _u64(len(text))
        self.payload(header, text)
        self.put(value, is_single=self.is_single)

    def _bytes(self, value: bytes) -> Iterator[object] | None:
        if self.protocol < 3:
            return iter((self.stand_in(value, self._bytes_call),))
        if len(value) < 256:
            header = bytes((0x43, len(value)))
        else:
            header = b"B" + _u32(len(value)) if len(value) < 2**32 else b"\x8e" + _u64(len(value))
        self.payload(header, value)
        self.put(value, is_single=self.is_single)
        return None

    def _bytearray(self, value: bytearray) -> Iterator[object] | None:
        if self.protocol < 5:
            return iter((self.stand_in(value, self._bytearray_call),))
        self.payload(b"\x96" + _u64(len(value)), value)
        self.put(value)
        return None

    def _byte_string(self, value: ByteString) -> None:
        length = len(value.data)
        self.payload(bytes((0x55, length)) if length < 256 else b"T" + _i32(length), value.data)
        self.put(value, is_single=self.is_single)

    def _payload(self, value: Payload) -> Iterator[object] | None:
        """What was left in the file; the memo knows it by the `Payload`."""
        content = self.read.get(id(value))
        if content is None:
            content = self.read[id(value)] = value.read()
        return iter((content,))

    # --- containers

    def _tuple(self, value: tuple[object, ...]) -> Iterator[object] | None:
        if value:
            return self._full_tuple(value)
        self.out += b")"
        return None

    def _full_tuple(self, value: tuple[object, ...]) -> Iterator[object]:
        is_single = self.is_single
        if not is_single:
            self.begin(value, len(value))
        short = len(value) <= 3
        if not short:
            self.out += b"("
        yield from value
        at = self.memo.get(id(value))
        if at is not None:  # it contains itself, and has been written from within
            self.out += b"0" * len(value) if short else b"1"
            self.get(at)
            return
        self.out += bytes((0x84 + len(value),)) if short else b"t"
        self.put(value, is_single=is_single)

    def _list(self, value: list[object]) -> Iterator[object]:
        self.out += b"]"
        self.put(value, is_single=self.is_single)
        if len(value) == 1:
            yield value[0]
            self.out += b"a"
            return
        values = iter(value)
        for _ in range(0, len(value), _BATCH):
            self.out += b"("
            yield from islice(values, _BATCH)
            self.out += b"e"

    def _dict(self, value: Dict) -> Iterator[object]:
        self.out += b"}"
        self.put(value, is_single=self.is_single)
        items = value.items
        if len(items) == 1:
            yield from items[0]
            self.out += b"s"
            return
        # CPython's loop for plain dicts ends with an empty batch if the last one was full
        for start in range(0, len(items) + 1 if items else 0, _BATCH):
            self.out += b"("
            for pair in items[start : start + _BATCH]:
                yield from pair
            self.out += b"u"

    def _set(self, value: Set) -> Iterator[object]:
        if self.protocol < 4:
            yield self.stand_in(value, self._set_call)
        elif value.frozen:
            self.begin(value, len(value.values))
            self.out += b"("
            yield from value.values
            at = self.memo.get(id(value))
            if at is None:
                self.out += b"\x91"
                self.put(value)
            else:
                self.out += b"1"
                self.get(at)
        else:
            self.out += b"\x8f"
            self.put(value)
            for start in range(0, len(value.values) + 1 if value.values else 0, _BATCH):
                self.out += b"("
                yield from value.values[start : start + _BATCH]
                self.out += b"\x90"

    # --- names, calls, references

    def _global(self, value: Global) -> Iterator[object]:
        module, name = self.spelled(value)
        if self.protocol >= 4:
            yield module
            yield name
            self.out += b"\x93"
        else:
            self.out += b"c" + _line(module) + _line(name)
        self.put(value)

    def spelled(self, value: Global) -> tuple[str, str]:
        """Module and name; protocols from 3 on know nothing of Python 2's builtins."""
        if self.protocol < 3 or value.module not in _PYTHON_3:
            return value.module, value.name
        return _PYTHON_3[value.module], _PYTHON_3_NAMES.get(value.name, value.name)

    def _call(self, call: Call) -> Iterator[object]:
        is_single = self.is_single
        if not is_single:
            self.begin(call, 1)
        if call.how in ("inst", "obj"):
            yield from self._old_call(call)
        else:
            yield call.fn
            yield call.args
            if call.how == "newobj_ex":
                yield call.kwargs
            self.out += {"reduce": b"R", "newobj": b"\x81", "newobj_ex": b"\x92"}[call.how]
        if is_single:
            self.put(call, is_single=True)
        elif not self.settle(call):
            return
        yield from self._batches(call.appended, b"a", b"e")
        yield from self._batches(call.items, b"s", b"u")
        for state in call.states:
            yield state
            self.out += b"b"

    def _old_call(self, call: Call) -> Iterator[object]:
        """INST and OBJ, of protocols 0 and 1."""
        if type(call.args) is not tuple:
            raise TypeError("the arguments of INST and OBJ are a tuple")
        self.out += b"("
        if call.how == "obj":
            yield call.fn
        yield from call.args
        if call.how == "obj":
            self.out += b"o"
        elif type(call.fn) is Global:
            self.out += b"i" + b"".join(map(_line, self.spelled(call.fn)))
        else:
            raise TypeError("INST calls a class by its name")

    def _batches(self, values: Sequence[Any], one: bytes, many: bytes) -> Iterator[object]:
        """What was appended to a call's result, or set in it."""
        for start in range(0, len(values), _BATCH):
            batch = values[start : start + _BATCH]
            if len(batch) > 1:
                self.out += b"("
            for value in batch:
                if many == b"u":
                    yield from value
                else:
                    yield value
            self.out += many if len(batch) > 1 else one

    def _persistent(self, value: Persistent) -> Iterator[object]:
        pid = value.pid
        if self.persistent is not None:
            pid = self.persistent(value)
            self.kept.append(pid)  # the memo knows objects by address, so none of them may go
        yield pid
        self.out += b"Q"
        if type(pid) is not tuple:  # picklers never remember one; a tuple inside is, and bounds its length
            self.settle(value)

    # --- what an older protocol has no opcode for: the call that CPython writes instead

    def stand_in(self, value: object, make: Callable[[Any], Call]) -> Call:
        call = self.stand_ins.get(id(value))
        if call is None:
            call = self.stand_ins[id(value)] = make(value)
        return call

    def named(self, module: str, name: str) -> Global:
        return self.names.setdefault((module, name), Global(module, name))

    def _builtin(self, name: str) -> Global:
        return self.named("__builtin__" if self.protocol < 3 else "builtins", name)

    def _bytes_call(self, value: bytes) -> Call:
        if not value:
            return Call("reduce", self._builtin("bytes"), ())
        return Call("reduce", self.named("_codecs", "encode"), (value.decode("latin-1"), _LATIN1))

    def _bytearray_call(self, value: bytearray) -> Call:
        return Call("reduce", self._builtin("bytearray"), (bytes(value),) if value else ())

    def _set_call(self, value: Set) -> Call:
        return Call("reduce", self._builtin("frozenset" if value.frozen else "set"), (list(value.values),))


def _line(name: str) -> bytes:
    """A name as protocols below 4 spell it."""
    if "\n" not in name and _SURROGATE.search(name) is None:
        return name.encode() + b"\n"
    raise OutputError("a class name in the file holds a character that pickle protocol 2 cannot write")
