"""Moves bytes from file to file: inside the kernel, and where that cannot be, through a small buffer.

On a copy-on-write filesystem the kernel shares the blocks instead of copying them, if both places stand to a block
alike (see `ckptool.formats.image.congruent`). Where the bytes must be summed on the way they go through the buffer.
"""

from __future__ import annotations

from collections.abc import Callable

from ckptool.core.bytes import Advance, OpenBytes
from ckptool.storage.system import write_all

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
        see: gets all bytes in order; they are copied through memory then.

    Raises:
        UnreadableError: if the source ends early.
        OSError: as the system says (no space left, ...).
    """
    if see is None and nbytes >= BIG:
        head = -offset % PAGE if (offset - at) % PAGE == 0 else 0  # from there on blocks can be shared
        _through_memory(source, offset, target, at, head, advance, None)
        done = head + source.copy_to(target, offset + head, at + head, nbytes - head, advance)
        offset, at, nbytes = offset + done, at + done, nbytes - done
    _through_memory(source, offset, target, at, nbytes, advance, see)


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
        done = len(block)
        offset, at, nbytes = offset + done, at + done, nbytes - done
        advance(done)
