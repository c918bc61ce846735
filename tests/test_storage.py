"""Where bytes come from: only `storage` touches the system, and it needs nothing that only POSIX has."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from ckptool.core.bytes import ByteSource, Folder
from ckptool.core.errors import MissingError, UnreadableError, UsageError
from ckptool.storage import local, system
from ckptool.storage.local import LocalFile, LocalFolder
from ckptool.storage.locate import locate, locate_file, locate_folder
from ckptool.storage.sink import ByteSink

PACKAGE = ROOT / "ckptool"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE / "storage")
SYSTEM = {"os", "io", "mmap", "shutil", "tempfile", "glob", "fcntl", "socket", "urllib", "http", "signal", "subprocess"}
PURE = {"urllib.parse"}
"""What belongs to such a module and does nothing but text."""

EXCEPTIONS = {
    "core/regexes.py": ["subprocess"],  # the worker that a regex can be stopped in
    "cli/git_driver.py": ["subprocess"],  # it asks git
}
"""What may be used outside of `storage` all the same. The standard streams and `importlib.resources` always may."""


def touches(tree: ast.Module) -> list[str]:
    """What a module does with the system that only `storage` may do."""
    found = []
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    ours = [
        node for node in tree.body if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ckptool.api")
    ]
    own |= {alias.name for node in ours for alias in node.names}  # `ckptool.open`
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in {*SYSTEM, "pathlib"}]
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            is_system = str(node.module).split(".")[0] in SYSTEM and node.module not in PURE
            if is_system or (node.module == "pathlib" and not set(names) <= {"PurePath", "PurePosixPath"}):
                found.append(f"from {node.module} import {', '.join(names)}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"open"} - own:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_storage_touches_the_system(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    assert touches(ast.parse(path.read_text(encoding="utf-8"))) == EXCEPTIONS.get(name, [])


def test_the_rule_sees_every_way_around_it() -> None:
    ways = ["import os", "import os.path", "from os import stat", "import io", "from pathlib import Path", "open('x')"]
    ways += ["import subprocess", "def f():\n    open(1)", "from urllib.request import urlopen", "import urllib.parse"]
    ways += ["import pathlib", "from pathlib import Path, PurePath", "def f():\n    import mmap, shutil"]
    assert all(touches(ast.parse(way)) for way in ways)
    fine = "from pathlib import PurePath\nself.open(x)\nsource.open()\nimport importlib.resources\n"
    fine += "from urllib.parse import quote\ndef open(path): ...\nopen(2)\nsys.stdout.write('')"
    assert touches(ast.parse(fine)) == []


# --- a system without POSIX

AS_ON_WINDOWS = """
import os, signal, sys
from pathlib import Path

for name in (
    "pread preadv pwrite pwritev readv writev copy_file_range sendfile splice fchmod fchown chown lchown mkfifo mknod"
    " O_NONBLOCK O_CLOEXEC O_DIRECTORY O_NOCTTY O_NOFOLLOW O_TMPFILE posix_fadvise posix_fallocate statvfs fork"
    " getuid geteuid getgid getppid killpg setsid sync fdatasync"
).split():
    if hasattr(os, name):
        delattr(os, name)
for name in "SIGHUP SIGKILL SIGALRM SIGUSR1 SIGUSR2 SIGPIPE pthread_sigmask pthread_kill sigwait alarm".split():
    if hasattr(signal, name):
        delattr(signal, name)
sys.modules["fcntl"] = sys.modules["resource"] = None


def held_open(path):
    real = os.path.realpath(path)
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    return any(os.path.realpath(link) == real for link in links)


def refuses(name, real):
    def call(path, *rest, **named):
        for each in (path, *(one for one in rest if isinstance(one, (str, os.PathLike)))):
            if name == "open":
                refused = os.path.isdir(each)
            else:
                refused = os.path.isfile(each) and held_open(each)
            if refused:
                raise PermissionError(13, "Permission denied", str(each))
        return real(path, *rest, **named)

    return call


for name in ("open", "replace", "rename", "unlink", "remove"):
    setattr(os, name, refuses(name, getattr(os, name)))

from ckptool.cli.app import run

sys.exit(int(run(sys.argv[1:])))
"""

READING = {
    "inspect": ["inspect", "resnet18.pth", "--stats"],
    "inspect of shards": ["inspect", "shards", "--stats", "--json"],
    "diff": ["diff", "resnet18.pth", "tuned.safetensors", "--json"],
    "check": ["check", "."],
    "filter": ["filter", "training.ckpt", "--drop", "module.fc.*"],
    "remap": ["remap", "vit-hf.safetensors", "-r", "strip-wrappers", "--json"],
    "merge": ["merge", "resnet18.pth", "shards", "--method", "linear"],
}


@pytest.mark.parametrize("command", READING)
def test_commands_that_read_work_without_posix(command: str, fixtures: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    done = [
        subprocess.run(
            [sys.executable, *start, *READING[command]],
            cwd=fixtures, env=environment, capture_output=True, text=True, check=False,
        )
        for start in (["-c", AS_ON_WINDOWS], ["-m", "ckptool"])
    ]  # fmt: skip
    there, here = ((each.returncode, each.stdout, each.stderr) for each in done)
    assert there == here
    assert there[1]


WRITING = {
    "filter": ["filter", "training.ckpt", "--drop", "module.fc.*", "--drop-optimizer", "-o", "out.pth"],
    "filter to safetensors": ["filter", "resnet18.pth", "--dtype", "bf16", "-o", "out.safetensors"],
    "filter to a folder": ["filter", "shards", "--max-shard", "20kB", "-o", "out"],
    "remap": ["remap", "resnet18.pth", "-r", "fc. -> head.", "-o", "out.pth"],
    "merge": ["merge", "resnet18.pth", "shards", "--method", "linear", "-o", "out.safetensors"],
}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("command", WRITING)
def test_commands_that_write_work_without_posix(command: str, force: bool, fixtures: Path) -> None:
    """A new output, and one in the place of another; both are what any system writes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    arguments, out = WRITING[command], fixtures / WRITING[command][-1]
    written = []
    for start in (["-c", AS_ON_WINDOWS], ["-m", "ckptool"]):
        if force:
            _put_an_old_output(out)
        done = subprocess.run(
            [sys.executable, *start, *arguments, *(["--force"] if force else [])],
            cwd=fixtures, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        files = sorted(out.iterdir()) if out.is_dir() else [out]
        written.append({file.name: file.read_bytes() for file in files})
        assert not [path for path in fixtures.iterdir() if path.name.startswith(".")], "a stage is left"
        for file in files:
            file.unlink()
        if out.is_dir():
            out.rmdir()
    assert written[0] == written[1]


def _put_an_old_output(out: Path) -> None:
    if out.suffix:
        out.write_bytes(b"old")
    else:
        out.mkdir()
        (out / "model.safetensors").write_bytes(b"old")


@pytest.mark.parametrize("missing", [[], ["preadv", "pread", "pwrite", "copy_file_range"]])
def test_bytes_are_read_and_written_at_offsets(
    missing: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in missing:
        monkeypatch.delattr(os, name)
    data = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(data)
    sink = ByteSink.create(tmp_path / "y")
    target = sink.descriptor
    with LocalFile.at(tmp_path / "x").open() as file:
        buffer = memoryview(bytearray(1000))
        file.read_into(77, buffer)
        assert buffer == data[77:1077] == file.read(77, 1000)
        system.resize(target, len(data))
        system.write_all(target, data[500:], 500)
        done = file.copy_to(target, 0, 0, 500, lambda nbytes: None)
        system.write_all(target, data[done:500], done)
        assert (done == 0) >= bool(missing)
        with pytest.raises(UnreadableError, match="ends before byte 1,280,001"):
            file.read(1, len(data))
    sink.close()
    assert (tmp_path / "y").read_bytes() == data


# --- places


def test_a_path_leads_to_a_file_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_bytes(b"12345")
    file, folder = locate(tmp_path / "a"), locate(str(tmp_path))
    assert isinstance(folder, Folder) and not isinstance(file, Folder)
    assert [tuple(entry) for entry in folder.entries()] == [("a", False), ("b", True)]
    assert (file.size, file.name, file.path) == (5, "a", tmp_path / "a")
    assert folder.open("a") == file == locate_file(tmp_path / "a")
    assert file.folder == locate_folder(tmp_path / "a") == locate_folder(tmp_path) == folder == LocalFolder(tmp_path)
    assert folder.folder("b") == LocalFolder(tmp_path / "b")
    with pytest.raises(MissingError, match="c does not exist"):
        folder.open("c")
    with pytest.raises(UnreadableError, match="b is a folder, not a file"):
        folder.open("b")
    with pytest.raises(UnreadableError, match="cannot be listed"):
        folder.folder("c").entries()


def test_a_link_is_followed_and_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"12345")
    (tmp_path / "model.safetensors").symlink_to("blob")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    source: ByteSource = locate_file(tmp_path / "model.safetensors")
    assert (source.name, source.size) == ("model.safetensors", 5)
    assert [tuple(entry) for entry in LocalFolder(tmp_path).entries()][1:] == [
        ("gone", False), ("loop", False), ("model.safetensors", False),
    ]  # fmt: skip
    with pytest.raises(MissingError):
        LocalFolder(tmp_path).open("gone")
    with pytest.raises(UnreadableError, match="a loop of symbolic links"):
        locate(tmp_path / "loop")


@pytest.mark.parametrize("address", ["https://user:secret@host/x?sig=secret", "s3://key:secret@bucket/a#secret@b?c"])
def test_addresses_are_refused_without_their_secrets(address: str) -> None:
    with pytest.raises(UsageError, match="is an address") as refused:
        locate(address)
    assert "user" not in refused.value.message and "secret@h" not in refused.value.message
    assert "sig" not in refused.value.message


def test_a_source_can_be_anything_that_has_bytes(tmp_path: Path) -> None:
    """A kind of place that no format has heard of is read like a file."""
    from ckptool.formats.registry import open_file

    torch.save({"w": torch.ones(3)}, tmp_path / "w.pth")
    kept = locate_file(tmp_path / "w.pth")

    class Elsewhere:
        path, name, size, identity = kept.path, kept.name, kept.size, ("etag", 1)
        folder = kept.folder

        def open(self) -> object:
            return kept.open()

        def check(self) -> None:
            kept.check()

    (storage,) = {piece.storage for piece in open_file(Elsewhere())["w"].pieces}  # type: ignore[arg-type]
    assert storage.file.identity == ("etag", 1)
    assert local.Identity.of((tmp_path / "w.pth").stat()) == kept.identity
