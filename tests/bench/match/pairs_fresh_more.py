"""Fresh pairs: medical images, points, tables, graphs, games."""

from __future__ import annotations

from typing import Any

from tests.bench.match.fresh import Keys, Two, back, fresh, pair
from tests.bench.match.fresh_listings import listing
from tests.bench.match.pairs_fresh_sound import moved


@pair("fresh: nnU-Net's first version to its second: every tensor has four names")
def nnunet(small: bool) -> Two:
    """all_modules repeats conv and norm; the decoder holds the encoder; a few biases are new."""
    target = listing("nnunet-v2")
    source, rules = Keys(), []
    widths = [32, 64, 128, 256, 320]

    def block(name: str, out: int, into: int, stage: str, at: int) -> None:
        source.put(f"{name}.conv.weight", out, into, 3, 3, 3)
        source.put(f"{name}.conv.bias", out)
        source.norm(f"{name}.instnorm", out)
        places = [stage] if stage.startswith("decoder") else [stage, f"decoder.{stage}"]
        for part, again, number in (("conv", "conv", 0), ("instnorm", "norm", 1)):
            for tail in ("weight", "bias"):
                names = [f"{place}.convs.{at}.{x}.{tail}" for place in places for x in (again, f"all_modules.{number}")]
                rules.append(f"{name}.{part}.{tail} -> {', '.join(names)}")

    for at in range(4):
        out = widths[3 - at]
        block(f"conv_blocks_localization.{at}.0.blocks.0", out, 2 * out, f"decoder.stages.{at}", 0)
        block(f"conv_blocks_localization.{at}.1.blocks.0", out, out, f"decoder.stages.{at}", 1)
    for at, width in enumerate(widths):
        into = widths[at - 1] if at else 1
        a, b = ("0.blocks.0", "1.blocks.0") if at == 4 else ("blocks.0", "blocks.1")
        block(f"conv_blocks_context.{at}.{a}", width, into, f"encoder.stages.{at}.0", 0)
        block(f"conv_blocks_context.{at}.{b}", width, width, f"encoder.stages.{at}.0", 1)
    for at in range(4):
        source.put(f"tu.{at}.weight", widths[4 - at], widths[3 - at], 2, 2, 2)
        rules.append(f"tu.{at}.weight -> decoder.transpconvs.{at}.weight")
    for at in range(4):
        source.put(f"seg_outputs.{at}.weight", 3, widths[3 - at], 1, 1, 1)
        rules.append(f"seg_outputs.{at}.weight -> decoder.seg_layers.{at}.weight")
    return fresh(source, target, rules, missing=["decoder.transpconvs.?.bias", "decoder.seg_layers.?.bias"])


@pair("fresh: a self-supervised Swin into MONAI's SwinUNETR: only the encoder")
def swinunetr(small: bool) -> Two:
    """module. and fc1 against swinViT. and linear1; heads of the pretraining stay behind, the decoder is new."""
    target = listing("monai-swinunetr")
    table = [(r"^(?!swinViT).*", ""), (r"^swinViT\.", "module."), (r"mlp\.linear(\d)", r"mlp.fc\1")]
    source = moved(target, table)
    source.norm("module.norm", 768)
    source.lin("rotation_head", 4, 768)
    source.lin("contrastive_head", 512, 768)
    source.conv("conv.0", 384, 768, 3, 3, 3)
    return back(source, target, table, missing=["encoder*", "decoder*", "out.*"])


@pair("fresh: mattmacy's V-Net to MONAI's")
def vnet(small: bool) -> Two:
    """ops.0.conv1 and bn1 against conv_block.conv and adn.N; two classes against one."""
    target = listing("monai-vnet")
    table = [
        (r"^out_tr.*", ""),
        (r"ops\.(\d)\.conv_block\.conv", r"ops.\1.conv1"),
        (r"ops\.(\d)\.conv_block\.adn\.N", r"ops.\1.bn1"),
        (r"in_tr\.conv_block\.conv", "in_tr.conv1"),
        (r"in_tr\.conv_block\.adn\.N", "in_tr.bn1"),
    ]
    source = moved(target, table)
    source.conv("out_tr.conv1", 2, 32, 5, 5, 5)
    source.bn("out_tr.bn1", 2)
    source.conv("out_tr.conv2", 2, 2, 1, 1, 1)
    return back(source, target, table, missing=["out_tr.*"])


@pair("fresh: Facebook's DLRM to torchrec: tables by number, some of one size")
def dlrm(small: bool) -> Two:
    """emb_l.3 is t_cat_3; the last layer stands apart."""
    sizes = [
        1460,
        583,
        10000,
        2202,
        305,
        24,
        10000,
        633,
        3,
        10000,
        5683,
        8351,
        3194,
        27,
        10000,
        5461,
        10,
        5652,
        2173,
        4,
        7046,
        18,
        15,
        10000,
        105,
        10000,
    ]
    source, target = Keys(), Keys()
    for at, rows in enumerate(sizes):
        source.put(f"emb_l.{at}.weight", rows, 64)
        target.put(f"sparse_arch.embedding_bag_collection.embedding_bags.t_cat_{at}.weight", rows, 64)
    for at, (out, into) in enumerate(((512, 13), (256, 512), (64, 256))):
        source.lin(f"bot_l.{2 * at}", out, into)
        target.lin(f"dense_arch.model._mlp.{at}._linear", out, into)
    for at, (out, into) in enumerate(((512, 415), (512, 512), (256, 512), (1, 256))):
        source.lin(f"top_l.{2 * at}", out, into)
        target.lin(f"over_arch.model.0._mlp.{at}._linear" if at < 3 else "over_arch.model.1", out, into)
    table: list[Any] = [
        (r"^sparse_arch\.embedding_bag_collection\.embedding_bags\.t_cat_", "emb_l."),
        (r"^dense_arch\.model\._mlp\.(\d)\._linear", lambda m: f"bot_l.{2 * int(m[1])}"),
        (r"^over_arch\.model\.0\._mlp\.(\d)\._linear", lambda m: f"top_l.{2 * int(m[1])}"),
        (r"^over_arch\.model\.1", "top_l.6"),
    ]
    return back(source, target, table)


@pair("fresh: FT-Transformer of the paper's code to rtdl's: the first block has no norm in front")
def ft_transformer(small: bool) -> Two:
    """linear0 is the first Linear of the feed-forward, norm0 the attention's norm; the tokenizer is cut otherwise."""
    source, target, d = Keys(), Keys(), 192
    source.put("tokenizer.weight", 9, d)
    source.put("tokenizer.bias", 12, d)
    source.put("tokenizer.category_offsets", 4)
    source.put("tokenizer.category_embeddings.weight", 77, d)
    target.put("cls_token.weight", d)
    target.put("feature_tokenizer.cat_tokenizer.embeddings.weight", 77, d)
    for at in range(3):
        old, new = f"layers.{at}", f"transformer.blocks.{at}"
        for keys, name in ((source, old), (target, new)):
            for part in ("W_q", "W_k", "W_v", "W_out"):
                keys.lin(f"{name}.attention.{part}", d, d)
        source.lin(f"{old}.linear0", 512, d)
        source.lin(f"{old}.linear1", d, 256)
        source.norm(f"{old}.norm1", d)
        target.lin(f"{new}.ffn.linear_first", 512, d)
        target.lin(f"{new}.ffn.linear_second", d, 256)
        if at:
            source.norm(f"{old}.norm0", d)
            target.norm(f"{new}.attention_normalization", d)
        target.norm(f"{new}.ffn_normalization", d)
    source.norm("last_normalization", d)
    source.lin("head", 1, d)
    target.norm("transformer.head.normalization", d)
    target.lin("transformer.head.linear", 1, d)
    table = [
        (r"^cls_token.*", ""),
        (r"^feature_tokenizer\.cat_tokenizer\.embeddings", "tokenizer.category_embeddings"),
        (r"^transformer\.head\.normalization", "last_normalization"),
        (r"^transformer\.head\.linear", "head"),
        (r"^transformer\.blocks", "layers"),
        (r"ffn\.linear_first", "linear0"),
        (r"ffn\.linear_second", "linear1"),
        (r"attention_normalization", "norm0"),
        (r"ffn_normalization", "norm1"),
    ]
    return back(source, target, table, missing=["cls_token.weight"])


@pair("fresh: pygcn to PyTorch Geometric: four tensors, two of them turned")
def pygcn(small: bool) -> Two:
    """gc1.weight is [in, out]."""
    source, target = Keys(), Keys()
    for at, (into, out) in enumerate(((1433, 16), (16, 7)), 1):
        source.put(f"gc{at}.weight", into, out)
        source.put(f"gc{at}.bias", out)
        target.put(f"conv{at}.bias", out)
        target.put(f"conv{at}.lin.weight", out, into)
    return back(source, target, [(r"^conv(\d)\.(lin\.)?", r"gc\1.")], [(r"weight", "i o -> o i")])


@pair("fresh: Stable-Baselines' Atari policy to CleanRL's")
def atari(small: bool) -> Two:
    """action_net is the actor, value_net the critic; a Sequential of Sequentials became one."""
    source, target, names = Keys(), Keys(), {}
    convs = ((32, 4, 8), (64, 32, 4), (64, 64, 3))
    for at, (out, into, kernel) in enumerate(convs):
        names[f"network.{2 * at}"] = f"features_extractor.cnn.{2 * at}"
        source.conv(f"features_extractor.cnn.{2 * at}", out, into, kernel)
        target.conv(f"network.{2 * at}", out, into, kernel)
    source.lin("features_extractor.linear.0", 512, 3136)
    target.lin("network.7", 512, 3136)
    for old, new, out in (("action_net", "actor", 6), ("value_net", "critic", 1)):
        source.lin(old, out, 512)
        target.lin(new, out, 512)
        names[new] = old
    names["network.7"] = "features_extractor.linear.0"
    return fresh(source, target, [f"{old}.{{p*}} -> {new}.{{p*}}" for new, old in names.items()])


@pair("fresh: PointNet++ by yanx27 to Wijmans': biases stay behind")
def pointnet2(small: bool) -> Two:
    """mlp_convs and mlp_bns are two lists there, one Sequential here."""
    source, target, names = Keys(), Keys(), {}
    for level, sizes in enumerate(((6, 64, 64, 128), (131, 128, 128, 256), (259, 256, 512, 1024)), 1):
        for at in range(3):
            extra = (1, 1) if level < 4 else (1,)
            source.conv(f"sa{level}.mlp_convs.{at}", sizes[at + 1], sizes[at], *extra)
            target.conv(f"SA_modules.{level - 1}.mlps.0.{3 * at}", sizes[at + 1], sizes[at], *extra, bias=False)
            target.bn(f"SA_modules.{level - 1}.mlps.0.{3 * at + 1}", sizes[at + 1])
            names[f"SA_modules.{level - 1}.mlps.0.{3 * at}"] = f"sa{level}.mlp_convs.{at}"
            names[f"SA_modules.{level - 1}.mlps.0.{3 * at + 1}"] = f"sa{level}.mlp_bns.{at}"
        for at in range(3):
            source.bn(f"sa{level}.mlp_bns.{at}", sizes[at + 1])
    for at, (out, into) in enumerate(((512, 1024), (256, 512), (40, 256)), 1):
        source.lin(f"fc{at}", out, into)
        target.lin(f"fc_layer.{(0, 3, 7)[at - 1]}", out, into, bias=at == 3)
        names[f"fc_layer.{(0, 3, 7)[at - 1]}"] = f"fc{at}"
        if at < 3:
            source.bn(f"bn{at}", out)
            target.bn(f"fc_layer.{3 * at - 2}", out)
            names[f"fc_layer.{3 * at - 2}"] = f"bn{at}"
    rules = [f"{names[key.rsplit('.', 1)[0]]}.{key.rsplit('.', 1)[1]} -> {key}" for key in target]
    return fresh(source, target, rules)


@pair("fresh: DGCNN into its authors' names, where each norm has two")
def dgcnn(small: bool) -> Two:
    """bn1 is also conv1.1: one source for two targets."""
    source, target, rules = Keys(), Keys(), []
    for at, (out, into) in enumerate(((64, 6), (64, 128), (128, 128), (256, 256)), 1):
        source.conv(f"edge{at}.conv", out, into, 1, bias=False)
        source.bn(f"edge{at}.bn", out)
    source.put("embed.conv.weight", 1024, 512, 1)
    source.bn("embed.bn", 1024)
    for at, (out, into) in enumerate(((512, 2048), (256, 512)), 1):
        source.lin(f"cls{at}.lin", out, into, bias=at == 2)
        source.bn(f"cls{at}.bn", out)
    source.lin("cls3.lin", 40, 256)
    tails = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    for at, width in enumerate((64, 64, 128, 256, 1024), 1):
        target.bn(f"bn{at}", width)
        old = f"edge{at}" if at < 5 else "embed"
        rules += [f"{old}.bn.{tail} -> bn{at}.{tail}, conv{at}.1.{tail}" for tail in tails]
    for at, width in enumerate((64, 64, 128, 256, 1024), 1):
        old = f"edge{at}" if at < 5 else "embed"
        target[f"conv{at}.0.weight"] = source[f"{old}.conv.weight"]
        target.bn(f"conv{at}.1", width)
        rules.append(f"{old}.conv.weight -> conv{at}.0.weight")
    for at in (1, 2, 3):
        for key in [key for key in source if key.startswith(f"cls{at}.")]:
            new = key.replace(f"cls{at}.lin", f"linear{at}").replace(f"cls{at}.bn", f"bn{at + 5}")
            target[new] = source[key]
            rules.append(f"{key} -> {new}")
    return fresh(source, target, rules)
