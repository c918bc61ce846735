"""Small files that a user names, read whole: recipes, labels, config.json."""

from __future__ import annotations

import os
from pathlib import PurePath

from ckptool.core.bytes import PathText
from ckptool.core.errors import MissingError, UnreadableError, UsageError
from ckptool.storage.local import LocalFile
from ckptool.storage.locate import locate_file
from ckptool.storage.paths import is_address, local_path


def read_bytes(path: PathText, limit: int, what: str = "file of this kind") -> bytes:
    """All bytes of a file of at most `limit` bytes; none of the null device, which stands for an empty file.

    Args:
        path: the file.
        limit: bytes that it may have.
        what: what it is, for errors: "policy".

    Raises:
        MissingError: there is no such file.
        UsageError: it is no file, may not be read, or is longer.
    """
    if not is_address(path) and PurePath(path) == PurePath(os.devnull):
        return b""
    try:
        file = locate_file(path) if is_address(path) else LocalFile.at(path)
        if file.size > limit:
            large = f"{file.name} is larger than {limit // 1_000_000} MB, too large for a {what}"
            raise UsageError(large, path=file.path)
        with file.open() as opened:
            return opened.read(0, file.size)
    except MissingError:
        raise
    except UnreadableError as error:  # its hint speaks of checkpoints
        raise UsageError(error.message, path=error.path) from error


def read_text(path: PathText, limit: int) -> str:
    """All text of a file of at most `limit` bytes, in UTF-8; see `read_bytes`."""
    try:
        return read_bytes(path, limit).decode()
    except UnicodeDecodeError:
        named = local_path(path)
        raise UsageError(f"{named.name} is not text", path=named) from None
