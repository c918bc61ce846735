"""What filter, remap and merge have in common: the options of an output, and the way from a plan to it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from ckptool.cli.common import Color
from ckptool.cli.reports import add_summary, ci_texts, plain, report_screen, require_reports, write_reports
from ckptool.cli.texts import require_texts, write_texts
from ckptool.core.errors import Exit, UsageError
from ckptool.core.sizes import parse_size

if TYPE_CHECKING:
    from ckptool.commands.automatic import Automatic
    from ckptool.core.checkpoint import Note
    from ckptool.core.plan import Plan, Problem
    from ckptool.engine.apply import Written
    from ckptool.report.preview import Preview


class PlanFormat(StrEnum):
    """What stdout gets."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"
    GITHUB = "github"
    JUNIT = "junit"
    SARIF = "sarif"


class TiedOutput(StrEnum):
    """What safetensors files get for tied tensors."""

    CLONE = "clone"
    KEEP_FIRST = "keep-first"


_PANEL = "Writing"
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="PATH", help="Write it: .pth .pt .bin .ckpt, .safetensors, or a folder.",
        rich_help_panel=_PANEL,
    ),
]  # fmt: skip
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing output.", rich_help_panel=_PANEL)]
ShardOption = Annotated[
    str | None,
    typer.Option("--max-shard", metavar="SIZE", help="Split a folder's shards at 5GB, 500MB.", rich_help_panel=_PANEL),
]
TiedOption = Annotated[
    TiedOutput,
    typer.Option(
        "--tied", metavar="HOW", help="Tied tensors in safetensors: clone or keep-first.", rich_help_panel=_PANEL
    ),
]
WeightsOnlyOption = Annotated[
    bool,
    typer.Option("--only-weights", help="Leave out the optimizer, epoch and all else.", rich_help_panel=_PANEL),
]
DropOptimizerOption = Annotated[
    bool, typer.Option("--drop-optimizer", help="Leave out optimizer state.", rich_help_panel=_PANEL)
]
KeepOptimizerOption = Annotated[
    bool,
    typer.Option(
        "--keep-optimizer-as-is", help="Keep it unchanged, whatever happens to the parameters.", rich_help_panel=_PANEL
    ),
]
KeepUnknownOption = Annotated[
    bool, typer.Option("--keep-unknown", help="Carry objects of unknown classes along.", rich_help_panel=_PANEL)
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="FACT",
        help="Write although this fact refuses; repeats.",
        rich_help_panel=_PANEL,
    ),
]
DtypeOption = Annotated[
    str | None, typer.Option("--dtype", metavar="DTYPE", help="Cast floats to f32, bf16, f16, ...; integers stay.")
]
PlanFormatOption = Annotated[
    PlanFormat,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="text, json, markdown, github, junit or sarif.",
        rich_help_panel="Output",
    ),
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="A row per tensor.", rich_help_panel="Output")
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line says about the output.

    Attributes:
        out: where to write; None for a preview.
        names: the inputs as they were typed.
        check: say only whether the plan is sound and meets its expectations.
        selected: the user said which dict of the file to take.
        reports: files that get the result as well.
        texts: further files, and what is to stand in them.
        also_read: what is read beside the plan's inputs.
        allow: names of facts on which the user insists.
    """

    out: Path | None
    names: tuple[str, ...]
    force: bool = False
    max_shard: str | None = None
    tied: Literal["clone", "keep-first"] = "clone"
    only_weights: bool = False
    drop_optimizer: bool = False
    optimizer_as_is: bool = False
    keep_unknown: bool = False
    check: bool = False
    selected: bool = False
    form: PlanFormat = PlanFormat.TEXT
    color: Color = Color.AUTO
    no_pager: bool = False
    verbose: bool = False
    quiet: bool = False
    reports: tuple[Path, ...] = ()
    texts: Mapping[Path, str] = field(default_factory=dict)
    also_read: tuple[Path, ...] = ()
    allow: tuple[str, ...] = ()


def carry_out(plan: Plan, request: Request, match: Automatic | None = None) -> int:
    """Shows a plan and, if an output is named and nothing speaks against it, writes it; gives the exit code.

    Args:
        plan: what to do.
        request: what the command line says of the output.
        match: the rules that were found, if any were looked for.
    """
    from ckptool.commands.beside.settle import settled
    from ckptool.facts.consult import consulted

    limit = require_writable(plan, request)
    plan = settled(
        plan,
        request.out,
        only_weights=request.only_weights,
        drop_optimizer=request.drop_optimizer,
        optimizer_as_is=request.optimizer_as_is,
        keep_unknown=request.keep_unknown,
    )
    plan = consulted(plan, request.allow)
    preview = _preview(plan, request, match)
    if request.form is PlanFormat.TEXT:
        _show(preview, request)
    written = None
    files: list[str] = []
    code = _verdict(plan, request)
    if code is Exit.OK and not request.check:
        if request.out is not None:
            written = write(plan, request.out, request, limit)
        files = write_texts(request.texts, force=request.force)
    _report(preview, written, files, code, request)
    return code


def _verdict(plan: Plan, request: Request) -> Exit:
    if plan.problems:
        return Exit.DIFFERENT if request.check else Exit.TROUBLE
    return Exit.DIFFERENT if plan.unmet else Exit.OK


def require_writable(plan: Plan, request: Request) -> int | None:
    """Refuses an output that could not be written, before anything is shown; gives the bytes of a shard."""
    limit = None if request.max_shard is None else parse_size(request.max_shard, least=1)
    sources = [file for checkpoint in plan.inputs for file in (checkpoint.path, *checkpoint.files)]
    sources += request.also_read
    require_reports(request.reports, sources)
    require_texts(request.texts, sources, request.out, force=request.force)
    if request.out is None or request.check:
        return limit
    from ckptool.engine.encode import container_of
    from ckptool.engine.output import check_target

    if str(request.out) == "-":
        raise UsageError("an output is a file or a folder, not a stream", hint="give its name: -o out.safetensors")
    container = container_of(request.out)
    check_target(request.out, sources, force=request.force)
    if request.max_shard is not None and container != "folder":
        raise UsageError(
            f"--max-shard makes a folder of shards; {request.out} is one file",
            hint=f"-o {request.out.with_suffix('')}",
        )
    return limit


def _preview(plan: Plan, request: Request, match: Automatic | None) -> Preview:
    from ckptool.commands.beside.settle import besides
    from ckptool.engine.encode import tie_notes
    from ckptool.report.preview import Preview

    notes: list[Note] = [note for note in plan.notes if not (plan.problems and note.text.startswith("reversible"))]
    if request.out is not None:
        notes += _beside_notes(plan, request)
        notes += tie_notes(plan, request.out, request.tied)
    return Preview(plan, request.names, besides(plan, request.out), tuple(notes), match)


def _beside_notes(plan: Plan, request: Request) -> Iterator[Note]:
    """Who picks the second set of weights of a file gets a file in which it is still the second."""
    from ckptool.commands.beside.settle import besides
    from ckptool.core.checkpoint import Note

    if plan.frame is None or request.out is None or not request.selected:
        return
    selection = plan.inputs[plan.frame].selection
    beside = set(selection.others) & set(besides(plan, request.out).kept)
    if beside:
        names = ", ".join(sorted(beside))
        yield Note(
            f'{request.out.name} keeps other weights beside "{selection.name}": {names}',
            "a loader may take those; --only-weights writes the chosen ones alone",
        )


def _show(preview: Preview, request: Request) -> None:
    from ckptool.cli.output import print_lines, stdout_screen
    from ckptool.report.text_plan import plan_lines

    screen = stdout_screen(request.color)
    print_lines(
        plan_lines(preview, screen, request.verbose), screen, pager=request.out is None and not request.no_pager
    )


def write(plan: Plan, out: Path, request: Request, limit: int | None) -> Written:
    from ckptool.cli.progress import Progress
    from ckptool.engine.apply import apply

    with ends_cleanly(), Progress("writing", request.quiet) as progress:
        return apply(plan, out, force=request.force, max_shard=limit, tied=request.tied, progress=progress)


def _report(preview: Preview, written: Written | None, files: Sequence[str], code: Exit, request: Request) -> None:
    """What came of it, in the format asked for; the problems on stderr whatever the format."""
    from ckptool.cli.output import print_lines, print_texts, stdout_screen

    plan = preview.plan
    if request.form is not PlanFormat.TEXT:
        print_texts(_texts(preview, written, code, request.form))
        if request.form is PlanFormat.GITHUB:
            add_plan_summary(plan, request.names)
    elif code is Exit.OK:
        from ckptool.report.text_plan import nothing_lines, written_lines

        screen = stdout_screen(request.color)
        if written is None:
            lines = nothing_lines(files, request.check, preview.match is not None)
        else:
            lines = written_lines(written, str(request.out), screen, files)
        print_lines(lines, screen, pager=False)
    say([*plan.problems, *plan.unmet])
    write_reports(request.reports, lambda kind: _texts(preview, written, code, kind))


def _texts(preview: Preview, written: Written | None, code: Exit, form: str) -> Iterable[str]:
    """The plan and what came of it in a format for machines, documents or files."""
    match form:
        case "json":
            from ckptool.report.json_plan import plan_json

            return plan_json(preview, written, code)
        case "markdown":
            from ckptool.report.markdown_plan import plan_markdown

            return plan_markdown(preview, written)
        case "text":
            from ckptool.report.text_plan import plan_lines

            return plain(plan_lines(preview, report_screen()))
        case _:
            from ckptool.commands.checks.results import ABOUT, plan_findings

            return ci_texts(plan_findings(preview.plan, preview.names), form, _command(preview.plan), ABOUT)


def add_plan_summary(plan: Plan, names: tuple[str, ...]) -> None:
    """Append what speaks against a plan to the summary of a GitHub job."""
    from ckptool.commands.checks.results import plan_findings

    add_summary(plan_findings(plan, names), _command(plan))


def _command(plan: Plan) -> str:
    """``remap``"""
    return plan.request.partition(" ")[0]


def say(problems: Sequence[Problem]) -> None:
    if problems:
        from ckptool.cli.errors import print_error
        from ckptool.report.text_plan import problem_errors

        for error, keys in problem_errors(problems):
            print_error(error, keys)


# ---------------------------------------------------------------------------------------------- signals


@contextmanager
def ends_cleanly() -> Iterator[None]:
    """While it lasts, SIGTERM and SIGHUP end the program as Ctrl-C does: what was half written is removed.

    The exit code is the shell's for the signal, 143 and 129. Signals that are ignored (nohup) stay ignored.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    changed = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
