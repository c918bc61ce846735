"""Rules that differ in one place of each side as one with a choice: ``block.{n=0|1|3}.1 -> {n=bn1|bn2|bn3}``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from ckptool.matching.drafts import CHOICES, Draft, draft_of

_CUTS = re.compile(r"(?<=[./])(?![^{}]*\})")
_NAMES = CHOICES[:2]
_READABLE = 60  # characters of a choice that is read at a glance
_LONGEST = 160  # of one that saves a rule where there would be many
_WIDE = 300  # drafts; of more only those that differ in one part are compared


@dataclass(frozen=True, slots=True)
class _Mask:
    """What is left of a draft without a place on each side."""

    left: tuple[str, str]
    right: tuple[str, str]
    layout: str


_Place = tuple[str, str]
"""What stood in both places."""


def chosen(drafts: Sequence[Draft], *, generous: bool = False, same: bool = False) -> list[Draft]:
    """Drafts that differ in one place of each side only as one rule with a choice, the largest groups first.

    Args:
        drafts: rules.
        generous: also where the place is several parts, and the choice long.
        same: also where the choice is the same on both sides, which rules with a rest say shorter.
    """
    kept = dict(enumerate(drafts))
    width = 3 if generous and len(drafts) <= _WIDE else 1
    longest = _LONGEST if generous else _READABLE
    groups: dict[_Mask, dict[int, _Place]] = defaultdict(dict)
    masks: dict[int, list[_Mask]] = {}
    queue: list[tuple[int, int, int, _Mask]] = []
    order: dict[_Mask, int] = {}

    def push(mask: _Mask) -> None:
        row = groups[mask]
        if len(row) > 1:
            size = max(ours.count(".") + ours.count("/") + theirs.count(".") for ours, theirs in row.values())
            heappush(queue, (-len(row), size, order.setdefault(mask, len(order)), mask))

    def add(number: int) -> None:
        masks[number] = []
        for mask, place in _masks(kept[number], width):
            groups[mask][number] = place
            masks[number].append(mask)
            push(mask)

    for number in range(len(drafts)):
        add(number)
    while queue:
        size, _, _, mask = heappop(queue)
        row = groups[mask]
        if (
            -size == len(row)
            and len(row) > 1
            and (made := _choice([(kept[at], row[at]) for at in row], mask, longest, same))
        ):
            for number in [*row]:
                for other in masks.pop(number):
                    del groups[other][number]
                    push(other)
                del kept[number]
            number = max(kept, default=0) + len(drafts) + len(order)
            kept[number] = made
            add(number)
    return [*kept.values()]


def _masks(draft: Draft, width: int) -> Iterator[tuple[_Mask, _Place]]:
    """The draft without a place of each side, in every way that makes sense; none if it has all choices already."""
    if not draft.is_single or _name(draft) is None:
        return
    ours, theirs = (_CUTS.split(side) for side in draft.sides)
    for at, end in _spans(ours, width):
        for to, stop in _spans(theirs, width):
            left, right = "".join(ours[at:end]), "".join(theirs[to:stop])
            if left == right and len(ours) - at != len(theirs) - to:
                continue
            (one, dot), (other, tail) = _apart(left), _apart(right)
            before, after = "".join(ours[:at]), dot + "".join(ours[end:])
            head, rest = "".join(theirs[:to]), tail + "".join(theirs[stop:])
            yield _Mask((before, after), (head, rest), draft.layout), (one, other)


def _spans(parts: Sequence[str], width: int) -> Iterator[tuple[int, int]]:
    """Runs of parts without a capture."""
    for at in range(len(parts)):
        for end in range(at + 1, min(at + width, len(parts)) + 1):
            if "{" in parts[end - 1]:
                break
            yield at, end


def _apart(text: str) -> tuple[str, str]:
    """A text and the dot behind it, if there is one."""
    return (text[:-1], text[-1]) if text[-1] in "./" else (text, "")


def _name(draft: Draft) -> str | None:
    """A name that no choice of the draft has."""
    return next((name for name in _NAMES if f"{{{name}=" not in draft.sides[0]), None)


def _choice(row: Sequence[tuple[Draft, _Place]], mask: _Mask, longest: int, same: bool) -> Draft | None:
    row = sorted(row, key=lambda one: [int(text) if text.isdigit() else text for text in _natural(one[1][0])])
    columns = [place[0] for _, place in row], [place[1] for _, place in row]
    if any(len(set(column)) < len(column) for column in columns):
        return None
    (before, ours, after), (head, theirs, rest) = (_trimmed(column) for column in columns)
    left, right = "|".join(ours), "|".join(theirs)
    if max(len(left), len(right)) > longest or (ours == theirs and not same):
        return None
    sides = (mask.left[0] + before, after + mask.left[1]), (mask.right[0] + head, rest + mask.right[1])
    alone = any(char in text for text in (*ours, *theirs) for char in "./")
    if alone and not any(map(_is_near, sides)):
        return None
    name = _name(row[0][0])
    return draft_of(
        f"{sides[0][0]}{{{name}={left}}}{sides[0][1]}",
        f"{sides[1][0]}{{{name}={right}}}{sides[1][1]}",
        mask.layout,
        [draft for draft, _ in row],
    )


def _trimmed(texts: Sequence[str]) -> tuple[str, list[str], str]:
    """The parts that all begin with; what is left of each; the parts that all end with."""
    rows = [_CUTS.split(text) for text in texts]
    same = 0
    while all(len(row) > same + 1 for row in rows) and len({row[same] for row in rows}) == 1:
        same += 1
    end = 0
    while all(len(row) > same + end + 1 for row in rows) and len({row[-1 - end] for row in rows}) == 1:
        end += 1
    left = ["".join(row[same : len(row) - end]) for row in rows]
    if end and len({text[-1] for text in left}) == 1 and left[0][-1] in "./":
        dot = left[0][-1]
        return "".join(rows[0][:same]), [text[:-1] for text in left], dot + "".join(rows[0][len(rows[0]) - end :])
    if end:
        return "".join(rows[0][:same]), ["".join(row[same:]) for row in rows], ""
    return "".join(rows[0][:same]), left, ""


def _natural(text: str) -> list[str]:
    """A text as its numbers and what stands between, beginning with a text."""
    return re.split(r"(\d+)", text)


def _is_near(around: tuple[str, str]) -> bool:
    """Something besides the last part is the same, so that rules belong together."""
    before, after = around
    inner = after.rstrip("./").rpartition(".")[0] or after.rpartition("/")[0]
    return bool(re.sub(r"[./]", "", before + inner))
