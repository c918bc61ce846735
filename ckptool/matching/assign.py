"""Which unit of the source is which of the target: within classes of equal shapes, by signals that must agree.

Shapes only say who may be whom. Words, the neighbours already matched (context) and the order in the file are
independent of each other: a pair is made where one of them tells it from all others and another one supports it, and
refused where any speaks against it. What is found in one round is context and order for the next.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ckptool.matching.groups import names_of_kind
from ckptool.matching.modules import Shape, Unit
from ckptool.matching.result import Confidence
from ckptool.matching.words import vocabulary

Form = Callable[[Unit], tuple[Shape, ...]]
"""What two units must share to be compared."""

_ROUNDS = 8
_LARGEST_CLASS = 40_000  # pairs of a class that are compared; of larger ones only those of equal names
_MANY = 4  # blocks in which a module has the same shapes on both sides, so that these are no accident
_TOP = ("", "")  # begins the name of a tower, which no path does
_AGAINST = 0.25  # of the neighbours, at most: they speak against a pair
_NEIGHBOURS = 6
_MARGIN = 0.04  # by which words must be better than for any other
_OPTIONAL = frozenset({"bias", "num_batches_tracked"})  # roles that one side may lack


@dataclass(frozen=True, slots=True)
class Match:
    """A unit of the source for one of the target."""

    source: Unit
    target: Unit
    evidence: tuple[str, ...]
    confidence: Confidence
    runner_up: tuple[str, float] | None = None


@dataclass(slots=True)
class Candidate:
    """One possible pair with its signals, each 0 to 1; order is None where it cannot be asked."""

    source: Unit
    target: Unit
    words: float
    context: float | None = None
    order: float | None = None
    penalty: float = 0.0

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
        return words >= 0.1 or (near and many) or (in_order and (near or matrix))

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


@dataclass(slots=True)
class Known:
    """What is matched so far, as context and as anchors of the order."""

    votes: dict[tuple[str, ...], Counter[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(Counter))
    back: dict[tuple[str, ...], Counter[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(Counter))
    anchors: list[tuple[int, int]] = field(default_factory=list)
    ordered: bool = False

    def add(self, matches: Sequence[Match]) -> None:
        """Takes matches in."""
        for match in matches:
            for one, other in _around(match.source, match.target):
                self.votes[one][other] += 1
                self.back[other][one] += 1
            self.anchors.append((match.source.position, match.target.position))
        self.anchors.sort()
        rising = sum(a[1] < b[1] for a, b in zip(self.anchors, self.anchors[1:], strict=False))
        self.ordered = len(self.anchors) > 2 and rising >= 0.75 * (len(self.anchors) - 1)

    def context(self, source: Unit, target: Unit) -> float | None:
        """The share of what lies around the source unit that lies around the target unit; None: nothing is known."""
        shares = []
        top: float | None = None
        for one, other in _around(source, target):
            forth, back = self.votes.get(one), self.back.get(other)
            if forth or back:
                there = forth[other] / forth.total() if forth else 0.0
                here = back[one] / back.total() if back else 0.0
                share = max(there, here) if forth and back else there + here
                if one[:2] == _TOP:
                    top = share if share or (forth and back) else None
                else:
                    shares.append(share)
        if not shares or (top is not None and top < _AGAINST):
            return top
        return sum(shares) / len(shares)

    def order(self, source: Unit, target: Unit) -> float | None:
        """The share of the nearest anchors that lie on the same side of both; None: the files are not in one order."""
        if not self.ordered:
            return None
        at = bisect_left(self.anchors, (source.position, -1))
        near = self.anchors[max(at - _NEIGHBOURS, 0) : at + _NEIGHBOURS]
        near = [row for row in near if row[0] != source.position]
        return sum((a < source.position) == (b < target.position) for a, b in near) / len(near) if near else None


def flat_signature(unit: Unit) -> tuple[Shape, ...]:
    """What a fully connected layer and the convolution that it was share: outputs, and all inputs of one output."""
    shapes = unit.shapes[unit.main]
    return tuple((shape[0], math.prod(shape[1:])) if len(shape) > 1 else shape for shape in shapes)


def _around(source: Unit, target: Unit) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """What lies around two units, level by level: their blocks, their modules, the towers they stand in."""
    levels = [(source.chain, target.chain), (source.parent, target.parent)]
    levels = [row for row in levels if row != ((), ())]  # at the top lies everything
    if len(source.path) > 1 and len(target.path) > 1:
        levels.append(((*_TOP, source.path[0].text), (*_TOP, target.path[0].text)))
    return levels


def squeezed(shape: Shape) -> Shape:
    """The shape without its ones."""
    return tuple(size for size in shape if size != 1)


def signature(unit: Unit, io: bool = False) -> tuple[Shape, ...]:
    """What two units must share: the shapes of the main role in every instance, squeezed and as torch has them."""
    return tuple(oriented(shape, io) for shape in unit.shapes[unit.main])


def oriented(shape: Shape, io: bool) -> Shape:
    """``(i, o)`` and ``(h, w, i, o)`` as torch has them, squeezed."""
    if io and len(squeezed(shape)) == 2:
        return squeezed(shape)[::-1]
    if io and len(shape) == 2:
        shape = shape[::-1]
    elif io and len(shape) == 4:
        shape = (shape[3], shape[2], shape[0], shape[1])
    return squeezed(shape)


def similarity(source: Unit, target: Unit) -> float:
    """How much two units' words agree, 0 to 1.

    Example:
        >>> from ckptool.matching.modules import units_of
        >>> from ckptool.spec import TensorSpec
        >>> one, other = (units_of({k: TensorSpec(k, "float32", (3,))})[0] for k in ("ln.weight", "norm.weight"))
        >>> similarity(one, other)
        1.0
    """
    ours, theirs = source.words, target.words
    whole = sum(ours.values()) + sum(theirs.values())
    return sum(worth + theirs[word] for word, worth in ours.items() if word in theirs) / whole if whole else 0.0


def compatible(source: Unit, target: Unit) -> bool:
    """The roles that both have are of the same shapes, and what only one has is optional."""
    if (source.shapes.keys() ^ target.shapes.keys()) - _OPTIONAL or (source.kind and target.kind):
        return False
    for made, whole in ((source, target), (target, source)):
        kind = made.kind.removesuffix("stack").strip()
        if kind and not names_of_kind(kind) & whole.words.keys():
            return False
    shared = source.shapes.keys() & target.shapes.keys()
    return all(
        squeezed(a) == squeezed(b)
        for role in shared - {source.main}
        for a, b in zip(source.shapes[role], target.shapes[role], strict=True)
    )


def _penalty(source: Unit, target: Unit) -> float:
    """For what does not fit quite: a bias that one lacks, ones in the shape, a copy of another tower."""
    lacking = (source.shapes.keys() ^ target.shapes.keys()) - {"num_batches_tracked"}
    found = 0.15 * len(lacking)
    found += 0.1 * (len(source.shapes[source.main][0]) != len(target.shapes[target.main][0]))
    found += 0.05 * (source.bare != target.bare)
    return found + 0.5 * (_is_copy(source) != _is_copy(target))


def _is_copy(unit: Unit) -> bool:
    marks = vocabulary().copies
    return any(part.text in marks for part in unit.path) or any(mark in unit.words for mark in marks)


class Classes:
    """Units of equal shapes, and the rounds in which they are assigned."""

    def __init__(
        self, sources: Iterable[Unit], targets: Iterable[Unit], form: Form, known: Known, taken: set[Unit]
    ) -> None:
        self.known, self.taken = known, taken
        self.rows: list[list[Candidate]] = []
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

    def run(self) -> list[Match]:
        """All matches that signals agree on, in the order found."""
        found: list[Match] = []
        for number in range(_ROUNDS):
            made = [match for row in self.rows for match in self._decide(row)]
            if not made and number:
                break
            self.known.add(made)
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
                runner_up = (rival.first_keys[0], round(similarity(rival, other), 2))
                yield Match(one, other, ("only the order in the files speaks",), Confidence.INTERCHANGEABLE, runner_up)

    def open(self, row: Sequence[Candidate]) -> list[Candidate]:
        """The candidates of a class that are still free, with their signals brought up to date."""
        free = [one for one in row if self._is_free(one.source) and self._is_free(one.target)]
        for one in free:
            one.context = self.known.context(one.source, one.target)
            one.order = self.known.order(one.source, one.target)
        return free

    def _decide(self, row: list[Candidate]) -> list[Match]:
        free = self.open(row)
        row[:] = free
        made = []
        mutual = rivalries(free)
        all_off = _pair_off(free, mutual)
        for one, rivals in mutual:
            if self._is_free(one.source) and self._is_free(one.target) and (match := judge(one, rivals, all_off)):
                made.append(match)
                self.taken |= {one.source, one.target, *one.source.pieces, *one.target.pieces}
        return made

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
        Candidate(one, other, similarity(one, other), penalty=_penalty(one, other))
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


def guess(one: Candidate, rivals: Sequence[Candidate]) -> Match | None:
    """A match that one signal tells from all others, though nothing else supports it, or something is against it."""
    second = max(rivals, key=lambda rival: rival.total, default=None)
    if one.fit < 0.15 or (second is not None and one.total - second.total < _MARGIN):
        return None
    says = f"the best of its shape, by {one.total:.2f}"
    runner_up = (second.source.first_keys[0], round(second.total, 2)) if second else None
    return Match(one.source, one.target, (says,), Confidence.GUESS, runner_up)


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
        or (one.context is not None and one.context < _AGAINST)
        or (one.order is not None and one.order < 0.4 and mine < 0.6)
        or (one.order is not None and order - one.order >= 0.25 and mine - words < 0.2)
    )
    if not told_apart or (against and not same):
        return None
    says = {
        "same name": same,
        "same name under a prefix": not same and by_words and is_suffix(one.source, one.target),
        "only one of this shape": not rivals,
        "all of this shape pair off by their words": all_off,
        "words agree": mine >= 0.25,
        "neighbours agree": one.context is not None and one.context >= 0.5,
        "order agrees": one.order is not None and one.order >= 0.75,
    }
    evidence = tuple(text for text, holds in says.items() if holds)
    if not one.is_supported(mine) and not same:
        return None
    if len(evidence) < 2 and not (same and mine - words >= 0.05):
        return None
    confidence = Confidence.UNIQUE if not rivals else Confidence.ALIGNED
    second = max(rivals, key=lambda rival: rival.total, default=None)
    runner_up = None
    if second is not None:
        runner_up = (second.source.first_keys[0], round(second.total, 2))
    return Match(one.source, one.target, evidence, confidence, runner_up)
