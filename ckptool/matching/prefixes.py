"""Prefixes that stand between two sets of keys: a wrapper on one side, a submodule on the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import product

from ckptool.keys import common_prefix, wrapper_prefix

Shapes = Mapping[str, tuple[int, ...]]

_DEEPEST = 4


def prefix_swap(source: Shapes, target: Shapes) -> tuple[str, str]:
    """The prefix to take off every source key, and the one to put before it, so that the most tensors meet.

    Tensors meet if key and shape are equal. A prefix is swapped only if more tensors meet with the swap than without;
    of equal swaps the shortest is taken.

    Args:
        source: shapes by key.
        target: shapes by key.

    Example:
        >>> shapes = {"module.conv.weight": (3, 3), "module.conv.bias": (3,)}
        >>> prefix_swap(shapes, {"base.conv.weight": (3, 3), "base.conv.bias": (3,), "head": (5, 3)})
        ('module.', 'base.')
    """
    best, most = ("", ""), _meeting(source, target, "", "")
    if most == len(source):
        return best
    takes = dict.fromkeys(["", wrapper_prefix(source), *_shared(source)])
    puts = dict.fromkeys(["", *_shared(target), *_main_modules(target)])
    for take, put in sorted(product(takes, puts), key=lambda pair: (len(pair[0]) + len(pair[1]), pair)):
        found = _meeting(source, target, take, put)
        if found > most:
            best, most = (take, put), found
    return best


def _shared(keys: Iterable[str]) -> list[str]:
    """Every dotted prefix that all keys have."""
    parts = common_prefix(keys).split(".")[:-1][:_DEEPEST]
    return ["".join(f"{part}." for part in parts[: count + 1]) for count in range(len(parts))]


def _main_modules(keys: Iterable[str]) -> list[str]:
    """Modules that hold more than half of the keys, outermost first."""
    inside = [key.split(".") for key in keys]
    found: list[str] = []
    for depth in range(_DEEPEST):
        names = Counter(parts[depth] for parts in inside if len(parts) > depth + 1)
        if not names:
            break
        name, count = names.most_common(1)[0]
        if count * 2 <= len(inside):
            break
        found.append((found[-1] if found else "") + f"{name}.")
        inside = [parts for parts in inside if len(parts) > depth + 1 and parts[depth] == name]
    return found


def _meeting(source: Shapes, target: Shapes, take: str, put: str) -> int:
    return sum(target.get(put + key.removeprefix(take)) == shape for key, shape in source.items())
