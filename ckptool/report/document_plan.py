"""A plan of filter, remap or merge as a document: schema ``ckptool.plan/1``, a row per tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Literal, TypeAlias

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.plan import Dropped, Plan, Step, sources_of
from ckptool.report.document import Answer, Cell, Document, Mood, Table
from ckptool.report.document_inspect import shape_text
from ckptool.report.json_plan import dropped_fields, op_text, plan_result, step_fields
from ckptool.report.plan_rows import fate_of, tensors_text
from ckptool.report.preview import Preview
from ckptool.report.reasons import reason_text
from ckptool.report.results import ABOUT, plan_findings
from ckptool.report.text_plan import plan_lines
from ckptool.report.units import number_of, size_short

if TYPE_CHECKING:
    from ckptool.engine.apply import Written

Mode: TypeAlias = Literal["write", "preview", "dry run", "check"]
_COLUMNS = ("key", "fate", "dtype", "shape", "elements", "bytes", "sources", "op", "why", "tied_to")


def plan_document(
    preview: Preview, mode: Mode, written: Written | None = None, exit_code: int = 0, verbose: bool = False
) -> Document:
    """A plan, and what was written of it.

    Args:
        preview: the plan and what is said with it.
        mode: whether it is written, or why not.
        written: the output; None before it is written, or if it never is.
        exit_code: of the command.
        verbose: a row per tensor on a screen.
    """
    plan = preview.plan
    return Document(
        command=plan.command.name,
        answer=plan_answer(plan, mode) or _ready(preview, mode),
        result=lambda: plan_result(preview, written, exit_code),
        records=lambda: chain(
            (step_fields(step, plan.inputs) for step in plan.steps),
            ({"dropped": dropped_fields(dropped, plan.inputs)} for dropped in plan.dropped),
        ),
        summary=lambda: {
            "tensors": sum(step.stored for step in plan.steps),
            "bytes": plan.nbytes,
            "dropped": len(plan.dropped),
            "exit_code": int(exit_code),
        },
        table=lambda: Table(
            _COLUMNS,
            chain(
                (_row(plan, step) for step in plan.steps if step.stored or step.tied_to is not None),
                (_dropped_row(plan, dropped) for dropped in plan.dropped),
            ),
        ),
        listing=lambda: iter(sorted(_listing(plan), key=lambda row: row[1])),
        screen=lambda screen: plan_lines(preview, screen, verbose),
        markdown=lambda: _markdown(preview, written),
        html=lambda: _html(preview),
        findings=lambda: plan_findings(plan, preview.names),
        about=ABOUT,
        problems=(*plan.problems, *plan.unmet),
    )


def _markdown(preview: Preview, written: Written | None) -> Iterator[str]:
    from ckptool.report.markdown_plan import plan_markdown

    return plan_markdown(preview, written)


def _html(preview: Preview) -> Iterator[str]:
    from ckptool.report.html_check import check_html

    return check_html(plan_findings(preview.plan, preview.names), preview.plan.command.name)


def plan_answer(plan: Plan, mode: Mode) -> Answer | None:
    """Why nothing is written; None where nothing forbids it."""
    if plan.problems:
        return Answer(f"cannot be written: {number_of(len(plan.problems), 'problem')}", "bad")
    if plan.unmet:
        unmet = number_of(len(plan.unmet), "requirement is", "requirements are")
        return Answer(f"not as required: {unmet} not met{', nothing is written' * (mode == 'write')}", "bad")
    return None


def _ready(preview: Preview, mode: Mode) -> Answer:
    plan = preview.plan
    warnings = len({note.text for note in preview.notes if note.level == "warning"})
    state = f"ready, with {number_of(warnings, 'warning')}" if warnings else "ready"
    verb = "will" if mode == "write" else "would"
    mood: Mood = "warning" if warnings else "good"
    return Answer(f"{state}: {tensors_text(plan)}, {size_short(plan.nbytes)} {verb} be written", mood)


def _row(plan: Plan, step: Step) -> Sequence[Cell]:
    target = step.target
    return (
        target.key,
        fate_of(step).value,
        target.dtype,
        shape_text(target.shape),
        target.elements,
        plan.nbytes_of(step) if step.stored else 0,
        " ".join(source.key for source in sources_of(step.value)),
        op_text(step.value),
        reason_text(step.reason, plan.inputs),
        step.tied_to,
    )


def _dropped_row(plan: Plan, dropped: Dropped) -> Sequence[Cell]:
    tensor = plan.inputs[dropped.source.input][dropped.source.key]
    why = reason_text(dropped.reason, plan.inputs)
    return (
        tensor.key,
        "dropped",
        tensor.dtype,
        shape_text(tensor.shape),
        tensor.elements,
        0,
        tensor.key,
        "",
        why,
        None,
    )


def _listing(plan: Plan) -> Iterator[tuple[str, str, str, str]]:
    """``fate, key, old spec, new spec``; ``-`` where there is none, or several."""
    for step in plan.steps:
        yield fate_of(step).value, step.target.key, _old_spec(plan.inputs, step), step.target.short
    for dropped in plan.dropped:
        tensor = plan.inputs[dropped.source.input][dropped.source.key]
        yield "dropped", tensor.key, tensor.spec.short, "-"


def _old_spec(inputs: Sequence[Checkpoint], step: Step) -> str:
    sources = list(sources_of(step.value))
    return inputs[sources[0].input][sources[0].key].spec.short if len(sources) == 1 else "-"
