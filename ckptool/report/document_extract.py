"""`extract` as a document: schema ``ckptool.extract/1``, a row per tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ckptool.commands.patching.extract import Extracted
from ckptool.commands.patching.manifest import Part
from ckptool.core.counts import many
from ckptool.core.fold import rollup
from ckptool.core.shell import shell_quote
from ckptool.core.spec import packed_nbytes
from ckptool.report.blocks import Block, Column, Next, Notes, Rows, Sides, Totals
from ckptool.report.cells import Row
from ckptool.report.document import Answer, Document, Field, Status, Table
from ckptool.report.json import file_fields, note_fields
from ckptool.report.sides import side_of
from ckptool.report.symbols import STYLES, Style
from ckptool.report.units import shape_text, size_short

_SYMBOLS = {"same": "=", "delta": "~", "replaced": "~", "reshaped": "!", "whole": "+", "tied": "=", "removed": "-"}
_WORDS = {
    "same": "as in the base",
    "delta": "changed",
    "replaced": "in the patch as it is",
    "reshaped": "another shape, whole",
    "whole": "in the patch as it is",
}
_COLUMNS = (
    Column("", "mark"),
    Column("key", "key", least=14),
    Column("n", "whole"),
    Column("what", least=16),
    Column("bytes", "bytes"),
    Column("in the patch", "bytes"),
)


def extract_document(
    found: Extracted, names: tuple[str, str], out: str | None = None, verbose: bool = False
) -> Document:
    """A patch that was measured or written.

    Args:
        found: it.
        names: base and tuned as they were typed.
        out: where it was written; None if it was not.
        verbose: a row per tensor on a screen.
    """
    return Document(
        command="extract",
        answer=_answer(found, out),
        blocks=lambda: _blocks(found, names, out),
        table=lambda: Table(_FIELDS, _rows(found), _STATUSES, status="how"),
        result=lambda: _result(found, names, out),
        records=lambda: map(_part_fields, found.manifest.parts),
        summary=lambda: _summary(found),
        listing=lambda: ((part.key, part.how, part.after or "-") for part in _sorted(found)),
        verbose=verbose,
        typed=f"ckptool extract {shell_quote(names[0])} {shell_quote(names[1])}",
    )


def _sorted(found: Extracted) -> list[Part]:
    return sorted(found.manifest.parts, key=lambda part: part.key)


def _answer(found: Extracted, out: str | None) -> Answer:
    counts = found.manifest.counts
    if counts["same"] == counts["tensors"] == counts["base_tensors"] and not counts["renamed"]:
        takes = "would take" if out is None else "takes"
        text = f"identical: the patch changes none of {many(counts['tensors'], 'tensor')}, and {takes}"
        return Answer(f"{text} {size_short(found.nbytes)}", "good")
    whole = sum(tensor.nbytes for tensor in found.tuned.values())
    share = f"{found.nbytes / whole:.1%} of {size_short(whole)}" if whole else size_short(whole)
    done = "would take" if out is None else "takes"
    return Answer(
        f"{'ready' if out is None else 'written'}: the patch {done} {size_short(found.nbytes)}, {share}", "good"
    )


def _blocks(found: Extracted, names: tuple[str, str], out: str | None) -> Iterator[Block]:
    yield Sides((side_of(found.base, names[0], "-"), side_of(found.tuned, names[1], "+")))
    parts = {part.key: part for part in found.manifest.parts}
    kinds = {key: _kind(found, part) for key, part in parts.items()}
    groups = rollup(
        [(key, f"{kinds[key]} {_what(part, kinds[key])}") for key, part in parts.items()],
        together=["same as in the base"],
    )
    folded = [_cells(group.pattern, [parts[key] for key in group.keys], kinds[group.keys[0]]) for group in groups]
    gone = [key for key in found.manifest.removed if key not in parts]
    removed = [
        Row(("-", group.pattern, len(group.keys), "not in the result", None, None))
        for group in rollup([(key, "removed") for key in gone])
    ]
    each = Rows(_COLUMNS, lambda: [*(_cells(key, [part], kinds[key]) for key, part in parts.items()), *removed])
    yield Rows(_COLUMNS, lambda: [*folded, *removed], each if len(folded) < len(parts) else None)
    yield Notes(found.notes)
    counts = Counter(kinds.values())
    reshaped = (f"! {counts['reshaped']:,} reshaped",) if counts["reshaped"] else ()
    renamed = (f"> {found.manifest.renamed:,} renamed",) if found.manifest.renamed else ()
    changed, same = counts["delta"] + counts["replaced"], counts["same"] + counts["tied"]
    yield Totals(
        (
            *(f"~ {changed:,} changed", *reshaped, f"= {same:,} same", f"+ {counts['whole']:,} added"),
            *(f"- {len(gone):,} removed", *renamed),
        )
    )
    if out is None:
        yield Next(("nothing written; add -o PATCH.safetensors",))
    else:
        yield Next((f"apply it: ckptool merge {shell_quote(names[0])} --patch {shell_quote(out)} -o OUT",))


def _kind(found: Extracted, part: Part) -> str:
    """How a tensor comes out; one that is whole in the patch has a namesake in the base, perhaps of another shape."""
    if part.how != "whole" or part.key not in found.base:
        return part.how
    return "replaced" if found.base.form(part.key).shape == part.shape else "reshaped"


def _what(part: Part, kind: str) -> str:
    if kind == "tied":
        return f"tied to {part.source}"
    words = _WORDS[kind]
    return f"{words}, there {part.source}" if part.source not in ("", part.key) else words


def _cells(pattern: str, parts: list[Part], kind: str) -> Row:
    nbytes = sum(packed_nbytes(part.dtype, part.shape) for part in parts)
    taken = sum(part.nbytes for part in parts)
    style: Style = "dim" if kind == "same" else ""
    return Row((_SYMBOLS[kind], pattern, len(parts), _what(parts[0], kind), nbytes, taken or None), style)


# ---------------------------------------------------------------------------------------------- for programs

_FIELDS = (
    Field("how"),
    Field("key"),
    Field("source"),
    Field("dtype"),
    Field("shape"),
    Field("bytes", "bytes", "bytes", "add"),
    Field("patch_bytes", "in the patch", "bytes", "add"),
)
_STATUSES = tuple(
    Status(_SYMBOLS[how], how, STYLES[_SYMBOLS[how]]) for how in ("delta", "whole", "tied", "removed", "same")
)  # the same comes last


def _rows(found: Extracted) -> Iterator[tuple[Any, ...]]:
    """A row for each tensor that comes out, then those of the base that do not."""
    for part in found.manifest.parts:
        nbytes = packed_nbytes(part.dtype, part.shape)
        yield part.how, part.key, part.source or None, part.dtype, shape_text(part.shape), nbytes, part.nbytes
    parts = {part.key for part in found.manifest.parts}
    for key in (key for key in found.manifest.removed if key not in parts):
        form = found.base.form(key)
        yield "removed", key, key, form.dtype, shape_text(form.shape), 0, 0


def _summary(found: Extracted) -> Mapping[str, Any]:
    counts = {name: value for name, value in found.manifest.counts.items() if name != "version"}
    whole = sum(tensor.nbytes for tensor in found.tuned.values())
    return {**counts, "bytes": whole, "patch_bytes": found.nbytes, "exit_code": 0}


def _result(found: Extracted, names: tuple[str, str], out: str | None) -> list[tuple[str, Any]]:
    """A patch: schema ``ckptool.extract/1``."""
    return [
        ("schema", "ckptool.extract/1"),
        ("exit_code", 0),
        ("base", file_fields(found.base, names[0])),
        ("tuned", file_fields(found.tuned, names[1])),
        ("summary", {name: value for name, value in _summary(found).items() if name != "exit_code"}),
        ("tensors", map(_part_fields, found.manifest.parts)),
        ("removed", list(found.manifest.removed)),
        ("notes", [note_fields(note) for note in found.notes]),
        ("written", out),
    ]


def _part_fields(part: Part) -> dict[str, Any]:
    return {
        "key": part.key,
        "how": part.how,
        "source": part.source or None,
        "dtype": part.dtype,
        "shape": part.shape,
        "before": part.before or None,
        "after": part.after or None,
        "patch_bytes": part.nbytes,
    }
