"""One way to cut two checkpoints into units, matched stage by stage; and which way is the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ckptool.matching.alike import OPTIONAL, Form, flat_signature, signature
from ckptool.matching.assign import Classes, Match, as_guess
from ckptool.matching.doubts import by_habit, doubted
from ckptool.matching.groups import made_units
from ckptool.matching.known import Known
from ckptool.matching.lists import Group, aligned_lists, rests_of, whole
from ckptool.matching.modules import Shape, Unit
from ckptool.matching.orient import is_bare_square, orientation
from ckptool.matching.partial import common_blocks
from ckptool.matching.result import Confidence, Evidence
from ckptool.matching.sequence import in_sequence
from ckptool.matching.uneven import uneven, with_words

Places = tuple[Mapping[str, int], Mapping[str, int]]

_REST = 0.2  # of the modules, at most, are matched because all others are


def tries(ours: list[Unit], theirs: list[Unit], places: Places, by_letters: Sequence[bool]) -> Iterable[Attempt]:
    """Two ways to cut, matched; and once more by their lists of blocks, where these are alike.

    Args:
        ours: the source's units.
        theirs: the target's.
        places: of every key in its file.
        by_letters: of each file, whether it is in the order of its letters.
    """
    ways = orientation(ours, theirs)
    plain = Attempt(ours, theirs, ways.io, places, by_letters, ways.doubtful)
    plain.run()
    yield plain
    listed = Attempt(ours, theirs, ways.io, places, by_letters, ways.doubtful)
    if groups := aligned_lists(ours, theirs, listed.as_stored, places):
        listed.lists(groups)
        listed.run()
        yield listed


def best_of(tries: Sequence[Attempt]) -> Attempt:
    """The attempt that matches the most; but where lists of blocks say otherwise, the lists are right."""
    best = max(tries, key=lambda attempt: (attempt.score, -len(attempt.found)))
    listed = max(
        (one for one in tries if one.by_lists), key=lambda attempt: (attempt.score, -len(attempt.found)), default=best
    )
    said = listed.sure
    return listed if any(said.get(target, source) != source for target, source in best.sure.items()) else best


@dataclass(slots=True)
class Attempt:
    """One way to cut the keys into units, matched."""

    sources: list[Unit]
    targets: list[Unit]
    io: frozenset[Unit]
    places: Places
    by_letters: Sequence[bool]
    doubtful: frozenset[str] = frozenset()  # main keys of squares that may be turned round
    known: Known = field(default_factory=Known)
    taken: set[Unit] = field(default_factory=set)
    found: list[tuple[Match, str]] = field(default_factory=list)
    by_lists: bool = False
    units: tuple[list[Unit], list[Unit]] = ([], [])

    @property
    def score(self) -> int:
        """Tensors matched with confidence."""
        return sum(
            len(one.target.members) * len(one.target.shapes)
            for one, _ in self.found
            if one.confidence.within(Confidence.ALIGNED)
        )

    def run(self) -> None:
        """All stages."""
        as_stored = self.as_stored
        ours = [*self.sources, *made_units(self.sources, self.places[0], self.io)]
        theirs = [*self.targets, *made_units(self.targets, self.places[1], self.io)]
        ours, theirs = ([unit for unit in units if not is_bare_square(unit)] for units in (ours, theirs))
        plain = Classes(ours, theirs, as_stored, self.known, self.taken)
        self.add(plain.run())
        cut_ours, cut_theirs = common_blocks(self.free(self.sources), self.free(self.targets))
        self.io |= {cut for cut, unit in (cut_ours | cut_theirs).items() if unit in self.io}
        blocks = Classes(
            [*cut_ours, *made_units([*cut_ours], self.places[0], self.io)],
            [*cut_theirs, *made_units([*cut_theirs], self.places[1], self.io)],
            as_stored,
            self.known,
            self.taken,
        )
        self.add(blocks.run())
        self.taken |= {unit for cut, unit in (cut_ours | cut_theirs).items() if cut in self.taken}
        self.add(plain.run())
        self.uneven(as_stored)
        self.backwards(as_stored)
        self.bare()
        flat = Classes(self.free(self.sources), self.free(self.targets), flat_signature, self.known, self.taken)
        self.add(flat.run())
        self.sequence()
        self.rest()
        if self.found:
            self.add(plain.left())
            self.taken |= {cut for cut, unit in (cut_ours | cut_theirs).items() if unit in self.taken}
            self.add(blocks.left())
        self.doubt()

    def doubt(self) -> None:
        """Matches that others speak against become guesses."""
        sure = [one for one, _ in self.found if one.confidence.within(Confidence.ALIGNED)]
        ordered = self.known.ordered and not any(self.by_letters)
        doubts = doubted(sure, *self.units, ordered=ordered)
        self.found = [(as_guess(one, doubts[one]) if one in doubts else one, turned) for one, turned in self.found]
        for at, (one, turned) in enumerate(self.found):
            if whose := by_habit(one):
                doubtful = replace(one, evidence=(Evidence.HABIT,), confidence=Confidence.INTERCHANGEABLE, habit=whose)
                self.found[at] = doubtful, turned

    def __post_init__(self) -> None:
        self.units = self.sources, self.targets
        self.known.in_one_order = len({*self.by_letters}) == 1

    def lists(self, groups: Sequence[Group]) -> None:
        """Lists whose blocks are alike one after the other, though not all are of one kind."""
        found: list[Match] = []
        origin: dict[Unit, Unit] = {}
        for group in groups:
            origin |= group.sources | group.targets
            self.io |= {cut for cut, unit in (group.sources | group.targets).items() if unit in self.io}
            found += Classes(group.sources, group.targets, self.as_stored, Known(is_whole=True), self.taken).run()
        self.known.add((one.source, one.target) for one in found)
        self.add(whole(found, origin))
        cut = {unit for one in found for unit in (one.source, one.target)}
        rests = rests_of(cut, origin)
        self.io |= {rest for unit, rest in rests.items() if rest and unit in self.io}
        self.sources, self.targets = (
            [rest for unit in units if (rest := rests.get(unit, unit))] for units in (self.sources, self.targets)
        )
        self.by_lists = True

    def as_stored(self, unit: Unit) -> tuple[Shape, ...]:
        """What two units must share."""
        return signature(unit, unit in self.io)

    @property
    def sure(self) -> dict[str, str]:
        """Of what is matched with confidence: source key by target key, of the main tensors."""
        return {
            target: source
            for one, _ in self.found
            if one.confidence.within(Confidence.ALIGNED)
            for source, target in zip(one.source.keys[one.source.main], one.target.keys[one.target.main], strict=True)
        }

    def sequence(self) -> None:
        """What the order of the whole files says, if nothing speaks against it."""
        if not self.free(self.sources) or not self.free(self.targets):
            return
        known = {
            key: one.source.keys[role][at]
            for one, _ in self.found
            if not one.source.kind and not one.target.kind
            for role, keys in one.target.keys.items()
            if role in one.source.keys
            for at, key in enumerate(keys)
        }
        found = in_sequence(self.sources, self.targets, self.places, known, self.io)
        self.add(found)
        if found:
            self.taken.update(self.sources, self.targets)

    def uneven(self, form: Form) -> None:
        """Modules that only some of the blocks have."""
        ours, theirs = self.free(self.sources), self.free(self.targets)
        ours += made_units(ours, self.places[0], self.io)
        theirs += made_units(theirs, self.places[1], self.io)
        groups, origin = uneven((one for one, _ in self.found), ours, theirs)
        self.io |= {cut for cut, unit in origin.items() if unit in self.io}
        for group in groups:
            self.add(map(with_words, Classes(group.sources, group.targets, form, self.known, self.taken).run()))
        self.taken |= {unit for cut, unit in origin.items() if cut in self.taken}

    def rest(self) -> None:
        """What is left on both sides, if that is the same shapes equally often."""
        ours, theirs = (self.free(units) for units in (self.sources, self.targets))
        kinds = [
            Counter(
                (frozenset(unit.shapes.keys() - OPTIONAL), shape) for unit in units for shape in self.as_stored(unit)
            )
            for units in (ours, theirs)
        ]
        left = kinds[0].total() / sum(len(unit.members) for unit in self.units[0])
        if kinds[0] == kinds[1] and (left <= _REST or not self.found):
            known = replace(self.known, is_whole=True)
            self.add(Classes(ours, theirs, self.as_stored, known, self.taken).run())

    def backwards(self, form: Form) -> None:
        """Lists that one side counts from the other end, as decoders often are."""
        turned = {
            unit.restricted(range(len(unit.members) - 1, -1, -1)): unit
            for unit in self.free(self.sources)
            if unit.chain and form(unit) != form(unit)[::-1]
        }
        self.io |= {copy for copy, unit in turned.items() if unit in self.io}
        lists = [unit for unit in self.free(self.targets) if unit.chain]
        self.add(
            Classes(turned, lists, form, Known(), self.taken).run()
        )  # the order of the files would speak against it
        self.taken |= {unit for copy, unit in turned.items() if copy in self.taken}

    def bare(self) -> None:
        """Matrices that were parameters and became modules have turned round, unless they stand alone."""
        for ours_bare in (True, False):
            ours = [unit for unit in self.free(self.sources) if unit.bare is ours_bare and _is_matrix(unit)]
            theirs = [unit for unit in self.free(self.targets) if unit.bare is not ours_bare and _is_matrix(unit)]
            turned = Classes(ours, theirs, _turned, self.known, self.taken)
            found = turned.run()
            if all(_is_square(one.source) for one in found):
                found = [replace(one, confidence=Confidence.GUESS) for one in found]
            self.found += [(one, "source" if ours_bare else "target") for one in found]

    def free(self, units: Iterable[Unit]) -> list[Unit]:
        """Units that no match has taken."""
        return [unit for unit in units if unit not in self.taken]

    def add(self, matches: Iterable[Match]) -> None:
        """Takes matches over."""
        for one in matches:
            if not self.doubtful.isdisjoint(_main_keys(one)):
                one = as_guess(one, Evidence.SQUARE)
            turned = (one.source in self.io) - (one.target in self.io)
            self.found.append((one, ("", "source", "target")[turned]))


def _main_keys(match: Match) -> set[str]:
    """The main keys of both units, and of those that they are made of."""
    units = (match.source, match.target, *match.source.pieces, *match.target.pieces)
    return {key for unit in units for key in unit.keys[unit.main]}


def _turned(unit: Unit) -> tuple[tuple[int, ...], ...]:
    return signature(unit, unit.bare)


def _is_matrix(unit: Unit) -> bool:
    return all(len(shape) == 2 for shape in unit.shapes[unit.main])


def _is_square(unit: Unit) -> bool:
    return _is_matrix(unit) and all(shape[0] == shape[1] for shape in unit.shapes[unit.main])
