"""Two files that list the same network: what stands at the same place of both, whatever the names.

Order alone is often wrong. So a pair is taken only where every best way to lay one file on the other has it, if most
matrices of the smaller file are laid so; and where two parts that hold the same may as well stand the other way round
(q and k, two heads), words have to tell them apart. Parts that are counted (``conv2d_7``) are in the order of their
numbers.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ckptool.matching.alike import contradicts, similarity
from ckptool.matching.contents import in_parts
from ckptool.matching.edges import Match, flip
from ckptool.matching.instances import COUNTED, Block, Instance, Pair, Sides, homes_of, hung, instances_of
from ckptool.matching.modules import Unit
from ckptool.matching.result import Confidence, Evidence

if TYPE_CHECKING:
    import numpy as np

_SHORTEST = 8  # matrices of a file whose order says something
_MOST = ((0.8, 4), (0.5, 10))  # of the matrices of the smaller file have a place in the other, of so many shapes
_SAME = 12  # modules of two files that are the same from the first to the last
_LARGEST = 2000  # modules of a file
_WORDS, _MARGIN = 0.25, 0.1  # words that agree, and by how much better than those of a part that holds the same
_OTHERS = 0.05  # of what is matched already, at most, is at another place
_CLEARLY = 0.95  # of the matrices have a place, so that what is at another is wrong


@dataclass(slots=True)
class _Node:
    """What stands behind one beginning of names."""

    modules: list[Instance] = field(default_factory=list)
    children: dict[str, _Node] = field(default_factory=dict)


def in_sequence(
    sources: Sequence[Unit],
    targets: Sequence[Unit],
    places: tuple[Mapping[str, int], Mapping[str, int]],
    known: Mapping[str, str],
    io: frozenset[Unit],
    ordered: Sequence[bool],
) -> tuple[list[Match], frozenset[str]]:
    """Matches of single modules, by their place; and the target keys of what is matched already, and goes elsewhere.

    Args:
        sources: all units of the source, as they are in the file.
        targets: the same.
        places: of every key in its file.
        known: source key by target key, of what is matched already.
        io: units whose matrices are stored the other way round.
        ordered: of each file, whether its order means something.
    """
    if any(sum(len(unit.members) for unit in units) > _LARGEST for units in (sources, targets)):
        return [], frozenset()
    ours, theirs = (
        instances_of(units, place, io, is_ordered)
        for units, place, is_ordered in zip((sources, targets), places, ordered, strict=True)
    )
    whole = [[one for one in side if one.is_matrix] for side in (ours, theirs)]
    parts = in_parts(*whole)
    here, there = (_counted(row, is_ordered) for row, is_ordered in zip(whole, ordered, strict=True))
    laid = _common(here, there, parts)
    spine = _joined(parts, laid)
    share, kinds = len(spine) / max(1, min(map(len, whole))), len({one.kind for one, _ in spine})
    is_same = len(ours) >= _SAME and [one.kind for one in ours] == [one.kind for one in theirs]
    is_most = len(spine) >= _SHORTEST and any(share >= most and kinds >= fewest for most, fewest in _MOST)
    if not is_same and not is_most:
        return [], frozenset()
    found = _joined(parts, _beside(laid, here, there))
    if all(ordered):
        said = [row for row in _common(ours, theirs) if not row[0].is_matrix]
        said = [row for row in _beside(found + said, ours, theirs) if not row[0].is_matrix]
    else:
        vectors = ([one for one in side if not one.is_matrix] for side in (ours, theirs))
        mine, its = (_counted(row, is_ordered) for row, is_ordered in zip(vectors, ordered, strict=True))
        said = _common(mine, its)
    found = _apart(found + _hung(found, (ours, theirs), said), ours, theirs)
    twins = _twins(ours), _twins(theirs)
    again = [
        (one, other)
        for one, other in found
        if (one.is_matrix or one.kind[0])
        and other.key in known
        and not twins[0].get(id(one))
        and not twins[1].get(id(other))
    ]
    others = frozenset(other.key for one, other in again if known[other.key] != one.key)
    is_clear = all(ordered) and len(spine) >= _CLEARLY * max(map(len, whole))
    if len(others) > _OTHERS * len(again) and not is_clear:
        return [], frozenset()
    known = {key: made for key, made in known.items() if key not in others}
    used = {*known.values()}
    matches = [
        _match(one, other, flip(one.unit, other.unit, io))
        for one, other in found
        if other.key not in known
        and one.key not in used
        and not contradicts(one.unit, other.unit)
        and _is_told(one, other, twins)
    ]
    return matches, others


def _joined(first: Sequence[Pair], then: Iterable[Pair]) -> list[Pair]:
    """The first pairs, and those of the others that have nothing in common with them."""
    used = {id(one) for pair in first for one in pair}
    return [*first, *((one, other) for one, other in then if used.isdisjoint((id(one), id(other))))]


def _match(one: Instance, other: Instance, way: str) -> Match:
    here, there = one.unit.restricted([one.at]), other.unit.restricted([other.at])
    says = [Evidence.SAME_SEQUENCE, *([Evidence.WORDS_AGREE] if similarity(here, there) >= _WORDS else [])]
    return Match(here, there, tuple(says), Confidence.ALIGNED, way=way)


def _counted(modules: Sequence[Instance], is_ordered: bool) -> Sequence[Instance]:
    """Those whose order means something: all, or of a file without an order the longest row that is counted."""
    if is_ordered:
        return modules
    rows: list[list[Instance]] = [[]]
    for one in modules:
        if rows[-1] and not _is_next(rows[-1][-1], one):
            rows.append([])
        rows[-1].append(one)
    return max(rows, key=len)


def _is_next(one: Instance, other: Instance) -> bool:
    """Where the names begin to differ they do so in a number."""
    pairs = zip(one.tokens, other.tokens, strict=False)
    return next((COUNTED.sub("#", a) == COUNTED.sub("#", b) for a, b in pairs if a != b), True)


def _hung(laid: Sequence[Pair], sides: Sides, said: Iterable[Pair]) -> list[Pair]:
    """Pairs of vectors: those of the matrices that they stand beside, and of others what the order says."""
    homes, others = map(homes_of, sides)
    there = {id(one): other for one, other in laid}
    found = hung(laid, sides)
    used = {id(one) for pair in found for one in pair}
    for one, other in said:
        home, its = homes.get(id(one)), others.get(id(other))
        is_other = home and its and there.get(id(home), its) is not its
        if not is_other and used.isdisjoint((id(one), id(other))):
            found.append((one, other))
    return found


def _common(ours: Sequence[Instance], theirs: Sequence[Instance], known: Iterable[Pair] = ()) -> list[Pair]:
    """The pairs of equal kind that are in every longest way to lay one sequence on the other; known ones stay pairs."""
    if not ours or not theirs:
        return []
    import numpy as np

    own = {id(one): at for at, pair in enumerate(known) for one in pair}
    number: dict[object, int] = {}
    here, there = (
        np.array([number.setdefault(own.get(id(one), one.kind), len(number)) for one in side])
        for side in (ours, theirs)
    )
    same = here[:, None] == there[None, :]
    before, behind = _lengths(same), _lengths(same[::-1, ::-1])[::-1, ::-1]
    total = before[-1, -1]
    best = same & (before[:-1, :-1] + 1 + behind[1:, 1:] == total)
    rows = np.argwhere(best)
    steps = before[:-1, :-1][best]
    alone = np.bincount(steps, minlength=total + 1)[steps] == 1
    return [(ours[at], theirs[to]) for at, to in rows[alone]]


def _lengths(same: np.ndarray) -> np.ndarray:
    """For each two beginnings, how many pairs the longest way has."""
    import numpy as np

    found = np.zeros((same.shape[0] + 1, same.shape[1] + 1), np.int32)
    for at, row in enumerate(same):
        np.maximum(found[at, 1:], found[at, :-1] + row, out=found[at + 1, 1:])
        np.maximum.accumulate(found[at + 1], out=found[at + 1])
    return found


def _beside(found: Iterable[Pair], ours: Sequence[Instance], theirs: Sequence[Instance]) -> list[Pair]:
    """Those beside which something is laid on what is beside the other: one alone may be there by chance."""
    here, there = ({id(one): at for at, one in enumerate(side)} for side in (ours, theirs))
    laid = {(here[id(one)], there[id(other)]): (one, other) for one, other in found}
    return [row for (at, to), row in laid.items() if (at - 1, to - 1) in laid or (at + 1, to + 1) in laid]


def _apart(found: Sequence[Pair], *sides: Sequence[Instance]) -> list[Pair]:
    """The pairs, but for those of blocks of which each lies on parts of two others: what is beside them is shifted."""
    votes = Counter((one.block, other.block) for one, other in found)
    ours, theirs = defaultdict[Block, set[Block]](set), defaultdict[Block, set[Block]](set)
    for here, there in votes:
        ours[here].add(there)
        theirs[there].add(here)
    around = {one.block[:depth] for side in sides for one in side for depth in range(len(one.block))}
    crossed = {row for row in votes if len(ours[row[0]]) > 1 and len(theirs[row[1]]) > 1 and around.isdisjoint(row)}
    shifted = {block for row in crossed for block in row}
    kinds = {one.kind for one, other in found if (one.block, other.block) in crossed}
    return [
        (one, other) for one, other in found if one.kind not in kinds or shifted.isdisjoint((one.block, other.block))
    ]


def _twins(modules: Sequence[Instance]) -> dict[int, list[Instance]]:
    """By id of a module: those of its kind in parts beside its own that hold the same, and are not counted with it."""
    root = _Node()
    for one in modules:
        node = root
        for token in one.tokens:
            node.modules.append(one)
            node = node.children.setdefault(token, _Node())
        node.modules.append(one)
    found: dict[int, list[Instance]] = defaultdict(list)
    nodes = [root]
    while nodes:
        node = nodes.pop()
        nodes += node.children.values()
        families: dict[str, list[Instance]] = defaultdict(list)
        for name, child in node.children.items():
            families[COUNTED.sub("#", name)] += child.modules
        alike: dict[object, list[list[Instance]]] = defaultdict(list)
        for row in families.values():
            alike[frozenset(Counter(one.kind for one in row).items())].append(row)
        for rows in alike.values():
            if len(rows) > 1 and not _are_counted(rows):
                for row in rows:
                    for one in row:
                        found[id(one)] += [
                            rival for other in rows if other is not row for rival in other if rival.kind == one.kind
                        ]
    return found


def _are_counted(rows: Iterable[Sequence[Instance]]) -> bool:
    """Each is one module, with a number of its own in its last part: ``compress_conv1``, ``expand_conv3``."""
    numbers = [re.findall(r"\d+", row[0].tokens[-1]) for row in rows if len(row) == 1]
    return all(numbers) and len({*map(tuple, numbers)}) == len(numbers) > 1


def _is_told(
    one: Instance, other: Instance, twins: tuple[dict[int, list[Instance]], dict[int, list[Instance]]]
) -> bool:
    """Nothing may stand at the place of either, or words tell it from all that may."""
    ours, theirs = (
        [rival for rival in twins[side].get(id(mine), []) if not _differ(mine, its, rival)]
        for side, mine, its in ((0, one, other), (1, other, one))
    )
    if not ours and not theirs:
        return True
    rivals = [similarity(one.unit, rival.unit) for rival in theirs] + [
        similarity(rival.unit, other.unit) for rival in ours
    ]
    mine = similarity(one.unit, other.unit)
    return mine >= _WORDS and mine - max(rivals) >= _MARGIN


def _differ(one: Instance, other: Instance, rival: Instance) -> bool:
    """Both have the same tensors, and the rival has others: k has no bias, q has one."""
    roles = one.unit.shapes.keys()
    return roles == other.unit.shapes.keys() != rival.unit.shapes.keys()
