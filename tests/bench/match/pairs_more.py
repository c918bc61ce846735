"""More pairs, written without a look at the matcher: they tell whether it has learned the others by heart."""

from __future__ import annotations

from typing import Any

from tests.bench.match.pairs import State, Two, both_sorted, image, pair, renamed, shuffled, variant
from tests.bench.match.pairs_hand import chain, rows
from tests.bench.match.pairs_text import bert, gpt2, last_hidden, transformers
from tests.bench.match.pairs_timm import hf_vit, timm_convnext, timm_swin


@pair("regnet_y_400mf to timm", "torchvision", "timm")
def regnet(small: bool) -> Two:
    import timm
    import torch
    import torchvision

    rules = [
        "stem.{n=0|1}.{p*} -> stem.{n=conv|bn}.{p*}",
        *(
            f"trunk_output.block{s}.block{s}-{{b}}.f.{{x=a|b|c}}.{{n=0|1}}.{{p*}}"
            f" -> s{s}.b{{b+1}}.{{x=conv1|conv2|conv3}}.{{n=conv|bn}}.{{p*}}"
            for s in range(1, 5)
        ),
        *(f"trunk_output.block{s}.block{s}-{{b}}.f.se.{{k**}} -> s{s}.b{{b+1}}.se.{{k**}}" for s in range(1, 5)),
        *(
            f"trunk_output.block{s}.block{s}-{{b}}.proj.{{n=0|1}}.{{p*}}"
            f" -> s{s}.b{{b+1}}.downsample.{{n=conv|bn}}.{{p*}}"
            for s in range(1, 5)
        ),
        "fc.{p*} -> head.fc.{p*}",
    ]
    with torch.device("cpu"):  # both compute their widths with tensors
        source, target = torchvision.models.regnet_y_400mf(), timm.create_model("regnety_004")
    return Two(source, target, rules, ask=lambda m: m(image(64)))


@pair("ViT into one with LayerScale", "timm")
def layer_scale(small: bool) -> Two:
    import timm

    sizes: dict[str, Any] = {"img_size": 32, "depth": 2, "embed_dim": 32, "num_heads": 2} if small else {}
    name = "vit_base_patch16_224"
    return Two(
        timm.create_model(name, **sizes), timm.create_model(name, init_values=1.0, num_classes=10, **sizes), [
            "head.{p*} -> !"], missing=["head.*", "*.ls1.gamma", "*.ls2.gamma"],
        ask=lambda m: m.forward_features(image()),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- language


@pair("BERT to DistilBERT's names", "transformers")
def distilbert(small: bool) -> Two:
    import torch

    package = transformers()
    layers = 2 if small else 6
    sizes = {"vocab_size": 30, "dim": 16, "hidden_dim": 20, "n_heads": 2} if small else {}
    target = package.DistilBertModel(package.DistilBertConfig(n_layers=layers, **sizes))
    source = bert(small) if small else bert(False, num_hidden_layers=6)
    layer = "encoder.layer.{i}.attention.self.{x=query|key|value}"
    rules = [
        "embeddings.token_type_embeddings.weight -> !",
        "pooler.{k**} -> !",
        f"{layer}.{{p*}} -> transformer.layer.{{i}}.attention.{{x=q_lin|k_lin|v_lin}}.{{p*}}",
        "encoder.layer.{i}.attention.output.dense.{p*} -> transformer.layer.{i}.attention.out_lin.{p*}",
        "encoder.layer.{i}.attention.output.LayerNorm.{p*} -> transformer.layer.{i}.sa_layer_norm.{p*}",
        "encoder.layer.{i}.intermediate.dense.{p*} -> transformer.layer.{i}.ffn.lin1.{p*}",
        "encoder.layer.{i}.output.dense.{p*} -> transformer.layer.{i}.ffn.lin2.{p*}",
        "encoder.layer.{i}.output.LayerNorm.{p*} -> transformer.layer.{i}.output_layer_norm.{p*}",
    ]

    def ask(model: Any) -> Any:
        with torch.no_grad():
            model.embeddings.token_type_embeddings.weight.zero_()  # the target has none
        return last_hidden(model)

    return Two(source, target, rules, ask=ask, ask_target=last_hidden)


@pair("fairseq's RoBERTa to Hugging Face", "transformers")
def roberta(small: bool) -> Two:
    """The source's names are those that transformers' script reads; the model is the target's own."""
    package = transformers()
    sizes: dict[str, Any] = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 20} if small else {"vocab_size": 50265, "max_position_embeddings": 514}  # fmt: skip
    model = package.RobertaForMaskedLM(package.RobertaConfig(**sizes))
    there, here = "roberta.encoder.layer.{i}.", "decoder.sentence_encoder.layers.{i}."
    names = [
        f"{there}attention.self.{{x=query|key|value}}.{{p*}} -> {here}self_attn.{{x=q_proj|k_proj|v_proj}}.{{p*}}",
        f"{there}attention.output.dense.{{p*}} -> {here}self_attn.out_proj.{{p*}}",
        f"{there}attention.output.LayerNorm.{{p*}} -> {here}self_attn_layer_norm.{{p*}}",
        f"{there}intermediate.dense.{{p*}} -> {here}fc1.{{p*}}",
        f"{there}output.dense.{{p*}} -> {here}fc2.{{p*}}",
        f"{there}output.LayerNorm.{{p*}} -> {here}final_layer_norm.{{p*}}",
        "roberta.embeddings.word_embeddings.weight -> decoder.sentence_encoder.embed_tokens.weight",
        "roberta.embeddings.position_embeddings.weight -> decoder.sentence_encoder.embed_positions.weight",
        "roberta.embeddings.LayerNorm.{p*} -> decoder.sentence_encoder.emb_layer_norm.{p*}",
        "lm_head.decoder.weight -> decoder.lm_head.weight",
        "lm_head.bias -> decoder.lm_head.bias",
        "lm_head.dense.{p*} -> decoder.lm_head.dense.{p*}",
        "lm_head.layer_norm.{p*} -> decoder.lm_head.layer_norm.{p*}",
    ]

    def fairseq(state: State) -> State:
        """k, v, q, out; in fairseq the norms stand behind what they follow."""
        dropped = {k: v for k, v in state.items() if "token_type" not in k and k != "lm_head.decoder.bias"}
        found = renamed(names)(dropped)
        rank = ["k_proj", "v_proj", "q_proj", "out_proj", "self_attn_layer_norm", "fc1", "fc2", "final_layer_norm"]

        def place(key: str) -> tuple[int, int, int]:
            parts = key.split(".")
            if "layers" in parts:
                return 1, int(parts[3]), rank.index(parts[-2])
            return (2 if "lm_head" in key else 0), 0, 0

        return {key: found[key] for key in sorted(found, key=place)}

    rules = [" -> ".join(reversed(name.split(" -> "))) for name in names]
    rules = [f"{rule}, lm_head.decoder.bias" if rule.endswith(" lm_head.bias") else rule for rule in rules]  # tied
    return Two(
        model, model, rules, source_file=fairseq, missing=["*token_type_embeddings.weight"], undecided=["lm_head.bias"],
        proof="transformers' script",
    )  # fmt: skip


@pair("GPT-2 in OpenAI's TensorFlow names", "transformers")
def gpt2_tensorflow(small: bool) -> Two:
    """Kernels are [1, in, out] there, and the names have no dot: model/h0/attn/c_attn/w."""
    leaf = "{p=weight|bias}"
    names = [
        "h.{i}.attn.{c=c_attn|c_proj}." + leaf + " -> model/h{i}/attn/{c}/{p=w|b}",
        "h.{i}.mlp.{c=c_fc|c_proj}." + leaf + " -> model/h{i}/mlp/{c}/{p=w|b}",
        "h.{i}.{n=ln_1|ln_2}." + leaf + " -> model/h{i}/{n}/{p=g|b}",
        "ln_f." + leaf + " -> model/ln_f/{p=g|b}",
        "{e=wte|wpe}.weight -> model/{e}",
    ]

    def openai(state: State) -> State:
        found = renamed(names)(state)
        return {key: found[key][None] if key.endswith("/w") else found[key] for key in sorted(found)}

    rules = [
        "model/h{i}/attn/{c=c_attn|c_proj}/w -> h.{i}.attn.{c}.weight | 1 i o -> i o",
        "model/h{i}/attn/{c=c_attn|c_proj}/b -> h.{i}.attn.{c}.bias",
        "model/h{i}/mlp/{c=c_fc|c_proj}/w -> h.{i}.mlp.{c}.weight | 1 i o -> i o",
        "model/h{i}/mlp/{c=c_fc|c_proj}/b -> h.{i}.mlp.{c}.bias",
        "model/h{i}/{n=ln_1|ln_2}/{p=g|b} -> h.{i}.{n}.{p=weight|bias}",
        "model/ln_f/{p=g|b} -> ln_f.{p=weight|bias}",
        "model/{e=wte|wpe} -> {e}.weight",
    ]
    model = [gpt2(small, "GPT2Model") for _ in range(2)]
    return Two(model[0], model[1], rules, source_file=openai, ask=lambda m: last_hidden(m))


# ---------------------------------------------------------------------------------------------- small ones


@pair("an LSTM to a stack of LSTMCells")
def lstm(small: bool) -> Two:
    import torch
    from torch import nn

    class Cells(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.ModuleList(nn.LSTMCell(32, 32) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for cell in self.cells:
                state = None
                steps = []
                for step in x.unbind(1):
                    state = cell(step, state)
                    steps.append(state[0])
                x = torch.stack(steps, 1)
            return x

    source = nn.ModuleDict({"rnn": nn.LSTM(32, 32, 3, batch_first=True)})
    rules = ["rnn.{w=weight|bias}_{x=ih|hh}_l{i} -> cells.{i}.{w}_{x}"]
    return Two(source, Cells(), rules, ask=lambda m: m["rnn"](rows())[0], ask_target=lambda m: m(rows()))


@pair("a list of layers that gained one of another shape in the middle")
def yolo(small: bool) -> Two:
    """As in detectors written as lists: everything behind the new layer counts one more."""
    import torch
    from torch import nn

    def block(a: int, b: int, kernel: int = 3) -> Any:
        return nn.ModuleDict(
            {"conv": nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=False), "bn": nn.BatchNorm2d(b)}
        )

    sizes = [(3, 16), (16, 32), (32, 32), (32, 32), (32, 64), (64, 64), (64, 64)]
    source = nn.ModuleDict({"model": nn.ModuleList(block(*size) for size in sizes)})
    inserted = block(32, 32, 1)  # 1 x 1: no other layer has this shape
    with torch.no_grad():
        inserted["conv"].weight.copy_(torch.eye(32)[:, :, None, None])
    target = nn.ModuleDict({"model": nn.ModuleList([*(block(*s) for s in sizes[:3]), inserted, *(block(*s) for s in
                                                    sizes[3:])])})  # fmt: skip

    def ask(model: Any) -> Any:
        x = image()
        for one in model["model"]:
            x = one["bn"](one["conv"](x))
        return x

    rules = ["model.{i=0|1|2}.{k**} -> model.{i}.{k**}", "model.{i}.{k**} -> model.{i+1}.{k**}"]
    return Two(source, target, rules, missing=["model.3.*"], ask=ask, rel=1e-3)


@pair("a file with raw and averaged weights")
def averaged(small: bool) -> Two:
    """`model.` and `model_ema.` are alike; a match is the raw one or nothing, no miss."""
    from torch import nn

    nets = {"model": chain([16, 16, 32]), "model_ema": chain([16, 16, 32])}
    return Two(
        nn.ModuleDict(nets), chain([16, 16, 32]), ["model_ema.{k**} -> !", "---", "model. ->"], undecided=["*"],
        ask=lambda m: m["model"](image()), ask_target=lambda m: m(image()),
    )  # fmt: skip


variant("a list of layers that gained one, sorted",
        "a list of layers that gained one of another shape in the middle", both_sorted)  # fmt: skip
variant("an LSTM to a stack of LSTMCells, shuffled", "an LSTM to a stack of LSTMCells", shuffled)


# ---------------------------------------------------------------------------------------------- nothing in common


@pair("unrelated: Swin and ConvNeXt, of equal widths", "timm")
def unrelated_stages(small: bool) -> Two:
    return Two(timm_swin(False), timm_convnext(False), None)


@pair("unrelated: BERT and ViT, of equal width and depth", "transformers")
def unrelated_towers(small: bool) -> Two:
    return Two(bert(False), hf_vit(False), None)


@pair("unrelated: Whisper and BERT", "transformers")
def unrelated_sounds(small: bool) -> Two:
    package = transformers()
    return Two(package.WhisperForConditionalGeneration(package.WhisperConfig()), bert(False), None)
