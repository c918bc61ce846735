"""Moves bytes from file to file inside the kernel: `copy_file_range`, and where that cannot be, through memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from ckptool.errors import UnreadableError

CHUNK = 8 << 20
"""Bytes for one system call: short enough for progress and Ctrl-C, long enough to cost nothing."""

_UNSUPPORTED = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM, errno.ETXTBSY}

_Copy = Callable[[int, int, int, int, int], int]


def copy_range(
    source: int, offset: int, target: int, at: int, nbytes: int, advance: Callable[[int], None] = lambda _: None
) -> None:
    """Copy `nbytes` from `offset` of one open file to `at` of another.

    Args:
        source: file descriptor to read.
        offset: first byte to copy.
        target: file descriptor to write.
        at: where they go.
        nbytes: how many.
        advance: told the bytes done after each system call.

    Raises:
        UnreadableError: if the source ends early.
        OSError: as the system says (no space left, ...).
    """
    methods: list[_Copy] = [_in_kernel, _through_memory]
    while nbytes:
        try:
            done = methods[0](source, offset, target, at, min(nbytes, CHUNK))
        except OSError as error:
            if len(methods) == 1 or error.errno not in _UNSUPPORTED:
                raise
            methods.pop(0)
            continue
        if done == 0:
            if len(methods) > 1:  # some filesystems answer 0 where they mean "not here"
                methods.pop(0)
                continue
            raise UnreadableError(f"the file ended while it was copied: {nbytes:,} bytes short")
        offset, at, nbytes = offset + done, at + done, nbytes - done
        advance(done)


def _in_kernel(source: int, offset: int, target: int, at: int, nbytes: int) -> int:
    if not hasattr(os, "copy_file_range"):  # macOS
        raise OSError(errno.ENOSYS, "no copy_file_range")
    return os.copy_file_range(source, target, nbytes, offset, at)


def _through_memory(source: int, offset: int, target: int, at: int, nbytes: int) -> int:
    return os.pwrite(target, os.pread(source, min(nbytes, 1 << 20), offset), at)
