"""numpy's `.npy` and `.npz`: a header for each array, its bytes after it; several in a zip archive.

Source: numpy's format documentation (numpy.lib.format), versions 1 to 3. The header is a Python literal of three
entries; it is read as data. Arrays of objects are pickles, and are left alone. Members that are deflated are unpacked
as they are read.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from math import prod
from pathlib import PurePath
from typing import NoReturn

from ckptool.core.bytes import ByteSource, OpenBytes
from ckptool.core.checkpoint import Checkpoint, Extra
from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import UnreadableError, UsageError, naming
from ckptool.core.format import Format
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Piece, Storage, Tensor
from ckptool.formats.inflated import InflatedBytes
from ckptool.formats.zip_directory import Member, read_directory

NPY = Format("numpy .npy")
NPZ = Format("numpy .npz")

MAGIC = b"\x93NUMPY"
_MAX_HEADER = 1 << 16  # bytes; numpy itself has 10,000
_LARGEST = 1 << 63
_DESCR = re.compile(r"([<>|=])([biufcVSUOMm])(\d*)")
_KINDS = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex"}
_LONG = re.compile(r"(\d)L\b")  # a number as Python 2 wrote it


@dataclass(frozen=True, slots=True)
class _Header:
    """What a header says.

    Attributes:
        dtype: its long name; "" for elements that are no numbers.
        descr: numpy's code of it.
        shape: of the array.
        by_columns: Fortran order.
        big_endian: numbers have their high byte first.
        nbytes: of the header, magic included.
    """

    dtype: str
    descr: str
    shape: tuple[int, ...]
    by_columns: bool
    big_endian: bool
    nbytes: int


def open_npy(source: ByteSource, select: str | None = None) -> Checkpoint:
    """Open an array; its key is the name of the file without the ending.

    Raises:
        UnreadableError: it is damaged, or is no array of numbers.
        UsageError: `select` is given.
    """
    _require_flat(source, select)
    with source.open() as file, naming(source.path):
        header = _read_header(file, source.path, source.name)
        key = PurePath(source.name).stem
        if not header.dtype:
            _refuse(source.path, f"is an array of {header.descr}, which are no numbers that tensors hold")
        tensor = _tensor(key, header, source, 0, source.size, source.path)
        end = header.nbytes + tensor.nbytes
        if end != source.size:
            _refuse(source.path, f"has {source.size:,} bytes where its header promises {end:,}", "get it again")
    return Checkpoint(source.path, NPY, {key: tensor}, files=(source,), nbytes=source.size)


def open_npz(source: ByteSource, select: str | None = None) -> Checkpoint:
    """Open an archive of arrays; their keys are the names of the members without `.npy`.

    Raises:
        UnreadableError: it is damaged, or can be understood in two ways.
        UsageError: `select` is given.
    """
    _require_flat(source, select)
    tensors: dict[str, Tensor] = {}
    extras: list[Extra] = []
    with source.open() as file, naming(source.path):
        for name, member in read_directory(file).items():
            if not name.endswith(".npy"):
                extras.append(Extra(name, f"{member.nbytes:,} bytes"))
                continue
            key = name.removesuffix(".npy")
            bytes_of: ByteSource = source
            start = member.offset
            if member.method != 0:
                bytes_of, start = _inflated(source, member), 0
            with bytes_of.open() as content:
                header = _read_header(content, source.path, name, start, start + member.nbytes)
            if not header.dtype:
                what = "objects, which are a pickle" if header.descr.startswith("|O") else header.descr
                extras.append(Extra(key, f"an array of {what}"))
                continue
            tensor = _tensor(key, header, bytes_of, start, member.nbytes, source.path)
            if header.nbytes + tensor.nbytes != member.nbytes:
                _refuse(
                    source.path,
                    f"gives {name} {member.nbytes:,} bytes where its header needs {header.nbytes + tensor.nbytes:,}",
                    "get it again",
                )
            tensors[key] = tensor
    return Checkpoint(source.path, NPZ, tensors, files=(source,), nbytes=source.size, extras=tuple(extras))


def _require_flat(source: ByteSource, select: str | None) -> None:
    if select is not None:
        raise UsageError(f"{source.path} holds one flat set of arrays: nothing to select", path=source.path)


def _inflated(source: ByteSource, member: Member) -> InflatedBytes:
    if member.method != 8:
        _refuse(source.path, f"packs {member.name} by method {member.method}, which numpy does not write")
    return InflatedBytes(source, member.name, member.offset, member.packed_nbytes, member.nbytes)


def _read_header(file: OpenBytes, path: PurePath, name: str, start: int = 0, end: int | None = None) -> _Header:
    end = file.size if end is None else end
    if end - start < 10 or file.read(start, 6) != MAGIC:
        _refuse(path, f"is damaged: {name} does not begin as an array does", "get it again")
    major = file.read(start + 6, 1)[0]
    if major not in (1, 2, 3):
        _refuse(path, f"has {name} in version {major} of numpy's format, which is not known")
    width = 2 if major == 1 else 4
    length = int.from_bytes(file.read(start + 8, width), "little") if end - start >= 8 + width else _MAX_HEADER + 1
    nbytes = 8 + width + length
    if length > _MAX_HEADER or start + nbytes > end:
        _refuse(path, f"is damaged: {name} claims a header of {length:,} bytes", "get it again")
    text = file.read(start + 8 + width, length).decode("utf-8" if major == 3 else "latin-1", "replace")
    try:
        entries = ast.literal_eval(_LONG.sub(r"\1", text).strip())
        descr, by_columns, shape = entries["descr"], entries["fortran_order"], entries["shape"]
        if len(entries) != 3 or type(by_columns) is not bool or type(shape) is not tuple:
            raise ValueError
        if not all(type(size) is int and 0 <= size < _LARGEST for size in shape) or prod(shape) >= _LARGEST:
            raise ValueError
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        _refuse(path, f"is damaged: the header of {name} is not one that numpy writes", "get it again")
    dtype, big = _dtype(descr)
    return _Header(dtype, str(descr)[:40], shape, by_columns, big, nbytes)


def _dtype(descr: object) -> tuple[str, bool]:
    """The long name of a dtype and whether it is big-endian; an empty name for what is not a number."""
    match = _DESCR.fullmatch(descr) if isinstance(descr, str) else None
    if match is None or match[2] not in _KINDS:
        return "", False
    size = int(match[3] or 1)
    name = "bool" if match[2] == "b" else f"{_KINDS[match[2]]}{8 * size}"
    known = name in DTYPES and DTYPES[name].block_nbytes == size
    return (name if known else ""), match[1] == ">" and size > 1


def _tensor(key: str, header: _Header, source: ByteSource, start: int, nbytes: int, path: PurePath) -> Tensor:
    spec = TensorSpec(key, header.dtype, header.shape)
    storage = Storage(source, start + header.nbytes, spec.nbytes, header.big_endian)
    strides = None
    if header.by_columns and len(header.shape) > 1:
        strides = tuple(prod(header.shape[:axis]) for axis in range(len(header.shape)))
    if spec.nbytes > nbytes:
        _refuse(path, f"ends early: the array {key} needs {spec.nbytes:,} bytes", "get it again")
    return Tensor(spec, (Piece(storage, 0, spec.shape, strides),))


def _refuse(path: PurePath, what: str, hint: str = "save its arrays again with numpy.savez") -> NoReturn:
    raise UnreadableError(f"{path} {what}", hint=hint, path=path)
