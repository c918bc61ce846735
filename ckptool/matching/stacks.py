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
from itertools import product

from ckptool.core.spec import TensorSpec
from ckptool.matching.groups import KINDS
from ckptool.matching.modules import Shape
from ckptool.matching.relations import relation, squeezed
from ckptool.matching.result import MatchReport, Pair, least_sure
from ckptool.matching.roles import renamed
from ckptool.matching.words import words_of

Specs = Mapping[str, TensorSpec]
Tokens = tuple[str, ...]

_DEEPEST = 3  # axes that are lists
_NAMES = "esmyz"  # what these axes are called, the innermost first
_NUMBER = re.compile("[0-9]+")
_AXIS = re.compile(r"\([^)]*\)|[^\s()]+")


@dataclass(frozen=True, slots=True)
class Slice:
    """One tensor of a stack: the key of this, the place on the axis, and which axis that is."""

    key: str
    at: int
    axis: int


Slices = Mapping[str, Slice]
Round = tuple[Slices, Slices]


@dataclass(frozen=True, slots=True)
class _Lists:
    """What is numbered in a file.

    Attributes:
        shapes: by how many there are, the shapes that they have.
        depth: for each key, how many of its numbers are of a list of so many.
        deepest: how many these are at most.
    """

    shapes: dict[int, set[Shape]]
    depth: dict[str, Counter[int]]
    deepest: Counter[int]


def unstacked(source: Specs, target: Specs) -> tuple[Specs, Specs, list[Round]]:
    """Both sides with their stacks taken apart, and what each tensor was taken from: by axes, the outermost first."""
    rounds: list[Round] = []
    for _ in range(_DEEPEST):
        ours, theirs = _lists_of(source), _lists_of(target)
        found = _slices(source, ours, target, theirs), _slices(target, theirs, source, ours)
        if not any(found):
            break
        source, target = _apart(source, found[0]), _apart(target, found[1])
        rounds.append(found)
    return source, target, rounds


def _lists_of(specs: Specs) -> _Lists:
    rows: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for key in specs:
        for number in _NUMBER.finditer(key):
            rows[key[: number.start()], key[number.end() :]][int(number[0])] = key
    found = _Lists(defaultdict(set), defaultdict(Counter), Counter())
    for row in rows.values():
        size = len(row)
        if size > 1 and max(row) - min(row) == size - 1:
            for key in row.values():
                found.depth[key][size] += 1
                found.deepest[size] = max(found.deepest[size], found.depth[key][size])
            shapes = {specs[key].shape for key in row.values()}
            found.shapes[size] |= shapes if len(shapes) == 1 else set()
    return found


def _slices(specs: Specs, own: _Lists, other: Specs, lists: _Lists) -> dict[str, Slice]:
    """What stacks are taken apart into, by name."""
    plain = {_form(spec.shape) for spec in other.values()}
    stacks = {key: spec for key, spec in specs.items() if len(spec.shape) > 1 and _form(spec.shape) not in plain}
    found: dict[str, Slice] = {}
    taken: set[str] = set()
    for key, names, axis in (*_by_words(stacks, other), *_by_numbers(specs, stacks, own, lists)):
        if key not in taken and specs.keys().isdisjoint(names):
            taken.add(key)
            found |= {name: Slice(key, at, axis) for at, name in enumerate(names)}
    return found


def _form(shape: Shape) -> Shape:
    """What a shape has in common with all others that hold the same axes."""
    return tuple(sorted(squeezed(shape)))


def _by_numbers(specs: Specs, stacks: Specs, own: _Lists, lists: _Lists) -> Iterator[tuple[str, list[str], int]]:
    """Stacks whose axis is a list of the other side, with the names of what they hold, and the axis.

    The number goes where all that is called alike has that axis: behind ``decoder.layers``, beside which is a norm.
    """

    def has(key: str, axis: int, size: int) -> bool:
        shape = specs[key].shape
        is_less = key not in own.depth or own.depth[key][size] < lists.deepest[size]
        return is_less and len(shape) > max(axis, 1) and shape[axis] == size

    rows: dict[int, list[list[str]]] = defaultdict(lambda: [[], []])
    for key, spec in stacks.items():
        for axis, size in enumerate(spec.shape[:2]):
            if size in lists.shapes and has(key, axis, size) and _is_slice(spec.shape, axis, lists.shapes[size]):
                rows[size][axis].append(key)
    tokens = {key: _tokens(key) for key in (specs if rows else ())}
    names = {key: _pattern(row) for key, row in tokens.items()}
    for size, both in rows.items():
        axis = int(len(both[1]) > len(both[0]))
        for head in dict.fromkeys(names[key][:-1] for key in both[axis]):
            while head and all(
                key in stacks and has(key, axis, size)
                for key, name in names.items()
                if name[: len(head) - 1] == head[:-1]
            ):
                head = head[:-1]
            for key, name in names.items():
                if name[: len(head)] == head and has(key, axis, size):
                    first, last = tokens[key][: len(head)], tokens[key][len(head) :]
                    yield key, [".".join([*first, str(at), *last]) for at in range(size)], axis


def _by_words(stacks: Specs, other: Specs) -> Iterator[tuple[str, list[str], int]]:
    """The same of tensors that are called by words which tell tensors of one shape on the other side apart."""
    every = [(key, tokens, at) for key in stacks for tokens in [_tokens(key)] for at in range(len(tokens))]
    named = [
        (key, tokens, at, kind)
        for key, tokens, at in every
        for kind in KINDS
        if len(kind) in stacks[key].shape[:-1] and _says(words_of(tokens[at]), kind)
    ]
    shapes: dict[Tokens, set[Shape]] = defaultdict(set)
    rows: dict[object, dict[str, Shape]] = defaultdict(dict)
    for key, tokens in [(key, _tokens(key)) for key in (other if named else ())]:
        for at, word in product(range(len(tokens)), {word for kind in KINDS for word in kind}):
            words = words_of(tokens[at])
            if word in words:
                rest = tuple(one for one in words if one != word)
                rows[*tokens[:at], rest, *tokens[at + 1 :]][word] = other[key].shape
    for row, kind in product(rows.values(), KINDS):
        if row.keys() >= {*kind} and len({row[word] for word in kind}) == 1:
            shapes[kind].add(row[kind[0]])
    for key, tokens, at, kind in named:
        shape = stacks[key].shape
        others = [word for word in words_of(tokens[at]) if word not in (*kind, "".join(kind))]
        for axis, size in enumerate(shape[:-1]):
            if size == len(kind) and _is_slice(shape, axis, shapes[kind]):
                yield key, [".".join([*tokens[:at], "_".join([*others, w]), *tokens[at + 1 :]]) for w in kind], axis
                break


def _says(words: Iterable[str], kind: Tokens) -> bool:
    """All of the kind, in its order."""
    return "".join(kind) in words or tuple(word for word in words if word in kind) == kind


def _is_slice(shape: Shape, axis: int, others: Iterable[Shape]) -> bool:
    """Without the axis it may be one of some shapes."""
    rest = (*shape[:axis], *shape[axis + 1 :])
    ways = product(others, ("", "source", "target"))
    return any(relation(rest, other, way) is not None for other, way in ways)


def _tokens(key: str) -> list[str]:
    """The parts of a key: of one without dots and slashes what stands between dashes."""
    return re.split(r"[./]+" if re.search("[./]", key) else "-", key)


def _pattern(tokens: Iterable[str]) -> Tokens:
    return tuple(_NUMBER.sub("#", token) for token in tokens)


def _apart(specs: Specs, slices: Slices) -> Specs:
    """The specs with stacks taken apart."""
    rows: dict[str, list[TensorSpec]] = defaultdict(list)
    for name, one in slices.items():
        shape = specs[one.key].shape
        rows[one.key].append(TensorSpec(name, specs[one.key].dtype, (*shape[: one.axis], *shape[one.axis + 1 :])))
    return {spec.key: spec for key, whole in specs.items() for spec in rows.get(key, [whole])}


def restacked(report: MatchReport, rounds: Sequence[Round], source: Specs, target: Specs) -> MatchReport:
    """The report in the keys of both files: what was matched of a stack's tensors is one pair."""
    for ours, theirs in reversed(rounds):
        pairs = _joined(_joined(report.pairs, ours, is_source=True), theirs, is_source=False)
        back = tuple({name: one.key for name, one in side.items()} for side in (ours, theirs))
        asked = tuple({one.key: name for name, one in [*side.items()][::-1]} for side in (ours, theirs))
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


def _joined(pairs: Iterable[Pair], slices: Slices, *, is_source: bool) -> list[Pair]:
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
        is_whole = {sizes[key] for key in whole} == {len(each)} and len({axes[key] for key in whole}) == 1
        if is_whole and len({pair.layout for pair in each}) == 1:
            others = tuple(key for pair in each for key in (pair.targets if is_source else pair.sources))
            found.append(
                replace(
                    each[0],
                    sources=whole if is_source else others,
                    targets=others if is_source else whole,
                    layout=with_axis(each[0].layout, axes[whole[0]], is_source, len(each[0].targets)),
                    confidence=least_sure(pair.confidence for pair in each),
                )
            )
    return found


def with_axis(layout: str, axis: int, is_source: bool, copies: int = 1) -> str:
    """A layout of the tensors of each block, or of copies of one, as that of a stack on one side, and a list.

    Example:
        >>> with_axis("", 0, True), with_axis("", 1, False), with_axis("i o -> o i", 1, True)
        ('e ... -> ...', 'a ... -> a e ...', 'i e o -> o i')
        >>> with_axis("o i, p i -> (o + p) i", 0, False)
        'o i, p i -> e (o + p) i'
    """
    axes = " ".join([*"abcd"[:axis], "..."])
    steps = (layout or f"{axes} -> {', '.join([axes] * copies)}").split(" | ")
    name = next(name for name in _NAMES if name not in re.findall("[a-z]+", layout))
    step = 0 if is_source else -1
    sides = steps[step].split(" -> ")
    rows = [_AXIS.findall(one) for one in sides[step].split(", ")]
    sides[step] = ", ".join(" ".join([*row[:axis], name, *row[axis:]]) for row in rows)
    steps[step] = " -> ".join(sides)
    return " | ".join(steps)
