"""A container is one entry of the registry: a toy that nothing else has heard of is read by every command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from console import Run, runner

from ckptool.core.bytes import ByteSource, OpenBytes
from ckptool.core.checkpoint import Checkpoint, Piece, Storage, Tensor
from ckptool.core.format import Format
from ckptool.core.spec import TensorSpec, packed_nbytes
from ckptool.formats import registry

TOY = Format("toy")


def write_toy(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Four bytes of magic, a line of JSON, the data."""
    rows = [(key, str(value.dtype).removeprefix("torch."), list(value.shape)) for key, value in state.items()]
    data = b"".join(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes() for value in state.values())
    path.write_bytes(b"TOY\0" + json.dumps(rows).encode() + b"\n" + data)


def is_toy(head: bytes, file: OpenBytes) -> bool:
    return head.startswith(b"TOY\0")


def open_toy(source: ByteSource, select: str | None) -> Checkpoint:
    with source.open() as file:
        rows, _, _ = file.read(4, file.size - 4).partition(b"\n")
    tensors, at = {}, 4 + len(rows) + 1
    for key, dtype, shape in json.loads(rows):
        nbytes = packed_nbytes(dtype, tuple(shape))
        piece = Piece(Storage(source, at, nbytes), 0, tuple(shape))
        tensors[key] = Tensor(TensorSpec(key, dtype, tuple(shape)), (piece,))
        at += nbytes
    return Checkpoint(source.path, TOY, tensors, (source,), nbytes=source.size)


STATE = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2, dtype=torch.bfloat16)}


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line where `w.toy` and the same weights as `w.pth` are; toys are registered."""
    entry = registry.Container("toy", is_toy, open_toy, (".toy",))
    monkeypatch.setattr(registry, "CONTAINERS", [*registry.CONTAINERS, entry])
    write_toy(tmp_path / "w.toy", STATE)
    torch.save(STATE, tmp_path / "w.pth")
    return runner(tmp_path, monkeypatch, capsys)


def test_a_new_container_is_inspected(cli: Run) -> None:
    code, out, _ = cli("inspect", "w.toy", "--json", "--stats")
    found = json.loads(out)
    assert (code, found["file"]["format"]) == (0, "toy")
    assert {row["key"]: row["shape"] for row in found["tensors"]} == {"fc.weight": [2, 3], "fc.bias": [2]}
    code, out, _ = cli("inspect", "w.toy")
    assert code == 0 and "toy" in out and "fc" in out


def test_a_new_container_is_compared(cli: Run) -> None:
    assert cli("diff", "w.toy", "w.pth")[0] == 0
    write_toy(Path("w.toy"), {**STATE, "fc.bias": torch.zeros(2, dtype=torch.bfloat16)})
    code, out, _ = cli("diff", "w.toy", "w.pth", "--json")
    assert (code, json.loads(out)["summary"]["changed"]) == (1, 1)


@pytest.mark.parametrize("out", ["out.pth", "out.safetensors", "out"])
def test_a_new_container_is_converted_from(cli: Run, out: str) -> None:
    assert cli("filter", "w.toy", "-o", out)[0] == 0
    assert cli("diff", "w.toy", out)[0] == 0
    assert cli("remap", "w.toy", "-r", "fc. -> head.", "-o", f"renamed-{out}")[0] == 0
    assert cli("merge", "w.toy", "w.pth", "--method", "linear", "-o", f"merged-{out}")[0] == 0
    if out.endswith(".pth"):
        loaded = torch.load(out, weights_only=True)
        assert all(torch.equal(loaded[key], STATE[key]) for key in STATE)


def test_a_new_container_is_checked_and_found_in_folders(cli: Run, tmp_path: Path) -> None:
    assert cli("check", "w.toy")[0] == 0
    Path("w.pth").unlink()
    code, out, _ = cli("check", ".", "--json")
    assert (code, {row["file"] for row in json.loads(out)["outcomes"]}) == (0, {"w.toy"})
    code, out, _ = cli("inspect", ".", "--json")
    assert (code, json.loads(out)["file"]["format"]) == (0, "toy")
    write_toy(Path("w.toy"), {"fc.bias": torch.tensor([float("nan")])})
    assert cli("check", ".")[0] == 1


def test_git_gets_its_ending(cli: Run) -> None:
    import subprocess

    subprocess.run(["git", "init", "-q", "."], check=True)
    assert cli("git", "install")[0] == 0
    assert "*.toy diff=ckptool" in Path(".gitattributes").read_text()
