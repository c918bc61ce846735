"""Matrices that are stored the other way round: TensorFlow's and Flax' kernels, OpenAI's Conv1D."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ckptool.matching.modules import Shape, Unit

_LETTERS = "abcdefgh"


def stored_io(units: Sequence[Unit]) -> frozenset[Unit]:
    """The units whose main tensor has its inputs before its outputs.

    A bias is as long as the outputs, so it tells which axis these are; where the matrix is square, the others of the
    same block tell.
    """
    sure: dict[Unit, bool] = {}
    blocks: dict[tuple[str, ...], set[bool]] = defaultdict(set)
    for unit in units:
        found = _is_io(unit)
        if found is not None:
            sure[unit] = found
            blocks[unit.chain].add(found)
    square = {unit for unit in units if unit not in sure and _square(unit) and "bias" in unit.shapes}
    square = {unit for unit in square if blocks[unit.chain] == {True}}
    return frozenset({unit for unit, io in sure.items() if io} | square)


def _is_io(unit: Unit) -> bool | None:
    shapes = unit.shapes[unit.main]
    if unit.written[unit.main] in ("kernel", "weights"):
        return True
    shapes = tuple(tuple(size for size in shape if size != 1) if len(shape) > 2 else shape for shape in shapes)
    if "bias" not in unit.shapes or any(len(shape) != 2 for shape in shapes):
        return None
    votes = {
        outputs == (shape[1],)
        for shape, outputs in zip(shapes, unit.shapes["bias"], strict=True)
        if shape[0] != shape[1] and outputs in ((shape[0],), (shape[1],))
    }
    return votes.pop() if len(votes) == 1 else None


def _square(unit: Unit) -> bool:
    shapes = [[size for size in shape if size != 1] for shape in unit.shapes[unit.main]]
    return all(len(shape) == 2 and shape[0] == shape[1] for shape in shapes)


def layout_of(source: Shape, target: Shape, turned: bool) -> str:
    """The layout that makes one shape of the other, which differ in ones, or are turned.

    Example:
        >>> layout_of((96, 1, 1), (96,), False), layout_of((8, 4), (4, 8), True), layout_of((3,), (3,), False)
        ('a 1 1 -> a', 'i o -> o i', '')
    """
    if turned and len(source) == 2 and len(target) == 2:
        return "i o -> o i"
    if turned and len(source) == 4 and len(target) == 4:
        return "h w i o -> o i h w"
    if turned:
        plain = [[size for size in shape if size != 1] for shape in (source, target)]
        if len(plain[0]) == len(plain[1]) == 2:
            sides = [_named(shape, names) for shape, names in ((source, "io"), (target, "oi"))]
            return " -> ".join(sides)
    if source == target:
        return ""
    if sorted(size for size in source if size != 1) != sorted(size for size in target if size != 1):
        axes = " ".join("chw"[: max(len(source), len(target)) - 1])
        return f"o {axes} -> o ({axes})" if len(source) > len(target) else f"o ({axes}) -> o {axes}"
    return f"{_named(source, _LETTERS)} -> {_named(target, _LETTERS)}".strip()


def _named(shape: Shape, letters: str) -> str:
    """The axes of a shape by letters, those of size 1 as they are."""
    names = iter(letters)
    return " ".join("1" if size == 1 else next(names) for size in shape)


def is_bare_square(unit: Unit) -> bool:
    """A square matrix that is a parameter by itself and projects: no header tells which way round it is."""
    return unit.bare and "proj" in unit.text and _square(unit)
