"""No output of any command takes the place of what the command reads, or of another output, by whatever name."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from console import Run, runner
from safetensors.torch import save_file

NET = """
import torch, part
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(4, 4)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with everything that commands read."""
    state = torch.nn.Linear(4, 4).state_dict()
    torch.save({f"fc.{key}": tensor for key, tensor in state.items()}, tmp_path / "a.pth")
    torch.save({f"fc.{key}": tensor + 1 for key, tensor in state.items()}, tmp_path / "b.pth")
    folder = tmp_path / "model"
    folder.mkdir()
    for number, (key, tensor) in enumerate(state.items(), 1):
        save_file({f"fc.{key}": tensor}, folder / f"model-0000{number}-of-00002.safetensors")
    names = {f"fc.{key}": f"model-0000{number}-of-00002.safetensors" for number, key in enumerate(state, 1)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (folder / "config.json").write_text('{"size": 4}')
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_file(
        {
            "base_model.model.fc.lora_A.weight": torch.zeros(2, 4),
            "base_model.model.fc.lora_B.weight": torch.zeros(4, 2),
        },
        adapter / "adapter_model.safetensors",
    )
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    (tmp_path / "rules.toml").write_text('rules = ["fc. -> fc."]')
    (tmp_path / "rules.txt").write_text('rules = ["fc. -> fc."]')
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\n")
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "part.py").write_text("")
    (tmp_path / "ckptool.toml").write_text('lock = "weights.lock"\n')
    (tmp_path / "policy.txt").write_text('lock = "report.txt"\n')
    return tmp_path


@pytest.fixture
def cli(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "part", raising=False)  # of the test before
    return runner(place, monkeypatch, capsys)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


REMAP = ("remap", "a.pth", "-r", "rules.toml", "--like", "b.pth")
AUTO = ("remap", "a.pth", "--auto", "--like", "b.pth")
TRANSPLANT = ("transplant", "a.pth", "--into", "net.py:Net")
CASES: list[tuple[tuple[str, ...], str, str]] = [
    *((("filter", "a.pth"), "-o", name) for name in ("a.pth", "./a.pth", "model/../a.pth")),
    (("filter", "model"), "-o", "model"),
    (("filter", "model"), "-o", "model/model-00001-of-00002.safetensors"),
    (REMAP, "-o", "b.pth"),
    (REMAP, "--report", "rules.toml"),
    ((*REMAP[:3], "rules.txt"), "--report", "rules.txt"),
    ((*REMAP[:3], "rules.toml", "--like", "model"), "--report", "model/model.safetensors.index.json"),
    (("remap", "model", "-r", "fc. -> head."), "--report", "model/config.json"),
    (AUTO, "--save-recipe", "b.pth"),
    (AUTO, "--save-recipe", "a.pth"),
    (("merge", "a.pth", "b.pth"), "-o", "b.pth"),
    (("merge", "a.pth", "b.pth", "--method", "ties", "--base", "model"), "-o", "model"),
    (("merge", "a.pth", "--lora", "adapter"), "-o", "adapter/adapter_model.safetensors"),
    (TRANSPLANT, "-o", "a.pth"),
    (TRANSPLANT, "--freeze-list", "net.py"),
    (TRANSPLANT, "--freeze-list", "part.py"),
    (TRANSPLANT, "--save-recipe", "net.py"),
    (TRANSPLANT, "--freeze-list", "a.pth"),
    ((*TRANSPLANT, "-r", "rules.txt"), "--report", "rules.txt"),
    ((*TRANSPLANT, "--into", "model"), "--report", "model/model.safetensors.index.json"),
    (("inspect", "model"), "--report", "model/model.safetensors.index.json"),
    (("inspect", "model"), "--report", "model/config.json"),
    (("inspect", "adapter"), "--report", "adapter/adapter_config.json"),
    (("diff", "a.pth", "model"), "--report", "model/model.safetensors.index.json"),
    (("diff", "a.pth", "b.pth", "-r", "rules.txt"), "--report", "rules.txt"),
    (("check", "model", "--policy", "ckptool.toml"), "--report", "model/model.safetensors.index.json"),
    (("check", "model", "--policy", "policy.txt"), "--report", "policy.txt"),
    (("check", "model", "--policy", "policy.txt", "--update-lock"), "--report", "report.txt"),
    (("check", "a.pth", "--policy", "policy.txt", "--into", "model"), "--report", "model/config.json"),
]


# only a file that is read is known under other names
BY_LINK = [case for case in CASES if Path(case[2]).suffix and not case[2].endswith(("config.json", "report.txt"))]
WAYS = [("path", *case) for case in CASES] + [(way, *case) for way in ("symlink", "hardlink") for case in BY_LINK]


@pytest.mark.parametrize(
    ("way", "command", "option", "name"),
    WAYS,
    ids=lambda value: (value if isinstance(value, str) else " ".join(value)).replace("/", "_"),
)
def test_no_output_is_an_input(
    way: str, command: tuple[str, ...], option: str, name: str, cli: Run, place: Path
) -> None:
    target = name
    if way != "path":
        assert (place / name).is_file()
        target = f"linked{Path(name).suffix}"
        link: Callable[[Path], None] = getattr(place / target, "symlink_to" if way == "symlink" else "hardlink_to")
        link(place / name)
    before = everything(place)
    force = ["--force"] if command[0] not in ("inspect", "diff", "check") else []
    code, out, err = cli(*command, option, target, *force)
    assert code == 2, (out, err)
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert "this is a bug" not in err
    assert everything(place) == before
    if name.endswith(".toml") and option == "--report":
        return  # no report ends so
    assert any(words in err for words in ("input", "two outputs have one name")), err


PAIRS: list[tuple[tuple[str, ...], str]] = [
    ((*TRANSPLANT, "--freeze-list", "x.txt", "--save-recipe", "x.txt"), "two outputs have one name"),
    ((*TRANSPLANT, "--freeze-list", "x.txt", "--report", "./x.txt"), "two outputs have one name"),
    ((*TRANSPLANT, "--freeze-list", "x.txt", "--report", "model/../X.TXT"), "two outputs have one name"),
    ((*TRANSPLANT, "-o", "x.pth", "--save-recipe", "x.pth"), "two outputs have one name"),
    ((*TRANSPLANT, "--freeze-list", "old.txt", "--report", "also.txt", "--force"), "two outputs have one name"),
    (("inspect", "a.pth", "--report", "x.json", "--report", "x.json"), "two outputs have one name"),
    (("diff", "a.pth", "b.pth", "--report", "caf\u00e9.md", "--report", "cafe\u0301.md"), "two outputs have one name"),
    ((*REMAP, "-o", "new", "--report", "new/model.safetensors.index.json"), "is a file of the output"),
]


@pytest.mark.parametrize(("command", "words"), PAIRS, ids=lambda value: " ".join(value)[-60:].replace("/", "_"))
def test_no_two_outputs_are_one_file(command: tuple[str, ...], words: str, cli: Run, place: Path) -> None:
    (place / "old.txt").write_text("old")
    os.link(place / "old.txt", place / "also.txt")
    if "new" in command:
        (place / "new").mkdir()
    before = everything(place)
    code, out, err = cli(*command)
    assert (code, words in err) == (2, True), (out, err)
    assert everything(place) == before


@pytest.mark.parametrize("option", ["-o", "--report", "--save-recipe", "--freeze-list"])
@pytest.mark.parametrize("name", ["nul\0.txt", "lone\ud800.txt", "pipe.txt", "device.txt", "nowhere.txt", "folder.txt"])
def test_outputs_that_cannot_be(option: str, name: str, cli: Run, place: Path) -> None:
    os.mkfifo(place / "pipe.txt")
    (place / "device.txt").symlink_to("/dev/null")
    (place / "nowhere.txt").symlink_to("missing")
    (place / "folder.txt").mkdir()
    before = everything(place)
    if option == "-o":
        name = name.replace(".txt", ".pth")
        for path in place.glob("*.txt"):
            path.rename(path.with_suffix(".pth"))
        before = everything(place)
    code, out, err = cli(*TRANSPLANT, option, name)
    assert (code, err.startswith("error: ")) == (2, True), (out, err)
    assert "this is a bug" not in err
    assert everything(place) == before


@pytest.mark.parametrize("name", ["caf\udce9", "\udcff" * 60])
def test_undecodable_names_work(name: str, cli: Run, place: Path) -> None:
    options = [
        "-o",
        f"{name}.pth",
        "--report",
        f"{name}.txt",
        "--report",
        f"{name}.json",
        "--freeze-list",
        f"{name}.lst",
    ]
    for form in ("text", "json"):
        code, _, err = cli(*TRANSPLANT, *options, "--force", "--format", form)
        assert (code, err) == (0, "")
    assert torch.load(place / f"{name}.pth")["fc.weight"].shape == (4, 4)
    assert len([path for path in place.iterdir() if path.name.startswith(name)]) == 4


def test_reports_are_written_anew_beside_the_weights(cli: Run, place: Path) -> None:
    for _ in range(2):
        for command in (("inspect", "model"), ("diff", "model", "model"), ("check", "model"), ("inspect", "a.pth")):
            code, _, err = cli(*command, "--report", "model/report.json", "--report", "report.html")
            assert (code in (0, 1), err) == (True, "")
    assert json.loads((place / "model" / "report.json").read_text())
