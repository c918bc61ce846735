"""Which kind of folder it is that several ranks wrote, by the names in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePath

from ckptool.core.bytes import Entry, Folder
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of folder.

    Attributes:
        module: where it is read: `claims` says by the names whether a folder is of this kind, `open_ranks` opens it.
    """

    module: str

    def claims(self, folder: Folder, entries: Sequence[Entry]) -> bool:
        return bool(self._function("claims")(folder, entries))

    def open(self, folder: Folder, select: str | None) -> Checkpoint:
        found = self._function("open_ranks")(folder, select)
        assert isinstance(found, Checkpoint)
        return found

    def _function(self, name: str) -> Callable[..., object]:
        function: Callable[..., object] = getattr(import_module(f"ckptool.formats.ranks.{self.module}"), name)
        return function


KINDS = (
    Kind("deepspeed_folder"),
    Kind("accelerate"),
    Kind("megatron_folder"),
    Kind("dcp_safetensors"),
    Kind("meta"),
    Kind("torchsnapshot"),
    Kind("per_rank"),
)
"""In the order in which they are asked."""


def kind_of(folder: Folder, entries: Sequence[Entry]) -> Kind | None:
    """The kind of a folder; None if it is of none of them."""
    return next((kind for kind in KINDS if kind.claims(folder, entries)), None)


def is_joined(folder: Folder) -> bool:
    """True if a folder itself holds the files of ranks, not a folder in it."""
    entries = folder.entries()
    if kind_of(folder, entries) is None:
        return False
    inner = (folder.folder(entry.name) for entry in entries if entry.is_folder)
    return not any(kind_of(each, each.entries()) for each in inner)


def joining_folder(folder: Folder, *, is_whole: bool = False) -> PurePath | None:
    """The folder whose ranks can be joined: a folder itself, or one in it; None if there is none.

    Args:
        folder: a folder with files of ranks, or one around it.
        is_whole: True if the folder itself opens as something else.
    """
    try:
        entries = folder.entries()
    except UnreadableError:  # it may not be listed
        return None
    if kind_of(folder, entries) is None:
        return None
    if not is_whole:
        return folder.path
    for entry in reversed(entries):
        inner = folder.folder(entry.name) if entry.is_folder else None
        if inner is not None and kind_of(inner, inner.entries()) is not None:
            return inner.path
    return None
