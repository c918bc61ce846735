"""Runs of `check`: levels, allow-lists, paths, order, hostile names."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from check_harness import check, found
from safetensors.torch import load_file

from ckptool.commands.checks import RULES
from ckptool.commands.checks.policy import Policy, read_policy
from ckptool.commands.checks.run import run_checks
from ckptool.core.errors import UnreadableError, UsageError
from ckptool.report.document_check import check_document

# ------------------------------------------------------------------------------------------- levels and lists


def test_levels_of_rules_and_of_paths(fixtures: Path) -> None:
    policy = 'levels.leftover = "note"\n[[paths]]\nmatch = "training.*"\nlevels.leftover = "error"\n'
    (fixtures / "ckptool.toml").write_text(policy)
    shutil.copy(fixtures / "training.ckpt", fixtures / "run.ckpt")
    report = run_checks([fixtures / "training.ckpt", fixtures / "run.ckpt"], read_policy(fixtures / "ckptool.toml"))
    assert [(finding.level, finding.policy and finding.policy.line) for finding in found(report, "leftover")] == [
        ("error", 4),
        ("note", 1),
    ]
    assert (report.count("error"), report.count("warning"), report.count("note")) == (1, 4, 1)


def test_an_unused_entry_of_an_allow_list_is_found_where_it_stands(fixtures: Path) -> None:
    policy = 'into = "resnet18.pth"\n[allow]\nmismatched = [\n  "fc.*",\n  "head.*",\n]\nmissing = ["x"]\n'
    (fixtures / "ckptool.toml").write_text(policy + '[[paths]]\nmatch = "none/*"\nallow.dead = ["y"]\n')
    report = run_checks([fixtures / "tuned.safetensors"], read_policy(fixtures / "ckptool.toml"))
    assert [
        (finding.level, finding.message, finding.policy and finding.policy.line) for finding in report.findings
    ] == [
        ("warning", 'allow.mismatched "head.*" excuses nothing', 5),
        ("warning", 'allow.missing "x" excuses nothing', 7),
    ]
    assert {finding.file for finding in report.findings} == {str(fixtures / "ckptool.toml")}


def test_an_entry_is_not_judged_by_a_rule_that_did_not_run(fixtures: Path) -> None:
    policy = (
        'into = "resnet18.pth"\nallow.mismatched = ["fc"]\nallow.missing = ["x"]\nlock = "no.lock"\nallow.lock = ["y"]'
    )
    assert not found(check(fixtures / "tuned.safetensors", policy=policy, rules=["readable", "policy"]), "policy")
    report = check(fixtures / "hostile" / "page.pth", policy='allow.nonfinite = ["x"]')
    assert not found(report, "policy")


def test_rules_can_be_chosen(fixtures: Path) -> None:
    report = check(fixtures / "training.ckpt", rules=["leftover", "readable"])
    assert report.rules == ("readable", "leftover")
    with pytest.raises(UsageError, match='no rule "leftovers"'):
        check(fixtures / "training.ckpt", rules=["leftovers"])


@pytest.mark.parametrize("rule", [name for name, rule in RULES.items() if rule.needs])
def test_a_rule_that_nothing_asks_for_does_not_pass(fixtures: Path, rule: str) -> None:
    needs = [key.name for key in RULES[rule].needs]
    with pytest.raises(UsageError, match=f"the rule {rule} needs {' or '.join(needs)} in the policy"):
        check(fixtures / "resnet18.pth", rules=[rule])
    beside = check(fixtures / "resnet18.pth", rules=[rule, "readable"])
    assert beside.idle == {rule: "not asked for"}


# ---------------------------------------------------------------------------------------------------- paths


def test_folders_are_searched_by_content_and_shards_count_once(fixtures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    (folder / ".cache").mkdir(parents=True)
    for name in ("shards", "shards-bin"):
        shutil.copytree(fixtures / name, folder / name)
    for name, copy in (
        ("resnet18.pth", "resnet18.pth"),
        ("resnet18.pth", "real.bin"),
        ("training.ckpt", "training.ckpt"),
        ("tuned.safetensors", "deep/er/tuned.safetensors"),
        ("hostile/pointer.safetensors", "pulled.bin"),
    ):
        (folder / copy).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(fixtures / name, folder / copy)
    (folder / "firmware.bin").write_bytes(b"\x00\x01\x02 not weights")
    (folder / "package.index.json").write_text("{}")
    (folder / ".cache" / "a.pth").write_text("hidden")
    torch.save({"state": {}}, folder / "optimizer.pt")
    report = check(folder)
    assert [Path(name).relative_to(folder).as_posix() for name in report.files] == [
        "optimizer.pt",
        "pulled.bin",
        "real.bin",
        "resnet18.pth",
        "training.ckpt",
        "deep/er/tuned.safetensors",
        "shards/model.safetensors.index.json",
        "shards-bin/pytorch_model.bin.index.json",
    ]
    (finding,) = [finding for finding in report.findings if finding.level == "error"]
    assert finding.file.endswith("pulled.bin")
    by_rule = {outcome.rule: outcome for outcome in report.outcomes if outcome.file.endswith("optimizer.pt")}
    assert by_rule["readable"].status == "ok" and by_rule["nonfinite"].text == "beside the weights"


def test_a_path_is_checked_once(fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fixtures)
    assert run_checks(["resnet18.pth", "./resnet18.pth", "shards/../resnet18.pth"]).files == ("resnet18.pth",)


def test_nothing_to_check_is_trouble(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to check"):
        run_checks([])
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match="no checkpoint in"):
        run_checks([tmp_path])
    with pytest.raises(UnreadableError, match="does not exist"):
        run_checks([tmp_path / "*.pth"])


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_a_distributed_checkpoint_is_one(tmp_path: Path) -> None:
    from torch.distributed import checkpoint as dcp

    state = {"w": torch.full((4, 4), torch.nan), "b": torch.randn(3)}
    dcp.save(state, checkpoint_id=str(tmp_path / "runs" / "step1"), no_dist=True)
    report = check(tmp_path / "runs")
    assert report.files == (str(tmp_path / "runs" / "step1"),)
    assert found(report, "nonfinite")[0].message == "16 NaN in w (of 16)"


# ------------------------------------------------------------------------------------------- hostile and mixed


def test_hostile_names_are_kept_as_they_are_and_break_nothing(fixtures: Path) -> None:
    state = {
        key: torch.full_like(tensor, torch.inf)
        for key, tensor in load_file(fixtures / "hostile" / "names.safetensors").items()
    }
    state["a" * 100_000] = torch.full((2, 2), torch.nan)
    torch.save(state, fixtures / "two\nlines::error::.pth")
    policy = 'lock = "w.lock"\ndtypes = ["i8"]\ninto = "resnet18.pth"\ntied = [["a", "b"]]\n'
    report = check(fixtures / "two\nlines::error::.pth", policy=policy)
    assert set(found(report, "nonfinite")[0].keys) == set(state)
    assert {key for finding in found(report, "fits") for key in finding.keys} >= set(state)
    assert max(len(line) for line in found(report, "nonfinite")[0].details[:3]) < 200
    assert "'" in found(report, "nonfinite")[0].help  # a word for a shell


def test_findings_and_outcomes_are_in_order(fixtures: Path) -> None:
    report = check(fixtures / "tuned.safetensors", fixtures / "training.ckpt", policy="max-size = 1")
    order = {name: number for number, name in enumerate(RULES)}
    for file in report.files:
        for rows in (report.findings, report.outcomes):
            rules = [order[row.rule] for row in rows if row.file == file]
            assert rules == sorted(rules)
    assert {(outcome.file, outcome.rule) for outcome in report.outcomes} == {
        (file, rule) for file in report.files for rule in report.rules
    }
    assert report.seconds > 0


def test_progress_counts_every_byte_once(fixtures: Path) -> None:
    seen: list[tuple[int, int]] = []
    run_checks(
        [fixtures / "tuned.safetensors", fixtures / "resnet18.pth"], Policy(), progress=lambda *at: seen.append(at)
    )
    floats = 2 * sum(t.nbytes for t in load_file(fixtures / "tuned.safetensors").values() if t.is_floating_point())
    floats += 4 * (100 - 10) * 17  # the other head
    floats += 20 * 8  # the counters of the torch file, which states checksums
    assert seen[-1][0] == seen[-1][1]
    assert seen[-1][1] == floats
    assert seen == sorted(seen)


def test_header_rules_read_no_values(fixtures: Path) -> None:
    rules = [name for name, rule in RULES.items() if not rule.reads]
    seen: list[tuple[int, int]] = []
    run_checks([fixtures / "tuned.safetensors"], Policy(), rules=rules, progress=lambda *at: seen.append(at))
    assert seen == []


# ------------------------------------------------------------------------------------------- what judges nothing


@pytest.mark.parametrize(
    ("policy", "rules", "message"),
    [
        ('levels.nonfinite = "off"', ["nonfinite"], "the rule nonfinite is off in the policy"),
        ('levels.nonfinite = "off"', ["nonfinite", "lock"], "the rule nonfinite is off in the policy"),
        ("", ["fits"], "the rule fits needs into or recipe in the policy"),
    ],
)
def test_a_named_rule_that_may_not_look_is_refused(
    fixtures: Path, tmp_path: Path, policy: str, rules: list[str], message: str
) -> None:
    file = Path(shutil.copy(fixtures / "resnet18.pth", tmp_path))
    with pytest.raises(UsageError, match=re.escape(message)):
        check(file, policy=policy, rules=rules)


def test_a_named_rule_with_nothing_to_look_at_is_said(fixtures: Path) -> None:
    report = check(fixtures / "resnet18.pth", rules=["shards"])
    assert report.idle == {"shards": "not sharded"}
    answer = check_document(report).answer
    assert (answer.text, answer.mood) == (
        "nothing checked: 1 file; shards had nothing to look at (not sharded)",
        "warning",
    )
    both = check_document(check(fixtures / "resnet18.pth", rules=["shards", "readable"])).answer
    assert both.text == "passed: 1 file, 1 rule, nothing found; shards had nothing to look at (not sharded)"
    assert not check(fixtures / "resnet18.pth").idle


@pytest.mark.parametrize("rule", ["nonfinite", "facts", "policy"])
def test_what_cannot_be_read_fails_whatever_rule_is_named(fixtures: Path, tmp_path: Path, rule: str) -> None:
    cut = tmp_path / "cut.pth"
    cut.write_bytes((fixtures / "resnet18.pth").read_bytes()[:3000])
    report = check(cut, rules=[rule])
    assert [finding.rule for finding in report.findings] == ["readable"]
    assert report.exit_code() == 1


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ('allow.unexpected = ["fc.*"]', 'allow.unexpected "fc.*" has no effect: the rule fits needs into or recipe'),
        ('levels.drift = "error"', "levels.drift has no effect: the rule drift needs drift"),
        ("model-args = {num_classes = 3}", "model-args has no effect"),
        ('levels.dead = "off"\nallow.dead = ["fc.*"]', 'allow.dead "fc.*" has no effect: the rule dead is off'),
        ('[[paths]]\nmatch = "*"\nallow.mismatched = "x"', 'allow.mismatched "x" has no effect: the rule fits needs'),
    ],
)
def test_a_setting_that_no_rule_reads_is_found(fixtures: Path, tmp_path: Path, policy: str, message: str) -> None:
    file = Path(shutil.copy(fixtures / "resnet18.pth", tmp_path))
    (finding,) = found(check(file, policy=policy), "policy")
    assert finding.message.startswith(message)
    assert finding.policy is not None and finding.policy.line is not None


def test_a_setting_of_one_path_may_ask_for_another(fixtures: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(fixtures / "resnet18.pth", tmp_path))
    policy = 'allow.unexpected = ["fc.*"]\n[[paths]]\nmatch = "elsewhere/*"\ninto = "resnet18.pth"'
    assert not found(check(file, policy=policy), "policy")
