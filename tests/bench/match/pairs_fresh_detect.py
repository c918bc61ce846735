"""Fresh pairs: detectors."""

from __future__ import annotations

from typing import Any

from tests.bench.match.fresh import Keys, Two, back, forth, pair, renamed, state
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
