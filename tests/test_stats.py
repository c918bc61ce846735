"""Statistics against torch in float64."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import CkptError, UnreadableError
from ckptool.core.format import Format
from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.core.tensor import Piece, Storage, Tensor
from ckptool.engine.reading import Reader
from ckptool.storage.locate import locate_file
from ckptool.values.stats import BINS, Stats, all_stats, stats


def stored(path: Path, tensor: torch.Tensor, key: str = "w") -> Tensor:
    dense = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    path.write_bytes(dense)
    dtype = str(tensor.dtype).removeprefix("torch.")
    shape = tuple(tensor.shape)
    return Tensor(TensorSpec(key, dtype, shape), (Piece(Storage(locate_file(path), 0, len(dense)), 0, shape),))


def measured(tensor: Tensor) -> Stats:
    with Reader() as reader:
        return stats(tensor, reader)


def as_numbers(tensor: torch.Tensor) -> torch.Tensor:
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).flatten()


def check(found: Stats, tensor: torch.Tensor, rel: float = 1e-12) -> None:
    """Everything but the histogram's edges, as torch has it in float64."""
    numbers = as_numbers(tensor)
    x = numbers.to(torch.float32).to(torch.float64) if numbers.dtype.itemsize < 4 else numbers.to(torch.float64)
    finite = x[x.isfinite()]
    scale = float(finite.abs().max()) if len(finite) else 1.0
    assert found.nan == int(x.isnan().sum()) and found.inf == int(x.isinf().sum())
    assert found.zeros == int((x == 0).sum()) and found.elements == tensor.numel()
    assert sum(found.histogram) == len(finite) and len(found.histogram) == BINS
    if not len(finite):
        assert (found.mean, found.std, found.min, found.max) == (None, None, None, None)
        return
    assert found.mean == pytest.approx(float(finite.mean()), rel=rel, abs=rel * scale)
    assert found.std == pytest.approx(float(finite.std(correction=0)), rel=1e-9, abs=rel * scale)
    assert (found.min, found.max) == (float(finite.min()), float(finite.max()))
    expected, _ = np.histogram(finite.numpy(), BINS, (-scale, scale)) if scale else (np.zeros(BINS), None)
    if scale:
        off = np.abs(np.cumsum(found.histogram) - np.cumsum(expected))
        assert off.max() <= max(2, (finite.numpy() / scale * 12 % 1 == 0).sum())  # numbers on an edge


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "complex64", "complex128"])
def test_weights(tmp_path: Path, dtype: str) -> None:
    torch.manual_seed(0)
    weights = (torch.randn(300, 1001, dtype=torch.float64) * 0.02 + 0.001).to(getattr(torch, dtype))
    check(measured(stored(tmp_path / "x", weights)), weights)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.startswith("float8")])
def test_every_float8_pattern(tmp_path: Path, dtype: str) -> None:
    codes = torch.arange(256, dtype=torch.uint8).repeat(3)
    tensor = stored(tmp_path / "x", codes)
    found = measured(Tensor(TensorSpec("w", dtype, (768,)), tensor.pieces))
    check(found, codes.view(getattr(torch, dtype)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_any_bits(tmp_path: Path, dtype: str) -> None:
    """Every exponent, NaN, Inf: sums that overflow the dtype, and float64 itself."""
    kind = getattr(torch, dtype)
    bits = torch.from_numpy(np.frombuffer(np.random.default_rng(0).bytes(80_000), np.uint8).copy()).view(kind)
    found = measured(stored(tmp_path / "x", bits))
    x = bits.to(torch.float64).numpy()
    finite = x[np.isfinite(x)].astype(np.longdouble)
    assert found.nan == int(np.isnan(x).sum()) and found.inf == int(np.isinf(x).sum())
    assert found.mean == pytest.approx(float(finite.mean()), rel=1e-9)
    assert found.std == pytest.approx(float(finite.std()), rel=1e-9)
    assert (found.min, found.max) == (float(finite.min()), float(finite.max()))
    assert sum(found.histogram) == len(finite)


def test_float16_sums_do_not_overflow(tmp_path: Path) -> None:
    tensor = torch.full((100_000,), 60_000.0, dtype=torch.float16)
    found = measured(stored(tmp_path / "x", tensor))
    assert found.mean == float(tensor[0]) and found.std == 0 and found.histogram[-1] == 100_000


def test_a_mean_far_from_zero_does_not_eat_the_std(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensor = 1e8 + torch.randn(200_000, dtype=torch.float64)
    assert measured(stored(tmp_path / "x", tensor)).std == pytest.approx(float(tensor.std(correction=0)), rel=1e-9)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "bool", "uint16"])
def test_integers_apart_and_exact(tmp_path: Path, dtype: str) -> None:
    torch.manual_seed(0)
    numbers = torch.randint(0, 100, (1000,)).to(getattr(torch, dtype))
    found = measured(stored(tmp_path / "x", numbers))
    assert found.integer and type(found.min) is int and type(found.max) is int
    check(found, numbers.to(torch.int64) if dtype == "uint16" else numbers)
    if dtype == "int64":
        large = torch.tensor([2**62 + 1, -(2**63), 5])
        found = measured(stored(tmp_path / "y", large))
        assert (found.min, found.max) == (-(2**63), 2**62 + 1)


def test_nothing_to_count(tmp_path: Path) -> None:
    for tensor in (torch.zeros(0, 3), torch.tensor([math.nan, math.inf]), torch.tensor([math.nan]).bfloat16()):
        check(measured(stored(tmp_path / "x", tensor)), tensor)
    zeros = measured(stored(tmp_path / "x", torch.zeros(5)))
    assert (zeros.mean, zeros.std, zeros.zeros, zeros.histogram[BINS // 2]) == (0, 0, 5, 5)


def test_the_histogram_is_symmetric_about_zero(tmp_path: Path) -> None:
    found = measured(stored(tmp_path / "x", torch.tensor([-4.0, -1.0, 0.5, 4.0])))
    assert [i for i, n in enumerate(found.histogram) if n] == [0, 9, 13, 23]


def test_expanded_views_count_every_element(tmp_path: Path) -> None:
    base = stored(tmp_path / "x", torch.tensor([1.0, 2.0, math.nan, 0.0]))
    piece = Piece(base.pieces[0].storage, 0, (2**50, 4), (0, 1))
    found = measured(Tensor(TensorSpec("w", "float32", (2**50, 4)), (piece,)))
    assert (found.mean, found.nan, found.zeros, found.elements) == (1.0, 2**50, 2**50, 2**52)


def test_packed_floats(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes([0x21, 0x07]))  # 0.5, 1, 6 and half a byte of padding
    tensor = Tensor(
        TensorSpec("w", "float4_e2m1fn", (3,)), (Piece(Storage(locate_file(tmp_path / "x"), 0, 2), 0, (3,)),)
    )
    found = measured(tensor)
    assert (found.mean, found.max, found.zeros, found.elements) == (2.5, 6.0, 0, 3)


def test_memory_is_bounded(tmp_path: Path) -> None:
    tensor = stored(tmp_path / "x", torch.ones(10_000_000, dtype=torch.float32))
    tracemalloc.start()
    found = measured(tensor)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.mean == 1 and peak < 8 << 20


def test_many_tensors_in_threads_with_progress(tmp_path: Path) -> None:
    torch.manual_seed(0)
    values = {f"w{i}": torch.randn(1000 + i) for i in range(20)}
    tensors = {key: stored(tmp_path / key, value, key) for key, value in values.items()}
    tensors["special"] = Tensor(TensorSpec("special", "float32", (9,)), layout="meta")
    checkpoint = Checkpoint(tmp_path, Format("torch zip"), tensors)
    calls: list[tuple[int, int]] = []
    found = all_stats(checkpoint, list(tensors), threads=3, progress=lambda done, total: calls.append((done, total)))
    assert list(found) == list(values)
    for key, value in values.items():
        check(found[key], value)
    total = sum(tensor.nbytes for tensor in tensors.values())
    assert calls[-1] == (total, total) and [done for done, _ in calls] == sorted(done for done, _ in calls)
    with pytest.raises(CkptError, match="special is meta"), Reader() as reader:
        stats(tensors["special"], reader)


def test_an_error_in_a_thread_reaches_the_caller(tmp_path: Path) -> None:
    tensors = {f"w{i}": stored(tmp_path / f"{i}", torch.ones(100), f"w{i}") for i in range(8)}
    (tmp_path / "5").write_bytes(b"")
    with pytest.raises(UnreadableError, match="5 changed after it was opened"):
        all_stats(Checkpoint(tmp_path, Format("torch zip"), tensors), list(tensors))
