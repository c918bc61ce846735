"""torch's references to storages: which class means which dtype, and how many bytes a reference declares."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import UnreadableError
from ckptool.core.tensor import Storage
from ckptool.formats.pickle.objects import Global, Payload, Persistent

MAX_INT = (1 << 63) - 1


class StorageRef(NamedTuple):
    """A storage as a pickle refers to it.

    Attributes:
        storage: its bytes in the file.
        dtype: the dtype of its elements; None for an untyped storage.
    """

    storage: Storage
    dtype: str | None


class ArrayBytes(NamedTuple):
    """The bytes of a numpy array as a pickle refers to them.

    Attributes:
        content: what the pickle has in their place.
        nbytes: how many the dtype and the shape of the array need.
    """

    content: bytes | str | Payload
    nbytes: int


StorageOf = Callable[[Persistent | ArrayBytes, str], StorageRef]
"""Finds a storage: (persistent id, key of the tensor that asks, for messages) -> StorageRef, or UnreadableError."""


STORAGE_CLASSES = {
    dtype.name: f"{dtype.storage}Storage" for dtype in DTYPES.values() if dtype.storage and dtype.name != "complex32"
}
"""The storage class that torch writes for a dtype; dtypes that are not here, complex32 too, get an untyped storage."""


_STORAGES: dict[tuple[str, str], str | None] = {
    (module, f"{stem}Storage"): dtype
    for stem, dtype in (
        *((dtype.storage, dtype.name) for dtype in DTYPES.values() if dtype.storage),
        ("Untyped", None),
        ("_Untyped", None),
    )
    for module in ("torch", "torch.storage", "torch.cuda", "torch.cpu", "torch.mps", "torch.xpu")
}


def storage_dtype(node: object) -> tuple[bool, str | None]:
    """(is a storage class, its dtype); the dtype of an untyped storage is None.

    Example:
        >>> storage_dtype(Global("torch.cuda", "HalfStorage"))
        (True, 'float16')
    """
    if type(node) is not Global:
        return False, None
    name = (node.module, node.name)
    return name in _STORAGES, _STORAGES.get(name)


def is_storage_id(pid: object) -> bool:
    """True if a persistent id refers to a storage, and not to the source code of a class."""
    return type(pid) is tuple and len(pid) in (5, 6) and type(pid[0]) is str and pid[0] == "storage"


def storage_id(pid: object, key: str, parts: int | None = None) -> tuple[str, str | None, int]:
    """(name, dtype, nbytes) of a storage that a pickle refers to; the dtype of an untyped storage is None.

    `parts` is how many an id has in this format; None where both 5 and 6 occur.

    Example:
        >>> storage_id(("storage", Global("torch", "HalfStorage"), "0", "cpu", 10), "conv1.weight")
        ('0', 'float16', 20)
    """
    if type(pid) is not tuple or not is_storage_id(pid):
        raise bad_tensor(key, "refers to something that is not a storage")
    known, dtype = storage_dtype(pid[1])
    name, numel = pid[2], pid[4]
    if (
        len(pid) != (parts or len(pid))
        or not known
        or type(name) is not str
        or type(numel) is not int
        or not 0 <= numel <= MAX_INT
    ):
        raise bad_tensor(key, "refers to a storage in a way that torch does not write")
    return name, dtype, numel * (DTYPES[dtype].block_nbytes if dtype else 1)


def bad_tensor(key: str, what: str) -> UnreadableError:
    return UnreadableError(f"tensor {key or '(the whole file)'} {what}", key=key)


_SECOND_NAMES = {dtype.alias: dtype.name for dtype in DTYPES.values() if dtype.alias}


def named_dtype(node: object) -> str | None:
    """The dtype that ``torch.float32``, as a global, stands for."""
    if isinstance(node, Global) and node.module == "torch":
        dtype = DTYPES.get(_SECOND_NAMES.get(node.name, node.name))
        # the numbers of 4 and 6 bits are not torch's
        return dtype.name if dtype is not None and not (dtype.is_packed and dtype.kind == "float") else None
    return None
