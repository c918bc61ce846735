"""``ckptool inspect``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from ckptool.cli.common import (
    PATH,
    Color,
    ColorOption,
    DebugOption,
    JsonOption,
    NoPagerOption,
    OnlyOption,
    QuietOption,
    SelectOption,
    ThreadsOption,
)
from ckptool.cli.reports import (
    READING_FORMATS,
    ReadingFormatOption,
    ReadingReportOption,
    form_of,
    require_reports,
    show_document,
    write_reports,
)
from ckptool.cli.sharing import ReadPartOption, ReadTogetherOption, WorkOption, agreed, asked_reading, together
from ckptool.cli.values import exclude
from ckptool.core.errors import Exit

if TYPE_CHECKING:
    from ckptool.core.checkpoint import Checkpoint, Note
    from ckptool.core.errors import UndecodableError
    from ckptool.encodings.encoded import Encoded
    from ckptool.report.inspection import Inspection
    from ckptool.values.stats import Stats


_SHOWN = 3  # tensors that are named one by one
_DESCRIPTION = 1 << 16  # bytes of what describes a quantized tensor and is read without --stats


class Sort(StrEnum):
    """The order of tensors and modules."""

    FILE = "file"
    KEY = "key"
    SIZE = "size"


EPILOG = """\
Examples:
  ckptool inspect resnet18.pth
  ckptool inspect model.safetensors --only "layers.0.*" --stats
  ckptool inspect run/checkpoint-100 --json | jq .summary

Exit codes: 0 read; 2 the file cannot be read or is not a checkpoint"""


def inspect(
    path: Annotated[
        PurePath, typer.Argument(path_type=PATH, metavar="FILE", help="A checkpoint: a file, or a folder of shards.")
    ],
    select: SelectOption = None,
    depth: Annotated[int | None, typer.Option("--depth", metavar="N", min=1, help="Levels of the tree.")] = None,
    only: OnlyOption = None,
    flat: Annotated[bool, typer.Option("--flat", help="A row per tensor, no tree.")] = False,
    sort: Annotated[Sort, typer.Option("--sort", metavar="BY", help="file, key or size.")] = Sort.FILE,
    stats: Annotated[bool, typer.Option("--stats", help="Read the values: mean, spread, NaN, histogram.")] = False,
    threads: ThreadsOption = 2,
    distributed: ReadTogetherOption = False,
    part: ReadPartOption = None,
    work: WorkOption = None,
    form: ReadingFormatOption = "text",
    json: JsonOption = False,
    report: ReadingReportOption = None,
    color: ColorOption = Color.AUTO,
    no_pager: NoPagerOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> int:
    """What is in a checkpoint: its tensors as a folded tree, and everything else it holds.

    Reads headers only, whatever the size; with --stats the values too. Nothing in the file is run.
    """
    from ckptool.formats.opening import open_checkpoint
    from ckptool.report.document_inspect import inspect_document

    exclude("--flat has no tree: leave out --depth", {"--flat": flat, "--depth": depth})
    reading = asked_reading(part, distributed, work, headers=None if stats else "--stats reads values")
    form = form_of(form, json)
    files = report or []
    require_reports(files, [path], READING_FORMATS)
    checkpoint = open_checkpoint(path, select=select)
    require_reports(files, map(PurePath, checkpoint.paths), READING_FORMATS)
    from ckptool.core.near_miss import chosen_keys

    keys = _sorted(checkpoint, chosen_keys(checkpoint, only or [], "--only", path), sort)

    def read() -> Inspection:
        agreed(reading, ("inspect", str(path), select, keys), checkpoint)
        return _report(checkpoint, path, keys, stats, threads, quiet)

    found = together(read, reading)
    if found is None:
        return Exit.OK
    document = inspect_document(found, depth, flat, sort is Sort.SIZE, threads)
    show_document(document, form, color, pager=not no_pager)
    write_reports(files, document)
    return Exit.OK


def _sorted(checkpoint: Checkpoint, keys: list[str], sort: Sort) -> tuple[str, ...]:
    if sort is Sort.KEY:
        from ckptool.core.keys import natural_key

        keys.sort(key=natural_key)
    elif sort is Sort.SIZE:
        keys.sort(key=lambda key: -checkpoint[key].nbytes)
    return tuple(keys)


def _report(
    checkpoint: Checkpoint, path: PurePath, keys: tuple[str, ...], stats: bool, threads: int, quiet: bool
) -> Inspection:
    from ckptool.facts.storages import ties
    from ckptool.facts.words import notes_of
    from ckptool.report.inspection import Inspection

    encoded: Sequence[Encoded] = ()
    by_codes: Mapping[str, Encoded] = {}
    undecodable: list[UndecodableError] = []
    if checkpoint.may_hold_codes:
        from ckptool.encodings.groups import Groups
        from ckptool.engine.dequantize import encoded_of, settled

        found = encoded_of(checkpoint)
        encoded = settled(checkpoint, found, None if stats else _DESCRIPTION)
        undecodable = list(_faults(found, encoded))
        by_codes = encoded.by_codes() if isinstance(encoded, Groups) else by_codes
    numbers: Mapping[str, Stats] = {}
    if stats:
        from ckptool.cli.progress import Progress
        from ckptool.engine.dequantize import with_logical_values
        from ckptool.values.stats import all_stats

        with Progress("reading", quiet) as progress:
            values = with_logical_values(checkpoint, encoded)
            numbers = all_stats(values, keys, threads=threads, progress=progress, on_undecodable=undecodable.append)
    return Inspection(
        checkpoint=checkpoint,
        name=str(path),
        keys=keys,
        ties=tuple(ties(checkpoint)),
        notes=(*_undecodable(undecodable), *_notes_on(keys, checkpoint, notes_of(checkpoint))),
        stats=numbers,
        encoded=by_codes,
    )


def _faults(found: Sequence[Encoded], settled: Sequence[Encoded]) -> Iterator[UndecodableError]:
    """What descriptions say that cannot be true; what headers say is in the facts."""
    from ckptool.core.errors import UndecodableError
    from ckptool.engine.dequantize import alike

    if not any(each.problems for each in alike(settled)):
        return
    known = {each.key for each in found if each.problems}
    for each in settled:
        if each.problems and each.key not in known:
            problem = each.problems[0]
            text = f"{each.key} cannot be decoded ({each.title}): {problem.text}"
            yield UndecodableError(text, hint=problem.hint or None, key=each.key)


def _undecodable(errors: Sequence[UndecodableError]) -> Iterator[Note]:
    """The first tensors that cannot be decoded, and how many more there are."""
    from ckptool.core.checkpoint import Note
    from ckptool.core.counts import many

    for error in errors[:_SHOWN]:
        yield Note(error.message, error.hint or "", (error.key or "",), "warning")
    if len(errors) > _SHOWN:
        yield Note(f"{many(len(errors) - _SHOWN, 'more tensor')} cannot be decoded", level="warning")


def _notes_on(keys: Sequence[str], checkpoint: Checkpoint, notes: Iterable[Note]) -> tuple[Note, ...]:
    """All notes, or where only some tensors were asked for, those about them."""
    if len(keys) == len(checkpoint):
        return tuple(notes)
    asked = set(keys)
    return tuple(note for note in notes if asked.intersection(note.keys))
