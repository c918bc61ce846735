"""The command line: its commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.main import get_command

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

_PANELS = {
    "inspect": "Look",
    "diff": "Look",
    "filter": "Operate",
    "remap": "Operate",
    "merge": "Operate",
    "extract": "Operate",
    "transplant": "Operate",
    "check": "Guard",
    "help": "Read",
    "git": "Guard",
}
"""The commands in the order of the help page, and their panels. `ckptool.cli.NAME` has the function and its EPILOG."""


class CommandGroup(HelpGroup):
    """All commands; the module of one is imported when it is asked for, the others are not."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = _Commands()


class _Commands(Mapping[str, Any]):
    def __getitem__(self, name: str) -> Any:
        if name not in _PANELS:
            raise KeyError(name)
        return _command(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_PANELS)

    def __len__(self) -> int:
        return len(_PANELS)


@cache
def _command(name: str) -> Any:
    """A command of `ckptool`; a module that has commands of its own says so with an `app`."""
    module = import_module(f"ckptool.cli.{'topics' if name == 'help' else name}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(cls=HelpCommand, epilog=module.EPILOG)(getattr(module, name))
    command: Any = get_command(app)
    command.rich_help_panel = _PANELS[name]
    return command


app = typer.Typer(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _say_version(asked: bool) -> None:
    if asked:
        print(f"ckptool {VERSION}")
        raise typer.Exit


@app.callback()
def _ckptool(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_say_version, is_eager=True, help="Show the version and exit.")
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
