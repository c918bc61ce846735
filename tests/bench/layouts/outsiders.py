"""Twenty-two layouts written by somebody who had not read ckptool, from the public sources of the code bases.


Names, depth and nesting follow the public sources; widths are narrow (a ResNet of
width 4 in place of 64, a transformer of dim 24 in place of 768), ratios are kept.
Plain Python, nothing but dataclasses.

    python tests/bench/layouts/outsiders.py     # lists the layouts and checks the pairs

Beyond the six asked fields there are four with defaults:
  never   file key -> plain key: equal shape (mostly an equal-looking name too), yet NOT
          the same content (other order of the input channels, a sibling's weights):
          a silent copy is wrong.
  loose   file keys on which a judge should not insist either way (a classifier that the
          code base makes and never trains, which nothing in the file gives away).
  either  plain key -> file keys that each hold a legal copy (branches cut from one
          pretrained stage and then trained apart). Not in pairs.
  source  repository and file that the names were read from.
"""

from collections.abc import Callable
from dataclasses import dataclass, field


def same(sd):
    return sd


def other(sd):
    """the same keys with other values (a student beside its teacher)"""

    def flip(v):
        try:
            return -v
        except TypeError:
            return v

    return {k: flip(v) for k, v in sd.items()}


def whole(key):
    """True for buffers that are saved as int64"""
    return key.endswith(("num_batches_tracked", "queue_ptr", "relative_position_index"))


@dataclass
class Layout:
    name: str
    shapes: dict[str, tuple]
    plain: dict[str, tuple]
    pairs: dict[str, str]
    says: tuple[str, ...]
    nest: Callable = same
    never: dict[str, str] = field(default_factory=dict)
    either: dict[str, tuple] = field(default_factory=dict)
    loose: tuple[str, ...] = ()
    source: str = ""


# ---------------------------------------------------------------- small parts


def pre(prefix, d):
    return {prefix + k: v for k, v in d.items()}


def join(*ds):
    out = {}
    for d in ds:
        for k, v in d.items():
            assert k not in out, k
            out[k] = v
    return out


def bn(n, c, tracked=True):
    d = {n + ".weight": (c,), n + ".bias": (c,), n + ".running_mean": (c,), n + ".running_var": (c,)}
    if tracked:
        d[n + ".num_batches_tracked"] = ()
    return d


def aff(n, c):  # LayerNorm, InstanceNorm(affine)
    return {n + ".weight": (c,), n + ".bias": (c,)}


def lin(n, i, o, bias=True):
    d = {n + ".weight": (o, i)}
    if bias:
        d[n + ".bias"] = (o,)
    return d


def conv(n, i, o, k, bias=False):
    d = {n + ".weight": (o, i, k, k)}
    if bias:
        d[n + ".bias"] = (o,)
    return d


def ibn(n, c):
    return join(aff(n + ".IN", c // 2), bn(n + ".BN", c - c // 2))


# ---------------------------------------------------------------- torchvision/timm ResNets

DEPTH = {"18": (2, 2, 2, 2), "34": (3, 4, 6, 3), "50": (3, 4, 6, 3), "101": (3, 4, 23, 3)}
W = 4


def stage(inp, planes, blocks, downsample, basic=False, with_ibn=False, se=None):
    """keys of one `layerN`, e.g. "0.conv1.weight" """
    out, exp = {}, 1 if basic else 4
    for b in range(blocks):
        p, i = str(b) + ".", inp if b == 0 else planes * exp
        if basic:
            out.update(conv(p + "conv1", i, planes, 3))
            out.update(bn(p + "bn1", planes))
            out.update(conv(p + "conv2", planes, planes, 3))
            out.update(bn(p + "bn2", planes))
        else:
            out.update(conv(p + "conv1", i, planes, 1))
            out.update(ibn(p + "bn1", planes) if with_ibn else bn(p + "bn1", planes))
            out.update(conv(p + "conv2", planes, planes, 3))
            out.update(bn(p + "bn2", planes))
            out.update(conv(p + "conv3", planes, planes * 4, 1))
            out.update(bn(p + "bn3", planes * 4))
        if se:
            out.update(conv(p + se + ".fc1", planes * exp, planes * exp // 16, 1, True))
            out.update(conv(p + se + ".fc2", planes * exp // 16, planes * exp, 1, True))
        if b == 0 and downsample:
            out.update(conv(p + "downsample.0", inp, planes * exp, 1))
            out.update(bn(p + "downsample.1", planes * exp))
    return out


def stages(depth, w=W, with_ibn=False, se=None):
    """layer1..layer4 as a list of dicts, keys as in `stage`"""
    basic, exp = depth in ("18", "34"), 1 if depth in ("18", "34") else 4
    out, inp = [], w
    for s, n in enumerate(DEPTH[depth]):
        planes = w * 2**s
        out.append(stage(inp, planes, n, s > 0 or inp != planes * exp, basic, with_ibn and s < 3, se))
        inp = planes * exp
    return out


def width_out(depth, w=W):
    return w * 8 * (1 if depth in ("18", "34") else 4)


def resnet(depth, w=W, fc=1000, with_ibn=False):
    d = join(conv("conv1", 3, w, 7), bn("bn1", w))
    for s, st in enumerate(stages(depth, w, with_ibn)):
        d.update(pre("layer%d." % (s + 1), st))
    if fc:
        d.update(lin("fc", width_out(depth, w), fc))
    return d


def under(prefix, shapes, plain, drop=()):
    """pairs prefix+k -> k for all k of plain that the file has with an equal shape"""
    return {
        prefix + k: k
        for k in plain
        if prefix + k in shapes and shapes[prefix + k] == plain[k] and not k.startswith(tuple(drop) or ("\0",))
    }


# ---------------------------------------------------------------- timm ViT

D, PATCH = 24, 16


def vit_block(p, d, ls=False):
    x = join(aff(p + "norm1", d), lin(p + "attn.qkv", d, 3 * d), lin(p + "attn.proj", d, d))
    if ls:
        x[p + "ls1.gamma"] = (d,)
    x = join(x, aff(p + "norm2", d), lin(p + "mlp.fc1", d, 4 * d), lin(p + "mlp.fc2", 4 * d, d))
    if ls:
        x[p + "ls2.gamma"] = (d,)
    return x


def timm_vit(depth=4, d=D, tokens=197, patch=16, head=1000, ls=False, clip=False):
    x = {"cls_token": (1, 1, d), "pos_embed": (1, tokens, d)}
    x.update(conv("patch_embed.proj", 3, d, patch, not clip))
    if clip:
        x.update(aff("norm_pre", d))
    for b in range(depth):
        x.update(vit_block("blocks.%d." % b, d, ls))
    x.update(aff("norm", d))
    if head:
        x.update(lin("head", d, head))
    return x


# ---------------------------------------------------------------- person re-identification


def torchreid_osnet():
    def conv_bn(p, i, o, k, dw=False):
        return join(conv(p + "conv", 1 if dw else i, o, k), bn(p + "bn", o))

    def light(p, c):
        return join(conv(p + "conv1", c, c, 1), {p + "conv2.weight": (c, 1, 3, 3)}, bn(p + "bn", c))

    def block(p, i, o):
        m = o // 4
        x = conv_bn(p + "conv1.", i, m, 1)
        x.update(light(p + "conv2a.", m))
        for name, n in (("conv2b", 2), ("conv2c", 3), ("conv2d", 4)):
            for j in range(n):
                x.update(light(p + "%s.%d." % (name, j), m))
        x.update(conv(p + "gate.fc1", m, m // 16, 1, True))
        x.update(conv(p + "gate.fc2", m // 16, m, 1, True))
        x.update(conv_bn(p + "conv3.", m, o, 1))
        if i != o:
            x.update(conv_bn(p + "downsample.", i, o, 1))
        return x

    def osnet(ch, feat, classes):
        x = conv_bn("conv1.", 3, ch[0], 7)
        for s in range(3):
            n = "conv%d." % (s + 2)
            x.update(block(n + "0.", ch[s], ch[s + 1]))
            x.update(block(n + "1.", ch[s + 1], ch[s + 1]))
            if s < 2:
                x.update(conv_bn(n + "2.0.", ch[s + 1], ch[s + 1], 1))
        x.update(conv_bn("conv5.", ch[3], ch[3], 1))
        x.update(lin("fc.0", ch[3], feat))
        x.update(bn("fc.1", feat))
        x.update(lin("classifier", feat, classes))
        return x

    file, plain = osnet((16, 64, 96, 128), 128, 751), osnet((16, 64, 96, 128), 128, 1000)
    return Layout(
        "torchreid osnet_x1_0 (Market-1501) into the ImageNet osnet_x1_0",
        file,
        plain,
        under("", file, plain),
        ("osnet", "751 classes"),
        lambda sd: {
            "state_dict": pre("module.", sd),
            "epoch": 250,
            "rank1": 0.942,
            "optimizer": {"state": {}, "param_groups": []},
        },
        source="KaiyangZhou/deep-person-reid torchreid/models/osnet.py",
    )


def non_local(p, c):
    return join(
        conv(p + "g", c, 1, 1, True),
        conv(p + "W.0", 1, c, 1, True),
        bn(p + "W.1", c),
        conv(p + "theta", c, 1, 1, True),
        conv(p + "phi", c, 1, 1, True),
    )


def nl_50(p=""):
    x = {}
    for s, n, c in ((2, 2, W * 8), (3, 3, W * 16)):
        for i in range(n):
            x.update(non_local(p + "NL_%d.%d." % (s, i), c))
    return x


def fastreid_sbs():
    file = pre("backbone.", join(resnet("50", fc=0, with_ibn=True), nl_50()))
    file["heads.weight"] = (751, 128)
    file["heads.pool_layer.p"] = (1,)
    file.update(bn("heads.bottleneck.0", 128))
    plain = resnet("50")
    return Layout(
        "FastReID SBS R50-ibn (Market-1501) into torchvision resnet50",
        file,
        plain,
        under("backbone.", file, plain),
        ("resnet50", "IBN-a", "751 classes"),
        lambda sd: {
            "model": sd,
            "optimizer": {"state": {}, "param_groups": []},
            "scheduler": {"last_epoch": 59},
            "epoch": 59,
            "metric": 0.95,
        },
        source="JDAI-CV/fast-reid fastreid/modeling/backbones/resnet.py, heads/embedding_head.py,"
        " meta_arch/baseline.py, layers/batch_norm.py, layers/non_local.py,"
        " utils/checkpoint.py, configs/Base-SBS.yml",
    )


def fastreid_mgn():
    plain = resnet("50")
    st = stages("50")
    l3_0 = {k[2:]: v for k, v in st[2].items() if k.startswith("0.")}
    l3_rest = {}
    for k, v in st[2].items():
        i, rest = k.split(".", 1)
        if i != "0":
            l3_rest["%d.%s" % (int(i) - 1, rest)] = v
    file = {"pixel_mean": (1, 3, 1, 1), "pixel_std": (1, 3, 1, 1)}
    trunk = join(conv("0", 3, W, 7), bn("1", W), pre("4.", st[0]), pre("5.", st[1]), pre("6.", l3_0))
    file.update(pre("backbone.", trunk))

    def head(n):
        return join(
            conv(n + ".bottleneck.0", 128, 16, 1), bn(n + ".bottleneck.1", 16), {n + ".classifier.weight": (751, 16)}
        )

    for b, heads in (
        ("b1", ("b1_head",)),
        ("b2", ("b2_head", "b21_head", "b22_head")),
        ("b3", ("b3_head", "b31_head", "b32_head", "b33_head")),
    ):
        file.update(pre(b + ".0.", l3_rest))
        file.update(pre(b + ".1.", st[3]))
        for h in heads:
            file.update(head(h))

    def to_plain(k):
        n, rest = k.split(".", 1)
        return {"0": "conv1.", "1": "bn1.", "4": "layer1.", "5": "layer2.", "6": "layer3.0."}[n] + rest

    pairs = {"backbone." + k: to_plain(k) for k in trunk}
    either = {}
    for k in l3_rest:
        i, rest = k.split(".", 1)
        either["layer3.%d.%s" % (int(i) + 1, rest)] = tuple("%s.0.%s" % (b, k) for b in ("b1", "b2", "b3"))
    for k in st[3]:
        either["layer4." + k] = tuple("%s.1.%s" % (b, k) for b in ("b1", "b2", "b3"))
    return Layout(
        "FastReID MGN R50 (Market-1501) into torchvision resnet50",
        file,
        plain,
        pairs,
        ("resnet50", "751 classes"),
        lambda sd: {"model": sd, "optimizer": {"state": {}, "param_groups": []}, "epoch": 59},
        either=either,
        source="JDAI-CV/fast-reid fastreid/modeling/meta_arch/mgn.py, heads/embedding_head.py,"
        " both at commit 15e1729 (pixel buffers still persistent)",
    )


def bot_ibn():
    plain = resnet("50", with_ibn=True)
    file = join(pre("base.", plain), bn("bottleneck", 128), lin("classifier", 128, 702, False))
    return Layout(
        "BoT (reid-strong-baseline) resnet50_ibn_a (DukeMTMC) into IBN-Net resnet50_ibn_a",
        file,
        plain,
        under("base.", file, plain, ("fc.",)),
        ("resnet50", "IBN-a", "702 classes"),
        same,
        loose=("base.fc.weight", "base.fc.bias"),
        source="michuanhaohao/reid-strong-baseline modeling/baseline.py,"
        " modeling/backbones/resnet_ibn_a.py (the backbone keeps an fc that load_param skips"
        " and forward never uses)",
    )


def bot_se():
    def se50(tail):
        x = join(conv("layer0.conv1", 3, W, 7), bn("layer0.bn1", W))
        for s, st in enumerate(stages("50", se="se_module")):
            x.update(pre("layer%d." % (s + 1), st))
        return join(x, tail)

    plain = se50(lin("last_linear", 128, 1000))
    file = join(pre("base.", se50({})), bn("bottleneck", 128), lin("classifier", 128, 751, False))
    return Layout(
        "BoT (reid-strong-baseline) se_resnet50 (Market-1501) into timm legacy_seresnet50",
        file,
        plain,
        under("base.", file, plain),
        ("resnet50", "SE", "751 classes"),
        lambda sd: pre("module.", sd),
        source="michuanhaohao/reid-strong-baseline modeling/baseline.py, modeling/backbones/senet.py;"
        " plain: huggingface/pytorch-image-models timm/models/senet.py",
    )


def agw():
    plain = resnet("50")
    file = join(
        pre("base.", join(resnet("50", fc=0), nl_50())),
        {"global_pool.p": (1,)},
        bn("bottleneck", 128),
        lin("classifier", 128, 751, False),
    )
    return Layout(
        "AGW (ReID-Survey) resnet50_nl (Market-1501) into torchvision resnet50",
        file,
        plain,
        under("base.", file, plain),
        ("resnet50", "751 classes"),
        same,
        source="mangye16/ReID-Survey modeling/baseline.py, modeling/backbones/resnet_nl.py,"
        " modeling/layer/non_local.py, modeling/layer/gem_pool.py",
    )


def abd_net():
    plain, st = resnet("50"), stages("50")
    common = join(
        conv("backbone1.0", 3, W, 7),
        bn("backbone1.1", W),
        pre("backbone1.4.", st[0]),
        {"shallow_cam._cam_module.gamma": (1,)},
        pre("backbone2.0.", st[1]),
        pre("backbone2.1.", st[2]),
    )
    file = pre("common_branch.", common)
    file.update(pre("branches.0.0.backbone.", st[3]))
    g = W * 16  # 1024 of 2048
    file.update(
        join(lin("branches.0.1.fc.0", 128, g), bn("branches.0.1.fc.1", g), lin("branches.0.1.classifier", g, 751))
    )
    file.update(pre("branches.1.0.backbone.", st[3]))
    a = "branches.1.1."
    file.update(join(conv(a + "reduction.0", 128, g, 1), bn(a + "reduction.1", g)))
    for m in ("before_module", "cam_module", "pam_module"):  # DANetHead, dim_collapsion 2
        p, h = a + m + ".", g // 2
        file.update(join(conv(p + "conv5c.0", g, h, 3), bn(p + "conv5c.1", h)))
        if m != "before_module":
            file[p + "attention_module.gamma"] = (1,)
        if m == "pam_module":
            for q, o in (("query_conv", h // 8), ("key_conv", h // 8), ("value_conv", h)):
                file.update(conv(p + "attention_module." + q, h, o, 1, True))
        file.update(join(conv(p + "conv52.0", h, h, 3), bn(p + "conv52.1", h), conv(p + "conv7.1", h, g, 1, True)))
    file.update(conv(a + "sum_conv.1", g, g, 1, True))
    file.update(join(lin(a + "classifiers.0", g, 751), lin(a + "classifiers.1", g, 751)))
    to = {
        "backbone1.0.": "conv1.",
        "backbone1.1.": "bn1.",
        "backbone1.4.": "layer1.",
        "backbone2.0.": "layer2.",
        "backbone2.1.": "layer3.",
    }
    pairs = {}
    for k in common:
        for a_, b_ in to.items():
            if k.startswith(a_):
                pairs["common_branch." + k] = b_ + k[len(a_) :]
    either = {"layer4." + k: ("branches.0.0.backbone." + k, "branches.1.0.backbone." + k) for k in st[3]}
    return Layout(
        "ABD-Net resnet50 (Market-1501) into torchvision resnet50",
        file,
        plain,
        pairs,
        ("resnet50", "751 classes"),
        lambda sd: {"state_dict": sd, "rank1": 0.956, "epoch": 80},
        either=either,
        source="VITA-Group/ABD-Net torchreid/models/resnet.py, torchreid/components/branches.py,"
        " attention.py, shallow_cam.py, README_Training_and_Testing_Guides.md",
    )


def layumi_pcb():
    plain = resnet("50")
    file = pre("model.", plain)
    for i in range(6):
        c = "classifier%d." % i
        file.update(join(lin(c + "add_block.0", 128, 16), bn(c + "add_block.1", 16), lin(c + "classifier.0", 16, 751)))
    return Layout(
        "layumi PCB resnet50 (Market-1501) into torchvision resnet50",
        file,
        plain,
        under("model.", file, plain),
        ("resnet50", "751 classes"),
        same,
        source="layumi/Person_reID_baseline_pytorch model.py (model.fc is the untouched ImageNet fc)",
    )


def transreid_ssl():
    plain = timm_vit()
    vit = {"cls_token": (1, 1, D), "pos_embed": (1, 129, D)}  # 256x128, 16 x 8 patches
    h = W  # stem of 64
    p = "patch_embed."
    vit.update(
        join(
            conv(p + "conv.0", 3, h, 7),
            ibn(p + "conv.1", h),
            conv(p + "conv.3", h, h, 3),
            ibn(p + "conv.4", h),
            conv(p + "conv.6", h, h, 3),
            bn(p + "conv.7", h),
            conv(p + "proj", h, D, 8, True),
        )
    )
    for b in range(4):
        vit.update(vit_block("blocks.%d." % b, D))
    vit.update(join(aff("norm", D), lin("fc", D, 1000)))
    file = join(pre("base.", vit), lin("classifier", D, 1041, False), bn("bottleneck", D))
    return Layout(
        "TransReID-SSL vit_small with ICS (MSMT17) into timm vit_small_patch16_224",
        file,
        plain,
        under("base.", file, plain),
        ("vit", "1041 classes"),
        same,
        loose=("base.fc.weight", "base.fc.bias"),
        source="damo-cv/TransReID-SSL transreid_pytorch/model/make_model.py,"
        " model/backbones/vit_pytorch.py (fc is made, never trained nor used)",
    )


def clip_text_block(p, d):
    return join(
        {p + "attn.in_proj_weight": (3 * d, d), p + "attn.in_proj_bias": (3 * d,)},
        lin(p + "attn.out_proj", d, d),
        aff(p + "ln_1", d),
        lin(p + "mlp.c_fc", d, 4 * d),
        lin(p + "mlp.c_proj", 4 * d, d),
        aff(p + "ln_2", d),
    )


CLIP_BLOCK = {
    "attn.in_proj_weight": "attn.qkv.weight",
    "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj.weight": "attn.proj.weight",
    "attn.out_proj.bias": "attn.proj.bias",
    "ln_1.weight": "norm1.weight",
    "ln_1.bias": "norm1.bias",
    "ln_2.weight": "norm2.weight",
    "ln_2.bias": "norm2.bias",
    "mlp.c_fc.weight": "mlp.fc1.weight",
    "mlp.c_fc.bias": "mlp.fc1.bias",
    "mlp.c_proj.weight": "mlp.fc2.weight",
    "mlp.c_proj.bias": "mlp.fc2.bias",
}


def clip_reid():
    t, n = 16, 4  # 512 : 768
    plain = timm_vit(n, clip=True)
    file = {"cv_embed": (6, D)}
    file.update(
        join(
            lin("classifier", D, 751, False),
            lin("classifier_proj", t, 751, False),
            bn("bottleneck", D),
            bn("bottleneck_proj", t),
        )
    )
    v = "image_encoder."
    file.update({v + "class_embedding": (D,), v + "positional_embedding": (129, D), v + "proj": (D, t)})
    file.update(join(conv(v + "conv1", 3, D, 16), aff(v + "ln_pre", D)))
    for b in range(n):
        file.update(clip_text_block(v + "transformer.resblocks.%d." % b, D))
    file.update(aff(v + "ln_post", D))
    file.update(
        {
            "prompt_learner.cls_ctx": (751, 4, t),
            "prompt_learner.token_prefix": (1, 5, t),
            "prompt_learner.token_suffix": (1, 68, t),
            "text_encoder.positional_embedding": (77, t),
            "text_encoder.text_projection": (t, t),
        }
    )
    for b in range(n):
        file.update(clip_text_block("text_encoder.transformer.resblocks.%d." % b, t))
    file.update(aff("text_encoder.ln_final", t))
    pairs = {
        v + "conv1.weight": "patch_embed.proj.weight",
        v + "ln_pre.weight": "norm_pre.weight",
        v + "ln_pre.bias": "norm_pre.bias",
        v + "ln_post.weight": "norm.weight",
        v + "ln_post.bias": "norm.bias",
    }
    for b in range(n):
        for x, y in CLIP_BLOCK.items():
            pairs[v + "transformer.resblocks.%d.%s" % (b, x)] = "blocks.%d.%s" % (b, y)
    return Layout(
        "CLIP-ReID ViT-B-16 (Market-1501) into timm vit_base_patch16_clip_224",
        file,
        plain,
        pairs,
        ("vit", "CLIP", "751 classes"),
        same,
        source="Syliz517/CLIP-ReID model/make_model_clipreid.py, model/clip/model.py",
    )


SWIN_DEPTHS, SWIN_HEADS = (2, 2, 6, 2), (3, 6, 12, 24)


def timm_swin(d=D):
    x = join(conv("patch_embed.proj", 3, d, 4, True), aff("patch_embed.norm", d))
    for s, n in enumerate(SWIN_DEPTHS):
        c, p = d * 2**s, "layers.%d." % s
        if s:
            x.update(join(aff(p + "downsample.norm", 2 * c), lin(p + "downsample.reduction", 2 * c, c, False)))
        for b in range(n):
            q = p + "blocks.%d." % b
            x.update(aff(q + "norm1", c))
            x[q + "attn.relative_position_bias_table"] = (169, SWIN_HEADS[s])
            x.update(
                join(
                    lin(q + "attn.qkv", c, 3 * c),
                    lin(q + "attn.proj", c, c),
                    aff(q + "norm2", c),
                    lin(q + "mlp.fc1", c, 4 * c),
                    lin(q + "mlp.fc2", 4 * c, c),
                )
            )
    return join(x, aff("norm", 8 * d), lin("head.fc", 8 * d, 1000))


def solider():
    d, plain = D, timm_swin()
    x = join(conv("patch_embed.projection", 3, d, 4, True), aff("patch_embed.norm", d))
    pairs = {
        "patch_embed.projection.weight": "patch_embed.proj.weight",
        "patch_embed.projection.bias": "patch_embed.proj.bias",
        "patch_embed.norm.weight": "patch_embed.norm.weight",
        "patch_embed.norm.bias": "patch_embed.norm.bias",
        "norm3.weight": "norm.weight",
        "norm3.bias": "norm.bias",
    }
    never = {}
    for s, n in enumerate(SWIN_DEPTHS):
        c = d * 2**s
        for b in range(n):
            q, t = "stages.%d.blocks.%d." % (s, b), "layers.%d.blocks.%d." % (s, b)
            x.update(aff(q + "norm1", c))
            x[q + "attn.w_msa.relative_position_bias_table"] = (169, SWIN_HEADS[s])
            x[q + "attn.w_msa.relative_position_index"] = (49, 49)
            x.update(
                join(
                    lin(q + "attn.w_msa.qkv", c, 3 * c),
                    lin(q + "attn.w_msa.proj", c, c),
                    aff(q + "norm2", c),
                    lin(q + "ffn.layers.0.0", c, 4 * c),
                    lin(q + "ffn.layers.1", 4 * c, c),
                )
            )
            pairs[q + "attn.w_msa.relative_position_bias_table"] = t + "attn.relative_position_bias_table"
            for a, z in (
                ("norm1", "norm1"),
                ("norm2", "norm2"),
                ("attn.w_msa.qkv", "attn.qkv"),
                ("attn.w_msa.proj", "attn.proj"),
                ("ffn.layers.0.0", "mlp.fc1"),
                ("ffn.layers.1", "mlp.fc2"),
            ):
                for e in (".weight", ".bias"):
                    pairs[q + a + e] = t + z + e
        if s < 3:
            p, t = "stages.%d.downsample." % s, "layers.%d.downsample." % (s + 1)
            x.update(join(aff(p + "norm", 4 * c), lin(p + "reduction", 4 * c, 2 * c, False)))
            never.update(
                {
                    p + "norm.weight": t + "norm.weight",
                    p + "norm.bias": t + "norm.bias",
                    p + "reduction.weight": t + "reduction.weight",
                }
            )
    for s in range(4):
        x.update(aff("norm%d" % s, d * 2**s))
    for m in ("semantic_embed_w", "semantic_embed_b"):
        for s in range(4):
            x.update(lin("%s.%d" % (m, s), 2, d * 2 ** min(s + 1, 3)))
    file = pre("backbone.", x)
    h = 8 * d
    file.update(
        join(
            lin("head.mlp.0", h, 128),
            lin("head.mlp.2", 128, 128),
            lin("head.mlp.4", 128, 16),
            {"head.last_layer.weight_g": (256, 1), "head.last_layer.weight_v": (256, 16)},
        )
    )
    return Layout(
        "SOLIDER swin_tiny (LUPerson) into timm swin_tiny_patch4_window7_224",
        file,
        plain,
        {"backbone." + k: v for k, v in pairs.items()},
        ("swin",),
        lambda sd: {
            "student": pre("module.", other(sd)),
            "teacher": sd,
            "optimizer": {"state": {}, "param_groups": []},
            "epoch": 10,
        },
        never={"backbone." + k: v for k, v in never.items()},
        source="tinyvision/SOLIDER swin_transformer.py (swin_converter reorders downsample),"
        " main_solider.py; plain: timm>=0.9 swin_transformer (downsample at the stage's start)",
    )


# ---------------------------------------------------------------- general vision


def mmpretrain_r34():
    plain = resnet("34")
    file = join(pre("backbone.", resnet("34", fc=0)), lin("head.fc", 32, 1000))
    pairs = under("backbone.", file, plain)
    pairs.update({"head.fc.weight": "fc.weight", "head.fc.bias": "fc.bias"})
    return Layout(
        "mmpretrain resnet34 into torchvision resnet34",
        file,
        plain,
        pairs,
        ("resnet34", "1000 classes"),
        lambda sd: {
            "meta": {"epoch": 100, "iter": 500400, "mmcls_version": "0.20.1"},
            "state_dict": sd,
            "optimizer": {"state": {}, "param_groups": []},
        },
        source="open-mmlab/mmpretrain mmpretrain/models/backbones/resnet.py",
    )


def detectron2_r101():
    plain = resnet("101")
    b, pairs = {}, {}

    def cbn(n, i, o, k, to_conv, to_bn):
        b.update(conv(n, i, o, k))
        b.update(bn(n + ".norm", o, False))
        pairs[n + ".weight"] = to_conv + ".weight"
        for e in ("weight", "bias", "running_mean", "running_var"):
            pairs["%s.norm.%s" % (n, e)] = "%s.%s" % (to_bn, e)

    cbn("stem.conv1", 3, W, 7, "conv1", "bn1")
    inp = W
    for s, n in enumerate(DEPTH["101"]):
        m = W * 2**s
        for i in range(n):
            p, t = "res%d.%d." % (s + 2, i), "layer%d.%d." % (s + 1, i)
            if i == 0:
                cbn(p + "shortcut", inp, 4 * m, 1, t + "downsample.0", t + "downsample.1")
            cbn(p + "conv1", inp if i == 0 else 4 * m, m, 1, t + "conv1", t + "bn1")
            cbn(p + "conv2", m, m, 3, t + "conv2", t + "bn2")
            cbn(p + "conv3", m, 4 * m, 1, t + "conv3", t + "bn3")
        inp = 4 * m
    f, file = 16, {}  # FPN of 256
    for lv in (2, 3, 4, 5):
        file.update(
            join(
                conv("backbone.fpn_lateral%d" % lv, W * 2**lv, f, 1, True),
                conv("backbone.fpn_output%d" % lv, f, f, 3, True),
            )
        )
    file.update(pre("backbone.bottom_up.", b))
    r = "proposal_generator.rpn_head."
    file.update(
        join(
            conv(r + "conv", f, f, 3, True),
            conv(r + "objectness_logits", f, 3, 1, True),
            conv(r + "anchor_deltas", f, 12, 1, True),
        )
    )
    h = "roi_heads."
    file.update(
        join(
            lin(h + "box_head.fc1", f * 49, 64),
            lin(h + "box_head.fc2", 64, 64),
            lin(h + "box_predictor.cls_score", 64, 81),
            lin(h + "box_predictor.bbox_pred", 64, 320),
        )
    )
    return Layout(
        "detectron2 Faster R-CNN R101-FPN into torchvision resnet101",
        file,
        plain,
        {"backbone.bottom_up." + k: v for k, v in pairs.items()},
        ("resnet101",),
        lambda sd: {
            "model": sd,
            "optimizer": {"state": {}, "param_groups": []},
            "scheduler": {"last_epoch": 269999},
            "iteration": 269999,
        },
        source="facebookresearch/detectron2 detectron2/modeling/backbone/resnet.py, fpn.py,"
        " layers/batch_norm.py (FrozenBatchNorm2d: no num_batches_tracked)",
    )


def moco_v2():
    plain = resnet("50")
    enc = join(resnet("50", fc=0), lin("fc.0", 128, 128), lin("fc.2", 128, 8))
    file = join({"queue": (8, 4096), "queue_ptr": (1,)}, pre("encoder_q.", enc), pre("encoder_k.", enc))
    return Layout(
        "MoCo v2 resnet50 into torchvision resnet50",
        file,
        plain,
        under("encoder_q.", file, plain),
        ("resnet50", "MoCo"),
        lambda sd: {
            "epoch": 200,
            "arch": "resnet50",
            "state_dict": pre("module.", sd),
            "optimizer": {"state": {}, "param_groups": []},
        },
        source="facebookresearch/moco moco/builder.py (main_lincls.py takes encoder_q, not encoder_k)",
    )


def mae():
    e, plain = 16, timm_vit()
    file = {"cls_token": (1, 1, D), "pos_embed": (1, 197, D), "mask_token": (1, 1, e), "decoder_pos_embed": (1, 197, e)}
    file.update(conv("patch_embed.proj", 3, D, 16, True))
    for b in range(4):
        file.update(vit_block("blocks.%d." % b, D))
    file.update(join(aff("norm", D), lin("decoder_embed", D, e)))
    for b in range(8):
        file.update(vit_block("decoder_blocks.%d." % b, e))
    file.update(join(aff("decoder_norm", e), lin("decoder_pred", e, 768)))
    return Layout(
        "MAE vit_base pretrain (encoder and decoder) into timm vit_base_patch16_224",
        file,
        plain,
        under("", file, plain),
        ("vit", "MAE"),
        lambda sd: {
            "model": sd,
            "optimizer": {"state": {}, "param_groups": []},
            "epoch": 799,
            "scaler": {},
            "args": None,
        },
        source="facebookresearch/mae models_mae.py",
    )


def dinov2():
    n, chunks = 12, 4  # blocks.<chunk>.<global index>
    plain = timm_vit(n, tokens=1370, patch=14, head=0, ls=True)
    x = {"cls_token": (1, 1, D), "pos_embed": (1, 257, D), "mask_token": (1, D)}
    x.update(conv("patch_embed.proj", 3, D, 14, True))
    pairs = {}
    for i in range(n):
        blk = vit_block("", D, True)
        p = "blocks.%d.%d." % (i // (n // chunks), i)
        x.update(pre(p, blk))
        pairs.update({"backbone." + p + k: "blocks.%d.%s" % (i, k) for k in blk})
    x.update(aff("norm", D))
    file = join(
        pre("backbone.", x),
        lin("dino_head.mlp.0", D, 128),
        lin("dino_head.mlp.2", 128, 128),
        lin("dino_head.mlp.4", 128, 16),
        {"dino_head.last_layer.weight_g": (256, 1), "dino_head.last_layer.weight_v": (256, 16)},
    )
    pairs.update(under("backbone.", file, plain))
    return Layout(
        "DINOv2 vits14 teacher_checkpoint (chunked blocks) into timm vit_small_patch14_dinov2",
        file,
        plain,
        pairs,
        ("vit", "DINO"),
        lambda sd: {"teacher": sd},
        source="facebookresearch/dinov2 dinov2/models/vision_transformer.py (BlockChunk), dinov2/layers/dino_head.py",
    )


def deit_distilled():
    plain = timm_vit()
    file = {"cls_token": (1, 1, D), "pos_embed": (1, 198, D), "dist_token": (1, 1, D)}
    file.update({k: v for k, v in plain.items() if k not in file})
    file.update(lin("head_dist", D, 1000))
    return Layout(
        "DeiT tiny distilled into timm vit_tiny_patch16_224",
        file,
        plain,
        under("", file, plain),
        ("vit", "distilled", "1000 classes"),
        lambda sd: {"model": sd},
        never={"head_dist.weight": "head.weight", "head_dist.bias": "head.bias", "dist_token": "cls_token"},
        source="facebookresearch/deit models.py",
    )


def torchvision_vit():
    plain = timm_vit()
    file = {"class_token": (1, 1, D)}
    file.update(conv("conv_proj", 3, D, 16, True))
    file["encoder.pos_embedding"] = (1, 197, D)
    pairs = {
        "class_token": "cls_token",
        "encoder.pos_embedding": "pos_embed",
        "conv_proj.weight": "patch_embed.proj.weight",
        "conv_proj.bias": "patch_embed.proj.bias",
        "encoder.ln.weight": "norm.weight",
        "encoder.ln.bias": "norm.bias",
        "heads.head.weight": "head.weight",
        "heads.head.bias": "head.bias",
    }
    inner = {
        "ln_1": "norm1",
        "self_attention.out_proj": "attn.proj",
        "ln_2": "norm2",
        "mlp.0": "mlp.fc1",
        "mlp.3": "mlp.fc2",
    }
    for b in range(4):
        p, t = "encoder.layers.encoder_layer_%d." % b, "blocks.%d." % b
        file.update(
            join(
                aff(p + "ln_1", D),
                {p + "self_attention.in_proj_weight": (3 * D, D), p + "self_attention.in_proj_bias": (3 * D,)},
                lin(p + "self_attention.out_proj", D, D),
                aff(p + "ln_2", D),
                lin(p + "mlp.0", D, 4 * D),
                lin(p + "mlp.3", 4 * D, D),
            )
        )
        pairs[p + "self_attention.in_proj_weight"] = t + "attn.qkv.weight"
        pairs[p + "self_attention.in_proj_bias"] = t + "attn.qkv.bias"
        for a, z in inner.items():
            for e in (".weight", ".bias"):
                pairs[p + a + e] = t + z + e
    file.update(join(aff("encoder.ln", D), lin("heads.head", D, 1000)))
    return Layout(
        "torchvision vit_b_16 into timm vit_base_patch16_224",
        file,
        plain,
        pairs,
        ("vit", "1000 classes"),
        same,
        source="pytorch/vision torchvision/models/vision_transformer.py",
    )


def hf_vit():
    plain = timm_vit()
    e = "vit.embeddings."
    file = {e + "cls_token": (1, 1, D), e + "position_embeddings": (1, 197, D)}
    file.update(conv(e + "patch_embeddings.projection", 3, D, 16, True))
    pairs = {
        e + "cls_token": "cls_token",
        e + "position_embeddings": "pos_embed",
        e + "patch_embeddings.projection.weight": "patch_embed.proj.weight",
        e + "patch_embeddings.projection.bias": "patch_embed.proj.bias",
        "vit.layernorm.weight": "norm.weight",
        "vit.layernorm.bias": "norm.bias",
        "classifier.weight": "head.weight",
        "classifier.bias": "head.bias",
    }
    for b in range(4):
        p, t = "vit.encoder.layer.%d." % b, "blocks.%d." % b
        for q in ("query", "key", "value"):
            file.update(lin(p + "attention.attention." + q, D, D))
        file.update(
            join(
                lin(p + "attention.output.dense", D, D),
                lin(p + "intermediate.dense", D, 4 * D),
                lin(p + "output.dense", 4 * D, D),
                aff(p + "layernorm_before", D),
                aff(p + "layernorm_after", D),
            )
        )
        for a, z in (
            ("attention.output.dense", "attn.proj"),
            ("intermediate.dense", "mlp.fc1"),
            ("output.dense", "mlp.fc2"),
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
        ):
            for x in (".weight", ".bias"):
                pairs[p + a + x] = t + z + x
    file.update(join(aff("vit.layernorm", D), lin("classifier", D, 1000)))
    never = {}
    for b in range(4):  # same (D, D) shape as attn.proj, yet query/key/value
        for q in ("query", "key", "value"):
            for x in (".weight", ".bias"):
                never["vit.encoder.layer.%d.attention.attention.%s%s" % (b, q, x)] = "blocks.%d.attn.proj%s" % (b, x)
    return Layout(
        "HF ViTForImageClassification (google/vit-base-patch16-224) into timm vit_base_patch16_224",
        file,
        plain,
        pairs,
        ("vit", "1000 classes"),
        same,
        never=never,
        source="huggingface/transformers src/transformers/models/vit/modeling_vit.py",
    )


def hf_resnet():
    plain = resnet("50")
    file, pairs = {}, {}

    def cbn(n, i, o, k, to_conv, to_bn):
        file.update(conv(n + ".convolution", i, o, k))
        file.update(bn(n + ".normalization", o))
        pairs[n + ".convolution.weight"] = to_conv + ".weight"
        for e in bn("", o):
            pairs[n + ".normalization" + e] = to_bn + e

    cbn("resnet.embedder.embedder", 3, W, 7, "conv1", "bn1")
    inp = W
    for s, n in enumerate(DEPTH["50"]):
        m = W * 2**s
        for i in range(n):
            p, t = "resnet.encoder.stages.%d.layers.%d." % (s, i), "layer%d.%d." % (s + 1, i)
            if i == 0:
                cbn(p + "shortcut", inp, 4 * m, 1, t + "downsample.0", t + "downsample.1")
            cbn(p + "layer.0", inp if i == 0 else 4 * m, m, 1, t + "conv1", t + "bn1")
            cbn(p + "layer.1", m, m, 3, t + "conv2", t + "bn2")
            cbn(p + "layer.2", m, 4 * m, 1, t + "conv3", t + "bn3")
        inp = 4 * m
    file.update(lin("classifier.1", 128, 1000))
    pairs.update({"classifier.1.weight": "fc.weight", "classifier.1.bias": "fc.bias"})
    return Layout(
        "HF ResNetForImageClassification (microsoft/resnet-50) into torchvision resnet50",
        file,
        plain,
        pairs,
        ("resnet50", "1000 classes"),
        same,
        source="huggingface/transformers src/transformers/models/resnet/modeling_resnet.py",
    )


def lightning(sd):
    return {
        "epoch": 399,
        "global_step": 78000,
        "pytorch-lightning_version": "1.6.4",
        "state_dict": sd,
        "loops": {},
        "callbacks": {},
        "optimizer_states": [{"state": {}, "param_groups": []}],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 0.3},
    }


def sololearn_byol():
    plain = resnet("18")
    b = resnet("18", fc=0)
    mlp = join(lin("0", 32, 128), bn("1", 128), lin("3", 128, 16))
    file = join(
        pre("backbone.", b),
        lin("classifier", 32, 100),
        pre("momentum_backbone.", b),
        pre("projector.", mlp),
        pre("momentum_projector.", mlp),
        pre("predictor.", join(lin("0", 16, 128), bn("1", 128), lin("3", 128, 16))),
    )
    return Layout(
        "solo-learn BYOL resnet18 (ImageNet-100) into torchvision resnet18",
        file,
        plain,
        under("backbone.", file, plain),
        ("resnet18", "BYOL"),
        lightning,
        source="vturrisi/solo-learn solo/methods/byol.py; momentum_backbone and the dropped fc"
        " from copies of solo/methods/base.py in the index",
    )


def lightly_simclr():
    plain = resnet("18")
    st = stages("18")
    file = join(conv("0", 3, W, 7), bn("1", W), *[pre("%d." % (4 + s), x) for s, x in enumerate(st)])
    to = dict([("0", "conv1"), ("1", "bn1")] + [(str(4 + s), "layer%d" % (s + 1)) for s in range(4)])
    pairs = {"backbone." + k: to[k.split(".", 1)[0]] + "." + k.split(".", 1)[1] for k in file}
    file = pre("backbone.", file)
    h = "projection_head.layers."
    file.update(join(lin(h + "0", 32, 128, False), bn(h + "1", 128), lin(h + "3", 128, 128, False), bn(h + "4", 128)))
    return Layout(
        "lightly SimCLR resnet18 (Sequential of the children) into torchvision resnet18",
        file,
        plain,
        pairs,
        ("resnet18",),
        lightning,
        source="lightly-ai/lightly examples/pytorch_lightning/simclr.py, lightly/models/modules/heads.py",
    )


ALL = (
    torchreid_osnet,
    fastreid_sbs,
    fastreid_mgn,
    bot_ibn,
    bot_se,
    agw,
    abd_net,
    layumi_pcb,
    transreid_ssl,
    clip_reid,
    solider,
    mmpretrain_r34,
    detectron2_r101,
    moco_v2,
    mae,
    dinov2,
    deit_distilled,
    torchvision_vit,
    hf_vit,
    hf_resnet,
    sololearn_byol,
    lightly_simclr,
)


def layouts():
    for f in ALL:
        yield f()


def check(x):
    bad = []
    for a, b in x.pairs.items():
        if a not in x.shapes:
            bad.append("pair: not in file: " + a)
        elif b not in x.plain:
            bad.append("pair: not in plain: " + b)
        elif x.shapes[a] != x.plain[b]:
            bad.append("pair: shapes differ: %s %s / %s %s" % (a, x.shapes[a], b, x.plain[b]))
    if len(set(x.pairs.values())) != len(x.pairs):
        bad.append("pair: a plain key is taken twice")
    for a, b in x.never.items():
        if a not in x.shapes or b not in x.plain or x.shapes[a] != x.plain[b] or x.pairs.get(a) == b:
            bad.append("never: %s / %s" % (a, b))
    for b, many in x.either.items():
        if b not in x.plain or b in x.pairs.values():
            bad.append("either: " + b)
        for a in many:
            if a not in x.shapes or x.shapes[a] != x.plain.get(b) or a in x.pairs:
                bad.append("either: %s / %s" % (a, b))
    for a in x.loose:
        if a not in x.shapes or a in x.pairs or a in x.never:
            bad.append("loose: " + a)
    for d in (x.shapes, x.plain):
        for k, v in d.items():
            if not isinstance(v, tuple) or not all(isinstance(n, int) and n > 0 for n in v):
                bad.append("shape: %s %r" % (k, v))
    x.nest(dict.fromkeys(x.shapes))
    return bad


if __name__ == "__main__":
    failed = 0
    for x in layouts():
        bad = check(x)
        failed += bool(bad)
        nums = lambda d: sum(__import__("math").prod(v) for v in d.values())
        print(
            "%-88s keys %4d  plain %4d  pairs %4d  never %3d  either %3d  loose %d  numbers %7d  %s"
            % (
                x.name,
                len(x.shapes),
                len(x.plain),
                len(x.pairs),
                len(x.never),
                len(x.either),
                len(x.loose),
                nums(x.shapes),
                "ok" if not bad else "BAD",
            )
        )
        for line in bad[:5]:
            print("    " + line)
    raise SystemExit(1 if failed else 0)
