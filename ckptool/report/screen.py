"""Documents as text: for terminals as wide as they are, and for files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ckptool.core.checkpoint import Note
from ckptool.report import text
from ckptool.report.blocks import (
    Block,
    Chart,
    Code,
    Column,
    Facts,
    Findings,
    Item,
    Items,
    Next,
    Notes,
    Rows,
    Side,
    Sides,
    Totals,
)
from ckptool.report.cells import NUMBERS, Row, cell_of, cell_text, spec_style
from ckptool.report.document import Answer, Document, Mood
from ckptool.report.escape import terminal
from ckptool.report.hints import wrap_hint
from ckptool.report.symbols import LEVELS, STYLES, Style
from ckptool.report.text import Line, Screen, Span, fit, wrap
from ckptool.report.text_width import cells, elide, elide_apart

if TYPE_CHECKING:
    from ckptool.commands.checks.finding import Finding

_LONGEST = 2000  # characters of a sentence: a command is shown whole
_ENTRIES = 12  # of a list of names
_ENTRY = 120  # characters of one
_ITEMS = 60
_DETAILS = 8  # of one finding
_MOODS: dict[Mood, Style] = {"plain": "", "good": "green", "warning": "yellow", "bad": "red"}


def encode_document(document: Document) -> Iterator[str]:
    """What a terminal shows, as it stands in a file, with the problems that a terminal gets on stderr."""
    screen = Screen()
    return (f"{text.paint(line, screen)}\n" for line in document_lines(document, screen, problems=True))


def document_text(document: Document, width: int = 100) -> str:
    """What `print` shows of a result in Python."""
    screen = Screen(width=width, elide=True)
    return "\n".join(text.paint(line, screen) for line in document_lines(document, screen, problems=True))


def blocks_text(blocks: Iterable[Block], width: int = 100) -> str:
    """The same of blocks alone."""
    screen = Screen(width=width, elide=True)
    return "\n".join(text.paint(line, screen) for line in block_lines(blocks, screen))


def document_lines(document: Document, screen: Screen, problems: bool = False) -> Iterator[Line]:
    """The answer, the problems if they are asked for, and the blocks."""
    if document.answer.mood != "plain":
        yield from answer_lines(document.answer, screen)
    for problem in document.problems if problems else ():
        yield (Span(f"error: {terminal(problem.message, _LONGEST)}"),)
        if problem.hint:
            yield (Span(f"  help: {terminal(problem.hint, _LONGEST)}"),)
    yield from block_lines(document.blocks(), screen, document.verbose)


def answer_lines(answer: Answer, screen: Screen) -> Iterator[Line]:
    """The answer, wrapped where the screen is narrow; its first word says it in colour."""
    first, *rest = wrap(answer.text, screen)
    head, colon, tail = first.partition(":")
    yield (Span(head + colon, _MOODS[answer.mood]), Span(tail))
    yield from ((Span(line),) for line in rest)


def block_lines(blocks: Iterable[Block], screen: Screen, verbose: bool = False) -> Iterator[Line]:
    """All blocks; tables, findings, code and lists of more than lines stand apart."""
    apart = None  # whether the block before does; nothing is before the first
    for block in blocks:
        lines = list(_lines(block, screen, verbose))
        if not lines:
            continue
        is_code = isinstance(block, Code)
        stands_apart = is_code or isinstance(block, Rows | Findings) or (isinstance(block, Items) and block.is_long)
        if apart or (stands_apart and (is_code or apart is not None)):
            yield ()
        apart = stands_apart
        yield from lines


def _lines(block: Block, screen: Screen, verbose: bool) -> Iterator[Line]:
    match block:
        case Sides():
            return _sides(block, screen) if block.on_screen else iter(())
        case Totals():
            lines = fit((terminal(part, _LONGEST) for part in block.parts), screen, block.separator, indent="  ")
            return _plain(short for line in lines for short in _wrapped(line, screen))
        case Facts():
            return _facts(block, screen)
        case Notes():
            return _notes(block.notes, screen)
        case Rows():
            return _rows(block, screen, verbose)
        case Items():
            return _items(block, screen, verbose)
        case Findings():
            return _findings(block.findings, screen, verbose)
        case Chart():
            return iter(())
        case Code():
            return _plain(map(terminal, block.text.splitlines()))
        case Next():
            return _plain(fit(map(terminal, block.parts), screen, separator="    "), "dim")


def _plain(lines: Iterable[str], style: Style = "") -> Iterator[Line]:
    return ((Span(line, style),) for line in lines)


def _sides(block: Sides, screen: Screen) -> Iterator[Line]:
    """``resnet18.pth   torch zip, 46.8 MB``; several sides, or those with a mark, are a table."""
    if len(block.sides) == 1 and not block.sides[0].mark:
        yield from _one_side(block.sides[0], screen)
        return
    facts = [list(map(terminal, side.facts)) for side in block.sides]
    if len(set(map(len, facts))) > 1:
        facts = [[", ".join(texts)] for texts in facts]
    marks = max(len(side.mark) + min(len(side.mark), 2) for side in block.sides)
    beside = sum(2 + max(map(cells, column)) for column in zip(*facts, strict=True))
    widest = max(16, screen.width - 60, screen.width - marks - beside) if screen.elide else 1 << 20
    rows: list[list[text.Cell]] = []
    names = elide_apart([terminal(side.name) for side in block.sides], [widest] * len(block.sides))
    for side, name, texts in zip(block.sides, names, facts, strict=True):
        rows.append([text.Cell(name, side.style, f"{side.mark:<{marks}}"), *map(text.Cell, texts)])
    last = min(20, max((cells(texts[-1]) for texts in facts if texts), default=0))
    columns = [text.Column("", least=16), *[text.Column("", ">")] * (len(facts[0]) - 1), text.Column("", least=last)]
    yield from text.table(columns, rows, screen)


def _one_side(side: Side, screen: Screen) -> Iterator[Line]:
    name = elide(terminal(side.name), max(20, screen.width - 30)) if screen.elide else terminal(side.name)
    facts = list(fit(map(terminal, side.facts), replace(screen, width=screen.width - 3)))
    if not screen.elide or cells(name) + 3 + cells(", ".join(facts)) <= screen.width:
        yield (Span(name, side.style), Span("   " + ", ".join(facts)))
        return
    yield (Span(name, side.style),)
    yield from _plain(elide(f"  {fact}", screen.width) for fact in facts)


def _facts(block: Facts, screen: Screen) -> Iterator[Line]:
    for title, entries in block.rows:
        if not entries:
            continue
        shown = [terminal(entry, _LONGEST if len(entries) == 1 else _ENTRY) for entry in entries[:_ENTRIES]]
        if len(entries) > _ENTRIES:
            shown.append(f"{len(entries) - _ENTRIES:,} more")
        lines = fit([f"{title}: {shown[0]}", *shown[1:]], screen, indent="  ")
        first, *rest = (line for long in lines for line in _wrapped(long, screen))
        yield (Span(f"{title}:", "dim"), Span(first.removeprefix(f"{title}:")))
        yield from _plain(rest)


def _wrapped(line: str, screen: Screen) -> Iterator[str]:
    """A line that is too long broken between words."""
    if not screen.elide or cells(line) <= screen.width:
        yield line
        return
    indent = "  " if line.startswith("  ") else ""
    yield from wrap(line.strip(" "), screen, first=indent)


def _notes(notes: Sequence[Note], screen: Screen) -> Iterator[Line]:
    for level, said, hint in dict.fromkeys((note.level, note.text, note.hint) for note in notes):
        style: Style = "yellow" if level == "warning" else "dim"
        first, *rest = wrap(f"{level}: {terminal(said, _LONGEST)}", screen)
        yield (Span(f"{level}:", style), Span(first.removeprefix(f"{level}:")))
        yield from _plain(rest)
        if hint:
            yield from _plain(wrap_hint(terminal(hint, _LONGEST), screen))


# ---------------------------------------------------------------------------------------------- tables


def _rows(block: Rows, screen: Screen, verbose: bool) -> Iterator[Line]:
    """A table of the columns that have values and room."""
    if verbose and block.each is not None:
        block = block.each
    rows = _with_short_keys(block.rows(), block.columns, screen)
    shown = [at for at, column in enumerate(block.columns) if screen.is_wide or not column.wide]
    found = [_cells(row, block.columns, shown, screen) for row in rows]
    used = [
        n
        for n, at in enumerate(shown)
        if block.columns[at].kind == "key" or any(n < len(row) and row[n].text for row in found)
    ]
    columns = [block.columns[shown[n]] for n in used]
    lines = [[row[n] for n in used if n < len(row)] for row in found]
    if screen.elide:
        while any(column.spare for column in columns) and _width(columns, lines) > screen.width:
            last = max(n for n, column in enumerate(columns) if column.spare)
            columns = [*columns[:last], *columns[last + 1 :]]
            lines = [[*row[:last], *row[last + 1 :]] for row in lines]
        if any(column.wraps for column in columns):
            lines = list(_below(lines, columns, screen))
    heads = [text.Column(column.title, ">" if column.kind in NUMBERS else "<", column.least) for column in columns]
    if heads and lines:
        yield from text.table(heads, lines, screen)


def _cells(row: Row, columns: Sequence[Column], shown: Sequence[int], screen: Screen) -> list[text.Cell]:
    found = []
    for at in shown:
        if at >= len(row.cells):
            break
        kind, cell = columns[at].kind, cell_of(row.cells[at])
        said = cell_text(kind, cell.value, screen.is_wide)
        own = STYLES.get(said, "") if kind == "mark" else spec_style(said) if kind == "spec" and not row.style else ""
        level = cell.style or own or row.style
        found.append(text.Cell(said if kind in NUMBERS else terminal(said), level, cell.lead))
    return found


def _with_short_keys(rows: Sequence[Row], columns: Sequence[Column], screen: Screen) -> Sequence[Row]:
    """The rows with the patterns of each in one text; those that are too long still differ when they are elided."""
    keys = next((at for at, column in enumerate(columns) if column.kind == "key"), None)
    if keys is None:
        return rows
    cells_of_keys = {n: cell_of(row.cells[keys]) for n, row in enumerate(rows) if keys < len(row.cells)}
    several = {n: cell for n, cell in cells_of_keys.items() if isinstance(cell.value, tuple) and cell.value}
    room = max(16, screen.width - (70 if screen.is_wide else 44)) if screen.elide else 90
    rests = [len(f"  +{len(cell.value) - 1} more") if len(cell.value) > 1 else 0 for cell in several.values()]
    firsts = elide_apart([cell.value[0] for cell in several.values()], [max(16, room - rest) for rest in rests])
    short = list(rows)
    for (n, cell), first in zip(several.items(), firsts, strict=True):
        text = _patterns([first, *cell.value[1:]], room)
        short[n] = rows[n]._replace(
            cells=[*rows[n].cells[:keys], cell._replace(value=text), *rows[n].cells[keys + 1 :]]
        )
    return short


def _patterns(patterns: Sequence[str], room: int) -> str:
    """As many patterns as have room, then how many more there are."""
    shown = patterns[0]
    for at, pattern in enumerate(patterns[1:], 1):
        more = f"  +{len(patterns) - at} more"
        last = at == len(patterns) - 1
        if cells(f"{shown}  {pattern}") + (0 if last else len(more)) > room:
            return shown + more
        shown += f"  {pattern}"
    return shown


def _width(columns: Sequence[Column], rows: Sequence[Sequence[text.Cell]]) -> int:
    """Columns of the screen that a table takes if nothing is elided."""
    widths = [cells(column.title) for column in columns]
    for row in rows:
        for at, cell in enumerate(row):
            widths[at] = max(widths[at], cells(cell.lead) + cells(cell.text))
    return sum(widths) + 2 * (sum(map(bool, widths)) - 1)


def _below(rows: Sequence[list[text.Cell]], columns: Sequence[Column], screen: Screen) -> Iterator[list[text.Cell]]:
    """The rows with the column that wraps broken between words; what does not fit goes on below."""
    at = next(at for at, column in enumerate(columns) if column.wraps)
    others = _width([*columns[:at], *columns[at + 1 :]], [[*row[:at], *row[at + 1 :]] for row in rows])
    narrow = replace(screen, width=max(columns[at].least or 20, screen.width - others - 2))
    for row in rows:
        if len(row) < len(columns):
            yield row
            continue
        first, *rest = wrap(row[at].text, narrow)
        yield [*row[:at], row[at]._replace(text=first), *row[at + 1 :]]
        blank = [text.Cell()] * (len(columns) - at - 1)
        yield from ([*[text.Cell()] * at, text.Cell(line, row[at].style), *blank] for line in rest)


# ---------------------------------------------------------------------------------------------- lists


def _items(block: Items, screen: Screen, verbose: bool) -> Iterator[Line]:
    if block.title:
        head = ": ".join(filter(None, (block.title, block.sum)))
        first, *rest = wrap(head, screen)
        yield (Span(block.title, "dim"), Span(first.removeprefix(block.title)))
        yield from _plain(rest)
    shown = block.items if verbose else block.items[:_ITEMS]
    digits = max((len(item.label) for item in shown), default=0)
    for item in shown:
        yield from _item(item, digits, screen, code=block.code)
    if len(shown) < len(block.items):
        yield (Span(f"  {len(block.items) - len(shown):,} more (all: -v)", "dim"),)


def _item(item: Item, digits: int, screen: Screen, code: bool) -> Iterator[Line]:
    """A mark, a number, the text; below it the rest. Code that is a rule is first broken at its arrow."""
    style = STYLES.get(item.mark, item.style)
    label = f" {item.label:>{digits}}  " if digits else " "
    lead = " " * len(item.mark + label) if digits or len(item.mark) == 1 else "  "
    room = replace(screen, width=screen.width - len(item.mark + label))
    said = terminal(item.text, _LONGEST)
    left, arrow, right = said.partition(" -> ")
    if code and arrow and screen.elide and cells(said) > room.width:
        lines = [*wrap(left, room, indent=""), *wrap(f"-> {right}", room, indent="     ", first="  ")]
    else:
        lines = list(wrap(said, room, indent="" if digits else "  "))
    tone = item.style if item.loud else ""
    yield (Span(item.mark, style), Span(label, "dim"), Span(lines[0], tone))
    yield from ((Span(f"{lead}{line}", tone),) for line in lines[1:])
    for more in item.below:
        start = f"{lead}  " if digits else lead
        below = wrap(terminal(more, _LONGEST), screen, indent=f"{start}  ", first=start)
        yield from _plain(below, "dim" if code else "")


def _findings(findings: Sequence[Finding], screen: Screen, verbose: bool) -> Iterator[Line]:
    from ckptool.report.findings import policy_text

    for number, finding in enumerate(findings):
        if number:
            yield ()
        name = f"{finding.level}[{terminal(finding.rule, 60)}]"
        first, *rest = wrap(f"{name}: {terminal(finding.message, 600)}", screen)
        yield (Span(name, LEVELS[finding.level]), Span(first.removeprefix(name), "bold"))
        yield from _plain(rest, "bold")
        yield (Span("  --> ", "dim"), Span(_fitted(terminal(finding.file), 6, screen)))
        many = len(finding.details)
        shown = many if verbose or many <= _DETAILS + 1 else _DETAILS
        for detail in _details(finding, shown, screen):
            yield (Span("   | ", "dim"), Span(_fitted(detail, 5, screen)))
        if shown < many:
            yield (Span("   | ", "dim"), Span(f"{many - shown:,} more (all: -v)", "dim"))
        policy = "" if finding.policy is None else policy_text(finding.policy)
        for title, remark in (("policy", policy), ("help", finding.help)):
            if remark:
                start = f"   = {title}: "
                first, *rest = wrap_hint(terminal(remark, _LONGEST), screen, first=start, indent=" " * 5)
                yield (Span(start, "dim"), Span(first.removeprefix(start)))
                yield from _plain(rest)


def _details(finding: Finding, shown: int, screen: Screen) -> list[str]:
    """The first lines that prove a finding; keys that are too long for the screen still differ when they are elided."""
    lines = [terminal(detail, 600) for detail in finding.details[:shown]]
    room = screen.width - 5
    if not screen.elide or all(cells(line) <= room for line in lines):
        return lines
    keys = [terminal(key, 600) for key in finding.keys[:shown]]
    if len(keys) < len(lines) or not all(line.startswith(key) for line, key in zip(lines, keys, strict=True)):
        return elide_apart(lines, [room] * len(lines))
    rests = [line[len(key) :].strip() for line, key in zip(lines, keys, strict=True)]
    width = max(16, min(room - 2 - cells(rest) for rest in rests))
    keys = elide_apart(keys, [width] * len(keys))
    widest = max(map(cells, keys))
    return [f"{key}{' ' * (widest - cells(key))}  {rest}" for key, rest in zip(keys, rests, strict=True)]


def _fitted(said: str, before: int, screen: Screen) -> str:
    return elide(said, max(8, screen.width - before)) if screen.elide else said
