"""Lines of tensors that are several: fused, split, stacked. ``{x=q|k|v}`` where the parts differ in that alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

from ckptool.recipes.induce.lines import Line, Said, apart
from ckptool.recipes.induce.proof import Specs

Turned = tuple[bool, bool]
"""The parts have their inputs before their outputs; the whole has."""

Ones = tuple[int, int]
"""Axes of length 1 behind all others, of the parts and of the whole."""

_RUN = re.compile(r"[0-9]+(?![^{}]*\})")
_NAMES = ("o", "q", "r")


def fused_sides(
    parts: Sequence[str], whole: str, rest: str, turned: Turned = (False, False), ones: Ones = (0, 0)
) -> tuple[str, str]:
    """The parts and the whole of a layout, where the parts lie one after the other along their outputs.

    Args:
        parts: the name of the outputs of each part.
        whole: what stands for all of them.
        rest: the other axes.
        turned: which of both have their inputs before their outputs.
        ones: how many axes of length 1 stand behind all others.

    Example:
        >>> fused_sides(["a", "b"], "(a + b)", "i"), fused_sides(["o"], "(x o)", "i", (False, True))
        (('a i, b i', '(a + b) i'), ('o i', 'i (x o)'))
    """

    def axes(outputs: str, side: int) -> str:
        return (f"{rest} {outputs}" if turned[side] else f"{outputs} {rest}").strip() + " 1" * ones[side]

    return ", ".join(axes(part, 0) for part in parts), axes(whole, 1)


def copies_of(pair: Said) -> int:
    """How often the same is made of its sources.

    Example:
        >>> from ckptool.matching.result import Pair
        >>> [copies_of(Pair(("a", "b"), ("w",), layout)) for layout in ("", "i o -> o i, o i", "(o + p) -> o, p")]
        [2, 2, 1]
    """
    made = pair.layout.rpartition(" -> ")[2].split(", ") if pair.layout else [""] * len(pair.targets)
    counts = (count for count in range(len(made), 1, -1) if len(made) % count == 0)
    return next((count for count in counts if made == made[: len(made) // count] * count), 1)


def is_joint(pair: Said) -> bool:
    """It joins or splits tensors."""
    return len(pair.sources) > 1 or len(pair.targets) > copies_of(pair)


def joint_line(pair: Said, source: Specs, target: Specs) -> Line:
    """The line of a pair with several tensors on one side, or both.

    Args:
        pair: it; its layout puts the parts one after the other, and perhaps stacks them.
        source: specs by key.
        target: the same.
    """
    copies = copies_of(pair)
    sides = [side.split(", ") for side in pair.layout.partition(" | ")[0].split(" -> ")]
    if [len(side) for side in sides] != [len(pair.sources), len(pair.targets)]:
        return _counted(pair, sides, source, target)
    is_join = len(pair.sources) > 1
    keys = pair.sources if is_join else pair.targets[: len(pair.targets) // copies]
    specs = source if is_join else target
    (first, *_), (all_, *_) = ([one.split() for one in side] for side in (sides if is_join else sides[::-1]))
    rest = [axis for axis in first if axis in ("i", "j", "k")]
    turned = bool(rest) and first[0] in rest, bool(rest) and all_[0] in rest
    ones = first.count("1"), all_.count("1")
    choice = None if copies > 1 or len({specs[key].shape for key in keys}) > 1 else _choice(keys)
    if choice:
        patterns, names, together = [choice], ["o"], "(x o)"
    else:
        patterns, count = list(keys), len(keys)
        names = list(_NAMES[:count]) if count <= len(_NAMES) else [f"a{at}" for at in range(count)]
        together = f"({' + '.join(names)})"

    def layout(axes: str) -> str:
        both = fused_sides(names, together, axes, turned, ones)
        left, right = both if is_join else both[::-1]
        return f"{left} -> {', '.join([right] * copies)}"

    left, right = (
        (tuple(patterns), pair.targets) if is_join else (pair.sources, (*patterns, *pair.targets[len(keys) :]))
    )
    return Line(left, right, layout(" ".join(rest)), (pair,), "" if any(ones) else layout("..."))


def _counted(pair: Said, sides: Sequence[Sequence[str]], source: Specs, target: Specs) -> Line:
    """The line of a pair of which the tensors of one side are counted by an axis of the other's."""
    names = [set(re.findall(r"[a-z]\w*", " ".join(side))) for side in sides]
    patterns = [
        _captured(keys, len(side), sorted(one), specs)
        for keys, side, one, specs in (
            (pair.sources, sides[0], names[1] - names[0], source),
            (pair.targets, sides[1], names[0] - names[1], target),
        )
    ]
    left, right = patterns
    if left is None or right is None:
        return Line(pair.sources, pair.targets, pair.layout, (pair,))
    is_general = "+" in pair.layout and not any(one.startswith("i ") for side in sides for one in side)
    general = " -> ".join(", ".join(re.sub(r"( [ijk])*$", " ...", one) for one in side) for side in sides)
    return Line(left, right, pair.layout, (pair,), general if is_general else "")


def _captured(keys: Sequence[str], each: int, names: Sequence[str], specs: Specs) -> tuple[str, ...] | None:
    """Patterns for keys that numbers count, the first name for those that vary the fastest; None if none do so.

    Args:
        keys: of each member, those of every part.
        each: how many parts a member has.
        names: of the captures.
        specs: what else is there, that no pattern may mean.
    """
    if len(keys) == each:
        return tuple(keys)
    found = []
    for at in range(each):
        row, left = keys[at::each], list(names)
        forms = len({_RUN.sub("#", key) for key in row})
        if forms > 1 and names:
            choices = [_choice(row[first : first + forms], left[0]) for first in range(0, len(row), forms)]
            row, left = [choice for choice in choices if choice], left[1:]
        spans = [match.span() for match in _RUN.finditer(row[0])]
        columns = [*zip(*(map(int, _RUN.findall(key)) for key in row), strict=False)]
        vary = [place for place, column in enumerate(columns) if len(set(column)) > 1]
        counts = [range(min(columns[place]), max(columns[place]) + 1) for place in vary]
        numbers = [tuple(columns[place][member] for place in vary) for member in range(len(row))]
        if len({_RUN.sub("#", key) for key in row}) > 1 or len(vary) != len(left) or numbers != [*product(*counts)]:
            return None
        text = row[0]
        for name, place, count in zip(left, vary[::-1], counts[::-1], strict=True):
            begin, end = spans[place]
            others = (f"{row[0][:begin]}{number}{row[0][end:]}" for number in (count[0] - 1, count[-1] + 1))
            is_all = count[0] == 0 and specs.keys().isdisjoint(others)
            text = f"{text[:begin]}{{{name}{'' if is_all else f'={count[0]}..{count[-1]}'}}}{text[end:]}"
        found.append(text)
    return tuple(found)


def _choice(keys: Sequence[str], name: str = "x") -> str | None:
    """One pattern for all parts, if their names differ in one place."""
    rows = [key.split(".") for key in keys]
    if len({len(row) for row in rows}) > 1:
        return None
    differ = [at for at, column in enumerate(zip(*rows, strict=True)) if len(set(column)) > 1]
    if len(differ) != 1:
        return None
    (at,) = differ
    before, names, behind = apart([row[at] for row in rows])
    if len(set(names)) < len(names) or not all(names):
        return None
    return ".".join([*rows[0][:at], f"{before}{{{name}={'|'.join(names)}}}{behind}", *rows[0][at + 1 :]])
