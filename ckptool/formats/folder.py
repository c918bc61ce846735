"""What checkpoint a folder holds.

By the names that loaders look for, in the order in which they look, safetensors before pickles; else by its indexes,
else by shards that count themselves, else by the files in it that are checkpoints. Several of a kind: the user decides.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ckptool.core.bytes import Entry, Folder
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import CkptError, UnreadableError, UsageError
from ckptool.core.observations import RunBeside
from ckptool.core.shell import shell_quote
from ckptool.formats.ranks.kinds import inner_folders, joining_folder, kind_of
from ckptool.formats.ranks.names import first_line
from ckptool.formats.registry import (
    INDEX,
    INDEX_ENDING,
    FolderContainer,
    endings,
    folder_container,
    is_safe_name,
    open_file,
    sniff,
)
from ckptool.formats.sharded import SHARD_NAME, open_index, open_shards
from ckptool.formats.sniff import other_folder
from ckptool.storage.touched import only_looking

KNOWN = [
    name
    for suffix in ("safetensors", "bin")
    for stem in ("model", "pytorch_model", "diffusion_pytorch_model", "adapter_model")
    for name in (f"{stem}.{suffix}", f"{stem}.{suffix}{INDEX_ENDING}")
]
"""The names under which transformers, diffusers and peft look for weights, in their order."""

# What trainers put beside the weights: torch files, but never what is meant by "the checkpoint".
_COMPANIONS = ("optimizer", "scheduler", "scaler", "training_args", "rng_state", "random_states", "sampler")
_MOST = 1000  # files that are looked into
_LATEST = "latest_checkpointed_iteration.txt"
_STEP = re.compile(r"global_step_?\d+")  # around the folders of verl's actor and critic

Candidate = tuple[str, ...]  # one file, one index, or the shards of one checkpoint


def open_folder(folder: Folder, select: str | None = None) -> Checkpoint:
    """Open the checkpoint that a folder holds.

    Raises:
        UnreadableError: it holds none.
        UsageError: it holds several, and none of them has a name that loaders look for.
    """
    entries = folder.entries()
    names = [entry.name for entry in entries]
    container = folder_container(folder, entries)
    if container is not None:
        opened = container.open(folder, select)
    elif (kind := _kind(folder, entries)) is not None:
        return kind.open(folder, select)
    else:
        chosen = _choice(folder, entries)
        if chosen is None:
            return open_folder(_only_inner(folder, entries), select)
        opened = _opened(folder, chosen, select)
    if opened.format.is_pickle and len(opened.files) == 1:
        from ckptool.formats.ranks.parts import holds_distributed

        if holds_distributed(opened):
            from ckptool.formats.ranks.per_rank import open_lone

            return open_lone(folder, opened.files[0].name, select)
    files = {file.name for file in opened.files}
    left = [name for name in names if name.endswith(endings()) and name not in files and not _is_companion(name)]
    inner = joining_folder(folder, is_whole=True)
    if inner is not None:
        opened = replace(opened, observations=(*opened.observations, RunBeside(str(inner))))
    return replace(opened, unopened=tuple(left)) if left else opened


def _kind(folder: Folder, entries: Sequence[Entry]) -> FolderContainer | None:
    """The kind of folder that several ranks wrote; whole weights under a name that loaders look for come first."""
    if any(entry.name in KNOWN and not entry.is_folder for entry in entries):
        return None
    return kind_of(folder, entries)


def _opened(folder: Folder, chosen: Candidate, select: str | None) -> Checkpoint:
    if chosen[0].endswith(INDEX_ENDING):
        return replace(open_index(folder.open(chosen[0]), select), path=folder.path)
    if SHARD_NAME.fullmatch(chosen[0]):
        return open_shards(folder, chosen, select)
    return open_file(folder.open(chosen[0]), select)


def _choice(folder: Folder, entries: Sequence[Entry]) -> Candidate | None:
    """What loaders would take of the files in a folder; None if none of them is a checkpoint."""
    names = [entry.name for entry in entries]
    present = {entry.name for entry in entries if not entry.is_folder}
    for name in KNOWN:
        if name in present:
            return (name,)
    ways = (partial(_indexes, names), partial(_shard_groups, names), partial(_single_files, folder, entries))
    for way in ways:  # the last one reads the beginning of every file
        candidates = way()
        same_stem = len({_model_name(candidate[0]) for candidate in candidates}) == 1
        if same_stem:  # one model in two formats: safetensors wins
            return min(candidates, key=lambda candidate: not is_safe_name(candidate[0]))
        if candidates:
            listed = ", ".join(candidate[0] for candidate in candidates[:8])
            raise UsageError(
                f"{folder.path} holds {len(candidates)} checkpoints: {listed}{', ...' if len(candidates) > 8 else ''}",
                hint=f"name one of them: {folder.path / candidates[0][0]}",
                path=folder.path,
            )
    return None


def _only_inner(folder: Folder, entries: Sequence[Entry]) -> Folder:
    """The one folder of ranks in a folder without a checkpoint of its own, or the one that a text names as the latest.

    Raises:
        UnreadableError: there is none, or several.
    """
    names = {entry.name for entry in entries if entry.is_folder}
    if Entry(_LATEST, False) in entries:  # verl writes it, as Megatron does
        latest = f"global_step_{first_line(folder.open(_LATEST))}"
        if latest in names:
            return folder.folder(latest)
    inner = inner_folders(folder, entries)
    steps = [folder.folder(name) for name in names if _STEP.fullmatch(name)] if not inner else []
    if len(steps) == 1 and inner_folders(steps[0], steps[0].entries()):
        return steps[0]
    if len(inner) == 1 and not any(_holds_known(folder.folder(name)) for name in names - {inner[0].path.name}):
        return inner[0]
    raise _nothing(folder, entries)


def _model_name(name: str) -> str:
    """What a file's name says of the model, not of the format; a number behind a dot is another model or part.

    Example:
        >>> _model_name("model.fp16.safetensors"), _model_name("weights.01.pth")
        ('model', 'weights.01')
    """
    first, *parts = name.split(".")
    return ".".join((first, *(part for part in parts if part.isdecimal())))


def _indexes(names: Sequence[str]) -> list[Candidate]:
    return [(name,) for name in names if name.endswith(INDEX_ENDING)]


def _shard_groups(names: Sequence[str]) -> list[Candidate]:
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        match = SHARD_NAME.fullmatch(name)
        if match is not None and name.endswith(endings()):
            groups[match["stem"], match["count"], match["suffix"]].append(name)
    return [tuple(group) for group in groups.values()]


def _single_files(folder: Folder, entries: Sequence[Entry]) -> list[Candidate]:
    """The files that are checkpoints by content; a trainer's companions only if there is nothing else.

    Raises:
        UnreadableError: there is none, but a file that has the name of one; says what it is.
    """
    found: list[Candidate] = []
    general: list[Candidate] = []
    problems: dict[str, CkptError] = {}
    for name, is_folder in entries[:_MOST]:
        if is_folder:
            continue
        try:
            with only_looking(), folder.open(name).open() as file:
                container = sniff(file)
            if container is not INDEX:
                (general if container.is_general else found).append((name,))
        except CkptError as error:  # most files of a folder are none
            problems[name] = error
    for name, problem in problems.items():
        if not (found or general) and name.endswith(endings()):
            raise problem
    found = found or general
    return [candidate for candidate in found if not _is_companion(candidate[0])] or found


def _is_companion(name: str) -> bool:
    return name.startswith(_COMPANIONS)


def _nothing(folder: Folder, entries: Sequence[Entry]) -> UnreadableError:
    path, names = folder.path, [entry.name for entry in entries]
    if not entries:
        return UnreadableError(f"the folder {path} is empty", path=path)
    other = other_folder(names)
    if other is not None:
        return UnreadableError(f"{path} {other.what}", hint=other.hint, path=path)
    if "data.pkl" in names and ("data" in names or "version" in names):
        return UnreadableError(
            f"{path} is a torch file that was unpacked: data.pkl, version and data are in it",
            hint=f"pack it again, uncompressed, from the folder above: "
            f"zip -0 -r {shell_quote(path.name + '.pth')} {shell_quote(path.name)}",
            path=path,
        )
    if "zero_to_fp32.py" in names:
        return UnreadableError(
            f"{path} is of a DeepSpeed run, but holds no folder with the files of its ranks",
            hint="copy the folder along that the file latest names, global_step100 or the like",
            path=path,
        )
    inner = [entry.name for entry in entries[:_MOST] if entry.is_folder and _holds_known(folder.folder(entry.name))]
    hint = "name the file or folder that holds the weights"
    if inner:
        hint = f"a folder in it does: {path / inner[0]}"
    if len(inner) > 1:
        hint = (
            f"folders in it do: {', '.join(inner[:5])}{', ...' if len(inner) > 5 else ''}; name one: {path / inner[0]}"
        )
    return UnreadableError(f"the folder {path} holds no checkpoint", hint=hint, path=path)


def _holds_known(folder: Folder) -> bool:
    try:
        entries = folder.entries()
        known = any(entry.name in KNOWN for entry in entries)
        return known or folder_container(folder, entries) is not None or kind_of(folder, entries) is not None
    except UnreadableError:  # a folder that may not be listed
        return False
