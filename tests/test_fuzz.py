"""The corpus of past findings, and a few inputs of each kind: `python -m tests.fuzz` tries many more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.inputs import KINDS
from tests.fuzz.judge import judge
from tests.fuzz.run import case_of, run, write_case

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch and safetensors, which read the same inputs

CORPUS = [
    tuple(line.split()[:3])
    for line in (Path(__file__).parent / "fuzz" / "corpus.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize(("kind", "seed", "number"), CORPUS)
def test_past_findings(kind: str, seed: str, number: str, tmp_path: Path) -> None:
    judge(write_case(case_of(kind, int(seed), int(number)), tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_inputs_of_each_kind(kind: str, tmp_path: Path) -> None:
    taken = 0
    for number in range(60):
        folder = tmp_path / str(number)
        folder.mkdir()
        taken += judge(write_case(case_of(kind, 0, number), folder))
    assert 0 < taken < 60, "inputs are to be nearly right"


def test_a_process_that_ends_is_found_and_the_next_input_is_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CKPTOOL_FUZZ_DIES_AT", "3")
    found = run(["pattern"], 5, 60, 6)
    assert found == ["pattern --seed 5 --number 3: the process ended with -9"]
    assert "        6 inputs" in capsys.readouterr().out
