"""A plan of filter, remap or merge as a document: schema ``ckptool.plan/1``, a row per tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.counts import many
from ckptool.core.errors import CkptError
from ckptool.core.plan import Dropped, Plan, Problem, Step, sources_of
from ckptool.core.reasons import FOUND
from ckptool.core.shell import shell_quote
from ckptool.engine.reads import reads_of
from ckptool.report.about import ABOUT
from ckptool.report.blocks import Block, Column, Facts, Item, Items, Next, Notes, Rows, Sides, Totals
from ckptool.report.document import Answer, Document, Field, Mood, Status, Table
from ckptool.report.json_plan import dropped_fields, op_of, plan_result, step_fields
from ckptool.report.plan_fates import SYMBOLS, Fate, counts, fate_of
from ckptool.report.plan_rows import (
    beside_facts,
    key_rows,
    nbytes_before,
    rule_rows,
    tensors_text,
    unruled_rows,
)
from ckptool.report.reasons import command_text, reason_text
from ckptool.report.sides import one_side, side_of
from ckptool.report.symbols import STYLES
from ckptool.report.units import relative, shape_text, size_short
from ckptool.storage.paths import is_address

if TYPE_CHECKING:
    from ckptool.commands.automatic import Automatic
    from ckptool.commands.checks.finding import Report
    from ckptool.engine.apply import Written
    from ckptool.storage.transfer import Read

Mode: TypeAlias = Literal["write", "preview", "dry run", "check", "complete"]
"""Whether an output is written, or why not; "complete" where an earlier run has written all of it."""
_KEYS = (
    Column("", "mark"),
    Column("key", "key", least=14),
    Column("n", "whole"),
    Column("elements", "count", wide=True),
    Column("what", least=20, wraps=True),
    Column("bytes", "bytes"),
)
_RULES = (
    Column("", "mark"),
    Column(""),
    Column("rule", "code", least=24),
    Column("keys", "whole"),
    Column("what", least=16),
    Column("for example", least=24, spare=True),
)
_MANY_PROBLEMS = 12
_MANY_KEYS = 8


def plan_document(
    plan: Plan,
    names: Sequence[str],
    mode: Mode,
    match: Automatic | None = None,
    written: Written | None = None,
    exit_code: int = 0,
    verbose: bool = False,
) -> Document:
    """A plan, and what was written of it.

    Args:
        plan: it.
        names: its inputs as they were typed.
        mode: whether it is written, or why not.
        match: the rules that were found, if any were looked for.
        written: the output; None before it is written, or if it never is.
        exit_code: of the command.
        verbose: a row per tensor on a screen.
    """
    return Document(
        command=command_text(plan.command),
        answer=plan_answer(plan, mode) or _ready(plan, mode),
        blocks=lambda: iter(()) if mode == "complete" else _blocks(plan, names, match, written),
        table=lambda: _table(plan),
        result=lambda: plan_result(plan, names, match, written, exit_code),
        records=lambda: chain(
            (step_fields(step, plan.inputs) for step in plan.steps),
            ({"dropped": dropped_fields(dropped, plan.inputs)} for dropped in plan.dropped),
        ),
        summary=lambda: {
            "tensors": plan.stored,
            "bytes": plan.nbytes,
            "dropped": len(plan.dropped),
            "exit_code": int(exit_code),
        },
        listing=lambda: iter(sorted(_listing(plan), key=lambda row: row[1])),
        findings=lambda: _findings(plan, names),
        about=ABOUT,
        problems=(*plan.problems, *plan.unmet),
        verbose=verbose,
    )


def _findings(plan: Plan, names: Sequence[str]) -> Report:
    from ckptool.report.results import plan_findings

    return plan_findings(plan, names)


def plan_answer(plan: Plan, mode: Mode) -> Answer | None:
    """Why nothing is written; None where nothing forbids it."""
    if plan.problems:
        return Answer(f"cannot be written: {many(len(plan.problems), 'problem')}", "bad")
    if plan.unmet:
        unmet = many(len(plan.unmet), "requirement is", "requirements are")
        return Answer(f"not as required: {unmet} not met{', nothing is written' * (mode == 'write')}", "bad")
    return None


def _ready(plan: Plan, mode: Mode) -> Answer:
    if mode == "complete":
        written = f"{tensors_text(plan)}, {size_short(plan.nbytes)} were written before"
        return Answer(f"complete: {written}, nothing is left to write", "good")
    warnings = len({note.text for note in plan.notes if note.level == "warning"})
    state = f"ready, with {many(warnings, 'warning')}" if warnings else "ready"
    verb = "will" if mode == "write" else "would"
    mood: Mood = "warning" if warnings else "good"
    return Answer(f"{state}: {tensors_text(plan)}, {size_short(plan.nbytes)} {verb} be written", mood)


# ---------------------------------------------------------------------------------------------- for people


def _blocks(plan: Plan, names: Sequence[str], match: Automatic | None, written: Written | None) -> Iterator[Block]:
    is_merge = plan.command.name == "merge"
    if len(plan.inputs) == 1:
        yield one_side(plan.inputs[0], names[0])
    else:
        yield Sides(tuple(side_of(side, name) for side, name in zip(plan.inputs, names, strict=True)), ", ")
    yield Notes([note for note in plan.notes if note.level == "warning"])
    if match is not None:
        from ckptool.report.match_rows import match_blocks

        yield from match_blocks(match)
    each = Rows(_KEYS, lambda: key_rows(plan, each=True))
    if plan.command.name == "remap":  # a recipe is shown by its rules; those that were found have been shown
        found = "" if match is None else FOUND
        yield Rows(_RULES, lambda: [*rule_rows(plan, but=found), *unruled_rows(plan)], each)
    else:
        yield Rows(_KEYS, lambda: key_rows(plan), each)
    yield Facts(tuple(beside_facts(plan)))
    yield Notes([note for note in plan.notes if note.level != "warning"])
    yield from reads_blocks(plan)
    before = "" if is_merge else f" (was {size_short(nbytes_before(plan))})"
    yield Totals((f"{tensors_text(plan)}, {size_short(plan.nbytes)}{before}", *counts(plan)))
    if written is not None:
        yield from written_blocks(written, str(written.path), is_part=is_part(plan))


def is_part(plan: Plan) -> bool:
    """True if tensors of the input were left out by patterns: the output may be no whole model."""
    return plan.command.name == "filter" and bool(plan.dropped)


def reads_blocks(plan: Plan) -> Iterator[Block]:
    """``will read 1.05 GB of 16.1 GB in 12 ranges``; nothing where all inputs are on this machine."""
    reads = reads_of(plan)
    if reads is not None:
        whole = size_short(reads.of)
        ranges = f"{size_short(reads.nbytes)} of {whole} in {many(reads.ranges, 'range')}"
        yield Totals((f"will read {ranges if reads.ranges else f'nothing more of {whole}'}",))


def read_block(read: Read) -> Facts:
    """``pinned: hf://org/model@COMMIT`` for each branch, then ``read: 3 requests, 210 kB of 16.1 GB``"""
    requests = many(read.requests, "request")
    pins = [("pinned", [pinned]) for _, pinned in read.pins]
    return Facts((*pins, ("read", [requests, f"{size_short(read.nbytes)} of {size_short(read.of)}"])))


def written_blocks(written: Written, name: str, files: Sequence[str] = (), *, is_part: bool = False) -> Iterator[Block]:
    """``wrote body.safetensors  22.4 MB  0.2 s``, further files, and how far a cast rounded.

    Args:
        written: the output.
        name: it as it was typed.
        files: further files that were written.
        is_part: it is not a whole model, so nothing is said of publishing it.
    """
    yield from file_blocks(files)
    if written.missing:
        missing = many(written.missing, "file is", "files are")
        yield Items((_wrote(f"a part of {name}: {missing} missing, which the other parts write"),))
        return
    if rounding := written.rounding:
        key = max(rounding, key=lambda key: rounding[key])
        yield Facts((("rounding", [f"rel ≤ {relative(rounding[key])} ({key})", *_lost_values(written)]),))
    parts = f"  {len(written.files)} files" if len(written.files) > 1 else ""
    is_folder = written.files[0] != written.path
    shown = str(PurePath(name) / written.files[0].name) if is_folder and not parts else name
    yield Items((_wrote(f"{shown}{parts}  {size_short(written.nbytes)}  {written.seconds:.1f} s"),))
    if is_folder and not is_part and not is_address(name):
        yield Next((f"publish it: hf upload OWNER/NAME {shell_quote(name)}",))


def _wrote(what: str) -> Item:
    return Item("wrote", what, style="green")


def _lost_values(written: Written) -> Iterator[str]:
    """``1 value overflows``, ``3 values become zero``: what casts could not hold."""
    if overflows := sum(written.overflows.values()):
        yield f"{many(overflows, 'value')} {'overflows' if overflows == 1 else 'overflow'}"
    if zeroed := sum(written.zeroed.values()):
        yield f"{many(zeroed, 'value')} {'becomes' if zeroed == 1 else 'become'} zero"


def unwritten_blocks(files: Sequence[str], mode: Mode = "preview", found: bool = False) -> Iterator[Block]:
    """The end where no checkpoint was to be written.

    Args:
        files: further files that were written.
        mode: "check" or "dry run" where nothing was to be written at all.
        found: there are rules that can be written.
    """
    yield from file_blocks(files)
    if mode == "check":
        yield Items((Item("checked:", "the plan is sound", style="green"),))
    elif mode == "dry run":
        yield Next(("dry run: nothing written",))
    else:
        recipe = ("as a recipe: --save-recipe FILE",) if found and not files else ()
        yield Next((f"nothing {'else ' if files else ''}written; add -o PATH", *recipe))


def file_blocks(files: Sequence[str]) -> Iterator[Block]:
    """``wrote found.toml``"""
    if files:
        yield Items(tuple(map(_wrote, files)))


def problem_errors(problems: Sequence[Problem]) -> Iterator[tuple[CkptError, list[str]]]:
    """Each problem as an error, and the keys to list below it."""
    for problem in problems[:_MANY_PROBLEMS]:
        message, keys = problem.message, problem.keys
        if len(keys) > 1:  # all of them are listed: the message need not name the first
            message = message.removesuffix(f": {keys[0]}")
        is_named = all(key in message for key in keys[:2])  # the message lists the first ones itself
        shown = [] if is_named else list(keys[:_MANY_KEYS])
        if len(keys) > _MANY_KEYS and shown:
            shown.append(f"{len(keys) - _MANY_KEYS:,} more (all: --json)")
        yield CkptError(message, hint=problem.hint or None), shown
    if len(problems) > _MANY_PROBLEMS:
        yield CkptError(f"{len(problems) - _MANY_PROBLEMS:,} more problems of the kind", hint="all of them: --json"), []


# ---------------------------------------------------------------------------------------------- for programs

_FIELDS = (
    Field("key"),
    Field("fate"),
    Field("", "tensors", "tensors"),
    Field("", "spec", "spec"),
    Field("dtype"),
    Field("shape"),
    Field("elements", "elements", "count", "add"),
    Field("bytes", "bytes", "bytes", "add"),
    Field("sources", "made of", "key"),
    Field("op", "op", panel=True),
    Field("why", "why"),
    Field("tied_to", "tied to", "key", panel=True),
)
_STATUSES = tuple(Status(SYMBOLS[fate], fate.value, STYLES[SYMBOLS[fate]]) for fate in Fate)  # the same comes last


def _table(plan: Plan) -> Table:
    steps = (_row(plan, step) for step in plan.steps if step.stored or step.tied_to is not None)
    dropped = (_dropped_row(plan, dropped) for dropped in plan.dropped)
    return Table(_FIELDS, chain(steps, dropped), _STATUSES, "fate")


def _row(plan: Plan, step: Step) -> Sequence[Any]:
    target = step.target
    return (
        *(target.key, fate_of(step).value, None, target.short, target.dtype, shape_text(target.shape), target.elements),
        plan.nbytes_of(step) if step.stored else 0,
        " ".join(source.key for source in sources_of(step.value)),
        *(op_of(step), reason_text(step.reason, plan.inputs), step.tied_to),
    )


def _dropped_row(plan: Plan, dropped: Dropped) -> Sequence[Any]:
    spec = plan.inputs[dropped.source.input][dropped.source.key].spec
    return (
        *(spec.key, Fate.DROPPED.value, None, spec.short, spec.dtype, shape_text(spec.shape), spec.elements, 0),
        *(spec.key, "", reason_text(dropped.reason, plan.inputs), None),
    )


def _listing(plan: Plan) -> Iterator[tuple[str, str, str, str]]:
    """``fate, key, old spec, new spec``; ``-`` where there is none, or several."""
    for step in plan.steps:
        yield fate_of(step).value, step.target.key, _old_spec(plan.inputs, step), step.target.short
    for dropped in plan.dropped:
        tensor = plan.inputs[dropped.source.input][dropped.source.key]
        yield "dropped", tensor.key, tensor.spec.short, "-"


def _old_spec(inputs: Sequence[Checkpoint], step: Step) -> str:
    sources = list(sources_of(step.value))
    return inputs[sources[0].input][sources[0].key].spec.short if len(sources) == 1 else "-"
