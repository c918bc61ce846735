"""The benchmark of matching judges fairly, and its truth is true."""

from __future__ import annotations

import warnings
from itertools import permutations
from types import ModuleType

import numpy as np
import pytest

from ckptool.core.spec import TensorSpec
from tests.bench.match.baselines import RefusedError, assignment, exact_names, hungarian, longest_suffix
from tests.bench.match.pairs import Case, case_of, entries
from tests.bench.match.prove import prove
from tests.bench.match.run import ours, run_one
from tests.bench.match.score import Answer, Score, judge

pytestmark = pytest.mark.filterwarnings("default")  # of the packages that build the models

SMALL = [entry for entry in entries() if entry.needs == ("torch",)]


def case(name: str) -> Case:
    (entry,) = (entry for entry in SMALL if entry.name == name)
    return case_of(entry)


def specs(**shapes: tuple[int, ...]) -> dict[str, TensorSpec]:
    return {key.replace("__", "."): TensorSpec(key.replace("__", "."), "float32", size) for key, size in shapes.items()}


@pytest.mark.parametrize("entry", SMALL, ids=lambda entry: entry.name)
def test_the_truth_itself_is_perfect(entry: object) -> None:
    found = case_of(entry)
    score, mistakes = judge(found, [Answer(link.targets, link.sources, link.layout) for link in found.truth])
    assert not mistakes
    assert (score.one_found, score.groups_found) == (score.one, score.groups)
    assert not judge(found, [])[0].given


@pytest.mark.parametrize("entry", [e for e in SMALL if not e.change], ids=lambda entry: entry.name)
def test_the_truth_gives_equal_outputs(entry: object) -> None:
    """Or says how it is known, where there is no output to compare."""
    with warnings.catch_warnings(action="ignore"):
        two = entry.build(True)
        if two.rules is None or two.ask is None:
            assert two.proof or not case_of(entry).truth
        else:
            after, before = prove(two)
            assert after <= two.rel < before


def test_mistakes_are_counted() -> None:
    found = case("torch's TransformerEncoder to separate q k v")
    out = ("layers.0.self_attn.out_proj.weight",)
    qkv = tuple(f"0.attention.{x}_proj.weight" for x in "qkv")
    fused = ("layers.0.self_attn.in_proj_weight",)

    def counts(*answers: Answer) -> tuple[int, int, int, int]:
        score = judge(found, answers)[0]
        return score.wrong, score.layouts, score.one_found, score.groups_found

    assert counts(Answer(("0.attention.out.weight",), out, "")) == (0, 0, 1, 0)
    assert counts(Answer(("0.attention.out.weight",), out)) == (0, 0, 1, 0)
    assert counts(Answer(("0.attention.out.weight",), out, "o i -> i o")) == (0, 1, 0, 0)
    assert counts(Answer(("1.attention.out.weight",), out, "")) == (1, 0, 0, 0)
    assert counts(Answer(qkv, fused, "(x o) i -> o i")) == (0, 0, 0, 1)
    assert counts(Answer(qkv, fused, "(a + b + c) i -> a i, b i, c i")) == (0, 0, 0, 1)
    assert counts(Answer(qkv[::-1], fused, "(x o) i -> o i")) == (0, 2, 0, 0)
    assert counts(Answer(qkv, fused, "(o x) i -> o i")) == (0, 3, 0, 0)
    assert counts(Answer(qkv[:2], fused, "(x o) i -> o i")) == (0, 2, 0, 0)
    assert counts(Answer(qkv, out, "(x o) i -> o i")) == (3, 0, 0, 0)
    assert counts(Answer(qkv, fused)) == (0, 3, 0, 0)


def test_what_no_header_tells_is_no_miss_but_can_be_wrong() -> None:
    found = case("MoCo: two encoders alike, one is wanted")
    right = Answer(("backbone.0.weight",), ("encoder_q.0.weight",), "")
    wrong = Answer(("backbone.0.weight",), ("encoder_k.0.weight",), "")
    assert judge(found, [right])[0] == Score(given=1)
    assert judge(found, [wrong])[0] == Score(given=1, wrong=1)
    assert judge(found, [wrong])[0].precision == 0


def test_everything_in_unrelated_models_is_wrong() -> None:
    found = case("unrelated: an MLP and an encoder of one width")
    key = "layers.0.self_attn.out_proj.weight"
    assert judge(found, [Answer((key,), ("0.weight",), "")])[0] == Score(given=1, wrong=1)


# ---------------------------------------------------------------------------------------------- ours


def test_ours_is_never_wrong_and_finds_most(torchvision: ModuleType) -> None:
    """The pairs of torch and torchvision alone; the whole table is `python -m tests.bench.match.run`."""
    total = Score()
    for entry in entries():
        if set(entry.needs) <= {"torch", "torchvision"} and not entry.name.startswith("fresh"):
            score, mistakes, refusal = run_one(ours, case_of(entry))
            assert (entry.name, mistakes, refusal) == (entry.name, [], "")
            total += score
    assert total.one_found / total.one > 0.92
    assert total.groups_found / total.groups > 0.98


@pytest.mark.parametrize("part", range(3))
def test_ours_is_never_wrong_on_fresh_pairs(part: int, torchvision: ModuleType) -> None:
    """How many of these are found says tests/bench/match/FRESH.md."""
    fresh = [entry for entry in entries() if entry.name.startswith("fresh")]
    for entry in fresh[part::3]:
        if set(entry.needs) <= {"torch", "torchvision"}:
            _, mistakes, refusal = run_one(ours, case_of(entry))
            assert (entry.name, mistakes, refusal) == (entry.name, [], "")


# ---------------------------------------------------------------------------------------------- baselines


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 3), (3, 5), (5, 5)])
def test_assignment_is_the_best(rows: int, columns: int) -> None:
    numbers = np.random.default_rng(rows * columns)
    for _ in range(20):
        cost = numbers.standard_normal((rows, columns))
        found = assignment(cost)
        best = min(
            sum(cost[row, column] for row, column in enumerate(chosen)) for chosen in permutations(range(columns), rows)
        )
        assert len(set(found)) == rows
        assert sum(cost[row, column] for row, column in enumerate(found)) == pytest.approx(best)


def test_longest_suffix_as_in_detectron2() -> None:
    source = specs(conv1__weight=(3,), res2__conv1__weight=(3,), fc__weight=(2,))
    target = specs(stem__conv1__weight=(3,), backbone__res2__conv1__weight=(3,), head__fc__weight=(7,))
    assert longest_suffix(source, target) == [
        ("backbone.res2.conv1.weight", "res2.conv1.weight"), ("stem.conv1.weight", "conv1.weight"),
    ]  # fmt: skip
    with pytest.raises(RefusedError):
        longest_suffix(source, specs(a__fc__weight=(2,), b__fc__weight=(2,)))


def test_names_and_words() -> None:
    source = specs(a__query=(4, 4), a__key=(4, 4), b=(2,))
    target = specs(x__key__w=(4, 4), x__query__w=(4, 4), b=(3,))
    assert exact_names(source, target) == []
    assert sorted(hungarian(source, target)) == [("x.key.w", "a.key"), ("x.query.w", "a.query")]


def test_all_pairs_of_torchvision_can_be_built(torchvision: ModuleType) -> None:
    needed = [entry for entry in entries() if entry.needs == ("torch", "torchvision")]
    found = [case_of(entry) for entry in needed if not entry.name.startswith("fresh")]
    assert len(found) == 39
    assert all(link.steps for one in found for link in one.truth)
    assert sum(not one.truth for one in found) == 6
