"""Descriptions of encoded tensors in a file's metadata: they name tensors, and follow them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.plan import Copies, Plan, Source, Step
from ckptool.core.reasons import Decoded, Kept
from ckptool.engine.decoded_columns import DecodedColumns, decoded_tensors


def with_decoded_reasons(plan: Plan) -> Plan:
    """The plan whose steps that do nothing but decode a tensor say so."""
    if not any(checkpoint.is_decoded for checkpoint in plan.inputs):
        return plan
    steps = plan.steps
    if isinstance(steps, Copies):
        checkpoint = plan.inputs[steps.input]
        columns = checkpoint.tensors
        if not isinstance(columns, DecodedColumns):
            return plan
        decoded = (why for _, why in _reasons(checkpoint))
        said = [next(decoded) if is_decoded else None for is_decoded in columns.are_decoded]
        pairs = zip(columns.picked(said, steps.sources), steps.reasons, strict=True)
        reasons = [why if why is not None and isinstance(kept, Kept) else kept for why, kept in pairs]
        return replace(plan, steps=steps.with_reasons(reasons))
    found = [dict(_reasons(checkpoint)) for checkpoint in plan.inputs]
    return replace(plan, steps=tuple(_said(step, found) for step in steps))


def _reasons(checkpoint: Checkpoint) -> Iterator[tuple[str, Decoded]]:
    """What is said of each decoded tensor of an input, in its order; one object for those that are alike."""
    said: dict[tuple[int, str], Decoded] = {}
    for key, alike, _, dtype in decoded_tensors(checkpoint):
        name = id(alike), dtype
        if name not in said:
            said[name] = Decoded(alike.title, alike.nbytes, dtype)
        yield key, said[name]


def _said(step: Step, decoded: Sequence[Mapping[str, Decoded]]) -> Step:
    if not isinstance(step.value, Source) or not isinstance(step.reason, Kept):
        return step
    reason = decoded[step.value.input].get(step.value.key) if step.value.input < len(decoded) else None
    return step if reason is None else replace(step, reason=reason)


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
