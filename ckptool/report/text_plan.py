"""A plan as text: the inputs, what becomes of every key, what lies beside the weights, the notes, and the sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from ckptool.core.errors import CkptError
from ckptool.core.plan import Plan, Problem
from ckptool.core.reasons import FOUND
from ckptool.engine.reads import reads_of
from ckptool.report.escape import terminal
from ckptool.report.plan_rows import (
    SYMBOLS,
    Fate,
    Row,
    RuleRow,
    added_rows,
    counts,
    nbytes_before,
    plan_rows,
    rule_rows,
    tensors_text,
    untouched_rows,
    unused_rules,
)
from ckptool.report.preview import Preview, rounding_of
from ckptool.report.symbols import STYLES
from ckptool.report.text import Cell, Column, Line, Screen, Span, Style, fit, table
from ckptool.report.text_inspect import header, note_lines
from ckptool.report.text_width import cells
from ckptool.report.units import count, number_of, relative, size, size_short
from ckptool.storage.transfer import Read

if TYPE_CHECKING:
    from ckptool.engine.apply import Written

_MANY_RULES = 60
_MANY_NAMES = 12
_MANY_KEYS = 8


def plan_lines(preview: Preview, screen: Screen, verbose: bool = False) -> Iterator[Line]:
    """All lines of a preview but what was or was not written, the sum last."""
    yield from _inputs(preview, screen)
    yield from note_lines([note for note in preview.notes if note.level == "warning"], screen)
    if preview.match is not None:
        from ckptool.report.text_match import match_lines

        yield ()
        yield from match_lines(preview.match, screen)
    is_short = preview.is_recipe and not verbose
    lines = list(_recipe_table(preview, screen) if is_short else _table(preview, screen, verbose))
    if lines:
        yield ()
        yield from lines
    yield ()
    yield from _besides_lines(preview, screen)
    yield from note_lines([note for note in preview.notes if note.level != "warning"], screen)
    yield from reads_lines(preview.plan)
    yield from summary(preview, screen)


def reads_lines(plan: Plan) -> Iterator[Line]:
    """``will read 1.05 GB of 16.1 GB in 12 ranges``; nothing where all inputs are on this machine."""
    reads = reads_of(plan)
    if reads is not None:
        whole = size_short(reads.of)
        ranges = f"{size_short(reads.nbytes)} of {whole} in {number_of(reads.ranges, 'range')}"
        yield (Span(f"will read {ranges if reads.ranges else f'nothing more of {whole}'}"),)


def read_line(read: Read) -> Line:
    """``read: 3 requests, 210 kB of 16.1 GB``"""
    requests = number_of(read.requests, "request")
    return (Span("read:", "dim"), Span(f" {requests}, {size_short(read.nbytes)} of {size_short(read.of)}"))


def _inputs(preview: Preview, screen: Screen) -> Iterator[Line]:
    plan = preview.plan
    if len(plan.inputs) == 1:
        yield from header(plan.inputs[0], preview.names[0], screen)
        return
    rows: list[tuple[Cell, ...]] = []
    for name, checkpoint in zip(preview.names, plan.inputs, strict=True):
        kind = str(checkpoint.format)
        if checkpoint.selection.path:
            kind += f', weights under "{terminal(checkpoint.selection.name)}"'
        tensors = number_of(len(checkpoint), "tensor")
        rows.append((Cell(terminal(name), "bold"), Cell(tensors), Cell(size_short(checkpoint.nbytes)), Cell(kind)))
    yield from table((Column("", least=16), Column("", ">"), Column("", ">"), Column("", least=20)), rows, screen)


def _table(preview: Preview, screen: Screen, verbose: bool) -> Iterator[Line]:
    """A row for each fate of a subtree."""
    wide = screen.is_wide
    columns = [Column(""), Column("key", least=14), Column("n", ">")]
    columns += [Column("elements", ">")] if wide else []
    columns += [Column("what", least=20)]
    columns += (
        [Column("before", ">"), Column("after", ">")] if wide and not preview.is_merge else [Column("bytes", ">")]
    )
    rows = [_cells(row, wide, preview.is_merge) for row in plan_rows(preview.plan, each=verbose)]
    if rows:
        yield from table(columns, rows, screen)


def _cells(row: Row, wide: bool, is_merge: bool) -> list[Cell]:
    quiet: Style = "dim" if row.fate is Fate.COPIED and not is_merge else ""
    found = [
        Cell(SYMBOLS[row.fate], STYLES[SYMBOLS[row.fate]]),
        Cell(terminal(row.key) or "other keys", quiet),
        Cell(f"{row.tensors:,}", quiet),
    ]
    found += [Cell(count(row.elements), quiet)] if wide else []
    found.append(Cell(terminal(row.what), quiet))
    after = "" if row.after is None else size(row.after)
    if is_merge:
        return [*found, Cell(after, quiet)]
    if wide:
        return [*found, Cell(size(row.before), quiet), Cell(after, quiet)]
    if row.after is None:
        return [*found, Cell(f"−{size(row.before)}", quiet)]
    return [*found, Cell(after if row.after == row.before else f"{size(row.before)} → {after}", quiet)]


# ---------------------------------------------------------------------------------------------- recipes


def _recipe_table(preview: Preview, screen: Screen) -> Iterator[Line]:
    """A row for each rule, then what no rule decides; rules that were found have been shown."""
    plan, found = preview.plan, preview.match is not None
    wide = screen.is_wide
    rules = [row for row in rule_rows(plan) if not (found and row.name.recipe == FOUND)]
    shown = rules[:_MANY_RULES]
    several = len({(row.name.recipe, row.name.backwards) for row in rules}) > 1
    computes = any(row.computes for row in shown)
    columns = [Column(""), Column(""), Column("rule", least=24), Column("keys", ">")]
    columns += [Column("computes", least=16)] if computes else []
    columns += [Column("for example", least=24)]
    rows = [_rule_cells(row, several and wide, computes) for row in shown]
    if screen.elide and _width(rows) > screen.width:  # whole rules say more than examples
        rows = [[*found[:-1], Cell()] if row.keys else found for row, found in zip(shown, rows, strict=True)]
        columns[-1] = Column("")
    start = [Cell("", "dim"), Cell()]
    if len(rules) > len(shown):
        more = rules[_MANY_RULES:]
        rest = f"{len(more):,} more rules (all: --json)"
        rows.append([*start, Cell(rest), Cell(f"{sum(row.keys for row in more):,}"), *[Cell()] * (len(columns) - 4)])
    if unused := unused_rules(plan):
        text = f"{number_of(unused, 'optional rule')} without a match"
        rows.append([*start, Cell(text, "dim"), Cell("0", "dim"), *[Cell()] * (len(columns) - 4)])
    for row in [*untouched_rows(plan), *added_rows(plan)]:
        quiet: Style = "dim" if row.fate is Fate.COPIED else ""
        mark = [
            Cell(SYMBOLS[row.fate], STYLES[SYMBOLS[row.fate]]),
            Cell(),
            Cell(terminal(row.key) or "other keys", quiet),
        ]
        empty = [Cell()] if computes else []
        rows.append([*mark, Cell(f"{row.tensors:,}", quiet), *empty, Cell(terminal(row.what), quiet)])
    if rows:
        yield from table(columns, rows, screen)


def _width(rows: Sequence[Sequence[Cell]]) -> int:
    """The columns that a table takes if nothing is elided."""
    widths = [max(map(cells, texts)) for texts in zip(*([cell.text for cell in row] for row in rows), strict=True)]
    return sum(widths) + 2 * (sum(map(bool, widths)) - 1) if rows else 0


def _rule_cells(row: RuleRow, named: bool, computes: bool) -> list[Cell]:
    mark = Cell("-", "dim") if row.fate is None else Cell(SYMBOLS[row.fate], STYLES[SYMBOLS[row.fate]])
    text: Style = "dim" if row.fate is None else ""
    name = str(row.name) if named else str(row.name.number or row.name)
    found = [mark, Cell(terminal(name), "dim"), Cell(terminal(row.rule), text)]
    found.append(Cell(f"{row.keys:,}", text))
    found += [Cell(terminal(row.computes), text)] if computes else []
    return [*found, Cell(terminal(row.what), "dim")]


# ---------------------------------------------------------------------------------------------- below the table


def _besides_lines(preview: Preview, screen: Screen) -> Iterator[Line]:
    for title, names, why in preview.facts:
        parts = [terminal(name, 60) for name in names[:_MANY_NAMES]]
        parts += [f"{len(names) - _MANY_NAMES:,} more"] if len(names) > _MANY_NAMES else []
        first, *rest = list(fit([f"{title}: {parts[0]}", *parts[1:]], screen, indent="  "))
        lines = [first, *rest]
        if why and screen.elide and len(lines[-1]) + len(why) + 5 > screen.width:
            lines.append(f"  ({why})")
        elif why:
            lines[-1] += f"   ({why})"
        yield (Span(f"{title}:", "dim"), Span(lines[0].removeprefix(f"{title}:")))
        yield from ((Span(line),) for line in lines[1:])


def summary(preview: Preview, screen: Screen) -> Iterator[Line]:
    """``120 tensors, 22.4 MB (was 46.8 MB)   - 2 dropped   ~ 100 cast   = 20 copied``"""
    plan = preview.plan
    total = f"{tensors_text(plan)}, {size_short(plan.nbytes)}"
    if not preview.is_merge:
        total += f" (was {size_short(nbytes_before(plan))})"
    yield from ((Span(line),) for line in fit([total, *counts(plan)], screen, separator="   ", indent="  "))


def written_lines(written: Written, name: str, screen: Screen, files: Sequence[str] = ()) -> Iterator[Line]:
    """``wrote body.safetensors  22.4 MB  0.2 s``, further files, and how far a cast rounded."""
    yield from file_lines(files)
    rounding = rounding_of(written)
    if rounding:
        key = max(rounding, key=lambda key: rounding[key])
        worst = relative(rounding[key])
        lost = "".join(f", {clause}" for clause in lost_values(written))
        room = max(20, screen.width - 40 - len(lost))
        yield (Span("rounding:", "dim"), Span(f" rel ≤ {worst} ({terminal(key, room)}){lost}"))
    files = f"  {len(written.files)} files" if len(written.files) > 1 else ""
    is_folder = written.files[0] != written.path
    name = str(PurePath(name) / written.files[0].name) if is_folder and not files else name
    shown = f"{terminal(name)}{files}  {size_short(written.nbytes)}  {written.seconds:.1f} s"
    yield (Span("wrote", "green"), Span(f" {shown}"))


def lost_values(written: Written) -> Iterator[str]:
    """``1 value overflows``, ``3 values become zero``: what casts could not hold."""
    if overflows := sum(written.overflows.values()):
        yield f"{number_of(overflows, 'value')} {'overflows' if overflows == 1 else 'overflow'}"
    if zeroed := sum(written.zeroed.values()):
        yield f"{number_of(zeroed, 'value')} {'becomes' if zeroed == 1 else 'become'} zero"


def problem_errors(problems: Sequence[Problem]) -> Iterator[tuple[CkptError, list[str]]]:
    """Each problem as an error, and the keys to list below it."""
    for problem in problems[:_MANY_NAMES]:
        message, keys = problem.message, problem.keys
        if len(keys) > 1:  # all of them are listed: the message need not name the first
            message = message.removesuffix(f": {keys[0]}")
        shown = list(keys[:_MANY_KEYS]) if any(key not in message for key in keys) else []
        if len(keys) > _MANY_KEYS and shown:
            shown.append(f"{len(keys) - _MANY_KEYS:,} more (all: --json)")
        yield CkptError(message, hint=problem.hint or None), shown
    if len(problems) > _MANY_NAMES:
        yield CkptError(f"{len(problems) - _MANY_NAMES:,} more problems of the kind", hint="all of them: --json"), []


def nothing_lines(files: Sequence[str], mode: str = "preview", found: bool = False) -> Iterator[Line]:
    """The last lines where no checkpoint was to be written.

    Args:
        files: further files that were written.
        mode: "check" or "dry run" where nothing was to be written at all.
        found: there are rules that can be written.
    """
    yield from file_lines(files)
    recipe = "    as a recipe: --save-recipe FILE" if found and not files else ""
    nothing = f"nothing {'else ' if files else ''}written; add -o PATH{recipe}"
    if mode == "check":
        yield (Span("checked: the plan is sound", "green"),)
    else:
        yield (Span("dry run: nothing written" if mode == "dry run" else nothing, "dim"),)


def file_lines(files: Sequence[str]) -> Iterator[Line]:
    """``wrote found.toml``"""
    yield from ((Span("wrote", "green"), Span(f" {terminal(file)}")) for file in files)
