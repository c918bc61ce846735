"""What the model files of DeepSpeed's ranks state: parameters, buffers, frozen parameters, ties."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from ckptool.core.errors import UnreadableError
from ckptool.core.tensor import Tensor
from ckptool.formats.ranks.files import RankFile
from ckptool.formats.ranks.runs import Run, whole_tensor
from ckptool.formats.ranks.zero import Shapes

MODULE = "module"
"""The entry of a model file that holds the 16-bit weights."""


class ModelStates:
    """What the model files of the ranks say: parameters, buffers, ties. Of all but the first only what is a part.

    Attributes:
        file: the first file.
        shapes: the parameters of each group.
        frozen: the shape of each frozen parameter.
        aliases: the parameter that a further key is.
        elsewhere: the 16-bit weights that lie in files of their own, with these files.
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
        self.elsewhere: dict[str, tuple[RankFile, object]] = {}
        self._add_fragments(file, self.held)
        for each in files:
            held = each.entries(each.root)
            self.note(each)
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
        self.require_step(file, held)
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
        file, node = self.elsewhere.get(key, (self.file, self.module.get(key)))
        return file.tensor(node, key)

    def note(self, file: RankFile) -> None:
        """Take over what the pickle of a further file names, and what is odd about the file."""
        self.globals.append(file.archive.loaded.globals)
        self.observations += file.archive.observations
        self.faithful &= file.archive.loaded.faithful

    def add_files(self, held: Mapping[str, tuple[RankFile, object]]) -> None:
        """Weights of `module` that lie in files of their own: experts behind the rest of their layer."""
        self.elsewhere.update(held)
        around = {key: key.rpartition(".experts.")[0] for key in held}
        last = {layer: key for key in self.module for layer in _layers_around(key)}
        behind: dict[str, list[str]] = {}
        for key, layer in around.items():
            behind.setdefault(last.get(layer, "") if layer else "", []).append(key)
        order = [each for key in self.module for each in (key, *behind.get(key, ()))] + behind.get("", [])
        nodes = self.module | {key: node for key, (_, node) in held.items()}
        self.module = {key: nodes[key] for key in order}

    def absorb(self, stage: ModelStates) -> None:
        """Take over what a further stage of the pipeline holds: of each group more parameters."""
        self.require_step(stage.file, stage.held)
        self.note(stage.file)
        known = {name for group in self.shapes for name in group}
        for number, group in enumerate(stage.shapes):
            new = {name: shape for name, shape in group.items() if name not in known}
            if number < len(self.shapes):
                self.shapes[number] = {**self.shapes[number], **new}
            else:
                self.shapes.append(new)
        self.frozen = {**stage.frozen, **self.frozen}
        self._fragments = {**stage._fragments, **self._fragments}
        self.aliases = {**stage.aliases, **self.aliases}
        self.buffers |= stage.buffers

    def require_step(self, file: RankFile, held: Mapping[str, object]) -> None:
        """Refuse a file of another step.

        Raises:
            UnreadableError: it is of another step than the first file.
        """
        steps = held.get("global_steps")
        if type(steps) is int and steps != self.global_steps:
            raise UnreadableError(
                f"the ranks differ in the step: {self.file.who} ({self.file.name}) has {self.global_steps}, "
                f"{file.who} ({file.name}) has {steps}",
                hint="the files are not of one save: copy the folder again from where it was saved",
                path=file.source.path,
            )


def _layers_around(key: str) -> Iterator[str]:
    """The modules around a key."""
    names = key.split(".")
    return (".".join(names[:count]) for count in range(1, len(names)))
