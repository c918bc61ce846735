"""The signatures of architectures: the rows of ``architectures.toml``, which says what each field means."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

Shape = tuple[int, ...]
Numbers = Mapping[str, int]
ShapeOf = Callable[[str], Shape | None]

_TOKEN = re.compile(r"(\d*)([a-z_]?)")
_SLOT = re.compile(r"\{([01])\}")


@dataclass(frozen=True, slots=True)
class Key:
    """A key, under one of several spellings, and the shape that it has.

    Attributes:
        names: its spellings.
        dims: for each of them, for each axis a factor and a letter ("" for none, "_" for any number); None for any
            shape.
    """

    names: tuple[str, ...]
    dims: tuple[tuple[tuple[int, str], ...] | None, ...]

    @classmethod
    def parse(cls, text: str) -> Key:
        """``conv1.weight [w,3,_,_]``; spellings that share a shape name it once.

        Example:
            >>> Key.parse("a.weight or b.weight [3w,_]")
            Key(names=('a.weight', 'b.weight'), dims=(((3, 'w'), (1, '_')), ((3, 'w'), (1, '_'))))
        """
        names: list[str] = []
        dims: list[tuple[tuple[int, str], ...] | None] = []
        for each in text.removesuffix("]").split("] or "):
            spellings, _, shape = each.partition(" [")
            names += spellings.split(" or ")
            dims += [_dims(shape)] * (len(names) - len(dims))
        return cls(tuple(names), tuple(dims))

    def meets(self, prefix: str, shape_of: ShapeOf, numbers: dict[str, int]) -> bool:
        """True if the key is there with its shape; takes its numbers in."""
        for name, dims in zip(self.names, self.dims, strict=True):
            shape = shape_of(prefix + name)
            if shape is not None and (dims is None or _fits(shape, dims, numbers)):
                return True
        return False


def _dims(text: str) -> tuple[tuple[int, str], ...] | None:
    if text == "*":
        return None
    parsed = (_TOKEN.fullmatch(dim) for dim in text.split(","))
    return tuple((int(found[1] or 1), found[2]) for found in parsed if found)


def _fits(shape: Shape, dims: Sequence[tuple[int, str]], numbers: dict[str, int]) -> bool:
    if len(shape) != len(dims):
        return False
    for size, (factor, letter) in zip(shape, dims, strict=True):
        if letter == "_":
            continue
        if size % factor or (not letter and size != factor):
            return False
        if letter and numbers.setdefault(letter, size // factor) != size // factor:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Trait:
    """What differs from the plain model.

    Attributes:
        text: it in words; {where} is the modules that have it.
        key: a key that says it, with stars for names between dots.
        scope: the keys that it concerns; two stars stand for any rest.
        absent: it is the absence of the key that says it.
    """

    text: str
    key: re.Pattern[str]
    scope: str
    absent: bool


def pattern_of(text: str) -> re.Pattern[str]:
    """A key with stars as an expression: ``*`` for one name, with a group; ``**`` for any rest."""
    parts = (re.escape(part) for part in re.split(r"(\*\*|\*)", text))
    return re.compile("".join({r"\*": "([^.]+)", r"\*\*": ".*"}.get(part, part) for part in parts))


@dataclass(frozen=True, slots=True)
class Signature:
    """One row: what recognises a model, and how it is called."""

    has: tuple[Key, ...]
    row: Mapping[str, Any]
    traits: tuple[Trait, ...]

    @property
    def names(self) -> str:
        """Whose names they are; "" for a head."""
        return str(self.row.get("names", ""))

    @property
    def owned(self) -> Sequence[str]:
        """Prefixes below it whose content is a part of it, and no model of its own."""
        owned: Sequence[str] = self.row.get("owns", ())
        return owned

    def numbers(self, prefix: str, shape_of: ShapeOf) -> dict[str, int] | None:
        """The numbers of what is under a prefix; None if it is something else."""
        numbers: dict[str, int] = {}
        if not all(key.meets(prefix, shape_of, numbers) for key in self.has):
            return None
        if any(shape_of(prefix + key) is not None for key in self.row.get("lacks", ())):
            return None
        for name, text in self.row.get("counts", {}).items():
            numbers[name] = max(_count(prefix + each, shape_of) for each in text.split(" or "))
        for name, key in self.row.get("flags", {}).items():
            if isinstance(key, str):
                numbers[name] = int(shape_of(prefix + key) is not None)
        for name, text in self.row.get("ratios", {}).items():
            first, second = (numbers[letter] for letter in text.split("/"))
            numbers[name] = first // second if second and first % second == 0 else 0
        return numbers

    def name(self, prefix: str, shape_of: ShapeOf, numbers: Numbers) -> tuple[str, tuple[str, ...]] | None:
        """What a model of these numbers is called, and the blocks that it lacks; None if it is none that is known."""
        sizes: Mapping[str, str] = self.row.get("sizes", {})
        names = self.row["size"].split()
        indices: Mapping[str, str] = self.row.get("indices", {})
        values = [
            _indices(prefix + indices[name], shape_of) if name in indices else str(numbers.get(name, 0))
            for name in names
        ]
        found = sizes.get(" ".join(values))
        lacking: Sequence[str] = ()
        if found is None:
            found, lacking = self._shortened(names, values, sizes)
        if found is None and "other" in self.row:
            found = self.row["other"].format_map(numbers)
        if found is None:
            return None
        size = self.row.get("size_text", "").format_map(numbers)
        return (f"{found}, {size}" if size else found), tuple(lacking)

    def _shortened(
        self, names: Sequence[str], values: Sequence[str], sizes: Mapping[str, str]
    ) -> tuple[str | None, Sequence[str]]:
        """The only size that has the same blocks but for lists that are not there at all, and these lists."""
        counted = self.row.get("counts", {})
        empty = [at for at, name in enumerate(names) if name in counted and values[at] == "0"]
        if not empty:
            return None, ()
        found = []
        for text, name in sizes.items():
            wanted = text.split()
            if all(wanted[at] == values[at] for at in range(len(names)) if at not in empty):
                found.append(name)
        return (found[0], [names[at] for at in empty]) if len(found) == 1 else (None, ())


def _count(text: str, shape_of: ShapeOf) -> int:
    """How many numbers in a row a key has from its first on."""
    slot = _SLOT.search(text)
    if slot is None:
        return int(shape_of(text) is not None)
    first = number = int(slot[1])
    while shape_of(f"{text[: slot.start()]}{number}{text[slot.end() :]}") is not None:
        number += 1
    return number - first


def _indices(text: str, shape_of: ShapeOf, most: int = 64) -> str:
    """The numbers under which a key is a convolution."""
    shapes = ((number, shape_of(text.replace("{0}", str(number)))) for number in range(most))
    return " ".join(str(number) for number, shape in shapes if shape is not None and len(shape) == 4)


def candidates(kind: str, parts: set[str]) -> Iterator[Signature]:
    """The rows of a kind whose first key has only names that are there; the others are not even parsed."""
    for number, (which, anchors) in enumerate(_rows()):
        if which == kind and any(parts.issuperset(anchor) for anchor in anchors):
            yield _parsed(number)


@cache
def _texts() -> tuple[str, ...]:
    from importlib.resources import files

    text = (files("ckptool.facts") / "architectures.toml").read_text(encoding="utf-8")
    return tuple(re.split(r"^(?=\[\[)", text, flags=re.MULTILINE)[1:])


@cache
def _rows() -> tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]:
    """The kind of each row, and the names between the dots of its first key in all spellings."""
    rows = []
    for text in _texts():
        found = re.search(r'^has = \["([^"\[]+) \[', text, re.MULTILINE)
        assert found is not None, text
        rows.append((text[2 : text.index("]")], tuple(tuple(key.split(".")) for key in found[1].split(" or "))))
    return tuple(rows)


@cache
def _parsed(number: int) -> Signature:
    import tomllib  # most files are recognised by a row or two

    (rows,) = tomllib.loads(_texts()[number]).values()
    (row,) = rows
    traits = tuple(
        Trait(each["text"], pattern_of(each["key"]), each["scope"], each.get("without", False))
        for each in row.get("traits", ())
    )
    return Signature(tuple(map(Key.parse, row["has"])), row, traits)
