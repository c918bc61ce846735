"""The moving average that latent diffusion's LitEma keeps beside the weights, under names that have lost their dots."""

from __future__ import annotations

from dataclasses import replace

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UsageError

_AVERAGES, _WEIGHTS = "model_ema.", "model."


def with_litema(checkpoint: Checkpoint) -> Checkpoint | None:
    """The checkpoint with the averages in the place of the weights that they are of; None if it has none.

    LitEma writes the average of ``model.diffusion_model.out.weight`` as ``model_ema.diffusion_modeloutweight``. So the
    names come back by leaving the dots out of every key under ``model``. What has no average stays as it is.

    Args:
        checkpoint: a checkpoint whose selected keys are those of the whole training module.

    Raises:
        UsageError: two keys have one name without dots, so that nobody can tell whose average it is.

    Source: `LitEma` in ldm/modules/ema.py of CompVis/latent-diffusion.
    """
    names: dict[str, str] = {}
    for key in checkpoint:
        if key.startswith(_WEIGHTS):
            name = _AVERAGES + key[len(_WEIGHTS) :].replace(".", "")
            if name in names:
                raise UsageError(f"{names[name]} and {key} are one name without their dots", path=checkpoint.path)
            names[name] = key
    found = {names[key]: tensor for key, tensor in checkpoint.tensors.items() if key in names}
    if not found:
        return None
    tensors = {}
    for key, tensor in checkpoint.tensors.items():
        if not key.startswith(_AVERAGES):
            chosen = found.get(key, tensor)
            tensors[key] = replace(chosen, spec=replace(chosen.spec, key=key))
    return replace(checkpoint, tensors=tensors)
