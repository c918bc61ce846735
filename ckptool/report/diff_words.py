"""What a comparison found, in words and numbers: of a row, of the entries that are not tensors, and of the whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ckptool.commands.diff.result import Change, Changes, Diff, ExtraChange, Status
from ckptool.core.counts import many
from ckptool.core.spec import DTYPES, short_spec
from ckptool.report.escape import shorten
from ckptool.report.units import relative, size, size_short
from ckptool.values.delta import Delta, Tolerance

SYMBOLS = {
    Status.SAME: "=",
    Status.CHANGED: "~",
    Status.CAST: "~",
    Status.RESHAPED: "!",
    Status.RENAMED: ">",
    Status.ADDED: "+",
    Status.REMOVED: "-",
}


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
    compared = f"{tensors}, {size_short(diff.compared_nbytes)} compared"
    tolerance = tolerance_text(diff.tolerance)
    exact = not diff.changes.with_numbers
    return f"identical: {compared}" if exact or not tolerance else f"same within {tolerance}: {compared}"
