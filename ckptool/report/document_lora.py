"""`extract --lora` as a document: schema ``ckptool.lora/1``, a row per tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckptool.commands.patching.lora_result import ExtractedLora, Factored
from ckptool.core.counts import many
from ckptool.core.fold import rollup
from ckptool.core.shell import shell_quote
from ckptool.report.blocks import Block, Column, Next, Notes, Rows, Sides, Totals
from ckptool.report.cells import Row
from ckptool.report.document import Answer, Document, Field, Status, Table
from ckptool.report.json import file_fields, note_fields
from ckptool.report.sides import side_of
from ckptool.report.symbols import STYLES, Style
from ckptool.report.units import shape_text, size_short

_SYMBOLS = {"same": "=", "adapted": "~", "saved": "+", "left": "!", "removed": "-"}
_KINDS = {
    "linear": "linear",
    "transposed": "linear, [in, out]",
    "embedding": "embedding",
    "conv": "convolution",
    "experts": "experts",
    "transposed experts": "experts, [in, out]",
}
_COLUMNS = (
    Column("", "mark"),
    Column("key", "key", least=14),
    Column("n", "whole"),
    Column("what", least=16),
    Column("rank"),
    Column("lost", "rel"),
    Column("bytes", "bytes"),
)


def lora_document(
    found: ExtractedLora, names: tuple[str, str], out: str | None = None, verbose: bool = False
) -> Document:
    """An adapter that was planned or written.

    Args:
        found: it.
        names: base and tuned as they were typed.
        out: the folder it was written to; None if it was not.
        verbose: a row per tensor on a screen.
    """
    return Document(
        command="extract",
        answer=_answer(found, out),
        blocks=lambda: _blocks(found, names, out),
        table=lambda: Table(_FIELDS, _rows(found), _STATUSES, status="fate"),
        result=lambda: _result(found, names, out),
        records=lambda: map(_part_fields, found.parts),
        summary=lambda: {**_summary(found), "exit_code": 0},
        listing=lambda: ((part.key, part.fate, part.kind or "-") for part in sorted(found.parts, key=_key)),
        verbose=verbose,
        typed=f"ckptool extract {shell_quote(names[0])} {shell_quote(names[1])} --lora --rank {found.options.rank}",
    )


def _key(part: Factored) -> str:
    return part.key


def _answer(found: ExtractedLora, out: str | None) -> Answer:
    adapted, left = found.with_fate("adapted"), found.with_fate("left")
    takes = "would take at most" if out is None else "takes"
    text = f"{'ready' if out is None else 'written'}: a LoRA of rank {found.options.rank} for "
    text += f"{many(len(adapted), 'layer')} {takes} {size_short(found.nbytes)}"
    if found.kept is not None:
        text += f", and holds {_share(found.kept)} of their change"
    if left:
        text += f"; {many(len(left), 'changed tensor')} {'is' if len(left) == 1 else 'are'} not in it"
    return Answer(text, "warning" if left else "good")


def _share(kept: float) -> str:
    """A share of the energy, never rounded up to all of it."""
    return "100%" if kept >= 1 - 1e-9 else f"{min(kept, 0.9999):.2%}"


def _blocks(found: ExtractedLora, names: tuple[str, str], out: str | None) -> Iterator[Block]:
    yield Sides((side_of(found.base, names[0], "-"), side_of(found.tuned, names[1], "+")))
    parts = {part.key: part for part in found.parts}
    groups = rollup([(key, f"{part.fate} {_what(part)}") for key, part in parts.items()], together=["same the same"])
    folded = [_cells(group.pattern, [parts[key] for key in group.keys]) for group in groups]
    removed = [
        Row(("-", group.pattern, len(group.keys), "not in the tuned one", None, None, None))
        for group in rollup([(key, "removed") for key in found.removed])
    ]
    each = Rows(_COLUMNS, lambda: [*(_cells(key, [part]) for key, part in parts.items()), *removed])
    yield Rows(_COLUMNS, lambda: [*folded, *removed], each if len(folded) < len(parts) else None)
    yield Notes(found.notes)
    counts = Counter(part.fate for part in found.parts)
    saved = (f"+ {counts['saved']:,} saved in full",) if counts["saved"] else ()
    yield Totals(
        (f"~ {counts['adapted']:,} adapted", *saved, f"! {counts['left']:,} left", f"= {counts['same']:,} same")
    )
    if out is None:
        yield Next(("nothing written; add -o DIR",))
    else:
        yield Next((f"merge it: ckptool merge {shell_quote(names[0])} --lora {shell_quote(out)} -o OUT",))


def _what(part: Factored) -> str:
    if part.fate == "same":
        return "the same"
    return f"not adapted: {part.kind}" if part.fate == "left" else _KINDS.get(part.kind, part.kind)


def _cells(pattern: str, parts: Sequence[Factored]) -> Row:
    first = parts[0]
    ranks = sorted({part.rank for part in parts if part.rank})
    rank = "" if not ranks else str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}"
    errors = [part.error for part in parts if part.error is not None]
    nbytes = sum(part.nbytes for part in parts)
    style: Style = "dim" if first.fate == "same" else ""
    cells = (_SYMBOLS[first.fate], pattern, len(parts), _what(first), rank, max(errors, default=None), nbytes or None)
    return Row(cells, style)


# ---------------------------------------------------------------------------------------------- for programs

_FIELDS = (
    Field("fate"),
    Field("key"),
    Field("source"),
    Field("kind"),
    Field("dtype"),
    Field("shape"),
    Field("rank", "rank", "whole"),
    Field("change", "change", "real"),
    Field("lost", "lost", "rel", "max"),
    Field("adapter_bytes", "in the adapter", "bytes", "add"),
)
_STATUSES = tuple(
    Status(_SYMBOLS[fate], fate, STYLES[_SYMBOLS[fate]]) for fate in ("left", "adapted", "saved", "removed", "same")
)


def _rows(found: ExtractedLora) -> Iterator[tuple[Any, ...]]:
    """A row for each tensor of the tuned checkpoint, then those of the base that it lacks."""
    for part in found.parts:
        fields = _part_fields(part)
        shape = shape_text(part.spec.shape)
        yield (*(fields[name] for name in ("fate", "key", "source", "kind", "dtype")), shape, *_numbers(part))
    for key in found.removed:
        form = found.base.form(key)
        yield "removed", key, key, None, form.dtype, shape_text(form.shape), None, None, None, 0


def _numbers(part: Factored) -> tuple[Any, ...]:
    return part.rank or None, part.norm, part.error, part.nbytes


def _summary(found: ExtractedLora) -> Mapping[str, Any]:
    counts = Counter(part.fate for part in found.parts)
    return {
        "rank": found.options.rank,
        "dtype": found.options.dtype,
        **{fate: counts[fate] for fate in ("adapted", "saved", "left", "same")},
        "removed": len(found.removed),
        "kept": found.kept,
        "adapter_bytes": found.nbytes,
    }


def _result(found: ExtractedLora, names: tuple[str, str], out: str | None) -> list[tuple[str, Any]]:
    """An adapter: schema ``ckptool.lora/1``."""
    return [
        ("schema", "ckptool.lora/1"),
        ("exit_code", 0),
        ("base", file_fields(found.base, names[0])),
        ("tuned", file_fields(found.tuned, names[1])),
        ("summary", _summary(found)),
        ("tensors", map(_part_fields, found.parts)),
        ("removed", list(found.removed)),
        ("config", dict(found.config)),
        ("notes", [note_fields(note) for note in found.notes]),
        ("written", out),
    ]


def _part_fields(part: Factored) -> dict[str, Any]:
    return {
        "key": part.key,
        "fate": part.fate,
        "kind": part.kind or None,
        "source": part.source or None,
        "dtype": part.spec.dtype,
        "shape": part.spec.shape,
        "rank": part.rank or None,
        "change": part.norm,
        "lost": part.error,
        "adapter_bytes": part.nbytes,
    }
