"""Questions about paths that only the system can answer, and the few small things that commands do with them.

Outside this room a path is a `PurePath`: a name. What it leads to is asked here. An address is such a name, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePath

from ckptool.core.address import Address, address_of
from ckptool.core.bytes import ByteSource, Folder, PathText
from ckptool.core.errors import CkptError, MissingError
from ckptool.storage.locate import locate_file, locate_folder

SEPARATORS = frozenset({os.sep, os.altsep or os.sep})
"""What stands between the parts of a path."""

NULL_DEVICE = os.devnull
"""The file that is always empty: what git names where a side does not exist."""


def local_path(path: PathText) -> PurePath:
    """A path as users get it: one that they can ask and open.

    Example:
        >>> local_path("fixtures/resnet18.pth").name
        'resnet18.pth'
    """
    return address_of(path) or Path(path)


def is_address(path: PathText) -> bool:
    """True for the address of something that is not on this machine."""
    return address_of(path) is not None


def exists(path: PathText) -> bool:
    """True if a path leads to something; a link to nothing does not.

    Raises:
        CkptError: for an address that cannot be asked.
    """
    address = address_of(path)
    return Path(path).exists() if address is None else _found(address) is not None


def _found(address: Address) -> ByteSource | Folder | None:
    """What an address leads to; None for nothing."""
    try:
        return locate_file(address)
    except MissingError:
        return None
    except CkptError:
        return locate_folder(address)


def is_named(path: PathText) -> bool:
    """True if a folder has an entry of this name, a link to nothing too."""
    return exists(path) if is_address(path) else os.path.lexists(path)


def is_file(path: PathText) -> bool:
    """True if a path leads to a regular file."""
    address = address_of(path)
    if address is not None:
        found = _found(address)
        return found is not None and not isinstance(found, Folder)
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: PathText) -> bool:
    """True if a path leads to a folder."""
    address = address_of(path)
    return Path(path).is_dir() if address is None else isinstance(_found(address), Folder)


def is_own(path: PathText) -> bool:
    """True if a file belongs to the user who runs this; also where files belong to nobody."""
    return not hasattr(os, "getuid") or Path(path).stat().st_uid == os.getuid()


def size_of(path: PathText) -> int:
    """Bytes of a file."""
    return locate_file(path).size if is_address(path) else Path(path).stat().st_size


def entry_names(folder: PathText) -> list[str]:
    """The names of what a folder holds, in order."""
    if is_address(folder):
        return [entry.name for entry in locate_folder(folder).entries()]
    return sorted(entry.name for entry in Path(folder).iterdir())


def walk(folder: PathText) -> Iterator[tuple[PurePath, list[str], list[str]]]:
    """Every folder below a folder, itself first, with the names of its folders and files; as `os.walk`.

    The first list may be changed in place: only what is left of it is gone into.
    """
    if is_address(folder):
        yield from _walk(locate_folder(folder))
        return
    for here, folders, names in os.walk(folder):
        yield Path(here), folders, names


def _walk(folder: Folder) -> Iterator[tuple[PurePath, list[str], list[str]]]:
    entries = folder.entries()
    folders = [entry.name for entry in entries if entry.is_folder]
    yield folder.path, folders, [entry.name for entry in entries if not entry.is_folder]
    for name in folders:
        yield from _walk(folder.folder(name))


def files_below(folder: PathText) -> Iterator[PurePath]:
    """Every file below a folder."""
    return chain.from_iterable((here / name for name in names) for here, _, names in walk(folder))


def working_folder() -> PurePath:
    """Where the command was started."""
    return Path.cwd()


def resolved(path: PathText) -> PurePath:
    """The path from the root on, without links."""
    return address_of(path) or Path(path).resolve()


def absolute(path: PathText) -> PurePath:
    """The path from the root on; links stay."""
    return address_of(path) or Path(path).absolute()


def relative(path: PathText, folder: PathText = ".") -> PurePath:
    """A path as it is seen from a folder.

    Example:
        >>> relative("ci/weights/a.pth", "ci").as_posix(), relative("a.pth", "ci").as_posix()
        ('weights/a.pth', '../a.pth')
    """
    return address_of(path) or Path(os.path.relpath(path, folder))


def normal(path: PathText) -> str:
    """The text of a path without detours, for comparison.

    Example:
        >>> normal("a/../b//c")
        'b/c'
    """
    return str(address_of(path) or os.path.normpath(path))


def expanded(path: PathText) -> PurePath:
    """The path with the home folder for ``~``."""
    return address_of(path) or Path(path).expanduser()


def link_target(path: PathText) -> PurePath | None:
    """What a link names; None for what is no link."""
    return Path(path).readlink() if not is_address(path) and Path(path).is_symlink() else None


def remove_file(path: PathText) -> None:
    """Remove one file of ours."""
    Path(path).unlink()


def make_folders(path: PathText) -> None:
    """A folder and those above it, as far as they are not there."""
    Path(path).mkdir(parents=True, exist_ok=True)


def append_text(path: PathText, text: str) -> None:
    """Write at the end of a text file; what UTF-8 cannot hold is escaped.

    Raises:
        OSError: as the system says.
    """
    with Path(path).open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)


def shown_text(name: str | bytes) -> str:
    """The text of a name as the system gave it."""
    return os.fsdecode(name)


def can_be_a_name(text: str) -> bool:
    """True if the system could have a file of this name."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True
