"""A rule being made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ckptool.matching.captures import Side
from ckptool.matching.result import Pair

_DOTS = re.compile(r"\.(?![^{}]*\})")
CHOICES = ("n", "q", "r", "k")
"""What choices are called."""
_CHOICE = re.compile(r"\{([nqrk])=")


@dataclass(frozen=True, slots=True)
class Draft:
    """A rule being made: the parts of both sides, what is done with the axes, the pairs it stands for."""

    source: tuple[Side, ...]
    target: tuple[Side, ...]
    layout: str
    pairs: tuple[Pair, ...]

    @property
    def text(self) -> str:
        """It in the recipe language."""
        left, right = (", ".join(".".join(side) for side in sides) for sides in (self.source, self.target))
        return f"{left} -> {right}" + (f" | {self.layout}" if self.layout else "")

    @property
    def is_single(self) -> bool:
        """It has one pattern on each side."""
        return len(self.source) == len(self.target) == 1

    @property
    def is_plain(self) -> bool:
        """One tensor becomes one, as it is."""
        return self.is_single and not self.layout

    @property
    def sides(self) -> tuple[str, str]:
        """The first pattern of each side."""
        return ".".join(self.source[0]), ".".join(self.target[0])

    @property
    def order(self) -> tuple[bool, int, str]:
        """Rules that carry a rest over come last, those that say least at the very end."""
        return "{m**}" in self.text, -sum(len(part) for part in self.source[0] if "{" not in part), self.text


def draft_of(source: str, target: str, layout: str, drafts: Iterable[Draft]) -> Draft:
    """A draft of one pattern on each side, for all that others stand for."""
    pairs = tuple(pair for draft in drafts for pair in draft.pairs)
    return Draft((side_of(source),), (side_of(target),), layout, pairs)


def side_of(text: str) -> Side:
    """The parts of a pattern.

    Example:
        >>> side_of("a.{n=0.x|1.y}.b")
        ('a', '{n=0.x|1.y}', 'b')
    """
    return tuple(_DOTS.split(text))


def with_open_ends(drafts: Sequence[Draft], modules: dict[str, int]) -> list[Draft]:
    """Drafts of single tensors that are all that their modules have, with ``{p*}`` for the last part.

    Args:
        drafts: for single modules, as they are named.
        modules: how many tensors of the source each module has.
    """
    found = []
    for draft in drafts:
        ours, theirs = draft.source[0], draft.target[0]
        alone = draft.is_single and len(draft.pairs) == 1 and min(len(ours), len(theirs)) > 1
        if alone and ours[-1] == theirs[-1] and "{" not in ours[-1] and modules.get(".".join(ours[:-1])) == 1:
            draft = Draft(((*ours[:-1], "{p*}"),), ((*theirs[:-1], "{p*}"),), draft.layout, draft.pairs)
        found.append(draft)
    return found


def finished(drafts: Iterable[Draft]) -> list[Draft]:
    """Drafts as they are written: the last part itself where ``{p*}`` stands for one alone, choices in their order."""
    found = []
    for draft in drafts:
        ours, theirs = draft.source[0], draft.target[0]
        if draft.is_single and ours[-1] == theirs[-1] == "{p*}":
            ends = {key.rpartition(".")[2] for pair in draft.pairs for key in (*pair.sources, *pair.targets)}
            if len(ends) == 1:
                (end,) = ends
                draft = Draft(((*ours[:-1], end),), ((*theirs[:-1], end),), draft.layout, draft.pairs)
        found.append(_renamed(draft))
    return found


def _renamed(draft: Draft) -> Draft:
    """The same with choices that are called n and q in the order in which they stand."""
    names = dict.fromkeys(_CHOICE.findall(draft.text))
    if not names or list(names) == list(CHOICES[: len(names)]):
        return draft
    new = dict(zip(names, CHOICES, strict=False))

    def side(parts: Side) -> Side:
        return tuple(_CHOICE.sub(lambda found: f"{{{new[found[1]]}=", part) for part in parts)

    return Draft(tuple(map(side, draft.source)), tuple(map(side, draft.target)), draft.layout, draft.pairs)
