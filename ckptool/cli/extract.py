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
    from ckptool.core.checkpoint import Checkpoint

EPILOG = """\
Examples:
  ckptool extract base.safetensors tuned.safetensors
  ckptool extract base/ tuned/ -o tuned.patch.safetensors
  ckptool merge base/ --patch tuned.patch.safetensors -o tuned2/

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
            help="Write it: a .safetensors file.",
            rich_help_panel="Writing",
        ),
    ] = None,
    force: ForceOption = False,
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
    """
    from ckptool.report.document_extract import extract_document

    form = form_of(form, json)
    files = report or []
    before, after = open_selected(base, select), open_selected(tuned, select)
    inputs = [PurePath(path) for path in (*before.paths, *after.paths)]
    require_reports(files, inputs, READING_FORMATS)
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
