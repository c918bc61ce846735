"""Keys as modules, and modules as units: the same module of every block is one.

A key is cut at its dots. Where siblings differ in a number only and hold alike structures they form a family
(``layers.0`` ... ``layers.11``; the odd ones of ``features.0`` ... ``features.7``), and all their tensors are looked at
together: a unit is one module with its tensors in each member of the families it is in. Numbers that tell different
modules apart (``conv1``, ``mlp.3``) stay, with their rank among their like.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ckptool.matching.words import in_context, is_structure, leaf_of, words_of
from ckptool.spec import TensorSpec

Shape = tuple[int, ...]

_NUMBER = re.compile(r"(.*?)(\d{1,9})(\D*)")
_ALIKE = 0.5  # of the structure of two members of a family is the same
_DEEPEST = 60  # dots of a key that is taken apart; no model nests deeper
_TINY = 8  # tensors of a member of a family that may be no block, but a convolution with its norm


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a unit's path.

    Attributes:
        text: it; for a family with ``#`` for the number.
        family: it stands for several members.
        rank: (place among siblings of its like, how many these are) for a number that is not a family's.
    """

    text: str
    family: bool = False
    rank: tuple[int, int] | None = None


@dataclass(eq=False, slots=True)
class Unit:
    """One module in each block it is in.

    Attributes:
        path: the parts of its name.
        members: for each instance, the places in the families around it.
        keys: by role, the key in each instance.
        shapes: by role, the shape in each instance.
        position: where its first tensor stands in the file.
        written: by role, the last part as it is written.
        bare: it is a parameter without a role's name.
        numbers: for each instance, the numbers that stand for its places.
        groups: of a unit that is made of others, by role: the keys that make up each instance.
        pieces: the units that it is made of.
        kind: how: "qkv", "gate up", "stack".
        is_cut: only some of its instances are meant.
        words: what its path says, weighted.
        rank: the places of its numbers.
    """

    path: tuple[Part, ...]
    members: tuple[tuple[int, ...], ...]
    keys: dict[str, tuple[str, ...]]
    shapes: dict[str, tuple[Shape, ...]]
    position: int
    written: dict[str, str]
    bare: bool
    numbers: tuple[tuple[int, ...], ...] = ()
    groups: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    pieces: tuple[Unit, ...] = ()
    kind: str = ""
    is_cut: bool = False
    words: dict[str, float] = field(default_factory=dict)
    rank: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        self.words = _weighted(self.path)
        self.rank = tuple(part.rank for part in self.path if part.rank)

    @property
    def main(self) -> str:
        """The role that it is compared by."""
        return "weight" if "weight" in self.shapes else min(self.shapes)

    @property
    def text(self) -> str:
        """Its path, with ``#`` for the numbers of families."""
        return ".".join(part.text for part in self.path)

    @property
    def chain(self) -> tuple[str, ...]:
        """The path down to the innermost family; empty outside all families."""
        last = max((at for at, part in enumerate(self.path) if part.family), default=-1)
        return tuple(part.text for part in self.path[: last + 1])

    @property
    def first_keys(self) -> tuple[str, ...]:
        """Of the first instance: the keys of its main role."""
        return self.groups[self.main][0] if self.groups else self.keys[self.main][:1]

    @property
    def parent(self) -> tuple[str, ...]:
        """The path without its last part."""
        return tuple(part.text for part in self.path[:-1])

    def restricted(self, kept: Sequence[int]) -> Unit:
        """Only these instances."""
        return Unit(
            self.path,
            tuple(self.members[at] for at in kept),
            {role: tuple(keys[at] for at in kept) for role, keys in self.keys.items()},
            {role: tuple(shapes[at] for at in kept) for role, shapes in self.shapes.items()},
            self.position,
            self.written,
            self.bare,
            tuple(self.numbers[at] for at in kept),
            is_cut=len(kept) < len(self.members),
        )


def _weighted(path: Sequence[Part]) -> dict[str, float]:
    """The words of a path; those near its end count more, those that say little count little."""
    found: dict[str, float] = {}
    weight = 1.0
    meant = in_context([part.text for part in path])
    for part in reversed(path):
        words = meant or words_of(part.text)
        meant = ()
        for word in words:
            worth = weight * (0.15 if is_structure(word) else 1.0)
            found[word] = max(found.get(word, 0.0), worth)
        if part.rank:
            place = f"{part.rank[0] + 1}/{part.rank[1]}"
            found[place] = max(found.get(place, 0.0), weight)
        if not all(map(is_structure, words)) or part.rank:
            weight *= 0.75
    return found


# ---------------------------------------------------------------------------------------------- the tree of modules


@dataclass(eq=False, slots=True)
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    tensors: dict[str, tuple[TensorSpec, int, str, bool]] = field(default_factory=dict)
    structure: frozenset[tuple[str, ...]] = frozenset()
    size: int = 0

    def settle(self) -> None:
        """Computes the structure: the number-free names of everything below. Children come first."""
        found: set[tuple[str, ...]] = {(role, str(len(row[0].shape))) for role, row in self.tensors.items()}
        for name, child in self.children.items():
            plain = re.sub(r"\d+", "#", name) if child.children else name
            found.update((plain, *row) for row in child.structure)
        self.structure = frozenset(found)
        self.size = len(self.tensors) + sum(child.size for child in self.children.values())


def units_of(specs: Mapping[str, TensorSpec], *, split_tiny: bool = False) -> list[Unit]:
    """The units of a checkpoint, in its order.

    Args:
        specs: in the file's order.
        split_tiny: a family of a few small members inside another one is taken for different modules.

    Example:
        >>> specs = {key: TensorSpec(key, "float32", (3,)) for key in ("l.0.a.bias", "l.0.b", "l.1.a.bias", "l.1.b")}
        >>> [(unit.text, unit.keys) for unit in units_of(specs)]
        [('l.#.a', {'bias': ('l.0.a.bias', 'l.1.a.bias')}), ('l.#.b', {'weight': ('l.0.b', 'l.1.b')})]
    """
    return _units(_tree(specs), split_tiny)


def cuts_of(specs: Mapping[str, TensorSpec]) -> list[list[Unit]]:
    """The ways to cut a checkpoint into units: small lists inside blocks as lists, and as modules of their own."""
    root = _tree(specs)
    plain, split = _units(root, False), _units(root, True)
    return [plain] if [unit.path for unit in plain] == [unit.path for unit in split] else [plain, split]


def _units(root: _Node, split_tiny: bool) -> list[Unit]:
    found: list[Unit] = []
    _collect([((), root)], (), split_tiny, found)
    return sorted(found, key=lambda unit: unit.position)


def _tree(specs: Mapping[str, TensorSpec]) -> _Node:
    beside: dict[str, set[str]] = defaultdict(set)
    names = {key: key.replace("/", ".") for key in specs}  # TensorFlow's
    for name in names.values():
        module, _, last = name.rpartition(".")
        beside[module].add(last)
    frozen = {module: frozenset(names) for module, names in beside.items()}
    root = _Node()
    nodes = [root]
    for at, (key, spec) in enumerate(specs.items()):
        name = names[key]
        parts = name.split(".") if name.count(".") <= _DEEPEST else name.rsplit(".", 1)
        leaf = leaf_of(tuple(parts), frozen[name.rpartition(".")[0]])
        node = root
        for part in leaf.module:
            child = node.children.get(part)
            if child is None:
                child = node.children[part] = _Node()
                nodes.append(child)
            node = child
        role = leaf.role
        while role in node.tensors:  # `norm.weight` beside `norm_weight`
            role += "+"
        node.tensors[role] = (spec, at, leaf.written, leaf.bare)
    for node in reversed(nodes):
        node.settle()
    return root


_Members = list[tuple[tuple[tuple[int, int], ...], _Node]]
"""Nodes with their place and number in each family around them."""


def _collect(nodes: _Members, path: tuple[Part, ...], split_tiny: bool, found: list[Unit]) -> None:
    """The units at and below nodes that are the same module in several blocks."""
    by_roles: dict[tuple[str, ...], _Members] = defaultdict(list)
    for row in nodes:
        if row[1].tensors:
            by_roles[tuple(sorted(role for role in row[1].tensors if role != "num_batches_tracked"))].append(row)
    found += [_unit(rows, path) for rows in by_roles.values()]
    names: dict[str, _Members] = defaultdict(list)
    for ordinals, node in nodes:
        for name, child in node.children.items():
            names[name].append((ordinals, child))
    numbered: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for name in names:
        if (match := _NUMBER.fullmatch(name)) and str(int(match[2])) == match[2]:
            numbered[match[1], match[3]][int(match[2])] = name
    grouped: set[str] = set()
    for (before, after), members in numbered.items():
        ranks = _ranks(members, names)
        nested = any(part.family for part in path)
        for at, cluster in enumerate(_families(members, names, split_tiny and nested)):
            if len(cluster) > 1:
                inner = [
                    ((*ordinals, (place, number)), node)
                    for place, number in enumerate(cluster)
                    for ordinals, node in names[members[number]]
                ]
                inner.sort(key=lambda row: row[0])
                part = Part(f"{before}#{'~' * at}{after}", family=True)
                _collect(inner, (*path, part), split_tiny, found)
            else:
                name = members[cluster[0]]
                _collect(names[name], (*path, Part(name, rank=ranks[cluster[0]])), split_tiny, found)
            grouped.update(members[number] for number in cluster)
    for name, rows in names.items():
        if name not in grouped:
            _collect(rows, (*path, Part(name)), split_tiny, found)


def _unit(rows: _Members, path: tuple[Part, ...]) -> Unit:
    roles = dict.fromkeys(role for _, node in rows for role in node.tensors)
    complete = [role for role in roles if all(role in node.tensors for _, node in rows)]
    first = rows[0][1].tensors
    return Unit(
        path,
        tuple(tuple(place for place, _ in ordinals) for ordinals, _ in rows),
        {role: tuple(node.tensors[role][0].key for _, node in rows) for role in complete},
        {role: tuple(node.tensors[role][0].shape for _, node in rows) for role in complete},
        min(row[1] for row in first.values()),
        {role: first[role][2] for role in complete},
        all(row[3] for row in first.values()),
        tuple(tuple(number for _, number in ordinals) for ordinals, _ in rows),
    )


def _kind(nodes: Iterable[tuple[object, _Node]]) -> frozenset[tuple[str, ...]]:
    return frozenset().union(*(node.structure for _, node in nodes))


def _ranks(members: Mapping[int, str], names: Mapping[str, _Members]) -> dict[int, tuple[int, int]]:
    """The place of each number among siblings of the same structure: of the convolutions, of the norms."""
    alike: dict[frozenset[tuple[str, ...]], list[int]] = defaultdict(list)
    for number in sorted(members):
        alike[frozenset(row for row in _kind(names[members[number]]) if row[0] != "bias")].append(number)
    return {number: (at, len(row)) for row in alike.values() for at, number in enumerate(row)}


def _families(members: Mapping[int, str], names: Mapping[str, _Members], split_tiny: bool) -> list[list[int]]:
    """The numbers, put together where what is below is alike; those without modules below stay alone."""
    clusters: list[tuple[set[tuple[str, ...]], list[int]]] = []
    for number in sorted(members):
        rows = names[members[number]]
        structure = _kind(rows)
        holds_modules = any(node.children for _, node in rows)
        if holds_modules and not (split_tiny and max(node.size for _, node in rows) <= _TINY and len(members) <= 4):
            best = max(clusters, key=lambda row: _similar(row[0], structure), default=None)
            if best is not None and _similar(best[0], structure) >= _ALIKE:
                best[1].append(number)
                best[0].update(structure)
                continue
            clusters.append((set(structure), [number]))
        else:
            clusters.append((set(), [number]))
    return [numbers for _, numbers in clusters]


def _similar(first: set[tuple[str, ...]], second: frozenset[tuple[str, ...]]) -> float:
    return len(first & second) / len(first | second) if first else 0.0
