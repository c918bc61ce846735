"""Keys that hold initial values, as an output records them: in safetensors metadata, in a record of a torch archive."""

from __future__ import annotations

import json
from collections.abc import Iterable

from ckptool.core.checkpoint import Checkpoint

INITIAL_KEY = "ckptool.initial"
"""The entry of `Checkpoint.metadata`, and the name of the record in a torch archive."""


def recorded_initial(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The keys whose values come from a model's init and not from training, as the file records it; in file order.

    Example:
        >>> from pathlib import Path
        >>> from ckptool.core.format import Format
        >>> from ckptool.core.tensor import Tensor
        >>> from ckptool.core.spec import TensorSpec
        >>> tensors = {key: Tensor(TensorSpec(key, "float32", (4,))) for key in ("conv.bias", "fc.bias")}
        >>> metadata = {INITIAL_KEY: initial_text(["fc.bias", "gone.bias"])}
        >>> recorded_initial(Checkpoint(Path("a"), Format("safetensors"), tensors, metadata=metadata))
        ('fc.bias',)
    """
    text = checkpoint.metadata.get(INITIAL_KEY)
    if text is None:
        return ()
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    known = {key for key in listed if isinstance(key, str)} if isinstance(listed, list) else set()
    return tuple(key for key in checkpoint.tensors if key in known)


def initial_text(keys: Iterable[str]) -> str:
    """What is recorded for some keys: JSON, in ASCII."""
    return json.dumps(list(keys))
