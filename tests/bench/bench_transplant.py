"""How fast transplants are: ``python -m tests.bench.bench_transplant``.

`ckptool transplant` into torchvision's resnet50 with another number of classes, everything included, against the ten
lines of torch that people write for it; and `load_into` against `torch.load` with `load_state_dict`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bench.harness import bench_folder, ckptool, report, run_interleaved, script

# torchvision beside a torch for which its compiled operators were not built: see tests/conftest.py
TORCHVISION = """
import sys, torch
try:
    import torchvision
except RuntimeError:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision
"""
MAKE = (
    TORCHVISION
    + """
torch.save(torchvision.models.resnet50().state_dict(), sys.argv[1])
"""
)
TEN_LINES = (
    TORCHVISION
    + """
torch.manual_seed(0)
model = torchvision.models.resnet50(num_classes=751)
own = model.state_dict()
state = torch.load(sys.argv[1], weights_only=True)
fits = {key: tensor for key, tensor in state.items() if key in own and own[key].shape == tensor.shape}
print(len(fits), "of", len(own), [key for key in own if key not in fits])
own.update(fits)
model.load_state_dict(own)
torch.save(model.state_dict(), sys.argv[2])
"""
)
LOAD = (
    TORCHVISION
    + """
import time, ckptool
torch.manual_seed(0)
model = torchvision.models.resnet50()
def ours():
    ckptool.load_into(model, sys.argv[1])
def theirs():
    model.load_state_dict(torch.load(sys.argv[1], weights_only=True))
def mapped():
    model.load_state_dict(torch.load(sys.argv[1], weights_only=True, mmap=True))
times = {
    "ckptool.load_into": (ours, []),
    "torch.load + load_state_dict": (theirs, []),
    "the same, mmap=True": (mapped, []),
}
for number in range(15):
    for call, found in list(times.values())[:: 1 if number % 2 else -1]:
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
for name, (_, found) in times.items():
    print(f"  {name:<30} best {1000 * min(found):6.1f} ms, median {1000 * sorted(found)[7]:6.1f} ms")
"""
)


def bench_file(source: Path, folder: Path) -> None:
    into = ("--into", "torchvision:resnet50", "--model-arg", "num_classes=751")
    out = folder / "out.pth"
    contenders = {
        "ckptool transplant": ckptool("transplant", source, *into, "-o", out, "--force"),
        "ten lines of torch": script(TEN_LINES, source, folder / "ten.pth"),
    }
    title = "transplant, ResNet-50 into 751 classes, start and imports included"
    report(title, run_interleaved(contenders, rounds=7), "ten lines of torch")
    preview = {"ckptool transplant, no -o": ckptool("transplant", source, *into), **contenders}
    del preview["ckptool transplant"]
    report("the report alone", run_interleaved(preview, rounds=5), "ten lines of torch")


def bench_load(source: Path) -> None:
    print("into a live ResNet-50, in one process", flush=True)
    print(subprocess.run([sys.executable, "-c", LOAD, str(source)], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    with bench_folder() as folder:
        source = folder / "resnet50.pth"
        subprocess.run([sys.executable, "-c", MAKE, str(source)], check=True)
        bench_file(source, folder)
        bench_load(source)


if __name__ == "__main__":
    main()
