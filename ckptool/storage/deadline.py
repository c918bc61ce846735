"""How long one range of a file may take to arrive, over all tries.

What counts is time in which the server is waited for. While this process does other things, as it computes, waits for a
free connection, or for its turn on a busy machine, the server has nothing to answer for. For a header such time is
limited: a server whose answer never ends keeps this process busy, too.
"""

from __future__ import annotations

import time

CONNECT = 5.0
IDLE = 10.0
PATIENCE = 25.0
"""Seconds for a header in all; of values, seconds that may pass without a byte."""
_SLOWEST = 8192  # bytes a second, on average, once the first seconds have passed
_GRACE = 20.0
_BUSY = 2.0  # seconds of a header in which this process did other things


class TooSlowError(Exception):
    """The time is up."""


class Deadline:
    """The moment until which something must have arrived.

    Args:
        nbytes: bytes of values that are asked for; 0 for a header, which has 25 seconds in all. The
            first bytes have 20.

    Example:
        >>> 19 < Deadline().left() <= 20
        True
    """

    __slots__ = ("_busy", "_end", "_last", "_paused", "_received", "_start")

    def __init__(self, nbytes: int = 0) -> None:
        self._start = self._last = time.monotonic()
        self._end = self._start + PATIENCE + nbytes / _SLOWEST
        self._received = 0
        self._busy = float("inf") if nbytes else _BUSY
        self._paused: float | None = None

    def pause(self) -> None:
        """From now on until `left` is asked, the server is not waited for."""
        if self._paused is None:
            self._paused = time.monotonic()

    def _resume(self) -> float:
        """What time it is; what passed since the pause does not count."""
        now = time.monotonic()
        if self._paused is not None:
            passed = min(now - self._paused, self._busy)
            self._busy -= passed
            self._start, self._last, self._end = self._start + passed, self._last + passed, self._end + passed
            self._paused = None
        return now

    def left(self) -> float:
        """Seconds that are left.

        Raises:
            TooSlowError: none are, or the bytes come so slowly that waiting makes no sense.
        """
        now = self._resume()
        end = min(self._end, self._last + PATIENCE)
        if self._received < (now - self._start) * _SLOWEST:
            end = min(end, self._start + _GRACE)
        if now >= end:
            raise TooSlowError
        return end - now

    def received(self, nbytes: int) -> None:
        """Note bytes that arrived."""
        if nbytes:
            self._received += nbytes
            self._last = time.monotonic()
        self.pause()

    def allows(self, seconds: float) -> bool:
        """True if so many seconds may pass, and something can still arrive afterwards."""
        return self._resume() + seconds + 1 < min(self._end, self._last + PATIENCE)
