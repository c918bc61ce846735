"""`ckptool check` as a user and as CI see it: screens, policies, exit codes, formats, reports, GitHub Actions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from console import Run, runner, shell
from documents import record_documents, same_report
from safetensors.torch import save_file

from ckptool.commands.checks import RULES, explain_rule

POLICY = """\
into = "resnet18.pth"
dtypes = ["float32", "int64"]
max-size = "100kB"
drift = { from = "resnet18.pth", keys = "{conv1,bn1}.*" }
"""


@pytest.fixture
def cli(fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in the fixtures folder, away from any CI."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    (fixtures / ".git").mkdir()  # the search for a policy ends here
    return runner(fixtures, monkeypatch, capsys)


@pytest.fixture
def policy(fixtures: Path) -> Path:
    path = fixtures / "ckptool.toml"
    path.write_text(POLICY, encoding="utf-8")
    return path


SCREENS = {
    "clean": ["resnet18.pth", "shards"],
    "training": ["training.ckpt", "--fail-on", "warning"],
    "hostile": ["hostile"],
    "policy": ["tuned.safetensors", "training.ckpt", "resnet18.pth", "--policy", "ckptool.toml"],
}


@pytest.mark.parametrize("name", SCREENS)
def test_screens(name: str, cli: Run, fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "policy":
        (fixtures / "ckptool.toml").write_text(POLICY, encoding="utf-8")
    documents = record_documents(monkeypatch)
    for columns in (80, 160):
        code, out, err = cli("check", *SCREENS[name], columns=columns)
        assert (code, err) == (int(name != "clean"), "")
        same_report(f"check-{name}", columns, out, documents)


@pytest.mark.parametrize("columns", [80, 160])
def test_the_rules_are_listed(columns: int, cli: Run) -> None:
    code, out, err = cli("check", "--rules", columns=columns)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= columns
    rows = [f"{name} {explain_rule(name).splitlines()[0]}" for name in RULES]
    assert out.split() == " ".join(["rule what it finds", *rows]).split()
    starts = [line.split()[0] for line in out.splitlines() if not line.startswith(" ")]
    assert starts == ["rule", *RULES]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("columns", [80, 160])
def test_every_rule_is_explained(rule: str, columns: int, cli: Run) -> None:
    code, out, err = cli("check", "--explain", rule, columns=columns)
    assert (code, err) == (0, "")
    assert out.startswith(f"{RULES[rule].level}[{rule}]\n\n")
    assert out.split()[1:] == explain_rule(rule).split()
    for title in ("Found:", "Why:", "What to do:", "Policy:"):
        assert f"\n\n{title} " in out
    prose = [line for line in out.splitlines() if not line.startswith("    ")]
    assert max(map(len, prose)) <= columns


def test_a_rule_that_does_not_exist(cli: Run) -> None:
    code, _, err = cli("check", "--explain", "nonfinit")
    assert code == 2
    assert 'there is no rule "nonfinit"' in err
    assert 'did you mean "nonfinite"?' in err
    assert cli("check", "resnet18.pth", "--rule", "x")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["resnet18.pth"], 0),
        (["training.ckpt"], 0),  # warnings
        (["training.ckpt", "--fail-on", "warning"], 1),
        (["training.ckpt", "--fail-on", "warning", "--rule", "nonfinite"], 0),
        (["hostile/system.pth"], 1),
        (["hostile/system.pth", "--rule", "nonfinite", "--rule", "dead"], 0),
        ([], 2),
        (["nowhere.pth"], 2),
        (["resnet18.pth", "--policy", "nowhere.toml"], 2),
        (["resnet18.pth", "--update-lock"], 2),
        (["resnet18.pth", "--fail-on", "never"], 2),
        (["resnet18.pth", "--into", "nowhere.pth"], 2),
    ],
)
def test_exit_codes(arguments: list[str], code: int, cli: Run) -> None:
    found, out, err = cli("check", *arguments)
    assert found == code
    assert err.startswith("error: ") if code == 2 else not err
    assert "Traceback" not in out + err


def test_policies_are_found_upwards(cli: Run, fixtures: Path, policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fixtures / "shards")
    code, out, _ = cli("check", "../tuned.safetensors")
    assert code == 1
    assert "2 tensors do not fit resnet18.pth" in out
    assert "(../ckptool.toml:1)" in out
    policy.rename(fixtures / "other.toml")
    assert cli("check", "../tuned.safetensors")[0] == 0
    assert cli("check", "../tuned.safetensors", "--policy", "../other.toml")[0] == 1
    table = "[tool.other]\nx = 1\n\n[tool.ckptool.check]\n"
    (fixtures / "pyproject.toml").write_text(f'{table}max-size = "1kB"\nfail-on = "warning"\n', encoding="utf-8")
    assert "(../pyproject.toml:5)" in cli("check", "../tuned.safetensors")[1]
    (fixtures / "pyproject.toml").write_text(f'{table}fail-on = "warning"\n', encoding="utf-8")
    assert cli("check", "../training.ckpt")[0] == 1
    assert cli("check", "../training.ckpt", "--fail-on", "error")[0] == 0
    (fixtures / "pyproject.toml").write_text(f'{table}max-sise = "1kB"\n', encoding="utf-8")
    code, _, err = cli("check", "../tuned.safetensors")
    assert code == 2
    assert "pyproject.toml:5" in err


def test_a_model_of_the_command_line_wins(
    cli: Run, fixtures: Path, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy.write_text('[[paths]]\nmatch = "*"\ninto = "resnet18.pth"\n', encoding="utf-8")
    assert cli("check", "tuned.safetensors")[0] == 1
    assert cli("check", "tuned.safetensors", "--into", "tuned.safetensors")[0] == 0
    monkeypatch.chdir(fixtures / "shards")
    found = json.loads(cli("check", "../tuned.safetensors", "--into", "model.safetensors.index.json", "--json")[1])
    assert [(finding["rule"], finding["policy"]) for finding in found["findings"]] == [("fits", None)]


def test_models_are_listed_that_need_torch(cli: Run, fixtures: Path, policy: Path) -> None:
    assert cli("check", "--models") == (0, "", "")
    policy.write_text(
        'into = "torchvision:resnet18"\n[[paths]]\nmatch = "*.ckpt"\ninto = "net.py:Net"\n', encoding="utf-8"
    )
    assert cli("check", "--models") == (0, "torchvision:resnet18\nnet.py:Net\n", "")
    assert cli("check", "--models", "--policy", "/dev/null", "--into", "timm:x") == (0, "timm:x\n", "")


def test_a_lock_is_written_reviewed_and_kept(cli: Run, fixtures: Path) -> None:
    (fixtures / "ckptool.toml").write_text('lock = "weights.lock"\n', encoding="utf-8")
    assert cli("check", "resnet18.pth")[0] == 1
    assert cli("check", "resnet18.pth", "--update-lock")[0] == 0
    first = (fixtures / "weights.lock").read_text(encoding="utf-8")
    assert "\n[resnet18.pth]\n" in first
    assert "fc.weight\tf32[100,16]\t4ef1d407788e5b04e5bfd452f1cf8c3e8e2730826051d02ec007c1ef5e8cb1ac\n" in first
    assert cli("check", "resnet18.pth")[0] == 0
    state = torch.load(fixtures / "resnet18.pth", weights_only=True)
    state["fc.bias"][3] += 1
    torch.save(state, fixtures / "resnet18.pth")
    code, out, _ = cli("check", "resnet18.pth")
    assert code == 1
    assert "fc.bias" in out
    assert cli("check", "resnet18.pth", "--update-lock")[0] == 0
    second = (fixtures / "weights.lock").read_text(encoding="utf-8")
    changed = set(first.splitlines()) ^ set(second.splitlines())
    assert {line.split("\t")[0] for line in changed} == {"fc.bias"}


def test_json(cli: Run, policy: Path) -> None:
    code, out, err = cli("check", "tuned.safetensors", "hostile/system.pth", "--json")
    assert (code, err) == (1, "")
    found = json.loads(out)
    assert (found["schema"], found["exit_code"], found["files"]) == ("ckptool.check/1", 1, 2)
    rules = {finding["rule"]: finding for finding in reversed(found["findings"])}  # those of the first file
    assert set(rules["fits"]["keys"]) >= {"fc.weight", "fc.bias"}
    assert rules["fits"]["policy"] == {"file": "ckptool.toml", "line": 1}
    assert rules["unsafe-pickle"]["level"] == "error"


def test_errors_as_json(cli: Run) -> None:
    code, out, _ = cli("check", "nowhere.pth", "--json")
    assert code == 2
    assert json.loads(out)["schema"] == "ckptool.error/1"


@pytest.mark.parametrize("form", ["json", "markdown", "github", "junit", "sarif"])
def test_formats_are_for_their_readers(form: str, cli: Run, policy: Path) -> None:
    code, out, err = cli("check", "tuned.safetensors", "hostile/system.pth", "--format", form)
    assert (code, err) == (1, "")
    match form:
        case "json":
            assert json.loads(out)["summary"]["error"] >= 2
        case "markdown":
            assert out.startswith("### ckptool check\n\n**failed")
        case "github":
            assert all(line.startswith(("::error ", "::warning ", "::notice ")) for line in out.splitlines())
            assert "::error file=ckptool.toml,line=1,title=ckptool fits::tuned.safetensors: " in out
        case "junit":
            failed = {case.get("name") for case in ElementTree.fromstring(out).iter("testcase") if len(case)}
            assert {"fits", "unsafe-pickle"} <= failed
        case "sarif":
            results = json.loads(out)["runs"][0]["results"]
            assert {"ckptool/fits", "ckptool/unsafe-pickle"} <= {result["ruleId"] for result in results}
            rules = json.loads(out)["runs"][0]["tool"]["driver"]["rules"]
            assert all(rule["shortDescription"]["text"].endswith(".") for rule in rules)


def test_reports_are_what_the_formats_are(cli: Run, fixtures: Path, policy: Path) -> None:
    names = ["r.html", "r.json", "r.md", "r.xml", "r.sarif", "r.txt"]
    options = [word for name in names for word in ("--report", name)]
    code, out, err = cli("check", "tuned.safetensors", *options)
    assert (code, err) == (1, "")
    assert out == cli("check", "tuned.safetensors")[1]
    for name, form in (("r.json", "json"), ("r.md", "markdown"), ("r.sarif", "sarif")):
        assert (fixtures / name).read_text(encoding="utf-8") == cli("check", "tuned.safetensors", "--format", form)[1]
    cases = list(ElementTree.parse(fixtures / "r.xml").iter("testcase"))
    assert "fits" in {case.get("name") for case in cases if case.find("failure") is not None}
    assert (fixtures / "r.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")
    assert "fc.weight" in (fixtures / "r.txt").read_text(encoding="utf-8")
    assert not list(fixtures.glob(".*tmp*"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("r.pdf", 'a report cannot end in ".pdf"'),
        ("nowhere/r.html", "the folder nowhere does not exist"),
        ("folder.html", "folder.html is a folder"),
        ("link.json", "link.json is also an input; inputs are never written to"),
    ],
)
def test_reports_that_cannot_be(name: str, said: str, cli: Run, fixtures: Path) -> None:
    (fixtures / "folder.html").mkdir()
    (fixtures / "link.json").symlink_to("resnet18.pth")
    before = (fixtures / "resnet18.pth").read_bytes()
    code, out, err = cli("check", "resnet18.pth", "--report", name)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {said}\n")
    assert (fixtures / "resnet18.pth").read_bytes() == before


def test_an_old_report_is_replaced_whole(cli: Run, fixtures: Path) -> None:
    old = fixtures / "r.json"
    old.write_text("x" * 100_000, encoding="utf-8")
    old.chmod(0o600)
    assert cli("check", "resnet18.pth", "--report", "r.json")[0] == 0
    assert json.loads(old.read_text(encoding="utf-8"))["exit_code"] == 0
    assert old.stat().st_mode & 0o777 == 0o600


# ---------------------------------------------------------------------------------------------- GitHub Actions


def test_on_github_text_also_annotates_and_sums_up(
    cli: Run, fixtures: Path, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plain, _ = cli("check", "tuned.safetensors")
    summary = fixtures / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    code, out, err = cli("check", "tuned.safetensors")
    assert (code, err) == (1, "")
    assert out.startswith(plain)
    commands = out.removeprefix(plain).splitlines()
    assert commands
    assert all(
        re.match(r"::(error|warning|notice) file=ckptool\.toml,line=\d,title=ckptool ", line) for line in commands
    )
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("before\n### ckptool check\n\n**failed")
    assert cli("check", "resnet18.pth", "--format", "github") == (0, "", "")
    assert summary.read_text(encoding="utf-8").count("### ckptool check\n\n**") == 2
    size = summary.stat().st_size
    assert json.loads(cli("check", "tuned.safetensors", "--json")[1])["exit_code"] == 1
    assert summary.stat().st_size == size
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(fixtures / "no" / "summary.md"))
    assert cli("check", "resnet18.pth")[0] == 2


def test_hostile_names_give_no_orders(cli: Run, fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, metadata and file names that a runner, a terminal or a page would obey."""
    names = [
        "::error::pwned",
        "a\n::set-output name=x::y",
        "\x1b[2J",
        "##[error]x",
        "<script>alert(1)</script>",
        "[/b]|x",
    ]
    nan = torch.full((2,), float("nan"))
    state = {name: nan.clone() for name in names}
    file = "\n::error::file.safetensors"
    save_file(state, fixtures / file, metadata={"\x1b]0;x\x07": "::error::meta"})
    summary = fixtures / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    reports = [word for end in ("html", "md", "xml", "sarif", "txt") for word in ("--report", f"r.{end}")]
    code, out, err = cli("check", file, "-v", *reports)
    assert (code, err) == (1, "")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out)
    assert "##[" not in out
    orders = [line for line in out.splitlines() if line.lstrip().startswith("::")]
    assert all(re.match("::(error|warning) title=ckptool (nonfinite|dead)::", line) for line in orders)
    for end in ("html", "md", "xml", "sarif", "txt"):
        text = (fixtures / f"r.{end}").read_text(encoding="utf-8")
        assert "\x1b" not in text
        if end in ("html", "xml", "md"):
            assert "<script>alert" not in re.sub("`[^`\n]+`", "", text)
    assert "<script>" not in re.sub("`[^`\n]+`", "", summary.read_text(encoding="utf-8"))


def test_through_a_pipe_and_a_real_shell(fixtures: Path) -> None:
    (fixtures / ".git").mkdir()
    done = shell("ckptool check hostile training.ckpt | head -n 1", fixtures, GITHUB_ACTIONS="")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"failed: 9 errors, 3 warnings\n"
    done = shell("ckptool check hostile > /dev/full", fixtures)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_an_empty_policy_asks_for_nothing(cli: Run) -> None:
    assert cli("check", "tuned.safetensors", "--policy", "/dev/null")[0] == 0
