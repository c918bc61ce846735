"""Writes what DeepSpeed's ranks write, by the rules of its files, from a model and an optimizer of plain torch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

STATES = ("exp_avg", "exp_avg_sq")


class Tiny(nn.Module):
    """Mixed kinds of parameters: tied, frozen or not, with buffers, sizes that no number of ranks divides."""

    def __init__(self, *, frozen: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.body = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 3, bias=False))
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.out = nn.Linear(3, 7, bias=False)
        self.out.weight = self.embed.weight
        self.body[0].weight.requires_grad_(not frozen)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.out(self.body(self.embed(ids)) * self.scale)
        return found


def groups_of(model: nn.Module) -> list[dict[str, nn.Parameter]]:
    """Two groups, as trainers make them: with weight decay and without."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    decayed = {name: p for name, p in named.items() if p.dim() > 1}
    return [decayed, {name: p for name, p in named.items() if name not in decayed}]


def optimizer_of(model: nn.Module) -> torch.optim.AdamW:
    first, second = groups_of(model)
    return torch.optim.AdamW(
        [{"params": list(first.values()), "weight_decay": 0.1}, {"params": list(second.values()), "weight_decay": 0.0}],
        lr=0.01,
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
    torch.manual_seed(seed)
    for _ in range(steps):
        ids = torch.randint(0, 7, (6,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(ids), ids).backward()
        optimizer.step()


def trained(*, frozen: bool = False, steps: int = 3) -> tuple[Tiny, torch.optim.AdamW]:
    torch.manual_seed(1)
    model = Tiny(frozen=frozen)
    optimizer = optimizer_of(model)
    train(model, optimizer, steps, seed=2)
    return model, optimizer


def padded(flat: torch.Tensor, unit: int) -> torch.Tensor:
    return torch.cat([flat, flat.new_zeros(-flat.numel() % unit)])


def save_zero(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, stage: int, world: int, prefix: str = "bf16_"
) -> Path:
    """One DeepSpeed checkpoint of a stage of ZeRO."""
    folder.mkdir(parents=True)
    groups = groups_of(model)
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    module = model.state_dict()
    shared = {"out.weight": "embed.weight"} if "out.weight" in module else {}
    head = {
        "buffer_names": [name for name, _ in model.named_buffers()],
        "param_shapes": [OrderedDict((name, p.shape) for name, p in group.items()) for group in groups],
        "frozen_param_shapes": OrderedDict((name, p.shape) for name, p in frozen.items()),
        "shared_params": shared,
        "optimizer": None,
        "global_steps": 3,
        "dp_world_size": world,
        "ds_version": "0.19.8",
        "epoch": 5,
    }
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for rank in range(world if stage == 3 else 1):
        if stage == 3:
            held = OrderedDict((k, torch.empty(0) if k in parameters else v) for k, v in module.items())
            parts = OrderedDict((name, share(p.detach(), rank, world)) for name, p in frozen.items())
            name = f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt"
            own = {**head, "shared_params": shared if rank == 0 else {}}
        else:
            held = OrderedDict((k, v.bfloat16() if k in parameters else v) for k, v in module.items())
            parts = OrderedDict((name, p.detach().bfloat16()) for name, p in frozen.items())
            name, own = "mp_rank_00_model_states.pt", head
        torch.save({"module": held, **own, "frozen_param_fragments": parts}, folder / name)
    for rank in range(world):
        state = partition(groups, optimizer, stage, rank, world)
        name = f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        torch.save({"optimizer_state_dict": state, "ds_version": "0.19.8"}, folder / name)
    return folder


def share(tensor: torch.Tensor, rank: int, world: int) -> torch.Tensor:
    """Stage 3's part of one parameter."""
    return padded(tensor.reshape(-1), world).chunk(world)[rank].clone()


def partition(
    groups: Sequence[dict[str, nn.Parameter]], optimizer: torch.optim.Optimizer, stage: int, rank: int, world: int
) -> dict[str, Any]:
    """One rank's optimizer state."""
    options = [{**g, "params": [number]} for number, g in enumerate(optimizer.state_dict()["param_groups"])]
    states, masters, paddings = {}, [], []
    for number, group in enumerate(groups):
        values = {"": [p.detach() for p in group.values()]}
        values |= {name: [optimizer.state[p][name] for p in group.values()] for name in STATES}
        step = optimizer.state[next(iter(group.values()))]["step"].clone()
        if stage == 3:
            flat = {name: torch.cat([share(t, rank, world) for t in each]) for name, each in values.items()}
            padding = 0
        else:
            lines = {name: torch.cat([t.reshape(-1) for t in each]) for name, each in values.items()}
            flat = {name: padded(line, 2 * world).chunk(world)[rank].clone() for name, line in lines.items()}
            whole, size = lines[""].numel(), flat[""].numel()
            padding = max(0, min(size, (rank + 1) * size - whole))
        masters.append(flat[""][: flat[""].numel() - padding] if stage != 3 else flat[""])
        paddings.append(padding)
        states[number] = {"step": step, **{name: flat[name] for name in STATES}}
    base = {"state": states, "param_groups": options}
    if stage == 3:
        return {
            "zero_stage": 3,
            "partition_count": world,
            "optimizer_state_dict": base,
            "fp32_flat_groups": masters,
        }
    return {
        "zero_stage": stage,
        "partition_count": [world] * len(groups),
        "group_paddings": paddings,
        "base_optimizer_state": base,
        "single_partition_of_fp32_groups": masters,
    }
