"""Opens a checkpoint by its headers: a file, a sharded folder, an index, a torch.distributed folder."""

from __future__ import annotations

from ckptool.core.bytes import Folder, PathText
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.collector import collector_paused
from ckptool.core.errors import UnreadableError
from ckptool.formats.registry import open_file
from ckptool.formats.sniff import DISTRIBUTED, PART_OF_DISTRIBUTED
from ckptool.storage.locate import locate


def open_checkpoint(path: PathText, select: str | None = None) -> Checkpoint:
    """Open a checkpoint by its headers: a file, a sharded folder, an index, a torch.distributed folder.

    Args:
        path: the file or folder.
        select: which dict of tensors to take as the weights, by its dotted path; None to choose.

    Raises:
        UnreadableError: it is missing, damaged, or not a checkpoint; the message says what it is.
        UsageError: it is not a path, holds several checkpoints, or has nothing to select from.
    """
    place = locate(path)
    with collector_paused():
        if isinstance(place, Folder):
            from ckptool.formats.folder import open_folder

            return open_folder(place, select)
        if place.name.endswith((DISTRIBUTED, PART_OF_DISTRIBUTED)):
            raise UnreadableError(
                f"{place.path} is a part of a torch.distributed checkpoint",
                hint=f"open the folder, which joins its parts: {place.path.parent}",
                path=place.path,
            )
        return open_file(place, select, indexes=True)
