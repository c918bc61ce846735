"""Fresh pairs: Keras' and TensorFlow's flat names."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.match.fresh import Keys, Two, fresh, pair, renamed, state
from tests.bench.match.fresh_listings import listing
from tests.bench.match.pairs_fresh_sound import moved


def keras(
    target: dict[str, Any], name_of: Any, norm: tuple[str, ...] = ("gamma", "beta", "moving_mean", "moving_variance")
) -> tuple[Keys, list[str]]:
    """A Keras file: kernels [h, w, in, out], norms of four parts; `name_of` gives the layer of a module."""
    source, rules = Keys(), []
    tails = dict(
        zip(
            ("weight", "bias", "running_mean", "running_var"),
            ("gamma", "beta", "moving_mean", "moving_variance"),
            strict=True,
        )
    )
    norms = {key.rsplit(".", 1)[0] for key in target if key.endswith("running_mean")}
    for key, tensor in target.items():
        module, tail = key.rsplit(".", 1)
        layer = name_of(module)
        if tail == "num_batches_tracked" or not layer:
            continue
        if module in norms:
            if tails[tail] in norm:
                source[f"{layer}/{tails[tail]}"] = tensor
                rules.append(f"{layer}/{tails[tail]} -> {key}")
        elif tail == "bias":
            source[f"{layer}/bias"] = tensor
            rules.append(f"{layer}/bias -> {key}")
        elif tensor.dim() == 4:
            o, i, h, w = tensor.shape
            deep = i == 1 and o > 3
            kernel = f"{layer}/{'depthwise_kernel' if deep else 'kernel'}"
            source.put(kernel, h, w, *((o, 1) if deep else (i, o)))
            rules.append(f"{kernel} -> {key} | h w {'o i' if deep else 'i o'} -> o i h w")
        else:
            source.put(f"{layer}/kernel", *reversed(tensor.shape))
            rules.append(f"{layer}/kernel -> {key} | i o -> o i")
    return source, rules


@pair("fresh: Keras' InceptionV3 to torchvision: conv2d_57, nothing else", "torchvision")
def keras_inception(small: bool) -> Two:
    """Layers in the order of their making; norms without gamma. Only the numbers and the shapes tell."""
    import torchvision

    target = torchvision.models.inception_v3(aux_logits=False, init_weights=False)
    modules = [key.rsplit(".", 2)[0] for key in state(target) if key.endswith("conv.weight")]
    numbers = {module: "" if not at else f"_{at}" for at, module in enumerate(modules)}

    def name_of(module: str) -> str:
        if module == "fc":
            return "predictions"
        unit, kind = module.rsplit(".", 1)
        return ("conv2d" if kind == "conv" else "batch_normalization") + numbers[unit]

    source, rules = keras(state(target), name_of, ("beta", "moving_mean", "moving_variance"))
    return fresh(source, target, rules, missing=["*num_batches_tracked", "*.bn.weight"])


@pair("fresh: Keras' DenseNet121 to torchvision: conv2_block1_0_bn", "torchvision")
def keras_densenet(small: bool) -> Two:
    """Stages from 2, parts 0, 1 and 2; transitions are pools."""
    import torchvision

    target = torchvision.models.densenet121()
    table: list[Any] = [
        (r"^features\.conv0", "conv1_conv"),
        (r"^features\.norm0", "conv1_bn"),
        (r"^features\.norm5", "bn"),
        (r"^classifier", "predictions"),
        (
            r"^features\.transition(\d)\.(norm|conv)",
            lambda m: f"pool{int(m[1]) + 1}_{'bn' if m[2] == 'norm' else 'conv'}",
        ),
        (
            r"^features\.denseblock(\d)\.denselayer(\d+)\.norm(\d)",
            lambda m: f"conv{int(m[1]) + 1}_block{m[2]}_{int(m[3]) - 1}_bn",
        ),
        (
            r"^features\.denseblock(\d)\.denselayer(\d+)\.conv(\d)",
            lambda m: f"conv{int(m[1]) + 1}_block{m[2]}_{m[3]}_conv",
        ),
    ]
    source, rules = keras(state(target), lambda module: renamed(module, table))
    return fresh(source, target, rules, missing=["*num_batches_tracked"])


@pair("fresh: Keras' Xception to timm: block 2 is block 1", "timm")
def keras_xception(small: bool) -> Two:
    """A separable convolution has two kernels in one layer; shortcuts are conv2d to conv2d_3."""
    import timm

    target = timm.create_model("legacy_xception")
    skips = {1: "", 2: "_1", 3: "_2", 12: "_3"}

    def name_of(module: str) -> str:
        part = module.removesuffix(".conv1").removesuffix(".pointwise")
        if module in ("conv1", "conv2", "bn1", "bn2"):
            return f"block1_conv{module[-1]}" + ("_bn" if module[0] == "b" else "")
        if part in ("conv3", "conv4", "bn3", "bn4"):
            return f"block14_sepconv{int(part[-1]) - 2}" + ("_bn" if part[0] == "b" else "")
        if module == "fc":
            return "predictions"
        block = int(re.match(r"block(\d+)", module)[1])  # type: ignore[index]
        if module.endswith("skip"):
            return f"conv2d{skips[block]}"
        if module.endswith("skipbn"):
            return f"batch_normalization{skips[block]}"
        at = int(part.rsplit(".", 1)[1]) - (0 if block == 1 else 1)
        return f"block{block + 1}_sepconv{at // 3 + 1}" + ("_bn" if at % 3 else "")

    source, rules = keras(state(target), name_of)
    fixed, right = Keys(), []
    for rule in rules:
        old, new = rule.split(" -> ", 1)
        wanted = old
        if new.split(" |")[0].endswith(".pointwise.weight"):
            wanted = old.replace("/kernel", "/pointwise_kernel")
        fixed[wanted] = source[old]
        right.append(f"{wanted} -> {new}")
    return fresh(fixed, target, right, missing=["*num_batches_tracked"])


@pair("fresh: facenet in TensorFlow's names to facenet-pytorch: norms without gamma")
def facenet(small: bool) -> Two:
    """InceptionResnetV1/Repeat/block35_1/Branch_0/Conv2d_1x1; Repeat_1 is repeat_2."""
    target = listing("facenet")
    top = {
        "conv2d_1a": "Conv2d_1a_3x3",
        "conv2d_2a": "Conv2d_2a_3x3",
        "conv2d_2b": "Conv2d_2b_3x3",
        "conv2d_3b": "Conv2d_3b_1x1",
        "conv2d_4a": "Conv2d_4a_3x3",
        "conv2d_4b": "Conv2d_4b_3x3",
    }
    inside = {
        "repeat_1": {
            "branch0": "Branch_0/Conv2d_1x1",
            "branch1.0": "Branch_1/Conv2d_0a_1x1",
            "branch1.1": "Branch_1/Conv2d_0b_3x3",
            "branch2.0": "Branch_2/Conv2d_0a_1x1",
            "branch2.1": "Branch_2/Conv2d_0b_3x3",
            "branch2.2": "Branch_2/Conv2d_0c_3x3",
        },
        "repeat_2": {
            "branch0": "Branch_0/Conv2d_1x1",
            "branch1.0": "Branch_1/Conv2d_0a_1x1",
            "branch1.1": "Branch_1/Conv2d_0b_1x7",
            "branch1.2": "Branch_1/Conv2d_0c_7x1",
        },
        "repeat_3": {
            "branch0": "Branch_0/Conv2d_1x1",
            "branch1.0": "Branch_1/Conv2d_0a_1x1",
            "branch1.1": "Branch_1/Conv2d_0b_1x3",
            "branch1.2": "Branch_1/Conv2d_0c_3x1",
        },
        "mixed_6a": {
            "branch0": "Branch_0/Conv2d_1a_3x3",
            "branch1.0": "Branch_1/Conv2d_0a_1x1",
            "branch1.1": "Branch_1/Conv2d_0b_3x3",
            "branch1.2": "Branch_1/Conv2d_1a_3x3",
        },
        "mixed_7a": {
            "branch0.0": "Branch_0/Conv2d_0a_1x1",
            "branch0.1": "Branch_0/Conv2d_1a_3x3",
            "branch1.0": "Branch_1/Conv2d_0a_1x1",
            "branch1.1": "Branch_1/Conv2d_1a_3x3",
            "branch2.0": "Branch_2/Conv2d_0a_1x1",
            "branch2.1": "Branch_2/Conv2d_0b_3x3",
            "branch2.2": "Branch_2/Conv2d_1a_3x3",
        },
    }
    inside["block8"] = inside["repeat_3"]
    scopes = {
        "repeat_1": "Repeat/block35_",
        "repeat_2": "Repeat_1/block17_",
        "repeat_3": "Repeat_2/block8_",
        "mixed_6a": "Mixed_6a",
        "mixed_7a": "Mixed_7a",
        "block8": "Block8",
    }

    def name_of(module: str) -> str:
        kind = module.rsplit(".", 1)[-1]
        norm = "/BatchNorm" if kind == "bn" else ""
        unit = module.removesuffix(".conv").removesuffix(".bn")
        if unit in top:
            return f"InceptionResnetV1/{top[unit]}{norm}"
        if module == "last_linear":
            return "InceptionResnetV1/Bottleneck"
        if unit == "last_bn" or module == "last_bn":
            return "InceptionResnetV1/Bottleneck/BatchNorm"
        if module == "logits":
            return "Logits"
        where, rest = unit.split(".", 1)
        scope = scopes[where]
        if where.startswith("repeat"):
            number, rest = rest.split(".", 1)
            scope += str(int(number) + 1)
        return f"InceptionResnetV1/{scope}/" + ("Conv2d_1x1" if rest == "conv2d" else inside[where][rest] + norm)

    source, rules = keras(target, name_of, ("beta", "moving_mean", "moving_variance"))
    names = [(r"/(depthwise_)?kernel", "/weights"), (r"/bias", "/biases")]
    rules = [f"{renamed(rule.split(' -> ', 1)[0], names)} -> {rule.split(' -> ', 1)[1]}" for rule in rules]
    return fresh(moved(source, names), target, rules, missing=["*num_batches_tracked", "*bn.weight"])
