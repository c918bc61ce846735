"""BitNet: four slabs of rows in a byte, two bits each, the first slab lowest, one scale for the tensor.

``W = (code - 1) / scale`` for `linear_class: bitlinear`; ``(code - 1) * scale`` for `autobitlinear`: the config
says which.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import CODES, SCALES, Encoded, Part, Scheme
from ckptool.encodings.grid import check_divisor, check_finite
from ckptool.encodings.headers import FLOATS, Headers

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_CLASSES = {"bitlinear": "divide", "autobitlinear": "multiply"}


def find(headers: Headers) -> Iterator[Encoded]:
    """uint8 matrices with one float scale."""
    for module, last, codes in headers.payloads(frozenset({"uint8"})):
        scales = headers.get(module, "weight_scale")
        if last != "weight" or scales is None or scales.dtype not in FLOATS or len(codes.shape) != 2:
            continue
        if scales.shape != (1,) or not codes.elements:
            continue
        spec = TensorSpec(codes.key, headers.dtype, (codes.shape[0] * 4, codes.shape[1]))
        encoded = Encoded("BitNet", spec, {CODES: codes, SCALES: scales}, detail="2-bit, per tensor")
        said = str(headers.quantization.get("linear_class", "bitlinear")).lower()
        if headers.method != "bitnet" or said not in _CLASSES:
            yield encoded.with_problem(
                "config", "config.json does not say whether weights are multiplied or divided by the scale"
            )
        else:
            yield replace(encoded, parameters={"operation": _CLASSES[said]})


def decode(part: Part, start: int, stop: int) -> Array:
    """Codes less one, by the scale."""
    import numpy as np

    height = part.encoded.codes.shape[0]
    out = np.empty((stop - start, part.encoded.columns), np.float32)
    row = start
    while row < stop:
        slab, place = divmod(row, height)
        count = min(stop - row, height - place)
        stored = part.matrix(CODES, slice(place, place + count))
        out[row - start : row - start + count] = (stored >> (2 * slab)) & 3
        row += count
    out -= np.float32(1)
    divides = part.encoded.parameters["operation"] == "divide"
    stored = part.whole(SCALES).astype(np.float32)
    scale = check_divisor(part, stored, SCALES)[0] if divides else check_finite(part, stored)[0]
    (np.divide if divides else np.multiply)(out, scale, out=out)
    return out


SCHEME = Scheme("BitNet", 41, find, decode)
