"""The layouts of tensors that stand for several: joined, split, stacked, taken apart."""

from __future__ import annotations

from ckptool.recipes.induce.joined import Turned, fused_sides


def rest_of(rank: int) -> str:
    """The names of all axes but the first.

    Example:
        >>> rest_of(3)
        'i j'
    """
    return " ".join(["i", "j", "k"][: rank - 1])


def joining_layout(count: int, stacked: int, rank: int, turned: Turned = (False, False)) -> str:
    """The layout that makes one tensor of several, one after the other; then stacked, unless 0.

    Example:
        >>> joining_layout(3, 0, 2), joining_layout(2, 2, 2)
        ('a0 i, a1 i, a2 i -> (a0 + a1 + a2) i', 'o i, p i -> (o + p) i | (2 o) i -> 2 o i')
        >>> joining_layout(2, 0, 2, (False, True))
        'o i, p i -> i (o + p)'
    """
    names = ["o", "p"] if count == 2 else [f"a{at}" for at in range(count)]
    rest = rest_of(rank)
    text = " -> ".join(fused_sides(names, f"({' + '.join(names)})", rest, turned))
    return f"{text} | ({stacked} o) {rest} -> {stacked} o {rest}" if stacked else text


def splitting_layout(count: int, rank: int, turned: Turned = (False, False)) -> str:
    """The layout that makes several tensors of one.

    Example:
        >>> splitting_layout(2, 1), splitting_layout(2, 2, (False, True))
        ('(o + p) -> o, p', 'i (o + p) -> o i, p i')
    """
    left, right = joining_layout(count, 0, rank, turned).split(" -> ")
    return f"{right} -> {left}"


def unstacking_layout(members: int, each: int, rank: int) -> str:
    """The layout that takes a stack apart, `each` tensors of every member.

    Example:
        >>> unstacking_layout(2, 1, 2)
        '(e0 + e1) a0 i -> e0 a0 i, e1 a0 i | 1 o i -> o i'
    """
    rest = rest_of(rank)
    names = [f"a{at}" for at in range(each)]
    inner = f"({' + '.join(names)})" if each > 1 else "a0"
    outer = [f"e{at}" for at in range(members)]
    right = ", ".join(f"{one} {name} {rest}".strip() for one in outer for name in names)
    return f"({' + '.join(outer)}) {inner} {rest} -> {right} | 1 o {rest} -> o {rest}"
