"""Which part of each storage a torch output keeps: what its tensors reach there, unless little of it is theirs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckptool.core.dtypes import DTYPES
from ckptool.core.tensor import Storage, Tensor
from ckptool.core.views import c_strides

_BLOCK = 16  # bytes of the widest element


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a source storage that become a storage of the output."""

    storage: Storage
    low: int
    high: int

    @property
    def is_whole(self) -> bool:
        return self.low == 0 and self.high == self.storage.nbytes


def parts_in_use(tensors: Mapping[int, Tensor], beside: set[Storage]) -> dict[int, Part]:
    """The part of its storage that each copied dense tensor keeps, by step; tensors that overlap keep one part.

    Args:
        tensors: by step.
        beside: storages that something else needs whole.

    Returns:
        Nothing for tensors that are packed instead.
    """
    parts: dict[int, Part] = {}
    spans: defaultdict[Storage, list[_Span]] = defaultdict(list)
    for index, tensor in tensors.items():
        if tensor.layout != "strided" or tensor.pieces[0].storage.big_endian:
            continue
        storage = tensor.pieces[0].storage
        if storage in beside:
            parts[index] = Part(storage, 0, storage.nbytes)
        elif not tensor.elements:
            parts[index] = Part(storage, 0, 0)
        else:
            spans[storage].append(_Span.of(tensor, index))
    for storage, found in spans.items():
        for group in _overlapping(found):
            dense = [span for span in group if span.high - span.low <= 2 * span.nbytes]
            for kept in [group] if _is_well_used(group) else _overlapping(dense):
                part = _part(storage, kept)
                parts.update({span.index: part for span in kept})
    return parts


def _overlapping(spans: Sequence[_Span]) -> Iterator[list[_Span]]:
    """Groups of spans that overlap."""
    group: list[_Span] = []
    end = 0
    for span in sorted(spans, key=lambda span: (span.low, span.high)):
        if group and span.low >= end:
            yield group
            group = []
        group.append(span)
        end = max(end, span.high) if len(group) > 1 else span.high
    if group:
        yield group


def _is_well_used(group: Sequence[_Span]) -> bool:
    """True if at least half of the bytes that a group reaches are those of its tensors."""
    used = {(span.low, span.high, span.nbytes) for span in group}
    return max(span.high for span in group) - group[0].low <= 2 * sum(nbytes for _, _, nbytes in used)


def _part(storage: Storage, group: Sequence[_Span]) -> Part:
    low = group[0].low
    if len({span.itemsize for span in group}) > 1:  # every tensor must begin at a multiple of its own elements
        low -= low % _BLOCK
    return Part(storage, low, max(span.high for span in group))


@dataclass(frozen=True, slots=True)
class _Span:
    """What a dense tensor reaches in its storage: first byte, end, bytes of its elements."""

    low: int
    high: int
    nbytes: int
    itemsize: int
    index: int

    @classmethod
    def of(cls, tensor: Tensor, index: int) -> _Span:
        piece, item = tensor.pieces[0], itemsize(tensor)
        strides = piece.strides if piece.strides is not None else c_strides(piece.shape)
        last = piece.start + sum((size - 1) * stride for size, stride in zip(piece.shape, strides, strict=True))
        return cls(piece.start * item, (last + 1) * item, tensor.nbytes, item, index)


def itemsize(tensor: Tensor) -> int:
    return DTYPES[tensor.dtype].block_nbytes
