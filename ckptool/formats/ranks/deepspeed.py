"""DeepSpeed's folders: model states, and the float32 parameters in the optimizer files of all ranks.

The weights are the float32 parameters, as DeepSpeed's own zero_to_fp32 gives them; the 16-bit ones that stages 1 and 2
also write are taken with ``--select module``. What zero_to_fp32 loses is taken from where it is: frozen parameters of
stage 1, the weights of BF16_Optimizer, the layers of a pipeline, experts that are spread over ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

from ckptool.core.bytes import Folder
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError
from ckptool.core.format import Format
from ckptool.core.observations import OptimizerLeftOut, ReplicasDiffer
from ckptool.core.ranks import Ranks
from ckptool.formats.ranks.deepspeed_builder import Builder
from ckptool.formats.ranks.deepspeed_experts import ExpertPartitions, read_experts
from ckptool.formats.ranks.deepspeed_files import PARAMETERS, Files, check_complete
from ckptool.formats.ranks.deepspeed_layers import StagedPartitions, read_layers
from ckptool.formats.ranks.deepspeed_states import ModelStates
from ckptool.formats.ranks.files import read_rank
from ckptool.formats.ranks.names import lacks
from ckptool.formats.ranks.stand_ins import Joined, StandIns, joined_checkpoint
from ckptool.formats.ranks.universal import Universal
from ckptool.formats.ranks.zero import ParameterSource, Partitions
from ckptool.formats.ranks.zero_files import Partition, read_partition, require_alike


def open_deepspeed(folder: Folder, select: str | None = None, path: PurePath | None = None) -> Checkpoint:
    """Open the folder of one DeepSpeed checkpoint: ``global_step100``, or any other tag.

    Args:
        folder: holds the files of the ranks.
        select: which dict to take as the weights: ``fp32``, ``module``; None for the best there is.
        path: what the user named, where that is another folder.

    Raises:
        UnreadableError: a rank, layer or expert is missing or damaged, the ranks are of different saves, or the
            parameters are not all there; or tensors were cut in a way that no file states.
        UsageError: nothing is under `select`.
    """
    files = Files.of(folder)
    is_universal = any(entry.name == PARAMETERS and entry.is_folder for entry in folder.entries())
    stages = _stages(folder, files)
    states = stages[0]
    partitions = None if is_universal else _partitions(folder, files, stages)
    for stage in stages[1:]:
        states.absorb(stage)
    if is_universal:
        world = states.held.get("dp_world_size")
        if files.parameters and type(world) is int:
            check_complete(files.path, files.parameters, world)
        partitions = Universal(folder.folder(PARAMETERS), states.shapes, is_partitioned=files.is_partitioned)
        states.globals += partitions.globals
        states.observations += partitions.observations
    elif isinstance(partitions, StagedPartitions):
        partitions.shapes = states.shapes
        if partitions.differing:
            states.observations.append(ReplicasDiffer(tuple(partitions.differing), 0))
    if files.layers:
        states.add_files(read_layers(folder, files, states))
        if partitions is None:
            states.observations.append(OptimizerLeftOut("stages"))
    if files.experts:
        states.add_files(read_experts(folder, files, states))
        if states.held.get("ds_autoep_layers"):
            states.observations.append(OptimizerLeftOut("fused experts"))
        elif files.unnamed_states:
            states.observations.append(OptimizerLeftOut("experts"))
    builder = Builder(states, partitions, StandIns(states.file.source))
    root = builder.root(select)
    kind = _kind_of(partitions)
    parameters = list(partitions.names()) if partitions is not None else []
    step, world = states.global_steps, states.held.get("dp_world_size")
    count = max(files.world, len(stages)) if not is_universal or type(world) is not int else world
    data_parallel = ("dp", count // len(stages))
    ranks = Ranks(
        count=count,
        mesh=(("pp", len(stages)), data_parallel) if files.layers else (data_parallel,),
        placements={} if is_universal or partitions is None else {f"{kind} partition": len(parameters)},
        step=step if type(step) is int else None,
        version=f"deepspeed {states.version}" if states.version else "",
    )
    sources = [folder.open(name) for name in files.names]
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


def _kind_of(partitions: ParameterSource | None) -> str:
    """What tells one kind of DeepSpeed's folders from another."""
    if partitions is None:
        return ""
    return "universal" if isinstance(partitions, Universal) else f"ZeRO-{partitions.stage}"


def _stages(folder: Folder, files: Files) -> list[ModelStates]:
    """The model states of each stage of a pipeline; of one stage where there is no pipeline."""
    if files.is_partitioned:
        names = files.named(files.parameters)
        return [ModelStates(read_rank(folder.open(name), who) for who, name in names)]  # one tree at a time
    stages = []
    for number, name in files.models.items():
        who = "the model" if not files.layers else f"stage {number}"
        stages.append(ModelStates(iter([read_rank(folder.open(name), who)])))
    count = stages[0].held.get("mp_world_size")
    if files.layers and type(count) is int:
        check_complete(folder.path, files.models, count, "mp_rank_{:02}_model_states.pt")
    return stages


def _partitions(folder: Folder, files: Files, stages: list[ModelStates]) -> ParameterSource | None:
    """The optimizer files, which must be those of all ranks."""
    if files.experts and stages[0].held.get("ds_autoep_layers"):
        return None
    if not files.optimizers:
        if files.is_partitioned:
            raise UnreadableError(
                f"{folder.path} holds no *_optim_states.pt: in stage 3 of ZeRO the weights are in them",
                hint="copy them from where the checkpoint was saved",
                path=folder.path,
            )
        return None
    numbers = list(files.models) or list(files.optimizers)
    absent = [number for number in numbers if number not in files.optimizers]
    if absent:
        like = next(iter(next(iter(files.optimizers.values())).values()))
        before, _, after = like.rpartition("_mp_rank_")
        raise lacks(folder.path, absent, len(numbers), f"{before}_mp_rank_{{:02}}{after[2:]}")
    found = [
        _partitions_of(folder, files, files.optimizers[number], states)
        for number, states in zip(numbers, stages, strict=True)
    ]
    return found[0] if len(found) == 1 else StagedPartitions(found, ())


def _partitions_of(folder: Folder, files: Files, names: Mapping[int, str], states: ModelStates) -> ParameterSource:
    found: list[Partition] = []
    world = states.held.get("dp_world_size")
    by_blocks = False
    for rank, name in names.items():
        file = read_rank(folder.open(name), f"rank {rank}")
        config = file.entries(file.entries(file.root).get("ds_config")) if not found else {}
        by_blocks |= config.get("use_data_before_expert_parallelism") is True
        states.globals.append(file.archive.loaded.globals)
        states.observations += file.archive.observations
        found.append(read_partition(file, rank, keeps_options=not found))
    require_alike(found)
    count = max(found[0].counts, default=0) or (world if type(world) is int else len(found))
    for kind in (names, files.parameters):
        check_complete(files.path, kind, count)
    if files.experts:
        return ExpertPartitions(found, states, by_blocks=by_blocks)
    return Partitions(folder.path, found, states.shapes)
