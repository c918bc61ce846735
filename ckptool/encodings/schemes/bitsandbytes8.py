"""bitsandbytes 8-bit: one int8 for each weight and `SCB`, the largest magnitude of each row.

``W = (q * SCB[o]) * float32(1 / 127)``. `weight_format` other than 0 (rows) is a layout of old GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import CODES, SCALES, Encoded, Part, Read, Scheme
from ckptool.encodings.grid import check_finite
from ckptool.encodings.headers import Headers, join

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_FORMAT = "weight_format"


def find(headers: Headers) -> Iterator[Encoded]:
    """int8 matrices with `SCB`, and those that have only its `weight_format` beside them."""
    for module in headers.modules.get(_FORMAT, ()):
        codes = headers.get(module, "weight")
        if codes is not None and codes.dtype == "int8" and headers.get(module, "SCB") is None:
            members = {CODES: codes, **headers.beside(module, (_FORMAT,))}
            lone = Encoded("bitsandbytes int8", TensorSpec(codes.key, headers.dtype, codes.shape), members)
            yield lone.with_problem("missing", f"{join(module, 'SCB')} is not in the file", "get the file again")
    for module in headers.modules.get("SCB", ()):
        codes, scales = headers.get(module, "weight"), headers.specs[join(module, "SCB")]
        if codes is None or codes.dtype != "int8" or len(codes.shape) != 2:
            continue
        members = {CODES: codes, SCALES: scales, **headers.beside(module, (_FORMAT,))}
        spec = TensorSpec(codes.key, headers.dtype, codes.shape)
        encoded = Encoded("bitsandbytes int8", spec, members, detail="per channel")
        if scales.dtype != "float32" or scales.elements != codes.shape[0]:
            yield encoded.with_problem("misshapen", f"{scales.key} is {scales.short}, not f32[{codes.shape[0]}]")
        elif _FORMAT in members:
            yield replace(encoded, needs=(_FORMAT,))
        else:
            yield encoded


def settle(encoded: Encoded, read: Read) -> Encoded:
    """Refuses the layouts of old GPUs."""
    encoded = replace(encoded, needs=())
    if encoded.members[_FORMAT].elements != 1 or read(_FORMAT).reshape(-1)[0] != 0:
        return encoded.with_problem("refused", "its weight_format is not row-major: a layout of old GPUs")
    return encoded


def decode(part: Part, start: int, stop: int) -> Array:
    """Codes times the row's scale, times 1 / 127."""
    import numpy as np

    values = part.matrix(CODES, slice(start, stop)).astype(np.float32)
    scales = part.whole(SCALES).reshape(-1)[start:stop].astype(np.float32)
    values *= check_finite(part, scales)[:, None]
    values *= np.float32(1 / 127)
    return values


SCHEME = Scheme("bitsandbytes int8", 1, find, decode, settle)
