"""What would load more, in words: whole commands in the terminal, arguments in Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ckptool.commands.transplant.result import Transplant
from ckptool.commands.transplant.suggest import Suggestion, suggestions
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.shell import shell_quote


def suggestion_notes(found: Sequence[Suggestion], command: Sequence[str]) -> tuple[Note, ...]:
    """A note for each, with the command that does it."""
    return tuple(
        Note(
            f"{_said(each.options)} would fill {each.tensors:,} more {_tensors(each)}{each.why}",
            command_text(_with(command, each)),
        )
        for each in found
    )


def _said(options: Sequence[str]) -> str:
    """Options in a sentence; rules that are written out stand in the command alone."""
    if not any(" " in word for word in options):
        return " ".join(options)
    return "a rule" if len(options) == 2 else "rules"


def _with(command: Sequence[str], suggestion: Suggestion) -> list[str]:
    """The command with the options at its end, or before the rules that it has."""
    at = command.index("-r") if suggestion.goes_first else len(command)
    return [*command[:at], *suggestion.options, *command[at:]]


def command_text(words: Sequence[str]) -> str:
    """``ckptool transplant "a b.pth" --into net.py:Net``"""
    return " ".join(["ckptool", *map(shell_quote, words)])


def with_suggestions(done: Transplant, command: Sequence[str], plain: Transplant | None = None) -> Transplant:
    """The transplant with what would load more among its notes.

    Args:
        done: what was decided.
        command: the words of the command line that asked for it, without the program's name.
        plain: the same without a match, where that is what is advised about.
    """
    found = suggestions(plain or done)
    notes = suggestion_notes(found, command)
    average = average_note(done.source)
    best = found[0].options if found else ()
    takes = replace(average, hint=command_text([*command, *best, "--ema"])) if average is not None else None
    others = tuple(takes if takes is not None and note == average else note for note in done.plan.notes)
    if found and done.plan.problems:  # the rules alone do not work out, and with these they do
        first, *more = done.plan.problems
        problems = (
            replace(first, hint=f"{notes[0].text}: {notes[0].hint}"),
            *(replace(each, hint="") for each in more),
        )
        return replace(done, plan=replace(done.plan, problems=problems), suggested=notes)
    return replace(done, plan=replace(done.plan, notes=(*others, *notes)), suggested=notes)


def with_python_suggestions(done: Transplant) -> Transplant:
    """The same for Python: the arguments that load more, among the notes."""
    found = [(each, words) for each in suggestions(done) if (words := _arguments(each.options))]
    notes = tuple(Note(f"{words} would fill {each.tensors:,} more {_tensors(each)}{each.why}") for each, words in found)
    average = average_note(done.source)
    here = replace(average, hint=f"select={done.source.selection.ema!r} takes that") if average is not None else None
    others = (here if here is not None and note == average else note for note in done.plan.notes)
    return replace(done, plan=replace(done.plan, notes=(*others, *notes)), suggested=notes)


def _tensors(suggestion: Suggestion) -> str:
    return "tensor" if suggestion.tensors == 1 else "tensors"


def _arguments(options: Sequence[str]) -> str:
    """Options of the command line as arguments in Python; "" for those that have none.

    Example:
        >>> _arguments(("-r", "resnet-to-ibn")), _arguments(("-r", "a. -> b.", "-r", "c. ->"))
        ("recipe='resnet-to-ibn'", "recipe=['a. -> b.', 'c. ->']")
    """
    if "--reverse" in options:
        return ""
    pairs = list(zip(options[::2], options[1::2], strict=True))
    rules = [value for option, value in pairs if option == "-r"]
    if rules:
        return f"recipe={rules if len(rules) > 1 else rules[0]!r}"
    (option, value), *_ = pairs
    return "recipe=ckptool.match(SOURCE, MODEL).recipe" if option == "--match" else f"{option[2:]}={value!r}"


def average_note(source: Checkpoint) -> Note | None:
    """That a file holds a moving average beside the weights that are taken."""
    average = source.selection.ema
    return Note(f"the source also holds a moving average, {average}", "--ema takes that") if average else None
