"""Numbers of keys that depend on each other, as one capture: linear functions of one number, or a choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ckptool.matching.drafts import CHOICES

_NAMES = ("l", "b", "t", "u", "v")
_STEEP = 3  # a factor that two numbers alone may show
_LONGEST = 250  # characters of a choice

Column = Sequence[str]


@dataclass(frozen=True, slots=True)
class Variable:
    """One capture: where it stands, and which numbers it stands for.

    Attributes:
        name: of the capture.
        choice: of the choice, where numbers have to be listed.
        left: what stands for the source's numbers, by their place.
        right: for the target's.
        values: for each value, the source's numbers, by their place.
        others: the same for the target's.
        is_open: it is linear, and stands for all numbers.
        forms: of a linear one, (factor, offset) by place in the source.
        bounds: of a linear one with a range.
    """

    name: str
    choice: str
    left: Mapping[int, str]
    right: Mapping[int, str]
    values: Sequence[Mapping[int, str]]
    others: Sequence[Mapping[int, str]]
    is_open: bool
    forms: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    bounds: tuple[int, int] | None = None

    def catches(self, numbers: Sequence[str]) -> bool:
        """It stands for these numbers of a tensor of the source."""
        if not self.forms:
            return any(all(numbers[at] == text for at, text in row.items()) for row in self.values)
        found = set()
        for at, (factor, offset) in self.forms.items():
            text = numbers[at]
            if not text.isdigit() or str(int(text)) != text or (int(text) - offset) % factor:
                return False
            found.add((int(text) - offset) // factor)
        if len(found) != 1:
            return False
        value = found.pop()
        return value >= 0 if self.bounds is None else self.bounds[0] <= value <= self.bounds[1]

    def narrowed(self) -> Variable | None:
        """It for its own numbers alone: a range, or a choice; None if that would be too long."""
        if self.is_open:
            at = next(iter(self.forms))
            factor, offset = self.forms[at]
            values = sorted({(int(row[at]) - offset) // factor for row in self.values})
            if values == list(range(values[0], values[-1] + 1)):
                plain, ranged = f"{{{self.name}}}", f"{{{self.name}={values[0]}..{values[-1]}}}"
                left, right = dict(self.left), dict(self.right)
                side = left if plain in left.values() else right
                place = next((place for place, text in side.items() if text == plain), None)
                if place is None:
                    return None
                side[place] = ranged
                return replace(self, left=left, right=right, is_open=False, bounds=(values[0], values[-1]))
        left, right = (
            {at: _listed(self.choice, [row[at] for row in rows]) for at in rows[0]}
            for rows in (self.values, self.others)
        )
        columns = [[row[at] for row in rows] for rows in (self.values, self.others) for at in rows[0]]
        if any(len(set(column)) < len(column) for column in columns):
            return None
        if max(len(text) for text in (*left.values(), *right.values())) > _LONGEST:
            return None
        return replace(self, left=left, right=right, is_open=False, forms={})


def _listed(name: str, texts: Sequence[str]) -> str:
    return f"{{{name}={'|'.join(texts)}}}"


def variables_of(ours: Sequence[Column], theirs: Sequence[Column]) -> list[Variable] | None:
    """The captures that say every varying number; None if some number depends on none, or on several.

    Args:
        ours: the numbers in the source, by their place.
        theirs: in the target.

    Example:
        >>> [(one.left, one.right) for one in variables_of([("4", "5")], [("3", "4")])]
        [({0: '{l}'}, {0: '{l-1}'})]
    """
    free = [at for at, column in enumerate(ours) if len(set(column)) > 1]
    needed = [at for at, column in enumerate(theirs) if len(set(column)) > 1]
    groups: dict[int, tuple[list[int], list[int]]] = {}
    for to in needed:
        at = _partner(theirs[to], ours, [one for one in free if one not in groups]) if free else None
        at = _partner(theirs[to], ours, free) if at is None else at
        if at is None:
            return None
        groups.setdefault(at, ([at], []))[1].append(to)
    for at in free:
        if at not in groups:
            partner = _partner(ours[at], ours, [*groups])
            if partner is None:
                return None
            groups[partner][0].append(at)
    if len(groups) > len(_NAMES):
        return None
    found: list[Variable] = []
    choices = iter(CHOICES)
    for name, (_, (left, right)) in zip(_NAMES, sorted(groups.items()), strict=False):
        choice = next(choices, "")
        one = _variable(name, choice, {at: ours[at] for at in left}, {to: theirs[to] for to in right})
        if one is None:
            return None
        found.append(one)
    return found


def _partner(column: Column, columns: Sequence[Column], among: Sequence[int]) -> int | None:
    """Which number says another: the one of which it is a linear function, else the first that tells all its values."""
    for at in among:
        if _forms([columns[at], column]):
            return at
    for at in among:
        pairs = set(zip(columns[at], column, strict=True))
        if len(pairs) == len(set(column)) == len(set(columns[at])):
            return at
    return None


def _variable(name: str, choice: str, ours: Mapping[int, Column], theirs: Mapping[int, Column]) -> Variable | None:
    first = next(iter(ours.values()))
    order = sorted(range(len(first)), key=lambda at: (len(first[at]), first[at]))
    seen: dict[str, int] = {}
    for at in order:
        seen.setdefault(first[at], at)
    values = [{place: column[at] for place, column in ours.items()} for at in seen.values()]
    others = [{place: column[at] for place, column in theirs.items()} for at in seen.values()]
    if forms := _forms([*ours.values(), *theirs.values()]):
        texts = [_written(name, factor, offset) for factor, offset in forms]
        left = dict(zip(ours, texts, strict=False))
        right = dict(zip(theirs, texts[len(ours) :], strict=True))
        return Variable(name, choice, left, right, values, others, True, dict(zip(ours, forms, strict=False)))
    return Variable(name, choice, {}, {}, values, others, False)


def _forms(columns: Sequence[Column]) -> list[tuple[int, int]] | None:
    """All columns as (factor, offset) of one number, of which one column is that number itself."""
    if not all(text.isdigit() and str(int(text)) == text for column in columns for text in column):
        return None
    numbers = [[int(text) for text in column] for column in columns]
    for base in sorted(numbers, key=lambda column: max(column) - min(column)):
        found = [_form(base, column) for column in numbers]
        if all(found):
            return [form for form in found if form]
    return None


def _form(base: Sequence[int], column: Sequence[int]) -> tuple[int, int] | None:
    pairs = sorted(set(zip(base, column, strict=True)))
    (x, y), (z, w) = pairs[0], pairs[-1]
    if z == x or (w - y) % (z - x) or (w - y) // (z - x) < 1:
        return None
    factor = (w - y) // (z - x)
    offset = y - factor * x
    if len(pairs) == 2 and (factor > _STEEP or (factor > 1 and offset < 0)):
        return None  # through two points goes every line
    return (factor, offset) if all(q == factor * p + offset for p, q in pairs) else None


def _written(name: str, factor: int, offset: int) -> str:
    text = f"{factor}*{name}" if factor != 1 else name
    return f"{{{text}{offset:+d}}}" if offset else f"{{{text}}}"
