"""Scaled fp8: an 8-bit float for each weight and a scale for the tensor, each row, group or block.

DeepSeek and Qwen (`weight_scale_inv`), fbgemm and compressed-tensors and ModelOpt (`weight_scale`), DeepSeek-V4
(`scale`), Mistral (`qscale_weight`), ComfyUI (`scale_weight`, `comfy_quant`), mxfp8. ``W = float32(code) * scale``: the
name `_inv` is a multiplication, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from math import prod
from typing import TYPE_CHECKING

from ckptool.core.spec import TensorSpec
from ckptool.encodings.comfy import DESCRIPTION, description_of, marker_keys, settle_description
from ckptool.encodings.encoded import CODES, SCALES, ZEROS, Encoded, Part, Read, Scheme
from ckptool.encodings.grid import (
    apply_grid,
    block_of,
    describe_block,
    lead_of,
    matrix_of,
    tiled_scale_rows,
    tiled_shape,
)
from ckptool.encodings.headers import ACTIVATION, EXPONENTS, FLOAT8, FLOATS, Headers, join
from ckptool.encodings.kernels import float8_values, float_scales, over_blocks

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_WEIGHT_SCALES = ("weight_scale_inv", "weight_scale", "scale_weight", "qscale_weight", "scale")
_METHODS = {"fp8", "fbgemm_fp8", "mxfp8"}
_BLOCK_COLUMNS = 32


def find(headers: Headers) -> Iterator[Encoded]:
    """fp8 payloads with a scale; those without one where the file or its config says that there must be one."""
    lone: list[tuple[str, TensorSpec]] = []
    scaled = False
    for module, last, codes in headers.payloads(FLOAT8):
        scales = _scales(headers, module, last)
        if scales is None:
            lone.append((module, codes))
            continue
        scaled = True
        yield _encoded(headers, module, last, codes, scales)
    expected = headers.method in _METHODS or "fp8" in str(headers.quantization.get("quant_algo")).lower()
    if scaled or expected or _is_float_quantized(headers):
        for module, codes in lone:
            if codes.key.endswith(("weight", "_proj")):
                spec = TensorSpec(codes.key, headers.dtype, codes.shape)
                others = (
                    "the config says that it is scaled" if expected else "other fp8 tensors of the file have scales"
                )
                yield Encoded("fp8", spec, {CODES: codes}).with_problem(
                    "missing",
                    f"it has no scale ({module}.weight_scale_inv or weight_scale), and {others}",
                    "open the folder with all shards; the scale may be in another one",
                )


def _is_float_quantized(headers: Headers) -> bool:
    return str(headers.quantization.get("format")) in ("float-quantized", "mxfp8-quantized")


def _scales(headers: Headers, module: str, last: str) -> TensorSpec | None:
    """The scale beside a payload: by name, with a dtype that a scale can have."""
    names = _WEIGHT_SCALES if last == "weight" else (f"{last}_scale_inv", f"{last}_scale")
    for name in names:
        spec = headers.get(module, name)
        if spec is not None and spec.dtype in FLOATS | EXPONENTS:
            codes = headers.specs[join(module, last)]  # `.scale` is the usual name of a norm's gain
            if name != "scale" or not isinstance(block_of(codes, spec, headers), str):
                return spec
    return None


def _encoded(headers: Headers, module: str, last: str, codes: TensorSpec, scales: TensorSpec) -> Encoded:
    rows, columns = matrix_of(codes.shape)
    named = ACTIVATION if last == "weight" else tuple(f"{last}_{name}" for name in ACTIVATION)
    zeros = {ZEROS: f"{last}_zero_point"}  # old versions of compressed-tensors wrote zeros of fp8, too
    members = {CODES: codes, SCALES: scales, **headers.beside(module, zeros), **headers.beside(module, named)}
    spec = TensorSpec(codes.key, headers.dtype, codes.shape)
    encoded = Encoded("fp8", spec, members, lead=lead_of(codes.shape), markers=marker_keys(headers))
    description = headers.get(module, DESCRIPTION)
    format_ = description_of(headers, module).get("format")
    if description is not None:
        members[DESCRIPTION] = description
        encoded = replace(encoded, needs=(DESCRIPTION,))
    if format_ == "mxfp8" or _has_tiles(codes, scales):
        return _tiled(encoded)
    block = block_of(codes, scales, headers)
    if isinstance(block, str):
        return encoded.with_problem("misshapen", block, "the file is damaged, or config.json is of another model")
    if ZEROS in members and members[ZEROS].shape != scales.shape:
        return encoded.misfit(ZEROS, f"of the shape of {scales.key}")
    if scales.dtype in EXPONENTS and block == (1, _BLOCK_COLUMNS):
        detail = "mx groups of 32"
    else:
        detail = describe_block(block, rows, columns)
    return replace(encoded, parameters=_parameters(block), detail=detail)


@cache
def _parameters(block: tuple[int, int]) -> dict[str, object]:
    """One object for each block: there may be very many tensors."""
    return {"block": block}


def _has_tiles(codes: TensorSpec, scales: TensorSpec) -> bool:
    """True if a scale is padded to whole tiles: more rows than the payload has."""
    return (
        scales.dtype in EXPONENTS
        and len(scales.shape) == len(codes.shape) == 2
        and scales.shape[0] > codes.shape[0]
        and scales.shape == tiled_shape(*codes.shape, _BLOCK_COLUMNS)
    )


def _tiled(encoded: Encoded) -> Encoded:
    codes, scales = encoded.codes, encoded.members[SCALES]
    if len(codes.shape) != 2 or scales.elements != prod(tiled_shape(*codes.shape, _BLOCK_COLUMNS)):
        return encoded.with_problem("misshapen", f"{scales.key} is {scales.short}, which does not fit {codes.short}")
    parameters = {"block": (1, _BLOCK_COLUMNS), "tiled": True}
    return replace(encoded, parameters=parameters, detail="mx groups of 32, tiled")


def settle(encoded: Encoded, read: Read) -> Encoded:
    """What ComfyUI's description says of the format."""
    encoded, format_ = settle_description(encoded, read, {"float8_e4m3fn", "float8_e5m2", "mxfp8"})
    if format_ == "mxfp8" and not encoded.parameters.get("tiled") and not encoded.problems:
        return _tiled(encoded)
    if format_ in FLOAT8 and format_ != encoded.codes.dtype:
        return encoded.with_problem("config", f"its description says {format_}, and it is {encoded.codes.dtype}")
    return encoded


def decode(part: Part, start: int, stop: int) -> Array:
    """Codes times scales."""
    import numpy as np

    encoded = part.encoded
    values = float8_values(part.matrix(CODES, slice(start, stop)), encoded.codes.dtype)
    if not encoded.parameters.get("tiled"):
        return apply_grid(part, values, start, stop)
    scales = float_scales(tiled_scale_rows(part, _BLOCK_COLUMNS, start, stop))
    return over_blocks(np.multiply, values, scales, _BLOCK_COLUMNS)


def granule(encoded: Encoded) -> int:
    """Whole blocks, or whole tiles."""
    height: int = 128 if encoded.parameters.get("tiled") else encoded.parameters["block"][0]
    return height if height <= 1024 else 1


SCHEME = Scheme("fp8", 30, find, decode, settle, granule)
