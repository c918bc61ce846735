"""Conversions that need torch alone: the outputs agree, and the way back is bit-equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from recipe_harness import array_specs, assert_close, assert_comes_back, remap_torch, run, specs, structured
from torch import nn
from torch.nn import functional

from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import load_recipe, parse_recipe

pytestmark = pytest.mark.filterwarnings("default")  # the old weight_norm is deprecated


def test_wrappers_of_torch_itself() -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.se_module = nn.Linear(3, 3)
            self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))

    plain = Net().state_dict()
    nestings = []
    for order in ("compile data", "data compile", "data", "inner data"):
        model: Any = Net()
        if "inner" in order:
            model.body[0] = torch.compile(checkpoint_wrapper(model.body[0]))
            order = order.replace("inner ", "")
        for wrapper in order.split():
            model = torch.compile(model) if wrapper == "compile" else nn.DataParallel(model)
        nestings.append(list(model.state_dict()))
    nestings.append([f"module._fsdp_wrapped_module.{key}" for key in plain])
    assert len({keys[0] for keys in nestings}) == 4
    for keys in nestings:
        found = expand(load_recipe("strip-wrappers"), specs([(key, ()) for key in keys]))
        assert [step.target.key for step in found.steps] == list(plain)
        assert not found.problems


def test_lightning_to_plain() -> None:
    rules = ["model. ->", "loss_fn.{k**} -> !"]
    found = expand(parse_recipe(rules), specs([("model.conv.weight", (3,)), ("loss_fn.weight", (2,))]))
    assert [step.target.key for step in found.steps] == ["conv.weight"]


# ---------------------------------------------------------------------------------------------- torch alone


@pytest.mark.parametrize("build", [lambda: nn.Linear(6, 4), lambda: nn.Conv2d(3, 4, 3), lambda: nn.Conv1d(3, 4, 2)])
def test_weight_norm(build: Any) -> None:
    old = nn.Sequential(nn.utils.weight_norm(build()))
    new = nn.Sequential(nn.utils.parametrizations.weight_norm(build()))
    structured(old)
    recipe = load_recipe("weight-norm-to-parametrizations")
    made = remap_torch(recipe, old.state_dict())
    new.load_state_dict(made)
    plain = nn.Sequential(build())
    plain.load_state_dict(remap_torch(load_recipe("weight-norm-fuse"), old.state_dict()))
    same = nn.Sequential(build())
    same.load_state_dict(remap_torch(load_recipe("weight-norm-fuse"), made))
    x = torch.randn(2, 6) if isinstance(plain[0], nn.Linear) else torch.randn(2, 3, *[5] * (plain[0].weight.dim() - 2))
    assert torch.equal(old(x), new(x))
    assert_close(old(x), plain(x))
    assert torch.equal(plain(x), same(x))
    assert_comes_back(recipe, old.state_dict())


def test_swin_merging_is_unfold() -> None:
    """Swin concatenates the four neighbours of each patch; mmdetection lets nn.Unfold do it, in another order."""
    shapes = {"reduction.weight": (16, 32), "norm.weight": (32,), "norm.bias": (32,)}
    state = {f"layers.0.downsample.{name}": torch.randn(shape) for name, shape in shapes.items()}
    recipe = load_recipe("swin-merging-to-unfold")
    made = remap_torch(recipe, state)
    x = torch.randn(2, 8, 6, 6)  # n c h w
    rows = x.permute(0, 2, 3, 1)
    merged = torch.cat([rows[:, 0::2, 0::2], rows[:, 1::2, 0::2], rows[:, 0::2, 1::2], rows[:, 1::2, 1::2]], -1)
    unfolded = functional.unfold(x, 2, stride=2).transpose(1, 2)

    def layer(weights: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        norm = [weights[f"layers.0.downsample.norm.{p}"] for p in ("weight", "bias")]
        return functional.linear(
            functional.layer_norm(inputs, (32,), *norm), weights["layers.0.downsample.reduction.weight"]
        )

    assert_close(layer(state, merged).reshape(2, 9, 16), layer(made, unfolded))
    assert_comes_back(recipe, state)


def test_background_row_and_vocabulary() -> None:
    head = torch.randn(81, 8)
    state = {"cls.weight": head, "embed.weight": torch.randn(50, 8)}
    rules = ["cls.weight -> cls.weight | (bg + n) i -> (n + bg) i", "embed.weight -> embed.weight | v d -> (v + 14) d"]
    recipe = parse_recipe(rules)
    made = remap_torch(recipe, state, vars={"bg": 1})
    x = torch.randn(3, 8)
    assert torch.equal((x @ head.T).roll(-1, 1), x @ made["cls.weight"].T)
    assert made["embed.weight"].shape == (64, 8)
    assert torch.equal(made["embed.weight"][:50], state["embed.weight"])
    assert_comes_back(recipe, state, vars={"bg": 1})
    dropped = remap_torch(parse_recipe(["w -> w | (1 + n) i -> n i"]), {"w": head})
    assert torch.equal(dropped["w"], head[1:])


def test_queries_keys_and_values_of_different_files() -> None:
    q, k, v = (np.random.default_rng(at).standard_normal((4, 4)).astype("f4") for at in range(3))
    files = [{"l.0.q.weight": q, "x": q[0]}, {"l.0.k.weight": k, "l.0.v.weight": v}]
    rule = "{m**}.q.weight, {m**}.k.weight, {m**}.v.weight -> {m**}.qkv.weight | a i, b i, c i -> (a + b + c) i"
    made = run(expand(parse_recipe([rule]), [array_specs(file) for file in files]), *files)
    assert list(made) == ["l.0.qkv.weight", "x"]
    assert np.array_equal(made["l.0.qkv.weight"], np.concatenate([q, k, v]))
