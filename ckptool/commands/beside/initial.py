"""Which keys of an output hold initial values: what its plan takes from a model's init, or from keys that hold such."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ckptool.core.initial import INITIAL_KEY, recorded_initial
from ckptool.core.plan import Plan, Step, sources_of
from ckptool.core.reasons import Init, OwnTensor, Reason, Tie


def with_initial(plan: Plan) -> Plan:
    """The plan with the keys of its output that hold initial values, and metadata without what inputs recorded.

    A tensor that is made of several holds initial values if all of them do.
    """
    known = [frozenset(recorded_initial(checkpoint)) for checkpoint in plan.inputs]
    metadata = {name: text for name, text in plan.metadata.items() if name != INITIAL_KEY}
    if not any(known) and plan.command.name != "transplant":
        return replace(plan, metadata=metadata)
    reasons = {step.target.key: step.reason for step in plan.steps}
    keys = tuple(step.target.key for step in plan.steps if _is_initial(step, known, reasons))
    return replace(plan, metadata=metadata, initial=keys)


def _is_initial(step: Step, known: Sequence[Collection[str]], reasons: Mapping[str, Reason]) -> bool:
    sources = list(sources_of(step.value))
    if sources:
        return all(source.key in known[source.input] for source in sources)
    reason = step.reason
    if isinstance(reason, Tie):
        reason = reasons.get(reason.key, reason)
    if isinstance(reason, OwnTensor):
        return reason.kind in ("init", "statistics")
    return isinstance(reason, Init)
