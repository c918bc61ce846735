"""Blind pairs: conversions between code bases, the everyday ones first."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.bench.match.blind import Net, Two, like, pair, renamed, split, state, to


def without(model: Any, *keys: str) -> dict[str, Any]:
    """A file of a model whose tied tensors are not saved twice."""
    found = dict(state(model))
    for key in keys:
        del found[key]
    return found


def spelled(target: Any, table: Sequence[Any], why: str, layouts: Sequence[tuple[str, str]] = (),
            order: Callable[[str], Any] | None = None, sizes: Mapping[str, int] | None = None,
            **also: Any) -> Two:  # fmt: skip
    """The other code base's file: target names by the table, "" if it has no such tensor; layouts lead back."""
    source, rules = Net(), []
    keys = list(state(target).items())
    if order:
        keys.sort(key=lambda item: order(item[0]))
    for key, tensor in keys:
        name = renamed(key, table)
        if not name:
            continue
        layout = next((layout for pattern, layout in layouts if re.search(pattern, key)), "")
        shape = tuple(tensor.shape)
        if layout:
            left, right = (re.findall(r"\([^)]*\)|\S+", side) for side in layout.split(" -> "))
            known = {"1": 1} | dict(sizes or {}) | dict(zip(right, shape, strict=True))
            shape = tuple(known[axis] for axis in left)
        if str(tensor.dtype) == "torch.int64":
            source.ints(name, *shape)
        else:
            source.put(name, *shape)
        rules.append(f"{name} -> {key}" + (f" | {layout}" if layout else ""))
    return Two(source, target, rules, proof=why, vars=dict(sizes or {}), **also)


# ---------------------------------------------------------------------------------------------- every day


@pair("blind: Flan-T5-small in llama.cpp's names to Hugging Face: enc.blk, dec.blk, cross_attn_q, attn_rel_b",
      "transformers")  # fmt: skip
def flan_t5_gguf(small: bool) -> Two:
    """Listed as the file of safetensors that it was made of: the decoder first."""
    import transformers

    model = transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=32128, d_ff=1024, num_layers=8, num_heads=6, feed_forward_proj="gated-gelu",
        tie_word_embeddings=False))  # fmt: skip
    target = without(model, "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    table: list[Any] = [
        (r"^shared", "token_embd"),
        (r"^lm_head", "output"),
        (r"^(enc|dec)oder\.final_layer_norm", r"\1.output_norm"),
        (r"^(enc|dec)oder\.block", r"\1.blk"),
        (r"\.layer\.0\.layer_norm", ".attn_norm"),
        (r"\.layer\.0\.SelfAttention\.relative_attention_bias", ".attn_rel_b"),
        (r"\.layer\.0\.SelfAttention\.", ".attn_"),
        (r"^(dec.*)\.layer\.1\.layer_norm", r"\1.cross_attn_norm"),
        (r"\.layer\.1\.EncDecAttention\.", ".cross_attn_"),
        (r"\.layer\.[12]\.layer_norm", ".ffn_norm"),
        (r"\.layer\.[12]\.DenseReluDense\.wi_0", ".ffn_gate"),
        (r"\.layer\.[12]\.DenseReluDense\.wi_1", ".ffn_up"),
        (r"\.layer\.[12]\.DenseReluDense\.wo", ".ffn_down"),
    ]
    return spelled(target, table, "gguf's tensor_mapping.py backwards; the gate is under the activation", (), str)


@pair("blind: gpt-oss-20b in OpenAI's torch names to Hugging Face: mlp1 and mlp2 are turned, qkv of grouped heads",
      "transformers")  # fmt: skip
def gpt_oss(small: bool) -> Two:
    """Unpacked; gate and up take turns on both sides, so that they stay as they are."""
    import transformers

    width, experts, depth = 2880, 32, 24
    target = transformers.GptOssForCausalLM(
        transformers.GptOssConfig(num_hidden_layers=depth, num_local_experts=experts)
    )
    source, groups = Net(), []
    source.put("embedding.weight", 201088, width)
    for layer in range(depth):
        at = f"block.{layer}"
        source.put(f"{at}.attn.sinks", 64)
        source.put(f"{at}.attn.norm.scale", width)
        source.lin(f"{at}.attn.qkv", 5120, width)
        source.lin(f"{at}.attn.out", width, 4096)
        source.put(f"{at}.mlp.mlp1_weight", experts, 2 * width, width)
        source.put(f"{at}.mlp.mlp1_bias", experts, 2 * width)
        source.put(f"{at}.mlp.mlp2_weight", experts, width, width)
        source.put(f"{at}.mlp.mlp2_bias", experts, width)
        source.put(f"{at}.mlp.norm.scale", width)
        source.lin(f"{at}.mlp.gate", experts, width)
        groups += split(f"{at}.attn.qkv", [f"model.layers.{layer}.self_attn.{x}_proj" for x in "qkv"])
    source.put("norm.scale", width)
    source.put("unembedding.weight", 201088, width)
    table: list[Any] = [
        (r".*\.qkv\..*", "@"),
        (r"^unembedding", "lm_head"),
        (r"^embedding", "model.embed_tokens"),
        (r"^norm\.scale", "model.norm.weight"),
        (r"^block", "model.layers"),
        (r"\.attn\.norm\.scale", ".input_layernorm.weight"),
        (r"\.mlp\.norm\.scale", ".post_attention_layernorm.weight"),
        (r"\.attn\.out", ".self_attn.o_proj"),
        (r"\.attn\.sinks", ".self_attn.sinks"),
        (r"\.mlp\.gate", ".mlp.router"),
        (r"\.mlp1_weight", ".experts.gate_up_proj"),
        (r"\.mlp1_bias", ".experts.gate_up_proj_bias"),
        (r"\.mlp2_weight", ".experts.down_proj"),
        (r"\.mlp2_bias", ".experts.down_proj_bias"),
    ]
    return to(source, target, table, [(r"mlp\d_weight$", "e o i -> e i o")], groups,
              truth="transformers' convert_gpt_oss_weights_to_hf.py; gpt_oss/torch/model.py",
              vars={"a": 4096, "b": 512, "c": 512}, hidden=["*.down_proj"])  # fmt: skip


@pair("blind: Phi-3-mini of Hugging Face to torchtune: qkv_proj and gate_up_proj split, norms have scales",
      "transformers")  # fmt: skip
def phi3_torchtune(small: bool) -> Two:
    """w1 is the gate, w3 is up, w2 is down; no rotary rows are turned."""
    import transformers

    width, inner, depth = 3072, 8192, 32
    source, target, groups = transformers.Phi3ForCausalLM(transformers.Phi3Config()), Net(), []
    target.put("tok_embeddings.weight", 32064, width)
    for layer in range(depth):
        at, here = f"layers.{layer}", f"model.layers.{layer}"
        for part in "qkv":
            target.lin(f"{at}.attn.{part}_proj", width, width, False)
        target.lin(f"{at}.attn.output_proj", width, width, False)
        target.lin(f"{at}.mlp.w1", inner, width, False)
        target.lin(f"{at}.mlp.w2", width, inner, False)
        target.lin(f"{at}.mlp.w3", inner, width, False)
        target.put(f"{at}.sa_norm.scale", width)
        target.put(f"{at}.mlp_norm.scale", width)
        groups += split(f"{here}.self_attn.qkv_proj", [f"{at}.attn.{x}_proj" for x in "qkv"], False)
        groups += split(f"{here}.mlp.gate_up_proj", [f"{at}.mlp.w1", f"{at}.mlp.w3"], False)
    target.put("norm.scale", width)
    target.put("output.weight", 32064, width)
    table: list[Any] = [
        (r".*(qkv_proj|gate_up_proj).*", "@"),
        (r"^model\.embed_tokens", "tok_embeddings"),
        (r"^lm_head", "output"),
        (r"^model\.norm\.weight", "norm.scale"),
        (r"^model\.layers", "layers"),
        (r"\.self_attn\.o_proj", ".attn.output_proj"),
        (r"\.mlp\.down_proj", ".mlp.w2"),
        (r"\.input_layernorm\.weight", ".sa_norm.scale"),
        (r"\.post_attention_layernorm\.weight", ".mlp_norm.scale"),
    ]
    return to(source, target, table, groups=groups, truth="torchtune's phi3_hf_to_tune")


@pair("blind: Gemma 3 1B in gemma_pytorch's names to Hugging Face: qkv of one group, query_norm is q_norm",
      "transformers")  # fmt: skip
def gemma3(small: bool) -> Two:
    """Most names are the same; the head is tied."""
    import transformers

    width, inner, depth = 1152, 6912, 26
    model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(
        vocab_size=262144, hidden_size=width, intermediate_size=inner, num_hidden_layers=depth, num_attention_heads=4,
        num_key_value_heads=1, head_dim=256))  # fmt: skip
    source, groups = Net(), []
    source.put("embedder.weight", 262144, width)
    for layer in range(depth):
        at = f"model.layers.{layer}"
        source.put(f"{at}.self_attn.qkv_proj.weight", 1536, width)
        source.put(f"{at}.self_attn.o_proj.weight", width, 1024)
        source.put(f"{at}.self_attn.query_norm.weight", 256)
        source.put(f"{at}.self_attn.key_norm.weight", 256)
        for name in ("gate", "up"):
            source.put(f"{at}.mlp.{name}_proj.weight", inner, width)
        source.put(f"{at}.mlp.down_proj.weight", width, inner)
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            source.put(f"{at}.{name}_layernorm.weight", width)
        groups += split(f"{at}.self_attn.qkv_proj", [f"{at}.self_attn.{x}_proj" for x in "qkv"], False)
    source.put("model.norm.weight", width)
    table: list[Any] = [
        (r".*qkv_proj.*", "@"),
        (r"^embedder", "model.embed_tokens"),
        (r"\.query_norm", ".q_norm"),
        (r"\.key_norm", ".k_norm"),
    ]
    return to(source, without(model, "lm_head.weight"), table, groups=groups,
              truth="the code of both: gemma/model.py splits q, k, v in this order and turns halves as transformers",
              vars={"a": 1024, "b": 256, "c": 256})  # fmt: skip


@pair("blind: mmpretrain's MobileNetV2 to torchvision: seventeen blocks in seven layers, units everywhere",
      "torchvision")  # fmt: skip
def mobilenetv2_mm(small: bool) -> Two:
    """The last unit of a block is a convolution and a norm beside each other there."""
    import torchvision

    target = torchvision.models.mobilenet_v2(weights=None)
    places = [(f"layer{i + 1}", j) for i, count in enumerate((1, 2, 3, 4, 3, 3, 1)) for j in range(count)]

    def block(match: re.Match[str]) -> str:
        layer, number = places[int(match[1]) - 1]
        return f"backbone.{layer}.{number}.conv."

    table: list[Any] = [
        (r"^features\.0\.0", "backbone.conv1.conv"),
        (r"^features\.0\.1", "backbone.conv1.bn"),
        (r"^features\.18\.0", "backbone.conv2.conv"),
        (r"^features\.18\.1", "backbone.conv2.bn"),
        (r"^classifier\.1", "head.fc"),
        (r"^(features\.\d+\.conv\.\d)\.0\.", r"\1.conv."),
        (r"^(features\.\d+\.conv\.\d)\.1\.", r"\1.bn."),
        (r"^(features\.1\.conv)\.1\.(?!conv)", r"\1.1.conv."),
        (r"^(features\.1\.conv)\.2\.", r"\1.1.bn."),
        (r"^(features\.(?!1\.)\d+\.conv)\.2\.", r"\1.2.conv."),
        (r"^(features\.(?!1\.)\d+\.conv)\.3\.", r"\1.2.bn."),
        (r"^features\.(\d+)\.conv\.", block),
    ]
    return spelled(target, table, "mmpretrain's mobilenet_v2.py: InvertedResidual's conv is two or three ConvModules")


@pair("blind: ConvNeXt V2-T in Facebook's names to Hugging Face: grn.gamma, a list of ways down beside the stages",
      "transformers")  # fmt: skip
def convnextv2(small: bool) -> Two:
    """The stem is the first way down; the last norm stands outside."""
    import transformers

    target = transformers.ConvNextV2ForImageClassification(transformers.ConvNextV2Config(num_labels=1000))
    table: list[Any] = [
        (r"^convnextv2\.embeddings\.patch_embeddings", "downsample_layers.0.0"),
        (r"^convnextv2\.embeddings\.layernorm", "downsample_layers.0.1"),
        (r"^convnextv2\.encoder\.stages\.(\d)\.downsampling_layer", r"downsample_layers.\1"),
        (r"^convnextv2\.encoder\.stages\.(\d)\.layers", r"stages.\1"),
        (r"^convnextv2\.layernorm", "norm"),
        (r"^classifier", "head"),
        (r"\.layernorm", ".norm"),
        (r"\.grn\.weight", ".grn.gamma"),
        (r"\.grn\.bias", ".grn.beta"),
    ]

    def order(key: str) -> int:
        return ["downsample_layers", "stages", "norm", "head"].index(renamed(key, table).split(".")[0])

    return spelled(target, table, "transformers' convert_convnextv2_to_pytorch.py", (), order)


@pair("blind: torchvision's FCN-ResNet50 to mmseg: the classifier's numbers are convs and conv_seg", "torchvision")
def fcn_mmseg(small: bool) -> Two:
    """conv_seg is listed before the convolution that it follows."""
    import torchvision

    source = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True)
    target = like({key: one for key, one in state(source).items() if key.startswith("backbone")}, lambda key: key)
    for head, into, width in (("decode_head", 2048, 512), ("auxiliary_head", 1024, 256)):
        target.conv(f"{head}.conv_seg", 21, width, 1)
        target.conv(f"{head}.convs.0.conv", width, into, 3, bias=False)
        target.bn(f"{head}.convs.0.bn", width)
    table: list[Any] = [
        (r"^classifier", "decode_head"),
        (r"^aux_classifier", "auxiliary_head"),
        (r"_head\.0\.", "_head.convs.0.conv."),
        (r"_head\.1\.", "_head.convs.0.bn."),
        (r"_head\.4\.", "_head.conv_seg."),
    ]
    return to(source, target, table,
              truth="the code of both: FCNHead of one convolution, not concatenated, contracted dilations")  # fmt: skip


@pair("blind: Hugging Face's Wav2Vec2 for CTC to torchaudio: the features' projection moves into the encoder",
      "transformers")  # fmt: skip
def wav2vec2_torchaudio(small: bool) -> Two:
    """The mask's embedding stays behind; lm_head is aux."""
    import transformers

    width, target = 768, Net()
    for i, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        at = f"feature_extractor.conv_layers.{i}"
        if i == 0:
            target.norm(f"{at}.layer_norm", 512)
        target.put(f"{at}.conv.weight", 512, 512 if i else 1, kernel)
    target.norm("encoder.feature_projection.layer_norm", 512)
    target.lin("encoder.feature_projection.projection", width, 512)
    target.put("encoder.transformer.pos_conv_embed.conv.bias", width)
    target.put("encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original0", 1, 1, 128)
    target.put("encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original1", width, 48, 128)
    target.norm("encoder.transformer.layer_norm", width)
    for layer in range(12):
        at = f"encoder.transformer.layers.{layer}"
        target.lins(*(f"{at}.attention.{x}_proj" for x in ("k", "v", "q", "out")), out=width, into=width)
        target.norm(f"{at}.layer_norm", width)
        target.lin(f"{at}.feed_forward.intermediate_dense", 4 * width, width)
        target.lin(f"{at}.feed_forward.output_dense", width, 4 * width)
        target.norm(f"{at}.final_layer_norm", width)
    target.lin("aux", 32, width)
    table: list[Any] = [
        (r"^wav2vec2\.masked_spec_embed", ""),
        (r"^wav2vec2\.feature_projection", "encoder.feature_projection"),
        (r"^wav2vec2\.encoder", "encoder.transformer"),
        (r"^wav2vec2\.", ""),
        (r"^lm_head", "aux"),
    ]
    return to(transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config()), target, table,
              truth="torchaudio's import_huggingface.py")  # fmt: skip


@pair("blind: timm's Swin V2-T to Hugging Face: qkv split, q and v have biases, ways down moved a stage",
      "timm", "transformers")  # fmt: skip
def swinv2_hf(small: bool) -> Two:
    """cpb_mlp is continuous_position_bias_mlp."""
    import timm
    import transformers

    source = timm.create_model("swinv2_tiny_window8_256", pretrained=False)
    target = transformers.Swinv2ForImageClassification(transformers.Swinv2Config(
        image_size=256, window_size=8, num_labels=1000))  # fmt: skip
    groups = []
    for stage, depth in enumerate((2, 2, 6, 2)):
        for block in range(depth):
            there = f"swinv2.encoder.layers.{stage}.blocks.{block}.attention.self"
            names = [f"{there}.{x}" for x in ("query", "key", "value")]
            groups += split(f"layers.{stage}.blocks.{block}.attn.qkv", names, False)
    table: list[Any] = [
        (r".*\.qkv\..*", "@"),
        (r"^patch_embed\.proj", "swinv2.embeddings.patch_embeddings.projection"),
        (r"^patch_embed\.norm", "swinv2.embeddings.norm"),
        (r"^norm\.", "swinv2.layernorm."),
        (r"^head\.fc", "classifier"),
        (r"^layers\.(\d)\.downsample", lambda m: f"swinv2.encoder.layers.{int(m[1]) - 1}.downsample"),
        (r"^layers", "swinv2.encoder.layers"),
        (r"\.attn\.cpb_mlp", ".attention.self.continuous_position_bias_mlp"),
        (r"\.attn\.logit_scale", ".attention.self.logit_scale"),
        (r"\.attn\.q_bias", ".attention.self.query.bias"),
        (r"\.attn\.v_bias", ".attention.self.value.bias"),
        (r"\.attn\.proj", ".attention.output.dense"),
        (r"\.norm1", ".layernorm_before"),
        (r"\.norm2", ".layernorm_after"),
        (r"\.mlp\.fc1", ".intermediate.dense"),
        (r"\.mlp\.fc2", ".output.dense"),
    ]
    return to(source, target, table, groups=groups,
              truth="transformers' convert_swinv2_timm_to_pytorch.py; timm's ways down moved since")  # fmt: skip


@pair("blind: torchvision's ResNeXt-101 into MiDaS: stem and first stage are one Sequential", "torchvision")
def midas(small: bool) -> Two:
    """The refinements and the last convolutions are new; the head stays behind."""
    import torchvision

    source = torchvision.models.resnext101_32x8d(weights=None)

    def named(key: str) -> str:
        table: list[Any] = [
            (r"^fc\..*", ""),
            (r"^conv1\.", "pretrained.layer1.0."),
            (r"^bn1\.", "pretrained.layer1.1."),
            (r"^layer1\.", "pretrained.layer1.4."),
            (r"^layer", "pretrained.layer"),
        ]
        return renamed(key, table)

    target = like(source, named)
    for i in range(4):
        target.conv(f"scratch.layer{i + 1}_rn", 256, 256 << i, 3, bias=False)
    for i in (4, 3, 2, 1):
        for unit in (1, 2):
            for number in (1, 2):
                target.conv(f"scratch.refinenet{i}.resConfUnit{unit}.conv{number}", 256, 256, 3)
    target.conv("scratch.output_conv.0", 128, 256, 3)
    target.conv("scratch.output_conv.2", 32, 128, 3)
    target.conv("scratch.output_conv.4", 1, 32, 1)
    rules = [f"{key} -> {named(key) or '!'}" for key in state(source)]
    return Two(source, target, rules, missing=["scratch.*"], proof="MiDaS' blocks.py, _make_resnet_backbone")


@pair("blind: timm's EfficientNet-B0 to Hugging Face: blocks counted through, expansion, squeeze_excite, projection",
      "timm", "transformers")  # fmt: skip
def efficientnet_hf(small: bool) -> Two:
    """In the first block conv_pw projects."""
    import timm
    import transformers

    source = timm.create_model("tf_efficientnet_b0", pretrained=False)
    target = transformers.EfficientNetForImageClassification(transformers.EfficientNetConfig(
        width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, image_size=224, num_labels=1000,
        depthwise_padding=[16]))  # fmt: skip
    starts = [0, 1, 3, 5, 8, 11, 15]
    parts = {"conv_pw": "expansion.expand_conv", "bn1": "expansion.expand_bn",
             "conv_dw": "depthwise_conv.depthwise_conv", "bn2": "depthwise_conv.depthwise_norm",
             "se.conv_reduce": "squeeze_excite.reduce", "se.conv_expand": "squeeze_excite.expand",
             "conv_pwl": "projection.project_conv", "bn3": "projection.project_bn"}  # fmt: skip
    first = {"conv_pw": "conv_pwl", "bn1": "bn2", "bn2": "bn3"}

    def block(match: re.Match[str]) -> str:
        number, part = starts[int(match[1])] + int(match[2]), match[3]
        return f"efficientnet.encoder.blocks.{number}.{parts[part if number else first.get(part, part)]}."

    table: list[Any] = [
        (r"^conv_stem", "efficientnet.embeddings.convolution"),
        (r"^bn1\.", "efficientnet.embeddings.batchnorm."),
        (r"^conv_head", "efficientnet.encoder.top_conv"),
        (r"^bn2\.", "efficientnet.encoder.top_bn."),
        (r"^blocks\.(\d)\.(\d)\.([\w.]+)\.(?=\w+$)", block),
    ]
    return to(
        source, target, table, truth="Keras' network in both: timm's tf_efficientnet_b0, transformers' EfficientNet"
    )


# ---------------------------------------------------------------------------------------------- less usual


@pair("blind: Pegasus in TensorFlow's names to Hugging Face: memory_attention, q, k, v without biases", "transformers")
def pegasus(small: bool) -> Two:
    """Listed by letters; positions are computed, biases of attention are zeros."""
    import transformers

    model = transformers.PegasusForConditionalGeneration(transformers.PegasusConfig(
        vocab_size=96103, d_model=1024, encoder_layers=16, decoder_layers=16, encoder_ffn_dim=4096,
        decoder_ffn_dim=4096))  # fmt: skip
    target = without(model, "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    table: list[Any] = [
        (r".*(_proj\.bias|embed_positions\.weight|final_logits_bias)$", ""),
        (r"^model\.", ""),
        (r"^shared\.weight", "embeddings/weights"),
        (r"\.layers\.", "/layer_"),
        (r"encoder_attn", "memory_attention"),
        (r"self_attn", "self_attention"),
        (r"out_proj", "output_proj"),
        (r"\.fc1", "/ffn/dense"),
        (r"\.fc2", "/ffn/dense_1"),
        (r"\.final_layer_norm", "/ffn/LayerNorm"),
        (r"[._]layer_norm", "/LayerNorm"),
        (r"LayerNorm\.weight", "LayerNorm/gamma"),
        (r"LayerNorm\.bias", "LayerNorm/beta"),
        (r"\.weight$", "/kernel"),
        (r"\.", "/"),
    ]
    return spelled(
        target,
        table,
        "transformers' convert_pegasus_tf_to_pytorch.py",
        [(r"(_proj|fc\d)\.weight$", "i o -> o i")],
        lambda key: renamed(key, table),
        missing=["*_proj.bias", "*embed_positions*", "final_logits_bias"],
    )


@pair("blind: GLPN by vinvino02, in DataParallel, to Hugging Face: kv split, skips and fusions became stages",
      "transformers")  # fmt: skip
def glpn(small: bool) -> Two:
    """A SegFormer-B4 without a head of its own under a decoder of selective fusions."""
    import transformers

    sizes, depths, source, groups = (64, 128, 320, 512), (3, 8, 27, 3), Net(), []
    target = transformers.GLPNForDepthEstimation(transformers.GLPNConfig(
        hidden_sizes=list(sizes), depths=list(depths), decoder_hidden_size=64))  # fmt: skip
    for i, width in enumerate(sizes):
        source.conv(f"module.encoder.patch_embed{i + 1}.proj", width, sizes[i - 1] if i else 3, 3 if i else 7)
        source.norm(f"module.encoder.patch_embed{i + 1}.norm", width)
    for i, (width, depth) in enumerate(zip(sizes, depths, strict=True)):
        for block in range(depth):
            at, there = f"module.encoder.block{i + 1}.{block}", f"glpn.encoder.block.{i}.{block}.attention.self"
            source.norm(f"{at}.norm1", width)
            source.lin(f"{at}.attn.q", width, width)
            source.lin(f"{at}.attn.kv", 2 * width, width)
            source.lin(f"{at}.attn.proj", width, width)
            if i < 3:
                source.conv(f"{at}.attn.sr", width, width, 8 >> i)
                source.norm(f"{at}.attn.norm", width)
            source.norm(f"{at}.norm2", width)
            source.lin(f"{at}.mlp.fc1", 4 * width, width)
            source.conv(f"{at}.mlp.dwconv.dwconv", 4 * width, 1, 3)
            source.lin(f"{at}.mlp.fc2", width, 4 * width)
            groups += split(f"{at}.attn.kv", [f"{there}.key", f"{there}.value"])
        source.norm(f"module.encoder.norm{i + 1}", width)
    for name, into in (("bot_conv", 512), ("skip_conv1", 320), ("skip_conv2", 128)):
        source.conv(f"module.decoder.{name}", 64, into, 1)
    for i in (1, 2, 3):
        at = f"module.decoder.fusion{i}"
        for number, (out, into) in enumerate(((64, 128), (32, 64))):
            source.conv(f"{at}.conv{number + 1}.0", out, into, 3)
            source.bn(f"{at}.conv{number + 1}.1", out)
        source.conv(f"{at}.conv3", 2, 32, 3)
    source.conv("module.last_layer_depth.0", 64, 64, 3)
    source.conv("module.last_layer_depth.2", 1, 64, 3)
    table: list[Any] = [
        (r".*\.attn\.kv\..*", "@"),
        (r"^module\.last_layer_depth", "head.head"),
        (r"^module\.decoder\.bot_conv", "decoder.stages.0.convolution"),
        (r"^module\.decoder\.skip_conv(\d)", r"decoder.stages.\1.convolution"),
        (r"^module\.decoder\.fusion(\d)\.conv(\d)", r"decoder.stages.\1.fusion.convolutional_layer\2"),
        (
            r"^module\.encoder\.patch_embed(\d)\.norm",
            lambda m: f"glpn.encoder.patch_embeddings.{int(m[1]) - 1}.layer_norm",
        ),
        (r"^module\.encoder\.patch_embed(\d)", lambda m: f"glpn.encoder.patch_embeddings.{int(m[1]) - 1}"),
        (r"^module\.encoder\.block(\d)", lambda m: f"glpn.encoder.block.{int(m[1]) - 1}"),
        (r"^module\.encoder\.norm(\d)", lambda m: f"glpn.encoder.layer_norm.{int(m[1]) - 1}"),
        (r"\.attn\.q\.", ".attention.self.query."),
        (r"\.attn\.proj", ".attention.output.dense"),
        (r"\.attn\.sr", ".attention.self.sr"),
        (r"\.attn\.norm", ".attention.self.layer_norm"),
        (r"\.norm(\d)", r".layer_norm_\1"),
        (r"\.mlp\.fc(\d)", r".mlp.dense\1"),
    ]
    return to(source, target, table, groups=groups, truth="transformers' convert_glpn_to_pytorch.py")


@pair("blind: GroupViT by NVIDIA to Hugging Face: qkv and in_proj split, projectors of Conv1d are Linears",
      "transformers")  # fmt: skip
def groupvit(small: bool) -> Two:
    """The picture's tower comes first here; cross attentions are not fused; a second temperature stays behind."""
    import transformers

    target = transformers.GroupViTModel(transformers.GroupViTConfig())
    source, groups, width, words = Net(), [], 384, 256

    def mlp(at: str, inner: int, into: int = width, out: int = width) -> None:
        source.lin(f"{at}.fc1", inner, into)
        source.lin(f"{at}.fc2", out, inner)

    source.put("logit_scale")
    source.put("multi_label_logit_scale")
    source.put("img_encoder.pos_embed", 1, 196, width)
    source.conv("img_encoder.patch_embed.proj", width, 3, 16)
    source.norm("img_encoder.patch_embed.norm", width)
    for stage, (depth, tokens, made) in enumerate(((6, 64, 64), (3, 8, 8), (3, 0, 0))):
        at = f"img_encoder.layers.{stage}"
        if tokens:
            source.put(f"{at}.group_token", 1, tokens, width)
        for block in range(depth):
            here = f"{at}.blocks.{block}"
            source.norm(f"{here}.norm1", width)
            source.lin(f"{here}.attn.qkv", 3 * width, width)
            source.lin(f"{here}.attn.proj", width, width)
            source.norm(f"{here}.norm2", width)
            mlp(f"{here}.mlp", 4 * width)
            there = f"vision_model.encoder.stages.{stage}.layers.{block}.self_attn"
            groups += split(f"{here}.attn.qkv", [f"{there}.{x}_proj" for x in "qkv"])
        if tokens:
            here = f"{at}.downsample"
            source.norm(f"{here}.norm_tokens", width)
            mlp(f"{here}.mlp_inter", width // 2, tokens, made)
            source.lns(
                *(f"{here}.{x}" for x in ("norm_post_tokens", "norm_x", "pre_assign_attn.norm_post")), size=width
            )
            source.lins(*(f"{here}.pre_assign_attn.attn.{x}" for x in ("q_proj", "k_proj", "v_proj", "proj")),
                        out=width, into=width)  # fmt: skip
            source.norm(f"{here}.pre_assign_attn.norm2", width)
            mlp(f"{here}.pre_assign_attn.mlp", 4 * width)
            source.lins(*(f"{here}.assign.{x}" for x in ("q_proj", "k_proj", "v_proj", "proj")), out=width, into=width)
            source.norm(f"{here}.norm_new_x", width)
            mlp(f"{here}.mlp_channels", 4 * width)
        if stage == 1:
            source.norm(f"{at}.group_projector.0", width)
            mlp(f"{at}.group_projector.1", width // 2, 64, 8)
    source.norm("img_encoder.norm", width)
    source.put("text_encoder.positional_embedding", 77, words)
    for layer in range(12):
        at, there = f"text_encoder.transformer.resblocks.{layer}", f"text_model.encoder.layers.{layer}.self_attn"
        source.mha(f"{at}.attn", words)
        source.norm(f"{at}.ln_1", words)
        source.lin(f"{at}.mlp.c_fc", 4 * words, words)
        source.lin(f"{at}.mlp.c_proj", words, 4 * words)
        source.norm(f"{at}.ln_2", words)
        groups += split(f"{at}.attn.in_proj", [f"{there}.{x}_proj" for x in "qkv"], True, "_weight", "_bias")
    source.norm("text_encoder.ln_final", words)
    source.put("text_encoder.token_embedding.weight", 49408, words)
    for name, into in (("img", width), ("text", words)):
        source.put(f"{name}_projector.linear_hidden.0.weight", 4096, into, 1)
        source.put(f"{name}_projector.linear_hidden.0.bias", 4096)
        source.bn(f"{name}_projector.linear_hidden.1", 4096)
        source.put(f"{name}_projector.linear_out.weight", 256, 4096, 1)
        source.put(f"{name}_projector.linear_out.bias", 256)
    table: list[Any] = [
        (r".*\.(qkv\.|in_proj_).*", "@"),
        (r"^multi_label_logit_scale", ""),
        (r"^img_projector\.linear_hidden", "visual_projection"),
        (r"^text_projector\.linear_hidden", "text_projection"),
        (r"^img_projector\.linear_out", "visual_projection.3"),
        (r"^text_projector\.linear_out", "text_projection.3"),
        (r"^img_encoder\.pos_embed", "vision_model.embeddings.position_embeddings"),
        (r"^img_encoder\.patch_embed\.proj", "vision_model.embeddings.patch_embeddings.projection"),
        (r"^img_encoder\.patch_embed\.norm", "vision_model.embeddings.layernorm"),
        (r"^img_encoder\.norm", "vision_model.layernorm"),
        (r"^img_encoder\.layers", "vision_model.encoder.stages"),
        (r"\.blocks\.(\d)\.attn\.proj", r".layers.\1.self_attn.out_proj"),
        (r"\.blocks\.(\d)\.norm", r".layers.\1.layer_norm"),
        (r"\.blocks\.", ".layers."),
        (r"pre_assign_attn\.attn\.proj", "pre_assign_attn.attn.out_proj"),
        (r"^text_encoder\.positional_embedding", "text_model.embeddings.position_embedding.weight"),
        (r"^text_encoder\.token_embedding", "text_model.embeddings.token_embedding"),
        (r"^text_encoder\.ln_final", "text_model.final_layer_norm"),
        (r"^text_encoder\.transformer\.resblocks", "text_model.encoder.layers"),
        (r"^(text.*)\.attn\.", r"\1.self_attn."),
        (r"\.ln_(\d)", r".layer_norm\1"),
        (r"\.c_fc", ".fc1"),
        (r"\.c_proj", ".fc2"),
    ]
    return to(source, target, table, [(r"projector\.linear_(hidden\.0|out)\.weight", "o i 1 -> o i")], groups,
              truth="transformers' convert_groupvit_nvlab_to_hf.py")  # fmt: skip


@pair("blind: OpenAI's consistency model of ImageNet-64 to diffusers: resizing blocks, qkv of 1x1 convolutions split")
def consistency(small: bool) -> Two:
    """The way up is listed before the middle in diffusers, attentions before their residual blocks."""
    source, target, groups = Net(), Net(), []
    rules: list[str] = []
    parts = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
             "out_layers.3": "conv2", "skip_connection": "conv_shortcut"}  # fmt: skip

    def say(old: str, new: str, layout: str = "") -> None:
        rules.extend(f"{old}.{tail} -> {new}.{tail}" + (f" | {layout}" if layout and tail == "weight" else "")
                     for tail in ("weight", "bias"))  # fmt: skip

    def residual(net: Net, at: str, into: int, out: int, names: Sequence[str]) -> None:
        net.norm(f"{at}.{names[0]}", into)
        net.conv(f"{at}.{names[1]}", out, into, 3)
        net.lin(f"{at}.{names[2]}", 2 * out, 768)
        net.norm(f"{at}.{names[3]}", out)
        net.conv(f"{at}.{names[4]}", out, out, 3)
        if into != out:
            net.conv(f"{at}.{names[5]}", out, into, 1)

    def old_residual(old: str, new: str, into: int, out: int) -> None:
        residual(source, old, into, out, list(parts))
        for one, other in list(parts.items())[: 6 if into != out else 5]:
            say(f"{old}.{one}", f"{new}.{other}")

    def new_residual(at: str, into: int, out: int) -> None:
        residual(target, at, into, out, list(parts.values()))

    def old_attention(old: str, new: str, width: int) -> None:
        source.norm(f"{old}.norm", width)
        source.conv(f"{old}.qkv", 3 * width, width, 1)
        source.conv(f"{old}.proj_out", width, width, 1)
        say(f"{old}.norm", f"{new}.group_norm")
        say(f"{old}.proj_out", f"{new}.to_out.0", "o i 1 1 -> o i")
        for tail, axes in (("weight", " i 1 1"), ("bias", "")):
            names = ", ".join(f"{new}.to_{x}.{tail}" for x in "qkv")
            end = " i" if tail == "weight" else ""
            groups.append(f"{old}.qkv.{tail} -> {names} | (q + k + v){axes} -> q{end}, k{end}, v{end}")

    def new_attention(at: str, width: int) -> None:
        target.norm(f"{at}.group_norm", width)
        target.lins(*(f"{at}.to_{x}" for x in ("q", "k", "v", "out.0")), out=width, into=width)

    source.lin("time_embed.0", 768, 192)
    source.lin("time_embed.2", 768, 768)
    source.put("label_emb.weight", 1000, 768)
    source.conv("input_blocks.0.0", 192, 3, 3)
    target.conv("conv_in", 192, 3, 3)
    target.lin("time_embedding.linear_1", 768, 192)
    target.lin("time_embedding.linear_2", 768, 768)
    target.put("class_embedding.weight", 1000, 768)
    say("input_blocks.0.0", "conv_in")
    say("time_embed.0", "time_embedding.linear_1")
    say("time_embed.2", "time_embedding.linear_2")
    rules.append("label_emb.weight -> class_embedding.weight")
    widths, skips, number, last = (192, 384, 576, 768), [192], 0, 192
    for level, width in enumerate(widths):
        there = f"down_blocks.{level}"
        if level:
            for i in range(3):
                new_attention(f"{there}.attentions.{i}", width)
        for i in range(3):
            number += 1
            old_residual(f"input_blocks.{number}.0", f"{there}.resnets.{i}", last, width)
            new_residual(f"{there}.resnets.{i}", last, width)
            if level:
                old_attention(f"input_blocks.{number}.1", f"{there}.attentions.{i}", width)
            last = width
            skips.append(width)
        if level < 3:
            number += 1
            old_residual(f"input_blocks.{number}.0", f"{there}.downsamplers.0", width, width)
            new_residual(f"{there}.downsamplers.0", width, width)
            skips.append(width)
    old_residual("middle_block.0", "mid_block.resnets.0", 768, 768)
    old_attention("middle_block.1", "mid_block.attentions.0", 768)
    old_residual("middle_block.2", "mid_block.resnets.1", 768, 768)
    for level, width in enumerate(widths[::-1]):
        there = f"up_blocks.{level}"
        if level < 3:
            for i in range(4):
                new_attention(f"{there}.attentions.{i}", width)
        for i in range(4):
            at, into = f"output_blocks.{4 * level + i}", last + skips.pop()
            old_residual(f"{at}.0", f"{there}.resnets.{i}", into, width)
            new_residual(f"{there}.resnets.{i}", into, width)
            if level < 3:
                old_attention(f"{at}.1", f"{there}.attentions.{i}", width)
            last = width
        if level < 3:
            old_residual(f"output_blocks.{4 * level + 3}.2", f"{there}.upsamplers.0", width, width)
            new_residual(f"{there}.upsamplers.0", width, width)
    new_attention("mid_block.attentions.0", 768)
    new_residual("mid_block.resnets.0", 768, 768)
    new_residual("mid_block.resnets.1", 768, 768)
    source.norm("out.0", 192)
    source.conv("out.2", 3, 192, 3)
    target.norm("conv_norm_out", 192)
    target.conv("conv_out", 3, 192, 3)
    say("out.0", "conv_norm_out")
    say("out.2", "conv_out")
    return Two(source, target, [*rules, *groups], proof="diffusers' convert_consistency_to_diffusers.py")


@pair("blind: OpenAI's DALL-E encoder to Hugging Face's codebook of FLAVA: w and b, groups have a group inside",
      "transformers")  # fmt: skip
def dalle(small: bool) -> Two:
    """Residual paths have a path inside as well."""
    import transformers

    target = transformers.FlavaImageCodebook(transformers.FlavaImageCodebookConfig())
    table: list[Any] = [
        (r"\.group\.", "."),
        (r"\.res_path\.path\.", ".res_path."),
        (r"\.weight$", ".w"),
        (r"\.bias$", ".b"),
    ]
    return spelled(target, table, "transformers' convert_dalle_to_flava_codebook.py backwards")


@pair("blind: UnivNet by MINDsLab to Hugging Face: numbers of Sequentials are names, old weight norms",
      "transformers")  # fmt: skip
def univnet(small: bool) -> Two:
    """The first convolution is listed behind the blocks, a block's predictor in front of its upsampling."""
    import transformers

    target = transformers.UnivNetModel(transformers.UnivNetConfig())
    target.apply_weight_norm()
    table: list[Any] = [
        (r"^conv_post\.", "conv_post.1."),
        (r"^resblocks\.", "res_stack."),
        (r"\.convt_pre\.", ".convt_pre.1."),
        (r"\.kernel_predictor\.input_conv\.", ".kernel_predictor.input_conv.0."),
        (r"\.kernel_predictor\.resblocks\.(\d)\.conv1", r".kernel_predictor.residual_convs.\1.1"),
        (r"\.kernel_predictor\.resblocks\.(\d)\.conv2", r".kernel_predictor.residual_convs.\1.3"),
        (r"\.resblocks\.(\d)\.conv\.", r".conv_blocks.\1.1."),
        (r"\.parametrizations\.weight\.original0", ".weight_g"),
        (r"\.parametrizations\.weight\.original1", ".weight_v"),
    ]
    parts = ["kernel_predictor", "convt_pre", "conv_blocks"]

    def order(key: str) -> tuple[int, int, int]:
        words = renamed(key, table).split(".")
        place = ["res_stack", "conv_pre", "conv_post"].index(words[0])
        return (place, 0, 0) if place else (0, int(words[1]), parts.index(words[2]))

    return spelled(
        target, table, "transformers' convert_univnet.py; the authors' generator.py and lvcnet.py", (), order
    )


@pair("blind: ViViT-B in Scenic's Flax names to Hugging Face: tubelets, heads are an axis, listed by letters",
      "transformers")  # fmt: skip
def vivit(small: bool) -> Two:
    """LayerNorm_0 and LayerNorm_1, Dense_0 and Dense_1 are all that tells places apart."""
    import transformers

    target = transformers.VivitForVideoClassification(transformers.VivitConfig(num_labels=400))
    table: list[Any] = [
        (r"^classifier\.weight", "output_projection/kernel"),
        (r"^classifier\.bias", "output_projection/bias"),
        (r"^vivit\.embeddings\.cls_token", "cls"),
        (r"^vivit\.embeddings\.position_embeddings", "Transformer/posembed_input/pos_embedding"),
        (r"^vivit\.embeddings\.patch_embeddings\.projection\.weight", "embedding/kernel"),
        (r"^vivit\.embeddings\.patch_embeddings\.projection\.bias", "embedding/bias"),
        (r"^vivit\.layernorm\.", "Transformer/encoder_norm/"),
        (r"^vivit\.layers\.(\d+)\.", r"Transformer/encoderblock_\1/"),
        (r"layernorm_before\.", "LayerNorm_0/"),
        (r"layernorm_after\.", "LayerNorm_1/"),
        (r"mlp\.fc1\.", "MlpBlock_0/Dense_0/"),
        (r"mlp\.fc2\.", "MlpBlock_0/Dense_1/"),
        (r"attention\.q_proj\.", "MultiHeadDotProductAttention_0/query/"),
        (r"attention\.k_proj\.", "MultiHeadDotProductAttention_0/key/"),
        (r"attention\.v_proj\.", "MultiHeadDotProductAttention_0/value/"),
        (r"attention\.o_proj\.", "MultiHeadDotProductAttention_0/out/"),
        (r"((?:LayerNorm_\d|encoder_norm)/)weight", r"\1scale"),
        (r"/weight$", "/kernel"),
        (r"^", "optimizer/target/"),
    ]
    layouts = [
        (r"patch_embeddings.*weight", "t y x c o -> o c t y x"),
        (r"\.[qkv]_proj\.weight", "i h d -> (h d) i"),
        (r"\.[qkv]_proj\.bias", "h d -> (h d)"),
        (r"\.o_proj\.weight", "h d o -> o (h d)"),
        (r"(fc\d|classifier)\.weight", "i o -> o i"),
    ]
    return spelled(target, table, "transformers' convert_vivit_flax_to_pytorch.py", layouts,
                   lambda key: renamed(key, table), {"h": 12, "d": 64})  # fmt: skip


@pair("blind: Matterport's Mask R-CNN in Keras to multimodallearning's PyTorch: res4b_branch2a is C4.1.conv1")
def mask_rcnn_matterport(small: bool) -> Two:
    """A ResNet-101 whose convolutions have biases; 81 classes; listed by letters."""
    target = Net()

    def unit(conv: str, bn: str, out: int, into: int, kernel: int) -> None:
        target.conv(conv, out, into, kernel)
        target.bn(bn, out, False)

    unit("fpn.C1.0", "fpn.C1.1", 64, 3, 7)
    last = 64
    for stage, (width, depth) in enumerate(((64, 3), (128, 4), (256, 23), (512, 3)), 2):
        for block in range(depth):
            at = f"fpn.C{stage}.{block}"
            unit(f"{at}.conv1", f"{at}.bn1", width, last, 1)
            unit(f"{at}.conv2", f"{at}.bn2", width, width, 3)
            unit(f"{at}.conv3", f"{at}.bn3", 4 * width, width, 1)
            if block == 0:
                unit(f"{at}.downsample.0", f"{at}.downsample.1", 4 * width, last, 1)
            last = 4 * width
    for level in (5, 4, 3, 2):
        target.conv(f"fpn.P{level}_conv1", 256, 64 << level, 1)
        target.conv(f"fpn.P{level}_conv2.1", 256, 256, 3)
    target.conv("rpn.conv_shared", 512, 256, 3)
    target.conv("rpn.conv_class", 6, 512, 1)
    target.conv("rpn.conv_bbox", 12, 512, 1)
    unit("classifier.conv1", "classifier.bn1", 1024, 256, 7)
    unit("classifier.conv2", "classifier.bn2", 1024, 1024, 1)
    target.lin("classifier.linear_class", 81, 1024)
    target.lin("classifier.linear_bbox", 324, 1024)
    for i in range(1, 5):
        unit(f"mask.conv{i}", f"mask.bn{i}", 256, 256, 3)
    target.put("mask.deconv.weight", 256, 256, 2, 2)
    target.put("mask.deconv.bias", 256)
    target.conv("mask.conv5", 81, 256, 1)
    words = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}

    def letter(number: str) -> str:
        return "abcdefghijklmnopqrstuvwxyz"[int(number)]

    table: list[Any] = [
        (r"(\.bn\d|downsample\.1|C1\.1)\.(\w+)$", lambda m: f"{m[1]}.{words[m[2]]}"),
        (r"\.weight$", ".kernel"),
        (r"^fpn\.C1\.0", "conv1"),
        (r"^fpn\.C1\.1", "bn_conv1"),
        (r"^fpn\.C(\d)\.(\d+)\.conv(\d)", lambda m: f"res{m[1]}{letter(m[2])}_branch2{'abc'[int(m[3]) - 1]}"),
        (r"^fpn\.C(\d)\.(\d+)\.bn(\d)", lambda m: f"bn{m[1]}{letter(m[2])}_branch2{'abc'[int(m[3]) - 1]}"),
        (r"^fpn\.C(\d)\.0\.downsample\.0", r"res\1a_branch1"),
        (r"^fpn\.C(\d)\.0\.downsample\.1", r"bn\1a_branch1"),
        (r"^fpn\.P(\d)_conv1", r"fpn_c\1p\1"),
        (r"^fpn\.P(\d)_conv2\.1", r"fpn_p\1"),
        (r"^rpn\.conv_shared", "rpn_conv_shared"),
        (r"^rpn\.conv_class", "rpn_class_raw"),
        (r"^rpn\.conv_bbox", "rpn_bbox_pred"),
        (r"^classifier\.linear_class", "mrcnn_class_logits"),
        (r"^classifier\.linear_bbox", "mrcnn_bbox_fc"),
        (r"^classifier\.", "mrcnn_class_"),
        (r"^mask\.conv5", "mrcnn_mask"),
        (r"^mask\.", "mrcnn_mask_"),
        (r"^(rpn_\w+)\.", r"rpn_model/\1/"),
        (r"^((?!rpn_)\w+)\.", r"\1/\1/"),
        (r"$", ":0"),
    ]
    layouts = [
        (r"deconv\.weight", "h w o i -> i o h w"),
        (r"linear_\w+\.weight", "i o -> o i"),
        (r"(conv\w*|downsample\.0|conv2\.1|C1\.0)\.weight", "h w i o -> o i h w"),
    ]
    return spelled(
        target, table, "multimodallearning's convert_from_keras.py", layouts, lambda key: renamed(key, table)
    )


@pair("blind: R-GCN for links in DGL's names to PyTorch Geometric: blocks of relations are one row, loops are roots")
def rgcn(small: bool) -> Two:
    """FB15k-237: relations of the score first, the table of entities last; both sides sum."""
    source, target, width, relations = Net(), Net(), 500, 474
    source.put("w_relation", 237, width)
    for i in (0, 1):
        source.put(f"rgcn.layers.{i}.h_bias", width)
        source.put(f"rgcn.layers.{i}.loop_weight", width, width)
        source.put(f"rgcn.layers.{i}.linear_r.W", relations, 2500)
    source.put("rgcn.emb.weight", 14541, width)
    target.put("encoder.node_emb", 14541, width)
    for i in (1, 2):
        target.put(f"encoder.conv{i}.weight", relations, 100, 5, 5)
        target.put(f"encoder.conv{i}.root", width, width)
        target.put(f"encoder.conv{i}.bias", width)
    target.put("decoder.rel_emb", 237, width)
    table: list[Any] = [
        (r"^w_relation", "decoder.rel_emb"),
        (r"^rgcn\.emb\.weight", "encoder.node_emb"),
        (r"^rgcn\.layers\.(\d)", lambda m: f"encoder.conv{int(m[1]) + 1}"),
        (r"\.h_bias", ".bias"),
        (r"\.loop_weight", ".root"),
        (r"\.linear_r\.W", ".weight"),
    ]
    return to(source, target, table, [(r"linear_r\.W", "r (b i o) -> r b i o")], vars={"b": 100, "i": 5, "o": 5},
              truth="the code of both: RelGraphConv with bdd, RGCNConv with num_blocks; both multiply from the left",
              hidden=["*.root", "encoder.conv*.weight"])  # fmt: skip


@pair("blind: a Keras forecaster of two LSTMs in both directions to PyTorch: kernel, recurrent_kernel, one bias of two")
def keras_lstm(small: bool) -> Two:
    """Gates have one order in both; the second bias of PyTorch is zeros."""
    target = Net()
    target.put("conv.weight", 64, 9, 5)
    target.put("conv.bias", 64)
    target.bn("norm", 64)
    for name, into, width in (("lstm1", 64, 128), ("lstm2", 256, 64)):
        for end in ("", "_reverse"):
            target.put(f"{name}.weight_ih_l0{end}", 4 * width, into)
            target.put(f"{name}.weight_hh_l0{end}", 4 * width, width)
            target.put(f"{name}.bias_ih_l0{end}", 4 * width)
            target.put(f"{name}.bias_hh_l0{end}", 4 * width)
    target.lin("fc", 64, 128)
    target.lin("head", 24, 64)
    words = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    table: list[Any] = [
        (r".*(bias_hh|num_batches).*", ""),
        (r"^norm\.(\w+)", lambda m: f"batch_normalization/{words[m[1]]}"),
        (r"^lstm1\.", "bidirectional."),
        (r"^lstm2\.", "bidirectional_1."),
        (r"\.(\w+)_l0_reverse", r".backward_lstm.lstm_cell.\1"),
        (r"\.(\w+)_l0$", r".forward_lstm.lstm_cell.\1"),
        (r"^(bidirectional_1\.\w+_lstm)", r"\1_1"),
        (r"weight_ih", "kernel"),
        (r"weight_hh", "recurrent_kernel"),
        (r"bias_ih", "bias"),
        (r"^conv\.", "conv1d."),
        (r"^fc\.", "dense."),
        (r"^head\.", "dense_1."),
        (r"\.weight$", ".kernel"),
        (r"\.", "/"),
        (r"(?<=.)$", ":0"),
    ]
    layouts = [(r"conv\.weight", "k i o -> o i k"), (r"(weight_\w+|fc\.weight|head\.weight)$", "i o -> o i")]
    return spelled(
        target,
        table,
        "the code of both: gates i, f, c, o are i, f, g, o; biases are summed in PyTorch",
        layouts,
        missing=["*.bias_hh_*", "*.num_batches_tracked"],
    )
