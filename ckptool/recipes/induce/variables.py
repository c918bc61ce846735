"""Numbers of keys that depend on each other, as one capture: linear functions of one number, or a choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

CHOICES = ("n", "q", "r", "k")
"""What choices are called."""
MOST_CHOICES = 6
"""Values of a choice that is read at a glance; more are several rules."""

_NAMES = ("l", "b", "t", "u", "v")
_STEEP = 3  # a factor that two numbers alone may show
_LONGEST = 60  # characters of a choice

Column = Sequence[str]


@dataclass(frozen=True, slots=True)
class Form:
    """How numbers are written that are a linear function of another: with zeros in front of fewer digits than `width`.

    Example:
        >>> Form(2, 1, 0).written("s"), Form(1, 0, 3).written("l"), Form(1, 0, 3).value("007")
        ('{2*s+1}', '{l:03}', 7)
    """

    factor: int
    offset: int
    width: int

    def value(self, text: str) -> int | None:
        """The other number; None if this one is none of that form."""
        if not text.isdigit() or str(int(text)).zfill(self.width) != text or (int(text) - self.offset) % self.factor:
            return None
        return (int(text) - self.offset) // self.factor

    def written(self, name: str) -> str:
        """It as a capture."""
        text = f"{self.factor}*{name}" if self.factor != 1 else name
        text += f"{self.offset:+d}" if self.offset else ""
        return f"{{{text}:0{self.width}}}" if self.width else f"{{{text}}}"


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
        forms: of a linear one, by place in the source.
        bounds: of a linear one with a range.
    """

    name: str
    choice: str
    left: Mapping[int, str]
    right: Mapping[int, str]
    values: Sequence[Mapping[int, str]]
    others: Sequence[Mapping[int, str]]
    is_open: bool
    forms: Mapping[int, Form] = field(default_factory=dict)
    bounds: tuple[int, int] | None = None

    def catches(self, numbers: Mapping[int, str]) -> bool:
        """It stands for these numbers of the source, by their place; those of other patterns are not asked for."""
        if not self.forms:
            return any(all(numbers.get(at, text) == text for at, text in row.items()) for row in self.values)
        found = set()
        for at, form in self.forms.items():
            if at in numbers:
                value = form.value(numbers[at])
                if value is None:
                    return False
                found.add(value)
        if len(found) != 1:
            return not found
        (only,) = found
        return only >= 0 if self.bounds is None else self.bounds[0] <= only <= self.bounds[1]

    def narrowed(self) -> Variable | None:
        """It for its own numbers alone: a range, or a choice; None if that would be too long."""
        if self.is_open:
            at = next(iter(self.forms))
            values = sorted({value for row in self.values if (value := self.forms[at].value(row[at])) is not None})
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
            {at: f"{{{self.choice}={'|'.join(row[at] for row in rows)}}}" for at in rows[0]}
            for rows in (self.values, self.others)
        )
        columns = [[row[at] for row in rows] for rows in (self.values, self.others) for at in rows[0]]
        if any(len(set(column)) < len(column) for column in columns):
            return None
        texts = [*left.values(), *right.values()]
        if len(columns[0]) > MOST_CHOICES or max(map(len, texts)) > _LONGEST:
            return None
        return replace(self, left=left, right=right, is_open=False, forms={})


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
        texts = [form.written(name) for form in forms]
        left = dict(zip(ours, texts, strict=False))
        right = dict(zip(theirs, texts[len(ours) :], strict=True))
        return Variable(name, choice, left, right, values, others, True, dict(zip(ours, forms, strict=False)))
    return Variable(name, choice, {}, {}, values, others, False)


def _forms(columns: Sequence[Column]) -> list[Form] | None:
    """All columns as functions of one number, of which one column is that number itself."""
    widths = [_width(column) for column in columns]
    if any(width is None for width in widths):
        return None
    numbers = [[int(text) for text in column] for column in columns]
    for base in sorted(numbers, key=lambda column: max(column) - min(column)):
        found = [_form(base, column, width or 0) for column, width in zip(numbers, widths, strict=True)]
        if all(found):
            return [form for form in found if form]
    return None


def _width(column: Column) -> int | None:
    """How many digits numbers have at least, 0 where none has a zero in front; None if they are no such numbers."""
    if not all(text.isdigit() and len(text) < 10 for text in column):
        return None
    width = min(map(len, column)) if any(len(text) > 1 and text[0] == "0" for text in column) else 0
    return width if all(str(int(text)).zfill(width) == text for text in column) else None


def _form(base: Sequence[int], column: Sequence[int], width: int) -> Form | None:
    pairs = sorted(set(zip(base, column, strict=True)))
    (x, y), (z, w) = pairs[0], pairs[-1]
    if z == x or (w - y) % (z - x) or (w - y) // (z - x) < 1:
        return None
    factor = (w - y) // (z - x)
    offset = y - factor * x
    if len(pairs) == 2 and (factor > _STEEP or (factor > 1 and offset < 0)):
        return None  # through two points goes every line
    return Form(factor, offset, width) if all(q == factor * p + offset for p, q in pairs) else None
