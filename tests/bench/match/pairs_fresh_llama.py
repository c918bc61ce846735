"""Fresh pairs: Llama and its kin."""

from __future__ import annotations

from tests.bench.match.fresh import Keys, Two, fresh, pair, state
from tests.bench.match.pairs_fresh_text import hf, llama


@pair("fresh: Baichuan to Llama's names: W_pack", "transformers")
def baichuan(small: bool) -> Two:
    """Everything else has its name already; the file still has the tables of rotary angles."""
    target = llama()
    kept = state(target)
    source = Keys()
    for key, tensor in kept.items():
        if key.endswith("q_proj.weight"):
            source.put(key.replace("q_proj", "W_pack"), 1536, 512)
        elif not key.endswith(("k_proj.weight", "v_proj.weight")):
            source[key] = tensor
        if key.endswith("o_proj.weight"):
            source.put(key.replace("o_proj.weight", "rotary_emb.inv_freq"), 32)
    rules = [f"{key} -> {key}" for key in kept if not any(part in key for part in ("q_proj", "k_proj", "v_proj"))]
    rules.append(
        "model.layers.{n}.self_attn.W_pack.weight -> model.layers.{n}.self_attn.{x=q|k|v}_proj.weight | (x o) i -> o i"
    )
    return fresh(source, target, rules)


@pair("fresh: InternLM2 to Llama: wqkv by groups of heads", "transformers")
def internlm2(small: bool) -> Two:
    """A group is its queries, one key and one value: no header tells it, names may."""
    target = llama(heads=8, groups=2)
    source, rules = Keys(), []
    source.put("model.tok_embeddings.weight", 3200, 512)
    rules.append("model.tok_embeddings.weight -> model.embed_tokens.weight")
    for at in range(4):
        old, new = f"model.layers.{at}", f"model.layers.{at}"
        source.put(f"{old}.attention.wqkv.weight", 768, 512)
        source.put(f"{old}.attention.wo.weight", 512, 512)
        source.put(f"{old}.feed_forward.w1.weight", 1376, 512)
        source.put(f"{old}.feed_forward.w3.weight", 1376, 512)
        source.put(f"{old}.feed_forward.w2.weight", 512, 1376)
        source.put(f"{old}.attention_norm.weight", 512)
        source.put(f"{old}.ffn_norm.weight", 512)
        for a, b in (
            ("attention.wo", "self_attn.o_proj"),
            ("feed_forward.w1", "mlp.gate_proj"),
            ("feed_forward.w3", "mlp.up_proj"),
            ("feed_forward.w2", "mlp.down_proj"),
            ("attention_norm", "input_layernorm"),
            ("ffn_norm", "post_attention_layernorm"),
        ):
            rules.append(f"{old}.{a}.weight -> {new}.{b}.weight")
        names = ", ".join(f"{new}.self_attn.{x}_proj.weight" for x in "qkv")
        rules.append(f"{old}.attention.wqkv.weight -> {names} | (g (q + k + v)) i -> (g q) i, (g k) i, (g v) i")
    source.put("model.norm.weight", 512)
    source.put("output.weight", 3200, 512)
    rules += ["model.norm.weight -> model.norm.weight", "output.weight -> lm_head.weight"]
    return fresh(source, target, rules, vars={"g": 2, "q": 256, "k": 64, "v": 64}, hidden=["*self_attn.?_proj.weight"])


@pair("fresh: Qwen's first names to Qwen2: c_attn split, w2 is the gate", "transformers")
def qwen(small: bool) -> Two:
    """w1 and w2 of one shape: only the code tells which is the gate."""
    target = hf(
        "Qwen2ForCausalLM",
        "Qwen2Config",
        hidden_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        intermediate_size=1376,
        vocab_size=3200,
    )
    source, rules = Keys(), []
    source.put("transformer.wte.weight", 3200, 512)
    rules.append("transformer.wte.weight -> model.embed_tokens.weight")
    for at in range(4):
        old, new = f"transformer.h.{at}", f"model.layers.{at}"
        source.put(f"{old}.ln_1.weight", 512)
        source.lin(f"{old}.attn.c_attn", 1536, 512)
        source.put(f"{old}.attn.c_proj.weight", 512, 512)
        source.put(f"{old}.ln_2.weight", 512)
        source.put(f"{old}.mlp.w1.weight", 1376, 512)
        source.put(f"{old}.mlp.w2.weight", 1376, 512)
        source.put(f"{old}.mlp.c_proj.weight", 512, 1376)
        for a, b in (
            ("ln_1", "input_layernorm"),
            ("attn.c_proj", "self_attn.o_proj"),
            ("ln_2", "post_attention_layernorm"),
            ("mlp.w1", "mlp.up_proj"),
            ("mlp.w2", "mlp.gate_proj"),
            ("mlp.c_proj", "mlp.down_proj"),
        ):
            rules.append(f"{old}.{a}.weight -> {new}.{b}.weight")
        for tail, axes in (("weight", " i"), ("bias", "")):
            rules.append(
                f"{old}.attn.c_attn.{tail} -> {new}.self_attn.{{x=q|k|v}}_proj.{tail} | (x o){axes} -> o{axes}"
            )
    source.put("transformer.ln_f.weight", 512)
    source.put("lm_head.weight", 3200, 512)
    rules += ["transformer.ln_f.weight -> model.norm.weight", "lm_head.weight -> lm_head.weight"]
    return fresh(source, target, rules, undecided=["*mlp.gate_proj.weight", "*mlp.up_proj.weight"])


@pair("fresh: ChatGLM to Hugging Face's Glm: grouped query_key_value", "transformers")
def chatglm(small: bool) -> Two:
    """Two groups of keys and values behind all queries; the fused gate stays fused."""
    target = hf(
        "GlmForCausalLM",
        "GlmConfig",
        hidden_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        head_dim=64,
        num_key_value_heads=2,
        intermediate_size=1376,
        vocab_size=3200,
        attention_bias=True,
        pad_token_id=0,
    )
    source, rules = Keys(), []
    source.put("transformer.embedding.word_embeddings.weight", 3200, 512)
    source.put("transformer.rotary_pos_emb.inv_freq", 16)
    rules.append("transformer.embedding.word_embeddings.weight -> model.embed_tokens.weight")
    for at in range(4):
        old, new = f"transformer.encoder.layers.{at}", f"model.layers.{at}"
        source.put(f"{old}.input_layernorm.weight", 512)
        source.lin(f"{old}.self_attention.query_key_value", 768, 512)
        source.put(f"{old}.self_attention.dense.weight", 512, 512)
        source.put(f"{old}.post_attention_layernorm.weight", 512)
        source.put(f"{old}.mlp.dense_h_to_4h.weight", 2752, 512)
        source.put(f"{old}.mlp.dense_4h_to_h.weight", 512, 1376)
        for a, b in (
            ("input_layernorm", "input_layernorm"),
            ("self_attention.dense", "self_attn.o_proj"),
            ("post_attention_layernorm", "post_attention_layernorm"),
            ("mlp.dense_h_to_4h", "mlp.gate_up_proj"),
            ("mlp.dense_4h_to_h", "mlp.down_proj"),
        ):
            rules.append(f"{old}.{a}.weight -> {new}.{b}.weight")
        for tail, axes in (("weight", " i"), ("bias", "")):
            names = ", ".join(f"{new}.self_attn.{x}_proj.{tail}" for x in "qkv")
            fused = f"{old}.self_attention.query_key_value.{tail}"
            rules.append(f"{fused} -> {names} | (q + k + v){axes} -> q{axes}, k{axes}, v{axes}")
    source.put("transformer.encoder.final_layernorm.weight", 512)
    source.put("transformer.output_layer.weight", 3200, 512)
    rules += [
        "transformer.encoder.final_layernorm.weight -> model.norm.weight",
        "transformer.output_layer.weight -> lm_head.weight",
    ]
    return fresh(source, target, rules, vars={"q": 512, "k": 128, "v": 128})


@pair("fresh: AI2's OLMo to Hugging Face: att_proj and ff_proj are fused, norms have no weights", "transformers")
def olmo(small: bool) -> Two:
    """ff_proj is up, then gate: no header tells it."""
    target = hf(
        "OlmoForCausalLM",
        "OlmoConfig",
        hidden_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        intermediate_size=1376,
        vocab_size=3200,
    )
    source, rules = Keys(), []
    source.put("model.transformer.wte.weight", 3200, 512)
    rules.append("model.transformer.wte.weight -> model.embed_tokens.weight")
    for at in range(4):
        old, new = f"model.transformer.blocks.{at}", f"model.layers.{at}"
        source.put(f"{old}.attn_out.weight", 512, 512)
        source.put(f"{old}.ff_out.weight", 512, 1376)
        source.put(f"{old}.att_proj.weight", 1536, 512)
        source.put(f"{old}.ff_proj.weight", 2752, 512)
        rules += [
            f"{old}.attn_out.weight -> {new}.self_attn.o_proj.weight",
            f"{old}.ff_out.weight -> {new}.mlp.down_proj.weight",
            f"{old}.att_proj.weight -> {new}.self_attn.{{x=q|k|v}}_proj.weight | (x o) i -> o i",
            f"{old}.ff_proj.weight -> {new}.mlp.{{x=up|gate}}_proj.weight | (x o) i -> o i",
        ]
    source.put("model.transformer.ff_out.weight", 3200, 512)
    rules.append("model.transformer.ff_out.weight -> lm_head.weight")
    return fresh(source, target, rules, hidden=["*mlp.gate_proj.weight", "*mlp.up_proj.weight"])


@pair("fresh: lit-llama to Meta's names: c_fc1 is w1, c_fc2 is w3, c_attn split")
def lit_llama(small: bool) -> Two:
    """The rotary order is the same in both."""
    source, target, rules = Keys(), Keys(), []
    source.put("lm_head.weight", 3200, 512)
    source.put("transformer.wte.weight", 3200, 512)
    target.put("tok_embeddings.weight", 3200, 512)
    for at in range(4):
        old, new = f"transformer.h.{at}", f"layers.{at}"
        source.put(f"{old}.rms_1.scale", 512)
        source.put(f"{old}.attn.c_attn.weight", 1536, 512)
        source.put(f"{old}.attn.c_proj.weight", 512, 512)
        source.put(f"{old}.rms_2.scale", 512)
        source.put(f"{old}.mlp.c_fc1.weight", 1376, 512)
        source.put(f"{old}.mlp.c_fc2.weight", 1376, 512)
        source.put(f"{old}.mlp.c_proj.weight", 512, 1376)
        for x in "qkvo":
            target.put(f"{new}.attention.w{x}.weight", 512, 512)
        target.put(f"{new}.feed_forward.w1.weight", 1376, 512)
        target.put(f"{new}.feed_forward.w2.weight", 512, 1376)
        target.put(f"{new}.feed_forward.w3.weight", 1376, 512)
        target.put(f"{new}.attention_norm.weight", 512)
        target.put(f"{new}.ffn_norm.weight", 512)
        rules += [
            f"{old}.rms_1.scale -> {new}.attention_norm.weight",
            f"{old}.rms_2.scale -> {new}.ffn_norm.weight",
            f"{old}.attn.c_proj.weight -> {new}.attention.wo.weight",
            f"{old}.mlp.c_fc1.weight -> {new}.feed_forward.w1.weight",
            f"{old}.mlp.c_fc2.weight -> {new}.feed_forward.w3.weight",
            f"{old}.mlp.c_proj.weight -> {new}.feed_forward.w2.weight",
            f"{old}.attn.c_attn.weight -> {new}.attention.w{{x=q|k|v}}.weight | (x o) i -> o i",
        ]
    source.put("transformer.ln_f.scale", 512)
    target.put("norm.weight", 512)
    target.put("output.weight", 3200, 512)
    rules += [
        "lm_head.weight -> output.weight",
        "transformer.wte.weight -> tok_embeddings.weight",
        "transformer.ln_f.scale -> norm.weight",
    ]
    return fresh(source, target, rules)
