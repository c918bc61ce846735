"""compressed-tensors `pack-quantized`: integers of 1 to 8 bits in 32-bit words along each row.

``W = (q - z) * scale``; codes and zero points are stored plus ``2**(bits - 1)``. Zero points are packed down the rows.
`weight_shape` has the logical shape. Versions before 0.20 wrote 3, 5, 6 and 7 bits as ``32 // bits`` numbers a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import CODES, SCALES, ZEROS, Encoded, Part, Read, Scheme
from ckptool.encodings.grid import check_finite, weight_groups
from ckptool.encodings.headers import ACTIVATION, FLOATS, Headers, integer, join
from ckptool.encodings.kernels import over_blocks, spaced_values, stream_values

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_SHAPE, _GROUPS = "shape", "groups"
_NAMES = {SCALES: "weight_scale", _SHAPE: "weight_shape", ZEROS: "weight_zero_point", _GROUPS: "weight_g_idx"}


def find(headers: Headers) -> Iterator[Encoded]:
    """int32 payloads named `weight_packed`."""
    for module in headers.modules.get("weight_packed", ()):
        codes = headers.specs[join(module, "weight_packed")]
        if codes.dtype not in ("int32", "uint32") or len(codes.shape) not in (2, 3):
            continue
        members = {CODES: codes, **headers.beside(module, _NAMES), **headers.beside(module, ACTIVATION)}
        spec = TensorSpec(join(module, "weight"), headers.dtype, (*codes.shape[:-1], codes.shape[-1] * 8))
        lead = len(codes.shape) - 2
        encoded = Encoded("packed int", spec, members, {"config": _config_of(headers)}, (_SHAPE,), lead=lead)
        for role in (SCALES, _SHAPE):
            if role not in members:
                encoded = encoded.with_problem(
                    "missing",
                    f"{module}.{_NAMES[role]} is not in the file",
                    "open the folder with all shards; it may be in another one",
                )
        if _GROUPS not in members and encoded.parameters["config"]["permuted"]:
            text = f"{module}.{_NAMES[_GROUPS]} is not in the file, and the config says actorder"
            encoded = encoded.with_problem("missing", text)
        if not encoded.problems:
            encoded = _check(encoded)
        yield encoded


def _config_of(headers: Headers) -> dict[str, Any]:
    """Bits and group sizes that the config names."""
    weights = weight_groups(headers)
    bits = {size for group in weights if (size := integer(group.get("num_bits"), 1, 8))}
    sizes = {size for group in weights if (size := integer(group.get("group_size")))}
    orders = [group.get("actorder") for group in weights]
    return {"bits": bits, "sizes": sizes, "permuted": bool(orders) and all(map(_is_permuted, orders))}


def _is_permuted(order: object) -> bool:
    """True for an `actorder` with which columns are not in the order of their groups."""
    return order is True or order in ("group", "dynamic")


def _check(encoded: Encoded) -> Encoded:
    members = encoded.members
    scales, shape = members[SCALES], members[_SHAPE]
    lead = encoded.codes.shape[:-2]
    if shape.dtype not in ("int64", "int32") or shape.elements != 2 + len(lead):
        return encoded.with_problem("misshapen", f"{shape.key} is {shape.short}, not the sizes of a matrix")
    rows = encoded.codes.shape[-2]
    if scales.dtype not in FLOATS or len(scales.shape) != len(lead) + 2 or scales.shape[:-1] != (*lead, rows):
        return encoded.with_problem("misshapen", f"{scales.key} is {scales.short}; {encoded.codes.key} has {rows} rows")
    bits = encoded.parameters["config"]["bits"]
    if len(bits) == 1:  # a fair guess until weight_shape is read
        columns = encoded.codes.shape[-1] * 32 // next(iter(bits))
        spec = replace(encoded.spec, shape=(*encoded.codes.shape[:-1], columns))
        return replace(encoded, spec=spec, detail=f"{next(iter(bits))}-bit")
    return encoded


def settle(encoded: Encoded, read: Read) -> Encoded:
    """Shape, bits and group size."""
    encoded = replace(encoded, needs=())
    shape = tuple(int(size) for size in read(_SHAPE).reshape(-1))
    codes, scales = encoded.codes, encoded.members[SCALES]
    words, config = codes.shape[-1], encoded.parameters["config"]
    if shape[:-1] != codes.shape[:-1] or shape[-1] < 1:
        return encoded.with_problem("values", f"weight_shape says {list(shape)}, and {codes.key} is {codes.short}")
    columns = shape[-1]
    spec = replace(encoded.spec, shape=shape)
    layouts = {
        (bits, spaced)
        for bits in range(1, 9)
        for spaced in (False, True)
        if words == (-(-columns // (32 // bits)) if spaced else -(-columns * bits // 32))
        and (not spaced or 32 % bits)
        and (not config["bits"] or bits in config["bits"])
    }
    if not config["bits"]:  # without a config: the usual widths
        layouts &= {(4, False), (8, False)}
    if len(layouts) != 1:
        numbers = f"{columns} numbers" + (f" of {min(config['bits'])} bits" if len(config["bits"]) == 1 else "")
        return encoded.misfit(CODES, f"rows of {numbers}")
    ((bits, spaced),) = layouts
    across = scales.shape[-1]
    sizes = [size for size in sorted(config["sizes"]) if -(-columns // size) == across]
    width = columns if across == 1 else sizes[0] if sizes else columns // across if across else 0
    if not width or -(-columns // width) != across or (config["sizes"] and across > 1 and not sizes):
        return encoded.misfit(SCALES, f"one for each group of {columns} columns")
    detail = f"{bits}-bit, " + ("per channel" if across == 1 else f"groups of {width}")
    parameters = {"bits": bits, "spaced": spaced, "block": (1, width)}
    encoded = replace(encoded, spec=spec, parameters=parameters, detail=detail)
    zeros, groups = encoded.members.get(ZEROS), encoded.members.get(_GROUPS)
    per = 32 // bits
    down = -(-shape[-2] // per) if spaced else -(-shape[-2] * bits // 32)
    if zeros is not None and (zeros.dtype not in ("int32", "uint32") or zeros.shape != (*shape[:-2], down, across)):
        return encoded.misfit(ZEROS, f"i32[{down},{across}]")
    if groups is not None and (groups.dtype not in ("int32", "int64") or groups.shape != (columns,) or encoded.lead):
        return encoded.misfit(_GROUPS, f"i32[{columns}]")
    return encoded


def decode(part: Part, start: int, stop: int) -> Array:
    """Codes minus zero points, times scales."""
    import numpy as np

    encoded, bits = part.encoded, part.encoded.parameters["bits"]
    unpack = spaced_values if encoded.parameters["spaced"] else stream_values
    width = encoded.parameters["block"][1]
    values = unpack(part.matrix(CODES, slice(start, stop)), bits, encoded.columns)
    scales = check_finite(part, part.matrix(SCALES, slice(start, stop)).astype(np.float32))
    if ZEROS in encoded.members:
        step = 32 // bits if encoded.parameters["spaced"] else 32  # numbers in whole words
        first = start // step
        words = -(-(stop - first * step) * bits // 32) if step == 32 else -(-(stop - first * step) // step)
        begin = first * bits if step == 32 else first
        packed = part.matrix(ZEROS, slice(begin, begin + words))
        zeros = unpack(packed.T, bits, stop - first * step).T[start - first * step :]
    else:
        zeros = np.full((1, 1), 1 << (bits - 1), np.float32)
    groups = part.whole(_GROUPS).astype(np.int64) if _GROUPS in encoded.members else np.empty(0, np.int64)
    if groups.size and (groups >= 0).any():  # -1: not used
        if groups.min() < 0 or groups.max() >= scales.shape[1]:
            raise part.error(f"{encoded.members[_GROUPS].key} has groups that {encoded.members[SCALES].key} lacks")
        values -= zeros[:, groups] if zeros.size > 1 else zeros
        return np.multiply(values, scales[:, groups], out=values)
    if zeros.size > 1:
        over_blocks(np.subtract, values, zeros, width)
    else:
        values -= zeros
    return over_blocks(np.multiply, values, scales, width)


SCHEME = Scheme("packed int", 20, find, decode, settle, granule=lambda encoded: 32)
