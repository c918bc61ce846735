"""What only looks like quantized weights is copied bit by bit; quantized folders are moved whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import FIXTURES
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import ckptool
from ckptool.cli.app import run
from ckptool.engine.dequantize import encoded_of

EXAMPLES = FIXTURES.parent / "tests" / "data" / "encodings"

LIKE: dict[str, torch.Tensor] = {
    "plain.weight": (torch.arange(32.0).reshape(4, 8) / 8).to(torch.float8_e4m3fn),
    "plain.bias": torch.ones(4, dtype=torch.float8_e5m2),
    "norm.scales": torch.arange(4.0),
    "norm.scale": torch.arange(4.0).bfloat16(),
    "embed.weight": torch.arange(-16, 16, dtype=torch.int8).reshape(4, 8),
    "attention.mask": torch.tensor([[True, False], [True, True]]),
    "scaled.weight": torch.arange(8.0).reshape(2, 4),
    "scaled.weight_scale": torch.tensor(3.0),
    "images": torch.arange(48, dtype=torch.uint8).reshape(4, 4, 3),
    "labels": torch.arange(5, dtype=torch.int32),
    "lone.qweight": torch.arange(8, dtype=torch.int32).reshape(2, 4),
    "alone.absmax": torch.arange(3.0),
    "others.zeros": torch.zeros(3, dtype=torch.int8),
    "blocks": torch.zeros(2, 16, dtype=torch.uint8),
}


def bits(path: Path) -> dict[str, bytes]:
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    return {
        key: tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        for file in files
        for key, tensor in load_file(file).items()
    }


@settings(max_examples=12)
@given(names=st.sets(st.sampled_from(sorted(LIKE)), min_size=1), place=st.sampled_from(["", "model.layers.0."]))
def test_look_alikes_are_no_encoding(names: set[str], place: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("like")
    path, out = folder / "in.safetensors", folder / "out.safetensors"
    save_file({place + name: LIKE[name].clone() for name in names}, path)
    assert len(encoded_of(ckptool.open(path))) == 0
    assert run(["filter", str(path), "--dequantize", "-q", "-o", str(out)]) == 0
    assert bits(out) == bits(path)
    assert run(["remap", str(path), "-r", "{k**} -> x.{k}", "--dequantize", "--force", "-q", "-o", str(out)]) == 0
    assert bits(out) == {f"x.{key}": value for key, value in bits(path).items()}


TOUR = ["awq_gemm", "bnb_nf4_nested", "fp8_block_sharded", "gptq_v1_actorder", "mlx_affine_4bit", "mxfp4_gpt_oss"]


@pytest.mark.parametrize("name", TOUR)
def test_quantized_folders_are_cut_renamed_and_sharded_whole(name: str, tmp_path: Path) -> None:
    """What was moved decodes to the numbers that the library gives."""
    source = EXAMPLES / name
    found = encoded_of(ckptool.open(source))
    gone = found[0].key
    cut, moved, plain = tmp_path / "cut", tmp_path / "moved", tmp_path / "plain"
    drop = [option for key in found[0].keys for option in ("--drop", key)]
    assert run(["filter", str(source), *drop, "--max-shard-size", "300B", "-q", "-o", str(cut)]) == 0
    assert len(list(cut.glob("*.safetensors"))) > 1
    assert run(["remap", str(cut), "-r", "{k**} -> outer.{k}", "-q", "-o", str(moved)]) == 0
    assert run(["filter", str(moved), "--dequantize", "-q", "-o", str(plain)]) == 0
    expected = {f"outer.{key}": value for key, value in bits(EXAMPLES / f"{name}.expected.safetensors").items()}
    made = bits(plain)
    assert f"outer.{gone}" not in made
    assert {key: made[key] for key in expected if key != f"outer.{gone}"} == {
        key: value for key, value in expected.items() if key != f"outer.{gone}"
    }
    assert "quantization_config" not in json.loads((plain / "config.json").read_text())
