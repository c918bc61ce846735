"""Descriptions of encoded tensors in a file's metadata: they name tensors, and follow them."""

from __future__ import annotations

from dataclasses import replace

from ckptool.core.plan import Plan, Source, Step
from ckptool.core.reasons import Decoded, Kept
from ckptool.engine.decoded import decoded_source


def with_decoded_reasons(plan: Plan) -> Plan:
    """The plan whose steps that do nothing but decode a tensor say so."""
    if not any(checkpoint.is_decoded for checkpoint in plan.inputs):
        return plan
    return replace(plan, steps=tuple(_said(step, plan) for step in plan.steps))


def _said(step: Step, plan: Plan) -> Step:
    if not isinstance(step.value, Source) or not isinstance(step.reason, Kept):
        return step
    source = decoded_source(plan.inputs[step.value.input][step.value.key])
    if source is None:
        return step
    return replace(step, reason=Decoded(source.encoded.title, source.encoded.nbytes, source.dtype))


def with_renamed_descriptions(plan: Plan) -> Plan:
    """The plan with metadata that names its first input's encoded tensors as the output does."""
    if not plan.metadata or not plan.inputs[0].may_hold_codes:
        return plan
    from ckptool.encodings.descriptions import has_descriptions, moved_key, renamed_descriptions
    from ckptool.engine.dequantize import encoded_of

    if not has_descriptions(plan.metadata):
        return plan
    targets: dict[str, str] = {}
    for step in plan.steps:
        if isinstance(step.value, Source) and step.value.input == 0:
            targets.setdefault(step.value.key, step.target.key)
    names: dict[str, str | None] = {}
    for encoded in encoded_of(plan.inputs[0]):
        codes = encoded.codes.key
        names[encoded.key] = moved_key(encoded.key, codes, targets[codes]) if codes in targets else None
    changed = {key: new for key, new in names.items() if new != key}
    return replace(plan, metadata=renamed_descriptions(plan.metadata, changed)) if changed else plan
