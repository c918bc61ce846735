"""`transplant` as a page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ckptool.commands.transplant.result import Transplant
from ckptool.core.checkpoint import Note
from ckptool.core.shell import shell_quote
from ckptool.core.spec import TensorSpec
from ckptool.models.entries import Entry, Filled
from ckptool.report.escape import terminal
from ckptool.report.html import Column, Heading, Page, Status, key_text, page
from ckptool.report.html_inspect import checkpoint_facts
from ckptool.report.reasons import reason_text
from ckptool.report.symbols import STYLES
from ckptool.report.transplant_rows import SYMBOLS, summary_text, target_text, verdict_texts
from ckptool.report.units import number_of

_LABELS = ("mismatched", "missing", "unexpected", "fitted", "cast", "filled")
_STATUSES = tuple(Status(SYMBOLS[label], label, STYLES[SYMBOLS[label]]) for label in _LABELS)
_AT = {status.label: at for at, status in enumerate(_STATUSES)}
_SOURCES = 4  # keys that are named


def transplant_html(transplant: Transplant, name: str) -> Iterator[str]:
    """Every tensor of the model, what fills it, and what the source has besides."""
    source, plan = transplant.source, transplant.plan
    entries = (_entry(entry) for entry in transplant.entries)
    yield from page(
        Page(
            title=f"{name} → {transplant.target.name}",
            headings=(
                Heading(name, f"{number_of(len(source), 'tensor')}, {checkpoint_facts(source)}", "from", "dim"),
                Heading(transplant.target.name, target_text(transplant), "into", "dim"),
            ),
            sum=summary_text(transplant),
            command=f"ckptool transplant {shell_quote(name)} --into {shell_quote(transplant.target.name)}",
            columns=(
                Column("tensors", "tensors"),
                Column("spec", style="cyan"),
                Column("elements", "count", "add"),
                Column("filled", "ratio", "add", of=2),
                Column("how"),
                Column("source key"),
                Column("source spec", panel=True),
                Column("kind", panel=True),
            ),
            rows=[*entries, *(_unexpected(spec) for spec in transplant.unexpected)],
            statuses=_STATUSES,
            notes=[
                *(_problem(problem.message, problem.hint) for problem in (*plan.problems, *plan.unmet)),
                *plan.notes,
            ],
            facts=[("torch says", list(verdict_texts(transplant)))],
            searched=(4, 5),
        )
    )


def _entry(entry: Entry) -> list[Any]:
    keys = [key_text(key) for key in entry.sources[:_SOURCES]]
    if len(entry.sources) > _SOURCES:
        keys.append(f"{len(entry.sources) - _SOURCES:,} more")
    how = ", ".join(filter(None, (reason_text(entry.reason), entry.fit)))
    covered = entry.covered if entry.status is not Filled.MISSING else 0
    row = [entry.spec.short, entry.spec.elements, covered, terminal(how), ", ".join(keys), entry.found, entry.kind]
    return [key_text(entry.key), _AT[entry.status.value], None, *row]


def _unexpected(spec: TensorSpec) -> list[Any]:
    how = "the model has no such key"
    return [key_text(spec.key), _AT["unexpected"], None, None, None, None, how, None, spec.short, None]


def _problem(message: str, hint: str) -> Note:
    return Note(message, hint, level="warning")
