"""Modules that only some blocks have: those that match elsewhere say which blocks are which.

Three of four stages of a ResNet-IBN have two norms where the fourth has one as before; the source has one everywhere.
So its norm is cut into the blocks that the one has and those that the other has.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ckptool.matching.assign import Match
from ckptool.matching.modules import Unit
from ckptool.matching.result import Confidence, Evidence, least_sure

Place = tuple[int, ...]
Chain = tuple[str, ...]

_MOST = 16  # sets of blocks in which modules of one list are


@dataclass(slots=True)
class Group:
    """Units of both sides that are in the same blocks."""

    sources: list[Unit]
    targets: list[Unit]


def uneven(
    matches: Iterable[Match], sources: Sequence[Unit], targets: Sequence[Unit]
) -> tuple[list[Group], dict[Unit, Unit]]:
    """Free units by the blocks that both sides have them in, and of those that were cut for it, which unit they were.

    Args:
        matches: made so far; they say which block is which.
        sources: free units, those made of several among them.
        targets: the same.
    """
    groups: list[Group] = []
    origin: dict[Unit, Unit] = {}
    by_chain = [defaultdict[Chain, list[Unit]](list), defaultdict[Chain, list[Unit]](list)]
    for units, row in zip((sources, targets), by_chain, strict=True):
        for unit in units:
            row[unit.chain].append(unit)
    for (here, there), place_of in _same_blocks(matches).items():
        back = {target: source for source, target in place_of.items()}
        ours = {unit: frozenset(place for place in unit.members if place in place_of) for unit in by_chain[0][here]}
        theirs = {
            unit: frozenset(back[place] for place in unit.members if place in back) for unit in by_chain[1][there]
        }
        sets = {*ours.values()}, {*theirs.values()}
        if len(sets[0] | sets[1]) < 2 or max(map(len, sets)) > _MOST:
            continue
        found: dict[frozenset[Place], Group] = defaultdict(lambda: Group([], []))
        for unit, blocks in ours.items():
            for kept, one in _cuts(unit, blocks, sets[1], {place: place for place in place_of}, origin):
                found[kept].sources.append(one)
        for unit, blocks in theirs.items():
            for kept, one in _cuts(unit, blocks, sets[0], back, origin):
                found[kept].targets.append(one)
        groups += [found[kept] for kept in sorted(found, key=sorted) if found[kept].sources and found[kept].targets]
    return groups, origin


def with_words(one: Match) -> Match:
    """A match in some blocks: few have to be of one shape there by accident, so words must speak for it as well."""
    if any(said is Evidence.WORDS_AGREE or said.is_name for said in one.evidence):
        return one
    return replace(one, confidence=least_sure([one.confidence, Confidence.GUESS]))


def _same_blocks(matches: Iterable[Match]) -> dict[tuple[Chain, Chain], dict[Place, Place]]:
    """For each two lists whose blocks match: which block of the target each of the source is, if their order agrees."""
    votes: dict[tuple[Chain, Chain], Counter[tuple[Place, Place]]] = defaultdict(Counter)
    for one in matches:
        if one.source.chain and one.target.chain and one.confidence.within(Confidence.ALIGNED):
            votes[one.source.chain, one.target.chain].update(zip(one.source.members, one.target.members, strict=True))
    found = {}
    partners = Counter(chain for pair in votes for chain in (("source", pair[0]), ("target", pair[1])))
    for (here, there), row in votes.items():
        pairs = sorted(row)
        rising = all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(pairs))
        if rising and partners["source", here] == partners["target", there] == 1:
            found[here, there] = dict(pairs)
    return found


def _cuts(
    unit: Unit,
    blocks: frozenset[Place],
    others: Iterable[frozenset[Place]],
    frame: dict[Place, Place],
    origin: dict[Unit, Unit],
) -> list[tuple[frozenset[Place], Unit]]:
    """The unit cut down to the blocks that it shares with others, in every way; of cuts that overlap one is matched.

    What is made of several is not cut.
    """
    kept = sorted({blocks & other for other in others} - {frozenset()}, key=sorted)
    whole = len(blocks) == len(unit.members)
    if unit.kind or not kept:
        return [(blocks, unit)] if whole and blocks in kept else []
    if kept == [blocks] and whole:
        return [(blocks, unit)]
    atoms: dict[tuple[bool, ...], list[Place]] = defaultdict(list)
    for place in sorted(frozenset().union(*kept)):
        atoms[tuple(place in row for row in kept)].append(place)

    def cut(places: Iterable[Place]) -> Unit:
        wanted = set(places)
        one = unit.restricted([at for at, place in enumerate(unit.members) if frame.get(place) in wanted])
        origin[one] = unit
        return one

    pieces = {frozenset(places): cut(places) for places in atoms.values()}
    found = []
    for row in kept:
        if row in pieces:
            found.append((row, pieces[row]))
        else:
            one = cut(row)
            one.pieces = tuple(piece for places, piece in pieces.items() if places <= row)
            found.append((row, one))
    return found
