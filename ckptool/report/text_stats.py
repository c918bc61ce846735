"""The numbers of tensors as columns: mean, spread, and a histogram that is one glyph per bin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckptool.report.text import Cell, Column, level
from ckptool.report.units import signed

if TYPE_CHECKING:
    from ckptool.values.stats import Stats


def stats_columns(wide: bool) -> list[Column]:
    """Headings of the cells below."""
    return [Column("mean", ">"), Column("std", ">"), Column("histogram (±max, √count)" if wide else "±max, √count")]


def stats_cells(copies: Sequence[Stats], wide: bool) -> list[Cell]:
    """The cells of one tensor, or of the same tensor in several identical modules, taken together."""
    if not copies:
        return [Cell(), Cell(), Cell()]
    odd = _not_finite(copies)
    if all(one.integer for one in copies):
        return [Cell(), Cell(), Cell(_range(copies))]
    mean, std = moments(copies)
    bars = sparkline(histogram(copies), 24 if wide else 12)
    return [
        Cell("" if mean is None else signed(mean)),
        Cell("" if std is None else f"{std:.1e}"),
        Cell(f"{bars} {odd}".strip(" ") if odd else bars, "red" if odd else "cyan"),
    ]


def _not_finite(copies: Sequence[Stats]) -> str:
    found = {"NaN": sum(one.nan for one in copies), "Inf": sum(one.inf for one in copies)}
    return ", ".join(f"{many:,} {what}" for what, many in found.items() if many)


def _range(copies: Sequence[Stats]) -> str:
    lows = [one.min for one in copies if one.min is not None]
    highs = [one.max for one in copies if one.max is not None]
    if not lows:
        return ""
    low, high = min(lows), max(highs)
    return f"{low}" if low == high else f"{low} … {high}"


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


def sparkline(bins: Sequence[float], width: int) -> str:
    """A glyph per bin, of the square root of its count; empty bins are blank.

    Example:
        >>> sparkline([0, 1, 4, 16, 4, 1, 0, 0], 8)
        ' ▃▅█▅▃  '
    """
    each = len(bins) // width
    joined = [sum(bins[at : at + each]) for at in range(0, len(bins), each)] if each > 1 else list(bins)
    most = max(joined, default=0)
    return "".join(level(math.sqrt(many / most)) if many else " " for many in joined)
