"""Two parts of one file that hold the same: a model and its running copy, a student and its teacher, two encoders.

Shapes and the names inside say nothing of which is meant. So one tower gives to one tower, and where there are two for
one, what stands before the names inside must tell which; a copy does not stand in for what is lacking in the original.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

from ckptool.matching.edges import Match
from ckptool.matching.modules import Shape, Unit
from ckptool.matching.words import vocabulary, words_of

Way = tuple[str, str]
Key = Callable[[Match], str]

_DEEPEST = 3  # parts of the name of a tower
_FEWEST = 4  # tensors that two towers share
_SHARED = 0.5  # of the tensors of the smaller of two towers are in both
_MOST = 6  # towers that share a name


def of_twins(matches: Sequence[Match], sources: Sequence[Unit], targets: Sequence[Unit]) -> set[Match]:
    """Matches of towers that have a twin, which are as good or as bad with that.

    Args:
        matches: sure ones.
        sources: all units of the source.
        targets: the same.
    """
    ours, theirs = _twins(sources), _twins(targets)
    found: set[Match] = set()
    for one, other in ours:
        found |= _undecided(matches, (one, other), theirs, _source_key, _target_key)
    for one, other in theirs:
        found |= _undecided(matches, (one, other), ours, _target_key, _source_key)
    return found


def _source_key(one: Match) -> str:
    return one.source.first_keys[0]


def _target_key(one: Match) -> str:
    return one.target.first_keys[0]


def _twins(units: Sequence[Unit]) -> list[Way]:
    """The beginnings of names behind which much is the same; the shorter names first."""
    inside: dict[tuple[str, Shape], Counter[str]] = defaultdict(Counter)
    sizes: Counter[str] = Counter()
    for unit in units:
        parts = [re.sub(r"\d+", "#", part) for part in unit.keys[unit.main][0].replace("/", ".").split(".")]
        for depth in range(min(_DEEPEST, len(parts) - 2) + 1):
            if depth and "#" in parts[depth - 1]:
                break
            name = ".".join(parts[:depth])
            sizes[name] += len(unit.members)
            inside[".".join(parts[depth:]), unit.shapes[unit.main][0]][name] += len(unit.members)
    shared = Counter[Way]()
    for towers in inside.values():
        if 1 < len(towers) <= _MOST:
            for one, other in combinations(sorted(towers, key=lambda name: (len(name), name)), 2):
                shared[one, other] += min(towers[one], towers[other])
    found: list[Way] = []
    for (one, other), count in sorted(shared.items(), key=lambda row: (len(row[0][0]) + len(row[0][1]), row[0])):
        smaller = min(sizes[one] - (sizes[other] if _is_inside(other, one) else 0), sizes[other])
        is_new = not any(_is_inside(one, a) and _is_inside(other, b) for a, b in found)
        if count >= max(_FEWEST, _SHARED * smaller) and is_new:
            found.append((one, other))
    return found


def _is_inside(name: str, tower: str) -> bool:
    return not tower or f"{name}.".startswith(f"{tower}.")


def _undecided(matches: Iterable[Match], twins: Way, others: Sequence[Way], here: Key, there: Key) -> set[Match]:
    """Of the matches of two twins those that the other twin might have as well."""
    own = [_words(name) for name in twins]
    own = [own[0] - own[1], own[1] - own[0]]
    rows: dict[str, tuple[list[Match], list[Match]]] = defaultdict(lambda: ([], []))
    found: set[Match] = set()
    for one in matches:
        at = _which(here(one), twins)
        if at is not None:
            said = _words(there(one).replace("/", "."))
            mine, its = len(own[at] & said), len(own[1 - at] & said)
            if mine < its:
                found.add(one)
            elif mine == its:
                rows[_tower(there(one), others)][at].append(one)
    given = [{tower for tower, row in rows.items() if row[at]} for at in (0, 1)]
    if len(given[0]) == len(given[1]) == 1 and given[0] != given[1]:
        return found  # one to one
    marks = [bool(words & vocabulary().marks) for words in own]
    for row in rows.values():
        kept = [sum(here(one) == there(one) for one in some) for some in row]
        if marks[0] != marks[1]:
            found.update(row[0] if marks[0] else row[1])
        elif row[0] and row[1]:
            found.update(*(row[at] for at in (0, 1) if kept[at] <= kept[1 - at]))
    return found


def _which(key: str, twins: Way) -> int | None:
    """In which of two towers a key is; of two of which one is inside of the other, the inner one goes before."""
    for at in (1, 0):
        if _is_inside(key.replace("/", "."), twins[at]):
            return at
    return None


def _tower(key: str, twins: Sequence[Way]) -> str:
    """The innermost tower with a twin that a key is in."""
    found = {name for row in twins for name in row if _is_inside(key.replace("/", "."), name)}
    return max(found, key=len, default="")


def _words(name: str) -> frozenset[str]:
    return frozenset(word for part in name.split(".") for word in words_of(part))
