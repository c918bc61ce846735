"""``--report FILE``: the same result once more in a file, in the format that its ending says; and findings for CI."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from ckptool.cli.common import PATH
from ckptool.core.errors import CkptError, UsageError
from ckptool.storage.environment import VARIABLES
from ckptool.storage.paths import append_text

if TYPE_CHECKING:
    from ckptool.commands.checks.finding import Level, Report
    from ckptool.report.text import Line, Screen

ENDINGS = {
    ".html": "html",
    ".json": "json",
    ".md": "markdown",
    ".xml": "junit",
    ".sarif": "sarif",
    ".txt": "text",
}
CI_FORMATS = ("github", "junit", "sarif")
"""Formats of findings: whatever was looked at is told as a report of rules."""

ReportOption = Annotated[
    list[PurePath] | None,
    typer.Option(
        "--report",
        path_type=PATH,
        metavar="FILE",
        help="Also write it to a file: .html .json .md .xml (JUnit) .sarif .txt; repeats.",
        rich_help_panel="Output",
    ),
]


def require_reports(
    files: Sequence[PurePath], inputs: Iterable[PurePath], kinds: Collection[str] = tuple(ENDINGS)
) -> None:
    """Refuse report files that could not be written, before anything is looked at.

    Args:
        files: as they were typed. Existing files are replaced later: reports are written anew in every run.
        inputs: what is read, and must not be replaced.
        kinds: the endings that this command has a report for.

    Raises:
        UsageError: an ending is not known.
        OutputError: a name is a folder's, or an input's, or its folder does not exist.
    """
    from ckptool.storage.targets import check_distinct, check_file

    sources = list(inputs)
    for file in files:
        if file.suffix.lower() not in kinds:
            raise UsageError(
                f'a report cannot end in "{file.suffix}"', hint=f"it may end in {' '.join(kinds)}", path=file
            )
        check_file(file, sources, force=True)
    check_distinct(files)


def write_reports(files: Sequence[PurePath], texts: Callable[[str], Iterable[str]]) -> None:
    """Write each report as a whole, or leave what was there.

    Args:
        files: checked by `require_reports`.
        texts: the result in a format, "html", piece by piece.
    """
    from ckptool.storage.staging import write_file

    for file in files:
        pieces = texts(ENDINGS[file.suffix.lower()])
        write_file(file, (text.encode("utf-8", "backslashreplace") for text in pieces), force=True)


def ci_texts(
    report: Report, form: str, command: str, about: dict[str, str] | None = None, fail_on: Level = "error"
) -> Iterable[str]:
    """Findings in one of `CI_FORMATS`, or as an HTML page.

    Args:
        report: what was found.
        form: "github", "junit", "sarif" or "html".
        command: which command found it.
        about: what each rule is about, in a sentence.
        fail_on: the mildest level that makes the command end with 1.
    """
    match form:
        case "github":
            from ckptool.report.github import workflow_commands

            return workflow_commands(report)
        case "junit":
            from ckptool.report.junit import junit

            return junit(report, command, fail_on)
        case "html":
            from ckptool.report.html_check import check_html

            return check_html(report, command)
        case _:
            from ckptool.report.sarif import sarif

            return sarif(report, about, fail_on)


def add_summary(report: Report, command: str) -> None:
    """Append the report to the summary of the GitHub job that runs this, if one does.

    Raises:
        CkptError: GITHUB_STEP_SUMMARY names what cannot be appended to.
    """
    named = VARIABLES.get("GITHUB_STEP_SUMMARY")
    if not named:
        return
    from ckptool.report.github import summary

    try:
        append_text(named, summary(report, command) + "\n")
    except OSError as error:
        said = (error.strerror or "it cannot be written").lower()
        raise CkptError(f"GITHUB_STEP_SUMMARY, {named}: {said}", hint="unset it to go on without") from None


def on_github() -> bool:
    """True where GitHub Actions reads what is printed."""
    return VARIABLES.get("GITHUB_ACTIONS") == "true"


def report_screen() -> Screen:
    """The page of a text report: wide, plain, nothing cut."""
    from ckptool.report.text import Screen

    return Screen()


def plain(lines: Iterable[Line]) -> Iterator[str]:
    """Lines as they stand in a text report."""
    from ckptool.report.text import paint

    screen = report_screen()
    return (f"{paint(line, screen)}\n" for line in lines)
