"""What checkpoint a folder holds.

By the names that loaders look for, in the order in which they look, safetensors before pickles; else by its indexes,
else by shards that count themselves, else by the files in it that are checkpoints. Several of a kind: the user decides.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import CkptError, UnreadableError, UsageError
from ckptool.formats.registry import open_file
from ckptool.formats.sharded import SHARD_NAME, open_index, open_shards
from ckptool.formats.sniff import sniff
from ckptool.storage.files import open_regular

INDEX = ".index.json"
KNOWN = [
    name
    for suffix in ("safetensors", "bin")
    for stem in ("model", "pytorch_model", "diffusion_pytorch_model", "adapter_model")
    for name in (f"{stem}.{suffix}", f"{stem}.{suffix}{INDEX}")
]
"""The names under which transformers, diffusers and peft look for weights, in their order."""

# What trainers put beside the weights: torch files, but never what is meant by "the checkpoint".
_COMPANIONS = ("optimizer", "scheduler", "scaler", "training_args", "rng_state", "random_states", "sampler")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_DEEPSPEED = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_\d+_mp_rank_\d+_\w+\.pt|global_step\d+|mp_rank_\d+_\w+\.pt")
_MOST = 1000  # files that are looked into

Candidate = tuple[str, ...]  # one file, one index, or the shards of one checkpoint
DISTRIBUTED: Candidate = (".metadata",)


def open_folder(folder: Path, select: str | None = None) -> Checkpoint:
    """Open the checkpoint that a folder holds.

    Raises:
        UnreadableError: it holds none.
        UsageError: it holds several, and none of them has a name that loaders look for.
    """
    names = _listed(folder)
    opened = _opened(folder, _choice(folder, names), select)
    files = {file.name for file in opened.files}
    left = [name for name in names if name.endswith(_WEIGHTS) and name not in files and not _is_companion(name)]
    return replace(opened, unopened=tuple(left)) if left else opened


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        reason = (error.strerror or "unknown").lower()
        raise UnreadableError(f"the folder {folder} cannot be listed: {reason}", path=folder) from error


def _opened(folder: Path, chosen: Candidate, select: str | None) -> Checkpoint:
    if chosen == DISTRIBUTED:
        from ckptool.formats.dcp import open_dcp

        return open_dcp(folder, select)
    if chosen[0].endswith(INDEX):
        return replace(open_index(folder / chosen[0], select), path=folder)
    if SHARD_NAME.fullmatch(chosen[0]):
        return open_shards(folder, chosen, select)
    return open_file(folder / chosen[0], select)


def _choice(folder: Path, names: Sequence[str]) -> Candidate:
    if ".metadata" in names or any(name.endswith(".distcp") for name in names):
        return DISTRIBUTED
    present = set(names)
    for name in KNOWN:
        if name in present and not (folder / name).is_dir():
            return (name,)
    for candidates in (_indexes(names), _shard_groups(names), _single_files(folder, names)):
        same_stem = len({candidate[0].partition(".")[0] for candidate in candidates}) == 1
        if same_stem:  # one model in two formats: safetensors wins
            return min(candidates, key=lambda candidate: ".safetensors" not in candidate[0])
        if candidates and all(_DEEPSPEED.fullmatch(candidate[0]) for candidate in candidates):
            raise _deepspeed(folder, names)
        if candidates:
            listed = ", ".join(candidate[0] for candidate in candidates[:8])
            raise UsageError(
                f"{folder} holds {len(candidates)} checkpoints: {listed}{', ...' if len(candidates) > 8 else ''}",
                hint=f"name one of them: {folder / candidates[0][0]}",
                path=folder,
            )
    raise _nothing(folder, names)


def _indexes(names: Sequence[str]) -> list[Candidate]:
    return [(name,) for name in names if name.endswith(INDEX)]


def _shard_groups(names: Sequence[str]) -> list[Candidate]:
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        match = SHARD_NAME.fullmatch(name)
        if match is not None and name.endswith(_WEIGHTS):
            groups[match["stem"], match["count"], match["suffix"]].append(name)
    return [tuple(group) for group in groups.values()]


def _single_files(folder: Path, names: Sequence[str]) -> list[Candidate]:
    """The files that are checkpoints by content; a trainer's companions only if there is nothing else.

    Raises:
        UnreadableError: there is none, but a file that has the name of one; says what it is.
    """
    found: list[Candidate] = []
    problems: dict[str, CkptError] = {}
    for name in names[:_MOST]:
        try:
            with open_regular(folder / name) as file:
                if sniff(file) != "index":
                    found.append((name,))
        except CkptError as error:  # most files of a folder are none
            problems[name] = error
    for name, problem in problems.items():
        if not found and name.endswith(_WEIGHTS) and not (folder / name).is_dir():
            raise problem
    return [candidate for candidate in found if not _is_companion(candidate[0])] or found


def _is_companion(name: str) -> bool:
    return name.startswith(_COMPANIONS)


def _deepspeed(folder: Path, names: Sequence[str]) -> UnreadableError:
    """What a folder of DeepSpeed is: the weights lie in pieces below it."""
    steps = [name for name in names if name.startswith("global_step")]
    if "zero_to_fp32.py" in names:
        hint = f"join the weights: cd {quote(str(folder))} && python zero_to_fp32.py . OUT"
    elif steps:
        hint = f"the weights are in {folder / steps[-1]}"
    else:
        hint = "zero_to_fp32.py in the folder above joins the weights"
    return UnreadableError(f"{folder} is a DeepSpeed checkpoint: every rank wrote its part", hint=hint, path=folder)


def _nothing(folder: Path, names: Sequence[str]) -> UnreadableError:
    if not names:
        return UnreadableError(f"the folder {folder} is empty", path=folder)
    if "saved_model.pb" in names:
        return UnreadableError(f"{folder} is a TensorFlow SavedModel", hint="export it to safetensors", path=folder)
    if "data.pkl" in names and ("data" in names or "version" in names):
        name = folder.absolute().name
        return UnreadableError(
            f"{folder} is a torch file that was unpacked: data.pkl, version and data are in it",
            hint=f"pack it again, uncompressed: cd {quote(str(folder.absolute().parent))} && "
            f"zip -0 -r {quote(name + '.pth')} {quote(name)}",
            path=folder,
        )
    if "zero_to_fp32.py" in names or any(_DEEPSPEED.fullmatch(name) for name in names):
        return _deepspeed(folder, names)
    inner = [name for name in names[:_MOST] if any((folder / name / known).exists() for known in (".metadata", *KNOWN))]
    hint = f"a folder in it does: {folder / inner[0]}" if inner else "name the file or folder that holds the weights"
    return UnreadableError(f"the folder {folder} holds no checkpoint", hint=hint, path=folder)
