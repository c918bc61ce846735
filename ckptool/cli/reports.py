"""`--format` and `--report`: a command's document on stdout and in files, in any format of the registry."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from difflib import get_close_matches
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ckptool.cli.common import PATH, Color
from ckptool.core.errors import CkptError, UsageError
from ckptool.report.encoders import ENCODERS, encoder_for, encoder_named
from ckptool.storage.environment import VARIABLES
from ckptool.storage.paths import append_text

if TYPE_CHECKING:
    from ckptool.report.blocks import Block
    from ckptool.report.document import Document

FORMATS = tuple(encoder.name for encoder in ENCODERS)
"""What `--format` may say of a command that finds something."""
READING_FORMATS = tuple(encoder.name for encoder in ENCODERS if not encoder.of_findings)
"""The same for a command that only reads."""


def complete_formats(incomplete: str) -> list[str]:
    """Names of formats."""
    return [name for name in FORMATS if name.startswith(incomplete)]


def _require_format(names: tuple[str, ...]) -> Callable[[str], str]:
    def required(value: str) -> str:
        if value not in names:
            close = get_close_matches(value, names, n=1)
            hint = f"did you mean {close[0]}?   all: {', '.join(names)}" if close else f"use {', '.join(names)}"
            raise UsageError(f'unknown format "{value}"', hint=hint)
        return value

    return required


def _format_option(names: tuple[str, ...]) -> Any:
    return typer.Option(
        "--format",
        metavar="FORMAT",
        callback=_require_format(names),
        autocompletion=complete_formats,
        help=f"{', '.join(names[:-1])} or {names[-1]}.",
        rich_help_panel="Output",
    )


FormatOption = Annotated[str, _format_option(FORMATS)]
ReadingFormatOption = Annotated[str, _format_option(READING_FORMATS)]


def _endings(names: Collection[str]) -> list[str]:
    return [encoder.ending for encoder in ENCODERS if encoder.ending and encoder.name in names]


def _report_option(names: tuple[str, ...]) -> Any:
    return typer.Option(
        "--report",
        path_type=PATH,
        metavar="FILE",
        help=f"Also write it to a file: {' '.join(_endings(names))}; repeats.",
        rich_help_panel="Output",
    )


ReportOption = Annotated[list[PurePath] | None, _report_option(FORMATS)]
ReadingReportOption = Annotated[list[PurePath] | None, _report_option(READING_FORMATS)]


def form_of(form: str, json: bool) -> str:
    """The format that --format and --json mean.

    Raises:
        UsageError: they mean two.
    """
    if json and form not in ("text", "json"):  # text is what --format is where it is not given
        raise UsageError(f"--json and --format {form} exclude each other", hint="give one of them")
    return "json" if json else form


def require_reports(files: Sequence[PurePath], inputs: Iterable[PurePath], formats: Collection[str] = FORMATS) -> None:
    """Refuse report files that could not be written, before anything is looked at.

    Args:
        files: as they were typed. Existing files are replaced later: reports are written anew in every run.
        inputs: what is read, and must not be replaced.
        formats: those that this command has.

    Raises:
        UsageError: an ending is not known.
        OutputError: a name is a folder's, or an input's, or its folder does not exist.
    """
    if not files:
        return
    from ckptool.storage.targets import check_distinct, check_file

    sources = list(inputs)
    endings = _endings(formats)
    for file in files:
        if file.suffix.lower() not in endings:
            raise UsageError(
                f'a report cannot end in "{file.suffix}"', hint=f"it may end in {' '.join(endings)}", path=file
            )
        check_file(file, sources, force=True)
    check_distinct(files)


def write_reports(files: Sequence[PurePath], document: Document) -> None:
    """Write each report as a whole, or leave what was there.

    Args:
        files: checked by `require_reports`.
        document: what they say.
    """
    if not files:
        return
    from ckptool.storage.staging import write_file

    for file in files:
        pieces = encoder_for(file.suffix).encode(document)
        write_file(file, (text.encode("utf-8", "backslashreplace") for text in pieces), force=True)


def show_document(document: Document, form: str, color: Color = Color.AUTO, pager: bool = True) -> None:
    """Print a document in a format; on GitHub it is added to the summary of the job."""
    from ckptool.cli.output import print_lines, print_texts, stdout_screen

    if form == "text":
        from ckptool.report.screen import document_lines

        screen = stdout_screen(color)
        print_lines(document_lines(document, screen), screen, pager=pager, answer=document.answer)
        return
    print_texts(encoder_named(form).encode(document))
    if form == "github":
        add_summary(document)


def show_blocks(blocks: Iterable[Block], color: Color) -> None:
    """Print further blocks of a report that has been shown."""
    from ckptool.cli.output import print_lines, stdout_screen
    from ckptool.report.screen import block_lines

    screen = stdout_screen(color)
    print_lines(block_lines(blocks, screen), screen, pager=False)


def add_summary(document: Document) -> None:
    """Append the document to the summary of the GitHub job that runs this, if one does.

    Raises:
        CkptError: GITHUB_STEP_SUMMARY names what cannot be appended to.
    """
    named = VARIABLES.get("GITHUB_STEP_SUMMARY")
    if not named:
        return
    from ckptool.report.markdown import encode_document

    try:
        append_text(named, "".join(encode_document(document)) + "\n")
    except OSError as error:
        said = (error.strerror or "it cannot be written").lower()
        raise CkptError(f"GITHUB_STEP_SUMMARY, {named}: {said}", hint="unset it to go on without") from None


def on_github() -> bool:
    """True where GitHub Actions reads what is printed."""
    return VARIABLES.get("GITHUB_ACTIONS") == "true"
