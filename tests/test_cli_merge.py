"""`ckptool merge` as a user sees it: golden screens, the union, methods, adapters, errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from console import Run, runner
from documents import record_documents, same_report
from safetensors.torch import load_file, save_file

import ckptool
from ckptool.commands.merging.methods import METHODS

State = dict[str, torch.Tensor]


@pytest.fixture
def cli(fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in the fixtures folder, beside further models; gives (exit code, stdout, stderr)."""
    state: State = torch.load(fixtures / "resnet18.pth", weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for number in (8, 9, 10):
        changed = {
            key: tensor + 0.01 * torch.randn(tensor.shape, generator=generator)
            if tensor.is_floating_point()
            else tensor + number
            for key, tensor in state.items()
        }
        torch.save(changed, fixtures / f"step-{number}.pth")
    (fixtures / "adapter").mkdir()
    prefix = "base_model.model.fc"
    factors = {"A": torch.randn(4, 16, generator=generator), "B": torch.randn(100, 4, generator=generator)}
    save_file(
        {f"{prefix}.lora_{name}.weight": factor for name, factor in factors.items()},
        fixtures / "adapter" / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    (fixtures / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    return runner(fixtures, monkeypatch, capsys)


def load(path: Path) -> State:
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


STEPS = ["step-8.pth", "step-9.pth", "step-10.pth"]
SCREENS = {
    "union": ["resnet18.pth", "tuned.safetensors"],
    "only": ["resnet18-102.pth", "resnet18.pth"],
    "linear": [*STEPS, "--method", "linear", "--weights", "0.5,0.3,0.2"],
    "ties": [*STEPS[:2], "--method", "ties", "--base", "resnet18.pth", "--param", "density=0.3"],
    "intersect": ["resnet18.pth", "tuned.safetensors", "--method", "linear", "--intersect"],
    "lora": ["resnet18.pth", "--lora", "adapter", "--scale", "0.5", "--dtype", "bf16"],
}


@pytest.mark.parametrize("name", SCREENS)
def test_screens(name: str, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = record_documents(monkeypatch)
    for columns in (80, 160):
        code, out, err = cli("merge", *SCREENS[name], columns=columns)
        assert (code, err) == (0, "")
        assert out.splitlines()[-1] == "nothing written; add -o PATH"
        same_report(f"merge-{name}", columns, out, documents)


def test_later_files_win_as_update_does(cli: Run, fixtures: Path) -> None:
    assert cli("merge", "resnet18.pth", "tuned.safetensors", "step-8.pth", "-o", "out.pth")[0] == 0
    expected: State = {}
    for name in ("resnet18.pth", "tuned.safetensors", "step-8.pth"):
        expected.update(load(fixtures / name))
    found = load(fixtures / "out.pth")
    assert list(found) == list(load(fixtures / "resnet18.pth"))
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_mean_as_torch_computes_it(cli: Run, fixtures: Path) -> None:
    assert cli("merge", *STEPS, "--method", "linear", "--weights", "1,1,2", "-o", "mean.safetensors")[0] == 0
    models = [load(fixtures / name) for name in STEPS]
    found = load(fixtures / "mean.safetensors")
    for key, first in models[0].items():
        if first.is_floating_point():
            a, b, c = (model[key].double() for model in models)
            assert torch.allclose(found[key].double(), (a + b + 2 * c) / 4, rtol=1e-7, atol=1e-9), key
        else:
            assert torch.equal(found[key], first)


def test_the_last_are_chosen_by_their_numbers(cli: Run, fixtures: Path) -> None:
    code, out, _ = cli("merge", *sorted(STEPS), "--last", "2", "--method", "linear", "-o", "mean.pth")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["step-9.pth", "step-10.pth"]


def test_an_adapter_is_merged(cli: Run, fixtures: Path) -> None:
    assert cli("merge", "resnet18.pth", "--lora", "adapter", "--scale", "0.5", "-o", "out.pth")[0] == 0
    base, found = load(fixtures / "resnet18.pth"), load(fixtures / "out.pth")
    factors = load(fixtures / "adapter" / "adapter_model.safetensors")
    a, b = (factors[f"base_model.model.fc.lora_{name}.weight"].double() for name in "AB")
    expected = (base.pop("fc.weight").double() + 0.5 * 8 / 4 * (b @ a)).float()
    assert torch.allclose(found.pop("fc.weight"), expected, rtol=1e-6)
    assert all(torch.equal(found[key], base[key]) for key in base)


def test_files_of_one_name_are_told_apart(cli: Run, fixtures: Path) -> None:
    for folder in ("a", "b"):
        (fixtures / folder).mkdir()
        shutil.copy(fixtures / "resnet18.pth", fixtures / folder / "model.pth")
    _, out, _ = cli("merge", "a/model.pth", "b/model.pth")
    assert "from b/model.pth, replaces a/model.pth" in out


def test_averaged_statistics_are_warned_of(cli: Run) -> None:
    _, out, _ = cli("merge", *STEPS, "--method", "linear", columns=160)
    assert "warning: 40 BatchNorm statistics are averaged" in out
    assert "update_bn" in out
    assert "BatchNorm" not in cli("merge", "resnet18.pth", "step-8.pth")[1]


def test_keys_that_do_not_line_up_are_listed(cli: Run, fixtures: Path) -> None:
    code, _, err = cli("merge", "resnet18.pth", "tuned.safetensors", "--method", "linear", "-o", "x.pth", columns=160)
    assert code == 2
    assert "2 keys do not line up" in err
    assert "fc.weight: resnet18.pth f32[100,16], tuned.safetensors f32[10,16]" in err
    assert "fc.bias: resnet18.pth f32[100], tuned.safetensors f32[10]" in err
    assert "--intersect" in err
    assert not (fixtures / "x.pth").exists()
    for option, many in (("--intersect", 120), ("--union", 122)):
        assert (
            cli("merge", "resnet18.pth", "tuned.safetensors", "--method", "linear", option, "-o", f"x{many}.pth")[0]
            == 0
        )
        assert len(load(fixtures / f"x{many}.pth")) == many


ERRORS = {
    "one input": (["resnet18.pth"], "nothing to merge"),
    "method": (["resnet18.pth", "shards", "--method", "tie"], "did you mean ties?"),
    "unknown method": (["resnet18.pth", "shards", "--method", "qq"], "one of linear"),
    "one weight": (["resnet18.pth", "shards", "--method", "linear", "--weights", "1"], "1 weight for 2 inputs"),
    "option": (["resnet18.pth", "shards", "--method", "linear", "--param", "t=1"], 'no option "t"'),
    "value": (["resnet18.pth", "shards", "--method", "slerp", "--param", "t"], "is not NAME=NUMBER"),
    "weights": (["resnet18.pth", "shards", "--method", "linear", "--weights", "1,2,3"], "3 weights for 2 inputs"),
    "no numbers": (["resnet18.pth", "shards", "--method", "linear", "--weights", "1;2"], "are not numbers"),
    "weights alone": (["resnet18.pth", "shards", "--weights", "1,2"], "--weights needs a --method"),
    "union alone": (["resnet18.pth", "shards", "--union"], "--union needs a --method"),
    "both": (["resnet18.pth", "shards", "--union", "--intersect"], "exclude each other"),
    "no base": (["resnet18.pth", "shards", "--method", "ties"], "--base"),
    "scale": (["resnet18.pth", "shards", "--scale", "2"], "--scale is for an adapter"),
    "two bases": (["resnet18.pth", "shards", "--lora", "adapter"], "--lora takes one base model, not 2"),
    "lora and method": (["resnet18.pth", "--lora", "adapter", "--method", "linear"], "exclude each other"),
    "no adapter": (["resnet18.pth", "--lora", "shards"], "no adapter_config.json"),
    "last": (["resnet18.pth", "shards", "--last", "3"], "--last 3 of 2 inputs"),
    "input": (["resnet18.pth", "shards", "-o", "shards", "--force"], "also an input"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str, cli: Run) -> None:
    arguments, said = ERRORS[name]
    code, _, err = cli("merge", *arguments, columns=160)
    assert code == 2
    assert err.startswith("error: ")
    assert said in err


def test_methods_are_listed(cli: Run) -> None:
    code, out, _ = cli("merge", "--methods", columns=80)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert [line.split()[0] for line in out.splitlines()[1:] if not line.startswith(" ")] == list(METHODS)
    for default in ("(t=0.5)", "density=0.5", "gamma=0.01", "decay=0.999"):
        assert default in out


def test_json_names_each_input(cli: Run) -> None:
    code, out, err = cli("merge", *STEPS[:2], "--method", "linear", "--json", "-o", "out.safetensors")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [side["path"] for side in found["inputs"]] == STEPS[:2]
    step = found["steps"][0]
    assert step["sources"] == [{"input": number, "key": "conv1.weight"} for number in (0, 1)]
    assert step["op"].startswith("linear")
    assert found["written"]["tensors"] == 122
    assert "warning" in [note["level"] for note in found["notes"]]


def test_from_python(fixtures: Path, cli: Run) -> None:
    paths = [fixtures / name for name in STEPS]
    opened = [ckptool.open(path) for path in paths]
    plan = ckptool.plan_merge([*paths[:2], opened[2]], method="task-arithmetic", base=fixtures / "resnet18.pth")
    assert plan.apply(fixtures / "out.pth").tensors == 122
