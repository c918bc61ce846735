"""Rules from pairs of keys: exactly what the pairs say, whatever the renaming, and short where people are short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptool.core.spec import TensorSpec
from ckptool.recipes.expand import expand
from ckptool.recipes.induce.drops import drops_of
from ckptool.recipes.induce.induce import rules_from
from ckptool.recipes.induce.proof import made_by
from ckptool.recipes.recipe import parse_recipe
from ckptool.recipes.reverse import check_reverse


@dataclass(frozen=True)
class Pair:
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    layout: str = ""


def specs(keys: Mapping[str, tuple[int, ...]]) -> dict[str, TensorSpec]:
    return {key: TensorSpec(key, "float32", shape) for key, shape in keys.items()}


def rules(renames: Mapping[str, str], *others: str, in_parts: bool = True) -> list[str]:
    """The rules for these renamings, which are checked; `others` are keys of the source that nothing becomes of."""
    pairs = [Pair((old,), (new,)) for old, new in renames.items()]
    source, target = specs(dict.fromkeys([*renames, *others], (4,))), specs(dict.fromkeys(renames.values(), (4,)))
    found = rules_from(pairs, source, target, in_parts=in_parts)
    made = made_by([rule.text for rule in found], source, target)
    assert made == ({new: ((old,), (4,)) for old, new in renames.items()}, True)
    assert {pair for rule in found for pair in rule.said} == set(pairs)
    return [rule.text for rule in found]


def blocks(count: int, inner: Mapping[str, str], form: str) -> dict[str, str]:
    old, new = form.split(" -> ")
    return {
        f"{old.format(at)}.{a}.{role}": f"{new.format(at)}.{b}.{role}"
        for at in range(count)
        for a, b in inner.items()
        for role in ("weight", "bias")
    }


def test_a_wrapper_and_what_it_holds_beside_the_model() -> None:
    inside = ["conv1.weight", "layer1.0.bn1.bias", "fc.weight"]
    renames = {f"module.{key}": key for key in inside}
    assert rules(renames) == ["module. ->"]
    assert rules(renames, "optimizer", "module.head.bias") == ["module.head.{k**} -> !", "module. ->"]
    assert rules({new: old for old, new in renames.items()}) == ["-> module."]


def test_what_keys_begin_with_and_what_is_inside_are_rules_of_their_own() -> None:
    inner = {"attn.query": "self_attn.q_proj", "attn.out": "self_attn.out_proj", "mlp_ln": "final_layer_norm"}
    renames = blocks(3, inner, "encoder.blocks.{} -> model.encoder.layers.{}")
    renames |= blocks(3, inner, "decoder.blocks.{} -> model.decoder.layers.{}")
    renames |= {"encoder.ln_post.weight": "encoder.norm.weight"}
    assert rules(renames) == [
        "{n=decoder|encoder}.blocks.{l}. -> model.{n}.layers.{l}.",
        ".attn.{n=out|query}. -> .self_attn.{n=out_proj|q_proj}.",
        ".{n=ln_post|mlp_ln}. -> .{n=norm|final_layer_norm}.",
    ]


def test_roles_alone() -> None:
    renames = {f"{layer}.LayerNorm.{a}": f"{layer}.LayerNorm.{b}" for layer in "abc"
               for a, b in (("gamma", "weight"), ("beta", "bias"))}  # fmt: skip
    assert rules(renames) == [".{n=beta|gamma} -> .{n=bias|weight}"]
    same = {f"{layer}.dense.weight": f"{layer}.dense.weight" for layer in "abc"}
    assert not any(rule.startswith((".gamma ->", ".{n=")) for rule in rules(renames | same))  # or there is no way back


def test_blocks_that_stages_count_otherwise() -> None:
    stages = [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    renames = {
        f"features.{at}.{a}.weight": f"blocks.{stage}.{block}.{b}.weight"
        for at, (stage, block) in enumerate(stages)
        for a, b in (("conv.0", "conv_pw"), ("conv.3", "bn3"))
    }
    assert rules(renames) == [
        "features.0. -> blocks.0.0.",
        ".conv.{n=0|3}. -> .{n=conv_pw|bn3}.",
        "features.{l=1..2}. -> blocks.1.{l-1}.",
        "features.{l=3..5}. -> blocks.2.{l-3}.",
    ]


def test_rules_that_can_be_taken_or_left_name_whole_keys() -> None:
    renames = blocks(2, {"fc1": "up", "fc2": "down"}, "h.{} -> layers.{}")
    found = rules(renames, in_parts=False)
    assert found == ["h.{l}.fc1.{p*} -> layers.{l}.up.{p*}", "h.{l}.fc2.{p*} -> layers.{l}.down.{p*}"]


def test_parts_of_one_tensor() -> None:
    source = specs({f"h.{at}.{x}.{role}": (4, 8)[: 2 - (role == "bias")] for at in range(2) for x in "qkv"
                    for role in ("weight", "bias")})  # fmt: skip
    target = specs({f"b.{at}.qkv.weight": (12, 8) for at in range(2)} | {f"b.{at}.qkv.bias": (12,) for at in range(2)})
    pairs = [
        Pair(tuple(f"h.{at}.{x}.{role}" for x in "qkv"), (f"b.{at}.qkv.{role}",),
             "a0 i, a1 i, a2 i -> (a0 + a1 + a2) i" if role == "weight" else "a0, a1, a2 -> (a0 + a1 + a2)")
        for at in range(2) for role in ("weight", "bias")
    ]  # fmt: skip
    (rule,) = rules_from(pairs, source, target)
    assert rule.text == "h.{l}.{x=q|k|v}.{p=weight|bias} -> b.{l}.qkv.{p} | o ... -> (x o) ..."


def test_one_tensor_under_two_names() -> None:
    keys = ["conv.weight", "norm.bias"]
    source, target = (
        specs(dict.fromkeys(keys, (4,))),
        specs({f"{t}.{k}": (4,) for t in ("left", "right") for k in keys}),
    )
    pairs = [Pair((key,), (f"left.{key}", f"right.{key}")) for key in keys]
    found = rules_from(pairs, source, target)
    made, is_well = made_by([rule.text for rule in found], source, target)
    assert is_well and set(made) == set(target)


# ---------------------------------------------------------------------------------------------- any renaming

WORDS = st.sampled_from(["a", "conv", "bn", "attn", "x1", "x2", "0", "1", "7", "norm", "00", "q_proj", "w-b"])
KEYS = st.lists(WORDS, min_size=1, max_size=4).map(".".join)


@settings(max_examples=150, deadline=None)
@given(renames=st.dictionaries(KEYS, KEYS, min_size=1, max_size=14), others=st.lists(KEYS, max_size=4))
def test_any_renaming_is_said_exactly(renames: dict[str, str], others: list[str]) -> None:
    once = {new: old for old, new in renames.items()}
    renames = {old: new for new, old in once.items()}
    rules(renames, *(key for key in others if key not in renames))


@settings(max_examples=60, deadline=None)
@given(
    names=st.dictionaries(st.sampled_from(["attn.q", "attn.k", "mlp.0", "mlp.2", "ln"]),
                          st.sampled_from(["self.query", "self.key", "up", "down", "norm", "ln"]), min_size=1),
    count=st.integers(1, 12),
    form=st.sampled_from(["h.{} -> layers.{}", "m.h.{0}.x -> {0}", "b{:02} -> blocks.{}.0", "h.{} -> h.{}"]),
)  # fmt: skip
def test_any_blocks(names: dict[str, str], count: int, form: str) -> None:
    once = {new: old for old, new in names.items()}
    found = rules(blocks(count, {old: new for new, old in once.items()}, form))
    assert len(found) <= 2 * len(once) + 2


# ---------------------------------------------------------------------------------------------- numbers with zeros


@pytest.mark.parametrize(
    ("rule", "renamed"),
    [
        ("block_{i:03}. -> blocks.{i}.", {"block_007.w": "blocks.7.w", "block_123.w": "blocks.123.w"}),
        ("blocks.{i}. -> block_{i:03}.", {"blocks.7.w": "block_007.w", "blocks.1234.w": "block_1234.w"}),
        ("b{i:02}. -> c{i+1:02}.", {"b09.w": "c10.w", "b00.w": "c01.w"}),
        ("b{i:02}. -> c.{i=0..5}.", {"b05.w": "c.5.w", "b06.w": "b06.w"}),
        ("?b{i:02}. -> c.{i}.", {"b7.w": "b7.w", "b007.w": "b007.w", "b07.w": "c.7.w"}),
    ],
)
def test_numbers_with_zeros_in_front(rule: str, renamed: dict[str, str]) -> None:
    source = specs(dict.fromkeys(renamed, (1,)))
    recipe = parse_recipe([rule])
    assert str(recipe.stages[0].rules[0]) == rule
    assert [step.target.key for step in expand(recipe, source).steps] == [*renamed.values()]
    if all(old != new for old, new in renamed.items()):
        assert check_reverse(recipe, source).is_exact


def test_a_number_with_zeros_is_one_capture() -> None:
    renames = {f"block_{at:03}.w": f"blocks.{at}.w" for at in range(12)}
    assert rules(renames) == ["block_{l:03}. -> blocks.{l}."]
    assert rules({new: old for old, new in renames.items()}) == ["blocks.{l}. -> block_{l:03}."]


def test_very_many_keys_are_dropped_by_few_rules_or_not_at_all() -> None:
    keys = [f"a.{number}.{part}.w" for number in range(3000) for part in ("left", "right")]
    dropped = {key for key in keys if "left" in key}
    assert [*drops_of(dropped, {*keys} - dropped, keys)] == [["a.{0-2999}.left.{k**} -> !"]] * 2
