"""What the README and the help pages show is what happens.

Every ```console block is run by a shell in a copy of `fixtures/`, and its output compared character by character; every
```python block runs as a doctest there. CKPTOOL_UPDATE=1 writes the real output of the console blocks into the page.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
MARK = "-- the next command --"

PAGES = [README, *sorted((ROOT / "ckptool" / "help").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """What stands between the fences of the blocks of a language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def all_blocks(language: str) -> list[object]:
    """(page, block) of every page, for parametrize."""
    return [
        pytest.param(page, block, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page, language), 1)
    ]


SHELL = blocks(README, "sh")


def run_block(text: str, folder: Path) -> str:
    """Run the ``$ `` lines of a block in one shell; give the block back with what they printed now."""
    commands = [found[2:] for found in re.findall(r"^\$ .*(?:(?<=\\)\n> .*)*", text, re.MULTILINE)]
    # each command sees the exit code of the one before, so that `echo $?` works
    typed = [command.replace("\\\n> ", "\\\n") for command in commands]  # a backslash continues on a line "> ..."
    steps = [f"(exit $code); {command}\ncode=$?; echo '{MARK}'" for command in typed]
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "COLUMNS": "80",
        "PYTHONWARNINGS": "error",
        **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},  # the tree that is tested
    }
    script = "\n".join(["exec 2>&1", "code=0", *steps])
    done = subprocess.run(["/bin/sh", "-c", script], cwd=folder, env=environment, capture_output=True, check=True)
    outputs = done.stdout.decode("utf-8").split(f"{MARK}\n")
    return "".join(f"$ {command}\n{output}" for command, output in zip(commands, outputs, strict=False))


def untimed(text: str) -> str:
    """The text without the seconds that a run took."""
    return re.sub(r"\b\d+\.\d s$", "0.0 s", text, flags=re.MULTILINE)


@pytest.mark.parametrize(("page", "block"), all_blocks("console"))
def test_console_block(page: Path, block: str, fixtures: Path) -> None:
    now = run_block(block, fixtures)
    if os.environ.get("CKPTOOL_UPDATE"):
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(block, now), encoding="utf-8")
    else:
        assert untimed(now) == untimed(block)
    assert max(map(len, now.splitlines())) <= 100, "too wide for a page"


@pytest.mark.parametrize(("page", "block"), all_blocks("python"))
def test_python_block(page: Path, block: str, fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fixtures)
    example = doctest.DocTestParser().get_doctest(block, {}, page.name, str(page), None)
    assert example.examples
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example).failed == 0


def test_begins_with_two_commands() -> None:
    """One to install and use it, one to install and test it: each a single line that needs nothing before it."""
    use, test = SHELL[0], SHELL[1]
    assert TEXT.index(test) < TEXT.index("\n## ")
    for command in (use, test):
        assert command.count("\n") == 1
        assert command.startswith("python3 -m venv .venv && .venv/bin/python -m pip install ")


def test_first_command_does_the_main_job() -> None:
    """Its last part, as a user runs it from the root; the environment that it would set up is the one we run in."""
    command = shlex.split(SHELL[0].rpartition("&&")[2])
    assert command[:2] == [".venv/bin/ckptool", "diff"]
    script = Path(sys.executable).with_name("ckptool")
    done = subprocess.run([script, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "BatchNorm" in done.stdout


def test_ci_runs_the_second_command_lint_and_fuzzing_and_no_more() -> None:
    """But for Chromium, which the README mentions: a package of Debian, and only its own tests need it."""
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (chromium,) = re.findall(r"^if .*?^fi\n", text, re.MULTILINE | re.DOTALL)
    condition, install, end = chromium.splitlines()
    assert condition.startswith('if [ "$(id -u)" = 0 ] && command -v apt-get')
    assert install == (
        '  (apt-get -q update && apt-get -q -y install chromium) || echo "no Chromium: its tests are skipped" >&2'
    )
    assert end == "fi"
    lines = text.replace(chromium, "").splitlines()
    *commands, lint, fuzz = (line for line in lines if line and not line.startswith(("#", "set ", "cd ")))
    assert " && ".join(commands) == SHELL[1].strip()
    assert (lint, fuzz) == (".ci/lint", ".ci/fuzz --seed 1 --seconds 60")
    assert "Chromium" in TEXT[: TEXT.index("\n## ")]


def test_contributing_names_what_ci_runs() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    scripts = sorted(path.name for path in (ROOT / ".ci").iterdir())
    assert scripts == ["fuzz", "lint", "lowest", "run", "wheel"]
    for name in scripts:
        assert f".ci/{name}" in text
        assert os.access(ROOT / ".ci" / name, os.X_OK)


def test_lint_gates_on_style_format_and_types() -> None:
    lines = (ROOT / ".ci" / "lint").read_text(encoding="utf-8").splitlines()
    tools = [line.partition(" -m ")[2] for line in lines if " -m " in line]
    assert tools == ["ruff check", "ruff format --check", "mypy"]
    assert "set -eu" in lines


# ---------------------------------------------------------------------------------------------- the picture


PICTURE = ROOT / ".github" / "diff.svg"
SHOWN = ["diff", "resnet18.pth", "tuned.safetensors", "--color", "always"]


def coloured(folder: Path) -> str:
    script = Path(sys.executable).with_name("ckptool")
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run([script, *SHOWN], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stdout


def drawn(output: str) -> str:
    """The output as a picture that needs nothing from elsewhere."""
    import io

    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(output))
    picture = console.export_svg(title=f"ckptool {' '.join(SHOWN[:3])}", unique_id="ckptool")
    picture = re.sub(r"@font-face \{.*?\}|<!--.*?-->", "", picture, flags=re.DOTALL)
    return re.sub(r"[ \t]+$", "", picture.replace("Fira Code", "monospace"), flags=re.MULTILINE)


def words_of(picture: str) -> list[str]:
    import html

    return " ".join(html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", picture)).split()


def test_the_picture_shows_what_is_printed(fixtures: Path) -> None:
    output = coloured(fixtures)
    if os.environ.get("CKPTOOL_UPDATE"):
        PICTURE.write_text(drawn(output), encoding="utf-8")
    picture = PICTURE.read_text(encoding="utf-8")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    assert words_of(picture)[-len(plain.split()) :] == plain.split()
    assert "http" not in picture.replace("http://www.w3.org", "")
    assert f"]({PICTURE.relative_to(ROOT)})" in TEXT
