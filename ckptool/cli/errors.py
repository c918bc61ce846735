"""Errors in one voice: ``error: what is true``, ``--> where``, ``help: one thing to do``."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from ckptool.core.errors import CkptError, Exit
from ckptool.report.escape import terminal
from ckptool.report.hints import wrap_hint
from ckptool.report.symbols import Style
from ckptool.report.text import Line, Screen, Span, paint, wrap
from ckptool.storage.environment import VARIABLES
from ckptool.storage.paths import shown_text
from ckptool.storage.process import discard_if_broken

if TYPE_CHECKING:
    from ckptool.core.checkpoint import Note

_LONGEST = 2000  # characters of a message


def report(error: BaseException, arguments: Sequence[str]) -> int:
    """Prints what went wrong, on stderr and for ``--json`` also as an object on stdout; returns the exit code."""
    discard_if_broken(sys.stdout)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else Exit.TROUBLE
    if isinstance(error, typer.Abort):
        return say_interrupted()
    flags = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--debug" in flags:
        _traceback(error)
    stated = _stated(error)
    try:
        print_error(stated)
        if _wants_json(flags):
            from ckptool.report.json import error_json

            print(error_json(stated), flush=True)
    except OSError:
        return Exit.TROUBLE  # nowhere left to say it
    return Exit.TROUBLE


def say_interrupted() -> int:
    """One line for Ctrl-C: whatever was half written has been removed when this runs."""
    with contextlib.suppress(OSError):
        print("interrupted; nothing written", file=sys.stderr, flush=True)
    return Exit.INTERRUPTED


def print_error(error: CkptError, below: Sequence[str] = ()) -> None:
    """Prints an error on stderr, with further lines (keys, not escaped) between what is true and what to do."""
    screen = Screen.of(sys.stderr, VARIABLES, "auto")
    lines = [paint(line, screen) for line in _lines(error, screen, below)]
    print("\n".join(lines), file=sys.stderr, flush=True)


def print_note(note: Note) -> None:
    """Prints on stderr what an earlier run left, and what to do about it."""
    screen = Screen.of(sys.stderr, VARIABLES, "auto")
    lines = list(_titled("note:", "cyan", wrap(terminal(note.text, _LONGEST), screen, first="note: ")))
    if note.hint:
        lines += _titled("  help:", "cyan", wrap_hint(terminal(note.hint, _LONGEST), screen, first="  help: "))
    print("\n".join(paint(line, screen) for line in lines), file=sys.stderr, flush=True)


def _wants_json(flags: Sequence[str]) -> bool:
    """Read from the raw arguments, for they may be what is wrong."""
    pairs = zip(flags, [*flags[1:], ""], strict=False)
    machine = {"json", "ndjson"}
    return any(
        flag == "--json" or (flag == "--format" and value in machine) or flag.removeprefix("--format=") in machine
        for flag, value in pairs
        if flag.startswith("--")
    )


def _stated(error: BaseException) -> CkptError:
    """Any exception as a statement about the user's file or request."""
    if isinstance(error, CkptError):
        return error
    if isinstance(error, MemoryError):
        return CkptError("there is not enough memory for this", hint="ask for less, for instance with --only")
    if isinstance(error, OSError):
        return _system_error(error)
    # Typer's usage errors have no public name; what they can do is theirs alone.
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        message = str(error.format_message()).rstrip(".") or "this command line is incomplete"
        context = getattr(error, "ctx", None)
        usage = CkptError(
            message[:1].lower() + message[1:], hint=f"{context.command_path if context else 'ckptool'} --help"
        )
        usage.code = "usage"
        return usage
    bug = CkptError(
        f"ckptool met something it did not expect ({type(error).__name__}: {str(error)[:_LONGEST]}); this is a bug",
        hint="please report it with the output of the same command and --debug",
    )
    bug.code = "internal"
    return bug


def _system_error(error: OSError) -> CkptError:
    what = (error.strerror or str(error) or "the system refused").lower()
    name = error.filename
    if error.errno == errno.EBADF and name is None:
        return CkptError("stdout is closed, so the report is lost", hint="redirect it: > /dev/null")
    path = shown_text(name) if isinstance(name, str | bytes) else None
    return CkptError(f"{path}: {what}" if path else what)


def _lines(error: CkptError, screen: Screen, below: Sequence[str] = ()) -> Iterator[Line]:
    yield from _titled("error:", "red", wrap(terminal(error.message, _LONGEST), screen, first="error: "))
    yield from ((Span(terminal(text, _LONGEST)),) for text in error.detail)
    said = f"{error.message} {error.hint}"
    place = terminal(str(error.path)) if error.path and str(error.path) not in said else ""
    if error.key is not None and error.key not in error.message:
        place = f"{place}: {terminal(error.key)}" if place else terminal(error.key)
    if place:
        yield (Span("  --> ", "dim"), Span(place))
    yield from ((Span(line),) for text in below for line in wrap(terminal(text), screen, indent="      ", first="    "))
    if error.hint:
        yield from _titled("  help:", "cyan", wrap_hint(terminal(error.hint, _LONGEST), screen, first="  help: "))


def _titled(title: str, style: Style, lines: Iterator[str]) -> Iterator[Line]:
    yield (Span(title, style), Span(next(lines).removeprefix(title)))
    yield from ((Span(line),) for line in lines)


def _traceback(error: BaseException) -> None:
    import traceback

    for part in traceback.format_exception(error):
        for line in part.splitlines():
            print(terminal(line, _LONGEST), file=sys.stderr)
