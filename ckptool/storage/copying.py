"""Moves bytes from file to file: inside the kernel, and where that cannot be, through a small buffer.

On a copy-on-write filesystem the kernel shares the blocks instead of copying them, if both places stand to a block
alike (see `ckptool.formats.image.congruent`). Where the bytes must be summed on the way they go through the buffer; if
their blocks can be shared, they are read beside it.

The disk is told to write while more is copied, so that a flush at the end finds little left to do.
"""

from __future__ import annotations

from collections.abc import Callable

from ckptool.core.bytes import Advance, OpenBytes
from ckptool.storage.system import CHUNK, shares_blocks, start_storing, write_all

BIG = 1 << 20
"""From this size on a copy is left to the kernel; formats place such data so that blocks can be shared."""

PAGE = 4096
"""Bytes of a file system's block."""

BUFFER = 1 << 20
"""Bytes for one read: they are still in the cache when they are summed and written."""

See = Callable[[memoryview], None]


def copy_range(
    source: OpenBytes, offset: int, target: int, at: int, nbytes: int, advance: Advance, see: See | None = None
) -> None:
    """Copy `nbytes` from `offset` of one open file to `at` of another.

    Args:
        source: what to read.
        offset: first byte to copy.
        target: file descriptor to write.
        at: where they go.
        nbytes: how many.
        advance: told the bytes done after each step.
        see: gets all bytes in order.

    Raises:
        UnreadableError: if the source ends early.
        OSError: as the system says (no space left, ...).
    """
    can_share = nbytes >= BIG and (offset - at) % PAGE == 0
    if nbytes >= BIG and (see is None or (can_share and shares_blocks(target))):
        if see is not None:
            _show(source, offset, nbytes, see)
        head = -offset % PAGE if can_share else 0  # from there on blocks can be shared
        _through_memory(source, offset, target, at, head, advance, None)
        done = head
        while done < nbytes:
            many = min(CHUNK, nbytes - done)
            copied = source.copy_to(target, offset + done, at + done, many, advance)
            start_storing(target, at + done, copied)
            done += copied
            if copied < many:
                break
        offset, at, nbytes, see = offset + done, at + done, nbytes - done, None
    _through_memory(source, offset, target, at, nbytes, advance, see)


def _show(source: OpenBytes, offset: int, nbytes: int, see: See) -> None:
    buffer = memoryview(bytearray(min(nbytes, BUFFER)))
    while nbytes:
        block = buffer[: min(nbytes, BUFFER)]
        source.read_into(offset, block)
        see(block)
        offset, nbytes = offset + len(block), nbytes - len(block)


def _through_memory(
    source: OpenBytes, offset: int, target: int, at: int, nbytes: int, advance: Advance, see: See | None
) -> None:
    buffer = memoryview(bytearray(min(nbytes, BUFFER)))
    while nbytes:
        block = buffer[: min(nbytes, BUFFER)]
        source.read_into(offset, block)
        if see is not None:
            see(block)
        write_all(target, block, at)
        start_storing(target, at, len(block))
        done = len(block)
        offset, at, nbytes = offset + done, at + done, nbytes - done
        advance(done)
