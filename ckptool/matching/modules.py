"""A unit: one module with its tensors in each block it is in, and what its name says."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from ckptool.matching.words import in_context, is_structure, words_of

Shape = tuple[int, ...]

_NUMBERED = re.compile(r"[a-z]+\d+")
_LETTER = re.compile(r"(?:^|_)([a-h])(?:_|$)")  # that counts, where it has a rank
_MAIN = ("weight", "running_mean")
HUGE = 20_000  # tensors; files of more are lists of blocks of one kind, and are looked at in fewer ways


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
        kind: how: "q k v", "gate up".
        turned: its pieces have their inputs before their outputs; its own shapes are as torch has them.
        made_of: the name of its class, where there is a model, and in all instances the same.
        words: what its path says, weighted.
        rank: the places of its numbers.
        named: the numbered names in it (``branch1``), whatever their case, and among how many of their like each is.
        chain: the path down to the innermost family; empty outside all families.
        parent: the path without its last part; the path itself if it holds other modules.
        atoms: what it is made of, each as a whole where it was cut; itself, if it is one module.
        place: among those of its block whose names differ in numbers alone; None where it is alone.
        places: where the first tensor of each instance stands in the file.
        root: what it was cut from, if it was.
        rows: the instances of that which it has.
        holds: other modules are inside of it: TensorFlow's norm in the scope of its convolution.
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
    made_of: str = ""
    turned: bool = False
    words: dict[str, float] = field(default_factory=dict)
    rank: tuple[tuple[int, int], ...] = ()
    named: dict[str, int] = field(default_factory=dict)
    chain: tuple[str, ...] = ()
    parent: tuple[str, ...] = ()
    atoms: tuple[Unit, ...] = ()
    place: tuple[int, int] | None = None
    places: tuple[int, ...] = ()
    root: Unit | None = None
    rows: tuple[int, ...] = ()
    holds: bool = False
    _numbered: dict[tuple[int, ...], int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Everything that follows from the path and the pieces."""
        self.words = self.words or _weighted(self.path)
        self.rank = tuple(part.rank for part in self.path if part.rank)
        texts = [(part.text.replace("_", "").lower(), part) for part in self.path if not part.family]
        self.named = {text: part.rank[1] if part.rank else 1 for text, part in texts if _NUMBERED.fullmatch(text)}
        last = max((at for at, part in enumerate(self.path) if part.family), default=-1)
        self.chain = tuple(part.text for part in self.path[: last + 1])
        self.parent = tuple(part.text for part in (self.path if self.holds else self.path[:-1]))
        self.atoms = tuple(one.root or one for one in self.pieces or (self,))

    @property
    def main(self) -> str:
        """The role that it is compared by."""
        return next((role for role in _MAIN if role in self.shapes), min(self.shapes))

    @property
    def text(self) -> str:
        """Its path, with ``#`` for the numbers of families."""
        return ".".join(part.text for part in self.path)

    @property
    def is_even(self) -> bool:
        """Its tensors have the same shapes in all instances."""
        return all(len(set(shapes)) == 1 for shapes in self.shapes.values())

    @property
    def by_number(self) -> dict[tuple[int, ...], int]:
        """The instance that has these numbers."""
        if not self._numbered:
            self._numbered.update((numbers, at) for at, numbers in enumerate(self.numbers))
        return self._numbered

    @property
    def first_keys(self) -> tuple[str, ...]:
        """Of the first instance: the keys of its main role."""
        return self.groups[self.main][0] if self.groups else self.keys[self.main][:1]

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
            {role: tuple(keys[at] for at in kept) for role, keys in self.groups.items()},
            tuple(piece.restricted(kept) for piece in self.pieces),
            self.kind,
            turned=self.turned,
            made_of=self.made_of,
            places=tuple(self.places[at] for at in kept) if self.places else (),
            words=self.words,
            place=self.place,
            root=self.root or self,
            rows=tuple(self.rows[at] for at in kept) if self.rows else tuple(kept),
            holds=self.holds,
        )


def placed(units: Sequence[Unit]) -> list[Unit]:
    """The units, each with its place among those of its block whose names differ from its own in numbers alone.

    Example:
        >>> def unit(*names: str) -> Unit:
        ...     parts = tuple(Part(name, rank=(0, 1)) for name in names)
        ...     return Unit(parts, ((),), {"weight": ("k",)}, {"weight": ((3,),)}, 0, {}, False)
        >>> [one.words for one in placed([unit("conv", "3"), unit("conv", "0")])][0]
        {'conv': 0.75, '2/2': 1.0}
    """
    rows: dict[object, list[Unit]] = defaultdict(list)
    for unit in units:
        inner = unit.path[len(unit.chain) :]
        name = tuple(
            re.sub(r"\d+", "#", part.text) if not part.rank or re.search(r"\d", part.text) else "#" for part in inner
        )
        roles = unit.shapes.keys() - {"bias", "num_batches_tracked"}
        rows[unit.chain, len(unit.members), name, frozenset(roles), len(unit.shapes[unit.main][0])].append(unit)
    for row in rows.values():
        if len({tuple(_counted(unit)) for unit in row}) < len(row):
            continue
        for at, unit in enumerate(sorted(row, key=_counted)) if len(row) > 1 else ():
            unit.words, unit.place = _weighted(unit.path, ranked=False), (at, len(row))
            unit.words[f"{at + 1}/{len(row)}"] = 1.0
    return list(units)


def _counted(unit: Unit) -> list[int]:
    """The numbers in a unit's name; of those that are counted by letters, the place."""
    found: list[int] = []
    for part in unit.path[len(unit.chain) :]:
        numbers, letter = [int(number) for number in re.findall(r"\d+", part.text)], _LETTER.search(part.text)
        found += numbers or ([ord(letter[1]) if letter else part.rank[0]] if part.rank else [])
    return found


def _weighted(path: Sequence[Part], *, ranked: bool = True) -> dict[str, float]:
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
        if part.rank and ranked:
            place = f"{part.rank[0] + 1}/{part.rank[1]}"
            found[place] = max(found.get(place, 0.0), weight)
        if not all(map(is_structure, words)) or part.rank:
            weight *= 0.75
    return found
