"""An output file that is being written, under the hidden name of its stage."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ckptool.core.bytes import Advance, OpenBytes
from ckptool.storage.copying import copy_range
from ckptool.storage.system import resize, start_storing, write_all

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@dataclass(slots=True)
class ByteSink:
    """An open output file; any thread may write any part of it.

    Attributes:
        path: where it is now.
        descriptor: open for reading and writing; -1 once it is closed.
    """

    path: Path
    descriptor: int

    @classmethod
    def create(cls, path: Path, mode: int | None = None) -> ByteSink:
        """A new, empty file.

        Args:
            path: nothing may be there.
            mode: permissions that it has from its first moment; None for what the umask leaves.

        Raises:
            OSError: as the system says.
        """
        sink = cls(path, os.open(path, _FLAGS, 0o666 if mode is None else mode))
        try:
            if mode is not None:
                set_mode(path, mode, sink.descriptor)
        except BaseException:
            sink.close()
            path.unlink()
            raise
        return sink

    def resize(self, nbytes: int) -> None:
        """Give it its length."""
        resize(self.descriptor, nbytes)

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write all of some bytes at an offset."""
        write_all(self.descriptor, data, offset)
        start_storing(self.descriptor, offset, len(data))

    def copy_from(
        self,
        source: OpenBytes,
        offset: int,
        at: int,
        nbytes: int,
        advance: Advance,
        see: Callable[[memoryview], None] | None = None,
    ) -> None:
        """Copy bytes of an open source; see `ckptool.storage.copying.copy_range`."""
        copy_range(source, offset, self.descriptor, at, nbytes, advance, see)

    def flush(self) -> None:
        """Have everything on the disk."""
        os.fsync(self.descriptor)

    def close(self) -> None:
        """Close it; once is enough."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def set_mode(path: Path, mode: int, descriptor: int | None = None) -> None:
    """Give a file or folder exactly these permissions, by its descriptor where the system can."""
    if descriptor is not None and hasattr(os, "fchmod"):
        os.fchmod(descriptor, mode)
    else:
        path.chmod(mode)
