"""Parts that hold the same matrices, whatever they are called, in any order; and what else needs no word."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from test_match import Specs, checked, given, linear, norm, specs
from test_match_kinds import Rows, conv, order

from ckptool.matching.match import match
from ckptool.matching.result import Confidence

__all__ = ["order"]  # the fixture

WIDTHS = (8, 16, 32, 64)


def u_net(down: str, up: str, first: str, second: str) -> Rows:
    """A way down and a way up of as many levels, two convolutions each."""
    rows: Rows = []
    for level, width in enumerate(WIDTHS):
        before = WIDTHS[level - 1] if level else 3
        rows += conv(f"{down}{level + 1}.{first}", width, before) + conv(f"{down}{level + 1}.{second}", width, width)
    for level, width in enumerate(WIDTHS[-2::-1]):
        rows += conv(f"{up}{level + 1}.{first}", width, 3 * width) + conv(f"{up}{level + 1}.{second}", width, width)
    return [*rows, *conv("last", 2, WIDTHS[0], 1)]


def test_levels_of_other_names_are_known_by_what_they_hold(order: Callable[[Rows], Specs]) -> None:
    source, target = order(u_net("inc", "outc", "x", "y")), order(u_net("left", "right", "one.k", "two.k"))
    report = match(source, target)
    words = {"left": "inc", "right": "outc", "one.k": "x", "two.k": "y"}
    truth = {}
    for key in target:
        name = key
        for theirs, ours in words.items():
            name = name.replace(theirs, ours)
        truth[key] = (name,)
    assert given(report) == truth
    checked(report, source, target)


def flat_blocks(name: str, conv_name: str, norm_name: str) -> Rows:
    """Eight blocks in one list: the first of each pair widens."""
    rows: Rows = []
    for at in range(8):
        width, before = WIDTHS[at // 2], WIDTHS[max(0, (at + 1) // 2 - 1)] if at % 2 == 0 and at else WIDTHS[at // 2]
        for number, (outputs, inputs, size) in enumerate(
            ((width // 4, before, 1), (width // 4,) * 2 + (3,), (width, width // 4, 1))
        ):
            here = name.format(at=at, stage=at // 2, block=at % 2)
            rows += [(f"{here}.{conv_name}{number}.weight", (outputs, inputs, size, size))]
            rows += [
                (f"{here}.{norm_name}{number}.{role}", (outputs,))
                for role in ("weight", "bias", "running_mean", "running_var")
            ]
    return rows


def test_one_list_and_stages_in_any_order(order: Callable[[Rows], Specs]) -> None:
    source = order(flat_blocks("layer{stage}.{block}", "conv", "bn"))
    target = order(flat_blocks("blocks.{at}", "k", "n"))
    found = given(match(source, target))
    convs = {key: row for key, row in found.items() if len(target[key].shape) == 4}
    assert len(convs) == 24
    for key, (name,) in convs.items():
        _, at, last, _ = key.split(".")
        assert name == f"layer{int(at) // 2}.{int(at) % 2}.{last.replace('k', 'conv')}.weight"


def test_keras_names_with_a_zero(order: Callable[[Rows], Specs]) -> None:
    """res2a_branch2b and bn2a_branch2b belong together, and both are in groups of their own names."""
    ours: Rows = []
    theirs: Rows = []
    for at, width in enumerate((16, 24, 40, 56)):
        for number, letter in enumerate("ab"):
            one, other = f"res{at}a_branch2{letter}", f"bn{at}a_branch2{letter}"
            ours += [(f"{one}/{one}/kernel:0", (3, 3, 7 + at + number, width))]
            roles = ("gamma", "beta", "moving_mean", "moving_variance")
            ours += [(f"{other}/{other}/{role}:0", (width,)) for role in roles]
            theirs += [(f"stages.{at}.conv{number}.weight", (width, 7 + at + number, 3, 3))]
            roles = ("weight", "bias", "running_mean", "running_var")
            theirs += [(f"stages.{at}.norm{number}.{role}", (width,)) for role in roles]
    found = given(match(order(ours), order(theirs)))
    for at in range(4):
        for number, letter in enumerate("ab"):
            assert found[f"stages.{at}.conv{number}.weight"] == (
                f"res{at}a_branch2{letter}/res{at}a_branch2{letter}/kernel:0",
            )
            assert found[f"stages.{at}.norm{number}.running_var"] == (
                f"bn{at}a_branch2{letter}/bn{at}a_branch2{letter}/moving_variance:0",
            )


def tower(name: str, blocks: int, words: tuple[str, str, str]) -> Rows:
    """Blocks of one width, of three modules."""
    up, down, after = words
    rows: Rows = []
    for at in range(blocks):
        rows += (
            linear(f"{name}.{at}.{up}", 48, 12)
            + linear(f"{name}.{at}.{down}", 12, 48)
            + norm(f"{name}.{at}.{after}", 12)
        )
    return rows


def test_a_shorter_list_takes_nothing_from_one_of_the_same_length(order: Callable[[Rows], Specs]) -> None:
    """The shorter one, new, has the better names."""
    source = order([("tokens.weight", (500, 12)), *tower("old.layers", 12, ("up", "down", "norm"))])
    new = tower("extra.layers", 4, ("up", "down", "norm"))
    target = order([("tokens.weight", (500, 12)), *tower("body.steps", 12, ("l_up", "l_down", "norm_l")), *new])
    found = given(match(source, target))
    assert not {key for key in found if key.startswith("extra")}


@pytest.mark.parametrize("prefix", ["ema.model.", "teacher."])
def test_a_prefix_of_all_names_marks_no_copy(prefix: str, order: Callable[[Rows], Specs]) -> None:
    rows = [("tokens.weight", (500, 12)), *tower("layers", 3, ("fc1", "fc2", "ln"))]
    report = match(order(rows), order([(prefix + key, shape) for key, shape in rows]))
    assert given(report) == {prefix + key: (key,) for key, _ in rows}
    assert {pair.confidence for pair in report.accepted()} <= {Confidence.UNIQUE, Confidence.ALIGNED}


def test_experts_and_convolutions_of_q_k_and_v_have_their_axes_told(order: Callable[[Rows], Specs]) -> None:
    ours: Rows = [("embed.weight", (500, 12))]
    theirs: Rows = [("embed.weight", (500, 12))]
    for at in range(3):
        ours += [(f"layers.{at}.attn.qkv.weight", (36, 12, 1)), (f"layers.{at}.attn.qkv.bias", (36,))]
        ours += [(f"layers.{at}.experts.up", (5, 20, 12))]
        for letter in "qkv":
            theirs += linear(f"layers.{at}.attn.to_{letter}", 12, 12)
        theirs += [(f"layers.{at}.experts.up", (5, 12, 20))]
    source, target = order(ours), order(theirs)
    report = match(source, target)
    assert {*given(report)} == {*target}
    layouts = {pair.layout for pair in report.accepted()} - {""}
    assert "a b c -> a c b" in layouts and any(layout.startswith("(a0 + a1 + a2) i 1 -> ") for layout in layouts)
    checked(report, source, target)


def shuffle_units(stage: str, block: str, first: str, second: str) -> Rows:
    """ShuffleNet V2: two convolutions of one shape in each unit; the first unit holds what another unit does, and more.

    Args:
        stage: a name for the number of a stage.
        block: of a unit in it, behind the first one.
        first: of the first convolution.
        second: of the other one.
    """
    rows: Rows = []
    for number, width in enumerate((6, 10, 14)):
        head = stage.format(number)
        units = [f"{head}.{block.format(0, -1)}", *(f"{head}.{block.format(at + 1, at)}" for at in range(3))]
        rows += conv(f"{units[0]}.short", width, width - 4 if number else 3, 1)
        for unit in units:
            rows += conv(f"{unit}.{first}", width, width, 1) + conv(f"{unit}.{second}", width, width, 1)
            rows += [(f"{unit}.dw.weight", (width, 1, 3, 3))]
    return rows


def test_equal_convolutions_of_a_unit_are_counted(order: Callable[[Rows], Specs]) -> None:
    source = order(shuffle_units("stage{}", "{}", "branch.0", "branch.5"))
    target = order(shuffle_units("s{}.list", "u{}", "pw1", "pw2"))
    found = given(match(source, target))
    equal = {
        key: row for key, row in found.items() if ".pw" in key and not key.startswith(("s0.list.u0", "s1.list.u0"))
    }
    assert len([key for key in equal if key.endswith("weight")]) >= 3 * 3 * 2
    for key, (name,) in equal.items():
        assert name == key.replace(".list.u", ".").replace("s", "stage", 1).replace("pw1", "branch.0").replace(
            "pw2", "branch.5"
        )


@pytest.mark.parametrize(("short", "long"), [(3, 6), (4, 8)])
def test_two_lists_of_equal_blocks_keep_to_themselves(short: int, long: int, order: Callable[[Rows], Specs]) -> None:
    """An eye and a writer of one width: what is between the norms has words on one side only."""

    def model(eye: str, writer: str, parts: tuple[str, ...]) -> Rows:
        rows: Rows = [(f"{eye}.patch.weight", (8, 3, 4, 4)), (f"{writer}.word.weight", (900, 8))]
        for list_name, depth in ((eye, long), (writer, short)):
            for at in range(depth):
                here = f"{list_name}.layers.{at}"
                q, k, v, out, up, down = (f"{here}.{part}" for part in parts)
                rows += [row for name in (q, k, v, out) for row in linear(name, 8, 8)]
                rows += linear(up, 32, 8) + linear(down, 8, 32)
        return rows

    names = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    source = order(model("image_encoder", "text", names))
    target = order(model("eye", "writer", ("q", "k", "v", "o", "expand", "reduce")))
    found = given(match(source, target))
    said = {key: name for key, (name,) in found.items() if "expand" in key or "reduce" in key}
    assert len(said) == 4 * (short + long)
    for key, name in said.items():
        assert name.split(".")[0] == {"eye": "image_encoder", "writer": "text"}[key.split(".")[0]]
        assert name.split(".")[2] == key.split(".")[2]
        assert ("fc1" in name) == ("expand" in key)


@pytest.mark.parametrize("convs", [1, 2, 3])
def test_a_way_down_gives_nothing_to_a_way_up_that_mirrors_it(convs: int, order: Callable[[Rows], Specs]) -> None:
    def way(name: str, widths: tuple[int, ...]) -> Rows:
        return [
            row
            for level, width in enumerate(widths)
            for at in range(convs)
            for row in conv(f"{name}{level + 1}.{at}", width, width)
        ]

    report = match(order(way("down", WIDTHS)), order(way("up", WIDTHS[::-1])))
    assert not report.accepted()


@pytest.mark.parametrize(
    ("stem", "is_same"),
    [((8, 4, 4, 4), True), ((8, 1, 4, 4), True), ((8, 3, 2, 4, 4), False), ((8, 3, 6, 6), False), ((300, 8), False)],
)
def test_a_stem_of_other_channels_tells_the_model(stem: tuple[int, ...], is_same: bool) -> None:
    """Blocks of one width are alike in all transformers; what goes in tells which it is."""

    def model(stem: tuple[int, ...], name: str, blocks: str, parts: tuple[str, ...]) -> Specs:
        rows: Rows = [(f"{name}.weight", stem)]
        for at in range(4):
            one, qkv, out, two, up, down = (f"{blocks}.{at}.{part}" for part in parts)
            rows += norm(one, 8) + linear(qkv, 24, 8) + linear(out, 8, 8)
            rows += norm(two, 8) + linear(up, 32, 8) + linear(down, 8, 32)
        return specs(rows)

    source = model(
        (8, 3, 4, 4), "patch_embed.proj", "blocks", ("norm1", "attn.qkv", "attn.proj", "norm2", "fc1", "fc2")
    )
    target = model(stem, "cells", "trunk", ("pre1", "att.to_qkv", "att.to_out", "pre2", "fc_in", "mlp_out"))
    report = match(source, target)
    assert bool(report.accepted()) is is_same
    assert not is_same or len(report.accepted()) == 4 * 12
