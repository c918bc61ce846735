"""The command line: its commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ckptool.cli import check, diff, filter, git, inspect, merge, remap, topics, transplant
from ckptool.cli.errors import print_note, report, say_interrupted
from ckptool.cli.help import HelpCommand, HelpGroup
from ckptool.cli.output import lost_report, say_read
from ckptool.core.errors import Exit, UsageError
from ckptool.core.version import VERSION
from ckptool.storage.paths import can_be_a_name
from ckptool.storage.session import one_session
from ckptool.storage.touched import one_command

_EPILOG = """\
Examples:
  ckptool diff old.pth new.safetensors
  ckptool transplant resnet50.pth --into torchvision:resnet50
  ckptool check weights/

Exit codes: 0 same, clean, written; 1 different, findings; 2 trouble;
130 interrupted"""

app = typer.Typer(
    cls=HelpGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.command(cls=HelpCommand, rich_help_panel="Look", epilog=inspect.EPILOG)(inspect.inspect)
app.command(cls=HelpCommand, rich_help_panel="Look", epilog=diff.EPILOG)(diff.diff)
app.command(cls=HelpCommand, rich_help_panel="Operate", epilog=filter.EPILOG)(filter.filter)
app.command(cls=HelpCommand, rich_help_panel="Operate", epilog=remap.EPILOG)(remap.remap)
app.command(cls=HelpCommand, rich_help_panel="Operate", epilog=merge.EPILOG)(merge.merge)
app.command(cls=HelpCommand, rich_help_panel="Operate", epilog=transplant.EPILOG)(transplant.transplant)
app.command(cls=HelpCommand, rich_help_panel="Guard", epilog=check.EPILOG)(check.check)
app.command(cls=HelpCommand, rich_help_panel="Read", epilog=topics.EPILOG)(topics.help)
app.add_typer(git.app, name="git", rich_help_panel="Guard")


def _say_version(asked: bool) -> None:
    if asked:
        print(f"ckptool {VERSION}")
        raise typer.Exit


@app.callback()
def _ckptool(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Surgery on model checkpoints: look inside, compare, change; nothing from a file is ever run."""


def _require_text(argument: str) -> None:
    """Refuse an argument that no shell can give and no file can be named by."""
    if "\0" in argument:
        raise UsageError("an argument holds a NUL character", hint="check how the command line is made")
    if not can_be_a_name(argument):
        raise UsageError("an argument is not valid Unicode", hint="check how the command line is made")


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code. Never raises what a user could cause."""
    try:
        # obj: the commands see the raw arguments, whose order the parser does not keep
        for argument in arguments:
            _require_text(argument)
        with one_command(), one_session() as session:
            code = app(list(arguments) or ["--help"], prog_name="ckptool", standalone_mode=False, obj=list(arguments))
            say_read()
            for note in session.notes:
                print_note(note)
        sys.stdout.flush()
        if lost := lost_report():
            return report(lost, arguments)
    except KeyboardInterrupt:
        return say_interrupted()
    except BrokenPipeError:
        return Exit.OK
    except (Exception, SystemExit) as error:
        return report(error, arguments)
    return say_interrupted() if code == Exit.INTERRUPTED else int(code or 0)  # typer turns Ctrl-C into a code
