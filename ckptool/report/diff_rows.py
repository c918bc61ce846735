"""A comparison rolled up to the rows of a table: subtrees whose tensors share one fate become one row."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TypeAlias

from ckptool.commands.diff.result import Change, Changes, Diff, ExtraChange, Status
from ckptool.core.counts import many
from ckptool.core.fold import rollup
from ckptool.core.spec import DTYPES, TensorSpec, short_spec
from ckptool.recipes.renaming import rename_of
from ckptool.report.escape import shorten
from ckptool.report.units import relative, size
from ckptool.values.delta import Delta, Tolerance

_MANY_ROWS = 6  # of other shapes or dtypes; more are joined by the kind of the change
_SCREENFUL = 20  # rows; of more, those that say that nothing changed are joined, and those that rules explain
_LARGEST_FACTOR = 16  # of a ratio of lengths
_Label: TypeAlias = tuple[Hashable, Status]

SYMBOLS = {
    Status.SAME: "=",
    Status.CHANGED: "~",
    Status.CAST: "~",
    Status.RESHAPED: "!",
    Status.RENAMED: ">",
    Status.ADDED: "+",
    Status.REMOVED: "-",
}


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


def describe(changes: Changes, diff: Diff) -> str:
    """What happened to the tensors of a row.

    Example:
        >>> from ckptool.core.checkpoint import Checkpoint
        >>> from ckptool.core.format import Format
        >>> from pathlib import Path
        >>> empty = Checkpoint(Path("a"), Format("safetensors"), {})
        >>> changes = Changes.of([Change(Status.CHANGED, "w", None, None, Delta(rel=8e-5, differing=3))])
        >>> describe(changes, Diff(empty, empty, changes))
        'rel 8e-05'
    """
    text = _described(changes, diff)
    return f"{text}, rearranged" if changes[0].how else text


def _described(changes: Changes, diff: Diff) -> str:
    first = changes[0]
    match first.status:
        case Status.SAME:
            return _same(changes, diff)
        case Status.RENAMED:
            return "same spec" if diff.keys_only else "same values"
        case Status.CHANGED:
            return _numbers(changes)
        case Status.CAST:
            assert first.old is not None
            assert first.new is not None
            numbers = "" if diff.keys_only else _numbers(changes)
            cast = f"{DTYPES[first.old.dtype].short} → {DTYPES[first.new.dtype].short}"
            return f"{cast}, {numbers}" if numbers else cast
        case Status.RESHAPED if first.how and not diff.keys_only:
            return "same values"
        case Status.RESHAPED:
            assert first.old is not None
            assert first.new is not None
            return f"{first.old.spec.short} → {first.new.spec.short}"
        case Status.ADDED | Status.REMOVED:
            return _only_here(changes)


def _same(changes: Changes, diff: Diff) -> str:
    if diff.keys_only:
        return "same spec"
    return "within tolerance" if changes.with_numbers else "identical"


def _only_here(changes: Changes) -> str:
    forms = changes.shown_forms()
    specs = {short_spec(form.dtype, form.shape) for form in forms}
    total = size(sum(form.nbytes * times for form, times in forms.items()))
    return f"{specs.pop()}, {total}" if len(specs) == 1 else total


def _numbers(changes: Changes) -> str:
    """``rel 8e-05 … 1e-04``, the range of integers where there are no floats, and what is not finite."""
    deltas = [change.delta for change in changes.with_numbers if change.delta is not None]
    parts = [text for text in (_rels(deltas) or integers(changes), nonfinite(deltas)) if text]
    if not parts:
        return "bytes differ"
    return ", ".join(parts)


def _rels(deltas: Iterable[Delta]) -> str:
    rels = [delta.rel for delta in deltas if delta.rel is not None and delta.old_range is None]
    if not rels:
        return ""
    low, high = relative(min(rels)), relative(max(rels))
    if high == "0":
        return "equal numbers, other bits"
    return f"rel {low}" if low == high else f"rel {low} … {high}"


def nonfinite(deltas: Iterable[Delta]) -> str:
    """``3 NaN or Inf, 0 before``; "" if both sides are finite."""
    old, new = 0, 0
    for delta in deltas:
        old += delta.nonfinite[0]
        new += delta.nonfinite[1]
    return f"{new:,} NaN or Inf ({old:,} before)" if old or new else ""


def integers(changes: Changes) -> str:
    """``0 → 4690`` or, for several, ``4 counters 0 → 4690``; "" if none of the changes is of integers."""
    ranges = [
        (change.delta.old_range, change.delta.new_range)
        for change in changes.with_numbers
        if change.delta is not None and change.delta.old_range is not None and change.delta.new_range is not None
    ]
    if not ranges:
        return ""
    old = _span(min(low for (low, _), _ in ranges), max(high for (_, high), _ in ranges))
    new = _span(min(low for _, (low, _) in ranges), max(high for _, (_, high) in ranges))
    counters = all(change.key.endswith("num_batches_tracked") for change in changes.with_numbers if _is_integer(change))
    counted = "" if len(ranges) == 1 else f"{many(len(ranges), 'counter' if counters else 'tensor')} "
    return f"{counted}{old} → {new}"


def _is_integer(change: Change) -> bool:
    return change.delta is not None and change.delta.old_range is not None


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}…{high}"


def extras_rows(extras: Sequence[ExtraChange]) -> list[tuple[str, list[str]]]:
    """(symbol, each in words) of the entries that are not tensors."""
    rows: list[tuple[str, list[str]]] = []
    for status in (Status.CHANGED, Status.ADDED, Status.REMOVED):
        these = [extra for extra in extras if extra.status is status]
        if these:
            rows.append((SYMBOLS[status], [_extra(extra) for extra in these]))
    return rows


def _extra(extra: ExtraChange) -> str:
    name = shorten(extra.name, 60)
    if extra.old is None or extra.new is None:
        return name
    return f"{name} {shorten(extra.old, 30)} → {shorten(extra.new, 30)}"


def tolerance_text(tolerance: Tolerance) -> str:
    """``rel ≤ 1e-03, ulp ≤ 2``; "" if there is none."""
    bounds = (("rel", tolerance.rel), ("abs", tolerance.abs), ("ulp", tolerance.ulp))
    return ", ".join(f"{name} ≤ {bound:g}" for name, bound in bounds if bound is not None)


def summary_parts(diff: Diff) -> list[str]:
    """``~ 114 changed``, ``= 6 identical`` ...: the last line of a comparison."""
    same = "same spec" if diff.keys_only else "identical"
    tolerance = tolerance_text(diff.tolerance)
    if tolerance:
        same = f"same (within {tolerance})"
    words = [
        (Status.CHANGED, "changed", False),
        (Status.CAST, "cast", False),
        (Status.RESHAPED, "reshaped", False),
        (Status.RENAMED, "renamed", False),
        (Status.SAME, same, True),
        (Status.ADDED, "added", True),
        (Status.REMOVED, "removed", True),
    ]
    parts = [
        f"{SYMBOLS[status]} {diff.count(status):,} {word}"
        for status, word, always in words
        if always or diff.count(status)
    ]
    if diff.keys_only:
        parts.append("values not compared")
    if diff.extras:
        parts.append(many(len(diff.extras), "other entry differs", "other entries differ"))
    return parts


def identical_text(diff: Diff) -> str:
    """The only line about two checkpoints that are the same."""
    tensors = many(len(diff.changes), "tensor")
    if diff.keys_only:
        return f"same keys and specs: {tensors}, values not compared"
    from ckptool.report.units import size_short

    compared = f"{tensors}, {size_short(diff.compared_nbytes)} compared"
    tolerance = tolerance_text(diff.tolerance)
    exact = not diff.changes.with_numbers
    return f"identical: {compared}" if exact or not tolerance else f"same within {tolerance}: {compared}"
