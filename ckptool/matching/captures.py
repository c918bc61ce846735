"""A unit's keys as patterns: families become captures with linear indices, roles a capture or a choice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from ckptool.matching.assign import Match
from ckptool.matching.cuts import parts_of
from ckptool.matching.modules import Unit
from ckptool.matching.result import Pair
from ckptool.matching.words import layer_numbered

Side: TypeAlias = tuple[str, ...]
"""The parts of a pattern."""

_NAMES = ("l", "b", "t", "u", "v")


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides of a rule."""

    source: tuple[Side, ...]
    target: tuple[Side, ...]
    layout: str
    pairs: tuple[Pair, ...]


def side_pairs(match: Match, pairs: Sequence[Pair], layout: str, *, ranged: bool = False) -> list[Sides]:
    """The patterns of a unit's pairs that have one layout: one rule where numbers and roles allow it, else several.

    Args:
        match: the unit.
        pairs: what was made of it.
        layout: of all of them.
        ranged: captures stand for the unit's numbers and for no others, where the language can say so.
    """
    source, target = match.source, match.target
    indices = indices_of(source, target, ranged=ranged)
    if indices is None:
        return instance_sides(match, pairs, layout)
    ours, theirs = indices
    roles = [role for role in target.shapes if role in source.shapes]
    used = {pair.targets[0]: pair for pair in pairs}
    roles = [role for role in roles if target.keys[role][0] in used]
    left = [parts_with(source, source.keys[role][0], ours) for role in roles]
    right = [parts_with(target, target.keys[role][0], theirs) for role in roles]
    whole = len(roles) == len(source.shapes) and not layout
    if len(roles) > 1 and same_but_end(left) and same_but_end(right):
        one, other = ends_of([row[-1] for row in left], [row[-1] for row in right], whole)
        return [Sides(((*left[0][:-1], one),), ((*right[0][:-1], other),), layout, tuple(pairs))]
    found = []
    for role, a, b in zip(roles, left, right, strict=True):
        keys = set(target.keys[role])
        found.append(Sides((a,), (b,), layout, tuple(pair for pair in pairs if pair.targets[0] in keys)))
    return found


def instance_sides(match: Match, pairs: Sequence[Pair], layout: str) -> list[Sides]:
    """The same for each instance by itself, as it is named."""
    if len(match.source.members) == 1:
        return side_pairs(match, pairs, layout)
    by_key = {pair.targets[0]: pair for pair in pairs}
    found = []
    for at in range(len(match.source.members)):
        source, target = match.source.restricted([at]), match.target.restricted([at])
        mine = [by_key[row[0]] for row in target.keys.values() if row[0] in by_key]
        if mine:
            found += side_pairs(replace(match, source=source, target=target), mine, layout)
    return found


def literal(pair: Pair) -> Sides:
    return Sides(
        tuple(tuple(key.split(".")) for key in pair.sources),
        tuple(tuple(key.split(".")) for key in pair.targets),
        pair.layout,
        (pair,),
    )


def same_but_end(rows: Sequence[Side]) -> bool:
    return len({row[:-1] for row in rows}) == 1


def ends_of(ours: Sequence[str], theirs: Sequence[str], whole: bool) -> tuple[str, str]:
    """The last parts: a common beginning, then the role as a capture or a choice."""
    (before, a, behind), (head, b, tail) = apart(ours), apart(theirs)
    if a == b and whole and not behind and not tail:
        return f"{before}{{p*}}", f"{head}{{p*}}"
    left, right = ("{p=" + "|".join(row) + "}" for row in (a, b))
    return f"{before}{left}{behind}", f"{head}{right if a != b else '{p}'}{tail}"


def apart(texts: Sequence[str]) -> tuple[str, list[str], str]:
    """What all begin with, up to an underscore or slash; what is left of each; what all end with, from one on.

    Example:
        >>> apart(["q_proj", "k_proj"]), apart(["ln/gamma", "ln/beta"])
        (('', ['q', 'k'], '_proj'), ('ln/', ['gamma', 'beta'], ''))
    """
    rows = [re.split(r"(?<=[_/])|(?=[_/])", text) for text in texts]
    same = 0
    while all(len(row) > same + 1 for row in rows) and len({row[same] for row in rows}) == 1:
        same += 1
    while same and rows[0][same - 1][-1] not in "_/":
        same -= 1
    end = 0
    while all(len(row) > same + end + 1 for row in rows) and len({row[-1 - end] for row in rows}) == 1:
        end += 1
    while end and rows[0][-end][0] not in "_/":
        end -= 1
    before, behind = "".join(rows[0][:same]), "".join(rows[0][len(rows[0]) - end :])
    return before, [text[len(before) : len(text) - len(behind)] for text in texts], behind


# ---------------------------------------------------------------------------------------------- indices


def indices_of(source: Unit, target: Unit, *, ranged: bool) -> tuple[list[str], list[str]] | None:
    """What stands for each family's number on both sides; None if no linear index says it."""
    ours, theirs = list(zip(*source.numbers, strict=True)), list(zip(*target.numbers, strict=True))
    if not source.numbers or len(source.members) == 1:
        return [str(row[0]) for row in ours], [str(row[0]) for row in theirs]
    vary = [[row for row in dict.fromkeys(rows) if len(set(row)) > 1] for rows in (ours, theirs)]
    if len(vary[0]) != len(vary[1]):
        return None
    left, right = ({row: str(row[0]) for row in rows} for rows in (ours, theirs))
    for name, a, b in zip(_NAMES, *vary, strict=False):
        if (found := _linear(a, b, name)) is None:
            return None
        left[a], right[b] = _ranged(found, a, b, name) if ranged or source.is_cut or target.is_cut else found
    return [left[row] for row in ours], [right[row] for row in theirs]


def _linear(a: Sequence[int], b: Sequence[int], name: str) -> tuple[str, str] | None:
    """Two rows of numbers as linear functions of one.

    Example:
        >>> _linear([1, 3, 5], [0, 1, 2], "s"), _linear([1, 2], [2, 3], "s"), _linear([0, 1, 2], [0, 2, 3], "s")
        (('{2*s+1}', '{s}'), ('{s}', '{s+1}'), None)
    """
    pairs = sorted(set(zip(a, b, strict=True)))
    if len({one for one, _ in pairs}) < len(pairs) or len({other for _, other in pairs}) < len(pairs):
        return None
    if len(pairs) == 1:
        return str(pairs[0][0]), str(pairs[0][1])
    (x, y), (z, w) = pairs[0], pairs[1]
    for turned in (False, True):
        run, rise = (w - y, z - x) if turned else (z - x, w - y)
        if rise % run or rise // run < 1:
            continue
        factor = rise // run
        offset = x - factor * y if turned else y - factor * x
        if all((p - factor * q if turned else q - factor * p) == offset for p, q in pairs):
            text = f"{factor}*{name}" if factor != 1 else name
            text = f"{{{text}{offset:+d}}}" if offset else f"{{{text}}}"
            return (text, f"{{{name}}}") if turned else (f"{{{name}}}", text)
    return None


def _ranged(texts: tuple[str, str], a: Sequence[int], b: Sequence[int], name: str) -> tuple[str, str]:
    """The captures for these numbers alone: ``{l}`` becomes ``{l=0..5}``, or ``{l=1|3}``."""
    plain = f"{{{name}}}"
    at = texts.index(plain) if plain in texts else -1
    numbers = sorted({*(a, b)[at]}) if at >= 0 else []
    if not numbers:
        return texts
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        left, right = ("|".join(map(str, row)) for row in zip(*sorted({*zip(a, b, strict=True)}), strict=True))
        return f"{{{name}={left}}}", f"{{{name}={right}}}"
    ranged = f"{{{name}={numbers[0]}..{numbers[-1]}}}"
    return (ranged, ranged if texts[1] == plain else texts[1]) if at == 0 else (texts[0], ranged)


def parts_with(unit: Unit, key: str, indices: Sequence[str]) -> Side:
    """The parts of a key with captures for the numbers of families."""
    parts, between = parts_of(key)
    level = 0
    for at, part in enumerate(unit.path):
        if part.family:
            if "{" not in indices[level]:
                pass  # as it is written: 007 is no 7
            elif at == len(parts) - 1:  # inside the last part: weight_ih_l0
                parts[at] = layer_numbered(parts[at], indices[level])
            else:
                parts[at] = part.numbered(indices[level])
            level += 1
    return tuple("".join(part + dot for part, dot in zip(parts, [*between, ""], strict=True)).split("."))
