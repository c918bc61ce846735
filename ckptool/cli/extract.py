"""``ckptool extract``."""

from __future__ import annotations

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
    ThreadsOption,
)
from ckptool.cli.reports import (
    READING_FORMATS,
    ReadingFormatOption,
    ReadingReportOption,
    form_of,
    require_reports,
    show_document,
    write_reports,
)
from ckptool.cli.values import open_selected
from ckptool.cli.writing import ForceOption
from ckptool.core.errors import Exit, UsageError

if TYPE_CHECKING:
    from ckptool.commands.patching.extract import Extracted
    from ckptool.commands.patching.lora_result import ExtractedLora, LoraOptions
    from ckptool.core.checkpoint import Checkpoint

EPILOG = """\
Examples:
  ckptool extract base.safetensors tuned.safetensors
  ckptool extract base/ tuned/ -o tuned.patch.safetensors
  ckptool merge base/ --patch tuned.patch.safetensors -o tuned2/
  ckptool extract base/ tuned/ --lora --rank 16 -o adapter/

Exit codes: 0 shown or written; 2 trouble"""


def extract(
    base: Annotated[
        PurePath, typer.Argument(path_type=PATH, metavar="BASE", help="What the patch will be applied to.")
    ],
    tuned: Annotated[PurePath, typer.Argument(path_type=PATH, metavar="TUNED", help="What comes out then.")],
    select: SelectOption = None,
    out: Annotated[
        PurePath | None,
        typer.Option(
            "--output",
            "-o",
            path_type=PATH,
            metavar="PATH",
            help="Write it: a .safetensors file; with --lora a folder.",
            rich_help_panel="Writing",
        ),
    ] = None,
    force: ForceOption = False,
    lora: Annotated[
        bool, typer.Option("--lora", help="Make a LoRA adapter, a folder for peft, in place of a patch.")
    ] = False,
    rank: Annotated[
        int | None, typer.Option("--rank", metavar="N", min=1, help="With --lora: the largest rank of a layer.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", metavar="DTYPE", help="With --lora: of the factors; float32 by default.")
    ] = None,
    modules_to_save: Annotated[
        bool,
        typer.Option("--modules-to-save", help="With --lora: save other modules that changed, as norms, in full."),
    ] = False,
    threads: ThreadsOption = 2,
    form: ReadingFormatOption = "text",
    json: JsonOption = False,
    report: ReadingReportOption = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="A row per tensor.")] = False,
    color: ColorOption = Color.AUTO,
    no_pager: NoPagerOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> int:
    """Make a patch: what turns one checkpoint into another, bit by bit.

    Renamed tensors are found by their bytes. The patch is a safetensors file, bound to its base by digests; ckptool
    merge BASE --patch applies it. Without -o it is measured, which reads both checkpoints, and nothing is written.

    With --lora it is an adapter for peft: the closest matrices of low rank. It holds less; how much, is reported.
    """
    from ckptool.report.document_extract import extract_document
    from ckptool.report.document_lora import lora_document

    form = form_of(form, json)
    files = report or []
    before, after = open_selected(base, select), open_selected(tuned, select)
    inputs = [PurePath(path) for path in (*before.paths, *after.paths)]
    require_reports(files, inputs, READING_FORMATS)
    if lora:
        options = _lora_options(rank, dtype, modules_to_save)
        adapter = _extracted_lora(before, after, options, out, force, quiet)
        document = lora_document(adapter, (str(base), str(tuned)), None if out is None else str(out), verbose)
        show_document(document, "json" if json else form, color, pager=not no_pager)
        write_reports(files, document)
        return Exit.OK
    for option, value in (("--rank", rank), ("--dtype", dtype), ("--modules-to-save", modules_to_save or None)):
        if value is not None:
            raise UsageError(f"{option} is for an adapter", hint="--lora --rank 16")
    found = _extracted(before, after, out, force, threads, quiet)
    document = extract_document(found, (str(base), str(tuned)), None if out is None else str(out), verbose)
    show_document(document, form, color, pager=not no_pager)
    write_reports(files, document)
    return Exit.OK


def _extracted(
    base: Checkpoint, tuned: Checkpoint, out: PurePath | None, force: bool, threads: int, quiet: bool
) -> Extracted:
    from ckptool.cli.progress import Progress
    from ckptool.commands.patching.extract import extract as run

    if out is None:
        with Progress("comparing", quiet) as progress:
            return run(base, tuned, threads=threads, progress=progress)
    from ckptool.storage.staging import staged_file
    from ckptool.storage.targets import check_file

    if out.suffix != ".safetensors":
        raise UsageError("a patch is a safetensors file", hint=f"-o {out.with_suffix('.safetensors')}", path=out)
    check_file(out, [*map(PurePath, (*base.paths, *tuned.paths))], force=force)
    with Progress("extracting", quiet) as progress, staged_file(out, force=force) as sink:
        return run(base, tuned, sink, threads=threads, progress=progress)


def _lora_options(rank: int | None, dtype: str | None, save: bool) -> LoraOptions:
    from ckptool.commands.patching.lora_result import LoraOptions

    if rank is None:
        raise UsageError("--lora takes a rank", hint="--rank 16")
    return LoraOptions(rank, dtype or "float32", save)


def _extracted_lora(
    base: Checkpoint, tuned: Checkpoint, options: LoraOptions, out: PurePath | None, force: bool, quiet: bool
) -> ExtractedLora:
    from ckptool.cli.progress import Progress
    from ckptool.commands.patching.lora import base_name, extract_lora, replaceable, stage_name

    if out is None:
        with Progress("comparing", quiet) as progress:
            return extract_lora(base, tuned, options, progress=progress)
    from ckptool.storage.staging import staged_folder
    from ckptool.storage.targets import check_target

    if out.suffix in (".safetensors", ".bin", ".pt", ".pth"):
        raise UsageError("an adapter is a folder", hint=f"-o {out.with_suffix('')}", path=out)
    check_target(out, [*map(PurePath, (*base.paths, *tuned.paths))], replaceable, force=force)
    stage = stage_name(base, tuned, options)
    with Progress("extracting", quiet) as progress, staged_folder(out, stage, replaceable, force=force) as files:
        return extract_lora(base, tuned, options, files, name=base_name(base.path), progress=progress)
