"""Pairs of torchvision's models."""

from __future__ import annotations

import copy
from typing import Any

from tests.bench.match.pairs import (
    State,
    Two,
    both_sorted,
    image,
    pair,
    renamed,
    shuffled,
    variant,
)

CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
CONVS_BN = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)


def tv_vit(small: bool) -> Any:
    import torchvision

    if small:
        return torchvision.models.VisionTransformer(32, 16, 3, 2, 32, 64, num_classes=5)
    return torchvision.models.vit_b_16()


def resnet(small: bool, depth: int = 50) -> Any:
    import torchvision

    if small:
        block = torchvision.models.resnet.Bottleneck if depth >= 50 else torchvision.models.resnet.BasicBlock
        width = {"width_per_group": 8} if depth >= 50 else {}
        return torchvision.models.ResNet(block, [1, 2, 1, 1], num_classes=5, **width)
    return getattr(torchvision.models, f"resnet{depth}")()


def features(model: Any) -> Any:
    """A ResNet without its head."""
    import torch

    model = copy.deepcopy(model)
    model.fc = torch.nn.Identity()
    return model(image())


# ---------------------------------------------------------------------------------------------- torchvision alone


@pair("resnet50 from DataParallel", "torchvision")
def data_parallel(small: bool) -> Two:
    def wrapped(state: State) -> State:
        return {f"module.{key}": tensor for key, tensor in state.items()}

    return Two(resnet(small), resnet(small), ["module. ->"], source_file=wrapped, ask=lambda m: m(image()))


@pair("resnet18 from FSDP and compile, nested", "torchvision")
def nested_wrappers(small: bool) -> Two:
    def wrapped(state: State) -> State:
        changed = {}
        for key, tensor in state.items():
            stem, dot, rest = key.partition(".")
            deep = f"{stem}._fsdp_wrapped_module.{rest}" if stem.startswith("layer") else stem + dot + rest
            changed[f"_orig_mod.module.{deep}"] = tensor
        return changed

    return Two(resnet(small, 18), resnet(small, 18), ["strip-wrappers"], source_file=wrapped, ask=lambda m: m(image()))


@pair("resnet50 with another head", "torchvision")
def another_head(small: bool) -> Two:
    import torchvision

    target = resnet(True) if small else torchvision.models.resnet50(num_classes=751)
    return Two(resnet(small), target, ["fc.{k**} -> !"], missing=["fc.*"], ask=features)


@pair("resnet50 to detectron2", "torchvision")
def detectron2(small: bool) -> Two:
    def listed(state: State) -> State:
        """The names of detectron2's script, in the order of its modules: the shortcut stands first."""
        rows = {key: at for at, key in enumerate(state)}

        def place(key: str) -> tuple[str, bool, int]:
            block = ".".join(key.split(".")[:2]) if key.startswith("layer") else ("" if key[:2] != "fc" else "z")
            return block, "downsample" not in key, rows[key]

        kept = {key: state[key] for key in sorted(state, key=place) if "num_batches" not in key}
        return renamed(["torchvision-resnet-to-detectron2"])(kept)

    return Two(
        resnet(small), resnet(small), ["?{m**}.num_batches_tracked -> !", "---", "torchvision-resnet-to-detectron2"],
        target_file=listed, proof="detectron2's script",
    )  # fmt: skip


@pair("resnet50 to IBN", "torchvision")
def ibn(small: bool) -> Two:
    import torch
    from torch import nn

    class IBN(nn.Module):
        def __init__(self, planes: int) -> None:
            super().__init__()
            self.IN = nn.InstanceNorm2d(planes // 2, affine=True)
            self.BN = nn.BatchNorm2d(planes - planes // 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, second = x.chunk(2, 1)
            return torch.cat([self.IN(first.contiguous()), self.BN(second.contiguous())], 1)

    target = resnet(small)
    for name, module in list(target.named_modules()):
        if name.startswith(("layer1.", "layer2.", "layer3.")) and name.count(".") == 1:
            module.bn1 = IBN(module.bn1.num_features)
    return Two(
        resnet(small), target, ["resnet-to-ibn"], proof="test_conversions_vision.test_resnet_to_ibn",
        hidden=["*.bn1.BN.running_*"],
    )  # fmt: skip


@pair("resnet18 from before the counters", "torchvision")
def counters(small: bool) -> Two:
    def legacy(state: State) -> State:
        return {key: tensor for key, tensor in state.items() if "num_batches" not in key}

    return Two(
        resnet(small, 18), resnet(small, 18), [], source_file=legacy, missing=["num_batches_tracked"],
        ask=lambda m: m(image()),
    )  # fmt: skip


@pair("densenet121 with legacy keys", "torchvision")
def densenet(small: bool) -> Two:
    import torchvision

    def build() -> Any:
        return torchvision.models.DenseNet(8, (2, 2, 1, 1), 16) if small else torchvision.models.densenet121()

    recipe = ["densenet-legacy"]

    def legacy(state: State) -> State:
        back = "{k**}.denselayer{l}.{w=norm|relu|conv}{n}.{p*} -> {k**}.denselayer{l}.{w}.{n}.{p*}"
        return renamed([back])(state)

    return Two(build(), build(), recipe, source_file=legacy, ask=lambda m: m(image(64)))


@pair("vit_b_16 with legacy mlp names", "torchvision")
def vit_legacy(small: bool) -> Two:
    def legacy(state: State) -> State:
        return renamed(["{m**}.mlp.{3*n}.{p*} -> {m**}.mlp.linear_{n+1}.{p*}"])(state)

    rules = ["{m**}.mlp.linear_{n+1}.{p*} -> {m**}.mlp.{3*n}.{p*}"]
    return Two(tv_vit(small), tv_vit(small), rules, source_file=legacy, ask=lambda m: m(image()))


@pair("resnet50 into Faster R-CNN", "torchvision")
def faster_rcnn(small: bool) -> Two:
    import torchvision

    target = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    return Two(
        torchvision.models.resnet50(), target, ["fc.{k**} -> !", "---", "{k**} -> backbone.body.{k**}"],
        missing=["backbone.fpn.*", "rpn.*", "roi_heads.*"],
        ask=lambda m: _trunk(m)(image(64)), ask_target=lambda m: m.backbone.body(image(64))["3"],
    )  # fmt: skip


def _trunk(model: Any) -> Any:
    import torch

    return torch.nn.Sequential(*list(model.children())[:-2]).eval()


@pair("resnet50 into DeepLab v3", "torchvision")
def deeplab(small: bool) -> Two:
    import torchvision

    target = torchvision.models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None)
    return Two(
        torchvision.models.resnet50(), target, ["fc.{k**} -> !", "---", "{k**} -> backbone.{k**}"],
        missing=["classifier.*", "aux_classifier.*"], proof="torchvision loads it so",
    )  # fmt: skip


@pair("vgg16 to vgg16_bn: renumbered Sequentials", "torchvision")
def vgg(small: bool) -> Two:
    import torchvision

    rules = [f"features.{a}.{{p*}} -> features.{b}.{{p*}}" for a, b in zip(CONVS, CONVS_BN, strict=True)]
    norms = [f"features.{b + 1}.*" for b in CONVS_BN]
    sizes = {"num_classes": 5}
    return Two(
        torchvision.models.vgg16(**sizes), torchvision.models.vgg16_bn(**sizes), rules, missing=norms,
        ask=lambda m: m(image()), rel=1e-3,  # its norms are still 1 / sqrt(1 + 1e-5)
    )  # fmt: skip


@pair("resnet34 to resnet18: truncated", "torchvision")
def shallower(small: bool) -> Two:
    return Two(resnet(False, 34), resnet(False, 18), [], proof="same names")


@pair("resnet18 to resnet34: more blocks", "torchvision")
def deeper(small: bool) -> Two:
    more = ["layer1.2.*", "layer2.{2,3}.*", "layer3.{2-5}.*", "layer4.2.*"]
    return Two(resnet(False, 18), resnet(False, 34), [], missing=more, proof="same names")


@pair("mobilenet_v2 as somebody's backbone", "torchvision")
def backbone(small: bool) -> Two:
    import torch
    import torchvision

    net = torchvision.models.mobilenet_v2()
    target = torch.nn.ModuleDict({"encoder": torch.nn.Sequential(net.features), "decoder": torch.nn.Conv2d(1280, 1, 1)})
    return Two(
        torchvision.models.mobilenet_v2(), target, ["features. -> encoder.0."], missing=["decoder.*"],
        ask=lambda m: m.features(image()), ask_target=lambda m: m["encoder"](image()),
    )  # fmt: skip


variant("resnet50 to detectron2, target shuffled", "resnet50 to detectron2", shuffled)
variant("mobilenet_v2 as somebody's backbone, sorted", "mobilenet_v2 as somebody's backbone", both_sorted)
variant("vgg16 to vgg16_bn, sorted", "vgg16 to vgg16_bn: renumbered Sequentials", both_sorted)


# ---------------------------------------------------------------------------------------------- nothing in common


@pair("unrelated: resnet18 and vit_b_16", "torchvision")
def unrelated_shapes(small: bool) -> Two:
    return Two(resnet(False, 18), tv_vit(False), None)


@pair("unrelated: efficientnet_b0 and mobilenet_v2, four equal names", "torchvision")
def unrelated_names(small: bool) -> Two:
    import torchvision

    return Two(torchvision.models.efficientnet_b0(), torchvision.models.mobilenet_v2(), None)


@pair("unrelated: densenet121 and resnet50", "torchvision")
def unrelated_nets(small: bool) -> Two:
    import torchvision

    return Two(torchvision.models.densenet121(), resnet(False), None)
