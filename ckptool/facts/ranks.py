"""A checkpoint that the ranks of a training run hold together, opened as one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ckptool.core import observations as seen
from ckptool.core.counts import listed, many
from ckptool.core.facts import FINE, TAKES_VALUES, Answer, Fact, Say, Use
from ckptool.core.ranks import Ranks
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder

_SHOWN = 4  # kinds of placements


@dataclass(frozen=True, slots=True)
class Joined(Fact):
    """The tensors are whole: their parts lie in the files of several ranks."""

    ranks: Ranks = field(default_factory=lambda: Ranks(0))

    name = "ranks"
    rank = -2

    @property
    def text(self) -> str:
        ranks = self.ranks
        parts = [many(ranks.count, "rank")]
        if ranks.mesh_text:
            parts.append(f"mesh {ranks.mesh_text}")
        if ranks.step is not None:
            parts.append(f"step {ranks.step:,}")
        if ranks.version:
            parts.append(ranks.version)
        return f"joined from the files of a training run: {', '.join(parts)}"

    @property
    def hint(self) -> str:
        placements = sorted(self.ranks.placements.items(), key=lambda pair: -pair[1])
        listed = ", ".join(f"{name}: {many(count, 'tensor')}" for name, count in placements[:_SHOWN])
        return f"{listed}{', ...' if len(placements) > _SHOWN else ''}"


@dataclass(frozen=True, slots=True)
class NotInOptimizer(Fact):
    """Tensors that were taken from the 16-bit weights, because the optimizer does not hold them."""

    name = "not-in-optimizer"
    rank = -1

    @property
    def text(self) -> str:
        are = "tensor is" if len(self.keys) == 1 else "tensors are"
        return f"{len(self.keys):,} {are} taken from module: the optimizer does not hold {_them(self.keys)}"

    @property
    def hint(self) -> str:
        return "frozen parameters, in the dtype of training; zero_to_fp32 of DeepSpeed leaves them out"


@dataclass(frozen=True, slots=True)
class IncompleteOptimizer(Fact):
    """The optimizer's state is not all there, so none of it was read."""

    absent: tuple[str, ...] = ()

    name = "incomplete-optimizer"
    level = "warning"
    rank = -1

    @property
    def text(self) -> str:
        what = f"{many(len(self.keys), 'parameter')} lack a part of it" if self.keys else f"it lacks {self.absent[0]}"
        return f"the optimizer's state is left out: {what}"

    @property
    def hint(self) -> str:
        return f"copy along to keep it: {listed(self.absent)}"

    def answer(self, use: Use) -> Answer:
        return _said_when_written(self, use)


@dataclass(frozen=True, slots=True)
class NumberedOptimizer(Fact):
    """An optimizer whose parameters have numbers, and the files do not tell which number is which key."""

    optimizer: str = ""

    name = "numbered-optimizer"
    rank = -1

    @property
    def text(self) -> str:
        return f"{self.optimizer} numbers its parameters; the files do not tell which number is which key"

    @property
    def hint(self) -> str:
        return "an optimizer of the same groups and order loads it; it cannot follow tensors that are dropped"


@dataclass(frozen=True, slots=True)
class OptimizerLeftOut(Fact):
    """The optimizer's state, and with it the float32 weights, cannot be joined from the files of the ranks."""

    over: str = ""

    name = "optimizer-left-out"
    level = "warning"
    rank = -1

    @property
    def text(self) -> str:
        if self.over != "stages":
            return "the weights are those of module; the optimizer's float32 weights and its state are left out"
        return "the optimizer's state is left out: each stage of the pipeline numbers its parameters anew"

    @property
    def hint(self) -> str:
        if self.over == "experts":
            return "saved without ZeRO, it numbers its parameters and does not name them: train on with DeepSpeed"
        if self.over == "fused experts":
            return "each rank holds its experts as one tensor, the files of experts one by one: train on with DeepSpeed"
        return "train on with DeepSpeed to keep it"

    def answer(self, use: Use) -> Answer:
        return _said_when_written(self, use)


@dataclass(frozen=True, slots=True)
class ReplicasDiffer(Fact):
    """Ranks hold different copies of tensors that each rank has whole."""

    taken: int = 0

    name = "replicas"
    level = "warning"
    grade = "warning"
    rank = -1

    @property
    def text(self) -> str:
        return f"the ranks hold different copies of {many(len(self.keys), 'tensor')}: {listed(self.keys)}"

    @property
    def hint(self) -> str:
        return f"those of rank {self.taken} are taken; running statistics differ where ranks do not synchronise them"

    def answer(self, use: Use) -> Answer:
        return _said_when_written(self, use)


@dataclass(frozen=True, slots=True)
class RunBeside(Fact):
    """The folder also holds what the ranks of the training run saved."""

    folder: str = ""

    name = "run-beside"
    rank = -1

    @property
    def text(self) -> str:
        return f"the ranks of the training run saved more beside it: {self.folder}"

    @property
    def hint(self) -> str:
        return "float32 weights and the optimizer's state, which ckptool opens by the name of that folder"


@dataclass(frozen=True, slots=True)
class PiecesDiffer(Fact):
    """Single numbers that are not those of the pieces from which torch made the whole files."""

    folder: str = ""

    name = "pieces-differ"
    level = "warning"
    grade = "error"

    @property
    def text(self) -> str:
        what = f"{many(len(self.keys), 'tensor')} not as in the pieces of which torch made these files"
        return f"{what}: {listed(self.keys)}"

    @property
    def hint(self) -> str:
        return f"torch 2.13 writes 0 for every tensor without dimensions; the pieces are right: {self.folder}"

    def answer(self, use: Use) -> Answer:
        return _said_when_written(self, use)


@dataclass(frozen=True, slots=True)
class StackedLayers(Fact):
    """Weights that hold all layers in one tensor."""

    shape: tuple[int, ...] = ()

    name = "stacked-layers"
    rank = -1

    @property
    def text(self) -> str:
        return f"{many(len(self.keys), 'tensor')} hold all layers along a first axis: {listed(self.keys, 2)}"

    @property
    def hint(self) -> str:
        key = self.keys[0]
        axes = ["o", "i", "j", "k"][: max(0, len(self.shape) - 1)]
        rule = f"{key} -> {key.replace('layers.', 'layers.{l}.', 1)} | l {' '.join(axes)} -> {' '.join(axes)}"
        return f'for a tensor of each layer: ckptool remap {{file}} -r "{rule}" -o OUT'


@dataclass(frozen=True, slots=True)
class RanksNotStated(Fact):
    """A last rank that is missing cannot be seen."""

    found: int = 0

    name = "ranks-not-stated"
    rank = -1

    @property
    def text(self) -> str:
        return f"the files do not state how many ranks wrote them; {many(self.found, 'rank is', 'ranks are')} here"

    @property
    def hint(self) -> str:
        return "a last rank whose files are all missing cannot be seen: see that the shapes are those of the model"


@dataclass(frozen=True, slots=True)
class MissingReplicas(Fact):
    """Ranks are missing that hold copies of what other ranks hold."""

    numbers: tuple[int, ...] = ()

    name = "missing-replicas"
    grade = "note"
    rank = -1

    @property
    def text(self) -> str:
        names = listed(tuple(map(str, self.numbers)))
        return f"{'rank' if len(self.numbers) == 1 else 'ranks'} {names} missing"

    @property
    def hint(self) -> str:
        return "other ranks hold the same parts: nothing is lost"


def _said_when_written(fact: Fact, use: Use) -> Answer:
    if use.operation in TAKES_VALUES:
        return Say(fact.text, fact.hint)
    return FINE


def _them(keys: tuple[str, ...]) -> str:
    return "it" if len(keys) == 1 else "them"


@finder
def find(headers: Headers) -> Iterator[Fact]:
    ranks = headers.checkpoint.ranks
    if ranks is not None and (ranks.count > 1 or ranks.step is not None):
        yield Joined(ranks=ranks)
    for frozen in headers.observed(seen.NotInOptimizer):
        yield NotInOptimizer(frozen.keys)
    for lacking in headers.observed(seen.IncompleteOptimizer):
        yield IncompleteOptimizer(lacking.keys, absent=lacking.absent)
    for numbered in headers.observed(seen.NumberedOptimizer):
        yield NumberedOptimizer(optimizer=numbered.name)
    for left_out in headers.observed(seen.OptimizerLeftOut):
        yield OptimizerLeftOut(over=left_out.over)
    for replicas in headers.observed(seen.ReplicasDiffer):
        yield ReplicasDiffer(replicas.keys, replicas.taken)
    for pieces in headers.observed(seen.PiecesDiffer):
        yield PiecesDiffer(pieces.keys, folder=pieces.folder)
    for stacked in headers.observed(seen.StackedLayers):
        keys = tuple(key for key in stacked.keys if key in headers.checkpoint)
        if keys:
            yield StackedLayers(keys, headers.checkpoint.form(keys[0]).shape)
    for unstated in headers.observed(seen.RanksNotStated):
        yield RanksNotStated(found=unstated.found)
    for missing in headers.observed(seen.MissingReplicas):
        yield MissingReplicas(numbers=missing.ranks)
    for beside in headers.observed(seen.RunBeside):
        yield RunBeside(folder=beside.folder)
