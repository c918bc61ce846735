"""Held-out pairs: language and speech models in their authors' names, into transformers.

The rules say what the published conversion scripts say: llama.cpp's `gguf-py/gguf/tensor_mapping.py`, torchtune's and
LitGPT's `convert_*`, Megatron-LM's loaders, transformers' `convert_*_to_pytorch.py`, DeepSeek's `inference/convert.py`.
"""

from __future__ import annotations

from typing import Any

from tests.bench.match.pairs import State, Two, both_sorted, headers_only, pair, sorted_keys, variant
from tests.bench.match.pairs_held import listed, rewound
from tests.bench.match.pairs_llama import llama, llama_sizes, logits
from tests.bench.match.pairs_text import bert, gpt2, transformers

GGUF = """
    token_embd token_types position_embd token_embd_norm blk attn_norm attn_q attn_k attn_v attn_output
    attn_output_norm post_attention_norm ffn_norm ffn_gate ffn_up ffn_down post_ffw_norm layer_output_norm output_norm
    output
"""
GGUF_BLOCK = [
    "blk.{i}.attn_{x=q|k|v|output}.{p*} -> model.layers.{i}.self_attn.{x=q_proj|k_proj|v_proj|o_proj}.{p*}",
    "blk.{i}.ffn_{n=gate|up|down}.{p*} -> model.layers.{i}.mlp.{n}_proj.{p*}",
    "blk.{i}.attn_norm.weight -> model.layers.{i}.input_layernorm.weight",
]
GGUF_ENDS = [
    "token_embd.weight -> model.embed_tokens.weight",
    "output_norm.weight -> model.norm.weight",
    "output.weight -> lm_head.weight",
]


@pair("Llama in llama.cpp's names", "transformers")
def gguf_llama(small: bool) -> Two:
    rules = [*GGUF_BLOCK, "blk.{i}.ffn_norm.weight -> model.layers.{i}.post_attention_layernorm.weight", *GGUF_ENDS]
    model = llama(small)
    return Two(
        rewound(rules, model.state_dict(), GGUF), model, rules, hidden=["*.q_proj.weight", "*.k_proj.weight"],
        proof="llama.cpp's tensor_mapping.py",
    )  # fmt: skip


@pair("Gemma 2 to llama.cpp's names: four norms in a block", "transformers")
def gguf_gemma(small: bool) -> Two:
    package = transformers()
    model = package.Gemma2ForCausalLM(package.Gemma2Config(num_hidden_layers=26))
    rules = [
        *GGUF_BLOCK,
        "blk.{i}.post_attention_norm.weight -> model.layers.{i}.post_attention_layernorm.weight",
        "blk.{i}.ffn_norm.weight -> model.layers.{i}.pre_feedforward_layernorm.weight",
        "blk.{i}.post_ffw_norm.weight -> model.layers.{i}.post_feedforward_layernorm.weight",
        *GGUF_ENDS[:2],
    ]
    there = {key: tensor for key, tensor in model.state_dict().items() if key != "lm_head.weight"}
    return Two(there, rewound(rules, there, GGUF), rules, is_backwards=True, proof="llama.cpp's tensor_mapping.py")


@pair("Qwen2 in llama.cpp's names: biases of q, k and v", "transformers")
def gguf_qwen(small: bool) -> Two:
    package = transformers()
    model = package.Qwen2ForCausalLM(package.Qwen2Config(**llama_sizes(False)))
    rules = [*GGUF_BLOCK, "blk.{i}.ffn_norm.weight -> model.layers.{i}.post_attention_layernorm.weight", *GGUF_ENDS]
    return Two(rewound(rules, model.state_dict(), GGUF), model, rules, proof="llama.cpp's tensor_mapping.py")


@pair("BERT in llama.cpp's names", "transformers")
def gguf_bert(small: bool) -> Two:
    layer = "encoder.layer.{i}."
    rules = [
        "token_embd.weight -> embeddings.word_embeddings.weight",
        "position_embd.weight -> embeddings.position_embeddings.weight",
        "token_types.weight -> embeddings.token_type_embeddings.weight",
        "token_embd_norm.{p*} -> embeddings.LayerNorm.{p*}",
        f"blk.{{i}}.attn_{{x=q|k|v}}.{{p*}} -> {layer}attention.self.{{x=query|key|value}}.{{p*}}",
        f"blk.{{i}}.attn_output.{{p*}} -> {layer}attention.output.dense.{{p*}}",
        f"blk.{{i}}.attn_output_norm.{{p*}} -> {layer}attention.output.LayerNorm.{{p*}}",
        f"blk.{{i}}.ffn_up.{{p*}} -> {layer}intermediate.dense.{{p*}}",
        f"blk.{{i}}.ffn_down.{{p*}} -> {layer}output.dense.{{p*}}",
        f"blk.{{i}}.layer_output_norm.{{p*}} -> {layer}output.LayerNorm.{{p*}}",
    ]
    model = bert(small)
    there = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith("pooler")}
    return Two(rewound(rules, there, GGUF), model, rules, missing=["pooler.*"], proof="llama.cpp's tensor_mapping.py")


@pair("Llama to torchtune's names", "transformers")
def torchtune(small: bool) -> Two:
    rules = [
        "layers.{i}.attn.{x=q_proj|k_proj|v_proj|output_proj}.weight -> "
        "model.layers.{i}.self_attn.{x=q_proj|k_proj|v_proj|o_proj}.weight",
        "layers.{i}.mlp.{w=w1|w2|w3}.weight -> model.layers.{i}.mlp.{w=gate_proj|down_proj|up_proj}.weight",
        "layers.{i}.{n=sa_norm|mlp_norm}.scale -> model.layers.{i}.{n=input_layernorm|post_attention_layernorm}.weight",
        "tok_embeddings.weight -> model.embed_tokens.weight",
        "norm.scale -> model.norm.weight",
        "output.weight -> lm_head.weight",
    ]
    model = llama(small)
    words = "tok_embeddings layers attn q_proj k_proj v_proj output_proj mlp w sa_norm mlp_norm norm scale output"
    return Two(
        model, rewound(rules, model.state_dict(), words), rules, is_backwards=True,
        hidden=["*.q_proj.weight", "*.k_proj.weight"], undecided=["*.w1.weight", "*.w3.weight"],
        proof="torchtune's convert_weights.py",
    )  # fmt: skip


@pair("Meta's Llama 3.2, tied, to Hugging Face", "transformers")
def llama_tied(small: bool) -> Two:
    """The file has no output; the target's state dict lists its tied head."""
    package = transformers()
    model = package.LlamaForCausalLM(package.LlamaConfig(**llama_sizes(False), tie_word_embeddings=True))
    rules = [
        "layers.{l}.attention.w{x=q|k|v|o}.weight -> model.layers.{l}.self_attn.{x}_proj.weight",
        "layers.{l}.feed_forward.w{n=1|2|3}.weight -> model.layers.{l}.mlp.{n=gate|down|up}_proj.weight",
        "layers.{l}.attention_norm.weight -> model.layers.{l}.input_layernorm.weight",
        "layers.{l}.ffn_norm.weight -> model.layers.{l}.post_attention_layernorm.weight",
        "tok_embeddings.weight -> model.embed_tokens.weight",
        "norm.weight -> model.norm.weight",
    ]
    there = {key: tensor for key, tensor in model.state_dict().items() if key != "lm_head.weight"}
    words = "tok_embeddings layers attention wq wk wv wo feed_forward w attention_norm ffn_norm norm"
    rules[-2] = "tok_embeddings.weight -> model.embed_tokens.weight, lm_head.weight"
    plain = [*rules[:-2], "tok_embeddings.weight -> model.embed_tokens.weight", rules[-1]]
    return Two(
        rewound(plain, there, words), model, rules, hidden=["*.q_proj.weight", "*.k_proj.weight"],
        undecided=["model.embed_tokens.weight", "lm_head.weight", "*.gate_proj.weight", "*.up_proj.weight"],
        proof="Meta's model.py",
    )  # fmt: skip


@pair("Pythia to LitGPT's names", "transformers")
def pythia(small: bool) -> Two:
    package = transformers()
    config = package.GPTNeoXConfig(
        vocab_size=50304, hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=2048
    )
    model = package.GPTNeoXForCausalLM(config)
    block, to = "gpt_neox.layers.{i}.", "transformer.h.{i}."
    rules = [
        "gpt_neox.embed_in.weight -> transformer.wte.weight",
        f"{block}input_layernorm.{{p*}} -> {to}norm_1.{{p*}}",
        f"{block}post_attention_layernorm.{{p*}} -> {to}norm_2.{{p*}}",
        f"{block}attention.query_key_value.{{p*}} -> {to}attn.qkv.{{p*}}",
        f"{block}attention.dense.{{p*}} -> {to}attn.proj.{{p*}}",
        f"{block}mlp.dense_h_to_4h.{{p*}} -> {to}mlp.fc.{{p*}}",
        f"{block}mlp.dense_4h_to_h.{{p*}} -> {to}mlp.proj.{{p*}}",
        "gpt_neox.final_layer_norm.{p*} -> transformer.ln_f.{p*}",
    ]
    from ckptool.recipes.recipe import parse_recipe
    from ckptool.recipes.reverse import reverse

    back = [rule.text for rule in reverse(parse_recipe(rules)).recipe.rules]
    words = "lm_head transformer wte h norm_1 attn qkv proj norm_2 mlp fc proj ln_f"
    target = rewound(back, model.state_dict(), words)
    return Two(model, target, rules, hidden=["*.qkv.*"], proof="LitGPT's copy_weights_gpt_neox")


@pair("Megatron-LM's GPT to GPT-2: Linear to Conv1D, heads interleaved", "transformers")
def megatron(small: bool) -> Two:
    root = "language_model.transformer.layers.{i}."
    rules = [
        "language_model.embedding.word_embeddings.weight -> transformer.wte.weight",
        "language_model.embedding.position_embeddings.weight -> transformer.wpe.weight",
        f"{root}input_layernorm.{{p*}} -> transformer.h.{{i}}.ln_1.{{p*}}",
        f"{root}attention.query_key_value.weight -> transformer.h.{{i}}.attn.c_attn.weight | (h x d) i -> i (x h d)",
        f"{root}attention.query_key_value.bias -> transformer.h.{{i}}.attn.c_attn.bias | (h x d) -> (x h d)",
        f"{root}attention.dense.weight -> transformer.h.{{i}}.attn.c_proj.weight | o i -> i o",
        f"{root}attention.dense.bias -> transformer.h.{{i}}.attn.c_proj.bias",
        f"{root}post_attention_layernorm.{{p*}} -> transformer.h.{{i}}.ln_2.{{p*}}",
        f"{root}mlp.{{n=dense_h_to_4h|dense_4h_to_h}}.weight -> transformer.h.{{i}}.mlp.{{n=c_fc|c_proj}}.weight"
        " | o i -> i o",
        f"{root}mlp.{{n=dense_h_to_4h|dense_4h_to_h}}.bias -> transformer.h.{{i}}.mlp.{{n=c_fc|c_proj}}.bias",
        "language_model.transformer.final_layernorm.{p*} -> transformer.ln_f.{p*}",
    ]
    model = gpt2(False)
    there = {key: tensor for key, tensor in model.state_dict().items() if key != "lm_head.weight"}
    words = """language_model embedding word_embeddings position_embeddings transformer layers input_layernorm attention
        query_key_value dense post_attention_layernorm mlp dense_h_to_4h dense_4h_to_h final_layernorm"""
    vars = {"h": 12, "x": 3}
    return Two(
        rewound(rules, there, words, vars), model, rules, vars=vars, hidden=["*.c_attn.*"], missing=["lm_head.weight"],
        undecided=["transformer.wte.weight"], proof="transformers' convert_megatron_gpt2_checkpoint.py",
    )  # fmt: skip


@pair("Phi in Microsoft's names: one list from embedding to head", "transformers")
def phi(small: bool) -> Two:
    package = transformers()
    layers = 24
    model = package.PhiForCausalLM(package.PhiConfig(num_hidden_layers=layers))
    block = "model.layers.{i}."
    rules = [
        "layers.0.wte.weight -> model.embed_tokens.weight",
        f"layers.{layers + 1}.ln.{{p*}} -> model.final_layernorm.{{p*}}",
        f"layers.{layers + 1}.linear.{{p*}} -> lm_head.{{p*}}",
        f"layers.{{i+1}}.ln.{{p*}} -> {block}input_layernorm.{{p*}}",
        f"layers.{{i+1}}.mixer.Wqkv.{{p*}} -> {block}self_attn.{{x=q|k|v}}_proj.{{p*}} | (x o) ... -> o ...",
        f"layers.{{i+1}}.mixer.out_proj.{{p*}} -> {block}self_attn.dense.{{p*}}",
        f"layers.{{i+1}}.mlp.{{k**}} -> {block}mlp.{{k**}}",
    ]
    words = "layers wte ln mixer Wqkv out_proj mlp fc linear"
    return Two(
        rewound(rules, model.state_dict(), words), model, rules, proof="transformers' convert_phi_weights_to_hf.py"
    )


def unfused(state: State) -> State:
    """What the Hub's files have: a gate, up and down projection per expert."""
    changed: dict[str, Any] = {}
    for key, tensor in state.items():
        if key.endswith(("experts.gate_up_proj", "experts.down_proj")):
            for expert, matrix in enumerate(tensor):
                stem = f"{key.rpartition('.')[0]}.{expert}"
                if key.endswith("down_proj"):
                    changed[f"{stem}.down_proj.weight"] = matrix
                else:
                    changed[f"{stem}.gate_proj.weight"], changed[f"{stem}.up_proj.weight"] = matrix.chunk(2)
        else:
            changed[key] = tensor
    return changed


FUSE = [
    "{m**}.experts.{e}.gate_proj.weight, {m**}.experts.{e}.up_proj.weight -> {m**}.experts.gate_up_proj"
    " | o i, p i -> e (o + p) i",
    "{m**}.experts.{e}.down_proj.weight -> {m**}.experts.down_proj | o i -> e o i",
]


@pair("Qwen2-MoE: experts fused beside a shared one", "transformers")
def qwen_moe(small: bool) -> Two:
    package = transformers()
    sizes = llama_sizes(True) | {"num_experts": 6, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24,
                                 "hidden_size": 32 if small else 96, "num_experts_per_tok": 2}  # fmt: skip
    models = [package.Qwen2MoeForCausalLM(package.Qwen2MoeConfig(**sizes)) for _ in range(2)]
    return Two(models[0], models[1], FUSE, source_file=unfused, ask=logits)


variant("Qwen2-MoE, sorted", "Qwen2-MoE: experts fused beside a shared one", both_sorted)
variant("Llama in llama.cpp's names, both sorted", "Llama in llama.cpp's names", both_sorted)
variant("Gemma 2 to llama.cpp's names, sorted", "Gemma 2 to llama.cpp's names: four norms in a block", sorted_keys)
variant("Phi in Microsoft's names, headers only", "Phi in Microsoft's names: one list from embedding to head",
        headers_only)  # fmt: skip


@pair("DeepSeek-V3 in its authors' names: latent attention", "transformers")
def deepseek(small: bool) -> Two:
    package = transformers()
    config = package.DeepseekV3Config(
        vocab_size=1000, hidden_size=256, intermediate_size=640, moe_intermediate_size=96, num_hidden_layers=5,
        num_attention_heads=8, num_key_value_heads=8, n_routed_experts=8, q_lora_rank=64, kv_lora_rank=48,
        qk_rope_head_dim=16, qk_nope_head_dim=32, v_head_dim=32, first_k_dense_replace=2, n_group=4,
    )  # fmt: skip
    model = package.DeepseekV3ForCausalLM(config)
    block = "model.layers.{i}."
    parts = "{x=wq_a|q_norm|wq_b|wkv_a|kv_norm|wkv_b|wo}"
    theirs = "{x=q_a_proj|q_a_layernorm|q_b_proj|kv_a_proj_with_mqa|kv_a_layernorm|kv_b_proj|o_proj}"
    names = "{n=gate_proj|down_proj|up_proj}"
    rules = [
        f"layers.{{i}}.attn.{parts}.weight -> {block}self_attn.{theirs}.weight",
        f"layers.{{i}}.ffn.experts.{{e}}.w1.weight, layers.{{i}}.ffn.experts.{{e}}.w3.weight"
        f" -> {block}mlp.experts.gate_up_proj | o i, p i -> e (o + p) i",
        f"layers.{{i}}.ffn.experts.{{e}}.w2.weight -> {block}mlp.experts.down_proj | o i -> e o i",
        f"layers.{{i}}.ffn.shared_experts.w{{n=1|2|3}}.weight -> {block}mlp.shared_experts.{names}.weight",
        f"layers.{{i}}.ffn.w{{n=1|2|3}}.weight -> {block}mlp.{names}.weight",
        f"layers.{{i}}.ffn.gate.weight -> {block}mlp.gate.weight",
        f"layers.{{i}}.ffn.gate.bias -> {block}mlp.gate.e_score_correction_bias",
        f"layers.{{i}}.{{n=attn_norm|ffn_norm}}.weight -> {block}{{n=input_layernorm|post_attention_layernorm}}.weight",
        "embed.weight -> model.embed_tokens.weight",
        "norm.weight -> model.norm.weight",
        "head.weight -> lm_head.weight",
    ]
    words = """embed layers attn wq_a q_norm wq_b wkv_a kv_norm wkv_b wo ffn w1 w2 w3 gate experts shared_experts
        attn_norm ffn_norm norm head"""
    file = dict(rewound(rules[:1] + rules[3:], {k: v for k, v in model.state_dict().items() if ".experts." not in k},
                        words))  # fmt: skip
    for key, tensor in unfused({k: v for k, v in model.state_dict().items() if ".experts." in k}).items():
        name = key.removeprefix("model.").replace(".mlp.", ".ffn.")
        for old, new in (("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3")):
            name = name.replace(old, new)
        file[name] = tensor
    return Two(
        listed(file, words), model, rules, hidden=["*.self_attn.*"],
        undecided=["*.gate_up_proj", "*.gate_proj.weight", "*.up_proj.weight"],
        proof="DeepSeek's convert.py",
    )  # fmt: skip
