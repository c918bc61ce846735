"""Lines that differ in numbers only as one with captures: ``features.{l=4..6}.{b}.fc1 -> blocks.{l-1}.{b}.reduce``.

Every varying number of the right is found as a linear function of one of the left, or else as a choice. A line that
would catch others gets ranges; where that does not help, or numbers depend on several, there are several lines. What
comes out stands for exactly what went in.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ckptool.recipes.induce.lines import Line
from ckptool.recipes.induce.variables import CHOICES, Variable, variables_of

_RUN = re.compile(r"[0-9]+(?![^{}]*\})")
_HOLE = re.compile(r"\{[^{}]*\}|#")
_CHOICE = re.compile(rf"\{{([{''.join(CHOICES)}])=")
_MOST_VALUES = 40  # of a number by which rows are told apart
_LARGEST = 3000  # rows that are told apart by one of their numbers
_DEEPEST = 4

Numbers = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    """A line as its numbers, those of all patterns of a side in a row."""

    ours: Numbers
    theirs: Numbers
    line: Line


@dataclass(slots=True)
class _Group:
    """Lines that differ in numbers only, with what stands between these.

    Attributes:
        left: for each pattern of the left the texts between its numbers.
        right: the same for the right.
        layout: of all.
        there: for each pattern of the left, what it could mean, were all its numbers captures: numbers, then text.
        narrow: every capture says which numbers it stands for.
        rows: the lines.
    """

    left: tuple[tuple[str, ...], ...]
    right: tuple[tuple[str, ...], ...]
    layout: str
    there: Sequence[Sequence[tuple[Numbers, str]]]
    narrow: bool
    rows: list[_Row] = field(default_factory=list)


class Texts:
    """What patterns may mean: keys, or parts of them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.by_form: dict[str, list[str]] = defaultdict(list)
        for text in texts:
            self.by_form[re.sub("[0-9]+", "#", text)].append(text)
        self.found: dict[str, list[tuple[Numbers, str]]] = {}
        self.whole: dict[str, re.Pattern[str]] = {}

    def of(self, pattern: str) -> list[tuple[Numbers, str]]:
        """What a pattern would mean, were all its numbers captures: these numbers, and the text."""
        form = _RUN.sub("#", pattern)
        if form not in self.found:
            whole = self._whole(form)
            rows = [self.by_form.get(form, [])]
            if "{" in form:
                forms = re.compile(_regex(form, "#").replace("[0-9]+", "#"))
                rows = [row for text, row in self.by_form.items() if forms.fullmatch(text)]
            matches = (whole.fullmatch(text) for row in rows for text in row)
            self.found[form] = [(match.groups(), match[0]) for match in matches if match]
        return self.found[form]

    def meant(self, pattern: str, among: Iterable[str]) -> set[str]:
        """Those of some texts that a pattern means as it is written."""
        if "{" not in pattern:
            return {pattern}
        whole = self._whole(_RUN.sub("#", pattern))
        numbers = tuple(_RUN.findall(pattern))
        return {text for text in among if (match := whole.fullmatch(text)) and match.groups() == numbers}

    def _whole(self, form: str) -> re.Pattern[str]:
        if form not in self.whole:
            self.whole[form] = re.compile(_regex(form, "([0-9]+)"))
        return self.whole[form]


def _regex(form: str, number: str) -> str:
    """A pattern whose numbers are ``#`` as a regular expression."""
    out, at = [], 0
    for hole in _HOLE.finditer(form):
        name, _, choices = hole[0][1:-1].partition("=")
        if hole[0] == "#":
            text = number
        elif choices:
            forms = (re.sub("[0-9]+", "#", one) if number == "#" else one for one in choices.split("|"))
            text = f"(?:{'|'.join(map(re.escape, forms))})"
        else:
            text = "[^.]+" if name.endswith("*") else "[0-9]+"
        out += [re.escape(form[at : hole.start()]), text]
        at = hole.end()
    return "".join(out) + re.escape(form[at:])


def folded(lines: Iterable[Line], texts: Texts, *, narrow: bool = False) -> list[Line]:
    """Lines that differ in numbers as few.

    Args:
        lines: with numbers and no captures of them.
        texts: all that patterns of the left may mean.
        narrow: every capture says which numbers it stands for.

    Example:
        >>> lines = [Line((f"f.{n}.w",), (f"g.{n - 1}.w",), "", ()) for n in (4, 5, 6)]
        >>> [line.text for line in folded(lines, Texts(["f.4.w", "f.5.w", "f.6.w"]))]
        ['f.{l}.w -> g.{l-1}.w']
    """
    groups: dict[object, _Group] = {}
    for line in lines:
        left, right = (tuple(tuple(_RUN.split(one)) for one in side) for side in (line.left, line.right))
        group = groups.get((left, right, line.layout))
        if group is None:
            there = [texts.of(pattern) for pattern in line.left]
            group = groups[left, right, line.layout] = _Group(left, right, line.layout, there, narrow)
        ours, theirs = (tuple(n for one in side for n in _RUN.findall(one)) for side in (line.left, line.right))
        group.rows.append(_Row(ours, theirs, line))
    return [_renamed(line) for group in groups.values() for line in _fold(group, texts, group.rows)]


def _renamed(line: Line) -> Line:
    """The line with choices that are called n and q in the order in which they stand."""
    names = dict(zip(dict.fromkeys(_CHOICE.findall(line.text)), CHOICES, strict=False))
    if all(old == new for old, new in names.items()):
        return line

    def side(patterns: Sequence[str]) -> tuple[str, ...]:
        return tuple(_CHOICE.sub(lambda found: f"{{{names[found[1]]}=", pattern) for pattern in patterns)

    return replace(line, left=side(line.left), right=side(line.right))


def _fold(group: _Group, texts: Texts, rows: Sequence[_Row], depth: int = 0) -> list[Line]:
    """As few lines as possible for some rows of a group."""
    if one := _as_one(group, texts, rows):
        return [one]
    if len(rows) > _LARGEST or depth > _DEEPEST:
        return [row.line for row in rows]
    best: list[Line] | None = None
    fewest: list[list[_Row]] = []
    for column in _columns(rows):
        parts: dict[str, list[_Row]] = defaultdict(list)
        for row in rows:
            parts[(*row.ours, *row.theirs)[column]].append(row)
        if len(parts) > _MOST_VALUES:
            continue
        if not fewest or len(parts) < len(fewest):
            fewest = [*parts.values()]
        if best is None or len(parts) < len(best):
            each = [_as_one(group, texts, part) for part in parts.values()]
            best = [one for one in each if one] if all(each) else best
        for part in parts.values() if len(parts) > 2 and (best is None or len(best) > 2) else ():
            inside = set(map(id, part))
            if rest := _as_one(group, texts, [row for row in rows if id(row) not in inside]):
                found = [rest, *_fold(group, texts, part, depth + 1)]
                best = found if best is None or len(found) < len(best) else best
    if best is not None:
        return best
    if not fewest:
        return [row.line for row in rows]
    return [line for part in fewest for line in _fold(group, texts, part, depth + 1)]


def _columns(rows: Sequence[_Row]) -> list[int]:
    """The numbers that vary."""
    columns = list(zip(*((*row.ours, *row.theirs) for row in rows), strict=True))
    return [at for at, column in enumerate(columns) if len(set(column)) > 1]


def _as_one(group: _Group, texts: Texts, rows: Sequence[_Row]) -> Line | None:
    """One line that stands for all rows and for nothing else."""
    if len(rows) == 1:
        return rows[0].line
    ours = list(zip(*(row.ours for row in rows), strict=True))
    theirs = list(zip(*(row.theirs for row in rows), strict=True))
    variables = variables_of(ours, theirs)
    if variables is None:
        return None
    fixed = {at: column[0] for at, column in enumerate(ours) if len(set(column)) == 1}
    for kept in _ways(variables, narrow=group.narrow):
        if all(_is_exact(side, texts, fixed, kept) for side in _sides(group, rows)):
            holes = [column[0] for column in ours], [column[0] for column in theirs]
            for one in kept:
                for row, said in zip(holes, (one.left, one.right), strict=True):
                    for at, text in said.items():
                        row[at] = text
            left, right = _text(group.left, holes[0]), _text(group.right, holes[1])
            first = rows[0].line
            return Line(left, right, group.layout, tuple(p for row in rows for p in row.line.said), first.general)
    return None


@dataclass(frozen=True, slots=True)
class _Side:
    """One pattern of the left: the place of its first number among all, what it might mean, and what it has to."""

    first: int
    there: Sequence[tuple[Numbers, str]]
    rows: Sequence[tuple[str, Line]]


def _sides(group: _Group, rows: Sequence[_Row]) -> Iterator[_Side]:
    first = 0
    for at, between in enumerate(group.left):
        yield _Side(first, group.there[at], [(row.line.left[at], row.line) for row in rows])
        first += len(between) - 1


def _is_exact(side: _Side, texts: Texts, fixed: Mapping[int, str], variables: Sequence[Variable]) -> bool:
    """With these captures a pattern means what its rows mean, and nothing else."""
    caught = set()
    for numbers, text in side.there:
        named = dict(enumerate(numbers, side.first))
        if all(named[at] == one for at, one in fixed.items() if at in named) and all(
            one.catches(named) for one in variables
        ):
            caught.add(text)
    wanted = set()
    for pattern, line in side.rows:
        wanted |= texts.meant(pattern, (key for pair in line.said for key in pair.sources))
    return caught == wanted


def _ways(variables: Sequence[Variable], *, narrow: bool) -> Iterator[list[Variable]]:
    """The widest captures first; then one of them narrowed, then all."""
    ways: list[list[Variable | None]] = []
    if not narrow:
        ways.append([one if one.is_open else one.narrowed() for one in variables])
    if len(variables) > 1 and not narrow:
        for at, one in enumerate(variables):
            if one.is_open:
                ways.append(
                    [two.narrowed() if at == to or not two.is_open else two for to, two in enumerate(variables)]
                )
    ways.append([one.narrowed() for one in variables])
    for way in ways:
        kept = [one for one in way if one is not None]
        if len(kept) == len(way):
            yield kept


def _text(between: Sequence[Sequence[str]], holes: Sequence[str]) -> tuple[str, ...]:
    """Texts and what stands between them, pattern by pattern."""
    found, at = [], 0
    for texts in between:
        mine = holes[at : at + len(texts) - 1]
        found.append(texts[0] + "".join(hole + text for hole, text in zip(mine, texts[1:], strict=True)))
        at += len(texts) - 1
    return tuple(found)
