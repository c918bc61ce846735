"""Fresh pairs: BERT, GPT-2, translation, recurrent and state space models."""

from __future__ import annotations

from typing import Any

from tests.bench.match.fresh import Keys, Two, back, forth, fresh, pair, rules_of, state


def hf(name: str, config: str, **sizes: Any) -> Any:
    """A model of transformers from its configuration."""
    import transformers

    return getattr(transformers, name)(getattr(transformers, config)(**sizes))


def llama(depth: int = 4, heads: int = 8, groups: int = 8, hidden: int = 512, inner: int = 1376) -> Any:
    return hf(
        "LlamaForCausalLM",
        "LlamaConfig",
        hidden_size=hidden,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        intermediate_size=inner,
        vocab_size=3200,
    )


@pair("fresh: flash-attention's BERT to Hugging Face: Wqkv", "transformers")
def flash_bert(small: bool) -> Two:
    """norm1 stands behind the attention; flash_attn.models.bert remaps it so."""
    target = hf("BertForPreTraining", "BertConfig", num_hidden_layers=4, vocab_size=3000)
    source = Keys()
    for name, rows in (("word", 3000), ("position", 512), ("token_type", 2)):
        source.put(f"bert.embeddings.{name}_embeddings.weight", rows, 768)
    source.norm("bert.emb_ln", 768)
    for at in range(4):
        name = f"bert.encoder.layers.{at}"
        source.lin(f"{name}.mixer.Wqkv", 2304, 768)
        source.lin(f"{name}.mixer.out_proj", 768, 768)
        source.norm(f"{name}.norm1", 768)
        source.lin(f"{name}.mlp.fc1", 3072, 768)
        source.lin(f"{name}.mlp.fc2", 768, 3072)
        source.norm(f"{name}.norm2", 768)
    source.lin("bert.pooler.dense", 768, 768)
    source.lin("cls.predictions.transform.dense", 768, 768)
    source.norm("cls.predictions.transform.layer_norm", 768)
    source.lin("cls.predictions.decoder", 3000, 768)
    source.lin("cls.seq_relationship", 2, 768)
    table: list[Any] = [
        (r"^cls\.predictions\.bias$", ""),
        (r".*position_ids", ""),
        (r".*attention\.self\..*", ""),
        (r"^bert\.embeddings\.LayerNorm", "bert.emb_ln"),
        (r"^bert\.encoder\.layer\.(\d+)\.", r"bert.encoder.layers.\1."),
        (r"attention\.output\.dense", "mixer.out_proj"),
        (r"attention\.output\.LayerNorm", "norm1"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"layers\.(\d+)\.output\.dense", r"layers.\1.mlp.fc2"),
        (r"layers\.(\d+)\.output\.LayerNorm", r"layers.\1.norm2"),
        (r"transform\.LayerNorm", "transform.layer_norm"),
    ]
    rules = rules_of(state(target), table, backwards=True)
    rules = [rule for rule in rules if not rule.startswith("cls.predictions.decoder.bias")]
    rules.append("cls.predictions.decoder.bias -> cls.predictions.decoder.bias, cls.predictions.bias")
    target_keys = state(target)
    if "cls.predictions.decoder.bias" not in target_keys:
        rules[-1] = "cls.predictions.decoder.bias -> cls.predictions.bias"
    part = "attention.self.{x=query|key|value}"
    for tail, axes in (("weight", " i"), ("bias", "")):
        fused = f"bert.encoder.layers.{{n}}.mixer.Wqkv.{tail}"
        rules.append(f"{fused} -> bert.encoder.layer.{{n}}.{part}.{tail} | (x o){axes} -> o{axes}")
    return fresh(source, target, rules, missing=["*position_ids"])


@pair("fresh: flash-attention's GPT to Hugging Face's GPT-2: turned, fused in both", "transformers")
def flash_gpt(small: bool) -> Two:
    """Wqkv against Conv1D's c_attn: square matrices are turned too."""
    target = hf("GPT2LMHeadModel", "GPT2Config", n_layer=4, vocab_size=3000)
    source = Keys()
    source.put("transformer.embeddings.word_embeddings.weight", 3000, 768)
    source.put("transformer.embeddings.position_embeddings.weight", 1024, 768)
    for at in range(4):
        name = f"transformer.layers.{at}"
        source.lin(f"{name}.mixer.Wqkv", 2304, 768)
        source.lin(f"{name}.mixer.out_proj", 768, 768)
        source.norm(f"{name}.norm1", 768)
        source.lin(f"{name}.mlp.fc1", 3072, 768)
        source.lin(f"{name}.mlp.fc2", 768, 3072)
        source.norm(f"{name}.norm2", 768)
    source.norm("transformer.ln_f", 768)
    source.put("lm_head.weight", 3000, 768)
    table = [
        (r"^transformer\.wte", "transformer.embeddings.word_embeddings"),
        (r"^transformer\.wpe", "transformer.embeddings.position_embeddings"),
        (r"\.h\.(\d+)\.", r".layers.\1."),
        (r"\.ln_(\d)", r".norm\1"),
        (r"attn\.c_attn", "mixer.Wqkv"),
        (r"attn\.c_proj", "mixer.out_proj"),
        (r"mlp\.c_fc", "mlp.fc1"),
        (r"mlp\.c_proj", "mlp.fc2"),
    ]
    return back(source, target, table, [(r"(c_attn|c_proj|c_fc)\.weight", "o i -> i o")])


@pair("fresh: BERT of TensorFlow's Model Garden to Hugging Face: heads are an axis", "transformers")
def garden_bert(small: bool) -> Two:
    """[768, 12, 64] and [12, 64, 768] are square matrices."""
    target = hf("BertModel", "BertConfig", num_hidden_layers=4, vocab_size=3000)
    source = Keys()
    source.put("word_embeddings/embeddings", 3000, 768)
    source.put("position_embedding/embeddings", 512, 768)
    source.put("type_embeddings/embeddings", 2, 768)
    source.put("embeddings/layer_norm/gamma", 768)
    source.put("embeddings/layer_norm/beta", 768)
    for at in range(4):
        name = f"transformer/layer_{at}"
        for part in ("query", "key", "value"):
            source.put(f"{name}/self_attention/{part}/kernel", 768, 12, 64)
            source.put(f"{name}/self_attention/{part}/bias", 12, 64)
        source.put(f"{name}/self_attention/attention_output/kernel", 12, 64, 768)
        source.put(f"{name}/self_attention/attention_output/bias", 768)
        source.put(f"{name}/self_attention_layer_norm/gamma", 768)
        source.put(f"{name}/self_attention_layer_norm/beta", 768)
        source.put(f"{name}/intermediate/kernel", 768, 3072)
        source.put(f"{name}/intermediate/bias", 3072)
        source.put(f"{name}/output/kernel", 3072, 768)
        source.put(f"{name}/output/bias", 768)
        source.put(f"{name}/output_layer_norm/gamma", 768)
        source.put(f"{name}/output_layer_norm/beta", 768)
    source.put("pooler_transform/kernel", 768, 768)
    source.put("pooler_transform/bias", 768)
    table: list[Any] = [
        (r".*position_ids", ""),
        (r"^embeddings\.word_embeddings\.weight", "word_embeddings/embeddings"),
        (r"^embeddings\.position_embeddings\.weight", "position_embedding/embeddings"),
        (r"^embeddings\.token_type_embeddings\.weight", "type_embeddings/embeddings"),
        (r"LayerNorm\.weight", "LayerNorm/gamma"),
        (r"LayerNorm\.bias", "LayerNorm/beta"),
        (r"^embeddings\.LayerNorm", "embeddings/layer_norm"),
        (r"^encoder\.layer\.(\d+)\.", r"transformer/layer_\1/"),
        (r"attention\.self\.", "self_attention/"),
        (r"attention\.output\.dense", "self_attention/attention_output"),
        (r"attention\.output\.LayerNorm", "self_attention_layer_norm"),
        (r"intermediate\.dense", "intermediate"),
        (r"/output\.dense", "/output"),
        (r"/output\.LayerNorm", "/output_layer_norm"),
        (r"^pooler\.dense", "pooler_transform"),
        (r"\.weight$", "/kernel"),
        (r"\.bias$", "/bias"),
    ]
    layouts = [
        (r"self\.(query|key|value)\.weight", "i h d -> (h d) i"),
        (r"self\.(query|key|value)\.bias", "h d -> (h d)"),
        (r"attention\.output\.dense\.weight", "h d o -> o (h d)"),
        (r"(dense)\.weight", "i o -> o i"),
    ]
    return back(source, target, table, layouts)


@pair("fresh: GPT-2 in KerasHub's names to Hugging Face: three kernels with heads become one matrix", "transformers")
def keras_gpt2(small: bool) -> Two:
    """query, key and value of [768, 12, 64] side by side in Conv1D's [768, 2304]."""
    target = hf("GPT2Model", "GPT2Config", n_layer=4, vocab_size=3000)
    source, rules = Keys(), []
    source.put("token_embedding/embeddings", 3000, 768)
    source.put("position_embedding/embeddings", 1024, 768)
    rules += ["token_embedding/embeddings -> wte.weight", "position_embedding/embeddings -> wpe.weight"]
    for at in range(4):
        name, new = f"transformer_layer_{at}", f"h.{at}"
        parts = ("query", "key", "value")
        for part in parts:
            source.put(f"{name}/self_attention/{part}/kernel", 768, 12, 64)
            source.put(f"{name}/self_attention/{part}/bias", 12, 64)
        source.put(f"{name}/self_attention/attention_output/kernel", 12, 64, 768)
        source.put(f"{name}/self_attention/attention_output/bias", 768)
        for part, to in (("self_attention_layer_norm", "ln_1"), ("feedforward_layer_norm", "ln_2")):
            source.put(f"{name}/{part}/gamma", 768)
            source.put(f"{name}/{part}/beta", 768)
            rules += [f"{name}/{part}/gamma -> {new}.{to}.weight", f"{name}/{part}/beta -> {new}.{to}.bias"]
        for part, to, into, out in (
            ("feedforward_intermediate_dense", "c_fc", 768, 3072),
            ("feedforward_output_dense", "c_proj", 3072, 768),
        ):
            source.put(f"{name}/{part}/kernel", into, out)
            source.put(f"{name}/{part}/bias", out)
            rules += [f"{name}/{part}/kernel -> {new}.mlp.{to}.weight", f"{name}/{part}/bias -> {new}.mlp.{to}.bias"]
        kernels = ", ".join(f"{name}/self_attention/{part}/kernel" for part in parts)
        biases = ", ".join(f"{name}/self_attention/{part}/bias" for part in parts)
        rules += [
            f"{kernels} -> {new}.attn.c_attn.weight | i h d, i h e, i h f -> i ((h d) + (h e) + (h f))",
            f"{biases} -> {new}.attn.c_attn.bias | h d, h e, h f -> ((h d) + (h e) + (h f))",
            f"{name}/self_attention/attention_output/kernel -> {new}.attn.c_proj.weight | h d o -> (h d) o",
            f"{name}/self_attention/attention_output/bias -> {new}.attn.c_proj.bias",
        ]
    source.put("layer_norm/gamma", 768)
    source.put("layer_norm/beta", 768)
    rules += ["layer_norm/gamma -> ln_f.weight", "layer_norm/beta -> ln_f.bias"]
    return fresh(source, target, rules)


@pair("fresh: Marian's npz to Hugging Face: flat names, counted from 1", "transformers")
def marian(small: bool) -> Two:
    """encoder_l1_self_Wq; every matrix is turned, square ones too."""
    target = hf(
        "MarianMTModel",
        "MarianConfig",
        vocab_size=3000,
        d_model=512,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_ffn_dim=2048,
        pad_token_id=2999,
        decoder_start_token_id=2999,
        share_encoder_decoder_embeddings=True,
    )
    source, rules = Keys(), []

    def both(old: str, new: str, w: str, b: str, into: int, out: int) -> None:
        source.put(f"{old}_{w}", into, out)
        source.put(f"{old}_{b}", 1, out)
        rules.append(f"{old}_{w} -> {new}.weight | i o -> o i")
        rules.append(f"{old}_{b} -> {new}.bias | 1 o -> o")

    def norm(old: str, new: str) -> None:
        source.put(f"{old}_ln_scale", 1, 512)
        source.put(f"{old}_ln_bias", 1, 512)
        rules.append(f"{old}_ln_scale -> {new}.weight | 1 o -> o")
        rules.append(f"{old}_ln_bias -> {new}.bias | 1 o -> o")

    for side in ("decoder", "encoder"):
        for at in range(3):
            old, new = f"{side}_l{at + 1}", f"model.{side}.layers.{at}"
            kinds = (
                [("self", "self_attn"), ("context", "encoder_attn")] if side == "decoder" else [("self", "self_attn")]
            )
            for kind, name in kinds:
                for x, y in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", "out_proj")):
                    both(f"{old}_{kind}", f"{new}.{name}.{y}", f"W{x}", f"b{x}", 512, 512)
                norm(f"{old}_{kind}_Wo", f"{new}.{name}_layer_norm")
            both(f"{old}_ffn", f"{new}.fc1", "W1", "b1", 512, 2048)
            both(f"{old}_ffn", f"{new}.fc2", "W2", "b2", 2048, 512)
            norm(f"{old}_ffn_ffn", f"{new}.final_layer_norm")
    source.put("decoder_ff_logit_out_b", 1, 3000)
    source.put("Wemb", 3000, 512)
    shared = [
        k
        for k in state(target)
        if k
        in (
            "model.shared.weight",
            "model.encoder.embed_tokens.weight",
            "model.decoder.embed_tokens.weight",
            "lm_head.weight",
        )
    ]
    rules += [f"Wemb -> {', '.join(shared)}", "decoder_ff_logit_out_b -> final_logits_bias"]
    return fresh(source, target, rules, missing=["*embed_positions.weight"])


@pair("fresh: OpenNMT-py to fairseq's names: the feed-forward has its norm inside")
def opennmt(small: bool) -> Two:
    """layer_norm_1 is in front of the decoder's attention; feed_forward.layer_norm in front of w_1."""
    source, target, rules = Keys(), Keys(), []
    heads = (("query", "q_proj"), ("keys", "k_proj"), ("values", "v_proj"), ("final", "out_proj"))

    def attention(old: str, new: str) -> None:
        for a in ("keys", "values", "query"):
            source.lin(f"{old}.linear_{a}", 512, 512)
        source.lin(f"{old}.final_linear", 512, 512)
        for a, b in heads:
            name = "final_linear" if a == "final" else f"linear_{a}"
            rules.extend(f"{old}.{name}.{tail} -> {new}.{b}.{tail}" for tail in ("weight", "bias"))
        for b in ("k_proj", "v_proj", "q_proj", "out_proj"):
            target.lin(f"{new}.{b}", 512, 512)

    def norm(old: str, new: str) -> None:
        source.norm(old, 512)
        target.norm(new, 512)
        rules.extend(f"{old}.{tail} -> {new}.{tail}" for tail in ("weight", "bias"))

    def feed(old: str, new: str) -> None:
        for a, b, out, into in (("w_1", "fc1", 2048, 512), ("w_2", "fc2", 512, 2048)):
            source.lin(f"{old}.feed_forward.{a}", out, into)
            target.lin(f"{new}.{b}", out, into)
            rules.extend(f"{old}.feed_forward.{a}.{tail} -> {new}.{b}.{tail}" for tail in ("weight", "bias"))
        norm(f"{old}.feed_forward.layer_norm", f"{new}.final_layer_norm")

    source.put("encoder.embeddings.make_embedding.emb_luts.0.weight", 3000, 512)
    source.put("encoder.embeddings.make_embedding.pe.pe", 5000, 1, 512)
    target.put("encoder.embed_tokens.weight", 3000, 512)
    rules.append("encoder.embeddings.make_embedding.emb_luts.0.weight -> encoder.embed_tokens.weight")
    for at in range(4):
        old, new = f"encoder.transformer.{at}", f"encoder.layers.{at}"
        attention(f"{old}.self_attn", f"{new}.self_attn")
        norm(f"{old}.layer_norm", f"{new}.self_attn_layer_norm")
        feed(old, new)
    norm("encoder.layer_norm", "encoder.layer_norm")
    source.put("decoder.embeddings.make_embedding.emb_luts.0.weight", 2900, 512)
    source.put("decoder.embeddings.make_embedding.pe.pe", 5000, 1, 512)
    target.put("decoder.embed_tokens.weight", 2900, 512)
    rules.append("decoder.embeddings.make_embedding.emb_luts.0.weight -> decoder.embed_tokens.weight")
    for at in range(4):
        old, new = f"decoder.transformer_layers.{at}", f"decoder.layers.{at}"
        attention(f"{old}.self_attn", f"{new}.self_attn")
        norm(f"{old}.layer_norm_1", f"{new}.self_attn_layer_norm")
        attention(f"{old}.context_attn", f"{new}.encoder_attn")
        norm(f"{old}.layer_norm_2", f"{new}.encoder_attn_layer_norm")
        feed(old, new)
    norm("decoder.layer_norm", "decoder.layer_norm")
    source.lin("generator.0", 2900, 512)
    target.put("decoder.output_projection.weight", 2900, 512)
    rules.append("generator.0.weight -> decoder.output_projection.weight")
    return fresh(source, target, rules)


@pair("fresh: Salesforce's AWD-LSTM to fastai's: one table under two names")
def awd_lstm(small: bool) -> Two:
    """The raw recurrent weights in front; the encoder's table is also that of its dropout."""
    source, target, rules = Keys(), Keys(), []
    source.put("encoder.weight", 3000, 400)
    target.put("0.encoder.weight", 3000, 400)
    target.put("0.encoder_dp.emb.weight", 3000, 400)
    rules.append("encoder.weight -> 0.encoder.weight, 0.encoder_dp.emb.weight")
    for at, (out, into) in enumerate(((1152, 400), (1152, 1152), (400, 1152))):
        for name, *size in (
            ("weight_ih_l0", 4 * out, into),
            ("bias_ih_l0", 4 * out),
            ("bias_hh_l0", 4 * out),
            ("weight_hh_l0_raw", 4 * out, out),
        ):
            source.put(f"rnns.{at}.module.{name}", *size)
        target.put(f"0.rnns.{at}.weight_hh_l0_raw", 4 * out, out)
        for name, *size in (("weight_ih_l0", 4 * out, into), ("bias_ih_l0", 4 * out), ("bias_hh_l0", 4 * out)):
            target.put(f"0.rnns.{at}.module.{name}", *size)
            rules.append(f"rnns.{at}.module.{name} -> 0.rnns.{at}.module.{name}")
        rules.append(f"rnns.{at}.module.weight_hh_l0_raw -> 0.rnns.{at}.weight_hh_l0_raw")
    source.lin("decoder", 3000, 400)
    target.put("1.decoder.weight", 3000, 400)
    target.put("1.decoder.bias", 3000)
    rules += ["decoder.weight -> 1.decoder.weight", "decoder.bias -> 1.decoder.bias"]
    return fresh(source, target, rules)


@pair("fresh: Mamba by its authors to mamba-minimal", "transformers")
def mamba(small: bool) -> Two:
    """backbone. goes away, embedding stays; A_log and D are no modules."""
    source = hf("MambaForCausalLM", "MambaConfig", hidden_size=256, num_hidden_layers=4, vocab_size=3000)
    kept = state(source)
    target = {key.replace("backbone.", "").replace("embeddings.", "embedding."): tensor for key, tensor in kept.items()}
    old = {key.replace("embeddings.", "embedding."): tensor for key, tensor in kept.items()}
    return forth(old, target, [(r"^backbone\.", "")])


@pair("fresh: a sentence transformer's file to BERT: numbers of a pipeline", "transformers")
def sbert(small: bool) -> Two:
    """0.auto_model is the encoder, 2.linear a projection that stays behind."""
    target = hf(
        "BertModel",
        "BertConfig",
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        vocab_size=3000,
    )
    source = Keys()
    source.update({f"0.auto_model.{key}": tensor for key, tensor in state(target).items()})
    source.lin("2.linear", 256, 384)
    return back(source, target, [(r"^", "0.auto_model.")])
