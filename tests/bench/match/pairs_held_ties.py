"""Held-out pairs where two towers tie, or where names that look alike mean different places.

Where no header tells which tower is meant, no answer is a miss and the other tower is wrong.
"""

from __future__ import annotations

from typing import Any

from tests.bench.match.pairs import Two, image, pair, shuffled, variant
from tests.bench.match.pairs_hand import small_net
from tests.bench.match.pairs_held import listed, rewound
from tests.bench.match.pairs_held_hand import two_towers
from tests.bench.match.pairs_text import transformers


def one_of_two(wanted: str, other: str, target: str, first: str) -> Two:
    """Both towers in the file, `first` in front; one in the target."""
    from torch import nn

    def nested(path: str) -> Any:
        module: Any = small_net()
        for part in reversed(path.split(".")):
            module = nn.ModuleDict({part: module})
        return module

    def merged(a: str, b: str) -> Any:
        model = nested(a)
        for name, child in nested(b).items():
            if name in model:
                model[name].update(child)
            else:
                model[name] = child
        return model

    second = other if first == wanted else wanted
    rules = [f"{other}.{{k**}} -> !", f"{wanted}.{{k**}} -> {target}.{{k**}}"]
    return Two(
        merged(first, second), nested(target), rules, undecided=["*"],
        ask=lambda m: m.get_submodule(wanted)(image()), ask_target=lambda m: m.get_submodule(target)(image()),
    )  # fmt: skip


@pair("two discriminators alike, one is wanted: the second")
def discriminators(small: bool) -> Two:
    return one_of_two("netD_B", "netD_A", "D", "netD_A")


@pair("two discriminators alike, one is wanted: the first")
def discriminators_first(small: bool) -> Two:
    return one_of_two("netD_A", "netD_B", "D", "netD_B")


@pair("BYOL: the target's network in front, the online one is wanted")
def byol(small: bool) -> Two:
    return one_of_two("online_network.encoder", "target_network.encoder", "encoder", "target_network.encoder")


@pair("BYOL: the online network in front, the target's is wanted")
def byol_target(small: bool) -> Two:
    return one_of_two("target_network.encoder", "online_network.encoder", "encoder", "online_network.encoder")


@pair("DINO: the teacher in front, its backbone is wanted")
def dino_teacher(small: bool) -> Two:
    return one_of_two("teacher.backbone", "student.module.backbone", "backbone", "teacher.backbone")


@pair("MoCo v3: base and momentum encoder, the base is wanted")
def moco(small: bool) -> Two:
    return one_of_two("module.base_encoder", "module.momentum_encoder", "backbone", "module.momentum_encoder")


@pair("streams of colour and flow, listed the other way round")
def streams(small: bool) -> Two:
    rules = ["rgb.{k**} -> rgb_stream.{k**}", "flow.{k**} -> flow_stream.{k**}"]

    def ask(a: str, b: str) -> Any:
        return lambda model: model[a](image()) + 2 * model[b](image())

    return Two(
        two_towers("rgb", "flow", small_net), two_towers("flow_stream", "rgb_stream", small_net), rules,
        ask=ask("rgb", "flow"), ask_target=ask("rgb_stream", "flow_stream"),
    )  # fmt: skip


@pair("TD3: critics and their targets, actor last")
def twins(small: bool) -> Two:
    """qf1, qf2 and the slow copies of both, all alike; the names say it."""
    from torch import nn

    names = {"critic.qf1": "q1", "critic.qf2": "q2", "critic_target.qf1": "q1_target", "critic_target.qf2": "q2_target"}
    source: dict[str, Any] = {}
    for name in names:
        for key, tensor in small_net().state_dict().items():
            source[f"{name}.{key}"] = tensor
    target = nn.ModuleDict({name: small_net() for name in ("q2_target", "q2", "q1_target", "q1")})
    return Two(source, target, [f"{a}.{{k**}} -> {b}.{{k**}}" for a, b in names.items()], proof="by construction")


@pair("Gemma 2 to a model with norms before and after", "transformers")
def sandwich(small: bool) -> Two:
    """post_attention_layernorm is behind the attention here, and in front of the feed-forward in Llama."""
    package = transformers()
    model = package.Gemma2ForCausalLM(package.Gemma2Config(num_hidden_layers=8, hidden_size=256, head_dim=32,
                                                           intermediate_size=512, vocab_size=3000))  # fmt: skip
    rules = [
        "blocks.{i}.{n=pre_attn_norm|post_attn_norm|pre_ffn_norm|post_ffn_norm}.weight -> model.layers.{i}."
        "{n=input_layernorm|post_attention_layernorm|pre_feedforward_layernorm|post_feedforward_layernorm}.weight",
        "blocks.{i}.attn.{x=wq|wk|wv|wo}.weight -> model.layers.{i}.self_attn.{x=q_proj|k_proj|v_proj|o_proj}.weight",
        "blocks.{i}.ffn.{n=gate|up|down}.weight -> model.layers.{i}.mlp.{n}_proj.weight",
        "embed.weight -> model.embed_tokens.weight",
        "final_norm.weight -> model.norm.weight",
    ]
    there = {key: tensor for key, tensor in model.state_dict().items() if key != "lm_head.weight"}
    words = """embed blocks pre_attn_norm attn wq wk wv wo post_attn_norm pre_ffn_norm ffn gate up down post_ffn_norm
        final_norm"""
    return Two(there, rewound(rules, there, words), rules, is_backwards=True, proof="by construction")


@pair("convolutions and norms by the names of their parts, not by their numbers")
def offset_norms(small: bool) -> Two:
    """expand, depthwise, project: bn0 bn1 bn2 there, bn1 bn2 bn3 here, and only the third has a width of its own."""
    import torch

    def block(names: tuple[str, ...], stem: str) -> dict[str, Any]:
        file: dict[str, Any] = {}
        for i in range(5):
            shapes = [(96, 16, 1, 1), (96, 1, 3, 3), (16, 96, 1, 1)]
            for conv, norm, shape in zip(names[::2], names[1::2], shapes, strict=True):
                file[f"{stem}.{i}.{conv}.weight"] = torch.empty(shape)
                for leaf in ("weight", "bias", "running_mean", "running_var"):
                    file[f"{stem}.{i}.{norm}.{leaf}"] = torch.empty(shape[:1])
        return file

    before = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
    after = ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")
    rules = [f"_blocks.{{i}}.{a}.{{p*}} -> blocks.{{i}}.{b}.{{p*}}" for a, b in zip(before, after, strict=True)]
    return Two(block(before, "_blocks"), block(after, "blocks"), rules, proof="efficientnet_pytorch and timm")


@pair("a YOLO's stage to names: a norm belongs to the convolution beside it")
def yolo_stage(small: bool) -> Two:
    """Five convolutions of which two are alike; the norms are alike in groups, and each stands in one module."""
    import torch

    sizes = {"model.1": (64, 32, 3), "model.2.cv1": (32, 64, 1), "model.2.cv3": (64, 64, 1), "model.2.m.0.cv1":
             (32, 32, 1), "model.2.m.0.cv2": (32, 32, 3), "model.3": (128, 64, 3)}  # fmt: skip
    there = {"model.1": "stage1.0", "model.2.cv1": "stage1.1.main_conv", "model.2.cv3": "stage1.1.final_conv",
             "model.2.m.0.cv1": "stage1.1.blocks.0.conv1", "model.2.m.0.cv2": "stage1.1.blocks.0.conv2",
             "model.3": "stage2.0"}  # fmt: skip

    def build(names: list[str]) -> dict[str, Any]:
        file: dict[str, Any] = {}
        for name, (b, a, kernel) in zip(names, sizes.values(), strict=True):
            file[f"{name}.conv.weight"] = torch.empty(b, a, kernel, kernel)
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                file[f"{name}.bn.{leaf}"] = torch.empty(b)
        return file

    rules = [f"{a}.{{k**}} -> {b}.{{k**}}" for a, b in there.items()]
    target = listed(build(list(there.values())), "stage main_conv final_conv blocks conv conv1 conv2 bn")
    return Two(build(list(there)), target, rules, proof="mmyolo's yolov5_to_mmyolo.py")


variant("convolutions and norms by their parts, shuffled",
        "convolutions and norms by the names of their parts, not by their numbers", shuffled)  # fmt: skip
variant("a YOLO's stage to names, shuffled",
        "a YOLO's stage to names: a norm belongs to the convolution beside it", shuffled)  # fmt: skip
