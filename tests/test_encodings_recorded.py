"""Decoders against results that the libraries gave (``tests/oracles/encodings.py --record``), and their memory."""

from __future__ import annotations

import base64
import hashlib
import json
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import ROOT
from encodings_harness import decoded, same_bits

from ckptool.core.arrays import numpy_dtype
from ckptool.core.errors import CkptError
from ckptool.core.spec import TensorSpec
from ckptool.encodings.gguf import BLOCK_TYPES, decode_type
from ckptool.encodings.registry import decode_blocks, recognise, settle

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

DATA = ROOT / "tests" / "data" / "encodings"


def lines_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="ascii").splitlines()]


CASES = lines_of("recorded.jsonl")
TYPES = lines_of("gguf_types.jsonl")


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_a_decoder_gives_what_the_library_gives(case: dict[str, Any]) -> None:
    arrays = {
        key: np.frombuffer(zlib.decompress(base64.b85decode(text)), np.uint8).view(numpy_dtype(dtype)).reshape(shape)
        for key, (dtype, shape, text) in case["arrays"].items()
    }
    ((_, values),) = decoded(arrays, case["config"], case["metadata"]).items()
    rounded = np.ascontiguousarray(values.astype(numpy_dtype(case["dtype"])))
    assert hashlib.sha256(rounded.tobytes()).hexdigest() == case["sha256"]


@pytest.mark.parametrize("line", TYPES, ids=[line["type"] for line in TYPES])
def test_a_gguf_type_gives_what_gguf_py_gives(line: dict[str, Any]) -> None:
    block_type = BLOCK_TYPES[line["type"].lower()]
    raw = np.frombuffer(base64.b85decode(line["raw"]), np.uint8).reshape(-1, block_type.nbytes)
    values = decode_type(block_type, raw)
    assert values.shape == (len(raw), block_type.elements)
    assert hashlib.sha256(values.astype("<f4").tobytes()).hexdigest() == line["sha256"]
    same_bits(decode_type(block_type, raw.reshape(1, -1)).reshape(values.shape), values)


def test_gguf_types_that_gguf_py_has_no_decoder_for() -> None:
    scale = np.array([2.0], np.float16).view(np.uint8).tolist()
    ones = decode_type(BLOCK_TYPES["q1_0"], np.array([[*scale, 0b101, *[0] * 15]], np.uint8))
    assert ones[0, :4].tolist() == [2, -2, 2, -2]
    twos = decode_type(BLOCK_TYPES["q2_0"], np.array([[*scale, 0b11100100, *[0] * 15]], np.uint8))
    assert twos[0, :5].tolist() == [-2, 0, 2, 4, -2]


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_big_endian_blocks_are_swapped_or_refused(name: str) -> None:
    block_type = BLOCK_TYPES[name]
    raw = np.random.default_rng(1).integers(0, 60, (3, block_type.nbytes), dtype=np.uint8)
    if block_type.halves is None:
        with pytest.raises(CkptError, match="big-endian"):
            decode_type(block_type, raw, big_endian=True)
        return
    swapped = raw.copy()
    for offset in block_type.halves:
        swapped[:, offset : offset + 2] = raw[:, offset : offset + 2][:, ::-1]
    same_bits(decode_type(block_type, swapped, big_endian=True), decode_type(block_type, raw))


def test_packed_integers_with_permuted_groups() -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 16, (32, 64))
    words = (codes.reshape(32, 8, 8) << (4 * np.arange(8))).sum(axis=2).astype(np.uint32).view(np.int32)
    zeros = rng.integers(0, 16, (32, 2))
    packed = (zeros.reshape(4, 8, 2) << (4 * np.arange(8))[:, None]).sum(axis=1).astype(np.uint32).view(np.int32)
    groups, scales = rng.permutation(np.arange(64) // 32), rng.random((32, 2)).astype(np.float32)
    arrays = {
        "m.weight_packed": words,
        "m.weight_scale": scales,
        "m.weight_shape": np.array([32, 64]),
        "m.weight_zero_point": packed,
        "m.weight_g_idx": groups.astype(np.int32),
    }
    (values,) = decoded(arrays).values()
    same_bits(values, (codes - zeros[:, groups]).astype(np.float32) * scales[:, groups])
    arrays["m.weight_g_idx"] = np.full(64, -1, np.int32)  # not used
    (values,) = decoded(arrays).values()
    plain = np.arange(64) // 32
    same_bits(values, (codes - zeros[:, plain]).astype(np.float32) * scales[:, plain])


LARGE: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {
    "fp8 blocks": {"m.weight": ("float8_e4m3fn", (512, 65536)), "m.weight_scale_inv": ("float32", (4, 512))},
    "fp8 experts": {"m.up_proj": ("float8_e4m3fn", (16, 256, 8192)), "m.up_proj_scale_inv": ("float32", (16, 2, 64))},
    "mxfp4": {"m.weight_packed": ("uint8", (512, 32768)), "m.weight_scale": ("uint8", (512, 2048))},
    "gpt-oss": {"m.w_blocks": ("uint8", (2, 4096, 128, 16)), "m.w_scales": ("uint8", (2, 4096, 128))},
    "GPTQ": {
        "m.qweight": ("int32", (4096, 1024)),
        "m.qzeros": ("int32", (256, 128)),
        "m.scales": ("float16", (256, 1024)),
        "m.g_idx": ("int32", (32768,)),
    },
    "AWQ": {
        "m.qweight": ("int32", (32768, 128)),
        "m.qzeros": ("int32", (256, 128)),
        "m.scales": ("float16", (256, 1024)),
    },
    "MLX": {
        "m.weight": ("uint32", (1024, 4096)),
        "m.scales": ("float16", (1024, 512)),
        "m.biases": ("float16", (1024, 512)),
    },
}


@pytest.mark.parametrize("name", LARGE)
def test_memory_does_not_grow_with_the_tensor(name: str) -> None:
    specs = {key: TensorSpec(key, dtype, shape) for key, (dtype, shape) in LARGE[name].items()}
    config = {"quantization": {"bits": 4, "group_size": 64}} if name == "MLX" else None
    (encoded,) = recognise(specs, config, {})

    def read(role: str, /, *box: slice) -> Array:
        spec = encoded.members[role]
        nothing = np.zeros((), numpy_dtype(spec.dtype))
        return np.broadcast_to(nothing, spec.shape)[box].copy()

    encoded = settle(encoded, read)
    elements = 0
    tracemalloc.start()
    try:
        for block in decode_blocks(encoded, read):
            elements += block.size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert elements == encoded.spec.elements >= 1 << 25
    assert peak < 40 << 20, f"{peak / 1e6:.0f} MB"
