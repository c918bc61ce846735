"""torchsnapshot's folders: ``.snapshot_metadata`` says where in which file each tensor, shard and object lies.

It is YAML, which torchsnapshot writes so that it is JSON, too. Of what every rank keeps for itself, rank 0's is taken.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from ckptool.core.bytes import ByteSource, Folder
from ckptool.core.checkpoint import Checkpoint, GlobalUse
from ckptool.core.errors import MissingError, UnreadableError
from ckptool.core.format import Format
from ckptool.core.observations import Observation
from ckptool.core.ranks import Ranks
from ckptool.core.spec import TensorSpec, packed_nbytes, short_spec
from ckptool.core.tensor import Piece, Storage, Tensor
from ckptool.formats.dcp_items import Level
from ckptool.formats.pickle.objects import Global
from ckptool.formats.ranks.cover import TooManyError, overlap, sticks_out, uncovered
from ckptool.formats.ranks.names import is_plain
from ckptool.formats.ranks.optimizer import loadable_optimizers
from ckptool.formats.ranks.runs import in_runs
from ckptool.formats.ranks.stand_ins import Joined, StandIns, joined_checkpoint
from ckptool.formats.torch.storage import named_dtype
from ckptool.formats.torch.tensor import tensor_of
from ckptool.formats.torch.view import ints_of
from ckptool.formats.torch.zip import read_embedded

METADATA = ".snapshot_metadata"
_MOST = 256 << 20
_SHARDS = {"ShardedTensor": "shards", "ChunkedTensor": "chunks", "DTensor": "shards"}
_CONTAINERS = ("dict", "OrderedDict", "list")
_RAW, _TORCH = "buffer_protocol", "torch_save"

Fields = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class _Box:
    """A shard: where it begins in the tensor, and its elements."""

    at: tuple[int, ...]
    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape


def open_ranks(folder: Folder, select: str | None = None) -> Checkpoint:
    """Open a snapshot.

    Args:
        folder: holds `.snapshot_metadata` and the folders of the files.
        select: which of the dicts that were saved to take as the weights; None to choose.

    Raises:
        UnreadableError: it is incomplete or damaged, or its shards do not make up its tensors.
        UsageError: nothing is under `select`.
    """
    source = folder.open(METADATA)
    manifest, world = _manifest(source)
    reader = _Reader(folder, StandIns(source, nbytes=source.size))
    root = Level()
    order = _order(manifest)
    for path in sorted(manifest, key=lambda path: [order[path[: at + 1]] for at in range(len(path))]):
        leaf = reader.leaf(path, manifest[path])
        if leaf is not _NOTHING and not root.put(path, leaf):
            raise UnreadableError(
                f"{source.path} puts {'.'.join(map(str, path))} where something else is", path=source.path
            )
    return joined_checkpoint(
        Joined(
            path=folder.path,
            format=Format("torchsnapshot", is_pickle=True, ranks=world),
            root=loadable_optimizers(root.inert()),
            stand_ins=reader.stand_ins,
            files=tuple(reader.files.values()),
            indexes=(source,),
            globals=tuple(reader.globals),
            observations=tuple(reader.observations),
            ranks=Ranks(world),
        ),
        select,
    )


_NOTHING = object()

_Path = tuple[str | int, ...]


def _manifest(source: ByteSource) -> tuple[dict[_Path, list[Fields]], int]:
    """The entries by path, those of several ranks together, lowest rank first; and the number of ranks."""
    if source.size > _MOST:
        raise UnreadableError(f"{source.path} has {source.size:,} bytes, too many for metadata", path=source.path)
    with source.open() as file:
        text = file.read(0, file.size)
    try:
        held = json.loads(text)
    except (ValueError, RecursionError):
        held = None
    entries = held.get("manifest") if isinstance(held, dict) else None
    world = held.get("world_size") if isinstance(held, dict) else None
    if not isinstance(entries, dict) or type(world) is not int or world < 1:
        raise UnreadableError(
            f"{source.path} is not as torchsnapshot writes it, or is cut short",
            hint="copy it again",
            path=source.path,
        )
    lists = {path for path, entry in entries.items() if isinstance(entry, dict) and entry.get("type") == "list"}
    found: dict[_Path, dict[int, Fields]] = {}
    for path, entry in entries.items():
        rank, *parts = path.split("/")
        if not rank.isdecimal() or not isinstance(entry, dict):
            raise UnreadableError(f"{source.path} holds an entry of no rank: {path[:80]}", path=source.path)
        keys: list[str | int] = []
        for number, part in enumerate(parts):
            is_item = "/".join((rank, *parts[:number])) in lists and part.isdecimal() and len(part) < 9
            keys.append(int(part) if is_item else unquote(part))
        if keys:
            found.setdefault(tuple(keys), {})[int(rank)] = entry
    return {path: [entry for _, entry in sorted(ranks.items())] for path, ranks in _taken(found).items()}, world


def _order(manifest: Mapping[_Path, Sequence[Fields]]) -> dict[_Path, int]:
    """The place of every path among those beside it: as the dict around it lists its keys, else as it comes."""
    order: dict[_Path, int] = {}
    for path in manifest:
        for at in range(len(path)):
            order.setdefault(path[: at + 1], len(order))
    for path, entries in manifest.items():
        stated = entries[0].get("keys")
        keys = stated if isinstance(stated, list) else []
        for number, key in enumerate(keys):
            if (*path, str(key)) in order:
                order[*path, str(key)] = number - len(keys)  # before any that is not listed
    return order


def _taken(found: Mapping[_Path, Mapping[int, Fields]]) -> dict[_Path, Mapping[int, Fields]]:
    """What is of all ranks, or of rank 0."""
    kept = {}
    for path, ranks in found.items():
        first = ranks[min(ranks)]
        if first.get("type") in _SHARDS or first.get("replicated") is True or 0 in ranks:
            kept[path] = ranks
    return kept


@dataclass(slots=True)
class _Reader:
    """Reads what the entries of a manifest mean."""

    folder: Folder
    stand_ins: StandIns
    files: dict[str, ByteSource] = field(default_factory=dict)
    globals: list[tuple[GlobalUse, ...]] = field(default_factory=list)
    observations: dict[Observation, None] = field(default_factory=dict)

    def leaf(self, path: _Path, entries: Sequence[Fields]) -> object:
        """What an entry stands for: a stand-in, an object, a number; `_NOTHING` for a container."""
        key, first = ".".join(map(str, path)), entries[0]
        kind = first.get("type")
        if kind in _CONTAINERS:
            return _NOTHING
        if kind == "Tensor":
            return self.stand_ins.of(self._tensor(key, first))
        if isinstance(kind, str) and kind in _SHARDS:
            return self.stand_ins.of(self._sharded(key, first, entries, _SHARDS[kind]))
        if kind == "object":
            return self._object(key, first)
        return _primitive(first)

    def _sharded(self, key: str, first: Fields, entries: Sequence[Fields], name: str) -> Tensor:
        """A tensor from the shards that all ranks list; one that is listed twice counts once."""
        boxes: dict[tuple[tuple[int, ...], tuple[int, ...]], _Box] = {}
        for entry in entries:
            shards = entry.get(name)
            for shard in shards if isinstance(shards, list) else ():
                held = shard.get("tensor") if isinstance(shard, dict) else None
                if not isinstance(held, dict):
                    raise self._bad(f"lists a shard of {key} without a tensor", key)
                at, sizes = ints_of(shard.get("offsets"), key), ints_of(shard.get("sizes"), key)
                if (at, sizes) not in boxes:
                    tensor = self._tensor(key, held)
                    if tensor.shape != sizes or len(at) != len(sizes):
                        raise self._bad(f"gives a shard of {key} the shape {list(tensor.shape)} and {list(sizes)}", key)
                    boxes[at, sizes] = _Box(at, tensor)
        found = list(boxes.values())
        if not found:
            raise self._bad(f"lists no shard of {key}", key)
        dtype, axes = found[0].tensor.dtype, len(found[0].shape)
        if any((box.tensor.dtype, len(box.shape)) != (dtype, axes) for box in found):
            raise self._bad(f"lists shards of {key} of several dtypes or numbers of axes", key)
        stated = first.get("shape")
        reach = tuple(max(box.at[axis] + box.shape[axis] for box in found) for axis in range(axes))
        shape = ints_of(stated, key) if stated is not None else reach
        try:
            both = overlap(found)
        except TooManyError:
            raise self._bad(f"cuts {key} into {len(found):,} shards in a way that ckptool cannot check", key) from None
        if both is not None or any(sticks_out(box, shape) for box in found):
            raise self._bad(f"lists shards of {key} that overlap, or stick out of it", key)
        if left := uncovered(found, shape):
            raise self._bad(f"leaves {left:,} elements of {key} to no shard: a rank's are missing", key)
        if len(found) == 1:
            return found[0].tensor
        pieces = tuple(replace(box.tensor.pieces[0], at=box.at if any(box.at) else ()) for box in found)
        return in_runs(Tensor(TensorSpec(key, dtype, shape), pieces))

    def _tensor(self, key: str, entry: Fields) -> Tensor:
        source, offset, nbytes = self._place(key, entry)
        text, serializer = entry.get("dtype"), entry.get("serializer")
        dtype = named_dtype(Global("torch", text[6:])) if isinstance(text, str) and text.startswith("torch.") else None
        shape = ints_of(entry.get("shape"), key)
        if dtype is None or serializer not in (_RAW, _TORCH):
            raise self._bad(
                f"stores {key} as {str(text)[:40]} by {str(serializer)[:40]}, which ckptool does not read", key
            )
        if serializer == _RAW:
            if packed_nbytes(dtype, shape) != nbytes:
                raise UnreadableError(
                    f"{source.path} ends early or is of another save: {short_spec(dtype, shape)} of {key} takes "
                    f"{packed_nbytes(dtype, shape):,} bytes, there are {nbytes:,}",
                    hint="copy it again",
                    path=source.path,
                    key=key,
                )
            return Tensor(TensorSpec(key, dtype, shape), (Piece(Storage(source, offset, nbytes), 0, shape),))
        archive = read_embedded(source, offset, nbytes)
        self.globals.append(archive.loaded.globals)
        self.observations.update(dict.fromkeys(archive.observations))
        tensor = tensor_of(archive.loaded.value, archive.storage_of, key)
        if tensor is None or (tensor.dtype, tensor.shape) != (dtype, shape) or len(tensor.pieces) != 1:
            raise UnreadableError(
                f"{source.path} does not hold {short_spec(dtype, shape)} for {key}", path=source.path, key=key
            )
        return replace(tensor, node=None)

    def _object(self, key: str, entry: Fields) -> object:
        source, offset, nbytes = self._place(key, entry)
        if entry.get("serializer") != _TORCH:
            raise self._bad(f"stores {key} by {str(entry.get('serializer'))[:40]}, which ckptool does not read", key)
        archive = read_embedded(source, offset, nbytes)
        self.globals.append(archive.loaded.globals)
        self.observations.update(dict.fromkeys(archive.observations))
        return self.stand_ins.adopt(archive.loaded.value, archive)

    def _place(self, key: str, entry: Fields) -> tuple[ByteSource, int, int]:
        """(file, first byte, bytes) of an entry."""
        location = entry.get("location")
        parts = location.split("/") if isinstance(location, str) else []
        if not parts or not all(map(is_plain, parts)):
            raise self._bad(f'puts {key} into "{str(location)[:80]}", which is not a file of this folder', key)
        name = "/".join(parts)
        if name not in self.files:
            folder = self.folder
            for part in parts[:-1]:
                folder = folder.folder(part)
            try:
                self.files[name] = folder.open(parts[-1])
            except MissingError:
                raise UnreadableError(
                    f"{self.folder.path} lacks {name}, which holds {key}",
                    hint="copy it from where the snapshot was saved",
                    path=self.folder.path / name,
                    key=key,
                ) from None
        source = self.files[name]
        byte_range = entry.get("byte_range")
        if byte_range is None:
            return source, 0, source.size
        low, high = (*ints_of(byte_range, key), 0, 0)[:2]
        if not low <= high <= source.size:
            raise UnreadableError(
                f"{source.path} ends early: {key} needs it up to byte {high:,}, the file has {source.size:,}",
                hint="copy it again",
                path=source.path,
                key=key,
            )
        return source, low, high - low

    def _bad(self, what: str, key: str) -> UnreadableError:
        return UnreadableError(
            f"{self.folder.path / METADATA} {what}",
            hint="the snapshot is incomplete, or of a torchsnapshot that ckptool does not know",
            path=self.folder.path / METADATA,
            key=key,
        )


def _primitive(entry: Fields) -> object:
    """A number or text that stands in the metadata itself."""
    kind, text = entry.get("type"), entry.get("serialized_value")
    if not isinstance(text, str):
        return None
    try:
        match kind:
            case "int":
                return int(text) if len(text) < 4000 else text
            case "bool":
                return text == "True"
            case "float":
                return float(struct.unpack("<d", base64.b64decode(text, validate=True))[0])
            case "bytes":
                return base64.b64decode(text, validate=True)
    except (ValueError, struct.error, binascii.Error):
        return text
    return text
