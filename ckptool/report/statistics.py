"""The numbers of the same tensor in several identical modules, taken together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptool.values.stats import Stats


_RANGE = 16  # columns of a range of integers


def integer_range(copies: Sequence[Stats]) -> str:
    """``0 … 4690``; packed codes, whose numbers mean nothing, in two digits: ``-2.1e+09 … 1.9e+09``."""
    lows = [one.min for one in copies if one.min is not None]
    highs = [one.max for one in copies if one.max is not None]
    if not lows:
        return ""
    low, high = min(lows), max(highs)
    exact = f"{low}" if low == high else f"{low} … {high}"
    return exact if len(exact) <= _RANGE else f"{low:.2g} … {high:.2g}"


def moments(copies: Sequence[Stats]) -> tuple[float | None, float | None]:
    """Mean and standard deviation of all finite elements together."""
    known = [
        (one.elements - one.nan - one.inf, one.mean, one.std)
        for one in copies
        if one.mean is not None and one.std is not None
    ]
    total = sum(many for many, _, _ in known)
    if not total:
        return None, None
    mean = math.fsum(many * each for many, each, _ in known) / total
    variance = math.fsum(many * (std * std + (each - mean) ** 2) for many, each, std in known) / total
    return mean, math.sqrt(variance)


def histogram(copies: Sequence[Stats]) -> list[float]:
    """One histogram over ±max of all; those of a smaller max are put in bin by bin, each taken to lie at its middle."""
    largest = max(_magnitude(one) for one in copies)
    bins = [0.0] * len(copies[0].histogram)
    for one in copies:
        scale = _magnitude(one) / largest if largest else 1.0
        for at, many in enumerate(one.histogram):
            middle = (at + 0.5) / len(bins) * 2 - 1
            bins[min(len(bins) - 1, int((middle * scale + 1) / 2 * len(bins)))] += many
    return bins


def _magnitude(one: Stats) -> float:
    return max(abs(one.min or 0.0), abs(one.max or 0.0))
