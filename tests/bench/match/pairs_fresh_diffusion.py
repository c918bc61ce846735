"""Fresh pairs: diffusion and GANs."""

from __future__ import annotations

from typing import Any

from tests.bench.match.fresh import Keys, Two, back, fresh, pair
from tests.bench.match.fresh_listings import listing
from tests.bench.match.pairs_fresh_sound import moved


@pair("fresh: Facebook's DiT to diffusers: the time's embedder is copied into every block")
def dit(small: bool) -> Two:
    """One source for twelve targets; qkv split; as diffusers' script does."""
    target = listing("diffusers-dit")
    source, rules, d = Keys(), [], 384
    source.put("pos_embed", 1, 256, d)
    source.conv("x_embedder.proj", d, 4, 2)
    source.lin("t_embedder.mlp.0", d, 256)
    source.lin("t_embedder.mlp.2", d, d)
    source.put("y_embedder.embedding_table.weight", 1001, d)
    for at in range(12):
        name, new = f"blocks.{at}", f"transformer_blocks.{at}"
        source.lin(f"{name}.attn.qkv", 3 * d, d)
        source.lin(f"{name}.attn.proj", d, d)
        source.lin(f"{name}.mlp.fc1", 4 * d, d)
        source.lin(f"{name}.mlp.fc2", d, 4 * d)
        source.lin(f"{name}.adaLN_modulation.1", 6 * d, d)
        for a, b in (
            ("attn.proj", "attn1.to_out.0"),
            ("mlp.fc1", "ff.net.0.proj"),
            ("mlp.fc2", "ff.net.2"),
            ("adaLN_modulation.1", "norm1.linear"),
        ):
            rules.append(f"{name}.{a}.{{p*}} -> {new}.{b}.{{p*}}")
        for tail, axes in (("weight", " i"), ("bias", "")):
            rules.append(f"{name}.attn.qkv.{tail} -> {new}.attn1.to_{{x=q|k|v}}.{tail} | (x o){axes} -> o{axes}")
    source.lin("final_layer.linear", 32, d)
    source.lin("final_layer.adaLN_modulation.1", 2 * d, d)
    rules += [
        "x_embedder.proj.{p*} -> pos_embed.proj.{p*}",
        "final_layer.linear.{p*} -> proj_out_2.{p*}",
        "final_layer.adaLN_modulation.1.{p*} -> proj_out_1.{p*}",
    ]
    for key, name in (
        ("t_embedder.mlp.0.weight", "timestep_embedder.linear_1.weight"),
        ("t_embedder.mlp.0.bias", "timestep_embedder.linear_1.bias"),
        ("t_embedder.mlp.2.weight", "timestep_embedder.linear_2.weight"),
        ("t_embedder.mlp.2.bias", "timestep_embedder.linear_2.bias"),
        ("y_embedder.embedding_table.weight", "class_embedder.embedding_table.weight"),
    ):
        rules.append(f"{key} -> " + ", ".join(f"transformer_blocks.{at}.norm1.emb.{name}" for at in range(12)))
    return fresh(source, target, rules)


@pair("fresh: Flux in its authors' names to diffusers: linear1 is q, k, v and the perceptron")
def flux(small: bool) -> Two:
    """Two streams, twelve fused matrices; the last modulation changes the order of shift and scale."""
    target = listing("diffusers-flux")
    source, rules, d = Keys(), [], 512

    def lin(old: str, new: str, out: int, into: int) -> None:
        source.lin(old, out, into)
        rules.extend(f"{old}.{tail} -> {new}.{tail}" for tail in ("weight", "bias"))

    lin("img_in", "x_embedder", d, 64)
    for a, b, into in (
        ("time_in", "timestep_embedder", 256),
        ("vector_in", "text_embedder", 768),
        ("guidance_in", "guidance_embedder", 256),
    ):
        lin(f"{a}.in_layer", f"time_text_embed.{b}.linear_1", d, into)
        lin(f"{a}.out_layer", f"time_text_embed.{b}.linear_2", d, d)
    lin("txt_in", "context_embedder", d, 4096)

    def norms(old: str, new_q: str, new_k: str) -> None:
        source.put(f"{old}.query_norm.scale", 128)
        source.put(f"{old}.key_norm.scale", 128)
        rules.extend((f"{old}.query_norm.scale -> {new_q}.weight", f"{old}.key_norm.scale -> {new_k}.weight"))

    for at in range(3):
        old, new = f"double_blocks.{at}", f"transformer_blocks.{at}"
        for side, norm, out, ff, q, extra in (
            ("img", "norm1", "to_out.0", "ff", "to_{x}", ""),
            ("txt", "norm1_context", "to_add_out", "ff_context", "add_{x}_proj", "added_"),
        ):
            lin(f"{old}.{side}_mod.lin", f"{new}.{norm}.linear", 6 * d, d)
            source.lin(f"{old}.{side}_attn.qkv", 3 * d, d)
            for tail, axes in (("weight", " i"), ("bias", "")):
                names = ", ".join(f"{new}.attn.{q.replace('{x}', x)}.{tail}" for x in "qkv")
                rules.append(
                    f"{old}.{side}_attn.qkv.{tail} -> {names} | (q + k + v){axes} -> q{axes}, k{axes}, v{axes}"
                )
            norms(f"{old}.{side}_attn.norm", f"{new}.attn.norm_{extra}q", f"{new}.attn.norm_{extra}k")
            lin(f"{old}.{side}_attn.proj", f"{new}.attn.{out}", d, d)
            lin(f"{old}.{side}_mlp.0", f"{new}.{ff}.net.0.proj", 4 * d, d)
            lin(f"{old}.{side}_mlp.2", f"{new}.{ff}.net.2", d, 4 * d)
    for at in range(5):
        old, new = f"single_blocks.{at}", f"single_transformer_blocks.{at}"
        source.lin(f"{old}.linear1", 7 * d, d)
        for tail, axes in (("weight", " i"), ("bias", "")):
            names = ", ".join(f"{new}.{part}.{tail}" for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"))
            rules.append(
                f"{old}.linear1.{tail} -> {names} | (q + k + v + m){axes} -> q{axes}, k{axes}, v{axes}, m{axes}"
            )
        lin(f"{old}.linear2", f"{new}.proj_out", d, 5 * d)
        norms(f"{old}.norm", f"{new}.attn.norm_q", f"{new}.attn.norm_k")
        lin(f"{old}.modulation.lin", f"{new}.norm.linear", 3 * d, d)
    lin("final_layer.linear", "proj_out", 64, d)
    source.lin("final_layer.adaLN_modulation.1", 2 * d, d)
    for tail, axes in (("weight", " i"), ("bias", "")):
        rules.append(
            f"final_layer.adaLN_modulation.1.{tail} -> norm_out.linear.{tail} | (a + b){axes} -> (b + a){axes}"
        )
    return fresh(
        source, target, rules, vars={"q": d, "k": d, "v": d, "m": 4 * d, "a": d, "b": d}, hidden=["norm_out.linear.*"]
    )


@pair("fresh: TAESD to diffusers' AutoencoderTiny: the decoder counts from 1")
def taesd(small: bool) -> Two:
    """A Clamp in front of the decoder is a module there and none here; one shape nearly throughout."""
    target = listing("diffusers-taesd")
    table = [(r"^encoder\.layers\.", "encoder."), (r"^decoder\.layers\.(\d+)", lambda m: f"decoder.{int(m[1]) + 1}")]
    return back(moved(target, table), target, table)


@pair("fresh: DDPM's first PyTorch names to diffusers: up counts backwards, attention was convolutions")
def ddpm(small: bool) -> Two:
    """up.3 is up_blocks.0; q, k and v are 1x1 convolutions."""
    target = listing("diffusers-ddpm")
    table: list[Any] = [
        (r"^time_embedding\.linear_(\d)", lambda m: f"temb.dense.{int(m[1]) - 1}"),
        (r"^up_blocks\.(\d)", lambda m: f"up.{3 - int(m[1])}"),
        (r"^down_blocks", "down"),
        (r"^mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
        (r"^mid_block\.attentions\.0", "mid.attn_1"),
        (r"(down|up)\.(\d)\.resnets", r"\1.\2.block"),
        (r"(down|up)\.(\d)\.attentions", r"\1.\2.attn"),
        (r"downsamplers\.0", "downsample"),
        (r"upsamplers\.0", "upsample"),
        (r"time_emb_proj", "temb_proj"),
        (r"conv_shortcut", "nin_shortcut"),
        (r"\.group_norm", ".norm"),
        (r"\.to_out\.0", ".proj_out"),
        (r"\.to_([qkv])", r".\1"),
        (r"^conv_norm_out", "norm_out"),
    ]
    made = moved(target, table)
    turned = {
        key: tensor[..., None, None] if ".attn" in key and tensor.dim() == 2 else tensor for key, tensor in made.items()
    }
    turned = {
        key: tensor[..., None, None] if "nin_shortcut.weight" in key and tensor.dim() == 2 else tensor
        for key, tensor in turned.items()
    }
    order = [
        "temb",
        "conv_in",
        "down",
        "mid.block_1",
        "mid.attn_1",
        "mid.block_2",
        "up.0",
        "up.1",
        "up.2",
        "up.3",
        "norm_out",
        "conv_out",
    ]
    source = Keys()
    for part in order:
        chosen = [key for key in turned if key.startswith(part)]
        if part in ("down", "up.0", "up.1", "up.2", "up.3"):
            chosen.sort(
                key=lambda key: (
                    key.split(".")[1],
                    ["block", "attn", "downsample", "upsample"].index(key.split(".")[2]),
                )
            )
        source.update({key: turned[key] for key in chosen})
    return back(source, target, table, [(r"attentions.*to_.*weight", "o i 1 1 -> o i")])


@pair("fresh: rosinality's StyleGAN2 to NVIDIA's: lists of convolutions are resolutions")
def stylegan(small: bool) -> Two:
    """convs.0 is b8.conv0; an axis of one in front; kernels of the way up are mirrored."""
    source, target, rules = Keys(), Keys(), []
    for at in range(8):
        source.lin(f"style.{at + 1}", 512, 512)
        rules += [f"style.{at + 1}.{tail} -> mapping.fc{at}.{tail}" for tail in ("weight", "bias")]
    source.put("input.input", 1, 512, 4, 4)
    widths = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256}
    target.put("synthesis.b4.const", 512, 4, 4)
    rules.append("input.input -> synthesis.b4.const | 1 c h w -> c h w")
    later = Keys()

    def style(old: str, new: str, out: int, into: int, res: int, noise: int) -> None:
        source.put(f"{old}.conv.weight", 1, out, into, 3, 3)
        source.lin(f"{old}.conv.modulation", into, 512)
        source.put(f"{old}.noise.weight", 1)
        source.put(f"{old}.activate.bias", out)
        target.put(f"{new}.weight", out, into, 3, 3)
        target.put(f"{new}.noise_strength")
        target.put(f"{new}.bias", out)
        target.put(f"{new}.resample_filter", 4, 4)
        target.put(f"{new}.noise_const", res, res)
        target.lin(f"{new}.affine", into, 512)
        later.put(f"noises.noise_{noise}", 1, 1, res, res)
        rules.extend(
            (
                f"{old}.conv.weight -> {new}.weight | 1 o i h w -> o i h w",
                f"{old}.conv.modulation.{{p*}} -> {new}.affine.{{p*}}",
                f"{old}.noise.weight -> {new}.noise_strength | 1 ->",
                f"{old}.activate.bias -> {new}.bias",
                f"noises.noise_{noise} -> {new}.noise_const | 1 1 h w -> h w",
            )
        )

    def rgb(old: str, new: str, into: int) -> None:
        source.put(f"{old}.bias", 1, 3, 1, 1)
        source.put(f"{old}.conv.weight", 1, 3, into, 1, 1)
        source.lin(f"{old}.conv.modulation", into, 512)
        target.put(f"{new}.weight", 3, into, 1, 1)
        target.put(f"{new}.bias", 3)
        target.lin(f"{new}.affine", into, 512)
        rules.extend(
            (
                f"{old}.bias -> {new}.bias | 1 c 1 1 -> c",
                f"{old}.conv.weight -> {new}.weight | 1 o i h w -> o i h w",
                f"{old}.conv.modulation.{{p*}} -> {new}.affine.{{p*}}",
            )
        )

    style("conv1", "synthesis.b4.conv1", 512, 512, 4, 0)
    rgb("to_rgb1", "synthesis.b4.torgb", 512)
    into = 512
    for at, (res, width) in enumerate(list(widths.items())[1:]):
        style(f"convs.{2 * at}", f"synthesis.b{res}.conv0", width, into, res, 2 * at + 1)
        source.put(f"convs.{2 * at}.conv.blur.kernel", 4, 4)
        style(f"convs.{2 * at + 1}", f"synthesis.b{res}.conv1", width, width, res, 2 * at + 2)
        rgb(f"to_rgbs.{at}", f"synthesis.b{res}.torgb", width)
        into = width
    source.update(later)
    for at in range(8):
        target.lin(f"mapping.fc{at}", 512, 512)
    target.put("mapping.w_avg", 512)
    parts = ("style", "input", "conv1", "to_rgb1", "convs", "to_rgbs", "noises")
    ordered = {key: source[key] for part in parts for key in source if key.split(".")[0] == part}
    return fresh(ordered, target, rules, missing=["*resample_filter", "mapping.w_avg"], hidden=["*conv0.weight"])


@pair("fresh: pix2pix's nested U-Net to levels by name")
def pix2pix(small: bool) -> Two:
    """Each level is a child of the one outside; a deconvolution and its norm stand behind all that is inside."""
    source, target, names = Keys(), Keys(), {}
    widths = [64, 128, 256, 512, 512, 512, 512, 512]
    prefix, ups = "model", []
    for level, width in enumerate(widths, 1):
        first, last = level == 1, level == 8
        outer = widths[level - 2] if not first else 3
        down = f"{prefix}.model.{0 if first else 1}"
        source.conv(down, width, outer, 4, bias=False)
        names[f"enc{level}.conv"] = down
        target.conv(f"enc{level}.conv", width, outer, 4, bias=False)
        if not (first or last):
            source.bn(f"{prefix}.model.2", width)
            names[f"enc{level}.bn"] = f"{prefix}.model.2"
            target.bn(f"enc{level}.bn", width)
        up = f"{prefix}.model.{3 if first or last else 5}"
        ups.append(
            (level, up, width if last else 2 * width, outer, "" if first else f"{prefix}.model.{4 if last else 6}")
        )
        prefix = f"{prefix}.model.{1 if first else 3}"
    for level, up, into, outer, norm in reversed(ups):
        for keys, name in ((source, up), (target, f"dec{level}.deconv")):
            keys.put(f"{name}.weight", into, outer, 4, 4)
            if level == 1:
                keys.put(f"{name}.bias", outer)
        names[f"dec{level}.deconv"] = up
        if norm:
            source.bn(norm, outer)
            target.bn(f"dec{level}.bn", outer)
            names[f"dec{level}.bn"] = norm
    rules = [f"{old}.{{p*}} -> {new}.{{p*}}" for new, old in names.items()]
    return fresh(source, target, rules)
