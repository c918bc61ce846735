"""Signals, told to wait where one would do harm."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_ENDING = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}


@contextmanager
def signals_held() -> Iterator[None]:
    """While it lasts, what ends the program waits: for the start of threads.

    A handler that raises while CPython waits for a thread to start can leave that thread's lock taken for ever, and the
    program would never end. Threads started meanwhile never get these signals: they are the main thread's.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows, where signals come between two bytecodes only
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
