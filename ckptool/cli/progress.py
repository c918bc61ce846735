"""Progress on stderr: one line, only on a terminal, only for what takes longer than half a second."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType
from typing import Self

from ckptool.render.text import Screen, Span, bar, paint
from ckptool.render.units import seconds, size_short

_PATIENCE = 0.5  # seconds before anything is shown
_EVERY = 0.1  # seconds between two lines


class Progress:
    """Called with (bytes done, bytes in all), from any thread; a context manager that wipes its line at the end.

    Args:
        what: what is being done, "comparing".
        quiet: show nothing.
    """

    def __init__(self, what: str, quiet: bool = False) -> None:
        self._what = what
        self._screen = Screen.of(sys.stderr, os.environ, "auto")
        self._silent = quiet or self._screen.height is None
        self._began = time.monotonic()
        self._next = self._began + _PATIENCE
        self._shown = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._silent = True
            if self._shown:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._silent or now < self._next:
            return
        with self._lock:
            if self._silent or now < self._next:
                return
            self._next = now + _EVERY
            self._shown = True
            line = _line(self._what, done, total, now - self._began, self._screen)
            print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)


def _line(what: str, done: int, total: int, elapsed: float, screen: Screen) -> str:
    """``comparing ━━━━━━  68%  30.5/44.8 MB  1.9 GB/s  0:00:01``"""
    share = min(1.0, done / total) if total else 1.0
    rate = done / elapsed if elapsed > 0 else 0.0
    left = (total - done) / rate if rate else 0.0
    figures = f"{share:4.0%}  {size_short(done)} of {size_short(total)}  {size_short(int(rate))}/s  {seconds(left)}"
    room = min(30, screen.width - len(what) - len(figures) - 4)
    drawn = f"{bar(share, room):{room}}  " if room >= 8 else ""
    return paint((Span(f"{what} "), Span(drawn, "cyan"), Span(figures)), screen)
