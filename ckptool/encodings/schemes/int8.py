"""One int8 for each weight, a scale for the tensor, each row or group, and zero points where it is asymmetric.

compressed-tensors `int-quantized`, ModelOpt INT8, ComfyUI `int8_tensorwise`. ``W = (q - z) * scale``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ckptool.core.spec import TensorSpec
from ckptool.encodings.comfy import DESCRIPTION, description_of, settle_description
from ckptool.encodings.encoded import CODES, SCALES, ZEROS, Encoded, Part, Read, Scheme
from ckptool.encodings.grid import apply_grid, block_of, describe_block, lead_of, matrix_of
from ckptool.encodings.headers import ACTIVATION, FLOATS, Headers

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_INT8 = frozenset({"int8"})


def find(headers: Headers) -> Iterator[Encoded]:
    """int8 payloads with a float scale of the name `weight_scale`."""
    for module, last, codes in headers.payloads(_INT8):
        scales = headers.get(module, f"{last}_scale")
        if scales is not None and scales.dtype in FLOATS:
            yield _encoded(headers, module, last, codes, scales)
        elif last == "weight" and headers.get(module, "SCB") is None and scales is None and _is_int_quantized(headers):
            yield Encoded("int8", TensorSpec(codes.key, headers.dtype, codes.shape), {CODES: codes}).with_problem(
                "missing",
                f"{codes.key}_scale is not in the file",
                "open the folder with all shards; the scale may be in another one",
            )


def _is_int_quantized(headers: Headers) -> bool:
    return headers.quantization.get("format") == "int-quantized"


def _encoded(headers: Headers, module: str, last: str, codes: TensorSpec, scales: TensorSpec) -> Encoded:
    members = {CODES: codes, SCALES: scales}
    zeros = headers.get(module, f"{last}_zero_point")
    if zeros is not None:
        members[ZEROS] = zeros
    members |= headers.beside(
        module, ACTIVATION if last == "weight" else tuple(f"{last}_{name}" for name in ACTIVATION)
    )
    encoded = Encoded("int8", TensorSpec(codes.key, headers.dtype, codes.shape), members, lead=lead_of(codes.shape))
    if description_of(headers, module).get("convrot"):
        return encoded.with_problem("refused", "its weights are rotated (convrot), which ckptool does not undo")
    description = headers.get(module, DESCRIPTION)
    if description is not None:
        members[DESCRIPTION] = description
        encoded = replace(encoded, needs=(DESCRIPTION,))
    block = block_of(codes, scales, headers)
    if isinstance(block, str):
        return encoded.with_problem("misshapen", block, "the file is damaged, or config.json is of another model")
    if zeros is not None and (zeros.shape != scales.shape or zeros.dtype not in ("int8", "int32", "uint8")):
        return encoded.with_problem("misshapen", f"{zeros.key} is {zeros.short}, and {scales.key} is {scales.short}")
    if extra := headers.beside(module, ("pre_quant_scale",)):
        return replace(encoded, members={**members, **extra}).with_problem(
            "refused", "its inputs are scaled by pre_quant_scale, which ckptool does not undo"
        )
    return replace(encoded, parameters={"block": block}, detail=describe_block(block, *matrix_of(codes.shape)))


def settle(encoded: Encoded, read: Read) -> Encoded:
    """What ComfyUI's description says of the format."""
    return settle_description(encoded, read, {"int8_tensorwise"})[0]


def decode(part: Part, start: int, stop: int) -> Array:
    """Codes minus zero points, times scales."""
    import numpy as np

    values = part.matrix(CODES, slice(start, stop)).astype(np.float32)
    return apply_grid(part, values, start, stop)


SCHEME = Scheme("int8", 40, find, decode, settle)
