"""`ckptool transplant` as a user sees it: golden screens, files that are written, gates, errors, formats."""

from __future__ import annotations

import html
import json
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from console import Run, runner, shell
from documents import record_documents, same_report

from ckptool.recipes.recipe import load_recipe

NET = ["--into", "models.py:ResNet18"]
REID = ["resnet18.pth", "--into", "models.py:Baseline", "--drop", "fc.*", "--init", "classifier.weight=normal(0.001)"]
VIT = ["deit.pth", "--into", "models.py:ViT", "--model-arg", "img_size=384", "--model-arg", "num_classes=10"]

SCREENS = {
    "old": ["resnet18-102.pth", *NET],
    "tuned": ["tuned.safetensors", *NET],
    "wrapped": ["training.ckpt", *NET],
    "backbone": ["resnet18.pth", "--into", "models.py:Backbone"],
    "reid": REID,
    "ibn": ["resnet18.pth", *NET, "--model-arg", "ibn=true", "-r", "resnet-to-ibn"],
    "vit": [*VIT, "--model-arg", "in_chans=1", "--mismatch", "fit"],
    "checkpoint": ["tuned.safetensors", "--into", "resnet18.pth"],
    "verbose": ["deit.pth", "--into", "models.py:ViT", "--depth", "2", "-v"],
}


@pytest.fixture
def cli(fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in the fixtures folder; gives (exit code, stdout, stderr)."""
    return runner(fixtures, monkeypatch, capsys)


@pytest.mark.parametrize("name", SCREENS)
def test_screens(name: str, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = record_documents(monkeypatch)
    for columns in (80, 160):
        code, out, err = cli("transplant", *SCREENS[name], columns=columns)
        assert (code, err) == (0, "")
        assert out.splitlines()[-1] == "nothing written; add -o PATH    as a recipe: --save-recipe FILE"
        same_report(f"transplant-{name}", columns, out, documents)


def test_what_is_written_loads_and_the_last_line_says_so(cli: Run, fixtures: Path) -> None:
    for name in ("out.pth", "out.safetensors", "out"):
        code, out, err = cli("transplant", "tuned.safetensors", *NET, "-o", name)
        assert (code, err) == (0, "")
        assert out.splitlines()[-1] == "loads into models.py:ResNet18 with strict=True: yes"
    wrapped = cli("transplant", "tuned.safetensors", *NET, "-o", "wrapped.pth", "--wrap", "model")[1]
    assert wrapped.splitlines()[-1].endswith("yes")
    assert list(torch.load(fixtures / "wrapped.pth", weights_only=True)) == ["model"]
    part = cli("transplant", "tuned.safetensors", *NET, "-o", "part.pth", "--only-loaded")[1]
    assert part.splitlines()[-1] == "loads into models.py:ResNet18 with strict=False: 2 keys keep the model's own"


@pytest.mark.parametrize("options", [["--strict"], ["--min-coverage", "0.99"]])
def test_unmet_gates_exit_1_and_write_nothing(options: list[str], cli: Run, fixtures: Path) -> None:
    before = sorted(path.name for path in fixtures.iterdir())
    files = ["-o", "out.pth", "--save-recipe", "r.toml", "--freeze-list", "f.txt"]
    code, _, err = cli("transplant", "tuned.safetensors", *NET, *options, *files)
    assert code == 1
    assert "fc.weight" in err or "87.40%" in err
    assert sorted(path.name for path in fixtures.iterdir()) == before
    assert cli("transplant", "resnet18.pth", *NET, *options, *files)[0] == 0


ERRORS = {
    "nothing would be loaded: no key is a key": ["deit.pth", *NET],
    "in both, with other shapes": ["resnet18.pth", "--into", "torchvision:resnet18"],
    '--drop "head.*" matches none': ["resnet18.pth", *NET, "--drop", "head.*"],
    '--fit "pos=grid" matches none': ["resnet18.pth", *NET, "--fit", "pos=grid"],
    "is not PATTERN=HOW": ["resnet18.pth", *NET, "--init", "fc"],
    "must be between 0 and 1": ["resnet18.pth", *NET, "--min-coverage", "99"],
    "is also an input": ["resnet18.pth", *NET, "--freeze-list", "resnet18.pth", "--force"],
    "models.py is also an input": ["resnet18.pth", *NET, "--save-recipe", "models.py"],
    "fc.weight is f32[10,16] in the source": ["tuned.safetensors", *NET, "--mismatch", "error"],
    '"fit channels" needs': ["tuned.safetensors", *NET, "--fit", "fc.weight=channels"],
    "--wrap nests": ["resnet18.pth", *NET, "--wrap", "model", "-o", "out.safetensors"],
    "two outputs have one name": ["resnet18.pth", *NET, "--save-recipe", "./out.pth"],
    "has no Net": ["resnet18.pth", "--into", "models.py:Net"],
    "missing option '--into'": ["resnet18.pth"],
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors(message: str, cli: Run, fixtures: Path) -> None:
    before = {path.name: path.read_bytes() for path in fixtures.iterdir() if path.is_file()}
    out = [] if "-o" in ERRORS[message] else ["-o", "out.pth"]
    code, _, err = cli("transplant", *ERRORS[message], *out)
    assert code == 2
    assert message.replace("pos=grid", "pos") in " ".join(err.split())
    assert {path.name: path.read_bytes() for path in fixtures.iterdir() if path.is_file()} == before


# ---------------------------------------------------------------------------------------------- further files

RECIPES = {
    "tuned": ["tuned.safetensors", *NET],
    "wrapped": ["training.ckpt", *NET],
    "backbone": ["resnet18.pth", "--into", "models.py:Backbone"],
    "reid": REID,
    "ibn": ["resnet18.pth", *NET, "--model-arg", "ibn=true", "--model-arg", "num_classes=9", "-r", "resnet-to-ibn"],
    "vit": [*VIT, "--model-arg", "in_chans=1", "--mismatch", "fit"],
    "fit": [*VIT, "--fit", "pos_embed=grid(mode=bilinear)", "--drop", "head", "--seed", "4"],
    "ema": ["training.ckpt", *NET, "--ema", "--drop", "*bn1*", "--drop", "fc"],
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_saved_recipe_does_the_same(name: str, cli: Run, fixtures: Path) -> None:
    path, *options = RECIPES[name]
    code, _, err = cli("transplant", path, *options, "-o", "first.pth", "--save-recipe", "saved.toml")
    assert (code, err) == (0, "")
    model = [word for pair in pairwise(options) for word in pair if is_model(pair[0])]
    code, _, err = cli("transplant", path, *model, "-r", "saved.toml", "-o", "second.pth")
    assert (code, err) == (0, "")
    assert (fixtures / "first.pth").read_bytes() == (fixtures / "second.pth").read_bytes()
    first, second = (
        json.loads(cli("transplant", path, *args, "--json")[1]) for args in (options, [*model, "-r", "saved.toml"])
    )
    assert first["freeze"] == second["freeze"]
    assert first["coverage"] == second["coverage"]
    assert [step["sources"] for step in first["steps"]] == [step["sources"] for step in second["steps"]]
    assert load_recipe(fixtures / "saved.toml").expect.coverage is not None


def is_model(option: str) -> bool:
    return option in ("--into", "--model-arg", "--seed")


def test_a_saved_recipe_goes_back(cli: Run, fixtures: Path) -> None:
    cli("transplant", *REID, "-o", "baseline.pth", "--save-recipe", "reid.toml")
    code, _, err = cli("remap", "baseline.pth", "-r", "reid.toml", "--reverse", "-o", "back.pth")
    assert (code, err) == (0, "")
    back = torch.load(fixtures / "back.pth", weights_only=True)
    for key, tensor in torch.load(fixtures / "resnet18.pth", weights_only=True).items():
        assert key.startswith("fc.") or torch.equal(back[key], tensor)


def test_freeze_list(cli: Run, fixtures: Path) -> None:
    assert cli("transplant", *REID, "--freeze-list", "freeze.txt")[0] == 0
    text = (fixtures / "freeze.txt").read_text()
    parameters, modules = (
        [line for line in part.splitlines() if not line.startswith("#")] for part in text.split("# BatchNorm modules")
    )
    assert len(parameters) == 60 and all(key.startswith("base.") for key in parameters)
    assert modules[1:] == [key.removesuffix(".weight") for key in parameters if re.search(r"bn\d\.w|e\.1\.w", key)]


def test_the_snippet_runs_and_freezes(cli: Run, fixtures: Path) -> None:
    """That of each format, one after the other in a new process; each has names of its own."""
    end = (
        "assert [key for key, p in model.named_parameters() if p.requires_grad and key != 'bottleneck.weight'] == "
        "['classifier.weight'], 'trained'\n"
        "model.eval()\nmodel.train()\n"
        "assert not model.base.bn1.training and model.bottleneck.training\n"
    )
    script = ""
    for out in ("net.pth", "net.safetensors", "net"):
        code, text, _ = cli("transplant", *REID, "-o", out, "--snippet", "--json")
        assert code == 0
        snippet = json.loads(text)["snippet"]
        assert out in snippet
        script += f"exec({snippet + end!r}, {{}})\n"
    done = subprocess.run([sys.executable, "-c", script], cwd=fixtures, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# ---------------------------------------------------------------------------------------------- formats


def test_json(cli: Run) -> None:
    code, out, _ = cli("transplant", "tuned.safetensors", *NET, "-o", "out.pth", "--json")
    found = json.loads(out)
    assert (code, found["schema"], found["exit_code"]) == (0, "ckptool.transplant/1", 0)
    assert found["coverage"] == {"tensors": [120, 122], "elements": [11810, 13510]}
    assert found["counts"] == {"filled": 120, "cast": 0, "fitted": 0, "missing": 0, "mismatched": 2}
    assert found["source_as_it_is"]["mismatched"] == ["fc.weight", "fc.bias"]
    assert found["loads"]["strict"] is True
    entry = found["entries"][-1]
    assert (entry["key"], entry["status"], entry["found"], entry["shape"]) == (
        "fc.bias",
        "mismatched",
        "f32[10]",
        [100],
    )
    assert len(found["steps"]) == 122


def test_markdown(cli: Run) -> None:
    code, out, _ = cli("transplant", *REID, "-o", "out.pth", "--format", "markdown")
    assert code == 0
    assert "| `base.layer1` | 24/24 | 100% |" in out
    assert "(49%)" in html.unescape(out)
    assert "loads into models.py:Baseline with strict=True: yes" in html.unescape(out)


def test_the_code_of_a_model_may_print(fixtures: Path) -> None:
    (fixtures / "loud.py").write_text("print('hello')\nfrom models import ResNet18\nprint('there')\n")
    done = shell("ckptool transplant resnet18.pth --into loud.py:ResNet18 --json", fixtures)
    assert done.returncode == 0
    assert json.loads(done.stdout)["coverage"]["tensors"] == [122, 122]
    assert b"hello" in done.stderr


def test_names_from_a_file_are_shown_not_obeyed(cli: Run, fixtures: Path) -> None:
    state = torch.load(fixtures / "resnet18.pth", weights_only=True)
    state["\x1b[31mred\n::error::x"] = torch.ones(2)
    torch.save(state, fixtures / "odd.pth")
    for form in ("text", "markdown", "json"):
        _, out, err = cli("transplant", "odd.pth", *NET, "--format", form, "-v", "--strict")
        assert "\x1b" not in out + err and "\n::error" not in out + err


def test_a_checkpoint_as_the_model_needs_no_torch(fixtures: Path) -> None:
    code = (
        "import sys; from ckptool.cli.app import run\n"
        "code = run(['transplant', 'tuned.safetensors', '--into', 'resnet18.pth', '-o', 'out.pth'])\n"
        "assert code == 0 and 'torch' not in sys.modules, 'torch'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=fixtures, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


IBN = ["--into", "models.py:ResNet18", "--model-arg", "ibn=true"]


def test_a_recipe_that_would_fill_the_rest_is_named(cli: Run, fixtures: Path) -> None:
    out = cli("transplant", "resnet18.pth", *IBN, columns=160)[1]
    command = next(line.strip() for line in out.splitlines() if line.strip().startswith("ckptool transplant"))
    assert command == f"ckptool transplant resnet18.pth {' '.join(IBN)} -r resnet-to-ibn"
    more = int(re.search(r"-r resnet-to-ibn would fill (\d+) more tensors", out)[1])  # type: ignore[index]
    done = json.loads(cli(*shlex.split(command)[1:], "--json")[1])
    before = json.loads(cli("transplant", "resnet18.pth", *IBN, "--json")[1])
    assert done["coverage"]["tensors"][0] - before["coverage"]["tensors"][0] == more + 6, "with six counters"


def test_check_names_the_recipe_too(cli: Run, fixtures: Path) -> None:
    cli("transplant", "resnet18.pth", *IBN, "-r", "resnet-to-ibn", "-o", "ibn.pth")
    out = cli("check", "resnet18.pth", "--into", "ibn.pth", columns=160)[1]
    assert "ckptool transplant resnet18.pth --into ibn.pth -r resnet-to-ibn" in out


def test_nothing_is_suggested_where_nothing_helps(cli: Run) -> None:
    assert "would fill" not in cli("transplant", "resnet18.pth", "--into", "models.py:Backbone")[1]
    assert "would fill" not in cli("transplant", "resnet18.pth", *IBN, "-r", "resnet-to-ibn")[1]


def test_where_nothing_would_be_loaded_the_way_is_named(cli: Run, fixtures: Path) -> None:
    cli("remap", "resnet18.pth", "-r", "torchvision-resnet-to-detectron2", "-o", "d2.pth")
    code, _, err = cli("transplant", "resnet18.pth", "--into", "d2.pth", columns=160)
    assert code == 2
    command = err.rpartition(": ")[2].split()
    assert command[:2] == ["ckptool", "transplant"] and command[-2:] == ["-r", "torchvision-resnet-to-detectron2"]
    assert cli(*command[1:])[0] == 0
