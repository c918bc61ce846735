"""What differs between operating systems: reading and writing at offsets, copies inside the kernel.

Each function has a form for systems without the call that it prefers. The calls are looked up when they are made.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import threading
from contextlib import suppress

from ckptool.core.bytes import Advance

CHUNK = 8 << 20
"""Bytes of one kernel copy: short enough for progress and Ctrl-C, long enough to cost nothing; whole blocks."""

_CANNOT = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ETXTBSY, errno.EBADF, errno.EPERM}
_SEEKING = threading.Lock()  # where a position belongs to the descriptor, threads take turns
_AT_ONCE = 1 << 30
_WORTH = 1 << 20  # bytes: for fewer the disk is not disturbed
_CLONE_RANGE = 0x4020940D  # FICLONERANGE of linux/fs.h


def open_to_read(path: str | os.PathLike[str]) -> int:
    """A descriptor of a file, read-only; a pipe or device is not waited for."""
    flags = sum({getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY")})
    return os.open(path, os.O_RDONLY | flags)


def read_at(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Read up to `len(buffer)` bytes at an offset; how many, 0 at the end of the file."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], offset)
    data = bytes_at(descriptor, len(buffer), offset)
    buffer[: len(data)] = data
    return len(data)


def bytes_at(descriptor: int, nbytes: int, offset: int) -> bytes:
    """Up to `nbytes` bytes at an offset; none at the end of the file."""
    nbytes = min(nbytes, _AT_ONCE)
    if hasattr(os, "pread"):
        return os.pread(descriptor, nbytes, offset)
    with _SEEKING:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, nbytes)


def write_all(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all bytes at an offset; the system may take them in parts."""
    view = memoryview(data)
    while view:
        if hasattr(os, "pwrite"):
            done = os.pwrite(descriptor, view, offset)
        else:
            with _SEEKING:
                os.lseek(descriptor, offset, os.SEEK_SET)
                done = os.write(descriptor, view[:_AT_ONCE])
        view, offset = view[done:], offset + done


def resize(descriptor: int, nbytes: int) -> None:
    """Make an open file so many bytes long; new ones are zeros and take no room until they are written."""
    os.ftruncate(descriptor, nbytes)


def start_storing(descriptor: int, offset: int, nbytes: int) -> None:
    """Have the disk begin to write bytes that were just given to the system, and do not wait for it.

    Linux does so where it is told that they are not needed; what is not on the disk yet stays in memory all the same.
    """
    if nbytes >= _WORTH and hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(descriptor, offset, nbytes, os.POSIX_FADV_DONTNEED)


def shares_blocks(descriptor: int) -> bool:
    """True if the filesystem of an open output can let two files share their blocks (Linux; else False)."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(descriptor, _CLONE_RANGE, struct.pack("qQQQ", descriptor, 0, 0, 0))
    except OSError as error:
        return error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EXDEV)
    return True


def copy_in_kernel(source: int, offset: int, target: int, at: int, nbytes: int, advance: Advance) -> int:
    """Copy as much as the kernel does by itself (`copy_file_range`); the bytes done, which may be none.

    On a copy-on-write filesystem the kernel shares the blocks instead of copying them, if both places have the same
    offset within a block.
    """
    done = 0
    while done < nbytes and hasattr(os, "copy_file_range"):  # macOS and Windows have none
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
