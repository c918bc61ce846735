"""Real conversions between real models: the outputs agree, and the way back is bit-equal.

Those that need timm, transformers, peft or open_clip are skipped where these are not installed. All models are small,
with random weights; nothing is downloaded.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from recipe_harness import array_specs, assert_comes_back, remap_torch, run, specs, structured
from torch import nn
from torch.nn import functional

from ckptool.spec import TensorSpec
from ckptool.surgery.expand import expand
from ckptool.surgery.recipe import load_recipe, parse_recipe, recipe_of
from ckptool.surgery.reverse import check_reverse

pytestmark = pytest.mark.filterwarnings("default")  # those of the packages converted between are not ours


def assert_close(a: torch.Tensor, b: torch.Tensor, rel: float = 1e-5) -> None:
    """Equal up to the rounding of another order of summation."""
    a, b = a.detach(), b.detach()
    assert a.shape == b.shape
    assert float((a - b).abs().max()) <= rel * float(a.abs().max())
    assert float((a[0] - a[1]).abs().max()) > 0.01 * float(a.abs().max())  # the output depends on the input


def shapes_of(build: Any) -> dict[str, TensorSpec]:
    """The specs of a large model, made without its weights."""
    with torch.device("meta"):
        state = build().state_dict()
    dtypes = {torch.float32: "float32", torch.int64: "int64"}
    return {key: TensorSpec(key, dtypes[tensor.dtype], tuple(tensor.shape)) for key, tensor in state.items()}


def image(size: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------- torchvision -> timm


def test_vit_to_timm(torchvision: ModuleType) -> None:
    timm = pytest.importorskip("timm")
    ours = structured(torchvision.models.VisionTransformer(32, 16, 2, 2, 32, 128, num_classes=5))
    theirs = timm.create_model(
        "vit_base_patch16_224", depth=2, embed_dim=32, num_heads=2, img_size=32, num_classes=5
    ).eval()
    recipe = load_recipe("torchvision-vit-to-timm")
    theirs.load_state_dict(remap_torch(recipe, ours.state_dict()))
    assert_close(ours(image()), theirs(image()))
    assert_comes_back(recipe, ours.state_dict())


def test_swin_to_timm(torchvision: ModuleType) -> None:
    timm = pytest.importorskip("timm")
    ours = structured(
        torchvision.models.SwinTransformer([4, 4], 24, [2, 2, 2, 2], [3, 6, 12, 24], [7, 7], num_classes=5)
    )
    theirs = timm.create_model("swin_tiny_patch4_window7_224", depths=(2, 2, 2, 2), embed_dim=24, num_classes=5).eval()
    recipe = load_recipe("torchvision-swin-to-timm")
    theirs.load_state_dict(remap_torch(recipe, ours.state_dict()))
    assert_close(ours(image(224)), theirs(image(224)))
    assert_comes_back(recipe, ours.state_dict(), lost=8)  # the index buffers of 8 blocks


def test_convnext_to_timm(torchvision: ModuleType) -> None:
    timm = pytest.importorskip("timm")
    block = torchvision.models.convnext.CNBlockConfig
    stages = [block(8, 16, 2), block(16, 32, 1), block(32, 64, 1), block(64, None, 1)]
    ours = structured(torchvision.models.ConvNeXt(stages, num_classes=5))
    theirs = timm.create_model("convnext_tiny", depths=(2, 1, 1, 1), dims=(8, 16, 32, 64), num_classes=5).eval()
    recipe = load_recipe("torchvision-convnext-to-timm")
    theirs.load_state_dict(remap_torch(recipe, ours.state_dict()))
    assert_close(ours(image(64)), theirs(image(64)))
    assert_comes_back(recipe, ours.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "theirs", "recipe", "keys"),
    [
        ("vit_b_16", "vit_base_patch16_224", "torchvision-vit-to-timm", (152, 152)),
        ("swin_t", "swin_tiny_patch4_window7_224", "torchvision-swin-to-timm", (185, 173)),
        ("convnext_tiny", "convnext_tiny", "torchvision-convnext-to-timm", (182, 182)),
    ],
)
def test_full_size_key_for_key(
    torchvision: ModuleType, ours: str, theirs: str, recipe: str, keys: tuple[int, int]
) -> None:
    timm = pytest.importorskip("timm")
    before, after = shapes_of(getattr(torchvision.models, ours)), shapes_of(partial(timm.create_model, theirs))
    found = expand(load_recipe(recipe), before)
    assert not found.problems
    assert {step.target.key: step.target for step in found.steps} == after
    assert (len(before), len(after)) == keys


# ---------------------------------------------------------------------------------------------- resnets


def small_resnet(torchvision: ModuleType, blocks: tuple[int, ...] = (1, 2, 1, 1)) -> nn.Module:
    resnet: nn.Module = structured(
        torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, list(blocks), num_classes=5, width_per_group=8)
    )
    return resnet


def test_resnet_to_hugging_face(torchvision: ModuleType) -> None:
    transformers = pytest.importorskip("transformers")
    ours = structured(torchvision.models.resnet50(num_classes=5))
    config = transformers.ResNetConfig(num_labels=5, downsample_in_bottleneck=False)
    theirs = transformers.ResNetForImageClassification(config).eval()
    recipe = load_recipe("torchvision-resnet-to-hf")
    made = remap_torch(recipe, ours.state_dict())
    assert len(made) == 320
    theirs.load_state_dict(made)
    with torch.no_grad():
        assert_close(ours(image(64)), theirs(image(64)).logits, rel=1e-4)
    assert_comes_back(recipe, ours.state_dict())


def test_resnet_to_detectron2(torchvision: ModuleType) -> None:
    before = shapes_of(torchvision.models.resnet50)

    def script(key: str) -> str:
        """tools/convert-torchvision-to-d2.py of detectron2."""
        if "layer" not in key:
            key = "stem." + key
        for t in [1, 2, 3, 4]:
            key = key.replace(f"layer{t}", f"res{t + 1}")
        for t in [1, 2, 3]:
            key = key.replace(f"bn{t}", f"conv{t}.norm")
        return key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")

    recipe = load_recipe("torchvision-resnet-to-detectron2")
    found = expand(recipe, before)
    assert not found.problems
    assert [step.target.key for step in found.steps] == [script(key) for key in before]
    assert all(step.is_copy for step in found.steps)
    assert check_reverse(recipe, before).is_exact


class IBN(nn.Module):
    """Half instance norm, half batch norm. `stats` makes the first half a batch norm, too, as before the conversion."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.half = planes // 2
        self.IN = nn.InstanceNorm2d(self.half, affine=True)
        self.BN = nn.BatchNorm2d(planes - self.half)
        self.stats: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x[:, : self.half].contiguous(), x[:, self.half :].contiguous()
        if self.stats is None:
            return torch.cat([self.IN(first), self.BN(second)], 1)
        mean, var = (stat[: self.half] for stat in self.stats)
        return torch.cat([functional.batch_norm(first, mean, var, self.IN.weight, self.IN.bias), self.BN(second)], 1)


def test_resnet_to_ibn(torchvision: ModuleType) -> None:
    ours = small_resnet(torchvision)
    theirs = small_resnet(torchvision)
    for name, module in list(theirs.named_modules()):
        if re.fullmatch(r"layer[123]\.\d+", name):
            module.bn1 = IBN(module.bn1.num_features)
    recipe = recipe_of(["resnet-to-ibn", "fc.{k**} -> !"])
    made = remap_torch(recipe, ours.state_dict())
    missing, unexpected = theirs.load_state_dict(made, strict=False)
    assert (missing, unexpected) == (["fc.weight", "fc.bias"], [])
    theirs.fc = ours.fc
    half = ours.layer2[0].bn1.num_features // 2
    assert torch.equal(made["layer2.0.bn1.IN.weight"], ours.layer2[0].bn1.weight[:half])
    assert torch.equal(made["layer2.0.bn1.BN.running_var"], ours.layer2[0].bn1.running_var[half:])
    with torch.no_grad():
        assert not torch.allclose(ours(image()), theirs.eval()(image()), rtol=1e-3)
    for name, module in theirs.named_modules():
        if isinstance(module, IBN):
            source = ours.get_submodule(name)
            module.stats = (source.running_mean, source.running_var)
    assert_close(ours(image()), theirs(image()))  # with the old statistics it is the old network


def test_resnet50_gains_26_keys_as_ibn(torchvision: ModuleType) -> None:
    found = expand(load_recipe("resnet-to-ibn"), shapes_of(torchvision.models.resnet50))
    assert not found.problems
    assert len(found.steps) == 346
    keys = {step.target.key for step in found.steps}
    assert sum(key.endswith(".IN.weight") for key in keys) == 13
    assert "bn1.weight" in keys
    assert "layer4.0.bn1.weight" in keys


REID = """
ckptool = 1
source.select = "auto"
rules = '''
?module.encoder_q.      ->          # a MoCo file; a torchvision file passes through
?module.encoder_k.{k**} -> !
?module.queue           -> !
?module.queue_ptr       -> !
---
fc.{k**} -> !
layer{s=1..3}.{b}.bn1.{p=weight|bias}              -> layer{s}.{b}.bn1.IN.{p}, layer{s}.{b}.bn1.BN.{p} | (i + n) -> i, n
layer{s=1..3}.{b}.bn1.{p=running_mean|running_var} -> layer{s}.{b}.bn1.BN.{p}                          | (_ + n) -> n
?layer{s=1..3}.{b}.bn1.num_batches_tracked         -> layer{s}.{b}.bn1.BN.num_batches_tracked
---
{k**} -> base.{k**}
'''
init."classifier.weight" = "normal(0.001)"
freeze = ["base.*", "bottleneck.bias"]
expect.missing = ["base.fc.*", "bottleneck.*", "classifier.*", "*.num_batches_tracked"]
"""


@pytest.mark.parametrize("moco", [False, True])
def test_a_person_reidentification_baseline(torchvision: ModuleType, moco: bool, tmp_path: Path) -> None:
    path = tmp_path / "ibn.toml"
    path.write_text(REID)
    before = shapes_of(torchvision.models.resnet50)
    if moco:
        rows = [(f"module.encoder_{x}.{key}", spec) for x in "qk" for key, spec in before.items()]
        before = {key: TensorSpec(key, spec.dtype, spec.shape) for key, spec in rows}
        before |= specs([("module.queue", (128, 65536)), ("module.queue_ptr", (1,))])
    target = specs([("classifier.weight", (751, 2048))])
    found = expand(load_recipe(path), before, targets=target)
    assert not found.problems
    assert len(found.steps) == 344 + 1  # 346 without fc, and the classifier
    assert {step.target.key.split(".")[0] for step in found.steps} == {"base", "classifier"}
    assert len(found.dropped) == 2 + moco * 322  # fc; and of a MoCo file the key encoder and the queue


def test_counters_of_a_legacy_resnet18(torchvision: ModuleType) -> None:
    model = structured(torchvision.models.resnet18(num_classes=5))
    legacy = {key: tensor for key, tensor in model.state_dict().items() if "num_batches" not in key}
    assert len(legacy) == 102
    made = remap_torch(load_recipe("batchnorm-counters"), legacy)
    assert len(made) == 122
    assert made["bn1.num_batches_tracked"].dtype == torch.int64
    assert made["bn1.num_batches_tracked"].shape == ()
    other = torchvision.models.resnet18(num_classes=5)
    other.load_state_dict(made)
    assert torch.equal(other.eval()(image()), model(image()))
    assert_comes_back(load_recipe("batchnorm-counters"), legacy)


def test_legacy_densenet_keys(torchvision: ModuleType) -> None:
    now = {key: spec for key, spec in shapes_of(torchvision.models.densenet121).items() if "num_batches" not in key}
    legacy = {re.sub(r"(denselayer\d+\.(?:norm|relu|conv))(\d)", r"\1.\2", key): spec for key, spec in now.items()}
    recipe = load_recipe("densenet-legacy")
    found = expand(recipe, {key: TensorSpec(key, spec.dtype, spec.shape) for key, spec in legacy.items()})
    assert not found.problems
    assert {step.target.key: step.target for step in found.steps} == now
    assert len(now) == 606
    before = {key: TensorSpec(key, spec.dtype, spec.shape) for key, spec in legacy.items()}
    assert check_reverse(recipe, before).is_exact


def test_rgb_to_bgr(torchvision: ModuleType) -> None:
    rgb, bgr = small_resnet(torchvision), small_resnet(torchvision)
    recipe = parse_recipe(["conv1.weight -> conv1.weight | o (r + g + b) h w -> o (b + g + r) h w"])
    bgr.load_state_dict(remap_torch(recipe, rgb.state_dict()))
    assert_close(rgb(image()), bgr(image().flip(1)))
    assert_comes_back(recipe, rgb.state_dict())


def test_batch_norm_epsilon_moves_into_the_variance() -> None:
    norm = structured(nn.BatchNorm2d(8, eps=1e-3))
    recipe = parse_recipe(["running_var -> running_var | = $1 + 1e-3 <= $1 - 1e-3"])
    frozen = nn.BatchNorm2d(8, eps=0).eval()
    frozen.load_state_dict(remap_torch(recipe, norm.state_dict()))
    x = torch.randn(2, 8, 4, 4)
    assert_close(norm(x), frozen(x))


# ---------------------------------------------------------------------------------------------- wrappers


def test_wrappers_of_torch_itself() -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.se_module = nn.Linear(3, 3)
            self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))

    plain = Net().state_dict()
    nestings = []
    for order in ("compile data", "data compile", "data", "inner data"):
        model: Any = Net()
        if "inner" in order:
            model.body[0] = torch.compile(checkpoint_wrapper(model.body[0]))
            order = order.replace("inner ", "")
        for wrapper in order.split():
            model = torch.compile(model) if wrapper == "compile" else nn.DataParallel(model)
        nestings.append(list(model.state_dict()))
    nestings.append([f"module._fsdp_wrapped_module.{key}" for key in plain])
    assert len({keys[0] for keys in nestings}) == 4
    for keys in nestings:
        found = expand(load_recipe("strip-wrappers"), specs([(key, ()) for key in keys]))
        assert [step.target.key for step in found.steps] == list(plain)
        assert not found.problems


def test_lightning_to_plain() -> None:
    rules = ["model. ->", "loss_fn.{k**} -> !"]
    found = expand(parse_recipe(rules), specs([("model.conv.weight", (3,)), ("loss_fn.weight", (2,))]))
    assert [step.target.key for step in found.steps] == ["conv.weight"]


# ---------------------------------------------------------------------------------------------- torch alone


@pytest.mark.parametrize("build", [lambda: nn.Linear(6, 4), lambda: nn.Conv2d(3, 4, 3), lambda: nn.Conv1d(3, 4, 2)])
def test_weight_norm(build: Any) -> None:
    old = nn.Sequential(nn.utils.weight_norm(build()))
    new = nn.Sequential(nn.utils.parametrizations.weight_norm(build()))
    structured(old)
    recipe = load_recipe("weight-norm-to-parametrizations")
    made = remap_torch(recipe, old.state_dict())
    new.load_state_dict(made)
    plain = nn.Sequential(build())
    plain.load_state_dict(remap_torch(load_recipe("weight-norm-fuse"), old.state_dict()))
    same = nn.Sequential(build())
    same.load_state_dict(remap_torch(load_recipe("weight-norm-fuse"), made))
    x = torch.randn(2, 6) if isinstance(plain[0], nn.Linear) else torch.randn(2, 3, *[5] * (plain[0].weight.dim() - 2))
    assert torch.equal(old(x), new(x))
    assert_close(old(x), plain(x))
    assert torch.equal(plain(x), same(x))
    assert_comes_back(recipe, old.state_dict())


def test_swin_merging_is_unfold() -> None:
    """Swin concatenates the four neighbours of each patch; mmdetection lets nn.Unfold do it, in another order."""
    shapes = {"reduction.weight": (16, 32), "norm.weight": (32,), "norm.bias": (32,)}
    state = {f"layers.0.downsample.{name}": torch.randn(shape) for name, shape in shapes.items()}
    recipe = load_recipe("swin-merging-to-unfold")
    made = remap_torch(recipe, state)
    x = torch.randn(2, 8, 6, 6)  # n c h w
    rows = x.permute(0, 2, 3, 1)
    merged = torch.cat([rows[:, 0::2, 0::2], rows[:, 1::2, 0::2], rows[:, 0::2, 1::2], rows[:, 1::2, 1::2]], -1)
    unfolded = functional.unfold(x, 2, stride=2).transpose(1, 2)

    def layer(weights: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        norm = [weights[f"layers.0.downsample.norm.{p}"] for p in ("weight", "bias")]
        return functional.linear(
            functional.layer_norm(inputs, (32,), *norm), weights["layers.0.downsample.reduction.weight"]
        )

    assert_close(layer(state, merged).reshape(2, 9, 16), layer(made, unfolded))
    assert_comes_back(recipe, state)


def test_background_row_and_vocabulary() -> None:
    head = torch.randn(81, 8)
    state = {"cls.weight": head, "embed.weight": torch.randn(50, 8)}
    rules = ["cls.weight -> cls.weight | (bg + n) i -> (n + bg) i", "embed.weight -> embed.weight | v d -> (v + 14) d"]
    recipe = parse_recipe(rules)
    made = remap_torch(recipe, state, vars={"bg": 1})
    x = torch.randn(3, 8)
    assert torch.equal((x @ head.T).roll(-1, 1), x @ made["cls.weight"].T)
    assert made["embed.weight"].shape == (64, 8)
    assert torch.equal(made["embed.weight"][:50], state["embed.weight"])
    assert_comes_back(recipe, state, vars={"bg": 1})
    dropped = remap_torch(parse_recipe(["w -> w | (1 + n) i -> n i"]), {"w": head})
    assert torch.equal(dropped["w"], head[1:])


def test_queries_keys_and_values_of_different_files() -> None:
    q, k, v = (np.random.default_rng(at).standard_normal((4, 4)).astype("f4") for at in range(3))
    files = [{"l.0.q.weight": q, "x": q[0]}, {"l.0.k.weight": k, "l.0.v.weight": v}]
    rule = "{m**}.q.weight, {m**}.k.weight, {m**}.v.weight -> {m**}.qkv.weight | a i, b i, c i -> (a + b + c) i"
    made = run(expand(parse_recipe([rule]), [array_specs(file) for file in files]), *files)
    assert list(made) == ["l.0.qkv.weight", "x"]
    assert np.array_equal(made["l.0.qkv.weight"], np.concatenate([q, k, v]))


# ---------------------------------------------------------------------------------------------- llama

HEADS, KV_HEADS, WIDTH, LAYERS, VOCABULARY = 4, 2, 32, 2, 40


def meta_llama(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "tok_embeddings.weight": (VOCABULARY, WIDTH),
        "norm.weight": (WIDTH,),
        "output.weight": (VOCABULARY, WIDTH),
    }
    small = WIDTH * KV_HEADS // HEADS
    for layer in range(LAYERS):
        for name, shape in {
            "attention.wq": (WIDTH, WIDTH), "attention.wk": (small, WIDTH), "attention.wv": (small, WIDTH),
            "attention.wo": (WIDTH, WIDTH), "feed_forward.w1": (48, WIDTH), "feed_forward.w2": (WIDTH, 48),
            "feed_forward.w3": (48, WIDTH), "attention_norm": (WIDTH,), "ffn_norm": (WIDTH,),
        }.items():  # fmt: skip
            shapes[f"layers.{layer}.{name}.weight"] = shape
    state = {key: torch.randn(shape, generator=generator) / WIDTH**0.5 for key, shape in shapes.items()}
    return {key: tensor * WIDTH**0.25 + ("norm" in key) for key, tensor in state.items()} | {
        "rope.freqs": torch.ones(4)
    }


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    k, v = (x.repeat_interleave(HEADS // KV_HEADS, 2) for x in (k, v))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)


def angles(length: int, dim: int) -> torch.Tensor:
    return torch.outer(torch.arange(length), 1.0 / 10000 ** (torch.arange(0, dim, 2) / dim))


def run_meta(w: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """Llama as Meta wrote it: neighbouring numbers are turned as complex ones."""
    x, dim = w["tok_embeddings.weight"][tokens], WIDTH // HEADS
    turn = torch.polar(torch.ones(1), angles(tokens.shape[1], dim))

    def rope(h: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(h.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * turn[None, :, None]).flatten(-2)

    for layer in range(LAYERS):
        p = {key.split(".", 2)[2]: tensor for key, tensor in w.items() if key.startswith(f"layers.{layer}.")}
        h = rms(x, p["attention_norm.weight"])
        q, k, v = ((h @ p[f"attention.w{n}.weight"].T).unflatten(-1, (-1, dim)) for n in "qkv")
        x = x + attend(rope(q), rope(k), v) @ p["attention.wo.weight"].T
        h = rms(x, p["ffn_norm.weight"])
        gate = functional.silu(h @ p["feed_forward.w1.weight"].T) * (h @ p["feed_forward.w3.weight"].T)
        x = x + gate @ p["feed_forward.w2.weight"].T
    return rms(x, w["norm.weight"]) @ w["output.weight"].T


def run_hugging_face(w: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """The same as Hugging Face writes it: the first half of a head is turned against the second."""
    x, dim = w["model.embed_tokens.weight"][tokens], WIDTH // HEADS
    turn = torch.cat([angles(tokens.shape[1], dim)] * 2, -1)[None, :, None]

    def rope(h: torch.Tensor) -> torch.Tensor:
        first, second = h.chunk(2, -1)
        return h * turn.cos() + torch.cat([-second, first], -1) * turn.sin()

    for layer in range(LAYERS):
        p = {key.split(".", 3)[3]: tensor for key, tensor in w.items() if key.startswith(f"model.layers.{layer}.")}
        h = rms(x, p["input_layernorm.weight"])
        q, k, v = ((h @ p[f"self_attn.{n}_proj.weight"].T).unflatten(-1, (-1, dim)) for n in "qkv")
        x = x + attend(rope(q), rope(k), v) @ p["self_attn.o_proj.weight"].T
        h = rms(x, p["post_attention_layernorm.weight"])
        gate = functional.silu(h @ p["mlp.gate_proj.weight"].T) * (h @ p["mlp.up_proj.weight"].T)
        x = x + gate @ p["mlp.down_proj.weight"].T
    return rms(x, w["model.norm.weight"]) @ w["lm_head.weight"].T


SIZES = {"h": HEADS, "kv": KV_HEADS}


def to_ranks(state: dict[str, torch.Tensor], ranks: int) -> list[dict[str, np.ndarray[Any, Any]]]:
    """What Meta's training would have saved on several ranks."""
    axis = {"wo": 1, "w2": 1, "wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "tok_embeddings": 0, "output": 0}
    files: list[dict[str, np.ndarray[Any, Any]]] = [{} for _ in range(ranks)]
    for key, tensor in state.items():
        at = axis.get(key.split(".")[-2])
        parts = [tensor] * ranks if at is None else tensor.chunk(ranks, at)
        for file, part in zip(files, parts, strict=True):
            file[key] = part.contiguous().numpy()
    return files


@pytest.mark.parametrize("ranks", [1, 2])
def test_meta_llama_to_hugging_face(ranks: int) -> None:
    state, recipe = meta_llama(), load_recipe("llama-meta-to-hf")
    files = to_ranks(state, ranks)
    prefixes = [f"rank{rank}" for rank in range(ranks)]
    found = expand(recipe, [array_specs(file) for file in files], prefixes=prefixes, vars=SIZES)
    made = {key: torch.from_numpy(np.array(array)) for key, array in run(found, *files).items()}
    tokens = torch.randint(VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(3))
    assert_close(run_meta(state, tokens), run_hugging_face(made, tokens))
    wrong = dict(made, **{"model.layers.0.self_attn.q_proj.weight": state["layers.0.attention.wq.weight"]})
    assert not torch.allclose(run_meta(state, tokens), run_hugging_face(wrong, tokens), rtol=0.01)


def test_meta_llama_in_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    state = meta_llama()
    prefixed = {f"rank0.{key}": tensor for key, tensor in state.items()}
    made = remap_torch(load_recipe("llama-meta-to-hf"), prefixed, vars=SIZES)
    tokens = torch.randint(VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(3))
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=16, rms_norm_eps=1e-6,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    model.load_state_dict(made)
    with torch.no_grad():
        assert_close(run_meta(state, tokens), model(tokens).logits)


# ---------------------------------------------------------------------------------------------- Hugging Face


def test_gpt2_to_gptbigcode() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 50, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 4,
             "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip
    ours = structured(transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)))
    config = transformers.GPTBigCodeConfig(**sizes, multi_query=False, activation_function="gelu_new")
    theirs = transformers.GPTBigCodeForCausalLM(config).eval()
    recipe, state = load_recipe("gpt2-to-gptbigcode"), ours.state_dict()
    theirs.load_state_dict(remap_torch(recipe, state, vars={"h": 4}))
    tokens = torch.randint(50, (2, 9))
    with torch.no_grad():
        assert_close(ours(tokens).logits, theirs(tokens).logits)
    assert_comes_back(recipe, state, vars={"h": 4})


def test_bert_gamma_and_beta() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20
    )
    ours, theirs = structured(transformers.BertModel(config)), transformers.BertModel(config).eval()
    legacy = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for key, tensor in ours.state_dict().items()
    }
    recipe = load_recipe("bert-gamma-beta")
    made = remap_torch(recipe, {**legacy, "layer_scale.gamma": torch.ones(3)})
    assert "layer_scale.gamma" in made
    made.pop("layer_scale.gamma")
    theirs.load_state_dict(made)
    tokens = torch.randint(30, (2, 7))
    with torch.no_grad():
        assert torch.equal(ours(tokens).last_hidden_state, theirs(tokens).last_hidden_state)
    assert_comes_back(recipe, legacy)


def test_mixtral_experts(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    load_file = pytest.importorskip("safetensors.torch").load_file
    config = transformers.MixtralConfig(
        vocab_size=30, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=11,
    )  # fmt: skip
    model = structured(transformers.MixtralForCausalLM(config))
    model.save_pretrained(tmp_path)  # transformers writes one tensor per expert
    saved, fused = load_file(tmp_path / "model.safetensors"), model.state_dict()
    recipe = load_recipe("mixtral-fuse-experts")
    made = remap_torch(recipe, saved)
    assert set(made) == set(fused)
    assert all(torch.equal(made[key], fused[key]) for key in fused)
    assert_comes_back(recipe, saved)


def test_lora_merges_as_peft_does() -> None:
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    config = transformers.LlamaConfig(
        vocab_size=30, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    lora = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    model = structured(peft.get_peft_model(transformers.LlamaForCausalLM(config), lora))
    made = remap_torch(load_recipe("lora-merge"), model.state_dict(), vars={"alpha": 16, "r": 4})
    merged = model.merge_and_unload().state_dict()
    assert set(made) == set(merged)
    for key, tensor in merged.items():
        assert torch.allclose(made[key], tensor, atol=1e-5), key


def test_open_clip_to_hugging_face(torchvision: ModuleType) -> None:
    transformers, open_clip = pytest.importorskip("transformers"), pytest.importorskip("open_clip")
    ours = open_clip.model.CLIP(
        embed_dim=32,
        vision_cfg={"layers": 2, "width": 64, "patch_size": 8, "image_size": 16, "head_width": 32},
        text_cfg={"context_length": 8, "vocab_size": 30, "width": 32, "heads": 2, "layers": 2},
        quick_gelu=True,
    )
    structured(ours)
    shared = {"num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 32}
    config = transformers.CLIPConfig(
        text_config={"vocab_size": 30, "hidden_size": 32, "intermediate_size": 128, "max_position_embeddings": 8,
                     "bos_token_id": 0, "eos_token_id": 29, **shared},
        vision_config={"hidden_size": 64, "intermediate_size": 256, "image_size": 16, "patch_size": 8, **shared},
        projection_dim=32,
    )  # fmt: skip
    theirs = transformers.CLIPModel(config).eval()
    recipe, state = load_recipe("open_clip-to-hf-clip"), ours.state_dict()
    theirs.load_state_dict(remap_torch(recipe, state))
    tokens = torch.randint(1, 28, (2, 8))
    tokens[:, -1] = 29  # both take the last token, the largest number, as the end of the text
    with torch.no_grad():
        pixels = image(16)
        theirs_out = theirs(input_ids=tokens, pixel_values=pixels)
        norm = partial(functional.normalize, dim=-1)
        assert_close(norm(ours.encode_image(pixels)), theirs_out.image_embeds, rel=2e-5)
        assert_close(norm(ours.encode_text(tokens)), theirs_out.text_embeds, rel=2e-5)
    assert_comes_back(recipe, state)
