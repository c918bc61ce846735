"""Fills output files: bytes from source files and computed ones, over a few threads."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from ckptool.core.bytes import ByteSource
from ckptool.core.casting import UnfitError
from ckptool.core.errors import CkptError, naming
from ckptool.core.plan import Plan, sources_of
from ckptool.core.tensor import Storage
from ckptool.engine.decoded import DecodedBytes
from ckptool.engine.evaluate import packed_blocks
from ckptool.engine.ranges import expect_ranges, ranges_of, reads_cheaply
from ckptool.engine.reading import Reader
from ckptool.engine.rounding import Rounding, rounds
from ckptool.formats.image import Computed, Image, Range, Slot
from ckptool.storage.session import interrupt_reads
from ckptool.storage.signals import signals_held
from ckptool.storage.sink import ByteSink

THREADS = 2
_PART = 1 << 24  # bytes of a tensor that one thread decodes


def write_image(
    sink: ByteSink,
    image: Image,
    plan: Plan,
    reader: Reader,
    advance: Callable[[int], None],
    rounding: dict[str, Rounding],
) -> None:
    """Write one file: the known bytes, then the slots over all threads, then what depends on their checksums.

    Args:
        sink: an empty file.
        image: what it will look like.
        plan: what computed slots compute.
        reader: reads the plan's inputs.
        advance: told the bytes done, from any thread.
        rounding: gets what casts did to the numbers of each tensor, by key.
    """
    expect_ranges(needs_of(plan, image))
    sink.resize(image.size)
    for offset, literal in image.literals:
        sink.write(literal, offset)
    filler = _Filler(plan, reader, sink, advance, rounding)
    _run(filler, image.slots)
    filler.check_fit()
    for offset, literal in image.finish(filler.crcs) if image.finish else ():
        sink.write(literal, offset)


def needs_of(plan: Plan, image: Image) -> Iterator[tuple[ByteSource, int, int]]:
    """(file, offset, bytes) of what one file of the output is made of, as far as reading it costs much."""
    for content in (content for slot in image.slots for content in slot.contents):
        if isinstance(content, Range):
            if not content.file.reads_cheaply:
                yield content.file, content.offset, content.nbytes
            continue
        for source in sources_of(plan.step(content.index).value):
            tensor = plan.sources[source.input][source.key]
            if not reads_cheaply(tensor):
                yield from ranges_of(tensor)


def _run(filler: _Filler, slots: Sequence[Slot]) -> None:
    parts = (part for slot in slots for part in _parts(slot))
    one_takes = threading.Lock()

    def work() -> None:
        while not filler.stop.is_set():
            with one_takes:
                part = next(parts, None)
            if part is None:
                return
            filler.fill(part)

    with ThreadPoolExecutor(THREADS) as pool:
        with signals_held():  # the pool starts its threads now
            futures = [pool.submit(work) for _ in range(THREADS)]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:  # Ctrl-C arrives here
            filler.stop.set()
            interrupt_reads()
            pool.shutdown(cancel_futures=True)
            raise
        failed = [future for future in done if future.exception() is not None]
        if failed:
            filler.stop.set()
            pool.shutdown(cancel_futures=True)
            failed[0].result()


def _parts(slot: Slot) -> Iterator[Slot]:
    """A slot that is filled by decoding, in parts that several threads can fill; any other as it is."""
    content = slot.contents[0] if len(slot.contents) == 1 else None
    if slot.needs_crc or not isinstance(content, Range) or not isinstance(content.file, DecodedBytes):
        yield slot
        return
    for done in range(0, slot.nbytes, _PART):
        nbytes = min(_PART, slot.nbytes - done)
        part = Range(content.file, content.offset + done, nbytes)
        yield Slot(slot.name, slot.offset + done, nbytes, (part,))


class StoppedError(Exception):
    """The other threads failed; this one stops."""


@dataclass(slots=True)
class _Filler:
    """Fills the slots of one image in one open file, from several threads."""

    plan: Plan
    reader: Reader
    target: ByteSink
    advance: Callable[[int], None]
    rounding: dict[str, Rounding]
    stop: threading.Event = field(default_factory=threading.Event)
    crcs: dict[str, int] = field(default_factory=dict)
    unfit: dict[int, UnfitError] = field(default_factory=dict)  # by step

    def fill(self, slot: Slot) -> None:
        """Write one slot; remember its CRC-32 if the container wants it."""
        at = slot.offset
        crc = _Crc() if slot.needs_crc and _known_crc(slot) is None else None
        for content in slot.contents:
            if isinstance(content, Range):
                own = None if content.crc is None else _Crc()
                with self.reader.opened(content.file) as source, naming(content.file.path):
                    see = _seen_by(own, crc)
                    self.target.copy_from(source, content.offset, at, content.nbytes, self._moved, see)
                if own is not None and own.value != content.crc:
                    self.reader.report_damage(Storage(content.file, content.offset, content.nbytes))
                at += content.nbytes
                continue
            try:
                for block in self._blocks(content):
                    if crc is not None:
                        crc(block)
                    self.target.write(block, at)
                    at += len(block)
                    self._moved(len(block))
            except UnfitError as error:  # the other tensors are counted, too
                self.unfit[content.index] = error
                return
        if at != slot.offset + slot.nbytes:
            raise CkptError(f"{slot.name} came out {at - slot.offset:,} bytes long, not {slot.nbytes:,}")
        if slot.needs_crc:
            self.crcs[slot.name] = crc.value if crc is not None else _known_crc(slot) or 0

    def check_fit(self) -> None:
        """Raise one error for all floats that no integer stands for, named after the first tensor of the plan."""
        if self.unfit:
            first = self.unfit[min(self.unfit)]
            raise UnfitError(sum(error.count for error in self.unfit.values()), first.dtype, key=first.key)

    def _blocks(self, content: Computed) -> Iterator[memoryview]:
        """The bytes of a computed tensor; notes how far it was rounded."""
        step = self.plan.step(content.index)
        rounding = Rounding() if rounds(step.value, self.plan.sources) else None
        yield from packed_blocks(step.value, self.plan.sources, self.reader, rounding)
        if rounding is not None:
            self.rounding[step.target.key] = rounding

    def _moved(self, nbytes: int) -> None:
        if self.stop.is_set():
            raise StoppedError
        self.advance(nbytes)


class _Crc:
    """A CRC-32 that grows with the blocks it is called with."""

    value = 0

    def __call__(self, block: memoryview) -> None:
        self.value = zlib.crc32(block, self.value)


def _seen_by(*sums: _Crc | None) -> Callable[[memoryview], None] | None:
    """What takes each block into all of these; None for none."""
    wanted = [each for each in sums if each is not None]

    def see(block: memoryview) -> None:
        for each in wanted:
            each(block)

    return see if wanted else None


def _known_crc(slot: Slot) -> int | None:
    """The CRC-32 of a slot, if its source states it."""
    if not slot.nbytes:
        return 0
    first = slot.contents[0]
    return first.crc if len(slot.contents) == 1 and isinstance(first, Range) else None
