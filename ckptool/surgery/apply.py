"""Runs a plan: lays the output out, moves the bytes, checks the result, and only then gives it its name."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ckptool.checkpoint import Checkpoint
from ckptool.errors import CkptError, OutputError, PlanError, UnreadableError
from ckptool.formats.files import naming
from ckptool.formats.image import Computed, Image, Range, Slot
from ckptool.reading import Reader
from ckptool.surgery.copying import copy_range
from ckptool.surgery.encode import Output, Tied, encode
from ckptool.surgery.evaluate import packed_blocks
from ckptool.surgery.output import check_target, staged_file, staged_folder
from ckptool.surgery.plan import Plan
from ckptool.surgery.rounding import Rounding, rounds

THREADS = 2
_CRC_BLOCK = 1 << 20
_WORTH_A_FLUSH = 64 << 20  # bytes that take longer to sum than a flush to begin
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


class StoppedError(Exception):
    """The other threads failed; this one stops."""


@dataclass(slots=True)
class _Filler:
    """Fills the slots of one image in one open file, from several threads."""

    plan: Plan
    reader: Reader
    target: int
    advance: Callable[[int], None]
    rounding: dict[str, float]
    stop: threading.Event = field(default_factory=threading.Event)
    crcs: dict[str, int] = field(default_factory=dict)

    def tasks(self, slots: Sequence[Slot]) -> Iterator[Callable[[], None]]:
        """What is to be done, for a pool of threads.

        A file takes one write at a time, so all copies are one task, in order; sums over copied bytes and computed
        tensors are for the threads beside it.
        """
        copies = [slot for slot in slots if _is_copy(slot)]
        sums = [slot for slot in copies if slot.needs_crc and _known_crc(slot) is None]
        if copies:
            yield partial(self.copy, copies, flush=sum(slot.nbytes for slot in sums) >= _WORTH_A_FLUSH)
        yield from (partial(self.compute, slot) for slot in slots if not _is_copy(slot))
        yield from (partial(self.sum, slot) for slot in sums)

    def copy(self, slots: Sequence[Slot], *, flush: bool) -> None:
        """Copy slots, and let the disk begin with them while others still compute."""
        for slot in slots:
            at = slot.offset
            for content in slot.contents:
                assert isinstance(content, Range)
                self._copy(content, at)
                at += content.nbytes
            self._check_length(slot, at)
            if slot.needs_crc and (known := _known_crc(slot)) is not None:
                self.crcs[slot.name] = known
        if flush:
            os.fdatasync(self.target)

    def compute(self, slot: Slot) -> None:
        """Fill a slot of which something has to be computed."""
        at, crc = slot.offset, 0
        for content in slot.contents:
            if isinstance(content, Range):
                self._copy(content, at)
                crc = self._crc_of(content, crc) if slot.needs_crc else 0
                at += content.nbytes
                continue
            for block in self._blocks(content):
                write_all(self.target, block, at)
                crc = zlib.crc32(block, crc) if slot.needs_crc else 0
                at += len(block)
                self._moved(len(block))
        self._check_length(slot, at)
        self.crcs[slot.name] = crc

    def sum(self, slot: Slot) -> None:
        """The CRC-32 of a slot whose bytes are copied meanwhile."""
        crc = 0
        for content in slot.contents:
            assert isinstance(content, Range)
            crc = self._crc_of(content, crc)
        self.crcs[slot.name] = crc

    def _copy(self, content: Range, at: int) -> None:
        with self.reader.descriptor(content.file) as source, naming(content.file):
            copy_range(source, content.offset, self.target, at, content.nbytes, self._moved)

    def _crc_of(self, content: Range, crc: int) -> int:
        buffer = memoryview(bytearray(min(_CRC_BLOCK, content.nbytes)))
        for start in range(0, content.nbytes, _CRC_BLOCK):
            part = buffer[: min(_CRC_BLOCK, content.nbytes - start)]
            self.reader.read_into(content.file, content.offset + start, part)
            crc = zlib.crc32(part, crc)
            self._moved(0)
        return crc

    def _blocks(self, content: Computed) -> Iterator[memoryview]:
        """The bytes of a computed tensor; notes how far it was rounded."""
        step = self.plan.steps[content.index]
        rounding = Rounding() if rounds(step.value, self.plan.inputs) else None
        yield from packed_blocks(step.value, self.plan.inputs, self.reader, rounding)
        if rounding is not None:
            self.rounding[step.target.key] = rounding.worst

    @staticmethod
    def _check_length(slot: Slot, end: int) -> None:
        if end != slot.offset + slot.nbytes:
            raise CkptError(f"{slot.name} came out {end - slot.offset:,} bytes long, not {slot.nbytes:,}")

    def _moved(self, nbytes: int) -> None:
        if self.stop.is_set():
            raise StoppedError
        self.advance(nbytes)


def _is_copy(slot: Slot) -> bool:
    return all(isinstance(content, Range) for content in slot.contents)


def _known_crc(slot: Slot) -> int | None:
    """The CRC-32 of a slot, if its source states it."""
    if not slot.nbytes:
        return 0
    first = slot.contents[0]
    return first.crc if len(slot.contents) == 1 and isinstance(first, Range) else None


def apply(
    plan: Plan,
    out: Path | str,
    *,
    force: bool = False,
    max_shard: int | None = None,
    tied: Tied = "clone",
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Run a plan.

    Args:
        plan: what to write.
        out: where; the ending says the format: `.pth .pt .bin .ckpt` a torch zip archive, `.safetensors`, none a folder
            of safetensors shards with their index.
        force: replace an existing output.
        max_shard: bytes of one shard, for a folder.
        tied: for safetensors, what becomes of tensors that share their bytes: "clone" or "keep-first".
        progress: told (bytes done, bytes in all) as it goes, from any thread.

    Raises:
        PlanError: if the plan has problems.
        OutputError: if the output cannot be written as asked; nothing is written then.
    """
    import time

    started = time.monotonic()
    _require_sound(plan)
    target = Path(out)
    sources = [file for checkpoint in plan.inputs for file in (checkpoint.path, *checkpoint.files)]
    check_target(target, sources, force=force)
    before = _fingerprints(plan.inputs)
    _check_as_opened(plan.inputs, before)
    output = encode(plan, target, max_shard=max_shard, tied=tied)
    total = sum(slot.nbytes for image in output.images.values() for slot in image.slots)
    advance = _counter(total, progress)
    rounding: dict[str, float] = {}
    with Reader() as reader:
        if output.is_folder:
            with staged_folder(target, force=force) as folder:
                for name, image in output.images.items():
                    _write_durably(folder / name, image, _Filler(plan, reader, -1, advance, rounding))
                _verify(folder, output)
                _check_unchanged(plan.inputs, before)
            files = tuple(target / name for name in output.images)
        else:
            (image,) = output.images.values()
            with staged_file(target, force=force) as (descriptor, temporary):
                _write_image(image, _Filler(plan, reader, descriptor, advance, rounding))
                _verify(temporary, output)
                _check_unchanged(plan.inputs, before)
            files = (target,)
    size = sum(image.size for image in output.images.values())
    by_key = {step.target.key: rounding[step.target.key] for step in plan.steps if step.target.key in rounding}
    return Written(target, files, size, len(output.specs), time.monotonic() - started, by_key)


def _require_sound(plan: Plan) -> None:
    problems = plan.problems or plan.unmet
    if problems:
        raise PlanError("; ".join(problem.message for problem in problems), hint=problems[0].hint or None)
    if not plan.steps:
        raise PlanError("nothing is left: the output would hold no tensor")


def _write_durably(path: Path, image: Image, filler: _Filler) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        filler.target = descriptor
        _write_image(image, filler)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_image(image: Image, filler: _Filler) -> None:
    """Write one file: the known bytes, then the slots over all threads, then what depends on their checksums."""
    os.ftruncate(filler.target, image.size)
    for offset, literal in image.literals:
        write_all(filler.target, literal, offset)
    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(task) for task in filler.tasks(image.slots)]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:  # Ctrl-C arrives here
            filler.stop.set()
            pool.shutdown(cancel_futures=True)
            raise
        failed = [future for future in done if future.exception() is not None]
        if failed:
            filler.stop.set()
            pool.shutdown(cancel_futures=True)
            failed[0].result()
    for offset, literal in image.finish(filler.crcs) if image.finish else ():
        write_all(filler.target, literal, offset)


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all bytes at an offset; the system may take them in parts."""
    view = memoryview(data)
    while view:
        done = os.pwrite(descriptor, view, offset)
        view, offset = view[done:], offset + done


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
    from ckptool.formats import open_checkpoint

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
