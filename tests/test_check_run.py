"""Runs of `check`: levels, allow-lists, paths, order, hostile names."""

from __future__ import annotations

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
    report = check(fixtures / "tuned.safetensors", policy='allow.missing = ["x"]\nallow.lock = ["y"]')
    assert report.findings == ()
    report = check(fixtures / "hostile" / "page.pth", policy='allow.nonfinite = ["x"]')
    assert not found(report, "policy")


def test_rules_can_be_chosen(fixtures: Path) -> None:
    report = check(fixtures / "training.ckpt", rules=["leftover", "readable"])
    assert report.rules == ("readable", "leftover")
    with pytest.raises(UsageError, match='no rule "leftovers"'):
        check(fixtures / "training.ckpt", rules=["leftovers"])


@pytest.mark.parametrize(("rule", "needs"), [(name, rule.needs) for name, rule in RULES.items() if rule.needs])
def test_a_rule_that_nothing_asks_for_does_not_pass(fixtures: Path, rule: str, needs: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"the rule {rule} needs {' or '.join(needs)} in the policy"):
        check(fixtures / "resnet18.pth", rules=[rule])
    assert check(fixtures / "resnet18.pth", rules=[rule, "readable"]).rules == ("readable",)


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
