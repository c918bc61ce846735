"""LitEma's averages, whose names have no dots: a moving average under the names of the weights again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ckptool.cli.app import run
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UsageError
from ckptool.facts.averages import averaged
from ckptool.formats.opening import open_checkpoint


def average_of(path: Path) -> Checkpoint:
    return averaged(open_checkpoint(path), lambda place: open_checkpoint(path, select=place))


def litema(model: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What latent diffusion's LightningModule saves: the weights, their averages, and what has no average."""
    state = {f"model.{name}": value for name, value in model.items()}
    state |= {f"model_ema.{name.replace('.', '')}": value + 1 for name, value in model.items()}
    return state | {"model_ema.decay": torch.tensor(0.999), "first_stage_model.conv.weight": torch.ones(3)}


def test_averages_take_the_place_of_the_weights(tmp_path: Path) -> None:
    model = {"diffusion_model.out.0.weight": torch.randn(4), "diffusion_model.out.1.bias": torch.randn(2)}
    torch.save({"epoch": 3, "state_dict": litema(model)}, tmp_path / "ldm.ckpt")
    assert run(["filter", str(tmp_path / "ldm.ckpt"), "--ema", "-o", str(tmp_path / "ema.ckpt")]) == 0
    loaded = torch.load(tmp_path / "ema.ckpt", weights_only=True)
    assert loaded["epoch"] == 3
    assert list(loaded["state_dict"]) == [*(f"model.{name}" for name in model), "first_stage_model.conv.weight"]
    for name, value in model.items():
        assert torch.equal(loaded["state_dict"][f"model.{name}"], value + 1)
    assert torch.equal(loaded["state_dict"]["first_stage_model.conv.weight"], torch.ones(3))


def test_names_that_are_one_without_dots_are_refused(tmp_path: Path) -> None:
    torch.save(litema({"a.b": torch.ones(1), "ab": torch.zeros(1)}), tmp_path / "ldm.ckpt")
    with pytest.raises(UsageError, match="one name without their dots"):
        average_of(tmp_path / "ldm.ckpt")


def test_a_file_without_averages_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model.w": torch.ones(1)}, tmp_path / "plain.pth")
    assert run(["filter", str(tmp_path / "plain.pth"), "--ema"]) == 2
    assert "holds no moving average" in capsys.readouterr().err
