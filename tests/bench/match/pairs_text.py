"""Pairs of language and audio models, and CLIP: transformers, peft, open_clip, and files that have no package here."""

from __future__ import annotations

from typing import Any

from tests.bench.match.pairs import (
    State,
    Two,
    both_sorted,
    headers_only,
    image,
    pair,
    renamed,
    shuffled,
    sorted_keys,
    tokens,
    variant,
)


def transformers() -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    return transformers


# ---------------------------------------------------------------------------------------------- BERT


def bert(small: bool, kind: str = "BertModel", **more: Any) -> Any:
    package = transformers()
    sizes: dict[str, Any] = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 20}  # fmt: skip
    return getattr(package, kind)(package.BertConfig(**(sizes if small else {}), **more))


def last_hidden(model: Any) -> Any:
    return model(tokens()).last_hidden_state


@pair("BERT with gamma and beta", "transformers")
def bert_gamma(small: bool) -> Two:
    old = renamed([".LayerNorm.{p=weight|bias} -> .LayerNorm.{p=gamma|beta}"])
    return Two(bert(small), bert(small), ["bert-gamma-beta"], source_file=old, ask=last_hidden)


@pair("BERT in Flax's names: kernel, scale, embedding", "transformers")
def bert_flax(small: bool) -> Two:
    names = [
        "?{m**}.LayerNorm.weight -> {m**}.LayerNorm.scale",
        "embeddings.{w*}.weight -> embeddings.{w}.embedding",
        "{m**}.weight -> {m**}.kernel",
    ]

    def flax(state: State) -> State:
        changed = renamed(names)(state)
        return {key: tensor.T.contiguous() if key.endswith("kernel") else tensor for key, tensor in changed.items()}

    rules = [
        "{m**}.LayerNorm.scale -> {m**}.LayerNorm.weight",
        "{m**}.embedding -> {m**}.weight",
        "{m**}.kernel -> {m**}.weight | i o -> o i",
    ]
    return Two(bert(small), bert(small), rules, source_file=flax, ask=last_hidden)


@pair("BertModel into BertForSequenceClassification", "transformers")
def bert_classifier(small: bool) -> Two:
    return Two(
        bert(small), bert(small, "BertForSequenceClassification", num_labels=3), ["{k**} -> bert.{k**}"],
        missing=["classifier.*"], ask=last_hidden, ask_target=lambda m: last_hidden(m.bert),
    )  # fmt: skip


@pair("BertForPreTraining to BertModel", "transformers")
def bert_pretrained(small: bool) -> Two:
    return Two(
        bert(small, "BertForPreTraining"), bert(small), ["bert. ->"], ask=lambda m: last_hidden(m.bert),
        ask_target=last_hidden,
    )  # fmt: skip


variant("BertForPreTraining to BertModel, sorted", "BertForPreTraining to BertModel", sorted_keys)
variant("BERT in Flax's names, sorted", "BERT in Flax's names: kernel, scale, embedding", sorted_keys)


# ---------------------------------------------------------------------------------------------- GPT-2


def gpt2(small: bool, kind: str = "GPT2LMHeadModel") -> Any:
    package = transformers()
    return getattr(package, kind)(package.GPT2Config(**gpt2_sizes(small)))


def gpt2_sizes(small: bool) -> dict[str, Any]:
    return {"vocab_size": 50, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 4, "bos_token_id": 0,
            "eos_token_id": 0} if small else {}  # fmt: skip


@pair("GPT-2 to GPTBigCode: Conv1D to Linear, heads interleaved", "transformers")
def gpt2_to_bigcode(small: bool) -> Two:
    package = transformers()
    config = package.GPTBigCodeConfig(**gpt2_sizes(small), multi_query=False, activation_function="gelu_new")
    return Two(
        gpt2(small), package.GPTBigCodeForCausalLM(config), ["gpt2-to-gptbigcode"], vars={"h": 4 if small else 12},
        hidden=["*.c_attn.*"], ask=lambda m: m(tokens()).logits,
    )  # fmt: skip


@pair("GPT-2 to nanoGPT: the same names, transposed, square ones too", "transformers")
def gpt2_to_nano(small: bool) -> Two:
    rules = ["{m**}.{c=c_attn|c_proj|c_fc}.weight -> {m**}.{c}.weight | i o -> o i"]
    return Two(gpt2(small), nano_gpt(small), rules, ask=lambda m: m(tokens()).logits, ask_target=lambda m: m(tokens()))


@pair("GPT2Model into GPT2LMHeadModel", "transformers")
def gpt2_prefix(small: bool) -> Two:
    rules = ["wte.weight -> transformer.wte.weight, lm_head.weight", "{k**} -> transformer.{k**}"]
    return Two(
        gpt2(small, "GPT2Model"), gpt2(small), rules, undecided=["*.wte.weight", "lm_head.weight"], ask=last_hidden,
        ask_target=lambda m: last_hidden(m.transformer),
    )  # fmt: skip


def nano_gpt(small: bool) -> Any:
    """GPT-2 as nanoGPT writes it, with Linear."""
    import torch
    from torch import nn
    from torch.nn import functional

    width, heads, layers, vocabulary, length = (24, 4, 2, 50, 16) if small else (768, 12, 12, 50257, 1024)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (h.unflatten(-1, (heads, -1)).transpose(1, 2) for h in self.c_attn(x).chunk(3, -1))
            found = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.c_proj(found.transpose(1, 2).flatten(2))

    class MLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c_proj(functional.gelu(self.c_fc(x), approximate="tanh"))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.attn = nn.LayerNorm(width), Attention()
            self.ln_2, self.mlp = nn.LayerNorm(width), MLP()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = nn.ModuleDict({
                "wte": nn.Embedding(vocabulary, width), "wpe": nn.Embedding(length, width),
                "h": nn.ModuleList(Block() for _ in range(layers)), "ln_f": nn.LayerNorm(width),
            })  # fmt: skip
            self.lm_head = nn.Linear(width, vocabulary, bias=False)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            parts = self.transformer
            x = parts["wte"](ids) + parts["wpe"](torch.arange(ids.shape[1]))
            for block in parts["h"]:
                x = block(x)
            return self.lm_head(parts["ln_f"](x))

    return GPT()


variant("GPT-2 to nanoGPT, headers only", "GPT-2 to nanoGPT: the same names, transposed, square ones too", headers_only)


# ---------------------------------------------------------------------------------------------- Llama and its like


def llama_sizes(small: bool) -> dict[str, Any]:
    if small:
        return {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
                "max_position_embeddings": 64, "pad_token_id": 0}  # fmt: skip
    return {"vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
            "num_attention_heads": 32, "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048,
            "pad_token_id": 0}  # fmt: skip


def llama(small: bool, kind: str = "Llama") -> Any:
    package = transformers()
    return getattr(package, f"{kind}ForCausalLM")(getattr(package, f"{kind}Config")(**llama_sizes(small)))


def logits(model: Any) -> Any:
    return model(tokens()).logits


META = [
    "layers.{l}.attention.wq.weight -> model.layers.{l}.self_attn.q_proj.weight | (h d two) i -> (h two d) i",
    "layers.{l}.attention.wk.weight -> model.layers.{l}.self_attn.k_proj.weight | (kv d two) i -> (kv two d) i",
    "layers.{l}.attention.w{x=v|o}.weight -> model.layers.{l}.self_attn.{x}_proj.weight",
    "layers.{l}.feed_forward.w{n=1|2|3}.weight -> model.layers.{l}.mlp.{n=gate|down|up}_proj.weight",
    "layers.{l}.attention_norm.weight -> model.layers.{l}.input_layernorm.weight",
    "layers.{l}.ffn_norm.weight -> model.layers.{l}.post_attention_layernorm.weight",
    "tok_embeddings.weight -> model.embed_tokens.weight",
    "norm.weight -> model.norm.weight",
    "output.weight -> lm_head.weight",
]


@pair("Meta Llama to Hugging Face", "transformers")
def meta_llama(small: bool) -> Two:
    """The file is the model's own, renamed backwards; that the recipe is right is proven in `test_conversions_text`."""
    model = llama(small)
    sizes = llama_sizes(small)
    file = _meta_order(renamed_back(META, model.state_dict()))
    return Two(
        file, model, META, vars={"h": sizes["num_attention_heads"], "kv": sizes["num_key_value_heads"], "two": 2},
        hidden=["*.q_proj.weight", "*.k_proj.weight"], proof="test_conversions_text.test_meta_llama_in_transformers",
    )  # fmt: skip


def renamed_back(rules: list[str], state: State) -> State:
    """The names before some one-to-one rules; tensors as they are (for specs only)."""
    from ckptool.recipes.recipe import parse_recipe
    from ckptool.recipes.reverse import reverse

    plain = [rule.partition(" | ")[0] for rule in rules]
    backwards = reverse(parse_recipe(plain)).recipe
    return renamed([rule.text for rule in backwards.rules])(state)


def _meta_order(state: State) -> State:
    """As Meta's files have it: the embedding, the norm and the output first, then wq wk wv wo w1 w2 w3, the norms."""
    order = ["wq", "wk", "wv", "wo", "w1", "w2", "w3", "attention_norm", "ffn_norm"]
    first = ["tok_embeddings.weight", "norm.weight", "output.weight"]

    def place(key: str) -> tuple[int, int]:
        parts = key.split(".")
        return (-1, first.index(key)) if key in first else (int(parts[1]), order.index(parts[-2]))

    return {key: state[key] for key in sorted(state, key=place)}


@pair("Llama to Phi-3: qkv and gate-up fused", "transformers")
def llama_to_phi(small: bool) -> Two:
    layer = "model.layers.{l}."
    rules = [
        f"{layer}self_attn.q_proj.weight, {layer}self_attn.k_proj.weight, {layer}self_attn.v_proj.weight"
        f" -> {layer}self_attn.qkv_proj.weight | a i, b i, c i -> (a + b + c) i",
        f"{layer}mlp.gate_proj.weight, {layer}mlp.up_proj.weight -> {layer}mlp.gate_up_proj.weight"
        " | a i, b i -> (a + b) i",
    ]
    return Two(llama(small), llama(small, "Phi3"), rules, ask=logits)


@pair("Phi-3 to Llama: qkv and gate-up split", "transformers")
def phi_to_llama(small: bool) -> Two:
    there = llama_to_phi(small)
    sizes = llama_sizes(small)
    width = sizes["hidden_size"]
    narrow = width * sizes["num_key_value_heads"] // sizes["num_attention_heads"]
    layer = "model.layers.{l}."
    rules = [
        f"{layer}self_attn.qkv_proj.weight -> {layer}self_attn.q_proj.weight, {layer}self_attn.k_proj.weight,"
        f" {layer}self_attn.v_proj.weight | (a + b + c) i -> a i, b i, c i",
        f"{layer}mlp.gate_up_proj.weight -> {layer}mlp.gate_proj.weight, {layer}mlp.up_proj.weight"
        " | (m + n) i -> m i, n i",
    ]
    vars = {"a": width, "b": narrow, "c": narrow, "m": sizes["intermediate_size"]}
    return Two(there.target, there.source, rules, vars=vars, ask=logits)


@pair("Llama to LitGPT's names", "transformers")
def llama_to_litgpt(small: bool) -> Two:
    """LitGPT has no package here: its `convert_hf_checkpoint.py` says the names; qkv is fused."""
    import torch

    sizes = llama_sizes(small)
    narrow = sizes["hidden_size"] * sizes["num_key_value_heads"] // sizes["num_attention_heads"]
    from_, to = "model.layers.{l}.", "transformer.h.{l}."
    rules = [
        f"{from_}self_attn.q_proj.weight, {from_}self_attn.k_proj.weight, {from_}self_attn.v_proj.weight"
        f" -> {to}attn.qkv.weight | a i, b i, c i -> (a + b + c) i",
        f"{from_}self_attn.o_proj.weight -> {to}attn.proj.weight",
        f"{from_}input_layernorm.weight -> {to}norm_1.weight",
        f"{from_}post_attention_layernorm.weight -> {to}norm_2.weight",
        f"{from_}mlp.{{n=gate|up|down}}_proj.weight -> {to}mlp.{{n=fc_1|fc_2|proj}}.weight",
        "model.embed_tokens.weight -> transformer.wte.weight",
        "model.norm.weight -> transformer.ln_f.weight",
    ]
    model = llama(small)
    width, middle, words = sizes["hidden_size"], sizes["intermediate_size"], sizes["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"lm_head.weight": (words, width), "transformer.wte.weight": (words, width)}
    for layer in range(sizes["num_hidden_layers"]):
        for name, shape in {
            "norm_1": (width,), "attn.qkv": (width + 2 * narrow, width), "attn.proj": (width, width),
            "norm_2": (width,), "mlp.fc_1": (middle, width), "mlp.fc_2": (middle, width), "mlp.proj": (width, middle),
        }.items():  # fmt: skip
            shapes[f"transformer.h.{layer}.{name}.weight"] = shape
    shapes["transformer.ln_f.weight"] = (width,)
    target = {key: torch.empty(shape) for key, shape in shapes.items()}
    return Two(model, target, rules, proof="LitGPT's script")


def mixtral(small: bool) -> Any:
    package = transformers()
    sizes = llama_sizes(True) | {"num_local_experts": 11, "hidden_size": 32 if small else 128}
    return package.MixtralForCausalLM(package.MixtralConfig(**sizes))


def per_expert(state: State) -> State:
    """What `save_pretrained` writes: one tensor per expert, two for gate and up."""
    changed: dict[str, Any] = {}
    for key, tensor in state.items():
        stem = key.partition(".mlp.")[0] + ".block_sparse_moe"
        if key.endswith("gate_up_proj"):
            for expert in range(len(tensor)):
                changed[f"{stem}.experts.{expert}.w1.weight"], changed[f"{stem}.experts.{expert}.w3.weight"] = tensor[
                    expert].chunk(2)  # fmt: skip
        elif key.endswith("experts.down_proj"):
            for expert in range(len(tensor)):
                changed[f"{stem}.experts.{expert}.w2.weight"] = tensor[expert]
        else:
            changed[key.replace(".mlp.gate.", ".block_sparse_moe.gate.")] = tensor
    return changed


@pair("Mixtral, 11 experts: stacked and fused", "transformers")
def mixtral_fuse(small: bool) -> Two:
    return Two(mixtral(small), mixtral(small), ["mixtral-fuse-experts"], source_file=per_expert, ask=logits)


@pair("Mixtral, 11 experts: unstacked", "transformers")
def mixtral_split(small: bool) -> Two:
    return Two(
        mixtral(small), mixtral(small), ["mixtral-fuse-experts"], is_backwards=True, target_file=per_expert,
        proof="test_conversions_text.test_mixtral_experts",
    )  # fmt: skip


variant("Mixtral, 11 experts, sorted", "Mixtral, 11 experts: stacked and fused", both_sorted)
variant("Meta Llama to Hugging Face, target sorted", "Meta Llama to Hugging Face", lambda c: sorted_keys(c, "target"))
variant("Llama to Phi-3, sorted", "Llama to Phi-3: qkv and gate-up fused", both_sorted)


@pair("Llama into its PEFT model", "transformers", "peft")
def lora(small: bool) -> Two:
    import peft

    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    rules = [
        "{m**}.{x=q_proj|v_proj}.weight -> base_model.model.{m**}.{x}.base_layer.weight",
        "{k**} -> base_model.model.{k**}",
    ]
    adapter = ["*.lora_A.*", "*.lora_B.*"]
    return Two(llama(small), peft.get_peft_model(llama(small), config), rules, missing=adapter, ask=logits)


# ---------------------------------------------------------------------------------------------- two towers


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
