"""Names that change in one step: exchange two, give one without overwriting, flush a folder's names to the disk.

Linux does the first two with `renameat2`. Where a system or a file system cannot, the callers have an order of plain
renames that a killed run leaves in a state which the next run can finish or undo.
"""

from __future__ import annotations

import errno
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

_NO_REPLACE, _EXCHANGE = 1, 2
_HERE = -100  # AT_FDCWD
_CANNOT = {errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM, errno.EMLINK}


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False, with nothing changed, where the system cannot do that."""
    return _renameat2(one, other, _EXCHANGE)


def link_new(source: Path, target: Path) -> bool:
    """Give a file a second name that nothing may have; False, with nothing changed, where that cannot be.

    Folders have one name, and so have files of another user and files where the file system or the system knows no
    links. Each says so with another error, and whatever the reason is, callers have a way without a second name.

    Raises:
        FileExistsError: something has that name; it is untouched.
    """
    if not hasattr(os, "link"):
        return False
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # the latter where links are always followed
        return False
    return True


def move_new(source: Path, target: Path) -> None:
    """Give a file or folder another name that nothing may have.

    Raises:
        FileExistsError: something has that name; it is untouched.
    """
    if (source.is_symlink() or not source.is_dir()) and link_new(source, target):
        source.unlink()
        return
    if _renameat2(source, target, _NO_REPLACE):
        return
    if os.path.lexists(target):  # the best that plain POSIX can do; Windows' rename does not overwrite
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to the disk, where the system can: one that cannot be opened cannot be flushed by name."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0))
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # network filesystems that cannot
            raise
    finally:
        os.close(descriptor)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    """Rename in one step; False where that is not possible here. Raises as `os.rename` does for all else."""
    call = _system_call()
    if call is None:
        return False
    import ctypes

    if call(_HERE, os.fsencode(source), _HERE, os.fsencode(target), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT:
        return False
    raise OSError(code, os.strerror(code), str(source), None, str(target))


@cache
def _system_call() -> Any:
    """The C library's `renameat2`; None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes

        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (ImportError, OSError, AttributeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return call
