"""torch.distributed.checkpoint folders: a `.metadata` file, and `*.distcp` files full of small torch archives.

Every chunk of a tensor is a whole torch zip inside a .distcp file, so the bytes of a tensor are pieces at absolute
offsets. Everything that is no tensor (the epoch, an optimizer's settings) is such an archive too.

Which of it are the weights is decided as for torch files: the nested dict that was saved is put together again, with
an inert stand-in for each tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ckptool.core.bytes import ByteSource, Folder
from ckptool.core.checkpoint import Checkpoint, GlobalUse, Piece, Storage, Tensor
from ckptool.core.counts import many
from ckptool.core.errors import MissingError, UnreadableError
from ckptool.core.format import Format
from ckptool.core.observations import Observation, UnusedFiles
from ckptool.core.spec import TensorSpec, short_spec
from ckptool.formats.dcp_metadata import Chunk, Item, ItemPath, Metadata, Stored, read_metadata
from ckptool.formats.pickle.loading import merge_globals
from ckptool.formats.pickle.objects import Call, Dict, Global, Persistent
from ckptool.formats.sniff import DISTRIBUTED, PART_OF_DISTRIBUTED
from ckptool.formats.torch.edit import children
from ckptool.formats.torch.tensor import StorageRef, tensor_of
from ckptool.formats.torch.tree import interpret
from ckptool.formats.torch.zip import Archive, read_embedded

TORCH_DISTRIBUTED = Format("torch.distributed", is_pickle=True, has_checksums=True)
_STAND_IN = ("the storage of a stand-in",)  # known by identity: no file can make it


def open_dcp(folder: Folder, select: str | None = None) -> Checkpoint:
    """Open a torch.distributed checkpoint.

    Args:
        folder: holds `.metadata` and the `.distcp` files.
        select: which of the dicts that were saved to take as the weights; None to choose.

    Raises:
        UnreadableError: it is incomplete or damaged, or its pieces do not make up its tensors.
        UsageError: nothing is under `select`.
    """
    try:
        description = folder.open(DISTRIBUTED)
    except MissingError:
        raise _without_metadata(folder) from None
    with description.open() as file:
        metadata = read_metadata(file)
    reader = _Reader(folder, description)
    reader.check_files(metadata)
    tree = interpret(reader.tree(metadata), reader.storage_of, select, nbytes=reader.nbytes + metadata.nbytes)
    return Checkpoint(
        path=folder.path,
        format=TORCH_DISTRIBUTED,
        tensors=reader.real(tree.tensors),
        files=tuple(reader.files.values()),
        indexes=(description,),
        nbytes=sum(file.size for file in reader.files.values()) + metadata.nbytes,
        selection=tree.selection,
        extras=tree.extras,
        other_tensors=reader.real(tree.other_tensors),
        globals=merge_globals(metadata.globals, *reader.globals),
        observations=(*tree.observations, *reader.observations, *_unused(folder, reader.files)),
    )


def _without_metadata(folder: Folder) -> UnreadableError:
    if any(entry.name.endswith(DISTRIBUTED) for entry in folder.entries()):
        return UnreadableError(
            f"{folder.path} was saved by every rank for itself, without a common .metadata",
            hint="load it with torch.distributed.checkpoint in as many processes, and save it with collectives",
            path=folder.path,
        )
    return UnreadableError(
        f"{folder.path} is an incomplete torch.distributed checkpoint: .metadata, which is written last, is missing",
        hint="the run was interrupted while saving, or the hidden file was not copied along",
        path=folder.path,
    )


class _Reader:
    """Reads the items of one checkpoint.

    Attributes:
        path: of the folder.
        files: the files that hold items, by name.
        globals: what the pickles of the items name.
        nbytes: bytes of the pickles of objects, for the budget of the walk through them.
        observations: what is odd about the archives that were read.
    """

    def __init__(self, folder: Folder, description: ByteSource) -> None:
        self.folder = folder
        self.path = folder.path
        self.description = description
        self.files: dict[str, ByteSource] = {}
        self.globals: list[tuple[GlobalUse, ...]] = []
        self.nbytes = 0
        self.observations: dict[Observation, None] = {}
        self._tensors: dict[int, Tensor] = {}  # by the id of the stand-in
        self._archives: dict[int, Archive] = {}  # by the id of a reference to a storage
        self._kept: list[object] = []  # so that no id is used twice

    def check_files(self, metadata: Metadata) -> None:
        """Every file is there, and long enough for what it should hold."""
        used = [(item, stored) for item in metadata.items for stored in _places(item)]
        names = sorted({stored.name for _, stored in used})
        missing = []
        for name in names:
            try:
                self.files[name] = self.folder.open(name)
            except MissingError:
                missing.append(name)
        if missing:
            listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5:,} more" if len(missing) > 5 else "")
            raise UnreadableError(
                f"{self.path} lacks {len(missing):,} of {many(len(names), 'file')}: {listed}",
                hint="copy what is missing from where the checkpoint was saved",
                path=self.path / missing[0],
            )
        for item, stored in used:
            end, size = stored.offset + stored.nbytes, self.files[stored.name].size
            if end > size:
                path = self.path / stored.name
                raise UnreadableError(
                    f"{path} ends early: {item.key} needs it up to byte {end:,}, the file has {size:,}",
                    hint="copy it again",
                    path=path,
                    key=item.key,
                )

    def tree(self, metadata: Metadata) -> object:
        """The nested object that was saved, with a stand-in for every tensor."""
        root = _Level()
        for item in metadata.items:
            leaf = self._object(item) if item.stored is not None else self._stand_in(item)
            self._kept.append(leaf)
            if not _placed(root, item.path, leaf) and not _placed(root, (item.key,), leaf):
                raise UnreadableError(f"{self.path} puts {item.key} where something else is", path=self.path)
        return root.inert()

    def real(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors behind stand-ins, under the keys that the stand-ins got."""
        found = {}
        for key, tensor in tensors.items():
            behind = self._tensors.get(id(tensor.node), tensor)
            found[key] = replace(behind, spec=TensorSpec(key, behind.dtype, behind.shape), node=None)
        return found

    def storage_of(self, node: Persistent, key: str) -> StorageRef:
        """The bytes of a stand-in, which are nowhere, or of a tensor inside an object."""
        if node.pid is _STAND_IN:
            return StorageRef(Storage(self.description, 0, 1 << 62), None)
        return self._archives[id(node)].storage_of(node, key)

    def _stand_in(self, item: Item) -> Call:
        strides = tuple(math.prod(item.shape[axis + 1 :]) for axis in range(len(item.shape)))
        args = (Persistent(_STAND_IN), 0, item.shape, strides, False, Dict(), Global("torch", item.dtype))
        node = Call("reduce", Global("torch._utils", "_rebuild_tensor_v3"), args)
        self._tensors[id(node)] = self._tensor(item)
        return node

    def _tensor(self, item: Item) -> Tensor:
        """A tensor as the pieces that its chunks are."""
        whole = Tensor(TensorSpec(item.key, item.dtype, item.shape))
        pieces: list[Piece] = []
        for number, chunk in enumerate(item.chunks):
            part = self._part(item, chunk)
            if chunk.shape == item.shape:
                return part
            if part.layout != "strided" or len(part.pieces) != 1:
                raise UnreadableError(f"{item.key} is in chunks that are not plain tensors", path=self.path)
            if number == 0:
                whole = replace(whole, conj=part.conj, neg=part.neg)
            elif (part.conj, part.neg) != (whole.conj, whole.neg):
                raise UnreadableError(f"{item.key} has chunks of which some are conjugated", path=self.path)
            at = chunk.at if any(chunk.at) else ()
            pieces.append(replace(part.pieces[0], at=at))
        return replace(whole, pieces=tuple(pieces))

    def _part(self, item: Item, chunk: Chunk) -> Tensor:
        archive = self._archive(item, chunk.stored)
        part = tensor_of(archive.loaded.value, archive.storage_of, item.key)
        if part is None or (part.dtype, part.shape) != (item.dtype, chunk.shape):
            what = short_spec(part.dtype, part.shape) if part is not None else "no tensor"
            raise UnreadableError(
                f"{self.path / chunk.stored.name} holds {what} for {item.key} where .metadata promises "
                f"{short_spec(item.dtype, chunk.shape)}",
                path=self.path,
                key=item.key,
            )
        return part

    def _object(self, item: Item) -> object:
        """Anything but a tensor, inert; its own tensors can be found by `storage_of`."""
        assert item.stored is not None
        if not self._is_archive(item.stored):
            return f"{item.stored.nbytes:,} bytes"
        archive = self._archive(item, item.stored)
        self.nbytes += archive.pickle_nbytes
        seen: set[int] = set()
        stack = [archive.loaded.value] if any(name.startswith("data/") for name in archive.members) else []
        while stack:
            node = stack.pop()
            if id(node) not in seen:
                seen.add(id(node))
                if type(node) is Persistent:
                    self._archives[id(node)] = archive
                stack.extend(children(node))
        return archive.loaded.value

    def _is_archive(self, stored: Stored) -> bool:
        with self.files[stored.name].open() as file:
            return stored.nbytes > 4 and file.read(stored.offset, 4) == b"PK\x03\x04"

    def _archive(self, item: Item, stored: Stored) -> Archive:
        path = self.path / stored.name
        try:
            archive = read_embedded(self.files[stored.name], stored.offset, stored.nbytes)
        except UnreadableError as problem:
            raise UnreadableError(
                f"{item.key} cannot be read at byte {stored.offset:,} of {path}: {problem.message}",
                hint=problem.hint,
                path=path,
                key=item.key,
            ) from problem
        self.globals.append(archive.loaded.globals)
        self.observations.update(dict.fromkeys(archive.observations))
        return archive


class _Level(dict[str | int, object]):
    """One dict or list of the nested object."""

    def inert(self) -> object:
        """As a list if its keys count from 0, else as a dict; levels inside likewise."""
        items = [(key, value.inert() if isinstance(value, _Level) else value) for key, value in self.items()]
        if items and sorted(map(str, self)) == sorted(map(str, range(len(self)))) and all(type(k) is int for k in self):
            return [value for _, value in sorted(items, key=lambda pair: int(pair[0]))]
        return Dict([*items])


def _placed(root: _Level, path: ItemPath, leaf: object) -> bool:
    """Put `leaf` at the end of a path; False if something is in the way."""
    level: object = root
    for part in path[:-1]:
        if not isinstance(level, _Level):
            return False
        level = level.setdefault(part, _Level())
    if not isinstance(level, _Level) or path[-1] in level:
        return False
    level[path[-1]] = leaf
    return True


def _places(item: Item) -> Iterator[Stored]:
    if item.stored is not None:
        yield item.stored
    yield from (chunk.stored for chunk in item.chunks)


def _unused(folder: Folder, used: Mapping[str, ByteSource]) -> Iterator[UnusedFiles]:
    names = (entry.name for entry in folder.entries() if entry.name.endswith(PART_OF_DISTRIBUTED))
    others = tuple(name for name in names if name not in used)
    if others:
        yield UnusedFiles(others)
