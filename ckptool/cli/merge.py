"""``ckptool merge``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    QuietOption,
    SelectOption,
)
from ckptool.cli.reports import FormatOption, ReportOption, form_of
from ckptool.cli.values import decoded, exclude, number_pairs, open_selected, print_list
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
    from ckptool.commands.merging.merge import Keys
    from ckptool.core.checkpoint import Checkpoint
    from ckptool.core.plan import Plan

EPILOG = """\
Examples:
  ckptool merge base.pth tuned.pth -o out.pth
  ckptool merge step-*.pth --last 5 --method linear -o average.safetensors
  ckptool merge base.safetensors --lora adapter/ -o merged.safetensors

Exit codes: 0 shown or written; 2 it cannot be written as asked, nothing was"""


def complete_methods(incomplete: str) -> list[str]:
    """Names of merge methods."""
    from ckptool.commands.merging.methods import METHODS

    return [name for name in METHODS if name.startswith(incomplete)]


def _list_methods(asked: bool) -> None:
    if not asked:
        return
    from ckptool.commands.merging.methods import METHODS

    rows = []
    for method in METHODS.values():
        options = [f"{name}={value:g}" for name, value in method.options.items()]
        needs = ["--base", *options] if method.needs_base else options
        rows.append((method.name, method.about + (f" ({', '.join(needs)})" if needs else "")))
    print_list("method", "what it does (and its --param options)", rows)
    raise typer.Exit


def merge(
    paths: Annotated[
        list[PurePath], typer.Argument(path_type=PATH, metavar="IN...", help="Checkpoints; later ones win.")
    ],
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="Mix the tensors: linear, slerp, ties, ...",
            autocompletion=complete_methods,
        ),
    ] = None,
    methods: Annotated[
        bool, typer.Option("--methods", callback=_list_methods, is_eager=True, help="List the methods.")
    ] = False,
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="W,W", help="A number for each input: 0.5,0.3,0.2.")
    ] = None,
    base: Annotated[
        PurePath | None,
        typer.Option("--base", path_type=PATH, metavar="FILE", help="The model that all inputs were tuned from."),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="An option of the method; repeats.")
    ] = None,
    intersect: Annotated[bool, typer.Option("--intersect", help="Leave out keys that some inputs lack.")] = False,
    union: Annotated[bool, typer.Option("--union", help="Keep them, from the inputs that have them.")] = False,
    last: Annotated[
        int | None, typer.Option("--last", metavar="N", min=1, help="Only the last N inputs, 10 after 9.")
    ] = None,
    lora: Annotated[
        PurePath | None,
        typer.Option("--lora", path_type=PATH, metavar="ADAPTER", help="Merge this LoRA adapter into the one input."),
    ] = None,
    scale: Annotated[
        float | None, typer.Option("--scale", metavar="X", help="A further factor for the adapter.")
    ] = None,
    patch: Annotated[
        list[PurePath] | None,
        typer.Option("--patch", path_type=PATH, metavar="FILE", help="Apply this patch to the one input; repeats."),
    ] = None,
    dtype: DtypeOption = None,
    dequantize: DequantizeOption = False,
    select: SelectOption = None,
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
    """Make one checkpoint of several.

    Without a method it is the union in which later files win. With one, tensors of the same key are mixed, in float64,
    rounded once; integers are never mixed. Without -o it shows the plan and writes nothing.
    """
    chosen = _last(paths, last)

    def opened(path: PurePath) -> Checkpoint:
        return decoded(open_selected(path, select), dequantize, dtype)

    others: dict[str, object] = {"--method": method, "--weights": weights, "--base": base, "--param": param}
    others |= {"--intersect": intersect, "--union": union}
    if patch:
        for option, given in {**others, "--lora": lora, "--scale": scale, "--dtype": dtype}.items():
            exclude("apply the patch first", {"--patch": patch, option: given})
        plan, names = _patch_plan(chosen, patch, opened, quiet)
    elif lora is not None:
        for option, given in others.items():
            exclude("merge the adapter first", {"--lora": lora, option: given})
        plan, names = _lora_plan(chosen, lora, 1.0 if scale is None else scale, dtype, opened)
    elif scale is not None:
        raise UsageError("--scale is for an adapter", hint="--lora ADAPTER --scale 0.5, or --method and --param")
    else:
        numbers = None if weights is None else _numbers(weights)
        keys = _keys(intersect, union, method)
        plan, names = _merge_plan(chosen, method, numbers, base, param or [], keys, dtype, opened)
    request = Request(
        out,
        names,
        to,
        force,
        max_shard,
        choices_of(
            only_weights,
            drop_optimizer,
            optimizer_as_is,
            keep_unknown,
            Choices(tied=tied.value, allow=tuple(allow or ()), wrap=wrap),
        ),
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
    return carry_out(plan, request)


def _merge_plan(
    paths: Sequence[PurePath],
    method: str | None,
    weights: Sequence[float] | None,
    base: PurePath | None,
    params: Sequence[str],
    keys: Keys,
    dtype: str | None,
    opened: Callable[[PurePath], Checkpoint],
) -> tuple[Plan, tuple[str, ...]]:
    from ckptool.commands.merging.merge import plan_merge

    if len(paths) < 2:
        raise UsageError("there is nothing to merge: one input", hint="give two or more, or --lora ADAPTER")
    options = number_pairs(params, "--param")
    inputs: list[Checkpoint] = [opened(path) for path in paths]
    start = None if base is None else opened(base)
    plan = plan_merge(inputs, method=method, weights=weights, base=start, params=options, keys=keys, dtype=dtype)
    return plan, tuple(str(path) for path in (*paths, *([base] if base else [])))


def _lora_plan(
    paths: Sequence[PurePath],
    adapter: PurePath,
    scale: float,
    dtype: str | None,
    opened: Callable[[PurePath], Checkpoint],
) -> tuple[Plan, tuple[str, ...]]:
    from ckptool.commands.merging.lora import plan_adapter

    if len(paths) != 1:
        raise UsageError(f"--lora takes one base model, not {len(paths)}", hint="merge the models first")
    plan = plan_adapter(opened(paths[0]), open_selected(adapter, None), scale=scale, dtype=dtype)
    return plan, (str(paths[0]), str(adapter))


def _patch_plan(
    paths: Sequence[PurePath], patches: Sequence[PurePath], opened: Callable[[PurePath], Checkpoint], quiet: bool
) -> tuple[Plan, tuple[str, ...]]:
    from ckptool.cli.progress import Progress
    from ckptool.commands.patching.apply import plan_patches

    if len(paths) != 1:
        raise UsageError(f"--patch takes one base, not {len(paths)}", hint="name the checkpoint that it was made from")
    with Progress("comparing digests", quiet) as progress:
        plan = plan_patches(opened(paths[0]), [open_selected(path, None) for path in patches], progress)
    return plan, (str(paths[0]),)


def _last(paths: Sequence[PurePath], count: int | None) -> list[PurePath]:
    """The last of the inputs by their names; all of them without a number."""
    if count is None:
        return list(paths)
    from ckptool.commands.merging.merge import last_checkpoints

    if count > len(paths):
        raise UsageError(f"--last {count} of {len(paths)} inputs", hint="name more inputs: run/step-*.pth")
    return [PurePath(path) for path in last_checkpoints([str(path) for path in paths], count)]


def _keys(intersect: bool, union: bool, method: str | None) -> Keys:
    if intersect and union:
        raise UsageError("--intersect and --union exclude each other", hint="give one of them")
    if method is None and (intersect or union):
        option = "--intersect" if intersect else "--union"
        raise UsageError(f"{option} needs a --method; without one, later files win key by key", hint="leave it out")
    return "intersect" if intersect else "union" if union else "exact"


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f'--weights "{text}" are not numbers', hint="--weights 0.5,0.3,0.2") from None
