"""Folders in which every rank saved its own torch file: DTensors and ShardedTensors become whole tensors.

What the files are called differs (verl, FSDP, a line of one's own); ranks and places are taken from what is in them.
The objects around the tensors are those of the first rank.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ckptool.core.bytes import ByteSource, Entry, Folder
from ckptool.core.checkpoint import Checkpoint, GlobalUse, Piece, Tensor
from ckptool.core.errors import CkptError, UnreadableError, UsageError
from ckptool.core.format import Format
from ckptool.core.observations import MissingReplicas, Observation, ReplicasDiffer
from ckptool.core.ranks import Ranks
from ckptool.core.spec import TensorSpec, short_spec
from ckptool.formats.pickle.objects import Call, Dict, Global
from ckptool.formats.ranks.cover import TooManyError, overlap, sticks_out, uncovered
from ckptool.formats.ranks.dtensor import Mesh, Part, read_dtensor
from ckptool.formats.ranks.files import MAX_RANKS, RankFile, lacks, listed, plain, read_rank
from ckptool.formats.ranks.held import are_equal, number_of
from ckptool.formats.ranks.parts import DISTRIBUTED, DTENSORS, SHARDED_TENSORS
from ckptool.formats.ranks.runs import Run, in_runs
from ckptool.formats.ranks.sharded_tensor import is_harmless_getattr, read_sharded
from ckptool.formats.ranks.stand_ins import Joined, StandIns, joined_checkpoint
from ckptool.formats.torch.edit import substitute
from ckptool.formats.torch.names import key_text
from ckptool.formats.torch.tensor import is_tensor, subclass_of
from ckptool.formats.torch.walk import is_container
from ckptool.storage.touched import only_looking

_ENDINGS = (".pt", ".pth", ".bin", ".ckpt")
_NUMBER = re.compile(r"\d{1,6}")
_OPTIMIZER = re.compile(r"(?:^|[_.\-])optim")
_BESIDE = re.compile(r"(?:^|[_.\-])(?:extra|rng|random|sched|scheduler|scaler|trainer|dataloader|data)(?:[_.\-]|$)")
_WORLD = re.compile(r"world_size_(?P<world>\d+)_")
_STEPS = ("step", "global_step", "global_steps", "iteration")
_MOST_LEVELS = 64
_MOST_LOOKED_INTO = 8  # groups of files of which one is read

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Files whose names differ in one number.

    Attributes:
        pattern: their name, with ``{}`` in place of the number.
        names: by number.
    """

    pattern: str
    names: Mapping[int, str]


def groups_of(names: Iterable[str]) -> list[Group]:
    """The groups of torch files whose names differ in one number, large ones first.

    Example:
        >>> [group.pattern for group in groups_of(["optim_2_rank_0.pt", "optim_2_rank_1.pt", "args.bin"])]
        ['optim_2_rank_{}.pt']
    """
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for name in names:
        if name.endswith(_ENDINGS):
            for match in _NUMBER.finditer(name):
                before, after = name[: match.start()], name[match.end() :]
                pattern = f"{_literal(before)}{{}}{_literal(after)}"
                found[pattern].setdefault(int(match[0]), name)
    groups = [Group(pattern, dict(sorted(each.items()))) for pattern, each in found.items() if len(each) > 1]
    return sorted(groups, key=lambda group: (-len(group.names), group.pattern))


def _literal(text: str) -> str:
    """Text in which str.format changes nothing."""
    return text.replace("{", "{{").replace("}", "}}")


def claims(folder: Folder, entries: Sequence[Entry]) -> bool:
    """True for a folder with torch files, one for each rank, that hold parts of distributed tensors."""
    return bool(_distributed(folder, entries))


def _distributed(folder: Folder, entries: Sequence[Entry]) -> list[Group]:
    """The groups of which a file names the classes of distributed tensors."""
    groups = groups_of(entry.name for entry in entries if not entry.is_folder)
    return [
        group for group in groups[:_MOST_LOOKED_INTO] if _names_parts(folder.open(next(iter(group.names.values()))))
    ]


def _names_parts(source: ByteSource) -> bool:
    """True if a file's pickle names a class of distributed tensors."""
    try:
        with only_looking():
            with source.open() as file:
                if file.size < 4 or file.read(0, 4) != b"PK\x03\x04":
                    return False
            found = read_rank(source, "")
    except CkptError:  # it is damaged, or no torch file: opening it says so
        return False
    return any(use.name in DISTRIBUTED for use in found.archive.loaded.globals)


def open_ranks(folder: Folder, select: str | None = None) -> Checkpoint:
    """Open the files of all ranks as one checkpoint.

    Raises:
        UnreadableError: a rank is missing whose part no other rank holds, files are damaged or of different saves, or
            the parts do not make up the tensors.
        UsageError: the folder holds several sets of such files, or nothing is under `select`.
    """
    entries = folder.entries()
    groups = _distributed(folder, entries)
    weights = [group for group in groups if not _is_beside(group.pattern)] or groups
    if len(weights) > 1:
        weights = [group for group in weights if len(group.names) == len(weights[0].names)]
    if len(weights) > 1:
        sets = listed(group.pattern.format("*") for group in weights)
        raise UsageError(
            f"{folder.path} holds {len(weights)} sets of ranks' files: {sets}",
            hint="move one of them into a folder of its own",
            path=folder.path,
        )
    return _opened(folder, entries, _Join(folder, weights[0]), select)


def open_lone(folder: Folder, name: str, select: str | None = None) -> Checkpoint:
    """Open a torch file that holds distributed tensors, alone in its folder: it may hold all of them whole.

    Raises:
        UnreadableError: it holds one rank's parts; the message says which ranks are missing.
    """
    return _opened(folder, (), _Join(folder, Group(_literal(name), {0: name})), select)


def _opened(folder: Folder, entries: Sequence[Entry], model: _Join, select: str | None) -> Checkpoint:
    joins, root = [model], model.root
    beside = [group for group in groups_of(e.name for e in entries if not e.is_folder) if _is_beside(group.pattern)]
    if beside and _is_weights_alone(model):
        items: list[tuple[object, object]] = [("model", root)]
        for group in beside:
            name = "optimizer" if _OPTIMIZER.search(group.pattern) else _stem(group.pattern)
            if all(name != key for key, _ in items):
                joins.append(_Join(folder, group, model))
                items.append((name, joins[-1].root))
        root = Dict(items)
    root = _with_names(root, model, joins)
    return joined_checkpoint(
        Joined(
            path=folder.path,
            format=Format(f"torch files of ranks ({model.kind})", is_pickle=True, ranks=model.world),
            root=root,
            stand_ins=model.stand_ins,
            files=tuple(source for join in joins for source in join.sources),
            globals=tuple(each for join in joins for each in join.globals),
            observations=tuple(each for join in joins for each in join.observations()),
            ranks=Ranks(model.world, model.mesh_axes(), model.placements, model.step),
            faithful=all(join.faithful for join in joins),
        ),
        select,
    )


def _with_names(root: object, model: _Join, joins: Sequence[_Join]) -> object:
    """The object with the names of parameters in optimizers that number them in one group.

    torch numbers the parameters of a module in order, tied ones once; those are the distributed tensors of its state
    dict, and buffers are not distributed. What the optimizer holds for each must have its shape.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    seen: set[object] = set()
    for path, parts in model.parts.items():
        if not _OPTIMIZER.search(path[0]):
            own = tuple((part.rank, part.local.pieces if part.local is not None else ()) for part in parts)
            if own not in seen:
                shapes[path[-1]] = parts[0].whole
            seen.add(own)
    names = list(shapes)
    for join in joins:
        for path, parts in join.parts.items():
            number = path[-2] if len(path) > 2 and path[-3] == "state" else ""
            if number.isdecimal() and int(number) < len(names) and parts[0].whole != shapes[names[int(number)]]:
                return root
    places: dict[int, object] = {}
    for _, node in root.items if type(root) is Dict or type(root) is Call else ():
        held = {key: value for key, value in node.items if type(key) is str} if type(node) is Dict else {}
        groups = held.get("param_groups")
        if type(groups) is not list or len(groups) != 1:
            continue
        numbers = [plain(group).get("params") for group in groups]
        flat = [number for each in numbers if type(each) is list for number in each]
        if flat != list(range(len(names))) or any("param_names" in plain(group) for group in groups):
            continue
        for group, mine in zip(groups, numbers, strict=True):
            if type(group) is Dict and type(mine) is list:
                places[id(group)] = Dict([*group.items, ("param_names", [names[number] for number in mine])])
    return substitute(root, places)


def _is_beside(pattern: str) -> bool:
    stem = pattern.replace("{}", "")
    return bool(_OPTIMIZER.search(stem) or _BESIDE.search(stem))


def _stem(pattern: str) -> str:
    """``extra_state`` of ``extra_state_world_size_2_rank_{}.pt``."""
    stem = re.split(r"_world_size_|_rank_|[_.\-]?\{\}", pattern)[0]
    return stem.strip("_.-") or "beside"


def _is_weights_alone(model: _Join) -> bool:
    """True if the files hold weights and nothing around them."""
    return all(len(path) == 1 for path in model.parts)


class _Join:
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

    def __init__(self, folder: Folder, group: Group, around: _Join | None = None) -> None:
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
        self._members: tuple[int, ...] = ()
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
        for path, node in _leaves(file, getattrs):
            key = ".".join(path)
            name = subclass_of(node)
            if name in DTENSORS:
                part, mesh = read_dtensor(file, node, key, meshes)
                parts, members, own = [part], mesh.ranks, mesh.rank
                self._meshes[mesh.shape] = mesh
                self.kind = self.kind or "DTensor"
            elif name in SHARDED_TENSORS:
                parts, world = read_sharded(file, node, key)
                members = tuple(range(min(world, MAX_RANKS)))
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
            if is_first:
                self._nodes[path] = node
                self.placements.update([parts[0].placements])
        if found:
            self._take_members(file, largest)
        rank = number if rank is None else rank
        self._take_rank(file, rank)
        self._take_steps(file, rank)
        for path, parts in found.items():
            self._take(file, path, [replace(part, rank=rank) for part in parts])
        self.globals.append(_without_harmless(file.archive.loaded.globals, getattrs))
        self._odd.update(dict.fromkeys(file.archive.observations))
        if is_first:
            self._first = file
            self.faithful = file.archive.loaded.faithful
        elif found and set(found) != set(self._nodes):
            other = next(iter(set(found) ^ set(self._nodes)))
            raise UnreadableError(
                f"{'.'.join(other)} is in only one of {self.sources[0].name} and {file.name}",
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
                self._differing[key] = None

    def _take_plain(self, file: RankFile, path: Path, node: Call, number: int | None) -> None:
        """A tensor that every rank has whole: the first rank's is taken, which has no `number` here."""
        tensor = file.tensor(node, ".".join(path))
        if tensor is None:
            return
        if number is None:
            self._plain[path] = tensor
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
            self._odd[MissingReplicas(tuple(absent))] = None

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
                error = UnreadableError(
                    f"{source.name} is the part of rank {rank} of {self.world:,}; also needed: "
                    f"{'rank' if len(missing) == 1 else 'ranks'} {listed(map(str, missing))}",
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
        places = {}
        for path, node in self._nodes.items():
            places[id(node)] = self.stand_ins.of(_whole(".".join(path), self.parts[path]))
        return substitute(first.root, places)


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
                getattrs += _getattrs_in(node)
            yield path, node
        elif is_container(node) and id(node) not in seen and len(path) < _MOST_LEVELS:
            seen.add(id(node))
            entries = file.walk.entries(node)
            stack.extend(((*path, key_text(key)), child) for key, child in reversed(entries))


def _getattrs_in(node: Call) -> Iterator[Call]:
    """The calls of getattr in a ShardedTensor, which stand where its group of processes is."""
    args = node.args
    state = args[3] if type(args) is tuple and len(args) > 3 else None
    for part in state if type(state) is tuple else ():
        fn = part.fn if type(part) is Call else None
        if type(fn) is Call and type(fn.fn) is Global and fn.fn.name == "getattr":
            yield fn


def _without_harmless(uses: tuple[GlobalUse, ...], getattrs: Sequence[Call]) -> tuple[GlobalUse, ...]:
    """What a pickle names, without the getattr of ShardedTensors if it is called for nothing else."""
    harmless = {id(call) for call in getattrs if is_harmless_getattr(call)}
    return tuple(use for use in uses if not (use.name.endswith("getattr") and use.calls and use.calls == len(harmless)))
