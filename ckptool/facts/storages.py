"""Tensors that share bytes: ties, overlaps, and small views of large storages."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.counts import many
from ckptool.core.facts import Fact
from ckptool.core.spec import packed_nbytes
from ckptool.core.tensor import Tensor
from ckptool.facts.headers import Headers, amount
from ckptool.facts.registry import finder

_WORTH_SAYING = 1 << 20  # bytes
_MUCH = 0.3


@dataclass(frozen=True, slots=True)
class LargeStorage(Fact):
    """A small view that made torch.save write a large storage; sizes in bytes."""

    used: int = 0
    stored: int = 0

    name = "large-storage"
    level = "warning"
    rank = 4

    @property
    def text(self) -> str:
        return (
            f"{self.keys[0]} is a view of {amount(self.used)} that keeps a storage of {amount(self.stored)} in the file"
        )

    @property
    def remedy(self) -> str:
        return "write only what is used: ckptool filter {file} -o SMALL.safetensors"


@dataclass(frozen=True, slots=True)
class Overlapping(Fact):
    """Tensors that overlap without being the same: a write to one changes a part of the other."""

    name = "overlapping"
    rank = 5

    @property
    def text(self) -> str:
        return f"{many(len(self.keys), 'tensor')} overlap in memory without being the same: {', '.join(self.keys[:4])}"

    @property
    def hint(self) -> str:
        return "a torch file keeps that; safetensors cannot, there each becomes a copy"


def ties(checkpoint: Checkpoint) -> tuple[tuple[str, ...], ...]:
    """Groups of keys that are one tensor: the same elements of the same storage, in the same shape and dtype.

    Example:
        >>> from pathlib import Path
        >>> from ckptool.core.tensor import Piece, Storage
        >>> from ckptool.core.spec import TensorSpec
        >>> piece = Piece(Storage(Path("a.pth"), 64, 16), 0, (4,))
        >>> tensors = {key: Tensor(TensorSpec(key, "float32", (4,)), (piece,)) for key in ("embed", "lm_head")}
        >>> ties(Checkpoint(Path("a.pth"), "torch zip", tensors))
        (('embed', 'lm_head'),)
    """
    found: list[tuple[str, ...]] = []
    for group in _sharing(checkpoint):
        same: dict[object, list[str]] = defaultdict(list)
        for tensor in group:
            same[tensor.pieces, tensor.dtype, tensor.conj, tensor.neg].append(tensor.key)
        found += (tuple(keys) for keys in same.values() if len(keys) > 1)
    return (*found, *_tied_in_pieces(checkpoint))


def _tied_in_pieces(checkpoint: Checkpoint) -> Iterator[tuple[str, ...]]:
    """Groups of keys that are one tensor which several pieces make up."""
    if checkpoint.columns is not None:
        return
    alike: dict[object, list[Tensor]] = defaultdict(list)
    for tensor in checkpoint.tensors.values():
        if len(tensor.pieces) > 1:
            first = tensor.pieces[0]
            alike[len(tensor.pieces), first.storage.offset, first.start, tensor.dtype].append(tensor)
    for group in alike.values():
        same: dict[object, list[str]] = defaultdict(list)
        for tensor in group if len(group) > 1 else ():
            same[tensor.pieces, tensor.shape].append(tensor.key)
        yield from (tuple(keys) for keys in same.values() if len(keys) > 1)


def _sharing(checkpoint: Checkpoint) -> Iterator[list[Tensor]]:
    """The tensors of each storage that has more than one."""
    if checkpoint.columns is not None:
        return
    first: dict[int, Tensor] = {}
    again: dict[int, list[Tensor]] = {}
    for tensor in checkpoint.tensors.values():
        if len(tensor.pieces) == 1:
            offset = tensor.pieces[0].storage.offset
            if (other := first.setdefault(offset, tensor)) is not tensor:
                again.setdefault(offset, [other]).append(tensor)
    for group in again.values():  # files are compared only here: hashing every path would cost more than all the rest
        by_storage: dict[object, list[Tensor]] = defaultdict(list)
        for tensor in group:
            if tensor.storage and tensor.elements:
                by_storage[tensor.storage].append(tensor)
        yield from (sharers for sharers in by_storage.values() if len(sharers) > 1)


@finder
def find_large(headers: Headers) -> Iterator[LargeStorage]:
    if headers.checkpoint.columns is not None:
        return
    used: Counter[int] = Counter()
    views: dict[int, Tensor] = {}
    for tensor in headers.checkpoint.tensors.values():
        storage = tensor.pieces[0].storage if len(tensor.pieces) == 1 else None
        if storage is not None and storage.nbytes >= _WORTH_SAYING:
            used[storage.offset] += tensor.spec.nbytes
            views.setdefault(storage.offset, tensor)
    for offset, tensor in views.items():
        stored = tensor.storage.nbytes if tensor.storage else 0
        if used[offset] < stored * _MUCH:
            yield LargeStorage((tensor.key,), used[offset], stored)


@finder
def find_overlapping(headers: Headers) -> Iterator[Overlapping]:
    keys: list[str] = []
    for group in _sharing(headers.checkpoint):
        spans = sorted({(*_span(tensor), tensor.pieces, tensor.dtype) for tensor in group}, key=lambda span: span[:2])
        if any(left[1] > right[0] for left, right in pairwise(spans)):
            keys += (tensor.key for tensor in group)
    if keys:
        yield Overlapping(tuple(keys))


def _span(tensor: Tensor) -> tuple[int, int]:
    """The bytes of its storage from its first element to behind its last."""
    piece = tensor.pieces[0]
    if piece.strides is None:
        reach = tensor.elements
    else:
        reach = 1 + sum((size - 1) * stride for size, stride in zip(piece.shape, piece.strides, strict=True))
    return packed_nbytes(tensor.dtype, (piece.start,)), packed_nbytes(tensor.dtype, (piece.start + reach,))
