"""Matches that contradict each other, or the names of what they leave out: found one by one, doubtful together."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise

from ckptool.matching.alike import compatible, named_words, same_end, shared
from ckptool.matching.edges import Match
from ckptool.matching.modules import Shape, Unit
from ckptool.matching.relations import are_usual, squeezed
from ckptool.matching.result import Evidence, Group
from ckptool.matching.towers import of_twins
from ckptool.matching.words import vocabulary, words_of

Chain = tuple[str, ...]
Numbers = tuple[int, ...]

_PLACE = re.compile(r"\d+/\d+")
_FIRST = re.compile(r"(\D*)(\d+)")
_BLOCK = re.compile(r"[^./]*[./](?:[^\d]*\d+[^./]*[./])?")
_MOST = 40  # modules of one list that are compared with each other; of more only the order of a file tells
_CLEARLY = 0.3  # by how much better words must agree than with each other's, against the order
_BARELY = 0.05  # the same where there is no order
_MAJORITY = 2 / 3
_NEARLY_ALL = 0.8  # of the modules of a side have a counterpart
_SIBLINGS = 4  # children of one module that went to one
_FEWEST = 3  # matches whose order says something
_KERNELS, _MATRICES = 7, 3  # shapes that are no accident


def doubted(
    matches: Sequence[Match], sources: Sequence[Unit], targets: Sequence[Unit], *, ordered: bool, is_same: bool = False
) -> dict[Match, Evidence]:
    """Those that others speak against, each with the reason.

    Args:
        matches: sure ones.
        sources: all units of the source.
        targets: the same.
        ordered: the files are in an order of their own, not in that of their letters.
        is_same: both files hold modules of the same sizes equally often.
    """
    found: dict[Match, Evidence] = {}
    lists: dict[tuple[Chain, Chain], list[Match]] = defaultdict(list)
    for one in matches:
        lists[one.source.chain, one.target.chain].append(one)
    for row in lists.values():
        found |= dict.fromkeys(_crossing(row, ordered=ordered), Evidence.CROSSED)
    found |= dict.fromkeys(_of_other_lists(matches), Evidence.OTHER_BLOCKS)
    is_most = _is_most(matches, sources, targets)
    found |= dict.fromkeys(_namesakes(matches, sources, targets, is_most=is_most), Evidence.NAMESAKE)
    found |= dict.fromkeys(of_twins(matches, sources, targets), Evidence.TWIN)
    found |= dict.fromkeys(_rearranged(matches, sources, targets), Evidence.REARRANGED)
    found |= dict.fromkeys(_away(matches, sources, targets), Evidence.SPLIT)
    found |= dict.fromkeys(_rivalled(matches, sources, targets), Evidence.CROSSED)
    common = _common(sources) | _common(targets)
    if not any(_is_told(one, common) for one in matches) and not is_most and not is_same and not _are_rare(matches):
        found |= dict.fromkeys(matches, Evidence.NO_WORD)
    if _is_mirrored(matches, common):
        found |= dict.fromkeys(matches, Evidence.MIRRORED)
    return found


def _rivalled(matches: Sequence[Match], sources: Sequence[Unit], targets: Sequence[Unit]) -> set[Match]:
    """Those of which something that is left over in the same block, of the same shape, has as many words."""
    plain = [one for one in matches if not one.is_named and Evidence.BESIDE not in one.evidence]
    found: set[Match] = set()
    for side, units in (("source", sources), ("target", targets)):
        used = {key for one in matches for unit in getattr(one, side).atoms for key in unit.keys[unit.main]}
        free: dict[object, list[Unit]] = defaultdict(list)
        for unit in units:
            for key, shape in zip(unit.keys[unit.main], unit.shapes[unit.main], strict=True):
                if key not in used:
                    free[_outermost(key), shape].append(unit)
        for one in plain if free else ():
            mine, other = (one.source, one.target) if side == "source" else (one.target, one.source)
            is_last = same_end(mine, other)
            rivals = {
                id(rival): rival
                for key, shape in zip(mine.keys[mine.main], mine.shapes[mine.main], strict=True)
                for rival in free.get((_outermost(key), shape), ())
            }
            if any(
                compatible(rival, other) and shared(rival, other) > shared(mine, other) - _BARELY
                for rival in rivals.values()
                if not is_last or same_end(rival, other)
            ):
                found.add(one)
    return found


def _outermost(key: str) -> str:
    """The name up to the first number: of the block that it is in."""
    found = _BLOCK.match(key)
    return found[0] if found else ""


def _away(matches: Sequence[Match], sources: Sequence[Unit], targets: Sequence[Unit]) -> set[Match]:
    """Those that leave the module where most of their siblings went, though one there fits that has none of them."""
    found: set[Match] = set()
    for side, other, units in (("source", "target", targets), ("target", "source", sources)):
        went: dict[Chain, Counter[Chain]] = defaultdict(Counter)
        came: dict[Unit, Chain] = {}
        for one in matches:
            mine, its = getattr(one, side), getattr(one, other)
            went[mine.parent][its.parent] += 1
            came |= dict.fromkeys(its.atoms, mine.parent)
        inside: dict[Chain, list[Unit]] = defaultdict(list)
        for unit in units:
            inside[unit.parent].append(unit)
        for one in matches:
            mine, its = getattr(one, side), getattr(one, other)
            home, count = went[mine.parent].most_common(1)[0]
            is_away = its.parent[: len(home)] != home and not one.is_named
            if is_away and count >= max(_SIBLINGS, went[mine.parent].total() / 2):
                places = [unit for unit in inside[home] if came.get(unit) != mine.parent]
                pairs = ((mine, unit) if side == "source" else (unit, mine) for unit in places)
                shape = mine.shapes[mine.main][0]
                if any(a.shapes[a.main][0] == b.shapes[b.main][0] == shape and compatible(a, b) for a, b in pairs):
                    found.add(one)
    return found


def _common(units: Sequence[Unit]) -> set[str]:
    """The words that all of a file's names have, which say nothing."""
    return set[str].intersection(*({*unit.words} for unit in units)) if units else set()


def _is_told(one: Match, common: set[str]) -> bool:
    """Something besides shapes and numbers says it: a word that both names have, or the order of the files."""
    return bool(named_words(one.source, one.target) - common) or any(
        said.group is Group.ORDER or said.is_name for said in one.evidence
    )


def _is_most(matches: Iterable[Match], sources: Iterable[Unit], targets: Iterable[Unit]) -> bool:
    """Most of one side has a counterpart, or most of its matrices: norms of another kind have none."""

    def counted(units: Iterable[Unit], *, norms: bool) -> int:
        return sum(len(unit.members) for unit in units if norms or len(unit.shapes[unit.main][0]) > 1)

    return any(
        counted((one.target for one in matches), norms=norms)
        >= _NEARLY_ALL * min(counted(units, norms=norms) for units in (sources, targets))
        for norms in (True, False)
    )


def _are_rare(matches: Iterable[Match]) -> bool:
    """Their shapes say it, which no other model has by chance: kernels of many sizes, matrices of unusual widths."""
    shapes = {squeezed(shape) for one in matches for shape in one.target.shapes[one.target.main]}
    flat = [shape for shape in shapes if len(shape) == 2]
    return sum(len(shape) > 2 for shape in shapes) >= _KERNELS or (len(flat) >= _MATRICES and not are_usual(flat))


def _is_mirrored(matches: Sequence[Match], common: set[str]) -> bool:
    """All blocks are in reverse order, and no word is on both sides: an encoder, and a decoder that is its mirror."""
    if any(named_words(one.source, one.target) - common for one in matches):
        return False
    pairs = [
        (here, there)
        for one in matches
        if not one.source.kind and not one.target.kind
        for here, there in zip(one.source.keys[one.source.main], one.target.keys[one.target.main], strict=True)
    ]
    rows = sorted({(_numbered_first(here), _numbered_first(there)) for here, there in pairs})
    falls = all(one[0] != other[0] and one[1] > other[1] for one, other in pairwise(rows))
    return len(pairs) >= _FEWEST and len(rows) > 1 and falls


def _numbered_first(key: str) -> tuple[str, int]:
    """The name up to its first number, and this."""
    found = _FIRST.match(key)
    return (found[1], int(found[2])) if found else (key, 0)


# ---------------------------------------------------------------------------------------------- inside a block


def _crossing(row: Sequence[Match], *, ordered: bool) -> set[Match]:
    """Of two modules those that may as well be each other's: names that are equal or an order that is not say so."""
    alike: dict[object, list[Match]] = defaultdict(list)
    for one in row:
        if not one.source.kind and not one.target.kind and Evidence.BESIDE not in one.evidence:
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
            if not in_order and beside:
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
    is_there = source.place == target.place if source.place and target.place else source.rank == target.rank
    return bool(ours) and ours == theirs and is_there


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


def _of_other_lists(matches: Iterable[Match]) -> set[Match]:
    """Those in whose eyes the outermost list is counted forwards, though most have it backwards."""
    lists: dict[tuple[str, str], list[tuple[Match, set[tuple[int, int]]]]] = defaultdict(list)
    for one in matches:
        source, target = one.source, one.target
        if source.chain and target.chain and not source.path[-1].family and not target.path[-1].family:
            pairs = {(here[0], there[0]) for here, there in zip(source.numbers, target.numbers, strict=True)}
            lists[source.text.partition("#")[0], target.text.partition("#")[0]].append((one, pairs))
    found: set[Match] = set()
    for row in lists.values():
        votes = Counter(pair for _, said in row for pair in said)
        ours, theirs = Counter[int](), Counter[int]()
        for (here, there), count in votes.items():
            ours[here] += count
            theirs[there] += count
        most = sorted(pair for pair, count in votes.items() if 2 * count > max(ours[pair[0]], theirs[pair[1]]))
        falls = all(one[1] > other[1] for one, other in pairwise(most))
        if falls and len(most) == len(ours) == len(theirs) > 1:  # each block has its own
            found |= {match for match, said in row if not said <= {*most}}
    return found


# ---------------------------------------------------------------------------------------------- another order inside


def _rearranged(matches: Iterable[Match], sources: Iterable[Unit], targets: Iterable[Unit]) -> set[Match]:
    """Those whose elements one library has in another order than the rest, as the names of one side alone show."""
    ours, theirs = ({part.text for unit in units for part in unit.path} for units in (sources, targets))
    found: set[Match] = set()
    for marks, parts in vocabulary().rearranged.items():
        if (marks <= ours) != (marks <= theirs):
            here = "source" if marks <= ours else "target"
            found |= {one for one in matches if _parts(getattr(one, here)) & parts}
    return found


def _parts(unit: Unit) -> set[str]:
    return {part.text for one in unit.pieces or (unit,) for part in one.path}


# ---------------------------------------------------------------------------------------------- names left out


def _namesakes(
    matches: Iterable[Match], sources: Iterable[Unit], targets: Iterable[Unit], *, is_most: bool
) -> set[Match]:
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
    found = {
        one
        for one, here, there, shape in pairs
        if (
            (there not in used and ours.get(there) == shape)
            or (here not in made and _is_sized(theirs.get(here), shape))
        )
        and _plain(here) != _plain(there)  # else the numbers of a list were moved
    }
    found |= set() if is_most else _of_another_width(pairs, theirs)
    return found | _strays(pairs, ours)


def _of_another_width(pairs: Sequence[tuple[Match, str, str, Shape]], theirs: Mapping[str, Shape]) -> set[Match]:
    """Those that move to another number of a list, where what has their number is larger or smaller, as in most."""
    moved = [row for row in pairs if row[1] != row[2] and _plain(row[1]) == _plain(row[2])]
    resized = [row for row in moved if theirs.get(row[1], row[3]) != row[3]]
    kept = sum(here == there for _, here, there, _ in pairs)
    return {row[0] for row in moved} if len(resized) > kept and 2 * len(resized) > len(moved) else set()


def _strays(pairs: Sequence[tuple[Match, str, str, Shape]], ours: Mapping[str, Shape]) -> set[Match]:
    """Where most numbers stay: those that move to a number whose namesake is left over, or is a stray itself."""
    kept = sum(here == there for _, here, there, _ in pairs)
    moved = [row for row in pairs if row[1] != row[2] and _plain(row[1]) == _plain(row[2])] if kept else []
    if len(moved) >= kept:
        return set()  # a list was renumbered
    strays: set[Match] = set()
    used = {here for _, here, _, _ in pairs}
    while True:
        more = {one for one, _, there, shape in moved if ours.get(there) == shape and there not in used} - strays
        if not more:
            return strays
        strays |= more
        used -= {here for one, here, _, _ in moved if one in more}


def _is_sized(found: Shape | None, shape: Shape) -> bool:
    """It is the same tensor by its shape, but for its size along some axes."""
    return found is not None and len(found) == len(shape) and any(a == b for a, b in zip(found, shape, strict=True))


def _plain(key: str) -> str:
    return re.sub(r"\d+", "#", key)


def _main_shapes(units: Iterable[Unit]) -> dict[str, Shape]:
    return {
        key: shape for unit in units for key, shape in zip(unit.keys[unit.main], unit.shapes[unit.main], strict=True)
    }
