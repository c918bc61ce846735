"""How one tensor may be another with its axes arranged otherwise: the layout, or that there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache

from ckptool.matching.modules import Shape

_LETTERS = "abcdefgh"
_USUAL = ((1, 1), (2, 1), (3, 1), (4, 1), (1, 4))  # widths of the matrices that the blocks of most transformers have


def squeezed(shape: Shape) -> Shape:
    """The shape without its ones."""
    return tuple(size for size in shape if size != 1) if 1 in shape else shape


def are_usual(shapes: Iterable[Shape]) -> bool:
    """All matrices are as wide as in most transformers, so that they are equal by chance.

    Example:
        >>> are_usual([(768, 768), (3072, 768)]), are_usual([(384, 196), (768, 768)])
        (True, False)
    """
    flat = {shape for shape in map(squeezed, shapes) if len(shape) == 2}
    width = min((size for shape in flat for size in shape), default=1)
    return all((rows / width, columns / width) in _USUAL for rows, columns in flat)


@lru_cache(maxsize=65536)
def relation(source: Shape, target: Shape, turned: str = "") -> str | None:
    """The layout that makes one shape of the other; "" if nothing is to be done, None if they are not one tensor.

    Same, ones put in or left out, turned round, an axis cut into heads or heads joined, convolutions flattened.

    Args:
        source: a shape.
        target: the shape that is wanted.
        turned: which of them has its inputs before its outputs, "source" or "target"; "" if both or none.

    Example:
        >>> relation((96, 1, 1), (96,)), relation((8, 4), (4, 8), "source"), relation((3,), (3,)), relation((8,), (4,))
        ('a 1 1 -> a', 'i o -> o i', '', None)
        >>> relation((3, 3, 16, 8), (8, 16, 3, 3), "source"), relation((8, 16, 3, 3), (3, 3, 16, 8), "target")
        ('h w i o -> o i h w', 'o i h w -> h w i o')
        >>> relation((48, 4, 12), (48, 48), "source"), relation((128, 64, 7, 7), (128, 3136)), relation((48,), (4, 12))
        ('a b c -> (b c) a', 'a b c d -> a (b c d)', '(a b) -> a b')
    """
    if turned and len(squeezed(source)) > 1:
        sides = (source, target) if turned == "source" else (target, source)
        found = next(_turnings(*sides), None)
        if found is None:  # both have the axes of an einsum with heads
            return "" if source == target and len(source) == 3 else None
        return " -> ".join(found if turned == "source" else found[::-1])
    if source == target:
        return ""
    is_dense = 2 in (len(source), len(target)) and max(len(source), len(target)) > 3  # as all of a convolution's inputs
    if squeezed(source) == squeezed(target) and not is_dense:
        return f"{_named(source, _LETTERS)} -> {_named(target, _LETTERS)}".strip()
    if len(source) == len(target) == 3 and source[0] == target[0] and source[1:] == target[:0:-1]:
        return "a b c -> a c b"  # one matrix for each expert
    for one, other, is_source in ((source, target, True), (target, source, False)):
        if groups := _joined(one, other):
            axes = [" ".join(_LETTERS[: len(one)]), " ".join(groups)]
            return " -> ".join(axes if is_source else axes[::-1])
    return None


def _turnings(turned: Shape, plain: Shape) -> Iterator[tuple[str, str]]:
    """The axes of a shape as TensorFlow has it, spatial ones first, and as torch has it, last.

    Of a convolution of each channel by itself, TensorFlow has the channels where others have the inputs. Flax cuts the
    outputs of a query into heads, and the inputs of what joins them; einsums have the heads first.
    """
    if len(turned) == len(plain) > 1:
        space = "dhw"[-(len(plain) - 2) :] if len(plain) > 2 else ""
        right = f"oi{space}"
        for left in (f"{space}io", f"{space}oi"):
            sizes = dict(zip(left, turned, strict=True))
            if tuple(sizes[name] for name in right) == plain:
                yield " ".join(left), " ".join(right)
    if len(squeezed(turned)) == len(squeezed(plain)) == 2 and squeezed(turned)[::-1] == squeezed(plain):
        yield _named(turned, "io"), _named(plain, "oi")
    if len(turned) == 3 and len(plain) == 2:
        a, b, c = turned
        if plain == (b * c, a):
            yield "a b c", "(b c) a"
        if plain == (a * c, b):
            yield "a b c", "(a c) b"
        if plain == (c, a * b):
            yield "a b c", "c (a b)"
    if len(turned) == 2 and len(plain) > 2 and turned[::-1] == (plain[0], math.prod(plain[1:])):
        names = _LETTERS[: len(plain)]
        yield f"({' '.join(names[1:])}) a", " ".join(names)


def _joined(long: Shape, short: Shape) -> list[str]:
    """The axes of the shorter shape as runs of axes of the longer one; nothing if there is none."""
    if len(long) <= len(short) or not short:
        return []
    names = iter(_LETTERS)
    groups: list[str] = []
    at = 0
    for size in short:
        row: list[str] = []
        product = 1
        while at < len(long) and (product < size or not row):
            product *= long[at]
            row.append(next(names))
            at += 1
        if product != size:
            return []
        if len(groups) == len(short) - 1:  # ones behind the last
            row += [next(names) for size in long[at:] if size == 1]
            at += sum(size == 1 for size in long[at:])
        groups.append(row[0] if len(row) == 1 else f"({' '.join(row)})")
    return groups if at == len(long) else []


def _named(shape: Shape, letters: str) -> str:
    """The axes of a shape by letters, those of size 1 as they are."""
    names = iter(letters)
    return " ".join("1" if size == 1 else next(names) for size in shape)
