"""Remarks on where the bytes lie and what they are: shared, wasted, missing, mixed."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

from ckptool.core.checkpoint import Checkpoint, Note, Tensor
from ckptool.core.spec import DTYPES, packed_nbytes
from ckptool.facts.facts import Facts, amount, many

_WORTH_SAYING = 1 << 20  # bytes
_MUCH = 0.3


def ties(checkpoint: Checkpoint) -> tuple[tuple[str, ...], ...]:
    """Groups of keys that are one tensor: the same elements of the same storage, in the same shape and dtype.

    Example:
        >>> from pathlib import Path
        >>> from ckptool.core.checkpoint import Piece, Storage
        >>> from ckptool.core.format import Format
        >>> from ckptool.core.spec import TensorSpec
        >>> piece = Piece(Storage(Path("a.pth"), 64, 16), 0, (4,))
        >>> tensors = {key: Tensor(TensorSpec(key, "float32", (4,)), (piece,)) for key in ("embed", "lm_head")}
        >>> ties(Checkpoint(Path("a.pth"), Format("torch zip"), tensors))
        (('embed', 'lm_head'),)
    """
    found: list[tuple[str, ...]] = []
    for group in _sharing(checkpoint.tensors.values()):
        same: dict[object, list[str]] = defaultdict(list)
        for tensor in group:
            same[tensor.pieces, tensor.dtype, tensor.conj, tensor.neg].append(tensor.key)
        found += (tuple(keys) for keys in same.values() if len(keys) > 1)
    return tuple(found)


def _sharing(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors of each storage that has more than one."""
    first: dict[int, Tensor] = {}
    again: dict[int, list[Tensor]] = {}
    for tensor in tensors:
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


def empty(facts: Facts) -> Iterator[Note]:
    """No tensors at all."""
    if facts.checkpoint:
        return
    others = facts.checkpoint.selection.others
    hint = f"other dicts of tensors: {', '.join(others)} (take one with --select)" if others else ""
    yield Note("there are no tensors in it", hint, level="warning")


def meta(facts: Facts) -> Iterator[Note]:
    """Tensors without bytes."""
    keys = tuple(tensor.key for tensor in facts.checkpoint.tensors.values() if tensor.layout == "meta")
    if keys:
        text = f"{many(len(keys), 'tensor')} on the meta device: shapes without values"
        yield Note(text, "the model was saved before its weights were loaded or made", keys, "warning")


def large_storages(facts: Facts) -> Iterator[Note]:
    """A small view that made torch.save write a large storage."""
    used: Counter[int] = Counter()
    views: dict[int, Tensor] = {}
    for tensor in facts.checkpoint.tensors.values():
        storage = tensor.pieces[0].storage if len(tensor.pieces) == 1 else None
        if storage is not None and storage.nbytes >= _WORTH_SAYING:
            used[storage.offset] += tensor.spec.nbytes
            views.setdefault(storage.offset, tensor)
    for offset, tensor in views.items():
        whole = tensor.storage.nbytes if tensor.storage else 0
        if used[offset] < whole * _MUCH:
            text = (
                f"{tensor.key} is a view of {amount(used[offset])} that keeps a storage of {amount(whole)} in the file"
            )
            hint = f"write only what is used: ckptool filter {facts.file} -o SMALL.safetensors"
            yield Note(text, hint, (tensor.key,), "warning")


def partly_shared(facts: Facts) -> Iterator[Note]:
    """Tensors that overlap without being the same: a write to one changes a part of the other."""
    keys: list[str] = []
    for group in _sharing(facts.checkpoint.tensors.values()):
        spans = sorted({(*_span(tensor), tensor.pieces, tensor.dtype) for tensor in group}, key=lambda span: span[:2])
        if any(left[1] > right[0] for left, right in pairwise(spans)):
            keys += (tensor.key for tensor in group)
    if keys:
        text = f"{many(len(keys), 'tensor')} overlap in memory without being the same: {', '.join(keys[:4])}"
        yield Note(text, "a torch file keeps that; safetensors cannot, there each becomes a copy", tuple(keys))


def _span(tensor: Tensor) -> tuple[int, int]:
    """The bytes of its storage from its first element to behind its last."""
    piece = tensor.pieces[0]
    if piece.strides is None:
        reach = tensor.elements
    else:
        reach = 1 + sum((size - 1) * stride for size, stride in zip(piece.shape, piece.strides, strict=True))
    return packed_nbytes(tensor.dtype, (piece.start,)), packed_nbytes(tensor.dtype, (piece.start + reach,))


def mixed_dtypes(facts: Facts) -> Iterator[Note]:
    """Some layers in another float type than their sisters."""
    found = {tensor.spec.dtype for tensor in facts.checkpoint.tensors.values()}
    dtypes = {dtype for dtype in found if DTYPES[dtype].kind == "float"}
    if len(dtypes) < 2:
        return
    roles: dict[str, Counter[str]] = defaultdict(Counter)
    for key, tensor in facts.checkpoint.tensors.items():
        if tensor.dtype in dtypes:
            roles[re.sub(r"(?<![^.])[0-9]+(?![^.])", "*", key)][DTYPES[tensor.dtype].short] += 1
    mixed = {role: counts for role, counts in roles.items() if len(counts) > 1}
    for role, counts in list(mixed.items())[:1]:
        listed = ", ".join(f"{number:,} {short}" for short, number in counts.most_common())
        more = f" (and {many(len(mixed) - 1, 'more such name')})" if len(mixed) > 1 else ""
        text = f"{role} has different dtypes in different layers: {listed}{more}"
        yield Note(text, f"one dtype for all: ckptool filter {facts.file} --dtype {next(iter(counts))} -o OUT", (role,))


def optimizer(facts: Facts) -> Iterator[Note]:
    """How much of the file is not weights."""
    states = [extra for extra in facts.checkpoint.extras if re.search("optim", extra.name, re.IGNORECASE)]
    nbytes = sum(extra.nbytes for extra in states)
    if nbytes < _WORTH_SAYING:
        return
    weights = sum(tensor.nbytes for tensor in facts.checkpoint.tensors.values())
    if nbytes > _MUCH * weights:
        share = f"{100 * nbytes / max(facts.checkpoint.nbytes, nbytes + weights):.0f} %"
        text = f"{share} of the file is optimizer state ({amount(nbytes)}), needed to go on training only"
        yield Note(text, f"leave it out: ckptool filter {facts.file} --only-weights -o WEIGHTS")


def script(facts: Facts) -> Iterator[Note]:
    """A compiled program around the weights."""
    if facts.checkpoint.format.is_program:
        yield Note(
            "it is a TorchScript program: code and weights in one file",
            f"nothing of it runs here; the weights alone: ckptool filter {facts.file} -o OUT.safetensors",
        )
