"""Questions about paths that only the system can answer, and the few small things that commands do with them.

Outside this room a path is a `PurePath`: a name. What it leads to is asked here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePath

from ckptool.core.bytes import PathText

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
    return Path(path)


def exists(path: PathText) -> bool:
    """True if a path leads to something; a link to nothing does not."""
    return Path(path).exists()


def is_named(path: PathText) -> bool:
    """True if a folder has an entry of this name, a link to nothing too."""
    return os.path.lexists(path)


def is_file(path: PathText) -> bool:
    """True if a path leads to a regular file."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: PathText) -> bool:
    """True if a path leads to a folder."""
    return Path(path).is_dir()


def is_own(path: PathText) -> bool:
    """True if a file belongs to the user who runs this; also where files belong to nobody."""
    return not hasattr(os, "getuid") or Path(path).stat().st_uid == os.getuid()


def size_of(path: PathText) -> int:
    """Bytes of a file."""
    return Path(path).stat().st_size


def entry_names(folder: PathText) -> list[str]:
    """The names of what a folder holds, in order."""
    return sorted(entry.name for entry in Path(folder).iterdir())


def walk(folder: PathText) -> Iterator[tuple[PurePath, list[str], list[str]]]:
    """Every folder below a folder, itself first, with the names of its folders and files; as `os.walk`.

    The first list may be changed in place: only what is left of it is gone into.
    """
    for here, folders, names in os.walk(folder):
        yield Path(here), folders, names


def files_below(folder: PathText) -> Iterator[PurePath]:
    """Every file below a folder."""
    return chain.from_iterable((here / name for name in names) for here, _, names in walk(folder))


def working_folder() -> PurePath:
    """Where the command was started."""
    return Path.cwd()


def resolved(path: PathText) -> PurePath:
    """The path from the root on, without links."""
    return Path(path).resolve()


def absolute(path: PathText) -> PurePath:
    """The path from the root on; links stay."""
    return Path(path).absolute()


def relative(path: PathText, folder: PathText = ".") -> PurePath:
    """A path as it is seen from a folder.

    Example:
        >>> relative("ci/weights/a.pth", "ci").as_posix(), relative("a.pth", "ci").as_posix()
        ('weights/a.pth', '../a.pth')
    """
    return Path(os.path.relpath(path, folder))


def normal(path: PathText) -> str:
    """The text of a path without detours, for comparison.

    Example:
        >>> normal("a/../b//c")
        'b/c'
    """
    return os.path.normpath(path)


def expanded(path: PathText) -> PurePath:
    """The path with the home folder for ``~``."""
    return Path(path).expanduser()


def link_target(path: PathText) -> PurePath | None:
    """What a link names; None for what is no link."""
    return Path(path).readlink() if Path(path).is_symlink() else None


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
