"""Matrices that are stored the other way round: TensorFlow's and Flax' kernels, OpenAI's Conv1D."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ckptool.matching.modules import Shape, Unit
from ckptool.matching.relations import squeezed

Chain = tuple[str, ...]

_LETTERS = "abcdefgh"
_TABLES = frozenset({"token", "pos", "type"})
_KERNELS = 3  # that show where the square of space is
_WIDE = 12  # channels; kernels in space are smaller
_LAYERS = ("Linear", "NonDynamicallyQuantizableLinear", "Embedding")
_TENSORFLOW = ("kernel", "weights", "depthwise_kernel", "depthwise_weights", "pointwise_kernel", "pointwise_weights")


@dataclass(frozen=True, slots=True)
class Orientation:
    """Which way round matrices are.

    Attributes:
        io: the units whose main tensor has its inputs before its outputs.
        doubtful: main keys of square matrices that may have turned round or not.
    """

    io: frozenset[Unit]
    doubtful: frozenset[str] = frozenset()


def orientation(ours: Sequence[Unit], theirs: Sequence[Unit]) -> Orientation:
    """Which matrices are stored the other way round, as far as this matters between two sides.

    A bias is as long as the outputs, so it tells which axis these are; a class of a model tells it, and so do names.
    Of the others those that are not square are turned if more of them are found on the other side so than as they are;
    square ones are as those around them.
    """
    sides = ours, theirs
    sure = [_sure(units) for units in sides]
    turned = [_are_turned(sides[at], sure[at], sides[1 - at], sure[1 - at]) for at in (0, 1)]
    turned[0] &= not turned[1]  # against each other: one of both is
    io, doubtful = set[Unit](), set[str]()
    for units, known, is_turned in zip(sides, sure, turned, strict=True):
        blocks: dict[tuple[bool, Chain], set[bool]] = defaultdict(set)
        everywhere: dict[bool, set[bool]] = defaultdict(set)
        for unit, is_io in known.items():
            blocks[_is_dense(unit), unit.chain].add(is_io)
            everywhere[_is_dense(unit)].add(is_io)
        io |= {unit for unit, is_io in known.items() if is_io}
        for unit in units:
            if unit in known or unit.bare or _is_table(unit):
                continue
            kind = _is_dense(unit)
            around = blocks[kind, unit.chain] or everywhere[kind] or {is_turned and kind}
            if _is_square(unit):
                if around == {True}:
                    io.add(unit)
                elif True in around:
                    doubtful.update(unit.keys[unit.main])
            elif _is_matrix(unit) and (is_turned or ("bias" in unit.shapes and blocks[kind, unit.chain] == {True})):
                io.add(unit)
    return Orientation(frozenset(io), frozenset(doubtful))


def _are_turned(
    ours: Sequence[Unit], sure: Mapping[Unit, bool], theirs: Sequence[Unit], known: Mapping[Unit, bool]
) -> bool:
    """More of the matrices of which nothing tells are found on the other side turned than as they are."""
    mine = _shapes(unit for unit in ours if unit not in sure)
    its = _shapes(unit for unit in theirs if not known.get(unit)) + _turned(
        _shapes(unit for unit in theirs if known.get(unit))
    )
    return (_turned(mine) & its).total() > (mine & its).total()


def _is_dense(unit: Unit) -> bool:
    """A matrix; libraries that turn these leave kernels of convolutions as they are."""
    return len(unit.shapes[unit.main][0]) == 2


def _shapes(units: Iterable[Unit]) -> Counter[Shape]:
    """The shapes of matrices that are not square, and no tables."""
    return Counter(
        shape
        for unit in units
        if _is_matrix(unit) and not unit.bare and not _is_table(unit)
        for shape in unit.shapes[unit.main]
        if shape[0] != shape[1]
    )


def _turned(shapes: Mapping[Shape, int]) -> Counter[Shape]:
    return Counter({shape[::-1]: count for shape, count in shapes.items()})


def _sure(units: Sequence[Unit]) -> dict[Unit, bool]:
    """Which units have their inputs first, as far as one by itself tells."""
    sure: dict[Unit, bool] = {}
    is_torch = any(_has_outputs_first(unit) for unit in units) and not any(_is_io(unit, ()) for unit in units)
    is_space_first = not is_torch and _has_space_first(units)
    for unit in units:
        found = _is_io(unit, () if is_torch else _TENSORFLOW)
        if found is None and is_space_first and len(unit.shapes[unit.main][0]) > 3:
            found = True
        if found is not None:
            sure[unit] = found
    return sure


def _is_matrix(unit: Unit) -> bool:
    return all(len(shape) == 2 and min(shape) > 1 for shape in unit.shapes[unit.main])


def _is_table(unit: Unit) -> bool:
    """It has a row for each word or place, and so has every library."""
    return bool(_TABLES & unit.words.keys()) or "Embedding" in unit.made_of


def _has_space_first(units: Sequence[Unit]) -> bool:
    """Kernels as TensorFlow has them, whatever they are called: the square of space is in front in all that show it."""
    shapes = [shape for unit in units for shape in unit.shapes[unit.main] if len(shape) == 4]
    found = [_is_space(shape[:2]) for shape in shapes if _is_space(shape[:2]) != _is_space(shape[2:])]
    return len(found) >= _KERNELS and all(found)


def _is_space(sizes: Sequence[int]) -> bool:
    """The sides of a kernel: equal, odd and small."""
    return sizes[0] == sizes[1] < _WIDE and sizes[0] % 2 == 1


def _has_outputs_first(unit: Unit) -> bool:
    """A kernel as torch has it, whatever it is called: its bias or its square of space tells."""
    if unit.written[unit.main] not in _TENSORFLOW:
        return False
    shape = unit.shapes[unit.main][0]
    if len(shape) == 4:
        return shape[2] == shape[3] < min(shape[0], _WIDE) and not shape[0] == shape[1] < _WIDE
    return _is_io(unit, ()) is False


def _is_io(unit: Unit, turned: Sequence[str]) -> bool | None:
    """It has its inputs before its outputs: the class says so, a name among `turned`, or the bias; None if nothing."""
    shapes = unit.shapes[unit.main]
    if unit.made_of == "Conv1D":
        return True
    if unit.written[unit.main] in turned:
        return True
    if unit.made_of in _LAYERS:
        return False
    shapes = tuple(squeezed(shape) if len(shape) > 2 else shape for shape in shapes)
    if "bias" not in unit.shapes or any(len(shape) != 2 for shape in shapes):
        return None
    votes = {
        outputs == (shape[1],)
        for shape, outputs in zip(shapes, unit.shapes["bias"], strict=True)
        if shape[0] != shape[1] and outputs in ((shape[0],), (shape[1],))
    }
    return votes.pop() if len(votes) == 1 else None


def _is_square(unit: Unit) -> bool:
    shapes = [squeezed(shape) for shape in unit.shapes[unit.main]]
    return all(len(shape) == 2 and shape[0] == shape[1] for shape in shapes)


def is_bare_square(unit: Unit) -> bool:
    """A square matrix that is a parameter by itself and projects: no header tells which way round it is."""
    return unit.bare and "proj" in unit.text and _is_square(unit)
