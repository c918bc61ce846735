"""Blind pairs: speech and sound."""

from __future__ import annotations

from typing import Any

from tests.bench.match.blind import Net, Two, like, pair, split, state, to


@pair("blind: AST by YuanGong to Hugging Face: a distilled DeiT in DataParallel", "transformers")
def ast(small: bool) -> Two:
    """DeiT's own two heads stay behind."""
    import transformers

    target = transformers.ASTForAudioClassification(transformers.ASTConfig(num_labels=527, num_hidden_layers=3))
    source, width, groups = Net(), 768, []
    source.put("module.v.cls_token", 1, 1, width)
    source.put("module.v.pos_embed", 1, 1214, width)
    source.put("module.v.dist_token", 1, 1, width)
    source.conv("module.v.patch_embed.proj", width, 1, 16)
    for block in range(3):
        at = f"module.v.blocks.{block}"
        source.norm(f"{at}.norm1", width)
        source.lin(f"{at}.attn.qkv", 3 * width, width)
        source.lin(f"{at}.attn.proj", width, width)
        source.norm(f"{at}.norm2", width)
        source.lin(f"{at}.mlp.fc1", 4 * width, width)
        source.lin(f"{at}.mlp.fc2", width, 4 * width)
        there = f"audio_spectrogram_transformer.layers.{block}.attention"
        groups += split(f"{at}.attn.qkv", [f"{there}.{x}_proj" for x in "qkv"])
    source.norm("module.v.norm", width)
    source.lin("module.v.head", 1000, width)
    source.lin("module.v.head_dist", 1000, width)
    source.norm("module.mlp_head.0", width)
    source.lin("module.mlp_head.1", 527, width)
    root = "audio_spectrogram_transformer"
    table: list[Any] = [
        (r".*qkv.*", "@"),
        (r"^module\.v\.head.*", ""),
        (r"^module\.mlp_head\.0", "classifier.layernorm"),
        (r"^module\.mlp_head\.1", "classifier.dense"),
        (r"^module\.v\.cls_token", f"{root}.embeddings.cls_token"),
        (r"^module\.v\.dist_token", f"{root}.embeddings.distillation_token"),
        (r"^module\.v\.pos_embed", f"{root}.embeddings.position_embeddings"),
        (r"^module\.v\.patch_embed\.proj", f"{root}.embeddings.patch_embeddings.projection"),
        (r"^module\.v\.norm\.", f"{root}.layernorm."),
        (r"^module\.v\.blocks", f"{root}.layers"),
        (r"\.attn\.proj", ".attention.o_proj"),
        (r"\.norm1", ".layernorm_before"),
        (r"\.norm2", ".layernorm_after"),
    ]
    return to(source, target, table, groups=groups,
              truth="transformers' convert_audio_spectrogram_transformer_original_to_pytorch.py")  # fmt: skip


@pair("blind: Wav2Vec2-BERT in fairseq2's names to Hugging Face: a Conformer and its adaptor", "transformers")
def w2v_bert(small: bool) -> Two:
    """output_proj ends an attention and a feed-forward; the convolution has two norms."""
    import transformers

    config = transformers.Wav2Vec2BertConfig(vocab_size=100, num_hidden_layers=3, add_adapter=True)
    target = transformers.Wav2Vec2BertForCTC(config)
    source, width = Net(), 1024
    source.norm("encoder_frontend.post_extract_layer_norm", 160)
    source.lin("encoder_frontend.model_dim_proj", width, 160)

    def attention(name: str, relative: bool) -> None:
        source.lins(*(f"{name}.{x}_proj" for x in "qkv"), out=width, into=width)
        if relative:
            source.put(f"{name}.sdpa.rel_k_embed.weight", 73, 64)
        source.lin(f"{name}.output_proj", width, width)

    def forward(name: str) -> None:
        source.norm(f"{name}_layer_norm", width)
        source.lin(f"{name}.inner_proj", 4 * width, width)
        source.lin(f"{name}.output_proj", width, 4 * width)

    for layer in range(3):
        at = f"encoder.inner.layers.{layer}"
        forward(f"{at}.ffn1")
        source.norm(f"{at}.self_attn_layer_norm", width)
        attention(f"{at}.self_attn", True)
        source.norm(f"{at}.conv_layer_norm", width)
        source.conv(f"{at}.conv.pointwise_conv1", 2 * width, width, 1, bias=False)
        source[f"{at}.conv.pointwise_conv1.weight"] = source[f"{at}.conv.pointwise_conv1.weight"][..., 0]
        source.put(f"{at}.conv.depthwise_conv.weight", width, 1, 31)
        source.norm(f"{at}.conv.layer_norm", width)
        source.put(f"{at}.conv.pointwise_conv2.weight", width, width, 1)
        forward(f"{at}.ffn2")
        source.norm(f"{at}.layer_norm", width)
    at = "encoder.adaptor_layers.0"
    source.norm(f"{at}.residual_layer_norm", width)
    source.put(f"{at}.residual_conv.weight", 2 * width, width, 3)
    source.put(f"{at}.residual_conv.bias", 2 * width)
    source.norm(f"{at}.self_attn_layer_norm", width)
    source.put(f"{at}.self_attn_conv.weight", 2 * width, width, 3)
    source.put(f"{at}.self_attn_conv.bias", 2 * width)
    attention(f"{at}.self_attn", False)
    forward(f"{at}.ffn")
    source.put("masker.temporal_mask_embed", width)
    source.lin("final_proj", 100, width)
    root = "wav2vec2_bert"
    table: list[Any] = [
        (r"^encoder_frontend\.model_dim_proj", f"{root}.feature_projection.projection"),
        (r"^encoder_frontend\.post_extract_layer_norm", f"{root}.feature_projection.layer_norm"),
        (r"^encoder\.inner\.layers", f"{root}.encoder.layers"),
        (r"^encoder\.adaptor_layers", f"{root}.adapter.layers"),
        (r"^masker\.temporal_mask_embed", f"{root}.masked_spec_embed"),
        (r"^final_proj", "lm_head"),
        (r"inner_proj", "intermediate_dense"),
        (r"self_attn\.output_proj", "self_attn.linear_out"),
        (r"output_proj", "output_dense"),
        (r"self_attn\.(.)_proj", r"self_attn.linear_\1"),
        (r"self_attn\.sdpa\.rel_k_embed", "self_attn.distance_embedding"),
        (r"\.conv\.layer_norm", ".conv_module.depthwise_layer_norm"),
        (r"\.conv_layer_norm", ".conv_module.layer_norm"),
        (r"\.conv\.", ".conv_module."),
        (r"(layers\.\d)\.layer_norm", r"\1.final_layer_norm"),
    ]
    return to(source, target, table, truth="transformers' convert_wav2vec2_seamless_checkpoint.py")


@pair("blind: SpeechT5 in fairseq's names to Hugging Face's text to speech: pre- and postnets stay behind",
      "transformers")  # fmt: skip
def speecht5(small: bool) -> Two:
    """Two tables of one shape, one belongs to the text's decoder; the encoder's norm lost a word."""
    import transformers

    config = transformers.SpeechT5Config(encoder_layers=2, decoder_layers=2)
    target = transformers.SpeechT5ForTextToSpeech(config)
    source, width = Net(), 768
    source.put("encoder.version", 1)

    def layers(side: str) -> None:
        for layer in range(2):
            at = f"{side}.layers.{layer}"
            for part in ("self_attn", "encoder_attn")[: 1 + (side == "decoder")]:
                source.lins(*(f"{at}.{part}.{x}_proj" for x in ("k", "v", "q", "out")), out=width, into=width)
                source.norm(f"{at}.{part}_layer_norm", width)
            source.lin(f"{at}.fc1", 3072, width)
            source.lin(f"{at}.fc2", width, 3072)
            source.norm(f"{at}.final_layer_norm", width)

    layers("encoder")
    source.norm("encoder.layer_norm", width)
    source.put("encoder.pos_emb.pe_k.weight", 320, 64)
    source.put("decoder.version", 1)
    layers("decoder")
    source.put("text_encoder_prenet.encoder_prenet.0.weight", 81, width)
    source.put("text_encoder_prenet.encoder_prenet.1.alpha")
    source.lin("speech_decoder_prenet.decoder_prenet.0.0.prenet.0.0", 256, 80)
    source.lin("speech_decoder_prenet.decoder_prenet.0.0.prenet.1.0", 256, 256)
    source.lin("speech_decoder_prenet.decoder_prenet.0.1", width, 256)
    source.put("speech_decoder_prenet.decoder_prenet.1.alpha")
    source.lin("speech_decoder_prenet.spkembs_layer.0", width, 1280)
    source.put("speech_encoder_prenet.mask_emb", width)
    for layer in range(3):
        source.put(f"speech_encoder_prenet.feature_extractor.conv_layers.{layer}.0.weight", 512,
                   512 if layer else 1, 3 if layer else 10)  # fmt: skip
    source.norm("speech_encoder_prenet.layer_norm", 512)
    source.lin("speech_encoder_prenet.post_extract_proj", width, 512)
    source.put("text_decoder_prenet.embed_tokens.weight", 81, width)
    source.lin("speech_decoder_postnet.feat_out", 160, width)
    source.lin("speech_decoder_postnet.prob_out", 2, width)
    for layer, (out, into) in enumerate(((256, 80), (256, 256), (256, 256), (256, 256), (80, 256))):
        source.put(f"speech_decoder_postnet.postnet.postnet.{layer}.0.weight", out, into, 5)
        source.bn(f"speech_decoder_postnet.postnet.postnet.{layer}.1", out)
    source.put("text_decoder_postnet.output_projection.weight", 81, width)
    table: list[Any] = [
        (r"^(.*\.version|speech_encoder_prenet.*|text_decoder_.*)$", ""),
        (r"^text_encoder_prenet\.encoder_prenet\.0", "speecht5.encoder.prenet.embed_tokens"),
        (r"^text_encoder_prenet\.encoder_prenet\.1", "speecht5.encoder.prenet.encode_positions"),
        (r"^speech_decoder_prenet\.decoder_prenet\.0\.0\.prenet\.(\d)\.0", r"speecht5.decoder.prenet.layers.\1"),
        (r"^speech_decoder_prenet\.decoder_prenet\.0\.1", "speecht5.decoder.prenet.final_layer"),
        (r"^speech_decoder_prenet\.decoder_prenet\.1", "speecht5.decoder.prenet.encode_positions"),
        (r"^speech_decoder_prenet\.spkembs_layer\.0", "speecht5.decoder.prenet.speaker_embeds_layer"),
        (r"^speech_decoder_postnet\.postnet\.postnet\.(\d)\.0", r"speech_decoder_postnet.layers.\1.conv"),
        (r"^speech_decoder_postnet\.postnet\.postnet\.(\d)\.1", r"speech_decoder_postnet.layers.\1.batch_norm"),
        (r"^encoder\.layers\.(\d)\.self_attn_layer_norm", r"speecht5.encoder.wrapped_encoder.layers.\1.layer_norm"),
        (r"^encoder\.layers\.(\d)\.self_attn", r"speecht5.encoder.wrapped_encoder.layers.\1.attention"),
        (r"^encoder\.pos_emb", "speecht5.encoder.wrapped_encoder.embed_positions"),
        (r"^(encoder|decoder)\.", r"speecht5.\1.wrapped_\1."),
        (r"\.fc1", ".feed_forward.intermediate_dense"),
        (r"\.fc2", ".feed_forward.output_dense"),
    ]
    return to(source, target, table,
              truth="transformers' convert_speecht5_original_pytorch_checkpoint_to_pytorch.py")  # fmt: skip


@pair("blind: Bark's fine model in Suno's names to Hugging Face: eight tables and seven heads of one shape",
      "transformers")  # fmt: skip
def bark(small: bool) -> Two:
    """A compiled nanoGPT; c_proj is out_proj twice."""
    import transformers

    config = transformers.models.bark.configuration_bark.BarkFineConfig(num_layers=12)
    target = transformers.BarkFineModel(config)

    def name_of(key: str) -> str:
        if not key.startswith("lm_heads"):
            key = f"transformer.{key}"
        for there, here in (("input_embeds_layers", "wtes"), ("position_embeds_layer", "wpe"), (".layers.", ".h."),
                            ("layernorm_final", "ln_f"), ("layernorm_", "ln_"), ("att_proj", "c_attn"),
                            ("out_proj", "c_proj"), ("in_proj", "c_fc")):  # fmt: skip
            key = key.replace(there, here)
        return f"_orig_mod.{key}"

    return Two(like(target, name_of), target, [f"{name_of(key)} -> {key}" for key in state(target)],
               proof="transformers' convert_suno_to_hf.py")  # fmt: skip


@pair("blind: MusicGen in audiocraft's names to Hugging Face: fused self and cross attention", "transformers")
def musicgen(small: bool) -> Two:
    """Cross attention and its norm come last in a layer; the text's projection stays behind."""
    import transformers

    target = transformers.MusicgenForCausalLM(transformers.MusicgenDecoderConfig(num_hidden_layers=4))
    source, width, groups = Net(), 1024, []
    source.lin("condition_provider.conditioners.description.output_proj", width, 768)
    for at in range(4):
        source.put(f"emb.{at}.weight", 2049, width)
    for layer in range(4):
        at = f"transformer.layers.{layer}"
        source.mha(f"{at}.self_attn", width, bias=False)
        source.lin(f"{at}.linear1", 4096, width, bias=False)
        source.lin(f"{at}.linear2", width, 4096, bias=False)
        source.norm(f"{at}.norm1", width)
        source.norm(f"{at}.norm2", width)
        source.mha(f"{at}.cross_attention", width, bias=False)
        source.norm(f"{at}.norm_cross", width)
        for here, there in (("self_attn", "self_attn"), ("cross_attention", "encoder_attn")):
            groups += split(f"{at}.{here}", [f"model.decoder.layers.{layer}.{there}.{x}_proj" for x in "qkv"],
                            bias=False, weight=".in_proj_weight")  # fmt: skip
    source.norm("out_norm", width)
    for at in range(4):
        source.put(f"linears.{at}.weight", 2048, width)
    table: list[Any] = [
        (r".*in_proj_weight", "@"),
        (r"^condition_provider.*", ""),
        (r"^emb\.", "model.decoder.embed_tokens."),
        (r"^linears", "lm_heads"),
        (r"^out_norm", "model.decoder.layer_norm"),
        (r"^transformer", "model.decoder"),
        (r"cross_attention", "encoder_attn"),
        (r"\.linear(\d)", r".fc\1"),
        (r"\.norm1", ".self_attn_layer_norm"),
        (r"\.norm_cross", ".encoder_attn_layer_norm"),
        (r"\.norm2", ".final_layer_norm"),
    ]
    return to(source, target, table, groups=groups, truth="transformers' convert_musicgen_transformers.py")


@pair("blind: CLAP in LAION's names to Hugging Face: a Swin of sounds and a RoBERTa", "transformers")
def clap(small: bool) -> Two:
    """Transforms of the projections' widths, the spectrogram and AudioSet's head stay behind."""
    import transformers

    config = transformers.ClapConfig(text_config={"num_hidden_layers": 2}, audio_config={"depths": [2, 2, 2, 2]})
    target = transformers.ClapModel(config)
    source, groups = Net(), []
    source.put("module.logit_scale_a")
    source.put("module.logit_scale_t")
    audio = "module.audio_branch"
    source.put(f"{audio}.spectrogram_extractor.stft.conv_real.weight", 513, 1, 1024)
    source.put(f"{audio}.spectrogram_extractor.stft.conv_imag.weight", 513, 1, 1024)
    source.put(f"{audio}.logmel_extractor.melW", 513, 64)
    source.bn(f"{audio}.bn0", 64)
    source.conv(f"{audio}.patch_embed.proj", 96, 1, 4)
    source.norm(f"{audio}.patch_embed.norm", 96)
    for stage in range(4):
        width = 96 << stage
        for block in range(2):
            at = f"{audio}.layers.{stage}.blocks.{block}"
            source.norm(f"{at}.norm1", width)
            source.put(f"{at}.attn.relative_position_bias_table", 225, 4 << stage)
            source.ints(f"{at}.attn.relative_position_index", 64, 64)
            source.lin(f"{at}.attn.qkv", 3 * width, width)
            source.lin(f"{at}.attn.proj", width, width)
            source.norm(f"{at}.norm2", width)
            source.lin(f"{at}.mlp.fc1", 4 * width, width)
            source.lin(f"{at}.mlp.fc2", width, 4 * width)
            there = f"audio_model.audio_encoder.layers.{stage}.blocks.{block}.attention.self"
            groups += split(f"{at}.attn.qkv", [f"{there}.{x}" for x in ("query", "key", "value")])
        if stage < 3:
            source.lin(f"{audio}.layers.{stage}.downsample.reduction", 2 * width, 4 * width, bias=False)
            source.norm(f"{audio}.layers.{stage}.downsample.norm", 4 * width)
    source.norm(f"{audio}.norm", 768)
    source.conv(f"{audio}.tscam_conv", 527, 768, 2, 3)
    source.lin(f"{audio}.head", 527, 527)
    for key, tensor in state(target).items():
        if key.startswith("text_model.") and not key.endswith("token_type_ids"):
            source[key.replace("text_model", "module.text_branch")] = tensor
    for part in ("text", "audio"):
        source.lin(f"module.{part}_transform.sequential.0", 512, 512)
        source.lin(f"module.{part}_transform.sequential.3", 512, 512)
        source.lin(f"module.{part}_projection.0", 512, 768)
        source.lin(f"module.{part}_projection.2", 512, 512)
    table: list[Any] = [
        (r".*qkv.*", "@"),
        (r".*(spectrogram_extractor|logmel|tscam_conv|branch\.head|_transform).*", ""),
        (r"^module\.", ""),
        (r"^text_branch", "text_model"),
        (r"^audio_branch\.bn0", "audio_branch.batch_norm"),
        (r"^audio_branch", "audio_model.audio_encoder"),
        (r"_projection\.0", "_projection.linear1"),
        (r"_projection\.2", "_projection.linear2"),
        (r"\.attn\.relative", ".attention.self.relative"),
        (r"\.attn\.proj", ".attention.output.dense"),
        (r"\.mlp\.fc1", ".intermediate.dense"),
        (r"\.mlp\.fc2", ".output.dense"),
        (r"\.norm1", ".layernorm_before"),
        (r"\.norm2", ".layernorm_after"),
    ]
    return to(source, target, table, groups=groups, missing=["text_model.embeddings.token_type_ids"],
              truth="transformers' convert_clap_original_pytorch_to_hf.py")  # fmt: skip


@pair("blind: Speech2Text in fairseq's names to Hugging Face", "transformers")
def speech2text(small: bool) -> Two:
    """The head of the decoder is a tensor of its own."""
    import transformers

    config = transformers.Speech2TextConfig(encoder_layers=2, decoder_layers=2)
    target = transformers.Speech2TextForConditionalGeneration(config)
    source, width = Net(), 256
    source.put("encoder.version", 1)
    for layer, into in enumerate((80, 512)):
        source.put(f"encoder.subsample.conv_layers.{layer}.weight", 1024 if not layer else 512, into, 5)
        source.put(f"encoder.subsample.conv_layers.{layer}.bias", 1024 if not layer else 512)
    source.put("encoder.embed_positions._float_tensor", 1)
    for side, name in (("encoder", "transformer_layers"), ("decoder", "layers")):
        if side == "decoder":
            source.put("decoder.version", 1)
            source.put("decoder.embed_tokens.weight", 10000, width)
            source.put("decoder.embed_positions._float_tensor", 1)
        for layer in range(2):
            at = f"{side}.{name}.{layer}"
            for part in ("self_attn", "encoder_attn")[: 1 + (side == "decoder")]:
                source.lins(*(f"{at}.{part}.{x}_proj" for x in ("k", "v", "q", "out")), out=width, into=width)
                source.norm(f"{at}.{part}_layer_norm", width)
            source.lin(f"{at}.fc1", 2048, width)
            source.lin(f"{at}.fc2", width, 2048)
            source.norm(f"{at}.final_layer_norm", width)
        source.norm(f"{side}.layer_norm", width)
    source.put("decoder.output_projection.weight", 10000, width)
    table: list[Any] = [
        (r"^.*(\.version|_float_tensor)$", ""),
        (r"^decoder\.output_projection", "lm_head"),
        (r"transformer_layers", "layers"),
        (r"subsample", "conv"),
        (r"^(encoder|decoder)", r"model.\1"),
    ]
    return to(source, target, table, truth="transformers' convert_s2t_fairseq_to_tfms.py")


@pair("blind: Conv-TasNet in Asteroid's names to torchaudio: gamma and beta, blocks of one Sequential")
def conv_tasnet(small: bool) -> Two:
    """Encoder and decoder are of one shape; the last block has no way on in torchaudio."""
    source, target = Net(), Net()
    source.put("encoder.filterbank._filters", 512, 1, 16)
    target.put("encoder.weight", 512, 1, 16)

    def norm(here: str, there: str, size: int) -> None:
        source.put(f"{here}.gamma", size)
        source.put(f"{here}.beta", size)
        target.norm(there, size)

    def conv(here: str, there: str, *shape: int) -> None:
        source.put(f"{here}.weight", *shape)
        source.put(f"{here}.bias", shape[0])
        if there:
            target.put(f"{there}.weight", *shape)
            target.put(f"{there}.bias", shape[0])

    def prelu(here: str, there: str) -> None:
        source.put(f"{here}.weight", 1)
        target.put(f"{there}.weight", 1)

    norm("masker.bottleneck.0", "mask_generator.input_norm", 512)
    conv("masker.bottleneck.1", "mask_generator.input_conv", 128, 512, 1)
    for block in range(24):
        here, there = f"masker.TCN.{block}.shared_block", f"mask_generator.conv_layers.{block}.conv_layers"
        conv(f"{here}.0", f"{there}.0", 512, 128, 1)
        prelu(f"{here}.1", f"{there}.1")
        norm(f"{here}.2", f"{there}.2", 512)
        conv(f"{here}.3", f"{there}.3", 512, 1, 3)
        prelu(f"{here}.4", f"{there}.4")
        norm(f"{here}.5", f"{there}.5", 512)
        conv(f"masker.TCN.{block}.res_conv", f"mask_generator.conv_layers.{block}.res_out" if block < 23 else "",
             128, 512, 1)  # fmt: skip
        conv(f"masker.TCN.{block}.skip_conv", f"mask_generator.conv_layers.{block}.skip_out", 128, 512, 1)
    prelu("masker.mask_net.0", "mask_generator.output_prelu")
    conv("masker.mask_net.1", "mask_generator.output_conv", 1024, 128, 1)
    source.put("decoder.filterbank._filters", 512, 1, 16)
    target.put("decoder.weight", 512, 1, 16)
    table: list[Any] = [
        (r"^masker\.TCN\.23\.res_conv.*", ""),
        (r"\.filterbank\._filters", ".weight"),
        (r"^masker\.bottleneck\.0", "mask_generator.input_norm"),
        (r"^masker\.bottleneck\.1", "mask_generator.input_conv"),
        (r"^masker\.mask_net\.0", "mask_generator.output_prelu"),
        (r"^masker\.mask_net\.1", "mask_generator.output_conv"),
        (r"^masker\.TCN\.(\d+)", r"mask_generator.conv_layers.\1"),
        (r"shared_block", "conv_layers"),
        (r"res_conv", "res_out"),
        (r"skip_conv", "skip_out"),
        (r"\.gamma", ".weight"),
        (r"\.beta", ".bias"),
    ]
    return to(source, target, table, truth="code of both sides: Asteroid's TDConvNet and torchaudio's ConvTasNet")


@pair("blind: Hybrid Demucs by Facebook to torchaudio: time and frequency by a letter or a word")
def demucs(small: bool) -> Two:
    """tencoder is time_encoder; the lists stand in another order."""
    parts: dict[str, Net] = {name: Net() for name in ("encoder", "decoder", "tencoder", "tdecoder", "freq_emb")}

    def dconv(net: Net, name: str, width: int, deep: bool) -> None:
        hidden = width // 4
        for layer in range(2):
            at, rest = f"{name}.dconv.layers.{layer}", 3
            net.put(f"{at}.0.weight", hidden, width, 3)
            net.put(f"{at}.0.bias", hidden)
            net.norm(f"{at}.1", hidden)
            if deep:
                for level in range(2):
                    for way in ("", "_reverse"):
                        net.put(f"{at}.3.lstm.weight_ih_l{level}{way}", 4 * hidden, 2 * hidden if level else hidden)
                        net.put(f"{at}.3.lstm.weight_hh_l{level}{way}", 4 * hidden, hidden)
                        net.put(f"{at}.3.lstm.bias_ih_l{level}{way}", 4 * hidden)
                        net.put(f"{at}.3.lstm.bias_hh_l{level}{way}", 4 * hidden)
                net.lin(f"{at}.3.linear", hidden, 2 * hidden)
                for part, out in (("content", hidden), ("query", hidden), ("key", hidden), ("query_decay", 16),
                                  ("proj", hidden)):  # fmt: skip
                    net.put(f"{at}.4.{part}.weight", out, hidden, 1)
                    net.put(f"{at}.4.{part}.bias", out)
                rest = 5
            net.put(f"{at}.{rest}.weight", 2 * width, hidden, 1)
            net.put(f"{at}.{rest}.bias", 2 * width)
            net.norm(f"{at}.{rest + 1}", 2 * width)
            net.put(f"{at}.{rest + 3}.scale", width)

    def conv(net: Net, name: str, out: int, into: int, *kernel: int, turned: bool = False) -> None:
        net.put(f"{name}.weight", *((into, out) if turned else (out, into)), *kernel)
        net.put(f"{name}.bias", out)

    for level in range(6):
        width, into = 48 << level, 24 << level
        frequency, two = level < 5, (1,) * (level < 4)
        name = str(level)
        conv(parts["encoder"], f"{name}.conv", width, into if level else 4, *((8, 1) if frequency else (4,)))
        if level >= 4:
            parts["encoder"].norm(f"{name}.norm1", width)
        conv(parts["encoder"], f"{name}.rewrite", 2 * width, width, 1, *two)
        if level >= 4:
            parts["encoder"].norm(f"{name}.norm2", 2 * width)
        dconv(parts["encoder"], name, width, level >= 4)
        if level < 5:
            conv(parts["tencoder"], f"{name}.conv", width, into if level else 2, 8)
            if level < 4:
                conv(parts["tencoder"], f"{name}.rewrite", 2 * width, width, 1)
                dconv(parts["tencoder"], name, width, False)
    for step, level in enumerate(range(5, -1, -1)):
        width, out = 48 << level, (24 << level) if level else 16
        frequency = level < 5
        conv(parts["decoder"], f"{step}.conv_tr", out, width, *((8, 1) if frequency else (4,)), turned=True)
        if level >= 4:
            parts["decoder"].norm(f"{step}.norm2", out)
        conv(parts["decoder"], f"{step}.rewrite", 2 * width, width, *((3, 3) if level < 4 else (3,)))
        if level >= 4:
            parts["decoder"].norm(f"{step}.norm1", 2 * width)
        if level < 5:
            conv(parts["tdecoder"], f"{step - 1}.conv_tr", out if level else 8, width, 8, turned=True)
            if level == 4:
                parts["tdecoder"].norm(f"{step - 1}.norm2", out)
            else:
                conv(parts["tdecoder"], f"{step - 1}.rewrite", 2 * width, width, 3)
    parts["freq_emb"].put("embedding.weight", 512, 48)
    names = {"encoder": "freq_encoder", "decoder": "freq_decoder", "tencoder": "time_encoder",
             "tdecoder": "time_decoder", "freq_emb": "freq_emb"}  # fmt: skip
    source, target, rules = Net(), Net(), []
    for part in ("encoder", "decoder", "tencoder", "tdecoder", "freq_emb"):
        source.update(parts[part].under(f"{part}."))
        rules += [f"{part}.{key} -> {names[part]}.{key}" for key in parts[part]]
    for part in ("freq_emb", "encoder", "decoder", "tencoder", "tdecoder"):
        target.update(parts[part].under(f"{names[part]}."))
    return Two(source, target, rules, proof="code of both sides: demucs' HDemucs and torchaudio's")
