"""Folders of Megatron: the iteration that ``latest_checkpointed_iteration.txt`` names, or an iteration itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ckptool.core.bytes import Entry, Folder
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError, UsageError
from ckptool.formats.ranks.names import entries_in, first_line, listed

LATEST = "latest_checkpointed_iteration.txt"
_ITERATION = re.compile(r"iter_\d{7,}|release")
_MODEL_PARALLEL = re.compile(r"mp_rank_\d{2,}(?:_\d{3,}){0,2}")
_DISTRIBUTED = (".metadata", "metadata.json")


def claims(folder: Folder, entries: Sequence[Entry]) -> bool:
    """True for an iteration of Megatron, or a folder of iterations."""
    return _is_iteration(entries) or bool(_iterations(folder, entries))


def open_ranks(folder: Folder, select: str | None = None) -> Checkpoint:
    """Open an iteration, or the one that a folder of iterations names as its latest.

    Raises:
        UsageError: the folder holds several, and does not say which is meant.
        UnreadableError: the iteration that it names is not there.
    """
    entries = folder.entries()
    if _is_iteration(entries):
        return _opened(folder, folder, select)
    iterations = _iterations(folder, entries)
    if Entry(LATEST, False) in entries:
        source = folder.open(LATEST)
        text = first_line(source)
        named = f"iter_{int(text):07d}" if re.fullmatch(r"[0-9]{1,12}", text) else text
        if named not in iterations:
            raise UnreadableError(
                f"{source.path} names iteration {text[:40]}, {folder.path} holds {listed(iterations)}",
                hint=f"copy that iteration along, or name another one: {folder.path / iterations[-1]}",
                path=source.path,
            )
        iterations = [named]
    if len(iterations) > 1:
        raise UsageError(
            f"{folder.path} holds {len(iterations)} iterations: {listed(iterations)}",
            hint=f"name one of them: {folder.path / iterations[-1]}",
            path=folder.path,
        )
    return _opened(folder.folder(iterations[0]), folder, select)


def _opened(iteration: Folder, named: Folder, select: str | None) -> Checkpoint:
    from ckptool.formats.dcp import open_folders
    from ckptool.formats.ranks.megatron_dist import is_megatron

    names = [entry.name for entry in iteration.entries()]
    if ".metadata" in names or is_megatron(iteration):
        return open_folders([iteration], named.path, select)
    from ckptool.formats.ranks.megatron import open_legacy_iteration

    return open_legacy_iteration(iteration, select, named.path)


def _is_iteration(entries: Sequence[Entry]) -> bool:
    names = {entry.name for entry in entries}
    if "metadata.json" in names and "common.pt" in names:
        return True
    return any(entry.is_folder and _MODEL_PARALLEL.fullmatch(entry.name) for entry in entries)


def _iterations(folder: Folder, entries: Sequence[Entry]) -> list[str]:
    names = [entry.name for entry in entries if entry.is_folder and _ITERATION.fullmatch(entry.name)]
    return [name for name in names if _holds_model(entries_in(folder.folder(name)))]


def _holds_model(entries: Sequence[Entry]) -> bool:
    return _is_iteration(entries) or any(entry.name in _DISTRIBUTED for entry in entries)
