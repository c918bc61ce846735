"""Which rule of a stage decides a key: whole-key rules own theirs, partial rules share the rest."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from math import prod

from ckptool.recipes.pattern import MAX_NAME, Pattern
from ckptool.recipes.rules import Rule, Stage

MAX_COPIES = 10_000  # names that one key gets


@dataclass(frozen=True, slots=True)
class Owned:
    """A key that a whole-key rule decides: which of its patterns matched, and the captures."""

    pattern: int
    values: dict[str, str]
    key: str
    position: int


@dataclass(frozen=True, slots=True)
class Span:
    """A run of characters of a key that a partial rule replaces."""

    begin: int
    end: int
    rule: int
    values: dict[str, str]


@dataclass(slots=True)
class Matches:
    """What a stage's rules do to the keys.

    Attributes:
        owned: for each whole-key rule that owns keys, by number in the stage.
        touched: the keys that partial rules change: their spans from left to right.
        partial: for each partial rule that changes keys: how many, and the first.
        seen: rules whose pattern fits some key, though an earlier rule may have taken it.
        taken: the keys that whole-key rules own.
    """

    owned: dict[int, list[Owned]] = field(default_factory=dict)
    touched: dict[str, list[Span]] = field(default_factory=dict)
    partial: dict[int, tuple[int, str]] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    taken: set[str] = field(default_factory=set)


def match_stage(stage: Stage, keys: Iterable[str]) -> Matches:
    """Matches every key once: one compiled search for each pattern, after a cheap test for its longest literal."""
    found = Matches()
    whole = [
        (number, at, pattern, pattern.plain, pattern.first_literal, pattern.longest_literal, pattern.search().search)
        for number, rule in enumerate(stage.rules)
        if rule.is_whole
        for at, pattern in enumerate(rule.sources)
    ]
    partial = [
        (number, rule.sources[0], rule.sources[0].longest_literal)
        for number, rule in enumerate(stage.rules)
        if not rule.is_whole
    ]
    unseen = partial
    alike: dict[tuple[int, int, int], list[Span]] = {}
    for position, key in enumerate(keys):
        owner = -1
        for number, at, pattern, plain, first, literal, search in whole:
            if owner >= 0 and (number == owner or number in found.seen):
                continue
            if plain is not None:
                values: dict[str, str] | None = {} if key == plain else None
            elif literal in key and key.startswith(first) and (match := search(key)):
                values = pattern.read(match)
            else:
                continue
            if values is None:
                continue
            found.seen.add(number)
            if owner < 0:
                owner = number
                found.owned.setdefault(number, []).append(Owned(at, values, key, position))
        if owner >= 0:
            found.taken.add(key)
            unseen = [row for row in partial if row[0] not in found.seen] if unseen else unseen
        spans = _spans(partial if owner < 0 else unseen, key, alike)
        if not spans:
            continue
        found.seen.update(span.rule for span in spans)
        if owner < 0:
            found.touched[key] = sorted(spans, key=lambda span: (span.begin, span.end)) if len(spans) > 1 else spans
            for number in {span.rule for span in spans} if len(spans) > 1 else (spans[0].rule,):
                count, first = found.partial.get(number, (0, key))
                found.partial[number] = (count + 1, first)
    return found


def _spans(
    partial: list[tuple[int, Pattern, str]], key: str, alike: dict[tuple[int, int, int], list[Span]]
) -> list[Span]:
    """The disjoint spans that rules replace; the earlier rule has its span first.

    Args:
        partial: the rules, their patterns and a literal of each.
        key: what is searched.
        alike: lists of one span without captures, which many keys share.
    """
    spans: list[Span] = []
    for number, pattern, literal in partial:
        if literal not in key:
            continue
        matches = pattern.search().finditer(key) if pattern.parts else [_end(pattern, key)]
        taken = (
            sorted((span.begin, span.end) for span in spans) if spans else []
        )  # disjoint: their ends are sorted, too
        for match in matches:
            begin, end = match.span()
            before = bisect_left(taken, (end, -1))
            if before and taken[before - 1][1] > begin:
                continue
            values = pattern.read(match)
            if values is not None:
                spans.append(Span(begin, end, number, values))
    if len(spans) == 1 and not spans[0].values:
        return alike.setdefault((spans[0].begin, spans[0].end, spans[0].rule), spans)
    return spans


def _end(pattern: Pattern, key: str) -> re.Match[str]:
    """Where ``-> model.`` and ``-> .weight`` put what they add."""
    match = re.compile(r"\Z" if pattern.starts_anywhere else r"\A").search(key)
    assert match is not None
    return match


def new_names(key: str, spans: list[Span], rules: tuple[Rule, ...]) -> list[str]:
    """The names that a key gets when its spans are replaced; several where a rule has several patterns on the right.

    Raises:
        ValueError: a number of a name would be negative; the names are too many or too long.

    Example:
        >>> from ckptool.recipes.rules import parse_stages
        >>> (stage,) = parse_stages([".norm0. -> .norm1.", ".norm1. -> .norm2.", "module. ->"])
        >>> found = match_stage(stage, ["module.norm0.norm1.weight"])
        >>> [new_names(key, spans, stage.rules) for key, spans in found.touched.items()]
        [['norm1.norm2.weight']]
    """
    if len(spans) == 1 and len(rules[spans[0].rule].targets) == 1:  # most renamings
        (span,), (target,) = spans, rules[spans[0].rule].targets
        before, new = key[: span.begin].removeprefix(".").removesuffix("."), target.write(span.values)
        parts = [part for part in (before, new, key[span.end :].removeprefix(".")) if part]
        if len(key) + len(new) <= MAX_NAME:
            return [".".join(parts)]
    pieces: list[list[str]] = []
    at = 0
    for span in spans:
        pieces.append([key[at : span.begin].removeprefix(".").removesuffix(".")])
        pieces.append([target.write(span.values) for target in rules[span.rule].targets] or [""])
        at = span.end
    pieces.append([key[at:].removeprefix(".")])
    copies = prod(map(len, pieces))
    if copies > MAX_COPIES:
        raise ValueError(f"one tensor would become more than {MAX_COPIES:,}")
    if sum(max(map(len, choice)) for choice in pieces) > MAX_NAME:
        raise ValueError(f"a name would have more than {MAX_NAME:,} characters")
    if copies == 1:
        return [".".join([choice[0] for choice in pieces if choice[0]])]
    return [".".join(piece for piece in choice if piece) for choice in product(*pieces)]
