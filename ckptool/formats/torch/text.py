"""Inert objects in a few words: "90", "{lr: 0.1, …3 more}", "param_groups: 1, state: 62 entries"."""

from __future__ import annotations

import struct

from ckptool.core.counts import many
from ckptool.formats.pickle.objects import ByteString, Call, Dict, Global, Persistent, Set, as_bytes
from ckptool.formats.torch.names import key_text
from ckptool.formats.torch.tensor import is_tensor
from ckptool.formats.torch.walk import Pairs, Walk, is_mapping

_LENGTH = 60
_ROOM_FOR_MORE = 12
_NUMPY = {"f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q"}
_NUMPY |= {"u1": "B", "u2": "H", "u4": "I", "u8": "Q", "b1": "?"}


def describe(node: object, walk: Walk) -> str:
    """The object in at most 60 characters, for a person; what is deeper than two levels is only hinted at.

    Example:
        >>> describe(Dict([("lr", 0.1), ("betas", (0.9, 0.999)), ("state", Dict())]), Walk(0))
        '{lr: 0.1, betas: (0.9, 0.999), state: {}}'
    """
    if is_mapping(node):
        return _mapping(walk.pairs(node))
    if type(node) is list or type(node) is tuple:
        opening, closing = ("[", "]") if type(node) is list else ("(", ")")
        return _joined(opening, closing, [("", value) for value in node[:_LENGTH]], len(node))
    if type(node) is Call and not is_tensor(node) and _atom(node) == _class_name(node):
        attributes = walk.attributes(node)
        if not attributes and type(node.args) is tuple:
            args: Pairs = [("", value) for value in node.args[:_LENGTH]]
            return _joined(f"{_class_name(node)}(", ")", args, len(node.args))
        return _joined(f"{_class_name(node)}(", ")", attributes, len(attributes), "=")
    return _short(_atom(node), _LENGTH)


def _mapping(pairs: Pairs) -> str:
    """A dict; an optimizer's by the sizes of its two parts."""
    named = {key: value for key, value in pairs if type(key) is str}
    groups, state = named.get("param_groups"), named.get("state")
    if type(groups) is list and is_mapping(state):
        size = len(state.items) if isinstance(state, Dict | Call) else 0
        return f"param_groups: {len(groups)}, state: {size} {'entry' if size == 1 else 'entries'}"
    if pairs and all(is_tensor(value) for _, value in pairs):
        return f"{len(pairs):,} {'tensor' if len(pairs) == 1 else 'tensors'}"
    return _joined("{", "}", pairs, len(pairs), ": ")


def _joined(opening: str, closing: str, pairs: Pairs, count: int, mark: str = "") -> str:
    """As many values as fit, and how many more there are."""
    text, shown = opening, 0
    for key, value in pairs:
        part = (f"{_short(key_text(key), 24)}{mark}" if mark else "") + _short(_atom(value), 24)
        part = (", " if shown else "") + part
        if len(text) + len(part) > _LENGTH - _ROOM_FOR_MORE:
            break
        text += part
        shown += 1
    more = count - shown
    if more:
        text += f"{', ' if shown else ''}…{more:,}{' more' if shown else ''}"
    return text + closing


def _atom(node: object) -> str:
    """One value, without looking into containers."""
    kind = type(node)
    if type(node) is str:
        return node
    if kind is float or kind is bool or node is None:
        return str(node)
    if type(node) is int:
        return str(node) if node.bit_length() <= 200 else f"an integer of {node.bit_length():,} bits"
    if isinstance(node, bytes | bytearray):
        return f"{many(len(node), 'byte')}"
    if type(node) is ByteString:
        return f"{len(node.data):,} bytes"
    if type(node) is Global:
        return node.qualified
    if type(node) is Persistent:
        return "storage"
    if kind is Set or kind is list or kind is tuple or kind is Dict:
        return _brackets(node)
    if type(node) is Call:
        return _call(node)
    return "object"


def _brackets(node: object) -> str:
    if type(node) is Dict:
        return "{…}" if node.items else "{}"
    if type(node) is Set:
        return f"set of {len(node.values):,}"
    if type(node) is tuple:
        plain = len(node) <= 4 and all(type(value) in (int, float, bool) for value in node)
        return f"({', '.join(_short(_atom(value), 12) for value in node)})" if plain else "(…)"
    return "[…]" if node else "[]"


def _class_name(node: Call) -> str:
    return _short(node.fn.name, 40) if type(node.fn) is Global else "object"


def _call(node: Call) -> str:
    """A number or text that a call would give, where that is known without making it; else the class."""
    if is_tensor(node):
        return "tensor"
    if is_mapping(node):
        return "{…}" if node.items else "{}"
    args = node.args if type(node.args) is tuple else ()
    name = node.fn.qualified if type(node.fn) is Global else ""
    if name in ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar") and len(args) == 2:
        return _numpy_scalar(args[0], args[1]) or "numpy scalar"
    if name in ("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath"):
        return "/".join(part for part in args if type(part) is str).replace("//", "/", 1)
    if name in ("torch.device", "numpy.dtype", "torch.Size", "decimal.Decimal") and args:
        return (
            _brackets(args[0]) if type(args[0]) is tuple else _short(str(args[0]), 24) if type(args[0]) is str else name
        )
    return _class_name(node)


def _numpy_scalar(dtype: object, content: object) -> str | None:
    """The number in a pickled numpy scalar."""
    raw = as_bytes(content)
    name = dtype.args[0] if type(dtype) is Call and type(dtype.args) is tuple and dtype.args else None
    if raw is None or type(name) is not str or name not in _NUMPY or not isinstance(dtype, Call):
        return None
    state = dtype.states[0] if dtype.states else None
    order = ">" if type(state) is tuple and len(state) > 1 and type(state[1]) is str and state[1] == ">" else "<"
    if struct.calcsize(order + _NUMPY[name]) != len(raw):
        return None
    return str(struct.unpack(order + _NUMPY[name], raw)[0])


def _short(text: str, limit: int) -> str:
    """Shortened in the middle."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[head + 1 - limit :]}"
