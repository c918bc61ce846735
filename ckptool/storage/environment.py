"""What the process gets from the system around it: variables, programs, the terminal."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

VARIABLES: Mapping[str, str] = os.environ
"""The variables of the environment, as they are at the moment."""


@contextmanager
def variable_set(name: str, value: str) -> Iterator[None]:
    """While it lasts, a variable has a value; programs that are started get it too."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def find_program(name: str) -> str | None:
    """Where the program of this name is; None if there is none."""
    return shutil.which(name)


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of the terminal that a stream goes to.

    Raises:
        OSError: it goes to none.
        ValueError: it has no descriptor.
    """
    columns, rows = os.get_terminal_size(stream.fileno())
    return columns, rows
