"""``ckptool transplant``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ckptool.cli.common import (
    Color,
    ColorOption,
    DebugOption,
    JsonOption,
    NoPagerOption,
    QuietOption,
    SelectOption,
    complete_keys,
)
from ckptool.cli.remap import complete_recipes
from ckptool.cli.reports import CI_FORMATS, ReportOption, add_summary, ci_texts, plain, report_screen, write_reports
from ckptool.cli.values import number_pairs, open_selected
from ckptool.cli.writing import (
    ForceOption,
    OutOption,
    PlanFormat,
    PlanFormatOption,
    Request,
    ShardOption,
    TiedOption,
    TiedOutput,
    VerboseOption,
    require_writable,
    say,
    write,
)
from ckptool.errors import Exit, OutputError, UsageError

if TYPE_CHECKING:
    from ckptool.models import Target, Verdict
    from ckptool.surgery.apply import Written
    from ckptool.surgery.transplant import Transplant

EPILOG = """\
Examples:
  ckptool transplant resnet50.pth --into torchvision:resnet50
  ckptool transplant resnet50.pth --into net.py:Net --drop "fc.*" -o net.pth
  ckptool transplant deit.pth --into timm:deit_base_patch16_384 --mismatch fit

Exit codes: 0 shown or written; 1 --strict, --min-coverage or the recipe's
expect is not met, nothing was written; 2 nothing would be loaded, or trouble"""

_PANEL = "Further files"


class MismatchPolicy(StrEnum):
    """What becomes of tensors of another shape."""

    SKIP = "skip"
    ERROR = "error"
    FIT = "fit"


@dataclass(frozen=True, slots=True)
class _Extras:
    """What is written or printed beside the weights."""

    recipe: Path | None
    freeze: Path | None
    snippet: bool
    arguments: Mapping[str, object]
    wrap: str | None
    depth: int | None


def transplant(
    path: Annotated[Path, typer.Argument(metavar="SOURCE", help="A checkpoint: a file, or a folder of shards.")],
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
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            "-r",
            metavar="RULE",
            help='"FROM -> TO", a recipe file, or a built-in recipe; repeats.',
            autocompletion=complete_recipes,
        ),
    ] = None,
    var: Annotated[
        list[str] | None, typer.Option("--var", metavar="NAME=NUMBER", help="A number for the recipe; repeats.")
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            "--drop", metavar="PATTERN", help="Leave these source keys out; repeats.", autocompletion=complete_keys
        ),
    ] = None,
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
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the model's own init.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 unless torch would load it strictly.")] = False,
    min_coverage: Annotated[
        float | None,
        typer.Option("--min-coverage", metavar="X", help="Exit 1 if less of the model's elements is filled, 0 to 1."),
    ] = None,
    select: SelectOption = None,
    ema: Annotated[bool, typer.Option("--ema", help="Take the moving average that the file holds.")] = False,
    out: OutOption = None,
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
    save_recipe: Annotated[
        Path | None,
        typer.Option(
            "--save-recipe", metavar="FILE", help="Write a recipe that does the same.", rich_help_panel=_PANEL
        ),
    ] = None,
    freeze_list: Annotated[
        Path | None,
        typer.Option(
            "--freeze-list", metavar="FILE", help="Write the names of what was filled.", rich_help_panel=_PANEL
        ),
    ] = None,
    snippet: Annotated[
        bool, typer.Option("--snippet", help="Print the lines of torch that load it.", rich_help_panel=_PANEL)
    ] = False,
    depth: Annotated[
        int | None,
        typer.Option("--depth", metavar="N", min=1, help="Levels of modules shown.", rich_help_panel="Output"),
    ] = None,
    form: PlanFormatOption = PlanFormat.TEXT,
    json: JsonOption = False,
    report: ReportOption = None,
    verbose: VerboseOption = False,
    color: ColorOption = Color.AUTO,
    no_pager: NoPagerOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> int:
    """Put pretrained weights into a modified model, and say what went where.

    Keys that are equal meet, wrapper and submodule prefixes are seen through, rules do the rest. What nothing fills
    keeps the model's init. Naming code as MODEL runs it; nothing of SOURCE is ever run. Without -o it shows what it
    would do.
    """
    from ckptool.surgery.recipe import recipe_of

    recipe = recipe_of(rules or [])
    fits, inits = _pairs(fit or [], "--fit", "pos_embed=grid"), _pairs(init or [], "--init", "fc.*=normal(0.001)")
    if min_coverage is not None and not 0 <= min_coverage <= 1:
        raise UsageError(f"--min-coverage {min_coverage:g} is no share", hint="it is between 0 and 1: 0.99")
    if recipe.source_files and path.is_dir():
        raise UsageError(
            f"{recipe.name} joins several files, which transplant does not",
            hint=f"first join them: ckptool remap {path} -r {recipe.name} -o JOINED",
        )
    source = open_selected(path, select if select is not None or ema else recipe.asks_for, ema)

    from ckptool.models import open_target, parse_model_args
    from ckptool.surgery.transplant import plan_transplant, require_loaded

    arguments = parse_model_args(model_arg or [])
    done = plan_transplant(
        source,
        open_target(into, arguments),
        recipe=recipe,
        drop=drop or [],
        mismatch=mismatch.value,
        fits=fits,
        init=inits,
        vars=number_pairs(var or [], "--var"),
        seed=seed,
        only_loaded=only_loaded,
        wrap=wrap,
        strict=strict,
        min_coverage=min_coverage,
    )
    if not done.plan.problems:
        require_loaded(done)
    request = Request(
        out,
        (str(path),),
        force,
        max_shard,
        tied.value,
        form=PlanFormat.JSON if json else form,
        color=color,
        no_pager=no_pager,
        verbose=verbose,
        quiet=quiet,
        reports=tuple(report or ()),
    )
    return _carry_out(done, request, _Extras(save_recipe, freeze_list, snippet, arguments, wrap, depth))


def _pairs(texts: Iterable[str], option: str, example: str) -> list[tuple[str, str]]:
    """("fc.*", "normal(0.001)") of a repeated ``--init "fc.*=normal(0.001)"``."""
    found = []
    for text in texts:
        pattern, equals, how = text.partition("=")
        if not equals or not pattern or not how:
            raise UsageError(f'{option} "{text}" is not PATTERN=HOW', hint=f'{option} "{example}"')
        found.append((pattern.strip(), how.strip()))
    return found


def _carry_out(done: Transplant, request: Request, extras: _Extras) -> int:
    """Shows a transplant and, if nothing speaks against it, writes what was asked for; gives the exit code."""
    plan = done.plan
    limit = require_writable(plan, request)
    texts = _texts(done, request, extras)
    _require_free(texts, done, request)
    if request.form is PlanFormat.TEXT:
        _show(done, request, extras)
    code = Exit.TROUBLE if plan.problems else Exit.DIFFERENT if plan.unmet else Exit.OK
    written, loads = None, None
    if code is Exit.OK:
        if request.out is not None:
            written = write(plan, request.out, request, limit)
            loads = _loads(done.target, request.out, extras.wrap)
        for file, text in texts.items():
            _write_text(file, text, request.force)
    files = [str(file) for file in texts] if code is Exit.OK else []
    _report(done, request, extras, written, loads, files, code)
    say([*plan.problems, *plan.unmet])
    return code


def _texts(done: Transplant, request: Request, extras: _Extras) -> dict[Path, str]:
    """The further files and what is to stand in them."""
    from ckptool.render.transplant_files import freeze_list
    from ckptool.render.transplant_recipe import transplant_recipe

    texts: dict[Path, str] = {}
    if extras.recipe is not None:
        texts[extras.recipe] = "".join(transplant_recipe(done, request.names[0], extras.recipe.name))
    if extras.freeze is not None:
        texts[extras.freeze] = "".join(freeze_list(done, request.names[0]))
    return texts


def _require_free(texts: Mapping[Path, str], done: Transplant, request: Request) -> None:
    """Refuses further files that could not be written, before anything is."""
    inputs = [file for side in done.plan.inputs for file in (side.path, *side.files)]
    for file in texts:
        if not file.parent.is_dir():
            raise OutputError(f"the folder {file.parent} does not exist", hint=f"mkdir -p {file.parent}", path=file)
        if file.is_dir():
            raise OutputError(f"{file} is a folder", hint="give the name of a file", path=file)
        if file.exists() and any(path.exists() and path.samefile(file) for path in inputs):
            raise OutputError(f"{file} is also an input; inputs are never written to", path=file)
        if file.exists() and not request.force:
            raise OutputError(f"{file} exists", hint="--force replaces it", path=file)


def _write_text(file: Path, text: str, force: bool) -> None:
    from ckptool.surgery.output import staged_file

    with staged_file(file, force=force) as (descriptor, _):
        os.write(descriptor, text.encode("utf-8", "surrogatepass"))


def _loads(target: Target, out: Path, wrap: str | None) -> Verdict:
    """What torch says of the file as it was written: its headers are read again."""
    from ckptool.formats import open_checkpoint
    from ckptool.models import strict_verdict

    again = open_checkpoint(out, wrap if wrap and out.suffix != ".safetensors" and out.is_file() else None)
    return strict_verdict(target, {key: tensor.spec for key, tensor in again.items()}, again.module_versions)


# ---------------------------------------------------------------------------------------------- saying it


def _show(done: Transplant, request: Request, extras: _Extras) -> None:
    from ckptool.cli.output import print_lines, stdout_screen
    from ckptool.render.text_transplant import transplant_lines

    screen = stdout_screen(request.color)
    lines = transplant_lines(done, screen, name=request.names[0], depth=extras.depth, verbose=request.verbose)
    print_lines(lines, screen, pager=request.out is None and not request.no_pager)


def _report(
    done: Transplant,
    request: Request,
    extras: _Extras,
    written: Written | None,
    loads: Verdict | None,
    files: Sequence[str],
    code: Exit,
) -> None:
    """What came of it, in the format asked for."""
    from ckptool.cli.output import print_lines, print_texts, stdout_screen

    name = request.names[0]
    lines = _snippet(done, request, extras) if extras.snippet and code is Exit.OK else None

    def texts(form: str) -> Iterable[str]:
        match form:
            case "json":
                from ckptool.render.json_transplant import transplant_json

                return transplant_json(done, name, written, loads, code, lines)
            case "markdown":
                from ckptool.render.markdown_transplant import transplant_markdown

                return transplant_markdown(done, name, written, loads, extras.depth, lines)
            case _:
                return _further_texts(done, name, form)

    if request.form is not PlanFormat.TEXT:
        print_texts(texts(request.form))
        if request.form is PlanFormat.GITHUB:
            from ckptool.checks.results import transplant_findings

            add_summary(transplant_findings(done, name), "transplant")
    elif code is Exit.OK:
        from ckptool.render.text_transplant import done_lines, nothing_lines

        screen = stdout_screen(request.color)
        if lines is not None:
            print_texts(["\n", lines, "\n"])
        if written is None or loads is None:
            print_lines(nothing_lines(files), screen, pager=False)
        else:
            print_lines(done_lines(done, written, str(request.out), loads, files, screen), screen, pager=False)
    write_reports(request.reports, texts)


def _further_texts(done: Transplant, name: str, form: str) -> Iterable[str]:
    """The transplant as findings for CI, as a page, or as plain text."""
    if form in CI_FORMATS:
        from ckptool.checks.results import ABOUT, transplant_findings

        return ci_texts(transplant_findings(done, name), form, "transplant", ABOUT)
    if form == "html":
        from ckptool.render.html_transplant import transplant_html

        return transplant_html(done, name)
    from ckptool.render.text_transplant import transplant_lines

    return plain(transplant_lines(done, report_screen(), name=name))


def _snippet(done: Transplant, request: Request, extras: _Extras) -> str:
    from ckptool.render.transplant_files import snippet

    return "".join(snippet(done, extras.arguments, request.out or Path("transplanted.pth"), extras.wrap))
