"""Blind pairs: detection, video, images with text."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.match.blind import Net, Two, like, pair, split, state, to


def resnet50(net: Net, prefix: str, counter: bool = True, dots: str = "bn") -> None:
    """A ResNet-50 without its head."""
    net.conv(f"{prefix}conv1", 64, 3, 7, bias=False)
    net.bn(f"{prefix}bn1", 64, counter)
    into = 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for block in range(depth):
            at = f"{prefix}layer{stage + 1}.{block}"
            for number, (out, inner, kernel) in enumerate(
                ((width, into, 1), (width, width, 3), (4 * width, width, 1)), 1
            ):
                net.conv(f"{at}.conv{number}", out, inner, kernel, bias=False)
                net.bn(f"{at}.{dots}{number}", out, counter)
            if not block:
                net.conv(f"{at}.downsample.0", 4 * width, into, 1, bias=False)
                net.bn(f"{at}.downsample.1", 4 * width, counter)
            into = 4 * width


def resnet18(net: Net, prefix: str) -> None:
    """A ResNet-18 without its head."""
    net.conv(f"{prefix}conv1", 64, 3, 7, bias=False)
    net.bn(f"{prefix}bn1", 64)
    into = 64
    for stage in range(4):
        width = 64 << stage
        for block in range(2):
            at = f"{prefix}layer{stage + 1}.{block}"
            net.conv(f"{at}.conv1", width, into, 3, bias=False)
            net.bn(f"{at}.bn1", width)
            net.conv(f"{at}.conv2", width, width, 3, bias=False)
            net.bn(f"{at}.bn2", width)
            if into != width:
                net.conv(f"{at}.downsample.0", width, into, 1, bias=False)
                net.bn(f"{at}.downsample.1", width)
            into = width


def deform(net: Net, name: str, width: int, heads: int, levels: int) -> None:
    """Deformable attention with four points."""
    net.lin(f"{name}.sampling_offsets", heads * levels * 8, width)
    net.lin(f"{name}.attention_weights", heads * levels * 4, width)
    net.lin(f"{name}.value_proj", width, width)
    net.lin(f"{name}.output_proj", width, width)


@pair("blind: Deformable DETR by SenseTime to Hugging Face: the decoder's first norm is behind its second attention",
      "transformers", "timm")  # fmt: skip
def deformable_detr(small: bool) -> Two:
    """norm2 follows self attention, norm1 the deformable one; the transformer comes before the backbone."""
    import transformers

    config = transformers.DeformableDetrConfig(num_labels=91, encoder_layers=2, decoder_layers=2,
                                               use_pretrained_backbone=False)  # fmt: skip
    target = transformers.DeformableDetrForObjectDetection(config)
    source, groups = Net(), []
    source.put("transformer.level_embed", 4, 256)
    for layer in range(2):
        at = f"transformer.encoder.layers.{layer}"
        deform(source, f"{at}.self_attn", 256, 8, 4)
        source.norm(f"{at}.norm1", 256)
        source.lin(f"{at}.linear1", 1024, 256)
        source.lin(f"{at}.linear2", 256, 1024)
        source.norm(f"{at}.norm2", 256)
    for layer in range(2):
        at = f"transformer.decoder.layers.{layer}"
        deform(source, f"{at}.cross_attn", 256, 8, 4)
        source.norm(f"{at}.norm1", 256)
        source.mha(f"{at}.self_attn", 256)
        source.norm(f"{at}.norm2", 256)
        source.lin(f"{at}.linear1", 1024, 256)
        source.lin(f"{at}.linear2", 256, 1024)
        source.norm(f"{at}.norm3", 256)
        groups += split(f"{at}.self_attn", [f"model.decoder.layers.{layer}.self_attn.{x}_proj" for x in "qkv"],
                        weight=".in_proj_weight", offset=".in_proj_bias")  # fmt: skip
    source.lin("transformer.reference_points", 2, 256)
    for layer in range(2):
        source.lin(f"class_embed.{layer}", 91, 256)
    for layer in range(2):
        for number, out in enumerate((256, 256, 4)):
            source.lin(f"bbox_embed.{layer}.layers.{number}", out, 256)
    source.put("query_embed.weight", 300, 512)
    for level, (into, kernel) in enumerate(((512, 1), (1024, 1), (2048, 1), (2048, 3))):
        source.conv(f"input_proj.{level}.0", 256, into, kernel)
        source.norm(f"input_proj.{level}.1", 256)
    resnet50(source, "backbone.0.body.", counter=False)
    table: list[Any] = [
        (r".*in_proj_.*", "@"),
        (r"^backbone\.0\.body", "model.backbone.model"),
        (r"^input_proj", "model.input_proj"),
        (r"^query_embed", "model.query_position_embeddings"),
        (r"^transformer\.", "model."),
        (r"(decoder.*)\.norm1", r"\1.encoder_attn_layer_norm"),
        (r"(decoder.*)\.norm2", r"\1.self_attn_layer_norm"),
        (r"(encoder.*)\.norm1", r"\1.self_attn_layer_norm"),
        (r"(encoder.*)\.norm2", r"\1.final_layer_norm"),
        (r"\.norm3", ".final_layer_norm"),
        (r"self_attn\.out_proj", "self_attn.o_proj"),
        (r"cross_attn", "encoder_attn"),
        (r"\.linear(\d)", r".mlp.fc\1"),
    ]
    return to(source, target, table, groups=groups, truth="transformers' convert_deformable_detr_to_pytorch.py")


@pair("blind: Mask2Former in detectron2's names to Hugging Face: Swin's qkv split, cross attention is not",
      "transformers")  # fmt: skip
def mask2former(small: bool) -> Two:
    """Three lists of layers by kind become one list of layers; norms of each level are stages' norms."""
    import transformers

    config = transformers.Mask2FormerConfig(decoder_layers=3, encoder_layers=2, num_labels=133)
    target = transformers.Mask2FormerForUniversalSegmentation(config)
    source, groups = Net(), []
    source.conv("backbone.patch_embed.proj", 96, 3, 4)
    source.norm("backbone.patch_embed.norm", 96)
    swin = "model.pixel_level_module.encoder.swin.encoder.layers"
    for stage, depth in enumerate((2, 2, 18, 2)):
        width = 96 << stage
        for block in range(depth):
            at = f"backbone.layers.{stage}.blocks.{block}"
            source.norm(f"{at}.norm1", width)
            source.put(f"{at}.attn.relative_position_bias_table", 169, 3 << stage)
            source.ints(f"{at}.attn.relative_position_index", 49, 49)
            source.lin(f"{at}.attn.qkv", 3 * width, width)
            source.lin(f"{at}.attn.proj", width, width)
            source.norm(f"{at}.norm2", width)
            source.lin(f"{at}.mlp.fc1", 4 * width, width)
            source.lin(f"{at}.mlp.fc2", width, 4 * width)
            groups += split(f"{at}.attn.qkv", [f"{swin}.{stage}.blocks.{block}.attention.{x}_proj" for x in "qkv"])
        if stage < 3:
            source.lin(f"backbone.layers.{stage}.downsample.reduction", 2 * width, 4 * width, bias=False)
            source.norm(f"backbone.layers.{stage}.downsample.norm", 4 * width)
    for stage in range(4):
        source.norm(f"backbone.norm{stage}", 96 << stage)
    pixel = "sem_seg_head.pixel_decoder"
    for level, into in enumerate((768, 384, 192)):
        source.conv(f"{pixel}.input_proj.{level}.0", 256, into, 1)
        source.norm(f"{pixel}.input_proj.{level}.1", 256)
    source.put(f"{pixel}.transformer.level_embed", 3, 256)
    for layer in range(2):
        at = f"{pixel}.transformer.encoder.layers.{layer}"
        deform(source, f"{at}.self_attn", 256, 8, 3)
        source.norm(f"{at}.norm1", 256)
        source.lin(f"{at}.linear1", 1024, 256)
        source.lin(f"{at}.linear2", 256, 1024)
        source.norm(f"{at}.norm2", 256)
    source.conv(f"{pixel}.mask_features", 256, 256, 1)
    source.conv(f"{pixel}.adapter_1", 256, 96, 1, bias=False)
    source.norm(f"{pixel}.adapter_1.norm", 256)
    source.conv(f"{pixel}.layer_1", 256, 256, 3, bias=False)
    source.norm(f"{pixel}.layer_1.norm", 256)
    head = "sem_seg_head.predictor"
    decoder = "model.transformer_module.decoder.layers"
    for layer in range(2):
        source.mha(f"{head}.transformer_self_attention_layers.{layer}.self_attn", 256)
        source.norm(f"{head}.transformer_self_attention_layers.{layer}.norm", 256)
        groups += split(f"{head}.transformer_self_attention_layers.{layer}.self_attn",
                        [f"{decoder}.{layer}.self_attn.{x}_proj" for x in "qkv"],
                        weight=".in_proj_weight", offset=".in_proj_bias")  # fmt: skip
    for layer in range(2):
        source.mha(f"{head}.transformer_cross_attention_layers.{layer}.multihead_attn", 256)
        source.norm(f"{head}.transformer_cross_attention_layers.{layer}.norm", 256)
    for layer in range(2):
        source.lin(f"{head}.transformer_ffn_layers.{layer}.linear1", 2048, 256)
        source.lin(f"{head}.transformer_ffn_layers.{layer}.linear2", 256, 2048)
        source.norm(f"{head}.transformer_ffn_layers.{layer}.norm", 256)
    source.norm(f"{head}.decoder_norm", 256)
    source.put(f"{head}.query_feat.weight", 100, 256)
    source.put(f"{head}.query_embed.weight", 100, 256)
    source.put(f"{head}.level_embed.weight", 3, 256)
    source.lin(f"{head}.class_embed", 134, 256)
    for layer in range(3):
        source.lin(f"{head}.mask_embed.layers.{layer}", 256, 256)
    source.put("criterion.empty_weight", 134)
    there = "model.transformer_module.decoder"
    table: list[Any] = [
        (r".*attn\.qkv.*|.*self_attention_layers.*in_proj.*", "@"),
        (r".*relative_position_index$", ""),
        (r"^backbone\.norm(\d)",
         lambda m: f"model.pixel_level_module.encoder.hidden_states_norms.stage{int(m[1]) + 1}"),
        (r"^backbone\.patch_embed\.proj",
         "model.pixel_level_module.encoder.swin.embeddings.patch_embeddings.projection"),
        (r"^backbone\.patch_embed\.norm", "model.pixel_level_module.encoder.swin.embeddings.norm"),
        (r"^backbone\.layers", swin),
        (r"(blocks\.\d+\.)norm1", r"\1layernorm_before"),
        (r"(blocks\.\d+\.)norm2", r"\1layernorm_after"),
        (r"attn\.relative_position_bias_table", "attention.relative_position_bias.relative_position_bias_table"),
        (r"attn\.proj\.", "attention.o_proj."),
        (r"^sem_seg_head\.pixel_decoder\.input_proj", "model.pixel_level_module.decoder.input_projections"),
        (r"^sem_seg_head\.pixel_decoder\.transformer", "model.pixel_level_module.decoder"),
        (r"^sem_seg_head\.pixel_decoder\.mask_features", "model.pixel_level_module.decoder.mask_projection"),
        (r"^sem_seg_head\.pixel_decoder\.(\w+)\.norm", r"model.pixel_level_module.decoder.\1.1"),
        (r"^sem_seg_head\.pixel_decoder\.(\w+)\.weight", r"model.pixel_level_module.decoder.\1.0.weight"),
        (r"(decoder\.encoder\.layers\.\d\.)norm1", r"\1self_attn_layer_norm"),
        (r"(decoder\.encoder\.layers\.\d\.)norm2", r"\1final_layer_norm"),
        (r"^sem_seg_head\.predictor\.transformer_self_attention_layers\.(\d)\.norm",
         rf"{there}.layers.\1.self_attn_layer_norm"),
        (r"^sem_seg_head\.predictor\.transformer_self_attention_layers", f"{there}.layers"),
        (r"^sem_seg_head\.predictor\.transformer_cross_attention_layers\.(\d)\.norm",
         rf"{there}.layers.\1.cross_attn_layer_norm"),
        (r"^sem_seg_head\.predictor\.transformer_cross_attention_layers\.(\d)\.multihead_attn",
         rf"{there}.layers.\1.cross_attn"),
        (r"^sem_seg_head\.predictor\.transformer_ffn_layers\.(\d)\.norm", rf"{there}.layers.\1.final_layer_norm"),
        (r"^sem_seg_head\.predictor\.transformer_ffn_layers", f"{there}.layers"),
        (r"^sem_seg_head\.predictor\.decoder_norm", f"{there}.layernorm"),
        (r"^sem_seg_head\.predictor\.query_feat", "model.transformer_module.queries_features"),
        (r"^sem_seg_head\.predictor\.query_embed", "model.transformer_module.queries_embedder"),
        (r"^sem_seg_head\.predictor\.level_embed", "model.transformer_module.level_embed"),
        (r"^sem_seg_head\.predictor\.class_embed", "class_predictor"),
        (r"^sem_seg_head\.predictor\.mask_embed\.layers\.(\d)", rf"{there}.mask_predictor.mask_embedder.\1.0"),
        (r"\.linear(\d)", r".fc\1"),
    ]  # fmt: skip
    return to(source, target, table, groups=groups, missing=["model.pixel_level_module.encoder.swin.layernorm.*"],
              truth="transformers' convert_mask2former_original_pytorch_checkpoint_to_pytorch.py")  # fmt: skip


@pair(
    "blind: mmdet's DETR to Hugging Face: norms by number, a perceptron ends outside of itself", "transformers", "timm"
)
def mmdet_detr(small: bool) -> Two:
    """reg_ffn's two layers and fc_reg are one predictor of three layers; the head comes first."""
    import transformers

    config = transformers.DetrConfig(num_labels=80, encoder_layers=2, decoder_layers=2, use_pretrained_backbone=False)
    target = transformers.DetrForObjectDetection(config)
    source, groups = Net(), []
    resnet50(source, "backbone.")
    source.conv("neck.convs.0.conv", 256, 2048, 1)
    source.lin("bbox_head.fc_cls", 81, 256)
    source.lin("bbox_head.reg_ffn.layers.0.0", 256, 256)
    source.lin("bbox_head.reg_ffn.layers.1", 256, 256)
    source.lin("bbox_head.fc_reg", 4, 256)
    for side, attentions in (("encoder", ["self_attn"]), ("decoder", ["self_attn", "cross_attn"])):
        for layer in range(2):
            at = f"{side}.layers.{layer}"
            for part in attentions:
                source.mha(f"{at}.{part}.attn", 256)
                there = f"model.{at}.{part.replace('cross', 'encoder')}"
                groups += split(f"{at}.{part}.attn", [f"{there}.{x}_proj" for x in "qkv"],
                                weight=".in_proj_weight", offset=".in_proj_bias")  # fmt: skip
            source.lin(f"{at}.ffn.layers.0.0", 2048, 256)
            source.lin(f"{at}.ffn.layers.1", 256, 2048)
            source.lns(*(f"{at}.norms.{n}" for n in range(len(attentions) + 1)), size=256)
    source.norm("decoder.post_norm", 256)
    source.put("query_embedding.weight", 100, 256)
    table: list[Any] = [
        (r".*in_proj_.*", "@"),
        (r".*num_batches_tracked", ""),
        (r"^backbone\.", "model.backbone.model."),
        (r"^neck\.convs\.0\.conv", "model.input_projection"),
        (r"^query_embedding", "model.query_position_embeddings"),
        (r"^bbox_head\.fc_cls", "class_labels_classifier"),
        (r"^bbox_head\.reg_ffn\.layers\.0\.0", "bbox_predictor.layers.0"),
        (r"^bbox_head\.reg_ffn\.layers\.1", "bbox_predictor.layers.1"),
        (r"^bbox_head\.fc_reg", "bbox_predictor.layers.2"),
        (r"^decoder\.post_norm", "model.decoder.layernorm"),
        (r"^(encoder|decoder)\.", r"model.\1."),
        (r"cross_attn\.attn\.out_proj", "encoder_attn.o_proj"),
        (r"self_attn\.attn\.out_proj", "self_attn.o_proj"),
        (r"\.ffn\.layers\.0\.0", ".mlp.fc1"),
        (r"\.ffn\.layers\.1", ".mlp.fc2"),
        (r"\.norms\.0", ".self_attn_layer_norm"),
        (r"(encoder\.layers\.\d)\.norms\.1", r"\1.final_layer_norm"),
        (r"\.norms\.1", ".encoder_attn_layer_norm"),
        (r"\.norms\.2", ".final_layer_norm"),
    ]
    return to(source, target, table, groups=groups, truth="code of both sides; norms in the order of use")


@pair("blind: CenterNet with deformable deconvolutions to mmdet: numbers of one list pair up")
def centernet(small: bool) -> Two:
    """wh and reg are of one shape; the deformable convolution's bias has no place in front of a norm."""
    source = Net()
    resnet18(source, "")
    target = Net()
    resnet18(target, "backbone.")
    into = 512
    for at, out in enumerate((256, 128, 64)):
        here, there = 6 * at, 2 * at
        source.conv(f"deconv_layers.{here}", out, into, 3)
        source.conv(f"deconv_layers.{here}.conv_offset_mask", 27, into, 3)
        source.bn(f"deconv_layers.{here + 1}", out)
        source.put(f"deconv_layers.{here + 3}.weight", out, out, 4, 4)
        source.bn(f"deconv_layers.{here + 4}", out)
        target.conv(f"neck.deconv_layers.{there}.conv", out, into, 3, bias=False)
        target.conv(f"neck.deconv_layers.{there}.conv.conv_offset", 27, into, 3)
        target.bn(f"neck.deconv_layers.{there}.bn", out)
        target.put(f"neck.deconv_layers.{there + 1}.conv.weight", out, out, 4, 4)
        target.bn(f"neck.deconv_layers.{there + 1}.bn", out)
        into = out
    for head, out in (("hm", 80), ("wh", 2), ("reg", 2)):
        source.conv(f"{head}.0", 64, 64, 3)
        source.conv(f"{head}.2", out, 64, 1)
    for head, out in (("heatmap", 80), ("wh", 2), ("offset", 2)):
        target.conv(f"bbox_head.{head}_head.0", 64, 64, 3)
        target.conv(f"bbox_head.{head}_head.2", out, 64, 1)
    words = {"0": "{}.conv", "1": "{}.bn", "3": "{}.conv", "4": "{}.bn"}

    def deconv(match: re.Match[str]) -> str:
        at, part = divmod(int(match[1]), 6)
        return "neck.deconv_layers." + words[str(part)].format(2 * at + part // 3)

    table: list[Any] = [
        (r"^deconv_layers\.(0|6|12)\.bias", ""),
        (r"^deconv_layers\.(\d+)", deconv),
        (r"conv_offset_mask", "conv_offset"),
        (r"^hm\.", "bbox_head.heatmap_head."),
        (r"^wh\.", "bbox_head.wh_head."),
        (r"^reg\.", "bbox_head.offset_head."),
        (r"^(conv1|bn1|layer)", r"backbone.\1"),
    ]
    return to(source, target, table, truth="code of both sides: CenterNet's resnet_dcn.py, mmdet's CTResNetNeck")


@pair("blind: mmaction's Video Swin to torchvision's swin3d_t: stages and ways down by number", "torchvision")
def video_swin(small: bool) -> Two:
    """features.1 is the way down behind the first stage."""
    import torchvision

    target = torchvision.models.video.swin3d_t()

    def name_of(key: str) -> str:
        key = re.sub(r"^head\.", "cls_head.fc_cls.", key)
        if found := re.match(r"features\.(\d)\.", key):
            stage, down = divmod(int(found[1]), 2)
            rest = key[found.end() :]
            key = f"layers.{stage}.downsample.{rest}" if down else f"layers.{stage}.blocks.{rest}"
        key = re.sub(r"\.mlp\.0", ".mlp.fc1", key)
        key = re.sub(r"\.mlp\.3", ".mlp.fc2", key)
        return key if key.startswith("cls") else f"backbone.{key}"

    return Two(like(target, name_of), target, [f"{name_of(key)} -> {key}" for key in state(target)],
               proof="code of both sides: Video-Swin-Transformer and torchvision's swin_transformer")  # fmt: skip


@pair("blind: MViT in PySlowFast's names to torchvision: positions lose axes, norms belong to pools", "torchvision")
def mvit(small: bool) -> Two:
    """cls_token [1, 1, 96] is pos_encoding.class_token [96]."""
    import torchvision

    target = torchvision.models.video.mvit_v1_b()
    names = {
        "pos_encoding.class_token": ("cls_token", 2),
        "pos_encoding.spatial_pos": ("pos_embed_spatial", 1),
        "pos_encoding.temporal_pos": ("pos_embed_temporal", 1),
        "pos_encoding.class_pos": ("pos_embed_class", 2),
    }
    import torch

    source, rules = Net(), []
    for key, (name, ones) in names.items():
        shape = tuple(state(target)[key].shape)
        source[name] = torch.empty((1,) * ones + shape)
        rules.append(f"{name} -> {key} | " + ("1 1 c -> c" if ones == 2 else "1 n c -> n c"))

    def name_of(key: str) -> str:
        key = re.sub(r"^conv_proj", "patch_embed.proj", key)
        key = re.sub(r"^head\.1", "head.projection", key)
        key = re.sub(r"^(blocks\.\d+)\.project\.", r"\1.proj.", key)
        key = re.sub(r"\.attn\.project\.0", ".attn.proj", key)
        key = re.sub(r"\.pool_(.)\.pool", r".pool_\1", key)
        key = re.sub(r"\.pool_(.)\.norm_act\.0", r".norm_\1", key)
        key = re.sub(r"\.mlp\.0", ".mlp.fc1", key)
        return re.sub(r"\.mlp\.3", ".mlp.fc2", key)

    parts = ["norm1", "attn", "norm2", "mlp", "proj"]

    def order(key: str) -> tuple[int, int]:
        found = re.match(r"blocks\.(\d+)\.(\w+)", key)
        if found:
            return int(found[1]), parts.index(found[2].replace("project", "proj"))
        return (-1 if key.startswith("conv") else 99), 0

    keys = [key for key in state(target) if key not in names]
    for key in sorted(keys, key=order):
        source[name_of(key)] = state(target)[key]
        rules.append(f"{name_of(key)} -> {key}")
    return Two(source, target, rules, proof="code of both sides: PySlowFast's MViT and torchvision's")


@pair("blind: S3D by kylemin in DataParallel to torchvision: conv_s, bn_s, conv_t, bn_t are numbers", "torchvision")
def s3d(small: bool) -> Two:
    """Both number the modules of the list alike; a branch that pools has its convolution at 1."""
    import torchvision

    target = torchvision.models.video.s3d()

    def name_of(key: str) -> str:
        key = re.sub(r"^classifier\.1", "fc.0", key)
        key = re.sub(r"^features\.", "base.", key)
        tail = key.rsplit(".", 1)[1]
        stem = key.rsplit(".", 1)[0]
        found = re.match(r"base\.(\d+)\.(?:(branch\d)\.)?([\d.]+)$", stem)
        if not found:
            return f"module.{key}"
        at, branch, path = found[1], found[2], found[3].split(".")
        conv = "bn" if path[-1] == "1" else "conv"
        head = path[:-1]
        if branch == "branch0":
            where = f"{branch}.0.{conv}"
        elif branch == "branch3":
            where = f"{branch}.1.{conv}"
        elif branch:
            where = f"{branch}.{head[0]}.{conv}" + ("" if head[0] == "0" else f"_{'st'[int(head[1])]}")
        else:
            where = conv + (f"_{'st'[int(head[0])]}" if head else "")
        return f"module.base.{at}.{where}.{tail}"

    return Two(like(target, name_of), target, [f"{name_of(key)} -> {key}" for key in state(target)],
               proof="code of both sides: kylemin/S3D and torchvision's s3d")  # fmt: skip


@pair("blind: C3D by DavideA to mmaction: pairs of convolutions without a norm")
def c3d(small: bool) -> Two:
    """The last of three Linears is the head's."""
    source, target = Net(), Net()
    into = 3
    names = ["conv1", "conv2", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b"]
    for name, out in zip(names, (64, 128, 256, 256, 512, 512, 512, 512), strict=True):
        source.conv(name, out, into, 3, 3, 3)
        target.conv(f"backbone.{name if name[-1].isalpha() else name + 'a'}.conv", out, into, 3, 3, 3)
        into = out
    for name, there, out, inner in (("fc6", "backbone.fc6", 4096, 8192), ("fc7", "backbone.fc7", 4096, 4096),
                                    ("fc8", "cls_head.fc_cls", 487, 4096)):  # fmt: skip
        source.lin(name, out, inner)
        target.lin(there, out, inner)
    table: list[Any] = [(r"^conv(\d)\.", r"conv\1a."), (r"^(conv\d.)\.", r"backbone.\1.conv."),
                        (r"^fc8", "cls_head.fc_cls"), (r"^fc", "backbone.fc")]  # fmt: skip
    return to(source, target, table, truth="code of both sides: c3d-pytorch and mmaction's C3D")


@pair("blind: ViLT by dandelin to Hugging Face: a timm ViT under text embeddings", "transformers")
def vilt(small: bool) -> Two:
    """Two tables of token types of one shape; the head's bias stands alone."""
    import transformers

    target = transformers.ViltForMaskedLM(transformers.ViltConfig(num_hidden_layers=3))
    source, width, groups = Net(), 768, []
    source.ints("text_embeddings.position_ids", 1, 40)
    source.put("text_embeddings.word_embeddings.weight", 30522, width)
    source.put("text_embeddings.position_embeddings.weight", 40, width)
    source.put("text_embeddings.token_type_embeddings.weight", 2, width)
    source.norm("text_embeddings.LayerNorm", width)
    source.put("token_type_embeddings.weight", 2, width)
    source.put("transformer.cls_token", 1, 1, width)
    source.put("transformer.pos_embed", 1, 145, width)
    source.conv("transformer.patch_embed.proj", width, 3, 32)
    for block in range(3):
        at = f"transformer.blocks.{block}"
        source.norm(f"{at}.norm1", width)
        source.lin(f"{at}.attn.qkv", 3 * width, width)
        source.lin(f"{at}.attn.proj", width, width)
        source.norm(f"{at}.norm2", width)
        source.lin(f"{at}.mlp.fc1", 4 * width, width)
        source.lin(f"{at}.mlp.fc2", width, 4 * width)
        there = f"vilt.encoder.layer.{block}.attention.attention"
        groups += split(f"{at}.attn.qkv", [f"{there}.{x}" for x in ("query", "key", "value")])
    source.norm("transformer.norm", width)
    source.lin("pooler.dense", width, width)
    source.put("mlm_score.bias", 30522)
    source.lin("mlm_score.transform.dense", width, width)
    source.norm("mlm_score.transform.LayerNorm", width)
    source.put("mlm_score.decoder.weight", 30522, width)
    source.lin("itm_score.fc", 2, width)
    table: list[Any] = [
        (r".*qkv.*", "@"),
        (r"^(itm_score.*|text_embeddings\.position_ids)$", ""),
        (r"^text_embeddings", "vilt.embeddings.text_embeddings"),
        (r"^token_type", "vilt.embeddings.token_type"),
        (r"^transformer\.cls", "vilt.embeddings.cls"),
        (r"^transformer\.pos_embed", "vilt.embeddings.position_embeddings"),
        (r"^transformer\.patch_embed\.proj", "vilt.embeddings.patch_embeddings.projection"),
        (r"^transformer\.norm", "vilt.layernorm"),
        (r"^transformer\.blocks", "vilt.encoder.layer"),
        (r"^pooler", "vilt.pooler"),
        (r"^mlm_score\.bias", "mlm_score.decoder.bias"),
        (r"\.attn\.proj", ".attention.output.dense"),
        (r"\.norm1", ".layernorm_before"),
        (r"\.norm2", ".layernorm_after"),
        (r"\.mlp\.fc1", ".intermediate.dense"),
        (r"\.mlp\.fc2", ".output.dense"),
    ]
    return to(source, target, table, groups=groups, truth="transformers' convert_vilt_original_to_pytorch.py")


@pair("blind: GIT in Microsoft's names to Hugging Face: CLIP's tower under a BERT without cross attention",
      "transformers")  # fmt: skip
def git(small: bool) -> Two:
    """Both are 768 wide; ln_1 stands behind the attention in CLIP's file."""
    import transformers

    config = transformers.GitConfig(num_hidden_layers=2, vision_config={"num_hidden_layers": 3})
    target = transformers.GitForCausalLM(config)
    source, width, groups = Net(), 768, []
    source.put("module.image_encoder.class_embedding", width)
    source.put("module.image_encoder.positional_embedding", 197, width)
    source.conv("module.image_encoder.conv1", width, 3, 16, bias=False)
    source.norm("module.image_encoder.ln_pre", width)
    vision = "git.image_encoder.vision_model"
    for block in range(3):
        at = f"module.image_encoder.transformer.resblocks.{block}"
        source.mha(f"{at}.attn", width)
        source.norm(f"{at}.ln_1", width)
        source.lin(f"{at}.mlp.c_fc", 4 * width, width)
        source.lin(f"{at}.mlp.c_proj", width, 4 * width)
        source.norm(f"{at}.ln_2", width)
        groups += split(f"{at}.attn", [f"{vision}.encoder.layers.{block}.self_attn.{x}_proj" for x in "qkv"],
                        weight=".in_proj_weight", offset=".in_proj_bias")  # fmt: skip
    source.norm("module.image_encoder.ln_post", width)
    source.lin("module.textual.visual_projection.0", width, width)
    source.norm("module.textual.visual_projection.1", width)
    source.put("module.textual.embedding.words.weight", 30522, width)
    source.put("module.textual.embedding.positions.weight", 1024, width)
    source.norm("module.textual.embedding.layer_norm", width)
    for block in range(2):
        at = f"module.textual.transformer.encoder.layer.{block}"
        source.lins(*(f"{at}.attention.self.{x}" for x in ("query", "key", "value")), out=width, into=width)
        source.lin(f"{at}.attention.output.dense", width, width)
        source.norm(f"{at}.attention.output.LayerNorm", width)
        source.lin(f"{at}.intermediate.dense", 4 * width, width)
        source.lin(f"{at}.output.dense", width, 4 * width)
        source.norm(f"{at}.output.LayerNorm", width)
    source.lin("module.textual.output", 30522, width)
    table: list[Any] = [
        (r".*in_proj.*", "@"),
        (r"^module\.", ""),
        (r"^image_encoder\.class_emb", f"{vision}.embeddings.class_emb"),
        (r"^image_encoder\.positional_embedding", f"{vision}.embeddings.position_embedding.weight"),
        (r"^image_encoder\.conv1", f"{vision}.embeddings.patch_embedding"),
        (r"^image_encoder\.ln_pre", f"{vision}.pre_layrnorm"),
        (r"^image_encoder\.ln_post", f"{vision}.post_layernorm"),
        (r"^image_encoder\.transformer\.resblocks", f"{vision}.encoder.layers"),
        (r"\.attn\.out_proj", ".self_attn.out_proj"),
        (r"\.ln_(\d)", r".layer_norm\1"),
        (r"\.c_fc", ".fc1"),
        (r"\.c_proj", ".fc2"),
        (r"^textual\.visual_projection", "git.visual_projection.visual_projection"),
        (r"^textual\.embedding\.words", "git.embeddings.word_embeddings"),
        (r"^textual\.embedding\.positions", "git.embeddings.position_embeddings"),
        (r"^textual\.embedding\.layer_norm", "git.embeddings.LayerNorm"),
        (r"^textual\.transformer\.encoder", "git.encoder"),
        (r"^textual\.output", "output"),
    ]
    return to(source, target, table, groups=groups, truth="transformers' convert_git_to_pytorch.py")


@pair("blind: BLIP-2 in LAVIS' names to Hugging Face: q and v have biases, k gets zeros", "transformers")
def blip2(small: bool) -> Two:
    """Three models in one file."""
    import transformers

    config = transformers.Blip2Config(
        vision_config={"num_hidden_layers": 2},
        qformer_config={"num_hidden_layers": 2, "vocab_size": 30523},
        text_config={"model_type": "opt", "num_hidden_layers": 2},
    )
    target = transformers.Blip2ForConditionalGeneration(config)
    source, width, groups = Net(), 1408, []
    source.put("query_tokens", 1, 32, 768)
    source.put("visual_encoder.cls_token", 1, 1, width)
    source.put("visual_encoder.pos_embed", 1, 257, width)
    source.conv("visual_encoder.patch_embed.proj", width, 3, 14)
    for block in range(2):
        at = f"visual_encoder.blocks.{block}"
        source.norm(f"{at}.norm1", width)
        source.put(f"{at}.attn.q_bias", width)
        source.put(f"{at}.attn.v_bias", width)
        source.lin(f"{at}.attn.qkv", 3 * width, width, bias=False)
        source.lin(f"{at}.attn.proj", width, width)
        source.norm(f"{at}.norm2", width)
        source.lin(f"{at}.mlp.fc1", 6144, width)
        source.lin(f"{at}.mlp.fc2", width, 6144)
        there = f"vision_model.encoder.layers.{block}.self_attn.qkv.bias"
        groups.append(f"{at}.attn.q_bias, {at}.attn.v_bias -> {there} | q, v -> (q + 1408 + v)")
    source.norm("ln_vision", width)
    source.norm("Qformer.bert.embeddings.LayerNorm", 768)
    for block in range(2):
        at = f"Qformer.bert.encoder.layer.{block}"
        for part, into in (("attention", 768), ("crossattention", 1408))[: 2 - block]:
            source.lin(f"{at}.{part}.self.query", 768, 768)
            source.lin(f"{at}.{part}.self.key", 768, into)
            source.lin(f"{at}.{part}.self.value", 768, into)
            source.lin(f"{at}.{part}.output.dense", 768, 768)
            source.norm(f"{at}.{part}.output.LayerNorm", 768)
        source.lin(f"{at}.intermediate_query.dense", 3072, 768)
        source.lin(f"{at}.output_query.dense", 768, 3072)
        source.norm(f"{at}.output_query.LayerNorm", 768)
    for key, tensor in state(target).items():
        if key.startswith("language_model."):
            source[key.replace("language_model.", "opt_model.", 1)] = tensor
    source.lin("opt_proj", 768, 768)
    table: list[Any] = [
        (r".*attn\.[qv]_bias", "@"),
        (r"^visual_encoder\.cls_token", "vision_model.embeddings.class_embedding"),
        (r"^visual_encoder\.pos_embed", "vision_model.embeddings.position_embedding"),
        (r"^visual_encoder\.patch_embed\.proj", "vision_model.embeddings.patch_embedding"),
        (r"^visual_encoder\.blocks", "vision_model.encoder.layers"),
        (r"\.attn\.qkv", ".self_attn.qkv"),
        (r"\.attn\.proj", ".self_attn.projection"),
        (r"(vision.*)\.norm(\d)", r"\1.layer_norm\2"),
        (r"^ln_vision", "vision_model.post_layernorm"),
        (r"^Qformer\.bert\.embeddings\.LayerNorm", "qformer.layernorm"),
        (r"^Qformer\.bert\.", "qformer."),
        (r"attention\.self", "attention.attention"),
        (r"^opt_proj", "language_projection"),
        (r"^opt_model", "language_model"),
    ]
    return to(source, target, table, groups=groups, truth="transformers' convert_blip_2_original_to_pytorch.py")


@pair("blind: OpenVLA in Prismatic's names to Hugging Face's: two timm ViTs and a Llama", "timm", "transformers")
def openvla(small: bool) -> Two:
    """gamma became scale_factor; the projector's even numbers are fc1 to fc3; the projector was last."""
    import timm
    import transformers

    dino = state(timm.create_model("vit_large_patch14_reg4_dinov2", num_classes=0, img_size=224, depth=3))
    siglip = state(timm.create_model("vit_so400m_patch14_siglip_224", num_classes=0, depth=3))
    config = transformers.LlamaConfig(vocab_size=32064, hidden_size=4096, intermediate_size=11008,
                                      num_hidden_layers=2, num_attention_heads=32)  # fmt: skip
    llama = state(transformers.LlamaForCausalLM(config))
    source, target, rules = Net(), Net(), []

    def move(here: str, there: str, tensor: Any) -> None:
        source[here], target[there] = tensor, tensor
        rules.append(f"{here} -> {there}")

    for key, tensor in dino.items():
        move(f"vision_backbone.dino_featurizer.{key}",
             f"vision_backbone.featurizer.{key.replace('.gamma', '.scale_factor')}", tensor)  # fmt: skip
    for key, tensor in siglip.items():
        move(f"vision_backbone.siglip_featurizer.{key}", f"vision_backbone.fused_featurizer.{key}", tensor)
    for key, tensor in llama.items():
        move(f"llm_backbone.llm.{key}", f"language_model.{key}", tensor)
    sizes = Net()
    sizes.lin("0", 8704, 2176)
    sizes.lin("2", 4096, 8704)
    sizes.lin("4", 4096, 4096)
    for key, tensor in sizes.items():
        number, tail = key.split(".")
        move(f"projector.projector.{key}", f"projector.fc{int(number) // 2 + 1}.{tail}", tensor)
    shown = sorted(target, key=lambda key: ("vpl".index(key[0]),))
    return Two(source, {key: target[key] for key in shown}, rules,
               proof="OpenVLA's convert_openvla_weights_to_hf.py")  # fmt: skip
