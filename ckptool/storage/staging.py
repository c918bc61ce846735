"""The place an output goes to: complete or absent.

An output is written beside its final name under a hidden name, flushed to the disk, checked, and renamed. Whatever
happens before the rename, the final name holds what it held before.
"""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import reduce
from operator import and_
from pathlib import Path

from ckptool.core.address import address_of
from ckptool.core.bytes import PathText
from ckptool.core.checkpoint import Note
from ckptool.core.counts import many
from ckptool.core.errors import CkptError, OutputError
from ckptool.storage.claims import CLOSES_FIRST, claim, claim_path, claim_state, is_abandoned
from ckptool.storage.publishing import Replaceable, is_publishing, publish_folder, recovered, sync_name
from ckptool.storage.refusals import created_meanwhile, refusal, said_plainly
from ckptool.storage.renaming import move_new
from ckptool.storage.signals import signals_held
from ckptool.storage.sink import ByteSink
from ckptool.storage.stages import (
    OWNER,
    FolderStage,
    Stage,
    another_writer,
    done_path,
    is_folder_stage,
    records_in,
    remove_stage,
    stage_path,
    stages_of,
    take_mode,
    words_of_done,
)
from ckptool.storage.touched import files_read, note_written, output_at, require_not_read

_TRIES = 5


@contextmanager
def staged_file(
    target: PathText, plan: str | None = None, *, force: bool, replaces_input: bool = False
) -> Iterator[ByteSink]:
    """Give a new hidden file beside `target` to write; on leaving, flush it and put it in the target's place.

    Args:
        target: the final name.
        plan: hash of the plan that it is written by; None for a text.
        force: False if nothing may be there, not even what was created meanwhile.
        replaces_input: True for a file that is read and written again, as a lock is.

    Raises:
        OutputError: it cannot be written, is something that this command reads, or another of its outputs.
    """
    address = address_of(target)
    if address is not None:
        from ckptool.storage.uploads import uploaded_file

        with uploaded_file(address, force=force) as upload:
            yield upload
        return
    target = Path(target)
    with said_plainly(target):
        _require_own_place(target, replaces_input)
        if plan is None:
            clear_stages(target)
        sink = None
        try:
            with signals_held():  # until it is known here what is to be removed
                sink = _claimed_file(target, plan or secrets.token_hex(4))
            yield sink
            take_mode(target, sink.path, sink.descriptor)
            sink.flush()
            with signals_held():
                _publish_file(sink, target, force, replaces_input)
            sync_name(target)
        finally:
            if sink is not None:
                sink.close()
                with suppress(OSError):  # it has its final name; or what went wrong before is what the user should hear
                    sink.path.unlink()


def _publish_file(sink: ByteSink, target: Path, force: bool, replaces_input: bool) -> None:
    """Give a staged file its final name."""
    if CLOSES_FIRST:
        sink.close()
    _require_own_place(target, replaces_input)
    if force:
        sink.path.replace(target)
    else:
        try:
            move_new(sink.path, target)
        except FileExistsError:
            raise created_meanwhile(target) from None
    note_written(target)


def write_file(target: PathText, pieces: Iterable[bytes], *, force: bool, replaces_input: bool = False) -> None:
    """Write a file as a whole, or leave what was there; see `staged_file`."""
    with staged_file(target, force=force, replaces_input=replaces_input) as sink:
        at = 0
        for piece in pieces:
            sink.write(piece, at)
            at += len(piece)


@contextmanager
def staged_folder(target: PathText, plan: str, replaceable: Replaceable, *, force: bool) -> Iterator[Stage]:
    """Give a stage whose files become those of the folder `target`; on leaving, they take their place.

    Args:
        target: the final name.
        plan: hash of the plan that it is written by.
        replaceable: says which files of an existing folder the new ones replace; all others stay.
        force: False if no such file may be there.

    Raises:
        OutputError: it cannot be written. If the system or a signal stopped it and files of the stage are finished, the
            stage is kept for the next run with the same plan, and the error names it.
    """
    address = address_of(target)
    if address is not None:
        from ckptool.storage.uploads import uploaded_folder

        with uploaded_folder(address, replaceable, force=force) as uploads:
            yield uploads
        return
    target, stage, keep = Path(target), None, False
    try:
        with said_plainly(target), signals_held():  # until it is known here what is to be removed
            _require_ended(stage_path(target, plan))
            stage = FolderStage.claim(target, plan, mode_of(target, replaceable))
        yield stage
        with signals_held():
            publish_folder(stage.path, target, replaceable, force=force)
        note_written(target)
    except OSError as error:
        keep = True
        problem = refusal(target, error)
        kept = records_in(stage_path(target, plan))
        if kept:
            problem.hint = f"{problem.hint or 'run it again'}; {_kept(stage_path(target, plan), kept)}"
        raise problem from error
    except (KeyboardInterrupt, SystemExit):
        keep = True
        raise
    finally:
        if stage is not None:
            _give_up(stage.path, stage.owner, remove=not (keep and records_in(stage.path)))


def _require_ended(stage: Path) -> None:
    """Refuse a stage that holds what an earlier run replaced and `clear_stages` could not bring back."""
    if is_publishing(stage):
        raise OutputError(
            f"{stage} holds what an earlier run replaced",
            hint=f"move what you want to keep, then: rm -r {shlex.quote(str(stage))}",
            path=stage,
        )


def _give_up(stage: Path, owner: int, *, remove: bool) -> None:
    """End this process's claim to a stage, and remove the stage unless its publication is not finished."""
    if CLOSES_FIRST:
        os.close(owner)
    if remove and not is_publishing(stage):
        remove_stage(stage)
    if not CLOSES_FIRST:
        os.close(owner)


def clear_stages(target: PathText, plan: str | None = None) -> list[Note]:
    """Finish, undo or remove what killed runs with this target left; what the user should know of it.

    Args:
        target: the output.
        plan: hash of the plan that is about to run; its own stage stays. None for no plan.
    """
    notes: list[Note] = []
    if address_of(target) is not None:  # an upload that was not completed has no name
        return notes
    target = Path(target)
    if plan is not None:  # without a plan nothing is about to be written
        for path in words_of_done(target):
            if path != done_path(target, plan):
                with suppress(OSError):
                    path.unlink()
    for path in stages_of(target):
        if path.is_symlink() or not path.is_dir():
            if is_abandoned(path):
                with suppress(OSError):  # a program has it open
                    path.unlink()
        elif plan is None or path != stage_path(target, plan) or is_publishing(path):
            notes += _clear_folder_stage(path, target, is_own=plan is not None and path == stage_path(target, plan))
    return notes


def _clear_folder_stage(path: Path, target: Path, *, is_own: bool) -> Iterator[Note]:
    try:
        owner = claim_path(path / OWNER) if is_folder_stage(path) else None
    except OSError:  # removed meanwhile, or of another user
        return
    if owner is None:
        return
    remove = False
    try:
        note = recovered(path, target)
        kept = records_in(path)
        if note is not None:
            yield note
        if kept and not is_own and not is_publishing(path):
            yield Note(f"an earlier run with this output was stopped: {_kept(path, kept)}")
        remove = not kept and not is_own
    except CkptError as error:
        yield Note(error.message, error.hint or "")
    except OSError as error:
        reason = (error.strerror or "unknown").lower()
        yield Note(f"{path}, which an earlier run left, cannot be removed: {reason}", f"rm -r {path}")
    finally:
        _give_up(path, owner, remove=remove)


def _kept(stage: Path, count: int) -> str:
    files = many(count, "finished file is", "finished files are")
    return f"{files} in {stage}; the same command goes on from there, rm -r removes it"


def _claimed_file(target: Path, plan: str) -> ByteSink:
    """A new stage of a file that this process has locked. What a killed run left under its name is removed."""
    path = stage_path(target, plan)
    mode = (target.stat().st_mode & 0o600) | 0o400 if target.exists() else None
    for _ in range(_TRIES):
        try:
            sink = ByteSink.create(path, mode)
        except FileExistsError:
            match claim_state(path):
                case "held":
                    raise another_writer(target) from None
                case "free":
                    _unlink_free(path, target)
                case "unknown":
                    path = stage_path(target, secrets.token_hex(4))
            continue
        if claim(sink.descriptor, path):
            return sink
        sink.close()  # taken for a killed run's and removed in the instant before it was locked
    raise another_writer(target)


def _unlink_free(path: Path, target: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except PermissionError:  # where no lock tells, this does
        raise another_writer(target) from None


def mode_of(target: Path, replaceable: Replaceable) -> int | None:
    """Permissions for the files of a folder: those that all files have which they replace; None for the umask's."""
    if not target.is_dir():
        return None
    modes = [(target / name).stat().st_mode & 0o777 for name in replaceable(target) if (target / name).exists()]
    return reduce(and_, modes) | 0o400 if modes else None


def _require_own_place(target: Path, replaces_input: bool) -> None:
    """Refuse a target that this command reads, or that is another of its outputs."""
    if not replaces_input:
        require_not_read(target, files_read())
    if output_at(target) is not None:
        raise OutputError(f"{target} is another output of this command", hint="give each its own name", path=target)
