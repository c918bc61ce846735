"""Reading that several processes share out: each looks at its share of the tensors, one puts the results together.

The work of a command on values comes in lists of whole tensors. `divide` says which of a list this process does, and
what is known already. So a command runs twice: once in each process, on its share, and once more where all records are,
with every result known. What is not in a record is computed there, so that the result never depends on the records.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ckptool.core.bytes import PathText
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.tensor import Tensor
from ckptool.core.version import VERSION
from ckptool.storage.launchers import Share

if TYPE_CHECKING:
    from ckptool.storage.work_folder import WorkFolder

_Result = TypeVar("_Result")
_SIGN = 5.0  # seconds between two signs of life


@dataclass(slots=True)
class Part:
    """A list of work, as far as this process is concerned.

    Attributes:
        todo: the places in the list that are to be done here.
        known: results by their place, as they were left.
    """

    todo: list[int]
    known: Mapping[int, Any] = field(default_factory=dict)
    _left: dict[str, Any] | None = None
    _sign: Callable[[], None] | None = None

    def leave(self, place: int, result: Any) -> None:
        """Record a result: numbers, texts, lists and mappings of them."""
        if self._left is not None:
            self._left[str(place)] = result
        self.show()

    def show(self) -> None:
        """Show the others that this process works, and end if one has failed."""
        if self._sign is not None:
            self._sign()


@dataclass(frozen=True, slots=True)
class Waiting:
    """Another process says what came of a command.

    Attributes:
        missing: the processes whose record is not there yet, from 1 on.
    """

    missing: list[int]


@dataclass(slots=True)
class Shared:
    """A command that several processes run together, in one of them.

    Attributes:
        share: which process this is.
        path: the folder in which they meet.
        folder: it, once it is known what is asked.
        results: what this process found, by the list of work.
        known: what all of them found; None until all records are there.
    """

    share: Share
    path: PathText
    folder: WorkFolder | None = None
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    known: dict[str, dict[str, Any]] | None = None
    is_recorded: bool = False
    signed: float = 0.0

    def agree(self, asked: Sequence[object], checkpoints: Iterable[Checkpoint]) -> None:
        if self.folder is not None:
            return
        from ckptool.engine.plan_hash import lasting_identity, texts_of
        from ckptool.storage.work_folder import WorkFolder

        digest = hashlib.sha256(f"{VERSION}\n".encode())
        for text in texts_of(asked):
            digest.update(f"{text}\n".encode("utf-8", "backslashreplace"))
        for checkpoint in checkpoints:
            for source in dict.fromkeys(checkpoint.sources):
                digest.update(f"{lasting_identity(source.identity)!r}\n".encode("utf-8", "backslashreplace"))
        self.folder = WorkFolder.join(self.path, digest.hexdigest()[:32], self.share)
        self.is_recorded = self.folder.is_recorded

    def divide(self, name: str, labels: Iterable[str], sizes: Iterable[int]) -> Part:
        from ckptool.engine.sharing import dealt

        digest = hashlib.sha256(f"{name}\n".encode())
        for label in labels:
            digest.update(f"{label}\n".encode("utf-8", "backslashreplace"))
        name = f"{name} {digest.hexdigest()[:32]}"
        by_place = {str(place): size for place, size in enumerate(sizes)}
        if self.known is not None:
            known = {int(place): result for place, result in self.known.get(name, {}).items()}
            return Part([place for place in range(len(by_place)) if place not in known], known)
        if self.is_recorded:
            return Part([])
        mine = sorted(map(int, dealt(by_place, self.share.count)[self.share.number]))
        return Part(mine, {}, self.results.setdefault(name, {}), self.sign)

    def sign(self) -> None:
        if self.folder is not None and time.monotonic() - self.signed > _SIGN:
            self.signed = time.monotonic()
            self.folder.sign()
            self.folder.check_others()


_RUNNING: list[Shared] = []


def agree(asked: Sequence[object], checkpoints: Iterable[Checkpoint]) -> None:
    """Say what is asked of which checkpoints, so that processes whose inputs or options differ refuse each other.

    Args:
        asked: everything that the results depend on, beside the files.
        checkpoints: what is read.

    Raises:
        OutputError: the records in the folder are of something else.
    """
    if _RUNNING:
        _RUNNING[-1].agree(asked, checkpoints)


def divide(name: str, labels: Iterable[str], sizes: Iterable[int]) -> Part:
    """Which places of a list of work are done here: all of them, unless several processes share it.

    Args:
        name: of this kind of work.
        labels: what tells this list from others of its kind, a text for each place.
        sizes: the bytes of each.
    """
    if not _RUNNING:
        return Part([place for place, _ in enumerate(sizes)])
    return _RUNNING[-1].divide(name, labels, sizes)


def is_share() -> bool:
    """True in a run whose results are recorded and not shown: those of other processes are not known in it."""
    return bool(_RUNNING) and _RUNNING[-1].known is None


def label(tensor: Tensor) -> str:
    """A tensor, for `divide`: its key and spec, and where it lies."""
    places = [(str(piece.storage.file.path), piece.storage.offset, piece.start) for piece in tensor.pieces[:1]]
    return f"{tensor.key!r} {tensor.dtype} {tensor.shape} {places}"


def in_shares(compute: Callable[[], _Result], share: Share | None, path: PathText | None) -> _Result | Waiting:
    """Run a command that reads values, together with the other processes that run it.

    Args:
        compute: the command; it calls `agree` once, and reads by what `divide` says.
        share: which process this is; None for one alone.
        path: the folder in which they meet.

    Returns:
        Its result, in the process that says it: the first one of a launcher, or the one that finds all records.
        In others, which records are still missing.

    Raises:
        OutputError: the folder cannot be used, another process has failed, or has asked for something else.
    """
    if share is None or path is None:
        return compute()
    shared = Shared(share, path)
    with _running(shared):
        try:
            compute()
            folder = shared.folder
            assert folder is not None  # `agree` made it
            if not shared.is_recorded:
                folder.record(shared.results)
            if not share.leads:
                return Waiting(folder.missing())
            if share.is_launched:
                folder.wait()
            if missing := folder.missing():
                return Waiting(missing)
            with folder.merging() as is_first:
                if not is_first and not share.is_launched:
                    return Waiting([])
                shared.known = {}
                for record in folder.records():
                    for name, results in record.items():
                        shared.known.setdefault(name, {}).update(results)
                return compute()
        except BaseException as error:
            if shared.folder is not None:
                shared.folder.failures.leave(error)
            raise


@contextmanager
def _running(shared: Shared) -> Iterator[None]:
    _RUNNING.append(shared)
    try:
        yield
    finally:
        _RUNNING.remove(shared)
