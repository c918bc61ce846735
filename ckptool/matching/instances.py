"""Modules one by one, as they are listed, and which matrix a norm or another vector stands beside."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_letters

from ckptool.matching.alike import signature
from ckptool.matching.cuts import parts_of
from ckptool.matching.edges import Match
from ckptool.matching.modules import Shape, Unit
from ckptool.matching.result import Evidence

_ENDING = re.compile(r"\d+$")
COUNTED = re.compile(r"\d+|(?<=\d)[a-w](?![A-Za-z])")  # numbers, and the letters that count on behind them

Block = tuple[str, ...]
Kind = tuple[bool, Shape]


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a unit."""

    unit: Unit
    at: int
    kind: Kind  # a batch norm or not, and the shape of the main tensor as torch has it
    tokens: tuple[str, ...]
    block: Block  # the name down to its last number, without that of the module itself
    own: int  # how many of the tokens are the module's own name

    @property
    def key(self) -> str:
        """Of its main tensor."""
        return self.unit.keys[self.unit.main][self.at]

    @property
    def around(self) -> Block:
        """The tokens of the module that it is in."""
        return self.tokens[: len(self.tokens) - self.own]

    @property
    def is_matrix(self) -> bool:
        return len(self.kind[1]) > 1


Pair = tuple[Instance, Instance]
Sides = tuple[Sequence[Instance], Sequence[Instance]]


def instances_of(
    units: Iterable[Unit], place: Mapping[str, int], io: frozenset[Unit], is_ordered: bool
) -> list[Instance]:
    """The modules in the order of the file, or of the numbers in their names."""
    found = []
    for unit in units:
        shapes, is_norm = signature(unit, unit in io), "running_mean" in unit.shapes
        for at, (key, shape) in enumerate(zip(unit.keys[unit.main], shapes, strict=True)):
            parts = parts_of(key.replace("/", "."))[0]
            names = [[token for token in part.split("_") if token] for part in parts[:-1] or parts]
            if len(names) % 2 == 0 and names[: len(names) // 2] == names[len(names) // 2 :]:
                names = names[: len(names) // 2]  # Keras has a layer in a group of its name
            tokens = tuple(token for name in names for token in name)
            outer = key.replace("/", ".").split(".")[:-2]
            counted = [level for level, part in enumerate(outer) if COUNTED.search(part)]
            block = tuple(outer[: counted[-1] + 1] if counted else outer)
            found.append(Instance(unit, at, (is_norm, shape), tokens, block, len(names[-1])))
    if not is_ordered:
        return sorted(found, key=lambda one: [_natural(token) for token in one.tokens])
    return sorted(found, key=lambda one: min(place[keys[one.at]] for keys in one.unit.keys.values()))


def _natural(text: str) -> list[tuple[bool, int, str]]:
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", text) if part]


def homes_of(modules: Sequence[Instance]) -> dict[int, Instance]:
    """By id of a vector: the matrix that alone stands behind the longest beginning of its name: ``branch1.bn``."""
    beside: dict[Block, list[Instance]] = defaultdict(list)
    for one in modules:
        for depth in range(1, len(one.tokens) + 1) if one.is_matrix else ():
            beside[one.tokens[:depth]].append(one)
    found = {}
    for one in modules:
        depth = next((at for at in range(len(one.tokens), 0, -1) if one.tokens[:at] in beside), 0)
        if not one.is_matrix and depth and len(beside[one.tokens[:depth]]) == 1:
            found[id(one)] = beside[one.tokens[:depth]][0]
    return found


def _called_homes(modules: Sequence[Instance]) -> tuple[dict[int, Instance], bool]:
    """By id of a vector: the matrix whose name ends alike (``conv2``, ``bn2``; ``first``, ``norm_first``).

    In a row of numbers that is the matrix before it. It must be as long as the matrix has outputs. And whether all of
    them stand behind their matrices: none is as long as the inputs alone, and one as the outputs.
    """
    beside: dict[object, list[Instance]] = defaultdict(list)
    for one in modules:
        if one.is_matrix and one.tokens:
            for name in ((one.around, _end(one)), _called(one)):
                beside[name].append(one)
    found = {}
    ends: set[bool] = set()
    for one in modules:
        if not one.is_matrix and one.tokens:
            before = str(int(one.tokens[-1]) - 1) if one.tokens[-1].isdecimal() else _end(one)
            rows = (beside.get(name, []) for name in (_called(one), (one.around, before)))
            row = next((row for row in rows if len(row) == 1), [])
            if row:
                outputs, inputs, *_ = row[0].kind[1]
                if one.kind[1] == (outputs,):
                    found[id(one)] = row[0]
                if outputs != inputs and one.kind[1] in ((outputs,), (inputs,)):
                    ends.add(one.kind[1] == (outputs,))
    return found, ends == {True}


def _called(one: Instance) -> Block:
    """Its name without the word that begins its last part: of ``bn2a_branch2b`` what ``res2a_branch2b`` has as well."""
    *around, last = one.key.replace("/", ".").split(".")[:-1] or [one.key]
    return (*(part for part in around if part != last), last.lstrip(ascii_letters).lstrip("_"))


def _end(one: Instance) -> str:
    """The number at the end of its name, or the last word."""
    number = _ENDING.search(one.tokens[-1])
    return number[0] if number else one.tokens[-1]


def hung(laid: Iterable[Pair], sides: Sides) -> list[Pair]:
    """The vectors that alone of their kind stand beside matrices which are each other's.

    A norm may also stand in front of the matrix that has its number. So where a container tells on one side, and a
    name on the other, the matrix must not be square, or what is beside those that are not is behind them.
    """
    there = {id(one): other for one, other in laid}
    (ours, called), (theirs, its_called) = (_by_home(side) for side in sides)
    found = []
    for (home, kind), row in ours.items():
        other = there.get(home)
        rivals = theirs.get((id(other), kind), []) if other else []
        if other and len(row) == len(rivals) == 1:
            is_alike = (id(row[0]) in called) == (id(rivals[0]) in its_called)
            if is_alike or other.kind[1][0] != other.kind[1][1]:
                found.append((row[0], rivals[0]))
    return found


def _by_home(side: Sequence[Instance]) -> tuple[dict[tuple[int, Kind], list[Instance]], set[int]]:
    """The vectors by id of the matrix that they stand beside, and by kind; and those of which a name tells it."""
    homes = homes_of(side)
    called, are_behind = _called_homes(side)
    called = {at: home for at, home in called.items() if at not in homes}
    found: dict[tuple[int, Kind], list[Instance]] = defaultdict(list)
    for one in side:
        if home := homes.get(id(one)) or called.get(id(one)):
            found[id(home), one.kind].append(one)
    return found, set() if are_behind else set(called)


def strayed(
    matches: Iterable[Match], sources: Sequence[Unit], targets: Sequence[Unit], io: frozenset[Unit]
) -> dict[Match, Evidence]:
    """Matches of batch norms beside convolutions that are not each other's, or of two kinds that both sides have."""
    if not any("running_mean" in unit.shapes for unit in targets):
        return {}
    single = [one for one in matches if not one.source.kind and not one.target.kind]
    ours, theirs = (instances_of(units, {}, io, False) for units in (sources, targets))
    there = {one.key: one for one in theirs}
    laid = {
        at: (one, there[to])
        for one in single
        for at, to in zip(*(unit.keys[unit.main] for unit in (one.source, one.target)), strict=True)
        if to in there
    }
    back = {other.key: at for at, (_, other) in laid.items()}
    homes, others = ({**_called_homes(side)[0], **homes_of(side)} for side in (ours, theirs))
    kinds = [{one.kind for one in side} for side in (ours, theirs)]
    found: dict[Match, Evidence] = {}
    for one in ours:
        home = homes.get(id(one))
        if not one.kind[0] or not home or one.key not in laid:
            continue
        match, other = laid[one.key]
        its = others.get(id(other))
        if not its:
            continue
        is_laid = back.get(its.key, home.key) != home.key or (home.key in laid and laid[home.key][1] is not its)
        if is_laid or (home.kind != its.kind and home.kind in kinds[1] and its.kind in kinds[0]):
            found[match] = Evidence.SPLIT
    return found
