"""Names in folders, and texts that name one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from ckptool.core.bytes import ByteSource, Entry, Folder
from ckptool.core.errors import UnreadableError

MAX_RANKS = 16_384
"""Most files of ranks that are opened together."""

PIECES_FILE = re.compile(r"shard-(?P<rank>\d{1,9})-model-(?P<index>\d{1,9})-of-(?P<count>\d{1,9})\.safetensors")
"""A file of torch.distributed with the pieces that one rank wrote."""
CONSOLIDATED_FILE = re.compile(r"consolidated\.(?P<rank>\d{2,4})\.pth")
"""A file of one model-parallel rank of Meta's."""
SNAPSHOT_FILE = re.compile(r"\.snapshot_metadata")
"""What a folder of torchsnapshot has."""

_PLAIN = re.compile(r"[^/\\\0]+")


def count_named(entries: Iterable[Entry], pattern: re.Pattern[str]) -> int:
    """How many entries of a folder have a name of this pattern."""
    return sum(pattern.fullmatch(entry.name) is not None for entry in entries)


def entries_in(folder: Folder) -> Sequence[Entry]:
    """What a folder holds; nothing if it may not be listed."""
    try:
        return folder.entries()
    except UnreadableError:
        return ()


def first_line(source: ByteSource, most: int = 4096) -> str:
    """The first line of a small text file, stripped."""
    with source.open() as file:
        text = file.read(0, min(most, file.size))
    return text.decode("utf-8", "replace").splitlines()[0].strip() if text.strip() else ""


def is_plain(name: str) -> bool:
    """True for the name of something in a folder, which leads nowhere else."""
    return name not in ("", ".", "..") and _PLAIN.fullmatch(name) is not None


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first of some names, and how many more."""
    found = list(names)
    return ", ".join(found[:most]) + (f" and {len(found) - most:,} more" if len(found) > most else "")


def lacks(path: PurePath, numbers: Sequence[int], count: int, name_like: str) -> UnreadableError:
    """The error for ranks whose files are not there.

    Args:
        path: the folder.
        numbers: the ranks.
        count: how many ranks there should be.
        name_like: the name of another rank's file, with ``{}`` for the number of the rank.
    """
    names = [name_like.format(number) for number in numbers]
    ranks = "rank" if len(numbers) == 1 else "ranks"
    which = listed(map(str, numbers))
    return UnreadableError(
        f"{ranks} {which} of {count:,} {'is' if len(numbers) == 1 else 'are'} missing in {path}: {listed(names)}",
        hint="every rank wrote a part: copy all of them from where the checkpoint was saved",
        path=path / names[0],
    )
