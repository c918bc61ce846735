"""Puts together the object that a plain training loop would have saved, from what DeepSpeed's ranks hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError
from ckptool.core.observations import IncompleteOptimizer, NotInOptimizer, Observation
from ckptool.core.tensor import Tensor
from ckptool.formats.pickle.objects import Call, Dict
from ckptool.formats.ranks.deepspeed_states import MODULE, ModelStates
from ckptool.formats.ranks.held import as_float32
from ckptool.formats.ranks.runs import alone
from ckptool.formats.ranks.stand_ins import StandIns
from ckptool.formats.ranks.zero import ParameterSource

FLOAT32 = "fp32"
"""The entry that the float32 parameters get."""

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


@dataclass(slots=True)
class Builder:
    """Puts together the object that a plain training loop would have saved.

    Attributes:
        prefers: the entry that holds the weights.
    """

    states: ModelStates
    partitions: ParameterSource | None
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
            items.append((MODULE, self._module()))
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

    def _module(self) -> object:
        """The 16-bit weights, with those that lie in files of their own."""
        states = self.states
        node = states.held.get(MODULE)
        if not states.elsewhere:
            return self.stand_ins.adopt(node, states.file.archive)
        own = node.items if type(node) is Dict or type(node) is Call else []
        items: list[tuple[object, object]] = []
        for key, each in states.module.items():
            file = states.elsewhere[key][0] if key in states.elsewhere else states.file
            items.append((key, self.stand_ins.adopt(each, file.archive)))
        return self._like_module([*items, *(pair for pair in own if pair[0] not in states.module)])

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
        if self.partitions is None and self.states.elsewhere:
            return None
        if self.partitions is None:
            whole = self.states.held.get("optimizer")
            inner = file.entries(whole).get("optimizer_state_dict")
            node = inner if inner is not None else whole
            return self.stand_ins.adopt(node, file.archive) if node is not None else None
        if self.partitions.absent:
            self.observations.append(IncompleteOptimizer(tuple(self.partitions.lacking), tuple(self.partitions.absent)))
            return None
        if self.partitions.file is None or not any(map(self.partitions.fields, self.partitions.names())):
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
