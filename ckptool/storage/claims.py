"""Who works on a stage: a lock that ends with its process, however it ends.

`flock` where the system and the file system have it. Windows needs none: a file that is open cannot be removed there.
Where a file system has no locks, a stage counts as in use for a day after it was last written to.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal, TypeAlias

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

ClaimState: TypeAlias = Literal["held", "free", "unknown"]

CLOSES_FIRST = fcntl is None
"""True where a file must be closed before it is renamed."""

_DAY = 86_400  # seconds
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)


def claim(descriptor: int, path: Path) -> bool:
    """Lock an open file until it is closed; False if another process has it, or removed it meanwhile."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def claim_path(path: Path) -> int | None:
    """Open and lock a file, made if it is not there; its descriptor, or None if another process has it.

    Raises:
        FileNotFoundError: its folder is gone.
    """
    if fcntl is None and not _removed(path):
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _CLOEXEC, 0o600)
    if claim(descriptor, path):
        return descriptor
    os.close(descriptor)
    return None


def claim_shared(path: Path) -> int | None:
    """Open and lock a file together with others who do the same; None if a process has it for itself.

    Raises:
        FileNotFoundError: its folder is gone, or it was removed meanwhile.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _CLOEXEC, 0o600)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except OSError:  # a file system without locks
                return descriptor
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    raise FileNotFoundError(path)


def open_claimed(path: Path) -> int | None:
    """Open and lock a file for this process alone; None if another one has it, or its folder is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    if claim(descriptor, path):
        return descriptor
    os.close(descriptor)
    return None


def claim_state(path: Path) -> ClaimState:
    """Whether a living process works on a file, as far as the system can tell."""
    if fcntl is None:
        return "free"  # who removes it finds out
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _CLOEXEC)
    except OSError:
        return "unknown"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError:
        return "unknown"
    finally:
        os.close(descriptor)
    return "free"


def is_abandoned(path: Path) -> bool:
    """True if no living process works on a file: nobody holds it, or where that is unknown, it is a day old."""
    state = claim_state(path)
    return state == "free" or (state == "unknown" and not _is_recent(path))


def _removed(path: Path) -> bool:
    """True if a file is gone now; False if a process has it open."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        return False
    return True


def _is_recent(path: Path) -> bool:
    """True if a file was written to within a day."""
    try:
        return time.time() - path.lstat().st_mtime < _DAY
    except OSError:
        return False
