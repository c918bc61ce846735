"""The content of a deflated member of a zip archive, unpacked as it is read."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Hashable
from dataclasses import dataclass

from ckptool.core.bytes import ByteSource
from ckptool.core.derived import DerivedBytes, OpenDerived
from ckptool.core.errors import UnreadableError

_BLOCK = 1 << 18  # packed bytes that are read at a time


@dataclass(frozen=True, slots=True)
class InflatedBytes(DerivedBytes):
    """The content of a member. Reading from front to back costs one pass; going back begins again.

    Attributes:
        archive: what holds it.
        member: its member.
        offset: where the packed bytes begin.
        packed_nbytes: their length.
        nbytes: of the content, as the directory states it.
    """

    archive: ByteSource
    member: str
    offset: int
    packed_nbytes: int
    nbytes: int

    @property
    def file(self) -> ByteSource:
        return self.archive

    @property
    def label(self) -> str:
        return f"{self.member} of {self.path}"

    @property
    def size(self) -> int:
        return self.nbytes

    @property
    def identity(self) -> Hashable:
        return self.archive.identity, self.member

    def needed(self) -> tuple[tuple[ByteSource, int, int]]:
        return ((self.archive, self.offset, self.packed_nbytes),)

    def open(self) -> _OpenInflated:
        return _OpenInflated(self)


class _OpenInflated(OpenDerived[InflatedBytes]):
    """An open `InflatedBytes`; one thread unpacks at a time."""

    reads_cheaply = False

    def __init__(self, source: InflatedBytes) -> None:
        super().__init__(source)
        self._file = source.archive.open()
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        self._read = 0  # packed bytes
        self._at = 0  # content that was given out

    def make(self, offset: int, buffer: memoryview) -> None:
        with self._lock:
            if offset < self._at:
                self._begin()
            while self._at < offset:
                self._at += len(self._more(min(_BLOCK, offset - self._at)))
            done = 0
            while done < len(buffer):
                part = self._more(min(_BLOCK, len(buffer) - done))
                buffer[done : done + len(part)] = part
                done += len(part)
                self._at += len(part)

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

    def close(self) -> None:
        self._file.close()
