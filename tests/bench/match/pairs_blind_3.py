"""Blind pairs: text."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.match.blind import Net, Two, pair, split, state, to


def without(model: Any, *keys: str) -> dict[str, Any]:
    """A file of a model whose tied tensors are not saved twice."""
    found = dict(state(model))
    for key in keys:
        del found[key]
    return found


@pair("blind: XLNet in TensorFlow's names to Hugging Face: biases of all layers are one tensor", "transformers")
def xlnet(small: bool) -> Two:
    """q, k, v, o and r keep their heads; the feed-forward is turned; listed by letters."""
    import transformers

    config = transformers.XLNetConfig(vocab_size=32000, d_model=1024, n_layer=12, n_head=16, d_inner=4096)
    target = without(transformers.XLNetLMHeadModel(config), "lm_loss.weight")
    found: dict[str, tuple[int, ...]] = {"model/lm_loss/bias": (32000,)}
    rules = ["model/lm_loss/bias -> lm_loss.bias"]
    for layer in range(12):
        here, there = f"model/transformer/layer_{layer}", f"transformer.layer.{layer}"
        for part in "qkvor":
            found[f"{here}/rel_attn/{part}/kernel"] = (1024, 16, 64)
            rules.append(f"{here}/rel_attn/{part}/kernel -> {there}.rel_attn.{part}")
        for part in ("rel_attn", "ff"):
            for tail, name in (("gamma", "weight"), ("beta", "bias")):
                found[f"{here}/{part}/LayerNorm/{tail}"] = (1024,)
                rules.append(f"{here}/{part}/LayerNorm/{tail} -> {there}.{part}.layer_norm.{name}")
        for number, shape in ((1, (1024, 4096)), (2, (4096, 1024))):
            found[f"{here}/ff/layer_{number}/kernel"] = shape
            found[f"{here}/ff/layer_{number}/bias"] = shape[1:]
            rules += [f"{here}/ff/layer_{number}/kernel -> {there}.ff.layer_{number}.weight | i o -> o i",
                      f"{here}/ff/layer_{number}/bias -> {there}.ff.layer_{number}.bias"]  # fmt: skip
    for part in ("r_r_bias", "r_s_bias", "r_w_bias"):
        found[f"model/transformer/{part}"] = (12, 16, 64)
        rules.append(f"model/transformer/{part} -> transformer.layer.{{l}}.rel_attn.{part} | l h d -> h d")
    found["model/transformer/seg_embed"] = (12, 2, 16, 64)
    rules.append("model/transformer/seg_embed -> transformer.layer.{l}.rel_attn.seg_embed | l s h d -> s h d")
    found["model/transformer/mask_emb/mask_emb"] = (1, 1, 1024)
    found["model/transformer/word_embedding/lookup_table"] = (32000, 1024)
    rules += ["model/transformer/mask_emb/mask_emb -> transformer.mask_emb",
              "model/transformer/word_embedding/lookup_table -> transformer.word_embedding.weight"]  # fmt: skip
    source = Net()
    for name in sorted(found):
        source.put(name, *found[name])
    return Two(source, target, rules, proof="transformers' load_tf_weights_in_xlnet")


@pair(
    "blind: MobileBERT in TensorFlow's names to Hugging Face: four feed-forwards, norms that are none", "transformers"
)
def mobilebert(small: bool) -> Two:
    """ffn_layer_2 is ffn.2; extra_output_weights are cls.predictions.dense."""
    import transformers

    config = transformers.MobileBertConfig(num_hidden_layers=11)
    target = without(transformers.MobileBertForPreTraining(config), "cls.predictions.decoder.weight",
                     "cls.predictions.decoder.bias")  # fmt: skip
    found, rules = {}, []
    for key, tensor in target.items():
        shape, layout = tuple(tensor.shape), ""
        module, tail = key.rsplit(".", 1)
        module = re.sub(r"^mobilebert", "bert", module)
        module = re.sub(r"\.layer\.(\d+)", r".layer_\1", module)
        module = re.sub(r"\.ffn\.(\d)", r".ffn_layer_\1", module)
        if not module.startswith("cls"):
            module = module.replace("LayerNorm", "FakeLayerNorm")
        if key == "cls.predictions.dense.weight":
            name, shape, layout = "cls.predictions.extra_output_weights", shape[::-1], "i o -> o i"
        elif key == "cls.predictions.bias":
            name = "cls.predictions.output_bias"
        elif key.startswith("cls.seq_relationship"):
            name = f"{module}.output_{'weights' if tail == 'weight' else 'bias'}"
        elif "LayerNorm" in module:
            name = f"{module}.{'gamma' if tail == 'weight' else 'beta'}"
        elif module.endswith("_embeddings"):
            name = module
        elif tail == "weight":
            name, shape, layout = f"{module}.kernel", shape[::-1], "i o -> o i"
        else:
            name = f"{module}.bias"
        name = name.replace(".", "/")
        found[name] = shape
        rules.append(f"{name} -> {key}" + (f" | {layout}" if layout else ""))
    source = Net()
    for name in sorted(found):
        source.put(name, *found[name])
    return Two(source, target, rules, proof="transformers' load_tf_weights_in_mobilebert")


@pair("blind: OPT in metaseq's names to Hugging Face: qkv_proj is k, v, q", "transformers")
def opt(small: bool) -> Two:
    """Which third is which no header tells."""
    import transformers

    target = without(transformers.OPTForCausalLM(transformers.OPTConfig(num_hidden_layers=3)), "lm_head.weight")
    source, groups = Net(), []
    source.put("decoder.version", 1)
    source.put("decoder.embed_tokens.weight", 50272, 768)
    source.put("decoder.embed_positions.weight", 2050, 768)
    for layer in range(3):
        at = f"decoder.layers.{layer}"
        source.lin(f"{at}.self_attn.qkv_proj", 2304, 768)
        source.lin(f"{at}.self_attn.out_proj", 768, 768)
        source.norm(f"{at}.self_attn_layer_norm", 768)
        source.lin(f"{at}.fc1", 3072, 768)
        source.lin(f"{at}.fc2", 768, 3072)
        source.norm(f"{at}.final_layer_norm", 768)
        groups += split(f"{at}.self_attn.qkv_proj", [f"model.{at}.self_attn.{x}_proj" for x in "kvq"])
    source.norm("decoder.layer_norm", 768)
    table: list[Any] = [
        (r".*qkv_proj.*", "@"),
        (r"^decoder\.version$", ""),
        (r"^decoder\.layer_norm", "decoder.final_layer_norm"),
        (r"^decoder\.", "model.decoder."),
    ]
    return to(source, target, table, groups=groups,
              hidden=[f"model.decoder.layers.*.self_attn.{x}_proj.*" for x in "kvq"],
              truth="transformers' convert_opt_original_pytorch_checkpoint_to_pytorch.py")  # fmt: skip


@pair("blind: Blenderbot in ParlAI's names to Hugging Face: norms 1 to 3, lin1, out_lin", "transformers")
def blenderbot(small: bool) -> Two:
    """norm_embeddings is the last norm, since norms come first; three tables are one."""
    import transformers

    config = transformers.BlenderbotConfig(d_model=1280, encoder_layers=2, decoder_layers=4, encoder_ffn_dim=5120,
                                           decoder_ffn_dim=5120)  # fmt: skip
    target = without(transformers.BlenderbotForConditionalGeneration(config), "lm_head.weight")
    source, width = Net(), 1280
    source.ints("START", 1)
    source.put("embeddings.weight", 8008, width)

    def attention(name: str) -> None:
        source.lins(*(f"{name}.{x}_lin" for x in ("q", "k", "v", "out")), out=width, into=width)

    for side, depth in (("encoder", 2), ("decoder", 4)):
        source.put(f"{side}.embeddings.weight", 8008, width)
        source.norm(f"{side}.norm_embeddings", width)
        source.put(f"{side}.position_embeddings.weight", 128, width)
        for layer in range(depth):
            at, norms = f"{side}.layers.{layer}", 2
            if side == "encoder":
                attention(f"{at}.attention")
                source.norm(f"{at}.norm1", width)
            else:
                attention(f"{at}.self_attention")
                source.norm(f"{at}.norm1", width)
                attention(f"{at}.encoder_attention")
                source.norm(f"{at}.norm2", width)
                norms = 3
            source.lin(f"{at}.ffn.lin1", 5120, width)
            source.lin(f"{at}.ffn.lin2", width, 5120)
            source.norm(f"{at}.norm{norms}", width)
    table: list[Any] = [
        (r"^START$", ""),
        (r"^embeddings", "model.shared"),
        (r"^(encoder|decoder)\.embeddings", r"model.\1.embed_tokens"),
        (r"^(encoder|decoder)\.norm_embeddings", r"model.\1.layer_norm"),
        (r"^(encoder|decoder)\.position_embeddings", r"model.\1.embed_positions"),
        (r"^(encoder|decoder)\.layers", r"model.\1.layers"),
        (r"\.ffn\.lin", ".fc"),
        (r"\.(self_)?attention\.", ".self_attn."),
        (r"\.encoder_attention\.", ".encoder_attn."),
        (r"(q|k|v|out)_lin", r"\1_proj"),
        (r"\.norm1", ".self_attn_layer_norm"),
        (r"(encoder\.layers\.\d)\.norm2", r"\1.final_layer_norm"),
        (r"\.norm2", ".encoder_attn_layer_norm"),
        (r"\.norm3", ".final_layer_norm"),
    ]
    return to(source, target, table, missing=["final_logits_bias"],
              truth="transformers' convert_blenderbot_original_pytorch_checkpoint_to_pytorch.py")  # fmt: skip


@pair("blind: Persimmon in Adept's names to Hugging Face: the head is a second table", "transformers")
def persimmon(small: bool) -> Two:
    """Both tables are of one shape; one says that it is for the head."""
    import transformers

    target = transformers.PersimmonForCausalLM(transformers.PersimmonConfig(num_hidden_layers=2))
    source, width = Net(), 4096
    source.put("language_model.embedding.word_embeddings.weight", 262144, width)
    for layer in range(2):
        at = f"language_model.encoder.layers.{layer}"
        source.norm(f"{at}.input_layernorm", width)
        source.norm(f"{at}.self_attention.q_layernorm", 64)
        source.norm(f"{at}.self_attention.k_layernorm", 64)
        source.lin(f"{at}.self_attention.query_key_value", 3 * width, width)
        source.lin(f"{at}.self_attention.dense", width, width)
        source.norm(f"{at}.post_attention_layernorm", width)
        source.lin(f"{at}.mlp.dense_h_to_4h", 4 * width, width)
        source.lin(f"{at}.mlp.dense_4h_to_h", width, 4 * width)
    source.norm("language_model.encoder.final_layernorm", width)
    source.put("language_model.word_embeddings_for_head.weight", 262144, width)
    table: list[Any] = [
        (r"^language_model\.embedding\.word_embeddings", "model.embed_tokens"),
        (r"^language_model\.word_embeddings_for_head", "lm_head"),
        (r"^language_model\.encoder", "model"),
        (r"self_attention", "self_attn"),
    ]
    return to(source, target, table, truth="transformers' convert_persimmon_weights_to_hf.py")


@pair("blind: Qwen3 in MaxText's scanned names to Hugging Face: layers are the second axis", "transformers")
def maxtext(small: bool) -> Two:
    """query/kernel is [width, layers, heads, size]; out/kernel is [heads, layers, size, width]."""
    import transformers

    config = transformers.Qwen3Config(vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=5,
                                      num_attention_heads=16, num_key_value_heads=8, head_dim=128,
                                      tie_word_embeddings=True)  # fmt: skip
    target = without(transformers.Qwen3ForCausalLM(config), "lm_head.weight")
    table = {
        "mlp-wi_0-kernel": ((1024, 5, 3072), "mlp.gate_proj", "i l o -> o i"),
        "mlp-wi_1-kernel": ((1024, 5, 3072), "mlp.up_proj", "i l o -> o i"),
        "mlp-wo-kernel": ((3072, 5, 1024), "mlp.down_proj", "i l o -> o i"),
        "post_self_attention_layer_norm-scale": ((1024, 5), "post_attention_layernorm", "i l -> i"),
        "pre_self_attention_layer_norm-scale": ((1024, 5), "input_layernorm", "i l -> i"),
        "self_attention-key-kernel": ((1024, 5, 8, 128), "self_attn.k_proj", "i l h d -> (h d) i"),
        "self_attention-key_norm-scale": ((128, 5), "self_attn.k_norm", "i l -> i"),
        "self_attention-out-kernel": ((16, 5, 128, 1024), "self_attn.o_proj", "h l d o -> o (h d)"),
        "self_attention-query-kernel": ((1024, 5, 16, 128), "self_attn.q_proj", "i l h d -> (h d) i"),
        "self_attention-query_norm-scale": ((128, 5), "self_attn.q_norm", "i l -> i"),
        "self_attention-value-kernel": ((1024, 5, 8, 128), "self_attn.v_proj", "i l h d -> (h d) i"),
    }
    source = Net()
    source.put("params-decoder-decoder_norm-scale", 1024)
    rules = ["params-decoder-decoder_norm-scale -> model.norm.weight",
             "params-token_embedder-embedding -> model.embed_tokens.weight"]  # fmt: skip
    for name, (shape, there, layout) in table.items():
        source.put(f"params-decoder-layers-{name}", *shape)
        rules.append(f"params-decoder-layers-{name} -> model.layers.{{l}}.{there}.weight | {layout}")
    source.put("params-token_embedder-embedding", 151936, 1024)
    return Two(source, target, rules, proof="MaxText's utils/ckpt_conversion param mapping for Qwen3")


@pair("blind: TensorRT-LLM's Llama to Hugging Face: qkv of grouped heads, fc is the gate", "transformers")
def tensorrt(small: bool) -> Two:
    """mlp.gate is up_proj: no header tells, and the name misleads."""
    import transformers

    config = transformers.LlamaConfig(vocab_size=128256, hidden_size=4096, intermediate_size=14336,
                                      num_hidden_layers=3, num_attention_heads=32, num_key_value_heads=8)  # fmt: skip
    target = transformers.LlamaForCausalLM(config)
    source, groups = Net(), []
    source.put("transformer.vocab_embedding.weight", 128256, 4096)
    for layer in range(3):
        at, there = f"transformer.layers.{layer}", f"model.layers.{layer}"
        source.put(f"{at}.input_layernorm.weight", 4096)
        source.put(f"{at}.attention.qkv.weight", 6144, 4096)
        source.put(f"{at}.attention.dense.weight", 4096, 4096)
        source.put(f"{at}.post_layernorm.weight", 4096)
        source.put(f"{at}.mlp.fc.weight", 14336, 4096)
        source.put(f"{at}.mlp.gate.weight", 14336, 4096)
        source.put(f"{at}.mlp.proj.weight", 4096, 14336)
        names = ", ".join(f"{there}.self_attn.{x}_proj.weight" for x in "qkv")
        groups.append(f"{at}.attention.qkv.weight -> {names} | (q + k + v) i -> q i, k i, v i")
    source.put("transformer.ln_f.weight", 4096)
    source.put("lm_head.weight", 128256, 4096)
    table: list[Any] = [
        (r".*\.qkv\..*", "@"),
        (r"^transformer\.vocab_embedding", "model.embed_tokens"),
        (r"^transformer\.ln_f", "model.norm"),
        (r"^transformer\.", "model."),
        (r"\.attention\.dense", ".self_attn.o_proj"),
        (r"\.post_layernorm", ".post_attention_layernorm"),
        (r"\.mlp\.gate", ".mlp.up_proj"),
        (r"\.mlp\.fc", ".mlp.gate_proj"),
        (r"\.mlp\.proj", ".mlp.down_proj"),
    ]
    return to(source, target, table, groups=groups, vars={"q": 4096, "k": 1024, "v": 1024},
              undecided=["model.layers.*.mlp.gate_proj.weight", "model.layers.*.mlp.up_proj.weight"],
              truth="TensorRT-LLM's models/llama/convert.py")  # fmt: skip


@pair("blind: DistilBERT exported to ONNX back to Hugging Face: weights of Linears are numbers", "transformers")
def onnx(small: bool) -> Two:
    """Biases and norms keep their names; onnx::MatMul_588 is turned; the number tells the order of use."""
    import transformers

    target = transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig())
    source, rules, numbered = Net(), [], []
    number = 588
    for key, tensor in state(target).items():
        if re.search(r"_lin\.weight|ffn\.lin\d\.weight", key):
            numbered.append(key)
        else:
            source[key] = tensor
            rules.append(f"{key} -> {key}")
    for key in numbered:
        shape = tuple(state(target)[key].shape)
        source.put(f"onnx::MatMul_{number}", *shape[::-1])
        rules.append(f"onnx::MatMul_{number} -> {key} | i o -> o i")
        number += 12 if "v_lin" in key else 1 + (number % 3 == 0)
    return Two(source, target, rules, proof="torch.onnx: initializers of MatMul in the order of execution")


@pair("blind: Perceiver in Haiku's names to Hugging Face: linear, linear_1, linear_2, linear_3", "transformers")
def perceiver(small: bool) -> Two:
    """Counted in the order of use: q, k, v, o; norms of the query, of keys, in front of the perceptron."""
    import transformers

    target = transformers.PerceiverForMaskedLM(transformers.PerceiverConfig(num_self_attends_per_block=12))
    found, rules = {}, []
    fixed = {
        "perceiver.input_preprocessor.embeddings.weight": "embed/embeddings",
        "perceiver.input_preprocessor.position_embeddings.weight": "trainable_position_encoding/pos_embs",
        "perceiver.embeddings.latents": "perceiver_encoder/~/trainable_position_encoding/pos_embs",
        "perceiver.decoder.output_position_encodings.position_embeddings":
            "basic_decoder/~/trainable_position_encoding/pos_embs",
        "embedding_decoder.bias": "embedding_decoder/bias",
    }  # fmt: skip
    for key, tensor in state(target).items():
        shape, layout = tuple(tensor.shape), ""
        if key in fixed:
            name = fixed[key]
        else:
            block = re.search(r"self_attends\.(\d+)", key)
            if block:
                number = int(block[1])
                at = "perceiver_encoder/~/self_attention" + (f"_{number}" if number else "")
            elif ".encoder." in key:
                at = "perceiver_encoder/~/cross_attention"
            else:
                at = "basic_decoder/cross_attention"
            cross = not block
            tail = key.rsplit(".", 1)[1]
            if "norm" in key:
                count = 0 if "layernorm1" in key else 1 if "layernorm2" in key else 1 + cross
                name = f"{at}/layer_norm" + (f"_{count}" if count else "")
                name += "/scale" if tail == "weight" else "/offset"
            else:
                part = key.rsplit(".", 2)[1]
                if "mlp" in key:
                    name = f"{at}/mlp/linear" + ("_1" if part == "dense2" else "")
                else:
                    count = ["query", "key", "value", "dense"].index(part)
                    name = f"{at}/attention/linear" + (f"_{count}" if count else "")
                name += "/w" if tail == "weight" else "/b"
                if tail == "weight":
                    shape, layout = shape[::-1], "i o -> o i"
        found[name] = shape
        rules.append(f"{name} -> {key}" + (f" | {layout}" if layout else ""))
    source = Net()
    for name in sorted(found):
        source.put(name, *found[name])
    return Two(source, target, rules, proof="transformers' convert_perceiver_haiku_to_pytorch.py")
