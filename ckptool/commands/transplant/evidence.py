"""Where equal names meet the wrong modules: shifted lists, and modules that the source has several of.

Names are evidence and shapes are too. What they contradict each other about is loaded by a rule and never by name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from ckptool.core.checkpoint import Note
from ckptool.core.shell import shell_quote
from ckptool.matching.prefixes import Swap

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
_Child = Mapping[str, Shape]
_MAX_CHILDREN = 300  # of a list; longer ones are equal blocks
_LEAST_GAIN = 0.99  # children that agree once they are shifted and did not before
_DEEPEST = 4
_PLAIN = re.compile(r"[A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Doubt:
    """Tensors that names put in one place and shapes, or other names, in another.

    Attributes:
        keys: of the target; nothing is loaded into them by name.
        note: what is true.
        rules: rules on the source's keys that say it as the shapes do; none where that is not known.
    """

    keys: frozenset[str]
    note: Note
    rules: tuple[str, ...] = ()


def doubts(source: Shapes, target: Shapes, swap: Swap) -> tuple[Doubt, ...]:
    """What names and shapes contradict each other about.

    Args:
        source: the source's shapes under its own keys.
        target: the model's.
        swap: how names of the source become those of the model.

    Example:
        >>> source = {f"net.{n}.weight": (n + 2, n + 1, 3, 3) for n in range(4)}
        >>> target = {"net.0.weight": (2, 1, 3, 3), "net.1.weight": (2, 2)}
        >>> target |= {f"net.{n + 1}.weight": (n + 2, n + 1, 3, 3) for n in range(1, 4)}
        >>> (doubt,) = doubts(source, target, Swap())
        >>> sorted(doubt.keys), doubt.rules
        (['net.1.weight', 'net.2.weight', 'net.3.weight'], ('net.{i=1..3}. -> net.{i+1}.',))
    """
    named = {swap.key(key): shape for key, shape in source.items()}
    if all(named.get(key) == shape for key, shape in target.items()):
        return ()
    towers = tuple(_several(source, target, swap))
    taken = {key for doubt in towers for key in doubt.keys}
    left = {key: shape for key, shape in named.items() if key not in taken}
    return (*towers, *_shifted(left, target, swap))


# ---------------------------------------------------------------------------------------------- shifted lists


def _shifted(source: Shapes, target: Shapes, swap: Swap) -> Iterator[Doubt]:
    """Numbered lists whose modules agree under other numbers than their own, outer lists first."""
    ours, theirs = _lists(source), _lists(target)
    done: list[str] = []
    for name in sorted(ours.keys() & theirs.keys(), key=lambda name: (name.count("."), name)):
        if any(name.startswith(above) for above in done):
            continue
        offsets = _offsets(ours[name], theirs[name])
        if not offsets:
            continue
        aimed = {number + offset for number, offset in offsets.items()}
        moved = {number for number in ours[name] if number in offsets or number in aimed}
        done += [f"{name}{number}." for number in moved]
        keys = (f"{name}{number}.{rest}" for number in moved for rest in ours[name][number])
        yield Doubt(
            frozenset(key for key in keys if key in target),
            _shift_note(name, offsets),
            tuple(_shift_rules(_unswapped(name, swap), offsets)) if is_plain(name) else (),
        )


def _lists(shapes: Shapes) -> dict[str, dict[int, dict[str, Shape]]]:
    """The modules of each numbered list, by the list's name with its last dot, and by their numbers."""
    lists: dict[str, dict[int, dict[str, Shape]]] = defaultdict(lambda: defaultdict(dict))
    for key, shape in shapes.items():
        parts = key.split(".")
        for at, part in enumerate(parts[:-1]):
            if part.isdecimal() and shape:  # counters have no shape
                lists["".join(f"{each}." for each in parts[:at])][int(part)][".".join(parts[at + 1 :])] = shape
    return lists


def _offsets(source: Mapping[int, _Child], target: Mapping[int, _Child]) -> dict[int, int]:
    """How far each module of a list is shifted; empty where the numbers are right."""
    both = source.keys() & target.keys()
    if not any(_conflicts(source[number], target[number]) for number in both):
        return {}
    if max(len(source), len(target)) > _MAX_CHILDREN:
        return {}
    pairs, score = _aligned(source, target)
    straight = sum(_likeness(source[number], target[number]) for number in both)
    if score - straight < _LEAST_GAIN:
        return {}
    return {first: second - first for first, second in pairs if first != second}


def _conflicts(first: _Child, second: _Child) -> bool:
    shared = first.keys() & second.keys()
    return not shared or any(first[rest] != second[rest] for rest in shared)


def _likeness(first: _Child, second: _Child) -> float:
    """The share of the tensors that agree in name and shape; 0 where most of the shared names disagree."""
    shared = first.keys() & second.keys()
    agreeing = sum(first[rest] == second[rest] for rest in shared)
    return agreeing / max(len(first), len(second)) if 2 * agreeing > len(shared) else 0.0


def _aligned(source: Mapping[int, _Child], target: Mapping[int, _Child]) -> tuple[list[tuple[int, int]], float]:
    """The pairs of numbers, both rising, with the greatest likeness in sum, and that sum; equal numbers win ties."""
    rows, columns = sorted(source), sorted(target)
    best = [[0.0] * (len(columns) + 1) for _ in range(len(rows) + 1)]
    likeness = [[_likeness(source[row], target[column]) for column in columns] for row in rows]
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            like = likeness[i][j]
            paired = best[i][j] + like + (1e-6 if row == column else 0) if like else 0.0
            best[i + 1][j + 1] = max(paired, best[i][j + 1], best[i + 1][j])
    pairs: list[tuple[int, int]] = []
    i, j, score = len(rows), len(columns), 0.0
    while i and j:
        if best[i][j] == best[i - 1][j]:
            i -= 1
        elif best[i][j] == best[i][j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((rows[i], columns[j]))
            score += likeness[i][j]
    return pairs[::-1], score


def _runs(offsets: Mapping[int, int]) -> Iterator[tuple[int, int, int]]:
    """(first number, last number, offset) of numbers that are shifted alike."""
    for offset, run in groupby(sorted(offsets), key=lambda number: offsets[number]):
        numbers = list(run)
        yield numbers[0], numbers[-1], offset


def _shift_note(name: str, offsets: Mapping[int, int]) -> Note:
    pairs = [
        f"{_range(name, a, b)} of the source {_fit(a, b)} {_range(name, a + k, b + k)}" for a, b, k in _runs(offsets)
    ]
    more = f", and {len(pairs) - 2} more" if len(pairs) > 2 else ""
    text = f"a list is numbered otherwise in the model: by their shapes, {', '.join(pairs[:2])}{more}"
    hint = "they are not loaded by their names; a rule or --match auto says where they go"
    return Note(text, hint, level="warning")


def _fit(first: int, last: int) -> str:
    return "fits" if first == last else "fit"


def _range(name: str, first: int, last: int) -> str:
    return f"{name}{first}" if first == last else f"{name}{{{first}-{last}}}"


def _shift_rules(name: str, offsets: Mapping[int, int]) -> Iterator[str]:
    for first, last, offset in _runs(offsets):
        yield f"{name}{{i={first}..{last}}}. -> {name}{{i{offset:+d}}}."


def _unswapped(name: str, swap: Swap) -> str:
    """A prefix of the model's keys as the source has it."""
    return swap.take + name.removeprefix(swap.put) if name.startswith(swap.put) else name


# ---------------------------------------------------------------------------------------------- several of a kind


def _several(source: Shapes, target: Shapes, swap: Swap) -> Iterator[Doubt]:
    """Another part of the source that has more of the model's names than the one whose shapes meet."""
    bare = {key.removeprefix(swap.put) for key in target if key.startswith(swap.put)}
    chosen = {name for name in bare if swap.take + name in source}
    taken = {swap.take + name for name in chosen}
    found = {prefix: names for prefix, names in places(source, bare).items() if prefix != swap.take}
    for prefix, names in found.items():
        others = {name for name in names if prefix + name not in taken}
        shared = others & chosen
        if len(others) <= len(chosen) or not any(len(target[swap.put + name]) > 1 for name in shared):
            continue
        text = (
            f"{len(shared):,} keys of the model fit two parts of the source: {_part(swap.take)}, and those under "
            f'"{prefix}", which have {len(others) - len(chosen):,} more of the model\'s names, in other shapes'
        )
        rules = [f"{prefix}{{k**}} -> {swap.put}{{k}}", "?{k**} -> !"] if is_plain(prefix) else []
        way = " ".join(f"-r {shell_quote(rule)}" for rule in rules) or "a rule"
        hint = f"none of them is loaded; {way} takes the latter"
        yield Doubt(frozenset(swap.put + name for name in shared), Note(text, hint, level="warning"), tuple(rules))
        return


def _part(prefix: str) -> str:
    return f'those under "{prefix}"' if prefix else "those without a prefix"


def is_plain(prefix: str) -> bool:
    """True if a prefix stands in a rule as it is."""
    return _PLAIN.fullmatch(prefix) is not None


def places(keys: Iterable[str], wanted: Iterable[str]) -> dict[str, set[str]]:
    """The wanted names that some keys have below each prefix.

    Example:
        >>> sorted(places(["a.fc.bias", "b.fc.bias", "b.fc.weight"], ["fc.bias", "fc.weight"])["b."])
        ['fc.bias', 'fc.weight']
    """
    names = set(wanted)
    found: dict[str, set[str]] = defaultdict(set)
    for key in keys:
        parts = key.split(".")
        for depth in range(min(len(parts), _DEEPEST + 1)):
            rest = ".".join(parts[depth:])
            if rest in names:
                found["".join(f"{part}." for part in parts[:depth])].add(rest)
    return found
