"""Makes a changed copy of a torch file's objects. What does not change is shared with the original."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import cast

from ckptool.formats.pickle.objects import ByteString, Call, Dict, Persistent, Set
from ckptool.formats.pickle.tensors import plain_storage


class _Removed:
    """Stands for an entry that is taken out of the dict, list or tuple around it."""


REMOVED = _Removed()


def substitute(root: object, replacements: Mapping[int, object]) -> object:
    """The same objects with some replaced, wherever they stand.

    Args:
        root: the object to copy; it and what it holds stay as they are.
        replacements: by `id` of the object to replace: the new object, or `REMOVED`.

    Returns:
        A copy in which only the containers around replaced objects are new. Sharing and cycles are kept.

    Example:
        >>> old = Dict([("epoch", 9), ("weights", Dict())])
        >>> new = substitute(old, {id(old.items[1][1]): Dict([("w", 1)])})
        >>> new.items[1][1].items, old.items[1][1].items
        ([('w', 1)], [])
    """
    if id(root) in replacements:
        return replacements[id(root)]
    if not replacements:
        return root
    around = _containers_around(root, replacements)
    if not around:
        return root
    new: dict[int, object] = dict(replacements)
    for node in around:  # those that can be filled later come first, so that cycles close
        shell = _shell(node)
        if shell is not None:
            new[id(node)] = shell
    _build_tuples([node for node in around if isinstance(node, tuple)], new)
    for node in around:
        _fill(node, new)
    return new[id(root)]


def _build_tuples(tuples: list[tuple[object, ...]], new: dict[int, object]) -> None:
    """Build the tuples from the inside out: one that holds another comes after it."""
    while tuples:
        waiting = {id(node) for node in tuples}
        later = []
        for node in tuples:
            if any(id(child) in waiting for child in node):
                later.append(node)
            else:
                new[id(node)] = tuple(_kept(node, new))
        tuples = later


def _containers_around(root: object, replacements: Mapping[int, object]) -> list[object]:
    """Every container from which a replaced object can be reached, innermost first."""
    parents: dict[int, object] = {}
    others: dict[int, list[object]] = {}  # of objects that stand in several places
    stack: list[object] = [root]
    while stack:
        node = stack.pop()
        for child in children(node):
            at = id(child)
            if at in parents or child is root:
                others.setdefault(at, []).append(node)
                continue
            if at in replacements:
                parents[at] = node
            elif not is_bare(child):
                parents[at] = node
                stack.append(child)
    reached: dict[int, object] = {}
    found = [at for at in replacements if at in parents]
    while found:
        at = found.pop()
        for parent in (*([parents[at]] if at in parents else ()), *others.get(at, ())):
            if id(parent) not in reached and id(parent) not in replacements:
                reached[id(parent)] = parent
                found.append(id(parent))
    return list(reached.values())


ATOMS: frozenset[type] = frozenset((type(None), bool, int, float, str, bytes, bytearray, ByteString))
_FEW = 8


def children(node: object) -> list[object]:
    """Every object that stands directly in another, keys and call arguments included; atoms are left out.

    Of a plain tensor it is the storage alone: nothing else in it can say anything.
    """
    inside: Iterable[object]
    kind = type(node)
    if kind is list or kind is tuple:
        inside = cast("Iterable[object]", node)
    elif type(node) is Dict:
        inside = chain.from_iterable(node.items)
    elif type(node) is Call:
        storage = plain_storage(node)
        if storage is not None:
            return [storage]
        inside = chain((node.fn, node.args, node.kwargs), node.appended, chain.from_iterable(node.items), node.states)
    elif type(node) is Set:
        inside = node.values
    else:
        return []
    return [child for child in inside if type(child) not in ATOMS]


def is_bare(node: object) -> bool:
    """True for a short list or tuple of atoms, as there may be a million of: nothing is to be found in it."""
    if type(node) is not list and type(node) is not tuple:
        return False
    return not node or (len(node) <= _FEW and ATOMS.issuperset(map(type, node)))


def each_below(roots: Iterable[object], shut: Iterable[int] = (), *, in_references: bool = False) -> Iterator[object]:
    """Every object that is reached from some others, these included, each once; without atoms and bare lists.

    Args:
        roots: where to begin.
        shut: objects, by `id`, that are not looked into, not even as a root.
        in_references: look into persistent ids too.
    """
    seen = set(shut)
    stack = []
    for root in roots:
        if id(root) not in seen:
            seen.add(id(root))
            stack.append(root)
    while stack:
        node = stack.pop()
        yield node
        inside = [node.pid] if in_references and type(node) is Persistent else children(node)
        for child in inside:
            at = id(child)
            if at not in seen and not is_bare(child):
                seen.add(at)
                stack.append(child)


def _kept(values: Sequence[object], new: Mapping[int, object]) -> list[object]:
    found = (new.get(id(value), value) for value in values)
    return [value for value in found if value is not REMOVED]


def _pairs(pairs: Sequence[tuple[object, object]], new: Mapping[int, object]) -> list[tuple[object, object]]:
    found = [(new.get(id(key), key), new.get(id(value), value)) for key, value in pairs]
    return [(key, value) for key, value in found if key is not REMOVED and value is not REMOVED]


def _shell(node: object) -> object | None:
    """An empty object of the same kind; None for a tuple, which cannot be filled later."""
    if isinstance(node, list):
        return []
    if isinstance(node, Dict):
        return Dict()
    if isinstance(node, Set):
        return Set(frozen=node.frozen)
    if isinstance(node, Call):
        return Call(node.how, node.fn, node.args, node.kwargs)
    return None


def _fill(node: object, new: Mapping[int, object]) -> None:
    shell = new[id(node)]
    if isinstance(node, list) and isinstance(shell, list):
        shell.extend(_kept(node, new))
    elif isinstance(node, Dict) and isinstance(shell, Dict):
        shell.items = _pairs(node.items, new)
    elif isinstance(node, Set) and isinstance(shell, Set):
        shell.values = _kept(node.values, new)
    elif isinstance(node, Call) and isinstance(shell, Call):
        shell.fn = new.get(id(node.fn), node.fn)
        shell.args = new.get(id(node.args), node.args)
        shell.kwargs = new.get(id(node.kwargs), node.kwargs)
        shell.appended = _kept(node.appended, new)
        shell.items = _pairs(node.items, new)
        shell.states = _kept(node.states, new)
