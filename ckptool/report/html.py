"""One self-contained page: style, script and data in a single file that needs no network and lets nothing else run.

What a checkpoint chose (keys, paths, metadata) is made visible as for a terminal, then reaches the page either as
escaped text or inside a block of JSON that no parser of HTML can leave. The page's policy allows its own style and
script by their digests, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ckptool.commands.checks.finding import Finding
from ckptool.report.blocks import Block, Chart, Code, Facts, Findings, Items, Next, Notes, Rows, Sides, Totals
from ckptool.report.cells import NUMBERS, Row, cell_of, cell_text, share_text, spec_style
from ckptool.report.chart import chart_html
from ckptool.report.document import Document, Field, Table
from ckptool.report.escape import html_text, terminal
from ckptool.report.findings import policy_text
from ckptool.report.json import json_object
from ckptool.report.symbols import LEVELS, STYLES

_KEY = 1000  # characters of a key in the table
_TEXT = 600
_LONGEST = 2000  # characters of a command
_ENTRIES = 40  # of a list of names
_ROWS = 200  # of a folded table
_DETAILS = 1000  # of one finding
_SCRIPTS = ("model.js", "table.js", "page.js")
_LEVEL_MARKS = {"error": "✗", "warning": "!", "note": "i"}


def encode_document(document: Document) -> Iterator[str]:
    """The page of a document, piece by piece; rows are never held as one text."""
    from ckptool.core.version import VERSION

    style, script = asset("page.css"), "\n".join(map(asset, _SCRIPTS))
    blocks = list(document.blocks())
    table = (document.page or document.table)()
    parts: dict[str, Iterable[str]] = {
        "title": [html_text(_title(document, blocks))],
        "version": [VERSION],
        "style": [style],
        "script": [script],
        "style-hash": [_digest(style)],
        "script-hash": [_digest(script)],
        "command": [html_text(document.typed or f"ckptool {document.command}")],
        "head": _head(document, blocks, with_rows=False),
        "data": map(_in_script, _data(table, [block for block in blocks if isinstance(block, Findings)])),
    }
    # the template is cut once: what is filled in is never searched for further places
    for at, piece in enumerate(re.split(r"\{\{([a-z-]+)\}\}", asset("page.html"))):
        if at % 2:
            yield from parts[piece]
        else:
            yield piece


def static_parts(document: Document) -> Iterator[str]:
    """All of a document but the table of all tensors, without a script: for a notebook."""
    yield f'<div class="ckptool"><style>{_scoped(asset("page.css"))}</style>\n'
    yield from _head(document, list(document.blocks()), with_rows=True)
    yield "</div>\n"


def _scoped(style: str) -> str:
    """The page's style for what is inside a notebook."""
    return f"@scope (.ckptool) {{ {style.replace(':root', ':scope')} }}"


def _title(document: Document, blocks: Iterable[Block]) -> str:
    sides = next((block for block in blocks if isinstance(block, Sides)), None)
    return sides.joint.join(side.name for side in sides.sides) if sides else f"ckptool {document.command}"


def asset(name: str) -> str:
    """A file of `ckptool/report/page/`."""
    from importlib.resources import files

    return (files("ckptool.report") / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """What a Content-Security-Policy calls an inline style or script."""
    import base64
    import hashlib

    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _in_script(json: str) -> str:
    """JSON for the inside of a script element: these three stand only in strings, where their escapes mean the same.

    Example:
        >>> _in_script('["</script><!--"]')
        '["\\\\u003c/script\\\\u003e\\\\u003c!--"]'
    """
    return json.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


# ---------------------------------------------------------------------------------------------- the table


def _data(table: Table, findings: Sequence[Findings]) -> Iterator[str]:
    fields = [field for field in table.fields if field.title]
    found = [finding for block in findings for finding in block.findings]
    levels = [{"symbol": mark, "label": level, "style": LEVELS[level]} for level, mark in _LEVEL_MARKS.items()]  # type: ignore[index]
    searched = [at + 2 for at, field in enumerate(fields) if field.kind in ("text", "key", "spec")]
    yield from json_object(
        [
            ("noun", table.noun),
            ("key", table.key),
            ("separator", table.separator),
            ("searched", [0, *searched]),
            ("chips", "findings" if findings else "statuses"),
            ("statuses", [asdict(status) for status in table.statuses]),
            ("levels", levels),
            ("columns", [_column(field, fields) for field in fields]),
            ("findings", map(_finding, found)),
            ("rows", _rows(table)),
        ]
    )


def _column(field: Field, fields: Sequence[Field]) -> dict[str, Any]:
    kind = "text" if field.kind == "key" else field.kind
    names = ("title", "sum", "total", "panel", "style")
    column = {name: value for name in names if (value := getattr(field, name))}
    of = {"of": next(at for at, other in enumerate(fields) if other.title == field.of)} if field.of else {}
    return {**column, **of, "kind": kind}


def _rows(table: Table) -> Iterator[list[Any]]:
    """(key, number of its status, a value for each column)."""
    names = [field.name for field in table.fields]
    key_at = names.index(table.key)
    status_at = names.index(table.status) if table.status in names else None
    statuses = {status.label: at for at, status in enumerate(table.statuses)}
    shown = [(at, field.kind) for at, field in enumerate(table.fields) if field.title]
    for row in table.rows:
        status = 0 if status_at is None else statuses[row[status_at]]
        yield [terminal(row[key_at], _KEY), status, *(_value(kind, row[at]) for at, kind in shown)]


def _value(kind: str, value: Any) -> Any:
    if isinstance(value, str):
        return terminal(value, _KEY if kind == "key" else _TEXT)
    return [_value("text", item) for item in value] if isinstance(value, tuple) else value


def _finding(finding: Finding) -> dict[str, Any]:
    details = [terminal(detail, _TEXT) for detail in finding.details[:_DETAILS]]
    if len(finding.details) > _DETAILS:
        details.append(f"{len(finding.details) - _DETAILS:,} more")
    return {
        "rule": terminal(finding.rule, 60),
        "level": list(_LEVEL_MARKS).index(finding.level),
        "file": terminal(finding.file, _KEY),
        "message": terminal(finding.message, _TEXT),
        "details": details,
        "policy": "" if finding.policy is None else terminal(policy_text(finding.policy), _TEXT),
        "help": terminal(finding.help, _LONGEST),
    }


# ---------------------------------------------------------------------------------------------- above the table


def _head(document: Document, blocks: Sequence[Block], with_rows: bool) -> Iterator[str]:
    """What it is about, the answer, and the blocks; tables of tensors are left out where the page has them all."""
    sides = [block for block in blocks if isinstance(block, Sides)]
    for named in sides:
        yield from _elements(named)
    if not sides:
        yield f"<h1>{html_text(f'ckptool {document.command}')}</h1>\n"
    yield from _answer(document)
    for block in blocks:
        if not isinstance(block, Sides) and (with_rows or not isinstance(block, Rows)):
            yield from _elements(block)


def _answer(document: Document) -> Iterator[str]:
    if document.answer.mood != "plain":
        yield f'<p class="answer {document.answer.mood}">{html_text(document.answer.text)}</p>\n'
    for problem in document.problems:
        yield _note("error", problem.message, problem.hint)


def _elements(block: Block) -> Iterator[str]:
    match block:
        case Sides():
            for side in block.sides:
                mark = f'<span class="mark {STYLES.get(side.mark, "dim")}">{html_text(side.mark)}</span>'
                facts = html_text(", ".join(side.facts))
                yield f"<h1>{mark if side.mark else ''}{html_text(side.name)}<small>{facts}</small></h1>\n"
        case Totals():
            yield f'<p class="sum">{html_text(block.separator.join(block.parts))}</p>\n'
        case Facts():
            rows = [_fact(title, entries) for title, entries in block.rows if entries]
            if rows:
                yield f'<dl class="facts">\n{"".join(rows)}</dl>\n'
        case Notes():
            for level, text, hint in dict.fromkeys((note.level, note.text, note.hint) for note in block.notes):
                yield _note(level, text, hint)
        case Rows():
            yield from _grid(block)
        case Items():
            title = ": ".join(filter(None, (block.title, block.sum)))
            lines = "".join(_item(item, block.code) for item in block.items)
            list_ = f'<ul class="items">\n{lines}</ul>\n'
            yield f"<details><summary>{html_text(title)}</summary>{list_}</details>\n" if title else list_
        case Code():
            yield f"<pre>{_lines(block.text)}</pre>\n"
        case Chart():
            yield from chart_html(block)
        case Findings() | Next():
            return


def _fact(title: str, entries: Sequence[str]) -> str:
    more = [f"{len(entries) - _ENTRIES:,} more"] if len(entries) > _ENTRIES else []
    shown = ", ".join(html_text(terminal(entry, _TEXT)) for entry in [*entries[:_ENTRIES], *more])
    return f"<dt>{html_text(title)}</dt><dd>{shown}</dd>\n"


def _lines(text: str) -> str:
    return "\n".join(html_text(line) for line in text.splitlines())


def _note(level: str, text: str, hint: str) -> str:
    more = f" <span>{html_text(terminal(hint, _LONGEST))}</span>" if hint else ""
    return f'<p class="note {level}"><b>{level}</b> {html_text(terminal(text, _LONGEST))}{more}</p>\n'


def _item(item: Any, code: bool) -> str:
    below = "".join(f"<div>{html_text(more)}</div>" for more in item.below)
    text = f"<code>{html_text(item.text)}</code>" if code else html_text(item.text)
    style = STYLES.get(item.mark, item.style)
    return f'<li><span class="mark {style}">{html_text(item.mark)}</span> {text}{below}</li>\n'


def _grid(block: Rows) -> Iterator[str]:
    """A folded table without a script."""
    rows = block.rows()
    used = [at for at in range(len(block.columns)) if any(_cell(row, at, block) for row in rows[:_ROWS])]
    if not used:
        return
    heads = "".join(f"<th>{html_text(block.columns[at].title)}</th>" for at in used)
    yield f'<table class="rows"><thead><tr>{heads}</tr></thead><tbody>\n'
    for row in rows[:_ROWS]:
        cells = "".join(_cell(row, at, block) or "<td></td>" for at in used)
        yield f"<tr>{cells}</tr>\n"
    yield "</tbody></table>\n"
    if len(rows) > _ROWS:
        yield f"<p>{len(rows) - _ROWS:,} more rows</p>\n"


def _cell(row: Row, at: int, block: Rows) -> str:
    """An element; "" for nothing to be said."""
    if at >= len(row.cells):
        return ""
    kind, cell = block.columns[at].kind, cell_of(row.cells[at])
    said = cell_text(kind, cell.value)
    if not said:
        return ""
    own = STYLES.get(said, "") if kind == "mark" else spec_style(said) if kind == "spec" else ""
    classes = " ".join(filter(None, (cell.style or own or row.style, "right" if kind in NUMBERS else "")))
    if kind == "share":
        bar = f'<svg class="share"><rect width="{100 * cell.value:.1f}%" height="100%"></rect></svg>'
        return f'<td class="{classes}">{bar}{html_text(share_text(cell.value))}</td>'
    return f'<td class="{classes}">{html_text(cell.lead)}{html_text(said)}</td>'
