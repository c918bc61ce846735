"""Signals, told to wait where one would do harm."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

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


@contextmanager
def ends_cleanly() -> Iterator[None]:
    """While it lasts, SIGTERM and SIGHUP end the program as Ctrl-C does: what was half written is removed.

    The exit code is the shell's for the signal, 143 and 129. Signals that are ignored (nohup) stay ignored.
    """
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    changed = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
