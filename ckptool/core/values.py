"""What a value of a plan comes to, from headers."""

from __future__ import annotations

from collections.abc import Sequence

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.plan import Source, Value
from ckptool.core.spec import TensorSpec


def spec_of(value: Value, inputs: Sequence[Checkpoint]) -> TensorSpec:
    """Dtype and shape of a value, from headers alone. Raises `PlanError` where an op does not fit its arguments."""
    if isinstance(value, Source):
        return inputs[value.input][value.key].spec
    return value.op.result([spec_of(arg, inputs) for arg in value.args])
