"""ModelOpt's 4-bit integers: a byte holds two rows, 2i in the low nibble and 2i + 1 in the high one, two's complement.

``W = q * scale``, one scale for each group of columns. With `pre_quant_scale` the layer computes with other weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import CODES, SCALES, Encoded, Part, Scheme
from ckptool.encodings.grid import check_finite
from ckptool.encodings.headers import ACTIVATION, FLOATS, Headers
from ckptool.encodings.kernels import over_blocks

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_REFUSED = ("pre_quant_scale", "weight_scale_2")


def find(headers: Headers) -> Iterator[Encoded]:
    """uint8 weights with twice as many rows of scales."""
    for module, last, codes in headers.payloads(frozenset({"uint8"})):
        scales = headers.get(module, "weight_scale")
        if last != "weight" or scales is None or scales.dtype not in FLOATS or len(codes.shape) != 2:
            continue
        rows, columns = codes.shape[0] * 2, codes.shape[1]
        if len(scales.shape) != 2 or scales.shape[0] != rows or not scales.elements or columns % scales.shape[1]:
            continue
        members = {CODES: codes, SCALES: scales, **headers.beside(module, (*_REFUSED, *ACTIVATION))}
        size = columns // scales.shape[1]
        spec = TensorSpec(codes.key, headers.dtype, (rows, columns))
        encoded = Encoded("ModelOpt int4", spec, members, {"block": (1, size)}, detail=f"groups of {size}")
        names = [name for name in _REFUSED if name in members]
        if names:
            text = f"its layer also computes with {names[0]}, which ckptool does not undo"
            yield encoded.with_problem("refused", text)
        else:
            yield replace(encoded, lead=0)


def decode(part: Part, start: int, stop: int) -> Array:
    """Nibbles as signed integers, times scales."""
    import numpy as np

    first, last = start // 2, -(-stop // 2)
    stored = part.matrix(CODES, slice(first, last)).astype(np.int8)
    values = np.empty((last - first, 2, stored.shape[1]), np.float32)
    values[:, 0] = (stored << 4) >> 4
    values[:, 1] = stored >> 4
    values = values.reshape(-1, stored.shape[1])[start - first * 2 : stop - first * 2]
    scales = check_finite(part, part.matrix(SCALES, slice(start, stop)).astype(np.float32))
    return over_blocks(np.multiply, values, scales, part.encoded.parameters["block"][1])


SCHEME = Scheme("ModelOpt int4", 40, find, decode)
