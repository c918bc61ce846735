"""Which key each parameter of an optimizer's state dict is.

torch's optimizers number their parameters. The state dict says which number is which key where it was written with
names: `param_names` in the groups (torch 2.6, `optim.SGD(model.named_parameters())`), or keys in place of numbers (the
full optimizer state of FSDP). Elsewhere the numbers follow the order of the model's parameters within each group; that
tells which is which if the groups hold as many parameters as the weights, and the shapes allow only one way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ckptool.core.checkpoint import Checkpoint, Extra
from ckptool.core.keys import strip_wrappers
from ckptool.core.numbering import Shape, may_be_parameter, only_order
from ckptool.formats.pickle.objects import Call, Dict

_MAX_LISTED = 64  # optimizers of one file


@dataclass(frozen=True, slots=True)
class Optimizer:
    """An optimizer's state dict.

    Attributes:
        extra: the entry of the file in which it stands.
        name: its dotted path.
        node: the objects.
        state: the half that holds the state of each parameter.
        groups: the other half.
    """

    extra: str
    name: str
    node: object
    state: Dict | Call | None
    groups: list[object]


def optimizers_of(extras: Sequence[Extra]) -> list[Optimizer]:
    """Optimizer state dicts among a file's other contents; Lightning keeps a list of them."""
    seen: set[int] = set()  # lists by id: the file may share them, or put one into itself
    stack: list[tuple[str, str, object]] = [(extra.name, extra.name, extra.node) for extra in reversed(extras)]
    found: list[Optimizer] = []
    while stack and len(found) < _MAX_LISTED:
        extra, name, node = stack.pop()
        if isinstance(node, list):
            if id(node) in seen:
                continue
            seen.add(id(node))
            children = list(enumerate(node[:_MAX_LISTED]))
            stack.extend((extra, f"{name}.{index}", child) for index, child in reversed(children))
            continue
        entries = entries_of(node)
        groups, state = entries.get("param_groups"), entries.get("state")
        if isinstance(groups, list):
            found.append(Optimizer(extra, name, node, state if isinstance(state, (Dict, Call)) else None, groups))
    return found


def entries_of(node: object) -> dict[str, object]:
    """The entries of a dict that have a text as key."""
    items = node.items if isinstance(node, (Dict, Call)) else []
    return {key: value for key, value in items if isinstance(key, str)}


@dataclass(frozen=True, slots=True)
class Names:
    """The key of each parameter.

    Attributes:
        keys: by number, or by name where names stand in place of numbers; in the order of the groups.
        texts: the name that the file states for each; none where it states none.
        by_name: names stand in place of numbers.
        are_strange: some are not keys of the weights: those of another model, or of these weights by other names.
        unnamed: parameters among the weights that have no number.
    """

    keys: Mapping[object, str]
    texts: Mapping[object, str]
    by_name: bool
    are_strange: bool
    unnamed: tuple[str, ...]

    @staticmethod
    def candidates(source: Checkpoint) -> list[str]:
        """The keys that may be parameters, tied ones once."""
        first: dict[object, str] = {}
        for key, tensor in source.tensors.items():
            if may_be_parameter(tensor):
                first.setdefault((tensor.pieces, tensor.dtype) if tensor.pieces and tensor.elements else key, key)
        return list(first.values())


def in_module_order(keys: Iterable[str]) -> dict[str, int]:
    """The rank of each key where torch lists a model: a module's own tensors, then its children's, as they first come.

    Example:
        >>> list(in_module_order(["q.weight", "k.weight", "q.bias", "scale", "k.bias"]))
        ['scale', 'q.weight', 'q.bias', 'k.weight', 'k.bias']
    """
    own: dict[str, list[str]] = {}
    children: dict[str, dict[str, None]] = {}
    for key in keys:
        module = key.rpartition(".")[0]
        own.setdefault(module, []).append(key)
        while module:
            around = module.rpartition(".")[0]
            children.setdefault(around, {})[module] = None
            module = around
    ranks: dict[str, int] = {}
    stack = [""]
    while stack:
        module = stack.pop()
        for key in own.get(module, ()):
            ranks.setdefault(key, len(ranks))
        stack += reversed(list(children.get(module, {})))
    return ranks


def names_of(optimizer: Optimizer, source: Checkpoint) -> Names | None:
    """The key of each of an optimizer's parameters; None if the file does not tell."""
    groups: list[tuple[list[object], list[object] | None]] = []
    for group in optimizer.groups:
        entries = entries_of(group)
        numbers, given = entries.get("params"), entries.get("param_names")
        if not isinstance(numbers, list) or not all(isinstance(number, (int, str)) for number in numbers):
            return None
        named = given if isinstance(given, list) and len(given) == len(numbers) else None
        groups.append((numbers, named))
    numbers = [number for numbers, _ in groups for number in numbers]
    if len(set(numbers)) != len(numbers):
        return None
    by_name = all(isinstance(number, str) for number in numbers)
    texts = [text for numbers, named in groups for text in (numbers if by_name else named or [None] * len(numbers))]
    if all(isinstance(text, str) for text in texts):
        return _named({number: str(text) for number, text in zip(numbers, texts, strict=True)}, source, by_name)
    keys = _numbered(optimizer, [numbers for numbers, _ in groups], source)
    stated = {number: text for number, text in zip(numbers, texts, strict=True) if isinstance(text, str)}
    if keys and any(strip_wrappers(text) != strip_wrappers(keys[number]) for number, text in stated.items()):
        return None
    return None if keys is None else Names(keys, {}, False, False, ())


def _named(names: Mapping[object, str], source: Checkpoint, by_name: bool) -> Names:
    known = {strip_wrappers(key): key for key in reversed(list(source))}
    keys = {number: known.get(strip_wrappers(name), name) for number, name in names.items()}
    strange = any(key not in source for key in keys.values())
    taken = set(keys.values())
    return Names(keys, names, by_name, strange, tuple(key for key in Names.candidates(source) if key not in taken))


# ---------------------------------------------------------------------------------------------- numbers


def _numbered(optimizer: Optimizer, groups: Sequence[list[object]], source: Checkpoint) -> dict[object, str] | None:
    """The keys of numbered parameters, if there is exactly one way to give each its own."""
    keys = Names.candidates(source)
    if sum(map(len, groups)) != len(keys):
        return None
    shapes = _state_shapes(optimizer, source)
    wanted = [[shapes.get(number) for number in group] for group in groups]
    order = only_order([source[key].shape for key in keys], wanted)
    if order is None:
        return None
    places = [iter(group) for group in groups]
    found = {next(places[group]): key for group, key in zip(order, keys, strict=True)}
    return {number: found[number] for group in groups for number in group}


def _state_shapes(optimizer: Optimizer, source: Checkpoint) -> dict[object, Shape]:
    """The shape of each parameter whose state holds a tensor that is no counter."""
    shapes = {id(tensor.node): tensor.shape for tensor in source.other_tensors.values()}
    found: dict[object, Shape] = {}
    for number, entry in optimizer.state.items if optimizer.state is not None else ():
        for label, value in entries_of(entry).items():
            if label != "step" and id(value) in shapes and isinstance(number, (int, str)):
                found.setdefault(number, shapes[id(value)])
    return found
