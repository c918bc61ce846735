"""Layouts of public vision and re-identification code bases, as tables of keys and shapes with the plain key of each.

They are written from the code bases' public descriptions: module names in their model files, and how their training
scripts save. Widths are small and weights are random; names and nesting are what they write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
WIDTH, DIM, DEPTH, CLASSES = 4, 24, 12, 751
COUNTER: Shape = ()


@dataclass(frozen=True)
class Layout:
    """One file as a code base writes it, and the plain model inside.

    Attributes:
        name: of the code base.
        shapes: its keys.
        plain: the plain model's.
        pairs: key of the file -> key of the plain model, for those that are the same tensor.
        says: words that `inspect` has to say.
        nest: puts the state dict into the objects that are saved.
        inside: the state dict that is filled where the file is the model, if it is another than the one that is taken.
        copies: key of the file -> key of the plain model that it may hold as well, as a momentum encoder does.
    """

    name: str
    shapes: Shapes
    plain: Shapes
    pairs: dict[str, str]
    says: tuple[str, ...]
    nest: Callable[[dict[str, Any]], Any] = dict
    inside: Callable[[dict[str, Any]], dict[str, Any]] = dict
    copies: dict[str, str] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------- the plain models


def norm(name: str, width: int) -> Shapes:
    """A BatchNorm."""
    shapes: Shapes = {f"{name}.{last}": (width,) for last in ("weight", "bias", "running_mean", "running_var")}
    return {**shapes, f"{name}.num_batches_tracked": COUNTER}


def linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (outputs, inputs)}
    return {**shapes, f"{name}.bias": (outputs,)} if bias else shapes


def layer_norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def resnet50(classes: int = 1000, ibn: bool = False) -> Shapes:
    """torchvision's names."""
    shapes: Shapes = {"conv1.weight": (WIDTH, 3, 7, 7), **norm("bn1", WIDTH)}
    inputs = WIDTH
    for layer, blocks in enumerate((3, 4, 6, 3), 1):
        width = WIDTH * 2 ** (layer - 1)
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            shapes[f"{at}.conv1.weight"] = (width, inputs, 1, 1)
            if ibn and layer < 4:
                half = width // 2
                shapes |= layer_norm(f"{at}.bn1.IN", half) | norm(f"{at}.bn1.BN", width - half)
            else:
                shapes |= norm(f"{at}.bn1", width)
            shapes[f"{at}.conv2.weight"] = (width, width, 3, 3)
            shapes |= norm(f"{at}.bn2", width)
            shapes[f"{at}.conv3.weight"] = (4 * width, width, 1, 1)
            shapes |= norm(f"{at}.bn3", 4 * width)
            if block == 0:
                shapes[f"{at}.downsample.0.weight"] = (4 * width, inputs, 1, 1)
                shapes |= norm(f"{at}.downsample.1", 4 * width)
            inputs = 4 * width
    return shapes | (linear("fc", classes, inputs) if classes else {})


def vit(tokens: int = 197, classes: int = 1000) -> Shapes:
    """timm's names."""
    shapes: Shapes = {
        "cls_token": (1, 1, DIM),
        "pos_embed": (1, tokens, DIM),
        "patch_embed.proj.weight": (DIM, 3, 16, 16),
    }
    shapes["patch_embed.proj.bias"] = (DIM,)
    for number in range(DEPTH):
        shapes |= vit_block(f"blocks.{number}")
    shapes |= layer_norm("norm", DIM)
    return shapes | (linear("head", classes, DIM) if classes else {})


def vit_block(at: str, dim: int = DIM) -> Shapes:
    return (
        layer_norm(f"{at}.norm1", dim)
        | linear(f"{at}.attn.qkv", 3 * dim, dim)
        | linear(f"{at}.attn.proj", dim, dim)
        | layer_norm(f"{at}.norm2", dim)
        | linear(f"{at}.mlp.fc1", 4 * dim, dim)
        | linear(f"{at}.mlp.fc2", dim, 4 * dim)
    )


def headless(shapes: Shapes) -> Shapes:
    return {key: shape for key, shape in shapes.items() if not key.startswith(("fc.", "head."))}


def under(prefix: str, shapes: Shapes) -> tuple[Shapes, dict[str, str]]:
    """Shapes under a prefix, and the plain key of each."""
    return {prefix + key: shape for key, shape in shapes.items()}, {prefix + key: key for key in shapes}


# ---------------------------------------------------------------------------------------------- the code bases


def strong_baseline(ibn: bool = False) -> Layout:
    """reid-strong-baseline: `base`, `bottleneck`, `classifier`; saved as a bare state dict."""
    plain = resnet50(0, ibn)
    shapes, pairs = under("base.", plain)
    shapes |= norm("bottleneck", 32 * WIDTH) | linear("classifier", CLASSES, 32 * WIDTH, bias=False)
    says = ("resnet50 (torchvision names)", "neck: bnneck, 751 classes, no bias", *(("IBN-a",) if ibn else ()))
    return Layout("strong baseline, IBN-a" if ibn else "strong baseline", shapes, plain, pairs, says)


def torchreid() -> Layout:
    """deep-person-reid: torchvision's keys with `classifier` for `fc`; a DataParallel model in a dict."""
    plain = resnet50(0)
    shapes, pairs = under("module.", plain)
    shapes |= linear("module.classifier", CLASSES, 32 * WIDTH)
    return Layout("torchreid", shapes, plain, pairs, ("resnet50 (torchvision names)", "751 classes"),
                  lambda state: {"state_dict": state, "epoch": 60, "rank1": 0.9})  # fmt: skip


def fastreid() -> Layout:
    """FastReID: `backbone`, `heads.bottleneck.0`, `heads.weight`, pixel statistics; under "model"."""
    plain = resnet50(0, ibn=True)
    shapes, pairs = under("backbone.", plain)
    shapes = {"pixel_mean": (1, 3, 1, 1), "pixel_std": (1, 3, 1, 1), **shapes}
    shapes |= norm("heads.bottleneck.0", 32 * WIDTH) | {"heads.weight": (CLASSES, 32 * WIDTH)}
    says = ("resnet50 (torchvision names)", "IBN-a", "FastReID", "751 classes")
    return Layout("FastReID", shapes, plain, pairs, says,
                  lambda state: {"model": state, "iteration": 9})  # fmt: skip


def transreid() -> Layout:
    """TransReID with JPM and SIE: timm's ViT under `base`, 256 x 128 images, branches that copy the last block."""
    shapes, pairs = under("base.", vit(129, 0))
    shapes["base.sie_embed"] = (6, 1, DIM)
    shapes |= linear("base.fc", 1000, DIM)
    for branch in ("b1", "b2"):
        shapes |= vit_block(f"{branch}.0") | layer_norm(f"{branch}.1", DIM)
    for number in ("", "_1", "_2", "_3", "_4"):
        shapes |= linear(f"classifier{number}", CLASSES, DIM, bias=False) | norm(f"bottleneck{number}", DIM)
    plain = vit(197, 0)
    del pairs["base.pos_embed"]
    says = ("vit", "timm names", "TransReID", "751 classes")
    return Layout("TransReID", shapes, plain, pairs, says)


def mmpretrain_resnet() -> Layout:
    """mmpretrain: `backbone`, `head.fc`; under "state_dict", with "meta"."""
    plain = resnet50(1000)
    shapes, pairs = under("backbone.", headless(plain))
    shapes |= linear("head.fc", 1000, 32 * WIDTH)
    pairs |= {f"head.fc.{last}": f"fc.{last}" for last in ("weight", "bias")}
    return Layout("mmpretrain ResNet", shapes, plain, pairs, ("resnet50 (torchvision names)", "1,000 classes"),
                  lambda state: {"meta": {"epoch": 100}, "state_dict": state})  # fmt: skip


def mmpretrain_vit() -> Layout:
    """mmpretrain's vision transformer: `layers.N.ln1`, `ffn.layers.0.0`, `head.layers.head`."""
    words = {"patch_embed.proj.": "patch_embed.projection.", "norm.": "ln1.", ".norm1.": ".ln1.", ".norm2.": ".ln2."}
    words |= {".mlp.fc1.": ".ffn.layers.0.0.", ".mlp.fc2.": ".ffn.layers.1.", "blocks.": "layers."}
    shapes, pairs = renamed(vit(), words, "backbone.", {"head.": "head.layers.head."})
    return Layout("mmpretrain ViT", shapes, vit(), pairs, ("vit", "mmpretrain names", "1,000 classes"),
                  lambda state: {"meta": {}, "state_dict": state})  # fmt: skip


def renamed(
    plain: Shapes, words: Mapping[str, str], prefix: str, whole: Mapping[str, str]
) -> tuple[Shapes, dict[str, str]]:
    """Keys with words replaced, under a prefix; keys that begin as one of `whole` are put beside it."""
    shapes: Shapes = {}
    pairs: dict[str, str] = {}
    for key, shape in plain.items():
        beside = next((new + key.removeprefix(old) for old, new in whole.items() if key.startswith(old)), None)
        name = key
        for old, new in words.items():
            if old.startswith(".") or not old.endswith("."):
                name = name.replace(old, new)
            elif name.startswith(old):
                name = new + name.removeprefix(old)
        name = prefix + name if beside is None else beside
        shapes[name], pairs[name] = shape, key
    return shapes, pairs


def detectron2() -> Layout:
    """detectron2's R50-FPN: `backbone.bottom_up.res2.0.conv1.norm`, norms without counters, and a detector."""
    plain = headless(resnet50())
    shapes: Shapes = {}
    pairs: dict[str, str] = {}
    for key, shape in plain.items():
        if key.endswith("num_batches_tracked"):
            continue
        name = key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        for number in "123":
            name = name.replace(f".bn{number}.", f".conv{number}.norm.")
        if name.startswith("layer"):
            name = f"res{int(name[5]) + 1}{name[6:]}"
        else:
            name = "stem." + name.replace("bn1.", "conv1.norm.")
        name = f"backbone.bottom_up.{name}"
        shapes[name], pairs[name] = shape, key
    for level in range(2, 6):
        shapes |= {f"backbone.fpn_lateral{level}.weight": (16, 4 * WIDTH * 2 ** (level - 2), 1, 1)}
        shapes |= {f"backbone.fpn_output{level}.weight": (16, 16, 3, 3)}
    shapes |= linear("roi_heads.box_head.fc1", 32, 16 * 49) | linear("roi_heads.box_predictor.cls_score", 81, 32)
    return Layout("detectron2", shapes, plain, pairs, ("resnet50 (detectron2 names)",), lambda state: {"model": state})


def dino() -> Layout:
    """DINO: student and teacher, each a backbone with a head, the student under DistributedDataParallel."""
    plain = vit(197, 0)
    teacher, pairs = under("backbone.", plain)
    head = linear("head.mlp.0", 32, DIM) | linear("head.mlp.2", 16, 32)
    head |= {"head.last_layer.weight_g": (64, 1), "head.last_layer.weight_v": (64, 16)}
    return Layout("DINO", teacher | head, plain, pairs, ("vit", "timm names", "DINO"),
                  lambda state: {"student": student(state), "teacher": state, "epoch": 100}, student)  # fmt: skip


def student(teacher: dict[str, Any]) -> dict[str, Any]:
    """DINO's student: other weights under DistributedDataParallel's prefix."""
    return {f"module.{key}": value * 2 for key, value in teacher.items()}


def mae() -> Layout:
    """MAE: an encoder with timm's names, a decoder beside it; under "model"."""
    plain = vit(197, 0)
    shapes, pairs = under("", plain)
    shapes = {"mask_token": (1, 1, 16), "decoder_pos_embed": (1, 197, 16), **shapes}
    shapes |= linear("decoder_embed", 16, DIM)
    for number in range(2):
        shapes |= vit_block(f"decoder_blocks.{number}", 16)
    shapes |= layer_norm("decoder_norm", 16) | linear("decoder_pred", 768, 16)
    return Layout("MAE", shapes, plain, pairs, ("MAE of a vit",), lambda state: {"model": state, "epoch": 799})


def moco() -> Layout:
    """MoCo v2: `module.encoder_q` and `module.encoder_k` with a projection for `fc`, and a queue."""
    plain = resnet50(0)
    shapes, pairs = under("module.encoder_q.", plain)
    projection = linear("fc.0", 128, 32 * WIDTH) | linear("fc.2", 16, 128)
    shapes |= under("module.encoder_q.", projection)[0] | under("module.encoder_k.", plain | projection)[0]
    shapes |= {"module.queue": (16, 64), "module.queue_ptr": (1,)}
    return Layout("MoCo v2", shapes, plain, pairs, ("resnet50 (torchvision names)", "MoCo", "a projection to 16"),
                  lambda state: {"epoch": 200, "arch": "resnet50", "state_dict": state},
                  copies=under("module.encoder_k.", plain)[1])  # fmt: skip


def simclr() -> Layout:
    """SimCLR in PyTorch: `backbone` with a projection for `fc`."""
    plain = resnet50(0)
    shapes, pairs = under("backbone.", plain)
    shapes |= linear("backbone.fc.0", 32 * WIDTH, 32 * WIDTH) | linear("backbone.fc.2", 16, 32 * WIDTH)
    return Layout("SimCLR", shapes, plain, pairs, ("resnet50 (torchvision names)", "a projection to 16"),
                  lambda state: {"epoch": 100, "state_dict": state})  # fmt: skip


def timm_vit() -> Layout:
    """timm's vision transformer against torchvision's."""
    words = {"cls_token": "class_token", "pos_embed": "encoder.pos_embedding", "patch_embed.proj.": "conv_proj.",
             "blocks.": "encoder.layers.encoder_layer_", ".attn.qkv.": ".self_attention.in_proj_",
             ".attn.proj.": ".self_attention.out_proj.", ".norm1.": ".ln_1.", ".norm2.": ".ln_2.",
             ".mlp.fc1.": ".mlp.0.", ".mlp.fc2.": ".mlp.3.", "norm.": "encoder.ln.",
             "head.": "heads.head."}  # fmt: skip
    shapes, pairs = renamed(vit(), words, "", {})
    return Layout("timm against torchvision", shapes, vit(), pairs, ("vit", "torchvision names", "1,000 classes"))


def openai_clip() -> Layout:
    """OpenAI's CLIP: the image tower under `visual`, the text tower under no prefix; the plain model is the tower."""
    tower = clip_tower(DIM)
    before: Shapes = {"class_embedding": (DIM,), "positional_embedding": (197, DIM), "proj": (DIM, 16)}
    before |= {"conv1.weight": (DIM, 3, 16, 16)} | layer_norm("ln_pre", DIM)
    tower = before | tower | layer_norm("ln_post", DIM)
    shapes, pairs = under("visual.", tower)
    shapes = {"positional_embedding": (77, 16), "text_projection": (16, 16), "logit_scale": (), **shapes}
    shapes |= clip_tower(16) | {"token_embedding.weight": (100, 16)} | layer_norm("ln_final", 16)
    return Layout("OpenAI CLIP", shapes, tower, pairs, ("CLIP", "OpenAI names"))


def clip_tower(width: int) -> Shapes:
    shapes: Shapes = {}
    for number in range(DEPTH):
        at = f"transformer.resblocks.{number}"
        shapes |= {f"{at}.attn.in_proj_weight": (3 * width, width), f"{at}.attn.in_proj_bias": (3 * width,)}
        shapes |= linear(f"{at}.attn.out_proj", width, width) | layer_norm(f"{at}.ln_1", width)
        shapes |= linear(f"{at}.mlp.c_fc", 4 * width, width) | linear(f"{at}.mlp.c_proj", width, 4 * width)
        shapes |= layer_norm(f"{at}.ln_2", width)
    return shapes


def layouts() -> Iterator[Layout]:
    """All of them."""
    yield from (strong_baseline(), strong_baseline(ibn=True), torchreid(), fastreid(), transreid())
    yield from (mmpretrain_resnet(), mmpretrain_vit(), detectron2(), dino(), mae(), moco(), simclr(), timm_vit())
    yield openai_clip()
