"""Accelerate's folders, and those of the Trainer of transformers with FSDP: the model in one torch.distributed folder.

``pytorch_model_fsdp_0/`` has the weights, ``optimizer_0/`` the optimizer's state by the names of the parameters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ckptool.core.bytes import Entry, Folder
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UsageError
from ckptool.formats.ranks.names import entries_in

_MODEL = re.compile(r"pytorch_model_fsdp(?P<number>_\d+)?")
_OPTIMIZER = "optimizer"


def claims(folder: Folder, entries: Sequence[Entry]) -> bool:
    """True for a folder that holds the folder of a model."""
    return bool(_models(folder, entries))


def open_ranks(folder: Folder, select: str | None = None) -> Checkpoint:
    """Open the model, with the optimizer beside it.

    Raises:
        UsageError: the folder holds several models.
    """
    from ckptool.formats.dcp import open_folders

    entries = folder.entries()
    models = _models(folder, entries)
    if len(models) > 1:
        raise UsageError(
            f"{folder.path} holds {len(models)} models: {', '.join(models)}",
            hint=f"name one of them: {folder.path / models[0]}",
            path=folder.path,
        )
    match = _MODEL.fullmatch(models[0])
    optimizer = f"{_OPTIMIZER}{match['number'] or ''}" if match is not None else ""
    names = [name for name in (models[0], optimizer) if _is_distributed(folder, entries, name)]
    return open_folders([folder.folder(name) for name in names], folder.path, select)


def _models(folder: Folder, entries: Sequence[Entry]) -> list[str]:
    names = [entry.name for entry in entries if _MODEL.fullmatch(entry.name)]
    return [name for name in names if _is_distributed(folder, entries, name)]


def _is_distributed(folder: Folder, entries: Sequence[Entry], name: str) -> bool:
    if Entry(name, True) not in entries:
        return False
    return any(entry.name.endswith((".metadata", ".distcp")) for entry in entries_in(folder.folder(name)))
