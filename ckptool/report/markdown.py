"""Markdown for pull requests and job summaries: the answer, what matters, and the long parts folded away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from ckptool.commands.checks.finding import Finding
from ckptool.core.counts import many
from ckptool.report.blocks import Block, Chart, Code, Column, Facts, Findings, Items, Next, Notes, Rows, Sides, Totals
from ckptool.report.cells import NUMBERS, Row, cell_of, cell_text, share_text
from ckptool.report.document import Document
from ckptool.report.escape import markdown, markdown_code, terminal

LIMIT = 1 << 20
"""Bytes of a job summary that GitHub shows."""
_RESERVE = 300  # bytes kept for what says what is left out and closes what is open
_ENTRIES = 20  # of a list of names
_DETAILS = 12  # of one finding
_WHOLE = 1 << 62  # code is not shortened
_DRAWN = ("levels", "hist")  # kinds that only a screen draws


def encode_document(document: Document, limit: int = LIMIT) -> Iterator[str]:
    """The heading, the answer, the problems and the blocks: at most `limit` bytes of UTF-8."""
    left = limit - _RESERVE
    closing = ""
    for piece, ending, rest in _pieces(document):
        left -= len(piece.encode())
        if left < 0:
            yield f"\n… {rest() or 'more than can be shown'}\n{closing}"
            return
        yield piece
        closing = ending


_Piece = tuple[str, str, Callable[[], str]]
"""Text, what closes what it leaves open, and what is left out if it is."""


def _nothing() -> str:
    return ""


def _pieces(document: Document) -> Iterator[_Piece]:
    blocks = sorted(document.blocks(), key=lambda block: isinstance(block, Findings))  # tables first
    sides = next((block for block in blocks if isinstance(block, Sides)), None)
    names = markdown(sides.joint).join(markdown_code(side.name) for side in sides.sides) if sides else ""
    yield f"### ckptool {markdown(document.command)}{f' {names}' if names else ''}\n\n", "", _nothing
    if document.answer.mood != "plain":
        yield f"**{markdown(document.answer.text)}**\n", "", _nothing
    for problem in document.problems:
        yield _said("error", problem.message, problem.hint), "", _nothing
    for block in blocks:
        yield from _block(block)


def _block(block: Block) -> Iterator[_Piece]:
    match block:
        case Sides():
            for side in block.sides if len(block.sides) > 1 else ():
                yield f"\n{markdown_code(side.name)} {markdown(', '.join(side.facts))}  ", "\n", _nothing
            if len(block.sides) == 1:
                yield f"\n{markdown(', '.join(block.sides[0].facts))}\n", "", _nothing
            else:
                yield "\n", "", _nothing
        case Totals():
            yield f"\n{markdown(', '.join(block.parts))}\n", "", _nothing
        case Facts():
            for title, entries in block.rows:
                if entries:
                    more = [f"{len(entries) - _ENTRIES:,} more"] if len(entries) > _ENTRIES else []
                    shown = ", ".join(map(markdown, [*entries[:_ENTRIES], *more]))
                    yield f"\n**{markdown(title)}** {shown}\n", "", _nothing
        case Notes():
            for level, text, hint in dict.fromkeys((note.level, note.text, note.hint) for note in block.notes):
                yield _said(level, text, hint), "", _nothing
        case Rows():
            rows = block.rows()
            if rows:
                yield from _table(block, rows, block.title)
            if rows and block.each is not None:
                each = block.each.rows()
                yield from _table(block.each, each, f"all {many(len(each), 'tensor')}")
        case Items():
            yield from _items(block)
        case Findings():
            for at, finding in enumerate(block.findings):
                rest = many(len(block.findings) - at, "more finding")
                yield "".join(_finding(finding)), "", lambda rest=rest: rest  # type: ignore[misc]
        case Code():
            fence = "`" * max(3, 1 + max((len(run) for run in _ticks(block.text)), default=0))
            lines = "\n".join(terminal(line, _WHOLE) for line in block.text.splitlines())
            yield f"\n{fence}{block.language}\n{lines}\n{fence}\n", "", _nothing
        case Chart() | Next():
            return


def _ticks(text: str) -> list[str]:
    """Runs of backticks, which a fence has to be longer than."""
    return "".join(char if char == "`" else " " for char in text).split()


def _said(level: str, text: str, hint: str) -> str:
    return f"\n**{level}** {markdown(text)}{f'; {markdown(hint)}' if hint else ''}\n"


def _folded(title: str, pieces: Iterable[_Piece]) -> Iterator[_Piece]:
    """Pieces inside what a click opens."""
    yield f"\n<details><summary>{markdown(title)}</summary>\n", "\n</details>\n", _nothing
    for text, _, rest in pieces:
        yield text, "\n</details>\n", rest
    yield "\n</details>\n", "", _nothing


def _table(block: Rows, rows: Sequence[Row], title: str) -> Iterator[_Piece]:
    """A table, folded away if it has a title."""
    if title:
        yield from _folded(title, _table(block, rows, ""))
        return
    used = [
        at
        for at, column in enumerate(block.columns)
        if column.kind not in _DRAWN and any(_cell(row, at, column) for row in rows)
    ]
    columns = [block.columns[at] for at in used]
    heads = " | ".join(markdown(column.title) for column in columns)
    lines = "|".join("---:" if column.kind in (*NUMBERS, "share") else "---" for column in columns)
    yield f"\n| {heads} |\n|{lines}|\n", "", _nothing
    for number, row in enumerate(rows):
        cells = " | ".join(_cell(row, at, block.columns[at]) for at in used)
        rest = many(len(rows) - number, "more row")
        yield f"| {cells} |\n", "", lambda rest=rest: rest  # type: ignore[misc]


def _cell(row: Row, at: int, column: Column) -> str:
    if at >= len(row.cells):
        return ""
    cell = cell_of(row.cells[at])
    if cell.value in (None, ""):
        return ""
    if column.kind == "share":
        return markdown(share_text(cell.value))
    if column.kind == "key":
        patterns = cell.value if isinstance(cell.value, tuple) else (cell.value,)
        lead = cell.lead.replace(" ", "&nbsp;")  # a table cell drops leading spaces
        return lead + ", ".join(map(markdown_code, patterns))
    said = cell_text(column.kind, cell.value)
    if column.kind in NUMBERS:
        return said
    if column.kind in ("code", "spec"):
        return markdown_code(said)
    return f"**{markdown(said)}**" if "red" in cell.style and column.kind != "mark" else markdown(said)


def _items(block: Items) -> Iterator[_Piece]:
    title = ": ".join(filter(None, (block.title, block.sum)))
    if title:
        yield from _folded(title, _items(Items(block.items, code=block.code)))
        return
    yield "\n", "", _nothing
    for item in block.items:
        text = markdown_code(item.text) if block.code else markdown(item.text)
        mark = f"{markdown(item.mark)} " if item.mark else ""
        yield f"- {mark}{text}{''.join(f'; {markdown(more)}' for more in item.below)}\n", "", _nothing


def _finding(finding: Finding) -> Iterator[str]:
    policy = f" (policy {markdown_code(finding.policy.name)})" if finding.policy is not None else ""
    yield f"\n**{finding.level}: {markdown(finding.rule)}** {markdown(finding.message)}{policy}  \n"
    yield f"in {markdown_code(finding.file)}\n"
    if finding.details:
        yield "\n"
    shown = finding.details if len(finding.details) <= _DETAILS + 1 else finding.details[:_DETAILS]
    yield from (f"- {markdown_code(detail)}\n" for detail in shown)
    if len(shown) < len(finding.details):
        yield f"- {len(finding.details) - len(shown):,} more\n"
    if finding.help:
        yield f"\nTry: {markdown(finding.help)}\n"
