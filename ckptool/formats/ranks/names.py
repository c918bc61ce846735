"""Names in folders, and texts that name one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ckptool.core.bytes import ByteSource, Entry, Folder
from ckptool.core.errors import UnreadableError

_PLAIN = re.compile(r"[^/\\\0]+")


def entries_in(folder: Folder) -> Sequence[Entry]:
    """What a folder holds; nothing if it may not be listed."""
    try:
        return folder.entries()
    except UnreadableError:
        return ()


def first_line(source: ByteSource, most: int = 4096) -> str:
    """The first line of a small text file, stripped."""
    with source.open() as file:
        text = file.read(0, min(most, file.size))
    return text.decode("utf-8", "replace").splitlines()[0].strip() if text.strip() else ""


def is_plain(name: str) -> bool:
    """True for the name of something in a folder, which leads nowhere else."""
    return name not in ("", ".", "..") and _PLAIN.fullmatch(name) is not None
