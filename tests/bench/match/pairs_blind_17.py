"""Blind pairs: public checkpoints for models of one's own that are almost the same, written as small modules."""

from __future__ import annotations

import itertools
import re
from typing import Any

from tests.bench.match.blind import Net, Two, none, pair, split, state, to
from tests.bench.match.pairs import tokens

CODE = "by the code of both sides: the same modules under other names"


def conv_bn(into: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> Any:
    """A convolution and its norm."""
    from torch import nn

    class ConvNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
            self.bn = nn.BatchNorm2d(out)

        def forward(self, x: Any) -> Any:
            return self.bn(self.conv(x))

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


@pair("blind, own: ResNet-34 for colours and heat: two encoders from one file, one channel, gates, a way up",
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
                Stage(widths[i], widths[i + 1], depth, 2 if i else 1) for i, depth in enumerate(depths)
            )
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
            tail = re.sub(
                r"(conv|bn)(\d)", lambda m: f"{'convs' if m[1] == 'conv' else 'norms'}.{int(m[2]) - 1}", found[2]
            )
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


@pair("blind, own: EfficientNet-B3 in a detector: 26 blocks in one list, six channels, a BiFPN, 8 classes", "timm")
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
            self.down = nn.ModuleList(
                [Level(96 << i, 3 << i, depth, "merge" if i < 3 else "") for i, depth in enumerate((2, 2, 6, 2))]
            )
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
    gone = ["down.0.path.0.weight", "*.shortcut.*", "*.gate.*", "deep.*", "final.*"]
    return to(source, Own(), table, missing=gone, truth="mateuszbuda's unet.py; the other side by its code")


@pair("blind, own: DistilBERT twice in a search engine: torch's encoder layers, q, k, v in one, passages' titles",
      "transformers")  # fmt: skip
def search_engine(small: bool) -> Two:
    """torch lists attention, perceptron, norms; both towers begin with one file; the passages' has a table more."""
    import transformers
    from torch import nn

    width, depth, heads, words = (32, 2, 2, 30) if small else (768, 6, 12, 30522)
    source = transformers.DistilBertForMaskedLM(transformers.DistilBertConfig(
        vocab_size=words, dim=width, n_layers=depth, n_heads=heads, hidden_dim=4 * width))  # fmt: skip

    class Tower(nn.Module):
        def __init__(self, titles: bool) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(words, width), nn.Embedding(512, width)
            if titles:
                self.part = nn.Embedding(2, width)
            self.norm = nn.LayerNorm(width, 1e-12)
            self.encoder = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(width, heads, 4 * width, activation="gelu", layer_norm_eps=1e-12), depth
            )

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.question, self.passage = Tower(False), Tower(True)
            self.project = nn.ModuleDict({"question": nn.Linear(width, 256), "passage": nn.Linear(width, 256)})

    def ask_own(model: Any) -> Any:
        tower, ids = model.question, tokens()
        x = tower.norm(tower.words(ids) + tower.places.weight[: ids.shape[1]])
        return tower.encoder(x.transpose(0, 1)).transpose(0, 1)

    towers, rules = ("question", "passage"), []
    for key in state(source):
        if re.search(r"\.[qkv]_lin\.", key):
            continue
        name = key
        for old, new in (("distilbert.embeddings.word_embeddings", "words"),
                         ("distilbert.embeddings.position_embeddings", "places"),
                         ("distilbert.embeddings.LayerNorm", "norm"),
                         ("distilbert.transformer.layer", "encoder.layers"),
                         ("attention.out_lin", "self_attn.out_proj"), ("sa_layer_norm", "norm1"),
                         ("output_layer_norm", "norm2"), ("ffn.lin", "linear")):  # fmt: skip
            name = name.replace(old, new)
        gone = key.startswith("vocab_")
        rules.append(f"{key} -> " + ("!" if gone else ", ".join(f"{tower}.{name}" for tower in towers)))
    for layer in range(depth):
        parts = [f"distilbert.transformer.layer.{layer}.attention.{x}_lin" for x in "qkv"]
        rules += twice(parts, [f"{tower}.encoder.layers.{layer}.self_attn.in_proj_" for tower in towers])
    return Two(source, Own(), rules, missing=["passage.part.weight", "project.*"],
               ask=lambda model: model.distilbert(tokens()).last_hidden_state, ask_target=ask_own,
               proof="equal outputs of a tower")  # fmt: skip


@pair("blind, own: sixteen of GPT-2 medium's layers for melodies: rotary places, RMSNorms, q, k, v Linears",
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
        here, into = f"transformer.h.{layer}.attn.c_attn", [f"layers.{layer}.attn.w{x}" for x in "qkv"]
        groups += [f"{here}.weight -> {', '.join(name + '.weight' for name in into)} | i (a + b + c) -> a i, b i, c i",
                   f"{here}.bias -> {', '.join(name + '.bias' for name in into)} | (a + b + c) -> a, b, c"]  # fmt: skip
    groups += [f"transformer.h.{layer}.attn.c_attn.* -> !" for layer in range(depth, 24)]
    return to(source, Own(), table, [(r"c_(proj|fc)\.weight", "i o -> o i")], groups,
              missing=["pitch.weight", "length.weight", "to_pitch.*", "to_length.*"], undecided=["*rms*"],
              truth=CODE + "; the norms are another kind, their weights a beginning at best")  # fmt: skip


@pair("blind, own: Llama 3.2 1B with four experts from each perceptron: qkv of grouped heads fused, one table",
      "transformers")  # fmt: skip
def experts(small: bool) -> Two:
    """Every expert begins as the layer's perceptron; the head is the table and is not saved."""
    import transformers
    from torch import nn

    width, inner, depth, narrow = 2048, 8192, 16, 512
    whole = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=128256, hidden_size=width, intermediate_size=inner, num_hidden_layers=depth,
        num_attention_heads=32, num_key_value_heads=8, head_dim=64))  # fmt: skip
    source = {key: tensor for key, tensor in state(whole).items() if not key.startswith("lm_head")}

    class Expert(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w1, self.w2, self.w3 = (nn.Linear(*size, bias=False)
                                         for size in ((width, inner), (inner, width), (width, inner)))  # fmt: skip

    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router = nn.Linear(width, 4, bias=False)
            self.experts = nn.ModuleList([Expert() for _ in range(4)])

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wqkv = nn.Linear(width, width + 2 * narrow, bias=False)
            self.wo = nn.Linear(width, width, bias=False)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm_att, self.norm_moe = nn.RMSNorm(width), nn.RMSNorm(width)
            self.att, self.moe = Attention(), Mixture()

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tok = nn.Embedding(128256, width)
            self.blocks = nn.ModuleList([Block() for _ in range(depth)])
            self.norm_out = nn.RMSNorm(width)

    rules = ["model.embed_tokens.weight -> tok.weight", "model.norm.weight -> norm_out.weight"]
    for layer in range(depth):
        at, here = f"model.layers.{layer}", f"blocks.{layer}"
        rules.append(", ".join(f"{at}.self_attn.{x}_proj.weight" for x in "qkv")
                     + f" -> {here}.att.wqkv.weight | q i, k i, v i -> (q + k + v) i")  # fmt: skip
        rules += [f"{at}.self_attn.o_proj.weight -> {here}.att.wo.weight",
                  f"{at}.input_layernorm.weight -> {here}.norm_att.weight",
                  f"{at}.post_attention_layernorm.weight -> {here}.norm_moe.weight"]  # fmt: skip
        for theirs, ours in (("gate", "w1"), ("down", "w2"), ("up", "w3")):
            into = ", ".join(f"{here}.moe.experts.{expert}.{ours}.weight" for expert in range(4))
            rules.append(f"{at}.mlp.{theirs}_proj.weight -> {into}")
    return Two(source, Own(), rules, missing=["*.router.weight"],
               proof=CODE + "; equal experts give what one gives")  # fmt: skip


@pair("blind, own: HuBERT for speakers: a flat Sequential of sounds, old weight norms, weighted layers, adapters",
      "transformers")  # fmt: skip
def speakers(small: bool) -> Two:
    """Hugging Face lists k, v, q; here it is q, k, v; the layers' norms stand in front of what they follow."""
    import torch
    import transformers
    from torch import nn

    width, depth = 768, 12
    source = transformers.HubertModel(transformers.HubertConfig())

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.att_norm, self.att = nn.LayerNorm(width), Attention()
            self.ff_norm = nn.LayerNorm(width)
            self.ff = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(), nn.Linear(4 * width, width))
            self.adapter = nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, width), nn.LayerNorm(width))

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer_weights = nn.Parameter(torch.zeros(depth + 1))
            parts: list[nn.Module] = []
            for i, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
                parts.append(nn.Conv1d(512 if i else 1, 512, kernel, 2 if i else 5, bias=False))
                parts += [nn.GELU()] if i else [nn.GroupNorm(512, 512), nn.GELU()]
            self.ear = nn.Sequential(*parts)
            self.bridge = nn.Sequential(nn.LayerNorm(512), nn.Linear(512, width))
            self.position = nn.utils.weight_norm(nn.Conv1d(width, width, 128, padding=64, groups=16), dim=2)
            self.norm = nn.LayerNorm(width)
            self.layers = nn.ModuleList([Layer() for _ in range(depth)])
            self.pool = nn.ModuleDict({"attend": nn.Conv1d(width, 128, 1), "score": nn.Conv1d(128, width, 1)})
            self.pool_norm = nn.BatchNorm1d(2 * width)
            self.embed = nn.Linear(2 * width, 192)
            self.prototypes = nn.Parameter(torch.zeros(5994, 192))

    table: list[Any] = [
        (r"^masked_spec_embed", ""),
        (r"^feature_extractor\.conv_layers\.(\d)\.conv", lambda m: f"ear.{2 * int(m[1]) + (m[1] != '0')}"),
        (r"^feature_extractor\.conv_layers\.0\.layer_norm", "ear.1"),
        (r"^feature_projection\.layer_norm", "bridge.0"),
        (r"^feature_projection\.projection", "bridge.1"),
        (r"^encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original0", "position.weight_g"),
        (r"^encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original1", "position.weight_v"),
        (r"^encoder\.pos_conv_embed\.conv", "position"),
        (r"^encoder\.layer_norm", "norm"),
        (r"^encoder\.", ""),
        (r"\.attention\.([qkv])_proj", r".att.\1"),
        (r"\.attention\.out_proj", ".att.o"),
        (r"\.final_layer_norm", ".ff_norm"),
        (r"\.layer_norm", ".att_norm"),
        (r"\.feed_forward\.intermediate_dense", ".ff.0"),
        (r"\.feed_forward\.output_dense", ".ff.3"),
    ]
    return to(source, Own(), table, truth=CODE,
              missing=["layer_weights", "*.adapter.*", "pool.*", "pool_norm.*", "embed.*", "prototypes"])  # fmt: skip


@pair("blind, own: CLIP's RN50 for films: a stem of numbers, the pool's q, k, v in one, a temporal encoder, no text",
      "open_clip")  # fmt: skip
def films(small: bool) -> Two:
    """The text tower stays behind; antialiased shortcuts are counted from a pooling; learned prompts are new."""
    import open_clip
    import torch
    from torch import nn

    config = open_clip.get_model_config("RN50")
    source = open_clip.model.CLIP(**config)

    class Block(nn.Module):
        def __init__(self, into: int, mid: int, stride: int) -> None:
            super().__init__()
            self.a, self.b, self.c = conv_bn(into, mid), conv_bn(mid, mid, 3), conv_bn(mid, 4 * mid)
            if stride > 1 or into != 4 * mid:
                self.identity = nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(into, 4 * mid, 1, bias=False),
                                              nn.BatchNorm2d(4 * mid))  # fmt: skip

    class Pool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Parameter(torch.zeros(50, 2048))
            self.attention = nn.MultiheadAttention(2048, 32)
            self.attention.out_proj = nn.Linear(2048, 1024)

    class Frame(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            parts: list[nn.Module] = []
            for into, out, stride in ((3, 32, 2), (32, 32, 1), (32, 64, 1)):
                parts += [nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            self.stem = nn.Sequential(*parts, nn.AvgPool2d(2))
            into = 64
            for stage, depth in enumerate((3, 4, 6, 3)):
                blocks = []
                for at in range(depth):
                    blocks.append(Block(into, 64 << stage, 1 if at or not stage else 2))
                    into = 256 << stage
                setattr(self, f"res{stage + 2}", nn.ModuleList(blocks))
            self.pool = Pool()

    class Film(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prompts = nn.Parameter(torch.zeros(174, 1024))
            self.frame = Frame()
            self.times = nn.Parameter(torch.zeros(1, 16, 1024))
            self.temporal = nn.TransformerEncoder(nn.TransformerEncoderLayer(1024, 16, 4096, norm_first=True), 4)
            self.scale = nn.Parameter(torch.zeros(()))

    table: list[Any] = [
        (r"^logit_scale", "scale"),
        (r"^visual\.attnpool\.[qkv]_proj.*", "visual@"),
        (r"^(?!visual|scale).*", ""),
        (r"^visual\.conv(\d)", lambda m: f"frame.stem.{3 * int(m[1]) - 3}"),
        (r"^visual\.bn(\d)", lambda m: f"frame.stem.{3 * int(m[1]) - 2}"),
        (r"^visual\.layer(\d)", lambda m: f"frame.res{int(m[1]) + 1}"),
        (r"^visual\.attnpool\.positional_embedding", "frame.pool.places"),
        (r"^visual\.attnpool\.c_proj", "frame.pool.attention.out_proj"),
        (r"\.(conv|bn)(\d)\.", lambda m: f".{'abc'[int(m[2]) - 1]}.{m[1]}."),
        (r"\.downsample\.(\d)", lambda m: f".identity.{int(m[1]) + 1}"),
    ]
    groups = []
    for tail, axes in (("weight", " i"), ("bias", "")):
        parts = ", ".join(f"visual.attnpool.{x}_proj.{tail}" for x in "qkv")
        left = ", ".join(f"{x}{axes}" for x in "qkv")
        groups.append(f"{parts} -> frame.pool.attention.in_proj_{tail} | {left} -> (q + k + v){axes}")
    return to(source, Film(), table, groups=groups, truth=CODE, missing=["prompts", "times", "temporal.*"])


@pair("blind, own: T5-small's encoder for program code: five of six layers, qkv joined, distances at the top",
      "transformers")  # fmt: skip
def program_code(small: bool) -> Two:
    """The decoder has the encoder's shapes and stays behind; a pointer's head and a graph's layers are new."""
    import transformers
    from torch import nn

    width, depth = 512, 5
    whole = transformers.T5ForConditionalGeneration(transformers.T5Config())
    tied = ("encoder.embed_tokens", "decoder.embed_tokens", "lm_head")
    source = {key: tensor for key, tensor in state(whole).items() if not key.startswith(tied)}

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale_mix, self.scale_ff = nn.RMSNorm(width, 1e-6), nn.RMSNorm(width, 1e-6)
            self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
            self.graph = nn.Linear(width, width, bias=False)
            self.widen, self.narrow = nn.Linear(width, 2048, bias=False), nn.Linear(2048, width, bias=False)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lookup, self.kinds = nn.Embedding(32128, width), nn.Embedding(40, width)
            self.distances = nn.Embedding(32, 8)
            self.layers = nn.Sequential(*(Layer() for _ in range(depth)))
            self.scale = nn.RMSNorm(width, 1e-6)
            self.start, self.end = nn.Linear(width, width), nn.Linear(width, width)

    table: list[Any] = [
        (r"^(decoder|encoder\.block\.5)\..*", ""),
        (r".*SelfAttention\.[qkv]\.weight", "@"),
        (r"^shared", "lookup"),
        (r"^encoder\.block\.0\.layer\.0\.SelfAttention\.relative_attention_bias", "distances"),
        (r"^encoder\.final_layer_norm", "scale"),
        (r"^encoder\.block", "layers"),
        (r"\.layer\.0\.layer_norm", ".scale_mix"),
        (r"\.layer\.1\.layer_norm", ".scale_ff"),
        (r"\.layer\.0\.SelfAttention\.o", ".out"),
        (r"\.layer\.1\.DenseReluDense\.wi", ".widen"),
        (r"\.layer\.1\.DenseReluDense\.wo", ".narrow"),
    ]
    groups = []
    for layer in range(depth):
        parts = ", ".join(f"encoder.block.{layer}.layer.0.SelfAttention.{x}.weight" for x in "qkv")
        groups.append(f"{parts} -> layers.{layer}.qkv.weight | q i, k i, v i -> (q + k + v) i")
    return to(source, Own(), table, groups=groups, truth=CODE,
              missing=["kinds.weight", "*.graph.weight", "start.*", "end.*"])  # fmt: skip


@pair("blind, own: PANNs' CNN14 for events in time: convolution and norm take turns, bands attended, GRUs")
def events(small: bool) -> Two:
    """PANNs list both convolutions, then both norms; its own spectrogram is computed elsewhere now."""
    from torch import nn

    source, widths = Net(), (1, 64, 128, 256, 512, 1024, 2048)
    for part in ("real", "imag"):
        source.put(f"spectrogram_extractor.stft.conv_{part}.weight", 513, 1, 1024)
    source.put("logmel_extractor.melW", 513, 64)
    source.bn("bn0", 64)
    for number in range(1, 7):
        at, out = f"conv_block{number}", widths[number]
        source.conv(f"{at}.conv1", out, widths[number - 1], 3, bias=False)
        source.conv(f"{at}.conv2", out, out, 3, bias=False)
        source.bn(f"{at}.bn1", out)
        source.bn(f"{at}.bn2", out)
    source.lin("fc1", 2048, 2048)
    source.lin("fc_audioset", 527, 2048)

    class Double(nn.Module):
        def __init__(self, into: int, out: int) -> None:
            super().__init__()
            self.one, self.two = conv_bn(into, out, 3), conv_bn(out, out, 3)
            self.bands = nn.Sequential(nn.Conv1d(out, out // 16, 1), nn.ReLU(), nn.Conv1d(out // 16, out, 1))

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mel_norm = nn.BatchNorm2d(64)
            self.levels = nn.ModuleList([Double(*widths[i : i + 2]) for i in range(6)])
            self.memory = nn.GRU(2048, 512, 2, bidirectional=True)
            self.strong, self.attend = nn.Linear(1024, 10), nn.Linear(1024, 10)

    table: list[Any] = [
        (r"^(spectrogram_extractor|logmel_extractor|fc).*", ""),
        (r"^bn0", "mel_norm"),
        (r"^conv_block(\d)", lambda m: f"levels.{int(m[1]) - 1}"),
        (r"\.(conv|bn)1", r".one.\1"),
        (r"\.(conv|bn)2", r".two.\1"),
    ]
    return to(source, Own(), table, missing=["*.bands.*", "memory.*", "strong.*", "attend.*"],
              truth="qiuqiangkong's pytorch/models.py; the other side by its code")  # fmt: skip


@pair("blind, own: DETR by its authors for cars in 3D: four of six encoder layers, q, k, v apart, norms trained",
      "torchvision")  # fmt: skip
def cars(small: bool) -> Two:
    """The frozen norms gain counters; queries stay; a depth branch has encoder layers of the same shapes."""
    import torchvision
    from torch import nn

    width, inner, source = 256, 2048, Net()
    for layer in range(6):
        at = f"transformer.encoder.layers.{layer}"
        source.mha(f"{at}.self_attn", width)
        source.lin(f"{at}.linear1", inner, width)
        source.lin(f"{at}.linear2", width, inner)
        source.lns(f"{at}.norm1", f"{at}.norm2", size=width)
    for layer in range(6):
        at = f"transformer.decoder.layers.{layer}"
        source.mha(f"{at}.self_attn", width)
        source.mha(f"{at}.multihead_attn", width)
        source.lin(f"{at}.linear1", inner, width)
        source.lin(f"{at}.linear2", width, inner)
        source.lns(*(f"{at}.norm{number}" for number in (1, 2, 3)), size=width)
    source.norm("transformer.decoder.norm", width)
    source.lin("class_embed", 92, width)
    for layer, out in enumerate((width, width, 4)):
        source.lin(f"bbox_embed.layers.{layer}", out, width)
    source.put("query_embed.weight", 100, width)
    source.conv("input_proj", width, 2048, 1)
    trunk = torchvision.models.resnet50(weights=None)
    for key, tensor in state(trunk).items():
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked"):
            source[f"backbone.0.body.{key}"] = tensor

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.merge = (nn.Linear(width, width) for _ in range(4))

    class Perceptron(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.grow, self.shrink = nn.Linear(width, inner), nn.Linear(inner, width)

    class Look(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.among, self.among_norm = Attention(), nn.LayerNorm(width)
            self.think, self.think_norm = Perceptron(), nn.LayerNorm(width)

    class Ask(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.among, self.among_norm = Attention(), nn.LayerNorm(width)
            self.depth, self.depth_norm = Attention(), nn.LayerNorm(width)
            self.image, self.image_norm = Attention(), nn.LayerNorm(width)
            self.think, self.think_norm = Perceptron(), nn.LayerNorm(width)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.ModuleDict({"conv1": trunk.conv1, "bn1": trunk.bn1})
            for number in range(1, 5):
                self.trunk[f"layer{number}"] = getattr(trunk, f"layer{number}")
            self.reduce = nn.Conv2d(2048, width, 1)
            self.depth_convs = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(32, width))
            self.depth_encoder = nn.ModuleList([Look()])
            self.encoder = nn.ModuleList([Look() for _ in range(4)])
            self.queries = nn.Embedding(100, width)
            self.decoder = nn.ModuleList([Ask() for _ in range(6)])
            self.decoder_norm = nn.LayerNorm(width)
            self.kind = nn.Linear(width, 4)
            self.box = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                                     nn.Linear(width, 4))  # fmt: skip
            self.size, self.angle = nn.Linear(width, 3), nn.Linear(width, 24)

    table: list[Any] = [
        (r"^class_embed.*|^transformer\.encoder\.layers\.[45]\..*", ""),
        (r".*in_proj_(weight|bias)$", "@"),
        (r"^backbone\.0\.body", "trunk"),
        (r"^input_proj", "reduce"),
        (r"^query_embed", "queries"),
        (r"^bbox_embed\.layers\.(\d)", lambda m: f"box.{2 * int(m[1])}"),
        (r"^transformer\.decoder\.norm", "decoder_norm"),
        (r"^transformer\.(en|de)coder\.layers", r"\1coder"),
        (r"\.self_attn\.out_proj", ".among.merge"),
        (r"\.multihead_attn\.out_proj", ".image.merge"),
        (r"\.linear1", ".think.grow"),
        (r"\.linear2", ".think.shrink"),
        (r"(coder\.\d)\.norm1", r"\1.among_norm"),
        (r"(encoder\.\d)\.norm2", r"\1.think_norm"),
        (r"(decoder\.\d)\.norm2", r"\1.image_norm"),
        (r"(decoder\.\d)\.norm3", r"\1.think_norm"),
    ]
    groups = [f"transformer.encoder.layers.{layer}.* -> !" for layer in (4, 5)]
    parts = ("query", "key", "value")
    for name, depth, attentions in (("encoder", 4, {"self_attn": "among"}),
                                    ("decoder", 6, {"self_attn": "among", "multihead_attn": "image"})):  # fmt: skip
        for layer in range(depth):
            for old, new in attentions.items():
                into = [f"{name}.{layer}.{new}.{x}" for x in parts]
                groups += split(f"transformer.{name}.layers.{layer}.{old}", into,
                                weight=".in_proj_weight", offset=".in_proj_bias")  # fmt: skip
    gone = ["trunk.*num_batches_tracked", "depth_*", "*.depth.*", "*.depth_norm.*", "kind.*", "size.*", "angle.*"]
    return to(source, Own(), table, groups=groups, missing=gone, truth="facebookresearch/detr's code")


@pair("blind, own: nine of Mixer-B/16's twelve blocks for twelve bands: Linears are Conv1ds, gates between",
      "timm")  # fmt: skip
def land_cover(small: bool) -> Two:
    """Tokens were mixed by Linears on a transposed tensor, channels by Linears; both are kernels of 1 here."""
    import timm
    import torch
    from torch import nn

    width = 768

    class Mix(nn.Module):
        def __init__(self, size: int, inner: int) -> None:
            super().__init__()
            self.c1, self.c2 = nn.Conv1d(size, inner, 1), nn.Conv1d(inner, size, 1)

        def forward(self, x: Any) -> Any:
            return self.c2(nn.functional.gelu(self.c1(x)))

    class MixerBlock(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pre_space, self.space = nn.LayerNorm(width, 1e-6), Mix(196, 384)
            self.pre_band, self.band = nn.LayerNorm(width, 1e-6), Mix(width, 4 * width)
            self.gate = nn.Sequential(nn.Linear(width, width // 16), nn.ReLU(), nn.Linear(width // 16, width))

        def forward(self, x: Any) -> Any:
            x = x + self.space(self.pre_space(x))
            return x + self.band(self.pre_band(x).transpose(1, 2)).transpose(1, 2)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(12, width, 16, 16)
            self.mixers = nn.ModuleList([MixerBlock() for _ in range(9)])
            self.last = nn.LayerNorm(width, 1e-6)
            self.cover, self.season = nn.Linear(width, 44), nn.Linear(width, 4)

    def rows() -> Any:
        return torch.randn(2, 196, width, generator=torch.Generator().manual_seed(1))

    def ask(model: Any) -> Any:
        x = rows()
        for block in model.blocks[:9]:
            x = block(x)
        return model.norm(x)

    def ask_own(model: Any) -> Any:
        x = rows()
        for block in model.mixers:
            x = block(x)
        return model.last(x)

    table: list[Any] = [
        (r"^(head\.|stem\.proj\.weight|blocks\.(9|1\d)\.).*", ""),
        (r"^stem\.proj", "patches"),
        (r"^blocks", "mixers"),
        (r"^norm", "last"),
        (r"\.norm1", ".pre_space"),
        (r"\.norm2", ".pre_band"),
        (r"\.mlp_tokens\.fc", ".space.c"),
        (r"\.mlp_channels\.fc", ".band.c"),
    ]
    return to(timm.create_model("mixer_b16_224"), Own(), table, [(r"fc\d\.weight", "o i -> o i 1")],
              missing=["patches.weight", "*.gate.*", "cover.*", "season.*"], ask=ask, ask_target=ask_own,
              truth="equal outputs of nine blocks, gates left out")  # fmt: skip


@pair("blind, own: BERT's lower six layers for words, its upper six with a picture's regions, places on the page",
      "transformers")  # fmt: skip
def receipts(small: bool) -> Two:
    """One list became two of other classes; cross attention and four tables of coordinates are new."""
    import transformers
    from torch import nn

    width = 768
    source = transformers.BertForMaskedLM(transformers.BertConfig())

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
            self.norm = nn.LayerNorm(width, 1e-12)

    class Feed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down, self.norm = nn.Linear(width, 3072), nn.Linear(3072, width), nn.LayerNorm(width, 1e-12)

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.feed = Attention(), Feed()

    class Crossing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.other, self.feed = Attention(), Attention(), Feed()

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.order = nn.Embedding(30522, width), nn.Embedding(512, width)
            self.left, self.top, self.wide, self.high = (nn.Embedding(1024, width) for _ in range(4))
            self.segment = nn.Embedding(2, width)
            self.regions = nn.Linear(2048, width)
            self.entry_norm = nn.LayerNorm(width, 1e-12)
            self.text, self.joint = (nn.ModuleList([kind() for _ in range(6)]) for kind in (Plain, Crossing))
            self.field = nn.Linear(width, 15)
            self.link = nn.Bilinear(64, 64, 1)

    table: list[Any] = [
        (r"^cls\..*", ""),
        (r"^bert\.embeddings\.token_type_embeddings", "segment"),
        (r"^bert\.embeddings\.word_embeddings", "words"),
        (r"^bert\.embeddings\.position_embeddings", "order"),
        (r"^bert\.embeddings\.LayerNorm", "entry_norm"),
        (r"^bert\.encoder\.layer\.(\d+)", lambda m: f"{'joint' if int(m[1]) > 5 else 'text'}.{int(m[1]) % 6}"),
        (r"\.attention\.self\.([qkv])\w+", r".own.\1"),
        (r"\.attention\.output\.dense", ".own.o"),
        (r"\.attention\.output\.LayerNorm", ".own.norm"),
        (r"\.intermediate\.dense", ".feed.up"),
        (r"\.output\.dense", ".feed.down"),
        (r"\.output\.LayerNorm", ".feed.norm"),
    ]
    gone = ["left.*", "top.*", "wide.*", "high.*", "regions.*", "*.other.*", "field.*", "link.*"]
    return to(source, Own(), table, missing=gone, truth=CODE)


@pair("blind, unrelated: MobileNetV2 and a network of spoken words, 16 to 320 wide: separable, but nothing expands",
      "torchvision")  # fmt: skip
def spoken(small: bool) -> Two:
    """Kernels of 10x4 and 5x5, a norm behind each; widths are shared."""
    from torch import nn
    from torchvision.models import mobilenet_v2

    class Separable(nn.Module):
        def __init__(self, into: int, out: int, stride: int) -> None:
            super().__init__()
            self.dw = conv_bn(into, into, 5, stride, into)
            self.pw = conv_bn(into, out)

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ear = nn.Sequential(nn.Conv2d(1, 16, (10, 4), 2, bias=False), nn.BatchNorm2d(16), nn.ReLU())
            widths = (16, 32, 32, 64, 64, 96, 96, 160, 160, 320)
            self.layers = nn.Sequential(*(Separable(a, b, 1 + (a != b))
                                          for a, b in itertools.pairwise(widths)))  # fmt: skip
            self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(320, 35))

    return none(mobilenet_v2(weights=None), Words(), "other stems, kernels and blocks")


@pair("blind, unrelated: MiniLM and a forecaster without attention, 384 wide with 1536 inside", "transformers")
def forecaster(small: bool) -> Two:
    """Its norms and perceptrons have MiniLM's shapes, but it mixes time by convolutions in front of them."""
    import transformers
    from torch import nn

    width = 384
    source = transformers.BertModel(transformers.BertConfig(
        hidden_size=width, num_hidden_layers=6, num_attention_heads=12, intermediate_size=4 * width))  # fmt: skip

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1 = nn.LayerNorm(width)
            self.time = nn.Conv1d(width, width, 7, padding=3, groups=width)
            self.mix = nn.Linear(width, width)
            self.norm2 = nn.LayerNorm(width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    class Forecaster(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.values = nn.Conv1d(21, width, 16, 8)
            self.month, self.hour = nn.Embedding(12, width), nn.Embedding(24, width)
            self.blocks = nn.ModuleList([Mixer() for _ in range(6)])
            self.norm = nn.LayerNorm(width)
            self.horizon = nn.Linear(width, 96)

    return none(source, Forecaster(), "a language model and a forecaster of other blocks")


@pair("blind, unrelated: HRNet-W32 and two stacked hourglasses, 32 to 256 wide, both for poses", "timm")
def hourglasses(small: bool) -> Two:
    """Residual units of 1x1, 3x3, 1x1 with a norm in front of each, as deep as the picture allows."""
    import timm
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, into: int, out: int) -> None:
            super().__init__()
            mid = out // 2
            self.bn1, self.conv1 = nn.BatchNorm2d(into), nn.Conv2d(into, mid, 1)
            self.bn2, self.conv2 = nn.BatchNorm2d(mid), nn.Conv2d(mid, mid, 3, padding=1)
            self.bn3, self.conv3 = nn.BatchNorm2d(mid), nn.Conv2d(mid, out, 1)
            if into != out:
                self.skip = nn.Conv2d(into, out, 1)

    class Hourglass(nn.Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.side, self.before, self.after = (Residual(256, 256) for _ in range(3))
            self.inside = Hourglass(depth - 1) if depth > 1 else Residual(256, 256)

    class Poses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pre = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), Residual(64, 128),
                                     nn.MaxPool2d(2), Residual(128, 128), Residual(128, 256))  # fmt: skip
            self.glasses = nn.ModuleList([Hourglass(4) for _ in range(2)])
            self.features = nn.ModuleList([nn.Sequential(Residual(256, 256), nn.Conv2d(256, 256, 1),
                                                         nn.BatchNorm2d(256)) for _ in range(2)])  # fmt: skip
            self.heat = nn.ModuleList([nn.Conv2d(256, 17, 1) for _ in range(2)])
            self.back = nn.ModuleList([nn.Conv2d(256, 256, 1), nn.Conv2d(17, 256, 1)])

    return none(timm.create_model("hrnet_w32"), Poses(), "other blocks, joined in another way")
