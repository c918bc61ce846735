"""``ckptool help``: the pages of `ckptool/help/`, and the help of each command."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.resources import files
from itertools import zip_longest
from typing import Annotated

import typer

from ckptool.cli.common import Color, ColorOption, NoPagerOption
from ckptool.cli.output import print_lines, print_texts, stdout_screen
from ckptool.core.errors import Exit, UsageError
from ckptool.report.text import Line, Screen, Span, wrap

_LAST = 30  # columns that the last column of a table gets at least

EPILOG = """\
Examples:
  ckptool help
  ckptool help recipes
  ckptool help recipes | less"""


def complete_topics(incomplete: str) -> list[str]:
    """Names of pages."""
    return [name for name in topics() if name.startswith(incomplete)]


def topics() -> dict[str, str]:
    """The pages: name and title, in the order of their names."""
    folder = files("ckptool") / "help"
    names = sorted(entry.name.removesuffix(".md") for entry in folder.iterdir() if entry.name.endswith(".md"))
    return {name: page(name).partition("\n")[0].removeprefix("# ") for name in names}


def page(name: str) -> str:
    """The Markdown of one page."""
    return (files("ckptool") / "help" / f"{name}.md").read_text(encoding="utf-8")


def help(
    context: typer.Context,
    topic: Annotated[
        str | None,
        typer.Argument(metavar="TOPIC", help="A page or a command; none lists them.", autocompletion=complete_topics),
    ] = None,
    color: ColorOption = Color.AUTO,
    no_pager: NoPagerOption = False,
) -> int:
    """Show a page: the recipe language, formats, policies, exit codes, ..."""
    screen = stdout_screen(color)
    known = topics()
    group = context.find_root().command
    command = getattr(group, "commands", {}).get(topic)
    if topic is None:
        print_lines(_contents(known, screen), screen, pager=False)
    elif topic in known:
        text = page(topic)
        if screen.elide:
            print_lines(page_lines(text, screen), screen, pager=not no_pager)
        else:  # a pipe gets the Markdown itself
            print_texts([text])
    elif command is not None:
        print_texts([command.get_help(typer.Context(command, info_name=topic, parent=context.find_root())), "\n"])
    else:
        close = get_close_matches(topic, [*known, *getattr(group, "commands", {})], n=1)
        said = f"did you mean {close[0]}?" if close else _pages_about(topic, known)
        hint = "   ".join(filter(None, (said, "all pages: ckptool help")))
        raise UsageError(f'there is no page "{topic}"', hint=hint)
    return Exit.OK


def _pages_about(word: str, known: Mapping[str, str]) -> str:
    """``pages about it: output, ci``: where a word occurs most often; "" if in no page."""
    found = {name: len(re.findall(rf"\b{re.escape(word)}\b", page(name), re.IGNORECASE)) for name in known}
    in_title = {name: word.lower() in title.lower() for name, title in known.items()}
    names = [name for name in sorted(known, key=lambda name: (not in_title[name], -found[name])) if found[name]]
    return f"pages about it: {', '.join(names[:3])}" if names else ""


def _contents(known: dict[str, str], screen: Screen) -> Iterator[Line]:
    width = max(map(len, known))
    yield (Span("Pages:", "bold"),)
    for name, title in known.items():
        yield (Span(f"  {name:<{width}}", "cyan"), Span(f"  {title}"))
    yield ()
    for text in wrap(
        "ckptool help TOPIC shows one. ckptool COMMAND --help lists the options of a command.", screen, ""
    ):
        yield (Span(text),)


def _broken(text: str, width: int) -> Iterator[str]:
    """A text in lines of this width, broken between words; a longer word is cut."""
    for line in wrap(text, Screen(width=width, elide=True), ""):
        yield from (line[at : at + width] for at in range(0, max(1, len(line)), width))


def _table_lines(rows: list[list[str]], screen: Screen) -> Iterator[Line]:
    """A table, cells broken between words where the screen is narrow; the first row is its heading."""
    count = max(map(len, rows))
    cells = [[*row, *[""] * (count - len(row))] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    gaps = 2 * (count - 1)
    if sum(widths) + gaps > screen.width:
        most = (screen.width - gaps - min(widths[-1], _LAST)) // max(1, count - 1)
        widths[:-1] = [min(width, most) for width in widths[:-1]]
        widths[-1] = max(1, screen.width - gaps - sum(widths[:-1]))
    for number, row in enumerate(cells):
        broken = [list(_broken(text, width)) for text, width in zip(row, widths, strict=True)]
        for parts in zip_longest(*broken, fillvalue=""):
            line = "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True))
            if line.strip():
                yield (Span(line.rstrip(), "" if number else "dim"),)


def page_lines(text: str, screen: Screen) -> Iterator[Line]:
    """A page for a terminal: paragraphs filled to its width, code and tables as they are, headings bold."""
    paragraph: list[str] = []
    rows: list[list[str]] = []
    is_code = False

    def filled() -> Iterator[Line]:
        if rows:
            yield from _table_lines(rows, screen)
            rows.clear()
        if paragraph:
            joined = " ".join(line.strip() for line in paragraph)
            indent = "   " if joined[:1].isdigit() or joined.startswith("- ") else ""
            yield from ((Span(line),) for line in wrap(joined, screen, indent=indent, first=""))
            paragraph.clear()

    for line in text.splitlines():
        if line.startswith("```"):
            yield from filled()
            is_code = not is_code
        elif is_code:
            yield (Span(f"    {line}", "cyan" if line.startswith("$ ") else ""),)
        elif line.startswith("|"):
            if paragraph:
                yield from filled()
            if set(line) - set("|-: "):
                rows.append([cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif line.startswith("#"):
            yield from filled()
            yield (Span(line.lstrip("# "), "bold"),)
        elif not line.strip():
            yield from filled()
            yield ()
        elif line.startswith("- ") or (line[:1].isdigit() and ". " in line[:4]):
            yield from filled()
            paragraph.append(line)
        else:
            paragraph.append(line)
    yield from filled()
