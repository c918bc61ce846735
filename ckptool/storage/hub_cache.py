"""The hub's cache on this machine, which is only read: what is in it whole is never asked for again.

models--OWNER--NAME/refs/REVISION          the commit, as text
models--OWNER--NAME/snapshots/COMMIT/PATH  a link to ../../blobs/ETAG, which may be a link itself
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ckptool.core.address import Address
from ckptool.core.bytes import Cost, Folder
from ckptool.core.errors import CkptError
from ckptool.storage.hub_address import HubPlace, is_plain
from ckptool.storage.local import Identity, LocalFile, OpenFile

_UNFINISHED = ".incomplete"


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file of the hub that lies in the cache; a `ckptool.core.bytes.ByteSource`.

    Attributes:
        path: its address.
        local: where it lies.
        folder: what holds it at the hub.
    """

    path: Address
    local: LocalFile
    folder: Folder

    def __fspath__(self) -> str:
        return str(self.local.path)

    @property
    def reads_cheaply(self) -> bool:
        return True

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def size(self) -> int:
        return self.local.size

    @property
    def identity(self) -> Identity:
        return self.local.identity

    def open(self) -> OpenFile:
        return self.local.open()

    def check(self) -> None:
        self.local.check()

    def cost(self, ranges: object) -> Cost:
        return Cost()

    def will_read(self, ranges: object) -> None:
        """Nothing: the system reads ahead by itself."""


@dataclass(frozen=True, slots=True)
class HubCache:
    """What the cache has of one repository.

    Attributes:
        root: the repository's folder in the cache.
    """

    root: Path

    @classmethod
    def of(cls, cache: Path, place: HubPlace) -> HubCache:
        """The part of the cache for a repository.

        Example:
            >>> HubCache.of(Path("hub"), HubPlace("datasets", "org/name", "main")).root.as_posix()
            'hub/datasets--org--name'
        """
        return cls(cache / f"{place.kind}--{place.id.replace('/', '--')}")

    def commit(self, revision: str) -> str | None:
        """The commit that a branch was at when it was last asked for; None if it never was."""
        if not is_plain(revision):
            return None
        try:
            text = (self.root / "refs" / revision).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        return text if re.fullmatch(r"[0-9a-f]{40}", text) else None

    def file(self, commit: str, path: str) -> LocalFile | None:
        """A file of a commit, if all of it is here."""
        if not is_plain(path) or path.endswith(_UNFINISHED):
            return None
        try:
            found = LocalFile.at(self.root / "snapshots" / commit / path)
        except CkptError:  # not there, or a link to nothing
            return None
        return None if found.path.resolve().name.endswith(_UNFINISHED) else found

    def has_folder(self, commit: str, path: str) -> bool:
        """True if the cache has a folder of a commit."""
        return (self.root / "snapshots" / commit / path).is_dir()

    def sizes(self, commit: str) -> Mapping[str, int]:
        """The files of a commit that are here, and their sizes."""
        return dict(self._files(commit))

    def _files(self, commit: str) -> Iterator[tuple[str, int]]:
        top = self.root / "snapshots" / commit
        for here, _, names in _walk(top):
            for name in sorted(names):
                path = (here / name).relative_to(top).as_posix()
                found = self.file(commit, path)
                if found is not None:
                    yield path, found.size


def _walk(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    import os

    for here, folders, names in os.walk(top):
        yield Path(here), folders, names
