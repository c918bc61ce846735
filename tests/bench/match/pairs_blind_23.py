"""Blind pairs: conversions between libraries, and researchers' own models that begin from a public checkpoint."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.match.blind import Net, Two, join, pair, renamed, split, state, to
from tests.bench.match.pairs_blind_18 import spelled, without

CODE = "by the code of both sides: the same modules under other names"
TURNED = "i o -> o i"


# ------------------------------------------------------------------------------------------- between libraries


@pair("blind: FastViT-T8 in Apple's names to timm: rbr_conv, lkb_origin, one list of stages and ways down", "timm")
def fastvit(small: bool) -> Two:
    """A way down belongs to the stage behind it; scales are bare parameters."""
    import timm

    target = timm.create_model("fastvit_t8")
    table: list[Any] = [
        (r"^stages\.(\d)\.downsample\.proj", lambda m: f"network.{2 * int(m[1]) - 1}.proj"),
        (r"^stages\.(\d)\.blocks", lambda m: f"network.{2 * int(m[1])}"),
        (r"^stem", "patch_embed"),
        (r"^head\.fc", "head"),
        (r"^final_conv", "conv_exp"),
        (r"conv_kxk", "rbr_conv"),
        (r"conv_scale", "rbr_scale"),
        (r"\.identity\.", ".rbr_skip."),
        (r"large_conv", "lkb_origin"),
        (r"(^network\.\d\.\d)\.mlp", r"\1.convffn"),
        (r"\.se\.fc1", ".se.reduce"),
        (r"\.se\.fc2", ".se.expand"),
        (r"layer_scale\.gamma", "layer_scale"),
    ]
    return spelled(target, table, "timm's checkpoint_filter_fn of fastvit.py backwards")


@pair("blind: Next-ViT-S in ByteDance's names to timm: features are one list, perceptrons of conv1 and conv2", "timm")
def nextvit(small: bool) -> Two:
    """Thirty blocks count through all stages."""
    import timm

    target = timm.create_model("nextvit_small")
    blocks = list(dict.fromkeys(re.findall(r"stages\.\d\.blocks\.\d+(?=\.)", "\n".join(state(target)))))
    table: list[Any] = [
        (r"^stages\.\d\.blocks\.\d+(?=\.)", lambda m: f"features.{blocks.index(m[0])}"),
        (r"\.mlp\.fc(\d)", r".mlp.conv\1"),
        (r"^head\.fc", "proj_head.0"),
    ]
    return spelled(target, table, "timm's checkpoint_filter_fn of nextvit.py: the same order; nextvit.py of ByteDance")


@pair("blind: SuperGlue by magicleap to Hugging Face: 1D convolutions are Linears, heads are the fast axis of q, k, v",
      "transformers")  # fmt: skip
def superglue(small: bool) -> Two:
    """The file has the matcher alone, the points are another file's."""
    import transformers

    target = transformers.SuperGlueForKeypointMatching(transformers.SuperGlueConfig())
    layers = 18
    assert f"gnn.layers.{layers - 1}.mlp.1.bias" in state(target)
    source, rules = Net(), []

    def conv(old: str, new: str, out: int, into: int, weight: str = "o i 1 -> o i", bias: str = "") -> None:
        source.put(f"{old}.weight", out, into, 1)
        source.put(f"{old}.bias", out)
        rules.append(f"{old}.weight -> {new}.weight | {weight}")
        rules.append(f"{old}.bias -> {new}.bias" + (f" | {bias}" if bias else ""))

    def bn(old: str, new: str, size: int) -> None:
        source.bn(old, size)
        rules.extend(f"{old}.{x} -> {new}.{x}" for x in ("weight", "bias", "running_mean", "running_var",
                                                         "num_batches_tracked"))  # fmt: skip

    source.put("bin_score")
    rules.append("bin_score -> bin_score")
    widths = (3, 32, 64, 128, 256, 256)
    for i in range(5):
        new = f"keypoint_encoder.encoder.{i}"
        conv(f"kenc.encoder.{3 * i}", new + (".linear" if i < 4 else ""), widths[i + 1], widths[i])
        if i < 4:
            bn(f"kenc.encoder.{3 * i + 1}", f"{new}.batch_norm", widths[i + 1])
    for layer in range(layers):
        at = f"gnn.layers.{layer}"
        conv(f"{at}.attn.merge", f"{at}.attention.output.dense", 256, 256, "o (d h) 1 -> o (h d)")
        for i, name in enumerate(("query", "key", "value")):
            conv(f"{at}.attn.proj.{i}", f"{at}.attention.self.{name}", 256, 256, "(d h) i 1 -> (h d) i",
                 "(d h) -> (h d)")  # fmt: skip
        conv(f"{at}.mlp.0", f"{at}.mlp.0.linear", 512, 512)
        bn(f"{at}.mlp.1", f"{at}.mlp.0.batch_norm", 512)
        conv(f"{at}.mlp.3", f"{at}.mlp.1", 256, 512)
    conv("final_proj", "final_projection.final_proj", 256, 256)
    return Two(source, target, rules, vars={"h": 4, "d": 64}, missing=["keypoint_detector.*"],
               hidden=["*.attention.self.*", "*.attention.output.dense.weight"],
               proof="by the code of both sides: superglue.py views channels as (d, heads), "
                     "transformers as (heads, d)")  # fmt: skip


@pair("blind: SwiftFormer-XS by its authors to Hugging Face: dwconv, pwconv1, Proj; stages have blocks", "transformers")
def swiftformer(small: bool) -> Two:
    """Stages and ways down share one list on both sides."""
    import transformers

    target = transformers.SwiftFormerForImageClassification(transformers.SwiftFormerConfig(
        embed_dims=[48, 56, 112, 220], depths=[3, 3, 6, 4], num_labels=1000))  # fmt: skip
    table: list[Any] = [
        (r"^swiftformer\.patch_embed\.patch_embedding", "patch_embed"),
        (r"^swiftformer\.encoder\.", ""),
        (r"\.blocks\.", "."),
        (r"depth_wise_conv", "dwconv"),
        (r"point_wise_conv", "pwconv"),
        (r"\.attn\.proj\.", ".attn.Proj."),
    ]
    return spelled(target, table, "transformers' convert_swiftformer_original_to_hf.py backwards")


@pair("blind: Falcon-7B of Hugging Face to LitGPT: query_key_value is attn.qkv, the head comes first", "transformers")
def falcon_litgpt(small: bool) -> Two:
    """One key and one value for all heads, so the rows stay as they are; one norm in a block."""
    import transformers

    width, depth, target = 4544, 32, Net()
    source = transformers.FalconForCausalLM(transformers.FalconConfig(
        vocab_size=65024, hidden_size=width, num_hidden_layers=depth, num_attention_heads=71, alibi=False,
        new_decoder_architecture=False, multi_query=True, parallel_attn=True, bias=False))  # fmt: skip
    target.lin("lm_head", 65024, width, False)
    target.put("transformer.wte.weight", 65024, width)
    for layer in range(depth):
        at = f"transformer.h.{layer}"
        target.norm(f"{at}.norm_1", width)
        target.lin(f"{at}.attn.qkv", 4672, width, False)
        target.lin(f"{at}.attn.proj", width, width, False)
        target.lin(f"{at}.mlp.fc", 4 * width, width, False)
        target.lin(f"{at}.mlp.proj", width, 4 * width, False)
    target.norm("transformer.ln_f", width)
    table: list[Any] = [
        (r"word_embeddings", "wte"),
        (r"self_attention\.query_key_value", "attn.qkv"),
        (r"self_attention\.dense", "attn.proj"),
        (r"dense_h_to_4h", "fc"),
        (r"dense_4h_to_h", "proj"),
        (r"input_layernorm", "norm_1"),
    ]
    return to(source, target, table, truth="LitGPT's convert_hf_checkpoint.py: copy_weights_falcon")


@pair("blind: Minitron-4B in NeMo's names to Hugging Face's Nemotron: linear_qkv by groups, norms inside of Linears",
      "transformers")  # fmt: skip
def nemotron(small: bool) -> Two:
    """Squared ReLU, so no gate; the norms have biases and count from -1 on both sides."""
    import transformers

    width, inner, depth, head = 3072, 9216, 32, 128
    target = transformers.NemotronForCausalLM(transformers.NemotronConfig(
        vocab_size=256000, hidden_size=width, intermediate_size=inner, num_hidden_layers=depth,
        num_attention_heads=24, head_dim=head, num_key_value_heads=8))  # fmt: skip
    source, groups = Net(), []
    source.put("model.embedding.word_embeddings.weight", 256000, width)
    for layer in range(depth):
        at, there = f"model.decoder.layers.{layer}", f"model.layers.{layer}.self_attn"
        source.lin(f"{at}.self_attention.linear_proj", width, 24 * head, False)
        for name, rows in (("self_attention.linear_qkv", 40 * head), ("mlp.linear_fc1", inner)):
            source.put(f"{at}.{name}.layer_norm_weight", width)
            source.put(f"{at}.{name}.layer_norm_bias", width)
            source.lin(f"{at}.{name}", rows, width, False)
        source.lin(f"{at}.mlp.linear_fc2", width, inner, False)
        names = ", ".join(f"{there}.{x}_proj.weight" for x in "qkv")
        groups.append(f"{at}.self_attention.linear_qkv.weight -> {names}"
                      " | (g (q + k + v)) i -> (g q) i, (g k) i, (g v) i")  # fmt: skip
    source.norm("model.decoder.final_layernorm", width)
    source.put("model.output_layer.weight", 256000, width)
    table: list[Any] = [
        (r".*linear_qkv\.weight$", "@"),
        (r"^model\.embedding\.word_embeddings", "model.embed_tokens"),
        (r"^model\.output_layer", "lm_head"),
        (r"^model\.decoder\.final_layernorm", "model.norm"),
        (r"^model\.decoder\.layers", "model.layers"),
        (r"self_attention\.linear_proj", "self_attn.o_proj"),
        (r"self_attention\.linear_qkv\.layer_norm_", "input_layernorm."),
        (r"mlp\.linear_fc1\.layer_norm_", "post_attention_layernorm."),
        (r"linear_fc1", "up_proj"),
        (r"linear_fc2", "down_proj"),
    ]
    return to(source, target, table, groups=groups, vars={"g": 8, "q": 3 * head, "k": head, "v": head},
              hidden=[f"*.self_attn.{x}_proj.weight" for x in "qkv"],
              truth="transformers' convert_nemotron_nemo_to_hf.py")  # fmt: skip


@pair("blind: BERT-base in KerasHub's names to Hugging Face: heads are axes, norms before Linears in a layer",
      "transformers")  # fmt: skip
def bert_keras_hub(small: bool) -> Two:
    """Kernels of q, k, v are (width, heads, size), the output's is (heads, size, width)."""
    import transformers

    target = transformers.BertModel(transformers.BertConfig())
    table: list[Any] = [
        (r"^embeddings\.word_embeddings\.weight", "token_embedding/embeddings"),
        (r"^embeddings\.position_embeddings\.weight", "position_embedding/embeddings"),
        (r"^embeddings\.token_type_embeddings\.weight", "segment_embedding/embeddings"),
        (r"^embeddings\.LayerNorm", "embeddings_layer_norm"),
        (r"^pooler\.dense", "pooled_dense"),
        (r"^encoder\.layer\.(\d+)\.", r"transformer_layer_\1/"),
        (r"attention\.self\.(query|key|value)", r"self_attention_layer/\1"),
        (r"attention\.output\.dense", "self_attention_layer/attention_output"),
        (r"attention\.output\.LayerNorm", "self_attention_layer_norm"),
        (r"intermediate\.dense", "feedforward_intermediate_dense"),
        (r"output\.dense", "feedforward_output_dense"),
        (r"output\.LayerNorm", "feedforward_layer_norm"),
        (r"norm\.weight$", "norm/gamma"),
        (r"norm\.bias$", "norm/beta"),
        (r"\.weight$", "/kernel"),
        (r"\.bias$", "/bias"),
    ]
    parts = ("self_attention_layer/", "self_attention_layer_norm", "feedforward_layer_norm",
             "feedforward_intermediate", "feedforward_output")  # fmt: skip

    def order(key: str) -> tuple[int, int]:
        name = renamed(key, table)
        layer = re.match(r"transformer_layer_(\d+)/", name)
        if not layer:
            return (99 if "pooled" in name else -1), 0
        return int(layer[1]), next(i for i, part in enumerate(parts) if name[layer.end() :].startswith(part))

    layouts = [
        (r"self\.\w+\.weight", "i h d -> (h d) i"),
        (r"self\.\w+\.bias", "h d -> (h d)"),
        (r"attention\.output\.dense\.weight", "h d o -> o (h d)"),
        (r"dense\.weight", TURNED),
    ]
    return spelled(target, table, "keras_hub's convert_bert.py", layouts, order, {"h": 12, "d": 64})


@pair("blind: timm's EfficientNet-B0 to mmpretrain: seven stages became five lists, linear_conv, a ConvModule each",
      "timm")  # fmt: skip
def efficientnet_mmpretrain(small: bool) -> Two:
    """Two pairs of neighbouring stages are one list there, as only a stride begins a new one."""
    import timm

    source, target = timm.create_model("tf_efficientnet_b0"), Net()
    places = {0: (1, 0), 1: (2, 0), 2: (3, 0), 3: (4, 0), 4: (4, 3), 5: (5, 0), 6: (5, 4)}
    first = {"conv_dw": "depthwise_conv.conv", "bn1": "depthwise_conv.bn", "conv_pw": "linear_conv.conv",
             "bn2": "linear_conv.bn"}  # fmt: skip
    other = {"conv_pw": "expand_conv.conv", "bn1": "expand_conv.bn", "conv_dw": "depthwise_conv.conv",
             "bn2": "depthwise_conv.bn", "conv_pwl": "linear_conv.conv", "bn3": "linear_conv.bn"}  # fmt: skip
    gates = {"se.conv_reduce": "se.conv1.conv", "se.conv_expand": "se.conv2.conv"}

    def place(m: re.Match[str]) -> str:
        layer, at = places[int(m[1])]
        part = ((other if int(m[1]) else first) | gates)[m[3]]
        return f"backbone.layers.{layer}.{at + int(m[2])}.{part}."

    table: list[Any] = [
        (r"^conv_stem", "backbone.layers.0.conv"),
        (r"^bn1", "backbone.layers.0.bn"),
        (r"^conv_head", "backbone.layers.6.conv"),
        (r"^bn2", "backbone.layers.6.bn"),
        (r"^classifier", "head.fc"),
        (r"^blocks\.(\d)\.(\d)\.([\w.]+)\.(?=\w+$)", place),
    ]
    for key, tensor in state(source).items():
        target[renamed(key, table)] = tensor
    return to(source, target, table,
              truth="mmpretrain's efficientnet.py and efficientnet_to_mmpretrain.py")  # fmt: skip


@pair("blind: PaddleClas' Swin-T to torchvision: Linears are turned, merging is the stage's last, indices are square",
      "torchvision")  # fmt: skip
def swin_paddle(small: bool) -> Two:
    """The window's index is kept in both files."""
    from torchvision.models import swin_t

    target = swin_t(weights=None)
    table: list[Any] = [
        (r"^features\.0\.0", "patch_embed.proj"),
        (r"^features\.0\.2", "patch_embed.norm"),
        (r"^features\.([246])\.", lambda m: f"layers.{int(m[1]) // 2 - 1}.downsample."),
        (r"^features\.([1357])\.(\d)", lambda m: f"layers.{int(m[1]) // 2}.blocks.{m[2]}"),
        (r"\.mlp\.0", ".mlp.fc1"),
        (r"\.mlp\.3", ".mlp.fc2"),
    ]
    layouts = [
        (r"relative_position_index", "a b -> (a b)"),
        (r"(qkv|attn\.proj|mlp\.\d|reduction|head)\.weight", TURNED),
    ]
    return spelled(target, table, "swin_transformer.py of both: one order of merging; Paddle's Linear is (in, out)",
                   layouts, sizes={"a": 49, "b": 49})  # fmt: skip


@pair("blind: FNet-base in Google's Flax names to Hugging Face: feed_forward_3 beside encoder_3, kernels turned",
      "transformers")  # fmt: skip
def fnet(small: bool) -> Two:
    """Listed by letters; the head's matrix is the table of words and is not written."""
    import transformers

    model = transformers.FNetForPreTraining(transformers.FNetConfig())
    target = without(model, "cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
    table: list[Any] = [
        (r"^cls\.predictions\.bias", "predictions_output/output_bias"),
        (r"^cls\.seq_relationship\.weight", "classification/output_kernel"),
        (r"^cls\.seq_relationship\.bias", "classification/output_bias"),
        (r"^cls\.predictions\.transform\.dense", "predictions_dense"),
        (r"^cls\.predictions\.transform\.LayerNorm", "predictions_layer_norm"),
        (r"^fnet\.pooler\.dense", "encoder/pooler"),
        (r"^fnet\.embeddings\.word_embeddings\.weight", "encoder/embedder/word/embedding"),
        (r"^fnet\.embeddings\.position_embeddings\.weight", "encoder/embedder/position/embedding"),
        (r"^fnet\.embeddings\.token_type_embeddings\.weight", "encoder/embedder/type/embedding"),
        (r"^fnet\.embeddings\.projection", "encoder/embedder/hidden_mapping_in"),
        (r"^fnet\.embeddings\.LayerNorm", "encoder/embedder/layer_norm"),
        (r"^fnet\.encoder\.layer\.(\d+)\.fourier\.output\.LayerNorm", r"encoder/encoder_\1/mixing_layer_norm"),
        (r"^fnet\.encoder\.layer\.(\d+)\.output\.LayerNorm", r"encoder/encoder_\1/output_layer_norm"),
        (r"^fnet\.encoder\.layer\.(\d+)\.(intermediate|output)\.dense", r"encoder/feed_forward_\1/\2"),
        (r"norm\.weight$", "norm/scale"),
        (r"\.weight$", "/kernel"),
        (r"\.bias$", "/bias"),
    ]
    layouts = [
        (r"position_embeddings", "1 p i -> p i"),
        (r"(dense|projection)\.weight", TURNED),
    ]
    return spelled(target, table, "transformers' convert_fnet_original_flax_checkpoint_to_pytorch.py", layouts,
                   lambda key: renamed(key, table))  # fmt: skip


# ------------------------------------------------------------------------------------------------ one's own


def conv_bn(into: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> Any:
    """A convolution and its norm as a Sequential."""
    from torch import nn

    conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out))


@pair("blind, own: timm's Res2Net-50 finds polyps: scales are pairs, fields of view, reversed attention, no head",
      "timm")  # fmt: skip
def polyps(small: bool) -> Two:
    """Convolutions and norms of the inner scales stand together; three side outputs."""
    import timm
    from torch import nn

    class Scales(nn.Module):
        def __init__(self, into: int, width: int, out: int, step: int, has_side: bool) -> None:
            super().__init__()
            self.squeeze = conv_bn(into, 4 * width)
            self.scales = nn.ModuleList([conv_bn(width, width, 3, step) for _ in range(3)])
            self.merge = conv_bn(4 * width, out)
            if has_side:
                self.side = conv_bn(into, out, 1, step)

    class Level(nn.Module):
        def __init__(self, into: int, width: int, out: int, depth: int) -> None:
            super().__init__()
            self.units = nn.Sequential(*(Scales(out if at else into, width, out, 1 if at or width == 26 else 2, not at)
                                         for at in range(depth)))  # fmt: skip

    class Field(nn.Module):
        def __init__(self, into: int) -> None:
            super().__init__()
            self.rates = nn.ModuleDict({f"r{rate}": conv_bn(into, 32, 3) for rate in (1, 3, 5, 7)})
            self.fuse = conv_bn(128, 32, 3)

    class Reverse(nn.Module):
        def __init__(self, into: int) -> None:
            super().__init__()
            self.thin, self.refine, self.out = conv_bn(into, 64), conv_bn(64, 64, 3), nn.Conv2d(64, 1, 3, padding=1)

    class PolypNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.entry, self.entry_bn = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
            self.level1, self.level2 = Level(64, 26, 256, 3), Level(256, 52, 512, 4)
            self.level3, self.level4 = Level(512, 104, 1024, 6), Level(1024, 208, 2048, 3)
            self.fields = nn.ModuleList([Field(size) for size in (512, 1024, 2048)])
            self.coarse = nn.Conv2d(96, 1, 1)
            self.reverse = nn.ModuleList([Reverse(size) for size in (2048, 1024, 512)])

    names = {"conv1": "squeeze.0", "bn1": "squeeze.1", "conv3": "merge.0", "bn3": "merge.1"}
    table: list[Any] = [
        (r"^fc\..*", ""),
        (r"^conv1", "entry"),
        (r"^bn1", "entry_bn"),
        (r"^layer(\d)\.(\d)\.", r"level\1.units.\2."),
        (r"\.((?:conv|bn)[13])\.", lambda m: f".{names[m[1]]}."),
        (r"\.convs\.(\d)", r".scales.\1.0"),
        (r"\.bns\.(\d)", r".scales.\1.1"),
        (r"\.downsample", ".side"),
    ]
    return to(timm.create_model("res2net50_26w_4s"), PolypNet(), table, truth=CODE,
              missing=["fields.*", "coarse.*", "reverse.*"])  # fmt: skip


@pair("blind, own: timm's Twins-SVT-S counts people: q, k, v apart, near and far, a pyramid, maps of density", "timm")
def crowd(small: bool) -> Two:
    """Blocks of windows and of the whole take turns as near and far; each stage has its patches and its places."""
    import timm
    from torch import nn

    widths, depths = (64, 128, 256, 512), (2, 2, 10, 4)
    source = timm.create_model("twins_svt_small")

    class Attend(nn.Module):
        def __init__(self, width: int, ratio: int) -> None:
            super().__init__()
            self.wq, self.wk, self.wv, self.wo = (nn.Linear(width, width) for _ in range(4))
            if ratio > 1:
                self.shrink, self.shrink_ln = nn.Conv2d(width, width, ratio, ratio), nn.LayerNorm(width)

    class Half(nn.Module):
        def __init__(self, width: int, ratio: int) -> None:
            super().__init__()
            self.ln_a, self.attend, self.ln_b = nn.LayerNorm(width), Attend(width, ratio), nn.LayerNorm(width)
            self.grow, self.back = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    class Duo(nn.Module):
        def __init__(self, width: int, ratio: int) -> None:
            super().__init__()
            self.near, self.far = Half(width, 1), Half(width, ratio)

    class Stage(nn.Module):
        def __init__(self, into: int, width: int, depth: int, at: int) -> None:
            super().__init__()
            kernel = 2 if at else 4
            self.patch, self.patch_ln = nn.Conv2d(into, width, kernel, kernel), nn.LayerNorm(width)
            self.place = nn.Conv2d(width, width, 3, padding=1, groups=width)
            self.duos = nn.ModuleList([Duo(width, 8 >> at) for _ in range(depth // 2)])

    class CrowdNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList([Stage(widths[at - 1] if at else 3, widths[at], depths[at], at)
                                         for at in range(4)])  # fmt: skip
            self.ups = nn.ModuleList([nn.Conv2d(width, 128, 1) for width in widths[1:]])
            self.dilated = nn.ModuleList([conv_bn(384, 128, 3) for _ in range(3)])
            self.density = nn.Sequential(nn.Conv2d(128, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 1, 1))

    blocks = r"^blocks\.(\d)\.(\d+)"

    def place(m: re.Match[str]) -> str:
        return f"stages.{m[1]}.duos.{int(m[2]) // 2}.{('near', 'far')[int(m[2]) % 2]}"

    table: list[Any] = [
        (r"^(head|norm)\..*", ""),
        (r".*\.attn\.(qkv|kv)\..*", "@"),
        (r"^patch_embeds\.(\d)\.proj", r"stages.\1.patch"),
        (r"^patch_embeds\.(\d)\.norm", r"stages.\1.patch_ln"),
        (r"^pos_block\.(\d)\.proj\.0", r"stages.\1.place"),
        (blocks, place),
        (r"\.norm1", ".ln_a"),
        (r"\.norm2", ".ln_b"),
        (r"\.attn\.q\.", ".attend.wq."),
        (r"\.attn\.proj", ".attend.wo"),
        (r"\.attn\.sr", ".attend.shrink"),
        (r"\.attn\.norm", ".attend.shrink_ln"),
        (r"\.mlp\.fc1", ".grow"),
        (r"\.mlp\.fc2", ".back"),
    ]
    groups = []
    for key in state(source):
        if found := re.match(r"(blocks\.\d\.\d+\.attn)\.(qkv|kv)\.weight", key):
            at = re.sub(blocks, place, found[1].removesuffix(".attn"))
            groups += split(f"{found[1]}.{found[2]}", [f"{at}.attend.w{x}" for x in found[2]])
    return to(source, CrowdNet(), table, groups=groups, missing=["ups.*", "dilated.*", "density.*"],
              truth=CODE + "; the last stage has no reduction, ratio 1")  # fmt: skip


@pair("blind, own: SqueezeNet 1.1 in a greenhouse: eight fires by number, near infrared, gates, two heads",
      "torchvision")  # fmt: skip
def greenhouse(small: bool) -> Two:
    """Numbers of a list with pools became fire1 to fire8; a fourth channel in front."""
    from torch import nn
    from torchvision.models import squeezenet1_1

    class Fire(nn.Module):
        def __init__(self, into: int, less: int, out: int) -> None:
            super().__init__()
            self.s1 = nn.Conv2d(into, less, 1)
            self.e1, self.e3 = nn.Conv2d(less, out, 1), nn.Conv2d(less, out, 3, padding=1)
            self.gate = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    rows = [(64, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128),
            (256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)]  # fmt: skip

    class LeafNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv_in = nn.Conv2d(4, 64, 3, 2)
            for at, row in enumerate(rows, 1):
                setattr(self, f"fire{at}", Fire(*row))
            self.disease = nn.Linear(512, 14)
            self.severity = nn.Linear(512, 1)

    fires = {3: 1, 4: 2, 6: 3, 7: 4, 9: 5, 10: 6, 11: 7, 12: 8}
    table: list[Any] = [
        (r"^classifier.*|^features\.0\.weight", ""),
        (r"^features\.0\.", "conv_in."),
        (r"^features\.(\d+)", lambda m: f"fire{fires[int(m[1])]}"),
        (r"squeeze", "s1"),
        (r"expand(\d)x\d", r"e\1"),
    ]
    return to(squeezenet1_1(weights=None), LeafNet(), table, truth=CODE,
              missing=["conv_in.weight", "*.gate.*", "disease.*", "severity.*"])  # fmt: skip


@pair("blind, own: ShuffleNet v2 on a hearing aid: three stages in one list, left and right, one channel, a GRU",
      "torchvision")  # fmt: skip
def hearing(small: bool) -> Two:
    """Sixteen units; the Sequentials' numbers became parts by name."""
    from torch import nn
    from torchvision.models import shufflenet_v2_x1_0

    class Left(nn.Module):
        def __init__(self, into: int, out: int) -> None:
            super().__init__()
            self.dw, self.dw_bn = nn.Conv2d(into, into, 3, 2, 1, groups=into, bias=False), nn.BatchNorm2d(into)
            self.pw, self.pw_bn = nn.Conv2d(into, out, 1, bias=False), nn.BatchNorm2d(out)

    class Right(nn.Module):
        def __init__(self, into: int, out: int, step: int) -> None:
            super().__init__()
            self.pw1, self.pw1_bn = nn.Conv2d(into, out, 1, bias=False), nn.BatchNorm2d(out)
            self.dw, self.dw_bn = nn.Conv2d(out, out, 3, step, 1, groups=out, bias=False), nn.BatchNorm2d(out)
            self.pw2, self.pw2_bn = nn.Conv2d(out, out, 1, bias=False), nn.BatchNorm2d(out)

    class Unit(nn.Module):
        def __init__(self, into: int, out: int, is_first: bool) -> None:
            super().__init__()
            if is_first:
                self.left = Left(into, out // 2)
            self.right = Right(into if is_first else out // 2, out // 2, 2 if is_first else 1)

    plan = [(24, 116, 4), (116, 232, 8), (232, 464, 4)]

    class SceneNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm_in = nn.BatchNorm1d(64)
            self.stem, self.stem_bn = nn.Conv2d(1, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24)
            self.units = nn.ModuleList([Unit(into, out, not at) for into, out, depth in plan for at in range(depth)])
            self.last, self.last_bn = nn.Conv2d(464, 1024, 1, bias=False), nn.BatchNorm2d(1024)
            self.gru = nn.GRU(1024, 128, batch_first=True)
            self.scene = nn.Linear(128, 11)

    left = {"0": "dw", "1": "dw_bn", "2": "pw", "3": "pw_bn"}
    right = {"0": "pw1", "1": "pw1_bn", "3": "dw", "4": "dw_bn", "5": "pw2", "6": "pw2_bn"}
    before = {"2": 0, "3": 4, "4": 12}
    table: list[Any] = [
        (r"^fc.*|^conv1\.0\.weight", ""),
        (r"^conv1\.1", "stem_bn"),
        (r"^conv5\.0", "last"),
        (r"^conv5\.1", "last_bn"),
        (r"^stage(\d)\.(\d)", lambda m: f"units.{before[m[1]] + int(m[2])}"),
        (r"\.branch1\.(\d)", lambda m: f".left.{left[m[1]]}"),
        (r"\.branch2\.(\d)", lambda m: f".right.{right[m[1]]}"),
    ]
    return to(shufflenet_v2_x1_0(weights=None), SceneNet(), table, truth=CODE,
              missing=["norm_in.*", "stem.weight", "gru.*", "scene.*"])  # fmt: skip


@pair("blind, own: ESM-2 8M looks for metal ions: qkv joined, distances of residues, a graph behind, no contacts",
      "transformers")  # fmt: skip
def ions(small: bool) -> Two:
    """Rotary frequencies are computed when needed; a bias of distances at every head is new."""
    import transformers
    from torch import nn

    width, depth = 320, 6
    source = transformers.EsmForMaskedLM(transformers.EsmConfig(
        vocab_size=33, hidden_size=width, num_hidden_layers=depth, num_attention_heads=20, intermediate_size=1280,
        position_embedding_type="rotary", pad_token_id=1, emb_layer_norm_before=False))  # fmt: skip

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.distance_bias = nn.Embedding(32, 20)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln1, self.attn = nn.LayerNorm(width, 1e-5), Attention()
            self.ln2 = nn.LayerNorm(width, 1e-5)
            self.ffn = nn.Sequential(nn.Linear(width, 1280), nn.GELU(), nn.Linear(1280, width))

    class Edge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.message, self.update = nn.Linear(2 * width + 16, width), nn.GRUCell(width, width)

    class IonFinder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.residue = nn.Embedding(33, width)
            self.encoder = nn.ModuleList([Layer() for _ in range(depth)])
            self.ln_out = nn.LayerNorm(width, 1e-5)
            self.graph = nn.ModuleList([Edge() for _ in range(3)])
            self.site = nn.Linear(width, 8)

    table: list[Any] = [
        (r"^(lm_head|esm\.contact_head|esm\.rotary|esm\.embeddings\.(position|LayerNorm)).*|.*rotary_emb.*|.*position_ids$",
         ""),
        (r".*\.attention\.self\..*", "@"),
        (r"^esm\.embeddings\.word_embeddings", "residue"),
        (r"^esm\.encoder\.emb_layer_norm_after", "ln_out"),
        (r"^esm\.encoder\.layer", "encoder"),
        (r"\.attention\.LayerNorm", ".ln1"),
        (r"\.attention\.output\.dense", ".attn.out"),
        (r"\.LayerNorm", ".ln2"),
        (r"\.intermediate\.dense", ".ffn.0"),
        (r"\.output\.dense", ".ffn.2"),
    ]  # fmt: skip
    groups = []
    for at in range(depth):
        groups += join([f"esm.encoder.layer.{at}.attention.self.{x}" for x in ("query", "key", "value")],
                       f"encoder.{at}.attn.qkv")  # fmt: skip
    return to(source, IonFinder(), table, groups=groups, truth=CODE,
              missing=["*.distance_bias.*", "graph.*", "site.*"])  # fmt: skip


@pair("blind, own: OPT-125M consoles: qkv joined, adapters, ten of twelve layers, feelings as a prefix, a LoRA'd head",
      "transformers")  # fmt: skip
def consoles(small: bool) -> Two:
    """The file lists k, v, q; places keep their offset of two."""
    import torch
    import transformers
    from torch import nn

    width, depth = 768, 10
    source = transformers.OPTModel(transformers.OPTConfig())

    class Adapter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.high = nn.Linear(width, 48), nn.Linear(48, width)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm_attn = nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.norm_ffn, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 3072), nn.Linear(3072, width)
            self.adapter = Adapter()

    class Consoler(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tok, self.pos = nn.Embedding(50272, width), nn.Embedding(2050, width)
            self.feeling = nn.Parameter(torch.zeros(7, 8, width))
            self.layers = nn.ModuleList([Layer() for _ in range(depth)])
            self.norm_out = nn.LayerNorm(width)
            self.lora_a, self.lora_b = nn.Linear(width, 16, bias=False), nn.Linear(16, 50272, bias=False)

    table: list[Any] = [
        (r"^decoder\.layers\.1[01]\..*", ""),
        (r".*\.self_attn\.[qkv]_proj\..*", "@"),
        (r"^decoder\.embed_tokens", "tok"),
        (r"^decoder\.embed_positions", "pos"),
        (r"^decoder\.final_layer_norm", "norm_out"),
        (r"^decoder\.", ""),
        (r"\.self_attn\.out_proj", ".out"),
        (r"\.self_attn_layer_norm", ".norm_attn"),
        (r"\.final_layer_norm", ".norm_ffn"),
        (r"\.fc1", ".up"),
        (r"\.fc2", ".down"),
    ]
    groups = []
    for at in range(depth):
        groups += join([f"decoder.layers.{at}.self_attn.{x}_proj" for x in "qkv"], f"layers.{at}.qkv")
    return to(source, Consoler(), table, groups=groups, truth=CODE,
              missing=["*.adapter.*", "feeling", "lora_?.*"])  # fmt: skip


@pair("blind, own: VideoMAE-S sees falls: ten of twelve blocks, qkv whose k has no bias, depth, bottlenecks",
      "transformers")  # fmt: skip
def falls(small: bool) -> Two:
    """Tubelets of four channels, so the first convolution is new; a pose in front of the head."""
    import torch
    import transformers
    from torch import nn

    width, depth = 384, 10
    source = transformers.VideoMAEForVideoClassification(transformers.VideoMAEConfig(
        hidden_size=width, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536,
        num_labels=400))  # fmt: skip

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
            self.to_qkv, self.to_out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    class Bottleneck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.squeeze, self.mix = nn.Linear(width, 96), nn.Conv3d(96, 96, 3, padding=1, groups=96)
            self.expand = nn.Linear(96, width)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pre_attn, self.attn = nn.LayerNorm(width), Attention()
            self.bottleneck = Bottleneck()
            self.pre_mlp = nn.LayerNorm(width)
            self.mlp_in, self.mlp_out = nn.Linear(width, 1536), nn.Linear(1536, width)

    class FallNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tubes = nn.Conv3d(4, width, (2, 16, 16), (2, 16, 16))
            self.trunk = nn.ModuleList([Block() for _ in range(depth)])
            self.pool_norm = nn.LayerNorm(width)
            self.pose = nn.Sequential(nn.Linear(51, 128), nn.GELU(), nn.Linear(128, width))
            self.alarm = nn.Linear(width, 3)

    layer = r"^videomae\.encoder\.layer\.(\d+)\."
    table: list[Any] = [
        (r"^classifier\..*|^videomae\.embeddings\.patch_embeddings\.projection\.weight|.*\.layer\.1[01]\..*", ""),
        (r".*\.(query|key|value)\.weight$", "@"),
        (r"^videomae\.embeddings\.patch_embeddings\.projection", "tubes"),
        (r"^fc_norm", "pool_norm"),
        (layer, r"trunk.\1."),
        (r"attention\.attention\.(?:query\.bias|q_bias)", "attn.q_bias"),
        (r"attention\.attention\.(?:value\.bias|v_bias)", "attn.v_bias"),
        (r"attention\.output\.dense", "attn.to_out"),
        (r"intermediate\.dense", "mlp_in"),
        (r"output\.dense", "mlp_out"),
        (r"layernorm_before", "pre_attn"),
        (r"layernorm_after", "pre_mlp"),
    ]
    groups = []
    for at in range(depth):
        groups += join([f"videomae.encoder.layer.{at}.attention.attention.{x}" for x in ("query", "key", "value")],
                       f"trunk.{at}.attn.to_qkv", False)  # fmt: skip
    return to(source, FallNet(), table, groups=groups, truth=CODE,
              missing=["tubes.weight", "*.bottleneck.*", "pose.*", "alarm.*"])  # fmt: skip


@pair("blind, own: Mamba-130M reads genomes: sixteen of 24 layers, x and gate apart, both directions, bases for words",
      "transformers")  # fmt: skip
def genomes(small: bool) -> Two:
    """The scan backwards shares the matrices and has a convolution and steps of its own; dt, B and C are apart."""
    import torch
    import transformers
    from torch import nn

    width, inner, depth = 768, 1536, 16
    source = transformers.MambaForCausalLM(transformers.MambaConfig(num_hidden_layers=24))

    class Scan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log_a, self.skip = nn.Parameter(torch.zeros(inner, 16)), nn.Parameter(torch.zeros(inner))
            self.conv = nn.Conv1d(inner, inner, 4, groups=inner, padding=3)
            self.to_dt, self.dt = nn.Linear(inner, 48, bias=False), nn.Linear(48, inner)
            self.to_b, self.to_c = nn.Linear(inner, 16, bias=False), nn.Linear(inner, 16, bias=False)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pre = nn.RMSNorm(width)
            self.in_x, self.in_gate = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
            self.ahead = Scan()
            self.behind_conv, self.behind_dt = nn.Conv1d(inner, inner, 4, groups=inner), nn.Linear(48, inner)
            self.out = nn.Linear(inner, width, bias=False)

    class GenomeMamba(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Embedding(12, width)
            self.layers = nn.ModuleList([Layer() for _ in range(depth)])
            self.post = nn.RMSNorm(width)
            self.masked = nn.Linear(width, 12)
            self.tracks = nn.Linear(width, 53)

    table: list[Any] = [
        (r"^(lm_head|backbone\.embeddings)\..*|^backbone\.layers\.(1[6-9]|2\d)\..*", ""),
        (r".*\.(in_proj|x_proj)\..*", "@"),
        (r"^backbone\.norm_f", "post"),
        (r"^backbone\.", ""),
        (r"\.norm\.", ".pre."),
        (r"\.mixer\.A_log", ".ahead.log_a"),
        (r"\.mixer\.D", ".ahead.skip"),
        (r"\.mixer\.conv1d", ".ahead.conv"),
        (r"\.mixer\.dt_proj", ".ahead.dt"),
        (r"\.mixer\.out_proj", ".out"),
    ]
    groups = []
    for at in range(depth):
        old, new = f"backbone.layers.{at}.mixer", f"layers.{at}"
        groups += split(f"{old}.in_proj", [f"{new}.in_x", f"{new}.in_gate"], False)
        groups.append(f"{old}.x_proj.weight -> {new}.ahead.to_dt.weight, {new}.ahead.to_b.weight,"
                      f" {new}.ahead.to_c.weight | (t + m + n) i -> t i, m i, n i")  # fmt: skip
    return to(source, GenomeMamba(), table, groups=groups, vars={"t": 48, "m": 16, "n": 16}, truth=CODE,
              missing=["base.*", "*.behind_*", "masked.*", "tracks.*"])  # fmt: skip


@pair("blind, own: BLOOM-560M weighs comments: q, k, v apart, eighteen of 24 layers, prefixes, a head for each tongue",
      "transformers")  # fmt: skip
def comments(small: bool) -> Two:
    """The heads' q, k and v take turns in the file."""
    import torch
    import transformers
    from torch import nn

    width, depth = 1024, 18
    source = transformers.BloomModel(transformers.BloomConfig(hidden_size=width, n_layer=24, n_head=16))

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
            self.prefix = nn.Parameter(torch.zeros(2, 16, 12, 64))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn_norm, self.attn, self.mlp_norm = nn.LayerNorm(width), Attention(), nn.LayerNorm(width)
            self.mlp = nn.ModuleDict({"wide": nn.Linear(width, 4 * width), "narrow": nn.Linear(4 * width, width)})

    class CommentJudge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.emb, self.emb_norm = nn.Embedding(250880, width), nn.LayerNorm(width)
            self.stack = nn.ModuleList([Layer() for _ in range(depth)])
            self.end_norm = nn.LayerNorm(width)
            self.pool = nn.Linear(width, 1)
            self.judges = nn.ModuleDict({tongue: nn.Linear(width, 5) for tongue in ("fr", "es", "ar", "hi")})

    table: list[Any] = [
        (r"^h\.(1[89]|2\d)\..*", ""),
        (r".*query_key_value.*", "@"),
        (r"^word_embeddings_layernorm", "emb_norm"),
        (r"^word_embeddings", "emb"),
        (r"^ln_f", "end_norm"),
        (r"^h\.", "stack."),
        (r"\.input_layernorm", ".attn_norm"),
        (r"\.post_attention_layernorm", ".mlp_norm"),
        (r"\.self_attention\.dense", ".attn.o"),
        (r"\.dense_h_to_4h", ".wide"),
        (r"\.dense_4h_to_h", ".narrow"),
    ]
    groups = []
    for at in range(depth):
        for kind, i in (("weight", " i"), ("bias", "")):
            names = ", ".join(f"stack.{at}.attn.{x}.{kind}" for x in "qkv")
            groups.append(f"h.{at}.self_attention.query_key_value.{kind} -> {names} | "
                          f"(h (q + k + v)){i} -> (h q){i}, (h k){i}, (h v){i}")  # fmt: skip
    return to(source, CommentJudge(), table, groups=groups, vars={"h": 16, "q": 64, "k": 64, "v": 64}, truth=CODE,
              hidden=[f"*.attn.{x}.{kind}" for x in "qkv" for kind in ("weight", "bias")],
              missing=["*.prefix", "pool.*", "judges.*"])  # fmt: skip


@pair("blind, own: timm's GhostNet counts ears of wheat: sixteen bottlenecks in a row, main and cheap, a point head",
      "timm")  # fmt: skip
def wheat(small: bool) -> Two:
    """Stages are no more; the gates' convolutions are Linears; the wide last layer stays behind."""
    import timm
    from torch import nn

    source = timm.create_model("ghostnet_100")
    olds = [block for stage in source.blocks[:9] for block in stage]
    names = list(dict.fromkeys(re.findall(r"blocks\.[0-8]\.\d+(?=\.)", "\n".join(state(source)))))
    assert len(olds) == len(names) == 16

    def pair_of(old: Any) -> tuple[Any, Any]:
        return (nn.Conv2d(old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding,
                          groups=old.groups, bias=False), nn.BatchNorm2d(old.out_channels))  # fmt: skip

    class Ghost(nn.Module):
        def __init__(self, old: Any) -> None:
            super().__init__()
            self.main, self.main_bn = pair_of(old.primary_conv[0])
            self.cheap, self.cheap_bn = pair_of(old.cheap_operation[0])

    class Gate(nn.Module):
        def __init__(self, old: Any) -> None:
            super().__init__()
            less, size = old.conv_reduce.weight.shape[:2]
            self.fc_a, self.fc_b = nn.Linear(size, less), nn.Linear(less, size)

    class Unit(nn.Module):
        def __init__(self, old: Any) -> None:
            super().__init__()
            self.enter = Ghost(old.ghost1)
            if hasattr(old, "conv_dw") and old.conv_dw is not None:
                self.down, self.down_bn = pair_of(old.conv_dw)
            if old.se is not None:
                self.gate = Gate(old.se)
            self.leave = Ghost(old.ghost2)
            if len(old.shortcut):
                self.side_dw, self.side_dw_bn = pair_of(old.shortcut[0])
                self.side_pw, self.side_pw_bn = pair_of(old.shortcut[2])

    class WheatNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.first_bn = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
            self.row = nn.Sequential(*(Unit(old) for old in olds))
            self.neck = nn.ModuleList([nn.Conv2d(size, 64, 1) for size in (40, 112, 160)])
            self.smooth = conv_bn(64, 64, 3)
            self.points = nn.Conv2d(64, 1, 1)
            self.offsets = nn.Conv2d(64, 2, 1)

    sides = {"0": "side_dw", "1": "side_dw_bn", "2": "side_pw", "3": "side_pw_bn"}
    table: list[Any] = [
        (r"^(blocks\.9|conv_head|classifier)\..*", ""),
        (r"^conv_stem", "first"),
        (r"^bn1", "first_bn"),
        (r"^blocks\.\d\.\d+(?=\.)", lambda m: f"row.{names.index(m[0])}"),
        (r"\.ghost1", ".enter"),
        (r"\.ghost2", ".leave"),
        (r"\.primary_conv\.0", ".main"),
        (r"\.primary_conv\.1", ".main_bn"),
        (r"\.cheap_operation\.0", ".cheap"),
        (r"\.cheap_operation\.1", ".cheap_bn"),
        (r"\.conv_dw", ".down"),
        (r"\.bn_dw", ".down_bn"),
        (r"\.se\.conv_reduce", ".gate.fc_a"),
        (r"\.se\.conv_expand", ".gate.fc_b"),
        (r"\.shortcut\.(\d)", lambda m: f".{sides[m[1]]}"),
    ]
    return to(source, WheatNet(), table, [(r"\.se\.\w+\.weight", "o i 1 1 -> o i")], truth=CODE,
              missing=["neck.*", "smooth.*", "points.*", "offsets.*"])  # fmt: skip
