"""bitsandbytes 4-bit (nf4, fp4): codes of a table in flat order, high nibble first, a scale for each block.

``W = map[code] * a[i // blocksize]``; nested: ``a = nested_map[absmax] * nested_absmax[i // 256] + nested_offset``. The
shape is in the JSON of `quant_state.*`. The payload may be disguised as floats (`bnb_4bit_quant_storage`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.encodings.encoded import CODES, SCALES, Encoded, Part, Read, Scheme
from ckptool.encodings.grid import check_finite
from ckptool.encodings.headers import Headers, integer, join, json_object
from ckptool.encodings.kernels import over_blocks, table_values

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_STATE, _TABLE, _NESTED, _NESTED_TABLE = "state", "table", "nested_scales", "nested_table"
_NAMES = {SCALES: "absmax", _TABLE: "quant_map", _NESTED: "nested_absmax", _NESTED_TABLE: "nested_quant_map"}
_KINDS = ("nf4", "fp4")
_STORAGE = ("uint8", "int8", "bfloat16", "float16", "float32")


def find(headers: Headers) -> Iterator[Encoded]:
    """Payloads with a `quant_state`, or with a table of 16 and `absmax` and no state."""
    for kind in _KINDS:
        for module in headers.modules.get(f"bitsandbytes__{kind}", ()):
            key = module.removesuffix("quant_state").rstrip(".")
            if module.endswith("quant_state") and key in headers.specs:
                yield _encoded(headers, key, kind, headers.get(module, f"bitsandbytes__{kind}"))
    for key in headers.modules.get("quant_map", ()):
        names = (f"quant_state.bitsandbytes__{kind}" for kind in _KINDS)
        is_alone = key in headers.specs and not any(headers.get(key, name) for name in names)
        table = headers.get(key, "quant_map")
        if is_alone and table is not None and table.shape == (16,) and headers.get(key, "absmax"):
            yield _encoded(headers, key, "4-bit", None)


def _encoded(headers: Headers, key: str, kind: str, state: TensorSpec | None) -> Encoded:
    codes = headers.specs[key]
    members = {CODES: codes, **headers.beside(key, _NAMES)}
    spec = TensorSpec(key, headers.dtype, (2 * codes.nbytes,))
    encoded = Encoded("bitsandbytes", spec, members, {"kind": kind}, (_STATE,), detail=kind)
    if state is None:
        return encoded.with_problem("missing", f"{key}.quant_state is not in the file, which has its shape")
    encoded = replace(encoded, members={**members, _STATE: state})
    nested = _NESTED in members or _NESTED_TABLE in members
    for role in (SCALES, _TABLE, *((_NESTED, _NESTED_TABLE) if nested else ())):
        if role not in members:
            return encoded.with_problem("missing", f"{join(key, _NAMES[role])} is not in the file")
    expected = {_TABLE: ("float32", 16), SCALES: ("uint8" if nested else "float32", members[SCALES].elements)}
    if nested:
        expected |= {_NESTED: ("float32", members[_NESTED].elements), _NESTED_TABLE: ("float32", 256)}
    for role, (dtype, elements) in expected.items():
        member = members[role]
        if member.dtype != dtype or member.elements != elements or len(member.shape) != 1:
            short = DTYPES[dtype].short
            return encoded.with_problem("misshapen", f"{member.key} is {member.short}, not {short}[{elements}]")
    if codes.dtype not in _STORAGE or state.dtype != "uint8" or state.nbytes > 1 << 16:
        return encoded.with_problem("misshapen", f"{codes.key} is {codes.short}, {state.key} is {state.short}")
    return encoded


def settle(encoded: Encoded, read: Read) -> Encoded:
    """Shape, dtype, block sizes and offset of the JSON."""
    encoded = replace(encoded, needs=())
    state, members = json_object(read(_STATE).tobytes()), encoded.members
    if state is None:
        return encoded.with_problem("values", f"{members[_STATE].key} is not a JSON object")
    shape = state.get("shape")
    dtype = str(state.get("dtype")).removeprefix("torch.")
    block = integer(state.get("blocksize"), 2, 1 << 20)
    if not isinstance(shape, list) or not 0 < len(shape) <= 8 or any(integer(size, 0) is None for size in shape):
        return encoded.with_problem("values", f"{members[_STATE].key} has no shape: {str(shape)[:80]}")
    if block is None or block % 2 or state.get("quant_type") != encoded.parameters["kind"]:
        return encoded.with_problem("values", f"{members[_STATE].key} does not describe the tensor: {str(state)[:120]}")
    if dtype not in DTYPES or DTYPES[dtype].kind != "float":
        return encoded.with_problem("values", f"{members[_STATE].key} names the dtype {dtype[:40]!r}")
    elements, item = prod(shape), DTYPES[encoded.codes.dtype].bits // 8
    encoded = replace(encoded, spec=TensorSpec(encoded.key, dtype, tuple(shape)))
    if not 0 <= encoded.codes.nbytes - -(-elements // 2) < item:
        return encoded.misfit(CODES, f"{-(-elements // 2):,} bytes, as {shape} needs")
    if members[SCALES].elements != -(-elements // block):
        return encoded.misfit(SCALES, f"one for each of {-(-elements // block):,} blocks")
    parameters: dict[str, Any] = {**encoded.parameters, "block": block}
    if _NESTED in members:
        inner, offset = integer(state.get("nested_blocksize"), 1, 1 << 20), state.get("nested_offset")
        if inner is None or not isinstance(offset, float | int) or isinstance(offset, bool) or not isfinite(offset):
            return encoded.with_problem("values", f"{members[_STATE].key} lacks nested_blocksize or nested_offset")
        if members[_NESTED].elements != -(-members[SCALES].elements // inner):
            return encoded.misfit(_NESTED, f"one for each {inner} scales")
        parameters |= {"nested_block": inner, "offset": float(offset)}
    detail = f"{parameters['kind']}, blocks of {block}" + (", nested" if _NESTED in members else "")
    return replace(encoded, parameters=parameters, detail=detail)


def decode(part: Part, start: int, stop: int) -> Array:
    """The blocks that cover the rows, in flat order."""
    import numpy as np

    encoded, block = part.encoded, part.encoded.parameters["block"]
    columns, elements = encoded.columns, encoded.spec.elements
    first, last = start * columns // block, -(-stop * columns // block)
    begin, end = first * block, min(last * block, elements)
    table = check_finite(part, part.whole(_TABLE).astype(np.float32), _TABLE)
    values = table_values(_bytes(part, begin // 2, -(-end // 2))[None], table, 4, high_first=True)[:, : end - begin]
    over_blocks(np.multiply, values, _scales(part, first, last)[None], block)
    return values[0, start * columns - begin : stop * columns - begin].reshape(stop - start, columns)


def _bytes(part: Part, begin: int, end: int) -> Array:
    """Bytes of the payload, whatever its dtype is."""
    import numpy as np

    codes = part.encoded.codes
    item, inner = DTYPES[codes.dtype].bits // 8, max(1, prod(codes.shape[1:]))
    width = item * inner  # bytes of one index of the first axis
    low, high = begin // width, -(-end // width)
    stored = np.ascontiguousarray(part.read(CODES, slice(low, high))).reshape(-1).view(np.uint8)
    return stored[begin - low * width : end - low * width]


def _scales(part: Part, first: int, last: int) -> Array:
    import numpy as np

    stored = part.read(SCALES, slice(first, last))
    if _NESTED not in part.encoded.members:
        return check_finite(part, stored.astype(np.float32))
    inner = part.encoded.parameters["nested_block"]
    table = check_finite(part, part.whole(_NESTED_TABLE).astype(np.float32), _NESTED_TABLE)
    low = first // inner
    outer = check_finite(part, part.read(_NESTED, slice(low, -(-last // inner))).astype(np.float32), _NESTED)
    scales: Array = table[stored] * outer[np.arange(first, last) // inner - low]
    scales += np.float32(part.encoded.parameters["offset"])
    return scales


SCHEME = Scheme("bitsandbytes", 0, find, decode, settle)
