"""A plan that several processes run together: each writes its share of the files, whoever is last publishes.

The plan is a pure function of the inputs' headers and the options, so that every process has the same one; its hash
names the stage in which they meet. Nothing is sent between them, and nothing depends on the number of a process: after
a failure fewer, more, or other processes go on from what is finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from ckptool.core.bytes import PathText
from ckptool.core.checkpoint import Note
from ckptool.core.errors import DamagedError, UsageError
from ckptool.core.plan import Plan
from ckptool.engine.apply import (
    Written,
    check_output,
    cleared,
    counting,
    damaged_notes,
    fill_file,
    recorded_rounding,
    refuse_damaged,
    require_sound,
    verify,
    without_others,
    written_of,
)
from ckptool.engine.encode import encode, writer_of
from ckptool.engine.plan_hash import plan_hash
from ckptool.engine.reading import Reader
from ckptool.formats.shard_names import replaceable
from ckptool.formats.writer import Output
from ckptool.storage.launchers import Share
from ckptool.storage.paths import exists, is_address, local_path
from ckptool.storage.shared_stage import SharedStage, about_done, require_resumable, shared_folder


def apply_share(
    plan: Plan,
    out: PathText,
    share: Share,
    *,
    force: bool = False,
    max_shard: int | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Write one process's share of a plan's output, and give it its name if nothing is missing then.

    Args:
        plan: what to write, complete for a folder of shards.
        out: the folder, on a file system that all processes share.
        share: which process of how many this is. The first one of a launcher waits for the others.
        force: replace an existing output; see `ckptool.engine.apply.apply`.
        max_shard: bytes of one shard.
        resume: refuse to begin anew where another plan has left finished files.
        progress: told (bytes done, bytes of the share), from any thread.

    Returns:
        What was written by all; `missing` says how many files others have still to write.

    Raises:
        PlanError: if the plan has problems.
        OutputError: if the output cannot be written as asked, or another process has failed.
    """
    started = time.monotonic()
    target = local_path(out)
    require_sound(plan, target)
    if is_address(target) or not writer_of(plan).is_folder:
        raise UsageError(f"{target} is no folder: several processes write a folder of shards", hint="-o FOLDER")
    whole = encode(plan, target, max_shard=max_shard)
    digest = plan_hash(plan, whole.images)
    output, notes = whole, list[Note]()
    missing = 0
    if about_done(target, digest) is not None:
        notes.append(Note(f"{target} is complete already: nothing was left to write"))
    else:
        if resume:
            require_resumable(target, digest)
        check_output(plan, target, force=force)
        output, notes = without_others(whole, plan, target)
        notes += cleared(plan, target, digest, force)
        damaged: list[DamagedError] = []
        take = damaged.append if plan.takes_damaged else refuse_damaged
        with shared_folder(target, digest, replaceable, share) as stage, Reader(plan.inputs, take) as reader:
            missing = _write(stage, output, plan, reader, force, progress)
        notes += damaged_notes(damaged)
    rounding = recorded_rounding(about_done(target, digest) or {})
    files = tuple(target / name for name in output.images)
    return replace(
        written_of(plan, target, files, output, rounding, notes, time.monotonic() - started), missing=missing
    )


def is_complete(plan: Plan, out: PathText, *, max_shard: int | None = None) -> bool:
    """True if an earlier run of this plan has written the whole output, and nothing has changed it since.

    Args:
        plan: what would be written.
        out: the output.
        max_shard: bytes of one shard.
    """
    target = local_path(out)
    if plan.problems or is_address(target) or not exists(target) or not writer_of(plan).is_folder:
        return False
    images = encode(plan, target, max_shard=max_shard).images
    return about_done(target, plan_hash(plan, images)) is not None


def dealt(sizes: Mapping[str, int], count: int) -> list[list[str]]:
    """The files of each process: the longest first, each to the one that has the fewest bytes so far.

    Example:
        >>> dealt({"a": 5, "b": 9, "c": 4, "d": 1}, 2)
        [['b', 'd'], ['a', 'c']]
    """
    shares: list[list[str]] = [[] for _ in range(count)]
    loads = [0] * count
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        least = loads.index(min(loads))
        shares[least].append(name)
        loads[least] += sizes[name]
    return shares


def _write(
    stage: SharedStage,
    output: Output,
    plan: Plan,
    reader: Reader,
    force: bool,
    progress: Callable[[int, int], None] | None,
) -> int:
    """Write a share, publish if it was the last, wait for the others if this process leads; the files still missing."""
    share, images = stage.share, output.images
    sizes = {name: image.size for name, image in images.items() if image.slots}
    mine = dealt(sizes, share.count)[share.number]
    advance = counting(sum(images[name].data_nbytes for name in mine), progress)
    for name in mine:
        stage.check_others()
        if stage.finished(name, sizes[name]) is None:
            fill_file(stage, name, images[name], plan, reader, advance)
        else:
            advance(images[name].data_nbytes)
    reader.check()

    def finish() -> None:
        if not stage.are_finished(sizes):
            return
        with stage.finishing() as is_last:
            if is_last:
                for name in images:
                    if name not in sizes:
                        fill_file(stage, name, images[name], plan, reader, advance)
                verify(stage.new, output)
                stage.publish(replaceable, force=force)

    finish()
    if share.is_launched and share.number == 0:
        stage.wait(finish)
    return 0 if stage.is_done else sum(stage.finished(name, size) is None for name, size in sizes.items())
