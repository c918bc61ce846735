"""Comparisons, plans and transplants as findings, from real files."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import FIXTURES

import ckptool
from ckptool.commands.diff.comparison import compare
from ckptool.commands.diff.result import Status
from ckptool.core.checkpoint import Note
from ckptool.core.errors import Exit
from ckptool.core.plan import Plan, Problem, Use
from ckptool.report.about import ABOUT
from ckptool.report.results import diff_findings, plan_findings

RESNET = FIXTURES / "resnet18.pth"
TUNED = FIXTURES / "tuned.safetensors"


def test_each_difference_is_an_error_about_the_new_file() -> None:
    diff = compare(ckptool.open(RESNET), ckptool.open(TUNED))
    report = diff_findings(diff, "old.pth", "new.safetensors")
    found = {finding.rule: finding for finding in report.findings if finding.level == "error"}
    for status in Status:
        if status is not Status.SAME:
            assert len(found[status.value].keys if status.value in found else ()) == diff.count(status)
    assert found["reshaped"].message == "2 tensors are reshaped, compared with old.pth"
    assert set(found["reshaped"].keys) == {"fc.weight", "fc.bias"}
    assert "→" in found["reshaped"].details[0]
    assert any("rel " in detail for detail in found["changed"].details)
    assert {finding.file for finding in report.findings} == {"new.safetensors"}
    assert report.exit_code() is diff.exit_code is Exit.DIFFERENT


def test_equal_files_have_no_error() -> None:
    diff = compare(ckptool.open(RESNET), ckptool.open(FIXTURES / "resnet18.pth"))
    report = diff_findings(diff, "a.pth", "b.pth")
    assert report.exit_code() is diff.exit_code is Exit.OK
    assert not report.count("error")
    assert {outcome.status for outcome in report.outcomes if outcome.rule != "note"} == {"ok"}


def test_what_is_not_a_tensor_is_compared_too() -> None:
    diff = compare(ckptool.open(FIXTURES / "training.ckpt"), ckptool.open(TUNED))
    report = diff_findings(diff, "training.ckpt", "tuned.safetensors")
    (other,) = (finding for finding in report.findings if finding.rule == "other-entries")
    assert len(other.details) == len(diff.extras) > 0


def test_a_plan_that_cannot_be_carried_out_is_an_error() -> None:
    inputs = (ckptool.open(RESNET),)
    plan = Plan(
        inputs,
        (),
        problems=(Problem("2 keys would become head", "drop one", ("a", "b")),),
        unmet=(Problem("coverage is 3%"),),
        uses=(Use("a -> b", "rule 1", 0), Use("?c -> d", "rule 2", 0), Use("e -> f", "rule 3", 0, shadowed=True)),
        notes=(Note("a fact"), Note("a fact"), Note("a worry", level="warning")),
    )
    report = plan_findings(plan, ("resnet18.pth",))
    assert [(finding.rule, finding.level) for finding in report.findings] == [
        ("problem", "error"),
        ("expect", "error"),
        ("unused-rule", "warning"),
        ("unused-rule", "warning"),
        ("note", "note"),
        ("note", "warning"),
    ]
    assert report.findings[0].help == "drop one"
    assert report.exit_code() is Exit.DIFFERENT


def test_a_sound_plan_is_clean() -> None:
    plan = ckptool.plan_filter(RESNET, [("drop", "fc.*")])
    report = plan_findings(plan, (str(RESNET),))
    assert report.exit_code() is Exit.OK
    assert not report.count("error")


def test_every_rule_of_the_reports_is_explained() -> None:
    diff = compare(ckptool.open(RESNET), ckptool.open(TUNED))
    rules = {*diff_findings(diff, "a", "b").rules, *plan_findings(Plan((), ()), ()).rules}
    assert rules <= ABOUT.keys()


def test_a_transplant_says_what_is_missing_and_what_does_not_fit(tmp_path: Path) -> None:
    transplant = pytest.importorskip("ckptool.commands.transplant.planning")
    models = pytest.importorskip("ckptool.models")
    from ckptool.report.results import transplant_findings

    target = models.open_target(str(RESNET))
    done = transplant.plan_transplant(ckptool.open(TUNED), target, transplant.Asked(strict=True))
    report = transplant_findings(done, "tuned.safetensors")
    found = {finding.rule: finding for finding in report.findings}
    assert set(found["mismatched"].keys) == {"fc.weight", "fc.bias"}
    assert "f32" in found["mismatched"].details[0]
    assert found["expect"].level == "error"
    assert report.exit_code() is Exit.DIFFERENT
    assert set(report.rules) <= ABOUT.keys()
    lax = transplant_findings(transplant.plan_transplant(ckptool.open(TUNED), target), "tuned.safetensors")
    assert lax.exit_code() is Exit.OK
    assert lax.count("warning")
