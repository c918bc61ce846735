"""Small traps for the automatic match: what it finds must be right, and where nothing tells it must say nothing."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from test_match import Specs, blocks, given, linear, norm, specs

from ckptool.matching.match import match

Rows = list[tuple[str, tuple[int, ...]]]


def conv(name: str, outputs: int, inputs: int, size: int = 3) -> Rows:
    return [(f"{name}.weight", (outputs, inputs, size, size))]


def chain(widths: list[int], name: Callable[[int], str] = str) -> Rows:
    """Convolutions and norms of a Sequential, an activation behind each."""
    rows: Rows = []
    for at, (before, width) in enumerate(zip([3, *widths], widths, strict=False)):
        rows += conv(name(3 * at), width, before) + norm(name(3 * at + 1), width)
    return rows


def renamed(source: Specs, name: Callable[[str], str]) -> Specs:
    return specs((name(key), spec.shape) for key, spec in source.items())


def wrong(source: Specs, target: Specs, truth: Callable[[str], str]) -> dict[str, tuple[str, ...]]:
    """What is accepted though it is not true."""
    found = given(match(source, target))
    return {key: sources for key, sources in found.items() if sources != (truth(key),)}


def test_a_block_of_equal_shapes_is_inserted() -> None:
    """Nothing tells which of four equal layers is the new one."""
    source, target = specs(chain([8, 8, 8, 8])), specs(chain([8, 8, 8, 8, 8]))
    found = given(match(source, target))
    assert not {key for key in found if key.split(".")[0] not in ("0", "1")}


def test_a_block_of_another_width_is_inserted() -> None:
    source, target = specs(chain([8, 8, 16, 16, 32, 32])), specs(chain([8, 8, 24, 16, 16, 32, 32]))
    moved = {9: None, 6: None}

    def truth(key: str) -> str:
        number, role = int(key.split(".")[0]), key.split(".")[1]
        return f"{number if number < 6 else number - 3}.{role}" if number not in moved else ""

    assert not wrong(source, target, truth)
    assert len(given(match(source, target))) >= 12


def test_three_layers_of_six() -> None:
    source, target = specs(blocks("h.", 6)), specs(blocks("h.", 3))
    assert not wrong(source, target, lambda key: key)
    assert len(given(match(source, target))) == len(target)


@pytest.mark.parametrize("seed", range(3))
def test_two_towers_and_a_shuffled_listing(seed: int) -> None:
    rows = blocks("actor.", 2) + blocks("critic.", 2)
    random.Random(seed).shuffle(rows)
    source = specs(blocks("pi.actor_net.", 2) + blocks("vf.critic_net.", 2))
    names = {"actor": "pi.actor_net", "critic": "vf.critic_net"}
    assert not wrong(source, specs(rows), lambda key: key.replace(key.split(".")[0], names[key.split(".")[0]], 1))


def test_two_towers_of_which_one_is_wanted() -> None:
    """The target has the words of neither."""
    source = specs(
        chain([8, 16, 32, 64], "student.module.net.{}".format) + chain([8, 16, 32, 64], "teacher.net.{}".format)
    )
    assert not match(source, specs(chain([8, 16, 32, 64], "net.{}".format))).accepted()
    assert not match(source, specs(chain([8, 16, 32, 64], "backbone.{}".format))).accepted()


def test_swapped_towers_with_half_of_the_words() -> None:
    source = specs(blocks("encoder_q.", 2) + blocks("queue_encoder.", 2))
    target = specs(blocks("queue.", 2) + blocks("online.", 2))
    found = given(match(source, target))
    assert not {key for key, sources in found.items() if key.startswith("queue.") != ("queue_" in sources[0])}


@pytest.mark.parametrize("order", ["kvq", "vqk", "qvk"])
def test_keys_values_and_queries_in_any_order(order: str) -> None:
    def rows(prefix: str, names: str, name: str) -> Rows:
        return [row for at in range(3) for x in names for row in linear(f"{prefix}.{at}.{name.format(x)}", 8, 8)]

    source, target = specs(rows("enc", order, "{}_proj")), specs(rows("layer", "qkv", "attention.{}_lin"))
    found = given(match(source, target))
    assert found and all(key.split("_lin")[0][-1] == sources[0].split("_proj")[0][-1] for key, sources in found.items())


def stages(name: Callable[[int, int], str], parts: tuple[str, str], shortcut: str, *, first: bool) -> Rows:
    """A small ResNet: two blocks in each of three stages; the shortcut stands first or last."""
    rows: Rows = conv("stem.conv", 8, 3)
    before = 8
    for stage, width in enumerate((16, 32, 64)):
        for block in range(2):
            here = name(stage, block)
            body = conv(f"{here}.{parts[0]}", width, before) + conv(f"{here}.{parts[1]}", width, width)
            skip = conv(f"{here}.{shortcut}", width, before, 1) if block == 0 else []
            rows += skip + body if first else body + skip
            before = width
    return rows + linear("head.fc", 10, 64)


@pytest.mark.parametrize("is_sorted", [False, True])
def test_where_the_shortcut_stands(is_sorted: bool) -> None:
    source = stages(lambda s, b: f"layer{s + 1}.{b}", ("conv1", "conv2"), "downsample", first=False)
    target = stages(lambda s, b: f"res{s + 2}.{b}", ("conv_a", "conv_b"), "shortcut", first=True)
    target = sorted(target) if is_sorted else target
    names = {"conv_a": "conv1", "conv_b": "conv2", "shortcut": "downsample"}

    def truth(key: str) -> str:
        if not key.startswith("res"):
            return key
        stage, block, part, role = key.split(".")
        return f"layer{int(stage[3:]) - 1}.{block}.{names[part]}.{role}"

    assert not wrong(specs(source), specs(target), truth)
    assert len(given(match(specs(source), specs(target)))) == len(target)


def test_blocks_in_stages_and_in_one_list() -> None:
    """Blocks in a row here, in stages there; the numbers of the norms are moved, for the first block lacks one."""
    source: Rows = []
    target: Rows = []
    before, stage_of = 8, [0, 1, 1, 2, 2, 2]
    for at, stage in enumerate(stage_of):
        width, block = 8 * (stage + 1), stage_of[:at].count(stage)
        here, there = f"blocks.{at}", f"stages.{stage}.{block}"
        convs = [] if at == 0 else conv("", 4 * before, before, 1)
        norms = ("bn1", "bn2") if at == 0 else ("bn0", "bn1", "bn2")
        middle = before if at == 0 else 4 * before
        shapes = [*([(middle,)] if convs else []), (middle,), (width,)]
        for name, to, shape in zip(norms, ("bn1", "bn2", "bn3"), shapes, strict=False):
            source.append((f"{here}.{name}.weight", shape))
            target.append((f"{there}.{to}.weight", shape))
        if convs:
            source.append((f"{here}.expand.weight", convs[0][1]))
            target.append((f"{there}.conv_pw.weight", convs[0][1]))
        source.append((f"{here}.project.weight", (width, middle, 1, 1)))
        target.append((f"{there}.{'conv_pw' if at == 0 else 'conv_pwl'}.weight", (width, middle, 1, 1)))
        before = width
    truth = {to[0]: one[0] for one, to in zip(source, target, strict=True)}
    assert not wrong(specs(sorted(source)), specs(sorted(target)), truth.__getitem__)
    assert not wrong(specs(source), specs(target), truth.__getitem__)


def test_zero_padded_blocks() -> None:
    source = specs((key.replace("b.", "block_0", 1), shape) for key, shape in blocks("b.", 4))
    target = specs((f"layer{int(key[2]) + 1}{key[3:]}", shape) for key, shape in blocks("b.", 4))
    report = match(source, target)
    assert given(report) == {key: (f"block_0{int(key[5]) - 1}{key[6:]}",) for key in target}
    assert len(report.rules) == 1


def test_numbers_inside_of_a_name() -> None:
    source = specs(
        row
        for stage in (2, 3)
        for block in (1, 2)
        for part in (1, 2)
        for row in conv(f"conv{stage}_block{block}_{part}_conv", 8 * stage, 8 * stage, 2 * part - 1)
    )
    report = match(
        source, renamed(source, lambda key: f"layer{int(key[4]) - 1}.{int(key[11]) - 1}.conv{key[13]}.weight")
    )
    assert len(report.accepted()) == 8
    assert all(pair.sources[0][4] == str(int(pair.targets[0][5]) + 1) for pair in report.accepted())


def test_layers_without_biases_are_of_another_model() -> None:
    source = specs(row for row in blocks("layers.", 4) if not row[0].endswith("bias"))
    assert not match(source, specs(blocks("h.", 4))).accepted()


def test_what_is_left_may_be_another_tower() -> None:
    """The student matches by its name; that the teacher and the head are left, and of one shape, says nothing."""
    source = specs(chain([8, 16, 32, 64], "teacher.{}".format) + chain([8, 16, 32, 64], "student.{}".format))
    target = specs(chain([8, 16, 32, 64], "student_net.{}".format) + chain([8, 16, 32, 64], "head.{}".format))
    assert not {key for key in given(match(source, target)) if key.startswith("head")}


def test_a_multilayer_perceptron_and_an_encoder_of_one_width() -> None:
    source = specs(row for at in range(6) for row in linear(f"net.{2 * at}", 8, 8))
    assert not match(source, specs(blocks("blocks.", 6))).accepted()
