"""Blind pairs: models that have nothing, or only a part, to give each other."""

from __future__ import annotations

import re

from tests.bench.match.blind import Net, Two, none, pair, state
from tests.bench.match.pairs_blind_4 import conv_tasnet
from tests.bench.match.pairs_blind_5 import pointpillars, schnet


@pair("blind, unrelated: XLNet and BERT, 768 wide", "transformers")
def xlnet_bert(small: bool) -> Two:
    """Perceptrons and norms of equal shapes in equal numbers; relative attention against positions."""
    import transformers

    xlnet = transformers.XLNetConfig(vocab_size=32000, d_model=768, n_layer=12, n_head=12, d_inner=3072)
    return none(transformers.XLNetModel(xlnet), transformers.BertModel(transformers.BertConfig()),
                "two language models with other attention, of other authors")  # fmt: skip


@pair("blind, unrelated: a NeRF and a table's residual perceptron, 256 wide")
def nerf(small: bool) -> Two:
    """[256, 256] throughout on both sides."""
    source, target = Net(), Net()
    for at in range(8):
        source.lin(f"pts_linears.{at}", 256, {0: 63, 5: 319}.get(at, 256))
    source.lin("views_linears.0", 128, 283)
    source.lin("feature_linear", 256, 256)
    source.lin("alpha_linear", 1, 256)
    source.lin("rgb_linear", 3, 128)
    target.lin("first_layer", 256, 54)
    for at in range(4):
        target.bn(f"blocks.{at}.normalization", 256)
        target.lin(f"blocks.{at}.linear_first", 256, 256)
        target.lin(f"blocks.{at}.linear_second", 256, 256)
    target.bn("head.normalization", 256)
    target.lin("head.linear", 7, 256)
    return none(source, target, "radiance and a table of forests: nothing in common but a width")


@pair("blind, unrelated: a guided U-Net for noise and a VQGAN's decoder, 128 to 512 wide")
def unet_vqgan(small: bool) -> Two:
    """Residual blocks of group norms and 3x3 convolutions on both sides."""
    source, target = Net(), Net()
    source.lin("time_embed.0", 512, 128)
    source.lin("time_embed.2", 512, 512)
    source.conv("input_blocks.0.0", 128, 3, 3)
    into, at = 128, 1
    for level, width in enumerate((128, 256, 512)):
        for _ in range(2):
            name = f"input_blocks.{at}.0"
            source.norm(f"{name}.in_layers.0", into)
            source.conv(f"{name}.in_layers.2", width, into, 3)
            source.lin(f"{name}.emb_layers.1", 2 * width, 512)
            source.norm(f"{name}.out_layers.0", width)
            source.conv(f"{name}.out_layers.3", width, width, 3)
            if into != width:
                source.conv(f"{name}.skip_connection", width, into, 1)
            into, at = width, at + 1
        if level < 2:
            source.conv(f"input_blocks.{at}.0.op", width, width, 3)
            at += 1
    source.norm("out.0", 128)
    source.conv("out.2", 6, 128, 3)
    target.conv("decoder.conv_in", 512, 256, 3)
    into = 512
    for level, width in ((2, 512), (1, 256), (0, 128)):
        for block in range(2):
            name = f"decoder.up.{level}.block.{block}"
            target.norm(f"{name}.norm1", into)
            target.conv(f"{name}.conv1", width, into, 3)
            target.norm(f"{name}.norm2", width)
            target.conv(f"{name}.conv2", width, width, 3)
            if into != width:
                target.conv(f"{name}.nin_shortcut", width, into, 1)
            into = width
        if level:
            target.conv(f"decoder.up.{level}.upsample.conv", width, width, 3)
    target.norm("decoder.norm_out", 128)
    target.conv("decoder.conv_out", 3, 128, 3)
    return none(source, target, "an encoder that takes noise in and a decoder that paints: other functions")


@pair("blind, unrelated: SchNet and a graph isomorphism network, 128 wide")
def schnet_gin(small: bool) -> Two:
    """Linears of 128 in both."""
    target = Net()
    target.lin("node_encoder", 128, 9)
    for layer in range(6):
        target.put(f"convs.{layer}.eps", 1)
        target.lin(f"convs.{layer}.nn.0", 128, 128)
        target.bn(f"convs.{layer}.nn.1", 128)
        target.lin(f"convs.{layer}.nn.3", 128, 128)
        target.bn(f"batch_norms.{layer}", 128)
    target.lin("graph_pred_linear", 1, 128)
    return none(schnet(small).source, target, "continuous filters against sums of neighbours")


@pair("blind, unrelated: Conv-TasNet and a WaveNet vocoder, 128 and 512 wide")
def tasnet_wavenet(small: bool) -> Two:
    """Stacks of twenty-four blocks, each with a residual and a skip of [128, 512, 1]."""
    target = Net()
    target.put("first_conv.weight", 128, 1, 1)
    target.put("first_conv.bias", 128)
    for layer in range(24):
        at = f"conv_layers.{layer}"
        for name, shape in (("conv", (1024, 128, 3)), ("conv1x1c", (1024, 80, 1)), ("conv1x1_out", (128, 512, 1)),
                            ("conv1x1_skip", (128, 512, 1))):  # fmt: skip
            target.put(f"{at}.{name}.weight", *shape)
            target.put(f"{at}.{name}.bias", shape[0])
    target.put("last_conv_layers.1.weight", 128, 128, 1)
    target.put("last_conv_layers.1.bias", 128)
    target.put("last_conv_layers.3.weight", 30, 128, 1)
    target.put("last_conv_layers.3.bias", 30)
    return none(conv_tasnet(small).source, target, "separation against synthesis")


@pair("blind, unrelated: PointPillars and a U-Net of photographs, 64 to 256 wide")
def pillars_unet(small: bool) -> Two:
    """3x3 convolutions with norms and equal widths on both sides."""
    target, into = Net(), 3
    for level, width in enumerate((64, 128, 256)):
        for conv in range(2):
            target.conv(f"contract.{level}.conv{conv}", width, into, 3, bias=False)
            target.bn(f"contract.{level}.norm{conv}", width)
            into = width
    for level, width in enumerate((128, 64)):
        target.put(f"expand.{level}.up.weight", 2 * width, width, 2, 2)
        target.put(f"expand.{level}.up.bias", width)
        for conv in range(2):
            target.conv(f"expand.{level}.conv{conv}", width, width if conv else 2 * width, 3, bias=False)
            target.bn(f"expand.{level}.norm{conv}", width)
    target.conv("mask", 1, 64, 1)
    return none(pointpillars(small).source, target, "a bird's view of points against photographs")


@pair("blind, unrelated: a tagger's LSTMs and a recognizer's, 512 wide in two directions")
def lstms(small: bool) -> Two:
    """weight_hh of one shape on both sides, under torch's names; inputs differ."""
    source, target = Net(), Net()
    source.put("word_embeds.weight", 20000, 300)
    source.put("char_embeds.weight", 90, 50)
    for way in ("", "_reverse"):
        source.put(f"tag_lstm.weight_ih_l0{way}", 2048, 350)
        source.put(f"tag_lstm.weight_hh_l0{way}", 2048, 512)
        source.put(f"tag_lstm.bias_ih_l0{way}", 2048)
        source.put(f"tag_lstm.bias_hh_l0{way}", 2048)
    source.lin("hidden2tag", 17, 1024)
    source.put("transitions", 17, 17)
    target.conv("cnn.0", 32, 1, 3)
    target.bn("cnn.1", 32)
    for layer, into in enumerate((672, 1024)):
        for way in ("", "_reverse"):
            target.put(f"listener.{layer}.rnn.weight_ih_l0{way}", 2048, into)
            target.put(f"listener.{layer}.rnn.weight_hh_l0{way}", 2048, 512)
            target.put(f"listener.{layer}.rnn.bias_ih_l0{way}", 2048)
            target.put(f"listener.{layer}.rnn.bias_hh_l0{way}", 2048)
    target.lin("characters", 29, 1024)
    return none(source, target, "words to tags against sound to letters")


@pair("blind, part: Whisper's encoder into Qwen2-Audio: the language model is another's", "transformers")
def whisper_tower(small: bool) -> Two:
    """The decoder has the encoder's shapes and names, and stays behind."""
    import transformers

    source = transformers.WhisperModel(transformers.WhisperConfig(
        d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8, decoder_attention_heads=8,
        encoder_ffn_dim=2048, decoder_ffn_dim=2048, num_mel_bins=128))  # fmt: skip
    target = transformers.Qwen2AudioForConditionalGeneration(transformers.Qwen2AudioConfig(
        audio_config={"encoder_layers": 6, "d_model": 512, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048},
        text_config={"model_type": "qwen2", "num_hidden_layers": 4, "hidden_size": 1024, "num_attention_heads": 16,
                     "num_key_value_heads": 16, "intermediate_size": 2048}))  # fmt: skip
    rules = [f"{key} -> model.audio_tower.{key[8:]}" if key.startswith("encoder.") else f"{key} -> !"
             for key in state(source)]  # fmt: skip
    return Two(source, target, rules, missing=["model.language_model.*", "model.multi_modal_projector.*", "lm_head.*"],
               proof="Qwen2-Audio's tower is Whisper's encoder in both codes")  # fmt: skip


@pair("blind, part: SigLIP's vision tower into PaliGemma: its text tower is as wide", "transformers")
def siglip_tower(small: bool) -> Two:
    """The pooling head and the text's tower stay behind; Gemma and the projector are from elsewhere."""
    import transformers

    vision = {"num_hidden_layers": 4, "hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16,
              "patch_size": 14, "image_size": 224}  # fmt: skip
    text = {"num_hidden_layers": 4, "hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16}
    source = transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text))
    target = transformers.PaliGemmaForConditionalGeneration(transformers.PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **vision},
        text_config={"model_type": "gemma", "num_hidden_layers": 2}))  # fmt: skip
    there = state(target)
    rules = []
    for key in state(source):
        name = re.sub(r"^vision_model\.", "model.vision_tower.", key)
        rules.append(f"{key} -> {name}" if name in there and key.startswith("vision_model") else f"{key} -> !")
    return Two(source, target, rules, missing=["model.language_model.*", "model.multi_modal_projector.*", "lm_head.*"],
               proof="PaliGemma's tower is SigLIP's vision model in both codes")  # fmt: skip


@pair("blind, part: a Mask R-CNN's body into one's own classifier", "torchvision")
def body(small: bool) -> Two:
    """The pyramid and the heads stay behind; the classifier is new."""
    import torchvision

    source = torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    swaps = [(r"^conv1", "entry.0"), (r"^bn1", "entry.1"), (r"^layer(\d)\.", r"group\1."),
             (r"\.downsample\.0", ".side.0"), (r"\.downsample\.1", ".side.1")]  # fmt: skip

    def name_of(key: str) -> str:
        for pattern, to in swaps:
            key = re.sub(pattern, to, key)
        return "trunk." + key

    model = state(torchvision.models.resnet50())
    target = Net()
    for key, tensor in model.items():
        if not key.startswith("fc"):
            target[name_of(key)] = tensor
    target.lin("verdict", 37, 2048)
    rules = []
    for key in state(source):
        inner = key.removeprefix("backbone.body.")
        rules.append(f"{key} -> {name_of(inner)}" if inner != key else f"{key} -> !")
    return Two(source, target, rules, missing=["verdict.*"],
               proof="the body of torchvision's detector is torchvision's ResNet")  # fmt: skip


@pair("blind, part: MiDaS' DPT-Large into timm's ViT-L: the refinements stay behind", "timm")
def midas(small: bool) -> Two:
    """pretrained.model is the ViT, with its old head; scratch and act_postprocess are the depth's."""
    import timm

    target = timm.create_model("vit_large_patch16_384", depth=6)
    source = Net()
    for key, tensor in state(target).items():
        source[f"pretrained.model.{key}"] = tensor
    for at, width in enumerate((256, 512, 1024, 1024), 1):
        name = f"pretrained.act_postprocess{at}"
        source.lin(f"{name}.0.project.0", 1024, 2048)
        source.conv(f"{name}.3", width, 1024, 1)
        if at != 3:
            source.conv(f"{name}.4", width, width, {1: 4, 2: 2, 4: 3}[at])
    for at, width in enumerate((256, 512, 1024, 1024), 1):
        source.conv(f"scratch.layer{at}_rn", 256, width, 3, bias=False)
    for at in range(1, 5):
        source.conv(f"scratch.refinenet{at}.out_conv", 256, 256, 1)
        for unit in (1, 2):
            for conv in (1, 2):
                source.conv(f"scratch.refinenet{at}.resConfUnit{unit}.conv{conv}", 256, 256, 3)
    source.conv("scratch.output_conv.0", 128, 256, 3)
    source.conv("scratch.output_conv.2", 32, 128, 3)
    source.conv("scratch.output_conv.4", 1, 32, 1)
    return Two(source, target, [f"pretrained.model.{key} -> {key}" for key in state(target)],
               proof="MiDaS' vit.py builds pretrained.model by timm")  # fmt: skip
