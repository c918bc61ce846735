"""The symbols of rows and their colours: each means the same in every command."""

from __future__ import annotations

from collections.abc import Mapping

from ckptool.report.text import Style

STYLES: Mapping[str, Style] = {
    "=": "green",  # same, copied or filled as it is
    "~": "yellow",  # changed or cast
    "!": "magenta",  # of another shape
    ">": "cyan",  # renamed
    "*": "magenta",  # computed or fitted
    "+": "green",  # only in the new checkpoint, or in the source: added, unexpected
    "-": "red",  # not in the new checkpoint, or in the output: removed, dropped, missing
    "?": "yellow",  # not decided
}
