"""Each rule both ways, on files that torch and safetensors wrote."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from check_harness import check, details, found, status
from conftest import FIXTURES
from safetensors.torch import load_file, save_file
from torch import nn

from ckptool import plan_transplant
from ckptool.commands.checks import RULES, explain_rule, rule_named
from ckptool.commands.checks.run import run_checks
from ckptool.core.errors import ChangedError, CkptError, Exit, UnreadableError, UsageError

# ------------------------------------------------------------------------------------------- without a policy


@pytest.mark.parametrize("name", ["resnet18.pth", "resnet18-102.pth", "tuned.safetensors", "shards", "shards-bin"])
def test_plain_checkpoints_are_clean(name: str) -> None:
    report = check(FIXTURES / name)
    assert report.findings == ()
    assert report.exit_code("note") is Exit.OK
    assert set(report.rules) >= {"readable", "unsafe-pickle", "nonfinite", "dead", "wrapper", "leftover"}


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "vit_b_16", "mobilenet_v3_small"])
def test_fresh_models_of_torchvision_have_no_errors(name: str, torchvision: ModuleType, tmp_path: Path) -> None:
    with torch.device("meta"):
        model = getattr(torchvision.models, name)()
    shapes = {key: tensor for key, tensor in model.state_dict().items() if tensor.numel() < 100_000}
    state = {key: torch.full(tensor.shape, 0.5, dtype=tensor.dtype) for key, tensor in shapes.items()}
    for key, tensor in state.items():
        if tensor.dim() > 1:
            tensor.normal_()
        elif tensor.dim() == 1:
            tensor.fill_(float(key.endswith(("weight", "running_var"))))
    torch.save(state, tmp_path / "fresh.pth")
    assert check(tmp_path / "fresh.pth").findings == ()


def test_a_training_checkpoint_has_warnings_only() -> None:
    report = check(FIXTURES / "training.ckpt")
    assert {(finding.rule, finding.level) for finding in report.findings} == {
        ("facts", "warning"),
        ("wrapper", "warning"),
        ("leftover", "warning"),
    }
    assert report.exit_code() is Exit.OK and report.exit_code("warning") is Exit.DIFFERENT


def test_every_rule_has_a_page() -> None:
    for name in RULES:
        page = explain_rule(name)
        for part in ("Found: ", "Why: ", "What to do: ", "Policy: "):
            assert part in page, name
        assert max(map(len, page.splitlines())) <= 120
    with pytest.raises(UsageError, match='no rule "nan"') as caught:
        rule_named("nan")
    assert "nonfinite" in (caught.value.hint or "")
    with pytest.raises(UsageError) as caught:
        rule_named("non_finite")
    assert 'did you mean "nonfinite"?' in (caught.value.hint or "")


# ---------------------------------------------------------------------------------------------------- readable


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("truncated.pth", "is cut off"),
        ("truncated.safetensors", "ends early"),
        ("pointer.safetensors", "Git LFS pointer"),
        ("page.pth", "web page"),
        ("overlap.safetensors", "overlap"),
        ("duplicate.pth", "two members"),
    ],
)
def test_readable_says_what_a_file_is(name: str, words: str) -> None:
    report = check(FIXTURES / "hostile" / name)
    (finding,) = report.findings
    assert (finding.rule, finding.level) == ("readable", "error")
    assert words in finding.message and finding.help
    assert report.exit_code() is Exit.DIFFERENT
    assert status(report, "unsafe-pickle") == []  # a rule that could look at nothing is not in the report


def test_one_bad_file_does_not_stop_the_others(fixtures: Path) -> None:
    report = check(fixtures / "hostile" / "page.pth", fixtures / "resnet18.pth")
    assert status(report, "readable") == ["found", "ok"]
    assert status(report, "nonfinite") == ["skipped", "ok"]


def test_a_file_that_is_cut_off_while_it_is_read(fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fixtures / "tuned.safetensors"
    real = run_checks.__globals__["find_targets"]

    def cut_after_opening(paths: Sequence[Path]) -> object:
        for target in real(paths):
            yield target
            os.truncate(path, 30_000)

    monkeypatch.setitem(run_checks.__globals__, "find_targets", cut_after_opening)
    with pytest.raises(ChangedError, match="changed after it was opened"):
        check(path)


def test_a_checkpoint_without_tensors_is_a_warning(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    (finding,) = check(tmp_path / "empty.pth").findings
    assert (finding.rule, finding.level) == ("readable", "warning")


# ---------------------------------------------------------------------------------------------------- pickles


class Net(nn.Module):
    """A class of one's own in a pickle."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)


@pytest.mark.parametrize("name", ["system.pth", "system-legacy.pth"])
def test_code_in_a_pickle_is_an_error_and_does_not_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (finding,) = check(FIXTURES / "hostile" / name).findings
    assert (finding.rule, finding.level) == ("unsafe-pickle", "error")
    assert details(finding) == ["global posix.system called with 1 argument"]
    assert list(tmp_path.iterdir()) == []


def test_a_dangerous_global_is_allowed_by_its_name_only(fixtures: Path) -> None:
    path = fixtures / "hostile" / "system.pth"
    for pattern in ("*", "posix.*", "posix", "re:.*"):
        report = check(path, policy=f'allow.globals = ["{pattern}"]')
        assert found(report, "unsafe-pickle") and found(report, "policy"), pattern
    assert check(path, policy='allow.globals = ["posix.system"]').findings == ()


def test_classes_of_ones_own_are_a_warning_and_can_be_allowed(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"net": Net(), "w": torch.ones(2, 2) * torch.arange(2)}, path)
    report = check(path)
    (finding,) = found(report, "unsafe-pickle")
    assert finding.level == "warning" and any(f"{Net.__module__}.Net" in line for line in finding.details)
    assert not found(check(path, policy=f'allow.globals = ["{Net.__module__}.*"]'), "unsafe-pickle")
    (finding,) = found(check(path, policy='levels.unsafe-pickle = "error"'), "unsafe-pickle")
    assert finding.level == "error" and finding.policy is not None and finding.policy.line == 1


# ---------------------------------------------------------------------------------------------------- shards


def test_shards_that_are_missing(fixtures: Path) -> None:
    (fixtures / "shards" / "model-00002-of-00003.safetensors").unlink()
    report = check(fixtures / "shards")
    (finding,) = report.findings  # readable does not say it again
    assert (finding.rule, finding.message) == ("shards", "1 of 3 shards are missing")
    assert finding.details == ("model-00002-of-00003.safetensors",)
    assert report.files == (str(fixtures / "shards" / "model.safetensors.index.json"),)


def test_an_index_that_is_wrong_about_keys_and_size(fixtures: Path) -> None:
    path = fixtures / "shards" / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["metadata"]["total_size"] += 1
    del index["weight_map"]["bn1.bias"]
    path.write_text(json.dumps(index))
    report = check(fixtures / "shards", rules=["shards"])
    assert [(finding.level, finding.message.partition(" (")[0]) for finding in report.findings] == [
        ("warning", "1 tensor of the shards is not in the index"),
        ("warning", report.findings[1].message),
    ]
    assert "total_size" in report.findings[1].message

    index["weight_map"]["conv1.weight"] = "model-00003-of-00003.safetensors"
    path.write_text(json.dumps(index))
    (finding,) = [finding for finding in check(fixtures / "shards").findings if finding.level == "error"]
    assert finding.rule == "shards" and finding.keys == ("conv1.weight",)
    assert "it is in model-00001-of-00003.safetensors" in finding.details[0]


def test_a_shard_of_another_version_is_an_orphan(fixtures: Path) -> None:
    folder = fixtures / "shards"
    shutil.copy(folder / "model-00001-of-00003.safetensors", folder / "model-00001-of-00002.safetensors")
    (finding,) = check(folder).findings
    assert finding.message == "1 file is called like a shard, and in no index"
    assert finding.details == ("model-00001-of-00002.safetensors",)
    index = folder / "model.safetensors.index.json"
    assert check(index, policy='allow.shards = ["model-*-of-00002.safetensors"]').findings == ()


@pytest.mark.parametrize(("split", "words"), [(3, "the index is of another split"), (2, "remove what is left over")])
def test_shards_of_another_split_are_not_to_be_removed(split: int, words: str, tmp_path: Path) -> None:
    """Where no shard of the index is there, the index is wrong, and the shards are the weights."""
    for number in (1, 2):
        save_file({f"w{number}": torch.arange(2.0)}, tmp_path / f"model-0000{number}-of-00002.safetensors")
    if split == 2:
        save_file({"old": torch.arange(2.0)}, tmp_path / "model-00001-of-00004.safetensors")
    shards = {f"w{number}": f"model-0000{number}-of-0000{split}.safetensors" for number in (1, 2)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    findings = check(tmp_path / "model.safetensors.index.json").findings
    (finding,) = (finding for finding in findings if "called like a shard" in finding.message)
    assert words in finding.help and len(finding.details) == (2 if split == 3 else 1)


def test_an_index_that_reaches_outside_its_folder_is_refused_not_followed() -> None:
    (finding,) = check(FIXTURES / "hostile" / "outside").findings
    assert finding.rule == "readable" and "not a plain file name" in finding.message


def test_a_shard_stands_for_its_checkpoint(fixtures: Path) -> None:
    shards = sorted((fixtures / "shards").glob("*.safetensors"))
    report = check(*shards, fixtures / "shards")
    assert report.files == (str(fixtures / "shards" / "model.safetensors.index.json"),)
    (fixtures / "shards" / "model.safetensors.index.json").unlink()
    assert check(*shards).files == (str(shards[0]),)
    assert check(*shards).findings == ()
    shards[1].unlink()
    (finding,) = check(fixtures / "shards").findings
    assert finding.rule == "readable" and "lacks 1 of 3 shards" in finding.message


# ---------------------------------------------------------------------------------------------------- fits


def test_fits_another_checkpoint(fixtures: Path) -> None:
    policy = 'dtypes = ["f32", "i64"]\ninto = "resnet18.pth"\n'
    index = fixtures / "shards-bin" / "pytorch_model.bin.index.json"
    assert check(index, policy=policy.replace('"res', '"../res'), trusted=True).findings == ()
    (finding,) = check(fixtures / "tuned.safetensors", policy=policy).findings
    assert finding.message == "2 tensors do not fit resnet18.pth"
    assert set(details(finding)) == {"fc.weight f32[10,16] there f32[100,16]", "fc.bias f32[10] there f32[100]"}
    assert finding.policy is not None
    assert (finding.policy.line, finding.policy.text) == (2, 'into = "resnet18.pth"')
    assert check(fixtures / "tuned.safetensors", policy=policy + 'allow.mismatched = ["fc.*"]').findings == ()


def test_fits_leaves_counters_alone_unless_they_are_promised(fixtures: Path) -> None:
    old, new = fixtures / "resnet18-102.pth", fixtures / "resnet18.pth"
    assert check(old, policy='into = "resnet18.pth"').findings == ()
    assert check(new, policy='into = "resnet18-102.pth"').findings == ()
    state = torch.load(new, weights_only=True)
    for key in [key for key in state if key.endswith("num_batches_tracked")]:
        del state[key]
    torch.save(state, fixtures / "promised.pth")  # its _metadata says that BatchNorm has version 2
    (finding,) = check(fixtures / "promised.pth", policy='into = "resnet18.pth"').findings
    assert finding.message == "20 keys of resnet18.pth are missing"


def test_fits_names_what_is_missing_and_unexpected(fixtures: Path) -> None:
    state = load_file(fixtures / "tuned.safetensors")
    state["head.weight"] = state.pop("fc.weight")
    save_file(state, fixtures / "renamed.safetensors")
    report = check(fixtures / "renamed.safetensors", policy='into = "tuned.safetensors"')
    assert [(finding.message, finding.keys) for finding in report.findings] == [
        ("1 key of tuned.safetensors is missing", ("fc.weight",)),
        ("1 key that tuned.safetensors does not have", ("head.weight",)),
    ]
    with_recipe = 'into = "tuned.safetensors"\nrecipe = ["head. -> fc."]\n'
    assert check(fixtures / "renamed.safetensors", policy=with_recipe).findings == ()
    (finding,) = check(fixtures / "renamed.safetensors", policy='recipe = ["nothing. -> fc."]').findings
    assert "matches none of the 122 keys" in finding.message


def test_fits_helps_with_a_wrapper(fixtures: Path) -> None:
    report = check(fixtures / "training.ckpt", policy='into = "resnet18.pth"')
    assert {finding.help for finding in found(report, "fits")} == {
        f"ckptool remap {fixtures / 'training.ckpt'} -r strip-wrappers -o PLAIN"
    }


def test_fits_a_model_by_torchs_own_verdict(torchvision: ModuleType, tmp_path: Path) -> None:
    torch.save(torchvision.models.squeezenet1_1(num_classes=7).state_dict(), tmp_path / "net.pth")
    policy = 'into = "torchvision:squeezenet1_1"\n'
    (finding,) = found(check(tmp_path / "net.pth", policy=policy), "fits")
    assert finding.message == "2 tensors do not fit torchvision:squeezenet1_1"
    assert "classifier.1.bias f32[7] model f32[1000]" in details(finding)
    assert finding.help == f"ckptool transplant {tmp_path / 'net.pth'} --into torchvision:squeezenet1_1"
    policy += "model-args = {num_classes = 7}\n"
    assert not found(check(tmp_path / "net.pth", policy=policy), "fits")


def test_fits_a_model_of_ones_own_code_beside_the_policy(tmp_path: Path) -> None:
    code = "from torch import nn\nclass Small(nn.Module):\n    def __init__(self, n=2):\n        super().__init__()\n"
    (tmp_path / "small_net.py").write_text(
        code + "        self.fc = nn.Linear(3, n)\n        self.bn = nn.BatchNorm1d(n)\n"
    )
    save_file({"fc.weight": torch.randn(2, 3), "fc.bias": torch.zeros(2)}, tmp_path / "a.safetensors")
    (finding,) = check(tmp_path / "a.safetensors", policy='into = "small_net.py:Small"', trusted=True).findings
    assert finding.message == "4 keys of small_net.py:Small are missing"  # the counter is torch's to fill in
    policy = 'into = "small_net.py:Small"\nallow.missing = ["bn", "other"]'
    report = check(tmp_path / "a.safetensors", policy=policy, trusted=True)
    (finding,) = report.findings
    assert (finding.rule, finding.message) == ("policy", 'allow.missing "other" excuses nothing')


@pytest.mark.parametrize("into", ["evil.py:Net", "evil:Net", "./evil.py:run", "os:system", "torch.nn:Linear"])
def test_a_policy_runs_no_code(into: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    canary = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    (tmp_path / "evil.py").write_text(canary + "from torch.nn import Identity as Net\n")
    save_file({"fc.weight": torch.randn(2, 3)}, tmp_path / "a.safetensors")
    policy = f'into = "{into}"\nmodel-args = {{command = "touch ran"}}'
    (finding,) = found(check(tmp_path / "a.safetensors", policy=policy), "fits")
    assert (finding.level, finding.help) == ("error", "--trust-policy lets this policy run it")
    assert f"{into.rpartition(':')[0]} was not imported" in finding.message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("into", "why"),
    [
        ("os:system", "is a built-in function"),
        ("subprocess:call", "is a function of Python's standard library"),
        ("shutil:rmtree", "is a function of Python's standard library"),
        ("subprocess:Popen", "is a class, but no torch.nn.Module"),
        ("own.py:call", "is a function of Python's standard library"),
        ("own.py:part", "is a function of Python's standard library"),
        ("own.py:number", "returns int"),
        ("own.py:Config", "is a class, but no torch.nn.Module"),
    ],
)
def test_only_what_builds_a_model_is_called(into: str, why: str, tmp_path: Path) -> None:
    code = "from functools import partial\nfrom subprocess import call\npart = partial(call, ['touch', 'ran'])\n"
    code += "def number() -> int:\n    open('ran', 'w')\n    return 1\nclass Config:\n    pass\n"
    (tmp_path / "own.py").write_text(code)
    save_file({"fc.weight": torch.randn(2, 3)}, tmp_path / "a.safetensors")
    with pytest.raises(CkptError, match=why):
        check(tmp_path / "a.safetensors", policy=f'into = "{into}"', trusted=True)


@pytest.mark.parametrize("setting", ["lock = '{}'", "into = '{}'", "drift = {{from = '{}'}}", "recipe = '{}'"])
@pytest.mark.parametrize("form", ["relative", "absolute", "link"])
def test_paths_of_a_policy_stay_below_its_folder(setting: str, form: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    for name in ("a.safetensors", "base.safetensors"):
        save_file({"fc.weight": torch.ones(2, 3)}, inside / name)
    outside = tmp_path / "outside"
    (inside / "base.safetensors").rename(outside)
    (inside / "link").symlink_to(outside)
    name = {"relative": "../outside", "absolute": str(outside), "link": "link"}[form]
    with pytest.raises(UsageError, match="lies outside of the folder of") as caught:
        check(inside / "a.safetensors", policy=setting.format(name))
    assert "--trust-policy" in (caught.value.hint or "")
    save_file({"fc.weight": torch.ones(2, 3)}, inside / "below")
    if "recipe" not in setting and "lock" not in setting:
        assert not check(inside / "a.safetensors", policy=setting.format("below"), rules=["fits", "drift"]).findings
        check(inside / "a.safetensors", policy=setting.format(name), rules=["fits", "drift"], trusted=True)


def test_a_target_that_is_not_there_is_trouble(fixtures: Path) -> None:
    with pytest.raises(CkptError, match="nowhere"):
        check(fixtures / "resnet18.pth", policy='into = "nowhere.pth"')


# ---------------------------------------------------------------------------------------------- other headers


def test_dtype(fixtures: Path) -> None:
    path = fixtures / "tuned.safetensors"
    policy = 'dtypes = ["float32"]\n'
    (finding,) = check(path, policy=policy).findings
    assert finding.message == "20 tensors are int64; the policy has float32"
    assert set(finding.keys) == {key for key in load_file(path) if key.endswith("num_batches_tracked")}
    assert check(path, policy=policy + 'allow.dtype = ["num_batches_tracked"]').findings == ()
    (finding,) = found(check(path, policy='dtypes = ["bf16", "i64"]'), "dtype")
    assert finding.help == f"ckptool filter {path} --dtype bf16 -o OUT"


def test_size(fixtures: Path) -> None:
    path = fixtures / "tuned.safetensors"
    size = path.stat().st_size
    assert check(path, policy=f"max-size = {size}").findings == ()
    (finding,) = check(path, policy=f"max-size = {size - 1}").findings
    assert (finding.rule, finding.message) == ("size", "58.1 kB on disk, more than 58.1 kB")


def test_metadata(fixtures: Path) -> None:
    path = fixtures / "tuned.safetensors"
    assert check(path, policy='metadata = {format = "pt"}').findings == ()
    assert check(path, policy='metadata = ["format"]').findings == ()
    report = check(path, policy='metadata = {format = "np", license = "MIT", author = true}')
    assert [(finding.message, details(finding)) for finding in report.findings] == [
        ("the metadata lack license, author", ["license is to be MIT"]),
        ("1 entry of the metadata is other than in the policy", ["format pt is to be np"]),
    ]
    torch_file = fixtures / "training.ckpt"
    assert not found(check(torch_file, policy='metadata = {arch = "resnet18", epoch = "2"}'), "metadata")
    assert found(check(torch_file, policy='metadata = {arch = "resnet50"}'), "metadata")


def test_tied(tmp_path: Path) -> None:
    weight = torch.randn(4, 2)
    torch.save({"head": weight, "embed": weight}, tmp_path / "tied.pth")
    torch.save({"head": weight, "embed": weight.clone()}, tmp_path / "copies.pth")
    torch.save({"head": weight, "embed": weight + 1}, tmp_path / "apart.pth")
    torch.save({"embed": weight}, tmp_path / "once.pth")
    torch.save({"other": weight}, tmp_path / "none.pth")
    names = ["tied", "copies", "apart", "once", "none"]
    report = check(*(tmp_path / f"{name}.pth" for name in names), policy='tied = [["head", "embed"]]')
    assert {Path(finding.file).stem: finding.level for finding in report.findings} == {
        "copies": "warning",
        "apart": "error",
        "none": "error",
    }
    assert status(report, "tied") == ["ok", "found", "found", "ok", "found"]


def test_wrapper_and_leftover(fixtures: Path) -> None:
    path = fixtures / "training.ckpt"
    report = check(path)
    assert found(report, "wrapper")[0].help == f"remove it: ckptool remap {path} -r strip-wrappers -o PLAIN"
    assert len(found(report, "wrapper")[0].keys) == 122
    assert found(report, "leftover")[0].message.startswith("optimizer, lr_scheduler are needed to go on training only")
    allowed = 'allow.leftover = ["optimizer", "lr_*"]\nallow.wrapper = ["*"]\nallow.facts = ["weights-only"]'
    assert check(path, policy=allowed).findings == ()
    assert check(path, policy='levels = {leftover = "off", wrapper = "off", facts = "off"}').findings == ()


def test_initial_values_on_purpose_are_excused(fixtures: Path, tmp_path: Path) -> None:
    path = tmp_path / "reid.pth"
    into = f"{fixtures / 'models.py'}:Baseline"
    plan_transplant(fixtures / "resnet18.pth", into, new=["classifier", "bottleneck"], drop="fc").plan.apply(path)
    (finding,) = found(check(path), "facts")
    assert len(finding.keys) == 5 and finding.message.endswith(", classifier.weight")
    (finding,) = found(check(path, policy='allow.missing = ["classifier.*"]'), "facts")
    assert len(finding.keys) == 4 and "classifier" not in finding.message
    assert check(path, policy='allow.missing = ["classifier.*", "bottleneck"]').findings == ()


def test_select_says_which_weights_are_meant(fixtures: Path) -> None:
    policy = 'select = "model_ema"\nlevels = {leftover = "off", facts = "off"}'
    report = check(fixtures / "training.ckpt", policy=policy)
    assert report.findings == ()
    (finding,) = check(fixtures / "training.ckpt", policy='select = "nothing"').findings
    assert finding.rule == "readable"


# ---------------------------------------------------------------------------------------------------- drift


def test_drift_of_a_frozen_part(fixtures: Path) -> None:
    path = fixtures / "tuned.safetensors"
    stem = 'drift = {from = "resnet18.pth", keys = "{conv1,bn1}.*", rel = 0.0}\n'
    assert check(path, policy=stem).findings == ()
    state = load_file(path)
    state["bn1.running_mean"][1] += 1e-6
    state["bn1.num_batches_tracked"] += 1
    save_file(state, path)
    (finding,) = check(path, policy=stem).findings
    assert finding.message == "2 of 6 tensors moved away from resnet18.pth"
    assert set(finding.keys) == {"bn1.running_mean", "bn1.num_batches_tracked"}
    (finding,) = check(path, policy=stem + 'allow.drift = ["*.num_batches_tracked"]').findings
    assert finding.keys == ("bn1.running_mean",)
    assert check(path, policy=stem.replace("0.0", "1e-3") + 'allow.drift = ["*.num_batches_tracked"]').findings == ()


def test_drift_bounds_are_held_against_torch(fixtures: Path) -> None:
    old = torch.load(fixtures / "resnet18.pth", weights_only=True)["layer4.0.conv1.weight"].double()
    new = load_file(fixtures / "tuned.safetensors")["layer4.0.conv1.weight"].double()
    rel = float((new - old).norm() / old.norm())
    for bound, count in ((rel * 1.001, 0), (rel * 0.999, 1)):
        policy = f'drift = [{{from = "resnet18.pth", keys = ["layer4.0.conv1.weight"], rel = {bound!r}}}]'
        assert len(check(fixtures / "tuned.safetensors", policy=policy).findings) == count


def test_drift_of_shape_dtype_and_presence(fixtures: Path) -> None:
    path = fixtures / "tuned.safetensors"
    state = load_file(path)
    state["conv1.weight"] = state["conv1.weight"].half()
    del state["bn1.bias"]
    state["bn1.weight"] = torch.ones(3)
    save_file(state, path)
    (finding,) = check(path, policy='drift = {from = "resnet18.pth", keys = "{conv1,bn1}.*"}').findings
    assert set(finding.keys) == {"conv1.weight", "bn1.bias", "bn1.weight"}
    (finding,) = check(path, policy='drift = {from = "resnet18.pth", keys = "stem.*"}').findings
    assert finding.message == 'drift.keys "stem.*" matches none of the 122 keys'


def test_drift_sees_through_a_wrapper_and_needs_its_base(fixtures: Path) -> None:
    policy = 'drift = {from = "resnet18.pth", keys = "*.running_var", rel = 1e-9}\nlevels.wrapper = "off"'
    assert not found(check(fixtures / "training.ckpt", policy=policy), "drift")
    with pytest.raises(UnreadableError, match="none"):
        check(fixtures / "training.ckpt", policy='drift = {from = "none.pth"}')


@pytest.mark.parametrize(
    ("policy", "line"),
    [
        ('# a comment\ninto = "nix.safetensors"', 2),
        ('into = "torchvision:resnetzz"', 1),
        ('\n\ndrift = {from = "nix.safetensors"}', 3),
        ('levels.dead = "off"\nrecipe = "fc. head."', 2),
        ('lock = "../outside.lock"', 1),
        ('lock = "ckptool.toml"', 1),
        ('[[paths]]\nmatch = "*"\ninto = "nix.safetensors"', 3),
    ],
)
def test_an_error_of_what_a_policy_names_shows_its_line(policy: str, line: int, tmp_path: Path) -> None:
    save_file({"fc.weight": torch.ones(2, 3)}, tmp_path / "a.safetensors")
    with pytest.raises(CkptError) as caught:
        check(tmp_path / "a.safetensors", policy=policy)
    asked = policy.splitlines()[line - 1]
    assert caught.value.detail[-1] == f"   = policy: {asked}  ({tmp_path / 'ckptool.toml'}:{line})"
    assert str(caught.value).endswith(caught.value.detail[-1])
