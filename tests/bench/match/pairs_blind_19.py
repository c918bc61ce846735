"""Blind pairs: public checkpoints in models of one's own that are nearly the same, each with a change or two."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.match.blind import Two, join, none, pair, split, state, to

CODE = "by the code of both sides: the same modules under other names"


def conv_bn(into: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, eps: float = 1e-5) -> Any:
    """A convolution and its norm as a Sequential."""
    from torch import nn

    conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out, eps))


def noise(*shape: int) -> Any:
    """An input for a proof."""
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pair("blind, own: VGG-19 up to relu4_1 as a style transfer's encoder in four slices, a decoder that mirrors it",
      "torchvision")  # fmt: skip
def style(small: bool) -> Two:
    """The decoder's convolutions have the encoder's shapes or their turned ones."""
    from torch import nn
    from torchvision.models import vgg19

    def up(into: int, out: int, last: bool = False) -> list[Any]:
        conv = nn.Conv2d(into, out, 3, padding=1)
        return [conv] if last else [conv, nn.ReLU()]

    def slices() -> Any:
        widths = [[(3, 64)], [(64, 64), "M", (64, 128)], [(128, 128), "M", (128, 256)],
                  [(256, 256), (256, 256), (256, 256), "M", (256, 512)]]  # fmt: skip
        found = nn.ModuleList()
        for part in widths:
            layers: list[Any] = []
            for item in part:
                layers += [nn.MaxPool2d(2)] if item == "M" else up(*item)  # type: ignore[misc]
            found.append(nn.Sequential(*layers))
        return found

    class StyleNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = slices()
            grow = nn.Upsample(scale_factor=2)
            self.decoder = nn.Sequential(
                *up(512, 256), grow, *up(256, 256), *up(256, 256), *up(256, 256), *up(256, 128), grow,
                *up(128, 128), *up(128, 64), grow, *up(64, 64), *up(64, 3, True))  # fmt: skip

        def encode(self, x: Any) -> Any:
            for part in self.encoder:
                x = part(x)
            return x

    places = {0: "0.0", 2: "1.0", 5: "1.3", 7: "2.0", 10: "2.3", 12: "3.0", 14: "3.2", 16: "3.4", 19: "3.7"}

    def place(found: re.Match[str]) -> str:
        number = int(found[1])
        return f"encoder.{places[number]}.{found[2]}" if number in places else ""

    table: list[Any] = [(r"^classifier.*", ""), (r"^features\.(\d+)\.(.*)", place)]
    return to(vgg19(weights=None), StyleNet(), table, missing=["decoder.*"],
              ask=lambda m: m.features[:21](noise(2, 3, 64, 64)), ask_target=lambda m: m.encode(noise(2, 3, 64, 64)),
              truth="equal features at relu4_1")  # fmt: skip


@pair("blind, own: timm's ResNet-50 with squeeze and excitation for lanes: stages c2 to c5, an FPN, row anchors", "timm")
def lanes(small: bool) -> Two:
    """The excitation stands between the last norm and the shortcut."""
    import timm
    import torch
    from torch import nn

    class SE(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.fc = nn.Sequential(nn.Linear(size, size // 16, bias=False), nn.ReLU(),
                                    nn.Linear(size // 16, size, bias=False), nn.Sigmoid())  # fmt: skip

    class SEBottleneck(nn.Module):
        def __init__(self, into: int, mid: int, stride: int) -> None:
            super().__init__()
            self.conv_a, self.bn_a = nn.Conv2d(into, mid, 1, bias=False), nn.BatchNorm2d(mid)
            self.conv_b, self.bn_b = nn.Conv2d(mid, mid, 3, stride, 1, bias=False), nn.BatchNorm2d(mid)
            self.conv_c, self.bn_c = nn.Conv2d(mid, 4 * mid, 1, bias=False), nn.BatchNorm2d(4 * mid)
            self.se = SE(4 * mid)
            self.identity = conv_bn(into, 4 * mid, 1, stride) if stride > 1 or into != 4 * mid else nn.Identity()

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.bn_a(self.conv_a(x)))
            y = self.bn_c(self.conv_c(torch.relu(self.bn_b(self.conv_b(y)))))
            return torch.relu(y + self.identity(x))  # the proof leaves the excitation out

    def stage(into: int, mid: int, depth: int, stride: int) -> nn.Sequential:
        rest = [SEBottleneck(4 * mid, mid, 1) for _ in range(depth - 1)]
        return nn.Sequential(SEBottleneck(into, mid, stride), *rest)

    class LaneNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(*conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
            self.c2, self.c3 = stage(64, 64, 3, 1), stage(256, 128, 4, 2)
            self.c4, self.c5 = stage(512, 256, 6, 2), stage(1024, 512, 3, 2)
            self.lateral = nn.ModuleList([nn.Conv2d(size, 128, 1) for size in (512, 1024, 2048)])
            self.smooth = nn.ModuleList([nn.Conv2d(128, 128, 3, padding=1) for _ in range(3)])
            self.cls = nn.Sequential(nn.Linear(1800, 2048), nn.ReLU(), nn.Linear(2048, 101 * 56 * 4))

    table: list[Any] = [
        (r"^fc\..*", ""),
        (r"^conv1", "stem.0"),
        (r"^bn1", "stem.1"),
        (r"^layer(\d)", lambda m: f"c{int(m[1]) + 1}"),
        (r"\.(conv|bn)(\d)", lambda m: f".{m[1]}_{'abc'[int(m[2]) - 1]}"),
        (r"\.downsample", ".identity"),
    ]
    return to(timm.create_model("resnet50"), LaneNet(), table,
              missing=["*.se.*", "lateral.*", "smooth.*", "cls.*"], ask=lambda m: m.forward_features(noise(2, 3, 64, 64)),
              ask_target=lambda m: m.c5(m.c4(m.c3(m.c2(m.stem(noise(2, 3, 64, 64)))))),
              truth="equal outputs of the trunk, excitation left out")  # fmt: skip


@pair("blind, own: torchvision's EfficientNetV2-S as a U-Net's encoder for one channel: five levels, gates of Linears",
      "torchvision")  # fmt: skip
def tumour(small: bool) -> Two:
    """Two stages of one size became one level."""
    import torch
    from torch import nn
    from torchvision.models import efficientnet_v2_s

    class Gate(nn.Module):
        def __init__(self, size: int, less: int) -> None:
            super().__init__()
            self.squeeze, self.excite = nn.Linear(size, less), nn.Linear(less, size)

        def forward(self, x: Any) -> Any:
            y = torch.sigmoid(self.excite(nn.functional.silu(self.squeeze(x.mean((2, 3))))))
            return x * y[:, :, None, None]

    class Fused(nn.Module):
        def __init__(self, into: int, out: int, ratio: int, stride: int) -> None:
            super().__init__()
            self.fused = conv_bn(into, into * ratio, 3, stride, eps=1e-3)
            self.project = conv_bn(into * ratio, out, eps=1e-3) if ratio > 1 else None
            self.is_same = into == out and stride == 1

        def forward(self, x: Any) -> Any:
            y = nn.functional.silu(self.fused(x))
            y = self.project(y) if self.project else y
            return x + y if self.is_same else y

    class Inverted(nn.Module):
        def __init__(self, into: int, out: int, ratio: int, stride: int) -> None:
            super().__init__()
            mid = into * ratio
            self.expand, self.depthwise = conv_bn(into, mid, eps=1e-3), conv_bn(mid, mid, 3, stride, mid, eps=1e-3)
            self.gate, self.project = Gate(mid, into // 4), conv_bn(mid, out, eps=1e-3)
            self.is_same = into == out and stride == 1

        def forward(self, x: Any) -> Any:
            silu = nn.functional.silu
            y = self.project(self.gate(silu(self.depthwise(silu(self.expand(x))))))
            return x + y if self.is_same else y

    def stage(kind: Any, into: int, out: int, ratio: int, stride: int, depth: int) -> list[Any]:
        return [kind(out if at else into, out, ratio, 1 if at else stride) for at in range(depth)]

    class Up(nn.Module):
        def __init__(self, into: int, skip: int, out: int) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(into, out, 2, 2)
            self.conv1, self.conv2 = conv_bn(out + skip, out, 3), conv_bn(out, out, 3)

    class Segmenter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(*conv_bn(1, 24, 3, 2, eps=1e-3), nn.SiLU())
            self.levels = nn.ModuleList([
                nn.Sequential(*stage(Fused, 24, 24, 1, 1, 2)), nn.Sequential(*stage(Fused, 24, 48, 4, 2, 4)),
                nn.Sequential(*stage(Fused, 48, 64, 4, 2, 4)),
                nn.Sequential(*stage(Inverted, 64, 128, 4, 2, 6), *stage(Inverted, 128, 160, 6, 1, 9)),
                nn.Sequential(*stage(Inverted, 160, 256, 6, 2, 15))])  # fmt: skip
            self.ups = nn.ModuleList([Up(256, 160, 128), Up(128, 64, 64), Up(64, 48, 48), Up(48, 24, 24)])
            self.mask = nn.Conv2d(24, 3, 1)

        def encode(self, x: Any) -> Any:
            for level in self.levels:
                x = level(x)
            return x

    firsts = {1: (0, 0), 2: (1, 0), 3: (2, 0), 4: (3, 0), 5: (3, 6), 6: (4, 0)}

    def place(found: re.Match[str]) -> str:
        level, first = firsts[int(found[1])]
        names = ("fused", "project") if int(found[1]) < 4 else ("expand", "depthwise", "gate", "project")
        return f"levels.{level}.{first + int(found[2])}.{names[int(found[3])]}"

    table: list[Any] = [
        (r"^(classifier|features\.7|features\.0\.0)\..*", ""),
        (r"^features\.0", "stem"),
        (r"^features\.(\d)\.(\d+)\.block\.(\d)", place),
        (r"\.fc1", ".squeeze"),
        (r"\.fc2", ".excite"),
    ]
    return to(efficientnet_v2_s(weights=None), Segmenter(), table,
              [(r"fc\d\.weight", "o i 1 1 -> o i")], missing=["stem.0.weight", "ups.*", "mask.*"],
              ask=lambda m: m.eval().features[1:7](noise(2, 24, 64, 64)),
              ask_target=lambda m: m.encode(noise(2, 24, 64, 64)), truth="equal outputs behind the stem")  # fmt: skip


@pair("blind, own: timm's MobileNetV3-Large on a robot: fifteen bottlenecks in one list, depth as a fourth channel, "
      "LR-ASPP", "timm")  # fmt: skip
def robot(small: bool) -> Two:
    """The first bottleneck expands nothing; the gates stay convolutions."""
    import timm
    from torch import nn

    class SeModule(nn.Module):
        def __init__(self, size: int, less: int) -> None:
            super().__init__()
            self.se = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(size, less, 1), nn.ReLU(),
                                    nn.Conv2d(less, size, 1), nn.Hardsigmoid())  # fmt: skip

    class Bneck(nn.Module):
        def __init__(self, kernel: int, into: int, mid: int, out: int, less: int, stride: int) -> None:
            super().__init__()
            if mid != into:
                self.conv1, self.bn1 = nn.Conv2d(into, mid, 1, bias=False), nn.BatchNorm2d(mid)
            self.conv2 = nn.Conv2d(mid, mid, kernel, stride, kernel // 2, groups=mid, bias=False)
            self.bn2 = nn.BatchNorm2d(mid)
            self.se = SeModule(mid, less) if less else None
            self.conv3, self.bn3 = nn.Conv2d(mid, out, 1, bias=False), nn.BatchNorm2d(out)

    rows = [(3, 16, 16, 16, 0, 1), (3, 16, 64, 24, 0, 2), (3, 24, 72, 24, 0, 1), (5, 24, 72, 40, 24, 2),
            (5, 40, 120, 40, 32, 1), (5, 40, 120, 40, 32, 1), (3, 40, 240, 80, 0, 2), (3, 80, 200, 80, 0, 1),
            (3, 80, 184, 80, 0, 1), (3, 80, 184, 80, 0, 1), (3, 80, 480, 112, 120, 1), (3, 112, 672, 112, 168, 1),
            (5, 112, 672, 160, 168, 2), (5, 160, 960, 160, 240, 1), (5, 160, 960, 160, 240, 1)]  # fmt: skip

    class RobotNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(4, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
            self.bneck = nn.Sequential(*(Bneck(*row) for row in rows))
            self.conv2, self.bn2 = nn.Conv2d(160, 960, 1, bias=False), nn.BatchNorm2d(960)
            self.aspp = nn.Sequential(nn.Conv2d(960, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU())
            self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(960, 128, 1, bias=False), nn.Sigmoid())
            self.low, self.high = nn.Conv2d(40, 12, 1), nn.Conv2d(128, 12, 1)

    firsts = (0, 1, 3, 6, 10, 12)
    table: list[Any] = [
        (r"^(conv_stem|conv_head|classifier)\..*", ""),
        (r"^blocks\.6\.0\.conv", "conv2"),
        (r"^blocks\.6\.0\.bn1", "bn2"),
        (r"^blocks\.(\d)\.(\d)", lambda m: f"bneck.{firsts[int(m[1])] + int(m[2])}"),
        (r"^bneck\.0\.bn2", "bneck.0.bn3"),
        (r"^bneck\.0\.bn1", "bneck.0.bn2"),
        (r"^bneck\.0\.conv_pw", "bneck.0.conv3"),
        (r"\.conv_pwl", ".conv3"),
        (r"\.conv_pw\.", ".conv1."),
        (r"\.conv_dw", ".conv2"),
        (r"\.se\.conv_reduce", ".se.se.1"),
        (r"\.se\.conv_expand", ".se.se.3"),
    ]
    return to(timm.create_model("mobilenetv3_large_100"), RobotNet(), table, truth=CODE,
              missing=["conv1.weight", "aspp.*", "scale.*", "low.*", "high.*"])  # fmt: skip


@pair("blind, own: timm's RegNetX-800MF on ultrasound: sixteen units in one list, gates, one channel, a GRU", "timm")
def ultrasound(small: bool) -> Two:
    """What was an X became a Y; each clip's frames go through a GRU."""
    import timm
    import torch
    from torch import nn

    class Unit(nn.Module):
        def __init__(self, into: int, out: int, stride: int) -> None:
            super().__init__()
            self.a, self.b = conv_bn(into, out), conv_bn(out, out, 3, stride, out // 16)
            self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(out, into // 4, 1), nn.ReLU(),
                                      nn.Conv2d(into // 4, out, 1), nn.Sigmoid())  # fmt: skip
            self.c = conv_bn(out, out)
            if into != out:
                self.proj = conv_bn(into, out, 1, stride)

        def forward(self, x: Any) -> Any:
            y = self.c(torch.relu(self.b(torch.relu(self.a(x)))))  # the proof leaves the gate out
            return torch.relu(y + (self.proj(x) if hasattr(self, "proj") else x))

    class EchoNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = conv_bn(1, 32, 3, 2)
            units, into = [], 32
            for out, depth in ((64, 1), (128, 3), (288, 7), (672, 5)):
                for at in range(depth):
                    units.append(Unit(into, out, 1 if at else 2))
                    into = out
            self.units = nn.Sequential(*units)
            self.frames = nn.GRU(672, 256, 2, batch_first=True, bidirectional=True)
            self.fraction = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 1))

    firsts = (0, 1, 4, 11)
    table: list[Any] = [
        (r"^(head|stem\.conv)\..*", ""),
        (r"^stem\.bn", "first.1"),
        (r"^s(\d)\.b(\d)", lambda m: f"units.{firsts[int(m[1]) - 1] + int(m[2]) - 1}"),
        (r"\.conv(\d)\.", lambda m: f".{'abc'[int(m[1]) - 1]}."),
        (r"\.downsample", ".proj"),
        (r"\.conv\.", ".0."),
        (r"\.bn\.", ".1."),
    ]
    return to(timm.create_model("regnetx_008"), EchoNet(), table,
              missing=["first.0.weight", "*.gate.*", "frames.*", "fraction.*"],
              ask=lambda m: m.s4(m.s3(m.s2(m.s1(noise(2, 32, 32, 32))))),
              ask_target=lambda m: m.units(noise(2, 32, 32, 32)),
              truth="equal outputs behind the stem, gates left out")  # fmt: skip


@pair("blind, own: timm's ConvNeXt V2-nano for clouds in four bands: Linears, norms of four axes, a U-Net's way up", "timm")
def clouds(small: bool) -> Two:
    """The ways down have a list of their own, as in the authors' code; the stem's convolution is new."""
    import timm
    import torch
    from torch import nn

    dims, depths = (80, 160, 320, 640), (2, 2, 8, 2)

    class ChannelNorm(nn.LayerNorm):
        def __init__(self, size: int) -> None:
            super().__init__(size, 1e-6)

        def forward(self, x: Any) -> Any:
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class Grn(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.gamma, self.beta = (nn.Parameter(torch.zeros(1, 1, 1, size)) for _ in range(2))

        def forward(self, x: Any) -> Any:
            length = torch.norm(x, dim=(1, 2), keepdim=True)
            return x + self.gamma * (x * length / (length.mean(-1, keepdim=True) + 1e-6)) + self.beta

    class Block(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.spatial = nn.Conv2d(size, size, 7, padding=3, groups=size)
            self.ln = nn.LayerNorm(size, 1e-6)
            self.widen, self.grn, self.narrow = nn.Linear(size, 4 * size), Grn(4 * size), nn.Linear(4 * size, size)

        def forward(self, x: Any) -> Any:
            y = self.ln(self.spatial(x).permute(0, 2, 3, 1))
            return x + self.narrow(self.grn(nn.functional.gelu(self.widen(y)))).permute(0, 3, 1, 2)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 80, 4, 4), ChannelNorm(80))])
            for a, b in zip(dims, dims[1:], strict=False):
                self.down.append(nn.Sequential(ChannelNorm(a), nn.Conv2d(a, b, 2, 2)))
            self.stages = nn.ModuleList(nn.Sequential(*(Block(d) for _ in range(n)))
                                        for d, n in zip(dims, depths, strict=True))  # fmt: skip

    class CloudNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Encoder()
            self.up = nn.ModuleList([nn.ConvTranspose2d(b, a, 2, 2) for a, b in zip(dims, dims[1:], strict=False)])
            self.fuse = nn.ModuleList([nn.Sequential(nn.Conv2d(2 * d, d, 3, padding=1), nn.GELU(), Block(d))
                                       for d in dims[:3]])  # fmt: skip
            self.classify = nn.Conv2d(80, 4, 1)

        def forward(self, x: Any) -> Any:
            for at in range(4):
                x = self.encoder.down[at](x) if at else x
                x = self.encoder.stages[at](x)
            return x

    table: list[Any] = [
        (r"^(head\.|stem\.0\.weight).*", ""),
        (r"^stem", "encoder.down.0"),
        (r"^stages\.(\d)\.downsample", r"encoder.down.\1"),
        (r"^stages\.(\d)\.blocks", r"encoder.stages.\1"),
        (r"\.conv_dw", ".spatial"),
        (r"\.norm\.", ".ln."),
        (r"\.mlp\.fc1", ".widen"),
        (r"\.mlp\.fc2", ".narrow"),
        (r"\.mlp\.grn\.weight", ".grn.gamma"),
        (r"\.mlp\.grn\.bias", ".grn.beta"),
    ]
    return to(timm.create_model("convnextv2_nano"), CloudNet(), table,
              [(r"fc\d\.weight", "o i 1 1 -> o i"), (r"\.grn\.", "c -> 1 1 1 c")],
              missing=["encoder.down.0.0.weight", "up.*", "fuse.*", "classify.*"],
              ask=lambda m: m.stages(noise(2, 80, 16, 16)), ask_target=lambda m: m(noise(2, 80, 16, 16)),
              truth="equal outputs behind the stem")  # fmt: skip


@pair("blind, own: Hugging Face's MAE-B for ten bands of a satellite: encoder and decoder with qkv fused, a season's token",
      "transformers")  # fmt: skip
def satellite(small: bool) -> Two:
    """Patches and predicted pixels have other sizes; everything between them stays."""
    import torch
    import transformers
    from torch import nn

    source = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig())

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.ln1 = nn.LayerNorm(width, 1e-12)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.ln2 = nn.LayerNorm(width, 1e-12)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    class SatMAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cls = nn.Parameter(torch.zeros(1, 1, 768))
            self.pos_enc = nn.Parameter(torch.zeros(1, 197, 768))
            self.mask_token = nn.Parameter(torch.zeros(1, 1, 512))
            self.pos_dec = nn.Parameter(torch.zeros(1, 197, 512))
            self.season = nn.Embedding(12, 768)
            self.patchify = nn.Conv2d(10, 768, 16, 16)
            self.encoder = nn.ModuleList([Block(768) for _ in range(12)])
            self.norm_enc = nn.LayerNorm(768, 1e-12)
            self.bridge = nn.Linear(768, 512)
            self.decoder = nn.ModuleList([Block(512) for _ in range(8)])
            self.norm_dec = nn.LayerNorm(512, 1e-12)
            self.to_pixels = nn.Linear(512, 16 * 16 * 10)

    table: list[Any] = [
        (r"^decoder\.decoder_pred.*|^vit\.embeddings\.patch_embeddings\.projection\.weight", ""),
        (r".*attention\.[qkv]_proj.*", "@"),
        (r"^vit\.embeddings\.cls_token", "cls"),
        (r"^vit\.embeddings\.position_embeddings", "pos_enc"),
        (r"^vit\.embeddings\.patch_embeddings\.projection", "patchify"),
        (r"^vit\.layernorm", "norm_enc"),
        (r"^vit\.layers", "encoder"),
        (r"^decoder\.mask_token", "mask_token"),
        (r"^decoder\.decoder_pos_embed", "pos_dec"),
        (r"^decoder\.decoder_embed", "bridge"),
        (r"^decoder\.decoder_norm", "norm_dec"),
        (r"^decoder\.decoder_layers", "decoder"),
        (r"\.attention\.o_proj", ".out"),
        (r"\.layernorm_before", ".ln1"),
        (r"\.layernorm_after", ".ln2"),
        (r"\.mlp\.fc1", ".mlp.0"),
        (r"\.mlp\.fc2", ".mlp.2"),
    ]
    groups = []
    for old, new, depth in (("vit.layers", "encoder", 12), ("decoder.decoder_layers", "decoder", 8)):
        for at in range(depth):
            groups += join([f"{old}.{at}.attention.{x}_proj" for x in "qkv"], f"{new}.{at}.qkv")
    return to(source, SatMAE(), table, groups=groups, truth=CODE,
              missing=["season.weight", "patchify.weight", "to_pixels.*"])  # fmt: skip


@pair("blind, own: timm's DeiT-Ti as student and teacher: q, k, v apart, a projector behind each", "timm")
def distilled(small: bool) -> Two:
    """Both begin from one file."""
    import timm
    import torch
    from torch import nn

    width = 192

    class Attn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))

        def forward(self, x: Any) -> Any:
            q, k, v = (to(x).unflatten(-1, (3, 64)).transpose(1, 2) for to in (self.to_q, self.to_k, self.to_v))
            return self.to_out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn_norm, self.attn = nn.LayerNorm(width, 1e-6), Attn()
            self.ffn_norm = nn.LayerNorm(width, 1e-6)
            self.ffn = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x: Any) -> Any:
            x = x + self.attn(self.attn_norm(x))
            return x + self.ffn(self.ffn_norm(x))

    class Vit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cls = nn.Parameter(torch.zeros(1, 1, width))
            self.pos = nn.Parameter(torch.zeros(1, 197, width))
            self.patch = nn.Conv2d(3, width, 16, 16)
            self.layers = nn.ModuleList([Layer() for _ in range(12)])
            self.final_norm = nn.LayerNorm(width, 1e-6)

        def forward(self, x: Any) -> Any:
            x = self.patch(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos
            for layer in self.layers:
                x = layer(x)
            return self.final_norm(x)

    class Side(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = Vit()
            self.projector = nn.Sequential(nn.Linear(width, 2048), nn.GELU(), nn.Linear(2048, 256))

    class Distiller(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.teacher = Side(), Side()
            self.register_buffer("center", torch.zeros(1, 256))

    sides, rules, source = ("student.vit", "teacher.vit"), [], timm.create_model("deit_tiny_patch16_224")
    for key in state(source):
        name = re.sub(r"^blocks\.", "layers.", key)
        for old, new in (("cls_token", "cls"), ("pos_embed", "pos"), ("patch_embed.proj", "patch"),
                         (".norm1", ".attn_norm"), (".norm2", ".ffn_norm"), (".attn.proj", ".attn.to_out"),
                         ("mlp.fc1", "ffn.0"), ("mlp.fc2", "ffn.2")):  # fmt: skip
            name = name.replace(old, new)
        name = re.sub(r"^norm\.", "final_norm.", name)
        if ".qkv." in name:
            names = [f"{side}.{name.replace('.qkv.', f'.to_{x}.')}" for side in sides for x in "qkv"]
            left = "(q + k + v)" + (" i" if key.endswith("weight") else "")
            right = ", ".join(x + " i" * key.endswith("weight") for x in "qkvqkv")
            rules.append(f"{key} -> {', '.join(names)} | {left} -> {right}")
        else:
            names = ["!"] if name.startswith("head") else [f"{side}.{name}" for side in sides]
            rules.append(f"{key} -> {', '.join(names)}")
    return Two(source, Distiller(), rules, missing=["*.projector.*", "center"],
               ask=lambda m: m.forward_features(noise(2, 3, 224, 224)),
               ask_target=lambda m: m.teacher.vit(noise(2, 3, 224, 224)), proof="equal outputs of the teacher")  # fmt: skip


@pair("blind, own: torchvision's Swin-T for instances: q, k, v apart, merging first in its stage, a norm for each level",
      "torchvision")  # fmt: skip
def instances(small: bool) -> Two:
    """The last norm is the fourth level's; the indices of places are computed when they are needed."""
    import torch
    from torch import nn
    from torchvision.models import swin_t

    class WindowAttention(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.bias_table = nn.Parameter(torch.zeros(169, heads))
            self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    class Block(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.ln_attn, self.window = nn.LayerNorm(width), WindowAttention(width, heads)
            self.ln_ffn = nn.LayerNorm(width)
            self.ffn = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    class Merge(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.ln, self.linear = nn.LayerNorm(2 * width), nn.Linear(2 * width, width, bias=False)

    class Stage(nn.Module):
        def __init__(self, width: int, heads: int, depth: int, merge: bool) -> None:
            super().__init__()
            self.merge = Merge(width) if merge else nn.Identity()
            self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])

    class InstanceNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = (96, 192, 384, 768)
            self.patch, self.patch_ln = nn.Conv2d(3, 96, 4, 4), nn.LayerNorm(96)
            self.stages = nn.ModuleList([Stage(w, w // 32, d, w > 96)
                                         for w, d in zip(widths, (2, 2, 6, 2), strict=True)])  # fmt: skip
            self.level_ln = nn.ModuleList([nn.LayerNorm(w) for w in widths])
            self.lateral = nn.ModuleList([nn.Conv2d(w, 256, 1) for w in widths])
            self.output = nn.ModuleList([nn.Conv2d(256, 256, 3, padding=1) for _ in widths])
            self.kernels = nn.Sequential(*(nn.Conv2d(256, 256, 3, padding=1) for _ in range(4)))
            self.classes, self.masks = nn.Conv2d(256, 12, 3, padding=1), nn.Conv2d(256, 128, 1)

    source = swin_t(weights=None)
    table: list[Any] = [
        (r"^head\..*|.*relative_position_index$", ""),
        (r".*\.qkv\..*", "@"),
        (r"^features\.0\.0", "patch"),
        (r"^features\.0\.2", "patch_ln"),
        (r"^features\.([246])\.norm", lambda m: f"stages.{int(m[1]) // 2}.merge.ln"),
        (r"^features\.([246])\.reduction", lambda m: f"stages.{int(m[1]) // 2}.merge.linear"),
        (r"^features\.([1357])\.(\d)", lambda m: f"stages.{int(m[1]) // 2}.blocks.{m[2]}"),
        (r"^norm\.", "level_ln.3."),
        (r"\.norm1", ".ln_attn"),
        (r"\.norm2", ".ln_ffn"),
        (r"\.attn\.relative_position_bias_table", ".window.bias_table"),
        (r"\.attn\.proj", ".window.out"),
        (r"\.mlp\.0", ".ffn.0"),
        (r"\.mlp\.3", ".ffn.2"),
    ]
    groups = []
    for key in state(source):
        if found := re.match(r"features\.(\d)\.(\d)\.attn\.qkv\.weight", key):
            at = f"stages.{int(found[1]) // 2}.blocks.{found[2]}.window"
            groups += split(key.removesuffix(".weight"), [f"{at}.{x}" for x in ("query", "key", "value")])
    gone = ["level_ln.0.*", "level_ln.1.*", "level_ln.2.*", "lateral.*", "output.*", "kernels.*", "classes.*", "masks.*"]
    return to(source, InstanceNet(), table, groups=groups, missing=gone, truth=CODE)


@pair("blind, own: sixteen of BERT-large's layers as a late-interaction retriever in DataParallel: Wqkv, 128 wide vectors",
      "transformers")  # fmt: skip
def retriever(small: bool) -> Two:
    """The pooler and the last eight layers stay behind."""
    import transformers
    from torch import nn

    width, depth = 1024, 16
    source = transformers.BertModel(transformers.BertConfig(
        hidden_size=width, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096))  # fmt: skip

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.Wqkv, self.Wo, self.ln1 = nn.Linear(width, 3 * width), nn.Linear(width, width), nn.LayerNorm(width)
            self.W1, self.W2, self.ln2 = nn.Linear(width, 4096), nn.Linear(4096, width), nn.LayerNorm(width)

    class Retriever(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tok, self.pos, self.seg = nn.Embedding(30522, width), nn.Embedding(512, width), nn.Embedding(2, width)
            self.emb_ln = nn.LayerNorm(width)
            self.layers = nn.ModuleList([Layer() for _ in range(depth)])
            self.compress = nn.Linear(width, 128, bias=False)
            self.salience = nn.Linear(width, 1)

    class DataParallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = Retriever()

    table: list[Any] = [
        (r"^pooler\..*|^encoder\.layer\.(1[6-9]|2\d)\..*", ""),
        (r".*attention\.self.*", "@"),
        (r"^embeddings\.word_embeddings", "module.tok"),
        (r"^embeddings\.position_embeddings", "module.pos"),
        (r"^embeddings\.token_type_embeddings", "module.seg"),
        (r"^embeddings\.LayerNorm", "module.emb_ln"),
        (r"^encoder\.layer", "module.layers"),
        (r"\.attention\.output\.dense", ".Wo"),
        (r"\.attention\.output\.LayerNorm", ".ln1"),
        (r"\.intermediate\.dense", ".W1"),
        (r"\.output\.dense", ".W2"),
        (r"\.output\.LayerNorm", ".ln2"),
    ]
    groups = []
    for at in range(depth):
        groups += join([f"encoder.layer.{at}.attention.self.{x}" for x in ("query", "key", "value")],
                       f"module.layers.{at}.Wqkv")  # fmt: skip
    return to(source, DataParallel(), table, groups=groups, truth=CODE,
              missing=["module.compress.*", "module.salience.*"])  # fmt: skip
