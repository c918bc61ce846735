"""Options that commands share, each written once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ckptool.errors import CkptError


class Format(StrEnum):
    """What stdout gets."""

    TEXT = "text"
    JSON = "json"
    NDJSON = "ndjson"
    MARKDOWN = "markdown"
    LINES = "lines"


class Color(StrEnum):
    """When to use colour."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


def complete_keys(ctx: typer.Context, incomplete: str) -> list[str]:
    """Keys of the file named on the command line so far; none if it cannot be read."""
    from ckptool.formats import open_checkpoint

    named = next((ctx.params[name] for name in ("path", "new", "old") if ctx.params.get(name)), None)
    if named is None:
        return []
    try:
        keys = list(open_checkpoint(Path(named)))
    except (CkptError, OSError):
        return []
    return [key for key in keys if key.startswith(incomplete) and key.isprintable()]


SelectOption = Annotated[
    str | None,
    typer.Option("--select", metavar="PATH", help="Take the weights from this dict of the file, as in model_ema."),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="PATTERN", help="Only these keys; repeats.", autocompletion=complete_keys),
]
FormatOption = Annotated[
    Format,
    typer.Option("--format", metavar="FORMAT", help="text, json, ndjson, markdown or lines.", rich_help_panel="Output"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.", rich_help_panel="Output")]
ColorOption = Annotated[
    Color, typer.Option("--color", metavar="WHEN", help="auto, always or never.", rich_help_panel="Output")
]
NoPagerOption = Annotated[
    bool, typer.Option("--no-pager", help="Do not page long output on a terminal.", rich_help_panel="Output")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel="Output")]
DebugOption = Annotated[
    bool, typer.Option("--debug", help="Show where in ckptool an error arose.", rich_help_panel="Output")
]
ThreadsOption = Annotated[
    int, typer.Option("--threads", metavar="N", min=1, max=64, help="Threads that read and compute.")
]
