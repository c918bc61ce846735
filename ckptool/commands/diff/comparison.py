"""Two checkpoints -> Diff: keys, shapes, dtypes, then values, then everything else."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from ckptool.commands.diff.pairing import Side, in_order, seen_through
from ckptool.commands.diff.renames import find_renames
from ckptool.commands.diff.result import Change, Changes, Diff, ExtraChange, Status
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.collector import collector_paused
from ckptool.core.errors import UsageError
from ckptool.core.keys import Pattern
from ckptool.core.near_miss import require_match
from ckptool.core.spec import Form
from ckptool.core.tensor import Tensor, form_of
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
        old: the tensors of the old side, without the prefix that was seen through.
        new: those of the new one.
        both: keys of both sides.
        removed: old keys without a partner.
        added: new keys without a partner.
        mapped: by new key, those that rules brought together.
    """

    old: Side
    new: Side
    both: Mapping[str, None]
    removed: Mapping[str, None]
    added: Mapping[str, None]
    mapped: Mapping[str, Mapped]

    @property
    def keys(self) -> set[str]:
        """All keys of either side that are shown."""
        return {*self.both, *self.removed, *self.added}

    @property
    def left(self) -> tuple[tuple[Side, Mapping[str, None]], ...]:
        """Each side, and its keys without a partner."""
        return (self.old, self.removed), (self.new, self.added)

    def pair(self, key: str) -> tuple[Tensor, Tensor]:
        """The two tensors of a key that both have."""
        mapped = self.mapped.get(key)
        return self.old[key] if mapped is None else mapped.tensor, self.new[key]

    def pairs(self) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
        """Every key that both have, with the two tensors."""
        return ((key, self.pair(key)) for key in self.both)

    def forms(self) -> Iterator[tuple[Form, Form]]:
        """Dtype, shape and size of the two tensors of every key that both have."""
        keys = list(self.both)
        if self.mapped:
            return ((form_of(self.mapped[key].tensor), self.new.form(key)) for key in keys)
        return zip(self.old.forms(keys), self.new.forms(keys), strict=True)


def _sides(old: Checkpoint, new: Checkpoint, mapped: Sequence[Mapped] | None) -> _Sides:
    """The tensors of both sides, put together by rules and by keys."""
    if mapped is not None:  # what is left are tensors that rules drop, or make a key of that the other side has not
        known = {one.key: one for one in mapped if one.key in new}
        used = {key for one in known.values() for key in one.sources}
        both = dict.fromkeys(key for key in new if key in known)
        removed = dict.fromkeys(key for key in old if key not in used)
        return _Sides(Side(old), Side(new), both, removed, _without(new, both), known)
    before, after = seen_through(old, new)
    olds, news = Side(old, before), Side(new, after)
    names = list(news)
    both = dict.fromkeys(names if names == list(olds) else [key for key in names if key in olds])
    return _Sides(olds, news, both, _without(olds, both), _without(news, both), {})


def _without(keys: Collection[str], both: Mapping[str, None]) -> dict[str, None]:
    """Keys without a partner."""
    return {} if len(keys) == len(both) else dict.fromkeys(key for key in keys if key not in both)


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
        renamed: dict[str, str] = {}
        if not keys_only and mapped is None:
            removed, added = ({key: side[key] for key in left} for side, left in sides.left)
            renamed = find_renames(removed, added, reader, threads)
        valued = {} if keys_only else {key: pair for key, pair in sides.pairs() if pair[0].shape == pair[1].shape}
        within = [] if keys_only else [pair for extra in extras[0] for pair in extra.pairs or ()]
        verdicts = compare_values(
            [*valued.values(), *within], reader, tolerance=tolerance, threads=threads, progress=progress
        )
        extra_changes = _extra_changes(*extras, verdicts[len(valued) :])
        if extra_changes and not keys_only and is_one_file_twice(old, new, reader):
            extra_changes = []
    if not only:
        extra_changes += [*code_changes(old, new), *metadata_changes(old, new)]
        extra_changes += version_changes(old, new, sides.old.prefix, sides.new.prefix)
    judged = dict(zip(valued, verdicts, strict=False))
    notes = _explained(sides, renamed, old, new) if mapped is None else ()
    if only:  # not what is true of the rest
        known = sides.keys
        notes = tuple(note for note in notes if note.keys and all(key in known for key in note.keys))
    changes = _changes(sides, renamed, judged)
    if mapped is None and not keys_only:
        notes = (*notes, *statistics_notes(changes))
    return Diff(
        old,
        new,
        changes,
        tuple(extra_changes),
        sides.old.prefix,
        sides.new.prefix,
        tolerance,
        keys_only,
        sum(new.nbytes for _, new in valued.values()),
        (*notes, *format_notes(old, new), *(() if only else comparison_notes(old, new))),
        None if only else models_of(old, new, changes),
    )


def _only(patterns: Sequence[str], sides: _Sides, new: Checkpoint) -> _Sides:
    """The tensors that the patterns mean, by their keys as they are shown or as they are in the files."""
    shown = {side.whole(key): key for side, left in sides.left for key in left}
    shown |= {side.whole(key): key for side in (sides.old, sides.new) for key in sides.both}
    shown |= {mapped.tensor.key: key for key, mapped in sides.mapped.items() if key in sides.both}
    names = dict.fromkeys([*sides.both, *sides.added, *sides.removed, *shown])
    chosen: set[str] = set()
    for text in patterns:
        found = require_match(Pattern.parse(text), names, "--only", new.path)
        chosen.update(shown.get(name, name) for name in found)
        chosen.update(found)
    return replace(
        sides,
        both=dict.fromkeys(key for key in sides.both if key in chosen),
        removed=dict.fromkeys(key for key in sides.removed if key in chosen),
        added=dict.fromkeys(key for key in sides.added if key in chosen),
    )


def _explained(sides: _Sides, renamed: Mapping[str, str], old: Checkpoint, new: Checkpoint) -> tuple[Note, ...]:
    """Why keys have no partner."""
    found = set(renamed.values())
    removed = [key for key in sides.removed if key not in found]
    added = [key for key in sides.added if key not in renamed]
    return explain_pair(removed, added, old, new, (sides.old.prefix, sides.new.prefix))


def _changes(sides: _Sides, renamed: Mapping[str, str], verdicts: Mapping[str, Verdict]) -> Changes:
    """What became of every tensor, in the order of the new side."""
    status_of = dict(zip(sides.both, _statuses(sides, verdicts), strict=True))
    if len(status_of) == len(sides.old) == len(sides.new) and not verdicts and not sides.mapped:
        return Changes(list(status_of), list(status_of.values()), {}, (sides.old, sides.new))
    partners = {key: mapped.sources[0] for key, mapped in sides.mapped.items() if key in sides.both}
    order = in_order(sides.old, sides.new, {**partners, **renamed}, () if sides.mapped else sides.both)
    keys: list[str] = []
    statuses: list[Status] = []
    special: dict[int, Change] = {}
    for is_new, key in order:
        status: Status | None = None
        if is_new and key in status_of:
            status = status_of[key]
            mapped, verdict = sides.mapped.get(key), verdicts.get(key)
            delta = None if verdict is None else verdict.delta
            if mapped is not None or delta is not None:
                sources = () if mapped is None or mapped.sources == (key,) else mapped.sources
                how = "" if mapped is None else mapped.how
                special[len(keys)] = Change(status, key, *sides.pair(key), delta, sources, how)
        elif is_new and key in renamed:
            status = Status.RENAMED
            special[len(keys)] = Change(status, key, sides.old[renamed[key]], sides.new[key])
        elif is_new and key in sides.added:
            status = Status.ADDED
        elif not is_new and key in sides.removed:
            status = Status.REMOVED
        if status is not None:
            keys.append(key)
            statuses.append(status)
    return Changes(keys, statuses, special, (sides.old, sides.new))


def _statuses(sides: _Sides, verdicts: Mapping[str, Verdict]) -> Iterator[Status]:
    """What became of each tensor that both sides have; without a verdict the headers alone decide."""
    for key, (old, new) in zip(sides.both, sides.forms(), strict=True):
        verdict, mapped = verdicts.get(key), sides.mapped.get(key)
        if old.shape != new.shape:
            yield Status.RESHAPED
        elif old.dtype != new.dtype:
            yield Status.CAST
        elif (
            (verdict is not None and not verdict.same)
            or old.layout != new.layout
            or (old.layout == "quantized" and not same_quantizer(*sides.pair(key)))
        ):
            yield Status.CHANGED
        elif mapped is None:
            yield Status.SAME
        elif mapped.how:
            yield Status.RESHAPED
        else:
            yield Status.SAME if mapped.sources == (key,) else Status.RENAMED


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
