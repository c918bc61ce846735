"""Held-out pairs: latent diffusion's U-Net, adapters, and transformers as popular small packages write them."""

from __future__ import annotations

from typing import Any

from tests.bench.match.pairs import (
    State,
    Two,
    both_sorted,
    image,
    pair,
    renamed,
    shuffled,
    sorted_keys,
    tokens,
    variant,
)
from tests.bench.match.pairs_hand import rows
from tests.bench.match.pairs_held import listed, rewound
from tests.bench.match.pairs_llama import llama
from tests.bench.match.pairs_text import transformers

# ---------------------------------------------------------------------------------------------- latent diffusion


class Shapes(dict[str, Any]):
    """Tensors by name, added layer by layer."""

    def layer(self, name: str, *shape: int, bias: bool = True) -> None:
        import torch

        self[f"{name}.weight"] = torch.empty(shape)
        if bias:
            self[f"{name}.bias"] = torch.empty(shape[:1])

    def resnet(self, name: str, a: int, b: int, time: int) -> None:
        self.layer(f"{name}.in_layers.0", a)
        self.layer(f"{name}.in_layers.2", b, a, 3, 3)
        self.layer(f"{name}.emb_layers.1", b, time)
        self.layer(f"{name}.out_layers.0", b)
        self.layer(f"{name}.out_layers.3", b, b, 3, 3)
        if a != b:
            self.layer(f"{name}.skip_connection", b, a, 1, 1)

    def attention(self, name: str, a: int, context: int) -> None:
        self.layer(f"{name}.norm", a)
        self.layer(f"{name}.proj_in", a, a, 1, 1)
        block = f"{name}.transformer_blocks.0"
        for at, there in (("attn1", a), ("attn2", context)):
            if at == "attn2":
                self.layer(f"{block}.ff.net.0.proj", 8 * a, a)
                self.layer(f"{block}.ff.net.2", a, 4 * a)
            self.layer(f"{block}.{at}.to_q", a, a, bias=False)
            self.layer(f"{block}.{at}.to_k", a, there, bias=False)
            self.layer(f"{block}.{at}.to_v", a, there, bias=False)
            self.layer(f"{block}.{at}.to_out.0", a, a)
        for n in (1, 2, 3):
            self.layer(f"{block}.norm{n}", a)
        self.layer(f"{name}.proj_out", a, a, 1, 1)


def ldm_unet(base: int = 320, context: int = 768) -> tuple[State, list[str]]:
    """Stable Diffusion 1's U-Net as its files have it, and the rules of diffusers' `convert_ldm_unet_checkpoint`."""
    file, rules = Shapes(), []
    widths, time = [base, 2 * base, 4 * base, 4 * base], 4 * base

    def res(here: str, there: str) -> None:
        parts = "{n=in_layers.0|in_layers.2|emb_layers.1|out_layers.0|out_layers.3|skip_connection}"
        rules.append(
            f"{here}.{parts}.{{p*}} -> {there}.{{n=norm1|conv1|time_emb_proj|norm2|conv2|conv_shortcut}}.{{p*}}"
        )

    def move(here: str, there: str) -> None:
        rules.append(f"{here}.{{k**}} -> {there}.{{k**}}")

    file.layer("time_embed.0", time, base)
    file.layer("time_embed.2", time, time)
    file.layer("input_blocks.0.0", base, 4, 3, 3)
    rules += ["time_embed.{n=0|2}.{p*} -> time_embedding.{n=linear_1|linear_2}.{p*}",
              "input_blocks.0.0.{p*} -> conv_in.{p*}"]  # fmt: skip
    skips, before, at = [base], base, 0
    for level, width in enumerate(widths):
        for n in range(2):
            at += 1
            file.resnet(f"input_blocks.{at}.0", before, width, time)
            res(f"input_blocks.{at}.0", f"down_blocks.{level}.resnets.{n}")
            if level < 3:
                file.attention(f"input_blocks.{at}.1", width, context)
                move(f"input_blocks.{at}.1", f"down_blocks.{level}.attentions.{n}")
            before = width
            skips.append(width)
        if level < 3:
            at += 1
            file.layer(f"input_blocks.{at}.0.op", width, width, 3, 3)
            move(f"input_blocks.{at}.0.op", f"down_blocks.{level}.downsamplers.0.conv")
            skips.append(width)
    for n in (0, 2):
        file.resnet(f"middle_block.{n}", before, before, time)
        res(f"middle_block.{n}", f"mid_block.resnets.{n // 2}")
    file.attention("middle_block.1", before, context)
    move("middle_block.1", "mid_block.attentions.0")
    at = 0
    for level in range(4):
        width = widths[3 - level]
        for n in range(3):
            file.resnet(f"output_blocks.{at}.0", before + skips.pop(), width, time)
            res(f"output_blocks.{at}.0", f"up_blocks.{level}.resnets.{n}")
            if level:
                file.attention(f"output_blocks.{at}.1", width, context)
                move(f"output_blocks.{at}.1", f"up_blocks.{level}.attentions.{n}")
            if n == 2 and level < 3:
                name = f"output_blocks.{at}.{2 if level else 1}.conv"
                file.layer(name, width, width, 3, 3)
                move(name, f"up_blocks.{level}.upsamplers.0.conv")
            before = width
            at += 1
    file.layer("out.0", base)
    file.layer("out.2", 4, base, 3, 3)
    rules += ["out.{n=0|2}.{p*} -> {n=conv_norm_out|conv_out}.{p*}"]
    # an upsampler's rule says more than that of the attention whose number it has
    rules.sort(key=lambda rule: rule.partition(".{")[0], reverse=True)
    return {f"model.diffusion_model.{key}": tensor for key, tensor in file.items()}, rules


DIFFUSERS = """conv_in time_embedding linear_ down_blocks up_blocks mid_block attentions resnets downsamplers upsamplers
    norm proj_in transformer_blocks norm1 conv1 time_emb_proj attn1 norm2 attn2 conv2 conv_shortcut norm3 ff net proj
    to_q to_k to_v to_out proj_out conv conv_norm_out conv_out"""


@pair("latent diffusion's U-Net to diffusers")
def ldm_diffusers(small: bool) -> Two:
    file, plain = ldm_unet(64, 96)
    bare = {key.removeprefix("model.diffusion_model."): tensor for key, tensor in file.items()}
    rules = ["model.diffusion_model. ->", "---", *plain]
    target = listed(renamed(plain)(bare), DIFFUSERS)
    return Two(file, target, rules, proof="diffusers' convert_ldm_unet_checkpoint")


@pair("latent diffusion's U-Net into a ControlNet in its own names")
def controlnet(small: bool) -> Two:
    """The first half is copied; a hint's encoder and convolutions of zeros are new, one beside each block."""
    file, _ = ldm_unet(64, 96)
    target = Shapes()
    for key, tensor in file.items():
        name = key.removeprefix("model.diffusion_model.")
        if name.startswith(("time_embed", "input_blocks", "middle_block")):
            target[f"control_model.{name}"] = tensor
    for at, width in enumerate([64, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256, 256]):
        target.layer(f"control_model.zero_convs.{at}.0", width, width, 1, 1)
    before = 3
    for at, width in enumerate([16, 16, 32, 32, 96, 96, 256, 64]):
        target.layer(f"control_model.input_hint_block.{2 * at}", width, before, 3, 3)
        before = width
    target.layer("control_model.middle_block_out.0", 256, 256, 1, 1)
    rules = ["model.diffusion_model.{k**} -> control_model.{k**}"]
    missing = [f"control_model.{name}.*" for name in ("zero_convs", "input_hint_block", "middle_block_out")]
    return Two(file, dict(target), rules, missing=missing, proof="ControlNet's tool_add_control.py")


variant("latent diffusion's U-Net to diffusers, both sorted", "latent diffusion's U-Net to diffusers", both_sorted)


# ---------------------------------------------------------------------------------------------- adapters


@pair("a LoRA file into its PEFT model", "transformers", "peft")
def lora_file(small: bool) -> Two:
    """As `save_pretrained` writes it: only the adapters, without the adapter's name."""
    import peft

    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    models = [peft.get_peft_model(llama(small), config) for _ in range(2)]

    def saved(state: State) -> State:
        return {key.replace(".default", ""): tensor for key, tensor in state.items() if ".lora_" in key}

    rules = ["{m**}.lora_{x=A|B}.weight -> {m**}.lora_{x}.default.weight"]
    base = ["*.base_layer.weight", "*.k_proj.weight", "*.o_proj.weight", "*.mlp.*", "*norm.weight", "*embed*",
            "*lm_head*"]  # fmt: skip
    return Two(models[0], models[1], rules, source_file=saved, missing=base, proof="peft's set_peft_model_state_dict")


@pair("a LoRA in kohya's names to PEFT's: dots became underscores", "transformers", "peft")
def kohya(small: bool) -> Two:
    """lora_down is A, lora_up is B; the scale alpha has no place."""
    import peft
    import torch

    package = transformers()
    config = peft.LoraConfig(r=8, target_modules=["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"])
    model = peft.get_peft_model(package.CLIPTextModel(package.CLIPTextConfig()), config)
    there = {key: tensor for key, tensor in model.state_dict().items() if ".lora_" in key}
    file: dict[str, Any] = {}
    rules = []
    for key, tensor in there.items():
        stem, _, rest = key.partition(".lora_")
        name = "lora_te_text_model_" + stem.removeprefix("base_model.model.").replace(".", "_")
        file[f"{name}.lora_{'down' if rest[0] == 'A' else 'up'}.weight"] = tensor
        file[f"{name}.alpha"] = torch.empty(())
        if rest[0] == "A":
            rules.append(f"{name}.lora_{{x=down|up}}.weight -> {stem}.lora_{{x=A|B}}.default.weight")
    return Two(file, there, rules, proof="peft's convert_kohya_to_peft")


# ---------------------------------------------------------------------------------------------- small packages


@pair("lucidrains' ViT to timm's", "timm")
def lucidrains(small: bool) -> Two:
    """vit-pytorch: a layer is a pair; patches are rows of a Linear, and which way round no header tells."""
    import timm

    model = timm.create_model("vit_base_patch16_224", qkv_bias=False)
    block = "transformer.layers.{i}."
    rules = [
        "cls_token -> cls_token",
        "pos_embedding -> pos_embed",
        "to_patch_embedding.1.weight -> patch_embed.proj.weight | o (y x c) -> o c y x",
        "to_patch_embedding.1.bias -> patch_embed.proj.bias",
        f"{block}0.norm.{{p*}} -> blocks.{{i}}.norm1.{{p*}}",
        f"{block}0.fn.to_qkv.weight -> blocks.{{i}}.attn.qkv.weight",
        f"{block}0.fn.to_out.0.{{p*}} -> blocks.{{i}}.attn.proj.{{p*}}",
        f"{block}1.norm.{{p*}} -> blocks.{{i}}.norm2.{{p*}}",
        f"{block}1.fn.net.{{n=0|3}}.{{p*}} -> blocks.{{i}}.mlp.{{n=fc1|fc2}}.{{p*}}",
        "mlp_head.{n=0|1}.{p*} -> {n=norm|head}.{p*}",
    ]
    vars = {"y": 16, "x": 16}
    words = "pos_embedding cls_token to_patch_embedding transformer layers norm fn to_qkv to_out net mlp_head"
    return Two(
        rewound(rules, model.state_dict(), words, vars), model, rules, vars=vars, hidden=["patch_embed.proj.weight"],
        proof="vit-pytorch's vit.py at version 0.40",
    )  # fmt: skip


@pair("x-transformers' decoder to blocks: attention and feed-forward take turns")
def x_transformers(small: bool) -> Two:
    """layers.2i is the attention of block i, layers.2i+1 its feed-forward."""
    file, width = Shapes(), 64
    file.layer("net.token_emb.emb", 100, width, bias=False)
    file.layer("net.pos_emb.emb", 128, width, bias=False)
    rules = ["net.token_emb.emb.weight -> wte.weight", "net.pos_emb.emb.weight -> wpe.weight"]
    for i in range(6):
        here, there = f"net.attn_layers.layers.{2 * i}", f"net.attn_layers.layers.{2 * i + 1}"
        file.layer(f"{here}.0.0", width)
        for name in ("to_q", "to_k", "to_v", "to_out"):
            file.layer(f"{here}.1.{name}", width, width, bias=False)
        file.layer(f"{there}.0.0", width)
        file.layer(f"{there}.1.ff.0.0", 4 * width, width)
        file.layer(f"{there}.1.ff.2", width, 4 * width)
        names = "{x=to_q|to_k|to_v|to_out}.weight -> blocks"
        rules += [f"{here}.0.0.{{p*}} -> blocks.{i}.norm1.{{p*}}", f"{there}.0.0.{{p*}} -> blocks.{i}.norm2.{{p*}}",
                  f"{here}.1.{names}.{i}.attn.{{x=q_proj|k_proj|v_proj|o_proj}}.weight",
                  f"{there}.1.ff.{{n=0.0|2}}.{{p*}} -> blocks.{i}.mlp.{{n=fc1|fc2}}.{{p*}}"]  # fmt: skip
    file.layer("net.attn_layers.final_norm", width)
    file.layer("net.to_logits", 100, width, bias=False)
    rules += ["net.attn_layers.final_norm.{p*} -> norm.{p*}", "net.to_logits.weight -> lm_head.weight"]
    words = "wte wpe blocks norm1 attn q_proj k_proj v_proj o_proj norm2 mlp fc norm lm_head"
    target = listed(renamed(rules)(file), words)
    return Two(dict(file), target, rules, proof="x-transformers' AttentionLayers")


@pair("a word language model to another spelling")
def word_lm(small: bool) -> Two:
    from torch import nn

    source = nn.ModuleDict({"encoder": nn.Embedding(100, 32), "rnn": nn.LSTM(32, 32, 2, batch_first=True),
                            "decoder": nn.Linear(32, 100)})  # fmt: skip
    target = nn.ModuleDict({"embedding": nn.Embedding(100, 32), "lstm": nn.LSTM(32, 32, 2, batch_first=True),
                            "fc": nn.Linear(32, 100)})  # fmt: skip

    def ask(a: str, b: str, c: str) -> Any:
        return lambda model: model[c](model[b](model[a](tokens(100)))[0])

    rules = ["encoder.{p*} -> embedding.{p*}", "rnn.{p*} -> lstm.{p*}", "decoder.{p*} -> fc.{p*}"]
    return Two(source, target, rules, ask=ask("encoder", "rnn", "decoder"), ask_target=ask("embedding", "lstm", "fc"))


@pair("squeeze and excitation: convolutions to Linear")
def squeeze(small: bool) -> Two:
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, names: tuple[str, ...], linear: bool) -> None:
            super().__init__()
            self.names = names
            self.blocks = nn.ModuleList()
            for _ in range(3):
                pair = [nn.Linear(32, 8), nn.Linear(8, 32)] if linear else [nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)]
                parts = (nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), *pair)
                self.blocks.append(nn.ModuleDict(dict(zip(names, parts, strict=True))))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                conv, norm, down, up = (block[name] for name in self.names)
                x = norm(conv(x)).relu()
                mean = x.mean((2, 3))
                if isinstance(down, nn.Linear):
                    gate = up(down(mean).relu())[:, :, None, None]
                else:
                    gate = up(down(mean[:, :, None, None]).relu())
                x = x * gate.sigmoid()
            return x

    source = Net(("conv", "bn", "reduce", "expand"), linear=False)
    target = Net(("conv", "norm", "se_fc1", "se_fc2"), linear=True)
    rules = [
        "blocks.{i}.bn.{p*} -> blocks.{i}.norm.{p*}",
        "blocks.{i}.{n=reduce|expand}.weight -> blocks.{i}.{n=se_fc1|se_fc2}.weight | o i 1 1 -> o i",
        "blocks.{i}.{n=reduce|expand}.bias -> blocks.{i}.{n=se_fc1|se_fc2}.bias",
    ]

    def ask(model: Any) -> Any:
        import torch.nn.functional as functional

        return model(functional.pad(image(16), (0, 0, 0, 0, 0, 29)))

    return Two(source, target, rules, ask=ask)


@pair("torch's encoder in BERT's names: qkv split, norms behind", "transformers")
def encoder_bert(small: bool) -> Two:
    import torch

    package = transformers()
    layer = torch.nn.TransformerEncoderLayer(32, 2, 64, activation="gelu", batch_first=True, layer_norm_eps=1e-12)
    source = torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    config = package.BertConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64)
    target = package.BertModel(config, add_pooling_layer=False).encoder
    block, to = "layers.{i}.", "layer.{i}."
    rules = [
        f"{block}self_attn.in_proj_{{p*}} -> {to}attention.self.{{x=query|key|value}}.{{p*}} | (x o) ... -> o ...",
        f"{block}self_attn.out_proj.{{p*}} -> {to}attention.output.dense.{{p*}}",
        f"{block}norm1.{{p*}} -> {to}attention.output.LayerNorm.{{p*}}",
        f"{block}linear1.{{p*}} -> {to}intermediate.dense.{{p*}}",
        f"{block}linear2.{{p*}} -> {to}output.dense.{{p*}}",
        f"{block}norm2.{{p*}} -> {to}output.LayerNorm.{{p*}}",
    ]
    return Two(
        source, target, rules, ask=lambda m: m(rows()), ask_target=lambda m: m(rows()).last_hidden_state, rel=1e-4
    )


variant("x-transformers' decoder to blocks, sorted",
        "x-transformers' decoder to blocks: attention and feed-forward take turns", sorted_keys)  # fmt: skip
variant("a word language model to another spelling, shuffled", "a word language model to another spelling", shuffled)
