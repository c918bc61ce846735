"""`ckptool help`: pages, commands, near misses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from console import Run, runner

from ckptool.cli.topics import page, page_lines, topics
from ckptool.report.text import Screen, paint

NAMES = list(topics())


@pytest.fixture
def cli(fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(fixtures, monkeypatch, capsys)


def test_every_page_is_listed_with_its_title(cli: Run) -> None:
    code, out, _ = cli("help")
    assert code == 0
    assert {path.stem for path in (ROOT / "ckptool" / "help").glob("*.md")} == set(NAMES)
    for name, title in topics().items():
        assert re.search(rf"^  {name} +{re.escape(title)}$", out, re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_gets_the_markdown(name: str, cli: Run) -> None:
    assert cli("help", name) == (0, page(name), "")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [80, 120])
def test_paragraphs_fit_a_terminal(name: str, width: int) -> None:
    screen = Screen(width=width, height=40, elide=True)
    text = page(name)
    code = {
        f"    {line}" for block in re.findall(r"^```.*?\n(.*?)^```$", text, re.M | re.S) for line in block.splitlines()
    }
    for line in page_lines(text, screen):
        shown = paint(line, screen)
        assert len(shown) <= width or shown in code or shown.startswith("|"), shown


def test_a_command_has_its_own_page(cli: Run) -> None:
    code, out, _ = cli("help", "filter")
    assert code == 0
    assert out.startswith("Usage: ckptool filter [OPTIONS] IN\n")


def test_a_near_miss_is_named(cli: Run) -> None:
    code, out, err = cli("help", "recipez")
    assert (code, out) == (2, "")
    assert "did you mean recipes?" in err


def test_pages_come_without_torch_and_numpy() -> None:
    code = "import sys; from ckptool.__main__ import main; sys.argv = ['ckptool', 'help', 'recipes']; main()"
    probe = f"import atexit, sys; atexit.register(lambda: print(sorted(sys.modules), file=sys.stderr)); {code}"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"'torch'", "'numpy'"} & set(re.findall(r"'\w+'", done.stderr))
