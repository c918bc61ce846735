"""A plan as JSON: schema ``ckptool.plan/1``, every tensor and every source in a line of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ckptool.core.beside import Beside, Fate
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.plan import Dropped, Plan, Problem, Source, Step, Use, Value, sources_of
from ckptool.core.reasons import Decoded, NotTaken, WeightsOnly
from ckptool.engine.reads import reads_of
from ckptool.report.json import file_fields, note_fields
from ckptool.report.plan_rows import beside_name
from ckptool.report.reasons import command_text, reason_text

if TYPE_CHECKING:
    from ckptool.commands.automatic import Automatic
    from ckptool.engine.apply import Written


def plan_result(
    plan: Plan, names: Sequence[str], match: Automatic | None, written: Written | None, exit_code: int
) -> list[tuple[str, Any]]:
    """A plan and what was written of it; ``written`` is null for a preview or where problems forbid it."""
    return [
        ("schema", "ckptool.plan/1"),
        ("exit_code", int(exit_code)),
        ("request", command_text(plan.command)),
        ("inputs", [file_fields(side, name) for side, name in zip(plan.inputs, names, strict=True)]),
        ("summary", _sums(plan)),
        ("steps", (step_fields(step, plan.inputs) for step in plan.steps)),
        ("dropped", (dropped_fields(dropped, plan.inputs) for dropped in plan.dropped)),
        ("rules", [_use_fields(use) for use in plan.uses]),
        ("match", _match_fields(match)),
        ("reads", reads_fields(plan)),
        ("problems", [problem_fields(problem) for problem in plan.problems]),
        ("unmet", [problem_fields(problem) for problem in plan.unmet]),
        ("notes", [note_fields(note) for note in plan.notes]),
        ("container", plan.container),
        ("beside", [beside_fields(beside) for beside in plan.beside]),
        *_beside_names(plan),
        ("written", None if written is None else written_fields(written)),
    ]


def _match_fields(match: Automatic | None) -> dict[str, Any] | None:
    if match is None:
        return None
    from ckptool.report.json_match import match_fields

    return match_fields(match)


def reads_fields(plan: Plan) -> dict[str, int] | None:
    """What the plan will read over the network; null where all inputs are on this machine."""
    reads = reads_of(plan)
    return None if reads is None else {"bytes": reads.nbytes, "of": reads.of, "ranges": reads.ranges}


def _sums(plan: Plan) -> dict[str, int]:
    return {"tensors": plan.stored, "bytes": plan.nbytes, "dropped": len(plan.dropped)}


def step_fields(step: Step, inputs: Sequence[Checkpoint]) -> dict[str, Any]:
    """One tensor of the output: what it is, what it is made of, and how."""
    target = step.target
    fields: dict[str, Any] = {
        "target": {"key": target.key, "dtype": target.dtype, "shape": target.shape},
        "sources": [_source_fields(source) for source in sources_of(step.value)],
        "op": op_of(step),
        "why": reason_text(step.reason, inputs),
    }
    if step.tied_to is not None:
        fields["tied_to"] = step.tied_to
    if not step.stored:
        fields["stored"] = False
    return fields


def beside_fields(beside: Beside) -> dict[str, Any]:
    """One thing beside the weights, and what becomes of it."""
    return {
        "name": beside.name,
        "input": beside.input,
        "fate": beside.fate.value,
        "why": reason_text(beside.reason),
    }


def _beside_names(plan: Plan) -> Iterator[tuple[str, list[str]]]:
    """The same as names only, in four lists."""
    lists: dict[str, list[str]] = {"kept_extras": [], "dropped_extras": [], "left_behind": [], "not_taken": []}
    names = {Fate.KEPT: "kept_extras", Fate.EDITED: "kept_extras", Fate.DROPPED: "dropped_extras"}
    for beside in plan.beside:
        untaken = isinstance(beside.reason, NotTaken | WeightsOnly)
        lists["not_taken" if untaken else names.get(beside.fate, "left_behind")].append(beside_name(plan, beside))
    yield from lists.items()


def op_of(step: Step) -> str:
    """What a step does: ``dequantize``, or as `op_text` says."""
    return "dequantize" if isinstance(step.reason, Decoded) else op_text(step.value)


def op_text(value: Value) -> str:
    """``copy``, or the ops from the sources on: ``o i -> i o | bf16``."""
    ops: list[str] = []
    while not isinstance(value, Source):
        ops.append(value.op.text)
        if len(value.args) != 1:
            inner = [op_text(arg) for arg in value.args]
            if any(text != "copy" for text in inner):
                ops.append(f"({', '.join(inner)})")
            break
        value = value.args[0]
    return " | ".join(reversed(ops)) or "copy"


def _source_fields(source: Source) -> dict[str, Any]:
    return {"input": source.input, "key": source.key}


def dropped_fields(dropped: Dropped, inputs: Sequence[Checkpoint]) -> dict[str, Any]:
    """One tensor that is left out, and why."""
    return {**_source_fields(dropped.source), "why": reason_text(dropped.reason, inputs)}


def _use_fields(use: Use) -> dict[str, Any]:
    example: Sequence[str] | None = use.example
    return {
        "name": str(use.name),
        "rule": use.rule,
        "keys": use.keys,
        "made": use.made,
        "example": example,
        "shadowed": use.shadowed,
    }


def problem_fields(problem: Problem) -> dict[str, Any]:
    """One reason why nothing can be written, with all its keys."""
    return {"message": problem.message, "hint": problem.hint or None, "keys": list(problem.keys)}


def written_fields(written: Written) -> dict[str, Any]:
    """The output."""
    return {
        "path": str(written.path),
        "files": [str(file) for file in written.files],
        "bytes": written.nbytes,
        "tensors": written.tensors,
        "seconds": written.seconds,
        "rounding": dict(written.rounding),
        "overflows": dict(written.overflows),
        "zeroed": dict(written.zeroed),
        "missing": written.missing,
    }
