"""Matches of tensors that stand for several, and of modules that are written inside a key's last part."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from ckptool.core.spec import TensorSpec
from ckptool.matching.match import match
from ckptool.matching.result import Confidence, Evidence, MatchReport, MatchRule, Pair
from ckptool.recipes.reverse import check_reverse
from ckptool.report.match_recipe import match_recipe
from tests.test_match import Specs, blocks, checked, given, linear, norm, shapes_of, specs

pytest.importorskip("torch")


def cells(kind: str, prefixes: tuple[str, ...], sizes: tuple[int, ...], width: int = 8) -> Any:
    from torch import nn

    cell = getattr(nn, f"{kind}Cell")
    return lambda: nn.ModuleDict({name: nn.ModuleList(cell(size, width) for size in sizes) for name in prefixes})


def recurrent(kind: str, layers: int, **kwargs: Any) -> Any:
    from torch import nn

    return lambda: nn.ModuleDict({"rnn": getattr(nn, kind)(8, 8, layers, **kwargs)})


def shuffled(found: Specs, seed: int = 0) -> Specs:
    rows = list(found.items())
    random.Random(seed).shuffle(rows)
    return dict(rows)


# ---------------------------------------------------------------------------------------------- recurrent networks


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("is_split", [False, True])
def test_layers_of_a_recurrent_network_are_cells(kind: str, is_split: bool) -> None:
    one, other = shapes_of(recurrent(kind, 3)), shapes_of(cells(kind, ("cells",), (8, 8, 8)))
    truth = {f"cells.{at}.{x}": f"rnn.{x}_l{at}" for at in range(3) for x in names("weight", "bias")}
    if not is_split:
        one, other, truth = other, one, {theirs: ours for ours, theirs in truth.items()}
    for target in (other, shuffled(other)):
        report = match(one, target)
        assert given(report) == {ours: (theirs,) for ours, theirs in truth.items()}
        assert len(report.rules) == 1
        assert check_reverse(checked(report, one, target), one).is_exact


def names(*roles: str) -> list[str]:
    return [f"{role}_{x}" for role in roles for x in ("ih", "hh")]


def test_two_directions_are_told_by_their_words_or_not_at_all() -> None:
    source = shapes_of(recurrent("GRU", 2, bidirectional=True))
    target = shapes_of(cells("GRU", ("bwd", "fwd"), (8, 16)))
    truth = {
        f"{cell}.{at}.{x}": (f"rnn.{x}_l{at}{way}",)
        for cell, way in (("fwd", ""), ("bwd", "_reverse"))
        for at in range(2)
        for x in names("weight", "bias")
    }
    report = match(source, target)
    assert given(report) == truth
    assert check_reverse(checked(report, source, target), source).is_exact
    nameless = shapes_of(cells("GRU", ("one", "two"), (8, 16)))
    assert not match(source, nameless).accepted()


# ---------------------------------------------------------------------------------------------- halves


def resnet(
    halved: Iterable[str] = (), order: tuple[str, str] = ("IN", "BN"), names: tuple[str, str] = ("bn", "layer")
) -> Specs:
    """Four stages of two blocks; in the stages named the first norm is an instance norm and a batch norm."""
    rows: list[tuple[str, tuple[int, ...]]] = [("conv1.weight", (8, 3, 7, 7)), *batch_norm(f"{names[0]}1", 8)]
    for stage in range(1, 5):
        width = 8 * stage
        for block in range(2):
            prefix = f"{names[1]}{stage}.{block}."
            for at in (1, 2):
                inputs = 8 * (stage - 1) if stage > 1 and block == 0 and at == 1 else width
                rows.append((f"{prefix}conv{at}.weight", (width, inputs, 3, 3)))
                if at == 1 and f"layer{stage}" in halved:
                    first, second = (f"{prefix}{names[0]}1.{half}" for half in order)
                    for half in (first, second):
                        rows += batch_norm(half, width // 2, affine_only=half.endswith("IN"))
                else:
                    rows += batch_norm(f"{prefix}{names[0]}{at}", width)
    return specs([*rows, *linear("fc", 10, 32)])


def batch_norm(name: str, width: int, affine_only: bool = False) -> list[tuple[str, tuple[int, ...]]]:
    rows = norm(name, width, "weight bias" if affine_only else "weight bias running_mean running_var")
    return rows if affine_only else [*rows, (f"{name}.num_batches_tracked", ())]


def test_halves_of_a_norm_in_some_stages() -> None:
    source, target = resnet(), resnet({"layer1", "layer3"})
    report = match(source, target)
    assert set(given(report)) == set(target)
    halves = [pair for pair in report.pairs if "layer3.1.bn1.BN.weight" in pair.targets]
    assert [(pair.sources, pair.targets, pair.layout, pair.confidence) for pair in halves] == [
        (
            ("layer3.1.bn1.weight",),
            ("layer3.1.bn1.IN.weight", "layer3.1.bn1.BN.weight"),
            "(o + p) -> o, p",
            Confidence.ALIGNED,
        )
    ]
    (mean,) = (pair for pair in report.pairs if "layer3.1.bn1.BN.running_mean" in pair.targets)
    assert (mean.sources, mean.layout) == (("layer3.1.bn1.running_mean",), "(_ + o) -> o")
    checked(report, source, target)
    assert len(report.rules) <= 10


def test_halves_are_joined_but_not_what_only_one_has() -> None:
    source, target = resnet({"layer1", "layer2", "layer3"}), resnet()
    report = match(source, target)
    found = given(report)
    assert found["layer2.0.bn1.bias"] == ("layer2.0.bn1.BN.bias", "layer2.0.bn1.IN.bias")
    assert not {key for key in target if key not in found} ^ {
        f"layer{stage}.{block}.bn1.running_{x}" for stage in (1, 2, 3) for block in (0, 1) for x in ("mean", "var")
    }
    (pair,) = (pair for pair in report.pairs if "layer2.0.bn1.bias" in pair.targets)
    assert pair.sources == ("layer2.0.bn1.IN.bias", "layer2.0.bn1.BN.bias")  # the order in the file, not of letters
    checked(report, source, target)


def test_which_half_is_first_is_not_told_by_a_sorted_or_shuffled_file() -> None:
    source, target = resnet(), resnet({"layer1", "layer2", "layer3"})
    for listed in (dict(sorted(target.items())), shuffled(target)):
        found = given(match(source, listed))
        assert found
        assert not [key for key in found if ".IN." in key or ".BN." in key]
    numbered = resnet({"layer1", "layer2"}, ("half0", "half1"))
    found = given(match(source, dict(sorted(numbered.items()))))
    assert found["layer1.0.bn1.half1.running_mean"] == ("layer1.0.bn1.running_mean",)


def test_lengths_that_add_up_are_no_halves_under_another_name() -> None:
    source = resnet(names=("norm", "layer"))
    found = given(match(source, resnet({"layer1", "layer2", "layer3"}, names=("split", "layer"))))
    assert not [key for key in found if ".IN." in key or ".BN." in key]


# ---------------------------------------------------------------------------------------------- what is said of a match


def texts(report: MatchReport) -> str:
    return "\n".join(note.text for note in report.notes)


def test_the_order_of_halves_and_what_they_lose_is_said() -> None:
    report = match(resnet(), resnet({"layer1"}))
    assert "which half comes first is taken from the order in the file" in texts(report)
    assert "the rules do not reverse" in texts(report)  # half of the statistics is thrown away
    assert not match(resnet(), resnet()).notes


def test_colours_are_doubtful_between_two_codes_only() -> None:
    source = resnet()
    wrapped = {f"module.{key}": TensorSpec(f"module.{key}", "float32", spec.shape) for key, spec in source.items()}
    assert "RGB" not in texts(match(wrapped, source))
    renamed = resnet(names=("norm", "res"))
    renamed = specs((key.replace("conv", "c"), spec.shape) for key, spec in renamed.items())
    report = match(source, renamed)
    (note,) = (note for note in report.notes if "RGB" in note.text)
    assert note.keys == ("c1.weight",)


@pytest.mark.parametrize(
    ("one", "other", "is_doubtful"),
    [
        ("attn.in_proj", "attn.qkv", False),  # both have q first
        ("attn.query_key_value", "attn.qkv", True),  # GPT-NeoX: head by head
        ("attn.query_key_value", "attn.query_key_value", False),
    ],
)
def test_the_order_in_a_fused_qkv(one: str, other: str, is_doubtful: bool) -> None:
    source, target = (
        specs((key.replace("attn.qkv", name), spec.shape) for key, spec in specs(blocks(prefix, 3)).items())
        for name, prefix in ((one, "h."), (other, "layers."))
    )
    report = match(source, target)
    assert len(given(report)) == len(target)
    assert ("the order inside a fused qkv" in texts(report)) is is_doubtful


@pytest.mark.parametrize(("name", "is_doubtful"), [("gate_up_proj", False), ("up_proj", True)])
def test_which_half_is_the_gate(name: str, is_doubtful: bool) -> None:
    rows = [(f"layers.{at}.mlp.{x}_proj.weight", (16, 8)) for at in range(3) for x in ("gate", "up")]
    rest = [(f"layers.{at}.mlp.down_proj.weight", (8, 16)) for at in range(3)]
    fused = [(f"layers.{at}.mlp.{name}.weight", (32, 8)) for at in range(3)]
    report = match(specs([*rows, *rest]), specs([*fused, *rest]))
    assert len(given(report)) == 6
    assert ("is the gate" in texts(report)) is is_doubtful


def test_a_name_that_says_another_order_is_not_what_is_made() -> None:
    rows = [(f"layers.{at}.mlp.{x}_proj.weight", (16, 8)) for at in range(3) for x in ("gate", "up")]
    rest = [(f"layers.{at}.mlp.down_proj.weight", (8, 16)) for at in range(3)]
    report = match(
        specs([*rows, *rest]), specs([*((f"layers.{at}.mlp.up_gate_proj.weight", (32, 8)) for at in range(3)), *rest])
    )
    assert set(given(report)) == {key for key, _ in rest}


def test_the_next_best_is_a_source_of_the_same_block() -> None:
    source = specs(blocks("encoder.layers.", 4))
    target = specs(
        (key.replace("encoder.layers", "h").replace("norm", "ln_"), spec.shape) for key, spec in source.items()
    )
    for pair in match(source, target).pairs:
        if ".ln_" not in pair.targets[0]:
            continue
        assert pair.confidence is Confidence.ALIGNED
        assert pair.runner_up is not None
        rival, score = pair.runner_up
        assert rival.split(".")[2] == pair.sources[0].split(".")[2]
        assert rival != pair.sources[0]
        assert score < pair.score


def test_the_next_best_is_shown_where_it_is_near() -> None:
    near = Pair(("t",), ("s",), confidence=Confidence.ALIGNED, runner_up=("r", 0.9), score=1.1)
    far = Pair(("t",), ("s",), confidence=Confidence.ALIGNED, runner_up=("r", 0.2), score=1.1)
    for pair, is_shown in ((near, True), (far, False), (replace(far, confidence=Confidence.GUESS), True)):
        rule = MatchRule("s -> t", (pair,), (Evidence.WORDS_AGREE,), pair.confidence)
        text = match_recipe(MatchReport((pair,), (), (), (), (rule,)))
        assert ("next best: r" in text) is is_shown
