"""Blind pairs: older codebases, and files of which only a part is wanted, or one of two that are alike."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.match.blind import Net, Two, none, pair, state, to


@pair("blind: MobileNetV1 in Keras 3's weights.h5 to timm: classes are counted, variables are numbers", "timm")
def keras3(small: bool) -> Two:
    """conv2d is the stem and every 1x1, depthwise_conv2d the others; norms are counted through; listed by letters."""
    import timm

    target = timm.create_model("mobilenetv1_100")
    names: dict[str, tuple[tuple[int, ...], str]] = {}

    def put(kind: str, number: int, *variables: tuple[tuple[int, ...], str]) -> None:
        for at, one in enumerate(variables):
            names[f"layers/{kind}{f'_{number}' if number else ''}/vars/{at}"] = one

    def norm(number: int, there: str, size: int) -> None:
        tails = ("weight", "bias", "running_mean", "running_var")
        put("batch_normalization", number, *(((size,), f"{there}.{tail}") for tail in tails))

    put("conv2d", 0, ((3, 3, 3, 32), "conv_stem.weight | h w i o -> o i h w"))
    norm(0, "bn1", 32)
    into, block = 32, 0
    for stage, (out, depth) in enumerate(((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))):
        for layer in range(depth):
            there = f"blocks.{stage}.{layer}"
            put("depthwise_conv2d", block, ((3, 3, into, 1), f"{there}.conv_dw.weight | h w o i -> o i h w"))
            norm(2 * block + 1, f"{there}.bn1", into)
            put("conv2d", block + 1, ((1, 1, into, out), f"{there}.conv_pw.weight | h w i o -> o i h w"))
            norm(2 * block + 2, f"{there}.bn2", out)
            into, block = out, block + 1
    put("conv2d", 14, ((1, 1, 1024, 1000), "classifier.weight | 1 1 i o -> o i"), ((1000,), "classifier.bias"))
    source = Net()
    for name in sorted(names):
        source.put(name, *names[name][0])
    return Two(source, target, [f"{name} -> {there}" for name, (_, there) in names.items()],
               missing=["num_batches_tracked"],
               proof="Keras 3.15 itself: save_weights of MobileNet lists so, value by value")  # fmt: skip


@pair("blind: DenseNet-121 in Caffe's names to torchvision: a norm is two layers, blobs are numbers", "torchvision")
def caffe(small: bool) -> Two:
    """conv2_1/x1/bn has mean, variance and a factor, conv2_1/x1/scale has weight and bias."""
    from torchvision.models import densenet121

    target = densenet121(weights=None)
    source = Net()

    def norm(name: str, size: int) -> None:
        source.put(f"{name}/bn.0", size)
        source.put(f"{name}/bn.1", size)
        source.put(f"{name}/bn.2", 1)
        source.put(f"{name}/scale.0", size)
        source.put(f"{name}/scale.1", size)

    source.put("conv1.0", 64, 3, 7, 7)
    norm("conv1", 64)
    width = 64
    for stage, depth in ((2, 6), (3, 12), (4, 24), (5, 16)):
        for layer in range(1, depth + 1):
            norm(f"conv{stage}_{layer}/x1", width)
            source.put(f"conv{stage}_{layer}/x1.0", 128, width, 1, 1)
            norm(f"conv{stage}_{layer}/x2", 128)
            source.put(f"conv{stage}_{layer}/x2.0", 32, 128, 3, 3)
            width += 32
        norm(f"conv{stage}_blk", width)
        if stage < 5:
            source.put(f"conv{stage}_blk.0", width // 2, width, 1, 1)
            width //= 2
    source.put("fc6.0", 1000, 1024, 1, 1)
    source.put("fc6.1", 1000)
    table: list[Any] = [
        (r".*/bn\.2", ""),
        (r"^fc6\.0", "classifier.weight"),
        (r"^fc6\.1", "classifier.bias"),
        (r"/bn\.0", "/bn.running_mean"),
        (r"/bn\.1", "/bn.running_var"),
        (r"/scale\.0", "/bn.weight"),
        (r"/scale\.1", "/bn.bias"),
        (r"^conv1\.0", "features.conv0.weight"),
        (r"^conv1/bn", "features.norm0"),
        (r"^conv5_blk/bn", "features.norm5"),
        (r"^conv(\d)_blk/bn", lambda m: f"features.transition{int(m[1]) - 1}.norm"),
        (r"^conv(\d)_blk\.0", lambda m: f"features.transition{int(m[1]) - 1}.conv.weight"),
        (r"^conv(\d)_(\d+)/", lambda m: f"features.denseblock{int(m[1]) - 1}.denselayer{m[2]}."),
        (r"\.x(\d)/bn", r".norm\1"),
        (r"\.x(\d)\.0", r".conv\1.weight"),
    ]
    # the statistics are sums, which a match leaves to a rule that divides them
    return to(source, target, table, [(r"^fc6\.0", "o i 1 1 -> o i")], missing=["num_batches_tracked"],
              undecided=["running_mean", "running_var"],
              truth="shicai/DenseNet-Caffe's prototxt, layer by layer")  # fmt: skip


@pair("blind: Kaldi's x-vector to SpeechBrain's: spliced frames become kernels, norms have no weights")
def kaldi(small: bool) -> Two:
    """[out, frames * features] becomes [out, features, frames]; the rest of Kaldi's network classifies speakers."""
    source, target, rules = Net(), Net(), []
    into, hidden = 30, []
    for layer, (out, frames) in enumerate(((512, 5), (512, 3), (512, 3), (512, 1), (1500, 1))):
        here, conv, norm = f"tdnn{layer + 1}", f"blocks.{3 * layer}.conv", f"blocks.{3 * layer + 2}.norm"
        source.put(f"{here}.affine.LinearParams", out, frames * into)
        source.put(f"{here}.affine.BiasParams", out)
        source.put(f"{here}.batchnorm.StatsMean", out)
        source.put(f"{here}.batchnorm.StatsVar", out)
        target.conv(conv, out, into, frames)
        target[f"{conv}.weight"] = target[f"{conv}.weight"][..., 0]
        target.bn(norm, out)
        rules += [f"{here}.affine.LinearParams -> {conv}.weight | o ({frames} i) -> o i {frames}",
                  f"{here}.affine.BiasParams -> {conv}.bias",
                  f"{here}.batchnorm.StatsMean -> {norm}.running_mean",
                  f"{here}.batchnorm.StatsVar -> {norm}.running_var"]  # fmt: skip
        if frames > 1:
            hidden.append(f"{conv}.weight")
        into = out
    for name, out, into in (("tdnn6", 512, 3000), ("tdnn7", 512, 512), ("output", 7205, 512)):
        source.put(f"{name}.affine.LinearParams", out, into)
        source.put(f"{name}.affine.BiasParams", out)
        if name != "output":
            source.put(f"{name}.batchnorm.StatsMean", out)
            source.put(f"{name}.batchnorm.StatsVar", out)
    target.lin("blocks.16.w", 512, 3000)
    rules += ["tdnn6.affine.LinearParams -> blocks.16.w.weight", "tdnn6.affine.BiasParams -> blocks.16.w.bias",
              "tdnn6.batchnorm.{k**} -> !", "tdnn7.{k**} -> !", "output.{k**} -> !"]  # fmt: skip
    return Two(source, target, rules, hidden=hidden,
               missing=["blocks.*.norm.weight", "blocks.*.norm.bias", "num_batches_tracked"],
               proof="Kaldi's xvector.xconfig (Append joins frame by frame) and SpeechBrain's Xvector")  # fmt: skip


@pair("blind: FastSpeech 2 in ESPnet's names with a vocoder to Hugging Face: five norms of one shape", "transformers")
def fastspeech(small: bool) -> Two:
    """norm_ff, norm_mha, norm_ff_macaron, norm_conv and norm_final are listed in another order over there."""
    import transformers

    config = transformers.FastSpeech2ConformerConfig(encoder_layers=2, decoder_layers=2)
    target = transformers.FastSpeech2ConformerModel(config)
    source, width, root = Net(), 384, "tts.generator.text2mel"

    def conv(name: str, out: int, into: int, kernel: int, bias: bool = True) -> None:
        source.put(f"{name}.weight", out, into, kernel)
        if bias:
            source.put(f"{name}.bias", out)

    def stack(side: str, kernel: int) -> None:
        for layer in range(2):
            at = f"{root}.{side}.encoders.{layer}"
            source.put(f"{at}.self_attn.pos_bias_u", 2, 192)
            source.put(f"{at}.self_attn.pos_bias_v", 2, 192)
            source.lins(*(f"{at}.self_attn.linear_{x}" for x in ("q", "k", "v", "out")), out=width, into=width)
            source.lin(f"{at}.self_attn.linear_pos", width, width, bias=False)
            for part in ("feed_forward", "feed_forward_macaron"):
                conv(f"{at}.{part}.w_1", 1536, width, 3)
                conv(f"{at}.{part}.w_2", width, 1536, 3)
            conv(f"{at}.conv_module.pointwise_conv1", 2 * width, width, 1)
            conv(f"{at}.conv_module.depthwise_conv", width, 1, kernel)
            source.bn(f"{at}.conv_module.norm", width)
            conv(f"{at}.conv_module.pointwise_conv2", width, width, 1)
            source.lns(*(f"{at}.norm_{x}" for x in ("ff", "mha", "ff_macaron", "conv", "final")), size=width)

    def predictor(name: str, depth: int, kernel: int) -> None:
        for layer in range(depth):
            conv(f"{root}.{name}_predictor.conv.{layer}.0", 256, 256 if layer else width, kernel)
            source.norm(f"{root}.{name}_predictor.conv.{layer}.2", 256)
        source.lin(f"{root}.{name}_predictor.linear", 1, 256)

    source.put(f"{root}.encoder.embed.0.weight", 78, width)
    stack("encoder", 7)
    predictor("duration", 2, 3)
    predictor("pitch", 5, 5)
    conv(f"{root}.pitch_embed.0", width, 1, 1)
    predictor("energy", 2, 3)
    conv(f"{root}.energy_embed.0", width, 1, 1)
    stack("decoder", 31)
    source.lin(f"{root}.feat_out", 80, width)
    for layer, (out, into) in enumerate(((256, 80), (256, 256), (256, 256), (256, 256), (80, 256))):
        conv(f"{root}.postnet.postnet.{layer}.0", out, into, 5, bias=False)
        source.bn(f"{root}.postnet.postnet.{layer}.1", out)
    voice = "tts.generator.vocoder"

    def normed(name: str, out: int, into: int, kernel: int, size: int) -> None:
        source.put(f"{voice}.{name}.bias", size)
        source.put(f"{voice}.{name}.weight_g", out, 1, 1)
        source.put(f"{voice}.{name}.weight_v", out, into, kernel)

    normed("input_conv", 512, 80, 7, 512)
    for level, kernel in enumerate((16, 16, 4, 4)):
        normed(f"upsamples.{level}.1", 512 >> level, 256 >> level, kernel, 256 >> level)
    for level in range(4):
        size = 256 >> level
        for number, kernel in enumerate((3, 7, 11)):
            for part in ("convs1", "convs2"):
                for layer in range(3):
                    normed(f"blocks.{3 * level + number}.{part}.{layer}.1", size, size, kernel, size)
    normed("output_conv.1", 1, 32, 7, 1)
    table: list[Any] = [
        (r"^tts\.generator\.vocoder.*", ""),
        (r"^tts\.generator\.text2mel\.", ""),
        (r"^feat_out", "speech_decoder_postnet.feat_out"),
        (r"^postnet\.postnet\.(\d)\.0", r"speech_decoder_postnet.layers.\1.conv"),
        (r"^postnet\.postnet\.(\d)\.1", r"speech_decoder_postnet.layers.\1.batch_norm"),
        (r"^encoder\.embed\.0", "encoder.embed"),
        (r"\.w_(\d)", r".conv\1"),
        (r"_predictor\.conv\.(\d)\.0", r"_predictor.conv_layers.\1.conv"),
        (r"_predictor\.conv\.(\d)\.2", r"_predictor.conv_layers.\1.layer_norm"),
        (r"_embed\.0", "_embed.conv"),
        (r"\.encoders\.", ".conformer_layers."),
        (r"\.norm_final", ".final_layer_norm"),
        (r"\.norm_mha", ".self_attn_layer_norm"),
        (r"\.norm_ff_macaron", ".ff_macaron_layer_norm"),
        (r"\.norm_ff", ".ff_layer_norm"),
        (r"\.norm_conv", ".conv_layer_norm"),
    ]
    return to(source, target, table,
              truth="transformers' convert_fastspeech2_conformer_original_pytorch_checkpoint_to_pytorch")  # fmt: skip


@pair("blind: ELMo in TensorFlow's names to AllenNLP: gates in another order, two highways joined")
def elmo(small: bool) -> Two:
    """W_0 has rows of the input and of the state; RNN_1 runs backwards; a row of zeros pads the characters."""
    source, target, rules, hidden = Net(), Net(), [], []
    widths = (32, 32, 64, 128, 256, 512, 1024)
    there = "_token_embedder"
    target.put(f"{there}._char_embedding_weights", 262, 16)
    target.ints(f"{there}._beginning_of_sentence_characters", 50)
    target.ints(f"{there}._end_of_sentence_characters", 50)
    for at, out in enumerate(widths):
        source.put(f"CNN/W_cnn_{at}", 1, at + 1, 16, out)
        target.put(f"{there}.char_conv_{at}.weight", out, 16, at + 1)
        target.put(f"{there}.char_conv_{at}.bias", out)
        rules += [f"CNN/W_cnn_{at} -> {there}.char_conv_{at}.weight | 1 w i o -> o i w",
                  f"CNN/b_cnn_{at} -> {there}.char_conv_{at}.bias"]  # fmt: skip
    for at, out in enumerate(widths):
        source.put(f"CNN/b_cnn_{at}", out)
    for at in range(2):
        here, joined = f"CNN_high_{at}", f"{there}._highways._layers.{at}"
        for part in ("carry", "transform"):
            source.put(f"{here}/W_{part}", 2048, 2048)
        for part in ("carry", "transform"):
            source.put(f"{here}/b_{part}", 2048)
        target.lin(joined, 4096, 2048)
        rules += [f"{here}/W_transform, {here}/W_carry -> {joined}.weight | i a, i b -> (a + b) i",
                  f"{here}/b_transform, {here}/b_carry -> {joined}.bias | a, b -> (a + b)"]  # fmt: skip
        hidden += [f"{joined}.weight", f"{joined}.bias"]
    source.put("CNN_proj/W_proj", 2048, 512)
    source.put("CNN_proj/b_proj", 512)
    target.lin(f"{there}._projection", 512, 2048)
    rules += [f"CNN_proj/W_proj -> {there}._projection.weight | i o -> o i",
              f"CNN_proj/b_proj -> {there}._projection.bias"]  # fmt: skip
    for way in range(2):
        for layer in range(2):
            here = f"RNN_{way}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            source.put(f"{here}/B", 16384)
            source.put(f"{here}/W_0", 1024, 16384)
            source.put(f"{here}/W_P_0", 4096, 512)
            to_layer = f"_elmo_lstm.{('forward', 'backward')[way]}_layer_{layer}"
            gates = "(a + b + c + d)"
            swapped = "(a + c + b + d)"
            rules += [f"{here}/W_0 -> {to_layer}.input_linearity.weight, {to_layer}.state_linearity.weight"
                      f" | (x + y) {gates} -> {swapped} x, {swapped} y",
                      f"{here}/B -> {to_layer}.state_linearity.bias | {gates} -> {swapped}",
                      f"{here}/W_P_0 -> {to_layer}.state_projection.weight | i o -> o i"]  # fmt: skip
            hidden += [f"{to_layer}.input_linearity.weight", f"{to_layer}.state_linearity.*"]
    for layer in range(2):
        for side in ("forward", "backward"):
            name = f"_elmo_lstm.{side}_layer_{layer}"
            target.lin(f"{name}.input_linearity", 16384, 512, bias=False)
            target.lin(f"{name}.state_linearity", 16384, 512)
            target.lin(f"{name}.state_projection", 512, 4096, bias=False)
    source.put("char_embed", 261, 16)
    rules.append(f"char_embed -> {there}._char_embedding_weights | v c -> (1 + v) c")
    return Two(source, target, rules, vars={"x": 512, "y": 512}, hidden=hidden,
               missing=[f"{there}._*_of_sentence_characters"],
               proof="AllenNLP's ElmoLstm.load_weights and _load_highway, but for signs and a 1 added")  # fmt: skip


@pair("blind: HRNet in PaddleSeg's names to timm: two numbers of a branch in one word, counted from 1", "timm")
def paddleseg(small: bool) -> Two:
    """residual_st3_1_layer_3_1_2 is fuse_layers.2.0.1; the classifier's head is timm's own."""
    import timm

    target = timm.create_model("hrnet_w18_small")
    source, rules = Net(), []

    def unit(name: str, conv: str, norm: str, out: int, into: int, kernel: int) -> None:
        source.conv(f"{name}._conv", out, into, kernel, bias=False)
        rules.append(f"{name}._conv.weight -> {conv}.weight")
        tails = {"weight": "weight", "bias": "bias", "_mean": "running_mean", "_variance": "running_var"}
        for here, there in tails.items():
            source.put(f"{name}._batch_norm.{here}", out)
            rules.append(f"{name}._batch_norm.{here} -> {norm}.{there}")

    def pair_of(name: str, there: str, out: int, into: int, kernel: int) -> None:
        unit(name, f"{there}.0", f"{there}.1", out, into, kernel)

    unit("conv_layer1_1", "conv1", "bn1", 64, 3, 3)
    unit("conv_layer1_2", "conv2", "bn2", 64, 64, 3)
    here = "la1.bb_layer2_1"
    unit(f"{here}.conv1", "layer1.0.conv1", "layer1.0.bn1", 32, 64, 1)
    unit(f"{here}.conv2", "layer1.0.conv2", "layer1.0.bn2", 32, 32, 3)
    unit(f"{here}.conv3", "layer1.0.conv3", "layer1.0.bn3", 128, 32, 1)
    pair_of(f"{here}.conv_down", "layer1.0.downsample", 128, 64, 1)
    pair_of("tr1.transition_tr1_layer_1", "transition1.0", 16, 128, 3)
    pair_of("tr1.transition_tr1_layer_2", "transition1.1.0", 32, 128, 3)
    for stage in (2, 3, 4):
        widths = [16 << branch for branch in range(stage)]
        at, there = f"st{stage}.stage_st{stage}_1", f"stage{stage}.0"
        for branch, width in enumerate(widths):
            for block in range(2):
                name = f"{at}.branches_func.bb_st{stage}_1_branch_layer_{branch + 1}_{block + 1}"
                for number in (1, 2):
                    to_block = f"{there}.branches.{branch}.{block}"
                    unit(f"{name}.conv{number}", f"{to_block}.conv{number}", f"{to_block}.bn{number}", width, width, 3)
        for row in range(stage):
            for column in range(stage):
                name = f"{at}.fuse_func.residual_st{stage}_1_layer_{row + 1}_{column + 1}"
                fuse = f"{there}.fuse_layers.{row}.{column}"
                if column > row:
                    pair_of(name, fuse, widths[row], widths[column], 1)
                for step in range(row - column):
                    out = widths[row] if step == row - column - 1 else widths[column]
                    pair_of(f"{name}_{step + 1}", f"{fuse}.{step}", out, widths[column], 3)
        if stage < 4:
            name = f"tr{stage}.transition_tr{stage}_layer_{stage + 1}"
            pair_of(name, f"transition{stage}.{stage}.0", 2 * widths[-1], widths[-1], 3)
    return Two(source, target, rules,
               missing=["num_batches_tracked", "incre_modules.*", "downsamp_modules.*", "final_layer.*",
                        "classifier.*"],
               proof="paddleseg/models/backbones/hrnet.py and timm's hrnet.py, module by module")  # fmt: skip


@pair("blind: ResNet-50 of Flax's ImageNet example to torchvision: sixteen blocks counted through", "torchvision")
def flax(small: bool) -> Two:
    """Statistics are a tree of their own; listed by letters, so block 10 follows block 1."""
    from torchvision.models import resnet50

    target = resnet50(weights=None)
    starts = {1: 0, 2: 3, 3: 7, 4: 13}

    def name_of(key: str) -> str:
        module, tail = key.rsplit(".", 1)
        tree = "batch_stats" if tail.startswith("running") else "params"
        tail = {"running_mean": "mean", "running_var": "var", "bias": "bias"}.get(tail, "kernel")
        if re.search(r"bn\d|downsample\.1", module) and tail == "kernel":
            tail = "scale"
        found = re.match(r"layer(\d)\.(\d)\.(.*)", module)
        if found:
            part = found[3].replace("downsample.0", "conv_proj").replace("downsample.1", "norm_proj")
            part = re.sub(r"^conv(\d)", lambda m: f"Conv_{int(m[1]) - 1}", part)
            part = re.sub(r"^bn(\d)", lambda m: f"BatchNorm_{int(m[1]) - 1}", part)
            module = f"BottleneckResNetBlock_{starts[int(found[1])] + int(found[2])}/{part}"
        else:
            module = {"conv1": "conv_init", "bn1": "bn_init", "fc": "Dense_0"}[module]
        return f"{tree}/{module}/{tail}"

    shapes, rules = {}, []
    for key, tensor in state(target).items():
        if key.endswith("num_batches_tracked"):
            continue
        shape, layout = tuple(tensor.shape), ""
        if len(shape) == 4:
            shape, layout = (*shape[2:], shape[1], shape[0]), " | h w i o -> o i h w"
        elif len(shape) == 2:
            shape, layout = shape[::-1], " | i o -> o i"
        shapes[name_of(key)] = shape
        rules.append(f"{name_of(key)} -> {key}{layout}")
    source = Net()
    for name in sorted(shapes, key=lambda name: name.split("/")):
        source.put(name, *shapes[name])
    return Two(source, target, rules, missing=["num_batches_tracked"],
               proof="flax/examples/imagenet/models.py: strides are in the 3x3 as in torchvision's")  # fmt: skip


@pair("blind: GraphSAGE in DGL's names to PyTorch Geometric: the bias belongs to the other Linear")
def graphsage(small: bool) -> Two:
    """fc_neigh is lin_l, fc_self is lin_r, but the one bias is fc_self's here and lin_l's there: no header tells."""
    source, target = Net(), Net()
    for layer, (out, into) in enumerate(((256, 100), (256, 256), (47, 256))):
        source.lin(f"layers.{layer}.fc_neigh", out, into, bias=False)
        source.lin(f"layers.{layer}.fc_self", out, into)
        target.lin(f"convs.{layer}.lin_l", out, into)
        target.lin(f"convs.{layer}.lin_r", out, into, bias=False)
    table: list[Any] = [
        (r"^layers", "convs"),
        (r"fc_self\.bias", "lin_l.bias"),
        (r"fc_self", "lin_r"),
        (r"fc_neigh", "lin_l"),
    ]
    return to(source, target, table, undecided=["convs.*.weight"],
              truth="the code of both SAGEConvs (mean): lin_l takes what comes from neighbours")  # fmt: skip


@pair("blind, part: vgg16_bn into a SegNet: the way up mirrors the way down and is new", "torchvision")
def segnet(small: bool) -> Two:
    """Half of the decoder's convolutions have shapes of the encoder's."""
    from torchvision.models import vgg16_bn

    source, target, rules = vgg16_bn(weights=None), Net(), ["classifier.{k**} -> !"]
    stages = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    at, into = 0, 3
    tails = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    for stage, widths in enumerate(stages, 1):
        for number, out in enumerate(widths, 1):
            target.conv(f"encoder.down{stage}.conv{number}.0", out, into, 3)
            target.bn(f"encoder.down{stage}.conv{number}.1", out)
            for tail in tails:
                if tail in ("weight", "bias"):
                    rules.append(f"features.{at}.{tail} -> encoder.down{stage}.conv{number}.0.{tail}")
                rules.append(f"features.{at + 1}.{tail} -> encoder.down{stage}.conv{number}.1.{tail}")
            at, into = at + 3, out
        at += 1
    outs = ((512, 512, 512), (512, 512, 256), (256, 256, 128), (128, 64), (64, 12))
    for stage, widths in zip((5, 4, 3, 2, 1), outs, strict=True):
        for number, out in enumerate(widths, 1):
            target.conv(f"decoder.up{stage}.conv{number}.0", out, into, 3)
            if out != 12:
                target.bn(f"decoder.up{stage}.conv{number}.1", out)
            into = out
    return Two(source, target, rules, missing=["decoder.*"],
               proof="by construction: SegNet takes VGG's thirteen convolutions for its encoder only")  # fmt: skip


@pair("blind, part: co-teaching's two equal nets into a student and a teacher: no header tells which", "torchvision")
def coteaching(small: bool) -> Two:
    """Both were trained side by side; either may be either."""
    from torchvision.models import resnet18

    model = state(resnet18(weights=None, num_classes=14))
    source, target, rules = Net(), Net(), []
    for here, there in (("net1", "student"), ("net2", "teacher")):
        for key, tensor in model.items():
            source[f"{here}.{key}"] = tensor
        rules.append(f"{here}.{{k**}} -> {there}.backbone.{{k**}}")
    for there in ("teacher", "student"):
        for key, tensor in model.items():
            target[f"{there}.backbone.{key}"] = tensor
    return Two(source, target, rules, undecided=["*"],
               proof="by construction: one assignment of two that nothing tells apart")  # fmt: skip


@pair("blind, unrelated: a RetinaNet's pyramid and heads and a DeepLab's head, 256 wide", "torchvision")
def pyramids(small: bool) -> Two:
    """1x1 of 2048 channels, 3x3 of 2048 and of 256, biases of 256 on both sides, for other things."""
    from torchvision.models.detection import retinanet_resnet50_fpn
    from torchvision.models.segmentation import deeplabv3_resnet50

    detector = state(retinanet_resnet50_fpn(weights=None, weights_backbone=None))
    segmenter = state(deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=True))
    source, target = Net(), Net()
    source.update({key: tensor for key, tensor in detector.items() if not key.startswith("backbone.body")})
    target.update({key: tensor for key, tensor in segmenter.items() if not key.startswith("backbone")})
    return none(source, target, "torchvision's code: neither comes from the other")


@pair("blind, part: BERT's table of words into a tagger of other layers: nothing else fits", "transformers")
def words(small: bool) -> Two:
    """Biases, norms and a square Linear called dense have the shapes of BERT's, and are other things."""
    import transformers

    source = transformers.BertModel(transformers.BertConfig(num_hidden_layers=4))
    target = Net()
    target.put("word_embeddings.weight", 30522, 768)
    target.put("char_embeddings.weight", 120, 64)
    target.put("char_cnn.weight", 128, 64, 3)
    target.put("char_cnn.bias", 128)
    for layer, into in enumerate((896, 768)):
        for way in ("", "_reverse"):
            target.put(f"rnn.weight_ih_l{layer}{way}", 1536, into)
            target.put(f"rnn.weight_hh_l{layer}{way}", 1536, 384)
            target.put(f"rnn.bias_ih_l{layer}{way}", 1536)
            target.put(f"rnn.bias_hh_l{layer}{way}", 1536)
    target.norm("rnn_norm", 768)
    target.lin("tagger.dense", 768, 768)
    target.norm("tagger.norm", 768)
    target.lin("tagger.out", 9, 768)
    return Two(source, target, ["embeddings.word_embeddings.weight -> word_embeddings.weight",
                                "embeddings.{k**} -> !", "encoder.{k**} -> !", "pooler.{k**} -> !"],
               missing=["char_*", "rnn*", "tagger*"],
               proof="by construction: everything behind the table is another network")  # fmt: skip
