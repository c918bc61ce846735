"""NaN, Inf and constants by bit patterns: right for every dtype and layout, against torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import ckptool
from ckptool.commands.checks.run import run_checks
from ckptool.commands.checks.values import Measure, Wanted, measure

ALL = Wanted(nonfinite=True, constant=True, digest=False)
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
SMALL = [
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
]


def measured(state: dict[str, torch.Tensor], path: Path, wanted: Wanted = ALL) -> dict[str, Measure]:
    torch.save(state, path)
    return measure(ckptool.open(path), wanted)


def counts(tensor: torch.Tensor) -> tuple[int, int]:
    """NaN and Inf as torch counts them."""
    wide = tensor if tensor.dtype.is_complex else tensor.double()
    nan = wide.isnan()
    return int(nan.sum()), int((wide.isinf() & ~nan).sum())


@pytest.mark.parametrize("dtype", [*SMALL, torch.float16, torch.bfloat16], ids=str)
def test_every_bit_pattern_of_the_small_floats(dtype: torch.dtype, tmp_path: Path) -> None:
    bits = 8 * torch.empty(0, dtype=dtype).element_size()
    codes = torch.arange(1 << bits, dtype=torch.int32).to(torch.uint8 if bits == 8 else torch.uint16)
    values = codes.view(dtype)
    found = measured({"w": values, "finite": values[values.double().isfinite()]}, tmp_path / "w.pth")
    assert (found["w"].nan, found["w"].inf) == counts(values)
    assert found["w"].nan > 0
    assert (found["finite"].nan, found["finite"].inf) == (0, 0)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (300, 400), (3, 70_001)], ids=str)
def test_one_of_each_at_the_edges(dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path) -> None:
    info = torch.finfo(dtype)
    clean = torch.randn(shape).to(dtype)
    clean.view(-1)[-1] = info.max
    clean.view(-1)[0] = info.smallest_normal
    dirty = clean.clone()
    dirty.view(-1)[-1] = -torch.inf
    worse = clean.clone()
    worse.view(-1)[0] = torch.nan
    found = measured({"clean": clean, "dirty": dirty, "worse": worse}, tmp_path / "w.pth")
    assert (found["clean"].nan, found["clean"].inf) == (0, 0)
    assert (found["dirty"].nan, found["dirty"].inf) == (0, 1)
    assert (found["worse"].nan, found["worse"].inf) == (1, 0)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", [torch.complex32, torch.complex64, torch.complex128], ids=str)
def test_a_complex_element_counts_once(dtype: torch.dtype, tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    numbers = [
        complex(nan, nan),
        complex(nan, inf),
        complex(inf, inf),
        complex(1, -inf),
        complex(1, 2),
        complex(0, nan),
    ]
    tensor = torch.tensor(numbers).to(dtype)
    found = measured({"w": tensor, "c": tensor.clone().conj()}, tmp_path / "w.pth")
    assert (found["w"].nan, found["w"].inf) == (found["c"].nan, found["c"].inf) == (3, 2)
    found = measured({"n": tensor.conj().imag}, tmp_path / "n.pth")  # a negated view
    assert (found["n"].nan, found["n"].inf) == (2, 3)


def test_views_integers_and_other_layouts(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    base[1, 2] = torch.nan
    state = {
        "whole": base,
        "transposed": base.t(),
        "around": base[::2],
        "through": base[:, 2],
        "repeated": torch.tensor([[torch.inf], [1.0]]).expand(2, 1000),
        "integers": torch.zeros(4, 4, dtype=torch.int64),
        "bools": torch.ones(4, 4, dtype=torch.bool),
        "sparse": torch.tensor([[0.0, torch.nan], [2.0, 0.0]]).to_sparse(),
        "meta": torch.empty(3, device="meta"),
        "empty": torch.empty(0, 3),
    }
    found = measured(state, tmp_path / "w.pth")
    assert {key: (each.nan, each.inf) for key, each in found.items()} == {
        "whole": (1, 0),
        "transposed": (1, 0),
        "around": (0, 0),
        "through": (1, 0),
        "repeated": (0, 1000),
        "sparse": (1, 0),
        "empty": (0, 0),
    }
    assert all(each.constant is None for each in found.values())


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.floats(width=32), min_size=1, max_size=40),
    dtype=st.sampled_from(FLOATS),
    repeat=st.sampled_from([1, 9000]),
)
def test_any_values(
    values: list[float], dtype: torch.dtype, repeat: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tensor = torch.tensor(values).to(dtype).repeat(repeat)
    (found,) = measured({"w": tensor}, tmp_path_factory.mktemp("w") / "w.pth").values()
    assert (found.nan, found.inf) == counts(tensor)
    size = tensor.element_size()
    raw = bytes(tensor.view(torch.uint8).tolist())
    same = raw == raw[:size] * len(tensor) or not tensor.double().abs().nan_to_num(1).any()
    assert (found.constant is not None) == (same and len(tensor) > 1)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.complex64, *SMALL[:4]], ids=str)
def test_constants(dtype: torch.dtype, tmp_path: Path) -> None:
    zero = torch.zeros(200_000).to(dtype)
    one = torch.ones(200_000).to(dtype)
    late = one.clone()
    late[-1] = 0
    late_zero = zero.clone()
    late_zero[150_000] = 1
    found = measured({"zero": zero, "one": one, "late": late, "late_zero": late_zero}, tmp_path / "w.pth")
    assert found["zero"].constant == bytes(zero.element_size())
    assert found["one"].constant is not None
    assert found["late"].constant is None and found["late_zero"].constant is None


def test_zeros_of_both_signs_are_zero(tmp_path: Path) -> None:
    found = measured({"w": torch.tensor([0.0, -0.0, 0.0]), "v": torch.tensor([-0.0, 0.0])}, tmp_path / "w.pth")
    assert found["w"].constant is not None and found["v"].constant is not None


def test_tensors_that_are_one_are_read_once(tmp_path: Path) -> None:
    weight = torch.full((10, 10), torch.nan)
    torch.save({"a": weight, "b": weight, "c": weight[0]}, tmp_path / "w.pth")
    steps: list[int] = []
    found = measure(ckptool.open(tmp_path / "w.pth"), ALL, 1, steps.append)
    assert sum(steps) == 400 + 40
    assert [found[key].nan for key in "abc"] == [100, 100, 10]


# ---------------------------------------------------------------------------------------------------- the rules


def test_nonfinite_names_tensors_and_counts(tmp_path: Path) -> None:
    one = torch.randn(20, 30)
    one[3, 4:7] = torch.nan
    save_file({"bad": one, "good": torch.randn(3, 3)}, tmp_path / "one.safetensors")
    save_file({"bad": one, "worse": torch.full((2, 2), torch.inf)}, tmp_path / "two.safetensors")
    first, second = run_checks(
        [tmp_path / "one.safetensors", tmp_path / "two.safetensors"], rules=["nonfinite"]
    ).findings
    assert (first.level, first.message, first.keys) == ("error", "3 NaN in bad (of 600)", ("bad",))
    assert second.message == "3 NaN and 4 Inf in 2 tensors"
    assert [" ".join(line.split()) for line in second.details] == ["bad f32[20,30] 3 NaN", "worse f32[2,2] 4 Inf"]


def test_dead_tells_zero_from_constant_and_leaves_starts_alone(tmp_path: Path) -> None:
    norm, conv = torch.nn.BatchNorm2d(8), torch.nn.Conv2d(3, 8, 3)
    torch.nn.init.zeros_(conv.bias)
    state = {**{f"bn.{key}": tensor for key, tensor in norm.state_dict().items()}, **conv.state_dict(prefix="conv.")}
    torch.save(state, tmp_path / "fresh.pth")
    assert run_checks([tmp_path / "fresh.pth"], rules=["dead"]).findings == ()
    state["bn.weight"] = torch.zeros(8)
    state["conv.weight"] = torch.full((8, 3, 3, 3), 0.25, dtype=torch.bfloat16)
    state["scale"] = torch.zeros(())
    torch.save(state, tmp_path / "dead.pth")
    (finding,) = run_checks([tmp_path / "dead.pth"], rules=["dead"]).findings
    assert (finding.level, finding.message) == ("warning", "2 tensors are constant, 1 of them zero")
    assert [" ".join(line.split()) for line in finding.details] == [
        "bn.weight f32[8] all 0",
        "conv.weight bf16[8,3,3,3] all 0.25",
    ]
    state["bn.weight"] = torch.randn(8)
    torch.save(state, tmp_path / "dead.pth")
    (finding,) = run_checks([tmp_path / "dead.pth"], rules=["dead"]).findings
    assert finding.message == "conv.weight is all 0.25"
