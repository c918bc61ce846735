"""Fresh pairs: one model in two libraries."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.match.fresh import Keys, Two, back, forth, fresh, pair, rules_of, state
from tests.bench.match.fresh_listings import listing
from tests.bench.match.pairs_fresh_sound import moved
from tests.bench.match.pairs_fresh_text import hf
from tests.bench.match.pairs_fresh_vision import bottlenecks


@pair("fresh: torchvision's densenet121 to pytorchcv: a transition belongs to the stage behind", "torchvision")
def densenet(small: bool) -> Two:
    """transition1 is stage2.trans2; layers count from 1 in both."""
    import torchvision

    source = torchvision.models.densenet121()
    table: list[Any] = [
        (r"^classifier", "output"),
        (r"^features\.conv0", "features.init_block.conv"),
        (r"^features\.norm0", "features.init_block.bn"),
        (r"^features\.norm5", "features.post_activ.bn"),
        (r"^features\.denseblock(\d)\.denselayer(\d+)\.", r"features.stage\1.unit\2."),
        (r"^features\.transition(\d)\.norm", lambda m: f"features.stage{int(m[1]) + 1}.trans{int(m[1]) + 1}.conv.bn"),
        (r"^features\.transition(\d)\.conv", lambda m: f"features.stage{int(m[1]) + 1}.trans{int(m[1]) + 1}.conv.conv"),
        (r"(unit\d+)\.norm(\d)", r"\1.conv\2.bn"),
        (r"(unit\d+)\.conv(\d)\.weight", r"\1.conv\2.conv.weight"),
    ]
    return forth(source, listing("pytorchcv-densenet121"), table)


@pair("fresh: torchvision's shufflenet_v2 to pytorchcv: branches by number", "torchvision")
def shufflenet(small: bool) -> Two:
    """branch2 comes first there: compress, depthwise, expand; the way down is dw_conv4 and expand_conv5."""
    import torchvision

    source = torchvision.models.shufflenet_v2_x1_0()
    parts = {
        "1.0": "dw_conv4",
        "1.1": "dw_bn4",
        "1.2": "expand_conv5",
        "1.3": "expand_bn5",
        "2.0": "compress_conv1",
        "2.1": "compress_bn1",
        "2.3": "dw_conv2",
        "2.4": "dw_bn2",
        "2.5": "expand_conv3",
        "2.6": "expand_bn3",
    }
    table: list[Any] = [
        (r"^fc", "output"),
        (r"^conv1\.0", "features.init_block.conv.conv"),
        (r"^conv1\.1", "features.init_block.conv.bn"),
        (r"^conv5\.0", "features.final_block.conv"),
        (r"^conv5\.1", "features.final_block.bn"),
        (r"^stage(\d)\.(\d)\.", lambda m: f"features.stage{int(m[1]) - 1}.unit{int(m[2]) + 1}."),
        (r"branch(\d\.\d)", lambda m: parts[m[1]]),
    ]
    return forth(source, listing("pytorchcv-shufflenetv2"), table)


@pair("fresh: timm's SE-ResNeXt to pytorchcv", "timm")
def seresnext(small: bool) -> Two:
    """bn1 is body.conv1.bn, the downsample identity_conv; excitation behind the body."""
    import timm

    source = timm.create_model("seresnext50_32x4d")
    table: list[Any] = [
        (r"^fc", "output"),
        (r"^conv1\.", "features.init_block.conv.conv."),
        (r"^bn1\.", "features.init_block.conv.bn."),
        (r"^layer(\d)\.(\d)\.", lambda m: f"features.stage{m[1]}.unit{int(m[2]) + 1}."),
        (r"(unit\d)\.conv(\d)", r"\1.body.conv\2.conv"),
        (r"(unit\d)\.bn(\d)", r"\1.body.conv\2.bn"),
        (r"\.se\.fc(\d)", r".se.conv\1"),
        (r"\.downsample\.0", ".identity_conv.conv"),
        (r"\.downsample\.1", ".identity_conv.bn"),
    ]
    return forth(source, listing("pytorchcv-seresnext50"), table)


@pair("fresh: OpenAI's CLIP RN50 into timm's ResNet: one tower of two", "timm")
def clip_resnet(small: bool) -> Two:
    """As timm's `_convert_openai_clip`: three stems, conv1_1x1, shortcut.conv."""
    import timm

    target = timm.create_model("resnet50_clip", num_classes=0)
    source = Keys()
    source.put("positional_embedding", 77, 512)
    source.put("text_projection", 512, 1024)
    source.put("logit_scale")
    source.put("visual.attnpool.positional_embedding", 50, 2048)
    tower, into = Keys(), 3
    for at, out in enumerate((32, 32, 64), 1):
        tower.conv(f"visual.conv{at}", out, into, 3, bias=False)
        tower.bn(f"visual.bn{at}", out)
        into = out
    bottlenecks(tower, "visual.")
    for x, out in (("k", 2048), ("q", 2048), ("v", 2048), ("c", 1024)):
        tower.lin(f"visual.attnpool.{x}_proj", out, 2048)
    source.update(tower)
    for at in range(12):
        name = f"transformer.resblocks.{at}"
        source.put(f"{name}.attn.in_proj_weight", 1536, 512)
        source.put(f"{name}.attn.in_proj_bias", 1536)
        source.lin(f"{name}.attn.out_proj", 512, 512)
        source.norm(f"{name}.ln_1", 512)
        source.lin(f"{name}.mlp.c_fc", 2048, 512)
        source.lin(f"{name}.mlp.c_proj", 512, 2048)
        source.norm(f"{name}.ln_2", 512)
    source.put("token_embedding.weight", 49408, 512)
    source.norm("ln_final", 512)
    parts = {"conv1_1x1": 1, "conv2_kxk": 2, "conv3_1x1": 3}
    table: list[Any] = [
        (r"^head\.pos_embed", "visual.attnpool.positional_embedding"),
        (r"^head\.proj", "visual.attnpool.c_proj"),
        (r"^head\.([qkv])\.", r"visual.attnpool.\1_proj."),
        (r"^stem\.conv(\d)\.conv", r"visual.conv\1"),
        (r"^stem\.conv(\d)\.bn", r"visual.bn\1"),
        (r"^stages\.(\d)\.", lambda m: f"visual.layer{int(m[1]) + 1}."),
        (r"shortcut\.conv\.conv", "downsample.0"),
        (r"shortcut\.conv\.bn", "downsample.1"),
        (r"(conv\d_\dx\d|conv2_kxk)\.(conv|bn)", lambda m: f"{m[2]}{parts[m[1]]}"),
    ]
    return back(source, target, table)


@pair("fresh: timm's Hiera to Hugging Face: one list became stages", "timm", "transformers")
def hiera(small: bool) -> Two:
    """blocks.3 is stages.2.layers.0; the fused qkv stays."""
    import timm

    source = timm.create_model("hiera_tiny_224", num_classes=0)
    target = hf("HieraModel", "HieraConfig", depths=[1, 2, 7, 2])
    starts = (0, 1, 3, 10)

    def stage(m: re.Match[str]) -> str:
        at = int(m[1])
        number = max(n for n, start in enumerate(starts) if at >= start)
        return f"encoder.stages.{number}.layers.{at - starts[number]}."

    table: list[Any] = [
        (r"^pos_embed", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
        (r"^blocks\.(\d+)\.", stage),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"^head\.norm", "pooler.layernorm"),
    ]
    return forth(source, target, table)


@pair("fresh: PoolFormer in its authors' names to timm: a list of stages and ways down", "timm")
def poolformer(small: bool) -> Two:
    """network.1 is the way down in front of stage 1; layer_scale_1 is no module."""
    import timm

    target = timm.create_model("poolformer_s12")
    table: list[Any] = [
        (r"^stem\.conv", "patch_embed.proj"),
        (r"^stages\.(\d)\.downsample\.conv", lambda m: f"network.{2 * int(m[1]) - 1}.proj"),
        (r"^stages\.(\d)\.blocks\.(\d)\.", lambda m: f"network.{2 * int(m[1])}.{m[2]}."),
        (r"layer_scale(\d)\.scale", r"layer_scale_\1"),
        (r"^head\.norm", "norm"),
        (r"^head\.fc", "head"),
    ]
    made = moved(state(target), table)
    source = Keys()
    for block in dict.fromkeys(
        ".".join(key.split(".")[:3]) if re.match(r"network\.\d\.\d\.", key) else key for key in made
    ):
        chosen = [key for key in made if key == block or key.startswith(f"{block}.")]
        source.update({key: made[key] for key in sorted(chosen, key=lambda key: "layer_scale" not in key)})
    return back(source, target, table)


@pair("fresh: LLaVA's first names to Hugging Face: two transformers and a projector", "transformers")
def llava(small: bool) -> Two:
    """mm_projector.0 and 2 are linear_1 and linear_2; the tower's name stands twice."""
    import transformers

    vision = transformers.CLIPVisionConfig(
        hidden_size=256, intermediate_size=1024, num_hidden_layers=3, num_attention_heads=4
    )
    text = transformers.LlamaConfig(
        hidden_size=512,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=8,
        intermediate_size=1376,
        vocab_size=3200,
    )
    target = transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(vision_config=vision, text_config=text)
    )
    table = [
        (r"^model\.vision_tower\.", "model.vision_tower.vision_tower.vision_model."),
        (r"^model\.language_model\.", "model."),
        (r"^model\.multi_modal_projector\.linear_1", "model.mm_projector.0"),
        (r"^model\.multi_modal_projector\.linear_2", "model.mm_projector.2"),
    ]
    made = moved(state(target), table)
    source = Keys()
    for part in ("model.embed", "model.layers", "model.norm", "model.vision", "model.mm", "lm_head"):
        source.update({key: made[key] for key in made if key.startswith(part)})
    return back(source, target, table)


@pair("fresh: ViTPose by its authors to Hugging Face: qkv split, deconvolutions by name", "transformers")
def vitpose(small: bool) -> Two:
    """keypoint_head.deconv_layers.3 is head.deconv2."""
    import transformers

    inner = transformers.VitPoseBackboneConfig(num_hidden_layers=4)
    target = transformers.VitPoseForPoseEstimation(
        transformers.VitPoseConfig(backbone_config=inner, use_simple_decoder=False, num_labels=17)
    )
    table: list[Any] = [
        (r".*attention\.attention.*", ""),
        (r"^backbone\.embeddings\.position_embeddings", "backbone.pos_embed"),
        (r"^backbone\.embeddings\.patch_embeddings\.projection", "backbone.patch_embed.proj"),
        (r"^backbone\.encoder\.layer\.", "backbone.blocks."),
        (r"attention\.output\.dense", "attn.proj"),
        (r"layernorm_before", "norm1"),
        (r"layernorm_after", "norm2"),
        (r"^backbone\.layernorm", "backbone.last_norm"),
        (r"^head\.deconv(\d)", lambda m: f"keypoint_head.deconv_layers.{3 * int(m[1]) - 3}"),
        (r"^head\.batchnorm(\d)", lambda m: f"keypoint_head.deconv_layers.{3 * int(m[1]) - 2}"),
        (r"^head\.conv", "keypoint_head.final_layer"),
    ]
    made = moved(state(target), table)
    source = Keys()
    source.update({key: made[key] for key in made if key.startswith(("backbone.pos", "backbone.patch"))})
    for at in range(4):
        name = f"backbone.blocks.{at}"
        source.norm(f"{name}.norm1", 768)
        source.lin(f"{name}.attn.qkv", 2304, 768)
        source.lin(f"{name}.attn.proj", 768, 768)
        source.norm(f"{name}.norm2", 768)
        source.lin(f"{name}.mlp.fc1", 3072, 768)
        source.lin(f"{name}.mlp.fc2", 768, 3072)
    source.norm("backbone.last_norm", 768)
    source.update({key: made[key] for key in made if key.startswith("keypoint_head.")})
    rules = rules_of(state(target), table, backwards=True)
    for tail, axes in (("weight", " i"), ("bias", "")):
        parts = f"backbone.encoder.layer.{{n}}.attention.attention.{{x=query|key|value}}.{tail}"
        rules.append(f"backbone.blocks.{{n}}.attn.qkv.{tail} -> {parts} | (x o){axes} -> o{axes}")
    return fresh(source, target, rules)


@pair("fresh: TransUNet's hybrid encoder into timm's: q, k and v joined behind a ResNet", "timm")
def transunet(small: bool) -> Two:
    """hybrid_model.body.block1.unit1.gn1 is patch_embed.backbone.stages.0.blocks.0.norm1; the decoder stays behind."""
    import timm

    target = timm.create_model("vit_base_r50_s16_224", num_classes=0)
    table: list[Any] = [
        (r"^cls_token", ""),
        (r".*attn\.qkv.*", ""),
        (r"^norm\.", "transformer.encoder.encoder_norm."),
        (r"^pos_embed", ""),
        (r"^patch_embed\.proj", "transformer.embeddings.patch_embeddings"),
        (r"^patch_embed\.backbone\.stem\.conv", "transformer.embeddings.hybrid_model.root.conv"),
        (r"^patch_embed\.backbone\.stem\.norm", "transformer.embeddings.hybrid_model.root.gn"),
        (
            r"^patch_embed\.backbone\.stages\.(\d)\.blocks\.(\d)\.",
            lambda m: f"transformer.embeddings.hybrid_model.body.block{int(m[1]) + 1}.unit{int(m[2]) + 1}.",
        ),
        (r"downsample\.conv", "downsample"),
        (r"downsample\.norm", "gn_proj"),
        (r"(unit\d)\.norm(\d)", r"\1.gn\2"),
        (r"^blocks\.(\d+)\.norm1", r"transformer.encoder.layer.\1.attention_norm"),
        (r"^blocks\.(\d+)\.norm2", r"transformer.encoder.layer.\1.ffn_norm"),
        (r"^blocks\.(\d+)\.attn\.proj", r"transformer.encoder.layer.\1.attn.out"),
        (r"^blocks\.(\d+)\.mlp\.fc(\d)", r"transformer.encoder.layer.\1.ffn.fc\2"),
    ]
    made = moved(state(target), table)
    source = Keys()
    source.put("transformer.embeddings.position_embeddings", 1, 196, 768)
    for part in ("transformer.embeddings.hybrid", "transformer.embeddings.patch"):
        source.update({key: made[key] for key in made if key.startswith(part)})
    rules = rules_of(state(target), table, backwards=True)
    for at in range(12):
        name = f"transformer.encoder.layer.{at}"
        for part in ("attention_norm", "ffn_norm", "ffn"):
            source.update({key: made[key] for key in made if key.startswith(f"{name}.{part}.")})
        for part in ("query", "key", "value"):
            source.lin(f"{name}.attn.{part}", 768, 768)
        source.update({key: made[key] for key in made if key.startswith(f"{name}.attn.out")})
        for tail, axes in (("weight", " i"), ("bias", "")):
            rules.append(
                f"{name}.attn.{{x=query|key|value}}.{tail} -> blocks.{at}.attn.qkv.{tail} | o{axes} -> (x o){axes}"
            )
    source.update({key: made[key] for key in made if key.startswith("transformer.encoder.encoder_norm")})
    for at, (out, into) in enumerate(((256, 1024), (128, 512), (64, 192), (16, 64))):
        source.conv(f"decoder.blocks.{at}.conv1.0", out, into, 3, bias=False)
        source.bn(f"decoder.blocks.{at}.conv1.1", out)
        source.conv(f"decoder.blocks.{at}.conv2.0", out, out, 3, bias=False)
        source.bn(f"decoder.blocks.{at}.conv2.1", out)
    source.conv("segmentation_head.0", 9, 16, 3)
    return fresh(source, target, rules, missing=["cls_token", "pos_embed"])
