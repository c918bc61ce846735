"""Which unit of the source is which of the target: within classes of equal shapes, by signals that must agree.

Shapes only say who may be whom. Words, the neighbours already matched (context) and the order in the file are
independent of each other: a pair is made where one of them tells it from all others and another one supports it, and
refused where any speaks against it. What is found in one round is context and order for the next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ckptool.matching.alike import Form, compatible, penalty, similarity, squeezed
from ckptool.matching.known import AGAINST, Known
from ckptool.matching.modules import Shape, Unit
from ckptool.matching.result import Confidence, Evidence, least_sure

_ROUNDS = 8
_LARGEST_CLASS = 40_000  # pairs of a class that are compared; of larger ones only those of equal names
_MANY = 4  # blocks in which a module has the same shapes on both sides, so that these are no accident
_MARGIN = 0.04  # by which words must be better than for any other


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
        habit: whose code has it so, where names alone do not say which of two it is.
    """

    source: Unit
    target: Unit
    evidence: tuple[Evidence, ...]
    confidence: Confidence
    score: float = 0.0
    runner_up: tuple[Unit, float] | None = None
    habit: str = ""


def as_guess(one: Match, why: Evidence) -> Match:
    """The match, of which something makes a guess."""
    return replace(one, evidence=(*one.evidence, why), confidence=least_sure([one.confidence, Confidence.GUESS]))


@dataclass(slots=True)
class Candidate:
    """One possible pair with its signals, each 0 to 1; order is None where it cannot be asked."""

    source: Unit
    target: Unit
    words: float
    context: float | None = None
    order: float | None = None
    penalty: float = 0.0
    is_whole: bool = False

    @property
    def fit(self) -> float:
        """The words, less what does not fit."""
        return self.words - self.penalty

    def is_supported(self, words: float) -> bool:
        """Something besides one shape speaks for it: some words, or two of neighbours, order, many shapes."""
        in_order = self.order is not None and self.order >= 0.75
        many = len(self.source.members) >= _MANY
        near = self.context is not None and self.context >= 0.5
        matrix = len(squeezed(self.source.shapes[self.source.main][0])) > 1  # equal by accident less often than a norm
        whole = self.is_whole and (many or len(self.source.shapes[self.source.main][0]) > 1)
        return words >= 0.1 or (near and many) or (in_order and (near or matrix)) or whole

    @property
    def total(self) -> float:
        """All signals together."""
        context, order = self.context, self.order
        return (
            self.words
            + (0.6 * context if context is not None else 0.0)
            + (0.5 * order if order is not None else 0.0)
            - self.penalty
        )


class Classes:
    """Units of equal shapes, and the rounds in which they are assigned."""

    def __init__(
        self, sources: Iterable[Unit], targets: Iterable[Unit], form: Form, known: Known, taken: set[Unit]
    ) -> None:
        self.known, self.taken = known, taken
        self.rows: list[list[Candidate]] = []
        self.by_target: dict[Unit, list[Candidate]] = defaultdict(list)
        ours: dict[tuple[Shape, ...], list[Unit]] = defaultdict(list)
        for unit in sources:
            ours[form(unit)].append(unit)
        theirs: dict[tuple[Shape, ...], list[Unit]] = defaultdict(list)
        for unit in targets:
            theirs[form(unit)].append(unit)
        for shapes, units in ours.items():
            if shapes not in theirs:
                continue
            turned = tuple(shape[::-1] for shape in shapes if len(shape) == 2)
            across = theirs.get(turned, ()) if turned != shapes and len(turned) == len(shapes) else ()
            if row := _candidates(units, theirs[shapes], across):
                self.rows.append(row)
                for one in row:
                    self.by_target[one.target].append(one)

    def run(self) -> list[Match]:
        """All matches that signals agree on, in the order found."""
        found: list[Match] = []
        for number in range(_ROUNDS):
            made = [match for row in self.rows for match in self._decide(row)]
            if not made and number:
                break
            self.known.add((match.source, match.target) for match in made)
            found += made
        return found

    def left(self) -> list[Match]:
        """What is left where units could be told apart by one signal, or by their order alone: to be looked at."""
        found: list[Match] = []
        for row in self.rows:
            free = self.open(row)
            for one, rivals in rivalries(free):
                if self._is_free(one.source) and self._is_free(one.target) and (match := guess(one, rivals)):
                    found.append(match)
                    self.taken |= {one.source, one.target, *one.source.pieces, *one.target.pieces}
            found += self._by_order(self.open(row))
        return found

    def _by_order(self, free: Sequence[Candidate]) -> Iterable[Match]:
        """As many here as there, and nothing tells them apart: the first to the first."""
        ours = sorted({one.source for one in free}, key=lambda unit: unit.position)
        theirs = sorted({one.target for one in free}, key=lambda unit: unit.position)
        pairs = {(one.source, one.target): one for one in free}
        if len(ours) != len(theirs) or len(ours) < 2:
            return
        for one, other in zip(ours, theirs, strict=True):
            if (one, other) in pairs and self._is_free(one) and self._is_free(other):
                rival = ours[1] if one is ours[0] else ours[0]
                self.taken |= {one, other, *one.pieces, *other.pieces}
                second = rival, similarity(rival, other)
                says = (Evidence.ONLY_ORDER,)
                yield Match(one, other, says, Confidence.INTERCHANGEABLE, similarity(one, other), second)

    def open(self, row: Sequence[Candidate]) -> list[Candidate]:
        """The candidates of a class that are still free, with their signals brought up to date."""
        free = [one for one in row if self._is_free(one.source) and self._is_free(one.target)]
        for one in free:
            one.context = self.known.context(one.source, one.target)
            one.order = self.known.order(one.source, one.target)
            one.is_whole = self.known.is_whole
        return free

    def _decide(self, row: list[Candidate]) -> list[Match]:
        free = self.open(row)
        row[:] = free
        made = []
        mutual = rivalries(free)
        all_off = _pair_off(free, mutual)
        for one, rivals in mutual:
            if self._is_free(one.source) and self._is_free(one.target) and (match := judge(one, rivals, all_off)):
                made.append(self._with_former(match))
                self.taken |= {one.source, one.target, *one.source.pieces, *one.target.pieces}
        return made

    def _with_former(self, match: Match) -> Match:
        """The match; what was a rival until it was matched itself is named."""
        former = [one for one in self.by_target[match.target] if one.source is not match.source]
        if not former:
            return match
        last = {Evidence.ONLY_OF_SHAPE: Evidence.LAST_OF_SHAPE}
        evidence = tuple(last.get(one, one) for one in match.evidence)
        second = match.runner_up or runner_up(match.target, former)
        sure = least_sure([match.confidence, Confidence.ALIGNED])
        return replace(match, evidence=evidence, confidence=sure, runner_up=second)

    def _is_free(self, unit: Unit) -> bool:
        return unit not in self.taken and self.taken.isdisjoint(unit.pieces)


def _pair_off(free: Sequence[Candidate], mutual: Sequence[tuple[Candidate, Sequence[Candidate]]]) -> bool:
    """The words alone pair all units of the class off, one to one."""
    ours, theirs = len({one.source for one in free}), len({one.target for one in free})
    return ours == theirs == len(mutual) > 1 and all(
        one.words >= 0.4 and one.fit - max((rival.fit for rival in rivals), default=0.0) >= _MARGIN
        for one, rivals in mutual
    )


def is_suffix(source: Unit, target: Unit) -> bool:
    """One's name is the end of the other's."""
    ours, theirs = ([part.text for part in unit.path] for unit in (source, target))
    shorter = min(len(ours), len(theirs))
    return ours[-shorter:] == theirs[-shorter:] and source.rank[-shorter:] == target.rank[-shorter:]


def _candidates(ours: Sequence[Unit], theirs: Sequence[Unit], across: Sequence[Unit]) -> list[Candidate]:
    """The pairs that are possible; not those whose source has the words of a target shaped the other way round."""
    pairs = [(one, other) for one, some in _narrowed(ours, theirs) for other in some]
    turned = {
        one: max((similarity(one, other) for other in some), default=0.0)
        for one, some in _narrowed(ours, across)
        if some
    }
    found = [
        Candidate(one, other, similarity(one, other), penalty=penalty(one, other))
        for one, other in pairs
        if compatible(one, other)
    ]
    return [one for one in found if turned.get(one.source, 0.0) < one.words + _MARGIN]


def _narrowed(ours: Sequence[Unit], theirs: Sequence[Unit]) -> Iterator[tuple[Unit, Sequence[Unit]]]:
    """Which units are compared with which: in a large class those whose last parts are equal, or whole names."""
    for last in (0, 1, 60):  # parts that must be equal
        rows: dict[tuple[str, ...], list[Unit]] = defaultdict(list)
        for unit in theirs:
            rows[_ending(unit, last)].append(unit)
        found = [(unit, rows.get(_ending(unit, last), [])) for unit in ours]
        if sum(len(some) for _, some in found) <= _LARGEST_CLASS:
            yield from found
            return


def _ending(unit: Unit, parts: int) -> tuple[str, ...]:
    return tuple(part.text for part in unit.path[-parts:]) if parts else ()


def rivalries(free: Sequence[Candidate]) -> list[tuple[Candidate, list[Candidate]]]:
    """The candidates that are the best of both their units, each with all others of either unit."""
    by_unit: dict[Unit, list[Candidate]] = defaultdict(list)
    for one in free:
        by_unit[one.source].append(one)
        by_unit[one.target].append(one)
    best = {unit: max(row, key=lambda one: one.total) for unit, row in by_unit.items()}
    return [
        (one, [rival for unit in (one.source, one.target) for rival in by_unit[unit] if rival is not one])
        for one in free
        if best[one.source] is one and best[one.target] is one
    ]


def runner_up(target: Unit, rivals: Iterable[Candidate]) -> tuple[Unit, float] | None:
    """The next best source of a target, and its score."""
    best = max((one for one in rivals if one.target is target), key=lambda one: one.total, default=None)
    return (best.source, best.total) if best else None


def guess(one: Candidate, rivals: Sequence[Candidate]) -> Match | None:
    """A match that one signal tells from all others, though nothing else supports it, or something is against it."""
    second = max(rivals, key=lambda rival: rival.total, default=None)
    if one.fit < 0.15 or (second is not None and one.total - second.total < _MARGIN):
        return None
    says = (Evidence.BEST_OF_SHAPE,)
    return Match(one.source, one.target, says, Confidence.GUESS, one.total, runner_up(one.target, rivals))


def judge(one: Candidate, rivals: Sequence[Candidate], all_off: bool = False) -> Match | None:
    """The match, if signals that do not depend on each other agree on it and none speaks against it."""
    words = max((rival.fit for rival in rivals), default=-1.0)
    mine = one.fit
    context = max((rival.context or 0.0 for rival in rivals), default=0.0)
    order = max((rival.order or 0.0 for rival in rivals), default=0.0)
    same = one.source.text == one.target.text and one.source.rank == one.target.rank
    by_words = mine >= 0.2 and mine - words >= _MARGIN
    by_context = one.context is not None and one.context >= 0.6 and one.context - context >= 0.3
    by_order = one.order is not None and one.order >= 0.8 and one.order - order >= 0.2
    told_apart = not rivals or by_words or by_context or by_order
    against = (
        (words - mine >= _MARGIN)
        or (one.context is not None and one.context < AGAINST)
        or (one.order is not None and one.order < 0.4 and mine < 0.6)
        or (one.order is not None and order - one.order >= 0.25 and mine - words < 0.2)
    )
    if not told_apart or (against and not same):
        return None
    says = {
        Evidence.SAME_NAME: same,
        Evidence.SAME_UNDER_PREFIX: not same and by_words and is_suffix(one.source, one.target),
        Evidence.ONLY_OF_SHAPE: not rivals,
        Evidence.PAIR_OFF: all_off,
        Evidence.WORDS_AGREE: mine >= 0.25,
        Evidence.NEIGHBOURS_AGREE: one.context is not None and one.context >= 0.5,
        Evidence.SAME_SHAPES: one.is_whole,
        Evidence.ORDER_AGREES: one.order is not None and one.order >= 0.75,
    }
    evidence = tuple(said for said, holds in says.items() if holds)
    if not one.is_supported(mine) and not same:
        return None
    if len(evidence) < 2 and not (same and mine - words >= 0.05):
        return None
    confidence = Confidence.UNIQUE if not rivals else Confidence.ALIGNED
    return Match(one.source, one.target, evidence, confidence, one.total, runner_up(one.target, rivals))
