"""Which module reads each kind of file."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ckptool.core.bytes import ByteSource
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError
from ckptool.formats.sniff import Kind, sniff

READERS: dict[Kind, tuple[str, str]] = {
    "torch zip": ("torch.zip", "open_zip"),
    "torch legacy": ("torch.legacy", "open_legacy"),
    "safetensors": ("safetensors", "open_safetensors"),
    "index": ("sharded", "open_index"),
}
"""The module and function that reads each kind of file; imported when one comes."""


def open_file(source: ByteSource, select: str | None = None, *, indexes: bool = False) -> Checkpoint:
    """Open one file by what it is.

    Args:
        source: the file.
        select: as for `open_checkpoint`.
        indexes: True if it may be the index of a sharded checkpoint; a shard may not.
    """
    with source.open() as file:
        kind = sniff(file)
    if kind == "index" and not indexes:
        raise UnreadableError(f"{source.path} is an index of shards where a shard should be", path=source.path)
    module, function = READERS[kind]
    reader: Callable[[ByteSource, str | None], Checkpoint] = getattr(
        import_module(f"ckptool.formats.{module}"), function
    )
    return reader(source, select)
