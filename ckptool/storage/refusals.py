"""What the system says when it does not write, in one clear sentence; and names that no output can have."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from ckptool.core.errors import OutputError


@contextmanager
def said_plainly(target: Path) -> Iterator[None]:
    """Turn the system's refusals in this block into errors about `target`."""
    require_name(target)
    try:
        yield
    except OSError as error:
        raise refusal(target, error) from error


def refusal(target: Path, error: OSError) -> OutputError:
    """What the system refused, as an error about `target`."""
    what, hint = _REASONS.get(error.errno or 0, ((error.strerror or "the system refused").lower(), None))
    if getattr(error, "winerror", None) in _IN_USE:
        what, hint = "another program has it open", "close that program and run it again"
    return OutputError(f"{target} cannot be written: {what.format(folder=target.parent)}", hint=hint, path=target)


def created_meanwhile(target: PurePath) -> OutputError:
    return OutputError(f"{target} was created while ckptool was running", hint="--force replaces it", path=target)


def require_name(path: PurePath) -> None:
    """Refuse a name that the system cannot have.

    Raises:
        OutputError: it holds a NUL, or text that cannot be turned into the bytes of a name.
    """
    text = os.fspath(path)
    if "\0" in text:
        raise OutputError("the name of an output holds a NUL character", hint="give another name")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise OutputError("the name of an output is not valid Unicode", hint="give another name") from None


_IN_USE = (32, 33)  # ERROR_SHARING_VIOLATION and ERROR_LOCK_VIOLATION of Windows
_FULL = "free some space or write elsewhere; nothing was written"
_REASONS: dict[int, tuple[str, str | None]] = {
    errno.ENOSPC: ("no space left on the device", _FULL),
    getattr(errno, "EDQUOT", -1): ("the disk quota is used up", _FULL),
    errno.EFBIG: ("the file would be larger than allowed", "raise the limit (ulimit -f) or use --max-shard-size"),
    errno.EROFS: ("the file system is read-only", "write elsewhere"),
    errno.EACCES: ("the folder {folder} may not be written to", "write elsewhere"),
    errno.EPERM: ("the folder {folder} may not be written to", "write elsewhere"),
    errno.EBUSY: ("it is in use, or another file system is mounted there", "write to a new folder"),
    errno.ENAMETOOLONG: ("the name is too long", "give a shorter name"),
}
