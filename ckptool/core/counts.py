"""Counts, and counts and lists in a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


def tallied(objects: Sequence[_T]) -> list[tuple[_T, int]]:
    """Each object and how often it is there. They are told apart by identity, which is fast; equal ones may come twice.

    Example:
        >>> tallied(["a", "b", "a"])
        [('a', 2), ('b', 1)]
    """
    one_of = dict(zip(map(id, objects), objects, strict=True))
    return [(one_of[number], times) for number, times in Counter(map(id, objects)).items()]


def many(number: int, what: str, plural: str = "") -> str:
    """A count with its noun.

    Example:
        >>> many(1, "tensor"), many(1220, "tensor"), many(2, "entry", "entries")
        ('1 tensor', '1,220 tensors', '2 entries')
    """
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more.

    Example:
        >>> listed("abcdefg")
        'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
