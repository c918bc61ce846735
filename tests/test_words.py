"""Words are made in report/: no code decides by text that is made for people."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ckptool

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
