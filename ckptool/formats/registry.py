"""Every container of checkpoints: what it is called, how it is known, which module reads it.

A container is one entry of `CONTAINERS`. Nothing else in ckptool lists containers or their endings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from ckptool.core.bytes import ByteSource, OpenBytes
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError
from ckptool.formats.sniff import HEAD, is_index, is_legacy, is_safetensors, is_zip, what_else

Writer = Literal["torch", "safetensors"]
Opener = Callable[[ByteSource, str | None], Checkpoint]


@dataclass(frozen=True, slots=True)
class Container:
    """A kind of file that holds a checkpoint or a shard of one.

    Attributes:
        name: as reports call it.
        sniff: given a file's first bytes and the file, whether it is of this kind. Names are never asked.
        open: reads the headers; the second argument names the dict of tensors to take.
        suffixes: endings that say that a file is a checkpoint.
        vague: endings that such files often have, and many other files too.
        names: globs of file names with vague endings that say it all the same.
        is_pickle: loading it elsewhere runs a pickle.
        writer: what writes it, by the name that plans have for it; "" where nothing does.
    """

    name: str
    sniff: Callable[[bytes, OpenBytes], bool]
    open: Opener
    suffixes: tuple[str, ...] = ()
    vague: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    is_pickle: bool = False
    writer: Writer | Literal[""] = ""


def _late(module: str, function: str) -> Opener:
    """The function of a module that is imported when a file comes for it."""

    def opener(source: ByteSource, select: str | None) -> Checkpoint:
        read: Opener = getattr(import_module(f"ckptool.formats.{module}"), function)
        return read(source, select)

    return opener


CONTAINERS: list[Container] = [
    Container(
        "safetensors",
        is_safetensors,
        _late("safetensors", "open_safetensors"),
        (".safetensors",),
        writer="safetensors",
    ),
    Container(
        "torch zip",
        is_zip,
        _late("torch.zip", "open_zip"),
        (".pth", ".pt", ".ckpt"),
        (".bin",),
        ("pytorch_model*.bin", "adapter_model*.bin"),
        is_pickle=True,
        writer="torch",
    ),
    Container("torch legacy", is_legacy, _late("torch.legacy", "open_legacy"), is_pickle=True),
]
"""What is known, in the order in which a folder's files are preferred."""

INDEX = Container("index", is_index, _late("sharded", "open_index"))
"""Which shard holds which key: a checkpoint to a user, never a shard."""

INDEX_ENDING = ".index.json"


def endings() -> tuple[str, ...]:
    """Every ending that checkpoints have, vague ones last.

    Example:
        >>> endings()
        ('.safetensors', '.pth', '.pt', '.ckpt', '.bin')
    """
    clear = (suffix for container in CONTAINERS for suffix in container.suffixes)
    return tuple(dict.fromkeys((*clear, *vague_endings())))


def vague_endings() -> tuple[str, ...]:
    """The endings that say nothing by themselves."""
    return tuple(dict.fromkeys(suffix for container in CONTAINERS for suffix in container.vague))


def name_patterns() -> tuple[str, ...]:
    """Globs of the names of checkpoints.

    Example:
        >>> name_patterns()[:2]
        ('*.safetensors', '*.pth')
    """
    found = ((*(f"*{suffix}" for suffix in each.suffixes), *each.names) for each in CONTAINERS)
    return tuple(dict.fromkeys(pattern for patterns in found for pattern in patterns))


def written_endings() -> dict[str, Writer]:
    """The endings of files that are written, and what writes them.

    Example:
        >>> written_endings()[".ckpt"]
        'torch'
    """
    return {suffix: each.writer for each in CONTAINERS if each.writer for suffix in (*each.suffixes, *each.vague)}


def is_safe_name(name: str) -> bool:
    """True if a file's name says that it is of a container without a pickle, or an index of such files."""
    own = name.removesuffix(INDEX_ENDING)
    return any(own.endswith(suffix) for each in CONTAINERS if not each.is_pickle for suffix in each.suffixes)


def sniff(file: OpenBytes) -> Container:
    """The container that a file is, by its content.

    Raises:
        UnreadableError: it is not a checkpoint; the message says what it is.
    """
    head = file.read(0, min(HEAD, file.size))
    for container in (*CONTAINERS, INDEX):
        if container.sniff(head, file):
            return container
    raise what_else(head, file)


def open_file(source: ByteSource, select: str | None = None, *, indexes: bool = False) -> Checkpoint:
    """Open one file by what it is.

    Args:
        source: the file.
        select: as for `open_checkpoint`.
        indexes: True if it may be the index of a sharded checkpoint; a shard may not.
    """
    with source.open() as file:
        container = sniff(file)
    if container is INDEX and not indexes:
        raise UnreadableError(f"{source.path} is an index of shards where a shard should be", path=source.path)
    return container.open(source, select)
