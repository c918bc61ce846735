"""Whether the order of a file means something: files are also listed by letters, by kind or by chance."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

_LOOKED_AT = 5000  # keys of a file
_FALLS = 0.02  # of the keys of a sorted file, at most, are before the one before them
_TOGETHER = 0.8  # of the tensors of modules that stand beside each other in a file that has an order


def has_order(keys: Sequence[str]) -> bool:
    """The order of a file means something: it is not that of letters or kinds, and what belongs together is together.

    Example:
        >>> has_order(["b.weight", "b.bias", "a.weight", "a.bias"])
        True
        >>> has_order(["a.bias", "a.weight", "b.bias", "b.weight"])
        False
    """
    keys = keys[:_LOOKED_AT]
    if is_sorted(keys):
        return False
    modules = [key.replace("/", ".").rpartition(".")[0] for key in keys]
    several = len(modules) - len(set(modules))
    if several:
        return sum(a == b for a, b in pairwise(modules)) >= _TOGETHER * several
    tops = [key.replace("/", ".").partition(".")[0] for key in keys]
    return len(set(tops)) < len(tops) and sum(a != b for a, b in pairwise(tops)) <= 2 * len(set(tops))


def is_sorted(keys: Sequence[str]) -> bool:
    """The keys are in the order of their letters, so that the order says nothing; all, or in a few runs (by dtype)."""
    padded = [re.sub(r"\d+", lambda n: n[0].zfill(9), key) for key in keys]
    return any(sum(a > b for a, b in pairwise(row)) <= _FALLS * len(row) for row in (keys, padded))
