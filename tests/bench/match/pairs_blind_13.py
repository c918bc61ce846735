"""Blind pairs: conversions of 2019 to 2025 (vision, text, speech, diffusion, flow, detection), and renamings."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.match.blind import Net, Two, like, pair, renamed, split, state, to
from tests.bench.match.pairs import image


def without(model: Any, *keys: str) -> dict[str, Any]:
    """A file of a model whose tied tensors are not saved twice."""
    found = dict(state(model))
    for key in keys:
        del found[key]
    return found


def by_letters(found: dict[str, tuple[int, ...]]) -> Net:
    """Listed as safetensors and TensorFlow do."""
    net = Net()
    for name in sorted(found):
        net.put(name, *found[name])
    return net


# ---------------------------------------------------------------------------------------------- modern


@pair("blind: AIMv2 in Apple's names to Hugging Face: norm_1 and fc3, a trunk behind a preprocessor", "transformers")
def aimv2(small: bool) -> Two:
    """fc1 is the gate and fc3 goes up: both have one shape, and neither name says so."""
    import transformers

    width, inner, depth = 1024, 2816, 24
    target = transformers.Aimv2VisionModel(transformers.Aimv2VisionConfig(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=depth, num_attention_heads=8, use_head=False,
    ))  # fmt: skip
    found: dict[str, tuple[int, ...]] = {
        "preprocessor.patchifier.norm.weight": (width,),
        "preprocessor.patchifier.proj.bias": (width,),
        "preprocessor.patchifier.proj.weight": (width, 3, 14, 14),
        "preprocessor.pos_embed": (1, 256, width),
        "trunk.post_trunk_norm.weight": (width,),
    }
    groups = []
    for block in range(depth):
        at = f"trunk.blocks.{block}"
        found |= {
            f"{at}.attn.proj.weight": (width, width),
            f"{at}.attn.qkv.weight": (3 * width, width),
            f"{at}.mlp.fc1.weight": (inner, width),
            f"{at}.mlp.fc2.weight": (width, inner),
            f"{at}.mlp.fc3.weight": (inner, width),
            f"{at}.norm_1.weight": (width,),
            f"{at}.norm_2.weight": (width,),
        }
        groups += split(f"{at}.attn.qkv", [f"encoder.layers.{block}.attention.{x}_proj" for x in "qkv"], bias=False)
    table: list[Any] = [
        (r".*\.qkv\..*", "@"),
        (r"^preprocessor\.patchifier\.proj", "embeddings.patch_embed"),
        (r"^preprocessor\.patchifier\.norm", "embeddings.rms_norm"),
        (r"^preprocessor\.pos_embed$", "embeddings.position_embedding.weight"),
        (r"^trunk\.post_trunk_norm", "rms_norm"),
        (r"^trunk\.blocks\.(\d+)\.norm_(\d)", r"encoder.layers.\1.rms_norm\2"),
        (r"^trunk\.blocks\.", "encoder.layers."),
        (r"\.attn\.proj", ".attention.out_proj"),
        (r"\.mlp\.fc1", ".ffn.gate_proj"),
        (r"\.mlp\.fc2", ".ffn.down_proj"),
        (r"\.mlp\.fc3", ".ffn.up_proj"),
    ]
    return to(by_letters(found), target, table, [("pos_embed", "1 n c -> n c")], groups,
              undecided=["*.ffn.gate_proj.weight", "*.ffn.up_proj.weight"],
              truth="transformers' convert_aimv2_original_pytorch_to_hf.py; fc1 is inside of silu in Apple's code",
              )  # fmt: skip


@pair("blind: timm's SigLIP to Hugging Face: a pool's q and kv become torch's in_proj", "timm", "transformers")
def siglip_pool(small: bool) -> Two:
    """A probe that attends to the patches: what blocks have split is joined there."""
    import timm
    import transformers

    width, depth, heads, size = (48, 2, 3, 64) if small else (768, 12, 12, 224)
    source = timm.create_model("vit_base_patch16_siglip_224", embed_dim=width, depth=depth, num_heads=heads,
                               img_size=size)  # fmt: skip
    target = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=depth, num_attention_heads=heads,
        image_size=size, patch_size=16, hidden_act="gelu"))  # fmt: skip
    groups = [
        "attn_pool.q.weight, attn_pool.kv.weight -> head.attention.in_proj_weight | a i, b i -> (a + b) i",
        "attn_pool.q.bias, attn_pool.kv.bias -> head.attention.in_proj_bias | a, b -> (a + b)",
    ]
    for block in range(depth):
        groups += split(f"blocks.{block}.attn.qkv", [f"encoder.layers.{block}.self_attn.{x}_proj" for x in "qkv"])
    table: list[Any] = [
        (r".*(\.qkv\.|attn_pool\.(q|kv)\.).*", "@"),
        (r"^pos_embed$", "embeddings.position_embedding.weight"),
        (r"^patch_embed\.proj", "embeddings.patch_embedding"),
        (r"^attn_pool\.latent$", "head.probe"),
        (r"^attn_pool\.proj", "head.attention.out_proj"),
        (r"^attn_pool\.norm", "head.layernorm"),
        (r"^attn_pool\.", "head."),
        (r"^norm\.", "post_layernorm."),
        (r"^blocks\.(\d+)\.norm", r"encoder.layers.\1.layer_norm"),
        (r"^blocks\.", "encoder.layers."),
        (r"\.attn\.proj", ".self_attn.out_proj"),
    ]
    return to(source, target, table, [("^pos_embed", "1 n c -> n c")], groups,
              ask=lambda model: model(image(64)),
              ask_target=lambda model: model(pixel_values=image(64)).pooler_output,
              truth="equal outputs of small models")  # fmt: skip


@pair("blind: Lumina-Image 2.0 in its authors' names to diffusers: qkv of grouped heads, two kinds of refiners")
def lumina(small: bool) -> Two:
    """A refiner of captions has no modulation, so its first norm is no module's child; norm_final is of no use."""
    width, cond, inner, depth = 2304, 1024, 9216, 26
    source, target, groups = Net(), Net(), []

    def block(at: str, is_modulated: bool) -> None:
        source.lin(f"{at}.attention.qkv", width + 2 * 768, width, False)
        source.lin(f"{at}.attention.out", width, width, False)
        source.put(f"{at}.attention.q_norm.weight", 96)
        source.put(f"{at}.attention.k_norm.weight", 96)
        source.lin(f"{at}.feed_forward.w1", inner, width, False)
        source.lin(f"{at}.feed_forward.w2", width, inner, False)
        source.lin(f"{at}.feed_forward.w3", inner, width, False)
        for norm in ("attention_norm1", "ffn_norm1", "attention_norm2", "ffn_norm2"):
            source.put(f"{at}.{norm}.weight", width)
        if is_modulated:
            source.lin(f"{at}.adaLN_modulation.1", 4 * width, cond)
        names = ", ".join(f"{at}.attn.to_{x}.weight" for x in "qkv")
        groups.append(f"{at}.attention.qkv.weight -> {names} | (a + b + c) i -> a i, b i, c i")

    def there(at: str, is_modulated: bool) -> None:
        target.put(f"{at}.attn.norm_q.weight", 96)
        target.put(f"{at}.attn.norm_k.weight", 96)
        target.lin(f"{at}.attn.to_q", width, width, False)
        target.lin(f"{at}.attn.to_k", 768, width, False)
        target.lin(f"{at}.attn.to_v", 768, width, False)
        target.lin(f"{at}.attn.to_out.0", width, width, False)
        target.lin(f"{at}.feed_forward.linear_1", inner, width, False)
        target.lin(f"{at}.feed_forward.linear_2", width, inner, False)
        target.lin(f"{at}.feed_forward.linear_3", inner, width, False)
        if is_modulated:
            target.lin(f"{at}.norm1.linear", 4 * width, cond)
        target.put(f"{at}.norm1.norm.weight" if is_modulated else f"{at}.norm1.weight", width)
        for norm in ("ffn_norm1", "norm2", "ffn_norm2"):
            target.put(f"{at}.{norm}.weight", width)

    lists = [(f"noise_refiner.{i}", True) for i in range(2)] + [(f"context_refiner.{i}", False) for i in range(2)]
    layers = [(f"layers.{i}", True) for i in range(depth)]
    source.lin("x_embedder", width, 64)
    for at, is_modulated in lists:
        block(at, is_modulated)
    source.lin("t_embedder.mlp.0", cond, 256)
    source.lin("t_embedder.mlp.2", cond, cond)
    source.put("cap_embedder.0.weight", width)
    source.lin("cap_embedder.1", width, width)
    for at, is_modulated in layers:
        block(at, is_modulated)
    source.put("norm_final.weight", width)
    source.lin("final_layer.linear", 64, width)
    source.lin("final_layer.adaLN_modulation.1", width, cond)

    target.lin("x_embedder", width, 64)
    target.lin("time_caption_embed.timestep_embedder.linear_1", cond, 256)
    target.lin("time_caption_embed.timestep_embedder.linear_2", cond, cond)
    target.put("time_caption_embed.caption_embedder.0.weight", width)
    target.lin("time_caption_embed.caption_embedder.1", width, width)
    for at, is_modulated in lists + layers:
        there(at, is_modulated)
    target.lin("norm_out.linear_1", width, cond)
    target.lin("norm_out.linear_2", 64, width)
    table: list[Any] = [
        (r"^norm_final\..*", ""),
        (r".*\.qkv\..*", "@"),
        (r"^cap_embedder", "time_caption_embed.caption_embedder"),
        (r"^t_embedder\.mlp\.0", "time_caption_embed.timestep_embedder.linear_1"),
        (r"^t_embedder\.mlp\.2", "time_caption_embed.timestep_embedder.linear_2"),
        (r"^final_layer\.adaLN_modulation\.1", "norm_out.linear_1"),
        (r"^final_layer\.linear", "norm_out.linear_2"),
        (r"^context_refiner\.(\d)\.attention_norm1", r"context_refiner.\1.norm1"),
        (r"\.attention_norm1", ".norm1.norm"),
        (r"\.attention_norm2", ".norm2"),
        (r"\.adaLN_modulation\.1", ".norm1.linear"),
        (r"\.attention\.out", ".attn.to_out.0"),
        (r"\.attention\.([qk])_norm", r".attn.norm_\1"),
        (r"\.w(\d)\.", r".linear_\1."),
    ]
    return to(source, target, table, groups=groups, vars={"a": width, "b": 768, "c": 768},
              truth="diffusers' convert_lumina2_to_diffusers (single_file_utils.py); 24 heads and 8 of 96")  # fmt: skip


@pair("blind: nanochat by Karpathy, compiled, to Hugging Face: c_q, c_k, c_v, two of c_proj", "transformers")
def nanochat(small: bool) -> Two:
    """_orig_mod. in front; norms have no weights; c_proj ends an attention and a perceptron."""
    import transformers

    width, depth = 1280, 20
    target = transformers.NanoChatForCausalLM(transformers.NanoChatConfig(
        vocab_size=65536, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=depth,
        num_attention_heads=10, num_key_value_heads=10))  # fmt: skip
    source = Net()
    source.put("_orig_mod.transformer.wte.weight", 65536, width)
    for layer in range(depth):
        at = f"_orig_mod.transformer.h.{layer}"
        source.lins(*(f"{at}.attn.c_{x}" for x in ("q", "k", "v", "proj")), out=width, into=width, bias=False)
        source.lin(f"{at}.mlp.c_fc", 4 * width, width, False)
        source.lin(f"{at}.mlp.c_proj", width, 4 * width, False)
    source.put("_orig_mod.lm_head.weight", 65536, width)
    table: list[Any] = [
        (r"^_orig_mod\.", ""),
        (r"^transformer\.wte", "model.embed_tokens"),
        (r"^transformer\.h\.", "model.layers."),
        (r"\.attn\.c_proj", ".self_attn.o_proj"),
        (r"\.attn\.c_([qkv])", r".self_attn.\1_proj"),
        (r"\.mlp\.c_fc", ".mlp.fc1"),
        (r"\.mlp\.c_proj", ".mlp.fc2"),
    ]
    return to(source, target, table, truth="transformers' convert_nanochat_checkpoints.py")


@pair("blind: Dia in Nari's names to Hugging Face: heads are an axis, nine tables are one", "transformers")
def dia(small: bool) -> Two:
    """wi_fused is [in, 2, out]; k and v of the decoder have a quarter of q's heads; the head leaves the decoder."""
    import transformers

    target = transformers.DiaForConditionalGeneration(transformers.DiaConfig())
    found: dict[str, tuple[int, ...]] = {"encoder.embedding.weight": (256, 1024), "encoder.norm.weight": (1024,)}

    def attention(at: str, width: int, into: int, heads: int, groups: int) -> None:
        found[f"{at}.q_proj.weight"] = (width, heads, 128)
        found[f"{at}.k_proj.weight"] = found[f"{at}.v_proj.weight"] = (into, groups, 128)
        found[f"{at}.o_proj.weight"] = (heads, 128, width)

    def perceptron(at: str, width: int, inner: int) -> None:
        found[f"{at}.wi_fused.weight"] = (width, 2, inner)
        found[f"{at}.wo.weight"] = (inner, width)

    for layer in range(12):
        at = f"encoder.layers.{layer}"
        attention(f"{at}.self_attention", 1024, 1024, 16, 16)
        perceptron(f"{at}.mlp", 1024, 4096)
        found[f"{at}.pre_sa_norm.weight"] = found[f"{at}.post_sa_norm.weight"] = (1024,)
    for channel in range(9):
        found[f"decoder.embeddings.{channel}.weight"] = (1028, 2048)
    for layer in range(18):
        at = f"decoder.layers.{layer}"
        attention(f"{at}.self_attention", 2048, 2048, 16, 4)
        attention(f"{at}.cross_attention", 2048, 1024, 16, 16)
        perceptron(f"{at}.mlp", 2048, 8192)
        for norm in ("pre_sa_norm", "pre_ca_norm", "pre_mlp_norm"):
            found[f"{at}.{norm}.weight"] = (2048,)
    found["decoder.norm.weight"] = (2048,)
    found["decoder.logits_dense.weight"] = (2048, 9, 1028)
    table: list[Any] = [
        (r"^decoder\.embeddings\..*", "@"),
        (r"^decoder\.logits_dense", "logits_dense"),
        (r"^(encoder|decoder)\.", r"model.\1."),
        (r"\.wi_fused", ".gate_up_proj"),
        (r"\.wo\.", ".down_proj."),
    ]
    layouts = [
        (r"\.[qkv]_proj", "i h d -> (h d) i"),
        (r"\.o_proj", "h d o -> o (h d)"),
        (r"\.wi_fused", "i x o -> (x o) i"),
        (r"\.wo\.", "i o -> o i"),
        (r"logits_dense", "i c v -> (c v) i"),
    ]
    groups = ["decoder.embeddings.{c}.weight -> model.decoder.embeddings.embed.weight | v d -> (c v) d"]
    return to(by_letters(found), target, table, layouts, groups, truth="transformers' convert_dia_to_hf.py")


# ---------------------------------------------------------------------------------------------- classic


@pair("blind: ELECTRA-Small in TensorFlow's names to Hugging Face: a generator as large stays behind", "transformers")
def electra(small: bool) -> Two:
    """Generator and discriminator have one size and one table; dense_1 is the head's last Linear."""
    import transformers

    target = transformers.ElectraForPreTraining(transformers.ElectraConfig())
    found: dict[str, tuple[int, ...]] = {
        "generator_predictions/LayerNorm/beta": (128,), "generator_predictions/LayerNorm/gamma": (128,),
        "generator_predictions/dense/bias": (128,), "generator_predictions/dense/kernel": (256, 128),
        "generator_predictions/output_bias": (30522,), "global_step": (),
    }  # fmt: skip
    rules = []
    for key, tensor in state(target).items():
        shape, layout = tuple(tensor.shape), ""
        module, tail = key.rsplit(".", 1)
        module = re.sub(r"\.layer\.(\d+)", r".layer_\1", module).replace("dense_prediction", "dense_1")
        if module.endswith("_embeddings"):
            name = module
        elif "LayerNorm" in module:
            name = f"{module}.{'gamma' if tail == 'weight' else 'beta'}"
        elif tail == "weight":
            name, shape, layout = f"{module}.kernel", shape[::-1], "i o -> o i"
        else:
            name = f"{module}.bias"
        name = name.replace(".", "/")
        found[name] = shape
        if name.startswith(("electra/encoder", "electra/embeddings_project")):
            found["generator" + name.removeprefix("electra")] = shape
        rules.append(f"{name} -> {key}" + (f" | {layout}" if layout else ""))
    return Two(by_letters(found), target, rules,
               proof="transformers' load_tf_weights_in_electra for a discriminator")  # fmt: skip


@pair("blind: HuBERT in fairseq's names to torchaudio: the features' norm and projection moved into the encoder")
def hubert(small: bool) -> Two:
    """layer_norm and encoder.layer_norm are both norms at the end of the file; the cluster's table stays behind."""
    source, target, width = Net(), Net(), 768
    source.put("mask_emb", width)
    source.put("label_embs_concat", 504, 256)
    kernels = (10, 3, 3, 3, 3, 2, 2)
    for layer, kernel in enumerate(kernels):
        source.put(f"feature_extractor.conv_layers.{layer}.0.weight", 512, 512 if layer else 1, kernel)
        if not layer:
            source.norm("feature_extractor.conv_layers.0.2", 512)
            target.norm("feature_extractor.conv_layers.0.layer_norm", 512)
        target.put(f"feature_extractor.conv_layers.{layer}.conv.weight", 512, 512 if layer else 1, kernel)
    source.lin("post_extract_proj", width, 512)
    target.norm("encoder.feature_projection.layer_norm", 512)
    target.lin("encoder.feature_projection.projection", width, 512)
    for net, at in ((source, "encoder.pos_conv.0"), (target, "encoder.transformer.pos_conv_embed.conv")):
        net.put(f"{at}.bias", width)
        net.put(f"{at}.weight_g", 1, 1, 128)
        net.put(f"{at}.weight_v", width, width // 16, 128)
    target.norm("encoder.transformer.layer_norm", width)
    for layer in range(12):
        at, there = f"encoder.layers.{layer}", f"encoder.transformer.layers.{layer}"
        source.lins(*(f"{at}.self_attn.{x}_proj" for x in ("k", "v", "q", "out")), out=width, into=width)
        source.norm(f"{at}.self_attn_layer_norm", width)
        source.lin(f"{at}.fc1", 4 * width, width)
        source.lin(f"{at}.fc2", width, 4 * width)
        source.norm(f"{at}.final_layer_norm", width)
        target.lins(*(f"{there}.attention.{x}_proj" for x in ("k", "v", "q", "out")), out=width, into=width)
        target.norm(f"{there}.layer_norm", width)
        target.lin(f"{there}.feed_forward.intermediate_dense", 4 * width, width)
        target.lin(f"{there}.feed_forward.output_dense", width, 4 * width)
        target.norm(f"{there}.final_layer_norm", width)
    source.norm("encoder.layer_norm", width)
    source.norm("layer_norm", 512)
    source.lin("final_proj", 256, width)
    table: list[Any] = [
        (r"^(mask_emb|label_embs_concat|final_proj.*)$", ""),
        (r"conv_layers\.0\.2\.", "conv_layers.0.layer_norm."),
        (r"conv_layers\.(\d)\.0\.", r"conv_layers.\1.conv."),
        (r"^layer_norm", "encoder.feature_projection.layer_norm"),
        (r"^post_extract_proj", "encoder.feature_projection.projection"),
        (r"^encoder\.pos_conv\.0", "encoder.transformer.pos_conv_embed.conv"),
        (r"^encoder\.layer", "encoder.transformer.layer"),
        (r"\.self_attn\.", ".attention."),
        (r"\.self_attn_layer_norm", ".layer_norm"),
        (r"\.fc1", ".feed_forward.intermediate_dense"),
        (r"\.fc2", ".feed_forward.output_dense"),
    ]
    return to(source, target, table, truth="torchaudio's import_fairseq.py")


@pair("blind: PWC-Net in NVIDIA's names to sniklaus': conv6aa comes first, an upsampling belongs to the level below")
def pwc(small: bool) -> Two:
    """conv5_2 is netFiv.netThr; deconv6 is netFiv.netUpflow; deconv2 is of no use; levels are listed from 2 to 6."""
    words = ("", "One", "Two", "Thr", "Fou", "Fiv", "Six")
    widths, grown = (3, 16, 32, 64, 96, 128, 196), (128, 128, 96, 64, 32)
    inputs = {level: 81 + (widths[level] + 4 if level < 6 else 0) for level in range(2, 7)}
    source, target = Net(), Net()
    for level in range(1, 7):
        for place, letters in enumerate(("aa", "a", "b") if level == 6 else ("a", "aa", "b")):
            into = widths[level] if place else widths[level - 1]
            source.conv(f"conv{level}{letters}.0", widths[level], into, 3)
            target.conv(f"netExtractor.net{words[level]}.{2 * place}", widths[level], into, 3)
    for level in range(6, 1, -1):
        into = inputs[level]
        for place, out in enumerate(grown):
            source.conv(f"conv{level}_{place}.0", out, into, 3)
            into += out
        source.conv(f"predict_flow{level}", 2, into, 3)
        source.conv(f"deconv{level}", 2, 2, 4)
        if level > 2:
            source.put(f"upfeat{level}.weight", into, 2, 4, 4)
            source.put(f"upfeat{level}.bias", 2)
    for level in range(2, 7):
        at, into = f"net{words[level]}", inputs[level]
        if level < 6:
            target.conv(f"{at}.netUpflow", 2, 2, 4)
            target.put(f"{at}.netUpfeat.weight", inputs[level + 1] + sum(grown), 2, 4, 4)
            target.put(f"{at}.netUpfeat.bias", 2)
        for place, out in enumerate((*grown, 2), 1):
            target.conv(f"{at}.net{words[place]}.0", out, into, 3)
            into += out
    into = inputs[2] + sum(grown)
    for place, out in enumerate((128, 128, 128, 96, 64, 32, 2)):
        source.conv(f"dc_conv{place + 1}" + (".0" if place < 6 else ""), out, into, 3)
        target.conv(f"netRefiner.netMain.{2 * place}", out, into, 3)
        into = out
    places = {"a": 0, "aa": 2, "b": 4}

    def extractor(found: re.Match[str]) -> str:
        place = places[found[2]] if found[1] != "6" else {"aa": 0, "a": 2, "b": 4}[found[2]]
        return f"netExtractor.net{words[int(found[1])]}.{place}."

    table: list[Any] = [
        (r"^deconv2\..*", ""),
        (r"^conv(\d)(aa?|b)\.0\.", extractor),
        (r"^conv(\d)_(\d)\.0\.", lambda m: f"net{words[int(m[1])]}.net{words[int(m[2]) + 1]}.0."),
        (r"^predict_flow(\d)", lambda m: f"net{words[int(m[1])]}.netSix.0"),
        (r"^deconv(\d)", lambda m: f"net{words[int(m[1]) - 1]}.netUpflow"),
        (r"^upfeat(\d)", lambda m: f"net{words[int(m[1]) - 1]}.netUpfeat"),
        (r"^dc_conv(\d)(\.0)?", lambda m: f"netRefiner.netMain.{2 * int(m[1]) - 2}"),
    ]
    return to(
        source, target, table, truth="NVlabs' PWCNet.py and sniklaus' run.py: inputs and order of use of every layer"
    )


@pair("blind: Conditional DETR by its authors to Hugging Face: content, position and sine have Linears of their own",
      "transformers")  # fmt: skip
def conditional_detr(small: bool) -> Two:
    """Eleven square Linears in a layer; only the first layer has a position for the cross attention's queries."""
    import transformers

    config = transformers.ConditionalDetrConfig(num_labels=91)
    target = transformers.ConditionalDetrForObjectDetection(config)
    source, groups, width = Net(), [], 256
    for layer in range(6):
        at = f"transformer.encoder.layers.{layer}"
        source.mha(f"{at}.self_attn", width)
        source.lin(f"{at}.linear1", 2048, width)
        source.lin(f"{at}.linear2", width, 2048)
        source.lns(f"{at}.norm1", f"{at}.norm2", size=width)
        groups += split(f"{at}.self_attn", [f"model.encoder.layers.{layer}.self_attn.{x}_proj" for x in "qkv"],
                        weight=".in_proj_weight", offset=".in_proj_bias")  # fmt: skip
    for layer in range(6):
        at = f"transformer.decoder.layers.{layer}"
        own = ("qcontent", "qpos", "kcontent", "kpos", "v")
        source.lins(*(f"{at}.sa_{x}_proj" for x in own), f"{at}.self_attn.out_proj", out=width, into=width)
        source.lin(f"{at}.ca_qcontent_proj", width, width)
        if not layer:
            source.lin(f"{at}.ca_qpos_proj", width, width)
        rest = ("kcontent", "kpos", "v", "qpos_sine")
        source.lins(*(f"{at}.ca_{x}_proj" for x in rest), f"{at}.cross_attn.out_proj", out=width, into=width)
        source.lin(f"{at}.linear1", 2048, width)
        source.lin(f"{at}.linear2", width, 2048)
        source.lns(f"{at}.norm1", f"{at}.norm2", f"{at}.norm3", size=width)
    source.norm("transformer.decoder.norm", width)
    source.lins("transformer.decoder.query_scale.layers.0", "transformer.decoder.query_scale.layers.1",
                "transformer.decoder.ref_point_head.layers.0", out=width, into=width)  # fmt: skip
    source.lin("transformer.decoder.ref_point_head.layers.1", 2, width)
    source.lin("class_embed", 91, width)
    source.lins("bbox_embed.layers.0", "bbox_embed.layers.1", out=width, into=width)
    source.lin("bbox_embed.layers.2", 4, width)
    source.put("query_embed.weight", 300, width)
    source.conv("input_proj", width, 2048, 1)
    body = "model.backbone.model."
    for key, tensor in state(target).items():
        if key.startswith(body) and not key.endswith("num_batches_tracked"):
            source["backbone.0.body." + key.removeprefix(body)] = tensor
    table: list[Any] = [
        (r".*\.in_proj_.*", "@"),
        (r"^backbone\.0\.body\.", body),
        (r"^input_proj\.", "model.input_projection."),
        (r"^query_embed\.", "model.query_position_embeddings."),
        (r"^class_embed\.", "class_labels_classifier."),
        (r"^bbox_embed\.", "bbox_predictor."),
        (r"^transformer\.decoder\.norm\.", "model.decoder.layernorm."),
        (r"^transformer\.decoder\.layers\.(\d)\.norm2\.", r"model.decoder.layers.\1.encoder_attn_layer_norm."),
        (r"^transformer\.", "model."),
        (r"\.norm1\.", ".self_attn_layer_norm."),
        (r"\.norm[23]\.", ".final_layer_norm."),
        (r"\.linear(\d)\.", r".mlp.fc\1."),
        (r"\.sa_([qk])(content|pos)_proj", r".self_attn.\1_\2_proj"),
        (r"\.ca_([qk])(content|pos|pos_sine)_proj", r".encoder_attn.\1_\2_proj"),
        (r"\.sa_v_proj", ".self_attn.v_proj"),
        (r"\.ca_v_proj", ".encoder_attn.v_proj"),
        (r"\.cross_attn\.out_proj", ".encoder_attn.o_proj"),
        (r"\.self_attn\.out_proj", ".self_attn.o_proj"),
    ]
    return to(source, target, table, groups=groups,
              truth="transformers' convert_conditional_detr_original_pytorch_checkpoint_to_pytorch.py")  # fmt: skip


# ---------------------------------------------------------------------------------------------- one's own words


def reworded(target: Any, table: list[Any], why: str, order: Any = None) -> Two:
    """A file of a real model under one's own names."""
    names = {key: renamed(key, table) for key in state(target)}
    assert len(set(names.values())) == len(names)
    source = like(target, names.__getitem__, order)
    return Two(source, target, [f"{name} -> {key}" for key, name in names.items()], proof=why)


@pair("blind, renamed: RetinaNet in long words, heads first: ClassBranch, PyramidLateral, ResidualStage", "torchvision")
def retinanet_words(small: bool) -> Two:
    """Stages and units are counted from 1; statistics are Mean and Variance."""
    import torchvision

    target = torchvision.models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    table: list[Any] = [
        (r"^backbone\.body\.layer(\d)\.(\d)\.", lambda m: f"ResidualStage{m[1]}.Unit{int(m[2]) + 1}."),
        (r"^backbone\.body\.conv1", "Stem.Convolution"),
        (r"^backbone\.body\.bn1", "Stem.Normalization"),
        (r"\.downsample\.0", ".ShortcutConvolution"),
        (r"\.downsample\.1", ".ShortcutNormalization"),
        (r"\.conv(\d)\.", r".Convolution\1."),
        (r"\.bn(\d)\.", r".Normalization\1."),
        (r"^backbone\.fpn\.inner_blocks\.(\d)\.0", lambda m: f"PyramidLateral.Level{int(m[1]) + 3}"),
        (r"^backbone\.fpn\.layer_blocks\.(\d)\.0", lambda m: f"PyramidSmooth.Level{int(m[1]) + 3}"),
        (r"^backbone\.fpn\.extra_blocks\.p(\d)", r"PyramidExtra.Level\1"),
        (r"^head\.classification_head\.conv\.(\d)\.0", lambda m: f"ClassBranch.Convolution{int(m[1]) + 1}"),
        (r"^head\.classification_head\.cls_logits", "ClassBranch.Logits"),
        (r"^head\.regression_head\.conv\.(\d)\.0", lambda m: f"BoxBranch.Convolution{int(m[1]) + 1}"),
        (r"^head\.regression_head\.bbox_reg", "BoxBranch.Offsets"),
        (r"running_mean$", "Mean"),
        (r"running_var$", "Variance"),
        (r"weight$", "Weight"),
        (r"bias$", "Bias"),
        (r"num_batches_tracked$", "Steps"),
    ]
    return reworded(target, table, "torchvision's own model, key by key",
                    lambda key: (not key.startswith("head"), "body" in key))  # fmt: skip


@pair("blind, renamed: Qwen2.5-0.5B in Portuguese: camada, consulta, chave, valor, porta, sobe, desce", "transformers")
def qwen_portuguese(small: bool) -> Two:
    """peso and vies; the file has no head, since it is the table."""
    import transformers

    target = without(transformers.Qwen2ForCausalLM(transformers.Qwen2Config(
        vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2)), "lm_head.weight")  # fmt: skip
    words = {
        "q_proj": "consulta", "k_proj": "chave", "v_proj": "valor", "o_proj": "saida", "gate_proj": "porta",
        "up_proj": "sobe", "down_proj": "desce", "input_layernorm": "norma_antes",
        "post_attention_layernorm": "norma_depois",
    }  # fmt: skip
    table: list[Any] = [
        (r"^model\.embed_tokens", "tabela_palavras"),
        (r"^model\.norm", "norma_final"),
        (r"^model\.layers\.(\d+)\.", lambda m: f"camada_{int(m[1]):02d}."),
        *((rf"\.{word}\.", f".{other}.") for word, other in words.items()),
        (r"\.self_attn\.", ".atencao."),
        (r"\.mlp\.", ".rede."),
        (r"weight$", "peso"),
        (r"bias$", "vies"),
    ]
    return reworded(target, table, "transformers' own model, key by key")


@pair("blind, renamed: Wav2Vec2 in codes: fx.c3.w, tr.07.at.q.w, tr.07.n2.b", "transformers")
def wav2vec_codes(small: bool) -> Two:
    """The position's convolution is pc, a layer's last norm is n2; an abbreviation for each word."""
    import transformers

    target = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(vocab_size=32))
    table: list[Any] = [
        (r"^wav2vec2\.masked_spec_embed$", "mask"),
        (r"^wav2vec2\.feature_extractor\.conv_layers\.(\d)\.conv", r"fx.c\1"),
        (r"^wav2vec2\.feature_extractor\.conv_layers\.(\d)\.layer_norm", r"fx.n\1"),
        (r"^wav2vec2\.feature_projection\.layer_norm", "fp.n"),
        (r"^wav2vec2\.feature_projection\.projection", "fp.l"),
        (r"^wav2vec2\.encoder\.pos_conv_embed\.conv", "pc"),
        (r"parametrizations\.weight\.original0", "g"),
        (r"parametrizations\.weight\.original1", "v"),
        (r"^wav2vec2\.encoder\.layer_norm", "tr.n"),
        (r"^wav2vec2\.encoder\.layers\.(\d+)", lambda m: f"tr.{int(m[1]):02d}"),
        (r"\.attention\.(q|k|v)_proj", r".at.\1"),
        (r"\.attention\.out_proj", ".at.o"),
        (r"\.feed_forward\.intermediate_dense", ".ff.1"),
        (r"\.feed_forward\.output_dense", ".ff.2"),
        (r"\.final_layer_norm", ".n2"),
        (r"\.layer_norm", ".n1"),
        (r"^lm_head", "ctc"),
        (r"\.weight$", ".w"),
        (r"\.bias$", ".b"),
    ]
    return reworded(target, table, "transformers' own model, key by key")
