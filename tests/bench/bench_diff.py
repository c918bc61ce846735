"""How fast `ckptool diff` is: ``python -m tests.bench.bench_diff``.

Against equal files: numpy on two memory maps, plainly and in blocks that fit the cache. Against files that differ
everywhere: what one writes with torch, a loop over the tensors that computes the same three numbers.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.bench.files import make
from tests.bench.harness import bench_folder, ckptool, report, run_interleaved, script

MMAP_PLAIN = """
import sys, numpy as np
a, b = (np.memmap(path, mode="r") for path in sys.argv[1:])
print(np.array_equal(a, b))
"""
MMAP_BLOCKS = """
import sys, numpy as np
a, b = (np.memmap(path, mode="r") for path in sys.argv[1:])
print(all(np.array_equal(a[i:i + (1 << 20)], b[i:i + (1 << 20)]) for i in range(0, len(a), 1 << 20)))
"""
CMP = ["cmp"]
TORCH_LOOP = """
import sys, torch
if sys.argv[1].endswith(".safetensors"):
    from safetensors.torch import load_file
    old, new = (load_file(path) for path in sys.argv[1:3])
else:
    old, new = (torch.load(path, weights_only=True, mmap=len(sys.argv) > 3) for path in sys.argv[1:3])
for key, a in old.items():
    a, b = a.float().flatten(), new[key].float().flatten()
    d = b - a
    rel, most = d.norm() / a.norm(), d.abs().max()
    print(key, rel.item(), most.item(), torch.nn.functional.cosine_similarity(a, b, dim=0).item())
"""


def bench_equal(folder: Path) -> None:
    for kind in ("zip", "safetensors"):
        suffix = ".pth" if kind == "zip" else ".safetensors"
        a = make(kind, folder / f"a{suffix}")
        b = folder / f"b{suffix}"
        shutil.copyfile(a, b)
        contenders = {
            "ckptool diff": ckptool("diff", a, b),
            "mmap + numpy": script(MMAP_PLAIN, a, b),
            "mmap + numpy, in blocks": script(MMAP_BLOCKS, a, b),
            "cmp": [*CMP, str(a), str(b)],
        }
        report(f"diff, two equal files of 1 GB, {kind}", run_interleaved(contenders, rounds=7), "mmap + numpy")
        a.unlink(), b.unlink()


def bench_different(folder: Path) -> None:
    for kind in ("zip", "safetensors"):
        suffix = ".pth" if kind == "zip" else ".safetensors"
        a, b = (make(kind, folder / f"{seed}{suffix}", seed) for seed in (0, 1))
        contenders = {"ckptool diff": ckptool("diff", a, b), "torch, in a loop": script(TORCH_LOOP, a, b)}
        if kind == "zip":
            contenders["torch mmap, in a loop"] = script(TORCH_LOOP, a, b, "mmap")
        results = run_interleaved(contenders, rounds=3, codes=(0, 1))
        report(f"diff, two files of 1 GB that differ everywhere, {kind}", results, "torch, in a loop")
        a.unlink(), b.unlink()


def main() -> None:
    with bench_folder() as folder:
        bench_equal(folder)
        bench_different(folder)


if __name__ == "__main__":
    main()
