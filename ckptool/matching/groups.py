"""Tensors that stand for several: q, k and v in one; gate and up.

Where one side has the parts and the other the whole, the parts are put together as a unit of their own, which is then
matched as any other. Its parts stay in the running by themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from ckptool.matching.halves import HALVES, halves_of
from ckptool.matching.modules import Part, Shape, Unit
from ckptool.matching.words import in_context, words_of

KINDS = (("q", "k", "v"), ("q", "kv"), ("k", "v"), ("gate", "up"))
"""Words of siblings that are one tensor elsewhere."""


def made_units(units: Sequence[Unit], places: Mapping[str, int], io: AbstractSet[Unit] = frozenset()) -> list[Unit]:
    """Units that are made of others.

    Args:
        units: of one side.
        places: of every key in its file.
        io: units whose matrices have their inputs before their outputs. What is made of them has them behind.
    """
    return [*_fused(units, io), *halves_of(units, places)]


def is_named(made: Unit, whole: Unit) -> bool:
    """A unit's name says that it may be what another is made as: of q, k and v "qkv"; of two halves what holds them."""
    if made.kind == HALVES:
        return made.path[-1].text == whole.path[-1].text
    kind = made.kind
    words = {"gate", "up"} if kind == "gate up" else {kind.replace(" ", "")}
    said = [word for part in whole.path for word in words_of(part.text) if word in kind.split()]
    in_order = said == [word for word in kind.split() if word in said]  # `up_gate` is not gate and up
    return not kind or bool(in_order and words & whole.words.keys())


def _fused(units: Iterable[Unit], io: AbstractSet[Unit]) -> Iterable[Unit]:
    beside: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[str, Unit]] = defaultdict(dict)
    for unit in units:
        words = _said(unit)
        if words and not unit.bare:
            beside[unit.parent, words[:-1]].setdefault(words[-1], unit)
    for (_, front), named in beside.items():
        for kind in KINDS:
            pieces = tuple(named[word] for word in kind if word in named)
            if len(pieces) == len(kind) and (made := _joined(pieces, kind, front, io)):
                yield made


def _said(unit: Unit) -> tuple[str, ...]:
    """The words of the last part, those of its context before those of its own."""
    texts = [part.text for part in unit.path]
    return in_context(texts) or tuple(word for word in words_of(texts[-1]) if word != "proj")


def _joined(pieces: Sequence[Unit], kind: Sequence[str], front: Sequence[str], io: AbstractSet[Unit]) -> Unit | None:
    """One unit of several, one after the other along their outputs, which are the first axis of what is made."""
    first = pieces[0]
    turned = first in io
    if any(piece.members != first.members or (piece in io) != turned for piece in pieces):
        return None
    roles = [role for role in first.shapes if all(role in piece.shapes for piece in pieces)]
    shapes: dict[str, tuple[Shape, ...]] = {}
    for role in roles:
        rows = list(zip(*(_outwards(piece.shapes[role], turned) for piece in pieces), strict=True))
        if any(not row[0] or len({shape[1:] for shape in row}) > 1 for row in rows):
            return None
        shapes[role] = tuple((sum(shape[0] for shape in row), *row[0][1:]) for row in rows)
    if "weight" not in shapes:
        return None
    word = "_".join(kind) if kind == ("gate", "up") else "".join(kind)
    return Unit(
        (*first.path[:-1], Part("_".join((*front, word)))),
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
        turned=turned,
        places=first.places,
    )


def _outwards(shapes: Iterable[Shape], turned: bool) -> list[Shape]:
    """Shapes with the outputs first."""
    return [shape[::-1] if turned and len(shape) == 2 else shape for shape in shapes]
