"""One self-contained page: style, script and data in a single file that needs no network and lets nothing else run.

What a checkpoint chose (keys, paths, metadata) is made visible as for a terminal, then reaches the page either as
escaped text of the header or inside a block of JSON that no parser of HTML can leave. The page's policy allows its own
style and script by their digests, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ckptool.core.checkpoint import Note
from ckptool.report.document import Document
from ckptool.report.escape import html_text, terminal
from ckptool.report.json import json_object
from ckptool.report.text import Style

_KEY = 1000  # characters of a key in the table
_TEXT = 600
_SCRIPTS = ("model.js", "table.js", "page.js")


@dataclass(frozen=True, slots=True)
class Status:
    """What may have happened to a row, and how a filter calls it."""

    symbol: str
    label: str
    style: Style = ""

    @property
    def fields(self) -> dict[str, str]:
        return {"symbol": self.symbol, "label": self.label, "style": self.style}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table.

    Attributes:
        title: its heading.
        kind: how values are shown: "text", "count", "bytes", "share" and "ratio" with a bar, "real", "signed", "rel"
            with a bar, "small", "whole", "hist" (counts per bin), "verdict" ([text, style, findings, level]), or
            "tensors" (how many rows a branch has).
        sum: what a branch shows: the sum of its rows, the largest, the gravest; nothing if None.
        total: of a "share", what is all of it.
        of: of a "ratio", the column that is all of it.
        panel: shown in the details of a row only.
        style: of texts.
    """

    title: str
    kind: str = "text"
    sum: Literal["add", "max", "worst"] | None = None
    total: float = 0
    of: int = 0
    panel: bool = False
    style: Style = ""

    @property
    def fields(self) -> dict[str, Any]:
        names = ("title", "kind", "sum", "total", "of", "panel", "style")
        return {name: value for name in names if (value := getattr(self, name))}


@dataclass(frozen=True, slots=True)
class Heading:
    """One checkpoint at the top of the page: "- resnet18.pth   torch zip, 46.8 MB". Not escaped."""

    name: str
    facts: str
    mark: str = ""
    style: Style = ""


@dataclass(frozen=True, slots=True)
class Page:
    """All that a page shows. Texts are as the files have them.

    Attributes:
        title: of the window.
        headings: the checkpoints it is about.
        sum: it in a sentence.
        command: how to get the same as text.
        columns: of the table.
        rows: (key, number of its status, a value for each column); read once.
        statuses: what may have happened to a row; a single one is not shown.
        notes: what the user should know.
        facts: what is not in the table, by name.
        noun: what a row is.
        separator: between the names of a key.
        key: heading of the first column.
        searched: columns, beside the key, in which the search looks.
        findings: what a check found, as objects of `ckptool.report.html_check`; filters are then of their levels.
    """

    title: str
    headings: Sequence[Heading]
    sum: str
    command: str
    columns: Sequence[Column]
    rows: Iterable[Sequence[Any]]
    statuses: Sequence[Status] = (Status("", ""),)
    notes: Sequence[Note] = ()
    facts: Sequence[tuple[str, Sequence[str]]] = ()
    noun: str = "tensor"
    separator: str = "."
    key: str = "key"
    searched: Sequence[int] = ()
    findings: Sequence[dict[str, Any]] | None = None
    levels: Sequence[Status] = field(default=())


def encode_document(document: Document) -> Iterator[str]:
    """The page of a document."""
    return document.html()


def key_text(key: str) -> str:
    """A key for the table: visible, and whole unless it is absurdly long."""
    return terminal(key, _KEY)


def page(content: Page) -> Iterator[str]:
    """The page, piece by piece; rows are never held as one text."""
    from ckptool.core.version import VERSION

    style, script = asset("page.css"), "\n".join(map(asset, _SCRIPTS))
    parts = {
        "title": [html_text(content.title)],
        "version": [VERSION],
        "style": [style],
        "script": [script],
        "style-hash": [_digest(style)],
        "script-hash": [_digest(script)],
        "command": [html_text(content.command)],
        "head": _head(content),
    }
    # the template is cut once: what is filled in is never searched for further places
    for at, piece in enumerate(re.split(r"\{\{([a-z-]+)\}\}", asset("page.html"))):
        if at % 2 == 0:
            yield piece
        elif piece == "data":
            yield from map(_in_script, _data(content))
        else:
            yield from parts[piece]


def asset(name: str) -> str:
    """A file of `ckptool/render/page/`."""
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


def _data(content: Page) -> Iterator[str]:
    yield from json_object(
        [
            ("noun", content.noun),
            ("key", content.key),
            ("separator", content.separator),
            ("searched", [0, *(at + 2 for at in content.searched)]),
            ("chips", "statuses" if content.findings is None else "findings"),
            ("statuses", [status.fields for status in content.statuses]),
            ("levels", [level.fields for level in content.levels]),
            ("columns", [column.fields for column in content.columns]),
            ("findings", iter(content.findings or ())),
            ("rows", iter(content.rows)),
        ]
    )


def _head(content: Page) -> Iterator[str]:
    for heading in content.headings:
        mark = f'<span class="mark {heading.style}">{html_text(heading.mark)}</span>' if heading.mark else ""
        yield f"<h1>{mark}{html_text(heading.name)}<small>{html_text(heading.facts)}</small></h1>\n"
    yield f'<p class="sum">{html_text(content.sum)}</p>\n'
    for note in {(note.level, note.text, note.hint): note for note in content.notes}.values():
        hint = f" <span>{html_text(terminal(note.hint, _TEXT))}</span>" if note.hint else ""
        text = html_text(terminal(note.text, _TEXT))
        yield f'<p class="note {note.level}"><b>{note.level}</b> {text}{hint}</p>\n'
    if any(entries for _, entries in content.facts):
        yield '<dl class="facts">\n'
        for title, entries in content.facts:
            if entries:
                yield f"<dt>{html_text(title)}</dt><dd>{_listed(entries)}</dd>\n"
        yield "</dl>\n"


def _listed(entries: Sequence[str], most: int = 40) -> str:
    shown = ", ".join(html_text(entry) for entry in entries[:most])
    return shown + (f", {len(entries) - most:,} more" if len(entries) > most else "")
