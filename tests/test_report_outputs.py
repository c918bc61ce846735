"""The registry of outputs: every command in every format, CSV read back, schemas, and that rows stay different."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import torch
from console import Run, runner, same_as_golden
from hypothesis import given
from hypothesis import strategies as st
from json_schemas import SCHEMAS, schema_named, validate
from jsonschema import Draft202012Validator
from rich.color import ColorSystem
from rich.style import Style

import ckptool
from ckptool.report.csv import encode_cell
from ckptool.report.encoders import ENCODERS
from ckptool.report.symbols import STYLES
from ckptool.report.text_width import cells, elide_apart


@pytest.fixture
def cli(fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    ckptool.extract(fixtures / "resnet18.pth", fixtures / "tuned.safetensors", fixtures / "patch.safetensors")
    return runner(fixtures, monkeypatch, capsys)


COMMANDS = {
    "inspect": ["inspect", "resnet18.pth"],
    "diff": ["diff", "resnet18.pth", "tuned.safetensors"],
    "filter": ["filter", "resnet18.pth", "--drop", "fc.*", "--dtype", "bf16"],
    "remap": ["remap", "training.ckpt", "-r", "module. ->"],
    "merge": ["merge", "resnet18.pth", "shards", "--method", "linear"],
    "transplant": ["transplant", "tuned.safetensors", "--into", "resnet18.pth"],
    "extract": ["extract", "resnet18.pth", "tuned.safetensors"],
    "extract-lora": ["extract", "resnet18.pth", "tuned.safetensors", "--lora", "--rank", "2"],
    "patch": ["merge", "resnet18.pth", "--patch", "patch.safetensors"],
    "inspect-patch": ["inspect", "patch.safetensors"],
    "inspect-stats": ["inspect", "fp8", "--stats"],
    "dequantize": ["filter", "fp8", "--dequantize"],
    "match": ["diff", "deit.pth", "vit-hf.safetensors", "--match", "auto"],
    "written": ["filter", "resnet18.pth", "-o", "out.safetensors", "--force"],
    "extracted": ["extract", "resnet18.pth", "tuned.safetensors", "-o", "out.safetensors", "--force"],
    "adapter": ["extract", "resnet18.pth", "tuned.safetensors", "--lora", "--rank", "2", "-o", "lora", "--force"],
    "check": ["check", "shards", "hostile/system.pth", "--rule", "unsafe-pickle"],
}
SECONDS = r'"seconds": [\d.e-]+|\d+\.\d s\b'
FORMATS = [encoder for encoder in ENCODERS if encoder.name != "text"]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_every_format_and_report(command: str, cli: Run, fixtures: Path) -> None:
    arguments = COMMANDS[command]
    reads = arguments[0] in ("inspect", "extract")
    encoders = [encoder for encoder in FORMATS if not (reads and encoder.of_findings)]
    reports = [word for encoder in encoders if encoder.ending for word in ("--report", f"r{encoder.ending}")]
    expected, text, _ = cli(*arguments, *reports)
    assert expected in (0, 1)
    for encoder in encoders:
        code, out, _ = cli(*arguments, "--format", encoder.name)
        assert code == expected
        assert out or encoder.name == "github"  # which has no line where nothing is found
        assert out != text
        if encoder.ending and encoder.name not in ("junit", "html"):  # these two name the time
            report = (fixtures / f"r{encoder.ending}").read_bytes().decode()
            assert re.sub(SECONDS, "", report) == re.sub(SECONDS, "", out)


def test_an_unknown_format_names_the_nearest(cli: Run) -> None:
    code, out, err = cli("inspect", "resnet18.pth", "--format", "cvs")
    assert (code, out) == (2, "")
    assert 'unknown format "cvs"' in err
    assert "did you mean csv?" in err
    code, _, err = cli("inspect", "resnet18.pth", "--format", "junit")
    assert code == 2
    assert "use text, json, ndjson, csv" in err


def test_csv_has_a_row_per_tensor_and_raw_numbers(cli: Run, fixtures: Path) -> None:
    state = torch.load(fixtures / "resnet18.pth", weights_only=True)
    _, out, _ = cli("inspect", "resnet18.pth", "--stats", "--format", "csv")
    rows = rows_of(out)
    assert [row["key"] for row in rows] == list(state)
    for row in rows:
        tensor = state[row["key"]]
        assert json.loads(row["shape"]) == list(tensor.shape)
        assert int(row["elements"]) == tensor.numel()
        assert int(row["bytes"]) == tensor.numel() * tensor.element_size()
        assert float(row["mean"]) == pytest.approx(tensor.double().mean().item(), abs=1e-12)
    assert out.count("\r\n") == len(rows) + 1 == out.count("\n")


def test_csv_of_a_comparison_and_a_transplant_says_what_json_says(cli: Run) -> None:
    for command, listed, names in (
        ("diff", "changes", {"status": "status", "key": "key"}),
        ("transplant", "entries", {"status": "status", "key": "key", "covered": "loaded_elements"}),
    ):
        said = json.loads(cli(*COMMANDS[command], "--json")[1])[listed]
        rows = rows_of(cli(*COMMANDS[command], "--format", "csv")[1])
        assert len(rows) >= len(said) > 100
        for entry, row in zip(said, rows, strict=False):
            assert {name: str(entry[name]) for name in names} == {name: row[to] for name, to in names.items()}
    rels = {row["key"]: row["rel"] for row in rows_of(cli(*COMMANDS["diff"], "--format", "csv")[1])}
    for change in json.loads(cli(*COMMANDS["diff"], "--json")[1])["changes"]:
        rel = None if change["delta"] is None else change["delta"]["rel"]
        assert rels[change["key"]] == ("" if rel is None else str(rel))


HOSTILE = (
    '=HYPERLINK("http://evil","x")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\uff1d1+1",
    'a"b,c',
    "a\nb",
)
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def test_csv_of_a_file_with_formulas_for_keys(cli: Run, fixtures: Path) -> None:
    torch.save({key: torch.zeros(2) for key in HOSTILE}, fixtures / "hostile.pth")
    both = ["hostile.pth", "hostile.pth"]
    commands = (["inspect", "hostile.pth"], ["diff", *both], ["filter", "hostile.pth"], ["extract", *both])
    more = (
        ["merge", *both],
        ["remap", "hostile.pth", "-r", "{k*} -> ={k*}"],
        ["transplant", "hostile.pth", "--into", both[1]],
    )
    for command in (*commands, *more):
        _, out, _ = cli(*command, "--format", "csv")
        rows = rows_of(out)
        assert len(rows) >= len(HOSTILE)
        for row in rows:
            assert not any(cell.startswith(FORMULAS) for cell in row.values())


@given(st.text())
def test_a_cell_is_one_field_and_never_a_formula(text: str) -> None:
    ((field, after),) = csv.reader(io.StringIO(f"{encode_cell(text)},x\r\n", newline=""), strict=True)
    assert after == "x"
    assert not field.startswith(FORMULAS)


def test_schemas_are_valid_and_named_by_what_they_describe() -> None:
    for entry in SCHEMAS.iterdir():
        schema = json.loads(entry.read_text(encoding="utf-8"))
        Draft202012Validator.check_schema(schema)
        name = schema["properties"]["schema"]["const"]
        assert schema == schema_named(name)
        assert entry.name == f"{name.removeprefix('ckptool.').replace('/', '.')}.schema.json"


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_what_its_schema_says(command: str, cli: Run) -> None:
    _, out, _ = cli(*COMMANDS[command], "--json")  # validated where it is printed
    said = json.loads(out)
    required = schema_named(said["schema"])["required"]
    assert list(said) == required
    del said[required[-1]]
    with pytest.raises(AssertionError, match="required"):
        validate(json.dumps(said))
    with pytest.raises(AssertionError, match="unexpected"):
        validate(json.dumps({**json.loads(out), "unpublished": 1}))


def test_json_of_a_run_in_parts_and_of_one_that_goes_on(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ["filter", "resnet18.pth", "-o", "out", "--max-shard-size", "20kB", "--json"]
    code, out, _ = cli(*plain, "--part", "1/2")
    assert (code, json.loads(out)["written"]["missing"] > 0) == (0, True)
    code, out, _ = cli(*plain, "--part", "2/2")
    assert (code, json.loads(out)["written"]["missing"]) == (0, 0)
    assert cli("diff", "out", "resnet18.pth")[0] == 0
    code, out, _ = cli(*plain, "--resume")
    assert (code, json.loads(out)["written"]["missing"]) == (0, 0)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    code, out, _ = cli(*plain, "--distributed", "--force")
    assert (code, json.loads(out)["written"]["missing"]) == (0, 0)


def test_an_error_is_what_its_schema_says(cli: Run) -> None:
    code, out, _ = cli("inspect", "nowhere.pth", "--json")
    assert code == 2
    assert json.loads(out)["schema"] == "ckptool.error/1"


@pytest.mark.parametrize("form", ["text", "json", "csv", "html", "markdown", "lines"])
def test_undecodable_names_and_keys(form: str, cli: Run, fixtures: Path) -> None:
    state = {
        "x\udcff.weight": torch.zeros(3),
        "y\ud800": torch.ones(2),
        "重み": torch.ones(1),
        "\u202eab": torch.ones(1),
    }
    old, new = os.fsdecode(b"a\xff.pth"), os.fsdecode(b"b\xe9.pth")
    torch.save(state, fixtures / old)
    torch.save({key: tensor + 1 for key, tensor in state.items()}, fixtures / new)
    for code, *command in (
        *((0, "inspect", old), (1, "diff", old, new), (0, "filter", old), (0, "merge", old, new, "--method", "linear")),
        *((0, "remap", old, "-r", "{k*} -> a.{k*}"), (0, "transplant", old, "--into", new), (0, "check", old)),
    ):
        found, out, err = cli(*map(str, command), "--format", form)
        assert (found, err) == (code, "")
        assert out.isprintable() or out.replace("\n", "").replace("\r", "").replace("\t", "").isprintable()
    code, _, err = cli("extract", old, new, "--format", form)
    assert code == 2
    assert "a key has a character that UTF-8 cannot hold: \\udcff" in err


ANSWERS: dict[str, tuple[list[str], str]] = {
    "same": (["diff", "resnet18.pth", "shards"], "identical: "),
    "different": (COMMANDS["diff"], "different: 116 of 122 tensors differ"),
    "unsafe": (["inspect", "hostile/system.pth"], "not safe: loading this file with pickle runs code (posix.system)"),
    "ready": (COMMANDS["filter"], "ready"),
    "problem": ([*COMMANDS["transplant"], "--mismatch", "error"], "cannot be written: "),
    "required": (
        ["remap", "resnet18.pth", "-r", "fc. -> head.", "--like", "tuned.safetensors", "--check"],
        "not as required: ",
    ),
    "incomplete": (COMMANDS["transplant"], "incomplete: 2 of 122 tensors of resnet18.pth have another shape"),
    "failed": (COMMANDS["check"], "failed: 1 error"),
    "passed": (["check", "shards"], "passed: 1 file, "),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answer_is_the_first_line(name: str, cli: Run) -> None:
    arguments, answer = ANSWERS[name]
    _, out, _ = cli(*arguments)
    assert out.splitlines()[0].startswith(answer)
    if name not in ("failed", "passed"):  # their heading is the answer
        _, out, _ = cli(*arguments, "--format", "markdown")
        assert any(line.startswith(f"**{answer.partition(':')[0]}") for line in out.splitlines()[:4])


def test_a_symbol_has_one_colour_in_every_command(cli: Run) -> None:
    seen = set()
    for command in ("diff", "filter", "remap", "transplant"):
        _, out, _ = cli(*COMMANDS[command], "--color", "always", "-v")
        for symbol, style in STYLES.items():
            painted = Style.parse(style).render(symbol, color_system=ColorSystem.STANDARD)
            starts = [line for line in out.splitlines() if line.startswith("\x1b") and f"m{symbol}\x1b" in line[:9]]
            assert all(line.startswith(painted) for line in starts)
            seen |= {symbol} if starts else set()
    assert {"=", "~", ">", "-", "!"} <= seen


Names = st.lists(st.text("abcdef._", min_size=1, max_size=60), min_size=1, max_size=12)


@given(Names, st.integers(12, 40))
def test_texts_that_differ_look_different(texts: list[str], width: int) -> None:
    shown = elide_apart(texts, [width] * len(texts))
    for text, seen in zip(texts, shown, strict=True):
        assert seen == text or cells(seen) <= width
    assert len(set(shown)) == len(set(texts))


def test_rows_that_differ_look_different_at_80_columns(cli: Run, fixtures: Path) -> None:
    base = "model.text_model.encoder.layers"
    keys = [
        f"{base}.{n}.attention.{name}_projection.lora_adapter.weight" for n in range(3) for name in ("query", "value")
    ]
    torch.save({key: torch.zeros(2) for key in keys}, fixtures / "long.pth")
    _, out, _ = cli("filter", "long.pth", "-v", "--dtype", "bf16", columns=80)
    rows = [line.split()[1] for line in out.splitlines() if line.startswith("~  ")]
    assert len(rows) == len(set(rows)) == len(keys)


def on_a_terminal(arguments: list[str], folder: Path) -> str:
    """What a terminal of 10 rows shows of a command whose pager is left with q."""
    window, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 80, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    program = [sys.executable, "-m", "ckptool", *arguments]
    process = subprocess.Popen(program, cwd=folder, env=environment, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    shown = b""
    while select.select([window], [], [], 60)[0]:
        try:
            piece = os.read(window, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
        if shown.rstrip().endswith((b":", b"(END)", b"\x1b[K")):
            os.write(window, b"q")
    assert process.wait(60) == 1
    os.close(window)
    return shown.decode()


@pytest.mark.skipif(shutil.which("less") is None, reason="there is no less")
def test_a_pager_does_not_hide_the_answer(fixtures: Path) -> None:
    answer = "different: 116 of 122 tensors differ"
    shown = on_a_terminal(["diff", "resnet18.pth", "tuned.safetensors", "-v"], fixtures)
    assert shown.count(answer) == 2
    assert shown.rstrip().endswith(answer)
    shown = on_a_terminal(["diff", "resnet18.pth", "tuned.safetensors", "-v", "--no-pager"], fixtures)
    assert shown.count(answer) == 1


COLOURED = {
    "transplant": ["transplant", "resnet18.pth", "--into", "models.py:Baseline"],
    "diff": COMMANDS["diff"],
    "inspect": ["inspect", "tuned.safetensors", "--depth", "2"],
}


VANISHING = {"30", "37", "90", "93", "97"}
"""Codes of foregrounds that cannot be read on white or on black: black, white, grey, bright yellow, bright white."""


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", COLOURED)
def test_coloured_screens(name: str, columns: int, cli: Run) -> None:
    """What one looks for is bold, what is as expected is faint; escape codes are spelled so that they can be read."""
    _, out, _ = cli(*COLOURED[name], "--color", "always", columns=columns)
    if columns == 80 or name != "inspect":
        same_as_golden(f"colour-{name}-{columns}", out.replace("\x1b", "\\e"))
    plain = cli(*COLOURED[name], "--color", "never", columns=columns)[1]
    assert re.sub(r"\x1b\[[\d;]*m", "", out) == plain
    assert max(map(len, plain.splitlines())) <= columns
    codes = {code for found in re.findall(r"\x1b\[([\d;]*)m", out) for code in found.split(";")}
    assert codes and not codes & VANISHING


def painted(text: str, style: str) -> str:
    return Style.parse(style).render(text, color_system=ColorSystem.STANDARD)


def test_what_one_looks_for_is_seen_first(cli: Run) -> None:
    _, out, _ = cli(*COLOURED["transplant"], "--color", "always", columns=80)
    assert painted("bottleneck", "bold") in out
    assert painted("bottleneck.{weight,bias}  +1 more", "bold red") in out
    assert painted("bottleneck.num_batches_tracked", "bold red") not in out  # harmless
    assert "\x1b[2;32m█" in out  # loaded: faint green
    _, out, _ = cli(*COMMANDS["transplant"], "--color", "always", columns=80)
    assert painted("fc.weight", "bold magenta") in out


def test_dtypes_are_told_apart(cli: Run, fixtures: Path) -> None:
    state = {"a": torch.zeros(2), "b": torch.zeros(2).bfloat16(), "c": torch.zeros(2, dtype=torch.int64)}
    torch.save({**state, "d": torch.zeros(2).to(torch.float8_e4m3fn)}, fixtures / "kinds.pth")
    _, out, _ = cli("inspect", "kinds.pth", "--flat", "--color", "always", columns=80)
    specs = {"f32[2]": "cyan", "bf16[2]": "bright_blue", "i64[2]": "dim cyan", "f8_e4m3fn[2]": "magenta"}
    assert all(painted(spec, style) in out for spec, style in specs.items())
    assert len(set(specs.values())) == len(specs)
