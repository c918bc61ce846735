"""GPTQ: integers of 2, 3, 4 or 8 bits down the rows of `qweight`, zero points along the columns of `qzeros`.

``W[o, i] = (q[i, o] - z[g_idx[i], o]) * scales[g_idx[i], o]``. Version 1 stores zero points minus one, version 2 as
they are. Files exist whose config says v1 and whose symmetric zero points are those of v2; the stored numbers decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import CODES, SCALES, ZEROS, Encoded, Part, Read, Scheme
from ckptool.encodings.grid import check_finite
from ckptool.encodings.headers import FLOATS, Headers, integer, join
from ckptool.encodings.kernels import over_blocks, stream_values, transposed

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_GROUPS = "groups"
_NAMES = {SCALES: "scales", ZEROS: "qzeros", _GROUPS: "g_idx"}
_BITS = (2, 3, 4, 8)
_FORMATS = {"": 1, "gptq": 1, "gptq_v2": 2}
_WORDS = ("int32", "uint32")


def find(headers: Headers) -> Iterator[Encoded]:
    """int32 `qweight` with as many columns as `scales`."""
    for module in headers.modules.get("qweight", ()):
        codes = headers.specs[join(module, "qweight")]
        scales = headers.get(module, "scales")
        if codes.dtype not in _WORDS or len(codes.shape) != 2:
            continue
        members = {CODES: codes, **headers.beside(module, _NAMES)}
        if not _is_gptq(headers, codes, members):
            continue
        columns, rows = codes.shape[0] * 32 // (_bits_of(headers, members) or 4), codes.shape[1]
        spec = TensorSpec(join(module, "weight"), headers.dtype, (rows, columns))
        encoded = Encoded("GPTQ", spec, members)
        missing = [name for role, name in _NAMES.items() if role not in members and role != _GROUPS]
        if missing:
            yield encoded.with_problem(
                "missing",
                f"{join(module, missing[0])} is not in the file",
                "open the folder with all shards; it may be in another one",
            )
        elif scales is not None:
            yield _check(headers, encoded)


def _is_gptq(headers: Headers, codes: TensorSpec, members: dict[str, TensorSpec]) -> bool:
    """GPTQ's and AWQ's names are the same; the column counts tell them apart."""
    scales = members.get(SCALES)
    if scales is None:
        return _GROUPS in members or "gptq" in headers.method
    return scales.dtype in FLOATS and len(scales.shape) == 2 and scales.shape[1] == codes.shape[1]


def _bits_of(headers: Headers, members: dict[str, TensorSpec]) -> int | None:
    """Bits from the shapes: the words of `qzeros` in a row, or the length of `g_idx`."""
    codes, zeros, groups = members[CODES], members.get(ZEROS), members.get(_GROUPS)
    if groups is not None and groups.elements and not codes.shape[0] * 32 % groups.elements:
        return codes.shape[0] * 32 // groups.elements
    if zeros is not None and len(zeros.shape) == 2 and codes.shape[1] and not zeros.shape[1] * 32 % codes.shape[1]:
        return zeros.shape[1] * 32 // codes.shape[1]
    return integer(headers.quantization.get("bits"), 1, 8)


def _check(headers: Headers, encoded: Encoded) -> Encoded:
    members, config = encoded.members, headers.quantization
    codes, scales, zeros, groups = encoded.codes, members[SCALES], members[ZEROS], members.get(_GROUPS)
    bits = _bits_of(headers, dict(members))
    if bits not in _BITS or not codes.elements or codes.shape[0] * 32 % bits:
        return encoded.misfit(CODES, "a matrix of 2, 3, 4 or 8 bits")
    rows, columns, across = codes.shape[1], codes.shape[0] * 32 // bits, scales.shape[0]
    encoded = replace(encoded, spec=replace(encoded.spec, shape=(rows, columns)))
    varied = isinstance(config.get("dynamic"), Mapping) and bool(config["dynamic"])  # modules have their own numbers
    said = None if varied else integer(config.get("bits"), 1, 64)
    if said and said != bits and "gptq" in (headers.method or "gptq"):
        return encoded.with_problem("config", f"the config says {said} bits, and {codes.key} has {bits}")
    if zeros.dtype not in _WORDS or zeros.shape != (across, -(-rows * bits // 32)):
        return encoded.misfit(ZEROS, f"i32[{across},{-(-rows * bits // 32)}]")
    if groups is not None and (groups.dtype not in ("int32", "int64") or groups.shape != (columns,)):
        return encoded.misfit(_GROUPS, f"i32[{columns}]")
    size = (None if varied else integer(config.get("group_size"))) or (-(-columns // across) if across else 0)
    if not across or -(-columns // size) != across:
        return encoded.misfit(SCALES, f"one row for each group of {size} of {columns}")
    if groups is None and config.get("desc_act") is True and across > 1 and config.get("static_groups") is not True:
        name = join(codes.key.rpartition(".")[0], _NAMES[_GROUPS])
        return encoded.with_problem("missing", f"{name} is not in the file, and the config says desc_act")
    format_ = str(config.get("checkpoint_format") or "")
    if format_ not in _FORMATS:
        return encoded.with_problem("refused", f"its checkpoint_format {format_[:40]!r} is not decoded")
    symmetric = config.get("sym") if isinstance(config.get("sym"), bool) and not varied else None
    parameters = {"bits": bits, "group": size, "version": _FORMATS[format_], "symmetric": symmetric}
    detail = f"{bits}-bit, groups of {size}" if across > 1 else f"{bits}-bit, per channel"
    return replace(encoded, parameters=parameters, detail=detail, needs=(ZEROS, _GROUPS) if groups else (ZEROS,))


def settle(encoded: Encoded, read: Read) -> Encoded:
    """What the stored zero points say of the version; whether each column has a group."""
    import numpy as np

    if _GROUPS in encoded.members and _is_beyond(read(_GROUPS), encoded.members[SCALES].shape[0]):
        text = f"{encoded.members[_GROUPS].key} has groups without a scale"
        return replace(encoded, needs=()).with_problem("values", text)

    bits, version, key = encoded.parameters["bits"], encoded.parameters["version"], encoded.members[ZEROS].key
    encoded = replace(encoded, needs=())
    least, most = (1 << bits) - 1, 0
    for first in range(0, encoded.members[ZEROS].shape[0], 256):
        zeros = stream_values(read(ZEROS, slice(first, first + 256)), bits, encoded.spec.shape[0])
        least, most = min(least, int(np.min(zeros))), max(most, int(np.max(zeros)))
    middle = 1 << (bits - 1)
    symmetric = encoded.parameters["symmetric"]
    is_constant = least == most and least in (middle - 1, middle)
    stored = 1 if least == middle - 1 else 2
    if symmetric and not is_constant:
        return encoded.with_problem("config", f"the config says symmetric, and {key} has several zero points")
    if symmetric is False and is_constant and stored != version and version == 1:
        # all of them 2**(bits - 1), in a file of asymmetric ones that says v1
        return encoded.with_problem("config", f"the config says GPTQ v1 with zero points, and {key} has those of v2")
    if symmetric is not False and is_constant:
        version = stored
    if version == 1 and most == (1 << bits) - 1:
        return encoded.with_problem("values", f"{key} holds {most}, which readers of GPTQ v1 read as different numbers")
    symmetric = is_constant if symmetric is None else symmetric
    return replace(encoded, parameters={**encoded.parameters, "version": version, "symmetric": symmetric})


def decode(part: Part, start: int, stop: int) -> Array:
    """Columns of `qweight`, transposed while they are packed."""
    import numpy as np

    encoded, bits = part.encoded, part.encoded.parameters["bits"]
    columns, group = encoded.columns, encoded.parameters["group"]
    strip = slice(start, stop)
    every = slice(None)
    values = stream_values(transposed(part.matrix(CODES, every, strip)), bits, columns)
    scales = check_finite(part, part.matrix(SCALES, every, strip).astype(np.float32)).T
    first = start // 32  # 32 zero points are `bits` words
    packed = part.matrix(ZEROS, every, slice(first * bits, -(-stop * bits // 32)))
    zeros = stream_values(packed, bits, stop - first * 32)[:, start - first * 32 :].T
    if encoded.parameters["version"] == 1:
        zeros = zeros + np.float32(1)
    order = _order(part, group, columns, scales.shape[1])
    if order is None:
        over_blocks(np.subtract, values, zeros, group)
        return over_blocks(np.multiply, values, scales, group)
    values -= np.take(zeros, order, axis=1, mode="clip")
    values *= np.take(scales, order, axis=1, mode="clip")
    return values


def _order(part: Part, group: int, columns: int, groups: int) -> Array | None:
    """The group of each column; None if they are in order."""
    import numpy as np

    if _GROUPS not in part.encoded.members:
        return None
    order = part.whole(_GROUPS).astype(np.int64)
    if _is_beyond(order, groups):
        raise part.error(f"{part.encoded.members[_GROUPS].key} has groups without a scale")
    return None if np.array_equal(order, np.arange(columns) // group) else order


def _is_beyond(order: Array, groups: int) -> bool:
    return bool(order.size and (order.min() < 0 or order.max() >= groups))


SCHEME = Scheme("GPTQ", 20, find, decode, settle, granule=lambda encoded: 32)
