"""Where the bytes of each step of a plan come from, and which steps are one tensor under several names."""

from __future__ import annotations

from collections.abc import Sequence

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.plan import Apply, Copies, Plan, Source
from ckptool.core.tensor import Tensor
from ckptool.core.views import flat_runs, is_flat, is_run, run_of
from ckptool.formats.image import Computed, Content, Range

_SHORT_RUN = 1 << 12
"""Bytes below which a run on average is gathered in memory: copying ranges costs two system calls each."""


def contents_of(plan: Plan, index: int) -> tuple[Content, ...]:
    """Where the packed bytes of step `index` come from: runs of source files where possible, else computed."""
    step, sources = plan.step(index), plan.sources
    value = step.value
    if isinstance(value, Source):
        tensor = _copied_tensor(plan, index) or sources[value.input][value.key]
        if tensor.layout == "strided" and is_run(tensor):
            return (copied(tensor),)
        if tensor.layout == "strided" and is_flat(tensor) and (ranges := _ranges(tensor)):
            return ranges
    elif (moved := _moved(sources, value)) is not None:
        return moved
    return (Computed(index),) if step.target.nbytes else ()


def _copied_tensor(plan: Plan, index: int) -> Tensor | None:
    """What a step copies, where the plan's columns are those of its input: no key is looked for."""
    steps = plan.steps
    if not isinstance(steps, Copies) or index >= len(steps):
        return None
    columns = plan.inputs[steps.input].columns
    return columns.tensor_of(index) if columns is not None and columns.has_list(steps.sources) else None


def copied(tensor: Tensor) -> Range:
    """A tensor that stands in its file as one run."""
    file, offset, nbytes = run_of(tensor)
    storage = tensor.pieces[0].storage
    return Range(file, offset, nbytes, storage.crc if nbytes == storage.nbytes else None)


def _ranges(tensor: Tensor) -> tuple[Range, ...]:
    """The bytes of flat runs; nothing if they must be changed on the way, or lie in many short runs."""
    runs = flat_runs(tensor)
    if tensor.conj or tensor.neg or any(run.big_endian for run in runs) or len(runs) * _SHORT_RUN > tensor.nbytes:
        return ()
    return tuple(Range(run.file, run.offset, run.nbytes) for run in runs)


def _moved(sources: Sequence[Checkpoint], value: Apply) -> tuple[Content, ...] | None:
    """The result of an op that only puts runs of its arguments one behind the other."""
    tensors: list[Tensor] = []
    for arg in value.args:
        if not isinstance(arg, Source):
            return None
        tensor = sources[arg.input][arg.key]
        if tensor.layout != "strided" or not is_run(tensor):
            return None
        tensors.append(tensor)
    runs = value.op.runs([tensor.spec for tensor in tensors])
    if runs is None:
        return None
    ranges = []
    for run in runs:
        file, offset, _ = run_of(tensors[run.arg])
        ranges.append(Range(file, offset + run.offset, run.nbytes))
    return tuple(ranges)


def tied_steps(plan: Plan) -> dict[int, int]:
    """The number of the step with which a step is one tensor, by its own number."""
    by_key = {step.target.key: index for index, step in enumerate(plan.steps)}
    return {index: by_key[step.tied_to] for index, step in enumerate(plan.steps) if step.tied_to is not None}
