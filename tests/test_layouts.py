"""Layouts of public code bases: each is named, goes into its plain model and back, without a wrong turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.layouts.layouts import Layout, layouts
from tests.bench.layouts.run import advised, tried, weights


@pytest.mark.parametrize("layout", list(layouts()), ids=lambda layout: layout.name)
def test_a_layout_is_named_and_goes_both_ways(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    found = tried(layout, tmp_path)
    assert found.unnamed == []
    for way in (found.forth, found.back):
        assert (way.filled, way.wrong, way.dead_end) == (way.wanted, [], "")
    assert found.wrong_turns == 0


def test_the_bench_sees_wrong_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout whose names say nothing, and whose shapes say too little, ends dead."""
    monkeypatch.setenv("COLUMNS", "1000")
    plain = {f"a{number}.weight": (4, 4) for number in range(3)}
    shapes = {f"b{number}.kernel": (4, 4) for number in range(3)}
    odd = Layout("odd", shapes, plain, dict(zip(shapes, plain, strict=True)), ("resnet50",))
    found = tried(odd, tmp_path)
    assert found.unnamed == ["resnet50"]
    assert found.forth.dead_end
    assert found.wrong_turns >= 3
    assert advised("nothing") is None
    assert len(weights(plain, 1)) == 3
