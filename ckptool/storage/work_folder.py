"""The folder in which processes that read together meet: each leaves a record of what it found.

DIR/plan-1f0c9a3b...        the hash of what is asked, equal for all of them
DIR/2-of-4.json             the record of one process, there whole or not at all
DIR/failed/NUMBER.json      why a process of this run has failed
DIR/alive/NUMBER            written to while a process works
DIR/merge                   locked by the process that puts the records together
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptool.core.bytes import PathText
from ckptool.core.errors import OutputError
from ckptool.core.shell import shell_quote
from ckptool.storage.claims import open_claimed
from ckptool.storage.failures import Failures
from ckptool.storage.launchers import Share
from ckptool.storage.refusals import said_plainly
from ckptool.storage.renaming import sync_folder

_VERSION = 1
_PREFIX = "plan-"
_PAUSE = 0.05  # seconds
_LONGEST_PAUSE = 2.0  # seconds between two looks at what the others do
_PATIENCE = 900.0  # seconds without any sign of the others
_AGAIN = "run it again: processes whose record is there have nothing to do"


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """Where processes meet, as one of them sees it.

    Attributes:
        path: the folder.
        plan: the hash of what is asked.
        share: which process this is.
        failures: what it and the others leave when they fail.
    """

    path: Path
    plan: str
    share: Share
    failures: Failures

    @classmethod
    def join(cls, path: PathText, plan: str, share: Share) -> WorkFolder:
        """Make the folder, or go to the others that are there.

        Raises:
            OutputError: it holds something else, or records of another plan.
        """
        folder = Path(path)
        with said_plainly(folder):
            folder.mkdir(parents=True, exist_ok=True)
            own = folder / f"{_PREFIX}{plan}"
            names = os.listdir(folder)  # noqa: PTH208 (a network file system looks anew then)
            if names and not any(name.startswith(_PREFIX) for name in names):
                raise OutputError(
                    f"{folder} holds other files: processes meet in a folder of their own",
                    hint="--work with a new name",
                    path=folder,
                )
            is_new = not own.exists()
            own.touch()
            others = [name for name in os.listdir(folder) if name.startswith(_PREFIX) and name != own.name]  # noqa: PTH208
            if others:
                if is_new:
                    own.unlink(missing_ok=True)
                raise OutputError(
                    f"{folder} holds the records of another run: its inputs or options differ from those of this one",
                    hint=f"give all processes the same ones and another --work, or begin anew: "
                    f"rm -r {shell_quote(str(folder))}",
                    path=folder,
                )
            (folder / "alive").mkdir(exist_ok=True)
            return cls(folder, plan, share, Failures.begin(folder / "failed", share))

    @property
    def is_recorded(self) -> bool:
        """True if an earlier run of this process has left its record."""
        return self._record(self.share.number) is not None

    def record(self, results: Mapping[str, Any]) -> None:
        """Leave what this process found; all of it or nothing is there."""
        path = self._path(self.share.number)
        written = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        with said_plainly(path):
            try:
                with written.open("w") as file:
                    json.dump({"version": _VERSION, "plan": self.plan, "results": results}, file, default=_plain)
                    file.flush()
                    os.fsync(file.fileno())
                written.replace(path)
            finally:
                written.unlink(missing_ok=True)
            sync_folder(self.path)

    def missing(self) -> list[int]:
        """The processes whose record is not there, from 1 on."""
        os.listdir(self.path)  # noqa: PTH208 (a network file system looks anew then)
        return [number + 1 for number in range(self.share.count) if not self._path(number).is_file()]

    def records(self) -> Iterator[Mapping[str, Any]]:
        """What all processes found.

        Raises:
            OutputError: a record cannot be read.
        """
        for number in range(self.share.count):
            found = self._record(number)
            if found is None:
                path = self._path(number)
                raise OutputError(f"{path} is no record of this run", hint=f"rm {shell_quote(str(path))}", path=path)
            yield found

    def sign(self) -> None:
        """Show the others that this process works."""
        with suppress(OSError):
            (self.path / "alive" / f"{self.share.number}").touch()

    def check_others(self) -> None:
        """Raise an error if another process of this run has failed."""
        self.failures.check(self.path, _AGAIN)

    def wait(self) -> None:
        """Wait until all records are there.

        Raises:
            OutputError: another process has failed, or has shown no sign for a quarter of an hour.
        """
        seen, since, pause = self._signs(), time.monotonic(), _PAUSE
        while missing := self.missing():
            self.check_others()
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            now = self._signs()
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > _PATIENCE:
                numbers = ", ".join(map(str, missing))
                raise OutputError(
                    f"nothing was heard of process {numbers} of {self.share.count} for {_PATIENCE / 60:.0f} minutes",
                    hint=_AGAIN,
                    path=self.path,
                )

    @contextmanager
    def merging(self) -> Iterator[bool]:
        """Whether this process is the one that puts the records together; no other one is while it lasts."""
        descriptor = open_claimed(self.path / "merge")
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _path(self, number: int) -> Path:
        return self.path / f"{number + 1}-of-{self.share.count}.json"

    def _record(self, number: int) -> Mapping[str, Any] | None:
        """The results that one process has recorded; None without a record of this plan."""
        try:
            found = json.loads(self._path(number).read_bytes())
        except (OSError, ValueError):
            return None
        is_ours = isinstance(found, dict) and (found.get("version"), found.get("plan")) == (_VERSION, self.plan)
        results = found.get("results") if is_ours else None
        return results if isinstance(results, dict) else None

    def _signs(self) -> object:
        """Something that changes while others work."""
        found = []
        for number in range(self.share.count):
            for path in (self.path / "alive" / f"{number}", self._path(number)):
                with suppress(OSError):
                    found.append((path.name, path.stat().st_mtime_ns))
        return found


def _plain(value: Any) -> Any:
    """A number of numpy as one of Python."""
    return value.item()
