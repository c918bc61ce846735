"""``ckptool filter``."""

from __future__ import annotations

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
    SelectOption,
    complete_keys,
)
from ckptool.cli.reports import FormatOption, ReportOption, form_of
from ckptool.cli.values import decoded, in_order, open_selected, value_options
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

EPILOG = """\
Examples:
  ckptool filter resnet18.pth --drop "fc.*" -o body.pth
  ckptool filter training.ckpt --ema --dtype bf16 -o ema.safetensors
  ckptool filter big.pth -o big/ --max-shard-size 5GB

Exit codes: 0 shown or written; 2 it cannot be written as asked, nothing was"""


def filter(
    context: typer.Context,
    path: Annotated[
        PurePath, typer.Argument(path_type=PATH, metavar="IN", help="A checkpoint: a file, or a folder of shards.")
    ],
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="PATTERN", help="Keep these keys; repeats.", autocompletion=complete_keys),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            "--drop", metavar="PATTERN", help="Leave these out; repeats, the later wins.", autocompletion=complete_keys
        ),
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
    """Choose tensors by their keys, cast them, write them in any format.

    Without patterns it converts, joins and splits: the ending of -o says the format. Without -o it shows the
    plan and writes nothing. Bytes that do not change are copied as they are.
    """
    from ckptool.commands.filter import plan_filter

    typed = in_order(context.obj, {"--keep": keep or [], "--drop": drop or []}, value_options(context))
    checkpoint = decoded(open_selected(path, select, ema), dequantize, dtype)
    plan = plan_filter(checkpoint, [(option[2:], pattern) for option, pattern in typed], dtype=dtype)
    request = Request(
        out,
        (str(path),),
        to,
        force,
        max_shard,
        choices_of(
            only_weights,
            drop_optimizer,
            optimizer_as_is,
            keep_unknown,
            Choices(tied=tied.value, selected=ema or select is not None, allow=tuple(allow or ()), wrap=wrap),
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
