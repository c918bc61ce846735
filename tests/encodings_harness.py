"""What the tests of encodings share: arrays that stand for a file's tensors, and their decoding in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.encodings.encoded import Encoded, Read
from ckptool.encodings.registry import decode, recognise, settle

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

Arrays = Mapping[str, "Array"]


def spec_of(key: str, array: Array) -> TensorSpec:
    assert array.dtype.name in DTYPES, array.dtype
    return TensorSpec(key, array.dtype.name, array.shape)


def specs_of(arrays: Arrays) -> dict[str, TensorSpec]:
    return {key: spec_of(key, array) for key, array in arrays.items()}


def reader_of(encoded: Encoded, arrays: Arrays) -> Read:
    """Reads boxes of a tensor's members, and nothing else."""

    def read(role: str, /, *box: slice) -> Array:
        return arrays[encoded.members[role].key][box]

    return read


def found_in(
    arrays: Arrays, config: Mapping[str, Any] | None = None, metadata: Mapping[str, str] | None = None
) -> dict[str, Encoded]:
    """The encoded tensors of arrays by logical key, settled."""
    found = recognise(specs_of(arrays), config, metadata or {})
    return {encoded.key: settle(encoded, reader_of(encoded, arrays)) for encoded in found}


def decoded(
    arrays: Arrays, config: Mapping[str, Any] | None = None, metadata: Mapping[str, str] | None = None
) -> dict[str, Array]:
    """All encoded tensors as float32 of their logical shape, the whole at once and in uneven rows, which must agree."""
    values = {}
    for key, encoded in found_in(arrays, config, metadata).items():
        read = reader_of(encoded, arrays)
        whole = decode(encoded, read, 0, encoded.rows)
        cuts = sorted({0, encoded.rows, *(row for row in (1, 7, 33, 130, 131) if row < encoded.rows)})
        pieces = [decode(encoded, read, start, stop) for start, stop in pairwise(cuts)]
        same_bits(np.concatenate(pieces), whole)
        values[key] = whole.reshape(encoded.spec.shape)
    return values


def same_bits(left: Array, right: Array) -> None:
    """Equal in every bit, zeros' signs included; any NaN equals any other."""
    assert left.dtype == right.dtype, (left.dtype, right.dtype)
    assert left.shape == right.shape
    unsigned = f"u{left.dtype.itemsize}"
    same = np.ascontiguousarray(left).view(unsigned) == np.ascontiguousarray(right).view(unsigned)
    same |= np.isnan(left) & np.isnan(right)
    assert same.all(), f"{(~same).sum()} of {same.size} differ: {left[~same][:4]} {right[~same][:4]}"
