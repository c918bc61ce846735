"""`diff` as a page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ckptool.commands.diff.result import Change, Diff
from ckptool.commands.diff.result import Status as Fate
from ckptool.core.shell import shell_quote
from ckptool.report.diff_rows import SYMBOLS, describe, extras_rows, identical_text, summary_parts
from ckptool.report.html import Column, Heading, Page, Status, key_text, page
from ckptool.report.html_inspect import checkpoint_facts
from ckptool.report.symbols import STYLES
from ckptool.report.units import number_of

_FATES = (Fate.CHANGED, Fate.CAST, Fate.RESHAPED, Fate.RENAMED, Fate.ADDED, Fate.REMOVED, Fate.SAME)
"""The order of the filters: what differs comes first."""


def diff_html(diff: Diff, old_name: str, new_name: str) -> Iterator[str]:
    """The comparison: every tensor of both, what happened to it and how far it moved."""
    sides = ((diff.old, old_name, "-", "red"), (diff.new, new_name, "+", "green"))
    yield from page(
        Page(
            title=f"{old_name} → {new_name}",
            headings=[
                Heading(name, f"{number_of(len(side), 'tensor')}, {checkpoint_facts(side)}", mark, style)  # type: ignore[arg-type]
                for side, name, mark, style in sides
            ],
            sum=identical_text(diff) if diff.is_same else "   ".join(summary_parts(diff)),
            command=f"ckptool diff {shell_quote(old_name)} {shell_quote(new_name)}",
            columns=(
                Column("tensors", "tensors"),
                Column("spec", style="cyan"),
                Column("elements", "count", "add"),
                Column("change"),
                Column("rel", "rel", "max"),
                Column("max |Δ|", "real", "max"),
                Column("1 - cos", "small", "max"),
                Column("differing elements", "whole", "add", panel=True),
                Column("old key", panel=True),
                Column("old spec", panel=True),
            ),
            rows=(_row(diff, change) for change in diff.changes),
            statuses=[Status(SYMBOLS[fate], fate.value, STYLES[SYMBOLS[fate]]) for fate in _FATES],
            notes=diff.notes,
            facts=[
                ("not tensors", [f"{symbol} {text}" for text in texts]) for symbol, _, texts in extras_rows(diff.extras)
            ],
            searched=(1, 3, 8),
        )
    )


def _row(diff: Diff, change: Change) -> list[Any]:
    shown = change.new or change.old
    spec = "" if shown is None else shown.spec.short
    old_key = change.old.key if change.old is not None and change.old.key != change.key else None
    old_spec = change.old.spec.short if change.old is not None and change.old.spec.short != spec else None
    delta = change.delta
    rel = max_abs = distance = differing = None
    if delta is not None and delta.old_range is None:
        rel, max_abs = delta.rel, delta.max_abs
        distance = None if delta.cosine is None else max(0.0, 1 - delta.cosine)
    if delta is not None:
        differing = delta.differing
    what = describe((change,), diff)
    if rel is not None and what.startswith("rel ") and "," not in what:
        what = ""  # the numbers stand beside it
    elements = 0 if shown is None else shown.elements
    row = [
        spec,
        elements,
        what,
        rel,
        max_abs,
        distance,
        differing,
        None if old_key is None else key_text(old_key),
        old_spec,
    ]
    return [key_text(change.key), _FATES.index(change.status), None, *row]
