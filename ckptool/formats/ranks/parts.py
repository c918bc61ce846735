"""Distributed tensors in a torch file: which of them are whole, and which are one rank's part."""

from __future__ import annotations

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.tensor import Tensor
from ckptool.formats.torch.tensor import subclass_of

DTENSORS = (
    "torch.distributed.tensor.DTensor",
    "torch.distributed._tensor.api.DTensor",
    "torch.distributed._tensor.DTensor",
)
SHARDED_TENSORS = (
    "torch.distributed._shard.sharded_tensor.api.ShardedTensor",
    "torch.distributed._sharded_tensor.api.ShardedTensor",
)
DISTRIBUTED = (*DTENSORS, *SHARDED_TENSORS)
_LAYOUTS = ("nested", "meta")  # those of subclasses


def is_distributed(tensor: Tensor) -> bool:
    """True for a tensor of one of torch's distributed classes."""
    return tensor.layout in _LAYOUTS and subclass_of(tensor.node) in DISTRIBUTED


def is_part(tensor: Tensor) -> bool:
    """True for a distributed tensor of which the file may not hold all elements."""
    return is_distributed(tensor) and not any(part.shape == tensor.shape for _, part in tensor.parts)


def holds_distributed(checkpoint: Checkpoint) -> bool:
    """True if distributed tensors are among a checkpoint's tensors."""
    if checkpoint.columns is not None or checkpoint.ranks is not None:
        return False
    return any(map(is_distributed, checkpoint.values()))
