"""The process itself: its standard streams, and Ctrl-C before anything has begun.

The first module of the program that is imported, so it imports next to nothing.
"""

from __future__ import annotations

import os
import sys
from signal import SIG_IGN, SIGINT, default_int_handler, getsignal, signal

TYPE_CHECKING = False  # typing takes longer to import than all the rest
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn, TextIO

INTERRUPTED = 130  # `ckptool.core.errors.Exit.INTERRUPTED`


def prepare_process() -> None:
    """What must hold before a command line is read: Ctrl-C ends in silence, standard streams have their numbers."""
    if getsignal(SIGINT) not in (SIG_IGN, None):  # ignored in a background job: it stays ignored
        signal(SIGINT, _leave)
    _open_standard_streams()


def interrupts_raise() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt: there may be something to clean up."""
    if getsignal(SIGINT) is _leave:
        signal(SIGINT, default_int_handler)


def interrupts_end() -> None:
    """From here on Ctrl-C changes nothing: the work is done, and the exit code stands."""
    signal(SIGINT, SIG_IGN)


def discard_if_broken(stream: TextIO) -> None:
    """See `discard`, for a stream that cannot be flushed."""
    try:
        stream.flush()
    except OSError:
        discard(stream)


def discard(stream: TextIO) -> None:
    """What a stream cannot take any more goes nowhere: Python flushes once more at its end, which must not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    stream.flush()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Ctrl-C while modules are imported: nothing has begun, so nothing has to be cleaned up."""
    os.write(2, b"interrupted; nothing written\n")
    os._exit(INTERRUPTED)


def _open_standard_streams() -> None:
    """Give every closed standard stream a descriptor, so that no file that is opened later gets its number.

    A closed stdout gets one that cannot be written to: a report that is lost is an error. A closed stderr loses its
    messages in silence; the exit code still tells.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest free number, which is this one
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 (it stays open)
