"""A rule's pattern on a key. Where a regex could try too many ways, a search that tries none of them twice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from ckptool.core.errors import UsageError

CHEAP = 100_000  # steps of a regex on one key, at most
MAX_WORK = 2_000_000  # steps of the other search on all keys: a few seconds
_WORK_FOR_A_KEY = 10_000  # more for each key

Ends: TypeAlias = Iterator[tuple[int, str | None]]
Element: TypeAlias = Callable[[str, int], Ends]
"""What stands at a place of a pattern: where it may end in a key if it begins at a position, and what is captured (None
for a literal), in the order in which a regex tries it."""


@dataclass(frozen=True, slots=True)
class Found:
    """A match: its first character and the one behind it, and the captures."""

    begin: int
    end: int
    captures: tuple[str, ...]

    def span(self) -> tuple[int, int]:
        return self.begin, self.end

    def groups(self, default: str = "") -> tuple[str, ...]:
        return self.captures


Match: TypeAlias = re.Match[str] | Found


class Search:
    """A compiled pattern.

    Args:
        regex: its meaning.
        elements: the same, piece by piece.
        degree: of the polynomial in the length of the key that bounds the steps of the regex.
        anywhere: whether it may begin, and end, at any part of the key.
        text: as it is written, for errors.
    """

    def __init__(
        self, regex: str, elements: list[Element], degree: int, anywhere: tuple[bool, bool], text: str
    ) -> None:
        self.regex = re.compile(regex, re.DOTALL)
        self.elements = elements
        self.degree = degree + anywhere[0]
        self.starts_anywhere, self.ends_anywhere = anywhere
        self.text = text
        self.work = 0

    def search(self, key: str) -> Match | None:
        """The first match in the key.

        Raises:
            UsageError: it takes too long.
        """
        if self.is_cheap(key):
            return self.regex.search(key)
        return next(self.walked(key), None)

    def finditer(self, key: str) -> Iterator[re.Match[str]] | Iterator[Found]:
        """All matches in the key that do not overlap, from left to right."""
        return self.regex.finditer(key) if self.is_cheap(key) else self.walked(key)

    def is_cheap(self, key: str) -> bool:
        return self.degree < 2 or float(len(key)) ** min(self.degree, 40) <= CHEAP

    def walked(self, key: str) -> Iterator[Found]:
        """What `finditer` of the regex gives, in time that grows with the square of the key."""
        self.work -= _WORK_FOR_A_KEY
        failed: set[tuple[int, int]] = set()
        begin = 0
        while begin >= 0:
            found = self.matched(key, begin, failed)
            if found is not None:
                yield found
            dot = key.find(".", begin if found is None else max(found.end - 1, begin)) if self.starts_anywhere else -1
            begin = dot + 1 if dot >= 0 else -1

    def matched(self, key: str, begin: int, failed: set[tuple[int, int]]) -> Found | None:
        """The match that begins here. `failed` holds elements and positions from which there is none."""
        positions = [begin]
        captures: list[str | None] = []
        waiting = [self.elements[0](key, begin)]
        while waiting:
            for end, captured in waiting[-1]:
                self.work += 1
                number = len(waiting)
                if (number, end) not in failed:
                    captures.append(captured)
                    if number == len(self.elements):
                        if self.may_end(key, end):
                            return Found(begin, end, tuple(text for text in captures if text is not None))
                        captures.pop()
                        continue
                    positions.append(end)
                    waiting.append(self.elements[number](key, end))
                    break
            else:
                waiting.pop()
                failed.add((len(waiting), positions.pop()))
                if captures:
                    captures.pop()
            if self.work > MAX_WORK:
                raise UsageError(
                    f'the pattern "{self.text[:80]}" takes too long to match',
                    hint="use fewer captures that match anything",
                )
        return None

    def may_end(self, key: str, end: int) -> bool:
        return key.startswith(".", end) if self.ends_anywhere else end == len(key)


def literal(text: str) -> Element:
    """A text as it stands."""
    return lambda key, begin: iter([(begin + len(text), None)] if key.startswith(text, begin) else [])


def choice(options: tuple[str, ...]) -> Element:
    """One of the texts, longest first."""
    ordered = sorted(options, key=len, reverse=True)
    return lambda key, begin: ((begin + len(text), text) for text in ordered if key.startswith(text, begin))


def run(inside: str, least: int) -> Element:
    """As many characters of a class as there are, down to `least`: ``[0-9]+``, ``.*``."""
    longest = re.compile(f"{inside}*", re.DOTALL).match

    def ends(key: str, begin: int) -> Ends:
        match = longest(key, begin)
        assert match is not None
        return ((end, key[begin:end]) for end in range(match.end(), begin + least - 1, -1))

    return ends


def parts_or_none(key: str, begin: int) -> Ends:
    """``(?:(.+?)\\.)?``: some parts and the dot behind them, few first; at last, none."""
    end = key.find(".", begin + 1)
    while end >= 0:
        yield end + 1, key[begin:end]
        end = key.find(".", end + 1)
    yield begin, ""


def is_prefix_free(texts: tuple[str, ...]) -> bool:
    """No text begins with another: at one place of a key at most one of them can stand.

    Example:
        >>> is_prefix_free(("weight", "bias")), is_prefix_free(("1", "11"))
        (True, False)
    """
    ordered = sorted(texts)
    return not any(longer.startswith(text) for text, longer in zip(ordered, islice(ordered, 1, None), strict=False))
