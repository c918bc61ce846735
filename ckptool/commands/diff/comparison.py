"""Two checkpoints -> Diff: keys, shapes, dtypes, then values, then everything else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ckptool.commands.consult import comparison_notes
from ckptool.commands.diff.architectures import models_of
from ckptool.commands.diff.explaining import explain_pair, statistics_notes
from ckptool.commands.diff.extras import (
    ExtraPair,
    code_changes,
    format_notes,
    is_one_file_twice,
    metadata_changes,
    pair_extras,
    same_quantizer,
    version_changes,
)
from ckptool.commands.diff.logical import logical_sides
from ckptool.commands.diff.pairing import in_order, seen_through
from ckptool.commands.diff.renames import find_renames
from ckptool.commands.diff.result import Change, Diff, ExtraChange, Status
from ckptool.core.checkpoint import Checkpoint, Note, Tensor
from ckptool.core.collector import collector_paused
from ckptool.core.errors import UsageError
from ckptool.core.keys import Pattern
from ckptool.core.near_miss import require_match
from ckptool.engine.reading import Reader
from ckptool.values.comparing import EXACT, Progress, Verdict, compare_values
from ckptool.values.delta import Tolerance
from ckptool.values.mapped import Mapped


def compare(
    old: Checkpoint,
    new: Checkpoint,
    *,
    only: Sequence[str] = (),
    tolerance: Tolerance = EXACT,
    keys_only: bool = False,
    threads: int = 2,
    progress: Progress | None = None,
    mapped: Sequence[Mapped] | None = None,
) -> Diff:
    """Compare two checkpoints of any formats.

    Quantized tensors of one side are compared as numbers, see `ckptool.commands.diff.logical`.
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
        mapped: old tensors under new keys, where rules say how they go together. By default they go by their keys,
            prefixes seen through.

    Raises:
        UsageError: a pattern is malformed or matches no key of either side.
        UnreadableError: a file ends early, or changes while it is read.
    """
    if mapped is None:
        old, new = logical_sides(old, new)
    with collector_paused():
        return _compared(old, new, only, tolerance, keys_only, threads, progress, mapped)


@dataclass(slots=True)
class _Sides:
    """Who stands against whom.

    Attributes:
        both: new key -> the pair.
        removed: by old key, those without a partner.
        added: the same by new key.
        mapped: by new key, those that rules brought together.
        prefixes: of all old and of all new keys, which were seen through.
    """

    both: dict[str, tuple[Tensor, Tensor]]
    removed: dict[str, Tensor]
    added: dict[str, Tensor]
    mapped: Mapping[str, Mapped]
    prefixes: tuple[str, str]

    @property
    def keys(self) -> set[str]:
        """All keys of either side that are shown."""
        return {*self.both, *self.removed, *self.added}


def _sides(old: Checkpoint, new: Checkpoint, mapped: Sequence[Mapped] | None) -> _Sides:
    """The tensors of both sides, put together by rules and by keys."""
    if mapped is None:
        before, after = seen_through(old, new)
        olds = {key[len(before) :]: tensor for key, tensor in old.items()}
        known = {}
    else:
        before, after = "", ""
        known = {one.key: one for one in mapped if one.key in new}
        olds = {one.key: one.tensor for one in known.values()}
    news = {key[len(after) :]: tensor for key, tensor in new.items()}
    both = {key: (olds[key], tensor) for key, tensor in news.items() if key in olds}
    if mapped is not None:  # what rules drop, or make a key of that the other side has not
        used = {key for one in known.values() for key in one.sources}
        olds = {key: tensor for key, tensor in old.items() if key not in used}
    return _Sides(
        both,
        {key: tensor for key, tensor in olds.items() if mapped is not None or key not in both},
        {key: tensor for key, tensor in news.items() if key not in both},
        known,
        (before, after),
    )


def _compared(
    old: Checkpoint,
    new: Checkpoint,
    only: Sequence[str],
    tolerance: Tolerance,
    keys_only: bool,
    threads: int,
    progress: Progress | None,
    mapped: Sequence[Mapped] | None,
) -> Diff:
    sides = _sides(old, new, mapped)
    if only:
        sides = _only(only, sides, new)
    extras = ([], []) if only else pair_extras(old, new)
    with Reader(() if keys_only else (old, new)) as reader:
        renamed = {} if keys_only or mapped is not None else find_renames(sides.removed, sides.added, reader, threads)
        valued = {key: pair for key, pair in sides.both.items() if not keys_only and pair[0].shape == pair[1].shape}
        within = [] if keys_only else [pair for extra in extras[0] for pair in extra.pairs or ()]
        verdicts = compare_values(
            [*valued.values(), *within], reader, tolerance=tolerance, threads=threads, progress=progress
        )
        extra_changes = _extra_changes(*extras, verdicts[len(valued) :])
        if extra_changes and not keys_only and is_one_file_twice(old, new, reader):
            extra_changes = []
    if not only:
        extra_changes += [*code_changes(old, new), *metadata_changes(old, new)]
        extra_changes += version_changes(old, new, *sides.prefixes)
    judged = dict(zip(valued, verdicts, strict=False))
    notes = _explained(sides, renamed, old, new) if mapped is None else ()
    if only:  # not what is true of the rest
        known = sides.keys
        notes = tuple(note for note in notes if note.keys and all(key in known for key in note.keys))
    changes = tuple(_changes(old, new, sides, renamed, judged))
    if mapped is None and not keys_only:
        notes = (*notes, *statistics_notes(changes))
    return Diff(
        old,
        new,
        changes,
        tuple(extra_changes),
        *sides.prefixes,
        tolerance,
        keys_only,
        sum(new.nbytes for _, new in valued.values()),
        (*notes, *format_notes(old, new), *(() if only else comparison_notes(old, new))),
        None if only else models_of(old, new, changes),
    )


def _only(patterns: Sequence[str], sides: _Sides, new: Checkpoint) -> _Sides:
    """The tensors that the patterns mean, by their keys as they are shown or as they are in the files."""
    shown = {tensor.key: key for side in (sides.removed, sides.added) for key, tensor in side.items()}
    shown |= {tensor.key: key for key, pair in sides.both.items() for tensor in pair}
    names = dict.fromkeys([*sides.both, *sides.added, *sides.removed, *shown])
    chosen: set[str] = set()
    for text in patterns:
        found = require_match(Pattern.parse(text), names, "--only", new.path)
        chosen.update(shown.get(name, name) for name in found)
        chosen.update(found)
    return replace(
        sides,
        both={key: pair for key, pair in sides.both.items() if key in chosen},
        removed={key: tensor for key, tensor in sides.removed.items() if key in chosen},
        added={key: tensor for key, tensor in sides.added.items() if key in chosen},
    )


def _explained(sides: _Sides, renamed: Mapping[str, str], old: Checkpoint, new: Checkpoint) -> tuple[Note, ...]:
    """Why keys have no partner."""
    return explain_pair(_left(sides.removed, renamed.values()), _left(sides.added, renamed), old, new, sides.prefixes)


def _left(tensors: Iterable[str], partners: Iterable[str]) -> list[str]:
    """Keys without a partner."""
    taken = set(partners)
    return [key for key in tensors if key not in taken]


def _changes(
    old: Checkpoint, new: Checkpoint, sides: _Sides, renamed: Mapping[str, str], verdicts: Mapping[str, Verdict]
) -> Iterable[Change]:
    olds, news = ([key[len(cut) :] for key in side] for side, cut in zip((old, new), sides.prefixes, strict=True))
    partner = {key: sides.mapped[key].sources[0] if key in sides.mapped else key for key in sides.both}
    for is_new, key in in_order(olds, news, {**partner, **renamed}):
        if is_new and key in renamed:
            yield Change(Status.RENAMED, key, sides.removed[renamed[key]], sides.added[key])
        elif is_new and key in sides.added:
            yield Change(Status.ADDED, key, None, sides.added[key])
        elif is_new and key in sides.both:
            yield _change(key, *sides.both[key], verdicts.get(key), sides.mapped.get(key))
        elif not is_new and key in sides.removed:
            yield Change(Status.REMOVED, key, sides.removed[key], None)


def _change(key: str, old: Tensor, new: Tensor, verdict: Verdict | None, mapped: Mapped | None = None) -> Change:
    """Of two tensors that belong together; without a verdict the headers alone decide."""
    delta = verdict.delta if verdict else None
    sources, how = (mapped.sources, mapped.how) if mapped is not None else ((key,), "")
    if old.shape != new.shape:
        status = Status.RESHAPED
    elif old.dtype != new.dtype:
        status = Status.CAST
    elif (verdict and not verdict.same) or old.layout != new.layout or not same_quantizer(old, new):
        status = Status.CHANGED
    elif how:
        status = Status.RESHAPED
    else:
        status = Status.SAME if sources == (key,) else Status.RENAMED
    return Change(status, key, old, new, delta, () if sources == (key,) else sources, how)


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
