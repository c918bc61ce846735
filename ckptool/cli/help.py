"""Help pages without boxes: what it does, how it is called, options in groups, examples, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, NoReturn

from typer.core import TyperCommand, TyperGroup

from ckptool.core.errors import UsageError
from ckptool.core.shell import shell_quote
from ckptool.report.text import Cell, Column, Line, Screen, Span, paint, table, wrap
from ckptool.storage.environment import VARIABLES
from ckptool.storage.paths import exists, is_address

Section = tuple[str, list[tuple[str, str]]]

_FILTER = ("filter IN -o OUT.safetensors",)
_REMAP = ("remap IN -r 'FROM -> TO' -o OUT",)
_MERGE = ("merge A B --method linear -o OUT",)
_ADAPTER = ("merge BASE --lora ADAPTER -o OUT",)
_INSPECT = ("inspect FILE",)
_TRANSPLANT = ("transplant SOURCE --into MODEL -o OUT",)
_CHECK = ("check FILE",)
_ELSEWHERE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("convert", "cast", "quantize", "shard", "split", "export", "save", "strip", "prune"), _FILTER),
    **dict.fromkeys(("extract", "keep", "drop", "delete", "remove", "select", "half", "to-safetensors"), _FILTER),
    **dict.fromkeys(("rename", "map", "edit", "rename-keys", "reshape", "transpose", "permute"), _REMAP),
    **dict.fromkeys(("average", "avg", "soup", "mix", "blend", "interpolate", "slerp", "ties", "join"), _MERGE),
    **dict.fromkeys(("merge-lora", "lora", "apply-lora", "merge-adapter", "fuse", "fuse-lora", "bake"), _ADAPTER),
    **dict.fromkeys(("show", "info", "ls", "list", "cat", "print", "view", "dump", "keys", "stats", "head"), _INSPECT),
    **dict.fromkeys(("compare", "cmp"), ("diff OLD NEW",)),
    "version": ("--version",),
    **dict.fromkeys(("match", "align", "auto"), ("remap IN --auto --like MODEL",)),
    **dict.fromkeys(("load", "load-into", "init", "fit", "adapt", "transfer", "finetune"), _TRANSPLANT),
    **dict.fromkeys(("verify", "validate", "scan", "lint", "test", "audit"), _CHECK),
}
"""What other tools call it, and which command does it."""


class HelpCommand(TyperCommand):
    """A command with our help page."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """As typer does; every error about the options knows whose they are."""
        try:
            ctx.allow_extra_args = True  # they are refused here
            further = super().parse_args(ctx, args)
            if further and not ctx.resilient_parsing:
                _refuse_further(ctx, further)
            return further
        except Exception as error:
            if getattr(error, "ctx", ctx) is None:
                error.ctx = ctx  # type: ignore[attr-defined]
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(_page(self, ctx, []))


def _refuse_further(ctx: Any, words: Sequence[str]) -> NoReturn:
    """Refuses more arguments than a command takes."""
    hint = f"{ctx.command_path} --help"
    if ctx.info_name == "inspect":
        hint = (
            f"one at a time; to compare two: ckptool diff {' '.join(map(shell_quote, (ctx.params['path'], words[0])))}"
        )
    raise UsageError(f"{ctx.command_path} does not take so many arguments: {' '.join(words)}", hint=hint)


class HelpGroup(TyperGroup):
    """The command group with our help page."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        commands: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                panel = getattr(command, "rich_help_panel", None) or "Commands"
                commands.setdefault(panel, []).append((name, (command.help or "").partition("\n")[0]))
        formatter.write(_page(self, ctx, list(commands.items())))

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)  # in the order they were registered, not sorted

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As typer does; a word of other tools is answered with the command that does it."""
        word = args[0].casefold().replace("_", "-") if args else ""
        meant = _ELSEWHERE.get(word)
        if meant is not None and word not in self.commands:
            hint = "   ".join(f"ckptool {each}" for each in meant)
            raise UsageError(f'there is no command "{word}"', hint=hint)
        if args and word not in self.commands and (names := _files_in(args)):
            command = "diff" if len(names) == 2 else "inspect"
            typed = " ".join(shell_quote(name) for name in (names if command == "diff" else names[:1]))
            raise UsageError(f"there is no command before {names[0]}", hint=f"ckptool {command} {typed}")
        return super().resolve_command(ctx, args)


def _files_in(words: Sequence[str]) -> list[str]:
    """The first words, as far as they are files, folders or addresses, or end as checkpoints do."""
    from ckptool.formats.registry import read_endings

    endings = tuple(read_endings())
    return list(takewhile(lambda word: is_address(word) or exists(word) or word.lower().endswith(endings), words))


def _page(command: Any, ctx: Any, before: list[Section]) -> str:
    screen = Screen.of(sys.stdout, VARIABLES, "auto")
    if not screen.elide:
        screen = Screen(width=100, color=screen.color, unicode=screen.unicode, elide=True)
    return "\n".join(paint(line, screen) for line in _lines(command, ctx, before, screen)) + "\n"


def _lines(command: Any, ctx: Any, before: list[Section], screen: Screen) -> Iterator[Line]:
    pieces = [piece.strip("{}") for piece in command.collect_usage_pieces(ctx)]
    first, *rest = wrap(" ".join((ctx.command_path, *pieces)), Screen(width=screen.width - 7, elide=True), indent="  ")
    named = len(ctx.command_path)
    yield (Span("Usage: ", "dim"), Span(first[:named], "bold"), Span(first[named:]))
    yield from ((Span(" " * 7 + line),) for line in rest)
    for paragraph in (command.help or "").split("\n\n"):
        yield ()
        for text in wrap(" ".join(paragraph.split()), screen, indent=""):
            yield (Span(text),)
    for title, entries in [*before, *_options(command, ctx)]:
        yield ()
        yield (Span(f"{title}:", "bold"),)
        yield from _entries(entries, screen)
    yield ()
    for text in (command.epilog or "").splitlines():
        yield (Span(text, "bold" if text.endswith(":") else ""),)


def _options(command: Any, ctx: Any) -> list[Section]:
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        is_argument = parameter.param_type_name == "argument"
        panel = getattr(parameter, "rich_help_panel", None) or ("Arguments" if is_argument else "Options")
        sections.setdefault(panel, []).append((record[0], record[1]))
    return list(sections.items())


def _entries(entries: list[tuple[str, str]], screen: Screen) -> Iterator[Line]:
    """Names in one column, their help wrapped in another."""
    names = min(32, max(len(name) for name, _ in entries))
    room = Screen(width=max(20, screen.width - names - 4), elide=True)
    rows: list[tuple[Cell, ...]] = []
    for name, text in entries:
        first, *rest = list(wrap(text, room, indent=""))
        if len(name) > names:
            rows.append((Cell(lead="  ", text=name, style="cyan"),))  # its own line, and no width of the column
            name = ""
        rows.append((Cell(lead="  ", text=name, style="cyan"), Cell(first)))
        rows.extend((Cell(lead="  "), Cell(line)) for line in rest)
    yield from table((Column(""), Column("")), rows, Screen(width=screen.width))
