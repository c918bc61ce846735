"""MX and NV fp4: two E2M1 codes in a byte; a scale for 32 (mx: an exponent) or 16 codes (nv: E4M3, and a global one).

compressed-tensors `mxfp4-pack-quantized` and `nvfp4-pack-quantized`, ModelOpt NVFP4, DeepSeek-V4's experts, ComfyUI
nvfp4. ``W = E2M1 * 2**(s - 127)``; ``E2M1 * (scale / global)`` in compressed-tensors; ``E2M1 * (scale * global)`` in
the others. The low nibble is first, except in ComfyUI's files.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from ckptool.core.spec import TensorSpec
from ckptool.encodings.comfy import DESCRIPTION, description_of, settle_description
from ckptool.encodings.encoded import CODES, SCALES, Encoded, Part, Read
from ckptool.encodings.grid import check_divisor, check_finite, lead_of, tiled_scale_rows
from ckptool.encodings.headers import ACTIVATION, EXPONENTS, Headers, join
from ckptool.encodings.kernels import byte_values, bytes_of, e2m1_table, float_scales, over_blocks, table_values

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_PACKED = frozenset({"uint8", "int8", "float4_e2m1fn_x2", "float4_e2m1fn"})
DIVISOR = "divisor"
_GLOBALS = {DIVISOR: "weight_global_scale", "factor": "weight_scale_2"}
_REFUSED = ("pre_quant_scale", "weight_quantizer._pre_quant_scale", "svdquant_lora_a", "svdquant_lora_b")


def find_groups(headers: Headers, group: int) -> Iterator[Encoded]:
    """Packed payloads whose scale has one number for each group of 16 or 32."""
    for module, last, codes in headers.payloads(_PACKED):
        if last in ("weight", "weight_packed"):
            scales = headers.get(module, "weight_scale")
            if scales is None and codes.dtype == "int8":
                scales = headers.get(module, "scale")
            if scales is not None and _group_of(codes, scales) == group:
                yield _encoded(headers, module, codes, scales, group)


def _columns(codes: TensorSpec) -> int:
    return codes.shape[-1] * (1 if codes.dtype == "float4_e2m1fn" else 2)


def _group_of(codes: TensorSpec, scales: TensorSpec) -> int:
    """16 for nv, 32 for mx, 0 if the scale is neither."""
    group = 32 if scales.dtype in EXPONENTS else 16 if scales.dtype == "float8_e4m3fn" else 0
    if not group or (codes.dtype == "int8" and group == 16) or not prod(codes.shape):
        return 0
    across = -(-_columns(codes) // group)
    tiled = (-(-codes.shape[-2] // 128) * 128, -(-across // 4) * 4)
    fits = scales.shape == (*codes.shape[:-1], across) or scales.shape == (*codes.shape[:-2], *tiled)
    # F8_E4M3 scales of bytes occur nowhere else, so a wrong shape is a damaged file and no other scheme
    return group if fits or (group == 16 and len(scales.shape) == len(codes.shape)) else 0


def _encoded(headers: Headers, module: str, codes: TensorSpec, scales: TensorSpec, group: int) -> Encoded:
    scheme = "nvfp4" if group == 16 else "mxfp4"
    columns = _columns(codes)
    across = -(-columns // group)
    members = {CODES: codes, SCALES: scales}
    if scheme == "nvfp4":
        members |= headers.beside(module, _GLOBALS)
    members |= headers.beside(module, (*ACTIVATION, *_REFUSED))
    description = headers.get(module, DESCRIPTION)
    is_comfy = description is not None or description_of(headers, module).get("format") == "nvfp4"
    needs: tuple[str, ...] = ()
    if description is not None:
        members[DESCRIPTION], needs = description, (DESCRIPTION,)
    shape = (*codes.shape[:-1], columns)
    if is_comfy and len(shape) == 2:
        shape = (_rows_before_padding(headers, module, shape[0]), columns)
    spec = TensorSpec(join(module, "weight"), headers.dtype, shape)
    tiled = is_comfy or scales.shape[-2] > codes.shape[-2]
    parameters = {"format": scheme, "block": (1, group), "tiled": tiled, "high_first": is_comfy}
    detail = f"groups of {group}" + (", tiled" if tiled else "")
    encoded = Encoded(scheme, spec, members, parameters, needs, lead=lead_of(shape), detail=detail)
    padded = (-(-codes.shape[-2] // 128) * 128, -(-across // 4) * 4)
    expected = padded if tiled else (codes.shape[-2], across)
    if scales.shape[-2:] != expected or scales.shape[:-2] != codes.shape[:-2] or (tiled and len(shape) != 2):
        return encoded.with_problem(
            "misshapen", f"{scales.key} is {scales.short}; {codes.key} needs [{expected[0]},{expected[1]}]"
        )
    for name in _REFUSED:
        if name in members:
            return encoded.with_problem("refused", f"its layer also computes with {name}, which ckptool does not undo")
    if tiled and not is_comfy:
        return encoded.with_problem("refused", "its scales are tiled, and nothing says which nibble is first")
    if scheme == "nvfp4":
        return _with_global(encoded)
    return encoded


def _rows_before_padding(headers: Headers, module: str, rows: int) -> int:
    """ComfyUI pads rows to 16; the bias has the true number."""
    bias = headers.get(module, "bias")
    true = bias.shape[0] if bias is not None and len(bias.shape) == 1 else rows
    return true if -(-true // 16) * 16 == rows else rows


def _with_global(encoded: Encoded) -> Encoded:
    found = [role for role in _GLOBALS if role in encoded.members]
    if len(found) != 1:
        which = "neither weight_global_scale nor weight_scale_2" if not found else "two global scales"
        return encoded.with_problem("missing", f"the module has {which}")
    spec = encoded.members[found[0]]
    if spec.dtype != "float32" or spec.elements not in (1, prod(encoded.spec.shape[: encoded.lead])):
        return encoded.misfit(found[0], "one float32 for each matrix")
    return encoded


def settle(encoded: Encoded, read: Read) -> Encoded:
    """What ComfyUI's description says of the format."""
    return settle_description(encoded, read, {"nvfp4"})[0]


def decode(part: Part, start: int, stop: int) -> Array:
    """fp4 codes times the scales of their groups."""
    import numpy as np

    encoded, group = part.encoded, part.encoded.parameters["block"][1]
    packed = part.matrix(CODES, slice(start, stop))
    if encoded.codes.dtype == "float4_e2m1fn":
        values = byte_values("float4_e2m1fn")[packed.view(np.uint8)]
    else:
        values = table_values(packed.view(np.uint8), e2m1_table(), 4, encoded.parameters["high_first"])
    return over_blocks(np.multiply, values, _scale_rows(part, start, stop), group)


def _scale_rows(part: Part, start: int, stop: int) -> Array:
    import numpy as np

    encoded = part.encoded
    if encoded.parameters["tiled"]:
        stored = tiled_scale_rows(part, encoded.parameters["block"][1], start, stop)
    else:
        stored = part.matrix(SCALES, slice(start, stop))
    if encoded.parameters["format"] == "mxfp4":
        return float_scales(stored)
    scales = byte_values("float8_e4m3fn")[bytes_of(stored)]
    role = DIVISOR if DIVISOR in encoded.members else "factor"
    if role not in encoded.members:
        return scales
    check = check_divisor if role == DIVISOR else check_finite
    factors = check(part, part.whole(role).reshape(-1), role)
    factor = factors[_index(encoded, part.at)] if factors.size > 1 else factors[0]
    function = np.divide if role == DIVISOR else np.multiply
    function(scales, factor, out=scales)
    return scales


def _index(encoded: Encoded, at: tuple[int, ...]) -> int:
    import numpy as np

    return int(np.ravel_multi_index(at, encoded.spec.shape[: encoded.lead])) if at else 0


def granule(encoded: Encoded) -> int:
    """Whole tiles, where scales are tiled."""
    return 128 if encoded.parameters["tiled"] else 1
