"""``ckptool git``: readable diffs of checkpoints in git itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from ckptool.cli.common import PATH, Color, ColorOption, DebugOption, ThreadsOption
from ckptool.cli.help import HelpCommand, HelpGroup
from ckptool.core.errors import CkptError, Exit
from ckptool.report.escape import terminal
from ckptool.storage.environment import VARIABLES, find_program
from ckptool.storage.locate import locate_file
from ckptool.storage.paths import NULL_DEVICE

if TYPE_CHECKING:
    from ckptool.cli.git_driver import Scope
    from ckptool.core.checkpoint import Note
    from ckptool.report.inspection import Inspection
    from ckptool.report.text import Line, Screen

_ABSENT = NULL_DEVICE  # what git names where a side does not exist
_LONGEST = 2000  # characters of a message
_POINTER = 1024  # bytes: a Git LFS pointer is shorter

EPILOG = """\
Examples:
  ckptool git install
  ckptool git install --global --lines
  git log -p -- weights.safetensors

Exit codes: 0 done; 1 status: not installed; 2 trouble"""

app = typer.Typer(
    cls=HelpGroup,
    help="Make git show what changed in a checkpoint: git diff, git log -p, git show.",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    rich_markup_mode=None,
)

GlobalOption = Annotated[bool, typer.Option("--global", help="For all your repositories, not for this one.")]
AttributesOption = Annotated[
    bool,
    typer.Option("--attributes/--no-attributes", help="Also say in .gitattributes which files are checkpoints."),
]


@app.command(cls=HelpCommand, epilog=EPILOG)
def install(
    everywhere: GlobalOption = False,
    full: Annotated[
        bool,
        typer.Option("--full/--lines", help="git diff prints the report of ckptool diff, or a line per tensor."),
    ] = True,
    attributes: AttributesOption = True,
    pattern: Annotated[
        list[str] | None, typer.Option("--pattern", metavar="GLOB", help="Further names of checkpoints; repeats.")
    ] = None,
    debug: DebugOption = False,
) -> int:
    """Set git up: git diff prints how much each module changed; log -p and show, a line per tensor that changed.

    git log and git show print the report, too, with --ext-diff. It may be run again, to change between the report and
    lines, or to make git forget conversions of files that could not be read then.
    """
    from ckptool.cli.git_driver import Scope, checked_patterns, wanted_driver, with_lines
    from ckptool.formats.registry import name_patterns

    patterns = [*name_patterns(), *checked_patterns(pattern or [])]
    scope = Scope(everywhere)
    scope.set_driver(wanted_driver(full, scope.can_cache()))
    scope.forget()
    if attributes:
        _change_lines(scope, lambda text: with_lines(text, patterns))
    _print_status(scope)
    return Exit.OK


@app.command(cls=HelpCommand, epilog=EPILOG)
def uninstall(everywhere: GlobalOption = False, debug: DebugOption = False) -> int:
    """Take away what install added, and nothing else."""
    from ckptool.cli.git_driver import Driver, Scope, without_lines

    scope = Scope(everywhere)
    scope.set_driver(Driver())
    scope.forget()
    _change_lines(scope, without_lines)
    print("git shows checkpoints as it did before")
    return Exit.OK


@app.command(cls=HelpCommand, epilog=EPILOG)
def status(everywhere: GlobalOption = False, debug: DebugOption = False) -> int:
    """Say what is set up; exit code 1 if nothing is."""
    from ckptool.cli.git_driver import Scope

    return Exit.OK if _print_status(Scope(everywhere)) else Exit.DIFFERENT


@app.command(cls=HelpCommand, epilog=EPILOG)
def textconv(
    path: Annotated[PurePath, typer.Argument(path_type=PATH, metavar="FILE", help="A version of a file, from git.")],
    threads: ThreadsOption = 2,
    debug: DebugOption = False,
) -> int:
    """What git calls: the file as lines. A file that cannot be read is explained, and the exit code is 0."""
    from ckptool.cli.output import print_texts

    print_texts(_converted(path, threads))
    return Exit.OK


@app.command(cls=HelpCommand, epilog=EPILOG)
def diff(
    sides: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH OLD-FILE OLD-HEX OLD-MODE NEW-FILE NEW-HEX NEW-MODE [NEW-PATH INFO]",
            help="As git gives them to an external diff driver.",
        ),
    ],
    threads: ThreadsOption = 2,
    color: ColorOption = Color.AUTO,
    debug: DebugOption = False,
) -> int:
    """What git calls for git diff: the report of ckptool diff, with exit code 0."""
    from ckptool.cli.output import print_lines, stdout_screen

    if color is Color.AUTO and VARIABLES.get("GIT_PAGER_IN_USE") and not VARIABLES.get("NO_COLOR"):
        color = Color.ALWAYS  # stdout is git's pager
    screen = stdout_screen(color)
    print_lines(_report(sides, threads, screen), screen, pager=False)
    return Exit.OK


# ---------------------------------------------------------------------------------------------- set up


def _change_lines(scope: Scope, change: Callable[[str], str]) -> None:
    from ckptool.cli.git_driver import read_lines, write_lines

    path = scope.attributes()
    write_lines(path, change(read_lines(path)), follow=scope.everywhere)


def _print_status(scope: Scope) -> bool:
    """What is set up; False for nothing."""
    from ckptool.cli.git_driver import covered, program_of, read_lines

    option = " --global" if scope.everywhere else ""
    driver = scope.driver()
    if driver.textconv is None:
        print(f"not installed{' for this repository' if not option else ''}; ckptool git install{option}")
        return False
    if driver.command:
        _say("git diff   the report of ckptool diff")
        _say("git log -p, git show   a line per tensor; the report with --ext-diff")
    else:
        _say("git diff, git log -p, git show   a line per tensor")
    if driver.cachetextconv is None:
        _say("git keeps no conversions: user.name and user.email are not set; set them, then ckptool git install")
    path = scope.attributes()
    patterns = covered(read_lines(path))
    _say(f"files   {terminal(' '.join(patterns)) or 'none'}   ({terminal(str(path))})")
    program = program_of(driver.textconv)
    _say(f"program   {terminal(program)}{'' if find_program(program) else '   (it is not there any more)'}")
    if not scope.everywhere:
        _say(
            "others   .gitattributes goes into the repository; the driver is in your .git/config: each collaborator "
            "runs ckptool git install once (without it, git says that binary files differ)"
        )
    return True


def _say(text: str) -> None:
    """Prints a line, broken between words where the screen is narrow."""
    from ckptool.cli.output import stdout_screen
    from ckptool.report.text import wrap

    print("\n".join(wrap(text, stdout_screen(Color.NEVER))))


# ---------------------------------------------------------------------------------------------- what git calls


def _converted(path: PurePath, threads: int) -> Iterator[str]:
    from ckptool.report.textconv import textconv_lines, unreadable_lines

    try:
        yield from textconv_lines(_inspection(path, path.name), threads)
    except CkptError as error:
        with locate_file(path).open() as file:
            head = file.read(0, min(_POINTER, file.size))
        yield from unreadable_lines(error, str(path), head, file.size)


def _inspection(path: PurePath, name: str, git_name: str | None = None) -> Inspection:
    from ckptool.facts.storages import ties
    from ckptool.facts.words import notes_of
    from ckptool.formats.opening import open_checkpoint
    from ckptool.report.inspection import Inspection

    checkpoint = open_checkpoint(path)
    notes = _renamed(notes_of(checkpoint), {str(path): git_name or str(path)})
    return Inspection(checkpoint, name, tuple(checkpoint), tuple(ties(checkpoint)), notes)


def _report(arguments: Sequence[str], threads: int, screen: Screen) -> Iterator[Line]:
    """One file of a `git diff`: a heading as git has it, then the report."""
    from ckptool.report.text import Span, wrap

    path, old, new = arguments[0], *(arguments[at] if len(arguments) > at else _ABSENT for at in (1, 4))
    sides = {old: path, new: arguments[7] if len(arguments) > 7 else path}
    yield (Span(f"diff --ckptool a/{terminal(sides[old])} b/{terminal(sides[new])}", "bold"),)
    if len(arguments) < 7:
        yield (Span("not merged: there is more than one version"),)
        return
    try:
        yield from _compared(old, new, sides, threads, screen)
    except CkptError as error:
        at_fault = old if error.path and str(error.path) == old else new
        side = f"{'a' if at_fault == old else 'b'}/{sides[at_fault]}"
        for text in (error.message.replace(at_fault, side), *([f"help: {error.hint}"] if error.hint else [])):
            text = _in_git(text, sides)
            yield from ((Span(line),) for line in wrap(terminal(text, _LONGEST), screen))


def _compared(old: str, new: str, sides: Mapping[str, str], threads: int, screen: Screen) -> Iterator[Line]:
    from ckptool.commands.diff.comparison import compare
    from ckptool.formats.opening import open_checkpoint
    from ckptool.report.document_diff import diff_document
    from ckptool.report.document_inspect import inspect_document
    from ckptool.report.screen import document_lines
    from ckptool.report.text import Span

    names = f"a/{sides[old]}", f"b/{sides[new]}"
    if _ABSENT in (old, new):
        there, name, what = (old, names[0], "deleted file") if new == _ABSENT else (new, names[1], "new file")
        yield (Span(what, "bold"),)
        report = _inspection(PurePath(there), name, sides[there])
        yield from document_lines(inspect_document(report), screen)
    else:
        found = compare(open_checkpoint(PurePath(old)), open_checkpoint(PurePath(new)), threads=threads)
        document = diff_document(replace(found, notes=_renamed(found.notes, sides)), names)
        yield from document_lines(document, screen)


def _renamed(notes: Sequence[Note], sides: Mapping[str, str]) -> tuple[Note, ...]:
    """Notes that name files as git does, not git's temporary ones."""
    return tuple(replace(note, text=_in_git(note.text, sides), hint=_in_git(note.hint, sides)) for note in notes)


def _in_git(text: str, sides: Mapping[str, str]) -> str:
    for temporary, path in sides.items():
        if PurePath(temporary).is_absolute() and temporary != _ABSENT:  # a file of the working tree has its own name
            text = text.replace(temporary, path)
    return text
