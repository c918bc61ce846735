"""Pairs of models with two towers: T5, Whisper, CLIP. And language models that have nothing in common."""

from __future__ import annotations

from typing import Any

from tests.bench.match.pairs import (
    Two,
    both_sorted,
    image,
    pair,
    shuffled,
    tokens,
    variant,
)
from tests.bench.match.pairs_llama import llama, renamed_back
from tests.bench.match.pairs_text import bert, gpt2, last_hidden, transformers


@pair("T5 to its encoder", "transformers")
def t5_encoder(small: bool) -> Two:
    package = transformers()
    sizes = {"vocab_size": 40, "d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 64, "num_layers": 2} if small else {}
    config = package.T5Config(**sizes)
    return Two(
        package.T5ForConditionalGeneration(config), package.T5EncoderModel(config), [],
        ask=lambda m: last_hidden(m.encoder),
    )  # fmt: skip


@pair("OpenAI Whisper to Hugging Face", "transformers")
def whisper(small: bool) -> Two:
    """The source's names and order are those of OpenAI's `model.py`; transformers' script says where they go."""
    package = transformers()
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 60,
             "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}  # fmt: skip
    base = {"d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8,
            "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048}  # fmt: skip
    model = package.WhisperForConditionalGeneration(package.WhisperConfig(**(sizes if small else base)))
    names = "{a=query|key|value|out}.{p*} -> model.{t}.layers.{i}"
    attention = "{a=q_proj|k_proj|v_proj|out_proj}.{p*}"
    block = "{t=encoder|decoder}.blocks.{i}"
    rules = [
        f"{block}.attn.{names}.self_attn.{attention}",
        f"{block}.cross_attn.{names}.encoder_attn.{attention}",
        f"{block}.attn_ln.{{p*}} -> model.{{t}}.layers.{{i}}.self_attn_layer_norm.{{p*}}",
        f"{block}.cross_attn_ln.{{p*}} -> model.{{t}}.layers.{{i}}.encoder_attn_layer_norm.{{p*}}",
        f"{block}.mlp.{{n=0|2}}.{{p*}} -> model.{{t}}.layers.{{i}}.{{n=fc1|fc2}}.{{p*}}",
        f"{block}.mlp_ln.{{p*}} -> model.{{t}}.layers.{{i}}.final_layer_norm.{{p*}}",
        "encoder.conv{n}.{p*} -> model.encoder.conv{n}.{p*}",
        "encoder.positional_embedding -> model.encoder.embed_positions.weight",
        "encoder.ln_post.{p*} -> model.encoder.layer_norm.{p*}",
        "decoder.token_embedding.weight -> model.decoder.embed_tokens.weight",
        "decoder.positional_embedding -> model.decoder.embed_positions.weight",
        "decoder.ln.{p*} -> model.decoder.layer_norm.{p*}",
    ]
    there = {key: tensor for key, tensor in model.state_dict().items() if key != "proj_out.weight"}
    file = renamed_back(rules, there)
    source = {key: file[key] for key in sorted(file, key=_whisper_place)}
    return Two(source, model, rules, missing=["proj_out.weight"], proof="transformers' script")


def _whisper_place(key: str) -> tuple[bool, int, int, int, str]:
    """The order of OpenAI's modules: query key value out, attn attn_ln cross_attn cross_attn_ln mlp mlp_ln."""
    parts = key.split(".")
    tower = parts[0] == "decoder"
    if parts[1] == "blocks":
        inner = ["attn", "attn_ln", "cross_attn", "cross_attn_ln", "mlp", "mlp_ln"].index(parts[3])
        leaf = {"query": 0, "key": 1, "value": 2, "out": 3}.get(parts[4], 0)
        return tower, 1, int(parts[2]), inner * 10 + leaf, parts[-2] + ("0" if parts[-1] == "weight" else "1")
    return tower, 2 if parts[1].startswith("ln") else 0, 0, 0, key.replace(".weight", ".a")


def open_clip_model(small: bool, equal: bool) -> Any:
    import open_clip

    vision = {"layers": 2, "width": 64, "patch_size": 8, "image_size": 16, "head_width": 32} if small else {
        "layers": 12, "width": 512 if equal else 768, "patch_size": 32, "image_size": 224}  # fmt: skip
    text = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
    if small:
        text = {"context_length": 8, "vocab_size": 30, "width": 64 if equal else 32, "heads": 2, "layers": 2}
    return open_clip.model.CLIP(
        embed_dim=32 if small else 512, vision_cfg=vision, text_cfg=text, quick_gelu=True, output_dict=True
    )


def hf_clip(small: bool, equal: bool) -> Any:
    package = transformers()
    shared = {"num_hidden_layers": 2 if small else 12, "projection_dim": 32 if small else 512}
    text = {"vocab_size": 30, "hidden_size": 64 if equal else 32, "intermediate_size": 256 if equal else 128,
            "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 29, "num_attention_heads": 2}  # fmt: skip
    vision = {"hidden_size": 64, "intermediate_size": 256, "image_size": 16, "patch_size": 8, "num_attention_heads": 2}
    if not small:
        width = 512 if equal else 768
        text, vision = {}, {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 64}
    return package.CLIPModel(package.CLIPConfig(
        text_config=text | shared, vision_config=vision | shared, projection_dim=shared["projection_dim"]))  # fmt: skip


def _clip(equal: bool, small: bool, backwards: bool = False) -> Two:
    def ids() -> Any:
        row = tokens(28, 8)
        row[:, -1] = 29
        return row

    def ours(model: Any) -> Any:
        found = model(image(16), ids())
        return found["image_features"] + 2 * found["text_features"]

    def theirs(model: Any) -> Any:
        found = model(input_ids=ids(), pixel_values=image(16))
        return found.image_embeds + 2 * found.text_embeds

    sides = [(open_clip_model(small, equal), ours), (hf_clip(small, equal), theirs)]
    (source, ask), (target, ask_target) = reversed(sides) if backwards else sides
    return Two(
        source, target, ["open_clip-to-hf-clip"], is_backwards=backwards, ask=ask, ask_target=ask_target,
        missing=["attn_mask"], rel=5e-5,
    )  # fmt: skip


@pair("open_clip ViT-B-32 to Hugging Face", "open_clip", "transformers")
def clip(small: bool) -> Two:
    return _clip(False, small)


@pair("Hugging Face CLIP to open_clip", "open_clip", "transformers")
def clip_back(small: bool) -> Two:
    return _clip(False, small, backwards=True)


@pair("open_clip to Hugging Face, both towers alike", "open_clip", "transformers")
def clip_equal(small: bool) -> Two:
    return _clip(True, small)


variant("open_clip to Hugging Face, both towers alike, sorted", "open_clip to Hugging Face, both towers alike",
        both_sorted)  # fmt: skip
variant("open_clip to Hugging Face, both towers alike, target shuffled",
        "open_clip to Hugging Face, both towers alike", shuffled)  # fmt: skip


# ---------------------------------------------------------------------------------------------- nothing in common


@pair("unrelated: GPT-2 and resnet50", "transformers", "torchvision")
def unrelated_kinds(small: bool) -> Two:
    import torchvision

    return Two(gpt2(False), torchvision.models.resnet50(), None)


@pair("unrelated: GPT-2 and vit_b_16, of equal width", "transformers", "torchvision")
def unrelated_widths(small: bool) -> Two:
    import torchvision

    return Two(gpt2(False), torchvision.models.vit_b_16(), None)


@pair("unrelated: BERT and Llama", "transformers")
def unrelated_texts(small: bool) -> Two:
    return Two(bert(False), llama(False), None)
