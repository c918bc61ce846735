"""Entries of a torch file's dicts by their dotted names, taken out one by one."""

from __future__ import annotations

from collections.abc import Iterable

from ckptool.core.errors import PlanError
from ckptool.formats.pickle.objects import Call, Dict
from ckptool.formats.torch.names import key_text

_DEEPEST = 100


def without_entries(root: object, names: Iterable[str]) -> object:
    """The objects without some entries; the dicts on the way to them are new, all else is shared.

    Raises:
        PlanError: a name leads to no entry of a dict.

    Example:
        >>> root = Dict([("model", Dict([("w", 1), ("epoch", 3)])), ("args", 5)])
        >>> left = without_entries(root, ["model.epoch", "args"])
        >>> [key for key, _ in left.items], left.items[0][1].items
        (['model'], [('w', 1)])
    """
    for name in names:
        root = _without(root, name, name, _DEEPEST)
    return root


def _without(node: object, rest: str, name: str, depth: int) -> object:
    entries = node.items if isinstance(node, (Dict, Call)) and depth else []
    texts = [key_text(key) for key, _ in entries]
    if rest in texts:
        return _like(node, [pair for pair, text in zip(entries, texts, strict=True) if text != rest])
    for number, text in enumerate(texts):
        if rest.startswith(f"{text}."):
            key, child = entries[number]
            inner = _without(child, rest[len(text) + 1 :], name, depth - 1)
            return _like(node, [*entries[:number], (key, inner), *entries[number + 1 :]])
    raise PlanError(f"{name} cannot be taken out: it is not an entry of a dict", hint="--only-weights leaves all out")


def _like(node: object, items: list[tuple[object, object]]) -> object:
    """A container of the same kind with other entries."""
    if not isinstance(node, Call):
        return Dict(items)
    new = Call(node.how, node.fn, node.args, node.kwargs)
    new.appended, new.items, new.states = node.appended, items, node.states
    return new


def renamed_entry(root: object, old: str, new: str) -> object:
    """The objects with an entry of the root under another key."""
    entries = root.items if isinstance(root, (Dict, Call)) else []
    return _like(root, [(new if key == old else key, value) for key, value in entries])
