"""Rules of fused, split, halved and stacked tensors: ``{x=query|key|value}`` where the parts differ in that alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ckptool.matching.captures import Side, Sides, apart, ends_of, indices_of, literal, parts_with, same_but_end
from ckptool.matching.edges import Match
from ckptool.matching.group_layouts import Turned, fused_sides, rest_of
from ckptool.matching.halves import HALVES
from ckptool.matching.modules import Unit
from ckptool.matching.result import Pair

_NAMES = ("o", "q", "r")


@dataclass(frozen=True, slots=True)
class _Role:
    """One role of a group: the patterns of its parts, that of the whole, and how one becomes the other.

    Attributes:
        parts: a pattern for each part; one alone if it has a choice that stands for them.
        whole: the pattern of the tensor that all of them are.
        layout: given the names of the axes behind the first.
        rest: these names.
        pairs: what it stands for.
    """

    parts: tuple[Side, ...]
    whole: Side
    layout: Callable[[str], str]
    rest: str
    pairs: tuple[Pair, ...]


def group_sides(match: Match, pairs: Sequence[Pair], layout: str, *, ranged: bool = False) -> list[Sides]:
    """The patterns of a group's pairs that have one layout.

    Args:
        match: two units, one of them made of others.
        pairs: what was made of it.
        layout: of all of them.
        ranged: captures stand for the unit's numbers and for no others, where the language can say so.
    """
    made, whole = (match.source, match.target) if match.source.kind else (match.target, match.source)
    stack = "stack" in made.kind
    indices = indices_of(made, whole, ranged=ranged)
    if indices is None:
        return [literal(pair) for pair in pairs]
    rows = []
    for role in made.shapes:
        keys = set(whole.keys.get(role, ()))
        mine = tuple(pair for pair in pairs if keys & {*pair.sources, *pair.targets})
        if mine:
            several = _parts(made, role, [*indices[0], "{e}"] if stack else indices[0])
            one = parts_with(whole, whole.keys[role][0], indices[1])
            rows.append(_role(made, role, several, one, mine, layout))
    return _with_roles(rows, is_source=made is match.source)


def _parts(made: Unit, role: str, indices: Sequence[str]) -> tuple[Side, ...]:
    pieces = made.pieces[1:] or made.pieces if "stack" in made.kind else made.pieces
    return tuple(parts_with(piece, piece.keys[role][0], indices) for piece in pieces if role in piece.keys)


def _role(made: Unit, role: str, several: tuple[Side, ...], one: Side, pairs: tuple[Pair, ...], layout: str) -> _Role:
    if made.kind == HALVES:
        return _Role(several, one, lambda _: layout, "", pairs)
    stack = "stack" in made.kind
    rank = len(made.shapes[role][0]) - stack
    turned = _turned(made, role, pairs[0])
    is_source = len(pairs[0].sources) > 1
    choice = None if stack else _choice(several, made, role)
    if choice:
        several, names, whole = (choice,), ["o"], "(x o)"
    else:
        names = list(_NAMES[: len(several)])
        whole = f"({' + '.join(names)})" if len(names) > 1 else "o"

    def text(rest: str) -> str:
        parts, all_ = fused_sides(names, whole, rest, turned)
        sides = (parts, f"e {all_}" if stack else all_)
        return " -> ".join(sides if is_source else sides[::-1])

    return _Role(several, one, text, rest_of(rank), pairs)


def _turned(made: Unit, role: str, pair: Pair) -> Turned:
    """Which of the parts and the whole have their inputs before their outputs, as the pair's layout says."""
    if role != made.main or "stack" in made.kind or "->" not in pair.layout:
        return False, False
    sides = pair.layout.split("->")
    parts, whole = sides if len(pair.sources) > 1 else sides[::-1]
    return parts.split(",")[0].split()[0] == "i", whole.split()[0] == "i"


def _choice(several: Sequence[Side], made: Unit, role: str) -> Side | None:
    """One pattern for all parts, if these are of one size and their names differ in one place."""
    if any(len({piece.shapes[role][at] for piece in made.pieces}) > 1 for at in range(len(made.members))):
        return None
    differ = [at for at, parts in enumerate(zip(*several, strict=False)) if len(set(parts)) > 1]
    if len(differ) != 1 or len({len(side) for side in several}) > 1:
        return None
    first, at = several[0], differ[0]
    texts = [side[at] for side in several]
    before, names, behind = apart(texts)
    if any("{" in text for text in texts) or len(set(texts)) < len(texts):
        return None
    return (*first[:at], f"{before}{{x={'|'.join(names)}}}{behind}", *first[at + 1 :])


def _with_roles(rows: Sequence[_Role], *, is_source: bool) -> list[Sides]:
    """One rule of several that differ in their roles only: ``{p=weight|bias}``."""
    if len(rows) > 1 and (one := _together(rows, is_source=is_source)):
        rows = [one]
    found = []
    for row in rows:
        left, right = (row.parts, (row.whole,)) if is_source else ((row.whole,), row.parts)
        found.append(Sides(left, right, row.layout(row.rest), row.pairs))
    return found


def _together(rows: Sequence[_Role], *, is_source: bool) -> _Role | None:
    first = rows[0]
    if len({(len(row.parts), row.layout("...")) for row in rows}) > 1:
        return None
    columns = [[row.parts[at] for row in rows] for at in range(len(first.parts))]
    whole = [row.whole for row in rows]
    if not all(map(same_but_end, [*columns, whole])):
        return None
    ends = [[side[-1] for side in column] for column in columns]
    if any(column != ends[0] for column in ends):
        return None
    last = [side[-1] for side in whole]
    here, there = ends_of(ends[0], last, whole=False) if is_source else ends_of(last, ends[0], whole=False)[::-1]
    parts = tuple((*side[:-1], here) for side in first.parts)
    rest = first.rest if len({row.rest for row in rows}) == 1 else "..."
    pairs = tuple(pair for row in rows for pair in row.pairs)
    return _Role(parts, (*first.whole[:-1], there), first.layout, rest, pairs)
