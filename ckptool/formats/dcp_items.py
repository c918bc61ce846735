"""The items of a torch.distributed checkpoint: tensors in chunks, and objects; and the nested dict that was saved.

A chunk is a whole torch zip inside a .distcp file, or, in safetensors form, a tensor of the .distcp file, which is a
safetensors file then. Objects are torch zips too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ckptool.core.bytes import ByteSource, Folder
from ckptool.core.checkpoint import GlobalUse
from ckptool.core.counts import many
from ckptool.core.errors import MissingError, UnreadableError
from ckptool.core.observations import Observation
from ckptool.core.spec import Form, TensorSpec, short_spec
from ckptool.core.tensor import Piece, Storage, Tensor
from ckptool.formats.dcp_metadata import Chunk, Item, ItemPath, Metadata, Stored
from ckptool.formats.pickle.objects import Dict
from ckptool.formats.ranks.held import are_equal
from ckptool.formats.ranks.runs import in_runs
from ckptool.formats.ranks.stand_ins import StandIns
from ckptool.formats.safetensors import read_header
from ckptool.formats.torch.tensor import tensor_of
from ckptool.formats.torch.zip import Archive, read_embedded

_ARCHIVE = b"PK\x03\x04"
_MOST_BYTES = 1 << 20  # of an object that is no torch archive


class Items:
    """Reads the items of one checkpoint.

    Attributes:
        path: of the folder.
        files: the files that hold items, by name.
        globals: what the pickles of the items name.
        observations: what is odd about the archives that were read.
        differing: tensors of which ranks stored different copies.
        is_writable: False if there are objects whose bytes are not kept.
    """

    def __init__(self, folder: Folder, stand_ins: StandIns) -> None:
        self.folder = folder
        self.path = folder.path
        self.files: dict[str, ByteSource] = {}
        self.globals: list[tuple[GlobalUse, ...]] = []
        self.observations: dict[Observation, None] = {}
        self.differing: list[str] = []
        self.is_writable = True
        self._stand_ins = stand_ins
        self._headers: dict[str, dict[str, tuple[int, Form]]] = {}

    @property
    def is_safetensors(self) -> bool:
        """True if items were read that are in safetensors form, which states no checksums."""
        return bool(self._headers)

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

    def tree(self, metadata: Metadata) -> Level:
        """The nested object that was saved, with a stand-in for every tensor."""
        root = Level()
        for item in metadata.items:
            leaf = self._object(item) if item.stored is not None else self._stand_ins.of(self._tensor(item))
            if not root.put(item.path, leaf) and not root.put((item.key,), leaf):
                raise UnreadableError(f"{self.path} puts {item.key} where something else is", path=self.path)
        return root

    def _tensor(self, item: Item) -> Tensor:
        """A tensor as the pieces that its chunks are."""
        whole = Tensor(TensorSpec(item.key, item.dtype, item.shape))
        pieces: list[Piece] = []
        for number, chunk in enumerate(item.chunks):
            part = self._part(item, chunk)
            self._compare(item, chunk, part)
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
        return in_runs(replace(whole, pieces=tuple(pieces)))

    def _compare(self, item: Item, chunk: Chunk, part: Tensor) -> None:
        """Note copies of a chunk that are not equal to it."""
        for copy in item.copies:
            if (copy.at, copy.shape) == (chunk.at, chunk.shape) and are_equal(part, self._part(item, copy)) is False:
                self.differing.append(item.key)
                return

    def _part(self, item: Item, chunk: Chunk) -> Tensor:
        part: Tensor | None
        if chunk.stored.offset or self._is_archive(chunk.stored):
            archive = self._archive(item, chunk.stored)
            part = tensor_of(archive.loaded.value, archive.storage_of, item.key)
        else:
            part = self._in_safetensors(item, chunk.stored.name)
        if part is None or (part.dtype, part.shape) != (item.dtype, chunk.shape):
            what = short_spec(part.dtype, part.shape) if part is not None else "no tensor"
            raise UnreadableError(
                f"{self.path / chunk.stored.name} holds {what} for {item.key} where .metadata promises "
                f"{short_spec(item.dtype, chunk.shape)}",
                path=self.path,
                key=item.key,
            )
        return part

    def _in_safetensors(self, item: Item, name: str) -> Tensor | None:
        """The tensor of this key in a .distcp file that is a safetensors file."""
        source = self.files[name]
        if name not in self._headers:
            with source.open() as file:
                header = read_header(file)
            if header.start + header.nbytes != source.size:
                raise UnreadableError(
                    f"{source.path} ends early: its header promises {header.start + header.nbytes:,} bytes, "
                    f"the file has {source.size:,}",
                    hint="copy it again",
                    path=source.path,
                    key=item.key,
                )
            rows = zip(header.names, header.starts, header.forms, strict=True)
            self._headers[name] = {key: (start, form) for key, start, form in rows}
        found = self._headers[name].get(item.key)
        if found is None:
            return None
        start, form = found
        spec = TensorSpec(item.key, form.dtype, form.shape)
        return Tensor(spec, (Piece(Storage(source, start, form.nbytes), 0, form.shape),))

    def _object(self, item: Item) -> object:
        """Anything but a tensor, inert; its own tensors can be found by the stand-ins."""
        assert item.stored is not None
        if not self._is_archive(item.stored):
            if item.stored.nbytes <= _MOST_BYTES:
                with self.files[item.stored.name].open() as file:
                    return file.read(item.stored.offset, item.stored.nbytes)
            self.is_writable = False
            return f"{item.stored.nbytes:,} bytes"
        archive = self._archive(item, item.stored)
        self.is_writable &= archive.loaded.faithful
        return self._stand_ins.adopt(archive.loaded.value, archive)

    def _is_archive(self, stored: Stored) -> bool:
        with self.files[stored.name].open() as file:
            return stored.nbytes > 4 and file.read(stored.offset, 4) == _ARCHIVE

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


class Level(dict[str | int, object]):
    """One dict or list of the nested object."""

    def put(self, path: ItemPath, leaf: object) -> bool:
        """Put something at the end of a path; False if something is in the way."""
        level: object = self
        for part in path[:-1]:
            if not isinstance(level, Level):
                return False
            level = level.setdefault(part, Level())
        if not isinstance(level, Level) or path[-1] in level:
            return False
        level[path[-1]] = leaf
        return True

    def inert(self) -> object:
        """As a list if its keys count from 0, else as a dict; levels inside likewise."""
        items = [(key, value.inert() if isinstance(value, Level) else value) for key, value in self.items()]
        if items and sorted(map(str, self)) == sorted(map(str, range(len(self)))) and all(type(k) is int for k in self):
            return [value for _, value in sorted(items, key=lambda pair: int(pair[0]))]
        return Dict([*items])


def _places(item: Item) -> Iterator[Stored]:
    if item.stored is not None:
        yield item.stored
    yield from (chunk.stored for chunk in (*item.chunks, *item.copies))
