"""Runs a plan: lays the output out, moves the bytes, checks the result, and only then gives it its name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from ckptool.core.bytes import PathText
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.counts import many
from ckptool.core.errors import CkptError, DamagedError, OutputError, PlanError
from ckptool.core.plan import Plan, Source
from ckptool.core.spec import Form
from ckptool.core.tensor import Tensor
from ckptool.engine.decoded_columns import infinite_of
from ckptool.engine.encode import container_of, encode, writer_named, writer_of
from ckptool.engine.evaluate import give_back_freed_memory
from ckptool.engine.filling import write_image
from ckptool.engine.plan_hash import plan_hash
from ckptool.engine.reading import Reader
from ckptool.engine.rounding import Rounding
from ckptool.formats.image import Image, Images
from ckptool.formats.shard_names import INDEX, replaceable
from ckptool.formats.writer import Output
from ckptool.storage.locate import locate_file
from ckptool.storage.paths import exists, is_address, is_folder, local_path
from ckptool.storage.refusals import require_name
from ckptool.storage.sink import ByteSink
from ckptool.storage.stages import Stage
from ckptool.storage.staging import clear_stages, staged_file, staged_folder
from ckptool.storage.targets import check_target
from ckptool.storage.texts import read_bytes
from ckptool.storage.touched import only_looking, same_file


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
            elements; inf if one became infinite or NaN.
        overflows: how many elements were too large for the dtype, for each tensor that had such.
        zeroed: how many elements other than 0 became 0, for each tensor that had such.
        notes: what an earlier run with this output left and what became of it, and values that were damaged.
        missing: files that other processes have still to write; until then nothing has the output's name.
    """

    path: PurePath
    files: tuple[PurePath, ...]
    nbytes: int
    tensors: int
    seconds: float
    rounding: Mapping[str, float] = field(default_factory=dict, repr=False)
    overflows: Mapping[str, int] = field(default_factory=dict, repr=False)
    zeroed: Mapping[str, int] = field(default_factory=dict, repr=False)
    notes: tuple[Note, ...] = ()
    missing: int = 0


def apply(
    plan: Plan,
    out: PathText,
    *,
    force: bool = False,
    max_shard: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Run a plan.

    Args:
        plan: what to write, complete for the container of `out`.
        out: where; an ending that says another container than the plan's is refused.
        force: replace an existing output; in a folder its weights only, other files stay.
        max_shard: bytes of one shard, for a folder.
        progress: told (bytes done, bytes in all) as it goes, from any thread.

    Raises:
        PlanError: if the plan has problems.
        OutputError: if the output cannot be written as asked; nothing is written then.
    """
    import time

    started = time.monotonic()
    target = local_path(out)
    require_sound(plan, target)
    check_output(plan, target, force=force)
    output, kept = without_others(encode(plan, target, max_shard=max_shard), plan, target)
    digest = plan_hash(plan, output)
    notes = [*kept, *cleared(plan, target, digest, force)]
    advance = counting(output.nbytes, progress)
    rounding: dict[str, Rounding] = {}
    damaged: list[DamagedError] = []
    give_back_freed_memory(len(plan.steps))
    with Reader(plan.inputs, damaged.append if plan.takes_damaged else refuse_damaged) as reader:
        if writer_of(plan).is_folder:
            with staged_folder(target, digest, replaceable, force=force) as stage:
                kept, nbytes = _fill_stage(stage, output, plan, reader, advance, rounding)
                notes += kept
                verify(stage.new, output)
                reader.check()
            files = tuple(target / name for name in output.images)
        else:
            with staged_file(target, digest, force=force) as sink:
                nbytes = _fill_only(sink, output, plan, reader, advance, rounding)
                verify(sink.path, output)
                reader.check()
            files = (target,)
    notes += damaged_notes(damaged)
    written = Written(target, files, nbytes, len(output.specs), time.monotonic() - started)
    return with_casts(written, plan, rounding, notes)


def with_casts(written: Written, plan: Plan, rounding: Mapping[str, Rounding], notes: Sequence[Note]) -> Written:
    """What was written, and what casts did to its numbers in the order of the plan."""
    keys = [step.target.key for step in plan.steps if step.target.key in rounding] if rounding else []
    casts = {key: rounding[key] for key in keys}
    return replace(
        written,
        rounding={key: cast.worst for key, cast in casts.items()},
        overflows={**{key: cast.overflows for key, cast in casts.items() if cast.overflows}, **_infinite(plan)},
        zeroed={key: cast.zeroed for key, cast in casts.items() if cast.zeroed},
        notes=tuple(notes),
    )


def damaged_notes(damaged: Sequence[DamagedError]) -> list[Note]:
    """What there is to say of values that were damaged and are written as they are."""
    return [Note(error.message, "written as it is: --allow checksum") for error in damaged]


def refuse_damaged(error: DamagedError) -> None:
    hint = "get the file again from where it came from; --allow checksum writes it as it is"
    raise DamagedError(error.message, hint=hint, path=error.path, key=error.key) from None


def _infinite(plan: Plan) -> dict[str, int]:
    """For decoded tensors that were written now, how many finite numbers their dtype could not hold."""
    lost = [infinite_of(checkpoint) for checkpoint in plan.inputs]
    found: dict[str, int] = {}
    for step in plan.steps if any(lost) else ():
        if isinstance(step.value, Source) and (number := lost[step.value.input].get(step.value.key)):
            found[step.target.key] = number
    return found


def check_output(
    plan: Plan, target: PurePath, also_read: Sequence[PurePath] = (), *, force: bool, to: str | None = None
) -> None:
    """Refuse an output that could not be written, or is one of the plan's inputs; see `check_target`.

    Where an output is in the way, what killed runs left of it is finished or undone first, and the error says so.

    Args:
        plan: its inputs are read.
        target: the output.
        also_read: further files that are read for it.
        force: an existing output may be replaced.
        to: its container, where its ending does not say it and the plan is not complete.
    """
    inputs = [PurePath(path) for checkpoint in plan.inputs for path in checkpoint.paths]
    inputs += also_read
    require_name(target)
    weights = replaceable if writer_named(container_of(target, to or plan.container)).is_folder else None
    try:
        check_target(target, inputs, weights, force=force)
    except OutputError:
        if same_file(target, inputs) is not None:
            raise
        _said_with(clear_stages(target), lambda: check_target(target, inputs, weights, force=force))


def without_others(output: Output, plan: Plan, target: PurePath) -> tuple[Output, list[Note]]:
    """The output without the carried files that an existing folder has already: what is no weight there stays."""
    there = [file.name for file in plan.files if file.name in output.images and exists(target / file.name)]
    others = [name for name in there if _is_another(target / name, output.images[name])]
    notes = [Note(f"{name} in {target} stays as it is: it is not what this output would carry") for name in others]
    return replace(output, images=Images.joined(output.images).without(there)), notes


def _is_another(path: PurePath, image: Image) -> bool:
    text = b"".join(literal for _, literal in image.literals)
    try:
        with only_looking():
            return read_bytes(path, len(text)) != text
    except CkptError:  # it is longer, or no file that can be read
        return True


def cleared(plan: Plan, target: PurePath, digest: str, force: bool) -> list[Note]:
    """Clear what killed runs with this output left; what there is to say about it."""
    notes = clear_stages(target, digest)
    if notes:  # an old output may be back under its name
        _said_with(notes, lambda: check_output(plan, target, force=force))
    return notes


def _said_with(notes: Sequence[Note], check: Callable[[], None]) -> None:
    """Check an output; a refusal also says what an earlier run left."""
    try:
        check()
    except OutputError as error:
        texts = [error.message, *(note.text for note in notes)]
        raise OutputError("; ".join(texts), hint=error.hint, path=error.path) from None


def _fill_only(
    sink: ByteSink,
    output: Output,
    plan: Plan,
    reader: Reader,
    advance: Callable[[int], None],
    rounding: dict[str, Rounding],
) -> int:
    """Write the only file of an output; its bytes."""
    (image,) = output.images.values()
    write_image(sink, image, plan, reader, advance, rounding)
    return image.size


def _fill_stage(
    stage: Stage,
    output: Output,
    plan: Plan,
    reader: Reader,
    advance: Callable[[int], None],
    rounding: dict[str, Rounding],
) -> tuple[list[Note], int]:
    """Write the files of a folder that an earlier run with this plan has not finished.

    Returns:
        What there is to say of those that it has; the bytes of all files.
    """
    kept = nbytes = 0
    for name in output.images:
        finished = stage.finished(name)
        if finished is not None:
            kept += 1
            rounding.update(recorded_rounding(finished.about))
            nbytes += finished.nbytes
            if name in output.portions:
                advance(output.portions[name].nbytes)
            continue
        image = output.images[name]
        nbytes += image.size
        rounding.update(fill_file(stage, name, image, plan, reader, advance))
    total = many(len(output.images), "file")
    return [Note(f"resumed: {kept} of {total} finished by an earlier run, and kept")] if kept else [], nbytes


def fill_file(
    stage: Stage, name: str, image: Image, plan: Plan, reader: Reader, advance: Callable[[int], None]
) -> dict[str, Rounding]:
    """Write one file of a folder; what casts did to its numbers, which its record has too."""
    own: dict[str, Rounding] = {}
    numbers: dict[str, tuple[float, int, int]] = {}
    with stage.file(name, numbers) as sink:
        write_image(sink, image, plan, reader, advance, own)
        numbers.update({key: (cast.worst, cast.overflows, cast.zeroed) for key, cast in own.items()})
    return own


def recorded_rounding(about: Mapping[str, Sequence[float]]) -> dict[str, Rounding]:
    """What casts did to the numbers of a file, from its record."""
    return {key: Rounding(worst, int(over), int(zeroed)) for key, (worst, over, zeroed) in about.items()}


def require_sound(plan: Plan, target: PurePath) -> None:
    problems = plan.problems or plan.unmet
    if problems:
        raise problems[0].error("; ".join(problem.message for problem in problems), hint=problems[0].hint or None)
    if container_of(target, writer_of(plan).name) != plan.container:
        raise PlanError(f"the plan is not complete for {target.name}", hint="ckptool.commands.beside.complete")


def counting(total: int, progress: Callable[[int, int], None] | None) -> Callable[[int], None]:
    if progress is None:
        return lambda _: None
    lock, done = threading.Lock(), 0

    def advance(nbytes: int) -> None:
        nonlocal done
        with lock:
            done += nbytes
            progress(done, total)

    return advance


def _joined(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def verify(written: PurePath, output: Output) -> None:
    """Open what was written and hold it against the plan."""
    is_far = is_address(written)
    files = [written / name for name in output.portions] if is_far or is_folder(written) else [written]
    parts = files if is_far else [written]
    give_back_freed_memory(len(output.specs))
    is_streamed = output.is_of_columns and bool(output.portions)
    number = total = 0
    for path, form in _read_again(files) if is_streamed else _opened_again(parts):
        number += 1
        total += hash((path, form.dtype, form.shape))
    wanted = sum(hash((_joined(output.place, spec.key), spec.dtype, spec.shape)) for spec in output.specs)
    if (number, total) != (len(output.specs), wanted):  # no two different sets have the same, but for one in 2**64
        _verify_each(parts, output)
    has_index = INDEX in output.images and not is_far  # far away it is written when all else is sound
    if is_streamed and has_index and not _is_same(written / INDEX, output.images[INDEX]):
        raise OutputError("the written index is not as planned; nothing was kept")


def _opened_again(parts: Iterable[PurePath]) -> Iterator[tuple[str, Form]]:
    """The tensors of checkpoints, and their paths there."""
    for found in map(_reopened, parts):
        for key, form in zip(found.tensors, found.forms(), strict=True):
            yield _joined(found.selection.name, key), form


def _read_again(files: Iterable[PurePath]) -> Iterator[tuple[str, Form]]:
    """The tensors of safetensors files of very many, and their keys."""
    from ckptool.formats.safetensors import read_again

    with _reading_again():
        for file in files:
            yield from read_again(locate_file(file))


def _is_same(path: PurePath, image: Image) -> bool:
    """True if a file holds these known bytes, and no others."""
    with _reading_again(), locate_file(path).open() as file:
        return file.size == image.size and all(file.read(at, len(text)) == text for at, text in image.literals)


def _verify_each(parts: Sequence[PurePath], output: Output) -> None:
    """Look each tensor up: one may be in another dict of the file, and who lacks is named."""
    forms: dict[str, Form] = {}  # few objects, whatever the number of tensors
    others: dict[str, Tensor] = {}
    place = output.place
    for found in map(_reopened, parts):
        place = found.selection.name  # what is left may make another dict the obvious one, so whole paths are compared
        forms.update((_joined(place, key), form) for key, form in zip(found.tensors, found.forms(), strict=True))
        others |= found.other_tensors
    wanted = 0
    for spec in output.specs:
        path = _joined(output.place, spec.key)
        made = forms.get(path) or others.get(path)
        if made is None or (made.dtype, made.shape) != (spec.dtype, spec.shape):
            raise OutputError(f"the written file does not hold {spec.key} as planned; nothing was kept", key=spec.key)
        wanted += 1
    if place == output.place and len(forms) != wanted:
        raise OutputError("the written file holds more tensors than planned; nothing was kept")


def _reopened(part: PurePath) -> Checkpoint:
    from ckptool.formats.opening import open_checkpoint

    with _reading_again():
        return open_checkpoint(part)


@contextmanager
def _reading_again() -> Iterator[None]:
    """Say of an error that nothing was kept."""
    try:
        with only_looking():
            yield
    except CkptError as error:
        raise OutputError(f"the written file could not be read again, so nothing was kept: {error.message}") from error
