"""Hints on narrow screens: every command in one can be pasted into a shell as it is printed."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import ckptool
from ckptool.cli.app import _PANELS
from ckptool.report.hints import COMMANDS, parts, wrap_hint
from ckptool.report.text import Screen
from ckptool.report.text_width import cells

LONG = "runs/2026-01-01 first/checkpoint-100000/pytorch_model.bin"
WHOLE = re.compile(r"ckptool \w+ .* -o ")
HINTS = [
    f"remove it: ckptool remap '{LONG}' -r 'module. ->' -o PLAIN",
    f"take it: ckptool filter '{LONG}' --ema -o OUT   leave it out: --drop 'ema.**'",
    f"did you mean \"fc.*\" (2 keys)?   list all: ckptool inspect '{LONG}'",
    f"ckptool diff '{LONG}' other.pth --match auto",
    "the base has a tensor for each expert: ckptool remap base.safetensors -r fuse-experts -o fused   or leave them",
    "torch is not installed here, and a model is an object of torch: pip install 'ckptool[torch]'",
]


def pasted(lines: list[str], before: str) -> list[list[str]]:
    """What a shell makes of the commands among the lines: a backslash joins two of them."""
    text = "\n".join([lines[0].removeprefix(before), *lines[1:]]).replace("\\\n", " ")
    found = (re.search(r"(?:^ *|: )((?:ckptool|pip) .*)$", line.split("   or ")[0]) for line in text.splitlines())
    return [shlex.split(match[1].partition("   leave")[0]) for match in found if match]


@pytest.mark.parametrize("hint", HINTS)
@pytest.mark.parametrize("width", [24, 40, 60, 80, 100])
@pytest.mark.parametrize(("first", "indent"), [("  ", "  "), ("  help: ", "  "), ("   = help: ", " " * 5)])
def test_commands_in_hints_can_be_pasted(hint: str, width: int, first: str, indent: str) -> None:
    lines = list(wrap_hint(hint, Screen(width=width, elide=True), first, indent))
    longest = max(map(cells, shlex.split(hint))) + len(indent) + len("  '' \\")
    assert all(cells(line) <= max(width, longest) for line in lines)
    wanted = [shlex.split(command) for _, command in parts(hint) if command]
    assert len(wanted) == 1
    assert pasted(lines, first) == wanted
    assert re.sub(r"\\? +", "", "".join(lines)) == re.sub(" +", "", first + hint)


def test_prose_that_names_a_command_is_prose() -> None:
    hint = "ckptool reads arrays of numbers; save these as such, or with torch.save"
    assert "\\" not in "".join(wrap_hint(hint, Screen(width=30, elide=True)))
    assert set(COMMANDS) == set(_PANELS)


def texts() -> Iterator[str]:
    """Texts in the source that hold a command that writes, X for their expressions; docstrings are not among them."""
    for path in Path(ckptool.__file__).parent.rglob("*.py"):
        source = path.read_text()
        if not WHOLE.search(source):
            continue
        tree = ast.parse(source)
        skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        skipped |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(p.value) if isinstance(p, ast.Constant) else "X" for p in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
                text = node.value
            else:
                continue
            if WHOLE.search(text) and "\n" not in text:
                yield text


def test_commands_stand_where_they_are_seen() -> None:
    """A whole command in a sentence would be broken like one."""
    found = list(texts())
    assert len(found) > 20
    assert [text for text in found if not any(command for _, command in parts(text))] == []
