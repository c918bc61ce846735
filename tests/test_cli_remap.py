"""`ckptool remap` as a user sees it: golden screens, recipes, expectations, the way back, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from console import Run, runner
from documents import record_documents, same_report
from safetensors.torch import load_file

import ckptool
from ckptool.core.errors import PlanError
from ckptool.recipes.recipe import builtin_recipes

State = dict[str, torch.Tensor]


@pytest.fixture
def cli(fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in the fixtures folder; gives (exit code, stdout, stderr)."""
    return runner(fixtures, monkeypatch, capsys)


@pytest.fixture
def state(fixtures: Path) -> State:
    found: State = torch.load(fixtures / "resnet18.pth", weights_only=True)
    return dict(found)


LAYOUT = "{m**}.conv{n}.weight -> {m**}.conv{n}.weight | o i h w -> h w i o"
SCREENS = {
    "wrapped": ["training.ckpt", "-r", "strip-wrappers"],
    "rules": ["resnet18.pth", "-r", "fc. -> head.", "-r", "{k**}.num_batches_tracked -> !", "-r", LAYOUT],
    "recipe": ["resnet18.pth", "-r", "torchvision-resnet-to-hf"],
    "cast": ["resnet18.pth", "-r", "fc.{p*} -> head.{p*} | f64", "--dtype", "bf16"],
    "check": ["resnet18.pth", "-r", "?module. ->", "--like", "shards", "--check"],
    "verbose": ["resnet18.pth", "-r", "fc. -> head.", "-r", "{k**}.running_mean -> !", "-v"],
}


@pytest.mark.parametrize("name", SCREENS)
def test_screens(name: str, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = record_documents(monkeypatch)
    for columns in (80, 160):
        code, out, err = cli("remap", *SCREENS[name], columns=columns)
        assert (code, err) == (0, "")
        assert out.splitlines()[-1] == (
            "checked: the plan is sound" if name == "check" else "nothing written; add -o PATH"
        )
        same_report(f"remap-{name}", columns, out, documents)


def test_renames_as_python_would(cli: Run, fixtures: Path, state: State) -> None:
    rules = ["-r", "fc. -> head.", "-r", ".downsample. -> .shortcut.", "-r", "layer1. -> stage1."]
    assert cli("remap", "resnet18.pth", *rules, "-o", "out.pth")[0] == 0
    names = {"fc": "head", "downsample": "shortcut", "layer1": "stage1"}
    expected = {".".join(names.get(part, part) for part in key.split(".")): value for key, value in state.items()}
    found = torch.load(fixtures / "out.pth", weights_only=True)
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_stages_see_the_names_before(cli: Run, fixtures: Path) -> None:
    rules = ["-r", "module. ->", "-r", "---", "-r", "fc. -> head."]
    assert cli("remap", "training.ckpt", *rules, "-o", "out.safetensors")[0] == 0
    assert {"head.weight", "head.bias"} < load_file(fixtures / "out.safetensors").keys()
    assert cli("remap", "training.ckpt", *rules[:2], *rules[4:])[0] == 2


def test_there_and_back_is_the_same_file(cli: Run) -> None:
    recipe = ["-r", "torchvision-resnet-to-hf"]
    assert cli("remap", "resnet18.pth", *recipe, "-o", "hf.safetensors")[0] == 0
    assert cli("diff", "resnet18.pth", "hf.safetensors")[0] == 1
    code, out, _ = cli("remap", "hf.safetensors", *recipe, "--reverse", "-o", "back.pth")
    assert code == 0
    assert "reversible: without --reverse" in out
    assert cli("diff", "resnet18.pth", "back.pth")[0] == 0


def test_layouts_and_casts_compute(cli: Run, fixtures: Path, state: State) -> None:
    rules = ["-r", "fc.weight -> {x=a|b}.weight | (x o) i -> i o | f64"]
    code, out, _ = cli("remap", "resnet18.pth", *rules, "-o", "out.safetensors", columns=160)
    assert code == 0
    assert "* 2 computed" in out
    found = load_file(fixtures / "out.safetensors")
    first, second = state["fc.weight"].double().chunk(2)
    assert torch.equal(found["a.weight"], first.T)
    assert torch.equal(found["b.weight"], second.T)


def test_vars_and_recipe_files(cli: Run, fixtures: Path) -> None:
    torch.save({"qkv": torch.arange(36).reshape(18, 2)}, fixtures / "a.pth")
    (fixtures / "split.toml").write_text(
        "ckptool = 1\nvars.h = 3\nrules = '''\nqkv -> {x=q|k|v} | (h x d) i -> (h d) i\n'''\n"
    )
    assert cli("remap", "a.pth", "-r", "split.toml", "-o", "three.pth")[0] == 0
    assert cli("remap", "a.pth", "-r", "split.toml", "--var", "h=1", "-o", "one.pth")[0] == 0
    whole = torch.arange(36).reshape(18, 2)
    three, one = (torch.load(fixtures / name, weights_only=True) for name in ("three.pth", "one.pth"))
    assert torch.equal(one["k"], whole[6:12])
    assert torch.equal(three["k"], whole.reshape(3, 3, -1, 2)[:, 1].reshape(-1, 2))
    assert "is not NAME=NUMBER" in cli("remap", "a.pth", "-r", "split.toml", "--var", "h")[2]


def test_names_in_the_optimizer_follow(cli: Run, fixtures: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.named_parameters(), momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(saved, fixtures / "run.pth")
    assert cli("remap", "run.pth", "-r", "weight -> kernel", "-o", "out.pth")[0] == 0
    found = torch.load(fixtures / "out.pth", weights_only=True)
    assert list(found["model"]) == ["kernel", "bias"]
    assert found["optimizer"]["param_groups"][0]["param_names"] == ["kernel", "bias"]


# ---------------------------------------------------------------------------------------------- expectations


def test_check_holds_the_plan_to_a_target(cli: Run, fixtures: Path) -> None:
    before = sorted(fixtures.iterdir())
    sound = ["remap", "training.ckpt", "-r", "strip-wrappers", "--like", "resnet18.pth"]
    assert cli(*sound, "--check", "-o", "out.pth", "--drop-optimizer")[0] == 0
    assert cli(*sound, "--check", "-o", "tuned.safetensors")[0] == 0
    assert cli(*sound, "-r", "fc. -> head.", "--check")[0] == 1
    assert cli("remap", "resnet18.pth", "-r", "nope. ->", "--check")[0] == 1
    assert sorted(fixtures.iterdir()) == before


def test_unmet_expectations_stop_the_writing(cli: Run, fixtures: Path) -> None:
    code, _, err = cli("remap", "resnet18.pth", "-r", "fc. -> head.", "--like", "shards", "-o", "out.pth")
    assert code == 1
    assert "error: 2 keys are missing\n    fc.bias\n    fc.weight\n" in err
    assert "error: 2 keys are unexpected\n    head.weight\n    head.bias\n" in err
    assert not (fixtures / "out.pth").exists()
    (fixtures / "e.toml").write_text(
        'rules = "fc. -> head."\nexpect.missing = ["fc"]\nexpect.unexpected = ["head"]\nexpect.coverage = 0.8\n'
    )
    assert cli("remap", "resnet18.pth", "-r", "e.toml", "--like", "shards", "-o", "out.pth")[0] == 0
    assert "head.weight" in torch.load(fixtures / "out.pth", weights_only=True)


# ---------------------------------------------------------------------------------------------- errors


def test_two_sources_for_one_target_shows_both(cli: Run, fixtures: Path) -> None:
    torch.save({"model.head.weight": torch.ones(1), "head.weight": torch.ones(1)}, fixtures / "a.pth")
    code, _, err = cli("remap", "a.pth", "-r", "model. ->", "-o", "out.pth")
    assert code == 2
    assert '2 tensors would become "head.weight"' in err
    assert "model.head.weight by rule 1; head.weight kept" in err
    assert not (fixtures / "out.pth").exists()


def test_many_problems_are_counted(cli: Run) -> None:
    code, _, err = cli("remap", "resnet18.pth", "-r", "layer1. -> layer2.")
    assert code == 2
    assert err.count("error:") == 13
    assert "12 more problems of the kind\n  help: all of them: --json" in err
    code, out, _ = cli("remap", "resnet18.pth", "-r", "layer1. -> layer2.", "--json")
    assert code == 2
    assert len(json.loads(out)["problems"]) == 24


ERRORS = {
    "no rule": ([], "there is no rule"),
    "near miss": (["-r", "strip-wraper"], "did you mean strip-wrappers?"),
    "nothing": (["-r", "no-such-thing-at-all"], "the built-in recipes: ckptool remap --recipes"),
    "no match": (["-r", "backbone. ->"], "matches none of the 122 keys"),
    "a module without its dot": (["-r", "layer1.0 -> stem"], 'layer1.0 is a module: "layer1.0." with a dot at its end'),
    "no file": (["-r", "nothing.toml"], "the recipe file nothing.toml does not exist"),
    "no arrow": (["-r", "fc. => head."], 'a rule has an arrow: "FROM -> TO"'),
    "no value": (["-r"], "ckptool remap --help"),
    "malformed": (["-r", "a.{b -> c"], "a.{b"),
    "toml": (["-r", "bad.toml"], "bad.toml is not TOML"),
    "exists": (["-r", "fc. -> head.", "-o", "tuned.safetensors"], "exists"),
    "not invertible": (["-r", "fc.weight -> fc.weight | = $1 * 2", "--reverse"], "cannot be reversed"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str, cli: Run, fixtures: Path) -> None:
    (fixtures / "bad.toml").write_text("rules = [")
    arguments, said = ERRORS[name]
    code, _, err = cli("remap", "resnet18.pth", *arguments, columns=160)
    assert code == 2
    assert err.startswith("error: ")
    assert said in err
    assert cli("diff", "resnet18.pth", "shards")[0] == 0


def test_one_recipe_is_printed_and_can_be_used(cli: Run, tmp_path: Path) -> None:
    code, out, _ = cli("remap", "--recipes", "resnet-to-ibn")
    assert code == 0
    (tmp_path / "own.toml").write_text(out, encoding="utf-8")
    by_file = cli("remap", "resnet18.pth", "-r", str(tmp_path / "own.toml"), "--json")
    assert by_file[0] == 0
    code, _, err = cli("remap", "--recipes", "resnet-to-ibm")
    assert code == 2
    assert "did you mean resnet-to-ibn?" in err


def test_recipes_are_listed(cli: Run) -> None:
    code, out, _ = cli("remap", "--recipes", columns=80)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    listed = [line.split()[0] for line in out.splitlines()[1:] if not line.startswith(" ")]
    assert listed == list(builtin_recipes())


# ---------------------------------------------------------------------------------------------- machines, Python


def test_json_tells_each_step(cli: Run) -> None:
    code, out, _ = cli("remap", "resnet18.pth", "-r", "fc.weight -> w | o i -> i o | bf16", "-r", "?x -> y", "--json")
    assert code == 0
    found = json.loads(out)
    (step,) = [step for step in found["steps"] if step["target"]["key"] == "w"]
    assert step == {
        "target": {"key": "w", "dtype": "bfloat16", "shape": [16, 100]},
        "sources": [{"input": 0, "key": "fc.weight"}],
        "op": "o i -> i o | bf16",
        "why": "rule 1",
    }
    assert [(rule["name"], rule["keys"]) for rule in found["rules"]] == [("rule 1", 1), ("rule 2", 0)]


def test_markdown_has_rules_and_keys(cli: Run) -> None:
    code, out, _ = cli("remap", "resnet18.pth", "-r", "fc. -> head.", "--format", "markdown")
    assert code == 0
    assert "| `fc. -> head.` | 2 |" in out
    assert "| `other keys` | 120 |" in out


def test_from_python(fixtures: Path, state: State) -> None:
    plan = ckptool.plan_remap(fixtures / "training.ckpt", ["strip-wrappers", "fc. -> head."])
    plan.apply(fixtures / "out.safetensors")
    assert load_file(fixtures / "out.safetensors").keys() == {key.replace("fc.", "head.") for key in state}
    again = ckptool.plan_remap(fixtures / "out.safetensors", ["fc. -> head."], reverse=True)
    again.apply(fixtures / "back.pth")
    assert ckptool.compare(fixtures / "back.pth", fixtures / "resnet18.pth", keys_only=True).is_same
    missed = ckptool.plan_remap(fixtures / "resnet18.pth", ["fc. -> head."], like=fixtures / "shards")
    with pytest.raises(PlanError, match="2 keys are missing"):
        missed.apply(fixtures / "x.pth")
    assert not (fixtures / "x.pth").exists()


def test_rules_without_a_match_stand_in_their_columns(cli: Run) -> None:
    rows = cli("remap", "resnet18.pth", "-r", "strip-wrappers", columns=80)[1].splitlines()
    heading = next(row for row in rows if "  keys  " in row)
    unused = next(row for row in rows if "optional rules without a match" in row)
    assert unused.rstrip().endswith(" 0")
    assert len(unused.rstrip()) == heading.index("keys") + len("keys")
