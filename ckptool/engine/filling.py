"""Fills output files: bytes from source files and computed ones, over a few threads."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from ckptool.core.errors import CkptError, UnreadableError
from ckptool.core.plan import Plan
from ckptool.engine.copying import BUFFER, copy_range, write_all
from ckptool.engine.evaluate import packed_blocks
from ckptool.engine.reading import Reader, damaged
from ckptool.engine.rounding import Rounding, rounds
from ckptool.formats.image import Computed, Image, Range, Slot
from ckptool.storage.files import naming
from ckptool.storage.signals import signals_held

THREADS = 2


def write_durably(
    path: Path, image: Image, plan: Plan, reader: Reader, advance: Callable[[int], None], rounding: dict[str, float]
) -> None:
    """Write a new file and flush it to the disk; see `write_image`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        write_image(descriptor, image, plan, reader, advance, rounding)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_image(
    descriptor: int,
    image: Image,
    plan: Plan,
    reader: Reader,
    advance: Callable[[int], None],
    rounding: dict[str, float],
) -> None:
    """Write one file: the known bytes, then the slots over all threads, then what depends on their checksums.

    Args:
        descriptor: an empty file, open for reading and writing.
        image: what it will look like.
        plan: what computed slots compute.
        reader: reads the plan's inputs.
        advance: told the bytes done, from any thread.
        rounding: gets the worst relative rounding of each tensor that is cast, by key.
    """
    os.ftruncate(descriptor, image.size)
    for offset, literal in image.literals:
        write_all(descriptor, literal, offset)
    filler = _Filler(plan, reader, descriptor, advance, rounding)
    _run(filler, image.slots)
    for offset, literal in image.finish(filler.crcs) if image.finish else ():
        write_all(descriptor, literal, offset)


def _run(filler: _Filler, slots: Sequence[Slot]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        with signals_held():  # the pool starts its threads now
            futures = [pool.submit(filler.fill, slot) for slot in slots]
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

    def fill(self, slot: Slot) -> None:
        """Write one slot; remember its CRC-32 if the container wants it."""
        at = slot.offset
        crc = _Crc() if slot.needs_crc and _known_crc(slot) is None else None
        for content in slot.contents:
            if isinstance(content, Range):
                with self.reader.descriptor(content.file) as source, naming(content.file):
                    copy_range(source, content.offset, self.target, at, content.nbytes, self._moved, crc)
                    if content.crc is not None and content.crc != _crc_of(source, content.offset, content.nbytes):
                        raise damaged(content.file, content.offset, content.nbytes)
                at += content.nbytes
                continue
            for block in self._blocks(content):
                if crc is not None:
                    crc(block)
                write_all(self.target, block, at)
                at += len(block)
                self._moved(len(block))
        if at != slot.offset + slot.nbytes:
            raise CkptError(f"{slot.name} came out {at - slot.offset:,} bytes long, not {slot.nbytes:,}")
        if slot.needs_crc:
            self.crcs[slot.name] = crc.value if crc is not None else _known_crc(slot) or 0

    def _blocks(self, content: Computed) -> Iterator[memoryview]:
        """The bytes of a computed tensor; notes how far it was rounded."""
        step = self.plan.steps[content.index]
        rounding = Rounding() if rounds(step.value, self.plan.inputs) else None
        yield from packed_blocks(step.value, self.plan.inputs, self.reader, rounding)
        if rounding is not None:
            self.rounding[step.target.key] = rounding.worst

    def _moved(self, nbytes: int) -> None:
        if self.stop.is_set():
            raise StoppedError
        self.advance(nbytes)


def _crc_of(source: int, offset: int, nbytes: int) -> int:
    """The CRC-32 of bytes that were just copied, from the system's cache."""
    buffer = memoryview(bytearray(min(nbytes, BUFFER)))
    crc = 0
    while nbytes:
        done = os.preadv(source, [buffer[: min(nbytes, BUFFER)]], offset)
        if not done:
            raise UnreadableError(f"the file ended while it was copied: {nbytes:,} bytes short")
        crc = zlib.crc32(buffer[:done], crc)
        offset, nbytes = offset + done, nbytes - done
    return crc


class _Crc:
    """A CRC-32 that grows with the blocks it is called with."""

    value = 0

    def __call__(self, block: memoryview) -> None:
        self.value = zlib.crc32(block, self.value)


def _known_crc(slot: Slot) -> int | None:
    """The CRC-32 of a slot, if its source states it."""
    if not slot.nbytes:
        return 0
    first = slot.contents[0]
    return first.crc if len(slot.contents) == 1 and isinstance(first, Range) else None
