"""Whatever the standard streams and Ctrl-C do: no traceback, and exit codes keep their meaning."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "inspect resnet18.pth": 0,
    "diff resnet18.pth shards": 0,
    "diff resnet18-102.pth resnet18.pth": 1,
    "diff resnet18-102.pth resnet18.pth --json": 1,
    "extract resnet18.pth tuned.safetensors": 0,
    "check tuned.safetensors": 0,
    "check hostile/system.pth": 1,
    "filter resnet18.pth": 0,
    "inspect missing.pth": 2,
    "inspect --no-such-option": 2,
    "--version": 0,
    "--help": 0,
    "help recipes": 0,
}
REDIRECTIONS = (">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-", "> /dev/full")
OF_EACH_CODE = ("inspect resnet18.pth", "diff resnet18-102.pth resnet18.pth", "inspect missing.pth")
# a command of each code with all of them, the others with two each, in turn
PAIRS = [
    (command, redirections)
    for at, command in enumerate(COMMANDS)
    for which, redirections in enumerate(REDIRECTIONS)
    if command in OF_EACH_CODE or which % 3 == at % 3
]


def run(command: str, redirections: str, folder: Path) -> tuple[int, str]:
    """(exit code, stderr if it is not redirected) of a command line in a real shell."""
    shell = f"{sys.executable} -m ckptool {command} {redirections}"
    done = subprocess.run(["/bin/sh", "-c", shell], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(("command", "redirections"), PAIRS)
def test_no_stream_can_change_what_a_code_means(command: str, redirections: str, fixtures: Path) -> None:
    code, err = run(command, redirections, fixtures)
    is_lost = ">&-" in redirections.replace("2>&-", "") or "/dev/full" in redirections
    assert code == (2 if is_lost else COMMANDS[command])
    assert "Traceback" not in err
    assert "Exception ignored" not in err


@pytest.mark.parametrize("redirections", [">&-", "> /dev/full", "2>&-", "<&- >&- 2>&-"])
def test_the_output_is_written_whatever_becomes_of_the_report(redirections: str, fixtures: Path) -> None:
    code, _ = run("filter resnet18.pth -o out.pth", redirections, fixtures)
    assert code == (0 if redirections == "2>&-" else 2)
    assert run("diff resnet18.pth out.pth", "", fixtures)[0] == 0


def test_the_handler_stands_before_anything_that_takes_time() -> None:
    code = "import sys; before = set(sys.modules); import ckptool.__main__; print(*sorted({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"typing", "pathlib", "re", "typer", "ckptool.api", "ckptool.cli.app"} & set(done.stdout.split())


def test_the_installed_command_begins_with_the_guard_and_nothing_else() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {"ckptool": "ckptool_start:main"}
    code = "import sys; before = set(sys.modules); import ckptool_start; print(*sorted({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ckptool_start\n"


@pytest.mark.parametrize(
    ("before", "code", "said"), [("", 130, "interrupted; nothing written\n"), ("trap '' INT; ", 0, "")]
)
def test_the_guard_ends_with_a_line_unless_interrupts_are_ignored(before: str, code: int, said: str) -> None:
    program = "import ckptool_start, os, signal; os.kill(os.getpid(), signal.SIGINT)"
    done = subprocess.run(["sh", "-c", f"{before}exec {sys.executable} -c '{program}'"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize("delay", [0.02 * step for step in range(1, 21)])
def test_ctrl_c_is_a_line_and_130(delay: float, fixtures: Path) -> None:
    code = "import ckptool_start; print('up', flush=True); ckptool_start.main()"
    arguments = [sys.executable, "-c", code, "filter", "resnet18.pth", "-o", "out.pth"]
    with subprocess.Popen(arguments, cwd=fixtures, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # Python itself is up
        time.sleep(0.005 + delay * random.random())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    text = err.decode()
    assert "Traceback" not in text
    if process.returncode == 130:
        assert text == "interrupted; nothing written\n"
        assert not (fixtures / "out.pth").exists()
    else:  # it had ended before the signal came
        assert process.returncode == 0
    assert not [path for path in fixtures.iterdir() if path.name.startswith(".")]
