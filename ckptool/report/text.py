"""Text for terminals: lines of styled spans, tables with one flexible column, and the screen they are painted on.

Styles, colours and widths are rich's. The tables are our own: rich's cut a cell at its end, and a key says most there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal, NamedTuple, TextIO

from ckptool.report.symbols import Style
from ckptool.report.text_width import cells, elide_apart, shorten_end
from ckptool.storage.environment import terminal_size

if TYPE_CHECKING:
    from rich.style import Style as RichStyle

_GLYPHS = "├─│└…→×▁▂▃▄▅▆▇█▏▎▍▌▋▊▉Δ√±−≤‖"
_MAKE_A_TERMINAL = ("FORCE_COLOR", "TTY_COMPATIBLE")  # rich takes what is not one for one where these are set
_PLAIN = str.maketrans(_GLYPHS, "|-|`~>x_.-~=+*#...::##Dv~-<|")


class Span(NamedTuple):  # not a dataclass: a long listing makes a million of them
    """A piece of a line in one style. The text is already escaped."""

    text: str
    style: Style = ""


Line = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Screen:
    """Where text will be seen.

    Attributes:
        width: columns.
        height: rows of a terminal; None if it is not one.
        color: styles are painted.
        unicode: box and bar glyphs can be shown.
        elide: lines may not be longer than `width`; False where output goes to a file or a pipe.
    """

    width: int = 160
    height: int | None = None
    color: bool = False
    unicode: bool = True
    elide: bool = False

    @property
    def is_wide(self) -> bool:
        """True if the additional columns fit."""
        return self.width >= 120

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str], color: Literal["auto", "always", "never"]) -> Screen:
        """The screen behind a stream, with what the environment says about it."""
        columns, rows, is_terminal = _dimensions(stream, environ)
        return cls(
            width=columns or 160,
            height=rows if is_terminal else None,
            color=_wants_color(stream, environ, color),
            unicode=_holds_glyphs(stream),
            elide=columns is not None,
        )


def _dimensions(stream: TextIO, environ: Mapping[str, str]) -> tuple[int | None, int, bool]:
    """(columns or None if nothing bounds them, rows, whether the stream is a terminal)."""
    is_terminal = stream.isatty()
    columns: int | None = None
    rows = 24
    if is_terminal:
        try:
            columns, rows = terminal_size(stream)
        except OSError:
            columns = 80
        columns = columns or 80
    wanted = environ.get("COLUMNS", "")
    if wanted.isascii() and wanted.isdigit() and len(wanted) < 6 and int(wanted):
        columns = max(20, int(wanted))
    return columns, rows, is_terminal


def _wants_color(stream: TextIO, environ: Mapping[str, str], color: str) -> bool:
    """What was asked for; else what rich makes of the stream, NO_COLOR, FORCE_COLOR and TERM."""
    if color != "auto":
        return color == "always"
    if not (stream.isatty() or any(name in environ for name in _MAKE_A_TERMINAL)):
        return False
    from rich.console import Console

    console = Console(file=stream)
    return console.color_system is not None and not console.no_color


def _holds_glyphs(stream: TextIO) -> bool:
    try:
        _GLYPHS.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def paint(line: Line, screen: Screen) -> str:
    """One line as the characters to print, without its line end and without spaces at its end.

    Example:
        >>> paint((Span("├─ "), Span("a", "red")), Screen(unicode=False))
        '|- a'
    """
    plain = "".join(span.text for span in line).rstrip(" ")
    text = "".join(map(_painted, line)) if screen.color else plain
    return text if screen.unicode else text.translate(_PLAIN)


def _painted(span: Span) -> str:
    from rich.color import ColorSystem

    return _style(span.style).render(span.text, color_system=ColorSystem.STANDARD) if span.style else span.text


@cache
def _style(name: Style) -> RichStyle:
    from rich.style import Style as RichStyle

    return RichStyle.parse(name.replace("blue", "bright_blue"))  # the plain one is hard to read on black


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        align: to which side its cells go.
        least: columns it may be narrowed to; None for one that is never narrowed.
    """

    title: str
    align: Literal["<", ">"] = "<"
    least: int | None = None


class Cell(NamedTuple):
    """One cell: a lead that is always whole (the branches of a tree), and its text."""

    text: str = ""
    style: Style = ""
    lead: str = ""


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], screen: Screen, gap: int = 2) -> Iterator[Line]:
    """The lines of a table: aligned, numbers whole, flexible columns elided in the middle where the screen is narrow.

    Columns that are empty in every row and in the heading take no space. A row may have fewer cells than there are
    columns: its last cell then has the rest of the line.
    """
    taken = [[cells(cell.lead) + cells(cell.text) for cell in row] for row in rows]
    titles = [cells(column.title) for column in columns]
    full = (needs if len(needs) == len(columns) else needs[:-1] for needs in taken)
    widths = [max(column) for column in zip_longest(titles, *full, fillvalue=0)]
    if screen.elide:
        _narrow(widths, columns, screen.width, gap)
        rows, taken = _elided(rows, taken, widths)
    if any(titles):
        yield _row(columns, [Cell(column.title, "dim") for column in columns], titles, widths, gap)
    for row, needed in zip(rows, taken, strict=True):
        if len(row) < len(columns):
            before = sum(width + gap for width in widths[: len(row) - 1] if width)
            rest = screen.width - before if screen.elide else needed[-1]
            cut = row[-1]._replace(text=shorten_end(row[-1].text, rest))
            yield _row(columns, [*row[:-1], cut], needed, [*widths[: len(row) - 1], rest], gap)
        else:
            yield _row(columns, row, needed, widths, gap)


def _elided(
    rows: Sequence[Sequence[Cell]], taken: Sequence[Sequence[int]], widths: Sequence[int]
) -> tuple[Sequence[Sequence[Cell]], list[list[int]]]:
    """The rows, and the columns that their cells take, with what is wider than its column elided.

    Cells of a column that differ stay different.
    """
    changed: list[Sequence[Cell]] = list(rows)
    for at, width in enumerate(widths):
        full = [n for n, row in enumerate(rows) if at < len(row) and (at < len(row) - 1 or len(row) == len(widths))]
        if all(taken[n][at] <= width for n in full):
            continue
        rooms = [max(1, width - cells(rows[n][at].lead)) for n in full]
        for n, text in zip(full, elide_apart([rows[n][at].text for n in full], rooms), strict=True):
            changed[n] = [*changed[n][:at], changed[n][at]._replace(text=text), *changed[n][at + 1 :]]
    return changed, [[cells(cell.lead) + cells(cell.text) for cell in row] for row in changed]


def _narrow(widths: list[int], columns: Sequence[Column], room: int, gap: int) -> None:
    """Takes from the widest flexible columns what does not fit the room."""
    excess = sum(widths) + gap * (sum(map(bool, widths)) - 1) - room
    while excess > 0:
        flexible = [
            (widths[at], at)
            for at, column in enumerate(columns)
            if column.least is not None and widths[at] > column.least
        ]
        if not flexible:
            return
        widest, at = max(flexible)
        second = max((width for width, other in flexible if other != at), default=0)
        least = columns[at].least or 0
        less = max(1, min(excess, widest - max(second, least)))
        widths[at] -= less
        excess -= less


def _row(
    columns: Sequence[Column], row: Sequence[Cell], needed: Sequence[int], widths: Sequence[int], gap: int
) -> Line:
    line: list[Span] = []
    blank = 0  # spaces owed before the next text
    for column, cell, need, width in zip(columns, row, needed, widths, strict=False):
        if not need:
            blank += width + gap if width else 0
            continue
        pad = max(0, width - need)
        if column.align == ">":
            blank, pad = blank + pad, 0
        if blank:
            line.append(Span(" " * blank))
        if cell.lead:
            line.append(Span(cell.lead, "dim"))
        line.append(Span(cell.text, cell.style))
        blank = gap + pad
    return tuple(line)


def fit(parts: Iterable[str], screen: Screen, separator: str = ", ", indent: str = "") -> Iterator[str]:
    """Joins parts to lines that fit the screen, breaking only between parts.

    Example:
        >>> list(fit(["alpha", "beta", "gamma"], Screen(width=12, elide=True)))
        ['alpha, beta,', 'gamma']
    """
    line = ""
    for part in parts:
        joined = f"{line}{separator}{part}" if line else part
        if line and screen.elide and cells(joined) > screen.width - cells(indent):
            yield line + separator.rstrip()
            line = indent + part
        else:
            line = joined
    if line:
        yield line


def wrap(text: str, screen: Screen, indent: str = "  ", first: str = "") -> Iterator[str]:
    """Text broken between words where the screen is narrow.

    A word longer than the screen stays whole, in a line of its own: it may be a part of a command, or tell two keys
    apart.

    Example:
        >>> list(wrap("one two three model.layers.0", Screen(width=9, elide=True)))
        ['one two', '  three', '  model.layers.0']
    """
    room = screen.width if screen.elide else 1 << 30
    start = line = first
    for word in text.split(" "):
        joined = line + word if line == start else f"{line} {word}"
        if line == start or cells(joined) <= room:
            line = joined
        else:
            yield line
            start = indent
            line = indent + word
    yield line
