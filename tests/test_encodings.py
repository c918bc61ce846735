"""Encoded tensors: recognised from headers, decoded as the library that wrote them does."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT
from encodings_harness import decoded, found_in, same_bits

from ckptool.core.arrays import numpy_dtype
from ckptool.engine.reading import read_array
from ckptool.formats.opening import open_checkpoint

EXAMPLES = ROOT / "tests" / "data" / "encodings"
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if list(path.glob("*.safetensors")))
TITLES = {
    "awq_gemm": {"AWQ 4-bit, groups of 32"},
    "bnb_nf4_nested": {"bitsandbytes nf4, blocks of 64, nested"},
    "fp8_block_sharded": {"fp8 128×128 blocks"},
    "gptq_v1_actorder": {"GPTQ 4-bit, groups of 16"},
    "look_alike": set(),
    "mlx_affine_4bit": {"MLX 4-bit, groups of 32"},
    "mxfp4_gpt_oss": {"mxfp4 experts groups of 32, transposed"},
}


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_decoded_to_the_expected_values(name: str) -> None:
    folder = EXAMPLES / name
    checkpoint = open_checkpoint(folder / "look_alike.safetensors" if name == "look_alike" else folder)
    arrays = {key: read_array(tensor) for key, tensor in checkpoint.tensors.items()}
    config = folder / "config.json"
    config = json.loads(config.read_text(encoding="utf-8")) if config.exists() else None
    found = found_in(arrays, config, checkpoint.metadata)
    assert {encoded.title for encoded in found.values()} == TITLES[name]
    values = decoded(arrays, config, checkpoint.metadata)
    expected = EXAMPLES / f"{name}.expected.safetensors"
    tensors = open_checkpoint(expected).tensors if expected.exists() else {}
    assert set(values) == set(tensors)
    for key, tensor in tensors.items():
        assert found[key].spec.dtype == tensor.dtype
        same_bits(values[key].astype(numpy_dtype(tensor.dtype)), read_array(tensor))
