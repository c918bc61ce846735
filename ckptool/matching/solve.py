"""Which unit is which: edges that independent signals tell from all rivals, which in turn tell of others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import lru_cache

from ckptool.matching.alike import same_end, shared, similarity
from ckptool.matching.edges import Edge, Match, signals
from ckptool.matching.modules import Unit
from ckptool.matching.relations import squeezed
from ckptool.matching.result import Confidence, Evidence, least_sure
from ckptool.matching.signals import Known
from ckptool.matching.words import vocabulary

_ROUNDS = 12
_PAIRED = 0.4  # of the words agree in every pair of a class that pairs off
_SOME = 0.1  # of the words agree: something besides a shape
_CLEARLY = 0.2  # by which words are better than any other's, against the order
_NAMED = 0.8  # of the words agree, so that they are one name
_BARELY = 0.05  # by which the words that two names share weigh more than those of a rival
_SAME_WORDS = 0.6  # of the words agree, whatever the order says
_MANY = 4  # blocks in which a module has the same shapes on both sides, so that these are no accident
_SEVERAL = 3  # shapes of a module that has another in each block, likewise
_WORDS = 10_000  # of a vocabulary

Judge = Callable[[Edge, Sequence[Edge], bool], Match | None]


class Board:
    """Edges, which of them are taken, and which are each other's rivals."""

    def __init__(self, known: Known, used: dict[Unit, set[int]] | None = None) -> None:
        self.known = known
        self.edges: list[Edge] = []
        self.accepted: list[Edge] = []
        self.used: dict[Unit, set[int]] = {} if used is None else used
        self.by_unit: dict[Unit, list[Edge]] = defaultdict(list)

    def lay(self, edges: Iterable[Edge]) -> None:
        """Takes edges in."""
        for edge in edges:
            self.edges.append(edge)
            for unit in {*edge.source.atoms, *edge.target.atoms}:
                self.by_unit[unit].append(edge)

    def take(self, matches: Iterable[Match]) -> None:
        """Takes what was found otherwise, which tells of what is around it."""
        edges = [
            Edge(one.source, one.target, None, similarity(one.source, one.target), 0.0, one.way) for one in matches
        ]
        self.known.add(edges)
        self.edges += edges
        for edge in edges:
            self._take(edge)

    def give_back(self, matches: Iterable[Match]) -> None:
        """Takes matches off the board again."""
        for one in matches:
            for unit in (one.source, one.target):
                for piece in unit.pieces or (unit,):
                    self.used.get(piece.root or piece, set()).difference_update(piece.rows or range(len(piece.members)))

    def by_order(self) -> list[Match]:
        """As many here as there, and nothing tells them apart: the first to the first."""
        classes: dict[object, list[Edge]] = defaultdict(list)
        for edge in self.edges:
            if self.is_free(edge) and edge.at is None:
                classes[_class(edge)].append(edge)
        found: list[Match] = []
        for row in classes.values():
            ours = sorted({edge.source for edge in row}, key=lambda unit: unit.position)
            theirs = sorted({edge.target for edge in row}, key=lambda unit: unit.position)
            pairs = {(edge.source, edge.target): edge for edge in row}
            if len(ours) != len(theirs) or len(ours) < 2:
                continue
            for one, other in zip(ours, theirs, strict=True):
                if (one, other) in pairs and self.is_free(edge := pairs[one, other]):
                    rival = ours[1] if one is ours[0] else ours[0]
                    self._take(edge)
                    says = (Evidence.ONLY_ORDER,)
                    second = rival, similarity(rival, other)
                    found.append(Match(one, other, says, Confidence.INTERCHANGEABLE, edge.words, second, edge.way))
        return found

    def run(self, judge: Judge) -> list[Match]:
        """All matches that signals agree on, in the order found."""
        found: list[Match] = []
        for number in range(_ROUNDS):
            made = self._round(judge)
            if not made and number:
                break
            found += made
        return found

    def _round(self, judge: Judge) -> list[Match]:
        open_edges = [edge for edge in self.edges if self.is_free(edge)]
        for edge in open_edges:
            self.known.look(edge)
        best: dict[Unit, Edge] = {}
        for edge in open_edges:
            for unit in (*edge.source.atoms, *edge.target.atoms):
                if unit not in best or edge.total > best[unit].total:
                    best[unit] = edge
        free = set(map(id, open_edges))
        mutual = [
            edge
            for edge in open_edges
            if all(
                best[unit] is edge or not _clash(best[unit], edge) for unit in (*edge.source.atoms, *edge.target.atoms)
            )
        ]
        rows = [(edge, self._rivals(edge, free)) for edge in mutual]
        sizes: dict[object, list[tuple[Edge, list[Edge]]]] = defaultdict(list)
        for edge, rivals in rows:
            sizes[_class(edge)].append((edge, rivals))
        made: list[Match] = []
        new: list[Edge] = []
        margin = signals()["words"].margin
        for some in sizes.values():
            all_off = len(some) > 1 and all(
                edge.words >= _PAIRED and edge.fit - max((rival.fit for rival in rivals), default=0.0) >= margin
                for edge, rivals in some
            )
            for edge, rivals in some:
                if self.is_free(edge) and (match := judge(edge, rivals, all_off)):
                    made.append(self._with_former(edge, match, rivals))
                    new.append(edge)
                    self._take(edge)
        if judge is not guess:  # guesses support nothing
            self.known.add(new)
        self.accepted += new
        return made

    def _rivals(self, edge: Edge, free: set[int]) -> list[Edge]:
        rivals = {
            id(other): other
            for unit in (*edge.source.atoms, *edge.target.atoms)
            for other in self.by_unit[unit]
            if other is not edge and id(other) in free and _clash(edge, other)
        }
        return [*rivals.values()]

    def _with_former(self, edge: Edge, match: Match, rivals: Sequence[Edge]) -> Match:
        """The match; what was a rival until it was matched itself is named."""
        former = [one for one in self.by_unit[edge.target] if one.source is not edge.source]
        if rivals or not former:
            return match
        evidence = tuple(Evidence.LAST_OF_SHAPE if one is Evidence.ONLY_OF_SHAPE else one for one in match.evidence)
        second = match.runner_up or runner_up(edge.target, former)
        sure = least_sure([match.confidence, Confidence.ALIGNED])
        return replace(match, evidence=evidence, confidence=sure, runner_up=second)

    def is_free(self, edge: Edge) -> bool:
        """Nothing that it is made of, or makes, is taken; where some blocks are, it is cut down to the others."""
        if not self.used or all(
            unit not in self.used or self.used[unit].isdisjoint(at) for unit, at in edge_claims(edge).items()
        ):
            return True
        if edge.source.kind or edge.target.kind:
            return False
        ours, theirs = (self.used.get(unit.atoms[0], set()) for unit in (edge.source, edge.target))
        here, there = edge.source.rows, edge.target.rows
        left = tuple(
            (at, to)
            for at, to in edge.instances
            if (here[at] if here else at) not in ours and (there[to] if there else to) not in theirs
        )
        if left:
            edge.at, edge.claimed, edge.mapped = left, None, None
        return bool(left)

    def _take(self, edge: Edge) -> None:
        for unit, at in edge_claims(edge).items():
            self.used.setdefault(unit, set()).update(at)


def _claims(edge: Edge) -> Iterator[tuple[Unit, AbstractSet[int]]]:
    for side, unit in enumerate((edge.source, edge.target)):
        for one in unit.pieces or (unit,):
            if edge.at is None and not one.rows:
                yield one.root or one, _first(edge.count)
            else:
                yield one.root or one, {one.rows[row[side]] if one.rows else row[side] for row in edge.instances}


@lru_cache(maxsize=64)
def _first(count: int) -> frozenset[int]:
    """So many instances; most edges need all of those of their units."""
    return frozenset(range(count))


def _clash(one: Edge, other: Edge) -> bool:
    """They need the same tensors of a side, and make others of them."""
    is_same = one.source.atoms == other.source.atoms and one.target.atoms == other.target.atoms
    if is_same and not one.source.kind and not one.target.kind:
        its = _mapping(other)
        back = {to: at for at, to in its.items()}
        return any(its.get(at, to) != to or back.get(to, at) != at for at, to in _mapping(one).items())
    ours, theirs = edge_claims(one), edge_claims(other)
    return any(unit in ours and not ours[unit].isdisjoint(at) for unit, at in theirs.items())


def edge_claims(edge: Edge) -> dict[Unit, AbstractSet[int]]:
    """The units that an edge needs, with the instances."""
    if edge.claimed is None:
        edge.claimed = dict(_claims(edge))
    return edge.claimed


def _mapping(edge: Edge) -> dict[int, int]:
    """Which instance of the whole source is which of the whole target."""
    if edge.mapped is None:
        source, target = edge.source.rows, edge.target.rows
        edge.mapped = {source[at] if source else at: target[to] if target else to for at, to in edge.instances}
    return edge.mapped


def _class(edge: Edge) -> object:
    return edge.target.chain, tuple(squeezed(shape) for shape in edge.target.shapes[edge.target.main][:4]), edge.count


def runner_up(target: Unit, rivals: Iterable[Edge]) -> tuple[Unit, float] | None:
    """The next best source of a target, and its score."""
    best = max((one for one in rivals if one.target is target), key=lambda one: one.total, default=None)
    return (best.source, best.total) if best else None


def judge(edge: Edge, rivals: Sequence[Edge], all_off: bool) -> Match | None:
    """The match, if signals that do not depend on each other agree on it and none speaks against it."""
    rows = signals()
    rivals = [rival for rival in rivals if not _is_elsewhere(edge, rival)]
    words = max((rival.fit for rival in rivals), default=-1.0)
    order = max((rival.order or 0.0 for rival in rivals), default=0.0)
    mine, same = edge.fit, edge.is_same
    by_words = rows["words"].told(mine, words) and (edge.words >= _NAMED or _says_more(edge, rivals))
    learnt = rows["learnt"].told(edge.learnt, max((rival.learnt for rival in rivals), default=0.0))
    if not all(_tells(edge, rival) for rival in rivals):
        return None
    out_of_order = edge.order is not None and order - edge.order >= rows["order"].margin and mine - words < _CLEARLY
    against = (
        words - mine >= rows["words"].margin
        or rows["around"].rejects(edge.context)
        or (rows["siblings"].rejects(edge.siblings) and not by_words and bool(rivals))
        or (rows["order"].rejects(edge.order) and mine < _SAME_WORDS and bool(rivals))
        or out_of_order
        or (edge.backwards and edge.words < _SOME)
    )
    if against and not same:
        return None
    says = {
        Evidence.SAME_NAME: same,
        Evidence.SAME_UNDER_PREFIX: not same and by_words and same_end(edge.source, edge.target),
        Evidence.ONLY_OF_SHAPE: not rivals,
        Evidence.PAIR_OFF: all_off,
        Evidence.WORDS_AGREE: rows["words"].supports(mine) or learnt,
        Evidence.NEIGHBOURS_AGREE: rows["around"].supports(edge.context),
        Evidence.SAME_SHAPES: edge.whole,
        Evidence.SAME_BLOCKS: not rivals and (edge.held or rows["blocks"].supports(edge.blocks)),
        Evidence.SAME_TABLE: not rivals and _is_vocabulary(edge),
        Evidence.ORDER_AGREES: rows["order"].supports(edge.order),
    }
    evidence = tuple(said for said, holds in says.items() if holds)
    if not same and not is_supported(edge):
        return None
    if len(evidence) < 2 and not (same and mine - words >= 0.05):
        return None
    confidence = Confidence.UNIQUE if not rivals else Confidence.ALIGNED
    return Match(*edge.cut(), evidence, confidence, edge.total, runner_up(edge.target, rivals), edge.way)


def _tells(edge: Edge, rival: Edge) -> bool:
    """A signal tells a pair from a rival: words, those learnt, what lies around it, or the order."""
    rows = signals()
    by_words = rows["words"].told(edge.fit, rival.fit) and (edge.words >= _NAMED or _says_more(edge, [rival]))
    others = (("learnt", edge.learnt, rival.learnt), ("around", edge.context, rival.context))
    return by_words or any(
        rows[name].told(mine, its or 0.0) for name, mine, its in (*others, ("order", edge.order, rival.order))
    )


def _is_elsewhere(edge: Edge, rival: Edge) -> bool:
    """The rival is in a list whose blocks hold something else, or that is another's, and words do not speak for it."""
    rows = signals()
    is_other = rows["blocks"].told(edge.blocks, rival.blocks or 0.0)
    is_others = rival.context is not None and rows["around"].told(edge.context, rival.context)
    return (is_other or is_others) and rival.fit <= edge.fit


def _says_more(edge: Edge, rivals: Iterable[Edge]) -> bool:
    """Both names have more in common than those of any rival: fewer words that they have not says nothing."""
    mine = shared(edge.source, edge.target)
    said = edge.source.words.keys() | edge.target.words.keys()
    return all(
        mine - shared(rival.source, rival.target) >= _BARELY
        or rival.penalty > edge.penalty
        or not vocabulary().marks.isdisjoint({*rival.source.words, *rival.target.words} - said)
        for rival in rivals
    )


def is_supported(edge: Edge) -> bool:
    """Something besides one shape speaks for it: some words, or two of neighbours, order, many shapes."""
    in_order, near = signals()["order"].supports(edge.order), signals()["around"].supports(edge.context)
    shapes = {squeezed(shape) for shape in edge.source.shapes[edge.source.main]}
    many = edge.count >= _MANY or len(shapes) >= _SEVERAL
    matrix = len(squeezed(edge.source.shapes[edge.source.main][0])) > 1  # equal by accident less often than a norm
    whole = edge.whole and (many or edge.aligned or len(edge.source.shapes[edge.source.main][0]) > 1)
    whole = whole or (matrix and many and (edge.held or signals()["blocks"].supports(edge.blocks)))
    whole = whole or _is_vocabulary(edge)
    return edge.fit >= _SOME or (near and (many or matrix)) or (in_order and (near or matrix)) or whole


def _is_vocabulary(edge: Edge) -> bool:
    """A table with a row for each of so many words that no other has as many by chance."""
    shape = edge.source.shapes[edge.source.main][0]
    return edge.count == 1 and len(shape) == 2 and max(shape) >= _WORDS


def guess(edge: Edge, rivals: Sequence[Edge], all_off: bool) -> Match | None:
    """A match that one signal tells from all others, though nothing else supports it, or something is against it."""
    second = max(rivals, key=lambda rival: rival.total, default=None)
    if edge.fit < 0.15 or (second is not None and edge.total - second.total < signals()["words"].margin):
        return None
    is_split = signals()["siblings"].rejects(edge.siblings)
    says = (Evidence.BEST_OF_SHAPE, *([Evidence.SPLIT] if is_split else []))
    return Match(*edge.cut(), says, Confidence.GUESS, edge.total, runner_up(edge.target, rivals), edge.way)
