"""A model's own init, for the entries that no source fills."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from ckptool.core.errors import CkptError, UsageError
from ckptool.models.target import Target

if TYPE_CHECKING:
    import torch


def initial_state(target: Target, keys: Collection[str], seed: int) -> dict[str, torch.Tensor]:
    """What the model's own init gives these keys, on the CPU: it is built there once more.

    Args:
        target: the model. One that is live and not made here gives the values it has, whatever the seed.
        keys: the entries wanted.
        seed: of torch, numpy and random while it is built. The same seed gives the same bytes.

    Returns:
        A tensor for each key, in the order of the model. Tied keys get one and the same tensor.

    Raises:
        CkptError: the target is a checkpoint or has no such key, or its tensors have no data.

    Example:
        >>> from ckptool.models import open_target
        >>> target = open_target("torch.nn:Linear", {"in_features": 4, "out_features": 2})
        >>> target.device, initial_state(target, ["bias"], seed=1)["bias"].shape
        ('meta', torch.Size([2]))
    """
    if not keys:
        return {}
    unknown = [key for key in keys if key not in target.specs]
    if unknown:
        raise UsageError(f"{target.name} has no {unknown[0]}", key=unknown[0])
    if target.module is None:
        raise CkptError(
            f"{target.name} is a checkpoint: it has values and no init",
            hint="name the model's code, give an init in a recipe, or write only what is loaded",
        )
    import torch

    module = target.build(seed) if target.build is not None else target.module
    assert isinstance(module, torch.nn.Module)
    copies: dict[int, torch.Tensor] = {}
    values: dict[str, torch.Tensor] = {}
    wanted = set(keys)
    for key, tensor in module.state_dict(keep_vars=True).items():
        if key not in wanted:
            continue
        if tensor.device.type == "meta":
            raise CkptError(f"{key} of {target.name} has no data: it is on the meta device", key=key)
        if id(tensor) not in copies:
            value = tensor.detach().cpu()
            copies[id(tensor)] = value if target.build else value.clone()  # a live model goes on changing its own
        values[key] = copies[id(tensor)]
    return values
