"""Fresh pairs: speech."""

from __future__ import annotations

from typing import Any

from tests.bench.match.fresh import Keys, Two, back, forth, fresh, pair, renamed, state
from tests.bench.match.pairs_fresh_text import hf


def moved(listed: dict[str, Any], table: Any) -> Keys:
    """A state dict under the names of a table, in the same order."""
    found = Keys()
    found.update({renamed(key, table): tensor for key, tensor in listed.items() if renamed(key, table)})
    return found


@pair("fresh: Microsoft's WavLM to Hugging Face", "transformers")
def wavlm(small: bool) -> Two:
    """The gate of relative positions: grep_linear, grep_a; only the first layer has the table."""
    target = hf("WavLMModel", "WavLMConfig", num_hidden_layers=4)
    table: list[Any] = [
        (r"^masked_spec_embed", "mask_emb"),
        (r"conv_layers\.(\d)\.conv\.", r"conv_layers.\1.0."),
        (r"conv_layers\.(\d)\.layer_norm\.", r"conv_layers.\1.2."),
        (r"^feature_projection\.layer_norm", "layer_norm"),
        (r"^feature_projection\.projection", "post_extract_proj"),
        (r"^encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original0", "encoder.pos_conv.0.weight_g"),
        (r"^encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original1", "encoder.pos_conv.0.weight_v"),
        (r"^encoder\.pos_conv_embed\.conv", "encoder.pos_conv.0"),
        (r"(layers\.\d+)\.layer_norm", r"\1.self_attn_layer_norm"),
        (r"\.attention\.", ".self_attn."),
        (r"gru_rel_pos_const", "grep_a"),
        (r"gru_rel_pos_linear", "grep_linear"),
        (r"rel_attn_embed", "relative_attention_bias"),
        (r"feed_forward\.intermediate_dense", "fc1"),
        (r"feed_forward\.output_dense", "fc2"),
    ]
    made = moved(state(target), table)
    first = ("mask_emb", "feature_extractor", "post_extract_proj", "encoder.pos", "encoder.layers")
    rest = [key for key in made if not key.startswith(first)]
    source = Keys()
    for part in first:
        source.update({key: made[key] for key in made if key.startswith(part)})
    source.update({key: made[key] for key in sorted(rest)})
    return back(source, target, table)


@pair("fresh: Whisper in CTranslate2's names to Hugging Face: fused q, k, v; fused k, v", "transformers")
def ct2_whisper(small: bool) -> Two:
    """linear_0 is q, k and v in the encoder, q alone where the decoder looks at it; k's bias is zeros."""
    target = hf(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        vocab_size=3000,
        d_model=384,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=6,
        decoder_attention_heads=6,
        encoder_ffn_dim=1536,
        decoder_ffn_dim=1536,
        pad_token_id=0,
    )
    source, rules = Keys(), []
    d = 384

    def norm(old: str, new: str) -> None:
        source.put(f"{old}/beta", d)
        source.put(f"{old}/gamma", d)
        rules.extend((f"{old}/gamma -> {new}.weight", f"{old}/beta -> {new}.bias"))

    def plain(old: str, new: str, *shape: int) -> None:
        source.put(f"{old}/bias", shape[0])
        source.put(f"{old}/weight", *shape)
        rules.extend((f"{old}/weight -> {new}.weight", f"{old}/bias -> {new}.bias"))

    def attention(old: str, new: str, cross: bool) -> None:
        norm(f"{old}/layer_norm", f"{new}_layer_norm")
        if cross:
            plain(f"{old}/linear_0", f"{new}.q_proj", d, d)
            source.put(f"{old}/linear_1/bias", 2 * d)
            source.put(f"{old}/linear_1/weight", 2 * d, d)
            rules.append(f"{old}/linear_1/weight -> {new}.k_proj.weight, {new}.v_proj.weight | (k + v) i -> k i, v i")
            rules.append(f"{old}/linear_1/bias -> {new}.v_proj.bias | (_ + v) -> v")
            plain(f"{old}/linear_2", f"{new}.out_proj", d, d)
        else:
            source.put(f"{old}/linear_0/bias", 3 * d)
            source.put(f"{old}/linear_0/weight", 3 * d, d)
            names = ", ".join(f"{new}.{x}_proj.weight" for x in "qkv")
            rules.append(f"{old}/linear_0/weight -> {names} | (q + k + v) i -> q i, k i, v i")
            rules.append(f"{old}/linear_0/bias -> {new}.q_proj.bias, {new}.v_proj.bias | (q + _ + v) -> q, v")
            plain(f"{old}/linear_1", f"{new}.out_proj", d, d)

    source.put("decoder/embeddings/weight", 3000, d)
    tied = [key for key in ("model.decoder.embed_tokens.weight", "proj_out.weight") if key in state(target)]
    rules.append(f"decoder/embeddings/weight -> {', '.join(tied)}")
    for side in ("decoder", "encoder"):
        if side == "encoder":
            plain("encoder/conv1", "model.encoder.conv1", d, 80, 3)
            plain("encoder/conv2", "model.encoder.conv2", d, d, 3)
        for at in range(3):
            old, new = f"{side}/layer_{at}", f"model.{side}.layers.{at}"
            if side == "decoder":
                attention(f"{old}/attention", f"{new}.encoder_attn", True)
            norm(f"{old}/ffn/layer_norm", f"{new}.final_layer_norm")
            plain(f"{old}/ffn/linear_0", f"{new}.fc1", 4 * d, d)
            plain(f"{old}/ffn/linear_1", f"{new}.fc2", d, 4 * d)
            attention(f"{old}/self_attention", f"{new}.self_attn", False)
        norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        source.put(f"{side}/position_encodings/encodings", 1500 if side == "encoder" else 448, d)
        rules.append(f"{side}/position_encodings/encodings -> model.{side}.embed_positions.weight")
    return fresh(source, target, rules, vars={"q": d, "k": d, "v": d})


@pair("fresh: ESPnet's Conformer to NeMo's: two feed-forwards and five norms of one shape")
def conformer(small: bool) -> Two:
    """macaron is the first feed-forward; norm_final is norm_out."""
    source = Keys()
    source.conv("encoder.embed.conv.0", 256, 1, 3)
    source.conv("encoder.embed.conv.2", 256, 256, 3)
    source.lin("encoder.embed.out.0", 256, 4864)
    target = Keys()
    target.lin("encoder.pre_encode.out", 256, 4864)
    target.conv("encoder.pre_encode.conv.0", 256, 1, 3)
    target.conv("encoder.pre_encode.conv.2", 256, 256, 3)
    for at in range(6):
        name = f"encoder.encoders.{at}"
        source.put(f"{name}.self_attn.pos_bias_u", 4, 64)
        source.put(f"{name}.self_attn.pos_bias_v", 4, 64)
        for x in ("q", "k", "v", "out"):
            source.lin(f"{name}.self_attn.linear_{x}", 256, 256)
        source.put(f"{name}.self_attn.linear_pos.weight", 256, 256)
        for part in ("feed_forward", "feed_forward_macaron"):
            source.lin(f"{name}.{part}.w_1", 1024, 256)
            source.lin(f"{name}.{part}.w_2", 256, 1024)
        source.conv(f"{name}.conv_module.pointwise_conv1", 512, 256, 1, 1)
        source[f"{name}.conv_module.pointwise_conv1.weight"] = source.pop(f"{name}.conv_module.pointwise_conv1.weight")[
            ..., 0
        ]
        source.conv(f"{name}.conv_module.depthwise_conv", 256, 1, 31, 1)
        source[f"{name}.conv_module.depthwise_conv.weight"] = source.pop(f"{name}.conv_module.depthwise_conv.weight")[
            ..., 0
        ]
        source.bn(f"{name}.conv_module.norm", 256)
        source.put(f"{name}.conv_module.pointwise_conv2.weight", 256, 256, 1)
        source.put(f"{name}.conv_module.pointwise_conv2.bias", 256)
        for part in ("norm_ff", "norm_mha", "norm_ff_macaron", "norm_conv", "norm_final"):
            source.norm(f"{name}.{part}", 256)
        new = f"encoder.layers.{at}"
        target.norm(f"{new}.norm_feed_forward1", 256)
        for number in (1, 2):
            if number == 2:
                target.norm(f"{new}.norm_conv", 256)
                target.put(f"{new}.conv.pointwise_conv1.weight", 512, 256, 1)
                target.put(f"{new}.conv.pointwise_conv1.bias", 512)
                target.put(f"{new}.conv.depthwise_conv.weight", 256, 1, 31)
                target.put(f"{new}.conv.depthwise_conv.bias", 256)
                target.bn(f"{new}.conv.batch_norm", 256)
                target.put(f"{new}.conv.pointwise_conv2.weight", 256, 256, 1)
                target.put(f"{new}.conv.pointwise_conv2.bias", 256)
                target.norm(f"{new}.norm_self_att", 256)
                target.put(f"{new}.self_attn.pos_bias_u", 4, 64)
                target.put(f"{new}.self_attn.pos_bias_v", 4, 64)
                for x in ("q", "k", "v", "out"):
                    target.lin(f"{new}.self_attn.linear_{x}", 256, 256)
                target.put(f"{new}.self_attn.linear_pos.weight", 256, 256)
                target.norm(f"{new}.norm_feed_forward2", 256)
            target.lin(f"{new}.feed_forward{number}.linear1", 1024, 256)
            target.lin(f"{new}.feed_forward{number}.linear2", 256, 1024)
        target.norm(f"{new}.norm_out", 256)
    source.norm("encoder.after_norm", 256)
    source.lin("ctc.ctc_lo", 1000, 256)
    target.put("decoder.decoder_layers.0.weight", 1025, 256, 1)
    target.put("decoder.decoder_layers.0.bias", 1025)
    table = [
        (r"^decoder.*", ""),
        (r"pre_encode\.out", "embed.out.0"),
        (r"pre_encode\.conv", "embed.conv"),
        (r"^encoder\.layers", "encoder.encoders"),
        (r"norm_feed_forward1", "norm_ff_macaron"),
        (r"norm_feed_forward2", "norm_ff"),
        (r"norm_self_att", "norm_mha"),
        (r"norm_out", "norm_final"),
        (r"\.feed_forward1\.linear", ".feed_forward_macaron.w_"),
        (r"\.feed_forward2\.linear", ".feed_forward.w_"),
        (r"\.conv\.(pointwise|depthwise)", r".conv_module.\1"),
        (r"\.conv\.batch_norm", ".conv_module.norm"),
    ]
    return back(source, target, table, missing=["decoder.*"])


@pair("fresh: SpeechBrain's ECAPA-TDNN to TaoRuijie's: block 1 is layer1, a convolution is Linear")
def ecapa(small: bool) -> Two:
    """An attention whose first norm is a module of a Sequential; a last norm is new."""
    source, target = Keys(), Keys()

    def tdnn(name: str, out: int, into: int, kernel: int) -> None:
        source.put(f"{name}.conv.conv.weight", out, into, kernel)
        source.put(f"{name}.conv.conv.bias", out)
        source.bn(f"{name}.norm.norm", out)

    def conv(name: str, out: int, into: int, kernel: int) -> None:
        target.put(f"{name}.weight", out, into, kernel)
        target.put(f"{name}.bias", out)

    tdnn("blocks.0", 1024, 80, 5)
    conv("conv1", 1024, 80, 5)
    target.bn("bn1", 1024)
    for at in (1, 2, 3):
        old, new = f"blocks.{at}", f"layer{at}"
        tdnn(f"{old}.tdnn1", 1024, 1024, 1)
        for part in range(7):
            tdnn(f"{old}.res2net_block.blocks.{part}", 128, 128, 3)
        tdnn(f"{old}.tdnn2", 1024, 1024, 1)
        source.put(f"{old}.se_block.conv1.conv.weight", 128, 1024, 1)
        source.put(f"{old}.se_block.conv1.conv.bias", 128)
        source.put(f"{old}.se_block.conv2.conv.weight", 1024, 128, 1)
        source.put(f"{old}.se_block.conv2.conv.bias", 1024)
        conv(f"{new}.conv1", 1024, 1024, 1)
        target.bn(f"{new}.bn1", 1024)
        for part in range(7):
            conv(f"{new}.convs.{part}", 128, 128, 3)
        for part in range(7):
            target.bn(f"{new}.bns.{part}", 128)
        conv(f"{new}.conv3", 1024, 1024, 1)
        target.bn(f"{new}.bn3", 1024)
        conv(f"{new}.se.se.1", 128, 1024, 1)
        conv(f"{new}.se.se.3", 1024, 128, 1)
    tdnn("mfa", 1536, 3072, 1)
    tdnn("asp.tdnn", 256, 4608, 1)
    source.put("asp.conv.conv.weight", 1536, 256, 1)
    source.put("asp.conv.conv.bias", 1536)
    source.bn("asp_bn.norm", 3072)
    source.put("fc.conv.weight", 192, 3072, 1)
    source.put("fc.conv.bias", 192)
    conv("layer4", 1536, 3072, 1)
    conv("attention.0", 256, 4608, 1)
    target.bn("attention.2", 256)
    conv("attention.4", 1536, 256, 1)
    target.bn("bn5", 3072)
    target.lin("fc6", 192, 3072)
    target.bn("bn6", 192)
    table = [
        (r"^bn6.*", ""),
        (r"^conv1\.", "blocks.0.conv.conv."),
        (r"^bn1\.", "blocks.0.norm.norm."),
        (r"^layer4\.", "mfa.conv.conv."),
        (r"^layer(\d)\.", r"blocks.\1."),
        (r"(blocks\.\d)\.conv1\.", r"\1.tdnn1.conv.conv."),
        (r"(blocks\.\d)\.bn1\.", r"\1.tdnn1.norm.norm."),
        (r"(blocks\.\d)\.conv3\.", r"\1.tdnn2.conv.conv."),
        (r"(blocks\.\d)\.bn3\.", r"\1.tdnn2.norm.norm."),
        (r"\.convs\.(\d)\.", r".res2net_block.blocks.\1.conv.conv."),
        (r"\.bns\.(\d)\.", r".res2net_block.blocks.\1.norm.norm."),
        (r"\.se\.se\.1\.", ".se_block.conv1.conv."),
        (r"\.se\.se\.3\.", ".se_block.conv2.conv."),
        (r"^attention\.0\.", "asp.tdnn.conv.conv."),
        (r"^attention\.2\.", "asp.tdnn.norm.norm."),
        (r"^attention\.4\.", "asp.conv.conv."),
        (r"^bn5\.", "asp_bn.norm."),
        (r"^fc6\.", "fc.conv."),
    ]
    table = [(a.replace("blocks\\.\\d)\\.conv1", "blocks\\.[123])\\.conv1"), b) for a, b in table]
    return back(source, target, table, [(r"^fc6\.weight", "o i 1 -> o i")], missing=["bn6.*"])


@pair("fresh: NVIDIA's Tacotron 2 to Coqui's: memory_layer is inputs_layer")
def tacotron(small: bool) -> Two:
    """linear_layer on every level; the gate is the stopnet."""
    source = Keys()
    source.put("embedding.weight", 148, 512)

    def cell(name: str, hidden: int, into: int, tail: str = "") -> None:
        source.put(f"{name}.weight_ih{tail}", 4 * hidden, into)
        source.put(f"{name}.weight_hh{tail}", 4 * hidden, hidden)
        source.put(f"{name}.bias_ih{tail}", 4 * hidden)
        source.put(f"{name}.bias_hh{tail}", 4 * hidden)

    def conv(name: str, out: int, into: int) -> None:
        source.put(f"{name}.0.conv.weight", out, into, 5)
        source.put(f"{name}.0.conv.bias", out)
        source.bn(f"{name}.1", out)

    for at in range(3):
        conv(f"encoder.convolutions.{at}", 512, 512)
    cell("encoder.lstm", 256, 512, "_l0")
    cell("encoder.lstm", 256, 512, "_l0_reverse")
    source.put("decoder.prenet.layers.0.linear_layer.weight", 256, 80)
    source.put("decoder.prenet.layers.1.linear_layer.weight", 256, 256)
    cell("decoder.attention_rnn", 1024, 768)
    source.put("decoder.attention_layer.query_layer.linear_layer.weight", 128, 1024)
    source.put("decoder.attention_layer.memory_layer.linear_layer.weight", 128, 512)
    source.put("decoder.attention_layer.v.linear_layer.weight", 1, 128)
    source.put("decoder.attention_layer.location_layer.location_conv.conv.weight", 32, 2, 31)
    source.put("decoder.attention_layer.location_layer.location_dense.linear_layer.weight", 128, 32)
    cell("decoder.decoder_rnn", 1024, 1536)
    source.lin("decoder.linear_projection.linear_layer", 80, 1536)
    source.lin("decoder.gate_layer.linear_layer", 1, 1536)
    for at, (out, into) in enumerate(((512, 80), (512, 512), (512, 512), (512, 512), (80, 512))):
        conv(f"postnet.convolutions.{at}", out, into)
    table = [
        (r"convolutions\.(\d)\.0\.conv\.", r"convolutions.\1.convolution1d."),
        (r"convolutions\.(\d)\.1\.", r"convolutions.\1.batch_normalization."),
        (r"prenet\.layers", "prenet.linear_layers"),
        (r"attention_layer\.", "attention."),
        (r"memory_layer", "inputs_layer"),
        (r"location_conv\.conv", "location_conv1d"),
        (r"gate_layer\.linear_layer", "stopnet.1.linear_layer"),
    ]
    return forth(source, moved(source, table), table)


@pair("fresh: Meta's EnCodec to Hugging Face: weight norm is a parametrization", "transformers")
def encodec(small: bool) -> Two:
    """conv.conv and convtr.convtr; the codebooks are under vq."""
    target = hf("EncodecModel", "EncodecConfig")
    table: list[Any] = [
        (r"parametrizations\.weight\.original0", "weight_g"),
        (r"parametrizations\.weight\.original1", "weight_v"),
        (r"^(encoder|decoder)\.layers", r"\1.model"),
        (r"^decoder\.model\.(3|6|9|12)\.conv\.", r"decoder.model.\1.convtr.convtr."),
        (r"\.conv\.(weight|bias)", r".conv.conv.\1"),
        (r"^quantizer\.layers\.(\d+)\.codebook", r"quantizer.vq.layers.\1._codebook"),
    ]
    made = moved(state(target), table)
    return back(made, target, table)
