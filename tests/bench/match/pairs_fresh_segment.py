"""Fresh pairs: segmentation and poses."""

from __future__ import annotations

from typing import Any

from tests.bench.match.fresh import Keys, Two, back, fresh, pair, renamed, rules_of
from tests.bench.match.fresh_listings import listing
from tests.bench.match.pairs_fresh_vision import bottlenecks, stem


@pair("fresh: jfzhang95's DeepLabV3+ to VainF's: a layer of the decoder is one too many")
def deeplab(small: bool) -> Two:
    """Four branches and a pooled one; last_conv has two 3x3 convolutions, the other classifier one."""
    source, target = Keys(), Keys()
    stem(source, "backbone.")
    bottlenecks(source, "backbone.")
    for at, (kernel, _) in enumerate(((1, 0), (3, 6), (3, 12), (3, 18)), 1):
        source.conv(f"aspp.aspp{at}.atrous_conv", 256, 2048, kernel, bias=False)
        source.bn(f"aspp.aspp{at}.bn", 256)
    source.conv("aspp.global_avg_pool.1", 256, 2048, 1, bias=False)
    source.bn("aspp.global_avg_pool.2", 256)
    source.conv("aspp.conv1", 256, 1280, 1, bias=False)
    source.bn("aspp.bn1", 256)
    source.conv("decoder.conv1", 48, 256, 1, bias=False)
    source.bn("decoder.bn1", 48)
    source.conv("decoder.last_conv.0", 256, 304, 3, bias=False)
    source.bn("decoder.last_conv.1", 256)
    source.conv("decoder.last_conv.4", 256, 256, 3, bias=False)
    source.bn("decoder.last_conv.5", 256)
    source.conv("decoder.last_conv.8", 21, 256, 1)
    stem(target, "backbone.")
    bottlenecks(target, "backbone.")
    target.conv("classifier.project.0", 48, 256, 1, bias=False)
    target.bn("classifier.project.1", 48)
    for at, kernel in enumerate((1, 3, 3, 3)):
        target.conv(f"classifier.aspp.convs.{at}.0", 256, 2048, kernel, bias=False)
        target.bn(f"classifier.aspp.convs.{at}.1", 256)
    target.conv("classifier.aspp.convs.4.1", 256, 2048, 1, bias=False)
    target.bn("classifier.aspp.convs.4.2", 256)
    target.conv("classifier.aspp.project.0", 256, 1280, 1, bias=False)
    target.bn("classifier.aspp.project.1", 256)
    target.conv("classifier.classifier.0", 256, 304, 3, bias=False)
    target.bn("classifier.classifier.1", 256)
    target.conv("classifier.classifier.3", 21, 256, 1)
    table: list[Any] = [
        (r"^classifier\.project\.0", "decoder.conv1"),
        (r"^classifier\.project\.1", "decoder.bn1"),
        (r"^classifier\.aspp\.convs\.4", "aspp.global_avg_pool"),
        (r"^classifier\.aspp\.convs\.(\d)\.0", lambda m: f"aspp.aspp{int(m[1]) + 1}.atrous_conv"),
        (r"^classifier\.aspp\.convs\.(\d)\.1", lambda m: f"aspp.aspp{int(m[1]) + 1}.bn"),
        (r"^classifier\.aspp\.project\.0", "aspp.conv1"),
        (r"^classifier\.aspp\.project\.1", "aspp.bn1"),
        (r"^classifier\.classifier\.3", "decoder.last_conv.8"),
        (r"^classifier\.classifier\.", "decoder.last_conv."),
    ]
    return back(source, target, table)


@pair("fresh: mmseg's PSPNet to hszhao's: another stem, so its first layers do not fit")
def pspnet(small: bool) -> Two:
    """Deep stems of 32, 32, 64 and 64, 64, 128; an auxiliary head in both."""
    source, target, table = Keys(), Keys(), []
    for at, (out, into) in zip((0, 3, 6), ((32, 3), (32, 32), (64, 32)), strict=True):
        source.conv(f"backbone.stem.{at}", out, into, 3, bias=False)
        source.bn(f"backbone.stem.{at + 1}", out)
    bottlenecks(source, "backbone.")
    for at, (out, into) in zip((0, 3, 6), ((64, 3), (64, 64), (128, 64)), strict=True):
        target.conv(f"layer0.{at}", out, into, 3, bias=False)
        target.bn(f"layer0.{at + 1}", out)
    bottlenecks(target, "", into=128)
    source.conv("decode_head.conv_seg", 19, 512, 1)
    for at in range(4):
        source.conv(f"decode_head.psp_modules.{at}.1.conv", 512, 2048, 1, bias=False)
        source.bn(f"decode_head.psp_modules.{at}.1.bn", 512)
        target.conv(f"ppm.features.{at}.1", 512, 2048, 1, bias=False)
        target.bn(f"ppm.features.{at}.2", 512)
    source.conv("decode_head.bottleneck.conv", 512, 4096, 3, bias=False)
    source.bn("decode_head.bottleneck.bn", 512)
    source.conv("auxiliary_head.conv_seg", 19, 256, 1)
    source.conv("auxiliary_head.convs.0.conv", 256, 1024, 3, bias=False)
    source.bn("auxiliary_head.convs.0.bn", 256)
    for name, into, out in (("cls", 4096, 512), ("aux", 1024, 256)):
        target.conv(f"{name}.0", out, into, 3, bias=False)
        target.bn(f"{name}.1", out)
        target.conv(f"{name}.4", 19, out, 1)
    table = [
        (r"^layer0.*", ""),
        (r"^layer1\.0\.(conv1|downsample\.0)\.weight", ""),
        (r"^layer", "backbone.layer"),
        (r"^ppm\.features\.(\d)\.1", r"decode_head.psp_modules.\1.1.conv"),
        (r"^ppm\.features\.(\d)\.2", r"decode_head.psp_modules.\1.1.bn"),
        (r"^cls\.0", "decode_head.bottleneck.conv"),
        (r"^cls\.1", "decode_head.bottleneck.bn"),
        (r"^cls\.4", "decode_head.conv_seg"),
        (r"^aux\.0", "auxiliary_head.convs.0.conv"),
        (r"^aux\.1", "auxiliary_head.convs.0.bn"),
        (r"^aux\.4", "auxiliary_head.conv_seg"),
    ]
    skip = ["layer0.*", "layer1.0.conv1.weight", "layer1.0.downsample.0.weight"]
    return back(source, target, table, missing=skip)


@pair("fresh: SimpleBaseline's pose ResNet to mmpose, in DataParallel")
def pose_resnet(small: bool) -> Two:
    """deconv_layers by number in both; the final layer too."""
    source, target = Keys(), Keys()
    for keys, prefix, head in ((source, "module.", "module."), (target, "backbone.", "head.")):
        stem(keys, prefix)
        bottlenecks(keys, prefix)
        if keys is target:
            keys.conv(f"{head}final_layer", 17, 256, 1)
        for at in range(3):
            keys.put(f"{head}deconv_layers.{3 * at}.weight", 256 if at else 2048, 256, 4, 4)
            keys.bn(f"{head}deconv_layers.{3 * at + 1}", 256)
        if keys is source:
            keys.conv(f"{head}final_layer", 17, 256, 1)
    return back(source, target, [(r"^(backbone|head)\.", "module.")])


@pair("fresh: OpenPose's flat Caffe names into nested modules: twin branches L1 and L2")
def openpose(small: bool) -> Two:
    """As pytorch-openpose's `transfer`: a key without its first part is the flat name."""
    target = Keys()
    into = 3
    names = (
        "conv1_1:64 conv1_2:64 conv2_1:128 conv2_2:128 conv3_1:256 conv3_2:256 conv3_3:256 conv3_4:256 "
        "conv4_1:512 conv4_2:512 conv4_3_CPM:256 conv4_4_CPM:128"
    )
    for word in names.split():
        name, width = word.split(":")
        target.conv(f"model0.{name}", int(width), into, 3)
        into = int(width)
    outs = {1: 38, 2: 19}
    flat = Keys()
    for stage in range(1, 7):
        for branch in (1, 2):
            if stage == 1:
                layers = [(f"conv5_{at}_CPM_L{branch}", 128, 128, 3) for at in (1, 2, 3)]
                layers += [(f"conv5_4_CPM_L{branch}", 512, 128, 1), (f"conv5_5_CPM_L{branch}", outs[branch], 512, 1)]
            else:
                layers = [(f"Mconv{at}_stage{stage}_L{branch}", 128, 185 if at == 1 else 128, 7) for at in range(1, 6)]
                layers += [
                    (f"Mconv6_stage{stage}_L{branch}", 128, 128, 1),
                    (f"Mconv7_stage{stage}_L{branch}", outs[branch], 128, 1),
                ]
            for name, out, wide, kernel in layers:
                target.conv(f"model{stage}_{branch}.{name}", out, wide, kernel)
    flat.update({key.split(".", 1)[1]: tensor for key, tensor in target.items()})
    ordered = Keys()
    for branch in (2, 1):  # the file lists the maps first
        ordered.update(
            {key: tensor for key, tensor in flat.items() if f"_L{branch}." in key or (branch == 2 and "_L" not in key)}
        )
    return back(ordered, target, [(r"^model[\d_]+\.", "")])


@pair("fresh: an old smp U-Net to today's: layers are blocks")
def old_smp(small: bool) -> Two:
    """decoder.layer1.block.0.block.0 is decoder.blocks.0.conv1.0; the head has another kernel."""
    target = listing("smp-unet")
    table = [
        (r"^segmentation_head.*", ""),
        (
            r"^decoder\.blocks\.(\d)\.conv(\d)\.(\d)\.",
            lambda m: f"decoder.layer{int(m[1]) + 1}.block.{int(m[2]) - 1}.block.{m[3]}.",
        ),
    ]
    source = Keys()
    source.update({renamed(key, table): tensor for key, tensor in target.items() if renamed(key, table)})
    source.conv("decoder.final_conv", 1, 16, 1)
    rules = rules_of(target, table, backwards=True)
    return (
        fresh(source, target, rules, missing=["segmentation_head.0.weight"])
        if "segmentation_head.0.bias" not in target
        else fresh(
            source,
            target,
            [*rules, "decoder.final_conv.bias -> segmentation_head.0.bias"],
            missing=["segmentation_head.0.weight"],
        )
    )
