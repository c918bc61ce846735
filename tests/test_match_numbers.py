"""Numbers in names: kept, moved, or as letters; each in three orders of both files."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from test_match import Specs, given, linear
from test_match_kinds import Rows, conv, order

from ckptool.matching.match import match

__all__ = ["order"]  # the fixture: given, sorted and shuffled

STATS = ("weight", "bias", "running_mean", "running_var")


def batch_norm(name: str, width: int) -> Rows:
    return [(f"{name}.{role}", (width,)) for role in STATS]


def bottlenecks(prefix: str, widths: tuple[int, ...], is_split: bool = False) -> Rows:
    """A residual network; its first norms of two halves each, if asked."""
    rows: Rows = [(f"{prefix}conv1.weight", (widths[0], 3, 7, 7)), *batch_norm(f"{prefix}bn1", widths[0])]
    inputs = widths[0]
    for stage, width in enumerate(widths, 1):
        for block in range(2):
            name = f"{prefix}layer{stage}.{block}."
            for at, shape in enumerate([(width, inputs, 1, 1), (width, width, 3, 3), (2 * width, width, 1, 1)], 1):
                rows.append((f"{name}conv{at}.weight", shape))
                if at == 1 and is_split and stage < len(widths):
                    halves = width // 2
                    rows += [(f"{name}bn1.IN.{role}", (halves,)) for role in STATS[:2]]
                    rows += batch_norm(f"{name}bn1.BN", halves)
                else:
                    rows += batch_norm(f"{name}bn{at}", shape[0])
            inputs = 2 * width
    return [*rows, *linear(f"{prefix}fc", 10, inputs)]


@pytest.mark.parametrize("prefix", ["", "base."])
def test_equal_names_stay_where_a_sibling_became_two(prefix: str, order: Callable[[Rows], Specs]) -> None:
    source = order(bottlenecks("", (64, 128, 256)))
    target = order(bottlenecks(prefix, (64, 128, 256), is_split=True))
    found = given(match(source, target))
    for key in target:
        old = key.removeprefix(prefix)
        if old in source:
            assert found[key] == (old,)


def test_a_network_of_another_width_is_another_one(order: Callable[[Rows], Specs]) -> None:
    """Its second stage has the shapes of the first one."""
    source, target = bottlenecks("", (32, 64, 128, 256)), bottlenecks("", (64, 128, 256, 512))
    assert not given(match(order(source), order(target)))


def row_of(names: list[str]) -> Rows:
    """Convolutions with norms, each under the next name."""
    rows: Rows = []
    widths = [3, 16, 16, 32, 32, 32, 64, 64, 64, 64]
    for at in range(9):
        rows += conv(names[2 * at], widths[at + 1], widths[at]) + batch_norm(names[2 * at + 1], widths[at + 1])
    return rows


def test_a_row_in_slices_that_keep_its_numbers(order: Callable[[Rows], Specs]) -> None:
    """``features.17`` is ``slice3.17``; the slices go on with modules of their own, whose numbers begin anew."""
    numbers = [number for at in range(9) for number in (3 * at, 3 * at + 1)]
    source = row_of([f"features.{number}" for number in numbers]) + linear("classifier", 10, 64)
    target = row_of([f"net.slice{at // 6 + 1}.{number}" for at, number in enumerate(numbers)])
    target += conv("net.slice4.1", 128, 64) + conv("net.slice4.2", 128, 128, 1) + conv("head.0", 2, 128)
    report = match(order(source), order(target))
    assert given(report) == {
        f"net.slice{at // 6 + 1}.{number}.{role}": (f"features.{number}.{role}",)
        for at, number in enumerate(numbers)
        for role in (STATS if at % 2 else STATS[:2])
    }


def test_flat_names_under_prefixes_that_count_otherwise(order: Callable[[Rows], Specs]) -> None:
    """``conv2_stage3_L1`` is ``model3_1.conv2_stage3_L1``, and not ``conv3_stage2_L1``."""
    source: Rows = []
    target: Rows = []
    for stage in range(2, 6):
        for branch, width in ((1, 8), (2, 12)):
            for at in range(1, 6):
                name = f"conv{at}_stage{stage}_L{branch}"
                shape = (32, 40, 7, 7) if at == 1 else (width, 32, 1, 1) if at == 5 else (32, 32, 7, 7)
                source += [(f"{name}.weight", shape), (f"{name}.bias", shape[:1])]
                target += [(f"model{stage}_{branch}.{name}.weight", shape)]
                target += [(f"model{stage}_{branch}.{name}.bias", shape[:1])]
    found = given(match(order(source), order(target)))
    assert found == {key: (key.partition(".")[2],) for key, _ in target}


def test_letters_count_as_numbers_do(order: Callable[[Rows], Specs]) -> None:
    source: Rows = conv("stem.conv", 16, 3)
    target: Rows = conv("stem.conv", 16, 3)
    for stage, width in enumerate((16, 32, 64), 1):
        for block in range(1, 4):
            name = f"s{stage}.b{block}."
            inputs = width // 2 if block == 1 and stage > 1 else width
            shapes = {"a": (width, inputs, 1, 1), "b": (width, width, 3, 3), "c": (width, width, 1, 1)}
            for at, (letter, shape) in enumerate(shapes.items(), 1):
                source += [(f"{name}f.{letter}.weight", shape), *batch_norm(f"{name}f.{letter}_bn", width)]
                target += [(f"{name}conv{at}.conv.weight", shape), *batch_norm(f"{name}conv{at}.bn", width)]
    truth = {new: (old,) for (old, _), (new, _) in zip(source, target, strict=True)}
    assert given(match(order(source), order(target))) == truth
