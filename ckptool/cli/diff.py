"""``ckptool diff``."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ckptool.cli.common import (
    Color,
    ColorOption,
    DebugOption,
    Format,
    FormatOption,
    JsonOption,
    NoPagerOption,
    OnlyOption,
    QuietOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from ckptool.checkpoint import Checkpoint
    from ckptool.compare.result import Diff, Tolerance


class Emit(StrEnum):
    """What else a comparison can be written as."""

    RECIPE = "recipe"


EPILOG = """\
Examples:
  ckptool diff old.pth new.safetensors
  ckptool diff run/model/ base.pth --only "layers.0.*" --tolerance rel=1e-3
  ckptool diff theirs.pth mine.pth --emit recipe > rename.toml

Exit codes: 0 same; 1 different; 2 a file cannot be read"""


def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A checkpoint: a file, or a folder of shards.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Another one, in any format.")],
    select: Annotated[
        str | None, typer.Option("--select", metavar="PATH", help="Take the weights of both from this dict.")
    ] = None,
    select_old: Annotated[str | None, typer.Option("--select-old", metavar="PATH", help="... of OLD.")] = None,
    select_new: Annotated[str | None, typer.Option("--select-new", metavar="PATH", help="... of NEW.")] = None,
    only: OnlyOption = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option("--tolerance", metavar="BOUND", help="Count as same within rel=1e-3, abs=1e-6 or ulp=2; repeats."),
    ] = None,
    keys_only: Annotated[bool, typer.Option("--keys-only", help="Compare keys, shapes and dtypes only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="A row per tensor.")] = False,
    emit: Annotated[
        Emit | None, typer.Option("--emit", metavar="WHAT", help="recipe: renames and drops as TOML for remap.")
    ] = None,
    threads: ThreadsOption = 2,
    form: FormatOption = Format.TEXT,
    json: JsonOption = False,
    color: ColorOption = Color.AUTO,
    no_pager: NoPagerOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> int:
    """How two checkpoints differ: keys, shapes, dtypes and values, in any two formats.

    Wrapper prefixes are seen through, renamed tensors are found by their bytes.
    """
    from ckptool.cli.output import print_lines, print_texts, stdout_screen
    from ckptool.compare.diff import parse_tolerance
    from ckptool.compare.result import Tolerance
    from ckptool.formats import open_checkpoint

    bounds = Tolerance()
    for text in tolerance or []:
        bounds = parse_tolerance(text, bounds)
    before = open_checkpoint(old, select=select_old or select)
    after = open_checkpoint(new, select=select_new or select)
    found = _compare(before, after, only or [], bounds, keys_only, threads, quiet)
    names = (str(old), str(new))
    form = Format.JSON if json else form
    if emit is Emit.RECIPE:
        from ckptool.render.recipe import diff_recipe

        print_texts(diff_recipe(found, *names))
    elif form is not Format.TEXT:
        print_texts(_texts(found, names, form))
    else:
        from ckptool.render.text_diff import diff_lines

        screen = stdout_screen(color)
        print_lines(diff_lines(found, names, screen, verbose), screen, pager=not no_pager)
    return found.exit_code


def _compare(
    old: Checkpoint, new: Checkpoint, only: list[str], tolerance: Tolerance, keys_only: bool, threads: int, quiet: bool
) -> Diff:
    from ckptool.cli.progress import Progress
    from ckptool.compare.diff import compare

    with Progress("comparing", quiet) as progress:
        return compare(
            old, new, only=only, tolerance=tolerance, keys_only=keys_only, threads=threads, progress=progress
        )


def _texts(diff: Diff, names: tuple[str, str], form: Format) -> Iterable[str]:
    """The comparison in a format for machines or documents."""
    match form:
        case Format.NDJSON:
            from ckptool.render.ndjson import diff_ndjson

            return diff_ndjson(diff)
        case Format.MARKDOWN:
            from ckptool.render.markdown import diff_markdown

            return diff_markdown(diff, *names)
        case Format.LINES:
            from ckptool.render.lines import diff_lines

            return diff_lines(diff)
        case _:
            from ckptool.render.json import diff_json

            return diff_json(diff, *names)
