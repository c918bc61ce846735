"""JSON: one document on stdout, stable field names, every tensor in a line of its own.

Names stand there exactly as the file has them. Only ASCII is written, so no name can act on a terminal, and lone
surrogates survive. Numbers that JSON cannot say (NaN, Inf) are the strings "nan", "inf", "-inf".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ckptool.commands.diff.result import Change, Diff, ExtraChange, Status
from ckptool.core.checkpoint import Checkpoint, Extra, GlobalUse, Note, Tensor
from ckptool.core.errors import CkptError
from ckptool.core.spec import packed_nbytes
from ckptool.report.inspection import Inspection
from ckptool.values.delta import Delta

if TYPE_CHECKING:
    from ckptool.values.stats import Stats

_LARGEST = 1 << 63  # integers beyond are given as text: other readers would round them


def encode(value: Any) -> str:
    """A value as JSON in ASCII.

    Example:
        >>> encode({"key": "é\\x1b", "rel": float("nan")})
        '{"key": "\\\\u00e9\\\\u001b", "rel": "nan"}'
    """
    return json.dumps(_sayable(value), ensure_ascii=True, allow_nan=False)


def _sayable(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {key: _sayable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_sayable(item) for item in value]
    return value


def document(fields: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """An object, piece by piece. An iterator as a value becomes an array with an item per line."""
    separator = "{"
    for name, value in fields:
        yield f"{separator}{encode(name)}: "
        if isinstance(value, Iterator):
            yield from _array(value)
        else:
            yield encode(value)
        separator = ",\n"
    yield "}\n"


def _array(items: Iterator[Any]) -> Iterator[str]:
    separator = "[\n"
    for item in items:
        yield f"{separator}{encode(item)}"
        separator = ",\n"
    yield "[]" if separator == "[\n" else "]"


def error_json(error: CkptError) -> str:
    """An error as the object that ``--json`` promises."""
    said = {
        "code": error.code,
        "message": error.message,
        "detail": list(error.detail),
        "path": None if error.path is None else str(error.path),
        "key": error.key,
        "hint": error.hint,
    }
    return encode({"schema": "ckptool.error/1", "error": said})


def inspect_json(report: Inspection) -> Iterator[str]:
    """A checkpoint: schema ``ckptool.inspect/1``."""
    yield from document(
        [
            ("schema", "ckptool.inspect/1"),
            ("file", file_fields(report.checkpoint, report.name)),
            ("summary", summary_fields(report)),
            ("tensors", (tensor_fields(report, tensor) for tensor in report.tensors)),
            ("extras", extras_fields(report.checkpoint.extras)),
            ("metadata", dict(report.checkpoint.metadata)),
            ("module_versions", report.checkpoint.module_versions),
            ("ties", report.ties),
            ("notes", [note_fields(note) for note in report.notes]),
            ("globals", [_global_fields(use) for use in report.checkpoint.globals]),
            ("unsafe_globals", [use.name for use in report.dangerous]),
        ]
    )


def file_fields(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """A file or folder and which of its weights were taken."""
    selection = checkpoint.selection
    return {
        "path": name,
        "format": str(checkpoint.format),
        "bytes": checkpoint.nbytes,
        "files": [str(file.path) for file in checkpoint.files],
        "selected": list(selection.path),
        "why": selection.why,
        "others": list(selection.others),
        "ema": selection.ema,
    }


def summary_fields(report: Inspection) -> dict[str, Any]:
    """The totals of what is shown."""
    return {
        "tensors": len(report.keys),
        "of": len(report.checkpoint),
        "elements": report.elements,
        "bytes": report.nbytes,
        "dtypes": dict(report.dtypes),
    }


def tensor_fields(report: Inspection, tensor: Tensor) -> dict[str, Any]:
    """One tensor: its spec, where its bytes are, and its numbers if they were asked for."""
    file, offset = _place(tensor)
    fields: dict[str, Any] = {
        "key": tensor.key,
        "dtype": tensor.dtype,
        "shape": tensor.shape,
        "elements": tensor.elements,
        "bytes": tensor.nbytes,
        "offset": offset,
        "file": file,
        "tied_to": report.tied_to.get(tensor.key),
    }
    if tensor.layout != "strided":
        fields["layout"] = tensor.layout
    if len(tensor.pieces) > 1:
        fields["chunks"] = len(tensor.pieces)
    if tensor.key in report.stats:
        fields["stats"] = stats_fields(report.stats[tensor.key])
    return fields


def _place(tensor: Tensor) -> tuple[str | None, int | None]:
    """(file name, byte offset of the first element); (None, None) if it is not in one place."""
    if len(tensor.pieces) != 1:
        return None, None
    piece = tensor.pieces[0]
    return piece.storage.file.name, piece.storage.offset + packed_nbytes(tensor.dtype, (piece.start,))


def extras_fields(extras: Sequence[Extra]) -> dict[str, Any]:
    """What is not a selected tensor: plain values as they are, the rest as its text and what it holds."""
    fields: dict[str, Any] = {}
    for extra in extras:
        name, again = extra.name, 2
        while name in fields:  # two keys of a pickle may look the same as text: 1 and "1"
            name, again = f"{extra.name}#{again}", again + 1
        fields[name] = _plain(extra)
    return fields


def _plain(extra: Extra) -> Any:
    value = extra.node
    if isinstance(value, str | bool | float) or (isinstance(value, int) and abs(value) < _LARGEST):
        return value
    if value is None and extra.text == "None":
        return None
    return {"text": extra.text, "tensors": extra.tensors, "bytes": extra.nbytes}


def note_fields(note: Note) -> dict[str, Any]:
    """A note with all its keys."""
    return {"level": note.level, "text": note.text, "hint": note.hint, "keys": list(note.keys)}


def _global_fields(use: GlobalUse) -> dict[str, Any]:
    return {"name": use.name, "risk": use.risk, "calls": use.calls, "arguments": use.arguments}


def diff_json(diff: Diff, old_name: str, new_name: str, match: dict[str, Any] | None = None) -> Iterator[str]:
    """A comparison: schema ``ckptool.diff/1``. Every tensor is listed, never rolled up.

    Args:
        diff: it.
        old_name: of the one file, as it was typed.
        new_name: of the other.
        match: the fields of the rules that were found, if any were looked for.
    """
    yield from document(
        [
            ("schema", "ckptool.diff/1"),
            ("exit_code", int(diff.exit_code)),
            ("old", _side(diff.old, old_name, diff.old_prefix)),
            ("new", _side(diff.new, new_name, diff.new_prefix)),
            ("summary", {status.value: diff.count(status) for status in Status}),
            ("compared_bytes", diff.compared_nbytes),
            ("keys_only", diff.keys_only),
            ("tolerance", {"rel": diff.tolerance.rel, "abs": diff.tolerance.abs, "ulp": diff.tolerance.ulp}),
            ("match", match),
            ("changes", (change_fields(change) for change in diff.changes)),
            ("extras", [extra_change_fields(extra) for extra in diff.extras]),
            ("notes", [note_fields(note) for note in diff.notes]),
        ]
    )


def _side(checkpoint: Checkpoint, name: str, prefix: str) -> dict[str, Any]:
    return {**file_fields(checkpoint, name), "tensors": len(checkpoint), "prefix": prefix}


def change_fields(change: Change) -> dict[str, Any]:
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


def extra_change_fields(extra: ExtraChange) -> dict[str, Any]:
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


def stats_fields(stats: Stats) -> dict[str, Any]:
    """The numbers of one tensor, by their names."""
    import dataclasses

    return dataclasses.asdict(stats)
