"""GGUF's block types: each tensor holds its codes and scales itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptool.core.errors import CkptError
from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import CODES, Encoded, Part, Scheme
from ckptool.encodings.gguf import BLOCK_TYPES, decode_type
from ckptool.encodings.headers import Headers

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

BYTE_ORDER = "GGUF.byte_order"
"""The name in a file's metadata that says "big": halves inside its blocks are swapped."""
_SCALE = ("scale", "weight.scale")


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
            yield found


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

    raw = part.matrix(CODES, slice(start, stop), slice(None)) if part.encoded.spec.shape[:-1] else part.matrix(CODES)
    try:
        values = decode_type(BLOCK_TYPES[part.encoded.parameters["type"]], raw, part.encoded.parameters["big"])
    except CkptError as error:
        raise part.error(error.message) from error
    if "scale" in part.encoded.members:
        scales = part.whole("scale").reshape(-1)
        values *= np.float32(scales[part.at[0] if part.at and scales.size > 1 else 0])
    return values


SCHEME = Scheme("GGUF", 0, find, decode)
