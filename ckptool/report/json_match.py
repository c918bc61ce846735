"""An automatic match as JSON fields, for the documents of remap, transplant and diff."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptool.matching.result import Pair
from ckptool.report.json import note_fields
from ckptool.report.match_explain import explain_fields
from ckptool.report.match_recipe import match_recipe
from ckptool.report.match_words import evidence_words

if TYPE_CHECKING:
    from ckptool.commands.automatic import Automatic


def match_fields(found: Automatic | None) -> dict[str, Any] | None:
    """Rules and pairs with their evidence, and what has no counterpart; None if nothing was to be matched."""
    if found is None:
        return None
    report = found.report
    return {
        "accept": found.accept.value,
        "recipe": match_recipe(found.report, found.accept),
        "rules": [
            {
                "rule": rule.text,
                "taken": rule.confidence.within(found.accept),
                "confidence": rule.confidence.value,
                "tensors": len(rule.pairs),
                "evidence": evidence_words(rule.evidence, rule.pairs),
            }
            for rule in report.rules
        ],
        "pairs": [pair_fields(pair) for pair in report.pairs],
        "reshaped": [pair_fields(pair) for pair in report.reshaped],
        "unmatched_targets": report.unmatched_targets,
        "unmatched_sources": report.unmatched_sources,
        "notes": [note_fields(note) for note in report.notes],
        "explained": explain_fields(found),
    }


def pair_fields(pair: Pair) -> dict[str, Any]:
    return {
        "targets": pair.targets,
        "sources": pair.sources,
        "layout": pair.layout or None,
        "confidence": pair.confidence.value,
        "evidence": evidence_words(pair.evidence, (pair,)),
        "next_best": None if pair.runner_up is None else {"source": pair.runner_up[0], "score": pair.runner_up[1]},
    }
