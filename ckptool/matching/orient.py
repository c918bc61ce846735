"""Matrices that are stored the other way round: TensorFlow's and Flax' kernels, OpenAI's Conv1D."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ckptool.matching.alike import similarity
from ckptool.matching.modules import Unit
from ckptool.matching.relations import squeezed

Chain = tuple[str, ...]

_LETTERS = "abcdefgh"
_WORDS, _MARGIN = 0.4, 0.04  # words that tell which matrix is which, and by how much better they must be
_MOST = 40_000  # pairs of matrices of one shape that are compared; of more only those of equal names
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
    Where nothing tells, the matrices of the same blocks do: if those that are not square have turned round between the
    two sides, the square ones have as well.
    """
    sides = _side(ours), _side(theirs)
    votes, everywhere = _turned_blocks(*sides)
    io, doubtful = set[Unit](), set[str]()
    for number, side in enumerate(sides):
        io |= {unit for unit, is_io in side.sure.items() if is_io}
        for unit in side.units:
            if unit in side.sure or unit.bare or not (_is_matrix(unit) or _is_square(unit)):
                continue
            vote = votes[number].get(unit.chain, everywhere[number]) if _is_matrix(unit) else _Vote()
            if not unit.chain and _is_matrix(unit):  # outside of all blocks any may be as in the blocks, or not
                vote = _Vote(vote.turned | everywhere[number].turned, vote.others)
            found = _like_its_block(side.blocks[unit.chain], vote, is_target=bool(number))
            if found is None and side.blocks[unit.chain] == {True} and "bias" in unit.shapes:
                found = True
            if found and not _is_table(unit):
                io.add(unit)
            elif _is_square(unit) and not _is_table(unit) and (found is None or "embed" in unit.words):
                may_turn = True in vote.turned or side.blocks[unit.chain] == {True}
                doubtful.update(unit.keys[unit.main] if may_turn else ())
    return Orientation(frozenset(io), frozenset(doubtful))


@dataclass(slots=True)
class _Side:
    """The units of one side, which way round they are for sure, and what that is in each list of blocks."""

    units: Sequence[Unit]
    sure: dict[Unit, bool]
    blocks: dict[Chain, set[bool]]


_Votes = dict[Chain, "_Vote"]


@dataclass(slots=True)
class _Vote:
    """Of a list of blocks: whether its matrices turn round on their way, and how the others of these words are."""

    turned: set[bool] = field(default_factory=set)
    others: set[bool] = field(default_factory=set)


def _side(units: Sequence[Unit]) -> _Side:
    sure: dict[Unit, bool] = {}
    blocks: dict[Chain, set[bool]] = defaultdict(set)
    is_torch = any(_has_outputs_first(unit) for unit in units) and not any(_is_io(unit, ()) for unit in units)
    is_space_first = not is_torch and _has_space_first(units)
    for unit in units:
        found = _is_io(unit, () if is_torch else _TENSORFLOW)
        if found is None and is_space_first and len(unit.shapes[unit.main][0]) > 3:
            found = True
        if found is not None:
            sure[unit] = found
            blocks[unit.chain].add(found)
    return _Side(units, sure, blocks)


def _like_its_block(mine: set[bool], vote: _Vote, *, is_target: bool) -> bool | None:
    """Whether a matrix whose shape does not tell has its inputs first, as its block has; None if that does not tell."""
    if len(vote.turned) != 1:
        return None
    (is_turned,) = vote.turned
    if len(vote.others) > 1 or len(mine) > 1:
        return is_turned and is_target
    if vote.others:
        (other,) = vote.others
        said = other != is_turned
        return said if mine <= {said} else None
    return next(iter(mine)) if mine else is_turned and is_target


def _turned_blocks(ours: _Side, theirs: _Side) -> tuple[tuple[_Votes, _Votes], tuple[_Vote, _Vote]]:
    """What the matrices say whose shape tells, and whose words tell which is which: by list of blocks, and in all."""
    found: tuple[_Votes, _Votes] = defaultdict(_Vote), defaultdict(_Vote)
    everywhere = _Vote(others={*theirs.sure.values()}), _Vote(others={*ours.sure.values()})
    for one, other, is_turned in _counterparts(ours, theirs):
        votes = [found[0][one.chain], found[1][other.chain], *(everywhere if one.chain else [])]
        for vote in votes:
            vote.turned.add(is_turned)
        found[0][one.chain].others |= theirs.blocks[other.chain]
        found[1][other.chain].others |= ours.blocks[one.chain]
    return (dict(found[0]), dict(found[1])), everywhere


def _counterparts(ours: _Side, theirs: _Side) -> Iterator[tuple[Unit, Unit, bool]]:
    """Matrices that are each other's best by their words, straight or turned, and by a margin."""
    rows: tuple[dict[object, list[Unit]], dict[object, list[Unit]]] = defaultdict(list), defaultdict(list)
    for side, found in zip((ours, theirs), rows, strict=True):
        for unit in filter(_tells, side.units):
            shapes = unit.shapes[unit.main]
            found[min(shapes, tuple(shape[::-1] for shape in shapes))].append(unit)
    for kind in rows[0].keys() & rows[1].keys():
        here, there = rows[0][kind], rows[1][kind]
        if len(here) * len(there) > _MOST:
            texts = {unit.text for unit in here} & {unit.text for unit in there}
            here, there = ([unit for unit in units if unit.text in texts][: _MOST // 100] for units in (here, there))
        scores = {(one, other): similarity(one, other) for one in here for other in there}
        for (one, other), score in scores.items():
            rivals = [*(scores[one, unit] for unit in there if unit is not other)]
            rivals += [scores[unit, other] for unit in here if unit is not one]
            is_turned = one.shapes[one.main] != other.shapes[other.main]
            known = [side.sure[unit] for side, unit in ((ours, one), (theirs, other)) if unit in side.sure]
            may_be = len(known) < 2 or (known[0] != known[1]) is is_turned
            if may_be and score >= _WORDS and score - max(rivals, default=0.0) >= _MARGIN:
                yield one, other, is_turned


def _tells(unit: Unit) -> bool:
    is_mute = unit.bare or _is_square(unit) or _is_table(unit) or "embed" in unit.words
    return _is_matrix(unit) and not is_mute


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
