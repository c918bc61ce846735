"""Preconditions of recipes: a recipe that does not fit is refused with the reason, and one that fits is exact."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ckptool.cli.app import run
from ckptool.core.errors import UsageError
from ckptool.core.spec import TensorSpec
from ckptool.recipes.recipe import load_recipe, parse_toml
from ckptool.recipes.require import parse_requirement, unmet_by_keys


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("dim", [0, 1, 2, None])
def test_weight_norm_of_another_axis_is_refused(
    dim: int | None, new: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conv = nn.Conv1d(6, 4, 5)
    weight = conv.weight.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: Any = nn.utils.parametrizations if new else nn.utils
        torch.save(module.weight_norm(conv, dim=dim).state_dict(), tmp_path / "a.pth")
    code = run(["remap", str(tmp_path / "a.pth"), "-r", "weight-norm-fuse", "-o", str(tmp_path / "o.pth")])
    if dim == 0:
        assert code == 0
        assert torch.allclose(torch.load(tmp_path / "o.pth")["weight"], weight, rtol=1e-6)
    else:
        assert code == 2
        assert "does not fit this input" in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "o.pth").exists()


PLAIN = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": False, "rank_pattern": {}}


@pytest.mark.parametrize(
    ("config", "key", "is_fine"),
    [
        ({}, None, True),
        ({"use_rslora": True}, None, False),
        ({"use_dora": True}, None, False),
        ({"rank_pattern": {"q": 4}}, None, False),
        ({"fan_in_fan_out": True}, None, False),
        ({}, "base_model.model.q.lora_magnitude_vector.default.weight", False),
        ({}, "base_model.model.head.modules_to_save.default.weight", False),
    ],
)
def test_lora_merge_knows_what_it_merges(
    config: dict[str, Any], key: str | None, is_fine: bool, tmp_path: Path
) -> None:
    weight, a, b = torch.randn(4, 3), torch.randn(2, 3), torch.randn(4, 2)
    layer = "base_model.model.q."
    state = {
        f"{layer}base_layer.weight": weight,
        f"{layer}lora_A.default.weight": a,
        f"{layer}lora_B.default.weight": b,
    }
    torch.save(state | ({key: torch.ones(4)} if key else {}), tmp_path / "whole.pth")
    (tmp_path / "adapter_config.json").write_text(json.dumps(PLAIN | config))
    code = run(["remap", str(tmp_path / "whole.pth"), "-r", "lora-merge", "-o", str(tmp_path / "o.pth")])
    assert (code == 0) == is_fine
    if is_fine:
        assert torch.allclose(torch.load(tmp_path / "o.pth")["q.weight"], weight + 2 * b @ a, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "shape", "is_met"),
    [
        ("w: ndim == 2", (3, 4), True),
        ("w: shape[0] % 2", (3, 4), None),
        ("w: shape[2] == 1", (3, 4), False),
        ("w: 1 < shape[0] <= 3 and not ndim == 1", (3, 4), True),
        ("w: dtype == 'float16' or count == 1", (3, 4), True),
        ("w: shape[-1] == 4", (3, 4), True),
        ("{m**}: elements != 12", (3, 4), False),
        ("no w", (3, 4), False),
        ("no *.w", (3, 4), True),
        ("x: ndim == 9", (3, 4), True),
        ("w: shape == 'a' < 3", (3, 4), False),
        ("w: __import__('os')", (3, 4), None),
        ("w: (lambda: 1)()", (3, 4), None),
        ("w ndim == 2", (3, 4), None),
        ("w: " + "not " * 5000 + "ndim", (3, 4), None),
    ],
)
def test_conditions(text: str, shape: tuple[int, ...], is_met: bool | None) -> None:
    if is_met is None:
        with pytest.raises(UsageError, match="is no precondition"):
            parse_requirement(text)
    else:
        unmet = list(unmet_by_keys([parse_requirement(text)], {"w": TensorSpec("w", "float32", shape)}))
        assert bool(unmet) != is_met


def test_a_recipe_states_its_preconditions() -> None:
    recipe = parse_toml('require = ["no *.x", "config.json: n == 2"]\nrules = ["a -> b"]', "mine")
    assert [each.subject for each in recipe.require] == ["*.x", "config.json"]
    assert load_recipe("weight-norm-fuse").require
    with pytest.raises(UsageError, match="is no precondition"):
        parse_toml('require = ["nothing"]\nrules = ["a -> b"]', "mine")
