"""Optimizer states as torch.distributed saves them, in the form that an optimizer of plain torch loads.

Its dicts have texts as keys where the optimizer has numbers, and may be flat: ``state.fc.weight.exp_avg``. Numbered
parameters get the names of the weights where only one way to number them agrees with their order and shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.numbering import Shape, may_be_parameter, only_order
from ckptool.formats.pickle.objects import Call, Dict
from ckptool.formats.ranks.dtensor import sequence_of
from ckptool.formats.ranks.files import plain
from ckptool.formats.ranks.held import are_equal
from ckptool.formats.torch.edit import substitute

_STATE, _GROUPS = "state", "param_groups"
_MOST_NESTED = 4  # levels of tuples and lists in a setting

Pairs = list[tuple[object, object]]


def loadable_optimizers(root: object) -> object:
    """The object with its optimizer states nested, and with numbers as the keys of numbered parameters."""
    if type(root) is not Dict:
        return root
    return Dict([(key, _with_numbers(_nested(value))) for key, value in root.items])


# ---------------------------------------------------------------------------------------------- flat dicts


def _nested(node: object) -> object:
    """An optimizer's state that was flattened by the names of its parameters.

    Parameters of equal settings were one group, or may be one: the order of the groups, and of the parameters within
    them, is that of the settings.
    """
    if type(node) is not Dict or not node.items:
        return node
    state: dict[str, Pairs] = {}
    settings: dict[str, Pairs] = {}
    for key, value in node.items:
        top, _, rest = key.partition(".") if type(key) is str else ("", "", "")
        name, _, label = rest.rpartition(".")
        if top not in (_STATE, _GROUPS) or not name:
            return node
        (state if top == _STATE else settings).setdefault(name, []).append((label, value))
    groups: dict[object, tuple[Pairs, list[object]]] = {}
    for name, options in settings.items():
        alike = _comparable(sorted(options, key=lambda pair: str(pair[0])))
        if alike is None:
            return node
        groups.setdefault(alike, (options, []))[1].append(name)
    if not groups or any(name not in settings for name in state):
        return node
    return Dict(
        [
            (_STATE, Dict([(name, Dict(entries)) for name, entries in state.items()])),
            (_GROUPS, [Dict([*options, ("params", names)]) for options, names in groups.values()]),
        ]
    )


def _comparable(value: object, level: int = 0) -> object:
    """A plain value in a form that can be compared and hashed; None for any other."""
    if type(value) in (bool, int, float, str, type(None)):
        return type(value), str(value)
    if type(value) in (list, tuple) and level < _MOST_NESTED:
        inner = [_comparable(each, level + 1) for each in sequence_of(value)]
        return None if None in inner else (type(value), tuple(inner))
    return None


# ---------------------------------------------------------------------------------------------- numbers


def _with_numbers(node: object) -> object:
    """An optimizer's state with numbers as keys if its groups number their parameters.

    torch.distributed makes texts of all keys; an optimizer that is loaded looks for the numbers.
    """
    if type(node) is not Dict:
        return node
    state = plain(node).get(_STATE)
    if _numbers(node) is None:
        return node
    if type(state) is list:  # keys that count from 0 look like a list's
        pairs: Pairs = list(enumerate(state))
    elif type(state) is Dict and all(type(key) is str and key.isdecimal() for key, _ in state.items):
        pairs = [(int(str(key)), value) for key, value in state.items]
    else:
        return node
    pairs.sort(key=lambda pair: int(str(pair[0])))
    return Dict([(key, Dict(pairs) if key == _STATE else value) for key, value in node.items])


def _numbers(node: object) -> list[list[int]] | None:
    """The numbers of the parameters of each group; None if a group has none."""
    groups = plain(node).get(_GROUPS)
    if type(groups) is not list:
        return None
    found = []
    for group in groups:
        numbers = plain(group).get("params")
        if type(numbers) is not list or not all(type(number) is int for number in numbers):
            return None
        found.append(numbers)
    return found


# ---------------------------------------------------------------------------------------------- names


def parameters_of(checkpoint: Checkpoint) -> dict[str, Shape]:
    """The shapes of the weights that may be parameters, in their order; of equal ones the first: they are tied."""
    found = [tensor for tensor in checkpoint.values() if may_be_parameter(tensor)]
    known: dict[object, list[str]] = {}
    names: dict[str, Shape] = {}
    for tensor in found:
        crc = tensor.pieces[0].storage.crc if tensor.pieces else None
        alike = known.setdefault((tensor.dtype, tensor.shape, crc), [])
        if tensor.elements and any(are_equal(checkpoint[key], tensor) is True for key in alike if crc is not None):
            continue
        alike.append(tensor.key)
        names[tensor.key] = tensor.shape
    return names


def named_optimizers(
    root: object, parameters: Mapping[str, Shape], shape_of: Callable[[object], Shape | None]
) -> object:
    """The object with the names of parameters beside their numbers, in optimizers that number them.

    Args:
        root: the nested object; an optimizer's state is one of its entries.
        parameters: the shapes of the parameters, in the order of the model, tied ones once.
        shape_of: the shape of an object that is a tensor.
    """
    places: dict[int, object] = {}
    for _, node in root.items if type(root) is Dict or type(root) is Call else ():
        numbers = _numbers(node)
        groups = plain(node).get(_GROUPS)
        if numbers is None or type(groups) is not list or any("param_names" in plain(group) for group in groups):
            continue
        names = _names(numbers, parameters, dict(_state_shapes(plain(node).get(_STATE), shape_of)))
        for group, mine in zip(groups, names, strict=False):
            items = group.items if type(group) is Dict or type(group) is Call else []
            places[id(group)] = Dict([*items, ("param_names", [*mine])])
    return substitute(root, places)


def numbered_optimizers(root: object) -> list[str]:
    """The optimizers whose parameters have numbers, and no names beside them."""
    return [
        str(key)
        for key, node in (root.items if type(root) is Dict or type(root) is Call else ())
        if _numbers(node) and not _are_named(plain(node).get(_GROUPS))
    ]


def _are_named(groups: object) -> bool:
    return type(groups) is list and all("param_names" in plain(group) for group in groups)


def _names(
    groups: Sequence[Sequence[int]], parameters: Mapping[str, Shape], shapes: Mapping[int, Shape]
) -> list[list[str]]:
    """The names of the parameters of each group; none if more than one way to give them is possible."""
    flat = [number for group in groups for number in group]
    if len(flat) != len(parameters) or len(set(flat)) != len(flat):
        return []
    order = only_order([*parameters.values()], [[shapes.get(number) for number in group] for group in groups])
    found: list[list[str]] = [[] for _ in groups]
    for name, group in zip(parameters, order or (), strict=False):
        found[group].append(name)
    return found if order is not None else []


def _state_shapes(state: object, shape_of: Callable[[object], Shape | None]) -> Iterator[tuple[int, Shape]]:
    """The shape of each numbered parameter whose state holds a tensor that is no counter."""
    for number, entry in plain(state).items():
        for label, value in plain(entry).items():
            shape = shape_of(value) if label != "step" else None
            if shape is not None and type(number) is int:
                yield number, shape
                break
