"""Pairs of Llama and its like: fused, split, stacked, in other names."""

from __future__ import annotations

from typing import Any

from tests.bench.match.pairs import (
    State,
    Two,
    both_sorted,
    pair,
    renamed,
    sorted_keys,
    tokens,
    variant,
)
from tests.bench.match.pairs_text import transformers


def llama_sizes(small: bool) -> dict[str, Any]:
    if small:
        return {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
                "max_position_embeddings": 64, "pad_token_id": 0}  # fmt: skip
    return {"vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
            "num_attention_heads": 32, "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048,
            "pad_token_id": 0}  # fmt: skip


def llama(small: bool, kind: str = "Llama") -> Any:
    package = transformers()
    return getattr(package, f"{kind}ForCausalLM")(getattr(package, f"{kind}Config")(**llama_sizes(small)))


def logits(model: Any) -> Any:
    return model(tokens()).logits


META = [
    "layers.{l}.attention.wq.weight -> model.layers.{l}.self_attn.q_proj.weight | (h d two) i -> (h two d) i",
    "layers.{l}.attention.wk.weight -> model.layers.{l}.self_attn.k_proj.weight | (kv d two) i -> (kv two d) i",
    "layers.{l}.attention.w{x=v|o}.weight -> model.layers.{l}.self_attn.{x}_proj.weight",
    "layers.{l}.feed_forward.w{n=1|2|3}.weight -> model.layers.{l}.mlp.{n=gate|down|up}_proj.weight",
    "layers.{l}.attention_norm.weight -> model.layers.{l}.input_layernorm.weight",
    "layers.{l}.ffn_norm.weight -> model.layers.{l}.post_attention_layernorm.weight",
    "tok_embeddings.weight -> model.embed_tokens.weight",
    "norm.weight -> model.norm.weight",
    "output.weight -> lm_head.weight",
]


@pair("Meta Llama to Hugging Face", "transformers")
def meta_llama(small: bool) -> Two:
    """The file is the model's own, renamed backwards; that the recipe is right is proven in `test_conversions_text`."""
    model = llama(small)
    sizes = llama_sizes(small)
    file = _meta_order(renamed_back(META, model.state_dict()))
    return Two(
        file, model, META, vars={"h": sizes["num_attention_heads"], "kv": sizes["num_key_value_heads"], "two": 2},
        hidden=["*.q_proj.weight", "*.k_proj.weight"], undecided=["*.gate_proj.weight", "*.up_proj.weight"],
        proof="test_conversions_text.test_meta_llama_in_transformers",
    )  # fmt: skip


def renamed_back(rules: list[str], state: State) -> State:
    """The names before some one-to-one rules; tensors as they are (for specs only)."""
    from ckptool.recipes.recipe import parse_recipe
    from ckptool.recipes.reverse import reverse

    plain = [rule.partition(" | ")[0] for rule in rules]
    backwards = reverse(parse_recipe(plain)).recipe
    return renamed([rule.text for rule in backwards.rules])(state)


def _meta_order(state: State) -> State:
    """As Meta's files have it: the embedding, the norm and the output first, then wq wk wv wo w1 w2 w3, the norms."""
    order = ["wq", "wk", "wv", "wo", "w1", "w2", "w3", "attention_norm", "ffn_norm"]
    first = ["tok_embeddings.weight", "norm.weight", "output.weight"]

    def place(key: str) -> tuple[int, int]:
        parts = key.split(".")
        return (-1, first.index(key)) if key in first else (int(parts[1]), order.index(parts[-2]))

    return {key: state[key] for key in sorted(state, key=place)}


@pair("Llama to Phi-3: qkv and gate-up fused", "transformers")
def llama_to_phi(small: bool) -> Two:
    layer = "model.layers.{l}."
    rules = [
        f"{layer}self_attn.q_proj.weight, {layer}self_attn.k_proj.weight, {layer}self_attn.v_proj.weight"
        f" -> {layer}self_attn.qkv_proj.weight | a i, b i, c i -> (a + b + c) i",
        f"{layer}mlp.gate_proj.weight, {layer}mlp.up_proj.weight -> {layer}mlp.gate_up_proj.weight"
        " | a i, b i -> (a + b) i",
    ]
    return Two(llama(small), llama(small, "Phi3"), rules, ask=logits)


@pair("Phi-3 to Llama: qkv and gate-up split", "transformers")
def phi_to_llama(small: bool) -> Two:
    there = llama_to_phi(small)
    sizes = llama_sizes(small)
    width = sizes["hidden_size"]
    narrow = width * sizes["num_key_value_heads"] // sizes["num_attention_heads"]
    layer = "model.layers.{l}."
    rules = [
        f"{layer}self_attn.qkv_proj.weight -> {layer}self_attn.q_proj.weight, {layer}self_attn.k_proj.weight,"
        f" {layer}self_attn.v_proj.weight | (a + b + c) i -> a i, b i, c i",
        f"{layer}mlp.gate_up_proj.weight -> {layer}mlp.gate_proj.weight, {layer}mlp.up_proj.weight"
        " | (m + n) i -> m i, n i",
    ]
    vars = {"a": width, "b": narrow, "c": narrow, "m": sizes["intermediate_size"]}
    return Two(there.target, there.source, rules, vars=vars, ask=logits)


@pair("Llama to LitGPT's names", "transformers")
def llama_to_litgpt(small: bool) -> Two:
    """LitGPT has no package here: its `convert_hf_checkpoint.py` says the names; qkv is fused."""
    import torch

    sizes = llama_sizes(small)
    narrow = sizes["hidden_size"] * sizes["num_key_value_heads"] // sizes["num_attention_heads"]
    from_, to = "model.layers.{l}.", "transformer.h.{l}."
    rules = [
        f"{from_}self_attn.q_proj.weight, {from_}self_attn.k_proj.weight, {from_}self_attn.v_proj.weight"
        f" -> {to}attn.qkv.weight | a i, b i, c i -> (a + b + c) i",
        f"{from_}self_attn.o_proj.weight -> {to}attn.proj.weight",
        f"{from_}input_layernorm.weight -> {to}norm_1.weight",
        f"{from_}post_attention_layernorm.weight -> {to}norm_2.weight",
        f"{from_}mlp.{{n=gate|up|down}}_proj.weight -> {to}mlp.{{n=fc_1|fc_2|proj}}.weight",
        "model.embed_tokens.weight -> transformer.wte.weight",
        "model.norm.weight -> transformer.ln_f.weight",
    ]
    model = llama(small)
    width, middle, words = sizes["hidden_size"], sizes["intermediate_size"], sizes["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"lm_head.weight": (words, width), "transformer.wte.weight": (words, width)}
    for layer in range(sizes["num_hidden_layers"]):
        for name, shape in {
            "norm_1": (width,), "attn.qkv": (width + 2 * narrow, width), "attn.proj": (width, width),
            "norm_2": (width,), "mlp.fc_1": (middle, width), "mlp.fc_2": (middle, width), "mlp.proj": (width, middle),
        }.items():  # fmt: skip
            shapes[f"transformer.h.{layer}.{name}.weight"] = shape
    shapes["transformer.ln_f.weight"] = (width,)
    target = {key: torch.empty(shape) for key, shape in shapes.items()}
    return Two(model, target, rules, undecided=["*.fc_1.weight", "*.fc_2.weight"], proof="LitGPT's script")


def mixtral(small: bool) -> Any:
    package = transformers()
    sizes = llama_sizes(True) | {"num_local_experts": 11, "hidden_size": 32 if small else 128}
    return package.MixtralForCausalLM(package.MixtralConfig(**sizes))


def per_expert(state: State) -> State:
    """What `save_pretrained` writes: one tensor per expert, two for gate and up."""
    changed: dict[str, Any] = {}
    for key, tensor in state.items():
        stem = key.partition(".mlp.")[0] + ".block_sparse_moe"
        if key.endswith("gate_up_proj"):
            for expert in range(len(tensor)):
                changed[f"{stem}.experts.{expert}.w1.weight"], changed[f"{stem}.experts.{expert}.w3.weight"] = tensor[
                    expert].chunk(2)  # fmt: skip
        elif key.endswith("experts.down_proj"):
            for expert in range(len(tensor)):
                changed[f"{stem}.experts.{expert}.w2.weight"] = tensor[expert]
        else:
            changed[key.replace(".mlp.gate.", ".block_sparse_moe.gate.")] = tensor
    return changed


@pair("Mixtral, 11 experts: stacked and fused", "transformers")
def mixtral_fuse(small: bool) -> Two:
    return Two(mixtral(small), mixtral(small), ["mixtral-fuse-experts"], source_file=per_expert, ask=logits)


@pair("Mixtral, 11 experts: unstacked", "transformers")
def mixtral_split(small: bool) -> Two:
    return Two(
        mixtral(small), mixtral(small), ["mixtral-fuse-experts"], is_backwards=True, target_file=per_expert,
        proof="test_conversions_text.test_mixtral_experts",
    )  # fmt: skip


variant("Mixtral, 11 experts, sorted", "Mixtral, 11 experts: stacked and fused", both_sorted)
variant("Meta Llama to Hugging Face, target sorted", "Meta Llama to Hugging Face", lambda c: sorted_keys(c, "target"))
variant("Llama to Phi-3, sorted", "Llama to Phi-3: qkv and gate-up fused", both_sorted)


@pair("Llama into its PEFT model", "transformers", "peft")
def lora(small: bool) -> Two:
    import peft

    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    rules = [
        "{m**}.{x=q_proj|v_proj}.weight -> base_model.model.{m**}.{x}.base_layer.weight",
        "{k**} -> base_model.model.{k**}",
    ]
    adapter = ["*.lora_A.*", "*.lora_B.*"]
    return Two(llama(small), peft.get_peft_model(llama(small), config), rules, missing=adapter, ask=logits)
