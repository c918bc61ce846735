"""Pairs of BERT and GPT-2 in several spellings."""

from __future__ import annotations

from typing import Any

from tests.bench.match.pairs import (
    State,
    Two,
    headers_only,
    pair,
    renamed,
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
