"""`action.yml`, the workflows, the hooks and SKILL.md: their text is read, and what they run is run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from ckptool.cli.app import _PANELS
from ckptool.commands.checks.policy import read_policy

ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
HOOKS: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
INSTALL, CHECK = ACTION["runs"]["steps"]
BIN = Path(sys.executable).parent


def test_the_action_is_composed_as_github_asks() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert {"paths", "policy", "fail-on", "version"} <= ACTION["inputs"].keys()
    assert ACTION["inputs"]["paths"]["required"]
    for step in ACTION["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "an input in a script would be run as part of it"
        for value in step["env"].values():
            name = re.fullmatch(r"\$\{\{ inputs\.([a-z-]+) \}\}", value)
            assert name is None or name[1] in ACTION["inputs"]


class Runner:
    """Runs the steps of the action as GitHub's runner does: `bash -eo pipefail`, inputs in the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temp = folder / "temp"
        self.temp.mkdir()
        self.summary, self.output = self.temp / "summary.md", self.temp / "output"

    def __call__(self, step: dict[str, Any], **inputs: str) -> subprocess.CompletedProcess[str]:
        given = {name: each.get("default", "") for name, each in ACTION["inputs"].items()}
        given |= {name.replace("_", "-"): value for name, value in inputs.items()}
        values = {f"${{{{ inputs.{name} }}}}": value for name, value in given.items()}
        values["${{ steps.install.outputs.folder }}"] = str(self.temp / "ckptool")
        environ = {
            **{name: values[value] for name, value in step["env"].items()},
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(ROOT),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
        }
        script = self.temp / "step.sh"
        script.write_text(step["run"], encoding="utf-8")
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", script],
            cwd=self.folder, env=environ, capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def runner(fixtures: Path) -> Runner:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    (fixtures / ".git").mkdir()
    return Runner(fixtures)


@pytest.fixture
def installed(runner: Runner) -> Runner:
    """As after the first step: the program where that step puts it."""
    (runner.temp / "ckptool" / "bin").mkdir(parents=True)
    (runner.temp / "ckptool" / "bin" / "ckptool").symlink_to(BIN / "ckptool")
    return runner


def test_the_check_step(installed: Runner) -> None:
    (installed.folder / "ckptool.toml").write_text('into = "resnet18.pth"\n', encoding="utf-8")
    done = installed(CHECK, paths="tuned*.safetensors\n  resnet18.pth")
    assert (done.returncode, done.stderr) == (1, "")
    assert "error[fits]: 2 tensors do not fit resnet18.pth" in done.stdout
    assert "\n::error file=ckptool.toml,line=1,title=ckptool fits::tuned.safetensors: " in done.stdout
    assert installed.summary.read_text(encoding="utf-8").startswith("### ckptool check\n\n**failed")
    folder = installed.temp / "ckptool"
    assert json.loads((folder / "report.sarif").read_text(encoding="utf-8"))["version"] == "2.1.0"
    assert {"report.html", "report.xml", "report.sarif"} <= {path.name for path in folder.iterdir()}
    outputs = {Path(output["value"]).name for output in ACTION["outputs"].values()}
    assert outputs == {"report.html", "report.xml", "report.sarif"}


def test_the_check_step_passes_its_inputs_on(installed: Runner) -> None:
    (installed.folder / "my policy.toml").write_text('max-size = "1kB"\n', encoding="utf-8")
    assert installed(CHECK, paths="resnet18.pth").returncode == 0
    assert installed(CHECK, paths="resnet18.pth", policy="my policy.toml").returncode == 1
    assert installed(CHECK, paths="tuned.safetensors", into="resnet18.pth").returncode == 1
    assert installed(CHECK, paths="training.ckpt").returncode == 0
    assert installed(CHECK, paths="training.ckpt", fail_on="warning").returncode == 1
    assert installed(CHECK, paths="nowhere.pth").returncode == 2


@pytest.mark.parametrize("text", ["$(touch pwned)", "`touch pwned`", "x; touch pwned", "--debug", '"; touch pwned; "'])
def test_inputs_are_data(text: str, installed: Runner) -> None:
    for name in ("paths", "policy", "into", "fail_on"):
        done = installed(CHECK, **{"paths": "resnet18.pth", name: text})
        assert done.returncode == 2
    assert not (installed.folder / "pwned").exists()


def test_a_policy_is_trusted_where_the_workflow_says_so(installed: Runner) -> None:
    (installed.folder / "ckptool.toml").write_text('into = "evil.py:Net"\n', encoding="utf-8")
    (installed.folder / "evil.py").write_text("open('pwned', 'w')\nfrom torch.nn import Identity as Net\n")
    done = installed(CHECK, paths="resnet18.pth")
    assert done.returncode == 1
    assert "evil.py was not imported" in done.stdout
    assert not (installed.folder / "pwned").exists()
    installed(CHECK, paths="resnet18.pth", trust_policy="true")
    assert (installed.folder / "pwned").exists()


def test_modules_of_the_workspace_do_not_stand_in_for_pythons(runner: Runner) -> None:
    for name in ("venv", "pip", "runpy", "os", "ckptool", "typer"):
        (runner.folder / f"{name}.py").write_text("open('pwned', 'w')\n", encoding="utf-8")
    (runner.folder / "bin").mkdir()
    (runner.folder / "bin" / "python3").symlink_to(sys.executable)
    script = INSTALL["run"].replace("pip install --quiet", "pip --version #")
    runner({**INSTALL, "run": script}, paths=".")
    assert (runner.temp / "ckptool" / "bin" / "python").exists()
    assert not (runner.folder / "pwned").exists()


STUB = """\
#!/bin/sh
# stands for `python3 -m venv` and `pip install`, which need the network: says what would be installed
case "$*" in
  "-I -m venv /"*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; ln -s {ckptool} "$4/bin/ckptool" ;;
  "-I -m pip install --quiet "*) shift 5; echo "$@" >> "$RUNNER_TEMP/installed" ;;
  *) exit 9 ;;
esac
"""


@pytest.mark.parametrize(
    ("policy", "inputs", "torch"),
    [
        ("", {}, False),
        ('max-size = "1GB"\n', {}, False),
        ('into = "resnet18.pth"\n', {}, False),
        ('into = "torchvision:resnet18"\n', {}, True),
        ('[[paths]]\nmatch = "*.pth"\ninto = "net.py:Net"\n', {}, True),
        ("", {"into": "timm:vit_tiny_patch16_224"}, True),
        ("", {"version": "1.2.3", "into": "torchvision:resnet18"}, True),
    ],
)
def test_torch_is_installed_where_a_model_is_named(
    policy: str, inputs: dict[str, str], torch: bool, runner: Runner
) -> None:
    (runner.folder / "ckptool.toml").write_text(policy, encoding="utf-8")
    stub = runner.folder / "bin" / "python3"
    stub.parent.mkdir()
    stub.write_text(STUB.replace("{ckptool}", str(BIN / "ckptool")), encoding="utf-8")
    stub.chmod(0o755)
    done = runner(INSTALL, paths=".", **inputs)
    assert (done.returncode, done.stderr) == (0, "")
    version = inputs.get("version")
    plain = f"ckptool=={version}" if version else str(ROOT)
    full = f"ckptool[torch]=={version}" if version else f"{ROOT}[torch]"
    assert (runner.temp / "installed").read_text(encoding="utf-8").splitlines() == [plain, *([full] if torch else [])]
    assert runner.output.read_text(encoding="utf-8") == f"folder={runner.temp / 'ckptool'}\n"


def test_the_extra_that_the_action_asks_for_exists() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r"^torch = \[.*\"torch>=", text, re.MULTILINE)


# ---------------------------------------------------------------------------------------------- pre-commit


def test_the_hook_is_one_that_pre_commit_takes() -> None:
    (hook,) = HOOKS
    assert hook["id"] == "ckptool-check"
    assert hook["language"] == "python"
    assert hook["types"] == ["file"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("a.safetensors", True),
        ("weights/a.pth", True),
        ("a.pt", True),
        ("run/last.ckpt", True),
        ("hub/pytorch_model.bin", True),
        ("pytorch_model-00001-of-00002.bin", True),
        ("adapter_model.bin", True),
        ("firmware.bin", False),
        ("a.pth.py", False),
        ("script", False),
        ("my_pytorch_model.bin", False),
    ],
)
def test_the_hook_takes_checkpoints(name: str, meant: bool) -> None:
    assert bool(re.search(HOOKS[0]["files"], name)) is meant


def test_what_the_hook_runs(fixtures: Path) -> None:
    environ = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(fixtures), "LANG": "C.UTF-8"}
    (fixtures / ".git").mkdir()

    def hook(*files: str) -> subprocess.CompletedProcess[str]:
        command = [*HOOKS[0]["entry"].split(), *files]
        return subprocess.run(command, cwd=fixtures, env=environ, capture_output=True, text=True, check=False)

    shards = sorted(str(path.relative_to(fixtures)) for path in (fixtures / "shards").glob("*.safetensors"))
    done = hook("resnet18.pth", *shards)
    assert (done.returncode, done.stdout) == (0, "passed: 2 files, 9 rules, nothing found\n")
    assert hook("hostile/system.pth").returncode == 1


# ---------------------------------------------------------------------------------------------- what the pages say


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "ckptool" / "help" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_policy_of_the_page_is_one(tmp_path: Path) -> None:
    (policy,) = (block for block in blocks("policy", "toml") if "max-size" in block)
    (tmp_path / "ckptool.toml").write_text(policy, encoding="utf-8")
    found = read_policy(tmp_path / "ckptool.toml")
    assert found.settings.values["max-size"].value == 50_000_000
    assert len(found.paths) == 1


def test_the_ci_files_of_the_page_name_what_there_is() -> None:
    github, gitlab, hooks = map(yaml.safe_load, blocks("ci", "yaml"))
    (step,) = (step for step in github if "ckptool" in step["uses"])
    assert step["with"].keys() <= ACTION["inputs"].keys()
    (named,) = re.findall(r"steps\.weights\.outputs\.(\w+)", github[-1]["with"]["sarif_file"])
    assert named in ACTION["outputs"]
    job = gitlab["weights"]
    written = set(re.findall(r"--report (\S+)", " ".join(job["script"])))
    assert written == {*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]}
    assert [hook["id"] for hook in hooks["repos"][0]["hooks"]] == [hook["id"] for hook in HOOKS]


# ---------------------------------------------------------------------------------------------- this repository


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_what_there_is_and_has_no_more_rights_than_it_needs(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            run = step.get("run", "")
            assert "${{" not in run, "an input in a script would be run as part of it"
            for script in re.findall(r"\.ci/\w+", run):
                assert os.access(ROOT / script, os.X_OK)


def test_the_tests_run_on_every_python_and_system_that_the_package_names() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {name.rpartition(" ")[2] for name in project["classifiers"] if re.search(r":: 3\.\d+$", name)}
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    matrix = jobs["tests"]["strategy"]["matrix"]
    tried = {*matrix["python"], *(row["python"] for row in matrix["include"]), "3.11"}
    assert tried == named
    assert {row["system"].partition("-")[0] for row in matrix["include"]} == {"macos", "windows"}


def test_a_release_has_no_token_and_is_checked_first() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))["jobs"]
    assert any(step.get("run") == ".ci/wheel" for step in jobs["build"]["steps"])
    assert jobs["publish"]["needs"] == "build"
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in json.dumps(jobs)


def test_the_release_finds_the_version_as_its_script_does() -> None:
    from ckptool.core.version import VERSION

    text = (ROOT / "ckptool" / "core" / "version.py").read_text(encoding="utf-8")
    assert re.findall(r'^VERSION = "(.*)"$', text, re.MULTILINE) == [VERSION]


SKILL = (ROOT / "SKILL.md").read_text(encoding="utf-8")


def test_the_skill_begins_with_its_name_and_when_to_use_it() -> None:
    _, head, _ = SKILL.split("---\n", 2)
    fields = yaml.safe_load(head)
    assert fields["name"] == "ckptool"
    assert len(fields["description"]) <= 1024


@pytest.mark.parametrize("command", list(_PANELS))
def test_the_skill_names_every_command(command: str) -> None:
    assert f"`ckptool {command} " in SKILL


@pytest.mark.parametrize("line", re.findall(r"`(ckptool (?!help|COMMAND)\w+ [^`]*)`", SKILL))
def test_the_skill_names_commands_and_options_that_exist(line: str) -> None:
    _, command, *words = line.split()
    shown = subprocess.run([BIN / "ckptool", command, "--help"], capture_output=True, text=True, check=True).stdout
    for option in (word for word in words if re.match(r"-\w|--\w", word)):
        assert re.search(rf"(^|[ ,/]){option}\b", shown, re.MULTILINE), option


def test_the_skill_names_fields_of_the_schemas() -> None:
    rows = re.findall(r"^\| `ckptool\.(\w+)/1`.*?\| (.*) \|$", SKILL, re.MULTILINE)
    assert {name for name, _ in rows} >= {"inspect", "diff", "plan", "transplant", "extract", "check", "error"}
    for name, said in rows:
        path = ROOT / "ckptool" / "report" / "schemas" / f"{name}.1.schema.json"
        fields = set(json.loads(path.read_text(encoding="utf-8"))["properties"]) | {"message", "hint"}
        assert set(re.findall(r"`(\w+)`", said)) <= fields
