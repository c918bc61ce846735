"""Lines that differ in one part of each side as one with a choice: ``block.{n=0|1|3}.1 -> {n=bn1|bn2|bn3}``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from ckptool.recipes.induce.lines import Line, parts_of
from ckptool.recipes.induce.variables import CHOICES, MOST_CHOICES

_READABLE = 60  # characters of a choice that is read at a glance


@dataclass(frozen=True, slots=True)
class _Mask:
    """What is left of a line without a part on each side."""

    left: tuple[str, str]
    right: tuple[str, str]
    layout: str


def chosen(lines: Sequence[Line], longest: int) -> list[Line]:
    """Lines that differ in one part of each side only as one with a choice, the largest groups first.

    Args:
        lines: of one pattern on each side; others stay as they are.
        longest: characters of a line, at most.

    Example:
        >>> lines = [Line((f"a.{x}",), (f"b.{y}",), "", ()) for x, y in (("fc1", "up"), ("fc2", "down"))]
        >>> [line.text for line in chosen(lines, 80)]
        ['a.{n=fc1|fc2} -> b.{n=up|down}']
    """
    kept = dict(enumerate(lines))
    groups: dict[_Mask, dict[int, tuple[str, str]]] = defaultdict(dict)
    masks: dict[int, list[_Mask]] = {}
    queue: list[tuple[int, int, _Mask]] = []
    order: dict[_Mask, int] = {}

    def push(mask: _Mask) -> None:
        if len(groups[mask]) > 1:
            heappush(queue, (-len(groups[mask]), order.setdefault(mask, len(order)), mask))

    def add(number: int) -> None:
        masks[number] = []
        for mask, place in _masks(kept[number]):
            groups[mask][number] = place
            masks[number].append(mask)
            push(mask)

    for number in range(len(lines)):
        add(number)
    while queue:
        size, _, mask = heappop(queue)
        row = groups[mask]
        if -size != len(row) or len(row) < 2:
            continue
        made = _choice([(kept[at], row[at]) for at in row], mask, longest)
        if made is None:
            continue
        first = min(row)
        for number in [*row]:
            for other in masks.pop(number):
                del groups[other][number]
                push(other)
            del kept[number]
        kept[first] = made
        add(first)
    return [line for _, line in sorted(kept.items())]


def _masks(line: Line) -> Iterator[tuple[_Mask, tuple[str, str]]]:
    """The line without a part of each side, in every way that makes sense; none if it has all choices already."""
    if not line.is_single or _name(line) is None:
        return
    ours, theirs = parts_of(line.left[0]), parts_of(line.right[0])
    for at, left in enumerate(ours):
        for to, right in enumerate(theirs):
            if "{" in left + right or not left or not right or (left == right and len(ours) - at != len(theirs) - to):
                continue
            sides = (
                (".".join([*ours[:at], ""]), ".".join(["", *ours[at + 1 :]])),
                (".".join([*theirs[:to], ""]), ".".join(["", *theirs[to + 1 :]])),
            )
            yield _Mask(*sides, line.layout), (left, right)


def _name(line: Line) -> str | None:
    """A name that no choice of the line has."""
    return next((name for name in CHOICES[:2] if f"{{{name}=" not in line.left[0]), None)


def _choice(row: Sequence[tuple[Line, tuple[str, str]]], mask: _Mask, longest: int) -> Line | None:
    row = sorted(row, key=lambda one: [int(text) if text.isdigit() else text for text in _natural(one[1][0])])
    ours, theirs = [place[0] for _, place in row], [place[1] for _, place in row]
    if len(row) > MOST_CHOICES or len(set(ours)) < len(ours) or len(set(theirs)) < len(theirs):
        return None
    left, right = "|".join(ours), "|".join(theirs)
    name = _name(row[0][0])
    both = f"{{{name}={left}}}", f"{{{name}}}" if left == right else f"{{{name}={right}}}"
    made = Line(
        (both[0].join(mask.left),),
        (both[1].join(mask.right),),
        mask.layout,
        tuple(pair for line, _ in row for pair in line.said),
        row[0][0].general,
    )
    return made if max(len(left), len(right)) <= _READABLE and len(made.text) <= longest else None


def _natural(text: str) -> list[str]:
    """A text as its numbers and what stands between, beginning with a text."""
    return re.split(r"(\d+)", text)
