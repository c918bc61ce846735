"""How fast encoded tensors become bfloat16: ``python -m tests.bench.bench_encodings [SCHEME ...]``.

``... groups`` measures the memory of ``filter --dequantize`` for more and more small tensors instead.

First the decoders, in this process, so that start-up is apart: ckptool on two threads (members are mapped files, blocks
are written as they come), the torch script that users of a scheme have (whole tensors in memory), `cp` of the output.
The rate by processor time does not depend on what else the machine does. Then whole commands, start-up included:
``ckptool filter --dequantize`` beside the torch script from file to file.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ckptool.core.arrays import numpy_dtype
from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import Encoded, Read
from ckptool.encodings.kernels import E2M1
from ckptool.encodings.registry import decode, recognise, row_step, settle
from ckptool.engine.decoded import ELEMENTS
from tests.bench.files import write_fp8_groups
from tests.bench.harness import Result, bench_folder, ckptool, measure, report, run_interleaved, script

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

ROWS, COLUMNS = 8192, 8192
LAYERS = 4  # such tensors in a file
LOGICAL = {"gpt-oss": "m.w"}
NF4 = np.linspace(-1, 1, 16, dtype=np.float32)


def parts(name: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """The stored tensors of a scheme, [8192, 8192], and its config."""
    rng = np.random.default_rng(0)

    def octets(*shape: int, most: int = 256) -> Array:
        return rng.integers(0, most, shape, dtype=np.uint8)

    def words(*shape: int) -> Array:
        return rng.integers(0, 256, (*shape[:-1], shape[-1] * 4), dtype=np.uint8).view("<i4")

    def halves(*shape: int) -> Array:
        return rng.random(shape, np.float32).astype(np.float16)

    groups = COLUMNS // 128
    fp8 = (octets(ROWS, COLUMNS, most=127) if "fp8" in name else octets(1)).view(numpy_dtype("float8_e4m3fn"))
    if name == "fp8 blocks":
        scale = rng.random((ROWS // 128, groups), np.float32)
        return {"m.weight": fp8, "m.weight_scale_inv": scale}, {"quant_method": "fp8", "weight_block_size": [128, 128]}
    if name == "fp8 channels":
        return {"m.weight": fp8, "m.weight_scale": rng.random((ROWS, 1), np.float32)}, {}
    if name == "mxfp4":
        exponents = octets(ROWS, COLUMNS // 32, most=250)
        return {"m.weight_packed": octets(ROWS, COLUMNS // 2), "m.weight_scale": exponents}, {}
    if name == "nvfp4":
        scale = octets(ROWS, COLUMNS // 16, most=120).view(numpy_dtype("float8_e4m3fn"))
        factor = np.array(0.01, np.float32)
        return {"m.weight": octets(ROWS, COLUMNS // 2), "m.weight_scale": scale, "m.weight_scale_2": factor}, {}
    if name == "gpt-oss":
        shape = (4, 2048, COLUMNS // 32)
        return {"m.w_blocks": octets(*shape, 16), "m.w_scales": octets(*shape, most=250)}, {}
    if name == "packed int4":
        shape = np.array([ROWS, COLUMNS], np.int64)
        return {
            "m.weight_packed": words(ROWS, COLUMNS // 8),
            "m.weight_scale": halves(ROWS, groups),
            "m.weight_shape": shape,
        }, {}
    if name in ("GPTQ", "GPTQ act-order"):
        order = np.arange(COLUMNS, dtype=np.int32) // 128
        zeros = np.full((groups, ROWS // 8), 0x66666666, np.int32)
        config = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": False}
        order = rng.permutation(order) if "order" in name else order
        return {
            "m.qweight": words(COLUMNS // 8, ROWS),
            "m.qzeros": zeros,
            "m.scales": halves(groups, ROWS),
            "m.g_idx": order,
        }, config
    if name == "AWQ":
        config = {"quant_method": "awq", "bits": 4, "group_size": 128}
        return {
            "m.qweight": words(COLUMNS, ROWS // 8),
            "m.qzeros": words(groups, ROWS // 8),
            "m.scales": halves(groups, ROWS),
        }, config
    if name == "nf4":
        state = f'{{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [{ROWS}, {COLUMNS}]}}'
        key, elements = "m.weight", ROWS * COLUMNS
        return {
            key: octets(elements // 2, 1),
            f"{key}.absmax": rng.random(elements // 64, np.float32),
            f"{key}.quant_map": NF4,
            f"{key}.quant_state.bitsandbytes__nf4": np.frombuffer(state.encode(), np.uint8),
        }, {}
    assert name == "MLX"
    config = {"group_size": 64, "bits": 4}
    scales = halves(ROWS, COLUMNS // 64)
    return {"m.weight": words(ROWS, COLUMNS // 8).view("<u4"), "m.scales": scales, "m.biases": scales}, config


def mapped(folder: Path, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays as mapped files."""
    found = {}
    for key, array in arrays.items():
        path = folder / key
        array.tofile(path)
        found[key] = np.memmap(path, array.dtype, "r", shape=array.shape)
    return found


def opened(arrays: Mapping[str, Array], config: dict[str, Any]) -> tuple[Encoded, Read]:
    """The only encoded tensor of the arrays, and a reader of its members."""
    specs = {key: TensorSpec(key, array.dtype.name, array.shape) for key, array in arrays.items()}
    (found,) = recognise(specs, {"quantization_config": config}, {})

    def read(role: str, /, *box: slice) -> Array:
        return np.asarray(arrays[found.members[role].key][box])

    return settle(found, read), read


def run_ckptool(arrays: Mapping[str, Array], config: dict[str, Any], out: Path) -> None:
    """Decodes in blocks, on two threads."""
    encoded, read = opened(arrays, config)
    bfloat16, width = numpy_dtype("bfloat16"), 2 * encoded.columns
    with out.open("wb") as file:

        def one(block: tuple[int, int]) -> None:
            os.pwrite(
                file.fileno(), decode(encoded, read, *block).astype(bfloat16).view(np.uint8).data, block[0] * width
            )

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
    state = tensors(arrays)
    result = TORCH[name](state)
    result.to(torch.bfloat16).contiguous().view(torch.uint8).numpy().tofile(out)


def _nibbles(octets: torch.Tensor, high_first: bool = False) -> torch.Tensor:
    both = (octets >> 4, octets & 15) if high_first else (octets & 15, octets >> 4)
    return torch.stack(both, dim=-1).flatten(-2)


def _fp8(state: dict[str, torch.Tensor]) -> torch.Tensor:
    scale = state["m.weight_scale_inv"].repeat_interleave(128, 0).repeat_interleave(128, 1)
    return state["m.weight"].float() * scale


def _mxfp4(state: dict[str, torch.Tensor]) -> torch.Tensor:
    values = torch.tensor(E2M1)[_nibbles(state["m.weight_packed"]).int()]
    return values * torch.exp2(state["m.weight_scale"].float() - 127).repeat_interleave(32, 1)


def _nvfp4(state: dict[str, torch.Tensor]) -> torch.Tensor:
    values = torch.tensor(E2M1)[_nibbles(state["m.weight"]).int()]
    return values * (state["m.weight_scale"].float() * state["m.weight_scale_2"]).repeat_interleave(16, 1)


def _gpt_oss(state: dict[str, torch.Tensor]) -> torch.Tensor:
    values = torch.tensor(E2M1)[_nibbles(state["m.w_blocks"]).int()]
    return torch.ldexp(values, state["m.w_scales"].int().unsqueeze(-1) - 127).flatten(2).transpose(1, 2)


def _packed(state: dict[str, torch.Tensor]) -> torch.Tensor:
    codes = _nibbles(state["m.weight_packed"].view(torch.uint8)).to(torch.int8) - 8
    return codes * state["m.weight_scale"].float().repeat_interleave(128, 1)


def _gptq(state: dict[str, torch.Tensor]) -> torch.Tensor:
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    codes = ((state["m.qweight"].unsqueeze(1) >> shifts[None, :, None]) & 15).to(torch.int8).flatten(0, 1)
    zeros = ((state["m.qzeros"].unsqueeze(2) >> shifts) & 15).to(torch.int8).flatten(1) + 1
    groups = state["m.g_idx"].long()
    return ((codes - zeros[groups]) * state["m.scales"].float()[groups]).T


def _awq(state: dict[str, torch.Tensor]) -> torch.Tensor:
    shifts = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7], dtype=torch.int32) * 4
    codes = ((state["m.qweight"].unsqueeze(2) >> shifts) & 15).to(torch.int8).flatten(1)
    zeros = ((state["m.qzeros"].unsqueeze(2) >> shifts) & 15).to(torch.int8).flatten(1)
    zeros, scales = zeros.repeat_interleave(128, 0), state["m.scales"].float().repeat_interleave(128, 0)
    return ((codes - zeros) * scales).T


def _nf4(state: dict[str, torch.Tensor]) -> torch.Tensor:
    values = state["m.weight.quant_map"][_nibbles(state["m.weight"].flatten(), True).int()]
    return (values.view(-1, 64) * state["m.weight.absmax"].view(-1, 1)).view(ROWS, COLUMNS)


def _mlx(state: dict[str, torch.Tensor]) -> torch.Tensor:
    codes = _nibbles(state["m.weight"].view(torch.uint8)).float().view(ROWS, -1, 64)
    return (codes * state["m.scales"].float().unsqueeze(-1) + state["m.biases"].float().unsqueeze(-1)).flatten(1)


TORCH: dict[str, Callable[[dict[str, torch.Tensor]], torch.Tensor]] = {
    "fp8 blocks": _fp8,
    "fp8 channels": lambda state: state["m.weight"].float() * state["m.weight_scale"],
    "mxfp4": _mxfp4,
    "nvfp4": _nvfp4,
    "gpt-oss": _gpt_oss,
    "packed int4": _packed,
    "GPTQ": _gptq,
    "GPTQ act-order": _gptq,
    "AWQ": _awq,
    "nf4": _nf4,
    "MLX": _mlx,
}


def bench(name: str, folder: Path) -> dict[str, Result]:
    """One scheme; its results are compared first, so that a wrong answer cannot win."""
    arrays, config = parts(name)
    arrays = mapped(folder, arrays)
    ours, theirs = folder / "ckptool.out", folder / "torch.out"
    run_ckptool(arrays, config, ours)
    run_torch(name, arrays, theirs)
    left, right = (np.fromfile(path, numpy_dtype("bfloat16")) for path in (ours, theirs))
    if not ((left == right) | (np.isnan(left) & np.isnan(right))).all():
        raise RuntimeError(f"{name}: ckptool and the torch script differ")
    contenders = {
        "ckptool": lambda: run_ckptool(arrays, config, ours),
        "torch script": lambda: run_torch(name, arrays, theirs),
        "cp of the output": lambda: shutil.copyfile(ours, folder / "copy.out"),
    }
    results = run_interleaved(contenders, rounds=5)
    elements = left.size
    report(f"{name}, {elements / 1e6:.0f} M elements to bf16", results, "ckptool")
    start = time.process_time()
    run_ckptool(arrays, config, ours)
    busy = (time.process_time() - start) / 2
    print(
        f"  ckptool {elements / results['ckptool'].best / 1e9:.2f} G elements/s, {elements / busy / 1e9:.2f} if alone"
    )
    bench_commands(name, folder, arrays, config)
    return results


def bench_commands(name: str, folder: Path, arrays: Mapping[str, Array], config: dict[str, Any]) -> None:
    """From file to file, each contender a process of its own."""
    source, ours, theirs = folder / "model", folder / "ckptool.safetensors", folder / "torch.safetensors"
    source.mkdir()
    stored = {f"{layer}.{key}": value for layer in range(LAYERS) for key, value in tensors(arrays).items()}
    save_file(stored, source / "model.safetensors", {"format": "pt"})
    del stored
    (source / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16", "quantization_config": config}))
    module = [sys.executable, "-m", "tests.bench.bench_encodings"]
    tiny = write_fp8_groups(folder / "tiny", 1)
    contenders = {
        "filter --dequantize": ckptool("filter", source, "--dequantize", "--force", "-q", "-o", ours),
        "its start-up": ckptool("filter", tiny, "--dequantize", "--force", "-q", "-o", folder / "tiny.safetensors"),
        "torch script": [*module, "--script", name, str(source / "model.safetensors"), str(theirs)],
        "cp of the output": ["cp", str(ours), str(folder / "copy.safetensors")],
        "cp and sync": ["sh", "-c", 'cp "$0" "$1" && sync "$1"', str(ours), str(folder / "copy.safetensors")],
        "read and written, no decoding": script(_FLOOR, source / "model.safetensors", ours, folder / "floor"),
    }
    results = run_interleaved(contenders, rounds=3)
    left, right = map(load_file, (ours, theirs))
    if not all(torch.equal(value, right[key]) for key, value in left.items()):
        raise RuntimeError(f"{name}: the files of ckptool and of the torch script differ")
    report(f"{name}, file to file", results, "filter --dequantize")
    spent = results["filter --dequantize"].best - results["its start-up"].best
    rate, copied = LAYERS * ROWS * COLUMNS / spent / 1e9, results["cp of the output"]
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
    state, made = load_file(source), {}
    for layer in range(LAYERS):
        own = {key.removeprefix(f"{layer}."): value for key, value in state.items() if key.startswith(f"{layer}.")}
        made[f"{layer}.{LOGICAL.get(name, 'm.weight')}"] = TORCH[name](own).to(torch.bfloat16).contiguous()
    save_file(made, out, {"format": "pt"})


def main() -> None:
    torch.set_num_threads(2)
    if sys.argv[1:2] == ["--script"]:
        run_script(*sys.argv[2:])
        return
    for name in sys.argv[1:] or (*TORCH, "groups"):
        with bench_folder() as folder:
            if name in TORCH:
                bench(name, folder)
            elif name == "groups":
                bench_groups(folder)


if __name__ == "__main__":
    main()
