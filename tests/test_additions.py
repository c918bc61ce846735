"""What an addition costs: toys are added in no more files than the table of costs says, and nothing else knows of them.

Each file of a toy stands in a temporary folder that a room has beside its own; the line in a registry is said here.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
from conftest import FIXTURES

from ckptool.cli import app
from ckptool.commands.checks import RULES
from ckptool.formats import registry
from ckptool.report.encoders import ENCODERS

CHECKPOINT = str(FIXTURES / "resnet18.pth")


def add(folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    """Modules as if they stood in the package: ``cli.count``."""
    for name, text in files.items():
        room, _, module = f"ckptool.{name}".rpartition(".")
        place = folder / room
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{module}.py").write_text(text, encoding="utf-8")
        package = import_module(room)
        if str(place) not in package.__path__:
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(place)])
        monkeypatch.delitem(sys.modules, f"ckptool.{name}", raising=False)


# ---------------------------------------------------------------------------------------------- a command

COMMAND = {
    "commands.count": '''
"""count: how many tensors have each dtype."""
from collections import Counter
from dataclasses import dataclass
from ckptool.core.checkpoint import Checkpoint

@dataclass(frozen=True, slots=True)
class Counted:
    checkpoint: Checkpoint
    dtypes: dict[str, int]

def count(checkpoint: Checkpoint) -> Counted:
    return Counted(checkpoint, dict(Counter(form.dtype for form in checkpoint.forms())))
''',
    "cli.count": '''
"""``ckptool count``."""
from pathlib import PurePath
from typing import Annotated
import typer
from ckptool.cli.common import PATH, Color, ColorOption, DebugOption, JsonOption
from ckptool.cli.reports import (
    READING_FORMATS, ReadingFormatOption, ReadingReportOption, form_of, require_reports, show_document, write_reports,
)

EPILOG = "Examples:\\n  ckptool count model.pth"

def count(
    path: Annotated[PurePath, typer.Argument(path_type=PATH, metavar="FILE", help="A checkpoint.")],
    form: ReadingFormatOption = "text",
    json: JsonOption = False,
    report: ReadingReportOption = None,
    color: ColorOption = Color.AUTO,
    debug: DebugOption = False,
) -> int:
    """How many tensors have each dtype."""
    from ckptool.commands.count import count as counted
    from ckptool.formats.opening import open_checkpoint
    from ckptool.report.document_count import count_document

    files = report or []
    require_reports(files, [path], READING_FORMATS)
    document = count_document(counted(open_checkpoint(path)), str(path))
    show_document(document, form_of(form, json), color)
    write_reports(files, document)
    return 0
''',
    "report.document_count": '''
"""`count` as a document."""
from ckptool.report.blocks import Column, Rows
from ckptool.report.cells import Row
from ckptool.report.document import Answer, Document, Field, Table
from ckptool.report.sides import one_side

def count_document(found, name):
    rows = [Row((dtype, many)) for dtype, many in found.dtypes.items()]
    table = (Field("key", "dtype"), Field("tensors", "tensors", "whole", "add"))
    return Document(
        command="count",
        answer=Answer(f"{len(found.dtypes)} dtypes"),
        blocks=lambda: [one_side(found.checkpoint, name), Rows((Column("dtype"), Column("n", "whole")), lambda: rows)],
        table=lambda: Table((Field("status"), *table), (("", dtype, many) for dtype, many in found.dtypes.items())),
        result=lambda: [("schema", "ckptool.count/1"), ("dtypes", found.dtypes)],
        records=lambda: ({"dtype": dtype, "tensors": many} for dtype, many in found.dtypes.items()),
        summary=lambda: {"dtypes": len(found.dtypes)},
        listing=lambda: ((dtype, str(many)) for dtype, many in sorted(found.dtypes.items())),
    )
''',
}


def test_a_command_is_a_file_in_three_rooms_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add(tmp_path, monkeypatch, COMMAND)
    monkeypatch.setitem(app._PANELS, "count", "Look")  # the line

    def said(*arguments: str) -> str:
        assert app.run(arguments) == 0
        return capsys.readouterr().out

    assert "float32" in said("count", CHECKPOINT)
    assert json.loads(said("count", CHECKPOINT, "--json"))["dtypes"] == {"float32": 102, "int64": 20}
    assert "count" in said("--help")
    assert "How many tensors have each dtype." in said("count", "--help")
    rows = list(csv.DictReader(io.StringIO(said("count", CHECKPOINT, "--format", "csv"))))
    assert [row["tensors"] for row in rows] == ["102", "20"]
    for encoder in ENCODERS:
        if not encoder.of_findings and encoder.name != "text":
            assert said("count", CHECKPOINT, "--format", encoder.name) or encoder.name == "github"
            if encoder.ending:
                report = tmp_path / f"report{encoder.ending}"
                said("count", CHECKPOINT, "--report", str(report))
                assert report.stat().st_size
    assert app.run(["count", str(tmp_path / "missing.pth")]) == 2
    assert capsys.readouterr().err.startswith("error:")
    assert app.run(["coutn", CHECKPOINT]) == 2
    assert "count" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- a format

FORMAT = {
    "formats.crate": '''
"""Crates: magic, then float32 vectors, each a name of 8 bytes, a count of 4 and the numbers."""
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.tensor import Piece, Storage, Tensor
from ckptool.core.format import Format
from ckptool.core.spec import TensorSpec

def open_crate(source, select):
    tensors, at = {}, 4
    with source.open() as file:
        while at < file.size:
            head = file.read(at, 12)
            key, many = head[:8].decode().strip(), int.from_bytes(head[8:], "little")
            piece = Piece(Storage(source, at + 12, 4 * many), 0, (many,))
            tensors[key] = Tensor(TensorSpec(key, "float32", (many,)), (piece,))
            at += 12 + 4 * many
    return Checkpoint(source.path, Format("crate"), tensors, (source,), nbytes=source.size)
'''
}


def test_a_format_that_is_read_is_a_file_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    add(tmp_path, monkeypatch, FORMAT)
    line = registry.Container("crate", registry.begins(b"CR8\0"), registry.late("crate", "open_crate"), (".crate",))
    monkeypatch.setattr(registry, "CONTAINERS", [*registry.CONTAINERS, line])
    state = {"fc.bias": torch.arange(3.0), "fc.scale": torch.ones(5)}
    crate, pth = tmp_path / "w.crate", tmp_path / "w.pth"
    vectors = (f"{key:8}".encode() + len(v).to_bytes(4, "little") + v.numpy().tobytes() for key, v in state.items())
    crate.write_bytes(b"CR8\0" + b"".join(vectors))
    torch.save(state, pth)

    def code(*arguments: str) -> int:
        return app.run(arguments)

    assert code("inspect", str(crate), "--json") == 0
    assert json.loads(capsys.readouterr().out)["file"]["format"] == "crate"
    assert code("diff", str(crate), str(pth)) == 0
    assert code("filter", str(crate), "-o", str(tmp_path / "out.pth")) == 0
    assert torch.load(tmp_path / "out.pth", weights_only=True).keys() == state.keys()
    assert code("merge", str(crate), str(pth), "--method", "linear", "-o", str(tmp_path / "mixed.safetensors")) == 0
    assert code("check", str(tmp_path)) == 0
    assert "w.crate" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- a check with a setting

CHECK = {
    "commands.checks.few": '''
from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Found
from ckptool.commands.checks.settings import Key

def _number(reader, value, at):
    if not isinstance(value, int):
        reader.refuse(f"{at[-1]} is not a number", at, "most = 100")
    return value

MOST = Key("most", _number)
RULE = Rule("few", needs=(MOST,), allows=("few",))

def few(case):
    """There are more tensors than there may be.

    Policy: it runs where `most` is set.
    """
    setting = case.settings.get(MOST)
    keys = case.refused("few", case.checkpoint)
    if len(keys) > setting.value:
        yield Found(f"{len(keys)} tensors, more than {setting.value}", keys, place=setting.place)
'''
}


def test_a_check_with_a_setting_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "few" not in RULES
    add(tmp_path / "rooms", monkeypatch, CHECK)
    monkeypatch.delitem(vars(RULES), "_known")  # what has been found before
    policy = tmp_path / "ckptool.toml"

    def check(text: str, *arguments: str) -> tuple[int, str]:
        policy.write_text(text, encoding="utf-8")
        code = app.run(["check", CHECKPOINT, "--policy", str(policy), *arguments])
        out, err = capsys.readouterr()
        return code, out + err

    code, said = check("most = 100")
    assert code == 1 and "122 tensors, more than 100" in said and "ckptool.toml:1" in said
    assert check("most = 122")[0] == 0
    assert check('most = 21\nallow.few = ["*.weight", "*bias", "*.running_*"]')[0] == 0
    assert check('most = 100\nlevels.few = "warning"')[0] == 0
    assert check('[[paths]]\nmatch = "*.pth"\nmost = 5')[0] == 1
    code, said = check('most = "x"')
    assert (code, " ".join(said.split())) == (2, f"error: {policy}:1: most is not a number help: most = 100")
    assert 'did you mean "most"?' in check("mosst = 1")[1]
    assert "the rule few needs most in the policy" in check("", "--rule", "few")[1]
    assert json.loads(check("most = 100", "--json")[1])["findings"][0]["rule"] == "few"
    assert app.run(["check", "--explain", "few"]) == 0
    assert "There are more tensors than there may be." in capsys.readouterr().out
