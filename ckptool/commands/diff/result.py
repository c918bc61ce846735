"""What a comparison finds: values that any renderer can show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import eq
from typing import overload

from ckptool.commands.diff.pairing import Side
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.errors import Exit
from ckptool.core.spec import Form
from ckptool.core.tensor import Tensor, form_of
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


class Changes(Sequence[Change]):
    """The tensors of a comparison, in little memory: a `Change` is made when it is asked for.

    Attributes:
        keys: of each, as `Change.key`.
        statuses: of each.
        special: by position, those of which more is to be said than which tensors they are.

    Example:
        >>> changes = Changes.of([Change(Status.ADDED, "w", None, None), Change(Status.SAME, "v", None, None)])
        >>> changes.count(Status.ADDED), [change.key for change in changes.where(Status.SAME)]
        (1, ['v'])
    """

    __slots__ = ("_sides", "keys", "special", "statuses")

    def __init__(
        self, keys: list[str], statuses: list[Status], special: Mapping[int, Change], sides: tuple[Side, Side] | None
    ) -> None:
        """Those that are not special have one key on both sides, or are on one side only."""
        self.keys = keys
        self.statuses = statuses
        self.special = special
        self._sides = sides

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    @classmethod
    def of(cls, changes: Iterable[Change]) -> Changes:
        """Changes that are there already."""
        found = list(changes)
        keys, statuses = [change.key for change in found], [change.status for change in found]
        return cls(keys, statuses, dict(enumerate(found)), None)

    @classmethod
    def joined(cls, parts: Sequence[Changes]) -> Changes:
        """Those of several parts of one comparison, one part after the other."""
        keys: list[str] = []
        statuses: list[Status] = []
        special: dict[int, Change] = {}
        for part in parts:
            special |= {len(keys) + at: change for at, change in part.special.items()}
            keys += part.keys
            statuses += part.statuses
        return cls(keys, statuses, special, parts[0]._sides)

    def by_key(self) -> Iterator[Change]:
        """Them in the order of their keys."""
        return map(self.__getitem__, sorted(range(len(self)), key=self.keys.__getitem__))

    def at(self, positions: Sequence[int]) -> Changes:
        """Some of them."""
        keys, statuses = [self.keys[at] for at in positions], [self.statuses[at] for at in positions]
        known = self.special
        special = {at: known[old] for at, old in enumerate(positions) if old in known} if known else {}
        return Changes(keys, statuses, special, self._sides)

    def where(self, *statuses: Status) -> Changes:
        """Those with one of these statuses."""
        return self.at([at for at, status in enumerate(self.statuses) if status in statuses])

    def count(self, value: object) -> int:
        """How many have a status."""
        return self.statuses.count(value)  # type: ignore[arg-type]

    @property
    def differing(self) -> Changes:
        """Those that are not the same."""
        return self.at([at for at, status in enumerate(self.statuses) if status is not Status.SAME])

    @property
    def with_numbers(self) -> list[Change]:
        """Those whose values were compared and differ."""
        return [change for change in self.special.values() if change.delta is not None]

    def forms(self) -> Iterator[tuple[Form | None, Form | None]]:
        """Dtype, shape and size of each on both sides, without the tensors; None for a side that has it not."""
        for at, (key, status) in enumerate(zip(self.keys, self.statuses, strict=True)):
            if at in self.special or self._sides is None:
                change = self[at]
                yield _form_of(change.old), _form_of(change.new)
            else:
                old, new = self._sides
                yield (
                    None if status is Status.ADDED else old.form(key),
                    None if status is Status.REMOVED else new.form(key),
                )

    def shown_forms(self) -> dict[Form, int]:
        """How many have each form: that of the new side, where it has the tensor."""
        return Counter(form for old, new in self.forms() if (form := new or old) is not None)

    @overload
    def __getitem__(self, at: int) -> Change: ...
    @overload
    def __getitem__(self, at: slice) -> Changes: ...
    def __getitem__(self, at: int | slice) -> Change | Changes:
        if isinstance(at, slice):
            return self.at(range(*at.indices(len(self))))
        position = range(len(self))[at]
        if position in self.special or self._sides is None:
            return self.special[position]
        key, status = self.keys[position], self.statuses[position]
        old, new = self._sides
        return Change(
            status,
            key,
            None if status is Status.ADDED else old[key],
            None if status is Status.REMOVED else new[key],
        )

    def __len__(self) -> int:
        return len(self.keys)


def _form_of(tensor: Tensor | None) -> Form | None:
    return None if tensor is None else form_of(tensor)


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
        old_prefix: a prefix of all or most old keys ("module.") that was seen through; "" for none.
        new_prefix: the same for the new keys.
        tolerance: what counted as same.
        keys_only: True if values were not compared.
        compared_nbytes: bytes of tensor data that were compared.
        models: what differs between the models that both sides are of; None where one is not known.
        notes: what the comparison explains: "20 keys only on one side, all BatchNorm counters; harmless".
    """

    old: Checkpoint
    new: Checkpoint
    changes: Changes
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
        return self.changes.count(wanted)

    @property
    def is_same(self) -> bool:
        """True if every tensor and every other entry is the same."""
        return not self.extras and self.count(Status.SAME) == len(self.changes)

    @property
    def exit_code(self) -> Exit:
        return Exit.OK if self.is_same else Exit.DIFFERENT
