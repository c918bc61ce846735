"""A probe as JSON: schema ``ckptool.probe/1``."""

from __future__ import annotations

from typing import Any

from ckptool.models.probing.report import Divergence, ProbeReport
from ckptool.report.json import note_fields
from ckptool.report.reasons import reason_text


def probe_fields(report: ProbeReport) -> dict[str, Any]:
    """What a probe found."""
    return {
        "source_model": report.source_model,
        "target": report.target,
        "inputs": report.inputs,
        "seed": report.seed,
        "precision": report.precision,
        "tolerance": report.tolerance,
        "agree": report.agree,
        "proof": report.is_proof,
        "compared": report.compared,
        "agreeing": report.agreeing,
        "largest": report.largest,
        "first": None if report.first is None else report.first.target,
        "differing": [divergence_fields(row) for row in report.differing],
        "following": report.following,
        "divided": report.divided,
        "skipped": [{"target": row.target, "why": row.why} for row in report.skipped],
        "unfilled": report.unfilled,
        "filled": report.filled,
        "unproven": report.unproven,
        "notes": [note_fields(note) for note in report.notes],
        "seconds": report.seconds,
    }


def divergence_fields(row: Divergence) -> dict[str, Any]:
    """A module that differs."""
    return {
        "target": row.target,
        "source": row.source,
        "classes": {"target": row.classes[0], "source": row.classes[1]},
        "error": row.error,
        "limit": row.limit,
        "scale": row.scale,
        "shapes": {"target": row.shapes[0], "source": row.shapes[1]},
        "input_error": row.input_error,
        "after": [{"target": mine, "source": other} for mine, other in row.after],
        "between": row.between,
        "source_after": row.source_after,
        "settings": [{"name": name, "target": mine, "source": other} for name, mine, other in row.settings],
        "origins": [
            {"key": key, "sources": origins, "how": reason_text(reason)} for key, origins, reason in row.origins
        ],
    }
