"""Blind pairs: models of one's own that are almost another's, and names as people write them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.bench.match.blind import Net, Two, like, pair, renamed, state, to
from tests.bench.match.fresh import Swap


def called(source: Any, name_of: Callable[[str], str], order: Callable[[str], Any] | None = None) -> Two:
    """The same tensors under other names, in another order if told."""
    rules = [f"{key} -> {name_of(key) or '!'}" for key in state(source)]
    return Two(source, like(source, name_of, order), rules, proof="by construction: renamed one by one")


@pair("blind, own: ResNet-34 for four channels, averaged in DataParallel: skips in front, gates, a neck", "torchvision")
def gated(small: bool) -> Two:
    """A block's convolutions are a Sequential, its shortcut is listed first; gates are 1x1 convolutions."""
    import torch
    from torch import nn
    from torchvision.models import resnet34

    class Unit(nn.Module):
        def __init__(self, into: int, out: int, stride: int, dilation: int) -> None:
            super().__init__()
            if into != out:
                self.skip = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.SyncBatchNorm(out))
            self.residual = nn.Sequential(
                nn.Conv2d(into, out, 3, stride, dilation, dilation, bias=False), nn.SyncBatchNorm(out), nn.ReLU(),
                nn.Conv2d(out, out, 3, 1, dilation, dilation, bias=False), nn.SyncBatchNorm(out))  # fmt: skip
            self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(out, out // 16, 1), nn.ReLU(),
                                      nn.Conv2d(out // 16, out, 1), nn.Sigmoid())  # fmt: skip

        def forward(self, x: Any, gated: bool = True) -> Any:
            y = self.residual(x)
            y = y * self.gate(y) if gated else y
            return torch.relu(y + (self.skip(x) if hasattr(self, "skip") else x))

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stage0 = nn.Sequential(nn.Conv2d(4, 64, 7, 2, 3, bias=False), nn.SyncBatchNorm(64), nn.ReLU(),
                                        nn.MaxPool2d(3, 2, 1))  # fmt: skip
            into = 64
            for stage, (out, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
                dilation = 2 if stage == 4 and not small else 1
                stride = 1 if stage == 1 or dilation > 1 else 2
                units = [Unit(out if at else into, out, 1 if at else stride, dilation) for at in range(depth)]
                setattr(self, f"stage{stage}", nn.Sequential(*units))
                into = out
            self.neck = nn.ModuleList([nn.Conv2d(size, 128, 1) for size in (64, 128, 256, 512)])
            self.smooth = nn.ModuleList([nn.Conv2d(128, 128, 3, padding=1) for _ in range(4)])
            self.head = nn.Conv2d(128, 6, 1)

    net = nn.Module()
    net.register_buffer("n_averaged", torch.tensor(0))
    net.module = nn.Module()
    net.module.module = Own()

    def ask(model: Any) -> Any:
        x = torch.relu(model.bn1(torch.randn(2, 64, 24, 24, generator=torch.Generator().manual_seed(1))))
        return model.layer4(model.layer3(model.layer2(model.layer1(x))))

    def ask_own(model: Any) -> Any:
        own = model.module.module
        x = torch.relu(own.stage0[1](torch.randn(2, 64, 24, 24, generator=torch.Generator().manual_seed(1))))
        for stage in range(1, 5):
            for unit in getattr(own, f"stage{stage}"):
                x = unit(x, gated=False)
        return x

    table: list[Any] = [
        (r"^(fc|conv1)\..*", ""),
        (r"^bn1", "stage0.1"),
        (r"^layer", "stage"),
        (r"downsample", "skip"),
        (r"\.conv1", ".residual.0"),
        (r"\.bn1", ".residual.1"),
        (r"\.conv2", ".residual.3"),
        (r"\.bn2", ".residual.4"),
        (r"^(?=.)", "module.module."),
    ]
    head = "module.module"
    return to(resnet34(weights=None), net, table, ask=ask, ask_target=ask_own,
              missing=["n_averaged", f"{head}.stage0.0.weight", f"{head}.*.gate.*", f"{head}.neck.*",
                       f"{head}.smooth.*", f"{head}.head.*"],
              truth="equal outputs behind the first convolution, gates left out")  # fmt: skip


@pair("blind, own: torchvision's ViT-B with LoRA in qkv and out, prompts, norms listed behind", "torchvision")
def adapted(small: bool) -> Two:
    """Two norms of one shape are told apart by names alone; six classes, a decoder of 768."""
    import torch
    from torch import nn
    from torchvision.models import VisionTransformer

    width, depth, heads, side, image = (32, 2, 2, 4, 16) if small else (768, 12, 12, 16, 224)
    source = VisionTransformer(image, side, depth, heads, width, 4 * width, num_classes=10)
    tokens = (image // side) ** 2 + 1

    class Lora(nn.Module):
        def __init__(self, out: int) -> None:
            super().__init__()
            self.frozen = nn.Linear(width, out)
            self.down = nn.Linear(width, 8, bias=False)
            self.up = nn.Linear(8, out, bias=False)
            nn.init.zeros_(self.up.weight)

        def forward(self, x: Any) -> Any:
            return self.frozen(x) + self.up(self.down(x))

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = Lora(width)
            self.qkv = Lora(3 * width)

        def forward(self, x: Any) -> Any:
            q, k, v = self.qkv(x).unflatten(-1, (3, heads, width // heads)).permute(2, 0, 3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.out(y.transpose(1, 2).flatten(2))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = Attention()
            self.ffn = nn.ModuleDict({"grow": nn.Linear(width, 4 * width), "shrink": nn.Linear(4 * width, width)})
            self.before_ffn = nn.LayerNorm(width, 1e-6)
            self.before_mix = nn.LayerNorm(width, 1e-6)

        def forward(self, x: Any) -> Any:
            x = x + self.mix(self.before_mix(x))
            return x + self.ffn["shrink"](nn.functional.gelu(self.ffn["grow"](self.before_ffn(x))))

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prompts = nn.Parameter(torch.zeros(depth, 10, width))
            self.cls = nn.Parameter(torch.zeros(1, 1, width))
            self.pos = nn.Parameter(torch.zeros(1, tokens, width))
            self.to_patches = nn.Conv2d(3, width, side, side)
            self.trunk = nn.ModuleList([Layer() for _ in range(depth)])
            self.post = nn.LayerNorm(width, 1e-6)
            self.decoder = nn.ModuleList([nn.Linear(width, width), nn.LayerNorm(width), nn.Linear(width, 256)])
            self.head = nn.Linear(width, 6)

        def forward(self, x: Any) -> Any:
            x = self.to_patches(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos
            for layer in self.trunk:
                x = layer(x)
            return self.post(x)

    def images() -> Any:
        return torch.randn(2, 3, image, image, generator=torch.Generator().manual_seed(1))

    def ask(model: Any) -> Any:
        x = model._process_input(images())
        return model.encoder(torch.cat([model.class_token.expand(len(x), -1, -1), x], 1))

    table: list[Any] = [
        (r"^heads.*", ""),
        (r"^class_token", "cls"),
        (r"^conv_proj", "to_patches"),
        (r"^encoder\.pos_embedding", "pos"),
        (r"^encoder\.ln", "post"),
        (r"^encoder\.layers\.encoder_layer_", "trunk."),
        (r"self_attention\.in_proj_", "mix.qkv.frozen."),
        (r"self_attention\.out_proj", "mix.out.frozen"),
        (r"\.ln_1", ".before_mix"),
        (r"\.ln_2", ".before_ffn"),
        (r"\.mlp\.0", ".ffn.grow"),
        (r"\.mlp\.3", ".ffn.shrink"),
    ]
    return to(source, Own(), table, ask=ask, ask_target=lambda model: model(images()),
              missing=["prompts", "decoder.*", "head.*", "trunk.*.up.weight", "trunk.*.down.weight"],
              truth="equal outputs while LoRA is zero")  # fmt: skip


@pair("blind, own: torchvision's ConvNeXt-T with response norms and 1x1 convolutions, under a pyramid", "torchvision")
def responses(small: bool) -> Two:
    """A stage owns its way down; where torchvision's has a norm in front, the stem has it behind; scales lose axes."""
    import torch
    from torch import nn
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    widths, depths = ((8, 16, 24, 32), (2, 1, 2, 1)) if small else ((96, 192, 384, 768), (3, 3, 9, 3))
    nexts = (*widths[1:], None)
    source = ConvNeXt([CNBlockConfig(*one) for one in zip(widths, nexts, depths, strict=True)], num_classes=10)

    class Response(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.beta = nn.Parameter(torch.zeros(1, size, 1, 1))
            self.gamma = nn.Parameter(torch.zeros(1, size, 1, 1))

        def forward(self, x: Any) -> Any:
            total = x.norm(dim=(2, 3), keepdim=True)
            return self.gamma * (x * total / (total.mean(1, keepdim=True) + 1e-6)) + self.beta + x

    class Norm(nn.LayerNorm):
        def forward(self, x: Any) -> Any:
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class Block(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.spatial = nn.Conv2d(size, size, 7, padding=3, groups=size)
            self.wide = nn.Conv2d(size, 4 * size, 1)
            self.grn = Response(4 * size)
            self.narrow = nn.Conv2d(4 * size, size, 1)
            self.norm = Norm(size, 1e-6)
            self.gamma = nn.Parameter(torch.ones(size))

        def forward(self, x: Any) -> Any:
            y = self.narrow(self.grn(nn.functional.gelu(self.wide(self.norm(self.spatial(x))))))
            return x + self.gamma[:, None, None] * y

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            into = 3
            for stage, (size, depth) in enumerate(zip(widths, depths, strict=True)):
                down = {"conv": nn.Conv2d(into, size, 2, 2), "norm": Norm(into, 1e-6)}
                if not stage:
                    down = {"conv": nn.Conv2d(into, size, 4, 4), "norm": Norm(size, 1e-6)}
                body = nn.Sequential(*(Block(size) for _ in range(depth)))
                level = nn.ModuleDict({"down": nn.ModuleDict(down), "body": body})
                setattr(self, f"level{stage + 1}", level)
                into = size
            self.pyramid = nn.ModuleDict({
                "lateral": nn.ModuleList([nn.Conv2d(size, 256, 1) for size in widths]),
                "smooth": nn.ModuleList([nn.Conv2d(256, 256, 3, padding=1) for _ in widths]),
            })  # fmt: skip

        def forward(self, x: Any) -> Any:
            for stage in range(1, 5):
                level = getattr(self, f"level{stage}")
                conv, norm = level["down"]["conv"], level["down"]["norm"]
                x = level["body"](norm(conv(x)) if stage == 1 else conv(norm(x)))
            return x

    def images() -> Any:
        return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    table: list[Any] = [
        (r"^classifier.*", ""),
        (r"^features\.0\.0", "level1.down.conv"),
        (r"^features\.0\.1", "level1.down.norm"),
        (r"^features\.([246])\.0", lambda m: f"level{int(m[1]) // 2 + 1}.down.norm"),
        (r"^features\.([246])\.1", lambda m: f"level{int(m[1]) // 2 + 1}.down.conv"),
        (r"^features\.([1357])\.", lambda m: f"level{int(m[1]) // 2 + 1}.body."),
        (r"\.layer_scale", ".gamma"),
        (r"\.block\.0", ".spatial"),
        (r"\.block\.2", ".norm"),
        (r"\.block\.3", ".wide"),
        (r"\.block\.5", ".narrow"),
    ]
    layouts = [(r"block\.[35]\.weight", "o i -> o i 1 1"), (r"layer_scale", "c 1 1 -> c")]
    return to(source, Own(), table, layouts, missing=["*.grn.*", "pyramid.*"],
              ask=lambda model: model.features(images()), ask_target=lambda model: model(images()),
              truth="equal outputs while the response norms are zero")  # fmt: skip


@pair("blind, own: milesial's U-Net with group norms and attention gates for four channels, decoder first")
def attentive(small: bool) -> Two:
    """The decoder is listed first, deepest level last; a group norm may take a batch norm's weights, or be new."""
    source, target, undecided = Net(), Net(), ["*.gn.*"]

    def double(name: str, out: int, into: int) -> None:
        source.conv(f"{name}.double_conv.0", out, into, 3, bias=False)
        source.bn(f"{name}.double_conv.1", out)
        source.conv(f"{name}.double_conv.3", out, out, 3, bias=False)
        source.bn(f"{name}.double_conv.4", out)

    def own(name: str, out: int, into: int) -> None:
        for part, size in (("first", into), ("second", out)):
            target.conv(f"{name}.{part}.conv", out, size, 3, bias=False)
            target.norm(f"{name}.{part}.gn", out)

    double("inc", 64, 3)
    for level in range(1, 5):
        double(f"down{level}.maxpool_conv.1", 64 << level, 32 << level)
    for level in range(1, 5):
        out = 1024 >> level
        source.conv(f"up{level}.up", 2 * out, out, 2, bias=False)
        source.put(f"up{level}.up.bias", out)
        double(f"up{level}.conv", out, 2 * out)
    source.conv("outc.conv", 2, 64, 1)
    for level in range(4):
        out = 64 << level
        at = f"decoder.level{level}"
        for name, wide, into in (("from_below", out // 2, out), ("from_skip", out // 2, out), ("psi", 1, out // 2)):
            target.conv(f"{at}.gate.{name}", wide, into, 1)
        own(f"{at}.block", out, 2 * out)
        target.conv(f"{at}.upsample", 2 * out, out, 2, bias=False)
        target.put(f"{at}.upsample.bias", out)
    for level in range(5):
        own(f"encoder.level{level}", 64 << level, 32 << level if level else 4)
    target.conv("output", 4, 64, 1)
    table: list[Any] = [
        (r"^outc.*", ""),
        (r".*(running_mean|running_var|num_batches_tracked)$", ""),
        (r"^inc\.double_conv\.0.*", ""),
        (r"^inc\.", "encoder.level0."),
        (r"^down(\d)\.maxpool_conv\.1\.", r"encoder.level\1."),
        (r"^up(\d)\.up", lambda m: f"decoder.level{4 - int(m[1])}.upsample"),
        (r"^up(\d)\.conv", lambda m: f"decoder.level{4 - int(m[1])}.block"),
        (r"double_conv\.0", "first.conv"),
        (r"double_conv\.1", "first.gn"),
        (r"double_conv\.3", "second.conv"),
        (r"double_conv\.4", "second.gn"),
    ]
    return to(source, target, table, undecided=undecided,
              missing=["output.*", "*.gate.*", "encoder.level0.first.conv.weight"],
              truth="milesial/Pytorch-UNet's code; the other side by construction")  # fmt: skip


@pair("blind, own: six of BERT's twelve layers for captions: qkv joined, cross attention in between", "transformers")
def captions(small: bool) -> Two:
    """Cross attention has square matrices and a norm of the same shapes; it is new."""
    import transformers

    source = transformers.BertModel(transformers.BertConfig())
    target, groups, width = Net(), [], 768
    target.lin("module.image.project", width, 2048)
    target.norm("module.image.norm", width)
    target.put("module.text.tok.weight", 30522, width)
    target.put("module.text.seg.weight", 2, width)
    target.put("module.text.pos.weight", 512, width)
    target.norm("module.text.ln", width)
    for layer in range(6):
        at, here = f"module.text.blocks.{layer}", f"encoder.layer.{layer}.attention.self"
        target.lin(f"{at}.sa.wqkv", 3 * width, width)
        target.lin(f"{at}.sa.wo", width, width)
        target.norm(f"{at}.sa.ln", width)
        target.lin(f"{at}.xa.wq", width, width)
        target.lin(f"{at}.xa.wkv", 2 * width, width)
        target.lin(f"{at}.xa.wo", width, width)
        target.norm(f"{at}.xa.ln", width)
        target.lin(f"{at}.ff.w1", 4 * width, width)
        target.lin(f"{at}.ff.w2", width, 4 * width)
        target.norm(f"{at}.ff.ln", width)
        for tail, left, right in (("weight", "a i, b i, c i", "(a + b + c) i"), ("bias", "a, b, c", "(a + b + c)")):
            parts = ", ".join(f"{here}.{x}.{tail}" for x in ("query", "key", "value"))
            groups.append(f"{parts} -> {at}.sa.wqkv.{tail} | {left} -> {right}")
    target.lin("module.text.vocab", 10000, width)
    table: list[Any] = [
        (r"^pooler.*", ""),
        (r"^encoder\.layer\.([6-9]|1\d)\..*", ""),
        (r".*attention\.self.*", "@"),
        (r"^embeddings\.word_embeddings", "module.text.tok"),
        (r"^embeddings\.token_type_embeddings", "module.text.seg"),
        (r"^embeddings\.position_embeddings", "module.text.pos"),
        (r"^embeddings\.LayerNorm", "module.text.ln"),
        (r"^encoder\.layer", "module.text.blocks"),
        (r"attention\.output\.dense", "sa.wo"),
        (r"attention\.output\.LayerNorm", "sa.ln"),
        (r"intermediate\.dense", "ff.w1"),
        (r"output\.dense", "ff.w2"),
        (r"output\.LayerNorm", "ff.ln"),
    ]
    return to(source, target, table, groups=groups, missing=["module.image.*", "*.xa.*", "module.text.vocab.*"],
              truth="by construction: BERT's first six layers under other words")  # fmt: skip


@pair("blind, own: EfficientNet-B0 without its gates, 1D convolutions of channels in their place", "torchvision")
def channels(small: bool) -> Two:
    """Expanding, depthwise and projecting convolutions are called so; four laterals are new, the last 1x1 is gone."""
    from torchvision.models import efficientnet_b0

    source = efficientnet_b0(weights=None)
    tensors = state(source)

    def name_of(key: str) -> str:
        if key.startswith(("classifier", "features.8")):
            return ""
        found = re.match(r"features\.(\d)\.(\d+)\.block\.(\d)\.(\w+)\.(\w+)$", key)
        if not found:
            return re.sub(r"^features\.0\.([01])", lambda m: f"net.stem.{('conv', 'bn')[int(m[1])]}", key)
        stage, unit, at, part, tail = found.groups()
        parts = ["depth", "", "project"] if stage == "1" else ["expand", "depth", "", "project"]
        word = parts[int(at)]
        return f"net.stage{stage}.unit{unit}.{word}.{('conv', 'bn')[int(part)]}.{tail}" if word else ""

    target = Net()
    done = set()
    for key, tensor in tensors.items():
        name = name_of(key)
        if ".project." in name and (unit := name.split(".project.")[0]) not in done:
            target.put(f"{unit}.eca.weight", 1, 1, 5 if tensor.shape[1] > 200 else 3)
            done.add(unit)
        if name:
            target[name] = tensor
    for level, size in enumerate((24, 40, 112, 320), 2):
        target.conv(f"lateral.p{level}.conv", 128, size, 1, bias=False)
        target.bn(f"lateral.p{level}.bn", 128)
    target.conv("head.predict", 19, 128, 1)
    rules = [f"{key} -> {name_of(key) or '!'}" for key in tensors]
    return Two(source, target, rules, missing=["*.eca.weight", "lateral.*", "head.*"],
               proof="by construction: torchvision's order in a block is expand, depthwise, gate, project")  # fmt: skip


@pair("blind, own: eight of DeiT-S' twelve blocks as nested Sequentials beside a ResNet of 64 to 256", "timm",
      "torchvision")  # fmt: skip
def fused(small: bool) -> Two:
    """Norm, attention, norm, perceptron are numbers in two branches; positions are another image's; no class token."""
    import timm
    from torchvision.models import resnet34

    source = timm.create_model("deit_small_patch16_224")
    target, width = Net(), 384
    for key, tensor in state(resnet34(weights=None)).items():
        if not key.startswith(("fc", "layer4")):
            target[f"cnn.{key}"] = tensor
    target.put("transformer.positions", 1, 192, width)
    target.conv("transformer.patches.0", width, 3, 16)
    for block in range(8):
        at = f"transformer.body.{block}"
        target.norm(f"{at}.0.fn.0", width)
        target.lin(f"{at}.0.fn.1.0", 3 * width, width)
        target.lin(f"{at}.0.fn.1.2", width, width)
        target.norm(f"{at}.1.fn.0", width)
        target.lin(f"{at}.1.fn.1.0", 4 * width, width)
        target.lin(f"{at}.1.fn.1.3", width, 4 * width)
    target.norm("transformer.body.8", width)
    for level, size in enumerate((256, 128, 64)):
        target.conv(f"fuse.{level}.from_cnn.0", width, size, 1)
        target.bn(f"fuse.{level}.from_cnn.1", width)
        target.conv(f"fuse.{level}.squeeze", width // 16, width, 1)
        target.conv(f"fuse.{level}.excite", width, width // 16, 1)
        target.lin(f"fuse.{level}.mix", width, width)
        target.norm(f"fuse.{level}.norm", width)
    target.conv("segment", 1, width, 1)
    table: list[Any] = [
        (r"^(cls_token|pos_embed|head\..*)$", ""),
        (r"^blocks\.([89]|1\d)\..*", ""),
        (r"^patch_embed\.proj", "transformer.patches.0"),
        (r"^norm\.", "transformer.body.8."),
        (r"^blocks", "transformer.body"),
        (r"\.norm1", ".0.fn.0"),
        (r"\.attn\.qkv", ".0.fn.1.0"),
        (r"\.attn\.proj", ".0.fn.1.2"),
        (r"\.norm2", ".1.fn.0"),
        (r"\.mlp\.fc1", ".1.fn.1.0"),
        (r"\.mlp\.fc2", ".1.fn.1.3"),
    ]
    return to(source, target, table, missing=["cnn.*", "transformer.positions", "fuse.*", "segment.*"],
              truth="by construction: a block is attention, then perceptron, each behind its norm")  # fmt: skip


@pair("blind, own: three of DenseNet-121's four blocks for one channel, for a student and its moving average",
      "torchvision")  # fmt: skip
def averaged(small: bool) -> Two:
    """One file for two equal nets: both begin with it; a transition belongs to the block in front."""
    from torchvision.models import densenet121

    source = densenet121(weights=None)
    tensors = state(source)

    def name_of(key: str) -> str:
        if re.match(r"features\.(conv0|denseblock4|transition3|norm5)|classifier", key):
            return ""
        key = re.sub(r"^features\.norm0", "entry.bn", key)
        key = re.sub(r"^features\.denseblock(\d)\.denselayer(\d+)\.",
                     lambda m: f"dense{m[1]}.layers.{int(m[2]) - 1}.", key)  # fmt: skip
        key = re.sub(r"^features\.transition(\d)\.", r"dense\1.shrink.", key)
        key = re.sub(r"\.norm(\d)", lambda m: f".{('narrow', 'grow')[int(m[1]) - 1]}.bn", key)
        key = re.sub(r"\.conv(\d)", lambda m: f".{('narrow', 'grow')[int(m[1]) - 1]}.conv", key)
        return re.sub(r"shrink\.norm", "shrink.bn", key)

    target, rules = Net(), []
    for side in ("student", "average"):
        target.conv(f"{side}.entry.conv", 64, 1, 7, bias=False)
        for key, tensor in tensors.items():
            if name := name_of(key):
                target[f"{side}.{name}"] = tensor
        target.lin(f"{side}.exit", 14, 1024)
    for key in tensors:
        name = name_of(key)
        rules.append(f"{key} -> student.{name}, average.{name}" if name else f"{key} -> !")
    return Two(source, target, rules, missing=["*.entry.conv.weight", "*.exit.*"],
               proof="by construction: the average starts as the student's copy")  # fmt: skip


@pair("blind, renamed: ResNeXt-50 in French: tige, etage, bloc, raccourci, poids", "torchvision")
def french(small: bool) -> Two:
    """The shortcut is listed in front of what it leads around; tails are French, too."""
    from torchvision.models import resnext50_32x4d

    tails = {"weight": "poids", "bias": "biais", "running_mean": "moyenne", "running_var": "variance",
             "num_batches_tracked": "compteur"}  # fmt: skip
    words = {"conv1": "reduction.convolution", "bn1": "reduction.normalisation", "conv2": "centre.convolution",
             "bn2": "centre.normalisation", "conv3": "expansion.convolution", "bn3": "expansion.normalisation",
             "downsample.0": "raccourci.convolution", "downsample.1": "raccourci.normalisation"}  # fmt: skip

    def name_of(key: str) -> str:
        module, tail = key.rsplit(".", 1)
        found = re.match(r"layer(\d)\.(\d)\.(.*)", module)
        if found:
            module = f"corps.etage{found[1]}.bloc{int(found[2]) + 1}.{words[found[3]]}"
        else:
            module = {"conv1": "tige.convolution", "bn1": "tige.normalisation", "fc": "tete.lineaire"}[module]
        return f"{module}.{tails[tail]}"

    def order(key: str) -> tuple[Any, ...]:
        found = re.match(r"layer(\d)\.(\d)\.", key)
        block = (int(found[1]), int(found[2])) if found else (9 if key.startswith("fc") else 0, 0)
        return (*block, "downsample" not in key)

    return called(resnext50_32x4d(weights=None), name_of, order)


@pair("blind, renamed: BART in German: Abfrage, Schluessel, Wert, layers counted from 1, norms last", "transformers")
def german(small: bool) -> Two:
    """Hugging Face lists k, v, q, out; here it is q, k, v, out; the tied table is saved once."""
    import transformers

    config = transformers.BartConfig(vocab_size=50265, d_model=768, encoder_layers=4, decoder_layers=4,
                                     encoder_attention_heads=12, decoder_attention_heads=12, encoder_ffn_dim=3072,
                                     decoder_ffn_dim=3072)  # fmt: skip
    source = {key: tensor for key, tensor in state(transformers.BartModel(config)).items() if "embed_tokens" not in key}
    table: list[Swap] = [
        (r"^shared", "wortschatz"),
        (r"^encoder", "kodierer"),
        (r"^decoder", "dekodierer"),
        (r"embed_positions", "stellen"),
        (r"layernorm_embedding", "norm_eingang"),
        (r"layers\.(\d)", lambda m: f"schicht{int(m[1]) + 1}"),
        (r"self_attn_layer_norm", "norm_selbst"),
        (r"encoder_attn_layer_norm", "norm_kreuz"),
        (r"final_layer_norm", "norm_schluss"),
        (r"self_attn", "selbst"),
        (r"encoder_attn", "kreuz"),
        (r"q_proj", "abfrage"),
        (r"k_proj", "schluessel"),
        (r"v_proj", "wert"),
        (r"out_proj", "ausgang"),
        (r"fc1", "hinauf"),
        (r"fc2", "hinab"),
        (r"weight$", "gewicht"),
        (r"bias$", "versatz"),
    ]

    def name_of(key: str) -> str:
        return renamed(key, table)

    parts = ["selbst.abfrage", "selbst.schluessel", "selbst.wert", "selbst.ausgang", "kreuz.abfrage",
             "kreuz.schluessel", "kreuz.wert", "kreuz.ausgang", "hinauf", "hinab", "norm_selbst", "norm_kreuz",
             "norm_schluss"]  # fmt: skip

    def order(key: str) -> tuple[Any, ...]:
        name = name_of(key)
        side = ["wortschatz", "kodierer", "dekodierer"].index(name.split(".")[0])
        found = re.search(r"schicht(\d)\.(.*)\.\w+$", name)
        return (side, int(found[1]), parts.index(found[2])) if found else (side, 0, 0)

    return called(source, name_of, order)


@pair("blind, renamed: ShuffleNet v2 in Japanese, flat: dankai2_0_migi_tatamikomi1_omomi", "torchvision")
def japanese(small: bool) -> Two:
    """Numbers of a branch are the nth convolution and the nth norm of it; left is branch1, right is branch2."""
    from torchvision.models import shufflenet_v2_x1_0

    tails = {"weight": "omomi", "bias": "katayori", "running_mean": "heikin", "running_var": "bunsan",
             "num_batches_tracked": "kaisuu"}  # fmt: skip
    left = {"0": "tatamikomi1", "1": "seikika1", "2": "tatamikomi2", "3": "seikika2"}
    right = {"0": "tatamikomi1", "1": "seikika1", "3": "tatamikomi2", "4": "seikika2", "5": "tatamikomi3",
             "6": "seikika3"}  # fmt: skip

    def name_of(key: str) -> str:
        module, tail = key.rsplit(".", 1)
        found = re.match(r"stage(\d)\.(\d)\.branch(\d)\.(\d)", module)
        if found:
            side, words = (("hidari", left), ("migi", right))[int(found[3]) - 1]
            module = f"dankai{found[1]}_{found[2]}_{side}_{words[found[4]]}"
        else:
            module = {"conv1.0": "iriguchi_tatamikomi", "conv1.1": "iriguchi_seikika", "fc": "zenketsugou",
                      "conv5.0": "deguchi_tatamikomi", "conv5.1": "deguchi_seikika"}[module]  # fmt: skip
        return f"{module}_{tails[tail]}"

    return called(shufflenet_v2_x1_0(weights=None), name_of)


@pair("blind, renamed: Swin-T read backwards: qkv_attn_b0_s1.weight", "torchvision")
def backwards(small: bool) -> Two:
    """The part is in front, block and stage behind; a merging counts with the stage before it."""
    from torchvision.models import swin_t

    def name_of(key: str) -> str:
        key = re.sub(r"relative_position_bias_table$", "bias_table.weight", key)
        key = re.sub(r"relative_position_index$", "bias_table.index", key)
        module, tail = key.rsplit(".", 1)
        parts = module.split(".")
        if parts[0] == "features" and parts[1] == "0":
            return f"{'proj' if parts[2] == '0' else 'ln'}_patch.{tail}"
        if parts[0] == "features" and int(parts[1]) % 2:
            stage, block = int(parts[1]) // 2 + 1, parts[2]
            what = "_".join(reversed(parts[3:])).replace("0_mlp", "up_mlp").replace("3_mlp", "down_mlp")
            return f"{what}_b{block}_s{stage}.{tail}"
        if parts[0] == "features":
            return f"{parts[2]}_merge_s{int(parts[1]) // 2}.{tail}"
        return f"{'ln_out' if parts[0] == 'norm' else 'logits_out'}.{tail}"

    return called(swin_t(weights=None), name_of)
