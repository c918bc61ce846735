"""New names for keys of one outline: pieces of the keys, and texts between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import itemgetter
from typing import TypeAlias

from ckptool.core.outlines import has_digits
from ckptool.recipes.pattern import MAX_NAME, Pattern
from ckptool.recipes.rules import Rule
from ckptool.recipes.search import Match

Piece: TypeAlias = str | tuple[int, int]
"""A text, or where one begins and ends in the old key."""


@dataclass(frozen=True, slots=True)
class Span:
    """A run of characters of a key that a rule replaces; `match` says where its captures lie."""

    begin: int
    end: int
    rule: int
    values: dict[str, str]
    match: Match | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Template:
    """A new name in terms of the old one.

    Example:
        >>> Template(("decoder.", (6, 16))).names(["model.layers.0.w", "model.layers.1.w"])
        ['decoder.layers.0.w', 'decoder.layers.1.w']
    """

    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, key: str, spans: Sequence[Span], rules: Sequence[Rule]) -> Template | None:
        """What rules make of a key and of all keys of its outline, to which they are blind; None if it cannot be said.

        Args:
            key: one of them.
            spans: of the key, which rules replace, from left to right.
            rules: those that the spans count; each has one pattern on the right, or none.
        """
        parts: list[list[Piece]] = []
        at = 0
        for span in spans:
            parts += _kept(key, at, span.begin)
            for target in rules[span.rule].targets:
                written = _written(target, rules[span.rule].sources[0], span)
                if written is None:
                    return None
                parts += written
            at = span.end
        parts += _kept(key, at, None)
        pieces = _joined(key, [piece for part in parts for piece in (".", *part)][1:])
        length = sum(len(piece) if isinstance(piece, str) else piece[1] - piece[0] for piece in pieces)
        return cls(pieces) if length <= MAX_NAME else None

    def names(self, keys: Sequence[str]) -> list[str]:
        """The new names of keys of the outline."""
        if not self.pieces:
            return [""] * len(keys)
        columns = [
            repeat(piece, len(keys)) if isinstance(piece, str) else map(itemgetter(slice(*piece)), keys)
            for piece in self.pieces
        ]
        return list(map("".join, zip(*columns, strict=True)) if len(columns) > 1 else columns[0])


def _kept(key: str, begin: int, end: int | None) -> list[list[Piece]]:
    """What stands between two spans, or behind the last, without the dots around it."""
    begin += key.startswith(".", begin, end)
    stop = len(key) if end is None else end - key.endswith(".", begin, end)
    return [[(begin, stop)]] if begin < stop else []


def _written(target: Pattern, source: Pattern, span: Span) -> list[list[Piece]] | None:
    """The parts of what a rule puts in the place of a span; None if it is not known where captures lie."""
    places = {hole.name: (number, hole.kind) for number, hole in enumerate(source.holes, 1)}
    parts: list[list[Piece]] = []
    for tokens in target.parts:
        part: list[Piece] = []
        for token in tokens:
            if isinstance(token, str):
                part.append(token)
                continue
            number, kind = places[token.name]
            if kind == "choice":  # all keys of the outline have the same
                part.append(token.write(span.values[token.name]))
            elif isinstance(span.match, re.Match):
                begin, end = span.match.span(number)
                part += [(begin, end)] if begin < end else []
            else:
                return None
        parts += [part] if part else []
    return parts


def _joined(key: str, pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """The pieces, those that follow one another in the key as one; texts too, if they stand there without digits."""
    found: list[Piece] = []
    for piece in pieces:
        last = found.pop() if found else ""
        if isinstance(last, str):
            if isinstance(piece, str):
                found.append(last + piece)
            elif key.endswith(last, 0, piece[0]) and not has_digits(last):
                found.append((piece[0] - len(last), piece[1]))
            else:
                found += [last, piece]
        elif isinstance(piece, str):
            stands_there = key.startswith(piece, last[1]) and not has_digits(piece)
            found += [(last[0], last[1] + len(piece))] if stands_there else [last, piece]
        else:
            found += [(last[0], piece[1])] if last[1] == piece[0] else [last, piece]
    return tuple(found)
