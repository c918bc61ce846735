"""Held-out pairs of models that have nothing in common but widths, depths and a few names: nothing may be matched."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from tests.bench.match.pairs import State, Two, pair
from tests.bench.match.pairs_files import vae_state
from tests.bench.match.pairs_hand import encoder
from tests.bench.match.pairs_held_hand import milesial, mlp, unet
from tests.bench.match.pairs_llama import llama_sizes
from tests.bench.match.pairs_text import bert, gpt2, transformers
from tests.bench.match.pairs_timm import timm_vit


@pair("unrelated: timm's ViT and BERT, 768 wide and 12 deep", "timm", "transformers")
def vit_bert(small: bool) -> Two:
    return Two(timm_vit(False), bert(False), None)


@pair("unrelated: Wav2Vec2 and RoBERTa, 768 wide and 12 deep", "transformers")
def wav2vec_roberta(small: bool) -> Two:
    package = transformers()
    return Two(package.Wav2Vec2Model(package.Wav2Vec2Config()), package.RobertaModel(package.RobertaConfig()), None)


@pair("unrelated: Llama and GPT-2, of equal widths, depth and vocabulary", "transformers")
def llama_gpt2(small: bool) -> Two:
    package = transformers()
    sizes = llama_sizes(False) | {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
        "vocab_size": 50257,
    }
    return Two(package.LlamaForCausalLM(package.LlamaConfig(**sizes)), gpt2(False), None)


@pair("unrelated: Mamba and BERT, 768 wide", "transformers")
def mamba_bert(small: bool) -> Two:
    package = transformers()
    return Two(package.MambaForCausalLM(package.MambaConfig(num_hidden_layers=12)), bert(False), None)


@pair("unrelated: T5 and BART, of equal widths and depth", "transformers")
def t5_bart(small: bool) -> Two:
    package = transformers()
    config = package.BartConfig(
        vocab_size=32128, d_model=512, encoder_layers=6, decoder_layers=6, encoder_ffn_dim=2048, decoder_ffn_dim=2048,
        encoder_attention_heads=8, decoder_attention_heads=8,
    )  # fmt: skip
    return Two(package.T5ForConditionalGeneration(package.T5Config()), package.BartModel(config), None)


@pair("unrelated: AlexNet and VGG-16, two equal heads", "torchvision")
def alexnet(small: bool) -> Two:
    """classifier.6 has one name and one shape in both."""
    import torchvision

    return Two(torchvision.models.alexnet(), torchvision.models.vgg16(), None)


@pair("unrelated: GoogLeNet and DenseNet-121, of equal stems and heads", "torchvision")
def googlenet(small: bool) -> Two:
    import torchvision

    return Two(torchvision.models.googlenet(init_weights=False), torchvision.models.densenet121(), None)


@pair("unrelated: ShuffleNet and MobileNet v3, both with conv and bn", "torchvision")
def shufflenet(small: bool) -> Two:
    import torchvision

    return Two(torchvision.models.shufflenet_v2_x1_0(), torchvision.models.mobilenet_v3_small(), None)


@pair("unrelated: resnet50 and a network of other blocks under its names")
def same_names(small: bool) -> Two:
    """conv1, bn1 and fc are called as in a ResNet, and the stem is even as large; the rest is a plain chain."""
    from torch import nn

    def other() -> Any:
        net = nn.ModuleDict({"conv1": nn.Conv2d(3, 64, 7, bias=False), "bn1": nn.BatchNorm2d(64)})
        for at, (a, b) in enumerate([(64, 96), (96, 160), (160, 224)], 2):
            net[f"conv{at}"], net[f"bn{at}"] = nn.Conv2d(a, b, 5, bias=False), nn.BatchNorm2d(b)
        net["fc"] = nn.Linear(224, 10)
        return net

    def resnet() -> State:
        import torch

        shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), "bn1.weight": (64,), "bn1.bias": (64,)}
        for stage, width in enumerate((64, 128, 256, 512), 1):
            for block in range(2):
                before = width if block or stage == 1 else width // 2
                stem = f"layer{stage}.{block}"
                shapes |= {f"{stem}.conv1.weight": (width, before, 3, 3), f"{stem}.conv2.weight": (width, width, 3, 3)}
                shapes |= {f"{stem}.bn{n}.{leaf}": (width,) for n in (1, 2) for leaf in ("weight", "bias")}
        shapes |= {"fc.weight": (1000, 512), "fc.bias": (1000,)}
        return {key: torch.empty(shape) for key, shape in shapes.items()}

    return Two(resnet(), other(), None)


@pair("unrelated: two perceptrons that share a width")
def perceptrons(small: bool) -> Two:
    from torch import nn

    source = nn.ModuleDict({"net": mlp(784, 128, 64, 10)})
    target = nn.ModuleDict({"encoder": mlp(100, 64, 64, 16), "decoder": mlp(16, 64, 64, 100)})
    return Two(source, target, None)


@pair("unrelated: an LSTM and an encoder of one width")
def lstm_encoder(small: bool) -> Two:
    """Four gates make a matrix as large as a feed-forward's."""
    from torch import nn

    source = nn.ModuleDict({"embedding": nn.Embedding(100, 32), "rnn": nn.LSTM(32, 32, 4), "fc": nn.Linear(32, 100)})
    layer = nn.TransformerEncoderLayer(32, 4, 128, batch_first=True)
    target = nn.ModuleDict({
        "position": nn.Embedding(60, 32), "encoder": nn.TransformerEncoder(layer, 4, enable_nested_tensor=False),
        "regression": nn.Linear(32, 1),
    })  # fmt: skip
    return Two(source, target, None)


@pair("unrelated: a U-Net and an autoencoder of equal widths")
def unet_vae(small: bool) -> Two:
    return Two(unet(milesial, "down up out"), vae_state(True), None)


@pair("unrelated: an encoder and a stack of mixers of one width")
def mixers(small: bool) -> Two:
    from torch import nn

    def block() -> Any:
        return nn.ModuleDict({
            "norm1": nn.LayerNorm(32), "tokens": mlp(16, 64, 16), "norm2": nn.LayerNorm(32),
            "channels": mlp(32, 64, 32),
        })  # fmt: skip

    target = nn.ModuleDict({"layers": nn.ModuleList(block() for _ in range(4)), "norm": nn.LayerNorm(32)})
    return Two(encoder(), target, None)


@pair("unrelated: PointNet and a text CNN, all Conv1d")
def point_text(small: bool) -> Two:
    from torch import nn

    def stack(*widths: int, kernel: int) -> Any:
        found: dict[str, Any] = {}
        for at, (a, b) in enumerate(pairwise(widths), 1):
            found[f"conv{at}"], found[f"bn{at}"] = nn.Conv1d(a, b, kernel), nn.BatchNorm1d(b)
        return nn.ModuleDict(found)

    source = nn.ModuleDict(
        {
            "stn": stack(3, 64, 128, 1024, kernel=1),
            "feat": stack(3, 64, 128, 1024, kernel=1),
            "fc1": nn.Linear(1024, 512),
            "fc2": nn.Linear(512, 256),
            "fc3": nn.Linear(256, 40),
        }
    )
    target = nn.ModuleDict({"embed": nn.Embedding(500, 64), "convs": stack(64, 128, 128, 256, kernel=3),
                            "fc1": nn.Linear(256, 256), "fc2": nn.Linear(256, 5)})  # fmt: skip
    return Two(source, target, None)
