"""The layers of a pipeline, which DeepSpeed saves in files of their own, and the partitions of its stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ckptool.core.bytes import Folder
from ckptool.core.errors import UnreadableError
from ckptool.core.tensor import Tensor
from ckptool.formats.ranks.deepspeed_files import Files
from ckptool.formats.ranks.deepspeed_states import ModelStates
from ckptool.formats.ranks.files import RankFile, read_rank
from ckptool.formats.ranks.held import are_equal
from ckptool.formats.ranks.names import MAX_RANKS, listed
from ckptool.formats.ranks.zero import ParameterSource, Shapes
from ckptool.formats.ranks.zero_files import MASTER

_TIED = "tied_modules."

Held = dict[str, tuple[RankFile, object]]


class StagedPartitions:
    """The parameters of a pipeline, of which each stage has its own partitions; a `ParameterSource`.

    Args:
        stages: the partitions of each stage.
        shapes: the parameters of each group, of all stages.

    Attributes:
        differing: tied parameters of which the stages hold different values; those of the first are taken.
    """

    def __init__(self, stages: Sequence[ParameterSource], shapes: Sequence[Shapes]) -> None:
        self.stages = stages
        self.shapes = shapes
        self.stage = stages[0].stage
        self.differing: list[str] = []
        self._stage_of: dict[str, ParameterSource] = {}
        for stage in stages:
            for name in stage.names():
                first = self._stage_of.setdefault(name, stage)
                if first is not stage and not _agree(name, first, stage):
                    self.differing.append(name)

    @property
    def options(self) -> tuple[Mapping[str, object], ...]:
        """The entries of each of the optimizer's groups, in the objects of `file`."""
        return self.stages[0].options

    @property
    def file(self) -> RankFile | None:
        """The first stage's first optimizer file."""
        return self.stages[0].file

    @property
    def lacking(self) -> list[str]:
        """Parameters for which the optimizer's state is not all there."""
        return [name for stage in self.stages for name in stage.lacking]

    @property
    def absent(self) -> list[str]:
        """The files of the optimizer that are missing."""
        return [name for stage in self.stages for name in stage.absent]

    def names(self) -> Iterator[str]:
        """The parameters, stage by stage."""
        return iter(self._stage_of)

    def tensor(self, name: str, field: str = MASTER) -> Tensor | None:
        """A parameter, or what the optimizer holds for it under a name; None if it holds nothing."""
        return self._stage_of[name].tensor(name, field)

    def fields(self, name: str) -> list[str]:
        """The names of the optimizer's flat tensors for a parameter."""
        return self._stage_of[name].fields(name)

    def scalars(self, name: str) -> Mapping[str, object]:
        """What the optimizer holds for a parameter beside them."""
        return self._stage_of[name].scalars(name)


def _agree(name: str, first: ParameterSource, second: ParameterSource) -> bool:
    ours, theirs = first.tensor(name), second.tensor(name)
    return ours is None or theirs is None or are_equal(ours, theirs) is not False


def read_layers(folder: Folder, files: Files, states: ModelStates) -> Held:
    """The 16-bit weights and the buffers of a pipeline's layers, by the names that they have in the whole model.

    A layer's file names its tensors within the layer. Layer 3 is the module ``3`` of the model; one that is shared by
    several layers is ``tied_modules.NAME``, which the names of the parameters tell.

    Raises:
        UnreadableError: the file of a layer that has parameters is missing.
    """
    stated = {name for shapes in states.shapes for name in shapes} | states.buffers | set(states.frozen)
    wanted = {int(name.partition(".")[0]) for name in stated if name.partition(".")[0].isdecimal()}
    absent = sorted(wanted - set(files.layers))
    if absent:
        names = [f"layer_{number:02}-model_states.pt" for number in absent[:MAX_RANKS]]
        raise UnreadableError(
            f"{len(absent)} of the pipeline's layers {'is' if len(absent) == 1 else 'are'} missing in {folder.path}: "
            f"{listed(names)}",
            hint="copy them from where the checkpoint was saved",
            path=folder.path / names[0],
        )
    held: Held = {}
    for number, name in files.layers.items():
        file = read_rank(folder.open(name), f"layer {number}")
        states.note(file)
        entries = file.entries(file.root)
        module = _module(number, list(entries), stated)
        for key, node in entries.items():
            held.setdefault(f"{module}.{key}", (file, node))
    lost = next((name for name in sorted(stated) if name not in held and name not in states.aliases), None)
    if lost is not None:
        gaps = [number for number in range(max(files.layers)) if number not in files.layers]
        names = [f"layer_{number:02}-model_states.pt" for number in gaps[:MAX_RANKS]]
        where = f"; {listed(names)} {'is' if len(names) == 1 else 'are'} missing" if names else ""
        raise UnreadableError(
            f"{lost} is in the file of none of the pipeline's layers in {folder.path}{where}",
            hint="copy the files of all layers from where the checkpoint was saved",
            path=folder.path,
            key=lost,
        )
    return held


def _module(number: int, keys: Sequence[str], stated: set[str]) -> str:
    """The name of a layer's module."""
    if any(f"{number}.{key}" in stated for key in keys):
        return str(number)
    tied = dict.fromkeys(".".join(name.split(".")[:2]) for name in sorted(stated) if name.startswith(_TIED))
    fitting = [module for module in tied if keys and all(f"{module}.{key}" in stated for key in keys)]
    return fitting[0] if len(fitting) == 1 else str(number)
