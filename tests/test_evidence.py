"""Equal names are evidence and no proof; and what an output holds that was never trained is recorded in it."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from console import Run, runner
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

import ckptool
from ckptool.commands.transplant.evidence import doubts, places
from ckptool.core.initial import INITIAL_KEY, recorded_initial
from ckptool.core.plan import sources_of
from ckptool.core.spec import TensorSpec
from ckptool.facts.registry import facts_of
from ckptool.formats.opening import open_checkpoint
from ckptool.matching.prefixes import Swap
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import parse_recipe

NETS = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv = nn.Conv2d(width, 3 * width, 1)

WIDTHS = [3, 4, 8, 8, 8, 12, 12, 8, 8, 4]

class Detector(nn.Module):
    def __init__(self, attention=-1):
        super().__init__()
        blocks = [Block(a, b) for a, b in zip(WIDTHS, WIDTHS[1:])]
        if attention >= 0:
            blocks.insert(attention, Attention(WIDTHS[attention]))
        self.model = nn.ModuleList(blocks)

class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.c_fc = nn.Linear(width, 4 * width)

class Tower(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.resblocks = nn.Sequential(*[Layer(width) for _ in range(2)])

class Image(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 4, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Tower(width)

class Both(nn.Module):
    def __init__(self, image=12, text=8):
        super().__init__()
        self.visual = Image(image)
        self.transformer = Tower(text)
        self.token_embedding = nn.Embedding(20, text)
        self.ln_final = nn.LayerNorm(text)

class Text(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.transformer = Tower(width)
        self.token_embedding = nn.Embedding(20, width)
        self.ln_final = nn.LayerNorm(width)

class Twins(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder_q = Detector()
        self.encoder_k = Detector()
"""


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in a folder with `nets.py`."""
    (tmp_path / "nets.py").write_text(NETS)
    return runner(tmp_path, monkeypatch, capsys)


@pytest.fixture
def nets(cli: Run) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exec(compile(NETS, "nets.py", "exec"), namespace)
    return namespace


def saved(net: nn.Module, path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = net.state_dict()
    torch.save(state, path)
    return state


def suggested(text: str) -> list[str]:
    """The words of the command that a note or an error names, without the program."""
    return shlex.split(text[text.index("ckptool transplant") :].splitlines()[0])[1:]


def flat(text: str) -> str:
    return " ".join(text.split())


# ---------------------------------------------------------------------------------------------- shifted lists


@pytest.mark.parametrize("attention", [1, 2, 4, 8])
def test_a_block_inserted_into_a_numbered_list_loads_nothing_wrong(
    attention: int, cli: Run, nets: dict[str, Any], tmp_path: Path
) -> None:
    old = saved(nets["Detector"](), tmp_path / "old.pth")
    command = ["old.pth", "--into", "nets.py:Detector", "--model-arg", f"attention={attention}"]
    code, out, _ = cli("transplant", *command, "-o", "new.pth", columns=300)
    assert code == 0
    new = torch.load(tmp_path / "new.pth")
    for number in range(9):
        key = f"model.{number}.conv.weight"
        is_loaded = key in new and new[key].shape == old[key].shape and torch.equal(new[key], old[key])
        assert is_loaded == (number < attention)
    assert f"model.{{{attention}-8}}" in out or attention == 8
    rule = f"model.{{i={attention}..8}}. -> model.{{i+1}}."
    assert rule in out
    assert cli(*suggested(out), "-o", "right.pth")[0] == 0
    right = torch.load(tmp_path / "right.pth")
    for number in range(9):
        key = f"model.{number}.conv.weight"
        assert torch.equal(right[f"model.{number + (number >= attention)}.conv.weight"], old[key])
    gate = cli("transplant", *command, "--min-coverage", "0.7")
    assert gate[0] == (1 if attention < 8 else gate[0])


def test_a_shifted_list_is_seen_under_a_prefix_and_its_recipe_does_the_same(
    cli: Run, nets: dict[str, Any], tmp_path: Path
) -> None:
    state = {f"module.{key}": value for key, value in nets["Detector"]().state_dict().items()}
    torch.save(state, tmp_path / "old.pth")
    command = ["old.pth", "--into", "nets.py:Detector", "--model-arg", "attention=3"]
    code, out, _ = cli("transplant", *command, "-o", "new.pth", "--save-recipe", "again.toml", columns=300)
    assert code == 0
    assert "module.model.{i=3..8}. -> module.model.{i+1}." in out
    assert cli("transplant", *command, "-r", "again.toml", "-o", "again.pth")[0] == 0
    first, second = torch.load(tmp_path / "new.pth"), torch.load(tmp_path / "again.pth")
    assert all(torch.equal(first[key], second[key]) for key in first)
    data = json.loads(cli("transplant", *command, "--json")[1])
    states = {module["name"]: module["state"] for module in data["modules"]}
    assert (states["model.2.conv"], states["model.4.conv"]) == ("loaded", "new")


def test_the_same_list_with_more_or_wider_modules_is_not_shifted(nets: dict[str, Any]) -> None:
    old = shapes({f"layer.{n}.weight": (4, 4) for n in range(3)})
    longer = shapes({f"layer.{n}.weight": (4, 4) for n in range(9)})
    wider = shapes({f"layer.{n}.weight": (8, 4 if n == 0 else 8) for n in range(3)})
    assert doubts(old, longer, Swap()) == doubts(longer, old, Swap()) == doubts(old, wider, Swap()) == ()
    halved = {f"layer.{n}.{key}": shape for n in range(3) for key, shape in BLOCK.items()}
    ibn = {f"layer.{n}.{key}": shape for n in range(2) for key, shape in IBN.items()}
    ibn |= {f"layer.{n}.{key}": shape for n in (2, 3, 4) for key, shape in BLOCK.items()}
    assert doubts(halved, ibn, Swap()) == ()


BLOCK = {"conv1.weight": (4, 4, 1, 1), "bn1.weight": (4,), "conv2.weight": (4, 4, 3, 3), "bn2.weight": (4,)}
IBN = {key: shape for key, shape in BLOCK.items() if key != "bn1.weight"} | {
    "bn1.IN.weight": (2,),
    "bn1.BN.weight": (2,),
}


def shapes(state: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return state


WIDTH = st.integers(1, 5)


@given(st.lists(WIDTH, min_size=4, max_size=12), st.data())
def test_the_rules_of_a_shifted_list_put_every_module_where_its_shape_is(
    widths: list[int], data: st.DataObject
) -> None:
    """A foreign module is inserted anywhere into a list of convolutions."""
    blocks = [(outputs, inputs, 3, 3) for inputs, outputs in pairwise(widths)]
    at = data.draw(st.integers(0, len(blocks)))
    old = {f"m.{n}.weight": shape for n, shape in enumerate(blocks)}
    new = {f"m.{n + (n >= at)}.weight": shape for n, shape in enumerate(blocks)} | {f"m.{at}.qkv": (7, 7)}
    found = doubts(old, new, Swap())
    straight = [key for key, shape in old.items() if new.get(key) == shape]
    is_contradicted = any(key in new and new[key] != shape for key, shape in old.items()) or at < len(blocks)
    assert bool(found) == (len(straight) < len(blocks) and is_contradicted)
    if found:
        (doubt,) = found
        specs = {key: TensorSpec(key, "float32", shape) for key, shape in old.items()}
        steps = expand(parse_recipe(list(doubt.rules)), specs).steps
        assert all(new[step.target.key] == step.target.shape for step in steps)
        assert not doubt.keys & {
            step.target.key for step in steps if step.target.key == next(sources_of(step.value)).key
        }


# ---------------------------------------------------------------------------------------------- several that fit


def test_the_other_tower_of_a_file_is_not_loaded_in_silence(cli: Run, nets: dict[str, Any], tmp_path: Path) -> None:
    both = saved(nets["Both"](), tmp_path / "clip.pth")
    code, _, err = cli("transplant", "clip.pth", "--into", "nets.py:Image", "-o", "new.pth", columns=300)
    assert code == 2
    assert 'under "visual."' in flat(err)
    assert not (tmp_path / "new.pth").exists()
    wide = ["transplant", "clip.pth", "--into", "nets.py:Image", "--model-arg", "width=12"]
    code, _, err = cli(*wide, columns=300)
    assert code == 2
    assert cli(*suggested(err), "-o", "image.pth", "--min-coverage", "1")[0] == 0
    image = torch.load(tmp_path / "image.pth")
    assert all(torch.equal(image[key], both[f"visual.{key}"]) for key in image)


def test_the_right_tower_is_loaded_by_its_name(cli: Run, nets: dict[str, Any], tmp_path: Path) -> None:
    saved(nets["Both"](image=12), tmp_path / "clip.pth")
    code, out, _ = cli("transplant", "clip.pth", "--into", "nets.py:Text", "--min-coverage", "1")
    assert (code, "two parts" in flat(out)) == (0, False)
    assert cli("transplant", "clip.pth", "--into", "nets.py:Both", "--min-coverage", "1")[0] == 0


def test_a_model_that_the_source_has_twice_is_named(cli: Run, nets: dict[str, Any], tmp_path: Path) -> None:
    state = saved(nets["Twins"](), tmp_path / "moco.pth")
    code, _, err = cli("transplant", "moco.pth", "--into", "nets.py:Detector", columns=300)
    assert code == 2
    assert 'under "encoder_q." and "encoder_k."' in flat(err)
    assert cli(*suggested(err), "-o", "q.pth", "--strict")[0] == 0
    found = torch.load(tmp_path / "q.pth")
    assert all(torch.equal(found[key], state[f"encoder_q.{key}"]) for key in found)


def test_the_teacher_is_what_training_was_for(cli: Run, nets: dict[str, Any], tmp_path: Path) -> None:
    both = {"student": nets["Image"](), "teacher": nets["Image"]()}
    state = {f"{name}.backbone.{key}": value for name, net in both.items() for key, value in net.state_dict().items()}
    state = {key.replace("class_embedding", "cls_token"): value for key, value in state.items()}
    torch.save(state, tmp_path / "dino.pth")
    plain = {key.removeprefix("teacher.backbone."): value for key, value in state.items() if key.startswith("teacher.")}
    torch.save(plain, tmp_path / "plain.pth")
    code, _, err = cli("transplant", "dino.pth", "--into", "plain.pth", columns=300)
    assert code == 2
    assert cli(*suggested(err), "-o", "new.pth", "--strict")[0] == 0
    found = torch.load(tmp_path / "new.pth")
    assert all(torch.equal(found[key], plain[key]) for key in plain)


def test_names_of_another_library_are_not_half_found(cli: Run, fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fixtures)
    assert cli("remap", "resnet18.pth", "-r", "torchvision-resnet-to-detectron2", "-o", "d2.pth")[0] == 0
    for command in (["resnet18.pth", "--into", "d2.pth"], ["d2.pth", "--into", "models.py:ResNet18"]):
        code, _, err = cli("transplant", *command, columns=300)
        assert code == 2
        assert cli(*suggested(err), "-o", "new.pth", "--force")[0] == 0
        assert cli(*suggested(err), "--min-coverage", "0.99")[0] == 0
    old, new = torch.load("resnet18.pth"), torch.load("new.pth")
    assert all(torch.equal(old[key], new[key]) for key in old if not key.endswith("num_batches_tracked"))


def test_places_are_prefixes_with_names_below_them() -> None:
    assert places(["a.b.w", "b.w", "w"], ["b.w"]) == {"a.": {"b.w"}, "": {"b.w"}}


# ---------------------------------------------------------------------------------------------- initial values


@pytest.mark.parametrize("ending", [".pth", ".safetensors", ""])
def test_an_output_records_what_was_never_trained(ending: str, cli: Run, nets: dict[str, Any], tmp_path: Path) -> None:
    saved(nets["Detector"](), tmp_path / "old.pth")
    out = tmp_path / f"new{ending}"
    assert (
        cli("transplant", "old.pth", "--into", "nets.py:Detector", "--model-arg", "attention=9", "-o", str(out))[0] == 0
    )
    assert recorded_initial(open_checkpoint(out)) == ("model.9.qkv.weight", "model.9.qkv.bias")
    told = flat(cli("inspect", str(out))[1])
    assert "2 tensors hold initial values: model.9.qkv.*" in told
    code, told, _ = cli("check", str(out))
    assert (code, "warning[facts]" in told) == (0, True)
    told = flat(cli("diff", "old.pth", str(out))[1])
    assert "warning: only " in told
    assert "2 tensors hold initial values" in told
    if ending == ".pth":
        for mmap in (False, True):
            assert len(torch.load(out, weights_only=True, mmap=mmap)) == 56
    elif ending:
        with safe_open(out, "pt") as file:
            assert json.loads(file.metadata()[INITIAL_KEY]) == ["model.9.qkv.weight", "model.9.qkv.bias"]


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_the_record_follows_keys(ending: str, cli: Run, nets: dict[str, Any], tmp_path: Path) -> None:
    saved(nets["Detector"](), tmp_path / "old.pth")
    assert (
        cli("transplant", "old.pth", "--into", "nets.py:Detector", "--model-arg", "attention=9", "-o", "a.pth")[0] == 0
    )

    def record(*command: str) -> tuple[str, ...]:
        out = tmp_path / f"b{ending}"
        assert cli(*command, "-o", str(out), "--force")[0] == 0
        return recorded_initial(open_checkpoint(out))

    both = ("model.9.qkv.weight", "model.9.qkv.bias")
    assert record("filter", "a.pth", "--dtype", "bf16", "--only-weights") == both
    assert record("filter", "a.pth", "--drop", "*.qkv.bias") == both[:1]
    assert record("filter", "a.pth", "--drop", "*.qkv.*") == ()
    assert record("remap", "a.pth", "-r", "model. -> net.") == tuple(key.replace("model", "net") for key in both)
    assert record("remap", "a.pth", "-r", "model.9.qkv.weight -> {x=q|k|v} | (x o) i h w -> o i h w") == (
        *"qkv",
        both[1],
    )
    assert record("merge", "a.pth", "a.pth", "--method", "linear") == both
    torch.save(torch.load(tmp_path / "a.pth"), tmp_path / "trained.pth")
    assert record("merge", "a.pth", "trained.pth", "--method", "linear") == ()
    assert record("transplant", "a.pth", "--into", "trained.pth") == both
    assert record("transplant", "old.pth", "--into", "a.pth") == both
    told = flat(cli("transplant", "a.pth", "--into", "trained.pth")[1])
    assert "2 tensors of the source hold initial values" in told


def test_a_record_of_something_else_is_nothing(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for text in ("", "{}", "[1, null]", '["nowhere"]', "[" * 2000):
        save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors", {INITIAL_KEY: text})
        assert recorded_initial(open_checkpoint(tmp_path / "a.safetensors")) == ()
        assert "initial" not in {fact.name for fact in facts_of(ckptool.open(tmp_path / "a.safetensors"))}
