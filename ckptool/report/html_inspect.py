"""`inspect` as a page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ckptool.core.checkpoint import Checkpoint, Note, Tensor
from ckptool.core.shell import shell_quote
from ckptool.core.spec import packed_nbytes
from ckptool.report.escape import terminal
from ckptool.report.html import Column, Heading, Page, key_text, page
from ckptool.report.inspection import Inspection, format_text
from ckptool.report.units import count, number_of, size_short

_VALUE = 120  # characters of a value beside the tensors


def inspect_html(report: Inspection) -> Iterator[str]:
    """The checkpoint: its tree with sizes and, if they were asked for, the statistics."""
    checkpoint = report.checkpoint
    yield from page(
        Page(
            title=report.name,
            headings=(Heading(report.name, checkpoint_facts(checkpoint)),),
            sum=_sum(report),
            command=f"ckptool inspect {shell_quote(report.name)}",
            columns=_columns(report),
            rows=(_row(report, tensor) for tensor in report.tensors),
            notes=[*_dangers(report), *report.notes],
            facts=_besides(report),
            searched=(1,),
        )
    )


def checkpoint_facts(checkpoint: Checkpoint) -> str:
    """``torch zip, 46.8 MB, weights under "model"``; not escaped."""
    facts = [format_text(checkpoint), size_short(checkpoint.nbytes)]
    if checkpoint.selection.path:
        facts.append(f'weights under "{checkpoint.selection.name}"')
    return ", ".join(facts)


def _sum(report: Inspection) -> str:
    shown = number_of(len(report.keys), "tensor")
    if report.is_partial:
        shown = f"{len(report.keys):,} of {number_of(len(report.checkpoint), 'tensor')}"
    dtypes = ", ".join(f"{many:,} {dtype}" for dtype, many in report.dtypes)
    parts = [shown, f"{count(report.elements)} elements" + (f" ({dtypes})" if dtypes else "")]
    if report.is_pickle and not report.dangerous and not report.unknown:
        parts.append("nothing unsafe in the pickle")
    if report.stats:
        stats = report.stats.values()
        parts += [f"{sum(item.nan for item in stats):,} NaN", f"{sum(item.inf for item in stats):,} Inf"]
    return ", ".join(parts)


def _columns(report: Inspection) -> list[Column]:
    columns = [
        Column("tensors", "tensors"),
        Column("spec", style="cyan"),
        Column("elements", "count", "add"),
        Column("size", "bytes", "add"),
        Column("share of bytes", "share", "add", total=report.nbytes),
    ]
    if report.stats:
        is_finite = not any(item.nan or item.inf for item in report.stats.values())
        columns += [
            Column("NaN", "whole", "add", panel=is_finite, style="red"),
            Column("Inf", "whole", "add", panel=is_finite, style="red"),
            Column("histogram, √count", "hist"),
            Column("mean", "signed"),
            Column("std", "real"),
            Column("min", "signed"),
            Column("max", "signed"),
            Column("zeros", "whole", "add", panel=True),
        ]
    return [*columns, Column("tied to", panel=True), Column("file", panel=True), Column("offset", "whole", panel=True)]


def _row(report: Inspection, tensor: Tensor) -> list[Any]:
    label = report.checkpoint.form(tensor.key).label
    row: list[Any] = [key_text(tensor.key), 0, None, label, tensor.elements, tensor.nbytes, tensor.nbytes]
    if report.stats:
        row += _numbers(report, tensor.key)
    tied = report.tied_to.get(tensor.key)
    file, offset = None, None
    if len(tensor.pieces) == 1:
        storage = tensor.pieces[0].storage
        file = terminal(storage.file.name)
        offset = storage.offset + packed_nbytes(tensor.dtype, (tensor.pieces[0].start,))
    return [*row, None if tied is None else key_text(tied), file, offset]


def _numbers(report: Inspection, key: str) -> list[Any]:
    stats = report.stats.get(key)
    if stats is None:
        return [None] * 8
    bins = None if stats.integer else stats.histogram
    return [stats.nan or None, stats.inf or None, bins, stats.mean, stats.std, stats.min, stats.max, stats.zeros]


def _dangers(report: Inspection) -> Iterator[Note]:
    for use in report.dangerous:
        yield Note(f"asks for {use.name} when a pickle loader opens it; ckptool never runs it", level="warning")


def _besides(report: Inspection) -> list[tuple[str, list[str]]]:
    """What the file holds beside the tensors."""
    if report.is_partial:
        return []
    checkpoint = report.checkpoint
    selection = checkpoint.selection
    extras = [
        f"{terminal(extra.name, 80)} ({number_of(extra.tensors, 'tensor')}, {size_short(extra.nbytes)})"
        if extra.tensors
        else f"{terminal(extra.name, 80)} = {terminal(extra.text, _VALUE)}"
        for extra in checkpoint.extras
    ]
    return [
        ("not tensors", extras),
        (
            "metadata",
            [f"{terminal(name, 80)} = {terminal(text, _VALUE)}" for name, text in checkpoint.metadata.items()],
        ),
        ("other weights", [terminal(name, 80) for name in selection.others]),
        ("tied", [" = ".join(terminal(key, 80) for key in group[:4]) for group in report.ties]),
        ("unknown classes", [terminal(use.name, 80) for use in report.unknown]),
    ]
