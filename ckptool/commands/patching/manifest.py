"""What a patch says of itself: what becomes of every key, and which base it is for."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError
from ckptool.core.patch import MANIFEST, PATCH_KEY
from ckptool.core.tensor import Tensor
from ckptool.engine.reading import Reader

VERSION = 1
_LARGEST = 256 << 20  # bytes of a manifest, unpacked
_ROOM = 1 << 16  # bytes, or values, that any manifest may have
_MOST_DEFLATED = 64  # bytes of text for each packed byte
_MOST_VALUES = 8  # values for each packed byte

How: TypeAlias = Literal["same", "delta", "whole", "tied"]


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor that comes out.

    Attributes:
        key: its key.
        how: "same" as a tensor of the base, perhaps under another key; that tensor changed by a "delta"; "whole" in the
            patch; "tied": one tensor with another key that comes out.
        source: the key of the base, or for "tied" the other key; "" for "whole".
        dtype: its long name.
        shape: of it.
        before: digest of the base's tensor; "" where there is none.
        after: digest of what comes out.
        nbytes: what it takes in the patch.
    """

    key: str
    how: How
    source: str
    dtype: str
    shape: tuple[int, ...]
    before: str = ""
    after: str = ""
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """All of it.

    Attributes:
        parts: in the order of the result.
        removed: keys of the base that do not come out.
        metadata: of the result.
        base_tensors: how many tensors the base has.
    """

    parts: tuple[Part, ...]
    removed: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    base_tensors: int = 0

    def count(self, how: How) -> int:
        return sum(part.how == how for part in self.parts)

    @property
    def renamed(self) -> int:
        return sum(part.how in ("same", "delta") and part.source != part.key for part in self.parts)

    @property
    def counts(self) -> dict[str, int]:
        """What the metadata of the patch says, so that headers alone tell it."""
        return {
            "version": VERSION,
            "base_tensors": self.base_tensors,
            "tensors": len(self.parts),
            "same": self.count("same"),
            "changed": self.count("delta"),
            "added": self.count("whole"),
            "removed": len(self.removed),
            "renamed": self.renamed,
        }

    def packed(self) -> bytes:
        """As it stands in the patch: deflated JSON."""
        fields = {"version": VERSION, **asdict(self)}
        return zlib.compress(json.dumps(fields, separators=(",", ":")).encode("ascii"), 6)


def read_manifest(patch: Checkpoint) -> Manifest:
    """The manifest of a patch.

    Raises:
        UnreadableError: it is no patch, is damaged, or is of another version.
    """
    path = patch.path
    if PATCH_KEY not in patch.metadata or MANIFEST not in patch:
        raise UnreadableError(
            f"{path} is not a patch that ckptool extract made",
            hint="make one: ckptool extract BASE TUNED -o PATCH.safetensors",
            path=path,
        )
    size = patch[MANIFEST].nbytes
    try:
        if size > _LARGEST:
            raise ValueError("it is too long")
        with Reader() as reader:
            packed = reader.read_bytes(patch[MANIFEST])
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(packed, min(_LARGEST, _ROOM + _MOST_DEFLATED * size))
        if unpacker.unconsumed_tail or sum(map(text.count, b",[{")) > _ROOM + _MOST_VALUES * size:
            raise ValueError("it is too long")  # a few bytes would take much memory
        fields = json.loads(text)
        if fields.pop("version") != VERSION:
            raise UnreadableError(f"{path} is a patch of a later version", hint="update ckptool", path=path)
        return Manifest(
            tuple(_part(each) for each in fields["parts"]),
            tuple(map(str, fields["removed"])),
            {str(name): str(text) for name, text in fields["metadata"].items()},
            int(fields["base_tensors"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error, RecursionError):
        raise UnreadableError(
            f"{path} is damaged: its manifest cannot be read", hint="get it again", path=path
        ) from None


def _part(fields: Mapping[str, Any]) -> Part:
    how = fields["how"]
    shape = tuple(fields["shape"])
    texts = [fields[name] for name in ("key", "source", "dtype", "before", "after")]
    if how not in ("same", "delta", "whole", "tied") or not all(isinstance(text, str) for text in texts):
        raise ValueError(how)
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(shape)
    key, source, dtype, before, after = texts
    return Part(key, how, source, dtype, shape, before, after, int(fields["nbytes"]))


class Digest:
    """The digest of a tensor: the first 128 bits of the SHA-256 of dtype, shape, and packed bytes."""

    def __init__(self, dtype: str, shape: Sequence[int]) -> None:
        self._hash = hashlib.sha256(f"{dtype}{list(shape)}".encode())

    def update(self, block: memoryview | bytes) -> None:
        self._hash.update(block)

    @property
    def text(self) -> str:
        return self._hash.hexdigest()[:32]


def digest_of(tensor: Tensor, reader: Reader) -> str:
    """The digest of a tensor, read from front to back."""
    digest = Digest(tensor.dtype, tensor.shape)
    for block in reader.blocks(tensor):
        digest.update(block)
    return digest.text
