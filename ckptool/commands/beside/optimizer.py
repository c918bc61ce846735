"""Optimizer state that follows its parameters: through renames, and where parameters are left out.

torch's optimizers number their parameters; the state dict tells which number is which key only where it was written
with names: `param_names` in the groups (torch 2.6, `optim.SGD(model.named_parameters())`), or keys instead of numbers
(FSDP's full optimizer state). A rename changes no number, so numbered state stays right as it is. If parameters are
left out and the file does not say which is which, nobody can know: the user decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ckptool.core.checkpoint import Extra, Tensor
from ckptool.core.keys import strip_wrappers
from ckptool.core.plan import Plan, Problem, Source
from ckptool.core.spec import DTYPES
from ckptool.formats.pickle.objects import Call, Dict
from ckptool.formats.torch.edit import REMOVED
from ckptool.formats.torch.frame import Frame

_MAX_LISTED = 64  # optimizers of one file
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, slots=True)
class _Optimizer:
    """An optimizer's state dict: what it is called, and its two halves."""

    name: str
    node: object
    state: Dict | Call | None
    groups: list[object]


def with_optimizer(plan: Plan, *, drop: bool = False, as_is: bool = False) -> Plan:
    """The plan with the frame's optimizer state brought along.

    Args:
        plan: a plan whose frame is a torch file.
        drop: leave optimizer state out.
        as_is: keep it unchanged, whatever happens to the parameters.

    Returns:
        The plan with edits of the optimizer's objects, or with a `Problem` if it cannot be known what belongs where.
    """
    tree = None if plan.frame is None else plan.inputs[plan.frame].tree
    if not isinstance(tree, Frame) or plan.frame is None or as_is:
        return plan
    optimizers = list(_optimizers(plan.inputs[plan.frame].extras))
    if drop:
        dropped = tuple(optimizer.name for optimizer in optimizers)
        edits = tuple((optimizer.node, REMOVED) for optimizer in optimizers)
        return replace(
            plan,
            replaced_nodes=(*plan.replaced_nodes, *edits),
            dropped_extras=(*plan.dropped_extras, *dropped),
        )
    source = plan.inputs[plan.frame]
    fates = _fates(plan)
    renamed = {key: new for key, new in fates.items() if new != key}
    if not renamed:
        return plan
    edits_made: list[tuple[object, object]] = []
    problems: list[Problem] = []
    for optimizer in optimizers:
        new = _followed(optimizer, fates, source)
        if new is not None:
            edits_made.append((optimizer.node, new))
        elif any(fate is None and _may_be_parameter(source[key]) for key, fate in fates.items()):
            problems.append(_unknown(optimizer))
    return replace(
        plan,
        replaced_nodes=(*plan.replaced_nodes, *edits_made),
        problems=(*plan.problems, *problems),
    )


def _unknown(optimizer: _Optimizer) -> Problem:
    return Problem(
        f"{optimizer.name} numbers its parameters, and the file does not say which number is which key: "
        "its state cannot follow the tensors that are left out",
        "--drop-optimizer leaves it out, --keep-optimizer-as-is keeps it unchanged",
    )


def _may_be_parameter(tensor: Tensor) -> bool:
    """False for what an optimizer never holds: integers, and BatchNorm's statistics."""
    return DTYPES[tensor.dtype].kind in ("float", "complex") and tensor.key.rpartition(".")[2] not in _STATISTICS


def _fates(plan: Plan) -> dict[str, str | None]:
    """What becomes of each key of the frame input: its new name if its elements stay, else None."""
    assert plan.frame is not None
    fates: dict[str, str | None] = dict.fromkeys(plan.inputs[plan.frame].tensors)
    for step in plan.steps:
        value = step.value
        while not isinstance(value, Source) and len(value.args) == 1 and value.op.is_elementwise:
            value = value.args[0]
        if isinstance(value, Source) and value.input == plan.frame:
            fates[value.key] = step.target.key
    return fates


def _optimizers(extras: tuple[Extra, ...]) -> Iterator[_Optimizer]:
    """Optimizer state dicts among a file's other contents; Lightning keeps a list of them."""
    stack: list[tuple[str, object]] = [(extra.name, extra.node) for extra in reversed(extras)]
    found = 0
    while stack and found < _MAX_LISTED:
        name, node = stack.pop()
        if isinstance(node, list):
            stack.extend((f"{name}.{index}", child) for index, child in reversed(list(enumerate(node[:_MAX_LISTED]))))
            continue
        entries = _entries(node)
        groups = entries.get("param_groups")
        if isinstance(groups, list):
            state = entries.get("state")
            found += 1
            yield _Optimizer(name, node, state if isinstance(state, (Dict, Call)) else None, groups)


def _entries(node: object) -> dict[str, object]:
    """The entries of a dict that have a text as key."""
    items = node.items if isinstance(node, (Dict, Call)) else []
    return {key: value for key, value in items if isinstance(key, str)}


def _followed(optimizer: _Optimizer, fates: Mapping[str, str | None], source: Mapping[str, Tensor]) -> object | None:
    """The optimizer's state dict with names changed and parameters left out; None if its names do not tell which."""
    names = _names(optimizer)
    if names is None:
        return None
    known = {strip_wrappers(key): (key, new) for key, new in fates.items()}
    new_names: dict[object, str | None] = {}
    strange = False
    for number, name in names.items():
        old, new = known.pop(strip_wrappers(name), (name, name))
        strange |= old not in fates
        new_names[number] = name if new == old else new
    # names that are no keys of the weights may be those of another model, or of these weights by other names
    if strange and any(new is None and _may_be_parameter(source[key]) for key, new in known.values()):
        return None
    by_name = all(number == name for number, name in names.items())
    groups = [_group(group, new_names, by_name) for group in optimizer.groups]
    state = _state(optimizer.state, new_names, by_name)
    items = [
        (key, groups if key == "param_groups" else state if key == "state" else value)
        for key, value in _items(optimizer.node)
    ]
    return _like(optimizer.node, items)


def _names(optimizer: _Optimizer) -> dict[object, str] | None:
    """Name of each parameter by its number (or by itself, where names stand in place of numbers)."""
    names: dict[object, str] = {}
    for group in optimizer.groups:
        entries = _entries(group)
        numbers, given = entries.get("params"), entries.get("param_names", entries.get("params"))
        if not isinstance(numbers, list) or not isinstance(given, list) or len(numbers) != len(given):
            return None
        for number, name in zip(numbers, given, strict=True):
            if not isinstance(name, str) or not isinstance(number, (int, str)):
                return None
            names[number] = name
    return names


def _group(group: object, new_names: Mapping[object, str | None], by_name: bool) -> object:
    numbers = _entries(group)["params"]
    assert isinstance(numbers, list)  # `_names` has seen it
    kept = [number for number in numbers if new_names[number] is not None]
    renamed = [new_names[number] for number in kept]
    values = {"params": renamed if by_name else kept, "param_names": renamed}
    items = [(key, values.get(key, value) if isinstance(key, str) else value) for key, value in _items(group)]
    return _like(group, items)


def _state(state: Dict | Call | None, new_names: Mapping[object, str | None], by_name: bool) -> object:
    if state is None:
        return None
    items: list[tuple[object, object]] = []
    for number, value in state.items:
        if isinstance(number, (int, str)) and number in new_names:
            new = new_names[number]
            if new is not None:
                items.append((new if by_name else number, value))
        else:
            items.append((number, value))
    return _like(state, items)


def _items(node: object) -> list[tuple[object, object]]:
    assert isinstance(node, (Dict, Call))
    return node.items


def _like(node: object, items: list[tuple[object, object]]) -> object:
    """A dict of the same kind with other entries."""
    if isinstance(node, Call):
        new = Call(node.how, node.fn, node.args, node.kwargs)
        new.items, new.states, new.appended = items, node.states, node.appended
        return new
    return Dict(items)
