"""What filter, remap and merge have in common: the options of an output, and the way from a plan to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from ckptool.cli.common import PATH, Color
from ckptool.cli.reports import require_reports, show_blocks, show_document, write_reports
from ckptool.cli.sharing import PANEL, launcher_note, named_share
from ckptool.cli.texts import require_texts, write_texts
from ckptool.cli.values import exclude
from ckptool.commands.beside.choices import Choices
from ckptool.core.checkpoint import Note
from ckptool.core.errors import Exit, UsageError
from ckptool.core.sizes import parse_size
from ckptool.storage.launchers import Share

if TYPE_CHECKING:
    from ckptool.commands.automatic import Automatic
    from ckptool.core.plan import Plan, Problem
    from ckptool.engine.apply import Written
    from ckptool.report.document_plan import Mode


class TiedOutput(StrEnum):
    """What safetensors files get for tied tensors."""

    CLONE = "clone"
    KEEP_FIRST = "keep-first"


def complete_writers(incomplete: str) -> list[str]:
    """Names of what can be written."""
    from ckptool.formats.registry import writers

    return [name for name in writers() if name.startswith(incomplete)]


_PANEL = "Writing"
OutOption = Annotated[
    PurePath | None,
    typer.Option(
        "--output",
        "-o",
        path_type=PATH,
        metavar="PATH",
        help="Write it: .pth .pt .bin .ckpt, .safetensors, or a folder.",
        rich_help_panel=_PANEL,
    ),
]
ToOption = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="FORMAT",
        help="What the output is where its ending does not say it: torch, safetensors, folder.",
        autocompletion=complete_writers,
        rich_help_panel=_PANEL,
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing output.", rich_help_panel=_PANEL)]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--max-shard-size",
        "--max-shard",
        metavar="SIZE",
        help="Bytes of one shard of a folder: 5GB, 500MB.",
        rich_help_panel=_PANEL,
    ),
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
        "--keep-optimizer-as-is",
        help="Keep optimizer state unchanged, whatever happens to the parameters.",
        rich_help_panel=_PANEL,
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show everything that -o does, and write nothing.", rich_help_panel=_PANEL)
]
KeepUnknownOption = Annotated[
    bool, typer.Option("--keep-unknown", help="Keep objects of unknown classes.", rich_help_panel=_PANEL)
]
DistributedOption = Annotated[
    bool,
    typer.Option(
        "--distributed",
        help="Started by torchrun, srun or mpirun: all processes write one folder together.",
        rich_help_panel=PANEL,
    ),
]
PartOption = Annotated[
    str | None,
    typer.Option("--part", metavar="I/N", help="Write part I of N of a folder.", rich_help_panel=PANEL),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume", help="Write what is missing of a folder; nothing if it is complete.", rich_help_panel=PANEL
    ),
]
WrapOption = Annotated[
    str | None,
    typer.Option("--wrap", metavar="KEY", help="Put the weights under this key of a .pth.", rich_help_panel=_PANEL),
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
    str | None,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="Cast floats to f32, bf16, f16, f8_e4m3fn, ...; float64 is rounded once; integers stay.",
    ),
]
DequantizeOption = Annotated[
    bool,
    typer.Option("--dequantize", help="Decode quantized weights first; to bf16, or what the config or --dtype says."),
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="A row per tensor.", rich_help_panel="Output")
]  # fmt: skip


def choices_of(
    only_weights: bool, drop_optimizer: bool, optimizer_as_is: bool, keep_unknown: bool, choices: Choices
) -> Choices:
    """What the options say of everything beside the weights.

    Raises:
        UsageError: one says the opposite of another.
    """
    alone = {"--only-weights": only_weights}
    exclude("--only-weights leaves all of it out", {**alone, "--keep-optimizer-as-is": optimizer_as_is})
    exclude("--only-weights leaves all of it out", {**alone, "--keep-unknown": keep_unknown})
    both = {"--drop-optimizer": drop_optimizer, "--keep-optimizer-as-is": optimizer_as_is}
    exclude("give one of them", both)
    return replace(
        choices,
        only_weights=only_weights,
        drop_optimizer=drop_optimizer,
        optimizer_as_is=optimizer_as_is,
        keep_unknown=keep_unknown,
    )


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line says about the output.

    Attributes:
        out: where to write; None for a preview.
        names: the inputs as they were typed.
        to: the container, where the ending of `out` does not say it.
        check: say only whether the plan is sound and meets its expectations.
        choices: what to do with everything beside the weights.
        dry_run: do everything but write.
        reports: files that get the result as well.
        texts: further files, and what is to stand in them.
        also_read: what is read beside the plan's inputs.
        share: which of several processes that write together this is; None for one alone.
        resume: begin nothing anew that an earlier run has begun by another plan.
        dequantize: quantized weights were to be decoded.
    """

    out: PurePath | None
    names: tuple[str, ...]
    to: str | None = None
    force: bool = False
    max_shard: str | None = None
    choices: Choices = field(default_factory=Choices)
    check: bool = False
    dry_run: bool = False
    form: str = "text"
    color: Color = Color.AUTO
    no_pager: bool = False
    verbose: bool = False
    quiet: bool = False
    reports: tuple[PurePath, ...] = ()
    texts: Mapping[PurePath, str] = field(default_factory=dict)
    also_read: tuple[PurePath, ...] = ()
    share: Share | None = None
    resume: bool = False
    dequantize: bool = False

    @property
    def is_silent(self) -> bool:
        """True for one of several processes that leaves the report to another one."""
        return self.share is not None and not self.share.leads


def asked_share(part: str | None, distributed: bool, resume: bool, out: PurePath | None) -> Share | None:
    """The share of the work that options and the environment mean; None for all of it.

    Args:
        part: ``2/8``.
        distributed: the environment says which process this is.
        resume: what is finished is kept.
        out: the output.

    Raises:
        UsageError: they do not fit together, or no launcher has started this process.
    """
    share = named_share(part, distributed)
    if out is None and (share is not None or resume):
        raise UsageError("there is no output to share", hint="-o FOLDER")
    return share or (Share(0, 1) if resume else None)


def carry_out(plan: Plan, request: Request, match: Automatic | None = None) -> int:
    """Shows a plan and, if an output is named and nothing forbids it, writes it; gives the exit code.

    Args:
        plan: what to do.
        request: what the command line says of the output.
        match: the rules that were found, if any were looked for.
    """
    from ckptool.report.document_plan import plan_document

    limit = require_writable(plan, request)
    plan = completed(plan, request)
    mode = "complete" if is_complete_already(plan, request, limit) else mode_of(request)
    is_said = mode == "complete" and request.form == "text"
    if request.form == "text" and not request.is_silent:
        before = plan_document(plan, request.names, mode, match, verbose=request.verbose)
        show_document(before, "text", request.color, pager=request.out is None and not request.no_pager)
    written = None
    files: list[str] = []
    code = _verdict(plan, request)
    if code is Exit.OK and not request.check and not request.dry_run:
        if request.out is not None:
            written = write(plan, request.out, request, limit, says_notes=not is_said)
        if not request.is_silent and (written is None or not written.missing):
            files = write_texts(request.texts, force=request.force)
    if request.is_silent:
        if code is not Exit.OK:
            say([*plan.problems, *plan.unmet])
        return code
    document = plan_document(plan, request.names, mode, match, written, code, request.verbose)
    if request.form != "text":
        show_document(document, request.form)
    elif code is Exit.OK and mode != "complete":
        _show_end(plan, written, files, request, found=match is not None)
    say([*plan.problems, *plan.unmet])
    write_reports(request.reports, document)
    return code


def completed(plan: Plan, request: Request) -> Plan:
    """The plan for the container of the output; without an output, for what --to says or one like the first input."""
    from ckptool.commands.beside.complete import complete, container_like
    from ckptool.engine.encode import container_of

    plan = replace(plan, notes=(*plan.notes, *_notes_on(plan, request)))
    if request.out is None:
        return complete(plan, request.to or container_like(plan.inputs[0]), request.choices)
    return complete(plan, container_of(request.out, request.to), request.choices)


def _notes_on(plan: Plan, request: Request) -> Iterator[Note]:
    """Options that change nothing, and processes that do each other's work."""
    if request.dequantize and not any(checkpoint.is_decoded for checkpoint in plan.inputs):
        names = ", ".join(checkpoint.path.name for checkpoint in plan.inputs)
        yield Note(f"--dequantize changes nothing: no tensor of {names} is quantized")
    note = launcher_note() if request.share is None and request.out is not None else None
    if note is not None:
        yield note


def is_complete_already(plan: Plan, request: Request, limit: int | None) -> bool:
    """True where processes write together, or a run is resumed, and nothing is left to write.

    Raises:
        OutputError: the output is there and is not this plan's.
    """
    if request.share is None or request.out is None or _verdict(plan, request) is not Exit.OK:
        return False
    from ckptool.engine.apply import check_output
    from ckptool.engine.sharing import is_complete

    if is_complete(plan, request.out, max_shard=limit):
        return True
    check_output(plan, request.out, request.also_read, force=request.force, to=request.to)
    return False


def _verdict(plan: Plan, request: Request) -> Exit:
    if plan.problems:
        return Exit.DIFFERENT if request.check else Exit.TROUBLE
    return Exit.DIFFERENT if plan.unmet else Exit.OK


def require_writable(plan: Plan, request: Request) -> int | None:
    """Refuses an output that could not be written, before anything is shown; gives the bytes of a shard."""
    from ckptool.engine.apply import check_output
    from ckptool.engine.encode import container_of, writer_named
    from ckptool.formats.shard_names import is_shard_name
    from ckptool.storage.targets import check_distinct

    limit = None if request.max_shard is None else parse_size(request.max_shard, least=1)
    if str(request.out) == "-":
        raise UsageError("an output is a file or a folder, not a stream", hint="give its name: -o out.safetensors")
    sources = [PurePath(path) for checkpoint in plan.inputs for path in checkpoint.paths]
    sources += request.also_read
    require_reports(request.reports, sources)
    require_texts(request.texts, sources, force=request.force)
    out = None if request.check else request.out
    is_folder = out is not None and writer_named(container_of(out, request.to)).is_folder
    outputs = [*request.texts, *request.reports]
    check_distinct([out, *outputs] if out else outputs, out if is_folder else None, is_shard_name)
    if out is None:
        return limit
    may_be_there = request.force or request.share is not None  # it may be complete already
    check_output(plan, out, request.also_read, force=may_be_there, to=request.to)
    if request.max_shard is not None and not is_folder:
        raise UsageError(
            f"--max-shard-size makes a folder of shards; {out} is one file", hint=f"-o {out.with_suffix('')}"
        )
    return limit


def write(plan: Plan, out: PurePath, request: Request, limit: int | None, *, says_notes: bool = True) -> Written:
    from ckptool.cli.errors import print_note
    from ckptool.cli.progress import Progress
    from ckptool.engine.apply import apply
    from ckptool.storage.signals import ends_cleanly

    with ends_cleanly(), Progress("writing", request.quiet or request.is_silent) as progress:
        if request.share is None:
            written = apply(plan, out, force=request.force, max_shard=limit, progress=progress)
        else:
            from ckptool.engine.sharing import apply_share

            written = apply_share(
                plan,
                out,
                request.share,
                force=request.force,
                max_shard=limit,
                resume=request.resume,
                progress=progress,
            )
    for note in written.notes if says_notes and not request.is_silent else ():
        print_note(note)
    return written


def _show_end(plan: Plan, written: Written | None, files: Sequence[str], request: Request, found: bool) -> None:
    """The last lines of text: what was written, or why nothing was."""
    from ckptool.report.document_plan import is_part, unwritten_blocks, written_blocks

    if written is None:
        show_blocks(unwritten_blocks(files, mode_of(request), found), request.color)
    else:
        show_blocks(written_blocks(written, str(request.out), files, is_part=is_part(plan)), request.color)


def mode_of(request: Request) -> Mode:
    """Whether an output is written, or why not."""
    if request.check:
        return "check"
    return "dry run" if request.dry_run else "write" if request.out is not None else "preview"


def say(problems: Sequence[Problem]) -> None:
    if problems:
        from ckptool.cli.errors import print_error
        from ckptool.report.document_plan import problem_errors

        for error, keys in problem_errors(problems):
            print_error(error, keys)
