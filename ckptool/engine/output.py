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

from ckptool.core.errors import CkptError, OutputError
from ckptool.engine.encode import container_of

_NAME_MAX = 255


def check_target(target: Path, inputs: Sequence[Path], *, force: bool) -> None:
    """Refuse a target that is an input, exists, or could not be replaced safely.

    Args:
        target: the output file or folder; a link is replaced itself, what it points to stays.
        inputs: every file and folder that is read.
        force: True to replace an existing output.

    Raises:
        OutputError: with the reason and what to do.
    """
    with _said_plainly(target):
        _check_target(target, inputs, force)


def _check_target(target: Path, inputs: Sequence[Path], force: bool) -> None:
    parent = target.parent
    if not parent.is_dir():
        raise OutputError(f"the folder {parent} does not exist", hint=f"mkdir -p {parent}", path=target)
    if not os.path.lexists(target):
        return
    if not target.exists():
        raise OutputError(f"{target} is a link to nothing", hint="give another name", path=target)
    for path in inputs:
        if path.exists() and path.samefile(target):
            raise OutputError(
                f"{target} is also an input; inputs are never written to", hint="give another name", path=target
            )
        if target.is_dir() and target.resolve() in path.resolve().parents:
            raise OutputError(f"{target} holds the input {path}", hint="give another name", path=target)
    _check_replaceable(target, force)


def _check_replaceable(target: Path, force: bool) -> None:
    mode = target.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OutputError(f"{target} is not a regular file", hint="give the name of a file", path=target)
    if stat.S_ISDIR(mode) != (container_of(target) == "folder"):
        is_now, hint = ("a folder", "give the name of a file") if stat.S_ISDIR(mode) else ("a file", "give a new name")
        raise OutputError(f"{target} is {is_now}", hint=hint, path=target)
    if stat.S_ISDIR(mode) and next(target.iterdir(), None) is None:
        return
    if not force:
        raise OutputError(f"{target} exists", hint="--force replaces it", path=target)
    if stat.S_ISDIR(mode) and not _is_sharded_output(target):
        raise OutputError(
            f"{target} is a folder with other files than shards; it is not replaced",
            hint="give another name",
            path=target,
        )


def _is_sharded_output(folder: Path) -> bool:
    """True if a folder holds nothing but weight files and their index, so that replacing it loses nothing else."""
    return all(
        child.is_file() and child.name.endswith((".safetensors", ".bin", ".index.json")) for child in folder.iterdir()
    )


@contextmanager
def staged_file(target: Path, *, force: bool) -> Iterator[tuple[int, Path]]:
    """Give a new hidden file beside `target` to write; on leaving, flush it and put it in the target's place.

    Args:
        target: the final name.
        force: False if nothing may stand there, not even what came there meanwhile.

    Yields:
        Its descriptor (read and write), and its path.
    """
    temporary = _beside(target)
    descriptor = -1
    with _said_plainly(target):
        try:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            yield descriptor, temporary
            _keep_mode(target, descriptor)
            os.fsync(descriptor)
            _require_free(target, force)
            temporary.replace(target)
            sync_name(target)
        finally:
            _discard(descriptor, temporary)


def _keep_mode(target: Path, new: int) -> None:
    """Give a new file or folder the mode of the one that it replaces."""
    if target.exists():
        mode = stat.S_IMODE(target.stat().st_mode)
        if mode != stat.S_IMODE(os.fstat(new).st_mode):
            os.fchmod(new, mode)


def _require_free(target: Path, force: bool) -> None:
    if not force and os.path.lexists(target):
        raise OutputError(f"{target} came to be meanwhile", hint="--force replaces it", path=target)


def _discard(descriptor: int, temporary: Path) -> None:
    """Close and remove a staged file; it is not there any more if it has its final name."""
    try:
        if descriptor >= 0:
            os.close(descriptor)
    finally:
        with contextlib.suppress(OSError):  # what went wrong before is what the user should hear
            temporary.unlink()


@contextmanager
def staged_folder(target: Path, *, force: bool) -> Iterator[Path]:
    """Give a new hidden folder beside `target` to fill; on leaving, put it in the target's place.

    The files inside must have been flushed by whoever wrote them.

    Args:
        target: the final name.
        force: False if nothing but an empty folder may stand there.
    """
    temporary = _beside(target)
    with _said_plainly(target):
        try:
            temporary.mkdir()
            yield temporary
            sync_folder(temporary)
            if target.is_dir() and (force or next(target.iterdir(), None) is None):
                _swap_folders(temporary, target)
            else:
                _require_free(target, force)
                temporary.rename(target)
            sync_name(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _swap_folders(new: Path, target: Path) -> None:
    """Put `new` in the place of an existing folder; the old one is back if that fails."""
    descriptor = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _keep_mode(target, descriptor)
    finally:
        os.close(descriptor)
    old = _beside(target)
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old, ignore_errors=True)
    if os.path.lexists(old):
        raise OutputError(f"{target} is written; the old folder could not be removed and is {old}", path=target)


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network filesystems that cannot
            raise
    finally:
        os.close(descriptor)


def sync_name(target: Path) -> None:
    """Flush the name that an output just got. The output is there already, so a failure says so."""
    try:
        sync_folder(target.parent)
    except OSError as error:
        if error.errno == errno.EACCES:  # a folder that one may write to and not list cannot be flushed by name
            return
        reason = (error.strerror or "unknown").lower()
        raise OutputError(
            f"{target} is written, but the disk did not confirm its name: {reason}",
            hint="it is complete now; a power failure might still lose it",
            path=target,
        ) from error


def _beside(target: Path) -> Path:
    """A new hidden name in the same folder that no loader's glob matches and no file system finds too long."""
    suffix = f".{secrets.token_hex(4)}.tmp"
    name = os.fsencode(target.name)[: _NAME_MAX - len(suffix) - 1].decode(errors="ignore")
    return target.with_name(f".{name}{suffix}")


@contextmanager
def _said_plainly(target: Path) -> Iterator[None]:
    """Turn the system's refusals into one clear sentence."""
    try:
        yield
    except CkptError:
        raise
    except OSError as error:
        what, hint = _REASONS.get(error.errno or 0, ((error.strerror or "the system refused").lower(), None))
        what = what.format(folder=target.parent)
        raise OutputError(f"{target} cannot be written: {what}", hint=hint, path=target) from error


_FULL = "free some space or write elsewhere; nothing was written"
_REASONS: dict[int, tuple[str, str | None]] = {
    errno.ENOSPC: ("no space left on the device", _FULL),
    errno.EDQUOT: ("the disk quota is used up", _FULL),
    errno.EFBIG: ("the file would be larger than allowed", "raise the limit (ulimit -f) or use --max-shard"),
    errno.EROFS: ("the file system is read-only", "write elsewhere"),
    errno.EACCES: ("the folder {folder} may not be written to", "write elsewhere"),
    errno.EPERM: ("the folder {folder} may not be written to", "write elsewhere"),
    errno.ENAMETOOLONG: ("the name is too long", "give a shorter name"),
}
