"""Sharded checkpoints: shards in a folder, usually with an index that says which shard holds which key.

The index is a stranger's: a shard's name must be a plain file name, so that no index reaches outside its folder. The
file of that name may be a symbolic link, because a hub cache is made of links to `../../blobs/...`.

Tensors come shard by shard, shards by name, in each shard in the order of its file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import PurePath

from ckptool.core.bytes import ByteSource, Entry, Folder
from ckptool.core.checkpoint import Checkpoint, Extra, GlobalUse
from ckptool.core.columns import Columns
from ckptool.core.counts import many
from ckptool.core.errors import CkptError, MissingError, UnreadableError
from ckptool.core.observations import MetadataDiffers, NoIndex, NotInIndex, Observation, PiecesDiffer, WrongTotalSize
from ckptool.core.tensor import Tensor
from ckptool.formats.ranks.names import PIECES_FILE, count_named, entries_in
from ckptool.formats.registry import open_file
from ckptool.formats.strict_json import JsonError, JsonReader, unquoted, unquoted_all

MAX_INDEX = 100_000_000  # bytes; a million keys
_ENTRY = 77  # bytes of a header's entry beside its key
_HEAD_ROOM = 4096
_PIECES = "sharded"  # the folder in which torch keeps the pieces of whole files that it made of them
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
    listed, total_size = _listed_and_size(source)
    try:
        source.folder.will_open({name: _HEAD_ROOM + shard.nbytes + shard.nbytes // 7 for name, shard in listed.items()})
        shards = _open_shards(source.folder, list(listed), select, f"the index {source.path}")
    except UnreadableError:
        read_index(source)  # a key that it names twice explains more
        raise
    merged = replace(_merged(source.path, shards), indexes=(source,))
    if any(said != _Listed.of(shard.tensors) for said, shard in zip(listed.values(), shards, strict=True)):
        merged = _held_against(read_index(source), merged, shards)
    nbytes = sum(form.nbytes * number for form, number in merged.form_counts().items())
    if total_size is not None and total_size != nbytes:
        merged = replace(merged, observations=(*merged.observations, WrongTotalSize(total_size, nbytes)))
    return _with_pieces(merged, source.folder) if source.reads_cheaply else merged


def _with_pieces(whole: Checkpoint, folder: Folder) -> Checkpoint:
    """Whole files with what they have otherwise than the pieces beside them, of which torch made them."""
    if Entry(_PIECES, True) not in entries_in(folder):
        return whole
    pieces = folder.folder(_PIECES)
    if not count_named(entries_in(pieces), PIECES_FILE):
        return whole
    from ckptool.formats.ranks.dcp_safetensors import differing_numbers

    keys = tuple(differing_numbers(whole, pieces))
    return replace(whole, observations=(*whole.observations, PiecesDiffer(keys, str(pieces.path)))) if keys else whole


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
    folder.will_open(dict.fromkeys(names, 0))
    return _merged(folder.path, _open_shards(folder, names, select, str(folder.path)), (NoIndex(),))


def read_index(source: ByteSource) -> Index:
    """Read an index; its shards are not looked at."""
    weight_map: dict[str, str] = {}
    total_size = _walk(source, lambda reader: weight_map.update(reader.strings("weight_map")))
    if not weight_map:
        raise _names_none(source.path)
    return Index(source, weight_map, total_size)


def _walk(source: ByteSource, take: Callable[[JsonReader], None]) -> int | None:
    """Read an index from its begin to its end.

    Args:
        source: the index.
        take: reads the `weight_map`, which comes next.

    Returns:
        The `total_size` that it claims, if it claims one.

    Raises:
        UnreadableError: it is damaged.
    """
    path = source.path
    total_size = None
    seen: set[str] = set()
    with source.open() as file:
        if file.size > MAX_INDEX:
            raise UnreadableError(f"the index {path} has {file.size:,} bytes; no index is that long", path=path)
        file.expect(0, file.size)
        reader = JsonReader(file.read, file.size)
        try:
            for member in reader.members():
                assert isinstance(member, str)  # no usual form was given
                if member in seen:
                    raise JsonError(f'names "{member}" twice')
                seen.add(member)
                if member == "weight_map":
                    take(reader)
                else:
                    value = reader.small_value()
                    size = value.get("total_size") if member == "metadata" and isinstance(value, dict) else None
                    total_size = int(size) if isinstance(size, (int, float)) else total_size
        except JsonError as problem:
            raise UnreadableError(f"the index {path} {problem}", hint="get the index again", path=path) from None
    return total_size


def _names_none(path: PurePath) -> UnreadableError:
    return UnreadableError(f"the index {path} names no tensors: it has no weight_map", path=path)


@dataclass(slots=True)
class _Listed:
    """The keys of one shard, of which none is held.

    Attributes:
        count: how many.
        total: the sum of their hashes; no two different sets of keys have the same one, but for one in 2**64.
        nbytes: about how many bytes the header of the shard has: an entry is a key and some 77 bytes.
    """

    count: int = 0
    total: int = 0
    nbytes: int = field(default=0, compare=False)

    @classmethod
    def of(cls, keys: Collection[str]) -> _Listed:
        """What an index says that lists these keys."""
        return cls(len(keys), sum(map(hash, keys)))


def _listed_and_size(source: ByteSource) -> tuple[dict[str, _Listed], int | None]:
    """The shards that an index names, in order, and the `total_size` that it claims."""
    first: dict[str, str] = {}  # the first key of each shard
    listed: dict[bytes, _Listed] = {}  # by the name as it is written

    def take(reader: JsonReader) -> None:
        for entries in reader.pairs("weight_map"):
            raw, values, _ = zip(*entries, strict=True)
            keys = unquoted_all(raw)
            end = 0
            for value, run in groupby(values):  # keys of one shard mostly follow one another
                begin, end = end, end + len(list(run))
                shard = listed.get(value)
                if shard is None:
                    shard = listed[value] = _Listed()
                    first.setdefault(unquoted(value), keys[begin])
                shard.count += end - begin
                shard.total += sum(map(hash, keys[begin:end]))
                shard.nbytes += sum(map(len, raw[begin:end])) + (end - begin) * _ENTRY

    total_size = _walk(source, take)
    if not first:
        raise _names_none(source.path)
    for name, key in first.items():
        if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
            raise UnreadableError(
                f'the index {source.path} puts "{key}" into "{name}", which is not a plain file name',
                hint="shards are in the folder of their index; do not use this checkpoint unless you know who made it",
                path=source.path,
                key=key,
            )
    found = {name: _Listed() for name in sorted(first)}
    for value, shard in listed.items():  # one name may be written in two ways
        whole = found[unquoted(value)]
        whole.count, whole.total = whole.count + shard.count, whole.total + shard.total
        whole.nbytes += shard.nbytes
    return found, total_size


def _open_shards(folder: Folder, names: Sequence[str], select: str | None, who: str) -> list[Checkpoint]:
    """The shards of these names, all of them there.

    Each one's header is read before the next file is opened, so that few headers are held at once.
    """
    shards: list[Checkpoint] = []
    missing: list[str] = []
    problem: CkptError | None = None  # what is missing explains more
    for name in names:
        try:
            source = folder.open(name)
        except MissingError:
            missing.append(name)
            continue
        if not missing and problem is None:
            try:
                shards.append(open_file(source, select))
            except CkptError as error:
                problem = error
    if missing:
        raise UnreadableError(
            f"{who} names {many(len(names), 'shard')}, {len(missing):,} of them missing: "
            f"{_some(missing, len(missing))}",
            hint="download what is missing",
            path=folder.path / missing[0],
        )
    if problem is not None:
        raise problem
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
    tensors: Mapping[str, Tensor]
    if len(columns) == len(parts):
        tensors = Columns.joined(columns)
        is_twice = tensors.has_twins
    else:
        tensors = {k: v for part in parts for k, v in part.items()}
        is_twice = len(tensors) < sum(map(len, parts))
    if is_twice:
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
    others = {**merged.other_tensors, **unlisted}
    return replace(merged, tensors=tensors, other_tensors=others, observations=tuple(observed))


def _some(names: Iterable[str], count: int) -> str:
    """The first of them, and how many more."""
    shown = list(islice(names, 5))
    return ", ".join(shown) + (f" and {count - len(shown):,} more" if count > len(shown) else "")
