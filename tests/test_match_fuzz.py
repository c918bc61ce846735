"""The edits of the mass tests keep their truth; a few of them on small models."""

from __future__ import annotations

from random import Random

import pytest

from ckptool.core.spec import TensorSpec
from tests.bench.match.cross import lines_of
from tests.bench.match.edits import Row, Rows, merged, numbered, of_one_kind, synonyms
from tests.bench.match.edits_layouts import fused, roles, split, stacked
from tests.bench.match.edits_parts import EDITS, blocks_behind, untold
from tests.bench.match.fuzz import Made, asked, case_of_rows, made, smallest
from tests.bench.match.pairs import Specs, specs_of
from tests.bench.match.score import Answer, judge


def encoder() -> Specs:
    import torch
    from torch import nn

    with torch.device("meta"):
        layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(8),
                    "attn": nn.ModuleDict({name: nn.Linear(8, 8) for name in ("q", "k", "v", "proj")}),
                    "norm2": nn.LayerNorm(8),
                    "mlp": nn.ModuleDict({"fc1": nn.Linear(8, 32), "fc2": nn.Linear(32, 8)}),
                }
            )
            for _ in range(4)
        )
        model = nn.ModuleDict({"stem": nn.Conv2d(3, 8, 4), "blocks": layers, "head": nn.Linear(8, 10)})
    return specs_of(model.state_dict())


def rows_of(specs: Specs) -> Rows:
    return [Row(key, spec.dtype, spec.shape, (key,)) for key, spec in specs.items()]


@pytest.mark.parametrize("edit", EDITS)
def test_the_truth_of_an_edit_is_perfect(edit: str) -> None:
    found = [one for seed in range(6) if (one := made("encoder", encoder(), seed, [edit]))]
    assert found or edit in ("split", "merged", "without_counters", "unwrapped")
    for one in found:
        case = one.case
        score, mistakes = judge(case, [Answer(link.targets, link.sources, link.layout) for link in case.truth])
        assert not mistakes
        assert (score.one_found, score.groups_found) == (score.one, score.groups)
        assert all(key in case.target for link in case.truth for key in link.targets)
        assert all(key in case.source for link in case.truth for key in link.sources)


def test_the_same_seed_makes_the_same_case() -> None:
    first, second = (made("encoder", encoder(), 5) for _ in range(2))
    assert first
    assert second
    assert (first.edits, list(first.case.target)) == (second.edits, list(second.case.target))
    assert first.case.truth == second.case.truth


def test_what_edits_do() -> None:
    rows = rows_of(encoder())
    assert of_one_kind(Random(0), rows) == ["blocks"]
    whole = fused(Random(0), rows)
    assert whole
    qkv = next(row for row in whole if row.kind == "fuse")
    assert (qkv.shape, qkv.true) == ((24, 8), tuple(f"blocks.0.attn.{name}.weight" for name in "qkv"))
    joined = [Row("attn.qkv.weight", "float32", (24, 8), ("x",))]
    assert [(row.shape, row.place) for row in split(Random(0), joined) or []] == [((8, 8), at) for at in range(3)]
    every = stacked(Random(0), rows)
    assert every
    assert ("blocks.norm1.weight", (4, 8)) in {(row.key, row.shape) for row in every}
    more = blocks_behind(Random(0), rows)
    assert more
    assert {row.key.split(".")[1] for row in more if not row.true} >= {"4"}
    flax = next(found for seed in range(9) if (found := roles(Random(seed), rows)) and found[0].key.endswith("kernel"))
    assert (flax[0].shape, flax[0].kind) == ((4, 4, 3, 8), "hwio")
    assert synonyms(Random(1), rows) != rows
    assert merged(Random(0), [Row(f"layer{a}.{b}.w", "float32", (2,), ("x",)) for a in (1, 2) for b in (0, 1)])
    assert numbered(rows, lambda _, number: None if number else "0")


def test_what_no_header_tells_is_named() -> None:
    assert untold(["wrapped", "last_blocks"]) == set()
    assert untold(["last_blocks", "from_one"]) == {"cut and renumbered"}
    assert untold(["twin"]) == {"twin"}


def test_a_mistake_is_seen_and_made_small() -> None:
    """The truth is set against the names, so that the answer is wrong for certain."""
    source = {f"{name}.weight": TensorSpec(f"{name}.weight", "float32", (4, 3)) for name in "ab"}
    right = rows_of(source)
    turned = [Row("a.weight", "float32", (4, 3), ("b.weight",)), Row("b.weight", "float32", (4, 3), ("a.weight",))]
    result = asked(Made(0, (), case_of_rows("turned", source, turned, False)))
    assert [(m.target, m.given) for m in result.mistakes] == [("a.weight", ("a.weight",)), ("b.weight", ("b.weight",))]
    assert list(smallest(result).target) == ["a.weight", "b.weight"]
    assert not asked(Made(0, (), case_of_rows("right", source, right, False))).mistakes


@pytest.mark.parametrize("edit", ["wrapped", "from_one", "by_name", "without_biases", "other_head", "fused"])
def test_plain_edits_are_answered_without_a_mistake(edit: str) -> None:
    for seed in range(4):
        if one := made("encoder", encoder(), seed, [edit]):
            assert not asked(one).mistakes


def test_lines() -> None:
    assert lines_of("torchvision/resnet50") & lines_of("timm.res2net/res2net50_48w_2s")
    assert lines_of("torchvision/resnet50") & lines_of("transformers.detr/detr")
    assert not lines_of("torchvision/resnet50") & lines_of("transformers.bert/bert")
    assert lines_of("timm.deit/deit_base") & lines_of("transformers.beit/beit")
