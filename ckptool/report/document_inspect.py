"""`inspect` as a document, a row per tensor."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ckptool.core.checkpoint import Checkpoint, Extra, Note
from ckptool.core.counts import many
from ckptool.core.errors import CkptError
from ckptool.core.initial import INITIAL_KEY
from ckptool.core.shell import shell_quote
from ckptool.core.tensor import Tensor
from ckptool.report.blocks import Block, Chart, Column, Facts, Next, Notes, Rows, Series, Totals
from ckptool.report.cells import Cell, Row
from ckptool.report.document import Answer, Document, Field, Table
from ckptool.report.escape import shell, terminal
from ckptool.report.inspection import Inspection
from ckptool.report.json_inspect import inspect_result, place_of, summary_fields, tensor_fields
from ckptool.report.sides import one_side
from ckptool.report.symbols import Style
from ckptool.report.tree import Tree, tree
from ckptool.report.units import count, shape_text, size_short

if TYPE_CHECKING:
    from ckptool.values.stats import Stats

_NAMED = 3  # globals that the answer names
_MANY = 12  # notes of a kind
_VALUE = 48  # characters of a value
_EXTRA = 60  # of what stands for an entry: formats describe it in as many


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
        blocks=lambda: _blocks(report, tree(report, depth, flat, by_size=by_size)),
        table=lambda: _table(report),
        result=lambda: inspect_result(report),
        records=lambda: (tensor_fields(report, tensor) for tensor in report.tensors),
        summary=lambda: summary_fields(report),
        listing=lambda: inspect_listing(report, threads),
        typed=f"ckptool inspect {shell_quote(report.name)}",
    )


def _answer(report: Inspection) -> Answer:
    """Whether loading it is safe; else what it is, as its first line says."""
    if report.dangerous:
        names = [terminal(use.name, 60) for use in report.dangerous[:_NAMED]]
        names += [f"{len(report.dangerous) - _NAMED:,} more"] if len(report.dangerous) > _NAMED else []
        return Answer(f"not safe: loading this file with pickle runs code ({', '.join(names)})", "bad")
    totals = f"{many(len(report.keys), 'tensor')}, {size_short(report.nbytes)}"
    return Answer(f"{terminal(report.name)}: {totals}")


# ---------------------------------------------------------------------------------------------- for people


def _blocks(report: Inspection, shown: Tree) -> Iterator[Block]:
    """What the file is, what is wrong with it, its tree, what else it holds, and what to type next."""
    yield one_side(report.checkpoint, report.name)
    yield Totals(tuple(_totals(report)), ", ")
    yield Notes([*_dangers(report), *_nonfinite(report), *(note for note in report.notes if note.level == "warning")])
    yield _tree(report, shown)
    if report.stats:
        yield _chart(report)
    if not report.is_partial:  # else the question was about some tensors, not about the file
        yield Facts(tuple(_beside(report)))
    yield Notes([note for note in report.notes if note.level != "warning"])
    yield Next(tuple(_next(report, shown)))


def _totals(report: Inspection) -> Iterator[str]:
    shown = many(len(report.keys), "tensor")
    yield f"{len(report.keys):,} of {many(len(report.checkpoint), 'tensor')}" if report.is_partial else shown
    dtypes = ", ".join(f"{number:,} {dtype}" for dtype, number in report.dtypes)
    yield f"{count(report.elements)} elements" + (f" ({dtypes})" if dtypes else "")
    if report.is_pickle and not report.dangerous and not report.unknown:
        yield "nothing unsafe in the pickle"
    if report.logical is not None:
        tensors, elements, nbytes = report.logical
        yield f"decoded {many(tensors, 'tensor')}, {count(elements)} elements, {size_short(nbytes)}"
    if report.stats:
        yield f"{sum(item.nan for item in report.stats.values()):,} NaN"
        yield f"{sum(item.inf for item in report.stats.values()):,} Inf"


def _dangers(report: Inspection) -> Iterator[Note]:
    for use in report.dangerous[:_MANY]:
        times = "" if use.calls == 1 else f" {use.calls:,} times"
        called = f"called{times} with {many(use.arguments, 'argument')}" if use.calls else "named, not called"
        yield Note(f"asks for {use.name} ({called}); ckptool never runs it", level="warning")
    if len(report.dangerous) > _MANY:
        yield Note(f"asks for {len(report.dangerous) - _MANY:,} more such globals", "all: --json", level="warning")


def _nonfinite(report: Inspection) -> Iterator[Note]:
    """Which tensors hold NaN or Inf."""
    odd = {key: item for key, item in report.stats.items() if item.nan or item.inf}
    for key, item in list(odd.items())[:_MANY]:
        counts = [f"{number:,} {what}" for number, what in ((item.nan, "NaN"), (item.inf, "Inf")) if number]
        yield Note(f"{' and '.join(counts)} in {key} (of {count(item.elements)})", keys=(key,), level="warning")
    if len(odd) > _MANY:
        yield Note(f"NaN or Inf in {len(odd) - _MANY:,} more tensors", "all: --stats --json", level="warning")


def _tree(report: Inspection, shown: Tree) -> Rows:
    """The folded tree; with statistics a narrow screen has room for the spec only."""
    stats = bool(report.stats)
    columns = [
        Column("key", "key", least=16),
        Column("tensors", "whole", wide=stats),
        Column("spec", "spec", least=22 if stats else 30),
        Column("elements", "count", wide=stats),
        Column("size", "bytes", wide=stats),
        Column("share of bytes", "share", wide=stats, spare=True),
        Column("mean", "signed"),
        Column("std", "real"),
        Column("±max, √count", "hist"),
        Column("not finite"),
    ]
    rows = shown.rows
    if stats:
        copies = ([report.stats[key] for key in keys if key in report.stats] for keys in shown.keys)
        rows = tuple(Row((*row.cells, *_numbers(of))) for row, of in zip(rows, copies, strict=True))
    if shown.is_flat:  # a row is a tensor
        columns, rows = [*columns[:1], *columns[2:]], tuple(Row((row.cells[0], *row.cells[2:])) for row in rows)
    return Rows(tuple(columns), lambda: rows, title=many(len(report.keys), "tensor"))


def _numbers(copies: Sequence[Stats]) -> tuple[Any, ...]:
    """The numbers of one tensor, or of the same tensor in several identical modules, taken together."""
    if not copies:
        return (None, None, None)
    from ckptool.report.statistics import histogram, integer_range, moments

    if all(one.integer for one in copies):
        return (None, None, integer_range(copies))
    found = {"NaN": sum(one.nan for one in copies), "Inf": sum(one.inf for one in copies)}
    odd = ", ".join(f"{number:,} {what}" for what, number in found.items() if number)
    return (*moments(copies), histogram(copies), Cell(odd or None, "bold red"))


def _chart(report: Inspection) -> Chart:
    """Norm, spread, zeros and outliers of the tensors of floats over the depth of the model."""
    found = {key: one for key, one in report.stats.items() if one.std is not None and not one.integer}
    norms = (math.hypot(one.std or 0.0, one.mean or 0.0) * math.sqrt(one.elements) for one in found.values())
    largest = (max(abs(one.min or 0.0), abs(one.max or 0.0)) for one in found.values())
    outliers = (most / one.std if one.std else None for most, one in zip(largest, found.values(), strict=True))
    is_finite = not any(one.nan or one.inf for one in found.values())
    odd: tuple[Style, ...] = () if is_finite else tuple("red" if one.nan + one.inf else "bar" for one in found.values())
    series = (
        Series("norm", tuple(norms), log=True, styles=odd),
        Series("spread (standard deviation)", tuple(one.std for one in found.values()), log=True, styles=odd),
        Series("zeros", tuple(one.zeros / one.elements for one in found.values()), "percent", styles=odd),
        Series("outliers (largest magnitude in standard deviations)", tuple(outliers), "small", log=True, styles=odd),
    )
    return Chart("values over depth", tuple(found), series)


def _beside(report: Inspection) -> Iterator[tuple[str, list[str]]]:
    """What the file holds beside the tensors shown."""
    checkpoint = report.checkpoint
    versions = Counter((checkpoint.module_versions or {}).values())
    yield "not tensors", [_extra(extra) for extra in checkpoint.extras]
    metadata = (item for item in checkpoint.metadata.items() if item[0] != INITIAL_KEY)
    yield "metadata", [f"{name} = {_short(value)}" for name, value in metadata]
    yield "other weights", _others(checkpoint)
    yield "classes left as data", [use.name for use in report.unknown]
    yield "tied", list(_ties(report.ties))
    yield "module versions", [f"{at} ({many(number, 'module')})" for at, number in sorted(versions.items())]


def _ties(groups: Sequence[Sequence[str]]) -> Iterator[str]:
    """The ties; whole modules whose tensors are tied one by one are one tie of theirs."""
    inside: dict[tuple[str, ...], list[Sequence[str]]] = {}
    for group in groups:
        inside.setdefault(_modules(group), []).append(group)
    for modules, members in inside.items():
        if all(modules) and len(members) > 1:
            yield f"{' = '.join(_tie([f'{module}*' for module in modules]))} ({many(len(members), 'tensor')} each)"
        else:
            yield from (" = ".join(_tie(group)) for group in members)


def _modules(keys: Sequence[str]) -> tuple[str, ...]:
    """What stands before the last parts that all keys have in common, with a dot behind it; "" for nothing."""
    parts = [key.split(".") for key in keys]
    shared = 0
    while shared < min(map(len, parts)) - 1 and len({each[-1 - shared] for each in parts}) == 1:
        shared += 1
    return tuple("".join(f"{part}." for part in each[: len(each) - shared]) for each in parts)


def _tie(group: Sequence[str]) -> list[str]:
    return [*group[:4], *([f"{len(group) - 4:,} more"] if len(group) > 4 else [])]


def _extra(extra: Extra) -> str:
    if extra.tensors:
        return f"{extra.name} ({many(extra.tensors, 'tensor')}, {size_short(extra.nbytes)})"
    return f"{extra.name} = {_short(extra.text, _EXTRA)}"


def _short(text: str, longest: int = _VALUE) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _others(checkpoint: Checkpoint) -> list[str]:
    selection = checkpoint.selection
    names = [name for name in selection.others if name != selection.ema]
    entries = [*([f"{selection.ema} (moving average)"] if selection.ema else []), *names]
    if entries:
        entries[min(len(entries), _MANY) - 1] += f"   (take them: --select {shell(selection.ema or names[0])})"
    return entries


def _next(report: Inspection, shown: Tree) -> Iterator[str]:
    if shown.hides:
        yield f"deeper: --depth {shown.depth + 1}"
    if shown.module and not report.is_partial:
        yield f"one module: --only {shell(shown.module)}"
    if not report.stats and report.keys:
        yield "values: --stats"


# ---------------------------------------------------------------------------------------------- for programs

_STATS = ("mean", "std", "min", "max", "nan", "inf", "zeros")


def _table(report: Inspection) -> Table:
    is_finite = not any(item.nan or item.inf for item in report.stats.values())
    stats = (
        Field("", "histogram, √count", "hist"),
        Field("mean", "mean", "signed"),
        Field("std", "std", "real"),
        Field("min", "min", "signed"),
        Field("max", "max", "signed"),
        Field("nan", "NaN", "whole", "add", panel=is_finite, style="red"),
        Field("inf", "Inf", "whole", "add", panel=is_finite, style="red"),
        Field("zeros", "zeros", "whole", "add", panel=True),
    )
    fields = (
        Field("key"),
        Field("", "tensors", "tensors"),
        Field("", "spec", "spec"),
        Field("dtype"),
        Field("shape"),
        Field("elements", "elements", "count", "add"),
        Field("bytes", "size", "bytes", "add"),
        Field("", "share of bytes", "share", "add", total=report.nbytes),
        Field("file", "file", panel=True),
        Field("offset", "offset", "whole", panel=True),
        Field("tied_to", "tied to", "key", panel=True),
        *(stats if report.stats else ()),
    )
    return Table(fields, _rows(report))


def _rows(report: Inspection) -> Iterator[Sequence[Any]]:
    for tensor, spec in zip(report.tensors, report.labels(report.keys), strict=True):
        file, offset = place_of(tensor)
        row = (tensor.key, None, spec, tensor.dtype, shape_text(tensor.shape), tensor.elements, tensor.nbytes)
        stats = report.stats.get(tensor.key)
        numbers = () if stats is None else (_bins(stats), *(getattr(stats, name) for name in _STATS))
        yield (*row, tensor.nbytes, file, offset, report.tied_to.get(tensor.key), *numbers)


def _bins(stats: Stats) -> tuple[int, ...] | None:
    return None if stats.integer else stats.histogram


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
