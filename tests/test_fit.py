"""Fits: what each method makes, what it refuses, and which one is chosen by default. Against timm: test_fit_timm.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from recipe_harness import array_specs, run
from torch.nn import functional

from ckptool.core.errors import CkptError, PlanError, UsageError
from ckptool.core.plan import Apply, Source
from ckptool.core.spec import TensorSpec
from ckptool.fits import beside, default_fit, fit_op, named_grid
from ckptool.fits.args import Fit, parse_fit
from ckptool.fits.grid import Grid
from ckptool.recipes.expand import expand
from ckptool.recipes.reading import parse_rule
from ckptool.recipes.recipe import parse_recipe

Array = np.ndarray[Any, Any]
FILES = {
    "source.txt": "cat\ndog\ncrane\nbird\ncrane\n",
    "target.json": '["bird", "cow", "crane", "cat", "crane"]',
    "rows.txt": "3, 1\n",
    "rows.json": "[3, null, 1]",
    "odd.json": '{"0": "a", "2": "b"}',
    "one-crane.txt": "crane\nx\ny\nz\nw\n",
    "other.txt": "1\n2\n3\n4\n5\n",
}


def spec(*shape: int, dtype: str = "float32", key: str = "w") -> TensorSpec:
    return TensorSpec(key, dtype, shape)


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def op(text: str, have: tuple[int, ...], want: tuple[int, ...], **kwargs: Any) -> Any:
    fit = parse_fit(text)
    assert fit is not None
    return fit_op(fit, spec(*have), spec(*want, key="target"), lookup=FILES.__getitem__, **kwargs)


def fitted(text: str, array: Array, shape: tuple[int, ...], initial: Array | None = None, **kwargs: Any) -> Array:
    """What a fit makes of an array that may not be written to, checked against what it says it makes."""
    fit = parse_fit(text)
    assert fit is not None
    have = TensorSpec("w", array.dtype.name, array.shape)
    made = fit_op(fit, have, TensorSpec("target", array.dtype.name, shape), lookup=FILES.__getitem__, **kwargs)
    assert made.needs_initial == (initial is not None)
    frozen = np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
    args = [frozen] if initial is None else [frozen, initial]
    result = made.compute(args)
    promised = made.result([have] if initial is None else [have, TensorSpec("target", initial.dtype.name, shape)])
    assert (result.dtype.name, result.shape) == (promised.dtype, promised.shape) == (array.dtype.name, shape)
    runs = made.runs([have])
    if runs is not None:  # a fit that only moves bytes moves the right ones
        data = array.tobytes()
        assert b"".join(data[part.offset : part.offset + part.nbytes] for part in runs) == result.tobytes()
    return result


# ---------------------------------------------------------------------------------------------- rows, pad, slice


def test_rows_by_index_keep_the_rest_of_the_target() -> None:
    source, own = numbers(4, 3), numbers(6, 3, seed=1)
    made = fitted("rows", source, (6, 3), own)
    assert np.array_equal(made, np.concatenate([source, own[4:]]))
    assert np.array_equal(fitted("rows", source, (3, 3)), source[:3])
    assert op("rows", (4, 3), (6, 3)).covered == 12


def test_initial_values_come_out_in_the_dtype_of_the_source() -> None:
    source, own = numbers(2, 3).astype(np.float16), numbers(3, 3, seed=1)
    made = fitted("rows", source, (3, 3), own)
    assert np.array_equal(made[2], own[2].astype(np.float16))
    with pytest.raises(PlanError, match="which has none"):
        op("rows", (2, 3), (3, 3)).compute([numbers(2, 3)])


def test_rows_by_number() -> None:
    source = numbers(4, 3)
    assert np.array_equal(fitted("rows(rows=[2, 0])", source, (2, 3)), source[[2, 0]])
    made = fitted("rows(rows=[2, None], fill=zeros)", source, (3, 3))
    assert np.array_equal(made, np.stack([source[2], np.zeros(3), np.zeros(3)]))
    assert np.array_equal(fitted("rows(rows='rows.txt')", source, (2, 3)), source[[3, 1]])
    own = numbers(3, 3, seed=1)
    assert np.array_equal(
        fitted("rows(rows='rows.json')", source, (3, 3), own), np.stack([source[3], own[1], source[1]])
    )


def test_rows_by_label_also_where_one_name_stands_twice() -> None:
    source, own = numbers(5), numbers(5, seed=1)
    made = fitted("rows(labels_source='source.txt', labels_target='target.json')", source, (5,), own)
    assert np.array_equal(made, np.array([source[3], own[1], source[2], source[0], source[4]]))


@pytest.mark.parametrize(
    "text",
    [
        '{"0": "cat", "1": "dog", "2": "cow"}',
        '{"cow": 2, "dog": 1, "cat": 0}',
        "cat\r\ndog\n\ncow\n",
        '{"id2label": {"2": "cow", "0": "cat", "1": "dog"}, "hidden_size": 8}',
        '[" cat", "dog", "cow"]',
    ],
)
def test_labels_in_every_usual_notation(text: str, tmp_path: Path) -> None:
    (tmp_path / "have.json").write_text(text)
    (tmp_path / "want.txt").write_text("dog\n")
    fit = Fit("rows", "labels_source='have.json', labels_target='want.txt'")
    made = fit_op(fit, spec(3, 2), spec(1, 2), lookup=beside(tmp_path / "nowhere", tmp_path))
    source = numbers(3, 2)
    assert np.array_equal(made.compute([source]), source[[1]])


def test_mean_and_normal_fill() -> None:
    source = numbers(5, 3)
    made = fitted("rows(fill=mean)", source, (7, 3))
    assert np.allclose(made[5:], source.mean(0), rtol=1e-6)
    one, again = (fitted("rows(fill=normal(0.02))", source, (4000, 3)) for _ in range(2))
    assert np.array_equal(one, again)
    assert 0.019 < one[5:].std() < 0.021
    assert not np.array_equal(one, fitted("rows(fill=normal(0.02))", source, (4000, 3), seed=1))


def test_pad() -> None:
    source = numbers(5, 3)
    assert np.array_equal(fitted("pad", source, (8, 3)), np.concatenate([source, np.zeros((3, 3), np.float32)]))
    assert (fitted("pad(value=-1.5)", source, (8, 3))[5:] == -1.5).all()
    small = source.astype(ml_dtypes.bfloat16)
    exact = small.astype(np.float64).mean(0).astype(np.float32).astype(ml_dtypes.bfloat16)
    assert np.array_equal(fitted("pad(value='mean')", small, (6, 3))[5], exact)
    own = numbers(8, 3, seed=1)
    assert np.array_equal(fitted("pad(value=keep)", source, (8, 3), own)[5:], own[5:])
    with pytest.raises(PlanError, match="needs a target with more rows"):
        op("pad", (8, 3), (5, 3))
    counts = np.arange(3)
    assert fitted("pad(value=-7)", counts, (4,))[3] == -7
    for wrong in ("0.5", "mean"):
        with pytest.raises(PlanError, match="cannot fill"):
            fitted(f"pad(value={wrong})", counts, (4,))


SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=3)
DTYPES = st.sampled_from(["float32", "float16", "int64", "uint8", "bool"])


@settings(max_examples=80, deadline=None)
@given(SHAPES, DTYPES, st.integers(0, 8), st.sampled_from(["rows", "pad", "rows(fill=zeros)"]))
def test_rows_and_pad_at_large(shape: list[int], dtype: str, rows: int, text: str) -> None:
    source = (numbers(*shape) * 100).astype(dtype)
    want = (rows, *shape[1:])
    assume(text != "pad" or rows >= shape[0])
    own = (numbers(*want, seed=1) * 100).astype(dtype)
    keeps = text == "rows" and rows > shape[0]
    made = fitted(text, source, want, own if keeps else None)
    assert np.array_equal(made[: shape[0]], source[:rows])
    assert np.array_equal(made[shape[0] :], own[shape[0] :] if keeps else np.zeros_like(made[shape[0] :]))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.lists(st.none() | st.integers(0, 5), max_size=6), st.integers(0, 7))
def test_rows_by_number_at_large(have: int, chosen: list[int | None], want: int) -> None:
    text = f"rows(rows={chosen}, fill=zeros)"
    source = numbers(have, 2)
    if len(chosen) > want or any(at is not None and at >= have for at in chosen):
        with pytest.raises(PlanError, match="rows names"):
            op(text, (have, 2), (want, 2))
        return
    made = fitted(text, source, (want, 2))
    for at in range(want):
        number = chosen[at] if at < len(chosen) else None
        assert np.array_equal(made[at], np.zeros(2) if number is None else source[number])


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.data())
def test_slice_at_large(shape: list[int], data: st.DataObject) -> None:
    want = tuple(data.draw(st.integers(0, length)) for length in shape)
    source = numbers(*shape)
    assert np.array_equal(fitted("slice", source, want), source[tuple(map(slice, want))])
    with pytest.raises(PlanError, match="no longer along any axis"):
        op("slice", tuple(shape), (*want[:-1], shape[-1] + 1))


# ---------------------------------------------------------------------------------------------- convolutions


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_one_channel_sees_what_three_equal_ones_saw(dtype: str) -> None:
    weights = torch.randn(8, 3, 5, 5, generator=torch.manual_seed(0)).to(getattr(torch, dtype)).float().numpy()
    array = weights.astype(dtype if dtype != "bfloat16" else ml_dtypes.bfloat16)
    made = torch.from_numpy(fitted("channels", array, (8, 1, 5, 5)).astype(np.float32))
    exact = torch.from_numpy(weights).sum(1, keepdim=True)  # in float32, rounded once
    assert torch.equal(made, exact.to(getattr(torch, dtype)).float())
    image = torch.randn(2, 1, 9, 9)
    if dtype == "float32":
        whole = functional.conv2d(image.expand(2, 3, 9, 9), torch.from_numpy(weights))
        assert torch.allclose(whole, functional.conv2d(image, made), atol=1e-5)


@pytest.mark.parametrize(("have", "want"), [(3, 6), (1, 3), (3, 12), (4, 8)])
def test_repeated_channels_see_what_the_channels_saw(have: int, want: int) -> None:
    weights = numbers(8, have, 3, 3)
    made = fitted("channels", weights, (8, want, 3, 3))
    image = torch.randn(2, have, 9, 9)
    whole = functional.conv2d(image, torch.from_numpy(weights))
    repeated = torch.cat([image] * (want // have), 1)
    assert torch.allclose(whole, functional.conv2d(repeated, torch.from_numpy(made)), atol=1e-5)


def test_channels_are_cut_off_and_scaled() -> None:
    weights = numbers(4, 3, 3, 3)
    assert np.array_equal(fitted("channels", weights, (4, 2, 3, 3)), weights[:, :2] * np.float32(1.5))
    five = fitted("channels", weights, (4, 5, 3, 3))
    assert np.array_equal(five, weights[:, [0, 1, 2, 0, 1]] * np.float32(3 / 5))


def test_channels_of_a_space_to_depth_stem() -> None:
    weights = numbers(4, 12, 3, 3)
    made = fitted("channels(base=3)", weights, (4, 4, 3, 3))
    assert np.allclose(made, weights.reshape(4, 4, 3, 3, 3).sum(2), atol=1e-6)
    with pytest.raises(PlanError, match="one input channel for each 3"):
        op("channels(base=3)", (4, 12, 3, 3), (4, 5, 3, 3))


def test_patches_of_another_size_see_what_the_patches_saw() -> None:
    weights = numbers(6, 3, 4, 4)
    made = fitted("patch(antialias=False)", weights, (6, 3, 8, 8))
    patches = torch.randn(5, 3, 4, 4)
    larger = functional.interpolate(patches, size=(8, 8), mode="bicubic", antialias=False, align_corners=False)
    before = torch.einsum("nchw,ochw->no", patches, torch.from_numpy(weights))
    assert torch.allclose(torch.einsum("nchw,ochw->no", larger, torch.from_numpy(made)), before, atol=1e-4)


# ---------------------------------------------------------------------------------------------- grids


def deit(weights: torch.Tensor, size: int, prefix: int) -> torch.Tensor:
    """What DeiT's main.py does to a position embedding when it fine-tunes at another resolution."""
    old = int((weights.shape[-2] - prefix) ** 0.5)
    extra, positions = weights[:, :prefix], weights[:, prefix:]
    positions = positions.reshape(-1, old, old, weights.shape[-1]).permute(0, 3, 1, 2)
    positions = functional.interpolate(positions, size=(size, size), mode="bicubic", align_corners=False)
    return torch.cat((extra, positions.permute(0, 2, 3, 1).flatten(1, 2)), dim=1)


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("size", [24, 7])
def test_grid_as_deit_does_it(prefix: int, size: int) -> None:
    array = numbers(1, prefix + 196, 24)
    want = deit(torch.from_numpy(array), size, prefix).numpy()
    made = fitted("grid(antialias=False)", array, want.shape)
    assert np.array_equal(made, want)
    assert np.array_equal(made[:, :prefix], array[:, :prefix])
    flat = fitted("grid(antialias=False)", array[0], want.shape[1:])
    assert np.array_equal(flat, want[0])


def test_antialias_matters_when_growing_too() -> None:
    array = numbers(1, 197, 24) * np.float32(0.1)
    made = [fitted(f"grid(antialias={flag})", array, (1, 577, 24)) for flag in (True, False)]
    assert 0.01 < np.abs(made[0] - made[1]).max() < 0.1


def test_grids_that_are_not_square() -> None:
    array = numbers(1, 1 + 6 * 10, 8)
    made = fitted("grid(source_grid=(6, 10), target_grid=(9, 4))", array, (1, 1 + 36, 8))
    planes = torch.from_numpy(array)[:, 1:].reshape(1, 6, 10, 8).permute(0, 3, 1, 2)
    want = functional.interpolate(planes, size=(9, 4), mode="bicubic", antialias=True)
    assert np.array_equal(made[:, 1:], want.permute(0, 2, 3, 1).reshape(1, 36, 8).numpy())
    turned = op("grid(source_grid=(4, 9), target_grid=(9, 4))", (1, 36, 8), (1, 36, 8))
    assert (turned.grid, turned.new_grid, turned.prefix) == ((4, 9), (9, 4), 0)


def test_four_axes_channels_first_or_last() -> None:
    array = numbers(1, 8, 14, 7)
    made = fitted("grid(mode=bilinear)", array, (1, 8, 10, 10))
    want = functional.interpolate(torch.from_numpy(array), size=(10, 10), mode="bilinear", antialias=True).numpy()
    assert np.array_equal(made, want)
    last = np.ascontiguousarray(array.transpose(0, 2, 3, 1))
    assert np.allclose(fitted("grid(mode=bilinear)", last, (1, 10, 10, 8)), want.transpose(0, 2, 3, 1), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)])
def test_small_floats_are_computed_in_float32_and_rounded_once(dtype: np.dtype[Any]) -> None:
    array = numbers(1, 17, 8).astype(dtype)
    for text, source, shape in [
        ("grid", array, (1, 26, 8)),
        ("table", array.reshape(17, 8)[:9], (25, 8)),
        ("table(mode=geometric)", array.reshape(17, 8)[:9], (25, 8)),
        ("patch", array[0, :16].reshape(8, 1, 4, 4), (8, 1, 6, 6)),
    ]:
        exact = fitted(text, source.astype(np.float32), shape).astype(dtype)
        made = fitted(text, source, shape)
        assert np.array_equal(made.view(np.uint16), exact.view(np.uint16)), text


def test_a_distilled_source_gives_its_class_token_to_a_plain_target() -> None:
    array = numbers(1, 198, 8)
    made = fitted("grid", array, (1, 577, 8))
    assert np.array_equal(made, fitted("grid", np.delete(array, 1, axis=1), (1, 577, 8)))
    both = op("grid", (1, 198, 8), (1, 578, 8))
    assert isinstance(both, Grid)
    assert (both.prefix, both.new_prefix, both.new_grid) == (2, 2, (24, 24))
    for have, want in ((197, 578), (197, 576), (198, 576)):
        with pytest.raises(PlanError, match="as many prefix tokens"):
            op("grid", (1, have, 8), (1, want, 8))


def swin(table: torch.Tensor, rows: int) -> torch.Tensor:
    """What Swin's utils.py does to a bias table when it loads a pretrained model of another window."""
    old, new = int(table.shape[0] ** 0.5), int(rows**0.5)
    planes = table.permute(1, 0).view(1, table.shape[1], old, old)
    return functional.interpolate(planes, size=(new, new), mode="bicubic").view(table.shape[1], rows).permute(1, 0)


def test_table_as_swin_does_it() -> None:
    array = numbers(13 * 13, 4)
    assert np.array_equal(fitted("table", array, (23 * 23, 4)), swin(torch.from_numpy(array), 23 * 23).numpy())
    extra = numbers(13 * 13 + 3, 4)
    made = fitted("table", extra, (23 * 23 + 3, 4))
    assert np.array_equal(made[:-3], swin(torch.from_numpy(extra[:-3].copy()), 23 * 23).numpy())
    assert np.array_equal(made[-3:], extra[-3:])


def test_geometric_tables_keep_what_is_near_and_constant_what_is_constant() -> None:
    array = np.full((13 * 13, 2), 3.0, np.float32)
    assert np.allclose(fitted("table(mode=geometric)", array, (23 * 23, 2)), 3.0)
    array = numbers(13 * 13, 2)
    made = fitted("table(mode=geometric)", array, (23 * 23, 2)).reshape(23, 23, 2)
    assert np.allclose(made[10:13, 10:13], array.reshape(13, 13, 2)[5:8, 5:8], atol=1e-5)  # places -1, 0, 1


def test_windows_that_are_not_square() -> None:
    made = op("table(source_window=(4, 2), target_window=(3, 5))", (7 * 3, 4), (5 * 9, 4))
    assert (made.size, made.new_size, made.extra) == ((7, 3), (5, 9), 0)
    heads_first = numbers(4, 7, 3)
    assert fitted("table", heads_first, (4, 5, 9)).shape == (4, 5, 9)


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "have", "want", "message"),
    [
        ("channels", (8, 3, 3, 3), (16, 1, 3, 3), "needs conv weights that differ in their input channels"),
        ("channels", (8, 3), (8, 1), "needs conv weights"),
        ("grid", (1, 196, 8), (1, 576, 9), "of equal width"),
        ("grid", (1, 190, 8), (1, 577, 8), "the source's 190 positions after 0 to 2 prefix tokens do not make one"),
        ("grid(prefix=1)", (1, 198, 8), (1, 577, 8), "198 positions after 1 prefix tokens"),
        ("grid(source_grid=(14, 15))", (1, 197, 8), (1, 577, 8), "a source_grid of 14 x 15"),
        ("grid(prefix=1, source_grid=(14, 13))", (1, 197, 8), (1, 577, 8), "after 1 prefix tokens"),
        ("grid", (1, 8, 14, 8), (1, 8, 24, 8), "equal channels along axis 1 or axis 3"),
        ("grid", (8,), (9,), "needs position embeddings"),
        ("table", (169, 4), (529, 8), "of equal heads"),
        ("table", (170, 4), (529, 4), "a square window"),
        ("table(source_window=(8, 8))", (169, 4), (529, 4), "not 8 x 8"),
        ("table", (172, 4), (529, 4), "as many extra rows"),
        ("patch", (8, 3, 16, 16), (8, 1, 14, 14), "differ in h and w only"),
        ("rows", (10, 8), (5, 9), "differ along axis 0 only"),
        ("rows(rows=[10])", (10, 8), (5, 8), "rows names row 10, and w has 10"),
        ("rows(labels_source='source.txt', labels_target='one-crane.txt')", (5,), (5,), "crane stands 2 times"),
        ("rows(labels_source='source.txt', labels_target='other.txt')", (5,), (5,), "no label in common"),
        ("rows(labels_source='source.txt', labels_target='target.json')", (5,), (6,), "has 5 labels"),
        ("slice", (3, 3), (3,), "no longer along any axis"),
    ],
)
def test_shapes_that_a_method_is_not_meant_for(
    text: str, have: tuple[int, ...], want: tuple[int, ...], message: str
) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        op(text, have, want)


def test_integers_are_not_interpolated() -> None:
    for text, have, want in [
        ("grid", (1, 4, 8), (1, 9, 8)),
        ("table", (9, 2), (25, 2)),
        ("channels", (4, 3, 1), (4, 1, 1)),
    ]:
        with pytest.raises(PlanError, match="floating-point numbers"):
            fitted(text, np.ones(have, np.int64), want)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bicubic", "unknown fit"),
        ("grid(prefiks=1)", "no argument prefiks"),
        ("grid(prefix='1')", "prefix of .* is a number"),
        ("grid(prefix=True)", "prefix of .* is a number"),
        ("grid(mode=nearest)", "'bicubic' or 'bilinear', not nearest"),
        ("grid(source_grid=14)", "two numbers"),
        ("grid(source_grid=(0, 14))", "two numbers"),
        ("grid(1)", "cannot be read"),
        ("grid(prefix=1, prefix=1)", "cannot be read"),
        ("grid(**{})", "cannot be read"),
        ("grid(prefix=1)())", "cannot be read"),
        ("grid(prefix=__import__('os').getpid())", "prefix of .* is a number"),
        ("grid(prefix=" + "(" * 500 + ")" * 500 + ")", "cannot be read"),
        ("grid(prefix=" + "-" * 100_000 + "1)", "cannot be read"),
        ("rows(rows=[1, -1])", "a list of row numbers"),
        ("rows(fill=normal(-1))", "fill of"),
        ("pad(value='x')", "value of"),
        ("slice(a=1)", "no argument a"),
    ],
)
def test_arguments_that_a_method_does_not_have(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_fit(text)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("labels_source='source.txt'", "needs both"),
        ("rows=[1], labels_source='source.txt', labels_target='target.json'", "or rows alone"),
        ("labels_source='odd.json', labels_target='target.json'", "is not a list of labels"),
        ("rows='source.txt'", "is not a list of row numbers"),
    ],
)
def test_lists_that_are_none(args: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        op(f"rows({args})", (5,), (5,))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file labels\.txt"):
        beside(tmp_path)("labels.txt")
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read as text"):
        beside(tmp_path)("labels.txt")
    (tmp_path / "bad.json").write_text('["a",')
    with pytest.raises(UsageError, match="is not JSON"):
        fit_op(
            Fit("rows", "labels_source='bad.json', labels_target='bad.json'"), spec(1), spec(1), lookup=beside(tmp_path)
        )


def test_a_malformed_fit_in_a_rule_is_shown_in_its_place() -> None:
    with pytest.raises(UsageError, match="no argument prefiks") as info:
        parse_rule("a -> b | fit grid(prefiks=1)")
    assert info.value.hint == 'did you mean "prefix"?'
    with pytest.raises(UsageError, match="not a step"):
        parse_rule("a -> b | fit grid(")


# ---------------------------------------------------------------------------------------------- in a recipe


def test_fits_of_a_deit_recipe() -> None:
    recipe = parse_recipe(
        [
            "pos_embed -> pos_embed | fit grid(prefix=1, mode='bicubic', antialias=True)",
            "patch_embed.proj.weight -> patch_embed.proj.weight | fit channels",
            "head.{p*} -> head.{p*} | fit rows(fill='mean') | bf16",
        ]
    )
    source = {
        "pos_embed": numbers(1, 17, 8),
        "patch_embed.proj.weight": numbers(8, 3, 4, 4),
        "head.weight": numbers(5, 8),
        "head.bias": numbers(5),
    }
    shapes = [(1, 37, 8), (8, 1, 4, 4), (7, 8), (7,)]
    targets = {key: TensorSpec(key, "float32", shape) for key, shape in zip(source, shapes, strict=True)}
    made = run(expand(recipe, array_specs(source), targets=targets, fit=fit_op), source)
    assert [array.shape for array in made.values()] == shapes
    assert np.array_equal(made["pos_embed"], fitted("grid", source["pos_embed"], (1, 37, 8)))
    assert made["head.bias"].dtype == ml_dtypes.bfloat16


def test_equal_shapes_are_left_alone_unless_the_fit_says_which_rows() -> None:
    source = {"w": numbers(3, 2)}
    targets = array_specs(source)
    copied = expand(parse_recipe(["w -> w | fit rows"]), targets, targets=targets, fit=fit_op)
    assert copied.steps[0].is_copy
    turned = expand(parse_recipe(["w -> w | fit rows(rows=[2, 1, 0])"]), targets, targets=targets, fit=fit_op)
    assert np.array_equal(run(turned, source)["w"], source["w"][::-1])


def test_problems_of_a_fit_are_problems_of_the_plan() -> None:
    found = expand(
        parse_recipe(["w -> w | fit pad"]), {"w": spec(4, 2)}, targets={"w": spec(3, 2)}, fit=fit_op
    ).problems
    assert 'rule 1: "fit pad" needs a target with more rows: w is f32[4,2], the target f32[3,2]' in found[0].message


def test_ops_are_values() -> None:
    one, two = (op("grid", (1, 197, 8), (1, 577, 8)) for _ in range(2))
    assert one == two and hash(one) == hash(two)
    assert Apply(one, (Source(0, "w"),)) == Apply(two, (Source(0, "w"),))
    with pytest.raises(PlanError, match="made for another shape"):
        one.result([spec(1, 198, 8)])


# ---------------------------------------------------------------------------------------------- by default


@pytest.mark.parametrize(
    ("key", "have", "want", "fit"),
    [
        ("pos_embed", (1, 198, 8), (1, 577, 8), "fit grid(mode='bicubic', antialias=True)"),
        ("encoder.pos_embedding", (1, 197, 8), (1, 577, 8), "fit grid(prefix=1, mode='bicubic', antialias=True)"),
        (
            "vision_model.embeddings.position_embedding.weight",
            (50, 8),
            (197, 8),
            "fit grid(prefix=1, mode='bicubic', antialias=True)",
        ),
        ("visual.positional_embedding", (50, 8), (197, 8), "fit grid(prefix=1, mode='bicubic', antialias=True)"),
        ("decoder_pos_embed", (1, 197, 8), (1, 65, 8), "fit grid(prefix=1, mode='bicubic', antialias=True)"),
        ("image_encoder.pos_embed", (1, 64, 64, 8), (1, 32, 32, 8), "fit grid(mode='bicubic', antialias=True)"),
        ("bert.embeddings.position_embeddings.weight", (1024, 8), (4096, 8), None),  # positions in a text
        ("pos_embed", (1, 190, 8), (1, 577, 8), None),
        ("layers.0.blocks.0.attn.relative_position_bias_table", (169, 4), (529, 4), "fit table(mode='bicubic')"),
        ("layers.0.blocks.0.attn.relative_position_index", (49, 49), (144, 144), None),
        ("conv1.weight", (64, 3, 7, 7), (64, 1, 7, 7), "fit channels"),
        ("base.conv1.weight", (64, 3, 7, 7), (64, 6, 7, 7), "fit channels"),
        ("patch_embed.proj.weight", (8, 1, 4, 4), (8, 3, 4, 4), "fit channels"),
        ("patch_embed.proj.weight", (8, 3, 16, 16), (8, 3, 14, 14), "fit patch(mode='bicubic', antialias=True)"),
        ("blocks.1.conv_dw.weight", (8, 1, 3, 3), (8, 8, 3, 3), None),  # depthwise
        ("layer1.0.conv1.weight", (64, 64, 3, 3), (64, 32, 3, 3), None),
        ("layer1.0.conv2.weight", (64, 64, 3, 3), (32, 64, 3, 3), None),
        ("fc.weight", (1000, 8), (751, 8), None),  # heads: other classes, other rows
        ("heads.head.weight", (1000, 8), (10, 8), None),
        ("layer1.0.se.fc.weight", (16, 8), (8, 8), None),
        ("fc.weight", (1000, 2048), (1000, 512), None),
        ("fc.running_mean", (10,), (12,), None),
        ("model.embed_tokens.weight", (100, 8), (128, 8), "fit pad(value='mean')"),
        ("lm_head.weight", (100, 8), (128, 8), "fit pad(value='mean')"),
        ("lm_head.weight", (128, 8), (100, 8), None),  # a vocabulary never gets smaller unasked
        ("model.norm.weight", (8,), (16,), None),
    ],
)
def test_the_fit_by_default(key: str, have: tuple[int, ...], want: tuple[int, ...], fit: str | None) -> None:
    found = default_fit(key, spec(*have, key=key), spec(*want, key=key))
    assert (found and found.text) == fit
    if found is not None:
        made = fit_op(found, spec(*have, key=key), spec(*want, key=key))
        assert made.result([spec(*have, key=key)]).shape == want


@pytest.mark.parametrize(
    ("key", "have", "want", "words"),
    [
        ("pos_embed", (1, 197, 8), (1, 129, 8), "pos_embed=grid(target_grid=(HEIGHT, WIDTH))"),
        ("pos_embed", (1, 129, 8), (1, 197, 8), "pos_embed=grid(source_grid=(HEIGHT, WIDTH))"),
        ("m.position_embedding", (91, 8), (201, 8), "source_grid=(HEIGHT, WIDTH), target_grid=(HEIGHT, WIDTH)"),
        ("pos_embed", (1, 197, 8), (1, 197, 9), "PATTERN=METHOD(...)"),
        ("fc.weight", (129, 8), (200, 8), "PATTERN=METHOD(...)"),
    ],
)
def test_grids_that_are_not_square_are_asked_for(
    key: str, have: tuple[int, ...], want: tuple[int, ...], words: str
) -> None:
    source, target = spec(*have, key=key), spec(*want, key=key)
    assert default_fit(key, source, target) is None
    assert words in named_grid(key, source, target)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["pos_embed", "conv1.weight", "fc.weight", "wte.weight", "a.relative_position_bias_table", "x"]),
    st.lists(st.integers(0, 30), max_size=4),
    st.lists(st.integers(0, 30), max_size=4),
    st.sampled_from(["float32", "int64", "bool", "float8_e4m3fn", "complex64"]),
)
def test_the_fit_by_default_never_fails(key: str, have: list[int], want: list[int], dtype: str) -> None:
    source, target = TensorSpec(key, dtype, tuple(have)), TensorSpec(key, "float32", tuple(want))
    found = default_fit(key, source, target)
    for text in (found.text[4:] if found else "grid", "table", "channels", "rows", "pad(value=mean)", "patch", "slice"):
        fit = parse_fit(text)
        assert fit is not None
        try:
            made = fit_op(fit, source, target)
        except CkptError:
            assert found is None or text != found.text[4:]
        else:
            assert made.result([source]) == TensorSpec(key, dtype, tuple(want))
            assert 0 <= made.covered <= target.elements
