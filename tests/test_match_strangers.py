"""Kinds of conversions that the matcher had not seen: flat names, norms in scopes, parts of a model, mirror images."""

from __future__ import annotations

import pytest

from ckptool.core.spec import TensorSpec
from ckptool.matching.cuts import parts_of
from ckptool.matching.match import match
from ckptool.matching.reshaped import reshaped_matches, with_reshaped
from ckptool.matching.result import Confidence

Rows = dict[str, tuple[int, ...]]


def specs(rows: Rows) -> dict[str, TensorSpec]:
    return {key: TensorSpec(key, "float32", shape) for key, shape in rows.items()}


def found(source: Rows, target: Rows) -> dict[str, tuple[str, ...]]:
    report = match(specs(source), specs(target))
    return {key: pair.sources for pair in report.accepted() for key in pair.targets}


def caffe2(blocks: int) -> tuple[Rows, Rows, dict[str, str]]:
    """Residual blocks in Caffe2's flat names and in torchvision's."""
    rows: list[tuple[str, str, tuple[int, ...]]] = [("conv1_w", "conv1.weight", (16, 3, 7, 7))]
    for block in range(blocks):
        for at, letter in enumerate("abc", 1):
            shape = {1: (16, 64, 1, 1), 2: (16, 16, 3, 3), 3: (64, 16, 1, 1)}[at]
            here, there = f"res2_{block}_branch2{letter}", f"layer1.{block}."
            rows.append((f"{here}_w", f"{there}conv{at}.weight", shape))
            for ours, theirs in (("s", "weight"), ("b", "bias"), ("rm", "running_mean"), ("riv", "running_var")):
                rows.append((f"{here}_bn_{ours}", f"{there}bn{at}.{theirs}", shape[:1]))
    rows += [("pred_w", "fc.weight", (10, 64)), ("pred_b", "fc.bias", (10,))]
    return (
        {ours: shape for ours, _, shape in rows},
        {theirs: shape for _, theirs, shape in rows},
        {theirs: ours for ours, theirs, _ in rows},
    )


@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize("blocks", [3, 11])
def test_flat_names_are_cut(blocks: int, is_sorted: bool) -> None:
    source, target, truth = caffe2(blocks)
    if is_sorted:
        source, target = (dict(sorted(side.items())) for side in (source, target))
    answers = found(source, target)
    assert all(answers[key] == (truth[key],) for key in answers)
    assert len(answers) >= 0.9 * len(target)


def test_letters_count_on_behind_numbers() -> None:
    assert parts_of("block2b_expand_conv/kernel")[0] == ["block2b", "expand_conv", "kernel"]


def test_a_norm_in_the_scope_of_its_convolution_goes_with_it() -> None:
    """TF-slim: `X/weights` beside `X/BatchNorm/beta`, without a scale; widths are equal, so only the place tells."""
    source, target = {}, {}
    for at, name in enumerate(("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_3b_1x1")):
        kernel = {0: (3, 3, 3, 8), 1: (3, 3, 8, 8), 2: (1, 1, 8, 8)}[at]
        source[f"Net/{name}/weights"] = kernel
        target[f"{name}.conv.weight"] = (kernel[3], kernel[2], *kernel[:2])
        for ours, theirs in (("beta", "bias"), ("moving_mean", "running_mean"), ("moving_variance", "running_var")):
            source[f"Net/{name}/BatchNorm/{ours}"] = target[f"{name}.bn.{theirs}"] = (8,)
    answers = found(dict(sorted(source.items())), target)
    for key, (origin,) in answers.items():
        assert key.split(".")[0] == origin.split("/")[1]
    assert len(answers) == len(target)


def mirror(names: tuple[str, str]) -> tuple[Rows, Rows]:
    """A way down, and the way up with the same shapes in reverse order."""
    widths = [3, 16, 32, 64, 128]
    down, up = {}, {}
    for at in range(4):
        down[f"{names[0]}.{2 * at}.weight"] = (widths[at + 1], widths[at], 4, 4)
        up[f"{names[1]}.{2 * at}.weight"] = (widths[4 - at], widths[3 - at], 4, 4)
    return down, up


@pytest.mark.parametrize("names", [("main", "main"), ("encoder", "decoder"), ("down", "up"), ("net", "gen")])
def test_a_mirror_image_is_not_taken(names: tuple[str, str]) -> None:
    assert not found(*mirror(names))


def test_blocks_that_look_at_another_tower_are_others() -> None:
    """An encoder into a decoder: what attends to the encoder has no source, so the rest is not taken either."""
    source, target = {}, {}
    for layer in range(3):
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"):
            source[f"encoder.layer.{layer}.{name}.weight"] = target[f"layers.{layer}.{name}.weight"] = (8, 8)
            target[f"layers.{layer}.{name.replace('self_attn', 'encoder_attn')}.weight"] = (8, 8)
        source[f"encoder.layer.{layer}.fc1.weight"] = target[f"layers.{layer}.fc1.weight"] = (32, 8)
        source[f"encoder.layer.{layer}.fc2.weight"] = target[f"layers.{layer}.fc2.weight"] = (8, 32)
    assert not found(source, target)


def test_a_part_of_a_model_is_found_where_another_part_has_the_same_blocks() -> None:
    source: Rows = {"visual.conv1.weight": (8, 3, 4, 4), "token_embedding.weight": (100, 8)}
    target: Rows = {"embeddings.patch_embedding.weight": (8, 3, 4, 4)}
    for layer in range(4):
        for ours, theirs, shape in (("c_fc", "fc1", (32, 8)), ("c_proj", "fc2", (8, 32))):
            for tower in ("visual.", ""):
                source[f"{tower}transformer.resblocks.{layer}.mlp.{ours}.weight"] = shape
            target[f"encoder.layers.{layer}.mlp.{theirs}.weight"] = shape
    answers = found(source, target)
    assert len(answers) == len(target)
    assert all(origin.startswith("visual.") for (origin,) in answers.values())


def test_two_towers_that_fit_alike_are_named() -> None:
    net = {f"{at}.weight": (8 + at, 7 + at) for at in range(6)}
    source = {f"{tower}.{key}": shape for tower in ("student", "teacher") for key, shape in net.items()}
    report = match(specs(source), specs({f"model.{key}": shape for key, shape in net.items()}))
    assert not report.accepted()
    assert any("student" in note.text and "teacher" in note.text and "--select" in note.hint for note in report.notes)


def test_reshaped_pairs_are_few_rules() -> None:
    source: Rows = {"embed.weight": (50, 8)}
    target: Rows = {"embed.weight": (50, 8)}
    for layer in range(12):
        source[f"blocks.{layer}.attn.bias_table"] = (169, 4)
        target[f"layers.{layer}.attn.bias_table"] = (529, 4)
        for name, shape in (("attn.proj", (8, 8)), ("attn.qkv", (24, 8)), ("mlp.fc1", (32, 8)), ("mlp.fc2", (8, 32))):
            source[f"blocks.{layer}.{name}.weight"] = target[f"layers.{layer}.{name}.weight"] = shape
    report = with_reshaped(match(specs(source), specs(target)))
    rules = [rule for rule in report.rules if "bias_table" in rule.text and rule.pairs]
    assert len(report.reshaped) == 12
    assert [rule.text for rule in rules] == ["blocks.{l}.attn.bias_table -> layers.{l}.attn.bias_table"]


def test_a_lone_tensor_of_another_shape_needs_a_word() -> None:
    assert not reshaped_matches(specs({"0.weight": (10, 8)}), specs({"a.weight": (5, 8)}))
    assert not match(specs({"scores": (10, 20)}), specs({"kernel.mat": (20, 10)})).accepted(Confidence.ALIGNED)


def resnet(depths: tuple[int, ...], *, ibn: bool) -> Rows:
    """A ResNet of bottlenecks; the first norm of a block is split in three of its stages, interleaved."""
    rows: Rows = {"conv1.weight": (64, 3, 7, 7)}

    def norm(key: str, size: int) -> None:
        rows.update({f"{key}.{last}": (size,) for last in ("weight", "bias", "running_mean", "running_var")})
        rows[f"{key}.num_batches_tracked"] = ()

    norm("bn1", 64)
    width = 64
    for stage, blocks in enumerate(depths, 1):
        planes = 64 * 2 ** (stage - 1)
        for block in range(blocks):
            at = f"layer{stage}.{block}."
            rows[f"{at}conv1.weight"] = (planes, width, 1, 1)
            if ibn and stage < 4:
                for last in ("weight", "bias"):
                    rows |= {f"{at}bn1.IN.{last}": (planes // 2,), f"{at}bn1.BN.{last}": (planes // 2,)}
                rows |= {f"{at}bn1.BN.running_{last}": (planes // 2,) for last in ("mean", "var")}
                rows[f"{at}bn1.BN.num_batches_tracked"] = ()
            else:
                norm(f"{at}bn1", planes)
            rows[f"{at}conv2.weight"] = (planes, planes, 3, 3)
            norm(f"{at}bn2", planes)
            rows[f"{at}conv3.weight"] = (4 * planes, planes, 1, 1)
            norm(f"{at}bn3", 4 * planes)
            if block == 0:
                rows[f"{at}downsample.0.weight"] = (4 * planes, width, 1, 1)
                norm(f"{at}downsample.1", 4 * planes)
            width = 4 * planes
    return rows


@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize("depths", [(3, 4, 6, 3), (2, 2, 2, 2), (3, 4, 23, 3)])
def test_norms_stay_in_their_blocks(depths: tuple[int, ...], is_sorted: bool) -> None:
    """The halves of a norm are as wide as whole norms of the stage before: none of those may be taken for one."""
    plain, split = resnet(depths, ibn=False), resnet(depths, ibn=True)
    for source, target in ((plain, split), (split, plain)):
        if is_sorted:
            source, target = (dict(sorted(side.items())) for side in (source, target))
        for key, made_of in found(source, target).items():
            place = key.replace(".IN", "").replace(".BN", "")
            assert {each.replace(".IN", "").replace(".BN", "") for each in made_of} == {place}
