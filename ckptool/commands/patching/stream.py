"""A safetensors file written from front to back: what it holds is known only as it comes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Protocol

from ckptool.core.errors import OutputError, UsageError
from ckptool.core.spec import TensorSpec
from ckptool.formats.safetensors_header import to_header

_HEADER_LIMIT = 100_000_000


class Sink(Protocol):
    """Takes bytes at offsets; a `ckptool.storage.sink.ByteSink`."""

    def write(self, data: bytes | memoryview, offset: int) -> None: ...


class StreamWriter:
    """Lays the file out as it comes: the data behind room for the header, which is written last.

    Args:
        sink: takes the bytes; None only measures.
        specs: tensors with keys and shapes as long as those that come.
    """

    def __init__(self, sink: Sink | None, specs: Iterable[TensorSpec]) -> None:
        self.sink = sink
        self.head = _head_limit(specs)
        self.header: dict[str, object] = {}
        self.start = self.at = self.head
        self.length = 0

    def begin(self, room: int = 0) -> None:
        """A tensor, with room for what is known at its end."""
        self.start = self.at
        self.at += room

    def add(self, data: bytes | memoryview) -> None:
        if self.sink is not None:
            self.sink.write(data, self.at)
        self.at += len(data)
        self.length = self.at - self.start

    def put(self, data: bytes) -> None:
        """What goes into the room."""
        if self.sink is not None:
            self.sink.write(data, self.start)
        self.length = self.at - self.start

    def forget(self) -> None:
        """The tensor is not needed: what follows takes its place."""
        self.at = self.start

    def end(self, key: str, dtype: str, shape: tuple[int, ...]) -> int:
        """The tensor has all its bytes, as many as this gives."""
        named = to_header(dtype, shape)
        if named is None:
            raise UsageError(f"{key} is {dtype}, which a safetensors file cannot hold", key=key)
        place = [self.start - self.head, self.at - self.head]
        self.header[key] = {"dtype": named[0], "shape": named[1], "data_offsets": place}
        return self.at - self.start

    def finish(self, metadata: Mapping[str, str]) -> int:
        """Write the header; the size of the file."""
        try:
            text = json.dumps(
                {"__metadata__": dict(metadata), **self.header}, ensure_ascii=False, separators=(",", ":")
            ).encode("utf-8")
        except UnicodeEncodeError as error:
            raise OutputError(
                f"a key has a character that UTF-8 cannot hold: {error.object[error.start]}",
                hint="rename it with ckptool remap",
            ) from None
        if self.sink is not None:
            self.sink.write(struct.pack("<Q", self.head - 8) + text.ljust(self.head - 8), 0)
        return self.at


def _head_limit(specs: Iterable[TensorSpec]) -> int:
    """Most bytes that the header can take: with every offset as long as it may be."""
    count, limit = 0, 1024 + 256
    for spec in specs:
        text = json.dumps(spec.key, ensure_ascii=False).encode("utf-8", "replace")
        limit += len(text) + 21 * len(spec.shape) + 128
        count += 1
    if limit > _HEADER_LIMIT:
        raise OutputError(f"{count:,} tensors are too many for one file: its header would be over 100 MB")
    return -(-limit // 64) * 64
