"""Blind pairs: conversions between code bases, the everyday ones first."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.match.blind import Net, Two, join, like, pair, renamed, split, state, to
from tests.bench.match.pairs_blind_18 import spelled, without

TURNED = "i o -> o i"


# ---------------------------------------------------------------------------------------------- every day


@pair("blind: OpenAI's Whisper-small to WeNet: cross_attn is src_attn, positions gain an axis, a new head for CTC")
def whisper_wenet(small: bool) -> Two:
    """The tied output layer is not saved; norms are listed behind what they precede."""
    width, depth, source, target = 768, 12, Net(), Net()

    def attention(net: Net, at: str, names: tuple[str, ...]) -> None:
        for i, name in enumerate(names):
            net.lin(f"{at}.{name}", width, width, i != 1)

    whisper, wenet = ("query", "key", "value", "out"), ("linear_q", "linear_k", "linear_v", "linear_out")
    for side, text in (("encoder", False), ("decoder", True)):
        source.put(f"{side}.positional_embedding", 448 if text else 1500, width)
        if text:
            source.put("decoder.token_embedding.weight", 51865, width)
            target.put("decoder.embed.0.weight", 51865, width)
            target.put("decoder.embed.1.pe", 1, 448, width)
        else:
            for i, into in ((1, 80), (2, width)):
                for net, name in ((source, f"encoder.conv{i}"), (target, f"encoder.embed.conv.{2 * i - 2}")):
                    net.put(f"{name}.weight", width, into, 3)
                    net.put(f"{name}.bias", width)
            target.put("encoder.embed.pos_enc.pe", 1, 1500, width)
        target.norm(f"{side}.after_norm", width)
        for layer in range(depth):
            at, there = f"{side}.blocks.{layer}", f"{side}.{side}s.{layer}"
            attention(source, f"{at}.attn", whisper)
            source.norm(f"{at}.attn_ln", width)
            attention(target, f"{there}.self_attn", wenet)
            if text:
                attention(source, f"{at}.cross_attn", whisper)
                source.norm(f"{at}.cross_attn_ln", width)
                attention(target, f"{there}.src_attn", wenet)
            source.lin(f"{at}.mlp.0", 4 * width, width)
            source.lin(f"{at}.mlp.2", width, 4 * width)
            source.norm(f"{at}.mlp_ln", width)
            target.lin(f"{there}.feed_forward.w_1", 4 * width, width)
            target.lin(f"{there}.feed_forward.w_2", width, 4 * width)
            target.lns(*(f"{there}.norm{i + 1}" for i in range(3 if text else 2)), size=width)
        source.norm("decoder.ln" if text else "encoder.ln_post", width)
    target.lin("ctc.ctc_lo", 51865, width)
    table: list[Any] = [
        (r"^encoder\.conv1", "encoder.embed.conv.0"),
        (r"^encoder\.conv2", "encoder.embed.conv.2"),
        (r"^encoder\.positional_embedding", "encoder.embed.pos_enc.pe"),
        (r"^decoder\.positional_embedding", "decoder.embed.1.pe"),
        (r"^decoder\.token_embedding", "decoder.embed.0"),
        (r"^encoder\.ln_post|^encoder\.ln(?=\.)", "encoder.after_norm"),
        (r"^decoder\.ln(?=\.)", "decoder.after_norm"),
        (r"^(encoder|decoder)\.blocks", r"\1.\1s"),
        (r"\.cross_attn\.", ".src_attn."),
        (r"\.attn\.", ".self_attn."),
        (r"_attn\.query", "_attn.linear_q"),
        (r"_attn\.key", "_attn.linear_k"),
        (r"_attn\.value", "_attn.linear_v"),
        (r"_attn\.out", "_attn.linear_out"),
        (r"\.mlp\.0", ".feed_forward.w_1"),
        (r"\.mlp\.2", ".feed_forward.w_2"),
        (r"\.cross_attn_ln", ".norm2"),
        (r"^(decoder.*)\.mlp_ln", r"\1.norm3"),
        (r"\.mlp_ln", ".norm2"),
        (r"\.attn_ln", ".norm1"),
    ]
    return to(source, target, table, [("positional_embedding", "p i -> 1 p i")], missing=["ctc.*"],
              truth="WeNet's convert_whisper_to_wenet_config_and_ckpt.py")  # fmt: skip


@pair("blind: Whisper-base tuned in MLX back to Hugging Face: mlp1 and mlp2, kernels of three before the channels",
      "transformers")  # fmt: skip
def whisper_mlx(small: bool) -> Two:
    """The encoder's sinusoids are not saved there; listed by letters."""
    import transformers

    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(
        vocab_size=51865, d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048))  # fmt: skip
    table: list[Any] = [
        (r"^model\.encoder\.embed_positions.*", ""),
        (r"^model\.", ""),
        (r"^decoder\.embed_positions\.weight", "decoder.positional_embedding"),
        (r"^decoder\.embed_tokens", "decoder.token_embedding"),
        (r"^encoder\.layer_norm", "encoder.ln_post"),
        (r"^decoder\.layer_norm", "decoder.ln"),
        (r"\.layers\.", ".blocks."),
        (r"\.self_attn_layer_norm", ".attn_ln"),
        (r"\.encoder_attn_layer_norm", ".cross_attn_ln"),
        (r"\.final_layer_norm", ".mlp_ln"),
        (r"\.self_attn\.", ".attn."),
        (r"\.encoder_attn\.", ".cross_attn."),
        (r"\.q_proj", ".query"),
        (r"\.k_proj", ".key"),
        (r"\.v_proj", ".value"),
        (r"\.out_proj", ".out"),
        (r"\.fc(\d)", r".mlp\1"),
    ]
    return spelled(
        without(model, "proj_out.weight"),
        table,
        "mlx-examples' whisper/convert.py and whisper.py",
        [(r"encoder\.conv\d\.weight", "o k i -> o i k")],
        lambda key: renamed(key, table),
        missing=["model.encoder.embed_positions.weight"],
    )


@pair("blind: Hugging Face's SegFormer-B0 to segmentation_models_pytorch: key and value joined, the head begins deep")
def segformer_smp(small: bool) -> Two:
    """The file's names are those before the stages; linear_c.0 belongs to the first stage there."""
    sizes, source, target, groups = (32, 64, 160, 256), Net(), Net(), []
    for i, width in enumerate(sizes):
        into, kernel = (sizes[i - 1], 3) if i else (3, 7)
        source.conv(f"segformer.encoder.patch_embeddings.{i}.proj", width, into, kernel)
        source.norm(f"segformer.encoder.patch_embeddings.{i}.layer_norm", width)
        target.conv(f"encoder.patch_embed{i + 1}.proj", width, into, kernel)
        target.norm(f"encoder.patch_embed{i + 1}.norm", width)
    for i, width in enumerate(sizes):
        for block in range(2):
            at, there = f"segformer.encoder.block.{i}.{block}", f"encoder.block{i + 1}.{block}"
            source.norm(f"{at}.layer_norm_1", width)
            source.lins(*(f"{at}.attention.self.{x}" for x in ("query", "key", "value")), out=width, into=width)
            target.norm(f"{there}.norm1", width)
            target.lin(f"{there}.attn.q", width, width)
            target.lin(f"{there}.attn.kv", 2 * width, width)
            target.lin(f"{there}.attn.proj", width, width)
            if i < 3:
                source.conv(f"{at}.attention.self.sr", width, width, 8 >> i)
                source.norm(f"{at}.attention.self.layer_norm", width)
                target.conv(f"{there}.attn.sr", width, width, 8 >> i)
                target.norm(f"{there}.attn.norm", width)
            source.lin(f"{at}.attention.output.dense", width, width)
            for net, norm, mlp in ((source, f"{at}.layer_norm_2", f"{at}.mlp.dense"),
                                   (target, f"{there}.norm2", f"{there}.mlp.fc")):  # fmt: skip
                net.norm(norm, width)
                net.lin(f"{mlp}1", 4 * width, width)
                net.conv(re.sub(r"\w+$", "dwconv.dwconv", mlp), 4 * width, 1, 3)
                net.lin(f"{mlp}2", width, 4 * width)
            groups += join([f"{at}.attention.self.key", f"{at}.attention.self.value"], f"{there}.attn.kv")
        target.norm(f"encoder.norm{i + 1}", width)
    for i, width in enumerate(sizes):
        source.norm(f"segformer.encoder.layer_norm.{i}", width)
    for i, width in enumerate(sizes):
        source.lin(f"decode_head.linear_c.{i}.proj", 256, width)
        target.lin(f"decoder.mlp_stage.{i}.linear", 256, sizes[3 - i])
    source.conv("decode_head.linear_fuse", 256, 1024, 1, bias=False)
    source.bn("decode_head.batch_norm", 256)
    source.conv("decode_head.classifier", 150, 256, 1)
    target.conv("decoder.fuse_stage.0", 256, 1024, 1, bias=False)
    target.bn("decoder.fuse_stage.1", 256)
    target.conv("segmentation_head.0", 150, 256, 1)
    table: list[Any] = [
        (r".*\.self\.(key|value)\..*", "@"),
        (r"^decode_head\.linear_c\.(\d)\.proj", lambda m: f"decoder.mlp_stage.{3 - int(m[1])}.linear"),
        (r"^decode_head\.linear_fuse", "decoder.fuse_stage.0"),
        (r"^decode_head\.batch_norm", "decoder.fuse_stage.1"),
        (r"^decode_head\.classifier", "segmentation_head.0"),
        (r"^segformer\.encoder\.patch_embeddings\.(\d)", lambda m: f"encoder.patch_embed{int(m[1]) + 1}"),
        (r"^segformer\.encoder\.layer_norm\.(\d)", lambda m: f"encoder.norm{int(m[1]) + 1}"),
        (r"^segformer\.encoder\.block\.(\d)", lambda m: f"encoder.block{int(m[1]) + 1}"),
        (r"\.layer_norm_(\d)", r".norm\1"),
        (r"\.attention\.self\.query", ".attn.q"),
        (r"\.attention\.self\.sr", ".attn.sr"),
        (r"\.layer_norm\.", ".norm."),
        (r"\.attention\.self\.norm", ".attn.norm"),
        (r"\.attention\.output\.dense", ".attn.proj"),
        (r"\.mlp\.dense", ".mlp.fc"),
    ]
    return to(
        source,
        target,
        table,
        groups=groups,
        truth="smp's convert-original-segformer and transformers' convert_segformer: both fuse the deep first",
    )


@pair("blind: Keras' EfficientNetV2-B0 to timm: block2b_expand_conv, fused blocks project, one dwconv2 in the others",
      "timm")  # fmt: skip
def efficientnetv2_keras(small: bool) -> Two:
    """In the only block of the first stage the 3x3 convolution is called project_conv."""
    import timm

    target = timm.create_model("tf_efficientnetv2_b0", pretrained=False)
    fused = {"conv_exp": "expand_conv", "bn1": "expand_bn", "conv_pwl": "project_conv", "bn2": "project_bn"}
    first = {"conv": "project_conv", "bn1": "project_bn"}
    inverted = {"conv_pw": "expand_conv", "bn1": "expand_bn", "conv_dw": "dwconv2", "bn2": "bn",
                "se.conv_reduce": "se_reduce", "se.conv_expand": "se_expand", "conv_pwl": "project_conv",
                "bn3": "project_bn"}  # fmt: skip

    def block(match: re.Match[str]) -> str:
        stage = int(match[1])
        parts = inverted if stage > 2 else fused if stage else first
        return f"block{stage + 1}{'abcdefgh'[int(match[2])]}_{parts[match[3]]}."

    table: list[Any] = [
        (r".*num_batches_tracked$", ""),
        (r"^conv_stem", "stem_conv"),
        (r"^bn1\.", "stem_bn."),
        (r"^conv_head", "top_conv"),
        (r"^bn2\.", "top_bn."),
        (r"^classifier", "predictions"),
        (r"^blocks\.(\d)\.(\d)\.([\w.]+)\.(?=\w+$)", block),
        (r"_bn\.weight$", "_bn/gamma:0"),
        (r"_bn\.bias$", "_bn/beta:0"),
        (r"\.running_mean$", "/moving_mean:0"),
        (r"\.running_var$", "/moving_variance:0"),
        (r"dwconv2\.weight$", "dwconv2/depthwise_kernel:0"),
        (r"\.weight$", "/kernel:0"),
        (r"\.bias$", "/bias:0"),
    ]
    return spelled(
        target,
        table,
        "keras.applications' efficientnet_v2.py; timm's tf_ models are converted from the same TensorFlow code",
        [(r"classifier\.weight$", TURNED), (r"(conv\w*|reduce|expand)\.weight$", "h w i o -> o i h w")],
        missing=["*num_batches_tracked"],
    )


@pair("blind: DistilBERT of a tf_model.h5 to Hugging Face's torch: layer_._0, kernels turned, listed by letters",
      "transformers")  # fmt: skip
def distilbert_tf(small: bool) -> Two:
    """HDF5 groups repeat the layer's name; the classifier comes first."""
    import transformers

    target = transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig())
    table: list[Any] = [
        (r"word_embeddings\.weight", "word_embeddings/weight"),
        (r"position_embeddings\.weight", "position_embeddings/embeddings"),
        (r"(LayerNorm|layer_norm)\.weight", r"\1/gamma"),
        (r"(LayerNorm|layer_norm)\.bias", r"\1/beta"),
        (r"\.weight$", "/kernel"),
        (r"\.layer\.(\d)\.", r"/layer_._\1/"),
        (r"(?<!_)\.(?!_)", "/"),
        (r"^(\w+)", r"\1/tf_distil_bert_for_sequence_classification/\1"),
        (r"(?<=.)$", ":0"),
    ]
    return spelled(
        target,
        table,
        "transformers' modeling_tf_pytorch_utils.py: load_tf2_checkpoint_in_pytorch_model",
        [(r"(lin\d?|classifier)\.weight$", TURNED)],
        lambda key: renamed(key, table),
    )


@pair("blind: StarCoder2-3B in llama.cpp's names to Hugging Face: biases everywhere, c_fc is ffn_up", "transformers")
def starcoder2_gguf(small: bool) -> Two:
    """No rows are turned; the head is tied and not written."""
    import transformers

    model = transformers.Starcoder2ForCausalLM(transformers.Starcoder2Config(
        vocab_size=49152, hidden_size=3072, intermediate_size=12288, num_hidden_layers=30, num_attention_heads=24,
        num_key_value_heads=2, bos_token_id=0, eos_token_id=0, tie_word_embeddings=True))  # fmt: skip
    table: list[Any] = [
        (r"^model\.embed_tokens", "token_embd"),
        (r"^model\.norm", "output_norm"),
        (r"^model\.layers", "blk"),
        (r"\.self_attn\.([qkv])_proj", r".attn_\1"),
        (r"\.self_attn\.o_proj", ".attn_output"),
        (r"\.mlp\.c_fc", ".ffn_up"),
        (r"\.mlp\.c_proj", ".ffn_down"),
        (r"\.input_layernorm", ".attn_norm"),
        (r"\.post_attention_layernorm", ".ffn_norm"),
    ]
    return spelled(without(model, "lm_head.weight"), table, "gguf's tensor_mapping.py backwards", (), str)


@pair("blind: Hugging Face's Llama 3.1 8B to gpt-fast: wqkv of grouped heads with rotary rows turned, w1, w3, w2",
      "transformers")  # fmt: skip
def llama_gpt_fast(small: bool) -> Two:
    """Norms are listed behind the matrices, the feed-forward's first."""
    import transformers

    width, inner, depth = 4096, 14336, 32
    source = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=128256, hidden_size=width, intermediate_size=inner, num_hidden_layers=depth,
        num_attention_heads=32, num_key_value_heads=8))  # fmt: skip
    target, groups = Net(), []
    target.put("tok_embeddings.weight", 128256, width)
    for layer in range(depth):
        at = f"layers.{layer}"
        target.lin(f"{at}.attention.wqkv", 6144, width, False)
        target.lin(f"{at}.attention.wo", width, width, False)
        target.lins(f"{at}.feed_forward.w1", f"{at}.feed_forward.w3", out=inner, into=width, bias=False)
        target.lin(f"{at}.feed_forward.w2", width, inner, False)
        target.put(f"{at}.ffn_norm.weight", width)
        target.put(f"{at}.attention_norm.weight", width)
        groups += join([f"model.layers.{layer}.self_attn.{x}_proj" for x in "qkv"], f"{at}.attention.wqkv", False)
    target.put("norm.weight", width)
    target.put("output.weight", 128256, width)
    table: list[Any] = [
        (r".*\.self_attn\.[qkv]_proj.*", "@"),
        (r"^model\.embed_tokens", "tok_embeddings"),
        (r"^lm_head", "output"),
        (r"^model\.", ""),
        (r"\.self_attn\.o_proj", ".attention.wo"),
        (r"\.mlp\.gate_proj", ".feed_forward.w1"),
        (r"\.mlp\.up_proj", ".feed_forward.w3"),
        (r"\.mlp\.down_proj", ".feed_forward.w2"),
        (r"\.input_layernorm", ".attention_norm"),
        (r"\.post_attention_layernorm", ".ffn_norm"),
    ]
    turn = "{m**}.self_attn.{x=q|k}_proj.weight -> {m**}.self_attn.{x}_proj.weight | (h two d) i -> (h d two) i"
    found = to(source, target, table, groups=groups, truth="gpt-fast's convert_hf_checkpoint.py and model.py",
               vars={"two": 2, "d": 64}, hidden=["*.wqkv.weight"])  # fmt: skip
    return Two(source, target, [turn, "---", *(found.rules or [])], vars=found.vars, hidden=found.hidden,
               proof=found.proof)  # fmt: skip


@pair("blind: LTX-Video in Lightricks' names to diffusers: q_norm is norm_q, adaln_single is time_embed")
def ltx_video(small: bool) -> Two:
    """Sorted as the safetensors is, under model.diffusion_model."""
    width, depth, target = 2048, 28, Net()
    target.put("scale_shift_table", 2, width)
    target.lin("proj_in", width, 128)
    target.lin("time_embed.emb.timestep_embedder.linear_1", width, 256)
    target.lin("time_embed.emb.timestep_embedder.linear_2", width, width)
    target.lin("time_embed.linear", 6 * width, width)
    target.lin("caption_projection.linear_1", width, 4096)
    target.lin("caption_projection.linear_2", width, width)
    for layer in range(depth):
        at = f"transformer_blocks.{layer}"
        target.put(f"{at}.scale_shift_table", 6, width)
        for name in ("attn1", "attn2"):
            target.put(f"{at}.{name}.norm_q.weight", width)
            target.put(f"{at}.{name}.norm_k.weight", width)
            target.lins(*(f"{at}.{name}.{x}" for x in ("to_q", "to_k", "to_v", "to_out.0")), out=width, into=width)
        target.lin(f"{at}.ff.net.0.proj", 4 * width, width)
        target.lin(f"{at}.ff.net.2", width, 4 * width)
    target.lin("proj_out", 128, width)
    table: list[Any] = [
        (r"^proj_in", "patchify_proj"),
        (r"^time_embed", "adaln_single"),
        (r"norm_([qk])", r"\1_norm"),
        (r"^", "model.diffusion_model."),
    ]
    return spelled(target, table, "diffusers' convert_ltx_to_diffusers.py", (), lambda key: renamed(key, table))


@pair("blind: Qwen2.5-0.5B in KerasHub's names to Hugging Face: heads are axes of kernels and biases", "transformers")
def qwen_keras_hub(small: bool) -> Two:
    """The gate is under the activation in both; the head is the table turned round."""
    import transformers

    model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(
        vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, tie_word_embeddings=True))  # fmt: skip
    target = without(model, "lm_head.weight")
    table: list[Any] = [
        (r"^model\.embed_tokens\.weight", "token_embedding/embeddings"),
        (r"^model\.norm\.weight", "sequence_output_layernorm/scale"),
        (r"^model\.layers\.(\d+)\.", r"transformer_layer_\1/"),
        (r"self_attn\.q_proj\.", "self_attention/query/"),
        (r"self_attn\.k_proj\.", "self_attention/key/"),
        (r"self_attn\.v_proj\.", "self_attention/value/"),
        (r"self_attn\.o_proj\.", "self_attention/attention_output/"),
        (r"mlp\.gate_proj\.", "feedforward_gate_dense/"),
        (r"mlp\.up_proj\.", "feedforward_intermediate_dense/"),
        (r"mlp\.down_proj\.", "feedforward_output_dense/"),
        (r"input_layernorm\.weight", "self_attention_layernorm/scale"),
        (r"post_attention_layernorm\.weight", "feedforward_layernorm/scale"),
        (r"/weight$", "/kernel"),
    ]
    parts = ("self_attention/", "self_attention_layernorm", "feedforward_intermediate", "feedforward_gate",
             "feedforward_output", "feedforward_layernorm")  # fmt: skip

    def order(key: str) -> tuple[int, int]:
        name = renamed(key, table)
        layer = re.match(r"transformer_layer_(\d+)/", name)
        if not layer:
            return (-1 if "token" in name else 99), 0
        return int(layer[1]), next(i for i, part in enumerate(parts) if name[layer.end() :].startswith(part))

    layouts = [
        (r"q_proj\.weight", "i h d -> (h d) i"),
        (r"q_proj\.bias", "h d -> (h d)"),
        (r"[kv]_proj\.weight", "i g d -> (g d) i"),
        (r"[kv]_proj\.bias", "g d -> (g d)"),
        (r"o_proj\.weight", "h d o -> o (h d)"),
        (r"mlp\..*weight", TURNED),
    ]
    return spelled(target, table, "keras_hub's convert_qwen.py", layouts, order, {"h": 14, "g": 2, "d": 64})


@pair("blind: torchvision's MobileNetV3-Small to mmpretrain: parts by name, a head of two layers", "torchvision")
def mobilenetv3_mm(small: bool) -> Two:
    """The squeeze is between the depthwise convolution and the last one in both."""
    import torchvision

    source = torchvision.models.mobilenet_v3_small(weights=None)
    squeezed = {re.match(r"features\.(\d+)", key)[1] for key in state(source) if ".fc1." in key}  # type: ignore[index]

    def block(match: re.Match[str]) -> str:
        layer, at = match[1], int(match[2]) + (match[1] == "1")
        parts = ["expand_conv", "depthwise_conv", *(["se"] if layer in squeezed else []), "linear_conv"]
        return f"backbone.layer{layer}.{parts[at]}."

    table: list[Any] = [
        (r"^features\.(\d+)\.block\.(\d)\.", block),
        (r"^features\.(\d+)\.", r"backbone.layer\1."),
        (r"\.se\.fc(\d)\.", r".se.conv\1.conv."),
        (r"(layer\d+|_conv)\.0\.", r"\1.conv."),
        (r"(layer\d+|_conv)\.1\.", r"\1.bn."),
        (r"^classifier\.0", "head.layers.0.fc"),
        (r"^classifier\.3", "head.layers.1.fc"),
    ]
    return to(source, like(source, lambda key: renamed(key, table)), table,
              truth="mmpretrain's mobilenet_v3.py and inverted_residual.py; its weights are torchvision's")  # fmt: skip


@pair("blind: torchvision's DenseNet-121 to mmpretrain: transitions stand behind all stages, the last norm among them",
      "torchvision")  # fmt: skip
def densenet_mm(small: bool) -> Two:
    """Layers of a block are counted from 0."""
    import torchvision

    source = torchvision.models.densenet121(weights=None)
    table: list[Any] = [
        (r"^features\.conv0", "backbone.stem.0"),
        (r"^features\.norm0", "backbone.stem.1"),
        (r"^features\.norm5", "backbone.transitions.3.0"),
        (r"^features\.transition(\d)", lambda m: f"backbone.transitions.{int(m[1]) - 1}"),
        (r"^features\.denseblock(\d)\.denselayer(\d+)",
         lambda m: f"backbone.stages.{int(m[1]) - 1}.block.{int(m[2]) - 1}"),
        (r"^classifier", "head.fc"),
    ]  # fmt: skip
    tops = ["stem", "stages", "transitions", "fc"]
    target = like(source, lambda key: renamed(key, table), lambda key: tops.index(renamed(key, table).split(".")[1]))
    return to(source, target, table, truth="mmpretrain's densenet.py")


@pair("blind: HiFi-GAN by jik876 to ParallelWaveGAN's: activations are part of the lists, old weight norms stay")
def hifigan(small: bool) -> Two:
    """V1 for 80 bands; both are the generator of a whole file."""
    source = Net()

    def normed(name: str, out: int, into: int, kernel: int, turned: bool = False) -> None:
        source.put(f"{name}.bias", out)
        source.put(f"{name}.weight_g", into if turned else out, 1, 1)
        source.put(f"{name}.weight_v", *((into, out) if turned else (out, into)), kernel)

    normed("generator.conv_pre", 512, 80, 7)
    for i, kernel in enumerate((16, 16, 4, 4)):
        normed(f"generator.ups.{i}", 256 >> i, 512 >> i, kernel, True)
    for i in range(12):
        for name in ("convs1", "convs2"):
            for j in range(3):
                normed(f"generator.resblocks.{i}.{name}.{j}", 256 >> i // 3, 256 >> i // 3, (3, 7, 11)[i % 3])
    normed("generator.conv_post", 1, 32, 7)
    table: list[Any] = [
        (r"\.conv_pre", ".input_conv"),
        (r"\.conv_post", ".output_conv.1"),
        (r"\.ups\.(\d)", r".upsamples.\1.1"),
        (r"\.resblocks", ".blocks"),
        (r"\.convs(\d)\.(\d)", r".convs\1.\2.1"),
        (r"^", "model."),
    ]
    return to(
        source,
        like(source, lambda key: renamed(key, table)),
        table,
        truth="the code of both: parallel_wavegan's hifigan.py and residual_block.py follow the official ones",
    )


def _vae() -> Net:
    """diffusers' AutoencoderKL of Stable Diffusion 1.5."""
    net = Net()

    def resnet(at: str, into: int, out: int) -> None:
        net.norm(f"{at}.norm1", into)
        net.conv(f"{at}.conv1", out, into, 3)
        net.norm(f"{at}.norm2", out)
        net.conv(f"{at}.conv2", out, out, 3)
        if into != out:
            net.conv(f"{at}.conv_shortcut", out, into, 1)

    def middle(at: str) -> None:
        net.norm(f"{at}.attentions.0.group_norm", 512)
        net.lins(*(f"{at}.attentions.0.{x}" for x in ("to_q", "to_k", "to_v", "to_out.0")), out=512, into=512)
        for i in (0, 1):
            resnet(f"{at}.resnets.{i}", 512, 512)

    net.conv("encoder.conv_in", 128, 3, 3)
    for i, (into, out) in enumerate(((128, 128), (128, 256), (256, 512), (512, 512))):
        for j in (0, 1):
            resnet(f"encoder.down_blocks.{i}.resnets.{j}", out if j else into, out)
        if i < 3:
            net.conv(f"encoder.down_blocks.{i}.downsamplers.0.conv", out, out, 3)
    middle("encoder.mid_block")
    net.norm("encoder.conv_norm_out", 512)
    net.conv("encoder.conv_out", 8, 512, 3)
    net.conv("decoder.conv_in", 512, 4, 3)
    for i, (into, out) in enumerate(((512, 512), (512, 512), (512, 256), (256, 128))):
        for j in (0, 1, 2):
            resnet(f"decoder.up_blocks.{i}.resnets.{j}", out if j else into, out)
        if i < 3:
            net.conv(f"decoder.up_blocks.{i}.upsamplers.0.conv", out, out, 3)
    middle("decoder.mid_block")
    net.norm("decoder.conv_norm_out", 128)
    net.conv("decoder.conv_out", 3, 128, 3)
    net.conv("quant_conv", 8, 8, 1)
    net.conv("post_quant_conv", 4, 4, 1)
    return net


@pair("blind: Stable Diffusion's VAE in Flax' names to diffusers' torch: resnets_0, proj_attn, kernels turned")
def vae_flax(small: bool) -> Two:
    """Everything is listed by letters, the decoder first."""
    target = _vae()
    table: list[Any] = [
        (r"\.to_q", ".query"),
        (r"\.to_k", ".key"),
        (r"\.to_v", ".value"),
        (r"\.to_out\.0", ".proj_attn"),
        (r"(norm\w*)\.weight$", r"\1.scale"),
        (r"\.weight$", ".kernel"),
        (r"(blocks|resnets|attentions|samplers)\.(\d)", r"\1_\2"),
    ]
    layouts = [(r"norm\w*\.weight", ""), (r"attentions\.0\.to_.*weight", TURNED),
               (r"conv\w*\.weight", "h w i o -> o i h w")]  # fmt: skip
    return spelled(target, table, "diffusers' vae_flax.py and modeling_flax_pytorch_utils.py", layouts,
                   lambda key: renamed(key, table))  # fmt: skip


@pair("blind: ERNIE 3.0 medium in PaddleNLP's names to Hugging Face: Linears are turned, linear1, norm1, task types",
      "transformers")  # fmt: skip
def ernie(small: bool) -> Two:
    """Both norms of a layer are listed behind its Linears."""
    import transformers

    target = transformers.ErnieModel(transformers.ErnieConfig(
        vocab_size=40000, num_hidden_layers=6, max_position_embeddings=2048, type_vocab_size=4,
        task_type_vocab_size=16, use_task_id=True))  # fmt: skip
    table: list[Any] = [
        (r"^", "ernie."),
        (r"embeddings\.LayerNorm", "embeddings.layer_norm"),
        (r"\.encoder\.layer\.", ".encoder.layers."),
        (r"\.attention\.self\.query", ".self_attn.q_proj"),
        (r"\.attention\.self\.key", ".self_attn.k_proj"),
        (r"\.attention\.self\.value", ".self_attn.v_proj"),
        (r"\.attention\.output\.dense", ".self_attn.out_proj"),
        (r"\.attention\.output\.LayerNorm", ".norm1"),
        (r"\.intermediate\.dense", ".linear1"),
        (r"\.output\.dense", ".linear2"),
        (r"\.output\.LayerNorm", ".norm2"),
    ]
    parts = ["self_attn", "linear1", "linear2", "norm1", "norm2"]

    def order(key: str) -> tuple[int, int]:
        found = re.search(r"layers\.(\d+)\.(\w+)", renamed(key, table))
        if found:
            return int(found[1]), parts.index(found[2])
        return (-1, "LayerNorm" in key) if "embeddings" in key else (99, 0)

    return spelled(target, table, "nghuyong's convert_ernie3_to_pytorch; PaddleNLP's ernie/modeling.py",
                   [(r"(query|key|value|dense)\.weight", TURNED)], order)  # fmt: skip


@pair("blind: detectron2's RetinaNet to mmdet's: norms are inside of convolutions, shortcuts first, p6 is fpn_convs.3")
def retinanet(small: bool) -> Two:
    """The pyramid is listed before the network under it, level by level."""
    source, target = Net(), Net()

    def conv(name: str, out: int, into: int, kernel: int) -> None:
        source.conv(name, out, into, kernel, bias=False)
        source.bn(f"{name}.norm", out, False)

    for i, into in ((3, 512), (4, 1024), (5, 2048)):
        source.conv(f"backbone.fpn_lateral{i}", 256, into, 1)
        source.conv(f"backbone.fpn_output{i}", 256, 256, 3)
    source.conv("backbone.top_block.p6", 256, 2048, 3)
    source.conv("backbone.top_block.p7", 256, 256, 3)
    conv("backbone.bottom_up.stem.conv1", 64, 3, 7)
    target.conv("backbone.conv1", 64, 3, 7, bias=False)
    target.bn("backbone.bn1", 64)
    for i, depth in enumerate((3, 4, 6, 3)):
        width = 64 << i
        for block in range(depth):
            at, there = f"backbone.bottom_up.res{i + 2}.{block}", f"backbone.layer{i + 1}.{block}"
            into = 4 * width if block else (2 * width if i else 64)
            shapes = ((width, into, 1), (width, width, 3), (4 * width, width, 1))
            if not block:
                conv(f"{at}.shortcut", 4 * width, into, 1)
            for number, shape in enumerate(shapes):
                conv(f"{at}.conv{number + 1}", *shape)
                target.conv(f"{there}.conv{number + 1}", *shape, bias=False)
                target.bn(f"{there}.bn{number + 1}", shape[0])
            if not block:
                target.conv(f"{there}.downsample.0", 4 * width, into, 1, bias=False)
                target.bn(f"{there}.downsample.1", 4 * width)
    for name in ("cls_subnet", "bbox_subnet"):
        for i in range(4):
            source.conv(f"head.{name}.{2 * i}", 256, 256, 3)
    source.conv("head.cls_score", 720, 256, 3)
    source.conv("head.bbox_pred", 36, 256, 3)
    for i, into in enumerate((512, 1024, 2048)):
        target.conv(f"neck.lateral_convs.{i}.conv", 256, into, 1)
    for i in range(5):
        target.conv(f"neck.fpn_convs.{i}.conv", 256, 2048 if i == 3 else 256, 3)
    for name in ("cls_convs", "reg_convs"):
        for i in range(4):
            target.conv(f"bbox_head.{name}.{i}.conv", 256, 256, 3)
    target.conv("bbox_head.retina_cls", 720, 256, 3)
    target.conv("bbox_head.retina_reg", 36, 256, 3)
    table: list[Any] = [
        (r"^backbone\.fpn_lateral(\d)", lambda m: f"neck.lateral_convs.{int(m[1]) - 3}.conv"),
        (r"^backbone\.fpn_output(\d)", lambda m: f"neck.fpn_convs.{int(m[1]) - 3}.conv"),
        (r"^backbone\.top_block\.p(\d)", lambda m: f"neck.fpn_convs.{int(m[1]) - 3}.conv"),
        (r"^head\.cls_subnet\.(\d)", lambda m: f"bbox_head.cls_convs.{int(m[1]) // 2}.conv"),
        (r"^head\.bbox_subnet\.(\d)", lambda m: f"bbox_head.reg_convs.{int(m[1]) // 2}.conv"),
        (r"^head\.cls_score", "bbox_head.retina_cls"),
        (r"^head\.bbox_pred", "bbox_head.retina_reg"),
        (r"^backbone\.bottom_up\.stem", "backbone"),
        (r"^backbone\.bottom_up\.res(\d)", lambda m: f"backbone.layer{int(m[1]) - 1}"),
        (r"\.shortcut\.norm", ".downsample.1"),
        (r"\.shortcut", ".downsample.0"),
        (r"\.conv(\d)\.norm", r".bn\1"),
    ]
    return to(
        source,
        target,
        table,
        missing=["*num_batches_tracked"],
        truth="the code of both, with style caffe, scale_major off and a relu before the extra convolution",
    )


# ---------------------------------------------------------------------------------------------- less usual


@pair("blind: lucidrains' MLP-Mixer to timm: one Sequential, mixing of places by Conv1d, patches are a Linear", "timm")
def mixer_lucidrains(small: bool) -> Two:
    """The norm is listed behind what it precedes; patches have their channels last."""
    from timm.models.mlp_mixer import MlpMixer

    depth, width, source = 12, 512, Net()
    target = MlpMixer(img_size=256, patch_size=16, num_blocks=depth, embed_dim=width, mlp_ratio=(2.0, 0.5))
    source.lin("1", width, 768)
    for i in range(2, depth + 2):
        for part, size, inner in ((0, 256, 1024), (1, width, 256)):
            for number, shape in ((0, (inner, size)), (3, (size, inner))):
                source.put(f"{i}.{part}.fn.{number}.weight", *shape, *(() if part else (1,)))
                source.put(f"{i}.{part}.fn.{number}.bias", shape[0])
            source.norm(f"{i}.{part}.norm", width)
    source.norm(f"{depth + 2}", width)
    source.lin(f"{depth + 4}", 1000, width)
    table: list[Any] = [
        (r"^1\.(?=[wb])", "stem.proj."),
        (r"^14\.", "norm."),
        (r"^16\.", "head."),
        (r"^(\d+)\.(?=\d)", lambda m: f"blocks.{int(m[1]) - 2}."),
        (r"^(blocks\.\d+)\.0\.norm", r"\1.norm1"),
        (r"^(blocks\.\d+)\.1\.norm\.", r"\1.norm2."),
        (r"\.0\.fn\.0", ".mlp_tokens.fc1"),
        (r"\.0\.fn\.3", ".mlp_tokens.fc2"),
        (r"\.1\.fn\.0", ".mlp_channels.fc1"),
        (r"\.1\.fn\.3", ".mlp_channels.fc2"),
    ]
    layouts = [(r"^1\.weight", "o (p q c) -> o c p q"), (r"\.0\.fn\.\d\.weight", "o i 1 -> o i")]
    return to(source, target, table, layouts,
              vars={"p": 16, "q": 16}, truth="the code of both: mlp-mixer-pytorch and timm's mlp_mixer.py",
              hidden=["stem.proj.weight"])  # fmt: skip


@pair("blind: a GAT for papers in DGL's names to PyTorch Geometric: attn_l is att_src, attn_r is att_dst")
def gat_dgl(small: bool) -> Two:
    """Three layers of 3, 3 and 1 heads, batch norms between them."""
    source = Net()
    for i, (into, heads, width) in enumerate(((128, 3, 250), (750, 3, 250), (750, 1, 40))):
        at = f"layers.{i}"
        source.put(f"{at}.attn_l", 1, heads, width)
        source.put(f"{at}.attn_r", 1, heads, width)
        source.put(f"{at}.bias", heads * width)
        source.put(f"{at}.fc.weight", heads * width, into)
    for i in (0, 1):
        source.bn(f"norms.{i}", 750)
    table: list[Any] = [
        (r"^layers", "convs"),
        (r"^norms", "bns"),
        (r"attn_l", "att_src"),
        (r"attn_r", "att_dst"),
        (r"\.fc\.", ".lin."),
    ]
    return to(source, like(source, lambda key: renamed(key, table)), table,
              truth="the code of both: DGL's el of sources is made by attn_l, PyG's alpha_src by att_src")  # fmt: skip


@pair("blind: MPNet in fairseq's names to Hugging Face: in_proj split, the norm behind attention moves into it",
      "transformers")  # fmt: skip
def mpnet(small: bool) -> Two:
    """Distances are one table behind the layers on both sides; the head's table is tied."""
    import transformers

    width, source, groups = 768, Net(), []
    model = transformers.MPNetForMaskedLM(transformers.MPNetConfig(vocab_size=30527, max_position_embeddings=514))
    encoder = "decoder.sentence_encoder"
    source.put(f"{encoder}.embed_tokens.weight", 30527, width)
    source.put(f"{encoder}.embed_positions.weight", 514, width)
    for layer in range(12):
        at, there = f"{encoder}.layers.{layer}", f"mpnet.encoder.layer.{layer}.attention.attn"
        source.mha(f"{at}.self_attn", width)
        source.norm(f"{at}.self_attn_layer_norm", width)
        source.lin(f"{at}.fc1", 4 * width, width)
        source.lin(f"{at}.fc2", width, 4 * width)
        source.norm(f"{at}.final_layer_norm", width)
        groups += split(f"{at}.self_attn", [f"{there}.{x}" for x in "qkv"], True, ".in_proj_weight", ".in_proj_bias")
    source.norm(f"{encoder}.emb_layer_norm", width)
    source.put(f"{encoder}.relative_attention_bias.weight", 32, 12)
    source.put("decoder.lm_head.weight", 30527, width)
    source.put("decoder.lm_head.bias", 30527)
    source.lin("decoder.lm_head.dense", width, width)
    source.norm("decoder.lm_head.layer_norm", width)
    table: list[Any] = [
        (r".*\.in_proj_.*", "@"),
        (r"^decoder\.lm_head\.weight", "lm_head.decoder.weight"),
        (r"^decoder\.lm_head", "lm_head"),
        (r"^decoder\.sentence_encoder", "mpnet.encoder"),
        (r"^mpnet\.encoder\.embed_tokens", "mpnet.embeddings.word_embeddings"),
        (r"^mpnet\.encoder\.embed_positions", "mpnet.embeddings.position_embeddings"),
        (r"^mpnet\.encoder\.emb_layer_norm", "mpnet.embeddings.LayerNorm"),
        (r"\.layers\.", ".layer."),
        (r"\.self_attn\.out_proj", ".attention.attn.o"),
        (r"\.self_attn_layer_norm", ".attention.LayerNorm"),
        (r"\.fc1", ".intermediate.dense"),
        (r"\.fc2", ".output.dense"),
        (r"\.final_layer_norm", ".output.LayerNorm"),
    ]
    return to(source, without(model, "lm_head.decoder.bias"), table, groups=groups,
              truth="the published conversions of MPNet's fairseq file, which agree with each other")  # fmt: skip


@pair("blind: a Keras forecaster of two GRUs to PyTorch's of two layers: gates z, r, h become r, z, n, biases a pair")
def keras_gru(small: bool) -> Two:
    """reset_after is on, so that the bias has two rows."""
    source, target = Net(), Net()
    words = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    for name in words.values():
        source.put(f"batch_normalization/{name}:0", 7)
    for end, into in (("", 7), ("_1", 128)):
        source.put(f"gru{end}/gru_cell{end}/kernel:0", into, 384)
        source.put(f"gru{end}/gru_cell{end}/recurrent_kernel:0", 128, 384)
        source.put(f"gru{end}/gru_cell{end}/bias:0", 2, 384)
    for end, into, out in (("", 128, 64), ("_1", 64, 24)):
        source.put(f"dense{end}/kernel:0", into, out)
        source.put(f"dense{end}/bias:0", out)
    target.bn("norm", 7)
    for layer, into in enumerate((7, 128)):
        target.put(f"gru.weight_ih_l{layer}", 384, into)
        target.put(f"gru.weight_hh_l{layer}", 384, 128)
        target.put(f"gru.bias_ih_l{layer}", 384)
        target.put(f"gru.bias_hh_l{layer}", 384)
    target.lin("fc", 64, 128)
    target.lin("head", 24, 64)
    rules, second = [f"batch_normalization/{there}:0 -> norm.{here}" for here, there in words.items()], []
    for layer, end in enumerate(("", "_1")):
        at = f"gru{end}/gru_cell{end}"
        rules.append(f"{at}/kernel:0 -> gru.weight_ih_l{layer} | i (z + r + n) -> (r + z + n) i")
        rules.append(f"{at}/recurrent_kernel:0 -> gru.weight_hh_l{layer} | i (z + r + n) -> (r + z + n) i")
        rules.append(f"{at}/bias:0 -> gru.bias_ih_l{layer}, gru.bias_hh_l{layer} | (a + b) u -> a u, b u")
        second += [f"gru.bias_{name}_l{layer} -> gru.bias_{name}_l{layer} | 1 (z + r + n) -> (r + z + n)"
                   for name in ("ih", "hh")]  # fmt: skip
    for there, here in (("dense", "fc"), ("dense_1", "head")):
        rules += [f"{there}/kernel:0 -> {here}.weight | {TURNED}", f"{there}/bias:0 -> {here}.bias"]
    return Two(
        source,
        target,
        [*rules, "---", *second],
        missing=["norm.num_batches_tracked"],
        vars={"z": 128, "r": 128, "n": 128, "a": 1, "b": 1},
        hidden=["gru.weight_*", "gru.bias_*"],
        proof="the code of both: Keras' GRUCell with reset_after, PyTorch's GRU; z weighs the old state in both",
    )
