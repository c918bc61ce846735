"""A checkpoint as JSON: schema ``ckptool.inspect/1``, every tensor in a line of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ckptool.core.checkpoint import Extra, GlobalUse
from ckptool.core.ranks import Ranks
from ckptool.core.spec import packed_nbytes
from ckptool.core.tensor import Tensor
from ckptool.facts.architecture import Architecture
from ckptool.facts.registry import facts_of
from ckptool.report.inspection import Inspection
from ckptool.report.json import file_fields, model_fields, note_fields, stats_fields

_LARGEST = 1 << 63  # integers beyond are given as text: other readers would round them


def inspect_result(report: Inspection) -> list[tuple[str, Any]]:
    """A checkpoint and what was asked about it."""
    return [
        ("schema", "ckptool.inspect/1"),
        ("file", file_fields(report.checkpoint, report.name)),
        ("summary", summary_fields(report)),
        ("tensors", (tensor_fields(report, tensor) for tensor in report.tensors)),
        ("extras", _extras_fields(report.checkpoint.extras)),
        ("metadata", dict(report.checkpoint.metadata)),
        ("module_versions", report.checkpoint.module_versions),
        *([("ranks", _ranks_fields(ranks))] if (ranks := report.checkpoint.ranks) is not None else []),
        ("ties", report.ties),
        ("models", [model_fields(fact) for fact in facts_of(report.checkpoint) if isinstance(fact, Architecture)]),
        ("notes", [note_fields(note) for note in report.notes]),
        ("globals", [_global_fields(use) for use in report.checkpoint.globals]),
        ("unsafe_globals", [use.name for use in report.dangerous]),
    ]


def _ranks_fields(ranks: Ranks) -> dict[str, Any]:
    """The ranks of a training run that hold the checkpoint together."""
    return {
        "count": ranks.count,
        "mesh": {"names": [name for name, _ in ranks.mesh], "shape": [size for _, size in ranks.mesh]},
        "placements": dict(ranks.placements),
        "step": ranks.step,
        "version": ranks.version,
    }


def summary_fields(report: Inspection) -> dict[str, Any]:
    """The totals of what is shown."""
    fields: dict[str, Any] = {
        "tensors": len(report.keys),
        "of": len(report.checkpoint),
        "elements": report.elements,
        "bytes": report.nbytes,
        "dtypes": dict(report.dtypes),
    }
    if report.logical is not None:
        fields["decoded"] = dict(zip(("tensors", "elements", "bytes"), report.logical, strict=True))
    return fields


def tensor_fields(report: Inspection, tensor: Tensor) -> dict[str, Any]:
    """One tensor: its spec, where its bytes are, and its numbers if they were asked for."""
    file, offset = place_of(tensor)
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
    if (encoded := report.encoded.get(tensor.key)) is not None:
        fields["encoded"] = {
            "scheme": encoded.title,
            "key": encoded.key,
            "dtype": encoded.spec.dtype,
            "shape": encoded.spec.shape,
            "bits_per_weight": round(encoded.bits_per_weight, 4),
            "members": [key for key in encoded.keys if key != tensor.key],
            "problems": [problem.text for problem in encoded.problems],
        }
    if tensor.key in report.stats:
        fields["stats"] = stats_fields(report.stats[tensor.key])
    return fields


def place_of(tensor: Tensor) -> tuple[str | None, int | None]:
    """(file name, byte offset of the first element); (None, None) if it is not in one place."""
    if len(tensor.pieces) != 1:
        return None, None
    piece = tensor.pieces[0]
    return piece.storage.file.name, piece.storage.offset + packed_nbytes(tensor.dtype, (piece.start,))


def _extras_fields(extras: Sequence[Extra]) -> dict[str, Any]:
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


def _global_fields(use: GlobalUse) -> dict[str, Any]:
    return {"name": use.name, "risk": use.risk, "calls": use.calls, "arguments": use.arguments}
