"""Optimizer state that follows its parameters wherever their elements go: renamed, rearranged, split, joined, dropped.

A moment has the shape of its parameter, so what moves the parameter's elements moves the moment's. What computes new
elements (a mix, a sum, a fit) leaves no state that is true of them; the plan says so, and the user decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ckptool.commands.beside.parameters import Names, Optimizer, entries_of, in_module_order, names_of
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.errors import PlanError
from ckptool.core.ops import Cast
from ckptool.core.plan import Apply, Moved, Plan, Problem, Source, Step, Value, sources_of
from ckptool.core.reasons import Follows, RecipeTie
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Tensor
from ckptool.engine.reading import read_array
from ckptool.formats.pickle.objects import Call, Dict
from ckptool.formats.torch.edit import REMOVED
from ckptool.recipes.rearrange import Rearrange

_HINT = "--drop-optimizer leaves it out, --keep-optimizer-as-is keeps it unchanged"
_COUNTER = "step"


def with_optimizers(plan: Plan, optimizers: Sequence[Optimizer], *, drop: bool = False, as_is: bool = False) -> Plan:
    """The plan with edits of the optimizers' objects, so that their state follows the weights.

    Args:
        plan: a plan whose frame is a torch file, with its ties.
        optimizers: those of the frame.
        drop: leave optimizer state out.
        as_is: keep it unchanged, whatever happens to the parameters.

    Returns:
        The plan; with a `Problem` for each optimizer whose state cannot follow.
    """
    if drop:
        edits = tuple((optimizer.node, REMOVED) for optimizer in optimizers)
        return replace(plan, replaced_nodes=(*plan.replaced_nodes, *edits))
    if as_is or plan.frame is None or not optimizers:
        return plan
    fates = _fates(plan, plan.frame)
    if not any(fate.changes(key) for key, fate in fates.items()):
        return plan
    for optimizer in optimizers:
        plan = _with_optimizer(plan, optimizer, plan.inputs[plan.frame], fates)
    return plan


def _with_optimizer(plan: Plan, optimizer: Optimizer, source: Checkpoint, fates: Mapping[str, _Fate]) -> Plan:
    names = names_of(optimizer, source)
    if names is None or (names.are_strange and any(fates[key].loses for key in names.unnamed if key in fates)):
        if not any(fates[key].loses for key in Names.candidates(source)):
            return plan
        problem = Problem(f"{optimizer.name} does not say which parameter is which key: its state cannot follow", _HINT)
        return replace(plan, problems=(*plan.problems, problem))
    follower = _Follower(plan, optimizer, source, names, fates)
    try:
        node = follower.state_dict()
    except PlanError as error:
        problem = Problem(f"the state of {optimizer.name} cannot follow: {error.message}", _HINT)
        return replace(plan, problems=(*plan.problems, problem))
    if node is None:
        return plan
    edits = (*plan.replaced_nodes, (optimizer.node, node))
    notes = plan.notes
    if follower.split:
        text = f"parameters are split; {optimizer.name} lists the parts in the order of their modules"
        notes += (Note(text, "torch matches optimizer state by position, not by name", tuple(follower.split)),)
    return replace(plan, replaced_nodes=edits, moved=(*plan.moved, *follower.moved), notes=notes)


# ---------------------------------------------------------------------------------------------- what becomes of keys


@dataclass(frozen=True, slots=True)
class _Fate:
    """What becomes of one key of the frame.

    Attributes:
        steps: the output's tensors that hold its elements, each once, in order.
        computed: a key of the output that is computed of it, or takes its place; "" for none.
    """

    steps: tuple[Step, ...] = ()
    computed: str = ""

    def changes(self, key: str) -> bool:
        return bool(self.computed) or [step.target.key for step in self.steps] != [key] or self.loses

    @property
    def loses(self) -> bool:
        """True unless it is only renamed or cast."""
        return bool(self.computed) or len(self.steps) != 1 or not isinstance(_bare(self.steps[0].value), Source)


def _fates(plan: Plan, frame: int) -> dict[str, _Fate]:
    """The fate of each key of the frame's input; tied keys share one."""
    source = plan.inputs[frame]
    steps: dict[str, list[Step]] = {}
    computed: dict[str, str] = {}
    owners = _owners(source)
    origins: dict[str, set[str]] = {}
    for step in plan.steps:
        of_frame = {owners[found.key]: found.key for found in sources_of(step.value) if found.input == frame}
        origins[step.target.key] = set(of_frame.values())
        if _moves(step.value, frame):
            if step.tied_to is not None and _is_alias(step, origins):
                continue
            for key in of_frame:
                steps.setdefault(key, []).append(step)
        else:
            computed |= dict.fromkeys(of_frame, step.target.key)
            if not of_frame and step.target.key in source:
                computed.setdefault(owners[step.target.key], step.target.key)
    return {key: _Fate(tuple(steps.get(owner, ())), computed.get(owner, "")) for key, owner in owners.items()}


def _is_alias(step: Step, origins: Mapping[str, set[str]]) -> bool:
    """True if a tied key is one parameter with the other: tied in the input, or by the recipe."""
    other = origins.get(step.tied_to or "")
    return isinstance(step.reason, RecipeTie) or (other is not None and other != origins[step.target.key])


def _owners(source: Checkpoint) -> dict[str, str]:
    """The first key of each group of tied keys, by key: torch's optimizers hold a tied parameter once."""
    first: dict[object, str] = {}
    return {
        key: first.setdefault((tensor.pieces, tensor.dtype) if tensor.pieces and tensor.elements else key, key)
        for key, tensor in source.tensors.items()
    }


def _moves(value: Value, frame: int) -> bool:
    """True if a value only moves and casts elements of the frame's tensors."""
    if isinstance(value, Source):
        return value.input == frame
    return bool(value.args) and isinstance(value.op, (Cast, Rearrange)) and all(_moves(v, frame) for v in value.args)


def _bare(value: Value) -> Value:
    """A value without its casts: torch's optimizers cast their own state when it is loaded."""
    if isinstance(value, Source):
        return value
    if isinstance(value.op, Cast):
        return _bare(value.args[0])
    return Apply(value.op, tuple(map(_bare, value.args)))


# ---------------------------------------------------------------------------------------------- the state dict


@dataclass(slots=True)
class _Follower:
    """Makes an optimizer's new state dict.

    Attributes:
        moved: tensors of the state that are rearranged.
        split: keys of parameters that are a part of one.
    """

    plan: Plan
    optimizer: Optimizer
    source: Checkpoint
    names: Names
    fates: Mapping[str, _Fate]
    moved: list[Moved] = field(default_factory=list)
    split: list[str] = field(default_factory=list)
    _tensors: dict[int, tuple[str, Tensor]] = field(default_factory=dict)

    def state_dict(self) -> object | None:
        """The new objects; None if nothing changes. Raises `PlanError` where state cannot follow."""
        self._tensors = {id(tensor.node): (name, tensor) for name, tensor in self.source.other_tensors.items()}
        owners = _owners(self.source)
        numbers = {owners.get(key, key): number for number, key in self.names.keys.items()}
        fates = [(key, self._fate(key)) for key in self.names.keys.values()]
        if not any(fate.changes(key) if self.names.texts else fate.loses for key, fate in fates):
            return None
        places = {number: at for at, group in enumerate(self._params()) for number in group}
        new_numbers: dict[object, list[tuple[object, str]]] = {}
        state: dict[object, object] = {}
        following = max((number for number in self.names.keys if isinstance(number, int)), default=-1) + 1
        done: set[str] = set()
        for number, (key, fate) in zip(self.names.keys, fates, strict=True):
            if fate.computed:
                raise PlanError(f"{fate.computed} is computed, and its elements are not those of {key}", key=key)
            new_numbers[number] = []
            self.split += [step.target.key for step in fate.steps] if len(fate.steps) > 1 else []
            for step in fate.steps:
                name = step.target.key
                if name in done:
                    continue
                done.add(name)
                origins = list(dict.fromkeys(owners.get(found.key, found.key) for found in sources_of(step.value)))
                if missing := [origin for origin in origins if origin not in numbers]:
                    raise PlanError(f"{name} is made of {missing[0]}, which is not a parameter of it", key=key)
                if len({places[numbers[origin]] for origin in origins}) > 1:
                    raise PlanError(f"{name} is made of parameters of several groups", key=key)
                stated = self.names.texts.get(number, name) if name == key else name
                new: object = stated
                if not self.names.by_name:
                    new, following = (following, following + 1) if new_numbers[number] else (number, following)
                new_numbers[number].append((new, stated))
                entry = self._entry(step, {origin: numbers[origin] for origin in origins}, owners)
                if entry is not None:
                    state[new] = entry
        return self._like_before(new_numbers, state)

    def _fate(self, key: str) -> _Fate:
        """What becomes of a parameter; of one that is not a key of the weights: nothing."""
        return self.fates.get(key) or _Fate((Step(TensorSpec(key, "float32", ()), Source(0, key), Follows()),))

    def _params(self) -> Iterator[list[object]]:
        for group in self.optimizer.groups:
            numbers = entries_of(group)["params"]
            assert isinstance(numbers, list)  # `names_of` has seen it
            yield numbers

    def _like_before(
        self, new_numbers: Mapping[object, list[tuple[object, str]]], state: Mapping[object, object]
    ) -> object:
        groups: list[object] = []
        for group, numbers in zip(self.optimizer.groups, self._params(), strict=True):
            pairs = self._in_order([new_numbers[number] for number in numbers], [*map(self.names.keys.get, numbers)])
            values: dict[object, object] = {
                "params": [number for number, _ in pairs],
                "param_names": [name for _, name in pairs],
            }
            groups.append(_like(group, [(key, values.get(key, value)) for key, value in _items(group)]))
        old = self.optimizer.state
        others = [] if old is None else [(key, value) for key, value in old.items if key not in self.names.keys]
        new_state = None if old is None else _like(old, [*state.items(), *others])
        return _like(
            self.optimizer.node,
            [
                (key, groups if key == "param_groups" else new_state if key == "state" else value)
                for key, value in _items(self.optimizer.node)
            ],
        )

    def _in_order(
        self, made: Sequence[list[tuple[object, str]]], keys: Sequence[str | None]
    ) -> list[tuple[object, str]]:
        """A group's new parameters. Parts of a split go to their modules, if the group had the order of modules."""
        pairs = [pair for row in made for pair in row]
        if all(len(row) < 2 for row in made):
            return pairs
        before, after = in_module_order(list(self.source)), in_module_order(s.target.key for s in self.plan.steps)
        ranks = [before[key] for key in keys if key in before]
        if ranks != sorted(ranks) or any(name not in after for _, name in pairs):
            return pairs
        return sorted(pairs, key=lambda pair: after[pair[1]])

    def _entry(self, step: Step, numbers: Mapping[str, object], owners: Mapping[str, str]) -> object | None:
        """The state of one parameter of the output, from that of the parameters it is made of."""
        old = {} if self.optimizer.state is None else dict(self.optimizer.state.items)
        entries = {key: old[number] for key, number in numbers.items() if number in old}
        if not entries:
            return None
        first = next(iter(entries.values()))
        value = _bare(step.value)
        if isinstance(value, Source) and len(self._fate(value.key).steps) == 1:
            return first
        name = step.target.key
        if len(entries) < len(numbers) or not all(isinstance(entry, (Dict, Call)) for entry in entries.values()):
            raise PlanError(f"not all that {name} is made of has state", key=name)
        fields = {key: dict(_items(entry)) for key, entry in entries.items()}
        if len({frozenset(found) for found in fields.values()}) > 1:
            raise PlanError(f"what {name} is made of has different kinds of state", key=name)
        items: list[tuple[object, object]] = []
        for label, _ in _items(first):
            values = {key: found[label] for key, found in fields.items()}
            items.append((label, self._value(label, values, value, owners, name)))
        return _like(first, items)

    def _value(
        self, label: object, values: Mapping[str, object], value: Value, owners: Mapping[str, str], name: str
    ) -> object:
        """One entry of a parameter's state: a moment moves with the elements, a counter is the same for all."""
        tensors = {key: self._tensors.get(id(node)) for key, node in values.items()}
        if label != _COUNTER and all(
            found is not None and found[1].shape == self.source[key].shape for key, found in tensors.items()
        ):
            places = {key: found for key, found in tensors.items() if found is not None}
            return self._made(name, label, *self._moved(value, places, owners))
        if len({self._scalar(node) for node in values.values()}) > 1:
            raise PlanError(f"what {name} is made of has different {label}", key=name)
        node, found = next(iter(values.values())), next(iter(tensors.values()))
        if found is None:
            return node
        # a tensor of its own: the optimizer counts in place
        return self._made(name, label, Source(len(self.plan.inputs), found[0]), found[1].spec)

    def _made(self, name: str, label: object, value: Value, spec: TensorSpec) -> Moved:
        made = Moved(Step(replace(spec, key=f"{self.optimizer.name}.state.{name}.{label}"), value, Follows()))
        self.moved.append(made)
        return made

    def _scalar(self, node: object) -> object:
        """A number of the state, comparable. Raises `PlanError` for anything else."""
        if node is None or isinstance(node, (bool, int, float)):
            return node
        found = self._tensors.get(id(node))
        if found is None or found[1].elements != 1:
            raise PlanError("it holds more than moments and counters")
        return float(read_array(found[1]).reshape(-1)[0])

    def _moved(
        self, value: Value, places: Mapping[str, tuple[str, Tensor]], owners: Mapping[str, str]
    ) -> tuple[Value, TensorSpec]:
        """What moves a parameter, on its state."""
        if isinstance(value, Source):
            name, tensor = places[owners[value.key]]
            return Source(len(self.plan.inputs), name), tensor.spec
        args = [self._moved(arg, places, owners) for arg in value.args]
        return Apply(value.op, tuple(arg for arg, _ in args)), value.op.result([spec for _, spec in args])


def _items(node: object) -> list[tuple[object, object]]:
    assert isinstance(node, (Dict, Call))
    return [*node.items]


def _like(node: object, items: list[tuple[object, object]]) -> object:
    """A dict of the same kind with other entries."""
    if isinstance(node, Call):
        new = Call(node.how, node.fn, node.args, node.kwargs)
        new.items, new.states, new.appended = items, node.states, node.appended
        return new
    return Dict(items)
