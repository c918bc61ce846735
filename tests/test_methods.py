"""Merge methods against references in torch, float64, written from the papers; and end to end through files."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import load_file, save_file
from writing import apply

import ckptool
from ckptool.commands.merging.measures import ranked
from ckptool.commands.merging.merge import plan_merge
from ckptool.commands.merging.methods import METHODS, _agreeing, _agreeing_apart
from ckptool.commands.merging.mixing import mix
from ckptool.core.errors import UsageError
from ckptool.engine import evaluate

T = torch.Tensor
Array = np.ndarray[Any, Any]
State = dict[str, T]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)


# ------------------------------------------------------------------------------------------------- references


def linear(models: Sequence[T], base: T | None, weights: Sequence[float], normalize: float = 1) -> T:
    total = sum(weights) if normalize else 1
    return torch.stack([w * m for m, w in zip(models, weights, strict=True)]).sum(0) / total


def ema(models: Sequence[T], base: T | None, weights: Sequence[float], decay: float = 0.999) -> T:
    shadow = models[0].clone()
    for model in models[1:]:
        shadow = shadow.lerp(model, 1 - decay)
    return shadow


def slerp(models: Sequence[T], base: T | None, weights: Sequence[float], t: float = 0.5) -> T:
    a, b = models
    cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)
    if cosine.abs() > 0.9995:
        return (1 - t) * a + t * b
    angle = cosine.arccos()
    return (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()


def karcher(models: Sequence[T], base: T | None, weights: Sequence[float]) -> T:
    """Gradient descent on the sphere itself, in as many dimensions as the tensors have."""
    shares = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    norms = torch.stack([m.norm() for m in models])
    units = [m / n for m, n in zip(models, norms, strict=True)]
    mean = sum(s * u for s, u in zip(shares, units, strict=True))
    mean = mean / mean.norm()
    for _ in range(200):
        pull = torch.zeros_like(mean)
        for share, unit in zip(shares, units, strict=True):
            along = (mean * unit).sum().clamp(-1, 1)
            away = unit - along * mean
            if away.norm() > 0:
                pull += share * along.arccos() * away / away.norm()
        if pull.norm() < 1e-13:
            break
        mean = pull.norm().cos() * mean + pull.norm().sin() * pull / pull.norm()
        mean = mean / mean.norm()
    return (shares @ norms) * mean


def nearswap(models: Sequence[T], base: T, weights: Sequence[float], t: float = 0.0001) -> T:
    weight = (t / (models[0] - base).abs()).clamp(0, 1).nan_to_num(1.0)  # 0 / 0: they are equal
    return weight * models[0] + (1 - weight) * base


def task_arithmetic(
    models: Sequence[T], base: T, weights: Sequence[float], scale: float = 1, normalize: float = 0
) -> T:
    return base + scale * linear([m - base for m in models], None, weights, normalize)


def trimmed(delta: T, density: float, gamma: float | None) -> T:
    """Between two of the sorted magnitudes; equal magnitudes go together."""
    count = delta.numel()
    keep = int(density * count)
    if density >= 1:
        return delta
    sizes = delta.abs().flatten().sort(descending=True).values
    if gamma is None:
        return torch.where(delta.abs() >= sizes[max(keep, 1) - 1], delta, 0.0)
    if keep == 0:
        return torch.zeros_like(delta)
    top = min(int(gamma * count), count - keep)
    return torch.where((delta.abs() <= sizes[top]) & (delta.abs() >= sizes[top + keep - 1]), delta, 0.0)


def consensus(deltas: Sequence[T], weights: Sequence[float], normalize: float) -> T:
    stacked = torch.stack([w * d for d, w in zip(deltas, weights, strict=True)])
    elected = torch.where(stacked.sum(0) >= 0, 1, -1)
    agree = stacked.sign() == elected
    result = (stacked * agree).sum(0)
    shape = (-1,) + (1,) * deltas[0].ndim
    used = (torch.tensor(weights, dtype=torch.float64).reshape(shape) * agree).sum(0)
    return result / torch.where(used.abs() < 1e-8, 1.0, used) if normalize else result


def ties(
    models: Sequence[T],
    base: T,
    weights: Sequence[float],
    density: float = 0.5,
    scale: float = 1,
    normalize: float = 1,
) -> T:
    return base + scale * consensus([trimmed(m - base, density, None) for m in models], weights, normalize)


def breadcrumbs(
    models: Sequence[T],
    base: T,
    weights: Sequence[float],
    density: float = 0.9,
    gamma: float = 0.01,
    scale: float = 1,
    normalize: float = 0,
) -> T:
    deltas = [trimmed(m - base, density, gamma) for m in models]
    return base + scale * linear(deltas, None, weights, normalize)


def breadcrumbs_ties(
    models: Sequence[T],
    base: T,
    weights: Sequence[float],
    density: float = 0.9,
    gamma: float = 0.01,
    scale: float = 1,
    normalize: float = 0,
) -> T:
    deltas = [trimmed(m - base, density, gamma) for m in models]
    return base + scale * consensus(deltas, weights, normalize)


def model_stock(models: Sequence[T], base: T, weights: Sequence[float]) -> T:
    deltas = [(m - base).flatten() for m in models]
    k = len(models)
    cosines = [torch.nn.functional.cosine_similarity(deltas[i], deltas[j], dim=0) for i in range(k) for j in range(i)]
    cosine = torch.stack(cosines).mean()
    t = k * cosine / (1 + (k - 1) * cosine)
    return t * torch.stack(list(models)).mean(0) + (1 - t) * base


REFERENCES: dict[str, Callable[..., T]] = {
    "linear": linear,
    "ema": ema,
    "slerp": slerp,
    "karcher": karcher,
    "nearswap": nearswap,
    "task-arithmetic": task_arithmetic,
    "ties": ties,
    "breadcrumbs": breadcrumbs,
    "breadcrumbs-ties": breadcrumbs_ties,
    "model-stock": model_stock,
}
CASES: list[tuple[str, dict[str, float]]] = [
    ("linear", {}),
    ("linear", {"normalize": 0}),
    ("ema", {}),
    ("ema", {"decay": 0.3}),
    ("slerp", {}),
    ("slerp", {"t": 0.2}),
    ("slerp", {"t": -0.5}),
    ("karcher", {}),
    ("nearswap", {"t": 0.01}),
    ("task-arithmetic", {}),
    ("task-arithmetic", {"scale": 0.7, "normalize": 1}),
    ("ties", {}),
    ("ties", {"density": 0.2, "scale": 1.3}),
    ("ties", {"density": 1, "normalize": 0}),
    ("breadcrumbs", {}),
    ("breadcrumbs", {"density": 0.6, "gamma": 0.2, "normalize": 1}),
    ("breadcrumbs", {"density": 0.9, "gamma": 0.3}),
    ("breadcrumbs-ties", {"density": 0.5, "gamma": 0.1}),
    ("model-stock", {}),
]


# ------------------------------------------------------------------------------------------------- machinery


def merged(
    folder: Path, models: Sequence[State], base: State | None = None, *, suffix: str = ".safetensors", **options: Any
) -> State:
    """Through files: written, opened, planned, applied, read by safetensors or torch."""
    paths = [folder / f"model{number}{suffix}" for number in range(len(models))]
    out = folder / f"out{suffix}"
    for path, state in zip([*paths, folder / f"base{suffix}"], [*models, *([base] if base else [])], strict=False):
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    opened = ckptool.open(folder / f"base{suffix}") if base else None
    apply(plan_merge([ckptool.open(path) for path in paths], base=opened, **options), out, force=True)
    return load_file(out) if suffix == ".safetensors" else torch.load(out, weights_only=True)


def assert_rounded(found: T, exact: T, size: T | float) -> None:
    """Found is the exact value after one rounding to its dtype.

    Args:
        size: how large the numbers were on the way: float64 may have lost 1e-13 of it.
    """
    info = torch.finfo(found.dtype)
    fits = exact.abs() < info.max
    exponent = torch.frexp(exact).exponent.to(torch.float64) - 1
    spacing = torch.clamp(2.0**exponent * info.eps, min=info.tiny * info.eps)
    allowed = 0.5 * spacing * (1 + 2**-14) + 1e-13 * size
    error = (found.to(torch.float64) - exact).abs()
    assert bool((error[fits] <= allowed[fits]).all()), float((error / allowed)[fits].max())
    assert bool((found.to(torch.float64)[~fits].abs() >= info.max).all())


def randoms(count: int, dtype: torch.dtype, seed: int = 0) -> list[State]:
    """Models that were tuned from a common one: matrices, vectors, a scalar, an empty one, a large one."""
    noise = torch.Generator().manual_seed(seed)
    shapes = {"w": (30, 40), "b": (17,), "s": (), "none": (0, 3), "long": (1000,)}
    start = {key: torch.randn(shape, generator=noise, dtype=torch.float64) for key, shape in shapes.items()}
    return [
        {
            key: (value + 0.1 * torch.randn(value.shape, generator=noise, dtype=torch.float64)).to(dtype)
            for key, value in start.items()
        }
        for _ in range(count)
    ]


def models_for(name: str) -> int:
    return METHODS[name].models or 3


# ----------------------------------------------------------------------------------------------------- results


def test_every_method_has_a_test_against_a_reference() -> None:
    assert set(REFERENCES) | {"dare-linear", "dare-ties"} == set(METHODS)
    assert {name for name, _ in CASES} == set(REFERENCES)


@DTYPES
@pytest.mark.parametrize(("name", "params"), CASES, ids=str)
def test_equals_a_float64_reference(name: str, params: dict[str, float], dtype: torch.dtype, tmp_path: Path) -> None:
    method = METHODS[name]
    *models, base = randoms(models_for(name) + 1, dtype)
    weights = [0.5, 1.25, 0.3][: len(models)] if method.uses_weights else None
    found = merged(
        tmp_path,
        models,
        base if method.needs_base else None,
        method=name,
        params=params,
        weights=weights,
    )
    assert set(found) == set(base)
    for key, tensor in found.items():
        assert (tensor.dtype, tensor.shape) == (dtype, base[key].shape)
        if tensor.numel():
            wide = [model[key].double() for model in models]
            exact = REFERENCES[name](wide, base[key].double(), weights or [1.0] * len(models), **params)
            assert_rounded(tensor, exact, 100.0)


@pytest.mark.parametrize("name", REFERENCES)
def test_slices_do_not_show(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of many slices, in a torch archive, with another dtype for the result."""
    monkeypatch.setattr(evaluate, "ELEMENTS", 64)
    method = METHODS[name]
    *models, base = randoms(models_for(name) + 1, torch.bfloat16)
    found = merged(tmp_path, models, base if method.needs_base else None, suffix=".pth", method=name, dtype="f32")
    for key in ("w", "b", "long"):
        assert found[key].dtype == torch.float32
        wide = [model[key].double() for model in models]
        assert_rounded(found[key], REFERENCES[name](wide, base[key].double(), [1.0] * len(models)), 100.0)


@pytest.mark.parametrize("name", METHODS)
def test_equal_models_stay_as_they_are(name: str, tmp_path: Path) -> None:
    method = METHODS[name]
    (state,) = randoms(1, torch.bfloat16)
    models = [state] * models_for(name)
    found = merged(tmp_path, models, state if method.needs_base else None, method=name)
    for key, tensor in found.items():
        assert torch.equal(tensor, state[key]), key


@pytest.mark.parametrize("name", METHODS)
def test_zeros_stay_zeros(name: str, tmp_path: Path) -> None:
    method = METHODS[name]
    state = {"w": torch.zeros(5, 5)}
    models = [state] * models_for(name)
    found = merged(tmp_path, models, state if method.needs_base else None, method=name)
    assert found["w"].eq(0).all()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_so(name: str, value: float, tmp_path: Path) -> None:
    """Nearswap bounds an infinite change like any other; no method loses a NaN."""
    method = METHODS[name]
    models = [{"w": torch.linspace(-1, 1, 9) * (n + 1)} for n in range(models_for(name))]
    models[0]["w"] = models[0]["w"].clone()
    models[0]["w"][3] = value
    base = {"w": torch.linspace(-0.5, 0.5, 9)}
    found = merged(tmp_path, models, base if method.needs_base else None, method=name)
    assert bool(found["w"][3].isfinite()) is (name == "nearswap" and not math.isnan(value))


def test_numbers_too_large_for_the_dtype_become_infinite(tmp_path: Path) -> None:
    state = {"w": torch.tensor([60000.0, -60000.0, 1.0], dtype=torch.float16)}
    found = merged(tmp_path, [state, state], method="linear", params={"normalize": 0})
    assert found["w"].tolist() == [math.inf, -math.inf, 2.0]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bit_floats(dtype: torch.dtype, tmp_path: Path) -> None:
    first, second = (torch.linspace(-3, stop, 50).to(dtype) for stop in (3, 5))
    found = merged(tmp_path, [{"w": first}, {"w": second}], method="linear")
    assert torch.equal(found["w"].float(), ((first.double() + second.double()) / 2).to(dtype).float())


# -------------------------------------------------------------------------------------------------- properties

FLOATS = st.floats(-1e3, 1e3, width=32)
VECTORS = st.lists(st.tuples(FLOATS, FLOATS, FLOATS), min_size=1, max_size=30)


def run(name: str, tensors: Sequence[Any], base: Any = None, weights: Any = None, **params: float) -> Any:
    op = mix(name, len(tensors), weights=weights, has_base=base is not None, params=params)
    arrays = [np.asarray(tensor) for tensor in (*tensors, *([base] if base is not None else []))]
    return op.compute(arrays)


@given(st.binary(min_size=2, max_size=64).filter(lambda raw: len(raw) % 2 == 0), st.sampled_from(["<f2", "bfloat16"]))
def test_linear_of_one_model_is_that_model_bit_for_bit(raw: bytes, name: str) -> None:
    import ml_dtypes

    dtype = np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)
    model = np.frombuffer(raw, dtype)
    found = run("linear", [model], weights=[1.0])
    number = ~np.isnan(model.astype(np.float32))
    assert np.array_equal(found.view(np.uint16)[number], model.view(np.uint16)[number])
    assert np.isnan(found[~number].astype(np.float32)).all()


@given(VECTORS)
def test_slerp_ends_at_the_models(rows: list[tuple[float, float, float]]) -> None:
    first, second, _ = np.array(rows, np.float32).T
    assert np.array_equal(run("slerp", [first, second], t=0), first)
    assert np.array_equal(run("slerp", [first, second], t=1), second)


@given(VECTORS)
def test_one_model_at_full_scale_is_that_model(rows: list[tuple[float, float, float]]) -> None:
    model, base, _ = np.array(rows, np.float32).T
    for name in ("task-arithmetic", "ties", "dare-linear", "dare-ties", "breadcrumbs", "model-stock"):
        params = {"density": 1.0} if "density" in METHODS[name].options else {}
        assert np.allclose(run(name, [model], base, **params), model, rtol=1e-6, atol=1e-9), name


@given(VECTORS, st.permutations([0, 1, 2]))
@settings(max_examples=50)
def test_the_order_of_the_models_does_not_matter(rows: list[tuple[float, float, float]], order: list[int]) -> None:
    models, weights = list(np.array(rows, np.float64).T), [0.5, 1.5, 0.25]
    base = np.ones(len(rows))
    shuffled, moved = [models[i] for i in order], [weights[i] for i in order]
    for name in ("linear", "task-arithmetic", "breadcrumbs"):  # model-stock divides by what may be nearly nothing
        method = METHODS[name]
        start = base if method.needs_base else None
        w, m = (weights, moved) if method.uses_weights else (None, None)
        assert np.allclose(run(name, models, start, w), run(name, shuffled, start, m), rtol=1e-9, atol=1e-6), name


@given(st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=60), st.data())
def test_ranks_are_those_of_a_sort(numbers: list[float], data: st.DataObject) -> None:
    array = np.array(numbers, np.float64)
    rank = data.draw(st.integers(1, len(numbers)))
    cut = data.draw(st.integers(0, len(numbers)))
    parts = [part for part in (array[:cut], array[cut:]) if part.size]
    ((found,),) = ranked(lambda: [[part] for part in parts], 1, lambda size: [rank])
    expected = np.sort(np.abs(array))[::-1]  # numpy puts NaN last, here first
    expected = np.concatenate([expected[np.isnan(expected)], expected[~np.isnan(expected)]])[rank - 1]
    assert found == expected or (math.isnan(found) and math.isnan(expected))


def test_equal_magnitudes_stay_or_go_together() -> None:
    base = np.zeros(6)
    model = np.array([2.0, -1.0, 1.0, 1.0, 0.5, 0.0])
    assert run("ties", [model], base, density=0.5).tolist() == [2, -1, 1, 1, 0, 0]
    assert run("breadcrumbs", [model], base, density=0.34, gamma=0.2).tolist() == [0, -1, 1, 1, 0, 0]


# -------------------------------------------------------------------------------------------------------- dare


def test_dare_keeps_the_density_and_makes_up_for_the_rest(tmp_path: Path) -> None:
    base, model = {"w": torch.zeros(100_000)}, {"w": torch.linspace(1, 2, 100_000)}
    found = merged(tmp_path, [model], base, method="dare-linear", params={"density": 0.25})["w"]
    dropped = found == 0
    assert abs(float(dropped.double().mean()) - 0.75) < 0.01
    assert_rounded(found[~dropped], (model["w"].double() / 0.25)[~dropped], 0.0)
    assert abs(float(found.double().mean()) / 1.5 - 1) < 0.02  # the expectation is that of the changes


def test_dare_draws_anew_for_each_tensor_model_and_seed_and_the_same_on_every_run(tmp_path: Path) -> None:
    ones, base = {"a": torch.ones(4096), "b": torch.ones(4096)}, {"a": torch.zeros(4096), "b": torch.zeros(4096)}

    def once(**params: float) -> State:
        return merged(tmp_path, [ones, ones], base, method="dare", params=params)

    first = once()
    assert all(torch.equal(tensor, once()[key]) for key, tensor in first.items())
    assert not torch.equal(first["a"], first["b"])
    assert not torch.equal(first["a"], once(seed=1)["a"])
    assert set(first["a"].tolist()) == {0.0, 2.0, 4.0}  # the two models draw by themselves


def test_dare_ties_agrees_with_some_draw_everywhere(tmp_path: Path) -> None:
    first, second, base = (state["long"] for state in randoms(3, torch.float32))
    found = merged(
        tmp_path,
        [{"w": first}, {"w": second}],
        {"w": base},
        method="dare-ties",
        params={"density": 0.5},
        weights=[1, 2],
    )["w"]
    deltas = [(model.double() - base.double()) / 0.5 for model in (first, second)]
    candidates = [
        base.double() + consensus([deltas[0] * one, deltas[1] * two], [1, 2], 0) for one, two in product([0, 1], [0, 1])
    ]
    nearest = torch.stack([(found.double() - candidate).abs() for candidate in candidates]).min(0)
    assert float(nearest.values.max()) < 1e-6
    shares = torch.bincount(nearest.indices, minlength=4) / len(found)
    assert float(shares.min()) > 0.1


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("average", {}, "not a merge method"),
        ("linear", {"weights": [1, -1]}, "sum to 0"),
        ("karcher", {"weights": [1, -1]}, "sum to 0"),
        ("task-arithmetic", {"weights": [1, -1], "params": {"normalize": 1}, "has_base": True}, "sum to 0"),
        ("linear", {"weights": [1]}, "1 weight for 2 inputs"),
        ("linear", {"weights": [1, math.nan]}, "not finite"),
        ("linear", {"has_base": True}, "takes no base"),
        ("linear", {"params": {"density": 1}}, 'no option "density"'),
        ("ties", {}, "differences from a base"),
        ("ties", {"has_base": True, "params": {"density": 0}}, "above 0"),
        ("ties", {"has_base": True, "params": {"density": math.nan}}, "above 0"),
        ("breadcrumbs", {"has_base": True, "params": {"gamma": 1.5}}, "from 0 to 1"),
        ("dare-ties", {"has_base": True, "params": {"seed": 0.5}}, "whole number"),
        ("dare-ties", {"has_base": True, "params": {"seed": -1}}, "whole number"),
        ("slerp", {"params": {"t": math.inf}}, "finite"),
        ("slerp", {"weights": [1, 1]}, "no weights"),
        ("nearswap", {"has_base": True}, "takes 1 model and a base, not 2"),
    ],
)
def test_requests_that_make_no_sense(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mix(name, 2, **options)


def test_slerp_is_for_two() -> None:
    with pytest.raises(UsageError, match="takes 2 models, not 3"):
        mix("slerp", 3)


@pytest.mark.parametrize("weights", [[1, -1], [0, 0], [-1, -2]])
def test_weights_of_any_sign_where_they_divide_nothing(weights: list[float], tmp_path: Path) -> None:
    first, second = randoms(2, torch.float32)
    found = merged(tmp_path, [first, second], method="linear", weights=weights, params={"normalize": 0})
    exact = weights[0] * first["w"].double() + weights[1] * second["w"].double()
    assert_rounded(found["w"], exact, 10.0)


# ---------------------------------------------------------------------------------------------------- mergekit


@pytest.mark.parametrize(
    ("name", "params", "theirs"),
    [
        ("linear", {}, {}),
        ("linear", {"normalize": 0}, {"normalize": False}),
        ("slerp", {"t": 0.3}, {"t": 0.3}),
        ("karcher", {}, {"max_iter": 100}),
        ("nearswap", {"t": 0.02}, {"t": 0.02}),
        ("task-arithmetic", {"scale": 0.6}, {"lambda": 0.6}),
        ("ties", {"density": 0.3}, {"density": 0.3}),
        ("ties", {"density": 0.0001}, {"density": 0.0001}),
        ("breadcrumbs", {"density": 0.6, "gamma": 0.1}, {"density": 0.6, "gamma": 0.1}),
        ("breadcrumbs", {"density": 0.9, "gamma": 0.3}, {"density": 0.9, "gamma": 0.3}),
        ("breadcrumbs-ties", {"density": 0.6, "gamma": 0.1}, {"density": 0.6, "gamma": 0.1}),
        ("model-stock", {}, {}),
    ],
    ids=str,
)
def test_agrees_with_mergekit(name: str, params: dict[str, float], theirs: dict[str, Any]) -> None:
    api = pytest.importorskip("mergekit.merge_methods.api")
    method = METHODS[name]
    *models, base = (state["w"] for state in randoms(models_for(name) + 1, torch.float32))
    weights = [0.5, 1.25, 0.3][: len(models)] if method.uses_weights and name != "karcher" else None
    inputs = [*models, base] if method.needs_base else models
    at = len(models) if method.needs_base else 0 if name == "slerp" else None
    given = {**theirs, **({"weight": weights} if weights else {})}
    expected = api.merge_tensors(inputs, name.replace("-", "_"), parameters=given, base_index=at)
    found = torch.from_numpy(run(name, models, base if method.needs_base else None, weights, **params))
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5), float((found - expected).abs().max())


@pytest.mark.parametrize("kind", ["alike", "sorted", "falling", "equal", "nan", "few first"])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.97])
def test_ranks_are_exact_wherever_the_first_slice_points(kind: str, share: float) -> None:
    """The first slice tells where to look; where it misleads, the passes by digits find the same."""
    values = np.random.default_rng(5).standard_normal(1 << 17)
    if kind in ("sorted", "falling"):
        values = np.sort(np.abs(values))[:: 1 if kind == "sorted" else -1].copy()
    elif kind == "equal":
        values = np.round(values)
    elif kind == "nan":
        values[::7] = np.nan
    parts = np.split(values, [100, 40_000] if kind == "few first" else [1 << 15, 1 << 16])
    passes: list[int] = []

    def blocks() -> Iterator[list[Array]]:
        passes.append(1)
        return ([part, -part] for part in parts)

    rank = max(1, int(share * len(values)))
    expected = np.sort(np.abs(values))[::-1]  # NaN first
    for found in ranked(blocks, 2, lambda size: [max(1, int(share * size)), size]):
        np.testing.assert_array_equal(found, [expected[rank - 1], expected[-1]])
    if kind == "alike":
        assert len(passes) == 1


@pytest.mark.parametrize("models", [1, 2, 3, 9])
@pytest.mark.parametrize("normalize", [0.0, 1.0])
@pytest.mark.parametrize("odd", [0.0, -0.0, np.inf, np.nan])
def test_what_agrees_is_mixed_alike_by_bits_and_by_masks(models: int, normalize: float, odd: float) -> None:
    draw = np.random.default_rng(models)
    changes = [draw.standard_normal(1000) * (draw.random(1000) < 0.6) for _ in range(models)]
    for change in changes:
        change[::50] = odd
    weights = [0.5, -1.0, 2.0, 1.0, 1.0, 0.25, 3.0, 1.0, -0.5][:models]
    weighed = [change * weight for change, weight in zip(changes, weights, strict=True)]
    with np.errstate(invalid="ignore"):
        total = functools.reduce(np.add, weighed)
        expected = _agreeing_apart([each.copy() for each in weighed], total, weights, normalize)
        found = _agreeing([each.copy() for each in changes], weights, normalize)
    np.testing.assert_array_equal(found, expected)
