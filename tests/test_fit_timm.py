"""Fits against timm's own functions, bit for bit. Skipped where timm is not installed."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import ckptool
from ckptool.commands.transplant.planning import plan_transplant
from ckptool.commands.transplant.suggest import Suggestion, suggestions
from ckptool.core.spec import TensorSpec
from ckptool.fits import fit_op
from ckptool.fits.args import parse_fit
from ckptool.formats.opening import open_checkpoint
from ckptool.models.target import target_of

pytestmark = pytest.mark.filterwarnings("default")  # timm's are not ours

DTYPES = ["float32", "float16", "bfloat16", "float64"]


@pytest.fixture(scope="module")
def layers(torchvision: ModuleType) -> Any:
    pytest.importorskip("timm")
    import timm.layers

    return timm.layers


def weights(*shape: int, dtype: str = "float32") -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(getattr(torch, dtype))


def ours(text: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    fit = parse_fit(text)
    assert fit is not None
    dtype = str(tensor.dtype).removeprefix("torch.")
    raw = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    array = np.frombuffer(raw, getattr(ml_dtypes, dtype, None) or dtype).reshape(tensor.shape)
    op = fit_op(fit, TensorSpec("w", dtype, array.shape), TensorSpec("w", dtype, shape))
    made = np.ascontiguousarray(op.compute([array]))
    return torch.frombuffer(bytearray(made.tobytes()), dtype=tensor.dtype).reshape(made.shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("size", "prefix"), [(24, 1), (7, 1), (16, 0), (24, 2)])
def test_resample_abs_pos_embed(layers: Any, dtype: str, antialias: bool, mode: str, size: int, prefix: int) -> None:
    tensor = weights(1, 196 + prefix, 192, dtype=dtype)
    theirs = layers.resample_abs_pos_embed(
        tensor, [size, size], num_prefix_tokens=prefix, interpolation=mode, antialias=antialias
    )
    made = ours(f"grid(prefix={prefix}, mode={mode}, antialias={antialias})", tensor, tuple(theirs.shape))
    assert torch.equal(made, theirs)
    assert torch.equal(ours(f"grid(mode={mode}, antialias={antialias})", tensor, tuple(theirs.shape)), theirs)


@pytest.mark.parametrize(("old", "new"), [((14, 14), (8, 20)), ((7, 28), (14, 14)), ((12, 16), (16, 12))])
def test_resample_abs_pos_embed_not_square(layers: Any, old: tuple[int, int], new: tuple[int, int]) -> None:
    tensor = weights(1, old[0] * old[1] + 1, 64)
    theirs = layers.resample_abs_pos_embed(tensor, list(new), list(old))
    assert torch.equal(ours(f"grid(source_grid={old}, target_grid={new})", tensor, tuple(theirs.shape)), theirs)


def test_resample_abs_pos_embed_nhwc(layers: Any) -> None:
    tensor = weights(1, 14, 14, 64)
    theirs = layers.resample_abs_pos_embed_nhwc(tensor, [24, 20])
    assert torch.equal(ours("grid", tensor, tuple(theirs.shape)), theirs)


@pytest.mark.parametrize(("size", "dtype"), [(384, "float32"), (160, "bfloat16")])
def test_the_filter_of_a_vit(layers: Any, size: int, dtype: str) -> None:
    """Row 18 of the conversions: DeiT at another resolution, through the filter that timm loads checkpoints with."""
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    model = timm.create_model("deit_tiny_patch16_224", img_size=size, depth=1, num_classes=5)
    tensor = weights(1, 197, 192, dtype=dtype)
    theirs = checkpoint_filter_fn({"pos_embed": tensor}, model)["pos_embed"]
    assert theirs.shape == model.pos_embed.shape
    assert torch.equal(ours("grid(prefix=1, mode='bicubic', antialias=True)", tensor, tuple(theirs.shape)), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 4, 6, 7])
def test_adapt_input_conv(layers: Any, dtype: str, channels: int) -> None:
    from timm.models import adapt_input_conv

    tensor = weights(64, 3, 7, 7, dtype=dtype)
    theirs = adapt_input_conv(channels, tensor)
    assert torch.equal(ours("channels", tensor, tuple(theirs.shape)), theirs)


def test_adapt_input_conv_of_a_space_to_depth_stem(layers: Any) -> None:
    from timm.models import adapt_input_conv

    tensor = weights(64, 12, 3, 3)
    theirs = adapt_input_conv(1, tensor)
    assert torch.allclose(ours("channels(base=3)", tensor, tuple(theirs.shape)), theirs, atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [(7, 12), (12, 7), (8, 16), (14, 24)])
@pytest.mark.parametrize("extra", [0, 3])
def test_resize_rel_pos_bias_table(layers: Any, old: int, new: int, extra: int) -> None:
    from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_levit

    tensor = weights((2 * old - 1) ** 2 + extra, 4)
    shape = ((2 * new - 1) ** 2 + extra, 4)
    simple = layers.resize_rel_pos_bias_table_simple(tensor, (new, new), shape)
    assert torch.equal(ours("table(mode='bicubic')", tensor, shape), simple)
    geometric = layers.resize_rel_pos_bias_table(tensor, (new, new), shape)
    assert torch.equal(ours("table(mode=geometric)", tensor, shape), geometric)
    if not extra:
        levit = resize_rel_pos_bias_table_levit(tensor, shape)
        assert torch.equal(ours("table(antialias=True)", tensor, shape), levit)


def test_resize_rel_pos_bias_table_by_heads_and_not_square(layers: Any) -> None:
    tensor = weights(4, 13, 13)
    theirs = layers.resize_rel_pos_bias_table(tensor, (12, 10), (4, 23, 19))
    assert torch.equal(ours("table(mode=geometric)", tensor, (4, 23, 19)), theirs)
    simple = layers.resize_rel_pos_bias_table_simple(tensor, (12, 10), (4, 23, 19))
    assert torch.equal(ours("table", tensor, (4, 23, 19)), simple)
    flat = weights(13 * 7, 4)
    theirs = layers.resize_rel_pos_bias_table(flat, (12, 10), (23 * 19, 4), old_window_size=(7, 4))
    made = ours("table(mode=geometric, source_window=(7, 4), target_window=(12, 10))", flat, (23 * 19, 4))
    assert torch.equal(made, theirs)


def test_the_filter_of_a_swin(layers: Any) -> None:
    """What timm does with Swin's own tables is the geometric mode."""
    import timm
    from timm.models.swin_transformer import checkpoint_filter_fn

    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=384, window_size=12, depths=(1, 1), num_classes=5
    )
    key = "layers.0.blocks.0.attn.relative_position_bias_table"
    tensor = weights(169, 3)
    theirs = checkpoint_filter_fn({key: tensor}, model)[key]
    assert torch.equal(ours("table(mode='geometric')", tensor, (529, 3)), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(14, 14), (32, 32), (8, 12)])
def test_resample_patch_embed(layers: Any, dtype: str, size: tuple[int, int]) -> None:
    tensor = weights(48, 3, 16, 16, dtype=dtype)
    theirs = layers.resample_patch_embed(tensor, list(size))
    assert torch.equal(ours("patch", tensor, tuple(theirs.shape)), theirs)


def test_the_grid_that_a_model_states_is_taken(layers: Any, tmp_path: Path) -> None:
    """A ViT for persons, 256 by 128: the usual fit gives what timm's own loading gives."""
    import timm

    small = {"embed_dim": 12, "num_heads": 2, "depth": 1, "num_classes": 0}
    square = timm.create_model("vit_tiny_patch16_224", **small)
    tall = timm.create_model("vit_tiny_patch16_224", img_size=(256, 128), **small)
    torch.save(square.state_dict(), tmp_path / "square.pth")
    done = plan_transplant(open_checkpoint(tmp_path / "square.pth"), target_of(tall))
    (found,) = suggestions(done)
    assert found == Suggestion(("--mismatch", "fit"), 1)
    ckptool.load_into(tall, tmp_path / "square.pth", mismatch="fit", strict=False)
    expected = layers.resample_abs_pos_embed(square.pos_embed, [16, 8])
    assert torch.equal(tall.pos_embed, expected)
    with_checkpoint = plan_transplant(open_checkpoint(tmp_path / "square.pth"), target_of(square))
    assert suggestions(with_checkpoint) == ()
