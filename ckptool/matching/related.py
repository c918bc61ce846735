"""Whether two models have anything to do with each other, and whether blocks have."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from ckptool.core.checkpoint import Note
from ckptool.core.counts import many
from ckptool.core.spec import TensorSpec
from ckptool.matching.alike import named_words
from ckptool.matching.attempt import Attempt
from ckptool.matching.blocks import likeness_of_lists
from ckptool.matching.edges import Match, signals
from ckptool.matching.emit import pairs_of
from ckptool.matching.modules import Shape, Unit
from ckptool.matching.relations import are_usual, squeezed
from ckptool.matching.result import Confidence, Evidence, Pair, least_sure
from ckptool.matching.words import words_of

Specs = Mapping[str, TensorSpec]
Chain = tuple[str, ...]

_SAME_NAMES = 0.45  # of the modules that match; what has so many of them is related
_CLASSES = 100  # rows of a table, at least, that no other model has by chance
_ALIKE = 0.7  # of the modules, or matrices, of the smaller block have a counterpart in the other, which else is another
_AROUND = 3  # modules outside of all blocks, at least, that match by their names, a table of places among them
_FEW = 16  # rows of a head that is small
_KINDS = 5  # shapes of matrices, at least,
_NEARLY_ALL = 0.82  # and of all shapes of one side, that models of one kind have in common
_RELATED, _MATRICES = 0.3, 0.4  # of the tensors, or of the matrices, of the smaller side match in related models


def related(
    attempt: Attempt, source: Specs, target: Specs
) -> tuple[list[tuple[Match, tuple[Pair, ...]]], tuple[Note, ...]]:
    """The matches with their pairs, if the models have something to do with each other."""
    if _is_same(attempt):
        return [(one, tuple(pairs_of(one))) for one in attempt.found], ()
    found = [(one, tuple(pairs_of(one))) for one in _coherent(attempt)]
    sure = [pair for one, row in found for pair in row if _belongs(one)]
    made, used = {key for pair in sure for key in pair.targets}, {key for pair in sure for key in pair.sources}
    matched = max(len(made), len(used))
    sides = (source.keys(), target.keys(), _RELATED), (_matrices(source), _matrices(target), _MATRICES)
    if not any(
        max(len(made & there), len(used & here)) >= least * min(len(here), len(there)) for here, there, least in sides
    ):
        having = many(matched, "tensor has", "tensors have")
        text = f"the two seem unrelated: only {having} a counterpart that names and shapes agree on"
        return [], (Note(text) if sure else Note("the two have nothing in common"),)
    if text := _stranger(attempt):
        doubtful = [replace(one, confidence=least_sure([one.confidence, Confidence.GUESS])) for one, _ in found]
        found = [
            (one, tuple(replace(pair, confidence=one.confidence) for pair in row))
            for one, (_, row) in zip(doubtful, found, strict=True)
        ]
        return found, (Note(text, "--accept guess takes them all the same"),)
    return found, ()


def _matrices(specs: Specs) -> AbstractSet[str]:
    return {key for key, spec in specs.items() if len(spec.shape) > 1}


def _is_same(attempt: Attempt) -> bool:
    """Nearly every shape that the matrices of one side have is matched: blocks alone are alike in many models."""
    sure = [one.target for one in attempt.found if _belongs(one)]
    for places, share in ((False, _NEARLY_ALL), (True, 1.0)):
        few = min(len(_kinds(units, places=places)) for units in attempt.units)
        if len(_kinds(sure, places=places)) >= max(_KINDS, share * few):
            return True
    return False


def _kinds(units: Iterable[Unit], *, places: bool) -> set[Shape]:
    """The shapes of matrices, but for small heads and, unless wanted, tables of places: many models have the same."""
    matrices = (unit for unit in units if _is_matrix(unit) and (places or "pos" not in unit.words))
    shapes = {squeezed(shape) for unit in matrices for shape in unit.shapes[unit.main]}
    return {shape for shape in shapes if len(shape) > 2 or min(shape, default=0) > _FEW}


def _coherent(attempt: Attempt) -> list[Match]:
    """The matches; those in blocks of whose matrices too few are alike are guesses: norms fit everywhere."""
    sizes: Counter[tuple[str, Chain, bool]] = Counter()
    crossing: set[tuple[str, Chain]] = set()  # lists of blocks that look at another tower
    for side, units in zip(("source", "target"), attempt.units, strict=True):
        for unit in units:
            sizes[side, unit.chain, _is_matrix(unit)] += len(unit.members)
        crossing.update(
            (side, unit.chain)
            for unit in units
            if {"cross", "attn"} <= unit.words.keys() and len(unit.shapes[unit.main][0]) > 1
        )
    alike: dict[tuple[Chain, Chain], tuple[set[Unit], set[Unit]]] = {}
    for one in attempt.found:
        if _belongs(one):
            ours, theirs = alike.setdefault((one.source.chain, one.target.chain), (set(), set()))
            ours.update(_whole(one.source))
            theirs.update(_whole(one.target))

    likeness = likeness_of_lists(*attempt.units)
    same = {
        (one.source.chain, one.target.chain)
        for one in attempt.found
        if one.is_named and len(one.target.shapes[one.target.main][0]) > 1
    }

    def is_kept(here: Chain, there: Chain) -> bool:
        """Attention to another tower was put in between: most names are the same, and these were no encoder's."""
        plain = there if ("source", here) in crossing else here
        if any("encoder" in words_of(part) for part in plain):
            return False
        row = [one for one in attempt.found if (one.source.chain, one.target.chain) == (here, there)]
        ends = [[[part.text for part in unit.path[-2:]] for unit in (one.source, one.target)] for one in row]
        return 2 * sum(one == other for one, other in ends) > len(row)

    def holds(one: Match) -> bool:
        here, there = one.source.chain, one.target.chain
        if not here or not there or (here, there) not in alike or (here, there) in same:
            return True
        ours, theirs = alike[here, there]
        if likeness.get((here, there), 0.0) >= signals()["blocks"].agrees:
            return True
        if (("source", here) in crossing) != (("target", there) in crossing) and not is_kept(here, there):
            return False
        return any(
            sum(len(unit.members) for unit in some if _is_matrix(unit) in kinds)
            >= _ALIKE * sum(sizes[side, chain, kind] for kind in kinds)
            for some, side, chain in ((ours, "source", here), (theirs, "target", there))
            for kinds in ((True, False), (True,))
        )

    return [
        one if holds(one) else replace(one, confidence=least_sure([one.confidence, Confidence.GUESS]))
        for one in attempt.found
    ]


def _belongs(one: Match) -> bool:
    """It has its place in the other model, though that may be its neighbour's."""
    return one.confidence.within(Confidence.ALIGNED) or Evidence.REARRANGED in one.evidence


def _is_matrix(unit: Unit) -> bool:
    return len(unit.shapes[unit.main][0]) > 1


def _whole(unit: Unit) -> Iterator[Unit]:
    """What a unit is, or is made of, in all of its blocks."""
    yield from (piece.root or piece for piece in (unit.pieces if unit.kind else (unit,)))


def _stranger(attempt: Attempt) -> str:
    """Why the two may be of another kind, though much matches; nothing if they are not."""
    if _only_blocks(attempt):
        return (
            "the blocks are alike, but neither what stands before them nor what stands behind: another kind of model?"
        )
    layers = [one for one in attempt.found if one.confidence.within(Confidence.ALIGNED) and one.target.chain]
    layers = [one for one in layers if len(one.target.shapes[one.target.main][0]) == 2]
    lacking = [one for one in layers if ("bias" in one.source.shapes) != ("bias" in one.target.shapes)]
    both = any("bias" in one.source.shapes and "bias" in one.target.shapes for one in layers)
    if len(lacking) > 1 and len(lacking) > len(layers) / 2 and not both:
        return "most layers have a bias on one side and none on the other: another kind of model?"
    return ""


def _only_blocks(attempt: Attempt) -> bool:
    """The blocks match and nothing before or behind them does, though both sides have that, under other names.

    Blocks of one width are alike in all libraries, whatever goes into them: words, pictures or sound. What goes in and
    what comes out tells models apart: tensors with an axis that the blocks have not.
    """
    sure = [one for one in attempt.found if one.confidence.within(Confidence.ALIGNED)]
    same = sum(len(one.target.members) for one in sure if one.is_named)
    if same > _SAME_NAMES * sum(len(one.target.members) for one in sure):
        return False
    blocks: dict[Unit, set[Shape]] = defaultdict(set)
    for one in sure:
        whole = one.target.root or one.target
        if whole.chain and len(whole.members) > 1:
            blocks[whole].update(one.target.shapes[one.target.main])
    if 2 * sum(len(shapes) == 1 for shapes in blocks.values()) < len(blocks):
        return False  # of growing widths, which are not those of another kind by chance
    if not are_usual(shape for shapes in blocks.values() for shape in shapes):
        return False
    ours, theirs = map(_ends, attempt.units)
    if any(_of_any_channels(one.target.shapes[one.target.main][0]) in theirs for one in sure):
        return False
    around = [one for one in sure if not one.target.chain and named_words(one.source, one.target)]
    if len(around) >= _AROUND and any("pos" in one.target.words for one in around):
        return False
    return bool(ours or theirs) and not ours & theirs


def _ends(units: Sequence[Unit]) -> set[Shape]:
    """The shapes of what stands before and behind the blocks, and tells a model; two modules alike are no blocks."""
    sizes = Counter(unit.chain for unit in units)
    blocks = {unit for unit in units if unit.chain and (len(unit.members) > 2 or sizes[unit.chain] > 2)}
    widths = {size for unit in blocks for shape in unit.shapes[unit.main] for size in shape[:2]}
    ends = [unit for unit in units if unit not in blocks and _tells(unit, widths)]
    return {_of_any_channels(shape) for unit in ends for shape in unit.shapes[unit.main]}


def _of_any_channels(shape: Shape) -> Shape:
    """A shape; of a kernel without the number of its inputs, for a stem may be given other channels."""
    return (shape[0], *shape[2:]) if len(shape) > 3 else shape


def _tells(unit: Unit, widths: AbstractSet[int]) -> bool:
    """It has an axis that the blocks have not; nothing is told by tables of places, and by heads of few classes."""
    shape = squeezed(unit.shapes[unit.main][0])
    others = [size for size in shape[:2] if size not in widths]
    is_table = "pos" in unit.words or max(others, default=0) < _CLASSES
    whole = unit.shapes[unit.main][0]
    rank = len(whole) - next((at for at, size in enumerate(whole) if size > 1), 0)
    return bool(others) and len(shape) > 1 and (rank > 2 or not is_table)
