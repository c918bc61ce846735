"""What becomes of a tensor of a target, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from ckptool.core.reasons import LeftToModel, Reason
from ckptool.core.spec import TensorSpec

_LEFT = LeftToModel()
Mismatch = Literal["skip", "error", "fit"]
"""What is done about tensors of another shape: the model's own is kept, it is a problem, or they are made to fit."""


class Filled(StrEnum):
    """How a target tensor got its elements.

    FILLED: a source tensor of equal shape and dtype. CAST: of another dtype. FITTED: of another shape, made to fit.
    MISSING: nothing in the source. MISMATCHED: a source tensor of another shape, not used.
    """

    FILLED = "filled"
    CAST = "cast"
    FITTED = "fitted"
    MISSING = "missing"
    MISMATCHED = "mismatched"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the target.

    Attributes:
        spec: its key, dtype and shape in the target.
        status: see `Filled`.
        covered: how many of its elements come from the source.
        sources: keys of the source tensors it is made of; of the one that was not used, if mismatched.
        found: the tensor that the source has for it, in the short notation; "" if none.
        reason: why it is filled so; for what is not filled, what it gets instead.
        fit: how it was fitted, "fit channels", beside what a rule of a recipe says.
        kind: "parameter" or "buffer"; "" if the target is a checkpoint.
    """

    spec: TensorSpec
    status: Filled
    covered: int = 0
    sources: tuple[str, ...] = ()
    found: str = ""
    reason: Reason = _LEFT
    fit: str = ""
    kind: str = ""

    @property
    def key(self) -> str:
        return self.spec.key

    @property
    def is_filled(self) -> bool:
        """True if its elements come from the source."""
        return self.status in (Filled.FILLED, Filled.CAST, Filled.FITTED)

    @property
    def is_whole(self) -> bool:
        """True if it is the source's tensor, every element of it, and not made to fit."""
        return self.status in (Filled.FILLED, Filled.CAST) and self.covered == self.spec.elements

    @property
    def is_counter(self) -> bool:
        """True for the counter of a BatchNorm, which evaluation does not use."""
        return self.key.rpartition(".")[2] == "num_batches_tracked" and not self.spec.shape

    @property
    def is_statistic(self) -> bool:
        """True for running statistics, which are learned though they are no parameters."""
        return self.key.rpartition(".")[2] in ("running_mean", "running_var")

    @property
    def is_harmless(self) -> bool:
        """True if the model is as good without it: a counter, or a buffer that the model computes itself."""
        return self.is_counter or (self.kind == "buffer" and not self.is_statistic)
