"""Pairs of vision models of torchvision, timm and transformers."""

from __future__ import annotations

import copy
from typing import Any

from tests.bench.match.pairs import (
    Two,
    both_sorted,
    headers_only,
    image,
    pair,
    shuffled,
    sorted_keys,
    variant,
)
from tests.bench.match.pairs_vision import tv_vit

# ---------------------------------------------------------------------------------------------- timm


def timm_vit(small: bool, depth: int = 12) -> Any:
    import timm

    if small:
        sizes = {"img_size": 32, "patch_size": 16, "depth": 3, "num_heads": 2, "embed_dim": 32, "mlp_ratio": 2}
        return timm.create_model("vit_base_patch16_224", num_classes=5, **{**sizes, "depth": min(depth, 3)})
    return timm.create_model("vit_base_patch16_224", depth=depth)


@pair("vit_b_16 to timm", "torchvision", "timm")
def vit_to_timm(small: bool) -> Two:
    return Two(tv_vit(small), timm_vit(small), ["torchvision-vit-to-timm"], ask=lambda m: m(image()))


@pair("timm to vit_b_16", "torchvision", "timm")
def timm_to_vit(small: bool) -> Two:
    return Two(timm_vit(small), tv_vit(small), ["torchvision-vit-to-timm"], is_backwards=True, ask=lambda m: m(image()))


@pair("vit_b_16 to timm with half the blocks", "torchvision", "timm")
def vit_truncated(small: bool) -> Two:
    depth = 2 if small else 6

    def first_blocks(model: Any) -> Any:
        model = copy.deepcopy(model)
        model.encoder.layers = model.encoder.layers[:depth]
        return model(image())

    return Two(
        tv_vit(small), timm_vit(small, depth), ["torchvision-vit-to-timm"], ask=first_blocks,
        ask_target=lambda m: m(image()),
    )  # fmt: skip


variant("vit_b_16 to timm, headers only", "vit_b_16 to timm", headers_only)
variant("vit_b_16 to timm, both sorted", "vit_b_16 to timm", both_sorted)
variant("vit_b_16 to timm, target shuffled", "vit_b_16 to timm", shuffled)


def timm_swin(small: bool) -> Any:
    import timm

    sizes = {"depths": (2, 2, 2, 2), "embed_dim": 24, "num_classes": 5} if small else {}
    return timm.create_model("swin_tiny_patch4_window7_224", **sizes)


def timm_convnext(small: bool) -> Any:
    import timm

    sizes = {"depths": (2, 1, 1, 1), "dims": (8, 16, 32, 64), "num_classes": 5} if small else {}
    return timm.create_model("convnext_tiny", **sizes)


@pair("swin_t to timm", "torchvision", "timm")
def swin_to_timm(small: bool) -> Two:
    import torchvision

    source = torchvision.models.swin_t()
    if small:
        source = torchvision.models.SwinTransformer([4, 4], 24, [2] * 4, [3, 6, 12, 24], [7, 7], num_classes=5)
    return Two(source, timm_swin(small), ["torchvision-swin-to-timm"], ask=lambda m: m(image(224)))


@pair("convnext_tiny to timm", "torchvision", "timm")
def convnext_to_timm(small: bool) -> Two:
    import torchvision

    source = torchvision.models.convnext_tiny()
    if small:
        block = torchvision.models.convnext.CNBlockConfig
        stages = [block(8, 16, 2), block(16, 32, 1), block(32, 64, 1), block(64, None, 1)]
        source = torchvision.models.ConvNeXt(stages, num_classes=5)
    return Two(source, timm_convnext(small), ["torchvision-convnext-to-timm"], ask=lambda m: m(image(64)))


variant("convnext_tiny to timm, both sorted", "convnext_tiny to timm", both_sorted)


@pair("efficientnet_b0 to timm", "torchvision", "timm")
def efficientnet_to_timm(small: bool) -> Two:
    import timm
    import torchvision

    rules = [
        "features.0.0.{p*} -> conv_stem.{p*}",
        "features.0.1.{p*} -> bn1.{p*}",
        "features.1.{b}.block.0.{n=0|1}.{p*} -> blocks.0.{b}.{n=conv_dw|bn1}.{p*}",
        "features.1.{b}.block.1.{n=fc1|fc2}.{p*} -> blocks.0.{b}.se.{n=conv_reduce|conv_expand}.{p*}",
        "features.1.{b}.block.2.{n=0|1}.{p*} -> blocks.0.{b}.{n=conv_pw|bn2}.{p*}",
        "features.8.0.{p*} -> conv_head.{p*}",
        "features.8.1.{p*} -> bn2.{p*}",
        "features.{s+1}.{b}.block.0.{n=0|1}.{p*} -> blocks.{s}.{b}.{n=conv_pw|bn1}.{p*}",
        "features.{s+1}.{b}.block.1.{n=0|1}.{p*} -> blocks.{s}.{b}.{n=conv_dw|bn2}.{p*}",
        "features.{s+1}.{b}.block.2.{n=fc1|fc2}.{p*} -> blocks.{s}.{b}.se.{n=conv_reduce|conv_expand}.{p*}",
        "features.{s+1}.{b}.block.3.{n=0|1}.{p*} -> blocks.{s}.{b}.{n=conv_pwl|bn3}.{p*}",
        "classifier.1.{p*} -> classifier.{p*}",
    ]
    return Two(
        torchvision.models.efficientnet_b0(), timm.create_model("efficientnet_b0"), rules, ask=lambda m: m(image(64))
    )


@pair("DeiT from 224 to 384 with another head", "timm")
def deit(small: bool) -> Two:
    import timm

    sizes = {"depth": 2} if small else {}
    return Two(
        timm.create_model("deit_tiny_patch16_224", **sizes),
        timm.create_model("deit_tiny_patch16_224", img_size=384, num_classes=10, **sizes),
        ["head.{p*} -> !"], missing=["head.*", "pos_embed"], proof="same names",
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- transformers


@pair("resnet50 to Hugging Face", "torchvision", "transformers")
def resnet_to_hf(small: bool) -> Two:
    import torchvision
    import transformers

    config = transformers.ResNetConfig(num_labels=1000, downsample_in_bottleneck=False)
    return Two(
        torchvision.models.resnet50(), transformers.ResNetForImageClassification(config), ["torchvision-resnet-to-hf"],
        ask=lambda m: m(image(64)), ask_target=lambda m: m(image(64)).logits, rel=1e-4,
    )  # fmt: skip


variant("resnet50 to Hugging Face, target sorted", "resnet50 to Hugging Face", lambda c: sorted_keys(c, "target"))


HF_VIT = [
    "cls_token -> vit.embeddings.cls_token",
    "pos_embed -> vit.embeddings.position_embeddings",
    "patch_embed.proj.{p*} -> vit.embeddings.patch_embeddings.projection.{p*}",
    "blocks.{i}.attn.qkv.{p*} -> vit.layers.{i}.attention.{x=q|k|v}_proj.{p*} | (x o) ... -> o ...",
    "blocks.{i}.attn.proj.{p*} -> vit.layers.{i}.attention.o_proj.{p*}",
    "blocks.{i}.norm1.{p*} -> vit.layers.{i}.layernorm_before.{p*}",
    "blocks.{i}.norm2.{p*} -> vit.layers.{i}.layernorm_after.{p*}",
    "blocks.{i}.mlp.{n=fc1|fc2}.{p*} -> vit.layers.{i}.mlp.{n}.{p*}",
    "norm.{p*} -> vit.layernorm.{p*}",
    "head.{p*} -> classifier.{p*}",
]


def hf_vit(small: bool) -> Any:
    import transformers

    sizes: dict[str, Any] = {"num_labels": 1000, "layer_norm_eps": 1e-6}
    if small:
        sizes |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2,
                  "image_size": 32, "num_labels": 5}  # fmt: skip
    return transformers.ViTForImageClassification(transformers.ViTConfig(**sizes))


@pair("timm ViT to Hugging Face: qkv split", "timm", "transformers")
def timm_vit_to_hf(small: bool) -> Two:
    return Two(timm_vit(small), hf_vit(small), HF_VIT, ask=lambda m: m(image()), ask_target=lambda m: m(image()).logits)


@pair("Hugging Face ViT to timm: qkv fused", "timm", "transformers")
def hf_vit_to_timm(small: bool) -> Two:
    return Two(
        hf_vit(small), timm_vit(small), HF_VIT, is_backwards=True, ask=lambda m: m(image()).logits,
        ask_target=lambda m: m(image()),
    )  # fmt: skip


@pair("timm DINOv2 to Hugging Face", "timm", "transformers")
def dinov2(small: bool) -> Two:
    import timm
    import transformers

    ours: dict[str, Any] = {"img_size": 28, "depth": 2, "embed_dim": 32, "num_heads": 2} if small else {}
    theirs: dict[str, Any] = {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518, "patch_size": 14}
    if small:
        theirs = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}
    rules = [
        "cls_token -> embeddings.cls_token",
        "pos_embed -> embeddings.position_embeddings",
        "patch_embed.proj.{p*} -> embeddings.patch_embeddings.projection.{p*}",
        "blocks.{i}.attn.qkv.{p*} -> encoder.layer.{i}.attention.{x=q|k|v}_proj.{p*} | (x o) ... -> o ...",
        "blocks.{i}.attn.proj.{p*} -> encoder.layer.{i}.attention.o_proj.{p*}",
        "blocks.{i}.ls{n}.gamma -> encoder.layer.{i}.layer_scale{n}.lambda1",
        "blocks.{i}.{k**} -> encoder.layer.{i}.{k**}",
        "norm.{p*} -> layernorm.{p*}",
    ]
    return Two(
        timm.create_model("vit_small_patch14_dinov2", **ours), transformers.Dinov2Model(transformers.Dinov2Config(
            **theirs)), rules, missing=["embeddings.mask_token"], ask=lambda m: m.forward_features(image(28)),
        ask_target=lambda m: m(image(28)).last_hidden_state,
    )  # fmt: skip


@pair("timm Swin to Hugging Face", "timm", "transformers")
def swin_to_hf(small: bool) -> Two:
    import transformers

    sizes: dict[str, Any] = {"depths": [2, 2, 2, 2], "embed_dim": 24, "num_labels": 5} if small else {
        "num_labels": 1000}  # fmt: skip
    block = "swin.encoder.layers.{s}.blocks.{b}."
    rules = [
        "patch_embed.proj.{p*} -> swin.embeddings.patch_embeddings.projection.{p*}",
        "patch_embed.norm.{p*} -> swin.embeddings.norm.{p*}",
        "layers.{s}.blocks.{b}.attn.qkv.{p*} -> " + block + "attention.{x=q|k|v}_proj.{p*} | (x o) ... -> o ...",
        "layers.{s}.blocks.{b}.attn.proj.{p*} -> " + block + "attention.o_proj.{p*}",
        "layers.{s}.blocks.{b}.attn.relative_position_bias_table -> "
        + block + "attention.relative_position_bias.relative_position_bias_table",
        "layers.{s}.blocks.{b}.norm1.{p*} -> " + block + "layernorm_before.{p*}",
        "layers.{s}.blocks.{b}.norm2.{p*} -> " + block + "layernorm_after.{p*}",
        "layers.{s}.blocks.{b}.mlp.{k**} -> " + block + "mlp.{k**}",
        "layers.{s+1}.downsample.{k**} -> swin.encoder.layers.{s}.downsample.{k**}",
        "norm.{p*} -> swin.layernorm.{p*}",
        "head.fc.{p*} -> classifier.{p*}",
    ]  # fmt: skip
    return Two(
        timm_swin(small), transformers.SwinForImageClassification(transformers.SwinConfig(**sizes)), rules,
        ask=lambda m: m(image(224)), ask_target=lambda m: m(image(224)).logits,
    )  # fmt: skip


@pair("timm ConvNeXt to Hugging Face", "timm", "transformers")
def convnext_to_hf(small: bool) -> Two:
    import transformers

    sizes: dict[str, Any] = {"num_labels": 1000}
    if small:
        sizes = {"depths": [2, 1, 1, 1], "hidden_sizes": [8, 16, 32, 64], "num_labels": 5}
    layer = "convnext.encoder.stages.{s}.layers.{b}."
    rules = [
        "stem.{n=0|1}.{p*} -> convnext.embeddings.{n=patch_embeddings|layernorm}.{p*}",
        "stages.{s}.downsample.{k**} -> convnext.encoder.stages.{s}.downsampling_layer.{k**}",
        "stages.{s}.blocks.{b}.gamma -> " + layer + "layer_scale_parameter",
        "stages.{s}.blocks.{b}.{n=conv_dw|norm|mlp.fc1|mlp.fc2}.{p*} -> "
        + layer + "{n=dwconv|layernorm|pwconv1|pwconv2}.{p*}",
        "head.norm.{p*} -> convnext.layernorm.{p*}",
        "head.fc.{p*} -> classifier.{p*}",
    ]  # fmt: skip
    return Two(
        timm_convnext(small), transformers.ConvNextForImageClassification(transformers.ConvNextConfig(**sizes)), rules,
        ask=lambda m: m(image(64)), ask_target=lambda m: m(image(64)).logits, rel=1e-4,
    )  # fmt: skip
