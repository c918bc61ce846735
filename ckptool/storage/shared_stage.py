"""A stage that several processes write at once, on one machine or on many that share a file system.

Nothing ties a process to its number: what is finished has its record in the stage, and whoever finds all records there
publishes. A file is written under a name of its own, flushed, and renamed into `new`; its record follows. Two processes
that write one file write equal bytes, and the later rename wins.

    .model.1f0c9a3b.tmp/             the stage, as of one process; further in it:
        parts/                       files that are being written
        failed/NUMBER.json           why a process of this run has failed
        finish                       locked by the process that publishes
    .model.1f0c9a3b.done             what was published: a process that comes later has nothing to do
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ckptool.core.bytes import PathText
from ckptool.core.errors import OutputError
from ckptool.storage.claims import claim_shared, open_claimed
from ckptool.storage.failures import Failures
from ckptool.storage.launchers import Share
from ckptool.storage.publishing import Replaceable, is_publishing, publish_folder
from ckptool.storage.refusals import said_plainly
from ckptool.storage.renaming import sync_folder
from ckptool.storage.signals import signals_held
from ckptool.storage.sink import ByteSink
from ckptool.storage.stages import (
    OWNER,
    Finished,
    FolderStage,
    another_writer,
    done_path,
    records_in,
    remove_stage,
    stage_path,
    stages_of,
)
from ckptool.storage.staging import mode_of
from ckptool.storage.touched import note_written

_PAUSE = 0.1  # seconds
_LONGEST_PAUSE = 2.0  # seconds between two looks at what the others do
_PATIENCE = 900.0  # seconds without any progress of the others
_KEPT = "run it again: what is finished is kept"


@dataclass(frozen=True, slots=True)
class SharedStage:
    """A stage and this process's share of it; see `ckptool.storage.stages.Stage`.

    Attributes:
        base: the stage as one process sees it.
        share: which process this is.
        failures: what it and the others leave when they fail.
    """

    base: FolderStage
    share: Share
    failures: Failures

    @property
    def new(self) -> Path:
        return self.base.new

    @property
    def target(self) -> Path:
        return self.base.target

    @property
    def is_done(self) -> bool:
        """True if the output has its name."""
        return is_done(self.target, self.base.plan)

    @contextmanager
    def file(self, name: str, about: Mapping[str, Sequence[float]]) -> Iterator[ByteSink]:
        """Give a new file to be written under a name of its own; on leaving it is flushed, renamed and recorded."""
        part = self.base.path / "parts" / f"{secrets.token_hex(8)}.tmp"
        sink = ByteSink.create(part, self.base.mode)
        try:
            yield sink
            sink.flush()
            sink.close()
            part.replace(self.base.new / name)
        finally:
            sink.close()
            with suppress(OSError):  # it has its name
                part.unlink()
        sync_folder(self.base.new)
        self.base.record(name, about)

    def finished(self, name: str) -> Finished | None:
        """What was recorded of a finished file; None if it is not finished."""
        return self.base.finished(name)

    def are_finished(self, names: Iterable[str]) -> bool:
        """True if all these files are finished."""
        with suppress(OSError):
            os.listdir(self.base.path / "done")  # noqa: PTH208 (a network file system looks anew then)
        return all(self.finished(name) is not None for name in names)

    @contextmanager
    def finishing(self) -> Iterator[bool]:
        """Whether this process is the one that publishes; no other one is while it lasts."""
        descriptor = open_claimed(self.base.path / "finish") if self.base.path.is_dir() else None
        try:
            yield descriptor is not None and not self.is_done
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def publish(self, replaceable: Replaceable, *, force: bool) -> None:
        """Give the finished folder its final name, and leave word for processes that come later."""
        names = [name for name in self.base.names if (self.new / name).exists()]
        with signals_held():
            finished = filter(None, map(self.base.finished, names))
            about = {key: row for each in finished for key, row in each.about.items()}
            publish_folder(self.base.path, self.target, replaceable, force=force)
            mark_done(self.target, self.base.plan, names, about)
            remove_stage(self.base.path)
        note_written(self.target)

    # ------------------------------------------------------------------ the others

    def check_others(self) -> None:
        """Raise an error if another process of this run has failed."""
        self.failures.check(self.target, _KEPT)

    def wait(self, finish: Callable[[], None]) -> None:
        """Wait until the output has its name.

        Args:
            finish: publishes if all is there; a network file system may have shown the others' last record too late.

        Raises:
            OutputError: another process has failed, or nothing has happened for a quarter of an hour.
        """
        seen, since, pause = self._progress(), time.monotonic(), _PAUSE
        while not self.is_done:
            self.check_others()
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            finish()
            now = self._progress()
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > _PATIENCE:
                raise OutputError(
                    f"the other processes have written nothing of {self.target} for {_PATIENCE / 60:.0f} minutes",
                    hint=_KEPT,
                    path=self.target,
                )

    def _progress(self) -> object:
        """Something that changes while others write."""
        found = []
        for folder in ("parts", "done"):
            with suppress(OSError):
                for entry in os.scandir(self.base.path / folder):
                    with suppress(OSError):
                        info = entry.stat()
                        found.append((entry.name, info.st_size, info.st_mtime_ns))
        return sorted(found)


@contextmanager
def shared_folder(target: PathText, plan: str, replaceable: Replaceable, share: Share) -> Iterator[SharedStage]:
    """Give the stage that all processes of one plan share. It stays when this process is done with it.

    Args:
        target: the final name.
        plan: hash of the plan, equal for all of them.
        replaceable: says which files of an existing folder the new ones replace.
        share: which of them this is.

    Raises:
        OutputError: it cannot be written, or another process writes it by another plan.
    """
    target = Path(target)
    path = stage_path(target, plan)
    with said_plainly(target):
        _require_one_plan(target, path)
        descriptor = _joined(path, target)
        try:
            _require_one_plan(target, path)  # two that began at once see each other now
            base = FolderStage(path, target, plan, mode_of(target, replaceable), descriptor)
            for folder in (base.new, path / "done", path / "parts"):
                folder.mkdir(exist_ok=True)
            stage = SharedStage(base, share, Failures.begin(path / "failed", share))
            try:
                yield stage
            except BaseException as error:
                stage.failures.leave(error)
                raise
        finally:
            os.close(descriptor)


def _joined(path: Path, target: Path) -> int:
    """Make the stage if it is not there, and claim it together with others."""
    for _ in range(50):
        path.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = claim_shared(path / OWNER)
        except FileNotFoundError:  # removed in between
            continue
        if descriptor is not None and not is_publishing(path):
            return descriptor
        if descriptor is not None:
            os.close(descriptor)
        time.sleep(_PAUSE)  # a process looks whether it can be removed
    raise another_writer(target)


def _require_one_plan(target: Path, own: Path) -> None:
    """Refuse to write what others write by another plan: their inputs or options are not the same."""
    for path in stages_of(target):
        if path == own or not (path / OWNER).is_file():
            continue
        descriptor = open_claimed(path / OWNER)
        if descriptor is not None:
            os.close(descriptor)
        elif path.is_dir():
            raise OutputError(
                f"another process is writing {target} by another plan: its inputs or options differ",
                hint="give all processes the same inputs and options, or another name",
                path=target,
            )


def require_resumable(target: PathText, plan: str) -> None:
    """Refuse to begin anew where an earlier run by another plan has left finished files.

    Raises:
        OutputError: it names the stage.
    """
    target = Path(target)
    own = stage_path(target, plan)
    for path in stages_of(target):
        if path != own and path.is_dir() and records_in(path):
            raise OutputError(
                f"the inputs or options changed since the run that left {path}",
                hint=f"run what was run then, or begin anew: rm -r {path}",
                path=target,
            )


def is_done(target: PathText, plan: str) -> bool:
    """True if the output of a plan has its name, and its files are what was written."""
    return what_is_done(target, plan) is not None


def what_is_done(target: PathText, plan: str) -> Finished | None:
    """What was recorded of all files of an output; None if it is not there, or was written to since."""
    target = Path(target)
    try:
        said = json.loads(done_path(target, plan).read_text())
        if said["plan"] != plan or said["files"] != _states(target, said["files"]):
            return None
        return Finished(sum(size for size, *_ in said["files"].values()), said["about"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def mark_done(target: Path, plan: str, names: Iterable[str], about: Mapping[str, Sequence[float]]) -> None:
    """Leave word that the output of a plan is complete."""
    path = done_path(target, plan)
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    new.write_text(json.dumps({"plan": plan, "files": _states(target, names), "about": dict(about)}))
    new.replace(path)


def _states(target: Path, names: Iterable[str]) -> dict[str, list[int]]:
    found = {}
    for name in names:
        info = (target / name).lstat()
        found[name] = [info.st_size, info.st_ino, info.st_mtime_ns]
    return found
