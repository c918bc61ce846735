"""`from_pretrained` takes decoded folders: nothing is missing, and the outputs are those of decoding in memory."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ckptool.cli.app import run
from ckptool.models import import_torchvision

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import_torchvision()  # which transformers imports in its own way
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")


def quantized_llama(folder: Path) -> dict[str, torch.Tensor]:
    """A tiny Llama in fp8 blocks, the scales in a shard of their own; gives its weights, dequantized in memory."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    shutil.copytree(folder, folder.with_name("original"))
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weights, scales, plain = {}, {}, {}
    for key, tensor in state.items():
        if not key.endswith("_proj.weight"):
            weights[key] = plain[key] = tensor
            continue
        rows, columns = tensor.shape
        grid = torch.rand(-(-rows // 16), -(-columns // 16)) / 64 + 1e-3
        spread = grid.repeat_interleave(16, 0)[:rows].repeat_interleave(16, 1)[:, :columns]
        weights[key] = (tensor.float() / spread).clamp(-448, 448).to(torch.float8_e4m3fn)
        scales[f"{key}_scale_inv"] = grid
        plain[key] = (weights[key].float() * spread).to(torch.bfloat16)
    names = {
        key: f"model-0000{number}-of-00002.safetensors" for number, part in ((1, weights), (2, scales)) for key in part
    }
    for name, part in (("model-00001-of-00002.safetensors", weights), ("model-00002-of-00002.safetensors", scales)):
        save_file(part, folder / name, {"format": "pt"})
    index = {"metadata": {"total_size": 0}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    described = json.loads((folder / "config.json").read_text())
    described["quantization_config"] = {
        "quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [16, 16], "activation_scheme": "dynamic",
        "modules_to_not_convert": ["lm_head"],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(described))
    return plain


@pytest.mark.parametrize("command", ["filter", "remap", "merge"])
def test_from_pretrained_takes_decoded_folders(command: str, tmp_path: Path) -> None:
    plain, out = quantized_llama(tmp_path / "fp8"), tmp_path / "plain"
    source = str(tmp_path / "fp8")
    arguments = {
        "filter": [source],
        "remap": [source, "-r", "?model.nothing. -> model.something."],
        "merge": [source, source, "--method", "linear"],
    }[command]
    shards = ["--max-shard-size", "20kB"]
    assert run([command, *arguments, "--dequantize", *shards, "-o", str(out)]) == 0
    assert_loads(out, plain, tmp_path / "original")


# ---------------------------------------------------------------------------------------------- four bits

Weights = dict[str, torch.Tensor]
INTERLEAVED = [0, 2, 4, 6, 1, 3, 5, 7]  # which column each nibble of AWQ's words holds
E2M1 = torch.tensor([0.0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def words(codes: torch.Tensor, order: list[int] | None = None) -> torch.Tensor:
    """Eight numbers of 4 bits of the last axis in an int32, the first one lowest."""
    eights = codes.long().unflatten(-1, (-1, 8))[..., order or list(range(8))]
    return (eights << (4 * torch.arange(8))).sum(-1).to(torch.uint32).view(torch.int32)


def compressed_int4(codes: torch.Tensor, zeros: torch.Tensor, scales: torch.Tensor) -> Weights:
    """compressed-tensors' pack-quantized, symmetric."""
    shape = torch.tensor(codes.shape)
    return {"weight_packed": words(codes), "weight_scale": scales.bfloat16(), "weight_shape": shape}


def gptq(codes: torch.Tensor, zeros: torch.Tensor, scales: torch.Tensor) -> Weights:
    """GPTQ: words go down the rows of the transposed weight, and zeros are stored less one."""
    groups = torch.arange(codes.shape[1], dtype=torch.int32) // 16
    packed = words(codes).T.contiguous()
    return {"qweight": packed, "qzeros": words(zeros.T - 1), "scales": scales.T.contiguous().half(), "g_idx": groups}


def awq(codes: torch.Tensor, zeros: torch.Tensor, scales: torch.Tensor) -> Weights:
    """AWQ: words go along the rows of the transposed weight, interleaved."""
    qweight, qzeros = words(codes.T, INTERLEAVED), words(zeros.T, INTERLEAVED)
    return {"qweight": qweight, "qzeros": qzeros, "scales": scales.T.contiguous().half()}


PACKED = {
    "compressed-tensors": (
        compressed_int4,
        True,
        {
            "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
                "num_bits": 4, "type": "int", "strategy": "group", "group_size": 16, "symmetric": True,
            }}},
        },
    ),
    "gptq": (gptq, False, {"quant_method": "gptq", "bits": 4, "group_size": 16, "sym": False, "desc_act": False}),
    "awq": (awq, False, {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm"}),
}  # fmt: skip


def assert_loads(folder: Path, plain: Weights, original: Path) -> None:
    """transformers loads a folder, nothing is missing, and it is the model of these weights."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype="auto")
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == torch.bfloat16
    assert not hasattr(model.config, "quantization_config")
    assert model.state_dict().keys() >= plain.keys()
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in plain.items())
    reference = transformers.AutoModelForCausalLM.from_pretrained(original, dtype="auto")
    reference.load_state_dict(plain)
    tokens = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        one, two = (each.eval()(tokens).logits for each in (model, reference))
    assert torch.equal(one, two)


def describe(folder: Path, quantization: dict[str, object]) -> None:
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, "quantization_config": quantization}))


@pytest.mark.parametrize("scheme", PACKED)
def test_from_pretrained_takes_decoded_four_bits(scheme: str, tmp_path: Path) -> None:
    encode, symmetric, quantization = PACKED[scheme]
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=48, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    original, source, out = tmp_path / "original", tmp_path / "packed", tmp_path / "plain"
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(original)
    shutil.copytree(original, source)
    stored: Weights = {}
    plain: Weights = {}
    for key, tensor in load_file(original / "model.safetensors").items():
        if not key.endswith("_proj.weight"):
            stored[key] = plain[key] = tensor
            continue
        rows, columns = tensor.shape
        codes = torch.randint(0, 16, (rows, columns))
        zeros = torch.full((rows, columns // 16), 8) if symmetric else torch.randint(1, 16, (rows, columns // 16))
        scales = (torch.rand(rows, columns // 16) / 64 + 1e-3).bfloat16().float()  # float16 holds these, too
        stored |= {f"{key.removesuffix('weight')}{name}": part for name, part in encode(codes, zeros, scales).items()}
        wide = (each.repeat_interleave(16, 1) for each in (zeros, scales))
        plain[key] = ((codes - next(wide)).float() * next(wide)).bfloat16()
    save_file(stored, source / "model.safetensors", {"format": "pt"})
    describe(source, quantization)
    assert run(["filter", str(source), "--dequantize", "-o", str(out)]) == 0
    assert_loads(out, plain, original)


def test_from_pretrained_takes_decoded_experts_of_gpt_oss(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.GptOssConfig(
        vocab_size=48, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, num_local_experts=3, num_experts_per_tok=2, tie_word_embeddings=False,
    )  # fmt: skip
    original, source, out = tmp_path / "original", tmp_path / "mxfp4", tmp_path / "plain"
    transformers.GptOssForCausalLM(config).to(torch.bfloat16).save_pretrained(original)
    shutil.copytree(original, source)
    stored: Weights = {}
    plain: Weights = {}
    for key, tensor in load_file(original / "model.safetensors").items():
        if not key.endswith(("gate_up_proj", "down_proj")):
            stored[key] = plain[key] = tensor
            continue
        experts, inner, rows = tensor.shape
        blocks = torch.randint(0, 256, (experts, rows, inner // 32, 16), dtype=torch.uint8)
        scales = torch.randint(118, 124, blocks.shape[:3], dtype=torch.uint8)
        stored |= {f"{key}_blocks": blocks, f"{key}_scales": scales}
        nibbles = torch.stack([blocks & 15, blocks >> 4], -1).flatten(3).long()
        values = E2M1[nibbles] * torch.exp2(scales.float() - 127)[..., None]
        plain[key] = values.flatten(2).transpose(1, 2).contiguous().bfloat16()
    save_file(stored, source / "model.safetensors", {"format": "pt"})
    describe(source, {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    assert run(["filter", str(source), "--dequantize", "-o", str(out)]) == 0
    assert_loads(out, plain, original)
