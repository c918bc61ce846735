"""Optimizer state moves with the elements of its parameters: training goes on as if nothing had been done."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ckptool.commands.beside.complete import complete
from ckptool.commands.filter import plan_filter
from ckptool.commands.remap import plan_remap
from ckptool.core.beside import Fate
from ckptool.formats.opening import open_checkpoint
from ckptool.recipes.recipe import parse_recipe
from tests.writing import apply

MAKERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda params: torch.optim.Adam(params, lr=0.01),
    "amsgrad": lambda params: torch.optim.Adam(params, lr=0.01, amsgrad=True),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.01, weight_decay=0.1),
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
}
LAYOUTS = ("names", "numbers", "keys")


class Fused(nn.Module):
    """A Conv1D of GPT-2 ([in, out]), and queries, keys and values in one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Parameter(torch.randn(6, 4))
        self.qkv = nn.Linear(4, 9)
        self.norm = nn.LayerNorm(9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x @ self.proj).chunk(3, -1)
        return self.norm(torch.cat([q, q * k, v], -1))


class Split(nn.Module):
    """The same with a Linear, and with three matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4, bias=False)
        self.q, self.k, self.v = (nn.Linear(4, 3) for _ in range(3))
        self.ln = nn.LayerNorm(9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(x)
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.ln(torch.cat([q, q * k, v], -1))


FORWARDS = [
    "proj -> fc.weight | i o -> o i",
    "qkv.weight -> {x=q|k|v}.weight | (x o) i -> o i",
    "qkv.bias -> {x=q|k|v}.bias | (x o) -> o",
    "norm. -> ln.",
]


def grouped(model: nn.Module, maker: str, layout: str, groups: int) -> torch.optim.Optimizer:
    """An optimizer with one group, or with matrices and vectors apart."""
    named = list(model.named_parameters())
    parts = [named] if groups == 1 else [[p for p in named if p[1].dim() > 1], [p for p in named if p[1].dim() == 1]]
    given = [{"params": part if layout == "names" else [p for _, p in part]} for part in parts]
    if groups == 2:
        given[1]["lr"] = 0.02  # type: ignore[assignment]
    return MAKERS[maker](given)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    optimizer.zero_grad()
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    model(x).square().sum().backward()
    optimizer.step()


def keyed(state: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """The state with keys in place of numbers, as FSDP writes it."""
    names = {id(p): name for name, p in model.named_parameters()}
    order = [names[id(p)] for group in state["live"] for p in group["params"]]
    groups = [{**g, "params": [order[n] for n in g["params"]]} for g in state["param_groups"]]
    return {"state": {order[n]: value for n, value in state["state"].items()}, "param_groups": groups}


def numbered(state: Mapping[str, Any]) -> dict[str, Any]:
    """The other way round: by the order of the groups."""
    order = [name for group in state["param_groups"] for name in group["params"]]
    groups = [{**g, "params": [order.index(n) for n in g["params"]]} for g in state["param_groups"]]
    return {"state": {order.index(n): value for n, value in state["state"].items()}, "param_groups": groups}


@pytest.mark.parametrize("direction", ["split", "joined"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("maker", MAKERS)
def test_the_next_step_is_the_step_without_surgery(
    tmp_path: Path, maker: str, layout: str, groups: int, direction: str
) -> None:
    torch.manual_seed(0)
    old, new = (Fused().double(), Split().double()) if direction == "split" else (Split().double(), Fused().double())
    optimizer = grouped(old, maker, layout, groups)
    for seed in range(3):
        step(old, optimizer, seed)
    state = optimizer.state_dict()
    if layout == "keys":
        state = keyed({**state, "live": optimizer.param_groups}, old)
    torch.save({"state_dict": old.state_dict(), "optimizer": state}, tmp_path / "in.pth")
    recipe = parse_recipe(FORWARDS)
    source = open_checkpoint(tmp_path / "in.pth")
    plan = complete(plan_remap(source, recipe, backwards=direction == "joined"), "torch")
    assert not plan.problems
    assert [beside.fate for beside in plan.beside] == [Fate.EDITED]
    apply(plan, tmp_path / "out.pth")
    found = torch.load(tmp_path / "out.pth", weights_only=True)
    new.load_state_dict(found["state_dict"], strict=True)
    follower = grouped(new, maker, layout, groups)
    follower.load_state_dict(numbered(found["optimizer"]) if layout == "keys" else found["optimizer"])
    step(old, optimizer, 9)
    step(new, follower, 9)
    torch.save({"state_dict": old.state_dict()}, tmp_path / "next.pth")
    apply(
        plan_remap(open_checkpoint(tmp_path / "next.pth"), recipe, backwards=direction == "joined"),
        tmp_path / "wanted.pth",
    )
    wanted = torch.load(tmp_path / "wanted.pth", weights_only=True)["state_dict"]
    for key, tensor in new.state_dict().items():
        torch.testing.assert_close(tensor, wanted[key], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_moments_are_the_moved_moments(tmp_path: Path, layout: str) -> None:
    torch.manual_seed(1)
    model = Fused().double()
    optimizer = grouped(model, "adam", layout, 1)
    step(model, optimizer, 0)
    state = optimizer.state_dict()
    if layout == "keys":
        state = keyed({**state, "live": optimizer.param_groups}, model)
    torch.save({"state_dict": model.state_dict(), "optimizer": state}, tmp_path / "in.pth")
    apply(plan_remap(open_checkpoint(tmp_path / "in.pth"), parse_recipe(FORWARDS)), tmp_path / "out.pth")
    after = torch.load(tmp_path / "out.pth", weights_only=True)["optimizer"]
    before = numbered(state)["state"] if layout == "keys" else state["state"]
    moments = [after["state"][n]["exp_avg"] for n in after["param_groups"][0]["params"]]
    assert torch.equal(moments[0], before[0]["exp_avg"].T)
    assert torch.equal(torch.cat(moments[1:6:2]), before[1]["exp_avg"])
    assert torch.equal(torch.cat(moments[2:7:2]), before[2]["exp_avg"])


def test_a_cast_keeps_the_moments(tmp_path: Path) -> None:
    model = Fused()
    optimizer = MAKERS["adam"](model.parameters())
    model(torch.randn(2, 6)).sum().backward()
    optimizer.step()
    torch.save({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "in.pth")
    plan = complete(plan_filter(open_checkpoint(tmp_path / "in.pth"), dtype="bf16"), "torch")
    assert [(beside.name, beside.fate) for beside in plan.beside] == [("optimizer", Fate.KEPT)]
    apply(plan, tmp_path / "out.pth")
    found = torch.load(tmp_path / "out.pth", weights_only=True)
    cast = Fused().bfloat16()
    cast.load_state_dict(found["state_dict"])
    MAKERS["adam"](cast.parameters()).load_state_dict(found["optimizer"])


REFUSED = {
    "scaled": ["proj -> proj |= $1 * 2"],
    "joined over groups": ["proj, qkv.weight -> all | i o, n o -> (i + n) o"],
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_follow_is_refused(tmp_path: Path, case: str) -> None:
    model = Fused()
    model.qkv.weight.data.zero_()
    optimizer = torch.optim.Adam([{"params": [model.proj]}, {"params": list(model.parameters())[1:], "lr": 0.1}])
    model(torch.randn(2, 6)).sum().backward()
    optimizer.step()
    torch.save({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "in.pth")
    rules = [rule.replace(" |= ", " | = ") for rule in REFUSED[case]]
    plan = complete(plan_remap(open_checkpoint(tmp_path / "in.pth"), parse_recipe(rules)), "torch")
    (problem,) = plan.problems
    assert problem.message.startswith("the state of optimizer cannot follow")
    assert "--drop-optimizer" in problem.hint


def test_tied_parameters_have_one_state(tmp_path: Path) -> None:
    model = nn.Sequential(OrderedDict(embed=nn.Linear(3, 3, bias=False), head=nn.Linear(3, 3, bias=False)))
    model.head.weight = model.embed.weight
    optimizer = MAKERS["adam"](model.named_parameters())
    model(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    torch.save({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "in.pth")
    apply(plan_filter(open_checkpoint(tmp_path / "in.pth"), [("drop", "embed.*")]), tmp_path / "out.pth")
    after = torch.load(tmp_path / "out.pth", weights_only=True)["optimizer"]
    assert after["param_groups"][0]["param_names"] == ["head.weight"]
    assert list(after["state"]) == [0]
