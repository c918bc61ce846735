"""Codes with one scale for each block of a matrix: which blocks, and their decoding. Shared by fp8, int8 and fp4."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import SCALES, ZEROS, Part
from ckptool.encodings.headers import Headers, integer
from ckptool.encodings.kernels import float_scales, over_blocks, untile

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

Block = tuple[int, int]
_USUAL = (128, 32)


def lead_of(shape: tuple[int, ...]) -> int:
    """Leading axes that stack matrices: those of a 3-D tensor are experts; a convolution is one matrix."""
    return 1 if len(shape) == 3 else 0


def matrix_of(shape: tuple[int, ...]) -> Block:
    """Rows and columns of one matrix of a stack."""
    lead = lead_of(shape)
    return shape[lead], prod(shape[lead + 1 :])


def config_block(headers: Headers) -> Block | None:
    """The block of the config: ``weight_block_size``, or compressed-tensors' ``block_structure``."""
    found: object = headers.quantization.get("weight_block_size")
    if found is None:
        for weights in weight_groups(headers):
            found = found or weights.get("block_structure")
    if isinstance(found, str):  # "128x128"
        found = [int(part) if part.isdecimal() else None for part in found.lower()[:32].split("x")]
    if isinstance(found, list | tuple) and len(found) == 2:
        rows, columns = integer(found[0]), integer(found[1])
        if rows and columns:
            return rows, columns
    return None


def weight_groups(headers: Headers) -> list[Mapping[str, Any]]:
    """What compressed-tensors' and ModelOpt's ``config_groups`` say of weights."""
    groups = headers.quantization.get("config_groups")
    found = (
        (group.get("weights") for group in groups.values() if isinstance(group, Mapping))
        if isinstance(groups, Mapping)
        else ()
    )
    return [weights for weights in found if isinstance(weights, Mapping)]


def group_sizes(headers: Headers) -> set[int]:
    """The group sizes that the config names."""
    named = [headers.quantization.get("group_size"), *(weights.get("group_size") for weights in weight_groups(headers))]
    return {size for value in named if (size := integer(value))}


def block_of(codes: TensorSpec, scales: TensorSpec, headers: Headers) -> Block | str:
    """Rows and columns of the block that one scale is for; a text that says why there is none.

    Args:
        codes: the payload, one element for each logical one.
        scales: its scales.
        headers: for the config's block.
    """
    rows, columns = matrix_of(codes.shape)
    lead = codes.shape[: lead_of(codes.shape)]
    shape = scales.shape
    exponent = scales.dtype in ("uint8", "float8_e8m0fnu")
    unfit = f"{scales.key} is {scales.short}, which fits no block of {codes.short}"
    if prod(codes.shape) == 0 or prod(shape) == 0:
        return unfit
    if prod(shape) == 1:
        return unfit if scales.dtype == "uint8" else (rows, columns)
    if lead:
        if shape[:1] != lead:
            return unfit
        shape = shape[1:] or (1,)
    while len(shape) > 2 and shape[-1] == 1:  # [out, 1, 1, 1] of a convolution
        shape = shape[:-1]
    down, across = (shape[0], 1) if len(shape) == 1 else shape[:2]
    if len(shape) > 2:
        return unfit
    if len(shape) == 1 and down not in (1, rows):
        return unfit
    if exponent and (down, across) == (rows, -(-columns // 32)):
        return 1, 32
    if scales.dtype == "uint8":
        return unfit
    if (down, across) == (1, 1):
        return rows, columns
    if (down, across) == (rows, 1) and rows > 1:
        return 1, columns
    if (down, across) == (1, columns) and columns > 1:
        return rows, 1
    if block := config_block(headers):
        if (down, across) == (-(-rows // block[0]), -(-columns // block[1])):
            return block
        if down != rows:
            return (
                f"{scales.key} is {scales.short}, but blocks of {block[0]}×{block[1]}, as the config says, need "
                f"[{-(-rows // block[0])},{-(-columns // block[1])}]"
            )
    if down == rows and rows > 1:
        for size in sorted(group_sizes(headers)):
            if across == -(-columns // size):
                return 1, size
        if columns % across == 0 and not group_sizes(headers):
            return 1, columns // across
        return unfit
    for size in _USUAL:
        if (down, across) == (-(-rows // size), -(-columns // size)):
            return size, size
    return f"{unfit}; the block size is not known" if down < rows and across < columns else unfit


def describe_block(block: Block, rows: int, columns: int) -> str:
    """The block in a few words."""
    if block == (rows, columns):
        return "per tensor"
    if block == (1, columns):
        return "per channel"
    if block == (rows, 1):
        return "per column"
    return f"groups of {block[1]}" if block[0] == 1 else f"{block[0]}×{block[1]} blocks"


def scale_rows(part: Part, start: int, stop: int, role: str = SCALES) -> Array:
    """The float32 of a member's block rows, one for each row from `start` to `stop`; or a single row for all.

    Raises:
        CkptError: a scale is NaN or infinite.
    """
    import numpy as np

    encoded = part.encoded
    height = encoded.parameters["block"][0]
    spec = encoded.members[role]
    if prod(spec.shape) == 1:
        return check_finite(part, float_scales(part.whole(role).reshape(1, 1)), role)
    if height >= encoded.matrix_rows:
        matrix = part.matrix(role)
        return check_finite(part, float_scales(matrix.reshape(1, matrix.size)), role)
    first = start // height
    stored = float_scales(part.matrix(role, slice(first, -(-stop // height))))
    check_finite(part, stored, role)
    if height == 1 or len(stored) == 1:
        return stored
    by_row: Array = stored[np.arange(start, stop) // height - first]
    return by_row


def check_finite(part: Part, scales: Array, role: str = SCALES) -> Array:
    """The scales themselves.

    Raises:
        CkptError: one is NaN or infinite, and their dtype is not an 8-bit one, where NaN is a code like any other.
    """
    import numpy as np

    spec = part.encoded.members[role]
    if spec.dtype not in ("uint8", "float8_e8m0fnu", "float8_e4m3fn") and not np.isfinite(scales).all():
        raise part.error(f"{spec.key} has values that are not finite", "the file is damaged; get it again")
    return scales


def check_divisor(part: Part, numbers: Array, role: str) -> Array:
    """The numbers themselves, by which scales or codes are divided.

    Raises:
        CkptError: one is 0, NaN or infinite.
    """
    if not check_finite(part, numbers, role).all():
        raise part.error(f"{part.encoded.members[role].key} is 0, and it divides", "the file is damaged; get it again")
    return numbers


def tiled_scale_rows(part: Part, width: int, start: int, stop: int) -> Array:
    """The stored scales of rows `start` to `stop`, one for `width` columns, from cuBLAS's tiles."""
    spec, across = part.encoded.members[SCALES], -(-part.encoded.columns // width)
    first, last = start // 128, -(-stop // 128)
    tiled = tiled_shape(part.encoded.matrix_rows, part.encoded.columns, width)
    if spec.shape == tiled:  # a row of tiles stands together
        tiles = part.matrix(SCALES, slice(first * 128, last * 128))
    else:
        tiles = part.whole(SCALES).reshape(tiled)[first * 128 : last * 128]
    return untile(tiles, (last - first) * 128, across)[start - first * 128 : stop - first * 128]


def tiled_shape(rows: int, columns: int, width: int) -> Block:
    """Rows and columns of scales that are padded to whole tiles."""
    return -(-rows // 128) * 128, -(-columns // (width * 4)) * 4


def apply_grid(part: Part, values: Array, start: int, stop: int) -> Array:
    """``(values - zeros) * scales`` for rows `start` to `stop` of a matrix, in place."""
    import numpy as np

    width = part.encoded.parameters["block"][1]
    if ZEROS in part.encoded.members:
        over_blocks(np.subtract, values, scale_rows(part, start, stop, ZEROS), width)
    return over_blocks(np.multiply, values, scale_rows(part, start, stop), width)
