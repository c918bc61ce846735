"""Which unit may be which: every pair of units whose tensors one relation makes of each other, block by block."""

from __future__ import annotations

import math
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from ckptool.matching.alike import compatible, penalty, same_end, similarity
from ckptool.matching.blocks import Laid, likeness_of_lists
from ckptool.matching.modules import Shape, Unit
from ckptool.matching.orient import is_bare_square
from ckptool.matching.relations import relation, squeezed
from ckptool.matching.result import Confidence, Evidence, least_sure

Instances = tuple[tuple[int, int], ...]
Chain = tuple[str, ...]

_LARGEST = 40_000  # pairs of units of one size that are compared; of more only those of equal names
_SAMPLED = 8  # blocks of one shape, of more the first tells
_OTHER_LENGTH = 0.5  # less for a pair of lists of which one has the same blocks as another list, as many of them
_KINDS = 3  # shapes of matrices that two lists have both
_MOST_LACKING = 0.25  # of the blocks that both have, at most, where the shapes are not the same


@dataclass(frozen=True, slots=True)
class Signal:
    """A row of `signals.toml`, which says what each column means."""

    group: str
    weight: float
    tells: float
    margin: float
    agrees: float
    objects: float

    def told(self, mine: float | None, best: float) -> bool:
        """It tells a pair from a rival of which it says `best`."""
        return mine is not None and mine >= self.tells and mine - best >= self.margin

    def supports(self, mine: float | None) -> bool:
        """It agrees with a pair."""
        return mine is not None and mine >= self.agrees

    def rejects(self, mine: float | None) -> bool:
        """It speaks against a pair."""
        return mine is not None and mine < self.objects


@cache
def signals() -> dict[str, Signal]:
    """What is known of each signal.

    Example:
        >>> signals()["order"].told(0.9, 0.5), signals()["around"].rejects(0.1), signals()["words"].supports(0.1)
        (True, True, False)
    """
    return {
        name: Signal(**row)
        for name, row in tomllib.loads((files("ckptool.matching") / "signals.toml").read_text(encoding="utf-8")).items()
    }


@dataclass(frozen=True, slots=True)
class Match:
    """A unit of the source for one of the target.

    Attributes:
        source: it.
        target: it.
        evidence: what speaks for it.
        confidence: how sure it is.
        score: all signals together.
        runner_up: the next best unit of the source, with its score.
        way: which of both has its inputs before its outputs, "source" or "target"; "" if both or none.
    """

    source: Unit
    target: Unit
    evidence: tuple[Evidence, ...]
    confidence: Confidence
    score: float = 0.0
    runner_up: tuple[Unit, float] | None = None
    way: str = ""

    @property
    def is_named(self) -> bool:
        """The names are the same, all of them or what stands behind a prefix."""
        return any(said.is_name for said in self.evidence)


def as_guess(one: Match, why: Evidence) -> Match:
    """The match, of which something makes a guess."""
    return replace(one, evidence=(*one.evidence, why), confidence=least_sure([one.confidence, Confidence.GUESS]))


@dataclass(eq=False, slots=True)
class Edge:
    """A unit of the source that may be one of the target, and what the signals say of it, each 0 to 1.

    Attributes:
        source: it.
        target: it.
        at: which instance is which, where not all are one after the other; None for all.
        words: how much their names agree.
        penalty: what does not fit quite.
        way: which of both has its inputs before its outputs, "source" or "target"; "" if both or none.
        laid: their lists were laid side by side.
        backwards: one list is counted from the other's end.
        context: how much of what lies around the one lies around the other; None where nothing is known.
        siblings: the same of the module that they are in alone.
        whole: both sides hold the same shapes equally often, so that each unit has a counterpart.
        blocks: how much the blocks of their lists hold the same; None outside of lists.
        learnt: where else the one's name is matched, it is with the other's, and the other way round.
        aligned: their blocks are those of lists that are alike block by block.
        held: all shapes of matrices in the blocks of one list are in those of the other.
        order: how much of their block stands on the same side of both; None where the order says nothing.
    """

    source: Unit
    target: Unit
    at: Instances | None
    words: float
    penalty: float
    way: str = ""
    laid: Laid | None = None
    context: float | None = None
    siblings: float | None = None
    order: float | None = None
    blocks: float | None = None
    learnt: float = 0.0
    whole: bool = False
    aligned: bool = False
    held: bool = False
    claimed: dict[Unit, AbstractSet[int]] | None = None
    mapped: dict[int, int] | None = None

    @property
    def backwards(self) -> bool:
        return self.laid is not None and self.laid.backwards

    @property
    def fit(self) -> float:
        """The words, less what does not fit."""
        return self.words - self.penalty

    @property
    def total(self) -> float:
        """All signals together."""
        rows = signals()
        others = {"around": self.context, "order": self.order, "blocks": self.blocks, "learnt": self.learnt}
        return self.fit + sum(rows[name].weight * (said or 0.0) for name, said in others.items())

    @property
    def count(self) -> int:
        return len(self.source.members) if self.at is None else len(self.at)

    @property
    def instances(self) -> Instances:
        """Which instance of the source is which of the target."""
        return tuple((at, at) for at in range(len(self.source.members))) if self.at is None else self.at

    @property
    def is_same(self) -> bool:
        """The names are equal."""
        is_named = len(self.source.path) == len(self.target.path) and same_end(self.source, self.target)
        return is_named and not self.backwards

    def cut(self) -> tuple[Unit, Unit]:
        """Both units with these instances alone."""
        if self.at is None:
            return self.source, self.target
        rows = [*zip(*self.at, strict=True)]
        both = (self.source, self.target)
        return tuple(
            unit if list(row) == list(range(len(unit.members))) else unit.restricted(row)
            for unit, row in zip(both, rows, strict=True)
        )  # type: ignore[return-value]


def edges_of(
    sources: Sequence[Unit], targets: Sequence[Unit], laid: Iterable[Laid], turned: frozenset[Unit]
) -> list[Edge]:
    """Every pair of units that may be each other.

    Args:
        sources: of the source, those that are made of several among them.
        targets: the same.
        laid: lists side by side.
        turned: units whose matrices have their inputs before their outputs.
    """
    found: list[Edge] = []
    seen: set[tuple[int, int]] = set()
    inside = [defaultdict[tuple[str, ...], list[Unit]](list) for _ in range(2)]
    for units, row in zip((sources, targets), inside, strict=True):
        for unit in units:
            row[unit.chain].append(unit)
    for lists in laid:
        for one, other in _narrowed(inside[0][lists.source], inside[1][lists.target]):
            if compatible(one, other) and (edge := _beside(one, other, lists, turned)):
                seen.add((id(one), id(other)))
                found.append(edge)
    sizes: dict[object, list[Unit]] = defaultdict(list)
    for unit in targets:
        sizes[_sizes(unit)].append(unit)
    rows: dict[object, list[Unit]] = defaultdict(list)
    for unit in sources:
        rows[_sizes(unit)].append(unit)
    for size, units in rows.items():
        for one, other in _narrowed(units, sizes.get(size, [])):
            if (id(one), id(other)) not in seen and compatible(one, other) and _are_related(one, other, turned):
                way = flip(one, other, turned)
                found.append(Edge(one, other, None, similarity(one, other), penalty(one, other), way))
    _compare_lists(found, sources, targets)
    return found


def _compare_lists(edges: Iterable[Edge], sources: Sequence[Unit], targets: Sequence[Unit]) -> None:
    """Says of each pair what the lists that both are in have in common: their blocks, matrices and lengths."""
    alike = likeness_of_lists(sources, targets)
    lengths = _lengths(sources), _lengths(targets)
    matrices = _matrices(sources), _matrices(targets)
    equal = {
        (here, there)
        for (here, there), share in alike.items()
        if lengths[0][here] == lengths[1][there] and signals()["blocks"].supports(share)
    }
    sides = {here for here, _ in equal}, {there for _, there in equal}
    for edge in edges:
        here, there = edge.source.chain, edge.target.chain
        if (here, there) not in equal and (here in sides[0] or there in sides[1]) and not edge.is_same:
            edge.penalty += _OTHER_LENGTH
        edge.blocks = alike.get((here, there))
        mine, its = matrices[0][here], matrices[1][there]
        edge.held = len(mine & its) >= _KINDS and (mine <= its or its <= mine)


def _lengths(units: Iterable[Unit]) -> dict[Chain, int]:
    """How many blocks each list has."""
    found: dict[Chain, set[tuple[int, ...]]] = defaultdict(set)
    for unit in units:
        found[unit.chain].update(unit.numbers)
    return {chain: len(numbers) for chain, numbers in found.items()}


def _matrices(units: Iterable[Unit]) -> dict[Chain, set[Shape]]:
    """The shapes of the matrices in the blocks of each list."""
    found: dict[Chain, set[Shape]] = defaultdict(set)
    for unit in units:
        shapes = {squeezed(shape) for shape in unit.shapes[unit.main]}
        if unit.chain and not unit.kind and any(len(shape) > 1 for shape in shapes):
            found[unit.chain] |= shapes
    return found


def flip(source: Unit, target: Unit, turned: frozenset[Unit]) -> str:
    """Which of the two has its inputs before its outputs, where that is one of them only.

    A matrix that is a parameter by itself turns round where it becomes a module's.
    """
    way = (source in turned) - (target in turned)
    heads = _has_heads(source) - _has_heads(target)
    if not way and heads and turned.isdisjoint((source, target)) and _may_turn(source, target):
        way = heads  # Flax has the inputs of q first, and the outputs of what joins heads last
    if way == -heads:  # one is turned against the other, which is said of that with heads
        way = heads
    if (
        not way
        and source.bare != target.bare
        and (is_bare_square(source) or is_bare_square(target) or _turns(source, target))
    ):
        way = source.bare - target.bare
    return ("", "source", "target")[way]


def _has_heads(unit: Unit) -> bool:
    """One of the axes of its matrices is cut into heads."""
    return all(len(shape) == 3 and min(shape) > 1 for shape in unit.shapes[unit.main])


def _may_turn(source: Unit, target: Unit) -> bool:
    """Of one with heads and one without: the latter are square, or the tensors are not one with their axes in order."""
    pairs = [*zip(source.shapes[source.main], target.shapes[target.main], strict=False)]
    matrices = [min(pair, key=len) for pair in pairs]
    is_square = all(len(shape) == 2 and shape[0] == shape[1] for shape in matrices)
    return is_square or all(relation(*pair) is None for pair in pairs)


def _turns(source: Unit, target: Unit) -> bool:
    """The matrices of one have the axes of the other's the other way round."""
    pairs = [*zip(source.shapes[source.main], target.shapes[target.main], strict=False)]
    return all(len(one) == len(other) == 2 and one == other[::-1] != other for one, other in pairs)


def _sizes(unit: Unit) -> tuple[int, ...]:
    return tuple(math.prod(shape) for shape in unit.shapes[unit.main])


def _are_related(one: Unit, other: Unit, turned: frozenset[Unit]) -> bool:
    way = flip(one, other, turned)
    places = range(len(one.members))
    if len(set(_sizes(one))) == 1 and len(places) > _SAMPLED and one.is_even and other.is_even:
        places = range(1)
    return all(_is_tensor(one, other, (at, at), way) for at in places)


def _is_tensor(one: Unit, other: Unit, at: tuple[int, int], way: str) -> bool:
    return all(
        relation(one.shapes[role][at[0]], other.shapes[role][at[1]], way if role == one.main else "") is not None
        for role in one.shapes.keys() & other.shapes.keys()
    )


def _beside(one: Unit, other: Unit, laid: Laid, turned: frozenset[Unit]) -> Edge | None:
    """The pair in the blocks that both have, if their tensors there are the same but for a few."""
    way = flip(one, other, turned)
    is_even = one.is_even and other.is_even
    if is_even and not _is_tensor(one, other, (0, 0), way):
        return None
    there = other.by_number
    at = [
        (here, there[laid.blocks[numbers]])
        for here, numbers in enumerate(one.numbers)
        if laid.blocks.get(numbers) in there
    ]
    kept = at if is_even else [row for row in at if _is_tensor(one, other, row, way)]
    if not kept or len(kept) < (1 - _MOST_LACKING) * len(at):
        return None
    whole = len(kept) == len(one.members) == len(other.members) and all(a == b for a, b in kept)
    return Edge(one, other, None if whole else tuple(kept), similarity(one, other), penalty(one, other), way, laid)


def _narrowed(ours: Sequence[Unit], theirs: Sequence[Unit]) -> Iterator[tuple[Unit, Unit]]:
    """Which units are compared with which: of very many those whose last parts are equal, or whole names."""
    for last in (0, 1, 60):  # parts that must be equal
        rows: dict[tuple[str, ...], list[Unit]] = defaultdict(list)
        for unit in theirs:
            rows[_ending(unit, last)].append(unit)
        found = [(unit, rows.get(_ending(unit, last), [])) for unit in ours]
        if sum(len(some) for _, some in found) <= _LARGEST:
            yield from ((unit, other) for unit, some in found for other in some)
            return


def _ending(unit: Unit, parts: int) -> tuple[str, ...]:
    return tuple(part.text for part in unit.path[-parts:]) if parts else ()
