"""A few threads that share out a list of work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import TypeVar

from ckptool.storage.session import interrupt_reads
from ckptool.storage.signals import signals_held

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")


def in_threads(work: Callable[[_Item], _Done], items: Sequence[_Item], threads: int) -> Iterator[tuple[_Item, _Done]]:
    """Yields (item, work(item)) as they are done, in the thread of the caller.

    The first exception is raised here. When it is, or when the caller stops early (Ctrl-C), no further item is begun
    and the threads have ended before this returns.

    Example:
        >>> sorted(in_threads(str, [3, 1, 2], threads=2))
        [(1, '1'), (2, '2'), (3, '3')]
    """
    if threads <= 1 or len(items) <= 1:
        for item in items:
            yield item, work(item)
        return
    todo = iter(items)
    lock, stop = threading.Lock(), threading.Event()
    results: SimpleQueue[tuple[_Item, _Done] | BaseException | None] = SimpleQueue()

    def run() -> None:
        try:
            while not stop.is_set():
                with lock:
                    item = next(todo, results)
                if item is results:
                    break
                results.put((item, work(item)))  # type: ignore[arg-type]  # not the sentinel
        except BaseException as error:  # handed to the caller, who raises it
            results.put(error)
        results.put(None)

    workers = [threading.Thread(target=run, daemon=True) for _ in range(min(threads, len(items)))]
    with signals_held():
        for worker in workers:
            worker.start()
    is_done = False
    try:
        running = len(workers)
        while running:
            result = results.get()
            if result is None:
                running -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
        is_done = True
    finally:
        stop.set()
        if not is_done:
            interrupt_reads()
        for worker in workers:
            worker.join()
