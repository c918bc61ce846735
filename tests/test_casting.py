"""Casts against torch bit by bit, and against exact fractions where torch rounds twice."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from writing import apply

from ckptool.commands.filter import plan_filter
from ckptool.commands.merging.mixing import mix
from ckptool.core.arrays import numpy_dtype
from ckptool.core.casting import UnfitError, cast
from ckptool.core.dtypes import DTYPES
from ckptool.core.spec import TensorSpec
from ckptool.engine.apply import Written
from ckptool.formats.opening import open_checkpoint
from ckptool.recipes.expression import Expression
from tests.console import runner

CASTABLE = [name for name, dtype in DTYPES.items() if dtype.is_castable]
NARROW = [name for name in CASTABLE if DTYPES[name].kind == "float" and DTYPES[name].bits <= 16]
PAIRS = [pair for pair in product(CASTABLE, CASTABLE) if pair[0] != pair[1] and DTYPES[pair[0]].bits <= 32]

pytestmark = [
    pytest.mark.filterwarnings("ignore:Casting complex values"),
    pytest.mark.filterwarnings("ignore:ComplexHalf support"),
]


def corner_floats() -> np.ndarray:
    """Powers of two and the midpoints of every narrower dtype, each with its neighbours; what is not finite."""
    powers = np.ldexp(np.float32(1), np.arange(-149, 128)).astype(np.float32)
    with np.errstate(over="ignore"):
        steps = np.concatenate([powers * np.float32(1 + k / 32) for k in range(64)])
    limits = np.float32([0, 464, 448, 480, 240, 248, 57344, 61440, 65504, 65519.996, 65520, 3.3895e38, 3.4028235e38])
    values = np.concatenate([steps, limits]).view(np.uint32)
    bits = np.concatenate([values, values + 1, values - 1])
    odd = np.array([0x7F800000, 0x7FC00000, 0x7F800001, 0xFF800000, 0xFFFFFFFF, 0x80000000, 1, 0x80000001], np.uint32)
    return np.concatenate([bits, bits ^ 0x80000000, odd]).view(np.float32)


def numbers(dtype: str) -> np.ndarray:
    """All numbers of a dtype of at most 16 bits; corner cases and random bits of a wider one."""
    nbytes = DTYPES[dtype].nbytes(1)
    rng = np.random.default_rng(nbytes)
    if dtype == "bool":
        codes = np.arange(2, dtype=np.uint8)
    elif nbytes <= 2:
        codes = np.arange(1 << (8 * nbytes), dtype=f"u{nbytes}")
    elif dtype == "complex32":
        codes = np.stack([rng.permutation(1 << 16), rng.permutation(1 << 16)], axis=1).astype(np.uint16)
    else:
        random = rng.integers(0, 1 << 32, 1 << 17, dtype=np.uint32)
        small = np.arange(1 << 16, dtype=np.uint32)
        around = np.uint32(1) << np.arange(32, dtype=np.uint32)
        codes = np.concatenate([random, random >> 12, small, around, around - 1, around + 1])
        codes = np.concatenate([codes, corner_floats().view(np.uint32)])
    return codes.reshape(-1).view(numpy_dtype(dtype))


def as_torch(array: np.ndarray, dtype: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(array.tobytes()), dtype=getattr(torch, dtype))


def as_numpy(tensor: torch.Tensor, dtype: str) -> np.ndarray:
    flat = tensor.contiguous().reshape(-1)
    parts = torch.view_as_real(flat) if tensor.is_complex() else flat
    return parts.view(torch.uint8).numpy().reshape(-1).view(numpy_dtype(dtype))


def same_bits(found: np.ndarray, expected: np.ndarray, dtype: str) -> np.ndarray:
    """Element by element; any NaN equals NaN."""
    known = DTYPES[dtype]
    if known.kind not in ("float", "complex"):
        return found == expected
    width = known.nbytes(1) // (2 if known.kind == "complex" else 1)
    part = numpy_dtype(f"float{8 * width}" if known.kind == "complex" else dtype)
    same = found.view(f"u{width}") == expected.view(f"u{width}")
    with np.errstate(invalid="ignore"):  # signalling NaN
        nan = [np.isnan(side.view(part).astype(np.float64)) for side in (found, expected)]
    return same | (nan[0] & nan[1])


def fitting(array: np.ndarray, source: str, dtype: str) -> np.ndarray:
    """True for numbers that an integer dtype can hold once their fraction is cut off."""
    if DTYPES[source].kind == "complex":
        array = array["real"]
    with np.errstate(invalid="ignore"):  # signalling NaN
        whole = np.trunc(array.astype(np.float32 if array.itemsize < 4 else array.dtype).astype(np.longdouble))
    limits = np.iinfo(dtype)
    return np.isfinite(whole) & (whole >= np.longdouble(limits.min)) & (whole <= np.longdouble(limits.max))


@pytest.mark.parametrize(("source", "dtype"), PAIRS)
def test_casts_equal_torch_bit_by_bit(source: str, dtype: str) -> None:
    array = numbers(source)
    if DTYPES[source].kind in ("float", "complex") and DTYPES[dtype].kind in ("int", "uint"):
        fits = fitting(array, source, dtype)
        assert not fits.all()  # NaN and infinity are among them, or what uint8 cannot hold
        with pytest.raises(UnfitError) as error:
            cast(array, dtype)
        assert error.value.count == np.count_nonzero(~fits)
        array = np.ascontiguousarray(array[fits])
    expected = as_numpy(as_torch(array, source).to(getattr(torch, dtype)), dtype)
    found = cast(array, dtype)
    assert found.dtype == numpy_dtype(dtype)
    assert found.shape == array.shape
    assert same_bits(found, expected, dtype).all()


@pytest.mark.parametrize("dtype", CASTABLE)
def test_shapes_and_layouts_are_kept(dtype: str) -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6) % 2
    for view in (array.T, array[::2, 1:3], array[:0], array[1, 2:3].reshape(()), array[None]):
        found = cast(view, dtype)
        assert found.shape == view.shape
        assert same_bits(found.reshape(-1), cast(np.ascontiguousarray(view).reshape(-1), dtype), dtype).all()


def exact(value: float) -> Fraction:
    return Fraction(value)


def nearest_even(value: float, table: list[tuple[Fraction, int]]) -> set[int]:
    """The codes of the number nearest to a value; of two as near, the one with an even code."""
    wanted = exact(value)
    least = min(abs(number - wanted) for number, _ in table)
    codes = {code for number, code in table if abs(number - wanted) == least}
    even = {code for code in codes if code % 2 == 0}
    return even if len(codes) > 1 and even else codes


def finite_codes(dtype: str) -> list[tuple[Fraction, int]]:
    """(number, code) of all finite numbers of 0 and above."""
    width = DTYPES[dtype].nbytes(1)
    codes = np.arange(1 << (8 * width - 1), dtype=f"u{width}")
    values = codes.view(numpy_dtype(dtype)).astype(np.float64)
    return [(exact(float(value)), int(code)) for value, code in zip(values, codes, strict=True) if np.isfinite(value)]


TABLES = {
    dtype: finite_codes(dtype) for dtype in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
}


@given(st.data())
def test_float64_is_rounded_once_to_8_bits(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(sorted(TABLES)))
    table = TABLES[dtype]
    at = data.draw(st.integers(0, len(table) - 2))
    middle = float((table[at][0] + table[at + 1][0]) / 2)
    off = data.draw(st.sampled_from([0.0, 2.0**-25, -(2.0**-25), 2.0**-40, -(2.0**-40), 2.0**-52, -(2.0**-52)]))
    value = middle * (1 + off)
    found = int(cast(np.array([value]), dtype).view(np.uint8)[0])
    assert found in nearest_even(value, table)


@given(
    st.sampled_from(["float16", "bfloat16"]),
    st.integers(0, 0x7BFE),
    st.sampled_from([0, 1, -1, 1 << 12, -(1 << 12), 1 << 27, -(1 << 27)]),
    st.booleans(),
)
def test_float64_is_rounded_once_to_16_bits(dtype: str, code: int, ulps: int, negative: bool) -> None:
    below, above = np.array([code, code + 1], np.uint16).view(numpy_dtype(dtype)).astype(np.float64)
    middle = (below + above) / 2
    value = np.array([middle]).view(np.int64)
    value += ulps
    number = value.view(np.float64)
    sign = 0x8000 if negative else 0
    found = int(cast(-number if negative else number, dtype).view(np.uint16)[0])
    if ulps == 0:
        assert found == sign | (code if code % 2 == 0 else code + 1)
    else:
        assert found == sign | (code + 1 if ulps > 0 else code)


@pytest.mark.parametrize("dtype", NARROW)
def test_float64_beyond_float32(dtype: str) -> None:
    """What float32 cannot hold at all: neither overflow nor underflow may go through it."""
    array = np.array([1e300, -1e300, 1e-300, -1e-300, np.inf, -np.inf, np.nan, 3.4028235677973366e38, 1e-46, 0.0, -0.0])
    with np.errstate(all="ignore"):
        expected = cast(array.astype(np.float32), dtype)
    assert same_bits(cast(array, dtype), expected, dtype).all()


def test_float64_and_what_is_computed_in_it_is_better_than_torchs() -> None:
    value = 1 + 2.0**-8 + 2.0**-40
    better = 1 + 2.0**-7
    assert torch.tensor(value, dtype=torch.float64).bfloat16().item() == 1.0
    assert float(cast(np.array(value), "bfloat16")) == better
    half = np.array([value / 2])
    assert float(mix("linear", 2, dtype="bfloat16", weights=[1, 1]).compute([half * 2, half * 2])[0]) == better
    ((op, _),) = Expression.parse("bf16($1 + $1)").ops([TensorSpec("w", "float64", (1,))], {})
    assert float(op.compute([half])[0]) == better
    from ckptool.commands.merging.lora_ops import AddBias, AddLora

    assert float(AddBias(1.0, "bfloat16").compute([np.ones(1), half * 2 - 1])[0]) == better
    merged = AddLora(1.0, dtype="bfloat16").compute([np.ones((1, 1)), (half * 2 - 1)[None], np.ones((1, 1))])
    assert float(merged[0, 0]) == better


# --- files


def filtered(folder: Path, state: dict[str, torch.Tensor], dtype: str, suffix: str = ".pth") -> Written:
    torch.save(state, folder / "in.pth")
    return apply(plan_filter(open_checkpoint(folder / "in.pth"), dtype=dtype), folder / f"out{suffix}", force=True)


@pytest.mark.parametrize("dtype", [name for name in CASTABLE if DTYPES[name].kind == "float"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_filter_dtype_is_tensor_to(tmp_path: Path, dtype: str, suffix: str) -> None:
    base = torch.from_numpy(numbers("float32"))
    state = {
        "w": base[: 1 << 17].reshape(512, 256).t(),
        "long": base,
        "h": torch.from_numpy(numbers("float16")),
        "b": as_torch(numbers("bfloat16"), "bfloat16"),
        "q": as_torch(numbers("float8_e5m2"), "float8_e5m2"),
        "scalar": torch.tensor(500.0),
        "n": torch.arange(5),
        "z": torch.ones(3, dtype=torch.complex64),
        "m": torch.tensor([True, False]),
    }
    filtered(tmp_path, state, dtype, suffix)
    load = torch.load if suffix == ".pth" else safetensors.torch.load_file
    found = load(tmp_path / f"out{suffix}")
    for key, tensor in state.items():
        expected = tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor
        assert found[key].dtype == expected.dtype
        assert found[key].shape == expected.shape
        name = str(expected.dtype).removeprefix("torch.")
        assert same_bits(as_numpy(found[key], name), as_numpy(expected, name), name).all()


def test_overflow_and_zeros_are_counted_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ckptool = runner(tmp_path, monkeypatch, capsys)
    written = filtered(
        tmp_path, {"a": torch.tensor([1.0, 2, 500, 0]), "b": torch.tensor([1e-9, -1e-9, 1e-8])}, "f8_e4m3fn"
    )
    assert (written.overflows, written.zeroed) == ({"a": 1}, {"b": 3})
    assert torch.load(tmp_path / "out.pth")["a"].float().tolist() == [1, 2, 448, 0]
    command = ["filter", "in.pth", "--dtype", "fp8_e4m3", "-o", "new.pth"]
    code, out, err = ckptool(*command)
    assert code == 0
    assert "1 value overflows, 3 values become zero" in out + err
    found = json.loads(ckptool(*command, "--force", "--json")[1])["written"]
    assert (found["overflows"], found["zeroed"]) == ({"a": 1}, {"b": 3})


@pytest.mark.parametrize(
    ("dtype", "overflows", "worst"),
    [
        ("float16", 2, float("inf")),
        ("bfloat16", 1, float("inf")),
        ("float8_e4m3fn", 6, 1.0),
        ("float8_e4m3fnuz", 7, float("inf")),
        ("float8_e5m2", 4, float("inf")),
        ("float8_e5m2fnuz", 6, float("inf")),
        ("float8_e8m0fnu", 3, float("inf")),
    ],
)
def test_what_overflows(tmp_path: Path, dtype: str, overflows: int, worst: float) -> None:
    values = [448.0, 464.0, -465.0, 57344.0, 65519.0, 61440.0 * 2, 3.4e38, float("inf"), float("-inf"), float("nan")]
    state = {"w": torch.tensor(values)}
    written = filtered(tmp_path, state, dtype)
    before, after = state["w"], state["w"].to(getattr(torch, dtype)).float()
    lost = (before.isfinite() & ~after.isfinite()) | (before.isinf() & after.isnan())
    expected = int((before.abs() > 464).sum() if dtype == "float8_e4m3fn" else lost.sum())
    assert written.overflows == ({"w": expected} if expected else {})
    assert written.rounding["w"] == (float("inf") if lost.any() else pytest.approx(worst))


def test_floats_that_no_integer_holds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ckptool = runner(tmp_path, monkeypatch, capsys)
    state = {
        "a": torch.tensor([1.5, -128.9, 127.9]),
        "b": torch.tensor([1.0, float("nan"), 128.0]),
        "c": torch.full((200_000,), 300.0, dtype=torch.float16),
    }
    torch.save(state, tmp_path / "in.pth")
    assert ckptool("remap", "in.pth", "-r", "a -> a | int8", "-o", "fits.pth")[0] == 0
    assert torch.load(tmp_path / "fits.pth")["a"].tolist() == [1, -128, 127]
    for rule in ("* -> * | i8", "* -> * | = char($1)"):
        code, _, err = ckptool("remap", "in.pth", "-r", rule, "-o", "out.pth")
        assert code == 2
        assert "200,002 values are NaN or out of the range of int8: b" in err
        assert "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fits.pth", "in.pth"]
