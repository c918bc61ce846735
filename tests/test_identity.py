"""An input is the same file from its headers to its last byte, or the command is an error and writes nothing."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from console import Run, runner

import ckptool
from ckptool import PartlyLoadedError
from ckptool.core.errors import ChangedError, UnreadableError
from ckptool.engine.reading import Reader
from ckptool.storage.local import LocalFile, OpenFile

Change = Callable[[Path], None]


@pytest.fixture
def cli(fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in the fixtures folder; gives (exit code, stdout, stderr)."""
    return runner(fixtures, monkeypatch, capsys)


def _with_old_times(path: Path, change: Change) -> None:
    before = path.stat()
    time.sleep(0.02)  # longer than the clock of a file system stands still
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def replaced(path: Path) -> None:
    """Another file of equal size and time under the name."""

    def change(path: Path) -> None:
        other = path.with_name("other.tmp")
        other.write_bytes(path.read_bytes())
        other.replace(path)

    _with_old_times(path, change)


def rewritten(path: Path) -> None:
    """Other bytes in the same file, of equal size and time."""

    def change(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(-200, os.SEEK_END)
            file.write(b"x")

    _with_old_times(path, change)


CHANGES = [replaced, rewritten, Path.unlink]
HF = "vit-hf.safetensors"
COMMANDS = {
    "inspect --stats": ["inspect", "resnet18.pth", "--stats"],
    "inspect --stats of shards": ["inspect", "shards", "--stats", "--json"],
    "diff": ["diff", "resnet18.pth", "tuned.safetensors"],
    "diff --stats": ["diff", "resnet18-102.pth", "resnet18.pth", "--json"],
    "check": ["check", "tuned.safetensors", "resnet18.pth"],
    "check --update-lock": ["check", "resnet18.pth", "--policy", "p.toml", "--update-lock"],
    "filter": ["filter", "resnet18.pth", "-o", "out.pth"],
    "filter to safetensors": ["filter", "resnet18.pth", "-o", "out.safetensors"],
    "filter --dtype": ["filter", "shards", "--dtype", "bf16", "-o", "out.pth"],
    "filter to a folder": ["filter", "training.ckpt", "--max-shard", "20kB", "-o", "out"],
    "remap": ["remap", "resnet18.pth", "-r", "fc. -> head.", "-o", "out.pth"],
    "merge": ["merge", "resnet18.pth", "shards", "--method", "linear", "-o", "out.pth"],
    "transplant": ["transplant", "tuned.safetensors", "--into", "resnet18.pth", "-o", "out.pth"],
    "transplant --probe": [
        *["transplant", HF, "--into", "models.py:ViT", "--match", "auto", "--probe", "models.py:SplitViT"],
        *["-o", "out.pth"],
    ],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("moment", ["before", "during"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_mixes_two_versions(
    command: str, moment: str, change: Change, cli: Run, fixtures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file changes between its headers and its values, or between its first values and the end."""
    (fixtures / "p.toml").write_text('lock = "weights.lock"\n')
    changed: list[Path] = []

    def once(path: os.PathLike[str]) -> None:
        if not changed:
            changed.append(Path(path))
            change(Path(path))

    before = {path: path.read_bytes() for path in fixtures.rglob("*") if path.is_file()}
    with monkeypatch.context() as hooks:
        _hook(hooks, moment, once)
        code, _, err = cli(*COMMANDS[command])
    assert changed, "no values were read"
    assert code == 2, err
    assert "changed after it was opened" in err or "is not there any more" in err
    assert changed[0].name in err
    left = {path for path in fixtures.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert left - set(before) == set(), "something was written"


def _hook(hooks: pytest.MonkeyPatch, moment: str, once: Callable[[os.PathLike[str]], None]) -> None:
    """Call `once` with the first file whose values are read: just before it is opened for them, or after a read."""
    if moment == "before":
        real_open = Reader.opened

        def opened(self: Reader, source: LocalFile) -> Any:
            once(source.path)
            return real_open(self, source)

        hooks.setattr(Reader, "opened", opened)
        return
    for name in ("read_into", "copy_to"):
        real = getattr(OpenFile, name)

        def read(self: OpenFile, *arguments: Any, real: Callable[..., Any] = real) -> Any:
            done = real(self, *arguments)
            once(self.path)
            return done

        hooks.setattr(OpenFile, name, read)


@pytest.mark.parametrize("change", [replaced, rewritten])
@pytest.mark.parametrize("name", ["resnet18.pth", "tuned.safetensors", "training.ckpt", "shards", "shards-bin"])
def test_a_plan_is_not_applied_to_other_files(name: str, change: Change, fixtures: Path) -> None:
    plan = ckptool.plan_filter(fixtures / name)
    assert plan.apply(fixtures / "before.pth").tensors
    place = fixtures / name
    change(sorted(place.iterdir())[-1] if place.is_dir() else place)
    with pytest.raises(UnreadableError, match="changed after it was opened"):
        plan.apply(fixtures / "after.pth")
    assert not (fixtures / "after.pth").exists()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("name", ["shards/model.safetensors.index.json", "dcp/.metadata"])
def test_the_index_is_an_input_too(name: str, fixtures: Path) -> None:
    if name.startswith("dcp"):
        from torch.distributed.checkpoint import FileSystemWriter, save

        save({"w": torch.ones(3)}, storage_writer=FileSystemWriter(fixtures / "dcp"))
    plan = ckptool.plan_filter((fixtures / name).parent)
    replaced(fixtures / name)
    with pytest.raises(UnreadableError, match="changed after it was opened"):
        plan.apply(fixtures / "out.pth")
    assert not (fixtures / "out.pth").exists()


def test_a_model_is_not_filled_from_two_versions(fixtures: Path) -> None:
    model = torch.nn.Sequential()
    model.add_module("head", torch.nn.Linear(16, 100))
    checkpoint = ckptool.open(fixtures / "resnet18.pth")
    before = model.head.weight.clone()
    rewritten(fixtures / "resnet18.pth")
    with pytest.raises(UnreadableError, match="changed after it was opened"):
        ckptool.load_into(model, checkpoint, recipe="fc. -> head.")
    assert torch.equal(model.head.weight, before)


def _three_layers(folder: Path) -> tuple[torch.nn.Sequential, Path]:
    layers = torch.nn.Sequential(*(torch.nn.Linear(40, 40, bias=False) for _ in range(3)))
    torch.save(layers.state_dict(), folder / "layers.pth")
    for layer in layers:
        torch.nn.init.zeros_(layer.weight)
    return layers, folder / "layers.pth"


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_that_is_partly_loaded_is_said_to_be(
    change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be undone is told: which tensors were written to; the others are as they were."""
    model, path = _three_layers(tmp_path)
    real, changed = OpenFile.read_into, []

    def read(self: OpenFile, offset: int, buffer: memoryview) -> None:
        real(self, offset, buffer)
        if len(buffer) == 6400 and not changed:
            changed.append(path)
            change(path)

    monkeypatch.setattr(OpenFile, "read_into", read)
    with pytest.raises(
        ckptool.PartlyLoadedError, match=r"the model is partly loaded: \d tensors? overwritten"
    ) as caught:
        ckptool.load_into(model, path)
    written = {key for key, tensor in model.state_dict().items() if tensor.any()}
    assert written and written <= set(caught.value.overwritten)
    assert isinstance(caught.value.__cause__, ChangedError)


def test_a_damaged_file_stops_loading_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptool.models.loading.THREADS", 1)
    model, path = _three_layers(tmp_path)
    data = bytearray(path.read_bytes())
    _, start, nbytes = ckptool.open(path)["1.weight"].run
    data[start + nbytes - 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PartlyLoadedError, match=r"differ from the CRC-32 .*: 2 tensors overwritten, 1 left") as caught:
        ckptool.load_into(model, path)
    assert caught.value.overwritten == ("0.weight", "1.weight")
    assert not model[2].weight.any()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["resnet18.pth", "tuned.safetensors", "training.ckpt", "shards", "resnet18-102.pth"])
def test_check_says_that_a_file_changed_while_its_headers_were_read(
    name: str, change: Change, cli: Run, fixtures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trouble, and no finding about the file: nobody knows which of its versions is meant."""
    real, changed = OpenFile.read, []

    def read(self: OpenFile, offset: int, nbytes: int) -> bytes:
        content = real(self, offset, nbytes)
        if offset and not changed:
            changed.append(self.path)
            change(self.path)
        return content

    monkeypatch.setattr(OpenFile, "read", read)
    code, out, err = cli("check", name)
    assert (code, out) == (2, ""), out
    assert "changed after it was opened" in err or "is not there any more" in err


@pytest.fixture
def held(tmp_path: Path) -> Iterator[LocalFile]:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    yield LocalFile.at(path)


def test_two_names_of_one_file_have_one_identity(held: LocalFile, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("x")
    again = LocalFile.at(tmp_path / "link")
    assert again.identity == held.identity and again != held
    assert {held: 1}[LocalFile.at(held.path)] == 1
    shutil.copy2(held.path, tmp_path / "copy")
    assert LocalFile.at(tmp_path / "copy").identity != held.identity


@pytest.mark.parametrize("change", [replaced, rewritten])
def test_an_open_file_says_at_the_end_that_it_changed(held: LocalFile, change: Change) -> None:
    held.path.write_bytes(bytes(300))
    file = LocalFile.at(held.path)
    with pytest.raises(UnreadableError, match="x changed after it was opened"), file.open() as opened:
        assert opened.read(0, 4) == bytes(4)
        change(held.path)
    with pytest.raises(UnreadableError, match="x changed after it was opened"):
        file.open()


def test_json_names_the_files_as_paths(cli: Run) -> None:
    found = json.loads(cli("inspect", "shards", "--json")[1])["file"]
    assert found["files"][0] == "shards/model-00001-of-00003.safetensors", found["files"]
