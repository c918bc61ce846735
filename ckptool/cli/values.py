"""What options say, read: the order of options, sizes, numbers by name, which weights of a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

import typer

from ckptool.cli.common import Color
from ckptool.core.errors import UsageError

if TYPE_CHECKING:
    from ckptool.core.checkpoint import Checkpoint


def in_order(
    tokens: Sequence[str], parsed: Mapping[str, Sequence[str]], with_value: Collection[str] = ()
) -> list[tuple[str, str]]:
    """The values of several repeated options in the order they were typed in, which the parser does not keep.

    Args:
        tokens: the raw arguments.
        parsed: for each option, its values as the parser found them.
        with_value: other options that take a value, which is not to be read as an option.

    Returns:
        (option, value) pairs.

    Raises:
        UsageError: the arguments cannot be told apart.

    Example:
        >>> in_order(["--drop", "*", "a.pth", "--keep=fc"], {"--keep": ["fc"], "--drop": ["*"]})
        [('--drop', '*'), ('--keep', 'fc')]
    """
    left = {option: list(values) for option, values in parsed.items()}
    found: list[tuple[str, str]] = []
    words = iter(tokens)
    for word in words:
        if word == "--":
            break
        option, equals, _ = word.partition("=")
        if left.get(option):
            found.append((option, left[option].pop(0)))
        if (option in left or option in with_value) and not equals:
            next(words, None)
    if any(left.values()):
        names = " and ".join(parsed)
        raise UsageError(f"the order of {names} cannot be told", hint=f"write {next(iter(parsed))}=PATTERN")
    return found


def exclude(why: str, options: Mapping[str, object]) -> None:
    """Refuse two options of which one would be ignored.

    Args:
        why: what to do instead.
        options: what was given for each by its name; None, False and empty lists are not given.

    Example:
        >>> exclude("give one of them", {"--flat": True, "--depth": None})
    """
    given = [name for name, value in options.items() if value is not None and value is not False and value != []]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} exclude each other", hint=why)


def number_pairs(texts: Sequence[str], option: str) -> dict[str, float]:
    """The numbers by name of a repeated ``--param NAME=VALUE``.

    Example:
        >>> number_pairs(["density=0.3"], "--param")
        {'density': 0.3}
    """
    found: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise UsageError(f'{option} "{text}" is not NAME=NUMBER', hint=f"{option} {name or 'name'}=0.5") from None
    return found


def recipe_values(texts: Sequence[str]) -> dict[str, float | str]:
    """The numbers, and the names of lists, of a repeated ``--var NAME=VALUE``.

    Example:
        >>> recipe_values(["first=4", "layers=model.layers"])
        {'first': 4.0, 'layers': 'model.layers'}
    """
    found: dict[str, float | str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            if not equals or not value.strip():
                raise UsageError(f'--var "{text}" is not NAME=NUMBER', hint=f"--var {name or 'name'}=2") from None
            found[name.strip()] = value.strip()
    return found


def open_selected(path: PurePath, select: str | None, ema: bool = False) -> Checkpoint:
    """The checkpoint, with the weights that --select or --ema means."""
    from ckptool.facts.averages import averaged
    from ckptool.formats.opening import open_checkpoint

    if not ema:
        return open_checkpoint(path, select=select)
    if select is not None:
        raise UsageError("--ema and --select exclude each other", hint="give one of them")
    return averaged(open_checkpoint(path), lambda place: open_checkpoint(path, select=place))


def decoded(checkpoint: Checkpoint, dequantize: bool, dtype: str | None = None) -> Checkpoint:
    """The checkpoint; with --dequantize, its logical tensors in the dtype that --dtype names."""
    if not dequantize:
        return checkpoint
    from ckptool.commands.filter import float_dtype
    from ckptool.engine.dequantize import dequantized

    return dequantized(checkpoint, float_dtype(dtype))


def value_options(context: typer.Context) -> set[str]:
    """The names of all options of a command that take a value."""
    options = (parameter for parameter in context.command.params if parameter.param_type_name == "option")
    return {name for option in options if not getattr(option, "is_flag", False) for name in option.opts}


def print_list(name: str, about: str, rows: Sequence[tuple[str, str]]) -> None:
    """Prints names and what they mean in two columns, the second wrapped."""
    from ckptool.cli.output import print_lines, stdout_screen
    from ckptool.report.text import Cell, Column, Screen, table, wrap

    screen = stdout_screen(Color.AUTO)
    width = max(len(name) for name, _ in rows)
    room = Screen(width=max(20, screen.width - width - 2), elide=True)
    cells = []
    for title, text in rows:
        first, *rest = wrap(text, room, indent="")
        cells += [(Cell(title, "cyan"), Cell(first)), *((Cell(), Cell(line)) for line in rest)]
    print_lines(table((Column(name), Column(about)), cells, screen), screen, pager=False)
