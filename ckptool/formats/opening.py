"""Opens a checkpoint by its headers: a file, a sharded folder, an index, a torch.distributed folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.collector import collector_paused
from ckptool.core.errors import CkptError, UnreadableError, UsageError
from ckptool.formats.folder import open_folder
from ckptool.formats.registry import open_file
from ckptool.storage.files import open_regular


def open_checkpoint(path: str | os.PathLike[str], select: str | None = None) -> Checkpoint:
    """Open a checkpoint by its headers: a file, a sharded folder, an index, a torch.distributed folder.

    Args:
        path: the file or folder.
        select: which dict of tensors to take as the weights, by its dotted path; None to choose.

    Raises:
        UnreadableError: it is missing, damaged, or not a checkpoint; the message says what it is.
        UsageError: it is not a path, holds several checkpoints, or has nothing to select from.
    """
    text = os.fspath(path)
    if text.partition("://")[0].lower() in ("hf", "http", "https", "s3", "gs", "az", "file"):
        raise UsageError(
            f"{text} is an address, and ckptool does not download", hint="download it first, then give its path"
        )
    path = Path(text)
    mode = _mode(path)
    with collector_paused():
        if stat.S_ISDIR(mode):
            return open_folder(path, select)
        return open_file(path, select, indexes=True)


def _mode(path: Path) -> int:
    """The file mode behind a path, links followed."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError):
        with open_regular(path):  # says what is wrong with it
            raise UnreadableError(f"{path} cannot be looked at", path=path) from None


def _missing(path: Path) -> CkptError:
    if path.is_symlink():
        target = path.readlink()
        return UnreadableError(f"{path} is a link to {target}, which does not exist", hint="mend the link", path=path)
    folder = path.parent
    if not folder.is_dir():
        return UnreadableError(f"{path} does not exist, nor does its folder", hint="check the spelling", path=path)
    from difflib import get_close_matches

    try:
        close = get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=3)
    except OSError:  # a folder may be searched but not listed
        close = []
    hint = f"did you mean {' or '.join(str(folder / name) for name in close)}?" if close else "check the spelling"
    return UnreadableError(f"{path} does not exist", hint=hint, path=path)
