"""What a path or an address leads to: a file or a folder. Every kind of place has a line in `_locate_address`."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ckptool.core.address import address_of
from ckptool.core.bytes import ByteSource, Folder, PathText
from ckptool.core.errors import CkptError, UnreadableError
from ckptool.storage.local import LocalFile, LocalFolder, cannot_open
from ckptool.storage.session import session

if TYPE_CHECKING:
    from ckptool.core.address import Address


def locate(text: PathText) -> ByteSource | Folder:
    """The file or folder at a path or an address.

    Args:
        text: a path, ``hf://OWNER/NAME[@REVISION][/FILE]``, ``https://HOST/FILE``, ``s3://BUCKET/KEY``. Outside of the
            command line an address is asked for anew: a branch may be at another commit now.

    Raises:
        UnreadableError: there is none, it is neither, or it cannot be looked at; a missing one comes with near misses.
        UsageError: the text is an address of a kind that is not read.

    Example:
        >>> locate("fixtures/resnet18.pth").size > 0, locate("fixtures").path.name
        (True, 'fixtures')
    """
    return _located(text, is_fresh=not session().is_command)


def _located(text: PathText, *, is_fresh: bool = False) -> ByteSource | Folder:
    address = address_of(text)
    if address is not None:
        return _locate_address(address, is_fresh=is_fresh)
    path = Path(os.fspath(text))
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError) as error:
        raise cannot_open(path, error) from error
    return LocalFolder(path) if is_folder else LocalFile.at(path)


def _locate_address(address: Address, *, is_fresh: bool) -> ByteSource | Folder:
    """Only here modules that can reach the network are imported."""
    if address.scheme in ("http", "https"):
        from ckptool.storage.hub_address import web_place
        from ckptool.storage.hub_settings import hub_settings

        page = web_place(address, hub_settings().endpoint)
        if page is None:
            from ckptool.storage.https import open_https

            return open_https(address, is_fresh=is_fresh)
        address = page
    if address.scheme == "hf":
        from ckptool.storage.hub import locate_hub

        return locate_hub(address, is_fresh=is_fresh)
    from ckptool.storage.objects import locate_object

    return locate_object(address, is_fresh=is_fresh)


def locate_file(text: PathText) -> ByteSource:
    """The file at a path or an address; see `locate`.

    Raises:
        UnreadableError: also for a folder.
    """
    place = _located(text)
    if not isinstance(place, Folder):
        return place
    if isinstance(place, LocalFolder):
        return LocalFile.at(place.path)  # says what it is
    raise UnreadableError(f"{place.path} is a folder, not a file", path=place.path, hint="name a file in it")


def locate_folder(text: PathText) -> Folder:
    """The folder at a path or an address, or the one that holds the file there; see `locate`."""
    place = _located(text)
    return place if isinstance(place, Folder) else place.folder


def _missing(path: Path) -> CkptError:
    if path.is_symlink():
        target = path.readlink()
        return UnreadableError(f"broken symlink: {path} -> {target}", hint="fix the link", path=path)
    if str(path) == "-":
        return UnreadableError(
            "- would be a stream, and checkpoints are read from files", hint="save it first", path=path
        )
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
