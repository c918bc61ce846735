"""A LoRA adapter as a value: each tensor of the tuned checkpoint, and what of its change the adapter holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.spec import TensorSpec

Fate: TypeAlias = Literal["same", "adapted", "saved", "left"]


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """How an adapter is made.

    Attributes:
        rank: the largest of a matrix.
        dtype: of what is written, a float dtype.
        save: modules that changed otherwise are saved in full (PEFT's `modules_to_save`).
    """

    rank: int
    dtype: str = "float32"
    save: bool = False


@dataclass(frozen=True, slots=True)
class Factored:
    """A tensor of the tuned checkpoint, and what of its change is in the adapter.

    Attributes:
        key: its key there.
        spec: of it.
        source: the key of the base; "" if it has none.
        fate: "same" as in the base, "adapted" by two factors, "saved" in full, "left" out.
        kind: how it is adapted; for "left", why not, in words.
        rank: of the factors; the largest possible before they are computed.
        norm: the Frobenius norm of the change; None before it is computed.
        lost: that of what the factors lack.
        nbytes: in the adapter.
    """

    key: str
    spec: TensorSpec
    source: str
    fate: Fate
    kind: str = ""
    rank: int = 0
    norm: float | None = None
    lost: float | None = None
    nbytes: int = 0

    @property
    def module(self) -> str:
        return self.source.rpartition(".")[0]

    @property
    def error(self) -> float | None:
        """What is lost, relative to the change; None before it is computed."""
        return None if self.norm is None or self.lost is None else self.lost / self.norm if self.norm else 0.0


@dataclass(frozen=True, slots=True)
class ExtractedLora:
    """An adapter.

    Attributes:
        base: what it is for.
        tuned: what it comes close to.
        options: how it is made.
        parts: each tensor of `tuned`.
        removed: keys of the base that `tuned` lacks.
        config: what adapter_config.json says.
        notes: what a user should know.
        nbytes: of the weights' file.
    """

    base: Checkpoint
    tuned: Checkpoint
    options: LoraOptions
    parts: tuple[Factored, ...]
    removed: tuple[str, ...]
    config: Mapping[str, object]
    notes: tuple[Note, ...]
    nbytes: int

    def with_fate(self, fate: Fate) -> list[Factored]:
        return [part for part in self.parts if part.fate == fate]

    @property
    def kept(self) -> float | None:
        """The share of the adapted change that is in the factors, as energy (squares); None before it is computed."""
        adapted = self.with_fate("adapted")
        if not adapted or any(part.norm is None for part in adapted):
            return None
        total = sum((part.norm or 0) ** 2 for part in adapted)
        return 1 - sum((part.lost or 0) ** 2 for part in adapted) / total if total else 1.0
