"""Layouts: rearrangements of index space, ``(h d two) i -> (h two d) i``.

Each tensor is written as its axes. ``(a b)`` is one axis that runs over a and b, ``(a + b)`` is one after the other,
``...`` stands for any further axes, ``1`` for an axis of one element. A layout has as many tensors on its sides as the
rule has patterns. Inside a sum, ``_`` or a number that is only on the left is thrown away, and a number that is only on
the right is a block of zeros. A name that is only on the right repeats. Swapping the sides inverts a layout.

An axis can also be *spread*: not an axis of any tensor but a capture of the keys, one tensor per value. Then
``o i -> e o i`` stacks the tensors of all e, and ``e o i -> o i`` takes them apart.

`ckptool.recipes.axes` solves the sizes; `ckptool.recipes.rearrange` turns a solved layout into ops.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NoReturn

from ckptool.core.errors import PlanError, UsageError
from ckptool.recipes.axes import Axes, Axis, Dim, Sum, blocks_of, names_of
from ckptool.recipes.pattern import malformed


@dataclass(frozen=True, slots=True)
class Layout:
    """A parsed layout. Make one with `Layout.parse`.

    Example:
        >>> layout = Layout.parse("o i, p i -> e (o + p) i")
        >>> print(layout.inverse({"e"}))
        e (o + p) i -> o i, p i
    """

    left: tuple[Axes, ...]
    right: tuple[Axes, ...]

    @classmethod
    def parse(cls, text: str, rule: str | None = None, at: int = 0) -> Layout:
        """The layout that `text` writes down; `UsageError` with a caret if it cannot be read.

        Args:
            text: the layout alone.
            rule: the whole rule, shown in errors.
            at: where in the rule it begins.
        """
        left, right = _Reader(text, rule or text, at).read()
        return cls(left, right)

    @property
    def text(self) -> str:
        sides = (", ".join(" ".join(map(str, tensor)) for tensor in side) for side in (self.left, self.right))
        return " -> ".join(sides)

    def __str__(self) -> str:
        return self.text

    def inverse(self, captures: Collection[str] = ()) -> Layout:
        """The layout that undoes it; `UsageError` if it throws something away or repeats.

        Args:
            captures: names that the tensors on the left are spread over.
        """
        left, right = names_of(self.left), names_of(self.right)
        if gone := [name for name in left if name not in right and name[:1] in ("#", "_")]:
            raise UsageError(f'the layout "{self.text}" throws {Axis(gone[0])} away')
        known = {*left, *captures}
        if more := [name for name in right if name not in known and name[:1] != "#"]:
            raise UsageError(f'the layout "{self.text}" repeats over {Axis(more[0])}')
        return Layout(self.right, self.left)

    def check(self, left_spread: Sequence[Sequence[str]], right_spread: Sequence[Sequence[str]]) -> None:
        """Raises `UsageError` unless every block of elements has exactly one place to go to.

        Args:
            left_spread: for each tensor on the left, the captures that it is spread over.
            right_spread: the same for the right.
        """
        sources = self._blocks(self.left, left_spread)
        targets = self._blocks(self.right, right_spread)
        known = {name for block in sources for name in block}
        wanted = set()
        for block in targets:
            if any(name[:1] == "#" and name not in known for name in block):
                continue  # zeros
            wanted.add(block & known)
            if any(name[:1] == "_" for name in block):
                raise UsageError(f'the layout "{self.text}" has a _ on the right', hint="a name repeats, a 7 is zeros")
            if sources.count(block & known) != 1:
                sides = "no tensor on the left has" if block & known not in sources else "two tensors on the left have"
                over = f"over {_listed(block & known)}" if block & known else "without an axis of the left"
                raise UsageError(
                    f'the layout "{self.text}" wants elements {over}, which {sides}',
                    hint="write every axis of a tensor on both sides; a capture of the keys counts as one",
                )
        for block in sources:
            if block not in wanted and not any(name[:1] in ("#", "_") for name in block - _all(targets)):
                raise UsageError(
                    f'the layout "{self.text}" has no place for elements over {_listed(block)}',
                    hint="write _ in place of a name to throw a block away",
                )

    def _blocks(self, tensors: Sequence[Axes], spread: Sequence[Sequence[str]]) -> list[frozenset[str]]:
        found = []
        for tensor, captures in zip(tensors, spread, strict=True):
            for names in blocks_of(tensor):
                names = [*names, *captures]
                if len(set(names)) < len(names):
                    twice = next(name for name in names if names.count(name) > 1)
                    raise UsageError(
                        f'the layout "{self.text}" has {Axis(twice)} twice in one tensor',
                        hint="a capture that is left or right only is an axis already",
                    )
                found.append(frozenset(names))
        return found

    def ranked(self, shapes: Sequence[Sequence[int]]) -> Layout:
        """The layout with ``...`` written out for tensors on the left of these shapes. Raises `PlanError`."""
        extra: int | None = None
        for tensor, shape in zip(self.left, shapes, strict=True):
            missing = len(shape) - len(tensor) + (Axis("...") in tensor)
            if Axis("...") not in tensor:
                if missing:
                    raise PlanError(f'"{_written(tensor)}" has {len(tensor)} axes, the tensor has {_shape(shape)}')
            elif missing < 0 or extra not in (None, missing):
                raise PlanError(f'the ... of "{self.text}" cannot stand for the same axes everywhere')
            else:
                extra = missing
        if extra is None:
            return self
        rest = tuple(Axis(f"...{at}") for at in range(extra))

        def written_out(tensor: Axes) -> Axes:
            return tuple(axis for dim in tensor for axis in (rest if dim == Axis("...") else (dim,)))

        return Layout(tuple(map(written_out, self.left)), tuple(map(written_out, self.right)))


def _all(blocks: Iterable[frozenset[str]]) -> frozenset[str]:
    return reduce(frozenset.union, blocks, frozenset())


def _listed(names: Iterable[str]) -> str:
    return "{" + ", ".join(sorted(str(Axis(name)) for name in names)) + "}"


def _written(tensor: Axes) -> str:
    return " ".join(map(str, tensor))


def _shape(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


# ---------------------------------------------------------------------------------------------- reading

_TOKEN = re.compile(r"\s*(->|\.\.\.|_(?!\w)|[A-Za-z]\w*|\d+|[()+,])")


class _Reader:
    """Reads ``tensors -> tensors`` from left to right."""

    def __init__(self, text: str, rule: str, base: int) -> None:
        self.text, self.rule, self.base = text, rule, base
        self.tokens: list[tuple[str, int]] = []
        at = 0
        while at < len(text.rstrip()):
            match = _TOKEN.match(text, at)
            if match is None:
                raise malformed("not part of a layout", rule, base + at + len(text[at:]) - len(text[at:].lstrip()))
            self.tokens.append((match[1], match.start(1)))
            at = match.end()
        self.at = 0
        self.discarded = 0
        self.numbers: dict[str, int] = {}

    def fail(self, what: str, hint: str | None = None, *, back: int = 0) -> NoReturn:
        at = self.at - back
        place = self.tokens[at][1] if at < len(self.tokens) else len(self.text.rstrip())
        raise malformed(what, self.rule, self.base + place, hint)

    @property
    def token(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def read(self) -> tuple[tuple[Axes, ...], tuple[Axes, ...]]:
        left = self.side("->")
        self.numbers = {}
        return left, self.side("")

    def side(self, stop: str) -> tuple[Axes, ...]:
        tensors: list[Axes] = [()]
        while self.token != stop:
            if self.token in ("", "->", ")", "+"):
                self.fail(
                    "the layout needs one ->, with axes on both sides" if self.token in ("", "->") else "unexpected"
                )
            if self.token == ",":
                tensors.append(())
                self.at += 1
            else:
                tensors[-1] = (*tensors[-1], self.dim(in_sum=False))
        self.at += 1
        return tuple(tensors)

    def dim(self, *, in_sum: bool) -> Dim:
        token = self.token
        self.at += 1
        if token == "(":
            return self.group()
        if token == "...":
            if in_sum:
                self.fail("... cannot stand inside brackets", back=1)
            return Axis(token)
        if token == "_":
            if not in_sum:
                self.fail("_ stands for a block of a sum: (_ + n)", "name the axis", back=1)
            self.discarded += 1
            return Axis(f"_{self.discarded - 1}")
        if token.isdecimal():
            return self.number(token, in_sum=in_sum)
        if not token[:1].isalpha():
            self.fail("an axis is missing here", back=1)
        return Axis(token)

    def number(self, token: str, *, in_sum: bool) -> Axis:
        if len(token) > 12 or int(token) == 0:
            self.fail("not the length of an axis", back=1)
        if not in_sum:
            return Axis("" if int(token) == 1 else str(int(token)))
        seen = self.numbers[token] = self.numbers.get(token, -1) + 1
        return Axis(f"#{int(token)}" + "'" * seen)  # the second 1 on the left is the second 1 on the right

    def group(self) -> Sum:
        products: list[tuple[Dim, ...]] = []
        while True:
            alone = self.tokens[self.at + 1][0] in ("+", ")") if self.at + 1 < len(self.tokens) else False
            in_sum = alone and (bool(products) or self.tokens[self.at + 1][0] == "+")
            factors: list[Dim] = []
            while self.token not in ("+", ")", "", ",", "->"):
                factors.append(self.dim(in_sum=in_sum))
            if not factors:
                self.fail("an axis is missing here")
            products.append(tuple(factors))
            if self.token == ")":
                self.at += 1
                return Sum(tuple(products))
            if self.token != "+":
                self.fail("a ( that is not closed")
            self.at += 1
