"""Blind pairs: conversions of vision, text, speech, diffusion and detection; models of one's own; renamings; parts."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.match.blind import Net, Two, like, none, pair, renamed, split, state, to


def without(model: Any, *keys: str) -> dict[str, Any]:
    """A file of a model whose tied tensors are not saved twice."""
    found = dict(state(model))
    for key in keys:
        del found[key]
    return found


def reworded(target: Any, table: list[Any], why: str, order: Any = None) -> Two:
    """A file of a real model under one's own names."""
    names = {key: renamed(key, table) for key in state(target)}
    assert len(set(names.values())) == len(names)
    source = like(target, names.__getitem__, order)
    return Two(source, target, [f"{name} -> {key}" for key, name in names.items()], proof=why)


# ---------------------------------------------------------------------------------------------- modern


@pair("blind: CLIPSeg by timojl to Hugging Face: CLIP, torch layers, a reduction of no use", "transformers")
def clipseg(small: bool) -> Two:
    """reduce has the shape of each of reduces, and stays behind; model.*, the visual tower again, is not there."""
    import transformers

    config = transformers.CLIPSegConfig(reduce_dim=64, vision_config={"patch_size": 16})
    target = transformers.CLIPSegForImageSegmentation(config)
    source, groups = Net(), []

    def tower(at: str, there: str, width: int) -> None:
        for block in range(12):
            here = f"{at}.resblocks.{block}"
            source.mha(f"{here}.attn", width)
            source.norm(f"{here}.ln_1", width)
            source.lin(f"{here}.mlp.c_fc", 4 * width, width)
            source.lin(f"{here}.mlp.c_proj", width, 4 * width)
            source.norm(f"{here}.ln_2", width)
            names = [f"clip.{there}.encoder.layers.{block}.self_attn.{x}_proj" for x in "qkv"]
            groups.extend(split(f"{here}.attn.in_proj", names, weight="_weight", offset="_bias"))

    source.put("clip_model.positional_embedding", 77, 512)
    source.put("clip_model.text_projection", 512, 512)
    source.put("clip_model.logit_scale")
    source.put("clip_model.visual.class_embedding", 768)
    source.put("clip_model.visual.positional_embedding", 197, 768)
    source.put("clip_model.visual.proj", 768, 512)
    source.conv("clip_model.visual.conv1", 768, 3, 16, bias=False)
    source.norm("clip_model.visual.ln_pre", 768)
    tower("clip_model.visual.transformer", "vision_model", 768)
    source.norm("clip_model.visual.ln_post", 768)
    tower("clip_model.transformer", "text_model", 512)
    source.put("clip_model.token_embedding.weight", 49408, 512)
    source.norm("clip_model.ln_final", 512)
    source.lins("film_mul", "film_add", out=64, into=512)
    source.lin("reduce", 64, 768)
    source.put("trans_conv.weight", 64, 1, 16, 16)
    source.put("trans_conv.bias", 1)
    source.lins(*(f"reduces.{i}" for i in range(3)), out=64, into=768)
    for block in range(3):
        at = f"blocks.{block}"
        source.mha(f"{at}.self_attn", 64)
        source.lin(f"{at}.linear1", 2048, 64)
        source.lin(f"{at}.linear2", 64, 2048)
        source.lns(f"{at}.norm1", f"{at}.norm2", size=64)
        names = [f"decoder.layers.{block}.self_attn.{x}_proj" for x in "qkv"]
        groups += split(f"{at}.self_attn.in_proj", names, weight="_weight", offset="_bias")
    table: list[Any] = [
        (r".*in_proj_.*", "@"),
        (r"^reduce\..*", ""),
        (r"^trans_conv", "decoder.transposed_convolution"),
        (r"^(film_mul|film_add|reduces)", r"decoder.\1"),
        (r"^blocks\.(\d)\.linear", r"decoder.layers.\1.mlp.fc"),
        (r"^blocks\.(\d)\.norm", r"decoder.layers.\1.layer_norm"),
        (r"^blocks\.", "decoder.layers."),
        (r"^clip_model\.positional_embedding", "clip.text_model.embeddings.position_embedding.weight"),
        (r"^clip_model\.text_projection", "clip.text_projection.weight"),
        (r"^clip_model\.token_embedding", "clip.text_model.embeddings.token_embedding"),
        (r"^clip_model\.ln_final", "clip.text_model.final_layer_norm"),
        (r"^clip_model\.visual\.class_embedding", "clip.vision_model.embeddings.class_embedding"),
        (r"^clip_model\.visual\.positional_embedding", "clip.vision_model.embeddings.position_embedding.weight"),
        (r"^clip_model\.visual\.proj", "clip.visual_projection.weight"),
        (r"^clip_model\.visual\.conv1", "clip.vision_model.embeddings.patch_embedding"),
        (r"^clip_model\.visual\.ln_pre", "clip.vision_model.pre_layrnorm"),
        (r"^clip_model\.visual\.ln_post", "clip.vision_model.post_layernorm"),
        (r"^clip_model\.visual\.transformer\.resblocks", "clip.vision_model.encoder.layers"),
        (r"^clip_model\.transformer\.resblocks", "clip.text_model.encoder.layers"),
        (r"^clip_model\.", "clip."),
        (r"\.attn\.", ".self_attn."),
        (r"\.ln_", ".layer_norm"),
        (r"\.mlp\.c_fc", ".mlp.fc1"),
        (r"\.mlp\.c_proj", ".mlp.fc2"),
    ]
    return to(source, target, table, [("visual.proj$|text_projection", "i o -> o i")], groups,
              hidden=["clip.text_projection.weight"],
              truth="transformers' convert_clipseg_original_pytorch_to_hf.py; timojl's models/clipseg.py")  # fmt: skip


@pair("blind: ViTMatte by hustvl to Hugging Face: residual blocks behind four of twelve, bn is batch_norm",
      "transformers")  # fmt: skip
def vitmatte(small: bool) -> Two:
    """Tables of relative positions are longer where attention is global; a stream of detail beside the ViT."""
    import transformers

    backbone = transformers.VitDetConfig(
        hidden_size=384, num_attention_heads=6, num_channels=4, image_size=512, pretrain_image_size=224, patch_size=16,
        use_absolute_position_embeddings=True, use_relative_position_embeddings=True, window_size=14,
        window_block_indices=[0, 1, 3, 4, 6, 7, 9, 10], residual_block_indices=[2, 5, 8, 11], out_features=["stage12"],
    )  # fmt: skip
    target = transformers.VitMatteForImageMatting(transformers.VitMatteConfig(
        backbone_config=backbone, hidden_size=384, convstream_hidden_sizes=[48, 96, 192],
        fusion_hidden_sizes=[256, 128, 64, 32]))  # fmt: skip
    source, width = Net(), 384
    source.put("backbone.pos_embed", 1, 197, width)
    source.conv("backbone.patch_embed.proj", width, 4, 16)
    for block in range(12):
        at, is_global = f"backbone.blocks.{block}", block % 3 == 2
        source.norm(f"{at}.norm1", width)
        source.put(f"{at}.attn.rel_pos_h", 63 if is_global else 27, 64)
        source.put(f"{at}.attn.rel_pos_w", 63 if is_global else 27, 64)
        source.lin(f"{at}.attn.qkv", 3 * width, width)
        source.lin(f"{at}.attn.proj", width, width)
        source.norm(f"{at}.norm2", width)
        source.lin(f"{at}.mlp.fc1", 4 * width, width)
        source.lin(f"{at}.mlp.fc2", width, 4 * width)
        if is_global:
            for number, (out, into, kernel) in enumerate(((192, 384, 1), (192, 192, 3), (384, 192, 1)), 1):
                source.conv(f"{at}.residual.conv{number}", out, into, kernel, bias=False)
                source.norm(f"{at}.residual.norm{number}", out)
    widths = [4, 48, 96, 192]
    for i in range(3):
        source.conv(f"decoder.convstream.convs.{i}.conv", widths[i + 1], widths[i], 3, bias=False)
        source.bn(f"decoder.convstream.convs.{i}.bn", widths[i + 1])
    for i, (out, into) in enumerate(((256, 576), (128, 352), (64, 176), (32, 68))):
        source.conv(f"decoder.fusion_blks.{i}.conv.conv", out, into, 3, bias=False)
        source.bn(f"decoder.fusion_blks.{i}.conv.bn", out)
    source.conv("decoder.matting_head.matting_convs.0", 16, 32, 3)
    source.bn("decoder.matting_head.matting_convs.1", 16)
    source.conv("decoder.matting_head.matting_convs.3", 1, 16, 1)
    table: list[Any] = [
        (r"^backbone\.pos_embed", "backbone.embeddings.position_embeddings"),
        (r"^backbone\.patch_embed\.proj", "backbone.embeddings.projection"),
        (r"^backbone\.blocks", "backbone.encoder.layer"),
        (r"\.attn\.", ".attention."),
        (r"fusion_blks", "fusion_blocks"),
        (r"\.bn\.", ".batch_norm."),
    ]
    return to(source, target, table,
              truth="transformers' convert_vitmatte_to_hf.py; hustvl's detail_capture.py"
              )  # fmt: skip


@pair("blind: Sana in NVIDIA's names to diffusers: mixed feed-forwards, kv of cross attention fused, two tables")
def sana(small: bool) -> Two:
    """A position table and a caption's null embedding stay behind; the head's table goes to the top."""
    width, depth, hidden, caption = 2240, 20, 5600, 2304
    source, target, groups = Net(), Net(), []
    source.put("pos_embed", 1, 1024, width)
    source.conv("x_embedder.proj", width, 32, 1)
    source.lin("t_embedder.mlp.0", width, 256)
    source.lin("t_embedder.mlp.2", width, width)
    source.lin("t_block.1", 6 * width, width)
    source.put("y_embedder.y_embedding", 300, caption)
    source.lin("y_embedder.y_proj.fc1", width, caption)
    source.lin("y_embedder.y_proj.fc2", width, width)
    source.put("attention_y_norm.weight", width)
    for block in range(depth):
        at = f"blocks.{block}"
        source.put(f"{at}.scale_shift_table", 6, width)
        source.lin(f"{at}.attn.qkv", 3 * width, width, False)
        source.lin(f"{at}.attn.proj", width, width)
        source.lin(f"{at}.cross_attn.q_linear", width, width)
        source.lin(f"{at}.cross_attn.kv_linear", 2 * width, width)
        source.lin(f"{at}.cross_attn.proj", width, width)
        source.conv(f"{at}.mlp.inverted_conv.conv", 2 * hidden, width, 1)
        source.conv(f"{at}.mlp.depth_conv.conv", 2 * hidden, 1, 3)
        source.conv(f"{at}.mlp.point_conv.conv", width, hidden, 1, bias=False)
    source.put("final_layer.scale_shift_table", 2, width)
    source.lin("final_layer.linear", 32, width)

    target.put("scale_shift_table", 2, width)
    target.conv("patch_embed.proj", width, 32, 1)
    target.lin("time_embed.emb.timestep_embedder.linear_1", width, 256)
    target.lin("time_embed.emb.timestep_embedder.linear_2", width, width)
    target.lin("time_embed.linear", 6 * width, width)
    target.lin("caption_projection.linear_1", width, caption)
    target.lin("caption_projection.linear_2", width, width)
    target.put("caption_norm.weight", width)
    for block in range(depth):
        at = f"transformer_blocks.{block}"
        target.put(f"{at}.scale_shift_table", 6, width)
        target.lins(*(f"{at}.attn1.to_{x}" for x in "qkv"), out=width, into=width, bias=False)
        target.lin(f"{at}.attn1.to_out.0", width, width)
        target.lins(*(f"{at}.attn2.to_{x}" for x in "qkv"), f"{at}.attn2.to_out.0", out=width, into=width)
        target.conv(f"{at}.ff.conv_inverted", 2 * hidden, width, 1)
        target.conv(f"{at}.ff.conv_depth", 2 * hidden, 1, 3)
        target.conv(f"{at}.ff.conv_point", width, hidden, 1, bias=False)
        groups += split(f"blocks.{block}.attn.qkv", [f"{at}.attn1.to_{x}" for x in "qkv"], bias=False)
        groups += split(f"blocks.{block}.cross_attn.kv_linear", [f"{at}.attn2.to_{x}" for x in "kv"])
    target.lin("proj_out", 32, width)
    table: list[Any] = [
        (r"^(pos_embed|y_embedder\.y_embedding)$", ""),
        (r".*\.(qkv|kv_linear)\..*", "@"),
        (r"^x_embedder", "patch_embed"),
        (r"^t_embedder\.mlp\.0", "time_embed.emb.timestep_embedder.linear_1"),
        (r"^t_embedder\.mlp\.2", "time_embed.emb.timestep_embedder.linear_2"),
        (r"^t_block\.1", "time_embed.linear"),
        (r"^y_embedder\.y_proj\.fc", "caption_projection.linear_"),
        (r"^attention_y_norm", "caption_norm"),
        (r"^final_layer\.linear", "proj_out"),
        (r"^final_layer\.", ""),
        (r"^blocks", "transformer_blocks"),
        (r"\.cross_attn\.q_linear", ".attn2.to_q"),
        (r"\.cross_attn\.proj", ".attn2.to_out.0"),
        (r"\.attn\.proj", ".attn1.to_out.0"),
        (r"\.mlp\.(inverted|depth|point)_conv\.conv", r".ff.conv_\1"),
    ]
    return to(source, target, table, groups=groups,
              truth="diffusers' convert_sana_to_diffusers.py; NVlabs' diffusion/model/nets/sana.py")  # fmt: skip


@pair("blind: YOLOS by hustvl to Hugging Face: a ViT with tokens of detection, positions at every block",
      "transformers")  # fmt: skip
def yolos(small: bool) -> Two:
    """Two perceptrons of three layers behind; two of their layers have one shape."""
    import transformers

    width = 384
    target = transformers.YolosForObjectDetection(transformers.YolosConfig(
        hidden_size=width, num_attention_heads=6, intermediate_size=4 * width, image_size=[512, 864], num_labels=91,
    ))  # fmt: skip
    source, groups = Net(), []
    source.put("backbone.cls_token", 1, 1, width)
    source.put("backbone.pos_embed", 1, 1829, width)
    source.put("backbone.det_token", 1, 100, width)
    source.put("backbone.mid_pos_embed", 11, 1, 1829, width)
    source.conv("backbone.patch_embed.proj", width, 3, 16)
    for block in range(12):
        at = f"backbone.blocks.{block}"
        source.norm(f"{at}.norm1", width)
        source.lin(f"{at}.attn.qkv", 3 * width, width)
        source.lin(f"{at}.attn.proj", width, width)
        source.norm(f"{at}.norm2", width)
        source.lin(f"{at}.mlp.fc1", 4 * width, width)
        source.lin(f"{at}.mlp.fc2", width, 4 * width)
        groups += split(f"{at}.attn.qkv", [f"vit.encoder.layer.{block}.attention.attention.{x}"
                                           for x in ("query", "key", "value")])  # fmt: skip
    source.norm("backbone.norm", width)
    for head, out in (("class_embed", 92), ("bbox_embed", 4)):
        source.lins(f"{head}.layers.0", f"{head}.layers.1", out=width, into=width)
        source.lin(f"{head}.layers.2", out, width)
    mid = next(key for key in state(target) if "mid_position" in key)
    table: list[Any] = [
        (r".*\.qkv\..*", "@"),
        (r"^backbone\.mid_pos_embed", mid),
        (r"^backbone\.pos_embed", "vit.embeddings.position_embeddings"),
        (r"^backbone\.cls_token", "vit.embeddings.cls_token"),
        (r"^backbone\.det_token", "vit.embeddings.detection_tokens"),
        (r"^backbone\.patch_embed\.proj", "vit.embeddings.patch_embeddings.projection"),
        (r"^backbone\.norm", "vit.layernorm"),
        (r"^backbone\.blocks", "vit.encoder.layer"),
        (r"^class_embed", "class_labels_classifier"),
        (r"^bbox_embed", "bbox_predictor"),
        (r"\.attn\.proj", ".attention.output.dense"),
        (r"\.norm1", ".layernorm_before"),
        (r"\.norm2", ".layernorm_after"),
        (r"\.mlp\.fc1", ".intermediate.dense"),
        (r"\.mlp\.fc2", ".output.dense"),
    ]
    return to(source, target, table, groups=groups,
              truth="transformers' convert_yolos_to_pytorch.py; hustvl's models/backbone.py")  # fmt: skip


# ---------------------------------------------------------------------------------------------- classic


@pair("blind: data2vec's audio model in fairseq's names to Hugging Face: five convolutions of positions",
      "transformers")  # fmt: skip
def data2vec(small: bool) -> Two:
    """A norm is the second child of the third; final_proj has q's shape and stays behind."""
    import transformers

    target = transformers.Data2VecAudioModel(transformers.Data2VecAudioConfig())
    source, width = Net(), 768
    source.put("mask_emb", width)
    for i, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        source.put(f"feature_extractor.conv_layers.{i}.0.weight", 512, 512 if i else 1, kernel)
        source.norm(f"feature_extractor.conv_layers.{i}.2.1", 512)
    source.lin("post_extract_proj", width, 512)
    for i in range(5):
        source.put(f"encoder.pos_conv.{i}.0.weight", width, 48, 19)
        source.put(f"encoder.pos_conv.{i}.0.bias", width)
    for layer in range(12):
        at = f"encoder.layers.{layer}"
        source.lins(*(f"{at}.self_attn.{x}_proj" for x in ("k", "v", "q", "out")), out=width, into=width)
        source.norm(f"{at}.self_attn_layer_norm", width)
        source.lin(f"{at}.fc1", 4 * width, width)
        source.lin(f"{at}.fc2", width, 4 * width)
        source.norm(f"{at}.final_layer_norm", width)
    source.norm("encoder.layer_norm", width)
    source.norm("layer_norm", 512)
    source.lin("final_proj", width, width)
    table: list[Any] = [
        (r"^final_proj.*", ""),
        (r"^mask_emb", "masked_spec_embed"),
        (r"^layer_norm", "feature_projection.layer_norm"),
        (r"^post_extract_proj", "feature_projection.projection"),
        (r"^(feature_extractor\.conv_layers\.\d)\.0", r"\1.conv"),
        (r"^(feature_extractor\.conv_layers\.\d)\.2\.1", r"\1.layer_norm"),
        (r"^encoder\.pos_conv\.(\d)\.0", r"encoder.pos_conv_embed.layers.\1.conv"),
        (r"\.self_attn\.", ".attention."),
        (r"\.self_attn_layer_norm", ".layer_norm"),
        (r"\.fc1", ".feed_forward.intermediate_dense"),
        (r"\.fc2", ".feed_forward.output_dense"),
    ]
    return to(source, target, table,
              truth="transformers' convert_data2vec_audio_original_pytorch_checkpoint_to_pytorch.py")  # fmt: skip


@pair("blind: XLM-RoBERTa XL in fairseq's names to Hugging Face: norms in front, one inside of attention",
      "transformers")  # fmt: skip
def xlmr_xl(small: bool) -> Two:
    """self_attn_layer_norm keeps its name, final_layer_norm is the block's LayerNorm; the tied table stays behind."""
    import transformers

    width, depth = 2560, 36
    config = transformers.XLMRobertaXLConfig(num_hidden_layers=depth, hidden_size=width, intermediate_size=4 * width)
    model = transformers.XLMRobertaXLForMaskedLM(config)
    target = without(model, *(key for key in state(model) if key.startswith("lm_head.decoder")))
    source = Net()
    source.put("encoder.sentence_encoder.embed_tokens.weight", 250880, width)
    source.put("encoder.sentence_encoder.embed_positions.weight", 514, width)
    for layer in range(depth):
        at = f"encoder.sentence_encoder.layers.{layer}"
        source.lins(*(f"{at}.self_attn.{x}_proj" for x in ("k", "v", "q", "out")), out=width, into=width)
        source.norm(f"{at}.self_attn_layer_norm", width)
        source.lin(f"{at}.fc1", 4 * width, width)
        source.lin(f"{at}.fc2", width, 4 * width)
        source.norm(f"{at}.final_layer_norm", width)
    source.norm("encoder.sentence_encoder.layer_norm", width)
    source.put("encoder.lm_head.weight", 250880, width)
    source.put("encoder.lm_head.bias", 250880)
    source.lin("encoder.lm_head.dense", width, width)
    source.norm("encoder.lm_head.layer_norm", width)
    table: list[Any] = [
        (r"^encoder\.lm_head\.weight", ""),
        (r"^encoder\.lm_head", "lm_head"),
        (r"^encoder\.sentence_encoder\.embed_tokens", "roberta.embeddings.word_embeddings"),
        (r"^encoder\.sentence_encoder\.embed_positions", "roberta.embeddings.position_embeddings"),
        (r"^encoder\.sentence_encoder\.layer_norm", "roberta.encoder.LayerNorm"),
        (r"^encoder\.sentence_encoder\.layers", "roberta.encoder.layer"),
        (r"\.self_attn\.out_proj", ".attention.output.dense"),
        (r"\.self_attn\.q_proj", ".attention.self.query"),
        (r"\.self_attn\.k_proj", ".attention.self.key"),
        (r"\.self_attn\.v_proj", ".attention.self.value"),
        (r"\.self_attn_layer_norm", ".attention.self_attn_layer_norm"),
        (r"\.final_layer_norm", ".LayerNorm"),
        (r"\.fc1", ".intermediate.dense"),
        (r"\.fc2", ".output.dense"),
    ]
    return to(source, target, table, missing=["roberta.embeddings.token_type_embeddings.weight"],
              truth="transformers' convert_xlm_roberta_xl_original_pytorch_checkpoint_to_pytorch.py")  # fmt: skip


@pair("blind: TrOCR-base in UniLM's names to Hugging Face: a BEiT without biases of q, k, v reads, fairseq writes",
      "transformers")  # fmt: skip
def trocr(small: bool) -> Two:
    """k and v of cross attention take 768; a classifier's head and a version stay behind."""
    import transformers

    encoder = transformers.ViTModel(transformers.ViTConfig(image_size=384, qkv_bias=False), add_pooling_layer=False)
    decoder = transformers.TrOCRForCausalLM(transformers.TrOCRConfig(cross_attention_hidden_size=768))
    target = transformers.VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    source, groups, width = Net(), [], 1024
    source.put("encoder.deit.cls_token", 1, 1, 768)
    source.put("encoder.deit.pos_embed", 1, 577, 768)
    source.conv("encoder.deit.patch_embed.proj", 768, 3, 16)
    keys = list(state(target))
    query = next(key for key in keys if ".0." in key and re.search(r"^encoder.*(query|q_proj)\.weight", key))
    parts = ("query", "key", "value") if "query" in query else ("q_proj", "k_proj", "v_proj")
    for block in range(12):
        at = f"encoder.deit.blocks.{block}"
        source.norm(f"{at}.norm1", 768)
        source.lin(f"{at}.attn.qkv", 2304, 768, False)
        source.lin(f"{at}.attn.proj", 768, 768)
        source.norm(f"{at}.norm2", 768)
        source.lin(f"{at}.mlp.fc1", 3072, 768)
        source.lin(f"{at}.mlp.fc2", 768, 3072)
        there = query.replace(".0.", f".{block}.").removesuffix(f"{parts[0]}.weight")
        groups += split(f"{at}.attn.qkv", [there + part for part in parts], bias=False)
    source.norm("encoder.deit.norm", 768)
    source.lin("encoder.deit.head", 1000, 768)
    source.put("decoder.version", 1)
    source.put("decoder.embed_tokens.weight", 50265, width)
    source.put("decoder.embed_positions.weight", 514, width)
    source.norm("decoder.layernorm_embedding", width)
    for layer in range(12):
        at = f"decoder.layers.{layer}"
        source.lins(*(f"{at}.self_attn.{x}_proj" for x in ("k", "v", "q", "out")), out=width, into=width)
        source.norm(f"{at}.self_attn_layer_norm", width)
        source.lins(*(f"{at}.encoder_attn.{x}_proj" for x in "kv"), out=width, into=768)
        source.lins(*(f"{at}.encoder_attn.{x}_proj" for x in ("q", "out")), out=width, into=width)
        source.norm(f"{at}.encoder_attn_layer_norm", width)
        source.lin(f"{at}.fc1", 4 * width, width)
        source.lin(f"{at}.fc2", width, 4 * width)
        source.norm(f"{at}.final_layer_norm", width)
    source.put("decoder.output_projection.weight", 50265, width)
    layers = query.split(".0.")[0]
    is_new = "attention.attention" not in query
    table: list[Any] = [
        (r".*\.qkv\..*", "@"),
        (r"^encoder\.deit\.head.*", ""),
        (r"^decoder\.version", ""),
        (r"^encoder\.deit\.cls_token", "encoder.embeddings.cls_token"),
        (r"^encoder\.deit\.pos_embed", "encoder.embeddings.position_embeddings"),
        (r"^encoder\.deit\.patch_embed\.proj", "encoder.embeddings.patch_embeddings.projection"),
        (r"^encoder\.deit\.norm", "encoder.layernorm"),
        (r"^encoder\.deit\.blocks", layers),
        (r"\.attn\.proj", ".attention.o_proj" if is_new else ".attention.output.dense"),
        (r"\.norm1", ".layernorm_before"),
        (r"\.norm2", ".layernorm_after"),
        (r"\.mlp\.fc1", ".mlp.fc1" if is_new else ".intermediate.dense"),
        (r"\.mlp\.fc2", ".mlp.fc2" if is_new else ".output.dense"),
        (r"^decoder\.(?!output_projection)", "decoder.model.decoder."),
    ]
    return to(source, target, table, groups=groups,
              truth="transformers' convert_trocr_unilm_to_pytorch.py")  # fmt: skip


@pair("blind: Tensorpack's ImageNet-ResNet50.npz to torchvision: groups from 0, mean/EMA, convshortcut", "torchvision")
def tensorpack(small: bool) -> Two:
    """Listed by letters, so a shortcut stands behind the third convolution; kernels are turned."""
    import torchvision

    target = without(torchvision.models.resnet50(weights=None),
                     *(key for key in torchvision.models.resnet50(weights=None).state_dict() if "batches" in key)
                     )  # fmt: skip
    words = {"weight": "gamma", "bias": "beta", "running_mean": "mean/EMA", "running_var": "variance/EMA"}
    found, rules = {}, {}
    for key, tensor in target.items():
        module, tail = key.rsplit(".", 1)
        shape, layout = tuple(tensor.shape), ""
        at = re.sub(r"^layer(\d)\.(\d)\.", lambda m: f"group{int(m[1]) - 1}/block{m[2]}/", module)
        if module == "fc":
            name = "linear/W" if tail == "weight" else "linear/b"
        elif re.search(r"bn\d$|downsample\.1$", module):
            at = at.replace("downsample.1", "convshortcut")
            at = "conv0" if module == "bn1" else re.sub(r"bn(\d)$", r"conv\1", at)
            name = f"{at}/bn/{words[tail]}"
        else:
            name = ("conv0" if module == "conv1" else at.replace("downsample.0", "convshortcut")) + "/W"
        if len(shape) == 4:
            shape, layout = (shape[2], shape[3], shape[1], shape[0]), "h w i o -> o i h w"
        elif name == "linear/W":
            shape, layout = shape[::-1], "i o -> o i"
        found[name] = shape
        rules[name] = f"{name} -> {key}" + (f" | {layout}" if layout else "")
    source = Net()
    for name in sorted(found):
        source.put(name, *found[name])
    return Two(source, target, list(rules.values()),
               proof="names of tensorpack's examples/ResNet (resnet_model.py); the same network")  # fmt: skip


# ---------------------------------------------------------------------------------------------- one's own


def pyramid(net: Net, at: str, widths: list[int], out: int) -> None:
    """Lateral and smoothing convolutions of a neck."""
    for level, width in enumerate(widths):
        net.conv(f"{at}.lateral{level}", out, width, 1)
        net.conv(f"{at}.smooth{level}", out, out, 3)


@pair("blind, own: three of SegFormer-B0's four stages for cracks in five channels: k and v joined, gates, a decoder "
      "first", "transformers")  # fmt: skip
def segformer_own(small: bool) -> Two:
    """Stages and blocks are counted from 1; a gate of channels ends each block."""
    import transformers

    source = transformers.SegformerForImageClassification(transformers.SegformerConfig(num_labels=1000))
    target, groups = Net(), []
    widths, kernels, ratios = [32, 64, 160], [7, 3, 3], [8, 4, 2]
    pyramid(target, "decoder", widths, 96)
    target.conv("decoder.predict", 1, 96, 1)
    for stage, (width, kernel, ratio) in enumerate(zip(widths, kernels, ratios, strict=True)):
        at = f"backbone.stage{stage + 1}"
        target.conv(f"{at}.down.conv", width, widths[stage - 1] if stage else 5, kernel)
        target.norm(f"{at}.down.ln", width)
        for block in range(2):
            here = f"{at}.block{block + 1}"
            target.norm(f"{here}.ln1", width)
            target.lin(f"{here}.att.q", width, width)
            target.lin(f"{here}.att.kv", 2 * width, width)
            target.conv(f"{here}.att.shrink", width, width, ratio)
            target.norm(f"{here}.att.shrink_ln", width)
            target.lin(f"{here}.att.out", width, width)
            target.norm(f"{here}.ln2", width)
            target.lin(f"{here}.ffn.up", 4 * width, width)
            target.conv(f"{here}.ffn.dw", 4 * width, 1, 3)
            target.lin(f"{here}.ffn.down", width, 4 * width)
            target.lin(f"{here}.gate.squeeze", width // 8, width)
            target.lin(f"{here}.gate.excite", width, width // 8)
            there = f"segformer.stages.{stage}.blocks.{block}.attention"
            groups += [
                f"{there}.k_proj.weight, {there}.v_proj.weight -> {here}.att.kv.weight | a i, b i -> (a + b) i",
                f"{there}.k_proj.bias, {there}.v_proj.bias -> {here}.att.kv.bias | a, b -> (a + b)",
            ]
        target.norm(f"{at}.ln", width)
    table: list[Any] = [
        (r"^classifier.*", ""),
        (r"^segformer\.stages\.3\..*", ""),
        (r".*\.[kv]_proj\..*", "@"),
        (r"^segformer\.stages\.0\.patch_embeddings\.proj\.weight", ""),
        (r"^segformer\.stages\.(\d)\.", lambda m: f"backbone.stage{int(m[1]) + 1}."),
        (r"\.blocks\.(\d)\.", lambda m: f".block{int(m[1]) + 1}."),
        (r"\.patch_embeddings\.proj", ".down.conv"),
        (r"\.patch_embeddings\.layer_norm", ".down.ln"),
        (r"\.sequence_reduction\.sequence_reduction", ".shrink"),
        (r"\.sequence_reduction\.layer_norm", ".shrink_ln"),
        (r"\.attention\.", ".att."),
        (r"\.q_proj", ".q"),
        (r"\.o_proj", ".out"),
        (r"\.layernorm_before", ".ln1"),
        (r"\.layernorm_after", ".ln2"),
        (r"\.mlp\.fc1", ".ffn.up"),
        (r"\.mlp\.fc2", ".ffn.down"),
        (r"\.mlp\.dwconv\.dwconv", ".ffn.dw"),
        (r"\.layer_norm", ".ln"),
    ]
    return to(source, target, table, groups=groups,
              missing=["decoder.*", "*.gate.*", "backbone.stage1.down.conv.weight"],
              truth="by construction: a copy of the encoder with the parts named above")  # fmt: skip


@pair("blind, own: MobileNetV3-Small for words in spectrograms: one channel, gates of Linears, ten of eleven blocks, "
      "a GRU", "torchvision")  # fmt: skip
def mobilenet_own(small: bool) -> Two:
    """Parts are called expand, depthwise, gate and project; the head's convolution is gone with the last block."""
    import torchvision

    source = torchvision.models.mobilenet_v3_small(weights=None)
    target = Net()
    target.conv("net.stem.conv", 16, 1, 3, bias=False)
    target.bn("net.stem.norm", 16)
    found = state(source)
    names: dict[str, str] = {}
    for block in range(1, 11):
        parts = sorted({key.split(".")[3] for key in found if key.startswith(f"features.{block}.block.")}, key=int)
        kinds = []
        for part in parts:
            weight = found.get(f"features.{block}.block.{part}.0.weight")
            if weight is None:
                kinds.append("gate")
            elif weight.shape[1] == 1 and weight.shape[2] > 1:
                kinds.append("depthwise")
            else:
                kinds.append("expand" if "depthwise" not in kinds else "project")
        for part, kind in zip(parts, kinds, strict=True):
            here, there = f"features.{block}.block.{part}", f"net.unit{block:02d}.{kind}"
            for key, tensor in found.items():
                if not key.startswith(f"{here}."):
                    continue
                name = re.sub(r"\.fc1\.", ".reduce.", key.replace(here, there))
                name = name.replace(".fc2.", ".restore.")
                if kind != "gate":
                    name = name.replace(f"{there}.0.", f"{there}.conv.").replace(f"{there}.1.", f"{there}.norm.")
                names[key] = name
                shape = tuple(tensor.shape)
                if kind == "gate" and len(shape) == 4:
                    shape = shape[:2]
                (target.ints if key.endswith("tracked") else target.put)(name, *shape)
    for tail in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        for end in ("", "_reverse"):
            shape = (384, 96 if "ih" in tail else 128) if "weight" in tail else (384,)
            target.put(f"rnn.{tail}{end}", *shape)
    target.lin("attend.score", 1, 256)
    target.lin("words", 35, 256)
    rules = []
    for key in found:
        stem = re.sub(r"^features\.0\.0\.", "net.stem.conv.", re.sub(r"^features\.0\.1\.", "net.stem.norm.", key))
        name = names.get(key, stem if stem != key and key != "features.0.0.weight" else "")
        layout = " | o i 1 1 -> o i" if re.search(r"gate\.(reduce|restore)\.weight", name) else ""
        rules.append(f"{key} -> {name or '!'}{layout}")
    return Two(source, target, rules, missing=["net.stem.conv.weight", "rnn.*", "attend.*", "words.*"],
               proof="by construction: torchvision's blocks, part by part")  # fmt: skip


@pair("blind, own: four of DeBERTa-v3-small's six layers for entities: spans listed first, adapters, a BiLSTM behind",
      "transformers")  # fmt: skip
def deberta_own(small: bool) -> Two:
    """The wrapper is DataParallel; heads come first; the masked language model's head stays behind."""
    import transformers

    width = 768
    source = transformers.DebertaV2ForMaskedLM(transformers.DebertaV2Config(
        vocab_size=128100, hidden_size=width, intermediate_size=3072, num_hidden_layers=6, num_attention_heads=12,
        relative_attention=True, position_buckets=256, norm_rel_ebd="layer_norm", share_att_key=True,
        pos_att_type=["p2c", "c2p"], max_relative_positions=-1, position_biased_input=False, type_vocab_size=0,
    ))  # fmt: skip
    target = Net()
    target.lin("module.span.start", 256, width)
    target.lin("module.span.end", 256, width)
    target.put("module.span.bilinear", 9, 257, 257)
    target.put("module.words.table.weight", 128100, width)
    target.norm("module.words.norm", width)
    target.put("module.rel.table.weight", 512, width)
    target.norm("module.rel.norm", width)
    for layer in range(4):
        at = f"module.layers.{layer}"
        target.lins(f"{at}.attn.q", f"{at}.attn.k", f"{at}.attn.v", f"{at}.attn.o", out=width, into=width)
        target.norm(f"{at}.attn_norm", width)
        target.lin(f"{at}.mlp.wi", 3072, width)
        target.lin(f"{at}.mlp.wo", width, 3072)
        target.lin(f"{at}.adapter.down", 64, width)
        target.lin(f"{at}.adapter.up", width, 64)
        target.norm(f"{at}.mlp_norm", width)
    for end in ("", "_reverse"):
        target.put(f"module.lstm.weight_ih_l0{end}", 1536, width)
        target.put(f"module.lstm.weight_hh_l0{end}", 1536, 384)
        target.put(f"module.lstm.bias_ih_l0{end}", 1536)
        target.put(f"module.lstm.bias_hh_l0{end}", 1536)
    table: list[Any] = [
        (r"^(cls|lm_predictions)\..*", ""),
        (r"^deberta\.encoder\.layer\.[45]\..*", ""),
        (r"^deberta\.embeddings\.word_embeddings", "module.words.table"),
        (r"^deberta\.embeddings\.LayerNorm", "module.words.norm"),
        (r"^deberta\.encoder\.rel_embeddings", "module.rel.table"),
        (r"^deberta\.encoder\.LayerNorm", "module.rel.norm"),
        (r"^deberta\.encoder\.layer", "module.layers"),
        (r"\.attention\.self\.([qkv])\w+_proj", r".attn.\1"),
        (r"\.attention\.output\.dense", ".attn.o"),
        (r"\.attention\.output\.LayerNorm", ".attn_norm"),
        (r"\.intermediate\.dense", ".mlp.wi"),
        (r"\.output\.dense", ".mlp.wo"),
        (r"\.output\.LayerNorm", ".mlp_norm"),
    ]
    return to(source, target, table, missing=["module.span.*", "*.adapter.*", "module.lstm.*"],
              truth="by construction: the first four layers and both tables")  # fmt: skip


@pair("blind, own: ResNet-18 for stereo: group norms, two images at once, no last stage, a context branch of other "
      "widths", "torchvision")  # fmt: skip
def stereo_own(small: bool) -> Two:
    """A group norm has a batch norm's weight and bias, no statistics: may be taken, need not."""
    import torchvision

    source = torchvision.models.resnet18(weights=None)
    target = Net()

    def branch(at: str, widths: list[int], channels: int) -> None:
        target.conv(f"{at}.stem.conv", widths[0], channels, 7, bias=False)
        target.norm(f"{at}.stem.gn", widths[0])
        into = widths[0]
        for stage, width in enumerate(widths):
            for unit in range(2):
                here = f"{at}.res{stage + 2}.{'ab'[unit]}"
                if unit == 0 and stage:
                    target.conv(f"{here}.skip.conv", width, into, 1, bias=False)
                    target.norm(f"{here}.skip.gn", width)
                target.conv(f"{here}.conv1", width, into, 3, bias=False)
                target.norm(f"{here}.gn1", width)
                target.conv(f"{here}.conv2", width, width, 3, bias=False)
                target.norm(f"{here}.gn2", width)
                into = width

    branch("context", [48, 96, 192], 3)
    branch("feature", [64, 128, 256], 6)
    target.conv("feature.out", 128, 256, 1)
    target.conv("update.conv_z", 128, 384, 3)
    target.conv("update.conv_r", 128, 384, 3)
    target.conv("update.conv_q", 128, 384, 3)
    target.conv("disparity.0", 64, 128, 3)
    target.conv("disparity.2", 1, 64, 3)
    table: list[Any] = [
        (r"^(fc|layer4)\..*", ""),
        (r".*(running_|num_batches).*", ""),
        (r"^conv1\.weight", ""),
        (r"^bn1", "feature.stem.gn"),
        (r"^layer(\d)\.(\d)\.", lambda m: f"feature.res{int(m[1]) + 1}.{'ab'[int(m[2])]}."),
        (r"\.bn(\d)", r".gn\1"),
        (r"\.downsample\.0", ".skip.conv"),
        (r"\.downsample\.1", ".skip.gn"),
    ]
    return to(source, target, table, undecided=["feature.*gn*"],
              missing=["context.*", "feature.stem.conv.weight", "feature.out.*", "update.*", "disparity.*"],
              truth="by construction: layers 1 to 3 with their skips in front")  # fmt: skip


@pair("blind, own: ten of CLIP's twelve blocks for search: qkv joined, adapters, deep prompts, under a wrapper",
      "transformers")  # fmt: skip
def clip_own(small: bool) -> Two:
    """Prompts of each block are one parameter; the projection of the whole model is another's."""
    import transformers

    source = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig())
    prefix = next(key for key in state(source) if key.endswith("class_embedding")).split("embeddings.")[0]
    target, groups, width = Net(), [], 768
    target.put("model.image.cls", width)
    target.put("model.image.pos", 50, width)
    target.conv("model.image.patch", width, 3, 32, bias=False)
    target.norm("model.image.norm_in", width)
    for block in range(10):
        at = f"model.image.blocks.{block}"
        target.put(f"{at}.prompt", 8, width)
        target.norm(f"{at}.norm1", width)
        target.lin(f"{at}.attn.qkv", 3 * width, width)
        target.lin(f"{at}.attn.proj", width, width)
        target.lin(f"{at}.adapter1.down", 96, width)
        target.lin(f"{at}.adapter1.up", width, 96)
        target.norm(f"{at}.norm2", width)
        target.lin(f"{at}.mlp.fc1", 4 * width, width)
        target.lin(f"{at}.mlp.fc2", width, 4 * width)
        target.lin(f"{at}.adapter2.down", 96, width)
        target.lin(f"{at}.adapter2.up", width, 96)
        names = [f"{prefix}encoder.layers.{block}.self_attn.{x}_proj" for x in "qkv"]
        groups += [
            f"{', '.join(f'{name}.weight' for name in names)} -> {at}.attn.qkv.weight | a i, b i, c i -> (a + b + c) i",
            f"{', '.join(f'{name}.bias' for name in names)} -> {at}.attn.qkv.bias | a, b, c -> (a + b + c)",
        ]
    target.norm("model.image.norm_out", width)
    target.lin("model.hash", 256, width)
    target.put("loss.centers", 1000, 256)
    top = re.escape(prefix)
    table: list[Any] = [
        (r"^visual_projection.*", ""),
        (rf"^{top}encoder\.layers\.1[01]\..*", ""),
        (r".*\.[qkv]_proj\..*", "@"),
        (rf"^{top}embeddings\.class_embedding", "model.image.cls"),
        (rf"^{top}embeddings\.position_embedding\.weight", "model.image.pos"),
        (rf"^{top}embeddings\.patch_embedding", "model.image.patch"),
        (rf"^{top}pre_layrnorm", "model.image.norm_in"),
        (rf"^{top}post_layernorm", "model.image.norm_out"),
        (rf"^{top}encoder\.layers", "model.image.blocks"),
        (r"\.self_attn\.out_proj", ".attn.proj"),
        (r"\.layer_norm", ".norm"),
    ]
    return to(source, target, table, groups=groups,
              missing=["*.prompt", "*.adapter*", "model.hash.*", "loss.centers"],
              truth="by construction: the vision tower's first ten blocks")  # fmt: skip


@pair("blind, own: twenty of Qwen3-0.6B's layers as an embedder: LoRA beside q and v, latents that attend, no head",
      "transformers")  # fmt: skip
def qwen_own(small: bool) -> Two:
    """Norms stand in front of what they norm; up comes behind down."""
    import transformers

    width, inner = 1024, 3072
    source = without(transformers.Qwen3ForCausalLM(transformers.Qwen3Config(
        vocab_size=151936, hidden_size=width, intermediate_size=inner, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128)), "lm_head.weight")  # fmt: skip
    target = Net()
    target.put("tok.weight", 151936, width)
    for layer in range(20):
        at = f"layers.{layer}"
        target.put(f"{at}.norm_attn.weight", width)
        target.put(f"{at}.attn.q.base.weight", 2048, width)
        target.put(f"{at}.attn.q.lora_a", 16, width)
        target.put(f"{at}.attn.q.lora_b", 2048, 16)
        target.put(f"{at}.attn.k.weight", 1024, width)
        target.put(f"{at}.attn.v.base.weight", 1024, width)
        target.put(f"{at}.attn.v.lora_a", 16, width)
        target.put(f"{at}.attn.v.lora_b", 1024, 16)
        target.put(f"{at}.attn.q_norm.weight", 128)
        target.put(f"{at}.attn.k_norm.weight", 128)
        target.put(f"{at}.attn.o.weight", width, 2048)
        target.put(f"{at}.norm_mlp.weight", width)
        target.put(f"{at}.mlp.gate.weight", inner, width)
        target.put(f"{at}.mlp.down.weight", width, inner)
        target.put(f"{at}.mlp.up.weight", inner, width)
    target.put("norm.weight", width)
    target.put("pool.latents", 64, width)
    target.mha("pool.attn", width)
    target.lin("pool.mlp.0", 512, width)
    target.lin("pool.mlp.2", 256, 512)
    table: list[Any] = [
        (r"^model\.layers\.2\d\..*", ""),
        (r"^model\.embed_tokens", "tok"),
        (r"^model\.", ""),
        (r"\.input_layernorm", ".norm_attn"),
        (r"\.post_attention_layernorm", ".norm_mlp"),
        (r"\.self_attn\.([qv])_proj", r".attn.\1.base"),
        (r"\.self_attn\.([ko])_proj", r".attn.\1"),
        (r"\.self_attn\.", ".attn."),
        (r"\.mlp\.(gate|up|down)_proj", r".mlp.\1"),
    ]
    return to(source, target, table, missing=["*.lora_*", "pool.*"],
              truth="by construction: the first twenty layers, kind by kind")  # fmt: skip


@pair("blind, own: SAM's ViT-B for ultrasound: one channel, adapters in every block, images of 512, a U-shaped decoder",
      "transformers")  # fmt: skip
def sam_own(small: bool) -> Two:
    """Global blocks have shorter tables now, windows the same; prompts and masks are not wanted."""
    import transformers

    source = transformers.SamModel(transformers.SamConfig())
    target, width = Net(), 768
    target.put("encoder.pos_embed", 1, 32, 32, width)
    target.conv("encoder.patch_embed", width, 1, 16)
    for block in range(12):
        at, is_global = f"encoder.blocks.{block}", block in (2, 5, 8, 11)
        target.norm(f"{at}.norm1", width)
        target.lin(f"{at}.attn.qkv", 3 * width, width)
        target.lin(f"{at}.attn.proj", width, width)
        target.put(f"{at}.attn.rel_h", 63 if is_global else 27, 64)
        target.put(f"{at}.attn.rel_w", 63 if is_global else 27, 64)
        target.lin(f"{at}.space_adapter.fc1", 192, width)
        target.lin(f"{at}.space_adapter.fc2", width, 192)
        target.norm(f"{at}.norm2", width)
        target.lin(f"{at}.mlp.fc1", 4 * width, width)
        target.lin(f"{at}.mlp.fc2", width, 4 * width)
        target.lin(f"{at}.mlp_adapter.fc1", 192, width)
        target.lin(f"{at}.mlp_adapter.fc2", width, 192)
    target.conv("encoder.neck.0", 256, width, 1, bias=False)
    target.norm("encoder.neck.1", 256)
    target.conv("encoder.neck.2", 256, 256, 3, bias=False)
    target.norm("encoder.neck.3", 256)
    for level, (into, out) in enumerate(((256, 128), (128, 64), (64, 32))):
        target.put(f"decoder.up{level}.deconv.weight", into, out, 2, 2)
        target.put(f"decoder.up{level}.deconv.bias", out)
        target.conv(f"decoder.up{level}.conv", out, out, 3, bias=False)
        target.bn(f"decoder.up{level}.norm", out)
    target.conv("decoder.mask", 3, 32, 1)
    table: list[Any] = [
        (r"^(shared_image_embedding|prompt_encoder|mask_decoder)\..*", ""),
        (r"^vision_encoder\.(pos_embed|patch_embed\.projection\.weight)$", ""),
        (r"^vision_encoder\.layers\.(2|5|8|11)\.attn\.rel_pos_[hw]", ""),
        (r"^vision_encoder\.patch_embed\.projection", "encoder.patch_embed"),
        (r"^vision_encoder\.neck\.conv1", "encoder.neck.0"),
        (r"^vision_encoder\.neck\.layer_norm1", "encoder.neck.1"),
        (r"^vision_encoder\.neck\.conv2", "encoder.neck.2"),
        (r"^vision_encoder\.neck\.layer_norm2", "encoder.neck.3"),
        (r"^vision_encoder\.layers", "encoder.blocks"),
        (r"\.layer_norm", ".norm"),
        (r"\.rel_pos_", ".rel_"),
        (r"\.lin(\d)", r".fc\1"),
    ]
    missing = ["decoder.*", "*_adapter.*", "encoder.pos_embed", "encoder.patch_embed.weight"]
    missing += [f"encoder.blocks.{block}.attn.rel_{x}" for block in (2, 5, 8, 11) for x in "hw"]
    return to(source, target, table, missing=missing,
              truth="by construction: SAM's image encoder, its neck by numbers as in Meta's code")  # fmt: skip


# ---------------------------------------------------------------------------------------------- one's own words


@pair("blind, renamed: EfficientNet-B0 in Italian: fusto, stadio, espansione, profondita, attenzione, uscita",
      "torchvision")  # fmt: skip
def efficientnet_italian(small: bool) -> Two:
    """Stages are counted from 1, blocks too; statistics are media and varianza."""
    import torchvision

    target = torchvision.models.efficientnet_b0(weights=None)
    found = state(target)

    def part(match: re.Match[str]) -> str:
        stage, block, number = match[1], int(match[2]), int(match[3])
        kinds = ["espansione", "profondita", "attenzione", "proiezione"][stage == "1" :]
        return f"stadio{stage}.blocco{block + 1}.{kinds[number]}."

    table: list[Any] = [
        (r"^features\.0\.", "fusto."),
        (r"^features\.8\.", "uscita."),
        (r"^features\.(\d)\.(\d)\.block\.(\d)\.", part),
        (r"^classifier\.1", "classificatore"),
        (r"attenzione\.fc1", "attenzione.riduci"),
        (r"attenzione\.fc2", "attenzione.espandi"),
        (r"\.0\.(?=\w+$)", ".convoluzione."),
        (r"\.1\.(?=\w+$)", ".norma."),
        (r"running_mean$", "media"),
        (r"running_var$", "varianza"),
        (r"num_batches_tracked$", "passi"),
        (r"weight$", "peso"),
        (r"bias$", "scarto"),
    ]
    return reworded(found, table, "torchvision's own model, key by key")


@pair("blind, renamed: SmolLM-135M in symbols: L07.W_Q, L07.W_K, L07.g1, L07.F_gate",
      "transformers")  # fmt: skip
def smollm_symbols(small: bool) -> Two:
    """The table is E, the final norm is g_out and comes in front of the layers."""
    import transformers

    target = without(transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3)), "lm_head.weight")  # fmt: skip
    table: list[Any] = [
        (r"^model\.embed_tokens\.weight", "E"),
        (r"^model\.norm\.weight", "g_out"),
        (r"^model\.layers\.(\d+)\.", lambda m: f"L{int(m[1]):02d}."),
        (r"self_attn\.([qkvo])_proj\.weight", lambda m: f"W_{m[1].upper()}"),
        (r"mlp\.(gate|up|down)_proj\.weight", r"F_\1"),
        (r"input_layernorm\.weight", "g1"),
        (r"post_attention_layernorm\.weight", "g2"),
    ]
    return reworded(target, table, "transformers' own model, key by key", lambda key: "layers" in key)


# ---------------------------------------------------------------------------------------------- parts and strangers


@pair("blind, unrelated: Marian's translator and CLIP's text tower, 512 wide with 2048 inside", "transformers")
def marian_clip(small: bool) -> Two:
    """Blocks of one shape, norms behind in one and in front in the other; different tasks, nothing shared."""
    import transformers

    source = without(transformers.MarianMTModel(transformers.MarianConfig(
        vocab_size=58101, d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048, max_position_embeddings=512,
    )), "lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")  # fmt: skip
    target = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig())
    return none(source, target, "two models trained apart on different tasks: an encoder and decoder, a text tower")


@pair("blind, part: a gaze tracker with a net for each eye into one with a net for both: no header tells which",
      "torchvision")  # fmt: skip
def gaze(small: bool) -> Two:
    """Three ResNet-18s of one shape; the face is named, an eye of two fits as well as the other."""
    import torchvision

    body = {key: tensor for key, tensor in state(torchvision.models.resnet18(weights=None)).items()
            if not key.startswith("fc.")}  # fmt: skip
    source, target = Net(), Net()
    for name in ("face_net", "left_eye_net", "right_eye_net"):
        source.update({f"{name}.{key}": tensor for key, tensor in body.items()})
    source.lin("head.0", 256, 1536)
    source.lin("head.2", 2, 256)
    for name in ("encoders.eyes", "encoders.face"):
        target.update({f"{name}.{key}": tensor for key, tensor in body.items()})
    target.lin("fusion.eyes", 128, 1024)
    target.lin("fusion.face", 128, 512)
    target.lin("gaze.mean", 3, 256)
    target.lin("gaze.variance", 1, 256)
    table: list[Any] = [
        (r"^(head|right_eye_net)\..*", ""),
        (r"^face_net", "encoders.face"),
        (r"^left_eye_net", "encoders.eyes"),
    ]
    return to(source, target, table, undecided=["encoders.eyes.*"], missing=["fusion.*", "gaze.*"],
              truth="by construction; both eyes' nets are of one shape and one role")  # fmt: skip


@pair("blind, part: timm's ViT-B into MONAI's UNETR: blocks alone, q, k, v without biases, patches of volumes", "timm")
def unetr(small: bool) -> Two:
    """Positions and patches are those of a volume; the convolutions are new."""
    import timm

    source = timm.create_model("vit_base_patch16_224", pretrained=False)
    target, width, size = Net(), 768, 16
    target.put("vit.patch_embedding.position_embeddings", 1, 216, width)
    target.put("vit.patch_embedding.patch_embeddings.weight", width, 1, 16, 16, 16)
    target.put("vit.patch_embedding.patch_embeddings.bias", width)
    for block in range(12):
        at = f"vit.blocks.{block}"
        target.lin(f"{at}.mlp.linear1", 4 * width, width)
        target.lin(f"{at}.mlp.linear2", width, 4 * width)
        target.norm(f"{at}.norm1", width)
        target.lin(f"{at}.attn.out_proj", width, width)
        target.lin(f"{at}.attn.qkv", 3 * width, width, False)
        target.norm(f"{at}.norm2", width)
    target.norm("vit.norm", width)

    def residual(at: str, out: int, into: int) -> None:
        target.conv(f"{at}.conv1.conv", out, into, 3, 3, 3, bias=False)
        target.conv(f"{at}.conv2.conv", out, out, 3, 3, 3, bias=False)
        if out != into:
            target.conv(f"{at}.conv3.conv", out, into, 1, 1, 1, bias=False)

    residual("encoder1.layer", size, 1)
    for number, depth in ((2, 2), (3, 1), (4, 0)):
        out = size * 2 ** (number - 1)
        target.conv(f"encoder{number}.transp_conv_init.conv", width, out, 2, 2, 2, bias=False)
        for i in range(depth):
            target.conv(f"encoder{number}.blocks.{i}.0.conv", out, out, 2, 2, 2, bias=False)
            residual(f"encoder{number}.blocks.{i}.1", out, out)
    for number, into, out in ((5, width, 128), (4, 128, 64), (3, 64, 32), (2, 32, 16)):
        target.conv(f"decoder{number}.transp_conv.conv", into, out, 2, 2, 2, bias=False)
        residual(f"decoder{number}.conv_block", out, 2 * out)
    target.conv("out.conv.conv", 14, size, 1, 1, 1)
    table: list[Any] = [
        (r"^(cls_token|pos_embed|patch_embed\.proj\.weight|head\..*)$", ""),
        (r".*\.qkv\.bias", ""),
        (r"^patch_embed\.proj", "vit.patch_embedding.patch_embeddings"),
        (r"^(blocks|norm)\.", r"vit.\1."),
        (r"\.attn\.proj", ".attn.out_proj"),
        (r"\.mlp\.fc(\d)", r".mlp.linear\1"),
    ]
    missing = ["vit.patch_embedding.position_embeddings", "vit.patch_embedding.patch_embeddings.weight",
               "encoder*", "decoder*", "out.*"]  # fmt: skip
    return to(source, target, table, missing=missing, undecided=["vit.patch_embedding.patch_embeddings.bias"],
              truth="the code of both: MONAI's SABlock takes q, k, v from qkv as timm's Attention does")  # fmt: skip
