"""Vision models: the outputs agree, and the way back is bit-equal.

Those that need timm, transformers, peft or open_clip are skipped where these are not installed. All models are small,
with random weights; nothing is downloaded.
"""

from __future__ import annotations

import copy
import re
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from recipe_harness import assert_close, assert_comes_back, remap_torch, specs, structured
from torch import nn
from torch.nn import functional

from ckptool.core.spec import TensorSpec
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import load_recipe, parse_recipe, recipe_of
from ckptool.recipes.reverse import check_reverse

pytestmark = pytest.mark.filterwarnings("default")  # those of the packages converted between are not ours


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
    back = expand(
        load_recipe("detectron2-resnet-to-torchvision"), {step.target.key: step.target for step in found.steps}
    )
    assert not back.problems
    assert [step.target for step in back.steps] == list(before.values())


class Branches(nn.Module):
    """MGN's: a trunk, and copies of the stages behind it, each trained on its own since."""

    def __init__(self, resnet: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        children = dict(resnet.named_children())
        stem = [children[name] for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2")]
        setattr(self, names[0], nn.Sequential(*stem, children["layer3"][0]))
        for name in names[1:]:
            rest = nn.Sequential(*children["layer3"][1:])
            setattr(self, name, structured(nn.Sequential(copy.deepcopy(rest), copy.deepcopy(children["layer4"]))))
        self.names = names

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        trunk, branch = (getattr(self, name) for name in self.names[:2])
        features: torch.Tensor = branch(trunk(x))
        return features


def features(resnet: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a ResNet gives before it is averaged."""
    for name, child in resnet.named_children():
        x = x if name in ("avgpool", "fc") else child(x)
    return x


@pytest.mark.parametrize(
    ("recipe", "names"),
    [("resnet-to-mgn", ("backbone", "b1", "b2", "b3")), ("resnet-to-mgn-pytorch", ("backone", "p1", "p2", "p3"))],
)
def test_a_resnet_into_all_branches_of_mgn(recipe: str, names: tuple[str, ...], torchvision: ModuleType) -> None:
    resnet = partial(torchvision.models.ResNet, torchvision.models.resnet.BasicBlock, [1, 1, 3, 1], num_classes=5)
    ours, theirs = structured(resnet()), Branches(resnet(), names)
    made = remap_torch(load_recipe(recipe), ours.state_dict())
    theirs.load_state_dict(made)
    for name in names[1:]:
        theirs.names = (names[0], name)
        assert_close(features(ours, image(64)), theirs.eval()(image(64)))
    back = remap_torch(load_recipe("mgn-to-resnet"), made)
    assert all(torch.equal(back[key], value) for key, value in ours.state_dict().items() if not key.startswith("fc."))


def test_a_resnet_into_both_branches_of_abdnet(torchvision: ModuleType) -> None:
    state = small_resnet(torchvision).state_dict()
    made = remap_torch(load_recipe("resnet-to-abdnet"), state)
    assert len(made) == len(state) - 2 + sum(key.startswith("layer4.") for key in state)
    back = remap_torch(load_recipe("abdnet-to-resnet"), made)
    assert back.keys() == state.keys() - {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, state[key]) for key, value in back.items())


@pytest.mark.parametrize("names", [("backbone", "b1", "b2", "b3"), ("backone", "p1", "p2", "p3")])
def test_the_first_branch_of_mgn(names: tuple[str, ...], torchvision: ModuleType) -> None:
    resnet = partial(torchvision.models.ResNet, torchvision.models.resnet.BasicBlock, [1, 1, 3, 1], num_classes=5)
    ours, theirs = Branches(structured(resnet()), names).eval(), resnet().eval()
    made = remap_torch(load_recipe("mgn-to-resnet"), ours.state_dict())
    assert theirs.load_state_dict(made, strict=False) == (["fc.weight", "fc.bias"], [])
    assert_close(ours(image(64)), features(theirs, image(64)))


def test_the_first_branch_of_abdnet(torchvision: ModuleType) -> None:
    trunk, other = small_resnet(torchvision), small_resnet(torchvision)
    state = {
        f"common_branch.backbone1.{n}.{key}": value
        for n, name in ((0, "conv1"), (1, "bn1"), (4, "layer1"))
        for key, value in trunk.get_submodule(name).state_dict().items()
    }
    state |= {
        f"common_branch.backbone2.{n - 2}.{key}": value
        for n in (2, 3)
        for key, value in trunk.get_submodule(f"layer{n}").state_dict().items()
    }
    for number, net in enumerate((trunk, other)):
        branch = {f"branches.{number}.0.backbone.{key}": value for key, value in net.layer4.state_dict().items()}
        state |= branch | {f"branches.{number}.1.classifier.weight": torch.randn(751, 8)}
    theirs = small_resnet(torchvision)
    made = remap_torch(load_recipe("abdnet-to-resnet"), state)
    assert theirs.load_state_dict(made, strict=False) == (["fc.weight", "fc.bias"], [])
    assert_close(features(trunk, image(64)), features(theirs.eval(), image(64)))


def test_the_children_of_a_resnet_by_number(torchvision: ModuleType) -> None:
    ours, theirs = small_resnet(torchvision), small_resnet(torchvision)
    numbered = nn.Sequential(*ours.children())
    recipe = load_recipe("sequential-resnet-to-torchvision")
    theirs.load_state_dict(remap_torch(recipe, numbered.state_dict()))
    assert_close(ours(image(64)), theirs.eval()(image(64)))
    assert_comes_back(recipe, numbered.state_dict())
    headless = nn.Sequential(*list(ours.children())[:-2])
    shapes = ((key, tuple(value.shape)) for key, value in headless.state_dict().items())
    assert not expand(recipe, specs(list(shapes))).problems


def test_the_image_tower_of_clip_to_timm(torchvision: ModuleType) -> None:
    timm = pytest.importorskip("timm")
    open_clip = pytest.importorskip("open_clip.transformer")
    ours = structured(open_clip.VisionTransformer(32, 8, 32, 2, 4, 4.0, output_dim=16))
    theirs = timm.create_model(
        "vit_base_patch16_clip_224", img_size=32, patch_size=8, depth=2, embed_dim=32, num_heads=4, num_classes=16
    ).eval()
    recipe = load_recipe("openai-clip-vit-to-timm")
    made = remap_torch(recipe, ours.state_dict())
    missing, unexpected = theirs.load_state_dict(made, strict=False)
    assert (missing, unexpected) == (["head.bias"], [])
    nn.init.zeros_(theirs.head.bias)
    assert_close(ours(image()), theirs(image()))
    assert_comes_back(recipe, ours.state_dict())


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
