"""HQQ: unsigned integers in slabs of rows, a scale and a zero point for each group.

``W = ((q - zero) * scale).reshape(shape)`` of W as [groups, group_size] (axis 1) or [group_size, groups] (axis 0). The
rows are cut into 1, 2, 4 or 8 slabs, the first in the highest bits of a byte; 3 bits: ten slabs in an int32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import CODES, SCALES, ZEROS, Encoded, Part, Read, Scheme
from ckptool.encodings.grid import check_finite
from ckptool.encodings.headers import FLOATS, Headers, join

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_SCALARS = ("nbits", "group_size", "axis", "shape")
_FLAGS = ("quant_scale", "quant_zero", "view_as_float")
_TEXTS = (
    *("packing", "compute_dtype", "unpack_view_dtype", "channel_wise", "optimize", "round_zero", "offload_meta"),
    *("encoded_state_dict", "stores_quant_config"),
)
_SLABS = {8: 1, 4: 2, 3: 10, 2: 4, 1: 8}


_PICKLED = "qmodel.pt of hqq has it as a Python value; write the model with AutoHQQHFModel.save_to_safetensors"


def find(headers: Headers) -> Iterator[Encoded]:
    """`W_q` with its description."""
    for module in headers.modules.get("W_q", ()):
        codes = headers.specs[join(module, "W_q")]
        members = {CODES: codes, **headers.beside(module, {SCALES: "scale", ZEROS: "zero"})}
        members |= headers.beside(module, (*_SCALARS, *_FLAGS, *_TEXTS))
        missing = [
            name
            for role, name in ((SCALES, "scale"), (ZEROS, "zero"), *zip(_SCALARS, _SCALARS, strict=True))
            if role not in members
        ]
        if len(missing) == 6:
            continue
        spec = TensorSpec(join(module, "weight"), headers.dtype, (codes.elements,))
        needs = tuple(name for name in (*_SCALARS, *_FLAGS, "compute_dtype") if name in members)
        encoded = Encoded("HQQ", spec, members, needs=needs)
        if missing:
            yield encoded.with_problem("missing", f"{join(module, missing[0])} is not in the file", _PICKLED)
        elif any(members[role].dtype not in FLOATS for role in (SCALES, ZEROS)):
            yield encoded.misfit(SCALES, "a float tensor as the zero points are")
        elif any(members[name].elements > 8 for name in (*_SCALARS, *(name for name in _FLAGS if name in members))):
            yield encoded.misfit("shape", "a few sizes")
        else:
            yield encoded


def settle(encoded: Encoded, read: Read) -> Encoded:
    """Bits, group size, axis and shape."""
    encoded = replace(encoded, needs=())
    numbers = {name: [int(value) for value in read(name).reshape(-1)] for name in _SCALARS}
    for name in _FLAGS:
        if name in encoded.members and name != "view_as_float" and bool(read(name).any()):
            return encoded.with_problem("refused", "its scales are quantized, too, which ckptool does not decode")
    if any(len(numbers[name]) != 1 for name in _SCALARS[:3]) or not numbers["shape"]:
        return encoded.with_problem("values", "its nbits, group_size, axis or shape have no value")
    bits, size, axis, shape = numbers["nbits"][0], numbers["group_size"][0], numbers["axis"][0], numbers["shape"]
    elements = prod(shape)
    if bits not in _SLABS or axis not in (0, 1) or min(shape) < 1 or size < 1 or elements % size:
        return encoded.with_problem("values", f"nbits {bits}, group_size {size}, axis {axis}, shape {shape} do not fit")
    groups, slabs = elements // size, _SLABS[bits]
    rows, columns = (groups, size) if axis else (size, groups)
    packed = -(-rows // slabs)
    dtype = _dtype_of(encoded, read)
    width = 4 if bits == 3 else 1
    encoded = replace(encoded, spec=TensorSpec(encoded.key, dtype, tuple(shape)))
    if encoded.codes.nbytes != packed * columns * width or (bits != 3 and rows % slabs):
        return encoded.misfit(CODES, f"{packed * columns * width:,} bytes for {shape} in {bits} bits")
    for role in (SCALES, ZEROS):
        if encoded.members[role].elements != groups:
            return encoded.misfit(role, f"one for each of {groups} groups")
    parameters = {"bits": bits, "group": size, "axis": axis, "rows": rows, "columns": columns, "packed": packed}
    return replace(encoded, parameters=parameters, detail=f"{bits}-bit, groups of {size}")


def _dtype_of(encoded: Encoded, read: Read) -> str:
    if "compute_dtype" not in encoded.members or encoded.members["compute_dtype"].nbytes > 64:
        return encoded.spec.dtype
    name = read("compute_dtype").tobytes().decode("ascii", "replace").removeprefix("torch.")
    return name if name in FLOATS else encoded.spec.dtype


def decode(part: Part, start: int, stop: int) -> Array:
    """The elements of the rows in the grouped matrix, from each slab in turn."""
    import numpy as np

    encoded, parameters = part.encoded, part.encoded.parameters
    begin, end, columns = start * encoded.columns, stop * encoded.columns, parameters["columns"]
    first, last = begin // columns, -(-end // columns)
    if parameters["axis"] == 1:
        values = _codes(part, first, last, 0, columns)
        grouped = slice(first, last), None
        factors = [_floats(part, role, *(grouped[0].start, grouped[0].stop))[:, None] for role in (ZEROS, SCALES)]
        values = (values - factors[0]) * factors[1]
        flat = values.reshape(-1)[begin - first * columns : end - first * columns]
        return flat.reshape(stop - start, encoded.columns)
    flat = np.empty(end - begin, np.float32)
    for row in range(first, last):  # [group_size, groups]: a row has one element of each group
        low, high = max(begin, row * columns) - row * columns, min(end, (row + 1) * columns) - row * columns
        values = _codes(part, row, row + 1, low, high)[0]
        values = (values - _floats(part, ZEROS, low, high)) * _floats(part, SCALES, low, high)
        flat[row * columns + low - begin : row * columns + high - begin] = values
    return flat.reshape(stop - start, encoded.columns)


def _codes(part: Part, first: int, last: int, low: int, high: int) -> Array:
    """Rows and columns of the grouped matrix, still as integers, in float32."""
    import numpy as np

    parameters = part.encoded.parameters
    bits, packed, columns = parameters["bits"], parameters["packed"], parameters["columns"]
    slabs = _SLABS[bits]
    out = np.empty((last - first, high - low), np.float32)
    row = first
    while row < last:
        slab, place = divmod(row, packed)
        count = min(last - row, packed - place)
        stored = _stored(part, place, place + count, columns)[:, low:high]
        shift = bits * ((slabs if bits != 3 else 10) - 1 - slab)
        out[row - first : row - first + count] = (stored >> shift) & ((1 << bits) - 1)
        row += count
    return out


def _stored(part: Part, first: int, last: int, columns: int) -> Array:
    """Packed rows as integers; the payload may be disguised as floats and of any shape."""
    import numpy as np

    codes = part.encoded.codes
    width = 4 if part.encoded.parameters["bits"] == 3 else 1
    line = codes.nbytes // codes.shape[0] if codes.shape else codes.nbytes  # bytes of one index of the first axis
    begin, end = first * columns * width, last * columns * width
    low, high = begin // line, -(-end // line)
    octets = np.ascontiguousarray(part.read(CODES, slice(low, high))).reshape(-1).view(np.uint8)
    chosen = octets[begin - low * line : end - low * line]
    return (chosen.view(np.int32) if width == 4 else chosen).reshape(last - first, columns)


def _floats(part: Part, role: str, first: int, last: int) -> Array:
    import numpy as np

    shape = part.encoded.members[role].shape
    box = [slice(first, last) if size > 1 else slice(None) for size in shape]
    return check_finite(part, part.read(role, *box).reshape(-1).astype(np.float32), role)


def granule(encoded: Encoded) -> int:
    """Rows that hold whole groups where possible."""
    return 1


SCHEME = Scheme("HQQ", 5, find, decode, settle)
