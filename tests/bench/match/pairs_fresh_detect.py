"""Fresh pairs: detectors, segmentation, poses."""

from __future__ import annotations

from typing import Any

from tests.bench.match.fresh import Keys, Two, back, forth, fresh, pair, renamed, rules_of, state
from tests.bench.match.fresh_listings import listing
from tests.bench.match.pairs_fresh_vision import bottlenecks, stem


@pair("fresh: ssd.pytorch to torchvision's SSD300: three lists and a scale", "torchvision")
def ssd(small: bool) -> Two:
    """vgg.24 is the fifth stage, which torchvision keeps with the extra layers."""
    import torchvision

    target = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=21)
    source = Keys()
    into = 3
    widths = {
        0: 64,
        2: 64,
        5: 128,
        7: 128,
        10: 256,
        12: 256,
        14: 256,
        17: 512,
        19: 512,
        21: 512,
        24: 512,
        26: 512,
        28: 512,
    }
    for number, width in widths.items():
        source.conv(f"vgg.{number}", width, into, 3)
        into = width
    source.conv("vgg.31", 1024, 512, 3)
    source.conv("vgg.33", 1024, 1024, 1)
    source.put("L2Norm.weight", 512)
    extras = (
        (256, 1024, 1),
        (512, 256, 3),
        (128, 512, 1),
        (256, 128, 3),
        (128, 256, 1),
        (256, 128, 3),
        (128, 256, 1),
        (256, 128, 3),
    )
    for number, (out, wide, kernel) in enumerate(extras):
        source.conv(f"extras.{number}", out, wide, kernel)
    for name, size in (("loc", 4), ("conf", 21)):
        for number, (wide, boxes) in enumerate(zip((512, 1024, 512, 256, 256, 256), (4, 6, 6, 6, 4, 4), strict=True)):
            source.conv(f"{name}.{number}", size * boxes, wide, 3)
    table: list[Any] = [
        (r"^backbone\.scale_weight", "L2Norm.weight"),
        (r"^backbone\.features\.", "vgg."),
        (r"^head\.classification_head\.module_list\.", "conf."),
        (r"^head\.regression_head\.module_list\.", "loc."),
        (r"^backbone\.extra\.0\.(\d)\.([wb])", lambda m: f"vgg.{23 + int(m[1])}.{m[2]}"),
        (r"^backbone\.extra\.0\.7\.1\.", "vgg.31."),
        (r"^backbone\.extra\.0\.7\.3\.", "vgg.33."),
        (r"^backbone\.extra\.(\d)\.(\d)\.", lambda m: f"extras.{2 * int(m[1]) - 2 + int(m[2]) // 2}."),
    ]
    return back(source, target, table)


@pair("fresh: YOLOX in its authors' names to mmdet: lists of levels are named apart")
def yolox(small: bool) -> Two:
    """C3_p4 is top_down_blocks.0; conv1 is the main branch, which mmdet makes first."""
    source = Keys()

    def unit(name: str, out: int, into: int, kernel: int) -> None:
        source.conv(f"{name}.conv", out, into, kernel, bias=False)
        source.bn(f"{name}.bn", out)

    def csp(name: str, out: int, into: int, depth: int) -> None:
        half = out // 2
        unit(f"{name}.conv1", half, into, 1)
        unit(f"{name}.conv2", half, into, 1)
        unit(f"{name}.conv3", out, 2 * half, 1)
        for at in range(depth):
            unit(f"{name}.m.{at}.conv1", half, half, 1)
            unit(f"{name}.m.{at}.conv2", half, half, 3)

    w = 32
    unit("backbone.backbone.stem.conv", w, 12, 3)
    for stage, depth in zip((2, 3, 4, 5), (1, 3, 3, 1), strict=True):
        name, out = f"backbone.backbone.dark{stage}", w * 2 ** (stage - 1)
        unit(f"{name}.0", out, out // 2, 3)
        if stage == 5:
            unit(f"{name}.1.conv1", out // 2, out, 1)
            unit(f"{name}.1.conv2", out, out * 2, 1)
        csp(f"{name}.{2 if stage == 5 else 1}", out, out, depth)
    unit("backbone.lateral_conv0", 8 * w, 16 * w, 1)
    csp("backbone.C3_p4", 8 * w, 16 * w, 1)
    unit("backbone.reduce_conv1", 4 * w, 8 * w, 1)
    csp("backbone.C3_p3", 4 * w, 8 * w, 1)
    unit("backbone.bu_conv2", 4 * w, 4 * w, 3)
    csp("backbone.C3_n3", 8 * w, 8 * w, 1)
    unit("backbone.bu_conv1", 8 * w, 8 * w, 3)
    csp("backbone.C3_n4", 16 * w, 16 * w, 1)
    for kind in ("cls", "reg"):
        for level in range(3):
            for at in range(2):
                unit(f"head.{kind}_convs.{level}.{at}", 128, 128, 3)
    for kind, out in (("cls", 80), ("reg", 4), ("obj", 1)):
        for level in range(3):
            source.conv(f"head.{kind}_preds.{level}", out, 128, 1)
    for level in range(3):
        unit(f"head.stems.{level}", 128, w * 4 * 2**level, 1)
    table: list[Any] = [
        (r"\.(m)\.(\d)\.", r".blocks.\2."),
        (r"(dark[2-5]\.[12]|C3_..)\.conv1\.", r"\1.main_conv."),
        (r"(dark[2-5]\.[12]|C3_..)\.conv2\.", r"\1.short_conv."),
        (r"(dark[2-5]\.[12]|C3_..)\.conv3\.", r"\1.final_conv."),
        (r"dark5\.1\.main_conv", "dark5.1.conv1"),
        (r"dark5\.1\.short_conv", "dark5.1.conv2"),
        (r"^backbone\.backbone\.dark(\d)", lambda m: f"backbone.stage{int(m[1]) - 1}"),
        (r"^backbone\.backbone\.", "backbone."),
        (r"^backbone\.lateral_conv0", "neck.reduce_layers.0"),
        (r"^backbone\.reduce_conv1", "neck.reduce_layers.1"),
        (r"^backbone\.C3_p4", "neck.top_down_blocks.0"),
        (r"^backbone\.C3_p3", "neck.top_down_blocks.1"),
        (r"^backbone\.bu_conv2", "neck.downsamples.0"),
        (r"^backbone\.bu_conv1", "neck.downsamples.1"),
        (r"^backbone\.C3_n3", "neck.bottom_up_blocks.0"),
        (r"^backbone\.C3_n4", "neck.bottom_up_blocks.1"),
        (r"^head\.stems", "neck.out_convs"),
        (r"^head\.(cls|reg)_convs", r"bbox_head.multi_level_\1_convs"),
        (r"^head\.(cls|reg|obj)_preds", r"bbox_head.multi_level_conv_\1"),
    ]
    made = {renamed(key, table): tensor for key, tensor in source.items()}
    parts = (
        "backbone.",
        "neck.reduce",
        "neck.top",
        "neck.down",
        "neck.bottom",
        "neck.out",
        "bbox_head.multi_level_cls",
        "bbox_head.multi_level_reg",
        "bbox_head.multi_level_conv_cls",
        "bbox_head.multi_level_conv_reg",
        "bbox_head.multi_level_conv_obj",
    )
    places = list(made)
    order = sorted(
        made,
        key=lambda key: (
            next(at for at, part in enumerate(parts) if key.startswith(part)),
            places.index(key),
        ),
    )
    target = {key: made[key] for key in order}
    # which of two equal convolutions is the main one, only their place tells
    return forth(source, target, table, undecided=["*.main_conv.*", "*.short_conv.*"])


@pair("fresh: YOLOv8 to mmyolo: numbers became stages, layers and predictions")
def yolov8(small: bool) -> Two:
    """As mmyolo's yolov8_to_mmyolo.py does; the fixed weights of the integral are no parameter there."""
    source = listing("ultralytics-yolov8n")
    numbers = {
        0: "backbone.stem",
        1: "backbone.stage1.0",
        2: "backbone.stage1.1",
        3: "backbone.stage2.0",
        4: "backbone.stage2.1",
        5: "backbone.stage3.0",
        6: "backbone.stage3.1",
        7: "backbone.stage4.0",
        8: "backbone.stage4.1",
        9: "backbone.stage4.2",
        12: "neck.top_down_layers.0",
        15: "neck.top_down_layers.1",
        16: "neck.downsample_layers.0",
        18: "neck.bottom_up_layers.0",
        19: "neck.downsample_layers.1",
        21: "neck.bottom_up_layers.1",
        22: "bbox_head.head_module",
    }
    table: list[Any] = [
        (r"^model\.22\.dfl.*", ""),
        (r"^model\.22\.cv2\.", "model.22.reg_preds."),
        (r"^model\.22\.cv3\.", "model.22.cls_preds."),
        (r"^model\.9\.cv", "model.9.conv"),
        (r"^(model\.\d+)\.cv1\.", r"\1.main_conv."),
        (r"^(model\.\d+)\.cv2\.", r"\1.final_conv."),
        (r"^(model\.\d+)\.m\.(\d)\.cv(\d)", r"\1.blocks.\2.conv\3"),
    ]
    table += [(rf"^model\.{number}\.", f"{name}.") for number, name in numbers.items()]
    target = {renamed(key, table): tensor for key, tensor in source.items() if renamed(key, table)}
    parts = (
        "backbone",
        "neck.top",
        "neck.down",
        "neck.bottom",
        "bbox_head.head_module.cls",
        "bbox_head.head_module.reg",
    )
    ordered = sorted(target, key=lambda key: next(at for at, part in enumerate(parts) if key.startswith(part)))
    return forth(source, {key: target[key] for key in ordered}, table)


@pair("fresh: mmdet's RetinaNet to torchvision", "torchvision")
def retinanet(small: bool) -> Two:
    """Two towers of one shape, for classes and for boxes; the last two levels are in one list with the others."""
    import torchvision

    target = torchvision.models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=80)
    source = Keys()
    stem(source, "backbone.")
    bottlenecks(source, "backbone.")
    for level, wide in enumerate((512, 1024, 2048)):
        source.conv(f"neck.lateral_convs.{level}.conv", 256, wide, 1)
    for level in range(5):
        source.conv(f"neck.fpn_convs.{level}.conv", 256, 256, 3)
    for kind in ("cls", "reg"):
        for at in range(4):
            source.conv(f"bbox_head.{kind}_convs.{at}.conv", 256, 256, 3)
    source.conv("bbox_head.retina_cls", 720, 256, 3)
    source.conv("bbox_head.retina_reg", 36, 256, 3)
    table: list[Any] = [
        (r"^backbone\.body\.", "backbone."),
        (r"^backbone\.fpn\.inner_blocks\.(\d)\.0", r"neck.lateral_convs.\1.conv"),
        (r"^backbone\.fpn\.layer_blocks\.(\d)\.0", r"neck.fpn_convs.\1.conv"),
        (r"^backbone\.fpn\.extra_blocks\.p([67])", lambda m: f"neck.fpn_convs.{int(m[1]) - 3}.conv"),
        (r"^head\.classification_head\.conv\.(\d)\.0", r"bbox_head.cls_convs.\1.conv"),
        (r"^head\.classification_head\.cls_logits", "bbox_head.retina_cls"),
        (r"^head\.regression_head\.conv\.(\d)\.0", r"bbox_head.reg_convs.\1.conv"),
        (r"^head\.regression_head\.bbox_reg", "bbox_head.retina_reg"),
    ]
    return back(source, target, table)


@pair("fresh: FCOS by its author to torchvision: cls_tower and bbox_tower", "torchvision")
def fcos(small: bool) -> Two:
    """maskrcnn-benchmark's names; a scale for each level stays behind."""
    import torchvision

    target = torchvision.models.detection.fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=80)
    source, body = Keys(), Keys()
    stem(body, "backbone.body.stem.")
    bottlenecks(body, "backbone.body.")
    source.update({f"module.{key}": tensor for key, tensor in body.items() if not key.endswith("tracked")})
    for level, wide in zip((2, 3, 4), (512, 1024, 2048), strict=True):
        source.conv(f"module.backbone.fpn.fpn_inner{level}", 256, wide, 1)
        source.conv(f"module.backbone.fpn.fpn_layer{level}", 256, 256, 3)
    source.conv("module.backbone.fpn.top_blocks.p6", 256, 256, 3)
    source.conv("module.backbone.fpn.top_blocks.p7", 256, 256, 3)
    for kind in ("cls", "bbox"):
        for at in range(4):
            source.conv(f"module.rpn.head.{kind}_tower.{3 * at}", 256, 256, 3)
            source.norm(f"module.rpn.head.{kind}_tower.{3 * at + 1}", 256)
    source.conv("module.rpn.head.cls_logits", 80, 256, 3)
    source.conv("module.rpn.head.bbox_pred", 4, 256, 3)
    source.conv("module.rpn.head.centerness", 1, 256, 3)
    for level in range(5):
        source.put(f"module.rpn.head.scales.{level}.scale", 1)
    table: list[Any] = [
        (r".*num_batches_tracked", ""),
        (r"^backbone\.body\.(conv1|bn1)\.", r"backbone.body.stem.\1."),
        (r"^backbone\.fpn\.inner_blocks\.(\d)\.0", lambda m: f"backbone.fpn.fpn_inner{int(m[1]) + 2}"),
        (r"^backbone\.fpn\.layer_blocks\.(\d)\.0", lambda m: f"backbone.fpn.fpn_layer{int(m[1]) + 2}"),
        (r"^backbone\.fpn\.extra_blocks", "backbone.fpn.top_blocks"),
        (r"^head\.classification_head\.conv\.", "rpn.head.cls_tower."),
        (r"^head\.classification_head\.cls_logits", "rpn.head.cls_logits"),
        (r"^head\.regression_head\.conv\.", "rpn.head.bbox_tower."),
        (r"^head\.regression_head\.bbox_reg", "rpn.head.bbox_pred"),
        (r"^head\.regression_head\.bbox_ctrness", "rpn.head.centerness"),
        (r"^(?=.)", "module."),
    ]
    return back(source, target, table, missing=["*num_batches_tracked"])


@pair("fresh: mmdet's Mask R-CNN to detectron2's")
def mask_rcnn(small: bool) -> Two:
    """res2 is layer1, a norm is a child of its convolution, the mask head's list became names."""
    source = Keys()
    stem(source, "backbone.")
    bottlenecks(source, "backbone.")
    for level, wide in enumerate((256, 512, 1024, 2048)):
        source.conv(f"neck.lateral_convs.{level}.conv", 256, wide, 1)
    for level in range(4):
        source.conv(f"neck.fpn_convs.{level}.conv", 256, 256, 3)
    source.conv("rpn_head.rpn_conv", 256, 256, 3)
    source.conv("rpn_head.rpn_cls", 3, 256, 1)
    source.conv("rpn_head.rpn_reg", 12, 256, 1)
    source.lin("roi_head.bbox_head.fc_cls", 81, 1024)
    source.lin("roi_head.bbox_head.fc_reg", 320, 1024)
    source.lin("roi_head.bbox_head.shared_fcs.0", 1024, 12544)
    source.lin("roi_head.bbox_head.shared_fcs.1", 1024, 1024)
    for at in range(4):
        source.conv(f"roi_head.mask_head.convs.{at}.conv", 256, 256, 3)
    source.put("roi_head.mask_head.upsample.weight", 256, 256, 2, 2)
    source.put("roi_head.mask_head.upsample.bias", 256)
    source.conv("roi_head.mask_head.conv_logits", 80, 256, 1)
    table: list[Any] = [
        (r".*num_batches_tracked", ""),
        (r"^backbone\.(conv1|bn1)\.", r"backbone.bottom_up.stem.\1."),
        (r"^backbone\.layer(\d)", lambda m: f"backbone.bottom_up.res{int(m[1]) + 1}"),
        (r"\.downsample\.0\.", ".shortcut."),
        (r"\.downsample\.1\.", ".shortcut.norm."),
        (r"\.bn(\d)\.", r".conv\1.norm."),
        (r"^neck\.lateral_convs\.(\d)\.conv", lambda m: f"backbone.fpn_lateral{int(m[1]) + 2}"),
        (r"^neck\.fpn_convs\.(\d)\.conv", lambda m: f"backbone.fpn_output{int(m[1]) + 2}"),
        (r"^rpn_head\.rpn_conv", "proposal_generator.rpn_head.conv"),
        (r"^rpn_head\.rpn_cls", "proposal_generator.rpn_head.objectness_logits"),
        (r"^rpn_head\.rpn_reg", "proposal_generator.rpn_head.anchor_deltas"),
        (r"^roi_head\.bbox_head\.shared_fcs\.(\d)", lambda m: f"roi_heads.box_head.fc{int(m[1]) + 1}"),
        (r"^roi_head\.bbox_head\.fc_cls", "roi_heads.box_predictor.cls_score"),
        (r"^roi_head\.bbox_head\.fc_reg", "roi_heads.box_predictor.bbox_pred"),
        (r"^roi_head\.mask_head\.convs\.(\d)\.conv", lambda m: f"roi_heads.mask_head.mask_fcn{int(m[1]) + 1}"),
        (r"^roi_head\.mask_head\.upsample", "roi_heads.mask_head.deconv"),
        (r"^roi_head\.mask_head\.conv_logits", "roi_heads.mask_head.predictor"),
    ]
    made = {renamed(key, table): tensor for key, tensor in source.items() if renamed(key, table)}
    parts = [f"backbone.fpn_{kind}{level}" for level in (2, 3, 4, 5) for kind in ("lateral", "output")]
    parts += [
        "backbone.bottom_up.stem",
        "backbone.bottom_up.res",
        "proposal",
        "roi_heads.box_head",
        "roi_heads.box_pred",
        "roi_heads.mask",
    ]
    ordered = sorted(made, key=lambda key: next(at for at, part in enumerate(parts) if key.startswith(part)))
    return forth(source, {key: made[key] for key in ordered}, table)


@pair("fresh: CenterNet with DLA-34 into timm: a part of a model", "timm")
def centernet(small: bool) -> Two:
    """The way up and the heads for boxes stay behind; `module.base.` is the whole prefix."""
    import timm

    target = timm.create_model("dla34", num_classes=0)
    source = Keys()
    source.update({f"module.base.{key}": tensor for key, tensor in state(target).items() if not key.startswith("fc")})
    for name, out, into in (
        ("dla_up.ida_0.proj_1", 256, 512),
        ("dla_up.ida_1.proj_1", 128, 256),
        ("ida_up.proj_1", 64, 128),
    ):
        source.conv(f"module.{name}.conv", out, into, 3)
        source.bn(f"module.{name}.actf.0", out)
        source.conv(f"module.{name.replace('proj', 'node')}.conv", out, out, 3)
        source.bn(f"module.{name.replace('proj', 'node')}.actf.0", out)
    for name, out in (("hm", 80), ("wh", 2), ("reg", 2)):
        source.conv(f"module.{name}.0", 256, 64, 3)
        source.conv(f"module.{name}.2", out, 256, 1)
    return back(source, target, [(r"^", "module.base.")])


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
