"""Equality of inert objects: what lies around the tensors of two files.

The file chose them, so they may be cyclic, shared 2^100 times over and nested a million deep. Two objects are equal if
no path tells them apart. That is found without recursion by assuming equality of what is met and joining it into
classes: as many steps as there are objects, not paths.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

from ckptool.core.tensor import Tensor
from ckptool.formats.pickle.objects import ByteString, Call, Dict, Global, Set

_LONG = 64
Items = Sequence[tuple[object, object]]


class Unequal(Exception):  # noqa: N818  # not an error: an answer, raised through the loops
    """The objects differ."""


def tensor_pairs(
    old: object, new: object, old_tensors: Mapping[int, Tensor], new_tensors: Mapping[int, Tensor]
) -> list[tuple[Tensor, Tensor]] | None:
    """The tensors that stand in the same places of two objects; None if the objects differ otherwise.

    Tensors are looked up by the id of their object; their specs are compared here, their bytes are the caller's.
    Dicts are equal in any order, as Python has it. NaN equals itself; 1, 1.0 and True differ. Storages outside of
    tensors count as different, for nothing here tells what is in them.

    Example:
        >>> tensor_pairs(Dict([("a", 1), ("b", [2.0])]), Dict([("b", [2.0]), ("a", 1)]), {}, {})
        []
        >>> tensor_pairs([1], [True], {}, {}) is None
        True
    """
    classes: dict[int, int] = {}
    found: list[tuple[Tensor, Tensor]] = []
    todo = [(old, new)]
    try:
        while todo:
            a, b = todo.pop()
            if not _is_decided(a, b) and _join(classes, id(a), id(b)):
                pair = old_tensors.get(id(a)), new_tensors.get(id(b))
                if pair[0] is not None and pair[1] is not None:
                    _require((pair[0].dtype, pair[0].shape) == (pair[1].dtype, pair[1].shape))
                    found.append((pair[0], pair[1]))
                else:
                    _require(pair == (None, None))
                    todo.extend(pair for pair in _children(a, b) if not _is_decided(*pair))
    except Unequal:
        return None
    return found


def _is_decided(a: object, b: object) -> bool:
    """True if two values are short, and equal; raises `Unequal` if they are short and differ."""
    if not (_is_short(a) or _is_short(b)):
        return False
    _require(_leaf(a) == _leaf(b))
    return True


def _require(true: bool) -> None:
    if not true:
        raise Unequal


def _is_short(node: object) -> bool:
    """A value that is compared at once; long ones are compared once for each pair, as containers are."""
    if node is None or type(node) in (bool, float, Global):
        return True
    if type(node) is int:
        return node.bit_length() <= _LONG
    return isinstance(node, str | bytes | bytearray) and len(node) <= _LONG


def _leaf(node: object) -> object:
    if type(node) is float:
        return "float", struct.pack("<d", node)
    if type(node) is Global:
        return "global", node.module, node.name
    if type(node) is ByteString:
        return "bytestring", node.data
    if node is None or isinstance(node, bool | int | str | bytes | bytearray):
        return type(node).__name__, node
    return type(node), id(node)


def _join(classes: dict[int, int], a: int, b: int) -> bool:
    """Makes two classes one; False if they were."""
    a, b = _root(classes, a), _root(classes, b)
    classes[a] = b
    return a != b


def _root(classes: dict[int, int], a: int) -> int:
    while classes.setdefault(a, a) != a:
        classes[a] = classes[classes[a]]
        a = classes[a]
    return a


def _children(a: object, b: object) -> Iterator[tuple[object, object]]:
    """The pairs on which the equality of two objects hangs."""
    kind = type(a)
    _require(kind is type(b))
    parts = _PARTS.get(kind)
    if parts is None:
        _require(_leaf(a) == _leaf(b))
        return
    head_a, rest_a, items_a = parts(a)
    head_b, rest_b, items_b = parts(b)
    _require(head_a == head_b and len(rest_a) == len(rest_b))
    yield from zip(rest_a, rest_b, strict=True)
    yield from _entries(items_a, items_b)


def _entries(a: Items, b: Items) -> Iterator[tuple[object, object]]:
    """Entries of two dicts: those with plain keys by key, the others in their order."""
    if _have_the_same_texts(a, b):
        yield from ((ours[1], theirs[1]) for ours, theirs in zip(a, b, strict=True))
        return
    plain_a, other_a = _by_key(a)
    plain_b, other_b = _by_key(b)
    _require(plain_a.keys() == plain_b.keys() and len(other_a) == len(other_b))
    for key, value in plain_a.items():
        yield value, plain_b[key]
    for (key_a, value_a), (key_b, value_b) in zip(other_a, other_b, strict=True):
        yield key_a, key_b
        yield value_a, value_b


def _have_the_same_texts(a: Items, b: Items) -> bool:
    """True if the keys of two dicts are texts, each once, in one order: no tables are needed then."""
    if len(a) != len(b) or not all(
        type(ours[0]) is str and ours[0] == theirs[0] for ours, theirs in zip(a, b, strict=True)
    ):
        return False
    return len({key for key, _ in a}) == len(a)


def _by_key(items: Items) -> tuple[dict[object, object], list[tuple[object, object]]]:
    plain: dict[object, object] = {}
    other = []
    for key, value in items:
        if isinstance(key, str) or _is_short(key):
            plain[_leaf(key)] = value
        else:
            other.append((key, value))
    return plain, other


_Parts = tuple[object, Sequence[object], Items]


def _call(node: object) -> _Parts:
    assert isinstance(node, Call)
    counts = node.how, len(node.appended), len(node.states)
    return counts, [node.fn, node.args, node.kwargs, *node.appended, *node.states], node.items


def _dict(node: object) -> _Parts:
    assert isinstance(node, Dict)
    return None, [], node.items


def _set(node: object) -> _Parts:
    assert isinstance(node, Set)
    return node.frozen, [], [(value, None) for value in node.values]


def _sequence(node: object) -> _Parts:
    assert isinstance(node, list | tuple)
    return None, node, []


_PARTS: dict[type, Callable[[object], _Parts]] = {
    Call: _call,
    Dict: _dict,
    Set: _set,
    list: _sequence,
    tuple: _sequence,
}
