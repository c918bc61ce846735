"""numpy arrays in a pickle: what they are, and where their numbers lie. numpy is not called.

Source: numpy's `array_reduce` and `array_setstate` (multiarray/methods.c) and `_frombuffer` (numeric.py). An array is
``_reconstruct(ndarray, (0,), b"b")`` whose state is (version, shape, dtype, by columns, content), or since protocol 5
``_frombuffer(content, dtype, shape, order)``. The content is bytes; Python 2 wrote a string, and protocols below 3
write bytes as text, one character for each. Arrays of objects hold a list there, and are none here. Where a tensor of
Paddle is not in a plain `state_dict`, it is ``tuple((name, array))``.
"""

from __future__ import annotations

from typing import NamedTuple

from ckptool.core.dtypes import DTYPES
from ckptool.formats.pickle.objects import ByteString, Call, Global, Payload, as_bytes

_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
RECONSTRUCT = frozenset((module, "_reconstruct") for module in _MODULES)
FROM_BUFFER = frozenset((module, "_frombuffer") for module in _NUMERIC)
SCALAR = frozenset((module, "scalar") for module in _MODULES)
NAMED = frozenset((module, "tuple") for module in ("builtins", "__builtin__"))
_KINDS = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex"}
_EXTENSIONS = "ml_dtypes"  # whose types are called as torch's are


class Number(NamedTuple):
    """A numpy dtype of numbers: its long name here, and whether the high byte comes first."""

    dtype: str
    big_endian: bool


class Array(NamedTuple):
    """A numpy array, understood.

    Attributes:
        number: what its elements are.
        shape: as the pickle says it, unchecked.
        by_columns: Fortran order.
        content: its bytes, or where they lie; None for anything else.
    """

    number: Number
    shape: object
    by_columns: bool
    content: bytes | Payload | str | None


def array_of(node: object) -> Array | None:
    """The array of numbers that a pickle would make; None for anything else, arrays of objects and of text too.

    Example:
        >>> dtype = Call("reduce", Global("numpy", "dtype"), ("f4", False, True))
        >>> dtype.states = [(3, "<", None, None, None, -1, -1, 0)]
        >>> args = (Global("numpy", "ndarray"), (0,), b"b")
        >>> array = Call("reduce", Global("numpy._core.multiarray", "_reconstruct"), args)
        >>> array.states = [(1, (2,), dtype, False, bytes(8))]
        >>> array_of(array).number, array_of(array).shape
        (Number(dtype='float32', big_endian=False), (2,))
    """
    if type(node) is not Call or type(node.fn) is not Global or type(node.args) is not tuple:
        return None
    name = (node.fn.module, node.fn.name)
    if name in RECONSTRUCT:
        state = node.states[0] if len(node.states) == 1 else None
        if type(state) is not tuple or len(state) not in (4, 5) or not _is_plain(node.args):
            return None
        shape, dtype, by_columns, content = state[-4:]
        is_by_columns = type(by_columns) in (bool, int) and bool(by_columns)
    elif name in FROM_BUFFER and len(node.args) == 4:
        content, dtype, shape, order = node.args
        is_by_columns = type(order) is str and order == "F"
    elif name in NAMED and len(node.args) == 1:
        pair = node.args[0]
        is_named = type(pair) is tuple and len(pair) == 2 and type(pair[0]) is str
        return array_of(pair[1]) if is_named and not _is_of(pair[1], NAMED) else None
    else:
        return None
    number = number_of(dtype)
    return None if number is None else Array(number, shape, is_by_columns, _content(content))


def spell_scalar(node: object) -> None:
    """Turn ``scalar(dtype, bytes)`` into the same number as an array without axes; leave anything else alone."""
    if not _is_of(node, SCALAR) or type(node) is not Call or type(node.args) is not tuple or len(node.args) != 2:
        return
    dtype, content = node.args
    if type(node.fn) is Global and not node.states and number_of(dtype) is not None and as_bytes(content) is not None:
        node.args = (Global("numpy", "ndarray"), (0,), b"b")
        node.states = [(1, (), dtype, False, content)]
        node.fn = Global(node.fn.module, "_reconstruct")


def number_of(dtype: object) -> Number | None:
    """What a pickled numpy dtype says of its numbers; None if its elements are none, or none that tensors hold.

    Example:
        >>> number_of(Call("reduce", Global("numpy", "dtype"), ("f2", False, True)))
        Number(dtype='float16', big_endian=False)
        >>> number_of(Call("reduce", Global("numpy", "dtype"), ("O8", False, True)))
    """
    if (
        type(dtype) is not Call
        or type(dtype.fn) is not Global
        or (dtype.fn.module, dtype.fn.name) != ("numpy", "dtype")
    ):
        return None
    code = dtype.args[0] if type(dtype.args) is tuple and dtype.args else None
    name = ""
    if type(code) is str and code[:1] in _KINDS and code[1:].isdecimal() and len(code) < 4:
        name = "bool" if code == "b1" else f"{_KINDS[code[0]]}{8 * int(code[1:])}"
    elif type(code) is Global and code.module == _EXTENSIONS:
        name = code.name
    if name not in DTYPES or DTYPES[name].is_packed:
        return None
    state = dtype.states[0] if dtype.states else None
    order = state[1] if type(state) is tuple and len(state) > 1 else "<"
    return Number(name, type(order) is str and order == ">")


def _is_of(node: object, names: frozenset[tuple[str, str]]) -> bool:
    return type(node) is Call and type(node.fn) is Global and (node.fn.module, node.fn.name) in names


def _is_plain(args: tuple[object, ...]) -> bool:
    """True for an array of numpy's own class, also one that was mapped from a file; masked arrays are others."""
    cls = args[0] if args else None
    return type(cls) is Global and cls.name in ("ndarray", "memmap") and cls.module.partition(".")[0] == "numpy"


def _content(value: object) -> bytes | Payload | str | None:
    """The bytes of an array; text where the pickle does not say whether it was a string of Python 2."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, (Payload, str)):
        return value
    if type(value) is ByteString:
        return value.data
    if type(value) is Call and type(value.args) is tuple and len(value.args) == 2 and type(value.args[0]) is Payload:
        return value.args[0]
    return as_bytes(value)
