"""Matches of tensors that stand for several, and of modules that are written inside a key's last part."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ckptool.matching.match import match
from ckptool.recipes.reverse import check_reverse
from tests.test_match import Specs, checked, given, shapes_of

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
        assert len(report.rules) == 2
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
