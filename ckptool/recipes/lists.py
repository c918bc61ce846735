"""Lists of numbered modules among keys: which there are, and which is that of a model's layers."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from ckptool.core.errors import UsageError

_NUMBERED = re.compile(r"(?:(?<=\.)|^)([^.]*?)([0-9]{1,9})(?=\.)")
_MOST = 8  # lists that an error names


def lists_of(keys: Iterable[str]) -> dict[str, set[int]]:
    """The numbers of each list of modules, by what stands before them: "model.layers.", "layer" of "layer1.0.conv1".

    Example:
        >>> lists_of(["h.0.ln_1.weight", "h.1.ln_1.weight", "ln_f.weight"])["h."]
        {0, 1}
    """
    found: dict[str, set[str]] = defaultdict(set)
    for module in dict.fromkeys(key.rpartition(".")[0] for key in keys):
        for numbered in _NUMBERED.finditer(f"{module}."):
            found[module[: numbered.start(2)]].add(numbered[2])
    return {name: set(map(int, numbers)) for name, numbers in found.items()}


def outer_lists(keys: Iterable[str]) -> dict[str, set[int]]:
    """The lists of two modules or more that are in no module of another such list.

    Example:
        >>> list(outer_lists(f"layers.{i}.experts.{e}.w" for i in range(2) for e in range(9)))
        ['layers.']
    """
    found = {name: numbers for name, numbers in lists_of(keys).items() if len(numbers) > 1}
    return {name: numbers for name, numbers in found.items() if not _is_inside(name, found)}


def _is_inside(name: str, lists: Mapping[str, set[int]]) -> bool:
    return any(name[: numbered.start(2)] in lists for numbered in _NUMBERED.finditer(name))


def layers_of(keys: Iterable[str], given: str | None = None, capture: str = "layers") -> str:
    """What stands before the numbers of a model's layers: of the longest list, if it is twice as long as any other.

    Args:
        keys: of the model.
        given: the list that is meant, with or without the dot at its end.
        capture: what the rules call it, for errors.

    Raises:
        UsageError: there is no such list, or which is meant is not clear.

    Example:
        >>> layers_of(f"model.layers.{i}.mlp.up_proj.weight" for i in range(4))
        'model.layers.'
    """
    keys = list(keys)
    if given is not None:
        return _named(lists_of(keys), given, capture)
    lists = sorted(outer_lists(keys).items(), key=lambda row: -len(row[1]))
    if not lists:
        raise UsageError(
            f"{{{capture}#}} stands for a list of numbered modules, and none of the {len(keys):,} keys is in one",
            hint=f"name the list: --var {capture}=model.layers",
        )
    longest = len(lists[0][1])
    rivals = [(name, len(numbers)) for name, numbers in lists if 2 * len(numbers) > longest]
    if len(rivals) > 1:
        listed = ", ".join(f"{shown(name)} has {count}" for name, count in rivals[:_MOST])
        raise UsageError(
            f"several lists of modules may be meant: {listed}", hint=f"name one: --var {capture}={shown(rivals[0][0])}"
        )
    return lists[0][0]


def shown(name: str) -> str:
    """The name of a list, as it is given with --var."""
    return name.removesuffix(".")


def _named(lists: Mapping[str, set[int]], given: str, capture: str) -> str:
    for name in (f"{given}.", given):
        if name in lists:
            return name
    known = {shown(name): name for name in lists}
    near = difflib.get_close_matches(given, known, n=1)
    longest = sorted(lists, key=lambda name: -len(lists[name]))[:3]
    hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(map(shown, longest))}" if lists else None
    raise UsageError(f'no keys are in a list "{given}", which --var {capture} names', hint=hint)
