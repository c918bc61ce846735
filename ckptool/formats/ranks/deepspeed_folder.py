"""Which folder of a DeepSpeed run is meant: the one that ``latest`` names, the only one, or the folder itself."""

from __future__ import annotations

from collections.abc import Sequence

from ckptool.core.bytes import Entry, Folder
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError, UsageError
from ckptool.formats.ranks.deepspeed_files import PARAMETERS, holds_parameters, is_deepspeed
from ckptool.formats.ranks.names import entries_in, first_line, is_plain, listed

_LATEST = ("latest", "latest_universal")
_MOST = 1000  # folders that are looked into


def claims(folder: Folder, entries: Sequence[Entry]) -> bool:
    """True for a folder with the files of DeepSpeed's ranks, or with folders of such files."""
    names = [entry.name for entry in entries]
    return is_deepspeed(names) or bool(_tags(folder, entries))


def open_ranks(folder: Folder, select: str | None = None) -> Checkpoint:
    """Open a DeepSpeed checkpoint, or the one that a folder of several names as its latest.

    Raises:
        UsageError: the folder holds several, and does not say which is meant.
        UnreadableError: what ``latest`` names is not there; see also `open_deepspeed`.
    """
    from ckptool.formats.ranks.deepspeed import open_deepspeed

    entries = folder.entries()
    names = [entry.name for entry in entries]
    if is_deepspeed(names):
        return open_deepspeed(folder, select)
    tags = _tags(folder, entries)
    for name in _LATEST:
        if name in names:
            source = folder.open(name)
            tag = first_line(source)
            if not is_plain(tag):
                raise UnreadableError(
                    f'{source.path} names "{tag}", which is not the name of a folder beside it',
                    hint=f"name the folder that is meant: {folder.path / tags[0]}",
                    path=source.path,
                )
            if tag not in tags:
                raise UnreadableError(
                    f"{source.path} names {tag}, which {folder.path} does not hold; it holds {listed(tags)}",
                    hint=f"copy {tag} along, or name another one: {folder.path / tags[-1]}",
                    path=source.path,
                )
            tags = [tag]
            break
    if len(tags) > 1:
        raise UsageError(
            f"{folder.path} holds {len(tags)} DeepSpeed checkpoints: {listed(tags)}",
            hint=f"name one of them: {folder.path / tags[-1]}",
            path=folder.path,
        )
    return open_deepspeed(folder.folder(tags[0]), select, folder.path)


def _tags(folder: Folder, entries: Sequence[Entry]) -> list[str]:
    """The folders below that hold files of DeepSpeed's ranks. Looked for where something else says DeepSpeed, too."""
    names = {entry.name for entry in entries}
    inside = [entry.name for entry in entries if entry.is_folder]
    if not (names & {*_LATEST, "zero_to_fp32.py"} or any(name.startswith("global_step") for name in inside)):
        return []
    latest = [first_line(folder.open(name)) for name in _LATEST if Entry(name, False) in entries]
    return [name for name in inside[:_MOST] if _is_tag(folder.folder(name), is_latest=name in latest)]


def _is_tag(folder: Folder, *, is_latest: bool) -> bool:
    """True for the folder of a checkpoint, also of one whose model files are missing."""
    entries = entries_in(folder)
    if is_deepspeed([entry.name for entry in entries]) or (is_latest and not entries):
        return True
    return Entry(PARAMETERS, True) in entries and holds_parameters(folder.folder(PARAMETERS))
