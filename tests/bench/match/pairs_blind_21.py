"""Blind pairs: public checkpoints in nets of a thesis, each nearly the same as the model it begins from."""

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


@pair("blind, own: Wide ResNet-50-2 finds scratches: three of four stages teach, a student upside down, a bottleneck",
      "torchvision")  # fmt: skip
def scratches(small: bool) -> Two:
    """The student's blocks have the teacher's names, its widths run backwards."""
    import torch
    from torch import nn
    from torchvision.models import wide_resnet50_2

    class Bottle(nn.Module):
        def __init__(self, into: int, mid: int, out: int, step: int, is_up: bool = False) -> None:
            super().__init__()
            self.reduce, self.reduce_bn = nn.Conv2d(into, mid, 1, bias=False), nn.BatchNorm2d(mid)
            if is_up:
                self.conv: nn.Module = nn.ConvTranspose2d(mid, mid, 2, 2, bias=False)
            else:
                self.conv = nn.Conv2d(mid, mid, 3, step, 1, bias=False)
            self.conv_bn = nn.BatchNorm2d(mid)
            self.expand, self.expand_bn = nn.Conv2d(mid, out, 1, bias=False), nn.BatchNorm2d(out)
            if is_up:
                up = nn.ConvTranspose2d(into, out, 2, 2, bias=False)
                self.skip: nn.Module = nn.Sequential(up, nn.BatchNorm2d(out))
            elif into != out:
                self.skip = conv_bn(into, out, 1, step)
            else:
                self.skip = nn.Identity()

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.reduce_bn(self.reduce(x)))
            y = torch.relu(self.conv_bn(self.conv(y)))
            return torch.relu(self.expand_bn(self.expand(y)) + self.skip(x))

    def stage(into: int, mid: int, out: int, depth: int, step: int, is_up: bool = False) -> nn.Sequential:
        rest = [Bottle(out, mid, out, 1) for _ in range(depth - 1)]
        return nn.Sequential(Bottle(into, mid, out, step, is_up), *rest)

    class Teacher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.stem_bn = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
            self.stages = nn.ModuleList([stage(64, 128, 256, 3, 1), stage(256, 256, 512, 4, 2),
                                         stage(512, 512, 1024, 6, 2)])  # fmt: skip

        def forward(self, x: Any) -> Any:
            x = nn.functional.max_pool2d(torch.relu(self.stem_bn(self.stem(x))), 3, 2, 1)
            for one in self.stages:
                x = one(x)
            return x

    class ScratchNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.teacher = Teacher()
            self.squeeze = nn.ModuleList([conv_bn(256, 1024, 3, 4), conv_bn(512, 1024, 3, 2), conv_bn(3072, 1024)])
            self.embed = stage(1024, 512, 2048, 3, 2)
            self.student = nn.ModuleList([stage(2048, 512, 1024, 3, 2, True), stage(1024, 256, 512, 4, 2, True),
                                          stage(512, 128, 256, 6, 2, True)])  # fmt: skip

    names = {"conv1": "reduce", "bn1": "reduce_bn", "conv2": "conv", "bn2": "conv_bn", "conv3": "expand",
             "bn3": "expand_bn"}  # fmt: skip
    table: list[Any] = [
        (r"^(layer4|fc)\..*", ""),
        (r"^conv1", "teacher.stem"),
        (r"^bn1", "teacher.stem_bn"),
        (r"\.((?:conv|bn)\d)\.", lambda m: f".{names[m[1]]}."),
        (r"^layer(\d)", lambda m: f"teacher.stages.{int(m[1]) - 1}"),
        (r"\.downsample", ".skip"),
    ]
    return to(wide_resnet50_2(weights=None), ScratchNet(), table, missing=["squeeze.*", "embed.*", "student.*"],
              ask=lambda m: m.layer3(m.layer2(m.layer1(m.maxpool(m.relu(m.bn1(m.conv1(noise(2, 3, 64, 64)))))))),
              ask_target=lambda m: m.teacher(noise(2, 3, 64, 64)),
              truth="equal outputs of the teacher")  # fmt: skip


@pair("blind, own: EfficientNet-B4 against forged faces: one file for pixels and for frequencies, seven stages by name",
      "torchvision")  # fmt: skip
def forgeries(small: bool) -> Two:
    """The frequencies have twelve channels, so their first convolution is new; each stage's outputs are exchanged."""
    from torch import nn
    from torchvision.models import efficientnet_b4

    class Squeeze(nn.Module):
        def __init__(self, size: int, less: int) -> None:
            super().__init__()
            self.down, self.up = nn.Conv2d(size, less, 1), nn.Conv2d(less, size, 1)

    class MBConv(nn.Module):
        def __init__(self, old: Any) -> None:
            super().__init__()
            gate, first = old.block[-2], old.block[0][0]
            mid, last = gate.fc1.in_channels, old.block[-1][0]
            depthwise = old.block[-3][0]
            if len(old.block) == 4:
                self.conv_e, self.bn_e = nn.Conv2d(first.in_channels, mid, 1, bias=False), nn.BatchNorm2d(mid)
            self.conv_d = nn.Conv2d(mid, mid, depthwise.kernel_size, depthwise.stride, depthwise.padding,
                                    groups=mid, bias=False)  # fmt: skip
            self.bn_d = nn.BatchNorm2d(mid)
            self.squeeze = Squeeze(mid, gate.fc1.out_channels)
            self.conv_p = nn.Conv2d(mid, last.out_channels, 1, bias=False)
            self.bn_p = nn.BatchNorm2d(last.out_channels)

    source = efficientnet_b4(weights=None)

    class Stream(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv_first, self.bn_first = nn.Conv2d(channels, 48, 3, 2, 1, bias=False), nn.BatchNorm2d(48)
            for at in range(1, 8):
                setattr(self, f"stage{at}", nn.Sequential(*(MBConv(old) for old in source.features[at])))
            self.conv_last, self.bn_last = nn.Conv2d(448, 1792, 1, bias=False), nn.BatchNorm2d(1792)

    class Exchange(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Conv2d(size, size // 8, 1) for _ in range(3))
            self.back = nn.Conv2d(size // 8, size, 1)

    class ForgeryNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rgb, self.dct = Stream(3), Stream(12)
            self.exchange = nn.ModuleList([Exchange(size) for size in (56, 160, 448)])
            self.verdict = nn.Sequential(nn.Dropout(0.4), nn.Linear(2 * 1792, 256), nn.ReLU(), nn.Linear(256, 2))

    def place(key: str) -> str:
        key = re.sub(r"^features\.([08])\.([01])", lambda m: f"{'conv' if m[2] == '0' else 'bn'}_"
                     + ("first" if m[1] == "0" else "last"), key)  # fmt: skip
        found = re.match(r"features\.(\d)\.(\d+)\.block\.(\d)\.(\w+)\.(.*)", key)
        if not found:
            return key
        parts = ("d", "", "p") if found[1] == "1" else ("e", "d", "", "p")
        part = parts[int(found[3])]
        kinds = {"0": "conv", "1": "bn", "fc1": "squeeze.down", "fc2": "squeeze.up"}
        last = kinds[found[4]] + (f"_{part}" if part else "")
        return f"stage{found[1]}.{found[2]}.{last}.{found[5]}"

    rules = []
    for key in state(source):
        if key.startswith("classifier"):
            rules.append(f"{key} -> !")
        elif key == "features.0.0.weight":
            rules.append(f"{key} -> rgb.conv_first.weight")
        else:
            rules.append(f"{key} -> rgb.{place(key)}, dct.{place(key)}")
    return Two(source, ForgeryNet(), rules, missing=["dct.conv_first.weight", "exchange.*", "verdict.*"], proof=CODE)


@pair("blind, own: MobileNetV2 cuts portraits out: five encoders by stride, a trimap for a fourth channel, a way up",
      "torchvision")  # fmt: skip
def portraits(small: bool) -> Two:
    """One list of eighteen became five Sequentials; each block's Sequential became ex, dw, pw."""
    from torch import nn
    from torchvision.models import mobilenet_v2

    class Inverted(nn.Module):
        def __init__(self, into: int, out: int, ratio: int, stride: int) -> None:
            super().__init__()
            mid = into * ratio
            if ratio > 1:
                self.ex = conv_bn(into, mid)
            self.dw, self.pw = conv_bn(mid, mid, 3, stride, mid), conv_bn(mid, out)
            self.is_same, self.is_wide = stride == 1 and into == out, ratio > 1

        def forward(self, x: Any) -> Any:
            y = nn.functional.relu6(self.ex(x)) if self.is_wide else x
            y = self.pw(nn.functional.relu6(self.dw(y)))
            return x + y if self.is_same else y

    rows = [(32, 16, 1, 1), (16, 24, 6, 2), (24, 24, 6, 1), (24, 32, 6, 2), (32, 32, 6, 1), (32, 32, 6, 1),
            (32, 64, 6, 2), *[(64, 64, 6, 1)] * 3, (64, 96, 6, 1), *[(96, 96, 6, 1)] * 2,
            (96, 160, 6, 2), *[(160, 160, 6, 1)] * 2, (160, 320, 6, 1)]  # fmt: skip
    cuts = (0, 1, 3, 6, 13, 17)

    class Up(nn.Module):
        def __init__(self, deep: int, skip: int, out: int) -> None:
            super().__init__()
            self.fuse, self.refine = conv_bn(deep + skip, out, 3), conv_bn(out, out, 3)

    class MattingNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head_conv = nn.Sequential(*conv_bn(4, 32, 3, 2), nn.ReLU6())
            for at, (first, last) in enumerate(itertools.pairwise(cuts), 1):
                setattr(self, f"enc{at}", nn.Sequential(*(Inverted(*row) for row in rows[first:last])))
            self.dec4, self.dec3 = Up(320, 96, 96), Up(96, 32, 32)
            self.dec2, self.dec1 = Up(32, 24, 24), Up(24, 16, 16)
            self.alpha = nn.Sequential(nn.Conv2d(16, 1, 3, padding=1), nn.Sigmoid())

        def forward(self, x: Any) -> Any:
            return self.enc5(self.enc4(self.enc3(self.enc2(self.enc1(x)))))

    def place(found: re.Match[str]) -> str:
        row, part = int(found[1]) - 1, found[2]
        at = next(at for at in range(5) if row < cuts[at + 1])
        if row == 0:
            name = {"0.0": "dw.0", "0.1": "dw.1", "1": "pw.0", "2": "pw.1"}[part]
        else:
            name = {"0.0": "ex.0", "0.1": "ex.1", "1.0": "dw.0", "1.1": "dw.1", "2": "pw.0", "3": "pw.1"}[part]
        return f"enc{at + 1}.{row - cuts[at]}.{name}."

    table: list[Any] = [
        (r"^(classifier|features\.18|features\.0\.0)\..*", ""),
        (r"^features\.0\.1", "head_conv.1"),
        (r"^features\.(\d+)\.conv\.(\d(?:\.\d)?)\.", place),
    ]
    return to(mobilenet_v2(weights=None), MattingNet(), table, missing=["head_conv.0.weight", "dec?.*", "alpha.*"],
              ask=lambda m: m.features[1:18](noise(2, 32, 32, 32)), ask_target=lambda m: m(noise(2, 32, 32, 32)),
              truth="equal outputs behind the stem")  # fmt: skip


@pair("blind, own: timm's CaiT-XXS24 for moths: talking heads by name, q, k, v apart, three ranks of names", "timm")
def moths(small: bool) -> Two:
    """Blocks of patches first, then two of the class token; a Linear for order, family and species each."""
    import timm
    import torch
    from torch import nn

    width, source = 192, timm.create_model("cait_xxs24_224")

    class Talking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wq, self.wk, self.wv, self.wo = (nn.Linear(width, width) for _ in range(4))
            self.talk_before, self.talk_after = nn.Linear(4, 4), nn.Linear(4, 4)

    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wq, self.wk, self.wv, self.wo = (nn.Linear(width, width) for _ in range(4))

    class Block(nn.Module):
        def __init__(self, kind: Any) -> None:
            super().__init__()
            self.pre_att, self.att = nn.LayerNorm(width, 1e-6), kind()
            self.scale_att = nn.Parameter(torch.ones(width))
            self.pre_ff = nn.LayerNorm(width, 1e-6)
            self.ff = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            self.scale_ff = nn.Parameter(torch.ones(width))

    class MothNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, width, 16, 16)
            self.places = nn.Parameter(torch.zeros(1, 196, width))
            self.query = nn.Parameter(torch.zeros(1, 1, width))
            self.patch_blocks = nn.ModuleList([Block(Talking) for _ in range(24)])
            self.class_blocks = nn.ModuleList([Block(Asking) for _ in range(2)])
            self.ln = nn.LayerNorm(width, 1e-6)
            self.ranks = nn.ModuleDict({"order": nn.Linear(width, 12), "family": nn.Linear(width, 97),
                                        "species": nn.Linear(width, 3104)})  # fmt: skip

    table: list[Any] = [
        (r"^head\..*", ""),
        (r".*\.qkv\..*", "@"),
        (r"^cls_token", "query"),
        (r"^pos_embed", "places"),
        (r"^patch_embed\.proj", "patches"),
        (r"^norm\.", "ln."),
        (r"^blocks\.", "patch_blocks."),
        (r"^blocks_token_only", "class_blocks"),
        (r"\.gamma_1", ".scale_att"),
        (r"\.gamma_2", ".scale_ff"),
        (r"\.norm1", ".pre_att"),
        (r"\.norm2", ".pre_ff"),
        (r"\.attn\.([qkv])\.", r".att.w\1."),
        (r"\.attn\.proj\.", ".att.wo."),
        (r"\.attn\.proj_l", ".att.talk_before"),
        (r"\.attn\.proj_w", ".att.talk_after"),
        (r"\.mlp\.fc1", ".ff.0"),
        (r"\.mlp\.fc2", ".ff.2"),
    ]
    groups = []
    for at in range(24):
        groups += split(f"blocks.{at}.attn.qkv", [f"patch_blocks.{at}.att.w{x}" for x in "qkv"])
    return to(source, MothNet(), table, groups=groups, missing=["ranks.*"], truth=CODE)


@pair("blind, own: torchvision's Swin V2-T for floods: radar beside light, four stages, ways down behind them, an FPN",
      "torchvision")  # fmt: skip
def floods(small: bool) -> Two:
    """Coordinates and indices are computed when needed; five channels in front."""
    import torch
    from torch import nn
    from torchvision.models import swin_v2_t

    widths, depths = (96, 192, 384, 768), (2, 2, 6, 2)

    class CosineAttention(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.tau = nn.Parameter(torch.ones(heads, 1, 1))
            self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.place = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))

    class WindowBlock(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.attn, self.attn_ln = CosineAttention(width, width // 32), nn.LayerNorm(width)
            self.fc_in, self.fc_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.fc_ln = nn.LayerNorm(width)

    class Shrink(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.linear, self.ln = nn.Linear(4 * width, 2 * width, bias=False), nn.LayerNorm(2 * width)

    class Stage(nn.Module):
        def __init__(self, width: int, depth: int, is_last: bool) -> None:
            super().__init__()
            self.windows = nn.Sequential(*(WindowBlock(width) for _ in range(depth)))
            self.shrink = nn.Identity() if is_last else Shrink(width)

    class FloodNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.patch_ln = nn.Conv2d(5, 96, 4, 4), nn.LayerNorm(96)
            self.stage = nn.ModuleList([Stage(w, d, w == 768) for w, d in zip(widths, depths, strict=True)])
            self.side = nn.ModuleList([nn.Conv2d(w, 128, 1) for w in widths])
            self.smooth = nn.ModuleList([nn.Conv2d(128, 128, 3, padding=1) for _ in widths])
            self.water = nn.Conv2d(128, 2, 1)

    table: list[Any] = [
        (r"^(head|norm)\..*|^features\.0\.0\.weight|.*relative_(position_index|coords_table)$", ""),
        (r"^features\.0\.0", "patch"),
        (r"^features\.0\.2", "patch_ln"),
        (r"^features\.([246])\.norm", lambda m: f"stage.{int(m[1]) // 2 - 1}.shrink.ln"),
        (r"^features\.([246])\.reduction", lambda m: f"stage.{int(m[1]) // 2 - 1}.shrink.linear"),
        (r"^features\.([1357])\.(\d)", lambda m: f"stage.{int(m[1]) // 2}.windows.{m[2]}"),
        (r"\.norm1", ".attn_ln"),
        (r"\.norm2", ".fc_ln"),
        (r"\.attn\.logit_scale", ".attn.tau"),
        (r"\.attn\.qkv", ".attn.to_qkv"),
        (r"\.attn\.proj", ".attn.to_out"),
        (r"\.attn\.cpb_mlp", ".attn.place"),
        (r"\.mlp\.0", ".fc_in"),
        (r"\.mlp\.3", ".fc_out"),
    ]
    return to(swin_v2_t(weights=None), FloodNet(), table, truth=CODE,
              missing=["patch.weight", "side.*", "smooth.*", "water.*"])  # fmt: skip


@pair("blind, own: timm's ConvNeXt-S knows cows again: one Sequential of blocks and ways down, a bottleneck of norm",
      "timm")  # fmt: skip
def cows(small: bool) -> Two:
    """Stages are no more; 36 blocks and three ways down count through; a vector for each camera."""
    import timm
    import torch
    from torch import nn

    dims, depths = (96, 192, 384, 768), (3, 3, 27, 3)

    class ChannelNorm(nn.LayerNorm):
        def __init__(self, size: int) -> None:
            super().__init__(size, 1e-6)

        def forward(self, x: Any) -> Any:
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class NextBlock(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.dw = nn.Conv2d(size, size, 7, padding=3, groups=size)
            self.ln = nn.LayerNorm(size, 1e-6)
            self.pw1, self.pw2 = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)
            self.layer_scale = nn.Parameter(torch.ones(size))

        def forward(self, x: Any) -> Any:
            y = self.ln(self.dw(x).permute(0, 2, 3, 1))
            y = self.layer_scale * self.pw2(nn.functional.gelu(self.pw1(y)))
            return x + y.permute(0, 3, 1, 2)

    class CowNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[Any] = [nn.Sequential(nn.Conv2d(3, 96, 4, 4), ChannelNorm(96))]
            for at, (size, depth) in enumerate(zip(dims, depths, strict=True)):
                if at:
                    layers.append(nn.Sequential(ChannelNorm(dims[at - 1]), nn.Conv2d(dims[at - 1], size, 2, 2)))
                layers += [NextBlock(size) for _ in range(depth)]
            self.body = nn.Sequential(*layers)
            self.camera = nn.Embedding(6, 768)
            self.gem_p = nn.Parameter(torch.ones(1) * 3)
            self.bnneck = nn.BatchNorm1d(768)
            self.identity = nn.Linear(768, 430, bias=False)

    firsts = (1, 5, 9, 37)
    table: list[Any] = [
        (r"^head\..*", ""),
        (r"^stem", "body.0"),
        (r"^stages\.(\d)\.downsample", lambda m: f"body.{firsts[int(m[1])] - 1}"),
        (r"^stages\.(\d)\.blocks\.(\d+)", lambda m: f"body.{firsts[int(m[1])] + int(m[2])}"),
        (r"\.gamma", ".layer_scale"),
        (r"\.conv_dw", ".dw"),
        (r"\.norm\.", ".ln."),
        (r"\.mlp\.fc(\d)", r".pw\1"),
    ]
    return to(timm.create_model("convnext_small"), CowNet(), table,
              missing=["camera.weight", "gem_p", "bnneck.*", "identity.*"],
              ask=lambda m: m.stages(m.stem(noise(2, 3, 64, 64))), ask_target=lambda m: m.body(noise(2, 3, 64, 64)),
              truth="equal outputs of the trunk")  # fmt: skip


@pair("blind, own: ELECTRA-small for clauses of contracts: qkv joined, letters beside words, transitions of a CRF",
      "transformers")  # fmt: skip
def clauses(small: bool) -> Two:
    """Words are 128 wide in front of a projection to 256."""
    import torch
    import transformers
    from torch import nn

    width, source = 256, transformers.ElectraModel(transformers.ElectraConfig())

    class SelfAttn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv_proj, self.o_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.self_attn, self.norm_a = SelfAttn(), nn.LayerNorm(width, 1e-12)
            self.ffn1, self.ffn2 = nn.Linear(width, 1024), nn.Linear(1024, width)
            self.norm_b = nn.LayerNorm(width, 1e-12)

    class Letters(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(97, 32)
            self.convs = nn.ModuleList([nn.Conv1d(32, 64, kernel) for kernel in (2, 3, 4)])

    class CRF(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.end = nn.Parameter(torch.zeros(25)), nn.Parameter(torch.zeros(25))
            self.transitions = nn.Parameter(torch.zeros(25, 25))

    class ClauseTagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.word_emb, self.pos_emb, self.type_emb = (nn.Embedding(n, 128) for n in (30522, 512, 2))
            self.emb_norm, self.emb_proj = nn.LayerNorm(128, 1e-12), nn.Linear(128, width)
            self.letters = Letters()
            self.layers = nn.ModuleList([Layer() for _ in range(12)])
            self.emission = nn.Linear(width + 192, 25)
            self.crf = CRF()

    table: list[Any] = [
        (r".*attention\.self.*", "@"),
        (r"^embeddings\.word_embeddings", "word_emb"),
        (r"^embeddings\.position_embeddings", "pos_emb"),
        (r"^embeddings\.token_type_embeddings", "type_emb"),
        (r"^embeddings\.LayerNorm", "emb_norm"),
        (r"^embeddings_project", "emb_proj"),
        (r"^encoder\.layer", "layers"),
        (r"\.attention\.output\.dense", ".self_attn.o_proj"),
        (r"\.attention\.output\.LayerNorm", ".norm_a"),
        (r"\.intermediate\.dense", ".ffn1"),
        (r"\.output\.dense", ".ffn2"),
        (r"\.output\.LayerNorm", ".norm_b"),
    ]
    groups = []
    for at in range(12):
        groups += join([f"encoder.layer.{at}.attention.self.{x}" for x in ("query", "key", "value")],
                       f"layers.{at}.self_attn.qkv_proj")  # fmt: skip
    return to(source, ClauseTagger(), table, groups=groups, truth=CODE,
              missing=["letters.*", "emission.*", "crf.*"])  # fmt: skip


@pair("blind, own: DistilGPT2 plays chess: q, k, v apart, Linears, RMSNorms, moves for words, a value's head",
      "transformers")  # fmt: skip
def chess(small: bool) -> Two:
    """The norms lose their biases; both tables are new."""
    import transformers
    from torch import nn

    width = 768
    source = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=6))

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wq, self.wk, self.wv, self.wo = (nn.Linear(width, width) for _ in range(4))

    class MLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rms1, self.attn = nn.RMSNorm(width), Attention()
            self.rms2, self.mlp = nn.RMSNorm(width), MLP()

    class ChessGPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.move_emb, self.ply_emb = nn.Embedding(1972, width), nn.Embedding(300, width)
            self.blocks = nn.ModuleList([Block() for _ in range(6)])
            self.rms_f = nn.RMSNorm(width)
            self.policy = nn.Linear(width, 1972, bias=False)
            self.value = nn.Sequential(nn.Linear(width, 256), nn.GELU(), nn.Linear(256, 3))

    table: list[Any] = [
        (r"^lm_head.*|^transformer\.w[tp]e.*|.*\.ln_\w+\.bias", ""),
        (r".*\.c_attn\..*", "@"),
        (r"^transformer\.h\.", "blocks."),
        (r"^transformer\.ln_f", "rms_f"),
        (r"\.ln_(\d)", r".rms\1"),
        (r"\.attn\.c_proj", ".attn.wo"),
        (r"\.mlp\.c_fc", ".mlp.up"),
        (r"\.mlp\.c_proj", ".mlp.down"),
    ]
    groups = []
    for at in range(6):
        names = [f"blocks.{at}.attn.w{x}" for x in "qkv"]
        old = f"transformer.h.{at}.attn.c_attn"
        groups += [f"{old}.weight -> {', '.join(n + '.weight' for n in names)} | i (q + k + v) -> q i, k i, v i",
                   f"{old}.bias -> {', '.join(n + '.bias' for n in names)} | (q + k + v) -> q, k, v"]  # fmt: skip
    return to(source, ChessGPT(), table, [(r"c_(proj|fc)\.weight", "i o -> o i")], groups,
              missing=["move_emb.*", "ply_emb.*", "policy.*", "value.*"], undecided=["*rms*"],
              hidden=["*.attn.w?.weight"],
              truth=CODE + "; the norms are another kind, their weights a beginning at best")  # fmt: skip


@pair("blind, own: Pythia-160M reads proteins: letters for words, attention and perceptron by name, contacts",
      "transformers")  # fmt: skip
def proteins(small: bool) -> Two:
    """The heads' q, k and v stay in turns in one matrix; both tables are new."""
    import transformers
    from torch import nn

    width = 768
    source = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(
        vocab_size=50304, hidden_size=width, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=3072))  # fmt: skip

    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn_ln, self.attn_in, self.attn_out = (nn.LayerNorm(width), nn.Linear(width, 3 * width),
                                                         nn.Linear(width, width))  # fmt: skip
            self.mlp_ln, self.mlp_in, self.mlp_out = (nn.LayerNorm(width), nn.Linear(width, 3072),
                                                      nn.Linear(3072, width))  # fmt: skip

    class Trunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.residues = nn.Embedding(33, width)
            self.parallel = nn.ModuleList([Parallel() for _ in range(12)])
            self.out_ln = nn.LayerNorm(width)

    class ProteinLM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = Trunk()
            self.contacts = nn.Linear(144, 1)
            self.next = nn.Linear(width, 33, bias=False)

    table: list[Any] = [
        (r"^(gpt_neox\.embed_in|embed_out|lm_head).*", ""),
        (r"^gpt_neox\.layers", "trunk.parallel"),
        (r"^gpt_neox\.final_layer_norm", "trunk.out_ln"),
        (r"\.input_layernorm", ".attn_ln"),
        (r"\.post_attention_layernorm", ".mlp_ln"),
        (r"\.attention\.query_key_value", ".attn_in"),
        (r"\.attention\.dense", ".attn_out"),
        (r"\.mlp\.dense_h_to_4h", ".mlp_in"),
        (r"\.mlp\.dense_4h_to_h", ".mlp_out"),
    ]
    return to(source, ProteinLM(), table, truth=CODE,
              missing=["trunk.residues.*", "contacts.*", "next.*"])  # fmt: skip


@pair("blind, own: AST hears birds: qkv fused, five seconds, ten of twelve layers, adapters behind the perceptrons",
      "transformers")  # fmt: skip
def birds(small: bool) -> Two:
    """Shorter sounds have fewer places, so the table of places is new; the token of distillation is kept."""
    import torch
    import transformers
    from torch import nn

    width, depth = 768, 10
    source = transformers.ASTModel(transformers.ASTConfig())

    class Adapter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shrink, self.grow = nn.Linear(width, 64), nn.Linear(64, width)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1 = nn.LayerNorm(width, 1e-12)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.norm2 = nn.LayerNorm(width, 1e-12)
            self.hidden, self.output = nn.Linear(width, 3072), nn.Linear(3072, width)
            self.adapter = Adapter()

    class BirdNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cls, self.dist = (nn.Parameter(torch.zeros(1, 1, width)) for _ in range(2))
            self.pos = nn.Parameter(torch.zeros(1, 590, width))
            self.spec_patch = nn.Conv2d(1, width, 16, 10)
            self.blocks = nn.ModuleList([Block() for _ in range(depth)])
            self.norm = nn.LayerNorm(width, 1e-12)
            self.species = nn.Linear(width, 264)

    table: list[Any] = [
        (r"^embeddings\.position_embeddings|^layers\.1[01]\..*", ""),
        (r".*attention\.[qkv]_proj.*", "@"),
        (r"^embeddings\.cls_token", "cls"),
        (r"^embeddings\.distillation_token", "dist"),
        (r"^embeddings\.patch_embeddings\.projection", "spec_patch"),
        (r"^layernorm", "norm"),
        (r"^layers", "blocks"),
        (r"\.attention\.o_proj", ".proj"),
        (r"\.layernorm_before", ".norm1"),
        (r"\.layernorm_after", ".norm2"),
        (r"\.mlp\.fc1", ".hidden"),
        (r"\.mlp\.fc2", ".output"),
    ]
    groups = []
    for at in range(depth):
        groups += join([f"layers.{at}.attention.{x}_proj" for x in "qkv"], f"blocks.{at}.qkv")
    return to(source, BirdNet(), table, groups=groups, missing=["pos", "*.adapter.*", "species.*"], truth=CODE)


@pair("blind, own: SigLIP-B for recipes: dish and recipe, a pool with q, k, v apart, a step's number, triplets",
      "transformers")  # fmt: skip
def recipes(small: bool) -> Two:
    """Both towers are 768 wide; the picture's pool is a block with a probe."""
    import torch
    import transformers
    from torch import nn

    width, source = 768, transformers.SiglipModel(transformers.SiglipConfig())

    class Attn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.to_q, self.to_k, self.to_v, self.to_o = (nn.Linear(width, width) for _ in range(4))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.n1, self.mha, self.n2 = nn.LayerNorm(width, 1e-6), Attn(), nn.LayerNorm(width, 1e-6)
            self.l1, self.l2 = nn.Linear(width, 3072), nn.Linear(3072, width)

    class Pool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seed = nn.Parameter(torch.zeros(1, 1, width))
            self.mha, self.n = Attn(), nn.LayerNorm(width, 1e-6)
            self.l1, self.l2 = nn.Linear(width, 3072), nn.Linear(3072, width)

    class DishTower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.pos = nn.Conv2d(3, width, 16, 16), nn.Embedding(196, width)
            self.blocks, self.n_out = nn.ModuleList([Block() for _ in range(12)]), nn.LayerNorm(width, 1e-6)
            self.pool = Pool()

    class RecipeTower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tok, self.pos, self.step = (nn.Embedding(n, width) for n in (32000, 64, 20))
            self.blocks, self.n_out = nn.ModuleList([Block() for _ in range(12)]), nn.LayerNorm(width, 1e-6)
            self.last = nn.Linear(width, width)

    class DishSearch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dish, self.recipe = DishTower(), RecipeTower()
            self.dish_proj, self.recipe_proj = nn.Linear(width, 256), nn.Linear(width, 256)

    table: list[Any] = [
        (r"^logit_.*", ""),
        (r".*in_proj_(weight|bias)$", "@"),
        (r"^text_model\.head", "recipe.last"),
        (r"^text_model\.embeddings\.token_embedding", "recipe.tok"),
        (r"^text_model\.embeddings\.position_embedding", "recipe.pos"),
        (r"^text_model\.final_layer_norm", "recipe.n_out"),
        (r"^text_model\.encoder\.layers", "recipe.blocks"),
        (r"^vision_model\.embeddings\.patch_embedding", "dish.patch"),
        (r"^vision_model\.embeddings\.position_embedding", "dish.pos"),
        (r"^vision_model\.post_layernorm", "dish.n_out"),
        (r"^vision_model\.encoder\.layers", "dish.blocks"),
        (r"^vision_model\.head\.probe", "dish.pool.seed"),
        (r"^vision_model\.head\.attention\.out_proj", "dish.pool.mha.to_o"),
        (r"^vision_model\.head\.layernorm", "dish.pool.n"),
        (r"^vision_model\.head", "dish.pool"),
        (r"\.self_attn\.([qkv])_proj", r".mha.to_\1"),
        (r"\.self_attn\.out_proj", ".mha.to_o"),
        (r"\.layer_norm(\d)", r".n\1"),
        (r"\.mlp\.fc(\d)", r".l\1"),
    ]
    groups = split("vision_model.head.attention", [f"dish.pool.mha.to_{x}" for x in "qkv"],
                   weight=".in_proj_weight", offset=".in_proj_bias")  # fmt: skip
    return to(source, DishSearch(), table, groups=groups, truth=CODE,
              missing=["recipe.step.*", "dish_proj.*", "recipe_proj.*"])  # fmt: skip


@pair("blind, own: VGG-11 finds buildings: eight convolutions as a, b of five levels, a way up with transposed ones",
      "torchvision")  # fmt: skip
def buildings(small: bool) -> Two:
    """A fourth channel of near infrared; the last two levels have one size."""
    import torch
    from torch import nn
    from torchvision.models import vgg11

    class Down(nn.Module):
        def __init__(self, into: int, out: int, is_double: bool) -> None:
            super().__init__()
            self.a = nn.Conv2d(into, out, 3, padding=1)
            if is_double:
                self.b = nn.Conv2d(out, out, 3, padding=1)
            self.is_double = is_double

        def forward(self, x: Any) -> Any:
            x = torch.relu(self.a(x))
            return torch.relu(self.b(x)) if self.is_double else x

    class Up(nn.Module):
        def __init__(self, into: int, mid: int, out: int) -> None:
            super().__init__()
            self.conv, self.up = nn.Conv2d(into, mid, 3, padding=1), nn.ConvTranspose2d(mid, out, 4, 2, 1)

    class BuildingNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down1, self.down2, self.down3 = Down(4, 64, False), Down(64, 128, False), Down(128, 256, True)
            self.down4, self.down5 = Down(256, 512, True), Down(512, 512, True)
            self.centre = Up(512, 512, 256)
            self.up5, self.up4, self.up3 = Up(768, 512, 256), Up(768, 512, 128), Up(384, 256, 64)
            self.up2, self.up1 = Up(192, 128, 32), nn.Conv2d(96, 32, 3, padding=1)
            self.roof, self.edge = nn.Conv2d(32, 1, 1), nn.Conv2d(32, 1, 1)

        def forward(self, x: Any) -> Any:
            for level in (self.down2, self.down3, self.down4, self.down5):
                x = level(nn.functional.max_pool2d(x, 2))
            return x

    places = {3: "2.a", 6: "3.a", 8: "3.b", 11: "4.a", 13: "4.b", 16: "5.a", 18: "5.b"}
    table: list[Any] = [
        (r"^classifier.*|^features\.0\.weight", ""),
        (r"^features\.0\.", "down1.a."),
        (r"^features\.(\d+)", lambda m: f"down{places[int(m[1])]}"),
    ]
    return to(vgg11(weights=None), BuildingNet(), table,
              missing=["down1.a.weight", "centre.*", "up?.*", "roof.*", "edge.*"],
              ask=lambda m: m.features[2:20](noise(2, 64, 32, 32)), ask_target=lambda m: m(noise(2, 64, 32, 32)),
              truth="equal outputs behind the first convolution")  # fmt: skip


@pair("blind, own: torchvision's RegNetY-800MF for two dates of one place: a trunk for both, gates of Linears",
      "torchvision")  # fmt: skip
def dates(small: bool) -> Two:
    """Blocks lose the repeated stage in their names; shortcuts come last."""
    import torch
    from torch import nn
    from torchvision.models import regnet_y_800mf

    with torch.device("cpu"):  # its widths are computed by tensors
        source = regnet_y_800mf(weights=None)

    class Gate(nn.Module):
        def __init__(self, size: int, less: int) -> None:
            super().__init__()
            self.lin1, self.lin2 = nn.Linear(size, less), nn.Linear(less, size)

    class Unit(nn.Module):
        def __init__(self, old: Any) -> None:
            super().__init__()
            first, middle = old.f.a[0], old.f.b[0]
            into, out, step = first.in_channels, first.out_channels, middle.stride[0]
            self.conv1, self.norm1 = nn.Conv2d(into, out, 1, bias=False), nn.BatchNorm2d(out)
            self.conv2 = nn.Conv2d(out, out, 3, step, 1, groups=middle.groups, bias=False)
            self.norm2 = nn.BatchNorm2d(out)
            self.gate = Gate(out, old.f.se.fc1.out_channels)
            self.conv3, self.norm3 = nn.Conv2d(out, out, 1, bias=False), nn.BatchNorm2d(out)
            if old.proj is not None:
                self.short, self.short_norm = nn.Conv2d(into, out, 1, step, bias=False), nn.BatchNorm2d(out)

    class Trunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem_conv, self.stem_norm = nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
            self.stages = nn.ModuleList([nn.ModuleList([Unit(old) for old in stage]) for stage in source.trunk_output])

    class Difference(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.mix, self.mix_norm = nn.Conv2d(2 * size, 64, 1, bias=False), nn.BatchNorm2d(64)

    class ChangeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = Trunk()
            self.differences = nn.ModuleList([Difference(size) for size in (64, 144, 320, 784)])
            self.change = nn.Sequential(nn.Conv2d(256, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 2, 1))

    table: list[Any] = [
        (r"^fc\..*", ""),
        (r"^stem\.0", "trunk.stem_conv"),
        (r"^stem\.1", "trunk.stem_norm"),
        (r"^trunk_output\.block(\d)\.block\d-(\d+)", lambda m: f"trunk.stages.{int(m[1]) - 1}.{m[2]}"),
        (r"\.f\.([abc])\.([01])", lambda m: f".{('conv', 'norm')[int(m[2])]}{'abc'.index(m[1]) + 1}"),
        (r"\.f\.se\.fc(\d)", r".gate.lin\1"),
        (r"\.proj\.0", ".short"),
        (r"\.proj\.1", ".short_norm"),
    ]
    return to(source, ChangeNet(), table, [(r"\.se\.fc\d\.weight", "o i 1 1 -> o i")], truth=CODE,
              missing=["differences.*", "change.*"])  # fmt: skip


@pair("blind, own: BART-base as torch's nn.Transformer corrects grammar: k, v, q joined, a gate", "transformers")
def grammar(small: bool) -> Two:
    """Norms by number, the last norms of both halves are switched off; the file lists k and v first."""
    import torch
    import transformers
    from torch import nn

    width, vocab = 768, 50265
    source = transformers.BartModel(transformers.BartConfig(
        d_model=width, encoder_layers=6, decoder_layers=6, encoder_attention_heads=12, decoder_attention_heads=12,
        encoder_ffn_dim=3072, decoder_ffn_dim=3072, vocab_size=vocab))  # fmt: skip

    class Corrector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(vocab, width)
            self.src_pos, self.tgt_pos = nn.Embedding(1026, width), nn.Embedding(1026, width)
            self.src_norm, self.tgt_norm = nn.LayerNorm(width), nn.LayerNorm(width)
            self.transformer = nn.Transformer(width, 12, 6, 6, 3072, activation="gelu", batch_first=True)
            self.transformer.encoder.norm = self.transformer.decoder.norm = None
            self.copy_gate = nn.Linear(2 * width, 1)
            self.error_type = nn.Linear(width, 25)

        def forward(self, words: Any) -> Any:
            places = torch.arange(words.shape[1]) + 2
            old = self.src_norm(self.tokens(words) + self.src_pos(places))
            new = self.tgt_norm(self.tokens(words) + self.tgt_pos(places))
            mask = nn.Transformer.generate_square_subsequent_mask(words.shape[1])
            return self.transformer(old, new, tgt_mask=mask, tgt_is_causal=True)

    def words() -> Any:
        return torch.arange(4, 24).reshape(2, 10)

    def once(saved: Any) -> Any:
        return {key: tensor for key, tensor in saved.items() if "embed_tokens" not in key}

    rules = ["shared.weight -> tokens.weight"]
    for half, short in (("encoder", "src"), ("decoder", "tgt")):
        rules.append(f"{half}.embed_positions.weight -> {short}_pos.weight")
        parts = [("self_attn", "self_attn"), *([("encoder_attn", "multihead_attn")] if short == "tgt" else [])]
        norms = ["self_attn_layer_norm", *(["encoder_attn_layer_norm"] if short == "tgt" else []), "final_layer_norm"]
        plain = [(f"{half}.layernorm_embedding", f"{short}_norm")]
        for at in range(6):
            old, new = f"{half}.layers.{at}", f"transformer.{half}.layers.{at}"
            plain += [(f"{old}.{a}.out_proj", f"{new}.{b}.out_proj") for a, b in parts]
            plain += [(f"{old}.fc{n}", f"{new}.linear{n}") for n in (1, 2)]
            plain += [(f"{old}.{norm}", f"{new}.norm{n}") for n, norm in enumerate(norms, 1)]
            for a, b in parts:
                for tail, left, right in (("weight", "q i, k i, v i", "(q + k + v) i"),
                                          ("bias", "q, k, v", "(q + k + v)")):  # fmt: skip
                    names = ", ".join(f"{old}.{a}.{x}_proj.{tail}" for x in "qkv")
                    rules.append(f"{names} -> {new}.{b}.in_proj_{tail} | {left} -> {right}")
        rules += [f"{a}.{tail} -> {b}.{tail}" for a, b in plain for tail in ("weight", "bias")]
    return Two(source, Corrector(), rules, source_file=once, missing=["copy_gate.*", "error_type.*"],
               ask=lambda m: m(input_ids=words(), decoder_input_ids=words()).last_hidden_state,
               ask_target=lambda m: m(words()), proof="equal outputs of both halves")  # fmt: skip


@pair("blind, own: GoogLeNet for galaxies: nine modules in one list, branches by kernel, five bands, no helpers",
      "torchvision")  # fmt: skip
def galaxies(small: bool) -> Two:
    """Torchvision's 5x5 is a 3x3; the auxiliary heads stay behind."""
    import torch
    from torch import nn
    from torchvision.models import googlenet

    class Unit(nn.Module):
        def __init__(self, into: int, out: int, kernel: int = 1, stride: int = 1) -> None:
            super().__init__()
            self.c = nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False)
            self.n = nn.BatchNorm2d(out, 1e-3)

        def forward(self, x: Any) -> Any:
            return torch.relu(self.n(self.c(x)))

    class Mixed(nn.Module):
        def __init__(self, into: int, one: int, less3: int, three: int, less5: int, five: int, pool: int) -> None:
            super().__init__()
            self.b1 = Unit(into, one)
            self.b3_reduce, self.b3 = Unit(into, less3), Unit(less3, three, 3)
            self.b5_reduce, self.b5 = Unit(into, less5), Unit(less5, five, 3)
            self.pool_proj = Unit(into, pool)

        def forward(self, x: Any) -> Any:
            pooled = self.pool_proj(nn.functional.max_pool2d(x, 3, 1, 1, ceil_mode=True))
            return torch.cat([self.b1(x), self.b3(self.b3_reduce(x)), self.b5(self.b5_reduce(x)), pooled], 1)

    rows = [(192, 64, 96, 128, 16, 32, 32), (256, 128, 128, 192, 32, 96, 64), (480, 192, 96, 208, 16, 48, 64),
            (512, 160, 112, 224, 24, 64, 64), (512, 128, 128, 256, 24, 64, 64), (512, 112, 144, 288, 32, 64, 64),
            (528, 256, 160, 320, 32, 128, 128), (832, 256, 160, 320, 32, 128, 128),
            (832, 384, 192, 384, 48, 128, 128)]  # fmt: skip

    class GalaxyNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.ModuleList([Unit(5, 64, 7, 2), Unit(64, 64), Unit(64, 192, 3)])
            self.mixed = nn.ModuleList([Mixed(*row) for row in rows])
            self.shape = nn.Sequential(nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, 37))
            self.redshift = nn.Linear(1024, 1)

        def forward(self, x: Any) -> Any:
            for mixed in self.mixed[:2]:
                x = mixed(x)
            return x

    names = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
    table: list[Any] = [
        (r"^(fc|aux\d)\..*|^conv1\.conv\.weight", ""),
        (r"\.conv\.", ".c."),
        (r"\.bn\.", ".n."),
        (r"^conv(\d)", lambda m: f"stem.{int(m[1]) - 1}"),
        (r"^inception(\d\w)", lambda m: f"mixed.{names.index(m[1])}"),
        (r"\.branch1", ".b1"),
        (r"\.branch([23])\.0", lambda m: f".b{2 * int(m[1]) - 1}_reduce"),
        (r"\.branch([23])\.1", lambda m: f".b{2 * int(m[1]) - 1}"),
        (r"\.branch4\.1", ".pool_proj"),
    ]
    return to(googlenet(weights=None, aux_logits=True, init_weights=False), GalaxyNet(), table,
              missing=["stem.0.c.weight", "shape.*", "redshift.*"],
              ask=lambda m: m.inception3b(m.inception3a(noise(2, 192, 16, 16))),
              ask_target=lambda m: m(noise(2, 192, 16, 16)),
              truth="equal outputs of two modules; the others are alike")  # fmt: skip


@pair("blind, own: torchvision's DeepLabV3-ResNet-101 for lungs: one channel, rates by name, low features in a decoder",
      "torchvision")  # fmt: skip
def lungs(small: bool) -> Two:
    """A V3 became a V3+: the last 3x3 convolution sees more channels; the auxiliary head stays behind."""
    from torch import nn
    from torchvision.models import resnet101
    from torchvision.models.segmentation import deeplabv3_resnet101

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = resnet101(weights=None, replace_stride_with_dilation=[False, True, True])
            self.conv0, self.bn0 = nn.Conv2d(1, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
            self.res2, self.res3, self.res4, self.res5 = whole.layer1, whole.layer2, whole.layer3, whole.layer4

    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = conv_bn(2048, 256)
            for rate in (12, 24, 36):
                conv = nn.Conv2d(2048, 256, 3, padding=rate, dilation=rate, bias=False)
                setattr(self, f"rate{rate}", nn.Sequential(conv, nn.BatchNorm2d(256)))
            self.whole, self.merge = conv_bn(2048, 256), conv_bn(1280, 256)

    class LungNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.pyramid = Encoder(), Pyramid()
            self.low, self.decode = conv_bn(256, 48), conv_bn(304, 256, 3)
            self.lobes = nn.Conv2d(256, 6, 1)

    names = ("one", "rate12", "rate24", "rate36", "whole")
    table: list[Any] = [
        (r"^aux_classifier.*|^classifier\.[124]\..*|^backbone\.conv1.*", ""),
        (r"^backbone\.bn1", "encoder.bn0"),
        (r"^backbone\.layer(\d)", lambda m: f"encoder.res{int(m[1]) + 1}"),
        (r"^classifier\.0\.convs\.4\.(\d)", lambda m: f"pyramid.whole.{int(m[1]) - 1}"),
        (r"^classifier\.0\.convs\.(\d)", lambda m: f"pyramid.{names[int(m[1])]}"),
        (r"^classifier\.0\.project", "pyramid.merge"),
    ]
    source = deeplabv3_resnet101(weights=None, weights_backbone=None, aux_loss=True)
    return to(source, LungNet(), table, missing=["encoder.conv0.weight", "low.*", "decode.*", "lobes.*"], truth=CODE)


@pair("blind, own: ResNet-50 in many hospitals: group norms for batch norms, gn1 to gn3, two views of a breast",
      "torchvision")  # fmt: skip
def hospitals(small: bool) -> Two:
    """One trunk for both views; a projection for each; the norms have no statistics."""
    from torch import nn
    from torchvision.models import resnet50

    class GNBottleneck(nn.Module):
        def __init__(self, into: int, mid: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.gn1 = nn.Conv2d(into, mid, 1, bias=False), nn.GroupNorm(32, mid)
            self.conv2, self.gn2 = nn.Conv2d(mid, mid, 3, stride, 1, bias=False), nn.GroupNorm(32, mid)
            self.conv3, self.gn3 = nn.Conv2d(mid, 4 * mid, 1, bias=False), nn.GroupNorm(32, 4 * mid)
            if stride > 1 or into != 4 * mid:
                self.proj, self.proj_gn = nn.Conv2d(into, 4 * mid, 1, stride, bias=False), nn.GroupNorm(32, 4 * mid)

    class Trunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.stem_gn = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.GroupNorm(32, 64)
            self.groups, into = nn.ModuleList(), 64
            for mid, depth in ((64, 3), (128, 4), (256, 6), (512, 3)):
                stride = 1 if mid == 64 else 2
                rest = [GNBottleneck(4 * mid, mid, 1) for _ in range(depth - 1)]
                self.groups.append(nn.Sequential(GNBottleneck(into, mid, stride), *rest))
                into = 4 * mid

    class BreastNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = Trunk()
            self.cc, self.mlo = nn.Linear(2048, 512), nn.Linear(2048, 512)
            self.birads, self.density = nn.Linear(1024, 5), nn.Linear(1024, 4)

    table: list[Any] = [
        (r"^fc\..*|.*(running_mean|running_var|num_batches_tracked)$", ""),
        (r"^conv1", "trunk.stem"),
        (r"^bn1", "trunk.stem_gn"),
        (r"^layer(\d)", lambda m: f"trunk.groups.{int(m[1]) - 1}"),
        (r"\.bn(\d)", r".gn\1"),
        (r"\.downsample\.0", ".proj"),
        (r"\.downsample\.1", ".proj_gn"),
    ]
    return to(resnet50(weights=None), BreastNet(), table, missing=["cc.*", "mlo.*", "birads.*", "density.*"],
              undecided=["*gn*"],
              truth=CODE + "; the norms are another kind, their weights a beginning at best")  # fmt: skip


@pair("blind, own: MNASNet on a drone: numbers of a Sequential became pw, dw, lin, CBAM behind each stage, angles",
      "torchvision")  # fmt: skip
def drone(small: bool) -> Two:
    """Six stages behind a separable stem; the last convolution is not used."""
    from torch import nn
    from torchvision.models import mnasnet1_0

    relu = nn.functional.relu

    class Block(nn.Module):
        def __init__(self, into: int, out: int, kernel: int, stride: int, ratio: int) -> None:
            super().__init__()
            mid = into * ratio
            self.pw, self.pw_bn = nn.Conv2d(into, mid, 1, bias=False), nn.BatchNorm2d(mid)
            self.dw = nn.Conv2d(mid, mid, kernel, stride, kernel // 2, groups=mid, bias=False)
            self.dw_bn = nn.BatchNorm2d(mid)
            self.lin, self.lin_bn = nn.Conv2d(mid, out, 1, bias=False), nn.BatchNorm2d(out)
            self.is_same = into == out and stride == 1

        def forward(self, x: Any) -> Any:
            y = relu(self.dw_bn(self.dw(relu(self.pw_bn(self.pw(x))))))
            y = self.lin_bn(self.lin(y))
            return x + y if self.is_same else y

    class CBAM(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.channel = nn.Sequential(nn.Linear(size, size // 8), nn.ReLU(), nn.Linear(size // 8, size))
            self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    rows = [(16, 24, 3, 2, 3, 3), (24, 40, 5, 2, 3, 3), (40, 80, 5, 2, 6, 3), (80, 96, 3, 1, 6, 2),
            (96, 192, 5, 2, 6, 4), (192, 320, 3, 1, 6, 1)]  # fmt: skip

    class Stage(nn.Module):
        def __init__(self, into: int, out: int, kernel: int, stride: int, ratio: int, depth: int) -> None:
            super().__init__()
            self.blocks = nn.Sequential(Block(into, out, kernel, stride, ratio),
                                        *(Block(out, out, kernel, 1, ratio) for _ in range(depth - 1)))  # fmt: skip
            self.cbam = CBAM(out)

    class DroneNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.first_bn = nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
            self.sep_dw, self.sep_dw_bn = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False), nn.BatchNorm2d(32)
            self.sep_pw, self.sep_pw_bn = nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16)
            for at, row in enumerate(rows, 1):
                setattr(self, f"stage_{at}", Stage(*row))
            self.state = nn.Linear(9, 64)
            self.steer = nn.Sequential(nn.Linear(384, 128), nn.ReLU(), nn.Linear(128, 4))

        def forward(self, x: Any) -> Any:  # the proof leaves the attention out
            x = relu(self.first_bn(self.first(x)))
            x = self.sep_pw_bn(self.sep_pw(relu(self.sep_dw_bn(self.sep_dw(x)))))
            for at in range(1, 7):
                x = getattr(self, f"stage_{at}").blocks(x)
            return x

    stem = {0: "first", 1: "first_bn", 3: "sep_dw", 4: "sep_dw_bn", 6: "sep_pw", 7: "sep_pw_bn"}
    parts = {0: "pw", 1: "pw_bn", 3: "dw", 4: "dw_bn", 6: "lin", 7: "lin_bn"}
    table: list[Any] = [
        (r"^classifier.*|^layers\.1[45]\..*", ""),
        (r"^layers\.(\d+)\.(\d)\.layers\.(\d)",
         lambda m: f"stage_{int(m[1]) - 7}.blocks.{m[2]}.{parts[int(m[3])]}"),
        (r"^layers\.(\d)\.", lambda m: f"{stem[int(m[1])]}."),
    ]  # fmt: skip
    return to(mnasnet1_0(weights=None), DroneNet(), table, missing=["*.cbam.*", "state.*", "steer.*"],
              ask=lambda m: m.layers[:14](noise(2, 3, 64, 64)), ask_target=lambda m: m(noise(2, 3, 64, 64)),
              truth="equal outputs, attention left out")  # fmt: skip


@pair("blind, unrelated: VGG-16 and a U-Net that takes noise from photographs, 64 to 512 wide, 3x3 with biases",
      "torchvision")  # fmt: skip
def grain(small: bool) -> Two:
    """Strided convolutions between the levels, no norms: a few shapes are VGG's, the functions are not."""
    from torch import nn
    from torchvision.models import vgg16

    class ResBlock(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.res = nn.Sequential(nn.Conv2d(size, size, 3, padding=1, bias=False), nn.ReLU(),
                                     nn.Conv2d(size, size, 3, padding=1, bias=False))  # fmt: skip

    sizes = (64, 128, 256, 512)

    class DenoiseUNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.m_head = nn.Conv2d(4, 64, 3, padding=1, bias=False)
            self.m_down = nn.ModuleList([
                nn.Sequential(*(ResBlock(a) for _ in range(4)), nn.Conv2d(a, b, 2, 2, bias=False))
                for a, b in itertools.pairwise(sizes)])  # fmt: skip
            self.m_body = nn.Sequential(*(ResBlock(512) for _ in range(4)))
            self.m_up = nn.ModuleList([
                nn.Sequential(nn.ConvTranspose2d(b, a, 2, 2, bias=False), *(ResBlock(a) for _ in range(4)))
                for a, b in reversed(list(itertools.pairwise(sizes)))])  # fmt: skip
            self.m_tail = nn.Conv2d(64, 3, 3, padding=1, bias=False)

    return none(vgg16(weights=None), DenoiseUNet(), "classes and noise: residual blocks trained for another task")


@pair("blind, unrelated: Whisper-tiny's encoder and a diffusion of gestures, 384 wide with 1536 inside", "transformers")
def gestures(small: bool) -> Two:
    """Both hear speech; one writes it down, the other moves joints under a noise's level."""
    import torch
    import transformers
    from torch import nn

    width = 384

    class Modulated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.modulation = nn.Linear(width, 6 * width)
            self.attention = nn.MultiheadAttention(width, 6)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    class GestureDiffusion(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frame_pos = nn.Parameter(torch.zeros(1, 180, width))
            self.joints_in, self.speech_in = nn.Linear(225, width), nn.Linear(1024, width)
            self.level = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
            self.speaker = nn.Embedding(30, width)
            self.blocks = nn.ModuleList([Modulated() for _ in range(8)])
            self.modulation_out, self.joints_out = nn.Linear(width, 2 * width), nn.Linear(width, 225)

    config = transformers.WhisperConfig(d_model=width, encoder_layers=4, encoder_attention_heads=6,
                                        encoder_ffn_dim=4 * width)  # fmt: skip
    source = transformers.models.whisper.modeling_whisper.WhisperEncoder(config)
    return none(source, GestureDiffusion(), "speech and joints: other tokens and blocks")
