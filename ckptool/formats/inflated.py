"""The content of a deflated member of a zip archive, unpacked as it is read."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from types import TracebackType
from typing import Self

from ckptool.core.bytes import Advance, ByteSource, Cost, Folder
from ckptool.core.errors import UnreadableError

_BLOCK = 1 << 18  # packed bytes that are read at a time


@dataclass(frozen=True, slots=True)
class InflatedBytes:
    """A `ckptool.core.bytes.ByteSource`. Reading from front to back costs one pass; going back begins again.

    Attributes:
        source: the archive.
        member: its member.
        offset: where the packed bytes begin.
        packed_nbytes: their length.
        size: of the content, as the directory states it.
    """

    source: ByteSource
    member: str
    offset: int
    packed_nbytes: int
    size: int

    @property
    def path(self) -> PurePath:
        return self.source.path

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def identity(self) -> Hashable:
        return self.source.identity, self.member

    @property
    def folder(self) -> Folder:
        return self.source.folder

    @property
    def reads_cheaply(self) -> bool:
        return self.source.reads_cheaply

    def cost(self, ranges: Sequence[tuple[int, int]]) -> Cost:
        return self.source.cost([(self.offset, self.packed_nbytes)] if ranges else [])

    def will_read(self, ranges: Sequence[tuple[int, int]]) -> None:
        if ranges:
            self.source.will_read([(self.offset, self.packed_nbytes)])

    def open(self) -> _OpenInflated:
        return _OpenInflated(self)

    def check(self) -> None:
        self.source.check()


class _OpenInflated:
    """An open `InflatedBytes`; one thread unpacks at a time."""

    reads_cheaply = False

    def __init__(self, source: InflatedBytes) -> None:
        self.source = source
        self._file = source.source.open()
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        self._read = 0  # packed bytes
        self._at = 0  # content that was given out

    @property
    def path(self) -> PurePath:
        return self.source.path

    @property
    def size(self) -> int:
        return self.source.size

    def read(self, offset: int, nbytes: int) -> bytes:
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise UnreadableError(f"{self.path} ends before byte {offset + nbytes:,} of {self.source.member}")
        with self._lock:
            if offset < self._at:
                self._begin()
            while self._at < offset:
                self._at += len(self._more(min(_BLOCK, offset - self._at)))
            parts = []
            while nbytes:
                parts.append(self._more(nbytes))
                nbytes -= len(parts[-1])
                self._at += len(parts[-1])
            return b"".join(parts)

    def _more(self, most: int) -> bytes:
        """The next bytes of the content: at least one, at most so many."""
        while True:
            packed = self._unpacker.unconsumed_tail
            if not packed and self._read < self.source.packed_nbytes:
                size = min(_BLOCK, self.source.packed_nbytes - self._read)
                packed = self._file.read(self.source.offset + self._read, size)
                self._read += size
            try:
                found = self._unpacker.decompress(packed, most)
            except zlib.error:
                raise self._damaged() from None
            if found:
                return found
            if not packed or self._unpacker.eof:
                raise self._damaged()

    def _damaged(self) -> UnreadableError:
        return UnreadableError(
            f"{self.path} is damaged: {self.source.member} does not unpack to the {self.size:,} bytes it declares",
            hint="get it again",
            path=self.path,
        )

    def expect(self, offset: int, nbytes: int) -> None:
        """Nothing: it is unpacked when it is asked for."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            part = self.read(offset + done, min(_BLOCK, len(buffer) - done))
            buffer[done : done + len(part)] = part
            done += len(part)

    def check_first(self, offset: int, nbytes: int, until: int, check: Callable[[bytes], None]) -> None:
        check(self.read(offset, nbytes))

    def copy_to(self, descriptor: int, offset: int, at: int, nbytes: int, advance: Advance) -> int:
        return 0

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None:
            self.source.check()
