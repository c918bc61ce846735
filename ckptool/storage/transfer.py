"""What one command asks of the network: how many requests, how many bytes, of files of which size."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Read:
    """What has been read over the network.

    Attributes:
        requests: requests that were sent, redirects and repetitions too.
        nbytes: bytes of files that arrived.
        of: size of these files.
        pins: (address, the same at its commit) of each branch that was read.
    """

    requests: int
    nbytes: int
    of: int
    pins: tuple[tuple[str, str], ...] = ()


class Transfer:
    """Counts, from any thread.

    Example:
        >>> transfer = Transfer()
        >>> transfer.count_request(); transfer.count_bytes(100); transfer.add_file("a", 1000)
        >>> transfer.read
        Read(requests=1, nbytes=100, of=1000, pins=())
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0
        self._nbytes = 0
        self._files: dict[Hashable, int] = {}
        self._pins: dict[str, str] = {}

    def count_request(self) -> None:
        """One more request."""
        with self._lock:
            self._requests += 1

    def count_bytes(self, nbytes: int) -> None:
        """Bytes that arrived."""
        with self._lock:
            self._nbytes += nbytes

    def add_file(self, identity: Hashable, size: int) -> None:
        """A file that is read; once is enough."""
        with self._lock:
            self._files[identity] = size

    def pin(self, address: str, pinned: str) -> None:
        """A branch that is read, and its commit."""
        with self._lock:
            self._pins[address] = pinned

    @property
    def read(self) -> Read:
        """The counts so far."""
        with self._lock:
            return Read(self._requests, self._nbytes, sum(self._files.values()), tuple(self._pins.items()))
