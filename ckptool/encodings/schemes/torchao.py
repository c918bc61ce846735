"""torchao in safetensors: class and attributes are JSON in the metadata, the parts are `module._weight_*`.

The tensors of a torch file get the same form (`ckptool.encodings.subclasses`).

Float8Tensor, Int8Tensor and IntxUnpackedToInt8Tensor: ``(q - zero_point) * scale`` over `block_size`. MXTensor and
NVFP4Tensor: as in the other MX and NV schemes, low nibble first. AffineQuantizedTensor (torchao before 0.15) has its
parts in an object of its layout: PlainLayout and Float8Layout are as Int8Tensor and Float8Tensor. The int4 classes are
layouts of GPU kernels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.encodings import fp4
from ckptool.encodings.encoded import CODES, SCALES, ZEROS, Encoded, Part, Scheme
from ckptool.encodings.grid import apply_grid, describe_block, tiled_scale_rows, tiled_shape
from ckptool.encodings.headers import FLOAT8, FLOATS, Headers, integer, join, json_object
from ckptool.encodings.kernels import float8_values, float_scales, over_blocks

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_ROLES = {"qdata": CODES, "scale": SCALES, "zero_point": ZEROS, "per_tensor_scale": "factor"}
_AFFINE = {  # a layout's names of the parts
    "PlainLayout": {"int_data": CODES, "scale": SCALES, "zero_point": ZEROS},
    "Float8Layout": {"float8_data": CODES, "scale": SCALES},
}
_AFFINE_CLASSES = ("AffineQuantizedTensor", "LinearActivationQuantizedTensor")
_INSIDE, _WRAPPED = "tensor_impl.", "original_weight_tensor."
_INTEGERS, _NONE = 1, 3  # members of ZeroPointDomain
_PLAIN = {
    "Float8Tensor": FLOAT8,
    "Int8Tensor": {"int8"},
    "IntxUnpackedToInt8Tensor": {"int8"},
    "PlainLayout": {"int8", "uint8"},
    "Float8Layout": FLOAT8,
}
_PAIRS = ("uint8", "int8", "float4_e2m1fn_x2")
_SMALL = {"NVFP4Tensor": ("nvfp4", 16, "float8_e4m3fn"), "MXTensor": ("mx", 32, "float8_e8m0fnu")}


def find(headers: Headers) -> Iterator[Encoded]:
    """The tensors that the metadata describes."""
    try:
        names = json.loads(headers.metadata.get("tensor_names", "[]"))
    except (ValueError, RecursionError):
        return
    for name in names if isinstance(names, list) else ():
        description = json_object(headers.metadata.get(name, "")) if isinstance(name, str) else None
        if description and description.get("_type") != "Tensor":
            encoded = _encoded(headers, name, description)
            if encoded is not None:
                yield encoded


def _encoded(headers: Headers, name: str, description: Mapping[str, Any]) -> Encoded | None:
    kind, data, parts = description.get("_type"), description.get("_data"), description.get("_tensor_data_names")
    module, _, last = name.rpartition(".")
    if not isinstance(kind, str) or not isinstance(data, Mapping) or not isinstance(parts, list):
        return None
    prefix = _WRAPPED if kind == "LinearActivationQuantizedTensor" else ""  # which quantizes its inputs, too
    inside = {str(name).removeprefix(prefix): value for name, value in data.items()} if prefix else data
    has_zeros = any(str(part).endswith(".zero_point") for part in parts)
    layout = _affine_layout(inside, has_zeros) if kind in _AFFINE_CLASSES else ""
    roles = {f"{prefix}{_INSIDE}{part}": role for part, role in _AFFINE[layout].items()} if layout else _ROLES
    keys = {str(part): join(module, f"_{last}_{part}") for part in parts}
    members = {roles.get(part, part): headers.specs[key] for part, key in keys.items() if key in headers.specs}
    if CODES not in members:
        if not members or f"_{last}_qdata" in keys.values():
            return None
        members = {CODES: members.pop(next(iter(members))), **members}
        spec = TensorSpec(name, _dtype(data) or headers.dtype, _shape(data) or members[CODES].shape)
        return _refused(Encoded("torchao", spec, members, detail=kind[:40]), kind)
    members = {CODES: members[CODES], **members}
    codes = members[CODES]
    spec = TensorSpec(name, _dtype(data) or headers.dtype, codes.shape)
    encoded = Encoded("torchao", spec, members, lead=max(0, len(codes.shape) - 2), detail=kind[:40])
    missing = [key for key in keys.values() if key not in headers.specs]
    if missing:
        return encoded.with_problem("missing", f"{missing[0]} is not in the file")
    if SCALES not in members or not codes.elements or len(codes.shape) < 2:
        return encoded.misfit(CODES, "a matrix with scales")
    if "act_pre_scale" in members:
        return encoded.with_problem("refused", "its inputs are scaled by act_pre_scale, which ckptool does not undo")
    if kind in _SMALL:
        encoded = _small(encoded, kind, data)
    elif layout or kind in _PLAIN:
        encoded = _plain(encoded, kind, layout or kind, inside)
    else:
        return _refused(encoded, kind)
    shape = _shape(data)
    if not encoded.problems and shape and shape != encoded.spec.shape:  # a view that is stored in another order
        return encoded.with_problem("values", f"its parts are {encoded.spec.short}, and it has the shape {list(shape)}")
    return encoded


def _refused(encoded: Encoded, kind: str) -> Encoded:
    return encoded.with_problem("refused", f"it is stored as torchao's {kind[:40]}, which ckptool does not decode")


def _shape(data: Mapping[str, Any]) -> tuple[int, ...]:
    """The logical shape of a tensor in a torch file; empty where it is not said."""
    shape = data.get("shape")
    return tuple(shape) if isinstance(shape, list) and all(integer(size, 0) is not None for size in shape) else ()


def _affine_layout(data: Mapping[str, Any], has_zeros: bool) -> str:
    """The layout of an AffineQuantizedTensor that is decoded; "" for another, or where zero points are floats."""
    layout = data.get(f"{_INSIDE}_layout")
    name = str(layout.get("_type")) if isinstance(layout, Mapping) else ""
    domain = data.get("zero_point_domain")
    number = domain.get("_data") if isinstance(domain, Mapping) else domain
    known = name == "PlainLayout" and (number in ([_INTEGERS], None) or (number == [_NONE] and not has_zeros))
    return name if known or (name == "Float8Layout" and data.get(f"{_INSIDE}transposed") is not True) else ""


def _dtype(data: Mapping[str, Any]) -> str:
    """The logical dtype of the attributes."""
    for name in ("dtype", "orig_dtype"):
        value = data.get(name)
        text = value.get("_data") if isinstance(value, Mapping) else None
        if isinstance(text, str) and text in DTYPES and DTYPES[text].kind == "float":
            return text
    return ""


def _plain(encoded: Encoded, kind: str, layout: str, data: Mapping[str, Any]) -> Encoded:
    codes, scales, zeros = encoded.codes, encoded.members[SCALES], encoded.members.get(ZEROS)
    block = [integer(size) for size in data["block_size"]] if isinstance(data.get("block_size"), list) else []
    if codes.dtype not in _PLAIN[layout] or len(block) != len(codes.shape) or not all(block):
        return encoded.with_problem("values", f"its description does not fit {codes.short}: block_size {block}")
    grid = tuple(-(-size // (step or 1)) for size, step in zip(codes.shape, block, strict=True))
    if (
        scales.dtype not in FLOATS
        or scales.elements != prod(grid)
        or grid[: encoded.lead]
        not in (
            codes.shape[: encoded.lead],
            (1,) * encoded.lead if prod(grid) == 1 else None,
        )
    ):
        return encoded.misfit(SCALES, f"one for each block of {block}")
    if scales.elements > 1 and scales.shape not in (grid, codes.shape[:-1]):
        return encoded.misfit(SCALES, f"one for each block of {block}")
    fits = zeros is None or zeros.elements == scales.elements == 1 or zeros.shape == scales.shape
    if zeros is not None and (not fits or DTYPES[zeros.dtype].kind not in ("int", "uint")):
        return encoded.misfit(ZEROS, f"integers of the shape of {scales.key}")
    size = (block[-2] or 1, block[-1] or 1)
    detail = f"{kind}, {describe_block(size, encoded.matrix_rows, encoded.columns)}"
    return replace(encoded, parameters={"format": "plain", "block": size}, detail=detail)


def _small(encoded: Encoded, kind: str, data: Mapping[str, Any]) -> Encoded:
    format_, group, dtype = _SMALL[kind]
    codes, scales = encoded.codes, encoded.members[SCALES]
    element = data.get("elem_dtype")
    element = element.get("_data") if isinstance(element, Mapping) else element
    shape = codes.shape
    if format_ == "nvfp4" or element == "float4_e2m1fn_x2":
        if codes.dtype not in _PAIRS:
            return encoded.misfit(CODES, "two fp4 codes in a byte")
        format_ = "mxfp4" if format_ == "mx" else format_
        shape = (*shape[:-1], shape[-1] * 2)
    elif codes.dtype in FLOAT8 and element == codes.dtype:
        format_ = "mxfp8"
    else:
        return encoded.with_problem("refused", f"its elements are {str(element)[:40]}, which ckptool does not decode")
    tiled = data.get("is_swizzled_scales") is True
    encoded = replace(encoded, spec=replace(encoded.spec, shape=shape))
    across = -(-shape[-1] // group)
    expected = prod(tiled_shape(shape[-2], shape[-1], group)) if tiled else prod(shape[:-1]) * across
    if (
        data.get("block_size") != group
        or (scales.dtype, scales.elements) != (dtype, expected)
        or (not tiled and scales.shape != (*shape[:-1], across))
    ):
        return encoded.misfit(SCALES, f"{DTYPES[dtype].short} for each {group} of {list(shape)}")
    factor = encoded.members.get("factor")
    if tiled and encoded.lead:
        return encoded.with_problem("refused", "its scales are tiled over several matrices")
    if factor is not None and (factor.dtype != "float32" or factor.elements != 1):
        return encoded.misfit("factor", "one float32")
    parameters = {"format": format_, "block": (1, group), "tiled": tiled, "high_first": False}
    return replace(encoded, parameters=parameters, detail=f"{kind}, {format_}, groups of {group}")


def decode(part: Part, start: int, stop: int) -> Array:
    """As the class says."""
    import numpy as np

    encoded, format_ = part.encoded, part.encoded.parameters["format"]
    if format_ in ("mxfp4", "nvfp4"):
        return fp4.decode(part, start, stop)
    codes = part.matrix(CODES, slice(start, stop))
    if encoded.codes.dtype in ("int8", "uint8"):
        return apply_grid(part, codes.astype(np.float32), start, stop)
    values = float8_values(codes, encoded.codes.dtype)
    if not encoded.parameters.get("tiled"):
        return apply_grid(part, values, start, stop)
    return over_blocks(np.multiply, values, float_scales(tiled_scale_rows(part, 32, start, stop)), 32)


SCHEME = Scheme("torchao", 0, find, decode)
