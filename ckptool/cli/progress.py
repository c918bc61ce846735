"""Progress on stderr: one line, only on a terminal, only for what takes longer than half a second."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import rich.progress

_PATIENCE = 0.5  # seconds before anything is shown


class Progress:
    """Called with (bytes done, bytes in all), from any thread; a context manager that wipes its line at the end.

    Args:
        what: what is being done, "comparing".
        quiet: show nothing.
    """

    def __init__(self, what: str, quiet: bool = False) -> None:
        self._what = what
        self._silent = quiet or not sys.stderr.isatty()
        self._due = time.monotonic() + _PATIENCE
        self._line: rich.progress.Progress | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._silent = True
            if self._line is not None:
                self._line.stop()

    def __call__(self, done: int, total: int) -> None:
        if self._silent or (self._line is None and time.monotonic() < self._due):
            return
        with self._lock:
            if self._silent:
                return
            if self._line is None:
                self._line = _line()
                self._line.add_task(self._what, total=total)
                self._line.start()
            self._line.update(self._line.task_ids[0], completed=done)


def _line() -> rich.progress.Progress:
    """``comparing ━━━━━━━━━╸━━━━━━ 30.5/44.8 MB 1.9 GB/s 0:00:01``; imported only when there is something to show."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), BarColumn(30), DownloadColumn(), TransferSpeedColumn()
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
