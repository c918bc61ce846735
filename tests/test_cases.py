"""What users met, as kinds: each case with neighbours of it (other commands, layouts, spellings)."""

from __future__ import annotations

import argparse
import subprocess
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from console import Run, runner
from torch import nn

from ckptool.core.errors import UsageError
from ckptool.recipes.inputs import require_used
from ckptool.recipes.recipe import load_recipe, parse_recipe


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capsys)


def spaced(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.split())


WEIGHTS = {"w.weight": torch.arange(9.0).view(3, 3), "w.bias": torch.ones(3)}


# -------------------------------------------------------------------------------- shared and cyclic objects


def ten_of_ten(leaf: object, around: Any) -> object:
    """Twelve containers around one another, each holding the next one ten times."""
    for _ in range(12):
        leaf = around(leaf)
    return leaf


def cycle(*first: object) -> list[object]:
    found = list(first)
    found.append(found)
    return found


BESIDE = {
    "shared lists": lambda: ten_of_ten(1, lambda inner: [inner] * 10),
    "shared tuples": lambda: ten_of_ten(1, lambda inner: (inner,) * 10),
    "shared dicts": lambda: ten_of_ten(1, lambda inner: dict.fromkeys(range(10), inner)),
    "shared ordered dicts": lambda: ten_of_ten(1, lambda inner: OrderedDict((str(n), inner) for n in range(10))),
    "shared objects": lambda: ten_of_ten(1, lambda inner: argparse.Namespace(**{f"a{n}": inner for n in range(10)})),
    "shared tensors": lambda: ten_of_ten(torch.ones(2), lambda inner: [inner] * 10),
    "a cycle": cycle,
    "a cycle with a tensor": lambda: cycle(torch.ones(2)),
    "a cycle of optimizers": lambda: cycle({"state": {}, "param_groups": [{"params": [0]}]}),
}


@pytest.mark.parametrize("beside", BESIDE)
def test_shared_and_cyclic_objects_are_looked_at_once(beside: str, tmp_path: Path) -> None:
    for zipped in (True, False):
        folder = tmp_path / f"zip-{zipped}"
        folder.mkdir()
        torch.save({"model": WEIGHTS, "x": BESIDE[beside]()}, folder / "a.pth", _use_new_zipfile_serialization=zipped)
        torch.save({"model": WEIGHTS, "x": [BESIDE[beside]()]}, folder / "b.pth")
    commands = [
        ["inspect", "a.pth"],
        ["check", "a.pth"],
        ["filter", "a.pth", "--keep", "*.weight", "--keep-unknown", "--keep-optimizer-as-is", "-o", "f.pth"],
        ["filter", "a.pth", "-o", "f.safetensors"],
        ["remap", "a.pth", "-r", "w. -> v.", "--keep-unknown", "--keep-optimizer-as-is", "-o", "r.pth"],
        ["merge", "a.pth", "b.pth", "--keep-unknown", "-o", "m.pth"],
        ["transplant", "a.pth", "--into", "b.pth", "-o", "t.pth"],
        ["diff", "a.pth", "b.pth"],
    ]
    script = (
        "import os, sys; from ckptool.cli.app import run\n"
        "for folder in 'zip-True', '../zip-False':\n"
        "    os.chdir(folder); print([run(c) for c in eval(sys.argv[1])], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, repr(commands)], cwd=tmp_path, timeout=60, capture_output=True, text=True
    )
    ended = [eval(line) for line in done.stderr.splitlines() if line.startswith("[")]
    assert len(ended) == 2, done.stderr
    for codes, zipped in zip(ended, (True, False), strict=True):
        assert set(codes[:7]) <= {0, 2}, done.stderr
        assert codes[2] == codes[4] == 0, done.stderr
        state = torch.load(tmp_path / f"zip-{zipped}" / "r.pth", weights_only=False)
        assert torch.equal(state["model"]["v.weight"], WEIGHTS["w.weight"])


# -------------------------------------------------------------------------------- numbers that nothing uses


def lora_of(layer: str = "base_model.model.q_proj.") -> dict[str, torch.Tensor]:
    shapes = {"base_layer.weight": (6, 8), "lora_A.default.weight": (2, 8), "lora_B.default.weight": (6, 2)}
    return {layer + name: torch.randn(*shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("command", "is_fine"),
    [
        (["remap", "a.pth", "-r", "lora-merge", "--var", "alpha=4", "--var", "r=2"], True),
        (["remap", "a.pth", "-r", "lora-merge", "--var", "alpha=4", "--var", "r=2", "--var", "apha=8"], False),
        (["remap", "a.pth", "-r", "base_model. ->", "--var", "h=8"], False),
        (["remap", "a.pth", "-r", "{k**}.base_layer.weight -> {k**}.w | (h d) i -> (d h) i", "--var", "h=2"], True),
        (["remap", "a.pth", "-r", "{k**}.base_layer.weight -> {k**}.w | (h d) i -> (d h) i", "--var", "H=2"], False),
        (["remap", "a.pth", "-r", "{k**}.base_layer.weight -> {k**}.w | = s * $1", "--var", "s=2"], True),
        (["remap", "a.pth", "-r", "{k**}.base_layer.weight -> {k**}.w | = exp($1)", "--var", "exp=2"], False),
        (["transplant", "a.pth", "--into", "a.pth", "--var", "s=2"], False),
        (["transplant", "a.pth", "--into", "a.pth", "-r", "?x -> y | = s * $1", "--var", "s=2"], True),
    ],
)
def test_a_number_that_nothing_uses_is_refused(command: list[str], is_fine: bool, cli: Run, tmp_path: Path) -> None:
    torch.save(lora_of(), tmp_path / "a.pth")
    code, _, err = cli(*command)
    assert code == (0 if is_fine else 2), err
    assert is_fine or "no rule uses" in err


def test_the_nearest_number_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        require_used(load_recipe("lora-merge"), ["apha"])
    assert "alpha" in (caught.value.hint or "")
    require_used(parse_recipe(["a, b -> c | = x * $1 + $2 <= $1 - y"]), ["x", "y"])


# -------------------------------------------------------------------------------- a table and its buffers

SWIN = """import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, window, size, moving):
        super().__init__()
        side = 2 * window - 1
        points = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        offset = points[:, None] - points[None] + window - 1
        self.relative_position_bias_table = nn.Parameter(torch.randn(side * side, 2))
        self.register_buffer("relative_position_index", offset[..., 0] * side + offset[..., 1])
        self.register_buffer("attn_mask", torch.zeros((size // window) ** 2, window**2, window**2))
        self.bn = nn.BatchNorm1d(moving)


class Swin(nn.Module):
    def __init__(self, window=4, size=16, moving=4):
        super().__init__()
        self.blocks = nn.ModuleList([Block(window, size, moving)])
"""


@pytest.mark.parametrize(
    ("arguments", "mismatch", "code"),
    [
        (["window=6", "size=12"], "fit", 0),
        (["window=2", "size=8"], "fit", 0),
        (["window=6", "size=12"], "error", 2),
        (["moving=6"], "fit", 2),  # running statistics are no table of the model's own
    ],
)
def test_a_model_keeps_the_buffers_that_it_computes(
    arguments: list[str], mismatch: str, code: int, cli: Run, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(SWIN)
    space: dict[str, Any] = {}
    exec(SWIN, space)
    torch.save({"model": space["Swin"]().state_dict()}, tmp_path / "w4.pth")
    options = [word for argument in arguments for word in ("--model-arg", argument)]
    done = cli("transplant", "w4.pth", "--into", "net.py:Swin", *options, "--mismatch", mismatch, "-o", "x.pth")
    assert done[0] == code, done
    if code == 0:
        model = space["Swin"](**{name: int(value) for name, _, value in (each.partition("=") for each in arguments)})
        own = model.blocks[0].relative_position_index.clone()
        model.load_state_dict(torch.load(tmp_path / "x.pth"), strict=True)
        assert torch.equal(model.blocks[0].relative_position_index, own)
    else:
        assert not (tmp_path / "x.pth").exists()


# -------------------------------------------------------------------------------- what load hooks rename

HOOKED = """from torch import nn


def norm(dim=2):
    model = nn.Module()
    model.conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(6, 6, 5, groups=3), name="weight", dim=dim)
    model.proj = nn.Linear(6, 2)
    return model


class Renamed(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.register_load_state_dict_pre_hook(self.rename)

    @staticmethod
    def rename(module, state, prefix, *rest):
        for old, new in (("gamma", "weight"), ("beta", "bias")):
            if prefix + "norm." + old in state:
                state[prefix + "norm." + new] = state.pop(prefix + "norm." + old)


def inside():
    return nn.Sequential(Renamed(), nn.Linear(4, 4))
"""


@pytest.mark.parametrize(
    ("name", "prefix"), [("norm", ""), ("norm", "module."), ("Renamed", ""), ("inside", ""), ("inside", "module.")]
)
def test_what_a_load_hook_takes_is_taken(name: str, prefix: str, cli: Run, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(HOOKED)
    space: dict[str, Any] = {}
    exec(HOOKED, space)
    if name == "norm":
        old_model = nn.Module()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            old_model.conv = nn.utils.weight_norm(nn.Conv1d(6, 6, 5, groups=3), dim=2)
        old_model.proj = nn.Linear(6, 2)
        old = dict(old_model.state_dict())
    else:
        fresh = space[name]()
        with torch.no_grad():
            for parameter in fresh.parameters():
                parameter.normal_()
        old = {
            key.replace("norm.weight", "norm.gamma").replace("norm.bias", "norm.beta"): value
            for key, value in fresh.state_dict().items()
        }
    torch.save({prefix + key: value for key, value in old.items()}, tmp_path / "old.pth")
    strict = [] if prefix else ["--strict"]
    code, out, err = cli("transplant", "old.pth", "--into", f"net.py:{name}", *strict, "-o", "new.pth")
    assert code == 0, err
    assert "load hook" in spaced(out)
    want, got = space[name](), space[name]()
    want.load_state_dict(old, strict=True)
    got.load_state_dict(torch.load(tmp_path / "new.pth"), strict=True)
    for (key, one), two in zip(want.state_dict().items(), got.state_dict().values(), strict=True):
        assert torch.equal(one, two), key


# -------------------------------------------------------------------------------- arguments and words


def test_check_takes_arguments_for_the_model(cli: Run, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(3, 4), "bias": torch.ones(3)}, tmp_path / "a.pth")
    code, _, err = cli("check", "a.pth", "--into", "torch.nn:Linear")
    assert code == 2
    assert "--model-arg in_features=" in err
    right = ["--model-arg", "in_features=4", "--model-arg", "out_features=3"]
    assert cli("check", "a.pth", "--into", "torch.nn:Linear", *right)[0] == 0
    assert cli("check", "a.pth", "--into", "torch.nn:Linear", *right, "--model-arg", "bias=false")[0] == 1
    assert cli("check", "a.pth", "--model-arg", "in_features=4")[0] == 2


@pytest.mark.parametrize(
    ("word", "command"),
    [
        ("convert", "ckptool filter"),
        ("Convert", "ckptool filter"),
        ("rename", "ckptool remap"),
        ("rename_keys", "ckptool remap"),
        ("average", "ckptool merge A B --method linear"),
        ("merge-lora", "ckptool merge BASE --lora"),
        ("merge_lora", "ckptool merge BASE --lora"),
        ("compare", "ckptool diff"),
        ("match", "ckptool remap IN --auto --like MODEL"),
        ("show", "ckptool inspect"),
        ("validate", "ckptool check"),
    ],
)
def test_words_of_other_tools_lead_to_a_command(word: str, command: str, cli: Run) -> None:
    code, _, err = cli(word, "a.pth", "--out", "b")
    assert code == 2
    assert command in err


# -------------------------------------------------------------------------------- nesting

WRAPPED = [
    (["filter", "a.pth"], WEIGHTS),
    (["remap", "a.pth", "-r", "w. -> v."], {key.replace("w.", "v."): value for key, value in WEIGHTS.items()}),
    (["merge", "a.pth", "a.pth", "--method", "linear"], WEIGHTS),
]


@pytest.mark.parametrize(("command", "want"), WRAPPED)
@pytest.mark.parametrize("within", [None, "model", "state_dict"])
@pytest.mark.parametrize("only", [True, False])
def test_weights_are_put_under_a_key(
    command: list[str], want: dict[str, torch.Tensor], within: str | None, only: bool, cli: Run, tmp_path: Path
) -> None:
    torch.save(WEIGHTS if within is None else {within: WEIGHTS, "epoch": 3}, tmp_path / "a.pth")
    code, _, err = cli(*command, "--wrap", "state_dict", *(["--only-weights"] if only else []), "-o", "x.pth")
    assert code == 0, err
    found = torch.load(tmp_path / "x.pth")
    is_left = only or within is None or "--method" in command  # means have no epoch
    assert {key: value for key, value in found.items() if key != "state_dict"} == ({} if is_left else {"epoch": 3})
    assert list(found["state_dict"]) == list(want)
    assert all(torch.equal(found["state_dict"][key], value) for key, value in want.items())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--wrap", "epoch", "-o", "x.pth"], 'another entry "epoch"'),
        (["--wrap", "m", "-o", "x.safetensors"], "safetensors cannot"),
        (["--wrap", "", "-o", "x.pth"], "needs a name"),
    ],
)
def test_a_place_that_cannot_be_is_refused(arguments: list[str], words: str, cli: Run, tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, "epoch": 3}, tmp_path / "a.pth")
    code, _, err = cli("filter", "a.pth", *arguments)
    assert code == 2
    assert words in spaced(err)
    assert not list(tmp_path.glob("x.*"))


# -------------------------------------------------------------------------------- recipes behind prefixes, and unnamed


def dense(prefix: str = "", legacy: bool = False) -> dict[str, torch.Tensor]:
    """A DenseNet-like state dict with today's names, or those from before torch 0.4.1."""
    dot = "." if legacy else ""
    state = {"features.conv0.weight": torch.randn(4, 3, 7, 7)}
    for layer in (1, 2):
        for part in (1, 2):
            stem = f"features.denseblock1.denselayer{layer}."
            state[f"{stem}conv{dot}{part}.weight"] = torch.randn(4, 4, part, part)
            for name in ("weight", "bias", "running_mean", "running_var"):
                state[f"{stem}norm{dot}{part}.{name}"] = torch.rand(4)
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    ("take", "put"),
    [
        ("module.densenet121.", ""),
        ("module.", ""),
        ("", "base."),
        ("module.", "base."),
        ("model.net.", "backbone.body."),
    ],
)
def test_recipes_see_through_prefixes(take: str, put: str, cli: Run, tmp_path: Path) -> None:
    old = dense(take, legacy=True)
    torch.save({"state_dict": old}, tmp_path / "old.pth")
    torch.save(dense(put) | {"head.weight": torch.zeros(2, 2)}, tmp_path / "new.pth")
    first = cli("transplant", "old.pth", "--into", "new.pth", "-r", "densenet-legacy", "-o", "x.pth")
    assert first[0] == 0, first
    found = torch.load(tmp_path / "x.pth")
    for key, value in old.items():
        new = put + key.removeprefix(take).replace("norm.", "norm").replace("conv.", "conv")
        assert torch.equal(found[new], value), new
    # what was inferred can be written as rules
    before = ["-r", f"{take} ->", "-r", "---"] if take else []
    behind = ["-r", "---", "-r", f"{{k**}} -> {put}{{k**}}"] if put else []
    rules = [*before, "-r", "densenet-legacy", *behind]
    notes = spaced(first[1]).partition("note:")[2]
    assert not take or take in notes
    assert not put or f'"{put.rstrip(".")}' in notes
    second = cli("transplant", "old.pth", "--into", "new.pth", *rules, "-o", "y.pth")
    assert second[0] == 0, second
    again = torch.load(tmp_path / "y.pth")
    assert all(torch.equal(again[key], value) for key, value in found.items())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_saved_recipe_holds_the_prefixes(prefix: str, cli: Run, tmp_path: Path) -> None:
    torch.save(dense(prefix, legacy=True), tmp_path / "old.pth")
    torch.save(dense("base."), tmp_path / "new.pth")
    options = ["--into", "new.pth", "-r", "densenet-legacy", "--save-recipe", "r.toml"]
    assert cli("transplant", "old.pth", *options)[0] == 0
    code, out, err = cli("transplant", "old.pth", "--into", "new.pth", "-r", "r.toml", "-o", "x.pth")
    assert code == 0, err
    assert "put under" not in out
    assert torch.equal(
        torch.load(tmp_path / "x.pth")["base.features.denseblock1.denselayer2.norm1.weight"],
        torch.load(tmp_path / "old.pth")[f"{prefix}features.denseblock1.denselayer2.norm.1.weight"],
    )


def test_prefixes_are_not_invented(cli: Run, tmp_path: Path) -> None:
    torch.save({"a.x": torch.ones(2), "a.y": torch.ones(3)}, tmp_path / "old.pth")
    torch.save({"a.z": torch.ones(2), "a.y": torch.ones(3)}, tmp_path / "new.pth")
    _, out, _ = cli("transplant", "old.pth", "--into", "new.pth", "-r", "a.x -> a.z")
    assert "under" not in out


def bert(norm: tuple[str, str]) -> dict[str, torch.Tensor]:
    names = ("embeddings", "layer.0.output", "layer.1.output")
    return {f"bert.{name}.LayerNorm.{last}": torch.rand(4) for name in names for last in norm}


@pytest.mark.parametrize(
    ("old", "new", "recipe"),
    [
        (dense(legacy=True), dense(), "densenet-legacy"),
        (dense("module.", legacy=True), dense("base."), "densenet-legacy"),
        (bert(("gamma", "beta")), bert(("weight", "bias")), "bert-gamma-beta"),
        (dense(), dense(), None),
        ({"a.weight": torch.ones(2)}, {"b.weight": torch.ones(2), "a.weight": torch.ones(2)}, None),
    ],
)
def test_a_recipe_that_would_fill_the_rest_is_named(
    old: dict[str, torch.Tensor], new: dict[str, torch.Tensor], recipe: str | None, cli: Run, tmp_path: Path
) -> None:
    torch.save(old, tmp_path / "old.pth")
    torch.save(new, tmp_path / "new.pth")
    _, out, err = cli("transplant", "old.pth", "--into", "new.pth")
    said = out + err
    assert (f"-r {recipe}" in said) == (recipe is not None), said
    assert recipe is not None or "-r " not in said.replace("as a rule: -r", "")
    if recipe is not None:
        assert cli("transplant", "old.pth", "--into", "new.pth", "-r", recipe, "--min-coverage", "1")[0] == 0


# -------------------------------------------------------------------------------- entries that are not tensors


@pytest.mark.parametrize(
    ("state", "drops", "left"),
    [
        ({"model": WEIGHTS, "epoch": 90, "args": 90}, ["epoch"], {"model": ["w.weight", "w.bias"], "args": 90}),
        ({"model": WEIGHTS, "a": 90, "b": 90}, ["a", "w.bias"], {"model": ["w.weight"], "b": 90}),
        ({"model": {**WEIGHTS, "n": 4}, "e": 1}, ["n"], {"model": ["w.weight", "w.bias"], "e": 1}),
        ({"model": {**WEIGHTS, "n": 4}, "e": 1}, ["model.n"], {"model": ["w.weight", "w.bias"], "e": 1}),
        ({"model": OrderedDict(WEIGHTS, n=4), "n": 1}, ["n"], {"model": ["w.weight", "w.bias"]}),
        ({**WEIGHTS, "x._extra_state": None, "epoch": 1}, ["*._extra_state"], {"w.weight": 0, "w.bias": 0, "epoch": 1}),
        ({"model": WEIGHTS, "optimizer": {"state": {}, "param_groups": []}}, ["optimizer"], {"model": [*WEIGHTS]}),
        ({"model": WEIGHTS, "w": 5}, ["*"], None),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_entries_that_are_no_tensors_are_dropped_by_name(
    state: dict[str, Any], drops: list[str], left: dict[str, Any] | None, zipped: bool, cli: Run, tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    options = [word for drop in drops for word in ("--drop", drop)]
    code, out, err = cli("filter", "a.pth", *options, "-o", "x.pth")
    if left is None:  # nothing is left of the weights
        assert code == 2
        return
    assert code == 0, err
    assert "dropped" in out or "left out" in out
    found = torch.load(tmp_path / "x.pth")
    assert list(found) == list(left)
    for key, value in left.items():
        assert (
            list(found[key]) == value if isinstance(value, list) else torch.is_tensor(found[key]) or value == found[key]
        )


def test_an_entry_of_the_output_can_be_dropped_to_load_strictly(cli: Run, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2, 3), "bias": torch.ones(2), "epoch": 4}, tmp_path / "a.pth")
    assert cli("transplant", "a.pth", "--into", "torch.nn:Linear", "--model-arg", "in_features=3", "--model-arg",
               "out_features=2", "--strict")[0] == 1  # fmt: skip
    assert cli("filter", "a.pth", "--drop", "epoch", "-o", "b.pth")[0] == 0
    nn.Linear(3, 2).load_state_dict(torch.load(tmp_path / "b.pth"), strict=True)


# -------------------------------------------------------------------------------- what moved


@pytest.mark.parametrize(
    ("moves", "is_said"),
    [
        (("1.running_mean", "1.running_var", "1.num_batches_tracked"), True),
        (("1.num_batches_tracked",), True),
        (("1.running_mean", "0.weight"), False),
        ((), False),
    ],
)
def test_frozen_weights_with_moving_statistics_are_diagnosed(
    moves: tuple[str, ...], is_said: bool, cli: Run, tmp_path: Path
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    state = model.state_dict()
    state["1.running_mean"] += 1  # nothing is large against zero
    torch.save(state, tmp_path / "a.pth")
    torch.save({key: value + 4690 if key in moves else value for key, value in state.items()}, tmp_path / "b.pth")
    code, out, _ = cli("diff", "a.pth", "b.pth")
    assert code == (1 if moves else 0)
    assert ("BatchNorm was not in eval()" in spaced(out)) == is_said
    assert "inf" not in out
    if "1.num_batches_tracked" in moves:
        assert "0 → 4690" in out
