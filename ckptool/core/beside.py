"""What an input holds beside the weights, and what becomes of it in an output."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ckptool.core.reasons import Reason


class Fate(StrEnum):
    """What becomes of something that is no weight."""

    KEPT = "kept"
    EDITED = "edited"
    DROPPED = "dropped"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Beside:
    """Something that an input holds beside the weights, and what becomes of it.

    Attributes:
        name: its dotted path in the file ("optimizer"), "metadata (by)", "module versions (60)", a file of the folder.
        fate: kept as it is, edited to follow the weights, dropped because an option says so, or lost.
        reason: why.
        input: whose it is.
    """

    name: str
    fate: Fate
    reason: Reason
    input: int = 0


@dataclass(frozen=True, slots=True)
class Carried:
    """A file of an input's folder that a folder output carries.

    Attributes:
        name: its name, in the input as in the output.
        text: what it holds in the output; None for what it holds in the input.
        input: whose it is.
    """

    name: str
    text: bytes | None = None
    input: int = 0
