"""Results in Python: a line in `repr`, the terminal's text in `print`, in a notebook the page without its script."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES
from console import Run, runner
from reports import HOSTILE

import ckptool
from ckptool.api.shown import Checkpoint
from ckptool.core import checkpoint as core
from ckptool.core.format import Format
from ckptool.core.spec import TensorSpec

NOTEBOOK = FIXTURES / "notebook.ipynb"


class Elements(HTMLParser):
    """The elements of a text, and whether all are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any(name.startswith("on") or name in ("src", "href", "style") for name, _ in attrs)
        self.tags.append(tag)
        if tag not in ("meta", "input"):  # which have no end
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def drawn(value: object) -> Elements:
    """What a notebook draws of a result."""
    elements = Elements(value._repr_html_())  # type: ignore[attr-defined]
    assert not elements.open
    assert "script" not in elements.tags
    return elements


def executed(source: str, names: dict[str, Any]) -> tuple[str, object]:
    """A cell as Jupyter runs it: (what it printed, the value of its last line)."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return printed.getvalue(), value


def outputs_of(printed: str, value: object) -> list[dict[str, Any]]:
    """As a notebook keeps them, without pictures."""
    found: list[dict[str, Any]] = []
    if printed:
        found.append({"name": "stdout", "output_type": "stream", "text": printed.splitlines(keepends=True)})
    if value is not None:
        data = {"text/plain": [repr(value)]}
        found.append({"data": data, "execution_count": None, "metadata": {}, "output_type": "execute_result"})
    return found


def test_the_notebook_says_what_it_shows(fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fixtures)
    monkeypatch.syspath_prepend(str(fixtures))
    monkeypatch.delitem(sys.modules, "models", raising=False)
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    pictures = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        printed, value = executed("".join(cell["source"]), names)
        found = outputs_of(printed, value)
        if os.environ.get("CKPTOOL_UPDATE"):
            cell["outputs"] = found
        assert cell["outputs"] == found, cell["source"]
        if hasattr(value, "_repr_html_"):
            drawn(value)
            pictures += 1
            assert len(repr(value)) < 120
            assert "\n" not in repr(value)
    if os.environ.get("CKPTOOL_UPDATE"):
        NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert pictures == 6


def test_print_shows_the_text_of_the_terminal(
    fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli: Run = runner(fixtures, monkeypatch, capsys)
    _, out, _ = cli("diff", "resnet18.pth", "tuned.safetensors", columns=100)
    assert str(ckptool.compare("resnet18.pth", "tuned.safetensors")) + "\n" == out
    _, out, _ = cli("inspect", "resnet18.pth", columns=100)
    assert str(ckptool.open("resnet18.pth")) + "\n" == out
    _, out, _ = cli("filter", "resnet18.pth", "--drop", "fc.*", columns=100)
    shown = str(ckptool.plan_filter("resnet18.pth", [("drop", "fc.*")]))
    assert out == f"{shown}\nnothing written; add -o PATH\n"
    _, out, _ = cli("transplant", "tuned.safetensors", "--into", "resnet18.pth", columns=100)
    assert out.startswith(str(ckptool.plan_transplant("tuned.safetensors", "resnet18.pth")))


def test_the_answer_of_load_into_comes_first(fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    model = torch.nn.Sequential()
    model.add_module("fc", torch.nn.Linear(16, 100))
    model.add_module("head", torch.nn.Linear(100, 10))
    report = ckptool.load_into(model, fixtures / "resnet18.pth")
    first = str(report).splitlines()[0]
    assert first.startswith("incomplete: 2 of 4 tensors of Sequential are missing")
    assert repr(report).startswith("<Report incomplete: 2 of 4 tensors")


def test_a_result_is_still_what_it_was() -> None:
    checkpoint = ckptool.open(FIXTURES / "resnet18.pth")
    assert isinstance(checkpoint, ckptool.Checkpoint)
    assert isinstance(ckptool.compare(checkpoint, checkpoint), ckptool.Diff)
    assert len(checkpoint) == 122
    assert repr(ckptool.open(FIXTURES / "hostile" / "system.pth")).startswith("<Checkpoint not safe: ")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_names_do_nothing_in_a_notebook(text: str) -> None:
    def named(name: str) -> Checkpoint:
        key = name.replace("\0", "?") or "empty"
        tensor = core.Tensor(TensorSpec(key, "float32", (2,)))
        return Checkpoint(
            Path(key), Format("torch zip"), {key: tensor}, extras=(core.Extra(name, name),), metadata={name: name}
        )

    plain = drawn(named("plain"))
    found = drawn(named(text))
    assert found.tags == plain.tags
    assert "\n" not in repr(named(text))
    assert "\x1b" not in repr(named(text)) + str(named(text))


def test_a_patch_is_one_line_and_a_picture() -> None:
    found = ckptool.extract(FIXTURES / "resnet18.pth", FIXTURES / "tuned.safetensors")
    assert re.fullmatch(r"<Extracted ready: the patch would take [^\n]+>", repr(found))
    assert str(found).startswith(repr(found)[len("<Extracted ") : -1])
    assert "table" in drawn(found).tags
