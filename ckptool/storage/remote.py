"""Files that are read by ranges, wherever they are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from ckptool.core.address import Address
from ckptool.core.bytes import Advance, Cost, Folder
from ckptool.core.errors import UnreadableError
from ckptool.storage.blocks import Blocks


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of which every range comes from the version that was located; a `ckptool.core.bytes.ByteSource`.

    Attributes:
        path: its address.
        identity: its version: a commit, an ETag.
        size: its bytes.
        folder: what holds it.
        blocks: what has been read of it.
    """

    path: Address
    identity: Hashable
    size: int
    folder: Folder = field(compare=False, repr=False)
    blocks: Blocks = field(compare=False, repr=False)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def reads_cheaply(self) -> bool:
        return False

    @property
    def name(self) -> str:
        return self.path.name

    def open(self) -> OpenRemote:
        return OpenRemote(self)

    def check(self) -> None:
        """Nothing is left to check: every answer was compared with the first one."""

    def cost(self, ranges: Sequence[tuple[int, int]]) -> Cost:
        found = self.blocks.planned((offset, offset + nbytes) for offset, nbytes in ranges)
        return Cost(len(found), sum(segment.stop - segment.start for segment in found))

    def will_read(self, ranges: Sequence[tuple[int, int]]) -> None:
        self.blocks.announce((offset, offset + nbytes) for offset, nbytes in ranges)


class OpenRemote:
    """An open far file; a `ckptool.core.bytes.OpenBytes`. Opening it asks nothing."""

    __slots__ = ("source",)

    reads_cheaply = False

    def __init__(self, source: RemoteFile) -> None:
        self.source = source

    @property
    def path(self) -> Address:
        return self.source.path

    @property
    def size(self) -> int:
        return self.source.size

    def read(self, offset: int, nbytes: int) -> bytes:
        self._require(offset, nbytes)
        return self.source.blocks.read(offset, nbytes)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._require(offset, len(buffer))
        self.source.blocks.read_into(offset, buffer)

    def expect(self, offset: int, nbytes: int) -> None:
        self._require(offset, nbytes)
        self.source.blocks.fetch_head(offset, offset + nbytes)

    def check_first(self, offset: int, nbytes: int, until: int, check: Callable[[bytes], None]) -> None:
        self._require(offset, nbytes)
        self.source.blocks.check_first(offset, nbytes, until, check)

    def copy_to(self, descriptor: int, offset: int, at: int, nbytes: int, advance: Advance) -> int:
        return 0

    def close(self) -> None:
        pass  # the connections belong to the session

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def _require(self, offset: int, nbytes: int) -> None:
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise UnreadableError(
                f"{self.path} ends early: {offset + nbytes:,} bytes are needed, the file has {self.size:,}",
                path=self.path,
                hint="it is cut off where it is stored",
            )
