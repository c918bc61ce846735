"""Pairs held back until the matcher was written: its first answers to them had no mistake, and missed 3 of 7."""

from __future__ import annotations

from typing import Any

from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import parse_recipe
from tests.bench.match.pairs import State, Two, both_sorted, image, pair, renamed, shuffled, specs_of, variant
from tests.bench.match.pairs_hand import rows
from tests.bench.match.pairs_text import transformers
from tests.bench.match.pairs_timm import timm_convnext


@pair("ConvNeXt in its authors' names to timm", "timm")
def convnext_authors(small: bool) -> Two:
    """downsample_layers stand together in front of the stages; the norm and the head have no common parent."""
    names = [
        "stem.{k**} -> downsample_layers.0.{k**}",
        "stages.{s}.downsample.{k**} -> downsample_layers.{s}.{k**}",
        "stages.{s}.blocks.{b}.{n=conv_dw|mlp.fc1|mlp.fc2}.{p*} -> stages.{s}.{b}.{n=dwconv|pwconv1|pwconv2}.{p*}",
        "stages.{s}.blocks.{b}.norm.{p*} -> stages.{s}.{b}.norm.{p*}",
        "stages.{s}.blocks.{b}.gamma -> stages.{s}.{b}.gamma",
        "head.norm.{p*} -> norm.{p*}",
        "head.fc.{p*} -> head.{p*}",
    ]

    def authors(state: State) -> State:
        found = renamed(names)(state)
        return {key: found[key] for key in sorted(found, key=lambda k: (k[0] != "d", k[0] != "s"))}

    rules = [" -> ".join(reversed(name.split(" -> "))) for name in names]
    return Two(timm_convnext(small), timm_convnext(small), rules, source_file=authors, ask=lambda m: m(image(64)))


@pair("nn.Transformer to modules of one's own")
def whole_transformer(small: bool) -> Two:
    """Encoder and decoder, fused attention and cross attention; written here as q, k and v."""
    import torch
    from torch import nn

    model = nn.Transformer(32, 4, 2, 3, 64, batch_first=True)
    attention = "{a=self_attn|multihead_attn}"
    there = "{a=attention|source_attention}"
    rules = [
        "encoder.layers.{i}.self_attn.in_proj_{p*} -> enc.{i}.attention.{x=query|key|value}.{p*} | (x o) ... -> o ...",
        "encoder.layers.{i}.self_attn.out_proj.{p*} -> enc.{i}.attention.output.{p*}",
        f"decoder.layers.{{i}}.{attention}.in_proj_{{p*}} -> dec.{{i}}.{there}.{{x=query|key|value}}.{{p*}}"
        " | (x o) ... -> o ...",
        f"decoder.layers.{{i}}.{attention}.out_proj.{{p*}} -> dec.{{i}}.{there}.output.{{p*}}",
        "encoder.layers.{i}.linear{n=1|2}.{p*} -> enc.{i}.feed_forward.{n=0|2}.{p*}",
        "decoder.layers.{i}.linear{n=1|2}.{p*} -> dec.{i}.feed_forward.{n=0|2}.{p*}",
        "encoder.layers.{i}.norm{n=1|2}.{p*} -> enc.{i}.{n=attention_norm|feed_forward_norm}.{p*}",
        "decoder.layers.{i}.norm{n=1|2|3}.{p*} -> "
        "dec.{i}.{n=attention_norm|source_attention_norm|feed_forward_norm}.{p*}",
        "{t=encoder|decoder}.norm.{p*} -> {t=enc|dec}_norm.{p*}",
    ]
    found = expand(parse_recipe(rules), specs_of(model.state_dict()))
    target = {step.target.key: torch.empty(step.target.shape) for step in found.steps}
    return Two(model, target, rules, proof="by construction")


@pair("a GRU in two directions to two stacks of cells")
def gru(small: bool) -> Two:
    import torch
    from torch import nn

    class Cells(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backward_cells = nn.ModuleList(nn.GRUCell(32 if at == 0 else 64, 32) for at in range(2))
            self.forward_cells = nn.ModuleList(nn.GRUCell(32 if at == 0 else 64, 32) for at in range(2))

        def run(self, cell: Any, x: torch.Tensor) -> torch.Tensor:
            state, steps = None, []
            for step in x.unbind(1):
                state = cell(step, state)
                steps.append(state)
            return torch.stack(steps, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for there, back in zip(self.forward_cells, self.backward_cells, strict=True):
                x = torch.cat([self.run(there, x), self.run(back, x.flip(1)).flip(1)], -1)
            return x

    source = nn.ModuleDict({"rnn": nn.GRU(32, 32, 2, batch_first=True, bidirectional=True)})
    rules = [
        "rnn.{w=weight|bias}_{x=ih|hh}_l{i}_reverse -> backward_cells.{i}.{w}_{x}",
        "rnn.{w=weight|bias}_{x=ih|hh}_l{i} -> forward_cells.{i}.{w}_{x}",
    ]
    return Two(source, Cells(), rules, ask=lambda m: m["rnn"](rows())[0], ask_target=lambda m: m(rows()))


def wide(names: tuple[str, ...], stage: str, shortcut: str) -> Any:
    """A pre-activation wide ResNet for CIFAR, its parts under names of one's own."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, a: int, b: int) -> None:
            super().__init__()
            first, second = (nn.Conv2d(n, b, 3, padding=1, bias=False) for n in (a, b))
            modules = (nn.BatchNorm2d(a), first, nn.BatchNorm2d(b), second)
            for name, module in zip(names, modules, strict=True):
                setattr(self, name, module)
            if a != b:
                setattr(self, shortcut, nn.Conv2d(a, b, 1, bias=False))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            norm1, conv1, norm2, conv2 = (getattr(self, name) for name in names)
            y = conv2(functional.relu(norm2(conv1(functional.relu(norm1(x))))))
            return y + (getattr(self, shortcut)(x) if hasattr(self, shortcut) else x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
            before = 16
            for at, width in enumerate((32, 64, 128), 1):
                blocks = []
                for _ in range(3):
                    blocks.append(Block(before, width))
                    before = width
                setattr(self, stage.format(at), nn.Sequential(*blocks))
            self.bn1, self.fc = nn.BatchNorm2d(before), nn.Linear(before, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv1(x)
            for at in (1, 2, 3):
                x = getattr(self, stage.format(at))(x)
            return self.fc(functional.relu(self.bn1(x)).mean((2, 3)))

    return Net()


@pair("a wide ResNet in two spellings")
def wide_resnet(small: bool) -> Two:
    source = wide(("bn1", "conv1", "bn2", "conv2"), "block{}", "convShortcut")
    target = wide(("norm_a", "conv_a", "norm_b", "conv_b"), "stage_{}", "proj")
    block = "block{s}.{b}."
    to = "stage_{s}.{b}."
    rules = [
        f"{block}{{m=bn|conv}}{{n=1|2}}.{{p*}} -> {to}{{m=norm|conv}}_{{n=a|b}}.{{p*}}",
        f"{block}convShortcut.{{p*}} -> {to}proj.{{p*}}",
    ]
    return Two(source, target, rules, ask=lambda m: m(image()))


variant("a wide ResNet in two spellings, shuffled", "a wide ResNet in two spellings", shuffled)
variant("nn.Transformer to modules of one's own, sorted", "nn.Transformer to modules of one's own", both_sorted)


@pair("mobilenet_v3_large to timm", "torchvision", "timm")
def mobilenet(small: bool) -> Two:
    """Blocks are one list there and stages of blocks here. Other epsilons: no equal outputs."""
    import timm
    import torchvision

    stages = [1, 2, 3, 4, 2, 3]
    rules = ["features.0.{n=0|1}.{p*} -> {n=conv_stem|bn1}.{p*}", "features.16.0.{p*} -> blocks.6.0.conv.{p*}",
             "features.16.1.{p*} -> blocks.6.0.bn1.{p*}", "classifier.3.{p*} -> classifier.{p*}",
             "classifier.0.weight -> conv_head.weight | o i -> o i 1 1",
             "classifier.0.bias -> conv_head.bias"]  # fmt: skip
    source = torchvision.models.mobilenet_v3_large()
    at = 0
    for stage, number in enumerate(stages):
        for block in range(number):
            at += 1
            parts = list(source.features[at].block)
            here, there = f"features.{at}.block", f"blocks.{stage}.{block}"
            convs = [n for n, part in enumerate(parts) if type(part).__name__ == "Conv2dNormActivation"]
            to = ["conv_pw", "conv_dw", "conv_pwl"] if len(convs) == 3 else ["conv_dw", "conv_pw"]
            for order, (place, name) in enumerate(zip(convs, to, strict=True), 1):
                rules += [f"{here}.{place}.0.{{p*}} -> {there}.{name}.{{p*}}",
                          f"{here}.{place}.1.{{p*}} -> {there}.bn{order}.{{p*}}"]  # fmt: skip
            for place in set(range(len(parts))) - set(convs):
                rules.append(f"{here}.{place}.{{n=fc1|fc2}}.{{p*}} -> {there}.se.{{n=conv_reduce|conv_expand}}.{{p*}}")
    return Two(source, timm.create_model("mobilenetv3_large_100"), rules, proof="the same architecture, block by block")


@pair("unrelated: T5 and Whisper, of equal width", "transformers")
def unrelated_speech(small: bool) -> Two:
    package = transformers()
    base = {"d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8,
            "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048}  # fmt: skip
    speech = package.WhisperForConditionalGeneration(package.WhisperConfig(**base))
    return Two(package.T5ForConditionalGeneration(package.T5Config()), speech, None)


@pair("unrelated: a wide ResNet and a U-Net of equal widths")
def unrelated_pixels(small: bool) -> Two:
    from torch import nn

    def block(a: int, b: int) -> Any:
        return nn.Sequential(nn.Conv2d(a, b, 3), nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, 3), nn.BatchNorm2d(b))

    sizes = [(3, 16), (16, 32), (32, 64), (64, 128), (192, 64), (96, 32)]
    target = nn.ModuleDict({f"level{at}": block(*size) for at, size in enumerate(sizes)})
    return Two(wide(("bn1", "conv1", "bn2", "conv2"), "block{}", "convShortcut"), target, None)
