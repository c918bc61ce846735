"""Fill a live model's tensors from a plan, in place, reading only the bytes that are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptool.core.errors import CkptError, PartlyLoadedError
from ckptool.core.plan import Plan, Source, Step, sources_of
from ckptool.engine.evaluate import packed_blocks
from ckptool.engine.reading import Reader
from ckptool.values.pool import in_threads

if TYPE_CHECKING:
    import torch

THREADS = 2


def fill_model(model: torch.nn.Module, plan: Plan) -> None:
    """Fill the model's tensors, over all threads.

    Nothing is written before every file was found to be the one whose headers were read.

    Raises:
        PartlyLoadedError: a file changed, was damaged or could not be read after the first tensor was written to.
    """
    import torch

    tensors = model.state_dict()
    steps = [step for step in plan.steps if step.tied_to is None and tensors[step.target.key].numel()]
    begun: list[str] = []

    def fill(step: Step) -> None:
        begun.append(step.target.key)
        _fill(tensors[step.target.key], step, plan, reader)

    try:
        with torch.no_grad(), Reader(plan.inputs) as reader:
            sources = plan.sources
            reader.expect(sources[each.input][each.key] for step in steps for each in sources_of(step.value))
            for _ in in_threads(fill, steps, THREADS):
                continue
    except CkptError as error:
        if not begun:
            raise
        raise PartlyLoadedError(error, tuple(begun), len(steps) - len(begun)) from error


def _fill(tensor: torch.Tensor, step: Step, plan: Plan, reader: Reader) -> None:
    """Read or compute one step's bytes, straight into the tensor's memory where that is plain."""
    import torch

    is_plain = tensor.device.type == "cpu" and tensor.is_contiguous() and tensor.layout is torch.strided
    room = tensor if is_plain else torch.empty(tensor.shape, dtype=tensor.dtype)
    memory = room.reshape(-1).view(torch.uint8).numpy().data
    if isinstance(step.value, Source):
        reader.fill(plan.inputs[step.value.input][step.value.key], memory)
    else:
        at = 0
        for block in packed_blocks(step.value, plan.inputs, reader):
            memory[at : at + len(block)] = block
            at += len(block)
    if room is not tensor:
        with torch.no_grad():
            tensor.copy_(room)
