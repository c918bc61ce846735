"""Blind pairs: public checkpoints in models of one's own that are nearly the same, each with a change or two."""

from __future__ import annotations

import itertools
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


@pair("blind, own: timm's ResNet-50 with squeeze and excitation for lanes: c2 to c5, an FPN, row anchors", "timm")
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
              missing=["*.se.*", "lateral.*", "smooth.*", "cls.*"],
              ask=lambda m: m.forward_features(noise(2, 3, 64, 64)),
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
              ask=lambda m: m.eval().double().features[1:7](noise(2, 24, 64, 64).double()),
              ask_target=lambda m: m.double().encode(noise(2, 24, 64, 64).double()),
              truth="equal outputs behind the stem")  # fmt: skip


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


@pair("blind, own: timm's RegNetX-800MF on ultrasound: one list of units, group norms, gates, one channel", "timm")
def ultrasound(small: bool) -> Two:
    """What was an X became a Y; each clip's frames go through a GRU."""
    import timm
    from torch import nn

    def conv_gn(into: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
        conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(conv, nn.GroupNorm(16, out))

    class Unit(nn.Module):
        def __init__(self, into: int, out: int, stride: int) -> None:
            super().__init__()
            self.a, self.b = conv_gn(into, out), conv_gn(out, out, 3, stride, out // 16)
            self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(out, into // 4, 1), nn.ReLU(),
                                      nn.Conv2d(into // 4, out, 1), nn.Sigmoid())  # fmt: skip
            self.c = conv_gn(out, out)
            if into != out:
                self.proj = conv_gn(into, out, 1, stride)

    class EchoNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = conv_gn(1, 32, 3, 2)
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
        (r"^(head|stem\.conv)\..*|.*(running_mean|running_var|num_batches_tracked)$", ""),
        (r"^stem\.bn", "first.1"),
        (r"^s(\d)\.b(\d)", lambda m: f"units.{firsts[int(m[1]) - 1] + int(m[2]) - 1}"),
        (r"\.conv(\d)\.", lambda m: f".{'abc'[int(m[1]) - 1]}."),
        (r"\.downsample", ".proj"),
        (r"\.conv\.", ".0."),
        (r"\.bn\.", ".1."),
    ]
    return to(timm.create_model("regnetx_008"), EchoNet(), table,
              missing=["first.0.weight", "*.gate.*", "frames.*", "fraction.*"],
              undecided=["first.1.*", "*.?.1.*", "*.proj.1.*"],
              truth=CODE + "; the norms are another kind, their weights a beginning at best")  # fmt: skip


@pair("blind, own: timm's ConvNeXt V2-nano for clouds in four bands: Linears, GRN of four axes, a way up", "timm")
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
            for a, b in itertools.pairwise(dims):
                self.down.append(nn.Sequential(ChannelNorm(a), nn.Conv2d(a, b, 2, 2)))
            self.stages = nn.ModuleList(nn.Sequential(*(Block(d) for _ in range(n)))
                                        for d, n in zip(dims, depths, strict=True))  # fmt: skip

    class CloudNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Encoder()
            self.up = nn.ModuleList([nn.ConvTranspose2d(b, a, 2, 2) for a, b in itertools.pairwise(dims)])
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


@pair("blind, own: Hugging Face's MAE-B for ten bands of a satellite: both halves with qkv fused, a season's token",
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
               ask_target=lambda m: m.teacher.vit(noise(2, 3, 224, 224)),
               proof="equal outputs of the teacher")  # fmt: skip


@pair("blind, own: torchvision's Swin-T for instances: q, k, v apart, merging first in a stage, a norm for each level",
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
    gone = [*(f"level_ln.{at}.*" for at in range(3)), "lateral.*", "output.*", "kernels.*", "classes.*", "masks.*"]
    return to(source, InstanceNet(), table, groups=groups, missing=gone, truth=CODE)


@pair("blind, own: sixteen of BERT-large's layers as a late-interaction retriever in DataParallel: Wqkv, 128 wide",
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


@pair("blind, own: six of GPT-2's layers as a decision transformer: Linears, returns, states, actions for words",
      "transformers")  # fmt: skip
def decisions(small: bool) -> Two:
    """Neither table of the source has a use; each kind of token has a Linear."""
    import transformers
    from torch import nn

    width = 768
    source = transformers.GPT2LMHeadModel(transformers.GPT2Config())

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv_net, self.proj_net = nn.Linear(width, 3 * width), nn.Linear(width, width)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln1, self.attention = nn.LayerNorm(width), Attention()
            self.ln2 = nn.LayerNorm(width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    class DecisionTransformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed_timestep = nn.Embedding(4096, width)
            self.embed_rtg, self.embed_state = nn.Linear(1, width), nn.Linear(17, width)
            self.embed_action = nn.Linear(6, width)
            self.embed_ln = nn.LayerNorm(width)
            self.transformer = nn.Sequential(*(Block() for _ in range(6)))
            self.final_ln = nn.LayerNorm(width)
            self.predict_state, self.predict_rtg = nn.Linear(width, 17), nn.Linear(width, 1)
            self.predict_action = nn.Sequential(nn.Linear(width, 6), nn.Tanh())

    table: list[Any] = [
        (r"^(lm_head|transformer\.w[tp]e|transformer\.h\.([6-9]|1\d))\..*", ""),
        (r"^transformer\.ln_f", "final_ln"),
        (r"^transformer\.h\.", "transformer."),
        (r"\.ln_(\d)", r".ln\1"),
        (r"\.attn\.c_attn", ".attention.qkv_net"),
        (r"\.attn\.c_proj", ".attention.proj_net"),
        (r"\.mlp\.c_fc", ".mlp.0"),
        (r"\.mlp\.c_proj", ".mlp.2"),
    ]
    return to(source, DecisionTransformer(), table, [(r"\.(c_\w+)\.weight", "i o -> o i")],
              missing=["embed_*", "predict_*"], hidden=["*.proj_net.weight"],
              truth=CODE + "; a Conv1D's matrix is a Linear's, turned; the last norm is behind the sixth")  # fmt: skip


@pair("blind, own: Qwen2.5-1.5B that sees: gate and up fused, an own ViT of 24 blocks and a projector in front",
      "transformers")  # fmt: skip
def seeing(small: bool) -> Two:
    """The file has no head, as it is tied; the ViT's norms and Linears are another's."""
    import torch
    import transformers
    from torch import nn

    width, inner, depth = 1536, 8960, 28
    config = transformers.Qwen2Config(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=depth, num_attention_heads=12,
        num_key_value_heads=2, tie_word_embeddings=True)  # fmt: skip
    source = transformers.Qwen2ForCausalLM(config)

    class GroupedAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = nn.Linear(width, width), nn.Linear(width, 256), nn.Linear(width, 256)
            self.o = nn.Linear(width, width, bias=False)

    class SwiGLU(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_up = nn.Linear(width, 2 * inner, bias=False)
            self.down = nn.Linear(inner, width, bias=False)

    class DecoderLayer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.attn = nn.RMSNorm(width), GroupedAttention()
            self.norm2, self.mlp = nn.RMSNorm(width), SwiGLU()

    class VisionBlock(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.qkv, self.proj = nn.LayerNorm(1024), nn.Linear(1024, 3072), nn.Linear(1024, 1024)
            self.norm2, self.fc1, self.fc2 = nn.LayerNorm(1024), nn.Linear(1024, 4096), nn.Linear(4096, 1024)

    class Vision(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pos = nn.Parameter(torch.zeros(1, 576, 1024))
            self.patch = nn.Conv2d(3, 1024, 14, 14)
            self.blocks = nn.ModuleList([VisionBlock() for _ in range(24)])

    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(151936, width)
            self.layers = nn.ModuleList([DecoderLayer() for _ in range(depth)])
            self.norm = nn.RMSNorm(width)

    class VLM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision = Vision()
            self.projector = nn.Sequential(nn.Linear(1024, width), nn.GELU(), nn.Linear(width, width))
            self.language = Language()

    def without_head(saved: Any) -> Any:
        return {key: tensor for key, tensor in saved.items() if key != "lm_head.weight"}

    rules = ["model.embed_tokens.weight -> language.tokens.weight", "model.norm.weight -> language.norm.weight"]
    for at in range(depth):
        old, new = f"model.layers.{at}", f"language.layers.{at}"
        for x in "qkv":
            rules += [f"{old}.self_attn.{x}_proj.{tail} -> {new}.attn.{x}.{tail}" for tail in ("weight", "bias")]
        rules += [f"{old}.self_attn.o_proj.weight -> {new}.attn.o.weight",
                  f"{old}.mlp.down_proj.weight -> {new}.mlp.down.weight",
                  f"{old}.input_layernorm.weight -> {new}.norm1.weight",
                  f"{old}.post_attention_layernorm.weight -> {new}.norm2.weight"]  # fmt: skip
        rules += join([f"{old}.mlp.gate_proj", f"{old}.mlp.up_proj"], f"{new}.mlp.gate_up", bias=False)
    return Two(source, VLM(), rules, source_file=without_head, missing=["vision.*", "projector.*"], proof=CODE)


@pair("blind, own: WavLM-base for who speaks when: distances at the top, adapters, weighted layers, LSTMs",
      "transformers")  # fmt: skip
def diarization(small: bool) -> Two:
    """Only layer 0 has the table of distances; the position's convolution keeps its weight norm."""
    import torch
    import transformers
    from torch import nn

    width, source = 768, transformers.WavLMModel(transformers.WavLMConfig())
    kernels = (10, 3, 3, 3, 3, 2, 2)

    class GatedAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_scale = nn.Parameter(torch.ones(1, 12, 1, 1))
            self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
            self.gate = nn.Linear(64, 8)

    class Adapter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln, self.down, self.up = nn.LayerNorm(width), nn.Linear(width, 128), nn.Linear(128, width)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.att, self.att_ln = GatedAttention(), nn.LayerNorm(width)
            self.ff_in, self.ff_out, self.ff_ln = nn.Linear(width, 3072), nn.Linear(3072, width), nn.LayerNorm(width)
            self.adapter = Adapter()

    class Diarizer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Parameter(torch.zeros(13))
            self.convs = nn.ModuleList([nn.Conv1d(512 if at else 1, 512, kernel, 2 if at else 5, bias=False)
                                        for at, kernel in enumerate(kernels)])  # fmt: skip
            self.first_gn = nn.GroupNorm(512, 512)
            self.proj_ln, self.proj = nn.LayerNorm(512), nn.Linear(512, width)
            self.pos_conv = nn.utils.parametrizations.weight_norm(
                nn.Conv1d(width, width, 128, padding=64, groups=16), dim=2)  # fmt: skip
            self.distances = nn.Embedding(320, 12)
            self.enc_ln = nn.LayerNorm(width)
            self.layers = nn.ModuleList([Layer() for _ in range(12)])
            self.lstm = nn.LSTM(width, 128, 4, batch_first=True, bidirectional=True)
            self.linear1, self.linear2, self.speakers = nn.Linear(256, 128), nn.Linear(128, 128), nn.Linear(128, 7)

    table: list[Any] = [
        (r"^masked_spec_embed", ""),
        (r"^feature_extractor\.conv_layers\.0\.layer_norm", "first_gn"),
        (r"^feature_extractor\.conv_layers\.(\d)\.conv", r"convs.\1"),
        (r"^feature_projection\.layer_norm", "proj_ln"),
        (r"^feature_projection\.projection", "proj"),
        (r"^encoder\.pos_conv_embed\.conv", "pos_conv"),
        (r"^encoder\.layer_norm", "enc_ln"),
        (r"^encoder\.layers\.0\.attention\.rel_attn_embed", "distances"),
        (r"^encoder\.layers", "layers"),
        (r"\.attention\.gru_rel_pos_const", ".att.gate_scale"),
        (r"\.attention\.gru_rel_pos_linear", ".att.gate"),
        (r"\.attention\.out_proj", ".att.o"),
        (r"\.attention\.([qkv])_proj", r".att.\1"),
        (r"(layers\.\d+)\.layer_norm", r"\1.att_ln"),
        (r"\.final_layer_norm", ".ff_ln"),
        (r"\.feed_forward\.intermediate_dense", ".ff_in"),
        (r"\.feed_forward\.output_dense", ".ff_out"),
    ]
    gone = ["mix", "*.adapter.*", "lstm.*", "linear?.*", "speakers.*"]
    return to(source, Diarizer(), table, missing=gone, truth=CODE)


@pair("blind, own: open_clip's ViT-B-32 for films: pictures' q, k, v apart, projections are Linears, layers of time",
      "open_clip")  # fmt: skip
def films(small: bool) -> Two:
    """The layers of time are torch's, of the text's width; the text keeps its in_proj."""
    import open_clip
    import torch
    from torch import nn

    config = open_clip.get_model_config("ViT-B-32")
    source = open_clip.model.CLIP(**{key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")})

    class Attention(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.q_lin, self.k_lin, self.v_lin, self.o_lin = (nn.Linear(width, width) for _ in range(4))

    class FrameBlock(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.ln_a, self.attn = nn.LayerNorm(width), Attention(width)
            self.ln_b, self.fc, self.pr = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    class CaptionBlock(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.ln_a, self.attn = nn.LayerNorm(width), nn.MultiheadAttention(width, 8)
            self.ln_b, self.fc, self.pr = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    class FrameEncoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cls_token = nn.Parameter(torch.zeros(1, 1, 768))
            self.pos = nn.Embedding(50, 768)
            self.patch = nn.Conv2d(3, 768, 32, 32, bias=False)
            self.ln_in = nn.LayerNorm(768)
            self.blocks = nn.ModuleList([FrameBlock(768) for _ in range(12)])
            self.ln_out, self.to_joint = nn.LayerNorm(768), nn.Linear(768, 512, bias=False)

    class CaptionEncoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tok, self.pos = nn.Embedding(49408, 512), nn.Embedding(77, 512)
            self.blocks = nn.ModuleList([CaptionBlock(512) for _ in range(12)])
            self.ln_out, self.to_joint = nn.LayerNorm(512), nn.Linear(512, 512, bias=False)

    class FilmClip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.temperature = nn.Parameter(torch.tensor(2.66))
            self.caption, self.frame = CaptionEncoder(), FrameEncoder()
            self.frame_order = nn.Embedding(32, 512)
            self.time = nn.TransformerEncoder(nn.TransformerEncoderLayer(512, 8, norm_first=True), 4,
                                              enable_nested_tensor=False)  # fmt: skip

    table: list[Any] = [
        (r"^visual.*in_proj_(weight|bias)$", "@"),
        (r"^logit_scale", "temperature"),
        (r"^visual\.class_embedding", "frame.cls_token"),
        (r"^visual\.positional_embedding", "frame.pos.weight"),
        (r"^visual\.proj$", "frame.to_joint.weight"),
        (r"^visual\.conv1", "frame.patch"),
        (r"^visual\.ln_pre", "frame.ln_in"),
        (r"^visual\.ln_post", "frame.ln_out"),
        (r"^visual\.transformer\.resblocks\.(\d+)\.attn\.out_proj", r"frame.blocks.\1.attn.o_lin"),
        (r"^visual\.transformer\.resblocks", "frame.blocks"),
        (r"^positional_embedding", "caption.pos.weight"),
        (r"^text_projection", "caption.to_joint.weight"),
        (r"^token_embedding", "caption.tok"),
        (r"^ln_final", "caption.ln_out"),
        (r"^transformer\.resblocks", "caption.blocks"),
        (r"\.ln_1", ".ln_a"),
        (r"\.ln_2", ".ln_b"),
        (r"\.mlp\.c_fc", ".fc"),
        (r"\.mlp\.c_proj", ".pr"),
    ]
    groups = []
    for at in range(12):
        groups += split(f"visual.transformer.resblocks.{at}.attn", [f"frame.blocks.{at}.attn.{x}_lin" for x in "qkv"],
                        weight=".in_proj_weight", offset=".in_proj_bias")  # fmt: skip
    layouts = [(r"^visual\.proj$|^text_projection", "i o -> o i"), (r"class_embedding", "c -> 1 1 c")]
    return to(source, FilmClip(), table, layouts, groups, missing=["frame_order.weight", "time.*"],
              hidden=["caption.to_joint.weight"], truth=CODE)  # fmt: skip


@pair("blind, own: DenseNet-161 on radiographs: nested lists, one channel, spatial attention behind each transition",
      "torchvision")  # fmt: skip
def radiographs(small: bool) -> Two:
    """Fourteen findings, each with a Linear; the old stem's convolution has three channels."""
    import torch
    from torch import nn
    from torchvision.models import densenet161

    class DenseUnit(nn.Module):
        def __init__(self, into: int) -> None:
            super().__init__()
            self.pre1, self.squeeze = nn.BatchNorm2d(into), nn.Conv2d(into, 192, 1, bias=False)
            self.pre2, self.grow = nn.BatchNorm2d(192), nn.Conv2d(192, 48, 3, padding=1, bias=False)

        def forward(self, x: Any) -> Any:
            y = self.grow(torch.relu(self.pre2(self.squeeze(torch.relu(self.pre1(x))))))
            return torch.cat([x, y], 1)

    class Halve(nn.Module):
        def __init__(self, into: int) -> None:
            super().__init__()
            self.pre, self.mix = nn.BatchNorm2d(into), nn.Conv2d(into, into // 2, 1, bias=False)
            self.where = nn.Sequential(nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1))

        def forward(self, x: Any) -> Any:  # the proof leaves the attention out
            return nn.functional.avg_pool2d(self.mix(torch.relu(self.pre(x))), 2, 2)

    class ChestNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv_in, self.bn_in = nn.Conv2d(1, 96, 7, 2, 3, bias=False), nn.BatchNorm2d(96)
            self.dense, self.halve, width = nn.ModuleList(), nn.ModuleList(), 96
            for at, depth in enumerate((6, 12, 36, 24)):
                self.dense.append(nn.ModuleList([DenseUnit(width + 48 * unit) for unit in range(depth)]))
                width += 48 * depth
                if at < 3:
                    self.halve.append(Halve(width))
                    width //= 2
            self.bn_out = nn.BatchNorm2d(width)
            self.findings = nn.ModuleList([nn.Linear(width, 1) for _ in range(14)])

        def forward(self, x: Any) -> Any:
            for at, block in enumerate(self.dense):
                for unit in block:
                    x = unit(x)
                x = self.halve[at](x) if at < 3 else x
            return self.bn_out(x)

    table: list[Any] = [
        (r"^(classifier|features\.conv0)\..*", ""),
        (r"^features\.norm0", "bn_in"),
        (r"^features\.norm5", "bn_out"),
        (r"^features\.denseblock(\d)\.denselayer(\d+)", lambda m: f"dense.{int(m[1]) - 1}.{int(m[2]) - 1}"),
        (r"^features\.transition(\d)", lambda m: f"halve.{int(m[1]) - 1}"),
        (r"\.norm(\d)", r".pre\1"),
        (r"\.norm\.", ".pre."),
        (r"\.conv1", ".squeeze"),
        (r"\.conv2", ".grow"),
        (r"\.conv\.", ".mix."),
    ]
    return to(densenet161(weights=None), ChestNet(), table,
              missing=["conv_in.weight", "*.where.*", "findings.*"],
              ask=lambda m: m.features[4:](noise(2, 96, 16, 16)), ask_target=lambda m: m(noise(2, 96, 16, 16)),
              truth="equal outputs behind the stem, attention left out")  # fmt: skip


@pair("blind, own: Flan-T5-small with adapters for radiology reports: distances at the top, k and v fused in the "
      "cross attention, pictures in front", "transformers")  # fmt: skip
def reports(small: bool) -> Two:
    """The file has the shared table once, and a head of its own."""
    import transformers
    from torch import nn

    width, inner, depth = 512, 1024, 8
    source = transformers.T5ForConditionalGeneration(transformers.T5Config(
        d_model=width, d_kv=64, d_ff=inner, num_layers=depth, num_heads=6, feed_forward_proj="gated-gelu",
        tie_word_embeddings=False))  # fmt: skip

    class SelfAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.RMSNorm(width, 1e-6)
            self.q, self.k, self.v = (nn.Linear(width, 384, bias=False) for _ in range(3))
            self.o = nn.Linear(384, width, bias=False)

    class CrossAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.RMSNorm(width, 1e-6)
            self.q, self.kv = nn.Linear(width, 384, bias=False), nn.Linear(width, 768, bias=False)
            self.o = nn.Linear(384, width, bias=False)

    class GatedMlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.RMSNorm(width, 1e-6)
            self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
            self.down = nn.Linear(inner, width, bias=False)

    def adapter() -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, width))

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.mlp, self.adapter = SelfAttention(), GatedMlp(), adapter()

    class Writer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.cross, self.mlp, self.adapter = SelfAttention(), CrossAttention(), GatedMlp(), adapter()

    class ReportT5(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.picture = nn.Conv2d(1024, width, 1)
            self.words = nn.Embedding(32128, width)
            self.reader_distance, self.writer_distance = nn.Embedding(32, 6), nn.Embedding(32, 6)
            self.reader, self.writer = (nn.ModuleList([kind() for _ in range(depth)]) for kind in (Reader, Writer))
            self.reader_scale, self.writer_scale = nn.RMSNorm(width, 1e-6), nn.RMSNorm(width, 1e-6)
            self.vocabulary = nn.Linear(width, 32128, bias=False)

    def once(saved: Any) -> Any:
        return {key: tensor for key, tensor in saved.items() if "embed_tokens" not in key}

    rules = ["shared.weight -> words.weight", "lm_head.weight -> vocabulary.weight"]
    for old, new, mlp in (("encoder", "reader", 1), ("decoder", "writer", 2)):
        first = f"{old}.block.0.layer.0.SelfAttention"
        rules += [f"{old}.final_layer_norm.weight -> {new}_scale.weight",
                  f"{first}.relative_attention_bias.weight -> {new}_distance.weight"]  # fmt: skip
        for at in range(depth):
            here, there = f"{old}.block.{at}.layer", f"{new}.{at}"
            rules += [f"{here}.0.SelfAttention.{x}.weight -> {there}.own.{x}.weight" for x in "qkvo"]
            rules.append(f"{here}.0.layer_norm.weight -> {there}.own.scale.weight")
            if mlp == 2:
                cross = f"{here}.1.EncDecAttention"
                rules += [f"{cross}.{x}.weight -> {there}.cross.{x}.weight" for x in "qo"]
                rules.append(f"{here}.1.layer_norm.weight -> {there}.cross.scale.weight")
                rules += join([f"{cross}.{x}" for x in "kv"], f"{there}.cross.kv", bias=False)
            for part, name in (("wi_0", "gate"), ("wi_1", "up"), ("wo", "down")):
                rules.append(f"{here}.{mlp}.DenseReluDense.{part}.weight -> {there}.mlp.{name}.weight")
            rules.append(f"{here}.{mlp}.layer_norm.weight -> {there}.mlp.scale.weight")
    return Two(source, ReportT5(), rules, source_file=once, missing=["picture.*", "*.adapter.*"], proof=CODE)


@pair("blind, own: ResNet-18 for faces of 32 pixels: residual_function and shortcut, a stem of 3x3, an angular margin",
      "torchvision")  # fmt: skip
def faces(small: bool) -> Two:
    """The shortcuts are Sequentials that may be empty; the first convolution is new, its norm stays."""
    import torch
    from torch import nn
    from torchvision.models import resnet18

    class BasicBlock(nn.Module):
        def __init__(self, into: int, out: int, stride: int) -> None:
            super().__init__()
            self.residual_function = nn.Sequential(
                nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
                nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out))  # fmt: skip
            self.shortcut = conv_bn(into, out, 1, stride) if into != out else nn.Sequential()

        def forward(self, x: Any) -> Any:
            return torch.relu(self.residual_function(x) + self.shortcut(x))

    class AngularMargin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(10575, 512))

    class FaceNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Sequential(*conv_bn(3, 64, 3), nn.ReLU())
            self.conv2_x = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
            self.conv3_x = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
            self.conv4_x = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
            self.conv5_x = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))
            self.embedding = nn.Sequential(nn.Dropout(0.4), nn.Flatten(), nn.Linear(512 * 16, 512),
                                           nn.BatchNorm1d(512))  # fmt: skip
            self.margin = AngularMargin()

    table: list[Any] = [
        (r"^(conv1|fc)\..*", ""),
        (r"^bn1", "conv1.1"),
        (r"^layer(\d)", lambda m: f"conv{int(m[1]) + 1}_x"),
        (r"\.(conv|bn)(\d)\.", lambda m: f".residual_function.{3 * int(m[2]) - (3 if m[1] == 'conv' else 2)}."),
        (r"\.downsample", ".shortcut"),
    ]
    return to(resnet18(weights=None), FaceNet(), table, missing=["conv1.0.weight", "embedding.*", "margin.*"],
              ask=lambda m: m.layer4(m.layer3(m.layer2(m.layer1(noise(2, 64, 32, 32))))),
              ask_target=lambda m: m.conv5_x(m.conv4_x(m.conv3_x(m.conv2_x(noise(2, 64, 32, 32))))),
              truth="equal outputs behind the stem")  # fmt: skip


@pair("blind, own: torchvision's RetinaNet for turned ships: fifteen classes, a tower for angles, levels by number",
      "torchvision")  # fmt: skip
def ships(small: bool) -> Two:
    """The file's norms are frozen and do not count; the angle's tower has the other towers' shapes."""
    from torch import nn
    from torchvision.models import resnet50
    from torchvision.models.detection import retinanet_resnet50_fpn

    source = retinanet_resnet50_fpn(weights=None, weights_backbone=None)

    def tower() -> nn.Sequential:
        layers: list[Any] = []
        for _ in range(4):
            layers += [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()]
        return nn.Sequential(*layers)

    class Trunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = resnet50(weights=None)
            self.stem = nn.Sequential(whole.conv1, whole.bn1, whole.relu, whole.maxpool)
            self.stage1, self.stage2, self.stage3, self.stage4 = whole.layer1, whole.layer2, whole.layer3, whole.layer4

    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lateral3, self.lateral4, self.lateral5 = (nn.Conv2d(size, 256, 1) for size in (512, 1024, 2048))
            self.out3, self.out4, self.out5 = (nn.Conv2d(256, 256, 3, padding=1) for _ in range(3))
            self.out6, self.out7 = (nn.Conv2d(256, 256, 3, 2, 1) for _ in range(2))

    class ShipDetector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.pyramid = Trunk(), Pyramid()
            self.cls_tower, self.box_tower, self.angle_tower = tower(), tower(), tower()
            self.cls = nn.Conv2d(256, 9 * 15, 3, padding=1)
            self.box, self.angle = nn.Conv2d(256, 9 * 4, 3, padding=1), nn.Conv2d(256, 9, 3, padding=1)

    def frozen(saved: Any) -> Any:
        return {key: tensor for key, tensor in saved.items() if "num_batches" not in key}

    table: list[Any] = [
        (r"^head\.classification_head\.cls_logits.*", ""),
        (r".*num_batches_tracked", "@"),
        (r"^backbone\.body\.conv1", "trunk.stem.0"),
        (r"^backbone\.body\.bn1", "trunk.stem.1"),
        (r"^backbone\.body\.layer", "trunk.stage"),
        (r"^backbone\.fpn\.inner_blocks\.(\d)\.0", lambda m: f"pyramid.lateral{int(m[1]) + 3}"),
        (r"^backbone\.fpn\.layer_blocks\.(\d)\.0", lambda m: f"pyramid.out{int(m[1]) + 3}"),
        (r"^backbone\.fpn\.extra_blocks\.p", "pyramid.out"),
        (r"^head\.classification_head\.conv\.(\d)\.0", lambda m: f"cls_tower.{2 * int(m[1])}"),
        (r"^head\.regression_head\.conv\.(\d)\.0", lambda m: f"box_tower.{2 * int(m[1])}"),
        (r"^head\.regression_head\.bbox_reg", "box"),
    ]
    return to(source, ShipDetector(), table, source_file=frozen, truth=CODE,
              missing=["trunk.*num_batches_tracked", "angle_tower.*", "cls.*", "angle.*"])  # fmt: skip


@pair("blind, own: pytorch-3dunet for mitochondria: SingleConvs became n1, c1, n2, c2, gates on the skips, two heads")
def mitochondria(small: bool) -> Two:
    """A norm stands in front of each convolution, so it is as wide as what comes in."""
    import torch
    from torch import nn

    def layers(module: Any, into: int, mid: int, out: int, names: tuple[tuple[str, str], tuple[str, str]]) -> None:
        for (norm, conv), a, b in zip(names, (into, mid), (mid, out), strict=True):
            setattr(module, norm, nn.GroupNorm(8 if a >= 8 else 1, a))
            setattr(module, conv, nn.Conv3d(a, b, 3, padding=1, bias=False))

    class SingleConv(nn.Module):
        def __init__(self, into: int, out: int) -> None:
            super().__init__()
            self.groupnorm = nn.GroupNorm(8 if into >= 8 else 1, into)
            self.conv = nn.Conv3d(into, out, 3, padding=1, bias=False)

        def forward(self, x: Any) -> Any:
            return torch.relu(self.conv(self.groupnorm(x)))

    class DoubleConv(nn.Module):
        def __init__(self, into: int, mid: int, out: int) -> None:
            super().__init__()
            self.SingleConv1, self.SingleConv2 = SingleConv(into, mid), SingleConv(mid, out)

        def forward(self, x: Any) -> Any:
            return self.SingleConv2(self.SingleConv1(x))

    class Coder(nn.Module):
        def __init__(self, into: int, mid: int, out: int) -> None:
            super().__init__()
            self.basic_module = DoubleConv(into, mid, out)

        def forward(self, x: Any) -> Any:
            return self.basic_module(x)

    class UNet3D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoders = nn.ModuleList([Coder(1, 32, 64), Coder(64, 64, 128), Coder(128, 128, 256),
                                           Coder(256, 256, 512)])  # fmt: skip
            self.decoders = nn.ModuleList([Coder(768, 256, 256), Coder(384, 128, 128), Coder(192, 64, 64)])
            self.final_conv = nn.Conv3d(64, 2, 1)

        def forward(self, x: Any) -> Any:
            return walk(self.encoders, self.decoders, x)

    class Double(nn.Module):
        def __init__(self, into: int, mid: int, out: int) -> None:
            super().__init__()
            layers(self, into, mid, out, (("n1", "c1"), ("n2", "c2")))

        def forward(self, x: Any) -> Any:
            return torch.relu(self.c2(self.n2(torch.relu(self.c1(self.n1(x))))))

    class SkipGate(nn.Module):
        def __init__(self, deep: int, skip: int) -> None:
            super().__init__()
            self.from_deep, self.from_skip = nn.Conv3d(deep, skip // 2, 1), nn.Conv3d(skip, skip // 2, 1)
            self.weigh = nn.Conv3d(skip // 2, 1, 1)

    class MitoNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.contract = nn.ModuleList([Double(1, 32, 64), Double(64, 64, 128), Double(128, 128, 256),
                                           Double(256, 256, 512)])  # fmt: skip
            self.gates = nn.ModuleList([SkipGate(512, 256), SkipGate(256, 128), SkipGate(128, 64)])
            self.expand = nn.ModuleList([Double(768, 256, 256), Double(384, 128, 128), Double(192, 64, 64)])
            self.inside, self.border = nn.Conv3d(64, 1, 1), nn.Conv3d(64, 3, 1)

        def forward(self, x: Any) -> Any:  # the proof leaves the gates out
            return walk(self.contract, self.expand, x)

    def walk(down: Any, up: Any, x: Any) -> Any:
        skips = []
        for at, step in enumerate(down):
            x = step(nn.functional.max_pool3d(x, 2) if at else x)
            skips.insert(0, x)
        for step, skip in zip(up, skips[1:], strict=True):
            x = step(torch.cat([skip, nn.functional.interpolate(x, skip.shape[2:])], 1))
        return x

    table: list[Any] = [
        (r"^final_conv.*", ""),
        (r"^encoders", "contract"),
        (r"^decoders", "expand"),
        (r"\.basic_module\.SingleConv(\d)\.groupnorm", r".n\1"),
        (r"\.basic_module\.SingleConv(\d)\.conv", r".c\1"),
    ]
    return to(UNet3D(), MitoNet(), table, missing=["gates.*", "inside.*", "border.*"],
              ask=lambda m: m(noise(2, 1, 16, 16, 16)),
              truth="wolny/pytorch-3dunet's UNet3D, layer order gcr; equal outputs, gates left out")  # fmt: skip


@pair("blind, unrelated: ResNet-18 and a residual net of heartbeats in twelve leads, 64 to 512 wide, all Conv1d",
      "torchvision")  # fmt: skip
def heartbeats(small: bool) -> Two:
    """As deep and as wide, but along one axis, with kernels of 16."""
    from torch import nn
    from torchvision.models import resnet18

    class Residual(nn.Module):
        def __init__(self, into: int, out: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv1d(into, out, 16, stride, 8, bias=False), nn.BatchNorm1d(out)
            self.conv2, self.bn2 = nn.Conv1d(out, out, 16, padding="same", bias=False), nn.BatchNorm1d(out)
            self.skip = nn.Conv1d(into, out, 1) if into != out else nn.Identity()

    class HeartNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv1d(12, 64, 16, padding="same", bias=False), nn.BatchNorm1d(64), nn.ReLU())
            widths = (64, 64, 128, 128, 256, 256, 512, 512, 512)
            self.layers = nn.Sequential(*(Residual(a, b, 1 + (a != b))
                                          for a, b in itertools.pairwise(widths)))  # fmt: skip
            self.rhythm = nn.Linear(512, 9)

    return none(resnet18(weights=None), HeartNet(), "pictures and signals: no kernel has the other's axes")


@pair("blind, unrelated: DeiT-Ti and a transformer of a table's columns, 192 wide", "timm")
def columns(small: bool) -> Two:
    """Every column is a token; the perceptron's gate makes it another; three blocks."""
    import timm
    import torch
    from torch import nn

    width = 192

    class Block(nn.Module):
        def __init__(self, first: bool) -> None:
            super().__init__()
            self.attention = nn.ModuleDict({name: nn.Linear(width, width) for name in ("W_q", "W_k", "W_v", "W_out")})
            self.linear0, self.linear1 = nn.Linear(width, 512), nn.Linear(256, width)
            self.norm1 = nn.LayerNorm(width)
            if not first:
                self.norm0 = nn.LayerNorm(width)

    class Tokenizer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(9, width))
            self.bias = nn.Parameter(torch.zeros(61, width))
            self.category_embeddings = nn.Embedding(120, width)

    class FTTransformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokenizer = Tokenizer()
            self.layers = nn.ModuleList([Block(at == 0) for at in range(3)])
            self.last_normalization = nn.LayerNorm(width)
            self.head = nn.Linear(width, 1)

    source = timm.create_model("deit_tiny_patch16_224")
    return none(source, FTTransformer(), "patches and columns: other tokens and blocks")


@pair("blind, unrelated: T5-small and an Autoformer of power consumption, 512 wide with 2048 inside", "transformers")
def power(small: bool) -> Two:
    """Both encode and decode; one attends by words, the other by lags, and takes a series apart."""
    import transformers
    from torch import nn

    width = 512

    class AutoCorrelationLayer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query_projection, self.key_projection = nn.Linear(width, width), nn.Linear(width, width)
            self.value_projection, self.out_projection = nn.Linear(width, width), nn.Linear(width, width)

    class EncoderLayer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = AutoCorrelationLayer()
            self.conv1, self.conv2 = nn.Conv1d(width, 2048, 1, bias=False), nn.Conv1d(2048, width, 1, bias=False)

    class DecoderLayer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.self_attention, self.cross_attention = AutoCorrelationLayer(), AutoCorrelationLayer()
            self.conv1, self.conv2 = nn.Conv1d(width, 2048, 1, bias=False), nn.Conv1d(2048, width, 1, bias=False)
            self.projection = nn.Conv1d(width, 321, 3, padding=1, padding_mode="circular", bias=False)

    class DataEmbedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = nn.Conv1d(321, width, 3, padding=1, padding_mode="circular", bias=False)
            self.calendar = nn.Linear(4, width, bias=False)

    class Autoformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc_embedding, self.dec_embedding = DataEmbedding(), DataEmbedding()
            self.encoder = nn.ModuleList([EncoderLayer() for _ in range(2)])
            self.encoder_norm = nn.LayerNorm(width)
            self.decoder = nn.ModuleList([DecoderLayer()])
            self.decoder_norm = nn.LayerNorm(width)
            self.projection = nn.Linear(width, 321)

    source = transformers.T5ForConditionalGeneration(transformers.T5Config())
    return none(source, Autoformer(), "a language model and a forecaster of other blocks")
