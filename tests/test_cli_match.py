"""Automatic matching as a user sees it: `remap --auto`, `transplant --match auto`, `diff --match auto`."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from console import Run, runner
from documents import record_documents, same_report
from safetensors.torch import load_file, save_file

import ckptool
from ckptool.recipes.recipe import load_recipe

HF = "vit-hf.safetensors"
VIT = ["--into", "models.py:ViT", "--match", "auto"]

SCREENS = {
    "remap": ["remap", HF, "--auto", "--like", "deit.pth"],
    "transplant": ["transplant", HF, *VIT],
    "fit": [
        "transplant", HF, *VIT, "--model-arg", "img_size=384", "--model-arg", "num_classes=10", "--mismatch", "fit"
    ],
    "diff": ["diff", "deit.pth", HF, "--match", "auto"],
    "unrelated": ["diff", "resnet18.pth", HF, "--match", "auto"],
}  # fmt: skip


@pytest.fixture
def cli(fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in the fixtures folder; gives (exit code, stdout, stderr)."""
    return runner(fixtures, monkeypatch, capsys)


@pytest.mark.parametrize("name", SCREENS)
def test_screens(name: str, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = record_documents(monkeypatch)
    for columns in (80, 160):
        code, out, err = cli(*SCREENS[name], columns=columns)
        assert (code, err) == (int(name in ("diff", "unrelated")), "")
        if name not in ("diff", "unrelated"):
            assert out.splitlines()[-1] == "nothing written; add -o PATH    as a recipe: --save-recipe FILE"
        same_report(f"match-{name}", columns, out, documents)


@pytest.mark.parametrize(("old", "new"), [(HF, "deit.pth"), ("deit.pth", HF)])
def test_remap_makes_the_other_file(old: str, new: str, cli: Run, fixtures: Path) -> None:
    code, _, err = cli("remap", old, "--auto", "--like", new, "-o", "out.safetensors", "--save-recipe", "found.toml")
    assert (code, err) == (0, "")
    wanted = load_file(HF) if new == HF else torch.load(fixtures / new, weights_only=True)
    made = load_file("out.safetensors")
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[key], wanted[key]) for key in wanted)
    recipe = load_recipe("found.toml")
    assert 4 <= len(recipe.rules) <= 12
    assert all(": " in rule.comment for rule in recipe.rules), "each rule says why"
    again = cli("remap", old, "-r", "found.toml", "--like", new, "-o", "again.safetensors")
    assert (again[0], again[2]) == (0, "")
    assert Path("again.safetensors").read_bytes() == Path("out.safetensors").read_bytes()
    assert cli("diff", "out.safetensors", new)[0] in (0, 1)
    assert ckptool.compare("out.safetensors", new).count(ckptool.Status.SAME) == len(wanted)


def test_the_other_spelling_computes_the_same(cli: Run, fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source is transplanted, and both models give one output."""
    code, out, err = cli("transplant", HF, *VIT, "--strict", "-o", "out.pth")
    assert (code, err, out.splitlines()[-1]) == (0, "", "loads into models.py:ViT with strict=True: yes")
    monkeypatch.syspath_prepend(str(fixtures))
    import models

    mine, theirs = models.ViT().eval(), models.SplitViT().eval()
    mine.load_state_dict(torch.load("out.pth", weights_only=True))
    theirs.load_state_dict(load_file(HF))
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mine(images), theirs(images))


def test_saved_transplant_keeps_the_evidence(cli: Run) -> None:
    assert cli("transplant", HF, *VIT, "--save-recipe", "found.toml", "-o", "a.pth")[0] == 0
    recipe = load_recipe("found.toml")
    assert any("similar names" in rule.comment for rule in recipe.rules)
    assert cli("transplant", HF, "--into", "models.py:ViT", "-r", "found.toml", "-o", "b.pth")[0] == 0
    assert Path("a.pth").read_bytes() == Path("b.pth").read_bytes()


KEY = "blocks.0.norm1.weight"


@pytest.mark.parametrize(
    "command",
    [
        ("remap", HF, "--auto", "--like", "deit.pth"),
        ("remap", HF, "--match", "auto", "--like", "deit.pth"),
        ("transplant", HF, *VIT),
        ("diff", HF, "deit.pth", "--match", "auto"),
    ],
)
def test_what_was_weighed_is_shown_on_demand(command: tuple[str, ...], cli: Run) -> None:
    code, out, err = cli(*command, "--explain", KEY)
    assert (code, err) in ((0, ""), (1, ""))
    shown = out[out.index(f"explain {KEY}") :].splitlines()
    assert shown[1].startswith("  comes from vit.encoder.layer.0.layernorm_before.weight, aligned: ")
    assert shown[3].split() == ["candidate", "names", "lacking", "around", "siblings", "blocks", "order", "total"]
    assert [line.split()[0].rsplit(".", 2)[1] for line in shown[4:6]] == ["layernorm_before", "layernorm_after"]
    found = json.loads(cli(*command, "--explain", KEY, "--json")[1])["match"]["explained"]
    assert [row["key"] for row in found] == [KEY]
    assert found[0]["candidates"][0]["sources"] == ["vit.encoder.layer.0.layernorm_before.weight"]
    assert json.loads(cli(*command, "--json")[1])["match"]["explained"] == []


def test_another_size_of_the_model_is_not_called_another_model(cli: Run, fixtures: Path) -> None:
    wide = {key: tensor.repeat(3, *[1] * (tensor.dim() - 1)) for key, tensor in load_file(fixtures / HF).items()}
    save_file(wide, fixtures / "wide.safetensors")
    code, _, err = cli("transplant", HF, "--into", "wide.safetensors", "--match", "auto", columns=160)
    assert code == 2
    assert err.startswith(f"error: nothing would be loaded: {len(wide)} keys are in both, with other shapes\n")


def test_explain_errors(cli: Run) -> None:
    code, out, err = cli("remap", HF, "--auto", "--like", "deit.pth", "--explain", "blocks.7.*")
    assert (code, out) == (2, "") and 'error: --explain "blocks.7.*" matches none of the' in err
    for command in (
        ("remap", HF, "-r", "vit. ->"),
        ("diff", HF, "deit.pth"),
        ("transplant", HF, "--into", "models.py:ViT"),
    ):
        code, out, err = cli(*command, "--explain", KEY)
        assert (code, out) == (2, "") and "nothing is to be matched" in err


def test_rules_come_first_and_the_rest_is_found(cli: Run) -> None:
    """A user's rule gives a tensor another name; the match starts from there."""
    state = torch.load("deit.pth", weights_only=True)
    state["weird.w"] = state.pop("cls_token")
    torch.save(state, "odd.pth")
    alone = json.loads(cli("remap", "odd.pth", "--auto", "--like", HF, "--json")[1])
    helped = json.loads(cli("remap", "odd.pth", "-r", "weird.w -> cls_token", "--auto", "--like", HF, "--json")[1])
    assert "vit.embeddings.cls_token" in alone["match"]["unmatched_targets"]
    assert helped["match"]["unmatched_targets"] == []
    assert helped["summary"]["tensors"] == len(load_file(HF))


def test_what_is_not_sure_is_shown_and_not_written(cli: Run) -> None:
    """Two towers of equal shapes without a word in common: nothing but the order speaks, and it is not listened to."""
    names = ("alpha", "omega")
    old = {f"{name}.{n}.weight": torch.randn(8, 8) for name in names for n in range(3)}
    new = {f"{name}.{n}.weight": torch.randn(8, 8) for name in ("red", "blue") for n in range(3)}
    old |= {"stem.weight": torch.randn(8, 3), "head.weight": torch.randn(5, 8), "norm.weight": torch.randn(8)}
    new |= {"stem.weight": torch.randn(8, 3), "head.weight": torch.randn(5, 8), "norm.weight": torch.randn(8)}
    torch.save(old, "old.pth")
    torch.save(new, "new.pth")
    found = json.loads(cli("remap", "old.pth", "--auto", "--like", "new.pth", "--json")[1])
    assert {step["target"]["key"] for step in found["steps"]} <= {"stem.weight", "head.weight", "norm.weight"}
    left = [rule for rule in found["match"]["rules"] if not rule["taken"]]
    assert {rule["confidence"] for rule in left} <= {"guess", "interchangeable"}
    if left:
        shown = cli("remap", "old.pth", "--auto", "--like", "new.pth", columns=80)[1]
        assert "? is not taken: look at it, then --accept" in shown
        more = json.loads(
            cli("remap", "old.pth", "--auto", "--like", "new.pth", "--accept", "interchangeable", "--json")[1]
        )
        assert more["summary"]["tensors"] > found["summary"]["tensors"]


# ---------------------------------------------------------------------------------------------- --probe

PROBE = ["transplant", HF, *VIT, "--probe", "models.py:SplitViT"]
SWAP = ["-r", ".query. -> .key.", "-r", ".key. -> .query."]


@pytest.mark.parametrize(("name", "more"), [("agree", []), ("swap", SWAP)])
def test_probe_screens(name: str, more: list[str], cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both models compute the same; with queries and keys exchanged they do not, though a residual nearly hides it."""
    before = {path: path.stat().st_mtime_ns for path in Path().iterdir()}
    documents = record_documents(monkeypatch)
    code, out, err = cli(*PROBE, *more, *(["-o", "out.pth"] if more else []), columns=80)
    assert code == int(name == "swap")
    assert ("blocks.0.attn.proj computes something else" in err) if more else not err
    shown = out[out.index("\nprobe: ") + 1 :]
    same_report(f"probe-{name}", 80, shown, documents)
    assert ("made of all 32 filled tensors" in " ".join(shown.split())) == (name == "agree")
    made = {path: path.stat().st_mtime_ns for path in Path().iterdir() if path.name != "__pycache__"}
    assert made == {path: time for path, time in before.items() if path.name != "__pycache__"}, "nothing is written"


def test_probe_before_writing(cli: Run) -> None:
    code, out, err = cli(*PROBE, "--probe-arg", "num_classes=100", "--probe-input", "2x3x224x224", "-o", "out.pth")
    assert (code, err) == (0, "")
    assert "input image 2x3x224x224, float64" in out
    assert len(torch.load("out.pth", weights_only=True)) == 32


def test_probe_as_json(cli: Run) -> None:
    right, wrong = (cli(*PROBE, *more, "--json") for more in ([], SWAP))
    assert (right[0], wrong[0]) == (0, 1)
    found, other = json.loads(right[1])["probe"], json.loads(wrong[1])["probe"]
    assert (found["agree"], found["proof"], found["precision"], found["unproven"]) == (True, True, "float64", [])
    assert found["largest"] < 1e-12
    assert (other["agree"], other["first"], other["divided"]) == (False, "blocks.0.attn.proj", [])
    assert other["differing"][0]["error"] > 1e6 * other["differing"][0]["limit"]


def test_probe_that_can_compare_nothing(cli: Run) -> None:
    """The only module with the weight gives something else to each: that is no proof, and nothing is written."""
    Path("two.py").write_text(
        "import torch\n"
        "class One(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.weight = torch.nn.Parameter(torch.randn(6, 6))\n"
        "    def forward(self, x: torch.Tensor):\n"
        "        return x[:, :6] @ self.weight\n"
        "class Two(One):\n"
        "    def forward(self, x: torch.Tensor):\n"
        "        return super().forward(x)[:, :3]\n"
    )
    torch.save({"weight": torch.randn(6, 6)}, "one.pth")
    code, out, err = cli("transplant", "one.pth", "--into", "two.py:Two", "--probe", "two.py:One", "-o", "out.pth")
    assert code == 1
    assert "nothing could be compared" in out
    assert "the probe could compare nothing" in err
    assert not Path("out.pth").exists()


PROBE_ERRORS = {
    "SplitViT stops in vit.embeddings.patch_embeddings.projection (Conv2d)": ["--probe-input", "1,4,224,224"],
    "does not load strictly into models.py:SplitViT": ["--probe-arg", "num_classes=7"],
}


@pytest.mark.parametrize("message", PROBE_ERRORS)
def test_probe_errors(message: str, cli: Run) -> None:
    code, _, err = cli(*PROBE, *PROBE_ERRORS[message], "-o", "out.pth", columns=200)
    assert code == 2
    assert message in err
    assert not Path("out.pth").exists()


ERRORS = {
    '--probe-input "1,three" is not a shape': [*PROBE, "--probe-input", "1,three"],
    "--probe-input is for --probe": ["transplant", HF, *VIT, "--probe-input", "1,3,224,224"],
    "--auto needs the keys": ["remap", HF, "--auto"],
    "--reverse turns a recipe, --auto finds one": ["remap", HF, "--auto", "--like", "deit.pth", "--reverse"],
    "--save-recipe writes what --auto found": ["remap", HF, "-r", "a -> b", "--save-recipe", "x.toml"],
    "--accept says how sure a match must be": ["transplant", HF, "--into", "models.py:ViT", "--accept", "guess"],
    "nothing would be loaded: the two have nothing in common": ["transplant", "resnet18.pth", *VIT],
    'rule 1 "nothing. -> x." matches none': ["diff", "deit.pth", HF, "-r", "nothing. -> x."],
    "deit.pth is also an input": ["remap", HF, "--auto", "--like", "deit.pth", "--save-recipe", "deit.pth", "--force"],
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors(message: str, cli: Run, fixtures: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in fixtures.iterdir()}
    code, out, err = cli(*ERRORS[message])
    assert (code, out) == (2, "")
    assert message in err
    assert {path.name: path.stat().st_mtime_ns for path in fixtures.iterdir()} == before


def test_the_other_side_is_never_written_to(cli: Run, fixtures: Path) -> None:
    before = (fixtures / "deit.pth").read_bytes()
    for option in ("-o", "--save-recipe", "--report"):
        name = "deit.pth"
        code, _, err = cli("remap", HF, "--auto", "--like", name, option, name, "--force")
        assert code == 2, option
        assert "input" in err or "a report cannot end" in err
    assert (fixtures / "deit.pth").read_bytes() == before


def test_names_that_no_recipe_can_hold_are_left_out(cli: Run, fixtures: Path) -> None:
    for old, new in (("names.pth", "names.safetensors"), ("names.safetensors", "names.pth")):
        like = ["--like", f"hostile/{new}", "--save-recipe", f"{new}.toml"]
        code, out, err = cli("remap", f"hostile/{old}", "--auto", *like, columns=80)
        assert (code, err) == (0, "")
        assert out.replace("\n", "").isprintable()
        load_recipe(f"{new}.toml")
        code, out, err = cli("diff", f"hostile/{old}", f"hostile/{new}", "--match", "auto", columns=80)
        assert (code, err) == (1, "")
        assert out.replace("\n", "").isprintable()


def test_diff_sees_values_through_names_and_layouts(cli: Run) -> None:
    """What is renamed, split and joined is compared by its elements; one that changed is found."""
    state = load_file(HF)
    code, out, _ = cli("diff", "deit.pth", HF, "--match", "auto", "--json")
    found = json.loads(out)
    assert code == 1
    assert {change["status"] for change in found["changes"]} == {"renamed", "reshaped"}
    assert not any(change["delta"] for change in found["changes"])
    key = "vit.encoder.layer.1.attention.attention.key.weight"
    state[key] = state[key] * 1.5
    save_file(state, "changed.safetensors")
    for old, new in (("deit.pth", "changed.safetensors"), ("changed.safetensors", "deit.pth")):
        changes = json.loads(cli("diff", old, new, "--match", "auto", "--json")[1])["changes"]
        moved = [change for change in changes if change["status"] == "changed"]
        assert len(moved) == 1
        assert key in (moved[0]["key"], *moved[0]["sources"])
        assert moved[0]["layout"]
    delta = json.loads(cli("diff", "deit.pth", "changed.safetensors", "--match", "auto", "--json")[1])["changes"]
    (rel,) = [change["delta"]["rel"] for change in delta if change["status"] == "changed"]
    assert rel == pytest.approx(0.5)
    only = json.loads(cli("diff", "deit.pth", "changed.safetensors", "--match", "auto", "--only", key, "--json")[1])
    assert [change["key"] for change in only["changes"]] == [key]


def test_diff_through_rules(cli: Run) -> None:
    state = torch.load("resnet18.pth", weights_only=True)
    torch.save({f"body.{key}": value for key, value in state.items()}, "new.pth")
    code, out, _ = cli("diff", "resnet18.pth", "new.pth", "-r", "{k**} -> body.{k**}", "--json")
    assert code == 1
    assert {change["status"] for change in json.loads(out)["changes"]} == {"renamed"}
    shown = cli("diff", "resnet18.pth", "new.pth", "-r", "fc. -> body.fc.", columns=80)[1]
    assert "2 renamed" in shown
    assert "- 120 removed" in shown
    assert "+ 120 added" in shown


def test_python(fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fixtures)
    monkeypatch.syspath_prepend(str(fixtures))
    import models

    model = models.ViT()
    found = ckptool.match(HF, model)
    report = ckptool.load_into(model, HF, recipe=found.recipe, strict=True)
    assert len(report.loaded) == 32
    wanted = torch.load("deit.pth", weights_only=True)
    assert all(torch.equal(value, wanted[key]) for key, value in model.state_dict().items())
    with pytest.raises(ckptool.CkptError, match='accept = "maybe"'):
        ckptool.match(HF, model, accept="maybe")


def test_conv1d_of_transformers_is_known_by_its_class(transformers: ModuleType) -> None:
    """A square matrix shows no orientation; the class of the module does."""
    config = transformers.GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=64, n_positions=16)
    model = transformers.GPT2LMHeadModel(config)
    turned = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    state = {k: v.t().contiguous() if k.endswith(turned) else v for k, v in model.state_dict().items()}
    torch.save(state, "nano.pth")
    found = ckptool.match("nano.pth", model)
    square = [pair for pair in found.report.pairs if pair.targets[0].endswith("attn.c_proj.weight")]
    assert [pair.layout for pair in square] == ["o i -> i o"] * 2 or all("->" in pair.layout for pair in square)


@pytest.fixture
def transformers(torchvision: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(tmp_path)
    found: ModuleType = pytest.importorskip("transformers")
    return found
