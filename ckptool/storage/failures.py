"""Processes that do one job leave word of their failures, so that those who wait for them end too, and say why."""

from __future__ import annotations

import json
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptool.core.errors import CkptError, OutputError
from ckptool.storage.launchers import Share

_SKEW = 30.0  # seconds that clocks of machines may be apart
_SETTLE = 1.0  # seconds after which a failure of an earlier run has been removed by the process that it is of


@dataclass(frozen=True, slots=True)
class Failures:
    """The folder in which failures are left, as one process sees it.

    Attributes:
        folder: where.
        share: which process this is.
        started: when it began, as the file system's clock says.
    """

    folder: Path
    share: Share
    started: float

    @classmethod
    def begin(cls, folder: Path, share: Share) -> Failures:
        """Make the folder, and remove what an earlier run of this process has left there."""
        folder.mkdir(exist_ok=True)
        marker = folder / f"{secrets.token_hex(8)}.now"
        marker.touch()
        found = cls(folder, share, marker.stat().st_mtime)
        marker.unlink()
        with suppress(FileNotFoundError):
            found._path(share.number).unlink()
        return found

    def leave(self, error: BaseException) -> None:
        """Leave word that this process has failed, and why; not of one that was ended, as launchers do with others."""
        if isinstance(error, SystemExit | KeyboardInterrupt):
            return
        said = error.message if isinstance(error, CkptError) else str(error) or type(error).__name__
        hint = error.hint if isinstance(error, CkptError) else None
        text = json.dumps({"run": self.share.run, "host": socket.gethostname(), "message": said, "hint": hint})
        with suppress(OSError):
            self._path(self.share.number).write_text(text)

    def check(self, target: Path, hint: str) -> None:
        """Raise an error if another process of this run has failed. Parts that no launcher started go on without it.

        Args:
            target: what they work on.
            hint: what to do where the failed one had no hint.
        """
        found = self._found() if self.share.is_launched else None
        if found is not None:
            time.sleep(_SETTLE)
            if self._found() == found:
                number, said = found
                raise OutputError(
                    f"process {number + 1} of {self.share.count} on {said['host']} has failed: {said['message']}",
                    hint=said.get("hint") or hint,
                    path=target,
                )

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.json"

    def _found(self) -> tuple[int, dict[str, Any]] | None:
        """A failure of this run: the number of the process, and what it said."""
        for number in range(self.share.count):
            try:
                path = self._path(number)
                if number == self.share.number or path.stat().st_mtime < self.started - _SKEW:
                    continue
                said = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if isinstance(said, dict) and said.get("run") == self.share.run and "message" in said:
                return number, said
        return None
