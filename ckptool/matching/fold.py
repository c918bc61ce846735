"""Rules that differ in numbers only as one with captures: ``features.{l=4..6}.{b}.fc1 -> blocks.{l-1}.{b}.reduce``.

Every varying number of the target is found as a linear function of one of the source, or else as a choice. A rule that
would catch other tensors of the source gets ranges; where that does not help, or numbers depend on several, there are
several rules. What comes out stands for exactly the tensors that went in.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ckptool.matching.drafts import Draft, draft_of
from ckptool.matching.variables import Variable, variables_of

_RUN = re.compile(r"\d+(?![^{}]*\})")
_HOLE = re.compile(r"\{p(?:\*|=([^}]*))\}")
_MOST_VALUES = 40  # of a number by which rows are told apart
_FEW = 3  # rules with captures are better than one with a list of all
_LARGEST = 3000  # rows that are looked at together

Numbers = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A draft as its numbers."""

    ours: Numbers
    theirs: Numbers
    draft: Draft


@dataclass(slots=True)
class _Group:
    """Drafts that differ in numbers only, with what stands between these.

    Attributes:
        left: the texts between the source's numbers.
        right: between the target's.
        layout: of all.
        there: the numbers of all tensors that the source has of this form, with their keys.
        rows: the drafts.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    layout: str
    there: Sequence[tuple[Numbers, str]]
    rows: list[Row] = field(default_factory=list)


def folded(drafts: Iterable[Draft], source: Iterable[str]) -> list[Draft]:
    """Drafts that differ in numbers as few; those of several patterns on a side as they are.

    Args:
        drafts: of one module each, with numbers and no captures of them.
        source: all keys of the source.
    """
    keys: dict[str, list[tuple[Numbers, str]]] = defaultdict(list)
    for key in source:
        keys[_RUN.sub("#", key)].append((tuple(_RUN.findall(key)), key))
    found: list[Draft] = []
    groups: dict[tuple[object, ...], _Group] = {}
    there: dict[str, list[tuple[Numbers, str]]] = {}
    for draft in drafts:
        if not draft.is_single:
            found.append(draft)
            continue
        ours, theirs = draft.sides
        form = _RUN.sub("#", ours)
        if form not in there:
            there[form] = _of_form(form, keys)
        left, right = tuple(_RUN.split(ours)), tuple(_RUN.split(theirs))
        group = groups.setdefault((left, right, draft.layout), _Group(left, right, draft.layout, there[form]))
        group.rows.append(Row(tuple(_RUN.findall(ours)), tuple(_RUN.findall(theirs)), draft))
    for group in sorted(groups.values(), key=lambda group: -len(group.rows)):
        found += _fold(group, group.rows)
    return found


def _of_form(form: str, keys: Mapping[str, list[tuple[Numbers, str]]]) -> list[tuple[Numbers, str]]:
    """The keys that a pattern could mean, were all its numbers captures."""
    wanted, at = [], 0
    for hole in _HOLE.finditer(form):
        choice = "|".join(re.escape(_RUN.sub("#", text)) for text in (hole[1] or "").split("|"))
        wanted += [re.escape(form[at : hole.start()]), f"({choice})" if hole[1] else "[^.]+"]
        at = hole.end()
    regex = re.compile("".join(wanted) + re.escape(form[at:]))
    return [row for name, rows in keys.items() if regex.fullmatch(name) for row in rows]


def _fold(group: _Group, rows: Sequence[Row], depth: int = 0) -> list[Draft]:
    """As few rules as possible for some rows of a group."""
    if one := _as_one(group, rows):
        return [one]
    if len(rows) > _LARGEST or depth > 4:
        return [row.draft for row in rows]
    best: list[Draft] | None = None
    fewest: list[list[Row]] = []
    for column in _columns(rows):
        parts: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            parts[(*row.ours, *row.theirs)[column]].append(row)
        if len(parts) == 1 or len(parts) > _MOST_VALUES:
            continue
        if not fewest or len(parts) < len(fewest):
            fewest = [*parts.values()]
        if best is None or len(parts) < len(best):
            several = _each(group, parts.values())
            best = several or best
        for part in parts.values() if len(parts) > 2 and (best is None or len(best) > 2) else ():
            inside = {id(row) for row in part}
            rest = _as_one(group, [row for row in rows if id(row) not in inside])
            if rest:
                found = [rest, *_fold(group, part, depth + 1)]
                best = found if best is None or len(found) < len(best) else best
    if best is None or len(best) > _FEW:
        for joined in _joined(group, rows):
            if one := _as_one(joined, joined.rows):
                return [one]
    if best is not None:
        return best
    return [draft for part in fewest for draft in _fold(group, part, depth + 1)]


def _each(group: _Group, parts: Iterable[list[Row]]) -> list[Draft] | None:
    found = []
    for part in parts:
        one = _as_one(group, part)
        if one is None:
            return None
        found.append(one)
    return found


def _columns(rows: Sequence[Row]) -> list[int]:
    """The numbers that vary."""
    columns = list(zip(*((*row.ours, *row.theirs) for row in rows), strict=True))
    return [at for at, column in enumerate(columns) if len(set(column)) > 1]


def _joined(group: _Group, rows: Sequence[Row]) -> Iterable[_Group]:
    """The same with two numbers and what stands between them as one: ``1.resnets.0``."""
    vary = _columns(rows)
    width = len(group.left) - 1
    for at in vary:
        if at + 1 not in vary or at + 1 == width:
            continue
        if at < width:
            between, left = group.left[at + 1], (*group.left[: at + 1], *group.left[at + 2 :])
            there = [(_merged(numbers, at, between), key) for numbers, key in group.there]
            done = [replace(row, ours=_merged(row.ours, at, between)) for row in rows]
            yield _Group(left, group.right, group.layout, there, done)
        else:
            to = at - width
            between, right = group.right[to + 1], (*group.right[: to + 1], *group.right[to + 2 :])
            done = [replace(row, theirs=_merged(row.theirs, to, between)) for row in rows]
            yield _Group(group.left, right, group.layout, group.there, done)


def _merged(numbers: Numbers, at: int, between: str) -> Numbers:
    return (*numbers[:at], f"{numbers[at]}{between}{numbers[at + 1]}", *numbers[at + 2 :])


# ---------------------------------------------------------------------------------------------- one rule


def _as_one(group: _Group, rows: Sequence[Row]) -> Draft | None:
    """One rule that stands for all rows and for nothing else in the source."""
    if len(rows) == 1:
        return rows[0].draft
    ours, theirs = (
        list(zip(*(row.ours for row in rows), strict=True)),
        list(zip(*(row.theirs for row in rows), strict=True)),
    )
    variables = variables_of(ours, theirs)
    if variables is None:
        return None
    fixed = {at: column[0] for at, column in enumerate(ours) if len(set(column)) == 1}
    near = [row for row in group.there if all(row[0][at] == text for at, text in fixed.items())]
    wanted = {key for row in rows for pair in row.draft.pairs for key in pair.sources}
    for tried in _ways(variables):
        if any(one is None for one in tried):
            continue
        kept = [one for one in tried if one is not None]
        if {key for numbers, key in near if all(one.catches(numbers) for one in kept)} == wanted:
            left, right = [column[0] for column in ours], [column[0] for column in theirs]
            for one in kept:
                for at, text in one.left.items():
                    left[at] = text
                for at, text in one.right.items():
                    right[at] = text
            sides = _text(group.left, left), _text(group.right, right)
            return draft_of(*sides, group.layout, [row.draft for row in rows])
    return None


def _ways(variables: Sequence[Variable]) -> Iterable[list[Variable | None]]:
    """The widest captures first; then one of them narrowed, then all."""
    yield [one if one.is_open else one.narrowed() for one in variables]
    for at, one in enumerate(variables):
        if one.is_open and len(variables) > 1:
            yield [other.narrowed() if at == to or not other.is_open else other for to, other in enumerate(variables)]
    yield [one.narrowed() for one in variables]


def _text(between: Sequence[str], holes: Sequence[str]) -> str:
    """Texts and what stands between them."""
    return between[0] + "".join(hole + text for hole, text in zip(holes, between[1:], strict=True))
