"""Words are made in report/: no code decides by text that is made for people."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ckptool
from ckptool.cli.app import run

PACKAGE = Path(ckptool.__file__).parent
WORDS = {"why", "message", "request", "evidence", "hint", "note"}
"""Attributes that hold sentences. The `how` of a pickle call and the `text` of a rule, key or op are notations."""
METHODS = {
    *("startswith", "endswith", "partition", "rpartition", "split", "rsplit", "splitlines", "removeprefix"),
    *("removesuffix", "replace", "strip", "lstrip", "rstrip", "find", "index", "count", "lower", "upper", "casefold"),
}
LAYOUT = {("report/text_plan.py", "removesuffix"), ("report/textconv.py", "replace"), ("cli/git.py", "replace")}
"""A text may be shortened where it is put into a longer one, by a key that is listed anyway; and a file that git made
for a moment is called by the name of what it stands for."""


def branches(path: Path) -> Iterator[tuple[int, str]]:
    """Each place where a text for people is compared with a literal, or taken to pieces."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            literal = any(
                isinstance(side, ast.Constant) and isinstance(side.value, str) and side.value for side in sides
            )
            if literal and (words := [side for side in sides if holds_words(side)]):
                yield node.lineno, ast.unparse(words[0])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            if holds_words(node.func.value) and not _fills_in(node):
                yield node.lineno, node.func.attr
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice) and holds_words(node.value):
            yield node.lineno, ast.unparse(node)


def _fills_in(call: ast.Call) -> bool:
    """True for ``hint.replace("{file}", ...)``: a template is filled."""
    first = call.args[0] if call.args else None
    return isinstance(first, ast.Constant) and str(first.value).startswith("{")


def holds_words(node: ast.AST) -> bool:
    """True for ``x.why``, and for a note's ``note.text``."""
    if not isinstance(node, ast.Attribute):
        return False
    is_note = node.attr == "text" and isinstance(node.value, ast.Name) and node.value.id in ("note", "problem", "error")
    return node.attr in WORDS or is_note


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_branch_on_text_made_for_people(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    found = [f"{name}:{line} {what}" for line, what in branches(path) if (name, what) not in LAYOUT]
    assert not found


def test_the_test_sees_such_branches(tmp_path: Path) -> None:
    code = 'if step.why == "kept" or "rule" in use.message or plan.request.startswith("remap") or step.why[:5]: pass\n'
    code += 'if note.text.startswith("reversible"): pass\n'
    code += 'x = error.message.replace("--only", "drift.keys"), verdict.message.splitlines()[0]\n'
    (tmp_path / "bad.py").write_text(code + 'fine = other.hint.replace("{file}", "a.pth")\n')
    assert len(list(branches(tmp_path / "bad.py"))) == 7


ONE_OF_EACH = [
    ("inspect", "a.pth"), ("inspect", "a.pth", "--stats"), ("inspect", "shards"), ("diff", "a.pth", "b.pth"),
    ("diff", "a.pth", "c.pth"), ("filter", "a.pth"), ("filter", "a.pth", "--dtype", "bf16"),
    ("filter", "a.pth", "--drop", "x"), ("filter", "a.pth", "--drop", "w"), ("filter", "a.pth", "-o", "out"),
    ("remap", "a.pth", "-r", "w -> v"), ("remap", "a.pth", "-r", "x -> v"),
    ("remap", "a.pth", "--auto", "--like", "c.pth"), ("merge", "a.pth", "b.pth", "--method", "linear"),
    ("merge", "a.pth", "c.pth"), ("transplant", "a.pth", "--into", "b.pth"), ("transplant", "a.pth", "--into", "c.pth"),
    ("transplant", "a.pth", "--into", "d.pth"), ("transplant", "a.pth", "--into", "d.pth", "--mismatch", "fit"),
    ("transplant", "a.pth", "--into", "e.pth"), ("transplant", "e.pth", "--into", "a.pth"), ("check", "a.pth"),
    ("check", "a.pth", "--into", "c.pth"), ("check", "a.pth", "--into", "d.pth"), ("check", "shards"),
]  # fmt: skip
PLURALS = re.compile(
    r"\b1 (?:\w+ )?(?:tensors|keys|files|entries|rules|modules|shards|elements|errors|warnings|parameters|checkpoints"
    r"|problems|requirements|bytes|values|layers|ranks|names)\b"
)


FORMS = [(words, form) for words in ONE_OF_EACH for form in ("text", "markdown", "html")]
FORMS += [(words, "github") for words in ONE_OF_EACH if words[0] == "check"]


@pytest.mark.parametrize(("words", "form"), FORMS, ids=[f"{' '.join(words)}-{form}" for words, form in FORMS])
def test_one_of_a_thing_is_singular(
    words: tuple[str, ...], form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """On files of one tensor, every command counts in the singular where it counts one."""
    monkeypatch.chdir(tmp_path)
    torch.save({"w": torch.ones(3, 1)}, "a.pth")
    torch.save({"w": torch.zeros(3, 1)}, "b.pth")
    torch.save({"v": torch.ones(3, 1)}, "c.pth")
    torch.save({"w": torch.ones(2, 1)}, "d.pth")
    torch.save({"w": torch.ones(3, 1), "v": torch.ones(1)}, "e.pth")
    Path("shards").mkdir()
    save_file({"w": torch.ones(3)}, "shards/model-00001-of-00001.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": {"w": "model-00001-of-00001.safetensors"}}
    Path("shards/model.safetensors.index.json").write_text(json.dumps(index))
    run([*words, *(("--format", form) if form != "text" else ())])
    told = capsys.readouterr()
    assert (told.out + told.err).strip() and "Traceback" not in told.err
    assert PLURALS.findall(told.out + told.err) == []


def test_keys_that_differ_look_different_in_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    key = "backbone.some_really_long_module_name_{}.another_quite_long_module_name.conv_layer_with_a_name.weight"
    torch.save({key.format(number): torch.ones(3) for number in range(6)}, "a.pth")
    torch.save({"w": torch.ones(1)}, "b.pth")
    assert run(["check", "a.pth", "--into", "b.pth"]) == 1
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("   | ") and "f32[3]" in line]
    shown = {row.partition("  ")[2].strip() for row in rows}
    assert len(rows) == len(set(rows)) >= 6 and len(shown) == len(set(rows)) and max(map(len, rows)) <= 80
