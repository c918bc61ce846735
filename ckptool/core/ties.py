"""Ties that a safetensors file records in its metadata, since it cannot share bytes between keys.

`safetensors.torch.save_model` writes an entry ``{alias: key}`` for each key that it leaves out; ckptool writes all of
them under one entry, as JSON, also for keys that it writes as copies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.tensor import Tensor

TIED_KEY = "ckptool.tied"
"""The entry of `__metadata__` that says which key is one tensor with which other key."""


def recorded_ties(checkpoint: Checkpoint) -> dict[str, str]:
    """The key with which each key is one tensor, as the metadata says; the latter is always in the file.

    Example:
        >>> from pathlib import Path
        >>> from ckptool.core.format import Format
        >>> from ckptool.core.spec import TensorSpec
        >>> tensors = {"wte.weight": Tensor(TensorSpec("wte.weight", "float32", (9, 4)))}
        >>> metadata = {"format": "pt", "lm_head.weight": "wte.weight"}
        >>> recorded_ties(Checkpoint(Path("a.safetensors"), Format("safetensors"), tensors, metadata=metadata))
        {'lm_head.weight': 'wte.weight'}
    """
    tensors = checkpoint.tensors
    single = {
        name: key
        for name, key in checkpoint.metadata.items()
        if name != "format" and key in tensors and not _has_bytes(tensors, name, key)
    }
    both = {**single, **_listed(checkpoint.metadata.get(TIED_KEY, "{}"))}
    return {alias: key for alias, key in both.items() if key in tensors and alias != key}


def _has_bytes(tensors: Mapping[str, Tensor], alias: str, key: str) -> bool:
    """True if a key has bytes of its own beside those of the tensor that it would be."""
    return alias in tensors and tensors[alias].pieces != tensors[key].pieces


def _listed(text: str) -> dict[str, str]:
    """The keys of ckptool's own entry; none of what somebody else wrote under its name."""
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(listed, dict):
        return {}
    return {alias: key for alias, key in listed.items() if isinstance(key, str)}


def with_recorded_ties(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with a tensor for each key that its metadata records, behind the tensor that it is."""
    aliases: dict[str, list[str]] = {}
    for alias, key in recorded_ties(checkpoint).items():
        if alias not in checkpoint.tensors:
            aliases.setdefault(key, []).append(alias)
    if not aliases:
        return checkpoint
    tensors: dict[str, Tensor] = {}
    for key, tensor in checkpoint.tensors.items():
        tensors[key] = tensor
        tensors |= {alias: replace(tensor, spec=replace(tensor.spec, key=alias)) for alias in aliases.get(key, ())}
    return replace(checkpoint, tensors=tensors)


def without_recorded_ties(metadata: Mapping[str, str], checkpoint: Checkpoint) -> dict[str, str]:
    """Metadata without the entries that record ties of a checkpoint."""
    ties = recorded_ties(checkpoint)
    return {name: text for name, text in metadata.items() if name != TIED_KEY and ties.get(name) != text}
