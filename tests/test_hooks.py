"""Load hooks of a model: what torch's own loading renames or computes is what a transplant does, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import ckptool
from ckptool.models import import_torchvision

State = dict[str, torch.Tensor]
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


class Fused(nn.Module):
    """Takes q, k and v apart or joined; the key's bias is absent in old files."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.norm = nn.BatchNorm1d(4)
        self._register_load_state_dict_pre_hook(self._join)  # type: ignore[no-untyped-call]

    def _join(self, state: dict[str, Any], prefix: str, *_: object) -> None:
        if f"{prefix}q.weight" in state:
            state[f"{prefix}qkv.weight"] = torch.cat([state.pop(f"{prefix}{name}.weight") for name in "qkv"])
            bias = torch.zeros(12)
            bias[:4] = state.pop(f"{prefix}q.bias")
            bias[8:] = state.pop(f"{prefix}v.bias")
            state[f"{prefix}qkv.bias"] = bias


class Squeezed(nn.Module):
    """Overrides `_load_from_state_dict`, as libraries do for kernels that became matrices; by the module version."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, local: Any, *rest: Any) -> None:
        if state[f"{prefix}weight"].ndim == 4:
            state[f"{prefix}weight"] = state[f"{prefix}weight"][:, :, 0, 0]
        super()._load_from_state_dict(state, prefix, local, *rest)


class Outer(nn.Module):
    """Strips a wrapper in its own `load_state_dict`."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def load_state_dict(self, state: Any, strict: bool = True) -> Any:  # type: ignore[override]
        return super().load_state_dict({key.replace("linear.", "fc."): value for key, value in state.items()}, strict)


def old_norm(dim: int) -> State:
    model = nn.Sequential(nn.utils.weight_norm(nn.Conv1d(6, 6, 5, groups=3), dim=dim), nn.Linear(6, 2))
    return dict(model.state_dict())


def new_norm(dim: int) -> Callable[[], nn.Module]:
    norm = nn.utils.parametrizations.weight_norm
    return lambda: nn.Sequential(norm(nn.Conv1d(6, 6, 5, groups=3), dim=dim), nn.Linear(6, 2))


def apart() -> State:
    made = {f"{name}.weight": torch.randn(4, 4) for name in "qkv"} | {f"{name}.bias": torch.randn(4) for name in "qv"}
    return made | nn.Sequential().state_dict() | {f"norm.{key}": value for key, value in bn().items()}


def bn() -> State:
    return {
        key: torch.rand_like(value) if value.ndim else value for key, value in nn.BatchNorm1d(4).state_dict().items()
    }


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], State]]] = {
    "weight-norm": (new_norm(0), lambda: old_norm(0)),
    "weight-norm-dim": (new_norm(2), lambda: old_norm(2)),
    "joined": (Fused, apart),
    "joined-half": (Fused, lambda: {key: value.half() for key, value in apart().items()}),
    "squeezed": (Squeezed, lambda: {"weight": torch.randn(6, 4, 1, 1)}),
    "outer": (Outer, lambda: {"linear.weight": torch.randn(2, 3), "linear.bias": torch.randn(2)}),
}


def loaded(build: Callable[[], nn.Module], state: State) -> State:
    """The oracle: what torch's own loading makes of it."""
    model = build()
    model.load_state_dict(state)
    return dict(model.state_dict())


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", CASES)
def test_what_a_hook_would_load_is_loaded(name: str, suffix: str, tmp_path: Path) -> None:
    build, make = CASES[name]
    state = make()
    torch.save(state, tmp_path / "old.pth")
    meant = loaded(build, state)
    done = ckptool.plan_transplant(tmp_path / "old.pth", build(), strict=True)
    assert not done.plan.unmet and done.verdict.strict and done.as_it_is.strict
    assert not done.unexpected and all(entry.is_filled for entry in done.entries if not entry.is_counter)
    out = done.plan.apply(tmp_path / f"out.{suffix}").path
    written = load_file(out) if suffix == "safetensors" else torch.load(out, weights_only=True)
    assert same(loaded(build, written), meant)
    model = build()
    ckptool.load_into(model, tmp_path / "old.pth", strict=True)
    assert same(dict(model.state_dict()), meant)


def test_renames_of_torchvision(tmp_path: Path) -> None:
    vision = import_torchvision()
    build = lambda: vision.models.VisionTransformer(32, 16, 2, 2, 8, 16, num_classes=3)  # noqa: E731
    new = build().state_dict()
    old = {key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): new[key] for key in new}
    torch.save({f"module.{key}": value for key, value in old.items()}, tmp_path / "old.pth")
    done = ckptool.plan_transplant(tmp_path / "old.pth", build(), strict=True)
    assert not done.plan.unmet and done.coverage == 1.0
    written = torch.load(done.plan.apply(tmp_path / "out.pth").path, weights_only=True)
    assert same(loaded(build, written), dict(new))


class Turning(nn.Module):
    """A hook that turns the weight whenever it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self._register_load_state_dict_pre_hook(self._turn)  # type: ignore[no-untyped-call]

    def _turn(self, state: dict[str, Any], prefix: str, *_: object) -> None:
        state[f"{prefix}fc.weight"] = state[f"{prefix}fc.weight"].T


def test_a_hook_that_runs_at_every_load_runs_once(tmp_path: Path) -> None:
    state = {"fc.weight": torch.randn(4, 4), "fc.bias": torch.randn(4)}
    torch.save(state, tmp_path / "old.pth")
    done = ckptool.plan_transplant(tmp_path / "old.pth", Turning(), strict=True)
    assert any("whenever it loads" in note.text for note in done.plan.notes)
    written = torch.load(done.plan.apply(tmp_path / "out.pth").path, weights_only=True)
    assert same(loaded(Turning, written), loaded(Turning, state))
    model = Turning()
    ckptool.load_into(model, tmp_path / "old.pth")
    assert same(dict(model.state_dict()), loaded(Turning, state))


class Opaque(nn.Module):
    """Fills its weight in a way that depends on the values it has."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *_: object) -> None:
        self.weight.copy_(self.weight * state.pop(f"{prefix}scale"))


def test_what_cannot_be_followed_is_not_called_loaded(tmp_path: Path) -> None:
    model = nn.Sequential(Opaque(), nn.Linear(2, 2))
    torch.save({"0.scale": torch.ones(4), "1.weight": torch.ones(2, 2), "1.bias": torch.ones(2)}, tmp_path / "old.pth")
    done = ckptool.plan_transplant(tmp_path / "old.pth", model, strict=True)
    assert done.verdict.strict and done.lost == ("0.weight",)
    assert "cannot follow" in done.plan.unmet[0].message


def test_models_without_hooks_are_not_followed() -> None:
    from ckptool.models import target_of
    from ckptool.models.hooks import loading

    attention = target_of(nn.TransformerEncoderLayer(8, 2, 16))
    assert loading(attention, attention.specs, attention.versions) is None
