"""Two checkpoints -> Diff: keys, shapes, dtypes, then values, then everything else."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterable, Mapping, Sequence

from ckptool.checkpoint import Checkpoint, Note, Tensor
from ckptool.compare.extras import (
    ExtraPair,
    format_notes,
    is_one_file_twice,
    metadata_changes,
    pair_extras,
    same_quantizer,
    version_changes,
)
from ckptool.compare.pairing import in_order, seen_through
from ckptool.compare.renames import find_renames
from ckptool.compare.result import Change, Diff, ExtraChange, Status, Tolerance
from ckptool.compare.values import EXACT, Progress, Verdict, compare_values
from ckptool.errors import UsageError
from ckptool.explain import explain_pair
from ckptool.keys import Pattern, require_match
from ckptool.reading import Reader

Tensors = Mapping[str, Tensor]


def compare(
    old: Checkpoint,
    new: Checkpoint,
    *,
    only: Sequence[str] = (),
    tolerance: Tolerance = EXACT,
    keys_only: bool = False,
    threads: int = 2,
    progress: Progress | None = None,
) -> Diff:
    """Compare two checkpoints of any formats.

    Headers decide what can be decided on headers. Of tensors with equal key and spec the bytes are compared, and
    numbers are computed for those that differ and for those of another dtype. Tensors that are left over are looked for
    under other keys by their bytes.

    Args:
        old: the first checkpoint.
        new: the second.
        only: key patterns; if any are given, other tensors and entries that are not tensors are left out.
        tolerance: what still counts as same.
        keys_only: compare headers only; then "same" says nothing of values.
        threads: how many at most.
        progress: called with (bytes compared, bytes in all).

    Raises:
        UsageError: a pattern is malformed or matches no key of either side.
        UnreadableError: a file ends early, or changes while it is read.
    """
    collecting = gc.isenabled()
    gc.disable()  # up to millions of small objects, none of them garbage
    try:
        return _compared(old, new, only, tolerance, keys_only, threads, progress)
    finally:
        if collecting:
            gc.enable()


def _compared(
    old: Checkpoint,
    new: Checkpoint,
    only: Sequence[str],
    tolerance: Tolerance,
    keys_only: bool,
    threads: int,
    progress: Progress | None,
) -> Diff:
    old_prefix, new_prefix = seen_through(old, new)
    olds: Tensors = {key[len(old_prefix) :]: tensor for key, tensor in old.items()}
    news: Tensors = {key[len(new_prefix) :]: tensor for key, tensor in new.items()}
    if only:
        olds, news = _only(only, olds, news, new)
    removed = {key: tensor for key, tensor in olds.items() if key not in news}
    added = {key: tensor for key, tensor in news.items() if key not in olds}
    both = {key: (olds[key], tensor) for key, tensor in news.items() if key in olds}
    extras = ([], []) if only else pair_extras(old, new)
    with Reader() as reader:
        renamed = {} if keys_only else find_renames(removed, added, reader, threads)
        valued = {key: pair for key, pair in both.items() if not keys_only and pair[0].shape == pair[1].shape}
        within = [] if keys_only else [pair for extra in extras[0] for pair in extra.pairs or ()]
        verdicts = compare_values(
            [*valued.values(), *within], reader, tolerance=tolerance, threads=threads, progress=progress
        )
        extra_changes = _extra_changes(*extras, verdicts[len(valued) :])
        if extra_changes and not keys_only and is_one_file_twice(old, new, reader):
            extra_changes = []
    if not only:
        extra_changes += metadata_changes(old, new)
        extra_changes += version_changes(old, new, old_prefix, new_prefix)
    judged = dict(zip(valued, verdicts, strict=False))
    notes = _explained(removed, added, renamed, old, new, (old_prefix, new_prefix))
    if only:  # not what is true of the rest
        notes = tuple(note for note in notes if note.keys and all(key in olds or key in news for key in note.keys))
    return Diff(
        old,
        new,
        tuple(_changes(olds, news, renamed, judged)),
        tuple(extra_changes),
        old_prefix,
        new_prefix,
        tolerance,
        keys_only,
        sum(new.nbytes for _, new in valued.values()),
        (*notes, *format_notes(old, new)),
    )


def _only(patterns: Sequence[str], olds: Tensors, news: Tensors, new: Checkpoint) -> tuple[Tensors, Tensors]:
    """The tensors that the patterns mean, by their keys as they are shown or as they are in the files."""
    shown = {tensor.key: key for side in (olds, news) for key, tensor in side.items()}
    names = dict.fromkeys([*news, *olds, *shown])
    chosen: set[str] = set()
    for text in patterns:
        found = require_match(Pattern.parse(text), names, "--only", new.path)
        chosen.update(shown.get(name, name) for name in found)
        chosen.update(found)
    return (
        {key: tensor for key, tensor in olds.items() if key in chosen},
        {key: tensor for key, tensor in news.items() if key in chosen},
    )


def _explained(
    removed: Tensors,
    added: Tensors,
    renamed: Mapping[str, str],
    old: Checkpoint,
    new: Checkpoint,
    prefixes: tuple[str, str],
) -> tuple[Note, ...]:
    """Why keys have no partner."""
    return explain_pair(_left(removed, renamed.values()), _left(added, renamed), old, new, prefixes)


def _left(tensors: Tensors, partners: Iterable[str]) -> list[str]:
    """Keys without a partner."""
    taken = set(partners)
    return [key for key in tensors if key not in taken]


def _changes(
    olds: Tensors, news: Tensors, renamed: Mapping[str, str], verdicts: Mapping[str, Verdict]
) -> Iterable[Change]:
    partner = {key: renamed.get(key, key) for key in news if key in olds or key in renamed}
    for is_new, key in in_order(olds, news, partner):
        if not is_new:
            yield Change(Status.REMOVED, key, olds[key], None)
        elif key in renamed:
            yield Change(Status.RENAMED, key, olds[renamed[key]], news[key])
        elif key not in olds:
            yield Change(Status.ADDED, key, None, news[key])
        else:
            yield _change(key, olds[key], news[key], verdicts.get(key))


def _change(key: str, old: Tensor, new: Tensor, verdict: Verdict | None) -> Change:
    """Of two tensors of one key; without a verdict the headers alone decide."""
    delta = verdict.delta if verdict else None
    if old.shape != new.shape:
        return Change(Status.RESHAPED, key, old, new)
    if old.dtype != new.dtype:
        return Change(Status.CAST, key, old, new, delta)
    if (verdict and not verdict.same) or old.layout != new.layout or not same_quantizer(old, new):
        return Change(Status.CHANGED, key, old, new, delta)
    return Change(Status.SAME, key, old, new, delta)


def _extra_changes(
    both: Sequence[ExtraPair], single: Sequence[ExtraChange], verdicts: Sequence[Verdict]
) -> list[ExtraChange]:
    changes = []
    rest = iter(verdicts)
    for extra in both:
        differing = sum(not verdict.same for _, verdict in zip(extra.pairs or (), rest, strict=False))
        if extra.pairs is None or differing:
            changes.append(extra.change(differing))
    return [*changes, *single]


def parse_tolerance(text: str, base: Tolerance = EXACT) -> Tolerance:
    """``rel=1e-3``, ``abs=1e-6``, ``ulp=2``; several with commas. Bounds that `base` has and `text` has not stay.

    Every bound that is given has to hold. Values within them count as same; NaN and Inf have to be where they were.

    Raises:
        UsageError: it is none of these.

    Example:
        >>> parse_tolerance("rel=1e-3,ulp=2")
        Tolerance(rel=0.001, abs=None, ulp=2)
    """
    bounds = {"rel": base.rel, "abs": base.abs, "ulp": base.ulp}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        try:
            value = int(number) if name == "ulp" else float(number)
        except ValueError:
            value = -1
        if name not in bounds or not 0 <= value < math.inf:
            raise UsageError(
                f'"{part.strip()}" is not a tolerance', hint="write rel=1e-3, abs=1e-6 or ulp=2, joined by commas"
            )
        bounds[name] = value
    ulp = bounds["ulp"]
    return Tolerance(bounds["rel"], bounds["abs"], None if ulp is None else int(ulp))
