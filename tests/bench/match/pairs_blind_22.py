"""Blind pairs: public checkpoints in researchers' own models that are nearly the same, half of them with their stems."""

from __future__ import annotations

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


@pair("blind, own: torchvision's SSD300 for traffic signs: conv1_1 to conv11_2, boxes kept, 44 classes, a text of signs",
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
    source = transformers.DepthAnythingForDepthEstimation(transformers.DepthAnythingConfig(
        backbone_config=transformers.Dinov2Config(
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
            self.n1, self.wqkv, self.wo, self.s1 = nn.LayerNorm(width), *linears(1, width, 3 * width), \
                nn.Linear(width, width), Scale()  # fmt: skip
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
        (r"^neck\.reassemble_stage\.layers\.(\d)\.resize", lambda m: f"decoder.{('up4', 'up2', '', 'down2')[int(m[1])]}"),
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
            for into, out in zip(widths, widths[1:], strict=False):
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
        embedding_size=128, hidden_size=width, num_attention_heads=12, intermediate_size=3072, vocab_size=30000))  # fmt: skip

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out, self.attn_norm = nn.Linear(width, 3 * width), nn.Linear(width, width), nn.LayerNorm(width)
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
        hidden_size=width, num_hidden_layers=12, ffn_dim=3072, num_attention_heads=12, word_embed_proj_dim=width))  # fmt: skip

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
    """The other direction has a scan of its own; the first one is Mamba's."""
    import torch
    import transformers
    from torch import nn

    width, inner = 768, 1536
    source = transformers.MambaForCausalLM(transformers.MambaConfig(
        hidden_size=width, num_hidden_layers=24, state_size=16, vocab_size=50280))  # fmt: skip

    class Scan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log_decay, self.skip = nn.Parameter(torch.zeros(inner, 16)), nn.Parameter(torch.ones(inner))
            self.to_dbc, self.to_step = nn.Linear(inner, 80, bias=False), nn.Linear(48, inner)

    class MambaLayer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pre = nn.RMSNorm(width, 1e-5)
            self.to_x, self.to_z = linears(2, width, inner, False)
            self.local = nn.Conv1d(inner, inner, 4, groups=inner, padding=3)
            self.forth, self.back = Scan(), Scan()
            self.to_out = nn.Linear(inner, width, bias=False)

    class GeneMamba(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.letters = nn.Embedding(12, width)
            self.layers = nn.ModuleList([MambaLayer() for _ in range(16)])
            self.last = nn.RMSNorm(width, 1e-5)
            self.expression = nn.Linear(width, 53)

    table: list[Any] = [
        (r"^lm_head.*|^backbone\.embeddings.*|^backbone\.layers\.(1[6-9]|2\d)\..*", ""),
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

    two = to(source, GeneMamba(), [(r"^lm_head.*", "@"), *table], groups=groups, truth=CODE, source_file=once,
             missing=["letters.*", "*.back.*", "expression.*"],
             undecided=["*.forth.log_decay", "*.forth.skip", "*.forth.to_*"])  # fmt: skip
    return two
