"""Fresh pairs: convolutional networks, faces, people, super-resolution."""

from __future__ import annotations

from typing import Any

from tests.bench.match.fresh import Keys, Two, back, forth, fresh, pair, rules_of, state


def bottlenecks(keys: Keys, prefix: str, ibn: bool = False, into: int = 64) -> None:
    """The four stages of a ResNet-50 as torchvision names them."""
    for stage, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for block in range(depth):
            name = f"{prefix}layer{stage}.{block}"
            keys.conv(f"{name}.conv1", width, into, 1, bias=False)
            if ibn and stage < 4:
                keys.norm(f"{name}.bn1.IN", width // 2)
                keys.bn(f"{name}.bn1.BN", width // 2)
            else:
                keys.bn(f"{name}.bn1", width)
            keys.conv(f"{name}.conv2", width, width, 3, bias=False)
            keys.bn(f"{name}.bn2", width)
            keys.conv(f"{name}.conv3", width * 4, width, 1, bias=False)
            keys.bn(f"{name}.bn3", width * 4)
            if not block:
                keys.conv(f"{name}.downsample.0", width * 4, into, 1, bias=False)
                keys.bn(f"{name}.downsample.1", width * 4)
            into = width * 4


def stem(keys: Keys, prefix: str) -> None:
    """A ResNet's first convolution."""
    keys.conv(f"{prefix}conv1", 64, 3, 7, bias=False)
    keys.bn(f"{prefix}bn1", 64)


@pair("fresh: a strong baseline for re-identification to FastReID, IBN-a")
def strong_baseline(small: bool) -> Two:
    """The classes of the data set are others; the neck is a batch norm in both."""
    source, target = Keys(), Keys()
    stem(source, "base.")
    bottlenecks(source, "base.", ibn=True)
    source.bn("bottleneck", 2048)
    source.put("classifier.weight", 751, 2048)
    stem(target, "backbone.")
    bottlenecks(target, "backbone.", ibn=True)
    target.put("heads.weight", 1041, 2048)
    target.bn("heads.bottleneck.0", 2048)
    target.put("pixel_mean", 1, 3, 1, 1)
    target.put("pixel_std", 1, 3, 1, 1)
    table = [(r"^base\.", "backbone."), (r"^bottleneck\.", "heads.bottleneck.0."), (r"^classifier.*", "")]
    return forth(source, target, table, missing=["heads.weight", "pixel_*"])


@pair("fresh: TransReID to timm's ViT: two copies of the last block stay behind", "timm")
def transreid(small: bool) -> Two:
    """b1 and b2 are copies of the last block with a norm; camera embeddings; overlapping patches."""
    import timm

    target = timm.create_model("vit_base_patch16_224", num_classes=0)
    source = Keys()
    source.put("base.cls_token", 1, 1, 768)
    source.put("base.pos_embed", 1, 211, 768)
    source.put("base.sie_embed", 6, 1, 768)
    source.conv("base.patch_embed.proj", 768, 3, 16)

    def block(name: str) -> None:
        source.norm(f"{name}.norm1", 768)
        source.lin(f"{name}.attn.qkv", 2304, 768)
        source.lin(f"{name}.attn.proj", 768, 768)
        source.norm(f"{name}.norm2", 768)
        source.lin(f"{name}.mlp.fc1", 3072, 768)
        source.lin(f"{name}.mlp.fc2", 768, 3072)

    for index in range(12):
        block(f"base.blocks.{index}")
    source.norm("base.norm", 768)
    source.lin("base.fc", 1000, 768)
    for branch in ("b1", "b2"):
        block(f"{branch}.0")
        source.norm(f"{branch}.1", 768)
    source.put("classifier.weight", 751, 768)
    for index in range(1, 5):
        source.put(f"classifier_{index}.weight", 751, 768)
    source.bn("bottleneck", 768)
    for index in range(1, 5):
        source.bn(f"bottleneck_{index}", 768)
    table = [(r"^base\.(fc|sie|pos).*", ""), (r"^(b[12]|class|bottle).*", ""), (r"^base\.", "")]
    return forth(source, target, table, missing=["pos_embed"])


@pair("fresh: PCB in torchreid's names into a ResNet-50 that keeps its children in a Sequential")
def pcb(small: bool) -> Two:
    """People re-identification: six classifiers stay behind."""
    source, target = Keys(), Keys()
    stem(source, "")
    bottlenecks(source, "")
    source.conv("conv5", 256, 2048, 1, bias=False)
    source.bn("bn5", 256)
    for part in range(6):
        source.lin(f"classifier.{part}", 751, 256)
    whole = Keys()
    stem(whole, "")
    bottlenecks(whole, "")
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    table = [(rf"^{name}\.", f"encoder.{number}.") for name, number in numbers.items()]
    for rule in rules_of(whole, table):
        old, new = rule.split(" -> ")
        target[new] = whole[old]
    target.lin("embed.0", 512, 2048)
    target.bn("embed.1", 512)
    left = [(r"^(conv5|bn5|classifier).*", "")]
    return forth(source, target, [*left, *table], missing=["embed.*"])


@pair("fresh: MobileFaceNet in two authors' spellings: a last Linear is a convolution")
def mobilefacenet(small: bool) -> Two:
    """TreB1eN's conv_3.model.0 is Xiaoccer's blocks.1; conv, bn, prelu against numbers."""
    source, target = Keys(), Keys()

    def unit(name: str, out: int, into: int, kernel: int, act: bool = True) -> None:
        source.conv(f"{name}.conv", out, into, kernel, bias=False)
        source.bn(f"{name}.bn", out)
        if act:
            source.put(f"{name}.prelu.weight", out)

    def depthwise(name: str, out: int, into: int, groups: int) -> None:
        unit(f"{name}.conv", groups, into, 1)
        unit(f"{name}.conv_dw", groups, 1, 3)
        unit(f"{name}.project", out, groups, 1, act=False)

    unit("conv1", 64, 3, 3)
    unit("conv2_dw", 64, 1, 3)
    depthwise("conv_23", 64, 64, 128)
    for index in range(4):
        depthwise(f"conv_3.model.{index}", 64, 64, 128)
    depthwise("conv_34", 128, 64, 256)
    for index in range(6):
        depthwise(f"conv_4.model.{index}", 128, 128, 256)
    depthwise("conv_45", 128, 128, 512)
    for index in range(2):
        depthwise(f"conv_5.model.{index}", 128, 128, 256)
    unit("conv_6_sep", 512, 128, 1)
    unit("conv_6_dw", 512, 1, 7, act=False)
    source.put("linear.weight", 128, 512)
    source.bn("bn", 128)

    def whole(name: str, out: int, into: int, kernel: int, act: bool = True) -> None:
        target.conv(f"{name}.conv", out, into, kernel, bias=False)
        target.bn(f"{name}.bn", out)
        if act:
            target.put(f"{name}.prelu.weight", out)

    whole("conv1", 64, 3, 3)
    whole("dw_conv1", 64, 1, 3)
    into, index = 64, 0
    names = {}
    lists = (("conv_23", "conv_3", 4, 2), ("conv_34", "conv_4", 6, 4), ("conv_45", "conv_5", 2, 4))
    for one, many, depth, first in lists:
        for at in range(depth + 1):
            name = f"blocks.{index}.conv"
            out = 64 if one == "conv_23" else 128
            wide = into * (first if not at else 2)
            for place, (o, i, k) in enumerate(((wide, into, 1), (wide, 1, 3), (out, wide, 1))):
                target.conv(f"{name}.{3 * place}", o, i, k, bias=False)
                target.bn(f"{name}.{3 * place + 1}", o)
                if place < 2:
                    target.put(f"{name}.{3 * place + 2}.weight", o)
            names[name] = one if not at else f"{many}.model.{at - 1}"
            into, index = out, index + 1
    whole("conv2", 512, 128, 1)
    whole("linear7", 512, 1, 7, act=False)
    whole("linear1", 128, 512, 1, act=False)
    table: list[Any] = [(rf"^{name}\.".replace(".conv", r"\.conv"), f"{old}.") for name, old in names.items()]
    parts = {
        0: "conv.conv",
        1: "conv.bn",
        2: "conv.prelu",
        3: "conv_dw.conv",
        4: "conv_dw.bn",
        5: "conv_dw.prelu",
        6: "project.conv",
        7: "project.bn",
    }
    table += [(rf"^(conv_\d+(?:\.model\.\d+)?)\.{number}\.", rf"\1.{part}.") for number, part in parts.items()]
    table += [
        (r"^conv2\.", "conv_6_sep."),
        (r"^dw_conv1\.", "conv2_dw."),
        (r"^linear7\.", "conv_6_dw."),
        (r"^linear1\.conv\.", "linear."),
        (r"^linear1\.bn\.", "bn."),
    ]
    return back(source, target, table, [(r"^linear1\.conv\.weight", "o i -> o i 1 1")])


@pair("fresh: EDSR in its authors' names to BasicSR's: one width throughout")
def edsr(small: bool) -> Two:
    """The means of the colours stay behind; 33 convolutions of one shape."""
    source, target = Keys(), Keys()
    for name in ("sub_mean", "add_mean"):
        source.conv(name, 3, 3, 1)
    source.conv("head.0", 64, 3, 3)
    for block in range(16):
        source.conv(f"body.{block}.body.0", 64, 64, 3)
        source.conv(f"body.{block}.body.2", 64, 64, 3)
    source.conv("body.16", 64, 64, 3)
    source.conv("tail.0.0", 256, 64, 3)
    source.conv("tail.0.2", 256, 64, 3)
    source.conv("tail.1", 3, 64, 3)
    target.conv("conv_first", 64, 3, 3)
    for block in range(16):
        target.conv(f"body.{block}.conv1", 64, 64, 3)
        target.conv(f"body.{block}.conv2", 64, 64, 3)
    target.conv("conv_after_body", 64, 64, 3)
    target.conv("upsample.0", 256, 64, 3)
    target.conv("upsample.2", 256, 64, 3)
    target.conv("conv_last", 3, 64, 3)
    table = [
        (r"^conv_first\.", "head.0."),
        (r"^body\.(\d+)\.conv1", r"body.\1.body.0"),
        (r"^body\.(\d+)\.conv2", r"body.\1.body.2"),
        (r"^conv_after_body", "body.16"),
        (r"^upsample\.", "tail.0."),
        (r"^conv_last", "tail.1"),
    ]
    return back(source, target, table)


@pair("fresh: HED by sniklaus to another author's names: numbers are words")
def hed(small: bool) -> Two:
    """netVggTwo.1 is conv2_1: a pool stands in front of the stages."""
    source, target = Keys(), Keys()
    words = ["One", "Two", "Thr", "Fou", "Fiv"]
    widths, depths, names, into = [64, 128, 256, 512, 512], [2, 2, 3, 3, 3], {}, 3
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), 1):
        for at in range(depth):
            old = f"netVgg{words[stage - 1]}.{2 * at + (stage > 1)}"
            new = f"conv{stage}_{at + 1}"
            source.conv(old, width, into, 3)
            target.conv(new, width, into, 3)
            names[new] = old
            into = width
    for stage, width in enumerate(widths, 1):
        source.conv(f"netScore{words[stage - 1]}", 1, width, 1)
        target.conv(f"score_dsn{stage}", 1, width, 1)
        names[f"score_dsn{stage}"] = f"netScore{words[stage - 1]}"
    source.conv("netCombine.0", 1, 5, 1)
    target.conv("score_final", 1, 5, 1)
    names["score_final"] = "netCombine.0"
    return back(source, target, [(rf"^{new}\.", f"{old}.") for new, old in names.items()])


@pair("fresh: magicleap's SuperPoint to Hugging Face", "transformers")
def superpoint(small: bool) -> Two:
    """convPa and convDa have one shape; what follows them has not."""
    import transformers

    target = transformers.SuperPointForKeypointDetection(transformers.SuperPointConfig())
    source = Keys()
    into = 1
    for stage, width in enumerate((64, 64, 128, 128), 1):
        source.conv(f"conv{stage}a", width, into, 3)
        source.conv(f"conv{stage}b", width, width, 3)
        into = width
    source.conv("convPa", 256, 128, 3)
    source.conv("convPb", 65, 256, 1)
    source.conv("convDa", 256, 128, 3)
    source.conv("convDb", 256, 256, 1)
    table = [
        (r"^encoder\.conv_blocks\.(\d)\.conv_", lambda m: f"conv{int(m[1]) + 1}"),
        (r"^keypoint_decoder\.conv_score_", "convP"),
        (r"^descriptor_decoder\.conv_descriptor_", "convD"),
    ]
    return back(source, target, table)


@pair("fresh: torchvision's VGG-16 into FCN-8s: two Linears become convolutions", "torchvision")
def fcn8s(small: bool) -> Two:
    """As `copy_params_from_vgg16` does; the classes and the way up are new."""
    import torchvision

    source = torchvision.models.vgg16()
    target, names, into, at = Keys(), {}, 3, 0
    for stage, (width, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        for number in range(1, depth + 1):
            target.conv(f"conv{stage}_{number}", width, into, 3)
            names[f"conv{stage}_{number}"] = f"features.{at}"
            into, at = width, at + 2
        at += 1
    target.conv("fc6", 4096, 512, 7)
    target.conv("fc7", 4096, 4096, 1)
    target.conv("score_fr", 21, 4096, 1)
    target.conv("score_pool3", 21, 256, 1)
    target.conv("score_pool4", 21, 512, 1)
    target.put("upscore2.weight", 21, 21, 4, 4)
    target.put("upscore8.weight", 21, 21, 16, 16)
    target.put("upscore_pool4.weight", 21, 21, 4, 4)
    names |= {"fc6": "classifier.0", "fc7": "classifier.3"}
    table: list[Any] = [(r"^(score|upscore).*", ""), *((rf"^{new}\.", f"{old}.") for new, old in names.items())]
    layouts = [(r"^fc6\.weight", "o (i h w) -> o i h w"), (r"^fc7\.weight", "o i -> o i 1 1")]
    return back(source, target, table, layouts, missing=["score*", "upscore*"], vars={"h": 7, "w": 7})


@pair("fresh: torchvision's vgg16_bn into CRAFT: slices keep the numbers", "torchvision")
def craft(small: bool) -> Two:
    """The way up has VGG's shapes and none of its weights."""
    import torchvision

    source = torchvision.models.vgg16_bn()
    target, into, at, cuts = Keys(), 3, 0, {}
    layers = [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512]
    for width in layers:
        if not width:
            at += 1
            continue
        for number in (at, at + 1):
            cuts[number] = 1 + sum(number >= cut for cut in (12, 19, 29))
            if number >= 39:
                continue
            name = f"basenet.slice{cuts[number]}.{number}"
            if number == at:
                target.conv(name, width, into, 3)
            else:
                target.bn(name, width)
        into, at = width, at + 3
    target.conv("basenet.slice5.1", 1024, 512, 3)
    target.conv("basenet.slice5.2", 1024, 1024, 1)
    for number, (a, b, c) in enumerate(((1024, 512, 256), (512, 256, 128), (256, 128, 64), (128, 64, 32)), 1):
        target.conv(f"upconv{number}.conv.0", b, a + (512 if number == 1 else b), 1)
        target.bn(f"upconv{number}.conv.1", b)
        target.conv(f"upconv{number}.conv.3", c, b, 3)
        target.bn(f"upconv{number}.conv.4", c)
    for number, (out, into, kernel) in zip(
        (0, 2, 4, 6, 8), ((32, 32, 3), (32, 32, 3), (16, 32, 3), (16, 16, 1), (2, 16, 1)), strict=True
    ):
        target.conv(f"conv_cls.{number}", out, into, kernel)
    table = [(r"^(upconv|conv_cls|basenet\.slice5).*", ""), (r"^basenet\.slice\d\.", "features.")]
    return back(source, target, table, missing=["upconv*", "conv_cls.*", "basenet.slice5.*"])


@pair("fresh: RepVGG in its authors' names to timm", "timm")
def repvgg(small: bool) -> Two:
    """Three branches side by side; stage0 is the stem."""
    import timm

    target = timm.create_model("repvgg_a0")
    source, into = Keys(), 3
    for stage, (width, depth) in enumerate(((48, 1), (48, 2), (96, 4), (192, 14), (1280, 1))):
        for block in range(depth):
            name = "stage0" if not stage else f"stage{stage}.{block}"
            if stage and block:
                source.bn(f"{name}.rbr_identity", width)
            source.conv(f"{name}.rbr_dense.conv", width, into, 3, bias=False)
            source.bn(f"{name}.rbr_dense.bn", width)
            source.conv(f"{name}.rbr_1x1.conv", width, into, 1, bias=False)
            source.bn(f"{name}.rbr_1x1.bn", width)
            into = width
    source.lin("linear", 1000, 1280)
    table = [
        (r"^stem\.", "stage0."),
        (r"^stages\.(\d)\.", lambda m: f"stage{int(m[1]) + 1}."),
        (r"^head\.fc", "linear"),
        (r"\.conv_kxk\.", ".rbr_dense."),
        (r"\.conv_1x1\.", ".rbr_1x1."),
        (r"\.identity\.", ".rbr_identity."),
    ]
    return back(source, target, table)


@pair("fresh: pycls' RegNet to timm", "timm")
def pycls_regnet(small: bool) -> Two:
    """f.a_bn is conv1.bn, proj is the downsample."""
    import timm

    target = timm.create_model("regnety_002")
    table = [
        (r"^stem\.bn", "stem.bn"),
        (r"\.conv1\.conv\.", ".f.a."),
        (r"\.conv1\.bn\.", ".f.a_bn."),
        (r"\.conv2\.conv\.", ".f.b."),
        (r"\.conv2\.bn\.", ".f.b_bn."),
        (r"\.conv3\.conv\.", ".f.c."),
        (r"\.conv3\.bn\.", ".f.c_bn."),
        (r"\.se\.fc1\.", ".f.se.f_ex.0."),
        (r"\.se\.fc2\.", ".f.se.f_ex.2."),
        (r"\.downsample\.conv\.", ".proj."),
        (r"\.downsample\.bn\.", ".bn."),
    ]
    rules = rules_of(state(target), table, backwards=True)
    shapes = {rule.split(" -> ")[0]: state(target)[rule.split(" -> ")[1]] for rule in rules}

    # pycls makes the projection in front of the transform, and excitation between b and c
    def place(name: str) -> tuple[bool, str, str, int]:
        stage, _, rest = name.partition(".")
        block = rest.split(".")[0]
        return (
            stage == "head",
            stage if stage != "stem" else "",
            f"{int(block[1:]):03}" if stage[0] == "s" and stage != "stem" else "",
            ".f." in name,
        )

    source = Keys()
    source.update({name: shapes[name] for name in sorted(shapes, key=place)})
    return fresh(source, target, rules)
