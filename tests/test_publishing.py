"""Outputs in the place of others: what is replaced, what stays, and what a run finds that another one's end left."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from writing import apply

from ckptool.cli.app import run
from ckptool.commands.filter import plan_filter
from ckptool.core.errors import OutputError
from ckptool.engine.apply import Written
from ckptool.formats.opening import open_checkpoint
from ckptool.storage import publishing, renaming, stages
from ckptool.storage.staging import clear_stages

SHARD = 10_000  # bytes: the input makes three shards


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An input in a folder of its own."""
    path = tmp_path / "in" / "in.pth"
    path.parent.mkdir()
    torch.save({f"{i}.weight": torch.randn(50, 40) for i in range(3)}, path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """An empty folder for outputs, in memory if the system has such a place: hundreds of runs flush their files."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        dir=memory if memory.is_dir() and os.access(memory, os.W_OK) else tmp_path
    ) as name:
        folder = Path(name) / "out"
        folder.mkdir()
        yield folder


def write(source: Path, target: Path, *, dtype: str | None = None, **options: Any) -> Written:
    if not target.suffix:
        options.setdefault("max_shard", SHARD)
    return apply(plan_filter(open_checkpoint(source), dtype=dtype), target, **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def weights(folder: Path) -> dict[str, bytes]:
    """The files of an output in a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("model*"))}


def add_others(folder: Path) -> None:
    """Put files into a folder that no output replaces."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "optimizer.bin").write_bytes(b"state")
    if not (folder / "training_args.bin").is_symlink():
        (folder / "training_args.bin").symlink_to("optimizer.bin")
    (folder / ".hidden").write_bytes(b"")
    (folder / "runs").mkdir(exist_ok=True)
    (folder / "runs" / "events").write_bytes(b"log")


def has_others(folder: Path) -> bool:
    """True if all files of `add_others` are in a folder and unchanged."""
    return (
        (folder / "config.json").read_text() == "{}"
        and (folder / "optimizer.bin").read_bytes() == b"state"
        and (folder / "training_args.bin").is_symlink()
        and (folder / ".hidden").exists()
        and (folder / "runs" / "events").exists()
        and (folder / "runs" / "events").read_bytes() == b"log"
    )


def no_exchange(monkeypatch: pytest.MonkeyPatch, code: int = errno.EINVAL) -> None:
    """Let the system refuse to exchange two names, and to rename without overwriting."""

    def refused(*arguments: Any) -> int:
        import ctypes

        ctypes.set_errno(code)
        return -1

    monkeypatch.setattr(renaming, "_system_call", lambda: refused)


WAYS = pytest.mark.parametrize("way", ["exchange", "one by one", "no renameat2"])


def set_way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "one by one":
        no_exchange(monkeypatch)
    elif way == "no renameat2":
        monkeypatch.setattr(renaming, "_system_call", lambda: None)
        monkeypatch.delattr(os, "link")


# ---------------------------------------------------------------------------------------------- what stays


@WAYS
def test_force_replaces_weights_and_leaves_everything_else(
    source: Path, out: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_way(way, monkeypatch)
    target = out / "model"
    write(source, target)
    add_others(target)
    (target / "pytorch_model.bin").write_bytes(b"other weights")
    with pytest.raises(OutputError, match="exists"):
        write(source, target)
    written = write(source, target, force=True, max_shard=1_000_000)
    assert sorted(path.name for path in target.glob("model*")) == ["model.safetensors"]
    assert has_others(target)
    assert (target / "pytorch_model.bin").read_bytes() == b"other weights"
    assert load_file(target / "model.safetensors")["1.weight"].shape == (50, 40)
    assert (written.notes, names(out)) == ((), ["model"])


@WAYS
@pytest.mark.parametrize("exists", [False, True])
def test_files_that_appear_meanwhile_stay(
    source: Path, out: Path, way: str, exists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_way(way, monkeypatch)
    target = out / "model"
    if exists:
        write(source, target, dtype="bf16")
    else:
        target.mkdir()

    def progress(done: int, total: int) -> None:
        add_others(target)

    write(source, target, force=exists, progress=progress)
    assert has_others(target)
    assert open_checkpoint(target)["0.weight"].dtype == "float32"
    assert names(out) == ["model"]


@WAYS
@pytest.mark.parametrize("folder", ["absent", "empty"])
def test_weights_that_appear_meanwhile_are_not_replaced(
    source: Path, out: Path, way: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_way(way, monkeypatch)
    target = out / "model"
    if folder == "empty":
        target.mkdir()

    def progress(done: int, total: int) -> None:
        target.mkdir(exist_ok=True)
        (target / "model.safetensors").write_bytes(b"theirs")

    with pytest.raises(OutputError, match="was created while ckptool was running"):
        write(source, target, progress=progress)
    assert weights(target) == {"model.safetensors": b"theirs"}
    assert names(out) == ["model"]


@WAYS
def test_file_that_appears_meanwhile_is_not_replaced(
    source: Path, out: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_way(way, monkeypatch)
    target = out / "a.pth"
    with pytest.raises(OutputError, match="was created while ckptool was running"):
        write(source, target, progress=lambda done, total: target.write_bytes(b"theirs"))
    assert (target.read_bytes(), names(out)) == (b"theirs", ["a.pth"])
    target.unlink()
    write(source, target)
    assert (torch.load(target)["0.weight"].shape, names(out)) == ((50, 40), ["a.pth"])


def test_file_that_is_saved_anew_between_link_and_exchange_keeps_its_last_version(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = out / "model"
    write(source, target)
    add_others(target)
    real = publishing.exchange

    def exchange(one: Path, other: Path) -> bool:
        (target / "config.json.new").write_text("newer")
        (target / "config.json.new").replace(target / "config.json")
        (target / "log").write_text("appeared")
        return real(one, other)

    monkeypatch.setattr(publishing, "exchange", exchange)
    write(source, target, force=True)
    assert (target / "config.json").read_text() == "newer"
    assert (target / "log").read_text() == "appeared"
    assert names(out) == ["model"]


def test_old_index_names_what_is_replaced_but_only_weights(source: Path, out: Path) -> None:
    target = out / "model"
    target.mkdir()
    (target / "part_a.safetensors").write_bytes(b"old")
    (target / "notes.txt").write_bytes(b"kept")
    (out / "outside.safetensors").write_bytes(b"kept")
    (target / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "part_a.safetensors", "b": "notes.txt", "c": "../outside.safetensors"}}'
    )
    write(source, target, force=True, max_shard=None)
    assert names(target) == ["model.safetensors", "notes.txt"]
    assert names(out) == ["model", "outside.safetensors"]


def test_folder_in_the_way_of_a_shard(source: Path, out: Path) -> None:
    target = out / "model"
    (target / "model.safetensors").mkdir(parents=True)
    with pytest.raises(OutputError, match="is not a regular file"):
        write(source, target, force=True, max_shard=None)
    assert (names(target), names(out)) == (["model.safetensors"], ["model"])


@WAYS
def test_link_to_a_folder(source: Path, out: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_way(way, monkeypatch)
    real = out / "real"
    write(source, real)
    before = weights(real)
    (out / "alias").symlink_to("real")
    write(source, out / "alias", force=True, dtype="bf16")
    assert not (out / "alias").is_symlink()
    assert weights(real) == before != weights(out / "alias")
    shutil.rmtree(out / "alias")
    (out / "alias").symlink_to("real")
    add_others(real)
    with pytest.raises(OutputError, match="link to a folder that holds other files"):
        write(source, out / "alias", force=True)
    assert names(out) == ["alias", "real"]


# ---------------------------------------------------------------------------------------------- killed at every step

STEPS = ["open", "mkdir", "rename", "replace", "link", "unlink", "rmdir", "fsync", "ftruncate", "fchmod", "chmod"]


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do work in a child process that is killed before the given of its system calls; False if it came to its end."""
    child = os.fork()
    if not child:
        count = 0

        def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                nonlocal count
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **named)

            return call

        for name in STEPS:
            if hasattr(os, name):
                setattr(os, name, wrapped(getattr(os, name)))
        renaming._renameat2 = wrapped(renaming._renameat2)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@WAYS
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("shards", [pytest.param(SHARD, marks=pytest.mark.slow), 1_000_000])
def test_folder_killed_at_every_step(
    source: Path, out: Path, way: str, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_way(way, monkeypatch)
    target = out / "model"
    write(source, target, max_shard=shards)
    new = weights(target)
    shutil.rmtree(target)
    write(source, target, dtype="bf16", max_shard=5_000)
    old = weights(target)
    add_others(target)
    kept = out.parent / "kept"
    shutil.copytree(target, kept, symlinks=True)
    said: set[str] = set()
    step, is_killed = 0, True
    while is_killed:
        step += 1
        is_killed = killed_at(step, lambda: write(source, target, force=True, max_shard=shards))
        is_clean = weights(target) in (old, new) and has_others(target)
        if way == "exchange":
            assert weights(target) in (old, new)
            assert (target / "config.json").read_text() == "{}"
        notes = clear_stages(target)
        assert weights(target) in (old, new), step
        assert has_others(target), step
        assert notes or is_clean, step
        said.update(note.text.replace(str(out), "") for note in notes)
        write(source, target, force=True, max_shard=shards)
        assert (weights(target), names(out)) == (new, ["model"]), step
        assert has_others(target), step
        shutil.rmtree(target)
        shutil.copytree(kept, target, symlinks=True)
    assert step > 40
    assert any("stopped just after it replaced" in text for text in said)
    assert any("old output is back under its name" in text for text in said) == (way != "exchange")
    assert any("finished files are in" in text for text in said) == (shards == SHARD)


@WAYS
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("exists", [False, True])
def test_file_killed_at_every_step(
    source: Path, out: Path, way: str, exists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_way(way, monkeypatch)
    target = out / "a.safetensors"
    write(source, target)
    new = target.read_bytes()
    step, is_killed = 0, True
    while is_killed:
        target.unlink(missing_ok=True)
        if exists:
            target.write_bytes(b"old")
        step += 1
        is_killed = killed_at(step, lambda: write(source, target, force=exists))
        assert (target.read_bytes() if target.exists() else None) in (b"old" if exists else None, new)
        write(source, target, force=True, dtype="bf16")
        assert names(out) == ["a.safetensors"]
    assert step > 6


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_new_folder_killed_at_every_step(source: Path, out: Path) -> None:
    target = out / "model"
    write(source, target)
    new = weights(target)
    step, is_killed = 0, True
    while is_killed:
        shutil.rmtree(target, ignore_errors=True)
        step += 1
        is_killed = killed_at(step, lambda: write(source, target))
        assert not target.exists() or weights(target) == new
        write(source, target, force=True)
        assert (weights(target), names(out)) == (new, ["model"]), step
    assert step > 20


def killed_while(source: Path, target: Path, function: str, **options: Any) -> None:
    """Leave what a run leaves that is killed when it calls a function of `publishing`."""

    def work() -> None:
        setattr(publishing, function, lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
        write(source, target, force=True, **options)

    assert killed_at(-1, work)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize(
    ("way", "function", "words"),
    [("exchange", "_settle", "just after it replaced"), ("one by one", "_is_index", "old output is back")],
)
def test_next_run_says_what_a_killed_one_left(
    source: Path, out: Path, way: str, function: str, words: str, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    set_way(way, monkeypatch)
    target = out / "model"
    write(source, target)
    add_others(target)
    arguments = ["filter", str(source), "-o", str(target), "--max-shard", "10kB"]
    killed_while(source, target, function, dtype="bf16")
    assert run(arguments) == 2
    said = capfd.readouterr().err
    assert "exists; an earlier run was stopped" in " ".join(said.split())
    assert words in " ".join(said.split())
    assert has_others(target)
    assert open_checkpoint(target)["0.weight"].dtype == ("bfloat16" if way == "exchange" else "float32")
    killed_while(source, target, function, dtype="f16")
    assert run([*arguments, "--force"]) == 0
    said = capfd.readouterr().err
    assert said.startswith("note: an earlier run")
    assert words in " ".join(said.split())
    assert open_checkpoint(target)["0.weight"].dtype == "float32"
    for stage in out.glob(".model.*"):  # files of the other plans, finished and not published
        assert way == "one by one"
        assert str(stage) in "".join(said.split("\n  "))
        shutil.rmtree(stage)
    assert names(out) == ["model"]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_output_that_was_moved_after_a_kill(source: Path, out: Path) -> None:
    target = out / "model"
    write(source, target)
    add_others(target)
    killed_while(source, target, "_settle")
    target.rename(out / "elsewhere")
    (stage,) = out.glob(".model.*")
    with pytest.raises(OutputError, match="holds what an earlier run replaced"):
        write(source, target)
    assert (stage / "new" / "runs" / "events").read_bytes() == b"log"
    write(source, target, dtype="bf16")
    assert (stage / "new" / "runs" / "events").read_bytes() == b"log"


def test_two_writers_of_one_folder(source: Path, out: Path) -> None:
    target = out / "model"
    write(source, target)
    add_others(target)
    ends = time.monotonic() + 1.5
    failures: list[BaseException] = []

    def writer(dtype: str | None, shard: int) -> None:
        try:
            while time.monotonic() < ends:
                write(source, target, dtype=dtype, max_shard=shard, force=True)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=writer, args=each) for each in ((None, SHARD), ("bf16", 5_000))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    write(source, target, force=True, max_shard=1_000_000)
    assert (sorted(weights(target)), names(out)) == (["model.safetensors"], ["model"])
    assert has_others(target)


# ---------------------------------------------------------------------------------------------- resuming


class StopError(BaseException):
    """Stands for the end of the process."""


def stopped_after(source: Path, target: Path, count: int, **options: Any) -> Path:
    """Leave the stage of a run that was killed when `count` of its files were finished."""

    def work() -> None:
        real = stages.FolderStage._record_path
        finished = 0

        def record_path(stage: stages.FolderStage, name: str) -> Path:
            nonlocal finished
            if (stage.new / name).exists():
                finished += 1
                if finished > count:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(stage, name)

        stages.FolderStage._record_path = record_path  # type: ignore[method-assign]
        write(source, target, **options)

    assert killed_at(-1, work)
    (stage,) = target.parent.glob(f".{target.name}.*")
    assert stages.records_in(stage) == count
    return stage


def test_killed_run_is_resumed_by_the_same_command(source: Path, out: Path) -> None:
    target = out / "model"
    stage = stopped_after(source, target, 2, dtype="f16", max_shard=5_000)
    finished = {path.name: path.stat() for path in (stage / "new").glob("*-0000[12]-*")}
    assert len(finished) == 2
    (note,) = clear_stages(target)
    assert str(stage) in note.text
    written = write(source, target, dtype="f16", max_shard=5_000)
    assert [note.text for note in written.notes] == ["resumed: 2 of 4 files finished by an earlier run, and kept"]
    assert sorted(written.rounding) == ["0.weight", "1.weight", "2.weight"]
    for name, info in finished.items():
        now = (target / name).stat()
        assert (now.st_ino, now.st_mtime_ns) == (info.st_ino, info.st_mtime_ns)
    for name in sorted(finished):
        for key, tensor in load_file(target / name).items():
            assert torch.equal(tensor, torch.load(source)[key].half())
    assert names(out) == ["model"]


@pytest.mark.parametrize("change", ["byte", "length", "record", "inputs", "options"])
def test_finished_file_is_trusted_only_if_it_and_the_plan_agree(source: Path, out: Path, change: str) -> None:
    target = out / "model"
    stage = stopped_after(source, target, 1)
    (shard,) = (stage / "new").glob("*-00001-*")
    options = {}
    if change == "byte":
        with shard.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last[0] ^ 1]))
    elif change == "length":
        os.truncate(shard, 100)
    elif change == "record":
        (stage / "done" / f"{shard.name}.json").write_text('{"plan": ')
    elif change == "inputs":
        torch.save({f"{i}.weight": torch.zeros(50, 40) for i in range(3)}, source)
    else:
        options = {"max_shard": 20_000}
    written = write(source, target, **options)
    assert not any("resumed" in note.text for note in written.notes)
    for key, tensor in torch.load(source).items():
        found = open_checkpoint(target)[key]
        assert torch.equal(load_file(found.run[0])[key], tensor)
    if change in ("inputs", "options"):
        (note,) = written.notes
        assert str(stage) in note.text
        shutil.rmtree(stage)
    assert names(out) == ["model"]


def test_two_processes_with_one_plan(source: Path, out: Path) -> None:
    for name in ("model", "a.pth"):
        target = out / name
        seen: list[str] = []

        def progress(done: int, total: int, target: Path = target, seen: list[str] = seen) -> None:
            if not seen:
                seen.append("")
                with pytest.raises(OutputError, match="another process is writing") as error:
                    write(source, target)
                seen.append(error.value.message)

        write(source, target, progress=progress)
        assert len(seen) == 2
    assert names(out) == ["a.pth", "model"]


def test_stage_of_a_living_process_is_left_alone(source: Path, out: Path) -> None:
    target = out / "model"
    seen: list[str] = []

    def progress(done: int, total: int) -> None:
        if not seen:
            seen.append("")
            write(source, target, dtype="bf16")

    write(source, target, force=True, progress=progress)
    assert open_checkpoint(target)["0.weight"].dtype == "float32"
    assert names(out) == ["model"]


def test_what_only_looks_like_a_stage_is_left_alone(source: Path, out: Path) -> None:
    other = out / ".model.01234567.tmp"
    other.mkdir()
    (other / "mine").write_bytes(b"")
    (out / ".model.tmp").write_bytes(b"")
    (out / ".model.0123456789.tmp").write_bytes(b"")
    write(source, out / "model")
    assert names(out) == [".model.01234567.tmp", ".model.0123456789.tmp", ".model.tmp", "model"]
    assert names(other) == ["mine"]


# ---------------------------------------------------------------------------------------------- permissions, names


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o664])
def test_stage_is_never_wider_than_its_target(source: Path, out: Path, mode: int) -> None:
    before = os.umask(0o002)
    try:
        write(source, out / "model")
        write(source, out / "a.pth")
    finally:
        os.umask(before)
    for path in [out / "a.pth", *(out / "model").iterdir()]:
        path.chmod(mode)
    (out / "model").chmod(0o750)
    seen: set[str] = set()

    def progress(done: int, total: int) -> None:
        for path in out.rglob("*.tmp*"):
            if path.is_file():
                assert stat.S_IMODE(path.stat().st_mode) & ~mode == 0
            else:
                assert stat.S_IMODE(path.stat().st_mode) == 0o700
            seen.add(path.name)
        for path in out.glob(".model.*/new/*"):
            assert stat.S_IMODE(path.stat().st_mode) & ~mode == 0
            seen.add(path.name)

    for name in ("model", "a.pth"):
        write(source, out / name, force=True, progress=progress)
    assert len(seen) > 4
    for path in [out / "a.pth", *(out / "model").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert stat.S_IMODE((out / "model").stat().st_mode) == 0o750


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
def test_owner_of_a_replaced_output_is_kept(source: Path, out: Path) -> None:
    write(source, out / "a.pth")
    os.chown(out / "a.pth", 1234, 2345)
    write(source, out / "a.pth", force=True)
    info = (out / "a.pth").stat()
    assert (info.st_uid, info.st_gid) == (1234, 2345)


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "\udcff" * 255, "caf\udce9", "\udcff.pth"])
def test_long_and_undecodable_names(source: Path, out: Path, name: str) -> None:
    for _ in range(2):
        write(source, out / name, force=True)
        assert names(out) == [name]


@pytest.mark.parametrize("name", ["a\0.pth", "a\ud800.pth", "\0"])
def test_impossible_names(source: Path, out: Path, name: str) -> None:
    with pytest.raises(OutputError, match="the name of an output"):
        write(source, out / name)
    assert names(out) == []


# ---------------------------------------------------------------------------------------------- other systems

OTHER_SYSTEM = """
import os, signal, sys
from pathlib import Path

for name in ("link", "fchmod", "chown", "geteuid", "pwrite", "copy_file_range", "O_DIRECTORY"):
    delattr(os, name)
for name in ("pthread_sigmask", "SIGHUP"):
    delattr(signal, name)
sys.modules["fcntl"] = None
is_open = {}
real = {name: getattr(os, name) for name in ("open", "close", "rename", "replace", "unlink", "rmdir", "renames")}

def open(path, *arguments, **named):
    if isinstance(path, (str, Path)) and os.path.isdir(path) and "dir_fd" not in named:
        raise PermissionError(13, "Permission denied", str(path))
    descriptor = real["open"](path, *arguments, **named)
    is_open[descriptor] = os.fstat(descriptor)
    return descriptor

def close(descriptor):
    is_open.pop(descriptor, None)
    real["close"](descriptor)

def refused(name):
    def call(*paths, **named):
        for path in paths:
            if os.path.lexists(path) and any(os.path.samestat(os.lstat(path), info) for info in is_open.values()):
                raise PermissionError(13, "the file is in use", str(path))
        if name == "rename" and os.path.lexists(paths[1]):
            raise FileExistsError(17, "File exists", str(paths[1]))
        return real[name](*paths, **named)
    return call

os.open, os.close = open, close
for name in ("rename", "replace", "unlink"):
    setattr(os, name, refused(name))

import shutil
shutil._use_fd_functions = False
from ckptool.cli.app import run
from ckptool.storage import renaming
renaming._system_call = lambda: None
import json
print(json.dumps([run(arguments) for arguments in json.loads(sys.argv[1])]))
"""


def test_systems_without_posix(source: Path, out: Path) -> None:
    (out / "model").mkdir()
    add_others(out / "model")
    torch.save({"other": torch.zeros(3)}, out / "b.pth")
    commands = [
        ["filter", str(source), "-o", str(out / "a.pth"), "--dtype", "bf16"],
        ["filter", str(source), "-o", str(out / "a.pth"), "--force"],
        ["filter", str(source), "-o", str(out / "a.safetensors")],
        ["filter", str(source), "-o", str(out / "fresh"), "--max-shard", "10kB"],
        ["filter", str(source), "-o", str(out / "model"), "--max-shard", "5kB", "--force", "--dtype", "bf16"],
        ["filter", str(source), "-o", str(out / "model"), "--max-shard", "10kB", "--force"],
        ["merge", str(source), str(out / "b.pth"), "-o", str(out / "c.safetensors")],
        ["remap", str(source), "-r", "0. -> first.", "-o", str(out / "d.pth")],
        ["inspect", str(out / "model"), "--report", str(out / "d.html")],
        ["inspect", str(out / "model"), "--report", str(out / "d.html")],
        ["filter", str(source), "-o", str(out / "a.pth")],
    ]
    process = [sys.executable, "-c", OTHER_SYSTEM, json.dumps(commands)]
    done = subprocess.run(process, capture_output=True, check=False, text=True)
    *codes, last = json.loads(done.stdout.splitlines()[-1])
    assert (codes, last) == ([0] * len(codes), 2), done.stderr
    assert done.stderr.startswith(f"error: {out / 'a.pth'} exists")
    assert names(out) == ["a.pth", "a.safetensors", "b.pth", "c.safetensors", "d.html", "d.pth", "fresh", "model"]
    assert weights(out / "model") == weights(out / "fresh")
    assert has_others(out / "model")
    for key, tensor in torch.load(source).items():
        assert torch.equal(torch.load(out / "a.pth")[key], tensor)
        assert torch.equal(load_file(out / "c.safetensors")[key], tensor)
