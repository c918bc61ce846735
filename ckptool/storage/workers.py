"""Threads that fetch ahead of whoever reads. They never keep the program from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue

from ckptool.storage.signals import signals_held


class Workers:
    """Runs calls in threads that are started when they are needed.

    Args:
        count: how many threads at most.

    Example:
        >>> Workers(2).run(lambda: b"data").result()
        b'data'
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._started = 0
        self._idle = 0
        self._lock = threading.Lock()
        self._calls: SimpleQueue[tuple[Future[bytes], Callable[[], bytes]] | None] = SimpleQueue()

    def run(self, call: Callable[[], bytes]) -> Future[bytes]:
        """Have a thread make a call."""
        future: Future[bytes] = Future()
        with self._lock:
            self._calls.put((future, call))
            if self._idle < self._calls.qsize() and self._started < self._count:
                self._started += 1
                with signals_held():
                    threading.Thread(target=self._work, daemon=True, name="ckptool-fetch").start()
        return future

    def end(self) -> None:
        """Have the threads end when they have nothing more to do."""
        with self._lock:
            for _ in range(self._started):
                self._calls.put(None)

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            todo = self._calls.get()
            with self._lock:
                self._idle -= 1
            if todo is None:
                return
            future, call = todo
            try:
                future.set_result(call())
            except BaseException as error:  # whoever waits gets it
                future.set_exception(error)
