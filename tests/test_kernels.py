"""The numbers against a float64 (or wider) reference, for every dtype."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from ckptool.core.arrays import numpy_dtype, unpack_bits
from ckptool.core.spec import DTYPES, packed_nbytes
from ckptool.values import kernels
from ckptool.values.delta import Delta
from ckptool.values.kernels import Kernel, Sums

FLOATS = [name for name, dtype in DTYPES.items() if dtype.kind == "float"]
REAL = [name for name, dtype in DTYPES.items() if dtype.kind in ("float", "int", "uint") and dtype.bits >= 8]


@np.errstate(all="ignore")
def values(block: bytes, dtype: str) -> Any:
    """The values in the widest type there is; complex ones as such."""
    array = np.frombuffer(block, np.uint8)
    if DTYPES[dtype].bits < 8:
        array = unpack_bits(array, DTYPES[dtype].bits, len(array) * 8 // DTYPES[dtype].bits)
    array = array.view(numpy_dtype(dtype))
    if dtype == "complex32":
        return array["real"].astype(np.longdouble) + 1j * array["imag"].astype(np.longdouble)
    if DTYPES[dtype].kind == "complex":
        return array.astype(np.clongdouble)
    if DTYPES[dtype].kind in ("int", "uint", "bool"):
        return array.astype(np.longdouble)
    return array.astype(np.float64).astype(np.longdouble)


@np.errstate(all="ignore")
def reference(old: bytes, new: bytes, old_dtype: str, new_dtype: str) -> dict[str, float | None]:
    a, b = values(old, old_dtype), values(new, new_dtype)
    finite = np.isfinite(a) & np.isfinite(b)
    nonfinite = (int((~np.isfinite(a)).sum()), int((~np.isfinite(b)).sum()))
    a, b = a[finite], b[finite]
    aa, bb, dd = (np.sum(np.abs(x) ** 2) for x in (a, b, b - a))
    dot = np.sum((np.conj(a) * b).real)
    return {
        "rel": float(np.sqrt(dd / aa)) if aa else (math.inf if dd else 0.0),
        "max_abs": float(np.abs(b - a).max(initial=0)),
        "cosine": float(dot / np.sqrt(aa) / np.sqrt(bb)) if aa and bb else None,
        "nonfinite": nonfinite,
    }


def run(
    old: bytes, new: bytes, old_dtype: str, new_dtype: str | None = None, *, elements: int = 4096, **kw: Any
) -> Sums:
    kernel = Kernel(old_dtype, new_dtype or old_dtype, **kw)
    steps = packed_nbytes(old_dtype, (elements,)), packed_nbytes(new_dtype or old_dtype, (elements,))
    for i in range(-(-len(old) // steps[0])):
        kernel.add(old[i * steps[0] : (i + 1) * steps[0]], new[i * steps[1] : (i + 1) * steps[1]])
    return kernel.sums


def assert_like(delta: Delta, expected: dict[str, Any], rel: float = 1e-6) -> None:
    assert delta.rel == pytest.approx(expected["rel"], rel=rel, abs=1e-300)
    assert delta.max_abs == pytest.approx(expected["max_abs"], rel=rel)
    assert delta.nonfinite == expected["nonfinite"]
    assert delta.cosine == (None if expected["cosine"] is None else pytest.approx(expected["cosine"], abs=5e-7))


@pytest.mark.parametrize("dtype", [d for d in DTYPES if DTYPES[d].kind not in ("quantized", "bits")])
@pytest.mark.parametrize("seed", [0, 1])
def test_any_bits_of_any_dtype(dtype: str, seed: int) -> None:
    """Random bit patterns: every exponent, NaN, Inf, subnormals."""
    rng = np.random.default_rng(seed)
    n = 48 * 211
    old = rng.bytes(packed_nbytes(dtype, (n,)))
    new = bytearray(old)
    for i in rng.integers(0, len(old), 500):
        new[i] ^= 1 << int(rng.integers(8))
    if dtype == "bool":
        old, new = bytes(b & 1 for b in old), bytearray(b & 1 for b in new)
    delta = run(old, bytes(new), dtype).delta()
    assert_like(delta, reference(old, bytes(new), dtype, dtype))
    width = max(8, DTYPES[dtype].bits) // 8
    a, b = (np.frombuffer(x, np.uint8) for x in (old, bytes(new)))
    if DTYPES[dtype].bits < 8:
        a, b = (unpack_bits(x, DTYPES[dtype].bits, n) for x in (a, b))
    assert delta.differing == int((a.reshape(-1, width) != b.reshape(-1, width)).any(axis=1).sum())


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "complex64"])
@pytest.mark.parametrize("change", [1e-4, 0.03, 2.0, -1.0, -0.99999])
def test_weights_to_1e6_of_float64(dtype: str, change: float) -> None:
    """Weights as they are: a million normal numbers, and a change of some size."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(1 << 20, generator=generator) * 0.02
    b = a * (1 + change) if change < 0 else a + change * 0.02 * torch.randn(1 << 20, generator=generator)
    kind = getattr(torch, dtype)
    old, new = (x.to(kind).flatten().view(torch.uint8).numpy().tobytes() for x in (a, b))
    expected = reference(old, new, dtype, dtype)
    delta = run(old, new, dtype, elements=kernels.BLOCK_ELEMENTS).delta()
    assert delta.rel == pytest.approx(expected["rel"], rel=1e-6)
    assert delta.max_abs == pytest.approx(expected["max_abs"], rel=1e-6)
    if expected["cosine"] is None:
        assert delta.cosine is None
    else:
        assert delta.cosine == pytest.approx(expected["cosine"], abs=5e-7)
        if change == 1e-4 and delta.cosine != 1:
            assert 1 - delta.cosine == pytest.approx(1 - expected["cosine"], rel=1e-5, abs=1e-14)


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e-20, 1e18, 1e25, 3e38])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_squares_neither_vanish_nor_overflow(scale: float, dtype: str) -> None:
    rng = np.random.default_rng(0)
    a = (rng.uniform(-1, 1, 5000) * scale).astype(numpy_dtype(dtype))
    b = (a.astype(np.float64) * rng.uniform(0, 1, 5000)).astype(numpy_dtype(dtype))
    assert_like(run(a.tobytes(), b.tobytes(), dtype).delta(), reference(a.tobytes(), b.tobytes(), dtype, dtype))


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_float64_of_any_size(scale: float) -> None:
    rng = np.random.default_rng(0)
    a = rng.uniform(-1, 1, 5000) * scale
    b = a * 1.5
    assert_like(run(a.tobytes(), b.tobytes(), "float64").delta(), reference(a.tobytes(), b.tobytes(), *["float64"] * 2))


@pytest.mark.parametrize(
    "old", ["float32", "bfloat16", "int8", "int64", "float8_e5m2", "complex64", "float4_e2m1fn", "bool"]
)
@pytest.mark.parametrize("new", ["float64", "float16", "bfloat16", "uint8", "complex128", "float6_e2m3fn"])
def test_casts_are_compared_by_value(old: str, new: str) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, (2, 4800)).astype(np.float32)
    a[:3000] = b[:3000]

    def pack(x: Any, dtype: str) -> bytes:
        if dtype == "complex64" or dtype == "complex128":
            return x.astype(numpy_dtype(dtype)).tobytes()
        if dtype == "bool":
            return (x > 1).tobytes()
        codes = x.astype(numpy_dtype(dtype)).view(np.uint8)
        if DTYPES[dtype].bits < 8:
            bits = np.unpackbits(codes[:, None], axis=1, bitorder="little")[:, : DTYPES[dtype].bits]
            return np.packbits(bits.reshape(-1), bitorder="little").tobytes()
        return codes.tobytes()

    blocks = pack(a, old), pack(b, new)
    delta = run(*blocks, old, new).delta()
    assert_like(delta, reference(*blocks, old, new))
    assert delta.differing == int((values(blocks[0], old) != values(blocks[1], new)).sum()) > 0


def test_int64_beyond_2_to_the_53_is_exact() -> None:
    a = np.array([2**62, -(2**63), 0, 2**63 - 1], np.int64)
    b = np.array([2**62 + 1, 2**63 - 1, 0, 2**63 - 1], np.int64)
    sums = run(a.tobytes(), b.tobytes(), "int64", ulp=True)
    assert sums.differing == 2 and sums.ulp == 2**64 - 1 and sums.max_abs == float(2**64)
    assert sums.old_range == (-(2**63), 2**63 - 1) and sums.new_range == (0, 2**63 - 1)
    one = run(a[:1].tobytes(), b[:1].tobytes(), "int64").delta()
    assert one.max_abs == 1.0 and one.rel == pytest.approx(2.0**-62)


def test_a_counter_that_began_at_zero() -> None:
    delta = run(np.int64([0]).tobytes(), np.int64([4690]).tobytes(), "int64").delta()
    assert delta == Delta(
        rel=math.inf, max_abs=4690.0, cosine=None, differing=1, old_range=(0, 0), new_range=(4690, 4690)
    )


def test_nan_and_inf_are_counted_apart() -> None:
    a = np.float32([1, np.nan, np.inf, np.inf, 5, np.nan])
    b = np.float32([2, np.nan, np.inf, -np.inf, np.nan, 6])
    sums = run(a.tobytes(), b.tobytes(), "float32")
    delta = sums.delta()
    assert (delta.rel, delta.max_abs, delta.nonfinite, delta.differing) == (1.0, 1.0, (4, 4), 4)
    assert sums.unmatched == 3


def test_bits_decide_what_differs_values_say_how_far() -> None:
    """0.0 and -0.0, and NaN of two payloads, differ in bytes and in no number."""
    for pair in (np.uint32([0, 0x80000000]), np.uint32([0x7FC00000, 0x7FC00001])):
        sums = run(pair[:1].tobytes() * 9, pair[1:].tobytes() * 9, "float32")
        assert sums.delta().rel == 0 and sums.delta().max_abs == 0 and sums.differing == 9 and not sums.unmatched


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_ulp_counts_representable_values(dtype: str) -> None:
    kind = numpy_dtype(dtype)
    one = np.ones(1, kind)
    above, far = one.copy(), -one
    codes = above.view(f"u{kind.itemsize}")
    codes += codes.dtype.type(3)  # numpy 1.26 makes a float64 of a uint64 and 3
    assert run(one.tobytes(), above.tobytes(), dtype, ulp=True).ulp == 3
    code = int(one.view(f"u{kind.itemsize}")[0])
    assert run(one.tobytes(), far.tobytes(), dtype, ulp=True).ulp == 2 * code
    zero = np.zeros(1, kind)
    assert run(zero.tobytes(), (-zero).tobytes(), dtype, ulp=True).ulp == 0
    assert run(one.tobytes(), one.astype(np.float64).tobytes(), dtype, "float64", ulp=True).ulp == 0
    assert run(one.tobytes(), one.tobytes(), dtype).ulp is None


def test_sums_do_not_depend_on_how_the_blocks_are_shared_out() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 10_000)).astype(np.float32)
    whole = run(a.tobytes(), b.tobytes(), "float32", elements=1000)
    joined = Sums()
    for at in (0, 5000):
        joined.add(run(a[at : at + 5000].tobytes(), b[at : at + 5000].tobytes(), "float32", elements=1000))
    assert joined.delta() == whole.delta() or joined.delta().rel == pytest.approx(whole.delta().rel, rel=1e-14)
    assert joined.differing == whole.differing and joined.max_abs == whole.max_abs


def test_the_einsum_of_numpy_1_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1 << 16)).astype(np.float32)
    fast = run(a.tobytes(), b.tobytes(), "float32", elements=1 << 16).delta()
    monkeypatch.setattr(kernels, "_row_dots", kernels._einsum_dots)
    slow = run(a.tobytes(), b.tobytes(), "float32", elements=1 << 16).delta()
    assert slow.rel == pytest.approx(fast.rel, rel=1e-6) and slow.cosine == pytest.approx(fast.cosine, abs=1e-6)
