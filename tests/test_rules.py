from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from recipe_harness import names, problems, remap, run, specs

from ckptool.core.errors import UsageError
from ckptool.core.ops import Fill
from ckptool.core.plan import Apply, Op, Source
from ckptool.core.reasons import Unmatched
from ckptool.core.spec import TensorSpec
from ckptool.fits.args import Fit
from ckptool.recipes.expand import expand
from ckptool.recipes.pattern import parse_pattern
from ckptool.recipes.reading import parse_rule
from ckptool.recipes.recipe import Recipe, parse_recipe
from ckptool.report.reasons import reason_text

# ---------------------------------------------------------------------------------------------- parts, not substrings


def test_prefixes_suffixes_and_infixes_never_cut_a_part() -> None:
    keys = ["module.conv.weight", "se_module.fc.weight", "module.se_module.w"]
    assert names(["module. ->"], keys) == ["conv.weight", "se_module.fc.weight", "se_module.w"]
    assert names([".gamma -> .weight"], ["ln.gamma", "layer_gamma", "x.layer_gamma", "gamma.x", "gamma"]) == [
        "ln.weight", "layer_gamma", "x.layer_gamma", "gamma.x", "weight",
    ]  # fmt: skip
    assert names([".norm. -> .ln."], ["norm.w", "a.norm.w", "a.norm", "a.prenorm.w"]) == [
        "ln.w", "a.ln.w", "a.norm", "a.prenorm.w",
    ]  # fmt: skip
    assert names(["fc. -> head."], ["fc.weight", "se.fc.weight", "fc0.weight"]) == [
        "head.weight", "se.fc.weight", "fc0.weight",
    ]  # fmt: skip


def test_a_prefix_is_stripped_once_and_not_letter_by_letter() -> None:
    # k.lstrip("module.") eats "mo" of the module's own name; k.replace eats every occurrence
    assert names(["module. ->"], ["module.mole.weight", "module.module.x"]) == ["mole.weight", "module.x"]


def test_whole_keys_are_whole() -> None:
    assert names(["fc.weight -> head.weight"], ["fc.weight", "se.fc.weight"]) == ["head.weight", "se.fc.weight"]
    assert names(["fc.{k**} -> !"], ["fc.weight", "fc.0.bias", "se.fc.0.weight", "fc"]) == ["se.fc.0.weight", "fc"]


def test_partial_rules_apply_at_the_same_time_and_stages_in_turn() -> None:
    chain = [".norm0. -> .norm1.", ".norm1. -> .norm2."]
    assert names(chain, ["a.norm0.w", "a.norm1.w"]) == ["a.norm1.w", "a.norm2.w"]
    assert names([chain[1], "---", chain[0]], ["a.norm0.w", "a.norm1.w"]) == ["a.norm1.w", "a.norm2.w"]
    assert names([".a. -> .b.", "---", ".b. -> .c."], ["x.a.w"]) == ["x.c.w"]
    assert names(["module. ->", ".gamma -> .weight", ".ln. -> .norm."], ["module.ln.gamma"]) == ["norm.weight"]


def test_swapping_two_names() -> None:
    assert names([".q. -> .k.", ".k. -> .q."], ["a.q.w", "a.k.w"]) == ["a.k.w", "a.q.w"]


def test_the_first_matching_rule_decides_and_a_whole_key_rule_owns_its_key() -> None:
    rules = ["fc.weight -> head.w", "fc.{p*} -> head.{p}"]
    assert names(rules, ["fc.weight", "fc.bias"]) == ["head.w", "head.bias"]
    assert names(["fc. -> classifier.", "fc.weight -> head.w"], ["fc.weight", "fc.bias"]) == [
        "head.w",
        "classifier.bias",
    ]


def test_adding_a_prefix_or_a_suffix() -> None:
    assert names(["-> base."], ["a", "b.c"]) == ["base.a", "base.b.c"]
    assert names(["{k**} -> base.{k**}"], ["a", "b.c"]) == ["base.a", "base.b.c"]
    assert names([" -> .weight"], ["a"]) == ["a.weight"]


def test_shell_stars_cross_dots() -> None:
    assert names(["*.num_batches_tracked -> !"], ["bn.num_batches_tracked", "a.b.num_batches_tracked", "w"]) == ["w"]
    assert names(["layers.{0-1,3}.* -> !"], [f"layers.{i}.a.w" for i in range(5)]) == ["layers.2.a.w", "layers.4.a.w"]
    assert names(["**.bn.* -> **.norm.*"], ["bn.w", "x.y.bn.a.b"]) == ["norm.w", "x.y.norm.a.b"]


# ---------------------------------------------------------------------------------------------- captures


def test_linear_indices() -> None:
    rule = "features.{2*s+1}.{b}.mlp.{3*n}.{p*} -> layers.{s}.blocks.{b}.mlp.fc{n+1}.{p*}"
    keys = ["features.1.0.mlp.0.weight", "features.7.11.mlp.3.bias", "features.2.0.mlp.0.weight"]
    assert names([rule], keys) == ["layers.0.blocks.0.mlp.fc1.weight", "layers.3.blocks.11.mlp.fc2.bias", keys[2]]
    assert names(["layer{s}.w -> stages.{s-1}.w"], ["layer1.w", "layer4.w"]) == ["stages.0.w", "stages.3.w"]
    assert "is negative for s = 0" in problems(["layer{s}.w -> stages.{s-1}.w"], specs([("layer0.w", ())]))[0]


def test_ranges_choices_and_translation() -> None:
    assert names(["layer{s=1..3}.w -> l{s}.w"], ["layer1.w", "layer4.w", "layer12.w"]) == [
        "l1.w",
        "layer4.w",
        "layer12.w",
    ]
    rule = "block.{n=0|2|3}.{p*} -> {n=conv_dw|norm|mlp.fc1}.{p*}"
    assert names([rule], ["block.0.w", "block.3.w", "block.1.w"]) == ["conv_dw.w", "mlp.fc1.w", "block.1.w"]


def test_numbers_keep_their_zeros_and_pieces_their_letters() -> None:
    assert names(["block{i}.w -> b{i}.w"], ["block01.w", "block1.w"]) == ["b01.w", "b1.w"]
    assert names(["in_proj_{p*} -> qkv.{p*}"], ["in_proj_weight", "in_proj_.x"]) == ["qkv.weight", "in_proj_.x"]


def test_any_number_of_parts_may_be_none_in_front_but_not_at_the_end() -> None:
    rule = "{m**}.weight_g -> {m**}.parametrizations.weight.original0"
    assert names([rule], ["weight_g", "a.b.weight_g"]) == [
        "parametrizations.weight.original0", "a.b.parametrizations.weight.original0",
    ]  # fmt: skip
    assert names(["a.{m**}.b -> {m**}.c"], ["a.b", "a.x.y.b"]) == ["c", "x.y.c"]


def test_a_capture_written_twice_must_be_the_same() -> None:
    assert names(["layers.{i}.block{i}.w -> l{i}.w"], ["layers.3.block3.w", "layers.3.block4.w"]) == [
        "l3.w",
        "layers.3.block4.w",
    ]


def test_copies() -> None:
    found = remap(parse_recipe(["layer4. -> layer4., layer5."]), {"layer4.w": np.arange(3.0)})
    assert list(found) == ["layer4.w", "layer5.w"]
    assert np.array_equal(found["layer5.w"], np.arange(3.0))
    assert names(["a -> {x=p|q|r}.w"], ["a"]) == ["p.w", "q.w", "r.w"]


def test_targets_stand_where_their_first_source_stood() -> None:
    rules = ["b -> z", "q, k -> qk | a, b -> (a + b)", "c -> !"]
    found = expand(parse_recipe(rules), specs([("a", ()), ("b", ()), ("k", (2,)), ("c", ()), ("q", (3,)), ("d", ())]))
    assert [step.target.key for step in found.steps] == ["a", "z", "qk", "d"]
    assert [(gone.source.key, reason_text(gone.reason)) for gone in found.dropped] == [("c", "rule 3")]
    assert [reason_text(step.reason) for step in found.steps] == ["kept", "rule 1", "rule 2", "kept"]
    assert found.steps[0].is_copy


# ---------------------------------------------------------------------------------------------- several tensors


def test_experts_are_stacked_in_the_order_of_their_numbers() -> None:
    keys = sorted(f"m.experts.{e}.w2.weight" for e in range(11))  # "10" comes before "2"
    arrays = {key: np.full((2, 3), int(key.split(".")[2]), "f4") for key in keys}
    found = remap(parse_recipe(["{m**}.experts.{e}.w2.weight -> {m**}.down | o i -> e o i"]), arrays)
    assert list(found) == ["m.down"]
    assert found["m.down"][:, 0, 0].tolist() == list(range(11))


def test_a_split_over_choices() -> None:
    x = np.arange(24, dtype="f4").reshape(12, 2)
    found = remap(
        parse_recipe(["a.in_proj_weight -> a.{x=q|k|v}_proj.weight | (x o) i -> o i"]), {"a.in_proj_weight": x}
    )
    assert [array.tolist() for array in found.values()] == [part.tolist() for part in np.split(x, 3)]
    assert list(found) == ["a.q_proj.weight", "a.k_proj.weight", "a.v_proj.weight"]


def test_parts_of_unequal_length_need_their_sizes() -> None:
    rule = "qkv -> q, k, v | ((h + kv + kv2) d) i -> (h d) i, (kv d) i, (kv2 d) i"
    x = np.arange(48, dtype="f4").reshape(24, 2)  # 8 query heads and 2 + 2 key and value heads of 2
    found = remap(parse_recipe([rule]), {"qkv": x}, vars={"h": 8, "kv": 2, "kv2": 2, "d": 2})
    assert {key: array.shape for key, array in found.items()} == {"q": (16, 2), "k": (4, 2), "v": (4, 2)}
    assert np.array_equal(np.concatenate(list(found.values())), x)


def test_tensor_parallel_ranks_join_across_files() -> None:
    w = np.arange(32, dtype="f4").reshape(4, 8)
    shards = [{"wo": w[:, :4], "norm": w[0]}, {"wo": w[:, 4:], "norm": w[0]}]
    rules = ["rank{r}.wo -> wo | o i -> o (r i)", "rank0.{k**} -> {k**}", "rank{r}.{k**} -> !"]
    found = expand(
        parse_recipe(rules),
        [{key: TensorSpec(key, "float32", array.shape) for key, array in shard.items()} for shard in shards],
        prefixes=["rank0", "rank1"],
    )
    made = run(found, *shards)
    assert np.array_equal(made["wo"], w)
    assert list(made) == ["wo", "norm"]
    assert [gone.source for gone in found.dropped] == [Source(1, "norm")]

    one = expand(parse_recipe(rules), [{"wo": TensorSpec("wo", "float32", (4, 8))}], prefixes=["rank0"])
    assert one.steps[0].is_copy  # one rank: nothing to join
    assert one.uses[2].shadowed


def test_an_expression_gets_spread_tensors_stacked() -> None:
    arrays = {f"e.{i}.w": np.full((2,), float(i), "f4") for i in range(4)}
    found = remap(parse_recipe(["e.{i}.w -> mean.w | = mean($1, 0, keepdims=0)"]), arrays)
    assert found["mean.w"].tolist() == [1.5, 1.5]


def test_steps_run_in_order_and_no_op_is_left_out() -> None:
    found = expand(parse_recipe(["w -> v | a b -> b a | f32 | = $1 * 2 | bf16", "{k**} -> {k**} | bf16"]), {
        "w": TensorSpec("w", "float32", (2, 3)), "n": TensorSpec("n", "int64", ()),
    })  # fmt: skip
    assert [step.target.short for step in found.steps] == ["bf16[3,2]", "i64[]"]
    assert isinstance(found.steps[0].value, Apply)
    assert found.steps[0].value.op.text == "bf16"
    assert found.steps[1].is_copy  # a counter is not cast
    same = expand(parse_recipe(["w -> v | a b -> a b"]), specs([("w", (2, 3))]))
    assert same.steps[0].is_copy
    joined = expand(parse_recipe(["a, b -> c | f32 | i, j -> (i + j)"]), {
        "a": TensorSpec("a", "bfloat16", (2,)), "b": TensorSpec("b", "float32", (2,)),
    })  # fmt: skip
    assert not joined.problems
    assert joined.steps[0].target.short == "f32[4]"


# ---------------------------------------------------------------------------------------------- errors


def test_two_sources_for_one_target() -> None:
    (message,) = problems(["model.{k**} -> {k**}"], specs([("model.head.weight", ()), ("head.weight", ())]))
    assert message == '2 tensors would become "head.weight": model.head.weight by rule 1; head.weight kept'


def test_an_incomplete_or_ragged_group() -> None:
    rule = "l.{i}.experts.{e}.w -> l.{i}.w | o -> e o"
    (message,) = problems([rule], specs([(f"l.0.experts.{e}.w", (2,)) for e in (0, 1, 3)]))
    assert message == "rule 1: l.0.experts.2.w is missing beside l.0.experts.0.w"
    ragged = [(f"l.{i}.experts.{e}.w", (2,)) for i in range(2) for e in range(8 - i)]
    (message,) = problems([rule], specs(ragged))
    assert message == "rule 1: there are 7 of {e} beside l.1.experts.0.w, and 8 elsewhere"
    (message,) = problems(
        ["{m**}.a, {m**}.b -> {m**}.c | i, j -> (i + j)"], specs([("x.a", (2,)), ("x.b", (2,)), ("y.a", (2,))])
    )
    assert message == "rule 1: y.b is missing beside y.a"
    (message,) = problems([rule], specs([("l.0.experts.0.w", (2,)), ("l.0.experts.1.w", (3,))]))
    assert "different shapes: [2] and [3]" in message
    assert problems(["l.{e=1..4}.w -> w | o -> e o"], specs([(f"l.{e}.w", (2,)) for e in (1, 2, 3)])) == [
        "rule 1: l.4.w is missing beside l.1.w"
    ]


def test_huge_numbers_in_keys_cost_nothing() -> None:
    rule = "e.{i}.w -> w | o -> i o"
    (message,) = problems([rule], specs([("e.0.w", (2,)), ("e.999999999999999999.w", (2,))]))
    assert message.startswith("rule 1: e.1.w and 999999999999999997 more is missing")
    assert (
        "a number that no list is as long as"
        in problems([rule], specs([("e.0.w", (2,)), (f"e.{'9' * 6000}.w", (2,))]))[0]
    )


def test_one_name_for_two_numbers() -> None:
    (message, *_) = problems(["e.{i}.w -> w | o -> i o"], specs([("e.1.w", (2,)), ("e.01.w", (2,)), ("e.0.w", (2,))]))
    assert message == "rule 1: e.1.w and e.01.w stand for the same tensor"


def test_a_rule_that_matches_nothing_has_a_near_miss() -> None:
    found = expand(parse_recipe(["clasifier. -> head."]), specs([("classifier.weight", ()), ("conv1.weight", ())]))
    (problem,) = found.problems
    assert problem.message == 'rule 1 "clasifier. -> head." matches none of the 2 keys'
    assert "classifier.weight" in problem.hint
    assert not problems(["?clasifier. -> head."], specs([("a", ())]))


def test_unmatched_keys() -> None:
    source = specs([("a.w", ()), ("b.w", ())])
    (stage,) = parse_recipe(["a.w -> x"]).stages
    recipe = Recipe((replace(stage, unmatched="drop"),))
    assert [step.target.key for step in expand(recipe, source).steps] == ["x"]
    assert expand(recipe, source).dropped[0].reason == Unmatched()
    strict = Recipe((replace(stage, unmatched="error"),))
    (problem,) = expand(strict, source).problems
    assert problem.keys == ("b.w",)


def test_fit_needs_a_target() -> None:
    recipe = parse_recipe(["pos_embed -> pos_embed | fit grid(prefix=1, mode='bicubic', antialias=True)"])
    source = specs([("pos_embed", (1, 197, 8))])
    (problem,) = expand(recipe, source).problems
    assert "--into" in problem.hint

    def zeros(step: Fit, spec: TensorSpec, target: TensorSpec) -> Op:
        assert (step.method, step.args) == ("grid", "prefix=1, mode='bicubic', antialias=True")
        return Fill(0.0, target.dtype, target.shape)

    target = specs([("pos_embed", (1, 577, 8))])
    assert expand(recipe, source, targets=target, fit=zeros).steps[0].target.shape == (1, 577, 8)
    assert expand(recipe, source, targets=source, fit=zeros).steps[0].is_copy


def test_sizes_from_the_target() -> None:
    rule = "w -> a, b | (i + n) -> i, n"
    found = expand(parse_recipe([rule]), specs([("w", (10,))]), targets=specs([("a", (3,)), ("b", (7,))]))
    assert [step.target.shape for step in found.steps] == [(3,), (7,)]


@pytest.mark.parametrize(
    ("rule", "message", "under"),
    [
        ("a", "no ->", ""),
        ("a -> b -> c", "two ->", "->"),
        ("a..b -> c", "an empty part", "."),
        ("{i -> b", "not closed", "{"),
        ("x{m**} -> y", "whole parts", ""),
        ("a{i}{j} -> b", "side by side", ""),
        ("a}b -> c", "cannot stand in a key pattern", "}"),
        ("a -> b | bf17", "not a step", "bf17"),
        ("{a=1|2} -> {a=x|y|z}", "do not agree", "{a=x|y|z}"),
        ("{s=3..1} -> x", "an invalid range", "{"),
        ("{p*}.w -> w", "on the left only", ""),
        ("layers.{i}.w -> w", "does not say how the tensors are joined", ""),
        ("a -> b{i}", "nothing says what it is", ""),
        ("a, b -> c", "does not say how they are joined", ""),
        ("module. -> model", "on one side only", ""),
        ("a.weight ->", "nothing on the right", ""),
        ("->", "nothing on the left", ""),
        ("a -> ! | bf16", "also computes", ""),
        ("a -> b | = $2", "wants $2", ""),
        ("a, b -> c | o -> o", "where the layout", ""),
        (", a -> b", "a pattern is missing", ""),
    ],
)
def test_malformed_rules(rule: str, message: str, under: str) -> None:
    with pytest.raises(UsageError) as info:
        parse_rule(rule)
    assert message in info.value.message
    if under:
        text, caret = info.value.detail
        assert text[caret.index("^") :].startswith(under)


# ---------------------------------------------------------------------------------------------- at large


KEY = st.lists(
    st.sampled_from(["a", "b", "norm", "norm1", "0", "1", "11", "weight", "bias"]), min_size=1, max_size=5
).map(".".join)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(KEY, unique=True, min_size=1, max_size=12),
    st.lists(st.sampled_from(["a", "b", "norm", "0"]), min_size=1, max_size=2),
)
def test_prefix_rules_do_what_string_slicing_does(keys: list[str], parts: list[str]) -> None:
    prefix = ".".join(parts) + "."
    found = expand(parse_recipe([f"?{prefix} -> new.{prefix}"]), specs([(key, ()) for key in keys]))
    expected = ["new." + key if key.startswith(prefix) else key for key in keys]
    assert [step.target.key for step in found.steps] == expected


@settings(max_examples=100, deadline=None)
@given(KEY)
def test_a_pattern_of_a_key_matches_that_key_only(key: str) -> None:
    pattern = parse_pattern(key)
    assert pattern.match(key) == {}
    assert pattern.match(f"x.{key}") is None
    assert pattern.match(f"{key}.x") is None
    assert parse_pattern("{m**}").match(key) == {"m": key}
    assert parse_pattern("{m**}").write({"m": key}) == key


def test_a_hundred_thousand_keys_and_twenty_rules() -> None:
    keys = [f"model.layers.{i}.mlp.experts.{j}.{n}.weight" for i in range(100) for j in range(250) for n in "abcd"]
    rules = [
        "model.layers.{i}.mlp.experts.{j}.a.weight -> l.{i}.e.{j}.A",
        "model.layers.{i}.mlp.experts.{e}.b.weight -> l.{i}.B | o i -> e o i",
        ".c. -> .C.",
        *(f"?model.layers.{{i}}.attn{n}.q.weight -> l.{{i}}.q{n}" for n in range(12)),
        *(f"?.wrapper{n}. ->" for n in range(5)),
    ]
    source = specs([(key, (4, 4)) for key in keys])
    recipe = parse_recipe(rules)
    began = time.process_time()
    found = expand(recipe, source)
    took = time.process_time() - began
    assert not found.problems
    assert len(found.steps) == 75_100
    assert took < 12  # about 2 s on an idle machine


# ---------------------------------------------------------------------------------------------- searching


tokens = st.sampled_from(["a", "b", "1", "{i}", "{p*}", "*", "{q=a|aa}", "{r=1|b}", "{s=1..3}", "{8-11}", "{8..11}"])
parts_of_patterns = st.one_of(st.just("**"), st.just("{m**}"), st.lists(tokens, min_size=1, max_size=3).map("".join))


@given(
    parts=st.lists(parts_of_patterns, min_size=1, max_size=4),
    dots=st.tuples(st.sampled_from(["", "."]), st.sampled_from(["", "."])),
    key=st.text("ab1.", max_size=12),
)
def test_the_search_without_a_regex_finds_the_same(parts: list[str], dots: tuple[str, str], key: str) -> None:
    assume(all("**" not in part or part == "**" or part.startswith("{m") for part in parts))
    search = parse_pattern(dots[0] + ".".join(parts) + dots[1]).search()
    walked = [(found.span(), found.groups("")) for found in search.walked(key)]
    assert walked == [(found.span(), found.groups("")) for found in search.regex.finditer(key)]


@pytest.mark.parametrize(
    "pattern",
    [".".join("*" * 30), "**." * 30 + "b", "{p*}x" * 30 + "b", "{q=a|aa}" * 40 + "b", ".{m**}.a" * 12 + ".b."],
)
def test_no_pattern_takes_longer_than_its_key(pattern: str) -> None:
    parsed = parse_pattern(pattern)
    started = time.perf_counter()
    for key in ("a." * 40 + "c", "ax" * 60, "a" * 100, "a.a" * 100 + ".c."):
        assert parsed.match(key) is None or pattern.startswith("*.*")
    assert time.perf_counter() - started < 5


def test_a_pattern_that_would_not_end_is_refused() -> None:
    with pytest.raises(UsageError, match="takes too long to match"):
        parse_pattern(".".join("*" * 30) + "b").match("a." * 50_000 + "c")


def test_a_rule_that_removes_parts_may_rearrange() -> None:
    found = expand(parse_recipe(["module. -> | o i -> i o"]), specs([("module.w", (2, 3)), ("module.v", (4, 5))]))
    assert not found.problems
    assert {step.target.key: step.target.shape for step in found.steps} == {"w": (3, 2), "v": (5, 4)}
