"""What must not be matched: other blocks, crossed names, copies, other kinds of models, the habits of one library."""

from __future__ import annotations

from itertools import product

import pytest
from test_match import Specs, blocks, given, linear, norm, specs
from test_match_traps import renamed, wrong

from ckptool.matching.match import match
from ckptool.matching.result import Confidence, Evidence

Rows = list[tuple[str, tuple[int, ...]]]


def block(name: str, first: str, second: str, *, bare: bool = False) -> Rows:
    """A block with two norms of these names."""
    rows: Rows = [(f"{name}.{first}.weight", (8,)), (f"{name}.attn.qkv.weight", (24, 8))]
    rows += [(f"{name}.{second}.weight", (8,)), (f"{name}.mlp.fc1.weight", (32, 8))]
    return rows[::2] if bare else rows


# ---------------------------------------------------------------------------------------------- names that cross

FIRST = ("norm1", "ln_1", "layernorm_before", "input_layernorm", "INPUT_LAYERNORM", "pre_attn_norm")
SECOND = ("norm2", "ln_2", "layernorm_after", "post_attention_layernorm", "PostAttentionLayernorm", "pre_mlp_norm")


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize("names", [*product(FIRST[::2], SECOND[1::2])])
def test_the_two_norms_of_a_block(names: tuple[str, str], is_turned: bool) -> None:
    source = specs(block("h.0", *names) + block("h.1", *names))
    for others in product(FIRST, SECOND):
        rows = block("layers.0", *others) + block("layers.1", *others)
        found = given(match(source, specs(rows[::-1] if is_turned else rows)))
        for at, (one, other) in product((0, 1), zip(names, others, strict=True)):
            assert found[f"layers.{at}.{other}.weight"] == (f"h.{at}.{one}.weight",), (names, others)


def test_a_name_of_both_sides_is_not_given_to_another() -> None:
    source = specs(block("l.0", "input_layernorm", "post_attention_layernorm"))
    target = specs(block("l.0", "m1", "post_attention_layernorm"))
    found = given(match(source, target))
    assert found.get("l.0.m1.weight") != ("l.0.post_attention_layernorm.weight",)
    assert found.get("l.0.post_attention_layernorm.weight") != ("l.0.input_layernorm.weight",)


def test_two_norms_after_attention_and_after_the_mlp() -> None:
    """Here what is called after the attention is the first of the two."""
    source = specs(block("h.0", "post_attention_layernorm", "post_feedforward_layernorm"))
    target = specs(block("m.h.0", "post_attention_layernorm", "post_feedforward_layernorm"))
    assert not wrong(source, target, lambda key: key.removeprefix("m."))


# ---------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("kept", [(1, 2), (0, 2), (2, 3), (1, 3)])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_blocks_that_are_cut_out_keep_their_numbers(kept: tuple[int, ...], prefix: str) -> None:
    source = specs(blocks("layers.", 4))
    rows = [(prefix + key, spec.shape) for key, spec in source.items() if int(key.split(".")[1]) in kept]
    target = specs(rows)
    assert given(match(source, target)) == {key: (key.removeprefix(prefix),) for key in target}
    assert given(match(target, source)) == {key.removeprefix(prefix): (key,) for key in target}


def test_lists_in_another_order_do_not_turn_their_blocks() -> None:
    def stage(name: str, numbers: tuple[int, ...], width: int) -> Rows:
        return [row for at in numbers for row in linear(f"{name}.{at}.b2.1", width, width)]

    source = specs(stage("stage2", (0, 3), 8) + stage("stage3", (7,), 16))
    target = specs(stage("model.m2", (7,), 16) + stage("model.m3", (0, 3), 8))
    names = {"model.m3": "stage2", "model.m2": "stage3"}
    assert not wrong(source, target, lambda key: key.replace(key[:8], names[key[:8]]))


# ---------------------------------------------------------------------------------------------- copies


def small(prefix: str, count: int, width: int = 8) -> Rows:
    return [
        row
        for at in range(count)
        for row in norm(f"{prefix}layers.{at}.norm", width) + linear(f"{prefix}layers.{at}.fc", 16, width)
    ]


@pytest.mark.parametrize("copy", ["ema.", "teacher.", "momentum_encoder.", "old_model.", "aux.", "model_ema.module."])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_copy_does_not_stand_in_for_what_is_lacking(copy: str, prefix: str) -> None:
    whole = specs(small(prefix, 3))
    source = specs([row for row in small(prefix, 3) if ".layers.1." not in f".{row[0]}"] + small(copy, 3))
    target = renamed(whole, lambda key: key.removeprefix(prefix))
    for one, other in ((source, target), (target, source)):
        found = given(match(one, other))
        assert not {key for key, (made_of,) in found.items() if key.startswith(copy) or made_of.startswith(copy)}


def test_a_copy_is_taken_for_a_copy() -> None:
    source, target = specs(small("net.", 3) + small("ema.", 3)), specs(small("model.", 3) + small("model_ema.", 3))
    names = {"model": "net", "model_ema": "ema"}
    assert not wrong(source, target, lambda key: key.replace(key.split(".")[0], names[key.split(".")[0]], 1))


# ---------------------------------------------------------------------------------------------- other models


def transformer(ends: Rows, prefix: str) -> Specs:
    return specs(ends[:-1] + blocks(prefix, 4, width=32) + ends[-1:])


WORDS: Rows = [("embed.tokens.weight", (3000, 32)), ("embed.positions.weight", (128, 32)), ("head.weight", (2, 32))]
PIXELS: Rows = [("patch_embed.proj.weight", (32, 3, 4, 4)), ("pos_embed", (1, 128, 32)), ("fc.weight", (2, 32))]
SOUND: Rows = [("features.conv.weight", (40, 1, 10)), ("project.weight", (32, 40)), ("classifier.weight", (2, 32))]


@pytest.mark.parametrize(("ours", "theirs"), [(WORDS, PIXELS), (PIXELS, SOUND), (SOUND, WORDS)])
def test_blocks_alone_do_not_make_models_related(ours: Rows, theirs: Rows) -> None:
    for one, other in ((ours, theirs), (theirs, ours)):
        report = match(transformer(one, "encoder.layer."), transformer(other, "blocks."))
        assert not report.accepted() and report.notes


@pytest.mark.parametrize("ends", [WORDS, PIXELS, SOUND])
def test_models_with_one_way_in_are_related(ends: Rows) -> None:
    target = [(f"net.{key}", shape) for key, shape in ends[:-1]] + [("net.head.weight", (7, 32))]
    found = given(match(transformer(ends, "encoder.layer."), transformer(target, "net.blocks.")))
    assert sum(key.startswith("net.blocks.") for key in found) == 48


def test_a_table_of_words_is_none_of_places() -> None:
    source = specs([("decoder.embed_tokens.weight", (64, 8)), *blocks("decoder.layers.", 2)])
    target = specs([("decoder.embed_positions.weight", (64, 8)), *blocks("decoder.layers.", 2)])
    assert "decoder.embed_positions.weight" not in given(match(source, target))


# ---------------------------------------------------------------------------------------------- habits


def gated(prefix: str, names: str) -> Rows:
    gate, up, down = names.split()
    rows: Rows = [("embed.weight", (50, 8))]
    for at in range(2):
        rows += [(f"{prefix}{at}.attn.q_proj.weight", (8, 8)), (f"{prefix}{at}.mlp.{gate}.weight", (20, 8))]
        rows += [(f"{prefix}{at}.mlp.{up}.weight", (20, 8)), (f"{prefix}{at}.mlp.{down}.weight", (8, 20))]
    return rows


@pytest.mark.parametrize(("names", "whose"), [("w1 w3 w2", "Meta's"), ("fc_1 fc_2 proj", "LitGPT's")])
@pytest.mark.parametrize("theirs", ["gate_proj up_proj down_proj", "up_proj gate_proj down_proj"])
def test_what_only_the_habit_of_a_library_tells_is_shown_and_not_taken(names: str, whose: str, theirs: str) -> None:
    source = specs(gated("layers.", names))
    target = specs(gated("model.layers.", theirs))
    report = match(source, target)
    assert {key.split(".")[-2] for key in given(report) if ".mlp." in key} == {"down_proj"}
    doubtful = [pair for pair in report.pairs if pair.confidence is Confidence.INTERCHANGEABLE]
    wanted = dict(zip(("gate_proj", "up_proj"), names.split(), strict=False))
    assert len(doubtful) == 4
    for pair in doubtful:
        assert pair.sources[0].split(".")[-2] == wanted[pair.targets[0].split(".")[-2]]
        assert pair.evidence == (Evidence.HABIT,)
        assert pair.habit.startswith(whose)
    assert len(given(match(source, renamed(source, lambda key: f"model.{key}")))) == len(source)


def test_experts_whose_gates_only_a_habit_tells_are_experts_all_the_same() -> None:
    def rows(prefix: str, names: str) -> Rows:
        shapes = ((20, 8), (8, 20), (20, 8))
        head: Rows = [(f"{prefix}embed.weight", (50, 8))]
        return head + [
            (f"{prefix}layers.{at}.mlp.experts.{expert}.{name}.weight", shape)
            for at, expert in product(range(2), range(4))
            for name, shape in zip(names.split(), shapes, strict=True)
        ]

    found = given(match(specs(rows("", "w1 w2 w3")), specs(rows("model.", "gate_proj down_proj up_proj"))))
    assert len([key for key in found if "down_proj" in key]) == 8
    assert not [key for key in found if "gate_proj" in key or "up_proj" in key]
