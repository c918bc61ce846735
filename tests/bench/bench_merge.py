"""How fast `ckptool merge` is: ``python -m tests.bench.bench_merge``.

A linear merge of two files of 1 GB in bf16 against what one writes with torch: load both, add, save. Its result is
checked against torch's. The other methods are timed against the linear merge.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bench.files import make
from tests.bench.harness import Contender, bench_folder, ckptool, report, run_interleaved, script

TORCH = """
import sys, torch
first, second, out = sys.argv[1:]
if first.endswith(".safetensors"):
    from safetensors.torch import load_file as load, save_file as save
else:
    load, save = torch.load, torch.save
a, b = load(first), load(second)
save({key: (0.5 * tensor.float() + 0.5 * b[key].float()).to(tensor.dtype) for key, tensor in a.items()}, out)
"""
TORCH_SAME_DTYPE = TORCH.replace(".float()", "")
SAME = """
import sys, torch
from safetensors.torch import load_file
load = load_file if sys.argv[1].endswith(".safetensors") else torch.load
a, b = map(load, sys.argv[1:])
assert list(a) == list(b) and all(torch.equal(tensor, b[key]) for key, tensor in a.items())
"""


def bench_linear(folder: Path) -> None:
    for kind, suffix in (("safetensors", ".safetensors"), ("zip", ".pth")):
        first, second = (make(kind, folder / f"{seed}{suffix}", seed) for seed in (0, 1))
        ours, theirs, narrow = (folder / f"{name}{suffix}" for name in ("ours", "theirs", "narrow"))
        contenders: dict[str, Contender] = {
            "ckptool merge": ckptool("merge", first, second, "--method", "linear", "-o", ours, "--force", "-q"),
            "torch: load, add in f32, save": script(TORCH, first, second, theirs),
            "torch: load, add in bf16, save": script(TORCH_SAME_DTYPE, first, second, narrow),
        }
        results = run_interleaved(contenders, rounds=3)
        subprocess.run([sys.executable, "-c", SAME, ours, theirs], check=True)
        report(f"linear merge of two files of 1 GB, {kind}", results, "ckptool merge")
        for path in (first, second, ours, theirs, narrow):
            path.unlink()


def bench_methods(folder: Path) -> None:
    base, first, second = (make("safetensors", folder / f"{seed}.safetensors", seed) for seed in range(3))
    out = folder / "out.safetensors"
    options: dict[str, list[str]] = {
        "linear": [],
        "slerp": [],
        "karcher": [],
        "task-arithmetic": ["--base", str(base)],
        "ties": ["--base", str(base)],
        "dare-linear": ["--base", str(base)],
        "breadcrumbs": ["--base", str(base)],
        "model-stock": ["--base", str(base)],
    }
    contenders: dict[str, Contender] = {
        name: ckptool("merge", first, second, "--method", name, *given, "-o", out, "--force", "-q")
        for name, given in options.items()
    }
    report("merge methods, two models of 1 GB", run_interleaved(contenders, rounds=1), "linear")


def main() -> None:
    with bench_folder() as folder:
        bench_linear(folder)
        bench_methods(folder)


if __name__ == "__main__":
    main()
