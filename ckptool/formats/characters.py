"""Bytes that are written as text, one character for each: read back block by block."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Hashable
from dataclasses import dataclass
from math import inf

from ckptool.core.bytes import ByteSource
from ckptool.core.derived import DerivedBytes, OpenDerived
from ckptool.core.errors import UnreadableError

_BLOCK = 1 << 18  # bytes of text that are read at a time
_KEPT = 4


@dataclass(frozen=True, slots=True)
class Characters(DerivedBytes):
    """The characters of UTF-8 text, each below 256, as bytes: pickle protocols below 3 write bytes so.

    Attributes:
        origin: the file.
        offset: where the text begins.
        text_nbytes: its length in bytes.
        nbytes: its length in characters, as the file states it.
    """

    origin: ByteSource
    offset: int
    text_nbytes: int
    nbytes: int

    @property
    def file(self) -> ByteSource:
        return self.origin

    @property
    def size(self) -> int:
        return self.nbytes

    @property
    def identity(self) -> Hashable:
        return self.origin.identity, self.offset, self.text_nbytes

    def needed(self) -> tuple[tuple[ByteSource, int, int]]:
        return ((self.origin, self.offset, self.text_nbytes),)

    def open(self) -> _OpenCharacters:
        return _OpenCharacters(self)


class _OpenCharacters(OpenDerived[Characters]):
    """Open text; places between characters are remembered, so that reading can begin there again."""

    reads_cheaply = False

    def __init__(self, source: Characters) -> None:
        super().__init__(source)
        self._file = source.origin.open()
        self._lock = threading.Lock()
        self._places = [(0, 0)]  # (characters, bytes) from the beginning
        self._kept: dict[int, tuple[int, bytes]] = {}  # blocks that were read last, for many small reads in order

    def make(self, offset: int, buffer: memoryview) -> None:
        done = 0
        with self._lock:
            number = bisect_right(self._places, (offset, inf)) - 1
            while done < len(buffer):
                at, block = self._kept.get(number) or self._block(number)
                skipped = offset + done - at
                part = block[skipped : skipped + len(buffer) - done]
                buffer[done : done + len(part)] = part
                done += len(part)
                number += 1

    def _block(self, number: int) -> tuple[int, bytes]:
        """The characters from one known place on, and their number; makes the next place known."""
        at, read = self._places[number]
        left = self.source.text_nbytes - read
        text = self._file.read(self.source.offset + read, min(_BLOCK, left))
        if len(text) < left and text[-1] >= 0xC0:  # the first byte of a character of two
            text = text[:-1]
        try:
            block = str(text, "utf-8").encode("latin-1")
        except UnicodeError:
            raise self._damaged() from None
        end, read = at + len(block), read + len(text)
        if (end == self.size) != (read == self.source.text_nbytes) or end > self.size:
            raise self._damaged()
        if number + 1 == len(self._places):
            self._places.append((end, read))
        if len(self._kept) == _KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[number] = at, block
        return at, block

    def _damaged(self) -> UnreadableError:
        place = f"the text at byte {self.source.offset:,}"
        what = f"{self.path} is damaged: {place} does not hold the {self.size:,} bytes that its array needs"
        return UnreadableError(what, hint="get it again", path=self.path)

    def close(self) -> None:
        self._file.close()
