"""Language models and CLIP: the outputs agree, and the way back is bit-equal.

Those that need timm, transformers, peft or open_clip are skipped where these are not installed. All models are small,
with random weights; nothing is downloaded.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipe_harness import array_specs, assert_close, assert_comes_back, remap_torch, run, structured
from torch.nn import functional

from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import load_recipe

pytestmark = [
    pytest.mark.filterwarnings("default"),  # the warnings of the packages converted between are not ours
    pytest.mark.usefixtures("torchvision"),  # transformers and open_clip import it where it is installed
]


HEADS, KV_HEADS, WIDTH, LAYERS, VOCABULARY = 4, 2, 32, 2, 40


def meta_llama(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "tok_embeddings.weight": (VOCABULARY, WIDTH),
        "norm.weight": (WIDTH,),
        "output.weight": (VOCABULARY, WIDTH),
    }
    small = WIDTH * KV_HEADS // HEADS
    for layer in range(LAYERS):
        for name, shape in {
            "attention.wq": (WIDTH, WIDTH), "attention.wk": (small, WIDTH), "attention.wv": (small, WIDTH),
            "attention.wo": (WIDTH, WIDTH), "feed_forward.w1": (48, WIDTH), "feed_forward.w2": (WIDTH, 48),
            "feed_forward.w3": (48, WIDTH), "attention_norm": (WIDTH,), "ffn_norm": (WIDTH,),
        }.items():  # fmt: skip
            shapes[f"layers.{layer}.{name}.weight"] = shape
    state = {key: torch.randn(shape, generator=generator) / WIDTH**0.5 for key, shape in shapes.items()}
    return {key: tensor * WIDTH**0.25 + ("norm" in key) for key, tensor in state.items()} | {
        "rope.freqs": torch.ones(4)
    }


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    k, v = (x.repeat_interleave(HEADS // KV_HEADS, 2) for x in (k, v))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)


def angles(length: int, dim: int) -> torch.Tensor:
    return torch.outer(torch.arange(length), 1.0 / 10000 ** (torch.arange(0, dim, 2) / dim))


def run_meta(w: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """Llama as Meta wrote it: neighbouring numbers are turned as complex ones."""
    x, dim = w["tok_embeddings.weight"][tokens], WIDTH // HEADS
    turn = torch.polar(torch.ones(1), angles(tokens.shape[1], dim))

    def rope(h: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(h.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * turn[None, :, None]).flatten(-2)

    for layer in range(LAYERS):
        p = {key.split(".", 2)[2]: tensor for key, tensor in w.items() if key.startswith(f"layers.{layer}.")}
        h = rms(x, p["attention_norm.weight"])
        q, k, v = ((h @ p[f"attention.w{n}.weight"].T).unflatten(-1, (-1, dim)) for n in "qkv")
        x = x + attend(rope(q), rope(k), v) @ p["attention.wo.weight"].T
        h = rms(x, p["ffn_norm.weight"])
        gate = functional.silu(h @ p["feed_forward.w1.weight"].T) * (h @ p["feed_forward.w3.weight"].T)
        x = x + gate @ p["feed_forward.w2.weight"].T
    return rms(x, w["norm.weight"]) @ w["output.weight"].T


def run_hugging_face(w: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """The same as Hugging Face writes it: the first half of a head is turned against the second."""
    x, dim = w["model.embed_tokens.weight"][tokens], WIDTH // HEADS
    turn = torch.cat([angles(tokens.shape[1], dim)] * 2, -1)[None, :, None]

    def rope(h: torch.Tensor) -> torch.Tensor:
        first, second = h.chunk(2, -1)
        return h * turn.cos() + torch.cat([-second, first], -1) * turn.sin()

    for layer in range(LAYERS):
        p = {key.split(".", 3)[3]: tensor for key, tensor in w.items() if key.startswith(f"model.layers.{layer}.")}
        h = rms(x, p["input_layernorm.weight"])
        q, k, v = ((h @ p[f"self_attn.{n}_proj.weight"].T).unflatten(-1, (-1, dim)) for n in "qkv")
        x = x + attend(rope(q), rope(k), v) @ p["self_attn.o_proj.weight"].T
        h = rms(x, p["post_attention_layernorm.weight"])
        gate = functional.silu(h @ p["mlp.gate_proj.weight"].T) * (h @ p["mlp.up_proj.weight"].T)
        x = x + gate @ p["mlp.down_proj.weight"].T
    return rms(x, w["model.norm.weight"]) @ w["lm_head.weight"].T


SIZES = {"h": HEADS, "kv": KV_HEADS}


def to_ranks(state: dict[str, torch.Tensor], ranks: int) -> list[dict[str, np.ndarray[Any, Any]]]:
    """What Meta's training would have saved on several ranks."""
    axis = {"wo": 1, "w2": 1, "wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "tok_embeddings": 0, "output": 0}
    files: list[dict[str, np.ndarray[Any, Any]]] = [{} for _ in range(ranks)]
    for key, tensor in state.items():
        at = axis.get(key.split(".")[-2])
        parts = [tensor] * ranks if at is None else tensor.chunk(ranks, at)
        for file, part in zip(files, parts, strict=True):
            file[key] = part.contiguous().numpy()
    return files


@pytest.mark.parametrize("ranks", [1, 2])
def test_meta_llama_to_hugging_face(ranks: int) -> None:
    state, recipe = meta_llama(), load_recipe("llama-meta-to-hf")
    files = to_ranks(state, ranks)
    prefixes = [f"rank{rank}" for rank in range(ranks)]
    found = expand(recipe, [array_specs(file) for file in files], prefixes=prefixes, vars=SIZES)
    made = {key: torch.from_numpy(np.array(array)) for key, array in run(found, *files).items()}
    tokens = torch.randint(VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(3))
    assert_close(run_meta(state, tokens), run_hugging_face(made, tokens))
    wrong = dict(made, **{"model.layers.0.self_attn.q_proj.weight": state["layers.0.attention.wq.weight"]})
    assert not torch.allclose(run_meta(state, tokens), run_hugging_face(wrong, tokens), rtol=0.01)


def test_meta_llama_in_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    state = meta_llama()
    prefixed = {f"rank0.{key}": tensor for key, tensor in state.items()}
    made = remap_torch(load_recipe("llama-meta-to-hf"), prefixed, vars=SIZES)
    tokens = torch.randint(VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(3))
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=16, rms_norm_eps=1e-6,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    model.load_state_dict(made)
    with torch.no_grad():
        assert_close(run_meta(state, tokens), model(tokens).logits)


# ---------------------------------------------------------------------------------------------- Hugging Face


def test_gpt2_to_gptbigcode() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 50, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 4,
             "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip
    ours = structured(transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)))
    config = transformers.GPTBigCodeConfig(**sizes, multi_query=False, activation_function="gelu_new")
    theirs = transformers.GPTBigCodeForCausalLM(config).eval()
    recipe, state = load_recipe("gpt2-to-gptbigcode"), ours.state_dict()
    theirs.load_state_dict(remap_torch(recipe, state, vars={"h": 4}))
    tokens = torch.randint(50, (2, 9))
    with torch.no_grad():
        assert_close(ours(tokens).logits, theirs(tokens).logits)
    assert_comes_back(recipe, state, vars={"h": 4})


def test_bert_gamma_and_beta() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20
    )
    ours, theirs = structured(transformers.BertModel(config)), transformers.BertModel(config).eval()
    legacy = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for key, tensor in ours.state_dict().items()
    }
    recipe = load_recipe("bert-gamma-beta")
    made = remap_torch(recipe, {**legacy, "layer_scale.gamma": torch.ones(3)})
    assert "layer_scale.gamma" in made
    made.pop("layer_scale.gamma")
    theirs.load_state_dict(made)
    tokens = torch.randint(30, (2, 7))
    with torch.no_grad():
        assert torch.equal(ours(tokens).last_hidden_state, theirs(tokens).last_hidden_state)
    assert_comes_back(recipe, legacy)


def test_mixtral_experts(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    load_file = pytest.importorskip("safetensors.torch").load_file
    config = transformers.MixtralConfig(
        vocab_size=30, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=11,
    )  # fmt: skip
    model = structured(transformers.MixtralForCausalLM(config))
    model.save_pretrained(tmp_path)  # transformers writes one tensor per expert
    saved, fused = load_file(tmp_path / "model.safetensors"), model.state_dict()
    recipe = load_recipe("mixtral-fuse-experts")
    made = remap_torch(recipe, saved)
    assert set(made) == set(fused)
    assert all(torch.equal(made[key], fused[key]) for key in fused)
    assert_comes_back(recipe, saved)


def test_lora_merges_as_peft_does() -> None:
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    config = transformers.LlamaConfig(
        vocab_size=30, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    lora = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    model = structured(peft.get_peft_model(transformers.LlamaForCausalLM(config), lora))
    made = remap_torch(load_recipe("lora-merge"), model.state_dict(), vars={"alpha": 16, "r": 4})
    merged = model.merge_and_unload().state_dict()
    assert set(made) == set(merged)
    for key, tensor in merged.items():
        assert torch.allclose(made[key], tensor, atol=1e-5), key


def test_open_clip_to_hugging_face() -> None:
    transformers, open_clip = pytest.importorskip("transformers"), pytest.importorskip("open_clip")
    ours = open_clip.model.CLIP(
        embed_dim=32,
        vision_cfg={"layers": 2, "width": 64, "patch_size": 8, "image_size": 16, "head_width": 32},
        text_cfg={"context_length": 8, "vocab_size": 30, "width": 32, "heads": 2, "layers": 2},
        quick_gelu=True,
    )
    structured(ours)
    shared = {"num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 32}
    config = transformers.CLIPConfig(
        text_config={"vocab_size": 30, "hidden_size": 32, "intermediate_size": 128, "max_position_embeddings": 8,
                     "bos_token_id": 0, "eos_token_id": 29, **shared},
        vision_config={"hidden_size": 64, "intermediate_size": 256, "image_size": 16, "patch_size": 8, **shared},
        projection_dim=32,
    )  # fmt: skip
    theirs = transformers.CLIPModel(config).eval()
    recipe, state = load_recipe("open_clip-to-hf-clip"), ours.state_dict()
    theirs.load_state_dict(remap_torch(recipe, state))
    tokens = torch.randint(1, 28, (2, 8))
    tokens[:, -1] = 29  # both take the last token, the largest number, as the end of the text
    with torch.no_grad():
        pixels = torch.randn(2, 3, 16, 16)
        theirs_out = theirs(input_ids=tokens, pixel_values=pixels)
        norm = partial(functional.normalize, dim=-1)
        assert_close(norm(ours.encode_image(pixels)), theirs_out.image_embeds, rel=2e-5)
        assert_close(norm(ours.encode_text(tokens)), theirs_out.text_embeds, rel=2e-5)
    assert_comes_back(recipe, state)
