"""Fresh pairs: video."""

from __future__ import annotations

from typing import Any

from tests.bench.match.fresh import Keys, Two, back, forth, fresh, pair, state
from tests.bench.match.fresh_listings import listing
from tests.bench.match.pairs_fresh_sound import moved
from tests.bench.match.pairs_fresh_text import hf


@pair("fresh: Facebook's SlowFast to pytorchvideo: two pathways")
def slowfast(small: bool) -> Two:
    """s2 to s5 are blocks 1 to 4; a_bn is norm_a; pathway0 is slow."""
    target = listing("slowfast")
    table: list[Any] = [
        (r"^blocks\.6\.proj", "head.projection"),
        (r"^blocks\.0\.multipathway_blocks\.(\d)\.conv", r"s1.pathway\1_stem.conv"),
        (r"^blocks\.0\.multipathway_blocks\.(\d)\.norm", r"s1.pathway\1_stem.bn"),
        (r"^blocks\.(\d)\.multipathway_fusion\.conv_fast_to_slow", lambda m: f"s{int(m[1]) + 1}_fuse.conv_f2s"),
        (r"^blocks\.(\d)\.multipathway_fusion\.norm", lambda m: f"s{int(m[1]) + 1}_fuse.bn"),
        (
            r"^blocks\.(\d)\.multipathway_blocks\.(\d)\.res_blocks\.(\d+)\.",
            lambda m: f"s{int(m[1]) + 1}.pathway{m[2]}_res{m[3]}.",
        ),
        (r"branch1_conv", "branch1"),
        (r"branch1_norm", "branch1_bn"),
        (r"branch2\.conv_(.)", r"branch2.\1"),
        (r"branch2\.norm_(.)", r"branch2.\1_bn"),
    ]
    made = moved(target, table)
    parts = [part for s in range(1, 6) for part in (f"s{s}.", f"s{s}_fuse.")] + ["head."]
    source = Keys()
    for part in parts:
        source.update({key: made[key] for key in made if key.startswith(part)})
    return back(source, target, table)


@pair("fresh: TimeSformer by Facebook to Hugging Face: attention in time and in space", "transformers")
def timesformer(small: bool) -> Two:
    """temporal_norm1, temporal_attn and temporal_fc stand behind the spatial block."""
    target = hf("TimesformerModel", "TimesformerConfig", num_hidden_layers=6)
    source = Keys()
    source.put("model.cls_token", 1, 1, 768)
    source.put("model.pos_embed", 1, 197, 768)
    source.put("model.time_embed", 1, 8, 768)
    source.conv("model.patch_embed.proj", 768, 3, 16)
    for at in range(6):
        name = f"model.blocks.{at}"
        source.norm(f"{name}.norm1", 768)
        source.lin(f"{name}.attn.qkv", 2304, 768)
        source.lin(f"{name}.attn.proj", 768, 768)
        source.norm(f"{name}.temporal_norm1", 768)
        source.lin(f"{name}.temporal_attn.qkv", 2304, 768)
        source.lin(f"{name}.temporal_attn.proj", 768, 768)
        source.lin(f"{name}.temporal_fc", 768, 768)
        source.norm(f"{name}.norm2", 768)
        source.lin(f"{name}.mlp.fc1", 3072, 768)
        source.lin(f"{name}.mlp.fc2", 768, 3072)
    source.norm("model.norm", 768)
    source.lin("model.head", 400, 768)
    table = [
        (r"^layernorm", "norm"),
        (r"^embeddings\.cls_token", "cls_token"),
        (r"^embeddings\.position_embeddings", "pos_embed"),
        (r"^embeddings\.time_embeddings", "time_embed"),
        (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
        (r"^encoder\.layer\.", "blocks."),
        (r"temporal_attention\.attention\.qkv", "temporal_attn.qkv"),
        (r"temporal_attention\.output\.dense", "temporal_attn.proj"),
        (r"temporal_layernorm", "temporal_norm1"),
        (r"temporal_dense", "temporal_fc"),
        (r"\.attention\.attention\.qkv", ".attn.qkv"),
        (r"\.attention\.output\.dense", ".attn.proj"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"\.output\.dense", ".mlp.fc2"),
        (r"layernorm_before", "norm1"),
        (r"layernorm_after", "norm2"),
        (r"^", "model."),
    ]
    return back(source, target, table)


@pair("fresh: VideoMAE by its authors to Hugging Face: q and v have biases, k has none", "transformers")
def videomae(small: bool) -> Two:
    """A fused weight, biases apart; the decoder of the pretraining stays behind."""
    target = hf("VideoMAEModel", "VideoMAEConfig", num_hidden_layers=6)
    source, rules = Keys(), []

    def block(name: str, size: int) -> None:
        source.norm(f"{name}.norm1", size)
        source.put(f"{name}.attn.q_bias", size)
        source.put(f"{name}.attn.v_bias", size)
        source.put(f"{name}.attn.qkv.weight", 3 * size, size)
        source.lin(f"{name}.attn.proj", size, size)
        source.norm(f"{name}.norm2", size)
        source.lin(f"{name}.mlp.fc1", 4 * size, size)
        source.lin(f"{name}.mlp.fc2", size, 4 * size)

    source.put("mask_token", 1, 1, 384)
    source.conv("encoder.patch_embed.proj", 768, 3, 2, 16, 16)
    for at in range(6):
        block(f"encoder.blocks.{at}", 768)
    source.norm("encoder.norm", 768)
    for at in range(4):
        block(f"decoder.blocks.{at}", 384)
    source.norm("decoder.norm", 384)
    source.lin("decoder.head", 1536, 384)
    source.put("encoder_to_decoder.weight", 384, 768)
    rules = [
        "encoder.patch_embed.proj.{p*} -> embeddings.patch_embeddings.projection.{p*}",
        "?encoder.norm.{p*} -> layernorm.{p*}",
    ]
    if "layernorm.weight" not in state(target):
        rules.pop()
    old, new = "encoder.blocks.{n}", "encoder.layer.{n}"
    rules += [f"{old}.attn.{x}_bias -> {new}.attention.attention.{y}.bias" for x, y in (("q", "query"), ("v", "value"))]
    rules.append(f"{old}.attn.qkv.weight -> {new}.attention.attention.{{x=query|key|value}}.weight | (x o) i -> o i")
    for a, b in (
        ("norm1", "layernorm_before"),
        ("norm2", "layernorm_after"),
        ("attn.proj", "attention.output.dense"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    ):
        rules.append(f"{old}.{a}.{{p*}} -> {new}.{b}.{{p*}}")
    return fresh(source, target, rules)


@pair("fresh: I3D by piergiaj to hassony2's: b1a is branch_1.0")
def i3d(small: bool) -> Two:
    """Inception blocks in three dimensions; the classifier has another number of classes."""
    source = Keys()

    def unit(name: str, out: int, into: int, *kernel: int) -> None:
        source.put(f"{name}.conv3d.weight", out, into, *kernel)
        source.bn(f"{name}.bn", out)

    unit("Conv3d_1a_7x7", 64, 3, 7, 7, 7)
    unit("Conv3d_2b_1x1", 64, 64, 1, 1, 1)
    unit("Conv3d_2c_3x3", 192, 64, 3, 3, 3)
    mixed = {
        "3b": (192, 64, 96, 128, 16, 32, 32),
        "3c": (256, 128, 128, 192, 32, 96, 64),
        "4b": (480, 192, 96, 208, 16, 48, 64),
        "4c": (512, 160, 112, 224, 24, 64, 64),
        "4d": (512, 128, 128, 256, 24, 64, 64),
        "4e": (512, 112, 144, 288, 32, 64, 64),
        "4f": (528, 256, 160, 320, 32, 128, 128),
        "5b": (832, 256, 160, 320, 32, 128, 128),
        "5c": (832, 384, 192, 384, 48, 128, 128),
    }
    for name, (into, *outs) in mixed.items():
        unit(f"Mixed_{name}.b0", outs[0], into, 1, 1, 1)
        unit(f"Mixed_{name}.b1a", outs[1], into, 1, 1, 1)
        unit(f"Mixed_{name}.b1b", outs[2], outs[1], 3, 3, 3)
        unit(f"Mixed_{name}.b2a", outs[3], into, 1, 1, 1)
        unit(f"Mixed_{name}.b2b", outs[4], outs[3], 3, 3, 3)
        unit(f"Mixed_{name}.b3b", outs[5], into, 1, 1, 1)
    source.put("logits.conv3d.weight", 157, 1024, 1, 1, 1)
    source.put("logits.conv3d.bias", 157)
    table: list[Any] = [
        (r"^logits.*", ""),
        (r"\.bn\.", ".batch3d."),
        (r"^Conv3d", "conv3d"),
        (r"^Mixed", "mixed"),
        (r"\.b0\.", ".branch_0."),
        (r"\.b([12])a\.", r".branch_\1.0."),
        (r"\.b([12])b\.", r".branch_\1.1."),
        (r"\.b3b\.", ".branch_3.1."),
    ]
    target = moved(source, table)
    target.put("conv3d_0c_1x1.conv3d.weight", 400, 1024, 1, 1, 1)
    target.put("conv3d_0c_1x1.conv3d.bias", 400)
    return forth(source, target, table, missing=["conv3d_0c_1x1*"])


@pair("fresh: torchvision's R(2+1)D to mmaction's: space, then time", "torchvision")
def r2plus1d(small: bool) -> Two:
    """conv1.0.0 is conv_s, conv1.0.3 conv_t, with a norm after each."""
    import torchvision

    source = torchvision.models.video.r2plus1d_18()
    table = [
        (r"^fc", "cls_head.fc_cls"),
        (r"^stem\.0\.", "backbone.conv1.conv.conv_s."),
        (r"^stem\.1\.", "backbone.conv1.conv.bn_s."),
        (r"^stem\.3\.", "backbone.conv1.conv.conv_t."),
        (r"^stem\.4\.", "backbone.conv1.bn."),
        (r"conv([12])\.0\.0\.", r"conv\1.conv.conv_s."),
        (r"conv([12])\.0\.1\.", r"conv\1.conv.bn_s."),
        (r"conv([12])\.0\.3\.", r"conv\1.conv.conv_t."),
        (r"conv([12])\.1\.", r"conv\1.bn."),
        (r"downsample\.0\.", "downsample.conv."),
        (r"downsample\.1\.", "downsample.bn."),
        (r"^layer", "backbone.layer"),
    ]
    return forth(source, moved(state(source), table), table)
