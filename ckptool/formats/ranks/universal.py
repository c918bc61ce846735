"""DeepSpeed's universal checkpoints: one folder for each parameter, ``zero/NAME/fp32.pt``, beside the model states.

Converted from stages 1 and 2, a file holds the parameter in its shape; from stage 3, flat, and the model states say
which shape it has. What it holds for buffers is not theirs: it made floats of integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod

from ckptool.core.bytes import ByteSource, Entry, Folder
from ckptool.core.checkpoint import GlobalUse
from ckptool.core.errors import UnreadableError
from ckptool.core.observations import Observation
from ckptool.core.tensor import Tensor
from ckptool.formats.ranks.deepspeed_files import MASTER_FILE
from ckptool.formats.ranks.files import RankFile, opened, read_rank
from ckptool.formats.ranks.held import number_of
from ckptool.formats.ranks.runs import Run, whole_tensor
from ckptool.formats.ranks.zero import Shapes
from ckptool.formats.ranks.zero_files import MASTER
from ckptool.formats.torch.tensor import is_tensor

_OPTIMIZER_FILE = "optimizer_state.pt"
_STEP = "step"


class Universal:
    """The parameters of a universal checkpoint.

    Args:
        folder: the one that holds a folder for each parameter.
        shapes: the parameters of each group.
        is_partitioned: True if the model states hold no weights (stage 3).

    Attributes:
        stage: of ZeRO that it was converted from: 3, or 2 for 1 and 2.
        files: everything that was read.
        globals: what the pickles of the files name.
        observations: what is odd about the files.
        options: the entries of each of the optimizer's groups, in the objects of `file`.
        file: the file of the options.
        lacking: parameters for which the optimizer's state is not all there.
        absent: the files of the optimizer that are missing.

    Raises:
        UnreadableError: a parameter is missing, or is not of its size; or its steps differ.
    """

    def __init__(self, folder: Folder, shapes: Sequence[Shapes], *, is_partitioned: bool) -> None:
        self.shapes = shapes
        self.stage = 3 if is_partitioned else 2
        self.files: list[ByteSource] = []
        self.globals: list[tuple[GlobalUse, ...]] = []
        self.observations: list[Observation] = []
        self.options: tuple[Mapping[str, object], ...] = ()
        self.file: RankFile | None = None
        self.lacking: list[str] = []
        self.absent: list[str] = []
        self._tensors: dict[tuple[str, str], Tensor] = {}
        self._scalars: dict[str, dict[str, object]] = {}
        self._fields: dict[str, list[str]] = {}
        self._read_options(folder)
        there = {entry.name for entry in folder.entries() if entry.is_folder}
        for name, shape in ((name, shape) for group in shapes for name, shape in group.items()):
            if name not in there:
                raise UnreadableError(
                    f"{folder.path} holds no folder for the parameter {name}",
                    hint="copy it along, or convert the checkpoint again with ds_to_universal",
                    path=folder.path,
                    key=name,
                )
            self._read_parameter(folder.folder(name), name, shape)
        self._check_state()

    def names(self) -> Iterator[str]:
        """The parameters."""
        return iter(self._fields)

    def tensor(self, name: str, field: str = MASTER) -> Tensor | None:
        """A parameter, or what the optimizer holds for it under a name."""
        return self._tensors.get((name, field))

    def fields(self, name: str) -> list[str]:
        """The names of the optimizer's tensors for a parameter."""
        return self._fields[name]

    def scalars(self, name: str) -> Mapping[str, object]:
        """What the optimizer holds for a parameter beside them."""
        return self._scalars[name]

    def _read_options(self, folder: Folder) -> None:
        source = opened(folder, _OPTIMIZER_FILE)
        if source is None:
            return
        self.file = file = read_rank(source, "the optimizer")
        self._note(file)
        held = file.entries(file.root)
        groups = held.get("param_groups")
        if type(groups) is list:
            self.options = tuple(map(file.entries, groups))

    def _read_parameter(self, folder: Folder, name: str, shape: tuple[int, ...]) -> None:
        self._fields[name], self._scalars[name] = [], {}
        for file_name in self._file_names(folder.entries()):
            file = read_rank(folder.open(file_name), f"the parameter {name}")
            self.files.append(file.source)
            self._note(file)
            label = file_name.removesuffix(".pt")
            node = file.root if is_tensor(file.root) else file.entries(file.root).get("param")
            tensor = file.tensor(node, name)
            run = Run.of(tensor) if tensor is not None else None
            if tensor is None or run is None:
                raise file.bad("holds something else than a plain tensor", name)
            if label == _STEP:
                self._scalars[name][label] = replace(tensor, node=None)
            elif run.count != prod(shape):
                raise file.bad(
                    f"holds {run.count:,} elements, the model states give {name} the shape {list(shape)}",
                    name,
                    hint="the files are not of one checkpoint: convert it again",
                )
            else:
                self._tensors[name, MASTER if label == MASTER_FILE else label] = whole_tensor(
                    name, tensor.dtype, shape, [run]
                )
                if label != MASTER_FILE:
                    self._fields[name].append(label)
        if (name, MASTER) not in self._tensors:
            raise UnreadableError(
                f"{folder.path} holds no fp32.pt, the values of {name}",
                hint="copy it along, or convert the checkpoint again with ds_to_universal",
                path=folder.path,
                key=name,
            )

    def _note(self, file: RankFile) -> None:
        self.files.append(file.source)
        self.globals.append(file.archive.loaded.globals)
        self.observations += file.archive.observations

    def _file_names(self, entries: Sequence[Entry]) -> list[str]:
        return [entry.name for entry in entries if entry.name.endswith(".pt") and not entry.is_folder]

    def _check_state(self) -> None:
        """Either every parameter has the same kinds of state, or the state is not complete."""
        there = {name: {*labels, *self._scalars[name]} for name, labels in self._fields.items()}
        kinds = sorted({label for labels in there.values() for label in labels})
        absent = {name: [label for label in kinds if label not in labels] for name, labels in there.items()}
        self.lacking = [name for name, labels in absent.items() if labels]
        self.absent = [f"{name}/{label}.pt" for name, labels in absent.items() for label in labels]
        if kinds and self.file is None:
            self.absent.insert(0, _OPTIMIZER_FILE)
        steps = {name: _step(held.get(_STEP)) for name, held in self._scalars.items()}
        different = {step for step in steps.values() if step is not None}
        if len(different) > 1:
            first = next(iter(steps))
            other = next(name for name in steps if steps[name] not in (None, steps[first]))
            raise UnreadableError(
                f"the parameters differ in the step: {first} has {steps[first]}, {other} has {steps[other]}",
                hint="the files are not of one checkpoint: convert it again",
                key=other,
            )


def _step(value: object) -> int | float | None:
    return number_of(value) if isinstance(value, Tensor) else None
