"""Options that commands share, each written once."""

from __future__ import annotations

import contextlib
import shlex
from enum import StrEnum
from pathlib import PurePath
from typing import Annotated, Any

import typer

from ckptool.core.address import named
from ckptool.core.errors import CkptError, UsageError
from ckptool.storage.environment import VARIABLES
from ckptool.storage.paths import exists, is_address


class _PathOrAddress:
    """Makes a path of a text, or an address of one that is an address."""

    def __new__(cls, text: str) -> Any:
        if not text:  # which a path would take for the current folder
            raise UsageError("a path is empty", hint="name a file or folder; in a script: is a variable not set?")
        return named(text)


PATH: Any = _PathOrAddress
"""The `path_type` of an argument that names a file or folder: shells complete it. Typer's own types know text only."""


class Color(StrEnum):
    """When to use colour."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


def complete_keys(incomplete: str) -> list[str]:
    """Keys of the first checkpoint on the command line being typed; none if it cannot be read."""
    from ckptool.formats.opening import open_checkpoint

    # The parser knows no arguments yet while an option lacks its value: the words come from the shell.
    typed = VARIABLES.get("COMP_WORDS") or VARIABLES.get("_TYPER_COMPLETE_ARGS") or ""
    with contextlib.suppress(CkptError, OSError, ValueError):
        named = next((word for word in shlex.split(typed)[2:] if not is_address(word) and exists(word)), None)
        keys = list(open_checkpoint(PurePath(named))) if named else []
        return [key for key in keys if key.startswith(incomplete) and key.isprintable()]
    return []


def complete_recipes(incomplete: str) -> list[str]:
    """Names of built-in recipes."""
    from ckptool.recipes.recipe import builtin_recipes

    return [name for name in builtin_recipes() if name.startswith(incomplete)]


SelectOption = Annotated[
    str | None,
    typer.Option("--select", metavar="PATH", help="Take the weights from this dict of the file, as in model_ema."),
]
EmaOption = Annotated[bool, typer.Option("--ema", help="Take the moving average that the file holds.")]
RulesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        "-r",
        metavar="RULE",
        help='"FROM -> TO", a recipe file, or a built-in recipe; repeats.',
        autocompletion=complete_recipes,
    ),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="PATTERN", help="Only these keys; repeats.", autocompletion=complete_keys),
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
