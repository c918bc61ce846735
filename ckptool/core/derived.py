"""Bytes that are made from the bytes of files when they are read: decoded, patched, unpacked or computed ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import PurePath
from types import TracebackType
from typing import Generic, Self, TypeVar

from ckptool.core.bytes import Advance, ByteSource, Cost, Folder, OpenBytes
from ckptool.core.errors import UnreadableError


class DerivedBytes(ABC):
    """A `ckptool.core.bytes.ByteSource`; what is abstract here is all that a kind has to say."""

    __slots__ = ()

    @property
    @abstractmethod
    def size(self) -> int:
        """Length in bytes."""

    @property
    @abstractmethod
    def identity(self) -> Hashable:
        """Of the bytes that are needed, and of what is made of them."""

    @abstractmethod
    def open(self) -> OpenBytes:
        """Open it for reading; its files may be opened later."""

    @property
    @abstractmethod
    def file(self) -> ByteSource:
        """The file whose path and folder the bytes have."""

    @abstractmethod
    def needed(self) -> Iterable[tuple[ByteSource, int, int]]:
        """(file, offset, bytes) of all that is read, whichever of the derived bytes are asked for."""

    @property
    def path(self) -> PurePath:
        return self.file.path

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def folder(self) -> Folder:
        return self.file.folder

    @property
    def label(self) -> str:
        """What the bytes are, in an error."""
        return str(self.path)

    @property
    def reads_cheaply(self) -> bool:
        return all(file.reads_cheaply for file in self._by_file())

    def cost(self, ranges: Sequence[tuple[int, int]]) -> Cost:
        costs = [file.cost(wanted) for file, wanted in self._by_file().items()] if ranges else []
        return Cost(sum(cost.requests for cost in costs), sum(cost.nbytes for cost in costs))

    def will_read(self, ranges: Sequence[tuple[int, int]]) -> None:
        if ranges:
            for file, wanted in self._by_file().items():
                file.will_read(wanted)

    def check(self) -> None:
        """Raise `UnreadableError` if one of its files has changed."""
        for file in files_of(self):
            file.check()

    def _by_file(self) -> dict[ByteSource, list[tuple[int, int]]]:
        ranges: dict[ByteSource, list[tuple[int, int]]] = {}
        for file, offset, nbytes in self.needed():
            ranges.setdefault(file, []).append((offset, nbytes))
        return ranges


def files_of(source: ByteSource) -> tuple[ByteSource, ...]:
    """The files that a source is made of; itself if it is one. There may be very many sources, and few files."""
    if not isinstance(source, DerivedBytes):
        return (source,)
    return tuple(dict.fromkeys((source.file, *(file for file, _, _ in source.needed()))))


Derived = TypeVar("Derived", bound=DerivedBytes)


class OpenDerived(ABC, Generic[Derived]):
    """An open `DerivedBytes`; a `ckptool.core.bytes.OpenBytes`. A kind has to say only how bytes are made.

    Attributes:
        source: what was opened.
        size: its bytes.
    """

    __slots__ = ("size", "source")

    def __init__(self, source: Derived) -> None:
        self.source = source
        self.size = source.size

    @abstractmethod
    def make(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`, which is flat, with the bytes from `offset` on: all of them exist."""

    @property
    def path(self) -> PurePath:
        return self.source.path

    @property
    def reads_cheaply(self) -> bool:
        return self.source.reads_cheaply

    def read(self, offset: int, nbytes: int) -> bytes:
        self._require(offset, nbytes)
        buffer = bytearray(nbytes)
        self.make(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        flat = buffer.cast("B")
        self._require(offset, len(flat))
        self.make(offset, flat)

    def expect(self, offset: int, nbytes: int) -> None:
        """Nothing: bytes are made when they are asked for."""

    def check_first(self, offset: int, nbytes: int, until: int, check: Callable[[bytes], None]) -> None:
        check(self.read(offset, nbytes))

    def copy_to(self, descriptor: int, offset: int, at: int, nbytes: int, advance: Advance) -> int:
        return 0  # there is no file that the system could copy

    def close(self) -> None:
        """Nothing: a kind that opens files closes them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None:
            self.source.check()

    def _require(self, offset: int, nbytes: int) -> None:
        if not 0 <= offset <= offset + nbytes <= self.size:
            raise UnreadableError(f"{self.source.label} ends before byte {offset + nbytes:,}", path=self.path)
