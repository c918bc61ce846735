"""Lint, format and types, as tests: so one command checks everything, and style never hides a broken test."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize(
    "command",
    ["ruff check", "ruff format --check", pytest.param("mypy", marks=pytest.mark.slow)],
)
def test_clean(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
