"""The place an output goes to: complete or absent.

An output is written beside its final name under a hidden name, flushed to the disk, checked, and renamed. Whatever
happens before the rename, the final name holds what it held before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ckptool.errors import CkptError, OutputError

_NAME_MAX = 255


def check_target(target: Path, inputs: Sequence[Path], *, force: bool) -> None:
    """Refuse a target that is an input, exists, or could not be replaced safely.

    Args:
        target: the output file or folder.
        inputs: every file and folder that is read.
        force: True to replace an existing output.

    Raises:
        OutputError: with the reason and what to do.
    """
    parent = target.parent
    if not parent.is_dir():
        raise OutputError(f"the folder {parent} does not exist", hint=f"mkdir -p {parent}", path=target)
    if target.is_symlink() and not target.exists():
        raise OutputError(f"{target} is a link to nothing", hint="give another name", path=target)
    if not target.exists():
        return
    for path in inputs:
        if path.exists() and path.samefile(target):
            raise OutputError(
                f"{target} is also an input; inputs are never written to", hint="give another name", path=target
            )
        if target.is_dir() and target.resolve() in path.resolve().parents:
            raise OutputError(f"{target} holds the input {path}", hint="give another name", path=target)
    mode = target.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OutputError(f"{target} is not a regular file", hint="give the name of a file", path=target)
    if not force:
        raise OutputError(f"{target} exists", hint="--force replaces it", path=target)
    if stat.S_ISDIR(mode) and not _is_sharded_output(target):
        raise OutputError(
            f"{target} is a folder with other files than shards; it is not replaced", hint="give another name"
        )


def _is_sharded_output(folder: Path) -> bool:
    """True if a folder holds nothing but weight files and their index, so that replacing it loses nothing else."""
    return all(
        child.is_file() and child.name.endswith((".safetensors", ".bin", ".index.json")) for child in folder.iterdir()
    )


@contextmanager
def staged_file(target: Path) -> Iterator[tuple[int, Path]]:
    """Give a new hidden file beside `target` to write; on leaving, flush it and put it in the target's place.

    Yields:
        Its descriptor (read and write), and its path.
    """
    temporary = _beside(target)
    with _said_plainly(target):
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with _said_plainly(target):
            yield descriptor, temporary
            if target.exists():
                os.fchmod(descriptor, stat.S_IMODE(target.stat().st_mode))
            os.fsync(descriptor)
            temporary.replace(target)
            sync_folder(target.parent)
    finally:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):  # it has its final name
            temporary.unlink()


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Give a new hidden folder beside `target` to fill; on leaving, put it in the target's place.

    The files inside must have been flushed by whoever wrote them.
    """
    temporary = _beside(target)
    try:
        with _said_plainly(target):
            temporary.mkdir()
            yield temporary
            sync_folder(temporary)
            if target.exists():
                _swap_folders(temporary, target)
            else:
                temporary.rename(target)
            sync_folder(target.parent)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def _swap_folders(new: Path, target: Path) -> None:
    """Put `new` in the place of an existing folder; the old one is back if that fails."""
    old = _beside(target)
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old)


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(target: Path) -> Path:
    """A new hidden name in the same folder that no loader's glob matches and no file system finds too long."""
    suffix = f".{secrets.token_hex(4)}.tmp"
    name = target.name.encode()[: _NAME_MAX - len(suffix) - 1].decode(errors="ignore")
    return target.with_name(f".{name}{suffix}")


@contextmanager
def _said_plainly(target: Path) -> Iterator[None]:
    """Turn the system's refusals into one clear sentence."""
    try:
        yield
    except CkptError:
        raise
    except OSError as error:
        reasons = {
            errno.ENOSPC: ("no space left on the device", "free some space or write elsewhere; nothing was written"),
            errno.EDQUOT: ("the disk quota is used up", "free some space or write elsewhere; nothing was written"),
            errno.EFBIG: ("the file would be larger than allowed", "raise the limit (ulimit -f) or use --max-shard"),
            errno.EROFS: ("the file system is read-only", "write elsewhere"),
            errno.EACCES: (f"the folder {target.parent} may not be written to", "write elsewhere"),
            errno.EPERM: (f"the folder {target.parent} may not be written to", "write elsewhere"),
            errno.ENAMETOOLONG: ("the name is too long", "give a shorter name"),
        }
        if error.errno not in reasons:
            raise
        what, hint = reasons[error.errno]
        raise OutputError(f"{target} cannot be written: {what}", hint=hint, path=target) from error
