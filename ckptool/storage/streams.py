"""The standard streams where others write on them too: code that prints, and a pager."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """While it lasts, what is printed goes to stderr: also what a subprocess or a C library prints."""
    try:
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    except (OSError, ValueError, AttributeError):  # closed, or there is none: nothing to protect
        with redirect_stdout(sys.stderr):
            yield
        return
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if sys.__stdout__ is not None and not sys.__stdout__.closed:
            sys.__stdout__.flush()
        os.dup2(kept, 1)
        os.close(kept)


def page(less: str, texts: Iterable[str]) -> None:
    """Show texts in less, which quits by itself if they fit and passes colour through."""
    environ = {**os.environ, "LESSSECURE": "1", "LESSCHARSET": "utf-8"}
    process = subprocess.Popen([less, "-FRSX"], stdin=subprocess.PIPE, env=environ)
    assert process.stdin is not None
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to less
    try:
        # a broken pipe only says that the reader has seen enough
        with suppress(BrokenPipeError), process.stdin as pipe:
            for text in texts:
                pipe.write(text.encode("utf-8", "backslashreplace"))
    finally:
        process.wait()
        signal.signal(signal.SIGINT, before)
