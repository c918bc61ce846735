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
from ckptool.commands.automatic import Given, automatic
from ckptool.commands.llamacpp import known, withheld_keys
from ckptool.core.spec import TensorSpec
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
ROUTED = {"n_routed_experts": 3, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}
LATENT = {
    **ROUTED, "q_lora_rank": 12, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 2, "v_head_dim": 4,
    "head_dim": 2, "num_key_value_heads": 4,
}  # fmt: skip
PERMUTED = ("llama", "mistral3", "granite", "smollm3", "arcee")
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
    "mistral3": ("mistral3", tf.MistralConfig(**SIZES)),  # its language model alone
    "granite": ("granite", tf.GraniteConfig(**SIZES)),
    "smollm3": ("smollm3", tf.SmolLM3Config(**SIZES)),
    "arcee": ("arcee", tf.ArceeConfig(**SIZES)),
    "deepseek": ("deepseek2", tf.DeepseekV3Config(**{**SIZES, **EXPERTS, **LATENT})),
    "glm4moe": ("glm4moe", tf.Glm4MoeConfig(**SIZES, **EXPERTS, **ROUTED)),
    "dots1": ("dots1", tf.Dots1Config(**SIZES, **EXPERTS, **ROUTED)),
    "gpt-oss": ("gpt-oss", tf.GptOssConfig(**SIZES, num_local_experts=3, num_experts_per_tok=2)),
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
        if architecture in PERMUTED and (match := re.search(r"\.([qk])_proj\.", key)):
            heads = config.num_attention_heads if match[1] == "q" else config.num_key_value_heads
            halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
            array = halves.swapaxes(1, 2).reshape(array.shape)
        if architecture.startswith("gemma") and key.endswith("norm.weight"):
            array = array + 1
        if architecture == "gpt-oss" and ".experts." in key:
            tensors |= gpt_oss_experts(key, array)
            continue
        key = "blk." + key.split(".")[2] + ".exp_probs_b.bias" if "e_score_correction_bias" in key else key
        if key.startswith("blk."):
            tensors[key] = array
            continue
        expert = re.search(r"\.experts\.(\d+)\.", key)
        key = re.sub(r"\.experts\.\d+\.", ".experts.", key)  # the converter stacks them under this name
        key = f"{key}.weight" if key.endswith(".sinks") else key
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


def gpt_oss_experts(key: str, array: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """As `GptOssModel` of llama.cpp: gate and up come in turns and are split; outputs are rows."""
    block, last = f"blk.{key.split('.')[2]}", "bias" if key.endswith("_bias") else "weight"
    array = array if last == "bias" else array.swapaxes(1, 2)
    if "down_proj" in key:
        return {f"{block}.ffn_down_exps.{last}": array}
    return {f"{block}.ffn_gate_exps.{last}": array[:, ::2], f"{block}.ffn_up_exps.{last}": array[:, 1::2]}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize("name", CONFIGS)
def test_recipes_give_back_the_models_tensors(name: str, tmp_path: Path) -> None:
    state = hugging_face(name, tmp_path / "hf")
    llamacpp(name, state, tmp_path / "m.gguf")
    recipe = known().recipes[CONFIGS[name][0]][0]
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
    assert run(["remap", str(tmp_path / "m.gguf"), "-r", known().recipes[architecture][0], "-o", str(out)]) == 0
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
        assert f"the rules of the built-in recipe {known().recipes[CONFIGS[name][0]][0]}" in " ".join(told.split())


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


# ------------------------------------------------------------------------------------- architectures without a recipe

WIDER: dict[str, Any] = {key: value for key, value in SIZES.items() if key != "head_dim"}
MIXTURE = {**EXPERTS, "num_local_experts": 3}
OTHERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "olmo2": ("olmo2", "Olmo2Config", WIDER),
    "olmoe": ("olmoe", "OlmoeConfig", {**WIDER, **EXPERTS}),
    "starcoder2": ("starcoder2", "Starcoder2Config", WIDER),
    "stablelm": ("stablelm", "StableLmConfig", WIDER),
    "exaone4": ("exaone4", "Exaone4Config", WIDER),
    "glm4": ("glm4", "Glm4Config", SIZES),
    "seed_oss": ("seed_oss", "SeedOssConfig", SIZES),
    "bert": ("bert", "BertConfig", WIDER),
    "nomic-bert": ("nomic-bert", "NomicBertConfig", WIDER),
    "llama4": ("llama4", "Llama4TextConfig", {**SIZES, **MIXTURE}),
    "hunyuan": ("hunyuan-dense", "HunYuanDenseV1Config", SIZES),
    "minimax": ("minimax-m2", "MiniMaxM2Config", {**SIZES, **MIXTURE}),
    "mamba": ("mamba", "MambaConfig", {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2}),
    "gpt2": ("gpt2", "GPT2Config", {"vocab_size": 32, "n_embd": 16, "n_layer": 2, "n_head": 4}),
    "falcon": ("falcon", "FalconConfig", WIDER),
    "gptneox": ("gptneox", "GPTNeoXConfig", WIDER),
    "bloom": ("bloom", "BloomConfig", {"vocab_size": 32, "hidden_size": 16, "n_layer": 2, "n_head": 4}),
    "nemotron": ("nemotron", "NemotronConfig", SIZES),
    "phimoe": ("phimoe", "PhimoeConfig", {**WIDER, **MIXTURE}),
    "apertus": ("apertus", "ApertusConfig", WIDER),
    "ernie4_5": ("ernie4_5", "Ernie4_5Config", SIZES),
    "granitemoe": ("granitemoe", "GraniteMoeConfig", {**WIDER, **MIXTURE}),
    "olmo": ("olmo", "OlmoConfig", WIDER),
    "modern-bert": ("modern-bert", "ModernBertConfig", WIDER),
    "jamba": ("jamba", "JambaConfig", {**WIDER, **MIXTURE}),
    "mpt": ("mpt", "MptConfig", {"vocab_size": 32, "d_model": 16, "n_layers": 2, "n_heads": 4}),
}


def named_by_llamacpp(name: str) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec], dict[str, str]]:
    """The tensors of a tiny model under llama.cpp's names and its own, and the truth: from those to these."""
    architecture, config, sizes = OTHERS[name]
    if not hasattr(tf, config):
        pytest.skip(f"this transformers has no {config}")
    auto = tf.AutoModel if "bert" in name else tf.AutoModelForCausalLM
    with torch.device("meta"):
        shapes = {
            key: tuple(value.shape)
            for key, value in auto.from_config(getattr(tf, config)(**sizes)).state_dict().items()
        }
    number = {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(number, 2)
    truth: dict[str, str] = {}
    for key in shapes:
        made = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if made is not None:
            truth.setdefault(made, key)
    theirs = {made: TensorSpec(made, "float32", shapes[key]) for made, key in truth.items()}
    return theirs, {key: TensorSpec(key, "float32", shape) for key, shape in shapes.items()}, truth


@pytest.mark.parametrize("name", OTHERS)
def test_names_of_other_architectures_are_found_or_withheld_and_never_wrong(name: str) -> None:
    """What llama.cpp may have rearranged has no counterpart; all else has the right one, in both directions."""
    theirs, own, truth = named_by_llamacpp(name)
    architecture = OTHERS[name][0]
    withheld = withheld_keys((theirs, own), ({"general.architecture": architecture}, {}))
    assert bool(withheld) == (architecture not in known().plain)
    for forwards in (True, False):
        source, target = (theirs, own) if forwards else (own, theirs)
        found = automatic(Given(withheld=withheld), source, target)
        pairs = [(pair.sources[0], pair.targets[0]) for pair in found.report.accepted(found.accept)]
        pairs = pairs if forwards else [(target, source) for source, target in pairs]
        assert {made: truth[made] for made, _ in pairs} == dict(pairs)
        assert withheld.isdisjoint(dict(pairs))
        assert len(pairs) == len(theirs) - len(withheld)
        assert not withheld or any("may have changed their values" in note.text for note in found.report.notes)


def test_an_unknown_architecture_is_not_written_with_changed_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of q and k and norms are left out and said, in every command, unless a rule names them."""
    state = hugging_face("llama", tmp_path / "hf")
    llamacpp("llama", state, tmp_path / "m.gguf")
    unknown, weights = tmp_path / "u.gguf", str(tmp_path / "hf" / "model.safetensors")
    unknown.write_bytes((tmp_path / "m.gguf").read_bytes().replace(b"llama", b"lhama"))
    out = str(tmp_path / "o.safetensors")
    assert run(["diff", str(unknown), weights, "--match", "auto"]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "rel " not in told and "may have changed their values" in told
    assert run(["remap", str(unknown), "--auto", "--like", weights, "-o", out]) == 0
    made = load_file(out)
    assert made and all(torch.equal(tensor, state[key]) for key, tensor in made.items())
    assert not any("q_proj" in key or "norm" in key for key in made)
    assert "may have changed their values" in " ".join(capsys.readouterr().out.split())
    into = ["--into", weights, "--match", "auto", "-o", str(tmp_path / "t.safetensors")]
    assert run(["transplant", str(unknown), *into]) == 0
    assert "may have changed their values" in " ".join(capsys.readouterr().out.split())


def test_rows_are_withheld_where_rotary_positions_have_sections() -> None:
    """GLM's models with a vision tower have rows of q and k in another order."""
    keys = {"blk.0.attn_q.weight": None, "blk.0.attn_v.weight": None}
    plain = {"general.architecture": "glm4"}
    assert not withheld_keys((keys,), (plain,))
    assert withheld_keys((keys,), ({**plain, "glm4.rope.dimension_sections": "[8, 12, 12, 0]"},)) == {
        "blk.0.attn_q.weight"
    }


def test_a_language_model_inside_another_has_its_prefix(tmp_path: Path) -> None:
    state = hugging_face("mistral3", tmp_path / "hf")
    llamacpp("mistral3", state, tmp_path / "m.gguf")
    inside = {key.replace("model.", "model.language_model."): tensor for key, tensor in state.items()}
    save_file(inside, tmp_path / "inside.safetensors")
    out, like = tmp_path / "o.safetensors", str(tmp_path / "inside.safetensors")
    assert run(["remap", str(tmp_path / "m.gguf"), "--auto", "--like", like, "-o", str(out)]) == 0
    assert_same(load_file(out), inside)
    assert run(["diff", like, str(tmp_path / "m.gguf"), "--match", "auto"]) == 1


def test_keys_and_values_that_llama_cpp_splits_are_one_tensor_again(tmp_path: Path) -> None:
    """Its converter writes kv_b_proj in two: the keys of each head transposed, and the values."""
    heads, nope, value, rank = 3, 4, 5, 6
    whole = torch.randn(heads * (nope + value), rank)
    keys, values = whole.view(heads, nope + value, rank).split([nope, value], 1)
    state = {name: torch.randn(8, 8) for name in ("token_embd.weight", "blk.0.attn_output.weight")}
    state |= {name: torch.randn(8) for name in ("output_norm.weight", "blk.0.attn_norm.weight")}
    state |= {"blk.0.attn_k_b.weight": keys.transpose(1, 2).contiguous(), "blk.0.attn_v_b.weight": values.contiguous()}
    source, out = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    save_file(state, source)
    assert run(["remap", str(source), "-r", "llamacpp-deepseek-mla-to-hf", "-o", str(out)]) == 0
    assert torch.equal(load_file(out)["model.layers.0.self_attn.kv_b_proj.weight"], whole)


def test_the_match_knows_both_layouts_of_deepseek(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Newer files have keys and values of kv_b_proj apart: another recipe of the same architecture, in each command."""
    state = hugging_face("deepseek", tmp_path / "hf")
    config, tensors = CONFIGS["deepseek"][1], llamacpp("deepseek", state, tmp_path / "whole.gguf")
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "deepseek2")
    for key, array in tensors.items():
        if ".attn_kv_b." not in key:
            writer.add_tensor(key, np.ascontiguousarray(array))
            continue
        heads = array.reshape(config.num_attention_heads, -1, array.shape[1])
        keys, values = heads[:, : config.qk_nope_head_dim], heads[:, config.qk_nope_head_dim :]
        writer.add_tensor(key.replace("kv_b", "k_b"), np.ascontiguousarray(keys.swapaxes(1, 2)))
        writer.add_tensor(key.replace("kv_b", "v_b"), np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source, weights = str(tmp_path / "m.gguf"), str(tmp_path / "hf" / "model.safetensors")
    outs = [tmp_path / "remapped.safetensors", tmp_path / "transplanted.safetensors"]
    assert run(["remap", source, "--auto", "--like", weights, "-o", str(outs[0])]) == 0
    assert run(["transplant", source, "--into", weights, "--match", "auto", "-o", str(outs[1])]) == 0
    assert capsys.readouterr().out.count("the built-in recipe llamacpp-deepseek-mla-to-hf come") == 2
    for out in outs:
        assert_same(load_file(out), state)
    for sides in ([source, weights], [weights, source]):
        assert run(["diff", *sides, "--match", "auto", "--json"]) == 1
        statuses = {change["status"] for change in json.loads(capsys.readouterr().out)["changes"]}
        assert statuses <= {"renamed", "reshaped", "same"}
