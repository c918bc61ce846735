"""Megatron-core's distributed checkpoints: what it adds to torch.distributed's, and which of the keys are weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ckptool.core.bytes import Folder
from ckptool.core.errors import UnreadableError
from ckptool.core.format import Format
from ckptool.formats.dcp_metadata import Item, ItemPath, Metadata
from ckptool.formats.ranks.files import RankFile, opened

FORMAT = Format("Megatron-core torch_dist", is_pickle=True, has_checksums=True)
COMMON = "common.pt"
MODEL = "model"
_SETTINGS = "metadata.json"
_MOST = 1 << 20
_BESIDE = re.compile(
    r"(?P<top>optimizer|chained_\d+|rng_state|rerun_state\w*|opt_param_scheduler)(?:[./](?P<rest>.+))?"
)
_OBJECT = re.compile(r"(?P<key>.+)/shard_\d+(?:\.\d+)*_\d+(?:\.\d+)*")
_AXES = {
    "tensor_model_parallel_size": "tp",
    "pipeline_model_parallel_size": "pp",
    "context_parallel_size": "cp",
    "expert_model_parallel_size": "ep",
    "data_parallel_size": "dp",
}


def is_megatron(folder: Folder) -> bool:
    """True if a folder is a distributed checkpoint of Megatron-core.

    Raises:
        UnreadableError: it is one whose tensors are not in torch.distributed's files.
    """
    source = opened(folder, _SETTINGS)
    if source is None or source.size > _MOST:
        return False
    with source.open() as file:
        text = file.read(0, file.size)
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return False
    backend = settings.get("sharded_backend") if isinstance(settings, dict) else None
    if backend is None or backend == "torch_dist":
        return backend is not None
    raise UnreadableError(
        f"{folder.path} is a Megatron checkpoint with its tensors as {str(backend)[:40]}, which ckptool does not read",
        hint="convert it with Megatron: --ckpt-convert-format torch_dist",
        path=source.path,
    )


def in_model(metadata: Metadata) -> Metadata:
    """The items with the model's weights under `MODEL`, and its objects that are no tensors under one name."""
    return replace(metadata, items=tuple(replace(item, path=_path(item)) for item in metadata.items))


def _path(item: Item) -> ItemPath:
    beside = _BESIDE.fullmatch(item.key)
    if beside is not None:
        return (beside["top"], beside["rest"]) if beside["rest"] else (beside["top"],)
    if item.stored is not None and _OBJECT.fullmatch(item.key):
        return ("extra_state", item.key)
    return (MODEL, item.key)


def mesh_of(file: RankFile, entries: Mapping[object, object]) -> tuple[tuple[str, int], ...]:
    """The axes of the mesh of ranks, from the arguments of the training script."""
    args = entries.get("args")
    settings = {**file.entries(args), **file.state(args)}
    sizes = ((axis, settings.get(name)) for name, axis in _AXES.items())
    return tuple((axis, size) for axis, size in sizes if type(size) is int and size > 0)


def stacked_keys(metadata: Metadata) -> Iterable[str]:
    """The weights that hold all layers in one tensor, along a first axis."""
    return (item.key for item in metadata.items if item.path[0] == MODEL and re.search(r"\blayers\.[a-z_]", item.key))
