"""Blind pairs: public checkpoints for models of one's own that are almost the same, written as small modules."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.match.blind import Net, Two, none, pair, split, state, to

CODE = "by the code of both sides: the same modules under other names"


def conv_bn(into: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, names: str = "conv bn") -> Any:
    """A convolution and its norm, by two names."""
    from torch import nn

    class ConvNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            conv, norm = names.split()
            padding = kernel // 2
            setattr(self, conv, nn.Conv2d(into, out, kernel, stride, padding, groups=groups, bias=False))
            setattr(self, norm, nn.BatchNorm2d(out))

        def forward(self, x: Any) -> Any:
            for child in self.children():
                x = child(x)
            return x

    return ConvNorm()


def twice(parts: list[str], into: list[str]) -> list[str]:
    """Rows of q, k and v to the fused ones of two towers."""
    rules = []
    for tail, axes in (("weight", " i"), ("bias", "")):
        left = ", ".join(f"{part}{axes}" for part in "qkv")
        rules.append(f"{', '.join(f'{part}.{tail}' for part in parts)} -> {into[0]}{tail}, {into[1]}{tail}"
                     f" | {left} -> (q + k + v){axes}, (q + k + v){axes}")  # fmt: skip
    return rules


@pair("blind, own: ResNet-50 twice as query's and key's encoder: sixteen blocks in one list, shortcuts first, a queue",
      "torchvision")  # fmt: skip
def momentum(small: bool) -> Two:
    """One file for both encoders; a learned pooling's power, a projector, a queue of 4096 keys."""
    import torch
    from torch import nn
    from torchvision.models import resnet50

    class Bottleneck(nn.Module):
        def __init__(self, into: int, mid: int, stride: int) -> None:
            super().__init__()
            self.shortcut = conv_bn(into, 4 * mid, 1, stride) if stride > 1 or into != 4 * mid else None
            self.narrow = conv_bn(into, mid)
            self.spatial = conv_bn(mid, mid, 3, stride)
            self.widen = conv_bn(mid, 4 * mid)

        def forward(self, x: Any) -> Any:
            y = self.widen(torch.relu(self.spatial(torch.relu(self.narrow(x)))))
            return torch.relu(y + (self.shortcut(x) if self.shortcut else x))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool_p = nn.Parameter(torch.ones(1) * 3)
            self.entry = conv_bn(3, 64, 7, 2)
            blocks, into = [], 64
            for stage, depth in enumerate((3, 4, 6, 3)):
                for at in range(depth):
                    blocks.append(Bottleneck(into, 64 << stage, 1 if at or not stage else 2))
                    into = 256 << stage
            self.blocks = nn.ModuleList(blocks)
            self.projector = nn.Sequential(nn.Linear(2048, 2048), nn.BatchNorm1d(2048), nn.ReLU(), nn.Linear(2048, 128))

        def forward(self, x: Any) -> Any:
            x = nn.functional.max_pool2d(torch.relu(self.entry(x)), 3, 2, 1)
            for block in self.blocks:
                x = block(x)
            return x

    class Moco(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = Encoder(), Encoder()
            self.register_buffer("queue", torch.zeros(128, 4096))
            self.register_buffer("queue_at", torch.zeros(1, dtype=torch.long))

    def images() -> Any:
        return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    def ask(model: Any) -> Any:
        x = model.maxpool(torch.relu(model.bn1(model.conv1(images()))))
        return model.layer4(model.layer3(model.layer2(model.layer1(x))))

    source, firsts = resnet50(weights=None), (0, 3, 7, 13)
    rules = []
    for key in state(source):
        name = re.sub(r"^layer(\d)\.(\d)", lambda m: f"blocks.{firsts[int(m[1]) - 1] + int(m[2])}", key)
        for old, new in (("downsample.0", "shortcut.conv"), ("downsample.1", "shortcut.bn")):
            name = name.replace(old, new)
        for number, word in enumerate(("narrow", "spatial", "widen"), 1):
            name = re.sub(rf"^(blocks\.\d+)\.(conv|bn){number}", rf"\1.{word}.\2", name)
        name = re.sub(r"^(conv|bn)1", r"entry.\1", name)
        rules.append(f"{key} -> " + ("!" if key.startswith("fc") else f"query.{name}, key.{name}"))
    return Two(source, Moco(), rules, missing=["*.pool_p", "*.projector.*", "queue", "queue_at"], ask=ask,
               ask_target=lambda model: model.query(images()), proof="equal outputs of the trunk")  # fmt: skip


@pair("blind, own: ResNet-101 for four bands: a deep stem, CBAM in every block, a DeepLab's decoder with group norms",
      "torchvision")  # fmt: skip
def aerial(small: bool) -> Two:
    """Stages are numbers of a Sequential; the old stem has no place; the decoder's 1x1 kernels are 256 wide as well."""
    import torch
    from torch import nn
    from torchvision.models import resnet101

    class Cbam(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.mlp = nn.Sequential(nn.Linear(size, size // 16), nn.ReLU(), nn.Linear(size // 16, size))
            self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    class Block(nn.Module):
        def __init__(self, into: int, mid: int, stride: int) -> None:
            super().__init__()
            self.f = nn.Sequential(
                nn.Conv2d(into, mid, 1, bias=False), nn.BatchNorm2d(mid), nn.ReLU(),
                nn.Conv2d(mid, mid, 3, stride, 1, bias=False), nn.BatchNorm2d(mid), nn.ReLU(),
                nn.Conv2d(mid, 4 * mid, 1, bias=False), nn.BatchNorm2d(4 * mid))  # fmt: skip
            self.attention = Cbam(4 * mid)
            self.proj = nn.Sequential()
            if into != 4 * mid:
                self.proj = nn.Sequential(nn.Conv2d(into, 4 * mid, 1, stride, bias=False), nn.BatchNorm2d(4 * mid))

        def forward(self, x: Any) -> Any:
            return torch.relu(self.f(x) + self.proj(x))  # the proof leaves the attention out

    def gn(into: int, out: int, kernel: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=False), nn.GroupNorm(16, out),
                             nn.ReLU())  # fmt: skip

    class Net4(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            stem = nn.Sequential(nn.Conv2d(4, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
                                 nn.Conv2d(32, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
                                 nn.Conv2d(32, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())  # fmt: skip
            stages, into = [], 64
            for stage, depth in enumerate((3, 4, 23, 3)):
                units = []
                for at in range(depth):
                    units.append(Block(into, 64 << stage, 1 if at or not stage else 2))
                    into = 256 << stage
                stages.append(nn.Sequential(*units))
            self.encoder = nn.Sequential(stem, *stages)
            self.aspp = nn.ModuleList([gn(2048, 256, kernel) for kernel in (1, 3, 3, 3)])
            self.squeeze = gn(1024, 256, 1)
            self.low = gn(256, 48, 1)
            self.refine = nn.Sequential(gn(304, 256, 3), gn(256, 256, 3))
            self.logits = nn.Conv2d(256, 9, 1)

    def features() -> Any:
        return torch.randn(2, 64, 16, 16, generator=torch.Generator().manual_seed(1))

    table: list[Any] = [
        (r"^(conv1|bn1|fc)\..*", ""),
        (r"^layer", "encoder."),
        (r"\.conv(\d)", lambda m: f".f.{3 * int(m[1]) - 3}"),
        (r"\.bn(\d)", lambda m: f".f.{3 * int(m[1]) - 2}"),
        (r"\.downsample", ".proj"),
    ]
    return to(resnet101(weights=None), Net4(), table,
              missing=["encoder.0.*", "*.attention.*", "aspp.*", "squeeze.*", "low.*", "refine.*", "logits.*"],
              ask=lambda m: m.layer4(m.layer3(m.layer2(m.layer1(features())))),
              ask_target=lambda m: m.encoder[1:](features()),
              truth="equal outputs behind the stem, attention left out")  # fmt: skip


@pair("blind, own: ResNet-34 for colours and heat: two encoders from one file, one channel, gates between, a U-Net's way up",
      "torchvision")  # fmt: skip
def thermal(small: bool) -> Two:
    """Each stage is listed with both modalities; convolutions and norms lie in ModuleDicts."""
    import torch
    from torch import nn
    from torchvision.models import resnet34

    class Basic(nn.Module):
        def __init__(self, into: int, out: int, stride: int) -> None:
            super().__init__()
            self.convs = nn.ModuleList([nn.Conv2d(into, out, 3, stride, 1, bias=False),
                                        nn.Conv2d(out, out, 3, 1, 1, bias=False)])  # fmt: skip
            self.norms = nn.ModuleList([nn.BatchNorm2d(out), nn.BatchNorm2d(out)])
            if into != out:
                self.match = nn.ModuleDict({"conv": nn.Conv2d(into, out, 1, stride, bias=False),
                                            "norm": nn.BatchNorm2d(out)})  # fmt: skip

        def forward(self, x: Any) -> Any:
            y = self.norms[1](self.convs[1](torch.relu(self.norms[0](self.convs[0](x)))))
            return torch.relu(y + (self.match["norm"](self.match["conv"](x)) if hasattr(self, "match") else x))

    class Stage(nn.Module):
        def __init__(self, into: int, out: int, depth: int, stride: int) -> None:
            super().__init__()
            for side in ("rgb", "heat"):
                units = [Basic(out if at else into, out, 1 if at else stride) for at in range(depth)]
                setattr(self, side, nn.Sequential(*units))
            self.gate = nn.Sequential(nn.Conv2d(2 * out, out // 4, 1), nn.ReLU(), nn.Conv2d(out // 4, 2, 1))

    class Up(nn.Module):
        def __init__(self, into: int, out: int) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(into, out, 2, 2)
            self.fuse = nn.Sequential(nn.Conv2d(2 * out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
                                      nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out))  # fmt: skip

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.ModuleDict({
                side: nn.Sequential(nn.Conv2d(channels, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64))
                for side, channels in (("rgb", 3), ("heat", 1))
            })  # fmt: skip
            widths, depths = (64, 64, 128, 256, 512), (3, 4, 6, 3)
            self.stages = nn.ModuleList(
                Stage(widths[i], widths[i + 1], depth, 2 if i else 1) for i, depth in enumerate(depths))
            self.ups = nn.ModuleList([Up(512, 256), Up(256, 128), Up(128, 64)])
            self.out = nn.Conv2d(64, 5, 1)

    def features() -> Any:
        return torch.randn(2, 64, 16, 16, generator=torch.Generator().manual_seed(1))

    def ask_own(model: Any) -> Any:
        x = features()
        for stage in model.stages:
            x = stage.heat(x)
        return x

    rules, source = [], resnet34(weights=None)
    for key in state(source):
        if found := re.match(r"layer(\d)\.(\d+\..*)", key):
            tail = re.sub(r"(conv|bn)(\d)", lambda m: f"{'convs' if m[1] == 'conv' else 'norms'}.{int(m[2]) - 1}", found[2])
            tail = tail.replace("downsample.0", "match.conv").replace("downsample.1", "match.norm")
            names = [f"stages.{int(found[1]) - 1}.{side}.{tail}" for side in ("rgb", "heat")]
        elif key == "conv1.weight":
            names = ["stem.rgb.0.weight"]
        else:
            names = [f"stem.{side}.1.{key[4:]}" for side in ("rgb", "heat")] if key.startswith("bn1") else ["!"]
        rules.append(f"{key} -> {', '.join(names)}")
    return Two(source, Own(), rules, missing=["stem.heat.0.weight", "stages.*.gate.*", "ups.*", "out.*"],
               ask=lambda m: m.layer4(m.layer3(m.layer2(m.layer1(features())))), ask_target=ask_own,
               proof="equal outputs of the heat's stages")  # fmt: skip


@pair("blind, own: EfficientNet-B3 in a detector: 26 blocks in one list, six channels, a BiFPN, heads for 8 classes", "timm")
def bifpn(small: bool) -> Two:
    """Where nothing expands, the depthwise convolution is the first; separable convolutions follow behind."""
    import timm
    import torch
    from torch import nn

    class Unit(nn.Module):
        def __init__(self, into: int, out: int, ratio: int, kernel: int) -> None:
            super().__init__()
            mid, less = into * ratio, max(1, into // 4)
            if ratio > 1:
                self.expand, self.expand_norm = nn.Conv2d(into, mid, 1, bias=False), nn.BatchNorm2d(mid)
            self.depth = nn.Conv2d(mid, mid, kernel, padding=kernel // 2, groups=mid, bias=False)
            self.depth_norm = nn.BatchNorm2d(mid)
            self.excite = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(mid, less, 1), nn.SiLU(),
                                        nn.Conv2d(less, mid, 1), nn.Sigmoid())  # fmt: skip
            self.point, self.point_norm = nn.Conv2d(mid, out, 1, bias=False), nn.BatchNorm2d(out)

    def separable(out: int, norm: bool = True) -> nn.Sequential:
        parts = [nn.Conv2d(160, 160, 3, padding=1, groups=160, bias=False), nn.Conv2d(160, out, 1)]
        return nn.Sequential(*parts, *([nn.BatchNorm2d(out)] if norm else []))

    class Fusion(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights_down = nn.Parameter(torch.ones(4, 2))
            self.weights_up = nn.Parameter(torch.ones(4, 3))
            self.down = nn.ModuleList([separable(160) for _ in range(4)])
            self.up = nn.ModuleList([separable(160) for _ in range(4)])

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(6, 40, 3, 2, 1, bias=False), nn.BatchNorm2d(40), nn.SiLU())
            units, into = [], 40
            for out, depth, ratio, kernel in ((24, 2, 1, 3), (32, 3, 6, 3), (48, 3, 6, 5), (96, 5, 6, 3),
                                              (136, 5, 6, 5), (232, 6, 6, 5), (384, 2, 6, 3)):  # fmt: skip
                for _ in range(depth):
                    units.append(Unit(into, out, ratio, kernel))
                    into = out
            self.units = nn.ModuleList(units)
            self.lateral = nn.ModuleList([nn.Sequential(nn.Conv2d(size, 160, 1), nn.BatchNorm2d(160))
                                          for size in (48, 136, 384)])  # fmt: skip
            self.fusions = nn.ModuleList([Fusion() for _ in range(6)])
            self.classes = nn.ModuleList([*(separable(160) for _ in range(4)), separable(72, False)])
            self.boxes = nn.ModuleList([*(separable(160) for _ in range(4)), separable(36, False)])

    firsts = (0, 2, 5, 8, 13, 18, 24)
    table: list[Any] = [
        (r"^(conv_stem|conv_head|bn2|classifier)\..*", ""),
        (r"^bn1", "first.1"),
        (r"^blocks\.(\d)\.(\d)", lambda m: f"units.{firsts[int(m[1])] + int(m[2])}"),
        (r"(units\.[01])\.conv_pw", r"\1.point"),
        (r"(units\.[01])\.bn2", r"\1.point_norm"),
        (r"(units\.[01])\.bn1", r"\1.depth_norm"),
        (r"\.conv_pwl", ".point"),
        (r"\.conv_pw\.", ".expand."),
        (r"\.conv_dw", ".depth"),
        (r"\.bn1", ".expand_norm"),
        (r"\.bn2", ".depth_norm"),
        (r"\.bn3", ".point_norm"),
        (r"se\.conv_reduce", "excite.1"),
        (r"se\.conv_expand", "excite.3"),
    ]
    return to(timm.create_model("efficientnet_b3"), Own(), table, truth=CODE,
              missing=["first.0.weight", "lateral.*", "fusions.*", "classes.*", "boxes.*"])  # fmt: skip


@pair("blind, own: GhostNet against masks and prints: seven of ten stages, central differences' scales, a depth map", "timm")
def antispoof(small: bool) -> Two:
    """primary_conv and cheap_operation became intrinsic and ghost; shortcuts are two pairs by name."""
    import timm

    source, target, rules = timm.create_model("ghostnet_100"), Net(), []
    for key, tensor in state(source).items():
        if re.match(r"blocks\.[789]\.|conv_head|classifier", key):
            rules.append(f"{key} -> !")
            continue
        name = re.sub(r"^conv_stem", "net.stem.conv", key)
        name = re.sub(r"^bn1", "net.stem.norm", name)
        name = re.sub(r"^blocks\.(\d)\.(\d)", r"net.stage\1.unit\2", name)
        for old, new in (("ghost1", "inner"), ("ghost2", "outer"), ("primary_conv.0", "intrinsic.conv"),
                         ("primary_conv.1", "intrinsic.norm"), ("cheap_operation.0", "ghost.conv"),
                         ("cheap_operation.1", "ghost.norm"), ("conv_dw", "stride.conv"), ("bn_dw", "stride.norm"),
                         ("shortcut.0", "skip_dw.conv"), ("shortcut.1", "skip_dw.norm"), ("shortcut.2", "skip_pw.conv"),
                         ("shortcut.3", "skip_pw.norm"), ("se.conv_reduce", "gate.fc1"),
                         ("se.conv_expand", "gate.fc2")):  # fmt: skip
            name = name.replace(old, new)
        target[name] = tensor
        if name.endswith("intrinsic.norm.num_batches_tracked"):
            target.put(name.replace("intrinsic.norm.num_batches_tracked", "theta"), 1)
        rules.append(f"{key} -> {name}")
    for level, width in enumerate((24, 40, 80)):
        target.conv(f"net.map.lateral{level}", 64, width, 1, bias=False)
        target.bn(f"net.map.lateral{level}_norm", 64)
    target.conv("net.map.mix", 64, 192, 3, bias=False)
    target.bn("net.map.mix_norm", 64)
    target.conv("net.map.out", 1, 64, 3)
    target.lin("net.live", 2, 80)
    return Two(source, target, rules, missing=["*.theta", "net.map.*", "net.live.*"], proof=CODE)


@pair("blind, own: R(2+1)D-18 for phases of operations: two kernels are space and time, non-local blocks, a GRU",
      "torchvision")  # fmt: skip
def phases(small: bool) -> Two:
    """A block's four convolutions have names of their own; the non-local blocks' norms are as wide as the stage."""
    import torch
    from torch import nn
    from torchvision.models.video import r2plus1d_18

    class Factored(nn.Module):
        def __init__(self, into: int, out: int, stride: int, mid: int) -> None:
            super().__init__()
            self.space = nn.Conv3d(into, mid, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
            self.space_norm = nn.BatchNorm3d(mid)
            self.time = nn.Conv3d(mid, out, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)
            self.time_norm = nn.BatchNorm3d(out)

        def forward(self, x: Any) -> Any:
            return self.time_norm(self.time(torch.relu(self.space_norm(self.space(x)))))

    class Unit(nn.Module):
        def __init__(self, into: int, out: int, stride: int) -> None:
            super().__init__()
            mid = (into * out * 27) // (into * 9 + 3 * out)  # torchvision counts it once for both of a block
            self.first, self.second = Factored(into, out, stride, mid), Factored(out, out, 1, mid)
            if into != out:
                self.side, self.side_norm = nn.Conv3d(into, out, 1, stride, bias=False), nn.BatchNorm3d(out)

        def forward(self, x: Any) -> Any:
            y = self.second(torch.relu(self.first(x)))
            return torch.relu(y + (self.side_norm(self.side(x)) if hasattr(self, "side") else x))

    class NonLocal(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.theta, self.phi, self.g = (nn.Conv3d(size, size // 2, 1) for _ in range(3))
            self.out, self.norm = nn.Conv3d(size // 2, size, 1), nn.BatchNorm3d(size)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frames = nn.ModuleDict({"space": nn.Conv3d(3, 45, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
                                         "space_norm": nn.BatchNorm3d(45),
                                         "time": nn.Conv3d(45, 64, (3, 1, 1), 1, (1, 0, 0), bias=False),
                                         "time_norm": nn.BatchNorm3d(64)})  # fmt: skip
            self.level1 = nn.ModuleList([Unit(64, 64, 1), Unit(64, 64, 1)])
            self.level2 = nn.ModuleList([Unit(64, 128, 2), Unit(128, 128, 1)])
            self.look2 = NonLocal(128)
            self.level3 = nn.ModuleList([Unit(128, 256, 2), Unit(256, 256, 1)])
            self.look3 = NonLocal(256)
            self.level4 = nn.ModuleList([Unit(256, 512, 2), Unit(512, 512, 1)])
            self.memory = nn.GRU(512, 512)
            self.phase, self.tools = nn.Linear(512, 7), nn.Linear(512, 14)

    def clips() -> Any:
        return torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))

    def ask(model: Any) -> Any:
        return model.layer4(model.layer3(model.layer2(model.layer1(model.stem(clips())))))

    def ask_own(model: Any) -> Any:
        stem = model.frames
        x = torch.relu(stem["space_norm"](stem["space"](clips())))
        x = torch.relu(stem["time_norm"](stem["time"](x)))
        for level in range(1, 5):
            for unit in getattr(model, f"level{level}"):
                x = unit(x)
        return x

    table: list[Any] = [
        (r"^fc\..*", ""),
        (r"^stem\.0", "frames.space"),
        (r"^stem\.1", "frames.space_norm"),
        (r"^stem\.3", "frames.time"),
        (r"^stem\.4", "frames.time_norm"),
        (r"^layer", "level"),
        (r"\.conv([12])\.0\.0", r".part\1.space"),
        (r"\.conv([12])\.0\.1", r".part\1.space_norm"),
        (r"\.conv([12])\.0\.3", r".part\1.time"),
        (r"\.conv([12])\.1", r".part\1.time_norm"),
        (r"\.part1", ".first"),
        (r"\.part2", ".second"),
        (r"\.downsample\.0", ".side"),
        (r"\.downsample\.1", ".side_norm"),
    ]
    return to(r2plus1d_18(weights=None), Own(), table, missing=["look?.*", "memory.*", "phase.*", "tools.*"],
              ask=ask, ask_target=ask_own, truth="equal outputs, the non-local blocks left out")  # fmt: skip


@pair("blind, own: ten of a ViT-B's twelve blocks for pictures and depth: qkv fused, registers, scales, 384 pixels",
      "transformers")  # fmt: skip
def rgbd_vit(small: bool) -> Two:
    """Two towers from one file; positions are 577 instead of 197; cross attention between the towers at the end."""
    import torch
    import transformers
    from torch import nn

    width, depth = 768, 10
    source = transformers.ViTModel(transformers.ViTConfig())

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm_a, self.attn = nn.LayerNorm(width, 1e-12), Attention()
            self.scale_a = nn.Parameter(torch.ones(width))
            self.norm_m = nn.LayerNorm(width, 1e-12)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            self.scale_m = nn.Parameter(torch.ones(width))

    class Tower(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.cls, self.registers = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, 4, width))
            self.pos = nn.Parameter(torch.zeros(1, 577, width))
            self.patchify = nn.Conv2d(channels, width, 16, 16)
            self.blocks = nn.ModuleList([Block() for _ in range(depth)])
            self.norm = nn.LayerNorm(width, 1e-12)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.picture, self.depth = Tower(3), Tower(1)
            self.exchange = nn.ModuleList([nn.MultiheadAttention(width, 12) for _ in range(2)])
            self.head = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, 37))

    towers, rules = ("picture", "depth"), []
    for key in state(source):
        if re.match(r"layers\.\d+\.attention\.[qkv]_proj", key):
            continue
        name = re.sub(r"^layers\.", "blocks.", key)
        for old, new in (("embeddings.cls_token", "cls"), ("embeddings.patch_embeddings.projection", "patchify"),
                         ("layernorm_before", "norm_a"), ("layernorm_after", "norm_m"), ("mlp.fc1", "mlp.0"),
                         ("mlp.fc2", "mlp.2"), ("attention.o_proj", "attn.to_out")):  # fmt: skip
            name = name.replace(old, new)
        name = re.sub(r"^layernorm", "norm", name)
        names = [f"{tower}.{name}" for tower in towers]
        if re.match(r"layers\.1[01]\.|pooler|embeddings\.position", key):
            names = ["!"]
        elif key.endswith("projection.weight"):
            names = names[:1]
        rules.append(f"{key} -> {', '.join(names)}")
    for block in range(depth):
        parts = [f"layers.{block}.attention.{x}_proj" for x in "qkv"]
        rules += twice(parts, [f"{tower}.blocks.{block}.attn.to_qkv." for tower in towers])
    gone = ["*.registers", "*.pos", "*.scale_?", "depth.patchify.weight", "exchange.*", "head.*"]
    return Two(source, Own(), rules, missing=gone, proof=CODE)


@pair("blind, own: BEiT-B for pages: q, k, v apart, four stages of three blocks, adapters beside the MLP, a pyramid",
      "timm")  # fmt: skip
def pages(small: bool) -> Two:
    """k has no bias; q's and v's were vectors of the attention; the pyramid turns patches into four levels."""
    import timm
    import torch
    from torch import nn

    width = 768

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
            self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)
            self.offsets = nn.Parameter(torch.zeros(732, 12))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pre_mix, self.mix = nn.LayerNorm(width), Mixing()
            self.gamma_mix = nn.Parameter(torch.ones(width))
            self.pre_ff = nn.LayerNorm(width)
            self.ff_in, self.ff_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.gamma_ff = nn.Parameter(torch.ones(width))
            self.adapter_down, self.adapter_up = nn.Linear(width, 64), nn.Linear(64, width)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cls = nn.Parameter(torch.zeros(1, 1, width))
            self.patches = nn.Conv2d(3, width, 16, 16)
            self.stages = nn.ModuleList([nn.ModuleList([Layer() for _ in range(3)]) for _ in range(4)])
            self.level1 = nn.Sequential(nn.ConvTranspose2d(width, width, 2, 2), nn.BatchNorm2d(width), nn.GELU(),
                                        nn.ConvTranspose2d(width, width, 2, 2))  # fmt: skip
            self.level2 = nn.Sequential(nn.ConvTranspose2d(width, width, 2, 2))
            self.lateral = nn.ModuleList([nn.Conv2d(width, 256, 1) for _ in range(4)])
            self.output = nn.ModuleList([nn.Conv2d(256, 256, 3, padding=1) for _ in range(4)])
            self.kinds = nn.Linear(256, 11)

    def at(match: re.Match[str]) -> str:
        return f"stages.{int(match[1]) // 3}.{int(match[1]) % 3}."

    source = timm.create_model("beit_base_patch16_224")
    table: list[Any] = [
        (r".*qkv\.weight$", "@"),
        (r"^(head|fc_norm|norm)\..*", ""),
        (r"^cls_token", "cls"),
        (r"^patch_embed\.proj", "patches"),
        (r"^blocks\.(\d+)\.", at),
        (r"\.gamma_1", ".gamma_mix"),
        (r"\.gamma_2", ".gamma_ff"),
        (r"\.norm1", ".pre_mix"),
        (r"\.norm2", ".pre_ff"),
        (r"\.attn\.q_bias", ".mix.query.bias"),
        (r"\.attn\.v_bias", ".mix.value.bias"),
        (r"\.attn\.relative_position_bias_table", ".mix.offsets"),
        (r"\.attn\.proj", ".mix.output"),
        (r"\.mlp\.fc1", ".ff_in"),
        (r"\.mlp\.fc2", ".ff_out"),
    ]
    groups = []
    for block in range(12):
        here = f"stages.{block // 3}.{block % 3}.mix"
        groups += split(f"blocks.{block}.attn.qkv", [f"{here}.{x}" for x in ("query", "key", "value")], bias=False)
    return to(source, Own(), table, groups=groups, truth=CODE,
              missing=["*.adapter_*", "level?.*", "lateral.*", "output.*", "kinds.*"])  # fmt: skip


@pair("blind, own: Swin-S as a U-Net of Swins: six of eighteen blocks, a way up of the way down's shapes, skips",
      "torchvision")  # fmt: skip
def swin_unet(small: bool) -> Two:
    """A stage ends with its merging; the decoder's blocks are new; a first level's patches have four channels."""
    import torch
    from torch import nn
    from torchvision.models import swin_s

    class Window(nn.Module):
        def __init__(self, size: int, heads: int) -> None:
            super().__init__()
            self.bias_table = nn.Parameter(torch.zeros(169, heads))
            self.register_buffer("bias_index", torch.zeros(2401, dtype=torch.long))
            self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)

    class SwinLayer(nn.Module):
        def __init__(self, size: int, heads: int) -> None:
            super().__init__()
            self.ln_a, self.window, self.ln_b = nn.LayerNorm(size), Window(size, heads), nn.LayerNorm(size)
            self.up, self.down = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    class Level(nn.Module):
        def __init__(self, size: int, heads: int, depth: int, resize: str) -> None:
            super().__init__()
            self.layers = nn.ModuleList([SwinLayer(size, heads) for _ in range(depth)])
            if resize == "merge":
                self.merge, self.merge_ln = nn.Linear(4 * size, 2 * size, bias=False), nn.LayerNorm(4 * size)
            elif resize == "expand":
                self.expand, self.expand_ln = nn.Linear(size, 2 * size, bias=False), nn.LayerNorm(size // 2)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.patch_ln = nn.Conv2d(4, 96, 4, 4), nn.LayerNorm(96)
            self.down = nn.ModuleList([
                Level(96 << i, 3 << i, depth, "merge" if i < 3 else "") for i, depth in enumerate((2, 2, 6, 2))])
            self.middle = nn.LayerNorm(768)
            self.expand = nn.Linear(768, 1536, bias=False)
            self.skips = nn.ModuleList([nn.Linear(192 << i, 96 << i) for i in (2, 1, 0)])
            self.up = nn.ModuleList([Level(96 << i, 3 << i, 2, "expand" if i else "") for i in (2, 1, 0)])
            self.final_ln, self.logits = nn.LayerNorm(96), nn.Conv2d(96, 9, 1, bias=False)

    table: list[Any] = [
        (r"^(head|features\.0\.0\.weight|features\.5\.([6-9]|1\d)\.).*", ""),
        (r"^features\.0\.0", "patch"),
        (r"^features\.0\.2", "patch_ln"),
        (r"^norm", "middle"),
        (r"^features\.([1357])\.(\d+)", lambda m: f"down.{int(m[1]) // 2}.layers.{m[2]}"),
        (r"^features\.([246])\.reduction", lambda m: f"down.{int(m[1]) // 2 - 1}.merge"),
        (r"^features\.([246])\.norm", lambda m: f"down.{int(m[1]) // 2 - 1}.merge_ln"),
        (r"\.norm1", ".ln_a"),
        (r"\.norm2", ".ln_b"),
        (r"\.attn\.relative_position_", ".window."),
        (r"\.window\.bias_table", ".window.bias_table"),
        (r"\.window\.index", ".window.bias_index"),
        (r"\.attn\.qkv", ".window.qkv"),
        (r"\.attn\.proj", ".window.out"),
        (r"\.mlp\.0", ".up"),
        (r"\.mlp\.3", ".down"),
    ]
    return to(swin_s(weights=None), Own(), table, truth=CODE,
              missing=["patch.weight", "expand.*", "skips.*", "up.*", "final_ln.*", "logits.*"])  # fmt: skip


@pair("blind, own: Buda's brain U-Net for four sequences: residual blocks with shortcuts, a gate on each skip, lists")
def brain(small: bool) -> Two:
    """encoder1 to 4 and the bottleneck are one list, decoder4 to 1 another; upconvs belong to the decoder's levels."""
    import torch
    from torch import nn

    source, size = Net(), 32

    def block(at: str, short: str, into: int, out: int) -> None:
        for number, wide in ((1, into), (2, out)):
            source.conv(f"{at}.{short}conv{number}", out, wide, 3, bias=False)
            source.bn(f"{at}.{short}norm{number}", out)

    for level in range(4):
        block(f"encoder{level + 1}", f"enc{level + 1}", size << level - 1 if level else 3, size << level)
    block("bottleneck", "bottleneck", 8 * size, 16 * size)
    for level in (3, 2, 1, 0):
        source.conv(f"upconv{level + 1}", 2 * size << level, size << level, 2, bias=False)
        source.put(f"upconv{level + 1}.bias", size << level)
        block(f"decoder{level + 1}", f"dec{level + 1}", 2 * size << level, size << level)
    source.conv("conv", 1, size, 1)

    class Residual(nn.Module):
        def __init__(self, into: int, out: int) -> None:
            super().__init__()
            self.path = nn.Sequential(
                nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
                nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU())  # fmt: skip
            self.shortcut = nn.Conv2d(into, out, 1, bias=False)

    class Level(nn.Module):
        def __init__(self, out: int) -> None:
            super().__init__()
            self.raise_ = nn.ConvTranspose2d(2 * out, out, 2, 2)
            self.gate = nn.Sequential(nn.Conv2d(2 * out, out, 1), nn.ReLU(), nn.Conv2d(out, 1, 1))
            self.block = Residual(2 * out, out)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.ModuleList([Residual(size << i - 1 if i else 4, size << i) for i in range(5)])
            self.up = nn.ModuleList([Level(size << i) for i in (3, 2, 1, 0)])
            self.deep = nn.ModuleList([nn.Conv2d(size << i, 4, 1) for i in (2, 1)])
            self.final = nn.Conv2d(size, 4, 1)

    table: list[Any] = [
        (r"^(conv\.|encoder1\.enc1conv1).*", ""),
        (r"^encoder(\d)", lambda m: f"down.{int(m[1]) - 1}"),
        (r"^bottleneck\.", "down.4."),
        (r"^upconv(\d)", lambda m: f"up.{4 - int(m[1])}.raise_"),
        (r"^decoder(\d)", lambda m: f"up.{4 - int(m[1])}.block"),
        (r"\.(enc\d|dec\d|bottleneck)conv(\d)", lambda m: f".path.{3 * int(m[2]) - 3}"),
        (r"\.(enc\d|dec\d|bottleneck)norm(\d)", lambda m: f".path.{3 * int(m[2]) - 2}"),
    ]
    assert torch  # the modules above need it
    gone = ["down.0.path.0.weight", "*.shortcut.*", "*.gate.*", "deep.*", "final.*"]
    return to(source, Own(), table, missing=gone, truth="mateuszbuda's unet.py; the other side by its code")


@pair("blind, own: DistilBERT twice in a search engine: torch's encoder layers, q, k, v in one, a passage's titles",
      "transformers")  # fmt: skip
def search_engine(small: bool) -> Two:
    """torch lists attention, perceptron, norms; both towers begin with one file; the passages' tower has a table more."""
    import transformers
    from torch import nn

    width, depth = 768, 6
    source = transformers.DistilBertForMaskedLM(transformers.DistilBertConfig())

    class Tower(nn.Module):
        def __init__(self, titles: bool) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(30522, width), nn.Embedding(512, width)
            if titles:
                self.part = nn.Embedding(2, width)
            self.norm = nn.LayerNorm(width, 1e-12)
            self.encoder = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(width, 12, 4 * width, activation="gelu", layer_norm_eps=1e-12), depth)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.question, self.passage = Tower(False), Tower(True)
            self.project = nn.ModuleDict({"question": nn.Linear(width, 256), "passage": nn.Linear(width, 256)})

    towers, rules = ("question", "passage"), []
    for key in state(source):
        if re.search(r"\.[qkv]_lin\.", key):
            continue
        name = key
        for old, new in (("distilbert.embeddings.word_embeddings", "words"),
                         ("distilbert.embeddings.position_embeddings", "places"),
                         ("distilbert.embeddings.LayerNorm", "norm"),
                         ("distilbert.transformer.layer", "encoder.layers"), ("attention.out_lin", "self_attn.out_proj"),
                         ("sa_layer_norm", "norm1"), ("output_layer_norm", "norm2"), ("ffn.lin", "linear")):  # fmt: skip
            name = name.replace(old, new)
        gone = key.startswith("vocab_")
        rules.append(f"{key} -> " + ("!" if gone else ", ".join(f"{tower}.{name}" for tower in towers)))
    for layer in range(depth):
        parts = [f"distilbert.transformer.layer.{layer}.attention.{x}_lin" for x in "qkv"]
        rules += twice(parts, [f"{tower}.encoder.layers.{layer}.self_attn.in_proj_" for tower in towers])
    return Two(source, Own(), rules, missing=["passage.part.weight", "project.*"], proof=CODE)


@pair("blind, own: sixteen of GPT-2 medium's layers for melodies: rotary places, RMSNorms, q, k, v Linears, another table",
      "transformers")  # fmt: skip
def melodies(small: bool) -> Two:
    """Conv1Ds turn; an RMSNorm may begin with a LayerNorm's weight or new; a table of 1024 events is not of words."""
    import transformers
    from torch import nn

    width, depth = 1024, 16
    source = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=width, n_layer=24, n_head=16))

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wq, self.wk, self.wv, self.wo = (nn.Linear(width, width) for _ in range(4))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rms1, self.attn, self.rms2 = nn.RMSNorm(width), Attention(), nn.RMSNorm(width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pitch, self.length = nn.Embedding(1024, width), nn.Embedding(96, width)
            self.layers = nn.ModuleList([Layer() for _ in range(depth)])
            self.rms = nn.RMSNorm(width)
            self.to_pitch, self.to_length = nn.Linear(width, 1024), nn.Linear(width, 96)

    table: list[Any] = [
        (r"^(lm_head|transformer\.wte|transformer\.wpe|transformer\.h\.(1[6-9]|2\d)\.).*", ""),
        (r".*ln_(1|2|f)\.bias$", ""),
        (r".*\.c_attn\..*", "@"),
        (r"^transformer\.ln_f", "rms"),
        (r"^transformer\.h\.", "layers."),
        (r"\.ln_(\d)", r".rms\1"),
        (r"\.attn\.c_proj", ".attn.wo"),
        (r"\.mlp\.c_fc", ".mlp.0"),
        (r"\.mlp\.c_proj", ".mlp.2"),
    ]
    groups = []
    for layer in range(depth):
        here, names = f"transformer.h.{layer}.attn.c_attn", [f"layers.{layer}.attn.w{x}" for x in "qkv"]
        groups += [f"{here}.weight -> {', '.join(name + '.weight' for name in names)} | i (a + b + c) -> a i, b i, c i",
                   f"{here}.bias -> {', '.join(name + '.bias' for name in names)} | (a + b + c) -> a, b, c"]  # fmt: skip
    groups += [f"transformer.h.{layer}.attn.c_attn.* -> !" for layer in range(depth, 24)]
    return to(source, Own(), table, [(r"c_(proj|fc)\.weight", "i o -> o i")], groups,
              missing=["pitch.weight", "length.weight", "to_pitch.*", "to_length.*"], undecided=["*rms*"],
              truth=CODE + "; the norms are another kind, their weights a beginning at best")  # fmt: skip
