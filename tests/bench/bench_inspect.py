"""How fast `ckptool inspect` is, and `--help`: ``python -m tests.bench.bench_inspect``.

The contenders do the same job with what everybody has: `torch.load` (also with `mmap=True`, its fastest way), a bare
`zipfile` + restricted unpickler that lists the keys (the floor for torch files), and `safetensors.safe_open`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench.files import ROOT, make
from tests.bench.harness import bench_folder, ckptool, report, run_interleaved, script

LIST = "print(*((key, tuple(value.shape), value.dtype) for key, value in state.items()), sep='\\n')"
TORCH_LOAD = f"import sys, torch; state = torch.load(sys.argv[1], weights_only=True); {LIST}"
TORCH_MMAP = f"import sys, torch; state = torch.load(sys.argv[1], weights_only=True, mmap=True); {LIST}"
SAFE_OPEN = """
import sys, pathlib
from safetensors import safe_open
path = pathlib.Path(sys.argv[1])
for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
    with safe_open(file, "np") as tensors:
        for key in tensors.keys():
            view = tensors.get_slice(key)
            print(key, view.get_shape(), view.get_dtype())
"""
FLOOR = """
import collections, pickle, sys, zipfile
class Unpickler(pickle.Unpickler):
    def persistent_load(self, pid): return pid
    def find_class(self, module, name):
        if name == "OrderedDict": return collections.OrderedDict
        return (lambda *a: a) if name == "_rebuild_tensor_v2" else (module, name)
with zipfile.ZipFile(sys.argv[1]) as archive:
    name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
    for key, value in Unpickler(archive.open(name)).load().items():
        print(key, value[2], value[0][1])
"""


def bench_start() -> None:
    contenders = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "ckptool --version": ckptool("--version"),
        "ckptool --help": ckptool("--help"),
        "import torch": script("import torch"),
    }
    report("start", run_interleaved(contenders, rounds=7), baseline="python -c pass")


def bench_formats(folder: Path) -> None:
    """150 tensors, 0.99 GB; the last column of the issue's table is `private`."""
    for kind in ("zip", "legacy", "safetensors", "shards"):
        path = make(kind, folder / kind)
        contenders = {"ckptool inspect": ckptool("inspect", path)}
        if kind in ("zip", "legacy"):
            contenders["torch.load"] = script(TORCH_LOAD, path)
        if kind == "zip":
            contenders["torch.load mmap"] = script(TORCH_MMAP, path)
            contenders["zipfile + unpickler"] = script(FLOOR, path)
        if kind in ("safetensors", "shards"):
            contenders["safe_open"] = script(SAFE_OPEN, path)
        baseline = "torch.load" if "torch.load" in contenders else "safe_open"
        report(f"inspect, 1 GB, 150 tensors, {kind}", run_interleaved(contenders), baseline)
        remove(path)


def bench_many_keys(folder: Path) -> None:
    path = make("keys-zip", folder / "keys.pth")
    contenders = {
        "ckptool inspect": ckptool("inspect", path),
        "torch.load": script(TORCH_LOAD, path),
        "zipfile + unpickler": script(FLOOR, path),
    }
    report("inspect, 100,000 keys, zip", run_interleaved(contenders, rounds=3), baseline="torch.load")
    written = ckptool("filter", path, "-o", folder / "written.pth", "--force")
    report("filter -o, 100,000 keys, zip", run_interleaved({"ckptool": written}, rounds=3), baseline="ckptool")
    remove(folder / "written.pth")
    remove(path)
    path = make("keys-safetensors", folder / "keys.safetensors")
    contenders = {"ckptool inspect": ckptool("inspect", path), "safe_open": script(SAFE_OPEN, path)}
    report("inspect, 100,000 keys, safetensors", run_interleaved(contenders, rounds=3), baseline="safe_open")
    remove(path)
    path = make("keys-shards", folder / "keys-shards")
    contenders = {
        "ckptool inspect": ckptool("inspect", path),
        "ckptool filter, a plan": ckptool("filter", path, "--drop", "*.experts.0.*"),
        "ckptool remap, a plan": ckptool("remap", path, "-r", "model.layers.{i}.{k**} -> layers.{i}.{k}"),
        "ckptool diff": ckptool("diff", path, path, "--keys-only"),
        "safe_open": script(SAFE_OPEN, path),
    }
    report("500,000 keys in 200 shards", run_interleaved(contenders, rounds=3), baseline="safe_open")
    remove(path)


def bench_sparse(folder: Path) -> None:
    contenders = {
        "a small file": ckptool("inspect", ROOT / "fixtures" / "tuned.safetensors"),
        "a file of 1 TB": ckptool("inspect", make("sparse", folder / "sparse.safetensors")),
    }
    report("inspect, 1 TB, safetensors", run_interleaved(contenders), baseline="a small file")


def remove(path: Path) -> None:
    for file in path.iterdir() if path.is_dir() else [path]:
        file.unlink()


def main() -> None:
    bench_start()
    with bench_folder() as folder:
        bench_formats(folder)
        bench_many_keys(folder)
        bench_sparse(folder)


if __name__ == "__main__":
    main()
