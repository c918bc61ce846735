"""Opening a stranger's file: regular files only, never blocking, read at explicit offsets."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from ckptool.core.errors import CkptError, UnreadableError
from ckptool.storage.touched import note_read

_KINDS = [
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
]


class RegularFile:
    """An open regular file. A context manager; closes itself.

    Attributes:
        path: as it was given.
        fd: the descriptor, read-only.
        size: bytes at the time of opening.
    """

    __slots__ = ("fd", "path", "size")

    def __init__(self, path: Path, fd: int, size: int) -> None:
        self.path = path
        self.fd = fd
        self.size = size

    def pread(self, nbytes: int, offset: int) -> bytes:
        """Exactly `nbytes` bytes at `offset`; see `pread_exact`."""
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise UnreadableError(
                f"{self.path} ends before byte {offset + nbytes:,}",
                path=self.path,
                hint="it is cut off: fetch it again",
            )
        return pread_exact(self.fd, nbytes, offset, path=self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)


def open_regular(path: Path | str, *, probing: bool = False) -> RegularFile:
    """Open a regular file for reading; links are followed, pipes and devices are refused without touching them.

    Args:
        path: the file.
        probing: it is opened only to see what it is: that does not make it an input.

    Raises:
        UnreadableError: there is no such file, it may not be read, or it is not a regular file.

    Example:
        >>> with open_regular(__file__) as file:
        ...     file.pread(3, 0)
        b'\"\"\"'
    """
    path = Path(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | getattr(os, "O_NOCTTY", 0))
    except (OSError, ValueError) as error:
        raise _cannot_open(path, error) from error
    info = os.fstat(fd)
    if stat.S_ISREG(info.st_mode):
        if not probing:
            note_read(path)
        return RegularFile(path, fd, info.st_size)
    os.close(fd)
    kind = next((words for test, words in _KINDS if test(info.st_mode)), "not a regular file")
    raise UnreadableError(f"{path} is {kind}, not a file", path=path, hint="give a checkpoint file or folder")


def _cannot_open(path: Path, error: OSError | ValueError) -> UnreadableError:
    """The reason in words, for what `os.open` can say."""
    reasons = {
        errno.ENOENT: ("does not exist", "check the spelling"),
        errno.ENOTDIR: ("does not exist", "check the spelling"),
        errno.EACCES: ("may not be read by this user", "check its permissions"),
        errno.ELOOP: ("is a loop of symbolic links", "give the file itself"),
        errno.ENXIO: ("is a socket or a device without a driver", "give a checkpoint file or folder"),
        errno.ENAMETOOLONG: ("is too long for a file name", "check the spelling"),
    }
    if isinstance(error, ValueError):
        return UnreadableError("a file name holds a NUL character", hint="check the spelling")
    words, hint = reasons.get(error.errno or 0, (f"cannot be opened: {(error.strerror or 'unknown').lower()}", ""))
    return UnreadableError(f"{path} {words}", path=path, hint=hint or None)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Errors that leave this block say which file they are about."""
    try:
        yield
    except CkptError as error:
        if error.path is None:
            error.path = Path(path)
        raise


def pread_exact(fd: int, nbytes: int, offset: int, *, path: Path | None = None) -> bytes:
    """Exactly `nbytes` bytes from `offset`.

    Raises:
        UnreadableError: the file ends before, or the disk cannot be read.
    """
    chunks: list[bytes] = []
    while nbytes > 0:
        try:
            chunk = os.pread(fd, min(nbytes, 1 << 30), offset)
        except OSError as error:
            raise UnreadableError(
                f"{path or 'the file'} cannot be read at byte {offset:,}: {(error.strerror or 'unknown').lower()}",
                path=path,
            ) from error
        if not chunk:
            raise UnreadableError(f"{path or 'the file'} ends at byte {offset:,}", path=path, hint="fetch it again")
        chunks.append(chunk)
        nbytes -= len(chunk)
        offset += len(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
