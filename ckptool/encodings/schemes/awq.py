"""AWQ, version GEMM: eight 4-bit integers in a word along the outputs, in the order 0 2 4 6 1 3 5 7.

``W[o, i] = (q[i, o] - z[i // g, o]) * scales[i // g, o]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import CODES, SCALES, ZEROS, Encoded, Part, Scheme
from ckptool.encodings.grid import check_finite
from ckptool.encodings.headers import FLOATS, Headers, integer, join
from ckptool.encodings.kernels import over_blocks, transposed

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_NAMES = {SCALES: "scales", ZEROS: "qzeros"}
_NIBBLES = (0, 4, 1, 5, 2, 6, 3, 7)
_PER_WORD = 8
_WORDS = ("int32", "uint32")


def find(headers: Headers) -> Iterator[Encoded]:
    """int32 `qweight` with an eighth of the columns of `scales`."""
    for module in headers.modules.get("qweight", ()):
        codes, scales = headers.specs[join(module, "qweight")], headers.get(module, "scales")
        if codes.dtype not in _WORDS or len(codes.shape) != 2:
            continue
        rows, columns = codes.shape[1] * _PER_WORD, codes.shape[0]
        members = {CODES: codes, **headers.beside(module, _NAMES)}
        encoded = Encoded("AWQ", TensorSpec(join(module, "weight"), headers.dtype, (rows, columns)), members)
        is_awq = headers.method == "awq"
        if scales is None:
            if is_awq:
                yield encoded.with_problem("missing", f"{join(module, 'scales')} is not in the file")
        elif scales.dtype in FLOATS and len(scales.shape) == 2 and (scales.shape[1] == rows or is_awq):
            yield _check(headers, encoded)


def _check(headers: Headers, encoded: Encoded) -> Encoded:
    codes, scales, zeros = encoded.codes, encoded.members[SCALES], encoded.members.get(ZEROS)
    config, (rows, columns), across = headers.quantization, encoded.spec.shape, scales.shape[0]
    version = str(config.get("version") or "gemm").lower()
    if version != "gemm" or scales.shape[1] != rows:
        name = f"version {version[:20]!r}" if version != "gemm" else "another layout than GEMM"
        return encoded.with_problem("refused", f"it is AWQ of {name}, which ckptool does not decode")
    bits = integer(config.get("bits", config.get("w_bit")), 1, 64)
    if bits not in (None, 4):
        return encoded.with_problem("config", f"the config says {bits} bits; AWQ's layout is for 4")
    size = integer(config.get("group_size", config.get("q_group_size"))) or (columns // across if across else 0)
    if not size or not codes.elements or -(-columns // size) != across:
        return encoded.misfit(SCALES, f"one row for each group of {size} of {columns}")
    if zeros is not None and (zeros.dtype not in _WORDS or zeros.shape != (across, codes.shape[1])):
        return encoded.misfit(ZEROS, f"i32[{across},{codes.shape[1]}]")
    if zeros is None and config.get("zero_point") is not False:
        name = codes.key.removesuffix("qweight") + "qzeros"
        return encoded.with_problem("missing", f"{name} is not in the file", "open the folder with all shards")
    parameters = {"bits": 4, "group": size, "symmetric": zeros is None}
    return replace(encoded, parameters=parameters, detail=f"4-bit, groups of {size}")


def decode(part: Part, start: int, stop: int) -> Array:
    """Columns of words, transposed while they are packed."""
    import numpy as np

    encoded, group = part.encoded, part.encoded.parameters["group"]
    first, last = start // _PER_WORD, -(-stop // _PER_WORD)
    every, strip = slice(None), slice(first * _PER_WORD, last * _PER_WORD)
    values = _unpack(part.matrix(CODES, every, slice(first, last)))
    scales = check_finite(part, part.matrix(SCALES, every, strip).astype(np.float32)).T
    if ZEROS in encoded.members:
        over_blocks(np.subtract, values, _unpack(part.matrix(ZEROS, every, slice(first, last))), group)
    else:
        values -= np.float32(8)
    values = over_blocks(np.multiply, values, scales, group)
    return values[start - first * _PER_WORD : stop - first * _PER_WORD]


def _unpack(words: Array) -> Array:
    """Words ``[in, out / 8]`` to float32 ``[out, in]``."""
    import numpy as np

    turned = transposed(words).view(np.uint32)
    out = np.empty((len(turned), _PER_WORD, turned.shape[1]), np.float32)
    for place, nibble in enumerate(_NIBBLES):
        out[:, place] = (turned >> np.uint32(4 * nibble)) & np.uint32(15)
    return out.reshape(-1, turned.shape[1])


SCHEME = Scheme("AWQ", 21, find, decode, granule=lambda encoded: _PER_WORD)
