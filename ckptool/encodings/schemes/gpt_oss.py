"""gpt-oss's MXFP4 experts: `*_blocks` of 16 bytes and `*_scales`; the logical tensor is their transpose.

``W[e, i, r] = E2M1[nibble i % 32 of blocks[e, r, i // 32]] * 2**(scales[e, r, i // 32] - 127)``, low nibble first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import CODES, SCALES, Encoded, Part, Scheme
from ckptool.encodings.headers import Headers, join
from ckptool.encodings.kernels import e2m1_table, float_scales, table_values, transposed

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_SUFFIX = "_blocks"
_GROUP = 32


def find(headers: Headers) -> Iterator[Encoded]:
    """uint8 tensors [experts, rows, groups, 16] named `*_blocks`."""
    for last, modules in headers.modules.items():
        if not last.endswith(_SUFFIX):
            continue
        name = last.removesuffix(_SUFFIX)
        for module in modules:
            codes, scales = headers.specs[join(module, last)], headers.get(module, f"{name}_scales")
            if codes.dtype != "uint8" or len(codes.shape) != 4 or codes.shape[3] != _GROUP // 2:
                continue
            experts, rows, groups, _ = codes.shape
            spec = TensorSpec(join(module, name), headers.dtype, (experts, groups * _GROUP, rows))
            members = {CODES: codes} if scales is None else {CODES: codes, SCALES: scales}
            encoded = Encoded("mxfp4 experts", spec, members, lead=1, detail="groups of 32, transposed")
            if scales is None:
                yield encoded.with_problem("missing", f"{join(module, name)}_scales is not in the file")
            elif scales.dtype not in ("uint8", "float8_e8m0fnu") or scales.shape != codes.shape[:3]:
                yield encoded.with_problem(
                    "misshapen", f"{scales.key} is {scales.short}; {codes.key} needs u8[{experts},{rows},{groups}]"
                )
            else:
                yield encoded


def decode(part: Part, start: int, stop: int) -> Array:
    """The groups of all rows that hold these columns, transposed while they are bytes."""
    import numpy as np

    first, last = start // _GROUP, -(-stop // _GROUP)
    every = slice(None)
    box = (*(slice(index, index + 1) for index in part.at), every, slice(first, last))
    rows, groups = part.encoded.columns, last - first
    packed = transposed(part.read(CODES, *box).reshape(rows, groups * (_GROUP // 2)))
    scales = float_scales(transposed(part.read(SCALES, *box).reshape(rows, groups)))
    if rows % 2:
        packed = np.pad(packed, ((0, 0), (0, 1)))
    even, odd = packed[:, 0::2], packed[:, 1::2]
    values = np.empty((groups, _GROUP // 2, 2, rows), np.float32)
    for place, pairs in enumerate(((even & 15) | (odd << 4), (even >> 4) | (odd & 0xF0))):  # of neighbours in a row
        codes = table_values(pairs, e2m1_table())[:, :rows].reshape(groups, _GROUP // 2, rows)
        np.multiply(codes, scales[:, None, :], out=values[:, :, place])
    return values.reshape(groups * _GROUP, rows)[start - first * _GROUP : stop - first * _GROUP]


SCHEME = Scheme("mxfp4 experts", 10, find, decode, granule=lambda encoded: _GROUP)
