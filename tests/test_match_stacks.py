"""Layers, experts, or k and v that are an axis of one tensor on one side and a list on the other."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from ckptool.core.plan import sources_of
from ckptool.engine.evaluate import compute
from ckptool.matching.match import match
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import parse_recipe
from tests.test_match import Specs, checked, given, specs

Shapes = list[tuple[str, tuple[int, ...]]]
Arrays = dict[str, np.ndarray]

D, H, KV, HD, FF, V, E = 24, 4, 2, 10, 56, 90, 7


def moved(rules: Iterable[str], arrays: Arrays, target: Specs) -> Arrays:
    """What rules make of numbers."""
    found = expand(parse_recipe(rules), specs((key, array.shape) for key, array in arrays.items()), targets=target)
    assert not found.problems, found.problems
    made = {}
    for step in found.steps:
        values = {source: arrays[source.key] for source in sources_of(step.value)}
        made[step.target.key] = np.asarray(compute(step.value, values))
    return made


def counted(shapes: Shapes) -> Arrays:
    return {
        key: np.arange(math.prod(shape), dtype="int32").reshape(shape) + at for at, (key, shape) in enumerate(shapes)
    }


def proven(source: Shapes, target: Specs, truth: Sequence[str], seeds: Sequence[int] = (0, 1)) -> list[str]:
    """The rules that are found, which move every number as the truth does, there and back, whatever the order."""
    arrays = counted(source)
    right = moved(truth, arrays, target)
    assert right.keys() == target.keys()
    rules: list[str] = []
    for seed in seeds:
        for ours, theirs in ((arrays, right), (right, arrays)):
            rows = [list({key: array.shape for key, array in side.items()}.items()) for side in (ours, theirs)]
            for row in rows if seed else ():
                random.Random(seed).shuffle(row)
            one, other = map(specs, rows)
            report = match(one, other)
            assert given(report).keys() == other.keys()
            checked(report, one, other)
            found = [rule.text for rule in report.rules]
            made = moved(found, ours, other)
            assert all(np.array_equal(made[key], theirs[key]) for key in other)
            rules = rules or found
    return rules


def llama(layers: Iterable[int], mlp: Shapes) -> Specs:
    rows: Shapes = [("model.embed_tokens.weight", (V, D))]
    for at in layers:
        attn = [(f"{x}_proj.weight", (heads * HD, D)) for x, heads in (("q", H), ("k", KV), ("v", KV))]
        rows += [(f"model.layers.{at}.self_attn.{name}", shape) for name, shape in attn]
        rows.append((f"model.layers.{at}.self_attn.o_proj.weight", (D, H * HD)))
        rows += [(f"model.layers.{at}.{name}", shape) for name, shape in mlp]
        rows += [(f"model.layers.{at}.{x}.weight", (D,)) for x in ("input_layernorm", "post_attention_layernorm")]
    return specs([*rows, ("model.norm.weight", (D,))])


def gated(name: str) -> Shapes:
    return [(f"{name}{x}_proj.weight", (D, FF) if x == "down" else (FF, D)) for x in ("gate", "up", "down")]


def scanned(size: int, axis: int, rows: Sequence[tuple[str, str, str, tuple[int, ...]]]) -> tuple[Shapes, list[str]]:
    """Tensors with an axis for the layers, and the rules that make a list of them."""
    found: Shapes = []
    rules = []
    for ours, theirs, layout, shape in rows:
        found.append((f"decoder/layers/{ours}", (*shape[:axis], size, *shape[axis:])))
        left, right = layout.split(" -> ")
        axes = left.split()
        axes.insert(axis, "l")
        rules.append(f"decoder/layers/{ours} -> model.layers.{{l}}.{theirs} | {' '.join(axes)} -> {right}")
    found += [("decoder/decoder_norm/scale", (D,)), ("token_embedder/embedding", (V, D))]
    rules += ["decoder/decoder_norm/scale -> model.norm.weight"]
    return found, [*rules, "token_embedder/embedding -> model.embed_tokens.weight"]


ATTENTION = [
    ("self_attention/query/kernel", "self_attn.q_proj.weight", "i h k -> (h k) i", (D, H, HD)),
    ("self_attention/key/kernel", "self_attn.k_proj.weight", "i h k -> (h k) i", (D, KV, HD)),
    ("self_attention/value/kernel", "self_attn.v_proj.weight", "i h k -> (h k) i", (D, KV, HD)),
    ("self_attention/out/kernel", "self_attn.o_proj.weight", "h k o -> o (h k)", (H, HD, D)),
    ("pre_self_attention_layer_norm/scale", "input_layernorm.weight", "o -> o", (D,)),
    ("post_self_attention_layer_norm/scale", "post_attention_layernorm.weight", "o -> o", (D,)),
]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("layers", [3, H])
def test_scanned_layers_are_a_list(axis: int, layers: int) -> None:
    mlp = [
        ("mlp/wi_0/kernel", "mlp.gate_proj.weight", "i o -> o i", (D, FF)),
        ("mlp/wi_1/kernel", "mlp.up_proj.weight", "i o -> o i", (D, FF)),
        ("mlp/wo/kernel", "mlp.down_proj.weight", "i o -> o i", (FF, D)),
    ]
    source, truth = scanned(layers, axis, [*ATTENTION, *mlp])
    rules = proven(source, llama(range(layers), gated("mlp.")), truth)
    ours, theirs = ("a e b c", "a e ...") if axis else ("e a b c", "e ...")
    assert (
        f"decoder/layers/self_attention/query/kernel -> model.layers.{{e}}.self_attn.q_proj.weight | {ours} -> (b c) a"
        in rules
    )
    norm = "decoder/layers/pre_self_attention_layer_norm/scale -> model.layers.{e}.input_layernorm.weight"
    assert f"{norm} | {theirs} -> {theirs.replace('e ', '', 1)}" in rules


def test_layers_and_experts_are_two_axes() -> None:
    mlp = [
        ("moe/gate/kernel", "block_sparse_moe.gate.weight", "i o -> o i", (D, E)),
        ("moe/wi_0", "block_sparse_moe.experts.{e}.w1.weight", "e i o -> o i", (E, D, FF)),
        ("moe/wi_1", "block_sparse_moe.experts.{e}.w3.weight", "e i o -> o i", (E, D, FF)),
        ("moe/wo", "block_sparse_moe.experts.{e}.w2.weight", "e i o -> o i", (E, FF, D)),
    ]
    source, truth = scanned(3, 1, [*ATTENTION, *mlp])
    experts = [(f"experts.{e}.w{n}.weight", (D, FF) if n == 2 else (FF, D)) for e in range(E) for n in (1, 2, 3)]
    rows = [(f"block_sparse_moe.{name}", shape) for name, shape in [("gate.weight", (E, D)), *experts]]
    rules = proven(source, llama(range(3), rows), truth)
    assert "decoder/layers/moe/wo -> model.layers.{s}.block_sparse_moe.experts.{e}.w2.weight | e s i o -> o i" in rules


def test_k_and_v_are_an_axis_behind_that_of_the_layers() -> None:
    others = [
        ("attn/q_einsum/w", "self_attn.q_proj.weight", "h i k -> (h k) i", (H, D, HD)),
        ("attn/kv_einsum/w", "self_attn.{x=k|v}_proj.weight", "x h i k -> (h k) i", (2, KV, D, HD)),
        ("attn/attn_vec_einsum/w", "self_attn.o_proj.weight", "h k o -> o (h k)", (H, HD, D)),
        ("mlp/gating_einsum", "mlp.{x=gate|up}_proj.weight", "x i o -> o i", (2, D, FF)),
        ("mlp/linear", "mlp.down_proj.weight", "i o -> o i", (FF, D)),
        ("pre_attention_norm/scale", "input_layernorm.weight", "o -> o", (D,)),
        ("pre_ffw_norm/scale", "post_attention_layernorm.weight", "o -> o", (D,)),
    ]
    source, truth = scanned(3, 0, others)
    rules = proven(source, llama(range(3), gated("mlp.")), truth)
    assert "decoder/layers/mlp/gating_einsum -> model.layers.{s}.mlp.{e=gate|up}_proj.weight | s e i o -> o i" in rules


def test_q_k_and_v_are_the_second_axis_of_a_kernel_and_the_first_of_its_bias() -> None:
    source: Shapes = []
    target: Shapes = []
    truth = []
    for at in range(3):
        ours, theirs = f"layers_{at}/attn", f"layers.{at}.attn"
        source += [(f"{ours}/qkv/kernel", (D, 3, 4, 6)), (f"{ours}/qkv/bias", (3, 4, 6))]
        source += [(f"{ours}/out/kernel", (4, 6, D)), (f"{ours}/out/bias", (D,))]
        for x in ("q", "k", "v", "out"):
            target += [(f"{theirs}.{x}_proj.weight", (D, D)), (f"{theirs}.{x}_proj.bias", (D,))]
        truth += [
            f"{ours}/qkv/kernel -> {theirs}.{{x=q|k|v}}_proj.weight | i x h k -> (h k) i",
            f"{ours}/qkv/bias -> {theirs}.{{x=q|k|v}}_proj.bias | x h k -> (h k)",
            f"{ours}/out/kernel -> {theirs}.out_proj.weight | h k o -> o (h k)",
            f"{ours}/out/bias -> {theirs}.out_proj.bias",
        ]
    rules = proven(source, specs(target), truth, seeds=(0,))
    assert "layers_{l}/attn/qkv/bias -> layers.{l}.attn.{e=q|k|v}_proj.bias | e a b -> (a b)" in rules


def test_a_list_that_begins_at_one_has_a_range() -> None:
    rows: Shapes = [("norm.weight", (3, D)), ("norm.bias", (3, D)), ("fc.weight", (3, FF, D)), ("fc.bias", (3, FF))]
    source = [(f"stack.{name}", shape) for name, shape in rows] + [("head.weight", (5, D))]
    target = [(f"blocks.{at}.{name}", shape[1:]) for at in (1, 2, 3) for name, shape in rows]
    truth = [f"stack.{name} -> blocks.{{l=1..3}}.{name} | l ... -> ..." for name, _ in rows]
    rules = proven(source, specs([*target, ("head.weight", (5, D))]), [*truth, "head.weight -> head.weight"])
    assert rules[0] == "stack.{n=fc|norm}.{p=weight|bias} -> blocks.{e=1..3}.{n}.{p} | e ... -> ..."


def test_heads_in_a_list_of_as_many_layers_are_no_list() -> None:
    source: Shapes = []
    target: Shapes = []
    truth = []
    for at in range(H):
        source += [(f"layers.{at}.query.w", (H, D, HD)), (f"layers.{at}.key.w", (H, D, HD))]
        target += [(f"blocks.{at}.q_proj.weight", (H * HD, D)), (f"blocks.{at}.k_proj.weight", (H * HD, D))]
        source += [(f"layers.{at}.fc.weight", (HD, D)), (f"layers.{at}.fc.bias", (HD,))]
        target += [(f"blocks.{at}.fc.weight", (HD, D)), (f"blocks.{at}.fc.bias", (HD,))]
    truth = [f"layers.{{l}}.{x} -> blocks.{{l}}.{x}" for x in ("fc.weight", "fc.bias")]
    truth += [f"layers.{{l}}.{x}.w -> blocks.{{l}}.{x[0]}_proj.weight | h i k -> (h k) i" for x in ("query", "key")]
    assert not any("{e}" in rule for rule in proven(source, specs(target), truth))


def test_what_was_weighed_is_said_of_the_stack() -> None:
    rows: Shapes = [("norm.weight", (3, D)), ("fc.weight", (3, FF, D))]
    source = specs([(f"stack.{name}", shape) for name, shape in rows])
    report = match(source, specs((f"blocks.{at}.{name}", shape[1:]) for at in range(3) for name, shape in rows))
    assert report.weighed is not None
    assert report.weighed("stack.fc.weight")[0].sources == ("stack.fc.weight",)
    assert report.weighed("blocks.2.fc.weight")[0].sources == ("stack.fc.weight",)
