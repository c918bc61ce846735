"""What the ranks of a real training run save: a module of torch, spread over processes that speak gloo.

``save_all(folder, world)`` starts the processes; `KINDS` names the folders that they write. Beside each lies
``KIND.safetensors``, the whole tensors as torch itself gathers them (full_tensor, FULL_STATE_DICT), and for each layout
``LAYOUT.next.safetensors``, the weights after one more step.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn

LAYOUTS = ("fsdp2", "hsdp", "tensor_parallel", "columns", "fsdp1_sharded_tensor", "fsdp1_mesh", "fsdp1_hybrid", "ddp")
KINDS = tuple(
    f"{layout}-{form}"
    for layout, forms in (
        *((layout, ("files", "dcp", "dcp_names", "dcp_flat", "safetensors")) for layout in LAYOUTS[:4]),
        *((layout, ("files", "dcp")) for layout in LAYOUTS[4:7]),
        ("ddp", ("dcp", "dcp_names")),
        ("uneven", ("files", "dcp", "safetensors")),
    )
    for form in forms
)
BATCH = 6


class Net(nn.Module):
    """Sizes that no number of ranks divides, a parameter shorter than the ranks, buffers; no tied weights."""

    def __init__(self, *, norm: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.up = nn.Linear(8, 12)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.down = nn.Linear(12, 8)
        self.gate = nn.Parameter(torch.randn(3))
        self.head = nn.Linear(8, 10, bias=False)
        self.register_buffer("count", torch.tensor(5))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(
            self.down(torch.relu(self.up(self.norm(self.embed(ids))))) * (1 + self.gate.sum())
        )
        return found


def optimizer_of(model: nn.Module, *, two_groups: bool = False) -> torch.optim.Optimizer:
    """One group; or two, with weight decay and without."""
    if not two_groups:
        return torch.optim.AdamW(model.parameters(), lr=0.01)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=0.01
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: Iterable[int]) -> None:
    """The same batch on every rank, so that a single process does the same steps."""
    for number in steps:
        torch.manual_seed(number)
        ids = torch.randint(0, 10, (BATCH,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(ids), ids).backward()
        optimizer.step()


def save_all(folder: Path, world: int = 4) -> None:
    """Every kind of `KINDS`, by `world` processes; a multiple of 2."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_rank, (str(folder), world, port), nprocs=world)


def _rank(rank: int, folder: str, world: int, port: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    try:
        writer = _Writer(Path(folder), rank, world)
        for layout in LAYOUTS[:4]:
            writer.save_dtensors(layout)
        for layout in LAYOUTS[4:7]:
            writer.save_fsdp1(layout)
        writer.save_replicas()
        writer.save_uneven()
    finally:
        dist.destroy_process_group()


class _Writer:
    def __init__(self, folder: Path, rank: int, world: int) -> None:
        self.folder = folder
        self.rank = rank
        self.world = world

    def _mesh(self, *names: str) -> Any:
        shape = (self.world,) if len(names) == 1 else (2, self.world // 2)
        return dist.init_device_mesh("cpu", shape, mesh_dim_names=names)

    def _expect(self, name: str, tensors: Mapping[str, Any]) -> None:
        from safetensors.torch import save_file

        whole = {key: value.full_tensor() if hasattr(value, "full_tensor") else value for key, value in tensors.items()}
        if self.rank == 0:
            held = {key: value.detach().clone().contiguous() for key, value in whole.items()}
            save_file(held, self.folder / f"{name}.safetensors")

    def _files(self, kind: str, state: object) -> None:
        (self.folder / kind).mkdir(exist_ok=True)
        torch.save(state, self.folder / kind / f"model_world_size_{self.world}_rank_{self.rank}.pt")

    def _safetensors(self, kind: str, state: dict[str, Any]) -> None:
        numbers = {key: 1 + number % 2 for number, key in enumerate(state)}
        path = str(self.folder / kind)
        writer = dcp.HuggingFaceStorageWriter(path, save_distributed=True, fqn_to_index_mapping=numbers)
        dcp.save(dict(state), storage_writer=writer)

    def save_dtensors(self, layout: str) -> None:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import Shard
        from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

        torch.manual_seed(0)
        model = Net(norm=layout != "tensor_parallel")
        if layout == "tensor_parallel":
            mesh = self._mesh("dp", "tp")
            parallelize_module(model, mesh["tp"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
            fully_shard(model, mesh=mesh["dp"])
        elif layout == "hsdp":
            fully_shard(model, mesh=self._mesh("replicate", "shard"))
        elif layout == "columns":

            def place(parameter: nn.Parameter) -> Shard:
                return Shard(1) if parameter.dim() > 1 and parameter.shape[1] % self.world == 0 else Shard(0)

            fully_shard(model, mesh=self._mesh("dp"), shard_placement_fn=place)
        else:
            fully_shard(model, mesh=self._mesh("dp"))
        optimizer = optimizer_of(model)
        train(model, optimizer, (1, 2))
        state = model.state_dict()
        raw = {"model": state, "optimizer": optimizer.state_dict(), "step": 2}
        weights, names = get_state_dict(model, optimizer)
        flat = get_state_dict(model, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=True))[1]
        self._files(f"{layout}-files", raw)
        dcp.save(raw, checkpoint_id=self.folder / f"{layout}-dcp")
        dcp.save({"model": weights, "optimizer": names}, checkpoint_id=self.folder / f"{layout}-dcp_names")
        dcp.save({"model": weights, "optimizer": flat}, checkpoint_id=self.folder / f"{layout}-dcp_flat")
        self._safetensors(f"{layout}-safetensors", state)
        for form in ("files", "dcp", "dcp_names", "dcp_flat", "safetensors"):
            self._expect(f"{layout}-{form}", state)
        train(model, optimizer, (3,))
        self._expect(f"{layout}.next", model.state_dict())

    def save_fsdp1(self, layout: str) -> None:
        from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, StateDictType

        torch.manual_seed(0)
        meshes = {"fsdp1_mesh": ("dp",), "fsdp1_hybrid": ("replicate", "shard")}
        strategy = ShardingStrategy.HYBRID_SHARD if layout == "fsdp1_hybrid" else ShardingStrategy.FULL_SHARD
        mesh = self._mesh(*meshes[layout]) if layout in meshes else None
        model = FullyShardedDataParallel(
            Net(),
            sharding_strategy=strategy,
            device_mesh=mesh,
            use_orig_params=True,
            device_id=torch.device("cpu"),
        )
        optimizer = optimizer_of(model)
        train(model, optimizer, (1, 2))
        with FullyShardedDataParallel.state_dict_type(model, StateDictType.SHARDED_STATE_DICT):
            state = {"model": model.state_dict(), "optim": FullyShardedDataParallel.optim_state_dict(model, optimizer)}
            self._files(f"{layout}-files", state)
            dcp.save(state, checkpoint_id=self.folder / f"{layout}-dcp")
        with FullyShardedDataParallel.state_dict_type(model, StateDictType.FULL_STATE_DICT):
            for form in ("files", "dcp"):
                self._expect(f"{layout}-{form}", model.state_dict())
            train(model, optimizer, (3,))
            self._expect(f"{layout}.next", model.state_dict())

    def save_replicas(self) -> None:
        from torch.distributed.checkpoint.state_dict import get_state_dict

        torch.manual_seed(0)
        model = Net()
        wrapped = nn.parallel.DistributedDataParallel(model)
        optimizer = optimizer_of(wrapped, two_groups=True)
        train(wrapped, optimizer, (1, 2))
        raw = {"model": wrapped.state_dict(), "optimizer": optimizer.state_dict(), "step": 2}
        dcp.save(raw, checkpoint_id=self.folder / "ddp-dcp")
        self._expect("ddp-dcp", wrapped.state_dict())
        weights, names = get_state_dict(wrapped, optimizer)
        future: Any = dcp.async_save({"model": weights, "optim": names}, checkpoint_id=self.folder / "ddp-dcp_names")
        future.result()
        self._expect("ddp-dcp_names", model.state_dict())
        train(wrapped, optimizer, (3,))
        self._expect("ddp.next", model.state_dict())

    def save_uneven(self) -> None:
        """Tensors that a 2-D mesh cuts in every way, without a module."""
        from torch.distributed.tensor import Replicate, Shard, distribute_tensor

        torch.manual_seed(3)
        mesh = self._mesh("a", "b")
        ways = [
            (Shard(0), Shard(0)), (Shard(0), Shard(1)), (Shard(1), Shard(0)), (Replicate(), Shard(1)),
            (Shard(2), Replicate()), (Shard(2), Shard(2)), (Replicate(), Replicate()),
        ]  # fmt: skip
        state = {
            f"{number}.{'x'.join(map(str, shape))}": distribute_tensor(torch.randn(shape), mesh, way)
            for number, way in enumerate(ways)
            for shape in ((5, 7, 3), (1, 2, 6), (8, 4, 4))
        }
        self._files("uneven-files", state)
        dcp.save(dict(state), checkpoint_id=self.folder / "uneven-dcp")
        self._safetensors("uneven-safetensors", state)
        for form in ("files", "dcp", "safetensors"):
            self._expect(f"uneven-{form}", state)
