"""A unit: one module with its tensors in each block it is in, and what its name says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ckptool.matching.words import in_context, is_structure, words_of

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a unit's path.

    Attributes:
        text: it; for a family with ``#`` for the number.
        family: it stands for several members.
        rank: (place among siblings of its like, how many these are) for a number that is not a family's.
        said: the words that it stands for among these siblings; empty where only its text speaks.
    """

    text: str
    family: bool = False
    rank: tuple[int, int] | None = None
    said: tuple[str, ...] = ()

    def numbered(self, number: str) -> str:
        """The text of a family with something for the number.

        Example:
            >>> Part("layer#~", family=True).numbered("{l}")
            'layer{l}'
        """
        return re.sub("#~*", lambda _: number, self.text)


@dataclass(eq=False, slots=True)
class Unit:
    """One module in each block it is in.

    Attributes:
        path: the parts of its name.
        members: for each instance, the places in the families around it.
        keys: by role, the key in each instance.
        shapes: by role, the shape in each instance.
        position: where its first tensor stands in the file.
        written: by role, the last part as it is written.
        bare: it is a parameter without a role's name.
        numbers: for each instance, the numbers that stand for its places.
        groups: of a unit that is made of others, by role: the keys that make up each instance.
        pieces: the units that it is made of.
        kind: how: "qkv", "gate up", "stack".
        is_cut: only some of its instances are meant.
        turned: its pieces have their inputs before their outputs; its own shapes are as torch has them.
        made_of: the name of its class, where there is a model, and in all instances the same.
        words: what its path says, weighted.
        rank: the places of its numbers.
    """

    path: tuple[Part, ...]
    members: tuple[tuple[int, ...], ...]
    keys: dict[str, tuple[str, ...]]
    shapes: dict[str, tuple[Shape, ...]]
    position: int
    written: dict[str, str]
    bare: bool
    numbers: tuple[tuple[int, ...], ...] = ()
    groups: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    pieces: tuple[Unit, ...] = ()
    kind: str = ""
    is_cut: bool = False
    made_of: str = ""
    turned: bool = False
    words: dict[str, float] = field(default_factory=dict)
    rank: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        self.words = _weighted(self.path)
        self.rank = tuple(part.rank for part in self.path if part.rank)

    @property
    def main(self) -> str:
        """The role that it is compared by."""
        return "weight" if "weight" in self.shapes else min(self.shapes)

    @property
    def text(self) -> str:
        """Its path, with ``#`` for the numbers of families."""
        return ".".join(part.text for part in self.path)

    @property
    def chain(self) -> tuple[str, ...]:
        """The path down to the innermost family; empty outside all families."""
        last = max((at for at, part in enumerate(self.path) if part.family), default=-1)
        return tuple(part.text for part in self.path[: last + 1])

    @property
    def first_keys(self) -> tuple[str, ...]:
        """Of the first instance: the keys of its main role."""
        return self.groups[self.main][0] if self.groups else self.keys[self.main][:1]

    @property
    def parent(self) -> tuple[str, ...]:
        """The path without its last part."""
        return tuple(part.text for part in self.path[:-1])

    def restricted(self, kept: Sequence[int]) -> Unit:
        """Only these instances."""
        return Unit(
            self.path,
            tuple(self.members[at] for at in kept),
            {role: tuple(keys[at] for at in kept) for role, keys in self.keys.items()},
            {role: tuple(shapes[at] for at in kept) for role, shapes in self.shapes.items()},
            self.position,
            self.written,
            self.bare,
            tuple(self.numbers[at] for at in kept),
            is_cut=len(kept) < len(self.members),
            made_of=self.made_of,
        )


def _weighted(path: Sequence[Part]) -> dict[str, float]:
    """The words of a path; those near its end count more, those that say little count little."""
    found: dict[str, float] = {}
    weight = 1.0
    meant = in_context([part.text for part in path])
    for part in reversed(path):
        words = part.said or meant or words_of(part.text)
        meant = ()
        for word in words:
            worth = weight * (0.15 if is_structure(word) else 1.0)
            found[word] = max(found.get(word, 0.0), worth)
        if part.rank:
            place = f"{part.rank[0] + 1}/{part.rank[1]}"
            found[place] = max(found.get(place, 0.0), weight)
        if not all(map(is_structure, words)) or part.rank:
            weight *= 0.75
    return found
