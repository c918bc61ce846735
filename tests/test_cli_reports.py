"""`--report` and the formats of CI for inspect, diff, remap and transplant: the same code as for check."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from console import Run, runner


@pytest.fixture
def cli(fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    return runner(fixtures, monkeypatch, capsys)


COMMANDS = {
    "diff": (["diff", "resnet18.pth", "tuned.safetensors"], 1, "reshaped"),
    "remap": (["remap", "training.ckpt", "-r", "module. ->", "--like", "tuned.safetensors", "--check"], 1, "expect"),
    "transplant": (
        ["transplant", "tuned.safetensors", "--into", "resnet18.pth", "--min-coverage", "0.99"], 1, "mismatched"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_formats_of_ci(name: str, cli: Run, fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, code, rule = COMMANDS[name]
    summary = fixtures / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    found, out, _ = cli(*command, "--format", "github")
    assert found == code
    assert f" title=ckptool {rule}::" in out
    assert all(re.match("::(error|warning|notice) ", line) for line in out.splitlines())
    assert summary.read_text(encoding="utf-8").startswith(f"### ckptool {name} `")
    found, out, _ = cli(*command, "--format", "junit")
    assert found == code
    suite = ElementTree.fromstring(out)[0]
    assert suite.get("name") == f"ckptool {name}"
    assert int(suite.get("failures", "0")) >= 1
    found, out, _ = cli(*command, "--format", "sarif")
    assert found == code
    run = json.loads(out)["runs"][0]
    assert f"ckptool/{rule}" in {result["ruleId"] for result in run["results"]}
    assert run["invocations"][0]["exitCode"] == code
    found, out, _ = cli(*command, "--format", "markdown")
    assert found == code
    assert "fc" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_reports_are_what_the_formats_are(name: str, cli: Run, fixtures: Path) -> None:
    command, code, _ = COMMANDS[name]
    endings = {"json": "json", "md": "markdown", "sarif": "sarif", "xml": "junit", "html": "", "txt": ""}
    options = [word for ending in endings for word in ("--report", f"r.{ending}")]
    found, text, _ = cli(*command, *options)
    assert found == code
    assert text == cli(*command)[1]
    for ending, form in endings.items():
        written = (fixtures / f"r.{ending}").read_text(encoding="utf-8")
        if form == "junit":
            assert ElementTree.fromstring(written)[0].get("name") == f"ckptool {name}"
        elif form:
            assert written == cli(*command, "--format", form)[1]
    assert (fixtures / "r.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")
    assert "\x1b" not in (fixtures / "r.txt").read_text(encoding="utf-8")


def test_equal_files_have_no_findings(cli: Run, fixtures: Path) -> None:
    code, out, err = cli("diff", "resnet18.pth", "shards", "--format", "github")
    assert (code, err) == (0, "")
    assert out.startswith("::notice title=ckptool note::shards: only resnet18.pth records module versions")
    assert out.count("::notice") == out.count("\n")
    code, out, _ = cli("diff", "resnet18.pth", "shards", "--format", "junit")
    assert (code, ElementTree.fromstring(out)[0].get("failures")) == (0, "0")


def test_inspect_reports(cli: Run, fixtures: Path) -> None:
    options = [word for ending in ("html", "json", "md", "txt") for word in ("--report", f"r.{ending}")]
    code, text, err = cli("inspect", "resnet18.pth", "--stats", *options)
    assert (code, err) == (0, "")
    assert (fixtures / "r.txt").read_text(encoding="utf-8") == text
    assert len(json.loads((fixtures / "r.json").read_text(encoding="utf-8"))["tensors"]) == 122
    assert "layer4.1.conv2.weight" in (fixtures / "r.html").read_text(encoding="utf-8")
    code, out, err = cli("inspect", "resnet18.pth", "--report", "r.xml")
    assert (code, out) == (2, "")
    assert err.startswith('error: a report cannot end in ".xml"\n  --> r.xml\n')
    assert err.endswith("help: it may end in .txt .json .ndjson .csv .md .html\n")


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "link.json"],
        ["diff", "resnet18.pth", "link.json"],
        ["diff", "shards", "link.json"],
        ["remap", "link.json", "-r", "fc. -> head."],
        ["transplant", "resnet18.pth", "--into", "resnet18.pth"],
    ],
    ids=" ".join,
)
def test_an_input_is_never_a_report(command: list[str], cli: Run, fixtures: Path) -> None:
    (fixtures / "link.json").hardlink_to(fixtures / "resnet18.pth")
    before = (fixtures / "resnet18.pth").read_bytes()
    code, out, err = cli(*command, "--report", "link.json")
    assert (code, out) == (2, "")
    assert "link.json is also an input" in err
    assert (fixtures / "resnet18.pth").read_bytes() == before


def test_a_shard_is_never_a_report(cli: Run, fixtures: Path) -> None:
    shard = next((fixtures / "shards").glob("*-00001-*.safetensors"))
    (fixtures / "r.txt").hardlink_to(shard)
    before = shard.read_bytes()
    for command in (["inspect", "shards"], ["diff", "shards", "resnet18.pth"], ["remap", "shards", "-r", "fc. -> h."]):
        assert cli(*command, "--report", "r.txt")[0] == 2
    assert cli("check", "shards", "--report", "r.txt")[0] == 2
    assert cli("check", "shards", "--report", "shards/report.txt")[0] == 0
    assert cli("check", "shards", "--report", "shards/report.txt")[0] == 0  # an old report is no input
    assert shard.read_bytes() == before


def test_an_output_and_a_report_of_one_plan(cli: Run, fixtures: Path) -> None:
    code, out, _ = cli("remap", "resnet18.pth", "-r", "fc. -> head.", "-o", "new.pth", "--report", "r.json")
    assert code == 0
    assert (fixtures / "new.pth").exists()
    written = json.loads((fixtures / "r.json").read_text(encoding="utf-8"))
    again = cli("remap", "resnet18.pth", "-r", "fc. -> head.", "-o", "new2.pth", "--json")[1]
    assert written.keys() == json.loads(again).keys()
    assert "head" in out


def test_a_disk_that_is_full_is_said(cli: Run, fixtures: Path) -> None:
    (fixtures / "r.json").symlink_to("/dev/full")
    code, _, err = cli("diff", "resnet18.pth", "shards", "--report", "r.json")
    assert code == 2
    assert err.startswith("error: r.json is not a regular file")
