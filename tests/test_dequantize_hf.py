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
    model, info = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True, dtype="auto")
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert isinstance(model, transformers.LlamaForCausalLM)
    assert model.dtype == torch.bfloat16
    assert not hasattr(model.config, "quantization_config")
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in plain.items())
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "original", dtype="auto")
    reference.load_state_dict(plain)
    tokens = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        one, two = (each.eval()(tokens).logits for each in (model, reference))
    assert torch.equal(one, two)
