"""GGUF's block types: each tensor holds its codes and scales itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from ckptool.core.errors import CkptError
from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import CODES, Encoded, Part, Scheme
from ckptool.encodings.gguf import BLOCK_TYPES, decode_type
from ckptool.encodings.headers import Headers
from ckptool.formats.gguf import BYTE_ORDER, original_shape

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_SCALE = ("scale", "weight.scale")
_MOST_COLUMNS = 1 << 16
"""Elements of a row of a tensor that is decoded in flat order."""


def find(headers: Headers) -> Iterator[Encoded]:
    """Tensors of a block type; their members are the bytes of their rows."""
    big = headers.metadata.get(BYTE_ORDER) == "big"
    for stem, block_type in BLOCK_TYPES.items():
        for key in headers.dtypes.get(f"gguf_{stem}", ()):
            spec = headers.specs[key]
            row = spec.shape[-1] // block_type.elements * block_type.nbytes
            codes = TensorSpec(key, "uint8", (*spec.shape[:-1], row))
            lead = max(0, len(spec.shape) - 2)
            logical = TensorSpec(key, headers.dtype, spec.shape)
            found = Encoded("GGUF", logical, {CODES: codes}, {"type": stem, "big": big}, lead=lead, detail=stem.upper())
            if big and block_type.halves is None:
                found = found.with_problem("refused", f"{stem.upper()} in a big-endian file is not decoded")
            elif stem == "nvfp4":
                found = _with_scale(headers, found)
            shape = original_shape(headers.metadata, key)
            yield found if shape is None or shape == spec.shape else _reshaped(found, shape)


def _reshaped(found: Encoded, shape: tuple[int, ...]) -> Encoded:
    """The tensor in the shape it had before its elements were laid out in rows of whole blocks."""
    if prod(shape) != found.spec.elements or "scale" in found.members:
        return found.with_problem("values", f"{found.key} is {found.spec.short}, and the metadata says {list(shape)}")
    lead = next(axis for axis in range(len(shape)) if prod(shape[axis + 1 :]) <= _MOST_COLUMNS)
    parameters = {**found.parameters, "flat": True}
    return replace(found, spec=replace(found.spec, shape=shape), parameters=parameters, lead=lead)


def _with_scale(headers: Headers, found: Encoded) -> Encoded:
    """NVFP4 has one more scale in a tensor beside it, of one number or one for each expert."""
    module = found.key.removesuffix(".weight")
    scale = next((headers.specs[name] for last in _SCALE if (name := f"{module}.{last}") in headers.specs), None)
    if scale is None:
        return found
    count = found.spec.shape[0] if found.lead else 1
    if scale.dtype != "float32" or scale.elements not in (1, count):
        return found.with_problem("misshapen", f"{scale.key} is {scale.short}, not one number or one for each matrix")
    return Encoded(
        found.scheme,
        found.spec,
        {**found.members, "scale": scale},
        found.parameters,
        lead=found.lead,
        detail=found.detail,
    )


def decode(part: Part, start: int, stop: int) -> Array:
    """Rows of one matrix."""
    import numpy as np

    encoded = part.encoded
    if encoded.parameters.get("flat") or len(encoded.spec.shape) == 1:
        values = _decode_flat(part, start, stop)
    else:
        values = _values(part, part.matrix(CODES, slice(start, stop), slice(None)))
    if "scale" in encoded.members:
        scales = part.whole("scale").reshape(-1)
        values *= np.float32(scales[part.at[0] if part.at and scales.size > 1 else 0])
    return values


def _decode_flat(part: Part, start: int, stop: int) -> Array:
    """Rows that are not the stored ones: those along the first stored axis that cover them, in flat order."""
    encoded = part.encoded
    matrix = 0
    for index, size in zip(part.at, encoded.spec.shape, strict=False):
        matrix = matrix * size + index
    begin, end = ((matrix * encoded.matrix_rows + row) * encoded.columns for row in (start, stop))
    if len(encoded.codes.shape) == 1:
        block_type = BLOCK_TYPES[encoded.parameters["type"]]
        first, last = begin // block_type.elements, -(-end // block_type.elements)
        values = _values(part, part.read(CODES, slice(first * block_type.nbytes, last * block_type.nbytes)))
        begin, end = (at - first * block_type.elements for at in (begin, end))
        return values[begin:end].reshape(stop - start, encoded.columns)
    width = max(1, encoded.spec.elements // max(1, encoded.codes.shape[0]))  # elements of one stored index
    first = begin // width
    values = _values(part, part.read(CODES, slice(first, -(-end // width)))).reshape(-1)
    return values[begin - first * width : end - first * width].reshape(stop - start, encoded.columns)


def _values(part: Part, raw: Array) -> Array:
    try:
        return decode_type(BLOCK_TYPES[part.encoded.parameters["type"]], raw, part.encoded.parameters["big"])
    except CkptError as error:
        raise part.error(error.message) from error


SCHEME = Scheme("GGUF", 0, find, decode)
