"""Strangers: pairs written from the published conversion scripts before their author had opened the matcher.

A table of patterns renames the target's keys backwards; layouts are forwards. Sources keep the order of the target's
modules, as an author's model has them; `orders.py` sorts and shuffles them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ckptool.core.plan import sources_of
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import recipe_of
from ckptool.recipes.reverse import reverse
from tests.bench.match.pairs import State, Two, any_of, pair, specs_of

Swap = tuple[str, str | Callable[[re.Match[str]], str]]
Rules = list[str]


def told(
    state: State, table: Sequence[Swap], layouts: Sequence[tuple[str, str]] = (), skip: Sequence[str] = ()
) -> Rules:
    """A rule for each target tensor; a source name with `{x=...}` is a group and a rule of its own."""
    rules = {}
    for key in state:
        if any_of(skip, [key]):
            continue
        name = key
        for pattern, to in table:
            name = re.sub(pattern, to, name)
        layout = next((layout for pattern, layout in layouts if re.search(pattern, key)), "")
        rules[f"{name} -> {key}" + (f" | {layout}" if layout else "")] = None
    return list(rules)


def split(rules: Rules, pattern: str, to: str, parts: str = "qkv") -> Rules:
    """Joins the rules of the parts of a fused source: `pattern` has a group for the part in source names."""
    joined: dict[str, dict[str, str]] = {}
    kept = []
    for rule in rules:
        name, key = rule.split(" -> ")[:2]
        found = re.search(pattern, name)
        if found:
            joined.setdefault(re.sub(pattern, to, name), {})[found[1]] = key
        else:
            kept.append(rule)
    left = " + ".join(parts)
    for name, keys in joined.items():
        tail = " i" if name.endswith("weight") else ""
        layout = f"({left}){tail} -> " + ", ".join(f"{part}{tail}" for part in parts)
        kept.append(f"{name} -> {', '.join(keys[part] for part in parts)} | {layout}")
    return kept


def file_of(rules: Rules, state: State, vars: Mapping[str, float] | None = None, sort: bool = False) -> dict[str, Any]:
    """The source file that the rules start from, in the order of the target's modules or of letters."""
    import torch

    found = expand(reverse(recipe_of(rules)).recipe, specs_of(state), vars=vars or {})
    assert not found.problems, [(problem.message, problem.keys[:3]) for problem in found.problems]
    place = {key: at for at, key in enumerate(state)}
    first = {s.target.key: min((place[src.key] for src in sources_of(s.value)), default=0) for s in found.steps}
    shapes = {step.target.key: step.target.shape for step in found.steps}
    names = sorted(shapes) if sort else sorted(shapes, key=lambda key: first[key])
    return {key: torch.empty(shapes[key]) for key in names}


def two(
    model: Any,
    table: Sequence[Swap],
    layouts: Sequence[tuple[str, str]] = (),
    *,
    skip: Sequence[str] = (),
    undecided: Sequence[str] = (),
    fused: Sequence[tuple[str, ...]] = (),
    vars: Mapping[str, float] | None = None,
    sort: bool = False,
    extra: State | None = None,
    rules: Sequence[str] = (),
) -> Two:
    """A pair from a target and a table; `rules` are written by hand for the targets in `skip`."""
    state = model if isinstance(model, Mapping) else model.state_dict()
    made = told(state, table, layouts, skip)
    for one in fused:
        made = split(made, *one)
    made += list(rules)
    known = {t.strip() for rule in made for t in rule.split(" -> ")[1].split(" | ")[0].split(",")}
    kept = {key: tensor for key, tensor in state.items() if key in known or (rules and not any_of(skip, [key]))}
    if rules:
        kept = dict(state)
        for gone in skip:
            if gone.startswith("!"):
                kept = {key: tensor for key, tensor in kept.items() if not any_of([gone[1:]], [key])}
    source = file_of(made, kept, vars, sort)
    source.update(extra or {})
    return Two(source, model, made, vars=vars or {}, missing=list(skip), undecided=list(undecided), proof="by script")


def lay(text: str) -> dict[str, Any]:
    """A state dict from lines of `key size size`; `{0-3}` counts."""
    import torch

    found = {}
    for line in text.split("\n"):
        if not line.strip():
            continue
        key, *sizes = line.split()
        for name in _counted(key):
            found[name] = torch.empty([int(size) for size in sizes])
    return found


def _counted(key: str) -> list[str]:
    found = re.search(r"\{(\d+)-(\d+)\}", key)
    if not found:
        return [key]
    return [n for at in range(int(found[1]), int(found[2]) + 1)
            for n in _counted(key[: found.start()] + str(at) + key[found.end() :])]  # fmt: skip


def hf(name: str, config: str, **sizes: Any) -> Any:
    from tests.bench.match.pairs_text import transformers

    package = transformers()
    return getattr(package, name)(getattr(package, config)(**sizes))


def tv(name: str, **more: Any) -> Any:
    import torchvision

    return torchvision.models.get_model(name, **more)


def tm(name: str, **more: Any) -> Any:
    import timm

    return timm.create_model(name, **more)


COUNTERS = ["*.num_batches_tracked", "num_batches_tracked"]
SLIM: list[Swap] = [
    (r"\.bn\.weight$", "/BatchNorm/gamma"), (r"\.bn\.bias$", "/BatchNorm/beta"),
    (r"\.bn\.running_mean$", "/BatchNorm/moving_mean"), (r"\.bn\.running_var$", "/BatchNorm/moving_variance"),
]  # fmt: skip
KERAS: list[Swap] = [
    (r"(bn\w*|BN)\.weight$", r"\1/gamma"), (r"(bn\w*|BN)\.bias$", r"\1/beta"),
    (r"(bn\w*|BN)\.running_mean$", r"\1/moving_mean"), (r"(bn\w*|BN)\.running_var$", r"\1/moving_variance"),
]  # fmt: skip
HWIO = "a b i o -> o i a b"
DEPTHWISE = "a b c m -> c m a b"
IO = "i o -> o i"


# ---------------------------------------------------------------------------------------------- convolutional networks


@pair("stranger: Caffe2's ResNet-50, flat names, to torchvision", "torchvision")
def caffe2(small: bool) -> Two:
    table: list[Swap] = [
        (r"^layer(\d)\.(\d+)\.", lambda m: f"res{int(m[1]) + 1}_{m[2]}_"),
        (r"conv([123])\.weight$", lambda m: f"branch2{'abc'[int(m[1]) - 1]}_w"),
        (r"(?<=_)bn([123])\.", lambda m: f"branch2{'abc'[int(m[1]) - 1]}_bn."),
        (r"downsample\.0\.weight", "branch1_w"), (r"downsample\.1\.", "branch1_bn."),
        (r"^branch2a_w$", "conv1_w"), (r"^bn1\.", "res_conv1_bn."), (r"^fc\.weight", "pred_w"),
        (r"^fc\.bias", "pred_b"),
        (r"_bn\.weight", "_bn_s"), (r"_bn\.bias", "_bn_b"), (r"_bn\.running_mean", "_bn_rm"),
        (r"_bn\.running_var", "_bn_riv"),
    ]  # fmt: skip
    return two(tv("resnet50"), table, skip=COUNTERS)


@pair("stranger: TF-slim's resnet_v1_50 to torchvision", "torchvision")
def slim_resnet(small: bool) -> Two:
    table: list[Swap] = [
        (r"^layer(\d)\.(\d+)\.", lambda m: f"resnet_v1_50/block{m[1]}/unit_{int(m[2]) + 1}/bottleneck_v1/"),
        (r"^bn1\.", "resnet_v1_50/conv1.bn."), (r"^conv1\.", "resnet_v1_50/conv1."), (r"/bn(\d)\.", r"/conv\1.bn."),
        (r"downsample\.0\.", "shortcut."), (r"downsample\.1\.", "shortcut.bn."), *SLIM,
        (r"^fc\.weight", "resnet_v1_50/logits/weights"), (r"^fc\.bias", "resnet_v1_50/logits/biases"),
        (r"\.weight$", "/weights"),
    ]  # fmt: skip
    layouts = [(r"(conv\d|downsample\.0)\.weight", HWIO), (r"^fc\.weight", "1 1 i o -> o i")]
    return two(tv("resnet50"), table, layouts, skip=COUNTERS, sort=True)


@pair("stranger: TF-slim's InceptionV3 to torchvision", "torchvision")
def slim_inception(small: bool) -> Two:
    a = {"branch1x1": "Branch_0/Conv2d_0a_1x1", "branch_pool": "Branch_3/Conv2d_0b_1x1"}
    b = {"branch5x5_1": "Branch_1/Conv2d_0a_1x1", "branch5x5_2": "Branch_1/Conv2d_0b_5x5",
         "branch3x3dbl_1": "Branch_2/Conv2d_0a_1x1", "branch3x3dbl_2": "Branch_2/Conv2d_0b_3x3",
         "branch3x3dbl_3": "Branch_2/Conv2d_0c_3x3"}  # fmt: skip
    c = {"branch7x7_1": "Branch_1/Conv2d_0a_1x1", "branch7x7_2": "Branch_1/Conv2d_0b_1x7",
         "branch7x7_3": "Branch_1/Conv2d_0c_7x1", "branch7x7dbl_1": "Branch_2/Conv2d_0a_1x1",
         "branch7x7dbl_2": "Branch_2/Conv2d_0b_7x1", "branch7x7dbl_3": "Branch_2/Conv2d_0c_1x7",
         "branch7x7dbl_4": "Branch_2/Conv2d_0d_7x1", "branch7x7dbl_5": "Branch_2/Conv2d_0e_1x7"}  # fmt: skip
    d = {"branch3x3_1": "Branch_1/Conv2d_0a_1x1", "branch3x3_2a": "Branch_1/Conv2d_0b_1x3",
         "branch3x3_2b": "Branch_1/Conv2d_0c_3x1", "branch3x3dbl_1": "Branch_2/Conv2d_0a_1x1",
         "branch3x3dbl_2": "Branch_2/Conv2d_0b_3x3", "branch3x3dbl_3a": "Branch_2/Conv2d_0c_1x3",
         "branch3x3dbl_3b": "Branch_2/Conv2d_0d_3x1"}  # fmt: skip
    of = {"5": a | b, "6": a | c, "7": a | d}
    special = {
        "Mixed_6a": {"branch3x3": "Branch_0/Conv2d_1a_1x1", "branch3x3dbl_1": "Branch_1/Conv2d_0a_1x1",
                     "branch3x3dbl_2": "Branch_1/Conv2d_0b_3x3", "branch3x3dbl_3": "Branch_1/Conv2d_1a_1x1"},
        "Mixed_7a": {"branch3x3_1": "Branch_0/Conv2d_0a_1x1", "branch3x3_2": "Branch_0/Conv2d_1a_3x3",
                     "branch7x7x3_1": "Branch_1/Conv2d_0a_1x1", "branch7x7x3_2": "Branch_1/Conv2d_0b_1x7",
                     "branch7x7x3_3": "Branch_1/Conv2d_0c_7x1", "branch7x7x3_4": "Branch_1/Conv2d_1a_3x3"},
    }  # fmt: skip

    def mixed(m: re.Match[str]) -> str:
        names = special.get(m[1], of[m[1][6]])
        return f"InceptionV3/{m[1]}/{names[m[2]]}."

    table: list[Swap] = [
        (r"^(Mixed_\w+)\.(\w+)\.", mixed), (r"^Conv2d", "InceptionV3/Conv2d"), *SLIM,
        (r"^fc\.weight", "InceptionV3/Logits/Conv2d_1c_1x1/weights"),
        (r"^fc\.bias", "InceptionV3/Logits/Conv2d_1c_1x1/biases"), (r"\.conv\.weight", "/weights"),
    ]  # fmt: skip
    layouts = [(r"conv\.weight", HWIO), (r"^fc\.weight", "1 1 i o -> o i")]
    return two(tv("inception_v3", init_weights=False), table, layouts,
               skip=[*COUNTERS, "AuxLogits.*", "*.bn.weight"], sort=True)  # fmt: skip


@pair("stranger: TF-slim's VGG-16 to torchvision: convolutions to fully connected", "torchvision")
def slim_vgg(small: bool) -> Two:
    names = {}
    numbers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    at = 0
    for block, count in enumerate((2, 2, 3, 3, 3), 1):
        for conv in range(1, count + 1):
            names[f"features.{numbers[at]}"] = f"vgg_16/conv{block}/conv{block}_{conv}"
            at += 1
    names |= {f"classifier.{n}": f"vgg_16/fc{f}" for n, f in ((0, 6), (3, 7), (6, 8))}
    table: list[Swap] = [
        (r"^(\w+\.\d+)\.", lambda m: names[m[1]] + "."), (r"\.weight", "/weights"), (r"\.bias", "/biases"),
    ]  # fmt: skip
    layouts = [(r"features.*weight", HWIO), (r"classifier\.0\.weight", "h w i o -> o (i h w)"),
               (r"classifier.*weight", "1 1 i o -> o i")]  # fmt: skip
    return two(tv("vgg16"), table, layouts, vars={"h": 7, "w": 7}, sort=True)


@pair("stranger: SqueezeNet in Caffe's names to torchvision", "torchvision")
def squeezenet(small: bool) -> Two:
    fire = {3: 2, 4: 3, 6: 4, 7: 5, 9: 6, 10: 7, 11: 8, 12: 9}
    table: list[Swap] = [
        (r"^features\.0\.", "conv1."), (r"^classifier\.1\.", "conv10."),
        (r"^features\.(\d+)\.", lambda m: f"fire{fire[int(m[1])]}/"), (r"squeeze\.", "squeeze1x1."),
    ]  # fmt: skip
    return two(tv("squeezenet1_1"), table)


@pair("stranger: Keras' EfficientNet-B0 to timm", "timm")
def keras_efficientnet(small: bool) -> Two:
    def block(m: re.Match[str]) -> str:
        return f"block{int(m[1]) + 1}{'abcdefgh'[int(m[2])]}_"

    table: list[Swap] = [
        (r"^conv_stem", "stem_conv"), (r"^bn1", "stem_bn"), (r"^conv_head", "top_conv"), (r"^bn2", "top_bn"),
        (r"^classifier\.weight", "predictions/kernel"), (r"^classifier\.bias", "predictions/bias"),
        (r"^blocks\.0\.(\d)\.conv_pw", r"blocks.0.\1.conv_pwl"), (r"^blocks\.0\.(\d)\.bn2", r"blocks.0.\1.bn3"),
        (r"^blocks\.0\.(\d)\.bn1", r"blocks.0.\1.bn2"), (r"^blocks\.(\d)\.(\d)\.", block),
        (r"conv_pwl", "project_conv"), (r"conv_pw", "expand_conv"), (r"_bn1", "_expand_bn"), (r"_bn2", "_bn"),
        (r"_bn3", "_project_bn"), (r"conv_dw\.weight", "dwconv/depthwise_kernel"),
        (r"se\.conv_reduce", "se_reduce"), (r"se\.conv_expand", "se_expand"), *KERAS,
        (r"\.weight$", "/kernel"), (r"\.bias$", "/bias"),
    ]  # fmt: skip
    table.insert(4, (r"^top_bn\.(?=x)", ""))
    layouts = [(r"conv_dw\.weight", DEPTHWISE), (r"conv\w*\.weight", HWIO), (r"classifier\.weight", IO)]
    return two(tm("efficientnet_b0"), table, layouts, skip=COUNTERS)


@pair("stranger: Keras' MobileNetV2 to timm", "timm")
def keras_mobilenet(small: bool) -> Two:
    depth = [1, 2, 3, 4, 3, 3, 1]

    def block(m: re.Match[str]) -> str:
        at = sum(depth[: int(m[1])]) + int(m[2])
        return f"block_{at}_" if at else "expanded_conv_"

    table: list[Swap] = [
        (r"^conv_stem", "Conv1"), (r"^bn1", "bn_Conv1"), (r"^conv_head", "Conv_1"), (r"^bn2", "Conv_1_bn"),
        (r"^classifier\.weight", "predictions/kernel"), (r"^classifier\.bias", "predictions/bias"),
        (r"^blocks\.0\.0\.conv_pw", "blocks.0.0.conv_pwl"), (r"^blocks\.0\.0\.bn2", "blocks.0.0.bn3"),
        (r"^blocks\.0\.0\.bn1", "blocks.0.0.bn2"), (r"^blocks\.(\d)\.(\d)\.", block), (r"conv_pwl", "project"),
        (r"conv_pw", "expand"), (r"_bn1", "_expand_BN"), (r"_bn2", "_depthwise_BN"), (r"_bn3", "_project_BN"),
        (r"conv_dw\.weight", "depthwise/depthwise_kernel"), (r"bn_Conv1\.", "bn_Conv1_bn."), *KERAS,
        (r"bn_Conv1_bn", "bn_Conv1"), (r"\.weight$", "/kernel"),
    ]  # fmt: skip
    layouts = [(r"conv_dw\.weight", DEPTHWISE), (r"conv\w*\.weight", HWIO), (r"classifier\.weight", IO)]
    return two(tm("mobilenetv2_100"), table, layouts, skip=COUNTERS)


@pair("stranger: BiT's npz to timm", "timm")
def bit(small: bool) -> Two:
    table: list[Swap] = [
        (r"^stages\.(\d)\.blocks\.(\d+)\.", lambda m: f"resnet/block{int(m[1]) + 1}/unit{int(m[2]) + 1:02}/"),
        (r"/downsample\.conv\.weight", "/a/proj/standardized_conv2d/kernel"),
        (r"/conv(\d)\.weight", lambda m: f"/{'abc'[int(m[1]) - 1]}/standardized_conv2d/kernel"),
        (r"/norm(\d)\.", lambda m: f"/{'abc'[int(m[1]) - 1]}/group_norm."),
        (r"^norm\.", "resnet/group_norm."), (r"^stem\.conv\.weight", "resnet/root_block/standardized_conv2d/kernel"),
        (r"group_norm\.weight", "group_norm/gamma"), (r"group_norm\.bias", "group_norm/beta"),
        (r"^head\.fc\.weight", "resnet/head/conv2d/kernel"), (r"^head\.fc\.bias", "resnet/head/conv2d/bias"),
    ]  # fmt: skip
    return two(tm("resnetv2_50x1_bit"), table, [(r"(conv\d?|fc)\.weight", HWIO)], sort=True)


@pair("stranger: arcface's MXNet ResNet to its PyTorch names")
def arcface(small: bool) -> Two:
    lines = ["conv1.weight 64 3 3 3", *_bn("bn1", 64), "prelu.weight 64"]
    width = 64
    for stage, (blocks, out) in enumerate(((3, 64), (4, 128), (14, 256), (3, 512)), 1):
        for block in range(blocks):
            at = f"layer{stage}.{block}."
            lines += [*_bn(f"{at}bn1", width), f"{at}conv1.weight {out} {width} 3 3", *_bn(f"{at}bn2", out),
                      f"{at}prelu.weight {out}", f"{at}conv2.weight {out} {out} 3 3", *_bn(f"{at}bn3",
                       out)]  # fmt: skip
            if block == 0:
                lines += [f"{at}downsample.0.weight {out} {width} 1 1", *_bn(f"{at}downsample.1", out)]
            width = out
    lines += [*_bn("bn2", 512), "fc.weight 512 25088", "fc.bias 512", *_bn("features", 512)]
    table: list[Swap] = [
        (r"^layer(\d)\.(\d+)\.", lambda m: f"stage{m[1]}_unit{int(m[2]) + 1}_"), (r"^conv1\.", "conv0."),
        (r"^bn1\.", "bn0."), (r"^bn2\.", "bn1."), (r"^prelu\.", "relu0."), (r"_prelu\.", "_relu1."),
        (r"^fc\.", "pre_fc1."), (r"^features\.", "fc1."), (r"downsample\.0\.", "conv1sc."), (r"downsample\.1\.", "sc."),
        (r"relu(\d)\.weight", r"relu\1_gamma"), (r"(bn\d|sc|^fc1)\.weight$", r"\1_gamma"),
        (r"(bn\d|sc|^fc1)\.bias$", r"\1_beta"), (r"conv1sc_gamma", "conv1sc_weight"),
        (r"\.running_mean", "_moving_mean"), (r"\.running_var", "_moving_var"), (r"\.(weight|bias)$", r"_\1"),
    ]  # fmt: skip
    return two(lay("\n".join(lines)), table)


def _bn(name: str, size: int) -> list[str]:
    return [f"{name}.{leaf} {size}" for leaf in ("weight", "bias", "running_mean", "running_var")]


@pair("stranger: RT-DETR's PResNet to Hugging Face", "transformers")
def presnet(small: bool) -> Two:
    table: list[Swap] = [
        (r"^embedder\.embedder\.(\d)\.", lambda m: f"backbone.conv1.conv1_{int(m[1]) + 1}."),
        (r"^encoder\.stages\.(\d)\.layers\.(\d)\.", r"backbone.res_layers.\1.blocks.\2."),
        (r"layer\.(\d)\.", lambda m: f"branch2{'abc'[int(m[1])]}."),
        (r"shortcut\.1\.", "short.conv."), (r"shortcut\.", "short."), (r"convolution\.", "conv."),
        (r"normalization\.", "norm."),
    ]  # fmt: skip
    return two(hf("RTDetrResNetBackbone", "RTDetrResNetConfig"), table)


@pair("stranger: RAFT in its authors' names to torchvision", "torchvision")
def raft(small: bool) -> Two:
    table: list[Swap] = [
        (r"^feature_encoder\.", "module.fnet."), (r"^context_encoder\.", "module.cnet."),
        (r"(layer\d\.\d)\.convnormrelu(\d)\.0\.", r"\1.conv\2."),
        (r"(layer\d\.\d)\.convnormrelu(\d)\.1\.", r"\1.norm\2."),
        (r"net\.convnormrelu\.0\.", "net.conv1."), (r"net\.convnormrelu\.1\.", "net.norm1."),
        (r"net\.conv\.", "net.conv2."), (r"downsample\.1\.", "norm3."),
        (r"^update_block\.motion_encoder\.convcorr(\d)\.0\.", r"module.update_block.encoder.convc\1."),
        (r"^update_block\.motion_encoder\.convflow(\d)\.0\.", r"module.update_block.encoder.convf\1."),
        (r"^update_block\.motion_encoder\.conv\.0\.", "module.update_block.encoder.conv."),
        (r"^update_block\.recurrent_block\.convgru(\d)\.conv([zrq])\.", r"module.update_block.gru.conv\2\1."),
        (r"^update_block\.flow_head", "module.update_block.flow_head"),
        (r"^mask_predictor\.convrelu\.0\.", "module.update_block.mask.0."),
        (r"^mask_predictor\.conv\.", "module.update_block.mask.2."),
    ]  # fmt: skip
    return two(tv("raft_large"), table)


@pair("stranger: ESRGAN's first names to BasicSR's")
def esrgan(small: bool) -> Two:
    text = """
conv_first.weight 64 3 3 3
conv_first.bias 64
"""
    for block in range(23):
        for dense in (1, 2, 3):
            for conv in range(1, 6):
                out = 64 if conv == 5 else 32
                text += f"body.{block}.rdb{dense}.conv{conv}.weight {out} {64 + 32 * (conv - 1)} 3 3\n"
                text += f"body.{block}.rdb{dense}.conv{conv}.bias {out}\n"
    for name, out in (("conv_body", 64), ("conv_up1", 64), ("conv_up2", 64), ("conv_hr", 64), ("conv_last", 3)):
        text += f"{name}.weight {out} 64 3 3\n{name}.bias {out}\n"
    numbers = {"conv_first": "0", "conv_body": "1.sub.23", "conv_up1": "3", "conv_up2": "6", "conv_hr": "8",
               "conv_last": "10"}  # fmt: skip
    table: list[Swap] = [
        (r"^(conv_\w+)\.", lambda m: f"model.{numbers[m[1]]}."),
        (r"^body\.(\d+)\.rdb(\d)\.conv(\d)\.", r"model.1.sub.\1.RDB\2.conv\3.0."),
    ]  # fmt: skip
    return two(lay(text), table, undecided=["conv_body.*", "conv_up*", "conv_hr.*"])


@pair("stranger: Darknet's YOLOv3: module_list by kinds to numbered names")
def darknet(small: bool) -> Two:
    text, width, at = "", 3, 0

    def conv(out: int, kernel: int, norm: bool = True) -> None:
        nonlocal text, width, at
        text += f"module_list.{at}.conv_{at}.weight {out} {width} {kernel} {kernel}\n"
        if norm:
            text += "\n".join(_bn(f"module_list.{at}.batch_norm_{at}", out)) + "\n"
        else:
            text += f"module_list.{at}.conv_{at}.bias {out}\n"
        width, at = out, at + 1

    conv(32, 3)
    for out, count in ((64, 1), (128, 2), (256, 4), (512, 4), (1024, 2)):
        conv(out, 3)
        for _ in range(count):
            conv(out // 2, 1)
            conv(out, 3)
            at += 1  # the shortcut
    conv(512, 1)
    conv(1024, 3)
    conv(255, 1, norm=False)
    table: list[Swap] = [(r"\.conv_\d+\.", ".Conv2d."), (r"\.batch_norm_\d+\.", ".BatchNorm2d.")]
    return two(lay(text), table)


@pair("stranger: AlexNet to other names and six channels: the first bias stays", "torchvision")
def alexnet(small: bool) -> Two:
    import torch

    state = dict(tv("alexnet").state_dict())
    names = {"features.0": "net.conv1", "features.3": "net.conv2", "features.6": "net.conv3", "features.8": "net.conv4",
             "features.10": "net.conv5", "classifier.1": "net.fc6", "classifier.4": "net.fc7",
             "classifier.6": "net.fc8"}  # fmt: skip
    target = {names[key.rsplit(".", 1)[0]] + "." + key.rsplit(".", 1)[1]: tensor for key, tensor in state.items()}
    target["net.conv1.weight"] = torch.empty(64, 6, 11, 11)
    rules = [f"{a}.{leaf} -> {b}.{leaf}" for a, b in names.items() for leaf in ("weight", "bias")]
    rules.remove("features.0.weight -> net.conv1.weight")
    return Two(state, target, rules, missing=["net.conv1.weight"], proof="by hand")


# ---------------------------------------------------------------------------------------------- vision transformers

FLAX_BLOCK: list[Swap] = [
    (r"(Dense_\d|out|query|key|value|proj|head|embedding)\.weight$", r"\1/kernel"),
    (r"(LayerNorm_\d|norm)\.weight$", r"\1/scale"), (r"\.bias$", "/bias"),
]  # fmt: skip


@pair("stranger: AugReg's ViT npz to timm: heads are an axis", "timm")
def augreg(small: bool) -> Two:
    block = "Transformer/encoderblock_{i}/"
    attention = f"{block}MultiHeadDotProductAttention_1/"
    rules = [
        f"{attention}{{x=query|key|value}}/kernel -> blocks.{{i}}.attn.qkv.weight | d h e -> (x h e) d",
        f"{attention}{{x=query|key|value}}/bias -> blocks.{{i}}.attn.qkv.bias | h e -> (x h e)",
        f"{attention}out/kernel -> blocks.{{i}}.attn.proj.weight | h e o -> o (h e)",
        f"{attention}out/bias -> blocks.{{i}}.attn.proj.bias",
        f"{block}LayerNorm_{{n=0|2}}/{{p=scale|bias}} -> blocks.{{i}}.norm{{n=1|2}}.{{p=weight|bias}}",
        f"{block}MlpBlock_3/Dense_{{n=0|1}}/kernel -> blocks.{{i}}.mlp.fc{{n=1|2}}.weight | i o -> o i",
        f"{block}MlpBlock_3/Dense_{{n=0|1}}/bias -> blocks.{{i}}.mlp.fc{{n=1|2}}.bias",
        "Transformer/encoder_norm/{p=scale|bias} -> norm.{p=weight|bias}",
        "Transformer/posembed_input/pos_embedding -> pos_embed",
        "cls -> cls_token",
        f"embedding/kernel -> patch_embed.proj.weight | {HWIO}",
        "embedding/bias -> patch_embed.proj.bias",
        f"head/kernel -> head.weight | {IO}",
        "head/bias -> head.bias",
    ]
    model = tm("vit_base_patch16_224", depth=11)
    source = file_of(rules, model.state_dict(), {"h": 12}, sort=True)
    return Two(source, model, rules, vars={"h": 12}, proof="timm's _load_weights")


@pair("stranger: Mixer's npz to timm", "timm")
def mixer(small: bool) -> Two:
    table: list[Swap] = [
        (r"^blocks\.(\d+)\.", r"MixerBlock_\1/"), (r"/norm(\d)\.", lambda m: f"/LayerNorm_{int(m[1]) - 1}."),
        (r"mlp_tokens\.fc(\d)", lambda m: f"token_mixing/Dense_{int(m[1]) - 1}"),
        (r"mlp_channels\.fc(\d)", lambda m: f"channel_mixing/Dense_{int(m[1]) - 1}"),
        (r"^stem\.proj\.weight", "stem/kernel"), (r"^stem\.proj\.bias", "stem/bias"),
        (r"^norm\.", "pre_head_layer_norm_norm."), *FLAX_BLOCK, (r"_norm_norm/", "_norm/"),
    ]  # fmt: skip
    layouts = [(r"fc\d\.weight|^head\.weight", IO), (r"stem\.proj\.weight", HWIO)]
    return two(tm("mixer_b16_224"), table, layouts, sort=True)


@pair("stranger: big_vision's SigLIP to Hugging Face: two towers of one size", "transformers")
def siglip(small: bool) -> Two:
    rules = ["params/t -> logit_scale", "params/b -> logit_bias"]
    for name, to in (("params/img/Transformer", "vision_model"), ("params/txt/Encoder_0", "text_model")):
        block, there = f"{name}/encoderblock_{{i}}/", f"{to}.encoder.layers.{{i}}."
        attention = f"{block}MultiHeadDotProductAttention_0/"
        rules += [
            f"{attention}{{x=query|key|value}}/kernel -> {there}self_attn.{{x=q|k|v}}_proj.weight | d h e -> (h e) d",
            f"{attention}{{x=query|key|value}}/bias -> {there}self_attn.{{x=q|k|v}}_proj.bias | h e -> (h e)",
            f"{attention}out/kernel -> {there}self_attn.out_proj.weight | h e o -> o (h e)",
            f"{attention}out/bias -> {there}self_attn.out_proj.bias",
            f"{block}LayerNorm_{{n=0|1}}/{{p=scale|bias}} -> {there}layer_norm{{n=1|2}}.{{p=weight|bias}}",
            f"{block}MlpBlock_0/Dense_{{n=0|1}}/kernel -> {there}mlp.fc{{n=1|2}}.weight | i o -> o i",
            f"{block}MlpBlock_0/Dense_{{n=0|1}}/bias -> {there}mlp.fc{{n=1|2}}.bias",
        ]
    head, there = "params/img/MAPHead_0/", "vision_model.head."
    rules += [
        "params/img/Transformer/encoder_norm/{p=scale|bias} -> vision_model.post_layernorm.{p=weight|bias}",
        "params/txt/Encoder_0/encoder_norm/{p=scale|bias} -> text_model.final_layer_norm.{p=weight|bias}",
        f"params/img/embedding/kernel -> vision_model.embeddings.patch_embedding.weight | {HWIO}",
        "params/img/embedding/bias -> vision_model.embeddings.patch_embedding.bias",
        "params/img/pos_embedding -> vision_model.embeddings.position_embedding.weight | 1 p d -> p d",
        "params/txt/pos_embedding -> text_model.embeddings.position_embedding.weight | 1 p d -> p d",
        "params/txt/Embed_0/embedding -> text_model.embeddings.token_embedding.weight",
        "params/txt/head/kernel -> text_model.head.weight | i o -> o i",
        "params/txt/head/bias -> text_model.head.bias",
        f"{head}probe -> {there}probe",
        f"{head}MultiHeadDotProductAttention_0/{{x=query|key|value}}/kernel -> {there}attention.in_proj_weight"
        " | d h e -> (x h e) d",
        f"{head}MultiHeadDotProductAttention_0/{{x=query|key|value}}/bias -> {there}attention.in_proj_bias"
        " | h e -> (x h e)",
        f"{head}MultiHeadDotProductAttention_0/out/kernel -> {there}attention.out_proj.weight | h e o -> o (h e)",
        f"{head}MultiHeadDotProductAttention_0/out/bias -> {there}attention.out_proj.bias",
        f"{head}LayerNorm_0/{{p=scale|bias}} -> {there}layernorm.{{p=weight|bias}}",
        f"{head}MlpBlock_0/Dense_{{n=0|1}}/kernel -> {there}mlp.fc{{n=1|2}}.weight | i o -> o i",
        f"{head}MlpBlock_0/Dense_{{n=0|1}}/bias -> {there}mlp.fc{{n=1|2}}.bias",
    ]
    model = hf("SiglipModel", "SiglipConfig")
    source = file_of(rules, model.state_dict(), {"h": 12}, sort=True)
    return Two(source, model, rules, vars={"h": 12}, undecided=["logit_scale", "logit_bias"],
               proof="transformers' convert_siglip_to_hf.py")  # fmt: skip


MAE_BLOCK: list[Swap] = [
    (r"attention\.([qkv])_proj", r"attn.qkv@\1"), (r"attention\.o_proj", "attn.proj"),
    (r"layernorm_before", "norm1"), (r"layernorm_after", "norm2"),
]  # fmt: skip


@pair("stranger: MAE in its authors' names to Hugging Face: encoder and decoder", "transformers")
def mae(small: bool) -> Two:
    table: list[Swap] = [
        (r"^vit\.layers\.", "blocks."), (r"^decoder\.decoder_layers\.", "decoder_blocks."), *MAE_BLOCK,
        (r"^vit\.embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
        (r"^vit\.embeddings\.cls_token", "cls_token"), (r"^vit\.embeddings\.position_embeddings", "pos_embed"),
        (r"^vit\.layernorm", "norm"), (r"^decoder\.", ""),
    ]  # fmt: skip
    return two(hf("ViTMAEForPreTraining", "ViTMAEConfig"), table, fused=[(r"qkv@([qkv])", "qkv")])


@pair("stranger: DPT in its authors' names to Hugging Face: fusion counts backwards", "transformers")
def dpt(small: bool) -> Two:
    table: list[Swap] = [
        (r"^dpt\.encoder\.layer\.(\d+)\.", r"pretrained.model.blocks.\1."),
        (r"attention\.attention\.(q|k|v)\w+", r"attn.qkv@\1"), (r"attention\.output\.dense", "attn.proj"),
        (r"intermediate\.dense", "mlp.fc1"), (r"output\.dense", "mlp.fc2"), *MAE_BLOCK,
        (r"^dpt\.embeddings\.patch_embeddings\.projection", "pretrained.model.patch_embed.proj"),
        (r"^dpt\.embeddings\.cls_token", "pretrained.model.cls_token"),
        (r"^dpt\.embeddings\.position_embeddings", "pretrained.model.pos_embed"),
        (r"^dpt\.layernorm", "pretrained.model.norm"),
        (r"^neck\.reassemble_stage\.layers\.(\d)\.projection",
         lambda m: f"pretrained.act_postprocess{int(m[1]) + 1}.3"),
        (r"^neck\.reassemble_stage\.layers\.(\d)\.resize", lambda m: f"pretrained.act_postprocess{int(m[1]) + 1}.4"),
        (r"^neck\.reassemble_stage\.readout_projects\.(\d)\.0",
         lambda m: f"pretrained.act_postprocess{int(m[1]) + 1}.0.project.0"),
        (r"^neck\.convs\.(\d)\.", lambda m: f"scratch.layer{int(m[1]) + 1}_rn."),
        (r"^neck\.fusion_stage\.layers\.(\d)\.", lambda m: f"scratch.refinenet{4 - int(m[1])}."),
        (r"projection\.", "out_conv."), (r"residual_layer(\d)\.convolution(\d)", r"resConfUnit\1.conv\2"),
        (r"^head\.head\.", "scratch.output_conv."),
    ]  # fmt: skip
    return two(hf("DPTForDepthEstimation", "DPTConfig"), table, fused=[(r"qkv@([qkv])", "qkv")],
               undecided=["neck.fusion_stage.*"])  # fmt: skip


@pair("stranger: mmpretrain's Swin to timm: patch merging in unfold's order", "timm")
def swin_mm(small: bool) -> Two:
    table: list[Swap] = [
        (r"^layers\.(\d)\.downsample\.", lambda m: f"backbone.stages.{int(m[1]) - 1}.downsample."),
        (r"^layers\.", "backbone.stages."), (r"attn\.", "attn.w_msa."), (r"mlp\.fc1", "ffn.layers.0.0"),
        (r"mlp\.fc2", "ffn.layers.1"), (r"^patch_embed\.proj", "backbone.patch_embed.projection"),
        (r"^patch_embed\.norm", "backbone.patch_embed.norm"), (r"^norm\.", "backbone.norm3."),
        (r"^head\.fc", "head.fc"),
    ]  # fmt: skip
    layouts = [(r"reduction\.weight", "o (c w h) -> o (h w c)"), (r"downsample\.norm", "(c w h) -> (h w c)")]
    return two(tm("swin_tiny_patch4_window7_224"), table, layouts, vars={"h": 2, "w": 2}, undecided=["*.downsample.*"])


@pair("stranger: SegFormer's mit to mmseg: q and kv joined")
def mit(small: bool) -> Two:
    source, rules = "", []
    widths, depths, ratios = (32, 64, 160, 256), (2, 2, 2, 2), (8, 4, 2, 1)
    target = ""
    for s in range(4):
        c, before = widths[s], 3 if s == 0 else widths[s - 1]
        k = 7 if s == 0 else 3
        source += f"patch_embed{s + 1}.proj.weight {c} {before} {k} {k}\npatch_embed{s + 1}.proj.bias {c}\n"
        source += f"patch_embed{s + 1}.norm.weight {c}\npatch_embed{s + 1}.norm.bias {c}\n"
        target += f"layers.{s}.0.projection.weight {c} {before} {k} {k}\nlayers.{s}.0.projection.bias {c}\n"
        target += f"layers.{s}.0.norm.weight {c}\nlayers.{s}.0.norm.bias {c}\n"
        rules += [f"patch_embed{s + 1}.proj.{{p*}} -> layers.{s}.0.projection.{{p*}}",
                  f"patch_embed{s + 1}.norm.{{p*}} -> layers.{s}.0.norm.{{p*}}"]  # fmt: skip
        for b in range(depths[s]):
            here, there = f"block{s + 1}.{b}.", f"layers.{s}.1.{b}."
            r, f = ratios[s], 4 * c
            rows = [("norm1.weight", c), ("norm1.bias", c), ("attn.q.weight", c, c), ("attn.q.bias", c),
                    ("attn.kv.weight", 2 * c, c), ("attn.kv.bias", 2 * c), ("attn.proj.weight", c, c),
                    ("attn.proj.bias", c), ("norm2.weight", c), ("norm2.bias", c), ("mlp.fc1.weight", f, c),
                    ("mlp.fc1.bias", f), ("mlp.dwconv.dwconv.weight", f, 1, 3, 3), ("mlp.dwconv.dwconv.bias", f),
                    ("mlp.fc2.weight", c, f), ("mlp.fc2.bias", c)]  # fmt: skip
            if r > 1:
                rows[8:8] = [("attn.sr.weight", c, c, r, r), ("attn.sr.bias", c), ("attn.norm.weight", c),
                             ("attn.norm.bias", c)]  # fmt: skip
            source += "".join(f"{here}{' '.join(map(str, row))}\n" for row in rows)
            rows = [("norm1.weight", c), ("norm1.bias", c), ("attn.attn.in_proj_weight", 3 * c, c),
                    ("attn.attn.in_proj_bias", 3 * c), ("attn.attn.out_proj.weight", c, c),
                    ("attn.attn.out_proj.bias", c), ("norm2.weight", c), ("norm2.bias", c),
                    ("ffn.layers.0.weight", f, c, 1, 1), ("ffn.layers.0.bias", f), ("ffn.layers.1.weight", f, 1, 3, 3),
                    ("ffn.layers.1.bias", f), ("ffn.layers.4.weight", c, f, 1, 1), ("ffn.layers.4.bias",
                     c)]  # fmt: skip
            if r > 1:
                rows[6:6] = [("attn.sr.weight", c, c, r, r), ("attn.sr.bias", c), ("attn.norm.weight", c),
                             ("attn.norm.bias", c)]  # fmt: skip
            target += "".join(f"{there}{' '.join(map(str, row))}\n" for row in rows)
            rules += [
                f"{here}attn.q.weight, {here}attn.kv.weight -> {there}attn.attn.in_proj_weight | q i, k i -> (q + k) i",
                f"{here}attn.q.bias, {here}attn.kv.bias -> {there}attn.attn.in_proj_bias | q, k -> (q + k)",
                f"{here}attn.proj.{{p*}} -> {there}attn.attn.out_proj.{{p*}}",
                f"{here}{{n=norm1|norm2}}.{{p*}} -> {there}{{n}}.{{p*}}",
                f"{here}mlp.{{n=fc1|fc2}}.weight -> {there}ffn.layers.{{n=0|4}}.weight | o i -> o i 1 1",
                f"{here}mlp.{{n=fc1|fc2}}.bias -> {there}ffn.layers.{{n=0|4}}.bias",
                f"{here}mlp.dwconv.dwconv.{{p*}} -> {there}ffn.layers.1.{{p*}}",
            ]
            if r > 1:
                rules.append(f"{here}attn.{{n=sr|norm}}.{{p*}} -> {there}attn.{{n}}.{{p*}}")
        source += f"norm{s + 1}.weight {c}\nnorm{s + 1}.bias {c}\n"
        target += f"layers.{s}.2.weight {c}\nlayers.{s}.2.bias {c}\n"
        rules.append(f"norm{s + 1}.{{p*}} -> layers.{s}.2.{{p*}}")
    return Two(lay(source), lay(target), rules, proof="mmseg's mit2mmseg.py")


@pair("stranger: DINOv2 with chunked blocks under teacher.backbone to timm", "timm")
def dinov2(small: bool) -> Two:
    import torch

    model = tm("vit_base_patch16_224", depth=12, num_classes=0)
    table: list[Swap] = [
        (r"^blocks\.(\d+)\.", lambda m: f"blocks.{int(m[1]) // 3}.{m[1]}."), (r"^", "teacher.backbone."),
    ]  # fmt: skip
    extra = {f"teacher.dino_head.mlp.{n}.weight": torch.empty(2048, 768 if n == 0 else 2048) for n in (0, 2)}
    return two(model, table, extra=extra)


# ---------------------------------------------------------------------------------------------- language and text


@pair("stranger: ALBERT in TensorFlow's names to Hugging Face", "transformers")
def albert(small: bool) -> Two:
    group = "bert/encoder/transformer/group_0/inner_group_0/"
    table: list[Swap] = [
        (r"^encoder\.albert_layer_groups\.0\.albert_layers\.0\.", group),
        (r"full_layer_layer_norm", "LayerNorm_1"), (r"attention\.LayerNorm", "LayerNorm"),
        (r"attention\.(query|key|value)", r"attention_1/self/\1"), (r"attention\.dense", "attention_1/output/dense"),
        (r"ffn_output", "ffn_1/intermediate/output/dense"), (r"0/ffn\.", "0/ffn_1/intermediate/dense."),
        (r"^encoder\.embedding_hidden_mapping_in", "bert/encoder/embedding_hidden_mapping_in"),
        (r"^embeddings\.(\w+_embeddings)\.weight", r"bert/embeddings/\1"), (r"^embeddings\.", "bert/embeddings/"),
        (r"^pooler\.", "bert/pooler/dense."), (r"(LayerNorm\w*)\.weight", r"\1/gamma"),
        (r"(LayerNorm\w*)\.bias", r"\1/beta"),
        (r"\.weight", "/kernel"), (r"\.bias", "/bias"),
    ]  # fmt: skip
    layouts = [(r"(?<!embeddings)(?<!orm)\.weight$", IO)]
    sizes = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
    return two(hf("AlbertModel", "AlbertConfig", **sizes), table, layouts, sort=True)


@pair("stranger: PaddleNLP's BERT to Hugging Face: every Linear is turned", "transformers")
def paddle(small: bool) -> Two:
    table: list[Swap] = [
        (r"^encoder\.layer\.", "bert.encoder.layers."), (r"attention\.self\.query", "self_attn.q_proj"),
        (r"attention\.self\.key", "self_attn.k_proj"), (r"attention\.self\.value", "self_attn.v_proj"),
        (r"attention\.output\.dense", "self_attn.out_proj"), (r"attention\.output\.LayerNorm", "norm1"),
        (r"intermediate\.dense", "linear1"), (r"output\.dense", "linear2"), (r"output\.LayerNorm", "norm2"),
        (r"^embeddings\.LayerNorm", "bert.embeddings.layer_norm"), (r"^embeddings", "bert.embeddings"),
        (r"^pooler", "bert.pooler"),
    ]  # fmt: skip
    layouts = [(r"(dense|query|key|value)\.weight", IO)]
    return two(hf("BertModel", "BertConfig", num_hidden_layers=11), table, layouts)


@pair("stranger: GPT-NeoX's pipeline to Hugging Face: blocks from 2", "transformers")
def neox(small: bool) -> Two:
    table: list[Swap] = [
        (r"^gpt_neox\.layers\.(\d+)\.", lambda m: f"sequential.{int(m[1]) + 2}."),
        (r"^gpt_neox\.embed_in\.", "sequential.0.word_embeddings."),
        (r"^gpt_neox\.final_layer_norm", "sequential.14.norm"),
        (r"^lm_head", "sequential.15.final_linear"),
    ]  # fmt: skip
    sizes = {"num_hidden_layers": 11, "hidden_size": 512, "intermediate_size": 2048}
    return two(hf("GPTNeoXForCausalLM", "GPTNeoXConfig", **sizes), table,
               undecided=["gpt_neox.embed_in.weight", "lm_head.weight"])  # fmt: skip


@pair("stranger: ESM-2 in fairseq's names to Hugging Face", "transformers")
def esm(small: bool) -> Two:
    table: list[Swap] = [
        (r"^encoder\.layer\.(\d+)\.", r"encoder.sentence_encoder.layers.\1."),
        (r"attention\.self\.query", "self_attn.q_proj"), (r"attention\.self\.key", "self_attn.k_proj"),
        (r"attention\.self\.value", "self_attn.v_proj"), (r"attention\.output\.dense", "self_attn.out_proj"),
        (r"attention\.LayerNorm", "self_attn_layer_norm"), (r"intermediate\.dense", "fc1"), (r"output\.dense", "fc2"),
        (r"LayerNorm", "final_layer_norm"), (r"^embeddings\.word_embeddings", "encoder.sentence_encoder.embed_tokens"),
        (r"^encoder\.emb_layer", "encoder.sentence_encoder.emb_layer"),
        (r"^contact_head", "encoder.sentence_encoder.contact_head"),
    ]  # fmt: skip
    sizes = {"vocab_size": 33, "mask_token_id": 32, "pad_token_id": 1, "num_hidden_layers": 6,
             "position_embedding_type": "rotary", "emb_layer_norm_before": False}  # fmt: skip
    return two(hf("EsmModel", "EsmConfig", **sizes), table, skip=["pooler.*", "rotary_embeddings.*"])


def mistral() -> Any:
    return hf("MistralForCausalLM", "MistralConfig", num_hidden_layers=11, hidden_size=1024, intermediate_size=3584,
              num_attention_heads=16, num_key_value_heads=4, head_dim=64, vocab_size=32000)  # fmt: skip


META: list[Swap] = [
    (r"^model\.layers", "layers"), (r"self_attn\.([qkvo])_proj", r"attention.w\1"),
    (r"mlp\.gate_proj", "feed_forward.w1"), (r"mlp\.down_proj", "feed_forward.w2"),
    (r"mlp\.up_proj", "feed_forward.w3"),
    (r"input_layernorm", "attention_norm"), (r"post_attention_layernorm", "ffn_norm"),
    (r"^model\.embed_tokens", "tok_embeddings"), (r"^model\.norm", "norm"), (r"^lm_head", "output"),
]  # fmt: skip


@pair("stranger: Mistral's own file to Hugging Face: rotary rows of q and k", "transformers")
def mistral_meta(small: bool) -> Two:
    layouts = [(r"q_proj", "(h d two) i -> (h two d) i"), (r"k_proj", "(g d two) i -> (g two d) i")]
    return two(mistral(), META, layouts, vars={"h": 16, "g": 4, "two": 2},
               undecided=["*.q_proj.weight", "*.k_proj.weight"])  # fmt: skip


@pair("stranger: Hugging Face's Mistral to its own names: rotary rows backwards", "transformers")
def mistral_back(small: bool) -> Two:
    found = mistral_meta(small)
    return Two(found.target, found.source, found.rules, vars=found.vars, is_backwards=True,
               undecided=["*.wq.weight", "*.wk.weight"], proof="as before")  # fmt: skip


@pair("stranger: Gemma in Flax to Hugging Face: einsums with heads", "transformers")
def gemma(small: bool) -> Two:
    layer, there = "transformer/layer_{i}/", "model.layers.{i}."
    rules = [
        "transformer/embedder/input_embedding -> model.embed_tokens.weight",
        "transformer/final_norm/scale -> model.norm.weight",
        f"{layer}attn/q_einsum/w -> {there}self_attn.q_proj.weight | h d e -> (h e) d",
        f"{layer}attn/kv_einsum/w -> {there}self_attn.k_proj.weight, {there}self_attn.v_proj.weight"
        " | (a + b) 1 d e -> (a e) d, (b e) d",
        f"{layer}attn/attn_vec_einsum/w -> {there}self_attn.o_proj.weight | h e o -> o (h e)",
        f"{layer}mlp/gating_einsum/w -> {there}mlp.gate_proj.weight, {there}mlp.up_proj.weight"
        " | (a + b) d f -> (a f) d, (b f) d",
        f"{layer}mlp/linear/w -> {there}mlp.down_proj.weight | i o -> o i",
        f"{layer}pre_attention_norm/scale -> {there}input_layernorm.weight",
        f"{layer}pre_ffw_norm/scale -> {there}post_attention_layernorm.weight",
    ]
    model = hf("GemmaForCausalLM", "GemmaConfig", hidden_size=1024, num_hidden_layers=4, num_attention_heads=8,
               num_key_value_heads=1, head_dim=256, intermediate_size=4096, vocab_size=32000)  # fmt: skip
    state = {key: tensor for key, tensor in model.state_dict().items() if key != "lm_head.weight"}
    vars = {"h": 8, "a": 1, "b": 1}
    return Two(file_of(rules, state, vars, sort=True), state, rules, vars=vars, proof="transformers' script")


@pair("stranger: tied head: the file has no lm_head", "transformers")
def tied(small: bool) -> Two:
    model = hf("OPTForCausalLM", "OPTConfig", num_hidden_layers=3)
    source = {
        key.removeprefix("model."): tensor for key, tensor in model.state_dict().items() if key != "lm_head.weight"
    }
    rules = [f"{key} -> model.{key}" for key in source if "embed_tokens" not in key]
    rules.append("decoder.embed_tokens.weight -> model.decoder.embed_tokens.weight, lm_head.weight")
    return Two(source, model.state_dict(), rules, undecided=["lm_head.weight"], proof="tied")


@pair("stranger: DPR's bi-encoder: the question's tower is wanted", "transformers")
def dpr(small: bool) -> Two:
    model = hf("DPRQuestionEncoder", "DPRConfig", num_hidden_layers=4)
    state = model.state_dict()
    question = {key.replace("question_encoder.bert_model.", "question_model."): tensor for key, tensor in state.items()}
    source = {key.replace("question_model.", "ctx_model."): tensor for key, tensor in question.items()} | question
    rules = ["question_model.{k**} -> question_encoder.bert_model.{k**}"]
    return Two(source, model, rules, proof="transformers' script")


# ---------------------------------------------------------------------------------------------- text and images


def clip_table(tower: str, to: str) -> list[Swap]:
    return [
        (rf"^{to}encoder\.layers\.(\d+)\.", rf"{tower}transformer.resblocks.\1."),
        (r"self_attn\.([qkv])_proj\.weight", r"attn.in_proj@\1_weight"),
        (r"self_attn\.([qkv])_proj\.bias", r"attn.in_proj@\1_bias"), (r"self_attn\.out_proj", "attn.out_proj"),
        (r"layer_norm(\d)", r"ln_\1"), (r"mlp\.fc1", "mlp.c_fc"), (r"mlp\.fc2", "mlp.c_proj"),
    ]  # fmt: skip


IN_PROJ = [(r"in_proj@([qkv])", "in_proj")]


@pair("stranger: OpenAI's CLIP into Hugging Face's vision tower, both of one width", "transformers")
def clip_vision(small: bool) -> Two:
    model = hf("CLIPVisionModel", "CLIPVisionConfig", num_hidden_layers=5, hidden_size=512, intermediate_size=2048,
               num_attention_heads=8)  # fmt: skip
    text = hf("CLIPTextModel", "CLIPTextConfig", num_hidden_layers=5)
    table = [
        *clip_table("visual.", ""), (r"^embeddings\.class_embedding", "visual.class_embedding"),
        (r"^embeddings\.patch_embedding", "visual.conv1"),
        (r"^embeddings\.position_embedding\.weight", "visual.positional_embedding"),
        (r"^pre_layrnorm", "visual.ln_pre"),
        (r"^post_layernorm", "visual.ln_post"),
    ]  # fmt: skip
    skip = ["*.position_ids"]
    prefix = "text_model." if any(k.startswith("text_model.") for k in text.state_dict()) else ""
    texts = [
        *clip_table("", prefix), (rf"^{prefix}embeddings\.token_embedding", "token_embedding"),
        (rf"^{prefix}embeddings\.position_embedding\.weight", "positional_embedding"),
        (rf"^{prefix}final_layer_norm", "ln_final"),
    ]  # fmt: skip
    other = two(text, texts, fused=IN_PROJ, skip=skip).source
    return two(model, table, fused=IN_PROJ, skip=skip, extra=other)


@pair("stranger: SDXL's second text encoder out of the whole file", "transformers")
def sdxl_text(small: bool) -> Two:
    wide = hf("CLIPTextModelWithProjection", "CLIPTextConfig", num_hidden_layers=6, hidden_size=640,
              intermediate_size=2560, num_attention_heads=10, projection_dim=640)  # fmt: skip
    narrow = hf("CLIPTextModel", "CLIPTextConfig", num_hidden_layers=6, hidden_size=384, intermediate_size=1536,
                num_attention_heads=6)  # fmt: skip
    at = "conditioner.embedders.1.model."
    table = [
        *clip_table(at, r"text_model\."), (r"^text_model\.embeddings\.token_embedding", f"{at}token_embedding"),
        (r"^text_model\.embeddings\.position_embedding\.weight", f"{at}positional_embedding"),
        (r"^text_model\.final_layer_norm", f"{at}ln_final"), (r"^text_projection\.weight", f"{at}text_projection"),
    ]  # fmt: skip
    names = {key if key.startswith("text_model.") else f"text_model.{key}": t for key, t in narrow.state_dict().items()}
    extra = {f"conditioner.embedders.0.transformer.{key}": tensor for key, tensor in names.items()}
    extra |= lay("""
model.diffusion_model.input_blocks.{1-8}.1.transformer_blocks.0.attn2.to_k.weight 640 640
model.diffusion_model.input_blocks.{1-8}.1.transformer_blocks.0.attn2.to_v.weight 640 640
model.diffusion_model.input_blocks.{1-8}.1.transformer_blocks.0.norm1.weight 640
model.diffusion_model.input_blocks.{1-8}.1.transformer_blocks.0.norm1.bias 640
first_stage_model.encoder.conv_in.weight 128 3 3 3
""")
    return two(wide, table, [(r"^text_projection", IO)], fused=IN_PROJ, extra=extra)


@pair("stranger: the text encoder of Stable Diffusion 1.5's file", "transformers")
def sd_text(small: bool) -> Two:
    model = hf("CLIPTextModel", "CLIPTextConfig", num_hidden_layers=6, hidden_size=768, intermediate_size=3072)
    state = model.state_dict()
    named = {key: f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}" for key in state}
    extra = lay("""
model.diffusion_model.time_embed.0.weight 1280 320
model.diffusion_model.input_blocks.{1-5}.1.transformer_blocks.0.attn2.to_k.weight 320 768
model.diffusion_model.input_blocks.{1-5}.1.transformer_blocks.0.norm1.weight 768
first_stage_model.decoder.mid.attn_1.q.weight 512 512 1 1
""")
    source = extra | {name: state[key] for key, name in named.items()}
    return Two(source, model, [f"{name} -> {key}" for key, name in named.items()], proof="a prefix")


@pair("stranger: BLIP in its authors' names to Hugging Face", "transformers")
def blip(small: bool) -> Two:
    model = hf("BlipForConditionalGeneration", "BlipConfig", text_config={"num_hidden_layers": 4},
               vision_config={"num_hidden_layers": 4})  # fmt: skip
    table: list[Swap] = [
        (r"^vision_model\.encoder\.layers", "visual_encoder.blocks"), (r"self_attn\.projection", "attn.proj"),
        (r"self_attn\.qkv", "attn.qkv"), (r"layer_norm(\d)", r"norm\1"),
        (r"^vision_model\.embeddings\.class_embedding", "visual_encoder.cls_token"),
        (r"^vision_model\.embeddings\.position_embedding", "visual_encoder.pos_embed"),
        (r"^vision_model\.embeddings\.patch_embedding", "visual_encoder.patch_embed.proj"),
        (r"^vision_model\.post_layernorm", "visual_encoder.norm"),
    ]  # fmt: skip
    return two(model, table)


# ---------------------------------------------------------------------------------------------- speech and sound


@pair("stranger: DAC in Descript's names to Hugging Face", "transformers")
def dac(small: bool) -> Two:
    table: list[Swap] = [
        (r"^encoder\.conv1\.", "encoder.block.0."), (r"^encoder\.snake1\.", "encoder.block.5."),
        (r"^encoder\.conv2\.", "encoder.block.6."), (r"^decoder\.conv1\.", "decoder.model.0."),
        (r"^decoder\.snake1\.", "decoder.model.5."), (r"^decoder\.conv2\.", "decoder.model.6."),
        (r"^encoder\.block\.(\d)\.(?=\D)", lambda m: f"encoder.block.{int(m[1]) + 1}.block."),
        (r"^decoder\.block\.(\d)\.", lambda m: f"decoder.model.{int(m[1]) + 1}.block."),
        (r"^(encoder.*block)\.res_unit(\d)\.", lambda m: f"{m[1]}.{int(m[2]) - 1}.block."),
        (r"^(decoder.*block)\.res_unit(\d)\.", lambda m: f"{m[1]}.{int(m[2]) + 1}.block."),
        (r"^(encoder\.block\.\d\.block)\.snake1", r"\1.3"), (r"^(encoder\.block\.\d\.block)\.conv1", r"\1.4"),
        (r"^(decoder\.model\.\d\.block)\.snake1", r"\1.0"), (r"^(decoder\.model\.\d\.block)\.conv_t1", r"\1.1"),
        (r"block\.snake1", "block.0"), (r"block\.conv1", "block.1"), (r"block\.snake2", "block.2"),
        (r"block\.conv2", "block.3"),
    ]  # fmt: skip
    return two(hf("DacModel", "DacConfig"), table)


@pair("stranger: HiFi-GAN in its authors' names to SpeechT5's, weight norms", "transformers")
def hifigan(small: bool) -> Two:
    import torch

    model = hf("SpeechT5HifiGan", "SpeechT5HifiGanConfig")
    state: dict[str, Any] = {}
    for key, tensor in model.state_dict().items():
        if key.endswith(".weight"):
            stem = key.removesuffix("weight") + "parametrizations.weight.original"
            state[f"{stem}0"] = torch.empty(tensor.shape[0], *[1] * (tensor.ndim - 1))
            state[f"{stem}1"] = tensor
        else:
            state[key] = tensor
    table: list[Swap] = [
        (r"^upsampler", "generator.ups"), (r"^(resblocks|conv)", r"generator.\1"),
        (r"parametrizations\.weight\.original0", "weight_g"), (r"parametrizations\.weight\.original1", "weight_v"),
    ]  # fmt: skip
    return two(state, table, skip=["mean", "scale"])


@pair("stranger: VITS in its authors' names to Hugging Face", "transformers")
def vits(small: bool) -> Two:
    table: list[Swap] = [
        (r"parametrizations\.weight\.original0", "weight_g"), (r"parametrizations\.weight\.original1", "weight_v"),
        (r"^text_encoder\.embed_tokens", "enc_p.emb"), (r"^text_encoder\.project", "enc_p.proj"),
        (r"^text_encoder\.encoder\.layers\.(\d)\.attention\.([qkv])_proj", r"enc_p.encoder.attn_layers.\1.conv_\2"),
        (r"^text_encoder\.encoder\.layers\.(\d)\.attention\.out_proj", r"enc_p.encoder.attn_layers.\1.conv_o"),
        (r"^text_encoder\.encoder\.layers\.(\d)\.attention\.", r"enc_p.encoder.attn_layers.\1."),
        (r"^text_encoder\.encoder\.layers\.(\d)\.layer_norm\.", r"enc_p.encoder.norm_layers_1.\1.~"),
        (r"^text_encoder\.encoder\.layers\.(\d)\.final_layer_norm\.", r"enc_p.encoder.norm_layers_2.\1.~"),
        (r"^text_encoder\.encoder\.layers\.(\d)\.feed_forward\.", r"enc_p.encoder.ffn_layers.\1."),
        (r"^decoder\.upsampler", "dec.ups"), (r"^decoder\.", "dec."),
        (r"^flow\.flows\.(\d)\.", lambda m: f"flow.flows.{2 * int(m[1])}."),
        (r"^posterior_encoder\.", "enc_q."), (r"wavenet\.", "enc."), (r"^(flow.*|enc_q)\.conv_", r"\1."),
        (r"^duration_predictor\.", "dp."),
        (r"^dp\.(post_)?flows\.(\d)\.(?=c)", lambda m: f"dp.{m[1] or ''}flows.{2 * int(m[2]) - 1}."),
        (r"translate", "m"), (r"log_scale", "logs"), (r"post_conv_dds\.", "post_convs."), (r"conv_dds\.", "convs."),
        (r"^dp\.post_conv_", "dp.post_"), (r"^(dp.*)conv_(pre|proj)", r"\1\2"), (r"convs_dilated", "convs_sep"),
        (r"convs_pointwise", "convs_1x1"), (r"(norms_\d\.\d)\.", r"\1.~"), (r"~weight", "gamma"), (r"~bias", "beta"),
    ]  # fmt: skip
    layouts = [(r"text_encoder.*(_proj)\.weight", "o i 1 -> o i")]
    return two(hf("VitsModel", "VitsConfig"), table, layouts)


@pair("stranger: NeMo's FastConformer to Hugging Face's Parakeet", "transformers")
def parakeet(small: bool) -> Two:
    table: list[Swap] = [
        (r"^subsampling\.layers", "encoder.pre_encode.conv"), (r"^subsampling\.linear", "encoder.pre_encode.out"),
        (r"^layers", "encoder.layers"), (r"self_attn\.bias_", "self_attn.pos_bias_"),
        (r"relative_k_proj", "linear_pos"), (r"self_attn\.([qkv])_proj", r"self_attn.linear_\1"),
        (r"o_proj", "linear_out"), (r"conv\.norm\.", "conv.batch_norm."),
    ]  # fmt: skip
    return two(hf("ParakeetEncoder", "ParakeetEncoderConfig", num_hidden_layers=5), table)


# ---------------------------------------------------------------------------------------------- files of training


@pair("stranger: a running average of parameters, a list of numbers", "torchvision")
def shadow(small: bool) -> Two:
    model = tv("resnet18")
    parameters = dict(model.named_parameters())
    source = {f"shadow_params.{at}": tensor for at, tensor in enumerate(parameters.values())}
    rules = [f"shadow_params.{at} -> {key}" for at, key in enumerate(parameters)]
    return Two(source, parameters, rules, undecided=["*"], proof="torch_ema's order")


@pair("stranger: Lightning around torch.compile around timm", "timm")
def lightning(small: bool) -> Two:
    import torch

    model = tm("convnext_atto")
    source = {f"model.net._orig_mod.{key}": tensor for key, tensor in model.state_dict().items()}
    extra = {"loss.weight": torch.empty(1000), "train_acc.tp": torch.empty(1000), "model.scale": torch.empty(1)}
    return Two(source | extra, model, ["model.net._orig_mod.{k**} -> {k**}"], proof="a prefix")


@pair("stranger: a mean teacher: both fit alike", "timm")
def teacher(small: bool) -> Two:
    model = tm("vit_tiny_patch16_224", depth=4)
    source = {f"{net}.{key}": tensor for net in ("student", "teacher") for key, tensor in model.state_dict().items()}
    return Two(source, model, ["student.{k**} -> {k**}"], undecided=["*"], proof="nothing tells")


@pair("stranger: DQN: policy and target network fit alike")
def dqn(small: bool) -> Two:
    net = """
{}.0.weight 32 4 8 8
{}.0.bias 32
{}.2.weight 64 32 4 4
{}.2.bias 64
{}.5.weight 512 3136
{}.5.bias 512
{}.7.weight 6 512
{}.7.bias 6
"""
    source = lay(net.replace("{}", "policy_net")) | lay(net.replace("{}", "target_net"))
    return Two(source, lay(net.replace("{}", "q_network.features")), ["policy_net.{k**} -> q_network.features.{k**}"],
               undecided=["*"], proof="nothing tells")  # fmt: skip


@pair("stranger: one ResNet for three equal streams", "torchvision")
def streams(small: bool) -> Two:
    state = {key: t for key, t in tv("resnet18").state_dict().items() if not key.startswith("fc.")}
    target = {f"{stream}.{key}": t for stream in ("rgb", "flow", "depth") for key, t in state.items()}
    rules = [f"{key} -> rgb.{key}, flow.{key}, depth.{key}" for key in state]
    return Two(state, target, rules, undecided=["*"], proof="as the author meant it")


# ---------------------------------------------------------------------------------------------- nothing belongs


def none(source: Any, target: Any) -> Two:
    return Two(source, target, None)


@pair("stranger, unrelated: DCGAN's discriminator into its generator")
def dcgan(small: bool) -> Two:
    source, target = "", ""
    widths = [3, 64, 128, 256, 512, 100]
    for at in range(5):
        a, b = widths[at], widths[at + 1]
        source += f"main.{3 * at}.weight {b} {a} 4 4\n" + "".join(f"{r}\n" for r in _bn(f"main.{3 * at + 1}", b))
        a, b = widths[5 - at], widths[4 - at]
        target += f"main.{3 * at}.weight {a} {b} 4 4\n" + "".join(f"{r}\n" for r in _bn(f"main.{3 * at + 1}", b))
    return none(lay(source), lay(target))


def autoencoder_half(part: str, ends: tuple[str, str, str]) -> str:
    text = f"{part}.{ends[0]}.weight 128 {3 if part == 'encoder' else 8} 3 3\n{part}.{ends[0]}.bias 128\n"
    for level in range(3):
        for block in range(2):
            at = f"{part}.{ends[2]}.{level}.block.{block}."
            text += "".join(f"{at}{name}\n" for name in (
                "norm1.weight 128", "norm1.bias 128", "conv1.weight 128 128 3 3", "conv1.bias 128", "norm2.weight 128",
                "norm2.bias 128", "conv2.weight 128 128 3 3", "conv2.bias 128"))  # fmt: skip
    text += f"{part}.{ends[1]}.weight {8 if part == 'encoder' else 3} 128 3 3\n"
    return text + f"{part}.norm_out.weight 128\n{part}.norm_out.bias 128\n"


@pair("stranger, unrelated: a VAE's encoder into its decoder")
def vae(small: bool) -> Two:
    ends = "conv_in", "conv_out"
    return none(lay(autoencoder_half("encoder", (*ends, "down"))), lay(autoencoder_half("decoder", (*ends, "up"))))


@pair("stranger, unrelated: an MLP's encoder into its mirrored decoder")
def mlp_mirror(small: bool) -> Two:
    sizes = [784, 512, 256, 64]
    source = "".join(f"encoder.{2 * n}.weight {b} {a}\nencoder.{2 * n}.bias {b}\n"
                     for n, (a, b) in enumerate(pairwise(sizes)))  # fmt: skip
    back = sizes[::-1]
    target = "".join(f"decoder.{2 * n}.weight {b} {a}\ndecoder.{2 * n}.bias {b}\n"
                     for n, (a, b) in enumerate(pairwise(back)))  # fmt: skip
    return none(lay(source), lay(target))


@pair("stranger, unrelated: the way down of a U-Net into the way up")
def unet_halves(small: bool) -> Two:
    source = target = ""
    for level, width in enumerate((32, 64, 128, 256)):
        for conv in (0, 3):
            for text_of, name in ((0, f"down{level + 1}.conv.{conv}"), (1, f"up{4 - level}.conv.{conv}")):
                rows = f"{name}.weight {width} {width} 3 3\n" + "".join(
                    f"{r}\n" for r in _bn(name[: -len(str(conv))] + str(conv + 1), width)
                )
                if text_of:
                    target = rows + target if conv == 0 else target + rows
                else:
                    source += rows
    return none(lay(source), lay(target))


@pair("stranger, unrelated: timm's ViT and Wav2Vec2, 768 wide", "timm", "transformers")
def vit_wav(small: bool) -> Two:
    return none(tm("vit_base_patch16_224"), hf("Wav2Vec2Model", "Wav2Vec2Config"))


@pair("stranger, unrelated: GPT-2 and OPT-125m", "transformers")
def gpt_opt(small: bool) -> Two:
    return none(hf("GPT2LMHeadModel", "GPT2Config"), hf("OPTForCausalLM", "OPTConfig"))


@pair("stranger, unrelated: RoBERTa and BART's decoder, 768 wide", "transformers")
def roberta_bart(small: bool) -> Two:
    bart = hf("BartModel", "BartConfig", d_model=768, decoder_layers=6, encoder_layers=6, decoder_ffn_dim=3072,
              encoder_ffn_dim=3072, decoder_attention_heads=12)  # fmt: skip
    return none(hf("RobertaModel", "RobertaConfig", num_hidden_layers=6), bart.decoder)


@pair("stranger, unrelated: PoolFormer and PVT v2, of equal widths", "timm")
def pool_pvt(small: bool) -> Two:
    return none(tm("poolformer_s12"), tm("pvt_v2_b1"))


@pair("stranger, unrelated: Mixer-B/16 and ViT-B/16", "timm")
def mixer_vit(small: bool) -> Two:
    return none(tm("mixer_b16_224"), tm("vit_base_patch16_224"))


@pair("stranger, unrelated: an actor into a critic of equal width")
def actor_critic(small: bool) -> Two:
    return none(lay("""
policy.actor.l1.weight 256 17
policy.actor.l1.bias 256
policy.actor.l2.weight 256 256
policy.actor.l2.bias 256
policy.actor.l3.weight 6 256
policy.actor.l3.bias 6
"""), lay("""
value.critic.q1.0.weight 256 23
value.critic.q1.0.bias 256
value.critic.q1.2.weight 256 256
value.critic.q1.2.bias 256
value.critic.q1.4.weight 1 256
value.critic.q1.4.bias 1
"""))  # fmt: skip


@pair("stranger, unrelated: CLIP's text tower into a vision tower of one width", "transformers")
def clip_towers(small: bool) -> Two:
    text = hf("CLIPTextModelWithProjection", "CLIPTextConfig", num_hidden_layers=6)
    vision = hf("CLIPVisionModelWithProjection", "CLIPVisionConfig", num_hidden_layers=6, hidden_size=512,
                intermediate_size=2048, num_attention_heads=8)  # fmt: skip
    return none(text, vision)


@pair("stranger, unrelated: a few tensors, one fits when turned")
def lone(small: bool) -> Two:
    return none(lay("scores 10 20\noffsets 7\n"), lay("kernel.mat 20 10\nshift 5\n"))


@pair("stranger, unrelated: BERT and the encoder of a ViT-MAE's decoder width", "transformers")
def bert_mae(small: bool) -> Two:
    small_bert = hf("BertModel", "BertConfig", hidden_size=512, num_hidden_layers=8, intermediate_size=2048,
                    num_attention_heads=8)  # fmt: skip
    decoder = {k: t for k, t in hf("ViTMAEForPreTraining", "ViTMAEConfig").state_dict().items() if "decoder." in k}
    return none(small_bert, decoder)
