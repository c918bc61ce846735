"""LoRA adapters merged into a base: against plain torch in float64, and against peft where it is installed."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_methods import assert_rounded
from torch import nn
from writing import apply

import ckptool
from ckptool.commands.merging.lora import plan_lora, read_config
from ckptool.core.errors import CkptError, PlanError, UnreadableError, UsageError
from ckptool.core.plan import Plan

T = torch.Tensor
State = dict[str, T]


def write_adapter(folder: Path, tensors: State, **config: Any) -> Path:
    """An adapter as `save_pretrained` writes it."""
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    text = json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config})
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    return folder


def planned(base: Path, adapter: Path, **options: Any) -> Plan:
    return plan_lora(ckptool.open(base), ckptool.open(adapter), read_config(adapter), **options)


def merged(base: Path, adapter: Path, **options: Any) -> State:
    out = base.with_name(f"merged{base.suffix}")
    apply(planned(base, adapter, **options), out, force=True)
    return load_file(out) if out.suffix == ".safetensors" else torch.load(out, weights_only=True)


def random(*shape: int, dtype: torch.dtype = torch.float32) -> T:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(dtype)


# ------------------------------------------------------------------------------------------------- plain torch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("kind", ["linear", "conv1d", "embedding", "conv2d", "pointwise"])
def test_equals_a_float64_reference(kind: str, dora: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    out, inner, r = 24, 10, 4
    kernel = {"conv2d": (3, 3), "pointwise": (1, 1)}.get(kind, ())
    a, b = random(r, inner, *kernel, dtype=dtype), random(out, r, *(1,) * len(kernel), dtype=dtype)
    delta = 2.0 * (b.double().flatten(1) @ a.double().flatten(1))
    weight = random(out, inner, *kernel, dtype=dtype)
    magnitude = random(out).abs().to(dtype) + 1
    exact = weight.double().flatten(1) + delta
    if dora:
        exact = magnitude.double()[:, None] * exact / exact.norm(dim=1, keepdim=True)
    exact = exact.reshape(weight.shape)
    if kind in ("conv1d", "embedding"):
        weight, exact = weight.T.contiguous(), exact.T
    names = ("lora_embedding_A", "lora_embedding_B") if kind == "embedding" else ("lora_A.weight", "lora_B.weight")
    adapter = {f"base_model.model.m.{name}": factor for name, factor in zip(names, (a, b), strict=True)}
    if dora:
        adapter["base_model.model.m.lora_magnitude_vector"] = magnitude
    save_file({"m.weight": weight, "other": random(3)}, tmp_path / "base.safetensors")
    folder = write_adapter(tmp_path / "adapter", adapter, use_dora=dora)
    found = merged(tmp_path / "base.safetensors", folder)
    assert torch.equal(found["other"], random(3))
    assert (found["m.weight"].dtype, found["m.weight"].shape) == (dtype, weight.shape)
    assert_rounded(found["m.weight"], exact, 100.0)


def simple(tmp_path: Path, **config: Any) -> tuple[Path, Path, State]:
    """A base of two linear layers, an adapter for both, and their tensors."""
    base = {f"{name}.{part}": random(*shape) for name in "pq" for part, shape in (("weight", (8, 6)), ("bias", (8,)))}
    save_file(base, tmp_path / "base.safetensors")
    factors = {
        f"base_model.model.{name}.lora_{part}.weight": random(*shape)
        for name in "pq"
        for part, shape in (("A", (4, 6)), ("B", (8, 4)))
    }
    return tmp_path / "base.safetensors", write_adapter(tmp_path / "adapter", factors, **config), {**base, **factors}


@pytest.mark.parametrize(
    ("config", "scale", "expected"),
    [
        ({}, 1.0, {"p": 2.0, "q": 2.0}),
        ({}, 0.25, {"p": 0.5, "q": 0.5}),
        ({}, -1.0, {"p": -2.0, "q": -2.0}),
        ({"use_rslora": True}, 1.0, {"p": 4.0, "q": 4.0}),
        ({"lora_alpha": 1.5}, 1.0, {"p": 0.375, "q": 0.375}),
        ({"alpha_pattern": {"q": 20}}, 1.0, {"p": 2.0, "q": 5.0}),
        ({"r": 16, "rank_pattern": {"^p$": 4, "q": 4}}, 1.0, {"p": 2.0, "q": 2.0}),
        ({"alpha_pattern": {"p|q": 4}, "use_rslora": True}, 1.0, {"p": 2.0, "q": 2.0}),
        ({"alpha_pattern": {"model.q": 20}}, 1.0, {"p": 2.0, "q": 2.0}),
    ],
)
def test_scaling(config: dict[str, Any], scale: float, expected: dict[str, float], tmp_path: Path) -> None:
    base, adapter, tensors = simple(tmp_path, **config)
    found = merged(base, adapter, scale=scale)
    for name, scaling in expected.items():
        factors = [tensors[f"base_model.model.{name}.lora_{part}.weight"].double() for part in "BA"]
        exact = tensors[f"{name}.weight"].double() + scaling * factors[0] @ factors[1]
        assert_rounded(found[f"{name}.weight"], exact, 100.0)


def test_scale_zero_is_the_base_bit_for_bit(tmp_path: Path) -> None:
    base, adapter, _ = simple(tmp_path)
    before = load_file(base)
    found = merged(base, adapter, scale=0)
    assert all(torch.equal(found[key], tensor) for key, tensor in before.items())


def test_many_blocks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, adapter, _ = simple(tmp_path)
    expected = merged(base, adapter)
    monkeypatch.setattr("ckptool.commands.merging.lora_ops._BLOCK", 13)
    found = merged(base, adapter)
    assert all(torch.allclose(found[key], tensor, rtol=1e-7) for key, tensor in expected.items())


def test_dtype_is_rounded_once(tmp_path: Path) -> None:
    base, adapter, tensors = simple(tmp_path)
    found = merged(base, adapter, dtype="f64")
    factors = [tensors[f"base_model.model.p.lora_{part}.weight"].double() for part in "BA"]
    exact = tensors["p.weight"].double() + 2 * factors[0] @ factors[1]
    assert found["p.weight"].dtype == found["p.bias"].dtype == torch.float64
    assert torch.allclose(found["p.weight"], exact, rtol=1e-14)


def test_names_inside_a_live_model(tmp_path: Path) -> None:
    """A file of `model.state_dict()` names the adapter; its other tensors carry peft's wrappers."""
    base, _, tensors = simple(tmp_path)
    live = {key.replace(".weight", ".default.weight"): t for key, t in tensors.items() if "lora" in key}
    live["base_model.model.p.base_layer.bias"] = random(8) * 3
    live["base_model.model.q.modules_to_save.default.bias"] = random(8) * 5
    folder = write_adapter(tmp_path / "live", live)
    found = merged(base, folder)
    expected = merged(base, tmp_path / "adapter")
    assert torch.equal(found["p.weight"], expected["p.weight"])
    assert torch.equal(found["p.bias"], random(8) * 3)
    assert torch.equal(found["q.bias"], random(8) * 5)
    plan = planned(base, folder)
    assert plan.notes[0].keys == ("p.bias", "q.bias")


def test_bias_of_lora_b(tmp_path: Path) -> None:
    base, folder, tensors = simple(tmp_path)
    adapter = {key: tensor for key, tensor in tensors.items() if "lora" in key}
    adapter["base_model.model.p.lora_B.bias"] = random(8) * 2
    write_adapter(folder, adapter, lora_bias=True)
    found = merged(base, folder)
    assert_rounded(found["p.bias"], tensors["p.bias"].double() + 2 * (random(8) * 2).double(), 10.0)
    assert torch.equal(found["q.bias"], tensors["q.bias"])


def test_tied_tensors_of_the_base_stay_tied(tmp_path: Path) -> None:
    table = random(20, 6)
    for first, second in (("embed.weight", "head.weight"), ("head.weight", "embed.weight")):
        torch.save({first: table, second: table, "alone": random(3)}, tmp_path / "base.pth")
        factors = {"embed.lora_embedding_A": random(4, 20), "embed.lora_embedding_B": random(6, 4)}
        folder = write_adapter(tmp_path / "adapter", {f"base_model.model.{k}": t for k, t in factors.items()})
        found = merged(tmp_path / "base.pth", folder)
        exact = table.double() + 2 * (random(6, 4).double() @ random(4, 20).double()).T
        assert_rounded(found["embed.weight"], exact, 100.0)
        assert found["head.weight"].data_ptr() == found["embed.weight"].data_ptr()


def test_embedding_that_grew_comes_with_the_adapter(tmp_path: Path) -> None:
    save_file({"embed.weight": random(20, 6)}, tmp_path / "base.safetensors")
    factors = {
        "embed.base_layer.weight": random(22, 6),
        "embed.lora_embedding_A": random(4, 22),
        "embed.lora_embedding_B": random(6, 4),
    }
    folder = write_adapter(tmp_path / "adapter", {f"base_model.model.{k}": t for k, t in factors.items()})
    plan = planned(tmp_path / "base.safetensors", folder)
    assert "another shape" in plan.notes[1].text
    found = merged(tmp_path / "base.safetensors", folder)["embed.weight"]
    assert_rounded(found, random(22, 6).double() + 2 * (random(6, 4).double() @ random(4, 22).double()).T, 100.0)


def test_square_weights_are_as_the_configuration_says(tmp_path: Path) -> None:
    save_file({"m.weight": random(6, 6), "n.weight": random(6, 9)}, tmp_path / "base.safetensors")
    factors = {
        "m.lora_A.weight": random(4, 6),
        "m.lora_B.weight": random(6, 4),
        "n.lora_A.weight": random(4, 6),
        "n.lora_B.weight": random(9, 4),
    }
    adapter = {f"base_model.model.{key}": tensor for key, tensor in factors.items()}
    for transposed in (False, True):
        folder = write_adapter(tmp_path / "adapter", adapter, fan_in_fan_out=transposed)
        delta = 2 * random(6, 4).double() @ random(4, 6).double()
        exact = random(6, 6).double() + (delta.T if transposed else delta)
        assert_rounded(merged(tmp_path / "base.safetensors", folder)["m.weight"], exact, 100.0)
        notes = planned(tmp_path / "base.safetensors", folder).notes
        assert [note.keys for note in notes] == ([] if transposed else [("m.weight",)])


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "LOHA"}, "of kind LOHA"),
        ({"peft_type": "ADALORA"}, "of kind ADALORA"),
        ({"r": None}, "no rank"),
        ({"r": 0}, "no rank"),
        ({"r": True}, "no rank"),
        ({"lora_alpha": "16"}, "no rank"),
        ({"lora_alpha": math.nan}, "no rank"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base"),
        ({"init_lora_weights": "OLoRA"}, "changes the base"),
        ({"trainable_token_indices": [1]}, "rows of an embedding"),
        ({"layer_replication": [[0, 2]]}, "repeats layers"),
        ({"rank_pattern": {"(": 3}}, "not a regex"),
        ({"rank_pattern": {"q": "3"}}, "no number"),
        ({"alpha_pattern": [1]}, "not a dict"),
    ],
)
def test_configurations_that_are_refused(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter", {"x": random(1)}, **config)
    with pytest.raises(CkptError, match=message):
        read_config(folder)


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, '{"r": 1' + " " * (1 << 20)])
def test_broken_configurations(text: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(UnreadableError, match="adapter_config"):
        read_config(tmp_path)


def test_missing_configuration(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no adapter_config\.json in"):
        read_config(tmp_path)
    with pytest.raises(UsageError, match=r"no adapter_config\.json beside"):
        read_config(tmp_path / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda adapter: adapter.clear() or adapter.update(x=random(1)), UsageError, "holds no lora_A"),
        (lambda adapter: adapter.pop("base_model.model.p.lora_B.weight"), UnreadableError, "no lora_B for p"),
        (
            lambda adapter: adapter.update({"base_model.model.p.lora_A.other.weight": random(4, 6)}),
            UsageError,
            "several adapters",
        ),
    ],
)
def test_adapters_that_are_refused(
    change: Callable[[State], object], error: type[CkptError], message: str, tmp_path: Path
) -> None:
    base, _, tensors = simple(tmp_path)
    adapter = {key: tensor for key, tensor in tensors.items() if "lora" in key}
    change(adapter)
    with pytest.raises(error, match=message):
        planned(base, write_adapter(tmp_path / "broken", adapter))


def test_dora_without_magnitudes(tmp_path: Path) -> None:
    base, adapter, _ = simple(tmp_path, use_dora=True)
    with pytest.raises(UnreadableError, match="no lora_magnitude_vector for p"):
        planned(base, adapter)


def test_what_does_not_fit_the_base_is_a_problem(tmp_path: Path) -> None:
    _, adapter, _ = simple(tmp_path)
    cases: list[tuple[State, str, str]] = [
        ({"p.weight": random(8, 6)}, "a module that base.safetensors does not have: q", "is it the adapter"),
        ({"p.weight": random(8, 7), "q.weight": random(8, 6)}, r"p.weight is f32\[8,7\]", "of this base"),
        ({"p.weight": random(6, 8), "q.weight": random(8, 6, 1)}, r"q.weight is f32\[8,6,1\]", "of this base"),
        ({"p.weight": torch.ones(8, 6, dtype=torch.int8), "q.weight": random(8, 6)}, "nothing can be", "dequantize"),
        ({"net.p.weight": random(8, 6), "net.q.weight": random(8, 6)}, "2 modules", "-r 'net. ->'"),
    ]
    for tensors, message, hint in cases:
        save_file(tensors, tmp_path / "base.safetensors")
        plan = planned(tmp_path / "base.safetensors", adapter)
        (problem,) = plan.problems
        assert hint in problem.hint
        with pytest.raises(PlanError, match=message):
            apply(plan, tmp_path / "out.safetensors")


def test_a_prefix_that_the_base_lacks_is_named(tmp_path: Path) -> None:
    base, _, tensors = simple(tmp_path)
    adapter = {
        key.replace("base_model.model.", "base_model.model.t.u."): t for key, t in tensors.items() if "lora" in key
    }
    (problem,) = planned(base, write_adapter(tmp_path / "prefixed", adapter)).problems
    assert "-r '{k**} -> t.u.{k**}'" in problem.hint


def test_rank_that_is_not_the_configurations(tmp_path: Path) -> None:
    base, adapter, _ = simple(tmp_path, r=8)
    problems = planned(base, adapter).problems
    assert len(problems) == 2
    assert "its rank is 8" in problems[0].message


def test_torch_is_not_imported(tmp_path: Path) -> None:
    import subprocess
    import sys

    base, adapter, _ = simple(tmp_path)
    code = (
        "import sys, pathlib, ckptool; from ckptool.commands.merging.lora import *\n"
        "from ckptool.api.plan import Plan\n"
        "b, a, o = map(pathlib.Path, sys.argv[1:])\n"
        "plan = plan_lora(ckptool.open(b), ckptool.open(a), read_config(a))\n"
        "Plan.of(plan).apply(o); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, base, adapter, tmp_path / "out.pth"], check=True)
    assert set(torch.load(tmp_path / "out.pth")) == set(load_file(base))


# -------------------------------------------------------------------------------------------------------- peft


@pytest.fixture
def peft(torchvision: ModuleType) -> ModuleType:
    """peft, which may import transformers, which may import torchvision."""
    del torchvision
    return pytest.importorskip("peft")


class Net(nn.Module):
    """One of each layer that peft adapts; `square` tells a transposed weight by nothing but its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 12)
        self.conv = nn.Conv2d(3, 8, 3)
        self.pointwise = nn.Conv2d(8, 4, 1)
        self.conv1 = nn.Conv1d(5, 7, 3)
        self.square = nn.Linear(12, 12)
        self.wide = nn.Linear(12, 20)
        self.norm = nn.BatchNorm1d(20)
        self.classifier = nn.Linear(20, 5)

    def forward(self, tokens: T) -> T:
        return self.classifier(self.norm(self.wide(self.square(self.embed(tokens)))))


ALL = ["embed", "conv", "pointwise", "conv1", "square", "wide"]


def trained(model: nn.Module, peft: ModuleType, folder: Path, safe: bool = True, **config: Any) -> tuple[State, State]:
    """Adapt a model, give its trainable parts random values, save the adapter; the base's and the merged state."""
    base = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=4, lora_alpha=6, **config))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                noise = torch.rand_like(parameter) * 0.2
                parameter.copy_(parameter * (1 + noise) if "magnitude" in name else parameter + noise)
    adapted.save_pretrained(folder, safe_serialization=safe)
    return base, {key: tensor.clone() for key, tensor in adapted.merge_and_unload().state_dict().items()}


def assert_merges(base: State, expected: State, adapter: Path, folder: Path, suffix: str = ".safetensors") -> None:
    path = folder / f"base{suffix}"
    save_file(base, path) if suffix == ".safetensors" else torch.save(base, path)
    assert not planned(path, adapter).problems
    found = merged(path, adapter)
    assert set(found) == set(expected)
    for key, tensor in found.items():
        assert torch.allclose(tensor, expected[key], rtol=1e-5, atol=1e-5), key


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True, "target_modules": ["embed", "square", "wide", "conv", "pointwise"]},
        {"rank_pattern": {"wide": 2, "conv.*": 3}, "alpha_pattern": {"square": 11}},
        {"modules_to_save": ["classifier"]},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"lora_bias": True, "target_modules": ["square", "wide", "conv"]},
        {"target_modules": r"square|wide", "init_lora_weights": "gaussian"},
    ],
    ids=str,
)
def test_agrees_with_peft(config: dict[str, Any], peft: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base, expected = trained(Net(), peft, tmp_path / "adapter", **{"target_modules": ALL, **config})
    assert any(not torch.equal(base[key], expected[key]) for key in base)
    assert_merges(base, expected, tmp_path / "adapter", tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("safe", [True, False])
def test_adapter_as_a_file(safe: bool, peft: ModuleType, tmp_path: Path) -> None:
    base, expected = trained(Net(), peft, tmp_path / "adapter", safe, target_modules=ALL)
    (file,) = (tmp_path / "adapter").glob("adapter_model.*")
    assert file.suffix == (".safetensors" if safe else ".bin")
    assert_merges(base, expected, file, tmp_path, ".pth")
    assert_merges(base, expected, tmp_path / "adapter", tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dora", [False, True])
def test_gpt2_with_its_transposed_weights(dora: bool, peft: ModuleType, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40, "n_positions": 8}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape))
    targets = ["c_attn", "c_proj", "c_fc"]
    base, expected = trained(
        model, peft, tmp_path / "adapter", target_modules=targets, fan_in_fan_out=True, use_dora=dora
    )
    assert_merges(base, expected, tmp_path / "adapter", tmp_path, ".pth")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["LoHaConfig", "LoKrConfig", "IA3Config", "OFTConfig"])
def test_other_adapters_are_refused(kind: str, peft: ModuleType, tmp_path: Path) -> None:
    options: dict[str, Any] = {"feedforward_modules": ["wide"]} if kind == "IA3Config" else {}
    config = getattr(peft, kind)(target_modules=["wide", "square"], **options)
    peft.get_peft_model(Net(), config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(UsageError, match="the adapter is of kind"):
        read_config(tmp_path / "adapter")


def test_the_python_function_takes_an_adapter(tmp_path: Path) -> None:
    base, folder, _ = simple(tmp_path)
    out = tmp_path / "by-function.safetensors"
    ckptool.plan_merge([base], lora=folder, params={"scale": 0.5}).apply(out)
    other = merged(base, folder, scale=0.5)
    written = load_file(out)
    assert all(torch.equal(written[key], other[key]) for key in other)
    with pytest.raises(ckptool.CkptError, match="one base model"):
        ckptool.plan_merge([base], lora=folder, method="linear")
