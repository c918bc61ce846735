"""Blind pairs: vision, from authors' repositories to timm, torchvision and Hugging Face."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.match.blind import Net, Two, like, pair, split, state, to


@pair("blind: LeViT in Facebook's names to timm: one list of residuals became stages", "timm")
def levit(small: bool) -> Two:
    """timm's own filter pairs the two by order: blocks.4 is the way down, without a residual around it."""
    import timm

    target = timm.create_model("levit_128s")
    source, rules, at = Net(), [], -1
    seen = ""
    for key, tensor in state(target).items():
        name = key
        if found := re.match(r"stages\.(\d)\.(blocks\.\d\.(?:attn|mlp)|downsample\.(?:attn_downsample|mlp))\.", key):
            if found[0] != seen:
                seen, at = found[0], at + 1
            name = f"blocks.{at}.{'' if 'attn_down' in key else 'm.'}{key[found.end() :]}"
            name = re.sub(r"\bln1\.", "0.", name) if "mlp" in key else name
            name = re.sub(r"\bln2\.", "2.", name) if "mlp" in key else name
            name = re.sub(r"\b(proj|q)\.ln\.", r"\1.1.", name)
        elif found := re.match(r"stem\.conv(\d)\.", key):
            name = f"patch_embed.{2 * int(found[1]) - 2}.{key[found.end() :]}"
        name = re.sub(r"^head(\w*)\.linear", r"head\1.l", name)
        name = re.sub(r"\.linear\.", ".c.", name)
        source[name] = tensor
        rules.append(f"{name} -> {key}")
        if key.endswith("attention_biases"):
            points = tensor.shape[1]
            source.ints(
                name.replace("biases", "bias_idxs"), {196: 49, 49: 16}[points] if "down" in key else points, points
            )
    return Two(source, target, rules, proof="timm's levit.checkpoint_filter_fn: in the order of both")


@pair("blind: CvT in Microsoft's names to Hugging Face: convolutions in front of q, k and v", "transformers")
def cvt(small: bool) -> Two:
    """The class token belongs to the third stage."""
    import transformers

    target = transformers.CvtForImageClassification(transformers.CvtConfig(num_labels=1000))
    source = Net()
    stages = (64, 1, 7, 3), (192, 2, 3, 64), (384, 10, 3, 192)
    for stage, (width, depth, kernel, into) in enumerate(stages):
        if stage == 2:
            source.put("stage2.cls_token", 1, 1, width)
        source.conv(f"stage{stage}.patch_embed.proj", width, into, kernel)
        source.norm(f"stage{stage}.patch_embed.norm", width)
        for block in range(depth):
            at = f"stage{stage}.blocks.{block}"
            source.norm(f"{at}.norm1", width)
            for part in "qkv":
                source.conv(f"{at}.attn.conv_proj_{part}.conv", width, 1, 3, bias=False)
                source.bn(f"{at}.attn.conv_proj_{part}.bn", width)
            source.lins(
                *(f"{at}.attn.{part}" for part in ("proj_q", "proj_k", "proj_v", "proj")), out=width, into=width
            )
            source.norm(f"{at}.norm2", width)
            source.lin(f"{at}.mlp.fc1", 4 * width, width)
            source.lin(f"{at}.mlp.fc2", width, 4 * width)
    source.norm("norm", 384)
    source.lin("head", 1000, 384)
    word = {"q": "query", "k": "key", "v": "value"}
    table: list[Any] = [
        (r"^norm\.", "layernorm."),
        (r"^head\.", "classifier."),
        (r"^stage(\d)\.blocks\.(\d+)\.", r"cvt.encoder.stages.\1.layers.\2."),
        (r"^stage(\d)\.patch_embed\.proj", r"cvt.encoder.stages.\1.embedding.convolution_embeddings.projection"),
        (r"^stage(\d)\.patch_embed\.norm", r"cvt.encoder.stages.\1.embedding.convolution_embeddings.normalization"),
        (r"^stage2\.cls", "cvt.encoder.stages.2.cls"),
        (r"\.attn\.conv_proj_(.)\.conv\.",
         lambda m: f".attention.attention.convolution_projection_{word[m[1]]}.convolution_projection.convolution."),
        (r"\.attn\.conv_proj_(.)\.bn\.",
         lambda m: f".attention.attention.convolution_projection_{word[m[1]]}.convolution_projection.normalization."),
        (r"\.attn\.proj_(.)\.", lambda m: f".attention.attention.projection_{word[m[1]]}."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1", ".intermediate.dense"),
        (r"\.mlp\.fc2", ".output.dense"),
        (r"\.norm1", ".layernorm_before"),
        (r"\.norm2", ".layernorm_after"),
    ]  # fmt: skip
    return to(source, target, table, truth="transformers' convert_cvt_original_pytorch_checkpoint_to_pytorch.py")


@pair("blind: XCiT in Facebook's names to timm: class attention's qkv is split, the rest is not", "timm")
def xcit(small: bool) -> Two:
    """Norms 1 and 3 frame the local interaction in timm; the position's encoder comes last in the file."""
    import timm

    target = timm.create_model("xcit_nano_12_p16_224")
    source, width = Net(), 128
    source.put("cls_token", 1, 1, width)
    for at, (out, into) in enumerate(((16, 3), (32, 16), (64, 32), (128, 64))):
        source.conv(f"patch_embed.proj.{2 * at}.0", out, into, 3, bias=False)
        source.bn(f"patch_embed.proj.{2 * at}.1", out)
    groups = []
    for kind, depth in (("blocks", 12), ("cls_attn_blocks", 2)):
        for block in range(depth):
            at = f"{kind}.{block}"
            for gamma in (1, 2, 3) if kind == "blocks" else (1, 2):
                source.put(f"{at}.gamma{gamma}", width)
            source.norm(f"{at}.norm1", width)
            if kind == "blocks":
                source.put(f"{at}.attn.temperature", 4, 1, 1)
            source.lin(f"{at}.attn.qkv", 3 * width, width)
            source.lin(f"{at}.attn.proj", width, width)
            source.norm(f"{at}.norm2", width)
            source.lin(f"{at}.mlp.fc1", 4 * width, width)
            source.lin(f"{at}.mlp.fc2", width, 4 * width)
            if kind == "blocks":
                source.norm(f"{at}.norm3", width)
                source.conv(f"{at}.local_mp.conv1", width, 1, 3)
                source.bn(f"{at}.local_mp.bn", width)
                source.conv(f"{at}.local_mp.conv2", width, 1, 3)
            else:
                groups += split(f"{at}.attn.qkv", [f"{at}.attn.{part}" for part in "qkv"])
    source.norm("norm", width)
    source.lin("head", 1000, width)
    source.conv("pos_embeder.token_projection", width, 64, 1)
    table: list[Any] = [(r"^pos_embeder", "pos_embed"), (r"^cls_attn.*qkv.*", "@")]
    return to(source, target, table, groups=groups, truth="timm's xcit.checkpoint_filter_fn")


@pair("blind: MobileViT in Apple's names to Hugging Face: numbers inside of blocks, qkv split", "transformers")
def mobilevit(small: bool) -> Two:
    """pre_norm_ffn.1 and .4 are its Linears; the norm of the stage is the last of the list of transformers."""
    import transformers

    target = transformers.MobileViTForImageClassification(transformers.MobileViTConfig(num_labels=1000))
    source = Net()

    def cell(name: str, out: int, into: int, kernel: int, norm: bool = True) -> None:
        source.conv(f"{name}.block.conv", out, into, kernel, bias=False)
        if norm:
            source.bn(f"{name}.block.norm", out)

    def inverted(name: str, out: int, into: int) -> None:
        cell(f"{name}.block.exp_1x1", 4 * into, into, 1)
        cell(f"{name}.block.conv_3x3", 4 * into, 1, 3)
        cell(f"{name}.block.red_1x1", out, 4 * into, 1)

    cell("conv_1", 16, 3, 3)
    inverted("layer_1.0", 32, 16)
    for block in range(3):
        inverted(f"layer_2.{block}", 64, 64 if block else 32)
    groups = []
    for stage, into, out, width, depth in ((3, 64, 96, 144, 2), (4, 96, 128, 192, 4), (5, 128, 160, 240, 3)):
        inverted(f"layer_{stage}.0", out, into)
        at = f"layer_{stage}.1"
        cell(f"{at}.local_rep.conv_3x3", out, out, 3)
        cell(f"{at}.local_rep.conv_1x1", width, out, 1, norm=False)
        for block in range(depth):
            part = f"{at}.global_rep.{block}"
            source.norm(f"{part}.pre_norm_mha.0", width)
            source.lin(f"{part}.pre_norm_mha.1.qkv_proj", 3 * width, width)
            source.lin(f"{part}.pre_norm_mha.1.out_proj", width, width)
            source.norm(f"{part}.pre_norm_ffn.0", width)
            source.lin(f"{part}.pre_norm_ffn.1", 2 * width, width)
            source.lin(f"{part}.pre_norm_ffn.4", width, 2 * width)
            there = f"mobilevit.encoder.layer.{stage - 1}.transformer.layer.{block}.attention.attention"
            groups += split(f"{part}.pre_norm_mha.1.qkv_proj", [f"{there}.{x}" for x in ("query", "key", "value")])
        source.norm(f"{at}.global_rep.{depth}", width)
        cell(f"{at}.conv_proj", out, width, 1)
        cell(f"{at}.fusion", out, 2 * out, 3)
    cell("conv_1x1_exp", 640, 160, 1)
    source.lin("classifier.fc", 1000, 640)
    table: list[Any] = [
        (r".*qkv_proj.*", "@"),
        (r"^classifier\.fc", "classifier"),
        (r"^conv_1\.block", "mobilevit.conv_stem"),
        (r"^conv_1x1_exp\.block", "mobilevit.conv_1x1_exp"),
        (r"^layer_([12])\.(\d)\.block", lambda m: f"mobilevit.encoder.layer.{int(m[1]) - 1}.layer.{m[2]}"),
        (r"^layer_(\d)\.0\.block", lambda m: f"mobilevit.encoder.layer.{int(m[1]) - 1}.downsampling_layer"),
        (r"^layer_(\d)\.1", lambda m: f"mobilevit.encoder.layer.{int(m[1]) - 1}"),
        (r"\.local_rep\.conv_3x3", ".conv_kxk"),
        (r"\.local_rep\.conv_1x1", ".conv_1x1"),
        (r"\.conv_proj\.", ".conv_projection."),
        (r"exp_1x1\.block", "expand_1x1"),
        (r"red_1x1\.block", "reduce_1x1"),
        (r"\.block\.", "."),
        (r"\.conv\.weight", ".convolution.weight"),
        (r"\.norm\.", ".normalization."),
        (r"\.global_rep\.\d\.(weight|bias)", r".layernorm.\1"),
        (r"\.global_rep\.", ".transformer.layer."),
        (r"\.pre_norm_mha\.0", ".layernorm_before"),
        (r"\.pre_norm_mha\.1\.out_proj", ".attention.output.dense"),
        (r"\.pre_norm_ffn\.0", ".layernorm_after"),
        (r"\.pre_norm_ffn\.1", ".intermediate.dense"),
        (r"\.pre_norm_ffn\.4", ".output.dense"),
    ]
    return to(source, target, table, groups=groups, truth="transformers' convert_mlcvnets_to_pytorch.py")


@pair("blind: Swin2SR in its authors' names to Hugging Face: q and v have biases beside qkv", "transformers")
def swin2sr(small: bool) -> Two:
    """Every stage has a convolution and a patch embedding of its own behind its blocks."""
    import transformers

    config = transformers.Swin2SRConfig(depths=[2, 2], num_heads=[6, 6])
    target = transformers.Swin2SRForImageSuperResolution(config)
    source, width, groups = Net(), 180, []
    source.conv("conv_first", width, 3, 3)
    source.conv("patch_embed.proj", width, width, 1)
    source.norm("patch_embed.norm", width)
    for stage in range(2):
        for block in range(2):
            at = f"layers.{stage}.residual_group.blocks.{block}"
            if block:
                source.put(f"{at}.attn_mask", 64, 64, 64)
            source.norm(f"{at}.norm1", width)
            source.put(f"{at}.attn.logit_scale", 6, 1, 1)
            source.put(f"{at}.attn.q_bias", width)
            source.put(f"{at}.attn.v_bias", width)
            source.put(f"{at}.attn.relative_coords_table", 1, 15, 15, 2)
            source.ints(f"{at}.attn.relative_position_index", 64, 64)
            source.lin(f"{at}.attn.cpb_mlp.0", 512, 2)
            source.lin(f"{at}.attn.cpb_mlp.2", 6, 512, bias=False)
            source.lin(f"{at}.attn.qkv", 3 * width, width, bias=False)
            source.lin(f"{at}.attn.proj", width, width)
            source.norm(f"{at}.norm2", width)
            source.lin(f"{at}.mlp.fc1", 2 * width, width)
            source.lin(f"{at}.mlp.fc2", width, 2 * width)
            there = f"swin2sr.encoder.stages.{stage}.layers.{block}.attention.self"
            groups += split(f"{at}.attn.qkv", [f"{there}.{x}" for x in ("query", "key", "value")], bias=False)
        source.conv(f"layers.{stage}.conv", width, width, 3)
        source.conv(f"layers.{stage}.patch_embed.proj", width, width, 1)
    source.norm("norm", width)
    source.conv("conv_after_body", width, width, 3)
    source.conv("conv_before_upsample.0", 64, width, 3)
    source.conv("upsample.0", 256, 64, 3)
    source.conv("conv_last", 3, 64, 3)
    table: list[Any] = [
        (r".*qkv.*", "@"),
        (r".*(attn_mask|relative_coords_table|relative_position_index)$", ""),
        (r"^conv_first", "swin2sr.first_convolution"),
        (r"^patch_embed\.proj", "swin2sr.embeddings.patch_embeddings.projection"),
        (r"^patch_embed\.norm", "swin2sr.embeddings.patch_embeddings.layernorm"),
        (r"^layers\.(\d)\.residual_group\.blocks\.", r"swin2sr.encoder.stages.\1.layers."),
        (r"^layers\.(\d)\.conv", r"swin2sr.encoder.stages.\1.conv"),
        (r"^layers\.(\d)\.patch_embed\.proj", r"swin2sr.encoder.stages.\1.patch_embed.projection"),
        (r"^norm\.", "swin2sr.layernorm."),
        (r"^conv_after", "swin2sr.conv_after"),
        (r"^upsample\.0", "upsample.upsample.convolution_0"),
        (r"^conv_before_upsample\.0", "upsample.conv_before_upsample"),
        (r"^conv_last", "upsample.final_convolution"),
        (r"\.attn\.q_bias", ".attention.self.query.bias"),
        (r"\.attn\.v_bias", ".attention.self.value.bias"),
        (r"\.attn\.cpb_mlp", ".attention.self.continuous_position_bias_mlp"),
        (r"\.attn\.logit", ".attention.self.logit"),
        (r"\.attn\.proj", ".attention.output.dense"),
        (r"\.norm1", ".layernorm_before"),
        (r"\.norm2", ".layernorm_after"),
        (r"\.mlp\.fc1", ".intermediate.dense"),
        (r"\.mlp\.fc2", ".output.dense"),
    ]
    return to(source, target, table, groups=groups, truth="transformers' convert_swin2sr_original_to_pytorch.py")


@pair("blind: FocalNet in Microsoft's names to timm: Linears are convolutions, downsample moved a stage", "timm")
def focalnet(small: bool) -> Two:
    """f, proj and the perceptron were Linears, h was a convolution in both."""
    import timm

    target = timm.create_model("focalnet_tiny_srf")
    source = Net()
    source.conv("patch_embed.proj", 96, 3, 4)
    source.norm("patch_embed.norm", 96)
    for stage, depth in enumerate((2, 2, 6, 2)):
        width = 96 << stage
        for block in range(depth):
            at = f"layers.{stage}.blocks.{block}"
            source.norm(f"{at}.norm1", width)
            source.lin(f"{at}.modulation.f", 2 * width + 3, width)
            source.conv(f"{at}.modulation.h", width, width, 1)
            source.lin(f"{at}.modulation.proj", width, width)
            source.conv(f"{at}.modulation.focal_layers.0.0", width, 1, 3, bias=False)
            source.conv(f"{at}.modulation.focal_layers.1.0", width, 1, 5, bias=False)
            source.norm(f"{at}.norm2", width)
            source.lin(f"{at}.mlp.fc1", 4 * width, width)
            source.lin(f"{at}.mlp.fc2", width, 4 * width)
        if stage < 3:
            source.conv(f"layers.{stage}.downsample.proj", 2 * width, width, 2)
            source.norm(f"layers.{stage}.downsample.norm", 2 * width)
    source.norm("norm", 768)
    source.lin("head", 1000, 768)
    table: list[Any] = [
        (r"^patch_embed", "stem"),
        (r"^head", "head.fc"),
        (r"^layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample"),
    ]
    layouts = [(r"(modulation\.(f|proj)|mlp\.fc\d)\.weight", "o i -> o i 1 1")]
    return to(source, target, table, layouts, truth="timm's focalnet.checkpoint_filter_fn")


@pair("blind: EVA-02 in BAAI's names to timm: w1, w2, w3 and an inner norm", "timm")
def eva02(small: bool) -> Two:
    """w1 is the gate; biases of q and v stand alone; norm became fc_norm."""
    import timm

    target = timm.create_model("eva02_base_patch14_224")
    source, width, hidden = Net(), 768, 2048
    source.put("cls_token", 1, 1, width)
    source.put("pos_embed", 1, 257, width)
    source.put("mask_token", 1, 1, width)
    source.conv("patch_embed.proj", width, 3, 14)
    source.put("rope.freqs_cos", 256, 64)
    source.put("rope.freqs_sin", 256, 64)
    for block in range(12):
        at = f"blocks.{block}"
        source.norm(f"{at}.norm1", width)
        source.put(f"{at}.attn.q_bias", width)
        source.put(f"{at}.attn.v_bias", width)
        source.lins(*(f"{at}.attn.{part}_proj" for part in "qkv"), out=width, into=width, bias=False)
        source.put(f"{at}.attn.rope.freqs_cos", 256, 64)
        source.put(f"{at}.attn.rope.freqs_sin", 256, 64)
        source.lin(f"{at}.attn.proj", width, width)
        source.norm(f"{at}.norm2", width)
        source.lin(f"{at}.mlp.w1", hidden, width)
        source.lin(f"{at}.mlp.w2", hidden, width)
        source.norm(f"{at}.mlp.ffn_ln", hidden)
        source.lin(f"{at}.mlp.w3", width, hidden)
    source.norm("norm", width)
    source.lin("lm_head", 768, width)
    table: list[Any] = [
        (r"^(mask_token|lm_head.*|.*rope\..*)$", ""),
        (r"^norm\.", "fc_norm."),
        (r"\.(q|v)_bias", r".\1_proj.bias"),
        (r"\.mlp\.w1", ".mlp.fc1_g"),
        (r"\.mlp\.w2", ".mlp.fc1_x"),
        (r"\.mlp\.ffn_ln", ".mlp.norm"),
        (r"\.mlp\.w3", ".mlp.fc2"),
    ]
    return to(source, target, table, truth="timm's eva.checkpoint_filter_fn")


@pair("blind: VoVNet in a detector's names to timm: slashes, and every module repeats where it is", "timm")
def vovnet(small: bool) -> Two:
    """The pyramid comes first in the file; frozen norms have no counters; there is no classifier."""
    import timm

    target = timm.create_model("ese_vovnet39b")
    source = Net()
    for level, into in ((3, 512), (4, 768), (5, 1024)):
        source.conv(f"backbone.fpn_lateral{level}", 256, into, 1)
        source.conv(f"backbone.fpn_output{level}", 256, 256, 3)

    def cell(name: str, out: int, into: int, kernel: int) -> None:
        source.conv(f"{name}/conv", out, into, kernel, bias=False)
        source.bn(f"{name}/norm", out, counter=False)

    stem = "backbone.bottom_up.stem.stem"
    for at, (out, into) in enumerate(((64, 3), (64, 64), (128, 64)), 1):
        cell(f"{stem}_{at}", out, into, 3)
    into = 128
    for stage, (width, out, depth) in enumerate(((128, 256, 1), (160, 512, 1), (192, 768, 2), (224, 1024, 2)), 2):
        for block in range(1, depth + 1):
            name = f"OSA{stage}_{block}"
            at, first = f"backbone.bottom_up.stage{stage}.{name}", into
            for layer in range(5):
                cell(f"{at}.layers.{layer}.{name}_{layer}", width, width if layer else first, 3)
            cell(f"{at}.concat.{name}_concat", out, first + 5 * width, 1)
            if block == depth:
                source.conv(f"{at}.ese.fc", out, out, 1)
            into = out
    table: list[Any] = [
        (r"^backbone\.fpn.*", ""),
        (r"^backbone\.bottom_up\.stem\.stem_(\d)/", lambda m: f"stem.{int(m[1]) - 1}."),
        (r"^backbone\.bottom_up\.stage(\d)\.OSA\d_(\d)", lambda m: f"stages.{int(m[1]) - 2}.blocks.{int(m[2]) - 1}"),
        (r"\.layers\.(\d)\.\w+/", r".conv_mid.\1."),
        (r"\.concat\.\w+/", ".conv_concat."),
        (r"\.ese\.", ".attn."),
        (r"\.norm\.", ".bn."),
    ]
    return to(source, target, table, missing=["head.fc.*", "*.num_batches_tracked"],
              truth="code of both sides: vovnet-detectron2 and timm's vovnet")  # fmt: skip


@pair("blind: MobileOne in Apple's names to timm: three branches of one block", "timm")
def mobileone(small: bool) -> Two:
    """rbr_skip is a norm alone."""
    import timm

    target = timm.create_model("mobileone_s1")
    table = [
        (r"^stem\.", "stage0."),
        (r"^stages\.(\d)\.", lambda m: f"stage{int(m[1]) + 1}."),
        (r"^head\.fc", "linear"),
        (r"\.identity\.", ".rbr_skip."),
        (r"\.conv_kxk\.", ".rbr_conv."),
        (r"\.conv_scale\.", ".rbr_scale."),
    ]

    def name_of(key: str) -> str:
        for pattern, by in table:
            key = re.sub(pattern, by, key)
        return key

    source = like(target, name_of)
    return Two(source, target, [f"{name_of(key)} -> {key}" for key in state(target)],
               proof="code of both sides: ml-mobileone and timm's byobnet")  # fmt: skip


@pair("blind: MobileNetV1 in TF-slim's names to Hugging Face: two layers for each number", "transformers")
def mobilenet_v1(small: bool) -> Two:
    """Listed by letters: Conv2d_10 before Conv2d_1; layers 2i-2 and 2i-1 are depthwise and pointwise i."""
    import transformers

    target = transformers.MobileNetV1ForImageClassification(transformers.MobileNetV1Config(num_labels=1001))
    found, rules = {}, []
    tails = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    for key, tensor in state(target).items():
        if key.endswith("num_batches_tracked"):
            continue
        if key.startswith("classifier"):
            name = "MobilenetV1/Logits/Conv2d_1c_1x1/" + ("biases" if "bias" in key else "weights")
            layout = "" if "bias" in key else "1 1 i o -> o i"
            shape = tuple(tensor.shape) if "bias" in key else (1, 1, *reversed(tensor.shape))
        else:
            at = re.search(r"layer\.(\d+)\.", key)
            number = int(at[1]) if at else -1
            layer = f"Conv2d_{number // 2 + 1}_{'pointwise' if number % 2 else 'depthwise'}" if at else "Conv2d_0"
            tail = key.rsplit(".", 1)[1]
            name, layout, shape = f"MobilenetV1/{layer}/BatchNorm/{tails.get(tail)}", "", tuple(tensor.shape)
            if ".convolution." in key:
                deep = layer.endswith("depthwise")
                o, i, h, w = shape
                name = f"MobilenetV1/{layer}/{'depthwise_weights' if deep else 'weights'}"
                shape, layout = (h, w, *((o, 1) if deep else (i, o))), f"h w {'o i' if deep else 'i o'} -> o i h w"
        found[name] = shape
        rules.append(f"{name} -> {key}" + (f" | {layout}" if layout else ""))
    source = Net()
    for name in sorted(found):
        source.put(name, *found[name])
    source.ints("global_step")
    return Two(source, target, rules, missing=["*.num_batches_tracked"],
               proof="transformers' mobilenet_v1 TF conversion")  # fmt: skip


@pair("blind: EfficientNet-B0 of the TPU's names to timm: conv2d_1 projects, in the first block conv2d does", "timm")
def efficientnet(small: bool) -> Two:
    """Listed by letters: blocks_10 before blocks_2; the norms are counted in each block."""
    import timm

    target = timm.create_model("tf_efficientnet_b0")
    number, table = 0, {}
    for stage, depth in enumerate((1, 2, 2, 3, 3, 4, 1)):
        for block in range(depth):
            here, there = f"efficientnet-b0/blocks_{number}", f"blocks.{stage}.{block}"
            bn = [f"{here}/tpu_batch_normalization{tail}" for tail in ("", "_1", "_2")]
            if stage:
                table |= {f"{there}.conv_pw": f"{here}/conv2d/kernel", f"{there}.bn1": bn[0],
                          f"{there}.conv_dw": f"{here}/depthwise_conv2d/depthwise_kernel", f"{there}.bn2": bn[1],
                          f"{there}.conv_pwl": f"{here}/conv2d_1/kernel", f"{there}.bn3": bn[2]}  # fmt: skip
            else:
                table |= {f"{there}.conv_dw": f"{here}/depthwise_conv2d/depthwise_kernel", f"{there}.bn1": bn[0],
                          f"{there}.conv_pw": f"{here}/conv2d/kernel", f"{there}.bn2": bn[1]}  # fmt: skip
            table |= {f"{there}.se.conv_reduce": f"{here}/se/conv2d/kernel",
                      f"{there}.se.conv_expand": f"{here}/se/conv2d_1/kernel"}  # fmt: skip
            number += 1
    table |= {"conv_stem": "efficientnet-b0/stem/conv2d/kernel", "bn1": "efficientnet-b0/stem/tpu_batch_normalization",
              "conv_head": "efficientnet-b0/head/conv2d/kernel", "bn2": "efficientnet-b0/head/tpu_batch_normalization",
              "classifier": "efficientnet-b0/head/dense/kernel"}  # fmt: skip
    tails = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    found, rules = {}, []
    for key, tensor in state(target).items():
        module, tail = key.rsplit(".", 1)
        if tail == "num_batches_tracked":
            continue
        name, layout, shape = table[module], "", tuple(tensor.shape)
        if "batch_norm" in name:
            name += "/" + tails[tail]
        elif tail == "bias":
            name = name.replace("/kernel", "/bias")
        elif len(shape) == 2:
            layout, shape = "i o -> o i", shape[::-1]
        else:
            o, i, h, w = shape
            deep = "depthwise" in name
            shape, layout = (h, w, *((o, 1) if deep else (i, o))), f"h w {'o i' if deep else 'i o'} -> o i h w"
        found[name] = shape
        rules.append(f"{name} -> {key}" + (f" | {layout}" if layout else ""))
    source = Net()
    for name in sorted(found):
        source.put(name, *found[name])
    return Two(source, target, rules, missing=["*.num_batches_tracked"],
               proof="the authors' TF checkpoint and efficientnet_pytorch's convert_tf_to_pt")  # fmt: skip


@pair("blind: Keras' VGG-16 to torchvision: the first Linear was flattened channels last", "torchvision")
def keras_vgg(small: bool) -> Two:
    """block3_conv2 is features.12."""
    import torchvision

    target = torchvision.models.vgg16()
    source, rules, number, into = Net(), [], 0, 3
    for block, (width, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        for conv in range(1, depth + 1):
            name = f"block{block}_conv{conv}"
            source.put(f"{name}/kernel", 3, 3, into, width)
            source.put(f"{name}/bias", width)
            rules += [f"{name}/kernel -> features.{number}.weight | h w i o -> o i h w",
                      f"{name}/bias -> features.{number}.bias"]  # fmt: skip
            number, into = number + 2, width
        number += 1
    for name, at, shape in (("fc1", 0, (25088, 4096)), ("fc2", 3, (4096, 4096)), ("predictions", 6, (4096, 1000))):
        source.put(f"{name}/kernel", *shape)
        source.put(f"{name}/bias", shape[1])
        layout = "(u v c) o -> o (c u v)" if at == 0 else "i o -> o i"
        rules += [f"{name}/kernel -> classifier.{at}.weight | {layout}", f"{name}/bias -> classifier.{at}.bias"]
    return Two(source, target, rules, vars={"u": 7, "v": 7}, hidden=["classifier.0.weight"],
               proof="keras.applications' vgg16 and torchvision's")  # fmt: skip


@pair("blind: Keras' ConvNeXt-T to timm: long flat names, downsampling between the stages", "timm")
def keras_convnext(small: bool) -> Two:
    """A grouped convolution's kernel is [7, 7, 1, width]."""
    import timm

    target = timm.create_model("convnext_tiny")
    source, rules = Net(), []

    def add(name: str, there: str, kind: str, *shape: int) -> None:
        source.put(f"convnext_tiny_{name}/{'kernel' if kind != 'norm' else 'gamma'}", *shape)
        source.put(f"convnext_tiny_{name}/{'bias' if kind != 'norm' else 'beta'}", shape[-1])
        layout = {"conv": " | h w i o -> o i h w", "dense": " | i o -> o i", "norm": ""}[kind]
        left = [
            f"convnext_tiny_{name}/{part}" for part in (("gamma", "beta") if kind == "norm" else ("kernel", "bias"))
        ]
        rules.extend([f"{left[0]} -> {there}.weight{layout}", f"{left[1]} -> {there}.bias"])

    add("stem_conv", "stem.0", "conv", 4, 4, 3, 96)
    add("stem_layernorm", "stem.1", "norm", 96)
    for stage, depth in enumerate((3, 3, 9, 3)):
        width = 96 << stage
        if stage:
            add(f"downsampling_layernorm_{stage - 1}", f"stages.{stage}.downsample.0", "norm", width // 2)
            add(f"downsampling_conv_{stage - 1}", f"stages.{stage}.downsample.1", "conv", 2, 2, width // 2, width)
        for block in range(depth):
            here, there = f"stage_{stage}_block_{block}", f"stages.{stage}.blocks.{block}"
            add(f"{here}_depthwise_conv", f"{there}.conv_dw", "conv", 7, 7, 1, width)
            add(f"{here}_layernorm", f"{there}.norm", "norm", width)
            add(f"{here}_pointwise_conv_1", f"{there}.mlp.fc1", "dense", width, 4 * width)
            add(f"{here}_pointwise_conv_2", f"{there}.mlp.fc2", "dense", 4 * width, width)
            source.put(f"convnext_tiny_{here}_layer_scale/gamma", width)
            rules.append(f"convnext_tiny_{here}_layer_scale/gamma -> {there}.gamma")
    add("head_layernorm", "head.norm", "norm", 768)
    add("head_dense", "head.fc", "dense", 768, 1000)
    return Two(source, target, rules, proof="keras.applications' convnext and timm's")


@pair("blind: PaddleClas' ResNet50_vd to timm's resnet50d: sixteen blocks in one list", "timm")
def paddle_resnet(small: bool) -> Two:
    """_mean and _variance, short is the way around, the head is turned."""
    import timm

    target = timm.create_model("resnet50d")
    source = Net()

    def cell(name: str, out: int, into: int, kernel: int) -> None:
        source.conv(f"{name}.conv", out, into, kernel, bias=False)
        for tail in ("weight", "bias", "_mean", "_variance"):
            source.put(f"{name}.bn.{tail}", out)

    for at, (out, into) in enumerate(((32, 3), (32, 32), (64, 32))):
        cell(f"stem.{at}", out, into, 3)
    number, into, where = 0, 64, []
    for stage, depth in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for block in range(depth):
            cell(f"blocks.{number}.conv0", width, into, 1)
            cell(f"blocks.{number}.conv1", width, width, 3)
            cell(f"blocks.{number}.conv2", 4 * width, width, 1)
            if not block:
                cell(f"blocks.{number}.short", 4 * width, into, 1)
            into, number = 4 * width, number + 1
            where.append(f"layer{stage + 1}.{block}")
    source.put("fc.weight", 2048, 1000)
    source.put("fc.bias", 1000)
    table: list[Any] = [
        (r"^stem\.([01])\.conv\.", lambda m: f"conv1.{3 * int(m[1])}."),
        (r"^stem\.([01])\.bn\.", lambda m: f"conv1.{3 * int(m[1]) + 1}."),
        (r"^stem\.2\.conv\.", "conv1.6."),
        (r"^stem\.2\.bn\.", "bn1."),
        (r"^blocks\.(\d+)\.", lambda m: where[int(m[1])] + "."),
        (r"\.conv(\d)\.conv", lambda m: f".conv{int(m[1]) + 1}"),
        (r"\.conv(\d)\.bn", lambda m: f".bn{int(m[1]) + 1}"),
        (r"\.short\.conv", ".downsample.1"),
        (r"\.short\.bn", ".downsample.2"),
        (r"\._mean", ".running_mean"),
        (r"\._variance", ".running_var"),
    ]
    return to(source, target, table, [(r"^fc\.weight", "i o -> o i")], missing=["*.num_batches_tracked"],
              truth="code of both sides: PaddleClas' legendary_models/resnet.py and timm's resnet")  # fmt: skip


@pair("blind: DaViT in Microsoft's names to timm: a list of ways down beside a list of stages", "timm")
def davit(small: bool) -> Two:
    """The first way down is the stem; two position encoders stand together in front."""
    import timm

    target = timm.create_model("davit_tiny")
    source = Net()
    for stage in range(4):
        width = 96 << stage
        source.conv(f"patch_embeds.{stage}.proj", width, width // 2 if stage else 3, 2 if stage else 7)
        source.norm(f"patch_embeds.{stage}.norm", width // 2 if stage else width)
    for stage, depth in enumerate((1, 1, 3, 1)):
        width = 96 << stage
        for block in range(depth):
            for half in range(2):
                at = f"main_blocks.{stage}.{block}.{half}"
                source.conv(f"{at}.cpe.0.proj", width, 1, 3)
                source.conv(f"{at}.cpe.1.proj", width, 1, 3)
                source.norm(f"{at}.norm1", width)
                source.lin(f"{at}.attn.qkv", 3 * width, width)
                source.lin(f"{at}.attn.proj", width, width)
                source.norm(f"{at}.norm2", width)
                source.lin(f"{at}.mlp.fc1", 4 * width, width)
                source.lin(f"{at}.mlp.fc2", width, 4 * width)
    source.norm("norms", 768)
    source.lin("head", 1000, 768)
    table: list[Any] = [
        (r"^head\.", "head.fc."),
        (r"^norms\.", "head.norm."),
        (r"^patch_embeds\.0\.proj", "stem.conv"),
        (r"^patch_embeds\.0\.norm", "stem.norm"),
        (r"^patch_embeds\.(\d)\.", r"stages.\1.downsample."),
        (r"downsample\.proj", "downsample.conv"),
        (r"^main_blocks\.(\d)\.", r"stages.\1.blocks."),
        (r"\.cpe\.0", ".cpe1"),
        (r"\.cpe\.1", ".cpe2"),
    ]
    return to(source, target, table, truth="timm's davit.checkpoint_filter_fn")


@pair("blind: MobileSAM's file into timm's TinyViT: one encoder of a segmenter, ways down moved a stage", "timm")
def tiny_vit(small: bool) -> Two:
    """The prompt's encoder and the mask's decoder stay behind."""
    import timm

    target = timm.create_model("tiny_vit_5m_224", num_classes=1000)

    def name_of(key: str) -> str:
        key = re.sub(r"^patch_embed\.conv(\d)\.", lambda m: f"patch_embed.seq.{2 * int(m[1]) - 2}.", key)
        key = re.sub(r"^stages\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key)
        key = re.sub(r"^stages\.", "layers.", key)
        key = re.sub(r"^head\.norm", "norm_head", key)
        key = re.sub(r"^head\.fc", "head", key)
        return "image_encoder." + re.sub(r"\.conv\.weight", ".c.weight", key)

    def order(key: str) -> tuple[int, int]:
        stage = re.match(r"stages\.(\d)\.", key)
        down = "downsample" in key
        place = 0 if key.startswith("patch") else int(stage[1]) + 1 - down if stage else 9
        return place, int(down)

    source = like(target, name_of, order)
    source.conv("image_encoder.neck.0", 256, 320, 1, bias=False)
    source.norm("image_encoder.neck.1", 256)
    source.conv("image_encoder.neck.2", 256, 256, 3, bias=False)
    source.norm("image_encoder.neck.3", 256)
    source.put("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", 2, 128)
    for at in range(4):
        source.put(f"prompt_encoder.point_embeddings.{at}.weight", 1, 256)
    source.put("prompt_encoder.not_a_point_embed.weight", 1, 256)
    for block in range(2):
        at = f"mask_decoder.transformer.layers.{block}"
        for part in ("self_attn", "cross_attn_token_to_image"):
            width = 256 if part == "self_attn" else 128
            source.lins(*(f"{at}.{part}.{x}_proj" for x in "qkv"), out=width, into=256)
            source.lin(f"{at}.{part}.out_proj", 256, width)
        source.lns(*(f"{at}.norm{n}" for n in range(1, 5)), size=256)
        source.lin(f"{at}.mlp.lin1", 2048, 256)
        source.lin(f"{at}.mlp.lin2", 256, 2048)
    source.put("mask_decoder.iou_token.weight", 1, 256)
    source.put("mask_decoder.mask_tokens.weight", 4, 256)
    return Two(source, target, [f"{name_of(key)} -> {key}" for key in state(target)],
               proof="code of both sides: MobileSAM's tiny_vit_sam.py and timm's tiny_vit")  # fmt: skip


@pair("blind: EfficientFormer in Snap's names to timm: one list of stages and ways down, scales are gammas", "timm")
def efficientformer(small: bool) -> Two:
    """network.1 is the way down into stage 1; the last stage has a number without weights."""
    import timm

    target = timm.create_model("efficientformer_l1")

    def name_of(key: str) -> str:
        key = re.sub(r"^stem\.conv(\d)", lambda m: f"patch_embed.{3 * int(m[1]) - 3}", key)
        key = re.sub(r"^stem\.norm(\d)", lambda m: f"patch_embed.{3 * int(m[1]) - 2}", key)
        key = re.sub(r"^stages\.(\d)\.blocks", lambda m: f"network.{2 * int(m[1])}", key)
        key = re.sub(r"^stages\.(\d)\.downsample\.conv", lambda m: f"network.{2 * int(m[1]) - 1}.proj", key)
        key = re.sub(r"^stages\.(\d)\.downsample\.norm", lambda m: f"network.{2 * int(m[1]) - 1}.norm", key)
        key = re.sub(r"\.ls(\d)\.gamma", r".layer_scale_\1", key)
        return key.replace("head_dist", "dist_head")

    def order(key: str) -> tuple[str, int]:
        at = re.match(r"(stages\.\d\.\w+(?:\.\d)?)\.", key)
        place = at[1].replace("downsample", "a") if at else ("a" if key.startswith("stem") else "z")
        return place, int(".ls" not in key)

    source = like(target, name_of, order)
    return Two(source, target, [f"{name_of(key)} -> {key}" for key in state(target)],
               proof="timm's efficientformer.checkpoint_filter_fn")  # fmt: skip


@pair("blind: torchvision's inception_v3 into pytorch-fid's: names became numbers of lists", "torchvision")
def fid(small: bool) -> Two:
    """Pools count as well; the auxiliary head and the classifier stay behind."""
    import torchvision

    source = torchvision.models.inception_v3(init_weights=False)
    where = {
        "Conv2d_1a_3x3": "0.0", "Conv2d_2a_3x3": "0.1", "Conv2d_2b_3x3": "0.2", "Conv2d_3b_1x1": "1.0",
        "Conv2d_4a_3x3": "1.1", "Mixed_5b": "2.0", "Mixed_5c": "2.1", "Mixed_5d": "2.2", "Mixed_6a": "2.3",
        "Mixed_6b": "2.4", "Mixed_6c": "2.5", "Mixed_6d": "2.6", "Mixed_6e": "2.7", "Mixed_7a": "3.0",
        "Mixed_7b": "3.1", "Mixed_7c": "3.2",
    }  # fmt: skip
    rules, target = [], Net()
    for key, tensor in state(source).items():
        module, rest = key.split(".", 1)
        if module in where:
            target[f"blocks.{where[module]}.{rest}"] = tensor
            rules.append(f"{key} -> blocks.{where[module]}.{rest}")
    return Two(source, target, rules, proof="pytorch-fid's inception.py builds its blocks of torchvision's modules")


@pair("blind: mmseg's UPerNet with ConvNeXt to Hugging Face", "transformers")
def upernet(small: bool) -> Two:
    """Ways down stand beside the stages; the classifier comes first in each head."""
    import transformers

    backbone = transformers.ConvNextConfig(out_features=["stage1", "stage2", "stage3", "stage4"],
                                           hidden_sizes=[96, 192, 384, 768], depths=[3, 3, 9, 3])  # fmt: skip
    config = transformers.UperNetConfig(backbone_config=backbone, num_labels=150)
    target = transformers.UperNetForSemanticSegmentation(config)
    source = Net()
    source.conv("backbone.downsample_layers.0.0", 96, 3, 4)
    source.norm("backbone.downsample_layers.0.1", 96)
    for stage in range(1, 4):
        source.norm(f"backbone.downsample_layers.{stage}.0", 48 << stage)
        source.conv(f"backbone.downsample_layers.{stage}.1", 96 << stage, 48 << stage, 2)
    for stage, depth in enumerate((3, 3, 9, 3)):
        width = 96 << stage
        for block in range(depth):
            at = f"backbone.stages.{stage}.{block}"
            source.put(f"{at}.gamma", width)
            source.conv(f"{at}.depthwise_conv", width, 1, 7)
            source.norm(f"{at}.norm", width)
            source.lin(f"{at}.pointwise_conv1", 4 * width, width)
            source.lin(f"{at}.pointwise_conv2", width, 4 * width)
    for stage in range(4):
        source.norm(f"backbone.norm{stage}", 96 << stage)

    def cell(name: str, out: int, into: int, kernel: int) -> None:
        source.conv(f"{name}.conv", out, into, kernel, bias=False)
        source.bn(f"{name}.bn", out)

    source.conv("decode_head.conv_seg", 150, 512, 1)
    for at in range(4):
        cell(f"decode_head.psp_modules.{at}.1", 512, 768, 1)
    cell("decode_head.bottleneck", 512, 768 + 4 * 512, 3)
    for at in range(3):
        cell(f"decode_head.lateral_convs.{at}", 512, 96 << at, 1)
    for at in range(3):
        cell(f"decode_head.fpn_convs.{at}", 512, 512, 3)
    cell("decode_head.fpn_bottleneck", 512, 2048, 3)
    source.conv("auxiliary_head.conv_seg", 150, 256, 1)
    cell("auxiliary_head.convs.0", 256, 384, 3)
    table: list[Any] = [
        (r"^backbone\.downsample_layers\.0\.0", "backbone.embeddings.patch_embeddings"),
        (r"^backbone\.downsample_layers\.0\.1", "backbone.embeddings.layernorm"),
        (r"^backbone\.downsample_layers\.(\d)\.", r"backbone.encoder.stages.\1.downsampling_layer."),
        (r"^backbone\.stages\.(\d)\.(\d)\.", r"backbone.encoder.stages.\1.layers.\2."),
        (r"^backbone\.norm(\d)", lambda m: f"backbone.hidden_states_norms.stage{int(m[1]) + 1}"),
        (r"\.gamma$", ".layer_scale_parameter"),
        (r"depthwise_conv", "dwconv"),
        (r"pointwise_conv", "pwconv"),
        (r"(layers\.\d\.)norm", r"\1layernorm"),
        (r"conv_seg", "classifier"),
        (r"\.bn\.", ".batch_norm."),
    ]
    return to(source, target, table, truth="transformers' convert_convnext_upernet_to_pytorch.py")
