"""Numbers as people read them: decimal units, few digits, never more than the space a column has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_COUNTS = ("", "k", "M", "B", "T", "Q")


def size(nbytes: int) -> str:
    """Bytes for a column of a table.

    Example:
        >>> size(8), size(37632), size(594432), size(999_999)
        ('8 B', '37.63 kB', '594 kB', '1.00 MB')
    """
    figure, step = _scaled(nbytes, len(_SIZES), _two_decimals)
    return f"{figure} {_SIZES[step]}"


def size_short(nbytes: int) -> str:
    """Bytes in a sentence: three digits.

    Example:
        >>> size_short(46_827_520), size_short(12)
        ('46.8 MB', '12 B')
    """
    figure, step = _scaled(nbytes, len(_SIZES), _three_digits)
    return f"{figure} {_SIZES[step]}"


def count(number: int) -> str:
    """A number of elements.

    Example:
        >>> count(256), count(9408), count(148_000), count(11_699_132), count(6_979_321_856)
        ('256', '9.41k', '148k', '11.70M', '6.98B')
    """
    figure, step = _scaled(number, len(_COUNTS), _two_decimals)
    return f"{figure}{_COUNTS[step]}"


def relative(value: float) -> str:
    """A relative change: one digit and its power of ten; a large one in plain digits.

    Example:
        >>> relative(8.4e-5), relative(0.0), relative(1.41), relative(float("inf"))
        ('8e-05', '0', '1.4', 'inf')
    """
    if not math.isfinite(value) or not value:
        return f"{value:g}"
    return f"{value:.2g}" if 0.095 <= value < 1000 else f"{value:.0e}"


def real(value: float) -> str:
    """A number with two digits.

    Example:
        >>> real(2.94e-4), real(0.0)
        ('2.9e-04', '0')
    """
    if not math.isfinite(value):
        return str(value)
    return "0" if value == 0 else f"{value:.1e}"


def signed(value: float) -> str:
    """A number with its sign.

    Example:
        >>> signed(-5.3e-4), signed(0.026)
        ('-5.3e-04', '+2.6e-02')
    """
    if not math.isfinite(value):
        return str(value)
    return "0" if value == 0 else f"{value:+.1e}"


def percent(part: float, whole: float) -> str:
    """A share.

    Example:
        >>> percent(1, 3), percent(1, 0)
        ('33.3%', '0.0%')
    """
    return f"{100 * part / whole if whole else 0:.1f}%"


def seconds(duration: float) -> str:
    """A duration left: ``0:00:07``."""
    whole = max(0, round(duration))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _scaled(number: int, steps: int, form: Callable[[float], str]) -> tuple[str, int]:
    """The number in the largest unit that leaves at least 1.00, and how many thousands that unit is."""
    if abs(number) < 1000:
        return str(number), 0
    value = float(number) if abs(number) < 1 << 1000 else math.inf
    step = 0
    while step < steps - 1 and (step == 0 or abs(value) >= 999.5):
        value /= 1000
        step += 1
    return form(value), step


def _two_decimals(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 99.995 else f"{value:.0f}"


def _three_digits(value: float) -> str:
    if abs(value) < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"


def shape_text(shape: Sequence[int]) -> str:
    """A shape in one cell.

    Example:
        >>> shape_text((64, 3, 7, 7)), shape_text(())
        ('[64,3,7,7]', '[]')
    """
    return f"[{','.join(map(str, shape))}]"
