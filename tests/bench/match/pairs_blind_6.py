"""Blind pairs: one's own variants of known networks, in one's own words."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.match.blind import Net, Two, pair, renamed, state

PROOF = "the variant is written from the original: its loader would copy exactly these"


def shaped(source: Any, table: list[Any]) -> tuple[Net, list[str]]:
    """The renamed source, without what goes to "", and the rules that lead there."""
    target, rules = Net(), []
    for key, tensor in state(source).items():
        name = renamed(key, table)
        if name:
            target[name] = tensor
            rules.append(f"{key} -> {name}")
        else:
            rules.append(f"{key} -> !")
    return target, rules


@pair("blind, own: ResNet-50 into a two-branch network with IBN: the last stage twice", "torchvision")
def two_branches(small: bool) -> Two:
    """Halves of the first norms of three stages are instance norms; heads are new."""
    import torchvision

    source = torchvision.models.resnet50()
    table: list[Any] = [
        (r"^fc\..*", ""),
        (r"^conv1", "trunk.stem.conv"),
        (r"^bn1", "trunk.stem.norm"),
        (r"^layer4\.(\d)", r"BRANCH.unit\1"),
        (r"^layer(\d)\.(\d)", lambda m: f"trunk.res{int(m[1]) + 1}.unit{m[2]}"),
        (r"\.conv1", ".reduce.conv"),
        (r"\.conv2", ".spatial.conv"),
        (r"\.conv3", ".expand.conv"),
        (r"\.bn1", ".reduce.norm"),
        (r"\.bn2", ".spatial.norm"),
        (r"\.bn3", ".expand.norm"),
        (r"\.downsample\.0", ".shortcut.conv"),
        (r"\.downsample\.1", ".shortcut.norm"),
    ]
    target, later, rules = Net(), {}, []
    for key, tensor in state(source).items():
        name = renamed(key, table)
        if not name:
            rules.append(f"{key} -> !")
        elif name.startswith("BRANCH"):
            two = [name.replace("BRANCH", branch) for branch in ("global_branch", "part_branch")]
            rules.append(f"{key} -> {two[0]}, {two[1]}")
            later.update(dict.fromkeys(two, tensor))
        elif re.match(r"trunk\.res\d\.unit\d\.reduce\.norm", name):
            tail, half = name.rsplit(".", 1)[1], name.rsplit(".", 1)[0]
            size = tensor.shape[0] // 2 if tensor.ndim else 0
            if tail in ("weight", "bias"):
                target.put(f"{half}.instance.{tail}", size)
                target.put(f"{half}.batch.{tail}", size)
                rules.append(f"{key} -> {half}.instance.{tail}, {half}.batch.{tail} | (i + n) -> i, n")
            elif tail == "num_batches_tracked":
                target.ints(f"{half}.batch.{tail}")
                rules.append(f"{key} -> {half}.batch.{tail}")
            else:
                target.put(f"{half}.batch.{tail}", size)
                rules.append(f"{key} -> {half}.batch.{tail} | (_ + n) -> n")
        else:
            target[name] = tensor
            rules.append(f"{key} -> {name}")
    for branch in ("part_branch", "global_branch"):
        target.update({name: tensor for name, tensor in later.items() if name.startswith(branch)})
    missing = ["necks.*", "classifiers.*", "squeeze.*"]
    target.conv("squeeze", 256, 2048, 1, bias=False)
    for at, size in enumerate((2048, 256, 256)):
        target.bn(f"necks.{at}", size)
        target.lin(f"classifiers.{at}", 751, size, bias=False)
    return Two(source, target, rules, missing=missing, proof=PROOF)


@pair("blind, own: ResNet-34 as a U-Net's encoder with CBAM in every block", "torchvision")
def unet34(small: bool) -> Two:
    """An attention of two Linears and a convolution of 7x7 in every block; the decoder is new."""
    import torchvision

    source = torchvision.models.resnet34()
    table: list[Any] = [
        (r"^fc\..*", ""),
        (r"^conv1", "down1.cv"),
        (r"^bn1", "down1.nm"),
        (r"^layer(\d)\.(\d)", lambda m: f"down{int(m[1]) + 1}.{m[2]}"),
        (r"\.conv(\d)", r".cv\1"),
        (r"\.bn(\d)", r".nm\1"),
        (r"\.downsample\.0", ".skip.cv"),
        (r"\.downsample\.1", ".skip.nm"),
    ]
    plain, rules = shaped(source, table)
    target, last = Net(), ""
    for key, tensor in plain.items():
        block = re.match(r"down[2-5]\.\d", key)
        name = block[0] if block else ""
        if last and name != last:
            width = 64 << (int(last[4]) - 2)
            target.lin(f"{last}.cbam.channel.fc1", width // 16, width, bias=False)
            target.lin(f"{last}.cbam.channel.fc2", width, width // 16, bias=False)
            target.conv(f"{last}.cbam.spatial.conv", 1, 2, 7, bias=False)
        last = name
        target[key] = tensor
    into = 512
    for level, (skip, out) in enumerate(((256, 256), (128, 128), (64, 64), (64, 32)), 1):
        target.conv(f"up{level}.cv1", out, into + skip, 3, bias=False)
        target.bn(f"up{level}.nm1", out)
        target.conv(f"up{level}.cv2", out, out, 3, bias=False)
        target.bn(f"up{level}.nm2", out)
        into = out
    target.conv("mask", 1, 32, 1)
    return Two(source, target, rules, missing=["up*", "mask.*", "*.cbam.*"], proof=PROOF)


@pair("blind, own: nine of a ViT-S's twelve blocks, with adapters, under other words", "timm")
def adapted_vit(small: bool) -> Two:
    """Three blocks fewer; down and up of each adapter are new."""
    import timm

    source = timm.create_model("vit_small_patch16_224")
    table: list[Any] = [
        (r"^(head\.|blocks\.(9|10|11)\.).*", ""),
        (r"^cls_token", "tokens.summary"),
        (r"^pos_embed", "tokens.places"),
        (r"^patch_embed\.proj", "patchify"),
        (r"^norm\.", "out_norm."),
        (r"^blocks\.", "trunk."),
        (r"\.norm1", ".pre_mix"),
        (r"\.attn\.qkv", ".mixer.to_qkv"),
        (r"\.attn\.proj", ".mixer.to_out"),
        (r"\.norm2", ".pre_ff"),
        (r"\.mlp\.fc1", ".ff.widen"),
        (r"\.mlp\.fc2", ".ff.narrow"),
    ]
    plain, rules = shaped(source, table)
    target = Net()
    for key, tensor in plain.items():
        target[key] = tensor
        if key.endswith("ff.narrow.bias"):
            at = key.removesuffix(".ff.narrow.bias")
            target.lin(f"{at}.tuner.down", 48, 384)
            target.lin(f"{at}.tuner.up", 384, 48)
            target.put(f"{at}.tuner.gain", 1)
    target.lin("head.0", 384, 384)
    target.norm("head.1", 384)
    target.lin("head.3", 45, 384)
    return Two(source, target, rules, missing=["head.*", "*.tuner.*"], proof=PROOF)


@pair("blind, own: BERT under a BiLSTM and a CRF, in short words", "transformers")
def tagger(small: bool) -> Two:
    """wq, wk, wv, wo; ln_a and ln_f; the pooler stays behind."""
    import transformers

    source = transformers.BertModel(transformers.BertConfig())
    table: list[Any] = [
        (r"^(pooler.*|embeddings\.position_ids|embeddings\.token_type_ids)", ""),
        (r"^embeddings\.word_embeddings", "emb.tok"),
        (r"^embeddings\.position_embeddings", "emb.pos"),
        (r"^embeddings\.token_type_embeddings", "emb.seg"),
        (r"^embeddings\.LayerNorm", "emb.ln"),
        (r"^encoder\.layer\.", "enc."),
        (r"attention\.self\.query", "att.wq"),
        (r"attention\.self\.key", "att.wk"),
        (r"attention\.self\.value", "att.wv"),
        (r"attention\.output\.dense", "att.wo"),
        (r"attention\.output\.LayerNorm", "ln_a"),
        (r"intermediate\.dense", "ffn.up"),
        (r"output\.dense", "ffn.down"),
        (r"output\.LayerNorm", "ln_f"),
    ]
    target, rules = shaped(source, table)
    for way in ("", "_reverse"):
        target.put(f"rnn.weight_ih_l0{way}", 1024, 768)
        target.put(f"rnn.weight_hh_l0{way}", 1024, 256)
        target.put(f"rnn.bias_ih_l0{way}", 1024)
        target.put(f"rnn.bias_hh_l0{way}", 1024)
    target.lin("emit", 9, 512)
    target.put("crf.trans", 9, 9)
    target.put("crf.start", 9)
    target.put("crf.stop", 9)
    return Two(source, target, rules, missing=["rnn.*", "emit.*", "crf.*"], proof=PROOF)


@pair("blind, own: MobileNetV2 with coordinate attention, stages and units by name", "torchvision")
def coordinate(small: bool) -> Two:
    """Numbers of each unit became pw, dw and pwl; the first block has no pw."""
    import torchvision

    source = torchvision.models.mobilenet_v2()
    where, at = {}, 1
    for stage, depth in enumerate((1, 2, 3, 4, 3, 3, 1), 1):
        for unit in range(1, depth + 1):
            where[at] = f"stage{stage}.unit{unit}"
            at += 1
    words = {"0.0": "pw.conv", "0.1": "pw.bn", "1.0": "dw.conv", "1.1": "dw.bn", "2": "pwl.conv", "3": "pwl.bn"}
    first = {"0.0": "dw.conv", "0.1": "dw.bn", "1": "pwl.conv", "2": "pwl.bn"}

    def block(match: re.Match[str]) -> str:
        number = int(match[1])
        return f"{where[number]}.{(first if number == 1 else words)[match[2]]}."

    table: list[Any] = [
        (r"^classifier.*", ""),
        (r"^features\.0\.0", "entry.conv"),
        (r"^features\.0\.1", "entry.bn"),
        (r"^features\.18\.0", "exit.conv"),
        (r"^features\.18\.1", "exit.bn"),
        (r"^features\.(\d+)\.conv\.(\d\.\d|\d)\.", block),
    ]
    plain, rules = shaped(source, table)
    target = Net()
    for key, tensor in plain.items():
        if key.endswith("pwl.conv.weight"):
            unit, width = key.removesuffix(".pwl.conv.weight"), tensor.shape[1]
            target.conv(f"{unit}.ca.pool.conv", max(8, width // 32), width, 1)
            target.bn(f"{unit}.ca.pool.bn", max(8, width // 32))
            target.conv(f"{unit}.ca.h", width, max(8, width // 32), 1)
            target.conv(f"{unit}.ca.w", width, max(8, width // 32), 1)
        target[key] = tensor
    target.lin("grade", 5, 1280)
    return Two(source, target, rules, missing=["grade.*", "*.ca.*"], proof=PROOF)


@pair("blind, own: GPT-2 as a captioner: q, k and v apart, Linears, cross attention between", "transformers")
def captioner(small: bool) -> Two:
    """Everything turned; the cross attention and its norm are new and of the same shapes."""
    import transformers

    source = transformers.GPT2Model(transformers.GPT2Config(n_layer=6))
    target, rules, width = Net(), [], 768
    target.put("words.weight", 50257, width)
    target.put("places.weight", 1024, width)
    rules += ["wte.weight -> words.weight", "wpe.weight -> places.weight"]
    for layer in range(6):
        here, there = f"h.{layer}", f"blocks.{layer}"
        target.norm(f"{there}.norm_self", width)
        target.lins(*(f"{there}.self.{x}" for x in "qkvo"), out=width, into=width)
        target.norm(f"{there}.norm_cross", width)
        target.lins(*(f"{there}.cross.{x}" for x in "qkvo"), out=width, into=width)
        target.norm(f"{there}.norm_mlp", width)
        target.lin(f"{there}.mlp.0", 4 * width, width)
        target.lin(f"{there}.mlp.2", width, 4 * width)
        names = [f"{there}.self.{x}" for x in "qkv"]
        rules.append(f"{here}.attn.c_attn.weight -> {', '.join(x + '.weight' for x in names)} | "
                     "i (a + b + c) -> a i, b i, c i")  # fmt: skip
        rules.append(f"{here}.attn.c_attn.bias -> {', '.join(x + '.bias' for x in names)} | (a + b + c) -> a, b, c")
        for old, new in (("attn.c_proj", "self.o"), ("mlp.c_fc", "mlp.0"), ("mlp.c_proj", "mlp.2")):
            rules += [f"{here}.{old}.weight -> {there}.{new}.weight | i o -> o i",
                      f"{here}.{old}.bias -> {there}.{new}.bias"]  # fmt: skip
        for old, new in (("ln_1", "norm_self"), ("ln_2", "norm_mlp")):
            rules += [f"{here}.{old}.{tail} -> {there}.{new}.{tail}" for tail in ("weight", "bias")]
    target.norm("norm_out", width)
    rules += [f"ln_f.{tail} -> norm_out.{tail}" for tail in ("weight", "bias")]
    target.lin("eyes", width, 1024)
    return Two(source, target, rules, missing=["eyes.*", "*.cross.*", "*.norm_cross.*"], proof=PROOF)


@pair("blind, own: ten convolutions of vgg16_bn in front of a crowd counter", "torchvision")
def crowd(small: bool) -> Two:
    """features.7 is front.b2c1.conv; three convolutions and the classifier stay behind, the dilated ones are new."""
    import torchvision

    source = torchvision.models.vgg16_bn()
    at, places = 0, {}
    for block, depth in enumerate((2, 2, 3, 3), 1):
        for conv in range(1, depth + 1):
            places[str(at)], places[str(at + 1)] = f"front.b{block}c{conv}.conv", f"front.b{block}c{conv}.norm"
            at += 3
        at += 1
    table: list[Any] = [(r"^features\.(\d+)\.", lambda m: f"{places[m[1]]}." if m[1] in places else "?"),
                        (r"^(\?|classifier).*", "")]  # fmt: skip
    target, rules = shaped(source, table)
    for number, (out, into) in enumerate(((512, 512), (512, 512), (512, 512), (256, 512), (128, 256), (64, 128)), 1):
        target.conv(f"back.d{number}.conv", out, into, 3)
        target.bn(f"back.d{number}.norm", out)
    target.conv("density", 1, 64, 1)
    return Two(source, target, rules, missing=["back.*", "density.*"], proof=PROOF)


@pair("blind, own: ConvNeXt-T for colour and depth: one file for two streams, a stem of one channel", "timm")
def rgbd(small: bool) -> Two:
    """Both streams take the same tensors but for the depth's first kernel; fusions between are new."""
    import timm

    source = timm.create_model("convnext_tiny")
    table: list[Any] = [
        (r"^head\..*", ""),
        (r"^stem\.0", "STREAM.patch.conv"),
        (r"^stem\.1", "STREAM.patch.ln"),
        (r"^stages\.(\d)\.downsample\.0", r"STREAM.reduce\1.ln"),
        (r"^stages\.(\d)\.downsample\.1", r"STREAM.reduce\1.conv"),
        (r"^stages\.(\d)\.blocks\.", lambda m: f"STREAM.level{int(m[1]) + 1}."),
        (r"\.conv_dw", ".spatial"),
        (r"\.norm", ".ln"),
        (r"\.mlp\.fc1", ".wide"),
        (r"\.mlp\.fc2", ".slim"),
        (r"\.gamma", ".scale"),
    ]
    rules, streams = [], {"rgb": Net(), "depth": Net()}
    for key, tensor in state(source).items():
        name = renamed(key, table)
        if not name:
            rules.append(f"{key} -> !")
            continue
        if key == "stem.0.weight":
            rules.append(f"{key} -> {name.replace('STREAM', 'rgb')}")
            streams["rgb"][name.replace("STREAM", "rgb")] = tensor
            streams["depth"].put(name.replace("STREAM", "depth"), 96, 1, 4, 4)
            continue
        for stream, net in streams.items():
            net[name.replace("STREAM", stream)] = tensor
        rules.append(f"{key} -> {name.replace('STREAM', 'rgb')}, {name.replace('STREAM', 'depth')}")
    target = Net()
    target.update(streams["rgb"])
    target.update(streams["depth"])
    for level in range(1, 5):
        width = 48 << level
        target.conv(f"fuse{level}.gate", width, 2 * width, 1)
    target.conv("score", 40, 768, 1)
    return Two(source, target, rules, missing=["fuse*", "score.*", "depth.patch.conv.weight"], proof=PROOF)


@pair("blind, own: eight of Wav2Vec2's twelve layers under an emotion's head", "transformers")
def emotion(small: bool) -> Two:
    """The masked embedding stays behind; the pooling is new."""
    import transformers

    source = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config())
    table: list[Any] = [
        (r"^(masked_spec_embed|encoder\.layers\.(8|9|10|11)\.).*", ""),
        (r"^feature_extractor\.conv_layers\.(\d)\.conv", r"ear.c\1.kernel"),
        (r"^feature_extractor\.conv_layers\.(\d)\.layer_norm", r"ear.c\1.norm"),
        (r"^feature_projection\.layer_norm", "bridge.norm"),
        (r"^feature_projection\.projection", "bridge.fc"),
        (r"^encoder\.pos_conv_embed\.conv", "where.conv"),
        (r"^encoder\.layer_norm", "body_norm"),
        (r"^encoder\.layers\.", "body."),
        (r"\.attention\.(.)_proj", r".mha.\1"),
        (r"\.attention\.out_proj", ".mha.out"),
        (r"\.layer_norm\.", ".n1."),
        (r"\.final_layer_norm", ".n2"),
        (r"\.feed_forward\.intermediate_dense", ".f1"),
        (r"\.feed_forward\.output_dense", ".f2"),
    ]
    target, rules = shaped(source, table)
    target.lin("pool.score.0", 128, 768)
    target.lin("pool.score.2", 1, 128)
    target.lin("mood", 7, 1536)
    return Two(source, target, rules, missing=["pool.*", "mood.*"], proof=PROOF)


@pair("blind, own: Swin-T for change detection: merging belongs to the stage in front", "timm")
def change(small: bool) -> Two:
    """s1.b0.msa.qkv; differences of each stage and the decoder are new; norms of each stage too."""
    import timm

    source = timm.create_model("swin_tiny_patch4_window7_224")
    table: list[Any] = [
        (r"^(head|norm)\..*", ""),
        (r"^patch_embed\.proj", "enc.patch.conv"),
        (r"^patch_embed\.norm", "enc.patch.ln"),
        (r"^layers\.(\d)\.downsample\.reduction", r"enc.s\1.merge.fc"),
        (r"^layers\.(\d)\.downsample\.norm", r"enc.s\1.merge.ln"),
        (r"^layers\.(\d)\.blocks\.(\d)", lambda m: f"enc.s{int(m[1]) + 1}.b{m[2]}"),
        (r"\.norm1", ".ln1"),
        (r"\.norm2", ".ln2"),
        (r"\.attn\.relative_position_bias_table", ".msa.bias_table"),
        (r"\.attn\.", ".msa."),
        (r"\.mlp\.fc", ".ffn.l"),
    ]
    plain, rules = shaped(source, table)

    def order(key: str) -> tuple[int, int]:
        stage = re.match(r"enc\.s(\d)\.(\w)", key)
        return (int(stage[1]), int(stage[2] == "m")) if stage else (0, 0)

    target = Net()
    for key in sorted(plain, key=order):
        target[key] = plain[key]
    for stage in range(1, 5):
        width = 48 << stage
        target.norm(f"enc.out_ln{stage}", width)
        target.conv(f"diff.{stage}.conv", width, 2 * width, 3, bias=False)
        target.bn(f"diff.{stage}.bn", width)
        target.conv(f"dec.lateral{stage}", 128, width, 1)
    target.conv("dec.mask", 2, 128, 1)
    return Two(source, target, rules, missing=["enc.out_ln*", "diff.*", "dec.*"], proof=PROOF)
