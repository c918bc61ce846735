"""Local files and folders: regular files only, never blocking, read at explicit offsets, their identity held."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, NoReturn, Self

from ckptool.core.bytes import Advance, Cost, Entry, PathText
from ckptool.core.errors import ChangedError, CkptError, MissingError, UnreadableError
from ckptool.storage.system import bytes_at, copy_in_kernel, open_to_read, read_at
from ckptool.storage.touched import note_read

_KINDS = [
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
]


class Identity(NamedTuple):
    """What tells a file from every other one, and from itself after a change."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A regular file of this machine, as it was when it was located; a `ckptool.core.bytes.ByteSource`.

    Attributes:
        path: as it was given.
        identity: of the file behind it; links are followed.
    """

    path: Path
    identity: Identity

    @classmethod
    def at(cls, path: PathText) -> LocalFile:
        """The file at a path; pipes and devices are refused without touching them.

        Raises:
            MissingError: there is none.
            UnreadableError: it is not a regular file, or cannot be looked at.

        Example:
            >>> with LocalFile.at(__file__).open() as file:
            ...     file.read(0, 3)
            b'\"\"\"'
        """
        path = Path(path)
        try:
            status = path.stat()
        except (OSError, ValueError) as error:
            raise cannot_open(path, error) from error
        if stat.S_ISREG(status.st_mode):
            return cls(path, Identity.of(status))
        kind = next((words for test, words in _KINDS if test(status.st_mode)), "not a regular file")
        raise UnreadableError(f"{path} is {kind}, not a file", path=path, hint="give a checkpoint file or folder")

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def reads_cheaply(self) -> bool:
        return True

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def size(self) -> int:
        return self.identity.size

    @property
    def folder(self) -> LocalFolder:
        return LocalFolder(self.path.parent)

    def open(self) -> OpenFile:
        """Open it for reading; see `ckptool.core.bytes.ByteSource`."""
        note_read(self.path)
        try:
            descriptor = open_to_read(self.path)
        except FileNotFoundError as error:
            raise _gone(self.path) from error
        except OSError as error:
            raise cannot_open(self.path, error) from error
        if Identity.of(os.fstat(descriptor)) != self.identity:
            os.close(descriptor)
            raise _changed(self.path)
        return OpenFile(self, descriptor)

    def check(self) -> None:
        """Raise `UnreadableError` if another file has its name, or it was written to."""
        try:
            status = self.path.stat()
        except FileNotFoundError as error:
            raise _gone(self.path) from error
        except OSError as error:
            raise cannot_open(self.path, error) from error
        if Identity.of(status) != self.identity:
            raise _changed(self.path)

    def cost(self, ranges: Sequence[tuple[int, int]]) -> Cost:
        return Cost()

    def will_read(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Nothing: the system reads ahead by itself."""


class OpenFile:
    """An open local file; a `ckptool.core.bytes.OpenBytes`.

    Attributes:
        source: what was opened.
    """

    __slots__ = ("_descriptor", "source")

    reads_cheaply = True

    def __init__(self, source: LocalFile, descriptor: int) -> None:
        self.source = source
        self._descriptor = descriptor

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def size(self) -> int:
        return self.source.size

    def read(self, offset: int, nbytes: int) -> bytes:
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise UnreadableError(
                f"{self.path} ends before byte {offset + nbytes:,}",
                path=self.path,
                hint="it is cut off: fetch it again",
            )
        chunks: list[bytes] = []
        end = offset + nbytes
        while offset < end:
            with self._saying(offset):
                chunk = bytes_at(self._descriptor, end - offset, offset)
            if not chunk:
                self._ends_early(end)
            chunks.append(chunk)
            offset += len(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            with self._saying(offset + done):
                count = read_at(self._descriptor, buffer[done:], offset + done)
            if not count:
                self._ends_early(offset + len(buffer))
            done += count

    def expect(self, offset: int, nbytes: int) -> None:
        """Nothing: the system reads ahead by itself."""

    def check_first(self, offset: int, nbytes: int, until: int, check: Callable[[bytes], None]) -> None:
        check(self.read(offset, nbytes))

    @contextmanager
    def _saying(self, offset: int) -> Iterator[None]:
        """Turn the system's refusal to read into one clear sentence."""
        try:
            yield
        except OSError as error:
            reason = (error.strerror or "unknown").lower()
            raise UnreadableError(f"{self.path} cannot be read at byte {offset:,}: {reason}", path=self.path) from error

    def _ends_early(self, needed: int) -> NoReturn:
        self.source.check()
        raise UnreadableError(
            f"{self.path.name} ends early: {needed:,} bytes are needed, the file has {self.size:,}",
            hint="it was cut short or is still being written; get it again",
            path=self.path,
        )

    def copy_to(self, descriptor: int, offset: int, at: int, nbytes: int, advance: Advance) -> int:
        return copy_in_kernel(self._descriptor, offset, descriptor, at, nbytes, advance)

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None or issubclass(kind, CkptError):  # a change may be why something is wrong: it is said first
            self.source.check()


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """A folder of this machine; a `ckptool.core.bytes.Folder`.

    Attributes:
        path: as it was given.
    """

    path: Path

    def entries(self) -> tuple[Entry, ...]:
        try:
            return tuple(sorted(self._entries()))
        except OSError as error:
            reason = (error.strerror or "unknown").lower()
            raise UnreadableError(f"the folder {self.path} cannot be listed: {reason}", path=self.path) from error

    def _entries(self) -> Iterator[Entry]:
        with os.scandir(self.path) as found:
            for entry in found:
                try:
                    yield Entry(entry.name, entry.is_dir())
                except OSError:  # a loop of links is no folder
                    yield Entry(entry.name, False)

    def open(self, name: str) -> LocalFile:
        return LocalFile.at(self.path / name)

    def folder(self, name: str) -> LocalFolder:
        return LocalFolder(self.path / name)

    def will_open(self, heads: Mapping[str, int]) -> None:
        """Nothing: opening is cheap here."""


def cannot_open(path: Path, error: OSError | ValueError) -> UnreadableError:
    """The reason in words, for what the system can say of a path that is to be read."""
    reasons = {
        errno.EACCES: ("may not be read by this user", "check its permissions"),
        errno.ELOOP: ("is a loop of symbolic links", "give the file itself"),
        errno.ENXIO: ("is a socket or a device without a driver", "give a checkpoint file or folder"),
        errno.ENAMETOOLONG: ("is too long for a file name", "check the spelling"),
    }
    if isinstance(error, ValueError):
        return UnreadableError("a file name holds a NUL character", hint="check the spelling")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return MissingError(f"{path} does not exist", path=path, hint="check the spelling")
    words, hint = reasons.get(error.errno or 0, (f"cannot be opened: {(error.strerror or 'unknown').lower()}", ""))
    return UnreadableError(f"{path} {words}", path=path, hint=hint or None)


def _changed(path: Path) -> CkptError:
    return ChangedError(
        f"{path} changed after it was opened", hint="run the command again when nothing writes to it", path=path
    )


def _gone(path: Path) -> CkptError:
    return ChangedError(f"{path} is not there any more", hint="it was moved or removed meanwhile", path=path)
