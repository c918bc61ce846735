"""Stages: the hidden place beside its target where an output is written.

    .a.pth.1f0c9a3b.tmp              the stage of a file: the file itself, locked while it is written
    .model.1f0c9a3b.tmp/             the stage of a folder
        owner                        locked while a process works on the stage
        new/                         the folder as it will be
        done/NAME.json               the record of a finished file of it
        publishing.json, old/        while `new` takes the target's place: see `ckptool.storage.publishing`

The eight digits are the beginning of the plan's hash, so that the same command finds its stage again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol

from ckptool.core.errors import OutputError
from ckptool.storage.claims import claim_path
from ckptool.storage.sink import ByteSink, set_mode

_NAME_MAX = 255  # bytes
_DIGITS = 8
_SUFFIX = re.compile(rf"\.[0-9a-f]{{{_DIGITS}}}\.tmp")
_VERSION = 1
OWNER = "owner"
_TRIES = 5
_PAUSE = 0.03  # seconds


def stage_path(target: Path, plan: str) -> Path:
    """The stage of a target under a plan's hash: hidden, of no loader's glob, no longer than a name may be."""
    return target.with_name(f"{_stem(target)}.{plan[:_DIGITS]}.tmp")


def done_path(target: Path, plan: str) -> Path:
    """Where a run that several processes did leaves word that it is complete."""
    return target.with_name(f"{_stem(target)}.{plan[:_DIGITS]}.done")


def words_of_done(target: Path) -> list[Path]:
    """What runs with this target have left to say that they are complete."""
    stem, pattern = _stem(target), re.compile(rf"\.[0-9a-f]{{{_DIGITS}}}\.done")
    try:
        names = os.listdir(target.parent)  # noqa: PTH208 (names alone are faster)
    except OSError:
        return []
    return [target.with_name(name) for name in names if name.startswith(stem) and pattern.fullmatch(name, len(stem))]


def stages_of(target: Path) -> list[Path]:
    """The stages that runs with this target have left or work on."""
    stem = _stem(target)
    try:
        names = os.listdir(target.parent)  # noqa: PTH208 (names alone are faster)
    except OSError:  # a folder that may be written to and not listed
        return []
    return [
        target.with_name(name)
        for name in sorted(names)
        if name.startswith(stem) and _SUFFIX.fullmatch(name, len(stem)) is not None
    ]


def _stem(target: Path) -> str:
    """``.name``; a name too long to be followed by more is cut, and a digest of it follows."""
    name = os.fsencode(target.name)
    room = _NAME_MAX - 1 - len(f".{'0' * _DIGITS}.tmp")
    if len(name) > room:
        digest = hashlib.sha256(name).hexdigest()[:_DIGITS]
        name = name[: room - 1 - _DIGITS].decode(errors="ignore").encode() + f".{digest}".encode()
    return f".{os.fsdecode(name)}"


def is_folder_stage(path: Path) -> bool:
    """True for a folder that `FolderStage.claim` made; what else has such a name is left alone."""
    return (path / OWNER).is_file() or not any(path.iterdir())


def remove_stage(path: Path) -> None:
    """Remove the stage of a folder as far as the system lets us, its owner last; the next run tries again."""
    with suppress(OSError):
        for entry in list(path.iterdir()):
            if entry.name != OWNER:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        (path / OWNER).unlink(missing_ok=True)
        path.rmdir()


@dataclass(frozen=True, slots=True)
class Finished:
    """A file that is finished: its bytes, and the numbers that were recorded of it."""

    nbytes: int
    about: Mapping[str, Sequence[float]]


class Stage(Protocol):
    """Where the files of a folder output are written."""

    @property
    def new(self) -> PurePath:
        """Where those are that were written so far."""

    def file(self, name: str, about: Mapping[str, Sequence[float]]) -> AbstractContextManager[ByteSink]:
        """Give a new file of the output to be written; see `FolderStage.file`."""

    def finished(self, name: str) -> Finished | None:
        """What was recorded of a finished file; None if it is not finished."""


@dataclass(frozen=True, slots=True)
class FolderStage:
    """The stage of a folder output, and this process's claim to it.

    Attributes:
        path: the stage.
        target: the folder that it will become.
        plan: hash of the plan; a finished file counts only under the plan that made it.
        mode: permissions of its files; None for what the umask leaves.
        owner: the descriptor that holds the claim.
    """

    path: Path
    target: Path
    plan: str
    mode: int | None
    owner: int

    @property
    def new(self) -> Path:
        """The folder as it will be."""
        return self.path / "new"

    @classmethod
    def claim(cls, target: Path, plan: str, mode: int | None) -> FolderStage:
        """Make the stage, or take over what a killed run with the same plan left of it.

        Raises:
            OutputError: another process works on it.
        """
        path = stage_path(target, plan)
        stage = cls(path, target, plan, mode, _claimed_folder(path, target))
        try:
            stage.new.mkdir(exist_ok=True)
            (path / "done").mkdir(exist_ok=True)
            for entry in list(stage.new.iterdir()):
                if stage._record(entry.name) is None:
                    entry.unlink()
        except BaseException:
            if not records_in(path):
                remove_stage(path)
            stage.release()
            raise
        return stage

    @contextmanager
    def file(self, name: str, about: Mapping[str, Sequence[float]]) -> Iterator[ByteSink]:
        """Give a new file of the output to be written; on leaving, flush it and record it as finished.

        Args:
            name: its name in the output.
            about: numbers that a run which resumes will want to know; read on leaving.
        """
        path = self.new / name
        self._record_path(name).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        sink = ByteSink.create(path, self.mode)
        try:
            yield sink
            sink.flush()
        finally:
            sink.close()
        self.record(name, about)

    def record(self, name: str, about: Mapping[str, Sequence[float]]) -> None:
        """Record a file as finished; the record is there whole or not at all."""
        state = _state(self.new / name)
        record = {"version": _VERSION, "plan": self.plan, "name": name, "file": state, "about": dict(about)}
        path = self._record_path(name)
        written = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        written.write_text(json.dumps(record))
        written.replace(path)

    @property
    def names(self) -> list[str]:
        """The files that are recorded as finished."""
        return sorted(path.name.removesuffix(".json") for path in (self.path / "done").glob("*.json"))

    def finished(self, name: str) -> Finished | None:
        """What was recorded of a finished file; None if it is not finished, or is another file than the recorded one.

        The file must have the size, inode and times (of modification and of change, in nanoseconds) that it had when it
        was recorded: such a file was not written to since, for every write changes them, and a time that is set back
        changes the time of change. A digest would cost a second pass over bytes that only the kernel has touched.
        """
        record = self._record(name)
        return None if record is None else Finished(record["file"][0], record["about"])

    def release(self) -> None:
        """Give the claim up; the stage stays."""
        os.close(self.owner)

    def _record_path(self, name: str) -> Path:
        return self.path / "done" / f"{name}.json"

    def _record(self, name: str) -> Any:
        """The record of a file that agrees with it; None without one."""
        try:
            record = json.loads(self._record_path(name).read_bytes())
            state = _state(self.new / name)
        except (OSError, ValueError):
            return None
        wanted = {"version": _VERSION, "plan": self.plan, "name": name, "file": state}
        return record if isinstance(record, dict) and wanted.items() <= record.items() else None


def _state(path: Path) -> list[int]:
    """What shows that a file was written to: size, inode, time of modification and of change in nanoseconds."""
    info = path.lstat()
    return [info.st_size, info.st_ino, info.st_mtime_ns, info.st_ctime_ns]


def _claimed_folder(path: Path, target: Path) -> int:
    """Make the folder of a stage if it is not there, and lock it; the descriptor that holds the lock."""
    for _ in range(_TRIES):
        path.mkdir(mode=0o700, exist_ok=True)
        try:
            owner = claim_path(path / OWNER)
        except FileNotFoundError:  # taken for a killed run's and removed before it was locked
            continue
        except OSError:
            with suppress(OSError):  # not empty: a killed run's
                path.rmdir()
            raise
        if owner is not None:
            return owner
        time.sleep(_PAUSE)  # another run may only be looking whether it can be removed
    raise another_writer(target)


def records_in(stage: Path) -> int:
    """How many files of a stage are recorded as finished."""
    try:
        finished = {name.removesuffix(".json") for name in os.listdir(stage / "done")}  # noqa: PTH208
        return len(finished.intersection(os.listdir(stage / "new")))  # noqa: PTH208
    except OSError:
        return 0


def another_writer(target: Path) -> OutputError:
    return OutputError(
        f"another process is writing {target} by the same plan", hint="wait for it, or give another name", path=target
    )


def take_mode(target: Path, new: Path, descriptor: int | None = None) -> None:
    """Give a new file or folder the permissions of the one that it replaces, and its owner as far as we may.

    Where the group cannot be kept, the group's permissions are no wider than everybody's.
    """
    if not target.exists():
        return
    old, now = target.stat(), new.stat()
    mode = old.st_mode & 0o7777
    if hasattr(os, "chown") and (old.st_uid, old.st_gid) != (now.st_uid, now.st_gid):
        try:
            os.chown(new, old.st_uid if os.geteuid() == 0 else -1, old.st_gid)
        except OSError:
            mode &= ~0o070 | (mode & 0o007) << 3
    if mode != new.stat().st_mode & 0o7777:
        set_mode(new, mode, descriptor)
