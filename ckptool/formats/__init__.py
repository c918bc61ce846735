"""Container formats: one file for each that is read, chosen by content and never by extension."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from ckptool.checkpoint import Checkpoint, Note
from ckptool.collector import collector_paused
from ckptool.errors import CkptError, UnreadableError, UsageError
from ckptool.formats.files import open_regular
from ckptool.formats.sniff import Kind, sniff

READERS: dict[Kind, tuple[str, str]] = {
    "torch zip": ("torch_zip", "open_zip"),
    "torch legacy": ("torch_legacy", "open_legacy"),
    "safetensors": ("safetensors", "open_safetensors"),
    "index": ("sharded", "open_index"),
}
"""The module and function that reads each kind of file; imported when one comes."""


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
            from ckptool.formats.folder import open_folder

            return open_folder(path, select)
        return _with_shard_note(open_file(path, select, indexes=True))


def open_file(path: Path, select: str | None = None, *, indexes: bool = False) -> Checkpoint:
    """Open one file by what it is.

    Args:
        path: the file.
        select: as for `open_checkpoint`.
        indexes: True if it may be the index of a sharded checkpoint; a shard may not.
    """
    with open_regular(path) as file:
        kind = sniff(file)
    if kind == "index" and not indexes:
        raise UnreadableError(f"{path} is an index of shards where a shard should be", path=path)
    module, function = READERS[kind]
    reader: Callable[[Path, str | None], Checkpoint] = getattr(import_module(f"ckptool.formats.{module}"), function)
    return reader(path, select)


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


def _with_shard_note(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint, with a word about the shards beside it if it is one of them."""
    from ckptool.formats.sharded import SHARD_NAME

    match = SHARD_NAME.fullmatch(checkpoint.path.name)
    if match is None or int(match["count"]) < 2:
        return checkpoint
    note = Note(f"this is one of {int(match['count'])} shards", f"all of them: {checkpoint.path.parent}")
    return replace(checkpoint, notes=(*checkpoint.notes, note))
