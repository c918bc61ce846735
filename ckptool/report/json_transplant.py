"""A transplant as JSON: schema ``ckptool.transplant/1``, every tensor of the target in a line of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptool.commands.transplant.result import Transplant
from ckptool.commands.transplant.shares import Share
from ckptool.core.spec import TensorSpec
from ckptool.models.entries import Entry, Filled
from ckptool.report.json import file_fields, note_fields
from ckptool.report.json_match import match_fields
from ckptool.report.json_plan import beside_fields, problem_fields, reads_fields, step_fields, written_fields
from ckptool.report.json_probe import probe_fields
from ckptool.report.reasons import reason_text

if TYPE_CHECKING:
    from ckptool.engine.apply import Written
    from ckptool.models import Verdict
    from ckptool.models.probing.report import ProbeReport


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a transplant.

    Attributes:
        written: the output; None for a preview.
        loads: what torch says of the output.
        exit_code: of the command.
        snippet: the lines of torch that load it, if they were asked for.
        probe: what a probe found, if there was one.
    """

    written: Written | None = None
    loads: Verdict | None = None
    exit_code: int = 0
    snippet: str | None = None
    probe: ProbeReport | None = None


def transplant_result(transplant: Transplant, name: str, done: Done) -> list[tuple[str, Any]]:
    """A transplant and what was written of it; ``written`` and ``loads`` are null for a preview."""
    plan, target = transplant.plan, transplant.target
    return [
        ("schema", "ckptool.transplant/1"),
        ("exit_code", int(done.exit_code)),
        ("source", file_fields(transplant.source, name)),
        ("target", _target_fields(transplant)),
        ("seed", transplant.asked.seed),
        ("coverage", {"tensors": transplant.tensors, "elements": transplant.elements}),
        ("modules", [module_fields(share) for share in transplant.modules.values()]),
        ("counts", {status.value: len(transplant.having(status)) for status in Filled}),
        ("prefixes", {"removed": transplant.swap.take, "added": transplant.swap.put}),
        ("match", match_fields(transplant.match)),
        ("source_as_it_is", verdict_fields(transplant.as_it_is)),
        ("source_as_filled", verdict_fields(transplant.verdict)),
        ("entries", (entry_fields(entry) for entry in transplant.entries)),
        ("unexpected", [spec_fields(spec) for spec in transplant.unexpected]),
        ("dropped", [{"key": row.source.key, "why": reason_text(row.reason)} for row in plan.dropped]),
        ("new", [entry.key for entry in transplant.entries if entry.key in transplant.new]),
        ("freeze", {"parameters": transplant.freeze, "batchnorms": transplant.batchnorms}),
        ("ties", target.ties),
        ("container", plan.container),
        ("beside", [beside_fields(beside) for beside in plan.beside]),
        ("steps", (step_fields(step, plan.inputs) for step in plan.steps)),
        ("reads", reads_fields(plan)),
        ("probe", None if done.probe is None else probe_fields(done.probe)),
        ("problems", [problem_fields(problem) for problem in plan.problems]),
        ("unmet", [problem_fields(problem) for problem in plan.unmet]),
        ("notes", [note_fields(note) for note in plan.notes]),
        ("snippet", done.snippet),
        ("written", None if done.written is None else written_fields(done.written)),
        ("loads", None if done.loads is None else verdict_fields(done.loads)),
    ]


def verdict_fields(verdict: Verdict) -> dict[str, Any]:
    """What ``load_state_dict(strict=True)`` says."""
    return {
        "strict": verdict.strict,
        "missing": verdict.missing,
        "unexpected": verdict.unexpected,
        "mismatched": verdict.mismatched,
        "message": verdict.message or None,
    }


def module_fields(share: Share) -> dict[str, Any]:
    """A module that holds tensors itself, and how much of it is loaded."""
    return {"name": share.name, "state": share.state.value, "tensors": share.tensors, "elements": share.elements}


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


def spec_fields(spec: TensorSpec) -> dict[str, Any]:
    """A key, its dtype and its shape."""
    return {"key": spec.key, "dtype": spec.dtype, "shape": spec.shape}


def entry_fields(entry: Entry) -> dict[str, Any]:
    """One tensor of the target."""
    return {
        **spec_fields(entry.spec),
        "status": entry.status.value,
        "kind": entry.kind or None,
        "covered": entry.covered,
        "sources": entry.sources,
        "found": entry.found or None,
        "how": reason_text(entry.reason),
        "fit": entry.fit or None,
        "harmless": None if entry.is_filled else entry.is_harmless,
    }
