"""Small files that a person writes: policies, recipes, locks. Regular files only, read whole, never beyond a limit."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ckptool.core.errors import UsageError


def read_small(path: Path, largest: int, what: str) -> bytes:
    """The bytes of a file.

    Args:
        path: the file; links are followed.
        largest: bytes that it may have.
        what: what it is, for errors: "policy".

    Raises:
        OSError: it does not exist or may not be read.
        UsageError: it is a pipe, a device or a folder, or too large.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except ValueError:
        raise UsageError(f"the name of the {what} holds a NUL character", hint="check the spelling") from None
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) and not os.path.samestat(info, os.stat(os.devnull)):  # noqa: PTH116
            raise UsageError(f"{path} is not a regular file, as a {what} is", hint="give a file", path=path)
        data = bytearray()
        while len(data) <= largest and (chunk := os.read(descriptor, min(1 << 20, largest + 1 - len(data)))):
            data += chunk
    finally:
        os.close(descriptor)
    if len(data) > largest:
        raise UsageError(f"{path} is larger than {largest // 1_000_000} MB, too large for a {what}", path=path)
    return bytes(data)
