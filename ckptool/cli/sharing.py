"""Several processes that do one command together: which of them this is, and where those that read meet."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ckptool.cli.common import PATH
from ckptool.core.checkpoint import Note
from ckptool.core.errors import UsageError
from ckptool.storage.environment import VARIABLES
from ckptool.storage.launchers import Share, launched, tasks_of_script
from ckptool.storage.paths import is_address

if TYPE_CHECKING:
    from ckptool.core.checkpoint import Checkpoint

_Result = TypeVar("_Result")
PANEL = "Several processes"

WorkOption = Annotated[
    PurePath | None,
    typer.Option("--work", path_type=PATH, metavar="DIR", help="The folder in which they meet.", rich_help_panel=PANEL),
]
ReadTogetherOption = Annotated[
    bool,
    typer.Option(
        "--distributed",
        help="Started by torchrun, srun or mpirun: all processes read one share each.",
        rich_help_panel=PANEL,
    ),
]
ReadPartOption = Annotated[
    str | None,
    typer.Option("--part", metavar="I/N", help="Read part I of N; the last one says it all.", rich_help_panel=PANEL),
]


@dataclass(frozen=True, slots=True)
class Reading:
    """How processes share the reading of a command.

    Attributes:
        share: which of them this is; None for one alone.
        work: the folder in which they meet.
    """

    share: Share | None = None
    work: PurePath | None = None


def named_share(part: str | None, distributed: bool) -> Share | None:
    """The share that options and the environment mean; None for all of it.

    Args:
        part: ``2/8``.
        distributed: the environment says which process this is.

    Raises:
        UsageError: they exclude each other, or no launcher has started this process.
    """
    if part is not None and distributed:
        raise UsageError("--part and --distributed exclude each other", hint="give one of them")
    if part is not None:
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", part)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f'--part "{part}" is not I/N with I from 1 to N', hint="--part 2/8")
        return Share(int(match[1]) - 1, int(match[2]))
    if not distributed:
        return None
    found = launched(VARIABLES)
    if found is None and (tasks := tasks_of_script(VARIABLES)):
        raise UsageError(
            f"--distributed is for processes that a launcher starts, and this is the script of a Slurm job: "
            f"the other {tasks - 1:,} of its {tasks:,} tasks are not running",
            hint="start all of them: srun ckptool ... --distributed",
        )
    if found is None:
        raise UsageError(
            "--distributed is for processes that a launcher starts, and RANK and WORLD_SIZE are not set",
            hint="torchrun --no-python --nproc-per-node 8 ckptool ... --distributed",
        )
    return found


def asked_reading(part: str | None, distributed: bool, work: PurePath | None, *, headers: str | None = None) -> Reading:
    """How a command that reads values is shared.

    Args:
        part: ``2/8``.
        distributed: the environment says which process this is.
        work: the folder in which they meet.
        headers: where only headers are read, what makes it so; None where values are.

    Raises:
        UsageError: the options do not fit together.
    """
    share = named_share(part, distributed)
    option = "--part" if part is not None else "--distributed"
    if share is None:
        if work is not None:
            raise UsageError("--work is where several processes meet", hint="with --distributed or --part I/N")
        _warn_of_launcher(headers)
        return Reading()
    if headers is not None:
        raise UsageError(f"{option} shares out values, and only headers are read", hint=headers)
    if work is None:
        raise UsageError(f"{option} needs a folder in which the processes meet", hint="--work DIR, which all see")
    if is_address(work):
        raise UsageError(f"--work {work} is no folder of a file system", hint="--work DIR, which all processes see")
    return Reading(share, work)


def launcher_note() -> Note | None:
    """What is to be said where a launcher has started several processes that know nothing of each other."""
    found = launched(VARIABLES)
    if found is None or found.count < 2:
        return None
    text = f"this is process {found.number + 1} of {found.count}, and each of them does all of the work"
    return Note(text, "--distributed shares it out", level="warning")


def together(compute: Callable[[], _Result], reading: Reading) -> _Result | None:
    """Run what reads values; None where another process says what came of it.

    Args:
        compute: the command up to its result; it calls `ckptool.values.shared.agree` once.
        reading: how it is shared.
    """
    from ckptool.storage.signals import ends_cleanly

    if reading.share is None:
        return compute()
    from ckptool.values.shared import Waiting, in_shares

    with ends_cleanly():
        found = in_shares(compute, reading.share, reading.work)
    if not isinstance(found, Waiting):
        return found
    if not reading.share.is_launched:
        _say_missing(found.missing, reading)
    return None


def agreed(reading: Reading, options: tuple[object, ...], *checkpoints: Checkpoint) -> None:
    """Say what a command is asked, where processes share it; costs nothing for one alone."""
    if reading.share is not None:
        from ckptool.values.shared import agree

        agree(options, checkpoints)


def _say_missing(missing: list[int], reading: Reading) -> None:
    from ckptool.cli.errors import print_note

    if not missing:
        print_note(Note(f"another process puts the records in {reading.work} together"))
        return
    shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
    print_note(Note(f"this part is in {reading.work}; still to come: {shown}", "the last one says what they found"))


def _warn_of_launcher(headers: str | None) -> None:
    note = launcher_note() if headers is None else None
    if note is not None:
        from ckptool.cli.errors import print_note

        print_note(note)
