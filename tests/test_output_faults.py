"""Whatever happens while an output is written: the old file complete, the new one complete, or nothing; no strays."""

from __future__ import annotations

import errno
import os
import random
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from writing import apply

from ckptool.commands.filter import plan_filter
from ckptool.core.errors import CkptError, OutputError, PlanError, UnreadableError
from ckptool.engine.apply import Written
from ckptool.formats.opening import open_checkpoint
from ckptool.storage.staging import clear_stages

ROWS = 200_000  # 3.2 MB of float32: several blocks, done in no time


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An input in a folder of its own."""
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / "in.pth"
    torch.save({"w": torch.randn(ROWS, 4), "t": torch.randn(60, 40).t(), "n": torch.arange(5), "e": 3}, path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for outputs."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def write(source: Path, target: Path, *, dtype: str | None = None, **options: Any) -> Written:
    return apply(plan_filter(open_checkpoint(source), dtype=dtype, only_weights=True), target, **options)


def names(folder: Path) -> list[str]:
    """What lies in a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


def content(path: Path) -> dict[str, bytes]:
    """The files of an output by name."""
    if path.is_dir():
        return {child.name: child.read_bytes() for child in sorted(path.iterdir())}
    return {path.name: path.read_bytes()}


# --- outputs that are refused, with nothing written


def refused(source: Path, target: Path, match: str, **options: Any) -> None:
    before = names(target.parent) if target.parent.is_dir() else None
    with pytest.raises(OutputError, match=match) as error:
        write(source, target, **options)
    assert error.value.path is not None
    if before is not None:
        assert names(target.parent) == before


def test_existing_output_needs_force(source: Path, out: Path) -> None:
    target = out / "a.pth"
    target.write_bytes(b"old")
    refused(source, target, "exists")
    assert target.read_bytes() == b"old"
    write(source, target, force=True)
    assert torch.load(target)["w"].shape == (ROWS, 4)
    assert names(out) == ["a.pth"]


@pytest.mark.parametrize("way", ["path", "spelling", "symlink", "hardlink", "folder link"])
def test_output_that_is_an_input(source: Path, out: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = source.read_bytes()
    link = out / "link.pth"
    target = {
        "path": source,
        "spelling": source.parent / ".." / source.parent.name / source.name,
        "symlink": link,
        "hardlink": link,
        "folder link": out / "in" / source.name,
    }[way]
    if way == "symlink":
        link.symlink_to(source)
    elif way == "hardlink":
        link.hardlink_to(source)
    elif way == "folder link":
        (out / "in").symlink_to(source.parent)
    refused(source, target, "is also an input", force=True)
    monkeypatch.chdir(source.parent)
    refused(source, Path(source.name), "is also an input", force=True)
    assert source.read_bytes() == before


def test_output_folder_that_is_or_holds_an_input(source: Path, out: Path) -> None:
    shards = out / "shards"
    write(source, shards, max_shard=1_000_000)
    before = content(shards)
    refused(shards, shards, "also an input", force=True)
    refused(shards / "model.safetensors.index.json", shards, "holds the input", force=True)
    refused(source, source.parent, "holds the input", force=True)
    (out / "alias").symlink_to(shards)
    refused(shards, out / "alias", "also an input", force=True)
    assert content(shards) == before


def test_special_files(source: Path, out: Path) -> None:
    os.mkfifo(out / "pipe.pth")
    (out / "device.pth").symlink_to("/dev/full")
    (out / "nowhere.pth").symlink_to(out / "missing")
    (out / "loop.pth").symlink_to(out / "loop.pth")
    (out / "folder.pth").mkdir()
    (out / "file").write_bytes(b"not shards")
    for name, why in [
        ("pipe.pth", "is not a regular file"),
        ("device.pth", "is not a regular file"),
        ("nowhere.pth", "is a link to nothing"),
        ("loop.pth", "is a link to nothing"),
        ("folder.pth", "is a folder"),
        ("file", "is a file"),
        ("missing/a.pth", "does not exist"),
        ("file/a.pth", "does not exist"),
        ("model.gguf", "not a format that is written"),
    ]:
        for force in (False, True):
            with pytest.raises(OutputError, match=why):
                write(source, out / name, force=force)
    assert names(out) == ["device.pth", "file", "folder.pth", "loop.pth", "nowhere.pth", "pipe.pth"]
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_folder_with_other_files_needs_force_and_keeps_them(source: Path, out: Path) -> None:
    target = out / "model"
    target.mkdir()
    (target / "config.json").write_text("{}")
    refused(source, target, "exists")
    assert names(target) == ["config.json"]
    write(source, target, force=True)
    assert names(target) == ["config.json", "model.safetensors"]


def test_empty_folder_may_be_filled(source: Path, out: Path) -> None:
    target = out / "model"
    target.mkdir(mode=0o700)
    write(source, target)
    assert names(target) == ["model.safetensors"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert names(out) == ["model"]


def test_shards_replace_shards_and_leave_nothing_of_them(source: Path, out: Path) -> None:
    target = out / "model"
    write(source, target, max_shard=1_000_000)
    assert len(names(target)) > 2
    refused(source, target, "exists")
    write(source, target, force=True)
    assert names(target) == ["model.safetensors"]
    assert names(out) == ["model"]


def test_links_are_replaced_and_what_they_point_to_stays(source: Path, out: Path) -> None:
    (out / "old.pth").write_bytes(b"old")
    (out / "latest.pth").symlink_to("old.pth")
    write(source, out / "latest.pth", force=True)
    assert not (out / "latest.pth").is_symlink()
    assert (out / "old.pth").read_bytes() == b"old"
    write(source, out / "real", max_shard=1_000_000)
    before = content(out / "real")
    (out / "alias").symlink_to("real")
    write(source, out / "alias", force=True)
    assert names(out / "alias") == ["model.safetensors"]
    assert content(out / "real") == before
    assert names(out) == ["alias", "latest.pth", "old.pth", "real"]


def test_plan_that_leaves_nothing(source: Path, out: Path) -> None:
    plan = plan_filter(open_checkpoint(source), [("drop", "*")])
    with pytest.raises(PlanError, match="no tensor"):
        apply(plan, out / "a.pth")
    assert names(out) == []


@pytest.mark.parametrize("name", ["x" * 251 + ".pth", "é" * 125 + ".pth", "x" * 255])
def test_longest_names(source: Path, out: Path, name: str) -> None:
    assert 250 < len(name.encode()) <= 255
    write(source, out / name)
    write(source, out / name, force=True)
    assert names(out) == [name]
    refused(source, out / ("x" * 300 + ".pth"), "name is too long")


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_folder_that_may_not_be_written_to(source: Path, out: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def guarded(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_CREAT:  # as root nothing else is refused
            raise OSError(code, os.strerror(code), str(path))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", guarded)
    refused(source, out / "a.pth", "read-only" if code == errno.EROFS else "may not be written to")


# --- modes


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_modes_follow_the_umask(source: Path, out: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write(source, out / "a.pth")
        write(source, out / "a.safetensors")
        write(source, out / "shards", max_shard=1_000_000)
    finally:
        os.umask(before)
    for path in out.rglob("*"):
        whole = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == whole & ~mask, path


def test_mode_of_a_replaced_file_is_kept(source: Path, out: Path) -> None:
    for mode in (0o600, 0o640, 0o444, 0o664):
        target = out / f"{mode:o}.pth"
        target.write_bytes(b"old")
        target.chmod(mode)
        write(source, target, force=True)
        assert stat.S_IMODE(target.stat().st_mode) == mode


# --- the system refuses in the middle

CALLS = ["open", "pwrite", "ftruncate", "fsync", "replace", "rename", "mkdir", "copy_file_range", "preadv", "fchmod"]
CALLS += ["link", "rmdir", "listdir"]


class Sabotage:
    """Lets the k-th of some system calls fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        self.code = code
        self.fails_at = 0
        self.count = 0
        self.lock = threading.Lock()
        for name in CALLS:
            monkeypatch.setattr(os, name, self.wrapped(name, getattr(os, name)))

    def wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            with self.lock:
                self.count += 1
                fails = self.count == self.fails_at
            if fails:
                raise OSError(self.code, os.strerror(self.code), name)
            return real(*args, **named)

        return call

    def start(self, fails_at: int) -> None:
        self.count, self.fails_at = 0, fails_at

    def stop(self) -> int:
        """How many calls there were."""
        self.fails_at = 0
        return self.count


def put(path: Path, files: dict[str, bytes] | None, is_folder: bool) -> None:
    """Let exactly this output be there."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if files is not None:
        folder = path if is_folder else path.parent
        folder.mkdir(exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "shards"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("exists", [False, True])
def test_every_system_call_fails_once(
    source: Path, out: Path, name: str, code: int, exists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, is_folder = out / name, name == "shards"
    options: dict[str, Any] = {"force": True, "max_shard": 2_000_000 if is_folder else None}
    write(source, target, **options)
    new = content(target)
    write(source, target, dtype="bf16", **options)
    old = content(target) if exists else None
    plan = plan_filter(open_checkpoint(source), only_weights=True)
    before = source.read_bytes()
    said: set[str] = set()
    sabotage = Sabotage(monkeypatch, code)
    for number in range(1, 500):
        put(target, old, is_folder)
        sabotage.start(number)
        try:
            apply(plan, target, **options)
        except CkptError as error:
            done = sabotage.stop()
            message, hint = error.message, error.hint or ""
        else:
            done = sabotage.stop()
            message = hint = ""
        is_written = not message or "is written" in message
        assert (content(target) if target.exists() else None) == (new if is_written else old), (number, message)
        strays = [stray for stray in names(out) if stray != name]
        if is_written:  # what of the stage could not be removed, the next run removes
            clear_stages(target)
            assert names(out) == [name], number
        else:  # files that are finished are kept, and named
            assert len(strays) == ("finished" in hint), (number, message)
            assert all(stray in hint for stray in strays)
        for stray in strays:
            shutil.rmtree(out / stray, ignore_errors=True)
        said.add(message)
        if done < number:
            break
    assert done < number > 10
    assert any("cannot be written: " in message for message in said)
    assert any("is written, but the disk did not confirm" in message for message in said)
    assert source.read_bytes() == before


def test_full_disk(source: Path, out: Path) -> None:
    disk = out / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a filesystem can be mounted by root only")
    try:
        (disk / "a.pth").write_bytes(b"old")
        refused(source, disk / "a.pth", "no space left on the device", force=True)
        refused(source, disk / "shards", "no space left on the device", max_shard=2_000_000)
        assert content(disk) == {"a.pth": b"old"}
        command = ["mount", "-o", "remount,ro", str(disk)]
        if not subprocess.run(command, capture_output=True, check=False).returncode:
            refused(source, disk / "a.pth", "the file system is read-only", force=True)
            refused(source, disk / "b.pth", "the file system is read-only")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_file_size_limit(source: Path, out: Path) -> None:
    (out / "a.pth").write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        refused(source, out / "a.pth", "larger than allowed", force=True)
        refused(source, out / "shards", "larger than allowed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert content(out) == {"a.pth": b"old"}


def test_few_file_descriptors(source: Path, out: Path) -> None:
    write(source, out / "shards", max_shard=100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 17, hard))
    try:
        write(out / "shards", out / "a.pth")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert torch.load(out / "a.pth")["n"].tolist() == [0, 1, 2, 3, 4]


# --- inputs that change


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def truncated(path: Path) -> None:
    os.truncate(path, 100_000)


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def overwritten(path: Path) -> None:
    time.sleep(0.02)  # a file's time has a resolution
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"other")


@pytest.mark.parametrize("change", [replaced, truncated, grown, overwritten, Path.unlink])
@pytest.mark.parametrize("dtype", [None, "bf16"])
def test_input_changes_during_the_run(
    source: Path, out: Path, change: Callable[[Path], object], dtype: str | None
) -> None:
    (out / "a.pth").write_bytes(b"old")
    changed: list[bool] = []

    def progress(done: int, total: int) -> None:
        if not changed:
            changed.append(True)
            change(source)

    with pytest.raises(UnreadableError):
        write(source, out / "a.pth", dtype=dtype, force=True, progress=progress)
    assert changed
    assert content(out) == {"a.pth": b"old"}


@pytest.mark.parametrize("change", [truncated, grown, Path.unlink])
def test_input_changes_before_the_run(source: Path, out: Path, change: Callable[[Path], object]) -> None:
    plan = plan_filter(open_checkpoint(source), only_weights=True)
    change(source)
    with pytest.raises(UnreadableError, match=r"changed after it was opened|is not there any more"):
        apply(plan, out / "a.pth")
    assert names(out) == []


def test_progress_that_fails_stops_the_run(source: Path, out: Path) -> None:
    def progress(done: int, total: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(source, out / "a.pth", progress=progress)
    assert names(out) == []


# --- several writers, and kills


def test_output_that_comes_meanwhile_is_not_overwritten(source: Path, out: Path) -> None:
    for name in ("a.pth", "shards"):
        target = out / name

        def progress(done: int, total: int, target: Path = target) -> None:
            if not target.exists():
                write(source, target, dtype="bf16")

        with pytest.raises(OutputError, match="was created while ckptool was running"):
            write(source, target, progress=progress)
        assert open_checkpoint(target)["w"].dtype == "bfloat16"
    assert names(out) == ["a.pth", "shards"]


def test_two_writers_and_a_reader(source: Path, out: Path) -> None:
    target = out / "a.pth"
    write(source, target)
    valid = {target.read_bytes()}
    write(source, target, dtype="bf16", force=True)
    valid.add(target.read_bytes())
    ends = time.monotonic() + 1.5
    failures: list[BaseException] = []

    def writer(dtype: str | None) -> None:
        try:
            while time.monotonic() < ends:
                write(source, target, dtype=dtype, force=True)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=writer, args=(dtype,)) for dtype in (None, "bf16")]
    for thread in threads:
        thread.start()
    reads = 0
    while time.monotonic() < ends:
        assert target.read_bytes() in valid
        reads += 1
    for thread in threads:
        thread.join()
    assert not failures
    assert reads > 1
    assert names(out) == ["a.pth"]


WRITE = """
import sys
from pathlib import Path
from ckptool.formats.opening import open_checkpoint
from ckptool.storage.staging import clear_stages
from ckptool.api.plan import Plan
apply = lambda plan, out, **options: Plan.of(plan).apply(out, **options)
from ckptool.commands.filter import plan_filter
options = {"max_shard": 4_000_000} if "." not in sys.argv[2] else {}
plan = plan_filter(open_checkpoint(sys.argv[1]), dtype=sys.argv[3] if len(sys.argv) > 3 else None)
print("go", flush=True)
apply(plan, sys.argv[2], force=True, **options)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An input of 20 MB."""
    path = tmp_path_factory.mktemp("large") / "in.pth"
    torch.save({f"{i}.weight": torch.randn(1000, 250) for i in range(20)}, path)
    yield path
    path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.pth", "shards"])
def test_kill_at_any_moment(large: Path, out: Path, name: str) -> None:
    target = out / name
    arguments = [sys.executable, "-c", WRITE, str(large), str(target)]
    subprocess.run(arguments, check=True, capture_output=True)
    if name == "shards":
        (target / "config.json").write_bytes(b"{}")
    new = content(target)
    subprocess.run([*arguments, "bf16"], check=True, capture_output=True)
    old = content(target)
    chance = random.Random(3)
    killed = 0
    for number in range(15):
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        time.sleep(chance.uniform(0, 0.08))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
        assert content(target) in (old, new), number
        if content(target) == new:  # what it replaced may still be there: the next run settles that first
            clear_stages(target)
        put(target, old, name == "shards")
        for stray in names(out):
            assert stray == name or re.fullmatch(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}\.tmp", stray)
    assert killed > 5
    subprocess.run(arguments, check=True, capture_output=True)
    assert content(target) == new
    assert names(out) == [name]


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=lambda value: str(value),
)
def test_signals_leave_nothing(large: Path, out: Path, number: signal.Signals, code: int) -> None:
    arguments = ["filter", str(large), "--dtype", "f16", "-o", str(out / "a.pth")]
    process = subprocess.Popen(
        [sys.executable, "-m", "ckptool", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 20
    while not names(out) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.0005)
    assert names(out)[0].endswith(".tmp")
    process.send_signal(number)
    said = process.communicate()[1].decode()
    assert (process.returncode, names(out)) == (code, [])
    assert "Traceback" not in said


def test_order_of_flushes_and_rename(source: Path, out: Path, tmp_path: Path) -> None:
    strace = shutil.which("strace")
    log = tmp_path / "log"
    if strace is None or subprocess.run([strace, "-o", str(log), "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not here, or may not trace")
    for name in ("a.pth", "shards"):
        command = [sys.executable, "-c", WRITE, str(source), str(out / name)]
        tracing = [strace, "-f", "-y", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2", "-o", str(log)]
        subprocess.run([*tracing, *command], check=True, capture_output=True)
        # a record of a finished shard gets its name inside the stage
        lines = [line for line in log.read_text().splitlines() if str(out) in line and ".tmp/done/" not in line]
        calls = [re.search(r"(fsync|rename)\w*\(", line) for line in lines]
        kinds = [match[1] for match in calls if match]
        assert kinds.count("rename") == 1
        at = kinds.index("rename")
        assert at > 0
        assert f"{name}." in lines[at - 1]  # the staged file, or the staged folder
        assert kinds[at + 1 :] == ["fsync"]
        assert f"<{out}>" in lines[at + 1]
        if name == "shards":
            assert lines[at - 2].count(".safetensors") == 1
