"""What the user says of what lies beside the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tied = Literal["clone", "keep-first"]


@dataclass(frozen=True, slots=True)
class Choices:
    """Options of every command that writes.

    Attributes:
        only_weights: leave out everything that is not a weight.
        drop_optimizer: leave out optimizer state.
        optimizer_as_is: keep it unchanged, whatever happens to the parameters.
        keep_unknown: carry objects of unknown classes along.
        tied: what safetensors files get for tied tensors.
        selected: the user said which of the file's weights to take.
        wrap: the key of a torch file under which the weights stand.
        allow: names of facts on which the user insists.
    """

    only_weights: bool = False
    drop_optimizer: bool = False
    optimizer_as_is: bool = False
    keep_unknown: bool = False
    tied: Tied = "clone"
    selected: bool = False
    allow: tuple[str, ...] = ()
    wrap: str | None = None
