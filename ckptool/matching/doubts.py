"""Matches that contradict each other, or the names of what they leave out: found one by one, doubtful together."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise

from ckptool.matching.alike import compatible
from ckptool.matching.assign import Match
from ckptool.matching.modules import Shape, Unit
from ckptool.matching.result import Evidence
from ckptool.matching.towers import of_twins
from ckptool.matching.words import in_context, vocabulary, words_of

Chain = tuple[str, ...]
Numbers = tuple[int, ...]

_PLACE = re.compile(r"\d+/\d+")
_MOST = 40  # modules of one list that are compared with each other; of more only the order of a file tells
_CLEARLY = 0.3  # by how much better words must agree than with each other's, against the order
_BARELY = 0.05  # the same where there is no order
_MAJORITY = 2 / 3


def doubted(
    matches: Sequence[Match], sources: Sequence[Unit], targets: Sequence[Unit], *, ordered: bool
) -> dict[Match, Evidence]:
    """Those that others speak against, each with the reason.

    Args:
        matches: sure ones.
        sources: all units of the source.
        targets: the same.
        ordered: the files are in an order of their own, not in that of their letters.
    """
    found: dict[Match, Evidence] = {}
    lists: dict[tuple[Chain, Chain], list[Match]] = defaultdict(list)
    for one in matches:
        lists[one.source.chain, one.target.chain].append(one)
    for (here, there), row in lists.items():
        found |= dict.fromkeys(_crossing(row, ordered=ordered), Evidence.CROSSED)
        if here and there:
            found |= dict.fromkeys(_of_other_blocks(row), Evidence.OTHER_BLOCKS)
    found |= dict.fromkeys(_namesakes(matches, sources, targets), Evidence.NAMESAKE)
    found |= dict.fromkeys(of_twins(matches, sources, targets), Evidence.TWIN)
    return found


# ---------------------------------------------------------------------------------------------- inside a block


def _crossing(row: Sequence[Match], *, ordered: bool) -> set[Match]:
    """Of two modules those that may as well be each other's: names that are equal or an order that is not say so."""
    alike: dict[object, list[Match]] = defaultdict(list)
    for one in row:
        if not one.source.kind and not one.target.kind:
            blocks = one.source.numbers, one.target.numbers
            parents = () if one.source.chain else (one.source.parent, one.target.parent)
            alike[blocks, parents, one.source.shapes[one.source.main], one.target.shapes[one.target.main]].append(one)
    found: set[Match] = set()
    for some in alike.values():
        for one, other in combinations(some if len(some) <= _MOST else (), 2):
            if not compatible(one.source, other.target) or not compatible(other.source, one.target):
                continue
            in_order = (one.source.position < other.source.position) == (one.target.position < other.target.position)
            if _is_namesake(one.source, other.target) or _is_namesake(other.source, one.target):
                found |= {one, other}
                continue
            beside = (one.source.parent, one.target.parent) == (other.source.parent, other.target.parent)
            if not in_order and (ordered or beside):
                crosswise = _words(one.source, one.target) + _words(other.source, other.target)
                straight = _words(one.source, other.target) + _words(other.source, one.target)
                if crosswise - straight < (_CLEARLY if ordered else _BARELY):
                    found |= {one, other}
    return found


def _is_namesake(source: Unit, target: Unit) -> bool:
    """They have one name in their blocks, whatever its case and underscores; numbers by their rank."""
    ours, theirs = (
        [part.text.replace("_", "").lower() for part in unit.path[len(unit.chain) :]] for unit in (source, target)
    )
    return bool(ours) and ours == theirs and source.rank == target.rank


def _words(source: Unit, target: Unit) -> float:
    """How much two units' words agree; that both are the first of two says something if both are norms, say."""
    last = [
        {word for word in unit.path[-1].said or words_of(unit.path[-1].text) if not _PLACE.fullmatch(word)}
        for unit in (source, target)
    ]
    ours, theirs = source.words, target.words
    if all(last) and not last[0] & last[1]:
        ours, theirs = (
            {word: worth for word, worth in words.items() if not _PLACE.fullmatch(word)} for words in (ours, theirs)
        )
    whole = sum(ours.values()) + sum(theirs.values())
    return sum(worth + theirs[word] for word, worth in ours.items() if word in theirs) / whole if whole else 0.0


# ---------------------------------------------------------------------------------------------- block by block


def _of_other_blocks(row: Sequence[Match]) -> set[Match]:
    """Those in whose eyes a block is another than it is to most."""
    votes: Counter[tuple[Numbers, Numbers]] = Counter()
    for one in row:
        votes.update(_blocks(one))
    ours, theirs = Counter[Numbers](), Counter[Numbers]()
    for (here, there), count in votes.items():
        ours[here] += count
        theirs[there] += count
    wrong = {
        pair for pair, count in votes.items() if count < _MAJORITY * max(ours[pair[0]], theirs[pair[1]])
    } | _backwards(votes)
    return {one for one in row if not wrong.isdisjoint(_blocks(one))}


def _blocks(one: Match) -> list[tuple[Numbers, Numbers]]:
    if one.source.path[-1].family or one.target.path[-1].family or one.source.kind or one.target.kind:
        return []  # leaves in a row are no blocks
    if len(one.source.numbers[0]) != len(one.target.numbers[0]):
        return []  # stages here, one list there
    return list(zip(one.source.numbers, one.target.numbers, strict=True))


def _backwards(pairs: Mapping[tuple[Numbers, Numbers], int]) -> set[tuple[Numbers, Numbers]]:
    """Blocks of one list inside another that are counted from its end, as whole lists are and parts of them are not."""
    inside: dict[tuple[Numbers, Numbers], list[tuple[Numbers, Numbers]]] = defaultdict(list)
    for here, there in pairs:
        if len(here) > 1 and len(there) > 1:
            inside[here[:-1], there[:-1]].append((here, there))
    return {
        pair
        for row in inside.values()
        if any(one[1] >= other[1] for one, other in pairwise(sorted(row)))
        for pair in row
    }


# ---------------------------------------------------------------------------------------------- habits


def by_habit(one: Match) -> str:
    """Whose habit tells which of two modules is which, where their names do not; nothing if their names do.

    Names that say nothing by themselves (``w1`` and ``w3`` beside ``w2``) are read as one library has them.
    """
    sides = [[piece.path for piece in unit.pieces or (unit,)] for unit in (one.source, one.target)]
    if {path[-1].text for path in sides[0]} == {path[-1].text for path in sides[1]}:
        return ""
    known = vocabulary().only_order
    said = [
        known.get((path[-1].text, path[-1].said), "")
        for side in sides
        for path in side
        if not in_context([part.text for part in path])
    ]
    return "; ".join(dict.fromkeys(filter(None, said)))


# ---------------------------------------------------------------------------------------------- names left out


def _namesakes(matches: Iterable[Match], sources: Iterable[Unit], targets: Iterable[Unit]) -> set[Match]:
    """Those whose key is also on the other side, and there of it nothing is made: that may be it, in another size."""
    ours, theirs = _main_shapes(sources), _main_shapes(targets)
    pairs: list[tuple[Match, str, str, Shape]] = []
    for one in matches:
        if not one.source.kind and not one.target.kind:
            source, target = one.source, one.target
            shapes = target.shapes[target.main]
            rows = zip(source.keys[source.main], target.keys[target.main], shapes, strict=True)
            pairs += [(one, *row) for row in rows]
    used, made = {row[1] for row in pairs}, {row[2] for row in pairs}
    return {
        one
        for one, here, there, shape in pairs
        if _plain(here) != _plain(there)  # else the numbers of a list were moved
        and (
            (ours.get(there) == shape and there not in used)
            or (_is_sized(theirs.get(here), shape) and here not in made)
        )
    }


def _is_sized(found: Shape | None, shape: Shape) -> bool:
    """It is the same tensor by its shape, but for its size along some axes."""
    return found is not None and len(found) == len(shape) and any(a == b for a, b in zip(found, shape, strict=True))


def _plain(key: str) -> str:
    return re.sub(r"\d+", "#", key)


def _main_shapes(units: Iterable[Unit]) -> dict[str, Shape]:
    return {
        key: shape for unit in units for key, shape in zip(unit.keys[unit.main], unit.shapes[unit.main], strict=True)
    }
