"""Files that the quantizing libraries wrote themselves (`tests/oracles/written.py`): their own numbers are the oracle.

Decoded folders load in transformers with nothing missing, and give the outputs of the library's own numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ckptool
from ckptool.cli.app import run
from ckptool.engine.dequantize import encoded_of
from ckptool.models import import_torchvision

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import_torchvision()  # which transformers imports in its own way
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

WRITTEN = Path(__file__).parent / "data" / "encodings" / "written"
FILES = sorted(path.stem for path in WRITTEN.glob("*.zip"))
REFUSED = {"torchao09_uintx": "torchao's AffineQuantizedTensor"}


def unpacked(name: str, folder: Path) -> dict[str, tuple[str, list[int], str]]:
    """The library's folder, and what it says of the decoded weights: dtype, shape and SHA-256 of each."""
    with zipfile.ZipFile(WRITTEN / f"{name}.zip") as archive:
        archive.extractall(folder)
    expected = json.loads((folder / "expected.json").read_text())
    (folder / "expected.json").unlink()
    return {key: tuple(row) for key, row in expected.items()}


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def assert_same(
    state: dict[str, torch.Tensor], expected: dict[str, tuple[str, list[int], str]], *, zeros: bool
) -> None:
    """The library's numbers, bit by bit; `zeros` where its zeros have no sign."""
    assert state.keys() == expected.keys()
    for key, (dtype, shape, sha256) in expected.items():
        tensor = state[key]
        assert [str(tensor.dtype), list(tensor.shape)] == [dtype, shape], key
        assert digest(tensor + 0 if zeros and "_proj" in key else tensor) == sha256, key


@pytest.mark.parametrize("name", [name for name in FILES if name not in REFUSED])
def test_the_librarys_own_file_decodes_to_its_own_numbers(name: str, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    expected = unpacked(name, source)
    if (pickled := source / "model.pth").exists():
        out.mkdir()
        assert run(["filter", str(pickled), "--dequantize", "-o", str(out / "model.pth")]) == 0
        assert_same(torch.load(out / "model.pth"), expected, zeros=False)
        return
    assert run(["filter", str(source), "--dequantize", "-o", str(out)]) == 0
    assert_same(load_file(out / "model.safetensors"), expected, zeros=name.startswith("modelopt"))
    config = json.loads((out / "config.json").read_text())
    assert not {"quantization_config", "quantization"} & config.keys()
    model, info = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True, dtype="auto")
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_same(dict(model.state_dict()), expected, zeros=name.startswith("modelopt"))
    assert model.eval()(torch.arange(12)[None]).logits.isfinite().all()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_decoded_is_refused_by_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every operation on values says what it is; the file is read, renamed and copied."""
    unpacked(name, tmp_path)
    source, out = str(tmp_path / "model.pth"), tmp_path / "out.pth"
    other = str(tmp_path / "other.pth")
    torch.save({key: torch.ones(tensor.shape).bfloat16() for key, tensor in ckptool.open(source).items()}, other)
    asked = {
        "filter": ["--dequantize"],
        "merge": [other, "--method", "linear"],
    }
    for command, arguments in asked.items():
        assert run([command, source, *arguments, "-o", str(out)]) == 2, command
        assert REFUSED[name] in capsys.readouterr().err
        assert not out.exists()
    assert run(["inspect", source]) == 0
    assert REFUSED[name].replace("'s", "") in capsys.readouterr().out
    assert run(["remap", source, "-r", "up_proj. -> down.", "--keep-unknown", "-o", str(out)]) == 0
    capsys.readouterr()
    assert run(["diff", str(out), source, "-r", "down. -> up_proj."]) == 1
    assert "> 1 renamed   = 2 identical" in capsys.readouterr().out


def test_a_torchao_file_keeps_its_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Renamed and dropped whole without decoding; compared as numbers with plain weights, as codes with its like."""
    unpacked("torchao_pickled_int8", tmp_path)
    source, plain, out = str(tmp_path / "model.pth"), str(tmp_path / "plain.pth"), str(tmp_path / "out.pth")
    assert run(["filter", source, "--dequantize", "-o", plain]) == 0
    assert run(["remap", source, "-r", "up_proj. -> up.", "--keep-unknown", "-o", out]) == 0
    capsys.readouterr()
    assert run(["diff", source, plain]) == 0
    assert "compared as decoded numbers" in " ".join(capsys.readouterr().out.split())
    assert run(["diff", out, source, "-r", "up. -> up_proj."]) == 1
    assert "> 1 renamed   = 2 identical" in capsys.readouterr().out
    assert run(["merge", source, plain, "--method", "linear", "-o", str(tmp_path / "merged.pth")]) == 2
    assert "decode them: --dequantize" in capsys.readouterr().err
    assert run(["check", source]) == 0


def test_a_cast_refuses_a_file_that_is_quantized_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No tensor is cast then, and the user asked for another dtype."""
    unpacked("torchao_pickled_int8", tmp_path)
    source, whole, out = (str(tmp_path / name) for name in ("model.pth", "whole.pth", "out.pth"))
    keep = [option for each in encoded_of(ckptool.open(source)) for option in ("--keep", each.codes.key)]
    assert run(["filter", source, *keep, "--keep-unknown", "-o", whole]) == 0
    for command in (["filter", whole], ["remap", whole, "-r", "up_proj. -> up."]):
        capsys.readouterr()
        assert run([*command, "--dtype", "f16", "--keep-unknown", "-o", out]) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert "3 quantized weights (torchao Int8Tensor" in told and "--dequantize" in told
        assert not Path(out).exists()
