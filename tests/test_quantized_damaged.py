"""Damaged quantized files: every command ends with a result or one sentence, never with a bug."""

from __future__ import annotations

import base64
import json
import math
import random
import zlib
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from ckptool.cli.app import run
from ckptool.core.dtypes import DTYPES

LINES = (ROOT / "tests" / "data" / "encodings" / "recorded.jsonl").read_text(encoding="ascii").splitlines()
CASES = [json.loads(line) for line in LINES]
CODES = (
    "float32",
    "bfloat16",
    "float16",
    "uint8",
    "int8",
    "int32",
    "uint32",
    "int64",
    "float8_e4m3fn",
    "float8_e8m0fnu",
)
ODD = (None, 0, -1, 1, 3, 1 << 40, "x", [], {}, True, [0, 0], 2.5)
MOST = 1 << 20  # bytes of one tensor

Tensors = dict[str, tuple[str, list[int], bytes]]


def stored(case: dict[str, Any]) -> Tensors:
    return {
        key: (dtype, list(shape), zlib.decompress(base64.b85decode(text)))
        for key, (dtype, shape, text) in case["arrays"].items()
    }


def damage(tensors: Tensors, config: dict[str, Any], rng: random.Random) -> None:
    """One change of a shape, a dtype, some bytes or the config."""
    key = rng.choice(list(tensors))
    dtype, shape, raw = tensors[key]
    match rng.randrange(6):
        case 0 if len(tensors) > 1:
            del tensors[key]
        case 1 if shape:
            axis = rng.randrange(len(shape))
            changed = rng.choice([0, 1, shape[axis] + 1, max(0, shape[axis] - 1), shape[axis] * 2])
            tensors[key] = dtype, [*shape[:axis], changed, *shape[axis + 1 :]], raw
        case 2:
            tensors[key] = rng.choice(CODES), shape, raw
        case 3:
            tensors[key] = dtype, rng.choice([shape[::-1], [*shape, 1], shape[1:]]), raw
        case 4 if raw:
            noise = bytearray(raw)
            for _ in range(8):
                noise[rng.randrange(len(noise))] = rng.randrange(256)
            tensors[key] = dtype, shape, bytes(noise)
        case _:
            inner: Any = config
            while isinstance(inner, dict) and inner:
                name = rng.choice(list(inner))
                if not isinstance(inner[name], dict) or rng.random() < 0.3:
                    inner[name] = rng.choice(ODD)
                    break
                inner = inner[name]


def write(tensors: Tensors, config: dict[str, Any], metadata: dict[str, str], folder: Path) -> bool:
    """Write a folder; False for tensors that are too large for a test."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for key, (dtype, shape, raw) in tensors.items():
        nbytes = DTYPES[dtype].nbytes(math.prod(shape))
        if nbytes > MOST:
            return False
        content = (raw * (nbytes // max(1, len(raw)) + 1))[:nbytes]
        offsets = [len(data), len(data) + nbytes]
        header[key] = {"dtype": DTYPES[dtype].safetensors, "shape": shape, "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    (folder / "config.json").write_text(json.dumps(config))
    return True


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
    for module, group in (("a", 0), *((f"b{number}", 5) for number in range(5))):
        tensors |= {
            f"{module}.qweight": torch.full((4, 8), 0x76543210, dtype=torch.int32),
            f"{module}.qzeros": torch.full((1, 1), 0x77777777, dtype=torch.int32),
            f"{module}.scales": torch.ones(1, 8).half(),
            f"{module}.g_idx": torch.full((32,), group, dtype=torch.int32),
        }
    save_file(tensors, tmp_path / "gptq.safetensors")
    assert run(["inspect", str(tmp_path / "gptq.safetensors"), "--stats", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    notes = [note["text"] for note in shown["notes"] if "cannot be decoded" in note["text"]]
    assert notes[0] == "b0.weight cannot be decoded: b0.g_idx has groups without a scale"
    assert notes[3] == "2 more tensors cannot be decoded"
    means = {row["key"]: row["stats"]["mean"] for row in shown["tensors"] if row.get("stats")}
    assert means["a.qweight"] == -4.5
    assert not {f"b{number}.qweight" for number in range(5)} & means.keys()
