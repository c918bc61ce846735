"""Held-out pairs: vision checkpoints in their authors' names, into timm, torchvision and transformers.

The names are those of the authors' code; where it has no package here, the target's tensors go backwards through the
rules, which say what the libraries' own conversion functions say (`timm.models.*.checkpoint_filter_fn`, the
`convert_*` scripts of transformers, `convert_model` of mmyolo).
"""

from __future__ import annotations

from typing import Any

from tests.bench.match.pairs import State, Two, both_sorted, image, pair, renamed, shuffled, sorted_keys, variant
from tests.bench.match.pairs_held import listed, rewound
from tests.bench.match.pairs_text import transformers
from tests.bench.match.pairs_timm import HF_VIT, hf_vit, timm_swin, timm_vit
from tests.bench.match.pairs_vision import features, resnet

B0 = (1, 2, 2, 3, 3, 4, 1)  # blocks of EfficientNet-B0's stages

LUKEMELAS = """
    _conv_stem _bn _blocks _expand_conv _depthwise_conv _se_reduce _se_expand _project_conv _conv_head _fc
"""


def lukemelas(stem: str, block: str, names: tuple[str, ...], offset: int) -> list[str]:
    """efficientnet_pytorch's flat list of blocks; the first has no expansion, so its norms count otherwise."""
    head, head_norm, classifier, expand, norm0, depth, norm1, reduce, widen, project, norm2 = names[:11]
    rules = [f"_conv_stem.{{p*}} -> {stem}.{{p*}}", f"_conv_head.{{p*}} -> {head}.{{p*}}",
             f"_bn1.{{p*}} -> {head_norm}.{{p*}}", f"_fc.{{p*}} -> {classifier}.{{p*}}"]  # fmt: skip
    place = 0
    for stage, number in enumerate(B0):
        for at in range(number):
            to = block.format(stage + offset, at)
            first = names[11:] if stage == 0 else (expand, norm0, depth, norm1, reduce, widen, project, norm2)
            parts = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_se_reduce", "_se_expand", "_project_conv",
                     "_bn2")[-len(first):]  # fmt: skip
            rules += [f"_blocks.{place}.{a}.{{p*}} -> {to}{b}.{{p*}}" for a, b in zip(parts, first, strict=True)]
            place += 1
    return rules


def lukemelas_file(rules: list[str], model: Any) -> State:
    """Listed as its modules are: each norm behind its convolution."""
    file = rewound(rules, model.state_dict(), LUKEMELAS)
    inner = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_se_reduce", "_se_expand", "_project_conv", "_bn2"]
    outer = ["_conv_stem", "_bn0", "_blocks", "_conv_head", "_bn1", "_fc"]

    def place(key: str) -> tuple[int, int, int]:
        parts = key.split(".")
        is_inner = parts[0] == "_blocks"
        return outer.index(parts[0]), int(parts[1]) if is_inner else 0, inner.index(parts[2]) if is_inner else 0

    return {key: file[key] for key in sorted(file, key=place)}


@pair("efficientnet_pytorch's b0 to timm", "timm")
def lukemelas_timm(small: bool) -> Two:
    import timm

    model = timm.create_model("efficientnet_b0")
    names = ("conv_head", "bn2", "classifier", "conv_pw", "bn1", "conv_dw", "bn2", "se.conv_reduce", "se.conv_expand",
             "conv_pwl", "bn3", "conv_dw", "bn1", "se.conv_reduce", "se.conv_expand", "conv_pw", "bn2")  # fmt: skip
    rules = [*lukemelas("conv_stem", "blocks.{}.{}.", names, 0), "_bn0.{p*} -> bn1.{p*}"]
    return Two(lukemelas_file(rules, model), model, rules, proof="the same architecture, block by block")


@pair("efficientnet_pytorch's b0 to torchvision", "torchvision")
def lukemelas_torchvision(small: bool) -> Two:
    import torchvision

    model = torchvision.models.efficientnet_b0()
    names = ("features.8.0", "features.8.1", "classifier.1", "0.0", "0.1", "1.0", "1.1", "2.fc1", "2.fc2", "3.0", "3.1",
             "0.0", "0.1", "1.fc1", "1.fc2", "2.0", "2.1")  # fmt: skip
    rules = [*lukemelas("features.0.0", "features.{}.{}.block.", names, 1), "_bn0.{p*} -> features.0.1.{p*}"]
    return Two(lukemelas_file(rules, model), model, rules, proof="the same architecture, block by block")


@pair("Cadene's se_resnet50 to timm", "timm")
def se_resnet(small: bool) -> Two:
    """timm keeps Cadene's own as `legacy_`. The stride is elsewhere: no equal outputs."""
    import timm

    rules = ["layer0.{k**} -> {k**}", "{m**}.se_module.{k**} -> {m**}.se.{k**}", "last_linear.{p*} -> fc.{p*}"]
    return Two(timm.create_model("legacy_seresnet50"), timm.create_model("seresnet50"), rules, proof="module by module")


@pair("mmpretrain's ResNetV1d to timm's resnet50d", "timm")
def resnet_deep_stem(small: bool) -> Two:
    import timm

    model = timm.create_model("resnet50d")
    rules = [
        "backbone.stem.{n=0|1|3|4|6}.{p*} -> conv1.{n}.{p*}",
        "backbone.stem.7.{p*} -> bn1.{p*}",
        "head.fc.{p*} -> fc.{p*}",
        "backbone.{k**} -> {k**}",
    ]
    words = "backbone head stem layer conv1 bn1 conv2 bn2 conv3 bn3 downsample fc"
    return Two(rewound(rules, model.state_dict(), words), model, rules, proof="mmpretrain's ResNetV1d")


def faster_rcnn() -> Any:
    import torchvision

    return torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)


HEADS = ["roi_heads.box_predictor.*"]  # other classes


@pair("mmdetection's Faster R-CNN to torchvision", "torchvision")
def mmdetection(small: bool) -> Two:
    import torch

    model = faster_rcnn()
    rules = [
        "backbone.{k**} -> backbone.body.{k**}",
        "neck.lateral_convs.{i}.conv.{p*} -> backbone.fpn.inner_blocks.{i}.0.{p*}",
        "neck.fpn_convs.{i}.conv.{p*} -> backbone.fpn.layer_blocks.{i}.0.{p*}",
        "rpn_head.rpn_conv.{p*} -> rpn.head.conv.0.0.{p*}",
        "rpn_head.{n=rpn_cls|rpn_reg}.{p*} -> rpn.head.{n=cls_logits|bbox_pred}.{p*}",
        "roi_head.bbox_head.shared_fcs.{i=0|1}.{p*} -> roi_heads.box_head.{i=fc6|fc7}.{p*}",
    ]
    there = {key: tensor for key, tensor in model.state_dict().items() if "box_predictor" not in key}
    words = """backbone neck rpn_head roi_head conv1 bn1 layer conv2 bn2 conv3 bn3 downsample lateral_convs fpn_convs
        conv rpn_conv rpn_cls rpn_reg bbox_head shared_fcs"""
    file = dict(rewound(rules, there, words))
    for name, size in (("fc_cls", 81), ("fc_reg", 320)):
        file[f"roi_head.bbox_head.{name}.weight"] = torch.empty(size, 1024)
        file[f"roi_head.bbox_head.{name}.bias"] = torch.empty(size)
    return Two(file, model, rules, missing=HEADS, proof="mmdetection's FPN, RPNHead and Shared2FCBBoxHead")


@pair("detectron2's Faster R-CNN to torchvision", "torchvision")
def detectron2_rcnn(small: bool) -> Two:
    import torch

    model = faster_rcnn()
    body = "backbone.bottom_up."
    rules = [
        f"{body}stem.conv1.weight -> backbone.body.conv1.weight",
        f"{body}stem.conv1.norm.{{p*}} -> backbone.body.bn1.{{p*}}",
    ]
    for s in range(1, 5):
        block, to = f"{body}res{s + 1}.{{b}}.", f"backbone.body.layer{s}.{{b}}."
        rules += [
            f"{block}conv{{n}}.weight -> {to}conv{{n}}.weight",
            f"{block}conv{{n}}.norm.{{p*}} -> {to}bn{{n}}.{{p*}}",
            f"{block}shortcut.weight -> {to}downsample.0.weight",
            f"{block}shortcut.norm.{{p*}} -> {to}downsample.1.{{p*}}",
        ]
    rules += [
        "backbone.fpn_lateral{i+2}.{p*} -> backbone.fpn.inner_blocks.{i}.0.{p*}",
        "backbone.fpn_output{i+2}.{p*} -> backbone.fpn.layer_blocks.{i}.0.{p*}",
        "proposal_generator.rpn_head.conv.{p*} -> rpn.head.conv.0.0.{p*}",
        "proposal_generator.rpn_head.objectness_logits.{p*} -> rpn.head.cls_logits.{p*}",
        "proposal_generator.rpn_head.anchor_deltas.{p*} -> rpn.head.bbox_pred.{p*}",
        "roi_heads.box_head.fc{n=1|2}.{p*} -> roi_heads.box_head.{n=fc6|fc7}.{p*}",
    ]
    there = {key: tensor for key, tensor in model.state_dict().items()
             if "box_predictor" not in key and "num_batches" not in key}  # fmt: skip
    words = """backbone proposal_generator roi_heads fpn_lateral fpn_output bottom_up stem res shortcut conv norm
        rpn_head objectness_logits anchor_deltas box_head fc"""
    file = dict(rewound(rules, there, words))
    for name, size in (("cls_score", 81), ("bbox_pred", 320)):
        file[f"roi_heads.box_predictor.{name}.weight"] = torch.empty(size, 1024)
        file[f"roi_heads.box_predictor.{name}.bias"] = torch.empty(size)
    return Two(
        file, model, rules, missing=[*HEADS, "num_batches_tracked"], proof="detectron2's FPN and StandardRPNHead"
    )


@pair("a CIFAR ResNet-18 (kuangliu) to torchvision's", "torchvision")
def cifar(small: bool) -> Two:
    """The stem's kernel and the head are of other sizes: they have no source."""
    import torch

    model = resnet(False, 18)
    rules = ["{m**}.shortcut.{k**} -> {m**}.downsample.{k**}"]
    there = {k: v for k, v in model.state_dict().items() if k != "conv1.weight" and not k.startswith("fc")}
    file = {"conv1.weight": torch.empty(64, 3, 3, 3)}
    file |= rewound(rules, there, "bn1 layer conv1 conv2 bn2 shortcut")
    file |= {"linear.weight": torch.empty(10, 512), "linear.bias": torch.empty(10)}
    rules.append("conv1.weight -> !")
    return Two(file, model, rules, missing=["conv1.weight", "fc.*"], proof="kuangliu's ResNet18")


@pair("a Sequential of resnet50's children to resnet50", "torchvision")
def children(small: bool) -> Two:
    """`nn.Sequential(*list(model.children())[:-1])`, as feature extractors are made."""
    import torch

    source = torch.nn.Sequential(*list(resnet(small).children())[:-1])
    rules = ["{n=0|1}.{p*} -> {n=conv1|bn1}.{p*}", *(f"{s + 3}.{{k**}} -> layer{s}.{{k**}}" for s in range(1, 5))]
    return Two(source, resnet(small), rules, missing=["fc.*"], ask=lambda m: m(image()).flatten(1), ask_target=features)


# ---------------------------------------------------------------------------------------------- ViT and its like


@pair("an MAE checkpoint into timm's ViT: the decoder stays behind", "timm")
def mae(small: bool) -> Two:
    import timm
    import torch

    width = 32 if small else 512
    sizes: dict[str, Any] = {"img_size": 32, "depth": 3, "num_heads": 2, "embed_dim": 32, "mlp_ratio": 2}
    decoder = timm.create_model("vit_base_patch16_224", depth=2 if small else 8, embed_dim=width, num_heads=2)

    def saved(state: State) -> State:
        file = {key: tensor for key, tensor in state.items() if not key.startswith("head")}
        file["mask_token"] = torch.empty(1, 1, width)
        file["decoder_pos_embed"] = torch.empty(1, file["pos_embed"].shape[1], width)
        file["decoder_embed.weight"], file["decoder_embed.bias"] = torch.empty(width, 768), torch.empty(width)
        file |= {f"decoder_{k}": v for k, v in decoder.state_dict().items() if k.startswith(("blocks", "norm"))}
        return file | {"decoder_pred.weight": torch.empty(768, width), "decoder_pred.bias": torch.empty(768)}

    target = timm.create_model("vit_base_patch16_224", num_classes=10, **(sizes if small else {}))
    return Two(
        timm_vit(small), target, [], source_file=saved, missing=["head.*"], ask=lambda m: m.forward_features(image()),
    )  # fmt: skip


@pair("timm's BEiT to Hugging Face: fused weights, separate biases", "timm", "transformers")
def beit(small: bool) -> Two:
    import timm

    package = transformers()
    more: dict[str, Any] = {"num_labels": 1000, "use_relative_position_bias": True, "layer_norm_eps": 1e-6,
                            "use_absolute_position_embeddings": False}  # fmt: skip
    ours: dict[str, Any] = {}
    if small:
        ours = {"img_size": 32, "depth": 2, "embed_dim": 32, "num_heads": 2, "num_classes": 5}
        more |= {"image_size": 32, "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 128,
                 "num_attention_heads": 2, "num_labels": 5}  # fmt: skip
    rules = [
        "cls_token -> beit.embeddings.cls_token",
        "patch_embed.proj.{p*} -> beit.embeddings.patch_embeddings.projection.{p*}",
        "blocks.{i}.gamma_{n} -> beit.layers.{i}.lambda_{n}",
        "blocks.{i}.attn.{x=q|v}_bias -> beit.layers.{i}.attention.{x}_proj.bias",
        "blocks.{i}.attn.qkv.weight -> beit.layers.{i}.attention.{x=q|k|v}_proj.weight | (x o) ... -> o ...",
        "blocks.{i}.attn.proj.{p*} -> beit.layers.{i}.attention.o_proj.{p*}",
        "blocks.{i}.attn.{p*} -> beit.layers.{i}.relative_position_bias.{p*}",
        "blocks.{i}.norm{n=1|2}.{p*} -> beit.layers.{i}.{n=layernorm_before|layernorm_after}.{p*}",
        "blocks.{i}.mlp.{k**} -> beit.layers.{i}.mlp.{k**}",
        "fc_norm.{p*} -> beit.pooler.layernorm.{p*}",
        "head.{p*} -> classifier.{p*}",
    ]
    return Two(
        timm.create_model("beit_base_patch16_224", **ours), package.BeitForImageClassification(package.BeitConfig(
            **more)), rules, ask=lambda m: m(image()), ask_target=lambda m: m(image()).logits, rel=1e-4,
    )  # fmt: skip


@pair("distilled DeiT to Hugging Face: two heads", "timm", "transformers")
def deit(small: bool) -> Two:
    import timm

    package = transformers()
    sizes: dict[str, Any] = {"num_labels": 1000, "layer_norm_eps": 1e-6}
    ours: dict[str, Any] = {}
    if small:
        ours = {"img_size": 32, "depth": 2, "embed_dim": 32, "num_heads": 2, "num_classes": 5}
        sizes |= {"image_size": 32, "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 128,
                  "num_attention_heads": 2, "num_labels": 5}  # fmt: skip
    rules = [rule.replace("vit.", "deit.").replace("-> classifier", "-> cls_classifier") for rule in HF_VIT]
    rules += ["dist_token -> deit.embeddings.distillation_token", "head_dist.{p*} -> distillation_classifier.{p*}"]
    return Two(
        timm.create_model("deit_base_distilled_patch16_224", **ours),
        package.DeiTForImageClassificationWithTeacher(package.DeiTConfig(**sizes)), rules,
        ask=lambda m: m(image()), ask_target=lambda m: m(image()).logits, rel=1e-4,
    )  # fmt: skip


@pair("Swin in its authors' names to timm: downsample moved a stage", "timm")
def swin_authors(small: bool) -> Two:
    """layers.1.downsample is there in both, and is not the same: timm's `checkpoint_filter_fn` says so."""
    import torch

    names = ["layers.{s+1}.downsample.{k**} -> layers.{s}.downsample.{k**}", "head.fc.{p*} -> head.{p*}"]

    def authors(state: State) -> State:
        words = """patch_embed layers norm head proj blocks downsample norm1 attn norm2 mlp relative_position_bias_table
            relative_position_index qkv fc reduction"""
        file = dict(renamed(names)(state))
        for key in [key for key in file if key.endswith("bias_table")]:
            file[key.replace("bias_table", "index")] = torch.zeros(49, 49, dtype=torch.int64)
        return listed(file, words)

    rules = [" -> ".join(reversed(name.split(" -> "))) for name in names]
    return Two(timm_swin(small), timm_swin(small), rules, source_file=authors, ask=lambda m: m(image(224)))


@pair("ViT of JAX to Hugging Face: heads are an axis", "transformers")
def vit_jax(small: bool) -> Two:
    """The names and shapes of `vit_jax`'s npz files; `timm.models.vision_transformer._load_weights` reads them."""
    model = hf_vit(False)
    rules = [
        *vit_jax_rules("vit.layers.{i}."),
        "cls -> vit.embeddings.cls_token",
        "embedding/kernel -> vit.embeddings.patch_embeddings.projection.weight | y x i o -> o i y x",
        "embedding/bias -> vit.embeddings.patch_embeddings.projection.bias",
        "Transformer/posembed_input/pos_embedding -> vit.embeddings.position_embeddings",
        "Transformer/encoder_norm/{p=scale|bias} -> vit.layernorm.{p=weight|bias}",
        "head/kernel -> classifier.weight | i o -> o i",
        "head/bias -> classifier.bias",
    ]
    return Two(
        rewound(rules, model.state_dict(), "", {"h": 12, "d": 64}), model, rules, vars={"h": 12, "d": 64},
        proof="timm's _load_weights",
    )  # fmt: skip


def vit_jax_rules(to: str) -> list[str]:
    block = "Transformer/encoderblock_{i}/"
    attention = block + "MultiHeadDotProductAttention_1/"
    return [
        f"{block}LayerNorm_{{n=0|2}}/{{p=scale|bias}} -> {to}{{n=layernorm_before|layernorm_after}}.{{p=weight|bias}}",
        f"{attention}{{x=query|key|value}}/kernel -> {to}attention.{{x=q|k|v}}_proj.weight | i h d -> (h d) i",
        f"{attention}{{x=query|key|value}}/bias -> {to}attention.{{x=q|k|v}}_proj.bias | h d -> (h d)",
        f"{attention}out/kernel -> {to}attention.o_proj.weight | h d o -> o (h d)",
        f"{attention}out/bias -> {to}attention.o_proj.bias",
        f"{block}MlpBlock_3/Dense_{{n=0|1}}/kernel -> {to}mlp.{{n=fc1|fc2}}.weight | i o -> o i",
        f"{block}MlpBlock_3/Dense_{{n=0|1}}/bias -> {to}mlp.{{n=fc1|fc2}}.bias",
    ]


variant("Swin in its authors' names, both sorted",
        "Swin in its authors' names to timm: downsample moved a stage", both_sorted)  # fmt: skip
variant("efficientnet_pytorch's b0 to timm, sorted", "efficientnet_pytorch's b0 to timm", sorted_keys)
variant("a Sequential of resnet50's children, shuffled", "a Sequential of resnet50's children to resnet50", shuffled)
