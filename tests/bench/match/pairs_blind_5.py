"""Blind pairs: diffusion, point clouds, graphs, proteins, robots, recommendations, time series."""

from __future__ import annotations

from typing import Any

from tests.bench.match.blind import Net, Two, pair, split, to
from tests.bench.match.pairs_blind_2 import resnet18


@pair("blind: Wan 2.1 in its authors' names to diffusers: the third norm is the second, tables of shifts")
def wan(small: bool) -> Two:
    """norm3 is norm2; image keys are added keys; head.modulation and blocks' modulation are one word there."""
    width, hidden, depth = 5120, 13824, 3
    source, target = Net(), Net()
    source.put("patch_embedding.weight", width, 36, 1, 2, 2)
    source.put("patch_embedding.bias", width)
    source.lin("text_embedding.0", width, 4096)
    source.lin("text_embedding.2", width, width)
    source.lin("time_embedding.0", width, 256)
    source.lin("time_embedding.2", width, width)
    source.lin("time_projection.1", 6 * width, width)
    for block in range(depth):
        at = f"blocks.{block}"
        source.put(f"{at}.modulation", 1, 6, width)
        for part in ("self_attn", "cross_attn"):
            if part == "cross_attn":
                source.norm(f"{at}.norm3", width)
            source.lins(*(f"{at}.{part}.{x}" for x in "qkvo"), out=width, into=width)
            source.put(f"{at}.{part}.norm_q.weight", width)
            source.put(f"{at}.{part}.norm_k.weight", width)
        source.lins(f"{at}.cross_attn.k_img", f"{at}.cross_attn.v_img", out=width, into=width)
        source.put(f"{at}.cross_attn.norm_k_img.weight", width)
        source.lin(f"{at}.ffn.0", hidden, width)
        source.lin(f"{at}.ffn.2", width, hidden)
    source.put("head.modulation", 1, 2, width)
    source.lin("head.head", 64, width)
    source.norm("img_emb.proj.0", 1280)
    source.lin("img_emb.proj.1", 1280, 1280)
    source.lin("img_emb.proj.3", width, 1280)
    source.norm("img_emb.proj.4", width)

    target.put("scale_shift_table", 1, 2, width)
    target.put("patch_embedding.weight", width, 36, 1, 2, 2)
    target.put("patch_embedding.bias", width)
    at = "condition_embedder"
    target.lin(f"{at}.time_embedder.linear_1", width, 256)
    target.lin(f"{at}.time_embedder.linear_2", width, width)
    target.lin(f"{at}.time_proj", 6 * width, width)
    target.lin(f"{at}.text_embedder.linear_1", width, 4096)
    target.lin(f"{at}.text_embedder.linear_2", width, width)
    target.norm(f"{at}.image_embedder.norm1", 1280)
    target.lin(f"{at}.image_embedder.ff.net.0.proj", 1280, 1280)
    target.lin(f"{at}.image_embedder.ff.net.2", width, 1280)
    target.norm(f"{at}.image_embedder.norm2", width)
    for block in range(depth):
        at = f"blocks.{block}"
        target.put(f"{at}.scale_shift_table", 1, 6, width)
        for part in ("attn1", "attn2"):
            target.put(f"{at}.{part}.norm_q.weight", width)
            target.put(f"{at}.{part}.norm_k.weight", width)
            target.lins(*(f"{at}.{part}.to_{x}" for x in ("q", "k", "v", "out.0")), out=width, into=width)
        target.lins(f"{at}.attn2.add_k_proj", f"{at}.attn2.add_v_proj", out=width, into=width)
        target.put(f"{at}.attn2.norm_added_k.weight", width)
        target.norm(f"{at}.norm2", width)
        target.lin(f"{at}.ffn.net.0.proj", hidden, width)
        target.lin(f"{at}.ffn.net.2", width, hidden)
    target.lin("proj_out", 64, width)
    table: list[Any] = [
        (r"^head\.modulation", "scale_shift_table"),
        (r"\.modulation", ".scale_shift_table"),
        (r"^head\.head", "proj_out"),
        (r"^img_emb\.proj\.0", "condition_embedder.image_embedder.norm1"),
        (r"^img_emb\.proj\.1", "condition_embedder.image_embedder.ff.net.0.proj"),
        (r"^img_emb\.proj\.3", "condition_embedder.image_embedder.ff.net.2"),
        (r"^img_emb\.proj\.4", "condition_embedder.image_embedder.norm2"),
        (r"^text_embedding\.0", "condition_embedder.text_embedder.linear_1"),
        (r"^text_embedding\.2", "condition_embedder.text_embedder.linear_2"),
        (r"^time_embedding\.0", "condition_embedder.time_embedder.linear_1"),
        (r"^time_embedding\.2", "condition_embedder.time_embedder.linear_2"),
        (r"^time_projection\.1", "condition_embedder.time_proj"),
        (r"\.norm3", ".norm2"),
        (r"\.ffn\.0", ".ffn.net.0.proj"),
        (r"\.ffn\.2\.", ".ffn.net.2."),
        (r"self_attn", "attn1"),
        (r"cross_attn", "attn2"),
        (r"(attn\d)\.([qkv])\.", r"\1.to_\2."),
        (r"(attn\d)\.o\.", r"\1.to_out.0."),
        (r"([kv])_img\.(weight|bias)$", r"add_\1_proj.\2"),
        (r"norm_add_k_proj", "norm_added_k"),
    ]
    return to(source, target, table, truth="diffusers' scripts/convert_wan_to_diffusers.py")


@pair("blind: Stable Diffusion 3 in Stability's names to diffusers: two streams of blocks, qkv split")
def sd3(small: bool) -> Two:
    """The last context block ends early; the last modulations have shift and scale the other way round."""
    width, depth = 1536, 4
    source, target, groups = Net(), Net(), []
    root = "model.diffusion_model"
    source.put(f"{root}.pos_embed", 1, 36864, width)
    source.conv(f"{root}.x_embedder.proj", width, 16, 2)
    source.lin(f"{root}.t_embedder.mlp.0", width, 256)
    source.lin(f"{root}.t_embedder.mlp.2", width, width)
    source.lin(f"{root}.y_embedder.mlp.0", width, 2048)
    source.lin(f"{root}.y_embedder.mlp.2", width, width)
    source.lin(f"{root}.context_embedder", width, 4096)
    for block in range(depth):
        last = block == depth - 1
        for part in ("context_block", "x_block"):
            at = f"{root}.joint_blocks.{block}.{part}"
            short = last and part == "context_block"
            source.lin(f"{at}.attn.qkv", 3 * width, width)
            if not short:
                source.lin(f"{at}.attn.proj", width, width)
                source.lin(f"{at}.mlp.fc1", 4 * width, width)
                source.lin(f"{at}.mlp.fc2", width, 4 * width)
            source.lin(f"{at}.adaLN_modulation.1", (2 if short else 6) * width, width)
            there = f"transformer_blocks.{block}.attn"
            names = (
                [f"{there}.to_{x}" for x in "qkv"] if part == "x_block" else [f"{there}.add_{x}_proj" for x in "qkv"]
            )
            groups += split(f"{at}.attn.qkv", names)
    source.lin(f"{root}.final_layer.linear", 64, width)
    source.lin(f"{root}.final_layer.adaLN_modulation.1", 2 * width, width)

    target.put("pos_embed.pos_embed", 1, 36864, width)
    target.conv("pos_embed.proj", width, 16, 2)
    target.lin("time_text_embed.timestep_embedder.linear_1", width, 256)
    target.lin("time_text_embed.timestep_embedder.linear_2", width, width)
    target.lin("time_text_embed.text_embedder.linear_1", width, 2048)
    target.lin("time_text_embed.text_embedder.linear_2", width, width)
    target.lin("context_embedder", width, 4096)
    for block in range(depth):
        at, last = f"transformer_blocks.{block}", block == depth - 1
        target.lin(f"{at}.norm1.linear", 6 * width, width)
        target.lin(f"{at}.norm1_context.linear", (2 if last else 6) * width, width)
        target.lins(*(f"{at}.attn.{x}" for x in ("to_q", "to_k", "to_v", "add_k_proj", "add_v_proj", "add_q_proj",
                                                 "to_out.0")), out=width, into=width)  # fmt: skip
        if not last:
            target.lin(f"{at}.attn.to_add_out", width, width)
        target.lin(f"{at}.ff.net.0.proj", 4 * width, width)
        target.lin(f"{at}.ff.net.2", width, 4 * width)
        if not last:
            target.lin(f"{at}.ff_context.net.0.proj", 4 * width, width)
            target.lin(f"{at}.ff_context.net.2", width, 4 * width)
    target.lin("norm_out.linear", 2 * width, width)
    target.lin("proj_out", 64, width)
    table: list[Any] = [
        (r".*qkv.*", "@"),
        (rf"^{root}\.", ""),
        (r"^pos_embed$", "pos_embed.pos_embed"),
        (r"^x_embedder", "pos_embed"),
        (r"^t_embedder\.mlp\.0", "time_text_embed.timestep_embedder.linear_1"),
        (r"^t_embedder\.mlp\.2", "time_text_embed.timestep_embedder.linear_2"),
        (r"^y_embedder\.mlp\.0", "time_text_embed.text_embedder.linear_1"),
        (r"^y_embedder\.mlp\.2", "time_text_embed.text_embedder.linear_2"),
        (r"^final_layer\.linear", "proj_out"),
        (r"^final_layer\.adaLN_modulation\.1", "norm_out.linear"),
        (r"^joint_blocks", "transformer_blocks"),
        (r"x_block\.attn\.proj", "attn.to_out.0"),
        (r"context_block\.attn\.proj", "attn.to_add_out"),
        (r"x_block\.adaLN_modulation\.1", "norm1.linear"),
        (r"context_block\.adaLN_modulation\.1", "norm1_context.linear"),
        (r"x_block\.mlp", "ff"),
        (r"context_block\.mlp", "ff_context"),
        (r"\.fc1", ".net.0.proj"),
        (r"\.fc2", ".net.2"),
    ]
    turned = rf"(final_layer|{depth - 1}\.context_block)\.adaLN_modulation\.1"
    layouts = [(rf"{turned}\.weight", "(a + b) i -> (b + a) i"), (rf"{turned}\.bias", "(a + b) -> (b + a)")]
    return to(source, target, table, layouts, groups, vars={},
              hidden=["norm_out.linear.*", f"transformer_blocks.{depth - 1}.norm1_context.linear.*"],
              truth="diffusers' scripts/convert_sd3_to_diffusers.py")  # fmt: skip


@pair("blind: PixArt in its authors' names to diffusers: kv of cross attention fused")
def pixart(small: bool) -> Two:
    """Size and aspect are of one shape; t_block is adaln_single.linear."""
    width, depth = 1152, 4
    source, target, groups = Net(), Net(), []
    source.put("pos_embed", 1, 4096, width)
    source.conv("x_embedder.proj", width, 4, 2)
    source.lin("t_embedder.mlp.0", width, 256)
    source.lin("t_embedder.mlp.2", width, width)
    source.lin("t_block.1", 6 * width, width)
    source.put("y_embedder.y_embedding", 120, 4096)
    source.lin("y_embedder.y_proj.fc1", width, 4096)
    source.lin("y_embedder.y_proj.fc2", width, width)
    for part in ("csize", "ar"):
        source.lin(f"{part}_embedder.mlp.0", width // 3, 256)
        source.lin(f"{part}_embedder.mlp.2", width // 3, width // 3)
    for block in range(depth):
        at, there = f"blocks.{block}", f"transformer_blocks.{block}"
        source.put(f"{at}.scale_shift_table", 6, width)
        source.lin(f"{at}.attn.qkv", 3 * width, width)
        source.lin(f"{at}.attn.proj", width, width)
        source.lin(f"{at}.cross_attn.q_linear", width, width)
        source.lin(f"{at}.cross_attn.kv_linear", 2 * width, width)
        source.lin(f"{at}.cross_attn.proj", width, width)
        source.lin(f"{at}.mlp.fc1", 4 * width, width)
        source.lin(f"{at}.mlp.fc2", width, 4 * width)
        groups += split(f"{at}.attn.qkv", [f"{there}.attn1.to_{x}" for x in "qkv"])
        groups += split(f"{at}.cross_attn.kv_linear", [f"{there}.attn2.to_{x}" for x in "kv"])
    source.put("final_layer.scale_shift_table", 2, width)
    source.lin("final_layer.linear", 32, width)

    target.put("scale_shift_table", 2, width)
    target.conv("pos_embed.proj", width, 4, 2)
    for block in range(depth):
        at = f"transformer_blocks.{block}"
        target.put(f"{at}.scale_shift_table", 6, width)
        for part in ("attn1", "attn2"):
            target.lins(*(f"{at}.{part}.to_{x}" for x in ("q", "k", "v", "out.0")), out=width, into=width)
        target.lin(f"{at}.ff.net.0.proj", 4 * width, width)
        target.lin(f"{at}.ff.net.2", width, 4 * width)
    target.lin("proj_out", 32, width)
    at = "adaln_single.emb"
    for part, into, out in (
        ("timestep", 256, width),
        ("resolution", 256, width // 3),
        ("aspect_ratio", 256, width // 3),
    ):
        target.lin(f"{at}.{part}_embedder.linear_1", out, into)
        target.lin(f"{at}.{part}_embedder.linear_2", out, out)
    target.lin("adaln_single.linear", 6 * width, width)
    target.lin("caption_projection.linear_1", width, 4096)
    target.lin("caption_projection.linear_2", width, width)
    table: list[Any] = [
        (r".*(attn\.qkv|kv_linear).*", "@"),
        (r"^(pos_embed|y_embedder\.y_embedding)$", ""),
        (r"^x_embedder", "pos_embed"),
        (r"^t_embedder\.mlp\.0", "adaln_single.emb.timestep_embedder.linear_1"),
        (r"^t_embedder\.mlp\.2", "adaln_single.emb.timestep_embedder.linear_2"),
        (r"^csize_embedder\.mlp\.0", "adaln_single.emb.resolution_embedder.linear_1"),
        (r"^csize_embedder\.mlp\.2", "adaln_single.emb.resolution_embedder.linear_2"),
        (r"^ar_embedder\.mlp\.0", "adaln_single.emb.aspect_ratio_embedder.linear_1"),
        (r"^ar_embedder\.mlp\.2", "adaln_single.emb.aspect_ratio_embedder.linear_2"),
        (r"^t_block\.1", "adaln_single.linear"),
        (r"^y_embedder\.y_proj\.fc", "caption_projection.linear_"),
        (r"^blocks", "transformer_blocks"),
        (r"\.attn\.proj", ".attn1.to_out.0"),
        (r"\.cross_attn\.q_linear", ".attn2.to_q"),
        (r"\.cross_attn\.proj", ".attn2.to_out.0"),
        (r"\.mlp\.fc1", ".ff.net.0.proj"),
        (r"\.mlp\.fc2", ".ff.net.2"),
        (r"^final_layer\.linear", "proj_out"),
        (r"^final_layer\.", ""),
    ]
    return to(source, target, table, groups=groups, truth="diffusers' scripts/convert_pixart_alpha_to_diffusers.py")


@pair("blind: AnimateDiff's motion modules to diffusers' MotionAdapter: lists of attentions and norms by name")
def animatediff(small: bool) -> Two:
    """Two attentions of equal shapes in each block; ff_norm is norm3; positions stay behind."""
    source, target = Net(), Net()
    places = [(f"down_blocks.{level}.motion_modules.{at}", width)
              for level, width in enumerate((320, 640, 1280, 1280)) for at in range(2)]  # fmt: skip
    middle = [("mid_block.motion_modules.0", 1280)]
    up = [(f"up_blocks.{level}.motion_modules.{at}", width)
          for level, width in enumerate((1280, 1280, 640, 320)) for at in range(3)]  # fmt: skip
    for place, width in [*places, *up, *middle]:
        at = f"{place}.temporal_transformer"
        source.norm(f"{at}.norm", width)
        source.lin(f"{at}.proj_in", width, width)
        block = f"{at}.transformer_blocks.0"
        for number in range(2):
            part = f"{block}.attention_blocks.{number}"
            source.lins(*(f"{part}.to_{x}" for x in "qkv"), out=width, into=width, bias=False)
            source.lin(f"{part}.to_out.0", width, width)
            source.put(f"{part}.pos_encoder.pe", 1, 32, width)
        source.lns(f"{block}.norms.0", f"{block}.norms.1", size=width)
        source.lin(f"{block}.ff.net.0.proj", 8 * width, width)
        source.lin(f"{block}.ff.net.2", width, 4 * width)
        source.norm(f"{block}.ff_norm", width)
        source.lin(f"{at}.proj_out", width, width)
    for at, width in [*places, *up, *middle]:
        target.norm(f"{at}.norm", width)
        target.lin(f"{at}.proj_in", width, width)
        block = f"{at}.transformer_blocks.0"
        for number in (1, 2):
            target.norm(f"{block}.norm{number}", width)
            target.lins(*(f"{block}.attn{number}.to_{x}" for x in "qkv"), out=width, into=width, bias=False)
            target.lin(f"{block}.attn{number}.to_out.0", width, width)
        target.norm(f"{block}.norm3", width)
        target.lin(f"{block}.ff.net.0.proj", 8 * width, width)
        target.lin(f"{block}.ff.net.2", width, 4 * width)
        target.lin(f"{at}.proj_out", width, width)
    table: list[Any] = [
        (r".*pos_encoder.*", ""),
        (r"\.temporal_transformer", ""),
        (r"attention_blocks\.0", "attn1"),
        (r"attention_blocks\.1", "attn2"),
        (r"norms\.0", "norm1"),
        (r"norms\.1", "norm2"),
        (r"ff_norm", "norm3"),
    ]
    return to(source, target, table, truth="diffusers' scripts/convert_animatediff_motion_module_to_diffusers.py")


@pair("blind: T2I-Adapter in its authors' names to diffusers: one list of blocks became levels")
def t2i_adapter(small: bool) -> Two:
    """body.2 begins the second level."""
    source, target, into = Net(), Net(), 320
    source.conv("conv_in", 320, 64, 3)
    target.conv("adapter.conv_in", 320, 64, 3)
    for level, width in enumerate((320, 640, 1280, 1280)):
        for block in range(2):
            here, there = f"body.{2 * level + block}", f"adapter.body.{level}"
            if not block and into != width:
                source.conv(f"{here}.in_conv", width, into, 1)
                target.conv(f"{there}.in_conv", width, into, 1)
            into = width
            for net, at in ((source, here), (target, f"{there}.resnets.{block}")):
                net.conv(f"{at}.block1", width, width, 3)
                net.conv(f"{at}.block2", width, width, 1)
    table: list[Any] = [
        (r"^conv_in", "adapter.conv_in"),
        (r"^body\.(\d)\.in_conv", lambda m: f"adapter.body.{int(m[1]) // 2}.in_conv"),
        (r"^body\.(\d)\.", lambda m: f"adapter.body.{int(m[1]) // 2}.resnets.{int(m[1]) % 2}."),
    ]
    return to(source, target, table, truth="diffusers' scripts/convert_original_t2i_adapter.py")


@pair("blind: PointPillars in OpenPCDet's names to mmdet3d's: numbers move where a padding was a layer")
def pointpillars(small: bool) -> Two:
    """blocks.0.1 is blocks.0.0, blocks.0.4 is blocks.0.3; deconvolutions keep their numbers."""
    source, target = Net(), Net()
    source.ints("global_step", 1)
    source.lin("vfe.pfn_layers.0.linear", 64, 10, bias=False)
    source.bn("vfe.pfn_layers.0.norm", 64)
    target.bn("voxel_encoder.pfn_layers.0.norm", 64)
    target.lin("voxel_encoder.pfn_layers.0.linear", 64, 10, bias=False)
    into = 64
    for block, (width, depth) in enumerate(((64, 3), (128, 5), (256, 5))):
        for layer in range(depth + 1):
            for net, name in ((source, f"backbone_2d.blocks.{block}"), (target, f"backbone.blocks.{block}")):
                at = 3 * layer + (net is source)
                net.conv(f"{name}.{at}", width, into, 3, bias=False)
                net.bn(f"{name}.{at + 1}", width)
            into = width
    for net, name in ((source, "backbone_2d.deblocks"), (target, "neck.deblocks")):
        for block, stride in enumerate((1, 2, 4)):
            net.put(f"{name}.{block}.0.weight", 64 << block, 128, stride, stride)
            net.bn(f"{name}.{block}.1", 128)
    for name, out in (("cls", 18), ("box", 42), ("dir_cls", 12)):
        source.conv(f"dense_head.conv_{name}", out, 384, 1)
    for name, out in (("cls", 18), ("dir_cls", 12), ("reg", 42)):
        target.conv(f"bbox_head.conv_{name}", out, 384, 1)
    table: list[Any] = [
        (r"^global_step$", ""),
        (r"^vfe", "voxel_encoder"),
        (r"^backbone_2d\.deblocks", "neck.deblocks"),
        (r"^backbone_2d\.blocks\.(\d)\.(\d+)", lambda m: f"backbone.blocks.{m[1]}.{int(m[2]) - 1}"),
        (r"^dense_head\.conv_box", "bbox_head.conv_reg"),
        (r"^dense_head", "bbox_head"),
    ]
    return to(source, target, table, truth="code of both sides: OpenPCDet's BaseBEVBackbone and mmdet3d's SECOND")


@pair("blind: pyGAT to PyTorch Geometric: eight heads become one Linear, a vector is halved")
def gat(small: bool) -> Two:
    """The first half of `a` belongs to the row that attends, PyG's destination: no header tells."""
    source, target = Net(), Net()
    for head in range(8):
        source.put(f"attention_{head}.W", 1433, 8)
        source.put(f"attention_{head}.a", 16, 1)
    source.put("out_att.W", 64, 7)
    source.put("out_att.a", 14, 1)
    for name, heads, out, into in (("conv1", 8, 8, 1433), ("conv2", 1, 7, 64)):
        target.put(f"{name}.att_src", 1, heads, out)
        target.put(f"{name}.att_dst", 1, heads, out)
        target.put(f"{name}.bias", heads * out)
        target.put(f"{name}.lin.weight", heads * out, into)
    rules = [
        "attention_{h}.W -> conv1.lin.weight | i d -> (h d) i",
        "attention_{h}.a -> conv1.att_dst, conv1.att_src | (s + t) 1 -> 1 h s, 1 h t",
        "out_att.W -> conv2.lin.weight | i d -> d i",
        "out_att.a -> conv2.att_dst, conv2.att_src | (s + t) 1 -> 1 1 s, 1 1 t",
    ]
    return Two(source, target, rules, missing=["conv1.bias", "conv2.bias"], hidden=["*.att_src", "*.att_dst"],
               proof="code of both sides: Diego999/pyGAT's GraphAttentionLayer and PyG's GATConv")  # fmt: skip


@pair("blind: SchNet in SchNetPack's names to PyTorch Geometric: a filter under two names on both sides")
def schnet(small: bool) -> Two:
    """filter_network is mlp; cfconv.filter_network is conv.nn; in2f is lin1."""
    source, target = Net(), Net()
    source.put("representation.embedding.weight", 100, 128)
    source.put("representation.distance_expansion.width", 50)
    source.put("representation.distance_expansion.offsets", 50)
    target.put("embedding.weight", 100, 128)
    target.put("distance_expansion.offset", 50)
    for block in range(6):
        at, there = f"representation.interactions.{block}", f"interactions.{block}"
        source.lin(f"{at}.filter_network.0", 128, 50)
        source.lin(f"{at}.filter_network.1", 128, 128)
        source.put(f"{at}.cutoff_network.cutoff", 1)
        source.lin(f"{at}.cfconv.in2f", 128, 128, bias=False)
        source.lin(f"{at}.cfconv.f2out", 128, 128)
        source.lin(f"{at}.cfconv.filter_network.0", 128, 50)
        source.lin(f"{at}.cfconv.filter_network.1", 128, 128)
        source.put(f"{at}.cfconv.cutoff_network.cutoff", 1)
        source.lin(f"{at}.dense", 128, 128)
        target.lin(f"{there}.mlp.0", 128, 50)
        target.lin(f"{there}.mlp.2", 128, 128)
        target.lin(f"{there}.conv.lin1", 128, 128, bias=False)
        target.lin(f"{there}.conv.lin2", 128, 128)
        target.lin(f"{there}.conv.nn.0", 128, 50)
        target.lin(f"{there}.conv.nn.2", 128, 128)
        target.lin(f"{there}.lin", 128, 128)
    source.put("output_modules.0.atomref.weight", 100, 1)
    source.lin("output_modules.0.out_net.1.out_net.0", 64, 128)
    source.lin("output_modules.0.out_net.1.out_net.1", 1, 64)
    source.put("output_modules.0.standardize.mean", 1)
    source.put("output_modules.0.standardize.stddev", 1)
    target.lin("lin1", 64, 128)
    target.lin("lin2", 1, 64)
    target.put("atomref.weight", 100, 1)
    table: list[Any] = [
        (r".*(cutoff|standardize|distance_expansion\.width).*", ""),
        (r"^representation\.", ""),
        (r"offsets", "offset"),
        (r"^output_modules\.0\.atomref", "atomref"),
        (r"^output_modules\.0\.out_net\.1\.out_net\.0", "lin1"),
        (r"^output_modules\.0\.out_net\.1\.out_net\.1", "lin2"),
        (r"cfconv\.in2f", "conv.lin1"),
        (r"cfconv\.f2out", "conv.lin2"),
        (r"cfconv\.filter_network\.0", "conv.nn.0"),
        (r"cfconv\.filter_network\.1", "conv.nn.2"),
        (r"filter_network\.0", "mlp.0"),
        (r"filter_network\.1", "mlp.2"),
        (r"\.dense", ".lin"),
    ]
    return to(source, target, table, truth="PyG's SchNet.from_qm9_pretrained")


@pair("blind: AlphaFold's Evoformer in Haiku's names to OpenFold: blocks are an axis, heads as well")
def alphafold(small: bool) -> Two:
    """Left is a, right is b, but the other way round where edges come in (no header tells)."""
    depth = 6
    root = "alphafold/alphafold_iteration/evoformer/evoformer_iteration"
    shapes: dict[str, tuple[int, ...]] = {}
    rules: list[str] = []
    target = Net()

    def add(here: str, there: str, shape: tuple[int, ...], layout: str, into: tuple[int, ...]) -> None:
        shapes[f"{root}/{here}"] = (depth, *shape)
        places[there] = into
        rules.append(f"{root}/{here} -> evoformer.blocks.{{b}}.{there} | {layout}")

    places: dict[str, tuple[int, ...]] = {}

    def norm(here: str, there: str, size: int) -> None:
        add(f"{here}//scale", f"{there}.weight", (size,), "b i -> i", (size,))
        add(f"{here}//offset", f"{there}.bias", (size,), "b i -> i", (size,))

    def linear(here: str, there: str, into: int, out: int) -> None:
        add(f"{here}//weights", f"{there}.weight", (into, out), "b i o -> o i", (out, into))
        add(f"{here}//bias", f"{there}.bias", (out,), "b o -> o", (out,))

    def attention(here: str, there: str, width: int, heads: int) -> None:
        for part in ("query", "key", "value"):
            add(f"{here}//{part}_w", f"{there}.linear_{part[0]}.weight", (width, heads, 32), "b i h d -> (h d) i",
                (heads * 32, width))  # fmt: skip
        add(
            f"{here}//output_w",
            f"{there}.linear_o.weight",
            (heads, 32, width),
            "b h d o -> o (h d)",
            (width, heads * 32),
        )
        add(f"{here}//output_b", f"{there}.linear_o.bias", (width,), "b o -> o", (width,))
        add(f"{here}//gating_w", f"{there}.linear_g.weight", (width, heads, 32), "b i h d -> (h d) i",
            (heads * 32, width))  # fmt: skip
        add(f"{here}//gating_b", f"{there}.linear_g.bias", (heads, 32), "b h d -> (h d)", (heads * 32,))

    row = "msa_row_attention_with_pair_bias"
    norm(f"{row}/query_norm", "msa_att_row.layer_norm_m", 256)
    norm(f"{row}/feat_2d_norm", "msa_att_row.layer_norm_z", 128)
    add(f"{row}//feat_2d_weights", "msa_att_row.linear_z.weight", (128, 8), "b i o -> o i", (8, 128))
    attention(f"{row}/attention", "msa_att_row.mha", 256, 8)
    norm("msa_column_attention/query_norm", "msa_att_col._msa_att.layer_norm_m", 256)
    attention("msa_column_attention/attention", "msa_att_col._msa_att.mha", 256, 8)
    norm("msa_transition/input_layer_norm", "core.msa_transition.layer_norm", 256)
    linear("msa_transition/transition1", "core.msa_transition.linear_1", 256, 1024)
    linear("msa_transition/transition2", "core.msa_transition.linear_2", 1024, 256)
    norm("outer_product_mean/layer_norm_input", "core.outer_product_mean.layer_norm", 256)
    linear("outer_product_mean/left_projection", "core.outer_product_mean.linear_1", 256, 32)
    linear("outer_product_mean/right_projection", "core.outer_product_mean.linear_2", 256, 32)
    add("outer_product_mean//output_w", "core.outer_product_mean.linear_out.weight", (32, 32, 128),
        "b i j o -> o (i j)",
        (128, 1024))  # fmt: skip
    add("outer_product_mean//output_b", "core.outer_product_mean.linear_out.bias", (128,), "b o -> o", (128,))
    for way, name in (("outgoing", "tri_mul_out"), ("incoming", "tri_mul_in")):
        here, there = f"triangle_multiplication_{way}", f"core.{name}"
        left, right = "ab" if way == "outgoing" else "ba"
        for old, new in (("left_projection", f"linear_{left}_p"), ("left_gate", f"linear_{left}_g"),
                         ("right_projection", f"linear_{right}_p"), ("right_gate", f"linear_{right}_g"),
                         ("gating_linear", "linear_g"), ("output_projection", "linear_z")):  # fmt: skip
            linear(f"{here}/{old}", f"{there}.{new}", 128, 128)
        norm(f"{here}/layer_norm_input", f"{there}.layer_norm_in", 128)
        norm(f"{here}/center_layer_norm", f"{there}.layer_norm_out", 128)
    for way, name in (("starting", "tri_att_start"), ("ending", "tri_att_end")):
        here, there = f"triangle_attention_{way}_node", f"core.{name}"
        norm(f"{here}/query_norm", f"{there}.layer_norm", 128)
        add(f"{here}//feat_2d_weights", f"{there}.linear.weight", (128, 4), "b i o -> o i", (4, 128))
        attention(f"{here}/attention", f"{there}.mha", 128, 4)
    norm("pair_transition/input_layer_norm", "core.pair_transition.layer_norm", 128)
    linear("pair_transition/transition1", "core.pair_transition.linear_1", 128, 512)
    linear("pair_transition/transition2", "core.pair_transition.linear_2", 512, 128)
    source = Net()
    for name in sorted(shapes):
        source.put(name, *shapes[name])
    for block in range(depth):
        for there, shape in places.items():
            target.put(f"evoformer.blocks.{block}.{there}", *shape)
    swapped = [f"evoformer.blocks.*.core.tri_mul_in.linear_{x}_{y}.*" for x in "ab" for y in "pg"]
    return Two(source, target, rules, undecided=swapped, proof="OpenFold's utils/import_weights.py")


@pair("blind: ACT by its author to LeRobot: the encoder there is another encoder here")
def act(small: bool) -> Two:
    """model.encoder is the VAE's encoder, model.transformer.encoder is model.encoder; three inputs of one shape."""
    width, hidden, depth = 512, 3200, 4
    source, target = Net(), Net()

    def layer(net: Net, at: str, cross: bool) -> None:
        net.mha(f"{at}.self_attn", width)
        if cross:
            net.mha(f"{at}.multihead_attn", width)
        net.lin(f"{at}.linear1", hidden, width)
        net.lin(f"{at}.linear2", width, hidden)
        net.lns(*(f"{at}.norm{n}" for n in range(1, 3 + cross)), size=width)

    for number in range(depth):
        layer(source, f"model.transformer.encoder.layers.{number}", False)
    layer(source, "model.transformer.decoder.layers.0", True)
    source.norm("model.transformer.decoder.norm", width)
    for number in range(depth):
        layer(source, f"model.encoder.layers.{number}", False)
    source.lin("model.action_head", 14, width)
    source.lin("model.is_pad_head", 1, width)
    source.put("model.query_embed.weight", 100, width)
    source.conv("model.input_proj", width, 512, 1)
    resnet18(source, "model.backbones.0.0.body.")
    source.lin("model.input_proj_robot_state", width, 14)
    source.put("model.cls_embed.weight", 1, width)
    source.lin("model.encoder_action_proj", width, 14)
    source.lin("model.encoder_joint_proj", width, 14)
    source.lin("model.latent_proj", 64, width)
    source.put("model.pos_table", 1, 102, width)
    source.lin("model.latent_out_proj", width, 32)
    source.put("model.additional_pos_embed.weight", 2, width)

    target.put("model.vae_encoder_pos_enc", 1, 102, width)
    for number in range(depth):
        layer(target, f"model.vae_encoder.layers.{number}", False)
    target.put("model.vae_encoder_cls_embed.weight", 1, width)
    target.lin("model.vae_encoder_robot_state_input_proj", width, 14)
    target.lin("model.vae_encoder_action_input_proj", width, 14)
    target.lin("model.vae_encoder_latent_output_proj", 64, width)
    resnet18(target, "model.backbone.")
    for number in range(depth):
        layer(target, f"model.encoder.layers.{number}", False)
    layer(target, "model.decoder.layers.0", True)
    target.norm("model.decoder.norm", width)
    target.lin("model.encoder_robot_state_input_proj", width, 14)
    target.lin("model.encoder_latent_input_proj", width, 32)
    target.conv("model.encoder_img_feat_input_proj", width, 512, 1)
    target.put("model.encoder_1d_feature_pos_embed.weight", 2, width)
    target.put("model.decoder_pos_embed.weight", 100, width)
    target.lin("model.action_head", 14, width)
    table: list[Any] = [
        (r"^model\.is_pad_head.*", ""),
        (r"^model\.encoder\.", "model.vae_encoder."),
        (r"^model\.transformer\.", "model."),
        (r"^model\.pos_table", "model.vae_encoder_pos_enc"),
        (r"^model\.cls_embed", "model.vae_encoder_cls_embed"),
        (r"^model\.encoder_joint_proj", "model.vae_encoder_robot_state_input_proj"),
        (r"^model\.encoder_action_proj", "model.vae_encoder_action_input_proj"),
        (r"^model\.latent_proj", "model.vae_encoder_latent_output_proj"),
        (r"^model\.backbones\.0\.0\.body", "model.backbone"),
        (r"^model\.input_proj_robot_state", "model.encoder_robot_state_input_proj"),
        (r"^model\.latent_out_proj", "model.encoder_latent_input_proj"),
        (r"^model\.input_proj\.", "model.encoder_img_feat_input_proj."),
        (r"^model\.additional_pos_embed", "model.encoder_1d_feature_pos_embed"),
        (r"^model\.query_embed", "model.decoder_pos_embed"),
    ]
    return to(source, target, table, truth="LeRobot's conversion of ACT's checkpoints; code of both sides")


@pair("blind: NeuMF in Keras' names to PyTorch: two towers of tables, Linears between Dropouts")
def neumf(small: bool) -> Two:
    """mf is GMF; layer1 to layer3 are MLP_layers 1, 4, 7."""
    source, target = Net(), Net()
    for kind, size in (("mf", 8), ("mlp", 32)):
        source.put(f"{kind}_embedding_user/embeddings", 6040, size)
        source.put(f"{kind}_embedding_item/embeddings", 3706, size)
    for number, (into, out) in enumerate(((64, 32), (32, 16), (16, 8)), 1):
        source.put(f"layer{number}/kernel", into, out)
        source.put(f"layer{number}/bias", out)
    source.put("prediction/kernel", 16, 1)
    source.put("prediction/bias", 1)
    target.put("embed_user_GMF.weight", 6040, 8)
    target.put("embed_item_GMF.weight", 3706, 8)
    target.put("embed_user_MLP.weight", 6040, 32)
    target.put("embed_item_MLP.weight", 3706, 32)
    for number, (into, out) in enumerate(((64, 32), (32, 16), (16, 8))):
        target.lin(f"MLP_layers.{3 * number + 1}", out, into)
    target.lin("predict_layer", 1, 16)
    table: list[Any] = [
        (r"^mf_embedding_(\w+)/.*", r"embed_\1_GMF.weight"),
        (r"^mlp_embedding_(\w+)/.*", r"embed_\1_MLP.weight"),
        (r"^layer(\d)/", lambda m: f"MLP_layers.{3 * int(m[1]) - 2}."),
        (r"^prediction/", "predict_layer."),
        (r"kernel", "weight"),
    ]
    return to(source, target, table, [(r"kernel", "i o -> o i")],
              truth="code of both sides: hexiangnan's neural_collaborative_filtering and guoyang9/NCF")  # fmt: skip


@pair("blind: DeepFM in DeepCTR-Torch's names to FuxiCTR's: two tables for each feature")
def deepfm(small: bool) -> Two:
    """Wide tables have one column; the last Linear was without a bias; some features are of one size."""
    source, target = Net(), Net()
    sizes = [1461, 580, 10131, 2202, 305, 24, 12517, 633, 3, 931, 5683, 8352, 3194, 27, 14992, 5461, 10, 5652, 2173, 4,
             7046, 18, 15, 2862, 105, 1426]  # fmt: skip
    sizes[16], sizes[22] = 15, 18
    for at, size in enumerate(sizes, 1):
        source.put(f"embedding_dict.C{at}.weight", size, 16)
    for at, size in enumerate(sizes, 1):
        source.put(f"linear_model.embedding_dict.C{at}.weight", size, 1)
    source.put("out.bias", 1)
    for at, (out, into) in enumerate(((400, 416), (400, 400), (400, 400))):
        source.lin(f"dnn.linears.{at}", out, into)
    source.lin("dnn_linear", 1, 400, bias=False)
    for at, size in enumerate(sizes, 1):
        target.put(f"embedding_layer.embedding_layer.embedding_layers.C{at}.weight", size, 16)
    target.put("fm.lr_layer.bias", 1)
    for at, size in enumerate(sizes, 1):
        target.put(f"fm.lr_layer.embedding_layer.embedding_layer.embedding_layers.C{at}.weight", size, 1)
    for at, (out, into) in enumerate(((400, 416), (400, 400), (400, 400), (1, 400))):
        target.lin(f"mlp.mlp.{2 * at}", out, into)
    table: list[Any] = [
        (r"^embedding_dict", "embedding_layer.embedding_layer.embedding_layers"),
        (r"^linear_model\.embedding_dict", "fm.lr_layer.embedding_layer.embedding_layer.embedding_layers"),
        (r"^out\.bias", "fm.lr_layer.bias"),
        (r"^dnn\.linears\.(\d)", lambda m: f"mlp.mlp.{2 * int(m[1])}"),
        (r"^dnn_linear", "mlp.mlp.6"),
    ]
    return to(source, target, table, missing=["mlp.mlp.6.bias"],
              truth="code of both sides: DeepCTR-Torch's DeepFM and FuxiCTR's")  # fmt: skip


@pair("blind: TimesFM in Google's names to Hugging Face: everything is 1280 wide", "transformers")
def timesfm(small: bool) -> Two:
    """The perceptron has its norm inside; hidden_layer.0 is input_layer."""
    import transformers

    target = transformers.TimesFmModelForPrediction(transformers.TimesFmConfig(num_hidden_layers=5))
    source, width, groups = Net(), 1280, []
    for name, into in (("input_ff_layer", 64), ("horizon_ff_layer", width)):
        if name.startswith("horizon"):
            source.put("freq_emb.weight", 3, width)
        source.lin(f"{name}.hidden_layer.0", width, into)
        source.lin(f"{name}.output_layer", width, width)
        source.lin(f"{name}.residual_layer", width, into)
    for layer in range(5):
        at = f"stacked_transformer.layers.{layer}"
        source.put(f"{at}.self_attn.scaling", 80)
        source.lin(f"{at}.self_attn.qkv_proj", 3 * width, width)
        source.lin(f"{at}.self_attn.o_proj", width, width)
        source.lin(f"{at}.mlp.gate_proj", width, width)
        source.lin(f"{at}.mlp.down_proj", width, width)
        source.norm(f"{at}.mlp.layer_norm", width)
        source.put(f"{at}.input_layernorm.weight", width)
        groups += split(f"{at}.self_attn.qkv_proj", [f"decoder.layers.{layer}.self_attn.{x}_proj" for x in "qkv"])
    table: list[Any] = [
        (r".*qkv_proj.*", "@"),
        (r"^(input_ff_layer|freq_emb)", r"decoder.\1"),
        (r"hidden_layer\.0", "input_layer"),
        (r"^stacked_transformer", "decoder"),
    ]
    return to(source, target, table, groups=groups, truth="transformers' convert_timesfm_orignal_to_hf.py")


@pair("blind: PatchTST in its authors' names to Hugging Face: norms inside of Sequentials", "transformers")
def patchtst(small: bool) -> Two:
    """W_Q, W_K, W_V; a batch norm between two transpositions; a scale that nothing wants."""
    import transformers

    config = transformers.PatchTSTConfig(
        num_input_channels=7, context_length=336, patch_length=16, patch_stride=8, prediction_length=96, d_model=128,
        num_attention_heads=16, ffn_dim=256, num_hidden_layers=3, pooling_type=None, loss="mse",
    )  # fmt: skip
    target = transformers.PatchTSTForPrediction(config)
    source, width = Net(), 128
    source.put("model.revin_layer.affine_weight", 7)
    source.put("model.revin_layer.affine_bias", 7)
    source.put("model.backbone.W_pos", 41, width)
    source.lin("model.backbone.W_P", width, 16)
    for layer in range(3):
        at = f"model.backbone.encoder.layers.{layer}"
        source.lins(*(f"{at}.self_attn.W_{x}" for x in "QKV"), out=width, into=width)
        source.put(f"{at}.self_attn.sdp_attn.scale")
        source.lin(f"{at}.self_attn.to_out.0", width, width)
        source.bn(f"{at}.norm_attn.1", width)
        source.lin(f"{at}.ff.0", 256, width)
        source.lin(f"{at}.ff.3", width, 256)
        source.bn(f"{at}.norm_ffn.1", width)
    source.lin("model.head.linear", 96, 41 * width)
    table: list[Any] = [
        (r".*(revin_layer|sdp_attn).*", ""),
        (r"^model\.backbone\.W_pos", "model.encoder.positional_encoder.position_enc"),
        (r"^model\.backbone\.W_P", "model.encoder.embedder.input_embedding"),
        (r"^model\.backbone\.encoder", "model.encoder"),
        (r"^model\.head\.linear", "head.projection"),
        (r"\.W_([QKV])", lambda m: f".{m[1].lower()}_proj"),
        (r"\.to_out\.0", ".out_proj"),
        (r"\.norm_attn\.1", ".norm_sublayer1.batchnorm"),
        (r"\.norm_ffn\.1", ".norm_sublayer3.batchnorm"),
    ]
    return to(source, target, table, truth="code of both sides: yuqinie98/PatchTST and transformers")
