"""Which rule of a stage decides a key: whole-key rules own theirs, partial rules share the rest.

Keys of one outline are decided together, unless a rule that may match them tells numbers apart.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import prod

from ckptool.core.outlines import by_names, outline, outlines
from ckptool.recipes.pattern import MAX_NAME, Pattern
from ckptool.recipes.rules import Rule, Stage
from ckptool.recipes.search import Match
from ckptool.recipes.template import Span, Template

MAX_COPIES = 10_000  # names that one key gets
_MANY = 16  # keys of one outline that are worth being decided together


@dataclass(frozen=True, slots=True)
class Owned:
    """A key that a whole-key rule decides: which of its patterns matched, and the captures."""

    pattern: int
    values: dict[str, str]
    key: str
    position: int


@dataclass(slots=True)
class Renamed:
    """Keys that the same rules rename, by their positions, and their new names."""

    positions: array[int] = field(default_factory=lambda: array("Q"))
    names: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Tally:
    """How many keys a rule decides, and the position of the first."""

    keys: int
    first: int


@dataclass(slots=True)
class Matches:
    """What a stage's rules do to the keys. A key is known by its position.

    Attributes:
        renamed: keys that get another name and nothing else, by the numbers of their rules in the stage.
        dropped: keys that a rule drops, by its number.
        owned: for each whole-key rule that does more, the keys that it owns.
        touched: the other keys that partial rules change: their spans from left to right.
        tallies: what each rule decides.
        seen: rules whose pattern fits some key, though an earlier rule may have taken it.
        taken: 1 for each key that any rule decides.
    """

    taken: bytearray
    renamed: dict[tuple[int, ...], Renamed] = field(default_factory=dict)
    dropped: dict[int, array[int]] = field(default_factory=dict)
    owned: dict[int, list[Owned]] = field(default_factory=dict)
    touched: dict[int, list[Span]] = field(default_factory=dict)
    tallies: dict[int, Tally] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)

    def decide(self, rules: tuple[int, ...], positions: Sequence[int]) -> None:
        """Note that rules decide keys."""
        for position in positions:
            self.taken[position] = 1
        for number in rules:
            tally = self.tallies.setdefault(number, Tally(0, positions[0]))
            tally.keys, tally.first = tally.keys + len(positions), min(tally.first, positions[0])

    def drop(self, rule: int, positions: Sequence[int]) -> None:
        self.dropped.setdefault(rule, array("Q")).extend(positions)

    def rename(self, rules: tuple[int, ...], positions: Sequence[int], names: Sequence[str]) -> None:
        renamed = self.renamed.setdefault(rules, Renamed())
        renamed.positions.extend(positions)
        renamed.names.extend(names)


class _Test:
    """A pattern of a rule, and cheap tests for its literals that come before its search."""

    def __init__(self, number: int, at: int, rule: Rule) -> None:
        self.number, self.at, self.rule = number, at, rule
        self.pattern = rule.sources[at]
        self.plain, self.literal = self.pattern.plain if rule.is_whole else None, self.pattern.longest_literal
        self.first = self.pattern.first_literal
        self.search = self.pattern.search().search

    def match(self, key: str) -> tuple[dict[str, str], Match | None] | None:
        """The captures of a whole key, and where they lie."""
        if self.plain is not None:
            return ({}, None) if key == self.plain else None
        if self.literal not in key or not key.startswith(self.first):
            return None
        match = self.search(key)
        values = None if match is None else self.pattern.read(match)
        return None if values is None else (values, match)

    @cached_property
    def is_blind(self) -> bool:
        """All keys of an outline are alike to the rule."""
        return self.counts_nothing and self.pattern.is_blind

    @cached_property
    def counts_nothing(self) -> bool:
        """All keys of an outline whose numbers inside names are the same are alike to the rule."""
        holes = (hole for target in self.rule.targets for hole in target.holes)
        return self.pattern.counts_nothing and not any(hole.linear for hole in holes)

    @cached_property
    def _outline(self) -> tuple[str | None, str, str, Pattern]:
        plain = None if self.plain is None else outline(self.plain)
        pattern = self.pattern if self.pattern.is_blind else self.pattern.outline
        return plain, outline(self.first), outline(self.literal), pattern

    def may_match(self, text: str) -> bool:
        """False if it matches no key of this outline."""
        plain, first, literal, pattern = self._outline
        if plain is not None:
            return text == plain
        if literal not in text or not text.startswith(first):
            return False
        return not pattern.parts or pattern.search().search(text) is not None


def match_stage(stage: Stage, keys: Sequence[str]) -> Matches:
    """What becomes of each key."""
    work = _Matching(stage, keys)
    whole = [
        _Test(n, at, rule) for n, rule in enumerate(stage.rules) if rule.is_whole for at in range(len(rule.sources))
    ]
    partial = [_Test(n, 0, rule) for n, rule in enumerate(stage.rules) if not rule.is_whole]
    for text, positions in _positions(keys).items():
        those, parts = whole, partial
        if len(positions) >= _MANY:
            those = [test for test in whole if test.may_match(text)]
            parts = [test for test in partial if test.may_match(text)]
        for row, is_alike in _alike(text, positions, keys, [*those, *parts]):
            if not is_alike or not work.take_alike(those, parts, row):
                for position in row:
                    work.take(those, parts, position)
    for owned in work.found.owned.values():
        owned.sort(key=lambda one: one.position)
    return work.found


def _positions(keys: Sequence[str]) -> dict[str, array[int]]:
    """Where the keys of each outline stand."""
    found: dict[str, array[int]] = {}
    for position, text in enumerate(outlines(keys)):
        if text in found:
            found[text].append(position)
        else:
            found[text] = array("Q", (position,))
    return found


def _alike(
    text: str, positions: Sequence[int], keys: Sequence[str], tests: Sequence[_Test]
) -> Iterator[tuple[Sequence[int], bool]]:
    """Where some keys of an outline stand, and whether they are many and all alike to some rules."""
    is_many = len(positions) >= _MANY
    if is_many and all(test.counts_nothing for test in tests) and not all(test.is_blind for test in tests):
        for row in by_names(text, [keys[position] for position in positions]).values():
            yield array("Q", [positions[at] for at in row]), len(row) >= _MANY
    else:
        yield positions, is_many and all(test.is_blind for test in tests)


class _Matching:
    """A stage on keys, while it is matched."""

    def __init__(self, stage: Stage, keys: Sequence[str]) -> None:
        self.rules, self.keys = stage.rules, keys
        self.found = Matches(bytearray(len(keys)))
        self.alike: dict[tuple[int, int, int], list[Span]] = {}

    def take(self, whole: Sequence[_Test], partial: Sequence[_Test], position: int) -> None:
        """Decide one key."""
        key = self.keys[position]
        owner = self._owner(whole, partial, key)
        if owner is None:
            spans = self._touching(partial, key)
            if spans:
                self._touch(spans, position)
            return
        test, values, _ = owner
        self.found.decide((test.number,), (position,))
        if test.rule.drops:
            self.found.drop(test.number, (position,))
        elif not (test.rule.only_renames and self._renamed((test.number,), position, [_all_of(key, owner)])):
            self.found.owned.setdefault(test.number, []).append(Owned(test.at, values, key, position))

    def _touch(self, spans: list[Span], position: int) -> None:
        rules = tuple(sorted({span.rule for span in spans})) if len(spans) > 1 else (spans[0].rule,)
        self.found.decide(rules, (position,))
        dropping = next((number for number in rules if self.rules[number].drops), None)
        if dropping is not None:
            self.found.drop(dropping, (position,))
        elif not (all(self.rules[n].only_renames for n in rules) and self._renamed(rules, position, spans)):
            self.found.touched[position] = spans

    def _renamed(self, rules: tuple[int, ...], position: int, spans: list[Span]) -> bool:
        """Give a key its new name; False if it cannot be written."""
        try:
            (name,) = new_names(self.keys[position], spans, self.rules)
        except ValueError:
            return False
        self.found.rename(rules, (position,), (name,))
        return True

    def take_alike(self, whole: Sequence[_Test], partial: Sequence[_Test], positions: Sequence[int]) -> bool:
        """Decide keys of one outline, which are all alike to these rules; False if each must be looked at."""
        key = self.keys[positions[0]]
        owner = self._owner(whole, partial, key)
        spans = self._touching(partial, key) if owner is None else [_all_of(key, owner)]
        rules = tuple(sorted({span.rule for span in spans}))
        dropping = next((number for number in rules if self.rules[number].drops), None)
        names: list[str] = []
        if rules and dropping is None:
            if not all(self.rules[number].only_renames for number in rules):
                return False
            template = Template.of(key, spans, self.rules)
            if template is None:
                return False
            names = template.names([self.keys[position] for position in positions])
        if rules:
            self.found.decide(rules, positions)
        if dropping is not None:
            self.found.drop(dropping, positions)
        elif rules:
            self.found.rename(rules, positions, names)
        return True

    def _owner(
        self, whole: Sequence[_Test], partial: Sequence[_Test], key: str
    ) -> tuple[_Test, dict[str, str], Match | None] | None:
        """The first whole-key rule that matches; of the others it is noted that they match something."""
        seen = self.found.seen
        owner = None
        for test in whole:
            if owner is not None and (test.number == owner[0].number or test.number in seen):
                continue
            matched = test.match(key)
            if matched is None:
                continue
            seen.add(test.number)
            owner = owner or (test, *matched)
        if owner is not None and any(test.number not in seen for test in partial):
            self._touching([test for test in partial if test.number not in seen], key)
        return owner

    def _touching(self, partial: Sequence[_Test], key: str) -> list[Span]:
        """The disjoint spans that partial rules replace, from left to right."""
        spans = _spans(partial, key, self.alike)
        self.found.seen.update(span.rule for span in spans)
        return sorted(spans, key=lambda span: (span.begin, span.end)) if len(spans) > 1 else spans


def _all_of(key: str, owner: tuple[_Test, dict[str, str], Match | None]) -> Span:
    """The whole key as the span of the rule that owns it."""
    test, values, match = owner
    return Span(0, len(key), test.number, values, match)


def _spans(partial: Sequence[_Test], key: str, alike: dict[tuple[int, int, int], list[Span]]) -> list[Span]:
    """The disjoint spans that rules replace; the earlier rule has its span first.

    Args:
        partial: the rules.
        key: what is searched.
        alike: lists of one span without captures, which many keys share.
    """
    spans: list[Span] = []
    for test in partial:
        if test.literal not in key:
            continue
        pattern = test.pattern
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
                spans.append(Span(begin, end, test.number, values, match if values else None))
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
        >>> from ckptool.recipes.reading import parse_stages
        >>> (stage,) = parse_stages([".norm0. -> .norm1.", ".norm1. -> .norm2.", "module. ->"])
        >>> match_stage(stage, ["module.norm0.norm1.weight"]).renamed[0, 1, 2].names
        ['norm1.norm2.weight']
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
