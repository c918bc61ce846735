"""What a re-identification project tries after the seven jobs: other layouts, other sources, other ways back."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from console import Run, runner
from torch import nn

import ckptool
from ckptool.core.errors import CkptError
from ckptool.facts.signatures import _texts, candidates

VARIANTS = """
import copy

from torch import nn
from models import WIDTH, Body, ViT


class Branches(nn.Module):
    \"\"\"The last stage three times: global, part and attention branch.\"\"\"

    def __init__(self):
        super().__init__()
        self.base = Body(last_stride=1)
        stage = self.base.layer4
        del self.base.layer4
        self.global_branch, self.part_branch, self.attention_branch = (copy.deepcopy(stage) for _ in range(3))
        self.classifier = nn.Linear(8 * WIDTH, 751, bias=False)


class MeanTeacher(nn.Module):
    def __init__(self, ibn: bool = False):
        super().__init__()
        self.student, self.teacher = Body(ibn), Body(ibn)


class Tokens(nn.Module):
    \"\"\"TransReID: positions on a grid that is not square, which a layer states, and a token for each camera.\"\"\"

    def __init__(self, rows: int = 21, columns: int = 10):
        super().__init__()
        self.base = ViT()
        self.base.patch_embed.num_y, self.base.patch_embed.num_x = rows, columns
        self.base.pos_embed = nn.Parameter(self.base.pos_embed.new_zeros(1, rows * columns + 1, 8))
        self.base.sie_embed = nn.Parameter(self.base.pos_embed.new_zeros(6, 1, 8))
        del self.base.head


class Jigsaw(Tokens):
    \"\"\"TransReID's JPM: two branches that begin as copies of the last block and the norm.\"\"\"

    def __init__(self):
        super().__init__()
        last = nn.Sequential(self.base.blocks[-1], self.base.norm)
        self.b1, self.b2 = copy.deepcopy(last), copy.deepcopy(last)


class Deeper(nn.Module):
    \"\"\"A decoder of blocks that are like those of the encoder, and are not copies of one of them.\"\"\"

    def __init__(self):
        super().__init__()
        self.encoder = ViT()
        self.decoder_blocks = copy.deepcopy(self.encoder.blocks)


class Margin(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = Body(ibn=True)
        self.bottleneck = nn.BatchNorm1d(8 * WIDTH)
        self.arcface = nn.Linear(8 * WIDTH, 751, bias=False)
"""


@pytest.fixture
def cli(fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    (fixtures / "variants.py").write_text(VARIANTS)
    monkeypatch.setenv("COLUMNS", "400")
    return runner(fixtures, monkeypatch, capsys)


@pytest.fixture
def nets(cli: Run, fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    for name in ("models", "variants"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(fixtures))
    yield importlib.import_module("variants")
    for name in ("models", "variants"):
        sys.modules.pop(name, None)


def read(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return state


def advised(text: str) -> list[str]:
    """The words of the last command on a screen that fills more."""
    commands = re.findall(r"ckptool (transplant .*)", text)
    return shlex.split(commands[-1])


def two_encoders(fixtures: Path, names: tuple[str, str]) -> dict[str, torch.Tensor]:
    """A file with the model twice, as MoCo and BYOL write it."""
    whole = read(fixtures / "resnet18.pth")
    both = {f"{names[0]}{key}": value for key, value in whole.items()}
    both |= {f"{names[1]}{key}": value + 1 for key, value in whole.items()}
    torch.save({"state_dict": both, "epoch": 200}, fixtures / "two.pth")
    return whole


def test_what_is_unexpected_has_the_names_of_the_file(cli: Run, fixtures: Path) -> None:
    """A row that begins with + can be pasted after --drop, whatever prefixes are seen through, and means no more."""
    trained = {f"module.base.{key}": value for key, value in read(fixtures / "resnet18.pth").items()}
    trained["module.bottleneck.weight"] = torch.ones(16)
    torch.save(trained, fixtures / "trained.pth")
    for asked in (
        ["resnet18.pth", "--into", "models.py:Baseline"],
        ["resnet18.pth", "--into", "variants.py:Margin", "-r", "resnet-to-ibn"],
        ["trained.pth", "--into", "models.py:Body"],
        ["trained.pth", "--into", "variants.py:Margin", "-r", "resnet-to-ibn"],
    ):
        code, out, _ = cli("transplant", *asked)
        assert code == 0
        (row,) = [line for line in out.splitlines() if line.startswith("+ ")]
        *patterns, _, _, _ = re.split(r"  +", row[3:])
        loaded = next(line for line in out.splitlines() if line.startswith("loaded:"))
        code, out, _ = cli("transplant", *asked, *(word for pattern in patterns for word in ("--drop", pattern)))
        assert code == 0
        assert loaded in out
        assert not [line for line in out.splitlines() if line.startswith("+ ")]


def test_a_stage_goes_into_each_of_three_branches(cli: Run, fixtures: Path, nets: ModuleType) -> None:
    said = "".join(cli("transplant", "resnet18.pth", "--into", "variants.py:Branches")[1:])
    assert '"layer4." into "global_branch." and "part_branch." and "attention_branch."' in said
    assert cli(*advised(said), "-o", "new.pth")[0] == 0
    old, model = read(fixtures / "resnet18.pth"), nets.Branches()
    model.load_state_dict(read(fixtures / "new.pth"), strict=True)
    for branch in (model.global_branch, model.part_branch, model.attention_branch):
        stage = nets.Body(last_stride=1).layer4
        stage.load_state_dict({key[7:]: value for key, value in old.items() if key.startswith("layer4.")})
        image = torch.randn(1, 8, 4, 4)
        assert torch.equal(stage.eval()(image), branch.eval()(image))
    assert model.global_branch[0].conv1.weight.data_ptr() != model.part_branch[0].conv1.weight.data_ptr()
    assert all(torch.equal(value, old[key]) for key, value in model.base.state_dict().items())


@pytest.mark.parametrize("ibn", [False, True])
def test_student_and_teacher_are_both_filled(ibn: bool, cli: Run, fixtures: Path, nets: ModuleType) -> None:
    code, _, err = cli("transplant", "resnet18.pth", "--into", "variants.py:MeanTeacher", "--model-arg", f"ibn={ibn}")
    assert code == 2
    assert cli(*advised(err), "-o", "new.pth")[0] == 0
    model = nets.MeanTeacher(ibn)
    model.load_state_dict(read(fixtures / "new.pth"), strict=True)
    old = read(fixtures / "resnet18.pth")
    for net in (model.student, model.teacher):
        shared = {key: value for key, value in net.state_dict().items() if key in old}
        assert len(shared) == (120 if not ibn else 90)
        assert all(torch.equal(value, old[key]) for key, value in shared.items())
        assert not ibn or not torch.equal(net.layer1[0].bn1.IN.weight, torch.ones(1)), "halves of the norms, too"


@pytest.mark.parametrize("names", [("module.encoder_q.", "module.encoder_k."), ("net.online.", "net.target.")])
def test_rules_for_a_file_with_two_encoders(names: tuple[str, str], cli: Run, fixtures: Path, nets: ModuleType) -> None:
    """The first thing that is typed names the recipe; the answer says which of the two comes first, in one command."""
    two_encoders(fixtures, names)
    code, _, err = cli("transplant", "two.pth", "--into", "variants.py:Margin", "-r", "resnet-to-ibn")
    assert code == 2
    assert all(f'"{name}"' in err for name in names)
    assert cli(*advised(err), "-o", "new.pth")[0] == 0
    straight = ["transplant", "resnet18.pth", "--into", "variants.py:Margin", "-r", "resnet-to-ibn"]
    assert cli(*straight, "-o", "straight.pth")[0] == 0
    new, straight_state = read(fixtures / "new.pth"), read(fixtures / "straight.pth")
    assert all(torch.equal(new[key], value) for key, value in straight_state.items())
    nets.Margin().load_state_dict(new, strict=True)


def test_from_ibn_back_to_the_plain_backbone(cli: Run, fixtures: Path, nets: ModuleType) -> None:
    """The recipe is named; statistics that never were are recomputed, and the file is known to lack them until then."""
    into = ["resnet18.pth", "--into", "variants.py:Margin", "-r", "resnet-to-ibn"]
    assert cli("transplant", *into, "-o", "trained.pth")[0] == 0
    code, out, _ = cli("transplant", "trained.pth", "--into", "models.py:Body")
    assert code == 0
    code, out, _ = cli(*advised(out), "-o", "plain.pth")
    assert code == 0
    assert "update_bn" in out
    old, new = read(fixtures / "resnet18.pth"), read(fixtures / "plain.pth")
    lost = {key for key, value in new.items() if not torch.equal(value, old[key])}
    assert lost == {f"layer{s}.{b}.bn1.running_{p}" for s in (1, 2, 3) for b in (0, 1) for p in ("mean", "var")}
    assert "12 tensors hold initial values" in cli("inspect", "plain.pth")[1]
    body = nets.Body()
    body.load_state_dict(new, strict=True)
    torch.optim.swa_utils.update_bn([torch.randn(8, 3, 64, 64)], body)
    assert body.eval()(torch.randn(2, 3, 64, 64)).isfinite().all()
    assert cli("remap", "trained.pth", "-r", "ibn-to-resnet")[0] in (0, 2)


def test_positions_on_the_grid_that_the_model_states(cli: Run, fixtures: Path, nets: ModuleType) -> None:
    code, out, _ = cli("transplant", "deit.pth", "--into", "variants.py:Tokens", "--drop", "head")
    assert code == 0
    words = advised(out)
    assert words[-2:] == ["--mismatch", "fit"]
    assert cli(*words, "-o", "new.pth")[0] == 0
    explicit = ["transplant", "deit.pth", "--into", "variants.py:Tokens", "--drop", "head"]
    assert cli(*explicit, "--fit", "base.pos_embed=grid(target_grid=(21, 10))", "-o", "named.pth")[0] == 0
    usual, named = (read(fixtures / name)["base.pos_embed"] for name in ("new.pth", "named.pth"))
    assert torch.equal(usual, named)
    old = read(fixtures / "deit.pth")["pos_embed"]
    tokens, grid = old[:, :1], old[:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    sized = nn.functional.interpolate(grid, (21, 10), mode="bicubic", antialias=True, align_corners=False)
    expected = torch.cat([tokens, sized.flatten(2).transpose(1, 2)], 1)
    assert torch.allclose(usual, expected, atol=1e-5)


@pytest.mark.parametrize("asked", [["--mismatch", "fit"], ["--fit", "base.pos_embed=grid(target_grid=(21, 10))"]])
def test_advice_counts_what_is_made_to_fit(asked: list[str], cli: Run) -> None:
    _, _, err = cli("transplant", "vit-hf.safetensors", "--into", "variants.py:Tokens", *asked)
    said = int(re.findall(r"--match auto would fill (\d+) more tensors", err)[0])
    _, out, _ = cli(*advised(err))
    assert re.findall(r"(\d+) of 31 tensors", out)[-1] == str(said) == "30"


def test_branches_that_are_copies_of_the_last_block(cli: Run, fixtures: Path) -> None:
    _, out, _ = cli("transplant", "deit.pth", "--into", "variants.py:Jigsaw", "--mismatch", "fit")
    assert "30 of 59 tensors" in out
    assert 'rules would fill 28 more tensors, as copies: "blocks.1." into "b1.0." and "b2.0."' in out
    code, out, _ = cli(*advised(out), "-o", "new.pth")
    assert code == 0
    assert "58 of 59 tensors" in out
    old, new = read(fixtures / "deit.pth"), read(fixtures / "new.pth")
    for branch in ("b1", "b2"):
        assert torch.equal(new[f"{branch}.0.attn.qkv.weight"], old["blocks.1.attn.qkv.weight"])
        assert torch.equal(new[f"{branch}.1.bias"], old["norm.bias"])
    _, out, _ = cli("transplant", "deit.pth", "--into", "variants.py:Deeper")
    assert "as copies" not in out


def test_an_advised_command_keeps_what_was_asked(cli: Run) -> None:
    asked = ["transplant", "resnet18.pth", "--into", "variants.py:Margin", "--mismatch", "fit", "--new", "arcface"]
    words = advised(cli(*asked)[1])
    assert words[-2:] == ["-r", "resnet-to-ibn"]
    assert set(asked) <= set(words)


@pytest.mark.parametrize("columns", ["60", "80", "100"])
def test_an_advised_command_is_pasted_into_a_shell(
    columns: str, cli: Run, fixtures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a terminal breaks into lines is one command for the shell that it is pasted into."""
    two_encoders(fixtures, ("module.encoder_q.", "module.encoder_k."))
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", "1")  # a screen, which breaks lines
    monkeypatch.setenv("TERM", "dumb")
    for asked in (["two.pth", "--into", "variants.py:Margin"], ["resnet18.pth", "--into", "variants.py:Margin"]):
        said = "".join(cli("transplant", *asked, "--new", "arcface", "--color", "never")[1:])
        plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
        (lines,) = re.findall(r"^ *(?:help: )?(ckptool transplant (?:.*\\\n)*.*)$", plain, re.MULTILINE)
        assert all(len(line) <= int(columns) for line in lines.splitlines())
        program = """ckptool() { printf '%s\\0' "$@"; }; """
        words = subprocess.run(["sh", "-c", program + lines], capture_output=True, text=True, check=True).stdout
        code, out, err = cli(*words.split("\0")[:-1], "-o", "new.pth")
        assert code == 0, err
        assert "partly loaded" not in out
        (fixtures / "new.pth").unlink()


def test_two_models_that_have_nothing_in_common(cli: Run) -> None:
    """What cannot be done is not advised: the answer says what both are."""
    code, _, err = cli("transplant", "deit.pth", "--into", "models.py:ResNet18")
    assert code == 2
    assert "--match auto" not in err
    assert "resnet18 (torchvision names)" in err


def test_strangers_without_a_common_name(cli: Run, fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a.x": torch.ones(2, 3)}, fixtures / "a.pth")
    torch.save({"b.y": torch.ones(5, 7)}, fixtures / "b.pth")
    code, _, err = cli("transplant", "a.pth", "--into", "b.pth")
    assert code == 2
    assert 'the source has "a.x", the model "b.y"; no built-in recipe and no match fits' in err
    monkeypatch.setattr("ckptool.commands.transplant.suggest._MANY_TO_MATCH", 0)  # too large to be matched unasked
    code, _, err = cli("transplant", "a.pth", "--into", "b.pth")
    assert code == 2
    assert "this looks for rules: ckptool transplant a.pth --into b.pth --match auto" in err
    with pytest.raises(CkptError) as caught:
        ckptool.plan_transplant("a.pth", "b.pth")
    assert "ckptool.match(SOURCE, MODEL).recipe looks for rules" in str(caught.value.hint)


def test_python_says_its_own_arguments(fixtures: Path, nets: ModuleType) -> None:
    model = nets.Margin()
    report = ckptool.load_into(model, fixtures / "resnet18.pth")
    assert "recipe='resnet-to-ibn' would fill 36 more tensors" in str(report)
    assert "ckptool transplant" not in str(report)
    assert ckptool.load_into(model, fixtures / "resnet18.pth", recipe="resnet-to-ibn").coverage > report.coverage
    two_encoders(fixtures, ("encoder_q.", "encoder_k."))
    with pytest.raises(CkptError) as caught:
        ckptool.load_into(model, fixtures / "two.pth")
    (words,) = re.findall(r"recipe=(\[.*?\]) would", caught.value.hint or "")
    rules = [text.strip("' ") for text in words.strip("[]").split("', '")]
    assert ckptool.load_into(model, fixtures / "two.pth", recipe=rules).coverage > report.coverage


def test_ties_of_whole_modules_are_one(cli: Run, fixtures: Path) -> None:
    whole = read(fixtures / "resnet18.pth")
    torch.save({f"{name}{key}": value for name in ("net.", "online.net.") for key, value in whole.items()}, "tied.pth")
    out = cli("inspect", "tied.pth")[1]
    assert "tied: net.* = online.net.* (122 tensors each)" in out
    shared = torch.ones(3, 2)
    torch.save({"lm_head.weight": shared, "wte.weight": shared, "norm.weight": torch.ones(2)}, "lm.pth")
    assert "tied: lm_head.weight = wte.weight\n" in cli("inspect", "lm.pth")[1]


def test_a_margin_loss_is_a_classifier_and_few_absent_counters_are_few(cli: Run, fixtures: Path) -> None:
    assert (
        cli("transplant", "resnet18.pth", "--into", "variants.py:Margin", "-r", "resnet-to-ibn", "-o", "m.pth")[0] == 0
    )
    assert "IBN-a; neck: bnneck, 751 classes" in cli("inspect", "m.pth")[1]
    state = read(fixtures / "m.pth")
    del state["bottleneck.num_batches_tracked"]
    torch.save(dict(state), fixtures / "few.pth")
    assert "1 of 21 BatchNorms has no counter (num_batches_tracked)" in cli("inspect", "few.pth")[1]


def test_the_model_to_take_is_there_under_every_spelling() -> None:
    """The prefix that a way of training advises to take begins a key that the row asks for, in each spelling."""
    parts = {part for text in _texts() for part in re.findall(r"[A-Za-z0-9_]+", text)}
    rows = list(candidates("training", parts))
    assert len(rows) > 5
    for signature in rows:
        take = signature.row["take"]
        for spelling in range(max(len(key.names) for key in signature.has)):
            names = [key.names[min(spelling, len(key.names) - 1)] for key in signature.has]
            assert any(name.startswith(take) for name in names), (take, names)
