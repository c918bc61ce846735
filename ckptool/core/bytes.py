"""Where bytes come from: the two values that every format reads, whatever holds the bytes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import PurePath
from types import TracebackType
from typing import NamedTuple, Protocol, Self, runtime_checkable

Advance = Callable[[int], None]
"""Told the bytes done after each step."""


@runtime_checkable
class HasPath(Protocol):
    """Anything that says its path."""

    def __fspath__(self) -> str: ...


PathText = str | HasPath
"""A path as a user may give it: text, or anything that says its path."""


class Cost(NamedTuple):
    """What reading takes where it is not cheap.

    Attributes:
        requests: ranges that will be asked for.
        nbytes: their bytes.
    """

    requests: int = 0
    nbytes: int = 0


class ByteSource(Protocol):
    """A run of bytes that can be read at any offset: a file. Hashable; equal if name and identity are equal."""

    @property
    def path(self) -> PurePath:
        """As the user named it."""

    @property
    def name(self) -> str:
        """The last part of the path."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    @property
    def identity(self) -> Hashable:
        """Taken once, when the source was located. Equal for two names of one file; another one after any change."""

    @property
    def reads_cheaply(self) -> bool:
        """True if many small reads, also of bytes that were read before, cost next to nothing."""

    @property
    def folder(self) -> Folder:
        """The folder that holds it."""

    def open(self) -> OpenBytes:
        """Open it for reading.

        Raises:
            UnreadableError: it cannot be opened, or is not what was located.
        """

    def check(self) -> None:
        """Raise `UnreadableError` if the path does not lead to the same bytes as before."""

    def cost(self, ranges: Sequence[tuple[int, int]]) -> Cost:
        """What reading these (offset, bytes) takes; nothing where reading is cheap."""

    def will_read(self, ranges: Sequence[tuple[int, int]]) -> None:
        """A hint: these (offset, bytes) will be read as values. What reads them costs least when it knows all."""


class OpenBytes(Protocol):
    """An open source, readable from several threads; a context manager, which checks the source when all went well."""

    @property
    def path(self) -> PurePath: ...

    @property
    def size(self) -> int: ...

    @property
    def reads_cheaply(self) -> bool:
        """True if many small reads, also of bytes that were read before, cost next to nothing."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly `nbytes` bytes from `offset` on; `UnreadableError` if the file ends before."""

    def expect(self, offset: int, nbytes: int) -> None:
        """A hint: all these bytes will be read, part by part."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset` on; `UnreadableError` if the file ends before."""

    def check_first(self, offset: int, nbytes: int, until: int, check: Callable[[bytes], None]) -> None:
        """Have `check` see `nbytes` bytes from `offset` on: now, or at the latest before a byte up to `until` is read.

        What `check` raises comes out of this call, or of the one that reads.
        """

    def copy_to(self, descriptor: int, offset: int, at: int, nbytes: int, advance: Advance) -> int:
        """Let the system copy bytes from `offset` on to `at` of an open file, as far as it can.

        Returns:
            The bytes that were copied: 0 where the system cannot.
        """

    def close(self) -> None:
        """Close it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Entry(NamedTuple):
    """One name in a folder."""

    name: str
    is_folder: bool


@runtime_checkable
class Folder(Protocol):
    """A folder that is read."""

    @property
    def path(self) -> PurePath:
        """As the user named it."""

    def entries(self) -> Sequence[Entry]:
        """What it holds, by name; `UnreadableError` if it cannot be listed."""

    def open(self, name: str) -> ByteSource:
        """The file `name` in it; its bytes are not read yet.

        Raises:
            MissingError: there is none.
            UnreadableError: it is not a regular file, or cannot be looked at.
        """

    def folder(self, name: str) -> Folder:
        """The folder `name` in it; whether there is one, `entries` says."""

    def will_open(self, heads: Mapping[str, int]) -> None:
        """A hint: these files will be opened in this order, and so many of the first bytes of each be read."""
