"""`ckptool diff` as a user sees it: golden screens, options, formats, hostile names, exit codes."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from console import Run, runner
from documents import record_documents, same_report
from safetensors.torch import save_file

from ckptool.recipes.renaming import drop_rules, rename_of, rename_rules

State = dict[str, torch.Tensor]


@pytest.fixture
def cli(fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in the fixtures folder; gives (exit code, stdout, stderr)."""
    return runner(fixtures, monkeypatch, capsys)


@pytest.fixture
def state(fixtures: Path) -> State:
    found: State = torch.load(fixtures / "resnet18.pth", weights_only=True)
    return dict(found)


SCREENS = {
    "tuned": ["resnet18.pth", "tuned.safetensors"],
    "counters": ["resnet18-102.pth", "resnet18.pth"],
    "training": ["training.ckpt", "resnet18.pth"],
    "keys-only": ["resnet18.pth", "tuned.safetensors", "--keys-only"],
    "tolerance": ["resnet18.pth", "tuned.safetensors", "--tolerance", "rel=1e-3"],
    "only": ["resnet18.pth", "tuned.safetensors", "--only", "layer1", "-v"],
}


@pytest.mark.parametrize("name", SCREENS)
def test_screens(name: str, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = record_documents(monkeypatch)
    for columns in (80, 160):
        code, out, err = cli("diff", *SCREENS[name], columns=columns)
        assert (code, err) == (1, "")
        same_report(f"diff-{name}", columns, out, documents)


@pytest.mark.parametrize("new", ["resnet18.pth", "shards", "shards-bin"])
def test_same_is_one_line(new: str, cli: Run) -> None:
    assert cli("diff", "resnet18.pth", new) == (0, "identical: 122 tensors, 54.1 kB compared\n", "")


def test_what_counts_as_same_is_said(cli: Run, fixtures: Path, state: State) -> None:
    save_file(state, fixtures / "a.safetensors")
    save_file({**state, "fc.bias": state["fc.bias"] * (1 + 1e-6)}, fixtures / "b.safetensors")
    a, b = "a.safetensors", "b.safetensors"
    assert cli("diff", a, b)[0] == 1
    assert cli("diff", a, b, "--tolerance", "rel=1e-3") == (
        0,
        "same within rel ≤ 0.001: 122 tensors, 54.1 kB compared\n",
        "",
    )
    assert cli("diff", a, b, "--keys-only") == (0, "same keys and specs: 122 tensors, values not compared\n", "")
    assert cli("diff", a, b, "--tolerance", "rel=1e-9")[0] == 1


def test_only_other_entries_differ(cli: Run, fixtures: Path, state: State) -> None:
    torch.save({"state_dict": state, "epoch": 1, "args": "x" * 500}, fixtures / "a.pth")
    torch.save({"state_dict": state, "epoch": 2, "args": "y" * 500}, fixtures / "b.pth")
    for columns in (None, 80, 160):
        code, out, _ = cli("diff", "a.pth", "b.pth", columns=columns)
        assert code == 1
        assert re.search(r"~  \(not tensors\) +2 +epoch 1 → 2", out)
        assert out.splitlines()[-2].endswith("2 other entries differ")
        assert not columns or max(map(len, out.splitlines())) <= columns


def test_one_tensor_that_is_the_same_is_not_all_1(cli: Run, fixtures: Path) -> None:
    for epoch in (1, 2):
        torch.save({"state_dict": {"w": torch.ones(2)}, "epoch": epoch}, fixtures / f"{epoch}.pth")
    first = cli("diff", "1.pth", "2.pth")[1].partition("\n")[0]
    assert first == "different, but not in the tensors: the only one is the same, 1 other entry differs"


def test_verbose_lists_what_is_the_same(cli: Run) -> None:
    code, out, _ = cli("diff", "resnet18.pth", "shards", "-v")
    assert code == 0
    assert len(re.findall("^=  ", out, re.MULTILINE)) == 122
    assert out.splitlines()[0].startswith("identical: 122 tensors")


def test_prefixes_are_seen_through_and_said(cli: Run, fixtures: Path, state: State) -> None:
    torch.save({f"module.{key}": tensor for key, tensor in state.items()}, fixtures / "wrapped.pth")
    code, out, _ = cli("diff", "wrapped.pth", "shards")
    assert code == 0
    first, *rest = out.splitlines()
    assert first.startswith("identical: 122 tensors")
    assert rest == ['note: every old key begins with "module."; compared without it']


def test_our_users_first_question(cli: Run) -> None:
    code, out, _ = cli("diff", "resnet18-102.pth", "resnet18.pth")
    assert code == 1
    assert re.search(r"\+ +\*\.num_batches_tracked +20 ", out)
    assert "20 keys" in out
    assert "BatchNorm" in out
    assert "+ 20 added" in out.splitlines()[-2]


def test_renames_are_one_row_a_rule(cli: Run, fixtures: Path, state: State) -> None:
    renamed = {key.replace("downsample.", "shortcut."): tensor for key, tensor in state.items()}
    torch.save(renamed, fixtures / "renamed.pth")
    code, out, _ = cli("diff", "resnet18.pth", "renamed.pth", "--only", "layer*")
    assert code == 1
    assert "downsample → shortcut" in out
    assert re.search(r"> \d+ renamed", out)


@pytest.mark.parametrize(
    ("rename", "first", "rows"),
    [
        (lambda key: f"module.{key}", "identical: 122 tensors, 54.1 kB compared", []),
        (lambda key: f"base.{key}", "identical: 122 tensors, 54.1 kB compared", []),
        (
            lambda key: f"base.{key}" if not key.startswith("fc") else f"head{key[2:]}",
            "same values, other names: 0 of 122 tensors differ, 2 are renamed",
            ["head.*  (fc → head)"],
        ),
        (
            lambda key: f"early.{key}" if key.startswith(("layer1", "layer2")) else key,
            "same values, other names: 0 of 122 tensors differ, 54 are renamed",
            ["early.*  (under early)"],
        ),
        (
            lambda key: f"conv0{key[5:]}" if key.startswith("conv1") else key,
            "same values, other names: 0 of 122 tensors differ, 1 is renamed",
            ["conv1.weight → conv0.weight"],
        ),
    ],
)
def test_same_values_under_other_names_do_not_differ(
    cli: Run, fixtures: Path, state: State, rename: Callable[[str], str], first: str, rows: list[str]
) -> None:
    torch.manual_seed(0)
    plain = {k: torch.randn(v.shape) if v.is_floating_point() else v for k, v in state.items()}
    torch.save(plain, fixtures / "plain.pth")
    torch.save({rename(key): tensor for key, tensor in plain.items()}, fixtures / "named.pth")
    code, out, _ = cli("diff", "plain.pth", "named.pth")
    assert (code, out.splitlines()[0]) == (1 if rows else 0, first)
    assert "no key is in both" not in out
    assert all(row in out for row in rows)
    torch.save({rename(k): t + 1 if "bn1.bias" in k else t for k, t in plain.items()}, fixtures / "named.pth")
    assert cli("diff", "plain.pth", "named.pth", "--match", "auto")[1].startswith("different: 9 of 122 tensors differ")


def test_two_models_without_a_common_key(cli: Run) -> None:
    code, out, _ = cli("diff", "resnet18.pth", "deit.pth", "--keys-only")
    assert (code, out.splitlines()[0]) == (
        1, "different keys or specs: no tensor has a counterpart (122 and 32 tensors)"
    )  # fmt: skip


def test_json_counts_and_lists_every_tensor(cli: Run, fixtures: Path, state: State) -> None:
    code, out, err = cli("diff", "resnet18.pth", "tuned.safetensors", "--json")
    assert (code, err) == (1, "")
    found = json.loads(out)
    assert found["schema"] == "ckptool.diff/1"
    assert found["exit_code"] == 1
    assert found["summary"] == {
        "same": 6, "changed": 114, "cast": 0, "reshaped": 2, "renamed": 0, "added": 0, "removed": 0,
    }  # fmt: skip
    changes = {change["key"]: change for change in found["changes"]}
    assert changes.keys() == state.keys()
    delta = changes["layer4.1.conv2.weight"]["delta"]
    from safetensors.torch import load_file

    old, new = (side["layer4.1.conv2.weight"].double() for side in (state, load_file(fixtures / "tuned.safetensors")))
    assert delta["rel"] == pytest.approx(float((new - old).norm() / old.norm()), rel=1e-5)
    assert delta["max_abs"] == pytest.approx(float((new - old).abs().max()), rel=1e-5)


def test_numbers_that_json_has_no_word_for(cli: Run, fixtures: Path) -> None:
    torch.save({"w": torch.zeros(3), "n": torch.ones(3)}, fixtures / "a.pth")
    torch.save({"w": torch.ones(3), "n": torch.tensor([1.0, float("nan"), float("inf")])}, fixtures / "b.pth")
    for form in ("json", "ndjson"):
        out = cli("diff", "a.pth", "b.pth", "--format", form)[1]
        assert not re.search(r"\b(NaN|Infinity)\b", out)
    code, out, _ = cli("diff", "a.pth", "b.pth")
    assert code == 1
    assert "rel 0 … inf" in out
    assert "2 NaN or Inf (0 before)" in out


def test_ndjson_and_lines(cli: Run) -> None:
    *changes, last = map(
        json.loads, cli("diff", "resnet18.pth", "tuned.safetensors", "--format", "ndjson")[1].splitlines()
    )
    assert sum("status" in change for change in changes) == 122
    assert last["summary"]["changed"] == 114
    lines = cli("diff", "resnet18.pth", "tuned.safetensors", "--format", "lines")[1].splitlines()
    assert "reshaped\tfc.bias\tf32[100]\tf32[10]\t-" in lines
    assert len(lines) == 122


def test_markdown_lists_all_in_details(cli: Run) -> None:
    out = cli("diff", "resnet18.pth", "tuned.safetensors", "--format", "markdown")[1]
    assert out.startswith("### ckptool diff `resnet18.pth` → `tuned.safetensors`\n")
    head, details = out.split("<details>")
    assert "`layer4.*`" in head
    assert details.count("\n| ") == 123
    assert "**identical" in cli("diff", "shards", "shards-bin", "--format", "markdown")[1]


ODD = [
    "\x1b[31mred",
    "\x1b]52;c;eA==\x07",
    "a\n::error::x",
    "::error::y",
    "good\revil",
    "\u202egnp",
    "[/nope]",
    "a|b`c`<b>",
]


@pytest.mark.parametrize("form", ["text", "markdown", "lines", "ndjson", "json"])
@pytest.mark.parametrize("option", [[], ["-v"], ["--emit", "recipe"]], ids=["", "verbose", "recipe"])
def test_hostile_names_act_on_nothing(form: str, option: list[str], cli: Run, fixtures: Path) -> None:
    if option[:1] == ["--emit"] and form != "text":
        pytest.skip("a recipe has one format")
    for name, shift in (("a", 0), ("b", 1)):
        state = {key: torch.full((2, 3), float(at + shift)) for at, key in enumerate(ODD)}
        save_file({**state, f"{ODD[0]}{name}": torch.eye(3)}, fixtures / f"{name}.safetensors", metadata={ODD[1]: name})
    code, out, err = cli("diff", "a.safetensors", "b.safetensors", "--format", form, *option)
    assert (code, err) == (1, "")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", out)
    assert all(not line.lstrip().startswith("::") for line in out.splitlines())
    if form == "markdown" and "recipe" not in option:
        assert "<b>" not in out
    if "recipe" in option:
        tomllib.loads(out)


def test_recipe_renames_and_drops(cli: Run, fixtures: Path, state: State) -> None:
    new = {key.replace("downsample.", "shortcut."): value for key, value in state.items() if not key.startswith("fc.")}
    torch.save({f"module.{key}": tensor for key, tensor in state.items()}, fixtures / "old.pth")
    torch.save(new, fixtures / "new.pth")
    code, out, _ = cli("diff", "old.pth", "new.pth", "--emit", "recipe")
    assert code == 1
    recipe = tomllib.loads(out)
    assert recipe["ckptool"] == 1
    rules = recipe["rules"].split("\n")
    assert rules[:2] == ["module. ->", "---"]
    assert "fc.{k**} -> !" in rules
    assert ".downsample. -> .shortcut." in rules


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("bn.gamma", "bn.weight", ".gamma -> .weight"),
        ("backbone.fc.bias", "fc.bias", "backbone. ->"),
        ("fc.bias", "module.fc.bias", "{k**} -> module.{k**}"),
        ("a.norm0.b", "a.norm1.b", ".norm0. -> .norm1."),
        ("x", "y", "x -> y"),
        ("a.b", "a.b.c", "{k**} -> {k**}.c"),
    ],
)
def test_the_smallest_rule(old: str, new: str, rule: str) -> None:
    assert str(rename_of(old, new)) == rule
    assert rename_of(old, new).apply(old) == new


def test_a_rule_never_touches_other_keys() -> None:
    pairs = {"a.gamma": "a.weight", "b.gamma": "b.weight"}
    assert rename_rules(pairs, ["c.bias"]) == [".gamma -> .weight"]
    assert rename_rules(pairs, ["c.gamma"]) == ["a.gamma -> a.weight", "b.gamma -> b.weight"]
    assert drop_rules(["fc.w", "fc.b", "head.a.w"], ["head.b.w"]) == ["fc.{k**} -> !", "head.a.{k**} -> !"]
    assert drop_rules(["top"], ["top.w"]) == ["top -> !"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet18.pth"], "missing argument 'NEW'"),
        (["resnet18.pth", "nothing.pth"], "nothing.pth"),
        (["resnet18.pth", "shards", "--tolerance", "much"], "is not a tolerance"),
        (["resnet18.pth", "shards", "--only", "head.*"], "matches none"),
        (["hostile/truncated.pth", "shards"], "truncated.pth"),
    ],
)
def test_trouble_is_one_message_and_exit_2(arguments: list[str], message: str, cli: Run) -> None:
    code, out, err = cli("diff", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) <= 3


def test_files_of_one_name_are_told_apart(cli: Run, fixtures: Path) -> None:
    (fixtures / "old").mkdir()
    shutil.copy(fixtures / "resnet18.pth", fixtures / "old" / "tuned.safetensors")
    out = cli("diff", "old/tuned.safetensors", "tuned.safetensors", columns=160)[1]
    assert "only old/tuned.safetensors records module versions" in out


def test_counters_of_an_unrelated_model_are_not_called_harmless(cli: Run) -> None:
    out = cli("diff", "resnet18.pth", "deit.pth", columns=160)[1]
    assert "no key is in both" in out
    assert "harmless" not in out


def test_a_patch_is_not_compared_in_silence(cli: Run) -> None:
    assert cli("extract", "resnet18.pth", "tuned.safetensors", "-o", "p.safetensors")[0] == 0
    out = cli("diff", "p.safetensors", "resnet18.pth", columns=160)[1]
    assert "warning: this is a patch, not a model" in out
    assert "apply it: ckptool merge BASE --patch p.safetensors -o OUT" in out


def test_names_are_whole_where_there_is_room(cli: Run) -> None:
    Path("fixtures").mkdir()
    for name in ("resnet18-102.pth", "resnet18.pth"):
        Path(name).rename(f"fixtures/{name}")
    _, out, _ = cli("diff", "fixtures/resnet18-102.pth", "fixtures/resnet18.pth", columns=80)
    assert "- fixtures/resnet18-102.pth  102 tensors  70.0 kB  torch legacy" in out.splitlines()
    _, out, _ = cli("diff", "fixtures/resnet18-102.pth", "fixtures/resnet18.pth", columns=60)
    assert max(map(len, out.splitlines())) <= 60


def test_a_recipe_of_equal_keys_says_so(cli: Run) -> None:
    code, out, _ = cli("diff", "resnet18.pth", "shards", "--emit", "recipe")
    assert code == 0
    assert "# the keys are the same: there is nothing to rename or to drop" in out
