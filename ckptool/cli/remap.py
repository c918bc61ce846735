"""``ckptool remap``."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

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
)
from ckptool.cli.matching import (
    AcceptOption,
    AutoOption,
    ExplainOption,
    Match,
    MatchOption,
    asked_for,
    require_match_for,
)
from ckptool.cli.output import print_texts
from ckptool.cli.reports import FormatOption, ReportOption, form_of
from ckptool.cli.values import decoded, exclude, open_selected, print_list, recipe_values
from ckptool.cli.writing import (
    AllowOption,
    DequantizeOption,
    DistributedOption,
    DropOptimizerOption,
    DryRunOption,
    DtypeOption,
    ForceOption,
    KeepOptimizerOption,
    KeepUnknownOption,
    OutOption,
    PartOption,
    Request,
    ResumeOption,
    ShardOption,
    TiedOption,
    TiedOutput,
    ToOption,
    VerboseOption,
    WeightsOnlyOption,
    WrapOption,
    asked_share,
    carry_out,
    choices_of,
)
from ckptool.commands.beside.choices import Choices
from ckptool.core.errors import UsageError

if TYPE_CHECKING:
    from ckptool.commands.vocabulary import Tokenizers

EPILOG = """\
Examples:
  ckptool remap old.pth -r strip-wrappers -r ".gamma -> .weight" -o plain.pth
  ckptool remap vit.pth -r torchvision-vit-to-timm --like timm.pth --check
  ckptool remap vit.pth --auto --like timm.pth --save-recipe vit-to-timm.toml

Exit codes: 0 shown or written; 1 the result does not match what the recipe
expects; 2 it cannot be written as asked, nothing was"""


def _list_recipes(context: typer.Context, asked: bool) -> None:
    """List the built-in recipes, or print the one whose name follows the option."""
    if not asked:
        return
    from ckptool.recipes.recipe import builtin_recipes, builtin_text, load_recipe

    arguments = context.obj
    named = arguments[arguments.index("--recipes") + 1 :][:1]
    if named and not named[0].startswith("-"):
        print_texts([builtin_text(named[0])])
        raise typer.Exit
    print_list("recipe", "what it does", [(name, load_recipe(name).about) for name in builtin_recipes()])
    raise typer.Exit


def remap(
    path: Annotated[
        PurePath, typer.Argument(path_type=PATH, metavar="IN", help="A checkpoint: a file, or a folder of shards.")
    ],
    rules: RulesOption = None,
    recipes: Annotated[
        bool,
        typer.Option(
            "--recipes",
            callback=_list_recipes,
            is_eager=True,
            help="List the built-in recipes; --recipes NAME prints one.",
        ),
    ] = False,
    var: Annotated[
        list[str] | None,
        typer.Option("--var", metavar="NAME=NUMBER", help="A number for the recipe, or a list's name; repeats."),
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="Apply the recipe backwards.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if the result does not match.")] = False,
    like: Annotated[
        PurePath | None,
        typer.Option(
            "--like", path_type=PATH, metavar="CHECKPOINT", help="The keys and shapes that the result must have."
        ),
    ] = None,
    auto: AutoOption = False,
    match: MatchOption = Match.NAMES,
    explain: ExplainOption = None,
    accept: AcceptOption = None,
    save_recipe: Annotated[
        PurePath | None,
        typer.Option(
            "--save-recipe",
            path_type=PATH,
            metavar="FILE",
            help="Write the rules that --auto found.",
            rich_help_panel="Matching",
        ),
    ] = None,
    tokenizer: Annotated[
        PurePath | None,
        typer.Option(
            "--tokenizer",
            path_type=PATH,
            metavar="NEW",
            help="A tokenizer, file or folder: rows of the embeddings follow its tokens, new ones are the mean.",
        ),
    ] = None,
    old_tokenizer: Annotated[
        PurePath | None,
        typer.Option(
            "--old-tokenizer", path_type=PATH, metavar="OLD", help="The tokenizer of IN; by default the one beside it."
        ),
    ] = None,
    vocab_rows: Annotated[
        int | None,
        typer.Option("--vocab-rows", metavar="N", min=1, help="Rows of the embeddings, if more than --tokenizer has."),
    ] = None,
    dtype: DtypeOption = None,
    dequantize: DequantizeOption = False,
    select: SelectOption = None,
    ema: EmaOption = False,
    out: OutOption = None,
    to: ToOption = None,
    force: ForceOption = False,
    max_shard: ShardOption = None,
    tied: TiedOption = TiedOutput.CLONE,
    only_weights: WeightsOnlyOption = False,
    drop_optimizer: DropOptimizerOption = False,
    optimizer_as_is: KeepOptimizerOption = False,
    keep_unknown: KeepUnknownOption = False,
    dry_run: DryRunOption = False,
    wrap: WrapOption = None,
    allow: AllowOption = None,
    distributed: DistributedOption = False,
    part: PartOption = None,
    resume: ResumeOption = False,
    form: FormatOption = "text",
    json: JsonOption = False,
    report: ReportOption = None,
    verbose: VerboseOption = False,
    color: ColorOption = Color.AUTO,
    no_pager: NoPagerOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> int:
    """Rename keys, and split, join, transpose or compute their tensors, by rules.

    A rule is FROM -> TO, part by part: "module. ->" takes a prefix off, "fc. -> head." renames a module, "{k**}.beta ->
    {k**}.bias" a last part, "fc.{k**} -> !" drops. ckptool help recipes has the whole
    language. Without -o it shows the plan and writes nothing.
    """
    from ckptool.commands.automatic import explained
    from ckptool.commands.remap import match_remap, open_sources, plan_remap
    from ckptool.formats.opening import open_checkpoint
    from ckptool.recipes.recipe import recipe_of
    from ckptool.report.match_recipe import match_recipe

    exclude("--check writes nothing: leave out one of them", {"--check": check, "--save-recipe": save_recipe})
    auto = auto or match is Match.AUTO
    level = asked_for(auto, accept, "--auto --like CHECKPOINT")
    require_match_for(explain, is_auto=auto, option="--auto --like CHECKPOINT")
    _require_rules(rules or tokenizer, like, save_recipe, auto=auto, reverse=reverse)
    tokens = _tokenizers(path, tokenizer, old_tokenizer, vocab_rows)
    recipe = recipe_of(rules or [])
    sources, prefixes = ((open_selected(path, select, ema),), ()) if ema else open_sources(path, recipe, select)
    wanted = dtype or (None if reverse else recipe.output_dtype)
    sources = tuple(decoded(source, dequantize, wanted) for source in sources)
    target = None if like is None else open_checkpoint(like)
    numbers = recipe_values(var or [])
    found, texts = None, dict[PurePath, str]()
    if level is not None and target is not None:
        found = match_remap(sources, recipe, target, prefixes=prefixes, vars=numbers, accept=level)
        recipe, found = found.recipe, explained(found, explain or (), path)
        if save_recipe is not None:
            texts[save_recipe] = match_recipe(found.report, found.accept)
    plan = plan_remap(
        sources, recipe, backwards=reverse, prefixes=prefixes, vars=numbers, like=target, dtype=dtype, tokens=tokens
    )
    request = Request(
        out,
        (str(path),) if len(sources) == 1 else tuple(str(source.path) for source in sources),
        to,
        force,
        _shard_of(max_shard, recipe.output_max_shard, out, to),
        choices_of(
            only_weights,
            drop_optimizer,
            optimizer_as_is,
            keep_unknown,
            Choices(tied=tied.value, selected=ema or select is not None, allow=tuple(allow or ()), wrap=wrap),
        ),
        check,
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
        texts=texts,
        also_read=() if target is None else tuple(map(PurePath, target.paths)),
    )
    return carry_out(plan, request, found)


def _require_rules(
    rules: list[str] | PurePath | None,
    like: PurePath | None,
    save_recipe: PurePath | None,
    *,
    auto: bool,
    reverse: bool,
) -> None:
    """Refuses what says too little or two things at once."""
    if not rules and not auto:
        raise UsageError(
            "there is no rule", hint='give one: -r "module. ->"; the built-in ones: ckptool remap --recipes'
        )
    if auto and like is None:
        raise UsageError("--auto needs the keys of the result", hint="--auto --like CHECKPOINT")
    if auto and reverse:
        raise UsageError("--reverse turns a recipe, --auto finds one", hint="swap IN and the checkpoint of --like")
    if save_recipe is not None and not auto:
        raise UsageError("--save-recipe writes what --auto found", hint="--auto --like CHECKPOINT")


def _tokenizers(path: PurePath, new: PurePath | None, old: PurePath | None, rows: int | None) -> Tokenizers | None:
    """Both vocabularies, if --tokenizer asks for another."""
    if new is None:
        if old is not None or rows is not None:
            raise UsageError("--old-tokenizer and --vocab-rows need the new tokenizer", hint="--tokenizer NEW")
        return None
    from ckptool.commands.vocabulary import tokenizers
    from ckptool.storage.locate import locate_folder

    return tokenizers(new, old or locate_folder(path).path, rows)


def _shard_of(asked: str | None, said: str | None, out: PurePath | None, to: str | None) -> str | None:
    """What --max-shard-size says; else what the recipe says, which is for folders only."""
    if asked is not None or said is None or out is None:
        return asked
    from ckptool.engine.encode import container_of, writer_named

    return said if writer_named(container_of(out, to)).is_folder else None
