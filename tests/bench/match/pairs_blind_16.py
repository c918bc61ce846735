"""Blind pairs: conversions between code bases, as people do them day to day."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from tests.bench.match.blind import Net, Two, pair, renamed, split, state, to


def without(model: Any, *keys: str) -> dict[str, Any]:
    """A file of a model whose tied tensors are not saved twice."""
    found = dict(state(model))
    for key in keys:
        del found[key]
    return found


def spelled(target: Any, table: Sequence[Any], why: str, layouts: Sequence[tuple[str, str]] = (),
            order: Callable[[str], Any] | None = None, **also: Any) -> Two:  # fmt: skip
    """The other code base's file: target names by the table, "" if it has no such tensor; layouts lead back."""
    source, rules = Net(), []
    keys = list(state(target).items())
    if order:
        keys.sort(key=lambda item: order(item[0]))
    for key, tensor in keys:
        name = renamed(key, table)
        if not name:
            continue
        layout = next((layout for pattern, layout in layouts if re.search(pattern, key)), "")
        shape = tuple(tensor.shape)
        if layout:
            left, right = (side.split() for side in layout.split(" -> "))
            sizes = dict(zip(right, shape, strict=True)) | {"1": 1}
            shape = tuple(sizes[axis] for axis in left)
        if str(tensor.dtype) == "torch.int64":
            source.ints(name, *shape)
        else:
            source.put(name, *shape)
        rules.append(f"{name} -> {key}" + (f" | {layout}" if layout else ""))
    return Two(source, target, rules, proof=why, **also)


# ---------------------------------------------------------------------------------------------- every day


@pair("blind: GPT-2 in llama.cpp's names to Hugging Face: attn_qkv stays whole, matrices are turned", "transformers")
def gpt2_gguf(small: bool) -> Two:
    """Listed by letters as the file that it was made of."""
    import transformers

    target = without(transformers.GPT2LMHeadModel(transformers.GPT2Config()), "lm_head.weight")
    table = [
        (r"^transformer\.wte", "token_embd"),
        (r"^transformer\.wpe", "position_embd"),
        (r"^transformer\.ln_f", "output_norm"),
        (r"^transformer\.h", "blk"),
        (r"\.ln_1", ".attn_norm"),
        (r"\.ln_2", ".ffn_norm"),
        (r"\.attn\.c_attn", ".attn_qkv"),
        (r"\.attn\.c_proj", ".attn_output"),
        (r"\.mlp\.c_fc", ".ffn_up"),
        (r"\.mlp\.c_proj", ".ffn_down"),
    ]
    return spelled(target, table, "llama.cpp's convert_hf_to_gguf.py, GPT2Model, backwards",
                   [(r"\.c_\w+\.weight$", "o i -> i o")], str)  # fmt: skip


@pair("blind: Qwen3-30B-A3B in llama.cpp's names to Hugging Face: gates and ups of 128 experts become one",
      "transformers")  # fmt: skip
def qwen3_moe_gguf(small: bool) -> Two:
    """Parts of a layer in the order of Hugging Face's names."""
    import transformers

    width, inner, experts, depth = 2048, 768, 128, 48
    target = transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(
        vocab_size=151936, hidden_size=width, num_hidden_layers=depth, num_attention_heads=32, num_key_value_heads=4,
        head_dim=128, moe_intermediate_size=inner, num_experts=experts, num_experts_per_tok=8))  # fmt: skip
    source, groups = Net(), []
    source.put("output.weight", 151936, width)
    source.put("token_embd.weight", 151936, width)
    for layer in range(depth):
        at = f"blk.{layer}"
        source.put(f"{at}.attn_norm.weight", width)
        source.put(f"{at}.ffn_down_exps.weight", experts, width, inner)
        source.put(f"{at}.ffn_gate_exps.weight", experts, inner, width)
        source.put(f"{at}.ffn_up_exps.weight", experts, inner, width)
        source.put(f"{at}.ffn_gate_inp.weight", experts, width)
        source.put(f"{at}.ffn_norm.weight", width)
        source.put(f"{at}.attn_k_norm.weight", 128)
        source.put(f"{at}.attn_k.weight", 512, width)
        source.put(f"{at}.attn_output.weight", width, 4096)
        source.put(f"{at}.attn_q_norm.weight", 128)
        source.put(f"{at}.attn_q.weight", 4096, width)
        source.put(f"{at}.attn_v.weight", 512, width)
        groups.append(f"{at}.ffn_gate_exps.weight, {at}.ffn_up_exps.weight -> "
                      f"model.layers.{layer}.mlp.experts.gate_up_proj | e f i, e g i -> e (f + g) i")  # fmt: skip
    source.put("output_norm.weight", width)
    table: list[Any] = [
        (r".*ffn_(gate|up)_exps.*", "@"),
        (r"^output\.", "lm_head."),
        (r"^output_norm", "model.norm"),
        (r"^token_embd", "model.embed_tokens"),
        (r"^blk", "model.layers"),
        (r"\.attn_norm", ".input_layernorm"),
        (r"\.ffn_norm", ".post_attention_layernorm"),
        (r"\.ffn_down_exps\.weight", ".mlp.experts.down_proj"),
        (r"\.ffn_gate_inp", ".mlp.gate"),
        (r"\.attn_([qk])_norm", r".self_attn.\1_norm"),
        (r"\.attn_([qkv])\.", r".self_attn.\1_proj."),
        (r"\.attn_output", ".self_attn.o_proj"),
    ]
    return to(source, target, table, groups=groups,
              truth="llama.cpp's names of Qwen3MoE; transformers' gate_up_proj is the gate, then up")  # fmt: skip


@pair("blind: DINOv2-g with registers in Meta's names to Hugging Face: w12 is gate and up, qkv is split",
      "transformers")  # fmt: skip
def dinov2_registers(small: bool) -> Two:
    """Forty blocks; the mask's token goes with the rest."""
    import transformers

    width, inner, depth = 1536, 4096, 40
    target = transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=24, use_swiglu_ffn=True, patch_size=14,
        image_size=518))  # fmt: skip
    source, groups = Net(), []
    source.put("cls_token", 1, 1, width)
    source.put("pos_embed", 1, 1370, width)
    source.put("register_tokens", 1, 4, width)
    source.put("mask_token", 1, width)
    source.conv("patch_embed.proj", width, 3, 14)
    for block in range(depth):
        at, there = f"blocks.{block}", f"encoder.layer.{block}"
        source.norm(f"{at}.norm1", width)
        source.lin(f"{at}.attn.qkv", 3 * width, width)
        source.lin(f"{at}.attn.proj", width, width)
        source.put(f"{at}.ls1.gamma", width)
        source.norm(f"{at}.norm2", width)
        source.lin(f"{at}.mlp.w12", 2 * inner, width)
        source.lin(f"{at}.mlp.w3", width, inner)
        source.put(f"{at}.ls2.gamma", width)
        groups += split(f"{at}.attn.qkv", [f"{there}.attention.{x}_proj" for x in "qkv"])
        groups += split(f"{at}.mlp.w12", [f"{there}.mlp.{x}_proj" for x in ("gate", "up")])
    source.norm("norm", width)
    table: list[Any] = [
        (r".*\.(qkv|w12)\..*", "@"),
        (r"^(cls_token|mask_token|register_tokens)", r"embeddings.\1"),
        (r"^pos_embed", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
        (r"^norm", "layernorm"),
        (r"^blocks", "encoder.layer"),
        (r"\.attn\.proj", ".attention.o_proj"),
        (r"\.mlp\.w3", ".mlp.down_proj"),
        (r"\.ls(\d)\.gamma", r".layer_scale\1.lambda1"),
    ]
    return to(source, target, table, groups=groups,
              truth="transformers' convert_dinov2_with_registers_to_hf.py; Meta's SwiGLUFFN: silu of the first half"
              )  # fmt: skip


@pair("blind: mmpretrain's ConvNeXt-T to torchvision: ways down have a list of their own", "torchvision")
def convnext_mm(small: bool) -> Two:
    """A block's scale comes first and has one axis."""
    import torchvision

    target = torchvision.models.convnext_tiny(weights=None)
    parts = {"0": "depthwise_conv", "2": "norm", "3": "pointwise_conv1", "5": "pointwise_conv2"}
    table: list[Any] = [
        (r"^features\.([0246])\.(\d)\.(?=\w+$)", lambda m: f"backbone.downsample_layers.{int(m[1]) // 2}.{m[2]}."),
        (r"^features\.(\d)\.(\d)\.", lambda m: f"backbone.stages.{int(m[1]) // 2}.{m[2]}."),
        (r"\.block\.(\d)", lambda m: f".{parts[m[1]]}"),
        (r"\.layer_scale", ".gamma"),
        (r"^classifier\.0", "backbone.norm3"),
        (r"^classifier\.2", "head.fc"),
    ]

    def order(key: str) -> int:
        number = key.split(".")[1]
        return 2 if key.startswith("classifier") else int(number) % 2

    return spelled(target, table, "mmpretrain's convnext.py: the norm of the last stage stands behind the pooling",
                   [(r"layer_scale$", "c -> c 1 1")], order)  # fmt: skip


@pair("blind: timm's ViT-B into mmseg's UPerNet: attn.attn.in_proj, ffn.layers.0.0, a neck and two heads", "timm")
def vit_mmseg(small: bool) -> Two:
    """Images of 512 have more positions; the head and the last norm stay behind."""
    import timm

    source, target, width = timm.create_model("vit_base_patch16_224", pretrained=False), Net(), 768
    target.put("backbone.cls_token", 1, 1, width)
    target.put("backbone.pos_embed", 1, 1025, width)
    target.conv("backbone.patch_embed.projection", width, 3, 16)
    for block in range(12):
        at = f"backbone.layers.{block}"
        target.norm(f"{at}.ln1", width)
        target.mha(f"{at}.attn.attn", width)
        target.norm(f"{at}.ln2", width)
        target.lin(f"{at}.ffn.layers.0.0", 4 * width, width)
        target.lin(f"{at}.ffn.layers.1", width, 4 * width)
    for kind, kernel in (("lateral_convs", 1), ("convs", 3)):
        for level in range(4):
            target.conv(f"neck.{kind}.{level}.conv", width, width, kernel)

    def unit(at: str, out: int, into: int, kernel: int) -> None:
        target.conv(f"{at}.conv", out, into, kernel, bias=False)
        target.bn(f"{at}.bn", out)

    target.conv("decode_head.conv_seg", 150, 512, 1)
    for i in range(4):
        unit(f"decode_head.psp_modules.{i}.1", 512, width, 1)
    unit("decode_head.bottleneck", 512, width + 4 * 512, 3)
    for i in range(3):
        unit(f"decode_head.lateral_convs.{i}", 512, width, 1)
    for i in range(3):
        unit(f"decode_head.fpn_convs.{i}", 512, 512, 3)
    unit("decode_head.fpn_bottleneck", 512, 2048, 3)
    target.conv("auxiliary_head.conv_seg", 150, 256, 1)
    unit("auxiliary_head.convs.0", 256, width, 3)
    table: list[Any] = [
        (r"^(head|norm|pos_embed)\b.*", ""),
        (r"^(?=.)", "backbone."),
        (r"patch_embed\.proj\.", "patch_embed.projection."),
        (r"\.blocks\.", ".layers."),
        (r"\.norm(\d)", r".ln\1"),
        (r"\.attn\.qkv\.", ".attn.attn.in_proj_"),
        (r"\.attn\.proj", ".attn.attn.out_proj"),
        (r"\.mlp\.fc1", ".ffn.layers.0.0"),
        (r"\.mlp\.fc2", ".ffn.layers.1"),
    ]
    return to(source, target, table, missing=["backbone.pos_embed", "neck.*", "decode_head.*", "auxiliary_head.*"],
              truth="mmseg's tools/model_converters/vit2mmseg.py")  # fmt: skip


@pair("blind: YOLOv4 by Tianxiaomo to bubbliiiing's: one neck and one head of numbers become parts by name")
def yolov4(small: bool) -> Two:
    """conv2 and conv3 of a stage are the two ways of its split; the first stage keeps its blocks outside of a list."""
    source, target = Net(), Net()
    rules: list[str] = []

    def unit(old: str, new: str, out: int, into: int, kernel: int) -> tuple[str, str, int, int, int]:
        source.conv(f"{old}.conv.0", out, into, kernel, bias=False)
        source.bn(f"{old}.conv.1", out)
        rules.append(f"{old}.conv.0.weight -> {new}.conv.weight")
        rules.extend(f"{old}.conv.1.{tail} -> {new}.bn.{tail}" for tail in
                     ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"))  # fmt: skip
        return old, new, out, into, kernel

    def made(new: str, out: int, into: int, kernel: int) -> None:
        target.conv(f"{new}.conv", out, into, kernel, bias=False)
        target.bn(f"{new}.bn", out)

    found = [unit("down1.conv1", "backbone.conv1", 32, 3, 3)]
    at = "backbone.stages.0"
    found += [
        unit("down1.conv2", f"{at}.downsample_conv", 64, 32, 3),
        unit("down1.conv3", f"{at}.split_conv0", 64, 64, 1),
        unit("down1.conv4", f"{at}.split_conv1", 64, 64, 1),
        unit("down1.conv5", f"{at}.blocks_conv.0.block.0", 32, 64, 1),
        unit("down1.conv6", f"{at}.blocks_conv.0.block.1", 64, 32, 3),
        unit("down1.conv7", f"{at}.blocks_conv.1", 64, 64, 1),
        unit("down1.conv8", f"{at}.concat_conv", 64, 128, 1),
    ]
    for stage, blocks in ((2, 2), (3, 8), (4, 8), (5, 4)):
        here, at, into = f"down{stage}", f"backbone.stages.{stage - 1}", 2 ** (stage + 4)
        found += [
            unit(f"{here}.conv1", f"{at}.downsample_conv", 2 * into, into, 3),
            unit(f"{here}.conv2", f"{at}.split_conv0", into, 2 * into, 1),
            unit(f"{here}.conv3", f"{at}.split_conv1", into, 2 * into, 1),
        ]
        for block in range(blocks):
            for i, kernel in enumerate((1, 3)):
                found.append(unit(f"{here}.resblock.module_list.{block}.{i}",
                                  f"{at}.blocks_conv.{block}.block.{i}", into, into, kernel))  # fmt: skip
        found += [
            unit(f"{here}.conv4", f"{at}.blocks_conv.{blocks}", into, into, 1),
            unit(f"{here}.conv5", f"{at}.concat_conv", 2 * into, 2 * into, 1),
        ]

    def row(part: str, first: int, new: str, into: int, out: int, count: int) -> list[tuple[str, str, int, int, int]]:
        sizes = [(out, into, 1), (2 * out, out, 3), (out, 2 * out, 1), (2 * out, out, 3), (out, 2 * out, 1)][:count]
        return [unit(f"{part}.conv{first + i}", f"{new}.{i}", *size) for i, size in enumerate(sizes)]

    def last(number: int, new: str, into: int) -> None:
        source.conv(f"head.conv{number}.conv.0", 255, into, 1)
        rules.extend(f"head.conv{number}.conv.0.{tail} -> {new}.1.{tail}" for tail in ("weight", "bias"))

    found += row("neek", 1, "conv1", 1024, 512, 3)
    found += row("neek", 4, "conv2", 2048, 512, 3)
    found.append(unit("neek.conv7", "upsample1.upsample.0", 256, 512, 1))
    found.append(unit("neek.conv8", "conv_for_P4", 256, 512, 1))
    found += row("neek", 9, "make_five_conv1", 512, 256, 5)
    found.append(unit("neek.conv14", "upsample2.upsample.0", 128, 256, 1))
    found.append(unit("neek.conv15", "conv_for_P3", 128, 256, 1))
    found += row("neek", 16, "make_five_conv2", 256, 128, 5)
    found.append(unit("head.conv1", "yolo_head3.0", 256, 128, 3))
    last(2, "yolo_head3", 256)
    found.append(unit("head.conv3", "down_sample1", 256, 128, 3))
    found += row("head", 4, "make_five_conv3", 512, 256, 5)
    found.append(unit("head.conv9", "yolo_head2.0", 512, 256, 3))
    last(10, "yolo_head2", 512)
    found.append(unit("head.conv11", "down_sample2", 512, 256, 3))
    found += row("head", 12, "make_five_conv4", 1024, 512, 5)
    found.append(unit("head.conv17", "yolo_head1.0", 1024, 512, 3))
    last(18, "yolo_head1", 1024)
    for _, new, out, into, kernel in found:
        made(new, out, into, kernel)
        if new.startswith("yolo_head"):
            target.conv(new.replace(".0", ".1"), 255, out, 1)
    return Two(
        source, target, rules, proof="the code of both: pytorch-YOLOv4's models.py, yolov4-pytorch's nets/yolo.py"
    )


@pair("blind: ControlNet 1.1 in lllyasviel's names to diffusers: a hint's numbers become blocks, attentions come first")
def controlnet(small: bool) -> Two:
    """zero_convs are controlnet_down_blocks; a transformer's norms come last here and in between there."""
    source, target = Net(), Net()
    table: list[Any] = []

    def old_res(at: str, into: int, out: int) -> None:
        source.norm(f"{at}.in_layers.0", into)
        source.conv(f"{at}.in_layers.2", out, into, 3)
        source.lin(f"{at}.emb_layers.1", out, 1280)
        source.norm(f"{at}.out_layers.0", out)
        source.conv(f"{at}.out_layers.3", out, out, 3)
        if into != out:
            source.conv(f"{at}.skip_connection", out, into, 1)

    def new_res(at: str, into: int, out: int) -> None:
        target.norm(f"{at}.norm1", into)
        target.conv(f"{at}.conv1", out, into, 3)
        target.lin(f"{at}.time_emb_proj", out, 1280)
        target.norm(f"{at}.norm2", out)
        target.conv(f"{at}.conv2", out, out, 3)
        if into != out:
            target.conv(f"{at}.conv_shortcut", out, into, 1)

    def attention(net: Net, at: str, width: int, context: int) -> None:
        net.lin(f"{at}.to_q", width, width, False)
        net.lins(f"{at}.to_k", f"{at}.to_v", out=width, into=context, bias=False)
        net.lin(f"{at}.to_out.0", width, width)

    def transformer(net: Net, at: str, width: int, is_old: bool) -> None:
        net.norm(f"{at}.norm", width)
        net.conv(f"{at}.proj_in", width, width, 1)
        block = f"{at}.transformer_blocks.0"
        for part in ("attn1 ff attn2 norm1 norm2 norm3" if is_old else "norm1 attn1 norm2 attn2 norm3 ff").split():
            if part == "ff":
                net.lin(f"{block}.ff.net.0.proj", 8 * width, width)
                net.lin(f"{block}.ff.net.2", width, 4 * width)
            elif part.startswith("attn"):
                attention(net, f"{block}.{part}", width, 768 if part == "attn2" else width)
            else:
                net.norm(f"{block}.{part}", width)
        net.conv(f"{at}.proj_out", width, width, 1)

    hints = [(16, 3), (16, 16), (32, 16), (32, 32), (96, 32), (96, 96), (256, 96), (320, 256)]
    levels = [(320, 320), (320, 640), (640, 1280), (1280, 1280)]
    root, widths = "control_model", [320]
    source.lin(f"{root}.time_embed.0", 1280, 320)
    source.lin(f"{root}.time_embed.2", 1280, 1280)
    source.conv(f"{root}.input_blocks.0.0", 320, 4, 3)
    target.conv("conv_in", 320, 4, 3)
    target.lin("time_embedding.linear_1", 1280, 320)
    target.lin("time_embedding.linear_2", 1280, 1280)
    for i, (out, into) in enumerate(hints):
        name = "conv_in" if i == 0 else "conv_out" if i == 7 else f"blocks.{i - 1}"
        target.conv(f"controlnet_cond_embedding.{name}", out, into, 3)
        table.append((rf"^{root}\.input_hint_block\.{2 * i}\.", f"controlnet_cond_embedding.{name}."))
    number = 0
    for level, (into, out) in enumerate(levels):
        there = f"down_blocks.{level}"
        if level < 3:
            for i in range(2):
                transformer(target, f"{there}.attentions.{i}", out, False)
        for i in range(2):
            number += 1
            at = f"{root}.input_blocks.{number}"
            old_res(f"{at}.0", into if i == 0 else out, out)
            new_res(f"{there}.resnets.{i}", into if i == 0 else out, out)
            table.append((rf"^{root}\.input_blocks\.{number}\.0\.", f"{there}.resnets.{i}."))
            if level < 3:
                transformer(source, f"{at}.1", out, True)
                table.append((rf"^{root}\.input_blocks\.{number}\.1\.", f"{there}.attentions.{i}."))
            widths.append(out)
        if level < 3:
            number += 1
            source.conv(f"{root}.input_blocks.{number}.0.op", out, out, 3)
            target.conv(f"{there}.downsamplers.0.conv", out, out, 3)
            table.insert(0, (rf"^{root}\.input_blocks\.{number}\.0\.op", f"{there}.downsamplers.0.conv"))
            widths.append(out)
    for i, width in enumerate(widths):
        source.conv(f"{root}.zero_convs.{i}.0", width, width, 1)
        target.conv(f"controlnet_down_blocks.{i}", width, width, 1)
    for i, (out, into) in enumerate(hints):
        source.conv(f"{root}.input_hint_block.{2 * i}", out, into, 3)
    old_res(f"{root}.middle_block.0", 1280, 1280)
    transformer(source, f"{root}.middle_block.1", 1280, True)
    old_res(f"{root}.middle_block.2", 1280, 1280)
    source.conv(f"{root}.middle_block_out.0", 1280, 1280, 1)
    target.conv("controlnet_mid_block", 1280, 1280, 1)
    transformer(target, "mid_block.attentions.0", 1280, False)
    new_res("mid_block.resnets.0", 1280, 1280)
    new_res("mid_block.resnets.1", 1280, 1280)
    table += [
        (rf"^{root}\.input_blocks\.0\.0", "conv_in"),
        (rf"^{root}\.time_embed\.0", "time_embedding.linear_1"),
        (rf"^{root}\.time_embed\.2", "time_embedding.linear_2"),
        (rf"^{root}\.zero_convs\.(\d+)\.0", r"controlnet_down_blocks.\1"),
        (rf"^{root}\.middle_block_out\.0", "controlnet_mid_block"),
        (rf"^{root}\.middle_block\.0", "mid_block.resnets.0"),
        (rf"^{root}\.middle_block\.1", "mid_block.attentions.0"),
        (rf"^{root}\.middle_block\.2", "mid_block.resnets.1"),
        (r"\.in_layers\.0", ".norm1"),
        (r"\.in_layers\.2", ".conv1"),
        (r"\.emb_layers\.1", ".time_emb_proj"),
        (r"\.out_layers\.0", ".norm2"),
        (r"\.out_layers\.3", ".conv2"),
        (r"\.skip_connection", ".conv_shortcut"),
    ]
    return to(source, target, table, truth="diffusers' convert_original_controlnet_to_diffusers.py")


@pair("blind: Keras' MobileNetV3-Large to timm: expanded_conv_4/squeeze_excite/Conv_1, a head of convolutions", "timm")
def mobilenetv3_keras(small: bool) -> Two:
    """Blocks are counted through from 0, the first has no number; norms have no counters."""
    import timm

    target = timm.create_model("tf_mobilenetv3_large_100", pretrained=False)
    starts = [0, 1, 3, 6, 10, 12]
    words = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}

    def block(match: re.Match[str]) -> str:
        number = starts[int(match[1])] + int(match[2])
        part, tail = match[3], match[4]
        if number == 0:
            part = {"bn1": "bn2", "bn2": "bn3", "conv_pw": "conv_pwl"}.get(part, part)
        kinds = {"conv_pw": "expand", "conv_dw": "depthwise", "conv_pwl": "project", "bn1": "expand/BatchNorm",
                 "bn2": "depthwise/BatchNorm", "bn3": "project/BatchNorm",
                 "se.conv_reduce": "squeeze_excite/Conv", "se.conv_expand": "squeeze_excite/Conv_1"}  # fmt: skip
        root = f"expanded_conv_{number}" if number else "expanded_conv"
        word = words[tail] if part.startswith("bn") else "bias" if tail == "bias" else "kernel"
        if part == "conv_dw":
            word = "depthwise_kernel"
        return f"{root}/{kinds[part]}/{word}:0"

    table: list[Any] = [
        (r".*num_batches_tracked", ""),
        (r"^blocks\.6\.0\.conv\.weight", "Conv_1/kernel:0"),
        (r"^blocks\.6\.0\.bn1\.(\w+)", lambda m: f"Conv_1/BatchNorm/{words[m[1]]}:0"),
        (r"^blocks\.(\d)\.(\d)\.([\w.]+)\.(\w+)$", block),
        (r"^conv_stem\.weight", "Conv/kernel:0"),
        (r"^bn1\.(\w+)", lambda m: f"Conv/BatchNorm/{words[m[1]]}:0"),
        (r"^conv_head\.weight", "Conv_2/kernel:0"),
        (r"^conv_head\.bias", "Conv_2/bias:0"),
        (r"^classifier\.weight", "Logits/kernel:0"),
        (r"^classifier\.bias", "Logits/bias:0"),
    ]
    layouts = [(r"conv_dw\.weight", "h w o i -> o i h w"), (r"classifier\.weight", "1 1 i o -> o i"),
               (r"(conv|conv_\w+)\.weight", "h w i o -> o i h w")]  # fmt: skip
    return spelled(target, table, "keras.applications' mobilenet_v3.py; timm's tf_ variant of it", layouts,
                   missing=["*.num_batches_tracked"])  # fmt: skip


@pair("blind: Whisper-tiny in Flax' names to Hugging Face's torch: kernels are turned, all listed by letters",
      "transformers")  # fmt: skip
def whisper_flax(small: bool) -> Two:
    """Both tables of positions are embeddings; the head is tied."""
    import transformers

    target = without(transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(
        d_model=384, encoder_layers=4, decoder_layers=4, encoder_attention_heads=6, decoder_attention_heads=6,
        encoder_ffn_dim=1536, decoder_ffn_dim=1536)), "proj_out.weight")  # fmt: skip
    table: list[Any] = [
        (r"(embed_\w+)\.weight", r"\1.embedding"),
        (r"norm\.weight", "norm.scale"),
        (r"weight$", "kernel"),
        (r"\.", "/"),
    ]
    layouts = [(r"conv\d\.weight", "k i o -> o i k"), (r"(_proj|fc\d)\.weight", "i o -> o i")]
    return spelled(target, table, "transformers' modeling_flax_whisper.py and its Flax to PyTorch loader", layouts,
                   lambda key: renamed(key, table).split("/"))  # fmt: skip


@pair("blind: PP-HGNetV2-B4 in PaddleClas' names to timm: squeezing and exciting are numbers of a list", "timm")
def hgnet_paddle(small: bool) -> Two:
    """Statistics are _mean and _variance, the classifier is turned."""
    import timm

    target = timm.create_model("hgnetv2_b4", pretrained=False)
    table: list[Any] = [
        (r".*num_batches_tracked", ""),
        (r"running_mean", "_mean"),
        (r"running_var", "_variance"),
        (r"aggregation\.0", "aggregation_squeeze_conv"),
        (r"aggregation\.1", "aggregation_excitation_conv"),
        (r"^head\.last_conv\.0", "last_conv"),
        (r"^head\.fc", "fc"),
    ]
    return spelled(target, table, "PaddleClas' pp_hgnet_v2.py; timm's hgnet.py", [(r"head\.fc\.weight", "i o -> o i")],
                   missing=["*.num_batches_tracked"])  # fmt: skip


@pair("blind: Megatron-LM's BERT-345M to Hugging Face: q, k and v take turns by heads, a norm went into attention",
      "transformers")  # fmt: skip
def megatron_bert(small: bool) -> Two:
    """The table that predicts is tied and not in the file."""
    import transformers

    width, depth = 1024, 24
    model = transformers.MegatronBertForPreTraining(transformers.MegatronBertConfig())
    target = without(model, "cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
    source, groups, root = Net(), [], "model.language_model"
    source.put(f"{root}.embedding.word_embeddings.weight", 29056, width)
    source.put(f"{root}.embedding.position_embeddings.weight", 512, width)
    source.put(f"{root}.embedding.tokentype_embeddings.weight", 2, width)
    for layer in range(depth):
        at = f"{root}.transformer.layers.{layer}"
        source.norm(f"{at}.input_layernorm", width)
        source.lin(f"{at}.attention.query_key_value", 3 * width, width)
        source.lin(f"{at}.attention.dense", width, width)
        source.norm(f"{at}.post_attention_layernorm", width)
        source.lin(f"{at}.mlp.dense_h_to_4h", 4 * width, width)
        source.lin(f"{at}.mlp.dense_4h_to_h", width, 4 * width)
        names = [f"bert.encoder.layer.{layer}.attention.self.{x}" for x in ("query", "key", "value")]
        for tail, i in (("weight", " i"), ("bias", "")):
            groups.append(f"{at}.attention.query_key_value.{tail} -> {', '.join(f'{name}.{tail}' for name in names)} | "
                          f"(h (q + k + v)){i} -> (h q){i}, (h k){i}, (h v){i}")  # fmt: skip
    source.norm(f"{root}.transformer.final_layernorm", width)
    source.lin(f"{root}.pooler.dense", width, width)
    source.put("model.lm_head.bias", 29056)
    source.lin("model.lm_head.dense", width, width)
    source.norm("model.lm_head.layernorm", width)
    source.lin("model.binary_head", 2, width)
    table: list[Any] = [
        (r".*query_key_value.*", "@"),
        (r"^model\.language_model\.embedding\.tokentype", "bert.embeddings.token_type"),
        (r"^model\.language_model\.embedding", "bert.embeddings"),
        (r"^model\.language_model\.pooler", "bert.pooler"),
        (r"^model\.language_model\.transformer\.final_layernorm", "bert.encoder.ln"),
        (r"^model\.language_model\.transformer\.layers", "bert.encoder.layer"),
        (r"^model\.binary_head", "cls.seq_relationship"),
        (r"^model\.lm_head\.bias", "cls.predictions.bias"),
        (r"^model\.lm_head\.dense", "cls.predictions.transform.dense"),
        (r"^model\.lm_head\.layernorm", "cls.predictions.transform.LayerNorm"),
        (r"\.input_layernorm", ".attention.ln"),
        (r"\.post_attention_layernorm", ".ln"),
        (r"\.attention\.dense", ".attention.output.dense"),
        (r"\.mlp\.dense_h_to_4h", ".intermediate.dense"),
        (r"\.mlp\.dense_4h_to_h", ".output.dense"),
    ]
    return to(source, target, table, groups=groups, vars={"h": 16, "q": 64, "k": 64, "v": 64},
              hidden=["*.attention.self.*"],
              truth="transformers' convert_megatron_bert_checkpoint.py for checkpoint versions from 2.0")  # fmt: skip


@pair("blind: Chinese-CLIP by OFA-Sys, in DataParallel, to Hugging Face: a BERT under CLIP's picture tower",
      "transformers")  # fmt: skip
def chinese_clip(small: bool) -> Two:
    """Pictures in front of words; projections are turned, in_proj is split."""
    import transformers

    target = transformers.ChineseCLIPModel(transformers.ChineseCLIPConfig(
        text_config={"vocab_size": 21128}, vision_config={"patch_size": 16}))  # fmt: skip
    source, groups, width = Net(), [], 768
    source.put("module.text_projection", width, 512)
    source.put("module.logit_scale")
    source.put("module.visual.class_embedding", width)
    source.put("module.visual.positional_embedding", 197, width)
    source.put("module.visual.proj", width, 512)
    source.conv("module.visual.conv1", width, 3, 16, bias=False)
    source.norm("module.visual.ln_pre", width)
    for block in range(12):
        at = f"module.visual.transformer.resblocks.{block}"
        source.mha(f"{at}.attn", width)
        source.norm(f"{at}.ln_1", width)
        source.lin(f"{at}.mlp.c_fc", 4 * width, width)
        source.lin(f"{at}.mlp.c_proj", width, 4 * width)
        source.norm(f"{at}.ln_2", width)
        names = [f"vision_model.encoder.layers.{block}.self_attn.{x}_proj" for x in "qkv"]
        groups += split(f"{at}.attn.in_proj", names, weight="_weight", offset="_bias")
    source.norm("module.visual.ln_post", width)
    for key, tensor in state(target).items():
        if key.startswith("text_model."):
            source.put(key.replace("text_model.", "module.bert."), *tensor.shape)
    table: list[Any] = [
        (r".*in_proj_.*", "@"),
        (r"^module\.", ""),
        (r"^bert\.", "text_model."),
        (r"^text_projection", "text_projection.weight"),
        (r"^visual\.class_embedding", "vision_model.embeddings.class_embedding"),
        (r"^visual\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
        (r"^visual\.proj", "visual_projection.weight"),
        (r"^visual\.conv1", "vision_model.embeddings.patch_embedding"),
        (r"^visual\.ln_pre", "vision_model.pre_layrnorm"),
        (r"^visual\.ln_post", "vision_model.post_layernorm"),
        (r"^visual\.transformer\.resblocks", "vision_model.encoder.layers"),
        (r"\.attn\.", ".self_attn."),
        (r"\.ln_", ".layer_norm"),
        (r"\.mlp\.c_fc", ".mlp.fc1"),
        (r"\.mlp\.c_proj", ".mlp.fc2"),
    ]
    return to(source, target, table, [("visual.proj$|text_projection", "i o -> o i")], groups,
              truth="transformers' convert_chinese_clip_original_pytorch_to_hf.py")  # fmt: skip


# ---------------------------------------------------------------------------------------------- less usual


@pair("blind: PaliGemma-3B in big_vision's npz to Hugging Face: layers are an axis in both models, heads as well",
      "transformers")  # fmt: skip
def paligemma(small: bool) -> Two:
    """k and v share a tensor, gate and up as well; the projector is the tower's head."""
    import transformers

    see, inner, width, depth, blocks = 1152, 4304, 2048, 18, 27
    model = transformers.PaliGemmaForConditionalGeneration(transformers.PaliGemmaConfig(
        text_config={"model_type": "gemma", "hidden_size": width, "num_hidden_layers": depth,
                     "intermediate_size": 16384, "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256,
                     "vocab_size": 257152},
        vision_config={"model_type": "siglip_vision_model", "hidden_size": see, "intermediate_size": inner,
                       "num_hidden_layers": blocks, "num_attention_heads": 16, "patch_size": 14, "image_size": 224,
                       "vision_use_head": False},
        projection_dim=width))  # fmt: skip
    target = without(model, "lm_head.weight")
    tower = next(key for key in target if key.endswith("patch_embedding.weight")).split("embeddings.")[0]
    text = next(key for key in target if key.endswith("embed_tokens.weight")).removesuffix("embed_tokens.weight")
    source, rules = Net(), []

    def put(name: str, shape: tuple[int, ...], there: str, layout: str = "") -> None:
        source.put(f"params/{name}", *shape)
        rules.append(f"params/{name} -> {there}" + (f" | {layout}" if layout else ""))

    here, there = "img/Transformer/encoderblock", f"{tower}encoder.layers.{{l}}"
    put("img/Transformer/encoder_norm/bias", (see,), f"{tower}post_layernorm.bias")
    put("img/Transformer/encoder_norm/scale", (see,), f"{tower}post_layernorm.weight")
    for number in (0, 1):
        put(f"{here}/LayerNorm_{number}/bias", (blocks, see), f"{there}.layer_norm{number + 1}.bias", "l c -> c")
        put(f"{here}/LayerNorm_{number}/scale", (blocks, see), f"{there}.layer_norm{number + 1}.weight", "l c -> c")
    for number, (into, out) in enumerate(((see, inner), (inner, see))):
        name, fc = f"{here}/MlpBlock_0/Dense_{number}", f"{there}.mlp.fc{number + 1}"
        put(f"{name}/bias", (blocks, out), f"{fc}.bias", "l o -> o")
        put(f"{name}/kernel", (blocks, into, out), f"{fc}.weight", "l i o -> o i")
    for part in ("key", "out", "query", "value"):
        name = f"{here}/MultiHeadDotProductAttention_0/{part}"
        if part == "out":
            put(f"{name}/bias", (blocks, see), f"{there}.self_attn.out_proj.bias", "l o -> o")
            put(f"{name}/kernel", (blocks, 16, 72, see), f"{there}.self_attn.out_proj.weight", "l h d o -> o (h d)")
        else:
            proj = f"{there}.self_attn.{part[0]}_proj"
            put(f"{name}/bias", (blocks, 16, 72), f"{proj}.bias", "l h d -> (h d)")
            put(f"{name}/kernel", (blocks, see, 16, 72), f"{proj}.weight", "l i h d -> (h d) i")
    put("img/embedding/bias", (see,), f"{tower}embeddings.patch_embedding.bias")
    put("img/embedding/kernel", (14, 14, 3, see), f"{tower}embeddings.patch_embedding.weight", "h w i o -> o i h w")
    projector = next(key for key in target if "projector" in key).rsplit(".", 1)[0]
    put("img/head/bias", (width,), f"{projector}.bias")
    put("img/head/kernel", (see, width), f"{projector}.weight", "i o -> o i")
    put("img/pos_embedding", (1, 256, see), f"{tower}embeddings.position_embedding.weight", "1 n c -> n c")
    put("llm/embedder/input_embedding", (257152, width), f"{text}embed_tokens.weight")
    put("llm/final_norm/scale", (width,), f"{text}norm.weight")
    at = f"{text}layers.{{l}}"
    put("llm/layers/attn/attn_vec_einsum/w", (depth, 8, 256, width), f"{at}.self_attn.o_proj.weight",
        "l h d o -> o (h d)")  # fmt: skip
    put("llm/layers/attn/kv_einsum/w", (depth, 2, 1, width, 256), f"{at}.self_attn.{{x=k|v}}_proj.weight",
        "l x g i d -> (g d) i")  # fmt: skip
    put("llm/layers/attn/q_einsum/w", (depth, 8, width, 256), f"{at}.self_attn.q_proj.weight", "l h i d -> (h d) i")
    put("llm/layers/mlp/gating_einsum", (depth, 2, width, 16384), f"{at}.mlp.{{x=gate|up}}_proj.weight",
        "l x i o -> o i")  # fmt: skip
    put("llm/layers/mlp/linear", (depth, 16384, width), f"{at}.mlp.down_proj.weight", "l i o -> o i")
    put("llm/layers/pre_attention_norm/scale", (depth, width), f"{at}.input_layernorm.weight", "l c -> c")
    put("llm/layers/pre_ffw_norm/scale", (depth, width), f"{at}.post_attention_layernorm.weight", "l c -> c")
    return Two(source, target, rules, proof="transformers' convert_paligemma_weights_to_hf.py")


@pair("blind: EfficientViT-B1 in MIT's names to timm: everything is an op_list", "timm")
def efficientvit_mit(small: bool) -> Two:
    """The head is a convolution, a Linear with a norm and another Linear."""
    import timm

    target = timm.create_model("efficientvit_b1", pretrained=False)
    table: list[Any] = [
        (r"^stem\.in_conv", "backbone.input_stem.op_list.0"),
        (r"^stem\.res0", "backbone.input_stem.op_list.1"),
        (r"^stages\.(\d)\.blocks", r"backbone.stages.\1.op_list"),
        (r"^head\.in_conv", "head.op_list.0"),
        (r"^head\.classifier\.0", "head.op_list.2.linear"),
        (r"^head\.classifier\.1", "head.op_list.2.norm"),
        (r"^head\.classifier\.4", "head.op_list.3.linear"),
    ]
    return spelled(target, table, "MIT's nn/ops.py, backbone.py and cls.py; timm's efficientvit_mit.py")


@pair("blind: CAFormer-S18 in sail-sg's names to timm: Linears are convolutions in two of four stages", "timm")
def caformer(small: bool) -> Two:
    """Ways down have a list in front, a norm before or behind; the norm of the head stands outside of it."""
    import timm

    target = timm.create_model("caformer_s18", pretrained=False)
    table: list[Any] = [
        (r"^stem\.norm", "downsample_layers.0.post_norm"),
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d)\.downsample\.norm", r"downsample_layers.\1.pre_norm"),
        (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"^stages\.(\d)\.blocks\.", r"stages.\1."),
        (r"^head\.norm", "norm"),
        (r"^head\.fc\.", "head."),
    ]

    def order(key: str) -> int:
        return ["downsample_layers", "stages", "norm", "head"].index(renamed(key, table).split(".")[0])

    return spelled(target, table, "timm's checkpoint_filter_fn of metaformer.py",
                   [(r"stages\.[01].*(pwconv\d|fc\d)\.weight", "o i -> o i 1 1")], order)  # fmt: skip


@pair("blind: MMS' VITS in its authors' names to Coqui: flows lose their flips, weight norms become parametrizations")
def vits_coqui(small: bool) -> Two:
    """The decoder is second here and last there; flows 0, 1, 3, 5, 7 are 0 to 4, twice."""
    width, source = 192, Net()

    def conv(at: str, out: int, into: int, kernel: int = 1) -> None:
        source.put(f"{at}.weight", out, into, kernel)
        source.put(f"{at}.bias", out)

    def normed(at: str, out: int, into: int, kernel: int, bias: int = 0) -> None:
        source.put(f"{at}.bias", bias or out)
        source.put(f"{at}.weight_g", out, 1, 1)
        source.put(f"{at}.weight_v", out, into, kernel)

    def ln(at: str) -> None:
        source.put(f"{at}.gamma", width)
        source.put(f"{at}.beta", width)

    def wavenet(at: str, depth: int) -> None:
        for i in range(depth):
            normed(f"{at}.in_layers.{i}", 2 * width, width, 5)
        for i in range(depth):
            normed(f"{at}.res_skip_layers.{i}", width if i == depth - 1 else 2 * width, width, 1)

    def separable(at: str) -> None:
        for i in range(3):
            conv(f"{at}.convs_sep.{i}", width, 1, 3)
        for i in range(3):
            conv(f"{at}.convs_1x1.{i}", width, width)
        for kind in ("norms_1", "norms_2"):
            for i in range(3):
                ln(f"{at}.{kind}.{i}")

    def flows(at: str) -> None:
        source.put(f"{at}.0.m", 2, 1)
        source.put(f"{at}.0.logs", 2, 1)
        for i in (1, 3, 5, 7):
            conv(f"{at}.{i}.pre", width, 1)
            separable(f"{at}.{i}.convs")
            conv(f"{at}.{i}.proj", 29, width)

    source.put("enc_p.emb.weight", 38, width)
    for i in range(6):
        at = f"enc_p.encoder.attn_layers.{i}"
        source.put(f"{at}.emb_rel_k", 1, 9, 96)
        source.put(f"{at}.emb_rel_v", 1, 9, 96)
        for x in "qkvo":
            conv(f"{at}.conv_{x}", width, width)
    for i in range(6):
        ln(f"enc_p.encoder.norm_layers_1.{i}")
    for i in range(6):
        conv(f"enc_p.encoder.ffn_layers.{i}.conv_1", 768, width, 3)
        conv(f"enc_p.encoder.ffn_layers.{i}.conv_2", width, 768, 3)
    for i in range(6):
        ln(f"enc_p.encoder.norm_layers_2.{i}")
    conv("enc_p.proj", 2 * width, width)
    conv("dec.conv_pre", 512, width, 7)
    for i, kernel in enumerate((16, 16, 4, 4)):
        normed(f"dec.ups.{i}", 512 >> i, 256 >> i, kernel, bias=256 >> i)
    for i in range(12):
        size, kernel = 256 >> i // 3, (3, 7, 11)[i % 3]
        for kind in ("convs1", "convs2"):
            for j in range(3):
                normed(f"dec.resblocks.{i}.{kind}.{j}", size, size, kernel)
    source.put("dec.conv_post.weight", 1, 32, 7)
    conv("enc_q.pre", width, 513)
    wavenet("enc_q.enc", 16)
    conv("enc_q.proj", 2 * width, width)
    for i in (0, 2, 4, 6):
        conv(f"flow.flows.{i}.pre", width, width // 2)
        wavenet(f"flow.flows.{i}.enc", 4)
        conv(f"flow.flows.{i}.post", width // 2, width)
    flows("dp.flows")
    conv("dp.post_pre", width, 1)
    conv("dp.post_proj", width, width)
    separable("dp.post_convs")
    flows("dp.post_flows")
    conv("dp.pre", width, width)
    conv("dp.proj", width, width)
    separable("dp.convs")

    table: list[Any] = [
        (r"^enc_p\.", "text_encoder."),
        (r"^enc_q\.", "posterior_encoder."),
        (r"^dec\.", "waveform_decoder."),
        (r"^flow\.flows\.(\d)", lambda m: f"flow.flows.{int(m[1]) // 2}"),
        (r"^dp\.((?:post_)?flows)\.(\d)", lambda m: f"dp.{m[1]}.{(int(m[2]) + 1) // 2}"),
        (r"^dp\.", "duration_predictor."),
        (r"\.m$", ".translation"),
        (r"\.logs$", ".log_scale"),
        (r"\.weight_g$", ".parametrizations.weight.original0"),
        (r"\.weight_v$", ".parametrizations.weight.original1"),
    ]
    parts = ["text_encoder", "posterior_encoder", "flow", "duration_predictor", "waveform_decoder"]
    inside = ["pre", "convs", "proj", "flows", "post_pre", "post_convs", "post_proj", "post_flows"]

    def order(name: str) -> tuple[int, int]:
        words = name.split(".")
        return parts.index(words[0]), inside.index(words[1]) if words[0] == "duration_predictor" else 0

    named = {renamed(key, table): tensor for key, tensor in source.items()}
    target = Net()
    target.update({name: named[name] for name in sorted(named, key=order)})
    return to(source, target, table,
              truth="Coqui's rehash_fairseq_vits_checkpoint; torch's hook for old weight norms")  # fmt: skip


@pair("blind: Wav2Vec2-Conformer in fairseq's names to Hugging Face: norms of the feed-forwards come out of them",
      "transformers")  # fmt: skip
def wav2vec2_conformer(small: bool) -> Two:
    """Relative positions have biases u and v; final_proj is project_hid, vars are codevectors."""
    import transformers

    width, depth = 1024, 24
    target = transformers.Wav2Vec2ConformerForPreTraining(transformers.Wav2Vec2ConformerConfig(
        num_hidden_layers=depth, hidden_size=width, intermediate_size=4096, num_attention_heads=16,
        feat_extract_norm="layer", conv_bias=True, position_embeddings_type="relative", codevector_dim=768,
        proj_codevector_dim=768))  # fmt: skip
    source = Net()
    source.put("mask_emb", width)
    for i, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        source.put(f"feature_extractor.conv_layers.{i}.0.weight", 512, 512 if i else 1, kernel)
        source.put(f"feature_extractor.conv_layers.{i}.0.bias", 512)
        source.norm(f"feature_extractor.conv_layers.{i}.2.1", 512)
    source.lin("post_extract_proj", width, 512)
    source.put("quantizer.vars", 1, 640, 384)
    source.lin("quantizer.weight_proj", 640, 512)
    source.lin("project_q", 768, 768)
    source.put("encoder.pos_conv.0.bias", width)
    source.put("encoder.pos_conv.0.weight_g", 1, 1, 128)
    source.put("encoder.pos_conv.0.weight_v", width, 64, 128)
    for layer in range(depth):
        at = f"encoder.layers.{layer}"

        def feed(name: str) -> None:
            source.norm(f"{name}.layer_norm", width)
            source.lin(f"{name}.w_1", 4096, width)
            source.lin(f"{name}.w_2", width, 4096)

        feed(f"{at}.ffn1")
        source.norm(f"{at}.self_attn_layer_norm", width)
        source.put(f"{at}.self_attn.pos_bias_u", 16, 64)
        source.put(f"{at}.self_attn.pos_bias_v", 16, 64)
        source.lins(*(f"{at}.self_attn.linear_{x}" for x in ("q", "k", "v", "out")), out=width, into=width)
        source.lin(f"{at}.self_attn.linear_pos", width, width, False)
        source.norm(f"{at}.conv_module.layer_norm", width)
        source.put(f"{at}.conv_module.pointwise_conv1.weight", 2 * width, width, 1)
        source.put(f"{at}.conv_module.depthwise_conv.weight", width, 1, 31)
        source.bn(f"{at}.conv_module.batch_norm", width)
        source.put(f"{at}.conv_module.pointwise_conv2.weight", width, width, 1)
        feed(f"{at}.ffn2")
        source.norm(f"{at}.final_layer_norm", width)
    source.norm("encoder.layer_norm", width)
    source.norm("layer_norm", 512)
    source.lin("final_proj", 768, width)
    base = "wav2vec2_conformer."
    table: list[Any] = [
        (r"^quantizer\.vars", "quantizer.codevectors"),
        (r"^final_proj", "project_hid"),
        (r"^mask_emb", f"{base}masked_spec_embed"),
        (r"^layer_norm", f"{base}feature_projection.layer_norm"),
        (r"^post_extract_proj", f"{base}feature_projection.projection"),
        (r"^(feature_extractor\.conv_layers\.\d)\.0", rf"{base}\1.conv"),
        (r"^(feature_extractor\.conv_layers\.\d)\.2\.1", rf"{base}\1.layer_norm"),
        (r"^encoder\.pos_conv\.0\.weight_g", f"{base}encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
        (r"^encoder\.pos_conv\.0\.weight_v", f"{base}encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
        (r"^encoder\.pos_conv\.0", f"{base}encoder.pos_conv_embed.conv"),
        (r"^encoder\.", f"{base}encoder."),
        (r"\.(ffn\d)\.layer_norm", r".\1_layer_norm"),
        (r"\.w_1", ".intermediate_dense"),
        (r"\.w_2", ".output_dense"),
    ]
    return to(source, target, table,
              truth="transformers' convert_wav2vec2_conformer_original_pytorch_checkpoint_to_pytorch.py")  # fmt: skip


@pair("blind: DimeNet in its author's TensorFlow names to PyTorch Geometric: squares of 128, listed by letters")
def dimenet(small: bool) -> Two:
    """The bilinear tensor keeps its axes; final_before_skip and dense_final are both lin."""
    target, width = Net(), 128
    target.put("rbf.freq", 6)
    target.put("emb.emb.weight", 95, width)
    target.lin("emb.lin_rbf", width, 6)
    target.lin("emb.lin", width, 3 * width)
    for i in range(7):
        at = f"output_blocks.{i}"
        target.lin(f"{at}.lin_rbf", width, 6, False)
        target.lins(*(f"{at}.lins.{j}" for j in range(3)), out=width, into=width)
        target.lin(f"{at}.lin", 1, width, False)
    for i in range(6):
        at = f"interaction_blocks.{i}"
        target.put(f"{at}.W", width, 8, width)
        target.lin(f"{at}.lin_rbf", width, 6, False)
        target.lin(f"{at}.lin_sbf", 8, 42, False)
        target.lins(f"{at}.lin_kj", f"{at}.lin_ji", out=width, into=width)
        target.lins(f"{at}.layers_before_skip.0.lin1", f"{at}.layers_before_skip.0.lin2", out=width, into=width)
        target.lin(f"{at}.lin", width, width)
        for j in (0, 1):
            target.lins(*(f"{at}.layers_after_skip.{j}.lin{n}" for n in (1, 2)), out=width, into=width)
    table: list[Any] = [
        (r"^rbf\.freq", "rbf_layer.frequencies"),
        (r"^emb\.emb\.weight", "emb_block.embeddings"),
        (r"^emb\.", "emb_block."),
        (r"^interaction_blocks\.(\d)\.W", r"int_blocks.\1.bilinear"),
        (r"^interaction_blocks\.(\d)\.lin\.", r"int_blocks.\1.final_before_skip."),
        (r"^interaction_blocks", "int_blocks"),
        (r"^(output_blocks\.\d)\.lins", r"\1.dense_layers"),
        (r"^(output_blocks\.\d)\.lin\.", r"\1.dense_final."),
        (r"\.lin(\d)", r".dense_\1"),
        (r"\.lin_(\w+)", r".dense_\1"),
        (r"\.lin\.", ".dense."),
        (r"\.weight$", ".kernel"),
        (r"\.", "/"),
        (r"$", "/.ATTRIBUTES/VARIABLE_VALUE"),
    ]
    return spelled(target, table, "PyTorch Geometric's DimeNet.from_qm9_pretrained",
                   [(r"(?<!emb\.emb)\.weight$", "i o -> o i")], lambda key: renamed(key, table))  # fmt: skip


@pair("blind: VGGish in TF-slim's names to torchvggish: channels stay last in front of the Linears")
def vggish(small: bool) -> Two:
    """What is done to the outputs is not in the file."""
    target = Net()
    convolutions = {"conv1": (0, 1, 64), "conv2": (3, 64, 128), "conv3/conv3_1": (6, 128, 256),
                    "conv3/conv3_2": (8, 256, 256), "conv4/conv4_1": (11, 256, 512),
                    "conv4/conv4_2": (13, 512, 512)}  # fmt: skip
    linears = {"fc1/fc1_1": (0, 12288, 4096), "fc1/fc1_2": (2, 4096, 4096), "fc2": (4, 4096, 128)}
    names = {}
    for name, (number, into, out) in convolutions.items():
        target.conv(f"features.{number}", out, into, 3)
        names[f"features.{number}"] = name
    for name, (number, into, out) in linears.items():
        target.lin(f"embeddings.{number}", out, into)
        names[f"embeddings.{number}"] = name
    target.put("pproc.pca_eigen_vectors", 128, 128)
    target.put("pproc.pca_means", 128, 1)

    def name_of(match: re.Match[str]) -> str:
        return f"vggish/{names[match[1]]}/{'weights' if match[2] == 'weight' else 'biases'}"

    table: list[Any] = [(r"^pproc\..*", ""), (r"^(\w+\.\d+)\.(\w+)$", name_of)]
    layouts = [(r"features.*weight", "h w i o -> o i h w"), (r"embeddings.*weight", "i o -> o i")]
    return spelled(target, table, "torchvggish's vggish.py: the tensor is turned to channels last and then flattened",
                   layouts, lambda key: renamed(key, table), missing=["pproc.*"])  # fmt: skip


@pair("blind: a walking policy of rl_games to rsl_rl: two perceptrons alike get their last layers back")
def rl_games(small: bool) -> Two:
    """Actor and critic are 512, 256 and 128 wide; sigma is the deviation's logarithm."""
    source, target, sizes = Net(), Net(), [235, 512, 256, 128]
    source.put("a2c_network.sigma", 12)
    target.put("log_std", 12)
    for name in ("actor", "critic"):
        for i in range(3):
            source.lin(f"a2c_network.{name}_mlp.{2 * i}", sizes[i + 1], sizes[i])
            target.lin(f"{name}.{2 * i}", sizes[i + 1], sizes[i])
        target.lin(f"{name}.6", 12 if name == "actor" else 1, 128)
    source.lin("a2c_network.value", 1, 128)
    source.lin("a2c_network.mu", 12, 128)
    table: list[Any] = [
        (r"^a2c_network\.sigma", "log_std"),
        (r"^a2c_network\.(actor|critic)_mlp", r"\1"),
        (r"^a2c_network\.value", "critic.6"),
        (r"^a2c_network\.mu", "actor.6"),
    ]
    return to(source, target, table,
              truth="the code of both: rl_games' A2CBuilder, nets apart; rsl_rl's ActorCritic of type log")  # fmt: skip
