"""How fast encoded tensors become bfloat16: ``python -m tests.bench.bench_encodings [--decoders] [SCHEME ...]``.

The schemes, and those of GGUF's types (``GGUF Q4_K``), are in `encoded.py`. ``... groups`` measures the memory of
``filter --dequantize`` for more and more small tensors instead.

First the decoders, in this process, so that start-up is apart: ckptool on two threads (members are mapped files, blocks
are written as they come), the torch script that users of a scheme have (whole tensors in memory), `cp` of the output.
The rate by processor time does not depend on what else the machine does. Then whole commands, start-up included:
``ckptool filter --dequantize`` beside the torch script from file to file; `--decoders` leaves these out. Where
CKPTOOL_BENCH_DIR is a tmpfs, they do not wait for a disk.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ckptool.core.arrays import numpy_dtype
from ckptool.core.casting import cast
from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import Encoded, Read
from ckptool.encodings.registry import decode, recognise, row_step, settle
from ckptool.engine.decoded import ELEMENTS
from ckptool.engine.evaluate import keep_freed_memory
from tests.bench.encoded import SCHEMES, Stored, gguf_type
from tests.bench.files import write_fp8_groups
from tests.bench.harness import bench_folder, ckptool, measure, report, run_interleaved, script

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

LAYERS = 4  # such tensors in a file


def mapped(folder: Path, stored: Stored) -> Stored:
    """The arrays as mapped files."""
    found = {}
    for key, array in stored.arrays.items():
        path = folder / key
        array.tofile(path)
        found[key] = np.memmap(path, array.dtype, "r", shape=array.shape)
    return replace(stored, arrays=found)


def opened(stored: Stored) -> tuple[Encoded, Read]:
    """The only encoded tensor of the arrays, and a reader of its members."""
    forms = {key: (array.dtype.name, array.shape) for key, array in stored.arrays.items()} | stored.dtypes
    specs = {key: TensorSpec(key, *form) for key, form in forms.items()}
    (found,) = recognise(specs, {"quantization_config": stored.config}, stored.metadata)

    def read(role: str, /, *box: slice) -> Array:
        return np.asarray(stored.arrays[found.members[role].key][box])

    return settle(found, read), read


def run_ckptool(stored: Stored, out: Path) -> None:
    """Decodes in blocks, on two threads."""
    encoded, read = opened(stored)
    width = 2 * encoded.columns
    with out.open("wb") as file:

        def one(block: tuple[int, int]) -> None:
            values = cast(decode(encoded, read, *block), "bfloat16")
            os.pwrite(file.fileno(), values.view(np.uint8).data, block[0] * width)

        with ThreadPoolExecutor(2) as pool:
            step = row_step(encoded, ELEMENTS, ELEMENTS)  # as `filter --dequantize` does
            list(pool.map(one, [(row, min(row + step, encoded.rows)) for row in range(0, encoded.rows, step)]))


def tensors(arrays: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """The arrays read into memory, as torch tensors."""
    found = {}
    for key, array in arrays.items():
        raw = torch.from_numpy(np.array(array).reshape(-1).view(np.uint8))
        found[key] = raw.view(getattr(torch, array.dtype.name)).reshape(array.shape)
    return found


def run_torch(name: str, arrays: Mapping[str, Array], out: Path) -> None:
    """What scripts do: whole tensors, scales repeated."""
    result = SCHEMES[name][1](tensors(arrays))
    result.to(torch.bfloat16).contiguous().view(torch.uint8).numpy().tofile(out)


def bench(name: str, folder: Path, with_commands: bool) -> None:
    """One scheme; its results are compared first, so that a wrong answer cannot win."""
    stored = mapped(folder, SCHEMES[name][0]())
    ours, theirs = folder / "ckptool.out", folder / "torch.out"
    run_ckptool(stored, ours)
    run_torch(name, stored.arrays, theirs)
    left, right = (np.fromfile(path, numpy_dtype("bfloat16")) for path in (ours, theirs))
    if not ((left == right) | (np.isnan(left) & np.isnan(right))).all():
        raise RuntimeError(f"{name}: ckptool and the torch script differ")
    contenders = {
        "ckptool": lambda: run_ckptool(stored, ours),
        "torch script": lambda: run_torch(name, stored.arrays, theirs),
        "cp of the output": lambda: shutil.copyfile(ours, folder / "copy.out"),
    }
    results = run_interleaved(contenders, rounds=3)
    elements = left.size
    report(f"{name}, {elements / 1e6:.0f} M elements to bf16", results, "ckptool")
    start = time.process_time()
    run_ckptool(stored, ours)
    busy = (time.process_time() - start) / 2
    best, script = results["ckptool"].best, results["torch script"].best
    print(
        f"  ckptool {elements / best / 1e9:.2f} G elements/s, {elements / busy / 1e9:.2f} if alone; "
        f"the script {elements / script / 1e9:.2f}",
        flush=True,
    )
    if with_commands:
        bench_commands(name, folder, stored)


def write_model(folder: Path, stored: Stored) -> Path:
    """A model of some such tensors, as the scheme's writer stores it."""
    folder.mkdir()
    if stored.dtypes:
        ((key, (dtype, _)),) = stored.dtypes.items()
        writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
        for layer in range(LAYERS):
            kind = gguf_type(dtype.removeprefix("gguf_"))
            writer.add_tensor(f"{layer}.{key}", np.asarray(stored.arrays[key]), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return folder / "model.gguf"
    state = {f"{layer}.{key}": value for layer in range(LAYERS) for key, value in tensors(stored.arrays).items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16", "quantization_config": stored.config}))
    return folder / "model.safetensors"


def bench_commands(name: str, folder: Path, stored: Stored) -> None:
    """From file to file, each contender a process of its own."""
    source, ours, theirs = write_model(folder / "model", stored), folder / "ckptool.safetensors", folder / "torch.st"
    module = [sys.executable, "-m", "tests.bench.bench_encodings"]
    tiny = write_fp8_groups(folder / "tiny", 1)
    contenders = {
        "filter --dequantize": ckptool("filter", source, "--dequantize", "--force", "-q", "-o", ours),
        "its start-up": ckptool("filter", tiny, "--dequantize", "--force", "-q", "-o", folder / "tiny.safetensors"),
        "torch script": [*module, "--script", name, str(source), str(theirs)],
        "cp of the output": ["cp", str(ours), str(folder / "copy.safetensors")],
        "cp and sync": ["sh", "-c", 'cp "$0" "$1" && sync "$1"', str(ours), str(folder / "copy.safetensors")],
        "read and written, no decoding": script(_FLOOR, source, ours, folder / "floor"),
    }
    results = run_interleaved(contenders, rounds=3)
    left, right = map(load_file, (ours, theirs))
    if not all(torch.equal(value, right[key]) for key, value in left.items()):
        raise RuntimeError(f"{name}: the files of ckptool and of the torch script differ")
    report(f"{name}, file to file", results, "filter --dequantize")
    elements = sum(value.numel() for value in left.values())
    spent = results["filter --dequantize"].best - results["its start-up"].best
    rate, copied = elements / spent / 1e9, results["cp of the output"]
    ratio, synced = spent / copied.median, spent / results["cp and sync"].median
    print(f"  start-up apart: {rate:.2f} G elements/s, {ratio:.1f} x cp of the output, {synced:.1f} x cp and sync")


_FLOOR = """
import os, sys
with open(sys.argv[1], "rb") as source, open(sys.argv[3], "wb") as out:
    left, buffer = os.path.getsize(sys.argv[2]), bytearray(1 << 20)
    while source.readinto(buffer):
        pass
    while left > 0:
        left -= out.write(buffer[:left])
"""


def bench_groups(folder: Path) -> None:
    """Private memory of the whole command, for so many fp8 tensors in five shards, and what one more of them takes."""
    few = 0
    for groups in (1_000, 20_000, 100_000):
        source, out = write_fp8_groups(folder / str(groups), groups, shards=5), folder / "out"
        peak = measure(ckptool("filter", source, "--dequantize", "-q", "-o", out), poll=True).peak_private
        few = few or peak
        each = f"   {(peak - few) / (groups - 1_000):,.0f} bytes each" if peak > few else ""
        print(f"  {groups:>7,} groups   {peak / 1e6:6.1f} MB private{each}", flush=True)
        shutil.rmtree(out)


def run_script(name: str, source: str, out: str) -> None:
    """The torch script from file to file."""
    made = {}
    if source.endswith(".gguf"):
        state = {tensor.name: torch.from_numpy(tensor.data) for tensor in gguf.GGUFReader(source).tensors}
    else:
        state = load_file(source)
    for layer in range(LAYERS):
        own = {key.removeprefix(f"{layer}."): value for key, value in state.items() if key.startswith(f"{layer}.")}
        logical = "m.w" if name == "gpt-oss" else "m.weight"
        made[f"{layer}.{logical}"] = SCHEMES[name][1](own).to(torch.bfloat16).contiguous()
    save_file(made, out, {"format": "pt"})


def main() -> None:
    torch.set_num_threads(2)
    keep_freed_memory()  # as `filter --dequantize` does; the scripts have it, too
    arguments = sys.argv[1:]
    if arguments[:1] == ["--script"]:
        run_script(*arguments[1:])
        return
    names = [name for name in arguments if name != "--decoders"] or [*SCHEMES, "groups"]
    for name in names:
        with bench_folder() as folder:
            if name == "groups":
                bench_groups(folder)
            else:  # a torchao file describes each of its tensors, which these are not
                bench(name, folder, "--decoders" not in arguments and "torchao" not in name)


if __name__ == "__main__":
    main()
