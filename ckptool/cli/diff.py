"""``ckptool diff``."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from ckptool.cli.common import (
    PATH,
    Color,
    ColorOption,
    DebugOption,
    JsonOption,
    NoPagerOption,
    OnlyOption,
    QuietOption,
    RulesOption,
    ThreadsOption,
)
from ckptool.cli.matching import AcceptOption, ExplainOption, Match, MatchOption, asked_for, require_match_for
from ckptool.cli.reports import FormatOption, ReportOption, form_of, require_reports, show_document, write_reports
from ckptool.cli.sharing import ReadPartOption, ReadTogetherOption, WorkOption, agreed, asked_reading, together
from ckptool.cli.values import exclude
from ckptool.core.errors import Exit

if TYPE_CHECKING:
    from ckptool.commands.diff.result import Diff
    from ckptool.core.checkpoint import Checkpoint
    from ckptool.values.delta import Tolerance
    from ckptool.values.mapped import Mapped


class Emit(StrEnum):
    """What else a comparison can be written as."""

    RECIPE = "recipe"


EPILOG = """\
Examples:
  ckptool diff old.pth new.safetensors
  ckptool diff run/model/ base.pth --only "layers.0.*" --tolerance rel=1e-3
  ckptool diff timm.pth hf.safetensors --match auto --emit recipe > rename.toml

Exit codes: 0 same; 1 different; 2 a file cannot be read"""


def diff(
    old: Annotated[
        PurePath, typer.Argument(path_type=PATH, metavar="OLD", help="A checkpoint: a file, or a folder of shards.")
    ],
    new: Annotated[PurePath, typer.Argument(path_type=PATH, metavar="NEW", help="Another one, in any format.")],
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
    rules: RulesOption = None,
    match: MatchOption = Match.NAMES,
    accept: AcceptOption = None,
    explain: ExplainOption = None,
    keys_only: Annotated[bool, typer.Option("--keys-only", help="Compare keys, shapes and dtypes only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="A row per tensor.")] = False,
    emit: Annotated[
        Emit | None, typer.Option("--emit", metavar="WHAT", help="recipe: renames and drops as TOML for remap.")
    ] = None,
    threads: ThreadsOption = 2,
    distributed: ReadTogetherOption = False,
    part: ReadPartOption = None,
    work: WorkOption = None,
    form: FormatOption = "text",
    json: JsonOption = False,
    report: ReportOption = None,
    color: ColorOption = Color.AUTO,
    no_pager: NoPagerOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> int:
    """How two checkpoints differ: keys, shapes, dtypes and values, in any two formats.

    Wrapper prefixes are seen through, renamed tensors are found by their bytes. Rules (-r) are applied to OLD first.
    With --match auto the tensors of two
    spellings of one architecture stand against each other, split, joined and transposed as it takes.
    """
    from ckptool.commands.diff.comparison import parse_tolerance
    from ckptool.commands.diff.logical import logical_sides
    from ckptool.formats.opening import open_checkpoint
    from ckptool.recipes.recipe import recipe_of
    from ckptool.report.document_diff import diff_document
    from ckptool.values.delta import Tolerance

    exclude("values are not compared: leave out one of them", {"--keys-only": keys_only, "--tolerance": tolerance})
    reading = asked_reading(part, distributed, work, headers="leave out --keys-only" if keys_only else None)
    form = form_of(form, json)
    emitted = None if emit is None else f"--emit {emit.value}"
    exclude("a recipe is TOML: leave out the format", {f"{emitted}": emitted, f"--format {form}": form != "text"})
    bounds = Tolerance()
    for text in tolerance or []:
        bounds = parse_tolerance(text, bounds)
    files = report or []
    require_reports(files, [old, new])
    before = open_checkpoint(old, select=select_old or select)
    after = open_checkpoint(new, select=select_new or select)
    require_reports(files, map(PurePath, (*before.paths, *after.paths)))
    if rules or match is Match.AUTO:
        before, after = logical_sides(before, after)
    level = asked_for(match is Match.AUTO, accept, "--match auto")
    require_match_for(explain, is_auto=level is not None, option="--match auto")
    recipe, found_rules = recipe_of(rules or []), None
    if level is not None:
        from ckptool.commands.automatic import explained, match_checkpoints

        found_rules = explained(match_checkpoints(before, after, recipe, level), explain or (), old)
        recipe = found_rules.recipe
    mapped = None
    if recipe.stages:
        from ckptool.commands.automatic import mapped_by

        mapped = mapped_by(recipe, before, after)

    def compared() -> Diff:
        agreed(reading, ("diff", str(old), str(new), only, bounds, rules, match.value, accept), before, after)
        return _compare(before, after, only or [], bounds, keys_only, threads, quiet, mapped)

    found = together(compared, reading)
    if found is None:
        return Exit.OK
    names = (str(old), str(new))
    document = diff_document(found, names, found_rules, verbose)
    if emit is Emit.RECIPE:
        from ckptool.cli.output import print_texts
        from ckptool.report.match_recipe import match_recipe
        from ckptool.report.recipe import diff_recipe

        rules_text = [] if found_rules is None else [match_recipe(found_rules.report, found_rules.accept)]
        print_texts(rules_text or diff_recipe(found, *names))
    else:
        show_document(document, form, color, pager=not no_pager)
    write_reports(files, document)
    return found.exit_code


def _compare(
    old: Checkpoint,
    new: Checkpoint,
    only: list[str],
    tolerance: Tolerance,
    keys_only: bool,
    threads: int,
    quiet: bool,
    mapped: Sequence[Mapped] | None,
) -> Diff:
    from ckptool.cli.progress import Progress
    from ckptool.commands.diff.comparison import compare

    with Progress("comparing", quiet) as progress:
        return compare(
            old,
            new,
            only=only,
            tolerance=tolerance,
            keys_only=keys_only,
            threads=threads,
            progress=progress,
            mapped=mapped,
        )
