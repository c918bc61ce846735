"""An automatic match as a document of its own: a row per target tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptool.report.document import Answer, Document, Field, Table
from ckptool.report.json_match import match_fields, pair_fields
from ckptool.report.match_rows import match_blocks, match_text
from ckptool.report.match_words import evidence_words

if TYPE_CHECKING:
    from ckptool.commands.automatic import Automatic


_FIELDS = (
    Field("key"),
    Field("sources", "source key", "key"),
    Field("layout", "layout", panel=True),
    Field("confidence", "confidence"),
    Field("evidence", "evidence"),
)


def match_document(found: Automatic) -> Document:
    """The rules that were found, with their evidence, and what has no counterpart."""
    report = found.report
    left = bool(report.unmatched_targets) or len(report.accepted(found.accept)) < len(report.pairs)
    return Document(
        command="match",
        answer=Answer(f"{'partly matched' if left else 'matched'}: {match_text(found)}", "warning" if left else "good"),
        blocks=lambda: match_blocks(found),
        table=lambda: Table(_FIELDS, _rows(found)),
        result=lambda: (match_fields(found) or {}).items(),
        records=lambda: map(pair_fields, report.pairs),
        summary=lambda: {"pairs": len(report.pairs), "rules": len(report.rules)},
        listing=lambda: ((row[3], row[0], row[1]) for row in sorted(_rows(found))),
    )


def _rows(found: Automatic) -> Iterator[tuple[str, ...]]:
    for pair in found.report.pairs:
        evidence = ", ".join(evidence_words(pair.evidence, (pair,)))
        for target in pair.targets:
            yield target, " ".join(pair.sources), pair.layout, pair.confidence.value, evidence
