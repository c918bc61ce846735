"""Moves bytes from file to file inside the kernel: `copy_file_range`, and where that cannot be, through a small buffer.

On a copy-on-write filesystem the kernel shares the blocks instead of copying them, if both places stand to a block
alike (see `ckptool.formats.image.congruent`). Where the bytes must be summed on the way they go through the buffer.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable

from ckptool.core.errors import UnreadableError

BIG = 1 << 20
"""From this size on a copy is left to the kernel; formats place such data so that blocks can be shared."""

PAGE = 4096
"""Bytes of a file system's block."""

BUFFER = 1 << 20
"""Bytes for one read: they are still in the cache when they are summed and written."""

CHUNK = 8 << 20
"""Bytes for one system call: short enough for progress and Ctrl-C, long enough to cost nothing; whole blocks."""

_CANNOT = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ETXTBSY, errno.EBADF, errno.EPERM}

Advance = Callable[[int], None]
See = Callable[[memoryview], None]


def copy_range(
    source: int, offset: int, target: int, at: int, nbytes: int, advance: Advance, see: See | None = None
) -> None:
    """Copy `nbytes` from `offset` of one open file to `at` of another.

    Args:
        source: file descriptor to read.
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
        done = head + _in_kernel(source, offset + head, target, at + head, nbytes - head, advance)
        offset, at, nbytes = offset + done, at + done, nbytes - done
    _through_memory(source, offset, target, at, nbytes, advance, see)


def _in_kernel(source: int, offset: int, target: int, at: int, nbytes: int, advance: Advance) -> int:
    """Copy as much as the kernel does by itself; the bytes done, which may be none."""
    done = 0
    while done < nbytes and hasattr(os, "copy_file_range"):  # macOS has none
        try:
            moved = os.copy_file_range(source, target, min(CHUNK, nbytes - done), offset + done, at + done)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            break
        if not moved:  # the end of the source, or a filesystem that means "not here"
            break
        done += moved
        advance(moved)
    return done


def _through_memory(
    source: int, offset: int, target: int, at: int, nbytes: int, advance: Advance, see: See | None
) -> None:
    buffer = memoryview(bytearray(min(nbytes, BUFFER)))
    while nbytes:
        done = _read(source, buffer[: min(nbytes, BUFFER)], offset)
        if not done:
            raise UnreadableError(f"the file ended while it was copied: {nbytes:,} bytes short")
        block = buffer[:done]
        if see is not None:
            see(block)
        write_all(target, block, at)
        offset, at, nbytes = offset + done, at + done, nbytes - done
        advance(done)


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all bytes at an offset; the system may take them in parts."""
    view = memoryview(data)
    while view:
        done = _write(descriptor, view, offset)
        view, offset = view[done:], offset + done


_SEEKING = threading.Lock()  # where reading and writing at an offset takes two calls


def _read(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Read at an offset into a buffer; the bytes done, 0 at the end of the file."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], offset)
    with _SEEKING:
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def _write(descriptor: int, data: memoryview, offset: int) -> int:
    """Write at an offset; the bytes done."""
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, offset)
    with _SEEKING:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)
