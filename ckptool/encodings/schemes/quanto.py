"""optimum-quanto: `weight._data` and `weight._scale`; 2 and 4 bits: `weight._data._data` in slabs and `weight._shift`.

8 bits: ``q * scale``. 4 and 2 bits: ``scale * q - shift`` of slabs of rows, the first slab in the lowest bits. Only
scales of whole rows are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import CODES, SCALES, Encoded, Part, Scheme
from ckptool.encodings.grid import apply_grid, block_of, check_finite, describe_block, matrix_of
from ckptool.encodings.headers import FLOAT8, FLOATS, Headers, join
from ckptool.encodings.kernels import float8_values

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_SHIFT = "shift"


def find(headers: Headers) -> Iterator[Encoded]:
    """Payloads named `weight._data`, or `weight._data._data`."""
    for module in headers.modules.get("_data", ()):
        packed = module.endswith("._data")
        key = module.removesuffix("._data")
        codes, scales = headers.specs[join(module, "_data")], headers.get(key, "_scale")
        if scales is None or scales.dtype not in FLOATS or len(codes.shape) != 2:
            continue
        owner = key.rpartition(".")[0]
        members = {CODES: codes, SCALES: scales, **headers.beside(key, {_SHIFT: "_shift"})}
        members |= headers.beside(owner, ("input_scale", "output_scale"))
        encoded = Encoded("quanto", TensorSpec(key, scales.dtype, codes.shape), members)
        if packed and codes.dtype == "uint8":
            yield _slabs(encoded)
        elif not packed and (codes.dtype == "int8" or codes.dtype in FLOAT8):
            block = block_of(codes, scales, headers)
            if isinstance(block, str):
                yield encoded.with_problem("misshapen", block)
            else:
                detail = f"8-bit, {describe_block(block, *matrix_of(codes.shape))}"
                yield replace(encoded, parameters={"block": block}, detail=detail)


def _slabs(encoded: Encoded) -> Encoded:
    codes, scales, shift = encoded.codes, encoded.members[SCALES], encoded.members.get(_SHIFT)
    rows = scales.shape[0] if len(scales.shape) == 2 and scales.shape[1] == 1 else 0
    if shift is None:
        return encoded.with_problem("missing", f"{encoded.key}._shift is not in the file")
    slabs = next((slabs for slabs in (2, 4) if rows and -(-rows // slabs) == codes.shape[0]), 0)
    if not slabs or shift.shape != scales.shape:
        return encoded.with_problem("refused", "its groups are parts of rows, a layout that ckptool does not decode")
    spec = replace(encoded.spec, shape=(rows, codes.shape[1]))
    return replace(encoded, spec=spec, parameters={"slabs": slabs}, detail=f"{8 // slabs}-bit, per channel")


def decode(part: Part, start: int, stop: int) -> Array:
    """Codes times scales, less the shift."""
    import numpy as np

    encoded = part.encoded
    if "slabs" not in encoded.parameters:
        codes = part.matrix(CODES, slice(start, stop))
        is_float = encoded.codes.dtype in FLOAT8
        values = float8_values(codes, encoded.codes.dtype) if is_float else codes.astype(np.float32)
        return apply_grid(part, values, start, stop)
    slabs, height = encoded.parameters["slabs"], encoded.codes.shape[0]
    bits, row = 8 // slabs, start
    out = np.empty((stop - start, encoded.columns), np.float32)
    while row < stop:
        slab, place = divmod(row, height)
        count = min(stop - row, height - place)
        stored = part.matrix(CODES, slice(place, place + count))
        out[row - start : row - start + count] = (stored >> (bits * slab)) & ((1 << bits) - 1)
        row += count
    out *= check_finite(part, part.matrix(SCALES, slice(start, stop)).astype(np.float32))
    out -= check_finite(part, part.matrix(_SHIFT, slice(start, stop)).astype(np.float32), _SHIFT)
    return out


SCHEME = Scheme("quanto", 20, find, decode)
