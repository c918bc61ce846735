"""MLX: integers or small floats in 32-bit words along each row, `scales` and, for integers, `biases`.

Affine: ``W = q * scale + bias``, product and sum in float32 (MLX itself rounds both to the scales' dtype). mxfp4,
mxfp8, nvfp4: bytes as in other MX and NV schemes, `scales` are exponents or E4M3 bytes, no biases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import CODES, SCALES, Encoded, Part, Scheme
from ckptool.encodings.grid import check_finite
from ckptool.encodings.headers import FLOATS, Headers, integer, join
from ckptool.encodings.kernels import byte_values, e2m1_table, float8_values, over_blocks, stream_values, table_values

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

_BIASES = "biases"
_BITS, _SIZES = (2, 3, 4, 5, 6, 8), (16, 32, 64, 128)
_MODES = {"mxfp4": (4, 32), "nvfp4": (4, 16), "mxfp8": (8, 32)}
_PAYLOAD = frozenset({"uint32"})


def find(headers: Headers) -> Iterator[Encoded]:
    """uint32 weights with `scales` of the same leading axes."""
    for module, last, codes in headers.payloads(_PAYLOAD):
        scales = headers.get(module, "scales")
        if last != "weight" or scales is None or len(scales.shape) != len(codes.shape):
            continue
        biases = headers.get(module, _BIASES) or headers.get(module, "qbiases")
        members = {CODES: codes, SCALES: scales} | ({_BIASES: biases} if biases else {})
        bits = 4
        spec = TensorSpec(join(module, last), headers.dtype, (*codes.shape[:-1], codes.shape[-1] * 32 // bits))
        encoded = Encoded("MLX", spec, members, lead=len(codes.shape) - 2)
        if scales.dtype == "uint8" and biases is None:
            yield _with_layout(encoded, _small_floats(codes, scales, _said(headers, module)))
        elif scales.dtype in FLOATS and _is_quantized(headers) and biases is None:
            yield encoded.with_problem("missing", f"{join(module, _BIASES)} is not in the file")
        elif scales.dtype in FLOATS and biases is not None:
            fits = biases.dtype in FLOATS and biases.shape == scales.shape and scales.shape[:-1] == codes.shape[:-1]
            yield _with_layout(encoded, _affine(codes, scales, _said(headers, module)) if fits else [])


def _is_quantized(headers: Headers) -> bool:
    return headers.metadata.get("format") == "mlx" or "quantization" in headers.config


def _said(headers: Headers, module: str) -> Mapping[str, Any]:
    """What the config says of a module: its own entry over the general one."""
    own = headers.quantization.get(module)
    return {**headers.quantization, **own} if isinstance(own, Mapping) else headers.quantization


def _affine(codes: TensorSpec, scales: TensorSpec, said: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    return [
        ("affine", bits, size)
        for bits in _BITS
        for size in _SIZES
        if scales.shape[-1] * size * bits == codes.shape[-1] * 32
        and said.get("bits", bits) == bits
        and said.get("group_size", size) == size
    ]


def _small_floats(codes: TensorSpec, scales: TensorSpec, said: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    return [
        (mode, bits, size)
        for mode, (bits, size) in _MODES.items()
        if scales.shape[:-1] == codes.shape[:-1]
        and scales.shape[-1] * size * bits == codes.shape[-1] * 32
        and said.get("mode", mode) == mode
        and integer(said.get("bits", bits)) == bits
    ]


def _with_layout(encoded: Encoded, layouts: list[tuple[str, int, int]]) -> Encoded:
    codes, scales = encoded.codes, encoded.members[SCALES]
    if not layouts or not codes.elements:
        return encoded.with_problem(
            "misshapen",
            f"{codes.key} is {codes.short} and {scales.key} is {scales.short}: no bits and group size fit both",
        )
    if len(layouts) > 1:
        choices = ", ".join(f"{bits}-bit in groups of {size}" for _, bits, size in layouts)
        return encoded.with_problem("config", f"its shapes fit {choices}", "config.json says which one")
    ((mode, bits, size),) = layouts
    shape = (*codes.shape[:-1], codes.shape[-1] * 32 // bits)
    detail = f"{mode}, groups of {size}" if mode != "affine" else f"{bits}-bit, groups of {size}"
    parameters = {"mode": mode, "bits": bits, "block": (1, size)}
    return replace(encoded, spec=replace(encoded.spec, shape=shape), parameters=parameters, detail=detail)


def decode(part: Part, start: int, stop: int) -> Array:
    """Codes times scales, plus biases."""
    import numpy as np

    encoded, strip = part.encoded, slice(start, stop)
    mode, bits, width = encoded.parameters["mode"], encoded.parameters["bits"], encoded.parameters["block"][1]
    words, scales = part.matrix(CODES, strip), part.matrix(SCALES, strip)
    if mode == "affine":
        values = stream_values(words, bits, encoded.columns)
        over_blocks(np.multiply, values, check_finite(part, scales.astype(np.float32)), width)
        biases = check_finite(part, part.matrix(_BIASES, strip).astype(np.float32), _BIASES)
        return over_blocks(np.add, values, biases, width)
    octets = np.ascontiguousarray(words).view(np.uint8)
    values = float8_values(octets, "float8_e4m3fn") if mode == "mxfp8" else table_values(octets, e2m1_table())
    factors = byte_values("float8_e4m3fn" if mode == "nvfp4" else "float8_e8m0fnu")[scales]
    return over_blocks(np.multiply, values, factors, width)


SCHEME = Scheme("MLX", 20, find, decode)
