"""Axes of a layout, and their lengths: solved from what is known of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import TypeAlias

from ckptool.core.errors import PlanError


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
Axes: TypeAlias = tuple[Dim, ...]
Sizes: TypeAlias = Mapping[str, int]


def names_of(tensors: Iterable[Axes]) -> dict[str, None]:
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
    left: Sequence[Axes],
    right: Sequence[Axes],
    shapes: Sequence[Sequence[int]],
    known: Sizes,
    targets: Sequence[Sequence[int] | None] = (),
) -> dict[str, int]:
    """The size of every axis.

    Taken from what is known (vars, numbers of keys), then from the tensors, then from the target's shapes where there
    are any, and at last by splitting a sum equally.

    Args:
        left, right: the tensors of both sides, with ``...`` written out.
        shapes: of each tensor on the left.
        known: sizes by name.
        targets: shapes wanted on the right, None where unknown.

    Raises:
        PlanError: an equation cannot hold, or does not determine its names, or the target's parts are not as long
            together as the tensor that is cut; it is printed.

    Example:
        >>> h, d = Axis("h"), Axis("d")
        >>> solve([(Sum(((h, d),)),)], [(h, d)], [(4096,)], {"h": 32})
        {'h': 32, 'd': 128}
    """
    sizes = dict(known)
    given = list(_equations(left, shapes))
    wanted = list(_equations(right, targets)) if targets else []
    own: set[str] | None = None  # what is known without the target's shapes
    while True:
        if any(_determine(dim, length, sizes, share=False) for dim, length in given):
            continue
        own = set(sizes) if own is None else own
        if any(_determine(dim, length, sizes, share=False) for dim, length in wanted):
            continue
        if not any(_determine(dim, length, sizes, share=True) for dim, length in given):
            break
    for dim, length in given:
        if _unknown([dim], sizes):
            missing = [str(Axis(name)) for name in _unknown([dim], sizes)]
            text = f"{_equation(dim, length, sizes)} does not determine {', '.join(missing)}"
            raise PlanError(text, hint=_say(*missing))
        if size_of(dim, sizes) != length:
            raise PlanError(f"{_equation(dim, length, sizes)} does not hold")
    _require_targets(given, wanted, sizes, own or set())
    if missed := _unknown((dim for tensor in right for dim in tensor), sizes):
        raise PlanError(f"nothing says how long {missed[0]} is in the layout", hint=_say(missed[0]))
    return sizes


def _require_targets(
    given: Iterable[tuple[Dim, int]], wanted: Sequence[tuple[Dim, int]], sizes: Sizes, own: Collection[str]
) -> None:
    """Refuses to cut a tensor where the target's parts say, if they are not as long as it together."""
    for dim, length in given:
        names = set(_letters(dim)) - set(own)
        parts = [(axis, size) for axis, size in wanted if names & set(_letters(axis))]
        if any(not _unknown([axis], sizes) and size_of(axis, sizes) != size for axis, size in parts):
            lengths = ", ".join(f"{_bare(axis)} = {size}" for axis, size in parts)
            raise PlanError(
                f"{_bare(dim)} = {length} in the source, and {lengths} in the model",
                hint="the model has another width: leave the tensor out with --drop, or cut it by --var NAME=NUMBER",
            )


def _letters(dim: Dim) -> Iterator[str]:
    return (name for names in blocks_of((dim,)) for name in names)


def _equations(tensors: Iterable[Axes], shapes: Iterable[Sequence[int] | None]) -> Iterator[tuple[Dim, int]]:
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
    return f"{_bare(dim)} = {length}" + (f" with {known}" if known else "")


def _bare(dim: Dim) -> str:
    """Without the brackets around all of it."""
    return str(dim)[1:-1] if isinstance(dim, Sum) else str(dim)


def _say(*names: str) -> str:
    it = "it" if len(names) == 1 else "all but one of them"
    options = " ".join(f"--var {name}=..." for name in names)
    return f"say {it}: vars.{names[0]} = ... in the recipe, or {options}"
