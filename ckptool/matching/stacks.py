"""Tensors that hold a tensor of each block of the other side's list, on an axis of their own: scanned layers, experts.

Everything else sees a list: such a stack is taken apart in name, as if it were one tensor for each block, and what was
matched of all of them is put together again with the axis in its layout. ``decoder.layers.mlp.wi.kernel`` of 4 layers
is read as ``decoder.layers.0.mlp.wi.kernel`` and so on, where the other side has a list of 4 that holds such tensors;
``kv_einsum.w`` as ``einsum_k.w`` and ``einsum_v.w``, where it has k and v of one shape.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product

from ckptool.core.spec import TensorSpec
from ckptool.matching.modules import Shape
from ckptool.matching.relations import relation, squeezed
from ckptool.matching.result import MatchReport, Pair, least_sure
from ckptool.matching.roles import renamed
from ckptool.matching.groups import KINDS
from ckptool.matching.words import words_of

Specs = Mapping[str, TensorSpec]
Tokens = tuple[str, ...]

_DEEPEST = 3  # axes that are lists
_NUMBER = re.compile("[0-9]+")
_WORDS = frozenset(word for kind in KINDS for word in kind)
_TOWER = 6  # stacks of a tower, at least
_ALIKE = 0.5  # of the names of two towers' modules are the same
_AXIS = re.compile(r"\([^)]*\)|[^\s()]+")
NAMES = "esmyz"
"""What the axes of lists are called, the innermost first."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One tensor of a stack: the key of this, the place on the axis, and which axis that is."""

    key: str
    at: int
    axis: int


@dataclass(frozen=True, slots=True)
class _Lists:
    """What is numbered in a file.

    Attributes:
        shapes: by how many there are, the shapes that they have, and how many such numbers are in their keys.
        kinds: by the words that tell siblings apart (k and v), the shapes that these have.
        depth: for each key, how many of its numbers are of a list of so many.
        written: by the name of a list and how many are in it, its numbers as they are written.
    """

    shapes: dict[int, dict[Shape, int]]
    kinds: dict[Tokens, set[Shape]]
    depth: dict[str, Counter[int]]
    written: dict[tuple[Tokens, int], list[str]]


Round = tuple[Mapping[str, Slice], Mapping[str, Slice]]


def unstacked(source: Specs, target: Specs) -> tuple[Specs, Specs, list[Round]]:
    """Both sides with their stacks taken apart, and what each tensor was taken from: by axes, the outermost first."""
    rounds: list[Round] = []
    for _ in range(_DEEPEST):
        lists = _lists_of(source), _lists_of(target)
        ours = _slices(source, lists[0], target, lists[1])
        theirs = _slices(target, lists[1], source, lists[0])
        if not ours and not theirs:
            break
        source, target = _apart(source, ours), _apart(target, theirs)
        rounds.append(tuple({name: one for row in side.values() for name, one in row} for side in (ours, theirs)))  # type: ignore[arg-type]
    return source, target, rounds


def _lists_of(specs: Specs) -> _Lists:
    rows: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for key in specs:
        for number in _NUMBER.finditer(key):
            rows[key[: number.start()], key[number.end() :]][int(number[0])] = key
    found = _Lists(defaultdict(dict), _kinds_of(specs), defaultdict(Counter), {})
    for row in rows.values():
        if len(row) > 1 and max(row) - min(row) == len(row) - 1:
            for key in row.values():
                found.depth[key][len(row)] += 1
    for (before, behind), row in rows.items():
        size, keys = len(row), [row[number] for number in sorted(row)]
        if size > 1 and found.depth[keys[0]][size]:
            shapes = {specs[key].shape for key in keys}
            if len(shapes) == 1:
                levels = found.shapes[size]
                levels[min(shapes)] = max(levels.get(min(shapes), 0), found.depth[keys[0]][size])
            *head, start = _tokens(before)
            end = _tokens(behind)[0]
            texts = [f"{start}{key[len(before) : len(key) - len(behind)]}{end}" for key in keys]
            found.written.setdefault((_pattern(head), size), texts)
    return found


def _kinds_of(specs: Specs) -> dict[Tokens, set[Shape]]:
    """Siblings of one shape that words tell apart."""
    rows: dict[object, dict[str, Shape]] = defaultdict(dict)
    said = cache(lambda token: frozenset(words_of(token)))
    for key, spec in specs.items():
        tokens = _tokens(key)
        for at, token in enumerate(tokens):
            for word in said(token) & _WORDS if spec.shape else ():
                rows[(*tokens[:at], said(token) - {word}, *tokens[at + 1 :])][word] = spec.shape
    found: dict[Tokens, set[Shape]] = defaultdict(set)
    for row in rows.values():
        for kind in KINDS:
            if row.keys() >= {*kind} and len({row[word] for word in kind}) == 1:
                found[kind].add(row[kind[0]])
    return found


def _tokens(key: str) -> list[str]:
    """The parts of a key: of one without dots and slashes what stands between dashes."""
    return re.split(r"[./]+" if re.search("[./]", key) else "-", key)


def _pattern(tokens: Iterable[str]) -> Tokens:
    return tuple(_NUMBER.sub("#", token) for token in tokens)


def _slices(
    specs: Specs, own: _Lists, other: Specs, lists: _Lists
) -> dict[str, list[tuple[str, Slice]]]:
    """For each stack the tensors that it is taken apart into, by their names."""
    plain = {tuple(sorted(squeezed(spec.shape))) for spec in other.values()}
    votes: dict[int, Counter[int]] = defaultdict(Counter)
    seen: dict[tuple[int, int], list[Tokens]] = defaultdict(list)

    def has(key: str, shape: Shape, axis: int, size: int) -> bool:
        is_deeper = own.depth[key][size] < max(lists.shapes[size].values()) if key in own.depth else True
        return is_deeper and len(shape) > max(axis, 1) and shape[axis] == size

    for key, spec in specs.items():
        if tuple(sorted(squeezed(spec.shape))) in plain:
            continue
        for axis, size in enumerate(spec.shape[:2]):
            if size in lists.shapes and has(key, spec.shape, axis, size):
                rest = (*spec.shape[:axis], *spec.shape[axis + 1 :])
                if any(_is_one(rest, shape) for shape in lists.shapes[size]):
                    votes[size][axis] += 1
                    seen[size, axis].append(_pattern(_tokens(key)))
    found: dict[str, list[tuple[str, Slice]]] = {}
    for key, spec in specs.items() if lists.kinds else ():
        if tuple(sorted(squeezed(spec.shape))) not in plain:
            row = _by_words(key, spec.shape, lists.kinds)
            found |= {key: row} if row and specs.keys().isdisjoint(name for name, _ in row) else {}
    for size, counts in votes.items():
        axis = max(counts, key=lambda axis: (counts[axis], -axis))
        for head in _heads([*dict.fromkeys(seen[size, axis])]):
            while head and all(
                has(key, spec.shape, axis, size) and tuple(sorted(squeezed(spec.shape))) not in plain
                for key, spec in specs.items()
                if _pattern(_tokens(key)[: len(head) - 1]) == head[:-1]
            ):
                head = head[:-1]
            texts = own.written.get((head, size), [*map(str, range(size))])
            for key, spec in specs.items():
                tokens = _tokens(key)
                if _pattern(tokens[: len(head)]) != head or key in found or not has(key, spec.shape, axis, size):
                    continue
                names = [".".join([*tokens[: len(head)], text, *tokens[len(head) :]]) for text in texts]
                if specs.keys().isdisjoint(names):
                    found[key] = [(name, Slice(key, at, axis)) for at, name in enumerate(names)]
    return found


def _by_words(key: str, shape: Shape, kinds: Mapping[Tokens, set[Shape]]) -> list[tuple[str, Slice]]:
    """A tensor that is called by all of the words that tell tensors of the other side apart, and has an axis of them."""
    tokens = _tokens(key)
    for (kind, shapes), (at, token) in product(kinds.items(), enumerate(tokens)):
        words = words_of(token)
        if "".join(kind) not in words and tuple(word for word in words if word in kind) != kind:
            continue
        for axis, size in enumerate(shape[:-1]):
            rest = (*shape[:axis], *shape[axis + 1 :])
            if size == len(kind) and any(_is_one(rest, other) for other in shapes):
                others = [word for word in words if word not in (*kind, "".join(kind))]
                names = [".".join([*tokens[:at], "_".join([*others, word]), *tokens[at + 1 :]]) for word in kind]
                return [(name, Slice(key, place, axis)) for place, name in enumerate(names)]
    return []


def _is_one(one: Shape, other: Shape) -> bool:
    return any(relation(one, other, way) is not None for way in ("", "source", "target"))


def _heads(rows: Sequence[Tokens]) -> Iterator[Tokens]:
    """What the names of stacks begin with: of all, or of each tower where these hold modules of the same names."""
    size = min(len(row) for row in rows) - 1
    size = next((at for at in range(size) if len({row[at] for row in rows}) > 1), size)
    towers: dict[str, list[Tokens]] = defaultdict(list)
    for row in rows:
        towers[row[size]].append(row)
    ends = [{row[-2:] for row in tower} for tower in towers.values()]
    are_alike = all(len(one & two) >= _ALIKE * min(len(one), len(two)) for one, two in combinations(ends, 2))
    if len(ends) > 1 and are_alike and min(map(len, towers.values())) >= _TOWER:
        for tower in towers.values():
            yield from _heads(tower)
    else:
        yield rows[0][:size]


def _apart(specs: Specs, slices: Mapping[str, Sequence[tuple[str, Slice]]]) -> Specs:
    """The specs with stacks taken apart, block by block where the first of them stands."""
    if not slices:
        return specs
    heads: dict[tuple[str, int], list[str]] = defaultdict(list)
    for key, row in slices.items():
        heads[_head(key, row), len(row)].append(key)
    found: dict[str, TensorSpec] = {}
    for key, spec in specs.items():
        row = slices.get(key, [])
        if not row:
            found[key] = spec
        for at in range(len(row)):
            for other in heads.get((_head(key, row), len(row)), []):
                name, one = slices[other][at]
                shape = specs[other].shape
                found[name] = TensorSpec(name, specs[other].dtype, (*shape[: one.axis], *shape[one.axis + 1 :]))
        heads.pop((_head(key, row), len(row)), None)
    return found


def _head(key: str, row: Sequence[tuple[str, Slice]]) -> str:
    """The name of the list that a stack is taken apart into."""
    return row[0][0][: next((at for at, (a, b) in enumerate(zip(row[0][0], row[-1][0])) if a != b), 0)] if row else key


def restacked(report: MatchReport, rounds: Sequence[Round], source: Specs, target: Specs) -> MatchReport:
    """The report in the keys of both files: what was matched of a stack's tensors is one pair."""
    for ours, theirs in reversed(rounds):
        pairs = _joined(_joined(report.pairs, ours, is_source=True), theirs, is_source=False)
        back = tuple({name: one.key for name, one in side.items()} for side in (ours, theirs))
        asked = tuple({one.key: name for name, one in reversed(side.items())} for side in (ours, theirs))
        others = [pair for pair in report.reshaped if back[0].keys().isdisjoint(pair.sources)]
        others = [pair for pair in others if back[1].keys().isdisjoint(pair.targets)]
        report = renamed(replace(report, pairs=tuple(pairs), reshaped=tuple(others)), asked, back)
    if not rounds:
        return report
    used = {key for pair in report.pairs for key in pair.sources}
    made = {key for pair in report.pairs for key in pair.targets}
    place = {key: at for at, key in enumerate(target)}
    return replace(
        report,
        pairs=tuple(sorted(report.pairs, key=lambda pair: place[pair.targets[0]])),
        unmatched_targets=tuple(key for key in target if key not in made),
        unmatched_sources=tuple(key for key in source if key not in used),
    )


def _joined(pairs: Iterable[Pair], slices: Mapping[str, Slice], *, is_source: bool) -> list[Pair]:
    """The pairs, those of the tensors of one stack as one; none of a stack of which not all are matched alike."""
    sizes = Counter(one.key for one in slices.values())
    found: list[Pair] = []
    rows: dict[tuple[str, ...], dict[int, Pair]] = defaultdict(dict)
    for pair in pairs:
        keys = pair.sources if is_source else pair.targets
        mine = [slices[key] for key in keys if key in slices]
        if not mine:
            found.append(pair)
        elif len(mine) == len(keys) and len({one.at for one in mine}) == 1:
            rows[tuple(one.key for one in mine)][mine[0].at] = pair
    axes = {one.key: one.axis for one in slices.values()}
    for whole, row in rows.items():
        each = [row[at] for at in sorted(row)]
        if {sizes[key] for key in whole} == {len(each)} and len({pair.layout for pair in each}) == 1:
            others = tuple(key for pair in each for key in (pair.targets if is_source else pair.sources))
            found.append(
                replace(
                    each[0],
                    sources=whole if is_source else others,
                    targets=others if is_source else whole,
                    layout=with_axis(each[0].layout, axes[whole[0]], is_source),
                    confidence=least_sure(pair.confidence for pair in each),
                )
            )
    return found


def with_axis(layout: str, axis: int, is_source: bool) -> str:
    """A layout of the tensors of each block as one of a stack, on one side, and a list on the other.

    Example:
        >>> with_axis("", 0, True), with_axis("", 1, False), with_axis("i o -> o i", 1, True)
        ('e ... -> ...', 'a ... -> a e ...', 'i e o -> o i')
        >>> with_axis("o i, p i -> (o + p) i", 0, False)
        'o i, p i -> e (o + p) i'
    """
    axes = " ".join([*"abc"[:axis], "..."])
    steps = (layout or f"{axes} -> {axes}").split(" | ")
    name = next(name for name in NAMES if name not in re.findall("[a-z]+", layout))
    step = 0 if is_source else -1
    sides = steps[step].split(" -> ")
    rows = [_AXIS.findall(one) for one in sides[step].split(", ")]
    sides[step] = ", ".join(" ".join([*row[:axis], name, *row[axis:]]) for row in rows)
    steps[step] = " -> ".join(sides)
    return " | ".join(steps)
