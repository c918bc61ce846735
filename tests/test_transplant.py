"""Transplants against torch: what is filled, what is said of the rest, what is written, and how it loads.

The cases of real sizes build torchvision's models and are marked slow; the rest runs on narrow ones (`fixtures/`).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import FIXTURES
from safetensors.torch import load_file, save_file
from torch import nn

import ckptool
from ckptool.cli.app import run
from ckptool.commands.transplant.result import Transplant
from ckptool.core.errors import CkptError, PlanError, UsageError
from ckptool.core.reasons import OwnTensor
from ckptool.models import open_target, strict_verdict
from ckptool.models.entries import Filled
from ckptool.recipes.recipe import load_recipe
from ckptool.report.cells import Cell
from ckptool.report.transplant_rows import module_rows

State = dict[str, torch.Tensor]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`fixtures/models.py`."""
    monkeypatch.syspath_prepend(str(FIXTURES))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import models

    return models


@pytest.fixture
def source() -> State:
    found: State = torch.load(FIXTURES / "resnet18.pth", weights_only=True)
    return found


def save(state: object, folder: Path, name: str = "in.pth") -> Path:
    torch.save(state, folder / name)
    return folder / name


def written(done: Transplant, folder: Path, name: str = "out.pth") -> State:
    path = done.plan.apply(folder / name).path
    found: State = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    return found


def own_init(build: Callable[[], nn.Module], seed: int = 0) -> State:
    """What torch itself gives a model under a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().state_dict()


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(
        first[key].dtype == second[key].dtype and torch.equal(first[key], second[key]) for key in first
    )


# ---------------------------------------------------------------------------------------------- the seven cases


def test_case_1_old_resnet18_loads_strictly_and_comes_out_with_122(models: ModuleType, tmp_path: Path) -> None:
    done = ckptool.plan_transplant(FIXTURES / "resnet18-102.pth", models.ResNet18(), strict=True)
    assert done.tensors == (102, 122)
    assert done.as_it_is.strict and done.verdict.strict and not done.plan.unmet
    missing = done.having(Filled.MISSING)
    assert len(missing) == 20
    assert all(entry.is_harmless and entry.is_counter and entry.reason == OwnTensor("counter") for entry in missing)
    state = written(done, tmp_path)
    assert len(state) == 122
    model = models.ResNet18()
    assert str(model.load_state_dict(state, strict=True)) == "<All keys matched successfully>"
    assert same(model.state_dict(), torch.load(FIXTURES / "resnet18.pth", weights_only=True))
    assert state._metadata["bn1"] == {"version": 2}
    assert ckptool.plan_transplant(tmp_path / "out.pth", models.ResNet18()).coverage == 1.0


def test_case_1_with_version_2_torch_wants_the_counters(models: ModuleType, source: State, tmp_path: Path) -> None:
    for key in [key for key in source if key.endswith("num_batches_tracked")]:
        del source[key]
    path = save(source, tmp_path)  # still says version 2
    done = ckptool.plan_transplant(path, models.ResNet18(), strict=True)
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        models.ResNet18().load_state_dict(source)
    assert not done.as_it_is.strict
    assert len(done.as_it_is.missing) == 20
    assert done.plan.unmet[0].keys == done.as_it_is.missing
    models.ResNet18().load_state_dict(written(ckptool.plan_transplant(path, models.ResNet18()), tmp_path))


def test_case_2_backbone_with_layers_removed_and_added(models: ModuleType, source: State, tmp_path: Path) -> None:
    into = f"{FIXTURES / 'models.py'}:Backbone"
    done = ckptool.plan_transplant(FIXTURES / "resnet18.pth", into, seed=3)
    assert done.tensors == (90, 94)
    assert {spec.key.split(".")[0] for spec in done.unexpected} == {"layer4", "fc"}
    state = written(done, tmp_path)
    init = own_init(models.Backbone, seed=3)
    assert list(state) == list(init)
    for key, tensor in state.items():
        assert torch.equal(tensor, source[key] if key in source else init[key]), key
    models.Backbone().load_state_dict(state)


@pytest.mark.parametrize("neck", ["no", "bnneck"])
def test_case_3_reid_baseline(neck: str, models: ModuleType, source: State, tmp_path: Path) -> None:
    into = f"{FIXTURES / 'models.py'}:Baseline"
    done = ckptool.plan_transplant(
        FIXTURES / "resnet18.pth",
        into,
        model_args={"neck": neck, "num_classes": 33},
        drop=["fc.*"],
        init={"classifier.weight": "normal(0.001)"},
    )
    assert not done.unexpected
    left = {entry.key for entry in done.entries if not entry.is_filled}
    assert left == (
        {"classifier.weight", "classifier.bias"}
        if neck == "no"
        else {f"bottleneck.{name}" for name in nn.BatchNorm1d(1).state_dict()} | {"classifier.weight"}
    )
    state = written(done, tmp_path)
    model = models.Baseline(33, neck)
    model.load_state_dict(state)
    assert all(torch.equal(state[f"base.{key}"], tensor) for key, tensor in source.items() if not key.startswith("fc."))
    weight = state["classifier.weight"]
    assert 0.0008 < weight.std().item() < 0.0012 and abs(weight.mean().item()) < 2e-4
    assert set(done.freeze) == {key for key, _ in model.named_parameters() if key.startswith("base.")}
    assert set(done.batchnorms) == {
        name for name, part in model.named_modules() if isinstance(part, nn.BatchNorm2d) and name.startswith("base.")
    }


def test_case_4_halves_are_exact(models: ModuleType, source: State, tmp_path: Path) -> None:
    target = models.ResNet18(num_classes=7, ibn=True)
    done = ckptool.plan_transplant(FIXTURES / "resnet18.pth", target, recipe="resnet-to-ibn")
    assert {entry.key for entry in done.entries if not entry.is_filled} == {"fc.weight", "fc.bias"}
    target.load_state_dict(written(done, tmp_path))
    for number in (1, 2, 3):
        for block in (0, 1):
            name = f"layer{number}.{block}.bn1"
            norm = target.get_submodule(name)
            for part in ("weight", "bias"):
                whole = source[f"{name}.{part}"]
                assert torch.equal(torch.cat([getattr(norm.IN, part), getattr(norm.BN, part)]), whole)
            assert torch.equal(norm.BN.running_mean, source[f"{name}.running_mean"][norm.half :])
    assert torch.equal(target.layer4[0].bn1.weight, source["layer4.0.bn1.weight"])


def test_case_4_refuses_norms_of_another_width(models: ModuleType, source: State, tmp_path: Path) -> None:
    """Half of a norm of 32 channels is no norm of 16 channels, though its first elements would fit."""
    wide = {key: torch.cat([value, value]) if value.ndim else value for key, value in source.items()}
    target = models.ResNet18(ibn=True)
    done = ckptool.plan_transplant(save(wide, tmp_path), target, recipe="resnet-to-ibn")
    assert "in the source, and i = " in done.plan.problems[0].message
    with pytest.raises(PlanError, match="in the model"):
        done.plan.apply(tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


def test_case_4_and_back_where_possible(models: ModuleType, source: State, tmp_path: Path) -> None:
    """Affine halves are joined again; half of the running statistics was given up on the way."""
    halved = models.ResNet18(ibn=True)
    ckptool.load_into(halved, FIXTURES / "resnet18.pth", recipe="resnet-to-ibn", strict=True)
    path = save(halved.state_dict(), tmp_path)
    block = "layer{s=1..3}.{b}.bn1"
    rules = [
        f"{block}.IN.{{p=weight|bias}}, {block}.BN.{{p}} -> {block}.{{p}} | i, n -> (i + n)",
        f"{block}.BN.num_batches_tracked -> {block}.num_batches_tracked",
    ]
    done = ckptool.plan_transplant(path, models.ResNet18(), recipe=rules)
    left = {entry.key for entry in done.entries if not entry.is_filled}
    assert len(left) == 12 and all(".bn1.running_" in key for key in left)
    state = written(done, tmp_path)
    assert all(torch.equal(state[key], tensor) for key, tensor in source.items() if key not in left)


@pytest.mark.slow
def test_case_4_in_full_size(models: ModuleType, torchvision: ModuleType, tmp_path: Path) -> None:
    old = torchvision.models.resnet50()
    new = torchvision.models.resnet50(num_classes=751)
    for layer in (new.layer1, new.layer2, new.layer3):
        for block in layer:
            block.bn1 = models.IBN(block.bn1.num_features)
    assert len(new.state_dict()) == 346
    report = ckptool.load_into(new, save(old.state_dict(), tmp_path), recipe="resnet-to-ibn")
    assert report.mismatched == ("fc.weight", "fc.bias") and not report.missing and not report.unexpected
    for number, layer in enumerate((new.layer1, new.layer2, new.layer3), 1):
        for at, block in enumerate(layer):
            whole = old.get_submodule(f"layer{number}.{at}.bn1")
            assert torch.equal(torch.cat([block.bn1.IN.weight, block.bn1.BN.weight]), whole.weight)
            assert torch.equal(block.bn1.BN.running_var, whole.running_var[block.bn1.half :])


def test_case_5_other_size_classes_and_channels(models: ModuleType, tmp_path: Path) -> None:
    old: State = torch.load(FIXTURES / "deit.pth", weights_only=True)
    target = models.ViT(384, 1, 10)
    own = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    done = ckptool.plan_transplant(FIXTURES / "deit.pth", target, mismatch="fit")
    assert {entry.key: entry.fit.split("(")[0] for entry in done.having(Filled.FITTED)} == {
        "pos_embed": "fit grid",
        "patch_embed.proj.weight": "fit channels",
    }
    assert not {"head.weight", "head.bias", "pos_embed"} & set(done.freeze), "heads are initialised, fits are trained"
    assert any("head of another number of classes" in note.text for note in done.plan.notes)
    state = written(done, tmp_path)
    target.load_state_dict(state)
    assert target(torch.randn(2, 1, 384, 384)).shape == (2, 10)
    grid = old["pos_embed"][:, 1:].reshape(1, 14, 14, 8).permute(0, 3, 1, 2)
    grown = nn.functional.interpolate(grid, size=(24, 24), mode="bicubic", antialias=True)
    positions = torch.cat([old["pos_embed"][:, :1], grown.permute(0, 2, 3, 1).reshape(1, 576, 8)], dim=1)
    assert torch.equal(state["pos_embed"], positions)
    torch.testing.assert_close(state["patch_embed.proj.weight"], old["patch_embed.proj.weight"].sum(1, keepdim=True))
    assert torch.equal(state["head.weight"], own["head.weight"]) and torch.equal(state["head.bias"], own["head.bias"])
    named = ckptool.plan_transplant(FIXTURES / "deit.pth", target, mismatch="fit", fits={"head.*": "rows(fill='keep')"})
    assert torch.equal(written(named, tmp_path, "named.pth")["head.bias"], old["head.bias"][:10])
    assert "head.bias" not in named.freeze, "fitted is not loaded in full"


def test_case_6_training_checkpoint_of_wrapped_models(models: ModuleType, source: State, tmp_path: Path) -> None:
    lightning = {
        "epoch": 3,
        "state_dict": {f"model.module.{key}": tensor for key, tensor in source.items()}
        | {"loss.weight": torch.ones(3)},
        "optimizer_states": [],
    }
    done = ckptool.plan_transplant(save(lightning, tmp_path), models.ResNet18())
    assert (done.swap.take, done.coverage) == ("model.module.", 1.0)
    assert [spec.key for spec in done.unexpected] == ["loss.weight"]
    assert same(written(done, tmp_path), dict(source))
    average = ckptool.plan_transplant(FIXTURES / "training.ckpt", models.ResNet18(), select="model_ema")
    assert (average.swap.take, average.coverage, average.verdict.strict) == ("", 1.0, True)


def test_case_7_torchvision_vit_to_timm(torchvision: ModuleType, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    old = torchvision.models.VisionTransformer(32, 16, 2, 2, 32, 64, num_classes=5).eval()
    new = timm.models.VisionTransformer(
        img_size=32, patch_size=16, depth=2, num_heads=2, embed_dim=32, mlp_ratio=2, num_classes=5
    ).eval()
    report = ckptool.load_into(
        new, save(old.state_dict(), tmp_path), recipe="torchvision-vit-to-timm", strict=True, min_coverage=1.0
    )
    assert report.coverage == 1.0
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(new(image), old(image), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_case_7_in_full_size(torchvision: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    torch.manual_seed(0)
    with torch.device("meta"):  # its own init takes seconds, and any values will do
        old = torchvision.models.vit_b_16()
    old = old.to_empty(device="cpu").eval()
    for value in old.state_dict().values():
        value.normal_(0, 0.02)
    done = ckptool.plan_transplant(
        save(old.state_dict(), tmp_path),
        "timm:vit_base_patch16_224",
        recipe="torchvision-vit-to-timm",
        strict=True,
    )
    assert done.coverage == 1.0 and not done.plan.unmet
    import timm

    with torch.device("meta"):
        new = timm.create_model("vit_base_patch16_224").eval()
    new.load_state_dict(written(done, tmp_path), assign=True)
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(new(image), old(image), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_resnet50_in_full_size(torchvision: ModuleType, tmp_path: Path) -> None:
    """Cases 2 and 3: 23.5M of a baseline's 25M elements, the head as torch's own generator makes it."""
    torch.manual_seed(1)
    old = torchvision.models.resnet50()
    path = save(old.state_dict(), tmp_path)
    done = ckptool.plan_transplant(path, "torchvision:resnet50", model_args={"num_classes": 751}, seed=5)
    assert done.tensors == (318, 320)
    assert done.as_it_is.mismatched == ("fc.weight", "fc.bias")
    state = written(done, tmp_path)
    init = own_init(lambda: torchvision.models.resnet50(num_classes=751), seed=5)
    assert torch.equal(state["fc.weight"], init["fc.weight"])
    assert all(torch.equal(state[key], tensor) for key, tensor in old.state_dict().items() if not key.startswith("fc."))
    again = ckptool.plan_transplant(path, "torchvision:resnet50", model_args={"num_classes": 751}, seed=5)
    again.plan.apply(tmp_path / "again.pth")
    assert (tmp_path / "out.pth").read_bytes() == (tmp_path / "again.pth").read_bytes()


# ---------------------------------------------------------------------------------------------- all architectures


SAMPLE = ["densenet121", "mnasnet0_5", "shufflenet_v2_x0_5", "squeezenet1_1", "googlenet"]


def into_itself(name: str, folder: Path) -> None:
    """Its own saved state dict, of whatever values, goes into it whole: by a file, and in place."""
    target = open_target(f"torchvision:{name}")
    model = target.module
    assert isinstance(model, nn.Module)
    model = copy.deepcopy(model).to_empty(device="cpu")
    for number, tensor in enumerate(model.state_dict().values()):
        tensor.fill_(number % 100)
    path = save(model.state_dict(), folder)
    done = ckptool.plan_transplant(path, target, strict=True, min_coverage=1.0)
    assert done.tensors[0] == done.tensors[1] and done.as_it_is.strict and not done.plan.unmet, name
    assert not done.having(Filled.MISSING, Filled.MISMATCHED, Filled.CAST, Filled.FITTED), name
    other = copy.deepcopy(model)
    for tensor in other.state_dict().values():
        tensor.fill_(101)
    assert ckptool.load_into(other, path, strict=True).coverage == 1.0
    assert same(other.state_dict(), model.state_dict()), name
    path.unlink()


@pytest.mark.parametrize("name", SAMPLE)
def test_a_model_into_itself(name: str, tmp_path: Path) -> None:
    into_itself(name, tmp_path)


@pytest.mark.slow
def test_every_torchvision_model_into_itself(torchvision: ModuleType, tmp_path: Path) -> None:
    """Each is known without data; on headers: the files have holes for the values, which a plan does not read."""
    names = torchvision.models.list_models()
    assert len(names) > 100
    for name in names:
        target = open_target(f"torchvision:{name}")
        assert isinstance(target.module, nn.Module)
        assert target.device == "meta" and all(parameter.is_meta for parameter in target.module.parameters()), name
        assert target.notes == () and strict_verdict(target, target.specs, target.versions).strict, name
        path = tmp_path / "own.pth"
        with torch.serialization.skip_data():
            torch.save(copy.deepcopy(target.module).to_empty(device="cpu").state_dict(), path)
        done = ckptool.plan_transplant(path, target, strict=True, min_coverage=1.0)
        assert done.tensors[0] == done.tensors[1] and done.as_it_is.strict and not done.plan.unmet, name
        assert not done.having(Filled.MISSING, Filled.MISMATCHED, Filled.CAST, Filled.FITTED), name


def test_a_model_that_wants_module_versions_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], torchvision: ModuleType
) -> None:
    """MNASNet refuses a state dict without any, which is what a safetensors file holds."""
    path = save(torchvision.models.mnasnet0_5().state_dict(), tmp_path)
    command = ["transplant", str(path), "--into", "torchvision:mnasnet0_5", "--strict", "-o"]
    assert run([*command, str(tmp_path / "out.safetensors")]) == 1
    assert "no, version should be set" in " ".join(capsys.readouterr().out.split())
    assert run([*command, str(tmp_path / "out.pth")]) == 0
    assert capsys.readouterr().out.endswith("with strict=True: yes\n")
    done = ckptool.plan_transplant(tmp_path / "out.safetensors", "torchvision:mnasnet0_5", strict=True)
    assert done.coverage == 1.0 and "version" in done.plan.unmet[0].message


# ---------------------------------------------------------------------------------------------- load_into


@pytest.mark.parametrize("name", ["resnet18.pth", "resnet18-102.pth", "shards", "shards-bin"])
def test_load_into_is_load_state_dict_bit_for_bit(name: str, models: ModuleType, source: State) -> None:
    torch.manual_seed(4)
    one, two = models.ResNet18(), models.ResNet18()
    two.load_state_dict(one.state_dict())
    before = [parameter.data_ptr() for parameter in one.parameters()]
    report = ckptool.load_into(one, FIXTURES / name)
    old = torch.load(FIXTURES / name, weights_only=True) if name == "resnet18-102.pth" else source
    two.load_state_dict(old)
    assert same(one.state_dict(), two.state_dict())
    assert [parameter.data_ptr() for parameter in one.parameters()] == before, "in place"
    assert all(parameter.requires_grad for parameter in one.parameters())
    assert len(report.loaded) == len(old)


def test_load_into_casts_as_torch_does(models: ModuleType, source: State, tmp_path: Path) -> None:
    source["bn1.num_batches_tracked"] = torch.tensor(7.0)
    source["layer1.0.bn1.bias"] = torch.tensor([1, -2])
    source["layer2.0.conv1.weight"] = source["layer2.0.conv1.weight"].double() * 1.1
    source["layer3.0.conv1.weight"] = source["layer3.0.conv1.weight"].mT.contiguous().mT  # not contiguous
    path = save(source, tmp_path)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        one, two = models.ResNet18().to(dtype), models.ResNet18().to(dtype)
        report = ckptool.load_into(one, path)
        two.load_state_dict(source)
        assert same(one.state_dict(), two.state_dict())
        assert report.coverage == 1.0
    channels_last = models.ResNet18().to(memory_format=torch.channels_last)
    ckptool.load_into(channels_last, path)
    models.ResNet18().load_state_dict(channels_last.state_dict())
    assert torch.equal(channels_last.conv1.weight, source["conv1.weight"])


def test_what_does_not_fit_stays_and_is_reported(models: ModuleType) -> None:
    model = models.ResNet18(num_classes=10)
    head = model.fc.weight.clone()
    report = ckptool.load_into(model, FIXTURES / "resnet18.pth")
    assert report.mismatched == ("fc.weight", "fc.bias")
    assert torch.equal(model.fc.weight, head)
    text = str(report)
    assert "[100,16]" in text and "[10,16]" in text and "120/" not in text
    assert text.splitlines()[-1].startswith("loaded:")
    assert max(map(len, text.splitlines())) <= 100


def test_refused_loads_leave_the_model_alone(models: ModuleType) -> None:
    model = models.ResNet18(num_classes=10)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for options in ({"strict": True}, {"mismatch": "error"}, {"min_coverage": 0.99}, {"recipe": "head. -> fc."}):
        with pytest.raises(PlanError):
            ckptool.load_into(model, FIXTURES / "resnet18.pth", **options)
    with pytest.raises(CkptError, match="nothing would be loaded"):
        ckptool.load_into(nn.Linear(3, 4), FIXTURES / "resnet18.pth")
    with pytest.raises(UsageError, match="matches none"):
        ckptool.load_into(model, FIXTURES / "resnet18.pth", drop=["head.*"])
    assert same(model.state_dict(), before)


def test_a_meta_model_has_no_memory_to_load_into(models: ModuleType) -> None:
    with torch.device("meta"):
        model = models.ResNet18()
    with pytest.raises(UsageError, match="meta"):
        ckptool.load_into(model, FIXTURES / "resnet18.pth")
    model.to_empty(device="cpu")
    assert ckptool.load_into(model, FIXTURES / "resnet18.pth").coverage == 1.0


def test_freeze(models: ModuleType, tmp_path: Path) -> None:
    model = models.Baseline(12).train()
    report = ckptool.load_into(model, FIXTURES / "resnet18.pth", drop=["fc"])
    assert report.freeze(model) == 60
    model.eval().train()  # as every training loop does
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {key for key, _ in model.named_parameters() if key.startswith("base.")} | {"bottleneck.bias"}
    before = model.base.bn1.running_mean.clone()
    model(torch.randn(4, 3, 64, 64)).sum().backward()
    assert torch.equal(model.base.bn1.running_mean, before), "statistics stay"
    assert model.base.conv1.weight.grad is None
    assert model.classifier.weight.grad is not None
    assert model.bottleneck.training and not model.base.bn1.training
    twin = copy.deepcopy(model).train()
    assert twin.bottleneck.training and not twin.base.bn1.training
    torch.save(model, tmp_path / "model.pth")
    assert torch.load(tmp_path / "model.pth", weights_only=False).base.bn1.weight.equal(model.base.bn1.weight)
    other = models.Baseline(12)
    ckptool.load_into(other, FIXTURES / "resnet18.pth", drop=["fc"]).freeze(other, eval_batchnorm=False)
    assert other.train().base.bn1.training


def test_a_norm_of_which_only_a_part_is_frozen_trains(models: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('ckptool = 1\nfreeze = ["base.bn1.bias", "base.layer1.*"]\n')
    model = models.Baseline(12)
    report = ckptool.load_into(model, FIXTURES / "resnet18.pth", drop=["fc"], recipe=str(tmp_path / "r.toml"))
    report.freeze(model)
    model.train()
    assert model.base.bn1.training and not model.base.layer1[0].bn1.training


def test_norms_without_parameters_are_frozen_with_the_rest(tmp_path: Path) -> None:
    def net() -> nn.Sequential:
        bare = nn.BatchNorm1d(4, affine=False)
        return nn.Sequential(nn.Linear(4, 4), bare, nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    torch.save({k: v for k, v in net().state_dict().items() if not k.startswith("4.")}, tmp_path / "a.pth")
    model = net()
    report = ckptool.load_into(model, tmp_path / "a.pth")
    report.freeze(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for _ in range(2):
        model.train()
        optimizer = torch.optim.SGD(filter(lambda each: each.requires_grad, model.parameters()), lr=0.1)
        model(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"4.weight", "4.bias"}


def test_fits_into_a_live_model_keep_its_own_rows(models: ModuleType, source: State) -> None:
    model = models.ResNet18(num_classes=120)
    own = model.fc.weight.detach().clone()
    report = ckptool.load_into(model, FIXTURES / "resnet18.pth", fits={"fc": "rows(fill=keep)"})
    assert torch.equal(model.fc.weight[:100], source["fc.weight"])
    assert torch.equal(model.fc.weight[100:], own[100:])
    filled, whole = report.transplant.elements
    assert whole - filled == 20 * 17


# ---------------------------------------------------------------------------------------------- what can go wrong


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize("given", ["embed.weight", "head.weight"])
def test_a_tied_key_is_not_missing(given: str, tmp_path: Path) -> None:
    state = Tied().state_dict()
    weight = state[given].clone()
    plain = {given: weight, **{key: state[key].clone() for key in ("body.weight", "body.bias")}}
    save_file(plain, tmp_path / "in.safetensors")
    done = ckptool.plan_transplant(tmp_path / "in.safetensors", Tied(), strict=True)
    assert done.coverage == 1.0 and not done.plan.unmet
    assert not done.as_it_is.strict
    state = written(done, tmp_path)
    assert torch.equal(state["embed.weight"], weight) and torch.equal(state["head.weight"], weight)
    assert state["embed.weight"].data_ptr() == state["head.weight"].data_ptr(), "still one tensor"
    model = Tied()
    ckptool.load_into(model, tmp_path / "in.safetensors")
    assert torch.equal(model.head.weight, weight) and model.head.weight is model.embed.weight


@pytest.mark.parametrize("given", [("embed.weight",), ("head.weight",), ("embed.weight", "head.weight")])
def test_an_alias_is_loaded_in_full_only_if_its_tensor_is(given: tuple[str, ...], tmp_path: Path) -> None:
    state = {key: tensor.clone() for key, tensor in Tied().state_dict().items()}
    small = {key: state[key][:5] if key in given else state[key] for key in (*given, "body.weight", "body.bias")}
    fits = {"embed.weight": "pad(value='mean')", "head.weight": "pad(value='mean')"}
    done = ckptool.plan_transplant(save(small, tmp_path), Tied(), mismatch="fit", fits=fits)
    assert done.freeze == ("body.weight", "body.bias")
    assert {entry.status for entry in done.entries if entry.key in ("embed.weight", "head.weight")} == {Filled.FITTED}
    assert {entry.covered for entry in done.entries if entry.key in ("embed.weight", "head.weight")} == {20}
    Tied().load_state_dict(written(done, tmp_path))


class Window(nn.Module):
    """A table to be fitted, and buffers that follow from the size."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * side - 1) ** 2, 2))
        self.register_buffer("relative_position_index", torch.arange(side**4).reshape(side**2, side**2))
        self.register_buffer("attn_mask", torch.zeros(2, side, side))


@pytest.mark.parametrize("as_checkpoint", [False, True])
def test_buffers_of_another_size_are_left_to_the_model(as_checkpoint: bool, tmp_path: Path) -> None:
    target: object = Window(6)
    expected = Window(6).state_dict()
    if as_checkpoint:
        target = str(save(expected, tmp_path, "target.pth"))
    done = ckptool.plan_transplant(save(Window(4).state_dict(), tmp_path), target, mismatch="fit")
    state = written(done, tmp_path)
    assert [entry.key for entry in done.having(Filled.FITTED)] == ["relative_position_bias_table"]
    assert torch.equal(state["relative_position_index"], expected["relative_position_index"])
    Window(6).load_state_dict(state)


def test_of_two_values_for_a_tied_tensor_the_last_counts_as_in_torch(tmp_path: Path) -> None:
    state = {key: tensor.clone() for key, tensor in Tied().state_dict().items()}
    state["head.weight"] += 1
    one, two = Tied(), Tied()
    report = ckptool.load_into(one, save(state, tmp_path))
    two.load_state_dict(state)
    assert same(one.state_dict(), two.state_dict())
    assert any("one tensor" in note.text for note in report.transplant.plan.notes)


def test_another_checkpoint_as_the_model(source: State, tmp_path: Path) -> None:
    done = ckptool.plan_transplant(FIXTURES / "tuned.safetensors", FIXTURES / "resnet18.pth")
    assert done.having(Filled.MISMATCHED)[0].reason == OwnTensor("checkpoint")
    state = written(done, tmp_path, "out.safetensors")
    tuned = load_file(FIXTURES / "tuned.safetensors")
    for key in source:
        assert torch.equal(state[key], source[key] if key.startswith("fc.") else tuned[key])


def test_same_seed_same_bytes_another_seed_others(tmp_path: Path) -> None:
    into = f"{FIXTURES / 'models.py'}:Baseline"
    files = []
    for number, seed in enumerate((1, 1, 2)):
        done = ckptool.plan_transplant(FIXTURES / "resnet18.pth", into, seed=seed, init={"classifier.*": "normal(0.1)"})
        files.append(done.plan.apply(tmp_path / f"{number}.pth").path.read_bytes())
    assert files[0] == files[1] != files[2]


def test_only_loaded_and_wrap(models: ModuleType, tmp_path: Path) -> None:
    into = f"{FIXTURES / 'models.py'}:Backbone"
    part = ckptool.plan_transplant(FIXTURES / "resnet18.pth", into, only_loaded=True, wrap="model")
    state: dict[str, Any] = torch.load(part.plan.apply(tmp_path / "part.pth").path, weights_only=True)
    assert list(state) == ["model"] and len(state["model"]) == 90
    model = models.Backbone()
    found = model.load_state_dict(state["model"], strict=False)
    assert len(found.missing_keys) == 4 and not found.unexpected_keys


class Under(nn.Module):
    """An IBN-a network as the backbone of another."""

    def __init__(self, models: ModuleType) -> None:
        super().__init__()
        self.base = models.ResNet18(ibn=True)
        self.neck = nn.BatchNorm1d(4)


@pytest.mark.parametrize("given", ["", "module.", "module.encoder."])
@pytest.mark.parametrize("inside", [False, True])
def test_rules_apply_under_a_prefix_and_results_are_put_under_one(
    given: str, inside: bool, models: ModuleType, source: State, tmp_path: Path
) -> None:
    ours = {f"{given}{key}": tensor for key, tensor in source.items()} | {"criterion.centers": torch.ones(3, 2)}
    build = (lambda: Under(models)) if inside else (lambda: models.ResNet18(ibn=True))
    done = ckptool.plan_transplant(save(ours, tmp_path), build(), recipe="resnet-to-ibn")
    plain = ckptool.plan_transplant(FIXTURES / "resnet18.pth", models.ResNet18(ibn=True), recipe="resnet-to-ibn")
    meant = written(plain, tmp_path, "plain.pth")
    assert done.under == given and done.swap.put == ("base." if inside else "")
    said = [note.text for note in done.plan.notes]
    assert (f'rules apply under "{given}"' in said) == bool(given)
    assert ('results are put under "base"' in said) == inside
    state, prefix = written(done, tmp_path), "base." if inside else ""
    assert all(torch.equal(state[prefix + key], meant[key]) for key in meant)
    build().load_state_dict(state)
    wrong = ckptool.plan_transplant(save(source, tmp_path, "b.pth"), models.ResNet18(), recipe=["module.fc. -> fc."])
    assert wrong.plan.problems, "a rule that matches nothing is still refused"


def test_prefixes_are_never_swapped_so_that_keys_clash(tmp_path: Path) -> None:
    state = {f"{prefix}{key}": torch.ones(2) for prefix in ("a.", "") for key in ("x", "y")}
    state["a.z"] = torch.ones(2)
    target = nn.Module()
    for name in "xyz":
        target.register_parameter(name, nn.Parameter(torch.zeros(2)))
    done = ckptool.plan_transplant(save(state, tmp_path), target)
    assert not done.swap
    assert [entry.key for entry in done.filled] == ["x", "y"]


def test_counters_alone_are_nothing(tmp_path: Path) -> None:
    wide, narrow = (nn.Sequential(nn.Conv2d(3, n, 3), nn.BatchNorm2d(n)) for n in (8, 4))
    with pytest.raises(CkptError, match="in both, with other shapes"):
        ckptool.plan_transplant(save(wide.state_dict(), tmp_path), narrow)


def test_a_sparse_or_meta_tensor_fills_nothing(tmp_path: Path) -> None:
    model = nn.Linear(3, 3)
    state = {"weight": torch.eye(3).to_sparse(), "bias": torch.ones(3)}
    report = ckptool.load_into(model, save(state, tmp_path))
    assert report.mismatched == ("weight",) and torch.equal(model.bias, torch.ones(3))


def test_buffers_that_the_model_makes_are_harmless(tmp_path: Path) -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4))
            self.register_buffer("index", torch.arange(4))

    done = ckptool.plan_transplant(save({"weight": torch.ones(4)}, tmp_path), Positions())
    (entry,) = done.having(Filled.MISSING)
    assert entry.is_harmless and entry.reason == OwnTensor("buffer")
    assert torch.equal(written(done, tmp_path)["index"], torch.arange(4))


def test_an_init_is_refused_or_said_to_have_no_effect() -> None:
    into = f"{FIXTURES / 'models.py'}:ResNet18"
    done = ckptool.plan_transplant(FIXTURES / "resnet18.pth", into, init={"fc.*": "zeros"})
    assert any("no effect" in note.text for note in done.plan.notes)
    with pytest.raises(UsageError, match="matches none"):
        ckptool.plan_transplant(FIXTURES / "resnet18.pth", into, init={"head.*": "zeros"})
    with pytest.raises(UsageError, match="unknown init"):
        ckptool.plan_transplant(FIXTURES / "resnet18.pth", into, drop=["fc.*"], init={"fc.*": "ones()"})
    with pytest.raises(UsageError, match="unknown init"):
        ckptool.plan_transplant(FIXTURES / "resnet18.pth", into, init={"fc.*": "kaiming"})


def renamed_norms(source: State) -> State:
    return {key.replace(".bn", ".norm") if ".bn" in key else key: tensor for key, tensor in source.items()}


def test_the_gate_looks_at_tensors_and_modules(models: ModuleType, source: State, tmp_path: Path) -> None:
    whole = FIXTURES / "resnet18.pth"
    assert not ckptool.plan_transplant(whole, models.ResNet18(), min_coverage=1.0).plan.unmet
    ibn = models.ResNet18(ibn=True)
    hidden = ckptool.plan_transplant(whole, ibn, min_coverage=0.9)
    assert hidden.coverage > 0.99 and "tensors come from the source" in hidden.plan.unmet[0].message
    assert not ckptool.plan_transplant(whole, ibn, recipe="resnet-to-ibn", min_coverage=0.99).plan.unmet
    norms = ckptool.plan_transplant(save(renamed_norms(source), tmp_path), models.ResNet18(), min_coverage=0.9)
    assert norms.coverage > 0.9 and norms.plan.unmet
    lone = ckptool.plan_transplant(whole, ibn, min_coverage=0.6)
    assert "layer1.0.bn1 is in the source, and 0 of its 6 tensors" in lone.plan.unmet[0].message
    dropped = ckptool.plan_transplant(whole, models.ResNet18(num_classes=9), drop=["fc"], min_coverage=0.8)
    assert not dropped.plan.unmet, "what is new on purpose has no namesake"


def test_a_head_that_is_new_on_purpose_is_not_counted(models: ModuleType, source: State, tmp_path: Path) -> None:
    whole, model = FIXTURES / "resnet18.pth", models.Baseline(751, "bnneck")
    hard = ckptool.plan_transplant(whole, model, min_coverage=1.0, drop="fc", strict=True)
    assert {key for problem in hard.plan.unmet for key in problem.keys} >= {"classifier.weight"}
    new = ["classifier", "bottleneck.*"]
    done = ckptool.plan_transplant(whole, model, new=new, min_coverage=1.0, drop="fc", strict=True)
    assert not done.plan.unmet and not done.plan.problems
    assert done.new == {key for key in model.state_dict() if key.startswith(("classifier", "bottleneck"))}
    assert str(done).startswith("complete: 120 of 126 tensors of Baseline are filled, 6 are new on purpose")
    report = ckptool.load_into(model, whole, new=new, min_coverage=1.0, drop="fc", strict=True)
    assert report.loaded == tuple(key for key in model.state_dict() if key.startswith("base."))
    mismatched = ckptool.plan_transplant(whole, models.ResNet18(num_classes=9), new="fc", min_coverage=1.0)
    assert mismatched.new == {"fc.weight", "fc.bias"} and not mismatched.plan.unmet
    less = ckptool.plan_transplant(whole, models.ResNet18(ibn=True, num_classes=9), new="fc", min_coverage=0.9)
    assert less.plan.unmet, "the rest is counted"


def test_new_that_means_nothing_or_something_loaded_is_an_error(models: ModuleType, tmp_path: Path) -> None:
    whole, model = FIXTURES / "resnet18.pth", models.ResNet18(num_classes=9)
    with pytest.raises(UsageError, match="matches none"):
        ckptool.plan_transplant(whole, model, new="classifier.*")
    done = ckptool.plan_transplant(whole, model, new=["fc", "layer4"])
    assert [problem.message for problem in done.plan.problems] == [
        '"layer4" is meant to start anew, and the source fills layer4.0.conv1.weight'
    ]
    with pytest.raises(PlanError, match="the source fills layer4"):
        ckptool.load_into(model, whole, new=["fc", "layer4"])
    again = ckptool.plan_transplant(whole, model, new=["fc", "layer4"], drop="layer4", min_coverage=1.0)
    assert not again.plan.problems and not again.plan.unmet


def test_what_a_recipe_expects_to_be_missing_is_counted(models: ModuleType, tmp_path: Path) -> None:
    """A saved recipe lists all that was missing, on purpose or not."""
    recipe = tmp_path / "reid.toml"
    recipe.write_text('ckptool = 1\nrules = "fc.{k**} -> !"\nexpect.missing = ["bottleneck", "classifier"]\n')
    whole, model = FIXTURES / "resnet18.pth", models.Baseline()
    done = ckptool.plan_transplant(whole, model, recipe=str(recipe), min_coverage=1.0)
    assert done.plan.unmet and not done.new
    again = ckptool.plan_transplant(whole, model, recipe=str(recipe), new=["bottleneck", "classifier"], min_coverage=1)
    assert not again.plan.unmet


def test_a_loaded_layer_before_an_initial_norm_is_a_warning(models: ModuleType, source: State, tmp_path: Path) -> None:
    def warned(state: State, target: object) -> list[str]:
        done = ckptool.plan_transplant(save(state, tmp_path), target)
        return [note.text for note in done.plan.notes if note.level == "warning"]

    assert warned(source, models.ResNet18(ibn=True)) == [
        "layer1.0.conv1 is loaded, and the norm after it, layer1.0.bn1.IN, has initial values; so it is with 5 more"
    ]
    assert warned(renamed_norms(source), models.ResNet18())[0].startswith("layer1.0.conv1 is loaded, and the norm")
    assert warned(renamed_norms(source), str(FIXTURES / "resnet18.pth")), "a checkpoint has names only"
    norms = {key: tensor for key, tensor in source.items() if "conv" not in key}
    assert warned(norms, models.ResNet18())[0].startswith("bn1 is loaded, and the layer before it, conv1, has initial")
    for target in (models.ResNet18(), models.Backbone(), models.Baseline(12)):
        assert not warned(source, target)
    assert not warned(torch.load(FIXTURES / "deit.pth", weights_only=True), models.ViT(384, 1, 10))


@pytest.mark.parametrize(
    ("rule", "have", "want", "words"),
    [
        ("w -> w | b d n -> b n d | fit grid(prefix=1)", (1, 4, 17), (1, 26, 4), "[1,4,17] → [1,26,4]"),
        ("w -> w | o i -> i o | fit rows(fill='keep')", (4, 6), (9, 4), "[4,6] → [9,4]"),
        ("w -> w | fit pad(value='mean')", (4, 6), (9, 6), "[4,6] → [9,6]"),
    ],
)
def test_a_fit_of_a_recipe_is_shown_with_the_shape_in_the_source(
    rule: str, have: tuple[int, ...], want: tuple[int, ...], words: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    torch.save({"w": torch.randn(have)}, tmp_path / "a.pth")
    torch.save({"w": torch.zeros(want)}, tmp_path / "b.pth")
    assert run(["transplant", str(tmp_path / "a.pth"), "--into", str(tmp_path / "b.pth"), "-r", rule]) == 0
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("rows", [9, 12])
def test_tied_tensors_of_the_source_are_not_called_several(
    rows: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The source has one tensor under both keys, as the model has, also where it is made to fit."""
    weight = torch.randn(rows, 4)
    torch.save({"wte.weight": weight, "lm_head.weight": weight}, tmp_path / "tied.pth")
    torch.save({"wte.weight": weight, "lm_head.weight": weight.clone()}, tmp_path / "apart.pth")
    (tmp_path / "net.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.wte, self.lm_head = nn.Embedding(12, 4), nn.Linear(4, 12, bias=False)\n"
        "        self.lm_head.weight = self.wte.weight\n"
    )
    for name, is_several in (("tied.pth", False), ("apart.pth", True)):
        into = f"{tmp_path / 'net.py'}:Net"
        assert run(["transplant", str(tmp_path / name), "--into", into, "--mismatch", "fit"]) == 0
        assert ("several in the source" in " ".join(capsys.readouterr().out.split())) == is_several


def test_expectations_of_a_recipe_are_gates(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('expect.missing = ["attention.*"]\nexpect.unexpected = ["fc.*"]\n')
    into = f"{FIXTURES / 'models.py'}:Backbone"
    done = ckptool.plan_transplant(FIXTURES / "resnet18.pth", into, recipe=load_recipe(tmp_path / "r.toml"))
    (problem,) = done.plan.unmet
    assert len(problem.keys) == 30 and all(key.startswith("layer4.") for key in problem.keys)
    with pytest.raises(PlanError):
        done.plan.apply(tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


# ---------------------------------------------------------------------------------------------- norms of another kind


def two_layers(norm: nn.Module, size: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, size, bias=False), norm)


@pytest.mark.parametrize(
    ("norm", "kind"),
    [
        (nn.InstanceNorm2d(8, affine=True), "InstanceNorm2d"),
        (nn.GroupNorm(2, 8), "GroupNorm"),
        (nn.BatchNorm2d(8, track_running_stats=False), "BatchNorm2d"),
    ],
)
def test_a_norm_without_the_statistics_of_the_source_is_a_warning(norm: nn.Module, kind: str, tmp_path: Path) -> None:
    batch, other = two_layers(nn.BatchNorm2d(8)).eval(), two_layers(norm).eval()
    file, image = save(batch.state_dict(), tmp_path), torch.randn(2, 3, 8, 8)
    there = warnings_of(ckptool.plan_transplant(file, other))
    assert there == [f"1 is a BatchNorm in the source and {kind} in the model"]
    ckptool.load_into(other, file)
    assert torch.equal(other[1].weight, batch[1].weight) and not torch.allclose(other(image), batch(image), atol=0.01)
    back = ckptool.plan_transplant(save(other.state_dict(), tmp_path, "other.pth"), batch)
    assert warnings_of(back) == ["the weight of 1 is loaded, and its running statistics have initial values"]
    meant = ckptool.plan_transplant(file, two_layers(norm), drop="1.*", new="1.*", min_coverage=1.0)
    assert warnings_of(meant) == [] and not meant.plan.unmet
    assert warnings_of(ckptool.plan_transplant(file, two_layers(nn.BatchNorm2d(8)))) == []


def warnings_of(done: Transplant) -> list[str]:
    return [note.text for note in done.plan.notes if note.level == "warning"]


def test_a_layer_of_another_shape_before_a_loaded_norm_is_a_warning(tmp_path: Path) -> None:
    file = save(two_layers(nn.BatchNorm2d(8), 7).state_dict(), tmp_path)
    small = two_layers(nn.BatchNorm2d(8), 3)
    told = "1 is loaded, and the layer before it, 0, has another shape and initial values"
    assert warnings_of(ckptool.plan_transplant(file, small)) == [told]
    assert warnings_of(ckptool.plan_transplant(file, small, new="0.weight")) == []


def test_what_is_new_on_purpose_looks_calm(models: ModuleType) -> None:
    whole, model = FIXTURES / "resnet18.pth", models.Baseline(751, "bnneck")
    done = ckptool.plan_transplant(whole, model, new="classifier", drop="fc")
    states = {name.value: said for name, *_, said in (row.cells for row in module_rows(done)) if said.value}
    assert states == {"bottleneck": Cell("new", "bold red"), "classifier": Cell("new on purpose", "dim")}


def test_a_model_with_two_places_for_the_source_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = torch.load(FIXTURES / "resnet18.pth", weights_only=True)
    save({f"{tower}.{key}": value for tower in ("student", "teacher") for key, value in whole.items()}, tmp_path)
    asked = ["transplant", str(FIXTURES / "resnet18.pth"), "--into", "in.pth"]
    assert run(asked) == 2
    assert 'the model takes them 2 times, under "student." and "teacher."' in " ".join(capsys.readouterr().err.split())
    assert run([*asked, "-r", "{k**} -> student.{k}", "-o", "out.pth"]) == 0
    made = torch.load("out.pth", weights_only=True)
    assert all(torch.equal(made[f"student.{key}"], value) for key, value in whole.items())


@pytest.mark.parametrize("towers", [("encoder_q.", "encoder_k."), ("model.backbone_q.", "model.backbone_k.")])
def test_a_match_fills_two_places_that_hold_the_same(
    towers: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = torch.load(FIXTURES / "resnet18.pth", weights_only=True)
    body = {key: value for key, value in whole.items() if not key.startswith("fc.")}
    heads = {f"{tower}fc.{last}": torch.ones(3) for tower in towers for last in ("0.bias", "2.bias")}
    save({f"{tower}{key}": value + 1 for tower in towers for key, value in body.items()} | heads, tmp_path)
    asked = ["transplant", str(FIXTURES / "resnet18.pth"), "--into", "in.pth"]
    assert run([*asked, "--match", "auto", "--new", "**fc.**", "-o", "out.pth"]) == 0
    made = torch.load("out.pth", weights_only=True)
    for tower in towers:
        assert all(torch.equal(made[tower + key], value) for key, value in body.items())


def test_modules_that_are_loaded_alike_share_a_row(models: ModuleType, tmp_path: Path) -> None:
    whole = torch.load(FIXTURES / "resnet18.pth", weights_only=True)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    file = save({key: value for key, value in whole.items() if not key.endswith(statistics)}, tmp_path)
    rows = [row.cells for row in module_rows(ckptool.plan_transplant(file, models.ResNet18()))]
    texts = [(name.value, said.value) for name, *_, said in rows]
    assert len(texts) == 12
    assert ("layer2, the rest", None) in texts
    assert sum(str(name).startswith("layer2.") and said == "partly loaded" for name, said in texts) == 1
    assert sum(int(str(loaded).partition("/")[2].replace(",", "")) for _, loaded, *_ in rows) == len(whole)
