"""Held-out pairs, written by somebody who never saw the matcher: torchvision's models in timm and transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import recipe_of
from ckptool.recipes.reverse import reverse
from tests.bench.match.pairs import State, Two, both_sorted, image, pair, specs_of, variant
from tests.bench.match.pairs_text import transformers

LEAVES = "weight bias running_mean running_var num_batches_tracked"


def rewound(rules: Sequence[str], state: State, words: str, vars: Mapping[str, float] | None = None) -> State:
    """The file that the rules start from: the target's own tensors, backwards, in the order of a model's modules.

    `words` says the order: the parts of names as they follow each other at any level; a number behind one counts.
    Without any, the listing is sorted, as TensorFlow's and JAX's are.
    """
    import torch

    found = expand(reverse(recipe_of(list(rules))).recipe, specs_of(state), vars=vars or {})
    assert not found.problems, [(problem.message, problem.keys[:3]) for problem in found.problems]
    file = {step.target.key: torch.empty(step.target.shape) for step in found.steps}
    return listed(file, words) if words else {key: file[key] for key in sorted(file)}


def listed(state: State, words: str) -> State:
    """The tensors by the places of the parts of their names in `words`, blocks by number."""
    ranks = {word: at for at, word in enumerate(f"{words} {LEAVES}".split())}

    def rank(part: str) -> tuple[int, int]:
        if part in ranks or part.isdigit():
            return (ranks[part], 0) if part in ranks else (-1, int(part))
        found = re.fullmatch(r"(.*?)(\d+)", part)
        assert found and found[1] in ranks, f"{part} has no place"
        return ranks[found[1]], int(found[2])

    return {key: state[key] for key in sorted(state, key=lambda key: [rank(part) for part in re.split("[./]", key)])}


# ---------------------------------------------------------------------------------------------- torchvision to timm


@pair("vgg16 to timm: its first layers became convolutions", "torchvision", "timm")
def vgg_timm(small: bool) -> Two:
    import timm
    import torchvision

    rules = [
        "classifier.0.weight -> pre_logits.fc1.weight | o (c h w) -> o c h w",
        "classifier.3.weight -> pre_logits.fc2.weight | o i -> o i 1 1",
        "classifier.{n=0|3}.bias -> pre_logits.{n=fc1|fc2}.bias",
        "classifier.6.{p*} -> head.fc.{p*}",
    ]
    return Two(
        torchvision.models.vgg16(), timm.create_model("vgg16"), rules, vars={"h": 7, "w": 7},
        ask=lambda m: m(image(224)),
    )  # fmt: skip


@pair("densenet169 to timm: nothing changed", "torchvision", "timm")
def densenet_timm(small: bool) -> Two:
    import timm
    import torchvision

    return Two(torchvision.models.densenet169(), timm.create_model("densenet169"), [], ask=lambda m: m(image(64)))


@pair("regnet_x_400mf to timm", "torchvision", "timm")
def regnet_x(small: bool) -> Two:
    import timm
    import torch
    import torchvision

    rules = ["stem.{n=0|1}.{p*} -> stem.{n=conv|bn}.{p*}", "fc.{p*} -> head.fc.{p*}"]
    for s in range(1, 5):
        block, to = f"trunk_output.block{s}.block{s}-{{b}}.", f"s{s}.b{{b+1}}."
        rules += [f"{block}f.{{x=a|b|c}}.{{n=0|1}}.{{p*}} -> {to}{{x=conv1|conv2|conv3}}.{{n=conv|bn}}.{{p*}}",
                  f"{block}proj.{{n=0|1}}.{{p*}} -> {to}downsample.{{n=conv|bn}}.{{p*}}"]  # fmt: skip
    with torch.device("cpu"):  # both compute their widths with tensors
        source, target = torchvision.models.regnet_x_400mf(), timm.create_model("regnetx_004_tv")
    return Two(source, target, rules, ask=lambda m: m(image(64)))


@pair("mnasnet1_0 to timm: one Sequential became stages", "torchvision", "timm")
def mnasnet(small: bool) -> Two:
    import timm
    import torchvision

    inverted = "{n=0|1|3|4|6|7}.{p*} -> blocks.{s-7}.{b}.{n=conv_pw|bn1|conv_dw|bn2|conv_pwl|bn3}.{p*}"
    rules = [
        "layers.{n=0|1}.{p*} -> {n=conv_stem|bn1}.{p*}",
        "layers.{n=3|4|6|7}.{p*} -> blocks.0.0.{n=conv_dw|bn1|conv_pw|bn2}.{p*}",
        "layers.{n=14|15}.{p*} -> {n=conv_head|bn2}.{p*}",
        f"layers.{{s}}.{{b}}.layers.{inverted}",
        "classifier.1.{p*} -> classifier.{p*}",
    ]
    return Two(torchvision.models.mnasnet1_0(), timm.create_model("mnasnet_100"), rules, ask=lambda m: m(image(64)))


@pair("mobilenet_v2 to timm", "torchvision", "timm")
def mobilenet_v2(small: bool) -> Two:
    import timm
    import torchvision

    rules = [
        "features.0.{n=0|1}.{p*} -> {n=conv_stem|bn1}.{p*}",
        "features.1.conv.0.{n=0|1}.{p*} -> blocks.0.0.{n=conv_dw|bn1}.{p*}",
        "features.1.conv.{n=1|2}.{p*} -> blocks.0.0.{n=conv_pw|bn2}.{p*}",
        "features.18.{n=0|1}.{p*} -> {n=conv_head|bn2}.{p*}",
        "classifier.1.{p*} -> classifier.{p*}",
    ]
    place = 1
    for stage, number in enumerate((2, 3, 4, 3, 3, 1), 1):
        for block in range(number):
            place += 1
            here, there = f"features.{place}.conv", f"blocks.{stage}.{block}"
            rules += [f"{here}.0.{{n=0|1}}.{{p*}} -> {there}.{{n=conv_pw|bn1}}.{{p*}}",
                      f"{here}.1.{{n=0|1}}.{{p*}} -> {there}.{{n=conv_dw|bn2}}.{{p*}}",
                      f"{here}.{{n=2|3}}.{{p*}} -> {there}.{{n=conv_pwl|bn3}}.{{p*}}"]  # fmt: skip
    return Two(
        torchvision.models.mobilenet_v2(), timm.create_model("mobilenetv2_100"), rules, ask=lambda m: m(image(64))
    )


@pair("efficientnet_v2_s to timm: three kinds of blocks", "torchvision", "timm")
def efficientnet_v2(small: bool) -> Two:
    """timm pads as TensorFlow does: no equal outputs."""
    import timm
    import torchvision

    rules = [
        "features.0.{n=0|1}.{p*} -> {n=conv_stem|bn1}.{p*}",
        "features.1.{b}.block.0.{n=0|1}.{p*} -> blocks.0.{b}.{n=conv|bn1}.{p*}",
        "features.7.{n=0|1}.{p*} -> {n=conv_head|bn2}.{p*}",
        "classifier.1.{p*} -> classifier.{p*}",
    ]
    for s in (2, 3):
        rules += [
            f"features.{s}.{{b}}.block.0.{{n=0|1}}.{{p*}} -> blocks.{s - 1}.{{b}}.{{n=conv_exp|bn1}}.{{p*}}",
            f"features.{s}.{{b}}.block.1.{{n=0|1}}.{{p*}} -> blocks.{s - 1}.{{b}}.{{n=conv_pwl|bn2}}.{{p*}}",
        ]
    for s in (4, 5, 6):
        to = f"blocks.{s - 1}.{{b}}."
        rules += [f"features.{s}.{{b}}.block.{at}.{{n=0|1}}.{{p*}} -> {to}{{n={names}}}.{{p*}}"
                  for at, names in ((0, "conv_pw|bn1"), (1, "conv_dw|bn2"), (3, "conv_pwl|bn3"))]  # fmt: skip
        rules.append(f"features.{s}.{{b}}.block.2.{{n=fc1|fc2}}.{{p*}} -> {to}se.{{n=conv_reduce|conv_expand}}.{{p*}}")
    return Two(
        torchvision.models.efficientnet_v2_s(), timm.create_model("tf_efficientnetv2_s"), rules,
        proof="the same architecture, block by block",
    )  # fmt: skip


@pair("swin_v2_t to timm: a fused bias whose middle is dropped", "torchvision", "timm")
def swin_v2(small: bool) -> Two:
    import timm
    import torchvision

    source = torchvision.models.swin_v2_t()
    target = timm.create_model("swinv2_tiny_window8_256")
    rules = ["features.0.0.{p*} -> patch_embed.proj.{p*}", "features.0.2.{p*} -> patch_embed.norm.{p*}",
             "head.{p*} -> head.fc.{p*}"]  # fmt: skip
    for s in range(4):
        block, to = f"features.{2 * s + 1}.{{b}}.", f"layers.{s}.blocks.{{b}}."
        rules += [
            f"{block}attn.qkv.bias -> {to}attn.q_bias, {to}attn.v_bias | (a + _ + b) -> a, b",
            f"{block}mlp.{{n=0|3}}.{{p*}} -> {to}mlp.{{n=fc1|fc2}}.{{p*}}",
            f"{block}{{k**}} -> {to}{{k**}}",
        ]
        if s:
            rules.append(f"features.{2 * s}.{{k**}} -> layers.{s}.downsample.{{k**}}")
    return Two(source, target, rules, proof="by the shapes of both, module by module")


# ---------------------------------------------------------------------------------------------- to transformers


@pair("resnet18 to Hugging Face: basic blocks", "torchvision", "transformers")
def resnet_basic(small: bool) -> Two:
    import torchvision

    package = transformers()
    config = package.ResNetConfig(
        layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], num_labels=1000
    )
    rules = [
        "conv1.{p*} -> resnet.embedder.embedder.convolution.{p*}",
        "bn1.{p*} -> resnet.embedder.embedder.normalization.{p*}",
        "fc.{p*} -> classifier.1.{p*}",
        *(
            rule
            for s in range(1, 5)
            for rule in (
                f"layer{s}.{{b}}.{{m=conv|bn}}{{n=1|2}}.{{p*}} -> "
                f"resnet.encoder.stages.{s - 1}.layers.{{b}}.layer.{{n=0|1}}.{{m=convolution|normalization}}.{{p*}}",
                f"?layer{s}.{{b}}.downsample.{{n=0|1}}.{{p*}} -> "
                f"resnet.encoder.stages.{s - 1}.layers.{{b}}.shortcut.{{n=convolution|normalization}}.{{p*}}",
            )
        ),
    ]
    return Two(
        torchvision.models.resnet18(), package.ResNetForImageClassification(config), rules,
        ask=lambda m: m(image(64)), ask_target=lambda m: m(image(64)).logits, rel=1e-4,
    )  # fmt: skip


@pair("regnet_y_400mf to Hugging Face", "torchvision", "transformers")
def regnet_hf(small: bool) -> Two:
    import torch
    import torchvision

    package = transformers()
    with torch.device("cpu"):
        source = torchvision.models.regnet_y_400mf()
    config = package.RegNetConfig(
        layer_type="y", depths=[1, 3, 6, 6], hidden_sizes=[48, 104, 208, 440], groups_width=8, num_labels=1000
    )
    rules = [
        "stem.{n=0|1}.{p*} -> regnet.embedder.embedder.{n=convolution|normalization}.{p*}",
        "fc.{p*} -> classifier.1.{p*}",
    ]
    for s in range(1, 5):
        block, to = f"trunk_output.block{s}.block{s}-{{b}}.", f"regnet.encoder.stages.{s - 1}.layers.{{b}}."
        rules += [
            f"{block}f.se.{{n=fc1|fc2}}.{{p*}} -> {to}layer.2.attention.{{n=0|2}}.{{p*}}",
            f"{block}f.{{x=a|b|c}}.{{n=0|1}}.{{p*}} -> {to}layer.{{x=0|1|3}}.{{n=convolution|normalization}}.{{p*}}",
            f"{block}proj.{{n=0|1}}.{{p*}} -> {to}shortcut.{{n=convolution|normalization}}.{{p*}}",
        ]
    return Two(
        source, package.RegNetForImageClassification(config), rules, ask=lambda m: m(image(64)),
        ask_target=lambda m: m(image(64)).logits, rel=1e-4,
    )  # fmt: skip


@pair("mobilenet_v2 to Hugging Face: its first block is part of the stem", "torchvision", "transformers")
def mobilenet_hf(small: bool) -> Two:
    import torchvision

    package = transformers()
    config = package.MobileNetV2Config(num_labels=1000, tf_padding=False, layer_norm_eps=1e-5)
    part = "{n=convolution|normalization}.{p*}"
    rules = [
        f"features.0.{{n=0|1}}.{{p*}} -> mobilenet_v2.conv_stem.first_conv.{part}",
        f"features.1.conv.0.{{n=0|1}}.{{p*}} -> mobilenet_v2.conv_stem.conv_3x3.{part}",
        f"features.1.conv.{{n=1|2}}.{{p*}} -> mobilenet_v2.conv_stem.reduce_1x1.{part}",
        f"features.18.{{n=0|1}}.{{p*}} -> mobilenet_v2.conv_1x1.{part}",
        f"features.{{i+2}}.conv.0.{{n=0|1}}.{{p*}} -> mobilenet_v2.layer.{{i}}.expand_1x1.{part}",
        f"features.{{i+2}}.conv.1.{{n=0|1}}.{{p*}} -> mobilenet_v2.layer.{{i}}.conv_3x3.{part}",
        f"features.{{i+2}}.conv.{{n=2|3}}.{{p*}} -> mobilenet_v2.layer.{{i}}.reduce_1x1.{part}",
        "classifier.1.{p*} -> classifier.{p*}",
    ]
    return Two(
        torchvision.models.mobilenet_v2(), package.MobileNetV2ForImageClassification(config), rules,
        ask=lambda m: m(image(64)), ask_target=lambda m: m(image(64)).logits, rel=1e-4,
    )  # fmt: skip


@pair("vit_b_16 to Hugging Face: in_proj split", "torchvision", "transformers")
def vit_hf(small: bool) -> Two:
    from tests.bench.match.pairs_timm import hf_vit
    from tests.bench.match.pairs_vision import tv_vit

    block, to = "encoder.layers.encoder_layer_{i}.", "vit.layers.{i}."
    rules = [
        "class_token -> vit.embeddings.cls_token",
        "conv_proj.{p*} -> vit.embeddings.patch_embeddings.projection.{p*}",
        "encoder.pos_embedding -> vit.embeddings.position_embeddings",
        f"{block}ln_{{n=1|2}}.{{p*}} -> {to}{{n=layernorm_before|layernorm_after}}.{{p*}}",
        f"{block}self_attention.in_proj_{{p*}} -> {to}attention.{{x=q|k|v}}_proj.{{p*}} | (x o) ... -> o ...",
        f"{block}self_attention.out_proj.{{p*}} -> {to}attention.o_proj.{{p*}}",
        f"{block}mlp.{{n=0|3}}.{{p*}} -> {to}mlp.{{n=fc1|fc2}}.{{p*}}",
        "encoder.ln.{p*} -> vit.layernorm.{p*}",
        "heads.head.{p*} -> classifier.{p*}",
    ]
    return Two(
        tv_vit(small), hf_vit(small), rules, ask=lambda m: m(image()), ask_target=lambda m: m(image()).logits, rel=1e-4
    )


variant("mobilenet_v2 to Hugging Face, both sorted",
        "mobilenet_v2 to Hugging Face: its first block is part of the stem", both_sorted)  # fmt: skip
variant("mnasnet1_0 to timm, both sorted", "mnasnet1_0 to timm: one Sequential became stages", both_sorted)
