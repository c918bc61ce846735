"""The beginnings of files that will be opened one after the other, fetched while others are still read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial

FILES = 16
"""Files of which the beginning is fetched before they are opened."""
NBYTES = 32 << 20
"""Bytes of such beginnings. They are kept until they are read: half of what is kept of all headers."""

Used = Callable[[], None]
Fetch = Callable[[str, int, Used], bool]
"""Begins to fetch so many first bytes of a file, and calls the last argument when they are first read; False where
nothing is to be fetched."""


class Ahead:
    """Fetches beginnings in the order of the files, as many at a time as may be kept unread.

    Args:
        heads: how many bytes of each file will be read, by name.
        fetch: begins to fetch.

    Example:
        >>> begun = []
        >>> ahead = Ahead({"a": 20 << 20, "b": 20 << 20}, lambda name, nbytes, used: begun.append((name, used)) is None)
        >>> ahead.start(), [name for name, _ in begun]
        (None, ['a'])
        >>> begun[0][1](), [name for name, _ in begun]
        (None, ['a', 'b'])
    """

    def __init__(self, heads: Mapping[str, int], fetch: Fetch) -> None:
        self._waiting = list(heads.items())[::-1]
        self._fetch = fetch
        self._files = 0
        self._nbytes = 0
        self._lock = threading.RLock()

    def start(self) -> None:
        """Begin to fetch what may be kept; the largest beginning is fetched where nothing else is."""
        with self._lock:
            while self._waiting and self._has_room(self._waiting[-1][1]):
                name, nbytes = self._waiting.pop()
                self._files, self._nbytes = self._files + 1, self._nbytes + nbytes
                if not self._fetch(name, nbytes, partial(self._used, nbytes)):
                    self._files, self._nbytes = self._files - 1, self._nbytes - nbytes

    def _has_room(self, nbytes: int) -> bool:
        return not self._files or (self._files < FILES and self._nbytes + nbytes <= NBYTES)

    def _used(self, nbytes: int) -> None:
        with self._lock:
            self._files, self._nbytes = self._files - 1, self._nbytes - nbytes
        self.start()
