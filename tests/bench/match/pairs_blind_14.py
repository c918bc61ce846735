"""Blind pairs: models of one's own that are almost a known one, and pairs of which nothing or a part belongs together.

In the first kind the source is a real model; the target is made of it key by key, with what is new in between.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.bench.match.blind import Net, Two, none, pair, state
from tests.bench.match.fresh import Swap, renamed

MADE = "made of the real model, key by key"


def extended(source: Any, table: list[Swap], more: Callable[[Net, str], None] | None = None,
             net: Net | None = None) -> tuple[Net, list[str]]:  # fmt: skip
    """The source's tensors under names of the table ("" leaves one out); `more` adds what is new behind each."""
    target, rules = net or Net(), []
    for key, tensor in state(source).items():
        name = renamed(key, table)
        rules.append(f"{key} -> {name or '!'}")
        if name:
            assert name not in target, name
            target[name] = tensor
            if more:
                more(target, name)
    return target, rules


@pair("blind, own: ten of a ViT-S's twelve blocks for videos: attention over time in each, tubelets", "timm")
def video_vit(small: bool) -> Two:
    """time_norm, time_qkv and time_proj have shapes of norm1, qkv and proj; the patches' kernel gains an axis."""
    import timm

    source, width = timm.create_model("vit_small_patch16_224"), 384
    table: list[Swap] = [
        (r"^(head|patch_embed\.proj\.weight|blocks\.1[01]\.).*", ""),
        (r"^cls_token", "encoder.cls"),
        (r"^pos_embed", "encoder.pos_space"),
        (r"^patch_embed\.proj", "encoder.tubelets.proj"),
        (r"^norm\.", "encoder.norm."),
        (r"^blocks\.", "encoder.blocks."),
    ]

    def more(net: Net, name: str) -> None:
        if name == "encoder.pos_space":
            net.put("encoder.pos_time", 1, 8, width)
            net.put("encoder.tubelets.proj.weight", width, 3, 2, 16, 16)
        elif name == "encoder.tubelets.proj.bias":
            before(net, 0)
        elif (found := re.match(r"encoder\.blocks\.(\d)\.mlp\.fc2\.bias", name)) and int(found[1]) < 9:
            before(net, int(found[1]) + 1)

    def before(net: Net, block: int) -> None:
        net.norm(f"encoder.blocks.{block}.time_norm", width)
        net.lin(f"encoder.blocks.{block}.time_qkv", 3 * width, width)
        net.lin(f"encoder.blocks.{block}.time_proj", width, width)

    target, rules = extended(source, table, more)
    target.norm("head.0", width)
    target.lin("head.1", 400, width)
    gone = ["*.time_*", "encoder.pos_time", "encoder.tubelets.proj.weight", "head.*"]
    return Two(source, target, rules, missing=gone, proof=MADE)


@pair("blind, own: PVT v2-B0 as one of two branches, a CNN of the same widths first, fused at each stage", "timm")
def two_branches(small: bool) -> Two:
    """local.stages is new and has PVT's downsampling kernels and norms; a decoder follows."""
    import timm

    source, widths = timm.create_model("pvt_v2_b0"), (32, 64, 160, 256)
    target, into = Net(), 3
    target.conv("net.local.stem", 32, 3, 7, bias=False)
    for stage, width in enumerate(widths):
        at = f"net.local.stages.{stage}"
        if stage:
            target.conv(f"{at}.down", width, into, 3)
            target.bn(f"{at}.down_bn", width)
        for unit in range(2):
            for conv in (1, 2):
                target.conv(f"{at}.units.{unit}.conv{conv}", width, width, 3, bias=False)
                target.bn(f"{at}.units.{unit}.bn{conv}", width)
        into = width
    table: list[Swap] = [
        (r"^head\..*", ""),
        (r"^patch_embed\.", "net.global.stages.0.embed."),
        (r"^stages\.(\d)\.downsample\.", r"net.global.stages.\1.embed."),
        (r"^stages\.(\d)\.norm\.", r"net.global.stages.\1.norm_out."),
        (r"^stages\.", "net.global.stages."),
        (r"\.attn\.sr\.", ".attn.reduce."),
        (r"\.attn\.norm\.", ".attn.reduce_norm."),
    ]
    target, rules = extended(source, table, net=target)
    for stage, width in enumerate(widths):
        target.conv(f"net.fuse.{stage}.squeeze", width // 4, 2 * width, 1)
        target.conv(f"net.fuse.{stage}.excite", 2 * width, width // 4, 1)
        target.conv(f"net.fuse.{stage}.mix", width, 2 * width, 1)
    for stage, width in enumerate(widths):
        target.conv(f"net.decoder.lateral.{stage}", 128, width, 1)
    target.conv("net.decoder.out", 6, 128, 1)
    return Two(source, target, rules, missing=["net.local.*", "net.fuse.*", "net.decoder.*"], proof=MADE)


@pair("blind, own: nine of RoBERTa's twelve layers for relations: adapters, four markers, short words", "transformers")
def relations(small: bool) -> Two:
    """The table of words has four rows more, so it has no source; adapters stand behind wo and w2."""
    import transformers

    source = transformers.RobertaForMaskedLM(transformers.RobertaConfig(max_position_embeddings=514, type_vocab_size=1))
    table: list[Swap] = [
        (r"^(lm_head\..*|roberta\.encoder\.layer\.(9|10|11)\..*|roberta\.embeddings\.word_embeddings.*)$", ""),
        (r"^roberta\.embeddings\.position_embeddings", "enc.emb.pos"),
        (r"^roberta\.embeddings\.token_type_embeddings", "enc.emb.type"),
        (r"^roberta\.embeddings\.LayerNorm", "enc.emb.ln"),
        (r"^roberta\.encoder\.layer\.(\d)", r"enc.blk\1"),
        (r"\.attention\.self\.query", ".wq"),
        (r"\.attention\.self\.key", ".wk"),
        (r"\.attention\.self\.value", ".wv"),
        (r"\.attention\.output\.dense", ".wo"),
        (r"\.attention\.output\.LayerNorm", ".ln_att"),
        (r"\.intermediate\.dense", ".w1"),
        (r"\.output\.dense", ".w2"),
        (r"\.output\.LayerNorm", ".ln_ffn"),
    ]

    def more(net: Net, name: str) -> None:
        if name.endswith((".wo.bias", ".w2.bias")):
            at = name.removesuffix(".bias").replace(".wo", ".ad_att").replace(".w2", ".ad_ffn")
            net.lin(f"{at}.down", 64, 768)
            net.lin(f"{at}.up", 768, 64)

    target = Net()
    target.put("enc.emb.word.weight", 50269, 768)
    target, rules = extended(source, table, more, target)
    target.lin("rel.pair", 768, 3 * 768)
    target.lin("rel.out", 42, 768)
    return Two(source, target, rules, missing=["enc.emb.word.weight", "*.ad_att.*", "*.ad_ffn.*", "rel.*"],
               proof=MADE)  # fmt: skip


@pair("blind, own: RegNetY-400MF in DataParallel for twelve channels: another stem, a pyramid, units by number",
      "torchvision")  # fmt: skip
def regnet_bands(small: bool) -> Two:
    """The stem's kernel does not fit, its norm does; a unit's shortcut is listed last."""
    import torch
    import torchvision

    with torch.device("cpu"):  # its widths are computed with tensors
        plain = torchvision.models.regnet_y_400mf(num_classes=17)
    source = {f"module.{key}": tensor for key, tensor in state(plain).items()}
    table: list[Swap] = [
        (r"^module\.(fc\..*|stem\.0\..*)", ""),
        (r"^module\.stem\.1", "body.stem_bn"),
        (r"^module\.trunk_output\.block(\d)\.block\d-(\d)", lambda m: f"body.stage{m[1]}.unit{int(m[2]) + 1}"),
        (r"\.proj\.0", ".skip"),
        (r"\.proj\.1", ".skip_bn"),
        (r"\.f\.([abc])\.0", r".conv_\1"),
        (r"\.f\.([abc])\.1", r".bn_\1"),
        (r"\.f\.se\.fc1", ".gate.reduce"),
        (r"\.f\.se\.fc2", ".gate.expand"),
    ]
    made, rules = extended(source, table)
    target = Net()
    target.conv("body.stem", 32, 12, 3, bias=False)
    for key in made:
        found = re.match(r"(body\.stage\d\.unit\d+)\.", key)
        if found and ".skip" in key:
            continue
        target[key] = made[key]
        if found and key.endswith("bn_c.num_batches_tracked"):
            target.update({skip: made[skip] for skip in made if skip.startswith(found[1] + ".skip")})
    for level, width in enumerate((104, 208, 440), 2):
        target.conv(f"pyramid.in{level}", 128, width, 1)
        target.conv(f"pyramid.out{level}", 128, 128, 3)
    target.conv("classifier.conv", 128, 384, 3, bias=False)
    target.bn("classifier.bn", 128)
    target.conv("classifier.out", 9, 128, 1)
    return Two(source, target, rules, missing=["body.stem.weight", "pyramid.*", "classifier.*"], proof=MADE)


@pair("blind, own: Swin-T with windows of 8, a stem of convolutions, four of six blocks, convolutions in the MLPs",
      "timm")  # fmt: skip
def swin_windows(small: bool) -> Two:
    """Tables of positions are 225 rows instead of 169 and have no source; norms of three sides are new."""
    import timm

    source = timm.create_model("swin_tiny_patch4_window7_224")
    table: list[Swap] = [
        (r"^(head\.|patch_embed\.proj|layers\.2\.blocks\.[45]).*", ""),
        (r".*relative_position_bias_table$", ""),
        (r"^patch_embed\.norm", "backbone.stem.norm"),
        (r"^layers\.(\d)\.downsample\.(norm|reduction)", r"backbone.stages.\1.merge.\2"),
        (r"^layers\.(\d)\.blocks\.", r"backbone.stages.\1."),
        (r"^norm\.", "backbone.norm."),
    ]

    def more(net: Net, name: str) -> None:
        if found := re.match(r"(backbone\.stages\.(\d)\.\d)\.(norm1|mlp\.fc1)\.bias", name):
            if found[3] == "norm1":
                net.put(f"{found[1]}.attn.bias_table", 225, 3 << int(found[2]))
            else:
                net.conv(f"{found[1]}.mlp.dw", 384 << int(found[2]), 1, 3)

    target = Net()
    target.conv("backbone.stem.conv1", 48, 3, 3)
    target.conv("backbone.stem.conv2", 96, 48, 3)
    target, rules = extended(source, table, more, target)
    for stage in range(3):
        target.norm(f"backbone.side_norm{stage}", 96 << stage)
    for stage in range(4):
        target.lin(f"decoder.proj{stage}", 256, 96 << stage)
    target.conv("decoder.fuse", 256, 1024, 1, bias=False)
    target.bn("decoder.bn", 256)
    target.conv("decoder.seg", 19, 256, 1)
    gone = ["backbone.stem.conv?.*", "*.bias_table", "*.mlp.dw.*", "backbone.side_norm?.*", "decoder.*"]
    return Two(source, target, rules, missing=gone, proof=MADE)


@pair("blind, own: three of Whisper-tiny's four encoder layers for emotions: ten seconds, adapters, a pooling",
      "transformers")  # fmt: skip
def whisper_emotion(small: bool) -> Two:
    """The decoder's self attention has the encoder's shapes and stays behind; positions are 500 instead of 1500."""
    import transformers

    source = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig())
    width = 384
    table: list[Swap] = [
        (r"^(proj_out|model\.decoder|model\.encoder\.embed_positions|model\.encoder\.layers\.3\.).*", ""),
        (r"^model\.encoder\.conv(\d)", r"speech.subsample.conv\1"),
        (r"^model\.encoder\.layer_norm", "speech.last_norm"),
        (r"^model\.encoder\.layers\.(\d)", r"speech.layers.\1"),
        (r"\.self_attn_layer_norm", ".norm_attn"),
        (r"\.final_layer_norm", ".norm_ffn"),
        (r"\.self_attn\.(\w+)_proj", r".attn.\1"),
        (r"\.fc1", ".ffn.up"),
        (r"\.fc2", ".ffn.down"),
    ]

    def more(net: Net, name: str) -> None:
        if name == "speech.subsample.conv2.bias":
            net.put("speech.positions", 500, width)
        elif name.endswith("norm_ffn.bias"):
            at = name.removesuffix("norm_ffn.bias") + "adapter"
            net.norm(f"{at}.norm", width)
            net.lin(f"{at}.down", 96, width)
            net.lin(f"{at}.up", width, 96)

    target, rules = extended(source, table, more)
    target.lin("pool.score", 1, width)
    target.lin("emotion.hidden", width, width)
    target.lin("emotion.out", 7, width)
    return Two(source, target, rules, missing=["speech.positions", "*.adapter.*", "pool.*", "emotion.*"], proof=MADE)


@pair("blind, own: TinyLlama as Flamingo's decoder: gated cross attention in front of every second layer",
      "transformers")  # fmt: skip
def flamingo(small: bool) -> Two:
    """A layer moved into decoder_layer; two tokens more, so table and head have no source; a resampler in front."""
    import transformers

    width, depth = 2048, 22
    source = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=32000, hidden_size=width, intermediate_size=5632, num_hidden_layers=depth, num_attention_heads=32,
        num_key_value_heads=4))  # fmt: skip

    def ff(net: Net, at: str, size: int) -> None:
        net.norm(f"{at}.0", size)
        net.lin(f"{at}.1", 4 * size, size, False)
        net.lin(f"{at}.3", size, 4 * size, False)

    target = Net()
    target.put("perceiver.latents", 64, 1024)
    for layer in range(6):
        at = f"perceiver.layers.{layer}"
        target.lns(f"{at}.0.norm_media", f"{at}.0.norm_latents", size=1024)
        target.lin(f"{at}.0.to_q", 512, 1024, False)
        target.lin(f"{at}.0.to_kv", 1024, 1024, False)
        target.lin(f"{at}.0.to_out", 1024, 512, False)
        ff(target, f"{at}.1", 1024)
    target.norm("perceiver.norm", 1024)
    target.put("lang_encoder.model.embed_tokens.weight", 32002, width)
    table: list[Swap] = [
        (r"^(lm_head|model\.embed_tokens)\..*", ""),
        (r"^model\.layers\.(\d+)\.", r"lang_encoder.model.layers.\1.decoder_layer."),
        (r"^model\.norm", "lang_encoder.model.norm"),
    ]
    made, rules = extended(source, table)
    for key, tensor in made.items():
        found = re.match(r"(lang_encoder\.model\.layers\.(\d+))\.decoder_layer\.self_attn\.q_proj", key)
        if found and int(found[2]) % 2 == 1:
            at = f"{found[1]}.gated_cross_attn_layer"
            target.put(f"{at}.attn_gate", 1)
            target.put(f"{at}.ff_gate", 1)
            target.norm(f"{at}.attn.norm", width)
            target.lin(f"{at}.attn.to_q", 512, width, False)
            target.lin(f"{at}.attn.to_kv", 1024, 1024, False)
            target.lin(f"{at}.attn.to_out", width, 512, False)
            ff(target, f"{at}.ff", width)
        target[key] = tensor
    target.put("lang_encoder.lm_head.weight", 32002, width)
    gone = ["perceiver.*", "*.gated_cross_attn_layer.*", "lang_encoder.model.embed_tokens.*", "lang_encoder.lm_head.*"]
    return Two(source, target, rules, missing=gone, proof=MADE + "; new modules as OpenFlamingo's helpers.py has them")


@pair("blind, own: torchvision's Faster R-CNN with a second way through the pyramid, deepest level first, 7 classes",
      "torchvision")  # fmt: skip
def path_aggregation(small: bool) -> Two:
    """Frozen norms are trained again, so they have counters; new 3x3 convolutions have the smoothing ones' shape."""
    import torchvision

    whole = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    source = {key: tensor for key, tensor in state(whole).items() if not key.endswith("num_batches_tracked")}
    table: list[Swap] = [
        (r"^roi_heads\.box_predictor\..*", ""),
        (r"^backbone\.body\.", "encoder."),
        (r"^backbone\.fpn\.inner_blocks\.(\d)\.0", lambda m: f"neck.lateral_c{int(m[1]) + 2}"),
        (r"^backbone\.fpn\.layer_blocks\.(\d)\.0", lambda m: f"neck.smooth_p{int(m[1]) + 2}"),
        (r"^rpn\.head\.conv\.0\.0", "proposals.shared"),
        (r"^rpn\.head\.cls_logits", "proposals.objectness"),
        (r"^rpn\.head\.bbox_pred", "proposals.deltas"),
        (r"^roi_heads\.box_head\.", "regions."),
    ]
    made, rules = extended(source, table)
    target = Net()
    neck = sorted((key for key in made if key.startswith("neck.")),
                  key=lambda key: ("smooth" in key, -int(key.split(".")[1][-1])))  # fmt: skip
    keys = [key for key in made if not key.startswith("neck.")]
    split_at = next(place for place, key in enumerate(keys) if not key.startswith("encoder."))
    for key in keys[:split_at] + neck:
        target[key] = made[key]
        if key.endswith("running_var"):
            target.ints(key.replace("running_var", "num_batches_tracked"))
    for level in (3, 4, 5):
        target.conv(f"neck.down_n{level}", 256, 256, 3)
        target.conv(f"neck.smooth_n{level}", 256, 256, 3)
    for key in keys[split_at:]:
        target[key] = made[key]
    target.lin("regions.classes", 8, 1024)
    target.lin("regions.boxes", 32, 1024)
    gone = ["*.num_batches_tracked", "neck.down_n?.*", "neck.smooth_n?.*", "regions.classes.*", "regions.boxes.*"]
    return Two(source, target, rules, missing=gone, proof=MADE)


# ---------------------------------------------------------------------------------------------- nothing, or a part


@pair("blind, unrelated: SAM's mask decoder and DETR's decoder, 256 wide with 2048 inside", "transformers")
def sam_detr(small: bool) -> Two:
    """q_proj, k_proj, v_proj and norms of 256 in both; one decodes masks from prompts, the other boxes from queries."""
    import transformers

    source = transformers.SamModel(transformers.SamConfig()).mask_decoder
    target = transformers.DetrForObjectDetection(transformers.DetrConfig()).model.decoder
    return none(source, target, "two models of two papers, neither begun from the other")


@pair("blind, unrelated: EnCodec and DAC: two codecs of sound with widths of 64 to 512", "transformers")
def codecs(small: bool) -> Two:
    """An encoder, a decoder and residual quantizers in both; trained apart, with other activations and strides."""
    import transformers

    source = transformers.EncodecModel(transformers.EncodecConfig())
    target = transformers.DacModel(transformers.DacConfig())
    return none(source, target, "two models of two papers, neither begun from the other")


@pair("blind, part: ResNet-18 into a VAE whose decoder is a ResNet-18 backwards: the encoder alone", "torchvision")
def resnet_vae(small: bool) -> Two:
    """decoder.layer3 has the shapes of layer1, under names of layers; the decoder is new."""
    import torchvision

    source = torchvision.models.resnet18()
    target, rules = extended(source, [(r"^fc\..*", ""), (r"^", "encoder."), (r"^encoder\.$", "")])
    target.lin("decoder.linear", 512 * 16, 256)
    into = 512
    for layer, width in enumerate((256, 128, 64, 64), 1):
        for unit in range(2):
            at, inner = f"decoder.layer{layer}.{unit}", ".1" if not unit else ""
            target.conv(f"{at}.conv1", into, into, 3, bias=False)
            target.bn(f"{at}.bn1", into)
            target.conv(f"{at}.conv2{inner}", width, into, 3, bias=False)
            target.bn(f"{at}.bn2", width)
            if not unit:
                target.conv(f"{at}.upsample.0.1", width, into, 1, bias=False)
                target.bn(f"{at}.upsample.1", width)
            into = width
    target.conv("decoder.conv1", 3, 64, 3, bias=False)
    target.lin("fc_mu", 256, 512)
    target.lin("fc_var", 256, 512)
    return Two(source, target, rules, missing=["decoder.*", "fc_mu.*", "fc_var.*"],
               proof="code read: lightning-bolts' components.py; its encoder is torchvision's ResNet")  # fmt: skip


@pair("blind, part: a geo-localizer's street and aerial towers into one for drones: no header tells which",
      "torchvision")  # fmt: skip
def drones(small: bool) -> Two:
    """Two ResNet-34s without shared weights; the descriptor's layers come twice, too."""
    import torchvision

    plain = state(torchvision.models.resnet34())
    source, target, rules = Net(), Net(), []
    for tower in ("street", "aerial"):
        for key, tensor in plain.items():
            if not key.startswith("fc."):
                source[f"{tower}.cnn.{key}"] = tensor
        source.lin(f"{tower}.embed", 256, 512)
        source.bn(f"{tower}.embed_bn", 256)
    for key in [key for key in source if key.startswith("aerial.")]:
        name = key.replace("aerial.cnn.", "drone.backbone.").replace("aerial.embed", "drone.descriptor")
        target[name] = source[key]
        rules.append(f"{key} -> {name}")
    target.lin("drone.classifier", 701, 256)
    return Two(source, target, rules, missing=["drone.classifier.*"], undecided=["drone.*"],
               proof="two towers of one shape by construction: either may be meant")  # fmt: skip
