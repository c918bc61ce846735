"""A LoRA adapter of what tuning changed: each matrix of the difference as the closest product of two thin ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeAlias
from zlib import crc32

from ckptool.commands.filter import float_dtype
from ckptool.commands.patching.lora_changes import Adapting
from ckptool.commands.patching.lora_factors import Factors
from ckptool.commands.patching.lora_result import ExtractedLora, Factored, LoraOptions
from ckptool.commands.patching.peft import (
    FUSED,
    TIED_BY_PEFT,
    task_of,
)
from ckptool.core.address import address_of
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.counts import many
from ckptool.core.errors import UsageError
from ckptool.core.shell import shell_quote
from ckptool.core.ties import with_recorded_ties
from ckptool.engine.dequantize import config_beside, encoded_of
from ckptool.engine.reading import Reader
from ckptool.storage.stages import Stage

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def extract_lora(
    base: Checkpoint,
    tuned: Checkpoint,
    options: LoraOptions,
    stage: Stage | None = None,
    *,
    name: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> ExtractedLora:
    """Find what changed, and with a `stage` write the adapter that comes closest to it.

    Args:
        base: the checkpoint that the adapter is for.
        tuned: the one that it comes close to.
        options: how it is made.
        stage: takes the files; None compares only, and computes no factors.
        name: what `base_model_name_or_path` says.
        progress: told (bytes read, bytes to read).

    Raises:
        UsageError: weights are encoded, or nothing that an adapter can hold has changed.
        UnreadableError: a file ends early, or changes while it is read.
    """
    base, tuned = with_recorded_ties(base), with_recorded_ties(tuned)
    if options.rank < 1:
        raise UsageError(f"a rank of {options.rank} holds nothing", hint="--rank 16")
    options = replace(options, dtype=float_dtype(options.dtype) or "float32")
    for checkpoint in (base, tuned):
        _require_plain(checkpoint)
    making = Adapting(base, tuned, options, progress)
    with Reader((base, tuned)) as reader:
        parts = making.compared(reader)
        if not any(part.fate in ("adapted", "saved") for part in parts):
            raise _nothing(parts, tuned)
        factors = Factors(making)
        nbytes = factors.most_bytes(parts)
        if stage is not None:
            with stage.file(WEIGHTS, {}) as sink:
                parts, nbytes = factors.written(parts, reader, sink)
                if not any(part.fate in ("adapted", "saved") for part in parts):
                    raise _nothing(parts, tuned)
    config = _config(making, parts, name)
    if stage is not None:
        with stage.file(CONFIG, {}) as sink:
            sink.write((json.dumps(config, indent=2) + "\n").encode(), 0)
    used = {part.source for part in parts}
    removed = tuple(key for key in base if key not in used)
    notes = tuple(_notes(making, parts, removed))
    return ExtractedLora(base, tuned, options, tuple(parts), removed, config, notes, nbytes)


def replaceable(folder: PurePath) -> frozenset[str]:
    """The names of an adapter's files in a folder, which a new one replaces."""
    from ckptool.storage.paths import is_file

    return frozenset(name for name in (CONFIG, WEIGHTS) if is_file(folder / name))


def stage_name(base: Checkpoint, tuned: Checkpoint, options: LoraOptions) -> str:
    """What names the stage of such an output: equal for equal requests."""
    return f"{crc32(repr((base.path, tuned.path, options)).encode()):08x}"


def base_name(path: PurePath) -> str:
    """What `base_model_name_or_path` says: a name on the hub, or the path of the folder or file.

    Example:
        >>> from ckptool.core.address import Address
        >>> base_name(Address("hf://org/model@main")), base_name(PurePath("base"))
        ('org/model', 'base')
    """
    address = address_of(path)
    if address is None or address.scheme != "hf":
        return str(path)
    return "/".join(str(address).removeprefix("hf://").split("@")[0].split("/")[:2])


def _require_plain(checkpoint: Checkpoint) -> None:
    if encoded := encoded_of(checkpoint):
        raise UsageError(
            f"{checkpoint.path.name} holds quantized weights ({encoded[0].title}), which have no difference",
            hint=f"decode them: ckptool filter {shell_quote(checkpoint.path)} --dequantize -o OUT",
            path=checkpoint.path,
        )


def _nothing(parts: Sequence[Factored], tuned: Checkpoint) -> UsageError:
    left = [part for part in parts if part.fate == "left"]
    if not left:
        return UsageError(f"{tuned.path.name} is the base: there is nothing to adapt", hint="give the tuned model")
    text = f"a LoRA can hold none of the {many(len(left), 'tensor')} that changed: {left[0].key} ({left[0].kind})"
    return UsageError(text, hint="make a patch, which holds everything: without --lora", path=tuned.path)


def _config(making: Adapting, parts: Sequence[Factored], name: str) -> dict[str, object]:
    """adapter_config.json: what the same adapter has after `save_pretrained`, and no more."""
    adapted = {part.module: part for part in parts if part.fate == "adapted" and part.kind not in FUSED}
    fused = sorted(part.source for part in parts if part.fate == "adapted" and part.kind in FUSED)
    smaller: dict[int, list[str]] = {}
    for module, part in adapted.items():
        if part.rank != making.options.rank:
            smaller.setdefault(part.rank, []).append(module)
    ranks = {pattern: rank for rank, modules in smaller.items() for pattern in making.layers.pattern(modules)}
    beside = config_beside(making.base)
    saved = {part.module for part in parts if part.fate == "saved"}
    biases = saved & adapted.keys()
    return {
        "peft_type": "LORA",
        "task_type": task_of(beside),
        "base_model_name_or_path": name or None,
        "r": making.options.rank,
        "lora_alpha": making.options.rank,
        "lora_dropout": 0.0,
        "bias": "lora_only" if biases else "none",
        "target_modules": making.layers.named(list(adapted)) if adapted else [],
        **({"target_parameters": fused} if fused else {}),
        "rank_pattern": ranks,
        "alpha_pattern": ranks,
        "fan_in_fan_out": any(part.kind == "transposed" for part in adapted.values()),
        "modules_to_save": making.layers.saved(sorted(saved - biases)) or None,
        "ensure_weight_tying": bool(making.tied(adapted.values())),
        "inference_mode": True,
    }


def _notes(making: Adapting, parts: Sequence[Factored], removed: Sequence[str]) -> Iterator[Note]:
    left = [part for part in parts if part.fate == "left"]
    if left:
        reasons = ", ".join(dict.fromkeys(part.kind for part in left))
        could = not making.options.save and any(part.source for part in left)
        yield Note(
            f"{many(len(left), 'changed tensor')} {'is' if len(left) == 1 else 'are'} not in the adapter: {reasons}",
            "--modules-to-save saves what it can in full; a patch holds everything" if could else "a patch holds them",
            tuple(part.key for part in left),
            "warning",
        )
    if removed:
        yield Note(
            f"{many(len(removed), 'tensor')} of the base {'is' if len(removed) == 1 else 'are'} not in "
            f"{making.tuned.path.name}, and stay as they are",
            "",
            tuple(removed),
        )
    if untied := [module for module in making.tied(parts) if module.rpartition(".")[2] not in TIED_BY_PEFT]:
        yield Note(
            f"{untied[0]} is tied to the head, to which peft applies its change only once it is merged",
            "merge it: merge_and_unload, or ckptool merge --lora",
            tuple(untied),
            "warning",
        )
    tables = [part.key for part in parts if part.fate == "adapted" and part.kind == "embedding"]
    if tables:
        yield Note(f"taken as {'an embedding' if len(tables) == 1 else 'embeddings'}: {', '.join(tables)}")
