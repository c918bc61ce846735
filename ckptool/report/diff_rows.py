"""A comparison rolled up to the rows of a table: subtrees whose tensors share one fate become one row."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TypeAlias

from ckptool.commands.diff.result import Change, Changes, Diff, Status
from ckptool.core.fold import rollup
from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.recipes.renaming import rename_of
from ckptool.report.diff_words import describe
from ckptool.values.delta import Delta

_MANY_ROWS = 6  # of other shapes or dtypes; more are joined by the kind of the change
_SCREENFUL = 20  # rows; of more, those that say that nothing changed are joined, and those that rules explain
_LARGEST_FACTOR = 16  # of a ratio of lengths
_Label: TypeAlias = tuple[Hashable, Status]


@dataclass(frozen=True, slots=True)
class DiffRow:
    """One row of a diff table.

    Attributes:
        status: what happened to all of its tensors.
        key: a pattern that matches them, not escaped.
        changes: them.
        what: the change in words and numbers.
        shown: the key as it is printed where that is more than the pattern (renames); else "".
    """

    status: Status
    key: str
    changes: Changes
    what: str
    shown: str = ""

    @property
    def elements(self) -> int:
        return sum(form.elements * times for form, times in self.changes.shown_forms().items())

    @property
    def deltas(self) -> list[Delta]:
        return [change.delta for change in self.changes.with_numbers if change.delta is not None]


def diff_rows(diff: Diff, each: bool = False) -> list[DiffRow]:
    """The rows of a comparison in the order of its tensors; `each` makes a row of every tensor."""
    if each:
        return [_row(diff, key, diff.changes.at([at])) for at, key in enumerate(diff.changes.keys)]
    explained, rest = _explained(diff)
    gone, every = set(rest.where(Status.REMOVED).keys), diff.changes
    pairs = zip(every.keys, every.statuses, strict=True)
    apart = {key for key, status in pairs if key in gone and status is not Status.REMOVED}  # by rules
    removed = [key in apart and status is Status.REMOVED for key, status in zip(rest.keys, rest.statuses, strict=True)]
    once, twice = (
        rest.at([at for at, is_twice in enumerate(removed) if is_twice is wanted]) for wanted in (False, True)
    )
    return [*_joined(diff, _rolled_up(diff, once)), *_rolled_up(diff, twice), *explained]


def _explained(diff: Diff) -> tuple[list[DiffRow], Changes]:
    """A row for each way in which tensors change where a difference of the models explains it, and other changes."""
    if diff.models is None:
        return [], diff.changes
    why = {key: each.text for each in diff.models.explained for key in each.keys}
    places: dict[_Label, list[int]] = {}
    for at, (key, status) in enumerate(zip(diff.changes.keys, diff.changes.statuses, strict=True)):
        if status in (Status.ADDED, Status.REMOVED) and key in why:
            places.setdefault((why[key], status), []).append(at)
    places = {label: positions for label, positions in places.items() if len(positions) > 1}
    groups = {label: diff.changes.at(positions) for label, positions in places.items()}
    names = _names(diff, groups)
    rows = [
        DiffRow(label[1], names[label][0], changes, str(label[0]), _and_more(names[label]))
        for label, changes in groups.items()
    ]
    folded = {at for positions in places.values() for at in positions}
    return rows, diff.changes.at([at for at in range(len(diff.changes)) if at not in folded])


def _names(diff: Diff, groups: Mapping[_Label, Changes]) -> dict[_Label, list[str]]:
    """The patterns that mean exactly the tensors of each group."""
    labels = {key: label for label, changes in groups.items() for key in changes.keys}
    patterns: dict[_Label, list[str]] = {}
    for group in rollup((key, labels.get(key)) for key in diff.changes.keys) if groups else ():
        if group.label is not None:
            patterns.setdefault(labels[group.keys[0]], []).append(group.pattern)
    return patterns


def _and_more(patterns: Sequence[str]) -> str:
    return f"{patterns[0]}  +{len(patterns) - 1} more" if len(patterns) > 1 else ""


# ---------------------------------------------------------------------------------------------- changes of one kind


def _joined(diff: Diff, rows: Sequence[DiffRow]) -> list[DiffRow]:
    """The rows; of many, one for each kind of other shapes and dtypes, one for what is the same, one for renames."""
    groups: dict[_Label, list[DiffRow]] = {}
    for status, kind_of in ((Status.RESHAPED, _shape_kind), (Status.CAST, _cast_kind)):
        mine = [row for row in rows if row.status is status]
        for row in mine if len(mine) > _MANY_ROWS or len(rows) > _SCREENFUL else ():
            groups.setdefault((kind_of(diff, row), status), []).append(row)
    for row in rows if len(rows) > _SCREENFUL else ():
        if (row.status is Status.SAME and not row.deltas) or (row.status is Status.RENAMED and row.changes[0].sources):
            groups.setdefault((row.what, row.status), []).append(row)
    groups = {label: found for label, found in groups.items() if len(found) > 1}
    changes = {label: Changes.joined([row.changes for row in found]) for label, found in groups.items()}
    names = _names(diff, changes)
    first = {id(found[0]): label for label, found in groups.items()}
    others = {id(row) for found in groups.values() for row in found[1:]}
    joined = []
    for row in rows:
        label = first.get(id(row))
        if label is not None:
            what = _shapes(changes[label]) if _keeps_rank(row.changes[0]) else describe(changes[label], diff)
            row = DiffRow(row.status, names[label][0], changes[label], what, _and_more(names[label]))
        if id(row) not in others:
            joined.append(row)
    return joined


def _shape_kind(diff: Diff, row: DiffRow) -> Hashable:
    """What happens to each axis, and which difference of the models explains it: rows of one kind are one row."""
    change = row.changes[0]
    old, new = _specs(change)
    explained = diff.models.explained if diff.models is not None else ()
    why = next((each.text for each in explained if change.key in each.keys), "")
    if not _keeps_rank(change):
        return old.short, new.short, change.how, why
    return old.dtype, new.dtype, tuple(map(_ratio, old.shape, new.shape)), why


def _cast_kind(diff: Diff, row: DiffRow) -> Hashable:
    return _label(row.changes[0])


def _keeps_rank(change: Change) -> bool:
    """True for a tensor of another shape with as many axes, which is not a rearranged one."""
    old, new = _specs(change)
    return change.status is Status.RESHAPED and not change.how and len(old.shape) == len(new.shape)


def _specs(change: Change) -> tuple[TensorSpec, TensorSpec]:
    assert change.old is not None and change.new is not None
    return change.old.spec, change.new.spec


def _ratio(old: int, new: int) -> tuple[int, int, bool]:
    """(1, 2, True) for an axis of twice the length; the lengths and False where the ratio is none of small numbers."""
    common = math.gcd(old, new)
    if common and max(old, new) // common <= _LARGEST_FACTOR:
        return old // common, new // common, True
    return old, new, False


def _shapes(changes: Changes) -> str:
    """``f32[a,b,3,3] → f32[2a,b,3,3]``: a letter is a length that is not the same in all of the tensors."""
    specs = [(old, new) for old, new in changes.forms() if old is not None and new is not None]
    lengths = list(zip(*(zip(old.shape, new.shape, strict=True) for old, new in specs), strict=True))
    sides: list[list[str]] = [[], []]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    for axis in lengths:
        pair = axis[0]
        letter = "" if len(set(axis)) == 1 else next(letters)
        for side, length, factor in zip(sides, pair, _ratio(*pair)[:2], strict=True):
            side.append(f"{'' if factor == 1 else factor}{letter}" if letter else str(length))
    names = (DTYPES[spec.dtype].short for spec in specs[0])
    return " → ".join(f"{name}[{','.join(side)}]" for name, side in zip(names, sides, strict=True))


# ---------------------------------------------------------------------------------------------- rows


def _rolled_up(diff: Diff, changes: Changes) -> list[DiffRow]:
    place = dict(zip(changes.keys, range(len(changes)), strict=True))
    groups = rollup(zip(changes.keys, _labels(changes), strict=True), together=[Status.SAME.value])
    return [_row(diff, group.pattern, changes.at([place[key] for key in group.keys])) for group in groups]


def _labels(changes: Changes) -> Iterator[str]:
    """The label of each, found once for all that are alike."""
    has_forms = changes.count(Status.CAST) + changes.count(Status.RESHAPED) > 0
    forms = changes.forms() if has_forms else repeat(None, len(changes))
    alike: dict[Hashable, str] = {}
    for at, (status, pair) in enumerate(zip(changes.statuses, forms, strict=True)):
        if at in changes.special:
            yield _label(changes.special[at])
        elif status not in (Status.CAST, Status.RESHAPED):
            yield status.value
        else:
            if (status, pair) not in alike:
                alike[status, pair] = _label(changes[at])
            yield alike[status, pair]


def _label(change: Change) -> str:
    """Changes of one row have equal labels."""
    how = f" {change.how}" if change.how else ""
    if change.status is Status.RENAMED and change.old is not None and not change.sources:  # else rules say it
        return f"renamed {rename_of(change.old.key, change.key)}"
    if change.status is Status.RESHAPED and not how and change.old is not None and change.new is not None:
        return f"reshaped {change.old.spec.short} {change.new.spec.short}"
    if change.status is Status.CAST and change.old is not None and change.new is not None:
        return f"cast {change.old.dtype} {change.new.dtype}{how}"
    return f"{change.status.value}{how}"


def _row(diff: Diff, key: str, changes: Changes) -> DiffRow:
    status = changes.statuses[0]
    return DiffRow(status, key, changes, describe(changes, diff), _renamed(diff, key, changes))


def _renamed(diff: Diff, key: str, changes: Changes) -> str:
    """``backbone.fc.weight → fc.weight``; for many, the rule and the keys it made. What rules say is not said again."""
    first = changes[0]
    if first.status is not Status.RENAMED or first.old is None or first.sources:
        return ""
    old = first.old.key.removeprefix(diff.old_prefix)
    if len(changes) == 1:
        return f"{old} → {key}"
    rule = rename_of(old, changes[0].key)
    before, after = ".".join(rule.old), ".".join(rule.new)
    if not before or not after:
        return f"{key}  ({f'under {after}' if after else f'without {before}'})"
    return f"{key}  ({before} → {after})"
