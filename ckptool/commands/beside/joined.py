"""Tensors beside the weights that the files of several ranks hold together: a torch output gets them whole."""

from __future__ import annotations

from dataclasses import replace

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.plan import Moved, Plan, Source, Step
from ckptool.core.reasons import Follows
from ckptool.formats.ranks.stand_ins import is_stand_in


def with_joined(plan: Plan, source: Checkpoint) -> Plan:
    """The plan that also makes the tensors which stand-ins in the frame's objects stand for.

    Args:
        plan: a plan whose frame is a torch file, or ranks' files that were joined.
        source: the input whose objects the output keeps.
    """
    if source.ranks is None:
        return plan
    number = len(plan.inputs)
    made = (
        Moved(Step(tensor.spec, Source(number, key), Follows()), tensor.node)
        for key, tensor in source.other_tensors.items()
        if is_stand_in(tensor.node)
    )
    return replace(plan, moved=(*plan.moved, *made))
