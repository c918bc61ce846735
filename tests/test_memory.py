"""Memory does not grow with the checkpoint. Measured on real processes; nothing here is timed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from conftest import FIXTURES

from tests.bench.files import write_key_shards, write_sparse
from tests.bench.harness import Measurement, ckptool, measure

MB = 1_000_000
INSPECT_LIMIT = 45 * MB
DIFF_LIMIT = 250 * MB


def run(*arguments: str | Path, code: int = 0) -> Measurement:
    measured = measure(ckptool(*arguments), poll=True)
    assert measured.code == code, measured.output
    return measured


def zip_of_holes(path: Path, nbytes: int) -> Path:
    """A torch zip of eight tensors whose data was never written: holes, as `skip_data` leaves them."""
    tensors = {f"layer.{number}.weight": torch.empty(nbytes // 32, device="meta") for number in range(8)}
    tensors = {key: torch.empty_like(tensor, device="cpu") for key, tensor in tensors.items()}
    with torch.serialization.skip_data():
        torch.save(tensors, path)
    return path


def safetensors_of_holes(path: Path, nbytes: int) -> Path:
    write_sparse(path, nbytes, tensors=8)
    return path


MAKERS = pytest.mark.parametrize("make", [zip_of_holes, safetensors_of_holes])


@MAKERS
def test_inspect_is_as_small_for_400_mb_as_for_nothing(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    small = run("inspect", FIXTURES / "tuned.safetensors")
    large = run("inspect", make(tmp_path / "large", 400 * MB))
    assert "400 MB" in large.output
    assert large.peak_rss < INSPECT_LIMIT
    assert large.peak_rss < small.peak_rss + 4 * MB


def test_inspect_of_a_terabyte_is_as_small(tmp_path: Path) -> None:
    large = run("inspect", safetensors_of_holes(tmp_path / "large", 10**12))
    assert "1.00 TB" in large.output
    assert large.peak_rss < INSPECT_LIMIT


@pytest.fixture(scope="module")
def of_many_keys(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of ten shards, by the number of their keys."""
    folder = tmp_path_factory.mktemp("keys")
    for keys in (3_000, 63_000):
        write_key_shards(folder / str(keys), keys, shards=10)
    return {keys: folder / str(keys) for keys in (3_000, 63_000)}


@pytest.mark.parametrize(
    ("command", "most"),
    [
        (["inspect"], 450),
        (["filter", "--drop", "*.experts.0.*"], 450),
        (["filter", "--keep", "*.experts.0.*"], 550),
        (["remap", "-r", "model.layers.{i}.{k**} -> layers.{i}.{k}"], 700),
        (["remap", "-r", "strip-wrappers", "-r", "{m**}.experts.7.{k**} -> !"], 700),
    ],
    ids=["inspect", "drop", "keep", "renamed", "recipe"],
)
def test_a_key_takes_so_many_bytes(command: list[str], most: int, of_many_keys: dict[int, Path]) -> None:
    """Headers and plans are columns; a plain object for each tensor and step took 1,400 and 1,800 bytes."""
    (few, many), peaks = of_many_keys, []
    for keys, folder in of_many_keys.items():
        measured = run(command[0], folder, *command[1:])
        assert f"{keys:,}" in measured.output or len(command) > 1
        peaks.append(measured.peak_private)
    assert (peaks[1] - peaks[0]) / (many - few) < most


@MAKERS
def test_diff_of_equal_files_holds_a_few_blocks(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    large = run("diff", make(tmp_path / "old", 400 * MB), make(tmp_path / "new", 400 * MB))
    assert large.peak_private < 100 * MB


def test_diff_of_files_that_differ_everywhere_holds_a_few_blocks(tmp_path: Path) -> None:
    """300 MB each, with numbers: both together would already be above the limit."""
    paths = [safetensors_of_holes(tmp_path / name, 300 * MB) for name in ("old", "new")]
    with paths[1].open("r+b") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        file.seek(start)
        for _ in range(300):
            file.write(b"\x80\x3f" * (MB // 2))
    large = run("diff", *paths, code=1)
    assert "changed" in large.output
    assert large.peak_private < DIFF_LIMIT


DEQUANTIZE_LIMIT = 80 * MB

QUANTIZED: dict[str, dict[str, tuple[str, list[int], int]]] = {
    "fp8": {"weight": ("F8_E4M3", [4096, 4096], 1), "weight_scale_inv": ("F32", [32, 32], 4)},
    "gptq": {
        "qweight": ("I32", [512, 4096], 4),
        "qzeros": ("I32", [32, 512], 4),
        "scales": ("F16", [32, 4096], 2),
        "g_idx": ("I32", [4096], 4),
    },
}


def quantized_of_holes(path: Path, scheme: str, layers: int) -> Path:
    """Layers of quantized zeros; their data was never written."""
    header, end = {}, 0
    for layer in range(layers):
        for name, (dtype, shape, itemsize) in QUANTIZED[scheme].items():
            nbytes = itemsize * math.prod(shape)
            header[f"l.{layer}.{name}"] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + nbytes]}
            end += nbytes
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


@pytest.mark.parametrize("scheme", QUANTIZED)
def test_dequantizing_takes_as_little(scheme: str, tmp_path: Path) -> None:
    source = quantized_of_holes(tmp_path / "in.safetensors", scheme, 3)
    measured = run("filter", source, "--dequantize", "-o", tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").stat().st_size > 3 * 2 * 4096**2
    assert measured.peak_private < DEQUANTIZE_LIMIT - 10 * MB
    assert measured.peak_rss < DEQUANTIZE_LIMIT + 10 * MB  # libraries' pages included


FP8_LAYER = {"weight": ("F8_E4M3", [4, 4], 16), "weight_scale": ("F32", [1], 4)}
PLAIN_LAYER = {"weight": ("F32", [4], 16)}


@pytest.mark.parametrize(
    ("layer", "options", "most"),
    [(FP8_LAYER, ["--dequantize"], 560), (PLAIN_LAYER, ["--dtype", "f16"], 630)],
    ids=["dequantize", "cast"],
)
def test_a_computed_tensor_takes_so_many_bytes(
    layer: dict[str, tuple[str, list[int], int]], options: list[str], most: int, tmp_path: Path
) -> None:
    """Its step, its slot and what is told of it; neither the header that is written nor what is read again is held."""
    few, many = 1_000, 24_000
    peaks = []
    for layers in (few, many):
        header, end = {}, 0
        for number in range(layers):
            for name, (dtype, shape, nbytes) in layer.items():
                header[f"l.{number}.{name}"] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + nbytes]}
                end += nbytes
        text = json.dumps(header).encode()
        path, out = tmp_path / f"{layers}.safetensors", tmp_path / f"{layers}-out.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
        peaks.append(run("filter", path, *options, "-o", out).peak_private)
        assert out.exists()
    assert (peaks[1] - peaks[0]) / (many - few) < most
