"""Pairs whose source is a file in names that no package here reads: latent diffusion, Keras."""

from __future__ import annotations

from typing import Any

from tests.bench.match.pairs import (
    State,
    Two,
    image,
    pair,
    renamed,
    sorted_keys,
    variant,
)


def vae_state(small: bool) -> State:
    """The first stage of latent diffusion (kl-f8), as its files have it."""
    import torch

    width = [16, 32, 64, 64] if small else [128, 256, 512, 512]
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    def block(name: str, a: int, b: int) -> None:
        layer(f"{name}.norm1", a)
        layer(f"{name}.conv1", b, a, 3, 3)
        layer(f"{name}.norm2", b)
        layer(f"{name}.conv2", b, b, 3, 3)
        if a != b:
            layer(f"{name}.nin_shortcut", b, a, 1, 1)

    def middle(name: str, a: int) -> None:
        block(f"{name}.block_1", a, a)
        layer(f"{name}.attn_1.norm", a)
        for part in ("q", "k", "v", "proj_out"):
            layer(f"{name}.attn_1.{part}", a, a, 1, 1)
        block(f"{name}.block_2", a, a)

    layer("encoder.conv_in", width[0], 3, 3, 3)
    before = width[0]
    for at, now in enumerate(width):
        for number in range(2):
            block(f"encoder.down.{at}.block.{number}", before, now)
            before = now
        if at < 3:
            layer(f"encoder.down.{at}.downsample.conv", now, now, 3, 3)
    middle("encoder.mid", before)
    layer("encoder.norm_out", before)
    layer("encoder.conv_out", 8, before, 3, 3)
    layer("decoder.conv_in", before, 4, 3, 3)
    middle("decoder.mid", before)
    ups: dict[int, list[tuple[str, int, int]]] = {}
    for at in (3, 2, 1, 0):
        ups[at] = [(f"decoder.up.{at}.block.{n}", before if n == 0 else width[at], width[at]) for n in range(3)]
        before = width[at]
    for at in range(4):
        for name, a, b in ups[at]:
            block(name, a, b)
        if at:
            layer(f"decoder.up.{at}.upsample.conv", width[at], width[at], 3, 3)
    layer("decoder.norm_out", before)
    layer("decoder.conv_out", 3, before, 3, 3)
    layer("quant_conv", 8, 8, 1, 1)
    layer("post_quant_conv", 4, 4, 1, 1)
    return {key: torch.empty(shape) for key, shape in shapes.items()}


@pair("latent diffusion's VAE to diffusers: the decoder counts backwards")
def vae(small: bool) -> Two:
    """diffusers has no package here; the names are those of its `convert_ldm_vae_checkpoint`."""
    resnet = "{c=norm1|conv1|norm2|conv2|nin_shortcut}.{p*}"
    to = "{c=norm1|conv1|norm2|conv2|conv_shortcut}.{p*}"
    attention = "{t=encoder|decoder}.mid.attn_1"
    there = "{t}.mid_block.attentions.0"
    plain = [
        f"encoder.down.{{i}}.block.{{j}}.{resnet} -> encoder.down_blocks.{{i}}.resnets.{{j}}.{to}",
        "encoder.down.{i}.downsample.conv.{p*} -> encoder.down_blocks.{i}.downsamplers.0.conv.{p*}",
        *(
            rule
            for i in range(4)
            for rule in (
                f"decoder.up.{i}.block.{{j}}.{resnet} -> decoder.up_blocks.{3 - i}.resnets.{{j}}.{to}",
                f"?decoder.up.{i}.upsample.conv.{{p*}} -> decoder.up_blocks.{3 - i}.upsamplers.0.conv.{{p*}}",
            )
        ),
        f"{{t=encoder|decoder}}.mid.block_{{j}}.{resnet} -> {{t}}.mid_block.resnets.{{j-1}}.{to}",
        "{t=encoder|decoder}.norm_out.{p*} -> {t}.conv_norm_out.{p*}",
        attention + ".norm.{p*} -> " + there + ".group_norm.{p*}",
        attention + ".{x=q|k|v|proj_out}.bias -> " + there + ".{x=to_q|to_k|to_v|to_out.0}.bias",
    ]
    weights = attention + ".{x=q|k|v|proj_out}.weight -> " + there + ".{x=to_q|to_k|to_v|to_out.0}.weight"

    def diffusers(state: State) -> State:
        found = renamed([*plain, weights])(state)
        squeezed = {key: found[key][:, :, 0, 0] if ".attentions." in key and found[key].dim() == 4 else found[key]
                    for key in found}  # fmt: skip
        return {key: squeezed[key] for key in sorted(squeezed)}

    return Two(
        vae_state(small), vae_state(small), [*plain, weights + " | o i 1 1 -> o i"], target_file=diffusers,
        proof="diffusers' script",
    )  # fmt: skip


variant("latent diffusion's VAE to diffusers, both sorted",
        "latent diffusion's VAE to diffusers: the decoder counts backwards", sorted_keys)  # fmt: skip


@pair("resnet50 in Keras' names", "torchvision")
def keras(small: bool) -> Two:
    """HWIO kernels, the shortcut is number 0, every convolution has a bias that torchvision lacks."""
    import torch
    import torchvision

    def weights(state: State) -> State:
        names = [
            "conv1.weight -> conv1_conv.kernel",
            "bn1.{p=weight|bias|running_mean|running_var} -> conv1_bn.{p=gamma|beta|moving_mean|moving_variance}",
            "layer{s}.{b}.conv{n}.weight -> conv{s+1}_block{b+1}_{n}_conv.kernel",
            "layer{s}.{b}.downsample.0.weight -> conv{s+1}_block{b+1}_0_conv.kernel",
            "layer{s}.{b}.bn{n}.{p=weight|bias|running_mean|running_var} -> "
            "conv{s+1}_block{b+1}_{n}_bn.{p=gamma|beta|moving_mean|moving_variance}",
            "layer{s}.{b}.downsample.1.{p=weight|bias|running_mean|running_var} -> "
            "conv{s+1}_block{b+1}_0_bn.{p=gamma|beta|moving_mean|moving_variance}",
            "fc.{p=weight|bias} -> predictions.{p=kernel|bias}",
        ]
        found = renamed(names)({key: tensor for key, tensor in state.items() if "num_batches" not in key})
        changed: dict[str, Any] = {}
        for key, tensor in found.items():
            turned = tensor.permute(2, 3, 1, 0) if tensor.dim() == 4 else tensor.T if tensor.dim() == 2 else tensor
            changed[key] = turned.contiguous()
            if key.endswith("conv.kernel"):
                changed[key.replace("kernel", "bias")] = torch.zeros(turned.shape[-1])
        return changed

    leaf = "{p=gamma|beta|moving_mean|moving_variance} -> "
    to = "{p=weight|bias|running_mean|running_var}"
    turn = " | h w i o -> o i h w"
    rules = [
        "{m*}_conv.bias -> !",
        f"conv1_conv.kernel -> conv1.weight{turn}",
        f"conv1_bn.{leaf}bn1.{to}",
        f"conv{{s+1}}_block{{b+1}}_0_conv.kernel -> layer{{s}}.{{b}}.downsample.0.weight{turn}",
        f"conv{{s+1}}_block{{b+1}}_{{n}}_conv.kernel -> layer{{s}}.{{b}}.conv{{n}}.weight{turn}",
        f"conv{{s+1}}_block{{b+1}}_0_bn.{leaf}layer{{s}}.{{b}}.downsample.1.{to}",
        f"conv{{s+1}}_block{{b+1}}_{{n}}_bn.{leaf}layer{{s}}.{{b}}.bn{{n}}.{to}",
        "predictions.kernel -> fc.weight | i o -> o i",
        "predictions.bias -> fc.bias",
    ]
    return Two(
        torchvision.models.resnet50(), torchvision.models.resnet50(), rules, source_file=weights,
        missing=["num_batches_tracked"], ask=lambda m: m(image(64)),
    )  # fmt: skip
