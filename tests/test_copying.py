"""Moving bytes from file to file, also where the filesystem shares blocks."""

from __future__ import annotations

import errno
import os
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from writing import apply

from ckptool.commands.filter import plan_filter
from ckptool.core.errors import UnreadableError
from ckptool.engine.rounding import Rounding
from ckptool.formats.opening import open_checkpoint
from ckptool.storage import local
from ckptool.storage.copying import copy_range
from ckptool.storage.locate import locate_file
from ckptool.storage.system import shares_blocks


def copied(folder: Path, data: bytes, offset: int, at: int, nbytes: int) -> bytes:
    """What `copy_range` put into a file of ones."""
    (folder / "source").write_bytes(data)
    (folder / "target").write_bytes(b"\1" * (at + nbytes + 10))
    done: list[int] = []
    with locate_file(folder / "source").open() as source, (folder / "target").open("r+b") as target:
        copy_range(source, offset, target.fileno(), at, nbytes, done.append)
    assert sum(done) == nbytes
    return (folder / "target").read_bytes()


@pytest.mark.parametrize(("offset", "at"), [(0, 0), (64, 4160), (1, 2), (4095, 8191)])
@pytest.mark.parametrize("nbytes", [0, 1, 4096, 1 << 20, (3 << 20) + 17])
def test_bytes_arrive_and_nothing_else_changes(tmp_path: Path, offset: int, at: int, nbytes: int) -> None:
    data = random.Random(nbytes).randbytes(offset + nbytes + 5)
    expected = b"\1" * at + data[offset : offset + nbytes] + b"\1" * 10
    assert copied(tmp_path, data, offset, at, nbytes) == expected


@pytest.mark.parametrize("refusal", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, 0])
@pytest.mark.parametrize("after", [0, 1])
def test_a_kernel_that_does_not_copy_or_stops_is_no_harm(
    tmp_path: Path, refusal: int, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.copy_file_range, []

    def refuse(source: int, target: int, nbytes: int, offset: int, at: int) -> int:
        calls.append(nbytes)
        if len(calls) <= after:
            return real(source, target, 4096, offset, at)
        if refusal:
            raise OSError(refusal, "not here")
        return 0

    monkeypatch.setattr(os, "copy_file_range", refuse)
    data = random.Random(1).randbytes((2 << 20) + 105)
    assert copied(tmp_path, data, 64, 4160, 2 << 20) == b"\1" * 4160 + data[64 : 64 + (2 << 20)] + b"\1" * 10
    assert len(calls) == after + 1


def test_other_refusals_of_the_kernel_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match="no space left"):
        copied(tmp_path, bytes(2 << 20), 0, 0, 2 << 20)


def test_blocks_of_a_real_filesystem_are_shared(tmp_path: Path) -> None:
    """On btrfs or XFS, made in a file and mounted; skipped where that cannot be."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    for make in (["mkfs.btrfs", "-q"], ["mkfs.xfs", "-q"]):
        try:
            subprocess.run([*make, str(image)], check=True, capture_output=True)
            subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        break
    else:
        pytest.skip("no copy-on-write filesystem can be mounted here")
    try:
        torch.save({"a": torch.randn(20 << 20), "b": torch.ones(3)}, disk / "in.pth")
        os.sync()
        before = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        apply(plan_filter(open_checkpoint(disk / "in.pth"), [("drop", "b")]), disk / "out.pth")
        os.sync()
        assert before - os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize < 20 << 20
        assert torch.equal(torch.load(disk / "out.pth")["a"], torch.load(disk / "in.pth")["a"])
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_source_that_ends_early(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="ends early: 15 bytes are needed, the file has 10"):
        copied(tmp_path, b"x" * 10, 5, 0, 10)


# --- casts say how far they rounded


def cast(folder: Path, value: dict[str, torch.Tensor], dtype: str) -> dict[str, float]:
    torch.save(value, folder / "in.pth")
    plan = plan_filter(open_checkpoint(folder / "in.pth"), dtype=dtype)
    return dict(apply(plan, folder / "out.pth", force=True).rounding)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn"])
def test_worst_rounding_is_that_of_torch(tmp_path: Path, dtype: str) -> None:
    torch.manual_seed(0)
    value = {"w": torch.randn(700, 500), "t": torch.rand(40, 30).t() + 1, "n": torch.arange(5), "z": torch.zeros(4)}
    found = cast(tmp_path, value, dtype)
    assert list(found) == ["w", "t", "z"]
    assert found["z"] == 0
    for key in ("w", "t"):
        before = value[key].double()
        after = value[key].to(getattr(torch, dtype)).double()
        worst = ((after / before) - 1).abs()[before != 0].max().item()
        assert found[key] == pytest.approx(worst, rel=1e-3, abs=1e-7)


def test_overflow_underflow_and_what_is_not_finite(tmp_path: Path) -> None:
    value = {
        "over": torch.tensor([1.0, 1e6]),
        "under": torch.tensor([1.0, 1e-30]),
        "odd": torch.tensor([float("nan"), float("inf"), 0.0, 2.0]),
        "empty": torch.zeros(0),
        "same": torch.ones(3, dtype=torch.float16),
        "double": torch.tensor([1 + 2.0**-20], dtype=torch.float64),
    }
    found = cast(tmp_path, value, "float16")
    assert found["over"] == float("inf")
    assert found["under"] == 1.0
    assert found["odd"] == found.get("empty", 0.0) == 0.0
    assert "same" not in found
    assert found["double"] == pytest.approx(2.0**-20)


def test_exact_casts_say_nothing(tmp_path: Path) -> None:
    assert cast(tmp_path, {"w": torch.randn(5).bfloat16(), "h": torch.randn(5).half()}, "float32") == {}
    assert cast(tmp_path, {"w": torch.randn(5)}, "float64") == {}


def test_rounding_of_blocks_is_that_of_the_whole() -> None:
    before = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    after = before.astype(np.float16)
    whole, parts = Rounding(), Rounding()
    whole.see(before, after)
    for start in range(0, 1000, 64):
        parts.see(before[start : start + 64], after[start : start + 64])
    assert whole.worst == parts.worst > 0


def big_zip(folder: Path, nbytes: int = 6 << 20) -> Path:
    torch.save({"w": torch.arange(nbytes // 4, dtype=torch.int32), "v": torch.ones(nbytes // 4)}, folder / "in.pth")
    return folder / "in.pth"


def test_a_copy_whose_checksum_is_verified_reads_each_byte_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, read = big_zip(tmp_path), []
    real_read, real_copy = local.read_at, local.copy_in_kernel
    monkeypatch.setattr(local, "read_at", lambda fd, buffer, at: read.append(len(buffer)) or real_read(fd, buffer, at))
    monkeypatch.setattr(
        local, "copy_in_kernel", lambda *rest: read.append(0 if is_shared(tmp_path) else rest[4]) or real_copy(*rest)
    )
    apply(plan_filter(open_checkpoint(source), []), tmp_path / "out.pth")
    apply(plan_filter(open_checkpoint(source), []), tmp_path / "out.safetensors")
    assert 2 * (12 << 20) <= sum(read) < 2.1 * (12 << 20)


def is_shared(folder: Path) -> bool:
    with (folder / "shared").open("w+b") as file:
        return shares_blocks(file.fileno())


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system cannot be told")
@pytest.mark.parametrize("name", ["out.pth", "out.safetensors"])
def test_the_disk_is_told_to_write_while_more_is_copied(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    real = os.posix_fadvise

    def tell(descriptor: int, offset: int, nbytes: int, advice: int) -> None:
        told.append((offset, nbytes))
        real(descriptor, offset, nbytes, advice)

    monkeypatch.setattr(os, "posix_fadvise", tell)
    done = apply(plan_filter(open_checkpoint(big_zip(tmp_path)), []), tmp_path / name)
    assert (12 << 20) * 0.8 <= sum(nbytes for _, nbytes in told) <= done.nbytes
    assert len({offset for offset, _ in told}) == len(told)
