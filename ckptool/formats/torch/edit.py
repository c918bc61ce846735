"""Makes a changed copy of a torch file's objects. What does not change is shared with the original."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckptool.formats.pickle.objects import Call, Dict, Set


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
    parents: dict[int, list[object]] = {}
    order: list[object] = []
    stack: list[object] = [root]
    seen = {id(root)}
    while stack:
        node = stack.pop()
        order.append(node)
        if id(node) in replacements:
            continue
        for child in children(node):
            parents.setdefault(id(child), []).append(node)
            if id(child) not in seen:
                seen.add(id(child))
                stack.append(child)
    reached: dict[int, object] = {}
    stack = [node for node in order if id(node) in replacements]
    while stack:
        for parent in parents.get(id(stack.pop()), ()):
            if id(parent) not in reached and id(parent) not in replacements:
                reached[id(parent)] = parent
                stack.append(parent)
    return list(reached.values())


def children(node: object) -> Iterator[object]:
    """Every object that stands directly in another, keys and call arguments included; atoms are left out."""
    if isinstance(node, (list, tuple)):
        inside = iter(node)
    elif isinstance(node, Dict):
        inside = (part for pair in node.items for part in pair)
    elif isinstance(node, Set):
        inside = iter(node.values)
    elif isinstance(node, Call):
        inside = (
            part
            for group in ([node.fn, node.args, node.kwargs], node.appended, *node.items, node.states)
            for part in group
        )
    else:
        return
    for child in inside:
        if not isinstance(child, (str, bytes, int, float, type(None))):
            yield child


def _kept(values: list[object] | tuple[object, ...], new: Mapping[int, object]) -> list[object]:
    found = (new.get(id(value), value) for value in values)
    return [value for value in found if value is not REMOVED]


def _pairs(pairs: list[tuple[object, object]], new: Mapping[int, object]) -> list[tuple[object, object]]:
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
