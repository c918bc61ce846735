"""Running command lines in tests: in this process for speed, in a shell where the real thing matters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from json_schemas import validate

from ckptool.cli.app import run
from ckptool.report.text_width import cells

GOLDEN = Path(__file__).parent / "golden"
Run = Callable[..., tuple[int, str, str]]


def runner(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs a command line in a folder and gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(folder)
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def ckptool(*arguments: str, columns: int | None = None) -> tuple[int, str, str]:
        if columns:
            monkeypatch.setenv("COLUMNS", str(columns))
        code = run(arguments)
        out, err = capsys.readouterr()
        validate(out)
        return code, out, err

    return ckptool


def fits(line: str, columns: int) -> bool:
    """A line has room, or ends with a word that has none and is never cut: a rule, a path, a part of a command."""
    return cells(line) <= columns or cells(line.split(" ")[-1]) > columns - 14


def same_as_golden(name: str, text: str) -> None:
    """Compares with `tests/golden/NAME.txt`. CKPTOOL_UPDATE=1 writes it: read the difference before committing it."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("CKPTOOL_UPDATE"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def shell(command: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a line of sh with `ckptool` on the path."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    own = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}  # the tree that is tested
    environment = {"PATH": path, "LANG": "C.UTF-8", "HOME": str(folder), **own, **environ}
    return subprocess.run(["/bin/sh", "-c", command], cwd=folder, env=environment, capture_output=True, check=False)
