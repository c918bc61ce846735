"""Threads that fetch ahead of whoever reads. They never keep the program from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from queue import SimpleQueue

from ckptool.core.errors import UnreadableError
from ckptool.storage.signals import signals_held

Data = bytes | bytearray


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
        self._unfinished: set[Future[Data]] = set()
        self._calls: SimpleQueue[tuple[Future[Data], Callable[[], Data]] | None] = SimpleQueue()

    def run(self, call: Callable[[], Data]) -> Future[Data]:
        """Have a thread make a call."""
        future: Future[Data] = Future()
        with self._lock:
            self._unfinished.add(future)
            self._calls.put((future, call))
            if self._idle < self._calls.qsize() and self._started < self._count:
                self._started += 1
                with signals_held():
                    threading.Thread(target=self._work, daemon=True, name="ckptool-fetch").start()
        return future

    def interrupt(self) -> None:
        """Have nobody wait any longer for what is not finished; what the threads still get is not used."""
        with self._lock:
            unfinished = list(self._unfinished)
        for future in unfinished:
            with suppress(InvalidStateError):
                future.set_exception(UnreadableError("the command was stopped while it read"))

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
            with suppress(InvalidStateError):  # it was interrupted
                try:
                    future.set_result(b"" if future.done() else call())
                except InvalidStateError:
                    raise
                except BaseException as error:  # whoever waits gets it
                    future.set_exception(error)
            with self._lock:
                self._unfinished.discard(future)
