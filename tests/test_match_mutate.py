"""Mutants of the benchmark's pairs: their truth is carried along, and the matcher writes no wrong pair."""

from __future__ import annotations

from random import Random

import pytest

from tests.bench.match.mutate import CHANGES, mutated
from tests.bench.match.pairs import Case, case_of, entries
from tests.bench.match.run import ours
from tests.bench.match.score import Answer, judge

pytest.importorskip("torch")

NAMES = (
    "fresh: NVIDIA's Tacotron 2 to Coqui's: memory_layer is inputs_layer",
    "fresh: mattmacy's V-Net to MONAI's",
    "fresh: lit-llama to Meta's names: c_fc1 is w1, c_fc2 is w3, c_attn split",
    "fresh: PointNet++ by yanx27 to Wijmans': biases stay behind",
)
CASES = {entry.name: case_of(entry) for entry in entries(NAMES)}


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.mark.parametrize("change", CHANGES)
def test_the_truth_of_a_mutant_is_perfect(case: Case, change: str) -> None:
    changed = CHANGES[change](Random(1), case)
    if changed is None:
        pytest.skip("nothing to change")
    score, mistakes = judge(changed, [Answer(link.targets, link.sources, link.layout) for link in changed.truth])
    assert not mistakes
    assert (score.one_found, score.groups_found) == (score.one, score.groups)
    assert list(changed.target.values()) != list(case.target.values()) or changed.source != case.source
    assert all(spec.key == key for key, spec in changed.target.items())


@pytest.mark.parametrize("change", ["source_dropped", "inserted", "stage", "head"])
def test_what_a_change_leaves_without_a_source(change: str) -> None:
    """A block that is gone, one that is new, one of another width, other classes."""
    plain = CASES[NAMES[2]]
    changed = CHANGES[change](Random(3), plain)
    assert changed
    left = {key for link in changed.truth for key in link.targets}
    assert {key for link in plain.truth for key in link.targets} == plain.target.keys()
    assert 0 < len(changed.target.keys() - left) < 20


@pytest.mark.parametrize("seed", range(3))
def test_no_wrong_pair_is_written(case: Case, seed: int) -> None:
    mutant, changes = mutated(case, seed)
    _, mistakes = judge(mutant, ours(mutant))
    assert not mistakes, changes


def test_the_same_seed_makes_the_same_mutant(case: Case) -> None:
    assert mutated(case, 7)[0].target == mutated(case, 7)[0].target
