"""What a path leads to: a file or a folder. Other kinds of places get a line in `locate`."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from ckptool.core.bytes import ByteSource, Folder, PathText
from ckptool.core.errors import CkptError, UnreadableError, UsageError
from ckptool.storage.local import LocalFile, LocalFolder, cannot_open

ADDRESSES = ("hf", "http", "https", "s3", "gs", "az", "file")


def locate(text: PathText) -> ByteSource | Folder:
    """The file or folder at a path.

    Raises:
        UnreadableError: there is none, it is neither, or it cannot be looked at; a missing one comes with near misses.
        UsageError: the text is an address of the network.

    Example:
        >>> locate("fixtures/resnet18.pth").size > 0, locate("fixtures").path.name
        (True, 'fixtures')
    """
    text = os.fspath(text)
    if text.partition("://")[0].lower() in ADDRESSES:
        raise UsageError(
            f"{_without_secrets(text)} is an address, and ckptool does not download",
            hint="download it first, then give its path",
        )
    path = Path(text)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError) as error:
        raise cannot_open(path, error) from error
    return LocalFolder(path) if is_folder else LocalFile.at(path)


def locate_file(text: PathText) -> ByteSource:
    """The file at a path; see `locate`.

    Raises:
        UnreadableError: also for a folder.
    """
    place = locate(text)
    return LocalFile.at(place.path) if isinstance(place, Folder) else place


def locate_folder(text: PathText) -> Folder:
    """The folder at a path, or the one that holds the file at the path; see `locate`."""
    place = locate(text)
    return place if isinstance(place, Folder) else place.folder


def _missing(path: Path) -> CkptError:
    if path.is_symlink():
        target = path.readlink()
        return UnreadableError(f"broken symlink: {path} -> {target}", hint="fix the link", path=path)
    folder = path.parent
    if not folder.is_dir():
        return UnreadableError(f"{path} does not exist, nor does its folder", hint="check the spelling", path=path)
    from difflib import get_close_matches  # only on the way to an error

    try:
        close = get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=3)
    except OSError:  # a folder may be searched but not listed
        close = []
    hint = f"did you mean {' or '.join(str(folder / name) for name in close)}?" if close else "check the spelling"
    return UnreadableError(f"{path} does not exist", hint=hint, path=path)


def _without_secrets(address: str) -> str:
    """An address without its user, password and query, which may be keys."""
    return re.sub(r"\?.*", "?...", re.sub(r"//[^/?#]*@", "//", address, count=1), count=1, flags=re.DOTALL)
