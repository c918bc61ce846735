"""A base seen through patches: a checkpoint whose tensors are read as the patches make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ckptool.commands.patching.manifest import Manifest, Part, digest_of, read_manifest
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError, UsageError
from ckptool.core.observations import Patched
from ckptool.core.plan import Command, Plan, Source, Step
from ckptool.core.reasons import ByPatch, Kept
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Tensor
from ckptool.core.ties import with_recorded_ties
from ckptool.engine.patched import PatchedBytes
from ckptool.engine.reading import Reader

_LISTED = 3


def plan_patches(
    base: Checkpoint, patches: Sequence[Checkpoint], progress: Callable[[int, int], None] | None = None
) -> Plan:
    """Plan what patches make of a base, one after the other.

    Args:
        base: the checkpoint that the first patch was extracted from.
        patches: in the order in which they apply.
        progress: told (bytes read, bytes to read): digests are compared before anything is planned.

    Raises:
        UsageError: a patch is for another base; says what differs.
        UnreadableError: a patch is damaged, or is none.
    """
    seen, changed = base, set[str]()
    for patch in patches:
        manifest = read_manifest(patch)
        seen = patched(seen, patch, manifest, progress)
        moved = {part.key: part.source for part in manifest.parts if part.how == "same"}
        changed = {part.key for part in manifest.parts if part.how != "same" or moved[part.key] in changed}
    steps = tuple(
        Step(tensor.spec, Source(0, key), reason=ByPatch() if key in changed else Kept())
        for key, tensor in seen.tensors.items()
    )
    return Plan(
        (seen,),
        steps,
        metadata=seen.metadata,
        module_versions=base.module_versions,
        command=Command("merge", ("--patch",)),
    )


def patched(
    base: Checkpoint,
    patch: Checkpoint,
    manifest: Manifest | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Checkpoint:
    """What a patch makes of a base.

    Raises:
        UsageError: the patch is for another base; says what differs.
        UnreadableError: the patch is damaged, or is none.
    """
    manifest = manifest or read_manifest(patch)
    base = with_recorded_ties(base)
    _require_base(base, patch, manifest, progress)
    tensors: dict[str, Tensor] = {}
    for part in manifest.parts:
        tensors[part.key] = _tensor(part, base, patch, tensors)
    return replace(
        base,
        tensors=tensors,
        indexes=(*base.indexes, *patch.files),  # read with it, and no shards of it
        metadata=manifest.metadata,
        observations=(*base.observations, Patched(patch.path.name)),
    )


def _require_base(
    base: Checkpoint, patch: Checkpoint, manifest: Manifest, progress: Callable[[int, int], None] | None
) -> None:
    used = {part.source: part for part in manifest.parts if part.how in ("same", "delta")}
    absent = [key for key in used if key not in base]
    if absent:
        raise _other_base(base, patch, f"it lacks {_few(absent)}")
    total, done = sum(base[key].nbytes for key in used), 0
    wrong = []
    with Reader((base,)) as reader:
        for key, part in used.items():
            if digest_of(base[key], reader) != part.before:
                wrong.append(key)
            done += base[key].nbytes
            if progress is not None:
                progress(done, total)
    if wrong:
        raise _other_base(base, patch, f"{len(wrong):,} of {len(used):,} tensors differ: {_few(wrong)}")


def _other_base(base: Checkpoint, patch: Checkpoint, what: str) -> UsageError:
    return UsageError(
        f"{patch.path.name} is a patch for another base than {base.path.name}: {what}",
        hint="take the checkpoint that it was extracted from",
        path=base.path,
    )


def _few(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_LISTED]) + (", ..." if len(keys) > _LISTED else "")


def _tensor(part: Part, base: Checkpoint, patch: Checkpoint, made: dict[str, Tensor]) -> Tensor:
    spec = TensorSpec(part.key, part.dtype, part.shape)
    try:
        if part.how == "tied":
            found = made[part.source]
        elif part.how == "same":
            found = base[part.source]
        elif part.how == "whole":
            found = patch[part.key]
        else:
            if base[part.source].shape != part.shape or patch[part.key].dtype != "uint8":
                raise _damaged(patch, f"{part.key} cannot be {spec.short}, made of {base[part.source].spec.short}")
            found = PatchedBytes(base[part.source], patch[part.key], spec).tensor
    except KeyError as error:
        raise _damaged(patch, f"it lacks {error.args[0]}") from None
    if (found.dtype, found.shape) != (spec.dtype, spec.shape):
        raise _damaged(patch, f"{part.key} is {found.spec.short}, not {spec.short}")
    return replace(found, spec=spec, node=None)


def _damaged(patch: Checkpoint, why: str) -> UnreadableError:
    return UnreadableError(f"{patch.path} is damaged: {why}", hint="get the patch again", path=patch.path)
