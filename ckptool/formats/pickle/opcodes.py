"""The opcodes that a checkpoint uses seldom or never: all that `ckptool.formats.pickle.machine` does not do inline."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from typing import NoReturn

from ckptool.formats.pickle.objects import ByteString, Call, Dict, Global, Payload, Persistent, Set, extended
from ckptool.formats.pickle.skeleton import PAYLOAD
from ckptool.formats.pickle.state import AS_CALL, RefusedError, State

_MAX_DIGITS = 4300  # Python refuses to print longer integers
_MAX_LONG_BYTES = 1785  # the longest whose decimal form has no more digits than that
_MAX_INDEX_DIGITS = 20

_U8, _U16, _U32, _U64 = (struct.Struct(form) for form in ("<B", "<H", "<I", "<Q"))
_I32 = struct.Struct("<i")
_F64 = struct.Struct(">d")


# --- numbers and text


def _int(m: State) -> None:
    digits = m.line(_MAX_DIGITS)
    m.push(digits == b"01" if digits in (b"00", b"01") else int(digits, 0))


def _long_line(m: State) -> None:
    m.push(int(m.line(_MAX_DIGITS + 1).removesuffix(b"L"), 0))


def _long(m: State, length: int) -> None:
    if length > _MAX_LONG_BYTES:
        raise RefusedError(f"has an integer of {length} bytes")
    m.push(int.from_bytes(m.take(length), "little", signed=True))


def _as_call(m: State, value: object) -> None:
    """Push what protocol 2, in which outputs are written, spells as a call."""
    m.large += AS_CALL
    m.push(value)


def _string(m: State, text: bytes) -> None:
    """A Python 2 string, read as torch.load reads it."""
    try:
        m.push(str(text, "utf-8"))
    except UnicodeDecodeError:
        m.push(ByteString(text))


def _string_line(m: State) -> None:
    quoted = m.line().strip()
    if len(quoted) < 2 or quoted[0] != quoted[-1] or quoted[0] not in b"'\"":
        raise ValueError("not a quoted string")
    _string(m, _ESCAPE.sub(_unescape, quoted[1:-1]))


_ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|([0-7]{1,3})|(.))", re.DOTALL)
_ESCAPES = dict(zip(b"abfnrtv\\'\"", (b"\a", b"\b", b"\f", b"\n", b"\r", b"\t", b"\v", b"\\", b"'", b'"'), strict=True))


def _unescape(found: re.Match[bytes]) -> bytes:
    """One escape of Python's ``repr`` of a byte string."""
    hexadecimal, octal, letter = found.groups()
    if hexadecimal:
        return bytes([int(hexadecimal, 16)])
    if octal:
        return bytes([int(octal, 8) & 0xFF])
    return _ESCAPES.get(letter[0], found[0])


def _payload(m: State) -> None:
    """Push what the skeleton leaves out: by its place if it is the content of a numpy array, else read now."""
    if m.skeleton is None:
        raise ValueError("an opcode that pickles do not have")
    found = m.skeleton.payloads[m.number(_U32)]
    payload = Payload(m.skeleton.source, found.offset, found.nbytes, found.opcode in _TEXTS)
    if _is_content_of_array(m, payload.is_text):
        m.push_big(payload)
        return
    m.measure_text(found.nbytes)
    content = payload.read()
    if isinstance(content, str):
        m.push(content)
    elif found.opcode in _STRINGS:
        _string(m, content)
    else:
        _as_call(m, bytearray(content) if found.opcode == _BYTEARRAY8 else content)


_TEXTS = (0x8C, 0x58, 0x8D)  # SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
_STRINGS = (0x54, 0x55)  # BINSTRING, SHORT_BINSTRING
_BYTEARRAY8 = 0x96


def _is_content_of_array(m: State, is_text: bool) -> bool:
    """True where numpy's picklers write the bytes of an array."""
    before = m.stack or (m.outer[-1] if m.outer else [])  # protocol 1 has a mark between
    if is_text and before and _is_named(before[-1], "encode"):  # protocols below 3 write bytes so
        return True
    if len(m.stack) > 1 and type(m.stack[-2]) is Call:  # (version, shape, dtype, by columns, content)
        return _is_named(m.stack[-2].fn, "dtype")
    return not m.stack and bool(m.outer) and bool(m.outer[-1]) and _is_named(m.outer[-1][-1], "_frombuffer")


def _is_named(node: object, name: str) -> bool:
    return type(node) is Global and node.name == name


# --- containers


def _set(m: State, value: Set) -> None:
    m.large += AS_CALL
    m.push_big(value)


def _kind(value: object) -> str:
    """An inert value in a word or two, for messages."""
    words = {Global: "a class", Dict: "a dict", Set: "a set", Persistent: "a storage", ByteString: "a string"}
    return words.get(type(value), f"a value of type {type(value).__name__}")


def _pairs(values: list[object]) -> Iterable[tuple[object, object]]:
    if len(values) % 2:
        raise RefusedError("has a dict key without a value")
    return zip(values[::2], values[1::2], strict=True)


def _append(m: State, values: list[object]) -> None:
    target = m.stack[-1]
    if type(target) is list:
        target.extend(values)
    elif type(target) is Call:
        m.faithful &= not target.items and not target.states
        target.is_plain, target.appended = False, extended(target.appended, values)
    else:
        raise RefusedError(f"appends to {_kind(target)}")


def _set_items(m: State, values: list[object]) -> None:
    target = m.stack[-1]
    if type(target) is Dict:
        target.items.extend(_pairs(values))
    elif type(target) is Call:
        m.faithful &= not target.states
        target.is_plain, target.items = False, extended(target.items, _pairs(values))
    else:
        raise RefusedError(f"sets items of {_kind(target)}")


def _add_items(m: State) -> None:
    values, target = m.to_mark(), m.stack[-1]
    if type(target) is Set and not target.frozen:
        target.values.extend(values)
    elif type(target) is Call:
        m.faithful = False  # picklers add to plain sets only, and `dump` will append
        target.is_plain, target.appended = False, extended(target.appended, values)
    else:
        raise RefusedError(f"adds to {_kind(target)}")


def _tuple3(m: State) -> None:
    m.small()
    third, second, first = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.push((first, second, third))


def _set_item(m: State) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _set_items(m, [key, value])


# --- classes, calls, states


def _global_line(m: State) -> Global:
    module = str(m.line(), "utf-8")
    return m.named(module, str(m.line(), "utf-8"))


def _stack_global(m: State) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if type(module) is not str or type(name) is not str:
        raise RefusedError("names a class by something that is not text")
    m.push(m.named(module, name))


def _extension(m: State, form: struct.Struct) -> NoReturn:
    code = m.number(form)
    m.log.saw("copyreg", f"_extension_registry[{code}]")
    raise RefusedError(f"names extension code {code}, which only the program that wrote it understands")


def _inst(m: State) -> None:
    fn = _global_line(m)
    m.push_call("inst", fn, tuple(m.to_mark()))


def _obj(m: State) -> None:
    cls, *args = m.to_mark()
    m.push_call("obj", cls, tuple(args))


def _newobj(m: State) -> None:
    args, cls = m.stack.pop(), m.stack.pop()
    m.push_call("newobj", cls, args)


def _newobj_ex(m: State) -> None:
    kwargs, args, cls = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.push_call("newobj_ex", cls, args, kwargs)


def _build(m: State) -> None:
    state, target = m.stack.pop(), m.stack[-1]
    if type(target) is not Call:
        raise RefusedError(f"sets the state of {_kind(target)}, which has none")
    target.is_plain, target.states = False, extended(target.states, [state])


# --- stack, memo, stream


def _pop(m: State) -> None:
    if m.stack:
        m.dropped([m.stack.pop()])
    else:  # the top is a MARK
        m.stack = m.outer.pop()


def _index(m: State) -> int:
    digits = m.line(_MAX_INDEX_DIGITS).strip()
    if not digits.isdigit():
        raise ValueError("not a memo index")
    return int(digits)


def _proto(m: State) -> None:
    m.protocol = m.number(_U8)
    if m.protocol > 5:
        raise RefusedError(f"is of protocol {m.protocol}; the newest known is 5")


def _out_of_band(m: State) -> NoReturn:
    raise RefusedError("needs a buffer from outside the file (protocol 5, out of band)")


RARE: dict[int, Callable[[State], None]] = {
    0x4E: lambda m: m.push(None),  # NONE
    0x88: lambda m: m.push(True),  # NEWTRUE
    0x49: _int,  # INT
    0x4C: _long_line,  # LONG
    0x8A: lambda m: _long(m, m.number(_U8)),  # LONG1
    0x8B: lambda m: _long(m, m.number(_I32)),  # LONG4
    0x46: lambda m: m.push(float(m.line(_MAX_DIGITS))),  # FLOAT
    0x47: lambda m: m.push(_F64.unpack(m.take(8))[0]),  # BINFLOAT
    0x56: lambda m: m.push(str(m.line(), "raw-unicode-escape")),  # UNICODE
    0x8D: lambda m: m.push(str(m.take(m.number(_U64)), "utf-8", "surrogatepass")),  # BINUNICODE8
    0x53: _string_line,  # STRING
    0x54: lambda m: _string(m, m.take(m.number(_I32))),  # BINSTRING
    0x55: lambda m: _string(m, m.take(m.number(_U8))),  # SHORT_BINSTRING
    0x43: lambda m: _as_call(m, m.take(m.number(_U8))),  # SHORT_BINBYTES
    0x42: lambda m: _as_call(m, m.take(m.number(_U32))),  # BINBYTES
    0x8E: lambda m: _as_call(m, m.take(m.number(_U64))),  # BINBYTES8
    0x96: lambda m: _as_call(m, bytearray(m.take(m.number(_U64)))),  # BYTEARRAY8
    0x97: _out_of_band,  # NEXT_BUFFER
    0x98: _out_of_band,  # READONLY_BUFFER
    0x5D: lambda m: m.push_big([]),  # EMPTY_LIST
    0x7D: lambda m: m.push_big(Dict()),  # EMPTY_DICT
    0x8F: lambda m: _set(m, Set()),  # EMPTY_SET
    0x6C: lambda m: m.push_big(m.to_mark()),  # LIST
    0x64: lambda m: m.push_big(Dict(list(_pairs(m.to_mark())))),  # DICT
    0x91: lambda m: _set(m, Set(m.to_mark(), frozen=True)),  # FROZENSET
    0x87: _tuple3,  # TUPLE3
    0x61: lambda m: _append(m, [m.stack.pop()]),  # APPEND
    0x65: lambda m: _append(m, m.to_mark()),  # APPENDS
    0x73: _set_item,  # SETITEM
    0x75: lambda m: _set_items(m, m.to_mark()),  # SETITEMS
    0x90: _add_items,  # ADDITEMS
    0x63: lambda m: m.push(_global_line(m)),  # GLOBAL
    0x93: _stack_global,  # STACK_GLOBAL
    0x82: lambda m: _extension(m, _U8),  # EXT1
    0x83: lambda m: _extension(m, _U16),  # EXT2
    0x84: lambda m: _extension(m, _I32),  # EXT4
    0x69: _inst,  # INST
    0x6F: _obj,  # OBJ
    0x81: _newobj,  # NEWOBJ
    0x92: _newobj_ex,  # NEWOBJ_EX
    0x62: _build,  # BUILD
    0x50: lambda m: m.push(Persistent(str(m.line(), "ascii"))),  # PERSID
    0x30: _pop,  # POP
    0x31: lambda m: m.dropped(m.to_mark()),  # POP_MARK
    0x32: lambda m: m.push(m.stack[-1]),  # DUP
    0x67: lambda m: m.push(m.get(_index(m))),  # GET
    0x70: lambda m: m.put(_index(m), m.stack[-1]),  # PUT
    0x80: _proto,  # PROTO
    0x95: lambda m: m.enter_frame(m.number(_U64)),  # FRAME
    PAYLOAD: _payload,
}
