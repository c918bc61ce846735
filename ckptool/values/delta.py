"""How two tensors differ in numbers, and how far they may."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delta:
    """The numbers of one changed or cast tensor, computed in float64 over its blocks.

    Attributes:
        rel: ||new - old|| / ||old||, finite elements only; inf if old is all zero and new is not; None for no numbers.
        max_abs: largest |new - old| over finite elements.
        cosine: cosine similarity of the two; None if either is all zero.
        differing: elements that differ.
        nonfinite: NaN and Inf in (old, new).
        ulp: the largest distance in units in the last place of the old dtype; None unless asked for.
        old_range: (min, max) of an integer tensor in the old checkpoint.
        new_range: the same in the new one.
    """

    rel: float | None = None
    max_abs: float | None = None
    cosine: float | None = None
    differing: int = 0
    nonfinite: tuple[int, int] = (0, 0)
    ulp: int | None = None
    old_range: tuple[int, int] | None = None
    new_range: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far values may be apart and still count as same; None means not at all.

    Attributes:
        rel: bound on `Delta.rel`.
        abs: bound on `Delta.max_abs`.
        ulp: bound on `Delta.ulp`.
    """

    rel: float | None = None
    abs: float | None = None
    ulp: int | None = None
