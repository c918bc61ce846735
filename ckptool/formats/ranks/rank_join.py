"""The files of one group of ranks, put together: parts become whole tensors, in the objects of the first rank.

Ranks of one pipeline stage hold the same keys. Those of other stages may hold others: the mesh of their tensors is a
part of a larger one then, and all ranks of that one must be there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ckptool.core.bytes import ByteSource, Folder
from ckptool.core.checkpoint import GlobalUse
from ckptool.core.errors import UnreadableError
from ckptool.core.observations import MissingReplicas, Observation, ReplicasDiffer
from ckptool.core.spec import TensorSpec, short_spec
from ckptool.core.tensor import Piece, Tensor
from ckptool.formats.pickle.objects import Call, Dict
from ckptool.formats.ranks.cover import TooManyError, overlap, sticks_out, uncovered
from ckptool.formats.ranks.dtensor import Mesh, Part, read_dtensor
from ckptool.formats.ranks.files import RankFile, read_rank
from ckptool.formats.ranks.groups import Group
from ckptool.formats.ranks.held import are_equal, number_of
from ckptool.formats.ranks.names import MAX_RANKS, lacks, listed
from ckptool.formats.ranks.parts import DTENSORS, SHARDED_TENSORS
from ckptool.formats.ranks.runs import Run, alone, in_runs
from ckptool.formats.ranks.sharded_tensor import getattrs_in, read_sharded, without_harmless
from ckptool.formats.ranks.stand_ins import StandIns
from ckptool.formats.torch.edit import substitute
from ckptool.formats.torch.names import key_text
from ckptool.formats.torch.tensor import is_tensor, subclass_of
from ckptool.formats.torch.walk import is_container

_WORLD = re.compile(r"world_size_(?P<world>\d+)_")
_STEPS = ("step", "global_step", "global_steps", "iteration")
_MOST_LEVELS = 64

Path = tuple[str, ...]


class Join:
    """The files of one group, joined.

    Attributes:
        root: the first rank's object, with a stand-in for every distributed tensor.
        stand_ins: what made them.
        sources: the files.
        kind: of tensors, in words.
        world: how many ranks there are.
        parts: what the ranks hold of each distributed tensor, by its path.
        step: the training step that the files state.
    """

    def __init__(self, folder: Folder, group: Group, around: Join | None = None) -> None:
        self.folder = folder
        self.group = group
        if len(group.names) > MAX_RANKS:
            raise UnreadableError(f"{folder.path} holds files of more than {MAX_RANKS:,} ranks", path=folder.path)
        self.sources = [folder.open(name) for name in group.names.values()]
        self.stand_ins: StandIns = StandIns(self.sources[0]) if around is None else around.stand_ins
        self.globals: list[tuple[GlobalUse, ...]] = []
        self.parts: dict[Path, list[Part]] = {}
        self.placements: Counter[str] = Counter()
        self.faithful = True
        self.kind, self.world = "", 0
        self._meshes: dict[tuple[int, ...], Mesh] = {}
        self._odd: dict[Observation, None] = {}
        self._differing: dict[str, None] = {}
        self._ranks: dict[int, ByteSource] = {}
        self._first: RankFile | None = None
        self._nodes: dict[Path, Call] = {}
        self._plain: dict[Path, Tensor] = {}
        self._further: dict[Path, Tensor] = {}  # those that the first rank does not have
        self._first_paths: frozenset[Path] = frozenset()
        self._members: tuple[int, ...] = ()
        self._rows: dict[tuple[int, ...], tuple[str, frozenset[Path]]] = {}
        self._row_of: dict[int, tuple[int, ...]] = {}
        self._steps: dict[str, object] = {}
        self.step: int | None = None
        self.root: object = None
        for number, source in zip(group.names, self.sources, strict=True):
            self._read(read_rank(source, f"rank {number}"), number)
        assert self._first is not None  # a group has files
        self._check_complete()
        self.root = self._joined(self._first)

    def mesh_axes(self) -> tuple[tuple[str, int], ...]:
        """The axes of the largest mesh."""
        mesh = max(self._meshes.values(), key=lambda mesh: len(mesh.shape), default=None)
        return tuple(zip(mesh.names, mesh.shape, strict=True)) if mesh is not None else ()

    def observations(self) -> Iterator[Observation]:
        """What there is to say about the files."""
        yield from self._odd
        if self._differing:
            yield ReplicasDiffer(tuple(self._differing), min(self._ranks))

    def _read(self, file: RankFile, number: int) -> None:
        """Take one rank's parts; of its objects nothing is kept, unless it is the first."""
        is_first = self._first is None
        getattrs: list[Call] = []
        found: dict[Path, list[Part]] = {}
        meshes: dict[int, Mesh | None] = {}
        rank: int | None = None
        largest: tuple[int, ...] = ()
        row: tuple[int, ...] = ()
        for path, node in _leaves(file, getattrs):
            key = ".".join(path)
            name = subclass_of(node)
            if name in DTENSORS:
                part, mesh = read_dtensor(file, node, key, meshes)
                parts, members, own = [part], mesh.ranks, mesh.rank
                row = max(row, mesh.own, key=len)
                self._meshes[mesh.shape] = mesh
                self.kind = self.kind or "DTensor"
            elif name in SHARDED_TENSORS:
                parts, world = read_sharded(file, node, key)
                row = members = tuple(range(min(world, MAX_RANKS)))
                own = parts[0].rank
                self.kind = self.kind or "ShardedTensor"
            else:
                self._take_plain(file, path, node, number if not is_first else None)
                continue
            if own is not None and rank is not None and own != rank:
                raise file.bad(f"holds parts of rank {rank} and of rank {own}", key)
            rank = own if own is not None else rank
            largest = max(largest, members, key=len)
            found[path] = parts
            if path not in self._nodes:
                self._nodes[path] = node
                self.placements.update([parts[0].placements])
        if found:
            self._take_members(file, largest)
        rank = number if rank is None else rank
        self._take_rank(file, rank)
        self._take_steps(file, rank)
        for path, parts in found.items():
            self._take(file, path, [replace(part, rank=rank) for part in parts])
        self.globals.append(without_harmless(file.archive.loaded.globals, getattrs))
        self._odd.update(dict.fromkeys(file.archive.observations))
        if is_first:
            self._first = file
            self._first_paths = frozenset(found)
            self.faithful = file.archive.loaded.faithful
        if found:
            self._take_row(file, rank, row, frozenset(found))

    def _take_row(self, file: RankFile, rank: int, row: tuple[int, ...], keys: frozenset[Path]) -> None:
        """The ranks over which a tensor is laid out hold the same keys."""
        name, known = self._rows.setdefault(row, (file.name, keys))
        self._row_of[rank] = row
        if keys != known:
            other = next(iter(keys ^ known))
            raise UnreadableError(
                f"{'.'.join(other)} is in only one of {name} and {file.name}",
                hint="the files are not of one save: copy the folder again",
                path=file.source.path,
                key=".".join(other),
            )

    def _take_members(self, file: RankFile, members: tuple[int, ...]) -> None:
        """All files are of the same ranks."""
        world = len(members)
        self._members = self._members or members
        if self.world and world != self.world:
            raise UnreadableError(
                f"the files are of different numbers of ranks: {self.sources[0].name} of {self.world}, "
                f"{file.name} of {world}",
                hint="the files are not of one save: copy the folder again",
                path=file.source.path,
            )
        self.world = world
        stated = _WORLD.search(file.name)
        if stated is not None and int(stated["world"]) != world:
            raise file.bad(f"is named as one of {int(stated['world'])} ranks, and says itself that there are {world}")

    def _take_rank(self, file: RankFile, rank: int) -> None:
        other = self._ranks.setdefault(rank, file.source)
        if other is not file.source:
            raise UnreadableError(
                f"two files are of rank {rank}: {other.name} and {file.name}",
                hint="one of them is of another save: remove it",
                path=file.source.path,
            )

    def _take_steps(self, file: RankFile, rank: int) -> None:
        """The training step is the same on all ranks."""
        for key, value in file.entries(file.root).items():
            if key in _STEPS and type(value) is int:
                self._same_step(file, rank, key, self._steps.setdefault(key, value), value)
                self.step = value

    def _same_step(self, file: RankFile, rank: int, key: str, ours: object, theirs: object) -> None:
        if ours != theirs:
            raise UnreadableError(
                f"the ranks differ in {key}: {self.sources[0].name} has {ours}, rank {rank} ({file.name}) has {theirs}",
                hint="the files are not of one save: copy the folder again from where it was saved",
                path=file.source.path,
                key=key,
            )

    def _take(self, file: RankFile, path: Path, parts: Sequence[Part]) -> None:
        """One rank's parts of a tensor."""
        known = self.parts.setdefault(path, [])
        for part in parts:
            key = ".".join(path)
            if known and (part.dtype, part.whole) != (known[0].dtype, known[0].whole):
                ours, theirs = short_spec(known[0].dtype, known[0].whole), short_spec(part.dtype, part.whole)
                raise UnreadableError(
                    f"the ranks differ in {key}: {self.sources[0].name} has {ours}, {file.name} has {theirs}",
                    hint="the files are not of one save: copy the folder again",
                    path=file.source.path,
                    key=key,
                )
            if sticks_out(part, part.whole):
                raise file.bad(f"holds a part of {key} that sticks out of the tensor", key)
            same = next((each for each in known if (each.at, each.shape) == (part.at, part.shape)), None)
            if same is None:
                known.append(part)
            elif same.local is not None and part.local is not None and are_equal(same.local, part.local) is False:
                self._take_difference(file, key, same, part)

    def _take_difference(self, file: RankFile, key: str, ours: Part, theirs: Part) -> None:
        """Two ranks hold different values for one place: copies, or tensors of two stages that have one name."""
        row = self._row_of.get(ours.rank, ())
        if theirs.rank not in row and row:
            raise UnreadableError(
                f"{self._ranks[ours.rank].name} and {file.name} hold different values of {key}, and their mesh does "
                "not say that they are copies",
                hint="stages of a pipeline that each number their layers anew cannot be joined: save the keys of the "
                "whole model, or with torch.distributed.checkpoint",
                path=file.source.path,
                key=key,
            )
        self._differing[key] = None

    def _take_plain(self, file: RankFile, path: Path, node: Call, number: int | None) -> None:
        """A tensor that every rank has whole: the first rank's is taken, which has no `number` here."""
        tensor = file.tensor(node, ".".join(path))
        if tensor is None:
            return
        if number is None or path not in self._plain:
            self._plain[path] = tensor
            if number is not None:
                self._further[path] = tensor
        elif path in self._plain and are_equal(self._plain[path], tensor) is False:
            if path[-1] == "step":
                ours, theirs = number_of(self._plain[path]), number_of(tensor)
                self._same_step(file, number, ".".join(path), ours, theirs)
            self._differing[".".join(path)] = None

    def _check_complete(self) -> None:
        """All elements of every tensor are in some rank's file."""
        if not self.world:
            return
        absent = [rank for rank in self._members if rank not in self._ranks]
        for path, parts in self.parts.items():
            key = ".".join(path)
            try:
                both = overlap(parts)
            except TooManyError:
                raise UnreadableError(
                    f"{key} is cut into {len(parts):,} parts in a way that ckptool cannot check",
                    path=self.folder.path,
                    key=key,
                ) from None
            if both is not None:
                names = " and ".join(self._ranks[part.rank].name for part in both)
                raise UnreadableError(
                    f"the parts of {key} in {names} overlap",
                    hint="the files are not of one save: copy the folder again",
                    path=self.folder.path,
                    key=key,
                )
            if uncovered(parts, parts[0].whole):
                raise self._hole(key, parts, absent)
        if absent and set(self._ranks) <= set(self._members):
            self._check_stages(absent)
            self._odd[MissingReplicas(tuple(absent))] = None

    def _check_stages(self, absent: Sequence[int]) -> None:
        """Ranks that are missing hold copies: of their own row, or because all rows hold the same."""
        there = {rank for row in self._rows for rank in row}
        are_alike = len(self._rows) > 1 and len({keys for _, keys in self._rows.values()}) == 1
        lost = [rank for rank in absent if rank not in there]
        if lost and not are_alike:
            shift = next(iter(self.group.names)) - min(self._ranks)
            raise lacks(self.folder.path, [rank + shift for rank in lost], self.world, self.group.pattern)

    def _hole(self, key: str, parts: Sequence[Part], absent: Sequence[int]) -> UnreadableError:
        """Which ranks have what is in no file."""
        owners = parts[0].owners or {}
        there = {part.at for part in parts}
        missing = sorted({rank for at, rank in owners.items() if at not in there and rank in absent}) or list(absent)
        if missing:
            shift = next(iter(self.group.names)) - min(self._ranks)  # names may count from 1
            error = lacks(self.folder.path, [rank + shift for rank in missing], self.world, self.group.pattern)
            if len(self.group.names) == 1:
                (rank,), (source,) = self._ranks, self.sources
                names = ""
                if shift in (0, 1) and self.group.pattern.count("{}") == 1:
                    names = f" ({listed(self.group.pattern.format(other + shift) for other in missing)})"
                error = UnreadableError(
                    f"{source.name} is the part of rank {rank} of {self.world:,}; also needed: "
                    f"{'rank' if len(missing) == 1 else 'ranks'} {listed(map(str, missing))}{names}",
                    hint="put the files of all ranks into one folder, under names that differ in one number",
                    path=source.path,
                )
            error.key = key
            return error
        whole = parts[0].whole
        return UnreadableError(
            f"{uncovered(parts, whole):,} elements of {key} are in the file of no rank, though all ranks are there",
            hint="the files are not of one save: copy the folder again",
            path=self.folder.path,
            key=key,
        )

    def _joined(self, first: RankFile) -> object:
        """The first rank's object with a stand-in for every distributed tensor."""
        self.stand_ins.adopt(first.root, first.archive)
        places: dict[int, object] = {}
        further: dict[Path, list[tuple[object, object]]] = {}
        for path, node in self._nodes.items():
            stand_in = self.stand_ins.of(_whole(".".join(path), self.parts[path]))
            if path in self._first_paths:
                places[id(node)] = stand_in
            else:
                further.setdefault(path[:-1], []).append((path[-1], stand_in))
        for path, tensor in self._further.items():
            further.setdefault(path[:-1], []).append((path[-1], self.stand_ins.of(alone(tensor, ".".join(path)))))
        root = substitute(first.root, places)
        return substitute(root, dict(self._with_further(first, root, further))) if further else root

    def _with_further(
        self, first: RankFile, root: object, further: Mapping[Path, list[tuple[object, object]]]
    ) -> Iterator[tuple[int, object]]:
        """The dicts of the first rank with the entries that only other ranks have, by the ids of those dicts."""
        for path, entries in further.items():
            node = root
            for part in path:
                node = next((child for key, child in first.walk.entries(node) if key_text(key) == part), None)
            if type(node) is Dict:
                yield id(node), Dict([*node.items, *entries])
            elif type(node) is Call and node.items:
                new = Call(node.how, node.fn, node.args, node.kwargs)
                new.items, new.states = [*node.items, *entries], node.states
                yield id(node), new
            elif any((*path, name) in self._nodes for name, _ in entries):
                key = ".".join((*path, str(entries[0][0])))
                raise UnreadableError(
                    f"{key} is in only one of {self.sources[0].name} and the files of other ranks",
                    hint="the files are not of one save: copy the folder again",
                    path=self.folder.path,
                    key=key,
                )


def _whole(key: str, parts: Sequence[Part]) -> Tensor:
    """A tensor from the parts of all ranks."""
    spec = TensorSpec(key, parts[0].dtype, parts[0].whole)
    pieces: list[Piece] = []
    for part in parts:
        if part.local is None or not part.local.elements:
            continue
        run = Run.of(part.local)
        (piece,) = part.local.pieces if run is None else (Piece(run.own_storage, 0, part.shape),)
        if part.shape == part.whole:
            return Tensor(spec, (piece,))
        pieces.append(replace(piece, at=part.at if any(part.at) else ()))
    return in_runs(Tensor(spec, tuple(pieces)))


def _leaves(file: RankFile, getattrs: list[Call]) -> Iterator[tuple[Path, Call]]:
    """Every tensor in the file's object with the keys on the way to it, each container once."""
    stack: list[tuple[Path, object]] = [((), file.root)]
    seen: set[int] = set()
    while stack:
        path, node = stack.pop()
        if type(node) is Call and is_tensor(node):
            if subclass_of(node) in SHARDED_TENSORS:
                getattrs += getattrs_in(node)
            yield path, node
        elif is_container(node) and id(node) not in seen and len(path) < _MOST_LEVELS:
            seen.add(id(node))
            entries = file.walk.entries(node)
            stack.extend(((*path, key_text(key)), child) for key, child in reversed(entries))
