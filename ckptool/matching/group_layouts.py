"""The layouts of tensors that stand for several: joined, split."""

from __future__ import annotations

from ckptool.recipes.induce.joined import Ones, Turned, fused_sides


def rest_of(rank: int) -> str:
    """The names of all axes but the first.

    Example:
        >>> rest_of(3)
        'i j'
    """
    return " ".join(["i", "j", "k"][: rank - 1])


def joining_layout(count: int, rank: int, turned: Turned = (False, False), ones: Ones = (0, 0)) -> str:
    """The layout that makes one tensor of several, one after the other.

    Example:
        >>> joining_layout(3, 2)
        'a0 i, a1 i, a2 i -> (a0 + a1 + a2) i'
        >>> joining_layout(2, 2, (False, True)), joining_layout(2, 2, ones=(0, 1))
        ('o i, p i -> i (o + p)', 'o i, p i -> (o + p) i 1')
    """
    names = ["o", "p"] if count == 2 else [f"a{at}" for at in range(count)]
    return " -> ".join(fused_sides(names, f"({' + '.join(names)})", rest_of(rank), turned, ones))


def splitting_layout(count: int, rank: int, turned: Turned = (False, False), ones: Ones = (0, 0)) -> str:
    """The layout that makes several tensors of one.

    Example:
        >>> splitting_layout(2, 1), splitting_layout(2, 2, (False, True))
        ('(o + p) -> o, p', 'i (o + p) -> o i, p i')
    """
    left, right = joining_layout(count, rank, turned, ones).split(" -> ")
    return f"{right} -> {left}"
