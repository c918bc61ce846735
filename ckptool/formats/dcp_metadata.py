"""The `.metadata` of a torch.distributed checkpoint: a pickle that says which piece of which tensor is in which file.

torch itself runs this pickle, opens the paths in it wherever they lead, and leaves memory uninitialised where the
pieces leave a hole. Here it is inert data, paths are plain file names, and the pieces must fill their tensor exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from ckptool.core.bytes import OpenBytes
from ckptool.core.checkpoint import GlobalUse
from ckptool.core.errors import UnreadableError, naming
from ckptool.core.spec import short_spec
from ckptool.formats.pickle.loading import load
from ckptool.formats.pickle.objects import Call, Dict, Global
from ckptool.formats.ranks.cover import TooManyError, overlap, sticks_out, uncovered
from ckptool.formats.torch.storage import named_dtype
from ckptool.formats.torch.view import ints_of

MAX_METADATA = 256 << 20  # bytes
MAX_DEPTH = 64  # of the nested dict
MAX_FIELDS = 16  # of any of torch's objects

ItemPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """Where the bytes of one item are: in file `name` of the folder, `nbytes` from `offset` on."""

    name: str
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a tensor: where it begins in the tensor, its shape, its bytes."""

    at: tuple[int, ...]
    shape: tuple[int, ...]
    stored: Stored


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of the saved state dict: a tensor in chunks, or an object in one run of bytes.

    Attributes:
        key: its name, flattened.
        path: the keys on the way to it in the nested dict that was saved.
        dtype: of a tensor.
        shape: of a tensor.
        chunks: of a tensor; they fill it without overlap.
        stored: the bytes of anything else; None for a tensor.
        copies: chunks that further ranks stored, of a place that another rank's chunk holds.
    """

    key: str
    path: ItemPath
    dtype: str = ""
    shape: tuple[int, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    stored: Stored | None = None
    copies: tuple[Chunk, ...] = ()


@dataclass(frozen=True, slots=True)
class Metadata:
    """What `.metadata` says, checked.

    Attributes:
        items: in the order of the dict that was saved, where the planner recorded it.
        globals: what its pickle names.
        nbytes: its size; bounds the work on what it describes.
    """

    items: tuple[Item, ...]
    globals: tuple[GlobalUse, ...]
    nbytes: int


def read_metadata(file: OpenBytes, *, is_part: bool = False) -> Metadata:
    """Read a `.metadata` file.

    Args:
        file: the file.
        is_part: it is one rank's own, which states whole shapes and the chunks of that rank.

    Raises:
        UnreadableError: it is damaged, names files outside its folder, or its chunks do not make up the tensors.
    """
    if file.size > MAX_METADATA:
        raise UnreadableError(f"{file.path} has {file.size:,} bytes, too many for metadata", path=file.path)
    with naming(file.path):
        loaded = load(file.read(0, file.size), path=file.path)
        fields = _fields(loaded.value, "Metadata")
        described = _texts(fields.get("state_dict_metadata"), "state_dict_metadata")
        index = _storage_index(fields.get("storage_data"))
        paths = _paths(fields.get("planner_data"), described)
        left = len(index)  # every chunk has an entry of its own in the index
        items = []
        for key, path in paths.items():
            item = _item(key, path, described[key], index, left)
            if not is_part and item.stored is None:
                _check_cover(item.key, item.shape, item.chunks)
            left -= len(item.chunks)
            items.append(item)
    return Metadata(tuple(items), loaded.globals, file.size)


def joined_metadata(ranks: Mapping[int, Metadata]) -> Metadata:
    """What the ranks say together, each in a `.metadata` of its own.

    Args:
        ranks: what each rank says, by its number, in order.

    Raises:
        UnreadableError: the ranks differ in a tensor, or their chunks do not make it up: the message names the ranks
            that are missing.
    """
    items: dict[str, Item] = {}
    owner: dict[str, int] = {}
    for rank, metadata in ranks.items():
        for item in metadata.items:
            first = items.setdefault(item.key, item)
            if first is item:
                owner[item.key] = rank
            elif (first.dtype, first.shape, first.stored is None) != (item.dtype, item.shape, item.stored is None):
                ours, theirs = short_spec(first.dtype, first.shape), short_spec(item.dtype, item.shape)
                raise UnreadableError(
                    f"the ranks differ in {item.key}: __{owner[item.key]}.metadata has {ours}, "
                    f"__{rank}.metadata has {theirs}",
                    hint="the files are not of one save: copy the folder again",
                    key=item.key,
                )
            else:
                items[item.key] = _with_chunks(first, item.chunks)
    for item in items.values():
        if item.stored is None:
            _check_ranks(item, list(ranks))
    return Metadata(
        tuple(items.values()),
        tuple(use for metadata in ranks.values() for use in metadata.globals),
        sum(metadata.nbytes for metadata in ranks.values()),
    )


def _with_chunks(item: Item, chunks: Sequence[Chunk]) -> Item:
    """The item with a further rank's chunks; one that is there already is a copy."""
    there = {(chunk.at, chunk.shape) for chunk in item.chunks}
    new = tuple(chunk for chunk in chunks if (chunk.at, chunk.shape) not in there)
    copies = tuple(chunk for chunk in chunks if (chunk.at, chunk.shape) in there)
    return replace(item, chunks=item.chunks + new, copies=item.copies + copies)


def _check_ranks(item: Item, ranks: Sequence[int]) -> None:
    """The chunks of all ranks make the tensor up; if not, say which rank's are missing."""
    covered = sum(math.prod(chunk.shape) for chunk in item.chunks)
    whole = math.prod(item.shape)
    if covered >= whole:
        _check_cover(item.key, item.shape, item.chunks)
        return
    absent = [rank for rank in range(max(ranks)) if rank not in ranks] or [max(ranks) + 1]
    names = ", ".join(f"__{rank}.metadata" for rank in absent[:5])
    raise UnreadableError(
        f"{whole - covered:,} of {whole:,} elements of {item.key} are in no rank's files: "
        f"{names} {'is' if len(absent) == 1 else 'are'} missing",
        hint="every rank wrote a .metadata and .distcp files: copy all of them from where the checkpoint was saved",
        key=item.key,
    )


def _bad(what: str, key: str | None = None) -> NoReturn:
    raise UnreadableError(f"the .metadata of this checkpoint {what}", hint="save or download it again", key=key)


def _is_a(node: object, name: str) -> bool:
    """True if the pickle would have built torch.distributed's class `name` here."""
    if type(node) is not Call or type(node.fn) is not Global:
        return False
    return node.fn.name == name and node.fn.module.startswith("torch.distributed.")


def _fields(node: object, name: str) -> dict[str, object]:
    """The attributes of an object of torch.distributed's class `name`."""
    if type(node) is not Call or not _is_a(node, name):
        _bad(f"holds something else where a {name} should be")
    state = node.states[0] if len(node.states) == 1 else None
    if type(state) is not Dict or len(state.items) > MAX_FIELDS:  # objects may share a state: keep it cheap
        _bad(f"holds a {name} of a form that torch does not write")
    return {key: value for key, value in state.items if type(key) is str}


def _texts(node: object, what: str) -> dict[str, object]:
    """A dict whose keys are texts, each once."""
    if type(node) is not Dict:
        _bad(f"has no {what}")
    found: dict[str, object] = {}
    for key, value in node.items:
        if type(key) is not str or key in found:
            _bad(f"has a key in {what} twice, or one that is not text")
        found[key] = value
    return found


Index = dict[tuple[str, tuple[int, ...] | None], Stored]


def _storage_index(node: object) -> Index:
    """(key, offset of the chunk or None) -> where it is stored."""
    if type(node) is not Dict:
        _bad("has no storage_data")
    index: Index = {}
    for where, what in node.items:
        fields = _fields(where, "MetadataIndex")
        key, offset = fields.get("fqn"), fields.get("offset")
        if type(key) is not str:
            _bad("has a storage entry without a name")
        place = (key, None if offset is None else ints_of(offset, key))
        if place in index:
            _bad(f"says twice where {key} is", key)
        index[place] = _stored(key, _fields(what, "_StorageInfo"))
    return index


def _stored(key: str, fields: Mapping[str, object]) -> Stored:
    name, offset, nbytes = fields.get("relative_path"), fields.get("offset"), fields.get("length")
    if type(name) is not str or type(offset) is not int or type(nbytes) is not int or offset < 0 or nbytes < 0:
        _bad(f"does not say where {key} is", key)
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise UnreadableError(
            f'the .metadata of this checkpoint puts "{key}" into "{name}", which is not a plain file name',
            hint="its files are in its folder; do not use this checkpoint unless you know who made it",
            key=key,
        )
    transforms = fields.get("transform_descriptors")
    if transforms:
        named = ", ".join(str(one) for one in transforms if type(one) is str) if type(transforms) is list else ""
        raise UnreadableError(
            f"{key} is stored through an extension of torch.distributed ({named or 'unnamed'})",
            hint="load it with torch.distributed.checkpoint and save it without extensions",
            key=key,
        )
    return Stored(name, offset, nbytes)


_TOP_LEVEL = ("model", "state_dict", "module", "optimizer", "optim", "lr_scheduler", "scheduler")


def _paths(node: object, described: Mapping[str, object]) -> dict[str, ItemPath]:
    """The nested place of every key: as the planner recorded it, else judged by the first part of the key."""
    recorded = {key: value for key, value in node.items if type(key) is str} if type(node) is Dict else {}
    paths: dict[str, ItemPath] = {}
    for key in (*(key for key in recorded if key in described), *(key for key in described if key not in recorded)):
        path = recorded.get(key)
        if type(path) is tuple and 0 < len(path) <= MAX_DEPTH and all(type(part) in (str, int) for part in path):
            paths[key] = path
        else:
            top, dot, rest = key.partition(".")
            paths[key] = (top, rest) if dot and rest and top in _TOP_LEVEL else (key,)
    return paths


def _item(key: str, path: ItemPath, node: object, index: Index, most: int) -> Item:
    if _is_a(node, "BytesStorageMetadata"):
        stored = index.get((key, None))
        if stored is None:
            _bad(f"does not say where {key} is", key)
        return Item(key, path, stored=stored)
    fields = _fields(node, "TensorStorageMetadata")
    dtype = _dtype(fields.get("properties"), key)
    shape = ints_of(fields.get("size"), key)
    nodes = fields.get("chunks")
    if type(nodes) is not list or len(nodes) > most:
        _bad(f"lists chunks of {key} that are stored nowhere", key)
    chunks = tuple(_chunk(key, _fields(chunk, "ChunkStorageMetadata"), index) for chunk in nodes)
    return Item(key, path, dtype, shape, chunks)


def _dtype(properties: object, key: str) -> str:
    if type(properties) is Call and _is_a(properties, "TensorProperties"):
        state = properties.states[0] if properties.states else None
        dtype = named_dtype(state[0]) if type(state) is tuple and state else None
        if dtype is not None:
            return dtype
    _bad(f"gives {key} a dtype that ckptool does not know", key)


def _chunk(key: str, fields: Mapping[str, object], index: Index) -> Chunk:
    at, shape = ints_of(fields.get("offsets"), key), ints_of(fields.get("sizes"), key)
    stored = index.get((key, at))
    if stored is None:
        _bad(f"does not say where the chunk of {key} at {list(at)} is", key)
    return Chunk(at, shape, stored)


def _check_cover(key: str, shape: tuple[int, ...], chunks: Sequence[Chunk]) -> None:
    """The chunks lie inside the tensor, do not overlap, and leave nothing out."""
    for chunk in chunks:
        if len(chunk.at) != len(shape) or len(chunk.shape) != len(shape):
            _bad(f"has a chunk of {key} with another number of axes than the tensor", key)
        if sticks_out(chunk, shape):
            _bad(f"has a chunk of {key} that sticks out of the tensor", key)
    try:
        both = overlap(chunks)
    except TooManyError:
        _bad(f"cuts {key} into {len(chunks):,} chunks in a way that ckptool cannot check", key)
    if both is not None:
        _bad(f"has chunks of {key} that overlap: in {both[0].stored.name} and {both[1].stored.name}", key)
    left = uncovered(chunks, shape)
    if left:
        _bad(f"leaves {left:,} of {math.prod(shape):,} elements of {key} to no chunk", key)
