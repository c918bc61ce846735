"""The automatic match: from two lists of key, shape and dtype to pairs and rules. Stages, cheap to dear.

1. Modules of equal shapes in every block, where words, neighbours and order tell them apart (`assign`): the same names,
   other prefixes, other words, fused and stacked tensors.
2. Lists of blocks of different lengths: the blocks that both have (`partial`).
3. Bare matrices that became modules, and fully connected layers that became convolutions.
4. What one signal alone tells, or only the order: kept as guesses, not applied by default.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ckptool.checkpoint import Note
from ckptool.matching.alike import OPTIONAL, Form, flat_signature, signature
from ckptool.matching.assign import Classes, Match
from ckptool.matching.cuts import cuts_of
from ckptool.matching.emit import pairs_of
from ckptool.matching.generalise import rules_of
from ckptool.matching.groups import made_units
from ckptool.matching.known import Known
from ckptool.matching.lists import Group, aligned_lists, rests_of, whole
from ckptool.matching.modules import Shape, Unit
from ckptool.matching.orient import is_bare_square, stored_io
from ckptool.matching.partial import common_blocks
from ckptool.matching.reshaped import reshaped_pairs
from ckptool.matching.result import Confidence, MatchReport, Pair
from ckptool.matching.reversal import reversal_notes
from ckptool.matching.sequence import in_sequence
from ckptool.matching.uneven import uneven, with_words
from ckptool.matching.unknowable import unknowable
from ckptool.spec import TensorSpec

Specs = Mapping[str, TensorSpec]
Places = tuple[Mapping[str, int], Mapping[str, int]]

_SAME = {"same name", "same name under a prefix"}
_ALIKE = 0.7  # of the modules of the smaller block have a counterpart in the other; below this it is another block
_REST = 0.2  # of the modules, at most, are matched because all others are
_RELATED = 0.3  # of the tensors of the smaller side match; below this the models have nothing to do with each other


def match(
    source: Specs,
    target: Specs,
    *,
    source_modules: Mapping[str, str] | None = None,
    target_modules: Mapping[str, str] | None = None,
    accept: Confidence = Confidence.ALIGNED,
) -> MatchReport:
    """Which source tensors belong to which target tensors, from names, shapes and order alone.

    Args:
        source: key -> spec in file order.
        target: the same.
        source_modules: module path -> class name, where there is a model.
        target_modules: the same.
        accept: rules are made of pairs that are as sure as this, or surer; the others get rules of their own.

    Example:
        >>> old = {key: TensorSpec(key, "float32", (3,)) for key in ("net.ln.gamma", "net.ln.beta")}
        >>> new = {key: TensorSpec(key, "float32", (3,)) for key in ("norm.weight", "norm.bias")}
        >>> [(pair.sources, pair.targets, pair.confidence.value) for pair in match(old, new).pairs]
        [(('net.ln.gamma',), ('norm.weight',), 'unique'), (('net.ln.beta',), ('norm.bias',), 'unique')]
    """
    place = {key: at for at, key in enumerate(target)}
    places = {key: at for at, key in enumerate(source)}, place
    best = _best(
        [one for ours in cuts_of(source) for theirs in cuts_of(target) for one in _tries(ours, theirs, places)]
    )
    found, notes = _related(best, source, target)
    pairs = [pair for _, row in found for pair in row]
    level = min(accept, Confidence.ALIGNED, key=_rank)
    sure = [row for row in found if row[0].confidence.within(level)]
    unsure = [row for row in found if not row[0].confidence.within(level)]
    rules = (*rules_of(unsure, source, target, merge=False), *rules_of(sure, source, target))
    made = {key for pair in pairs for key in pair.targets}
    used = {key for pair in pairs for key in pair.sources}
    free = tuple(key for key in target if key not in made), tuple(key for key in source if key not in used)
    reshaped = reshaped_pairs(
        *({key: side[key] for key in left} for side, left in ((source, free[1]), (target, free[0])))
    )
    return MatchReport(
        tuple(sorted(pairs, key=lambda pair: place[pair.targets[0]])),
        *free,
        (*notes, *unknowable(pairs, target), *reversal_notes(rules, source, target)),
        rules,
        tuple(reshaped) if sure else (),
    )


def _tries(ours: list[Unit], theirs: list[Unit], places: Places) -> Iterable[_Attempt]:
    """Two ways to cut, matched; and once more by their lists of blocks, where these are alike."""
    io = stored_io(ours) | stored_io(theirs)
    plain = _Attempt(ours, theirs, io, places)
    plain.run()
    yield plain
    listed = _Attempt(ours, theirs, io, places)
    if groups := aligned_lists(ours, theirs, listed.as_stored, places):
        listed.lists(groups)
        listed.run()
        yield listed


def _best(tries: Sequence[_Attempt]) -> _Attempt:
    """The attempt that matches the most; but where lists of blocks say otherwise, the lists are right."""
    best = max(tries, key=lambda attempt: (attempt.score, -len(attempt.found)))
    listed = max(
        (one for one in tries if one.by_lists), key=lambda attempt: (attempt.score, -len(attempt.found)), default=best
    )
    said = listed.sure
    return listed if any(said.get(target, source) != source for target, source in best.sure.items()) else best


@dataclass(slots=True)
class _Attempt:
    """One way to cut the keys into units, matched."""

    sources: list[Unit]
    targets: list[Unit]
    io: frozenset[Unit]
    places: Places
    known: Known = field(default_factory=Known)
    taken: set[Unit] = field(default_factory=set)
    found: list[tuple[Match, bool]] = field(default_factory=list)
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
        ours = [*self.sources, *made_units(self.sources, self.places[0])]
        theirs = [*self.targets, *made_units(self.targets, self.places[1])]
        ours, theirs = ([unit for unit in units if not is_bare_square(unit)] for units in (ours, theirs))
        plain = Classes(ours, theirs, as_stored, self.known, self.taken)
        self.add(plain.run())
        cut_ours, cut_theirs = common_blocks(self.free(self.sources), self.free(self.targets))
        self.io |= {cut for cut, unit in (cut_ours | cut_theirs).items() if unit in self.io}
        blocks = Classes(
            [*cut_ours, *made_units([*cut_ours], self.places[0])],
            [*cut_theirs, *made_units([*cut_theirs], self.places[1])],
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

    def __post_init__(self) -> None:
        self.units = self.sources, self.targets

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
        ours += made_units(ours, self.places[0])
        theirs += made_units(theirs, self.places[1])
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
            self.found += [(one, True) for one in found]

    def free(self, units: Iterable[Unit]) -> list[Unit]:
        """Units that no match has taken."""
        return [unit for unit in units if unit not in self.taken]

    def add(self, matches: Iterable[Match]) -> None:
        """Takes matches over."""
        self.found += [(one, (one.source in self.io) != (one.target in self.io)) for one in matches]


def _turned(unit: Unit) -> tuple[tuple[int, ...], ...]:
    return signature(unit, unit.bare)


def _is_matrix(unit: Unit) -> bool:
    return all(len(shape) == 2 for shape in unit.shapes[unit.main])


def _is_square(unit: Unit) -> bool:
    return _is_matrix(unit) and all(shape[0] == shape[1] for shape in unit.shapes[unit.main])


# ---------------------------------------------------------------------------------------------- are they related?


def _related(
    attempt: _Attempt, source: Specs, target: Specs
) -> tuple[list[tuple[Match, tuple[Pair, ...]]], tuple[Note, ...]]:
    """The matches with their pairs, if the models have something to do with each other."""
    found = [(one, tuple(pairs_of(one, turned))) for one, turned in _coherent(attempt)]
    sure = [pair for one, row in found for pair in row if one.confidence.within(Confidence.ALIGNED)]
    matched = max(
        len({key for pair in sure for key in pair.targets}), len({key for pair in sure for key in pair.sources})
    )
    if matched < _RELATED * min(len(source), len(target)):
        text = f"the two seem unrelated: only {matched:,} tensors have a counterpart that names and shapes agree on"
        return [], (Note(text) if sure else Note("the two have nothing in common"),)
    if text := _stranger(attempt):
        doubtful = [replace(one, confidence=max(one.confidence, Confidence.GUESS, key=_rank)) for one, _ in found]
        found = [
            (one, tuple(replace(pair, confidence=one.confidence) for pair in row))
            for one, (_, row) in zip(doubtful, found, strict=True)
        ]
        return found, (Note(text, "--accept guess takes them all the same"),)
    return found, ()


def _coherent(attempt: _Attempt) -> list[tuple[Match, bool]]:
    """The matches; those in blocks of which too little is alike are guesses."""
    sizes: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for side, units in zip(("source", "target"), attempt.units, strict=True):
        sizes.update((side, unit.chain) for unit in units)
    alike: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[set[str], set[str]]] = {}
    for one, _ in attempt.found:
        if one.confidence.within(Confidence.GUESS) and one.confidence is not Confidence.GUESS:
            ours, theirs = alike.setdefault((one.source.chain, one.target.chain), (set(), set()))
            ours.update(_names(one.source))
            theirs.update(_names(one.target))

    same = {
        (one.source.chain, one.target.chain)
        for one, _ in attempt.found
        if _SAME & set(one.evidence) and len(one.target.shapes[one.target.main][0]) > 1
    }

    def holds(one: Match) -> bool:
        here, there = one.source.chain, one.target.chain
        if not here or not there or (here, there) not in alike or (here, there) in same:
            return True
        ours, theirs = alike[here, there]
        return max(len(ours) / sizes["source", here], len(theirs) / sizes["target", there]) >= _ALIKE

    return [
        (one if holds(one) else replace(one, confidence=max(one.confidence, Confidence.GUESS, key=_rank)), turned)
        for one, turned in attempt.found
    ]


def _names(unit: Unit) -> set[str]:
    """Of the modules that a unit is, or is made of."""
    return {piece.text for piece in (unit.pieces if unit.kind else (unit,))}


def _rank(confidence: Confidence) -> int:
    return confidence.rank


def _stranger(attempt: _Attempt) -> str:
    """Why the two may be of another kind, though much matches; nothing if they are not."""
    if _only_blocks(attempt):
        return (
            "the blocks are alike, but neither what stands before them nor what stands behind: another kind of model?"
        )
    layers = [one for one, _ in attempt.found if one.confidence.within(Confidence.ALIGNED) and one.target.chain]
    layers = [one for one in layers if len(one.target.shapes[one.target.main][0]) == 2]
    lacking = [one for one in layers if ("bias" in one.source.shapes) != ("bias" in one.target.shapes)]
    if len(lacking) > 1 and len(lacking) > len(layers) / 2:
        return "most layers have a bias on one side and none on the other: another kind of model?"
    return ""


def _only_blocks(attempt: _Attempt) -> bool:
    """Nothing of two or more axes outside the blocks has a counterpart, on either side, and the names are others."""
    sure = [one for one, _ in attempt.found if one.confidence.within(Confidence.ALIGNED)]
    if any(_SAME & set(one.evidence) for one in sure):
        return False
    if any(not one.target.chain and len(one.target.shapes[one.target.main][0]) > 1 for one in sure):
        return False
    ours, theirs = (
        {unit.shapes[unit.main] for unit in units if not unit.chain and len(unit.shapes[unit.main][0]) > 1}
        for units in attempt.units
    )
    return bool(ours and theirs) and not ours & theirs
