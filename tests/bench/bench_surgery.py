"""How fast bytes go from file to file: ``python -m tests.bench.bench_surgery``.

The baseline is `cp` of the output's own bytes and `sync` of the copy, because ckptool flushes what it writes. Every run
begins without an output and with nothing left to flush, inputs in the page cache.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.files import make
from tests.bench.harness import Result, bench_folder, ckptool, measure, report, run_interleaved, script

COPY = """
import pathlib, shutil, subprocess, sys
source, target = sys.argv[1:]
subprocess.run(["cp", "-r", source, target], check=True)
files = [target] if pathlib.Path(target).is_file() else [str(path) for path in pathlib.Path(target).iterdir()]
subprocess.run(["sync", *files], check=True)
"""
NO_SYNC = 'import subprocess, sys; subprocess.run(["cp", *sys.argv[1:]], check=True)'
TORCH_SAFETENSORS = """
import sys, torch
from safetensors.torch import save_file
save_file({key: value.contiguous() for key, value in torch.load(sys.argv[1], weights_only=True).items()}, sys.argv[2])
"""
TORCH_RENAME = """
import sys, torch
state = torch.load(sys.argv[1], weights_only=True)
torch.save({key.replace("model.", "", 1): value for key, value in state.items()}, sys.argv[2])
"""
TORCH_CAST = """
import sys, torch
state = torch.load(sys.argv[1], weights_only=True)
torch.save({key: value.bfloat16() for key, value in state.items()}, sys.argv[2])
"""


def settle(*outputs: Path) -> None:
    """Remove outputs and let the disk come to rest."""
    for path in outputs:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    subprocess.run(["sync"], check=True)


def race(title: str, command: Sequence[str], target: Path, peer: Sequence[str] | None = None) -> dict[str, Result]:
    """A command that writes `target` against `cp` and `sync` of what it wrote."""
    original, copy = target.with_name(f"first-{target.name}"), target.with_name(f"copy-{target.name}")
    run = measure(command)
    if run.code:
        raise RuntimeError(run.output)
    target.rename(original)
    contenders = {"ckptool": command, "cp + sync": script(COPY, original, copy)}
    if peer is not None:
        contenders["torch"] = peer
    results = run_interleaved(contenders, rounds=5, before=lambda: settle(target, copy))
    report(title, results, "cp + sync")
    settle(target, copy, original)
    return results


def bench_copies(folder: Path) -> None:
    pth, tensors, shards = folder / "in.pth", folder / "in.safetensors", folder / "in-shards"
    make("zip", pth), make("safetensors", tensors), make("shards", shards)
    out = folder / "out.pth"
    race("filter: 1 GB pth -> pth", ckptool("filter", pth, "--drop", "*layernorm*", "-o", out), out)
    race(
        "remap: 1 GB pth -> pth",
        ckptool("remap", pth, "-r", "model. ->", "-o", out),
        out,
        script(TORCH_RENAME, pth, out),
    )
    race("1 GB safetensors -> pth", ckptool("filter", tensors, "-o", out), out)
    out = folder / "out.safetensors"
    race("1 GB pth -> safetensors", ckptool("filter", pth, "-o", out), out, script(TORCH_SAFETENSORS, pth, out))
    race("4 shards -> 1 GB safetensors", ckptool("filter", shards, "-o", out), out)
    out = folder / "out"
    race("1 GB safetensors -> 4 shards", ckptool("filter", tensors, "--max-shard", "260MB", "-o", out), out)
    for path in (pth, tensors):
        path.unlink()
    shutil.rmtree(shards)


WIDE = """
import sys, torch
noise = torch.Generator().manual_seed(0)
torch.save({str(i): torch.randn(1 << 20, int(sys.argv[2]), generator=noise) for i in range(32)}, sys.argv[1])
"""


def bench_cast(folder: Path) -> None:
    """Against `cp` of the input, without `sync`: arithmetic is allowed twice the time of moving the bytes."""
    source, out, copy = folder / "in.pth", folder / "out.pth", folder / "copy.pth"
    subprocess.run(script(WIDE, source, 8), check=True)
    contenders = {
        "ckptool": ckptool("filter", source, "--dtype", "bf16", "-o", out),
        "cp": script(NO_SYNC, source, copy),
        "torch": script(TORCH_CAST, source, out),
    }
    results = run_interleaved(contenders, rounds=5, before=lambda: settle(out, copy))
    report("filter --dtype bf16: 1 GB f32 -> 0.5 GB", results, "cp")
    settle(source, out, copy)


def bench_memory(folder: Path) -> None:
    """Peak memory for inputs of ever more bytes; the largest is a sparse file."""
    print("memory of copies and casts by input size")
    for width in (1, 4, 16):
        source, out = folder / "in.pth", folder / "out.safetensors"
        subprocess.run(script(WIDE, source, width), check=True)
        for options in ([], ["--dtype", "bf16"]):
            run = measure(ckptool("filter", source, *options, "-o", out), poll=True)
            if run.code:
                raise RuntimeError(run.output)
            kind = "cast" if options else "copy"
            size = source.stat().st_size / 1e9
            print(f"  {kind} {size:5.2f} GB: {run.peak_rss / 1e6:.0f} MB RSS, {run.peak_private / 1e6:.0f} MB private")
            settle(out)
        settle(source)


def main() -> None:
    which = sys.argv[1:] or ["copies", "cast", "memory"]
    with bench_folder() as folder:
        for name in which:
            {"copies": bench_copies, "cast": bench_cast, "memory": bench_memory}[name](folder)


if __name__ == "__main__":
    main()
