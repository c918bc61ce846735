"""Preconditions of recipes: a recipe that does not fit is refused with the reason, and one that fits is exact."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ckptool.cli.app import run
from ckptool.core.errors import UsageError
from ckptool.core.spec import TensorSpec
from ckptool.recipes import require
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import builtin_recipes, load_recipe, parse_recipe, parse_toml
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
        with pytest.raises(UsageError, match="is not a precondition"):
            parse_requirement(text)
    else:
        unmet = list(unmet_by_keys([parse_requirement(text)], {"w": TensorSpec("w", "float32", shape)}))
        assert bool(unmet) != is_met


EXPERT = "m.layers.0.mlp.experts."
BLOCK = "m.layers.0.block_sparse_moe.experts.0."
Q = "base_model.model.q."
OUTSIDE: list[tuple[str, dict[str, tuple[int, ...]], dict[str, Any], str]] = [
    ("batchnorm-counters", {"bn.running_var": (4,), "b.num_batches_tracked": ()}, {}, "no num_batches_tracked"),
    ("batchnorm-counters", {"bn.running_var": (4, 4)}, {}, "running_var: ndim == 1"),
    ("bert-gamma-beta", {"a.LayerNorm.gamma": (4,), "b.LayerNorm.weight": (4,)}, {}, "no *LayerNorm.weight"),
    ("bert-gamma-beta", {"a.LayerNorm.gamma": (4, 4)}, {}, "ndim == 1"),
    ("densenet-legacy", {"f.denselayer1.conv.1.weight": (4, 3)}, {}, "ndim == 4"),
    ("densenet-legacy", {"f.denselayer1.norm.1.weight": (4,), "f.denselayer2.norm1.weight": (4,)}, {}, "norm1"),
    ("abdnet-to-resnet", {"common_branch.backbone1.0.weight": (4, 3)}, {}, "ndim == 4"),
    ("mgn-to-resnet", {"b1.0.0.conv1.weight": (4, 3)}, {}, "ndim == 4"),
    ("openai-clip-vit-to-timm", {"class_embedding": (1, 1, 4)}, {}, "ndim == 1"),
    ("resnet-to-abdnet", {"conv1.weight": (4, 3)}, {}, "ndim == 4"),
    ("resnet-to-mgn", {"layer1.0.conv1.weight": (4, 3)}, {}, "ndim == 4"),
    ("resnet-to-mgn-pytorch", {"layer1.0.conv1.weight": (4, 3)}, {}, "ndim == 4"),
    ("ibn-to-resnet", {"layer1.0.conv1.weight": (4, 3)}, {}, "ndim == 4"),
    ("sequential-resnet-to-torchvision", {"0.weight": (4, 3), "1.weight": (4,)}, {}, "ndim == 4"),
    ("detectron2-resnet-to-torchvision", {"stem.conv1.weight": (4, 3, 3, 3)}, {}, "shape[2] == 7"),
    ("gpt2-to-gptbigcode", {"h.0.attn.c_attn.weight": (12, 4)}, {"config.json": {"n_head": 2}}, "3 * shape[0]"),
    ("gpt2-to-gptbigcode", {"h.0.attn.c_attn.weight": (4, 12)}, {"config.json": {"model_type": "gpt_neo"}}, "gpt2"),
    ("llama-meta-to-hf", {"tok_embeddings.weight": (8, 2), "norm.weight": (4,)}, {"params.json": {}}, "$2.shape[0]"),
    ("llamacpp-llama-to-hf", {"blk.0.attn_q_norm.weight": (4,)}, {}, "no *.attn_q_norm.*"),
    ("llamacpp-qwen-to-hf", {"blk.0.post_ffw_norm.weight": (4,)}, {}, "no *.post_ffw_norm.*"),
    (
        "llamacpp-deepseek-mla-to-hf",
        {"blk.0.attn_k_b.weight": (2, 6, 4), "blk.0.attn_v_b.weight": (2, 5, 3)},
        {},
        "$1.shape[1] == $2.shape[2]",
    ),
    ("llamacpp-deepseek-to-hf", {"blk.0.attn_k_b.weight": (4, 4, 4)}, {}, "no *.attn_k_b.*"),
    (
        "llamacpp-gpt-oss-to-hf",
        {"blk.0.ffn_gate_exps.weight": (2, 4, 3), "blk.0.ffn_up_exps.weight": (2, 3, 3)},
        {},
        "$1.shape == $2.shape",
    ),
    ("llamacpp-gemma-to-hf", {"blk.0.post_ffw_norm.weight": (4,)}, {}, "no *.post_ffw_norm.*"),
    ("llamacpp-gemma2-to-hf", {"blk.0.attn_qkv.weight": (4, 4)}, {}, "no *.attn_qkv.*"),
    ("llamacpp-phi2-to-hf", {"blk.0.ffn_gate.weight": (4, 4)}, {}, "no *.ffn_gate.*"),
    ("llamacpp-phi3-to-hf", {"blk.0.ffn_gate.weight": (4, 4)}, {}, "no *.ffn_gate.*"),
    ("lora-merge", {f"{Q}base_layer.weight": (4, 3, 1, 1)}, {}, "ndim == 2"),
    ("lora-merge", {f"{Q}lora_A.default.weight": (2, 3), f"{Q}lora_B.default.weight": (4, 3)}, {}, "$2.shape[1]"),
    ("lora-merge", {f"{Q}lora_A.style.weight": (2, 3)}, {}, "no re:"),
    ("lora-merge", {f"{Q}x": (2,)}, {"adapter_config.json": {"peft_type": "IA3"}}, "LORA"),
    ("mixtral-fuse-experts", {f"{BLOCK}w1.weight": (4, 2), f"{BLOCK}w3.weight": (3, 2)}, {}, "$1.shape == $2.shape"),
    ("mixtral-fuse-experts", {f"{BLOCK}w1.weight": (4, 2), f"{BLOCK}w2.weight": (4, 2)}, {}, "$2.shape[1]"),
    ("phimoe-fuse-experts", {f"{BLOCK}w1.weight": (4, 2), f"{BLOCK}w2.weight": (4, 2)}, {}, "$2.shape[1]"),
    ("fuse-experts", {f"{EXPERT}0.gate_proj.weight": (4, 2), f"{EXPERT}0.up_proj.weight": (3, 2)}, {}, "== $2.shape"),
    ("fuse-experts-w123", {f"{EXPERT}0.w1.weight": (4, 2), f"{EXPERT}0.w3.weight": (3, 2)}, {}, "$1.shape == $2.shape"),
    ("fuse-experts-fc123", {f"{EXPERT}0.fc1.weight": (4, 2), f"{EXPERT}0.fc2.weight": (4, 2)}, {}, "$2.shape[1]"),
    ("fuse-experts-ungated", {f"{EXPERT}0.gate_proj.weight": (4, 2)}, {}, "no *.experts.*.gate_proj.*"),
    ("ernie-vl-fuse-experts", {f"{EXPERT}0.gate_proj.weight": (4, 2), f"{EXPERT}0.up_proj.weight": (3, 2)}, {}, "$1"),
    ("llama4-fuse-experts", {f"{EXPERT}0.gate_proj.weight": (4, 2), f"{EXPERT}0.down_proj.weight": (4, 2)}, {}, "$2"),
    ("gpt-oss-fuse-experts", {f"{EXPERT}0.gate_proj.weight": (4, 2), f"{EXPERT}0.gate_proj.bias": (2,)}, {}, "bias"),
    ("transpose-experts", {f"{EXPERT}gate_up_proj": (2, 8, 3), f"{EXPERT}down_proj": (2, 3, 4)}, {}, "2 * $2.shape[1]"),
    ("inkling-experts", {f"{EXPERT}w13_weight_scale": (2,)}, {}, "no *.experts.w13_weight_scale"),
    ("nemo-experts", {f"{EXPERT}gate_and_up_projs": (2, 8, 3), f"{EXPERT}down_projs": (2, 4, 8)}, {}, "$2.shape[1]"),
    ("aria-experts", {f"{EXPERT}fc1.weight": (2, 8, 3), f"{EXPERT}fc2.weight": (2, 3, 4)}, {}, "2 * $2.shape[1]"),
    (
        "granitemoe-experts",
        {f"block_sparse_moe.{name}_linear.weight": (2, 3, 4) for name in ("input", "output")},
        {},
        "2 * $2.shape[2]",
    ),
    ("step3-fuse-experts", {"l.0.moe.gate_proj.weight_scale_inv": (2,)}, {}, "no *.moe.*.weight_scale_inv"),
    ("open_clip-to-hf-clip", {"visual.trunk.a.weight": (4,)}, {}, "no visual.trunk.*"),
    ("open_clip-to-hf-clip", {"visual.proj": (4,)}, {}, "visual.proj: ndim == 2"),
    ("resnet-to-ibn", {"layer1.0.bn1.weight": (8,), "layer1.0.conv1.weight": (4, 8, 1, 1)}, {}, "$2.shape[0]"),
    ("resnet-to-ibn", {"layer1.0.bn1.IN.weight": (8,)}, {}, "no *.bn1.IN.*"),
    ("strip-wrappers", {"_fsdp_wrapped_module._flat_param": (99,)}, {}, "flat_param"),
    ("strip-wrappers", {"module.flat_param_0": (99,)}, {}, "flat_param"),
    ("swin-merging-to-unfold", {"l.downsample.reduction.weight": (4, 4)}, {}, "2 * shape[0]"),
    ("swin-merging-to-unfold", {"d.downsample.reduction.weight": (4, 8), "d.downsample.norm.weight": (4,)}, {}, "$1"),
    ("torchvision-convnext-to-timm", {"features.1.0.layer_scale": (4,)}, {}, "ndim == 3"),
    ("torchvision-resnet-to-detectron2", {"conv1.weight": (4, 3, 3, 3)}, {}, "shape[2] == 7"),
    ("torchvision-resnet-to-hf", {"layer1.0.conv2.weight": (8, 2, 3, 3)}, {}, "shape[0] == shape[1]"),
    (
        "torchvision-resnet-to-hf",
        {"layer1.0.conv2.weight": (8, 8, 3, 3), "layer1.0.conv3.weight": (16, 8, 1, 1)},
        {},
        "4 * $2.shape[0]",
    ),
    ("torchvision-swin-to-timm", {"features.1.0.attn.cpb_mlp.0.weight": (4, 2)}, {}, "cpb_mlp"),
    ("torchvision-vit-to-timm", {"encoder.pos_embedding": (5, 4)}, {}, "ndim == 3"),
    ("weight-norm-fuse", {"c.weight_g": (1, 1), "c.weight_v": (5, 1)}, {}, "$1.shape[0] == $2.shape[0]"),
    ("weight-norm-to-parametrizations", {"c.weight_g": (4, 1), "c.weight_v": (4, 3, 5)}, {}, "$2.ndim"),
    *(
        (name, {"h.0.w": (2,), "h.1.w": (2,), "per_layer_model_projection.weight": (4, 2)}, {}, "per_layer")
        for name in ("drop-layers", "duplicate-layers", "keep-first-layers", "keep-every-nth-layer", "renumber-layers")
    ),
]


@pytest.mark.parametrize(("name", "shapes", "files", "reason"), OUTSIDE)
def test_an_input_outside_the_preconditions_is_refused_with_the_reason(
    name: str,
    shapes: dict[str, tuple[int, ...]],
    files: dict[str, Any],
    reason: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / ("consolidated.00.pth" if name == "llama-meta-to-hf" else "a.pth")
    torch.save({key: torch.ones(shape) for key, shape in shapes.items()}, source)
    for file, content in files.items():
        (tmp_path / file).write_text(json.dumps(content))
    recipe = load_recipe(name)
    numbers = {var: 2 for var, value in recipe.vars.items() if isinstance(value, str)}
    numbers |= {number: 1 for rule in recipe.rules if rule.is_named for number in rule.numbers}
    options = [word for var, value in numbers.items() for word in ("--var", f"{var}={value}")]
    path = tmp_path if name == "llama-meta-to-hf" else source
    code = run(["remap", str(path), "-r", name, *options, "-o", str(tmp_path / "o.pth")])
    said = " ".join(capsys.readouterr().err.split())
    assert code == 2
    assert f"the recipe {name} does not fit this input" in said
    assert reason in said
    assert not (tmp_path / "o.pth").exists()


def test_every_built_in_recipe_has_preconditions() -> None:
    assert {name for name in builtin_recipes() if not load_recipe(name).require} == set()
    assert {name for name, *_ in OUTSIDE} == set(builtin_recipes())


@pytest.mark.parametrize(
    ("text", "is_met"),
    [
        ("{m**}.g, {m**}.v: $1.shape[0] == $2.shape[0]", False),
        ("{m**}.g, {m**}.v: $1.ndim == $2.ndim", True),
        ("{m**}.g, {m**}.x: $1.ndim == 9", True),  # there is no such pair
        ("{m**}.v: shape[0] == 5 * shape[1] and elements - 4 == 1 + 0", True),
        ("{m**}.v: dtype * 3 == 'a'", False),
        ("{m**}.g, .v: ndim == 1", None),
        ("{m**}.g, {m**}.v: $1.shape[0] ** 2 == 1", None),
    ],
)
def test_conditions_on_pairs(text: str, is_met: bool | None) -> None:
    if is_met is None:
        with pytest.raises(UsageError, match="is not a precondition"):
            parse_requirement(text)
        return
    specs = {key: TensorSpec(key, "float32", shape) for key, shape in (("c.g", (1, 1)), ("c.v", (5, 1)))}
    assert bool(list(unmet_by_keys([parse_requirement(text)], specs))) != is_met


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("new", [False, True])
def test_a_vector_normed_over_its_other_axis_is_refused(dim: int, new: bool, tmp_path: Path) -> None:
    linear = nn.Linear(1, 5)
    weight = linear.weight.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: Any = nn.utils.parametrizations if new else nn.utils
        torch.save(module.weight_norm(linear, dim=dim).state_dict(), tmp_path / "a.pth")
    code = run(["remap", str(tmp_path / "a.pth"), "-r", "weight-norm-fuse", "-o", str(tmp_path / "o.pth")])
    assert code == (0 if dim == 0 else 2)
    if dim == 0:
        assert torch.allclose(torch.load(tmp_path / "o.pth")["weight"], weight, rtol=1e-6)


def test_a_recipe_states_its_preconditions() -> None:
    recipe = parse_toml('require = ["no *.x", "config.json: n == 2"]\nrules = ["a -> b"]', "mine")
    assert [each.subject for each in recipe.require] == ["*.x", "config.json"]
    assert load_recipe("weight-norm-fuse").require
    with pytest.raises(UsageError, match="is not a precondition"):
        parse_toml('require = ["nothing"]\nrules = ["a -> b"]', "mine")


def test_all_preconditions_that_are_not_met_are_one_problem() -> None:
    specs = {key: TensorSpec(key, "float32", (2, 2)) for key in ("a.weight", "fc.weight")}
    recipe = parse_recipe(["nothing.x -> y.x"])
    unmet = ("{m**}.weight: shape[0] > 10", "no fc.*")
    found = expand(replace(recipe, require=tuple(map(parse_requirement, unmet))), specs)
    (problem,) = found.problems
    assert problem.message.endswith(
        f'it requires "{unmet[0]}", which a.weight does not meet, and "{unmet[1]}", which fc.weight does not meet'
    )
    assert problem.keys == ("a.weight", "fc.weight")


@given(
    keys=st.sets(st.text("ab17.", min_size=1, max_size=6), max_size=12),
    text=st.sampled_from(
        ["no a[1-3]*", "no *.7", "no b{1,7}", "no {m*}.a1", "{m**}.a: ndim == 9", "{m**}.a1, {m**}.b: $1.ndim == 9"]
    ),
)
def test_outlines_change_no_precondition(keys: set[str], text: str) -> None:
    specs = {key: TensorSpec(key, "float32", (1,)) for key in sorted(keys)}
    one_by_one = list(unmet_by_keys([parse_requirement(text)], specs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(require, "_MANY", 0)
        assert list(unmet_by_keys([parse_requirement(text)], specs)) == one_by_one
