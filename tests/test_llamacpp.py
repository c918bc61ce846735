"""llama.cpp's names: the `gguf` package's own map is the oracle for names, transformers' reader of GGUF for values."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ckptool.cli.app import run
from ckptool.commands.llamacpp import RECIPES
from ckptool.models import import_torchvision

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import_torchvision()  # which transformers imports in its own way
tf = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
CONFIGS: dict[str, tuple[str, Any]] = {
    "llama": ("llama", tf.LlamaConfig(**SIZES, attention_bias=True)),
    "mistral": ("llama", tf.MistralConfig(**SIZES)),
    "mixtral": ("llama", tf.MixtralConfig(**SIZES, num_local_experts=3)),
    "qwen2": ("qwen2", tf.Qwen2Config(**SIZES, tie_word_embeddings=True)),
    "qwen2moe": ("qwen2moe", tf.Qwen2MoeConfig(**SIZES, **EXPERTS, shared_expert_intermediate_size=8)),
    "qwen3": ("qwen3", tf.Qwen3Config(**SIZES)),
    "qwen3moe": ("qwen3moe", tf.Qwen3MoeConfig(**SIZES, **EXPERTS)),
    "gemma": ("gemma", tf.GemmaConfig(**SIZES)),
    "gemma2": ("gemma2", tf.Gemma2Config(**SIZES)),
    "gemma3": ("gemma3", tf.Gemma3TextConfig(**SIZES)),
    "qwen2vl": ("qwen2vl", tf.Qwen2Config(**SIZES)),  # the names of its language model as they are published
    "command-r": ("command-r", tf.CohereConfig(**SIZES)),
    "command-r7b": ("cohere2", tf.Cohere2Config(**SIZES)),
    "phi2": ("phi2", tf.PhiConfig(**{key: value for key, value in SIZES.items() if key != "head_dim"})),
    "phi3": ("phi3", tf.Phi3Config(**SIZES)),
}


def hugging_face(name: str, folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a tiny model as save_pretrained writes them to `folder`; norms are not all one."""
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(CONFIGS[name][1])
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim == 1:
                tensor.copy_((torch.randn_like(tensor) * 64).round() / 128)  # so that 1 is added exactly
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def llamacpp(name: str, state: dict[str, torch.Tensor], path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """A GGUF file of these tensors as llama.cpp's converter makes it, and what it holds."""
    architecture, config = CONFIGS[name]
    number = {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    experts: dict[str, dict[int, np.ndarray[Any, Any]]] = {}
    for key, tensor in state.items():
        array = tensor.float().numpy()
        if architecture == "llama" and (match := re.search(r"\.([qk])_proj\.", key)):
            heads = config.num_attention_heads if match[1] == "q" else config.num_key_value_heads
            halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
            array = halves.swapaxes(1, 2).reshape(array.shape)
        if architecture.startswith("gemma") and key.endswith("norm.weight"):
            array = array + 1
        expert = re.search(r"\.experts\.(\d+)\.", key)
        key = re.sub(r"\.experts\.\d+\.", ".experts.", key)  # the converter stacks them under this name
        made = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert made is not None, key
        if expert is None:
            tensors[made] = array
        else:
            experts.setdefault(made, {})[int(expert[1])] = array
    tensors |= {made: np.stack([found[e] for e in sorted(found)]) for made, found in experts.items()}
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    for made, array in tensors.items():
        writer.add_tensor(made, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize("name", CONFIGS)
def test_recipes_give_back_the_models_tensors(name: str, tmp_path: Path) -> None:
    state = hugging_face(name, tmp_path / "hf")
    llamacpp(name, state, tmp_path / "m.gguf")
    recipe = RECIPES[CONFIGS[name][0]]
    out = tmp_path / "back.safetensors"
    assert run(["remap", str(tmp_path / "m.gguf"), "-r", recipe, "-o", str(out)]) == 0
    assert_same(load_file(out), state)
    model = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    tokens = torch.arange(12)[None] % 32
    expected = model(tokens).logits
    save_file(load_file(out), tmp_path / "hf" / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(tf.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")(tokens).logits, expected)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3"])
def test_transformers_reads_the_same_values(name: str, tmp_path: Path) -> None:
    """transformers' own reader turns rows back and takes the 1 from norms."""
    tensors = llamacpp(name, hugging_face(name, tmp_path / "hf"), tmp_path / "m.gguf")
    architecture, config = CONFIGS[name]
    readers = pytest.importorskip("transformers.modeling_gguf_pytorch_utils").TENSOR_PROCESSORS
    process = readers[architecture](config=config.to_dict())
    out = tmp_path / "back.safetensors"
    assert run(["remap", str(tmp_path / "m.gguf"), "-r", RECIPES[architecture], "-o", str(out)]) == 0
    found = {tensor.numpy().tobytes() for tensor in load_file(out).values()}
    for key, array in tensors.items():
        assert np.ascontiguousarray(process.process(array, key).weights).tobytes() in found, key


@pytest.mark.parametrize("name", CONFIGS)
def test_diff_knows_the_names_in_both_directions(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = hugging_face(name, tmp_path / "hf")
    llamacpp(name, state, tmp_path / "m.gguf")
    weights = str(tmp_path / "hf" / "model.safetensors")
    for old, new in ((str(tmp_path / "m.gguf"), weights), (weights, str(tmp_path / "m.gguf"))):
        assert run(["diff", old, new, "--match", "auto"]) in (0, 1)
        told = capsys.readouterr().out
        assert "+ 0 added - 0 removed" in " ".join(told.split())
        assert "rel " not in told, told
        assert f"the rules of the built-in recipe {RECIPES[CONFIGS[name][0]]}" in " ".join(told.split())


def test_quantized_values_are_compared_through_the_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = hugging_face("qwen3", tmp_path / "hf")
    wide = {
        key: torch.randn(*tensor.shape[:-1], 256) if "down_proj" in key else tensor for key, tensor in state.items()
    }
    save_file(wide, tmp_path / "w.safetensors")
    tensors = llamacpp("qwen3", wide, tmp_path / "plain.gguf")
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "qwen3")
    for key, array in tensors.items():
        if "ffn_down" in key:
            packed = gguf.quantize(array, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(key, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(key, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    sides = [str(tmp_path / "q.gguf"), str(tmp_path / "w.safetensors")]
    assert run(["diff", *sides, "--match", "auto", "--json"]) == 1
    told = {change["key"]: change for change in json.loads(capsys.readouterr().out)["changes"]}
    down = [change for key, change in told.items() if "down_proj" in key]
    assert down and all(0 < change["delta"]["rel"] < 0.02 for change in down)


def test_transplant_and_remap_know_the_names(tmp_path: Path) -> None:
    state = hugging_face("llama", tmp_path / "hf")
    llamacpp("llama", state, tmp_path / "m.gguf")
    out, weights = tmp_path / "o.safetensors", str(tmp_path / "hf" / "model.safetensors")
    assert run(["remap", str(tmp_path / "m.gguf"), "--auto", "--like", weights, "-o", str(out)]) == 0
    assert_same(load_file(out), state)
    into = ["--into", weights, "--match", "auto", "-o", str(tmp_path / "t.safetensors")]
    assert run(["transplant", str(tmp_path / "m.gguf"), *into]) == 0
    assert_same(load_file(tmp_path / "t.safetensors"), state)
