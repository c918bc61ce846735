"""Globs as finite automata: matching takes time in proportion to the key, whatever the pattern is.

A regex engine tries the alternatives of ``{a,aa}`` or ``*`` one after the other and may try them all again for each
alternative before them. An automaton is in all places of the pattern at once. Its states are made when a key first
needs them, and each is a dict from a character to the next state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from string import digits
from typing import TypeAlias

from ckptool.core.errors import UsageError
from ckptool.core.outlines import outline

MAX_PLACES = 50_000  # of one pattern: characters, stars, alternatives
MAX_TRANSITIONS = 200_000  # remembered
MAX_WORK = 30_000_000  # places looked at: about ten seconds


@dataclass(frozen=True, slots=True)
class CharClass:
    """One character in (or, negated, outside of) some ranges; `ANY` is every character."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool = False

    def holds(self, char: str) -> bool:
        return any(low <= char <= high for low, high in self.ranges) != self.negated

    @property
    def regex(self) -> str:
        if not self.ranges:
            return "."
        inside = "".join(f"{re.escape(low)}-{re.escape(high)}" if low != high else re.escape(low)
                         for low, high in self.ranges)  # fmt: skip
        return f"[{'^' * self.negated}{inside}]"


ANY = CharClass((), negated=True)
DIGIT = CharClass((("0", "9"),))


@dataclass(frozen=True, slots=True)
class Repeat:
    """Any number of characters of a class, none too."""

    of: CharClass = ANY


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several sequences."""

    options: tuple[Sequence[Node], ...]


Node: TypeAlias = str | CharClass | Repeat | Choice
"""What a glob is a sequence of; a text is one character."""

STAR = Repeat()


def outlined(nodes: Sequence[Node]) -> list[Node]:
    """A glob that matches the outlines of all keys that this one matches (see `ckptool.core.outlines`).

    Example:
        >>> regex_of(outlined(["h", "7", CharClass((("2", "4"),))]))
        'h0.'
    """
    return [_outlined(node) for node in nodes]


def _outlined(node: Node) -> Node:
    if isinstance(node, str):
        return outline(node)
    if isinstance(node, Choice):
        return Choice(tuple(map(outlined, node.options)))
    of = node.of if isinstance(node, Repeat) else node
    of = ANY if any(map(of.holds, digits)) else of
    return Repeat(of) if isinstance(node, Repeat) else of


def regex_of(nodes: Sequence[Node]) -> str:
    """A regex with the meaning of the nodes. Linear if there is no `Choice` among them: where several stars stand, what
    follows one has one length only, so the first place where it fits is as good as any (fnmatch does the same).

    Example:
        >>> regex_of(["a", STAR, "b", STAR])
        'a(?>.*?b).*'
    """
    pieces: list[list[str]] = [[]]
    for node in nodes:
        if isinstance(node, Repeat):
            pieces.append([f"{node.of.regex}*"])
        elif isinstance(node, Choice):
            pieces[-1].append(f"(?:{'|'.join(map(regex_of, node.options))})")
        else:
            pieces[-1].append(node.regex if isinstance(node, CharClass) else re.escape(node))
    first, *starred = pieces
    middle = [f"(?>{star}?{''.join(rest)})" if rest else star for star, *rest in starred[:-1]]
    return "".join([*first, *middle, *(starred[-1] if starred else ())])


class Automaton:
    """Matches whole texts against a glob.

    Args:
        nodes: the glob.
        text: as it is written, for errors.

    Raises:
        UsageError: it is longer than any that a person writes.

    Example:
        >>> Automaton([STAR, Choice(("a", "aa")), "b"], "*{a,aa}b").select(["xaab", "ab", "b"])
        ['xaab', 'ab']
    """

    def __init__(self, nodes: Sequence[Node], text: str) -> None:
        self.text = text
        self.takes: list[str | CharClass | None] = [None]  # place 0 is the end
        self.goes: list[tuple[int, ...]] = [()]
        self.states: dict[frozenset[int], _State] = {}
        self.transitions = self.work = 0
        self.start = self.state(self.closure([self.build(nodes, 0)]))

    def select(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that the glob matches, in their order."""
        found = []
        for key in keys:
            state = self.start
            for char in key:
                state = state[char]
            if state.accepts:
                found.append(key)
        return found

    def build(self, nodes: Sequence[Node], after: int) -> int:
        """The place from which the nodes lead to the place `after`."""
        for node in reversed(nodes):
            if isinstance(node, Choice):
                after = self.place(None, tuple(self.build(option, after) for option in node.options))
            elif isinstance(node, Repeat):
                split = self.place(None, ())
                self.goes[split] = (self.place(node.of, (split,)), after)
                after = split
            else:
                after = self.place(node, (after,))
        return after

    def place(self, takes: str | CharClass | None, goes: tuple[int, ...]) -> int:
        if len(self.takes) >= MAX_PLACES:
            raise UsageError(f'the pattern "{self.text[:40]}..." is too long', hint="use several patterns")
        self.takes.append(takes)
        self.goes.append(goes)
        return len(self.takes) - 1

    def closure(self, places: Iterable[int]) -> frozenset[int]:
        """The places that take a character, or end, and are reached from these without one."""
        found: set[int] = set()
        seen: set[int] = set()
        waiting = list(places)
        while waiting:
            place = waiting.pop()
            if place in seen:
                continue
            seen.add(place)
            if place == 0 or self.takes[place] is not None:
                found.add(place)
            else:
                waiting += self.goes[place]
        self.work += len(seen)
        if self.work > MAX_WORK:
            raise UsageError(
                f'the pattern "{self.text[:80]}" takes too long to match', hint="use fewer choices and stars"
            )
        return frozenset(found)

    def state(self, places: frozenset[int]) -> _State:
        found = self.states.get(places)
        if found is None:
            found = _State(self, places)
            if self.transitions < MAX_TRANSITIONS:
                self.states[places] = found
        return found


class _State(dict[str, "_State"]):
    """Places of the pattern after some characters: the next state by the next character."""

    __slots__ = ("accepts", "automaton", "places")

    def __init__(self, automaton: Automaton, places: frozenset[int]) -> None:
        super().__init__()
        self.automaton = automaton
        self.places = places
        self.accepts = 0 in places

    def __missing__(self, char: str) -> _State:
        automaton = self.automaton
        automaton.work += len(self.places)
        following = [
            place
            for at in self.places
            if (takes := automaton.takes[at]) == char or (isinstance(takes, CharClass) and takes.holds(char))
            for place in automaton.goes[at]
        ]
        state = automaton.state(automaton.closure(following))
        if automaton.transitions < MAX_TRANSITIONS:
            automaton.transitions += 1
            self[char] = state
        return state


# ---------------------------------------------------------------------------------------------- numbers


def numbers(low: str, high: str) -> list[Sequence[Node]]:
    """The sequences of digits from `low` to `high`, without leading zeros unless both have them.

    Example:
        >>> [regex_of(option) for option in numbers("8", "11")]
        ['[8-9]', '1[0-1]']
    """
    lows = [low, *("1" + "0" * width for width in range(len(low), len(high)))]
    highs = [*("9" * width for width in range(len(low), len(high))), high]
    return [option for first, last in zip(lows, highs, strict=True) for option in _same_width(first, last)]


def _same_width(low: str, high: str) -> list[Sequence[Node]]:
    if low == high:
        return [tuple(low)]
    if low[0] == high[0]:
        return [(low[0], *rest) for rest in _same_width(low[1:], high[1:])]
    rest = len(low) - 1
    if not rest:
        return [(CharClass(((low, high),)),)]
    found: list[Sequence[Node]] = []
    first, final = int(low[0]), int(high[0])
    if low[1:] != "0" * rest:
        found += [(low[0], *tail) for tail in _same_width(low[1:], "9" * rest)]
        first += 1
    last: list[Sequence[Node]] = []
    if high[1:] != "9" * rest:
        last = [(high[0], *tail) for tail in _same_width("0" * rest, high[1:])]
        final -= 1
    if first <= final:
        found.append((CharClass(((str(first), str(final)),)), *([DIGIT] * rest)))
    return found + last
