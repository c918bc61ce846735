"""Inert objects: what a pickle becomes when nothing in it may run.

`None`, bool, int, float, str, bytes, bytearray, list and tuple are themselves. Everything else that a pickle can
build is one of the small classes below: data that says what the pickle asked for, enough to write it back.

The file chooses what is inside, so these objects may be cyclic, may share parts 2^100 times over and may be nested a
million deep. Therefore: never hash, compare, repr or copy them recursively, and walk them with a stack of your own and
a set of `id`s. Their own `__eq__` and `__hash__` are identity, their `__repr__` says only their kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeVar

from ckptool.core.bytes import ByteSource

_T = TypeVar("_T")
How = Literal["reduce", "newobj", "newobj_ex", "inst", "obj"]


class Inert:
    """Base of the classes below."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Global(Inert):
    """A class or function by name: never imported."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    @property
    def qualified(self) -> str:
        """``posix.system``"""
        return f"{self.module}.{self.name}"


class Call(Inert):
    """An object the pickle would have built by calling something.

    Attributes:
        how: the opcode family: REDUCE, NEWOBJ, NEWOBJ_EX, INST, OBJ.
        fn: what would be called; nearly always a `Global`.
        args: its arguments; a tuple, or whatever the file put there.
        kwargs: keyword arguments of NEWOBJ_EX, else None.
        appended: values that APPEND / APPENDS (or ADDITEMS) put into the result, in order.
        items: pairs that SETITEM / SETITEMS put into it, in order.
        states: what BUILD was called with, in order; nearly always none or one.

        is_plain: the machine knows it for a tensor as torch writes nearly all (`ckptool.formats.pickle.tensors`).

    What is put into the result is an empty tuple until there is something: most calls of a checkpoint have nothing.
    """

    __slots__ = ("appended", "args", "fn", "how", "is_plain", "items", "kwargs", "states")

    def __init__(self, how: How, fn: object, args: object, kwargs: object = None) -> None:
        self.how: How = how
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.appended: list[object] | tuple[()] = ()
        self.items: list[tuple[object, object]] | tuple[()] = ()
        self.states: list[object] | tuple[()] = ()

        self.is_plain = False


def extended(held: list[_T] | tuple[()], values: Iterable[_T]) -> list[_T]:
    """What a call's result holds with more put into it; the list itself, once it is one."""
    if type(held) is not list:
        return list(values)
    held.extend(values)
    return held


class Dict(Inert):
    """A dict as the pairs it was built from, in order: keys are never hashed."""

    __slots__ = ("items",)

    def __init__(self, items: list[tuple[object, object]] | None = None) -> None:
        self.items: list[tuple[object, object]] = [] if items is None else items


class Set(Inert):
    """A set or frozenset as the values it was built from."""

    __slots__ = ("frozen", "values")

    def __init__(self, values: list[object] | None = None, frozen: bool = False) -> None:
        self.values: list[object] = [] if values is None else values
        self.frozen = frozen


class Payload(Inert):
    """The bytes of a numpy array, left in the file.

    Attributes:
        file: the file.
        offset: where they begin.
        nbytes: how many bytes of the file they are.
        is_text: each byte is a character of UTF-8 text, as protocols below 3 write bytes.
    """

    __slots__ = ("file", "is_text", "nbytes", "offset")

    def __init__(self, file: ByteSource, offset: int, nbytes: int, is_text: bool) -> None:
        self.file = file
        self.offset = offset
        self.nbytes = nbytes
        self.is_text = is_text

    def read(self) -> bytes | str:
        """What stands there, as the pickle has it."""
        with self.file.open() as file:
            content = file.read(self.offset, self.nbytes)
        return str(content, "utf-8", "surrogatepass") if self.is_text else content


class Persistent(Inert):
    """A persistent id: torch's reference to a storage, ``("storage", FloatStorage, "0", "cpu", 9408)``."""

    __slots__ = ("pid",)

    def __init__(self, pid: object) -> None:
        self.pid = pid


class ByteString(Inert):
    """A Python 2 ``str`` (opcodes STRING, BINSTRING, SHORT_BINSTRING) that is not valid UTF-8."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


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
