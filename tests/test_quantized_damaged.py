"""Damaged quantized files: every command ends with a result or one sentence, never with a bug."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ckptool.cli.app import run
from tests.fuzz.quantized import Tensors, cases, damage, folder_of, stored

CASES = cases()


def write(tensors: Tensors, config: dict[str, Any], metadata: dict[str, str], folder: Path) -> bool:
    """Write a folder; False for tensors that are too large for a test."""
    files = folder_of(tensors, config, metadata)
    if files:
        folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return bool(files)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case["case"] for case in CASES])
def test_damaged_files_end_in_a_sentence(number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES[number]
    whole, metadata = tmp_path / "whole", case["metadata"] or {}
    assert write(stored(case), case["config"] or {}, metadata, whole)
    for seed in range(4):
        rng = random.Random(1000 * number + seed)
        tensors, config = stored(case), json.loads(json.dumps(case["config"] or {}))
        for _ in range(rng.randint(1, 3)):
            damage(tensors, config, rng)
        bad, out = tmp_path / f"bad{seed}", tmp_path / f"out{seed}.safetensors"
        if not write(tensors, config, metadata, bad):
            continue
        for command in (
            ["filter", str(bad), "--dequantize", "-o", str(out)],
            ["inspect", str(bad), "--stats"],
            ["check", str(bad)],
            ["diff", str(bad), str(whole)],
            ["merge", str(bad), str(whole), "--dequantize"],
        ):
            code = run(command)
            told = capsys.readouterr().err
            assert code in (0, 1, 2)
            assert "bug" not in told
            assert "Traceback" not in told
            if command[0] == "filter":
                assert out.exists() == (code == 0)


def test_statistics_of_what_can_be_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One tensor whose values do not go together is named; the others are shown."""
    import torch
    from safetensors.torch import save_file

    tensors = {}
    for module, scale in (("a", 1.0), *((f"b{number}", torch.inf) for number in range(5))):
        tensors |= {
            f"{module}.qweight": torch.full((4, 8), 0x76543210, dtype=torch.int32),
            f"{module}.qzeros": torch.full((1, 1), 0x77777777, dtype=torch.int32),
            f"{module}.scales": torch.full((1, 8), scale).half(),
            f"{module}.g_idx": torch.zeros(32, dtype=torch.int32),
        }
    save_file(tensors, tmp_path / "gptq.safetensors")
    assert run(["inspect", str(tmp_path / "gptq.safetensors"), "--stats", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    notes = [note["text"] for note in shown["notes"] if "cannot be decoded" in note["text"]]
    assert notes[0] == "b0.weight cannot be decoded: b0.scales has values that are not finite"
    assert notes[3] == "2 more tensors cannot be decoded"
    means = {row["key"]: row["stats"]["mean"] for row in shown["tensors"] if row.get("stats")}
    assert means["a.qweight"] == -4.5
    assert not {f"b{number}.qweight" for number in range(5)} & means.keys()


def test_what_a_description_says_wrongly_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Groups that no scale has are found by every command before it writes anything."""
    import torch
    from safetensors.torch import save_file

    tensors = {
        "m.qweight": torch.full((4, 8), 0x76543210, dtype=torch.int32),
        "m.qzeros": torch.full((1, 1), 0x66666666, dtype=torch.int32),
        "m.scales": torch.ones(1, 8).half(),
        "m.g_idx": torch.full((32,), 5, dtype=torch.int32),
    }
    source, out = tmp_path / "gptq.safetensors", tmp_path / "out.safetensors"
    save_file(tensors, source)
    for options in ([], ["--stats"]):
        assert run(["inspect", str(source), *options, "--json"]) == 0
        shown = [note["text"] for note in json.loads(capsys.readouterr().out)["notes"]]
        assert "m.weight cannot be decoded (GPTQ 4-bit, per channel): m.g_idx has groups without a scale" in shown
    assert run(["check", str(source)]) == 1
    assert run(["filter", str(source), "--dequantize", "-o", str(out)]) == 2
    assert not out.exists()
    assert "m.g_idx has groups without a scale" in " ".join(capsys.readouterr().err.split())
