"""torch.distributed.checkpoint folders: `.metadata`, or one of each rank's own, and `*.distcp` files with the bytes.

Which of it are the weights is decided as for torch files: the nested dict that was saved is put together again, with
an inert stand-in for each tensor. What trainers write beside it is taken in: Lightning's `meta.pt`, Megatron's
`common.pt`, the folder in which Accelerate keeps the optimizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from ckptool.core.bytes import ByteSource, Folder
from ckptool.core.checkpoint import Checkpoint, GlobalUse
from ckptool.core.errors import UnreadableError, naming
from ckptool.core.format import Format
from ckptool.core.observations import NumberedOptimizer, Observation, ReplicasDiffer, StackedLayers, UnusedFiles
from ckptool.core.ranks import Ranks
from ckptool.formats.dcp_items import Items, Level
from ckptool.formats.dcp_metadata import Metadata, joined_metadata, read_metadata
from ckptool.formats.ranks.files import opened, plain, read_rank
from ckptool.formats.ranks.megatron_dist import COMMON, FORMAT, in_model, is_megatron, mesh_of, stacked_keys
from ckptool.formats.ranks.names import MAX_RANKS
from ckptool.formats.ranks.optimizer import loadable_optimizers, named_optimizers, numbered_optimizers, parameters_of
from ckptool.formats.ranks.stand_ins import Joined, StandIns, joined_checkpoint

TORCH_DISTRIBUTED = Format("torch.distributed", is_pickle=True, has_checksums=True)
METADATA = ".metadata"
OF_RANK = re.compile(r"__(?P<rank>\d{1,6})\.metadata")
_DATA = re.compile(r"__(?P<rank>\d+)_\d+\.distcp")
_BESIDE = ("meta.pt", COMMON)
"""What holds no weights, but belongs to the same save: Lightning's loops and epoch, Megatron's arguments."""


def open_dcp(folder: Folder, select: str | None = None) -> Checkpoint:
    """Open a torch.distributed checkpoint.

    Args:
        folder: holds `.metadata` and the `.distcp` files.
        select: which of the dicts that were saved to take as the weights; None to choose.

    Raises:
        UnreadableError: it is incomplete or damaged, or its pieces do not make up its tensors.
        UsageError: nothing is under `select`.
    """
    return open_folders([folder], folder.path, select)


def open_folders(folders: Sequence[Folder], path: PurePath, select: str | None = None) -> Checkpoint:
    """Open torch.distributed checkpoints that hold one training state together, as one.

    Args:
        folders: each holds `.metadata` and `.distcp` files; the first one has the weights.
        path: what the user named.
        select: which of the dicts that were saved to take as the weights; None to choose.
    """
    parts = [_Description.of(folder) for folder in folders]
    stand_ins = StandIns(parts[0].sources[0])
    root, saves = Level(), []
    for part in parts:
        items = Items(part.folder, stand_ins)
        items.check_files(part.metadata)
        stand_ins.nbytes += part.metadata.nbytes
        saves.append(items)
        for key, value in items.tree(part.metadata).items():
            if not root.put((key,), value):
                raise UnreadableError(f"two folders of {path} both hold {key}", path=path, key=str(key))
    beside = _Beside(stand_ins)
    for part in parts:
        beside.read(part.folder, root)
    count = _count([name for items in saves for name in items.files], parts)
    globals_found = [part.metadata.globals for part in parts]
    globals_found += [each for items in saves for each in items.globals]
    joined = Joined(
        path=path,
        format=FORMAT if parts[0].is_megatron else TORCH_DISTRIBUTED,
        root=loadable_optimizers(root.inert()),
        stand_ins=stand_ins,
        files=(*(file for items in saves for file in items.files.values()), *beside.files),
        indexes=tuple(source for part in parts for source in part.sources),
        globals=(*globals_found, *beside.globals),
        observations=tuple(_observed(parts, saves)),
        ranks=Ranks(count, beside.mesh, step=beside.step),
    )
    checkpoint = joined_checkpoint(joined, select)
    named = named_optimizers(joined.root, parameters_of(checkpoint), stand_ins.shape_of)
    numbered = tuple(map(NumberedOptimizer, numbered_optimizers(named)))
    if named is not joined.root or numbered:
        joined = replace(joined, root=named, observations=(*joined.observations, *numbered))
        checkpoint = joined_checkpoint(joined, select)
    return checkpoint if all(items.is_writable for items in saves) else replace(checkpoint, tree=None)


@dataclass(frozen=True, slots=True)
class _Description:
    """What the `.metadata` of a folder say, one for all ranks or one of each."""

    folder: Folder
    sources: tuple[ByteSource, ...]
    metadata: Metadata
    is_megatron: bool = False

    @classmethod
    def of(cls, folder: Folder) -> _Description:
        source = opened(folder, METADATA)
        if source is not None:
            with source.open() as file:
                metadata = read_metadata(file)
            if is_megatron(folder):
                return cls(folder, (source,), in_model(metadata), True)
            return cls(folder, (source,), metadata)
        numbers = sorted(
            int(match["rank"]) for entry in folder.entries() if (match := OF_RANK.fullmatch(entry.name)) is not None
        )
        if not numbers:
            raise _incomplete(folder)
        if len(numbers) > MAX_RANKS:
            raise UnreadableError(f"{folder.path} holds files of more than {MAX_RANKS:,} ranks", path=folder.path)
        sources = tuple(folder.open(f"__{number}.metadata") for number in numbers)
        found = {}
        for number, each in zip(numbers, sources, strict=True):
            with each.open() as file:
                found[number] = read_metadata(file, is_part=True)
        with naming(folder.path):
            return cls(folder, sources, joined_metadata(found))


def _incomplete(folder: Folder) -> UnreadableError:
    names = [entry.name for entry in folder.entries() if entry.name.endswith(".metadata.tmp")]
    hint = "the run was interrupted while saving, or the hidden file was not copied along"
    return UnreadableError(
        f"{folder.path} is an incomplete torch.distributed checkpoint: .metadata, which is written last, is missing",
        hint=f"the run was interrupted while saving: only {names[0]} is there" if names else hint,
        path=folder.path,
    )


class _Beside:
    """Torch files beside the `.metadata` that belong to the same save and hold no weights.

    Attributes:
        files: those that were read.
        globals: what their pickles name.
        step: the training step that they state.
        mesh: the mesh of ranks that they state.
    """

    def __init__(self, stand_ins: StandIns) -> None:
        self.stand_ins = stand_ins
        self.files: list[ByteSource] = []
        self.globals: list[tuple[GlobalUse, ...]] = []
        self.step: int | None = None
        self.mesh: tuple[tuple[str, int], ...] = ()

    def read(self, folder: Folder, root: Level) -> None:
        """Take their entries into the nested object, where nothing else has their names."""
        for name in _BESIDE:
            source = opened(folder, name)
            if source is None:
                continue
            file = read_rank(source, name)
            self.files.append(source)
            self.globals.append(file.archive.loaded.globals)
            self.stand_ins.adopt(file.root, file.archive)
            entries = plain(file.root)
            for key, value in entries.items():
                if isinstance(key, (str, int)) and not root.put((key,), value):
                    root.put((f"{name.removesuffix('.pt')}.{key}",), value)
            for key in ("global_step", "iteration"):
                step = entries.get(key)
                self.step = step if type(step) is int else self.step
            self.mesh = mesh_of(file, entries) or self.mesh


def _count(names: Sequence[str], parts: Sequence[_Description]) -> int:
    """How many ranks wrote files; a rank that holds nothing writes none."""
    ranks = {int(match["rank"]) for name in names if (match := _DATA.fullmatch(name)) is not None}
    return max(len(ranks), *(len(part.sources) for part in parts))


def _observed(parts: Sequence[_Description], saves: Sequence[Items]) -> Iterator[Observation]:
    for part, items in zip(parts, saves, strict=True):
        if part.is_megatron and (stacked := tuple(stacked_keys(part.metadata))):
            yield StackedLayers(stacked)
        yield from items.observations
        if items.differing:
            yield ReplicasDiffer(tuple(items.differing), 0)
        yield from _unused(part.folder, items.files)


def _unused(folder: Folder, used: Mapping[str, ByteSource]) -> Iterator[UnusedFiles]:
    names = (entry.name for entry in folder.entries() if entry.name.endswith(".distcp"))
    others = tuple(name for name in names if name not in used)
    if others:
        yield UnusedFiles(others)
