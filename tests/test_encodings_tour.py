"""Each scheme through each command: one recorded tensor of every scheme and layout, the examples, and GGUF's types.

`--dequantize` in a command gives, bit by bit, what the command gives for the dequantized file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_dequantize import DATA, EXAMPLES, Told, by_scheme, flat, members_of, recorded, refused, same, tensors_of
from test_gguf import BLOCKS, random_rows, written

from ckptool.cli.app import run
from ckptool.formats.opening import open_checkpoint

_TYPES = [kind for kind in BLOCKS if kind.name != "Q1_0"]
SOURCES = [
    *by_scheme(),
    *(pytest.param(name, id=name) for name in EXAMPLES),
    *(pytest.param(kind, id=f"GGUF {kind.name}") for kind in _TYPES),
]


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A quantized checkpoint."""
    if isinstance(request.param, dict):
        return recorded(request.param, tmp_path / "in")
    if isinstance(request.param, str):
        return DATA / request.param
    tensors = {"fc.weight": (random_rows(request.param), request.param), "norm.weight": np.ones(4, np.float32)}
    return written(tmp_path / "in.gguf", tensors)


@pytest.fixture
def plain(source: Path, tmp_path: Path, capsys: Told) -> Path:
    """The same dequantized."""
    out = tmp_path / "plain.safetensors"
    assert run(["filter", str(source), "--dequantize", "-o", str(out)]) == 0
    capsys.readouterr()
    return out


def told(arguments: list[Any], capsys: Told, code: int) -> dict[str, Any]:
    """The JSON of a command."""
    assert run([*map(str, arguments), "--json"]) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    found: dict[str, Any] = json.loads(captured.out)
    return found


def alike(source: Path, plain: Path, arguments: list[Any], folder: Path) -> dict[str, torch.Tensor]:
    """What a command writes of the encoded file with --dequantize and of the dequantized one: the same."""
    one, two = folder / "one.safetensors", folder / "two.safetensors"
    command = [str(word) for word in arguments]
    at = command.index("SOURCE")
    for file, flag, out in ((source, ["--dequantize"], one), (plain, [], two)):
        words = [*command[:at], str(file), *command[at + 1 :], *flag, "--force", "-o", str(out)]
        assert run(words) == 0, words
    made, expected = load_file(one), load_file(two)
    assert made.keys() == expected.keys()
    assert all(same(made[key], expected[key]) for key in made)
    return made


def test_check_has_nothing_against_it(source: Path, capsys: Told) -> None:
    found = told(["check", source], capsys, 0)
    assert [finding["message"] for finding in found["findings"] if finding["level"] == "error"] == []


def test_check_has_nothing_against_what_is_decoded(plain: Path, capsys: Told) -> None:
    told(["check", plain], capsys, 0)


def test_it_is_the_same_as_its_numbers_and_as_itself(source: Path, plain: Path, capsys: Told) -> None:
    for sides in ([source, plain], [plain, source]):
        found = told(["diff", *sides], capsys, 0)
        assert {change["status"] for change in found["changes"]} == {"same"}
        assert "compared as decoded numbers" in " ".join(note["text"] for note in found["notes"])
    assert {change["status"] for change in told(["diff", source, source], capsys, 0)["changes"]} == {"same"}


def test_another_file_of_the_scheme_is_compared_by_codes(source: Path, tmp_path: Path, capsys: Told) -> None:
    """One code differs: that tensor and no other, and it is said what is compared."""
    (codes, *_), _, _ = members_of(source)
    other = changed_code(source, codes, tmp_path / "other")
    found = told(["diff", source, other], capsys, 1)
    assert [change["key"] for change in found["changes"] if change["status"] != "same"] == [codes]
    how = "compared as decoded numbers" if source.suffix == ".gguf" else "codes are compared"  # numbers are in blocks
    assert how in " ".join(note["text"] for note in found["notes"])


def changed_code(source: Path, codes: str, target: Path) -> Path:
    """A copy of a checkpoint with one other bit in the middle of the codes."""
    if source.suffix == ".gguf":
        piece = open_checkpoint(source)[codes].pieces[0]
        raw = bytearray(source.read_bytes())
        raw[piece.storage.offset + piece.storage.nbytes // 2 + 9] ^= 1
        target.with_suffix(".gguf").write_bytes(raw)
        return target.with_suffix(".gguf")
    target.mkdir()
    state = tensors_of(source)
    state[codes] = state[codes].clone()
    state[codes].view(-1).view(torch.uint8)[0] ^= 1
    with safe_open(min(source.glob("*.safetensors")), "pt") as file:
        save_file(state, target / "model.safetensors", file.metadata())
    (target / "config.json").write_bytes((source / "config.json").read_bytes())
    return target


def test_merge_of_two(source: Path, plain: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    save_file({key: (tensor * 0.5).to(tensor.dtype) for key, tensor in load_file(plain).items()}, half)
    for method in ([], ["--method", "linear", "--weights", "0.25,0.75"]):
        alike(source, plain, ["merge", half, "SOURCE", *method], tmp_path)
        alike(source, plain, ["merge", "SOURCE", half, *method], tmp_path)


def test_merge_of_an_adapter(source: Path, plain: Path, tmp_path: Path, capsys: Told) -> None:
    key = members_of(source)[1]
    tensor = load_file(plain)[key]
    if tensor.ndim != 2 or not key.endswith(".weight") or "embed" in key:
        return  # experts and embeddings have adapters of other layouts
    module, adapter = key.removesuffix(".weight"), tmp_path / "adapter"
    adapter.mkdir()
    a, b = torch.randn(2, tensor.shape[1]), torch.randn(tensor.shape[0], 2)
    state = {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
    save_file(state, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [module.rpartition(".")[2]]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    words = ["merge", str(source), "--lora", str(adapter)]
    said = refused(words, tmp_path / "x.safetensors", capsys)
    assert members_of(source)[2] in said and "--dequantize" in said
    made = alike(source, plain, ["merge", "SOURCE", "--lora", adapter], tmp_path)
    wanted = tensor.double() + 2 * b.double() @ a.double()
    finite = torch.isfinite(wanted)
    assert torch.allclose(made[key].double()[finite], wanted[finite], rtol=2**-7, atol=1e-5)


def test_transplant_into_its_plain_model(source: Path, plain: Path, tmp_path: Path, capsys: Told) -> None:
    words = ["transplant", str(source), "--into", str(plain)]
    said = refused(words, tmp_path / "x.safetensors", capsys)
    assert members_of(source)[2] in said and "--dequantize" in said
    made, expected = alike(source, plain, ["transplant", "SOURCE", "--into", plain], tmp_path), load_file(plain)
    assert made.keys() == expected.keys()
    assert all(same(made[key], expected[key]) for key in made)


def test_a_dtype_for_what_is_not_quantized(source: Path, tmp_path: Path, capsys: Told) -> None:
    """The error says of the quantized weights what would happen to them, whether or not another tensor is cast."""
    said = flat(refused(["filter", str(source), "--dtype", "f64"], tmp_path / "x.safetensors", capsys))
    assert "a cast would change" in said or "copied, not cast" in said
