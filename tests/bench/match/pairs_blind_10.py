"""Blind pairs: language, speech and video of 2024 and 2025, renamings, and strangers of equal widths."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.match.blind import Net, Two, like, none, pair, renamed, split, state, to
from tests.bench.match.pairs_blind_9 import lightglue_file, rt_detr_config


@pair("blind: Qwen2-VL's tower in llama.cpp's mmproj to Hugging Face: two images' patches were one convolution",
      "transformers")  # fmt: skip
def qwen2_vl(small: bool) -> Two:
    """v.patch_embd.weight and v.patch_embd.weight.1 are the two frames of one kernel; qkv was split."""
    from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

    target = Qwen2VisionTransformerPretrainedModel(Qwen2VLVisionConfig())
    source, width, groups = Net(), 1280, []
    source.put("v.patch_embd.weight", width, 3, 14, 14)
    source.put("v.patch_embd.weight.1", width, 3, 14, 14)
    groups.append("v.patch_embd.weight, v.patch_embd.weight.1 -> patch_embed.proj.weight"
                  " | o i (s h) w, o i (t h) w -> o i (s + t) h w")  # fmt: skip
    for block in range(32):
        at, there = f"v.blk.{block}", f"blocks.{block}.attn.qkv"
        source.lns(f"{at}.ln1", f"{at}.ln2", size=width)
        source.lins(*(f"{at}.attn_{x}" for x in ("q", "k", "v", "out")), out=width, into=width)
        source.lin(f"{at}.ffn_up", 4 * width, width)
        source.lin(f"{at}.ffn_down", width, 4 * width)
        for tail, layout in (("weight", "o i -> (x o) i"), ("bias", "o -> (x o)")):
            groups.append(f"{at}.attn_{{x=q|k|v}}.{tail} -> {there}.{tail} | {layout}")
    source.norm("v.post_ln", width)
    source.lin("mm.0", 4 * width, 4 * width)
    source.lin("mm.2", 3584, 4 * width)
    table: list[Any] = [
        (r".*(patch_embd|attn_[qkv]\.).*", "@"),
        (r"^v\.blk\.", "blocks."),
        (r"^v\.post_ln", "merger.ln_q"),
        (r"^mm\.", "merger.mlp."),
        (r"\.ln(\d)\.", r".norm\1."),
        (r"\.attn_out\.", ".attn.proj."),
        (r"\.ffn_up\.", ".mlp.fc1."),
        (r"\.ffn_down\.", ".mlp.fc2."),
    ]
    return to(source, target, table, groups=groups, vars={"s": 1, "t": 1},
              truth="gguf's tensor_mapping.py and llama.cpp's convert_hf_to_gguf.py (Qwen2VLVisionModel)")  # fmt: skip


def rwkv7_file() -> Net:
    """RWKV-7 World 0.1B: every vector has three axes, every low rank is two matrices and a vector."""
    source, width = Net(), 768
    source.put("emb.weight", 65536, width)
    for layer in range(12):
        at = f"blocks.{layer}"
        source.lns(f"{at}.ln1", f"{at}.ln2", size=width)
        if not layer:
            source.norm(f"{at}.ln0", width)
        for part in "rwkvag":
            source.put(f"{at}.att.x_{part}", 1, 1, width)
        for part, rank in (("w", 64), ("a", 64), ("v", 32), ("g", 128)):
            source.put(f"{at}.att.{part}1", width, rank)
            source.put(f"{at}.att.{part}2", rank, width)
            if part != "g":
                source.put(f"{at}.att.{part}0", 1, 1, width)
        source.put(f"{at}.att.k_k", 1, 1, width)
        source.put(f"{at}.att.k_a", 1, 1, width)
        source.put(f"{at}.att.r_k", width // 64, 64)
        for part in ("receptance", "key", "value", "output"):
            source.lin(f"{at}.att.{part}", width, width, bias=False)
        source.norm(f"{at}.att.ln_x", width)
        source.put(f"{at}.ffn.x_k", 1, 1, width)
        source.lin(f"{at}.ffn.key", 4 * width, width, bias=False)
        source.lin(f"{at}.ffn.value", width, 4 * width, bias=False)
    source.norm("ln_out", width)
    source.lin("head", 65536, width, bias=False)
    return source


@pair("blind: RWKV-7 in its author's names to flash-linear-attention: low ranks became two turned Linears")
def rwkv7(small: bool) -> Two:
    """w1, w2 and w0 are lora.0.weight, lora.2.weight and lora.2.bias; the first layer's v0 to v2 are of no use."""
    source, target, width = rwkv7_file(), Net(), 768
    target.put("model.embeddings.weight", 65536, width)
    for layer in range(12):
        at = f"model.layers.{layer}"
        if not layer:
            target.norm(f"{at}.pre_norm", width)
        target.norm(f"{at}.attn_norm", width)
        for part in "rwkvag":
            target.put(f"{at}.attn.x_{part}", 1, 1, width)
        target.put(f"{at}.attn.k_k", width)
        target.put(f"{at}.attn.k_a", width)
        target.put(f"{at}.attn.r_k", width // 64, 64)
        for part in "rkvo":
            target.lin(f"{at}.attn.{part}_proj", width, width, bias=False)
        for part, rank in (("w", 64), ("v", 32), ("a", 64), ("g", 128)):
            if layer or part != "v":
                target.lin(f"{at}.attn.{part}_lora.lora.0", rank, width, bias=False)
                target.lin(f"{at}.attn.{part}_lora.lora.2", width, rank, bias=part != "g")
        target.norm(f"{at}.attn.g_norm", width)
        target.norm(f"{at}.ffn_norm", width)
        target.put(f"{at}.ffn.x_k", width)
        target.lin(f"{at}.ffn.key", 4 * width, width, bias=False)
        target.lin(f"{at}.ffn.value", width, 4 * width, bias=False)
    target.norm("model.norm", width)
    target.lin("lm_head", 65536, width, bias=False)
    table: list[Any] = [
        (r"^blocks\.0\.att\.v[012]$", ""),
        (r"^emb\.", "model.embeddings."),
        (r"^ln_out\.", "model.norm."),
        (r"^head\.", "lm_head."),
        (r"^blocks\.", "model.layers."),
        (r"\.ln0\.", ".pre_norm."),
        (r"\.ln1\.", ".attn_norm."),
        (r"\.ln2\.", ".ffn_norm."),
        (r"\.att\.([wavg])0$", r".attn.\1_lora.lora.2.bias"),
        (r"\.att\.([wavg])1$", r".attn.\1_lora.lora.0.weight"),
        (r"\.att\.([wavg])2$", r".attn.\1_lora.lora.2.weight"),
        (r"\.att\.receptance", ".attn.r_proj"),
        (r"\.att\.(k)ey", r".attn.\1_proj"),
        (r"\.att\.(v)alue", r".attn.\1_proj"),
        (r"\.att\.(o)utput", r".attn.\1_proj"),
        (r"\.att\.ln_x", ".attn.g_norm"),
        (r"\.att\.", ".attn."),
    ]
    layouts = [(r"\.att\.[wavg][12]$", "i o -> o i"), (r"\.att\.([wav]0|k_k|k_a)$|\.ffn\.x_k$", "1 1 c -> c")]
    return to(source, target, table, layouts, truth="flash-linear-attention's utils/convert_from_rwkv7.py")


@pair("blind: OLMoE in AI2's names to Hugging Face: experts of one long matrix, two of them fused, one turned",
      "transformers")  # fmt: skip
def olmoe(small: bool) -> Two:
    """megablocks keeps 64 experts as rows; the norm of all layers comes first in the file."""
    import transformers

    width, hidden, experts, depth = 2048, 1024, 64, 4
    target = transformers.OlmoeForCausalLM(transformers.OlmoeConfig(
        hidden_size=width, intermediate_size=hidden, num_hidden_layers=depth, num_experts=experts))  # fmt: skip
    source, groups = Net(), []
    source.put("transformer.wte.weight", 50304, width)
    source.put("transformer.ln_f.weight", width)
    for layer in range(depth):
        at, there = f"transformer.blocks.{layer}", f"model.layers.{layer}"
        source.put(f"{at}.k_norm.weight", width)
        source.put(f"{at}.q_norm.weight", width)
        source.lin(f"{at}.attn_out", width, width, bias=False)
        source.put(f"{at}.attn_norm.weight", width)
        source.put(f"{at}.ff_norm.weight", width)
        source.lin(f"{at}.att_proj", 3 * width, width, bias=False)
        source.lin(f"{at}.ffn.router.layer", experts, width, bias=False)
        for part in ("w1", "v1", "w2"):
            source.put(f"{at}.ffn.experts.mlp.{part}", experts * hidden, width)
        groups += split(f"{at}.att_proj", [f"{there}.self_attn.{x}_proj" for x in "qkv"], bias=False)
        groups.append(f"{at}.ffn.experts.mlp.w1, {at}.ffn.experts.mlp.v1 -> {there}.mlp.experts.gate_up_proj"
                      " | (e f) i, (e g) i -> e (f + g) i")  # fmt: skip
    source.lin("transformer.ff_out", 50304, width, bias=False)
    table: list[Any] = [
        (r".*(att_proj|mlp\.w1|mlp\.v1).*", "@"),
        (r"^transformer\.wte", "model.embed_tokens"),
        (r"^transformer\.ln_f", "model.norm"),
        (r"^transformer\.ff_out", "lm_head"),
        (r"^transformer\.blocks\.", "model.layers."),
        (r"\.([qk])_norm", r".self_attn.\1_norm"),
        (r"\.attn_out", ".self_attn.o_proj"),
        (r"\.attn_norm", ".input_layernorm"),
        (r"\.ff_norm", ".post_attention_layernorm"),
        (r"\.ffn\.router\.layer", ".mlp.gate"),
        (r"\.ffn\.experts\.mlp\.w2", ".mlp.experts.down_proj"),
    ]
    return to(
        source,
        target,
        table,
        [(r"mlp\.w2$", "(e f) o -> e o f")],
        groups,
        vars={"e": experts},
        hidden=["*.gate_up_proj"],
        truth="code of both sides: megablocks' GLU (w1 is under the activation) and transformers' OlmoeExperts",
    )


@pair("blind: CSM in Sesame's names to Hugging Face: two Llamas of torchtune's, one table used twice", "transformers")
def csm(small: bool) -> Two:
    """scale, output_proj, w1 to w3; backbone and decoder have the same names; the codec comes from another file."""
    import transformers

    target = transformers.CsmForConditionalGeneration(transformers.CsmConfig())
    source, groups = Net(), []
    source.put("audio_head", 31, 1024, 2051)
    for name, there, width, heads, grouped, depth in (
        ("backbone", "backbone_model", 2048, 32, 8, 16), ("decoder", "depth_decoder.model", 1024, 8, 2, 4),
    ):  # fmt: skip
        for layer in range(depth):
            at = f"{name}.layers.{layer}"
            for part in "qkv":
                rows = width if part == "q" else width * grouped // heads
                source.lin(f"{at}.attn.{part}_proj", rows, width, bias=False)
            source.lin(f"{at}.attn.output_proj", width, width, bias=False)
            source.lin(f"{at}.mlp.w1", 8192, width, bias=False)
            source.lin(f"{at}.mlp.w2", width, 8192, bias=False)
            source.lin(f"{at}.mlp.w3", 8192, width, bias=False)
            source.put(f"{at}.sa_norm.scale", width)
            source.put(f"{at}.mlp_norm.scale", width)
            half = width // heads // 2
            groups += [f"{at}.attn.{x}_proj.weight -> {there}.layers.{layer}.self_attn.{x}_proj.weight"
                       f" | (h {'d' if half == 32 else 'e'} two) i -> (h two {'d' if half == 32 else 'e'}) i"
                       for x in "qk"]  # fmt: skip
        source.put(f"{name}.norm.scale", width)
    source.put("text_embeddings.weight", 128256, 2048)
    source.put("audio_embeddings.weight", 65632, 2048)
    source.lin("projection", 1024, 2048, bias=False)
    source.lin("codebook0_head", 2051, 2048, bias=False)
    groups.append(
        "audio_embeddings.weight -> "
        "backbone_model.embed_tokens.embed_audio_tokens.weight, depth_decoder.model.embed_tokens.weight"
    )
    table: list[Any] = [
        (r".*([qk]_proj|audio_embeddings).*", "@"),
        (r"^audio_head$", "depth_decoder.codebooks_head.weight"),
        (r"^projection", "depth_decoder.model.inputs_embeds_projector"),
        (r"^codebook0_head", "lm_head"),
        (r"^text_embeddings", "embed_text_tokens"),
        (r"^backbone\.", "backbone_model."),
        (r"^decoder\.", "depth_decoder.model."),
        (r"\.attn\.output_proj", ".self_attn.o_proj"),
        (r"\.attn\.", ".self_attn."),
        (r"\.w1\.", ".gate_proj."),
        (r"\.w2\.", ".down_proj."),
        (r"\.w3\.", ".up_proj."),
        (r"\.sa_norm\.scale", ".input_layernorm.weight"),
        (r"\.mlp_norm\.scale", ".post_attention_layernorm.weight"),
        (r"\.norm\.scale", ".norm.weight"),
    ]
    return to(source, target, table, groups=groups, vars={"two": 2, "d": 32, "e": 64}, missing=["codec_model.*"],
              hidden=["*.q_proj.weight", "*.k_proj.weight"], undecided=["*.gate_proj.weight", "*.up_proj.weight"],
              truth="transformers' convert_csm.py")  # fmt: skip


@pair("blind: Mimi in Kyutai's names to Hugging Face: convolutions within convolutions, in_proj's rows turned",
      "transformers")  # fmt: skip
def mimi(small: bool) -> Two:
    """conv.conv.conv and convtr.convtr.convtr; encoder and decoder in front of both of their transformers."""
    import transformers

    target = transformers.MimiModel(transformers.MimiConfig())

    def name_of(key: str) -> str:
        if found := re.search(r"\.self_attn\.([qkv])_proj", key):
            if found[1] != "q":
                return ""
            key = key.replace("q_proj.weight", "in_proj_weight")
        is_up = key.startswith("decoder.upsample") or re.match(r"decoder\.decoder_seanet\.layers\.(2|5|8|11)\.", key)
        key = re.sub(r"\.conv\.(weight|bias)$", r".convtr.convtr.\1" if is_up else r".conv.conv.\1", key)
        key = re.sub(r"^\w+\.(en|de)coder_seanet\.layers", r"\1coder.model", key)
        key = re.sub(r"^\w+\.(en|de)coder_transformer", r"\1coder_transformer.transformer", key)
        key = re.sub(r"^encoder\.downsample\.", "downsample.conv.", key)
        key = re.sub(r"^decoder\.upsample\.", "upsample.convtr.", key)
        key = re.sub(r"^quantizer\.semantic_residual_vector_quantizer\.", "quantizer.rvq_first.", key)
        key = re.sub(r"^quantizer\.acoustic_residual_vector_quantizer\.", "quantizer.rvq_rest.", key)
        key = re.sub(r"\.layers\.(\d+)\.codebook\.", r".vq.layers.\1._codebook.", key)
        key = key.replace("_codebook.initialized", "_codebook._initialized").replace("embed_sum", "embedding_sum")
        key = key.replace("mlp.fc", "linear").replace("o_proj", "out_proj")
        key = key.replace("input_layernorm", "norm1").replace("post_attention_layernorm", "norm2")
        return key.replace("self_attn_layer_scale", "layer_scale_1").replace("mlp_layer_scale", "layer_scale_2")

    tops = ("encoder.", "decoder.", "encoder_transformer.", "decoder_transformer.", "quantizer.", "downsample.", "up")
    inner = ("self_attn", "norm1", "norm2", "linear1", "linear2", "layer_scale_1", "layer_scale_2")

    def order(key: str) -> tuple[int, int, int]:
        name = name_of(key)
        top = next((at for at, head in enumerate(tops) if name.startswith(head)), 9)
        found = re.search(r"transformer\.layers\.(\d+)\.(\w+)", name)
        return top, int(found[1]) if found else 0, inner.index(found[2]) if found else 0

    listed = like(target, name_of, order)
    source, rules = Net(), []
    for name, tensor in listed.items():
        if name.endswith("in_proj_weight"):
            source.put(name, 1536, 512)
            there = re.sub(r"^(..)coder_transformer\.transformer", r"\1coder.\1coder_transformer", name)
            there = there.removesuffix("in_proj_weight")
            rules.append(f"{name} -> {', '.join(f'{there}{x}_proj.weight' for x in 'qkv')}"
                         " | (a + b + c) i -> a i, b i, c i")  # fmt: skip
        else:
            source[name] = tensor
    rules += [f"{name_of(key)} -> {key}" for key in state(target) if not re.search(r"self_attn\.[qkv]_proj", key)]
    rules.append("---")
    rules.append("{m**}.self_attn.{x=q|k}_proj.weight -> {m**}.self_attn.{x}_proj.weight"
                 " | (h d two) i -> (h two d) i")  # fmt: skip
    return Two(source, target, rules, vars={"h": 8, "two": 2}, hidden=["*.q_proj.weight", "*.k_proj.weight"],
               proof="transformers' convert_mimi_checkpoint_to_pytorch.py")  # fmt: skip


@pair("blind: CogVideoX in SAT's names to diffusers: one modulation of twelve parts became two of six")
def cogvideox(small: bool) -> Two:
    """Norms and modulations of all layers stand in lists of their own, outside of the layers."""
    width, depth, prefix = 1920, 30, "model.diffusion_model"
    source, target, groups = Net(), Net(), []
    mixins = f"{prefix}.mixins"
    source.conv(f"{mixins}.patch_embed.proj", width, 16, 2)
    source.lin(f"{mixins}.patch_embed.text_proj", width, 4096)
    for layer in range(depth):
        source.lin(f"{mixins}.adaln_layer.adaLN_modulations.{layer}.1", 12 * width, 512)
    for part in ("query", "key"):
        for layer in range(depth):
            source.norm(f"{mixins}.adaln_layer.{part}_layernorm_list.{layer}", 64)
    source.norm(f"{mixins}.final_layer.norm_final", width)
    source.lin(f"{mixins}.final_layer.linear", 64, width)
    source.lin(f"{mixins}.final_layer.adaLN_modulation.1", 2 * width, 512)
    for layer in range(depth):
        at = f"{prefix}.transformer.layers.{layer}"
        source.norm(f"{at}.input_layernorm", width)
        source.lin(f"{at}.attention.query_key_value", 3 * width, width)
        source.lin(f"{at}.attention.dense", width, width)
        source.norm(f"{at}.post_attention_layernorm", width)
        source.lin(f"{at}.mlp.dense_h_to_4h", 4 * width, width)
        source.lin(f"{at}.mlp.dense_4h_to_h", width, 4 * width)
    source.norm(f"{prefix}.transformer.final_layernorm", width)
    source.lin(f"{prefix}.time_embed.0", 512, width)
    source.lin(f"{prefix}.time_embed.2", 512, 512)
    target.conv("patch_embed.proj", width, 16, 2)
    target.lin("patch_embed.text_proj", width, 4096)
    target.lin("time_embedding.linear_1", 512, width)
    target.lin("time_embedding.linear_2", 512, 512)
    for layer in range(depth):
        at = f"transformer_blocks.{layer}"
        target.lin(f"{at}.norm1.linear", 6 * width, 512)
        target.norm(f"{at}.norm1.norm", width)
        target.lns(f"{at}.attn1.norm_q", f"{at}.attn1.norm_k", size=64)
        target.lins(*(f"{at}.attn1.to_{x}" for x in ("q", "k", "v", "out.0")), out=width, into=width)
        target.lin(f"{at}.norm2.linear", 6 * width, 512)
        target.norm(f"{at}.norm2.norm", width)
        target.lin(f"{at}.ff.net.0.proj", 4 * width, width)
        target.lin(f"{at}.ff.net.2", width, 4 * width)
        groups += split(f"{prefix}.transformer.layers.{layer}.attention.query_key_value",
                        [f"{at}.attn1.to_{x}" for x in "qkv"])  # fmt: skip
        here = f"{mixins}.adaln_layer.adaLN_modulations.{layer}.1"
        for tail, rest in (("weight", " i"), ("bias", "")):
            groups.append(f"{here}.{tail} -> {at}.norm1.linear.{tail}, {at}.norm2.linear.{tail}"
                          f" | (a + b + c + d){rest} -> (a + c){rest}, (b + d){rest}")  # fmt: skip
    target.norm("norm_final", width)
    target.lin("norm_out.linear", 2 * width, 512)
    target.norm("norm_out.norm", width)
    target.lin("proj_out", 64, width)
    table: list[Any] = [
        (r".*(query_key_value|adaLN_modulations).*", "@"),
        (r"^model\.diffusion_model\.", ""),
        (r"^mixins\.patch_embed", "patch_embed"),
        (r"^mixins\.adaln_layer\.(.)\w+_layernorm_list\.(\d+)", r"transformer_blocks.\2.attn1.norm_\1"),
        (r"^mixins\.final_layer\.norm_final", "norm_out.norm"),
        (r"^mixins\.final_layer\.linear", "proj_out"),
        (r"^mixins\.final_layer\.adaLN_modulation\.1", "norm_out.linear"),
        (r"^transformer\.final_layernorm", "norm_final"),
        (r"^transformer\.layers", "transformer_blocks"),
        (r"\.input_layernorm", ".norm1.norm"),
        (r"\.post_attention_layernorm", ".norm2.norm"),
        (r"\.attention\.dense", ".attn1.to_out.0"),
        (r"\.mlp\.dense_h_to_4h", ".ff.net.0.proj"),
        (r"\.mlp\.dense_4h_to_h", ".ff.net.2"),
        (r"^time_embed\.0", "time_embedding.linear_1"),
        (r"^time_embed\.2", "time_embedding.linear_2"),
    ]
    return to(source, target, table, groups=groups, hidden=["*.norm1.linear.*", "*.norm2.linear.*"],
              truth="diffusers' convert_cogvideox_to_diffusers.py")  # fmt: skip


@pair("blind, renamed: ModernBERT in German: aufmerksamkeit, eingang, schlussnorm", "transformers")
def german(small: bool) -> Two:
    """schichten.07.netz.ausgang.gewicht: layers with two digits, and another word for each module."""
    import transformers

    target = transformers.ModernBertModel(transformers.ModernBertConfig())
    table: list[Any] = [
        (r"^embeddings\.tok_embeddings", "einbettung.woerter"),
        (r"^embeddings\.norm", "einbettung.normierung"),
        (r"^final_norm", "schlussnorm"),
        (r"^layers\.(\d+)", lambda m: f"schichten.{int(m[1]):02}"),
        (r"\.attn_norm", ".normierung_davor"),
        (r"\.mlp_norm", ".normierung_danach"),
        (r"\.attn\.Wqkv", ".aufmerksamkeit.frage_schluessel_wert"),
        (r"\.attn\.Wo", ".aufmerksamkeit.ausgabe"),
        (r"\.mlp\.Wi", ".netz.eingang"),
        (r"\.mlp\.Wo", ".netz.ausgang"),
        (r"\.weight$", ".gewicht"),
        (r"\.bias$", ".versatz"),
    ]
    source = like(target, lambda key: renamed(key, table))
    return Two(source, target, [f"{renamed(key, table)} -> {key}" for key in state(target)],
               proof="a mechanical renaming of the same model")  # fmt: skip


@pair("blind, renamed: ConvNeXt V2 in numbers: the first child of a stage is its way down, if it has one", "timm")
def numbered(small: bool) -> Two:
    """Stage 0 begins with block 0, the others with block 1; convolution, norm, Linear, norm and Linear are 0 to 4."""
    import timm

    target = timm.create_model("convnextv2_atto")
    parts = {"conv_dw": 0, "norm": 1, "mlp.fc1": 2, "mlp.grn": 3, "mlp.fc2": 4}

    def name_of(key: str) -> str:
        if found := re.match(r"stages\.(\d)\.blocks\.(\d)\.(.*)\.(\w+)$", key):
            stage = int(found[1])
            return f"m.{stage + 1}.{int(found[2]) + bool(stage)}.{parts[found[3]]}.{found[4]}"
        key = re.sub(r"^stages\.(\d)\.downsample\.", lambda m: f"m.{int(m[1]) + 1}.0.", key)
        return re.sub(r"^head\.norm", "m.5.0", re.sub(r"^head\.fc", "m.5.1", re.sub(r"^stem", "m.0", key)))

    source = like(target, name_of)
    return Two(source, target, [f"{name_of(key)} -> {key}" for key in state(target)],
               proof="a mechanical renaming of the same model")  # fmt: skip


@pair("blind, renamed: Moonshine in abbreviations: e.l3.sa.q.w, d.l3.ca.k.w", "transformers")
def moonshine(small: bool) -> Two:
    """Norms are n1 to n3 in the decoder, n1 and n2 in the encoder."""
    import transformers

    target = transformers.MoonshineForConditionalGeneration(transformers.MoonshineConfig())
    table: list[Any] = [
        (r"^model\.encoder\.", "e."),
        (r"^model\.decoder\.", "d."),
        (r"^proj_out", "out"),
        (r"\.embed_tokens", ".emb"),
        (r"\.layers\.(\d+)\.", r".l\1."),
        (r"\.conv(\d)\.", r".c\1."),
        (r"\.groupnorm\.", ".gn."),
        (r"\.self_attn\.(.)_proj", r".sa.\1"),
        (r"\.encoder_attn\.(.)_proj", r".ca.\1"),
        (r"\.mlp\.fc(\d)", r".ff.\1"),
        (r"\.input_layernorm", ".n1"),
        (r"\.post_attention_layernorm", ".n2"),
        (r"\.final_layernorm", ".n3"),
        (r"^(.)\.(layer_norm|norm)\.", r"\1.n."),
        (r"\.weight$", ".w"),
        (r"\.bias$", ".b"),
    ]
    source = like(target, lambda key: renamed(key, table))
    return Two(source, target, [f"{renamed(key, table)} -> {key}" for key in state(target)],
               proof="a mechanical renaming of the same model")  # fmt: skip


@pair("blind, unrelated: ModernBERT and DINOv3's ViT-B, 768 wide", "transformers")
def bert_and_dino(small: bool) -> Two:
    """Words and patches: layers, attn, mlp and norms in both."""
    import transformers

    return none(
        transformers.ModernBertModel(transformers.ModernBertConfig()),
        transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(
            hidden_size=768, num_attention_heads=12, num_hidden_layers=12, intermediate_size=3072,
            num_register_tokens=4)),
        "another architecture, another training",
    )  # fmt: skip


@pair("blind, unrelated: RWKV-7 and Mamba, 768 wide", "transformers")
def rwkv_and_mamba(small: bool) -> Two:
    """Both are recurrent, with an embedding, blocks, norms and a head of other vocabularies."""
    import transformers

    target = transformers.MambaForCausalLM(transformers.MambaConfig(num_hidden_layers=12))
    return none(rwkv7_file(), target, "another architecture, another vocabulary")


@pair("blind, unrelated: LightGlue and RT-DETR, 256 wide, both with self and cross attention", "transformers")
def matcher_and_detector(small: bool) -> Two:
    """Two transformers over points: a matcher of keypoints and a detector's decoder."""
    import transformers

    return none(lightglue_file(), transformers.RTDetrForObjectDetection(rt_detr_config()),
                "another architecture, another training")  # fmt: skip
