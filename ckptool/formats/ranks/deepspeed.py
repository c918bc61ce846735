"""DeepSpeed's folders: model states, and the float32 parameters in the optimizer files of all ranks.

The weights are the float32 parameters, as DeepSpeed's own zero_to_fp32 gives them; the 16-bit ones that stages 1 and 2
also write are taken with ``--select module``. What zero_to_fp32 loses is taken from where it is: frozen parameters of
stage 1, and the weights of BF16_Optimizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import PurePath

from ckptool.core.bytes import Folder
from ckptool.core.checkpoint import Checkpoint, Tensor
from ckptool.core.errors import UnreadableError
from ckptool.core.format import Format
from ckptool.core.observations import IncompleteOptimizer, NotInOptimizer, Observation
from ckptool.core.ranks import Ranks
from ckptool.formats.pickle.objects import Call, Dict
from ckptool.formats.ranks.files import MAX_RANKS, RankFile, lacks, listed, read_rank
from ckptool.formats.ranks.held import as_float32
from ckptool.formats.ranks.runs import Run, alone, whole_tensor
from ckptool.formats.ranks.stand_ins import Joined, StandIns, joined_checkpoint
from ckptool.formats.ranks.universal import PARAMETERS, Universal
from ckptool.formats.ranks.zero import Partition, Partitions, Shapes, read_partition, require_alike

OPTIMIZER_FILE = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_(?P<rank>\d+)_mp_rank_(?P<mp>\d+)_optim_states\.pt")
PARAMETER_FILE = re.compile(r"zero_pp_rank_(?P<rank>\d+)_mp_rank_(?P<mp>\d+)_model_states\.pt")
MODEL_FILE = re.compile(r"mp_rank_(?P<mp>\d+)_model_states\.pt")
_OTHERS = {
    re.compile(r"layer_\d+_expert_\d+_mp_rank_\d+_model_states\.pt|expp_rank_\d+_mp_rank_\d+_optim_states\.pt"): (
        "experts that are spread over ranks (MoE)"
    ),
    re.compile(r"layer_\d+-model_\d+-model_states\.pt"): "the layers of a pipeline",
}
FLOAT32 = "fp32"
"""The entry that the float32 parameters get."""

MODULE = "module"
_INTERNAL = (
    MODULE,
    "optimizer",
    "buffer_names",
    "param_shapes",
    "frozen_param_shapes",
    "frozen_param_fragments",
    "shared_params",
    "checkpoint_parallel_dimensions",
    "data_sampler",
    "random_ltd",
)
_SIXTEEN = ("float16", "bfloat16")


def is_deepspeed(names: Sequence[str]) -> bool:
    """True if a folder holds files of DeepSpeed's ranks."""
    return any(pattern.fullmatch(name) for name in names for pattern in (MODEL_FILE, PARAMETER_FILE, OPTIMIZER_FILE))


def open_deepspeed(folder: Folder, select: str | None = None, path: PurePath | None = None) -> Checkpoint:
    """Open the folder of one DeepSpeed checkpoint: ``global_step100``, or any other tag.

    Args:
        folder: holds the files of the ranks.
        select: which dict to take as the weights: ``fp32``, ``module``; None for the best there is.
        path: what the user named, where that is another folder.

    Raises:
        UnreadableError: a rank is missing or damaged, the ranks are of different saves, or the parameters are not all
            there; or the weights are spread over more than data-parallel ranks.
        UsageError: nothing is under `select`.
    """
    files = _Files.of(folder)
    is_universal = any(entry.name == PARAMETERS and entry.is_folder for entry in folder.entries())
    names = files.named(files.parameters) if files.is_partitioned else [("the model", files.model)]
    states = _ModelStates(read_rank(folder.open(name), who) for who, name in names)  # one tree at a time
    partitions: Partitions | Universal | None
    if is_universal:
        partitions = Universal(folder.folder(PARAMETERS), states.shapes, is_partitioned=files.is_partitioned)
        states.globals += partitions.globals
        states.observations += partitions.observations
    else:
        partitions = _partitions(folder, files, states)
    builder = _Builder(states, partitions, StandIns(states.file.source))
    root = builder.root(select)
    kind = _kind_of(partitions)
    parameters = list(partitions.names()) if partitions is not None else []
    step, world = states.global_steps, states.held.get("dp_world_size")
    count = max(files.world, 1) if not is_universal or type(world) is not int else world
    ranks = Ranks(
        count=count,
        mesh=(("dp", count),),
        placements={f"{kind} partition": len(parameters)} if isinstance(partitions, Partitions) else {},
        step=step if type(step) is int else None,
        version=f"deepspeed {states.version}" if states.version else "",
    )
    sources = [folder.open(name) for name in (*files.model_names, *files.optimizers.values())]
    sources += partitions.files if isinstance(partitions, Universal) else []
    joined = Joined(
        path=path or folder.path,
        format=Format(f"DeepSpeed {kind}".strip(), is_pickle=True, ranks=0 if is_universal else count),
        root=root,
        stand_ins=builder.stand_ins,
        files=tuple(sources),
        globals=tuple(states.globals),
        observations=(*states.observations, *builder.observations),
        ranks=ranks,
        faithful=states.faithful,
    )
    asked = select if select is not None or not builder.prefers else builder.prefers
    checkpoint = joined_checkpoint(joined, asked)
    return builder.said(checkpoint) if select is None else checkpoint


def _kind_of(partitions: Partitions | Universal | None) -> str:
    """What tells one kind of DeepSpeed's folders from another."""
    if partitions is None:
        return ""
    return "universal" if isinstance(partitions, Universal) else f"ZeRO-{partitions.stage}"


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of one DeepSpeed folder, by the numbers in their names.

    Attributes:
        path: the folder.
        model: of the whole 16-bit weights; empty in stage 3.
        parameters: of the ranks' model states in stage 3, by rank.
        optimizers: of the ranks' optimizer states, by rank.
    """

    path: PurePath
    model: str
    parameters: Mapping[int, str]
    optimizers: Mapping[int, str]

    @property
    def is_partitioned(self) -> bool:
        return bool(self.parameters)

    @property
    def world(self) -> int:
        return len(self.optimizers) or len(self.parameters)

    @property
    def model_names(self) -> list[str]:
        return [*self.parameters.values()] or [self.model]

    def named(self, files: Mapping[int, str]) -> list[tuple[str, str]]:
        """The files by rank, and the ranks in words."""
        return [(f"rank {rank} of {len(files)}", name) for rank, name in files.items()]

    @classmethod
    def of(cls, folder: Folder) -> _Files:
        names = [entry.name for entry in folder.entries() if not entry.is_folder]
        for pattern, what in _OTHERS.items():
            others = [name for name in names if pattern.fullmatch(name)]
            if others:
                raise UnreadableError(
                    f"{folder.path} holds {what}: {listed(others, 3)}",
                    hint="ckptool joins data-parallel ranks; save a consolidated checkpoint with DeepSpeed",
                    path=folder.path,
                )
        matches = [
            (kind, match)
            for name in names
            for kind, pattern in enumerate((MODEL_FILE, PARAMETER_FILE, OPTIMIZER_FILE))
            if (match := pattern.fullmatch(name)) is not None
        ]
        parallel = {int(match["mp"]) for _, match in matches}
        if len(parallel) > 1:
            raise UnreadableError(
                f"{folder.path} holds the weights of {len(parallel)} model-parallel ranks: "
                "which axis of a tensor was cut is not in the files",
                hint="convert it with the library that trained the model (Megatron-DeepSpeed)",
                path=folder.path,
            )
        found: tuple[dict[int, str], ...] = ({}, {}, {})
        for kind, match in matches:
            rank = int(match["rank"]) if kind else 0
            if rank in found[kind]:
                raise UnreadableError(
                    f"two files are of rank {rank}: {found[kind][rank]} and {match[0]}",
                    hint="they are of two saves: remove the older one",
                    path=folder.path,
                )
            found[kind][rank] = match[0]
        models, parameters, optimizers = (dict(sorted(each.items())) for each in found)
        if len(optimizers) + len(parameters) > MAX_RANKS:
            raise UnreadableError(f"{folder.path} holds files of more than {MAX_RANKS:,} ranks", path=folder.path)
        if models and parameters:
            raise UnreadableError(
                f"{folder.path} holds model states of two kinds: {models[0]} and {next(iter(parameters.values()))}",
                hint="they are of two saves: remove the older one",
                path=folder.path,
            )
        if not models and not parameters:
            raise UnreadableError(
                f"{folder.path} holds DeepSpeed's optimizer states without *_model_states.pt, which names them",
                hint="copy it from where the checkpoint was saved",
                path=folder.path,
            )
        return cls(folder.path, models.get(0, ""), parameters, optimizers)


class _ModelStates:
    """What the model files of the ranks say: parameters, buffers, ties. Of all but the first only what is a part.

    Attributes:
        file: the first file.
        shapes: the parameters of each group.
        frozen: the shape of each frozen parameter.
        aliases: the parameter that a further key is.
    """

    def __init__(self, files: Iterator[RankFile]) -> None:
        self.file = file = next(files)
        self.held = file.entries(file.root)
        self.globals = [file.archive.loaded.globals]
        self.observations = [*file.archive.observations]
        self.faithful = file.archive.loaded.faithful
        self.shapes = self._shapes(file, self.held.get("param_shapes"))
        (self.frozen,) = self._shapes(file, [self.held.get("frozen_param_shapes")])
        self.global_steps = self.held.get("global_steps")
        self.version = self.held["ds_version"] if type(self.held.get("ds_version")) is str else ""
        shared = file.entries(self.held.get("shared_params"))
        self._fragments: dict[str, list[Run]] = {}
        self._add_fragments(file, self.held)
        for each in files:
            held = each.entries(each.root)
            self.globals.append(each.archive.loaded.globals)
            self.observations += each.archive.observations
            self._check_alike(each, held)
            shared = shared or each.entries(held.get("shared_params"))
            self._add_fragments(each, held)
        self.aliases = {alias: owner for alias, owner in shared.items() if type(owner) is str}
        self.module = file.entries(self.held.get(MODULE))
        names = self.held.get("buffer_names")
        self.buffers = {name for name in names if type(name) is str} if type(names) is list else set()

    def _shapes(self, file: RankFile, node: object) -> list[Shapes]:
        """param_shapes: a list of dicts, before DeepSpeed 0.3.16 one dict."""
        groups = node if type(node) is list else [node]
        return [{key: file.shape(size, key) for key, size in file.entries(group).items()} for group in groups]

    def _check_alike(self, file: RankFile, held: Mapping[str, object]) -> None:
        steps = held.get("global_steps")
        if type(steps) is int and steps != self.global_steps:
            raise UnreadableError(
                f"the ranks differ in the step: {self.file.who} ({self.file.name}) has {self.global_steps}, "
                f"{file.who} ({file.name}) has {steps}",
                hint="the files are not of one save: copy the folder again from where it was saved",
                path=file.source.path,
            )
        shapes = self._shapes(file, held.get("param_shapes"))
        if [list(group.items()) for group in shapes] != [list(group.items()) for group in self.shapes]:
            ours = {name: shape for group in self.shapes for name, shape in group.items()}
            theirs = {name: shape for group in shapes for name, shape in group.items()}
            key = next((name for name in (*ours, *theirs) if ours.get(name) != theirs.get(name)), None)
            raise file.bad(
                f"names other parameters than {self.file.name}" + (f": {key}" if key else ", in another order"),
                key,
                hint="the files are not of one save: copy the folder again",
            )

    def _add_fragments(self, file: RankFile, held: Mapping[str, object]) -> None:
        """The ranks' parts of frozen parameters, or the whole ones."""
        for key, node in file.entries(held.get("frozen_param_fragments")).items():
            tensor = file.tensor(node, key)
            run = Run.of(tensor) if tensor is not None else None
            if run is None:
                raise file.bad(f"holds something else than a plain tensor for the frozen parameter {key}", key)
            self._fragments.setdefault(key, []).append(run)

    def frozen_tensor(self, key: str) -> Tensor | None:
        """A frozen parameter from its parts; None if the files hold none."""
        runs = self._fragments.get(key)
        if not runs:
            return None
        shape = self.frozen[key]
        count = prod(shape)
        share, left, parts = -(-count // len(runs)), count, []
        for number, run in enumerate(runs):
            wanted = min(share, left)
            if run.count < wanted:
                raise UnreadableError(
                    f"rank {number} holds {run.count:,} elements of the frozen parameter {key}, not {wanted:,}",
                    path=self.file.source.path,
                    key=key,
                )
            parts.append(run.cut(0, wanted))
            left -= wanted
        if left or len({run.dtype for run in runs}) > 1:
            raise UnreadableError(
                f"the parts of the frozen parameter {key} do not make it up", path=self.file.source.path, key=key
            )
        return whole_tensor(key, runs[0].dtype, shape, parts)

    def module_tensor(self, key: str) -> Tensor | None:
        """A tensor of `module`, as it is stored."""
        return self.file.tensor(self.module.get(key), key)


def _partitions(folder: Folder, files: _Files, states: _ModelStates) -> Partitions | None:
    """The optimizer files, which must be those of all ranks."""
    if not files.optimizers:
        if files.is_partitioned:
            raise UnreadableError(
                f"{folder.path} holds no *_optim_states.pt: in stage 3 of ZeRO the weights are in them",
                hint="copy them from where the checkpoint was saved",
                path=folder.path,
            )
        return None
    found: list[Partition] = []
    world = states.held.get("dp_world_size")
    for rank, name in files.optimizers.items():
        file = read_rank(folder.open(name), f"rank {rank}")
        states.globals.append(file.archive.loaded.globals)
        states.observations += file.archive.observations
        found.append(read_partition(file, rank, keeps_options=not found))
    require_alike(found)
    count = max(found[0].counts, default=0) or (world if type(world) is int else len(found))
    for kind in (files.optimizers, files.parameters):
        _check_complete(files.path, kind, count)
    return Partitions(folder.path, found, states.shapes)


def _check_complete(path: PurePath, names: Mapping[int, str], count: int) -> None:
    """There is one file for each rank, and no other."""
    if not names:
        return
    missing = [rank for rank in range(min(count, MAX_RANKS)) if rank not in names]
    if missing:
        like = re.sub(r"zero_pp_rank_\d+", "zero_pp_rank_{}", next(iter(names.values())))
        raise lacks(path, missing, count, like)
    beyond = [name for rank, name in names.items() if rank >= count]
    if beyond:
        raise UnreadableError(
            f"{path} was saved by {count:,} ranks, and holds files of further ones: {listed(beyond)}",
            hint="they are of another save, with another number of ranks: remove those",
            path=path / beyond[0],
        )


@dataclass(slots=True)
class _Builder:
    """Puts together the object that a plain training loop would have saved.

    Attributes:
        prefers: the entry that holds the weights.
    """

    states: _ModelStates
    partitions: Partitions | Universal | None
    stand_ins: StandIns
    observations: list[Observation] = field(default_factory=list)
    prefers: str = ""

    def root(self, select: str | None) -> object:
        """The object: the weights, the optimizer's state by the names of the parameters, and what else was saved."""
        held = self.states.held
        items: list[tuple[object, object]] = []
        file = self.states.file
        if self.partitions is not None and (select is None or select.partition(".")[0] != MODULE):
            self.prefers = FLOAT32
            items.append((FLOAT32, self._weights()))
        else:
            self.prefers = MODULE
            items.append((MODULE, self.stand_ins.adopt(held.get(MODULE), file.archive)))
        optimizer = self._optimizer()
        if optimizer is not None:
            items.append(("optimizer", optimizer))
        for name, node in held.items():
            if name not in _INTERNAL:
                items.append((name, self.stand_ins.adopt(node, file.archive)))
        return Dict(items)

    def said(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint with the reason why these are the weights."""
        selection = checkpoint.selection
        if self.prefers == FLOAT32:
            others = selection.others
            if self.partitions is not None and self.partitions.stage != 3:  # the 16-bit ones
                others = (*others, MODULE)
            selection = replace(selection, why="the float32 parameters of the optimizer", others=others)
        else:
            selection = replace(selection, why="the usual name for weights")
        return replace(checkpoint, selection=selection)

    def _weights(self) -> object:
        """The float32 parameters, buffers, frozen parameters and aliases, in the order of the module."""
        assert self.partitions is not None
        named = {name: self.partitions.tensor(name) for name in self.partitions.names()}
        order = [
            *self.states.module,
            *(name for name in (*named, *self.states.frozen) if name not in self.states.module),
        ]
        tensors: dict[str, Tensor] = {}
        frozen: list[str] = []
        for key in order:
            tensor = named.get(key)
            if tensor is None and key in self.states.frozen:
                tensor = self.states.frozen_tensor(key)
            if tensor is None and key in self.states.buffers:
                tensor = self._buffer(key)
            if tensor is None and self.states.aliases.get(key) in named:
                tensor = named[self.states.aliases[key]]
            if tensor is None and self.partitions.stage != 3:
                tensor = self.states.module_tensor(key)
                if tensor is not None:
                    tensor = alone(tensor, key)
                    frozen.append(key)
            if tensor is None and key in self.states.module and self.states.module_tensor(key) is not None:
                raise UnreadableError(
                    f"{key} is an empty placeholder, and no file of the folder holds its values",
                    hint="save again with the parameters included",
                    path=self.states.file.source.path,
                    key=key,
                )
            if tensor is not None:
                tensors[key] = tensor
        for alias, owner in self.states.aliases.items():
            if alias not in tensors and owner in tensors:
                tensors[alias] = tensors[owner]
        if frozen:
            self.observations.append(NotInOptimizer(tuple(frozen)))
        return self._like_module([(key, self.stand_ins.of(tensor)) for key, tensor in tensors.items()])

    def _like_module(self, items: list[tuple[object, object]]) -> object:
        """A dict like the one of the module's state, with its versions."""
        node = self.states.held.get(MODULE)
        if type(node) is not Call or type(node.args) is not tuple or node.args:
            return Dict(items)
        new = Call(node.how, node.fn, node.args, node.kwargs)
        new.items = items
        new.states = [self.stand_ins.adopt(state, self.states.file.archive) for state in node.states]
        return new

    def _buffer(self, key: str) -> Tensor | None:
        """A buffer of the first rank; 16-bit ones as float32, as zero_to_fp32 gives them."""
        tensor = self.states.module_tensor(key)
        if tensor is None:
            return None
        wide = as_float32(tensor) if tensor.dtype in _SIXTEEN else None
        return wide or alone(tensor, key)

    def _optimizer(self) -> object | None:
        """The optimizer's state dict, with the names of the parameters in place of numbers."""
        file = self.states.file
        if self.partitions is None:
            whole = self.states.held.get("optimizer")
            inner = file.entries(whole).get("optimizer_state_dict")
            node = inner if inner is not None else whole
            return self.stand_ins.adopt(node, file.archive) if node is not None else None
        if self.partitions.file is None or not any(map(self.partitions.fields, self.partitions.names())):
            return None
        if self.partitions.lacking:
            self.observations.append(IncompleteOptimizer(tuple(self.partitions.lacking)))
            return None
        groups = [Dict([*entries]) for entries in self._groups()]
        state = [(name, Dict([*self._state(name)])) for name in self.partitions.names()]
        return Dict([("state", Dict([*state])), ("param_groups", groups)])

    def _groups(self) -> Iterator[list[tuple[object, object]]]:
        """The optimizer's groups: their options, and the names of their parameters."""
        assert self.partitions is not None
        first = self.partitions
        assert first.file is not None  # without it there is no state
        for number, shapes in enumerate(self.partitions.shapes):
            options = first.options[number] if number < len(first.options) else {}
            items: list[tuple[object, object]] = [
                (name, self.stand_ins.adopt(value, first.file.archive))
                for name, value in options.items()
                if name != "params"
            ]
            yield [*items, ("params", [*shapes])]

    def _state(self, name: str) -> Iterator[tuple[object, object]]:
        assert self.partitions is not None
        for label, value in self.partitions.scalars(name).items():
            yield label, self.stand_ins.of(alone(value, label)) if isinstance(value, Tensor) else value
        for label in self.partitions.fields(name):
            tensor = self.partitions.tensor(name, label)
            if tensor is not None:
                yield label, self.stand_ins.of(tensor)
