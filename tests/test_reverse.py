from __future__ import annotations

import numpy as np
import pytest
from recipe_harness import array_specs, remap, specs

from ckptool.core.errors import PlanError
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import Recipe, load_recipe, parse_recipe
from ckptool.recipes.reverse import RoundTrip, check_reverse, reverse


def back(*rules: str) -> list[str]:
    """The rules that undo these, stage after stage."""
    recipe = reverse(parse_recipe(list(rules))).recipe
    lines: list[str] = []
    for stage in recipe.stages:
        lines += ["---"] * bool(lines) + [rule.text for rule in stage.rules]
    return lines


def test_sides_swap_and_captures_are_explained_on_the_new_left() -> None:
    assert back("layer{s=1..3}.bn.{p=weight|bias} -> l{s}.{p}") == ["l{s=1..3}.{p=weight|bias} -> layer{s}.bn.{p}"]
    assert back("block.{n=0|2} -> x.{n=conv|norm}") == ["x.{n=conv|norm} -> block.{n=0|2}"]
    assert back("features.{2*s+1}.{m**} -> layers.{s}.{m**}") == ["layers.{s}.{m**} -> features.{2*s+1}.{m**}"]
    assert back("module. ->", "---", ".a. -> .b.") == [".b. -> .a.", "---", "-> module."]
    assert back("-> base.") == ["base. ->"]


def test_layouts_and_expressions_turn_round() -> None:
    assert back("w -> {x=q|k|v} | (x o) i -> o i") == ["{x=q|k|v} -> w | o i -> (x o) i"]
    assert back("e.{i}.a, e.{i}.b -> ab | o, p -> i (o + p)") == ["ab -> e.{i}.a, e.{i}.b | i (o + p) -> o, p"]
    assert back("a -> b | o i -> i o | = $1 - 1 <= $1 + 1") == ["b -> a | = $1 + 1 <= $1 - 1 | i o -> o i"]
    assert back("v -> v, n | = $1, int64(0)") == ["v -> v", "n -> !"]
    assert back("a, b -> c, d, n | = $2, $1, int64(0)") == ["d, c -> a, b | = $1, $2", "n -> !"]


def test_the_most_specific_rule_comes_first() -> None:
    assert back("rank0.{k**} -> {k**}", "a.w -> x.weight") == ["x.weight -> a.w", "{k**} -> rank0.{k**}"]


@pytest.mark.parametrize(
    "rule",
    [
        "._orig_mod. ->",
        "layers.{i}. ->",
        "a -> b | bf16",
        "a -> b | i64",
        "a -> b | (_ + n) -> n",
        "a -> b | (1 + n) i -> n i",
        "a -> b | c -> (c k)",
        "a -> b | fit rows",
        "a -> b | = $1 * 2",
        "a -> {x=q|k}.w",
    ],
)
def test_what_cannot_be_reversed_is_named(rule: str) -> None:
    with pytest.raises(PlanError, match="rule 2"):
        reverse(parse_recipe(["x. -> y.", rule]))
    optional = reverse(parse_recipe(["x. -> y.", f"?{rule}"]))
    assert [kept.text for kept in optional.recipe.rules] == ["y. -> x."]
    assert len(optional.losses) == 1


def test_losses_are_said() -> None:
    found = reverse(parse_recipe(["fc.{k**} -> !", "a -> b, c", "d -> e | f32"]))
    assert [loss.split(":")[0] for loss in found.losses] == ["rule 1", "rule 2", "rule 3"]


def test_it_is_checked_on_the_actual_keys() -> None:
    recipe = parse_recipe([".gamma -> .weight"])
    assert check_reverse(recipe, specs([("a.gamma", ()), ("b.bias", ())])).is_exact
    mixed = check_reverse(recipe, specs([("a.gamma", ()), ("b.weight", ())]))
    assert mixed == RoundTrip(lost=("b.weight",), added=("b.gamma",))
    assert not mixed.is_exact
    dropped = check_reverse(parse_recipe(["fc.{k**} -> !"]), specs([("fc.w", ()), ("a", ())]))
    assert dropped == RoundTrip(dropped=("fc.w",))
    assert dropped.is_exact
    assert check_reverse(recipe, specs([("a", ())])).problems


def test_unequal_parts_do_not_come_back_and_are_found_out() -> None:
    recipe = parse_recipe(["a, b -> c | i, n -> (i + n)"])
    assert check_reverse(recipe, specs([("a", (4,)), ("b", (4,))])).is_exact
    assert check_reverse(recipe, specs([("a", (2,)), ("b", (6,))])).changed == ("a", "b")
    assert check_reverse(recipe, specs([("a", (2,)), ("b", (6,))]), vars={"i": 2}).is_exact


def test_backwards_first() -> None:
    """--reverse: the actual keys are those that the reverse begins with."""
    recipe = parse_recipe(["features.{2*s}.{m**} -> layers.{s}.{m**}", "x.{k**} -> !"])
    assert check_reverse(recipe, specs([("layers.3.a.w", ())]), backwards=True).is_exact
    swapped = parse_recipe(["a. ->"])
    assert check_reverse(swapped, specs([("w", ()), ("v", ())]), backwards=True).is_exact


def test_llama_comes_back_to_one_rank() -> None:
    recipe = load_recipe("llama-meta-to-hf")
    found = reverse(recipe)
    assert found.recipe.vars["r"] == 1
    assert any("--var r=2" in loss for loss in found.losses)
    arrays = llama(np.random.default_rng(0))
    sizes = {"h": 4, "kv": 2, "two": 2}
    there = expand(recipe, [array_specs(arrays)], prefixes=["rank0"], vars=sizes)
    assert not there.problems, there.problems
    hf = remap_prefixed(recipe, arrays, sizes)
    again = remap(found.recipe, hf, vars=sizes)
    assert sorted(again) == sorted(key for key in arrays if key != "rope.freqs")
    assert all(np.array_equal(again[key], arrays[key]) for key in again)
    assert check_reverse(recipe, array_specs(hf), vars=sizes, backwards=True).is_exact


def remap_prefixed(recipe: Recipe, arrays: dict[str, np.ndarray], sizes: dict[str, float]) -> dict[str, np.ndarray]:
    return remap(recipe, {f"rank0.{key}": array for key, array in arrays.items()}, vars=sizes)


def llama(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Two layers of Meta's layout: 4 heads of 4, 2 key-value heads."""
    shapes = {"tok_embeddings.weight": (20, 16), "output.weight": (20, 16), "norm.weight": (16,), "rope.freqs": (2,)}
    for layer in range(2):
        for name, shape in {
            "attention.wq": (16, 16), "attention.wk": (8, 16), "attention.wv": (8, 16), "attention.wo": (16, 16),
            "feed_forward.w1": (24, 16), "feed_forward.w2": (16, 24), "feed_forward.w3": (24, 16),
            "attention_norm": (16,), "ffn_norm": (16,),
        }.items():  # fmt: skip
            shapes[f"layers.{layer}.{name}.weight"] = shape
    return {key: random.standard_normal(shape).astype("f4") for key, shape in shapes.items()}
