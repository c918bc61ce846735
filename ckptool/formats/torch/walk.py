"""Walking the inert objects of a torch file: what is inside what.

The file chooses the objects, so nothing here recurses, hashes or compares what the file put together, and all work is
paid from a budget: a few steps for each byte of the pickle. Files that share their parts so that the walk would
unfold them run out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ckptool.core.errors import UnreadableError
from ckptool.formats.pickle.objects import Call, Dict, Global, Set
from ckptool.formats.torch.edit import ATOMS, is_bare
from ckptool.formats.torch.tensor import is_numpy, is_tensor

MAX_DEPTH = 1000
STEPS_PER_BYTE = 4

Pairs = list[tuple[object, object]]


@dataclass(frozen=True, slots=True)
class ScriptClass:
    """What the code of a TorchScript archive declares of one module class."""

    parameters: frozenset[str]
    buffers: frozenset[str]


def is_container(node: object) -> bool:
    """True if something may be inside; a tensor is not a container here."""
    kind = type(node)
    return kind is Dict or kind is list or kind is tuple or kind is Set or (kind is Call and not is_tensor(node))


def is_mapping(node: object) -> bool:
    """True for a dict, an OrderedDict, or an object of any class that was filled like a dict."""
    if type(node) is Dict:
        return True
    if type(node) is not Call or is_tensor(node):
        return False
    named = type(node.fn) is Global and node.fn.name in ("OrderedDict", "defaultdict", "Counter", "dict")
    return bool(node.items) or named


def _slot(key: object) -> object:
    """What tells two keys of a dict apart, without hashing what the file put together."""
    kind = type(key)
    if kind is str or kind is bytes or kind is bool or (type(key) is int and key.bit_length() <= 64):
        return key
    return (id(key),)


class Walk:
    """Looks into containers, within a budget.

    Args:
        nbytes: size of the pickle.
        classes: the module classes of a TorchScript archive by qualified name.

    Example:
        >>> Walk(100).pairs(Dict([("a", 1), ("b", 2), ("a", 3)]))
        [('a', 3), ('b', 2)]
    """

    __slots__ = ("classes", "left", "met_arrays")

    def __init__(self, nbytes: int, classes: Mapping[str, ScriptClass] | None = None) -> None:
        self.left = STEPS_PER_BYTE * nbytes + 10_000
        self.classes = classes or {}
        self.met_arrays = False  # `holds_tensors` has seen a numpy array

    def pay(self, steps: int) -> None:
        """Raises UnreadableError once the budget is spent."""
        self.left -= steps
        if self.left < 0:
            raise UnreadableError("its objects share their parts so often that they unfold far beyond the file's size")

    def pairs(self, node: object) -> Pairs:
        """The entries of a dict or of an object filled like one; of entries set twice the last, where the first was."""
        if type(node) is Dict:
            return self._last_wins(node.items)
        if type(node) is not Call:
            return []
        in_args = self._pairs_in_args(node)
        return self._last_wins([*in_args, *node.items] if in_args else node.items)

    def _pairs_in_args(self, node: Call) -> Pairs:
        """Python 2 wrote ``OrderedDict([[key, value], ...])``; other dicts come as an argument."""
        source = node.args[-1] if type(node.args) is tuple and node.args else None
        if type(source) is Dict:
            return source.items
        if type(source) is not list:
            return []
        self.pay(len(source))
        pairs = [(pair[0], pair[1]) for pair in source if type(pair) in (list, tuple) and len(pair) == 2]
        return pairs if len(pairs) == len(source) else []

    def _last_wins(self, items: Sequence[tuple[object, object]]) -> Pairs:
        self.pay(len(items) + 1)
        texts = {key for key, _ in items if type(key) is str}
        if len(texts) == len(items):
            return [*items]
        del texts
        merged: dict[object, tuple[object, object]] = {}
        for key, value in items:
            slot = _slot(key)
            first = merged.get(slot)
            merged[slot] = (key if first is None else first[0], value)
        return list(merged.values())

    def attributes(self, node: Call) -> Pairs:
        """What BUILD set on an object: its ``__dict__``, and the slots if the state is a pair."""
        found: Pairs = []
        for state in node.states:
            for part in state if type(state) is tuple and len(state) == 2 else (state,):
                if is_mapping(part):
                    found.extend(self.pairs(part))
        return found if len(node.states) < 2 else self._last_wins(found)

    def module_parts(self, node: object) -> dict[str, object] | None:
        """The attributes of a pickled ``nn.Module`` by name; None if the object is none.

        A module is known by its ``_parameters``, ``_buffers`` and ``_modules``, not by its class.
        """
        if type(node) is not Call or not (node.args or node.states) or is_tensor(node):
            return None
        source = node.args[0] if type(node.args) is tuple and node.args else None  # where torch.fx puts them
        for pairs in (self.attributes(node), self.pairs(source) if type(source) is Dict else []):
            parts = {key: value for key, value in pairs if type(key) is str}
            if all(is_mapping(parts.get(name)) for name in ("_parameters", "_buffers", "_modules")):
                return parts
        return None

    def is_module(self, node: object) -> bool:
        """True for a pickled ``nn.Module`` and for a TorchScript module."""
        return self._script_class(node) is not None or self.module_parts(node) is not None

    def _script_class(self, node: object) -> ScriptClass | None:
        if not self.classes or type(node) is not Call or type(node.fn) is not Global:
            return None
        return self.classes.get(node.fn.qualified)

    def entries(self, node: object) -> Pairs:
        """What is directly in a container, with the keys that name it; for modules as ``state_dict()`` lists it."""
        if isinstance(node, Set):
            node = node.values
        if type(node) is list or type(node) is tuple:
            self.pay(len(node) + 1)
            return list(enumerate(node))
        if type(node) is not Call:
            return self.pairs(node)
        declared = self._script_class(node)
        if declared is not None:
            return self._script_entries(node, declared)
        parts = self.module_parts(node)
        if parts is not None:
            return self._module_entries(parts)
        return self.pairs(node) if is_mapping(node) else self._object_entries(node)

    def _module_entries(self, parts: dict[str, object]) -> Pairs:
        """Parameters, persistent buffers, then children: torch's order. None stands for an unused slot."""
        transient = self._texts_in(parts.get("_non_persistent_buffers_set"))
        found = [(key, value) for key, value in self.pairs(parts["_parameters"]) if is_tensor(value)]
        for key, value in self.pairs(parts["_buffers"]):
            if is_tensor(value) and not (type(key) is str and key in transient):
                found.append((key, value))
        return found + [(key, value) for key, value in self.pairs(parts["_modules"]) if self.is_module(value)]

    def _texts_in(self, node: object) -> set[str]:
        """The texts in a set, however the pickle wrote it."""
        if type(node) is Call and type(node.args) is tuple and node.args:
            node = node.args[0]
        values = node.values if type(node) is Set else node if type(node) is list else []
        self.pay(len(values))
        return {value for value in values if type(value) is str}

    def _script_entries(self, node: Call, declared: ScriptClass) -> Pairs:
        attributes = self.attributes(node)
        tensors = [(key, value) for key, value in attributes if type(key) is str and is_tensor(value)]
        found: Pairs = [(key, value) for key, value in tensors if key in declared.parameters]
        found += [(key, value) for key, value in tensors if key in declared.buffers]
        return found + [(key, value) for key, value in attributes if self._script_class(value) is not None]

    def _object_entries(self, node: Call) -> Pairs:
        """Any other object: its arguments, what was appended to it, its attributes."""
        args = node.args if type(node.args) is tuple else ()
        self.pay(len(args) + len(node.appended) + len(node.states) + 1)
        found: Pairs = list(enumerate([*args, *node.appended]))
        if type(node.kwargs) is Dict:
            found += self.pairs(node.kwargs)
        found += self.attributes(node)
        return found + [("state", state) for state in node.states if is_container(state) and not is_mapping(state)]

    def holds_tensors(self, root: object, is_wanted: Callable[[object], bool] = is_tensor) -> AbstractSet[int]:
        """The containers, by `id`, that hold a tensor at any depth. Each is looked at once.

        Args:
            root: where to begin.
            is_wanted: which tensors count.

        Raises:
            UnreadableError: they are nested more than `MAX_DEPTH` deep.
        """
        holds: set[int] = set()
        seen = {id(root)}
        path: list[_Frame] = [_Frame(id(root), self._inside(root))] if is_container(root) else []
        while path:
            top = path[-1]
            for child in top.rest:
                if is_wanted(child):
                    top.found = True
                    self.met_arrays = self.met_arrays or is_numpy(child)
                elif id(child) in holds:
                    top.found = True
                elif id(child) not in seen and is_container(child):
                    seen.add(id(child))
                    path.append(_Frame(id(child), self._inside(child)))
                    if len(path) > MAX_DEPTH:
                        raise UnreadableError(f"its objects are nested more than {MAX_DEPTH:,} deep")
                    break
            else:
                path.pop()
                if top.found:
                    holds.add(top.ident)
                    if path:
                        path[-1].found = True
        return holds

    def _inside(self, node: object) -> Iterator[object]:
        """What is directly in a container, as `entries`, without atoms and bare lists."""
        if type(node) is Set:
            node = node.values
        if type(node) is list or type(node) is tuple:
            self.pay(len(node) + 1)
            inside = node
        elif type(node) is Call and not (node.args or node.kwargs or node.appended or node.items or node.states):
            return iter(())
        else:
            inside = [child for _, child in self.entries(node)]
        return iter([child for child in inside if type(child) not in ATOMS and not is_bare(child)])


@dataclass(slots=True)
class _Frame:
    ident: int
    rest: Iterator[object]
    found: bool = False
