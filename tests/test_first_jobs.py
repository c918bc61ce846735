"""The seven jobs of somebody with a ResNet and a re-identification model: what is typed first leads there."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from console import Run, runner
from torch import nn

REID = """
from torch import nn
from models import WIDTH, Body


class ReID(nn.Module):
    def __init__(self, num_classes: int = 751, neck: str = "bnneck") -> None:
        super().__init__()
        self.base = Body(ibn=True, last_stride=1)
        self.neck = neck
        if neck == "bnneck":
            self.bottleneck = nn.BatchNorm1d(8 * WIDTH)
            self.bottleneck.bias.requires_grad_(False)
        self.classifier = nn.Linear(8 * WIDTH, num_classes, bias=neck == "no")

    def forward(self, x):
        features = self.base(x).mean((2, 3))
        return self.classifier(features if self.neck == "no" else self.bottleneck(features))
"""
TRAINING = """
start = {key: value.clone() for key, value in model.state_dict().items()}
model.train()
optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.1)
for seed in range(2):
    torch.manual_seed(seed)
    model.train()
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(torch.randn(8, 3, 64, 64)), torch.randint(751, (8,)))
    loss.backward()
    optimizer.step()
moved = [key for key, value in model.state_dict().items() if not torch.equal(value, start[key])]
torch.save(model.state_dict(), "trained.pth")
print(" ".join(moved))
"""
COPIES = """
import copy, io
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def wrapped(model):
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    return DistributedDataParallel(copy.deepcopy(model))


def again(model):
    return model.eval().train(False).train()


norms = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
for change in (copy.deepcopy, saved, AveragedModel, wrapped, again, lambda model: saved(copy.deepcopy(saved(model)))):
    changed = change(model)
    for _ in range(2):
        changed.eval()
        changed.train()
        frozen = [each for each in changed.modules() if isinstance(each, norms) and not each.weight.requires_grad]
        free = [each for each in changed.modules() if isinstance(each, norms) and each.weight.requires_grad]
        assert len(frozen) == 20 and not any(each.training for each in frozen), change
        assert len(free) == 1 and free[0].training and changed.training, change
        before = {key: value.clone() for key, value in changed.state_dict().items()}
        changed(torch.randn(8, 3, 64, 64))
        moved = [key for key, value in changed.state_dict().items() if not torch.equal(value, before[key])]
        assert len(moved) == 3 and all("bottleneck" in key for key in moved), (change, moved)
distributed.destroy_process_group()
"""
IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def cli(fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    (fixtures / "reid.py").write_text(REID)
    monkeypatch.setenv("COLUMNS", "200")
    return runner(fixtures, monkeypatch, capsys)


@pytest.fixture
def nets(cli: Run, fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The classes of `models.py` and `reid.py`, as values of a namespace."""
    monkeypatch.delitem(sys.modules, "models", raising=False)
    monkeypatch.delitem(sys.modules, "reid", raising=False)
    monkeypatch.syspath_prepend(str(fixtures))
    import importlib

    found = ModuleType("nets")
    for name in ("models", "reid"):
        vars(found).update(vars(importlib.import_module(name)))
    yield found
    sys.modules.pop("models", None)
    sys.modules.pop("reid", None)


def read(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return state


def loaded(net: nn.Module, path: Path) -> nn.Module:
    net.load_state_dict(read(path), strict=True)
    return net.eval()


def commands(text: str) -> list[list[str]]:
    """The commands that a screen names, without the program."""
    return [shlex.split(line.partition("ckptool ")[2]) for line in text.splitlines() if " ckptool " in line]


def named(text: str, word: str) -> list[str]:
    """The command on a screen that has a word."""
    return next(each for each in commands(text) if word in each)


def test_102_against_122(cli: Run, fixtures: Path, nets: Any) -> None:
    code, out, _ = cli("diff", "resnet18-102.pth", "resnet18.pth")
    assert code == 1
    assert "all BatchNorm counters" in out
    assert "harmless" in out
    assert cli("transplant", "resnet18-102.pth", "--into", "models.py:ResNet18", "--strict", "-o", "new.pth")[0] == 0
    old, new = loaded(nets.ResNet18(), fixtures / "resnet18.pth"), loaded(nets.ResNet18(), fixtures / "new.pth")
    assert torch.equal(old(IMAGE), new(IMAGE))


def test_into_the_backbone_under_another_prefix(cli: Run, fixtures: Path, nets: Any) -> None:
    code, out, _ = cli("transplant", "resnet18.pth", "--into", "models.py:Baseline", "-o", "new.pth")
    assert code == 0
    assert 'taken under "base"' in out
    new = loaded(nets.Baseline(), fixtures / "new.pth")
    body = nets.Body(last_stride=1)
    body.load_state_dict({key: value for key, value in read(fixtures / "resnet18.pth").items() if key[:3] != "fc."})
    assert torch.equal(body.eval()(IMAGE), new.base(IMAGE))


@pytest.mark.parametrize("pattern", ["fc", "fc.*", "fc*", "fc.{weight,bias}"])
def test_skip_fc(pattern: str, cli: Run, fixtures: Path, nets: Any) -> None:
    command = ["transplant", "resnet18.pth", "--into", "models.py:ResNet18", "--drop", pattern]
    assert cli(*command, "-o", "new.pth")[0] == 0
    old, new = read(fixtures / "resnet18.pth"), read(fixtures / "new.pth")
    assert [key for key in old if not torch.equal(old[key], new[key])] == ["fc.weight", "fc.bias"]
    assert "2 tensors hold initial values: fc.*" in cli("inspect", "new.pth")[1]
    loaded(nets.ResNet18(), fixtures / "new.pth")


@pytest.mark.parametrize("neck", ["bnneck", "no"])
def test_into_ibn_under_base(neck: str, cli: Run, fixtures: Path, nets: Any) -> None:
    code, out, _ = cli("transplant", "resnet18.pth", "--into", "reid.py:ReID", "--model-arg", f"neck={neck}")
    assert code == 0
    assert "base.layer1.0.bn1.IN, has initial values" in out
    assert cli(*named(out, "resnet-to-ibn"), "-o", "new.pth")[0] == 0
    new = loaded(nets.ReID(neck=neck), fixtures / "new.pth")
    old = read(fixtures / "resnet18.pth")
    plain = nets.Body(last_stride=1)
    plain.load_state_dict({key: value for key, value in old.items() if not key.startswith("fc.")})
    for name, module in new.named_modules():  # with the statistics of the batch norm, the first half is one
        if type(module).__name__ == "IBN":
            norm = nn.BatchNorm2d(module.half)
            key = f"{name.removeprefix('base.')}."
            norm.load_state_dict(
                {
                    "weight": module.IN.weight,
                    "bias": module.IN.bias,
                    "running_mean": old[f"{key}running_mean"][: module.half],
                    "running_var": old[f"{key}running_var"][: module.half],
                    "num_batches_tracked": torch.tensor(0),
                }
            )
            module.IN = norm
    assert torch.allclose(plain.eval()(IMAGE), new.eval().base(IMAGE), atol=1e-5)
    told = cli("inspect", "new.pth")[1]
    head = "751 classes" if neck == "no" else "neck: bnneck, 751 classes, no bias"
    assert f"first norm of layer1 to layer3 split into IN and BN: IBN-a; {head}" in told
    assert "bn1.IN" not in told.partition("initial values")[2]


def test_freeze_train_and_see_that_nothing_frozen_moved(cli: Run, fixtures: Path) -> None:
    into = ["resnet18.pth", "--into", "reid.py:ReID", "-r", "resnet-to-ibn"]
    code, out, _ = cli("transplant", *into, "-o", "start.pth", "--snippet")
    assert code == 0
    lines = out[out.index("import functools") : out.index("wrote start.pth")]
    ran = subprocess.run([sys.executable, "-c", lines + TRAINING], cwd=fixtures, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    moved = set(ran.stdout.split())
    assert moved == {
        "bottleneck.weight", "bottleneck.running_mean", "bottleneck.running_var", "bottleneck.num_batches_tracked",
        "classifier.weight",
    }  # fmt: skip
    code, out, _ = cli("diff", "start.pth", "trained.pth")
    assert code == 1
    (row,) = [line for line in out.splitlines() if line.startswith("=") and "base.*" in line]
    assert "identical" in row
    (fixtures / "ckptool.toml").write_text('drift = {from = "start.pth", keys = "base.*", rel = 0.0}\n')
    assert cli("check", "trained.pth", "--policy", "ckptool.toml")[0] == 0
    assert "initial" not in cli("inspect", "trained.pth")[1]
    state = read(fixtures / "trained.pth")
    state["base.conv1.weight"][0, 0, 0, 0] += 1
    torch.save(state, fixtures / "trained.pth")
    code, out, _ = cli("check", "trained.pth", "--policy", "ckptool.toml")
    assert code == 1
    assert "base.conv1.weight" in out


def test_what_is_frozen_stays_so_in_copies(cli: Run, fixtures: Path) -> None:
    """Copied, saved whole, averaged, distributed, switched to training again: after the snippet, and after a report."""
    code, out, _ = cli(
        "transplant", "resnet18.pth", "--into", "reid.py:ReID", "-r", "resnet-to-ibn", "-o", "start.pth", "--snippet"
    )
    assert code == 0
    lines = out[out.index("import functools") : out.index("wrote start.pth")]
    report = (
        "import torch, ckptool, reid\nmodel = reid.ReID()\n"
        "report = ckptool.load_into(model, 'start.pth', drop=['classifier', 'bottleneck'])\nreport.freeze(model)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", lines + COPIES + report + COPIES], cwd=fixtures, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr


def test_an_imagenet_head_becomes_one_of_751_classes(cli: Run, fixtures: Path, nets: Any) -> None:
    into = ["resnet18.pth", "--into", "models.py:ResNet18", "--model-arg", "num_classes=751"]
    code, out, _ = cli("transplant", *into, "-o", "new.pth")
    assert code == 0
    assert "[100,16]" in out
    new, old = loaded(nets.ResNet18(num_classes=751), fixtures / "new.pth"), read(fixtures / "resnet18.pth")
    body = nets.Body()
    body.load_state_dict({key: value for key, value in old.items() if not key.startswith("fc.")})
    features = body.eval()(IMAGE).mean((2, 3))
    assert torch.allclose(new(IMAGE), new.fc(features), atol=1e-6)
    assert new(IMAGE).shape == (2, 751)
    told = cli("diff", "resnet18.pth", "new.pth")[1]
    assert told.splitlines()[1].endswith("the new one has 751 classes instead of 100 classes")


def test_back_from_the_trained_model_to_a_plain_backbone(cli: Run, fixtures: Path, nets: Any) -> None:
    assert cli("transplant", "resnet18.pth", "--into", "models.py:Baseline", "-o", "reid.pth")[0] == 0
    state = read(fixtures / "reid.pth")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, fixtures / "trained.ckpt")
    code, out, _ = cli(
        "transplant", "trained.ckpt", "--into", "models.py:Body", "-o", "body.pth", "--min-coverage", "1"
    )
    assert code == 0, out
    body = loaded(nets.Body(), fixtures / "body.pth")
    old = nets.Body()
    old.load_state_dict({key: value for key, value in read(fixtures / "resnet18.pth").items() if key[:3] != "fc."})
    assert torch.equal(body(IMAGE), old.eval()(IMAGE))
    assert "initial" not in cli("inspect", "body.pth")[1]
    code, out, _ = cli("transplant", "trained.ckpt", "--into", "models.py:ResNet18", "-o", "whole.pth")
    assert code == 0
    assert "2 tensors hold initial values: fc.*" in cli("inspect", "whole.pth")[1]


def test_back_from_ibn_to_a_plain_backbone(cli: Run, fixtures: Path, nets: Any) -> None:
    """The statistics of the instance norms were never kept, so their halves are left to the model, and this is said."""
    assert cli("transplant", "resnet18.pth", "--into", "reid.py:ReID", "-r", "resnet-to-ibn", "-o", "reid.pth")[0] == 0
    into = ["transplant", "reid.pth", "--into", "models.py:Body", "--model-arg", "ibn=true"]
    assert cli(*into, "-o", "ibn.pth", "--min-coverage", "1")[0] == 0
    first, second = loaded(nets.ReID(), fixtures / "reid.pth"), loaded(nets.Body(ibn=True), fixtures / "ibn.pth")
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.base.state_dict().items())
    code, out, _ = cli("transplant", "reid.pth", "--into", "models.py:Body")
    assert code == 0
    assert "and the norm after it, layer1.0.bn1, has initial values" in out


def test_between_detectron2_and_ibn(cli: Run, fixtures: Path, nets: Any) -> None:
    """The names of detectron2's backbones into IBN-a under `base.`, and back: the answer names the command."""
    assert cli("remap", "resnet18.pth", "-r", "torchvision-resnet-to-detectron2", "-o", "d2.pth")[0] == 0
    code, _, err = cli("transplant", "d2.pth", "--into", "reid.py:ReID")
    assert code == 2
    assert cli(*named(err, "resnet-to-ibn"), "-o", "ours.pth")[0] == 0
    straight = ["transplant", "resnet18.pth", "--into", "reid.py:ReID", "-r", "resnet-to-ibn"]
    assert cli(*straight, "-o", "straight.pth")[0] == 0
    ours, expected = read(fixtures / "ours.pth"), read(fixtures / "straight.pth")
    assert all(torch.equal(ours[key], value) for key, value in expected.items())
    loaded(nets.ReID(), fixtures / "ours.pth")
    code, _, err = cli("transplant", "ours.pth", "--into", "d2.pth")
    assert code == 2
    assert cli(*named(err, "torchvision-resnet-to-detectron2"), "-o", "back.pth")[0] == 0
    back, old = read(fixtures / "back.pth"), read(fixtures / "d2.pth")
    assert all(torch.equal(back[key], value) for key, value in old.items())
    shown = cli(*named(err, "torchvision-resnet-to-detectron2"))[1]
    assert f"{6 * 4 + 2} of 122 tensors of d2.pth are missing" in shown, "the norms that were split, and the head"


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["--into", "models.py:ResNet18", "--drop", "fc."], "--drop fc.*"),
        (["--into", "models.py:Resnet18"], "--into models.py:ResNet18"),
        (["--into", "reid.py"], "--into reid.py:ReID"),
        (["--into", "reid.py:ReID", "-r", "ibn"], "-r resnet-to-ibn"),
        (["--into", "reid.py:ReID", "-r", "resnet_to_ibn"], "-r resnet-to-ibn"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(arguments: list[str], meant: str, cli: Run) -> None:
    code, _, err = cli("transplant", "resnet18.pth", *arguments)
    assert code == 2
    option, value = meant.split()
    assert value in err.partition("help:")[2]
    words = [value if at and arguments[at - 1] == option else word for at, word in enumerate(arguments)]
    assert cli("transplant", "resnet18.pth", *words)[0] == 0
