"""Prefixes that stand between two sets of keys: a wrapper on one side, a submodule on the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from ckptool.core.keys import common_prefix, wrapper_prefix

Shapes = Mapping[str, tuple[int, ...]]

_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Swap:
    """A prefix taken off keys, and another put before them.

    Attributes:
        take: keys that do not begin with it stay as they are; "" for all keys.
        put: "" for nothing.
    """

    take: str = ""
    put: str = ""

    def __bool__(self) -> bool:
        return bool(self.take or self.put)

    def key(self, key: str) -> str:
        """The key with the prefixes swapped.

        Example:
            >>> Swap("module.", "base.").key("module.fc.bias"), Swap(put="base.").key("fc.bias")
            ('base.fc.bias', 'base.fc.bias')
        """
        return self.put + key[len(self.take) :] if key.startswith(self.take) else key

    @property
    def text(self) -> str:
        """It in words: ``without "module.", under "base."``."""
        parts = (f'without "{self.take}"' if self.take else "", f'under "{self.put[:-1]}"' if self.put else "")
        return ", ".join(filter(None, parts))

    @property
    def rule(self) -> str:
        """It as a rule of the recipe language.

        Example:
            >>> Swap("module.").rule, Swap("module.", "base.").rule
            ('module. ->', 'module.{k**} -> base.{k**}')
        """
        return f"{self.take}{{k**}} -> {self.put}{{k**}}" if self.put else f"{self.take} ->"


def prefix_swap(source: Shapes, target: Shapes) -> Swap:
    """The swap of prefixes with which the most tensors meet, that is, are equal in key and shape.

    Prefixes are swapped only if more tensors meet than without, and never so that two keys become one; of equal swaps
    the shortest is taken.

    Args:
        source: shapes by key.
        target: shapes by key.

    Example:
        >>> shapes = {"module.conv.weight": (3, 3), "module.conv.bias": (3,)}
        >>> prefix_swap(shapes, {"base.conv.weight": (3, 3), "base.conv.bias": (3,), "head": (5, 3)})
        Swap(take='module.', put='base.')
    """
    best = Swap()
    most = _meeting(source, target, best)
    if most == len(source):
        return best
    takes = dict.fromkeys(["", wrapper_prefix(source), *_shared(source), *_main_modules(source)])
    puts = dict.fromkeys(["", *_shared(target), *_main_modules(target)])
    for swap in sorted((Swap(*pair) for pair in product(takes, puts)), key=_length):
        found = _meeting(source, target, swap)
        if found > most and len({swap.key(key) for key in source}) == len(source):
            best, most = swap, found
    return best


def _length(swap: Swap) -> tuple[int, str, str]:
    return len(swap.take) + len(swap.put), swap.take, swap.put


def _shared(keys: Iterable[str]) -> Iterator[str]:
    """Every dotted prefix that all keys have."""
    found = ""
    for part in common_prefix(keys).split(".")[:-1][:_DEEPEST]:
        found += f"{part}."
        yield found


def _main_modules(keys: Iterable[str]) -> list[str]:
    """Modules that hold more than half of the keys, outermost first."""
    inside = [key.split(".") for key in keys]
    found: list[str] = []
    for depth in range(_DEEPEST):
        names = Counter(parts[depth] for parts in inside if len(parts) > depth + 1)
        name, count = names.most_common(1)[0] if names else ("", 0)
        if count * 2 <= len(inside):
            break
        found.append((found[-1] if found else "") + f"{name}.")
        inside = [parts for parts in inside if len(parts) > depth + 1 and parts[depth] == name]
    return found


def _meeting(source: Shapes, target: Shapes, swap: Swap) -> int:
    return sum(target.get(swap.key(key)) == shape for key, shape in source.items())
