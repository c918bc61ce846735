"""Kinds of conversions, each in three orders of both files: right in all of them, or withheld."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import pytest
from test_match import Specs, blocks, checked, given, linear, norm, specs

from ckptool.matching.match import match
from ckptool.matching.result import Confidence, Evidence
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import parse_recipe

Rows = list[tuple[str, tuple[int, ...]]]
Truth = Mapping[str, tuple[str, ...]]

ORDERS: dict[str, Callable[[Rows], Rows]] = {
    "given": lambda rows: rows,
    "sorted": sorted,
    "shuffled": lambda rows: random.Random(0).sample(rows, len(rows)),
}


@pytest.fixture(params=ORDERS)
def order(request: pytest.FixtureRequest) -> Callable[[Rows], Specs]:
    return lambda rows: specs(ORDERS[request.param](rows))


def conv(name: str, outputs: int, inputs: int, size: int = 3) -> Rows:
    return [(f"{name}.weight", (outputs, inputs, size, size)), (f"{name}.bias", (outputs,))]


# ---------------------------------------------------------------------------------------------- attention


def letters(name: str) -> str:
    """Those of q, k and v that a name stands for."""
    return name.removeprefix("to_").removesuffix("_proj")


def attention(kind: str) -> Rows:
    """Three blocks whose q, k and v are apart, one, or q beside a joined k and v."""
    names = {"apart": ["q_proj", "k_proj", "v_proj"], "joined": ["to_q", "to_kv"], "fused": ["to_qkv"]}[kind]
    rows: Rows = [("embed.weight", (100, 32))]
    for at in range(3):
        prefix = f"layers.{at}.attn."
        rows += [(f"{prefix}{name}.weight", (32 * len(letters(name)), 32)) for name in names]
        rows += linear(f"{prefix}to_out", 32, 32) + norm(f"layers.{at}.norm", 32)
        rows += linear(f"layers.{at}.ff.fc1", 64, 32) + linear(f"layers.{at}.ff.fc2", 32, 64)
    return rows


@pytest.mark.parametrize(
    ("ours", "theirs"), [(a, b) for a in ("apart", "joined", "fused") for b in ("apart", "joined", "fused") if a != b]
)
def test_q_k_and_v_apart_joined_and_fused(ours: str, theirs: str, order: Callable[[Rows], Specs]) -> None:
    source, target = order(attention(ours)), order(attention(theirs))
    report = match(source, target)
    assert set(given(report)) == set(target)
    for pair in report.accepted():
        if len(pair.sources) + len(pair.targets) > 2:
            here, there = (
                "".join(letters(key.split(".")[-2]) for key in keys) for keys in (pair.sources, pair.targets)
            )
            assert here == there


def test_biases_apart_from_a_fused_matrix(order: Callable[[Rows], Specs]) -> None:
    """BEiT has no bias for its keys, and those of queries and values beside the fused matrix."""
    source: Rows = [("cls_token", (1, 1, 32)), *conv("patch", 32, 3, 8)]
    target: Rows = [("embeddings.cls_token", (1, 1, 32)), *conv("embeddings.patch", 32, 3, 8)]
    for at in range(3):
        ours, theirs = f"blocks.{at}.", f"encoder.layer.{at}."
        source += [(f"{ours}attn.{x}_bias", (32,)) for x in "qv"] + [(f"{ours}attn.qkv.weight", (96, 32))]
        target += [(f"{theirs}attention.{x}.weight", (32, 32)) for x in ("query", "key", "value")]
        target += [(f"{theirs}attention.{x}.bias", (32,)) for x in ("query", "value")]
        for rows, prefix, out in ((source, ours, "attn.proj"), (target, theirs, "attention.output")):
            rows += linear(f"{prefix}{out}", 32, 32) + linear(f"{prefix}mlp.fc1", 64, 32)
    found = given(match(order(source), order(target)))
    assert set(found) == {key for key, _ in target}
    assert found["encoder.layer.1.attention.query.bias"] == ("blocks.1.attn.q_bias",)
    assert found["encoder.layer.2.attention.value.bias"] == ("blocks.2.attn.v_bias",)


@pytest.mark.parametrize("is_back", [False, True])
def test_heads_as_an_axis(is_back: bool, order: Callable[[Rows], Specs]) -> None:
    flax: Rows = []
    torch: Rows = []
    for at in range(3):
        prefix = f"encoderblock_{at}/attention/"
        for name in ("query", "key", "value"):
            flax += [(f"{prefix}{name}/kernel", (48, 4, 12)), (f"{prefix}{name}/bias", (4, 12))]
        flax += [(f"{prefix}out/kernel", (4, 12, 48)), (f"{prefix}out/bias", (48,))]
        for name in ("query", "key", "value", "out"):
            torch += linear(f"layers.{at}.attention.{name}", 48, 48)
    source, target = (torch, flax) if is_back else (flax, torch)
    report = match(order(source), order(target))
    assert len(given(report)) == len(target)
    layouts = {
        name: pair.layout
        for pair in report.accepted()
        for name in ("query", "out")
        if f"{name}/kernel" in (pair.targets[0] if is_back else pair.sources[0])
    }
    wanted = {"query": "a b c -> (b c) a", "out": "a b c -> c (a b)"}
    for name, layout in wanted.items():
        assert layouts[name] == (" -> ".join(reversed(layout.split(" -> "))) if is_back else layout)


# ---------------------------------------------------------------------------------------------- modules


def test_the_bias_of_a_module_whose_weight_changed_its_size(order: Callable[[Rows], Specs]) -> None:
    source = conv("conv1", 32, 3, 7) + conv("conv2", 64, 32) + linear("fc", 10, 64)
    target = conv("net.conv1", 32, 1, 7) + conv("net.conv2", 64, 32) + linear("net.fc", 5, 64)
    found = given(match(order(source), order(target)))
    assert found == {f"net.{key}": (key,) for key in ("conv1.bias", "conv2.weight", "conv2.bias")}


@pytest.mark.parametrize("is_back", [False, True])
def test_fully_connected_layers_as_convolutions(is_back: bool, order: Callable[[Rows], Specs]) -> None:
    full = conv("features.conv", 64, 3) + linear("fc6", 128, 64 * 49) + linear("fc7", 128, 128)
    convolved = conv("base.features.conv", 64, 3) + conv("base.fc6", 128, 64, 7) + conv("base.fc7", 128, 128, 1)
    source, target = (convolved, full) if is_back else (full, convolved)
    report = match(order(source), order(target))
    assert len(given(report)) == len(target)
    (layout,) = {pair.layout for pair in report.accepted() if "fc6.weight" in pair.targets[0]}
    assert layout == ("a b c d -> a (b c d)" if is_back else "a (b c d) -> a b c d")


def test_a_mirror_image_is_a_guess(order: Callable[[Rows], Specs]) -> None:
    widths = [3, 16, 32, 64]
    encoder: Rows = []
    decoder: Rows = []
    for at in range(3):
        encoder += [(f"main.{3 * at}.weight", (widths[at + 1], widths[at], 4, 4))]
        decoder += [(f"net.{3 * at}.weight", (widths[3 - at], widths[2 - at], 4, 4))]
    report = match(order(encoder), order(decoder))
    assert not report.accepted()


def test_blocks_of_different_make_up_are_not_paired_by_the_place_of_their_first() -> None:
    """In every other block the two convolutions stand the other way round, and no word tells them."""
    source: Rows = conv("stem", 16, 3)
    target: Rows = conv("stem", 16, 3)
    for at in range(4):
        source += conv(f"layer.{at}.alpha", 16, 16) + conv(f"layer.{at}.beta", 16, 16)
        names = ("first", "second") if at % 2 else ("second", "first")
        target += [row for name in names for row in conv(f"stage.{at}.{name}", 16, 16)]
    found = given(match(specs(source), specs(target)))
    assert not {key for key in found if key.startswith("stage")}


def test_children_of_one_module_stay_together() -> None:
    source: Rows = [("embed.weight", (50, 16))]
    target: Rows = [("model.embed.weight", (50, 16))]
    for at in range(3):
        source += linear(f"enc.{at}.x.one", 16, 16) + linear(f"enc.{at}.x.two", 16, 16)
        source += linear(f"enc.{at}.y.one", 16, 16) + linear(f"enc.{at}.y.two", 16, 16)
        target += linear(f"model.l.{at}.p.a", 16, 16) + linear(f"model.l.{at}.p.b", 16, 16)
        target += linear(f"model.l.{at}.q.a", 16, 16) + linear(f"model.l.{at}.q.b", 16, 16)
    for listed in (source, sorted(source), random.Random(1).sample(source, len(source))):
        parents: dict[str, set[str]] = {}
        for key, (made_of,) in given(match(specs(listed), specs(target))).items():
            if ".l." in key:
                parents.setdefault(key.split(".")[3], set()).add(made_of.split(".")[2])
        assert all(len(row) == 1 for row in parents.values())


# ---------------------------------------------------------------------------------------------- towers


def tower(prefix: str) -> Rows:
    rows: Rows = []
    for at, (inputs, outputs) in enumerate([(3, 16), (16, 32), (32, 64)], 1):
        rows += conv(f"{prefix}conv{at}", outputs, inputs) + norm(f"{prefix}bn{at}", outputs)
    return rows


@pytest.mark.parametrize("names", [("left.", "right."), ("rgb_stream.", "flow_stream.", "depth_stream.")])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_equal_towers_from_one_source(names: tuple[str, ...], prefix: str, order: Callable[[Rows], Specs]) -> None:
    source, target = order(tower(prefix)), order([row for name in names for row in tower(name)])
    report = match(source, target)
    wanted = {f"{name}{key}": (f"{prefix}{key}",) for name in names for key, _ in tower("")}
    assert given(report) == wanted
    found = expand(parse_recipe([rule.text for rule in report.rules]), source, targets=target)
    assert not found.problems
    assert {step.target.key for step in found.steps} >= set(target)
    assert not report.unmatched_targets


def test_a_tower_that_a_word_tells_is_not_given_to_the_other(order: Callable[[Rows], Specs]) -> None:
    target = order(tower("image_encoder.") + tower("audio_encoder."))
    found = given(match(order(tower("image_net.")), target))
    assert all(key.startswith("image_encoder.") for key in found)


def test_two_towers_of_the_source_that_fit_alike_are_named(order: Callable[[Rows], Specs]) -> None:
    report = match(order(tower("student.") + tower("teacher.")), order(tower("net.")))
    assert not report.accepted()
    (note,) = (note for note in report.notes if "fit alike" in note.text)
    assert "student" in note.text and "teacher" in note.text and "--select" in note.hint


def streams(*names: str, kind: str, channels: Mapping[str, int]) -> Rows:
    """Transformers for pictures whose patches have so many channels."""
    rows = [
        (f"{name}.{key}", shape)
        for name in names
        for key, shape in [("patch.weight", (32, channels.get(name, 3), 4, 4)), *attention(kind)[1:]]
    ]
    return [*rows, ("fuse.weight", (7, 32 * len(names)))]


@pytest.mark.parametrize(("kind", "joined"), [("apart", 1), ("fused", 3)])
def test_one_source_makes_every_stream_that_holds_the_same(
    kind: str, joined: int, order: Callable[[Rows], Specs]
) -> None:
    """The stem of one channel has no source; q, k and v are joined for each of them."""
    rows = [("patch.weight", (32, 3, 4, 4)), *attention("apart")[1:]]
    source, target = order(rows), order(streams("depth", "rgb", kind=kind, channels={"depth": 1}))
    report = match(source, target)
    found = given(report)
    assert {*target} - {*found} == {"depth.patch.weight", "fuse.weight"}
    assert all(found[key] == found[key.replace("depth", "rgb")] for key in found if key.startswith("depth"))
    whole = {key: row for key, row in found.items() if "qkv" in key}
    assert all(len(row) == joined for row in whole.values()) and len(whole) == (6 if joined > 1 else 0)
    checked(report, source, target)


def test_streams_that_the_source_has_as_well_do_not_share_one(order: Callable[[Rows], Specs]) -> None:
    source = order(streams("one", "two", kind="apart", channels={}))
    report = match(source, order(streams("left", "right", kind="apart", channels={})))
    assert all(key == "fuse.weight" for key in given(report))


def test_a_tied_head_is_said_and_not_made(order: Callable[[Rows], Specs]) -> None:
    rows = [("model.embed_tokens.weight", (500, 8)), *blocks("model.layers.", 3)]
    report = match(order(rows), order([*rows, ("lm_head.weight", (500, 8))]))
    assert report.unmatched_targets == ("lm_head.weight",)
    (note,) = (note for note in report.notes if "tied" in note.text)
    assert "model.embed_tokens.weight -> model.embed_tokens.weight, lm_head.weight" in note.hint


def test_a_part_of_a_model_is_related_to_the_whole(order: Callable[[Rows], Specs]) -> None:
    vision = [("patch_embed.weight", (32, 3, 8, 8)), *blocks("blocks.", 3, 32), *norm("norm", 32)]
    text = [("token_embedding.weight", (500, 16)), *blocks("transformer.resblocks.", 3, 16)]
    source = [(f"visual.{key}", shape) for key, shape in vision] + text
    found = given(match(order(source), order(vision)))
    assert found == {key: (f"visual.{key}",) for key, _ in vision}


# ---------------------------------------------------------------------------------------------- what is weighed


def test_everything_that_was_weighed_can_be_asked_for() -> None:
    source = specs(blocks("encoder.", 3))
    target = specs((key.replace("encoder", "h").replace("norm", "ln_"), spec.shape) for key, spec in source.items())
    report = match(source, target)
    assert report.weighed is not None
    best, second = report.weighed("h.1.ln_2.weight")[:2]
    assert (best.sources, best.targets) == (("encoder.1.norm2.weight",), ("h.1.ln_2.weight",))
    assert second.sources == ("encoder.1.norm1.weight",)
    assert best.total > second.total and best.words > second.words
    assert best in report.weighed("encoder.1.norm2.weight")
    assert not report.weighed("nothing.such")


def test_guesses_are_taken_where_most_of_the_model_matches() -> None:
    rows = blocks("layers.", 6)
    source = [*rows, *linear("aux.left", 8, 8), *linear("aux.right", 8, 8)]
    target = [*rows, *linear("extra.aux.left_one", 8, 8), *linear("extra.aux.other", 8, 8)]
    report = match(specs(source), specs(target))
    most = [pair for pair in report.pairs if Evidence.MOST_MATCH in pair.evidence]
    assert all(pair.confidence is Confidence.ALIGNED for pair in most)
    assert given(report).get("extra.aux.left_one.weight", ("aux.left.weight",)) == ("aux.left.weight",)


# ---------------------------------------------------------------------------------------------- other norms


def residual(names: Mapping[str, str], statistics: bool = True) -> Rows:
    """Three stages of two blocks of two convolutions, each with a norm; what has no name is not there."""
    roles = "weight bias running_mean running_var" if statistics else "weight bias"
    rows: Rows = [(f"{names['stem']}.weight", (16, 3, 7, 7)), *norm(names["stem norm"], 16, roles)]
    for stage, width in enumerate((16, 32, 64)):
        for block in range(2):
            at = names["block"].format(stage=stage, next=stage + 1, block=block, letter="ab"[block])
            rows += [(f"{at}.{names['one']}.weight", (width, width if block or not stage else width // 2, 3, 3))]
            rows += norm(f"{at}.{names['one norm']}", width, roles)
            rows += [(f"{at}.{names['two']}.weight", (width, width, 3, 3))]
            rows += norm(f"{at}.{names['two norm']}", width, roles)
            if stage and not block:
                rows += [(f"{at}.{names['skip']}.weight", (width, width // 2, 1, 1))]
    return rows


NAMES = dict(zip(("stem", "stem norm", "block", "one", "one norm", "two", "two norm", "skip"), (
    "conv1", "bn1", "layer{next}.{block}", "conv1", "bn1", "conv2", "bn2", "downsample"), strict=True))  # fmt: skip


def convolutions(source: Specs, target: Specs) -> Truth:
    """The n-th of each, in the order of the rows."""
    old, new = ([key for key, spec in side.items() if len(spec.shape) == 4] for side in (source, target))
    return {key: (one,) for one, key in zip(old, new, strict=True)}


@pytest.mark.parametrize("block", ["res{next}.{block}", "stages.{stage}.{letter}"])
def test_group_norms_for_batch_norms_leave_the_convolutions(block: str, order: Callable[[Rows], Specs]) -> None:
    """Those have no counterpart; the letters of blocks are their numbers."""
    rows = residual(NAMES), residual({**NAMES, "block": block, "skip": "shortcut"}, statistics=False)
    truth = convolutions(*map(specs, rows))
    assert given(match(*map(order, rows))) == truth


def test_a_norm_has_the_name_of_its_convolution(order: Callable[[Rows], Specs]) -> None:
    """``norm_first`` stands behind ``first``, also where that is square."""
    names = {**NAMES, "one": "first", "one norm": "norm_first", "two": "second", "two norm": "norm_second"}
    rows = residual(NAMES), residual(names)
    found = given(match(*map(order, rows)))
    assert found == {new: (old,) for (old, _), (new, _) in zip(*rows, strict=True)}


def test_blocks_of_one_list_in_stages(order: Callable[[Rows], Specs]) -> None:
    """Eight of twelve, in two stages."""
    source = [("embed.weight", (100, 8)), *blocks("blocks.", 12)]
    target = [("embed.weight", (100, 8)), *blocks("stages.0.", 3), *blocks("stages.1.", 5)]
    found = given(match(order(source), order(target)))
    kept = [*blocks("blocks.", 8)]
    assert found == {"embed.weight": ("embed.weight",)} | {
        new: (old,) for (new, _), (old, _) in zip(target[1:], kept, strict=True)
    }
