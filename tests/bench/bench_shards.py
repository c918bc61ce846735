"""How fast the files of ranks become one file: ``python -m tests.bench.bench_shards``.

The baseline is `cp` of the output's own bytes and `sync` of the copy. Beside it: torch's own consolidation for
torch.distributed folders, and for ZeRO-3 and DTensors the fewest lines of torch that give the same tensors, which is
what the scripts of DeepSpeed and verl come down to: load all, join, save. Where deepspeed is installed its own script,
zero_to_fp32, takes that place.

Measured with deepspeed 0.19.8, 0.5 GB of ZeRO-3 by 4 ranks, on 2 cores with much else to do: ckptool 1.0 s of processor
time and 35 MB, zero_to_fp32 5.5 s and 1.3 GB; equal tensors.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.bench.bench_surgery import race, settle
from tests.bench.harness import bench_folder, ckptool, measure, script

MAKE = """
import sys, torch
from collections import OrderedDict
from pathlib import Path
folder, kind, layers, world = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), 4
folder.mkdir()
noise = torch.Generator().manual_seed(0)
weights = OrderedDict((f"layers.{n}.weight", torch.randn(2048, 2048, generator=noise)) for n in range(layers))
if kind == "dcp":
    import torch.distributed.checkpoint as dcp
    dcp.save({"model": weights}, checkpoint_id=folder, no_dist=True)
elif kind == "zero3":
    head = {"buffer_names": [], "param_shapes": [OrderedDict((k, w.shape) for k, w in weights.items())],
            "shared_params": {}, "global_steps": 1, "dp_world_size": world}
    for rank in range(world):
        torch.save({"module": OrderedDict((k, torch.empty(0)) for k in weights), **head},
                   folder / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
        flat = torch.cat([w.reshape(-1).chunk(world)[rank] for w in weights.values()])
        state = {"zero_stage": 3, "partition_count": world, "fp32_flat_groups": [flat],
                 "optimizer_state_dict": {"state": {}, "param_groups": []}}
        torch.save({"optimizer_state_dict": state}, folder / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
else:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard
    from torch.testing._internal.distributed.fake_pg import FakeStore
    axis = int(kind[-1])
    for rank in range(world):
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
        mesh = init_device_mesh("cpu", (world,))
        torch.save({k: DTensor.from_local(w.chunk(world, axis)[rank].clone(), mesh, [Shard(axis)], run_check=False)
                    for k, w in weights.items()}, folder / f"model_rank_{rank}.pt")
        dist.destroy_process_group()
"""
TORCH = {
    "dcp": """
import sys
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
dcp_to_torch_save(sys.argv[1], sys.argv[2])
""",
    "zero3": """
import sys, torch
from math import prod
from pathlib import Path
folder = Path(sys.argv[1])
files = sorted(folder.glob("*optim_states.pt"))
flats = [torch.load(f, weights_only=True)["optimizer_state_dict"]["fp32_flat_groups"][0] for f in files]
shapes = torch.load(next(folder.glob("*model_states.pt")), weights_only=True)["param_shapes"][0]
state, at = {}, 0
for key, shape in shapes.items():
    share = -(-prod(shape) // len(flats))
    state[key] = torch.cat([flat[at : at + share] for flat in flats])[: prod(shape)].view(shape)
    at += share
torch.save(state, sys.argv[2])
""",
    "dtensor-0": """
import sys, torch
from pathlib import Path
files = sorted(Path(sys.argv[1]).glob("*.pt"))
parts = [torch.load(f, weights_only=False, mmap=True) for f in files]
axis = next(iter(parts[0].values())).placements[0].dim
torch.save({key: torch.cat([part[key]._local_tensor for part in parts], axis) for key in parts[0]}, sys.argv[2])
""",
}
TORCH["dtensor-1"] = TORCH["dtensor-0"]


def bench_kind(folder: Path, kind: str) -> None:
    source, out = folder / f"in-{kind}", folder / "out.pth"
    subprocess.run(script(MAKE, source, kind, "30"), check=True)
    command = ckptool("filter", source, "--only-weights", "-o", out)
    peer = script(TORCH[kind], source, out)
    if kind == "zero3" and (found := find_spec("deepspeed")) is not None and found.origin is not None:
        own = shutil.copy(Path(found.origin).parent / "utils" / "zero_to_fp32.py", folder)  # as DeepSpeed copies it
        peer = [sys.executable, own, str(folder), str(folder / "whole"), "--tag", source.name]
    race(f"{kind}: 0.5 GB, 4 ranks -> pth", command, out, peer)
    settle(source)


def bench_memory(folder: Path) -> None:
    """Peak memory for ever more bytes."""
    print("memory by size")
    for kind in TORCH:
        for layers in (8, 60):
            source, out = folder / "in", folder / "out.pth"
            subprocess.run(script(MAKE, source, kind, str(layers)), check=True)
            run = measure(ckptool("filter", source, "-o", out), poll=True)
            if run.code:
                raise RuntimeError(run.output)
            size = out.stat().st_size / 1e9
            print(f"  {kind} {size:5.2f} GB: {run.peak_rss / 1e6:.0f} MB RSS, {run.peak_private / 1e6:.0f} MB private")
            settle(source, out)


def main() -> None:
    with bench_folder() as folder:
        for kind in sys.argv[1:] or TORCH:
            bench_kind(folder, kind)
        bench_memory(folder)


if __name__ == "__main__":
    main()
