"""Keys as modules, and modules as units: the same module of every block is one.

A key is cut at its dots, and behind numbers (``conv2_block1_1_conv``). Where siblings differ in a number only and hold
alike structures they form a family (``layers.0`` ... ``layers.11``; the odd ones of ``features.0`` ... ``features.7``),
and all their tensors are looked at together: a unit is one module with its tensors in each member of the families it is
in. Numbers that tell different modules apart (``conv1``, ``mlp.3``) stay, with their rank among their like; so do the
letters of ``conv_a``, ``conv_b``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cache

from ckptool.core.spec import TensorSpec
from ckptool.matching.modules import HUGE, Part, Unit, placed
from ckptool.matching.norms import norms_beside
from ckptool.matching.words import leaf_of, meant_beside, role_at

_NUMBER = re.compile(r"(.*?)(\d{1,9})(\D*)")
_BETWEEN = re.compile(r"([./]|(?<=\d)[_-]|(?<=\d[a-h])_)")
_LETTER = re.compile(r"(|.*[_\d])([a-h])(|_.+)")
_NAMED = 3  # modules with a name that two blocks have both, at least, if the names alone make them alike
_ALIKE = 0.5  # of the structure of two members of a family is the same
_DEEPEST = 60  # dots of a key that is taken apart; no model nests deeper
_TINY = 8  # tensors of a member of a family that may be no block, but a convolution with its norm

_Structure = frozenset[tuple[str, ...]]


@dataclass(eq=False, slots=True)
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    tensors: dict[str, tuple[TensorSpec, int, str, bool]] = field(default_factory=dict)
    structure: _Structure = frozenset()
    size: int = 0

    def settle(self, known: dict[_Structure, _Structure]) -> None:
        """Computes the structure, one for all equal ones: the number-free names of what is below. Children first."""
        found: set[tuple[str, ...]] = {(role, str(len(row[0].shape))) for role, row in self.tensors.items()}
        for plain, structure in {
            (re.sub(r"\d+", "#", name) if child.children else name, child.structure)
            for name, child in self.children.items()
        }:
            found.update((plain, *row) for row in structure)
        structure = frozenset(found)
        self.structure = known.setdefault(structure, structure)
        self.size = len(self.tensors) + sum(child.size for child in self.children.values())


@dataclass(frozen=True, slots=True)
class _Cut:
    """What is taken for a list.

    Attributes:
        tiny: a few small members inside a block: two convolutions, each with its norm.
        leaves: modules of one kind side by side, whatever stands between: the convolutions of a Sequential.
        flat: no list inside a block.
    """

    tiny: bool = True
    flat: bool = False
    leaves: bool = False


def units_of(specs: Mapping[str, TensorSpec]) -> list[Unit]:
    """The units of a checkpoint, in its order.

    Args:
        specs: in the file's order.

    Example:
        >>> specs = {key: TensorSpec(key, "float32", (3,)) for key in ("l.0.a.bias", "l.0.b", "l.1.a.bias", "l.1.b")}
        >>> [(unit.text, unit.keys) for unit in units_of(specs)]
        [('l.#.a', {'bias': ('l.0.a.bias', 'l.1.a.bias')}), ('l.#.b', {'weight': ('l.0.b', 'l.1.b')})]
    """
    return _units(_tree(specs), _Cut())


_CUTS = (_Cut(), _Cut(tiny=False), _Cut(tiny=False, leaves=True), _Cut(tiny=False, flat=True))


def cuts_of(specs: Mapping[str, TensorSpec], modules: Mapping[str, str] | None = None) -> list[list[Unit]]:
    """The ways to cut a checkpoint into units: with small lists inside blocks, without, with lists of leaves, flat.

    Ways that give the same units give the same list.

    Args:
        specs: in the file's order.
        modules: module path -> class name, where there is a model.
    """
    root = _tree(specs)
    found = [_units(root, cut) for cut in (_CUTS[:1] if len(specs) > HUGE else _CUTS)]
    for unit in (unit for units in found for unit in units if modules and not unit.bare):
        made_of = {(modules or {}).get(key.rpartition(".")[0], "") for key in unit.keys[unit.main]}
        unit.made_of = made_of.pop() if len(made_of) == 1 else ""
    paths = [[unit.path for unit in units] for units in found]
    return [found[paths.index(path)] for path in paths]


def parts_of(key: str) -> tuple[list[str], list[str]]:
    """The parts of a key, and what stands between them: dots, TensorFlow's slashes, ``_`` and ``-`` behind numbers.

    The last part is never cut, for it is a role or holds one. A flat name is cut before its role.

    Example:
        >>> parts_of("conv2_block1_1_conv.kernel")
        (['conv2', 'block1', '1', 'conv', 'kernel'], ['_', '_', '_', '.'])
        >>> parts_of("res2_0_branch2a_bn_s")
        (['res2', '0', 'branch2a', 'bn', 's'], ['_', '_', '_', '_'])
    """
    module, last = _apart(key)
    if not module:
        return [key], []
    pieces = _BETWEEN.split(module[:-1])
    return [*pieces[::2], last], [*pieces[1::2], module[-1]]


def _units(root: _Node, cut: _Cut) -> list[Unit]:
    found: list[Unit] = []
    _collect([(((), ()), root)], (), cut, found)
    return placed(sorted(found, key=lambda unit: unit.position))


def _tree(specs: Mapping[str, TensorSpec]) -> _Node:
    siblings: dict[str, frozenset[str]] = defaultdict(frozenset)
    with_one = cache(lambda some, last: some | {last.lower().lstrip("_")})
    for key in specs:
        module, last = _apart(key.replace("/", "."))
        siblings[module] = with_one(siblings[module], last)
    root = _Node()
    nodes = [root]
    texts: dict[str, str] = {}
    for at, (key, spec) in enumerate(specs.items()):
        name = key.replace("/", ".")  # TensorFlow's
        parts = parts_of(name)[0] if name.count(".") <= _DEEPEST else name.rsplit(".", 1)
        leaf = leaf_of(tuple(parts), siblings[_apart(name)[0]])
        node = root
        for part in leaf.module:
            child = node.children.get(part)
            if child is None:
                child = node.children[texts.setdefault(part, part)] = _Node()
                nodes.append(child)
            node = child
        role = leaf.role
        while role in node.tensors:  # `norm.weight` beside `norm_weight`
            role += "+"
        node.tensors[role] = (spec, at, texts.setdefault(leaf.written, leaf.written), leaf.bare)
    known: dict[_Structure, _Structure] = {}
    for node in reversed(nodes):
        node.settle(known)
    return root


def _apart(name: str) -> tuple[str, str]:
    """The name of a module, with what stands behind it, and the last part."""
    at = max(name.rfind("."), name.rfind("/"))
    at = (role_at(name) if at < 0 else at) + 1
    return name[:at], name[at:]


_Members = list[tuple[tuple[tuple[int, ...], tuple[int, ...]], _Node]]
"""Nodes with their places and numbers in the families around them."""


def _collect(nodes: _Members, path: tuple[Part, ...], cut: _Cut, found: list[Unit]) -> None:
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
    said = norms_beside(names, _affine(names)) | meant_beside(frozenset(names))
    nested = any(part.family for part in path)
    ranked = _lettered(names)
    grouped: set[str] = set()
    for (before, after), members in _numbered(names).items():
        ranks = _ranks(members, names, named=bool(before))
        for at, cluster in enumerate(_families(members, names, cut, nested)):
            if len(cluster) > 1:
                inner = [
                    (((*places, place), (*numbers, number)), node)
                    for place, number in enumerate(cluster)
                    for (places, numbers), node in names[members[number]]
                ]
                inner.sort(key=lambda row: row[0])
                part = Part(f"{before}#{'~' * at}{after}", family=True)
                _collect(inner, (*path, part), cut, found)
            else:
                name = members[cluster[0]]
                part = Part(name, rank=ranked.get(name, ranks[cluster[0]]), said=said.get(name, ()))
                _collect(names[name], (*path, part), cut, found)
            grouped.update(members[number] for number in cluster)
    for name, rows in names.items():
        if name not in grouped:
            _collect(rows, (*path, Part(name, rank=ranked.get(name), said=said.get(name, ()))), cut, found)


def _affine(names: Mapping[str, _Members]) -> list[str]:
    """Those that are a vector and its bias."""
    return [
        name
        for name, rows in names.items()
        if all(
            node.tensors.keys() == {"weight", "bias"} and len(node.tensors["weight"][0].shape) == 1 for _, node in rows
        )
    ]


def _numbered(names: Iterable[str]) -> dict[tuple[str, str], dict[int, str]]:
    """The names that differ in a number, by what stands before and behind it."""
    found: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for name in names:
        if match := _NUMBER.fullmatch(name):
            found[match[1], match[3]].setdefault(int(match[2]), name)
    return found


def _lettered(names: Mapping[str, _Members]) -> dict[str, tuple[int, int]]:
    """The ranks of names that count by letters, from a on."""
    rows: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for name in names:
        if match := _LETTER.fullmatch(name):
            rows[match[1], match[3]][ord(match[2]) - ord("a")] = name
    whole = [row for row in rows.values() if len(row) > 1 and sorted(row) == list(range(len(row)))]
    return {row[at]: rank for row in whole for at, rank in _ranks(row, names, named=False).items()}


def _unit(rows: _Members, path: tuple[Part, ...]) -> Unit:
    roles = dict.fromkeys(role for _, node in rows for role in node.tensors)
    complete = [role for role in roles if all(role in node.tensors for _, node in rows)]
    first = rows[0][1].tensors
    return Unit(
        path,
        tuple(ordinals[0] for ordinals, _ in rows),
        {role: tuple(node.tensors[role][0].key for _, node in rows) for role in complete},
        {role: tuple(node.tensors[role][0].shape for _, node in rows) for role in complete},
        min(row[1] for row in first.values()),
        {role: first[role][2] for role in complete},
        all(row[3] for row in first.values()),
        tuple(ordinals[1] for ordinals, _ in rows),
        places=tuple(min(row[1] for row in node.tensors.values()) for _, node in rows),
        holds=any("running_mean" in child.tensors for _, node in rows for child in node.children.values()),
    )


def _kind(nodes: Iterable[tuple[object, _Node]]) -> frozenset[tuple[str, ...]]:
    return frozenset().union(*(node.structure for _, node in nodes))


def _ranks(members: Mapping[int, str], names: Mapping[str, _Members], named: bool) -> dict[int, tuple[int, int]]:
    """The place of each number among siblings of the same structure that are in as many blocks: of the norms, say.

    Where siblings have a name before the number (``bn1``), one that became two modules is still one of them.
    """
    alike: dict[tuple[int, frozenset[tuple[str, ...]]], list[int]] = defaultdict(list)
    for number in sorted(members):
        nodes = names[members[number]]
        rows = (row[-2:] if named else row for row in _kind(nodes))
        alike[len(nodes), frozenset(row for row in rows if row[0] != "bias")].append(number)
    return {number: (at, len(row)) for row in alike.values() for at, number in enumerate(row)}


def _families(members: Mapping[int, str], names: Mapping[str, _Members], cut: _Cut, nested: bool) -> list[list[int]]:
    """The numbers, put together where what is below is alike; those without modules below stay alone, or are lists."""
    clusters: list[tuple[set[tuple[str, ...]], list[int]]] = []
    for number in sorted(members):
        rows = names[members[number]]
        structure = _kind(rows)
        if any(node.children for _, node in rows):
            is_tiny = max(node.size for _, node in rows) <= _TINY and len(members) <= 4
            is_member = cut.tiny or not nested or (not is_tiny and not cut.flat)
        else:
            is_member = cut.leaves and not nested
        best = max(clusters, key=lambda row: _similar(row[0], structure), default=None)
        if is_member and best is not None and _similar(best[0], structure) >= _ALIKE:
            best[1].append(number)
            best[0].update(structure)
        else:
            clusters.append((set(structure) if is_member else set(), [number]))
    return [numbers for _, numbers in clusters]


def _similar(first: AbstractSet[tuple[str, ...]], second: AbstractSet[tuple[str, ...]]) -> float:
    """The share of tensors that both structures have; of modules, where these have names of their own."""
    if not first:
        return 0.0
    ours, theirs = _modules(first), _modules(second)
    modules = len(ours & theirs) / len(ours | theirs) if len(ours & theirs) >= _NAMED else 0.0
    return max(len(first & second) / len(first | second), modules)


def _modules(structure: Iterable[tuple[str, ...]]) -> set[str]:
    """The names of the outermost modules that have one, not a number."""
    outermost = (next((part for part in row[:-2] if part.strip("#0123456789")), "") for row in structure)
    return {name for name in outermost if name}
