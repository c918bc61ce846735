"""Which kind of folder it is that several ranks wrote, by the names in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from ckptool.core.bytes import Entry, Folder
from ckptool.formats.ranks.names import CONSOLIDATED_FILE, PIECES_FILE, SNAPSHOT_FILE, count_named, entries_in
from ckptool.formats.registry import FolderContainer, late

_MOST = 1000  # folders that are looked into


def _kind(name: str, module: str) -> FolderContainer:
    """A kind that `claims` and `open_ranks` of a module of this folder know."""
    return FolderContainer(name, late(f"ranks.{module}", "claims"), late(f"ranks.{module}", "open_ranks"))


def _named(name: str, module: str, files: re.Pattern[str], least: int = 1) -> FolderContainer:
    """A kind that the names of its files tell; only who opens such a folder needs the module."""

    def claims(folder: Folder, entries: Sequence[Entry]) -> bool:
        return count_named(entries, files) >= least

    return FolderContainer(name, claims, late(f"ranks.{module}", "open_ranks"))


KINDS = (
    _kind("DeepSpeed", "deepspeed_folder"),
    _kind("Accelerate", "accelerate"),
    _kind("Megatron", "megatron_folder"),
    _named("torch.distributed safetensors", "dcp_safetensors", PIECES_FILE),
    _named("Meta consolidated", "meta", CONSOLIDATED_FILE, least=2),
    _named("torchsnapshot", "torchsnapshot", SNAPSHOT_FILE),
    _kind("torch files of ranks", "per_rank"),
)
"""In the order in which they are asked; the last looks into files. Whole weights that lie beside them come first."""


def kind_of(folder: Folder, entries: Sequence[Entry], *, by_names: bool = False) -> FolderContainer | None:
    """The kind of a folder; None if it is of none of them.

    Args:
        folder: the folder.
        entries: what it holds.
        by_names: no file is looked into, so that folders which only its files tell are not known.
    """
    kinds = KINDS[:-1] if by_names else KINDS
    return next((kind for kind in kinds if kind.claims(folder, entries)), None)


def is_joined(folder: Folder) -> bool:
    """True if a folder itself holds the files of ranks, not a folder in it."""
    entries = folder.entries()
    if kind_of(folder, entries) is None:
        return False
    return not inner_folders(folder, entries)


def inner_folders(folder: Folder, entries: Sequence[Entry]) -> list[Folder]:
    """The folders in a folder that ranks wrote."""
    found = []
    for entry in entries[:_MOST]:
        inner = folder.folder(entry.name) if entry.is_folder else None
        held = entries_in(inner) if inner is not None else ()
        if inner is not None and kind_of(inner, held) is not None:
            found.append(inner)
    return found


def joining_folder(folder: Folder, *, is_whole: bool = False) -> PurePath | None:
    """The folder whose ranks can be joined: a folder itself, or one in it; None if there is none.

    Args:
        folder: a folder with files of ranks, or one around it.
        is_whole: True if the folder itself opens as something else.
    """
    entries = entries_in(folder)
    if kind_of(folder, entries, by_names=is_whole) is None:
        return None
    if not is_whole:
        return folder.path
    inner = inner_folders(folder, entries)
    return inner[-1].path if inner else None
