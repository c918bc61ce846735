"""Fresh pairs of models that have nothing, or only a part, to give each other."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.match.fresh import Keys, Two, fresh, pair, state
from tests.bench.match.fresh_listings import listing
from tests.bench.match.pairs_fresh_text import hf, llama
from tests.bench.match.pairs_fresh_vision import bottlenecks, stem


def none(source: Any, target: Any) -> Two:
    """Nothing belongs together."""
    return Two(source, target, None, proof="other functions, or the same functions trained for other things")


@pair("fresh, unrelated: a ResNet of half the width, layer2 has layer1's shapes")
def half_width(small: bool) -> Two:
    """Under the same names nothing fits; what fits stands under other names."""

    def net(width: int) -> Keys:
        keys, into = Keys(), width
        keys.conv("conv1", width, 3, 7, bias=False)
        keys.bn("bn1", width)
        for stage in range(1, 5):
            for block in range(2):
                out = width * 2 ** (stage - 1)
                keys.conv(f"layer{stage}.{block}.conv1", out, into, 3, bias=False)
                keys.bn(f"layer{stage}.{block}.bn1", out)
                keys.conv(f"layer{stage}.{block}.conv2", out, out, 3, bias=False)
                keys.bn(f"layer{stage}.{block}.bn2", out)
                if into != out:
                    keys.conv(f"layer{stage}.{block}.downsample.0", out, into, 1, bias=False)
                    keys.bn(f"layer{stage}.{block}.downsample.1", out)
                into = out
        return keys

    return none(net(32), net(64))


@pair("fresh, unrelated: a ViT-S under its names into a ViT-B without a head", "timm")
def small_into_base(small: bool) -> Two:
    """Every name is there, no shape fits."""
    import timm

    return none(
        timm.create_model("vit_small_patch16_224", num_classes=0),
        timm.create_model("vit_base_patch16_224", num_classes=0),
    )


@pair("fresh, unrelated: SuperPoint and HED: convolutions of VGG's widths", "transformers")
def superpoint_hed(small: bool) -> Two:
    """[64, 64, 3, 3], [128, 128, 3, 3]: both begin like VGG, neither was trained as the other."""
    source = Keys()
    into = 1
    for stage, width in enumerate((64, 64, 128, 128), 1):
        source.conv(f"conv{stage}a", width, into, 3)
        source.conv(f"conv{stage}b", width, width, 3)
        into = width
    target, into = Keys(), 3
    for stage, width in enumerate((64, 128, 256), 1):
        for at in range(2):
            target.conv(f"netVgg.{stage}.{2 * at}", width, into, 3)
            into = width
    return none(source, target)


@pair("fresh, unrelated: an EDSR's body and a DnCNN: 64 channels throughout")
def edsr_dncnn(small: bool) -> Two:
    """Sixteen residual blocks, seventeen layers of a chain."""
    source, target = Keys(), Keys()
    source.conv("head.0", 64, 3, 3)
    for block in range(8):
        source.conv(f"body.{block}.body.0", 64, 64, 3)
        source.conv(f"body.{block}.body.2", 64, 64, 3)
    source.conv("tail.1", 3, 64, 3)
    target.conv("dncnn.0", 64, 1, 3)
    for at in range(15):
        target.conv(f"dncnn.{3 * at + 2}", 64, 64, 3, bias=False)
        target.bn(f"dncnn.{3 * at + 3}", 64)
    target.conv("dncnn.47", 1, 64, 3, bias=False)
    return none(source, target)


@pair("fresh, unrelated: a StyleGAN2's discriminator into its generator")
def stylegan_d(small: bool) -> Two:
    """The same resolutions, the other way."""
    source, target = Keys(), Keys()
    widths = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256}
    for res in (64, 32, 16, 8):
        width, after = widths[res], widths[res // 2]
        if res == 64:
            source.conv(f"b{res}.fromrgb", width, 3, 1)
        source.conv(f"b{res}.conv0", width, width, 3)
        source.conv(f"b{res}.conv1", after, width, 3)
        source.conv(f"b{res}.skip", after, width, 1, bias=False)
    source.conv("b4.conv", 512, 513, 3)
    source.lin("b4.fc", 512, 8192)
    source.lin("b4.out", 1, 512)
    into = 512
    for res, width in widths.items():
        for at in (0, 1) if res > 4 else (1,):
            name = f"synthesis.b{res}.conv{at}"
            target.conv(name, width, into, 3)
            target.lin(f"{name}.affine", into, 512)
            into = width
        target.conv(f"synthesis.b{res}.torgb", 3, width, 1)
    for at in range(8):
        target.lin(f"mapping.fc{at}", 512, 512)
    return none(source, target)


@pair("fresh, unrelated: Mamba and GPT-2, 768 wide", "transformers")
def mamba_gpt2(small: bool) -> Two:
    """A norm in front of each layer, a table and a last norm in both."""
    source = hf("MambaForCausalLM", "MambaConfig", hidden_size=768, num_hidden_layers=12, vocab_size=3000)
    return none(source, hf("GPT2LMHeadModel", "GPT2Config", n_layer=12, vocab_size=3000))


@pair("fresh, unrelated: ESPnet's Conformer and BERT, 256 wide", "transformers")
def conformer_bert(small: bool) -> Two:
    """Square matrices, norms and a feed-forward of four times the width in both."""
    source = Keys()
    for at in range(6):
        name = f"encoder.encoders.{at}"
        for x in ("q", "k", "v", "out", "pos"):
            source.lin(f"{name}.self_attn.linear_{x}", 256, 256)
        for part in ("feed_forward", "feed_forward_macaron"):
            source.lin(f"{name}.{part}.w_1", 1024, 256)
            source.lin(f"{name}.{part}.w_2", 256, 1024)
        for part in ("norm_ff", "norm_mha", "norm_ff_macaron", "norm_conv", "norm_final"):
            source.norm(f"{name}.{part}", 256)
    source.norm("encoder.after_norm", 256)
    target = hf(
        "BertModel",
        "BertConfig",
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=1024,
        vocab_size=3000,
    )
    return none(source, target)


@pair("fresh, unrelated: ECAPA-TDNN and a wav2vec feature extractor")
def ecapa_wav2vec(small: bool) -> Two:
    """Convolutions over time with norms."""
    source, target = Keys(), Keys()
    for at in range(4):
        source.put(f"blocks.{at}.conv.conv.weight", 512, 80 if not at else 512, 3)
        source.put(f"blocks.{at}.conv.conv.bias", 512)
        source.bn(f"blocks.{at}.norm.norm", 512)
    source.put("fc.conv.weight", 192, 1024, 1)
    source.put("fc.conv.bias", 192)
    for at, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        target.put(f"feature_extractor.conv_layers.{at}.0.weight", 512, 1 if not at else 512, kernel)
        target.norm(f"feature_extractor.conv_layers.{at}.2.1", 512)
    target.norm("layer_norm", 512)
    target.lin("post_extract_proj", 768, 512)
    return none(source, target)


@pair("fresh, unrelated: YOLOX's and YOLOv8's blocks: conv, bn and equal widths")
def yolos(small: bool) -> Two:
    """Two families with the same words; a half of the shapes are in both."""
    source = Keys()

    def unit(name: str, out: int, into: int, kernel: int) -> None:
        source.conv(f"{name}.conv", out, into, kernel, bias=False)
        source.bn(f"{name}.bn", out)

    unit("backbone.backbone.stem.conv", 16, 12, 3)
    for stage, depth in zip((2, 3, 4, 5), (1, 3, 3, 1), strict=True):
        out = 16 * 2 ** (stage - 1)
        unit(f"backbone.backbone.dark{stage}.0", out, out // 2, 3)
        unit(f"backbone.backbone.dark{stage}.1.conv1", out // 2, out, 1)
        unit(f"backbone.backbone.dark{stage}.1.conv2", out // 2, out, 1)
        unit(f"backbone.backbone.dark{stage}.1.conv3", out, out, 1)
        for at in range(depth):
            unit(f"backbone.backbone.dark{stage}.1.m.{at}.conv1", out // 2, out // 2, 1)
            unit(f"backbone.backbone.dark{stage}.1.m.{at}.conv2", out // 2, out // 2, 3)
    for level in range(3):
        for kind in ("cls", "reg"):
            for at in range(2):
                unit(f"head.{kind}_convs.{level}.{at}", 64, 64, 3)
        source.conv(f"head.cls_preds.{level}", 80, 64, 1)
    return none(source, listing("ultralytics-yolov8n"))


@pair("fresh, unrelated: nnU-Net and V-Net: 3D convolutions from 32 to 256")
def nnunet_vnet(small: bool) -> Two:
    """Kernels of 3 and of 5; the norms have one shape."""
    source = {
        key: tensor
        for key, tensor in listing("nnunet-v2").items()
        if "all_modules" not in key and not key.startswith("decoder.encoder")
    }
    return none(source, listing("monai-vnet"))


@pair("fresh, unrelated: PPO's perceptron and SAC's: 64 and 256 wide, one layer fits")
def ppo_sac(small: bool) -> Two:
    """The observation and the action have one size; what fits is a bias."""
    source, target = Keys(), Keys()
    for kind in ("policy", "value"):
        source.lin(f"mlp_extractor.{kind}_net.0", 64, 17)
        source.lin(f"mlp_extractor.{kind}_net.2", 64, 64)
    source.lin("action_net", 6, 64)
    source.lin("value_net", 1, 64)
    target.lin("actor.latent_pi.0", 256, 17)
    target.lin("actor.latent_pi.2", 256, 256)
    target.lin("actor.mu", 6, 256)
    target.lin("actor.log_std", 6, 256)
    for at in range(2):
        target.lin(f"critic.qf{at}.0", 256, 23)
        target.lin(f"critic.qf{at}.2", 256, 256)
        target.lin(f"critic.qf{at}.4", 1, 256)
    return none(source, target)


@pair("fresh, unrelated: Tacotron 2 and a language model: LSTMs of 1024")
def tacotron_lm(small: bool) -> Two:
    """[4096, 1024] in both."""
    source, target = Keys(), Keys()
    source.put("embedding.weight", 148, 512)
    for name, into in (("decoder.attention_rnn", 768), ("decoder.decoder_rnn", 1536)):
        source.put(f"{name}.weight_ih", 4096, into)
        source.put(f"{name}.weight_hh", 4096, 1024)
        source.put(f"{name}.bias_ih", 4096)
        source.put(f"{name}.bias_hh", 4096)
    source.lin("decoder.linear_projection.linear_layer", 80, 1536)
    target.put("encoder.weight", 10000, 1024)
    for at in range(2):
        target.put(f"rnn.weight_ih_l{at}", 4096, 1024)
        target.put(f"rnn.weight_hh_l{at}", 4096, 1024)
        target.put(f"rnn.bias_ih_l{at}", 4096)
        target.put(f"rnn.bias_hh_l{at}", 4096)
    target.lin("decoder", 10000, 1024)
    return none(source, target)


@pair("fresh, unrelated: DLRM's perceptrons and two towers of one size")
def dlrm_towers(small: bool) -> Two:
    """A table of the same size, other columns."""
    source, target = Keys(), Keys()
    for at, rows in enumerate((10000, 10000, 500)):
        source.put(f"emb_l.{at}.weight", rows, 64)
    for at, (out, into) in enumerate(((512, 13), (256, 512), (64, 256))):
        source.lin(f"bot_l.{2 * at}", out, into)
    target.put("user_embedding.weight", 10000, 64)
    target.put("item_embedding.weight", 10000, 64)
    for side in ("user", "item"):
        for at, (out, into) in enumerate(((512, 64), (256, 512), (64, 256))):
            target.lin(f"{side}_tower.{2 * at}", out, into)
    return none(source, target)


@pair("fresh, unrelated: a ResNet-50 and DLA-34: stems of 7x7 and stages of equal widths", "timm")
def resnet_dla(small: bool) -> Two:
    """conv1, bn1 and downsample in both."""
    import timm

    source = Keys()
    stem(source, "")
    bottlenecks(source, "")
    return none(source, timm.create_model("dla34", num_classes=0))


@pair("fresh, part: a Llama and its projector out of LLaVA: the text model alone", "transformers")
def llava_text(small: bool) -> Two:
    """The vision tower stays behind; the prefix is the language model's."""
    import transformers

    vision = transformers.CLIPVisionConfig(
        hidden_size=512, intermediate_size=1376, num_hidden_layers=4, num_attention_heads=8
    )
    text = transformers.LlamaConfig(
        hidden_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        intermediate_size=1376,
        vocab_size=3200,
    )
    source = transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(vision_config=vision, text_config=text)
    )
    rules = ["model.language_model.{k**} -> model.{k**}", "lm_head.weight -> lm_head.weight"]
    return fresh(source, llama(), rules)


@pair("fresh, part: a ResNet-50's last two stages into a model of other first stages")
def last_stages(small: bool) -> Two:
    """Another stem and other first stages; layer3's first block takes another number of channels."""
    source, target = Keys(), Keys()
    stem(source, "")
    bottlenecks(source, "")
    source.lin("fc", 1000, 2048)
    whole = Keys()
    bottlenecks(whole, "backbone.")
    target.conv("patch.0", 384, 3, 8, bias=False)
    target.bn("patch.1", 384)
    for key, tensor in whole.items():
        if key.startswith(("backbone.layer3", "backbone.layer4")):
            if key in ("backbone.layer3.0.conv1.weight", "backbone.layer3.0.downsample.0.weight"):
                target.put(key, tensor.shape[0], 384, 1, 1)
            else:
                target[key] = tensor
    target.lin("classifier", 20, 2048)
    rules = ["layer{n=3|4}.{k**} -> backbone.layer{n}.{k**}"]
    left = ["patch.*", "classifier.*", "backbone.layer3.0.conv1.weight", "backbone.layer3.0.downsample.0.weight"]
    rules = [
        f"{key.removeprefix('backbone.')} -> {key}" for key in target if key.startswith("backbone.") and key not in left
    ]
    return fresh(source, target, rules, missing=left)


@pair("fresh, part: a student of every second layer of its teacher", "transformers")
def student(small: bool) -> Two:
    """Which layers it was begun with no header tells: blocks by number are a guess, the rest is plain."""
    source = hf("BertModel", "BertConfig", num_hidden_layers=12, vocab_size=3000)
    target = hf("BertModel", "BertConfig", num_hidden_layers=6, vocab_size=3000)
    old = {f"teacher.{key}": tensor for key, tensor in state(source).items() if "position_ids" not in key}
    new = {f"student.{key}": tensor for key, tensor in state(target).items() if "position_ids" not in key}
    rules = []
    for key in new:
        name = key.replace("student.", "teacher.")
        # DistilBERT began with layers 0, 2, 4, ...; a file cut after six layers with 0 to 5: both are done
        rules.append(f"{re.sub(r'layer.([0-9]+).', r'layer.{}.'.replace('{}', chr(92) + '1'), name)} -> {key}")
    return fresh(old, new, rules, undecided=["student.encoder.*"])


@pair("fresh, part: siamese arms that share a trunk into two trunks")
def siamese(small: bool) -> Two:
    """One source for two targets: the left and the right arm begin alike."""
    source, target = Keys(), Keys()
    stem(source, "trunk.")
    for keys, names in ((source, ["trunk"]), (target, ["left", "right"])):
        for name in names:
            if keys is target:
                stem(keys, f"{name}.")
            for block in range(3):
                keys.conv(f"{name}.blocks.{block}.conv1", 64, 64, 3, bias=False)
                keys.bn(f"{name}.blocks.{block}.bn1", 64)
                keys.conv(f"{name}.blocks.{block}.conv2", 64, 64, 3, bias=False)
                keys.bn(f"{name}.blocks.{block}.bn2", 64)
    source.lin("fc", 10, 64)
    target.lin("compare.0", 32, 128)
    target.lin("compare.2", 1, 32)
    rules = ["trunk.{k**} -> left.{k**}, right.{k**}"]
    return fresh(source, target, rules, missing=["compare.*"])
