"""`diff` as a document: schema ``ckptool.diff/1``, a row per tensor, never rolled up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from ckptool.commands.automatic import Automatic
from ckptool.commands.diff.result import Change, Diff, ExtraChange, Models, Status
from ckptool.core.checkpoint import Checkpoint, Tensor
from ckptool.report.diff_rows import identical_text
from ckptool.report.document import Answer, Cell, Document, Table
from ckptool.report.document_inspect import shape_text
from ckptool.report.html_diff import diff_html
from ckptool.report.json import file_fields, model_fields, note_fields
from ckptool.report.json_match import match_fields
from ckptool.report.markdown import diff_markdown
from ckptool.report.markdown_match import match_markdown
from ckptool.report.results import ABOUT, diff_findings
from ckptool.report.text import Line, Screen
from ckptool.report.text_diff import diff_lines
from ckptool.report.text_match import match_lines
from ckptool.report.units import number_of, relative
from ckptool.values.delta import Delta

_SIDE = ("key", "dtype", "shape")
_NUMBERS = ("rel", "max_abs", "cosine", "differing", "ulp")
_COLUMNS = ("status", "key", *(f"old_{name}" for name in _SIDE), *(f"new_{name}" for name in _SIDE), *_NUMBERS)


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

    def screen_lines(screen: Screen) -> Iterator[Line]:
        if match is not None:
            yield from match_lines(match, screen)
            yield ()
        yield from diff_lines(diff, names, screen, verbose)

    return Document(
        command="diff",
        answer=_answer(diff),
        result=lambda: _result(diff, names, match),
        records=lambda: chain(
            map(_change_fields, diff.changes), ({"extra": _extra_fields(extra)} for extra in diff.extras)
        ),
        summary=lambda: {**_counts(diff), "extras": len(diff.extras), "exit_code": int(diff.exit_code)},
        table=lambda: Table(_COLUMNS, map(_row, diff.changes)),
        listing=lambda: map(_fields, sorted(diff.changes, key=lambda change: change.key)),
        screen=screen_lines,
        markdown=lambda: chain(diff_markdown(diff, *names), match_markdown(match)),
        html=lambda: diff_html(diff, *names),
        findings=lambda: diff_findings(diff, *names),
        about=ABOUT,
    )


def _answer(diff: Diff) -> Answer:
    """Same or different, and how many tensors."""
    if diff.is_same:
        return Answer(identical_text(diff), "good")
    total = len(diff.changes)
    differing = total - diff.count(Status.SAME)
    if diff.keys_only:
        what = "different keys or specs"
    elif differing:
        what = "different"
    else:
        what = "different, but not in the tensors"
    tensors = f"{differing:,} of {number_of(total, 'tensor')} differ" if differing else f"all {total:,} are the same"
    extras = f", {number_of(len(diff.extras), 'other entry differs', 'other entries differ')}" if diff.extras else ""
    return Answer(f"{what}: {tensors}{extras}", "bad")


def _row(change: Change) -> Sequence[Cell]:
    delta = change.delta
    numbers = [None] * len(_NUMBERS) if delta is None else [getattr(delta, name) for name in _NUMBERS]
    return (change.status.value, change.key, *_side_cells(change.old), *_side_cells(change.new), *numbers)


def _side_cells(tensor: Tensor | None) -> tuple[Cell, ...]:
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
