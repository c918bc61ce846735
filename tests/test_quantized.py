"""Quantized weights in inspect, diff and check: what they stand for, and what is wrong with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file

import ckptool
from ckptool.cli.app import run

DATA = ROOT / "tests" / "data" / "encodings"
FP8, GPTQ, NF4 = (DATA / name for name in ("fp8_block_sharded", "gptq_v1_actorder", "bnb_nf4_nested"))
EXAMPLES = sorted(path.name.removesuffix(".expected.safetensors") for path in DATA.glob("*.expected.safetensors"))
EXAMPLES = [name for name in EXAMPLES if "gguf" not in name]
UP = "model.layers.3.mlp.shared_experts.up_proj.weight"

Told = pytest.CaptureFixture[str]


def told(arguments: list[str], capsys: Told, code: int = 0) -> dict[str, Any]:
    """The JSON of a command."""
    assert run([*arguments, "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def changed(source: Path, folder: Path, edit: Any, config: Any = None) -> Path:
    """A copy of an example whose tensors and config were edited."""
    state = {key: tensor for file in sorted(source.glob("*.safetensors")) for key, tensor in load_file(file).items()}
    edit(state)
    folder.mkdir()
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    described = json.loads((source / "config.json").read_text())
    if config is not None:
        config(described)
    (folder / "config.json").write_text(json.dumps(described))
    return folder


# ---------------------------------------------------------------------------------------------- inspect


@pytest.mark.parametrize("name", EXAMPLES)
def test_inspect_shows_the_logical_spec(name: str, capsys: Told) -> None:
    found = told(["inspect", str(DATA / name)], capsys)
    encoded = {row["encoded"]["key"]: row["encoded"] for row in found["tensors"] if "encoded" in row}
    expected = load_file(DATA / f"{name}.expected.safetensors")
    assert {key: row["shape"] for key, row in encoded.items()} == {key: [*t.shape] for key, t in expected.items()}
    plain = sum(row["bytes"] for row in found["tensors"]) - sum(
        row["bytes"]
        for row in found["tensors"]
        if "encoded" in row or any(row["key"] in each["members"] for each in encoded.values())
    )
    assert found["summary"]["decoded"]["bytes"] == plain + sum(t.numel() * 2 for t in expected.values())
    assert found["summary"]["bytes"] == sum(row["bytes"] for row in found["tensors"])
    assert all(2 < row["bits_per_weight"] < 32 for row in encoded.values())


def test_inspect_says_scheme_and_spec_in_its_tree(capsys: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert run(["inspect", str(FP8)]) == 0
    shown = capsys.readouterr().out
    assert "fp8 128×128 blocks → bf16[130,140]" in shown
    assert "decoded 3 tensors" in shown
    assert "8.01 bits per weight" in shown


@pytest.mark.parametrize("name", EXAMPLES)
def test_stats_are_of_the_decoded_numbers(name: str, capsys: Told) -> None:
    found = told(["inspect", str(DATA / name), "--stats"], capsys)
    expected = load_file(DATA / f"{name}.expected.safetensors")
    rows = {row["encoded"]["key"]: row["stats"] for row in found["tensors"] if "encoded" in row}
    assert rows.keys() == expected.keys()
    for key, tensor in expected.items():
        assert rows[key]["elements"] == tensor.numel()
        assert rows[key]["max"] == tensor.float().max().item()
        assert rows[key]["min"] == tensor.float().min().item()
        assert rows[key]["mean"] == pytest.approx(tensor.double().mean().item(), rel=1e-9)


# ---------------------------------------------------------------------------------------------- diff


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_one_encoded_side_is_compared_as_numbers(name: str, dtype: str, tmp_path: Path, capsys: Told) -> None:
    plain = tmp_path / "plain.safetensors"
    assert run(["filter", str(DATA / name), "--dequantize", "--dtype", dtype, "-o", str(plain)]) == 0
    capsys.readouterr()
    keys = list(load_file(DATA / f"{name}.expected.safetensors"))
    only = [word for key in keys for word in ("--only", key)]
    for sides in ([DATA / name, plain], [plain, DATA / name]):
        found = told(["diff", *map(str, sides), *only], capsys)
        assert [change["status"] for change in found["changes"]] == ["same"] * len(keys)
    found = told(["diff", str(DATA / name), str(plain)], capsys, 0 if dtype == "bf16" else 1)
    assert not {"added", "removed"} & {change["status"] for change in found["changes"]}
    assert "decoded numbers" in " ".join(note["text"] for note in found["notes"])


def test_both_encoded_sides_are_compared_as_codes(tmp_path: Path, capsys: Told) -> None:
    def scaled(state: dict[str, torch.Tensor]) -> None:
        state[f"{UP}_scale_inv"] = state[f"{UP}_scale_inv"] * 2

    other = changed(FP8, tmp_path / "other", scaled)
    found = told(["diff", str(FP8), str(other)], capsys, 1)
    rows = {row["key"]: row["status"] for row in found["changes"]}
    assert rows[UP] == "same"
    assert rows[f"{UP}_scale_inv"] == "changed"
    assert "codes are compared" in " ".join(note["text"] for note in found["notes"])


def test_two_schemes_are_compared_as_numbers(tmp_path: Path, capsys: Told) -> None:
    torch.manual_seed(0)
    weight = torch.randint(-8, 8, (8, 64)).float()
    fp8 = {"fc.weight": weight.to(torch.float8_e4m3fn), "fc.weight_scale": torch.tensor(0.5)}
    int8 = {"fc.weight": weight.to(torch.int8), "fc.weight_scale": torch.full((8, 1), 0.5)}
    save_file(fp8, tmp_path / "fp8.safetensors")
    save_file(int8, tmp_path / "int8.safetensors")
    found = told(["diff", str(tmp_path / "fp8.safetensors"), str(tmp_path / "int8.safetensors")], capsys)
    assert [(row["key"], row["status"]) for row in found["changes"]] == [("fc.weight", "same")]


def test_numbers_that_differ_are_measured(tmp_path: Path, capsys: Told) -> None:
    expected = load_file(DATA / "fp8_block_sharded.expected.safetensors")
    save_file({UP: expected[UP] * 2}, tmp_path / "twice.safetensors")
    found = told(["diff", str(FP8), str(tmp_path / "twice.safetensors"), "--only", UP], capsys, 1)
    (row,) = found["changes"]
    assert row["status"] == "changed"
    assert row["delta"]["max_abs"] == expected[UP].float().abs().max().item()


def test_prefixes_and_rules_meet_logical_keys(tmp_path: Path, capsys: Told) -> None:
    plain = tmp_path / "plain.safetensors"
    rules = ["-r", "model. -> module.model."]
    assert run(["remap", str(GPTQ), "--dequantize", *rules, "-o", str(plain)]) == 0
    capsys.readouterr()
    found = told(["diff", str(GPTQ), str(plain)], capsys)
    assert {row["status"] for row in found["changes"]} == {"same"}
    found = told(["diff", str(GPTQ), str(plain), *rules], capsys, 1)
    assert {row["status"] for row in found["changes"]} <= {"same", "renamed"}


def test_the_api_compares_and_decodes(tmp_path: Path) -> None:
    logical = ckptool.dequantized(FP8)
    expected = load_file(DATA / "fp8_block_sharded.expected.safetensors")[UP]
    with ckptool.Reader() as reader:
        values = reader.array(logical[UP])
    assert torch.equal(torch.from_numpy(values.view("<i2")), expected.view(torch.int16))
    assert ckptool.compare(FP8, logical, only=[UP]).is_same
    plan = ckptool.plan_filter(ckptool.dequantized(FP8, "f32"), [("keep", UP)])
    written = plan.apply(tmp_path / "out.safetensors")
    assert load_file(written.path)[UP].dtype == torch.float32


# ---------------------------------------------------------------------------------------------- check


def findings(path: Path, capsys: Told, code: int = 1) -> list[tuple[str, str, str]]:
    """(rule, level, message) of what check finds."""
    found = told(["check", str(path)], capsys, code)
    return [(each["rule"], each["level"], each["message"]) for each in found["findings"]]


@pytest.mark.parametrize("name", [*EXAMPLES, "look_alike"])
def test_good_files_have_no_findings(name: str, capsys: Told) -> None:
    assert findings(DATA / name, capsys, 0) == []


SCALE = f"{UP}_scale_inv"


def drop_scale(state: dict[str, torch.Tensor]) -> None:
    del state[SCALE]


def reshape_scale(state: dict[str, torch.Tensor]) -> None:
    state[SCALE] = torch.ones(3, 5)


def nan_scale(state: dict[str, torch.Tensor]) -> None:
    state[SCALE][0, 1] = torch.nan


def wrong_method(config: dict[str, Any]) -> None:
    config["quantization_config"] = {"quant_method": "awq", "bits": 4}


def wrong_block(config: dict[str, Any]) -> None:
    config["quantization_config"]["weight_block_size"] = [16, 16]


def no_config(config: dict[str, Any]) -> None:
    del config["quantization_config"]


def listed(config: dict[str, Any]) -> None:
    config["quantization_config"]["modules_to_not_convert"] = ["lm_head", UP.removesuffix(".weight")]


def nothing(state: dict[str, torch.Tensor]) -> None:
    """Leave the tensors as they are."""


@pytest.mark.parametrize(
    ("edit", "config", "rule", "level", "words"),
    [
        (drop_scale, None, "facts", "error", "has no scale"),
        (reshape_scale, None, "facts", "error", "f32[3,5]"),
        (nan_scale, None, "nonfinite", "error", "1 NaN"),
        (nothing, wrong_method, "quantized", "error", "says awq, and the quantized tensors are fp8"),
        (nothing, wrong_block, "facts", "error", "blocks of 16×16, as the config says"),
        (nothing, no_config, "quantized", "warning", "no quantization_config"),
        (nothing, listed, "quantized", "error", "not converted, and it is quantized"),
    ],
)
def test_check_finds_what_is_wrong(
    edit: Any, config: Any, rule: str, level: str, words: str, tmp_path: Path, capsys: Told
) -> None:
    path = changed(FP8, tmp_path / "bad", edit, config)
    found = findings(path, capsys, 0 if level == "warning" else 1)
    assert [(name, grade) for name, grade, message in found if words in message] == [(rule, level)]


def test_nan_among_byte_exponents(tmp_path: Path, capsys: Told) -> None:
    def edit(state: dict[str, torch.Tensor]) -> None:
        scales = next(tensor for key, tensor in state.items() if key.endswith("_scales"))
        scales.view(-1)[:3] = 255

    path = changed(DATA / "mxfp4_gpt_oss", tmp_path / "bad", edit)
    assert [(rule, level) for rule, level, message in findings(path, capsys) if "3 scales are NaN" in message] == [
        ("quantized", "error")
    ]


def test_a_global_scale_of_zero(tmp_path: Path, capsys: Told) -> None:
    state = {
        "m.weight_packed": torch.full((8, 8), 0x22, dtype=torch.uint8),
        "m.weight_scale": torch.ones(8, 1).to(torch.float8_e4m3fn),
        "m.weight_global_scale": torch.zeros(1),
    }
    save_file(state, tmp_path / "bad.safetensors")
    assert findings(tmp_path / "bad.safetensors", capsys) == [
        ("quantized", "error", "m.weight_global_scale is 0, and it divides")
    ]
    out = tmp_path / "out.safetensors"
    assert run(["filter", str(tmp_path / "bad.safetensors"), "--dequantize", "-o", str(out)]) == 2
    assert not out.exists()


def test_values_that_contradict_the_config(tmp_path: Path, capsys: Told) -> None:
    def symmetric(config: dict[str, Any]) -> None:
        config["quantization_config"]["sym"] = True

    path = changed(GPTQ, tmp_path / "bad", nothing, symmetric)
    messages = [message for rule, _, message in findings(path, capsys) if rule == "quantized"]
    assert len(messages) == 1
    assert "says symmetric" in messages[0]


def test_a_stale_config_is_a_note(tmp_path: Path, capsys: Told) -> None:
    def plain(state: dict[str, torch.Tensor]) -> None:
        state.pop(SCALE)
        state[UP] = state[UP].float()

    path = changed(FP8, tmp_path / "stale", plain)
    assert ("quantized", "note") in {(rule, level) for rule, level, _ in findings(path, capsys, 0)}


def test_codes_that_are_stored_as_floats_are_not_judged(tmp_path: Path, capsys: Told) -> None:
    def disguised(state: dict[str, torch.Tensor]) -> None:
        key = next(key for key in state if key.endswith("gate_proj.weight"))
        raw = state[key].reshape(-1)
        raw = torch.cat([raw, raw.new_zeros(-len(raw) % 2)])
        raw[:4] = 0xFF  # NaN as bfloat16
        state[key] = raw.view(torch.bfloat16).reshape(-1, 1)

    path = changed(NF4, tmp_path / "stored", disguised)
    assert findings(path, capsys, 0) == []
    out = tmp_path / "out.safetensors"
    assert run(["filter", str(path), "--dequantize", "-o", str(out)]) == 0
    assert load_file(out)["model.layers.0.mlp.gate_proj.weight"].shape == (33, 27)


def test_a_finding_is_excused(tmp_path: Path, capsys: Told) -> None:
    path = changed(FP8, tmp_path / "bad", nothing, listed)
    (tmp_path / "ckptool.toml").write_text(f'allow.quantized = ["{UP}"]\n')
    assert run(["check", str(path), "--policy", str(tmp_path / "ckptool.toml")]) == 0
    shutil.rmtree(path)
