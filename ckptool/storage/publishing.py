"""How a staged folder takes the place of an existing one. Files that the output does not replace stay.

Where two names can be exchanged in one step, the new folder first gets hard links to the files that stay, the two
folders are exchanged, and what is left in the old one (subfolders, files that appeared meanwhile) moves over. Else the
files change one by one: the old ones move into the stage, the index first; the new ones move in, the index last.

A journal in the stage says what is going on. A run that is killed leaves the new output under the name, or the old one
under the name or in `old/` of the stage; `recovered` finishes or undoes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from ckptool.core.checkpoint import Note
from ckptool.core.errors import OutputError
from ckptool.storage.refusals import created_meanwhile
from ckptool.storage.renaming import exchange, link_new, move_new, sync_folder
from ckptool.storage.sink import ByteSink
from ckptool.storage.stages import take_mode

Replaceable = Callable[[PurePath], frozenset[str]]
"""Gives the names in a folder that are an earlier output's files."""

_JOURNAL = "publishing.json"
_ROUNDS = 5  # of moving what appears in a folder that others write to


@dataclass(frozen=True, slots=True)
class Journal:
    """What one publication does.

    Attributes:
        target: name of the folder.
        folder: device and inode of the new folder.
        new: names of the new files.
        ours: names of the old files that are replaced.
        linked: inodes of the files that stay and have a link in the new folder, by name.
    """

    target: str
    folder: tuple[int, int]
    new: tuple[str, ...]
    ours: tuple[str, ...]
    linked: Mapping[str, int]

    def write(self, stage: Path) -> None:
        """Put it into the stage, on the disk."""
        sink = ByteSink.create(stage / _JOURNAL, 0o600)
        try:
            sink.write(json.dumps(asdict(self)).encode(), 0)
            sink.flush()
        finally:
            sink.close()
        sync_folder(stage)


def is_publishing(stage: Path) -> bool:
    """True if the stage holds a publication that is not finished."""
    return os.path.lexists(stage / _JOURNAL)


def publish_folder(stage: Path, target: Path, replaceable: Replaceable, *, force: bool) -> None:
    """Give the folder `new` of a stage its final name.

    Args:
        stage: holds it; its files are flushed.
        target: the final name.
        replaceable: says which files of an existing folder the new ones replace.
        force: False if nothing may be replaced.

    Raises:
        OutputError: something is there that may not be replaced; or it is written, and what it replaced is still there.
    """
    new = stage / "new"
    sync_folder(new)
    if not os.path.lexists(target):
        try:
            move_new(new, target)
        except FileExistsError:
            if not force:
                raise created_meanwhile(target) from None
        else:
            sync_name(target)
            return
    ours = replaceable(target)
    names = _names(new)
    _require_replaceable(target, ours, names, force)
    linked = {} if target.is_symlink() else _link_others(target, new, ours)
    take_mode(target, new)
    info = new.stat()
    journal = Journal(target.name, (info.st_dev, info.st_ino), tuple(names), tuple(sorted(ours)), linked)
    sync_folder(new)
    journal.write(stage)
    if exchange(new, target):
        try:
            sync_name(target)
        finally:
            _settle(new, target, journal, replaceable if force else None)
            _end(stage)
        return
    for name in linked:
        (new / name).unlink()
    if target.is_symlink():
        _replace_link(stage, target)
        sync_name(target)
    else:
        _replace_files(stage, target, journal)
        sync_name(target, target)


def _require_replaceable(target: Path, ours: frozenset[str], names: Iterable[str], force: bool) -> None:
    """Refuse what came to stand in the way since the target was checked."""
    if not target.is_dir():
        raise OutputError(f"{target} is a file now", hint="give a new name", path=target)
    if ours and not force:
        raise created_meanwhile(target)
    others = set(_names(target)) - ours
    if others and target.is_symlink():
        raise link_with_others(target)
    blocked = sorted(others.intersection(names))
    if blocked:
        raise OutputError(f"{target / blocked[0]} is not a regular file", hint="remove or rename it", path=target)


def link_with_others(target: Path) -> OutputError:
    return OutputError(
        f"{target} is a link to a folder that holds other files, which a new folder in its place would not have",
        hint=f"name the folder itself: {target.resolve()}",
        path=target,
    )


def _link_others(target: Path, new: Path, ours: frozenset[str]) -> dict[str, int]:
    """Give the files that stay a second name in the new folder; the inodes of those where that is possible."""
    linked = {}
    skipped = {*ours, *_names(new)}
    for name in _names(target):
        if name not in skipped and link_new(target / name, new / name):  # what cannot be linked moves afterwards
            linked[name] = (new / name).lstat().st_ino
    return linked


def _settle(old: Path, target: Path, journal: Journal, replaceable: Replaceable | None = None) -> None:
    """Empty a folder whose place the new one took: remove what was replaced, move everything else over."""
    try:
        if old.is_symlink():
            old.unlink()
            return
        if replaceable is not None:  # another run may have replaced the folder since it was listed
            journal = replace(journal, ours=tuple(sorted({*journal.ours, *replaceable(old)})))
        for _ in range(_ROUNDS):
            for name in _names(old):
                _settle_entry(old / name, target / name, journal)
            if not _names(old):
                old.rmdir()
                return
    except OSError as error:
        reason = (error.strerror or "unknown").lower()
        raise OutputError(
            f"{target} is written; the old folder could not be removed and is {old}: {reason}",
            hint="the next run with this output tries again",
            path=target,
        ) from error
    raise OutputError(
        f"{target} is written; files with names that it has already are left in {old}",
        hint="move what you want to keep",
        path=target,
    )


def _settle_entry(entry: Path, place: Path, journal: Journal) -> None:
    if entry.name in journal.ours:
        entry.unlink()
        return
    try:
        there = place.lstat()
    except FileNotFoundError:
        move_new(entry, place)
        return
    if os.path.samestat(there, entry.lstat()):
        entry.unlink()
    elif there.st_ino == journal.linked.get(entry.name):  # replaced while the folders were exchanged: this is newer
        entry.replace(place)


def _replace_link(stage: Path, target: Path) -> None:
    """Put the new folder where a link to a folder is; what it points to stays."""
    target.rename(stage / "old")
    try:
        move_new(stage / "new", target)
    except BaseException:
        move_new(stage / "old", target)
        raise
    finally:
        _end(stage)


def _replace_files(stage: Path, target: Path, journal: Journal) -> None:
    """Replace the files of a folder one by one; all old ones are back if that fails."""
    (stage / "old").mkdir(exist_ok=True)
    try:
        for name in sorted(journal.ours, key=_is_index, reverse=True):
            (target / name).rename(stage / "old" / name)
        for name in sorted(journal.new, key=_is_index):
            move_new(stage / "new" / name, target / name)
    except BaseException:
        try:
            _put_back(stage, target, journal)
        except OSError as error:
            raise OutputError(
                f"{target} was not replaced, and its old files could not be put back: they are in {stage / 'old'}",
                hint="the next run with this output puts them back",
                path=target,
            ) from error
        _end(stage)
        raise
    _end(stage)


def _put_back(stage: Path, target: Path, journal: Journal) -> None:
    """Undo `_replace_files`, however far it came."""
    new, old = stage / "new", stage / "old"
    for name in journal.new:
        if not os.path.lexists(new / name) and os.path.lexists(target / name):
            (target / name).rename(new / name)
        elif _is_same(new / name, target / name):
            (target / name).unlink()
    for name in sorted(_names(old), key=_is_index):
        if _is_same(old / name, target / name):
            (old / name).unlink()
        else:
            move_new(old / name, target / name)


def recovered(stage: Path, target: Path) -> Note | None:
    """Finish or undo a publication that was killed; what was done, None if there was none.

    Raises:
        OSError: the system does not let us.
        OutputError: what is in the stage cannot be moved.
    """
    journal = _journal_in(stage)
    if journal is None:
        _end(stage)
        return None
    if journal.target != target.name:
        return None
    new, old = stage / "new", stage / "old"
    if _identity(target) == journal.folder:
        for each in (new, old):
            if os.path.lexists(each):
                _settle(each, target, journal)
        note = Note(
            f"an earlier run was stopped just after it replaced {target}: its output is complete",
            "what it replaced is removed now, all other files are in the folder",
        )
    elif old.is_symlink():
        move_new(old, target)
        note = _undone(target)
    elif old.is_dir():
        if all(os.path.lexists(target / name) and not os.path.lexists(new / name) for name in journal.new):
            note = Note(f"an earlier run was stopped just after it replaced the weights in {target}: they are complete")
        else:
            _put_back(stage, target, journal)
            note = _undone(target)
    elif _identity(new) == journal.folder:
        note = None  # it was stopped before anything changed
    else:
        return Note(
            f"{stage} holds what an earlier run replaced in {target}, which was moved or replaced since",
            f"move what you want to keep, then: rm -r {stage}",
        )
    _end(stage)
    return note


def _undone(target: Path) -> Note:
    return Note(
        f"an earlier run was stopped while it replaced {target}: the old output is back under its name",
        "run that command again to replace it",
    )


def _journal_in(stage: Path) -> Journal | None:
    """The journal of a stage; None without one, or if it was not written to its end: then nothing had begun."""
    try:
        fields: dict[str, Any] = json.loads((stage / _JOURNAL).read_bytes())
        fields["folder"] = tuple(fields["folder"])
        return Journal(**fields)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _end(stage: Path) -> None:
    (stage / _JOURNAL).unlink(missing_ok=True)


def _is_index(name: str) -> bool:
    return name.endswith(".json")


def _is_same(one: Path, other: Path) -> bool:
    """True if two names are one file: the first half of a move that was killed."""
    identity = _identity(one)
    return identity is not None and identity == _identity(other)


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        info = path.lstat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def sync_name(target: Path, folder: Path | None = None) -> None:
    """Flush the name that an output just got, or the names in a folder. It is there already, so a failure says so."""
    try:
        sync_folder(folder or target.parent)
    except OSError as error:
        reason = (error.strerror or "unknown").lower()
        raise OutputError(
            f"{target} is written, but the disk did not confirm its name: {reason}",
            hint="it is complete now; a power failure might still lose it",
            path=target,
        ) from error
