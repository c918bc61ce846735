"""`diff` as a document: schema ``ckptool.diff/1``, a row per tensor, never rolled up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from ckptool.commands.diff.result import Change, Changes, Diff, ExtraChange, Models, Status
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.counts import many
from ckptool.core.shell import shell_quote
from ckptool.core.tensor import Tensor
from ckptool.report import document
from ckptool.report.about import ABOUT
from ckptool.report.blocks import Block, Chart, Column, Facts, Next, Notes, Rows, Series, Sides, Totals
from ckptool.report.cells import Cell, Row
from ckptool.report.diff_rows import DiffRow, diff_rows
from ckptool.report.diff_words import SYMBOLS, describe, extras_rows, identical_text, integers, summary_parts
from ckptool.report.document import Answer, Document, Field, Table
from ckptool.report.escape import shell
from ckptool.report.json import file_fields, model_fields, note_fields
from ckptool.report.json_match import match_fields
from ckptool.report.match_rows import match_blocks
from ckptool.report.sides import side_of
from ckptool.report.symbols import LOOKED_FOR, STYLES
from ckptool.report.units import relative, shape_text
from ckptool.values.delta import Delta

if TYPE_CHECKING:
    from ckptool.commands.automatic import Automatic
    from ckptool.commands.checks.finding import Report

_WIDEST = 50  # characters of a pattern that is offered as the next question


def diff_document(
    diff: Diff, names: tuple[str, str], match: Automatic | None = None, verbose: bool = False
) -> Document:
    """A comparison.

    Args:
        diff: it.
        names: both files as they were typed.
        match: the rules that were found, if any were looked for.
        verbose: a row per tensor on a screen.
    """
    return Document(
        command="diff",
        answer=_answer(diff),
        blocks=lambda: _blocks(diff, names, match, verbose),
        table=lambda: Table(_FIELDS, (_row(diff, change) for change in diff.changes), _STATUSES),
        result=lambda: _result(diff, names, match),
        records=lambda: chain(
            map(_change_fields, diff.changes), ({"extra": _extra_fields(extra)} for extra in diff.extras)
        ),
        summary=lambda: {**_counts(diff), "extras": len(diff.extras), "exit_code": int(diff.exit_code)},
        listing=lambda: map(_fields, diff.changes.by_key()),
        findings=lambda: _findings(diff, names),
        about=ABOUT,
        verbose=verbose,
        typed=f"ckptool diff {shell_quote(names[0])} {shell_quote(names[1])}",
    )


def _findings(diff: Diff, names: Sequence[str]) -> Report:
    from ckptool.report.results import diff_findings

    return diff_findings(diff, *names)


def _answer(diff: Diff) -> Answer:
    """Same or different, and how many tensors. A tensor under another name does not differ for that."""
    if diff.is_same:
        return Answer(identical_text(diff), "good")
    total, renamed = len(diff.changes), diff.count(Status.RENAMED)
    differing = total - diff.count(Status.SAME) - renamed
    if not differing and renamed and not diff.extras:
        what = "same specs, other names" if diff.keys_only else "same values, other names"
    elif diff.keys_only:
        what = "different keys or specs"
    elif differing:
        what = "different"
    else:
        what = "different, but not in the tensors"
    same = f"all {total:,} are the same" if total != 1 else "the only one is the same"
    tensors = f"{differing:,} of {many(total, 'tensor')} differ" if differing or renamed else same
    gone, come = diff.count(Status.REMOVED), diff.count(Status.ADDED)
    if gone and come and gone + come == total:
        tensors = f"no tensor has a counterpart ({gone:,} and {many(come, 'tensor')})"
    names = f", {renamed:,} {'is' if renamed == 1 else 'are'} renamed" if renamed else ""
    extras = f", {many(len(diff.extras), 'other entry differs', 'other entries differ')}" if diff.extras else ""
    return Answer(f"{what}: {tensors}{names}{extras}", "bad")


# ---------------------------------------------------------------------------------------------- for people

_COLUMNS = (
    Column("", "mark"),
    Column("key", "key", least=14),
    Column("n", "whole"),
    Column("elements", "count", wide=True, spare=True),
    Column("change", least=22),
    Column("max |Δ|", "real", wide=True),
    Column("1 - cos", "small", wide=True),
    Column("integers", wide=True),
    Column("per tensor", "levels"),
)


def _blocks(diff: Diff, names: tuple[str, str], match: Automatic | None, verbose: bool) -> Iterator[Block]:
    """Who the two are, the rolled-up table, the notes, and the counts; of two that are the same, warnings alone."""
    brief = diff.is_same and not verbose
    sides = side_of(diff.old, names[0], "-"), side_of(diff.new, names[1], "+")
    if diff.models is not None and diff.models.text:
        yield Facts((("models", (diff.models.text,)),))
    yield Sides(sides, on_screen=not brief)
    yield Notes([*_prefixes(diff), *(note for note in diff.notes if note.level == "warning")])
    yield from match_blocks(match)
    if brief:
        return
    rows = diff_rows(diff)
    extras = [Row((symbol, "(not tensors)", len(of), None, ", ".join(of))) for symbol, of in extras_rows(diff.extras)]
    each = Rows(_COLUMNS, lambda: [*map(_cells, diff_rows(diff, each=True)), *extras])
    yield Rows(_COLUMNS, lambda: [*map(_cells, rows), *extras], each if len(rows) < len(diff.changes) else None)
    yield _chart(diff)
    yield Notes([note for note in diff.notes if note.level != "warning"])
    if not diff.is_same:
        yield Totals(tuple(summary_parts(diff)))
        yield Next(tuple(_next(rows, verbose)))


def _chart(diff: Diff) -> Chart:
    """The relative change of the tensors of floats over the depth of the model."""
    deltas = ((change.key, change.delta) for change in diff.changes.with_numbers if change.delta is not None)
    found = {key: delta.rel for key, delta in deltas if delta.rel is not None and delta.old_range is None}
    return Chart(
        "change over depth", tuple(found), (Series("relative change", tuple(found.values()), "rel", log=True),)
    )


def _prefixes(diff: Diff) -> Iterator[Note]:
    for keys, prefix, which in ((diff.old, diff.old_prefix, "old"), (diff.new, diff.new_prefix, "new")):
        if prefix:
            having = sum(key.startswith(prefix) for key in keys)
            some = f"every {which} key begins" if having == len(keys) else f"{having:,} {which} keys begin"
            yield Note(f'{some} with "{prefix}"; compared without it')


def _cells(row: DiffRow) -> Row:
    floats = [delta for delta in row.deltas if delta.old_range is None]
    largest = max((delta.max_abs for delta in floats if delta.max_abs is not None), default=None)
    cosine = min((delta.cosine for delta in floats if delta.cosine is not None), default=None)
    numbers = integers(row.changes)
    key = Cell(
        row.shown or row.key,
        LOOKED_FOR.get(SYMBOLS[row.status], "") if row.status in (Status.RESHAPED, Status.REMOVED) else "",
    )
    return Row(
        (
            *(SYMBOLS[row.status], key, len(row.changes), row.elements, row.what, largest),
            None if cosine is None else max(0.0, 1 - cosine),
            None if numbers in row.what else numbers,  # alone they stand in the change column
            [delta.rel for delta in floats if delta.rel is not None] or None,
        ),
        "dim" if row.status is Status.SAME else "",
    )


def _next(rows: Sequence[DiffRow], verbose: bool) -> Iterator[str]:
    if not verbose and any(len(row.changes) > 1 for row in rows):
        yield "deeper: -v"
    differing = (row for row in rows if row.status is not Status.SAME)
    largest = max(differing, key=lambda row: len(row.changes), default=None)
    if largest is not None and len(largest.changes) > 1 and len(rows) > 1 and len(largest.key) < _WIDEST:
        yield f"one module: --only {shell(largest.key)}"


# ---------------------------------------------------------------------------------------------- for programs

_FATES = (Status.CHANGED, Status.CAST, Status.RESHAPED, Status.RENAMED, Status.ADDED, Status.REMOVED, Status.SAME)
"""The order of the filters: what differs comes first."""
_STATUSES = tuple(document.Status(SYMBOLS[fate], fate.value, STYLES[SYMBOLS[fate]]) for fate in _FATES)
_NUMBERS = ("rel", "max_abs", "cosine", "differing", "ulp")
_FIELDS = (
    Field("status"),
    Field("key"),
    Field("", "tensors", "tensors"),
    Field("", "spec", "spec"),
    Field("", "elements", "count", "add"),
    Field("", "change"),
    Field("", "rel", "rel", "max"),
    Field("", "max |Δ|", "real", "max"),
    Field("", "1 - cos", "small", "max"),
    Field("old_key", "old key", "key", panel=True),
    Field("", "old spec", panel=True),
    Field("old_dtype"),
    Field("old_shape"),
    *map(Field, ("new_key", "new_dtype", "new_shape", "rel", "max_abs", "cosine")),
    Field("differing", "differing elements", "whole", "add", panel=True),
    Field("ulp"),
)


def _row(diff: Diff, change: Change) -> Sequence[Any]:
    shown, old, delta = change.new or change.old, change.old, change.delta
    rel = max_abs = distance = None
    if delta is not None and delta.old_range is None:
        rel, max_abs = delta.rel, delta.max_abs
        distance = None if delta.cosine is None else max(0.0, 1 - delta.cosine)
    what = describe(Changes.of([change]), diff)
    is_told = rel is not None and what.startswith("rel ") and "," not in what  # the numbers stand beside it
    spec = ("", 0) if shown is None else (shown.spec.short, shown.elements)
    numbers = [None] * len(_NUMBERS) if delta is None else [getattr(delta, name) for name in _NUMBERS]
    return (
        *(change.status.value, change.key, None, *spec, "" if is_told else what, rel, max_abs, distance),
        *((None, None, None, None) if old is None else (old.key, old.spec.short, old.dtype, shape_text(old.shape))),
        *_side_cells(change.new),
        *numbers,
    )


def _side_cells(tensor: Tensor | None) -> tuple[Any, ...]:
    return (None, None, None) if tensor is None else (tensor.key, tensor.dtype, shape_text(tensor.shape))


def _fields(change: Change) -> tuple[str, ...]:
    """``status, key, old spec, new spec, rel``; ``-`` where there is none."""
    rel = change.delta.rel if change.delta is not None else None
    return (
        change.status.value,
        change.key,
        change.old.spec.short if change.old is not None else "-",
        change.new.spec.short if change.new is not None else "-",
        "-" if rel is None else relative(rel),
    )


def _counts(diff: Diff) -> Mapping[str, int]:
    return {status.value: diff.count(status) for status in Status}


def _result(diff: Diff, names: tuple[str, str], match: Automatic | None) -> list[tuple[str, Any]]:
    """A comparison: schema ``ckptool.diff/1``."""
    return [
        ("schema", "ckptool.diff/1"),
        ("exit_code", int(diff.exit_code)),
        ("old", _side(diff.old, names[0], diff.old_prefix)),
        ("new", _side(diff.new, names[1], diff.new_prefix)),
        ("summary", _counts(diff)),
        ("compared_bytes", diff.compared_nbytes),
        ("keys_only", diff.keys_only),
        ("tolerance", {"rel": diff.tolerance.rel, "abs": diff.tolerance.abs, "ulp": diff.tolerance.ulp}),
        ("match", match_fields(match)),
        ("changes", map(_change_fields, diff.changes)),
        ("extras", [_extra_fields(extra) for extra in diff.extras]),
        ("models", None if diff.models is None else _models(diff.models)),
        ("notes", [note_fields(note) for note in diff.notes]),
    ]


def _models(models: Models) -> dict[str, Any]:
    """What differs between the models of both sides."""
    return {
        "old": model_fields(models.old),
        "new": model_fields(models.new),
        "text": models.text,
        "explained": [{"text": each.text, "keys": sorted(each.keys)} for each in models.explained],
    }


def _side(checkpoint: Checkpoint, name: str, prefix: str) -> dict[str, Any]:
    return {**file_fields(checkpoint, name), "tensors": len(checkpoint), "prefix": prefix}


def _change_fields(change: Change) -> dict[str, Any]:
    """One tensor of a comparison."""
    return {
        "status": change.status.value,
        "key": change.key,
        "old": _spec(change.old),
        "new": _spec(change.new),
        "delta": None if change.delta is None else _delta(change.delta),
        **({"sources": change.sources} if change.sources else {}),
        **({"layout": change.how} if change.how else {}),
    }


def _extra_fields(extra: ExtraChange) -> dict[str, Any]:
    """One entry of a comparison that is not a selected tensor."""
    return {"status": extra.status.value, "name": extra.name, "old": extra.old, "new": extra.new}


def _spec(tensor: Tensor | None) -> dict[str, Any] | None:
    return None if tensor is None else {"key": tensor.key, "dtype": tensor.dtype, "shape": tensor.shape}


def _delta(delta: Delta) -> dict[str, Any]:
    return {
        "rel": delta.rel,
        "max_abs": delta.max_abs,
        "cosine": delta.cosine,
        "differing": delta.differing,
        "nonfinite": delta.nonfinite,
        "ulp": delta.ulp,
        "old_range": delta.old_range,
        "new_range": delta.new_range,
    }
