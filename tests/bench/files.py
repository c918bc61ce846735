"""The big files of the benchmarks: ``python -m tests.bench.files KIND PATH [SEED]``.

`make(kind, path)` runs that line in a process of its own, so that whoever measures stays small. The values are normal
noise, the same for the same seed; `SEED 1` differs from `SEED 0` in nearly every element.

    zip, legacy, safetensors   150 bf16 tensors, 0.99 GB
    shards                     the same as a folder of four safetensors files with an index
    keys-zip, keys-safetensors 100,000 small tensors
    sparse                     a safetensors file of 1 TB that is one hole
    keys-shards                500,000 keys in 200 safetensors files and their index; the data is holes
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LAYERS, WIDTH, INNER = 15, 1536, 5120


def make(kind: str, path: Path, seed: int = 0) -> Path:
    """Write a big file (or, for "shards", a folder) and give back its path; the file is in the page cache."""
    subprocess.run([sys.executable, "-m", "tests.bench.files", kind, str(path), str(seed)], check=True, cwd=ROOT)
    return path


def layout() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the 150 tensors: 15 transformer layers of 10 tensors, 495.6M elements."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(LAYERS):
        layer = f"model.layers.{number}."
        for name in "qkvo":
            shapes[f"{layer}self_attn.{name}_proj.weight"] = (WIDTH, WIDTH)
        for name in ("gate", "up"):
            shapes[f"{layer}mlp.{name}_proj.weight"] = (INNER, WIDTH)
        shapes[f"{layer}mlp.down_proj.weight"] = (WIDTH, INNER)
        for name in ("input_layernorm", "post_attention_layernorm", "q_norm"):
            shapes[f"{layer}{name}.weight"] = (WIDTH,)
    return shapes


def big_tensors(seed: int) -> dict[str, Any]:
    import torch

    noise = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=noise).mul_(0.02).to(torch.bfloat16) for key, shape in layout().items()}


def many_tensors(seed: int) -> dict[str, Any]:
    import torch

    noise = torch.Generator().manual_seed(seed)
    values = torch.randn(100_000, 8, generator=noise)
    keys = (
        f"model.layers.{layer}.mlp.experts.{expert}.{name}"
        for layer in range(100)
        for expert in range(250)
        for name in ("gate.weight", "up.weight", "down.weight", "down.bias")
    )
    return {key: row.clone() for key, row in zip(keys, values, strict=True)}


def write_zip(tensors: dict[str, Any], path: Path) -> None:
    import torch

    torch.save(tensors, path)


def write_legacy(tensors: dict[str, Any], path: Path) -> None:
    import torch

    torch.save(tensors, path, _use_new_zipfile_serialization=False)


def write_safetensors(tensors: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"format": "pt"})


def write_shards(tensors: dict[str, Any], folder: Path) -> None:
    """Four safetensors files of whole tensors, and the index that transformers writes beside them."""
    folder.mkdir()
    keys = list(tensors)
    share = -(-len(keys) // 4)
    weight_map: dict[str, str] = {}
    for number in range(4):
        name = f"model-{number + 1:05}-of-00004.safetensors"
        part = {key: tensors[key] for key in keys[number * share : (number + 1) * share]}
        write_safetensors(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_sparse(path: Path, nbytes: int = 10**12, tensors: int = 150) -> None:
    """A safetensors file whose data is one hole: it takes no room on disk, and reading it would take for ever."""
    share = nbytes // tensors // 2
    header = {
        f"model.layers.{number}.weight": {
            "dtype": "BF16",
            "shape": [share],
            "data_offsets": [2 * share * number, 2 * share * (number + 1)],
        }
        for number in range(tensors)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 2 * share * tensors)


def write_fp8_groups(folder: Path, groups: int, shards: int = 1) -> Path:
    """A folder of shards whose header has so many small fp8 weights with scales; their data is a hole."""
    folder.mkdir(parents=True)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        header: dict[str, object] = {}
        end = 0
        for group in range(shard, groups, shards):
            expert = f"model.layers.{group // 768}.mlp.experts.{group // 3 % 256}"
            module = f"{expert}.{('gate', 'up', 'down')[group % 3]}_proj"
            forms = [("weight", "F8_E4M3", [8, 8], 64), ("weight_scale_inv", "F32", [1, 1], 4)]
            for last, dtype, shape, nbytes in forms:
                key = f"{module}.{last}"
                header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + nbytes]}
                end += nbytes
                weight_map[key] = name
        text = json.dumps(header).encode()
        with (folder / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (folder / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16", "quantization_config": config}))
    return folder


def write_key_shards(folder: Path, keys: int = 500_000, shards: int = 200) -> None:
    """Shards of very many small tensors, experts as large models have them, and the index; the data is holes."""
    folder.mkdir()
    projections = {"down_proj": [64, 32], "gate_proj": [32, 64], "up_proj": [32, 64]}
    experts = [f"model.layers.{n // 2700}.mlp.experts.{n % 2700}" for n in range(-(-keys // len(projections)))]
    named = [(f"{expert}.{name}.weight", shape) for expert in experts for name, shape in projections.items()][:keys]
    weight_map: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = named[number * keys // shards : (number + 1) * keys // shards]
        header = {
            key: {"dtype": "BF16", "shape": shape, "data_offsets": [4096 * at, 4096 * (at + 1)]}
            for at, (key, shape) in enumerate(part)
        }
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as shard:
            shard.write(len(text).to_bytes(8, "little") + text)
            shard.truncate(8 + len(text) + 4096 * len(part))
        weight_map |= dict.fromkeys(header, file)
    index = {"metadata": {"total_size": 4096 * keys}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


WRITERS: dict[str, tuple[Callable[[int], dict[str, Any]], Callable[[dict[str, Any], Path], None]]] = {
    "zip": (big_tensors, write_zip),
    "legacy": (big_tensors, write_legacy),
    "safetensors": (big_tensors, write_safetensors),
    "shards": (big_tensors, write_shards),
    "keys-zip": (many_tensors, write_zip),
    "keys-safetensors": (many_tensors, write_safetensors),
}


def main(kind: str, path: Path, seed: int) -> None:
    if kind == "sparse":
        write_sparse(path)
    elif kind == "keys-shards":
        write_key_shards(path)
    else:
        tensors, write = WRITERS[kind]
        write(tensors(seed), path)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
