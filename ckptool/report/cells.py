"""Typed cells: what kinds of values reports have, and the text of each, the same in every output."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from ckptool.core.spec import DTYPES
from ckptool.report.symbols import Style
from ckptool.report.units import count, real, relative, signed, size

Kind = Literal[
    "text", "key", "code", "spec", "mark", "verdict", "whole", "count", "bytes", "share", "ratio", "real", "signed",
    "rel", "small", "levels", "hist", "tensors", "percent",
]  # fmt: skip
"""What a value is: words; key patterns; other code; a dtype with a shape; a symbol; how a rule went ([text, style,
findings, level]); a number in full; in thousands and millions; bytes, or (before, after); a share of 1; one of another
column; numbers with two digits, the last two for relative changes; relative changes of tensors in order; counts of 24
bins; how many rows a branch of a tree has; a share without a bar."""

NUMBERS = frozenset(("whole", "count", "bytes", "real", "signed", "rel", "small"))
"""Kinds whose values stand at the right."""


class Cell(NamedTuple):
    """A value with a look of its own.

    Attributes:
        value: as its column's kind has it; None for nothing.
        style: how it looks.
        lead: the branches of a tree, drawn before it.
    """

    value: Any = None
    style: Style = ""
    lead: str = ""


class Row(NamedTuple):
    """Values, or `Cell`s, for the columns of a table, and how they look."""

    cells: Sequence[Any]
    style: Style = ""


def cell_of(value: Any) -> Cell:
    """A value as a cell."""
    return value if isinstance(value, Cell) else Cell(value)


def cell_text(kind: Kind, value: Any, wide: bool = True) -> str:
    """A value in characters, not escaped.

    Args:
        kind: of it.
        value: it; "" comes of None.
        wide: there is room for long bars.

    Example:
        >>> cell_text("bytes", (6800, None)), cell_text("bytes", (8, 4)), cell_text("bytes", (8, 8))
        ('−6.80 kB', '8 B → 4 B', '8 B')
        >>> cell_text("share", 0.5, wide=False), cell_text("count", 9408)
        ('████████           50%', '9.41k')
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if kind == "share":
        return f"{bar(value, 16):<16} {share_text(value):>5}"
    if kind == "bytes" and isinstance(value, tuple):
        return _before_and_after(*value)
    if kind == "levels":
        return levels(value, 42 if wide else 15)
    if kind == "hist":
        return sparkline(value, 24 if wide else 12)
    if kind == "key":
        return ", ".join(value)
    return _FORMATS.get(kind, str)(value)


_FORMATS: Mapping[str, Callable[[Any], str]] = {
    "whole": "{:,}".format,
    "count": count,
    "bytes": size,
    "real": real,
    "signed": signed,
    "rel": relative,
    "small": relative,
    "ratio": count,
    "percent": lambda share: share_text(share),
}


def _before_and_after(before: int, after: int | None) -> str:
    if after is None:
        return f"−{size(before)}"
    return size(after) if after == before else f"{size(before)} → {size(after)}"


def share_text(share: float) -> str:
    """``67%``; never 100 % or 0 % for a part.

    Example:
        >>> share_text(0.999), share_text(1.0), share_text(1e-9)
        ('99.9%', '100%', '<0.01%')
    """
    if 0 < share < 1:
        texts = (f"{100 * share:.{digits}f}" for digits in (0, 1, 2))
        return next((text for text in texts if float(text) not in (0, 100)), ">99.99" if share > 0.5 else "<0.01") + "%"
    return f"{100 * share:.0f}%"


# ---------------------------------------------------------------------------------------------- glyphs

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_FAINTEST, _STRONGEST = 1e-5, 3e-2  # a fixed scale: the bars of two reports can be compared by eye


def bar(share: float, width: int) -> str:
    """A horizontal bar in eighths of a column, `width` columns when the share is 1.

    Example:
        >>> bar(0.5, 5)
        '██▌'
    """
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


def level(share: float) -> str:
    """One glyph of a vertical bar.

    Example:
        >>> level(0.0), level(0.5), level(1.0)
        ('▁', '▅', '█')
    """
    return _LEVELS[int(max(0.0, min(0.999, share)) * 8)]


def heat(rel: float) -> float:
    """How strong a relative change is, 0 to 1.

    Example:
        >>> heat(1e-6), heat(float("inf"))
        (0.0, 1.0)
    """
    if rel <= _FAINTEST or math.isnan(rel):
        return 0.0
    return min(1.0, math.log(rel / _FAINTEST) / math.log(_STRONGEST / _FAINTEST))


def levels(rels: Sequence[float], room: int) -> str:
    """A glyph per relative change; where there are more than room, one for the largest of each few."""
    if len(rels) > room:
        edges = [at * len(rels) // room for at in range(room + 1)]
        rels = [max(rels[low:high]) for low, high in pairwise(edges)]
    return "".join(level(heat(rel)) for rel in rels)


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


_SHORT = {dtype.short: dtype for dtype in DTYPES.values()}


def spec_style(spec: str) -> Style:
    """The colour of ``f32[64]``: floats of 4 bytes and more, of 2, of less, and integers are told apart.

    Example:
        >>> spec_style("f32[64]"), spec_style("bf16[64]"), spec_style("f8_e4m3fn[64]"), spec_style("i64[]")
        ('cyan', 'blue', 'magenta', 'dim cyan')
    """
    dtype = _SHORT.get(spec.partition("[")[0])
    if dtype is None:
        return "cyan"
    if dtype.kind in ("int", "uint", "bool"):
        return "dim cyan"
    return "cyan" if dtype.bits >= 32 else "blue" if dtype.bits >= 16 else "magenta"
