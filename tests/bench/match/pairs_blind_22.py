"""Blind pairs: public checkpoints in researchers' own models that are nearly the same, many with their stems."""

from __future__ import annotations

import itertools
import re
from typing import Any

from tests.bench.match.blind import Net, Two, join, pair, split, to

CODE = "by the code of both sides: the same modules under other names"


def linears(count: int, into: int, out: int, bias: bool = True) -> list[Any]:
    """Linears of one size."""
    from torch import nn

    return [nn.Linear(into, out, bias=bias) for _ in range(count)]


def adapter(width: int, less: int) -> Any:
    """A bottleneck of two Linears."""
    from torch import nn

    return nn.Sequential(nn.Linear(width, less), nn.GELU(), nn.Linear(less, width))


def noise(*shape: int) -> Any:
    """An input for a proof."""
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pair("blind, own: ShuffleNet V2 reads finger spelling on a phone: shortcut and main by name, an ECA in every unit",
      "torchvision")  # fmt: skip
def fingers(small: bool) -> Two:
    """The first unit of a stage is in front of the list of the others."""
    from torch import nn
    from torchvision.models import shufflenet_v2_x1_0

    def conv(into: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
        return nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)

    class Main(nn.Module):
        def __init__(self, into: int, out: int, stride: int) -> None:
            super().__init__()
            self.pw1, self.pw1_bn = conv(into, out), nn.BatchNorm2d(out)
            self.dw, self.dw_bn = conv(out, out, 3, stride, out), nn.BatchNorm2d(out)
            self.pw2, self.pw2_bn = conv(out, out), nn.BatchNorm2d(out)
            self.eca = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    class Shortcut(nn.Module):
        def __init__(self, into: int, out: int) -> None:
            super().__init__()
            self.dw, self.dw_bn = conv(into, into, 3, 2, into), nn.BatchNorm2d(into)
            self.pw, self.pw_bn = conv(into, out), nn.BatchNorm2d(out)

    class Reduce(nn.Module):
        def __init__(self, into: int, half: int) -> None:
            super().__init__()
            self.main, self.short = Main(into, half, 2), Shortcut(into, half)

    class Stage(nn.Module):
        def __init__(self, into: int, out: int, depth: int) -> None:
            super().__init__()
            self.reduce = Reduce(into, out // 2)
            self.units = nn.ModuleList([Main(out // 2, out // 2, 1) for _ in range(depth - 1)])

    class FingerNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.stem_bn = conv(3, 24, 3, 2), nn.BatchNorm2d(24)
            self.s2, self.s3, self.s4 = Stage(24, 116, 4), Stage(116, 232, 8), Stage(232, 464, 4)
            self.last, self.last_bn = conv(464, 1024), nn.BatchNorm2d(1024)
            self.landmarks, self.letter = nn.Linear(63, 128), nn.Linear(1152, 26)

    main = {0: "pw1", 1: "pw1_bn", 3: "dw", 4: "dw_bn", 5: "pw2", 6: "pw2_bn"}
    short = ("dw", "dw_bn", "pw", "pw_bn")
    table: list[Any] = [
        (r"^fc\..*", ""),
        (r"^conv1\.0", "stem"),
        (r"^conv1\.1", "stem_bn"),
        (r"^conv5\.0", "last"),
        (r"^conv5\.1", "last_bn"),
        (r"^stage(\d)\.0\.branch1\.(\d)", lambda m: f"s{m[1]}.reduce.short.{short[int(m[2])]}"),
        (r"^stage(\d)\.0\.branch2\.(\d)", lambda m: f"s{m[1]}.reduce.main.{main[int(m[2])]}"),
        (r"^stage(\d)\.(\d)\.branch2\.(\d)", lambda m: f"s{m[1]}.units.{int(m[2]) - 1}.{main[int(m[3])]}"),
    ]
    return to(shufflenet_v2_x1_0(weights=None), FingerNet(), table, truth=CODE,
              missing=["*.eca.*", "landmarks.*", "letter.*"])  # fmt: skip


@pair("blind, own: SqueezeNet 1.1 counts free parking spaces: fires numbered from 2, s, e1, e3, a norm behind each",
      "torchvision")  # fmt: skip
def parking(small: bool) -> Two:
    """The classifier's convolution is smaller; a norm behind each fire begins as nothing."""
    import torch
    from torch import nn
    from torchvision.models import squeezenet1_1

    class Fire(nn.Module):
        def __init__(self, into: int, less: int, out: int) -> None:
            super().__init__()
            self.s, self.e1 = nn.Conv2d(into, less, 1), nn.Conv2d(less, out, 1)
            self.e3, self.bn = nn.Conv2d(less, out, 3, padding=1), nn.BatchNorm2d(2 * out)

        def forward(self, x: Any) -> Any:  # the proof leaves the norm out
            x = torch.relu(self.s(x))
            return torch.cat([torch.relu(self.e1(x)), torch.relu(self.e3(x))], 1)

    rows = [(64, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128), (256, 48, 192), (384, 48, 192),
            (384, 64, 256), (512, 64, 256)]  # fmt: skip

    class ParkingNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 64, 3, 2)
            for at, row in enumerate(rows, 2):
                setattr(self, f"fire{at}", Fire(*row))
            self.weather = nn.Embedding(5, 16)
            self.conv10, self.free = nn.Conv2d(512, 64, 1), nn.Linear(80, 2)

        def forward(self, x: Any) -> Any:
            x = torch.relu(self.conv1(x))
            for at in range(2, 10):
                if at in (2, 4, 6):
                    x = nn.functional.max_pool2d(x, 3, 2, ceil_mode=True)
                x = getattr(self, f"fire{at}")(x)
            return x

    numbers = (3, 4, 6, 7, 9, 10, 11, 12)
    table: list[Any] = [
        (r"^classifier.*", ""),
        (r"^features\.0\.", "conv1."),
        (r"^features\.(\d+)", lambda m: f"fire{2 + numbers.index(int(m[1]))}"),
        (r"\.squeeze", ".s"),
        (r"\.expand(\d)x\d", r".e\1"),
    ]
    return to(squeezenet1_1(weights=None), ParkingNet(), table,
              missing=["*.bn.*", "weather.*", "conv10.*", "free.*"],
              ask=lambda m: m.features(noise(2, 3, 96, 96)), ask_target=lambda m: m(noise(2, 3, 96, 96)),
              truth="equal features, norms left out")  # fmt: skip


@pair("blind, own: torchvision's SSD300 for traffic signs: conv1_1 to conv11_2, boxes kept, 44 classes, a GRU reads",
      "torchvision")  # fmt: skip
def signs(small: bool) -> Two:
    """The pool's layers are in one Sequential with fc6 and fc7 in the file."""
    import torch
    from torch import nn
    from torchvision.models.detection import ssd300_vgg16

    blocks = [("1_1", 3, 64), ("1_2", 64, 64), ("2_1", 64, 128), ("2_2", 128, 128), ("3_1", 128, 256),
              ("3_2", 256, 256), ("3_3", 256, 256), ("4_1", 256, 512), ("4_2", 512, 512), ("4_3", 512, 512),
              ("5_1", 512, 512), ("5_2", 512, 512), ("5_3", 512, 512)]  # fmt: skip
    extra = [("8", 1024, 256, 512), ("9", 512, 128, 256), ("10", 256, 128, 256), ("11", 256, 128, 256)]
    anchors = [(512, 4), (1024, 6), (512, 6), (256, 6), (256, 4), (256, 4)]

    class L2Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(512))

    class SignSSD(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, into, out in blocks:
                setattr(self, f"conv{name}", nn.Conv2d(into, out, 3, padding=1))
            self.l2norm = L2Norm()
            self.fc6, self.fc7 = nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.Conv2d(1024, 1024, 1)
            for name, into, less, out in extra:
                setattr(self, f"conv{name}_1", nn.Conv2d(into, less, 1))
                setattr(self, f"conv{name}_2", nn.Conv2d(less, out, 3))
            self.conf = nn.ModuleList([nn.Conv2d(size, 44 * count, 3, padding=1) for size, count in anchors])
            self.loc = nn.ModuleList([nn.Conv2d(size, 4 * count, 3, padding=1) for size, count in anchors])
            self.ocr = nn.GRU(512, 128, bidirectional=True)

    features = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21)
    pools = {"1": "conv5_1", "3": "conv5_2", "5": "conv5_3", "7.1": "fc6", "7.3": "fc7"}
    table: list[Any] = [
        (r"^head\.classification.*", ""),
        (r"^head\.regression_head\.module_list", "loc"),
        (r"^backbone\.scale_weight", "l2norm.scale"),
        (r"^backbone\.features\.(\d+)", lambda m: f"conv{blocks[features.index(int(m[1]))][0]}"),
        (r"^backbone\.extra\.0\.(7\.1|7\.3|\d)", lambda m: pools[m[1]]),
        (r"^backbone\.extra\.(\d)\.([02])", lambda m: f"conv{int(m[1]) + 7}_{1 + int(m[2]) // 2}"),
    ]
    return to(ssd300_vgg16(weights=None, weights_backbone=None), SignSSD(), table, missing=["conf.*", "ocr.*"],
              truth=CODE)  # fmt: skip


@pair("blind, own: torchvision's Keypoint R-CNN for hands: trunk, pyramid and proposals by other words, 21 joints",
      "torchvision")  # fmt: skip
def hands(small: bool) -> Two:
    """Two classes as before, so boxes keep their predictor; the joints' heat maps are new."""
    from torch import nn
    from torchvision.models import resnet50
    from torchvision.models.detection import keypointrcnn_resnet50_fpn

    class Trunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = resnet50(weights=None)
            self.stem = nn.Sequential(whole.conv1, whole.bn1)
            self.c2, self.c3, self.c4, self.c5 = whole.layer1, whole.layer2, whole.layer3, whole.layer4

    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for level, size in zip((2, 3, 4, 5), (256, 512, 1024, 2048), strict=True):
                setattr(self, f"lateral{level}", nn.Conv2d(size, 256, 1))
                setattr(self, f"output{level}", nn.Conv2d(256, 256, 3, padding=1))

    class Proposals(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.objectness = nn.Conv2d(256, 256, 3, padding=1), nn.Conv2d(256, 3, 1)
            self.deltas = nn.Conv2d(256, 12, 1)

    class Boxes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(12544, 1024), nn.Linear(1024, 1024)
            self.score, self.delta, self.side = nn.Linear(1024, 2), nn.Linear(1024, 8), nn.Linear(1024, 2)

    class Joints(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList([nn.Conv2d(512 if at else 256, 512, 3, padding=1) for at in range(8)])
            self.heat, self.depth = nn.ConvTranspose2d(512, 21, 4, 2, 1), nn.Linear(512, 21)

    class HandRCNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.pyramid, self.proposals = Trunk(), Pyramid(), Proposals()
            self.boxes, self.joints = Boxes(), Joints()

    table: list[Any] = [
        (r"^roi_heads\.keypoint_predictor.*", ""),
        (r"^backbone\.body\.conv1", "trunk.stem.0"),
        (r"^backbone\.body\.bn1", "trunk.stem.1"),
        (r"^backbone\.body\.layer(\d)", lambda m: f"trunk.c{int(m[1]) + 1}"),
        (r"^backbone\.fpn\.inner_blocks\.(\d)\.0", lambda m: f"pyramid.lateral{int(m[1]) + 2}"),
        (r"^backbone\.fpn\.layer_blocks\.(\d)\.0", lambda m: f"pyramid.output{int(m[1]) + 2}"),
        (r"^rpn\.head\.conv\.0\.0", "proposals.conv"),
        (r"^rpn\.head\.cls_logits", "proposals.objectness"),
        (r"^rpn\.head\.bbox_pred", "proposals.deltas"),
        (r"^roi_heads\.box_head\.fc([67])", lambda m: f"boxes.fc{int(m[1]) - 5}"),
        (r"^roi_heads\.box_predictor\.cls_score", "boxes.score"),
        (r"^roi_heads\.box_predictor\.bbox_pred", "boxes.delta"),
        (r"^roi_heads\.keypoint_head\.(\d+)", lambda m: f"joints.convs.{int(m[1]) // 2}"),
    ]
    return to(keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None), HandRCNN(), table, truth=CODE,
              missing=["boxes.side.*", "joints.heat.*", "joints.depth.*"])  # fmt: skip


@pair("blind, own: Depth Anything-S measures crowns of trees: qkv joined, fusion without what it never used, two heads",
      "transformers")  # fmt: skip
def crowns(small: bool) -> Two:
    """The deepest fusion has nothing to add, so its first residual unit stays behind, as does the mask's token."""
    import torch
    import transformers
    from torch import nn

    width = 384
    config: Any = transformers.Dinov2Config
    source = transformers.DepthAnythingForDepthEstimation(transformers.DepthAnythingConfig(
        backbone_config=config(
            hidden_size=width, num_attention_heads=6, image_size=518, patch_size=14,
            out_features=["stage3", "stage6", "stage9", "stage12"], reshape_hidden_states=False),
        neck_hidden_sizes=[48, 96, 192, 384], fusion_hidden_size=64))  # fmt: skip

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(width))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.n1, self.wqkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
            self.wo, self.s1 = nn.Linear(width, width), Scale()
            self.n2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 1536), nn.Linear(1536, width)
            self.s2 = Scale()

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cls, self.pos = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, 1370, width))
            self.patches = nn.Conv2d(3, width, 14, 14)
            self.blocks = nn.ModuleList([Block() for _ in range(12)])
            self.norm = nn.LayerNorm(width)

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c1, self.c2 = nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)

    class Fuse(nn.Module):
        def __init__(self, has_skip: bool) -> None:
            super().__init__()
            if has_skip:
                self.skip = Residual()
            self.main, self.out = Residual(), nn.Conv2d(64, 64, 1)

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = (48, 96, 192, 384)
            self.project = nn.ModuleList([nn.Conv2d(width, size, 1) for size in sizes])
            self.up4, self.up2 = nn.ConvTranspose2d(48, 48, 4, 4), nn.ConvTranspose2d(96, 96, 2, 2)
            self.down2 = nn.Conv2d(384, 384, 3, 2, 1)
            self.same = nn.ModuleList([nn.Conv2d(size, 64, 3, padding=1, bias=False) for size in sizes])
            self.fuse = nn.ModuleList([Fuse(at > 0) for at in range(4)])

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(64, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
            self.c = nn.Conv2d(32, 1, 1)

    class CrownNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = Encoder(), Decoder()
            self.height, self.species = Head(), nn.Conv2d(64, 14, 1)

    resizes = ("up4", "up2", "", "down2")
    table: list[Any] = [
        (r".*mask_token$|^neck\.fusion_stage\.layers\.0\.residual_layer1.*", ""),
        (r".*attention\.[qkv]_proj\..*", "@"),
        (r"^backbone\.embeddings\.cls_token", "encoder.cls"),
        (r"^backbone\.embeddings\.position_embeddings", "encoder.pos"),
        (r"^backbone\.embeddings\.patch_embeddings\.projection", "encoder.patches"),
        (r"^backbone\.layernorm", "encoder.norm"),
        (r"^backbone\.encoder\.layer", "encoder.blocks"),
        (r"\.attention\.o_proj", ".wo"),
        (r"\.layer_scale(\d)\.lambda1", r".s\1.gamma"),
        (r"(blocks\.\d+)\.norm(\d)", r"\1.n\2"),
        (r"\.mlp\.fc1", ".up"),
        (r"\.mlp\.fc2", ".down"),
        (r"^neck\.reassemble_stage\.layers\.(\d)\.projection", r"decoder.project.\1"),
        (r"^neck\.reassemble_stage\.layers\.(\d)\.resize", lambda m: f"decoder.{resizes[int(m[1])]}"),
        (r"^neck\.convs", "decoder.same"),
        (r"^neck\.fusion_stage\.layers", "decoder.fuse"),
        (r"\.residual_layer(\d)\.convolution(\d)", lambda m: f".{('skip', 'main')[int(m[1]) - 1]}.c{m[2]}"),
        (r"(fuse\.\d)\.projection", r"\1.out"),
        (r"^head\.conv(\d)", lambda m: f"height.{'abc'[int(m[1]) - 1]}"),
    ]
    groups: list[str] = []
    for at in range(12):
        groups += join([f"backbone.encoder.layer.{at}.attention.{x}_proj" for x in "qkv"], f"encoder.blocks.{at}.wqkv")
    return to(source, CrownNet(), table, groups=groups, truth=CODE, missing=["species.*"])


@pair("blind, own: timm's EVA-02-S for leaves' diseases: q, k, v apart, w1, w2, w3, prompts, a token for the crop",
      "timm")  # fmt: skip
def leaves(small: bool) -> Two:
    """k has no bias; gate and value were rows of one Linear."""
    import timm
    import torch
    from torch import nn

    width, depth = 384, 12

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wq, self.wk = nn.Linear(width, width), nn.Linear(width, width, bias=False)
            self.wv, self.wo = linears(2, width, width)

    class GatedMLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w1, self.w2 = linears(2, width, 1024)
            self.w3 = nn.Linear(1024, width)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prompts = nn.Parameter(torch.zeros(8, width))
            self.ln_attn, self.attn = nn.LayerNorm(width), Attention()
            self.ln_mlp, self.mlp = nn.LayerNorm(width), GatedMLP()

    class LeafEVA(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.class_token = nn.Parameter(torch.zeros(1, 1, width))
            self.crop_token = nn.Parameter(torch.zeros(1, 1, width))
            self.positions = nn.Parameter(torch.zeros(1, 257, width))
            self.to_patches = nn.Conv2d(3, width, 14, 14)
            self.layers = nn.ModuleList([Layer() for _ in range(depth)])
            self.pool_norm = nn.LayerNorm(width)
            self.disease, self.severity = nn.Linear(2 * width, 38), nn.Linear(2 * width, 1)

    table: list[Any] = [
        (r"^head\..*", ""),
        (r".*(qkv\.weight|fc1\.weight|fc1\.bias)$", "@"),
        (r"^cls_token", "class_token"),
        (r"^pos_embed", "positions"),
        (r"^patch_embed\.proj", "to_patches"),
        (r"^fc_norm", "pool_norm"),
        (r"^blocks", "layers"),
        (r"\.norm1", ".ln_attn"),
        (r"\.norm2", ".ln_mlp"),
        (r"\.attn\.([qv])_bias", r".attn.w\1.bias"),
        (r"\.attn\.proj", ".attn.wo"),
        (r"\.fc2", ".w3"),
    ]
    groups: list[str] = []
    for at in range(depth):
        groups += split(f"blocks.{at}.attn.qkv", [f"layers.{at}.attn.w{x}" for x in "qkv"], bias=False)
        groups += split(f"blocks.{at}.mlp.fc1", [f"layers.{at}.mlp.w{x}" for x in (1, 2)])
    return to(timm.create_model("eva02_small_patch14_224"), LeafEVA(), table, groups=groups, truth=CODE,
              missing=["crop_token", "*.prompts", "disease.*", "severity.*"])  # fmt: skip


@pair("blind, own: timm's PoolFormer-S12 finds weeds with infrared: Linears, gammas, ways down of their own, a pyramid",
      "timm")  # fmt: skip
def weeds(small: bool) -> Two:
    """A fourth channel for the stem; layers of four stages have one list."""
    import timm
    import torch
    from torch import nn

    widths, depths = (64, 128, 320, 512), (2, 2, 6, 2)

    class PoolLayer(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.gamma_pool, self.gamma_mlp = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))
            self.gn_pool, self.gn_mlp = nn.GroupNorm(1, width), nn.GroupNorm(1, width)
            self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    class WeedNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ways = nn.ModuleList([nn.Conv2d(4, 64, 7, 4, 2)])
            for into, out in itertools.pairwise(widths):
                self.ways.append(nn.Conv2d(into, out, 3, 2, 1))
            self.layers = nn.ModuleList([PoolLayer(width) for width, depth in zip(widths, depths, strict=True)
                                         for _ in range(depth)])  # fmt: skip
            self.lateral = nn.ModuleList([nn.Conv2d(width, 128, 1) for width in widths])
            self.mix, self.weed = nn.Conv2d(512, 128, 3, padding=1), nn.Conv2d(128, 3, 1)

    firsts = (0, 2, 4, 10)
    table: list[Any] = [
        (r"^head\..*|^stem\.conv\.weight", ""),
        (r"^stem\.conv", "ways.0"),
        (r"^stages\.(\d)\.downsample\.conv", r"ways.\1"),
        (r"^stages\.(\d)\.blocks\.(\d)", lambda m: f"layers.{firsts[int(m[1])] + int(m[2])}"),
        (r"\.norm1", ".gn_pool"),
        (r"\.norm2", ".gn_mlp"),
        (r"\.layer_scale1\.scale", ".gamma_pool"),
        (r"\.layer_scale2\.scale", ".gamma_mlp"),
        (r"\.mlp\.fc1", ".expand"),
        (r"\.mlp\.fc2", ".contract"),
    ]
    return to(timm.create_model("poolformer_s12"), WeedNet(), table, [(r"fc\d\.weight", "o i 1 1 -> o i")], truth=CODE,
              missing=["ways.0.weight", "lateral.*", "mix.*", "weed.*"])  # fmt: skip


@pair("blind, own: ALBERT-base grades essays: one layer twelve times, qkv joined, the prompt's kind, six traits",
      "transformers")  # fmt: skip
def essays(small: bool) -> Two:
    """All of the embeddings stay; the shared layer stands without lists."""
    import transformers
    from torch import nn

    width = 768
    source = transformers.AlbertModel(transformers.AlbertConfig(
        embedding_size=128, hidden_size=width, num_attention_heads=12, intermediate_size=3072,
        vocab_size=30000))  # fmt: skip

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.attn_norm = nn.LayerNorm(width)
            self.up, self.down, self.ffn_norm = nn.Linear(width, 3072), nn.Linear(3072, width), nn.LayerNorm(width)

    class EssayGrader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.word, self.segment, self.place = nn.Embedding(30000, 128), nn.Embedding(2, 128), nn.Embedding(512, 128)
            self.kind = nn.Embedding(8, 128)
            self.emb_norm, self.widen = nn.LayerNorm(128), nn.Linear(128, width)
            self.layer = Shared()
            self.pool = nn.Linear(width, width)
            self.sentences = nn.LSTM(width, 384, bidirectional=True, batch_first=True)
            self.traits = nn.Linear(width, 6)

    layer = r"^encoder\.albert_layer_groups\.0\.albert_layers\.0"
    table: list[Any] = [
        (r".*attention\.(query|key|value)\..*", "@"),
        (r"^embeddings\.word_embeddings", "word"),
        (r"^embeddings\.token_type_embeddings", "segment"),
        (r"^embeddings\.position_embeddings", "place"),
        (r"^embeddings\.LayerNorm", "emb_norm"),
        (r"^encoder\.embedding_hidden_mapping_in", "widen"),
        (layer + r"\.full_layer_layer_norm", "layer.ffn_norm"),
        (layer + r"\.attention\.dense", "layer.out"),
        (layer + r"\.attention\.LayerNorm", "layer.attn_norm"),
        (layer + r"\.ffn_output", "layer.down"),
        (layer + r"\.ffn", "layer.up"),
        (r"^pooler", "pool"),
    ]
    shared = "encoder.albert_layer_groups.0.albert_layers.0.attention"
    groups = join([f"{shared}.{x}" for x in ("query", "key", "value")], "layer.qkv")
    return to(source, EssayGrader(), table, groups=groups, truth=CODE,
              missing=["kind.*", "sentences.*", "traits.*"])  # fmt: skip


@pair("blind, own: ten of OPT-125M's twelve layers answer patients: qkv joined, LoRA, both tables kept, a risk's head",
      "transformers")  # fmt: skip
def patients(small: bool) -> Two:
    """k, v, q in the file, q, k, v in the model; the last norm is kept."""
    import transformers
    from torch import nn

    width = 768
    source = transformers.OPTModel(transformers.OPTConfig(
        hidden_size=width, num_hidden_layers=12, ffn_dim=3072, num_attention_heads=12,
        word_embed_proj_dim=width))  # fmt: skip

    class Lora(nn.Module):
        def __init__(self, out: int) -> None:
            super().__init__()
            self.down, self.up = nn.Linear(width, 8, bias=False), nn.Linear(8, out, bias=False)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pre_attn = nn.LayerNorm(width)
            self.c_attn, self.c_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.lora_attn, self.lora_out = Lora(3 * width), Lora(width)
            self.pre_mlp, self.lin1, self.lin2 = nn.LayerNorm(width), nn.Linear(width, 3072), nn.Linear(3072, width)

    class CareLM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vocab, self.where = nn.Embedding(50272, width), nn.Embedding(2050, width)
            self.speaker = nn.Embedding(2, width)
            self.stack = nn.ModuleList([Layer() for _ in range(10)])
            self.norm_f = nn.LayerNorm(width)
            self.risk = nn.Linear(width, 4)

    table: list[Any] = [
        (r"^decoder\.layers\.1[01]\..*", ""),
        (r".*self_attn\.[qkv]_proj\..*", "@"),
        (r"^decoder\.embed_tokens", "vocab"),
        (r"^decoder\.embed_positions", "where"),
        (r"^decoder\.final_layer_norm", "norm_f"),
        (r"^decoder\.layers", "stack"),
        (r"\.self_attn\.out_proj", ".c_out"),
        (r"\.self_attn_layer_norm", ".pre_attn"),
        (r"\.final_layer_norm", ".pre_mlp"),
        (r"\.fc(\d)", r".lin\1"),
    ]
    groups: list[str] = []
    for at in range(10):
        groups += join([f"decoder.layers.{at}.self_attn.{x}_proj" for x in "qkv"], f"stack.{at}.c_attn")
    return to(source, CareLM(), table, groups=groups, truth=CODE,
              missing=["speaker.*", "*.lora_*", "risk.*"])  # fmt: skip


@pair("blind, own: OLMo 2 1B judges each step of a proof: gate and up joined, norms behind, words kept, no head",
      "transformers")  # fmt: skip
def steps(small: bool) -> Two:
    """q and k have norms of the whole width; every fourth layer has a memory beside it."""
    import transformers
    from torch import nn

    width, inner, depth = 2048, 8192, 16
    source = transformers.Olmo2ForCausalLM(transformers.Olmo2Config(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=16, num_key_value_heads=16,
        intermediate_size=inner, vocab_size=100352, tie_word_embeddings=False))  # fmt: skip

    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.to_q, self.to_k, self.to_v, self.to_out = linears(4, width, width, False)
            self.scale_q, self.scale_k = nn.RMSNorm(width, 1e-6), nn.RMSNorm(width, 1e-6)

    class Block(nn.Module):
        def __init__(self, has_memory: bool) -> None:
            super().__init__()
            self.attend, self.after_attend = Attend(), nn.RMSNorm(width, 1e-6)
            if has_memory:
                self.memory = adapter(width, 128)
            self.gate_up, self.down = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width, bias=False)
            self.after_mlp = nn.RMSNorm(width, 1e-6)

    class StepJudge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte = nn.Embedding(100352, width)
            self.blocks = nn.ModuleList([Block(at % 4 == 3) for at in range(depth)])
            self.norm = nn.RMSNorm(width, 1e-6)
            self.verdict = nn.Sequential(nn.Linear(width, 512), nn.ReLU(), nn.Linear(512, 2))

    table: list[Any] = [
        (r"^lm_head.*", ""),
        (r".*mlp\.(gate|up)_proj\..*", "@"),
        (r"^model\.embed_tokens", "wte"),
        (r"^model\.norm", "norm"),
        (r"^model\.layers", "blocks"),
        (r"\.self_attn\.([qkv])_proj", r".attend.to_\1"),
        (r"\.self_attn\.o_proj", ".attend.to_out"),
        (r"\.self_attn\.([qk])_norm", r".attend.scale_\1"),
        (r"\.post_attention_layernorm", ".after_attend"),
        (r"\.post_feedforward_layernorm", ".after_mlp"),
        (r"\.mlp\.down_proj", ".down"),
    ]
    groups: list[str] = []
    for at in range(depth):
        groups += join([f"model.layers.{at}.mlp.{x}_proj" for x in ("gate", "up")], f"blocks.{at}.gate_up", bias=False)
    return to(source, StepJudge(), table, groups=groups, truth=CODE, missing=["*.memory.*", "verdict.*"])


@pair("blind, own: sixteen of Mamba-130M's layers read genes: letters for words, in_proj split, a way back beside it",
      "transformers")  # fmt: skip
def genes(small: bool) -> Two:
    """The way back has a smaller scan of its own; the first one is Mamba's, its file has no head beside the table."""
    import torch
    import transformers
    from torch import nn

    width, inner = 768, 1536
    source = transformers.MambaForCausalLM(transformers.MambaConfig(
        hidden_size=width, num_hidden_layers=24, state_size=16, vocab_size=50280))  # fmt: skip

    class Scan(nn.Module):
        def __init__(self, state: int, rank: int) -> None:
            super().__init__()
            self.log_decay, self.skip = nn.Parameter(torch.zeros(inner, state)), nn.Parameter(torch.ones(inner))
            self.to_dbc, self.to_step = nn.Linear(inner, rank + 2 * state, bias=False), nn.Linear(rank, inner)

    class MambaLayer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pre = nn.RMSNorm(width, 1e-5)
            self.to_x, self.to_z = linears(2, width, inner, False)
            self.local = nn.Conv1d(inner, inner, 4, groups=inner, padding=3)
            self.forth, self.back = Scan(16, 48), Scan(8, 24)
            self.to_out = nn.Linear(inner, width, bias=False)

    class GeneMamba(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.letters = nn.Embedding(12, width)
            self.layers = nn.ModuleList([MambaLayer() for _ in range(16)])
            self.last = nn.RMSNorm(width, 1e-5)
            self.expression = nn.Linear(width, 53)

    table: list[Any] = [
        (r"^lm_head.*", "@"),
        (r"^backbone\.embeddings.*|^backbone\.layers\.(1[6-9]|2\d)\..*", ""),
        (r".*in_proj.*", "@"),
        (r"^backbone\.norm_f", "last"),
        (r"^backbone\.layers", "layers"),
        (r"(\.\d+)\.norm\.", r"\1.pre."),
        (r"\.mixer\.A_log", ".forth.log_decay"),
        (r"\.mixer\.D$", ".forth.skip"),
        (r"\.mixer\.conv1d", ".local"),
        (r"\.mixer\.x_proj", ".forth.to_dbc"),
        (r"\.mixer\.dt_proj", ".forth.to_step"),
        (r"\.mixer\.out_proj", ".to_out"),
    ]
    groups: list[str] = []
    for at in range(16):
        groups += split(f"backbone.layers.{at}.mixer.in_proj", [f"layers.{at}.to_{x}" for x in "xz"], bias=False)

    def once(saved: Any) -> Any:
        return {key: tensor for key, tensor in saved.items() if not key.startswith("lm_head")}

    return to(source, GeneMamba(), table, groups=groups, truth=CODE, source_file=once,
              missing=["letters.*", "*.back.*", "expression.*"])  # fmt: skip


@pair("blind, own: SpeechBrain's ECAPA-TDNN hears memory fade: gates of Linears, words beside the voice")
def memory(small: bool) -> Two:
    """A speaker's 192 numbers are kept, as a Linear; each block lists its norms behind its convolutions."""
    from torch import nn

    source = Net()

    def tdnn(name: str, out: int, into: int, kernel: int) -> None:
        conv(f"{name}.conv", out, into, kernel)
        source.bn(f"{name}.norm.norm", out)

    def conv(name: str, out: int, into: int, kernel: int = 1) -> None:
        source.put(f"{name}.conv.weight", out, into, kernel)
        source.put(f"{name}.conv.bias", out)

    tdnn("blocks.0", 1024, 80, 5)
    for at in (1, 2, 3):
        tdnn(f"blocks.{at}.tdnn1", 1024, 1024, 1)
        for scale in range(7):
            tdnn(f"blocks.{at}.res2net_block.blocks.{scale}", 128, 128, 3)
        tdnn(f"blocks.{at}.tdnn2", 1024, 1024, 1)
        conv(f"blocks.{at}.se_block.conv1", 128, 1024)
        conv(f"blocks.{at}.se_block.conv2", 1024, 128)
    tdnn("mfa", 3072, 3072, 1)
    tdnn("asp.tdnn", 128, 9216, 1)
    conv("asp.conv", 3072, 128)
    source.bn("asp_bn.norm", 6144)
    conv("fc", 192, 6144)

    class Block(nn.Module):
        def __init__(self, dilation: int) -> None:
            super().__init__()
            self.enter, self.leave = nn.Conv1d(1024, 1024, 1), nn.Conv1d(1024, 1024, 1)
            self.scales = nn.ModuleList([nn.Conv1d(128, 128, 3, padding=dilation, dilation=dilation) for _ in range(7)])
            self.enter_bn, self.leave_bn = nn.BatchNorm1d(1024), nn.BatchNorm1d(1024)
            self.scale_bns = nn.ModuleList([nn.BatchNorm1d(128) for _ in range(7)])
            self.squeeze, self.excite = nn.Linear(1024, 128), nn.Linear(128, 1024)

    class MemoryNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.stem_bn = nn.Conv1d(80, 1024, 5, padding=2), nn.BatchNorm1d(1024)
            self.layer1, self.layer2, self.layer3 = Block(2), Block(3), Block(4)
            self.fuse, self.fuse_bn = nn.Conv1d(3072, 3072, 1), nn.BatchNorm1d(3072)
            self.look, self.look_bn, self.weigh = nn.Conv1d(9216, 128, 1), nn.BatchNorm1d(128), nn.Conv1d(128, 3072, 1)
            self.pool_bn, self.voice = nn.BatchNorm1d(6144), nn.Linear(6144, 192)
            self.words = nn.GRU(300, 96, bidirectional=True, batch_first=True)
            self.score, self.stage = nn.Linear(384, 1), nn.Linear(384, 4)

    table: list[Any] = [
        (r"^blocks\.0\.conv\.conv", "stem"),
        (r"^blocks\.0\.norm\.norm", "stem_bn"),
        (r"^blocks\.(\d)", r"layer\1"),
        (r"\.res2net_block\.blocks\.(\d)\.conv\.conv", r".scales.\1"),
        (r"\.res2net_block\.blocks\.(\d)\.norm\.norm", r".scale_bns.\1"),
        (r"\.tdnn1\.", ".enter."),
        (r"\.tdnn2\.", ".leave."),
        (r"^(layer\d\.\w+)\.conv\.conv", r"\1"),
        (r"^(layer\d\.\w+)\.norm\.norm", r"\1_bn"),
        (r"\.se_block\.conv1\.conv", ".squeeze"),
        (r"\.se_block\.conv2\.conv", ".excite"),
        (r"^mfa\.conv\.conv", "fuse"),
        (r"^mfa\.norm\.norm", "fuse_bn"),
        (r"^asp\.tdnn\.conv\.conv", "look"),
        (r"^asp\.tdnn\.norm\.norm", "look_bn"),
        (r"^asp\.conv\.conv", "weigh"),
        (r"^asp_bn\.norm", "pool_bn"),
        (r"^fc\.conv", "voice"),
    ]
    return to(source, MemoryNet(), table, [(r"(se_block\.conv\d|^fc)\.conv\.weight", "o i 1 -> o i")],
              missing=["words.*", "score.*", "stage.*"], truth=CODE)  # fmt: skip


@pair("blind, own: EnCodec's encoder hears whales: old weight norms, shrink, widen, skip, its LSTM, no codes",
      "transformers")  # fmt: skip
def whales(small: bool) -> Two:
    """Four levels of a unit and a way down; the decoder has convolutions of the same shapes and stays behind."""
    import warnings

    import transformers
    from torch import nn

    def wn(into: int, out: int, kernel: int, stride: int = 1) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return nn.utils.weight_norm(nn.Conv1d(into, out, kernel, stride))

    class Level(nn.Module):
        def __init__(self, into: int, stride: int) -> None:
            super().__init__()
            self.shrink, self.widen, self.skip = wn(into, into // 2, 3), wn(into // 2, into, 1), wn(into, into, 1)
            self.down = wn(into, 2 * into, 2 * stride, stride)

    class WhaleNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.depth_of_buoy = nn.Linear(1, 512)
            self.first = wn(1, 32, 7)
            self.levels = nn.ModuleList([Level(32 * 2**at, stride) for at, stride in enumerate((2, 4, 5, 8))])
            self.rnn = nn.LSTM(512, 512, 2)
            self.attention = nn.MultiheadAttention(512, 8, batch_first=True)
            self.species, self.call = nn.Linear(512, 12), nn.Linear(512, 30)

    units = {1: "shrink", 3: "widen"}
    table: list[Any] = [
        (r"^(decoder|quantizer|encoder\.layers\.15)\..*", ""),
        (r"\.parametrizations\.weight\.original0", ".weight_g"),
        (r"\.parametrizations\.weight\.original1", ".weight_v"),
        (r"^encoder\.layers\.0\.conv", "first"),
        (r"^encoder\.layers\.13\.lstm", "rnn"),
        (r"^encoder\.layers\.(\d+)\.block\.(\d)\.conv", lambda m: f"levels.{int(m[1]) // 3}.{units[int(m[2])]}"),
        (r"^encoder\.layers\.(\d+)\.shortcut\.conv", lambda m: f"levels.{int(m[1]) // 3}.skip"),
        (r"^encoder\.layers\.(\d+)\.conv", lambda m: f"levels.{int(m[1]) // 3 - 1}.down"),
    ]
    return to(transformers.EncodecModel(transformers.EncodecConfig()), WhaleNet(), table, truth=CODE,
              missing=["depth_of_buoy.*", "attention.*", "species.*", "call.*"])  # fmt: skip


@pair("blind, own: Facebook's DiT-XL paints scenes from above: q, k, v apart, patches and times kept, 45 scenes")
def scenes(small: bool) -> Two:
    """No norm has weights; metres of a pixel are one more condition."""
    import torch
    from torch import nn

    width, depth = 1152, 28
    source = Net()
    source.put("pos_embed", 1, 256, width)
    source.conv("x_embedder.proj", width, 4, 2)
    source.lin("t_embedder.mlp.0", width, 256)
    source.lin("t_embedder.mlp.2", width, width)
    source.put("y_embedder.embedding_table.weight", 1001, width)
    for at in range(depth):
        source.lin(f"blocks.{at}.attn.qkv", 3 * width, width)
        source.lin(f"blocks.{at}.attn.proj", width, width)
        source.lin(f"blocks.{at}.mlp.fc1", 4 * width, width)
        source.lin(f"blocks.{at}.mlp.fc2", width, 4 * width)
        source.lin(f"blocks.{at}.adaLN_modulation.1", 6 * width, width)
    source.lin("final_layer.linear", 32, width)
    source.lin("final_layer.adaLN_modulation.1", 2 * width, width)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift_scale_gate = nn.Linear(width, 6 * width)
            self.query, self.key, self.value, self.merge = linears(4, width, width)
            self.grow, self.shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    class SceneDiT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.grid = nn.Parameter(torch.zeros(1, 256, width))
            self.patchify = nn.Conv2d(4, width, 2, 2)
            self.time_in, self.time_out = nn.Linear(256, width), nn.Linear(width, width)
            self.metres_in, self.metres_out = nn.Linear(256, width), nn.Linear(width, width)
            self.scene = nn.Embedding(46, width)
            self.layers = nn.ModuleList([Layer() for _ in range(depth)])
            self.last_shift_scale, self.unpatchify = nn.Linear(width, 2 * width), nn.Linear(width, 32)

    table: list[Any] = [
        (r"^y_embedder.*", ""),
        (r".*\.qkv\..*", "@"),
        (r"^pos_embed", "grid"),
        (r"^x_embedder\.proj", "patchify"),
        (r"^t_embedder\.mlp\.0", "time_in"),
        (r"^t_embedder\.mlp\.2", "time_out"),
        (r"^final_layer\.linear", "unpatchify"),
        (r"^final_layer\.adaLN_modulation\.1", "last_shift_scale"),
        (r"^blocks", "layers"),
        (r"\.attn\.proj", ".merge"),
        (r"\.mlp\.fc1", ".grow"),
        (r"\.mlp\.fc2", ".shrink"),
        (r"\.adaLN_modulation\.1", ".shift_scale_gate"),
    ]
    groups: list[str] = []
    for at in range(depth):
        groups += split(f"blocks.{at}.attn.qkv", [f"layers.{at}.{x}" for x in ("query", "key", "value")])
    return to(source, SceneDiT(), table, groups=groups, missing=["metres_*", "scene.*"], truth=CODE)


@pair("blind, own: DDPM of CIFAR-10 sharpens cells: a blurred picture beside, qkv a Linear, deepest way up first")
def cells(small: bool) -> Two:
    """The DDIM repository's model with six channels in front; its way up counts from the finest level."""
    from torch import nn

    ch, mult, depth = 128, (1, 2, 2, 2), 2
    source = Net()

    def res(name: str, into: int, out: int) -> None:
        source.norm(f"{name}.norm1", into)
        source.conv(f"{name}.conv1", out, into, 3)
        source.lin(f"{name}.temb_proj", out, 512)
        source.norm(f"{name}.norm2", out)
        source.conv(f"{name}.conv2", out, out, 3)
        if into != out:
            source.conv(f"{name}.nin_shortcut", out, into, 1)

    def attn(name: str, size: int) -> None:
        source.norm(f"{name}.norm", size)
        for part in ("q", "k", "v", "proj_out"):
            source.conv(f"{name}.{part}", size, size, 1)

    downs, ups = [], []  # channels of each unit
    skips, size = [ch], ch
    for level in range(4):
        units = []
        for _ in range(depth):
            units.append((size, ch * mult[level]))
            size = ch * mult[level]
            skips.append(size)
        downs.append(units)
        if level < 3:
            skips.append(size)
    for level in (3, 2, 1, 0):
        units = []
        for _ in range(depth + 1):
            units.append((size + skips.pop(), ch * mult[level]))
            size = ch * mult[level]
        ups.append(units)
    source.lin("temb.dense.0", 512, ch)
    source.lin("temb.dense.1", 512, 512)
    source.conv("conv_in", ch, 3, 3)
    for level, units in enumerate(downs):
        for at, unit in enumerate(units):
            res(f"down.{level}.block.{at}", *unit)
        for at in range(depth if level == 1 else 0):
            attn(f"down.{level}.attn.{at}", 256)
        if level < 3:
            source.conv(f"down.{level}.downsample.conv", units[-1][1], units[-1][1], 3)
    res("mid.block_1", 256, 256)
    attn("mid.attn_1", 256)
    res("mid.block_2", 256, 256)
    for level, units in enumerate(reversed(ups)):
        for at, unit in enumerate(units):
            res(f"up.{level}.block.{at}", *unit)
        for at in range(depth + 1 if level == 1 else 0):
            attn(f"up.{level}.attn.{at}", 256)
        if level > 0:
            source.conv(f"up.{level}.upsample.conv", units[-1][1], units[-1][1], 3)
    source.norm("norm_out", ch)
    source.conv("conv_out", 3, ch, 3)

    class Res(nn.Module):
        def __init__(self, into: int, out: int) -> None:
            super().__init__()
            self.gn1, self.c1 = nn.GroupNorm(32, into, 1e-6), nn.Conv2d(into, out, 3, padding=1)
            self.gn2, self.c2 = nn.GroupNorm(32, out, 1e-6), nn.Conv2d(out, out, 3, padding=1)
            self.time = nn.Linear(512, out)
            if into != out:
                self.skip = nn.Conv2d(into, out, 1)

    class Att(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gn, self.qkv, self.out = nn.GroupNorm(32, 256, 1e-6), nn.Linear(256, 768), nn.Linear(256, 256)

    class Level(nn.Module):
        def __init__(self, units: list[tuple[int, int]], attentions: int, resize: str) -> None:
            super().__init__()
            self.units = nn.ModuleList([Res(*unit) for unit in units])
            if attentions:
                self.atts = nn.ModuleList([Att() for _ in range(attentions)])
            if resize:
                setattr(self, resize, nn.Conv2d(units[-1][1], units[-1][1], 3, padding=1))

    class CellDiffusion(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time_a, self.time_b = nn.Linear(ch, 512), nn.Linear(512, 512)
            self.objective = nn.Embedding(6, 512)
            self.enter = nn.Conv2d(6, ch, 3, padding=1)
            self.going_down = nn.ModuleList(
                [Level(units, depth * (at == 1), "shrink" if at < 3 else "") for at, units in enumerate(downs)]
            )
            self.bottom1, self.bottom_att, self.bottom2 = Res(256, 256), Att(), Res(256, 256)
            self.going_up = nn.ModuleList(
                [Level(units, (depth + 1) * (at == 2), "grow" if at < 3 else "") for at, units in enumerate(ups)]
            )
            self.leave_gn, self.leave = nn.GroupNorm(32, ch, 1e-6), nn.Conv2d(ch, 3, 3, padding=1)  # fmt: skip

    def place(found: re.Match[str]) -> str:
        level = int(found[2])
        return f"going_down.{level}" if found[1] == "down" else f"going_up.{3 - level}"

    swaps: list[Any] = [
        (r"^temb\.dense\.0", "time_a"),
        (r"^temb\.dense\.1", "time_b"),
        (r"^conv_in", "enter"),
        (r"^norm_out", "leave_gn"),
        (r"^conv_out", "leave"),
        (r"^(down|up)\.(\d)", place),
        (r"^mid\.block_(\d)", r"bottom\1"),
        (r"^mid\.attn_1", "bottom_att"),
        (r"\.block\.", ".units."),
        (r"\.attn\.", ".atts."),
        (r"\.(norm|conv)(\d)\.", lambda m: f".{'gn' if m[1] == 'norm' else 'c'}{m[2]}."),
        (r"\.norm\.", ".gn."),
        (r"\.temb_proj", ".time"),
        (r"\.nin_shortcut", ".skip"),
        (r"\.proj_out", ".out"),
        (r"\.downsample\.conv", ".shrink"),
        (r"\.upsample\.conv", ".grow"),
    ]
    table: list[Any] = [(r"^conv_in\.weight", ""), (r".*attn.*\.[qkv]\.(weight|bias)$", "@"), *swaps]
    groups: list[str] = []
    for key in source:
        if key.endswith(".q.weight"):
            name = key.removesuffix(".q.weight")
            into = re.sub(r"^mid\.attn_1", "bottom_att", re.sub(r"^(down|up)\.(\d)", place, name))
            into = into.replace(".attn.", ".atts.") + ".qkv"
            weights, biases = (", ".join(f"{name}.{x}.{kind}" for x in "qkv") for kind in ("weight", "bias"))
            groups.append(f"{weights} -> {into}.weight | a i 1 1, b i 1 1, c i 1 1 -> (a + b + c) i")
            groups.append(f"{biases} -> {into}.bias | a, b, c -> (a + b + c)")
    return to(source, CellDiffusion(), table, [(r"proj_out\.weight", "o i 1 1 -> o i")], groups, CODE,
              missing=["enter.weight", "objective.*"])  # fmt: skip


@pair("blind, own: ViLT finds hateful memes: qkv joined, words and patches kept, faces as a third kind of token",
      "transformers")  # fmt: skip
def memes(small: bool) -> Two:
    """The kinds' table has a row more; words' and patches' embeddings stand beside each other."""
    import torch
    import transformers
    from torch import nn

    width, depth = 768, 12

    class WordsIn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.word, self.spot, self.segment = (nn.Embedding(rows, width) for rows in (30522, 40, 2))
            self.norm = nn.LayerNorm(width, 1e-12)

    class PatchesIn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cls, self.spot = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, 145, width))
            self.cut = nn.Conv2d(3, width, 32, 32)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.norm2, self.fc1, self.fc2 = nn.LayerNorm(width), nn.Linear(width, 3072), nn.Linear(3072, width)

    class MemeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.patches, self.face = WordsIn(), PatchesIn(), nn.Linear(512, width)
            self.kind = nn.Embedding(3, width)
            self.trunk = nn.ModuleList([Layer() for _ in range(depth)])
            self.norm, self.pool = nn.LayerNorm(width), nn.Linear(width, width)
            self.hateful, self.target_group = nn.Linear(width, 2), nn.Linear(width, 6)

    table: list[Any] = [
        (r"^embeddings\.token_type_embeddings.*", ""),
        (r".*attention\.attention\..*", "@"),
        (r"^embeddings\.cls_token", "patches.cls"),
        (r"^embeddings\.position_embeddings", "patches.spot"),
        (r"^embeddings\.patch_embeddings\.projection", "patches.cut"),
        (r"^embeddings\.text_embeddings\.word_embeddings", "words.word"),
        (r"^embeddings\.text_embeddings\.position_embeddings", "words.spot"),
        (r"^embeddings\.text_embeddings\.token_type_embeddings", "words.segment"),
        (r"^embeddings\.text_embeddings\.LayerNorm", "words.norm"),
        (r"^layernorm", "norm"),
        (r"^pooler\.dense", "pool"),
        (r"^encoder\.layer", "trunk"),
        (r"\.attention\.output\.dense", ".proj"),
        (r"\.intermediate\.dense", ".fc1"),
        (r"\.output\.dense", ".fc2"),
        (r"\.layernorm_before", ".norm1"),
        (r"\.layernorm_after", ".norm2"),
    ]
    groups: list[str] = []
    for at in range(depth):
        names = [f"encoder.layer.{at}.attention.attention.{x}" for x in ("query", "key", "value")]
        groups += join(names, f"trunk.{at}.qkv")
    return to(transformers.ViltModel(transformers.ViltConfig()), MemeNet(), table, groups=groups, truth=CODE,
              missing=["face.*", "kind.*", "hateful.*", "target_group.*"])  # fmt: skip


@pair("blind, own: GIT tells films to the blind: the eye's qkv joined, the writer's apart, frames, a sound's token",
      "transformers")  # fmt: skip
def films(small: bool) -> Two:
    """The eye's norms stand in front, the writer's behind, both 768 wide; next words have their Linear."""
    import torch
    import transformers
    from torch import nn

    width = 768

    class Look(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln1, self.qkv, self.o = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.ln2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 3072), nn.Linear(3072, width)

    class Eye(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cls = nn.Parameter(torch.zeros(width))
            self.patch, self.spot = nn.Conv2d(3, width, 16, 16, bias=False), nn.Embedding(197, width)
            self.ln_pre = nn.LayerNorm(width)
            self.layers = nn.ModuleList([Look() for _ in range(12)])
            self.ln_post = nn.LayerNorm(width)

    class Write(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = linears(4, width, width)
            self.ln1 = nn.LayerNorm(width, 1e-12)
            self.up, self.down = nn.Linear(width, 3072), nn.Linear(3072, width)
            self.ln2 = nn.LayerNorm(width, 1e-12)

    class FilmTeller(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.eye = Eye()
            self.frame = nn.Parameter(torch.zeros(8, width))
            self.to_writer, self.to_writer_ln = nn.Linear(width, width), nn.LayerNorm(width)
            self.sound = nn.Linear(128, width)
            self.word, self.spot = nn.Embedding(30522, width), nn.Embedding(1024, width)
            self.ln_in = nn.LayerNorm(width, 1e-12)
            self.writer = nn.ModuleList([Write() for _ in range(6)])
            self.next_word = nn.Linear(width, 30522)

    table: list[Any] = [
        (r".*vision_model.*self_attn\.[qkv]_proj\..*", "@"),
        (r"^output", "next_word"),
        (r"^git\.embeddings\.word_embeddings", "word"),
        (r"^git\.embeddings\.position_embeddings", "spot"),
        (r"^git\.embeddings\.LayerNorm", "ln_in"),
        (r"^git\.visual_projection\.visual_projection\.0", "to_writer"),
        (r"^git\.visual_projection\.visual_projection\.1", "to_writer_ln"),
        (r"^git\.image_encoder\.vision_model\.embeddings\.class_embedding", "eye.cls"),
        (r"^git\.image_encoder\.vision_model\.embeddings\.patch_embedding", "eye.patch"),
        (r"^git\.image_encoder\.vision_model\.embeddings\.position_embedding", "eye.spot"),
        (r"^git\.image_encoder\.vision_model\.pre_layrnorm", "eye.ln_pre"),
        (r"^git\.image_encoder\.vision_model\.post_layernorm", "eye.ln_post"),
        (r"^git\.image_encoder\.vision_model\.encoder\.layers", "eye.layers"),
        (r"\.self_attn\.out_proj", ".o"),
        (r"\.layer_norm(\d)", r".ln\1"),
        (r"\.mlp\.fc1", ".up"),
        (r"\.mlp\.fc2", ".down"),
        (r"^git\.encoder\.layer", "writer"),
        (r"\.attention\.self\.([qkv])\w+", r".\1"),
        (r"\.attention\.output\.dense", ".o"),
        (r"\.attention\.output\.LayerNorm", ".ln1"),
        (r"\.intermediate\.dense", ".up"),
        (r"\.output\.dense", ".down"),
        (r"\.output\.LayerNorm", ".ln2"),
    ]
    groups: list[str] = []
    for at in range(12):
        eye = f"git.image_encoder.vision_model.encoder.layers.{at}.self_attn"
        groups += join([f"{eye}.{x}_proj" for x in "qkv"], f"eye.layers.{at}.qkv")
    return to(transformers.GitForCausalLM(transformers.GitConfig()), FilmTeller(), table, groups=groups, truth=CODE,
              missing=["frame", "sound.*"])  # fmt: skip


@pair("blind, own: VideoMAE-S watches suturing: qkv joined beside q's and v's biases, tubelets kept, tools and skill",
      "transformers")  # fmt: skip
def suturing(small: bool) -> Two:
    """k has no bias; an adapter stands beside each perceptron, the classes' Linear stays behind."""
    import torch
    import transformers
    from torch import nn

    width, depth = 384, 12
    config: Any = transformers.VideoMAEConfig
    source = transformers.VideoMAEForVideoClassification(config(
        hidden_size=width, num_attention_heads=6, intermediate_size=1536, num_hidden_layers=depth,
        num_labels=400))  # fmt: skip

    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias_q, self.bias_v = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
            self.qkv, self.mix = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pre1, self.attend, self.pre2 = nn.LayerNorm(width), Attend(), nn.LayerNorm(width)
            self.expand, self.reduce = nn.Linear(width, 1536), nn.Linear(1536, width)
            self.adapter = adapter(width, 48)

    class SutureNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tubelets = nn.Conv3d(3, width, (2, 16, 16), (2, 16, 16))
            self.blocks = nn.ModuleList([Block() for _ in range(depth)])
            self.norm = nn.LayerNorm(width)
            self.phases = nn.GRU(width, 128, batch_first=True)
            self.tools, self.skill = nn.Linear(128, 7), nn.Linear(128, 1)

    table: list[Any] = [
        (r"^classifier.*", ""),
        (r".*attention\.attention\.\w+\.weight$", "@"),
        (r"^videomae\.embeddings\.patch_embeddings\.projection", "tubelets"),
        (r"^fc_norm", "norm"),
        (r"^videomae\.encoder\.layer", "blocks"),
        (r"\.attention\.attention\.([qv])\w+\.bias", r".attend.bias_\1"),
        (r"\.attention\.output\.dense", ".attend.mix"),
        (r"\.intermediate\.dense", ".expand"),
        (r"\.output\.dense", ".reduce"),
        (r"\.layernorm_before", ".pre1"),
        (r"\.layernorm_after", ".pre2"),
    ]
    groups: list[str] = []
    for at in range(depth):
        names = [f"videomae.encoder.layer.{at}.attention.attention.{x}" for x in ("query", "key", "value")]
        groups += join(names, f"blocks.{at}.attend.qkv", bias=False)
    return to(source, SutureNet(), table, groups=groups, truth=CODE,
              missing=["*.adapter.*", "phases.*", "tools.*", "skill.*"])  # fmt: skip


@pair("blind, own: PatchTST of Hugging Face foresees a grid's load: torch's in_proj, the series attend, quantiles",
      "transformers")  # fmt: skip
def load(small: bool) -> Two:
    """Patches and places are kept, the head is not; the series attend to one another in between."""
    import torch
    import transformers
    from torch import nn

    width, depth = 128, 3
    source = transformers.PatchTSTForPrediction(transformers.PatchTSTConfig(
        num_input_channels=7, context_length=512, patch_length=12, patch_stride=12, d_model=width, ffn_dim=512,
        num_attention_heads=16, num_hidden_layers=depth, use_cls_token=False, prediction_length=96))  # fmt: skip

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time_attn = nn.MultiheadAttention(width, 16, batch_first=True)
            self.time_norm = nn.BatchNorm1d(width)
            self.series_attn = nn.MultiheadAttention(width, 8, batch_first=True)
            self.series_norm = nn.BatchNorm1d(width)
            self.up, self.down = nn.Linear(width, 512), nn.Linear(512, width)
            self.ff_norm = nn.BatchNorm1d(width)

    class LoadNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Parameter(torch.zeros(42, width))
            self.patch, self.calendar = nn.Linear(12, width), nn.Embedding(168, width)
            self.layers = nn.ModuleList([Layer() for _ in range(depth)])
            self.quantiles = nn.Linear(42 * width, 9 * 24)

    table: list[Any] = [
        (r"^head\..*", ""),
        (r".*self_attn\.[qkv]_proj\..*", "@"),
        (r"^model\.encoder\.embedder\.input_embedding", "patch"),
        (r"^model\.encoder\.positional_encoder\.position_enc", "places"),
        (r"^model\.encoder\.layers", "layers"),
        (r"\.self_attn\.out_proj", ".time_attn.out_proj"),
        (r"\.norm_sublayer1\.batchnorm", ".time_norm"),
        (r"\.norm_sublayer3\.batchnorm", ".ff_norm"),
        (r"\.ff\.0", ".up"),
        (r"\.ff\.3", ".down"),
    ]
    groups: list[str] = []
    for at in range(depth):
        names = [f"model.encoder.layers.{at}.self_attn.{x}_proj" for x in "qkv"]
        for kind in ("weight", "bias"):
            left = ", ".join(f"{name}.{kind}" for name in names)
            layout = "a i, b i, c i -> (a + b + c) i" if kind == "weight" else "a, b, c -> (a + b + c)"
            groups.append(f"{left} -> layers.{at}.time_attn.in_proj_{kind} | {layout}")
    return to(source, LoadNet(), table, groups=groups, truth=CODE,
              missing=["calendar.*", "*.series_*", "quantiles.*"])  # fmt: skip


@pair("blind, own: Stanford's pretrained GIN for poisons: atoms and bonds kept, a norm in each layer, a virtual node")
def poisons(small: bool) -> Two:
    """What were two lists, layers and norms, is one; each layer has its own bonds."""
    from torch import nn

    width, depth = 300, 5
    source = Net()
    source.put("x_embedding1.weight", 120, width)
    source.put("x_embedding2.weight", 3, width)
    for at in range(depth):
        source.lin(f"gnns.{at}.mlp.0", 2 * width, width)
        source.lin(f"gnns.{at}.mlp.2", width, 2 * width)
        source.put(f"gnns.{at}.edge_embedding1.weight", 6, width)
        source.put(f"gnns.{at}.edge_embedding2.weight", 3, width)
    for at in range(depth):
        source.bn(f"batch_norms.{at}", width)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bond, self.direction = nn.Embedding(6, width), nn.Embedding(3, width)
            self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
            self.norm = nn.BatchNorm1d(width)
            self.from_all = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    class PoisonNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.atom, self.chirality, self.everything = (nn.Embedding(rows, width) for rows in (120, 3, 1))
            self.layers = nn.ModuleList([Layer() for _ in range(depth)])
            self.fingerprint = nn.Linear(2048, width)
            self.assays = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 12))

    table: list[Any] = [
        (r"^x_embedding1", "atom"),
        (r"^x_embedding2", "chirality"),
        (r"^batch_norms\.(\d)", r"layers.\1.norm"),
        (r"^gnns", "layers"),
        (r"\.mlp\.0", ".up"),
        (r"\.mlp\.2", ".down"),
        (r"\.edge_embedding1", ".bond"),
        (r"\.edge_embedding2", ".direction"),
    ]
    return to(source, PoisonNet(), table, truth=CODE,
              missing=["everything.*", "*.from_all.*", "fingerprint.*", "assays.*"])  # fmt: skip
