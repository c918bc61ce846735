"""Optimizer state through surgery: it follows its parameters, or says that it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ckptool.commands.beside.choices import Choices
from ckptool.commands.beside.complete import complete
from ckptool.commands.filter import plan_filter
from ckptool.core.beside import Beside, Fate
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import PlanError
from ckptool.core.plan import Dropped, Plan, Source, Step
from ckptool.core.reasons import ByOption, ByRules, RuleName
from ckptool.core.spec import TensorSpec
from ckptool.formats.opening import open_checkpoint
from tests.deep_equal import assert_equal
from tests.writing import apply

Optimizer = torch.optim.Optimizer


def body() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))


def whole() -> nn.Sequential:
    return nn.Sequential(*body(), nn.Linear(4, 3))


def named_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Weights with decay, biases without: the order of the parameters is not that of the model."""
    named = list(model.named_parameters())
    return [
        {"params": [pair for pair in named if pair[0].endswith("weight")], "weight_decay": 0.1},
        {"params": [pair for pair in named if pair[0].endswith("bias")], "weight_decay": 0.0},
    ]


MAKERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
    "adam": lambda params: torch.optim.AdamW(params, lr=0.01),
}


def train(model: nn.Module, optimizer: Optimizer, steps: int) -> None:
    noise = torch.Generator().manual_seed(7)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 6, generator=noise)).square().sum().backward()
        optimizer.step()


def saved(path: Path, model: nn.Module, optimizer: Optimizer, key: str = "optimizer") -> dict[str, Any]:
    value = {"epoch": 3, "state_dict": model.state_dict(), key: optimizer.state_dict()}
    torch.save(value, path)
    return torch.load(path, weights_only=False)  # type: ignore[no-any-return]


RULE = ByRules((RuleName(number=1),))


def without_head(path: Path, pattern: str = "3.*", **options: bool) -> Plan:
    return complete(plan_filter(open_checkpoint(path), [("drop", pattern)]), "torch", Choices(**options))


def renamed(checkpoint: Checkpoint, change: Callable[[str], str | None]) -> Plan:
    """A plan that gives every tensor another key, or drops it."""
    steps, dropped = [], []
    for key, tensor in checkpoint.tensors.items():
        new = change(key)
        if new is None:
            dropped.append(Dropped(Source(0, key), RULE))
        else:
            steps.append(Step(TensorSpec(new, tensor.dtype, tensor.shape), Source(0, key), RULE))
    return Plan((checkpoint,), tuple(steps), tuple(dropped))


# --- the file says which number is which key


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("grouped", [False, True])
def test_state_of_dropped_parameters_goes_and_training_goes_on(tmp_path: Path, maker: str, grouped: bool) -> None:
    model, small = whole(), body()
    make = MAKERS[maker]
    optimizer = make(named_groups(model) if grouped else model.named_parameters())
    train(model, optimizer, 3)
    before = saved(tmp_path / "in.pth", model, optimizer)
    apply(without_head(tmp_path / "in.pth"), tmp_path / "out.pth")
    after = torch.load(tmp_path / "out.pth", weights_only=True)
    assert after["epoch"] == 3
    small.load_state_dict(after["state_dict"], strict=True)
    follower = make(named_groups(small) if grouped else small.named_parameters())
    follower.load_state_dict(after["optimizer"])
    # the reference: the same parameters with the same state, put together by hand
    for (name, parameter), (old_name, old) in zip(small.named_parameters(), body_parameters(model), strict=True):
        assert name == old_name
        assert torch.equal(parameter, old)
        assert_equal(dict(optimizer.state[old]), dict(follower.state[parameter]))
    assert len(follower.state) == 4
    assert [group["weight_decay"] for group in before["optimizer"]["param_groups"]] == [
        group["weight_decay"] for group in after["optimizer"]["param_groups"]
    ]
    twin = body()
    twin.load_state_dict(small.state_dict())
    reference = make(named_groups(twin) if grouped else twin.named_parameters())
    for mine, theirs in zip(twin.parameters(), small.parameters(), strict=True):
        reference.state[mine] = {
            key: value.clone() if isinstance(value, torch.Tensor) else value
            for key, value in follower.state[theirs].items()
        }
    train(small, follower, 4)
    train(twin, reference, 4)
    assert_equal(small.state_dict(), twin.state_dict())


def body_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if not name.startswith("3.")]


def test_names_follow_a_rename(tmp_path: Path) -> None:
    model = whole()
    optimizer = MAKERS["adam"](model.named_parameters())
    train(model, optimizer, 2)
    before = saved(tmp_path / "in.pth", model, optimizer)
    plan = renamed(open_checkpoint(tmp_path / "in.pth"), lambda key: None if key.startswith("3.") else f"net.{key}")
    apply(plan, tmp_path / "out.pth")
    after = torch.load(tmp_path / "out.pth", weights_only=True)
    (group,) = after["optimizer"]["param_groups"]
    assert group["param_names"] == ["net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias"]
    assert group["params"] == [0, 1, 2, 3]
    kept = {number: before["optimizer"]["state"][number] for number in range(4)}
    assert_equal(kept, after["optimizer"]["state"])


def test_names_with_a_wrapper_are_understood(tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("module", whole())
    optimizer = MAKERS["sgd"](model.named_parameters())
    model.module(torch.randn(2, 6)).sum().backward()  # type: ignore[operator]
    optimizer.step()
    plain = {key.removeprefix("module."): tensor for key, tensor in model.state_dict().items()}
    torch.save({"state_dict": plain, "optimizer": optimizer.state_dict()}, tmp_path / "in.pth")
    apply(without_head(tmp_path / "in.pth"), tmp_path / "out.pth")
    after = torch.load(tmp_path / "out.pth", weights_only=True)
    assert sorted(after["optimizer"]["state"]) == [0, 1, 2, 3]
    assert after["optimizer"]["param_groups"][0]["param_names"][0] == "module.0.weight"


def test_state_keyed_by_names(tmp_path: Path) -> None:
    """FSDP's full optimizer state has keys in place of numbers."""
    model = whole()
    optimizer = MAKERS["adam"](model.parameters())
    train(model, optimizer, 1)
    names = [name for name, _ in model.named_parameters()]
    numbered = optimizer.state_dict()
    state = {
        "state": {names[number]: value for number, value in numbered["state"].items()},
        "param_groups": [{**numbered["param_groups"][0], "params": names}],
    }
    torch.save({"model": model.state_dict(), "optim": state}, tmp_path / "in.pth")
    checkpoint = open_checkpoint(tmp_path / "in.pth")
    plan = renamed(checkpoint, lambda key: None if key.startswith("3.") else f"net.{key}")
    apply(plan, tmp_path / "out.pth")
    after = torch.load(tmp_path / "out.pth", weights_only=True)["optim"]
    kept = [f"net.{name}" for name in names if not name.startswith("3.")]
    assert list(after["state"]) == kept
    assert after["param_groups"][0]["params"] == kept
    assert "param_names" not in after["param_groups"][0]
    for name in kept:
        assert_equal(state["state"][name.removeprefix("net.")], after["state"][name])


def test_frozen_parameters_have_no_state_and_no_trouble(tmp_path: Path) -> None:
    model = whole()
    trained = [(name, parameter) for name, parameter in model.named_parameters() if name.startswith(("2", "3"))]
    optimizer = MAKERS["adam"](trained)
    train(model, optimizer, 1)
    saved(tmp_path / "in.pth", model, optimizer)
    apply(without_head(tmp_path / "in.pth"), tmp_path / "out.pth")
    after = torch.load(tmp_path / "out.pth", weights_only=True)["optimizer"]
    assert after["param_groups"][0]["params"] == [0, 1]
    assert sorted(after["state"]) == [0, 1]


# --- the file does not say


def unnamed(path: Path) -> dict[str, Any]:
    model = whole()
    optimizer = MAKERS["sgd"](model.parameters())
    train(model, optimizer, 2)
    return saved(path, model, optimizer)


def test_rename_alone_keeps_the_numbers(tmp_path: Path) -> None:
    before = unnamed(tmp_path / "in.pth")
    plan = complete(renamed(open_checkpoint(tmp_path / "in.pth"), lambda key: f"net.{key}"), "torch")
    assert not plan.problems
    apply(plan, tmp_path / "out.pth")
    assert_equal(before["optimizer"], torch.load(tmp_path / "out.pth", weights_only=False)["optimizer"])


def test_dropped_buffers_do_not_concern_the_optimizer(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
    optimizer = MAKERS["sgd"](model.parameters())
    train(model, optimizer, 1)
    saved(tmp_path / "in.pth", model, optimizer)
    named = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
    optimizer = MAKERS["sgd"](named.named_parameters())
    train(named, optimizer, 1)
    before = saved(tmp_path / "named.pth", named, optimizer)
    plan = without_head(tmp_path / "named.pth", "1.num_batches_tracked")
    assert not plan.problems
    apply(plan, tmp_path / "out.pth")
    assert_equal(before["optimizer"], torch.load(tmp_path / "out.pth", weights_only=False)["optimizer"])
    assert not without_head(tmp_path / "in.pth", "1.num_batches_tracked").problems


def test_numbers_follow_where_one_order_alone_fits(tmp_path: Path) -> None:
    before = unnamed(tmp_path / "in.pth")["optimizer"]
    apply(without_head(tmp_path / "in.pth"), tmp_path / "out.pth")
    after = torch.load(tmp_path / "out.pth", weights_only=True)["optimizer"]
    assert after["param_groups"][0]["params"] == [0, 1, 2, 3]
    assert_equal({number: before["state"][number] for number in range(4)}, after["state"])


def test_numbers_that_may_be_several_keys_are_a_problem(tmp_path: Path) -> None:
    """Two groups of tensors of one shape: nothing says which is which."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    groups = [{"params": list(model[1].parameters())}, {"params": list(model[0].parameters()), "lr": 0.2}]
    optimizer = MAKERS["adam"](groups)
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    saved(tmp_path / "in.pth", model, optimizer)
    plan = without_head(tmp_path / "in.pth", "1.*")
    (problem,) = plan.problems
    assert problem.message.startswith("optimizer does not say which parameter is which key")
    assert "--drop-optimizer" in problem.hint
    assert "--keep-optimizer-as-is" in problem.hint
    with pytest.raises(PlanError, match="which parameter is which key"):
        apply(plan, tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


def test_drop_and_as_is(tmp_path: Path) -> None:
    before = unnamed(tmp_path / "in.pth")
    plan = without_head(tmp_path / "in.pth", drop_optimizer=True)
    assert Beside("optimizer", Fate.DROPPED, ByOption("--drop-optimizer")) in plan.beside
    apply(plan, tmp_path / "out.pth")
    assert list(torch.load(tmp_path / "out.pth")) == ["epoch", "state_dict"]
    apply(without_head(tmp_path / "in.pth", optimizer_as_is=True), tmp_path / "out.pth", force=True)
    after = torch.load(tmp_path / "out.pth", weights_only=False)
    assert list(after["state_dict"]) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert_equal(before["optimizer"], after["optimizer"])


def test_lightning_list_of_optimizers(tmp_path: Path) -> None:
    model = whole()
    numbered, named = MAKERS["sgd"](model.parameters()), MAKERS["adam"](model.named_parameters())
    train(model, numbered, 1)
    train(model, named, 1)
    value = {
        "state_dict": model.state_dict(),
        "optimizer_states": [numbered.state_dict(), named.state_dict()],
        "lr_schedulers": [],
    }
    torch.save(value, tmp_path / "in.ckpt")
    plan = without_head(tmp_path / "in.ckpt")
    assert not plan.problems
    apply(without_head(tmp_path / "in.ckpt", drop_optimizer=True), tmp_path / "out.ckpt")
    after = torch.load(tmp_path / "out.ckpt", weights_only=True)
    assert after["optimizer_states"] == []
    value["optimizer_states"] = [named.state_dict()]
    torch.save(value, tmp_path / "in.ckpt")
    apply(without_head(tmp_path / "in.ckpt"), tmp_path / "out.ckpt", force=True)
    after = torch.load(tmp_path / "out.ckpt", weights_only=True)
    assert sorted(after["optimizer_states"][0]["state"]) == [0, 1, 2, 3]


@pytest.mark.parametrize(("names", "fits"), [(["0.weight", "0.bias"], True), (["1.weight", "1.bias"], False)])
def test_half_named_groups_follow_if_the_names_agree(tmp_path: Path, names: list[str], fits: bool) -> None:
    value = unnamed(tmp_path / "in.pth")
    (group,) = value["optimizer"]["param_groups"]
    first, second = ({**group, "params": [0, 1], "param_names": names}, {**group, "params": [2, 3, 4, 5]})
    value["optimizer"]["param_groups"] = [first, second]
    torch.save(value, tmp_path / "in.pth")
    assert (not without_head(tmp_path / "in.pth").problems) is fits


def test_named_parameter_that_is_no_weight_of_the_file(tmp_path: Path) -> None:
    """A second model trained with the same optimizer: its parameters stay."""
    model, other = whole(), nn.Linear(2, 2)
    pairs = [*model.named_parameters(), *((f"loss.{name}", p) for name, p in other.named_parameters())]
    optimizer = MAKERS["sgd"](pairs)
    (model(torch.randn(2, 6)).sum() + other(torch.randn(2, 2)).sum()).backward()
    optimizer.step()
    saved(tmp_path / "in.pth", model, optimizer)
    apply(without_head(tmp_path / "in.pth"), tmp_path / "out.pth")
    after = torch.load(tmp_path / "out.pth", weights_only=True)["optimizer"]
    assert after["param_groups"][0]["param_names"][-1] == "loss.bias"
    assert sorted(after["state"]) == [0, 1, 2, 3, 6, 7]


def test_names_that_are_not_the_keys_are_a_problem(tmp_path: Path) -> None:
    model = whole()
    optimizer = MAKERS["sgd"](model.named_parameters())
    train(model, optimizer, 1)
    weights = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    torch.save({"state_dict": weights, "optimizer": optimizer.state_dict()}, tmp_path / "in.pth")
    assert without_head(tmp_path / "in.pth", "model.3.*").problems


def test_optimizer_beside_nested_weights(tmp_path: Path) -> None:
    generator, critic = whole(), body()
    both = nn.ModuleDict({"generator": generator, "critic": critic})
    optimizer = MAKERS["adam"](both.named_parameters())
    for model in (generator, critic):
        model(torch.randn(2, 6)).sum().backward()
    optimizer.step()
    value = {"generator": generator.state_dict(), "critic": critic.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(value, tmp_path / "in.pth")
    apply(without_head(tmp_path / "in.pth", "critic.*"), tmp_path / "out.pth")
    after = torch.load(tmp_path / "out.pth", weights_only=True)
    assert list(after) == ["generator", "optimizer"]
    assert sorted(after["optimizer"]["state"]) == [0, 1, 2, 3, 4, 5]
