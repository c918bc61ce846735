"""Ties recorded in the metadata of a safetensors file: keys whose tensor is stored under another key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.counts import many
from ckptool.core.facts import Fact
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder

TIED_KEY = "ckptool.tied"


@dataclass(frozen=True, slots=True)
class TiedInMetadata(Fact):
    """Keys that the metadata ties to stored ones; `ties` are (absent key, stored key)."""

    ties: tuple[tuple[str, str], ...] = ()

    name = "tied"
    rank = 5

    @property
    def text(self) -> str:
        absent, stored = self.ties[0]
        more = f", and {len(self.ties) - 1:,} more" if len(self.ties) > 1 else ""
        return f"{many(len(self.ties), 'tied key')} of the metadata: {absent} is {stored}{more}"

    @property
    def hint(self) -> str:
        return "safetensors stores tied tensors once; the model has them under every key"


def recorded_ties(checkpoint: Checkpoint) -> Mapping[str, str]:
    """Absent key -> stored key, as safetensors' save_model or ckptool wrote it into the metadata.

    Example:
        >>> from pathlib import Path
        >>> from ckptool.core.tensor import Tensor
        >>> from ckptool.core.spec import TensorSpec
        >>> tensors = {"wte.weight": Tensor(TensorSpec("wte.weight", "float32", (9, 4)))}
        >>> opened = Checkpoint(Path("a"), "safetensors", tensors, metadata={"lm_head.weight": "wte.weight"})
        >>> recorded_ties(opened)
        {'lm_head.weight': 'wte.weight'}
    """
    noted = {**checkpoint.metadata, **_own(checkpoint.metadata)}.items()
    tensors = checkpoint.tensors
    return {key: value for key, value in noted if key != "format" and value in tensors and key not in tensors}


def _own(metadata: Mapping[str, str]) -> dict[str, str]:
    """What ckptool itself recorded."""
    try:
        ties = json.loads(metadata.get(TIED_KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    return {key: value for key, value in ties.items() if isinstance(value, str)} if isinstance(ties, dict) else {}


@finder
def find(headers: Headers) -> Iterator[TiedInMetadata]:
    ties = recorded_ties(headers.checkpoint) if headers.checkpoint.metadata else {}
    if ties:
        yield TiedInMetadata(tuple(ties.values()), tuple(ties.items()))
