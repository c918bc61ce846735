"""Architectures: the libraries' own models are named, whatever prefix they stand under; look-alikes are not."""

from __future__ import annotations

import gzip
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from console import Run, runner

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.format import Format
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Tensor
from ckptool.facts.architecture import Architecture, Training
from ckptool.facts.registry import facts_of
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import load_recipe
from tests.bench.layouts.outsiders import Layout, layouts

Shapes = Mapping[str, tuple[int, ...]]

TORCHVISION = {
    "resnet18": "resnet18", "resnet34": "resnet34", "resnet50": "resnet50", "resnet101": "resnet101",
    "resnet152": "resnet152", "resnext50_32x4d": "resnext50_32x4d", "resnext101_32x8d": "resnext101_32x8d",
    "resnext101_64x4d": "resnext101_64x4d", "wide_resnet50_2": "wide_resnet50_2", "densenet121": "densenet121",
    "densenet161": "densenet161", "densenet169": "densenet169", "densenet201": "densenet201", "alexnet": "alexnet",
    "vgg11": "vgg11", "vgg13": "vgg13", "vgg16": "vgg16", "vgg19": "vgg19", "vgg11_bn": "vgg11_bn",
    "vgg13_bn": "vgg13_bn", "vgg16_bn": "vgg16_bn", "vgg19_bn": "vgg19_bn", "efficientnet_b0": "efficientnet_b0",
    "efficientnet_b3": "efficientnet_b3", "efficientnet_b7": "efficientnet_b7",
    "efficientnet_v2_s": "efficientnet_v2_s", "efficientnet_v2_m": "efficientnet_v2_m", "mobilenet_v2": "mobilenet_v2",
    "mobilenet_v3_small": "mobilenet_v3_small", "mobilenet_v3_large": "mobilenet_v3_large",
    "convnext_tiny": "convnext_tiny", "convnext_base": "convnext_base", "swin_t": "swin_tiny", "swin_b": "swin_base",
    "swin_v2_t": "swinv2_tiny", "vit_b_16": "vit_base_patch16", "vit_l_32": "vit_large_patch32",
}  # fmt: skip
STRANGERS = ["squeezenet1_0", "shufflenet_v2_x1_0", "mnasnet1_0", "maxvit_t"]

TIMM = {
    "resnet50": "resnet50 (torchvision names); 1,000 classes",
    "resnet50d": "resnet50d (timm names); 1,000 classes",
    "seresnet50": "resnet50 (torchvision names), squeeze and excitation in layer1 to layer4: SE; 1,000 classes",
    "legacy_seresnet50": "se_resnet50 (pretrainedmodels names); 1,000 classes",
    "vgg16": "vgg16 (torchvision names), timm's head; 1,000 classes",
    "efficientnet_b0": "efficientnet_b0 (timm names); 1,000 classes",
    "mobilenetv2_100": "mobilenetv2 (timm names); 1,000 classes",
    "mobilenetv3_large_100": "mobilenetv3_large (timm names); 1,000 classes",
    "mobilenetv3_small_100": "mobilenetv3_small (timm names); 1,000 classes",
    "convnext_tiny": "convnext_tiny (timm names); 1,000 classes",
    "convnextv2_tiny": "convnextv2_tiny (timm names); 1,000 classes",
    "swin_tiny_patch4_window7_224":
        "swin_tiny (Swin's own names), timm's numbers of the downsamplings; 1,000 classes",
    "swinv2_tiny_window8_256": "swinv2_tiny (Swin's own names), timm's numbers of the downsamplings; 1,000 classes",
    "vit_tiny_patch16_224": "vit_tiny_patch16 (timm names); 1,000 classes",
    "vit_large_patch16_224": "vit_large_patch16 (timm names); 1,000 classes",
    "deit_base_distilled_patch16_224":
        "vit_base_patch16 (timm names), a distillation token: distilled DeiT; 1,000 classes",
    "vit_small_patch14_dinov2": "DINOv2 vit_small_patch14 (timm names); no classifier",
    "vit_base_patch14_reg4_dinov2": "DINOv2 vit_base_patch14 (timm names), register tokens; no classifier",
    "beit_base_patch16_224": "beit_base_patch16 (timm names); 1,000 classes",
    "mixer_b16_224": None,
    "regnety_004": "regnety_004 (timm names); 1,000 classes",
    "regnetx_002": "regnetx_002 (timm names); 1,000 classes",
    "resnest26d": "resnest26 (ResNeSt's own names); 1,000 classes",
    "resnext50d_32x4d": "resnext50d_32x4d (timm names); 1,000 classes",
    "res2net50_26w_4s": "res2net50 (timm names); 1,000 classes",
    "inception_v3": "inception_v3 (torchvision names); 1,000 classes",
    "inception_v4": "inception_v4 (timm names); 1,000 classes",
    "tf_efficientnetv2_b0": "efficientnet_v2_b0 (timm names); 1,000 classes",
    "efficientnetv2_rw_s": "efficientnetv2_rw_s (timm names); 1,000 classes",
    "deit3_small_patch16_224": "DeiT III vit_small_patch16 (timm names); 1,000 classes",
    "cait_xxs24_224": "cait_xxs24 (timm names); 1,000 classes",
    "eva02_small_patch14_224": None,
    "eva02_base_patch14_224": None,
    "samvit_base_patch16": None,
}  # fmt: skip

TRANSFORMERS = {
    ("ResNetForImageClassification", "ResNetConfig"): 'resnet50 (transformers names) under "resnet"; 2 classes',
    ("ConvNextModel", "ConvNextConfig"): "convnext_tiny (transformers names); no classifier",
    ("SwinModel", "SwinConfig"): "swin_tiny (transformers names); no classifier",
    ("ViTModel", "ViTConfig"): "vit_base_patch16 (transformers names); no classifier",
    (
        "DeiTModel",
        "DeiTConfig",
    ): "vit_base_patch16 (transformers names), a distillation token: distilled DeiT; no classifier",
    ("Dinov2Model", "Dinov2Config"): "DINOv2 vit_base_patch14 (transformers names); no classifier",
    ("ViTMAEForPreTraining", "ViTMAEConfig"): 'vit_base_patch16 (transformers names) under "vit"; MAE\'s decoder',
    ("CLIPModel", "CLIPConfig"): "CLIP ViT-B/32 (transformers names)",
    ("SamModel", "SamConfig"): "SAM ViT-B (transformers names)",
    ("BertModel", "BertConfig"): "bert-base (transformers names)",
    ("DistilBertModel", "DistilBertConfig"): "distilbert-base (transformers names)",
    ("GPT2LMHeadModel", "GPT2Config"): 'gpt2 (transformers names) under "transformer"',
    ("LlamaForCausalLM", "LlamaConfig"): 'llama layout, 32 layers of width 4096 (transformers names) under "model"',
    ("Qwen2ForCausalLM", "Qwen2Config"): 'qwen2 layout, 32 layers of width 4096 (transformers names) under "model"',
    ("T5Model", "T5Config"): "t5-small (transformers names)",
    ("T5EncoderModel", "T5Config"): "t5-small (transformers names), the encoder alone",
    ("WhisperModel", "WhisperConfig"): "whisper-tiny (transformers names)",
    ("OPTModel", "OPTConfig"): None,
    ("BartModel", "BartConfig"): None,
    ("SegformerModel", "SegformerConfig"): None,
}


def shapes_of(make: Callable[[], Any]) -> Shapes:
    """The state dict of a model that is built on the meta device."""
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in make().state_dict().items()}


def opened(shapes: Shapes) -> Checkpoint:
    tensors = {key: Tensor(TensorSpec(key, "float32", shape)) for key, shape in shapes.items()}
    return Checkpoint(Path("a.pth"), Format("torch zip"), tensors)


def named(shapes: Shapes) -> list[Architecture]:
    return [fact for fact in facts_of(opened(shapes)) if isinstance(fact, Architecture)]


def texts(shapes: Shapes) -> list[str]:
    return [fact.text for fact in named(shapes)]


# ---------------------------------------------------------------------------------------------- the libraries' models


@pytest.mark.parametrize("name", TORCHVISION)
def test_models_of_torchvision(name: str, torchvision: ModuleType) -> None:
    shapes = shapes_of(lambda: getattr(torchvision.models, name)(weights=None))
    assert texts(shapes) == [f"{TORCHVISION[name]} (torchvision names); 1,000 classes"]
    moved = {f"model.trunk.{key}": shape for key, shape in shapes.items()}
    assert texts(moved) == [f'{TORCHVISION[name]} (torchvision names) under "model.trunk"; 1,000 classes']


@pytest.mark.parametrize("name", STRANGERS)
def test_other_models_of_torchvision_have_no_name(name: str, torchvision: ModuleType) -> None:
    assert texts(shapes_of(lambda: getattr(torchvision.models, name)(weights=None))) == []


@pytest.mark.parametrize("name", TIMM)
def test_models_of_timm(name: str, torchvision: ModuleType) -> None:
    timm = pytest.importorskip("timm")
    expected = TIMM[name]
    assert texts(shapes_of(lambda: timm.create_model(name))) == ([] if expected is None else [expected])


@pytest.mark.parametrize("pair", TRANSFORMERS, ids=lambda pair: pair[0])
def test_models_of_transformers(pair: tuple[str, str], torchvision: ModuleType) -> None:
    library = pytest.importorskip("transformers")
    model, config = pair
    expected = TRANSFORMERS[pair]
    found = texts(shapes_of(lambda: getattr(library, model)(getattr(library, config)())))
    assert found == ([] if expected is None else [expected])


@pytest.mark.parametrize(("name", "model"), [("ViT-B-32", "ViT-B/32"), ("ViT-L-14", "ViT-L/14"), ("RN50", "RN50")])
def test_models_of_open_clip(name: str, model: str, torchvision: ModuleType) -> None:
    open_clip = pytest.importorskip("open_clip")
    from open_clip.model import CLIP

    shapes = shapes_of(lambda: CLIP(**open_clip.get_model_config(name)))
    assert texts(shapes) == [f"CLIP {model} (OpenAI names)"]


def test_names_of_detectron2(torchvision: ModuleType) -> None:
    shapes = shapes_of(lambda: torchvision.models.resnet50(weights=None))
    specs = {key: TensorSpec(key, "float32", shape) for key, shape in shapes.items()}
    made = expand(load_recipe("torchvision-resnet-to-detectron2"), specs)
    d2 = {f"backbone.bottom_up.{step.target.key}": step.target.shape for step in made.steps}
    (fact,) = named(d2)
    assert (fact.plain, fact.prefixes) == ("resnet50 (detectron2 names)", ("backbone.bottom_up.",))


PUBLISHED = {
    "efficientnet_pytorch efficientnet-b0": "efficientnet_b0 (efficientnet_pytorch names); 1,000 classes",
    "segment_anything vit_b": "SAM ViT-B (SAM's own names)",
    "whisper tiny": "whisper-tiny (OpenAI names)",
    "diffusers sd1": "UNet of Stable Diffusion 1 (diffusers names)",
    "diffusers sdxl": "UNet of SDXL (diffusers names)",
    "ultralytics yolov8n.yaml": "YOLOv8n (ultralytics names); 80 classes",
    "ultralytics yolov5nu.yaml": "YOLOv5nu (ultralytics names); 80 classes",
    "ultralytics yolo11n.yaml": "YOLO11n (ultralytics names); 80 classes",
    "yolov5 s": "YOLOv5s (ultralytics names)",
    "pretrainedmodels se_resnet50": "se_resnet50 (pretrainedmodels names); 1,000 classes",
    "torchreid osnet_x1_0": "osnet_x1_0 (torchreid names); 751 classes",
    "torchreid osnet_ibn_x1_0": "osnet_x1_0 (torchreid names), instance norm behind conv2: IBN; 751 classes",
    "torchreid osnet_ain_x1_0": "osnet_ain_x1_0 (torchreid names); 751 classes",
    "torchreid resnet50_ibn_b":
        "resnet50 (torchvision names), instance norm behind layer1 to layer2: IBN-b, "
        "a stem norm without running statistics; 751 classes",
    "torchreid pcb_p6": "resnet50 (torchvision names); PCB: a classifier for each part, 751 classes",
    "torchreid mlfn": "mlfn (torchreid names); 751 classes",
    "torchreid hacnn": "hacnn (torchreid names); 751 classes",
    "torchreid mudeep": "mudeep (torchreid names); 751 classes",
    "torchreid senet154": "senet154 (pretrainedmodels names); 751 classes",
    "torchreid se_resnet50_fc512": "se_resnet50 (pretrainedmodels names); 751 classes",
    "torchreid inceptionresnetv2": "inception_resnet_v2 (timm names); 751 classes",
}  # fmt: skip
"""Models of packages that are not among the requirements: `data/architectures.json.gz` has their keys and shapes."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_models_of_other_packages(name: str) -> None:
    recorded = json.loads(gzip.decompress((Path(__file__).parent / "data/architectures.json.gz").read_bytes()))
    assert recorded.keys() == PUBLISHED.keys()
    shapes = {key: tuple(shape) for key, shape in recorded[name].items()}
    assert texts(shapes) == [PUBLISHED[name]]


def test_layouts_of_llama_and_stable_diffusion() -> None:
    block = {"attention.wq": (64, 64), "attention.wk": (16, 64), "feed_forward.w1": (128, 64), "attention_norm": (64,)}
    llama = {"tok_embeddings.weight": (100, 64), "norm.weight": (64,), "output.weight": (100, 64)}
    llama |= {f"layers.{n}.{name}.weight": shape for n in range(3) for name, shape in block.items()}
    assert texts(llama) == ["llama layout, 3 layers of width 64 (Meta names)"]
    unet = {
        "input_blocks.0.0.weight": (320, 4, 3, 3), "time_embed.0.weight": (1280, 320), "out.2.weight": (4, 320, 3, 3),
        "middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 768),
    }  # fmt: skip
    whole = {f"model.diffusion_model.{key}": shape for key, shape in unet.items()}
    expected = 'UNet of Stable Diffusion 1 (LDM names) under "model.diffusion_model"'
    assert texts(whole) == [expected]


@pytest.mark.parametrize("layout", list(layouts()), ids=lambda layout: layout.name)
def test_layouts_of_code_bases(layout: Layout) -> None:
    told = " ".join(fact.text for fact in facts_of(opened(layout.shapes))).replace(",", "").lower()
    assert [word for word in layout.says if word.lower() not in told] == []


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
@pytest.mark.parametrize("cut", [None, -1, -2])
def test_the_children_of_a_resnet_in_a_sequential(name: str, cut: int | None, torchvision: ModuleType) -> None:
    shapes = shapes_of(lambda: torch.nn.Sequential(*list(getattr(torchvision.models, name)().children())[:cut]))
    (fact,) = named({f"base.{key}": shape for key, shape in shapes.items()})
    assert (fact.model, fact.prefixes) == (name, ("base.",))
    assert (fact.head is not None and fact.head.text == "1,000 classes") is (cut is None)


# ---------------------------------------------------------------------------------------------- what differs


@pytest.fixture
def resnet50(torchvision: ModuleType) -> dict[str, tuple[int, ...]]:
    return dict(shapes_of(lambda: torchvision.models.resnet50(weights=None)))


def ibn(shapes: Shapes, layers: str = "123") -> dict[str, tuple[int, ...]]:
    """With the first norm of each block of some layers split, as IBN-a has it."""
    found: dict[str, tuple[int, ...]] = {}
    for key, shape in shapes.items():
        if ".bn1." in key and key[5] in layers and key.startswith("layer"):
            last, half = key.rpartition(".")[2], tuple(size // 2 for size in shape)
            before = key.removesuffix(last)
            if last in ("weight", "bias"):
                found[f"{before}IN.{last}"] = half
            found[f"{before}BN.{last}"] = half
        else:
            found[key] = shape
    return found


def reid(shapes: Shapes, *, neck: bool = True) -> dict[str, tuple[int, ...]]:
    """A re-identification baseline around a backbone."""
    found = {f"base.{key}": shape for key, shape in shapes.items() if not key.startswith("fc.")}
    if neck:
        found |= {f"bottleneck.{last}": (2048,) for last in ("weight", "bias", "running_mean", "running_var")}
        return found | {"classifier.weight": (751, 2048)}
    return found | {"classifier.weight": (751, 2048), "classifier.bias": (751,)}


def test_ibn_and_necks(resnet50: Shapes) -> None:
    split = "first norm of layer1 to layer3 split into IN and BN: IBN-a"
    plain = "resnet50 (torchvision names)"
    assert texts(ibn(resnet50)) == [f"{plain}, {split}; 1,000 classes"]
    assert texts(reid(ibn(resnet50))) == [f'{plain} under "base", {split}; neck: bnneck, 751 classes, no bias']
    assert texts(reid(resnet50, neck=False)) == [f'{plain} under "base"; 751 classes']
    only = "first norm of layer1 split into IN and BN: IBN-a"
    assert texts(ibn(resnet50, "1")) == [f"{plain}, {only}; 1,000 classes"]
    last = {f"layer{n}.2.IN.{part}": (256 * n,) for n in (1, 2) for part in ("weight", "bias")}
    assert "instance norm behind layer1 to layer2: IBN-b" in texts({**resnet50, **last})[0]


def test_what_is_missing_or_of_another_width_is_said(resnet50: Shapes) -> None:
    cut = {key: shape for key, shape in resnet50.items() if not key.startswith(("layer4.", "fc."))}
    assert texts(cut) == ["resnet50 (torchvision names), without layer4; no classifier"]
    grey = {**resnet50, "conv1.weight": (64, 1, 7, 7)}
    assert texts(grey) == ["resnet50 (torchvision names), 1 input channel; 1,000 classes"]


def test_look_alikes_have_no_name(resnet50: Shapes) -> None:
    for change in (
        {"layer1.0.conv1.weight": (64, 32, 1, 1)},  # does not fit the stem
        {"conv1.weight": (64, 3)},
        {"bn1.weight": (32,)},
    ):
        assert texts({**resnet50, **change}) == []
    assert texts({key: shape for key, shape in resnet50.items() if not key.startswith("bn1.")}) == []
    assert texts({"conv1.weight": (64, 3, 7, 7), "fc.weight": (10, 64)}) == []


def test_what_training_saved(resnet50: Shapes) -> None:
    moco = {f"module.encoder_{side}.{key}": shape for side in "qk" for key, shape in resnet50.items()}
    facts = facts_of(opened({**moco, "module.queue": (128, 65536)}))
    (fact,) = [fact for fact in facts if isinstance(fact, Training)]
    assert "MoCo" in fact.text
    assert "65,536" in fact.text
    assert "module.encoder_q.{k**} -> {k}" in fact.hint
    (model,) = [fact for fact in facts if isinstance(fact, Architecture)]
    assert model.prefixes == ("module.encoder_q.", "module.encoder_k.")


# ---------------------------------------------------------------------------------------------- on the command line


@pytest.fixture
def cli(fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(fixtures, monkeypatch, capsys)


def test_a_diff_begins_with_what_differs_and_folds_it(cli: Run, fixtures: Path) -> None:
    net = ["--into", "models.py:ResNet18", "--model-arg", "ibn=true", "-r", "resnet-to-ibn"]
    assert cli("transplant", "resnet18.pth", *net, "-o", "ibn.pth")[0] == 0
    code, out, _ = cli("diff", "resnet18.pth", "ibn.pth", columns=200)
    split = "first norm of layer1 to layer3 split into IN and BN: IBN-a"
    assert code == 1
    assert out.splitlines()[1] == f"models: both are resnet18 (torchvision names); the new one has {split}"
    rows = [line for line in out.splitlines() if line.endswith(split) and line[0] in "+-"]
    assert len(rows) == 2
    assert len([line for line in out.splitlines() if line[:1] in "+-~=!>"]) < 15
    data = json.loads(cli("diff", "resnet18.pth", "ibn.pth", "--json")[1])
    (explained,) = data["models"]["explained"]
    changed = {each["key"] for each in data["changes"] if each["status"] in ("added", "removed")}
    assert set(explained["keys"]) >= changed
    data = json.loads(cli("inspect", "ibn.pth", "--json")[1])
    assert data["models"][0]["parts"] == ["width 2", split]


@pytest.mark.parametrize("kind", ["bn1.", ""])
def test_norms_without_statistics_are_named_and_their_counters_are_not_harmless(
    kind: str, cli: Run, fixtures: Path
) -> None:
    whole = torch.load(fixtures / "resnet18.pth", weights_only=True)
    lost = ("running_mean", "running_var", "num_batches_tracked")
    torch.save(
        {key: value for key, value in whole.items() if not (key.startswith(kind) and key.endswith(lost))},
        fixtures / "other.pth",
    )
    out = cli("diff", "resnet18.pth", "other.pth", columns=400)[1]
    assert "the new one has a stem norm without running statistics" in out.splitlines()[1]
    assert ("GroupNorm or the like" in out) == (not kind)
    assert "harmless" not in out and "strict load" not in out


def test_a_note_that_names_an_option_holds_the_whole_command(cli: Run, fixtures: Path) -> None:
    whole = torch.load(fixtures / "resnet18.pth", weights_only=True)
    others = {"neck.weight": torch.ones(3), "neck.bias": torch.ones(3)}
    torch.save({f"base.{key}": torch.randn(2, 2) for key in whole if "bn1" in key} | others, fixtures / "re id.pth")
    out = cli("diff", "resnet18.pth", "re id.pth", "--keys-only", columns=400)[1]
    (line,) = [line for line in out.splitlines() if "--match" in line]
    words = shlex.split(line[line.index("ckptool") :])
    assert words == ["ckptool", "diff", "resnet18.pth", "re id.pth", "--match", "auto"]
    assert cli(*words[1:], "--keys-only")[0] == 1


def test_a_matched_diff_of_an_almost_resnet_is_a_screenful(cli: Run, tmp_path: Path, resnet50: Shapes) -> None:
    names = ("plain.pth", "ibn.pth")
    for name, shapes in zip(names, (resnet50, ibn(resnet50)), strict=True):
        kinds = {key: torch.int64 if key.endswith("num_batches_tracked") else torch.float32 for key in shapes}
        empty = {key: torch.zeros((), dtype=kinds[key]).expand(shape) for key, shape in shapes.items()}
        torch.save(empty, tmp_path / name)  # a broadcast tensor is stored as one element
    for old, new in (names, names[::-1]):
        files = str(tmp_path / old), str(tmp_path / new)
        code, out, _ = cli("diff", *files, "--match", "auto", "--keys-only", columns=200)
        lines = out.splitlines()
        table = lines[next(at for at, line in enumerate(lines) if line.split()[:2] == ["key", "n"]) + 1 :]
        rows = table[: table.index("")]
        assert code == 1 and 0 < len(rows) <= 20
        assert sum(line.startswith("=") for line in rows) == 1
        assert sum(line.endswith(" -> !") for line in lines) <= 5
        assert len(json.loads(cli("diff", *files, "--match", "auto", "--keys-only", "--json")[1])["changes"]) > 300
