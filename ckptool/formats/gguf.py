"""GGUF: the container of ggml and llama.cpp. Magic, version, typed key-value pairs, tensor infos, padding, data.

Source: the specification in ggml's `docs/gguf.md`, and what ggml's own reader refuses. Versions 2 and 3 are alike;
files of either byte order have the same magic, and tell theirs by the version. Dimensions stand innermost first.
Everything that a file says about itself is held against its size before it is used; long arrays are counted and
skipped.
"""

from __future__ import annotations

import struct
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import NoReturn

from ckptool.core.bytes import ByteSource, OpenBytes
from ckptool.core.checkpoint import Checkpoint, Extra
from ckptool.core.columns import Columns
from ckptool.core.dtypes import DTYPES, GGUF_DTYPES
from ckptool.core.errors import UnreadableError, UsageError
from ckptool.core.format import Format
from ckptool.core.spec import Form, TensorSpec
from ckptool.core.tensor import Piece, Storage, Tensor
from ckptool.formats.image import align

GGUF = Format("GGUF", has_metadata=True)
BYTE_ORDER = "GGUF.byte_order"
"""The name in the metadata that says "big": halves inside blocks are swapped."""
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
"""Before a tensor's name, a pair whose value is its shape in torch's order. ComfyUI-GGUF writes it for image models:
ggml has 4 axes, and its blocks want rows of 256. Plain tensors get this shape here, blocks where they are decoded."""

_MAX_HEADER = 1 << 29  # bytes of pairs and infos
_MAX_PAIRS = 1 << 16
_MAX_TENSORS = 1 << 20
_MAX_WALKED = 4_000_000  # strings in arrays: each must be stepped over
_MAX_KEY = 65_535
_MAX_ALIGNMENT = 1 << 30
_MAX_RANK = 8  # ggml has 4; others write 5
_SHOWN = 8  # items of an array, and
_SHOWN_TEXT = 4096  # bytes of a string that are kept; longer ones are counted
_WINDOW = 1 << 20
_LEAST_PAIR, _LEAST_INFO = 13, 24

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_NAMES = ("u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64")
_REMOVED = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}
_TEMPORARY = {9: "Q8_1", 15: "Q8_K"}  # ggml computes with them, and no converter writes them


def open_gguf(source: ByteSource, select: str | None = None) -> Checkpoint:
    """Open a GGUF file by its header.

    Tensors have ggml's block types as their dtypes and torch's order of dimensions. Key-value pairs are the metadata;
    long arrays, as vocabularies are, are listed as extras with their length.

    Raises:
        UnreadableError: it is damaged, of a version that is not read, or says something that cannot be true.
        UsageError: `select` is given; the format has no nested dicts.
    """
    if select is not None:
        raise UsageError(f"{source.path} is a GGUF file, which holds one flat set of tensors: nothing to select")
    with source.open() as file:
        return _Reader(source, file).checkpoint()


@dataclass(frozen=True, slots=True)
class _Info:
    """What a tensor's info says.

    Attributes:
        key: its name.
        form: dtype, shape in torch's order, bytes.
        offset: of its data, from the start of all data.
    """

    key: str
    form: Form
    offset: int


class _Reader:
    """Reads a header from front to back, in windows."""

    def __init__(self, source: ByteSource, file: OpenBytes) -> None:
        self.source = source
        self.file = file
        self.at = 0
        self.start = 0
        self.held = b""
        self.walked = 0
        self.order = "<"
        self.metadata: dict[str, str] = {}
        self.extras: list[Extra] = []
        self.alignment = 32

    def checkpoint(self) -> Checkpoint:
        tensors, pairs = self._begin()
        for _ in range(pairs):
            self._pair()
        known: dict[tuple[int, tuple[int, ...]], Form] = {}
        infos = [self._info(known) for _ in range(tensors)]
        start = align(self.at, self.alignment)
        self._check_layout(infos, start)
        tensors_of: Mapping[str, Tensor]
        if self.order == ">":
            self.metadata[BYTE_ORDER] = "big"
            tensors_of = {info.key: _big_endian(self.source, info, start) for info in infos}
        else:
            infos.sort(key=lambda info: info.offset)
            starts = array("Q", (start + info.offset for info in infos))
            tensors_of = Columns(self.source, [info.key for info in infos], [info.form for info in infos], starts)
        return Checkpoint(
            path=self.source.path,
            format=GGUF,
            tensors=tensors_of,
            files=(self.source,),
            nbytes=self.source.size,
            metadata=self.metadata,
            extras=tuple(self.extras),
        )

    # ------------------------------------------------------------------------------------------ pieces

    def _begin(self) -> tuple[int, int]:
        """The numbers of tensors and of pairs."""
        self._take(4)
        version = self._number("I")
        if version & 0xFFFF == 0:
            self.order, version = ">", int.from_bytes(version.to_bytes(4, "little"), "big")
        if version == 1:
            self._refuse("is GGUF of version 1, which ggml does not read either", "convert it again with llama.cpp")
        if version not in (2, 3):
            self._refuse(f"is GGUF of version {version}", "ckptool reads the versions 2 and 3")
        tensors, pairs = self._number("Q"), self._number("Q")
        left = self.file.size - self.at
        if tensors > min(_MAX_TENSORS, left // _LEAST_INFO) or pairs > min(_MAX_PAIRS, left // _LEAST_PAIR):
            self._refuse(f"claims {tensors:,} tensors and {pairs:,} key-value pairs in {self.file.size:,} bytes")
        return tensors, pairs

    def _pair(self) -> None:
        key = self._string(_MAX_KEY, "a key")
        if key in self.metadata or any(extra.name == key for extra in self.extras):
            self._refuse(f'has the key "{key}" twice')
        kind = self._number("I")
        if kind == _ARRAY:
            item, count = self._number("I"), self._number("Q")
            text = self._array(key, item, count)
            if text is None and key.startswith(ORIGINAL_SHAPE):
                self._refuse(f'gives "{key}" {count:,} dimensions')
            if text is None:
                self.extras.append(Extra(key, f"{count:,} × {_NAMES[item]}"))
            else:
                self.metadata[key] = text
            return
        value = self._value(key, kind)
        if key == "general.alignment":
            if kind != 4 or not isinstance(value, int) or not 0 < value <= _MAX_ALIGNMENT or value & (value - 1):
                self._refuse(f"says general.alignment = {value}, which is no power of two up to 2**30")
            self.alignment = value
        self.metadata[key] = _shown(value)

    def _value(self, key: str, kind: int) -> int | float | str | bool:
        if kind == _STRING:
            return self._string(None, f'the value of "{key}"')
        if kind not in _SCALARS:
            self._refuse(f'gives "{key}" a value of type {kind}, which GGUF does not have')
        value = self._number(_SCALARS[kind])
        if kind == _BOOL:
            if value > 1:
                self._refuse(f'gives "{key}" the boolean {value}')
            return bool(value)
        return value

    def _array(self, key: str, item: int, count: int) -> str | None:
        """The items as text; None for an array that is only counted."""
        if item in _SCALARS:
            size = struct.calcsize(f"<{_SCALARS[item]}")
            if count > (self.file.size - self.at) // size:
                self._refuse(f'gives "{key}" {count:,} items, more than the file has bytes for')
            if count > _SHOWN:
                self.at += count * size
                self._check_header()
                return None
            return f"[{', '.join(_shown(self._value(key, item)) for _ in range(count))}]"
        if item != _STRING:
            named = "arrays" if item == _ARRAY else f"items of type {item}"
            self._refuse(f'gives "{key}" an array of {named}, which ggml does not read')
        if count > (self.file.size - self.at) // 8:
            self._refuse(f'gives "{key}" {count:,} items, more than the file has bytes for')
        self.walked += count
        if self.walked > _MAX_WALKED:
            self._refuse(f"has more than {_MAX_WALKED:,} strings in its metadata")
        if count <= _SHOWN:
            return f"[{', '.join(self._string(None, f'an item of {key}') for _ in range(count))}]"
        for _ in range(count):
            length = self._number("Q")
            if length > self.file.size - self.at:
                self._refuse(f'gives "{key}" a string of {length:,} bytes, more than the file has')
            self.at += length
        self._check_header()
        return None

    def _info(self, known: dict[tuple[int, tuple[int, ...]], Form]) -> _Info:
        key = self._string(_MAX_KEY, "a tensor's name")
        rank = self._number("I")
        if rank > _MAX_RANK:
            self._refuse(f'gives the tensor "{key}" {rank} dimensions')
        shape = tuple(self._number("Q") for _ in range(rank))[::-1]
        kind, offset = self._number("I"), self._number("Q")
        if f"{ORIGINAL_SHAPE}{key}" in self.metadata:
            shape = self._restored(key, kind, shape)
        form = known.get((kind, shape))
        if form is None:
            form = known[kind, shape] = self._form(key, kind, shape)
        if offset % self.alignment:
            self._refuse(f'puts the tensor "{key}" at byte {offset:,}, which is no multiple of {self.alignment}')
        return _Info(key, form, offset)

    def _restored(self, key: str, kind: int, stored: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that a tensor had before it was made to fit; of blocks the stored one, which their rows need."""
        said = self.metadata[f"{ORIGINAL_SHAPE}{key}"]
        shape = original_shape(self.metadata, key)
        if shape is None or prod(shape) != prod(stored):
            self._refuse(f'says that the tensor "{key}", of shape {list(stored)}, was of shape {said[:80]}')
        dtype = GGUF_DTYPES.get(kind)
        if dtype is None or DTYPES[dtype].block_elements > 1:
            return stored
        del self.metadata[f"{ORIGINAL_SHAPE}{key}"]  # it is the tensor's shape now
        return shape

    def _form(self, key: str, kind: int, shape: tuple[int, ...]) -> Form:
        name = GGUF_DTYPES.get(kind)
        if name is None:
            what = f"{_REMOVED[kind]}, which ggml has removed" if kind in _REMOVED else f"number {kind}"
            what = f"{_TEMPORARY[kind]}, which is for activations and not for files" if kind in _TEMPORARY else what
            self._refuse(
                f'stores the tensor "{key}" as type {what}',
                "a fork of llama.cpp may have its own types; export it there",
            )
        dtype, elements = DTYPES[name], 1
        for dimension in shape:
            elements *= dimension
        if elements > 1 << 63:
            self._refuse(f'gives the tensor "{key}" a shape too large for any tensor')
        row = shape[-1] if shape else 1
        if row % dtype.block_elements:
            self._refuse(f'gives "{key}" rows of {row:,} elements; {dtype.short} has blocks of {dtype.block_elements}')
        return Form(name, shape, dtype.nbytes(elements))

    def _check_layout(self, infos: list[_Info], start: int) -> None:
        """Names are told apart; the data is in the file, and no tensor overlaps another."""
        counted = Counter(info.key for info in infos)
        if len(counted) < len(infos):
            self._refuse(f'has two tensors named "{counted.most_common(1)[0][0]}"')
        end, before = 0, ""
        for info in sorted(infos, key=lambda info: (info.offset, info.form.nbytes)):
            if info.offset < end:
                self._refuse(f'lets the tensors "{before}" and "{info.key}" overlap')
            end, before = info.offset + info.form.nbytes, info.key
            if start + end > self.file.size:
                raise UnreadableError(
                    f'{self.file.path} ends early: the tensor "{info.key}" needs {start + end:,} bytes, '
                    f"the file has {self.file.size:,}",
                    hint="download it again",
                    path=self.file.path,
                    key=info.key,
                )

    # ------------------------------------------------------------------------------------------ bytes

    def _take(self, nbytes: int) -> bytes:
        at = self.at - self.start
        if at + nbytes > len(self.held):
            if self.at + nbytes > self.file.size:
                self._refuse("ends inside its header", "download it again")
            self.held = self.file.read(self.at, min(max(nbytes, _WINDOW), self.file.size - self.at))
            self.start, at = self.at, 0
        self.at += nbytes
        self._check_header()
        return self.held[at : at + nbytes]

    def _check_header(self) -> None:
        if self.at > _MAX_HEADER:
            self._refuse(f"has a header of more than {_MAX_HEADER:,} bytes")

    def _number(self, code: str) -> int:
        packed = struct.Struct(self.order + code)
        value: int = packed.unpack(self._take(packed.size))[0]
        return value

    def _string(self, most: int | None, what: str) -> str:
        """A text; of a long value the first bytes and its length."""
        length = self._number("Q")
        if length > self.file.size - self.at or (most is not None and length > most):
            self._refuse(f"claims {length:,} bytes for {what}")
        if most is None and length > _SHOWN_TEXT:
            raw, rest = self._take(_SHOWN_TEXT), length - _SHOWN_TEXT
            self.at += rest
            self._check_header()
            return f"{raw.decode('utf-8', 'replace')}… ({length:,} bytes)"
        raw = self._take(length)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            if most is not None:
                self._refuse(f"has {what} that is not UTF-8")
            return raw.decode("utf-8", "replace")

    def _refuse(self, what: str, hint: str = "get the file again, or convert the model again") -> NoReturn:
        raise UnreadableError(f"{self.file.path} {what}", hint=hint, path=self.file.path)


def original_shape(metadata: Mapping[str, str], key: str) -> tuple[int, ...] | None:
    """The shape that the metadata gives a tensor; None where it gives none.

    Example:
        >>> original_shape({"comfy.gguf.orig_shape.conv.weight": "[320, 4, 3, 3]"}, "conv.weight")
        (320, 4, 3, 3)
    """
    text = metadata.get(f"{ORIGINAL_SHAPE}{key}", "")
    sizes = text.removeprefix("[").removesuffix("]").split(", ")
    return tuple(map(int, sizes)) if all(size.isdecimal() and len(size) < 20 for size in sizes) else None


def _big_endian(source: ByteSource, info: _Info, start: int) -> Tensor:
    """A tensor whose numbers have their high byte first; blocks are bytes, which their decoder swaps."""
    form = info.form
    storage = Storage(source, start + info.offset, form.nbytes, big_endian=not DTYPES[form.dtype].is_packed)
    return Tensor(TensorSpec(info.key, form.dtype, form.shape), (Piece(storage, 0, form.shape),))


def _shown(value: float | str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
