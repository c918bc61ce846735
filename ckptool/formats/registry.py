"""Every container of checkpoints: what it is called, how it is known, which module reads it.

A container is one entry of `CONTAINERS`; one that is a whole folder, of `FOLDERS`. Nothing else in ckptool lists
containers or their endings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ckptool.core.bytes import ByteSource, Entry, Folder, OpenBytes
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError
from ckptool.core.format import Format
from ckptool.formats.sniff import (
    HEAD,
    PART_OF_DISTRIBUTED,
    begins,
    is_distributed,
    is_index,
    is_legacy,
    is_npz,
    is_numpy_pickle,
    is_pt2,
    is_safetensors,
    is_torch_zip,
    what_else,
)
from ckptool.formats.writer import Writer

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
        is_general: it holds other things than checkpoints as often; in a folder, other containers come first.
        writer: what writes it; None where nothing does.
    """

    name: str
    sniff: Callable[[bytes, OpenBytes], bool]
    open: Opener
    suffixes: tuple[str, ...] = ()
    vague: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    is_pickle: bool = False
    is_general: bool = False
    writer: Writer | None = None


@dataclass(frozen=True, slots=True)
class FolderContainer:
    """A kind of folder that is one checkpoint as a whole: its files mean nothing alone.

    Attributes:
        name: as reports call it.
        claims: given a folder and what is in it, whether it is of this kind.
        open: reads the headers; the second argument names the dict of tensors to take.
        suffixes: endings of its files, which no other checkpoint has.
    """

    name: str
    claims: Callable[[Folder, Sequence[Entry]], bool]
    open: Callable[[Folder, str | None], Checkpoint]
    suffixes: tuple[str, ...] = ()


def late(module: str, function: str) -> Callable[..., Any]:
    """The function of a module that is imported when it is called."""

    def call(*arguments: object) -> Any:
        return getattr(import_module(f"ckptool.formats.{module}"), function)(*arguments)

    return call


_UNHELD = late("safetensors_output", "unheld")


CONTAINERS: list[Container] = [
    Container(
        "safetensors",
        is_safetensors,
        late("safetensors", "open_safetensors"),
        (".safetensors",),
        writer=Writer(
            "safetensors",
            late("safetensors_output", "file_output"),
            _UNHELD,
            loading=late("safetensors_output", "file_loading"),
            keeps_metadata=True,
        ),
    ),
    Container("torch.export", is_pt2, late("pt2", "open_pt2"), (".pt2",)),
    Container(
        "torch zip",
        is_torch_zip,
        late("torch.zip", "open_zip"),
        (".pth", ".pt", ".ckpt"),
        (".bin",),
        ("pytorch_model*.bin", "adapter_model*.bin"),
        is_pickle=True,
        writer=Writer(
            "torch",
            late("torch.output", "torch_output"),
            refusal=late("torch.output", "torch_refusal"),
            loading=late("torch.output", "torch_loading"),
            keeps_objects=True,
        ),
    ),
    Container("torch legacy", is_legacy, late("torch.legacy", "open_legacy"), is_pickle=True),
    Container("GGUF", begins(b"GGUF"), late("gguf", "open_gguf"), (".gguf",)),
    Container("numpy .npz", is_npz, late("numpy_array", "open_npz"), (".npz",), is_general=True),
    Container("numpy .npy", begins(b"\x93NUMPY"), late("numpy_array", "open_npy"), (".npy",), is_general=True),
    Container(
        "numpy pickle",
        is_numpy_pickle,
        late("numpy_pickle", "open_numpy_pickle"),
        (".pdparams",),
        is_pickle=True,
        is_general=True,
    ),
]
"""What is known, in the order in which a folder's files are preferred."""

INDEX = Container("index", is_index, late("sharded", "open_index"))
"""Which shard holds which key: a checkpoint to a user, never a shard."""

FOLDERS: list[FolderContainer] = [
    FolderContainer("torch.distributed", is_distributed, late("dcp", "open_dcp"), (PART_OF_DISTRIBUTED,)),
]
"""Kinds of folders, in the order in which they are asked. Folders of files and shards are in `formats.folder`."""

FOLDER = Writer(
    "folder",
    late("safetensors_output", "folder_output"),
    _UNHELD,
    loading=late("safetensors_output", "folder_loading"),
    files="safetensors",
    is_folder=True,
    keeps_metadata=True,
)
"""What writes a folder of shards with their index."""

INDEX_ENDING = ".index.json"


def endings() -> tuple[str, ...]:
    """Every ending that checkpoints have, vague ones last.

    Example:
        >>> endings()
        ('.safetensors', '.pt2', '.pth', '.pt', '.ckpt', '.gguf', '.npz', '.npy', '.pdparams', '.bin')
    """
    clear = (suffix for container in CONTAINERS for suffix in container.suffixes)
    return tuple(dict.fromkeys((*clear, *vague_endings())))


def read_endings() -> tuple[str, ...]:
    """The endings of all files that may be read for a checkpoint: indexes and the files of folders, too.

    Example:
        >>> read_endings()[-2:]
        ('.distcp', '.index.json')
    """
    return (*endings(), *(suffix for each in FOLDERS for suffix in each.suffixes), INDEX_ENDING)


def folder_container(folder: Folder, entries: Sequence[Entry]) -> FolderContainer | None:
    """The kind of a folder that is one checkpoint as a whole; None for any other folder."""
    return next((each for each in FOLDERS if each.claims(folder, entries)), None)


def vague_endings() -> tuple[str, ...]:
    """The endings that say nothing by themselves."""
    return tuple(dict.fromkeys(suffix for container in CONTAINERS for suffix in container.vague))


def name_patterns() -> tuple[str, ...]:
    """Globs of the names of checkpoints.

    Example:
        >>> name_patterns()[:2]
        ('*.safetensors', '*.pt2')
    """
    found = ((*(f"*{suffix}" for suffix in each.suffixes), *each.names) for each in CONTAINERS)
    return tuple(dict.fromkeys(pattern for patterns in found for pattern in patterns))


def writers() -> dict[str, Writer]:
    """Everything that writes, by the name that `--to` and plans have for it.

    Example:
        >>> list(writers())
        ['safetensors', 'torch', 'folder']
    """
    return {writer.name: writer for writer in (*(each.writer for each in CONTAINERS), FOLDER) if writer is not None}


def writer_like(found: Format) -> Writer | None:
    """What writes files of the format that an input has; None if nothing does."""
    return next((each.writer for each in CONTAINERS if each.name == found.name), None)


def writer_endings() -> dict[str, str]:
    """The endings that say what a file is, and the name of what writes such files; vague ones are left out.

    Example:
        >>> ".bin" in writer_endings(), writer_endings()[".pt"]
        (False, 'torch')
    """
    return {suffix: each.writer.name for each in CONTAINERS if each.writer for suffix in each.suffixes}


def written_endings() -> dict[str, str]:
    """The endings of files that are written, vague ones too, and the name of what writes them.

    Example:
        >>> written_endings()[".ckpt"]
        'torch'
    """
    written = ((each, each.writer) for each in CONTAINERS if each.writer is not None)
    return {suffix: writer.name for each, writer in written for suffix in (*each.suffixes, *each.vague)}


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
