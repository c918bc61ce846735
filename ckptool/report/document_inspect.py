"""`inspect` as a document: schema ``ckptool.inspect/1``, a row per tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ckptool.core.checkpoint import Extra, GlobalUse, Tensor
from ckptool.core.errors import CkptError
from ckptool.core.spec import packed_nbytes
from ckptool.facts.architecture import Architecture
from ckptool.facts.registry import facts_of
from ckptool.report.document import Answer, Cell, Document, Table
from ckptool.report.escape import terminal
from ckptool.report.inspection import Inspection
from ckptool.report.json import file_fields, model_fields, note_fields, stats_fields
from ckptool.report.text_inspect import inspect_lines
from ckptool.report.tree import tree
from ckptool.report.units import number_of, size_short

_LARGEST = 1 << 63  # integers beyond are given as text: other readers would round them
_NAMED = 3  # globals that the answer names
_COLUMNS = ("key", "dtype", "shape", "elements", "bytes", "file", "offset", "tied_to")
_NUMBERS = ("mean", "std", "min", "max", "nan", "inf", "zeros")


def inspect_document(
    report: Inspection, depth: int | None = None, flat: bool = False, by_size: bool = False, threads: int = 2
) -> Document:
    """A checkpoint and what was asked about it.

    Args:
        report: what is known.
        depth: levels of the tree; by default as many as fit a screen.
        flat: a row per tensor, no tree.
        by_size: modules in the order of their sizes.
        threads: that read values for digests.
    """
    return Document(
        command="inspect",
        answer=_answer(report),
        result=lambda: _result(report),
        records=lambda: (_tensor_fields(report, tensor) for tensor in report.tensors),
        summary=lambda: _summary_fields(report),
        table=lambda: Table((*_COLUMNS, *(_NUMBERS if report.stats else ())), _rows(report)),
        listing=lambda: inspect_listing(report, threads),
        screen=lambda screen: inspect_lines(report, tree(report, depth, flat, by_size=by_size), screen),
        markdown=lambda: _markdown(report),
        html=lambda: _html(report),
    )


def _answer(report: Inspection) -> Answer:
    """Whether loading it is safe; else what it is, as its first line says."""
    if report.dangerous:
        names = [terminal(use.name, 60) for use in report.dangerous[:_NAMED]]
        names += [f"{len(report.dangerous) - _NAMED:,} more"] if len(report.dangerous) > _NAMED else []
        return Answer(f"not safe: loading this file with pickle runs code ({', '.join(names)})", "bad")
    totals = f"{number_of(len(report.keys), 'tensor')}, {size_short(report.nbytes)}"
    return Answer(f"{terminal(report.name)}: {totals}")


def _markdown(report: Inspection) -> Iterator[str]:
    from ckptool.report.markdown import inspect_markdown

    return inspect_markdown(report)


def _html(report: Inspection) -> Iterator[str]:
    from ckptool.report.html_inspect import inspect_html

    return inspect_html(report)


def _rows(report: Inspection) -> Iterator[Sequence[Cell]]:
    for tensor in report.tensors:
        file, offset = _place(tensor)
        row = (tensor.key, tensor.dtype, shape_text(tensor.shape), tensor.elements, tensor.nbytes)
        stats = report.stats.get(tensor.key)
        numbers = () if stats is None else tuple(getattr(stats, name) for name in _NUMBERS)
        yield (*row, file, offset, report.tied_to.get(tensor.key), *numbers)


def shape_text(shape: Sequence[int]) -> str:
    """A shape in one cell.

    Example:
        >>> shape_text((64, 3, 7, 7)), shape_text(())
        ('[64,3,7,7]', '[]')
    """
    return f"[{','.join(map(str, shape))}]"


def inspect_listing(report: Inspection, threads: int = 2) -> Iterator[tuple[str, str, str]]:
    """``key, f32[64,3,7,7], sha256`` by key; the digest is of the packed bytes, whatever the file's format."""
    from concurrent.futures import ThreadPoolExecutor

    from ckptool.engine.reading import Reader

    tensors = sorted(report.tensors, key=lambda tensor: tensor.key)
    with Reader() as reader, ThreadPoolExecutor(threads) as pool:
        reader.expect(tensors)

        def digest(tensor: Tensor) -> str:
            try:
                return reader.sha256(tensor)
            except CkptError as error:
                error.key = error.key or tensor.key
                raise

        for tensor, sha256 in zip(tensors, pool.map(digest, tensors), strict=True):
            yield tensor.key, tensor.spec.short, sha256


def _result(report: Inspection) -> list[tuple[str, Any]]:
    """A checkpoint: schema ``ckptool.inspect/1``."""
    return [
        ("schema", "ckptool.inspect/1"),
        ("file", file_fields(report.checkpoint, report.name)),
        ("summary", _summary_fields(report)),
        ("tensors", (_tensor_fields(report, tensor) for tensor in report.tensors)),
        ("extras", _extras_fields(report.checkpoint.extras)),
        ("metadata", dict(report.checkpoint.metadata)),
        ("module_versions", report.checkpoint.module_versions),
        ("ties", report.ties),
        ("models", [model_fields(fact) for fact in facts_of(report.checkpoint) if isinstance(fact, Architecture)]),
        ("notes", [note_fields(note) for note in report.notes]),
        ("globals", [_global_fields(use) for use in report.checkpoint.globals]),
        ("unsafe_globals", [use.name for use in report.dangerous]),
    ]


def _summary_fields(report: Inspection) -> dict[str, Any]:
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


def _tensor_fields(report: Inspection, tensor: Tensor) -> dict[str, Any]:
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


def _place(tensor: Tensor) -> tuple[str | None, int | None]:
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
