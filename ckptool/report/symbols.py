"""Symbols, colours and weights: each means the same in every command and every output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ckptool.commands.checks.finding import Level

Style = Literal[
    "", "dim", "bold", "red", "bold red", "green", "dim green", "yellow", "bold yellow", "magenta", "bold magenta",
    "cyan", "dim cyan", "blue", "bar",
]  # fmt: skip
"""How something looks. Bold is for what a person looks for; dim for what is as expected; bar for bars of charts."""

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

LOOKED_FOR: Mapping[str, Style] = {"!": "bold magenta", "-": "bold red"}
"""Of keys that are missing or have another shape."""

LEVELS: Mapping[Level, Style] = {"error": "red", "warning": "yellow", "note": "cyan"}
"""Of findings and notes."""
