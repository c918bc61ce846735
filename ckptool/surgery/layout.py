"""Layouts: rearrangements of index space, ``(h d two) i -> (h two d) i``.

Each tensor is written as its axes. ``(a b)`` is one axis that runs over a and b, ``(a + b)`` is one after the other,
``...`` stands for any further axes, ``1`` for an axis of one element. A layout has as many tensors on its sides as the
rule has patterns. Inside a sum, ``_`` or a number that is only on the left is thrown away, and a number that is only on
the right is a block of zeros. A name that is only on the right repeats. Swapping the sides inverts a layout.

An axis can also be *spread*: not an axis of any tensor but a capture of the keys, one tensor per value. Then
``o i -> e o i`` stacks the tensors of all e, and ``e o i -> o i`` takes them apart.

Sizes are solved by `solve`, from what is known; `ckptool.surgery.rearrange` turns a solved layout into ops.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import NoReturn, TypeAlias

from ckptool.errors import PlanError, UsageError
from ckptool.surgery.pattern import malformed


@dataclass(frozen=True, slots=True)
class Axis:
    """One name.

    ``1`` has the name "" and ``...`` the name "...". A number that is a whole block of a sum is named "#7", any other
    number "7"; a ``_`` is "_0", "_1" and so on.
    """

    name: str

    @property
    def number(self) -> int | None:
        """Its size, if it is written as a number."""
        digits = self.name.strip("#'")
        return int(digits) if digits.isdecimal() else None

    def __str__(self) -> str:
        return "_" if self.name[:1] == "_" else self.name.strip("#'") or "1"


@dataclass(frozen=True, slots=True)
class Sum:
    """Products one after the other; ``(a b)`` is a sum of one product."""

    products: tuple[tuple[Dim, ...], ...]

    def __str__(self) -> str:
        return "(" + " + ".join(" ".join(map(str, factors)) for factors in self.products) + ")"


Dim: TypeAlias = Axis | Sum
Tensor: TypeAlias = tuple[Dim, ...]
Sizes: TypeAlias = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """A parsed layout. Make one with `Layout.parse`.

    Example:
        >>> layout = Layout.parse("o i, p i -> e (o + p) i")
        >>> print(layout.inverse())
        e (o + p) i -> o i, p i
    """

    left: tuple[Tensor, ...]
    right: tuple[Tensor, ...]

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
                raise UsageError(
                    f'the layout "{self.text}" wants elements over {_listed(block & known)} '
                    f"that {'no tensor' if block & known not in sources else 'two tensors'} on the left have",
                    hint="write every axis of a tensor on both sides; a capture of the keys counts as one",
                )
        for block in sources:
            if block not in wanted and not any(name[:1] in ("#", "_") for name in block - _all(targets)):
                raise UsageError(
                    f'the layout "{self.text}" has no place for elements over {_listed(block)}',
                    hint="write _ in place of a name to throw a block away",
                )

    def _blocks(self, tensors: Sequence[Tensor], spread: Sequence[Sequence[str]]) -> list[frozenset[str]]:
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

        def written_out(tensor: Tensor) -> Tensor:
            return tuple(axis for dim in tensor for axis in (rest if dim == Axis("...") else (dim,)))

        return Layout(tuple(map(written_out, self.left)), tuple(map(written_out, self.right)))


def names_of(tensors: Iterable[Tensor]) -> dict[str, None]:
    """The names of all axes, in order."""
    return dict.fromkeys(name for tensor in tensors for names in blocks_of(tensor) for name in names)


def blocks_of(dims: Sequence[Dim]) -> Iterator[list[str]]:
    """The names of the axes of each block: one block per way to choose an alternative in every sum."""
    options: list[list[list[str]]] = []
    for dim in dims:
        if isinstance(dim, Axis):
            options.append([[dim.name] if dim.name else []])
        else:
            options.append([names for factors in dim.products for names in blocks_of(factors)])
    for choice in product(*options):
        yield [name for names in choice for name in names]


def _all(blocks: Iterable[frozenset[str]]) -> frozenset[str]:
    return reduce(frozenset.union, blocks, frozenset())


def _listed(names: Iterable[str]) -> str:
    return "{" + ", ".join(sorted(str(Axis(name)) for name in names)) + "}"


def _written(tensor: Tensor) -> str:
    return " ".join(map(str, tensor))


def _shape(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


# ---------------------------------------------------------------------------------------------- sizes


def size_of(dim: Dim, sizes: Sizes) -> int:
    """The length of an axis whose names are all known."""
    if isinstance(dim, Sum):
        return sum(_product(factors, sizes) for factors in dim.products)
    return dim.number or (sizes[dim.name] if dim.name else 1)


def _product(factors: Iterable[Dim], sizes: Sizes) -> int:
    return reduce(lambda size, dim: size * size_of(dim, sizes), factors, 1)


def _unknown(dims: Iterable[Dim], sizes: Sizes) -> list[str]:
    names = (name for names in blocks_of(tuple(dims)) for name in names)
    return [name for name in dict.fromkeys(names) if name not in sizes and Axis(name).number is None]


def solve(
    layout: Layout,
    shapes: Sequence[Sequence[int]],
    known: Sizes,
    targets: Sequence[Sequence[int] | None] = (),
) -> dict[str, int]:
    """The size of every axis.

    Taken from what is known (vars, numbers of keys), then from the tensors, then from the target's shapes where there
    are any, and at last by splitting a sum equally.

    Args:
        layout: with ``...`` written out.
        shapes: of each tensor on the left.
        known: sizes by name.
        targets: shapes wanted on the right, None where unknown.

    Raises:
        PlanError: an equation cannot hold, or does not determine its names; it is printed.

    Example:
        >>> solve(Layout.parse("(h d two) i -> (h two d) i"), [(4096, 512)], {"h": 32, "two": 2})
        {'h': 32, 'two': 2, 'd': 64, 'i': 512}
    """
    sizes = dict(known)
    given = list(_equations(layout.left, shapes))
    wanted = list(_equations(layout.right, targets)) if targets else []
    while True:
        if any(_determine(dim, length, sizes, share=False) for dim, length in given):
            continue
        if any(_determine(dim, length, sizes, share=False) for dim, length in wanted):
            continue
        if not any(_determine(dim, length, sizes, share=True) for dim, length in given):
            break
    for dim, length in given:
        if _unknown([dim], sizes):
            missing = ", ".join(str(Axis(name)) for name in _unknown([dim], sizes))
            raise PlanError(f"{_equation(dim, length, sizes)} does not determine {missing}", hint=_say(missing))
        if size_of(dim, sizes) != length:
            raise PlanError(f"{_equation(dim, length, sizes)} does not hold")
    if left := _unknown((dim for tensor in layout.right for dim in tensor), sizes):
        raise PlanError(f'nothing says how long {left[0]} is in "{layout.text}"', hint=_say(left[0]))
    return sizes


def _equations(tensors: Iterable[Tensor], shapes: Iterable[Sequence[int] | None]) -> Iterator[tuple[Dim, int]]:
    for tensor, shape in zip(tensors, shapes, strict=True):
        if shape is not None and len(shape) == len(tensor):
            yield from zip(tensor, shape, strict=True)


def _determine(dim: Dim, length: int, sizes: dict[str, int], *, share: bool) -> bool:
    """Solves ``dim = length`` for its one unknown name, or, to share, splits a sum equally. True if it found any."""
    unknown = _unknown([dim], sizes)
    if isinstance(dim, Axis):
        if unknown:
            sizes[dim.name] = length
        return bool(unknown)
    if len(unknown) == 1:
        zero = size_of(dim, {**sizes, unknown[0]: 0})
        each = size_of(dim, {**sizes, unknown[0]: 1}) - zero
        value, rest = divmod(length - zero, each) if each else (0, 1)
        if rest or value < 0:
            raise PlanError(f"{_equation(dim, length, sizes)} has no whole solution")
        sizes[unknown[0]] = value
        return True
    if not unknown or not share:
        return False
    if len(dim.products) == 1:  # (k (a + b)): divide by what is known
        inner = [factor for factor in dim.products[0] if _unknown([factor], sizes)]
        rest = _product((factor for factor in dim.products[0] if factor not in inner), sizes)
        return (
            len(inner) == 1
            and rest > 0
            and length % rest == 0
            and _determine(inner[0], length // rest, sizes, share=True)
        )
    open_ = [factors for factors in dim.products if _unknown(factors, sizes)]
    left = length - sum(_product(factors, sizes) for factors in dim.products if factors not in open_)
    if left < 0 or left % len(open_):
        raise PlanError(f"{_equation(dim, length, sizes)} cannot be split into {len(open_)} equal parts")
    found = [_determine(Sum((factors,)), left // len(open_), sizes, share=True) for factors in open_]
    return any(found)


def _equation(dim: Dim, length: int, sizes: Sizes) -> str:
    names = dict.fromkeys(name for names in blocks_of((dim,)) for name in names)
    known = ", ".join(f"{name} = {sizes[name]}" for name in names if name in sizes)
    return f"{str(dim).strip('()')} = {length}" + (f" with {known}" if known else "")


def _say(name: str) -> str:
    return f"say it: vars.{name} = ... in the recipe, or --var {name}=..."


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

    def read(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        left = self.side("->")
        self.numbers = {}
        return left, self.side("")

    def side(self, stop: str) -> tuple[Tensor, ...]:
        tensors: list[Tensor] = [()]
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
