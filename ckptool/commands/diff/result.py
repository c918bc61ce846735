"""What a comparison finds: values that any renderer can show."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ckptool.core.checkpoint import Checkpoint, Note, Tensor
from ckptool.core.errors import Exit
from ckptool.facts.architecture import Architecture
from ckptool.values.delta import Delta, Tolerance


class Status(StrEnum):
    """How a tensor of the old checkpoint stands to one of the new.

    SAME: equal spec, equal bytes (or within the tolerance). CHANGED: equal spec, other values. CAST: other dtype, same
    shape. RESHAPED: other shape. RENAMED: other key, equal spec and bytes. ADDED / REMOVED: only in the new / the old.
    """

    SAME = "same"
    CHANGED = "changed"
    CAST = "cast"
    RESHAPED = "reshaped"
    RENAMED = "renamed"
    ADDED = "added"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """One tensor in the comparison.

    Attributes:
        status: see `Status`.
        key: its key in the new checkpoint, or in the old one if it was removed; without a wrapper prefix that was seen
            through.
        old: the tensor in the old checkpoint.
        new: the tensor in the new checkpoint.
        delta: the numbers, where values were compared and differ.
        sources: the old keys, where rules make it of others than its own.
        how: what rules do with the elements before they are compared: "o i -> i o".
    """

    status: Status
    key: str
    old: Tensor | None
    new: Tensor | None
    delta: Delta | None = None
    sources: tuple[str, ...] = ()
    how: str = ""


@dataclass(frozen=True, slots=True)
class ExtraChange:
    """One entry that is not a selected tensor: the epoch, the optimizer, metadata.

    Attributes:
        name: its dotted path.
        old: its text in the old checkpoint; None if absent.
        new: its text in the new one.
        status: SAME, CHANGED, ADDED or REMOVED.
    """

    status: Status
    name: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Explained:
    """One thing that differs between two models, and the changes that come of it.

    Attributes:
        text: it in words.
        keys: the changed keys, as the comparison shows them.
    """

    text: str
    keys: frozenset[str]


@dataclass(frozen=True, slots=True)
class Models:
    """The models of two checkpoints.

    Attributes:
        old: that of the old one.
        new: that of the new one.
        text: what differs, in a sentence; "" where nothing does.
        explained: each difference with the changes that it explains.
    """

    old: Architecture
    new: Architecture
    text: str
    explained: tuple[Explained, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Diff:
    """A comparison of two checkpoints.

    Attributes:
        old: the first checkpoint.
        new: the second.
        changes: every tensor of both, in the order of the new file, removed ones where they stood.
        extras: entries that are not selected tensors and are not the same.
        old_prefix: a wrapper prefix of all old keys ("module.") that was seen through; "" for none.
        new_prefix: the same for the new keys.
        tolerance: what counted as same.
        keys_only: True if values were not compared.
        compared_nbytes: bytes of tensor data that were compared.
        models: what differs between the models that both sides are of; None where one is not known.
        notes: what the comparison explains: "20 keys only on one side, all BatchNorm counters; harmless".
    """

    old: Checkpoint
    new: Checkpoint
    changes: tuple[Change, ...]
    extras: tuple[ExtraChange, ...] = ()
    old_prefix: str = ""
    new_prefix: str = ""
    tolerance: Tolerance = field(default=Tolerance())
    keys_only: bool = False
    compared_nbytes: int = 0
    notes: tuple[Note, ...] = field(default=())
    models: Models | None = None

    def count(self, status: Status | str) -> int:
        """How many tensors have this status; a `ValueError` if there is no such status."""
        wanted = Status(status)
        return sum(change.status is wanted for change in self.changes)

    @property
    def is_same(self) -> bool:
        """True if every tensor and every other entry is the same."""
        return not self.extras and all(change.status is Status.SAME for change in self.changes)

    @property
    def exit_code(self) -> Exit:
        return Exit.OK if self.is_same else Exit.DIFFERENT
