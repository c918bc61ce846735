"""Sharded checkpoints: shards in a folder, usually with an index that says which shard holds which key.

The index is a stranger's: a shard's name must be a plain file name, so that no index reaches outside its folder. The
file of that name may be a symbolic link, because a hub cache is made of links to `../../blobs/...`.

Tensors come shard by shard, shards by name, in each shard in the order of its file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import PurePath

from ckptool.core.bytes import ByteSource, Folder
from ckptool.core.checkpoint import Checkpoint, Columns, Extra, GlobalUse, Tensor
from ckptool.core.counts import many
from ckptool.core.errors import MissingError, UnreadableError
from ckptool.core.observations import MetadataDiffers, NoIndex, NotInIndex, Observation, WrongTotalSize
from ckptool.formats.registry import open_file
from ckptool.formats.strict_json import JsonError, JsonReader

MAX_INDEX = 100_000_000  # bytes; a million keys
SHARD_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{1,9})-of-(?P<count>\d{1,9})(?P<suffix>\.[A-Za-z]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Index:
    """An `*.index.json`.

    Attributes:
        source: the file.
        weight_map: the shard of every key.
        total_size: bytes of all tensors, as it claims.
    """

    source: ByteSource
    weight_map: Mapping[str, str]
    total_size: int | None

    @property
    def path(self) -> PurePath:
        return self.source.path


def open_index(source: ByteSource, select: str | None = None) -> Checkpoint:
    """Open the shards that an index names, and hold the index against them.

    Args:
        source: the `*.index.json`; its shards lie beside it.
        select: which dict of each shard to take, for torch shards.

    Raises:
        UnreadableError: the index is damaged or names files outside its folder, a shard is missing or damaged, a key is
            in two shards or not in the shard that the index names.
    """
    index = read_index(source)
    names = sorted(set(index.weight_map.values()))
    for name in names:
        _check_plain(name, index)
    shards = _open_shards(source.folder, _located(source.folder, names, f"the index {source.path}"), select)
    merged = replace(_merged(source.path, shards), indexes=(source,))
    return _held_against(index, merged, shards)


def open_shards(folder: Folder, names: Sequence[str], select: str | None = None) -> Checkpoint:
    """Open shards that have no index: files like `model-00001-of-00004.safetensors`, all of one checkpoint."""
    names = sorted(names)
    first = SHARD_NAME.fullmatch(names[0])
    assert first is not None  # the caller chose them by this pattern
    numbers = [int(match["number"]) for match in map(SHARD_NAME.fullmatch, names) if match]
    count, origin = int(first["count"]), 0 if 0 in numbers else 1
    if len(set(numbers)) < len(numbers) or max(numbers) - origin >= count:
        raise UnreadableError(
            f"the shards {names[0]} to {names[-1]} in {folder.path} are not {count:,}", path=folder.path
        )
    if len(numbers) < count:
        width = len(first["number"])
        absent = (n for n in range(origin, origin + count) if n not in set(numbers))
        missing = (f"{first['stem']}-{n:0{width}}-of-{first['count']}{first['suffix']}" for n in absent)
        raise UnreadableError(
            f"{folder.path} lacks {count - len(numbers):,} of {count:,} shards: {_some(missing, count - len(numbers))}",
            hint="download what is missing",
            path=folder.path,
        )
    return _merged(folder.path, _open_shards(folder, [folder.open(name) for name in names], select), (NoIndex(),))


def read_index(source: ByteSource) -> Index:
    """Read an index; its shards are not looked at."""
    path = source.path
    with source.open() as file:
        if file.size > MAX_INDEX:
            raise UnreadableError(f"the index {path} has {file.size:,} bytes; no index is that long", path=path)
        reader = JsonReader(file.read(0, file.size))
    weight_map: dict[str, str] = {}
    total_size = None
    try:
        for member, _ in reader.members():
            if member == "weight_map":
                weight_map = reader.strings("weight_map")
            else:
                value = reader.small_value()
                size = value.get("total_size") if member == "metadata" and isinstance(value, dict) else None
                total_size = int(size) if isinstance(size, (int, float)) else total_size
    except JsonError as problem:
        raise UnreadableError(f"the index {path} {problem}", hint="get the index again", path=path) from None
    if not weight_map:
        raise UnreadableError(f"the index {path} names no tensors: it has no weight_map", path=path)
    return Index(source, weight_map, total_size)


def _check_plain(name: str, index: Index) -> None:
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        key = next(key for key, shard in index.weight_map.items() if shard == name)
        raise UnreadableError(
            f'the index {index.path} puts "{key}" into "{name}", which is not a plain file name',
            hint="shards lie beside their index; do not use this checkpoint unless you know who made it",
            path=index.path,
            key=key,
        )


def _located(folder: Folder, names: Sequence[str], who: str) -> list[ByteSource]:
    """The shards of these names, all of them there."""
    sources: list[ByteSource] = []
    missing = []
    for name in names:
        try:
            sources.append(folder.open(name))
        except MissingError:
            missing.append(name)
    if missing:
        raise UnreadableError(
            f"{who} names {many(len(names), 'shard')}, {len(missing):,} of them missing: "
            f"{_some(missing, len(missing))}",
            hint="download what is missing",
            path=folder.path / missing[0],
        )
    return sources


def _open_shards(folder: Folder, sources: Iterable[ByteSource], select: str | None) -> list[Checkpoint]:
    shards = [open_file(source, select) for source in sources]
    formats = sorted({str(shard.format) for shard in shards})
    if len(formats) > 1:
        raise UnreadableError(
            f"the shards in {folder.path} are of several formats: {', '.join(formats)}", path=folder.path
        )
    return shards


def _merged(path: PurePath, shards: Sequence[Checkpoint], observations: tuple[Observation, ...] = ()) -> Checkpoint:
    """One checkpoint out of its shards."""
    tensors = _joined(path, shards)
    versions = [shard.module_versions for shard in shards if shard.module_versions is not None]
    metadata, conflicts = _merged_metadata(shards)
    of_shards = dict.fromkeys(each for shard in shards for each in shard.observations)
    return Checkpoint(
        path=path,
        format=replace(shards[0].format, shards=len(shards)),
        tensors=tensors,
        files=tuple(file for shard in shards for file in shard.files),
        nbytes=sum(shard.nbytes for shard in shards),
        selection=shards[0].selection,
        extras=tuple(_merged_extras(shards)),
        other_tensors={key: tensor for shard in shards for key, tensor in shard.other_tensors.items()},
        metadata=metadata,
        module_versions={name: version for part in versions for name, version in part.items()} if versions else None,
        globals=_merged_globals(shards),
        observations=(*observations, *conflicts, *of_shards),
    )


def _joined(path: PurePath, shards: Sequence[Checkpoint]) -> Mapping[str, Tensor]:
    """The tensors of all shards."""
    parts = [shard.tensors for shard in shards]
    columns = [part for part in parts if isinstance(part, Columns)]
    tensors = (
        Columns.joined(columns) if len(columns) == len(parts) else {k: v for part in parts for k, v in part.items()}
    )
    if len(tensors) < sum(map(len, parts)):
        owner: dict[str, Checkpoint] = {}
        for shard in shards:
            for key in shard.tensors:
                if key in owner:
                    names = f"{owner[key].path.name} and {shard.path.name}"
                    raise UnreadableError(f'"{key}" is in two shards: {names}', path=path, key=key)
                owner[key] = shard
    return tensors


def _merged_metadata(shards: Sequence[Checkpoint]) -> tuple[dict[str, str], tuple[MetadataDiffers, ...]]:
    metadata: dict[str, str] = {}
    conflicts: dict[str, None] = {}
    for shard in shards:
        for name, text in shard.metadata.items():
            if metadata.setdefault(name, text) != text:
                conflicts[name] = None
    return metadata, (MetadataDiffers(tuple(conflicts)),) if conflicts else ()


def _merged_extras(shards: Sequence[Checkpoint]) -> Iterator[Extra]:
    """What lies beside the weights; what every shard repeats, once."""
    seen: set[tuple[str, str, int]] = set()
    for extra in (extra for shard in shards for extra in shard.extras):
        if (extra.name, extra.text, extra.tensors) not in seen:
            seen.add((extra.name, extra.text, extra.tensors))
            yield extra


def _merged_globals(shards: Sequence[Checkpoint]) -> tuple[GlobalUse, ...]:
    if not any(shard.globals for shard in shards):  # safetensors: start without the rules for pickles
        return ()
    from ckptool.formats.pickle.globals import merge_globals

    return merge_globals(*(shard.globals for shard in shards))


def _held_against(index: Index, merged: Checkpoint, shards: Sequence[Checkpoint]) -> Checkpoint:
    """The checkpoint that the index describes: its keys, where it says they are."""
    listed = index.weight_map
    right = sum(listed.get(key) == shard.path.name for shard in shards for key in shard.tensors)
    if right < len(listed):
        owner = {key: shard.path.name for shard in shards for key in shard.tensors}
        wrong = [key for key, name in listed.items() if owner.get(key) != name]
        key = wrong[0]
        where = f"it is in {owner[key]}" if key in owner else "no shard has it"
        more = f" (and {len(wrong) - 1:,} more)" if len(wrong) > 1 else ""
        raise UnreadableError(
            f'the index {index.path} puts "{key}"{more} into {listed[key]}, but {where}',
            hint="the index and the shards are not of one checkpoint; download them again",
            path=index.path,
            key=key,
        )
    tensors, unlisted = merged.tensors, dict[str, Tensor]()
    if right < len(tensors):
        unlisted = {key: tensor for key, tensor in tensors.items() if key not in listed}
        tensors = {key: tensor for key, tensor in tensors.items() if key in listed}
    observed = list(merged.observations)
    if unlisted:
        observed.append(NotInIndex(tuple(unlisted)))
    held = replace(merged, tensors=tensors, other_tensors={**merged.other_tensors, **unlisted})
    nbytes = sum(form.nbytes for form in held.forms())
    if index.total_size is not None and index.total_size != nbytes:
        observed.append(WrongTotalSize(index.total_size, nbytes))
    return replace(held, observations=tuple(observed))


def _some(names: Iterable[str], count: int) -> str:
    """The first of them, and how many more."""
    shown = list(islice(names, 5))
    return ", ".join(shown) + (f" and {count - len(shown):,} more" if count > len(shown) else "")
