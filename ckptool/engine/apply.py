"""Runs a plan: lays the output out, moves the bytes, checks the result, and only then gives it its name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import OutputError, PlanError, UnreadableError
from ckptool.core.plan import Plan
from ckptool.engine.encode import Output, container_of, encode
from ckptool.engine.filling import write_durably, write_image
from ckptool.engine.output import check_target, staged_file, staged_folder
from ckptool.engine.reading import Reader

_SIZE = 2  # where the size stands in a fingerprint


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        path: the output.
        files: its files, the index last.
        nbytes: their size.
        tensors: how many tensors it holds.
        seconds: how long writing took, flushing to the disk included.
        rounding: for each tensor that was cast to a narrower float dtype, the worst relative rounding of its finite
            elements; inf if one became infinite.
    """

    path: Path
    files: tuple[Path, ...]
    nbytes: int
    tensors: int
    seconds: float
    rounding: Mapping[str, float] = field(default_factory=dict)


def apply(
    plan: Plan,
    out: Path | str,
    *,
    force: bool = False,
    max_shard: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Run a plan.

    Args:
        plan: what to write, complete for the container of `out`.
        out: where; the ending says the format: `.pth .pt .bin .ckpt` a torch zip archive, `.safetensors`, none a folder
            of safetensors shards with their index.
        force: replace an existing output.
        max_shard: bytes of one shard, for a folder.
        progress: told (bytes done, bytes in all) as it goes, from any thread.

    Raises:
        PlanError: if the plan has problems.
        OutputError: if the output cannot be written as asked; nothing is written then.
    """
    import time

    started = time.monotonic()
    target = Path(out)
    _require_sound(plan, target)
    sources = [file for checkpoint in plan.inputs for file in (checkpoint.path, *checkpoint.files)]
    check_target(target, sources, force=force)
    before = _fingerprints(plan.inputs)
    _check_as_opened(plan.inputs, before)
    output = encode(plan, target, max_shard=max_shard)
    total = sum(slot.nbytes for image in output.images.values() for slot in image.slots)
    advance = _counter(total, progress)
    rounding: dict[str, float] = {}
    with Reader() as reader:
        if output.is_folder:
            with staged_folder(target, force=force) as folder:
                for name, image in output.images.items():
                    write_durably(folder / name, image, plan, reader, advance, rounding)
                _verify(folder, output)
                _check_unchanged(plan.inputs, before)
            files = tuple(target / name for name in output.images)
        else:
            (image,) = output.images.values()
            with staged_file(target, force=force) as (descriptor, temporary):
                write_image(descriptor, image, plan, reader, advance, rounding)
                _verify(temporary, output)
                _check_unchanged(plan.inputs, before)
            files = (target,)
    size = sum(image.size for image in output.images.values())
    by_key = {step.target.key: rounding[step.target.key] for step in plan.steps if step.target.key in rounding}
    return Written(target, files, size, len(output.specs), time.monotonic() - started, by_key)


def _require_sound(plan: Plan, target: Path) -> None:
    problems = plan.problems or plan.unmet
    if problems:
        raise problems[0].error("; ".join(problem.message for problem in problems), hint=problems[0].hint or None)
    if plan.container != container_of(target):
        raise PlanError(f"the plan is not complete for {target.name}", hint="ckptool.commands.beside.complete")


def _counter(total: int, progress: Callable[[int, int], None] | None) -> Callable[[int], None]:
    if progress is None:
        return lambda _: None
    lock, done = threading.Lock(), 0

    def advance(nbytes: int) -> None:
        nonlocal done
        with lock:
            done += nbytes
            progress(done, total)

    return advance


def _fingerprints(inputs: Sequence[Checkpoint]) -> dict[Path, tuple[int, ...]]:
    """What tells that an input was written to meanwhile."""
    files = {file for checkpoint in inputs for file in checkpoint.files}
    try:
        stats = {file: file.stat() for file in files}
    except OSError as error:
        raise UnreadableError(f"{error.filename} is not there any more; nothing was written") from error
    return {file: (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) for file, s in stats.items()}


def _check_as_opened(inputs: Sequence[Checkpoint], now: Mapping[Path, tuple[int, ...]]) -> None:
    """The headers that the plan was made from must still be those of the files; a size tells most changes."""
    for checkpoint in inputs:
        size = sum(now[file][_SIZE] for file in checkpoint.files)
        if size != checkpoint.nbytes and checkpoint.format != "torch.distributed":  # which also counts its .metadata
            raise UnreadableError(
                f"{checkpoint.path} changed after it was opened; nothing was written",
                hint="run it again",
                path=checkpoint.path,
            )


def _check_unchanged(inputs: Sequence[Checkpoint], before: Mapping[Path, tuple[int, ...]]) -> None:
    if _fingerprints(inputs) != before:
        raise UnreadableError("an input changed while it was read; nothing was written", hint="run it again")


def _joined(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _verify(written: Path, output: Output) -> None:
    """Open what was written and hold it against the plan."""
    from ckptool.formats.opening import open_checkpoint

    found = open_checkpoint(written)
    place = found.selection.name  # what is left may make another dict the obvious one, so whole paths are compared
    tensors = {_joined(place, key): tensor for key, tensor in found.tensors.items()}
    everything = {**tensors, **found.other_tensors}
    wanted = {_joined(output.place, spec.key): spec for spec in output.specs}
    for path, spec in wanted.items():
        tensor = everything.get(path)
        if tensor is None or (tensor.dtype, tensor.shape) != (spec.dtype, spec.shape):
            raise OutputError(f"the written file does not hold {spec.key} as planned; nothing was kept", key=spec.key)
    if place == output.place and len(tensors) != len(wanted):
        raise OutputError("the written file holds more tensors than planned; nothing was kept")
