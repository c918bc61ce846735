"""What one rank's optimizer file of DeepSpeed's ZeRO holds: flat partitions, and the settings of the optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from ckptool.core.errors import UnreadableError
from ckptool.core.tensor import Tensor
from ckptool.formats.pickle.objects import Call
from ckptool.formats.ranks.files import RankFile, class_of
from ckptool.formats.ranks.held import number_of
from ckptool.formats.ranks.runs import Line, Run
from ckptool.formats.torch.tensor import is_tensor

MASTER = ""
"""The name of the float32 parameters among the flat tensors of a group; other names are the optimizer's."""

Number = int | float


@dataclass(frozen=True, slots=True)
class Group:
    """One rank's part of a group of parameters.

    Attributes:
        lines: the flat tensors by name: the parameters under `MASTER`, the optimizer's under its own names.
        scalars: what the optimizer's state holds beside them: tensors of one element, or plain values.
        slices: (elements, first element) of each parameter in the rank's part, where the file states it.
    """

    lines: Mapping[str, Line]
    scalars: Mapping[str, object] = field(default_factory=dict)
    slices: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Partition:
    """What one rank's optimizer file holds.

    Attributes:
        rank: the number of the rank.
        path: of the file.
        stage: of ZeRO.
        groups: one for each group of parameters; one for all of them in stage 3.
        counts: into how many partitions each group is cut.
        paddings: elements to skip behind each parameter of each group, where the file states them.
        settings: the plain numbers of the optimizer's groups, by group and name.
        step: how many steps the optimizer has done.
        options: the entries of each of the optimizer's groups, in the objects of `file`.
        file: the file itself, for the rank whose options are kept.
    """

    rank: int
    path: PurePath
    stage: int
    groups: tuple[Group, ...]
    counts: tuple[int, ...]
    paddings: tuple[tuple[int, ...], ...] = ()
    settings: Mapping[tuple[int, str], Number] = field(default_factory=dict)
    step: Number | None = None
    options: tuple[Mapping[str, object], ...] = ()
    file: RankFile | None = None


def read_partition(file: RankFile, rank: int, *, keeps_options: bool = False) -> Partition:
    """Read the optimizer file of one rank.

    Raises:
        UnreadableError: it holds no partition of ZeRO.
    """
    held = file.entries(file.entries(file.root).get("optimizer_state_dict"))
    stage = _stage(file, held)
    base = file.entries(held.get("optimizer_state_dict" if stage == 3 else "base_optimizer_state"))
    states = _states(file, base)
    flat = held.get("fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups")
    if type(flat) is not list:
        raise file.bad("holds no float32 partition of ZeRO", hint="ckptool reads DeepSpeed's ZeRO stages 1, 2 and 3")
    masters = [_run(file, node, f"the partition of group {number}") for number, node in enumerate(flat)]
    if stage == 3:
        groups: tuple[Group, ...] = (_group_of_sub_groups(file, masters, states),)
    else:
        slices = _slices(file, held)
        groups = tuple(
            _group(file, master, states.get(number, {}), slices[number] if number < len(slices) else {})
            for number, master in enumerate(masters)
        )
    counts = _counts(held.get("partition_count"), len(groups))
    steps = [_number(value) for group in groups for name, value in group.scalars.items() if name == "step"]
    paddings = tuple(_ints(part) for part in _list(held.get("param_alignment_paddings"))) if stage != 3 else ()
    options = tuple(map(file.entries, _list(base.get("param_groups")))) if keeps_options else ()
    return Partition(
        rank,
        file.source.path,
        stage,
        groups,
        counts,
        paddings,
        _settings(file, base),
        next((step for step in steps if step is not None), None),
        options,
        file if keeps_options else None,
    )


def _stage(file: RankFile, held: Mapping[str, object]) -> int:
    """The stage of ZeRO; BF16_Optimizer, which does not state it, partitions as stage 1 does."""
    node = held.get("zero_stage")
    if type(node) is Call and class_of(node) == "ZeroStageEnum":
        node = node.args[0] if type(node.args) is tuple and len(node.args) == 1 else None
    if node is None:
        return 3 if "fp32_flat_groups" in held else 1
    if type(node) is not int or not 1 <= node <= 3:
        raise file.bad("states a stage of ZeRO that is not 1, 2 or 3")
    return node


def _states(file: RankFile, base: Mapping[str, object]) -> dict[int, dict[str, object]]:
    """The optimizer's state of each group or sub-group."""
    found = {}
    for number, node in file.walk.pairs(base.get("state")):
        if type(number) is int:
            found[number] = file.entries(node)
    return found


def _group(file: RankFile, master: Run, state: Mapping[str, object], slices: Mapping[str, tuple[int, int]]) -> Group:
    lines, scalars = {MASTER: Line([master])}, dict[str, object]()
    for name, node in state.items():
        tensor = file.tensor(node, name)
        if tensor is not None and len(tensor.shape) == 1:
            run = _run(file, node, f"the optimizer's {name}")
            if run.count < master.count:
                raise file.bad(f"holds {run.count:,} elements of {name} for {master.count:,} elements of parameters")
            lines[name] = Line([run.cut(0, master.count)])
        elif tensor is not None:
            scalars[name] = tensor
        elif not is_tensor(node):
            scalars[name] = node
    return Group(lines, scalars, slices)


def _group_of_sub_groups(file: RankFile, masters: Sequence[Run], states: Mapping[int, Mapping[str, object]]) -> Group:
    """Stage 3's sub-groups, one behind the other."""
    parts = [_group(file, master, states.get(number, {}), {}) for number, master in enumerate(masters)]
    names = [name for name in (parts[0].lines if parts else ()) if all(name in part.lines for part in parts)]
    lines = {name: Line([run for part in parts for run in part.lines[name].runs]) for name in names}
    return Group(lines or {MASTER: Line([])}, parts[0].scalars if parts else {})


def _run(file: RankFile, node: object, what: str) -> Run:
    tensor = file.tensor(node, what)
    run = Run.of(tensor) if tensor is not None and len(tensor.shape) == 1 else None
    if run is None:
        raise file.bad(f"holds something else than a flat tensor as {what}")
    return run


def _slices(file: RankFile, held: Mapping[str, object]) -> list[dict[str, tuple[int, int]]]:
    """Where each parameter lies in the rank's part of each group, as the file states it."""
    found = []
    for node in _list(held.get("param_slice_mappings")):
        places = {}
        for name, address in file.entries(node).items():
            state = file.state(address)
            numel, start = state.get("numel"), state.get("start")
            if type(numel) is int and type(start) is int:
                places[name] = (numel, start)
        found.append(places)
    return found


def _settings(file: RankFile, base: Mapping[str, object]) -> dict[tuple[int, str], Number]:
    found: dict[tuple[int, str], Number] = {}
    for number, node in enumerate(_list(base.get("param_groups"))):
        for name, value in file.entries(node).items():
            if type(value) is int or type(value) is float:
                found[number, name] = value
    return found


def _list(node: object) -> list[object]:
    return node if type(node) is list else []


def _ints(node: object) -> tuple[int, ...]:
    return tuple(value for value in _list(node) if type(value) is int and value >= 0)


def _counts(node: object, groups: int) -> tuple[int, ...]:
    """Into how many partitions each group is cut; nothing if the file does not say."""
    if type(node) is int:
        return (node,) * groups
    counts = _ints(node)
    return counts if len(counts) == groups else ()


def _number(value: object) -> Number | None:
    if isinstance(value, Tensor):
        return number_of(value)
    return value if type(value) is int or type(value) is float else None


def require_alike(ranks: Sequence[Partition]) -> None:
    """Refuse partitions that are not of one moment of one run.

    Raises:
        UnreadableError: two ranks differ in the stage, step, number of ranks, or in a setting of the optimizer.
    """
    first = ranks[0]
    for rank in ranks[1:]:
        pairs: list[tuple[str, object, object]] = [
            ("stage of ZeRO", first.stage, rank.stage),
            ("number of partitions", list(first.counts), list(rank.counts)),
            ("number of groups", len(first.groups), len(rank.groups)),
            ("step", first.step, rank.step),
        ]
        pairs += [
            (f"{name} of group {group}", value, rank.settings.get((group, name)))
            for (group, name), value in first.settings.items()
        ]
        for what, ours, theirs in pairs:
            if ours != theirs:
                raise UnreadableError(
                    f"the ranks differ in the {what}: rank {first.rank} ({first.path.name}) has {ours}, "
                    f"rank {rank.rank} ({rank.path.name}) has {theirs}",
                    hint="the files are not of one save: copy the folder again from where it was saved",
                    path=rank.path,
                )


# ------------------------------------------------------------------------------------------------- whole tensors
