"""A container is one entry of the registry: a toy that nothing else has heard of is read by every command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from console import Run, runner
from safetensors.torch import load_file

import ckptool
from ckptool.core.bytes import ByteSource, Entry, Folder, OpenBytes
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.format import Format
from ckptool.core.plan import Plan
from ckptool.core.spec import TensorSpec, packed_nbytes
from ckptool.core.tensor import Piece, Storage, Tensor
from ckptool.formats import registry
from ckptool.formats.contents import contents_of
from ckptool.formats.image import Image, Slot
from ckptool.formats.writer import Loading, Output, Writer

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


def toy_output(plan: Plan, name: str, limit: int) -> Output:
    """The same file from a plan: a line of JSON known beforehand, the tensors' bytes behind it."""
    specs = tuple(step.target for step in plan.steps)
    header = b"TOY\0" + json.dumps([(spec.key, spec.dtype, list(spec.shape)) for spec in specs]).encode() + b"\n"
    slots, at = [], len(header)
    for index, spec in enumerate(specs):
        slots.append(Slot(spec.key, at, spec.nbytes, contents_of(plan, index)))
        at += spec.nbytes
    return Output.of({name: Image(at, ((0, header),), tuple(slots))}, specs)


def toy_loading(path: str, wrap: str | None) -> Loading:
    return Loading(f"read_toy({path!r})", ("from toys import read_toy",))


def open_toybox(folder: Folder, select: str | None) -> Checkpoint:
    """A folder with one toy in it, whatever that is called."""
    (name,) = (entry.name for entry in folder.entries() if entry.name.endswith(".part"))
    return replace(open_toy(folder.open(name), select), path=folder.path, format=Format("toy box"))


def is_toybox(folder: Folder, entries: Sequence[Entry]) -> bool:
    return "TOYBOX" in {entry.name for entry in entries}


def toy_unheld(spec: TensorSpec) -> str:
    return "" if spec.dtype in ("float32", "bfloat16") else spec.dtype


STATE = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2, dtype=torch.bfloat16)}


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line where `w.toy` and the same weights as `w.pth` are; toys are registered."""
    entry = registry.Container(
        "toy", is_toy, open_toy, (".toy",), writer=Writer("toy", toy_output, toy_unheld, loading=toy_loading)
    )
    monkeypatch.setattr(registry, "CONTAINERS", [*registry.CONTAINERS, entry])
    box = registry.FolderContainer("toy box", is_toybox, open_toybox, (".part",))
    monkeypatch.setattr(registry, "FOLDERS", [box, *registry.FOLDERS])
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


def test_a_new_kind_of_folder_is_known_to_every_command(cli: Run, tmp_path: Path) -> None:
    box = tmp_path / "boxes" / "one"
    box.mkdir(parents=True)
    (box / "TOYBOX").touch()
    write_toy(box / "x.part", STATE)
    code, out, _ = cli("inspect", "boxes/one", "--json")
    assert (code, json.loads(out)["file"]["format"]) == (0, "toy box")
    assert cli("diff", "boxes/one", "w.pth")[0] == 0
    assert cli("filter", "boxes/one", "-o", "out.pth")[0] == 0
    code, out, _ = cli("check", "boxes", "--json")
    assert (code, {row["file"] for row in json.loads(out)["outcomes"]}) == (0, {"boxes/one"})
    assert cli("check", "boxes", "--report", "boxes/one/x.part")[0] == 2 and (box / "x.part").read_bytes()[:3] == b"TOY"
    assert "a folder in it does: boxes/one" in cli("inspect", "boxes")[2]


def test_the_lines_that_load_it_are_the_writers(cli: Run) -> None:
    Path("net.py").write_text("from torch import nn\ndef net():\n    return nn.ModuleDict({'fc': nn.Linear(3, 2)})\n")
    into = ["transplant", "w.pth", "--into", "net.py:net", "--snippet"]
    lines = cli(*into, "-o", "out.toy")[1]
    assert "from toys import read_toy\n" in lines and "model.load_state_dict(read_toy('out.toy'))\n" in lines


def test_git_gets_its_ending(cli: Run) -> None:
    import subprocess

    subprocess.run(["git", "init", "-q", "."], check=True)
    assert cli("git", "install")[0] == 0
    assert "*.toy diff=ckptool" in Path(".gitattributes").read_text()


# --- and written, by a writer in its entry


def test_a_new_container_is_converted_to(cli: Run, tmp_path: Path) -> None:
    code, out, _ = cli("filter", "w.pth", "-o", "out.toy", "--json")
    assert (code, json.loads(out)["container"]) == (0, "toy")
    assert Path("out.toy").read_bytes() == Path("w.toy").read_bytes()
    assert cli("diff", "out.toy", "w.pth")[0] == 0
    assert cli("remap", "w.toy", "-r", "fc. -> head.", "--dtype", "bf16", "-o", "named.toy")[0] == 0
    assert cli("filter", "named.toy", "-o", "back.pth")[0] == 0
    loaded = torch.load("back.pth", weights_only=True)
    assert torch.equal(loaded["head.weight"], STATE["fc.weight"].bfloat16()) and len(loaded) == 2
    assert cli("merge", "w.toy", "w.pth", "--method", "linear", "-o", "mixed.bin", "--to", "toy")[0] == 0
    assert cli("diff", "mixed.bin", "w.pth")[0] == 0


def test_a_new_container_says_what_it_cannot_hold(cli: Run) -> None:
    shared = torch.ones(2)
    torch.save({"a": shared, "b": shared, "steps": torch.tensor(3), "epoch": 7}, "more.pth")
    code, _, err = cli("filter", "more.pth", "-o", "more.toy")
    assert code == 2 and "toy cannot hold 1 of 3 tensors: steps is int64" in err and not Path("more.toy").exists()
    code, out, _ = cli("filter", "more.pth", "--drop", "steps", "-o", "more.toy", "--json")
    plan = json.loads(out)
    assert code == 0 and [row["name"] for row in plan["beside"] if row["fate"] == "lost"] == ["epoch"]
    assert any("1 tied tensor is written as a copy" in note["text"] for note in plan["notes"])
    assert Path("more.toy").stat().st_size == len(Path("more.toy").read_bytes().partition(b"\n")[0]) + 1 + 16


def test_a_preview_is_of_the_inputs_own_container(cli: Run) -> None:
    code, out, _ = cli("filter", "w.toy", "--json")
    assert (code, json.loads(out)["container"]) == (0, "toy")
    code, out, _ = cli("filter", "w.toy", "--to", "torch", "--json")
    assert (code, json.loads(out)["container"]) == (0, "torch")


# --- --to FORMAT


def test_to_names_the_container_where_the_ending_does_not(cli: Run) -> None:
    for out, to, found in [
        ("a.bin", "safetensors", "safetensors"), ("b", "torch", "torch zip"), ("c.v2", "safetensors", "safetensors"),
        ("d.v2", "folder", "safetensors, 1 shard"), ("e.pt", "torch", "torch zip"), ("llama-3.1", "torch", "torch zip"),
        ("f.bin", "folder", "safetensors, 1 shard"),
    ]:  # fmt: skip
        assert cli("filter", "w.pth", "-o", out, "--to", to)[0] == 0, out
        code, text, _ = cli("inspect", out, "--json")
        assert code == 0 and json.loads(text)["file"]["format"].startswith(found.partition(",")[0]), out
        assert Path(out).is_dir() == (to == "folder")
        assert cli("diff", "w.pth", out)[0] == 0
    assert torch.load("b", weights_only=True).keys() == STATE.keys()
    assert set(load_file("a.bin")) == set(STATE)


@pytest.mark.parametrize(
    "command", [("filter", "w.pth"), ("remap", "w.pth", "-r", "fc. -> head."), ("merge", "w.pth", "w.toy")]
)
@pytest.mark.parametrize("out", [(), ("-o", "x.bin"), ("-o", "x")])
def test_an_unknown_format_lists_what_can_be_written(cli: Run, command: list[str], out: tuple[str, ...]) -> None:
    code, _, err = cli(*command, *out, "--to", "gguf")
    assert code == 2 and '"gguf" is not a format that is written' in err and "safetensors, torch, toy or folder" in err
    assert not Path("x.bin").exists() and not Path("x").exists()


@pytest.mark.parametrize(("out", "to"), [("x.safetensors", "torch"), ("x.pth", "safetensors"), ("x.pt", "folder")])
def test_a_name_that_says_another_format_is_refused(cli: Run, out: str, to: str) -> None:
    code, _, err = cli("filter", "w.pth", "-o", out, "--to", to)
    assert code == 2 and "has the ending of a" in err and not Path(out).exists()


def test_a_preview_refuses_what_the_format_cannot_hold(cli: Run) -> None:
    torch.save({"w": torch.ones(2, dtype=torch.complex128)}, "c.pth")
    assert cli("filter", "c.pth")[0] == 0
    code, _, err = cli("filter", "c.pth", "--to", "safetensors")
    assert code == 2 and "safetensors cannot hold 1 of 1 tensor" in err
    code, _, err = cli("filter", "w.pth", "--to", "safetensors", "--max-shard", "1kB", "-o", "w.bin")
    assert code == 2 and "--max-shard-size makes a folder of shards" in err
    assert cli("filter", "w.pth", "--to", "folder", "--max-shard", "20B", "-o", "w.d")[0] == 0
    assert (Path("w.d") / "model.safetensors.index.json").exists()


def test_the_python_api_takes_it_too(cli: Run) -> None:
    written = ckptool.plan_filter("w.pth", []).apply("w.bin", to="safetensors")
    assert set(load_file(written.path)) == set(STATE) and written.path.exists()
    with pytest.raises(ckptool.CkptError, match="is not a format that is written"):
        ckptool.plan_filter("w.pth", []).apply("v.bin", to="onnx")


def test_transplant_takes_it_too(cli: Run) -> None:
    code, out, _ = cli("transplant", "w.pth", "--into", "w.toy", "-o", "t.bin", "--to", "safetensors", "--snippet")
    assert code == 0 and "load_file('t.bin')" in out
    assert set(load_file("t.bin")) == set(STATE)
    code, _, err = cli("transplant", "w.pth", "--into", "w.toy", "--to", "safetensors", "--wrap", "model")
    assert code == 2 and "--wrap nests the weights, which safetensors cannot" in err
