"""Lines of tensors that are several: fused, split, stacked. ``{x=q|k|v}`` where the parts differ in that alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ckptool.recipes.induce.lines import Line, Said, apart
from ckptool.recipes.induce.proof import Specs

Turned = tuple[bool, bool]
"""The parts have their inputs before their outputs; the whole has."""

_RUN = re.compile("[0-9]+")
_STACKED = re.compile(r"\| \((\d+) o\)")
_NAMES = ("o", "q", "r")


def fused_sides(parts: Sequence[str], whole: str, rest: str, turned: Turned = (False, False)) -> tuple[str, str]:
    """The parts and the whole of a layout, where the parts lie one after the other along their outputs.

    Args:
        parts: the name of the outputs of each part.
        whole: what stands for all of them.
        rest: the other axes.
        turned: which of both have their inputs before their outputs.

    Example:
        >>> fused_sides(["a", "b"], "(a + b)", "i"), fused_sides(["o"], "(x o)", "i", (False, True))
        (('a i, b i', '(a + b) i'), ('o i', 'i (x o)'))
    """

    def axes(outputs: str, is_turned: bool) -> str:
        return (f"{rest} {outputs}" if is_turned else f"{outputs} {rest}").strip()

    return ", ".join(axes(part, turned[0]) for part in parts), axes(whole, turned[1])


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
    """The line of a pair with several tensors on one side.

    Args:
        pair: it; its layout puts the parts one after the other, and perhaps stacks them.
        source: specs by key.
        target: the same.
    """
    is_join, copies = len(pair.sources) > 1, copies_of(pair)
    keys = pair.sources if is_join else pair.targets[: len(pair.targets) // copies]
    specs = source if is_join else target
    sides = pair.layout.partition(" | ")[0].split(" -> ")
    parts, all_ = sides if is_join else sides[::-1]
    first = parts.split(", ")[0].split()
    rest = [axis for axis in first if axis in ("i", "j", "k")]
    turned = bool(rest) and first[0] in rest, bool(rest) and all_.split()[0] in rest
    stack = _members(pair.layout, is_join)
    patterns = _stacked(keys, stack) if stack else list(keys)
    if patterns is None or (stack and copies > 1):
        return Line(pair.sources, pair.targets, pair.layout, (pair,))
    choice = None if stack or copies > 1 or len({specs[key].shape for key in keys}) > 1 else _choice(keys)
    if choice:
        patterns, names, together = [choice], ["o"], "(x o)"
    else:
        count = len(patterns)
        names = list(_NAMES[:count]) if count <= len(_NAMES) else [f"a{at}" for at in range(count)]
        together = f"({' + '.join(names)})" if count > 1 else "o"

    def layout(axes: str) -> str:
        ours, theirs = fused_sides(names, together, axes, turned)
        both = (ours, f"e {theirs}" if stack else theirs)
        left, right = both if is_join else both[::-1]
        return f"{left} -> {', '.join([right] * copies)}"

    left, right = (
        (tuple(patterns), pair.targets) if is_join else (pair.sources, (*patterns, *pair.targets[len(keys) :]))
    )
    return Line(left, right, layout(" ".join(rest)), (pair,), layout("..."))


def _members(layout: str, is_join: bool) -> int:
    """How many are stacked; 0 if none are."""
    if " | " not in layout:
        return 0
    if is_join:
        found = _STACKED.search(layout)
        return int(found[1]) if found else 0
    return len(set(re.findall(r"\be[0-9]+", layout.partition("->")[0])))


def _stacked(keys: Sequence[str], members: int) -> list[str] | None:
    """A pattern for each part of a member, with ``{e}`` for its number; None if these do not run from 0."""
    each = len(keys) // members
    found = []
    for at in range(each):
        row = keys[at::each]
        texts = {_RUN.sub("#", key) for key in row}
        numbers = list(zip(*(_RUN.findall(key) for key in row), strict=False))
        vary = [place for place, column in enumerate(numbers) if len(set(column)) > 1] or [len(numbers) - 1]
        if len(texts) > 1 or len(vary) != 1 or numbers[vary[0]] != tuple(map(str, range(members))):
            return None
        spans = [match.span() for match in _RUN.finditer(row[0])]
        begin, end = spans[vary[0]]
        found.append(f"{row[0][:begin]}{{e}}{row[0][end:]}")
    return found


def _choice(keys: Sequence[str]) -> str | None:
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
    return ".".join([*rows[0][:at], f"{before}{{x={'|'.join(names)}}}{behind}", *rows[0][at + 1 :]])
