"""Archives of `torch.export.save` (``.pt2``): a program, which never runs, and weights beside it, which are read here.

Source: torch/export/pt2_archive of torch 2.13, and what it still loads of older versions. Since torch 2.9 each storage
is a record ``data/weights/weight_N``, and ``data/weights/MODEL_weights_config.json`` says which views of them the
weights are; torch 2.8 has one torch file ``data/weights/MODEL.pt``; until torch 2.7 there is no folder around the
members, and the weights are the torch file ``serialized_state_dict.pt`` (before torch 2.3, ``.json``).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from ckptool.core.bytes import ByteSource, OpenBytes
from ckptool.core.checkpoint import Checkpoint, Extra, GlobalUse, Selection
from ckptool.core.counts import many
from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import UnreadableError, UsageError, naming
from ckptool.core.format import Format
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Storage, Tensor
from ckptool.formats.pickle.loading import merge_globals
from ckptool.formats.strict_json import JsonError, JsonReader
from ckptool.formats.torch.storage import StorageRef
from ckptool.formats.torch.tensor import tensor_of
from ckptool.formats.torch.tree import interpret
from ckptool.formats.torch.view import checked_view, ints_of
from ckptool.formats.torch.zip import read_embedded
from ckptool.formats.zip_directory import MAX_INFLATED, Member, inflate, read_directory

TORCH_EXPORT = Format("torch.export", is_program=True, has_checksums=True)
_WEIGHTS, _CONSTANTS = "weights", "constants"
_CONFIG = {_WEIGHTS: "data/weights/{}_weights_config.json", _CONSTANTS: "data/constants/{}_constants_config.json"}
_TORCH_FILE = {_WEIGHTS: "data/weights/{}.pt", _CONSTANTS: "data/constants/{}.pt"}
_OLDEST = {
    _WEIGHTS: ("serialized_state_dict.pt", "serialized_state_dict.json"),
    _CONSTANTS: ("serialized_constants.pt", "serialized_constants.json"),
}
_MODEL = re.compile(r"(?:models/(.+)\.json|data/weights/(.+?)(?:_weights_config\.json|\.pt))")
_HEAD = re.compile(rb"\s*\{\s*\"config\"\s*:\s*")
_TENSORS = "tensor_"  # records of constants that are tensors
_STRIDED = 7
_BOOKKEEPING = (".data/", "archive_format", "archive_version", "byteorder", "version")
# torch's ScalarType as torch._export.serde.schema numbers it
_DTYPES = {
    **dict(enumerate(("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"), 1)),
    **dict(enumerate(("complex32", "complex64", "complex128", "bool", "bfloat16"), 9)),
    **dict(enumerate(("uint16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"), 28)),
    **dict(enumerate(("float8_e8m0fnu", "uint32", "uint64"), 33)),
}


def open_pt2(source: ByteSource, select: str | None = None) -> Checkpoint:
    """Open an archive of `torch.export.save`.

    Args:
        source: the file.
        select: "constants" for the tensors of the program that are no weights; in an archive of several models the name
            of one, or "NAME.constants"; None for the weights of the only model.

    Raises:
        UnreadableError: it is damaged, or holds no weights where the published layouts have them.
        UsageError: there are several models, or nothing is under `select`.
    """
    with source.open() as file, naming(source.path):
        archive = _Archive.of(source, file)
        model, part = _selected(archive, select)
        found = archive.tensors(model, part)
        other = archive.tensors(model, _CONSTANTS if part == _WEIGHTS else _WEIGHTS)
        beside = {f"{name}.{key}": tensor for name, tensors in other.named for key, tensor in tensors.items()}
        extras = [
            Extra(n, many(len(t), "tensor"), len(t), sum(each.nbytes for each in t.values())) for n, t in other.named
        ]
        return Checkpoint(
            path=source.path,
            format=TORCH_EXPORT,
            tensors=found.tensors,
            files=(source,),
            nbytes=source.size,
            selection=_selection(archive, model, part),
            extras=(*extras, *archive.extras()),
            other_tensors=beside,
            globals=merge_globals(found.globals, other.globals),
        )


class _Found(NamedTuple):
    """The weights or the constants of a model.

    Attributes:
        part: "weights" or "constants".
        tensors: by key.
        globals: what the torch files among them name.
    """

    part: str
    tensors: Mapping[str, Tensor]
    globals: tuple[GlobalUse, ...] = ()

    @property
    def named(self) -> list[tuple[str, Mapping[str, Tensor]]]:
        """The part and its tensors; nothing if it has none."""
        return [(self.part, self.tensors)] if self.tensors else []


@dataclass(frozen=True, slots=True)
class _Archive:
    """The archive's directory.

    Attributes:
        source: the file.
        file: it, open.
        members: what it holds, by name without the root folder.
        models: names of the models; one "" in the oldest layout.
        big_endian: True if the ``byteorder`` record says so.
    """

    source: ByteSource
    file: OpenBytes
    members: Mapping[str, Member]
    models: tuple[str, ...]
    big_endian: bool = False

    @classmethod
    def of(cls, source: ByteSource, file: OpenBytes) -> _Archive:
        directory = read_directory(file)
        if any(name in directory for name in _OLDEST[_WEIGHTS]):
            return cls(source, file, directory, ("",))
        roots = {name.partition("/")[0] for name in directory}
        if len(roots) != 1:
            raise UnreadableError(f"{source.path} holds more than one root folder: readers would disagree")
        members = directory.within(roots.pop())
        matches = (_MODEL.fullmatch(name) for name in members)
        models = tuple(dict.fromkeys(match[1] or match[2] for match in matches if match))
        order = inflate(file, members["byteorder"], 64).strip() if "byteorder" in members else b"little"
        if order not in (b"little", b"big"):
            raise UnreadableError(f"{source.path} declares a byte order that is neither little nor big")
        return cls(source, file, members, models, order == b"big")

    def place(self, model: str, part: str) -> str | None:
        """The member that has the weights or constants of a model, or says where they are."""
        names = (_TORCH_FILE[part].format(model), _CONFIG[part].format(model)) if model else _OLDEST[part]
        return next((name for name in names if name in self.members), None)

    def tensors(self, model: str, part: str) -> _Found:
        """The weights or constants of a model; nothing where the archive has none."""
        name = self.place(model, part)
        if name is None:
            return _Found(part, {})
        if name != _CONFIG[part].format(model):
            return self._in_torch_file(self._stored(name), part)
        tensors: dict[str, Tensor] = {}
        uses: tuple[GlobalUse, ...] = ()
        for key, entry in self._config(name):
            if key in tensors:
                raise UnreadableError(f"{self.source.path}: {name} names {key} twice", key=key)
            tensor, named = self._tensor(f"data/{part}/", key, entry)
            uses = merge_globals(uses, named) if named else uses
            if tensor is not None:
                tensors[key] = tensor
        return _Found(part, tensors, uses)

    def _config(self, name: str) -> Iterator[tuple[str, Mapping[str, object]]]:
        """The entries of ``{"config": {key: entry}}``, one by one."""
        text = inflate(self.file, self.members[name], MAX_INFLATED).rstrip()
        head = _HEAD.match(text)
        try:
            if head is None or not text.endswith(b"}"):
                raise JsonError("does not say which tensor is where")
            reader = JsonReader.of(text[head.end() : -1].rstrip())
            for key in reader.members():
                entry = reader.small_value()
                if not isinstance(key, str) or not isinstance(entry, dict):
                    raise JsonError("has an entry that is not an object")
                yield key, entry
        except JsonError as error:
            raise UnreadableError(f"{self.source.path}: {name} {error}", hint="get it again") from None

    def _tensor(
        self, folder: str, key: str, entry: Mapping[str, object]
    ) -> tuple[Tensor | None, tuple[GlobalUse, ...]]:
        """A tensor, and what its pickle names if it is a torch file of its own; None for an object."""
        name, meta = entry.get("path_name"), entry.get("tensor_meta")
        if not isinstance(name, str):
            raise _bad(key, "has no record")
        if folder.startswith("data/constants") and not name.startswith(_TENSORS):
            return None, ()
        member = self._stored(folder + name, key)
        if entry.get("use_pickle") is True:
            archive = read_embedded(self.source, member.offset, member.nbytes)
            return tensor_of(archive.loaded.value, archive.storage_of, key), archive.loaded.globals
        if not isinstance(meta, dict) or meta.get("layout") != _STRIDED:
            raise _bad(key, "is described in a way that torch does not write")
        number = meta.get("dtype")
        dtype = _DTYPES.get(number) if type(number) is int else None
        if dtype is None:
            raise _bad(key, "has a dtype that ckptool does not know")
        shape, strides = ints_of(_numbers(meta.get("sizes")), key), ints_of(_numbers(meta.get("strides")), key)
        (start,) = ints_of(_numbers([meta.get("storage_offset")]), key)
        if not member.nbytes and 0 not in shape:  # torch.export of fake tensors
            return Tensor(TensorSpec(key, dtype, shape), (), "meta"), ()
        is_swapped = self.big_endian and DTYPES[dtype].block_nbytes > 1
        storage = Storage(self.source, member.offset, member.nbytes, is_swapped, member.crc or None)
        piece = checked_view(StorageRef(storage, dtype), dtype, start, shape, strides, key)
        return Tensor(TensorSpec(key, dtype, shape), (piece,)), ()

    def _in_torch_file(self, member: Member, part: str) -> _Found:
        archive = read_embedded(self.source, member.offset, member.nbytes)
        loaded = archive.loaded
        tree = interpret(loaded.value, archive.storage_of, "", nbytes=loaded.nbytes, faithful=loaded.faithful)
        plain = {key: replace(tensor, node=None) for key, tensor in tree.tensors.items()}
        return _Found(part, plain, loaded.globals)

    def _stored(self, name: str, key: str | None = None) -> Member:
        member = self.members.get(name)
        if member is None:
            raise UnreadableError(f"{self.source.path} lacks {name}", hint="get it again", key=key)
        if member.method:
            raise UnreadableError(
                f"{self.source.path}: {name} is compressed",
                hint="torch stores its records uncompressed: unpack the archive and zip it again with `zip -0`",
                key=key,
            )
        return member

    def extras(self) -> Iterator[Extra]:
        """What else is there, by folder."""
        folders: dict[str, list[int]] = defaultdict(list)
        for name, member in self.members.items():
            folder, _, last = name.rpartition("/")
            is_told = folder in ("data/weights", "data/constants") or name in sum(_OLDEST.values(), ())
            if not is_told and not name.startswith(_BOOKKEEPING):
                folders[folder or last].append(member.nbytes)
        for folder, sizes in folders.items():
            yield Extra(folder, f"{many(len(sizes), 'file')}, {sum(sizes):,} bytes")


def _selected(archive: _Archive, select: str | None) -> tuple[str, str]:
    """The model and the part of it that are asked for."""
    models = archive.models
    listed = ", ".join(models[:8]) + (", ..." if len(models) > 8 else "")
    if not models:
        raise UnreadableError(
            f"{archive.source.path} is a torch.export archive without weights",
            hint="a compiled package (AOTInductor) keeps them in its libraries; use torch.export.save",
        )
    asked, part = select or "", _WEIGHTS
    if asked == _CONSTANTS or asked.endswith(f".{_CONSTANTS}"):
        asked, part = asked[: -len(_CONSTANTS)].rstrip("."), _CONSTANTS
    elif asked == _WEIGHTS or asked.endswith(f".{_WEIGHTS}"):
        asked = asked[: -len(_WEIGHTS)].rstrip(".")
    if asked in models or (not asked and len(models) == 1):
        return asked or models[0], part
    if asked:
        hint = f"--select takes {_CONSTANTS}" + (f", or one of: {listed}" if models != ("",) else "")
        raise UsageError(f"there is no model {asked} in {archive.source.path}", hint=hint)
    raise UsageError(
        f"{archive.source.path} holds {len(models)} models: {listed}", hint=f"name one: --select {models[0]}"
    )


def _selection(archive: _Archive, model: str, part: str) -> Selection:
    """The choice in words, and what else `--select` takes."""
    all_parts = [(name, each) for name in archive.models for each in (_WEIGHTS, _CONSTANTS)]
    held = [(name, each) for name, each in all_parts if archive.place(name, each) and (name, each) != (model, part)]
    prefixes = {name: (name,) if len(archive.models) > 1 else () for name in archive.models}
    others = tuple(".".join((*prefixes[name], each)) for name, each in held)
    path = prefixes[model] if part == _WEIGHTS else (*prefixes[model], part)
    return Selection(path, "the weights of the program" if part == _WEIGHTS else "asked for", others)


def _numbers(value: object) -> object:
    """Sizes as the archive writes them: ``[{"as_int": 3}]``."""
    if not isinstance(value, list):
        return value
    return tuple(each.get("as_int") if isinstance(each, dict) else None for each in value)


def _bad(key: str, what: str) -> UnreadableError:
    return UnreadableError(f"tensor {key} {what}", key=key)
