"""A transplant as JSON: schema ``ckptool.transplant/1``, every tensor of the target in a line of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ckptool.commands.transplant.result import Transplant
from ckptool.core.spec import TensorSpec
from ckptool.models.entries import Entry, Filled
from ckptool.report.json import document, file_fields, note_fields
from ckptool.report.json_match import match_fields
from ckptool.report.json_plan import problem_fields, step_fields, written_fields
from ckptool.report.json_probe import probe_fields
from ckptool.report.reasons import reason_text

if TYPE_CHECKING:
    from ckptool.engine.apply import Written
    from ckptool.models import Verdict
    from ckptool.models.probing.report import ProbeReport


def transplant_json(
    transplant: Transplant,
    name: str,
    written: Written | None,
    loads: Verdict | None,
    exit_code: int,
    snippet: str | None = None,
    probe: ProbeReport | None = None,
) -> Iterator[str]:
    """A transplant and what was written of it; ``written`` and ``loads`` are null for a preview."""
    plan, target = transplant.plan, transplant.target
    yield from document(
        [
            ("schema", "ckptool.transplant/1"),
            ("exit_code", int(exit_code)),
            ("source", file_fields(transplant.source, name)),
            ("target", _target_fields(transplant)),
            ("seed", transplant.asked.seed),
            ("coverage", {"tensors": transplant.tensors, "elements": transplant.elements}),
            ("counts", {status.value: len(transplant.having(status)) for status in Filled}),
            ("prefixes", {"removed": transplant.swap.take, "added": transplant.swap.put}),
            ("match", match_fields(transplant.match)),
            ("source_as_it_is", verdict_fields(transplant.as_it_is)),
            ("source_as_filled", verdict_fields(transplant.verdict)),
            ("entries", (_entry_fields(entry) for entry in transplant.entries)),
            ("unexpected", [_spec_fields(spec) for spec in transplant.unexpected]),
            ("dropped", [{"key": row.source.key, "why": reason_text(row.reason)} for row in plan.dropped]),
            ("freeze", {"parameters": transplant.freeze, "batchnorms": transplant.batchnorms}),
            ("ties", target.ties),
            ("steps", (step_fields(step, plan.inputs) for step in plan.steps)),
            ("probe", None if probe is None else probe_fields(probe)),
            ("problems", [problem_fields(problem) for problem in plan.problems]),
            ("unmet", [problem_fields(problem) for problem in plan.unmet]),
            ("notes", [note_fields(note) for note in plan.notes]),
            ("snippet", snippet),
            ("written", None if written is None else written_fields(written)),
            ("loads", None if loads is None else verdict_fields(loads)),
        ]
    )


def verdict_fields(verdict: Verdict) -> dict[str, Any]:
    """What ``load_state_dict(strict=True)`` says."""
    return {
        "strict": verdict.strict,
        "missing": verdict.missing,
        "unexpected": verdict.unexpected,
        "mismatched": verdict.mismatched,
        "message": verdict.message or None,
    }


def _target_fields(transplant: Transplant) -> dict[str, Any]:
    target = transplant.target
    return {
        "name": target.name,
        "tensors": len(target.specs),
        "parameters": sum(kind == "parameter" for kind in target.kinds.values()) if target.kinds else None,
        "buffers": sum(kind == "buffer" for kind in target.kinds.values()) if target.kinds else None,
        "built_on": target.device if target.module is not None else None,
        "seconds": target.seconds,
    }


def _spec_fields(spec: TensorSpec) -> dict[str, Any]:
    return {"key": spec.key, "dtype": spec.dtype, "shape": spec.shape}


def _entry_fields(entry: Entry) -> dict[str, Any]:
    return {
        **_spec_fields(entry.spec),
        "status": entry.status.value,
        "kind": entry.kind or None,
        "covered": entry.covered,
        "sources": entry.sources,
        "found": entry.found or None,
        "how": reason_text(entry.reason),
        "fit": entry.fit or None,
        "harmless": None if entry.is_filled else entry.is_harmless,
    }
