"""Megatron folders of before its distributed checkpoints: a torch file for each tensor- and pipeline-parallel rank."""

from __future__ import annotations

from pathlib import PurePath

from ckptool.core.bytes import Folder
from ckptool.core.checkpoint import Checkpoint


def open_legacy_iteration(folder: Folder, select: str | None = None, path: PurePath | None = None) -> Checkpoint:
    """Open one iteration."""
    raise NotImplementedError
