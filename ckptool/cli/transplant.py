"""``ckptool transplant``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum
from pathlib import PurePath
from typing import Annotated

import typer

from ckptool.cli.common import (
    PATH,
    Color,
    ColorOption,
    DebugOption,
    EmaOption,
    JsonOption,
    NoPagerOption,
    QuietOption,
    RulesOption,
    SelectOption,
    complete_keys,
)
from ckptool.cli.matching import AcceptOption, ExplainOption, Match, MatchOption, asked_for, require_match_for
from ckptool.cli.probing import ProbeArgOption, ProbeInputOption, ProbeOption, asked_probe
from ckptool.cli.reports import FormatOption, ReportOption, form_of
from ckptool.cli.transplant_output import Extras, carry_out
from ckptool.cli.values import decoded, exclude, open_selected, recipe_values
from ckptool.cli.writing import (
    AllowOption,
    DequantizeOption,
    DistributedOption,
    DryRunOption,
    ForceOption,
    OutOption,
    PartOption,
    Request,
    ResumeOption,
    ShardOption,
    TiedOption,
    TiedOutput,
    ToOption,
    VerboseOption,
    asked_share,
)
from ckptool.commands.beside.choices import Choices
from ckptool.core.errors import UsageError
from ckptool.core.shell import shell_quote
from ckptool.storage.paths import is_folder

EPILOG = """\
Examples:
  ckptool transplant resnet50.pth --into net.py:Net --drop "fc.*" -o net.pth
  ckptool transplant deit.pth --into timm:deit_base_patch16_384 --mismatch fit
  ckptool transplant theirs.pth --into net.py:Net --match auto

Exit codes: 0 shown or written; 1 --strict, --min-coverage, --probe or the
recipe's expect is not met, nothing was written; 2 nothing would be loaded, or
trouble"""

_PANEL = "Further files"


class MismatchPolicy(StrEnum):
    """What to do with tensors of another shape."""

    SKIP = "skip"
    ERROR = "error"
    FIT = "fit"


def transplant(
    path: Annotated[
        PurePath, typer.Argument(path_type=PATH, metavar="SOURCE", help="A checkpoint: a file, or a folder of shards.")
    ],
    into: Annotated[
        str,
        typer.Option(
            "--into",
            metavar="MODEL",
            help="torchvision:NAME, timm:NAME, hf:FOLDER, file.py:CLASS, package.module:FUNCTION, or a checkpoint.",
        ),
    ],
    model_arg: Annotated[
        list[str] | None,
        typer.Option("--model-arg", metavar="NAME=VALUE", help="An argument for the model; repeats."),
    ] = None,
    rules: RulesOption = None,
    var: Annotated[
        list[str] | None, typer.Option("--var", metavar="NAME=NUMBER", help="A number for the recipe; repeats.")
    ] = None,
    backwards: Annotated[bool, typer.Option("--reverse", help="Do the rules backwards.")] = False,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            "--drop", metavar="PATTERN", help="Leave these source keys out; repeats.", autocompletion=complete_keys
        ),
    ] = None,
    match: MatchOption = Match.NAMES,
    accept: AcceptOption = None,
    explain: ExplainOption = None,
    probe: ProbeOption = None,
    probe_arg: ProbeArgOption = None,
    probe_input: ProbeInputOption = None,
    mismatch: Annotated[
        MismatchPolicy,
        typer.Option("--mismatch", metavar="POLICY", help="Tensors of another shape: skip, error or fit."),
    ] = MismatchPolicy.SKIP,
    fit: Annotated[
        list[str] | None,
        typer.Option(
            "--fit",
            metavar="PATTERN=METHOD",
            help='How model keys are fitted, as in "pos_embed=grid(prefix=1)"; repeats.',
        ),
    ] = None,
    init: Annotated[
        list[str] | None,
        typer.Option(
            "--init",
            metavar="PATTERN=HOW",
            help="What model keys get that nothing fills: zeros, ones, normal(0.001), copy:KEY; repeats.",
        ),
    ] = None,
    new: Annotated[
        list[str] | None,
        typer.Option(
            "--new", metavar="PATTERN", help="Model keys that are meant to start anew: no gate counts them; repeats."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the model's own init.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 unless torch would load it strictly.")] = False,
    min_coverage: Annotated[
        float | None,
        typer.Option(
            "--min-coverage", metavar="X", help="Exit 1 if less is filled, of elements, tensors or any module, 0 to 1."
        ),
    ] = None,
    select: SelectOption = None,
    ema: EmaOption = False,
    out: OutOption = None,
    to: ToOption = None,
    dequantize: DequantizeOption = False,
    only_loaded: Annotated[
        bool, typer.Option("--only-loaded", help="Write only what came from the source.", rich_help_panel="Writing")
    ] = False,
    wrap: Annotated[
        str | None,
        typer.Option("--wrap", metavar="KEY", help="Nest the weights under a key.", rich_help_panel="Writing"),
    ] = None,
    force: ForceOption = False,
    max_shard: ShardOption = None,
    tied: TiedOption = TiedOutput.CLONE,
    dry_run: DryRunOption = False,
    distributed: DistributedOption = False,
    part: PartOption = None,
    resume: ResumeOption = False,
    save_recipe: Annotated[
        PurePath | None,
        typer.Option(
            "--save-recipe",
            path_type=PATH,
            metavar="FILE",
            help="Write a recipe that does the same.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    freeze_list: Annotated[
        PurePath | None,
        typer.Option(
            "--freeze-list",
            path_type=PATH,
            metavar="FILE",
            help="Write the names of what was filled.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    snippet: Annotated[
        bool, typer.Option("--snippet", help="Print the lines of torch that load it.", rich_help_panel=_PANEL)
    ] = False,
    depth: Annotated[
        int | None,
        typer.Option("--depth", metavar="N", min=1, help="Levels of modules shown.", rich_help_panel="Output"),
    ] = None,
    allow: AllowOption = None,
    form: FormatOption = "text",
    json: JsonOption = False,
    report: ReportOption = None,
    verbose: VerboseOption = False,
    color: ColorOption = Color.AUTO,
    no_pager: NoPagerOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> int:
    """Put pretrained weights into a modified model, and say what went where.

    Keys that are equal meet, wrapper and submodule prefixes are seen through, rules do the rest; --match auto finds
    rules where names differ. What nothing fills
    keeps the model's init. Naming code as MODEL runs it; nothing of SOURCE is ever run. Without -o it shows the
    plan and writes nothing.
    """
    from ckptool.recipes.binding import with_numbers
    from ckptool.recipes.recipe import recipe_of
    from ckptool.recipes.reverse import reverse

    require_match_for(explain, is_auto=match is Match.AUTO, option="--match auto")
    exclude("--only-loaded writes nothing that --init makes", {"--only-loaded": only_loaded, "--init": init})
    recipe, numbers = recipe_of(rules or []).naming(recipe_values(var or []))
    proof = asked_probe(probe, probe_arg, probe_input)
    fits, inits = _pairs(fit or [], "--fit", "pos_embed=grid"), _pairs(init or [], "--init", "fc.*=normal(0.001)")
    if min_coverage is not None and not 0 <= min_coverage <= 1:
        raise UsageError(f"--min-coverage must be between 0 and 1, not {min_coverage:g}", hint="--min-coverage 0.99")
    if recipe.source_files and is_folder(path):
        raise UsageError(
            f"{recipe.name} joins several files, which transplant does not",
            hint=f"first join them: ckptool remap {shell_quote(path)} -r {shell_quote(recipe.name)} -o JOINED",
        )
    if backwards:
        if not rules:
            raise UsageError("--reverse without rules: nothing to do backwards", hint="give them: -r RECIPE --reverse")
        known = {name: value for name, value in recipe.vars.items() if not isinstance(value, str)}
        recipe = reverse(with_numbers(recipe, {**known, **numbers})).recipe
    source = open_selected(path, select if select is not None or ema else recipe.asks_for, ema)
    source = decoded(source, dequantize)

    from ckptool.commands.automatic import explained
    from ckptool.commands.transplant.advice import with_suggestions
    from ckptool.commands.transplant.gates import loads, require_loaded
    from ckptool.commands.transplant.planning import plan_transplant
    from ckptool.commands.transplant.result import Asked
    from ckptool.engine.dequantize import dequantized
    from ckptool.models import open_target, parse_model_args, target_from

    arguments = parse_model_args(model_arg or [])
    target = open_target(into, arguments)
    if dequantize and target.checkpoint is not None:
        logical = dequantized(target.checkpoint)
        target = target if logical is target.checkpoint else replace(target_from(logical), name=target.name)
    asked = Asked(
        recipe,
        tuple(drop or ()),
        mismatch.value,
        fits=tuple(fits),
        init=tuple(inits),
        new=tuple(new or ()),
        vars=numbers,
        seed=seed,
        only_loaded=only_loaded,
        wrap=wrap,
        strict=strict,
        min_coverage=min_coverage,
        match=asked_for(match is Match.AUTO, accept, "--match auto"),
    )
    done = plan_transplant(source, target, asked)
    if done.match is not None:
        done = replace(done, match=explained(done.match, explain or (), path))
    typed = {
        "--model-arg": model_arg,
        "--var": var,
        "--drop": drop,
        "--fit": fit,
        "--init": init,
        "--new": new,
        "-r": rules,
    }
    plain = done if done.match is None or loads(done) else plan_transplant(source, target, replace(asked, match=None))
    more = {
        "--select": select,
        "--match": None if plain.match is None else "auto",
        "--mismatch": None if mismatch is MismatchPolicy.SKIP else mismatch.value,
    }
    typed |= {option: [value] for option, value in more.items() if value is not None}
    repeated = [word for option, values in typed.items() for value in values or () for word in (option, value)]
    turned = ["--reverse"] if backwards else []
    flags = [*turned, *["--ema"] * ema, *["--dequantize"] * dequantize]
    command = ["transplant", str(path), "--into", into, *repeated, *flags]
    done = with_suggestions(done, command, plain)
    if not done.plan.problems:
        require_loaded(done, command)
    request = Request(
        out,
        (str(path),),
        to,
        force,
        max_shard,
        Choices(tied=tied.value, allow=tuple(allow or ())),
        dry_run=dry_run,
        form=form_of(form, json),
        color=color,
        no_pager=no_pager,
        verbose=verbose,
        quiet=quiet,
        reports=tuple(report or ()),
        share=asked_share(part, distributed, resume, out),
        resume=resume,
        dequantize=dequantize,
    )
    extras = Extras(save_recipe, freeze_list, snippet, arguments, wrap, depth, strict, seed, proof)
    return carry_out(done, request, extras)


def _pairs(texts: Iterable[str], option: str, example: str) -> list[tuple[str, str]]:
    """("fc.*", "normal(0.001)") of a repeated ``--init "fc.*=normal(0.001)"``."""
    found = []
    for text in texts:
        pattern, equals, how = text.partition("=")
        if not equals or not pattern or not how:
            raise UsageError(f'{option} "{text}" is not PATTERN=HOW', hint=f'{option} "{example}"')
        found.append((pattern.strip(), how.strip()))
    return found
