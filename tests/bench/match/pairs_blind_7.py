"""Blind pairs: mechanical renamings."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from tests.bench.match.blind import Net, Two, pair, renamed, state

PROOF = "a mechanical renaming of the same model"


def by(source: Any, target: Any, name_of: Any) -> Two:
    """The target's tensors under other names are the source."""
    rules = [f"{key} -> {name_of(key)}" for key in state(source)]
    return Two(source, target, rules, proof=PROOF)


def named(model: Any, name_of: Any) -> Net:
    """A listing under other names."""
    found = Net()
    for key, tensor in state(model).items():
        name = name_of(key)
        assert name not in found, name
        found[name] = tensor
    return found


def table_of(swaps: list[Any]) -> Any:
    """A function of a table."""
    return lambda key: renamed(key, swaps)


@pair("blind, renamed: ResNet-50 flattened with underscores, sorted", "torchvision")
def flat_resnet(small: bool) -> Two:
    """layer1_0_downsample_0_weight."""
    import torchvision

    model = torchvision.models.resnet50()
    flat = named(model, lambda key: "net_" + key.replace(".", "_"))
    source = Net()
    for key in sorted(flat):
        source[key] = flat[key]
    rules = [f"net_{key.replace('.', '_')} -> {key}" for key in state(model)]
    return Two(source, model, rules, proof=PROOF)


@pair("blind, renamed: BERT in camelCase", "transformers")
def camel_bert(small: bool) -> Two:
    """encoderLayer.layer3.attentionOutput.layerNorm.gamma."""
    import transformers

    model = transformers.BertModel(transformers.BertConfig())
    table: list[Any] = [
        (r"embeddings\.(word|position|token_type)_embeddings", r"embeddings.\1_table"),
        (r"encoder\.layer\.(\d+)", r"encoderStack.layer\1"),
        (r"attention\.self\.(\w+)", r"self_attention.\1_dense"),
        (r"attention\.output", "attention_output"),
        (r"(intermediate|output)\.dense", r"\1_dense"),
        (r"output\.LayerNorm", "output_norm"),
        (r"LayerNorm", "layer_norm"),
        (r"(norm)\.weight", r"\1.gamma"),
        (r"(norm)\.bias", r"\1.beta"),
        (r"\.weight", ".kernel"),
        (r"_(\w)", lambda m: m[1].upper()),
    ]
    return by(model, named(model, table_of(table)), table_of(table))


@pair("blind, renamed: a ViT in pinyin: zhuyili, guiyi, quanlianjie", "timm")
def pinyin_vit(small: bool) -> Two:
    """Attention, normalization, fully connected, embedding, classification; abbreviated where it is long."""
    import timm

    model = timm.create_model("vit_base_patch16_224")
    table: list[Any] = [
        (r"^cls_token", "leibie_token"),
        (r"^pos_embed", "weizhi_qianru"),
        (r"^patch_embed\.proj", "tukuai_qianru.juanji"),
        (r"^blocks\.", "mokuai."),
        (r"\.norm1", ".gyh1"),
        (r"\.norm2", ".gyh2"),
        (r"^norm\.", "zuihou_gyh."),
        (r"\.attn\.qkv", ".zhuyili.cjz"),
        (r"\.attn\.proj", ".zhuyili.touying"),
        (r"\.mlp\.fc1", ".ganzhiji.qlj1"),
        (r"\.mlp\.fc2", ".ganzhiji.qlj2"),
        (r"^head\.", "fenlei_tou."),
        (r"weight$", "quanzhong"),
        (r"bias$", "pianzhi"),
    ]
    return by(model, named(model, table_of(table)), table_of(table))


@pair("blind, renamed: MobileNetV3 in counters: conv2d_12, depthwise_conv2d_3, batch_normalization_5", "timm")
def counted(small: bool) -> Two:
    """Counted in the order of the model, squeeze and excitation among the rest."""
    import timm

    model = timm.create_model("mobilenetv3_large_100")
    count: Counter[str] = Counter()
    names: dict[str, str] = {}
    target = Net()
    tails = {"running_mean": "moving_mean", "running_var": "moving_variance", "num_batches_tracked": "steps"}
    rules = []
    for key, tensor in state(model).items():
        module, tail = key.rsplit(".", 1)
        is_norm = "bn" in module
        if module not in names:
            kind = "batch_normalization" if is_norm else "dense" if "classifier" in module else \
                "depthwise_conv2d" if "conv_dw" in module else "conv2d"  # fmt: skip
            names[module] = kind + (f"_{count[kind]}" if count[kind] else "")
            count[kind] += 1
        word = tails.get(tail) or ({"weight": "gamma", "bias": "beta"} if is_norm else {"weight": "kernel"}).get(
            tail, tail
        )
        target[f"{names[module]}.{word}"] = tensor
        rules.append(f"{key} -> {names[module]}.{word}")
    return Two(model, target, rules, proof=PROOF)


@pair("blind, renamed: GoogLeNet as Sequentials of Sequentials: every child is its number", "torchvision")
def numbered(small: bool) -> Two:
    """inception3a.branch2.0.conv is 5.1.0.0."""
    import torchvision

    model = torchvision.models.googlenet(aux_logits=False, init_weights=False)
    places: dict[str, str] = {}

    def walk(module: Any, here: str, there: str) -> None:
        for number, (name, child) in enumerate(module.named_children()):
            path, place = (f"{here}.{name}" if here else name), (f"{there}.{number}" if there else str(number))
            places[path] = place
            walk(child, path, place)

    walk(model, "", "")

    def name_of(key: str) -> str:
        module, tail = key.rsplit(".", 1)
        return f"{places[module]}.{tail}"

    return by(model, named(model, name_of), name_of)


@pair("blind, renamed: T5 in initials: e.b03.sa.q", "transformers")
def short_t5(small: bool) -> Two:
    """d.b03.ca.q is the decoder's cross attention; ff.n is its norm."""
    import transformers

    config = transformers.T5Config(num_layers=6, d_model=512, d_ff=2048, num_heads=8, d_kv=64)
    model = transformers.T5Model(config)
    source = {key: tensor for key, tensor in state(model).items() if "embed_tokens" not in key}
    table: list[Any] = [
        (r"^shared", "emb"),
        (r"^(e|d)n?e?coder\.block\.(\d+)\.", lambda m: f"{m[1]}.b{int(m[2]):02}."),
        (r"^(e|d)n?e?coder\.final_layer_norm", r"\1.n"),
        (r"layer\.0\.SelfAttention\.", "sa."),
        (r"layer\.1\.EncDecAttention\.", "ca."),
        (r"layer\.\d\.DenseReluDense\.w", "ff."),
        (r"^(e.*)layer\.0\.layer_norm", r"\1sa.n"),
        (r"^(e.*)layer\.1\.layer_norm", r"\1ff.n"),
        (r"^(d.*)layer\.0\.layer_norm", r"\1sa.n"),
        (r"^(d.*)layer\.1\.layer_norm", r"\1ca.n"),
        (r"^(d.*)layer\.2\.layer_norm", r"\1ff.n"),
        (r"relative_attention_bias", "rel"),
        (r"\.weight$", ".w"),
    ]
    return by(source, named(source, table_of(table)), table_of(table))


@pair("blind, renamed: GPT-NeoX in capitals: L05_ATT_QKV_W", "transformers")
def capitals(small: bool) -> Two:
    """No dots, zero-padded layers."""
    import transformers

    config = transformers.GPTNeoXConfig(vocab_size=50304, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                                        num_attention_heads=12)  # fmt: skip
    model = transformers.GPTNeoXForCausalLM(config)
    table: list[Any] = [
        (r"^gpt_neox\.", ""),
        (r"^layers\.(\d+)\.", lambda m: f"L{int(m[1]):02}_"),
        (r"embed_in", "TOK_EMB"),
        (r"embed_out", "HEAD"),
        (r"final_layer_norm", "FINAL_LN"),
        (r"input_layernorm", "LN1"),
        (r"post_attention_layernorm", "LN2"),
        (r"attention\.query_key_value", "ATT_QKV"),
        (r"attention\.dense", "ATT_OUT"),
        (r"mlp\.dense_h_to_4h", "FF_UP"),
        (r"mlp\.dense_4h_to_h", "FF_DOWN"),
        (r"\.weight", "_W"),
        (r"\.bias", "_B"),
    ]
    source = {key: tensor for key, tensor in state(model).items() if "rotary" not in key}
    return by(source, named(source, table_of(table)), table_of(table))


@pair("blind, renamed: Whisper in Spanish: codificador, capas, consulta, clave", "transformers")
def spanish(small: bool) -> Two:
    """atencion_cruzada stands between atencion and densa."""
    import transformers

    config = transformers.WhisperConfig(d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
                                        decoder_attention_heads=8,
                                        encoder_ffn_dim=2048, decoder_ffn_dim=2048)  # fmt: skip
    model = transformers.WhisperModel(config)
    table: list[Any] = [
        (r"^encoder", "codificador"),
        (r"^decoder", "decodificador"),
        (r"\.layers\.", ".capas."),
        (r"\.layer_norm\.", ".norma_final."),
        (r"\.self_attn_layer_norm", ".norma_atencion"),
        (r"\.encoder_attn_layer_norm", ".norma_cruzada"),
        (r"\.final_layer_norm", ".norma_densa"),
        (r"\.self_attn\.", ".atencion."),
        (r"\.encoder_attn\.", ".atencion_cruzada."),
        (r"q_proj", "consulta"),
        (r"k_proj", "clave"),
        (r"v_proj", "valor"),
        (r"out_proj", "salida"),
        (r"embed_tokens", "tabla_palabras"),
        (r"embed_positions", "tabla_posiciones"),
        (r"fc(\d)", r"densa\1"),
        (r"conv(\d)", r"convolucion\1"),
        (r"weight$", "peso"),
        (r"bias$", "sesgo"),
    ]
    return by(model, named(model, table_of(table)), table_of(table))


@pair("blind, renamed: EfficientNet-B0's blocks counted through, its parts by letters", "torchvision")
def lettered(small: bool) -> Two:
    """features.3.1.block.1.0 is b04.B.w: A expands, B is depthwise, C squeezes, D projects."""
    import torchvision

    model = torchvision.models.efficientnet_b0()
    number, places = 0, {}
    for stage, depth in enumerate((1, 2, 2, 3, 3, 4, 1), 1):
        for block in range(depth):
            places[f"{stage}.{block}"] = number
            number += 1
    letters = {"0": "A", "1": "B", "2": "C", "3": "D"}

    def name_of(key: str) -> str:
        key = re.sub(r"^features\.0\.", "in.", key)
        key = re.sub(r"^features\.8\.", "out.", key)
        key = re.sub(r"^classifier\.1\.", "cls.", key)
        found = re.match(r"features\.(\d\.\d)\.block\.(\d)\.(.*)", key)
        if found:
            part = int(found[2]) + found[1].startswith("1.")
            key = f"b{places[found[1]]:02}.{letters[str(part)]}.{found[3]}"
        key = re.sub(r"\.fc1\.", ".s.", key)
        key = re.sub(r"\.fc2\.", ".e.", key)
        key = re.sub(r"\.0\.weight$", ".k", key)
        key = re.sub(r"\.1\.weight$", ".g", key)
        key = re.sub(r"\.1\.bias$", ".b", key)
        key = re.sub(r"\.1\.running_mean$", ".m", key)
        key = re.sub(r"\.1\.running_var$", ".v", key)
        return re.sub(r"\.1\.num_batches_tracked$", ".n", key)

    return by(model, named(model, name_of), name_of)


@pair("blind, renamed: Gluon's resnet18_v1 to torchvision: counters begin anew in each stage", "torchvision")
def gluon(small: bool) -> Two:
    """stage2_conv2 is the way around of the first block; gammas have running statistics beside them."""
    import torchvision

    target = torchvision.models.resnet18()
    places = {"conv1": "resnetv10_conv0", "bn1": "resnetv10_batchnorm0", "fc": "resnetv10_dense0"}
    for stage in range(1, 5):
        at = 0
        for block in range(2):
            parts = [("conv1", "bn1"), ("conv2", "bn2")]
            if stage > 1 and not block:
                parts.append(("downsample.0", "downsample.1"))
            for conv, norm in parts:
                places[f"layer{stage}.{block}.{conv}"] = f"resnetv10_stage{stage}_conv{at}"
                places[f"layer{stage}.{block}.{norm}"] = f"resnetv10_stage{stage}_batchnorm{at}"
                at += 1
    source, rules = Net(), []
    for key, tensor in state(target).items():
        module, tail = key.rsplit(".", 1)
        if tail == "num_batches_tracked":
            continue
        if "batchnorm" in places[module]:
            tail = {"weight": "gamma", "bias": "beta"}.get(tail, tail)
        source[f"{places[module]}_{tail}"] = tensor
        rules.append(f"{places[module]}_{tail} -> {key}")
    return Two(source, target, rules, missing=["*.num_batches_tracked"],
               proof="code of both sides: gluon.model_zoo's BasicBlockV1 and torchvision's BasicBlock")  # fmt: skip
