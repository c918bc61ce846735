"""Outputs of Hugging Face folders load with `from_pretrained`, and compute what the same surgery in memory computes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ckptool.cli.app import run
from ckptool.models import import_torchvision

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import_torchvision()  # which transformers and peft import in their own way
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {"num_hidden_layers": 4, "num_key_value_heads": 2, "intermediate_size": 24}),
    "tied": ("LlamaForCausalLM", {"num_hidden_layers": 4, "intermediate_size": 24, "tie_word_embeddings": True}),
    "gpt2": ("GPT2LMHeadModel", {"n_layer": 4, "n_positions": 32}),
    "bert": ("BertForMaskedLM", {"num_hidden_layers": 4, "intermediate_size": 24, "max_position_embeddings": 32}),
    "qwen": ("Qwen3ForCausalLM", {"num_hidden_layers": 4, "num_key_value_heads": 2, "intermediate_size": 24}),
}
BLOCKS = {"gpt2": "transformer.h", "bert": "bert.encoder.layer"}


def build(name: str, seed: int = 0) -> Any:
    kind, given = CONFIGS[name]
    shared = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 4, "pad_token_id": 0, "bos_token_id": 1}
    shared |= {"eos_token_id": 2} | ({"head_dim": 4} if name == "qwen" else {})
    torch.manual_seed(seed)
    model = getattr(transformers, kind)
    return model(model.config_class(**shared, **given)).eval()


def saved(name: str, folder: Path, seed: int = 0) -> Any:
    model = build(name, seed)
    model.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 32}')
    (folder / "vocab.txt").write_text("a\nb\n")
    return model


def loaded(folder: Path, name: str) -> Any:
    """The model of a folder, which takes every tensor and misses none."""
    model, info = getattr(transformers, CONFIGS[name][0]).from_pretrained(folder, output_loading_info=True)
    found = {key: list(value) for key, value in info.items() if value}
    assert not found, found
    return model.eval()


def outputs(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(3, 13).reshape(1, 10)).logits
    return found


def config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_a_copy_carries_the_other_files_as_they_are(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path / "in")
    assert run(["filter", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    for file in ("config.json", "tokenizer_config.json", "vocab.txt"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "in" / file).read_bytes()
    assert torch.equal(outputs(loaded(tmp_path / "out", name)), outputs(model))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_cast_says_its_dtype(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path / "in")
    assert run(["filter", str(tmp_path / "in"), "--dtype", "bf16", "-o", str(tmp_path / "out"), "--quiet"]) == 0
    assert config(tmp_path / "out").get("dtype", config(tmp_path / "out").get("torch_dtype")) == "bfloat16"
    again = loaded(tmp_path / "out", name)
    assert again.dtype == torch.bfloat16
    assert torch.equal(outputs(again), outputs(model.bfloat16()))


@pytest.mark.parametrize("name", CONFIGS)
def test_pruned_layers_are_counted(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path / "in")
    at = BLOCKS.get(name, "model.layers")
    rules = [f"{at}.{{i=1|2}}.{{k**}} -> !", f"{at}.3. -> {at}.1."]
    words = [word for rule in rules for word in ("-r", rule)]
    assert run(["remap", str(tmp_path / "in"), *words, "-o", str(tmp_path / "out"), "--quiet"]) == 0
    again = loaded(tmp_path / "out", name)
    parent, _, last = at.rpartition(".")
    blocks = model.get_submodule(at)
    setattr(model.get_submodule(parent), last, nn.ModuleList([blocks[0], blocks[3]]))
    for number, block in enumerate(model.get_submodule(at)):
        for part in block.modules():
            if hasattr(part, "layer_idx"):
                part.layer_idx = number
    model.config.num_hidden_layers = 2
    model.config.use_cache = False
    assert torch.equal(outputs(again), outputs(model))


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_a_merge_loads(name: str, tmp_path: Path) -> None:
    one, two = saved(name, tmp_path / "one"), saved(name, tmp_path / "two", 1)
    paths = [str(tmp_path / side) for side in ("one", "two")]
    assert run(["merge", *paths, "--method", "linear", "-o", str(tmp_path / "out"), "--quiet"]) == 0
    mean = {key: (one.state_dict()[key] + two.state_dict()[key]) / 2 for key in one.state_dict()}
    one.load_state_dict(mean)
    torch.testing.assert_close(outputs(loaded(tmp_path / "out", name)), outputs(one))


@pytest.mark.parametrize(("name", "module"), [("llama", "q_proj"), ("tied", "embed_tokens"), ("gpt2", "c_attn")])
def test_a_merged_adapter_loads(name: str, module: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = saved(name, tmp_path / "in")
    torch.manual_seed(5)
    lora = peft.LoraConfig(r=2, lora_alpha=4, target_modules=[module], init_lora_weights=False)
    adapted = peft.get_peft_model(model, lora)
    adapted.save_pretrained(tmp_path / "adapter")
    words = ["merge", str(tmp_path / "in"), "--lora", str(tmp_path / "adapter"), "-o", str(tmp_path / "out"), "--quiet"]
    assert run(words) == 0
    meant = outputs(adapted.merge_and_unload())
    torch.testing.assert_close(outputs(loaded(tmp_path / "out", name)), meant, rtol=1e-4, atol=1e-5)


def test_numbers_with_gaps_are_named_and_not_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved("llama", tmp_path / "in")
    assert run(["filter", str(tmp_path / "in"), "--drop", "model.layers.1.*", "-o", str(tmp_path / "out")]) == 0
    assert "num_hidden_layers is 4" in " ".join(capsys.readouterr().out.split())
    assert config(tmp_path / "out")["num_hidden_layers"] == 4


def test_a_vocabulary_is_counted(tmp_path: Path) -> None:
    saved("llama", tmp_path / "in")
    cut = [f"{key} -> {key} | (n + _) d -> n d" for key in ("model.embed_tokens.weight", "lm_head.weight")]
    words = [word for rule in cut for word in ("-r", rule)]
    code = run(["remap", str(tmp_path / "in"), *words, "--var", "n=32", "-o", str(tmp_path / "out"), "--quiet"])
    assert code == 0 and config(tmp_path / "out")["vocab_size"] == 32
    loaded(tmp_path / "out", "llama")


def test_files_of_an_existing_folder_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved("llama", tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    for _ in range(2):
        assert run(["filter", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--force"]) == 0
        assert (tmp_path / "out" / "config.json").read_text() == "{}"
        assert (tmp_path / "out" / "vocab.txt").read_text() == "a\nb\n"
    assert "stays as it is" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("options", "kept", "told"),
    [
        ((), True, False),
        (("--drop", "*.1.*"), True, True),
        (("--drop", "layers.*"), False, False),
        (("--keep", "norm.weight"), False, False),
    ],
)
def test_the_scheme_of_quantized_weights_goes_with_the_last_of_them(
    options: tuple[str, ...], kept: bool, told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {"norm.weight": torch.ones(4)}
    for number in range(2):
        state[f"layers.{number}.up.weight"] = torch.randn(128, 128).to(torch.float8_e4m3fn)
        state[f"layers.{number}.up.weight_scale_inv"] = torch.ones(1, 1)
    (tmp_path / "in").mkdir()
    save_file(state, tmp_path / "in" / "model.safetensors")
    scheme = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (tmp_path / "in" / "config.json").write_text(json.dumps({"quantization_config": scheme}))
    assert run(["filter", str(tmp_path / "in"), *options, "-o", str(tmp_path / "out")]) == 0
    assert ("quantization_config" in config(tmp_path / "out")) == kept
    said = " ".join(capsys.readouterr().out.split())
    assert ("quantization_config stands for weights of which some are decoded or gone" in said) == told
    assert ("changed with the weights: config.json" in said) == (not kept)
