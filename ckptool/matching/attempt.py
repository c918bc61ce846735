"""One way to cut two checkpoints into units, matched; and which way is the best."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ckptool.matching.alike import OPTIONAL, compatible, same_end, signature
from ckptool.matching.blocks import laid_lists
from ckptool.matching.doubts import doubted
from ckptool.matching.edges import Edge, Match, as_guess, edges_of
from ckptool.matching.groups import made_units
from ckptool.matching.instances import Pair, hung, instances_of, strayed
from ckptool.matching.lists import aligned_lists
from ckptool.matching.modules import HUGE, Unit
from ckptool.matching.orient import Orientation, is_bare_square, orientation
from ckptool.matching.result import Confidence, Evidence
from ckptool.matching.sequence import in_sequence
from ckptool.matching.signals import Known
from ckptool.matching.solve import Board, guess, judge

Places = tuple[Mapping[str, int], Mapping[str, int]]

_NAMED = 0.4  # of the words agree, at least, where a bias has no matrix beside it
_MOSTLY = 0.8  # of the tensors of the smaller side match, so that what one signal tells of the others is right


def best_of(tries: Sequence[Attempt]) -> Attempt:
    """The attempt that matches the most."""
    return max(tries, key=lambda attempt: (attempt.score, -len(attempt.found)))


@dataclass(slots=True)
class Attempt:
    """One way to cut the keys into units, matched.

    Attributes:
        sources: the source's units.
        targets: the target's.
        places: of every key in its file.
        ordered: of each file, whether its order means something.
        found: matches.
        weighed: all edges.
        board: all edges of whole units, and what is taken.
    """

    sources: list[Unit]
    targets: list[Unit]
    places: Places
    ordered: Sequence[bool]
    found: list[Match] = field(default_factory=list)
    weighed: list[Edge] = field(default_factory=list)
    board: Board = field(default_factory=lambda: Board(Known()))

    @property
    def units(self) -> tuple[list[Unit], list[Unit]]:
        return self.sources, self.targets

    @property
    def score(self) -> int:
        """Tensors matched with confidence."""
        return sum(_tensors(one) for one in self.found if one.confidence.within(Confidence.ALIGNED))

    def run(self) -> None:
        """All stages."""
        ways = orientation(self.sources, self.targets)
        made = (
            [*units, *made_units(units, places, ways.io)] for units, places in zip(self.units, self.places, strict=True)
        )
        ours, theirs = made
        laid = laid_lists(self.sources, self.targets)
        board = self.board = Board(Known(speaks=all(self.ordered)))
        board.lay(edges_of(ours, theirs, laid, ways.io))
        is_same = _hold_the_same(*self.units)
        for edge in board.edges if is_same else ():
            edge.whole = True
        self._lists(board, ways)
        self._add(board.run(judge), ways.doubtful)
        self._sequence(board, ways)
        self._hang(board, ways.doubtful)
        if self.found:
            self._add([*board.run(guess), *board.by_order()], ways.doubtful)
        self._residue(board.known)
        self.weighed += board.edges
        self._most()
        self._doubt(ways.io, is_same=is_same)

    def _lists(self, board: Board, ways: Orientation) -> None:
        """Lists whose blocks are alike one after the other, though not all are of one kind."""
        found: list[Edge] = []
        for group in aligned_lists(*self.units, lambda unit: signature(unit, unit in ways.io), self.places):
            cut = [*group.sources, *group.targets]
            io = ways.io | {unit for unit in cut if unit.root in ways.io}
            ours, theirs = (
                [*units, *made_units(units, places, io)]
                for units, places in zip((group.sources, group.targets), self.places, strict=True)
            )
            edges = edges_of(ours, theirs, [], frozenset(io))
            for edge in edges:
                edge.whole = edge.aligned = True
            inner = Board(Known(speaks=board.known.speaks), board.used)
            inner.lay(edges)
            self._add(inner.run(judge), ways.doubtful)
            found += inner.accepted
            self.weighed += inner.edges
        board.known.add(found)

    def _add(self, matches: Iterable[Match], doubtful: frozenset[str] = frozenset()) -> None:
        """Takes matches over; those of square matrices that may have turned round are guesses."""
        for one in matches:
            may_turn = is_bare_square(one.source) != is_bare_square(one.target)
            is_doubtful = may_turn or not doubtful.isdisjoint(_main_keys(one))
            self.found.append(as_guess(one, Evidence.SQUARE) if is_doubtful else one)

    def _sequence(self, board: Board, ways: Orientation) -> None:
        """What the order of the whole files says, if nothing speaks against it."""
        known = {
            key: one.source.keys[role][at]
            for one in self.found
            if not one.source.kind and not one.target.kind
            for role, keys in one.target.keys.items()
            if role in one.source.keys
            for at, key in enumerate(keys)
        }
        found, others = in_sequence(self.sources, self.targets, self.places, known, ways.io, self.ordered)
        wrong = [one for one in self.found if not others.isdisjoint(_main_keys(one))]
        if any(one.is_named for one in wrong):
            return
        board.give_back(wrong)
        self.found = [one for one in self.found if one not in wrong]
        self._add(found, ways.doubtful)
        board.take(found)
        self._add(board.run(judge), ways.doubtful)

    def _hang(self, board: Board, doubtful: frozenset[str]) -> None:
        """Norms that stand beside matrices which are each other's."""
        laid, beside = self._beside()
        used = {id(one) for pair in laid for one in pair}
        says = (Evidence.BESIDE,)
        found = [
            Match(one.unit.restricted([one.at]), other.unit.restricted([other.at]), says, Confidence.ALIGNED)
            for one, other in beside
            if used.isdisjoint((id(one), id(other))) and compatible(one.unit, other.unit)
        ]
        self._add(found)
        board.take(found)
        if found:
            self._add(board.run(judge), doubtful)

    def _beside(self) -> tuple[list[Pair], list[Pair]]:
        """What is matched for sure, module by module, and the norms that are each other's by their matrices."""
        if max(map(len, self.places)) > HUGE:
            return [], []
        ours, theirs = (
            instances_of(units, place, frozenset(), True) for units, place in zip(self.units, self.places, strict=True)
        )
        there = {one.key: one for one in theirs}
        here = {one.key: one for one in ours}
        laid = [
            (here[at], there[to])
            for one in self.found
            if not one.source.kind and not one.target.kind and one.confidence.within(Confidence.ALIGNED)
            for at, to in zip(*(unit.keys[unit.main] for unit in (one.source, one.target)), strict=True)
            if at in here and to in there
        ]
        return laid, hung(laid, (ours, theirs))

    def _residue(self, known: Known) -> None:
        """Tensors of modules of which others are matched, or have changed their size: biases beside a fused matrix."""
        taken: list[set[str]] = [set(), set()]
        for one in self.found:
            for side, unit in enumerate((one.source, one.target)):
                for role in one.source.shapes.keys() & one.target.shapes.keys():
                    rows = unit.groups[role] if unit.groups else (unit.keys[role],)
                    taken[side].update(key for row in rows for key in row)
        ours, theirs = (_left(units, keys) for units, keys in zip(self.units, taken, strict=True))
        board = Board(known)
        board.lay(
            edge
            for edge in edges_of(ours, theirs, [], frozenset())
            if edge.is_same or (edge.words >= _NAMED and _is_rest(edge))
        )
        self._add(board.run(judge))

    def _most(self) -> None:
        """What one signal tells where most of the model matches already, is taken; elsewhere it stays a guess."""
        sure = sum(_tensors(one) for one in self.found if one.confidence.within(Confidence.ALIGNED))
        sizes = [sum(len(unit.members) * len(unit.shapes) for unit in units) for units in self.units]
        if sure >= _MOSTLY * min(sizes):
            self.found = [_taken(one) for one in self.found]

    def _doubt(self, io: frozenset[Unit], *, is_same: bool) -> None:
        """Matches that others speak against become guesses."""
        beside = {(one.key, other.key) for one, other in self._beside()[1]}
        self.found = [
            replace(one, evidence=(*one.evidence, Evidence.BESIDE))
            if Evidence.BESIDE not in one.evidence and beside.issuperset(_pairs(one))
            else one
            for one in self.found
        ]
        sure = [one for one in self.found if one.confidence.within(Confidence.ALIGNED)]
        doubts = doubted(sure, *self.units, ordered=all(self.ordered), is_same=is_same) | strayed(sure, *self.units, io)
        self.found = [as_guess(one, doubts[one]) if one in doubts else one for one in self.found]


def _hold_the_same(ours: Iterable[Unit], theirs: Iterable[Unit]) -> bool:
    """Both sides have modules of the same sizes equally often."""
    kinds = [
        Counter(
            (frozenset(unit.shapes.keys() - OPTIONAL), math.prod(shape))
            for unit in units
            for shape in unit.shapes[unit.main]
        )
        for units in (ours, theirs)
    ]
    return kinds[0] == kinds[1]


def _pairs(one: Match) -> set[tuple[str, str]]:
    """The keys that are each other's, of the main role."""
    return {*zip(*(unit.keys[unit.main] for unit in (one.source, one.target)), strict=False)}


def _left(units: Sequence[Unit], taken: set[str]) -> list[Unit]:
    """What is left of modules without their matrices, as modules of their own."""
    found: list[Unit] = []
    for unit in units:
        roles = [role for role in unit.shapes if role != "weight" and not taken & set(unit.keys[role])]
        if roles and (len(roles) < len(unit.shapes) or "weight" not in unit.shapes):
            keys, shapes = {role: unit.keys[role] for role in roles}, {role: unit.shapes[role] for role in roles}
            found.append(replace(unit, keys=keys, shapes=shapes, root=None, rows=()))
    return found


def _is_rest(edge: Edge) -> bool:
    """The module of one side has no matrix, or both have the same name but for what stands before it."""
    return (
        same_end(edge.source, edge.target) or "weight" not in edge.source.written or "weight" not in edge.target.written
    )


def _taken(one: Match) -> Match:
    if one.evidence != (Evidence.BEST_OF_SHAPE,) or (_is_square(one.source) and one.source.bare != one.target.bare):
        return one
    return replace(one, evidence=(*one.evidence, Evidence.MOST_MATCH), confidence=Confidence.ALIGNED)


def _tensors(one: Match) -> int:
    return len(one.target.members) * len(one.target.shapes)


def _main_keys(match: Match) -> set[str]:
    """The main keys of both units, and of those that they are made of."""
    units = (match.source, match.target, *match.source.pieces, *match.target.pieces)
    return {key for unit in units for key in unit.keys[unit.main]}


def _is_square(unit: Unit) -> bool:
    return all(len(shape) == 2 and shape[0] == shape[1] for shape in unit.shapes[unit.main])
