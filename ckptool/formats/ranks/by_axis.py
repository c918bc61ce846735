"""Model-parallel ranks whose files state no places: a table of known names says along which axis a tensor was cut.

A name that is in no table is taken whole where all ranks hold equal bytes; where they do not, it is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from ckptool.core.errors import UnreadableError
from ckptool.core.spec import TensorSpec, short_spec
from ckptool.core.tensor import Piece, Tensor
from ckptool.core.views import c_strides
from ckptool.formats.ranks.held import are_equal
from ckptool.formats.ranks.runs import Run, in_runs

WHOLE = -1
"""Every rank holds the whole tensor."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One rank's part of a tensor: its rank in words, the name of its file, its elements."""

    who: str
    file: str
    tensor: Tensor


def joined(
    path: PurePath, key: str, shards: Sequence[Shard], axis: int | None, differing: list[str], halves: int = 1
) -> Tensor:
    """A whole tensor from the parts of all ranks.

    Args:
        path: the folder.
        key: of the tensor.
        shards: the ranks' parts, in their order.
        axis: along which they were cut; `WHOLE` for none; None if that is not known.
        differing: gets the keys of which ranks hold different copies; that of the first is taken.
        halves: into how many tensors each part divides along the axis: 2 where the gate and the other half of a gated
            layer lie one behind the other on every rank.

    Raises:
        UnreadableError: the parts do not fit together, or nothing says how.
    """
    first = shards[0].tensor
    for shard in shards[1:]:
        if shard.tensor.dtype != first.dtype or len(shard.tensor.shape) != len(first.shape):
            raise _differ(path, key, shards[0], shard)
    if len(shards) == 1:
        return _alone(key, first)
    if axis is None or axis == WHOLE:
        different = [shard for shard in shards[1:] if are_equal(first, shard.tensor) is not True]
        if axis is None and different:
            raise UnreadableError(
                f"{key} differs between {shards[0].who} and {different[0].who}, and nothing says along which axis it "
                f"was cut: {short_spec(first.dtype, first.shape)} in {shards[0].file}",
                hint="convert the checkpoint with the library that trained the model, or leave this tensor out of it",
                path=path,
                key=key,
            )
        odd = next((shard for shard in shards if shard.tensor.shape != first.shape), None)
        if odd is not None:
            raise _differ(path, key, shards[0], odd)
        if any(are_equal(first, shard.tensor) is False for shard in different):
            differing.append(key)
        return _alone(key, first)
    for shard in shards:
        sizes = [size for number, size in enumerate(shard.tensor.shape) if number != axis]
        if axis >= len(first.shape) or sizes != [size for number, size in enumerate(first.shape) if number != axis]:
            raise _differ(path, key, shards[0], shard)
        if shard.tensor.shape[axis] % halves:
            raise UnreadableError(f"{key} cannot be divided into {halves} on {shard.who}", path=path, key=key)
    total = sum(shard.tensor.shape[axis] for shard in shards)
    shape = (*first.shape[:axis], total, *first.shape[axis + 1 :])
    pieces: list[Piece] = []
    at = 0
    for half in range(halves):
        for shard in shards:
            pieces.append(_cut(shard.tensor, axis, half, halves, at))
            at += shard.tensor.shape[axis] // halves
    return in_runs(Tensor(TensorSpec(key, first.dtype, shape), tuple(pieces)))


def _alone(key: str, tensor: Tensor) -> Tensor:
    run = Run.of(tensor)
    spec = replace(tensor.spec, key=key)
    if run is None or not run.count:
        return replace(tensor, spec=spec, node=None)
    return Tensor(spec, (Piece(run.own_storage, 0, tensor.shape),))


def _cut(tensor: Tensor, axis: int, half: int, halves: int, at: int) -> Piece:
    """One of the equal parts of a rank's part along an axis, with its place in the whole tensor."""
    piece = tensor.pieces[0]
    size = tensor.shape[axis] // halves
    strides = piece.strides or c_strides(tensor.shape)
    shape = (*tensor.shape[:axis], size, *tensor.shape[axis + 1 :])
    kept = None if piece.strides is None and (axis == 0 or halves == 1) else strides
    place = (*(0,) * axis, at, *(0,) * (len(shape) - axis - 1))
    start = piece.start + half * size * strides[axis]
    return Piece(piece.storage, start, shape, kept, place if at else ())


def _differ(path: PurePath, key: str, first: Shard, other: Shard) -> UnreadableError:
    ours, theirs = (short_spec(each.tensor.dtype, each.tensor.shape) for each in (first, other))
    return UnreadableError(
        f"the parts of {key} do not fit together: {first.who} ({first.file}) has {ours}, {other.who} ({other.file}) "
        f"has {theirs}",
        hint="the files are not of one save, or the model was cut in a way that ckptool does not know",
        path=path,
        key=key,
    )
