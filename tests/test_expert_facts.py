"""Experts that are missing or stored twice: found in real files, and not in those that are as their model has them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_expert_recipes import WRITTEN, built

import ckptool
from ckptool.cli.app import run
from ckptool.facts.experts import _numbers, _Survey
from ckptool.facts.registry import facts_of

State = dict[str, torch.Tensor]
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("torchvision")]


def moe(layers: int = 4, experts: int = 6, *, router: bool = True, stacked: tuple[int, ...] = ()) -> State:
    """A dense layer, then layers of experts with a shared one; `stacked` layers have them in one tensor."""
    state: State = {
        "model.embed_tokens.weight": torch.randn(9, 4),
        "model.layers.0.mlp.up_proj.weight": torch.randn(3, 4),
    }
    for layer in range(1, layers):
        at = f"model.layers.{layer}.mlp."
        shapes = {"gate_proj": (3, 4), "up_proj": (3, 4), "down_proj": (4, 3)}
        state |= {f"{at}shared_experts.{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
        if router:
            state[f"{at}gate.weight"] = torch.randn(experts, 4)
        if layer in stacked:
            state |= stacked_experts(layer, experts)
            continue
        for expert in range(experts):
            state |= {f"{at}experts.{expert}.{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    return state


def stacked_experts(layer: int, experts: int = 6, module: str = "mlp") -> State:
    at = f"model.layers.{layer}.{module}.experts."
    return {f"{at}gate_up_proj": torch.randn(experts, 6, 4), f"{at}down_proj": torch.randn(experts, 4, 3)}


def said(state: State, folder: Path, name: str = "model.safetensors") -> dict[str, str]:
    save_file(state, folder / name)
    facts = facts_of(ckptool.open(folder / name))
    return {fact.name: fact.text for fact in facts if fact.name in ("missing-experts", "mixed-experts")}


def without(state: State, *parts: str) -> State:
    left = {key: tensor for key, tensor in state.items() if not any(part in key for part in parts)}
    assert len(left) < len(state)
    return left


E = "model.layers.2.mlp.experts"


@pytest.mark.parametrize("router", [True, False])
@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("2.mlp.experts.3.",), f"1 expert is missing: {E}.3"),
        (("2.mlp.experts.5.",), f"1 expert is missing: {E}.5"),
        (("2.mlp.experts.0.", "2.mlp.experts.1."), f"2 experts are missing: {E}.{{0,1}}"),
        (("2.mlp.experts.3.up_proj",), f"1 expert lacks a part: {E}.3.up_proj"),
        (("2.mlp.experts.3.up_proj", "2.mlp.experts.3.gate"), f"1 expert lacks a part: {E}.3.{{gate_proj,up_proj}}"),
        (
            ("2.mlp.experts.3.up_proj", "3.mlp.experts.5."),
            f"1 expert is missing and 1 expert lacks a part: model.layers.3.mlp.experts.5, {E}.3.up_proj",
        ),
        ((".experts.0.",), "3 experts are missing: model.layers.1.mlp.experts.0, "
         "model.layers.2.mlp.experts.0, model.layers.3.mlp.experts.0"),
    ],
)  # fmt: skip
def test_missing_experts(parts: tuple[str, ...], text: str, router: bool, tmp_path: Path) -> None:
    state = without(moe(router=router), *parts)
    found = said(state, tmp_path)
    if parts == (".experts.0.",) and not router:  # counted from 1
        assert found == {}
        return
    assert {" ".join(value.split()) for value in found.values()} == {text}


def test_the_router_says_how_many_experts_a_layer_has(tmp_path: Path) -> None:
    """Layers of several sizes by design; and one of which the last expert is missing in each of its layers but one."""
    small, large = moe(2, 4), moe(4, 6)
    mixed = {**large, **{key: tensor for key, tensor in small.items() if "layers.1" in key}}
    mixed = without(mixed, "layers.1.mlp.experts.4", "layers.1.mlp.experts.5")
    assert said(mixed, tmp_path) == {}
    short = without(large, "layers.2.mlp.experts.5.", "layers.3.mlp.experts.5.")
    assert said(short, tmp_path) == {
        "missing-experts": "2 experts are missing: model.layers.2.mlp.experts.5, model.layers.3.mlp.experts.5"
    }


@pytest.mark.parametrize("at", ["mlp", "block_sparse_moe"])
def test_both_layouts_in_one_layer(at: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {**moe(), **stacked_experts(2, module=at)}
    assert said(state, tmp_path) == {
        "mixed-experts": "1 layer has the experts twice, as a module each and stacked: model.layers.2"
    }
    path = str(tmp_path / "model.safetensors")
    assert run(["check", path]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "error[facts]: 1 layer has the experts twice" in printed
    assert '--drop "*.experts.{down_proj,gate_up_proj}"' in printed
    out = str(tmp_path / "out.safetensors")
    assert run(["filter", path, "--drop", "*.experts.{down_proj,gate_up_proj}", "-o", out]) == 0
    assert run(["check", out]) == 0
    assert run(["inspect", path]) == 0
    assert "warning: 1 layer has the experts twice" in " ".join(capsys.readouterr().out.split())


def test_both_layouts_in_different_layers(tmp_path: Path) -> None:
    assert said(moe(stacked=(3,)), tmp_path) == {
        "mixed-experts": "experts are stored in two layouts: a module each in 2 layers, stacked in 1 layer"
    }
    assert said(moe(stacked=(1, 2, 3)), tmp_path) == {}


def test_a_part_that_says_it_is_one_does_not_miss_experts(tmp_path: Path) -> None:
    """One shard, an adapter, a patch: they have some experts because of what they are."""
    state = moe()
    half = dict(list(state.items())[: len(state) // 2])
    assert said(half, tmp_path, "model-00001-of-00002.safetensors") == {}
    name = "base_model.model.model.layers.1.mlp.experts.{}.up_proj.lora_{}.weight"
    adapter = {name.format(e, side): torch.ones(2, 2) for e in (0, 2) for side in "AB"}
    assert said(adapter, tmp_path) == {}
    save_file(state, tmp_path / "base.safetensors")
    changed = {**state, f"{E}.3.up_proj.weight": torch.ones(3, 4)}
    save_file(changed, tmp_path / "tuned.safetensors")
    words = ["extract", str(tmp_path / "base.safetensors"), str(tmp_path / "tuned.safetensors")]
    assert run([*words, "-o", str(tmp_path / "patch.safetensors")]) == 0
    found = {fact.name for fact in facts_of(ckptool.open(tmp_path / "patch.safetensors"))}
    assert "patch" in found and "missing-experts" not in found


def test_experts_that_differ_by_design(tmp_path: Path) -> None:
    """Multi-gate mixtures of other fields: experts of other depth, and other numbers for each task."""
    state = {"experts.0.0.weight": torch.ones(2, 2), "experts.1.0.weight": torch.ones(2, 2)}
    state |= {"experts.1.2.weight": torch.ones(2, 2)}
    assert said(state, tmp_path) == {}
    state = {f"task{t}.experts.{e}.fc.weight": torch.ones(2, 2) for t in range(3) for e in range(t + 1)}
    assert said(state, tmp_path) == {}


@pytest.mark.parametrize(("name", "options"), [row[1:3] for row in WRITTEN], ids=[row[1] for row in WRITTEN])
def test_what_transformers_writes_is_whole(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Neither layout of a real model is a finding; with one tensor of an expert less, check fails and names it."""
    model, _ = built(name, options)
    model.save_pretrained(tmp_path)
    split = load_file(tmp_path / "model.safetensors")
    assert said(split, tmp_path) == {}
    assert said({key: tensor.clone() for key, tensor in model.state_dict().items()}, tmp_path) == {}
    numbered = sorted(key for key in split if ".experts.0" in key or ".experts.1" in key)
    for key in random.Random(0).sample(numbered, min(3, len(numbered))):
        found = said({other: tensor for other, tensor in split.items() if other != key}, tmp_path)
        assert key.removesuffix(".weight") in found["missing-experts"]


def test_check_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(without(moe(), f"{E}.3."), tmp_path / "a.safetensors")
    assert run(["check", str(tmp_path / "a.safetensors"), "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["rule"], finding["level"]) == ("facts", "error")
    (tmp_path / "ckptool.toml").write_text('allow.facts = ["missing-experts"]')
    policy = ["--policy", str(tmp_path / "ckptool.toml")]
    assert run(["check", str(tmp_path / "a.safetensors"), *policy]) == 0


def test_experts_are_grouped_by_their_parts() -> None:
    """As counting the parts of each expert does."""
    chance = random.Random(1)
    for _ in range(200):
        survey = _Survey()
        survey.apart["m"] = {part: chance.getrandbits(chance.choice([3, 20])) | 1 for part in ("w1", "w2", "w3", "b")}
        present = survey.present("m")
        counted: dict[frozenset[str], int] = {}
        for number in range(present.bit_length()):
            parts = frozenset(part for part, bits in survey.apart["m"].items() if bits >> number & 1)
            if parts:
                counted[parts] = counted.get(parts, 0) | 1 << number
        assert survey.alike("m") == counted
        assert _numbers(present) == [number for number in range(present.bit_length()) if present >> number & 1]
