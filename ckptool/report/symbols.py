"""Symbols, colours and weights: each means the same in every command and every output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from ckptool.core.spec import DTYPES

if TYPE_CHECKING:
    from ckptool.commands.checks.finding import Level

Style = Literal[
    "", "dim", "bold", "red", "bold red", "green", "yellow", "bold yellow", "magenta", "bold magenta", "cyan",
    "dim cyan", "blue",
]  # fmt: skip
"""How something looks. Bold is for what a person looks for; dim for what is as expected."""

STYLES: Mapping[str, Style] = {
    "=": "green",  # same, copied or loaded as it is
    "~": "yellow",  # changed or cast
    "!": "magenta",  # of another shape
    ">": "cyan",  # renamed
    "*": "magenta",  # computed or fitted
    "+": "green",  # only in the new checkpoint, or in the source: added, unexpected
    "-": "red",  # not in the new checkpoint, or in the output: removed, dropped, missing
    "?": "yellow",  # not decided
}

LEVELS: Mapping[Level, Style] = {"error": "red", "warning": "yellow", "note": "cyan"}
"""Of findings and notes."""

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
