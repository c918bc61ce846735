"""Held-out pairs: BERT, T5, RWKV, wav2vec 2.0, BART and Llama in the names of TensorFlow, T5X, fairseq and Megatron."""

from __future__ import annotations

from typing import Any

from tests.bench.match.pairs import Two, both_sorted, pair, shuffled, sorted_keys, variant
from tests.bench.match.pairs_held import rewound
from tests.bench.match.pairs_llama import llama, llama_sizes
from tests.bench.match.pairs_text import bert, transformers

# ---------------------------------------------------------------------------------------------- TensorFlow and JAX


@pair("Google's BERT to BertForPreTraining", "transformers")
def bert_google(small: bool) -> Two:
    """`load_tf_weights_in_bert` says the names; the checkpoint lists them sorted."""
    model = bert(small, "BertForPreTraining")
    layer, to = "bert/encoder/layer_{i}/", "bert.encoder.layer.{i}."
    dense = "{d=attention/self/query|attention/self/key|attention/self/value|attention/output/dense|intermediate/dense"
    dense += "|output/dense}"
    there = dense.replace("/", ".")
    norm, leaf = "LayerNorm/{p=gamma|beta}", "LayerNorm.{p=weight|bias}"
    rules = [
        "bert/embeddings/{e=word_embeddings|position_embeddings|token_type_embeddings} -> bert.embeddings.{e}.weight",
        f"bert/embeddings/{norm} -> bert.embeddings.{leaf}",
        *(
            rule
            for a, b in zip(dense[3:-1].split("|"), there[3:-1].split("|"), strict=True)
            for rule in (f"{layer}{a}/kernel -> {to}{b}.weight | i o -> o i", f"{layer}{a}/bias -> {to}{b}.bias")
        ),
        f"{layer}attention/output/{norm} -> {to}attention.output.{leaf}",
        f"{layer}output/{norm} -> {to}output.{leaf}",
        "bert/pooler/dense/kernel -> bert.pooler.dense.weight | i o -> o i",
        "bert/pooler/dense/bias -> bert.pooler.dense.bias",
        "cls/predictions/transform/dense/kernel -> cls.predictions.transform.dense.weight | i o -> o i",
        "cls/predictions/transform/dense/bias -> cls.predictions.transform.dense.bias",
        f"cls/predictions/transform/{norm} -> cls.predictions.transform.{leaf}",
        "cls/predictions/output_bias -> cls.predictions.bias",
        "cls/seq_relationship/output_weights -> cls.seq_relationship.weight",
        "cls/seq_relationship/output_bias -> cls.seq_relationship.bias",
    ]
    kept = {key: tensor for key, tensor in model.state_dict().items() if "decoder" not in key}
    return Two(
        rewound(rules, kept, ""), model, rules, missing=["cls.predictions.decoder.*"],
        undecided=["bert.embeddings.word_embeddings.weight", "cls.predictions.bias"],
        proof="transformers' load_tf_weights_in_bert",
    )  # fmt: skip


def t5(tied: bool = False) -> Any:
    package = transformers()
    return package.T5ForConditionalGeneration(
        package.T5Config(tie_word_embeddings=tied, feed_forward_proj="gated-gelu", d_ff=1024, num_heads=6)
    )


def t5_state(model: Any) -> dict[str, Any]:
    return {key: tensor for key, tensor in model.state_dict().items() if "embed_tokens" not in key}


@pair("T5X to Hugging Face's T5", "transformers")
def t5x(small: bool) -> Two:
    """`convert_t5x_checkpoint_to_pytorch.py`; the biases of positions lie the other way round."""
    model = t5()
    rules = [
        "token_embedder/embedding -> shared.weight",
        "{t=encoder|decoder}/relpos_bias/rel_embedding -> "
        "{t}.block.0.layer.0.SelfAttention.relative_attention_bias.weight | h b -> b h",
        "{t=encoder|decoder}/{t}_norm/scale -> {t}.final_layer_norm.weight",
        "decoder/logits_dense/kernel -> lm_head.weight | i o -> o i",
    ]
    attentions = [
        ("encoder", "attention", 0, "SelfAttention", "pre_attention_layer_norm"),
        ("decoder", "self_attention", 0, "SelfAttention", "pre_self_attention_layer_norm"),
        ("decoder", "encoder_decoder_attention", 1, "EncDecAttention", "pre_cross_attention_layer_norm"),
    ]
    for tower, name, at, to, norm in attentions:
        there = f"{tower}.block.{{i}}.layer.{at}."
        rules += [
            f"{tower}/layers_{{i}}/{name}/{{x=query|key|value|out}}/kernel -> {there}{to}.{{x=q|k|v|o}}.weight"
            " | i o -> o i",
            f"{tower}/layers_{{i}}/{norm}/scale -> {there}layer_norm.weight",
        ]
    for tower, at in (("encoder", 1), ("decoder", 2)):
        there = f"{tower}.block.{{i}}.layer.{at}."
        rules += [f"{tower}/layers_{{i}}/mlp/{{w=wi_0|wi_1|wo}}/kernel -> {there}DenseReluDense.{{w}}.weight"
                  " | i o -> o i",
                  f"{tower}/layers_{{i}}/pre_mlp_layer_norm/scale -> {there}layer_norm.weight"]  # fmt: skip
    return Two(
        rewound(rules, t5_state(model), ""), model, rules, missing=["*.embed_tokens.weight"],
        undecided=["shared.weight"], proof="transformers' script",
    )  # fmt: skip


@pair("T5 in Mesh TensorFlow's names: zero-padded blocks", "transformers")
def t5_mesh(small: bool) -> Two:
    """Square kernels, turned; `block_000/layer_001`, where the number of the layer says what it is."""
    model = t5()
    rules = [
        "shared/embedding -> shared.weight",
        "{t=encoder|decoder}/rms_norm/scale -> {t}.final_layer_norm.weight",
        "{t=encoder|decoder}/block_000/layer_000/SelfAttention/relative_attention_bias -> "
        "{t}.block.0.layer.0.SelfAttention.relative_attention_bias.weight | h b -> b h",
        "decoder/logits/kernel -> lm_head.weight | i o -> o i",
    ]
    for block in range(6):
        for layer in range(3):
            here, there = f"/block_{block:03}/layer_{layer:03}/", f".block.{block}.layer.{layer}."
            rules += [
                f"?{{t=encoder|decoder}}{here}{{a=SelfAttention|EncDecAttention}}/{{x=q|k|v|o}} -> "
                f"{{t}}{there}{{a}}.{{x}}.weight | i o -> o i",
                f"?{{t=encoder|decoder}}{here}DenseReluDense/{{w=wi_0|wi_1|wo}}/kernel -> "
                f"{{t}}{there}DenseReluDense.{{w}}.weight | i o -> o i",
                f"?{{t=encoder|decoder}}{here}{{n=layer_norm|rms_norm}}/scale -> {{t}}{there}{{n}}.weight",
            ]
    return Two(
        rewound(rules, t5_state(model), ""), model, rules, missing=["*.embed_tokens.weight"],
        undecided=["shared.weight"], proof="transformers' load_tf_weights_in_t5",
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- fairseq and others


@pair("fairseq's wav2vec 2.0 to Hugging Face", "transformers")
def wav2vec(small: bool) -> Two:
    """The file is that of the pretraining: a quantizer, and projections that have no place here."""
    import torch

    package = transformers()
    model = package.Wav2Vec2Model(package.Wav2Vec2Config())
    rules = [
        "mask_emb -> masked_spec_embed",
        "feature_extractor.conv_layers.{i}.{n=0|2}.{p*} -> feature_extractor.conv_layers.{i}.{n=conv|layer_norm}.{p*}",
        "post_extract_proj.{p*} -> feature_projection.projection.{p*}",
        "layer_norm.{p*} -> feature_projection.layer_norm.{p*}",
        "encoder.pos_conv.0.weight_{n=g|v} -> encoder.pos_conv_embed.conv.parametrizations.weight.original{n=0|1}",
        "encoder.pos_conv.0.bias -> encoder.pos_conv_embed.conv.bias",
        "encoder.layers.{i}.self_attn.{k**} -> encoder.layers.{i}.attention.{k**}",
        "encoder.layers.{i}.self_attn_layer_norm.{p*} -> encoder.layers.{i}.layer_norm.{p*}",
        "encoder.layers.{i}.{n=fc1|fc2}.{p*} -> "
        "encoder.layers.{i}.feed_forward.{n=intermediate_dense|output_dense}.{p*}",
    ]
    words = """mask_emb feature_extractor post_extract_proj quantizer project_q encoder conv_layers pos_conv layers
        self_attn k_proj v_proj q_proj out_proj self_attn_layer_norm fc1 fc2 final_layer_norm layer_norm bias weight_g
        weight_v"""
    file = dict(rewound(rules, model.state_dict(), words))
    file |= {"quantizer.vars": torch.empty(1, 640, 128), "quantizer.weight_proj.weight": torch.empty(640, 512),
             "quantizer.weight_proj.bias": torch.empty(640), "project_q.weight": torch.empty(256, 256),
             "project_q.bias": torch.empty(256), "final_proj.weight": torch.empty(256, 768),
             "final_proj.bias": torch.empty(256)}  # fmt: skip
    return Two(file, model, rules, proof="transformers' script")


@pair("fairseq's BART to Hugging Face", "transformers")
def bart(small: bool) -> Two:
    package = transformers()
    model = package.BartModel(package.BartConfig(encoder_layers=6, decoder_layers=6, d_model=768,
                                                 encoder_ffn_dim=3072, decoder_ffn_dim=3072))  # fmt: skip
    kept = {key: tensor for key, tensor in model.state_dict().items() if "shared" not in key}
    words = """encoder decoder embed_tokens embed_positions layers self_attn k_proj v_proj q_proj out_proj
        self_attn_layer_norm encoder_attn encoder_attn_layer_norm fc1 fc2 final_layer_norm layernorm_embedding"""
    return Two(
        {f"model.{key}": tensor for key, tensor in rewound([], kept, words).items()}, model, ["model. ->"],
        missing=["shared.weight"], undecided=["*.embed_tokens.weight"], proof="same names",
    )  # fmt: skip


@pair("RWKV-4 in its author's names to Hugging Face", "transformers")
def rwkv(small: bool) -> Two:
    package = transformers()
    model = package.RwkvForCausalLM(package.RwkvConfig(hidden_size=256, num_hidden_layers=6, attention_hidden_size=256,
                                                       intermediate_size=1024, vocab_size=5000))  # fmt: skip
    mix = "time_mix_{x=k|v|r}"
    there = "time_mix_{x=key|value|receptance}"
    rules = [
        "emb.weight -> rwkv.embeddings.weight",
        "blocks.0.ln0.{p*} -> rwkv.blocks.0.pre_ln.{p*}",
        *(f"blocks.{{i}}.{a}.{mix} -> rwkv.blocks.{{i}}.{b}.{there}"
          for a, b in (("att", "attention"), ("ffn", "feed_forward"))),
        "blocks.{i}.{t=att|ffn}.{k**} -> rwkv.blocks.{i}.{t=attention|feed_forward}.{k**}",
        "blocks.{i}.ln{n=1|2}.{p*} -> rwkv.blocks.{i}.ln{n}.{p*}",
        "ln_out.{p*} -> rwkv.ln_out.{p*}",
    ]  # fmt: skip
    words = """emb blocks ln1 ln2 ln0 att ffn time_decay time_first time_mix_k time_mix_v time_mix_r key value
        receptance output ln_out head"""
    return Two(rewound(rules, model.state_dict(), words), model, rules, proof="transformers' convert_rwkv_checkpoint")


@pair("Megatron-Core's Llama to Hugging Face: norms inside of the matrices' modules", "transformers")
def megatron_core(small: bool) -> Two:
    """linear_qkv holds groups of queries with a key and a value: no header tells."""
    model = llama(small)
    sizes = llama_sizes(False)
    groups = sizes["num_key_value_heads"]
    block, to = "decoder.layers.{i}.", "model.layers.{i}."
    rules = [
        "embedding.word_embeddings.weight -> model.embed_tokens.weight",
        f"{block}self_attention.linear_qkv.weight -> {to}self_attn.q_proj.weight, {to}self_attn.k_proj.weight,"
        f" {to}self_attn.v_proj.weight | (g (q + k + v)) i -> (g q) i, (g k) i, (g v) i",
        f"{block}self_attention.linear_qkv.layer_norm_weight -> {to}input_layernorm.weight",
        f"{block}self_attention.linear_proj.weight -> {to}self_attn.o_proj.weight",
        f"{block}mlp.linear_fc1.weight -> {to}mlp.gate_proj.weight, {to}mlp.up_proj.weight | (a + b) i -> a i, b i",
        f"{block}mlp.linear_fc1.layer_norm_weight -> {to}post_attention_layernorm.weight",
        f"{block}mlp.linear_fc2.weight -> {to}mlp.down_proj.weight",
        "decoder.final_layernorm.weight -> model.norm.weight",
        "output_layer.weight -> lm_head.weight",
    ]
    vars = {"g": groups, "q": 512, "k": 64, "v": 64, "a": 5632}
    words = """embedding word_embeddings decoder output_layer layers self_attention linear_proj linear_qkv mlp
        linear_fc1 linear_fc2 final_layernorm layer_norm_weight"""
    return Two(
        rewound(rules, model.state_dict(), words, vars), model, rules, vars=vars,
        hidden=["*.q_proj.weight", "*.k_proj.weight", "*.v_proj.weight"], proof="Megatron-LM's loader_llama_mistral.py",
    )  # fmt: skip


@pair("BERT into a RoBERTa of another vocabulary", "transformers")
def bert_roberta(small: bool) -> Two:
    """The names are the same; words, positions and types are of other sizes."""
    package = transformers()
    embeddings = ["word", "position", "token_type"]
    rules = [f"embeddings.{name}_embeddings.weight -> !" for name in embeddings]
    target = package.RobertaModel(package.RobertaConfig(vocab_size=50265, max_position_embeddings=514,
                                                        type_vocab_size=1))  # fmt: skip
    return Two(
        bert(False), target, rules, missing=[f"embeddings.{name}_embeddings.weight" for name in embeddings],
        proof="same names",
    )  # fmt: skip


variant("Google's BERT, target shuffled", "Google's BERT to BertForPreTraining", shuffled)
variant("fairseq's wav2vec 2.0, sorted", "fairseq's wav2vec 2.0 to Hugging Face", both_sorted)
variant("RWKV-4, sorted", "RWKV-4 in its author's names to Hugging Face", sorted_keys)
