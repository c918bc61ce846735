"""Of very many pairs that differ in numbers alone, a few that rules are made from; these are proven on all."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from itertools import zip_longest

from ckptool.recipes.induce.lines import Ruled, Said
from ckptool.recipes.induce.proof import Specs

Form = tuple[object, ...]

_NUMBER = re.compile(r"\d+")
_FIRST, _LAST = 3, 2  # numbers of each place that are kept, and one between them


def form_of(pair: Said) -> Form:
    """What a pair has in common with those that differ in numbers alone."""
    sides = (tuple(_NUMBER.sub("#", key) for key in keys) for keys in (pair.sources, pair.targets))
    return *sides, pair.layout


def sample_of(pairs: Sequence[Said], forms: Sequence[Form]) -> list[Said]:
    """Of each form those with the first and the last numbers, in their order.

    Args:
        pairs: all.
        forms: of each pair.

    Example:
        >>> class Pair:
        ...     def __init__(self, at: int) -> None:
        ...         self.sources, self.targets, self.layout = (f"l.{at}.w",), (f"b.{at}.w",), ""
        >>> pairs = [Pair(at) for at in range(100)]
        >>> [pair.sources[0] for pair in sample_of(pairs, [*map(form_of, pairs)])]
        ['l.0.w', 'l.1.w', 'l.2.w', 'l.50.w', 'l.98.w', 'l.99.w']
    """
    seen: dict[Form, list[tuple[int, ...]]] = defaultdict(list)
    rows = [tuple(map(int, _NUMBER.findall(pair.sources[0]))) for pair in pairs]
    for form, numbers in zip(forms, rows, strict=True):
        seen[form].append(numbers)
    kept = {form: [_some(sorted({*column})) for column in zip(*some, strict=True)] for form, some in seen.items()}
    return [
        pair
        for pair, form, numbers in zip(pairs, forms, rows, strict=True)
        if all(number in column for number, column in zip(numbers, kept[form], strict=True))
    ]


def _some(numbers: Sequence[int]) -> frozenset[int]:
    return frozenset((*numbers[:_FIRST], numbers[len(numbers) // 2], *numbers[-_LAST:]))


def like_sample(specs: Specs, used: AbstractSet[str], kept: Collection[str]) -> Specs:
    """The specs of some keys, and of those that no pair uses whose numbers are those of the kept ones."""
    names = {*kept}
    columns = [{*column} for column in zip_longest(*map(_NUMBER.findall, names))]

    def is_like(key: str) -> bool:
        return all(number in column for number, column in zip(_NUMBER.findall(key), columns, strict=False))

    return {key: spec for key, spec in specs.items() if key in names or (key not in used and is_like(key))}


def for_all(rules: Iterable[Ruled], pairs: Sequence[Said], forms: Sequence[Form]) -> list[Ruled] | None:
    """The rules, said of all pairs of the forms that they are said of; None where pairs of one form have several rules.

    Args:
        rules: for some of the pairs.
        pairs: all, in the order of the model.
        forms: of each pair.
    """
    rules = [*rules]
    said_by: dict[int, tuple[int, ...]] = defaultdict(tuple)
    said = {id(pair): pair for rule in rules for pair in rule.said}
    for at, rule in enumerate(rules):
        for pair in rule.said:
            said_by[id(pair)] += (at,)
    ways: dict[Form, set[tuple[int, ...]]] = defaultdict(set)
    for number, pair in said.items():
        ways[form_of(pair)].add(said_by[number])
    if any(len(some) > 1 for some in ways.values()):
        return None
    rows: dict[int, list[Said]] = defaultdict(list)
    for pair, form in zip(pairs, forms, strict=True):
        for at in next(iter(ways.get(form, ())), ()):
            rows[at].append(pair)
    return [type(rule)(rule.text, tuple(rows[at])) for at, rule in enumerate(rules)]
