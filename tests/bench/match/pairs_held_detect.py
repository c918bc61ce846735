"""Held-out pairs: detectors, segmenters and two-tower models in their authors' names.

Truth as in `pairs_held_vision`: what the published conversion scripts say, or equal outputs.
"""

from __future__ import annotations

from typing import Any

from tests.bench.match.pairs import State, Two, both_sorted, headers_only, image, pair, sorted_keys, variant
from tests.bench.match.pairs_held import listed, rewound
from tests.bench.match.pairs_text import transformers
from tests.bench.match.pairs_towers import open_clip_model


@pair("OpenAI's CLIP into timm's ViT: one tower of two", "open_clip", "timm")
def clip_timm(small: bool) -> Two:
    """The embedding of the class has no batch axis there, the projection is the head, transposed."""
    import timm

    sizes: dict[str, Any] = {"img_size": 16, "patch_size": 8, "depth": 2, "num_heads": 2, "embed_dim": 64}
    target = timm.create_model(
        "vit_base_patch32_clip_quickgelu_224", num_classes=32 if small else 512, **(sizes if small else {})
    )
    rules = [
        "visual.class_embedding -> cls_token | c -> 1 1 c",
        "visual.positional_embedding -> pos_embed | n c -> 1 n c",
        "visual.conv1.weight -> patch_embed.proj.weight",
        "visual.ln_pre.{p*} -> norm_pre.{p*}",
        "visual.transformer.resblocks.{i}.ln_{n=1|2}.{p*} -> blocks.{i}.norm{n}.{p*}",
        "visual.transformer.resblocks.{i}.attn.in_proj_{p*} -> blocks.{i}.attn.qkv.{p*}",
        "visual.transformer.resblocks.{i}.attn.out_proj.{p*} -> blocks.{i}.attn.proj.{p*}",
        "visual.transformer.resblocks.{i}.mlp.{n=c_fc|c_proj}.{p*} -> blocks.{i}.mlp.{n=fc1|fc2}.{p*}",
        "visual.ln_post.{p*} -> norm.{p*}",
        "visual.proj -> head.weight | i o -> o i",
    ]
    return Two(
        open_clip_model(small, False), target, rules, missing=["head.bias"], ask=lambda m: m.visual(image(16)),
        ask_target=_without_bias,
    )  # fmt: skip


def _without_bias(model: Any) -> Any:
    import torch

    torch.nn.init.zeros_(model.head.bias)
    return model(image(16))


@pair("SegFormer in its authors' names to Hugging Face", "transformers")
def segformer(small: bool) -> Two:
    """mmsegmentation's file: `block1.0` there, `stages.0.blocks.0` here; key and value are one Linear."""
    package = transformers()
    model = package.SegformerForSemanticSegmentation(package.SegformerConfig(num_labels=150))
    rules = []
    for s in range(1, 5):
        stage, block = f"segformer.stages.{s - 1}.", f"backbone.block{s}.{{i}}."
        to = f"{stage}blocks.{{i}}."
        rules += [
            f"backbone.patch_embed{s}.{{n=proj|norm}}.{{p*}} -> {stage}patch_embeddings.{{n=proj|layer_norm}}.{{p*}}",
            f"{block}norm{{n=1|2}}.{{p*}} -> {to}{{n=layernorm_before|layernorm_after}}.{{p*}}",
            f"{block}attn.q.{{p*}} -> {to}attention.q_proj.{{p*}}",
            f"{block}attn.kv.{{p*}} -> {to}attention.{{x=k|v}}_proj.{{p*}} | (x o) ... -> o ...",
            f"{block}attn.proj.{{p*}} -> {to}attention.o_proj.{{p*}}",
            f"{block}mlp.{{k**}} -> {to}mlp.{{k**}}",
            f"backbone.norm{s}.{{p*}} -> {stage}layer_norm.{{p*}}",
        ]
        if s < 4:
            rules.append(f"{block}attn.{{n=sr|norm}}.{{p*}} -> "
                         f"{to}attention.sequence_reduction.{{n=sequence_reduction|layer_norm}}.{{p*}}")  # fmt: skip
    rules += [
        "decode_head.linear_c{i+1}.proj.{p*} -> decode_head.linear_projections.{i}.proj.{p*}",
        "decode_head.linear_fuse.conv.weight -> decode_head.linear_fuse.weight",
        "decode_head.linear_fuse.bn.{p*} -> decode_head.batch_norm.{p*}",
        "decode_head.linear_pred.{p*} -> decode_head.classifier.{p*}",
    ]
    words = """backbone decode_head patch_embed1 block1 norm1 patch_embed2 block2 norm2 patch_embed3 block3 norm3
        patch_embed4 block4 norm4 attn q kv proj sr norm mlp fc1 dwconv fc2 linear_c4 linear_c3 linear_c2 linear_c1
        linear_fuse conv bn linear_pred"""
    return Two(rewound(rules, model.state_dict(), words), model, rules, proof="transformers' script")


@pair("timm's PVT v2 to Hugging Face", "timm", "transformers")
def pvt(small: bool) -> Two:
    import timm

    package = transformers()
    config = package.PvtV2Config(num_labels=1000, layer_norm_eps=1e-6)
    to = "pvt_v2.encoder.layers.{s}.blocks.{b}."
    block = "stages.{s}.blocks.{b}."
    rules = [
        "patch_embed.{n=proj|norm}.{p*} -> pvt_v2.encoder.layers.0.patch_embedding.{n=proj|layer_norm}.{p*}",
        "stages.{s}.downsample.{n=proj|norm}.{p*} -> "
        "pvt_v2.encoder.layers.{s}.patch_embedding.{n=proj|layer_norm}.{p*}",
        f"{block}norm{{n=1|2}}.{{p*}} -> {to}layer_norm_{{n}}.{{p*}}",
        f"{block}attn.q.{{p*}} -> {to}attention.query.{{p*}}",
        f"{block}attn.kv.{{p*}} -> {to}attention.{{x=key|value}}.{{p*}} | (x o) ... -> o ...",
        f"{block}attn.{{n=proj|sr|norm}}.{{p*}} -> {to}attention.{{n=proj|spatial_reduction|layer_norm}}.{{p*}}",
        f"{block}mlp.{{n=fc1|dwconv|fc2}}.{{p*}} -> {to}mlp.{{n=dense1|dwconv.dwconv|dense2}}.{{p*}}",
        "stages.{s}.norm.{p*} -> pvt_v2.encoder.layers.{s}.layer_norm.{p*}",
        "head.{p*} -> classifier.{p*}",
    ]
    return Two(
        timm.create_model("pvt_v2_b0"), package.PvtV2ForImageClassification(config), rules, ask=lambda m: m(image(64)),
        ask_target=lambda m: m(image(64)).logits, rel=1e-4,
    )  # fmt: skip


@pair("DETR in its authors' names to Hugging Face", "transformers")
def detr(small: bool) -> Two:
    package = transformers()
    backbone = package.ResNetConfig(out_features=["stage4"])
    config = package.DetrConfig(use_timm_backbone=False, use_pretrained_backbone=False, backbone_config=backbone,
                                num_labels=91)  # fmt: skip
    model = package.DetrForObjectDetection(config)
    body = "model.backbone.model."
    rules = [
        f"backbone.0.body.{{n=conv1|bn1}}.{{p*}} -> {body}embedder.embedder.{{n=convolution|normalization}}.{{p*}}"
    ]
    for s in range(1, 5):
        stage = f"{body}encoder.stages.{s - 1}.layers.{{b}}."
        block = f"backbone.0.body.layer{s}.{{b}}."
        rules += [
            f"{block}conv{{n=1|2|3}}.{{p*}} -> {stage}layer.{{n=0|1|2}}.convolution.{{p*}}",
            f"{block}bn{{n=1|2|3}}.{{p*}} -> {stage}layer.{{n=0|1|2}}.normalization.{{p*}}",
            f"{block}downsample.{{n=0|1}}.{{p*}} -> {stage}shortcut.{{n=convolution|normalization}}.{{p*}}",
        ]
    tower, there = "transformer.{t=encoder|decoder}.layers.{i}.", "model.{t}.layers.{i}."
    norms = "{n=self_attn_layer_norm|encoder_attn_layer_norm|final_layer_norm}"
    rules += [
        f"{tower}self_attn.in_proj_{{p*}} -> {there}self_attn.{{x=q|k|v}}_proj.{{p*}} | (x o) ... -> o ...",
        f"{tower}self_attn.out_proj.{{p*}} -> {there}self_attn.o_proj.{{p*}}",
        "transformer.decoder.layers.{i}.multihead_attn.in_proj_{p*} -> "
        "model.decoder.layers.{i}.encoder_attn.{x=q|k|v}_proj.{p*} | (x o) ... -> o ...",
        "transformer.decoder.layers.{i}.multihead_attn.out_proj.{p*} -> "
        "model.decoder.layers.{i}.encoder_attn.o_proj.{p*}",
        f"{tower}linear{{n=1|2}}.{{p*}} -> {there}mlp.fc{{n}}.{{p*}}",
        "transformer.encoder.layers.{i}.norm{n=1|2}.{p*} -> "
        "model.encoder.layers.{i}.{n=self_attn_layer_norm|final_layer_norm}.{p*}",
        f"transformer.decoder.layers.{{i}}.norm{{n=1|2|3}}.{{p*}} -> model.decoder.layers.{{i}}.{norms}.{{p*}}",
        "transformer.decoder.norm.{p*} -> model.decoder.layernorm.{p*}",
        "input_proj.{p*} -> model.input_projection.{p*}",
        "query_embed.weight -> model.query_position_embeddings.weight",
        "class_embed.{p*} -> class_labels_classifier.{p*}",
        "bbox_embed.{k**} -> bbox_predictor.{k**}",
    ]
    words = """transformer encoder decoder class_embed bbox_embed query_embed input_proj backbone body layers self_attn
        multihead_attn in_proj_weight in_proj_bias out_proj linear norm conv1 bn1 layer conv2 bn2 conv3 bn3
        downsample"""
    there = {key: tensor for key, tensor in model.state_dict().items() if "num_batches" not in key}
    return Two(
        rewound(rules, there, words), model, rules, missing=["num_batches_tracked"], proof="transformers' script"
    )


@pair("Meta's SAM to Hugging Face: numbers of MLPs shift", "transformers")
def sam(small: bool) -> Two:
    """layers.1 of each hypernetwork is layers.0 here; the first is proj_in, the last proj_out."""
    package = transformers()
    model = package.SamModel(package.SamConfig())
    mlps = ["mask_decoder.iou_prediction_head.", "mask_decoder.output_hypernetworks_mlps.{h}."]
    rules = [
        "image_encoder.patch_embed.proj.{p*} -> vision_encoder.patch_embed.projection.{p*}",
        "image_encoder.pos_embed -> vision_encoder.pos_embed",
        "image_encoder.blocks.{i}.norm{n=1|2}.{p*} -> vision_encoder.layers.{i}.layer_norm{n}.{p*}",
        "image_encoder.blocks.{i}.{k**} -> vision_encoder.layers.{i}.{k**}",
        "image_encoder.neck.{n=0|1|2|3}.{p*} -> vision_encoder.neck.{n=conv1|layer_norm1|conv2|layer_norm2}.{p*}",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix -> "
        "prompt_encoder.shared_embedding.positional_embedding, shared_image_embedding.positional_embedding",
        "prompt_encoder.point_embeddings.{i}.weight -> prompt_encoder.point_embed.{i}.weight",
        "prompt_encoder.mask_downscaling.{n=0|1|3|4|6}.{p*} -> "
        "prompt_encoder.mask_embed.{n=conv1|layer_norm1|conv2|layer_norm2|conv3}.{p*}",
        "mask_decoder.output_upscaling.{n=0|1|3}.{p*} -> "
        "mask_decoder.{n=upscale_conv1|upscale_layer_norm|upscale_conv2}.{p*}",
        *(f"{mlp}layers.{{n=0|2}}.{{p*}} -> {mlp}{{n=proj_in|proj_out}}.{{p*}}" for mlp in mlps),
        *(f"{mlp}layers.1.{{p*}} -> {mlp}layers.0.{{p*}}" for mlp in mlps),
        "mask_decoder.transformer.layers.{i}.norm{n}.{p*} -> mask_decoder.transformer.layers.{i}.layer_norm{n}.{p*}",
        "mask_decoder.transformer.norm_final_attn.{p*} -> mask_decoder.transformer.layer_norm_final_attn.{p*}",
    ]
    plain = [rule.partition(", shared_image")[0] for rule in rules]
    there = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith("shared_image")}
    words = """image_encoder prompt_encoder mask_decoder pos_embed patch_embed blocks neck pe_layer point_embeddings
        not_a_point_embed mask_downscaling no_mask_embed transformer iou_token mask_tokens output_upscaling
        output_hypernetworks_mlps iou_prediction_head positional_encoding_gaussian_matrix layers self_attn norm1 attn
        cross_attn_token_to_image norm2 mlp norm3 norm4 cross_attn_image_to_token final_attn_token_to_image
        norm_final_attn rel_pos_h rel_pos_w qkv proj q_proj k_proj v_proj out_proj lin"""
    return Two(
        rewound(plain, there, words), model, rules, undecided=["*.positional_embedding"], proof="transformers' script"
    )


def yolo() -> State:
    """yolov5s: three convolutions of 1 x 1 around a list of bottlenecks, numbered through."""
    import torch

    file: dict[str, Any] = {}

    def conv(name: str, a: int, b: int, kernel: int) -> None:
        file[f"{name}.conv.weight"] = torch.empty(b, a, kernel, kernel)
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            file[f"{name}.bn.{leaf}"] = torch.empty(b)
        file[f"{name}.bn.num_batches_tracked"] = torch.empty((), dtype=torch.int64)

    def c3(at: int, a: int, b: int, number: int) -> None:
        half = b // 2
        for name, sizes in (("cv1", (a, half)), ("cv2", (a, half)), ("cv3", (b, b))):
            conv(f"model.{at}.{name}", *sizes, 1)
        for m in range(number):
            conv(f"model.{at}.m.{m}.cv1", half, half, 1)
            conv(f"model.{at}.m.{m}.cv2", half, half, 3)

    conv("model.0", 3, 32, 6)
    for at, a, b, number in ((1, 32, 64, 1), (3, 64, 128, 2), (5, 128, 256, 3), (7, 256, 512, 1)):
        conv(f"model.{at}", a, b, 3)
        c3(at + 1, b, b, number)
    conv("model.9.cv1", 512, 256, 1)
    conv("model.9.cv2", 1024, 512, 1)
    conv("model.10", 512, 256, 1)
    c3(13, 512, 256, 1)
    conv("model.14", 256, 128, 1)
    c3(17, 256, 128, 1)
    conv("model.18", 128, 128, 3)
    c3(20, 256, 256, 1)
    conv("model.21", 256, 256, 3)
    c3(23, 512, 512, 1)
    for i, width in enumerate((128, 256, 512)):
        file[f"model.24.m.{i}.weight"], file[f"model.24.m.{i}.bias"] = torch.empty(255, width, 1, 1), torch.empty(255)
    return file


@pair("YOLOv5 to mmyolo: numbers became stages")
def yolo_mm(small: bool) -> Two:
    """cv1 and cv2 of a C3 are alike, and only the order says which is main_conv: those are no miss."""
    places = {2: "backbone.stage1.1", 4: "backbone.stage2.1", 6: "backbone.stage3.1", 8: "backbone.stage4.1",
              13: "neck.top_down_layers.0.0", 17: "neck.top_down_layers.1", 20: "neck.bottom_up_layers.0",
              23: "neck.bottom_up_layers.1"}  # fmt: skip
    single = {0: "backbone.stem", 1: "backbone.stage1.0", 3: "backbone.stage2.0", 5: "backbone.stage3.0",
              7: "backbone.stage4.0", 10: "neck.reduce_layers.2", 14: "neck.top_down_layers.0.1",
              18: "neck.downsample_layers.0", 21: "neck.downsample_layers.1"}  # fmt: skip
    rules = [f"model.{at}.{{n=cv1|cv2|cv3}}.{{k**}} -> {name}.{{n=main_conv|short_conv|final_conv}}.{{k**}}"
             for at, name in places.items()]  # fmt: skip
    rules += [f"model.{at}.m.{{b}}.cv{{n=1|2}}.{{k**}} -> {name}.blocks.{{b}}.conv{{n}}.{{k**}}"
              for at, name in places.items()]  # fmt: skip
    rules += [f"model.{at}.{{m=conv|bn}}.{{p*}} -> {name}.{{m}}.{{p*}}" for at, name in single.items()]
    rules += ["model.9.cv{n=1|2}.{k**} -> backbone.stage4.2.conv{n}.{k**}",
              "model.24.m.{i}.{p*} -> bbox_head.head_module.convs_pred.{i}.{p*}"]  # fmt: skip
    from tests.bench.match.pairs import renamed

    words = """backbone neck bbox_head stem stage reduce_layers top_down_layers downsample_layers bottom_up_layers
        main_conv short_conv final_conv blocks conv conv1 conv2 bn head_module convs_pred"""
    return Two(
        yolo(), listed(renamed(rules)(yolo()), words), rules, undecided=["*.main_conv.*", "*.short_conv.*"],
        proof="mmyolo's yolov5_to_mmyolo.py",
    )  # fmt: skip


variant("DETR in its authors' names, both sorted", "DETR in its authors' names to Hugging Face", both_sorted)
variant("timm's PVT v2 to Hugging Face, sorted", "timm's PVT v2 to Hugging Face", sorted_keys)
variant("OpenAI's CLIP into timm's ViT, headers only",
        "OpenAI's CLIP into timm's ViT: one tower of two", headers_only)  # fmt: skip
