"""Blind pairs: vision, geometry, medicine and molecules of 2023 to 2025, and models of one's own made of them."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.match.blind import Net, Two, join, pair, split, state, to


def dino_block(net: Net, at: str, width: int, *, qk_norm: bool = False, is_masked: bool = False) -> None:
    """A block of DINOv2's and DINOv3's code; VGGT's has norms of q and k, DINOv3's a mask of the bias."""
    net.norm(f"{at}.norm1", width)
    net.lin(f"{at}.attn.qkv", 3 * width, width)
    if is_masked:
        net.put(f"{at}.attn.qkv.bias_mask", 3 * width)
    if qk_norm:
        net.norm(f"{at}.attn.q_norm", 64)
        net.norm(f"{at}.attn.k_norm", 64)
    net.lin(f"{at}.attn.proj", width, width)
    net.put(f"{at}.ls1.gamma", width)
    net.norm(f"{at}.norm2", width)
    net.lin(f"{at}.mlp.fc1", 4 * width, width)
    net.lin(f"{at}.mlp.fc2", width, 4 * width)
    net.put(f"{at}.ls2.gamma", width)


def dpt_head(net: Net, at: str, into: int, widths: tuple[int, ...], width: int, *, is_vggt: int = 0) -> None:
    """DPT's head as Depth Anything and VGGT write it; VGGT's has a norm and no first unit in the last fusion."""
    if is_vggt:
        net.norm(f"{at}.norm", into)
    for level, out in enumerate(widths):
        net.conv(f"{at}.projects.{level}", out, into, 1)
    net.conv(f"{at}.resize_layers.0", widths[0], widths[0], 4)
    net.conv(f"{at}.resize_layers.1", widths[1], widths[1], 2)
    net.conv(f"{at}.resize_layers.3", widths[3], widths[3], 3)
    for level, out in enumerate(widths, 1):
        net.conv(f"{at}.scratch.layer{level}_rn", width, out, 3, bias=False)
    for level in range(1, 5):
        net.conv(f"{at}.scratch.refinenet{level}.out_conv", width, width, 1)
        for unit in (1, 2):
            if not (is_vggt and level == 4 and unit == 1):
                for conv in (1, 2):
                    net.conv(f"{at}.scratch.refinenet{level}.resConfUnit{unit}.conv{conv}", width, width, 3)
    net.conv(f"{at}.scratch.output_conv1", width // 2, width, 3)
    net.conv(f"{at}.scratch.output_conv2.0", 32, width // 2, 3)
    net.conv(f"{at}.scratch.output_conv2.2", is_vggt or 1, 32, 1)


@pair("blind: DINOv3 in Meta's names to Hugging Face: k's bias is masked and stays behind", "transformers")
def dinov3(small: bool) -> Two:
    """Three quarters of a fused bias are two biases; the list of layers moved into a model of its own."""
    import transformers

    width = 384
    config = transformers.DINOv3ViTConfig(hidden_size=width, num_attention_heads=6, num_hidden_layers=12,
                                          intermediate_size=4 * width, num_register_tokens=4)  # fmt: skip
    target = transformers.DINOv3ViTModel(config)
    source, groups = Net(), []
    source.put("cls_token", 1, 1, width)
    source.put("storage_tokens", 1, 4, width)
    source.put("mask_token", 1, width)
    source.conv("patch_embed.proj", width, 3, 16)
    source.put("rope_embed.periods", 16)
    for block in range(12):
        at = f"blocks.{block}"
        dino_block(source, at, width, is_masked=True)
        there = f"model.layer.{block}.attention"
        groups += split(f"{at}.attn.qkv", [f"{there}.{x}_proj" for x in "qkv"], bias=False)
        groups.append(f"{at}.attn.qkv.bias -> {there}.q_proj.bias, {there}.v_proj.bias | (a + _ + b) -> a, b")
    source.norm("norm", width)
    table: list[Any] = [
        (r"^(rope_embed.*|.*bias_mask)$", ""),
        (r".*qkv.*", "@"),
        (r"^(cls_token|mask_token)$", r"embeddings.\1"),
        (r"^storage_tokens$", "embeddings.register_tokens"),
        (r"^patch_embed\.proj", "embeddings.patch_embeddings"),
        (r"^blocks\.", "model.layer."),
        (r"\.attn\.proj", ".attention.o_proj"),
        (r"\.ls(\d)\.gamma", r".layer_scale\1.lambda1"),
        (r"\.fc1", ".up_proj"),
        (r"\.fc2", ".down_proj"),
    ]
    return to(source, target, table, [("mask_token", "1 c -> 1 1 c")], groups, vars={"a": width, "b": width},
              truth="dinov3's vision_transformer.py and transformers' convert_dinov3_vit_to_hf.py")  # fmt: skip


@pair("blind: Depth Anything V2 in its authors' names to Hugging Face: DPT without readouts", "transformers")
def depth_anything(small: bool) -> Two:
    """refinenet4 is the fusion's layer 0; resize_layers.2 is none."""
    import transformers

    width, widths = 384, (48, 96, 192, 384)
    backbone = transformers.Dinov2Config(
        hidden_size=width, num_attention_heads=6, num_hidden_layers=12, image_size=518, patch_size=14,
        out_indices=[3, 6, 9, 12], apply_layernorm=True, reshape_hidden_states=False)  # fmt: skip
    target = transformers.DepthAnythingForDepthEstimation(transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=width, fusion_hidden_size=64, neck_hidden_sizes=list(widths),
        patch_size=14))  # fmt: skip
    source, groups = Net(), []
    source.put("pretrained.cls_token", 1, 1, width)
    source.put("pretrained.pos_embed", 1, 1370, width)
    source.put("pretrained.mask_token", 1, width)
    source.conv("pretrained.patch_embed.proj", width, 3, 14)
    for block in range(12):
        dino_block(source, f"pretrained.blocks.{block}", width)
        groups += split(f"pretrained.blocks.{block}.attn.qkv",
                        [f"backbone.encoder.layer.{block}.attention.{x}_proj" for x in "qkv"])  # fmt: skip
    source.norm("pretrained.norm", width)
    dpt_head(source, "depth_head", width, widths, 64)
    table: list[Any] = [
        (r".*qkv.*", "@"),
        (r"^pretrained\.(cls_token|mask_token)", r"backbone.embeddings.\1"),
        (r"^pretrained\.pos_embed", "backbone.embeddings.position_embeddings"),
        (r"^pretrained\.patch_embed\.proj", "backbone.embeddings.patch_embeddings.projection"),
        (r"^pretrained\.norm", "backbone.layernorm"),
        (r"^pretrained\.blocks\.", "backbone.encoder.layer."),
        (r"\.attn\.proj", ".attention.o_proj"),
        (r"\.ls(\d)\.gamma", r".layer_scale\1.lambda1"),
        (r"^depth_head\.projects\.(\d)", r"neck.reassemble_stage.layers.\1.projection"),
        (r"^depth_head\.resize_layers\.(\d)", r"neck.reassemble_stage.layers.\1.resize"),
        (r"^depth_head\.scratch\.layer(\d)_rn", lambda m: f"neck.convs.{int(m[1]) - 1}"),
        (r"^depth_head\.scratch\.refinenet(\d)", lambda m: f"neck.fusion_stage.layers.{4 - int(m[1])}"),
        (r"\.resConfUnit(\d)\.conv(\d)", r".residual_layer\1.convolution\2"),
        (r"\.out_conv", ".projection"),
        (r"^depth_head\.scratch\.output_conv1", "head.conv1"),
        (r"^depth_head\.scratch\.output_conv2\.0", "head.conv2"),
        (r"^depth_head\.scratch\.output_conv2\.2", "head.conv3"),
    ]
    return to(source, target, table, groups=groups, truth="transformers' convert_depth_anything_to_hf.py")


def rt_detr_config() -> Any:
    """RT-DETR with a ResNet-50."""
    import transformers

    return transformers.RTDetrConfig(num_labels=80)


@pair("blind: RT-DETR by lyuwenyu to Hugging Face: the decoder in front of the encoder, projections by name",
      "transformers")  # fmt: skip
def rt_detr(small: bool) -> Two:
    """A ResNet-vd, one encoder's layer, a pyramid and a decoder; its norms are frozen, the pyramid's are not."""
    import transformers

    target = transformers.RTDetrForObjectDetection(rt_detr_config())
    source, groups = Net(), []

    def cell(name: str, out: int, into: int, kernel: int, counter: bool = True) -> None:
        source.conv(f"{name}.conv", out, into, kernel, bias=False)
        source.bn(f"{name}.norm", out, counter)

    for at, (out, into) in enumerate(((32, 3), (32, 32), (64, 32)), 1):
        cell(f"backbone.conv1.conv1_{at}", out, into, 3, False)
    into = 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for block in range(depth):
            at = f"backbone.res_layers.{stage}.blocks.{block}"
            cell(f"{at}.branch2a", width, into, 1, False)
            cell(f"{at}.branch2b", width, width, 3, False)
            cell(f"{at}.branch2c", 4 * width, width, 1, False)
            if not block:
                cell(f"{at}.short.conv" if stage else f"{at}.short", 4 * width, into, 1, False)
            into = 4 * width
    for level in range(3):
        cell(f"decoder.input_proj.{level}", 256, 256, 1)
    for layer in range(6):
        at = f"decoder.decoder.layers.{layer}"
        source.mha(f"{at}.self_attn", 256)
        source.norm(f"{at}.norm1", 256)
        source.lin(f"{at}.cross_attn.sampling_offsets", 192, 256)
        source.lin(f"{at}.cross_attn.attention_weights", 96, 256)
        source.lins(f"{at}.cross_attn.value_proj", f"{at}.cross_attn.output_proj", out=256, into=256)
        source.norm(f"{at}.norm2", 256)
        source.lin(f"{at}.linear1", 1024, 256)
        source.lin(f"{at}.linear2", 256, 1024)
        source.norm(f"{at}.norm3", 256)
        groups += heads(f"{at}.self_attn", f"model.decoder.layers.{layer}.self_attn")
    source.put("decoder.denoising_class_embed.weight", 81, 256)
    source.lin("decoder.query_pos_head.layers.0", 512, 4)
    source.lin("decoder.query_pos_head.layers.1", 256, 512)
    source.lin("decoder.enc_output.0", 256, 256)
    source.norm("decoder.enc_output.1", 256)
    source.lin("decoder.enc_score_head", 80, 256)
    perceptron(source, "decoder.enc_bbox_head")
    for layer in range(6):
        source.lin(f"decoder.dec_score_head.{layer}", 80, 256)
    for layer in range(6):
        perceptron(source, f"decoder.dec_bbox_head.{layer}")
    for level, into in enumerate((512, 1024, 2048)):
        source.conv(f"encoder.input_proj.{level}.0", 256, into, 1, bias=False)
        source.bn(f"encoder.input_proj.{level}.1", 256)
    at = "encoder.encoder.0.layers.0"
    source.mha(f"{at}.self_attn", 256)
    source.lin(f"{at}.linear1", 1024, 256)
    source.lin(f"{at}.linear2", 256, 1024)
    source.lns(f"{at}.norm1", f"{at}.norm2", size=256)
    groups += heads(f"{at}.self_attn", "model.encoder.aifi.0.layers.0.self_attn")
    for one, many in (("lateral_convs", "fpn_blocks"), ("downsample_convs", "pan_blocks")):
        for level in range(2):
            cell(f"encoder.{one}.{level}", 256, 256, 1 if one == "lateral_convs" else 3)
        for level in range(2):
            at = f"encoder.{many}.{level}"
            cell(f"{at}.conv1", 256, 512, 1)
            cell(f"{at}.conv2", 256, 512, 1)
            for unit in range(3):
                cell(f"{at}.bottlenecks.{unit}.conv1", 256, 256, 3)
                cell(f"{at}.bottlenecks.{unit}.conv2", 256, 256, 1)
    letters = "abc"
    table: list[Any] = [
        (r".*\.in_proj.*", "@"),
        (r"^backbone\.conv1\.conv1_(\d)", lambda m: f"model.backbone.model.embedder.embedder.{int(m[1]) - 1}"),
        (r"^backbone\.res_layers\.(\d)\.blocks\.(\d)", r"model.backbone.model.encoder.stages.\1.layers.\2"),
        (r"\.branch2([abc])\.", lambda m: f".layer.{letters.index(m[1])}."),
        (r"\.short\.conv\.(conv|norm)\.", r".shortcut.1.\1."),
        (r"\.short\.", ".shortcut."),
        (r"^(model\.backbone.*)\.conv\.weight$", r"\1.convolution.weight"),
        (r"^(model\.backbone.*)\.norm\.", r"\1.normalization."),
        (r"^encoder\.input_proj\.", "model.encoder_input_proj."),
        (r"^decoder\.input_proj\.(\d)\.conv", r"model.decoder_input_proj.\1.0"),
        (r"^decoder\.input_proj\.(\d)\.norm", r"model.decoder_input_proj.\1.1"),
        (r"^encoder\.encoder\.", "model.encoder.aifi."),
        (r"^encoder\.", "model.encoder."),
        (r"^decoder\.decoder\.layers\.(.*)\.norm2", r"model.decoder.layers.\1.encoder_attn_layer_norm"),
        (r"^decoder\.decoder\.", "model.decoder."),
        (r"^decoder\.dec_score_head", "model.decoder.class_embed"),
        (r"^decoder\.dec_bbox_head", "model.decoder.bbox_embed"),
        (r"^decoder\.query_pos", "model.decoder.query_pos"),
        (r"^decoder\.", "model."),
        (r"\.norm1\.", ".self_attn_layer_norm."),
        (r"\.norm[23]\.", ".final_layer_norm."),
        (r"\.linear(\d)\.", r".mlp.fc\1."),
        (r"\.cross_attn\.", ".encoder_attn."),
        (r"self_attn\.out_proj", "self_attn.o_proj"),
    ]
    return to(source, target, table, groups=groups,
              truth="transformers' convert_rt_detr_original_pytorch_checkpoint_to_hf.py")  # fmt: skip


def heads(name: str, there: str) -> list[str]:
    """torch's MultiheadAttention to q_proj, k_proj and v_proj."""
    parts = [f"{there}.{x}_proj" for x in "qkv"]
    return split(name, parts, weight=".in_proj_weight", offset=".in_proj_bias")


def perceptron(net: Net, name: str) -> None:
    """A detector's box head."""
    for layer, out in enumerate((256, 256, 4)):
        net.lin(f"{name}.layers.{layer}", out, 256)


@pair("blind, part: VGGT's patch embedding into Hugging Face's DINOv2: two more towers of its shapes", "transformers")
def vggt(small: bool) -> Two:
    """frame_blocks and global_blocks were initialized as DINOv2's and have its widths; only patch_embed is one."""
    import transformers

    width = 1024
    target = transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(
        hidden_size=width, num_attention_heads=16, num_hidden_layers=24, image_size=518, patch_size=14))  # fmt: skip
    source, groups = Net(), []
    source.put("aggregator.camera_token", 1, 2, 1, width)
    source.put("aggregator.register_token", 1, 2, 4, width)
    source.put("aggregator.patch_embed.cls_token", 1, 1, width)
    source.put("aggregator.patch_embed.pos_embed", 1, 1370, width)
    source.put("aggregator.patch_embed.register_tokens", 1, 4, width)
    source.put("aggregator.patch_embed.mask_token", 1, width)
    source.conv("aggregator.patch_embed.patch_embed.proj", width, 3, 14)
    for block in range(24):
        dino_block(source, f"aggregator.patch_embed.blocks.{block}", width)
        groups += split(f"aggregator.patch_embed.blocks.{block}.attn.qkv",
                        [f"encoder.layer.{block}.attention.{x}_proj" for x in "qkv"])  # fmt: skip
    source.norm("aggregator.patch_embed.norm", width)
    for kind in ("frame_blocks", "global_blocks"):
        for block in range(24):
            dino_block(source, f"aggregator.{kind}.{block}", width, qk_norm=True)
    source.put("camera_head.empty_pose_tokens", 1, 1, 9)
    for block in range(4):
        dino_block(source, f"camera_head.trunk.{block}", 2 * width)
    source.lns("camera_head.token_norm", "camera_head.trunk_norm", size=2 * width)
    source.lin("camera_head.embed_pose", 2 * width, 9)
    source.lin("camera_head.poseLN_modulation.1", 6 * width, 2 * width)
    source.lin("camera_head.pose_branch.fc1", width, 2 * width)
    source.lin("camera_head.pose_branch.fc2", 9, width)
    dpt_head(source, "point_head", 2 * width, (256, 512, 1024, 1024), 256, is_vggt=4)
    dpt_head(source, "depth_head", 2 * width, (256, 512, 1024, 1024), 256, is_vggt=2)
    table: list[Any] = [
        (r"^(?!aggregator\.patch_embed\.).*$", ""),
        (r".*qkv.*", "@"),
        (r"^aggregator\.patch_embed\.", ""),
        (r"^pos_embed", "embeddings.position_embeddings"),
        (r"^(cls_token|register_tokens|mask_token)", r"embeddings.\1"),
        (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
        (r"^norm\.", "layernorm."),
        (r"^blocks\.", "encoder.layer."),
        (r"\.attn\.proj", ".attention.o_proj"),
        (r"\.ls(\d)\.gamma", r".layer_scale\1.lambda1"),
    ]
    return to(
        source,
        target,
        table,
        groups=groups,
        truth="VGGT's aggregator.py builds a dinov2_vitl14_reg; transformers' convert_dinov2_with_registers_to_hf",
    )


@pair("blind: V-JEPA 2 in Meta's names to Hugging Face: an encoder and a predictor, ten mask tokens stacked",
      "transformers")  # fmt: skip
def vjepa(small: bool) -> Two:
    """Both were saved under module.backbone; their blocks have the same names."""
    import transformers

    target = transformers.VJEPA2Model(transformers.VJEPA2Config())
    source, groups = Net(), []

    def block(at: str, width: int, there: str) -> None:
        source.norm(f"{at}.norm1", width)
        source.lin(f"{at}.attn.qkv", 3 * width, width)
        source.lin(f"{at}.attn.proj", width, width)
        source.norm(f"{at}.norm2", width)
        source.lin(f"{at}.mlp.fc1", 4 * width, width)
        source.lin(f"{at}.mlp.fc2", width, 4 * width)
        groups.extend(split(f"{at}.attn.qkv", [f"{there}.attention.{x}" for x in ("query", "key", "value")]))

    here = "encoder.module.backbone"
    source.conv(f"{here}.patch_embed.proj", 1024, 3, 2, 16, 16)
    for layer in range(24):
        block(f"{here}.blocks.{layer}", 1024, f"encoder.layer.{layer}")
    source.norm(f"{here}.norm", 1024)
    here = "predictor.module.backbone"
    source.lin(f"{here}.predictor_embed", 384, 1024)
    for token in range(10):
        source.put(f"{here}.mask_tokens.{token}", 1, 1, 384)
    for layer in range(12):
        block(f"{here}.predictor_blocks.{layer}", 384, f"predictor.layer.{layer}")
    source.norm(f"{here}.predictor_norm", 384)
    source.lin(f"{here}.predictor_proj", 1024, 384)
    groups.append(f"{here}.mask_tokens.{{n}} -> predictor.embeddings.mask_tokens | 1 b c -> n 1 b c")
    table: list[Any] = [
        (r".*(qkv|mask_tokens).*", "@"),
        (r"\.module\.backbone\.", "."),
        (r"^encoder\.patch_embed", "encoder.embeddings.patch_embeddings"),
        (r"^encoder\.blocks", "encoder.layer"),
        (r"^encoder\.norm", "encoder.layernorm"),
        (r"^predictor\.predictor_embed", "predictor.embeddings.predictor_embeddings"),
        (r"^predictor\.predictor_blocks", "predictor.layer"),
        (r"^predictor\.predictor_norm", "predictor.layernorm"),
        (r"^predictor\.predictor_proj", "predictor.proj"),
        (r"\.attn\.", ".attention."),
    ]
    return to(source, target, table, groups=groups, truth="transformers' convert_vjepa2_to_hf.py")


def lightglue_file() -> Net:
    """LightGlue of SuperPoint's features, as it was released."""
    source = Net()
    source.put("posenc.Wr.weight", 32, 2)

    def ffn(at: str) -> None:
        source.lin(f"{at}.ffn.0", 512, 512)
        source.norm(f"{at}.ffn.1", 512)
        source.lin(f"{at}.ffn.3", 256, 512)

    for layer in range(9):
        source.lin(f"self_attn.{layer}.Wqkv", 768, 256)
        source.lin(f"self_attn.{layer}.out_proj", 256, 256)
        ffn(f"self_attn.{layer}")
    for layer in range(9):
        source.lins(*(f"cross_attn.{layer}.to_{x}" for x in ("qk", "v", "out")), out=256, into=256)
        ffn(f"cross_attn.{layer}")
    for layer in range(9):
        source.lin(f"log_assignment.{layer}.matchability", 1, 256)
        source.lin(f"log_assignment.{layer}.final_proj", 256, 256)
    for layer in range(8):
        source.lin(f"token_confidence.{layer}.token.0", 1, 256)
    return source


@pair("blind: LightGlue by its authors to Hugging Face: q, k, v take turns, q of cross attention is k as well",
      "transformers")  # fmt: skip
def lightglue(small: bool) -> Two:
    """Two lists of blocks became one; SuperPoint in front comes from another file."""
    import transformers

    target = transformers.LightGlueForKeypointMatching(transformers.LightGlueConfig())
    source, groups = lightglue_file(), []
    for layer in range(9):
        there = f"transformer_layers.{layer}"
        for tail, layout in (("weight", "(o x) i -> o i"), ("bias", "(o x) -> o")):
            groups += [
                f"self_attn.{layer}.Wqkv.{tail} -> {there}.self_attention.{{x=q|k|v}}_proj.{tail} | {layout}",
                f"cross_attn.{layer}.to_qk.{tail} -> "
                f"{there}.cross_attention.q_proj.{tail}, {there}.cross_attention.k_proj.{tail}",
            ]
    table: list[Any] = [
        (r".*(Wqkv|to_qk).*", "@"),
        (r"^posenc\.Wr", "positional_encoder.projector"),
        (r"^(self|cross)_attn\.(\d)\.ffn\.", r"transformer_layers.\2.\1_mlp."),
        (r"^(self|cross)_attn\.(\d)\.", r"transformer_layers.\2.\1_attention."),
        (r"_mlp\.0\.", "_mlp.fc1."),
        (r"_mlp\.1\.", "_mlp.layer_norm."),
        (r"_mlp\.3\.", "_mlp.fc2."),
        (r"\.to_v\.", ".v_proj."),
        (r"\.(to_out|out_proj)\.", ".o_proj."),
        (r"^log_assignment", "match_assignment_layers"),
        (r"final_proj", "final_projection"),
        (r"token\.0", "token"),
    ]
    return to(
        source,
        target,
        table,
        groups=groups,
        missing=["keypoint_detector.*"],
        hidden=[f"*.self_attention.{x}_proj.*" for x in "qkv"],
        truth="cvg's lightglue.py (unflatten to heads, width, 3) and transformers' convert_lightglue_to_hf.py",
    )


@pair("blind: MedNeXt by MIC-DKFZ to MONAI: stages by name became lists, the way up counts from the bottom")
def mednext(small: bool) -> Two:
    """up_3 is up_blocks.0, out_4 is out_blocks.0; a tensor of one element worked around a fault of checkpointing."""

    def block(net: Net, at: str, into: int, out: int, *, is_way: bool = False) -> None:
        net.conv(f"{at}.conv1", into, 1, 3, 3, 3)
        net.norm(f"{at}.norm", into)
        net.conv(f"{at}.conv2", 2 * into, into, 1, 1, 1)
        net.conv(f"{at}.conv3", out, 2 * into, 1, 1, 1)
        if is_way:
            rows = (out, into) if out > into else (into, out)
            net.put(f"{at}.res_conv.weight", *rows, 1, 1, 1)
            net.put(f"{at}.res_conv.bias", out)

    def end(net: Net, at: str, into: int) -> None:
        net.put(f"{at}.conv_out.weight", into, 5, 1, 1, 1)
        net.put(f"{at}.conv_out.bias", 5)

    source, target, width = Net(), Net(), 32
    source.put("dummy_tensor", 1)
    source.conv("stem", width, 1, 1, 1, 1)
    target.conv("stem", width, 1, 1, 1, 1)
    for level in range(4):
        for unit in range(2):
            block(source, f"enc_block_{level}.{unit}", width << level, width << level)
            block(target, f"enc_stages.{level}.{unit}", width << level, width << level)
        block(source, f"down_{level}", width << level, width << level + 1, is_way=True)
    for level in range(4):
        block(target, f"down_blocks.{level}", width << level, width << level + 1, is_way=True)
    for net in (source, target):
        for unit in range(2):
            block(net, f"bottleneck.{unit}", 16 * width, 16 * width)
    for level in (3, 2, 1, 0):
        block(source, f"up_{level}", width << level + 1, width << level, is_way=True)
        for unit in range(2):
            block(source, f"dec_block_{level}.{unit}", width << level, width << level)
        block(target, f"up_blocks.{3 - level}", width << level + 1, width << level, is_way=True)
    for level in (3, 2, 1, 0):
        for unit in range(2):
            block(target, f"dec_stages.{3 - level}.{unit}", width << level, width << level)
    for level in range(5):
        end(source, f"out_{level}", width << level)
    end(target, "out_0", width)
    for level in (4, 3, 2, 1):
        end(target, f"out_blocks.{4 - level}", width << level)
    table: list[Any] = [
        (r"^dummy_tensor$", ""),
        (r"^enc_block_(\d)", r"enc_stages.\1"),
        (r"^down_(\d)", r"down_blocks.\1"),
        (r"^up_(\d)", lambda m: f"up_blocks.{3 - int(m[1])}"),
        (r"^dec_block_(\d)", lambda m: f"dec_stages.{3 - int(m[1])}"),
        (r"^out_([1-4])", lambda m: f"out_blocks.{4 - int(m[1])}"),
    ]
    return to(source, target, table, truth="code of both sides, read: MedNextV1.py, blocks.py and MONAI's mednext.py")


@pair("blind: Chemprop's first version to its second: a readout of one list became a list of lists")
def chemprop(small: bool) -> Two:
    """Five matrices, two of them of one shape; the scaler and the weights of tasks are new."""
    source, target = Net(), Net()
    source.put("encoder.encoder.0.cached_zero_vector", 300)
    source.lin("encoder.encoder.0.W_i", 300, 147, bias=False)
    source.lin("encoder.encoder.0.W_h", 300, 300, bias=False)
    source.lin("encoder.encoder.0.W_o", 300, 433)
    source.lin("readout.1", 300, 300)
    source.lin("readout.4", 12, 300)
    target.lin("message_passing.W_i", 300, 147, bias=False)
    target.lin("message_passing.W_h", 300, 300, bias=False)
    target.lin("message_passing.W_o", 300, 433)
    target.lin("predictor.ffn.0.0", 300, 300)
    target.lin("predictor.ffn.1.2", 12, 300)
    target.put("predictor.criterion.task_weights", 1, 12)
    target.put("predictor.output_transform.mean", 1, 12)
    target.put("predictor.output_transform.scale", 1, 12)
    table: list[Any] = [
        (r".*cached.*", ""),
        (r"^encoder\.encoder\.0", "message_passing"),
        (r"^readout\.1", "predictor.ffn.0.0"),
        (r"^readout\.4", "predictor.ffn.1.2"),
    ]
    return to(source, target, table, missing=["predictor.criterion.*", "predictor.output_transform.*"],
              truth="chemprop's own utils/v1_to_v2.py")  # fmt: skip


@pair("blind, own: DINOv2-S with LoRA inside of qkv, prompts and a segmenter's neck", "timm")
def dino_lora(small: bool) -> Two:
    """What was blocks.0.attn.qkv.weight is blocks.0.attn.qkv.base.weight: a wrapper stands in between."""
    import timm

    source = timm.create_model("vit_small_patch14_dinov2")
    target, rules = Net(), []
    target.put("encoder.prompts", 12, 8, 384)
    for key, tensor in state(source).items():
        name = "encoder.vit." + key.replace(".attn.qkv.", ".attn.qkv.base.")
        target[name] = tensor
        rules.append(f"{key} -> {name}")
        if key.endswith("qkv.bias"):
            at = name.removesuffix(".base.bias")
            for part in "qv":
                target.lin(f"{at}.lora_{part}.down", 8, 384, bias=False)
                target.lin(f"{at}.lora_{part}.up", 384, 8, bias=False)
    for level in range(4):
        target.conv(f"neck.lateral.{level}.0", 128, 384, 1, bias=False)
        target.bn(f"neck.lateral.{level}.1", 128)
    target.conv("neck.fuse.0", 256, 512, 3, bias=False)
    target.bn("neck.fuse.1", 256)
    target.conv("head.cls", 21, 256, 1)
    return Two(source, target, rules, missing=["encoder.prompts", "*.lora_?.*", "neck.*", "head.*"],
               proof="made of timm's own model, key by key")  # fmt: skip


@pair("blind, own: ConvNeXt-T without its last stage, six of nine blocks, channel attention, an ASPP", "torchvision")
def convnext_cut(small: bool) -> Two:
    """features.5 is stage3: its blocks 6 to 8 are gone, the way down to the fourth stage as well."""
    import torchvision

    source = torchvision.models.convnext_tiny()
    parts = {"0": "dw", "2": "ln", "3": "pw1", "5": "pw2"}
    target, rules = Net(), []
    for key, tensor in state(source).items():
        name = ""
        if found := re.match(r"features\.0\.([01])\.(\w+)", key):
            name = f"enc.stem.{('conv', 'ln')[int(found[1])]}.{found[2]}"
        elif found := re.match(r"features\.([24])\.([01])\.(\w+)", key):
            name = f"enc.down{int(found[1]) // 2 + 1}.{('ln', 'conv')[int(found[2])]}.{found[3]}"
        elif found := re.match(r"features\.([135])\.([0-5])\.(.*)", key):
            at = f"enc.stage{(int(found[1]) + 1) // 2}.b{int(found[2]) + 1}"
            name = at + ".gamma" if found[3] == "layer_scale" else ""
            if inner := re.match(r"block\.(\d)\.(\w+)", found[3]):
                name = f"{at}.{parts[inner[1]]}.{inner[2]}"
        rules.append(f"{key} -> {name or '!'}")
        if name:
            target[name] = tensor
    ordered = Net()
    for key, tensor in target.items():
        ordered[key] = tensor
        if found := re.match(r"(enc\.stage\d\.b\d)\.pw2\.bias", key):
            ordered.put(f"{found[1]}.eca.conv.weight", 1, 1, 3)
    for rate in (1, 6, 12, 18):
        ordered.conv(f"aspp.r{rate}.conv", 256, 384, 1 if rate == 1 else 3, bias=False)
        ordered.bn(f"aspp.r{rate}.bn", 256)
    ordered.conv("aspp.out.conv", 256, 1024, 1, bias=False)
    ordered.bn("aspp.out.bn", 256)
    ordered.conv("seg", 19, 256, 1)
    return Two(source, ordered, rules, missing=["*.eca.*", "aspp.*", "seg.*"],
               proof="made of torchvision's own model, key by key")  # fmt: skip


@pair("blind, own: Qwen2.5-0.5B as a reward model: qkv and gate_up joined, two layers cut, a value's head",
      "transformers")  # fmt: skip
def reward(small: bool) -> Two:
    """GPT's names around Qwen's layers; the last two of 24 are gone, the head is another's."""
    import transformers

    source = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(
        vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2))  # fmt: skip
    target, groups = Net(), []
    target.put("lm.wte.weight", 151936, 896)
    for layer in range(22):
        at, here = f"lm.h.{layer}", f"model.layers.{layer}"
        target.put(f"{at}.ln_1.weight", 896)
        target.lin(f"{at}.attn.qkv", 1152, 896)
        target.lin(f"{at}.attn.out", 896, 896, bias=False)
        target.put(f"{at}.ln_2.weight", 896)
        target.lin(f"{at}.mlp.gate_up", 9728, 896, bias=False)
        target.lin(f"{at}.mlp.down", 896, 4864, bias=False)
        groups += join([f"{here}.self_attn.{x}_proj" for x in "qkv"], f"{at}.attn.qkv")
        groups += join([f"{here}.mlp.gate_proj", f"{here}.mlp.up_proj"], f"{at}.mlp.gate_up", bias=False)
    target.put("lm.ln_f.weight", 896)
    target.lin("value.dense", 896, 896)
    target.lin("value.out", 1, 896, bias=False)
    table: list[Any] = [
        (r"^(lm_head|model\.layers\.2[23])\..*", ""),
        (r".*(q_proj|k_proj|v_proj|gate_proj|up_proj).*", "@"),
        (r"^model\.embed_tokens", "lm.wte"),
        (r"^model\.norm", "lm.ln_f"),
        (r"^model\.layers", "lm.h"),
        (r"input_layernorm", "ln_1"),
        (r"post_attention_layernorm", "ln_2"),
        (r"self_attn\.o_proj", "attn.out"),
        (r"mlp\.down_proj", "mlp.down"),
    ]
    return to(source, target, table, groups=groups, missing=["value.*"], truth="a model of one's own, by construction")


@pair("blind, own: a 3D ResNet-18 of videos for CT: one channel, gates in every block, a pyramid", "torchvision")
def ct_resnet(small: bool) -> Two:
    """The stem's kernel does not fit any more, its norm does; Sequentials of two became a convolution and a norm."""
    import torchvision

    source = torchvision.models.video.r3d_18()
    target, rules = Net(), []
    target.conv("enc.conv_in", 64, 1, 3, 7, 7, bias=False)
    kinds = ("conv", "norm")
    for key, tensor in state(source).items():
        name = ""
        if found := re.match(r"stem\.1\.(\w+)", key):
            name = f"enc.norm_in.{found[1]}"
        elif found := re.match(r"layer(\d)\.(\d)\.(conv[12]|downsample)\.([01])\.(\w+)", key):
            part = {"conv1": "a", "conv2": "b", "downsample": "skip"}[found[3]]
            at = f"enc.stage{found[1]}.block{found[2]}"
            name = f"{at}.{part}_{kinds[int(found[4])]}.{found[5]}"
        rules.append(f"{key} -> {name or '!'}")
        if not name:
            continue
        target[name] = tensor
        if name.endswith("b_norm.num_batches_tracked"):
            width = 32 << int(name[len("enc.stage")])
            target.lin(f"{at}.gate.squeeze", width // 16, width)
            target.lin(f"{at}.gate.excite", width, width // 16)
    for level in range(1, 5):
        target.conv(f"fpn.lateral{level}", 128, 32 << level, 1, 1, 1)
    for level in range(1, 5):
        target.conv(f"fpn.smooth{level}", 128, 128, 3, 3, 3)
    target.conv("det.score", 3, 128, 3, 3, 3)
    target.conv("det.box", 18, 128, 3, 3, 3)
    return Two(source, target, rules, missing=["enc.conv_in.*", "*.gate.*", "fpn.*", "det.*"],
               proof="made of torchvision's own model, key by key")  # fmt: skip
