"""One rank's torch file: its objects, and look-ups in them that follow from its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptool.core.bytes import ByteSource, Folder
from ckptool.core.errors import CkptError, MissingError, UnreadableError
from ckptool.core.tensor import Tensor
from ckptool.formats.pickle.objects import Call, Dict, Global
from ckptool.formats.torch.storage import named_dtype
from ckptool.formats.torch.tensor import is_tensor, tensor_of
from ckptool.formats.torch.view import ints_of
from ckptool.formats.torch.walk import Walk

if TYPE_CHECKING:
    from ckptool.formats.torch.zip import Archive


@dataclass(frozen=True, slots=True)
class RankFile:
    """A torch file of one rank.

    Attributes:
        who: the rank in words, "rank 1 of 2".
        source: the file.
        archive: its directory and its objects.
        walk: looks into the objects, within the budget of the file's size.
    """

    who: str
    source: ByteSource
    archive: Archive
    walk: Walk

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def root(self) -> object:
        """The object in the file."""
        return self.archive.loaded.value

    def entries(self, node: object) -> dict[str, object]:
        """The entries of a dict that have a text as key; none if it is no dict."""
        return {key: value for key, value in self.walk.pairs(node) if type(key) is str}

    def state(self, node: object) -> dict[str, object]:
        """The attributes of an object; none for anything else."""
        if type(node) is not Call or is_tensor(node):
            return {}
        return {key: value for key, value in self.walk.attributes(node) if type(key) is str}

    def tensor(self, node: object, key: str) -> Tensor | None:
        """The plain tensor that an object is; None for anything else."""
        tensor = tensor_of(node, self.archive.storage_of, key)
        return tensor if tensor is not None and tensor.layout == "strided" and not (tensor.conj or tensor.neg) else None

    def shape(self, node: object, key: str) -> tuple[int, ...]:
        """The shape that an object states."""
        self.walk.pay(1)
        return ints_of(node, key)

    def dtype(self, node: object) -> str | None:
        """The dtype that an object names."""
        return named_dtype(node)

    def bad(self, what: str, key: str | None = None, hint: str | None = None) -> UnreadableError:
        """An error about this file."""
        return UnreadableError(f"{self.who}: {self.source.path} {what}", hint=hint, path=self.source.path, key=key)


def read_rank(source: ByteSource, who: str) -> RankFile:
    """Read the objects of one rank's torch file.

    Raises:
        UnreadableError: it is damaged, cut short, or no torch file; the message names the rank.
    """
    from ckptool.formats.torch.zip import read_embedded

    try:
        archive = read_embedded(source, 0, source.size)
    except CkptError as error:
        raise UnreadableError(
            f"{who}: {error.message}", hint=error.hint or "copy it again", path=error.path or source.path, key=error.key
        ) from error
    return RankFile(who, source, archive, Walk(archive.pickle_nbytes))


def opened(folder: Folder, name: str) -> ByteSource | None:
    """A file of a folder; None if it is not there."""
    try:
        return folder.open(name)
    except MissingError:
        return None


def class_of(node: object) -> str:
    """The name of the class or function that an object was made with; empty for plain data."""
    if type(node) is Call and type(node.fn) is Global:
        return node.fn.name
    return ""


def plain(node: object) -> Mapping[object, object]:
    """A dict of plain keys as a dict; empty for anything else."""
    items = node.items if type(node) is Dict or type(node) is Call else []
    return {key: value for key, value in items if type(key) in (str, int)}
