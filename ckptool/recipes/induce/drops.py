"""Rules that drop keys, as few as can be: ``blocks.{6-11}.{k**} -> !``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

from ckptool.recipes.renaming import drop_rules

_MOST = 2000  # rules that drop
_Box = tuple[frozenset[int], ...]


def drops_of(dropped: Collection[str], kept: Collection[str], source: Iterable[str]) -> Iterator[list[str]]:
    """Rules that drop some keys and leave others alone: in short, which may be too much, then longer.

    Example:
        >>> [*drops_of({"a.1.w", "a.2.w"}, {"a.0.w"}, ["a.0.w", "a.1.w", "a.2.w"])][0]
        ['a.{1-2}.{k**} -> !']
    """
    rules = drop_rules([key for key in source if key in dropped], kept)
    ways = (_listed(rules), _listed(rules, exactly=True), rules)
    yield from (some for some in ways if len(some) <= _MOST)


def _listed(rules: Sequence[str], *, exactly: bool = False) -> list[str]:
    """Rules that differ in numbers only as one with lists.

    Args:
        rules: without lists.
        exactly: the lists mean these numbers together and no others, which may take several rules.
    """
    rows: dict[str, list[_Box]] = defaultdict(list)
    for rule in rules:
        numbers = re.findall("[0-9]+", rule)
        rows[re.sub(r"[0-9]+", "#", rule)].append(tuple(frozenset([int(number)]) for number in numbers))
    found = []
    for text, boxes in rows.items():
        if exactly:
            merged = _boxes(boxes)
        else:
            merged = [tuple(frozenset().union(*column) for column in zip(*boxes, strict=True))]
        for box in merged:
            made = text
            for column in box:
                made = made.replace("#", _ranges(sorted(column)), 1)
            found.append(made)
    return found


def _boxes(boxes: Sequence[_Box]) -> list[_Box]:
    """The same combinations of numbers as fewer rows, joined where all columns but one are equal."""
    found = list(dict.fromkeys(boxes))
    for at in range(len(found[0])):
        joined: dict[_Box, frozenset[int]] = {}
        for box in found:
            others = box[:at] + box[at + 1 :]
            joined[others] = joined.get(others, frozenset()) | box[at]
        found = [(*others[:at], column, *others[at:]) for others, column in joined.items()]
    return found


def _ranges(numbers: Sequence[int]) -> str:
    """``{6-11}``, ``{1,3}``, or the number alone."""
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return "{" + ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) + "}"
