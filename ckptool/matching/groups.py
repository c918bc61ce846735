"""Tensors that stand for several: q, k and v in one; gate and up; the experts stacked.

Where one side has the parts and the other the whole, the parts are put together as a unit of their own, which is then
matched as any other. Its parts stay in the running by themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ckptool.matching.halves import HALVES, halves_of
from ckptool.matching.modules import Part, Shape, Unit
from ckptool.matching.words import in_context, words_of

_KINDS = (("q", "k", "v"), ("k", "v"), ("gate", "up"))


def made_units(units: Sequence[Unit], places: Mapping[str, int]) -> list[Unit]:
    """Units that are made of others.

    Args:
        units: of one side.
        places: of every key in its file.
    """
    fused = list(_fused(units))
    return [*fused, *_stacked([*units, *fused]), *halves_of(units, places)]


def is_named(made: Unit, whole: Unit) -> bool:
    """A unit's name says that it may be what another is made as: of q, k and v "qkv"; of two halves what holds them."""
    if made.kind == HALVES:
        return made.path[-1].text == whole.path[-1].text
    kind = made.kind.removesuffix("stack").strip()
    words = {"qkv"} if kind == "q k v" else {"kv"} if kind == "k v" else {"gate", "up"}
    said = [word for part in whole.path for word in words_of(part.text) if word in kind.split()]
    in_order = said == [word for word in kind.split() if word in said]  # `up_gate` is not gate and up
    return not kind or bool(in_order and words & whole.words.keys())


def _fused(units: Iterable[Unit]) -> Iterable[Unit]:
    beside: dict[tuple[str, ...], dict[str, Unit]] = defaultdict(dict)
    for unit in units:
        words = _said(unit)
        if len(words) == 1 and not unit.bare:
            beside[unit.parent].setdefault(words[0], unit)
    for named in beside.values():
        for kind in _KINDS:
            pieces = tuple(named[word] for word in kind if word in named)
            if len(pieces) == len(kind) and (made := _joined(pieces, kind)):
                yield made


def _said(unit: Unit) -> tuple[str, ...]:
    """The words of the last part, those of its context before those of its own."""
    texts = [part.text for part in unit.path]
    return in_context(texts) or tuple(word for word in words_of(texts[-1]) if word != "proj")


def _joined(pieces: Sequence[Unit], kind: Sequence[str]) -> Unit | None:
    """One unit of several, one after the other along their first axis."""
    first = pieces[0]
    if any(piece.members != first.members for piece in pieces):
        return None
    roles = [role for role in first.shapes if all(role in piece.shapes for piece in pieces)]
    shapes: dict[str, tuple[Shape, ...]] = {}
    for role in roles:
        rows = list(zip(*(piece.shapes[role] for piece in pieces), strict=True))
        if any(not row[0] or len({shape[1:] for shape in row}) > 1 for row in rows):
            return None
        shapes[role] = tuple((sum(shape[0] for shape in row), *row[0][1:]) for row in rows)
    if "weight" not in shapes:
        return None
    word = "qkv" if len(kind) == 3 else "_".join(kind)
    return Unit(
        (*first.path[:-1], Part(word)),
        first.members,
        {role: first.keys[role] for role in roles},
        shapes,
        first.position,
        first.written,
        False,
        first.numbers,
        {role: tuple(zip(*(piece.keys[role] for piece in pieces), strict=True)) for role in roles},
        tuple(pieces),
        " ".join(kind),
    )


def _stacked(units: Iterable[Unit]) -> Iterable[Unit]:
    """The members of an innermost family on a new axis in front."""
    for unit in units:
        last = max((at for at, part in enumerate(unit.path) if part.family), default=-1)
        if last < 1 or not any("expert" in word for part in unit.path[:last] for word in words_of(part.text)):
            continue
        rows: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for at, member in enumerate(unit.members):
            rows[member[:-1]].append(at)
        counts = {len(row) for row in rows.values()}
        if len(counts) > 1 or counts == {1}:
            continue
        groups = unit.groups or {role: tuple((key,) for key in keys) for role, keys in unit.keys.items()}
        if any(len({unit.shapes[role][at] for at in row}) > 1 for role in unit.shapes for row in rows.values()):
            continue
        firsts = [row[0] for row in rows.values()]
        yield Unit(
            (*unit.path[:last], *unit.path[last + 1 :]),
            tuple(rows),
            {role: tuple(unit.keys[role][at] for at in firsts) for role in unit.keys},
            {role: tuple((len(row), *unit.shapes[role][row[0]]) for row in rows.values()) for role in unit.shapes},
            unit.position,
            unit.written,
            unit.bare,
            tuple(unit.numbers[at][:-1] for at in firsts),
            {
                role: tuple(tuple(key for at in row for key in groups[role][at]) for row in rows.values())
                for role in unit.keys
            },
            (unit, *unit.pieces),
            f"{unit.kind} stack".strip(),
        )


# ---------------------------------------------------------------------------------------------- their layouts


def joining_layout(count: int, stacked: int, rank: int) -> str:
    """The layout that makes one tensor of several, one after the other; then stacked, unless 0.

    Example:
        >>> joining_layout(3, 0, 2), joining_layout(2, 2, 2)
        ('a0 i, a1 i, a2 i -> (a0 + a1 + a2) i', 'o i, p i -> (o + p) i | (2 o) i -> 2 o i')
    """
    rest = " ".join(["i", "j", "k"][: rank - 1])
    names = ["o", "p"] if count == 2 else [f"a{at}" for at in range(count)]
    left = ", ".join(f"{name} {rest}".strip() for name in names)
    text = f"{left} -> " + f"({' + '.join(names)}) {rest}".strip()
    return f"{text} | ({stacked} o) {rest} -> {stacked} o {rest}" if stacked else text


def splitting_layout(count: int, rank: int) -> str:
    """The layout that makes several tensors of one.

    Example:
        >>> splitting_layout(2, 1)
        '(o + p) -> o, p'
    """
    left, right = joining_layout(count, 0, rank).split(" -> ")
    return f"{right} -> {left}"


def unstacking_layout(members: int, each: int, rank: int) -> str:
    """The layout that takes a stack apart, `each` tensors of every member.

    Example:
        >>> unstacking_layout(2, 1, 2)
        '(e0 + e1) a0 i -> e0 a0 i, e1 a0 i | 1 o i -> o i'
    """
    rest = " ".join(["i", "j", "k"][: rank - 1])
    names = [f"a{at}" for at in range(each)]
    inner = f"({' + '.join(names)})" if each > 1 else "a0"
    outer = [f"e{at}" for at in range(members)]
    right = ", ".join(f"{one} {name} {rest}".strip() for one in outer for name in names)
    return f"({' + '.join(outer)}) {inner} {rest} -> {right} | 1 o {rest} -> o {rest}"
