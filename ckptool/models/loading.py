"""Fill a live model's tensors from a plan, in place, reading only the bytes that are needed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ckptool.core.plan import Plan, Source, Step, sources_of
from ckptool.core.views import is_run, run_of
from ckptool.engine.evaluate import packed_blocks
from ckptool.engine.reading import Reader

if TYPE_CHECKING:
    import torch

THREADS = 2


def fill_model(model: torch.nn.Module, plan: Plan) -> None:
    """Fill the model's tensors, over all threads."""
    import torch

    tensors = model.state_dict()
    steps = [step for step in plan.steps if step.tied_to is None]
    with torch.no_grad(), Reader(plan.inputs) as reader, ThreadPoolExecutor(THREADS) as pool:
        sources = plan.sources
        reader.expect(sources[each.input][each.key] for step in steps for each in sources_of(step.value))
        for _ in pool.map(lambda step: _fill(tensors[step.target.key], step, plan, reader), steps):
            continue


def _fill(tensor: torch.Tensor, step: Step, plan: Plan, reader: Reader) -> None:
    """Read or compute one step's bytes, straight into the tensor's memory where that is plain."""
    import torch

    is_plain = tensor.device.type == "cpu" and tensor.is_contiguous() and tensor.layout is torch.strided
    room = tensor if is_plain else torch.empty(tensor.shape, dtype=tensor.dtype)
    if not room.numel():
        return
    memory = room.reshape(-1).view(torch.uint8).numpy().data
    inputs = plan.inputs
    if isinstance(step.value, Source) and is_run(inputs[0][step.value.key]):
        file, offset, _ = run_of(inputs[0][step.value.key])
        reader.read_into(file, offset, memory)
    else:
        at = 0
        for block in packed_blocks(step.value, inputs, reader):
            memory[at : at + len(block)] = block
            at += len(block)
    if room is not tensor:
        with torch.no_grad():
            tensor.copy_(room)
